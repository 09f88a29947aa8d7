//! The binding information base (RFC 6146 §3.1): (X',x) ↔ (T,t) for each protocol.

use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, Ipv6Addr};

use foldhash::quality::FixedState;

use super::index::{Index, MAX_PROBES};
use super::lease::PortLease;
use super::settings::Protocol;
use super::slab::Slab;

/// One binding.
pub struct Binding {
    /// Client X'.
    pub src6: Ipv6Addr,
    /// Client port or identifier x.
    pub port6: u16,
    /// Pool port or identifier t.
    pub port4: u16,
    /// Pool address T.
    pub src4: Ipv4Addr,
    /// Table.
    pub protocol: Protocol,
    /// The pool6 prefix that the client used when it was made: sessions from IPv4 answer with it.
    pub pool6: u8,
    /// Sessions that use it; with the last one it goes, unless it is static.
    pub sessions: u16,
    /// Who has it; nobody when it is static.
    pub subscriber: u32,
    /// The port, to be given back; none when it is static.
    pub lease: Option<PortLease>,
}

impl Binding {
    /// Whether the operator made it (RFC 6146 §3.1): then it stays.
    pub const fn is_static(&self) -> bool {
        self.lease.is_none()
    }
}

/// All bindings of one worker, found from both sides.
pub struct Bib {
    slots: Slab<Binding>,
    by6: Index,
    by4: Index,
    hash: FixedState,
    counts: [u32; 3],
}

impl Bib {
    /// Room for `capacity` bindings; `seed` keeps outsiders from choosing their hashes.
    pub fn new(capacity: u32, seed: u64) -> Self {
        Self {
            slots: Slab::new(capacity),
            by6: Index::new(capacity),
            by4: Index::new(capacity),
            hash: FixedState::with_seed(seed),
            counts: [0; 3],
        }
    }

    /// The binding of a client's port.
    pub fn find6(&self, protocol: Protocol, src6: Ipv6Addr, port6: u16) -> Option<u32> {
        self.by6.find(self.hash6(protocol, src6, port6), |slot| {
            self.slots.get(slot).is_some_and(|b| b.src6 == src6 && b.port6 == port6 && b.protocol == protocol)
        })
    }

    /// The binding of a pool port.
    pub fn find4(&self, protocol: Protocol, src4: Ipv4Addr, port4: u16) -> Option<u32> {
        self.by4.find(self.hash4(protocol, src4, port4), |slot| {
            self.slots.get(slot).is_some_and(|b| b.src4 == src4 && b.port4 == port4 && b.protocol == protocol)
        })
    }

    /// Stores a binding whose keys are not there yet, or gives it back when there is no room.
    pub fn insert(&mut self, binding: Binding) -> Result<u32, Binding> {
        let hash6 = self.hash6(binding.protocol, binding.src6, binding.port6);
        let hash4 = self.hash4(binding.protocol, binding.src4, binding.port4);
        let protocol = binding.protocol;
        let slot = self.slots.insert(binding)?;
        if self.by6.insert(hash6, slot) {
            if self.by4.insert(hash4, slot) {
                self.counts[protocol as usize] += 1;
                return Ok(slot);
            }
            self.by6.remove(hash6, slot);
        }
        match self.slots.remove(slot) {
            Some(binding) => Err(binding),
            None => Ok(slot),
        }
    }

    /// Takes a binding out.
    pub fn remove(&mut self, slot: u32) -> Option<Binding> {
        let binding = self.slots.remove(slot)?;
        self.counts[binding.protocol as usize] -= 1;
        self.by6.remove(self.hash6(binding.protocol, binding.src6, binding.port6), slot);
        self.by4.remove(self.hash4(binding.protocol, binding.src4, binding.port4), slot);
        Some(binding)
    }

    /// The binding in `slot`.
    pub fn get(&self, slot: u32) -> Option<&Binding> {
        self.slots.get(slot)
    }

    /// The binding in `slot`, to be changed; not its keys.
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Binding> {
        self.slots.get_mut(slot)
    }

    /// Number of bindings.
    #[allow(clippy::len_without_is_empty)]
    pub const fn len(&self) -> u32 {
        self.slots.len()
    }

    /// Number of bindings of TCP, UDP and ICMP.
    pub const fn counts(&self) -> [u32; 3] {
        self.counts
    }

    /// Number of slots, used or not.
    pub const fn capacity(&self) -> u32 {
        self.slots.capacity()
    }

    /// How many entries into its indexes looked at one bucket, at two, and so on.
    pub fn looks(&self) -> [u64; MAX_PROBES] {
        let (by6, by4) = (self.by6.looks(), self.by4.looks());
        std::array::from_fn(|i| by6[i] + by4[i])
    }

    /// Bytes of memory.
    pub const fn bytes(&self) -> usize {
        self.slots.bytes() + self.by6.bytes() + self.by4.bytes()
    }

    fn hash6(&self, protocol: Protocol, src6: Ipv6Addr, port6: u16) -> u64 {
        let mut hasher = self.hash.build_hasher();
        hasher.write_u128(src6.to_bits());
        hasher.write_u64(u64::from(port6) << 8 | protocol as u64);
        hasher.finish()
    }

    fn hash4(&self, protocol: Protocol, src4: Ipv4Addr, port4: u16) -> u64 {
        let mut hasher = self.hash.build_hasher();
        hasher.write_u64(u64::from(src4.to_bits()) << 32 | u64::from(port4) << 8 | protocol as u64);
        hasher.finish()
    }
}
