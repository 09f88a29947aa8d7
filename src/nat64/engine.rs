//! The engine of one worker: its tables, and the door through which every packet comes.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::bib::{Bib, Binding};
use super::event::Events;
use super::held::HeldSyns;
use super::ident::Idents;
use super::lease::Leases;
use super::limit::Bucket;
use super::permission::Permissions;
use super::pool4::Pool;
use super::quota::{Accounts, Ledger};
use super::reassembly::{Joined, Reassembly};
use super::ride::Riders;
use super::session::Sessions;
use super::settings::{Change, Filter, Filtering, HELD_SYNS, Hops, MAX_STATIC, Protocol, Settings};
use super::shared::Shared;
use super::steer::Steering;
use super::subscriber::Subscribers;
use super::unanswered::Unanswered;
use super::units::Units;
use super::wheel::{Tick, Wheel};
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
    /// IPv4 addresses of the machine itself, which clients do not reach.
    own_addresses: Arc<[Ipv4Addr]>,
    /// Pool addresses that the machine has, too.
    pub(super) shared: Shared,
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
    pub(super) held: HeldSyns,
    /// For each binding, until when what its client sent keeps it; only kept while packets from IPv4 do not.
    pub(super) outbound_until: Option<Box<[Tick]>>,
    pub(super) reassembly: Reassembly,
    pub(super) wheel: Wheel,
    pub(super) scratch: [PacketBuf; 2],
    /// Sessions of each protocol.
    pub(super) counts: [u32; 3],
    pub(super) idents: Idents,
    /// Next identification of IPv6 fragments.
    pub(super) ident6: u32,
    pub(super) seed: u64,
    pub(super) notices: Bucket,
    /// Sessions that a fast path carries, when there is one.
    pub(super) riders: Option<Riders>,
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
        // Of each binding of a session, one before the session whose place it may take, and of all static ones.
        let bindings = share + 1 + settings.static_bib.len().max(MAX_STATIC as usize) as u32;
        let mut this = Self {
            units: Units::new(&settings),
            own_addresses: Arc::default(),
            shared: Shared::of(&settings.pool4.ranges),
            worker: place.worker,
            steering: place.steering,
            sessions: Sessions::new(share, seed ^ 1),
            bib: Bib::new(bindings, seed ^ 2),
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
            held: HeldSyns::new(HELD_SYNS, seed ^ 6),
            outbound_until: None,
            reassembly: Reassembly::new(settings.fragments, seed ^ 5),
            wheel: Wheel::new(now),
            scratch: [PacketBuf::new(), PacketBuf::new()],
            counts: [0; 3],
            idents,
            ident6: (seed >> 8) as u32,
            seed,
            notices: Bucket::new(settings.limits.icmp_errors_per_second, seed ^ 6, now),
            riders: None,
            pool: place.pool,
            settings,
        };
        this.update_quotas();
        this.follow_outbound();
        let entries = this.settings.static_bib.clone();
        this.steering.set_static(&entries);
        this.add_static(&entries);
        this
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
                self.follow_outbound();
                self.review_rides();
            }
            Change::Timers(timers) => self.settings.timers.clone_from(timers),
            Change::Static(entries) => self.change_static(entries),
            // The pool is shared: whoever changes it hands the new one to every worker with `set_pool`.
            Change::Pool4(ranges) => self.settings.pool4.ranges.clone_from(ranges),
        }
    }

    /// Takes a new pool. Mappings on addresses that are gone for good are ended now; on those that are draining they
    /// live on.
    pub fn set_pool(&mut self, pool: Arc<Pool>) {
        self.pool = pool;
        self.end_sessions(|engine, s| {
            let binding = engine.bib.get(s.bib);
            let address = binding.and_then(|b| engine.leases.address(b.lease.as_ref()?));
            let stays = match (address, engine.pool.find(s.src4)) {
                (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                (None, Some(_)) => binding.is_some_and(Binding::is_static),
                (_, None) => false,
            };
            // A hairpinned peer was allowed because it was in the pool.
            !stays || engine.check_peer(s.dst4, s.pool6).is_err()
        });
        self.review_rides();
    }

    /// Takes the IPv4 addresses of the machine itself. Clients do not reach them by way of pool6, so that what its
    /// firewall lets in for IPv4 is not open to them (O-05). Sessions with them are ended.
    pub fn set_own_addresses(&mut self, own: Arc<[Ipv4Addr]>) {
        self.own_addresses = own;
        self.end_sessions(|engine, s| engine.check_peer(s.dst4, s.pool6).is_err());
    }

    /// Whether it is one of those.
    pub(super) fn is_own_address(&self, addr: Ipv4Addr) -> bool {
        self.own_addresses.contains(&addr)
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

    /// SYNs from IPv4 that wait for the client's own.
    pub const fn held_syns(&self) -> u32 {
        self.held.len()
    }

    /// Errors of our own that the rate limit kept back.
    pub const fn suppressed_notices(&self) -> u64 {
        self.notices.refused()
    }

    /// Bytes of all tables.
    pub fn table_bytes(&self) -> usize {
        self.riders.as_ref().map_or(0, Riders::bytes)
            + self.sessions.bytes()
            + self.bib.bytes()
            + self.subscribers.bytes()
            + self.leases.bytes()
            + self.accounts.bytes()
            + self.unanswered.bytes()
            + self.held.bytes()
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
        if let Some(notice) = refusal.notice
            && self.settings.filtering.errors_to_ipv6
        {
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
        if let Some(notice) = refusal.notice
            && self.settings.filtering.errors_to_ipv4
        {
            let id = self.idents.next(view.dst, view.src, Protocol::Icmp, 1);
            let out = &mut self.scratch[0];
            if build4(notice, view, packet, view.dst, id, out) && self.notices.take(now) {
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
        // An address that the pool shares with the machine is the pool's: packets to it are hairpins.
        if self.is_own_address(peer) && !self.pool.contains(peer) {
            return Err(DropReason::OwnAddress);
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

    fn rebuild_permissions(&mut self) {
        self.permissions = None;
        if !filters_by_address(&self.settings.filtering) {
            return;
        }
        let mut permissions = Permissions::new(self.sessions.capacity(), self.seed ^ 4);
        for slot in 0..self.sessions.touched() {
            if let Some(session) = self.sessions.get(slot) {
                // Has room: there are as many places as sessions.
                permissions.add(session.bib, session.dst4);
            }
        }
        self.permissions = Some(permissions);
    }
}

/// Fewest leases a worker has room for, so that a pool can grow by a reload.
const MIN_LEASES: u32 = 4096;

fn filters_by_address(filtering: &Filtering) -> bool {
    Protocol::ALL.iter().any(|p| filtering.of(*p) == Filter::AddressDependent)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What issue and design allow for a session with a binding of its own: 160 bytes, the fixed parts left out.
    #[test]
    fn a_session_with_everything_takes_at_most_160_bytes() {
        let count = 1 << 20;
        let (sessions, bib) = (Sessions::new(count, 1), Bib::new(count, 2));
        let bytes = (sessions.bytes() + bib.bytes()) as f64 / f64::from(count);
        assert!(bytes <= 160.0, "{bytes}");
        println!(
            "{bytes:.1} bytes: {:.1} of sessions, witnesses and their index, {:.1} of bindings and theirs",
            sessions.bytes() as f64 / f64::from(count),
            bib.bytes() as f64 / f64::from(count)
        );
    }
}
