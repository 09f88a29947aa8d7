//! Packets from IPv4 (RFC 6146 §3.5.1–3.5.3, from the outside), hairpinned ones included: find the session or
//! make one where filtering lets it, translate.

use super::bib::Binding;
use super::engine::{Engine, Sink, Step};
use super::held::NotHeld;
use super::outbound::sent;
use super::session::{Key4, Session, Waits};
use super::settings::{Filter, HoldSyn, Protocol, StrayTcp};
use super::tcp::{Lifetime, Side, State};
use super::witness::{FlowWitness, Segment};
use crate::addr::is_illegal_source4;
use crate::time::Instant;
use crate::verdict::{DropReason, Sent, Settled, Verdict};
use crate::wire::icmp::Icmp;
use crate::wire::ipv4::View4;
use crate::wire::l4::{Payload, TcpFlags};
use crate::wire::packet::PacketBuf;
use crate::xlat::{FlowPair, Notice, Refusal, frag, v4_to_v6};

/// What a packet finds or makes.
enum Entry {
    /// A session that was there.
    Old(u32),
    /// A session that it has made.
    New(u32),
    /// No session; it passes by way of its binding, as this session would let it.
    None(Session),
    /// Nothing; it waits.
    Held,
}

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
            Err(refusal) => match self.hand_back(refusal.reason, view, packet, sink) {
                Some(step) => step,
                None => self.refuse4(now, refusal, view, packet, sink),
            },
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
        let (protocol, port4, peer_port) = match view.payload {
            Payload::Tcp(tcp) => (Protocol::Tcp, tcp.dst, tcp.src),
            Payload::Udp(udp) => (Protocol::Udp, udp.dst, udp.src),
            Payload::Icmp(Icmp::Echo { id, .. }) => (Protocol::Icmp, id, 0),
            Payload::Icmp(Icmp::Error { .. }) => {
                self.translate_error4(now, view, packet)?;
                return Ok(sent(sink.send(packet, Sent::Translated)));
            }
            Payload::Icmp(Icmp::Other { .. }) => return Err(DropReason::IcmpType.into()),
            Payload::Fragment => return Err(DropReason::Fragment.into()),
            // RFC 6146 §3.4: told, as ICMP "protocol unreachable".
            Payload::Other(_) => return Err(DropReason::UnknownProtocol.with(Notice::Protocol)),
        };
        if self.shared.is_machines(view.dst, port4) {
            return Err(DropReason::NotPool4.into());
        }
        let segment = Segment::read(&view.payload, packet.bytes(), view.l4);
        let key = Key4 { protocol, src4: view.dst, port4, dst4: view.src, peer_port };
        let entry = match self.sessions.find4(&key) {
            Some(slot) if !self.is_over(now, slot) => Entry::Old(slot),
            _ => self.closed4(now, view, packet, &key, segment.as_ref())?,
        };
        let session = match &entry {
            Entry::Old(slot) | Entry::New(slot) => self.sessions.get(*slot),
            Entry::None(session) => Some(session),
            Entry::Held => return Ok(Step::Done(Verdict::Held)),
        };
        let Some(session) = session else { return Err(DropReason::NoSession.into()) };
        let Some(prefix) = self.pref64(session.pool6) else { return Err(DropReason::NotPool6.into()) };
        let rewrite = session.rewrite6(prefix.embed(session.dst4));
        // A packet that makes a session has been planned before: it cannot fail now.
        let plan = v4_to_v6::plan(view, packet, &rewrite, &self.context6())?;
        // Used or not, it is not used again.
        self.ident6 = self.ident6.wrapping_add(1);
        match entry {
            Entry::Old(slot) => self.refresh(now, slot, Side::V4, segment.as_ref()),
            Entry::New(_) => self.overtake(&key, sink),
            Entry::None(_) | Entry::Held => {}
        }
        plan.apply(packet);
        let Some(cut) = plan.cut else { return Ok(sent(sink.send(packet, Sent::Translated))) };
        let mut accepted = true;
        frag::cut(packet, cut, &mut self.scratch, |piece| accepted &= sink.send(piece, Sent::Piece));
        Ok(sent(accepted))
    }

    /// What a plan goes by.
    #[inline]
    pub(super) fn context6(&self) -> v4_to_v6::Context {
        let mtu = self.settings.mtu;
        v4_to_v6::Context {
            hop: self.hop(false),
            mtu6: mtu.v6,
            mtu4: mtu.v4,
            lowest_ipv6_mtu: mtu.lowest_ipv6,
            id: self.ident6,
            mss: self.settings.mss_clamp,
            traffic_class: self.settings.classes.traffic_class,
        }
    }

    /// A packet that belongs to no session (RFC 6146 §3.5.2.2, CLOSED, and its like for UDP and ICMP).
    fn closed4(
        &mut self,
        now: Instant,
        view: &View4,
        packet: &PacketBuf,
        key: &Key4,
        segment: Option<&Segment>,
    ) -> Result<Entry, Refusal> {
        let filtering = self.settings.filtering;
        let bib = self.bib.find4(key.protocol, key.src4, key.port4);
        let by_address = filtering.of(key.protocol) == Filter::AddressDependent;
        let is_static = bib.and_then(|bib| self.bib.get(bib)).is_some_and(Binding::is_static);
        let permitted = !by_address
            || bib.is_some_and(|bib| self.permissions.as_ref().is_some_and(|p| p.contains(bib, key.dst4)));
        if key.protocol == Protocol::Tcp {
            let flags = segment.map_or(TcpFlags::default(), |s| s.flags);
            // A SYN-ACK that answers nothing is no opening, but what comes back from a forged SYN elsewhere.
            let opens = flags.opens();
            if opens && filtering.drop_external_tcp {
                return Err(DropReason::Filtered.into());
            }
            if opens && (bib.is_none() || !permitted) {
                return self.hold(now, view, packet, key, bib.is_none()).map_err(Refusal::from);
            }
            let passes = match filtering.stray_tcp {
                StrayTcp::Static => is_static,
                StrayTcp::Forward => true,
                StrayTcp::Drop => false,
            };
            if !opens && bib.is_some() && !(passes && permitted) {
                return Err(DropReason::NoSession.into());
            }
        }
        let Some((bib, binding)) = bib.and_then(|bib| Some((bib, self.bib.get(bib)?))) else {
            return Err(self.unmapped(key.protocol));
        };
        if !permitted {
            let notice = filtering.tell_filtered.then_some(Notice::Prohibited);
            return Err(Refusal { reason: DropReason::Filtered, notice });
        }
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
        let (state, lifetime) = match (key.protocol, segment) {
            (Protocol::Tcp, Some(segment)) if segment.flags.opens() => (State::V4Init, Lifetime::TransOpen),
            // F-44: it passes, and leaves nothing behind.
            (Protocol::Tcp, _) => {
                let session = Session::new(key.protocol, binding.pool6, &flow, State::Trans, bib);
                return Ok(Entry::None(session));
            }
            (Protocol::Udp, _) => (State::Active, Lifetime::Udp),
            (Protocol::Icmp, _) => (State::Active, Lifetime::Icmp),
        };
        // What cannot be translated leaves nothing behind and takes nobody's place.
        let mut session = Session::new(key.protocol, binding.pool6, &flow, state, bib);
        v4_to_v6::plan(view, packet, &session.rewrite6(flow.dst6), &self.context6())?;
        session.waits = Waits::V6;
        let slot = self.add_session(now, session, lifetime)?;
        self.bound_inbound(slot);
        if let (Some(segment), Some(witness)) = (segment, self.sessions.witness_mut(slot)) {
            *witness = FlowWitness::of_syn(Side::V4, segment);
        }
        Ok(Entry::New(slot))
    }

    /// RFC 6146 §3.5.2.2: keeps a SYN from IPv4 that came before the client's.
    fn hold(
        &mut self,
        now: Instant,
        view: &View4,
        packet: &PacketBuf,
        key: &Key4,
        unmapped: bool,
    ) -> Result<Entry, DropReason> {
        // Nothing is kept for a sender that could never be answered.
        if is_illegal_source4(key.dst4) {
            return Err(DropReason::IllegalSource);
        }
        if self.settings.filtering.hold_syn == HoldSyn::Off {
            return Err(if unmapped { DropReason::NoBib } else { DropReason::Filtered });
        }
        match self.held.hold(now, self.settings.timers.tcp_in_syn, *key, view, packet) {
            Ok(()) => Ok(Entry::Held),
            Err(NotHeld::Again) => Err(DropReason::SynRepeated),
            Err(NotHeld::Full) => Err(DropReason::SynStoreFull),
        }
    }

    /// A SYN has opened a session. One of the same connection that waits since before its mapping was there, or let it
    /// in, must not be answered with an error any more.
    fn overtake(&mut self, key: &Key4, sink: &mut impl Sink) {
        if self.held.take(key, &mut self.scratch[1]).is_some() {
            sink.settle(1, Settled::Dropped(DropReason::SynMet));
        }
    }

    /// RFC 6146 §3.5.1, §3.5.3: a port without mapping is silent, unless policy says otherwise.
    const fn unmapped(&self, protocol: Protocol) -> Refusal {
        let notice = match protocol {
            _ if !self.settings.filtering.tell_unmapped => None,
            // §3.5.2.2: silently, whatever it is.
            Protocol::Tcp => None,
            Protocol::Udp => Some(Notice::Port),
            Protocol::Icmp => Some(Notice::Unreachable),
        };
        Refusal { reason: DropReason::NoBib, notice }
    }
}
