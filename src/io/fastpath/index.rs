//! From the key of a flow to its record: two tables of lines, which workers write and programs read, nobody with a lock.
//!
//! A line is one cache line: 15 entries, and a count of those of its flows that lie in the next line because it was full.
//! An entry is eight bits of the key's hash and the number of the record plus one. So a look-up costs one cache miss, and
//! the record's own.

use std::ops::Deref;
use std::sync::atomic::{
    AtomicU32, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};

use super::layout::{KEY_WORDS, Key4, Key6, Record};

/// Entries of a line.
pub(super) const ENTRIES: usize = 15;
/// Bits of an entry that say which record; the others are the hash's.
pub(super) const SLOT_BITS: u32 = 24;
/// Most records that entries can tell apart.
pub(super) const MOST: u32 = (1 << SLOT_BITS) - 1;
/// Fewest lines, so that even small tables have the room that chance takes.
const FEWEST: u32 = 16;
/// Lines have room for at least so many times the flows that there may be.
const ROOM: u32 = 4;

/// Lines of an index for that many flows.
pub(super) const fn lines_for(flows: u32) -> u32 {
    let lines = flows.div_ceil((ENTRIES as u32 + 1) / ROOM).next_power_of_two();
    if lines < FEWEST { FEWEST } else { lines }
}

/// 64 bytes of shared memory.
#[repr(C, align(64))]
#[derive(Default)]
pub(super) struct Line {
    entries: [AtomicU32; ENTRIES],
    spilled: AtomicU32,
}

const _: () = assert!(size_of::<Line>() == 64);

/// What nobody else knows, so that nobody can choose flows that share a line.
#[derive(Clone, Copy)]
pub(super) struct Secret([u32; KEY_WORDS]);

impl Secret {
    /// The one that belongs to a seed.
    pub(super) fn of(seed: u64) -> Self {
        let mut state = seed;
        Self(std::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            (scatter(state) >> 32) as u32
        }))
    }

    pub(super) const fn words(&self) -> [u32; KEY_WORDS] {
        self.0
    }

    /// NH (RFC 4418 §5.2): any two keys have the same sum with one secret in 2^32. Then every bit depends on all others.
    fn hash(&self, key: &[u32]) -> u64 {
        let keyed = |word: &u32, secret: &u32| u64::from(word.wrapping_add(*secret));
        let pairs = key.as_chunks::<2>().0.iter().zip(self.0.as_chunks::<2>().0);
        let products =
            pairs.map(|([a, b], [secret_a, secret_b])| keyed(a, secret_a).wrapping_mul(keyed(b, secret_b)));
        scatter(products.fold(0, u64::wrapping_add))
    }
}

const fn scatter(mut hash: u64) -> u64 {
    const FACTOR: u64 = 0xd6e8_feb8_6659_fd93;
    hash = (hash ^ hash >> 32).wrapping_mul(FACTOR);
    hash = (hash ^ hash >> 32).wrapping_mul(FACTOR);
    hash ^ hash >> 32
}

/// One table. Who it may lead to, its user knows: an entry says only where to look.
pub(super) struct Index<L> {
    lines: L,
}

impl<L: Deref<Target = [Line]>> Index<L> {
    /// `None` when the number of lines is no power of two.
    pub(super) fn new(lines: L) -> Option<Self> {
        lines.len().is_power_of_two().then_some(Self { lines })
    }

    /// What makes of a hash the number of a line.
    pub(super) fn mask(&self) -> u32 {
        self.lines.len() as u32 - 1
    }

    /// Puts `slot` where a look-up with `hash` looks. False when there is no room, or when what `is_same` knows is there
    /// already. Different flows may come at the same time; one flow has one worker, so the same one cannot.
    fn insert(&self, hash: u64, slot: u32, is_same: impl Fn(u32) -> bool) -> bool {
        let Some([home, next]) = self.ways(hash) else { return false };
        let is_there = |line: &Line| line.slots(tag(hash)).any(&is_same);
        if is_there(home) || home.has_spilled() && is_there(next) {
            return false;
        }
        let entry = entry(hash, slot);
        if home.put(entry) {
            return true;
        }
        // Counted first: whoever finds no mark need not look on.
        home.spilled.fetch_add(1, AcqRel);
        let has_room = next.put(entry);
        if !has_room {
            home.spilled.fetch_sub(1, AcqRel);
        }
        has_room
    }

    /// Takes `slot` out again.
    fn remove(&self, hash: u64, slot: u32) {
        let Some([home, next]) = self.ways(hash) else { return };
        let entry = entry(hash, slot);
        if !home.take(entry) && next.take(entry) {
            home.spilled.fetch_sub(1, AcqRel);
        }
    }

