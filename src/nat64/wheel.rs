//! When sessions are looked at again: a wheel of quarter seconds with intrusive lists.
//!
//! A packet only writes the session's deadline. When the wheel comes to a session whose deadline has moved on,
//! the session goes to its new place; so refreshing costs the packet path nothing but that write.

use super::session::Sessions;
use super::slab::NIL;
use crate::time::Instant;
use std::time::Duration;

/// Quarter seconds since the clock's origin.
pub type Tick = u32;
/// Slots of the wheel: 8,192 s. Later deadlines wait in the last slot and are looked at again.
const SLOTS: u32 = 32_768;
const NANOS_PER_TICK: u64 = 250_000_000;

/// The wheel of one worker.
pub struct Wheel {
    heads: Box<[u32]>,
    /// First tick that has not been worked off.
    at: Tick,
}

/// The tick that `now` lies in.
#[inline]
pub const fn tick(now: Instant) -> Tick {
    (now.as_nanos() / NANOS_PER_TICK) as Tick
}

/// First tick at which `lifetime` from `now` is over for sure.
#[inline]
pub const fn deadline(now: Instant, lifetime: Duration) -> Tick {
    let nanos = now.as_nanos().saturating_add(lifetime.as_nanos() as u64);
    nanos.div_ceil(NANOS_PER_TICK) as Tick
}

/// `time` in ticks, rounded up.
#[inline]
pub const fn ticks(time: Duration) -> Tick {
    (time.as_nanos() as u64).div_ceil(NANOS_PER_TICK) as Tick
}

impl Wheel {
    /// A wheel that starts at `now`.
    pub fn new(now: Instant) -> Self {
        Self { heads: vec![NIL; SLOTS as usize].into_boxed_slice(), at: tick(now) }
    }

    /// First tick that has not been worked off: the present, as far as the wheel knows.
    pub const fn at(&self) -> Tick {
        self.at
    }

    /// Puts session `slot` where its deadline says.
    pub fn add(&mut self, sessions: &mut Sessions, slot: u32) {
        let Some(session) = sessions.get_mut(slot) else { return };
        let due = session.deadline.clamp(self.at, self.at + SLOTS - 1);
        let head = &mut self.heads[(due % SLOTS) as usize];
        session.due = due;
        session.before = NIL;
        session.behind = *head;
        let behind = *head;
        *head = slot;
        if let Some(behind) = sessions.get_mut(behind) {
            behind.before = slot;
        }
    }

    /// Takes session `slot` out, wherever it is.
    pub fn remove(&mut self, sessions: &mut Sessions, slot: u32) {
        let Some(session) = sessions.get(slot) else { return };
        let (before, behind, due) = (session.before, session.behind, session.due);
        match sessions.get_mut(before) {
            Some(before) => before.behind = behind,
            None => self.heads[(due % SLOTS) as usize] = behind,
        }
        if let Some(behind) = sessions.get_mut(behind) {
            behind.before = before;
        }
    }

    /// The next session whose time has come at `now`, taken out of the wheel; sessions whose deadline has moved
    /// go to their new place on the way. Looks at no more than `budget` sessions, and counts it down.
    pub fn next_due(&mut self, sessions: &mut Sessions, now: Instant, budget: &mut u32) -> Option<u32> {
        let now = tick(now);
        while self.at <= now {
            let slot = self.heads[(self.at % SLOTS) as usize];
            if slot == NIL {
                self.at += 1;
                continue;
            }
            *budget = budget.checked_sub(1)?;
            self.remove(sessions, slot);
            if sessions.get(slot).is_some_and(|s| s.deadline <= self.at) {
                return Some(slot);
            }
            self.add(sessions, slot);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat64::session::Session;
    use crate::nat64::settings::Protocol;
    use crate::nat64::tcp::State;
    use crate::xlat::FlowPair;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn sessions_that_end_together_are_taken_in_parts() {
        let (mut sessions, mut wheel) = (Sessions::new(1000, 1), Wheel::new(Instant::ZERO));
        for n in 0..1000 {
            let flow = FlowPair {
                src6: Ipv6Addr::from_bits(u128::from(n)),
                port6: 1,
                dst6: Ipv6Addr::UNSPECIFIED,
                src4: Ipv4Addr::new(198, 51, 100, 1),
                port4: n,
                dst4: Ipv4Addr::new(203, 0, 113, 1),
                peer_port: 53,
            };
            let mut session = Session::new(Protocol::Udp, 0, &flow, State::Active, 0);
            // Half of them have been prolonged since the wheel took them: looked at, and not over.
            session.deadline = 40;
            let slot = sessions.insert(session).unwrap();
            wheel.add(&mut sessions, slot);
            sessions.get_mut(slot).unwrap().deadline += u32::from(n % 2) * 4000;
        }
        let now = Instant::from_secs(20);
        let mut turns = Vec::new();
        loop {
            let (mut budget, mut ended) = (256, 0);
            while let Some(slot) = wheel.next_due(&mut sessions, now, &mut budget) {
                assert!(sessions.remove(slot).is_some_and(|s| s.deadline == 40));
                ended += 1;
            }
            turns.push((256 - budget, ended));
            if budget > 0 {
                break;
            }
        }
        assert_eq!(turns.iter().map(|(looked, _)| *looked).collect::<Vec<_>>(), [256, 256, 256, 232]);
        assert_eq!(turns.iter().map(|(_, ended)| ended).sum::<u32>(), 500);
        assert_eq!((wheel.at(), sessions.len()), (tick(now) + 1, 500));
    }
}
