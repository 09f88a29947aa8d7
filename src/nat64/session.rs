//! Session tables (RFC 6146 §3.2): TCP, UDP and ICMP in one, told apart by the key.

use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, Ipv6Addr};

use foldhash::quality::FixedState;

use super::index::{Index, MAX_PROBES};
use super::settings::Protocol;
use super::slab::{NIL, Slab};
use super::tcp::State;
use super::wheel::Tick;
use super::witness::FlowWitness;
use crate::xlat::{Delta, FlowPair, Rewrite};

/// Whose first packet a session waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// Both sides have sent.
    Nobody,
    /// The peer has not answered the client.
    V4,
    /// The client has not answered the peer.
    V6,
}

/// One session. Exactly one cache line, which is all that a hit reads beside the index.
#[repr(align(64))]
pub struct Session {
    /// Client X'.
    pub src6: Ipv6Addr,
    /// Pool address T.
    pub src4: Ipv4Addr,
    /// Peer Z.
    pub dst4: Ipv4Addr,
    /// Client port or identifier x.
    pub port6: u16,
    /// Pool port or identifier t.
    pub port4: u16,
    /// Peer port z; 0 for ICMP.
    pub peer_port: u16,
    /// Which pool6 prefix the client used.
    pub pool6: u8,
    /// Table.
    pub protocol: Protocol,
    /// TCP state.
    pub state: State,
    /// Whether somebody has not sent yet.
    pub waits: Waits,
    /// Checksum difference from IPv6 to IPv4.
    pub delta: Delta,
    /// Its BIB entry.
    pub bib: u32,
    /// When it expires.
    pub deadline: Tick,
    /// Where the wheel has it.
    pub(super) due: Tick,
    /// Neighbours in the wheel.
    pub(super) before: u32,
    pub(super) behind: u32,
}

const _: () = assert!(size_of::<Session>() == 64);

/// What tells a session from the others on the IPv6 side: (X',x), (Y',z).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key6 {
    /// Table.
    pub protocol: Protocol,
    /// X'.
    pub src6: Ipv6Addr,
    /// x.
    pub port6: u16,
    /// Which pool6 prefix, and Z inside it: Y'.
    pub pool6: u8,
    /// Z.
    pub dst4: Ipv4Addr,
    /// z; 0 for ICMP.
    pub peer_port: u16,
}

/// What tells a session from the others on the IPv4 side: (T,t), (Z,z).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key4 {
    /// Table.
    pub protocol: Protocol,
    /// T.
    pub src4: Ipv4Addr,
    /// t.
    pub port4: u16,
    /// Z.
    pub dst4: Ipv4Addr,
    /// z; 0 for ICMP.
    pub peer_port: u16,
}

/// All sessions of one worker, found from both sides.
pub struct Sessions {
    slots: Slab<Session>,
    /// Beside the sessions, not within: only TCP has one, and it has a layout of its own.
    witnesses: Vec<FlowWitness>,
    by6: Index,
    by4: Index,
    hash: FixedState,
}

impl Session {
    /// A session of `flow` that is in no table yet and waits for the peer's answer.
    pub fn new(protocol: Protocol, pool6: u8, flow: &FlowPair, state: State, bib: u32) -> Self {
        Self {
            src6: flow.src6,
            src4: flow.src4,
            dst4: flow.dst4,
            port6: flow.port6,
            port4: flow.port4,
            peer_port: flow.peer_port,
            pool6,
            protocol,
            state,
            waits: Waits::V4,
            delta: Delta::v6_to_v4(flow),
            bib,
            deadline: 0,
            due: 0,
            before: NIL,
            behind: NIL,
        }
    }

    /// Its key on the IPv6 side.
    pub const fn key6(&self) -> Key6 {
        Key6 {
            protocol: self.protocol,
            src6: self.src6,
            port6: self.port6,
            pool6: self.pool6,
            dst4: self.dst4,
            peer_port: self.peer_port,
        }
    }

    /// Its key on the IPv4 side.
    pub const fn key4(&self) -> Key4 {
        Key4 {
            protocol: self.protocol,
            src4: self.src4,
            port4: self.port4,
            dst4: self.dst4,
            peer_port: self.peer_port,
        }
    }

    /// What its packets to IPv4 change into.
    #[inline]
    pub const fn rewrite4(&self) -> Rewrite<Ipv4Addr> {
        Rewrite {
            src: self.src4,
            dst: self.dst4,
            src_port: self.port4,
            dst_port: self.peer_port,
            delta: self.delta,
        }
    }

    /// What its packets to IPv6 change into; `dst6` is Y' = Pref64 + Z.
    #[inline]
    pub const fn rewrite6(&self, dst6: Ipv6Addr) -> Rewrite<Ipv6Addr> {
        // For ICMP the identifier is written from `src_port`, whatever the direction.
        let (src_port, dst_port) = match self.protocol {
            Protocol::Icmp => (self.port6, 0),
            Protocol::Tcp | Protocol::Udp => (self.peer_port, self.port6),
        };
        Rewrite { src: dst6, dst: self.src6, src_port, dst_port, delta: self.delta.reversed() }
    }
}

