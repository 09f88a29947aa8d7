//! The engine of one worker: its tables, and the door through which every packet comes.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use super::bib::Bib;
use super::event::Events;
use super::ident::Idents;
use super::lease::Leases;
use super::permission::Permissions;
use super::pool4::Pool;
use super::quota::{Accounts, Ledger};
use super::reassembly::{Joined, Reassembly};
use super::session::{Session, Sessions};
use super::settings::{Change, Filter, Filtering, Hops, Protocol, Settings};
use super::steer::Steering;
use super::subscriber::Subscribers;
use super::tcp::{self, Lifetime, State};
use super::unanswered::Unanswered;
use super::units::Units;
use super::wheel::{self, Wheel};
use crate::addr::{is_illegal_source4, is_illegal_source6, is_non_global};
use crate::time::Instant;
use crate::verdict::{DropReason, Sent, Settled, Verdict};
use crate::wire::ipv4::View4;
use crate::wire::ipv6::View6;
use crate::wire::l4::Payload;
use crate::wire::packet::{PacketBuf, View};
use crate::xlat::icmp_error::{build4, build6};
use crate::xlat::pref64::Pref64;
use crate::xlat::{Hop, Refusal};

/// Where finished packets go.
pub trait Sink {
    /// Sends `packet`; false when the device refused it.
    fn send(&mut self, packet: &mut PacketBuf, sent: Sent) -> bool;

    /// Counts the end of `count` packets that were held.
    fn settle(&mut self, count: u32, end: Settled);
}

/// What became of a packet that an engine was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// It is done with.
    Done(Verdict),
    /// It belongs to another worker, to be given to its [`Engine::handle_passed`].
    Pass {
        /// That worker.
        worker: u16,
    },
}

impl From<DropReason> for Step {
    fn from(reason: DropReason) -> Self {
        Self::Done(Verdict::Dropped(reason))
    }
}

/// What an engine is made of, beside its settings.
pub struct Place {
    /// Number of this worker.
    pub worker: u16,
    /// Who owns what.
    pub steering: Steering,
    /// The pool, shared by all workers.
    pub pool: Arc<Pool>,
    /// Random number for hashes and identifications.
    pub seed: u64,
}

/// The stateful translator of one worker.
pub struct Engine {
    pub(super) settings: Settings,
    pub(super) units: Units,
    pub(super) worker: u16,
    pub(super) steering: Steering,
    pub(super) pool: Arc<Pool>,
    pub(super) sessions: Sessions,
    pub(super) bib: Bib,
    pub(super) subscribers: Subscribers,
    pub(super) leases: Leases,
    pub(super) accounts: Accounts,
    pub(super) unanswered: Unanswered,
    /// Places in the session table that are not kept free for anybody.
    pub(super) shared_room: u32,
    /// Sessions in places that are kept free for their unit.
    pub(super) reserved_used: u32,
    pub(super) evicted: u64,
    pub(super) events: Events,
    pub(super) permissions: Option<Permissions>,
    pub(super) reassembly: Reassembly,
    pub(super) wheel: Wheel,
    pub(super) scratch: [PacketBuf; 2],
    /// Sessions of each protocol.
    pub(super) counts: [u32; 3],
    pub(super) idents: Idents,
    /// Next identification of IPv6 fragments.
    pub(super) ident6: u32,
    seed: u64,
    notices: Bucket,
}

