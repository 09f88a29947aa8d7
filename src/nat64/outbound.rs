//! Packets from IPv6 (RFC 6146 §3.5.1–3.5.3, from the inside): find or make binding and session, translate, and
//! turn round what is meant for another client (§3.8).

use std::net::Ipv4Addr;

use super::bib::Binding;
use super::engine::{Engine, Sink, Step};
use super::evict::Leaving;
use super::session::{Key6, Session};
use super::settings::{Protocol, StrayTcp};
use super::tcp::{Lifetime, Side, State};
use super::witness::{FlowWitness, Segment};
use crate::addr::is_illegal_source6;
use crate::time::Instant;
use crate::verdict::{DropReason, Sent, Settled, Verdict};
use crate::wire::icmp::Icmp;
use crate::wire::ipv6::View6;
use crate::wire::l4::{Payload, TcpFlags};
use crate::wire::packet::PacketBuf;
use crate::xlat::{Delta, FlowPair, Notice, Refusal, Rewrite, frag, v6_to_v4};

/// What a packet finds or makes.
enum Entry {
    /// A session that was there.
    Old(u32),
    /// A session that it has made.
    New(u32),
    /// No session; it passes by way of its binding, as this session would let it.
    None(Session),
}

impl Engine {
    #[inline]
    pub(super) fn outbound(
        &mut self,
        now: Instant,
        view: &View6,
        packet: &mut PacketBuf,
        sink: &mut impl Sink,
    ) -> Step {
        match self.try_outbound(now, view, packet, sink) {
            Ok(step) => step,
            Err(refusal) => self.refuse6(now, refusal, view, packet, sink),
        }
    }

    #[inline]
    fn try_outbound(
        &mut self,
        now: Instant,
        view: &View6,
        packet: &mut PacketBuf,
        sink: &mut impl Sink,
    ) -> Result<Step, Refusal> {
        if self.settings.pool6.iter().any(|p| p.contains(view.src)) {
            return Err(DropReason::SourceInPool6.into());
        }
        let pool6 = self.settings.pool6.iter().position(|p| p.contains(view.dst));
        let Some((pool6, dst4)) =
            pool6.and_then(|i| Some((i as u8, self.pref64(i as u8)?.extract(view.dst)?)))
        else {
            // Multicast is the kernel's own chatter on the TUN.
            let multicast = view.dst.is_multicast();
            return Err(if multicast { DropReason::IllegalDestination } else { DropReason::NotPool6 }.into());
        };
        let (protocol, port6, peer_port) = match view.payload {
            Payload::Tcp(tcp) => (Protocol::Tcp, tcp.src, tcp.dst),
            Payload::Udp(udp) => (Protocol::Udp, udp.src, udp.dst),
            Payload::Icmp(Icmp::Echo { id, .. }) => (Protocol::Icmp, id, 0),
            Payload::Icmp(Icmp::Error { .. }) => {
                self.translate_error6(now, view, packet)?;
                return Ok(self.send_or_turn(now, packet, sink));
            }
            Payload::Icmp(Icmp::Other { .. }) => return Err(DropReason::IcmpType.into()),
            Payload::Fragment => return Err(DropReason::Fragment.into()),
            Payload::Other(_) => return Err(DropReason::UnknownProtocol.with(Notice::Protocol)),
        };
        let segment = Segment::read(&view.payload, packet.bytes(), view.l4);
        let key = Key6 { protocol, src6: view.src, port6, pool6, dst4, peer_port };
        let entry = match self.sessions.find6(&key) {
            Some(slot) if !self.is_over(now, slot) => Entry::Old(slot),
            _ => self.closed6(now, view, packet, &key, segment.as_ref())?,
        };
        let session = match &entry {
            Entry::Old(slot) | Entry::New(slot) => self.sessions.get(*slot),
            Entry::None(session) => Some(session),
        };
        let Some(session) = session else { return Err(DropReason::NoSession.into()) };
        let mut rewrite = session.rewrite4();
        if let Some(prefix) = self.pref64(pool6)
            && prefix.prefix().len() < 96
            && prefix.embed(dst4) != view.dst
        {
            // The client wrote a suffix: its checksum covers that, not the Y' that we answer from.
            rewrite.delta = Delta::v6_to_v4(&FlowPair {
                src6: view.src,
                port6,
                dst6: view.dst,
                src4: rewrite.src,
                port4: rewrite.src_port,
                dst4,
                peer_port,
            });
        }
        let turns = self.pool.contains(dst4);
        let segments = packet.segments(view.l4 + view.payload.header_len());
        let id = self.idents.next(rewrite.src, dst4, protocol, segments);
        // A packet that makes a session has been planned before: it cannot fail now.
        let plan = v6_to_v4::plan(view, packet, &rewrite, &self.context4(turns, id))?;
        match entry {
            Entry::Old(slot) => self.refresh(now, slot, Side::V6, segment.as_ref()),
            Entry::New(slot) => self.meet(now, slot, segment.as_ref(), sink),
            Entry::None(_) => {}
        }
        plan.apply(packet);
        if turns {
            return Ok(self.send_or_turn(now, packet, sink));
        }
        let Some(mtu) = plan.cut else { return Ok(sent(sink.send(packet, Sent::Translated))) };
        let mut accepted = true;
        frag::cut4(packet, mtu, &mut self.scratch[0], |piece| accepted &= sink.send(piece, Sent::Piece));
        Ok(sent(accepted))
    }

