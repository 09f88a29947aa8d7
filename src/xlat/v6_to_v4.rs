//! IPv6 → IPv4 for everything but ICMP errors. Read RFC 7915 §5 first.

use std::net::Ipv4Addr;

use super::mss;
use super::{
    Hop, Notice, Refusal, Rewrite, Transport, edit_checksum, edit_echo, edit_ports, is_partial, is_zero,
    move_offload, opaque, part, too_big,
};
use crate::verdict::DropReason;
use crate::wire::checksum::{Sum, pseudo6};
use crate::wire::fragment::Fragment;
use crate::wire::icmp::{Icmp, v4};
use crate::wire::ipv4::{self, Header4};
use crate::wire::ipv6::View6;
use crate::wire::l4::{self, Payload, TcpFlags};
use crate::wire::packet::PacketBuf;

/// Longest IPv4 packet sent with DF clear when the IPv6 one had no Fragment Header (RFC 7915 §5.1).
const MAX_WITHOUT_DF: usize = 1260;

/// A whole translation, ready to be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan<'a> {
    rewrite: &'a Rewrite<Ipv4Addr>,
    tos: u8,
    total_len: u16,
    id: u16,
    df: bool,
    ttl: u8,
    protocol: u8,
    transport: Transport,
    l4: usize,
    l4_header: usize,
    /// The place in the datagram, when this is a piece of one (E-08).
    fragment: Option<Fragment>,
    /// Cut the result so that each piece has at most this many bytes.
    pub cut: Option<u16>,
}

/// What translation needs beside the packet and its rewrite.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Hop limit rule.
    pub hop: Hop,
    /// MTU of the next hop on the IPv4 side, bytes.
    pub mtu4: u16,
    /// Identification to use when there is none, or none that may be used again.
    pub id: u16,
    /// Largest TCP segment that a SYN may announce, if that is limited.
    pub mss: Option<u16>,
    /// Type of service to write whatever the packet says (RFC 7915 §5.1).
    pub tos: Option<u8>,
}

/// Plans the translation of `packet`, whose parse is `view`.
#[inline]
pub fn plan<'a>(
    view: &View6,
    packet: &PacketBuf,
    rewrite: &'a Rewrite<Ipv4Addr>,
    context: &Context,
) -> Result<Plan<'a>, Refusal> {
    let Some(ttl) = context.hop.apply(view.hop_limit) else {
        return Err(DropReason::HopLimit.with(Notice::HopLimit));
    };
    if let Some(at) = view.segments_left {
        // RFC 7915 §5.1: the pointer names the Segments Left byte.
        let notice = u16::try_from(at).ok().map(Notice::Pointer);
        return Err(Refusal { reason: DropReason::RoutingHeader, notice });
    }
    let l4_header = view.payload.header_len();
    let payload_len = view.total_len - view.l4;
    let (protocol, transport) = match view.payload {
        Payload::Tcp(tcp) => {
            (l4::TCP, Transport::Tcp { mss: context.mss.filter(|_| tcp.flags.has(TcpFlags::SYN)) })
        }
        Payload::Udp(udp) if udp.no_checksum && !is_partial(packet) => {
            return Err(DropReason::UdpZeroChecksum.into());
        }
        Payload::Udp(_) => (l4::UDP, Transport::Udp),
        Payload::Icmp(Icmp::Echo { reply, .. }) => {
            let pseudo = pseudo6(view.src, view.dst, l4::ICMPV6, payload_len as u32);
            let kind = if reply { v4::ECHO_REPLY } else { v4::ECHO_REQUEST };
            (l4::ICMP, Transport::Echo { kind, delta: Sum::ZERO.minus(pseudo).fold() })
        }
        Payload::Icmp(Icmp::Error { .. } | Icmp::Other { .. }) => return Err(DropReason::IcmpType.into()),
        Payload::Fragment => {
            let transport = part(view.protocol, view.fragment, packet, view.l4)?;
            if matches!(transport, Transport::Addresses { udp: true, field } if is_zero(packet, view.l4 + field))
            {
                return Err(DropReason::UdpZeroChecksum.into());
            }
            (view.protocol, transport)
        }
        Payload::Other(protocol) => (protocol, opaque(protocol, payload_len)),
    };
    let total_len = ipv4::HEADER + payload_len;
    let Ok(total_len16) = u16::try_from(total_len) else { return Err(DropReason::Oversize.into()) };
    let segment = match packet.offload.gso {
        Some(gso) => (ipv4::HEADER + l4_header + usize::from(gso.size)).min(total_len),
        None => total_len,
    };
    let is_piece = view.fragment.is_some_and(|f| !f.is_atomic());
    let may_be_cut = packet.reassembled || is_piece || segment + (view.l4 - ipv4::HEADER) <= 1280;
    let over = segment > usize::from(context.mtu4);
    if over && !may_be_cut {
        let overhead = if view.fragment.is_some() { 28 } else { 20 };
        let mtu = context.mtu4.saturating_add(overhead).max(1280);
        return Err(too_big(packet).with(Notice::TooBig { mtu }));
    }
    // RFC 7915 §1.4, §5.1.1: what we put together, a piece, or what fits into 1280 bytes, is cut when the next hop needs it. A
    // super-packet stays whole: the kernel cuts its segments.
    let cut = (over && packet.offload.gso.is_none()).then_some(context.mtu4);
    let (id, df) = match view.fragment {
        // E-14: an atomic fragment keeps its identification. One that we put together is a new datagram.
        Some(fragment) if !packet.reassembled => (fragment.id as u16, false),
        Some(_) => (context.id, false),
        None => (context.id, segment > MAX_WITHOUT_DF),
    };
    let tos = context.tos.unwrap_or(view.traffic_class);
    let fragment = view.fragment.filter(|f| !f.is_atomic());
    let (total_len, l4) = (total_len16, view.l4);
    Ok(Plan { rewrite, tos, total_len, id, df, ttl, protocol, transport, l4, l4_header, fragment, cut })
}

impl Plan<'_> {
    /// Edits the packet in place. It must be the one that was planned for. When [`Plan::cut`] is set the caller sends
    /// the pieces that [`super::frag::cut4`] makes of the result.
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
            Transport::Udp | Transport::UdpWithoutChecksum => edit_ports(l4, self.rewrite, 6, partial, true),
            Transport::Echo { kind, delta } => edit_echo(l4, kind, self.rewrite.src_port, delta),
            Transport::Addresses { field, udp } => edit_checksum(l4, self.rewrite, field, udp),
            Transport::Opaque => {}
        }
        packet.resize_front(self.l4, ipv4::HEADER);
        if let Some(front) = packet.bytes_mut().first_chunk_mut() {
            let header = Header4 {
                tos: self.tos,
                total_len: self.total_len,
                id: self.id,
                df: self.df,
                ttl: self.ttl,
                protocol: self.protocol,
                src: self.rewrite.src,
                dst: self.rewrite.dst,
            };
            match self.fragment {
                None => header.write(front),
                Some(fragment) => header.write_fragment(fragment, front),
            }
        }
        move_offload(packet, ipv4::HEADER, self.l4_header);
    }
}