impl Engine {
    /// An engine with empty tables, all of them made now.
    pub fn new(settings: Settings, place: Place, now: Instant) -> Self {
        let workers = u32::from(place.steering.workers());
        let share = settings.limits.sessions.div_ceil(workers).max(1);
        let subscribers = settings.limits.subscribers.div_ceil(workers).max(1);
        let blocks = u32::try_from(place.pool.usage().0).unwrap_or(u32::MAX);
        let seed = place.seed;
        let idents = Idents::new(place.worker, place.steering.workers(), seed);
        // Every subscriber can have one that is idle beside those in use.
        let leases = blocks.max(MIN_LEASES).min(share.saturating_add(subscribers));
        let resting = settings.ports.hold_down_max.div_ceil(workers);
        let ledger = Arc::new(Ledger::new(settings.limits.subscribers, place.steering.workers()));
        let mut engine = Self {
            units: Units::new(&settings),
            worker: place.worker,
            steering: place.steering,
            sessions: Sessions::new(share, seed ^ 1),
            // One more: a new binding is there before the session whose place it may take.
            bib: Bib::new(share.saturating_add(1), seed ^ 2),
            subscribers: Subscribers::new(subscribers, seed ^ 3),
            leases: Leases::new(leases, place.pool.largest_block(), subscribers, resting),
            // Each subscriber has two accounts at most.
            accounts: Accounts::new(subscribers.saturating_mul(2), ledger, seed ^ 6),
            unanswered: Unanswered::new(share),
            shared_room: share,
            reserved_used: 0,
            evicted: 0,
            events: Events::new(),
            permissions: filters_by_address(&settings.filtering).then(|| Permissions::new(share, seed ^ 4)),
            reassembly: Reassembly::new(settings.fragments, seed ^ 5),
            wheel: Wheel::new(now),
            scratch: [PacketBuf::new(), PacketBuf::new()],
            counts: [0; 3],
            idents,
            ident6: (seed >> 8) as u32,
            seed,
            notices: Bucket::new(settings.limits.icmp_errors_per_second, now),
            pool: place.pool,
            settings,
        };
        engine.update_quotas();
        engine
    }

    /// Takes a packet from the device.
    #[inline]
    pub fn handle(&mut self, now: Instant, packet: &mut PacketBuf, sink: &mut impl Sink) -> Step {
        let view = match packet.parse() {
            Ok(view) => view,
            Err(reason) => return reason.into(),
        };
        let owner = match &view {
            View::V6(view) => self.steering.owner6(view, packet.bytes()),
            // RFC 7915 §4.1: what comes from our own addresses comes from a forger; hairpins never leave the engines.
            View::V4(view) if self.pool.contains(view.src) => Err(DropReason::IllegalSource),
            View::V4(view) => self.steering.owner4(view, packet.bytes(), &self.pool),
        };
        match owner {
            Ok(owner) if owner == self.worker => self.own(now, &view, packet, sink),
            Ok(worker) => Step::Pass { worker },
            Err(reason) => reason.into(),
        }
    }

    /// Takes a packet that another worker passed on. It may be the IPv4 form of a
    /// hairpinned one. It is not passed on again, except as a hairpin.
    pub fn handle_passed(&mut self, now: Instant, packet: &mut PacketBuf, sink: &mut impl Sink) -> Step {
        match packet.parse() {
            Ok(view) => self.own(now, &view, packet, sink),
            Err(reason) => reason.into(),
        }
    }

    /// Ends sessions and waiting fragments whose time is over. Looks at no more than `budget` sessions; false when it
    /// ran out.
    pub fn expire(&mut self, now: Instant, budget: u32, sink: &mut impl Sink) -> bool {
        self.leases.set_now(now);
        while let Some(held) = self.reassembly.expire(now) {
            sink.settle(held, Settled::Dropped(DropReason::FragmentTimeout));
        }
        let mut left = budget;
        while let Some(slot) = self.wheel.next_due(&mut self.sessions, now, &mut left) {
            self.time_out(now, slot);
        }
        // Behind the sessions: what they gave back just now may be free at once.
        self.tidy(now, budget) && left > 0
    }

    /// Takes a change of settings. Mappings and sessions that it forbids are ended now.
    pub fn change(&mut self, change: &Change) {
        match change {
            Change::Units(units) => {
                self.settings.units.clone_from(units);
                self.units = Units::new(&self.settings);
                self.end_sessions(|engine, s| !engine.units.serve(s.src6));
                self.update_quotas();
            }
            Change::Ports(ports) => self.settings.ports = *ports,
            Change::Quotas(quotas) => {
                self.settings.quotas = *quotas;
                self.update_quotas();
            }
            Change::Allow(allow) => {
                self.settings.allow.clone_from(allow);
                self.end_sessions(|engine, s| engine.check_peer(s.dst4, s.pool6).is_err());
            }
            Change::Filtering(filtering) => {
                self.settings.filtering = *filtering;
                self.rebuild_permissions();
            }
            Change::Timers(timers) => self.settings.timers = *timers,
            // The pool is shared: whoever changes it hands the new one to every worker with `set_pool`.
            Change::Pool4(ranges) => self.settings.pool4.ranges.clone_from(ranges),
        }
    }

