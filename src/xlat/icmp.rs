//! ICMP errors from one family to the other, with the packet they quote (RFC 7915 §4.2–4.3, §5.2–5.3).
//!
//! Errors are short and rare, so they are built anew in a second buffer instead of being edited in place. RFC 4884
//! extensions travel on as they are where the other family's message has a place for them.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::FlowPair;
use super::icmp_error::{MAX_ERROR4, MAX_ERROR6};
use crate::verdict::DropReason;
use crate::wire::checksum::{self, Sum, pseudo6};
use crate::wire::fragment;
use crate::wire::icmp::{HEADER, Icmp, Quote, QuotedFlow, v4, v6};
use crate::wire::ipv4::{self, Header4};
use crate::wire::ipv6::{self, Header6};
use crate::wire::l4::{self, Payload};
use crate::wire::packet::PacketBuf;

/// Type, code and bytes 4–7 of an ICMP error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Bytes 4–7 as one number: MTU, pointer or RFC 4884 length.
    pub rest: u32,
}

/// The fixed part of the ICMP error in `packet`, whose transport begins at `l4`, and the whole message.
pub fn head_and_message(
    payload: Payload,
    l4: usize,
    packet: &PacketBuf,
) -> Result<(Head, &[u8]), DropReason> {
    match payload {
        Payload::Icmp(Icmp::Error { kind, code, rest }) => {
            Ok((Head { kind, code, rest }, packet.bytes().get(l4..).unwrap_or(&[])))
        }
        Payload::Icmp(_) | Payload::Tcp(_) | Payload::Udp(_) | Payload::Fragment | Payload::Other(_) => {
            Err(DropReason::IcmpType)
        }
    }
}

/// Link MTUs that cap what a translated Packet Too Big says, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Mtus {
    /// Of the next hop on the IPv6 side.
    pub v6: u16,
    /// Of the next hop on the IPv4 side.
    pub v4: u16,
}

/// Outer header of a translated error.
#[derive(Clone, Copy, Debug)]
pub struct Outer<A> {
    /// Source.
    pub src: A,
    /// Destination.
    pub dst: A,
    /// Type of service or traffic class.
    pub traffic_class: u8,
    /// TTL or hop limit.
    pub hop_limit: u8,
}

/// The ICMPv6 head of an ICMPv4 error (RFC 7915 §4.2); `quoted_len` is the quoted packet's total length.
pub fn head_to_v6(head: Head, quoted_len: usize, mtus: Mtus) -> Result<Head, DropReason> {
    let unreachable = |code| Ok(Head { kind: v6::UNREACHABLE, code, rest: 0 });
    match (head.kind, head.code) {
        (v4::UNREACHABLE, 0 | 1 | 5..=8 | 11 | 12) => unreachable(0),
        // Protocol unreachable: the pointer names the Next Header field.
        (v4::UNREACHABLE, 2) => Ok(Head { kind: v6::PARAMETER_PROBLEM, code: 1, rest: 6 }),
        (v4::UNREACHABLE, 3) => unreachable(4),
        (v4::UNREACHABLE, 4) => {
            let mtu4 = match head.rest as u16 {
                // RFC 1191 §7: routers that do not tell; the next plateau below the packet is assumed. X-08.
                0 => PLATEAUS.iter().copied().find(|p| usize::from(*p) < quoted_len).unwrap_or(0).into(),
                told => u32::from(told) + 20,
            };
            let mtu = mtu4.min(u32::from(mtus.v6)).min(u32::from(mtus.v4) + 20).max(1280);
            Ok(Head { kind: v6::PACKET_TOO_BIG, code: 0, rest: mtu })
        }
        (v4::UNREACHABLE, 9 | 10 | 13 | 15) => unreachable(1),
        (v4::TIME_EXCEEDED, code) => Ok(Head { kind: v6::TIME_EXCEEDED, code, rest: 0 }),
        (v4::PARAMETER_PROBLEM, 0 | 2) => {
            // RFC 7915 Figure 3.
            let pointer = match head.rest >> 24 {
                same @ (0 | 1) => same,
                2 | 3 => 4,
                8 => 7,
                9 => 6,
                12..=15 => 8,
                16..=19 => 24,
                _ => return Err(DropReason::IcmpPointer),
            };
            Ok(Head { kind: v6::PARAMETER_PROBLEM, code: 0, rest: pointer })
        }
        _ => Err(DropReason::IcmpType),
    }
}

