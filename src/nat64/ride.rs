//! Flows that a fast path carries: when they get a rule, what the engine learns from it, and when the rule goes.
//!
//! What rides: TCP while it is ESTABLISHED or half closed, from before its SYN-ACK leaves; UDP from the packet after
//! the first answer on, so that a spray of datagrams that nobody answers writes no rule. A rule goes before its session
//! does, and with the end of the connection; whatever comes up in between is judged by what the fast path has seen.

use std::sync::Arc;
use std::time::Duration;

use super::bib::Binding;
use super::engine::Engine;
use super::ident::Idents;
use super::mirror::{Mirror, Rule, Scope, Seen, Traffic};
use super::scope::{self, Scopes};
use super::session::{Session, Waits};
use super::settings::Protocol;
use super::tcp::{Lifetime, Side, State};
use super::wheel::{self, Tick};
use super::witness::{Direction, FlowWitness, Segment};
use crate::time::Instant;
use crate::xlat::FlowPair;

/// No rule.
const NONE: u32 = u32::MAX;
/// No rule, since there was no room; that has been counted.
const REFUSED: u32 = u32::MAX - 1;
/// When there is no room, nobody asks again for so long.
const BREAK: Duration = Duration::from_secs(1);

/// The way that the packets of a session take, or why they do not take the fast one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Path {
    /// The fast path.
    Fast,
    /// User space: there is no fast path.
    #[default]
    Off,
    /// User space: a TCP connection that opens or ends.
    Opening,
    /// User space: UDP that was not answered yet, or did not go on behind the first answer.
    Waiting,
    /// User space: ICMP.
    Icmp,
    /// User space: a static mapping.
    Static,
    /// User space: the peer is a client, too.
    Hairpin,
    /// User space: packets from IPv4 do not keep sessions alive here, and only the engine can tell whose packets do.
    Refresh,
    /// User space: the fast path has no room, or will be asked with the next packet.
    Full,
}

/// How much one worker's part of the fast path carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rides {
    /// Flows that have a rule now.
    pub flows: u32,
    /// Rules that were made.
    pub installed: u64,
    /// Flows that found no room.
    pub refused: u64,
    /// Packets and bytes from clients, by all rules there ever were.
    pub from6: Traffic,
    /// The same from peers.
    pub from4: Traffic,
}

/// The sessions of one worker that have a rule.
pub(super) struct Riders {
    mirror: Box<dyn Mirror + Send>,
    scopes: Arc<Scopes>,
    /// By slot of the session.
    riders: Box<[Rider]>,
    /// Traffic is that of rules that have ended.
    books: Rides,
    ask_again: Instant,
}

#[derive(Clone, Copy)]
struct Rider {
    handle: u32,
    scope: Scope,
}

const _: () = assert!(size_of::<Rider>() == 8);

impl Rider {
    const NOBODY: Self = Self { handle: NONE, scope: Scope { number: 0, generation: 0 } };

    const fn has_rule(self) -> bool {
        self.handle < REFUSED
    }
}

impl Riders {
    /// Bytes of memory.
    pub(super) const fn bytes(&self) -> usize {
        size_of_val(&*self.riders)
    }

    fn get(&self, slot: u32) -> Option<Rider> {
        self.riders.get(slot as usize).copied().filter(|rider| rider.has_rule())
    }

    fn seen(&self, slot: u32) -> Option<Seen> {
        self.mirror.seen(self.get(slot)?.handle)
    }
}

impl Engine {
    /// From now on flows may ride the fast path behind `mirror`, as long as their scope stays as it is. Before the
    /// first packet.
    pub fn set_mirror(&mut self, mirror: Box<dyn Mirror + Send>, scopes: Arc<Scopes>) {
        let riders = vec![Rider::NOBODY; self.sessions.capacity() as usize].into_boxed_slice();
        let (books, ask_again) = (Rides::default(), Instant::ZERO);
        // The last part of the identifications is the fast path's.
        self.idents = Idents::new(self.worker, self.steering.workers().saturating_add(1), self.seed);
        self.riders = Some(Riders { mirror, scopes, riders, books, ask_again });
    }