    /// Takes a new pool. Mappings on addresses that are gone for good are ended now; on those that are draining they
    /// live on.
    pub fn set_pool(&mut self, pool: Arc<Pool>) {
        self.pool = pool;
        self.end_sessions(|engine, s| {
            let address = engine.bib.get(s.bib).and_then(|b| engine.leases.address(&b.lease));
            let stays =
                matches!((address, engine.pool.find(s.src4)), (Some(a), Some(b)) if Arc::ptr_eq(a, b));
            // A hairpinned peer was allowed because it was in the pool.
            !stays || engine.check_peer(s.dst4, s.pool6).is_err()
        });
    }

    /// The settings in force.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Sessions of TCP, UDP and ICMP.
    pub const fn session_counts(&self) -> [u32; 3] {
        self.counts
    }

    /// Bindings of TCP, UDP and ICMP.
    pub const fn binding_counts(&self) -> [u32; 3] {
        self.bib.counts()
    }

    /// Number of subscribers with at least one binding.
    pub const fn subscribers(&self) -> u32 {
        self.subscribers.len()
    }

    /// Errors of our own that the rate limit kept back.
    pub const fn suppressed_notices(&self) -> u64 {
        self.notices.refused
    }

    /// Bytes of all tables.
    pub const fn table_bytes(&self) -> usize {
        self.sessions.bytes()
            + self.bib.bytes()
            + self.subscribers.bytes()
            + self.leases.bytes()
            + self.accounts.bytes()
            + self.unanswered.bytes()
    }

    /// RFC 6146 §3.5: everything after the owner is known.
    pub(super) fn own(
        &mut self,
        now: Instant,
        view: &View,
        packet: &mut PacketBuf,
        sink: &mut impl Sink,
    ) -> Step {
        match view {
            View::V6(v) if v.payload == Payload::Fragment => self.reassemble(now, view, packet, sink),
            View::V4(v) if v.payload == Payload::Fragment => self.reassemble(now, view, packet, sink),
            View::V6(view) => self.outbound(now, view, packet, sink),
            View::V4(view) => self.inbound(now, view, packet, sink),
        }
    }

    /// RFC 6146 §3.4: a fragment waits until its datagram is whole, which then goes to its owner.
    fn reassemble(
        &mut self,
        now: Instant,
        view: &View,
        packet: &mut PacketBuf,
        sink: &mut impl Sink,
    ) -> Step {
        if let Err(reason) = self.may_wait(view) {
            return reason.into();
        }
        match self.reassembly.join(now, view, packet) {
            Joined::Waiting => Step::Done(Verdict::Held),
            Joined::Whole { held } => {
                sink.settle(held, Settled::Absorbed);
                self.handle(now, packet, sink)
            }
            Joined::Refused { reason, held } => {
                sink.settle(held, Settled::Dropped(reason));
                reason.into()
            }
        }
    }

    /// Nothing is stored for packets that would be refused anyway.
    fn may_wait(&self, view: &View) -> Result<(), DropReason> {
        match view {
            View::V6(v) if self.settings.pool6.iter().any(|p| p.contains(v.src)) => {
                Err(DropReason::SourceInPool6)
            }
            View::V6(v) if !self.settings.pool6.iter().any(|p| p.contains(v.dst)) => {
                Err(DropReason::NotPool6)
            }
            View::V6(v) if is_illegal_source6(v.src) => Err(DropReason::IllegalSource),
            View::V6(v) if !self.units.serve(v.src) => Err(DropReason::SourceNotServed),
            View::V4(v) if !self.pool.contains(v.dst) => Err(DropReason::NotPool4),
            View::V4(v) if is_illegal_source4(v.src) => Err(DropReason::IllegalSource),
            View::V6(_) | View::V4(_) => Ok(()),
        }
    }

