//! The IPv4 pool: addresses cut into blocks of ports, blocks leased to subscribers.
//!
//! The pool is shared by all workers without locks: each address has a queue of free blocks and one byte per
//! block that names the shard of the subscriber who has it; packets from IPv4 find their owner through it. What
//! happens inside a leased block is the business of the one worker that owns the shard ([`super::lease`]).

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crossbeam_queue::ArrayQueue;

use super::settings::{Key, Pool4};
use super::steer;
use crate::addr::Prefix4;

/// All addresses of the pool.
pub struct Pool {
    ranges: Vec<Range>,
    block_size: u16,
}

struct Range {
    prefix: Prefix4,
    addresses: Vec<Arc<Address>>,
}

/// One pool address T.
pub struct Address {
    /// The address.
    pub addr: Ipv4Addr,
    ports: RangeInclusive<u16>,
    block_size: u16,
    shards: Box<[AtomicU8]>,
    free: ArrayQueue<u16>,
}

/// A block of ports of one address that somebody has leased. Given back exactly once, by [`Address::release`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Block {
    number: u16,
    /// First port of the block.
    pub first: u16,
}

impl Pool {
    /// The pool of `settings`. Addresses that `old` already has with the same ports are taken over, leases and
    /// all; the others start free.
    pub fn new(settings: &Pool4, key: &Key, old: Option<&Self>) -> Self {
        let ranges = settings
            .ranges
            .iter()
            .map(|range| Range {
                prefix: range.prefix,
                addresses: range
                    .prefix
                    .addresses()
                    .map(|addr| {
                        old.and_then(|old| old.find(addr))
                            .filter(|a| a.ports == range.ports && a.block_size == settings.block_size)
                            .cloned()
                            .unwrap_or_else(|| {
                                Arc::new(Address::new(addr, range.ports.clone(), settings.block_size, key))
                            })
                    })
                    .collect(),
            })
            .collect();
        Self { ranges, block_size: settings.block_size }
    }

    /// The address `addr`, if it belongs to the pool.
    #[inline]
    pub fn find(&self, addr: Ipv4Addr) -> Option<&Arc<Address>> {
        let range = self.ranges.iter().find(|r| r.prefix.contains(addr))?;
        range.addresses.get(addr.to_bits().wrapping_sub(range.prefix.addr().to_bits()) as usize)
    }

    /// Whether `addr` belongs to the pool.
    #[inline]
    pub fn contains(&self, addr: Ipv4Addr) -> bool {
        self.ranges.iter().any(|r| r.prefix.contains(addr))
    }

    /// Shard that a packet for this address and port (or ICMP identifier) belongs to. Any answer will do for a
    /// block that is free: its owner finds no mapping.
    #[inline]
    pub fn shard(&self, addr: Ipv4Addr, port: u16) -> Option<u8> {
        let address = self.find(addr)?;
        let number = port.checked_sub(*address.ports.start())? / self.block_size;
        address.shards.get(usize::from(number)).map(|s| s.load(Ordering::Relaxed))
    }

    /// Number of ports in a block.
    pub const fn block_size(&self) -> u16 {
        self.block_size
    }

    /// Leases a free block for a subscriber of `shard`, at the first address that has one from the place on that
    /// `hash` names.
    pub fn lease(&self, hash: u64, shard: u8) -> Option<(Arc<Address>, Block)> {
        let count: usize = self.ranges.iter().map(|r| r.addresses.len()).sum();
        let start = (hash % count.max(1) as u64) as usize;
        let all = || self.ranges.iter().flat_map(|r| &r.addresses);
        all().skip(start).chain(all().take(start)).find_map(|a| Some((a.clone(), a.lease(shard)?)))
    }

    /// Number of blocks, and how many of them are leased, range by range.
    pub fn usage_by_range(&self) -> impl Iterator<Item = (u64, u64)> {
        self.ranges.iter().map(|range| {
            range.addresses.iter().fold((0, 0), |(all, leased), a| {
                (all + a.shards.len() as u64, leased + a.shards.len().saturating_sub(a.free.len()) as u64)
            })
        })
    }

