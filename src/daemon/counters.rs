//! Packet counters of one worker: written by it alone, read by everybody.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::verdict::{DropReason, Sent, Settled, Verdict};

/// Counters of one worker. Both sums close (design rule 2): packets in = translated + absorbed + returned + drops +
/// held now + passed on and not yet taken by their owner; packets out = translated + pieces + originated + returned.
#[derive(Debug)]
#[repr(align(128))]
pub struct Counters {
    received: AtomicU64,
    translated: AtomicU64,
    absorbed: AtomicU64,
    held: AtomicU64,
    returned: AtomicU64,
    drops: [AtomicU64; DropReason::COUNT],
    passed: AtomicU64,
    taken: AtomicU64,
    out_translated: AtomicU64,
    out_pieces: AtomicU64,
    out_originated: AtomicU64,
}

/// Counters at one moment, of one worker or of all together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Packets from the device.
    pub received: u64,
    /// Packets in that left as their translation.
    pub translated: u64,
    /// Packets in that became part of another one.
    pub absorbed: u64,
    /// Packets in that wait now.
    pub held: u64,
    /// Packets in that were the machine's and went out to it.
    pub returned: u64,
    /// Packets in that were refused, by reason.
    pub drops: [u64; DropReason::COUNT],
    /// Packets given to the ring of another worker.
    pub passed: u64,
    /// Packets taken from the own ring.
    pub taken: u64,
    /// Whole translations sent.
    pub out_translated: u64,
    /// Pieces sent.
    pub out_pieces: u64,
    /// Errors and notices of our own sent.
    pub out_originated: u64,
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            received: 0,
            translated: 0,
            absorbed: 0,
            held: 0,
            returned: 0,
            drops: [0; DropReason::COUNT],
            passed: 0,
            taken: 0,
            out_translated: 0,
            out_pieces: 0,
            out_originated: 0,
        }
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            received: AtomicU64::new(0),
            translated: AtomicU64::new(0),
            absorbed: AtomicU64::new(0),
            held: AtomicU64::new(0),
            returned: AtomicU64::new(0),
            drops: [const { AtomicU64::new(0) }; DropReason::COUNT],
            passed: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            out_translated: AtomicU64::new(0),
            out_pieces: AtomicU64::new(0),
            out_originated: AtomicU64::new(0),
        }
    }
}

/// One writer: a plain load and store will do, and costs no locked instruction.
#[inline]
fn bump(counter: &AtomicU64) {
    add(counter, 1);
}

#[inline]
fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed) + count, Ordering::Relaxed);
}

impl Counters {
    /// A packet came from the device.
    #[inline]
    pub fn received(&self) {
        bump(&self.received);
    }

    /// A packet was given to another worker's ring.
    #[inline]
    pub fn passed(&self) {
        bump(&self.passed);
    }

    /// A packet was taken from the own ring.
    #[inline]
    pub fn taken(&self) {
        bump(&self.taken);
    }

    /// A packet in has met its fate.
    #[inline]
    pub fn verdict(&self, verdict: Verdict) {
        match verdict {
            Verdict::Translated => bump(&self.translated),
            Verdict::Held => bump(&self.held),
            Verdict::Returned => bump(&self.returned),
            Verdict::Dropped(reason) => bump(&self.drops[reason as usize]),
        }
    }

    /// `count` packets that were held have met theirs.
    pub fn settled(&self, count: u32, end: Settled) {
        let count = u64::from(count);
        self.held.store(self.held.load(Ordering::Relaxed).saturating_sub(count), Ordering::Relaxed);
        match end {
            Settled::Absorbed => add(&self.absorbed, count),
            Settled::Dropped(reason) => add(&self.drops[reason as usize], count),
        }
    }

    /// A packet went out.
    #[inline]
    pub fn sent(&self, sent: Sent) {
        bump(match sent {
            Sent::Translated => &self.out_translated,
            Sent::Piece => &self.out_pieces,
            Sent::Originated => &self.out_originated,
            // Counted by its verdict.
            Sent::Returned => return,
        });
    }

    /// The numbers now.
    pub fn totals(&self) -> Totals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            received: read(&self.received),
            translated: read(&self.translated),
            absorbed: read(&self.absorbed),
            held: read(&self.held),
            returned: read(&self.returned),
            drops: std::array::from_fn(|i| read(&self.drops[i])),
            passed: read(&self.passed),
            taken: read(&self.taken),
            out_translated: read(&self.out_translated),
            out_pieces: read(&self.out_pieces),
            out_originated: read(&self.out_originated),
        }
    }
}

impl Totals {
    /// Adds the numbers of another worker.
    pub fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.translated += other.translated;
        self.absorbed += other.absorbed;
        self.held += other.held;
        self.returned += other.returned;
        for (sum, more) in self.drops.iter_mut().zip(other.drops) {
            *sum += more;
        }
        self.passed += other.passed;
        self.taken += other.taken;
        self.out_translated += other.out_translated;
        self.out_pieces += other.out_pieces;
        self.out_originated += other.out_originated;
    }

    /// All drops together.
    pub fn dropped(&self) -> u64 {
        self.drops.iter().sum()
    }

    /// Packets that lie in rings, when these are the totals of all workers.
    pub const fn in_rings(&self) -> u64 {
        self.passed.saturating_sub(self.taken)
    }

    /// Whether every packet in is accounted for, when these are the totals of all workers at rest.
    pub fn closes(&self) -> bool {
        let done = self.translated + self.absorbed + self.returned + self.dropped();
        self.received == done + self.held + self.in_rings()
    }
}
