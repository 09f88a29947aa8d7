//! Tables at capacity whose entries come and go: what an insertion costs, in nanoseconds, at its worst.

use nix::time::{ClockId, clock_gettime};

use super::rng::Rng;

/// What is filled and churned.
pub trait Table {
    /// Makes entry number `n`, which was never there. Gives a handle, or `None` when there is no room.
    fn insert(&mut self, n: u64) -> Option<u32>;

    /// Takes an entry out.
    fn remove(&mut self, handle: u32);
}

/// Nanoseconds that each of many equal things took; memory is taken at once.
pub struct Times {
    nanos: Vec<u32>,
    next: usize,
}

impl Times {
    pub fn new(room: usize) -> Self {
        Self { nanos: vec![u32::MAX; room], next: 0 }
    }

    /// From the first on again: of each thing the shorter time stays, for an interrupt seldom strikes the same one twice.
    pub const fn again(&mut self) {
        self.next = 0;
    }

    pub fn add(&mut self, nanos: u64) {
        let time = &mut self.nanos[self.next];
        *time = (*time).min(u32::try_from(nanos).unwrap_or(u32::MAX));
        self.next += 1;
    }

    /// The least time that a share of `q` does not exceed.
    pub fn quantile(&mut self, q: f64) -> u32 {
        let times = &mut self.nanos[..self.next];
        let rank = (times.len() as f64 * q).ceil() as usize;
        *times.select_nth_unstable(rank.saturating_sub(1)).1
    }

    pub fn max(&self) -> u32 {
        self.nanos[..self.next].iter().copied().max().unwrap_or(0)
    }
}

/// Nanoseconds of this thread on a processor: what others do meanwhile is not in it.
pub fn cpu_nanos() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every thread has one");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

/// What a pair of clock readings costs by itself, the median: part of every time that is told.
pub fn clock_nanos() -> u32 {
    let mut times = Times::new(100_000);
    for _ in 0..100_000 {
        let start = cpu_nanos();
        times.add(cpu_nanos() - start);
    }
    times.quantile(0.5)
}

/// What came of filling and churning.
pub struct Churned<T> {
    /// As it was at the end.
    pub table: T,
    /// Insertions into a table that was not full yet.
    pub fill: Times,
    /// Insertions at capacity.
    pub inserts: Times,
    /// Insertions that found no room although there was a place.
    pub refused: u64,
}

/// Fills a table with `capacity` entries, and then `times` as often takes one out by chance and makes another. All that
/// twice, the same to the letter.
pub fn churn<T: Table>(make: impl Fn() -> T, capacity: u32, times: u64) -> Churned<T> {
    let count = u64::from(capacity) * times;
    let (mut fill, mut inserts) = (Times::new(capacity as usize), Times::new(count as usize));
    churn_once(make(), capacity, count, &mut fill, &mut inserts);
    fill.again();
    inserts.again();
    let (table, refused) = churn_once(make(), capacity, count, &mut fill, &mut inserts);
    Churned { table, fill, inserts, refused }
}

fn churn_once<T: Table>(
    mut table: T,
    capacity: u32,
    count: u64,
    fill: &mut Times,
    inserts: &mut Times,
) -> (T, u64) {
    let mut rng = Rng(u64::from(capacity));
    let mut refused = 0;
    let mut live = Vec::with_capacity(capacity as usize);
    let timed = |table: &mut T, number, times: &mut Times| {
        let start = cpu_nanos();
        let made = table.insert(number);
        times.add(cpu_nanos() - start);
        made
    };
    for n in 0..u64::from(capacity) {
        match timed(&mut table, n, fill) {
            Some(handle) => live.push(handle),
            None => refused += 1,
        }
    }
    for n in 0..count {
        let victim = (rng.next() % live.len() as u64) as usize;
        table.remove(live[victim]);
        match timed(&mut table, u64::from(capacity) + n, inserts) {
            Some(handle) => live[victim] = handle,
            None => {
                live.swap_remove(victim);
                refused += 1;
            }
        }
    }
    (table, refused)
}