    /// Refuses a packet from IPv6, and tells its sender if that is due.
    pub(super) fn refuse6(
        &mut self,
        now: Instant,
        refusal: Refusal,
        view: &View6,
        packet: &PacketBuf,
        sink: &mut impl Sink,
    ) -> Step {
        if let Some(notice) = refusal.notice {
            let src = self.settings.icmp6_source.unwrap_or(view.dst);
            let out = &mut self.scratch[0];
            if build6(notice, view, packet, src, out) && self.notices.take(now) {
                sink.send(out, Sent::Originated);
            }
        }
        refusal.reason.into()
    }

    /// Refuses a packet from IPv4, and tells its sender if that is due. The error comes from the pool address
    /// that was sent to: the host's own addresses would be martians on the TUN.
    pub(super) fn refuse4(
        &mut self,
        now: Instant,
        refusal: Refusal,
        view: &View4,
        packet: &PacketBuf,
        sink: &mut impl Sink,
    ) -> Step {
        if let Some(notice) = refusal.notice {
            let out = &mut self.scratch[0];
            if build4(notice, view, packet, view.dst, out) && self.notices.take(now) {
                sink.send(out, Sent::Originated);
            }
        }
        refusal.reason.into()
    }

    /// Whether pool6 prefix number `pool6` may carry the address of this peer (A-10, and design rule 11).
    pub(super) fn check_peer(&self, peer: Ipv4Addr, pool6: u8) -> Result<(), DropReason> {
        if is_illegal_source4(peer) {
            return Err(DropReason::IllegalDestination);
        }
        if !is_non_global(peer) {
            return Ok(());
        }
        match self.pref64(pool6) {
            Some(prefix) if prefix.is_well_known() => Err(DropReason::NonGlobal),
            _ if self.settings.allow.iter().any(|p| p.contains(peer)) || self.pool.contains(peer) => Ok(()),
            _ => Err(DropReason::NotAllowed),
        }
    }

    /// The hop limit rule of this device. A hairpinned packet goes through twice and counts once.
    pub(super) const fn hop(&self, first_half_of_hairpin: bool) -> Hop {
        match (first_half_of_hairpin, self.settings.hops) {
            (true, _) => Hop::Same,
            (false, Hops::KernelForwards) => Hop::More,
            (false, Hops::Translator) => Hop::Less,
        }
    }

    pub(super) fn pref64(&self, number: u8) -> Option<Pref64> {
        self.settings.pool6.get(usize::from(number)).copied()
    }

    /// Gives a session a new state and lifetime.
    #[inline]
    pub(super) fn update(&mut self, now: Instant, slot: u32, state: State, lifetime: Lifetime) {
        let new = self.lifetime(lifetime).map(|l| wheel::deadline(now, l));
        let Some(session) = self.sessions.get_mut(slot) else { return };
        session.state = state;
        let Some(deadline) = new else { return };
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
        self.time_out(now, slot)
    }