    /// What the fast path carries for this worker. Looks at every session: not for each packet.
    pub fn rides(&self) -> Option<Rides> {
        let riders = self.riders.as_ref()?;
        let mut books = riders.books;
        for seen in (0..self.sessions.capacity()).filter_map(|slot| riders.seen(slot)) {
            add(&mut books.from6, seen.from6);
            add(&mut books.from4, seen.from4);
        }
        Some(books)
    }

    /// The same without the traffic of rules that are in force.
    pub fn rides_ended(&self) -> Option<Rides> {
        self.riders.as_ref().map(|riders| riders.books)
    }

    /// Which way the packets of a session take.
    pub(super) fn path_of(&self, slot: u32, session: &Session) -> Path {
        match &self.riders {
            None => Path::Off,
            Some(riders) if riders.get(slot).is_some() => Path::Fast,
            Some(_) => self.obstacle(session).unwrap_or(Path::Full),
        }
    }

    /// The same for what is no session yet.
    pub(super) const fn path_while(&self, path: Path) -> Path {
        if self.riders.is_some() { path } else { Path::Off }
    }

    /// When a session is over if nothing more comes.
    pub(super) fn deadline_of(&self, slot: u32, session: &Session) -> Tick {
        let seen = self.riders.as_ref().and_then(|riders| riders.seen(slot));
        seen.map_or(session.deadline, |seen| self.kept_until(session, &seen))
    }

    /// Which state it is in, by all that was seen of its flow.
    pub(super) fn state_of(&self, slot: u32, session: &Session) -> State {
        let seen = self.riders.as_ref().and_then(|riders| riders.seen(slot));
        seen.and_then(|seen| ended(session.state, &seen.witness)).map_or(session.state, |(state, _)| state)
    }

    /// What is known of the TCP flow of a session.
    pub(super) fn witness_of(&self, slot: u32) -> Option<FlowWitness> {
        let seen = self.riders.as_ref().and_then(|riders| riders.seen(slot));
        seen.map(|seen| seen.witness).or_else(|| self.sessions.witness(slot).copied())
    }

    /// Judges a segment that came up, by all that was seen of its flow on either path.
    #[inline]
    pub(super) fn see(&mut self, slot: u32, side: Side, segment: &Segment) -> bool {
        if self.riders.is_some() {
            return self.see_both(slot, side, segment);
        }
        self.sessions.witness_mut(slot).is_some_and(|witness| witness.see(side, segment))
    }

    fn see_both(&mut self, slot: u32, side: Side, segment: &Segment) -> bool {
        self.catch_up(slot);
        let Some(witness) = self.sessions.witness_mut(slot) else { return false };
        let before = *witness;
        let believed = witness.see(side, segment);
        let after = *witness;
        if before != after
            && let Some(riders) = &mut self.riders
            && let Some(rider) = riders.get(slot)
        {
            riders.mirror.correct(rider.handle, &after);
        }
        believed
    }

    /// A packet of a session came up and has done its work on it: perhaps the next ones need not. `is_mutual` says that
    /// both sides had sent before this packet.
    pub(super) fn board(&mut self, now: Instant, slot: u32, is_mutual: bool) {
        let (Some(session), Some(riders)) = (self.sessions.get(slot), &self.riders) else { return };
        if matches!(session.state, State::Trans | State::BothFin) {
            return self.alight(now, slot);
        }
        match riders.get(slot) {
            Some(rider) if riders.scopes.is_current(rider.scope) => return,
            // Its rule is from before a change that it has survived.
            Some(_) => self.alight(now, slot),
            None if session.protocol == Protocol::Udp && !is_mutual => return,
            None => {}
        }
        self.install(now, slot);
    }

