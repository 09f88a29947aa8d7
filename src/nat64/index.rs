//! From a hash to a slot: buckets of one cache line, made at start, never rehashed.
//!
//! A bucket holds twelve entries of 8 tag bits and a slot number. An entry finds its home bucket crowded now and then
//! and goes to one of four others, a step of its own apart; every bucket that it passed counts it, so that a search
//! knows whether to go on. The last place of a bucket is taken only when all five are crowded, so that full buckets are
//! rare enough for five to do.
//!
//! A search and an insertion look at no more than [`MAX_PROBES`] buckets: 60 entries.

use super::slab::NIL;

/// Entries of a bucket.
pub const ENTRIES: usize = 12;
/// Buckets that an entry may be in.
pub const MAX_PROBES: usize = 5;
/// Longest step from one of these to the next. All of them lie within 4 KiB, in one or two pages.
const MAX_STEP: usize = 16;
/// Entries planned for this many buckets: 70 % of their room. One entry is 7.6 bytes then.
const PLANNED: (usize, usize) = (42, 5);

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Bucket {
    tags: [u8; ENTRIES],
    /// Entries that passed this bucket because it was full.
    passed: u32,
    slots: [u32; ENTRIES],
}

const EMPTY: Bucket = Bucket { tags: [0; ENTRIES], passed: 0, slots: [NIL; ENTRIES] };
const _: () = assert!(size_of::<Bucket>() == 64);

/// A map from hashes to slots; the caller knows how to compare keys.
pub struct Index {
    buckets: Box<[Bucket]>,
    looks: [u64; MAX_PROBES],
}

impl Index {
    /// Room for `capacity` entries.
    pub fn new(capacity: u32) -> Self {
        // Hash to bucket is a multiplication: any number of buckets will do. The room behind the last home
        // bucket saves a wrap-around.
        let homes = (capacity as usize * PLANNED.1).div_ceil(PLANNED.0).max(1);
        Self {
            buckets: vec![EMPTY; homes + (MAX_PROBES - 1) * MAX_STEP].into_boxed_slice(),
            looks: [0; MAX_PROBES],
        }
    }

    /// The slot under `hash` for which `is_it` says yes.
    #[inline]
    pub fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let tag = tag_of(hash);
        for at in self.reach(hash) {
            let bucket = &self.buckets[at];
            let mut hits = bucket.matches(tag);
            while hits != 0 {
                let at = hits.trailing_zeros() as usize;
                hits &= hits - 1;
                let slot = bucket.slots[at];
                if is_it(slot) {
                    return Some(slot);
                }
            }
            if bucket.passed == 0 {
                return None;
            }
        }
        None
    }

    /// Puts `slot` under `hash`. False when all buckets within reach are full.
    pub fn insert(&mut self, hash: u64, slot: u32) -> bool {
        let mut looked = 0;
        let mut last_place = None;
        let mut place = None;
        for (distance, at) in self.reach(hash).enumerate() {
            looked = distance;
            let free = self.buckets[at].matches(0);
            // More than one place is free.
            if free & free.wrapping_sub(1) != 0 {
                place = Some((distance, at));
                break;
            }
            if free != 0 && last_place.is_none() {
                last_place = Some((distance, at));
            }
        }
        self.looks[looked] += 1;
        let Some((distance, at)) = place.or(last_place) else { return false };
        for passed in self.reach(hash).take(distance) {
            self.buckets[passed].passed += 1;
        }
        let bucket = &mut self.buckets[at];
        let free = bucket.matches(0).trailing_zeros() as usize;
        bucket.tags[free] = tag_of(hash);
        bucket.slots[free] = slot;
        true
    }

    /// Takes `slot` from under `hash`. False when it was not there.
    pub fn remove(&mut self, hash: u64, slot: u32) -> bool {
        let tag = tag_of(hash);
        for (distance, at) in self.reach(hash).enumerate() {
            let bucket = &mut self.buckets[at];
            let mut hits = bucket.matches(tag);
            while hits != 0 {
                let at = hits.trailing_zeros() as usize;
                hits &= hits - 1;
                if bucket.slots[at] == slot {
                    bucket.tags[at] = 0;
                    bucket.slots[at] = NIL;
                    for passed in self.reach(hash).take(distance) {
                        self.buckets[passed].passed -= 1;
                    }
                    return true;
                }
            }
            if bucket.passed == 0 {
                return false;
            }
        }
        false
    }

    /// How many insertions so far looked at one bucket, at two, and so on.
    pub const fn looks(&self) -> [u64; MAX_PROBES] {
        self.looks
    }

    /// Bytes of memory.
    pub const fn bytes(&self) -> usize {
        self.buckets.len() * size_of::<Bucket>()
    }

    /// The buckets that an entry under `hash` may be in, its home first.
    #[inline]
    fn reach(&self, hash: u64) -> impl Iterator<Item = usize> + use<> {
        let homes = (self.buckets.len() - (MAX_PROBES - 1) * MAX_STEP) as u64;
        let home = (((hash & 0xffff_ffff) * homes) >> 32) as usize;
        // Bits that neither the home nor the tag uses.
        let step = 1 + (hash >> 32) as usize % MAX_STEP;
        (0..MAX_PROBES).map(move |n| home + n * step)
    }
}