    /// Sends an IPv4 packet, or turns it round when it is for our own pool (RFC 6146 §3.8).
    fn send_or_turn(&mut self, now: Instant, packet: &mut PacketBuf, sink: &mut impl Sink) -> Step {
        let view = match packet.parse() {
            Ok(crate::wire::packet::View::V4(view)) => view,
            Ok(crate::wire::packet::View::V6(_)) => return DropReason::BadVersion.into(),
            Err(reason) => return reason.into(),
        };
        if !self.pool.contains(view.dst) {
            return sent(sink.send(packet, Sent::Translated));
        }
        match self.steering.owner4(&view, packet.bytes(), &self.pool) {
            Ok(owner) if owner == self.worker => self.inbound(now, &view, packet, sink),
            Ok(worker) => Step::Pass { worker },
            Err(reason) => reason.into(),
        }
    }

    /// A flow that has no session: checks that it may have one, and makes what is missing.
    fn closed6(
        &mut self,
        now: Instant,
        view: &View6,
        packet: &PacketBuf,
        key: &Key6,
        segment: Option<&Segment>,
    ) -> Result<Entry, Refusal> {
        if is_illegal_source6(view.src) {
            return Err(DropReason::IllegalSource.into());
        }
        if !self.units.serve(view.src) {
            return Err(DropReason::SourceNotServed.with(Notice::Prohibited));
        }
        self.check_peer(key.dst4, key.pool6).map_err(|reason| reason.with(Notice::Prohibited))?;
        if self.shared.keeps_from_clients(key.dst4, key.protocol, key.peer_port) {
            return Err(DropReason::OwnAddress.with(Notice::Prohibited));
        }
        let bib = self.bib.find6(key.protocol, key.src6, key.port6);
        let (state, lifetime) = match (key.protocol, segment.map_or(TcpFlags::default(), |s| s.flags)) {
            // RFC 6146 §3.5.2.2: in CLOSED only a SYN from the inside makes a session.
            (Protocol::Tcp, flags) if !flags.opens() => return self.stray6(view, key, bib),
            (Protocol::Tcp, _) => (State::V6Init, Lifetime::TransOpen),
            (Protocol::Udp, _) => (State::Active, Lifetime::Udp),
            (Protocol::Icmp, _) => (State::Active, Lifetime::Icmp),
        };
        // What cannot be translated leaves nothing behind and takes nobody's place. Whether it can does not depend on the
        // port, which is not known yet.
        let (src, dst) = (Ipv4Addr::UNSPECIFIED, key.dst4);
        let rewrite = Rewrite { src, dst, src_port: 0, dst_port: key.peer_port, delta: Delta::default() };
        v6_to_v4::plan(view, packet, &rewrite, &self.context4(self.pool.contains(dst), 0))?;
        let (bib, is_new_binding) = match bib {
            Some(bib) => (bib, false),
            None => (self.new_binding(now, key)?, true),
        };
        let Some(flow) = self.flow6(view, key, bib) else { return Err(DropReason::NoBib.into()) };
        let session = Session::new(key.protocol, key.pool6, &flow, state, bib);
        let slot = self.add_session(now, session, lifetime).map_err(|reason| {
            self.drop_binding_if_unused(bib, Leaving::ForRoom);
            reason.with(Notice::Unreachable)
        })?;
        self.note_outbound(slot, is_new_binding);
        Ok(Entry::New(slot))
    }

