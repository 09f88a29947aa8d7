//! Packets from IPv6 (RFC 6146 §3.5.1–3.5.3, from the inside): find or make binding and session, translate, and
//! turn round what is meant for another client (§3.8).

use super::engine::{Engine, Sink, Step};
use super::session::{Key6, Session, Waits};
use super::settings::Protocol;
use super::tcp::{self, Lifetime, Side, State};
use crate::addr::is_illegal_source6;
use crate::time::Instant;
use crate::verdict::{DropReason, Sent, Verdict};
use crate::wire::icmp::Icmp;
use crate::wire::ipv6::View6;
use crate::wire::l4::{Payload, TcpFlags};
use crate::wire::packet::{Checksum, PacketBuf};
use crate::xlat::{Delta, FlowPair, Notice, Refusal};
use crate::xlat::{frag, v6_to_v4};

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
        let (protocol, port6, peer_port, flags) = match view.payload {
            Payload::Tcp(tcp) => (Protocol::Tcp, tcp.src, tcp.dst, tcp.flags),
            Payload::Udp(udp) => (Protocol::Udp, udp.src, udp.dst, TcpFlags::default()),
            Payload::Icmp(Icmp::Echo { id, .. }) => (Protocol::Icmp, id, 0, TcpFlags::default()),
            Payload::Icmp(Icmp::Error { .. }) => {
                self.translate_error6(now, view, packet)?;
                return Ok(self.send_or_turn(now, packet, sink));
            }
            Payload::Icmp(Icmp::Other { .. }) => return Err(DropReason::IcmpType.into()),
            Payload::Fragment => return Err(DropReason::Fragment.into()),
            Payload::Other(_) => return Err(DropReason::UnknownProtocol.with(Notice::Protocol)),
        };
        let key = Key6 { protocol, src6: view.src, port6, pool6, dst4, peer_port };
        let (slot, is_new) = match self.sessions.find6(&key) {
            Some(slot) if !self.is_over(now, slot) => (slot, false),
            _ => (self.new_session6(now, view, packet, &key, flags)?, true),
        };
        let Some(session) = self.sessions.get(slot) else { return Err(DropReason::NoSession.into()) };
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
        let context = v6_to_v4::Context {
            hop: self.hop(turns),
            // A hairpinned packet does not leave on the IPv4 side.
            mtu4: if turns { u16::MAX } else { self.settings.mtu.v4 },
            id: self.idents.next(rewrite.src, dst4, protocol, segments),
            mss: self.settings.mss_clamp,
        };
        let plan = match v6_to_v4::plan(view, packet, &rewrite, &context) {
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
            self.refresh6(now, slot, flags);
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

    #[inline]
    fn refresh6(&mut self, now: Instant, slot: u32, flags: TcpFlags) {
        let Some(session) = self.sessions.get(slot) else { return };
        let is_answer = session.waits == Waits::V6;
        let (state, lifetime) = match session.protocol {
            Protocol::Tcp => tcp::segment(session.state, Side::V6, flags),
            Protocol::Udp => (State::Active, Lifetime::Udp),
            Protocol::Icmp => (State::Active, Lifetime::Icmp),
        };
        if is_answer {
            self.answered(slot);
        }
        self.update(now, slot, state, lifetime);
    }

    /// A flow that has no session: checks that it may have one, and makes what is missing.
    fn new_session6(
        &mut self,
        now: Instant,
        view: &View6,
        packet: &PacketBuf,
        key: &Key6,
        flags: TcpFlags,
    ) -> Result<u32, Refusal> {
        if is_illegal_source6(view.src) {
            return Err(DropReason::IllegalSource.into());
        }
        // What cannot be translated must not leave state behind; `plan` says the same about later packets.
        if let Payload::Udp(udp) = view.payload
            && udp.no_checksum
            && packet.offload.checksum == Checksum::Complete
        {
            return Err(DropReason::UdpZeroChecksum.into());
        }
        if !self.units.serve(view.src) {
            return Err(DropReason::SourceNotServed.with(Notice::Prohibited));
        }
        self.check_peer(key.dst4, key.pool6).map_err(|reason| reason.with(Notice::Prohibited))?;
        let (state, lifetime) = match key.protocol {
            // RFC 6146 §3.5.2.2: in CLOSED only a SYN from the inside makes a session.
            Protocol::Tcp if !flags.has(TcpFlags::SYN) || flags.has(TcpFlags::RST | TcpFlags::ACK) => {
                return Err(DropReason::NoSession.into());
            }
            Protocol::Tcp => (State::V6Init, Lifetime::TransOpen),
            Protocol::Udp => (State::Active, Lifetime::Udp),
            Protocol::Icmp => (State::Active, Lifetime::Icmp),
        };
        let bib = match self.bib.find6(key.protocol, key.src6, key.port6) {
            Some(bib) => bib,
            None => self.new_binding(now, key)?,
        };
        let Some(binding) = self.bib.get(bib) else { return Err(DropReason::NoBib.into()) };
        let flow = FlowPair {
            src6: key.src6,
            port6: key.port6,
            // Y' as we answer from it: with zero suffix bits, whatever the client wrote.
            dst6: self.pref64(key.pool6).map_or(view.dst, |p| p.embed(key.dst4)),
            src4: binding.src4,
            port4: binding.port4,
            dst4: key.dst4,
            peer_port: key.peer_port,
        };
        let session = Session::new(key.protocol, key.pool6, &flow, state, bib);
        self.add_session(now, session, lifetime).map_err(|reason| {
            self.drop_binding_if_unused(bib);
            reason.with(Notice::Unreachable)
        })
    }
}

/// The verdict on a packet that was given to the device.
pub(super) const fn sent(accepted: bool) -> Step {
    Step::Done(if accepted { Verdict::Translated } else { Verdict::Dropped(DropReason::DeviceWrite) })
}
