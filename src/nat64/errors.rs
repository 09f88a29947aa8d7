//! ICMP errors (RFC 6146 §3.4–3.6): the session is that of the quoted packet, and it is neither made, refreshed
//! nor ended by them (D-52).

use super::engine::Engine;
use super::session::{Key4, Key6, Session};
use super::settings::Protocol;
use super::tcp::Side;
use crate::addr::is_non_global;
use crate::time::Instant;
use crate::verdict::DropReason;
use crate::wire::checksum::{Sum, pseudo6};
use crate::wire::icmp::{self, QuotedFlow};
use crate::wire::ipv4::View4;
use crate::wire::ipv6::View6;
use crate::wire::l4::{self};
use crate::wire::packet::PacketBuf;
use crate::xlat::icmp::{
    Mtus, Outer, body4, body6, error_to_v4, error_to_v6, head_and_message, head_to_v4, head_to_v6,
};
use crate::xlat::{FlowPair, Refusal};

impl Engine {
    /// Replaces an ICMPv6 error by its ICMPv4 form.
    pub(super) fn translate_error6(
        &mut self,
        now: Instant,
        view: &View6,
        packet: &mut PacketBuf,
    ) -> Result<(), Refusal> {
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
        let mut quote = icmp::quote6(body.quote)?;
        let peer = self.settings.pool6.iter().position(|p| p.contains(quote.src)).and_then(|i| {
            let prefix = self.pref64(i as u8)?;
            Some((i as u8, prefix.extract(quote.src)?, prefix.embed(prefix.extract(quote.src)?)))
        });
        // An error goes to the source of what it quotes; that source is one of ours.
        let Some((pool6, dst4, dst6)) = peer.filter(|_| view.dst == quote.src) else {
            return Err(DropReason::IcmpQuote.into());
        };
        let Some((protocol, peer_port, port6)) = flow_of(quote.flow, End::Destination) else {
            return Err(DropReason::IcmpQuote.into());
        };
        // The quoted packet went to the client: its destination port is the client's.
        let key = Key6 { protocol, src6: quote.dst, port6, pool6, dst4, peer_port };
        let slot = self.sessions.find6(&key).filter(|slot| self.lives(now, *slot));
        let Some((slot, session)) = slot.and_then(|slot| Some((slot, self.sessions.get(slot)?))) else {
            return Err(DropReason::NoSession.into());
        };
        self.check_quoted(slot, protocol, Side::V4, body.quote, quote.l4)?;
        let new_head = head_to_v4(head, quote.had_fragment_header, self.mtus())?;
        let turns = self.pool.contains(dst4);
        let Some(ttl) = self.hop(turns).apply(view.hop_limit) else {
            // An error is not answered with an error.
            return Err(DropReason::HopLimit.into());
        };
        let tos = |of_packet| self.settings.classes.tos.unwrap_or(of_packet);
        quote.traffic_class = tos(quote.traffic_class);
        let traffic_class = tos(view.traffic_class);
        let outer = Outer { src: session.src4, dst: session.dst4, traffic_class, hop_limit: ttl };
        let flow = pair(session, dst6);
        let id = self.idents.next(outer.src, outer.dst, Protocol::Icmp, 1);
        let out = &mut self.scratch[0];
        error_to_v4(&outer, new_head, body, &quote, &flow, id, out);
        std::mem::swap(packet, out);
        Ok(())
    }

