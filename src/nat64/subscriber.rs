//! Subscribers of one worker: who holds which leases.

use std::hash::{BuildHasher, Hasher};

use foldhash::quality::FixedState;

use super::index::Index;
use super::lease::NO_LEASES;
use super::slab::Slab;

/// A host or a network, by configuration, that has at least one binding.
pub struct Subscriber {
    /// Bits of its prefix.
    pub prefix: u128,
    /// Its leases.
    pub leases: u32,
    /// Its bindings; with the last one it goes.
    pub bindings: u32,
}

/// All subscribers of one worker.
pub struct Subscribers {
    slots: Slab<Subscriber>,
    by_prefix: Index,
    hash: FixedState,
}

impl Subscribers {
    /// Room for `capacity` subscribers.
    pub fn new(capacity: u32, seed: u64) -> Self {
        Self {
            slots: Slab::new(capacity),
            by_prefix: Index::new(capacity),
            hash: FixedState::with_seed(seed),
        }
    }

    /// The subscriber with this prefix, made if need be. `None` when there is no room.
    pub fn find_or_insert(&mut self, prefix: u128) -> Option<u32> {
        let hash = self.hash_of(prefix);
        let found =
            self.by_prefix.find(hash, |slot| self.slots.get(slot).is_some_and(|s| s.prefix == prefix));
        if found.is_some() {
            return found;
        }
        let slot = self.slots.insert(Subscriber { prefix, leases: NO_LEASES, bindings: 0 }).ok()?;
        if self.by_prefix.insert(hash, slot) {
            return Some(slot);
        }
        self.slots.remove(slot);
        None
    }

    /// Forgets the subscriber in `slot` if it has no binding.
    pub fn remove_if_idle(&mut self, slot: u32) {
        if let Some(subscriber) = self.slots.get(slot)
            && subscriber.bindings == 0
        {
            let hash = self.hash_of(subscriber.prefix);
            self.slots.remove(slot);
            self.by_prefix.remove(hash, slot);
        }
    }

    /// The subscriber in `slot`, to be changed.
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Subscriber> {
        self.slots.get_mut(slot)
    }

    /// Number of subscribers.
    #[allow(clippy::len_without_is_empty)]
    pub const fn len(&self) -> u32 {
        self.slots.len()
    }

    /// Bytes of memory.
    pub const fn bytes(&self) -> usize {
        self.slots.bytes() + self.by_prefix.bytes()
    }

    fn hash_of(&self, prefix: u128) -> u64 {
        let mut hasher = self.hash.build_hasher();
        hasher.write_u128(prefix);
        hasher.finish()
    }
}
