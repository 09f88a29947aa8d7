//! What must be true of a translated ICMP error: its numbers by the tables of RFC 7915 §4.2 and §5.2, written down a
//! second time, and its quote byte for byte.

use std::net::IpAddr;

use sampan::xlat::FlowPair;

use super::judge::{self, Sent};
use super::naive::{self, Ip, long, word};

/// Link MTUs of both sides.
#[derive(Clone, Copy, Debug)]
pub struct Links {
    pub mtu6: u32,
    pub mtu4: u32,
}

/// Type, code and bytes 4–7 without the RFC 4884 length.
type Head = (u8, u8, u32);

/// An ICMP error, read.
pub struct Error<'a> {
    pub ip: Ip,
    pub kind: u8,
    pub code: u8,
    pub rest: u32,
    /// The quoted packet; its bytes may be fewer than it says.
    pub quote: &'a [u8],
    pub quoted: Ip,
    /// RFC 4884 extension, if there is one.
    pub extension: &'a [u8],
}

/// Reads an ICMP error whose checksum is right and whose quote names a flow. `None`: it must not be translated.
pub fn read(bytes: &[u8]) -> Option<Error<'_>> {
    let ip = naive::read(bytes, true).ok()?;
    naive::transport(bytes, &ip).ok()?;
    if !naive::is_icmp_error(bytes, &ip) || naive::is_checksum_right(bytes, &ip) != Some(true) {
        return None;
    }
    let message = &bytes[ip.l4..ip.len];
    let (kind, code, rest) = (message[0], message[1], long(message, 4));
    let len = extension_at(ip.is_v6(), kind, rest).filter(|len| 8 + len <= message.len());
    let (quote, extension) = message[8..].split_at(len.unwrap_or(message.len() - 8));
    let quoted = naive::read(quote, false).ok()?;
    let readable = quoted.is_v6() == ip.is_v6()
        && quoted.len >= quoted.l4 + 8
        && quote.len() >= quoted.l4 + 8
        && quoted.fragment.is_none_or(|(offset, _)| offset == 0);
    let kind_of_quoted = quote.get(quoted.l4).copied().unwrap_or(0);
    let has_flow = match quoted.protocol {
        naive::TCP | naive::UDP => true,
        p if p == quoted.icmp() && quoted.is_v6() => matches!(kind_of_quoted, 128 | 129),
        p if p == quoted.icmp() => matches!(kind_of_quoted, 0 | 8),
        _ => false,
    };
    (readable && has_flow).then_some(Error { ip, kind, code, rest, quote, quoted, extension })
}

/// Length of the quote when an extension follows it (RFC 4884 §4).
fn extension_at(is_v6: bool, kind: u8, rest: u32) -> Option<usize> {
    let len = match (is_v6, kind) {
        (true, 1 | 3) => (rest >> 24) as usize * 8,
        (false, 3 | 11 | 12) => (rest >> 16 & 0xff) as usize * 4,
        _ => 0,
    };
    (len > 0).then_some(len)
}

