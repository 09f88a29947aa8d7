//! Tables that could find sessions, side by side: the same keys, the same records beside the table, the same churn.
//!
//!     cargo bench --bench tables          with a million entries; SAMPAN_SESSIONS for another number
//!
//! `docs/decisions/tables.md` holds the figures and what was chosen.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench that cannot go on shall say where")]

#[path = "../tests/support/churn.rs"]
mod churn;
#[path = "../tests/support/rng.rs"]
mod rng;

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};

use churn::{Table, Times, churn};
use foldhash::quality::FixedState;
use hashbrown::HashTable;
use rng::Rng;
use sampan::nat64::index::Index;
use sampan::nat64::slab::{NIL, Slab};

/// Times its capacity that each table is churned.
const TIMES: u64 = 10;
const ROUNDS: usize = 9;
/// Look-ups timed together.
const LOOKUPS: usize = 1 << 18;

/// As much as a session's key on the IPv6 side.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key([u128; 2]);

impl Key {
    /// Of entry number `n`.
    fn of(n: u64) -> Self {
        let mut rng = Rng(n);
        Self([u128::from(rng.next()) << 64 | u128::from(rng.next()), u128::from(rng.next())])
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(self.0[0]);
        state.write_u128(self.0[1]);
    }
}

/// As large as a session.
#[repr(align(64))]
struct Record {
    key: Key,
    touched: u32,
    zero: u32,
}

const _: () = assert!(size_of::<Record>() == 64);

/// From a key's hash to a slot of the records.
trait Finds {
    fn find(&self, hash: u64, records: &Slab<Record>, key: &Key) -> Option<u32>;
    fn insert(&mut self, hash: u64, key: &Key, slot: u32, rehash: impl Fn(u32) -> u64) -> bool;
    fn remove(&mut self, hash: u64, key: &Key, slot: u32);
    fn bytes(&self) -> usize;
}

struct Records<F> {
    finds: F,
    records: Slab<Record>,
    hash: FixedState,
}

impl<F: Finds> Records<F> {
    fn new(finds: F, capacity: u32) -> Self {
        Self { finds, records: Slab::new(capacity), hash: FixedState::with_seed(0x5eed) }
    }

    /// Reads and writes a record, as a packet does to its session.
    #[inline]
    fn hit(&mut self, key: &Key) -> usize {
        let slot = self.finds.find(self.hash.hash_one(key), &self.records, key).expect("is there");
        let record = self.records.get_mut(slot).expect("is there");
        record.touched += 1;
        record.zero as usize
    }
}

impl<F: Finds> Table for Records<F> {
    fn insert(&mut self, n: u64) -> Option<u32> {
        let key = Key::of(n);
        let slot = self.records.insert(Record { key, touched: 0, zero: 0 }).ok()?;
        let (records, state) = (&self.records, &self.hash);
        let rehash = |slot| records.get(slot).map_or(0, |r| state.hash_one(r.key));
        if self.finds.insert(self.hash.hash_one(key), &key, slot, rehash) {
            return Some(slot);
        }
        self.records.remove(slot);
        None
    }

    fn remove(&mut self, slot: u32) {
        let record = self.records.remove(slot).expect("is there");
        self.finds.remove(self.hash.hash_one(record.key), &record.key, slot);
    }
}

impl Finds for Index {
    #[inline]
    fn find(&self, hash: u64, records: &Slab<Record>, key: &Key) -> Option<u32> {
        Self::find(self, hash, |slot| records.get(slot).is_some_and(|r| r.key == *key))
    }

    fn insert(&mut self, hash: u64, _: &Key, slot: u32, _: impl Fn(u32) -> u64) -> bool {
        Self::insert(self, hash, slot)
    }

    fn remove(&mut self, hash: u64, _: &Key, slot: u32) {
        assert!(Self::remove(self, hash, slot));
    }

    fn bytes(&self) -> usize {
        Self::bytes(self)
    }
}

/// The standard library's table has the keys in it.
impl Finds for HashMap<Key, u32, FixedState> {
    #[inline]
    fn find(&self, _: u64, _: &Slab<Record>, key: &Key) -> Option<u32> {
        self.get(key).copied()
    }

    fn insert(&mut self, _: u64, key: &Key, slot: u32, _: impl Fn(u32) -> u64) -> bool {
        Self::insert(self, *key, slot).is_none()
    }

    fn remove(&mut self, _: u64, key: &Key, _: u32) {
        assert!(Self::remove(self, key).is_some());
    }

    /// Entries and a control byte for each; seven in eight places are usable.
    fn bytes(&self) -> usize {
        (self.capacity() * 8 / 7).next_power_of_two() * (size_of::<(Key, u32)>() + 1)
    }
}

/// hashbrown's table of slot numbers: the keys are in the records, as with ours.
impl Finds for HashTable<u32> {
    #[inline]
    fn find(&self, hash: u64, records: &Slab<Record>, key: &Key) -> Option<u32> {
        Self::find(self, hash, |slot| records.get(*slot).is_some_and(|r| r.key == *key)).copied()
    }

    fn insert(&mut self, hash: u64, _: &Key, slot: u32, rehash: impl Fn(u32) -> u64) -> bool {
        self.insert_unique(hash, slot, |slot| rehash(*slot));
        true
    }