    fn install(&mut self, now: Instant, slot: u32) {
        let Some(session) = self.sessions.get(slot) else { return };
        if self.obstacle(session).is_some() {
            return;
        }
        let (Some(prefix), Some(witness)) = (self.pref64(session.pool6), self.sessions.witness(slot)) else {
            return;
        };
        let unit = self.unit_of(session.src6).map(|unit| unit.name.as_str());
        let number = scope::number_of(unit, &self.settings.pool4.ranges, session.src4, prefix);
        let Some(riders) = &mut self.riders else { return };
        let rule = Rule {
            protocol: session.protocol,
            flow: FlowPair {
                src6: session.src6,
                port6: session.port6,
                dst6: prefix.embed(session.dst4),
                src4: session.src4,
                port4: session.port4,
                dst4: session.dst4,
                peer_port: session.peer_port,
            },
            delta: session.delta,
            scope: riders.scopes.now(number),
        };
        let witness = witness_of_state(session.state, *witness);
        let made =
            if now < riders.ask_again { None } else { riders.mirror.install(now, &rule, &witness, slot) };
        let Some(rider) = riders.riders.get_mut(slot as usize) else { return };
        match made {
            Some(handle) => {
                *rider = Rider { handle, scope: rule.scope };
                riders.books.flows += 1;
                riders.books.installed += 1;
            }
            None => {
                riders.books.refused += u64::from(rider.handle == NONE);
                rider.handle = REFUSED;
                riders.ask_again = riders.ask_again.max(now + BREAK);
            }
        }
    }

    /// Ends a rule that belongs to no session.
    pub(super) fn discard(&mut self, now: Instant, handle: u32) {
        let Some(riders) = &mut self.riders else { return };
        if let Some(seen) = riders.mirror.remove(now, handle) {
            add(&mut riders.books.from6, seen.from6);
            add(&mut riders.books.from4, seen.from4);
        }
    }

    /// Gives a session the rule that it had before a restart.
    pub(super) fn seat(&mut self, now: Instant, slot: u32, handle: u32, scope: Scope) {
        let Some(riders) = &mut self.riders else { return };
        let Some(rider) = riders.riders.get_mut(slot as usize) else { return };
        *rider = Rider { handle, scope };
        riders.books.flows += 1;
        riders.mirror.adopt(handle, slot);
        if self.sessions.get(slot).is_none_or(|session| self.bar(session).is_some()) {
            self.alight(now, slot);
        }
    }

    /// Why a session may not ride now, if so.
    fn obstacle(&self, session: &Session) -> Option<Path> {
        match (session.protocol, session.state) {
            (Protocol::Icmp, _) => Some(Path::Icmp),
            (Protocol::Udp, _) if session.waits != Waits::Nobody => Some(Path::Waiting),
            (Protocol::Tcp, state) if state != State::Established => Some(Path::Opening),
            (Protocol::Udp | Protocol::Tcp, _) => self.bar(session),
        }
    }

    /// Why a session may not ride whatever its state is, if so.
    fn bar(&self, session: &Session) -> Option<Path> {
        if !self.settings.filtering.inbound_refresh {
            Some(Path::Refresh)
        } else if self.bib.get(session.bib).is_none_or(Binding::is_static) {
            Some(Path::Static)
        } else if self.pool.contains(session.dst4) {
            Some(Path::Hairpin)
        } else {
            None
        }
    }

    /// Ends the rule of a session, and takes what was seen of it.
    pub(super) fn alight(&mut self, now: Instant, slot: u32) {
        let Some(riders) = &mut self.riders else { return };
        let Some(rider) = riders.riders.get_mut(slot as usize) else { return };
        let gone = std::mem::replace(rider, Rider::NOBODY);
        if !gone.has_rule() {
            return;
        }
        riders.books.flows -= 1;
        let Some(seen) = riders.mirror.remove(now, gone.handle) else { return };
        add(&mut riders.books.from6, seen.from6);
        add(&mut riders.books.from4, seen.from4);
        self.believe(slot, &seen);
    }

    /// The lifetime of a session seems to be over: true when the fast path has kept it alive. When it has not, its rule
    /// is gone behind this.
    pub(super) fn was_carried(&mut self, now: Instant, slot: u32) -> bool {
        let lives = |engine: &Self| engine.sessions.get(slot).is_some_and(|s| wheel::tick(now) < s.deadline);
        self.catch_up(slot);
        if lives(self) {
            return true;
        }
        // A packet may have come while we looked; behind the removal none can.
        self.alight(now, slot);
        lives(self)
    }

    /// Settings have changed: ends the rules of those who may not ride any more.
    pub(super) fn review_rides(&mut self) {
        if self.riders.is_none() {
            return;
        }
        for slot in 0..self.sessions.capacity() {
            if self.sessions.get(slot).is_some_and(|session| self.bar(session).is_some()) {
                self.alight(self.leases.now(), slot);
            }
        }
    }

