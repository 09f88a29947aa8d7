//! Flows that a fast path has carried on while no engine was there: each is checked against the settings as if it came
//! now, and gets its session, its mapping and its port back, or loses its rule.

use super::engine::Engine;
use super::evict::Leaving;
use super::mirror::{Rule, Seen};
use super::session::{Key6, Session, Waits};
use super::settings::Protocol;
use super::tcp::State;
use super::wheel;
use super::witness::{Direction, FlowWitness};
use crate::addr::is_illegal_source6;
use crate::time::Instant;
use crate::xlat::Delta;

/// Why a flow was not taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdopted {
    /// It belongs to another worker.
    Elsewhere,
    /// The settings do not allow it any more.
    Forbidden,
    /// Its connection has ended, or it was idle for too long.
    Over,
    /// Its pool port is not its client's: other block sizes, another key, or no journal.
    Port,
    /// There is no room for it.
    Full,
}

impl Engine {
    /// Takes over the flow of rule `handle`, or ends the rule if it cannot; both only where the flow is this worker's.
    /// After [`Engine::restore`] and [`Engine::set_mirror`], before the first packet.
    pub fn adopt(&mut self, now: Instant, handle: u32, rule: &Rule, seen: &Seen) -> Result<(), NotAdopted> {
        let client = self.steering.subscriber(rule.flow.src6);
        if self.steering.worker(self.steering.shard(client)) != self.worker {
            return Err(NotAdopted::Elsewhere);
        }
        let adopted = self.try_adopt(now, handle, rule, seen);
        if adopted.is_err() {
            self.discard(now, handle);
        }
        adopted
    }

    fn try_adopt(&mut self, now: Instant, handle: u32, rule: &Rule, seen: &Seen) -> Result<(), NotAdopted> {
        let flow = &rule.flow;
        let pool6 = self.settings.pool6.iter().position(|prefix| prefix.contains(flow.dst6));
        let key = pool6.and_then(|pool6| {
            let pool6 = pool6 as u8;
            let prefix = self.pref64(pool6)?;
            let is_allowed = prefix.embed(flow.dst4) == flow.dst6
                && rule.delta == Delta::v6_to_v4(flow)
                && !is_illegal_source6(flow.src6)
                && !self.settings.pool6.iter().any(|p| p.contains(flow.src6))
                && self.units.serve(flow.src6)
                && self.check_peer(flow.dst4, pool6).is_ok()
                && self.pool.contains(flow.src4)
                && !self.pool.contains(flow.dst4);
            is_allowed.then_some(Key6 {
                protocol: rule.protocol,
                src6: flow.src6,
                port6: flow.port6,
                pool6,
                dst4: flow.dst4,
                peer_port: flow.peer_port,
            })
        });
        let key = key.ok_or(NotAdopted::Forbidden)?;
        let state = state_of(rule.protocol, &seen.witness).ok_or(NotAdopted::Over)?;
        let bib = match self.bib.find6(key.protocol, key.src6, key.port6) {
            Some(bib) => Some(bib).filter(|bib| {
                let is_it =
                    |b: &super::bib::Binding| (b.src4, b.port4) == (flow.src4, flow.port4) && !b.is_static();
                self.bib.get(*bib).is_some_and(is_it)
            }),
            None => self.same_binding(now, &key, flow.src4, flow.port4),
        };
        let bib = bib.ok_or(NotAdopted::Port)?;
        let mut session = Session::new(key.protocol, key.pool6, flow, state, bib);
        session.waits = Waits::Nobody;
        let made = self.adopt_session(now, handle, rule, seen, session);
        if made.is_err() {
            self.drop_binding_if_unused(bib, Leaving::Over);
        }
        made
    }

    fn adopt_session(
        &mut self,
        now: Instant,
        handle: u32,
        rule: &Rule,
        seen: &Seen,
        session: Session,
    ) -> Result<(), NotAdopted> {
        let (key6, key4) = (session.key6(), session.key4());
        if self.sessions.find6(&key6).is_some() || self.sessions.find4(&key4).is_some() {
            return Err(NotAdopted::Forbidden);
        }
        let lifetime = super::ride::lifetime_of(&session);
        let last = match seen.last6.max(seen.last4) {
            // Its rule was made a moment before the end of its engine.
            Instant::ZERO => now,
            last => last.min(now),
        };
        let time = self.lifetime(lifetime, session.peer_port).ok_or(NotAdopted::Over)?;
        let deadline = wheel::deadline(last, time);
        if deadline <= wheel::tick(now) {
            return Err(NotAdopted::Over);
        }
        let slot = self.add_session(now, session, lifetime).map_err(|_| NotAdopted::Full)?;
        if let Some(witness) = self.sessions.witness_mut(slot) {
            *witness = seen.witness;
        }
        self.note_outbound(slot, false);
        self.shorten(slot, deadline);
        self.seat(now, slot, handle, rule.scope);
        Ok(())
    }
}

/// The state of a session whose packets were carried until now. `None` when nothing more can come.
fn state_of(protocol: Protocol, witness: &FlowWitness) -> Option<State> {
    let ended = |side: &Direction| side.flags & Direction::FIN != 0;
    match (protocol, ended(&witness.v6), ended(&witness.v4)) {
        (Protocol::Icmp, _, _) => None,
        (Protocol::Udp, _, _) => Some(State::Active),
        (Protocol::Tcp, _, _) if (witness.v6.flags | witness.v4.flags) & Direction::RST != 0 => None,
        (Protocol::Tcp, true, true) => None,
        (Protocol::Tcp, true, false) => Some(State::V6Fin),
        (Protocol::Tcp, false, true) => Some(State::V4Fin),
        (Protocol::Tcp, false, false) => Some(State::Established),
    }
}