    /// Number of blocks, and how many of them are leased.
    pub fn usage(&self) -> (u64, u64) {
        self.usage_by_range().fold((0, 0), |(all, leased), (a, l)| (all + a, leased + l))
    }
}

impl Address {
    fn new(addr: Ipv4Addr, ports: RangeInclusive<u16>, block_size: u16, key: &Key) -> Self {
        let span = u32::from(*ports.end()).saturating_sub(u32::from(*ports.start())) + 1;
        let count = (span / u32::from(block_size.max(1))) as u16;
        // Dealt in an order that outsiders cannot guess (RFC 6056).
        let mut order: Vec<u16> = (0..count).collect();
        order.sort_by_cached_key(|n| steer::keyed(key, &(u64::from(addr.to_bits()) << 16 | u64::from(*n))));
        let free = ArrayQueue::new(usize::from(count.max(1)));
        for number in order {
            // Cannot fail: the queue has room for all of them.
            let _ = free.push(number);
        }
        Self { addr, ports, block_size, shards: (0..count).map(|_| AtomicU8::new(0)).collect(), free }
    }

    /// Leases a free block for a subscriber of `shard`.
    pub fn lease(&self, shard: u8) -> Option<Block> {
        let number = self.free.pop()?;
        if let Some(slot) = self.shards.get(usize::from(number)) {
            slot.store(shard, Ordering::Relaxed);
        }
        Some(Block { number, first: self.ports.start() + number * self.block_size })
    }

    /// Takes a block back. It waits behind all other free blocks before it is leased again.
    pub fn release(&self, block: Block) {
        // Cannot fail: the queue has room for every block, and a block exists once.
        let _ = self.free.push(block.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat64::settings::Pool4Range;
    use std::collections::HashSet;

    fn settings(ranges: &[(&str, RangeInclusive<u16>)]) -> Pool4 {
        Pool4 {
            ranges: ranges
                .iter()
                .map(|(p, ports)| Pool4Range { prefix: p.parse().unwrap(), ports: ports.clone() })
                .collect(),
            block_size: 512,
        }
    }

    #[test]
    fn every_block_is_leased_once_and_comes_back() {
        let key = Key([1; 16]);
        let pool = Pool::new(&settings(&[("198.51.100.0/31", 1024..=65535)]), &key, None);
        assert_eq!(pool.usage(), (252, 0));
        let mut seen = HashSet::new();
        let mut held = Vec::new();
        while let Some((address, block)) = pool.lease(5, 7) {
            assert!(block.first >= 1024 && u32::from(block.first) + 511 <= 65535);
            assert!(seen.insert((address.addr, block.first)));
            assert_eq!(pool.shard(address.addr, block.first + 511), Some(7));
            held.push((address, block));
        }
        assert_eq!(pool.usage(), (252, 252));
        for (address, block) in held {
            address.release(block);
        }
        assert_eq!(pool.usage(), (252, 0));
        assert_eq!(pool.shard("198.51.100.0".parse().unwrap(), 1023), None);
        assert_eq!(pool.shard("198.51.100.2".parse().unwrap(), 2000), None);
    }

    #[test]
    fn a_new_pool_keeps_the_leases_of_addresses_that_stay() {
        let key = Key([1; 16]);
        let old = Pool::new(&settings(&[("198.51.100.0/31", 1024..=65535)]), &key, None);
        let addr: Ipv4Addr = "198.51.100.1".parse().unwrap();
        let block = old.find(addr).unwrap().lease(9).unwrap();
        let wider = settings(&[("198.51.100.1/32", 1024..=65535), ("203.0.113.0/30", 2048..=4095)]);
        let new = Pool::new(&wider, &key, Some(&old));
        assert_eq!(new.shard(addr, block.first), Some(9));
        assert_eq!(new.usage(), (126 + 16, 1));
        assert!(!new.contains("198.51.100.0".parse().unwrap()));
        new.find(addr).unwrap().release(block);
        assert_eq!(new.usage(), (126 + 16, 0));
    }
}
