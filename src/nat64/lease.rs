//! What one worker does with its leased blocks: which port of which block is taken, for each protocol.

use std::sync::Arc;

use super::pool4::{Address, Block, Pool};
use super::settings::{Key, Protocol};
use super::slab::{NIL, Slab};
use super::steer::keyed;

/// The blocks that the subscribers of one worker have leased.
pub struct Leases {
    leases: Slab<Lease>,
    /// One bit for each port, `words` words for each protocol of each lease.
    taken: Box<[u64]>,
    words: usize,
}

struct Lease {
    address: Arc<Address>,
    block: Block,
    used: [u16; 3],
    next: u32,
}

/// A taken port (or ICMP identifier) of one protocol. Given back exactly once, by [`Leases::give_back`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct PortLease {
    lease: u32,
    offset: u16,
    protocol: Protocol,
}

/// Why there is no port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPort {
    /// The pool has no free block for this subscriber.
    Exhausted,
    /// This worker's table of leases is full.
    TableFull,
}

/// Who asks for a port.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Subscriber, as the bits of its prefix.
    pub subscriber: u128,
    /// Its shard.
    pub shard: u8,
    /// Client address, as bits.
    pub client: u128,
    /// Client port or identifier.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

impl Leases {
    /// Room for `capacity` leased blocks of `block_size` ports.
    pub fn new(capacity: u32, block_size: u16) -> Self {
        let words = usize::from(block_size).div_ceil(64);
        let taken = vec![0; capacity as usize * 3 * words].into_boxed_slice();
        Self { leases: Slab::new(capacity), taken, words }
    }

    /// Takes a port for `request` from the subscriber's blocks, whose list starts at `head`; leases a further
    /// block of the same address when they are full (G-02: a subscriber keeps its address).
    pub fn take(
        &mut self,
        request: &Request,
        head: &mut u32,
        pool: &Pool,
        key: &Key,
    ) -> Result<PortLease, NoPort> {
        let hash = keyed(key, &(request.client, u64::from(request.port) << 8 | request.protocol as u64));
        let mut at = *head;
        while let Some(lease) = self.leases.get(at) {
            let next = lease.next;
            if let Some(port) = self.take_in(at, hash, request) {
                return Ok(port);
            }
            at = next;
        }
        if self.leases.len() == self.leases.capacity() {
            return Err(NoPort::TableFull);
        }
        let address = match self.leases.get(*head) {
            Some(lease) => lease.address.clone(),
            None => pool.with_free_block(keyed(key, &request.subscriber)).ok_or(NoPort::Exhausted)?.clone(),
        };
        let block = address.lease(request.shard).ok_or(NoPort::Exhausted)?;
        match self.leases.insert(Lease { address, block, used: [0; 3], next: *head }) {
            Ok(at) => {
                *head = at;
                self.take_in(at, hash, request).ok_or(NoPort::Exhausted)
            }
            Err(Lease { address, block, .. }) => {
                address.release(block);
                Err(NoPort::TableFull)
            }
        }
    }

    /// Address and port of a lease.
    pub fn transport(&self, port: &PortLease) -> Option<(std::net::Ipv4Addr, u16)> {
        let lease = self.leases.get(port.lease)?;
        Some((lease.address.addr, lease.block.first + port.offset))
    }

    /// The pool address that a lease is of.
    pub fn address(&self, port: &PortLease) -> Option<&Arc<Address>> {
        self.leases.get(port.lease).map(|lease| &lease.address)
    }

    /// Gives a port back, and its block when nothing else in it is taken. `head` is the subscriber's list.
    pub fn give_back(&mut self, port: PortLease, head: &mut u32) {
        let words = self.words_of(port.lease, port.protocol);
        if let Some(word) = self.taken.get_mut(words.start + usize::from(port.offset) / 64) {
            *word &= !(1 << (port.offset % 64));
        }
        let Some(lease) = self.leases.get_mut(port.lease) else { return };
        lease.used[port.protocol as usize] -= 1;
        if lease.used == [0; 3] {
            self.release(port.lease, head);
        }
    }

    /// Number of leased blocks.
    #[allow(clippy::len_without_is_empty)]
    pub const fn len(&self) -> u32 {
        self.leases.len()
    }

    /// Bytes of memory.
    pub const fn bytes(&self) -> usize {
        self.leases.bytes() + self.taken.len() * 8
    }

    fn release(&mut self, at: u32, head: &mut u32) {
        let Some(Lease { address, block, next, .. }) = self.leases.remove(at) else { return };
        address.release(block);
        if *head == at {
            *head = next;
            return;
        }
        let mut before = *head;
        while let Some(lease) = self.leases.get_mut(before) {
            if lease.next == at {
                lease.next = next;
                return;
            }
            before = lease.next;
        }
    }