/// The ICMPv4 head of an ICMPv6 error (RFC 7915 §5.2).
pub fn head_to_v4(head: Head, quote_has_fragment_header: bool, mtus: Mtus) -> Result<Head, DropReason> {
    let unreachable = |code| Ok(Head { kind: v4::UNREACHABLE, code, rest: 0 });
    match (head.kind, head.code) {
        (v6::UNREACHABLE, 0 | 2 | 3) => unreachable(1),
        (v6::UNREACHABLE, 1) => unreachable(10),
        (v6::UNREACHABLE, 4) => unreachable(3),
        (v6::PACKET_TOO_BIG, _) => {
            // A quoted Fragment Header is 8 more bytes that the IPv4 form does not have. X-07.
            let less = if quote_has_fragment_header { 28 } else { 20 };
            let mtu = head
                .rest
                .saturating_sub(less)
                .min(u32::from(mtus.v4))
                .min(u32::from(mtus.v6).saturating_sub(20))
                .clamp(68, 0xffff);
            Ok(Head { kind: v4::UNREACHABLE, code: 4, rest: mtu })
        }
        (v6::TIME_EXCEEDED, code) => Ok(Head { kind: v4::TIME_EXCEEDED, code, rest: 0 }),
        (v6::PARAMETER_PROBLEM, 0) => {
            // RFC 7915 Figure 6.
            let pointer = match head.rest {
                same @ (0 | 1) => same,
                4 | 5 => 2,
                6 => 9,
                7 => 8,
                8..=23 => 12,
                24..=39 => 16,
                _ => return Err(DropReason::IcmpPointer),
            };
            Ok(Head { kind: v4::PARAMETER_PROBLEM, code: 0, rest: pointer << 24 })
        }
        (v6::PARAMETER_PROBLEM, 1) => unreachable(2),
        _ => Err(DropReason::IcmpType),
    }
}

/// RFC 1191 §7.1, largest first.
const PLATEAUS: [u16; 11] = [65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68];

/// The parts of an ICMP error behind its first 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body<'a> {
    /// The quoted packet, perhaps with padding.
    pub quote: &'a [u8],
    /// The RFC 4884 extension structure; empty when there is none.
    pub extension: &'a [u8],
}

/// Version of the extension structure, in the upper half of its first byte (RFC 4884 §7).
const EXTENSION_VERSION: u8 = 2;
/// With an extension behind it a quote has at least this many bytes (RFC 4884 §3).
const MIN_EXTENDED_QUOTE: usize = 128;

/// The parts of an ICMPv4 error.
pub fn body4(head: Head, message: &[u8]) -> Body<'_> {
    let words = usize::from((head.rest >> 16) as u8);
    split(message, if unit4(head.kind).is_some() { words * UNIT4 } else { 0 })
}

/// The parts of an ICMPv6 error.
pub fn body6(head: Head, message: &[u8]) -> Body<'_> {
    let words = usize::from((head.rest >> 24) as u8);
    split(message, if unit6(head.kind).is_some() { words * UNIT6 } else { 0 })
}

/// Bytes that the length attribute counts in ICMPv4 and ICMPv6 (RFC 4884 §4).
const UNIT4: usize = 4;
const UNIT6: usize = 8;

/// The unit, where the type may be extended (RFC 4884 §4.1–4.6).
const fn unit4(kind: u8) -> Option<usize> {
    match kind {
        v4::UNREACHABLE | v4::TIME_EXCEEDED | v4::PARAMETER_PROBLEM => Some(UNIT4),
        _ => None,
    }
}

