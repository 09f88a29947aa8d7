//! The life of sessions: made, kept alive by packets, ended by time (RFC 6146 §3.5, §4).

use std::time::Duration;

use super::engine::{Engine, Sink};
use super::evict::Leaving;
use super::session::{Session, Waits};
use super::settings::{HoldSyn, Protocol};
use super::tcp::{self, Lifetime, Side, State};
use super::wheel;
use super::witness::Segment;
use crate::time::Instant;
use crate::verdict::{DropReason, Sent, Settled};
use crate::xlat::Notice;
use crate::xlat::icmp_error::build4;
use crate::xlat::probe::build_probe6;

/// What has become of a session whose lifetime was over.
enum End {
    /// It is gone.
    Gone,
    /// It is not over: the fast path has carried packets of it.
    Kept,
    /// It has been given a last chance.
    Grace,
}

impl Engine {
    /// Ends sessions, waiting SYNs and waiting fragments whose time is over. Looks at no more than `budget` sessions;
    /// false when it ran out.
    pub fn expire(&mut self, now: Instant, budget: u32, sink: &mut impl Sink) -> bool {
        self.leases.set_now(now);
        while let Some(held) = self.reassembly.expire(now) {
            sink.settle(held, Settled::Dropped(DropReason::FragmentTimeout));
        }
        self.expire_syns(now, sink);
        let mut left = budget;
        while let Some(slot) = self.wheel.next_due(&mut self.sessions, now, &mut left) {
            if matches!(self.time_out(now, slot), End::Grace) {
                self.probe(slot, sink);
            }
        }
        let attended = self.attend(now, budget);
        // Behind the sessions: what they gave back just now may be free at once.
        self.tidy(now, budget) && attended && left > 0
    }

    /// What a translated packet of a session that exists does to it.
    #[inline]
    pub(super) fn refresh(&mut self, now: Instant, slot: u32, side: Side, segment: Option<&Segment>) {
        let Some(session) = self.sessions.get(slot) else { return };
        let (mut old, protocol, peer_port, waits) =
            (session.state, session.protocol, session.peer_port, session.waits);
        let (state, lifetime) = match (protocol, segment) {
            (Protocol::Tcp, Some(segment)) => {
                let believed = self.see(slot, side, segment);
                // RFC 6146 §5.2: what the ends cannot have sent neither ends nor prolongs anything.
                if !believed {
                    return;
                }
                // The fast path may have seen the end of the connection before.
                old = self.sessions.get(slot).map_or(old, |session| session.state);
                tcp::segment(old, side, segment.flags)
            }
            (Protocol::Tcp, None) => return,
            (Protocol::Udp, _) => (State::Active, Lifetime::Udp),
            (Protocol::Icmp, _) => (State::Active, Lifetime::Icmp),
        };
        if matches!((waits, side), (Waits::V4, Side::V4) | (Waits::V6, Side::V6)) {
            self.answered(slot);
        }
        // RFC 4787 REQ-6: packets from outside need not keep a mapping alive (G-10).
        if side == Side::V4 && state == old && !self.settings.filtering.inbound_refresh {
            return;
        }
        self.update(now, slot, state, self.lifetime(lifetime, peer_port));
        if side == Side::V6 {
            self.note_outbound(slot, false);
        }
        if self.riders.is_some() {
            self.board(now, slot, waits == Waits::Nobody);
        }
    }

    /// Gives a session a new state, and a new lifetime if there is one.
    #[inline]
    pub(super) fn update(&mut self, now: Instant, slot: u32, state: State, lifetime: Option<Duration>) {
        let Some(session) = self.sessions.get_mut(slot) else { return };
        session.state = state;
        let Some(lifetime) = lifetime else { return };
        let deadline = wheel::deadline(now, lifetime);
        session.deadline = deadline;
        // The wheel must learn at once only of a deadline that comes earlier than it would look.
        if deadline < session.due {
            self.wheel.remove(&mut self.sessions, slot);
            self.wheel.add(&mut self.sessions, slot);
        }
    }

    /// Ends the session in `slot` if its lifetime is over, or lets it go on as its state says. True when it is
    /// gone.
    #[inline]
    pub(super) fn is_over(&mut self, now: Instant, slot: u32) -> bool {
        let Some(session) = self.sessions.get(slot) else { return true };
        if wheel::tick(now) < session.deadline {
            return false;
        }
        self.wheel.remove(&mut self.sessions, slot);
        // No probe: a packet is here.
        matches!(self.time_out(now, slot), End::Gone)
    }