    fn catch_up(&mut self, slot: u32) {
        if let Some(seen) = self.riders.as_ref().and_then(|riders| riders.seen(slot)) {
            self.believe(slot, &seen);
        }
    }

    fn believe(&mut self, slot: u32, seen: &Seen) {
        let Some(session) = self.sessions.get(slot) else { return };
        let deadline = self.kept_until(session, seen);
        if let Some(session) = self.sessions.get_mut(slot) {
            session.deadline = deadline;
        }
        if let Some(witness) = self.sessions.witness_mut(slot) {
            *witness = seen.witness;
        }
        self.follow_ends(slot);
    }

    fn follow_ends(&mut self, slot: u32) {
        let (Some(session), Some(witness)) = (self.sessions.get(slot), self.sessions.witness(slot)) else {
            return;
        };
        let port = session.peer_port;
        if let Some((state, lifetime)) = ended(session.state, witness) {
            self.update(self.leases.now(), slot, state, self.lifetime(lifetime, port));
        }
    }

    /// Ends the rules of connections whose ends the fast path has carried, at most `budget`. False when there are more.
    pub(super) fn attend(&mut self, now: Instant, budget: u32) -> bool {
        for _ in 0..budget {
            let Some(riders) = &mut self.riders else { return true };
            let Some(slot) = riders.mirror.ended() else { return true };
            self.catch_up(slot);
            if self.sessions.get(slot).is_some_and(|s| matches!(s.state, State::Trans | State::BothFin)) {
                self.alight(now, slot);
            }
        }
        self.riders.is_none()
    }

    /// RFC 6146 §3.5: each packet of a session gives it its whole lifetime again.
    fn kept_until(&self, session: &Session, seen: &Seen) -> Tick {
        let last = seen.last6.max(seen.last4);
        match self.lifetime(lifetime_of(session), session.peer_port) {
            Some(lifetime) if last != Instant::ZERO => session.deadline.max(wheel::deadline(last, lifetime)),
            Some(_) | None => session.deadline,
        }
    }
}

/// What the FINs and RSTs have done that the fast path has carried, as [`super::tcp::segment`] says.
const fn ended(state: State, witness: &FlowWitness) -> Option<(State, Lifetime)> {
    let fins = (witness.v6.flags & Direction::FIN != 0, witness.v4.flags & Direction::FIN != 0);
    let is_reset = (witness.v6.flags | witness.v4.flags) & Direction::RST != 0;
    match (state, fins) {
        (State::Established, _) if is_reset => Some((State::Trans, Lifetime::TransClose)),
        (State::Established | State::V4Fin | State::V6Fin, (true, true)) => {
            Some((State::BothFin, Lifetime::TransClose))
        }
        (State::Established, (true, false)) => Some((State::V6Fin, Lifetime::Keep)),
        (State::Established, (false, true)) => Some((State::V4Fin, Lifetime::Keep)),
        _ => None,
    }
}

/// The witness of a flow in `state` as its rule begins: ends that it has got over are forgotten.
const fn witness_of_state(state: State, mut witness: FlowWitness) -> FlowWitness {
    let ends = Direction::FIN | Direction::RST;
    witness.v6.flags &= if matches!(state, State::V6Fin) { !Direction::RST } else { !ends };
    witness.v4.flags &= if matches!(state, State::V4Fin) { !Direction::RST } else { !ends };
    witness
}

/// What a packet that the fast path carries does for a session; what ends a connection comes up, and then it counts.
pub(super) const fn lifetime_of(session: &Session) -> Lifetime {
    match session.state {
        State::Active => match session.protocol {
            Protocol::Udp => Lifetime::Udp,
            Protocol::Tcp | Protocol::Icmp => Lifetime::Keep,
        },
        State::Established | State::V4Fin | State::V6Fin => Lifetime::Established,
        State::V4Init | State::V6Init | State::BothFin | State::Trans => Lifetime::Keep,
    }
}

const fn add(sum: &mut Traffic, more: Traffic) {
    sum.packets += more.packets;
    sum.bytes += more.bytes;
}