    fn remove(&mut self, hash: u64, _: &Key, slot: u32) {
        assert!(self.find_entry(hash, |s| *s == slot).map(|e| e.remove()).is_ok());
    }

    fn bytes(&self) -> usize {
        self.allocation_size()
    }
}

/// The plainest table: 32 bits of the hash and a slot in each place, one after the other, 70 % of the places in use.
/// Who is taken out makes those behind it move up.
struct Linear(Vec<(u32, u32)>);

impl Linear {
    fn new(capacity: u32) -> Self {
        Self(vec![(0, NIL); capacity as usize * 10 / 7])
    }

    #[inline]
    fn home(&self, part: u32) -> usize {
        ((u64::from(part) * self.0.len() as u64) >> 32) as usize
    }

    #[inline]
    fn next(&self, at: usize) -> usize {
        if at + 1 == self.0.len() { 0 } else { at + 1 }
    }
}

impl Finds for Linear {
    #[inline]
    fn find(&self, hash: u64, records: &Slab<Record>, key: &Key) -> Option<u32> {
        let mut at = self.home(hash as u32);
        while self.0[at].1 != NIL {
            let (part, slot) = self.0[at];
            if part == hash as u32 && records.get(slot).is_some_and(|r| r.key == *key) {
                return Some(slot);
            }
            at = self.next(at);
        }
        None
    }

    fn insert(&mut self, hash: u64, _: &Key, slot: u32, _: impl Fn(u32) -> u64) -> bool {
        let mut at = self.home(hash as u32);
        while self.0[at].1 != NIL {
            at = self.next(at);
        }
        self.0[at] = (hash as u32, slot);
        true
    }

    fn remove(&mut self, hash: u64, _: &Key, slot: u32) {
        let mut hole = self.home(hash as u32);
        while self.0[hole].1 != slot {
            hole = self.next(hole);
        }
        let (mut at, len) = (self.next(hole), self.0.len());
        while self.0[at].1 != NIL {
            let way = |from: usize, to: usize| (to + len - from) % len;
            if way(self.home(self.0[at].0), at) >= way(hole, at) {
                self.0[hole] = self.0[at];
                hole = at;
            }
            at = self.next(at);
        }
        self.0[hole] = (0, NIL);
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.0)
    }
}

/// Figures of one kind of table.
struct Row {
    name: &'static str,
    bytes: f64,
    fill: Times,
    inserts: Times,
    refused: u64,
    hits: Vec<f64>,
}

/// Fills and churns one kind, then looks its entries up in an order of chance, each when the one before was found.
fn measure<F: Finds>(name: &'static str, finds: impl Fn() -> F, capacity: u32) -> Row {
    let churned = churn(|| Records::new(finds(), capacity), capacity, TIMES);
    let mut table = churned.table;
    let mut rng = Rng(1);
    let mut hits = Vec::new();
    for _ in 0..ROUNDS {
        let mut keys = Vec::with_capacity(LOOKUPS);
        while keys.len() < LOOKUPS {
            let slot = (rng.next() % u64::from(capacity)) as u32;
            keys.extend(table.records.get(slot).map(|r| r.key));
        }
        let (mut at, start) = (0, churn::cpu_nanos());
        while let Some(key) = keys.get(at) {
            at += 1 + table.hit(key);
        }
        hits.push((churn::cpu_nanos() - start) as f64 / LOOKUPS as f64);
    }
    hits.sort_by(f64::total_cmp);
    Row {
        name,
        bytes: table.finds.bytes() as f64 / f64::from(capacity),
        fill: churned.fill,
        inserts: churned.inserts,
        refused: churned.refused,
        hits,
    }
}

fn main() {
    let capacity: u32 = std::env::var("SAMPAN_SESSIONS").map_or(1 << 20, |n| n.parse().expect("a number"));
    let state = || FixedState::with_seed(0x5eed);
    let kinds: [&dyn Fn(u32) -> Row; 6] = [
        &|n| measure("our buckets", || Index::new(n), n),
        &|n| measure("plain linear probing", || Linear::new(n), n),
        &|n| measure("hashbrown, made at start", || HashTable::with_capacity(n as usize), n),
        &|n| measure("hashbrown, growing", HashTable::new, n),
        &|n| measure("std, made at start", || HashMap::with_capacity_and_hasher(n as usize, state()), n),
        &|n| measure("std, growing", || HashMap::with_hasher(state()), n),
    ];
    println!(
        "{capacity} entries, {TIMES} times the capacity churned; a clock reading takes {} ns",
        churn::clock_nanos()
    );
    println!("| table | hit ns [quartiles] | insert p50 | p99.99 | max | filling max | bytes | refused |");
    println!("|---|---|---|---|---|---|---|---|");
    for kind in kinds {
        let mut row = kind(capacity);
        let [low, median, high] = [1, 2, 3].map(|q| row.hits[row.hits.len() * q / 4]);
        println!(
            "| {} | {median:.0} [{low:.0} {high:.0}] | {} | {} | {} | {} | {:.1} | {} |",
            row.name,
            row.inserts.quantile(0.5),
            row.inserts.quantile(0.9999),
            row.inserts.max(),
            row.fill.max(),
            row.bytes,
            row.refused,
        );
    }
}