    /// Makes a session for a binding that exists, and puts it into the wheel.
    pub(super) fn add_session(
        &mut self,
        now: Instant,
        mut session: Session,
        lifetime: Lifetime,
    ) -> Result<u32, DropReason> {
        let Some(lifetime) = self.lifetime(lifetime, session.peer_port) else {
            return Err(DropReason::NoSession);
        };
        session.deadline = wheel::deadline(now, lifetime);
        let (bib, peer, protocol) = (session.bib, session.dst4, session.protocol);
        if self.bib.get(bib).is_none_or(|b| b.sessions == u16::MAX) {
            return Err(DropReason::TableFull);
        }
        // May end another session of the same binding to make room.
        let waits = session.waits;
        self.admit(now, bib, waits)?;
        if let Some(permissions) = &mut self.permissions
            && !permissions.add(bib, peer)
        {
            self.not_made(bib, waits);
            return Err(DropReason::TableFull);
        }
        let Some(slot) = self.sessions.insert(session) else {
            self.not_made(bib, waits);
            if let Some(permissions) = &mut self.permissions {
                permissions.remove(bib, peer);
            }
            return Err(DropReason::TableFull);
        };
        if let Some(binding) = self.bib.get_mut(bib) {
            binding.sessions += 1;
        }
        self.counts[protocol as usize] += 1;
        self.wheel.add(&mut self.sessions, slot);
        self.session_made(now, slot);
        Ok(slot)
    }

    /// Begins or ends to follow how long clients themselves keep their mappings (G-10). It must be known only while
    /// packets from IPv4 do not keep any alive: then a session that a stranger opens must not either.
    pub(super) fn follow_outbound(&mut self) {
        match &self.outbound_until {
            None if !self.settings.filtering.inbound_refresh => {
                let until = self.wheel.at().saturating_add(wheel::ticks(self.settings.timers.udp));
                self.outbound_until = Some(vec![until; self.bib.capacity() as usize].into_boxed_slice());
            }
            Some(_) if self.settings.filtering.inbound_refresh => self.outbound_until = None,
            None | Some(_) => {}
        }
    }

    /// The client has sent something by way of the session in `slot`.
    pub(super) fn note_outbound(&mut self, slot: u32, is_new_binding: bool) {
        let (Some(until), Some(session)) = (&mut self.outbound_until, self.sessions.get(slot)) else {
            return;
        };
        let Some(until) = until.get_mut(session.bib as usize) else { return };
        *until = if is_new_binding { session.deadline } else { session.deadline.max(*until) };
    }

    /// A session that the peer has opened lives no longer than the client keeps the mapping.
    pub(super) fn bound_inbound(&mut self, slot: u32) {
        let (Some(until), Some(session)) = (&self.outbound_until, self.sessions.get(slot)) else {
            return;
        };
        let Some(until) = until.get(session.bib as usize).copied() else { return };
        if self.bib.get(session.bib).is_some_and(|b| !b.is_static()) && until < session.deadline {
            self.shorten(slot, until);
        }
    }

    /// Lets a session that is in the wheel end earlier.
    pub(super) fn shorten(&mut self, slot: u32, deadline: wheel::Tick) {
        if let Some(session) = self.sessions.get_mut(slot) {
            session.deadline = deadline;
            self.wheel.remove(&mut self.sessions, slot);
            self.wheel.add(&mut self.sessions, slot);
        }
    }

    /// Ends a session that is in the wheel.
    pub(super) fn end_session(&mut self, slot: u32) {
        self.wheel.remove(&mut self.sessions, slot);
        self.remove_session(slot, Leaving::Over);
    }

    /// Ends a session that is in the wheel and makes room for another one.
    pub(super) fn displace_session(&mut self, slot: u32) {
        self.wheel.remove(&mut self.sessions, slot);
        self.remove_session(slot, Leaving::ForRoom);
    }

    pub(super) fn end_sessions(&mut self, is_forbidden: impl Fn(&Self, &Session) -> bool) {
        for slot in 0..self.sessions.capacity() {
            if self.sessions.get(slot).is_some_and(|s| is_forbidden(self, s)) {
                self.end_session(slot);
            }
        }
    }

