//! IPv4 → IPv6 for everything but ICMP errors. Read RFC 7915 §4 first.

use std::net::Ipv6Addr;

use super::mss;
use super::{
    Hop, Notice, Refusal, Rewrite, Transport, edit_checksum, edit_echo, edit_ports, is_partial, is_zero,
    move_offload, opaque, part, too_big,
};
use crate::verdict::DropReason;
use crate::wire::checksum::pseudo6;
use crate::wire::fragment::{self, Fragment};
use crate::wire::icmp::{Icmp, v6};
use crate::wire::ipv4::View4;
use crate::wire::ipv6::{self, Header6};
use crate::wire::l4::{self, Payload, TcpFlags};
use crate::wire::packet::{Checksum, GsoKind, PacketBuf};

/// A whole translation, ready to be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan<'a> {
    rewrite: &'a Rewrite<Ipv6Addr>,
    traffic_class: u8,
    payload_len: u16,
    next_header: u8,
    hop_limit: u8,
    transport: Transport,
    l4: usize,
    l4_header: usize,
    /// The Fragment Header to write (C-14); without one when the packet is cut, for then its pieces get theirs.
    fragment: Option<Fragment>,
    /// Cut the result so that each piece has at most this many bytes.
    pub cut: Option<Cut>,
}

/// How a result that is too long for `lowest-ipv6-mtu` is to be cut (RFC 7915 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Longest piece, bytes.
    pub mtu: u16,
    /// What is cut: a whole datagram, or a piece of one that keeps its place (E-22). Later segments of a super-packet
    /// count its identification up.
    pub place: Fragment,
}

/// What translation needs beside the packet and its rewrite.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Hop limit rule.
    pub hop: Hop,
    /// MTU of the next hop on the IPv6 side, bytes.
    pub mtu6: u16,
    /// MTU of the next hop on the IPv4 side, bytes.
    pub mtu4: u16,
    /// `lowest-ipv6-mtu`, bytes.
    pub lowest_ipv6_mtu: u16,
    /// Identification for the fragments of a datagram that was put together here.
    pub id: u32,
    /// Largest TCP segment that a SYN may announce, if that is limited.
    pub mss: Option<u16>,
    /// Traffic class to write whatever the packet says (RFC 7915 §4.1).
    pub traffic_class: Option<u8>,
}

/// Plans the translation of `packet`, whose parse is `view`.
#[inline]
pub fn plan<'a>(
    view: &View4,
    packet: &PacketBuf,
    rewrite: &'a Rewrite<Ipv6Addr>,
    context: &Context,
) -> Result<Plan<'a>, Refusal> {
    let Some(hop_limit) = context.hop.apply(view.ttl) else {
        return Err(DropReason::HopLimit.with(Notice::HopLimit));
    };
    if view.source_route {
        return Err(DropReason::SourceRoute.with(Notice::SourceRoute));
    }
    let l4_header = view.payload.header_len();
    let payload_len = view.total_len - view.l4;
    let (next_header, transport) = match view.payload {
        Payload::Tcp(tcp) => {
            (l4::TCP, Transport::Tcp { mss: context.mss.filter(|_| tcp.flags.has(TcpFlags::SYN)) })
        }
        Payload::Udp(udp) if udp.no_checksum && !is_partial(packet) => {
            (l4::UDP, Transport::UdpWithoutChecksum)
        }
        Payload::Udp(_) => (l4::UDP, Transport::Udp),
        Payload::Icmp(Icmp::Echo { reply, .. }) => {
            let pseudo = pseudo6(rewrite.src, rewrite.dst, l4::ICMPV6, payload_len as u32);
            let kind = if reply { v6::ECHO_REPLY } else { v6::ECHO_REQUEST };
            (l4::ICMPV6, Transport::Echo { kind, delta: pseudo.fold() })
        }
        Payload::Icmp(Icmp::Error { .. } | Icmp::Other { .. }) => return Err(DropReason::IcmpType.into()),
        Payload::Fragment => {
            let transport = part(view.protocol, view.fragment, packet, view.l4)?;
            // RFC 7915 §4.5: without the rest of the datagram its checksum cannot be made.
            if matches!(transport, Transport::Addresses { udp: true, field } if is_zero(packet, view.l4 + field))
            {
                return Err(DropReason::UdpNoChecksum.into());
            }
            (view.protocol, transport)
        }
        Payload::Other(protocol) => (protocol, opaque(protocol, payload_len)),
    };
    let fragment_header = if view.fragment.is_some() { fragment::HEADER } else { 0 };
    let total_len = ipv6::HEADER + fragment_header + payload_len;
    let segment = match packet.offload.gso {
        Some(gso) => (ipv6::HEADER + l4_header + usize::from(gso.size)).min(total_len),
        None => total_len,
    };
    let cut = cut(view, packet, segment, context)?;
    let fragment = if view.fragment.is_some() && cut.is_none() { view.fragment } else { None };
    let Ok(payload_len) = u16::try_from(payload_len + fragment.map_or(0, |_| fragment::HEADER)) else {
        return Err(DropReason::Oversize.into());
    };
    let traffic_class = context.traffic_class.unwrap_or(view.tos);
    let l4 = view.l4;
    Ok(Plan {
        rewrite,
        traffic_class,
        payload_len,
        next_header,
        hop_limit,
        transport,
        l4,
        l4_header,
        fragment,
        cut,
    })
}

