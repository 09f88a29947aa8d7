//! What of the kernel's firewall sees forwarded packets: nf_tables over netlink, and the tables of the old iptables.

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

/// `NFNL_SUBSYS_NFTABLES`, and requests of it.
const NFTABLES: u16 = 10 << 8;
const GET_CHAIN: u16 = 4;
const GET_RULE: u16 = 7;
const REQUEST_DUMP: u16 = 0x1 | 0x300;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NF_INET_FORWARD`.
const FORWARD: u32 = 2;
const DROP: u32 = 0;

/// Something that would miss the packets which do not take the kernel's usual way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnPath {
    /// A chain that filters forwarded packets.
    Forward {
        /// Family, table and name.
        chain: String,
    },
    /// Something that tracks connections.
    Conntrack {
        /// What uses it.
        user: String,
    },
}

/// The first thing that would miss forwarded packets, if there is one.
pub fn on_path() -> io::Result<Option<OnPath>> {
    for (family, file) in [("ip", "ip_tables_names"), ("ip6", "ip6_tables_names")] {
        let tables = std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
        if tables.lines().any(|table| table == "filter" || table == "mangle") {
            return Ok(Some(OnPath::Forward { chain: format!("{family} filter FORWARD (iptables)") }));
        }
        if tables.lines().any(|table| table == "nat") {
            return Ok(Some(OnPath::Conntrack { user: format!("{family} nat (iptables)") }));
        }
    }
    let chains = match dump(GET_CHAIN) {
        Ok(chains) => chains,
        // No nf_tables in this kernel.
        Err(e)
            if e.raw_os_error()
                .is_some_and(|e| [libc::EPROTONOSUPPORT, libc::EOPNOTSUPP, libc::EINVAL].contains(&e)) =>
        {
            return Ok(None);
        }
        Err(e) => return Err(e),
    };
    let chains: Vec<Chain> = chains.iter().filter_map(|message| chain(message)).collect();
    if let Some(found) = chains.iter().find_map(Chain::on_path) {
        return Ok(Some(found));
    }
    let rules = dump(GET_RULE)?;
    Ok(rules.iter().find_map(|message| tracking(message)))
}

#[derive(Debug, PartialEq, Eq)]
struct Chain {
    name: String,
    hook: Option<u32>,
    policy: Option<u32>,
    rules: u32,
    kind: String,
}

impl Chain {
    fn on_path(&self) -> Option<OnPath> {
        let hook = self.hook?;
        if self.kind == "nat" && self.rules > 0 {
            return Some(OnPath::Conntrack { user: self.name.clone() });
        }
        let filters = hook == FORWARD && (self.rules > 0 || self.policy == Some(DROP));
        filters.then(|| OnPath::Forward { chain: self.name.clone() })
    }
}

/// A chain of a family that IP packets go through.
fn chain(message: &[u8]) -> Option<Chain> {
    let (family, body) = families(message)?;
    let name = format!("{family} {} {}", text(find(body, 1)?), text(find(body, 3)?));
    let hook = find(body, 4).and_then(|hook| number(find(hook, 1)?));
    Some(Chain {
        name,
        hook,
        policy: find(body, 5).and_then(number),
        rules: find(body, 6).and_then(number).unwrap_or(0),
        kind: find(body, 7).map(text).unwrap_or_default(),
    })
}

/// Whether a rule makes the kernel track connections.
fn tracking(message: &[u8]) -> Option<OnPath> {
    let (family, body) = families(message)?;
    let expressions = find(body, 4)?;
    let tracks = attributes(expressions)
        .filter_map(|(_, expression)| find(expression, 1))
        .any(|name| matches!(&*text(name), "ct" | "nat" | "masq" | "redir" | "connlimit" | "flow_offload"));
    tracks.then(|| OnPath::Conntrack {
        user: format!(
            "{family} {} {}",
            find(body, 1).map(text).unwrap_or_default(),
            find(body, 2).map(text).unwrap_or_default()
        ),
    })
}

/// The family of a message and its attributes, when IP packets meet it.
fn families(message: &[u8]) -> Option<(&'static str, &[u8])> {
    let family = match message.first()? {
        1 => "inet",
        2 => "ip",
        10 => "ip6",
        _ => return None,
    };
    Some((family, message.get(4..)?))
}

fn find(attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    self::attributes(attributes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// Kinds and values.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let &[l0, l1, k0, k1, ..] = bytes else { return None };
        let len = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        // The upper bits say how the value is coded.
        Some((u16::from_ne_bytes([k0, k1]) & 0x3fff, value))
    })
}

fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|byte| *byte == 0).next().unwrap_or(&[])).into_owned()
}

/// Everything of one kind, message by message, from the family on.
fn dump(request: u16) -> io::Result<Vec<Vec<u8>>> {
    let fd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )?;
    let mut message = Vec::with_capacity(20);
    message.extend(20_u32.to_ne_bytes());
    message.extend((NFTABLES | request).to_ne_bytes());
    message.extend(REQUEST_DUMP.to_ne_bytes());
    // Sequence number, our address, and the families: any.
    message.extend([0; 12]);
    sendto(fd.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut found = Vec::new();
    let mut buffer = vec![0; 65_536];
    loop {
        let len = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = buffer.get(..len).unwrap_or(&[]);
        while let &[l0, l1, l2, l3, k0, k1, ..] = rest {
            let len = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
            let Some(body) = rest.get(16..len) else { break };
            match u16::from_ne_bytes([k0, k1]) {
                DONE => return Ok(found),
                ERROR => {
                    let code = body.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
                    return Err(io::Error::from_raw_os_error(code.wrapping_neg()));
                }
                _ => found.push(body.to_vec()),
            }
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        }
        if len == 0 {
            return Ok(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend((4 + value.len() as u16).to_ne_bytes());
        out.extend(kind.to_ne_bytes());
        out.extend(value);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    fn a_chain(hook: u32, kind: &str, policy: u32, rules: u32) -> Vec<u8> {
        let mut message = vec![1, 0, 0, 0];
        let hook = attribute(1, &hook.to_be_bytes());
        message.extend(attribute(1, b"f\0"));
        message.extend(attribute(3, b"fwd\0"));
        message.extend(attribute(4 | 0x8000, &hook));
        message.extend(attribute(5, &policy.to_be_bytes()));
        message.extend(attribute(6, &rules.to_be_bytes()));
        message.extend(attribute(7, format!("{kind}\0").as_bytes()));
        message
    }

    #[test]
    fn what_filters_or_tracks_forwarded_packets_is_found() {
        let of = |message: &[u8]| chain(message).unwrap().on_path();
        let forward = Some(OnPath::Forward { chain: "inet f fwd".into() });
        assert_eq!(of(&a_chain(2, "filter", 1, 3)), forward);
        assert_eq!(of(&a_chain(2, "filter", 0, 0)), forward, "a policy of drop");
        assert_eq!(of(&a_chain(2, "filter", 1, 0)), None, "an empty chain");
        assert_eq!(of(&a_chain(1, "filter", 0, 3)), None, "packets for the machine itself");
        let conntrack = Some(OnPath::Conntrack { user: "inet f fwd".into() });
        assert_eq!(of(&a_chain(4, "nat", 1, 1)), conntrack);
        assert_eq!(of(&a_chain(4, "nat", 1, 0)), None);
        let mut other = a_chain(2, "filter", 1, 3);
        other[0] = 7;
        assert_eq!(chain(&other), None, "bridges");

        let mut rule = vec![2, 0, 0, 0];
        rule.extend(attribute(1, b"f\0"));
        rule.extend(attribute(2, b"in\0"));
        let expression = |name: &[u8]| attribute(1, &attribute(1, name));
        let both = [expression(b"meta\0"), expression(b"ct\0")].concat();
        assert_eq!(
            tracking(&[rule.clone(), attribute(4, &both)].concat()),
            Some(OnPath::Conntrack { user: "ip f in".into() })
        );
        assert_eq!(tracking(&[rule, attribute(4, &expression(b"meta\0"))].concat()), None);
    }

    #[test]
    fn broken_messages_are_only_data() {
        let whole = a_chain(2, "filter", 1, 3);
        for len in 0..whole.len() {
            let _ = chain(&whole[..len]);
        }
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0xff;
            let _ = (chain(&flipped), tracking(&flipped));
        }
    }
}
