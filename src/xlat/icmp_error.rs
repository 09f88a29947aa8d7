//! ICMP errors of our own, in the sender's family (RFC 7915 §4.4, §5.4; RFC 4443 §2.4; RFC 1812 §4.3.2).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Notice;
use crate::addr::{is_illegal_source4, is_illegal_source6};
use crate::wire::checksum::{Sum, pseudo4, pseudo6};
use crate::wire::icmp::{HEADER, Icmp, v4, v6};
use crate::wire::ipv4::{self, Header4, View4};
use crate::wire::ipv6::{self, Header6, View6};
use crate::wire::l4::{self, Payload, TcpFlags};
use crate::wire::packet::{Checksum, PacketBuf};

/// Longest ICMPv6 error: the minimum MTU (RFC 4443 §2.4 c).
pub const MAX_ERROR6: usize = 1280;
/// Longest ICMPv4 error (RFC 1812 §4.3.2.3).
pub const MAX_ERROR4: usize = 576;
/// Hop limit of what we originate.
const HOPS: u8 = 64;

/// Builds the ICMPv6 error `notice` about `packet` in `out`; false when no error may be sent about it.
pub fn build6(notice: Notice, view: &View6, packet: &PacketBuf, src: Ipv6Addr, out: &mut PacketBuf) -> bool {
    let router_duty = matches!(notice, Notice::HopLimit | Notice::TooBig { .. });
    let silent = match view.payload {
        // RFC 4443 §2.4 e: never about an error or a redirect.
        Payload::Icmp(Icmp::Error { .. } | Icmp::Other { .. }) => true,
        // RFC 7915 §5.4: a discarded ICMPv6 packet is not answered, except as any router would.
        Payload::Icmp(Icmp::Echo { .. }) => !router_duty,
        Payload::Fragment => view.fragment.is_some_and(|f| f.offset != 0),
        Payload::Tcp(_) | Payload::Udp(_) | Payload::Other(_) => false,
    };
    if silent || is_illegal_source6(view.src) || view.dst.is_multicast() {
        return false;
    }
    let (kind, code, rest) = match notice {
        Notice::HopLimit => (v6::TIME_EXCEEDED, 0, 0),
        Notice::TooBig { mtu } => (v6::PACKET_TOO_BIG, 0, u32::from(mtu)),
        Notice::Prohibited => (v6::UNREACHABLE, 1, 0),
        Notice::Unreachable => (v6::UNREACHABLE, 3, 0),
        Notice::Port | Notice::Protocol => (v6::UNREACHABLE, 4, 0),
        Notice::Pointer(at) => (v6::PARAMETER_PROBLEM, 0, u32::from(at)),
        Notice::SourceRoute => return false,
    };
    out.fill(&[0; ipv6::HEADER + HEADER]);
    let at = out.len();
    append_first_segment(packet, view.l4, view.payload.header_len(), out);
    if let Some(quote) = out.bytes_mut().get_mut(at..) {
        let payload_len = (quote.len() - ipv6::HEADER) as u16;
        quote[4..6].copy_from_slice(&payload_len.to_be_bytes());
        let l4_len = (quote.len() - view.l4) as u32;
        let pseudo = pseudo6(view.src, view.dst, view.protocol, l4_len);
        finish_quote(packet, view.l4, &mut quote[view.l4..], pseudo, view.payload);
    }
    out.truncate(MAX_ERROR6);
    let message_len = out.len() - ipv6::HEADER;
    let header = Header6 {
        traffic_class: 0,
        payload_len: message_len as u16,
        next_header: l4::ICMPV6,
        hop_limit: HOPS,
        src,
        dst: view.src,
    };
    if let Some(front) = out.bytes_mut().first_chunk_mut() {
        header.write(front);
    }
    let message = &mut out.bytes_mut()[ipv6::HEADER..];
    write_message(message, kind, code, rest, pseudo6(src, view.src, l4::ICMPV6, message_len as u32));
    true
}