/// What to do about the length of a segment: let it pass, cut it, or tell the sender.
#[inline]
fn cut(view: &View4, packet: &PacketBuf, segment: usize, context: &Context) -> Result<Option<Cut>, Refusal> {
    let tcp_super = matches!(packet.offload.gso, Some(gso) if gso.kind == GsoKind::Tcp);
    if view.df || tcp_super {
        // RFC 7915 §4.1: what may not be cut must fit. Super-packets of TCP are never cut: their sender can make
        // smaller segments and has no use for fragments.
        if segment > usize::from(context.mtu6) {
            let growth = if view.fragment.is_some() { 20 + fragment::HEADER as u16 } else { 20 };
            let mtu = context.mtu6.saturating_sub(growth).min(context.mtu4);
            return Err(too_big(packet).with(Notice::TooBig { mtu }));
        }
        return Ok(None);
    }
    // RFC 7915 §4.1: without DF each IPv6 packet must fit `lowest-ipv6-mtu`, which never exceeds the link.
    let mtu = context.lowest_ipv6_mtu.min(context.mtu6);
    // RFC 7915 §4.1: the identification is the packet's own, in the lower half.
    Ok((segment > usize::from(mtu)).then(|| {
        let id = if packet.reassembled { context.id } else { view.id.into() };
        Cut { mtu, place: view.fragment.unwrap_or(Fragment { offset: 0, more: false, id }) }
    }))
}

impl Plan<'_> {
    /// Edits the packet in place. It must be the one that was planned for. When [`Plan::cut`] is set the caller
    /// sends the pieces that [`super::frag::cut`] makes of the result.
    #[inline]
    pub fn apply(&self, packet: &mut PacketBuf) {
        let partial = is_partial(packet);
        let Some(l4) = packet.bytes_mut().get_mut(self.l4..) else { return };
        match self.transport {
            Transport::Tcp { mss } => {
                edit_ports(l4, self.rewrite, 16, partial, false);
                if let (Some(mss), Some(header)) = (mss, l4.get_mut(..self.l4_header)) {
                    mss::clamp(header, mss, partial);
                }
            }
            Transport::Udp => edit_ports(l4, self.rewrite, 6, partial, true),
            Transport::UdpWithoutChecksum => self.make_checksum(packet),
            Transport::Echo { kind, delta } => edit_echo(l4, kind, self.rewrite.src_port, delta),
            Transport::Addresses { field, udp } => edit_checksum(l4, self.rewrite, field, udp),
            Transport::Opaque => {}
        }
        let fragment_header = if self.fragment.is_some() { fragment::HEADER } else { 0 };
        packet.resize_front(self.l4, ipv6::HEADER + fragment_header);
        if let Some((front, rest)) = packet.bytes_mut().split_first_chunk_mut() {
            let header = Header6 {
                traffic_class: self.traffic_class,
                payload_len: self.payload_len,
                next_header: self.next_header,
                hop_limit: self.hop_limit,
                src: self.rewrite.src,
                dst: self.rewrite.dst,
            };
            header.write(front);
            if let (Some(fragment), Some(slot)) = (self.fragment, rest.first_chunk_mut()) {
                fragment.write(self.next_header, slot);
                front[6] = ipv6::FRAGMENT;
            }
        }
        move_offload(packet, ipv6::HEADER, self.l4_header);
    }

    /// RFC 6146 §3.4: UDP without a checksum gets one.
    fn make_checksum(&self, packet: &mut PacketBuf) {
        let gso = packet.offload.gso.is_some();
        let Some(udp) = packet.bytes_mut().get_mut(self.l4..) else { return };
        let Some(header) = udp.first_chunk_mut::<8>() else { return };
        header[0..2].copy_from_slice(&self.rewrite.src_port.to_be_bytes());
        header[2..4].copy_from_slice(&self.rewrite.dst_port.to_be_bytes());
        let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let pseudo = pseudo6(self.rewrite.src, self.rewrite.dst, l4::UDP, len as u32);
        if gso {
            // Each segment needs its own sum: whoever cuts them makes it.
            header[6..8].copy_from_slice(&pseudo.fold().to_be_bytes());
            packet.offload.checksum = Checksum::Partial { start: self.l4 as u16, field: 6 };
            return;
        }
        let sum = match pseudo.bytes(udp.get(..len).unwrap_or(udp)).checksum() {
            0 => 0xffff_u16,
            sum => sum,
        };
        udp[6..8].copy_from_slice(&sum.to_be_bytes());
    }
}