    /// Whether a session is there for what is no packet of its own, which neither ends nor keeps it.
    pub(super) fn lives(&self, now: Instant, slot: u32) -> bool {
        let grace = |state| tcp::timeout(state).and_then(|(_, lifetime)| self.lifetime(lifetime, 0));
        self.sessions.get(slot).is_some_and(|s| {
            let grace = wheel::ticks(grace(s.state).unwrap_or_default());
            wheel::tick(now) < self.deadline_of(slot, s).saturating_add(grace)
        })
    }

    /// What RFC 6146 says about a session, already out of the wheel, whose lifetime is over.
    fn time_out(&mut self, now: Instant, slot: u32) -> End {
        if self.riders.is_some() && self.was_carried(now, slot) {
            self.wheel.add(&mut self.sessions, slot);
            return End::Kept;
        }
        let Some(session) = self.sessions.get(slot) else { return End::Gone };
        let grace = tcp::timeout(session.state)
            .and_then(|(state, lifetime)| Some((state, self.lifetime(lifetime, session.peer_port)?)));
        // The grace time runs from the moment the lifetime was over, however late we look.
        let deadline =
            grace.map(|(state, time)| (state, session.deadline.saturating_add(wheel::ticks(time))));
        match (deadline, self.sessions.get_mut(slot)) {
            (Some((state, deadline)), Some(session)) if wheel::tick(now) < deadline => {
                session.state = state;
                session.deadline = deadline;
                self.wheel.add(&mut self.sessions, slot);
                End::Grace
            }
            (Some(_) | None, _) => {
                self.remove_session(slot, Leaving::Over);
                End::Gone
            }
        }
    }

    /// Removes a session that is not in the wheel.
    fn remove_session(&mut self, slot: u32, leaving: Leaving) {
        self.alight(self.leases.now(), slot);
        let Some(session) = self.sessions.remove(slot) else { return };
        self.counts[session.protocol as usize] -= 1;
        self.session_gone(&session);
        if let Some(permissions) = &mut self.permissions {
            permissions.remove(session.bib, session.dst4);
        }
        if let Some(binding) = self.bib.get_mut(session.bib) {
            binding.sessions -= 1;
        }
        self.drop_binding_if_unused(session.bib, leaving);
    }

    /// RFC 6146 §3.5.2.2: asks the client of an idle connection for a sign of life. An acknowledgement brings the
    /// session back; the answer of a host that knows nothing of it does not.
    fn probe(&mut self, slot: u32, sink: &mut impl Sink) {
        let Some(session) = self.sessions.get(slot) else { return };
        let Some(prefix) = self.pref64(session.pool6) else { return };
        let [out, _] = &mut self.scratch;
        let (from, to) = ((prefix.embed(session.dst4), session.peer_port), (session.src6, session.port6));
        build_probe6(from, to, out);
        sink.send(out, Sent::Originated);
    }

    /// RFC 6146 §3.5.2.2: the sender of a SYN that nobody met is told that nobody listens.
    fn expire_syns(&mut self, now: Instant, sink: &mut impl Sink) {
        while let Some(view) = self.held.expire(now, &mut self.scratch[1]) {
            sink.settle(1, Settled::Dropped(DropReason::SynUnanswered));
            let filtering = &self.settings.filtering;
            let id = self.idents.next(view.dst, view.src, Protocol::Icmp, 1);
            let [out, syn] = &mut self.scratch;
            // The port may have gone to a client of another worker meanwhile, which knows whether they have met.
            let ours = self.steering.owner4(&view, syn.bytes(), &self.pool) == Ok(self.worker);
            if filtering.hold_syn == HoldSyn::Tell
                && filtering.errors_to_ipv4
                && ours
                && self.pool.contains(view.dst)
                && build4(Notice::Port, &view, syn, view.dst, id, out)
                && self.notices.take(now)
            {
                sink.send(out, Sent::Originated);
            }
        }
    }

    pub(super) fn lifetime(&self, lifetime: Lifetime, peer_port: u16) -> Option<Duration> {
        let timers = &self.settings.timers;
        match lifetime {
            Lifetime::Keep => None,
            Lifetime::TransOpen => Some(timers.tcp_trans_open),
            Lifetime::TransClose => Some(timers.tcp_trans_close),
            Lifetime::Established => Some(timers.tcp_est),
            Lifetime::Udp => Some(timers.udp_of(peer_port)),
            Lifetime::Icmp => Some(timers.icmp),
        }
    }
}