impl Key6 {
    #[inline]
    fn is(&self, s: &Session) -> bool {
        self.src6 == s.src6
            && self.dst4 == s.dst4
            && self.port6 == s.port6
            && self.peer_port == s.peer_port
            && self.pool6 == s.pool6
            && self.protocol == s.protocol
    }

    #[inline]
    fn hash(&self, state: &FixedState) -> u64 {
        let mut hasher = state.build_hasher();
        hasher.write_u128(self.src6.to_bits());
        hasher.write_u128(
            u128::from(self.dst4.to_bits()) << 64
                | u128::from(self.port6) << 48
                | u128::from(self.peer_port) << 32
                | u128::from(self.pool6) << 8
                | self.protocol as u128,
        );
        hasher.finish()
    }
}

impl Key4 {
    #[inline]
    fn is(&self, s: &Session) -> bool {
        self.src4 == s.src4
            && self.dst4 == s.dst4
            && self.port4 == s.port4
            && self.peer_port == s.peer_port
            && self.protocol == s.protocol
    }

    #[inline]
    pub(super) fn hash(&self, state: &FixedState) -> u64 {
        let mut hasher = state.build_hasher();
        hasher.write_u128(
            u128::from(self.src4.to_bits()) << 96
                | u128::from(self.dst4.to_bits()) << 64
                | u128::from(self.port4) << 48
                | u128::from(self.peer_port) << 32
                | self.protocol as u128,
        );
        hasher.finish()
    }
}

impl Sessions {
    /// Room for `capacity` sessions; `seed` keeps outsiders from choosing their hashes.
    pub fn new(capacity: u32, seed: u64) -> Self {
        Self {
            slots: Slab::new(capacity),
            witnesses: Vec::with_capacity(capacity as usize),
            by6: Index::new(capacity),
            by4: Index::new(capacity),
            hash: FixedState::with_seed(seed),
        }
    }

    /// The session of a packet from IPv6.
    #[inline]
    pub fn find6(&self, key: &Key6) -> Option<u32> {
        self.by6.find(key.hash(&self.hash), |slot| self.slots.get(slot).is_some_and(|s| key.is(s)))
    }

    /// The session of a packet from IPv4.
    #[inline]
    pub fn find4(&self, key: &Key4) -> Option<u32> {
        self.by4.find(key.hash(&self.hash), |slot| self.slots.get(slot).is_some_and(|s| key.is(s)))
    }

    /// Stores a session whose keys are not there yet. `None` when there is no room.
    pub fn insert(&mut self, session: Session) -> Option<u32> {
        let hash6 = session.key6().hash(&self.hash);
        let hash4 = session.key4().hash(&self.hash);
        let slot = self.slots.insert(session).ok()?;
        if self.by6.insert(hash6, slot) {
            if self.by4.insert(hash4, slot) {
                match self.witnesses.get_mut(slot as usize) {
                    Some(witness) => *witness = FlowWitness::default(),
                    // The room is there; it is touched together with the slot.
                    None => self.witnesses.resize_with(slot as usize + 1, FlowWitness::default),
                }
                return Some(slot);
            }
            self.by6.remove(hash6, slot);
        }
        self.slots.remove(slot);
        None
    }

    /// Takes a session out. It must not be in the wheel any more.
    pub fn remove(&mut self, slot: u32) -> Option<Session> {
        let session = self.slots.remove(slot)?;
        self.by6.remove(session.key6().hash(&self.hash), slot);
        self.by4.remove(session.key4().hash(&self.hash), slot);
        Some(session)
    }

    /// The session in `slot`.
    #[inline]
    pub fn get(&self, slot: u32) -> Option<&Session> {
        self.slots.get(slot)
    }

    /// The session in `slot`, to be changed; not its keys.
    #[inline]
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Session> {
        self.slots.get_mut(slot)
    }

    /// What has been seen of the TCP flow of the session in `slot`.
    #[inline]
    pub fn witness(&self, slot: u32) -> Option<&FlowWitness> {
        self.witnesses.get(slot as usize)
    }

    /// The same, to be changed.
    #[inline]
    pub fn witness_mut(&mut self, slot: u32) -> Option<&mut FlowWitness> {
        self.witnesses.get_mut(slot as usize)
    }

    /// Number of sessions.
    #[allow(clippy::len_without_is_empty)]
    pub const fn len(&self) -> u32 {
        self.slots.len()
    }

    /// Number of slots, used or not.
    pub const fn capacity(&self) -> u32 {
        self.slots.capacity()
    }

    /// All slots that were ever used are below this one.
    pub const fn touched(&self) -> u32 {
        self.slots.touched()
    }

    /// How many entries into its indexes looked at one bucket, at two, and so on.
    pub fn looks(&self) -> [u64; MAX_PROBES] {
        let (by6, by4) = (self.by6.looks(), self.by4.looks());
        std::array::from_fn(|i| by6[i] + by4[i])
    }

    /// Bytes of memory.
    pub const fn bytes(&self) -> usize {
        let witnesses = self.slots.capacity() as usize * size_of::<FlowWitness>();
        self.slots.bytes() + witnesses + self.by6.bytes() + self.by4.bytes()
    }
}