    /// Replaces an ICMPv4 error by its ICMPv6 form. Its sender's address is kept, so that traceroute shows
    /// real hops.
    pub(super) fn translate_error4(
        &mut self,
        now: Instant,
        view: &View4,
        packet: &mut PacketBuf,
    ) -> Result<(), Refusal> {
        // RFC 7915 §4.1, likewise.
        if view.source_route {
            return Err(DropReason::SourceRoute.into());
        }
        let (head, message) = head_and_message(view.payload, view.l4, packet)?;
        if Sum::ZERO.bytes(message).fold() != 0xffff {
            return Err(DropReason::BadIcmpChecksum.into());
        }
        let body = body4(head, message);
        let mut quote = icmp::quote4(body.quote)?;
        // An error goes to the source of what it quotes.
        if view.dst != quote.src {
            return Err(DropReason::IcmpQuote.into());
        }
        let Some((protocol, port4, peer_port)) = flow_of(quote.flow, End::Source) else {
            return Err(DropReason::IcmpQuote.into());
        };
        let key = Key4 { protocol, src4: quote.src, port4, dst4: quote.dst, peer_port };
        let slot = self.sessions.find4(&key).filter(|slot| self.lives(now, *slot));
        let Some((slot, session)) = slot.and_then(|slot| Some((slot, self.sessions.get(slot)?))) else {
            return Err(DropReason::NoSession.into());
        };
        self.check_quoted(slot, protocol, Side::V6, body.quote, quote.l4)?;
        let Some(prefix) = self.pref64(session.pool6) else { return Err(DropReason::NotPool6.into()) };
        // RFC 7915 §4.1 lets errors from odd sources through, for troubleshooting; RFC 6052 §3.1 does not let the
        // well-known prefix carry them.
        if prefix.is_well_known() && is_non_global(view.src) {
            return Err(DropReason::NonGlobal.into());
        }
        let new_head = head_to_v6(head, quote.l4 + quote.payload_len, self.mtus())?;
        let Some(hop_limit) = self.hop(false).apply(view.ttl) else {
            return Err(DropReason::HopLimit.into());
        };
        let class = |of_packet| self.settings.classes.traffic_class.unwrap_or(of_packet);
        quote.traffic_class = class(quote.traffic_class);
        let traffic_class = class(view.tos);
        let outer = Outer { src: prefix.embed(view.src), dst: session.src6, traffic_class, hop_limit };
        let flow = pair(session, prefix.embed(session.dst4));
        let out = &mut self.scratch[0];
        error_to_v6(&outer, new_head, body, &quote, &flow, out);
        std::mem::swap(packet, out);
        Ok(())
    }

    /// RFC 5927 §4.1: an error about a TCP segment that is not on its way is forged, or too late to matter. `side` sent
    /// the quoted segment.
    fn check_quoted(
        &self,
        slot: u32,
        protocol: Protocol,
        side: Side,
        quote: &[u8],
        l4: usize,
    ) -> Result<(), DropReason> {
        if protocol != Protocol::Tcp {
            return Ok(());
        }
        // At least eight bytes of the transport are there, or it would have no ports.
        let seq = quote.get(l4 + 4..).and_then(|rest| rest.first_chunk()).map(|seq| u32::from_be_bytes(*seq));
        match (seq, self.witness_of(slot)) {
            (Some(seq), Some(witness)) if witness.may_be_under_way(side, seq) => Ok(()),
            _ => Err(DropReason::NotInFlight),
        }
    }

    const fn mtus(&self) -> Mtus {
        Mtus { v6: self.settings.mtu.v6, v4: self.settings.mtu.v4 }
    }
}

/// Protocol, source port and destination port of a quoted packet. `ours` says which of the two ports an echo
/// identifier is; the peer has none.
const fn flow_of(flow: QuotedFlow, ours: End) -> Option<(Protocol, u16, u16)> {
    Some(match (flow, ours) {
        (QuotedFlow::Tcp { src, dst }, _) => (Protocol::Tcp, src, dst),
        (QuotedFlow::Udp { src, dst }, _) => (Protocol::Udp, src, dst),
        (QuotedFlow::Echo { id, .. }, End::Source) => (Protocol::Icmp, id, 0),
        (QuotedFlow::Echo { id, .. }, End::Destination) => (Protocol::Icmp, 0, id),
        (QuotedFlow::Other { .. }, _) => return None,
    })
}

/// Which end of a quoted packet is the IPv6 client's.
#[derive(Clone, Copy)]
enum End {
    Source,
    Destination,
}

const fn pair(session: &Session, dst6: std::net::Ipv6Addr) -> FlowPair {
    FlowPair {
        src6: session.src6,
        port6: session.port6,
        dst6,
        src4: session.src4,
        port4: session.port4,
        dst4: session.dst4,
        peer_port: session.peer_port,
    }
}