    /// A free port of lease `at`: the first one from the place that `hash` names, so that it is unpredictable
    /// (RFC 6056) and repeatable. UDP keeps the parity of the client's port while it can (RFC 4787 REQ-4).
    fn take_in(&mut self, at: u32, hash: u64, request: &Request) -> Option<PortLease> {
        const EVEN: u64 = 0x5555_5555_5555_5555;
        let size = self.words as u32 * 64;
        let lease = self.leases.get(at)?;
        if u32::from(lease.used[request.protocol as usize]) >= size {
            return None;
        }
        let wanted = (request.port ^ lease.block.first) & 1;
        let words = self.words_of(at, request.protocol);
        let taken = self.taken.get_mut(words)?;
        let start = (hash % u64::from(size)) as usize;
        let masks: &[u64] = match request.protocol {
            Protocol::Udp => &[if wanted == 0 { EVEN } else { !EVEN }, u64::MAX],
            Protocol::Tcp | Protocol::Icmp => &[u64::MAX],
        };
        let offset = masks.iter().find_map(|mask| first_free(taken, start, *mask))?;
        taken[offset / 64] |= 1 << (offset % 64);
        self.leases.get_mut(at)?.used[request.protocol as usize] += 1;
        Some(PortLease { lease: at, offset: offset as u16, protocol: request.protocol })
    }

    fn words_of(&self, lease: u32, protocol: Protocol) -> std::ops::Range<usize> {
        let first = (lease as usize * 3 + protocol as usize) * self.words;
        first..first + self.words
    }
}

/// First clear bit at or behind `start`, wrapping around, among those in `mask` (the same for each word).
fn first_free(taken: &[u64], start: usize, mask: u64) -> Option<usize> {
    let behind = u64::MAX << (start % 64);
    let first = start / 64;
    (0..=taken.len()).find_map(|i| {
        let word = (first + i) % taken.len();
        let part = match i {
            0 => behind,
            _ if i == taken.len() => !behind,
            _ => u64::MAX,
        };
        let free = !taken[word] & mask & part;
        (free != 0).then(|| word * 64 + free.trailing_zeros() as usize)
    })
}

/// An empty list of leases.
pub const NO_LEASES: u32 = NIL;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat64::settings::{Pool4, Pool4Range};
    use std::collections::HashSet;

    const KEY: Key = Key([5; 16]);

    fn pool() -> Pool {
        let range = Pool4Range { prefix: "198.51.100.0/31".parse().unwrap(), ports: 1024..=2047 };
        Pool::new(&Pool4 { ranges: vec![range], block_size: 256 }, &KEY, None)
    }

    fn request(port: u16, protocol: Protocol) -> Request {
        Request { subscriber: 1, shard: 3, client: 1, port, protocol }
    }

    #[test]
    fn g02_all_ports_of_one_address_then_exhausted_then_all_free_again() {
        let pool = pool();
        let mut leases = Leases::new(8, 256);
        let mut head = NO_LEASES;
        let mut ports = Vec::new();
        let mut seen = HashSet::new();
        for i in 0..1024 {
            let port = leases.take(&request(i, Protocol::Tcp), &mut head, &pool, &KEY).unwrap();
            assert!(seen.insert(leases.transport(&port).unwrap()));
            ports.push(port);
        }
        assert_eq!(seen.iter().map(|(a, _)| a).collect::<HashSet<_>>().len(), 1);
        let refused = leases.take(&request(5000, Protocol::Tcp), &mut head, &pool, &KEY);
        assert_eq!(refused, Err(NoPort::Exhausted));
        // Another protocol has its own ports in the same blocks.
        let udp = leases.take(&request(5000, Protocol::Udp), &mut head, &pool, &KEY).unwrap();
        leases.give_back(udp, &mut head);
        for port in ports {
            leases.give_back(port, &mut head);
        }
        assert_eq!((pool.usage(), leases.len(), head), ((8, 0), 0, NO_LEASES));
        assert!(leases.taken.iter().all(|w| *w == 0));
    }

    #[test]
    fn f25_udp_keeps_parity() {
        let pool = pool();
        let mut leases = Leases::new(8, 256);
        let mut head = NO_LEASES;
        let mut ports = Vec::new();
        for i in 0..128 {
            let port = leases.take(&request(i * 2 + 1, Protocol::Udp), &mut head, &pool, &KEY).unwrap();
            assert_eq!(leases.transport(&port).unwrap().1 & 1, 1);
            ports.push(port);
        }
    }

    #[test]
    fn the_search_wraps_and_finds_the_last_bit() {
        let mut taken = [u64::MAX, u64::MAX];
        assert_eq!(first_free(&taken, 77, u64::MAX), None);
        taken[1] &= !(1 << 3);
        assert_eq!(first_free(&taken, 77, u64::MAX), Some(67));
        assert_eq!(first_free(&taken, 67, u64::MAX), Some(67));
        assert_eq!(first_free(&taken, 0, u64::MAX), Some(67));
    }
}