    /// Makes a session for a binding that exists, and puts it into the wheel.
    pub(super) fn add_session(
        &mut self,
        now: Instant,
        mut session: Session,
        lifetime: Lifetime,
    ) -> Result<u32, DropReason> {
        let Some(lifetime) = self.lifetime(lifetime) else { return Err(DropReason::NoSession) };
        session.deadline = wheel::deadline(now, lifetime);
        let (bib, peer, protocol) = (session.bib, session.dst4, session.protocol);
        self.admit(now, bib, session.waits)?;
        if let Some(permissions) = &mut self.permissions
            && !permissions.add(bib, peer)
        {
            self.not_made(bib);
            return Err(DropReason::TableFull);
        }
        let Some(slot) = self.sessions.insert(session) else {
            self.not_made(bib);
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

    /// What RFC 6146 says about a session, already out of the wheel, whose lifetime is over. True when it is gone.
    fn time_out(&mut self, now: Instant, slot: u32) -> bool {
        let Some(session) = self.sessions.get_mut(slot) else { return true };
        match tcp::timeout(session.state) {
            Some((state, lifetime)) => {
                // The grace time runs from the moment the lifetime was over, however late we look.
                let missed = wheel::tick(now).saturating_sub(session.deadline);
                session.state = state;
                if let Some(lifetime) = self.lifetime(lifetime)
                    && let Some(session) = self.sessions.get_mut(slot)
                {
                    session.deadline = wheel::deadline(now, lifetime).saturating_sub(missed);
                }
                self.wheel.add(&mut self.sessions, slot);
                self.sessions.get(slot).is_some_and(|s| s.deadline <= wheel::tick(now))
                    && self.is_over(now, slot)
            }
            None => {
                self.remove_session(slot);
                true
            }
        }
    }

    /// Ends a session that is in the wheel.
    pub(super) fn end_session(&mut self, slot: u32) {
        self.wheel.remove(&mut self.sessions, slot);
        self.remove_session(slot);
    }

    /// Removes a session that is not in the wheel.
    fn remove_session(&mut self, slot: u32) {
        let Some(session) = self.sessions.remove(slot) else { return };
        self.counts[session.protocol as usize] -= 1;
        self.session_gone(&session);
        if let Some(permissions) = &mut self.permissions {
            permissions.remove(session.bib, session.dst4);
        }
        if let Some(binding) = self.bib.get_mut(session.bib) {
            binding.sessions -= 1;
        }
        self.drop_binding_if_unused(session.bib);
    }

    fn end_sessions(&mut self, is_forbidden: impl Fn(&Self, &Session) -> bool) {
        for slot in 0..self.sessions.capacity() {
            if self.sessions.get(slot).is_some_and(|s| is_forbidden(self, s)) {
                self.end_session(slot);
            }
        }
    }

    fn rebuild_permissions(&mut self) {
        self.permissions = None;
        if !filters_by_address(&self.settings.filtering) {
            return;
        }
        let mut permissions = Permissions::new(self.sessions.capacity(), self.seed ^ 4);
        for slot in 0..self.sessions.capacity() {
            if let Some(session) = self.sessions.get(slot) {
                // Has room: there are as many places as sessions.
                permissions.add(session.bib, session.dst4);
            }
        }
        self.permissions = Some(permissions);
    }

    fn lifetime(&self, lifetime: Lifetime) -> Option<Duration> {
        let timers = &self.settings.timers;
        match lifetime {
            Lifetime::Keep => None,
            Lifetime::TransOpen => Some(timers.tcp_trans_open),
            Lifetime::TransClose => Some(timers.tcp_trans_close),
            Lifetime::Established => Some(timers.tcp_est),
            Lifetime::Udp => Some(timers.udp),
            Lifetime::Icmp => Some(timers.icmp),
        }
    }
}

/// Fewest leases a worker has room for, so that a pool can grow by a reload.
const MIN_LEASES: u32 = 4096;

fn filters_by_address(filtering: &Filtering) -> bool {
    Protocol::ALL.iter().any(|p| filtering.of(*p) == Filter::AddressDependent)
}

/// A token bucket that holds one second's worth.
pub(crate) struct Bucket {
    per_second: u64,
    tokens: u64,
    at: Instant,
    refused: u64,
}

impl Bucket {
    pub(crate) fn new(per_second: u32, now: Instant) -> Self {
        Self { per_second: per_second.into(), tokens: per_second.into(), at: now, refused: 0 }
    }

    /// Errors that were kept back.
    pub(crate) const fn refused(&self) -> u64 {
        self.refused
    }

    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let nanos = now.since(self.at).as_nanos() as u64;
        let new = nanos.saturating_mul(self.per_second) / 1_000_000_000;
        if new > 0 {
            self.tokens = (self.tokens.saturating_add(new)).min(self.per_second);
            self.at = now;
        }
        if self.tokens == 0 {
            self.refused += 1;
            return false;
        }
        self.tokens -= 1;
        true
    }
}
