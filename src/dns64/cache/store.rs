//! Where the replies lie: one block of memory written round and round, and a table that finds a reply in it. Both are
//! taken at the start and never grow.
//!
//! What is oldest goes first, unless somebody asked for it since it was written: then it is written once more. So a
//! flood of names that nobody asks for twice passes through without taking what many ask for.

use std::collections::VecDeque;

use crate::dns64::outcome::Outcome;
use crate::dns64::reply::Cuts;
use crate::time::Instant;

/// Memory for one reply with its share of the tables; the block has what the tables leave.
const SHARE: usize = 320;
/// Replies in one bucket of the table: one cache line of the processor.
const WAYS: usize = 8;
/// Replies that are written once more for one new reply. It bounds the work of a store; of a longer row of wanted
/// replies one is lost.
const RESCUES: usize = 64;

/// What is known about a reply besides its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) hash: u64,
    pub(super) stored: Instant,
    pub(super) expires: Instant,
    /// Until then an expired reply is served without trying again (RFC 8767 §5, failure recheck timer).
    pub(super) recheck: Instant,
    pub(super) generation: u32,
    pub(super) view: u16,
    pub(super) bits: u8,
    pub(super) outcome: Outcome,
    /// Length of the message.
    pub(super) len: u16,
    /// Number of TTL fields; their places follow the message, two bytes each.
    pub(super) ttls: u16,
    /// Where the question ends.
    pub(super) question: u16,
    pub(super) cuts: Cuts,
    /// Where its bytes are; the store says.
    pub(super) start: u32,
    /// Whether somebody asked for it since it was written.
    pub(super) visited: bool,
    /// Whether the table knows it.
    pub(super) live: bool,
}

/// The replies.
#[derive(Debug)]
pub(super) struct Store {
    block: Vec<u8>,
    /// Where the next reply goes.
    head: usize,
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// Numbers of the entries, oldest first.
    order: VecDeque<u32>,
    buckets: Vec<[Slot; WAYS]>,
    /// For a reply that moves.
    scratch: Vec<u8>,
    live: usize,
    evicted: u64,
}

/// A place in the table: half of a hash, and the number of the entry plus one.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    tag: u32,
    entry: u32,
}

impl Entry {
    /// An entry that is not stored yet.
    pub(super) fn new(hash: u64, outcome: Outcome, cuts: Cuts) -> Self {
        Self {
            hash,
            stored: Instant::ZERO,
            expires: Instant::ZERO,
            recheck: Instant::ZERO,
            generation: 0,
            view: 0,
            bits: 0,
            outcome,
            len: 0,
            ttls: 0,
            question: 0,
            cuts,
            start: 0,
            visited: false,
            live: true,
        }
    }

    fn size(&self) -> usize {
        usize::from(self.len) + 2 * usize::from(self.ttls)
    }
}