impl Error<'_> {
    /// The numbers in the other family; `None` when there are none.
    pub fn head(&self, links: Links) -> Option<Head> {
        if self.ip.is_v6() { self.head_to_v4(links) } else { self.head_to_v6(links) }
    }

    fn head_to_v6(&self, links: Links) -> Option<Head> {
        Some(match (self.kind, self.code) {
            (3, 0 | 1 | 5 | 6 | 7 | 8 | 11 | 12) => (1, 0, 0),
            (3, 2) => (4, 1, 6),
            (3, 3) => (1, 4, 0),
            (3, 4) => {
                let mtu = match self.rest & 0xffff {
                    0 => plateau(self.quoted.len as u32),
                    mtu => mtu + 20,
                };
                (2, 0, mtu.min(links.mtu6).min(links.mtu4 + 20).max(1280))
            }
            (3, 9 | 10 | 13 | 15) => (1, 1, 0),
            (11, code) => (3, code, 0),
            (12, 0 | 2) => {
                let to = [0, 1, 4, 4, 99, 99, 99, 99, 7, 6, 99, 99, 8, 8, 8, 8, 24, 24, 24, 24];
                match to.get((self.rest >> 24) as usize) {
                    Some(99) | None => return None,
                    Some(pointer) => (4, 0, *pointer),
                }
            }
            _ => return None,
        })
    }

    fn head_to_v4(&self, links: Links) -> Option<Head> {
        Some(match (self.kind, self.code) {
            (1, 0 | 2 | 3) => (3, 1, 0),
            (1, 1) => (3, 10, 0),
            (1, 4) => (3, 3, 0),
            (2, _) => {
                let less = if self.quoted.has_fragment_header { 28 } else { 20 };
                let mtu = self.rest.saturating_sub(less).min(links.mtu4).min(links.mtu6 - 20);
                (3, 4, mtu.clamp(68, 65_535))
            }
            (3, code) => (11, code, 0),
            (4, 0) => {
                let pointer = match self.rest {
                    0 => 0,
                    1 => 1,
                    4 | 5 => 2,
                    6 => 9,
                    7 => 8,
                    8..=23 => 12,
                    24..=39 => 16,
                    _ => return None,
                };
                (12, 0, pointer << 24)
            }
            (4, 1) => (3, 2, 0),
            _ => return None,
        })
    }

    /// Whether the quoted packet is one of `flow`, on its way from the client or to it, and the error goes back to its
    /// source.
    pub fn is_about(&self, flow: &FlowPair, protocol: u8, from_client: bool) -> bool {
        let is_icmp = |p: u8| [naive::ICMP, naive::ICMPV6].contains(&p);
        let is_echo = is_icmp(protocol);
        let same = if is_echo { is_icmp(self.quoted.protocol) } else { protocol == self.quoted.protocol };
        let (client, peer): ((IpAddr, u16), (IpAddr, u16)) = match self.ip.is_v6() {
            true => ((flow.src6.into(), flow.port6), (flow.dst6.into(), flow.peer_port)),
            false => ((flow.src4.into(), flow.port4), (flow.dst4.into(), flow.peer_port)),
        };
        let (src, dst) = if from_client { (client, peer) } else { (peer, client) };
        let at = |i: usize| word(self.quote, self.quoted.l4 + i);
        let ports_are_right = match is_echo {
            true => at(4) == client.1,
            false => (at(0), at(2)) == (src.1, dst.1),
        };
        let addresses = (self.quoted.src, self.quoted.dst, self.ip.dst);
        same && addresses == (src.0, dst.0, src.0) && ports_are_right
    }
}

/// RFC 1191 §7.1.
fn plateau(len: u32) -> u32 {
    let plateaus = [65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68];
    plateaus.into_iter().find(|p| *p < len).unwrap_or(0)
}

/// Checks that `out` is the translation of the error `input` about a packet of `flow`.
pub fn translated(input: &Error<'_>, out: &Sent, flow: &FlowPair, links: Links, hops: u8) {
    let (bytes, offload) = out;
    let to = judge::well_formed(bytes, *offload);
    assert!(!input.ip.routed, "B-11, C-09: source route or segments left must not be translated");
    assert_eq!(to.is_v6(), !input.ip.is_v6());
    assert_eq!((to.hops, to.tos), (hops, input.ip.tos));
    let outer: IpAddr = if to.is_v6() { flow.src6.into() } else { flow.dst4.into() };
    assert_eq!(to.dst, outer, "D-57, D-58: to the source of the quoted packet");
    assert!(bytes.len() <= if to.is_v6() { 1280 } else { 576 }, "D-64: {} bytes", bytes.len());
    let Some(output) = read(bytes) else { panic!("D-54, D-50: the output cannot be read: {bytes:02x?}") };
    let head = (output.kind, output.code, without_length(&output));
    assert_eq!(Some(head), input.head(links), "of {}/{} {:#x}", input.kind, input.code, input.rest);
    check_extension(input, &output);
    let from_client = !input.ip.is_v6();
    assert!(
        output.is_about(flow, input.quoted.protocol, from_client),
        "D-49: addresses and ports of the quote"
    );
    check_quote(input, &output, bytes.len());
}

