//! Address-dependent filtering (RFC 6146 §3.5.1): which peers a binding has a session with.
//!
//! Only kept while some protocol filters by address.

use std::hash::{BuildHasher, Hasher};
use std::net::Ipv4Addr;

use foldhash::quality::FixedState;

use super::index::Index;
use super::slab::Slab;

struct Permission {
    bib: u32,
    peer: Ipv4Addr,
    sessions: u32,
}

/// Pairs of binding and peer address, counted by sessions.
pub struct Permissions {
    slots: Slab<Permission>,
    index: Index,
    hash: FixedState,
}

impl Permissions {
    /// Room for `capacity` pairs.
    pub fn new(capacity: u32, seed: u64) -> Self {
        Self { slots: Slab::new(capacity), index: Index::new(capacity), hash: FixedState::with_seed(seed) }
    }

    /// Whether binding `bib` has a session with `peer`.
    pub fn contains(&self, bib: u32, peer: Ipv4Addr) -> bool {
        self.find(bib, peer).is_some()
    }

    /// Counts a new session. False when there is no room.
    pub fn add(&mut self, bib: u32, peer: Ipv4Addr) -> bool {
        if let Some(permission) = self.find(bib, peer).and_then(|slot| self.slots.get_mut(slot)) {
            permission.sessions += 1;
            return true;
        }
        let Ok(slot) = self.slots.insert(Permission { bib, peer, sessions: 1 }) else { return false };
        let inserted = self.index.insert(self.hash_of(bib, peer), slot);
        if !inserted {
            self.slots.remove(slot);
        }
        inserted
    }

    /// Counts a session that has ended.
    pub fn remove(&mut self, bib: u32, peer: Ipv4Addr) {
        let Some(slot) = self.find(bib, peer) else { return };
        let Some(permission) = self.slots.get_mut(slot) else { return };
        permission.sessions -= 1;
        if permission.sessions == 0 {
            self.slots.remove(slot);
            self.index.remove(self.hash_of(bib, peer), slot);
        }
    }

    fn find(&self, bib: u32, peer: Ipv4Addr) -> Option<u32> {
        self.index.find(self.hash_of(bib, peer), |slot| {
            self.slots.get(slot).is_some_and(|p| p.bib == bib && p.peer == peer)
        })
    }

    fn hash_of(&self, bib: u32, peer: Ipv4Addr) -> u64 {
        let mut hasher = self.hash.build_hasher();
        hasher.write_u64(u64::from(bib) << 32 | u64::from(peer.to_bits()));
        hasher.finish()
    }
}