impl Store {
    /// Takes so many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        // Numbers of entries and places in the block are of 32 bits.
        let bytes = bytes.min(u32::MAX as usize);
        let entries = (bytes / SHARE).max(WAYS);
        let buckets = (entries * 2).div_ceil(WAYS).next_power_of_two();
        let tables =
            entries * (size_of::<Entry>() + 2 * size_of::<u32>()) + buckets * size_of::<[Slot; WAYS]>();
        let largest = usize::from(u16::MAX);
        Self {
            block: vec![0; bytes.saturating_sub(tables + largest)],
            head: 0,
            entries: Vec::with_capacity(entries),
            free: Vec::with_capacity(entries),
            order: VecDeque::with_capacity(entries),
            buckets: vec![[Slot::default(); WAYS]; buckets],
            scratch: Vec::with_capacity(largest),
            live: 0,
            evicted: 0,
        }
    }

    /// The entry with this hash that is accepted, given its message.
    pub(super) fn find(&self, hash: u64, mut accept: impl FnMut(&Entry, &[u8]) -> bool) -> Option<u32> {
        let bucket = self.buckets.get(self.bucket(hash))?;
        let tag = (hash >> 32) as u32;
        let ids = bucket.iter().filter(|slot| slot.tag == tag).filter_map(|slot| slot.entry.checked_sub(1));
        ids.into_iter().find(|id| {
            self.entries
                .get(*id as usize)
                .is_some_and(|entry| entry.hash == hash && accept(entry, self.message(entry)))
        })
    }

    /// An entry, its message and the places of its TTL fields.
    pub(super) fn get(&self, id: u32) -> Option<(&Entry, &[u8], &[u8])> {
        let entry = self.entries.get(id as usize)?;
        let behind = entry.start as usize + usize::from(entry.len);
        let ttls = self.block.get(behind..behind + 2 * usize::from(entry.ttls)).unwrap_or_default();
        Some((entry, self.message(entry), ttls))
    }

    /// Somebody asked for it.
    pub(super) fn visit(&mut self, id: u32) {
        if let Some(entry) = self.entries.get_mut(id as usize) {
            entry.visited = true;
        }
    }

    /// An expired reply is good enough until then.
    pub(super) fn recheck(&mut self, id: u32, at: Instant) {
        if let Some(entry) = self.entries.get_mut(id as usize) {
            entry.recheck = at;
        }
    }

    /// Takes a reply out. Its bytes are free when their turn comes.
    pub(super) fn remove(&mut self, id: u32) {
        let Some(entry) = self.entries.get_mut(id as usize).filter(|entry| entry.live) else { return };
        entry.live = false;
        self.live -= 1;
        let bucket = self.bucket(self.entries.get(id as usize).map_or(0, |entry| entry.hash));
        if let Some(bucket) = self.buckets.get_mut(bucket) {
            bucket.iter_mut().filter(|slot| slot.entry == id + 1).for_each(|slot| *slot = Slot::default());
        }
    }

    /// Stores a reply with the places of its TTL fields; whether there was room.
    pub(super) fn insert(&mut self, entry: Entry, message: &[u8], ttls: &[u8]) -> bool {
        if (message.len(), ttls.len()) != (usize::from(entry.len), 2 * usize::from(entry.ttls)) {
            return false;
        }
        let mut rescues = 0;
        let start = loop {
            if self.has_number()
                && let Some(start) = self.place(entry.size())
            {
                break start;
            }
            if self.order.is_empty() {
                return false;
            }
            self.make_room(&mut rescues);
        };
        self.write(start, message, ttls);
        self.add(Entry { start: start as u32, live: true, visited: false, ..entry });
        true
    }

    /// Replies, and bytes taken, the tables included.
    pub(super) fn size(&self) -> (usize, usize) {
        let tables = self.entries.capacity() * (size_of::<Entry>() + 2 * size_of::<u32>())
            + self.buckets.len() * size_of::<[Slot; WAYS]>();
        (self.live, self.block.len() + self.scratch.capacity() + tables)
    }

    /// Replies that went for others.
    pub(super) const fn evicted(&self) -> u64 {
        self.evicted
    }

    fn bucket(&self, hash: u64) -> usize {
        hash as usize & (self.buckets.len() - 1)
    }

    fn message(&self, entry: &Entry) -> &[u8] {
        let start = entry.start as usize;
        self.block.get(start..start + usize::from(entry.len)).unwrap_or_default()
    }

    fn has_number(&self) -> bool {
        !self.free.is_empty() || self.entries.len() < self.entries.capacity()
    }

    /// Room for so many bytes in one piece, if there is any.
    fn place(&mut self, size: usize) -> Option<usize> {
        let oldest = self.order.front().and_then(|id| self.entries.get(*id as usize));
        let (from, to) = match oldest.map(|entry| entry.start as usize) {
            None => (0, self.block.len()),
            // The block is used from the oldest to the head; the rest is free, in two pieces.
            Some(tail) if tail < self.head => {
                if size <= self.block.len() - self.head {
                    (self.head, self.block.len())
                } else {
                    (0, tail.saturating_sub(1))
                }
            }
            // One byte stays free, so that a full block is not taken for an empty one.
            Some(tail) => (self.head, tail.saturating_sub(1)),
        };
        let fits = to.checked_sub(from).is_some_and(|room| size <= room);
        fits.then(|| {
            self.head = from + size;
            from
        })
    }

    /// Takes out the oldest reply, or writes it once more if it is wanted.
    fn make_room(&mut self, rescues: &mut usize) {
        let Some(id) = self.order.pop_front() else { return };
        let Some(entry) = self.entries.get(id as usize).copied() else { return };
        if entry.live && entry.visited && *rescues < RESCUES {
            *rescues += 1;
            let old = entry.start as usize;
            self.scratch.clear();
            let bytes = self.block.get(old..old + entry.size()).unwrap_or_default();
            self.scratch.extend_from_slice(bytes);
            if let Some(start) = self.place(entry.size()) {
                let scratch = std::mem::take(&mut self.scratch);
                self.write(start, &scratch, &[]);
                self.scratch = scratch;
                if let Some(entry) = self.entries.get_mut(id as usize) {
                    (entry.start, entry.visited) = (start as u32, false);
                }
                self.order.push_back(id);
                return;
            }
        }
        if entry.live {
            self.remove(id);
            self.evicted += 1;
        }
        self.free.push(id);
    }

    fn write(&mut self, start: usize, message: &[u8], ttls: &[u8]) {
        let parts = message.iter().chain(ttls);
        if let Some(room) = self.block.get_mut(start..start + message.len() + ttls.len()) {
            room.iter_mut().zip(parts).for_each(|(to, from)| *to = *from);
        }
    }

    fn add(&mut self, entry: Entry) {
        let id = match self.free.pop() {
            Some(id) => id,
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        if let Some(place) = self.entries.get_mut(id as usize) {
            *place = entry;
        }
        self.order.push_back(id);
        self.live += 1;
        let (bucket, tag) = (self.bucket(entry.hash), (entry.hash >> 32) as u32);
        let worth = |slot: &Slot| {
            let entry = slot.entry.checked_sub(1).and_then(|id| self.entries.get(id as usize));
            entry.map(|entry| (entry.visited, entry.stored))
        };
        let Some(slots) = self.buckets.get(bucket) else { return };
        // A free slot, else the one whose reply nobody asked for, the oldest of them.
        let free = slots.iter().position(|slot| slot.entry == 0);
        let Some(at) = free.or_else(|| (0..WAYS).min_by_key(|at| slots.get(*at).map(worth))) else { return };
        if free.is_none()
            && let Some(old) = slots.get(at).and_then(|slot| slot.entry.checked_sub(1))
        {
            self.remove(old);
            self.evicted += 1;
        }
        if let Some(slot) = self.buckets.get_mut(bucket).and_then(|bucket| bucket.get_mut(at)) {
            *slot = Slot { tag, entry: id + 1 };
        }
    }
}