fn without_length(error: &Error<'_>) -> u32 {
    match extension_at(error.ip.is_v6(), error.kind, error.rest) {
        Some(_) if error.ip.is_v6() => error.rest & 0x00ff_ffff,
        Some(_) => error.rest & 0xff00_ffff,
        None => error.rest,
    }
}

/// D-59 to D-63: objects as they came, behind a quote of at least 128 bytes.
fn check_extension(input: &Error<'_>, output: &Error<'_>) {
    let room = if output.ip.is_v6() { 1280 - 48 } else { 576 - 28 };
    let unit = matches!((output.ip.is_v6(), output.kind), (true, 1 | 3) | (false, 3 | 11 | 12));
    let is_structure = input.extension.len() >= 4 && input.extension[0] >> 4 == 2;
    if unit && is_structure && input.extension.len() + 128 <= room {
        assert_eq!(output.extension, input.extension, "D-59, D-62, D-63");
    } else {
        assert_eq!(output.extension, [0; 0], "D-60");
    }
    if output.extension.is_empty() {
        assert_eq!(
            extension_at(output.ip.is_v6(), output.kind, output.rest),
            None,
            "length without extension"
        );
        return;
    }
    assert!(output.quote.len() >= 128, "D-61");
}

/// D-45, D-46, D-48, D-55, D-56: the header translated, the hop limit kept, everything behind the ports as it was.
fn check_quote(input: &Error<'_>, output: &Error<'_>, out_len: usize) {
    let (from, to) = (&input.quoted, &output.quoted);
    assert_eq!((from.hops, from.tos), (to.hops, to.tos), "D-45");
    assert!(!to.has_options && !to.has_fragment_header, "the quoted header has nothing else");
    let said = (from.len - from.l4).min(if to.is_v6() { 65_535 } else { 65_515 });
    assert_eq!(to.len - to.l4, said, "D-46: length of the quoted packet");
    let kept = |error: &Error<'_>| error.quote[error.quoted.l4..].to_vec();
    let (before, after) = (kept(input), kept(output));
    let field = match from.protocol {
        naive::TCP => 16,
        naive::UDP => 6,
        _ => {
            let which = |error: &Error<'_>, kind: u8| kind == if error.ip.is_v6() { 129 } else { 0 };
            assert_eq!(which(input, before[0]), which(output, after[0]), "D-48");
            2
        }
    };
    // Behind the quoted packet there may be padding, which need not come along.
    let real = before.len().min(from.len - from.l4);
    let same = real.min(after.len());
    for at in 8..same {
        let is_checksum = at == field || at == field + 1;
        assert!(is_checksum || before[at] == after[at], "byte {at} behind the quoted header");
    }
    let limit = if to.is_v6() { 1280 } else { 576 };
    let is_full = out_len == limit || !output.extension.is_empty() && out_len + 8 > limit;
    assert!(after.len() >= real || is_full, "{} of {real} bytes quoted in {out_len}", after.len());
    assert!(after[same..].iter().all(|b| *b == 0), "padding is zero");
    // D-56, D-65: a quote that can be verified before can be verified afterwards.
    let whole = |error: &Error<'_>| error.quote.len() >= error.quoted.len;
    if whole(input) && whole(output) && from.fragment.is_none() {
        assert_eq!(
            naive::is_checksum_right(output.quote, to),
            naive::is_checksum_right(input.quote, from),
            "D-56: checksum of the quoted transport"
        );
    }
}
