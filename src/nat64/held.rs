//! SYNs from IPv4 that nobody is there for yet (RFC 6146 §3.5.2.2, V4_INIT with a stored packet): a client that calls the
//! same peer within six seconds has opened the connection with it (RFC 5382 REQ-4); without one the sender is told.
//!
//! They have no binding and no place among the sessions, so a scan of all ports fills nothing but this store, which is
//! small, made at start, and refuses the newest when it is full.

use std::time::Duration;

use foldhash::quality::FixedState;

use super::index::Index;
use super::session::Key4;
use super::slab::{NIL, Slab};
use crate::time::Instant;
use crate::wire::ipv4::View4;
use crate::wire::packet::{Offload, PacketBuf};
use crate::xlat::icmp_error::MAX_ERROR4;

/// As much of a SYN as an error can quote: 576 bytes without the two headers of 28 bytes.
const KEPT: usize = MAX_ERROR4 - 28;

/// The waiting SYNs of one worker, oldest first.
pub struct HeldSyns {
    slots: Slab<Held>,
    index: Index,
    hash: FixedState,
    oldest: u32,
    newest: u32,
}

struct Held {
    key: Key4,
    deadline: Instant,
    view: View4,
    offload: Offload,
    older: u32,
    newer: u32,
    len: u16,
    bytes: [u8; KEPT],
}

/// Why a SYN was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotHeld {
    /// An earlier copy waits already, and its time goes on.
    Again,
    /// There is no room.
    Full,
}

impl HeldSyns {
    /// Room for `capacity` SYNs.
    pub fn new(capacity: u32, seed: u64) -> Self {
        Self {
            slots: Slab::new(capacity),
            index: Index::new(capacity),
            hash: FixedState::with_seed(seed),
            oldest: NIL,
            newest: NIL,
        }
    }

    /// Keeps the SYN in `packet`, whose parse is `view`, for `time`.
    pub fn hold(
        &mut self,
        now: Instant,
        time: Duration,
        key: Key4,
        view: &View4,
        packet: &PacketBuf,
    ) -> Result<(), NotHeld> {
        if self.find(&key).is_some() {
            return Err(NotHeld::Again);
        }
        let mut bytes = [0; KEPT];
        let len = packet.len().min(KEPT);
        bytes[..len].copy_from_slice(&packet.bytes()[..len]);
        let held = Held {
            key,
            deadline: now + time,
            view: *view,
            offload: packet.offload,
            older: self.newest,
            newer: NIL,
            len: len as u16,
            bytes,
        };
        let slot = self.slots.insert(held).map_err(|_| NotHeld::Full)?;
        if !self.index.insert(key.hash(&self.hash), slot) {
            self.slots.remove(slot);
            return Err(NotHeld::Full);
        }
        match self.slots.get_mut(self.newest) {
            Some(newest) => newest.newer = slot,
            None => self.oldest = slot,
        }
        self.newest = slot;
        Ok(())
    }

    /// Takes out the SYN of `key`, written into `packet`.
    pub fn take(&mut self, key: &Key4, packet: &mut PacketBuf) -> Option<View4> {
        // Nearly always empty, and then asked for every new connection.
        if self.slots.len() == 0 {
            return None;
        }
        let slot = self.find(key)?;
        self.remove(slot, packet)
    }

    /// Takes out the oldest SYN if its time is over, written into `packet`.
    pub fn expire(&mut self, now: Instant, packet: &mut PacketBuf) -> Option<View4> {
        if now < self.slots.get(self.oldest)?.deadline {
            return None;
        }
        self.remove(self.oldest, packet)
    }

    /// Key and deadline of the SYN in `slot`.
    pub fn get(&self, slot: u32) -> Option<(&Key4, Instant)> {
        self.slots.get(slot).map(|held| (&held.key, held.deadline))
    }

    /// Number of waiting SYNs.
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
        self.slots.bytes() + self.index.bytes()
    }

    fn find(&self, key: &Key4) -> Option<u32> {
        self.index
            .find(key.hash(&self.hash), |slot| self.slots.get(slot).is_some_and(|held| held.key == *key))
    }

    fn remove(&mut self, slot: u32, packet: &mut PacketBuf) -> Option<View4> {
        let held = self.slots.get(slot)?;
        let (key, view, older, newer) = (held.key, held.view, held.older, held.newer);
        packet.fill(held.bytes.get(..usize::from(held.len)).unwrap_or(&[]));
        packet.offload = held.offload;
        match self.slots.get_mut(older) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
        match self.slots.get_mut(newer) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
        self.index.remove(key.hash(&self.hash), slot);
        self.slots.remove(slot);
        Some(view)
    }
}