const fn unit6(kind: u8) -> Option<usize> {
    match kind {
        v6::UNREACHABLE | v6::TIME_EXCEEDED => Some(UNIT6),
        _ => None,
    }
}

/// A length of zero says that there is no extension; one beyond the message, that somebody is wrong. An extension
/// behind a short quote is taken nevertheless: such routers exist (D-62).
fn split(message: &[u8], len: usize) -> Body<'_> {
    let all = message.get(HEADER..).unwrap_or(&[]);
    match all.split_at_checked(len) {
        Some((quote, extension)) if len > 0 => {
            let known =
                extension.len() >= 4 && extension.first().is_some_and(|b| b >> 4 == EXTENSION_VERSION);
            Body { quote, extension: if known { extension } else { &[] } }
        }
        Some(_) | None => Body { quote: all, extension: &[] },
    }
}

/// Fills `out` with room for all headers, the quoted transport without padding, and the extension, all within `max`
/// bytes. Returns the length attribute in units, zero without extension.
fn lay_out(
    headers: (usize, usize),
    transport: &[u8],
    extension: &[u8],
    unit: Option<usize>,
    max: usize,
    out: &mut PacketBuf,
) -> u8 {
    const ZEROES: [u8; 256] = [0; 256];
    let (outer, inner) = headers;
    let front = outer + HEADER;
    out.fill(&ZEROES[..front + inner]);
    out.append(transport);
    let room = max.saturating_sub(front + extension.len());
    let Some(unit) = unit.filter(|_| !extension.is_empty() && room >= MIN_EXTENDED_QUOTE) else {
        out.truncate(max);
        return 0;
    };
    // The attribute has 8 bits; what is quoted in ICMPv4 has 1020 bytes at most.
    let most = (room / unit).min(usize::from(u8::MAX)) * unit;
    out.truncate(front + most);
    let quote = out.len() - front;
    let padded = quote.next_multiple_of(unit).clamp(MIN_EXTENDED_QUOTE, most);
    out.append(&ZEROES[..padded.saturating_sub(quote)]);
    out.append(extension);
    (padded / unit) as u8
}

/// Builds the ICMPv6 form of an ICMPv4 error in `out`. `body` quotes a packet of `flow` on its way from the
/// IPv6 client to its peer.
pub fn error_to_v6(
    outer: &Outer<Ipv6Addr>,
    head: Head,
    body: Body<'_>,
    quote: &Quote<Ipv4Addr>,
    flow: &FlowPair,
    out: &mut PacketBuf,
) {
    let next_header = protocol_of(quote.flow, l4::ICMPV6);
    let fragment_header = if quote.fragment.is_some() { fragment::HEADER } else { 0 };
    let header = Header6 {
        traffic_class: quote.traffic_class,
        payload_len: u16::try_from(fragment_header + quote.payload_len).unwrap_or(u16::MAX),
        next_header: if quote.fragment.is_some() { ipv6::FRAGMENT } else { next_header },
        // RFC 7915 §4.3: the quoted hop limit is not decremented.
        hop_limit: quote.hop_limit,
        src: flow.src6,
        dst: flow.dst6,
    };
    let transport = quoted_transport(body.quote, quote.l4, quote.payload_len);
    let headers = (ipv6::HEADER, ipv6::HEADER + fragment_header);
    let words = lay_out(headers, transport, body.extension, unit6(head.kind), MAX_ERROR6, out);
    let head = Head { rest: head.rest | u32::from(words) << 24, ..head };
    let message_len = out.len() - ipv6::HEADER;
    let bytes = out.bytes_mut();
    let (front, message) = bytes.split_at_mut(ipv6::HEADER);
    let (icmp, quote_out) = message.split_at_mut(HEADER);
    let (quote_header, transport_out) = quote_out.split_at_mut(ipv6::HEADER + fragment_header);
    if let Some((slot, rest)) = quote_header.split_first_chunk_mut() {
        header.write(slot);
        // RFC 7915 §4.3: the quote is translated like a packet, so a piece gets its Fragment Header.
        if let (Some(fragment), Some(slot)) = (quote.fragment, rest.first_chunk_mut()) {
            fragment.write(next_header, slot);
        }
    }
    let delta = Sum::ZERO.ipv6(flow.src6).ipv6(flow.dst6).minus(Sum::ZERO.ipv4(flow.src4).ipv4(flow.dst4));
    let pseudo = pseudo6(flow.src6, flow.dst6, l4::ICMPV6, quote.payload_len as u32);
    // Padding and extension are none of the quoted packet's.
    let real = transport.len().min(transport_out.len());
    let transport_out = &mut transport_out[..real];
    edit_quoted(transport_out, quote.flow, delta, pseudo, true, (flow.port6, flow.peer_port));
    write_head(icmp, head);
    let outer_header = Header6 {
        traffic_class: outer.traffic_class,
        payload_len: message_len as u16,
        next_header: l4::ICMPV6,
        hop_limit: outer.hop_limit,
        src: outer.src,
        dst: outer.dst,
    };
    if let Some(slot) = front.first_chunk_mut() {
        outer_header.write(slot);
    }
    let sum = pseudo6(outer.src, outer.dst, l4::ICMPV6, message_len as u32).bytes(message).checksum();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
}