    /// What a plan goes by. A hairpinned packet does not leave on the IPv4 side.
    #[inline]
    pub(super) fn context4(&self, turns: bool, id: u16) -> v6_to_v4::Context {
        v6_to_v4::Context {
            hop: self.hop(turns),
            mtu4: if turns { u16::MAX } else { self.settings.mtu.v4 },
            id,
            mss: self.settings.mss_clamp,
            tos: self.settings.classes.tos,
        }
    }

    /// A TCP segment that is no opening and belongs to no session passes where policy lets it, and leaves nothing
    /// behind (RFC 6146 §3.5.2.2, F-44).
    fn stray6(&self, view: &View6, key: &Key6, bib: Option<u32>) -> Result<Entry, Refusal> {
        let passes = |binding: &Binding| match self.settings.filtering.stray_tcp {
            StrayTcp::Static => binding.is_static(),
            StrayTcp::Forward => true,
            StrayTcp::Drop => false,
        };
        let bib = bib.filter(|bib| self.bib.get(*bib).is_some_and(passes));
        let Some((bib, flow)) = bib.and_then(|bib| Some((bib, self.flow6(view, key, bib)?))) else {
            return Err(DropReason::NoSession.into());
        };
        Ok(Entry::None(Session::new(key.protocol, key.pool6, &flow, State::Trans, bib)))
    }

    fn flow6(&self, view: &View6, key: &Key6, bib: u32) -> Option<FlowPair> {
        let binding = self.bib.get(bib)?;
        Some(FlowPair {
            src6: key.src6,
            port6: key.port6,
            // Y' as we answer from it: with zero suffix bits, whatever the client wrote.
            dst6: self.pref64(key.pool6).map_or(view.dst, |p| p.embed(key.dst4)),
            src4: binding.src4,
            port4: binding.port4,
            dst4: key.dst4,
            peer_port: key.peer_port,
        })
    }

    /// The first packet of a session passes. If it is a SYN and the peer's own SYN waits, they have met, and the
    /// connection is open (RFC 6146 §3.5.2.2, V4_INIT); the peer's is not forwarded (RFC 5382 REQ-4).
    fn meet(&mut self, now: Instant, slot: u32, segment: Option<&Segment>, sink: &mut impl Sink) {
        let Some(segment) = segment else { return };
        if let Some(witness) = self.sessions.witness_mut(slot) {
            *witness = FlowWitness::of_syn(Side::V6, segment);
        }
        let Some(key) = self.sessions.get(slot).map(Session::key4) else { return };
        let [_, syn] = &mut self.scratch;
        let Some(view) = self.held.take(&key, syn) else { return };
        sink.settle(1, Settled::Dropped(DropReason::SynMet));
        let syn = Segment::read(&view.payload, syn.bytes(), view.l4);
        self.refresh(now, slot, Side::V4, syn.as_ref());
    }
}

/// The verdict on a packet that was given to the device.
pub(super) const fn sent(accepted: bool) -> Step {
    Step::Done(if accepted { Verdict::Translated } else { Verdict::Dropped(DropReason::DeviceWrite) })
}
