//! ICMP errors (RFC 7915 §4.2–4.3, §5.2–5.3). Their own addresses and those of the packet they quote are translated one
//! by one; an IPv6 source without IPv4 address is replaced by one of a pool (RFC 6791).

use super::settings::Hairpin;
use super::{Siit, Turn, sent};
use crate::nat64::engine::Sink;
use crate::verdict::{DropReason, Sent, Verdict};
use crate::wire::checksum::{Sum, pseudo6};
use crate::wire::icmp::{self, QuotedFlow};
use crate::wire::ipv4::View4;
use crate::wire::ipv6::View6;
use crate::wire::l4::{self};
use crate::wire::packet::PacketBuf;
use crate::xlat::eam::Home;
use crate::xlat::icmp::{
    Outer, body4, body6, error_to_v4, error_to_v6, head_and_message, head_to_v4, head_to_v6,
};
use crate::xlat::{FlowPair, Refusal, interface_info};

impl Siit {
    /// Replaces an ICMPv6 error by its ICMPv4 form and sends it, or turns it back.
    pub(super) fn error6(
        &mut self,
        view: &View6,
        packet: &mut PacketBuf,
        sink: &mut impl Sink,
    ) -> Result<Verdict, Refusal> {
        // RFC 7915 §5.1: not translated; and an error is not answered with an error.
        if view.segments_left.is_some() {
            return Err(DropReason::RoutingHeader.into());
        }
        let (head, message) = head_and_message(view.payload, view.l4, packet)?;
        let pseudo = pseudo6(view.src, view.dst, l4::ICMPV6, message.len() as u32);
        if pseudo.bytes(message).fold() != 0xffff {
            return Err(DropReason::BadIcmpChecksum.into());
        }
        let body = body6(head, message);
        let mut quote = icmp::any_quote6(body.quote)?;
        let mapping = &self.settings.mapping;
        let Some(dst) = mapping.to_v4(view.dst).filter(|dst| dst.home == Home::V4) else {
            return Err(DropReason::NotPool6.into());
        };
        // An error goes to the source of what it quotes, which was for a node of the IPv6 side.
        let node = mapping.to_v4(quote.dst).filter(|node| node.home == Home::V6 && quote.src == view.dst);
        let Some(node) = node else { return Err(DropReason::IcmpQuote.into()) };
        for mapped in [dst, node].iter().filter(|mapped| mapped.by_prefix) {
            mapping.check_carried(mapped.addr)?;
        }
        // RFC 7757 §4.2.2, condition set B.
        let turns = self.settings.hairpin == Hairpin::Intrinsic
            && dst.by_prefix
            && mapping.is_explicit_v6_node(dst.addr);
        let src = match mapping.to_v4(view.src) {
            Some(src) if src.home == Home::V4 => return Err(DropReason::SourceInPool6.into()),
            src => src.map(|src| src.addr),
        };
        let Some(outer_src) = src.or_else(|| self.icmp_source4()) else {
            return Err(DropReason::SourceNotMapped.into());
        };
        let new_head = head_to_v4(head, quote.had_fragment_header, self.mtus())?;
        let Some(hop_limit) = self.hop(Turn::First).apply(view.hop_limit) else {
            // An error is not answered with an error.
            return Err(DropReason::HopLimit.into());
        };
        let tos = |of_packet| self.settings.classes.tos.unwrap_or(of_packet);
        quote.traffic_class = tos(quote.traffic_class);
        let outer =
            Outer { src: outer_src, dst: dst.addr, traffic_class: tos(view.traffic_class), hop_limit };
        let (from, to) = ports(quote.flow);
        let flow = FlowPair {
            src6: quote.dst,
            port6: to,
            dst6: quote.src,
            src4: node.addr,
            port4: to,
            dst4: dst.addr,
            peer_port: from,
        };
        let id = self.idents.next(outer_src, dst.addr, l4::ICMP, 1);
        let out = &mut self.scratch[0];
        error_to_v4(&outer, new_head, body, &quote, &flow, id, out);
        if src.is_none() && self.settings.interface_info {
            interface_info::append(out, view.src);
        }
        std::mem::swap(packet, out);
        if turns {
            return Ok(self.turn(packet, sink));
        }
        Ok(sent(sink.send(packet, Sent::Translated)))
    }

    /// Replaces an ICMPv4 error by its ICMPv6 form and sends it. Its sender's address is carried whatever it is, so that
    /// traceroute shows real hops (RFC 7915 §4.1).
    pub(super) fn error4(
        &mut self,
        view: &View4,
        packet: &mut PacketBuf,
        turn: Turn,
        sink: &mut impl Sink,
    ) -> Result<Verdict, Refusal> {
        // RFC 7915 §4.1, likewise.
        if view.source_route {
            return Err(DropReason::SourceRoute.into());
        }
        let (head, message) = head_and_message(view.payload, view.l4, packet)?;
        if Sum::ZERO.bytes(message).fold() != 0xffff {
            return Err(DropReason::BadIcmpChecksum.into());
        }
        let body = body4(head, message);
        let mut quote = icmp::any_quote4(body.quote)?;
        if quote.src != view.dst {
            return Err(DropReason::IcmpQuote.into());
        }
        let mapping = &self.settings.mapping;
        let node = mapping.to_v6(view.dst);
        if node.home == Home::V4 {
            return Err(DropReason::NotPool4.into());
        }
        let hide = self.hides_mappings(turn);
        // RFC 7757 §4.2.1, rules 2 and 3.
        let peer = if hide { mapping.embed(quote.dst) } else { mapping.to_v6(quote.dst) };
        let src =
            if hide && view.src == quote.dst { mapping.embed(view.src) } else { mapping.to_v6(view.src) };
        for (mapped, addr) in [(node, view.dst), (peer, quote.dst), (src, view.src)] {
            if mapped.by_prefix {
                mapping.check_carried(addr)?;
            }
        }
        let new_head = head_to_v6(head, quote.l4 + quote.payload_len, self.mtus())?;
        let Some(hop_limit) = self.hop(turn).apply(view.ttl) else {
            return Err(DropReason::HopLimit.into());
        };
        let class = |of_packet| self.settings.classes.traffic_class.unwrap_or(of_packet);
        quote.traffic_class = class(quote.traffic_class);
        let outer = Outer { src: src.addr, dst: node.addr, traffic_class: class(view.tos), hop_limit };
        let (from, to) = ports(quote.flow);
        let flow = FlowPair {
            src6: node.addr,
            port6: from,
            dst6: peer.addr,
            src4: quote.src,
            port4: from,
            dst4: quote.dst,
            peer_port: to,
        };
        let out = &mut self.scratch[0];
        error_to_v6(&outer, new_head, body, &quote, &flow, out);
        std::mem::swap(packet, out);
        Ok(sent(sink.send(packet, Sent::Translated)))
    }
}

/// Source and destination port of a quoted packet; both are the identifier of an echo. They stay what they are.
const fn ports(flow: QuotedFlow) -> (u16, u16) {
    match flow {
        QuotedFlow::Tcp { src, dst } | QuotedFlow::Udp { src, dst } => (src, dst),
        QuotedFlow::Echo { id, .. } => (id, id),
        QuotedFlow::Other { .. } => (0, 0),
    }
}
