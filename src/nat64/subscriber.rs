//! Subscribers of one worker: who has how much.

use std::hash::{BuildHasher, Hasher};

use foldhash::quality::FixedState;

use super::index::Index;
use super::quota::Tokens;
use super::slab::{NIL, Slab};

/// A host or a network, by configuration, that has at least one binding or block.
pub struct Subscriber {
    /// Bits of its prefix.
    pub prefix: u128,
    /// Its bindings.
    pub bindings: u32,
    /// Its sessions.
    pub sessions: u32,
    /// Those that nobody has answered yet.
    pub unanswered: u32,
    /// Its new sessions per second.
    pub new: Tokens,
    /// The accounts that it belongs to: of its network and of its unit.
    pub accounts: [u32; 2],
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

    /// The subscriber with this prefix.
    pub fn find(&self, prefix: u128) -> Option<u32> {
        let is_it = |slot| self.slots.get(slot).is_some_and(|s| s.prefix == prefix);
        self.by_prefix.find(self.hash_of(prefix), is_it)
    }

    /// Makes the subscriber with this prefix, which is not there yet. `None` when there is no room.
    pub fn insert(&mut self, prefix: u128) -> Option<u32> {
        let hash = self.hash_of(prefix);
        let (bindings, sessions, unanswered) = (0, 0, 0);
        let (new, accounts) = (Tokens::default(), [NIL; 2]);
        let subscriber = Subscriber { prefix, bindings, sessions, unanswered, new, accounts };
        let slot = self.slots.insert(subscriber).ok()?;
        if self.by_prefix.insert(hash, slot) {
            return Some(slot);
        }
        self.slots.remove(slot);
        None
    }

    /// Forgets the subscriber in `slot`.
    pub fn remove(&mut self, slot: u32) {
        if let Some(subscriber) = self.slots.remove(slot) {
            self.by_prefix.remove(self.hash_of(subscriber.prefix), slot);
        }
    }

    /// The subscriber in `slot`.
    pub fn get(&self, slot: u32) -> Option<&Subscriber> {
        self.slots.get(slot)
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

    /// Number of slots, used or not.
    pub const fn capacity(&self) -> u32 {
        self.slots.capacity()
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
