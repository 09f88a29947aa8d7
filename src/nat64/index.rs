//! From a hash to a slot: buckets of one cache line, made at start, never rehashed.
//!
//! A bucket holds twelve entries of 8 tag bits and a slot number. An entry whose home bucket is full goes to one
//! of the next ones, and every full bucket on its way counts it, so that a search knows whether to go on. Both
//! the search and an insertion touch at most [`MAX_PROBES`] buckets.

use super::slab::NIL;

const ENTRIES: usize = 12;
/// Longest way of an entry from its home. At the load that [`Index::new`] plans for the mean is below 1.1.
pub const MAX_PROBES: usize = 16;
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
}

impl Index {
    /// Room for `capacity` entries.
    pub fn new(capacity: u32) -> Self {
        // Hash to bucket is a multiplication: any number of buckets will do. The room behind the last home
        // bucket saves a wrap-around.
        let homes = (capacity as usize * PLANNED.1).div_ceil(PLANNED.0).max(1);
        Self { buckets: vec![EMPTY; homes + MAX_PROBES - 1].into_boxed_slice() }
    }

    /// The slot under `hash` for which `is_it` says yes.
    #[inline]
    pub fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let tag = tag_of(hash);
        let home = self.home(hash);
        for bucket in &self.buckets[home..home + MAX_PROBES] {
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
        let tag = tag_of(hash);
        let home = self.home(hash);
        let reach = &mut self.buckets[home..home + MAX_PROBES];
        let Some((distance, at)) = reach.iter().enumerate().find_map(|(i, b)| Some((i, b.free()?))) else {
            return false;
        };
        for bucket in &mut reach[..distance] {
            bucket.passed += 1;
        }
        reach[distance].tags[at] = tag;
        reach[distance].slots[at] = slot;
        true
    }

    /// Takes `slot` from under `hash`. False when it was not there.
    pub fn remove(&mut self, hash: u64, slot: u32) -> bool {
        let tag = tag_of(hash);
        let home = self.home(hash);
        let reach = &mut self.buckets[home..home + MAX_PROBES];
        for i in 0..MAX_PROBES {
            let mut hits = reach[i].matches(tag);
            while hits != 0 {
                let at = hits.trailing_zeros() as usize;
                hits &= hits - 1;
                if reach[i].slots[at] == slot {
                    reach[i].tags[at] = 0;
                    reach[i].slots[at] = NIL;
                    for bucket in &mut reach[..i] {
                        bucket.passed -= 1;
                    }
                    return true;
                }
            }
            if reach[i].passed == 0 {
                return false;
            }
        }
        false
    }

    /// Bytes of memory.
    pub const fn bytes(&self) -> usize {
        self.buckets.len() * size_of::<Bucket>()
    }

    #[inline]
    fn home(&self, hash: u64) -> usize {
        let homes = (self.buckets.len() - (MAX_PROBES - 1)) as u64;
        (((hash & 0xffff_ffff) * homes) >> 32) as usize
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

    fn free(&self) -> Option<usize> {
        self.tags.iter().position(|t| *t == 0)
    }
}

/// Upper bits, which the bucket number does not use; 0 means empty.
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
        for slot in 0..(ENTRIES * MAX_PROBES) as u32 {
            assert!(index.insert(5, slot));
        }
        assert!(!index.insert(5, 9999));
        assert_eq!(index.find(5, |s| s == 191), Some(191));
        assert_eq!(index.find(5, |_| false), None);
    }
}
