//! What the engine tells the outside world beside packets: a stream of typed events in a bounded ring. Whoever does not
//! fetch them in time loses some, which is counted by kind; nothing ever waits for a reader.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;

use super::journal::Held;
use super::quota::Tokens;
use super::settings::Protocol;
use crate::time::Instant;

/// Events that wait for their reader at most.
const RING: usize = 4_096;
/// Limits that one worker reports per second (RFC 6888 REQ-11c: management is told, but not flooded).
const LIMITS_PER_SECOND: u32 = 10;

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A session was made.
    SessionCreated(SessionEnds),
    /// A session has ended.
    SessionDeleted(SessionEnds),
    /// A mapping was made.
    BindingCreated(BindingEnds),
    /// A mapping has ended.
    BindingDeleted(BindingEnds),
    /// A block was leased.
    BlockLeased(Held),
    /// A block was given back.
    BlockReleased(Held),
    /// Something was refused because somebody has all that he may have, or because there is no more.
    LimitHit {
        /// What ran out.
        limit: Limit,
        /// For whom.
        client: Ipv6Addr,
    },
    /// Few blocks of a part of the pool are left.
    PoolLow {
        /// Number of the part.
        scope: u16,
        /// All its blocks.
        blocks: u64,
        /// Those that are leased.
        leased: u64,
    },
}

/// Both ends of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionEnds {
    /// Its mapping.
    pub binding: BindingEnds,
    /// Peer Z.
    pub dst4: Ipv4Addr,
    /// Peer port z; 0 for ICMP.
    pub dst4_port: u16,
}

/// Both ends of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindingEnds {
    /// Transport.
    pub protocol: Protocol,
    /// Client address X'.
    pub src6: Ipv6Addr,
    /// Client port or ICMP identifier x.
    pub src6_port: u16,
    /// Pool address T.
    pub src4: Ipv4Addr,
    /// Pool port or ICMP identifier t.
    pub src4_port: u16,
}

/// What can run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The ports of the subscriber's address, or of the pool.
    Pool,
    /// A table of the worker.
    Table,
    /// The quota of ports or blocks.
    Ports,
    /// The quota of sessions.
    Sessions,
    /// The quota of unanswered sessions.
    Unanswered,
    /// The quota of new sessions per second.
    Rate,
}

/// Kinds of events, in counter order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Of sessions.
    Session,
    /// Of mappings.
    Binding,
    /// Of blocks.
    Block,
    /// Of limits.
    Limit,
    /// Of pools.
    Pool,
}

/// Number of kinds.
pub const KINDS: usize = 5;

impl Event {
    /// Its kind.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::SessionCreated(_) | Self::SessionDeleted(_) => Kind::Session,
            Self::BindingCreated(_) | Self::BindingDeleted(_) => Kind::Binding,
            Self::BlockLeased(_) | Self::BlockReleased(_) => Kind::Block,
            Self::LimitHit { .. } => Kind::Limit,
            Self::PoolLow { .. } => Kind::Pool,
        }
    }
}

/// The end of a worker's stream that a reader in another thread has.
pub struct Stream {
    ring: ArrayQueue<(Instant, Event)>,
    lost: [AtomicU64; KINDS],
}

impl Stream {
    /// The oldest event that nobody has taken.
    pub fn take(&self) -> Option<(Instant, Event)> {
        self.ring.pop()
    }

    /// Events that were wanted and found no room, by kind.
    pub fn lost(&self) -> [u64; KINDS] {
        std::array::from_fn(|i| self.lost[i].load(Ordering::Relaxed))
    }
}

/// The end of the stream that the worker has.
pub struct Events {
    stream: Arc<Stream>,
    wanted: u8,
    limits: Tokens,
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

impl Events {
    /// A stream of what the operator must know: limits and pools.
    pub fn new() -> Self {
        let wanted = 1 << Kind::Limit as u8 | 1 << Kind::Pool as u8;
        let lost = [const { AtomicU64::new(0) }; KINDS];
        Self {
            stream: Arc::new(Stream { ring: ArrayQueue::new(RING), lost }),
            wanted,
            limits: Tokens::default(),
        }
    }

    /// Takes exactly these kinds from now on.
    pub fn want(&mut self, kinds: &[Kind]) {
        self.wanted = kinds.iter().fold(0, |bits, kind| bits | 1 << *kind as u8);
    }

    /// Whether this kind is wanted.
    #[inline]
    pub const fn wants(&self, kind: Kind) -> bool {
        self.wanted & 1 << kind as u8 != 0
    }

    /// Stores an event of a kind that is wanted.
    pub fn push(&mut self, now: Instant, event: Event) {
        let kind = event.kind();
        if !self.wants(kind) {
            return;
        }
        let too_many = kind == Kind::Limit && self.limits.take(now, LIMITS_PER_SECOND, 1) == 0;
        if too_many || self.stream.ring.push((now, event)).is_err() {
            self.stream.lost[kind as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The reader's end.
    pub fn stream(&self) -> Arc<Stream> {
        self.stream.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOW: Event = Event::PoolLow { scope: 0, blocks: 10, leased: 8 };
    const HIT: Event = Event::LimitHit { limit: Limit::Pool, client: Ipv6Addr::LOCALHOST };

    #[test]
    fn h15_a_full_ring_loses_the_newest_and_counts_them() {
        let mut events = Events::new();
        for _ in 0..RING + 7 {
            events.push(Instant::ZERO, LOW);
        }
        assert_eq!(events.stream.lost(), [0, 0, 0, 0, 7]);
        assert_eq!(events.stream.take(), Some((Instant::ZERO, LOW)));
        assert_eq!(std::iter::from_fn(|| events.stream.take()).count(), RING - 1);
    }

    #[test]
    fn h15_limits_are_reported_a_few_times_a_second() {
        let mut events = Events::new();
        for second in 0..3 {
            for _ in 0..1000 {
                events.push(Instant::from_secs(second), HIT);
            }
        }
        assert_eq!(std::iter::from_fn(|| events.stream.take()).count(), 3 * LIMITS_PER_SECOND as usize);
        assert_eq!(events.stream.lost()[Kind::Limit as usize], 3 * (1000 - u64::from(LIMITS_PER_SECOND)));
    }

    #[test]
    fn what_is_not_wanted_is_not_stored_and_not_lost() {
        let mut events = Events::new();
        events.want(&[Kind::Limit]);
        events.push(Instant::ZERO, LOW);
        assert_eq!((events.stream.take(), events.stream.lost()), (None, [0; KINDS]));
    }
}