/// Builds the ICMPv4 form of an ICMPv6 error in `out`, with identification `id`. `body` quotes a packet of `flow` on
/// its way from the peer to the IPv6 client.
pub fn error_to_v4(
    outer: &Outer<Ipv4Addr>,
    head: Head,
    body: Body<'_>,
    quote: &Quote<Ipv6Addr>,
    flow: &FlowPair,
    id: u16,
    out: &mut PacketBuf,
) {
    let quoted_len = quote.payload_len + ipv4::HEADER;
    let header = Header4 {
        tos: quote.traffic_class,
        total_len: u16::try_from(quoted_len).unwrap_or(u16::MAX),
        id: quote.id,
        df: !quote.had_fragment_header && quoted_len > 1260,
        ttl: quote.hop_limit,
        protocol: protocol_of(quote.flow, l4::ICMP),
        src: flow.dst4,
        dst: flow.src4,
    };
    let transport = quoted_transport(body.quote, quote.l4, quote.payload_len);
    let headers = (ipv4::HEADER, ipv4::HEADER);
    let words = lay_out(headers, transport, body.extension, unit4(head.kind), MAX_ERROR4, out);
    let head = Head { rest: head.rest | u32::from(words) << 16, ..head };
    let total_len = out.len();
    let bytes = out.bytes_mut();
    let (front, message) = bytes.split_at_mut(ipv4::HEADER);
    let (icmp, quote_out) = message.split_at_mut(HEADER);
    let (quote_header, transport_out) = quote_out.split_at_mut(ipv4::HEADER);
    if let Some(slot) = quote_header.first_chunk_mut() {
        match quote.fragment {
            None => header.write(slot),
            Some(fragment) => header.write_fragment(fragment, slot),
        }
    }
    let delta = Sum::ZERO.ipv4(flow.src4).ipv4(flow.dst4).minus(Sum::ZERO.ipv6(flow.src6).ipv6(flow.dst6));
    let pseudo = pseudo6(flow.dst6, flow.src6, l4::ICMPV6, quote.payload_len as u32);
    // Padding and extension are none of the quoted packet's.
    let real = transport.len().min(transport_out.len());
    let transport_out = &mut transport_out[..real];
    edit_quoted(
        transport_out,
        quote.flow,
        delta,
        Sum::ZERO.minus(pseudo),
        false,
        (flow.peer_port, flow.port4),
    );
    write_head(icmp, head);
    let outer_header = Header4 {
        tos: outer.traffic_class,
        total_len: total_len as u16,
        // RFC 7915 §5.1: short enough to be cut on the way, so it needs a number of its own.
        id,
        df: false,
        ttl: outer.hop_limit,
        protocol: l4::ICMP,
        src: outer.src,
        dst: outer.dst,
    };
    if let Some(slot) = front.first_chunk_mut() {
        outer_header.write(slot);
    }
    let sum = Sum::ZERO.bytes(message).checksum();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
}

