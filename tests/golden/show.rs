//! Packets as text: a line for each header, then the bytes.

use std::fmt::Write;

use crate::naive::{self, long, word};

/// The packet's headers, those of a quoted packet too, and all bytes.
pub fn packet(bytes: &[u8]) -> String {
    let mut text = String::new();
    headers(bytes, true, &mut text);
    for (i, line) in bytes.chunks(16).enumerate() {
        let digits: Vec<String> = line.iter().map(|b| format!("{b:02x}")).collect();
        let _ = writeln!(text, "  # {:04x}  {}", i * 16, digits.join(" "));
    }
    text
}

fn headers(bytes: &[u8], whole: bool, text: &mut String) {
    let ip = match naive::read(bytes, whole) {
        Ok(ip) => ip,
        Err(e) => {
            let _ = writeln!(text, "  # bad {e}");
            return;
        }
    };
    let (src, dst) = (ip.src, ip.dst);
    if ip.is_v6() {
        let _ = write!(text, "  ip6 {src} > {dst} tc={:#x} hop={}", ip.tos, ip.hops);
    } else {
        let df = if ip.df { " df" } else { "" };
        let _ = write!(text, "  ip4 {src} > {dst} tos={:#x} ttl={} id={}{df}", ip.tos, ip.hops, ip.id);
    }
    let _ = writeln!(text, " len={}", if ip.is_v6() { ip.len - 40 } else { ip.len });
    if ip.has_fragment_header || ip.fragment.is_some() {
        let (offset, more) = ip.fragment.unwrap_or((0, false));
        let _ = writeln!(text, "  # fragment id={:#x} offset={offset} more={more}", ip.id);
        if offset > 0 {
            return;
        }
    }
    let sum = match naive::is_checksum_right(bytes, &ip) {
        Some(true) => "right",
        Some(false) => "wrong",
        None => "not checked",
    };
    let l4 = bytes.get(ip.l4..).unwrap_or(&[]);
    let Some(head) = l4.get(..8) else { return };
    let at = |i: usize| word(head, i);
    let _ = match ip.protocol {
        naive::TCP => writeln!(text, "  tcp {} > {} # checksum {sum}", at(0), at(2)),
        naive::UDP => writeln!(text, "  udp {} > {} len={} # checksum {sum}", at(0), at(2), at(4)),
        p if p == ip.icmp() && naive::is_icmp_error(bytes, &ip) => {
            let (kind, code, rest) = (head[0], head[1], long(head, 4));
            let _ = writeln!(text, "  icmp {kind}/{code} rest={rest:#010x} # checksum {sum}");
            headers(l4.get(8..).unwrap_or(&[]), false, text);
            Ok(())
        }
        p if p == ip.icmp() => {
            writeln!(text, "  echo type {} id={} seq={} # checksum {sum}", head[0], at(4), at(6))
        }
        other => writeln!(text, "  protocol {other}"),
    };
}