/// Builds the ICMPv4 error `notice` about `packet` in `out`, with identification `id`; false when no error may be sent about it.
pub fn build4(
    notice: Notice,
    view: &View4,
    packet: &PacketBuf,
    src: Ipv4Addr,
    id: u16,
    out: &mut PacketBuf,
) -> bool {
    // RFC 1812 §4.3.2.7: never about an ICMP error, a later fragment, or what was sent to many.
    let silent = match view.payload {
        Payload::Icmp(Icmp::Error { .. }) => true,
        Payload::Icmp(Icmp::Echo { .. } | Icmp::Other { .. }) => false,
        Payload::Fragment => view.fragment.is_some_and(|f| f.offset != 0),
        Payload::Tcp(_) | Payload::Udp(_) | Payload::Other(_) => false,
    };
    if silent || is_illegal_source4(view.src) || view.dst.is_multicast() || view.dst.is_broadcast() {
        return false;
    }
    let (kind, code, rest) = match notice {
        Notice::HopLimit => (v4::TIME_EXCEEDED, 0, 0),
        Notice::TooBig { mtu } => (v4::UNREACHABLE, 4, u32::from(mtu)),
        Notice::Prohibited => (v4::UNREACHABLE, 13, 0),
        Notice::Unreachable => (v4::UNREACHABLE, 1, 0),
        Notice::Port => (v4::UNREACHABLE, 3, 0),
        Notice::Protocol => (v4::UNREACHABLE, 2, 0),
        Notice::SourceRoute => (v4::UNREACHABLE, 5, 0),
        Notice::Pointer(_) => return false,
    };
    out.fill(&[0; ipv4::HEADER + HEADER]);
    let at = out.len();
    append_first_segment(packet, view.l4, view.payload.header_len(), out);
    if let Some(quote) = out.bytes_mut().get_mut(at..) {
        let total_len = quote.len() as u16;
        if packet.offload.gso.is_some() {
            quote[2..4].copy_from_slice(&total_len.to_be_bytes());
            quote[10..12].fill(0);
            let sum = Sum::ZERO.bytes(&quote[..view.l4]).checksum();
            quote[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        let pseudo = pseudo4(view.src, view.dst, view.protocol, (quote.len() - view.l4) as u32);
        finish_quote(packet, view.l4, &mut quote[view.l4..], pseudo, view.payload);
    }
    out.truncate(MAX_ERROR4);
    let header = Header4 {
        // RFC 1812 §4.3.2.5: errors travel with precedence 6.
        tos: 0xc0,
        total_len: out.len() as u16,
        id,
        df: false,
        ttl: HOPS,
        protocol: l4::ICMP,
        src,
        dst: view.src,
    };
    if let Some(front) = out.bytes_mut().first_chunk_mut() {
        header.write(front);
    }
    write_message(&mut out.bytes_mut()[ipv4::HEADER..], kind, code, rest, Sum::ZERO);
    true
}

/// Appends the packet, or of a super-packet the first segment.
fn append_first_segment(packet: &PacketBuf, l4: usize, l4_header: usize, out: &mut PacketBuf) {
    let bytes = packet.bytes();
    let len = match packet.offload.gso {
        Some(gso) => (l4 + l4_header + usize::from(gso.size)).min(bytes.len()),
        None => bytes.len(),
    };
    out.append(&bytes[..len]);
}

/// Gives the quoted segment the length, flags and checksum that it would have had on a wire.
fn finish_quote(packet: &PacketBuf, l4: usize, transport: &mut [u8], pseudo: Sum, payload: Payload) {
    let gso = packet.offload.gso.is_some();
    if gso && matches!(payload, Payload::Udp(_)) && transport.len() >= 8 {
        let len = transport.len() as u16;
        transport[4..6].copy_from_slice(&len.to_be_bytes());
    }
    let Checksum::Partial { field, .. } = packet.offload.checksum else { return };
    let field = usize::from(field);
    if transport.len() < field + 2 {
        return;
    }
    // Only the last segment of many ends the stream or pushes.
    if matches!(payload, Payload::Tcp(_)) && l4 + transport.len() < packet.len() {
        transport[13] &= !(TcpFlags::FIN | TcpFlags::PSH);
    }
    transport[field..field + 2].fill(0);
    let sum = match pseudo.bytes(transport).checksum() {
        0 if matches!(payload, Payload::Udp(_)) => 0xffff_u16,
        sum => sum,
    };
    transport[field..field + 2].copy_from_slice(&sum.to_be_bytes());
}

fn write_message(message: &mut [u8], kind: u8, code: u8, rest: u32, pseudo: Sum) {
    let [a, b, c, d] = rest.to_be_bytes();
    if let Some(head) = message.first_chunk_mut::<HEADER>() {
        *head = [kind, code, 0, 0, a, b, c, d];
    }
    let sum = pseudo.bytes(message).checksum();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
}
