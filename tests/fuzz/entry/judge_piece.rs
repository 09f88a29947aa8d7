//! What must be true of what the stateless translator carries without knowing the whole: a piece of a datagram, or a
//! transport that it cannot read.

use std::net::IpAddr;

use super::judge::{self, Rules, Sent};
use super::naive::{self, Ip, word};

const DCCP: u8 = 33;
const UDP_LITE: u8 = 136;

/// Checks that `out`, from and to `ends`, is `input` in the other family: C-14, E-08, E-09, E-22, B-15.
pub fn translated(input: &[u8], out: &[Sent], rules: &Rules, ends: (IpAddr, IpAddr)) {
    let Ok(from) = naive::read(input, true) else { panic!("translated although broken") };
    assert!(!from.routed, "B-11, C-09");
    let payload = &input[from.l4..from.len];
    let is_icmp = [naive::ICMP, naive::ICMPV6].contains(&from.protocol);
    assert!(!(is_icmp && from.fragment.is_some()), "E-07: fragmented ICMP");
    assert!(from.fragment.is_none() || !is_impossible(payload, &from), "E-04, E-15: {from:?}");
    let (start, more) = from.fragment.unwrap_or((0, false));
    let mut joined = Vec::new();
    for (number, (bytes, offload)) in out.iter().enumerate() {
        let ip = judge::well_formed_ip(bytes, *offload);
        assert_eq!((ip.src, ip.dst, ip.protocol), (ends.0, ends.1, from.protocol));
        assert_eq!((ip.tos, ip.hops), (from.tos, rules.hops), "B-02, B-08");
        let is_last = number + 1 == out.len();
        let whole = out.len() == 1 && from.fragment.is_none();
        let place = ip.fragment.unwrap_or((0, false));
        assert_eq!(
            place,
            (start + joined.len(), more || !is_last),
            "C-14, E-08, E-22: place in the datagram"
        );
        assert_eq!(ip.fragment.is_none(), whole, "C-13");
        if from.is_v6() {
            assert!(bytes.len() <= rules.mtu4, "{} bytes for {}", bytes.len(), rules.mtu4);
            let id_is_kept = from.has_fragment_header && !rules.reassembled;
            assert!(!id_is_kept || ip.id == from.id & 0xffff, "E-08: identification");
            assert!(!from.has_fragment_header || !ip.df, "E-08: DF");
        } else {
            let limit = if from.df { rules.mtu6 } else { rules.mtu6.min(rules.lowest_ipv6_mtu) };
            assert!(bytes.len() <= limit, "{} bytes for {limit}", bytes.len());
            assert!(from.fragment.is_none() || ip.id == from.id, "C-14: identification");
            assert!(out.len() == 1 || !from.df, "E-19: cut in spite of DF");
        }
        joined.extend(&bytes[ip.l4..]);
    }
    check_payload(payload, &joined, &from, ends, start == 0);
}

/// Byte for byte the same, but for a checksum that covers the addresses.
fn check_payload(payload: &[u8], joined: &[u8], from: &Ip, ends: (IpAddr, IpAddr), is_first: bool) {
    assert_eq!(payload.len(), joined.len(), "length of the payload");
    let field = match from.protocol {
        naive::TCP => 16,
        naive::UDP | DCCP | UDP_LITE => 6,
        _ => usize::MAX,
    };
    let has_field = is_first && field < payload.len().saturating_sub(1);
    for at in 0..payload.len() {
        let is_checksum = has_field && (at == field || at == field + 1);
        assert!(is_checksum || payload[at] == joined[at], "byte {at} of the payload");
    }
    if has_field {
        // The sum of addresses and checksum stays what it was (RFC 1624).
        let there = naive::sum(&[&octets(from.src), &octets(from.dst), &payload[field..field + 2]]);
        let here = naive::sum(&[&octets(ends.0), &octets(ends.1), &joined[field..field + 2]]);
        assert!(there == here || there ^ here == 0xffff && (there == 0 || here == 0), "B-16: checksum");
        assert!(from.protocol != naive::UDP || word(joined, field) != 0, "B-19");
    }
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

/// Whether no honest datagram has such a piece.
pub fn is_impossible(payload: &[u8], ip: &Ip) -> bool {
    let Some((offset, more)) = ip.fragment else { return false };
    let least = match ip.protocol {
        naive::TCP => payload.get(12).map_or(20, |b| usize::from(b >> 4) * 4).max(20),
        naive::UDP => 8,
        _ => 0,
    };
    payload.is_empty()
        || more && !payload.len().is_multiple_of(8)
        || offset + payload.len() > 65_515
        || offset == 0 && payload.len() < least
        // RFC 3128: it would lie in the TCP header.
        || ip.protocol == naive::TCP && (1..20).contains(&offset)
}