/// The transport of a quote, without what was padded behind it.
fn quoted_transport(quote: &[u8], l4: usize, payload_len: usize) -> &[u8] {
    let transport = quote.get(l4..).unwrap_or(&[]);
    transport.get(..payload_len).unwrap_or(transport)
}

const fn protocol_of(flow: QuotedFlow, icmp: u8) -> u8 {
    match flow {
        QuotedFlow::Tcp { .. } => l4::TCP,
        QuotedFlow::Udp { .. } => l4::UDP,
        QuotedFlow::Echo { .. } | QuotedFlow::Other { protocol: l4::ICMP | l4::ICMPV6 } => icmp,
        QuotedFlow::Other { protocol } => protocol,
    }
}

fn write_head(icmp: &mut [u8], head: Head) {
    if let Some(slot) = icmp.first_chunk_mut::<HEADER>() {
        let [a, b, c, d] = head.rest.to_be_bytes();
        *slot = [head.kind, head.code, 0, 0, a, b, c, d];
    }
}

/// Translates the transport of a quote. Its checksum is adjusted by the difference even when the quote is too
/// short to be verified (RFC 7915 §4.3, RFC 5508 REQ-3c).
fn edit_quoted(
    bytes: &mut [u8],
    flow: QuotedFlow,
    addresses: Sum,
    icmp_pseudo: Sum,
    to_v6: bool,
    ports: (u16, u16),
) {
    let (field, old_ports) = match flow {
        QuotedFlow::Other { .. } => return,
        QuotedFlow::Tcp { src, dst } => (16, (src, dst)),
        QuotedFlow::Udp { src, dst } => (6, (src, dst)),
        QuotedFlow::Echo { reply, .. } => {
            let kind = match (to_v6, reply) {
                (true, false) => v6::ECHO_REQUEST,
                (true, true) => v6::ECHO_REPLY,
                (false, false) => v4::ECHO_REQUEST,
                (false, true) => v4::ECHO_REPLY,
            };
            // The identifier stands for the port of the side that has the mapping.
            let id = if to_v6 { ports.0 } else { ports.1 };
            super::edit_echo(bytes, kind, id, icmp_pseudo.fold());
            return;
        }
    };
    let (src, dst) = ports;
    if let Some(slot) = bytes.get_mut(..4) {
        slot[..2].copy_from_slice(&src.to_be_bytes());
        slot[2..].copy_from_slice(&dst.to_be_bytes());
    }
    if let Some(slot) = bytes.get_mut(field..field + 2) {
        let old = u16::from_be_bytes([slot[0], slot[1]]);
        // A quoted UDP packet without checksum stays without.
        if old != 0 || field == 16 {
            let delta = addresses.minus_word(old_ports.0).minus_word(old_ports.1).word(src).word(dst);
            let new = match checksum::update(old, delta) {
                // RFC 768: a computed zero is sent as all ones.
                0 if field == 6 => 0xffff,
                sum => sum,
            };
            slot.copy_from_slice(&new.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MTUS: Mtus = Mtus { v6: 1500, v4: 1500 };

    fn to_v6(kind: u8, code: u8, rest: u32) -> Result<(u8, u8, u32), DropReason> {
        head_to_v6(Head { kind, code, rest }, 1500, MTUS).map(|h| (h.kind, h.code, h.rest))
    }

    fn to_v4(kind: u8, code: u8, rest: u32) -> Result<(u8, u8, u32), DropReason> {
        head_to_v4(Head { kind, code, rest }, false, MTUS).map(|h| (h.kind, h.code, h.rest))
    }

    #[test]
    fn d03_to_d21_codes_to_v6() {
        let expected = [
            Some((1, 0)),
            Some((1, 0)),
            Some((4, 1)),
            Some((1, 4)),
            Some((2, 0)),
            Some((1, 0)),
            Some((1, 0)),
            Some((1, 0)),
            Some((1, 0)),
            Some((1, 1)),
            Some((1, 1)),
            Some((1, 0)),
            Some((1, 0)),
            Some((1, 1)),
            None,
            Some((1, 1)),
            None,
            None,
        ];
        for (code, want) in expected.iter().enumerate() {
            assert_eq!(to_v6(3, code as u8, 0).ok().map(|h| (h.0, h.1)), *want, "3/{code}");
        }
        assert_eq!(to_v6(3, 2, 0).unwrap().2, 6);
        for code in [0, 1] {
            assert_eq!(to_v6(11, code, 0).unwrap(), (3, code, 0));
        }
        for kind in [4, 5, 6] {
            assert_eq!(to_v6(kind, 0, 0), Err(DropReason::IcmpType));
        }
        assert_eq!(to_v6(12, 1, 0), Err(DropReason::IcmpType));
        assert_eq!(to_v6(12, 3, 0), Err(DropReason::IcmpType));
    }

    #[test]
    fn d27_to_d37_codes_to_v4() {
        for (code, want) in
            [(0, Some(1)), (1, Some(10)), (2, Some(1)), (3, Some(1)), (4, Some(3)), (5, None), (6, None)]
        {
            assert_eq!(to_v4(1, code, 0).ok().map(|h| h.1), want, "1/{code}");
        }
        for code in [0, 1] {
            assert_eq!(to_v4(3, code, 0).unwrap(), (11, code, 0));
        }
        assert_eq!(to_v4(4, 1, 6).unwrap(), (3, 2, 0));
        assert_eq!(to_v4(4, 2, 0), Err(DropReason::IcmpType));
        assert_eq!(to_v4(100, 0, 0), Err(DropReason::IcmpType));
    }

    #[test]
    fn d38_d39_pointers() {
        for pointer in 0..=255u32 {
            let want = match pointer {
                0 => Some(0),
                1 => Some(1),
                2 | 3 => Some(4),
                8 => Some(7),
                9 => Some(6),
                12..=15 => Some(8),
                16..=19 => Some(24),
                _ => None,
            };
            assert_eq!(to_v6(12, 0, pointer << 24).ok().map(|h| h.2), want, "{pointer}");
        }
        for pointer in (0..=255u32).chain([256, u32::MAX]) {
            let want = match pointer {
                0 => Some(0),
                1 => Some(1),
                4 | 5 => Some(2),
                6 => Some(9),
                7 => Some(8),
                8..=23 => Some(12),
                24..=39 => Some(16),
                _ => None,
            };
            assert_eq!(to_v4(4, 0, pointer).ok().map(|h| h.2 >> 24), want, "{pointer}");
        }
    }

    #[test]
    fn d40_d41_d42_mtu_arithmetic() {
        assert_eq!(to_v6(3, 4, 576).unwrap().2, 1280);
        assert_eq!(to_v6(3, 4, 1400).unwrap().2, 1420);
        assert_eq!(to_v6(3, 4, 9000).unwrap().2, 1500);
        for (quoted, want) in [(1500, 1492), (1400, 1280)] {
            assert_eq!(head_to_v6(Head { kind: 3, code: 4, rest: 0 }, quoted, MTUS).unwrap().rest, want);
        }
        let wide = Mtus { v6: 9000, v4: 9000 };
        assert_eq!(head_to_v6(Head { kind: 3, code: 4, rest: 0 }, 4000, wide).unwrap().rest, 2002);
        assert_eq!(to_v4(2, 0, 1280).unwrap().2, 1260);
        let with_fragment = head_to_v4(Head { kind: 2, code: 0, rest: 1280 }, true, MTUS).unwrap();
        assert_eq!(with_fragment.rest, 1252);
        assert_eq!(to_v4(2, 0, 100_000).unwrap().2, 1480);
        assert_eq!(to_v4(2, 0, 0).unwrap().2, 68);
    }
}