    /// Takes `slot` out, which a process left half put in or half taken out when it died, and counts anew what the line has
    /// spilled. `hash_of` is that of any other slot. Only while nobody else writes.
    fn repair(&self, hash: u64, slot: u32, hash_of: impl Fn(u32) -> u64) {
        let Some([home, next]) = self.ways(hash) else { return };
        let entry = entry(hash, slot);
        home.take(entry);
        next.take(entry);
        let mask = u64::from(self.mask());
        let is_from_home = |slot: &u32| hash_of(*slot) & mask == hash & mask;
        let spilled = next.entries.iter().filter_map(|e| slot_of(e.load(Relaxed))).filter(is_from_home);
        home.spilled.store(spilled.count() as u32, Release);
    }

    /// Where flows with that hash may be: their own line, and the next one.
    fn ways(&self, hash: u64) -> Option<[&Line; 2]> {
        let at = hash as u32 & self.mask();
        let line = |at: u32| self.lines.get((at & self.mask()) as usize);
        Some([line(at)?, line(at.wrapping_add(1))?])
    }
}

impl Line {
    fn has_spilled(&self) -> bool {
        self.spilled.load(Acquire) > 0
    }

    /// The slots of entries with that tag.
    fn slots(&self, tag: u32) -> impl Iterator<Item = u32> {
        let entries = self.entries.iter().map(|entry| entry.load(Acquire));
        entries.filter(move |entry| entry >> SLOT_BITS == tag).filter_map(slot_of)
    }

    fn put(&self, entry: u32) -> bool {
        let is_put = |place: &AtomicU32| {
            place.load(Relaxed) == 0 && place.compare_exchange(0, entry, AcqRel, Relaxed).is_ok()
        };
        self.entries.iter().any(is_put)
    }

    fn take(&self, entry: u32) -> bool {
        let is_taken = |place: &AtomicU32| {
            place.load(Relaxed) == entry && place.compare_exchange(entry, 0, AcqRel, Relaxed).is_ok()
        };
        self.entries.iter().any(is_taken)
    }
}

const fn tag(hash: u64) -> u32 {
    (hash >> (32 + SLOT_BITS)) as u32
}

const fn entry(hash: u64, slot: u32) -> u32 {
    tag(hash) << SLOT_BITS | (slot + 1) & MOST
}

const fn slot_of(entry: u32) -> Option<u32> {
    (entry & MOST).checked_sub(1)
}

/// Both tables, over the records that they lead to.
pub(super) struct Keys<L> {
    secret: Secret,
    index6: Index<L>,
    index4: Index<L>,
}

impl<L: Deref<Target = [Line]>> Keys<L> {
    pub(super) const fn new(secret: Secret, index6: Index<L>, index4: Index<L>) -> Self {
        Self { secret, index6, index4 }
    }

    pub(super) const fn secret(&self) -> &Secret {
        &self.secret
    }

    /// [`Index::mask`] of both.
    pub(super) fn masks(&self) -> (u32, u32) {
        (self.index6.mask(), self.index4.mask())
    }

    /// Ends what a process left half done when it died, and says which slots are free. Only while nobody else writes.
    pub(super) fn tidy(&self, records: &[Record]) -> Vec<u32> {
        let mut free = Vec::with_capacity(records.len());
        let keys = |slot: u32| records.get(slot as usize).map(Record::keys);
        let hash6 = |slot| keys(slot).map_or(0, |(key, _)| self.hash6(&key));
        let hash4 = |slot| keys(slot).map_or(0, |(_, key)| self.hash4(&key));
        for (slot, record) in records.iter().enumerate().rev() {
            let slot = slot as u32;
            if record.is_live() {
                continue;
            }
            if !record.is_free() {
                self.index6.repair(hash6(slot), slot, hash6);
                self.index4.repair(hash4(slot), slot, hash4);
                record.release();
            }
            free.push(slot);
        }
        free
    }

    /// Makes a record to be found; by both keys or not at all.
    pub(super) fn add(&self, slot: u32, (key6, key4): &(Key6, Key4), records: &[Record]) -> bool {
        let live = |slot: u32| records.get(slot as usize).filter(|record| record.is_live()).map(Record::keys);
        let hash4 = self.hash4(key4);
        if !self.index4.insert(hash4, slot, |other| live(other).is_some_and(|(_, key)| key == *key4)) {
            return false;
        }
        let is_added = self
            .index6
            .insert(self.hash6(key6), slot, |other| live(other).is_some_and(|(key, _)| key == *key6));
        if !is_added {
            self.index4.remove(hash4, slot);
        }
        is_added
    }

    /// Makes the record in `slot` not to be found any more.
    pub(super) fn forget(&self, slot: u32, record: &Record) {
        let (key6, key4) = record.keys();
        self.index6.remove(self.hash6(&key6), slot);
        self.index4.remove(self.hash4(&key4), slot);
    }

    fn hash6(&self, key: &Key6) -> u64 {
        self.secret.hash(&key.0)
    }

    fn hash4(&self, key: &Key4) -> u64 {
        self.secret.hash(&key.0)
    }
}

#[cfg(test)]
mod tests;