impl Bucket {
    /// A bit for each entry with this tag.
    #[inline]
    fn matches(&self, tag: u8) -> u32 {
        let mut bits = 0;
        for (i, t) in self.tags.iter().enumerate() {
            bits |= u32::from(*t == tag) << i;
        }
        bits
    }
}

/// Upper bits, which the bucket numbers do not use; 0 means empty.
#[inline]
const fn tag_of(hash: u64) -> u8 {
    let tag = (hash >> 56) as u8;
    if tag == 0 { 1 } else { tag }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn behaves_like_a_map_when_crowded() {
        let mut index = Index::new(70);
        let mut model = HashMap::new();
        let mut seed = 7_u64;
        let mut refused = 0;
        for step in 0..20_000_u32 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let key = (seed >> 40) & 0x7f;
            // Few distinct homes and tags, so that buckets overflow and tags collide.
            let hash = (key & 3) << 56 | ((key * 0x0123_4567) & 0xffff_ffff);
            match model.remove(&key) {
                Some(slot) => assert!(index.remove(hash, slot)),
                None if model.len() < 100 => {
                    if index.insert(hash, step) {
                        model.insert(key, step);
                    } else {
                        refused += 1;
                    }
                }
                None => {}
            }
            for (key, slot) in &model {
                let hash = (key & 3) << 56 | ((key * 0x0123_4567) & 0xffff_ffff);
                assert_eq!(index.find(hash, |s| s == *slot), Some(*slot));
            }
        }
        for (key, slot) in model {
            let hash = (key & 3) << 56 | ((key * 0x0123_4567) & 0xffff_ffff);
            assert!(index.remove(hash, slot) && !index.remove(hash, slot));
        }
        assert!(index.buckets.iter().all(|b| b.passed == 0 && b.tags == [0; ENTRIES]));
        assert_eq!(refused, 0);
    }

    #[test]
    fn full_reach_is_refused() {
        let mut index = Index::new(1);
        let room = (ENTRIES * MAX_PROBES) as u32;
        for slot in 0..room {
            assert!(index.insert(5, slot));
        }
        assert!(!index.insert(5, 9999));
        assert_eq!(index.find(5, |s| s == room - 1), Some(room - 1));
        assert_eq!(index.find(5, |_| false), None);
        // Eleven at home, then eleven at the next one, and so on; for the last places all five are looked at.
        assert_eq!(index.looks(), [11, 11, 11, 11, 11 + 5 + 1]);
    }
}
