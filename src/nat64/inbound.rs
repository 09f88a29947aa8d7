//! Packets from IPv4 (RFC 6146 §3.5.1–3.5.3, from the outside), hairpinned ones included: find the session or
//! make one where filtering lets it, translate.

use super::engine::{Engine, Sink, Step};
use super::outbound::sent;
use super::session::{Key4, Session, Waits};
use super::settings::{Filter, Protocol};
use super::tcp::{self, Lifetime, Side, State};
use crate::addr::is_illegal_source4;
use crate::time::Instant;
use crate::verdict::{DropReason, Sent};
use crate::wire::icmp::Icmp;
use crate::wire::ipv4::View4;
use crate::wire::l4::{Payload, TcpFlags};
use crate::wire::packet::PacketBuf;
use crate::xlat::{FlowPair, Notice, Refusal, frag, v4_to_v6};

impl Engine {
    #[inline]
    pub(super) fn inbound(
        &mut self,
        now: Instant,
        view: &View4,
        packet: &mut PacketBuf,
        sink: &mut impl Sink,
    ) -> Step {
        match self.try_inbound(now, view, packet, sink) {
            Ok(step) => step,
            Err(refusal) => self.refuse4(now, refusal, view, packet, sink),
        }
    }

    #[inline]
    fn try_inbound(
        &mut self,
        now: Instant,
        view: &View4,
        packet: &mut PacketBuf,
        sink: &mut impl Sink,
    ) -> Result<Step, Refusal> {
        if !self.pool.contains(view.dst) {
            return Err(DropReason::NotPool4.into());
        }
        let (protocol, port4, peer_port, flags) = match view.payload {
            Payload::Tcp(tcp) => (Protocol::Tcp, tcp.dst, tcp.src, tcp.flags),
            Payload::Udp(udp) => (Protocol::Udp, udp.dst, udp.src, TcpFlags::default()),
            Payload::Icmp(Icmp::Echo { id, .. }) => (Protocol::Icmp, id, 0, TcpFlags::default()),
            Payload::Icmp(Icmp::Error { .. }) => {
                self.translate_error4(now, view, packet)?;
                return Ok(sent(sink.send(packet, Sent::Translated)));
            }
            Payload::Icmp(Icmp::Other { .. }) => return Err(DropReason::IcmpType.into()),
            Payload::Fragment => return Err(DropReason::Fragment.into()),
            // RFC 6146 §3.4: told, as ICMP "protocol unreachable".
            Payload::Other(_) => return Err(DropReason::UnknownProtocol.with(Notice::Protocol)),
        };
        let key = Key4 { protocol, src4: view.dst, port4, dst4: view.src, peer_port };
        let (slot, is_new) = match self.sessions.find4(&key) {
            Some(slot) if !self.is_over(now, slot) => (slot, false),
            _ => (self.new_session4(now, view, &key, flags)?, true),
        };
        let Some(session) = self.sessions.get(slot) else { return Err(DropReason::NoSession.into()) };
        let Some(prefix) = self.pref64(session.pool6) else { return Err(DropReason::NotPool6.into()) };
        let rewrite = session.rewrite6(prefix.embed(session.dst4));
        let mtu = self.settings.mtu;
        let context = v4_to_v6::Context {
            hop: self.hop(false),
            mtu6: mtu.v6,
            mtu4: mtu.v4,
            lowest_ipv6_mtu: mtu.lowest_ipv6,
            id: self.ident6,
            mss: self.settings.mss_clamp,
        };
        // Used or not, it is not used again.
        self.ident6 = self.ident6.wrapping_add(1);
        let plan = match v4_to_v6::plan(view, packet, &rewrite, &context) {
            Ok(plan) => plan,
            Err(refusal) => {
                // What does not pass leaves no state behind, and changes none.
                if is_new {
                    self.end_session(slot);
                }
                return Err(refusal);
            }
        };
        if !is_new {
            self.refresh4(now, slot, flags);
        }
        plan.apply(packet);
        let Some(cut) = plan.cut else { return Ok(sent(sink.send(packet, Sent::Translated))) };
        let mut accepted = true;
        frag::cut(packet, cut, &mut self.scratch, |piece| accepted &= sink.send(piece, Sent::Piece));
        Ok(sent(accepted))
    }

    #[inline]
    fn refresh4(&mut self, now: Instant, slot: u32, flags: TcpFlags) {
        let Some(session) = self.sessions.get(slot) else { return };
        let is_answer = session.waits == Waits::V4;
        let (state, lifetime) = match session.protocol {
            Protocol::Tcp => tcp::segment(session.state, Side::V4, flags),
            Protocol::Udp => (State::Active, Lifetime::Udp),
            Protocol::Icmp => (State::Active, Lifetime::Icmp),
        };
        if is_answer {
            self.answered(slot);
        }
        self.update(now, slot, state, lifetime);
    }

    /// A peer that the client has no session with: needs a binding, and filtering that lets it in.
    fn new_session4(
        &mut self,
        now: Instant,
        view: &View4,
        key: &Key4,
        flags: TcpFlags,
    ) -> Result<u32, Refusal> {
        let Some(bib) = self.bib.find4(key.protocol, key.src4, key.port4) else {
            return Err(DropReason::NoBib.into());
        };
        let Some(binding) = self.bib.get(bib) else { return Err(DropReason::NoBib.into()) };
        let filtering = &self.settings.filtering;
        let by_address = filtering.of(key.protocol) == Filter::AddressDependent;
        let permitted = self.permissions.as_ref().is_some_and(|p| p.contains(bib, key.dst4));
        let (state, lifetime) = match key.protocol {
            Protocol::Tcp if !flags.has(TcpFlags::SYN) || flags.has(TcpFlags::RST | TcpFlags::ACK) => {
                return Err(DropReason::NoSession.into());
            }
            // RFC 6146 §3.5.2.2 would store this SYN for a while; without that it is refused.
            Protocol::Tcp if filtering.drop_external_tcp || (by_address && !permitted) => {
                return Err(DropReason::Filtered.into());
            }
            Protocol::Tcp => (State::V4Init, Lifetime::TransOpen),
            Protocol::Udp | Protocol::Icmp if by_address && !permitted => {
                return Err(DropReason::Filtered.with(Notice::Prohibited));
            }
            Protocol::Udp => (State::Active, Lifetime::Udp),
            Protocol::Icmp => (State::Active, Lifetime::Icmp),
        };
        // The client answers to Y' = Pref64 + Z, so Z must be one that it could have called.
        if is_illegal_source4(key.dst4) {
            return Err(DropReason::IllegalSource.into());
        }
        self.check_peer(key.dst4, binding.pool6)?;
        let Some(prefix) = self.pref64(binding.pool6) else { return Err(DropReason::NotPool6.into()) };
        let flow = FlowPair {
            src6: binding.src6,
            port6: binding.port6,
            dst6: prefix.embed(key.dst4),
            src4: view.dst,
            port4: key.port4,
            dst4: key.dst4,
            peer_port: key.peer_port,
        };
        let mut session = Session::new(key.protocol, binding.pool6, &flow, state, bib);
        session.waits = Waits::V6;
        Ok(self.add_session(now, session, lifetime)?)
    }
}
