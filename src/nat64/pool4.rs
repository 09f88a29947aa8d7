//! The IPv4 pool: addresses cut into blocks of ports, blocks leased to subscribers.
//!
//! The pool is shared by all workers without locks: each address has one bit for each block that is leased, and one
//! byte that names the shard of the subscriber who has it; packets from IPv4 find their owner through it. What
//! happens inside a leased block is the business of the one worker that owns the shard ([`super::lease`]).
//!
//! Blocks lie at multiples of their size, whatever range of ports may be given out. So a range can grow and shrink
//! while blocks are leased: what is not allowed any more is only not leased again.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use super::permute::{Declared, Permutation};
use super::policy::{Assignment, FIRST_USER_PORT};
use super::settings::{Pool4Range, Settings};
use crate::addr::Prefix4;
use crate::time::Instant;

/// Share of leased blocks, in percent, from which a pool is called low (H-29).
pub const LOW_PERCENT: u64 = 80;

/// All addresses of the pool.
pub struct Pool {
    ranges: Vec<Range>,
    /// Addresses that were taken out of the settings while blocks of them were leased.
    draining: Vec<Arc<Address>>,
    scopes: Vec<Scope>,
    opens_at: Instant,
}

struct Range {
    prefix: Prefix4,
    addresses: Vec<Arc<Address>>,
    scope: u16,
}

/// The ranges of one name, which units share.
struct Scope {
    name: Option<String>,
    ranges: Vec<usize>,
    permuted: Option<(Permutation, Declared)>,
    has_low: bool,
    books: Arc<Books>,
}

/// How full a scope is.
#[derive(Default)]
struct Books {
    blocks: AtomicU64,
    leased: AtomicU64,
    low: AtomicBool,
}

/// One pool address T.
pub struct Address {
    /// The address.
    pub addr: Ipv4Addr,
    block_size: u16,
    shards: Box<[AtomicU8]>,
    leased: Box<[AtomicU64]>,
    allowed: Box<[AtomicU64]>,
    /// Blocks that belong to declared subscribers; nobody else ever gets one.
    fixed: Box<[u64]>,
    overflow: AtomicU32,
    books: Arc<Books>,
}

/// A block of ports of one address that somebody has leased. Given back exactly once, by [`Address::release`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Block {
    number: u16,
    /// First port of the block.
    pub first: u16,
    /// Whether it is its subscriber's for good, by the permutation.
    pub is_fixed: bool,
}

/// Which blocks will do, by RFC 4787 REQ-3a.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Those below 1024.
    Low,
    /// Those from 1024 on.
    High,
    /// Any.
    Any,
}

/// Who asks for a block.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// Which part of the pool.
    pub scope: u16,
    /// Subscriber, as the bits of its prefix.
    pub subscriber: u128,
    /// Its shard.
    pub shard: u8,
    /// A number that nobody can guess.
    pub hash: u64,
    /// Which blocks will do.
    pub class: Class,
}

impl Pool {
    /// The pool of `settings`. Addresses that `old` already has, with the same block size and in the same scope, are
    /// taken over, leases and all; those that are gone stay until their last block is given back.
    pub fn new(settings: &Settings, old: Option<&Self>) -> Self {
        let pool4 = &settings.pool4;
        let mut scopes: Vec<Scope> = Vec::new();
        for (i, range) in pool4.ranges.iter().enumerate() {
            match scopes.iter_mut().find(|s| s.name == range.pool) {
                Some(scope) => scope.ranges.push(i),
                None => scopes.push(Scope::new(range.pool.clone(), i, old)),
            }
        }
        for scope in &mut scopes {
            scope.count(settings);
        }
        let mut pool = Self {
            ranges: Vec::with_capacity(pool4.ranges.len()),
            draining: Vec::new(),
            scopes,
            opens_at: old.map_or(Instant::ZERO, |old| old.opens_at),
        };
        for (i, range) in pool4.ranges.iter().enumerate() {
            let made = pool.range(i, range, settings, old);
            pool.ranges.push(made);
        }
        pool.drain(old);
        pool
    }

    /// No block that is free now is leased before `at` (H-12). Fixed and restored ones are.
    pub fn open_at(&mut self, at: Instant) {
        self.opens_at = at;
    }

    fn range(&self, i: usize, range: &Pool4Range, settings: &Settings, old: Option<&Self>) -> Range {
        let size = range.block_size.unwrap_or(settings.pool4.block_size);
        let scope = self.scopes.iter().position(|s| s.ranges.contains(&i)).unwrap_or(0);
        let books = self.scopes.get(scope).map(|s| s.books.clone()).unwrap_or_default();
        let takes_over = |a: &&Arc<Address>| a.block_size == size && Arc::ptr_eq(&a.books, &books);
        let make = |(nth, addr)| {
            let known = old.and_then(|old| old.find(addr)).filter(takes_over).cloned();
            let address = known.unwrap_or_else(|| {
                let fixed = |number| {
                    let scope = self.scopes.get(scope)?;
                    let (permutation, declared) = scope.permuted.as_ref()?;
                    let place = place_of(settings, &scope.ranges, i, nth, number)?;
                    Some(u128::from(permutation.invert(place)) < declared.count())
                };
                Arc::new(Address::new(addr, size, books.clone(), |n| fixed(n).unwrap_or(false)))
            });
            address.allow(Some(&range.ports));
            address
        };
        Range {
            prefix: range.prefix,
            addresses: range.prefix.addresses().enumerate().map(make).collect(),
            scope: scope as u16,
        }
    }

    /// Leases no more of old addresses that were not taken over, and keeps those that still have leased blocks.
    fn drain(&mut self, old: Option<&Self>) {
        for address in old.into_iter().flat_map(|old| old.all().chain(&old.draining)) {
            let found = self.find(address.addr);
            if found.is_some_and(|new| Arc::ptr_eq(new, address)) {
                continue;
            }
            // One that has a successor, with other blocks or in another scope, cannot live beside it.
            let is_replaced = found.is_some();
            address.allow(None);
            if !is_replaced && address.leased_blocks() > 0 {
                self.draining.push(address.clone());
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Address>> {
        self.ranges.iter().flat_map(|r| &r.addresses)
    }

    /// The address `addr`, if it belongs to the pool or is draining.
    #[inline]
    pub fn find(&self, addr: Ipv4Addr) -> Option<&Arc<Address>> {
        match self.ranges.iter().find(|r| r.prefix.contains(addr)) {
            Some(range) => {
                range.addresses.get(addr.to_bits().wrapping_sub(range.prefix.addr().to_bits()) as usize)
            }
            None => self.draining.iter().find(|a| a.addr == addr),
        }
    }

    /// Whether `addr` belongs to the pool or is draining.
    #[inline]
    pub fn contains(&self, addr: Ipv4Addr) -> bool {
        self.ranges.iter().any(|r| r.prefix.contains(addr)) || self.draining.iter().any(|a| a.addr == addr)
    }

    /// Addresses that are draining, each with the number of its leased blocks.
    pub fn draining(&self) -> impl Iterator<Item = (Ipv4Addr, u64)> {
        self.draining.iter().map(|a| (a.addr, a.leased_blocks())).filter(|(_, leased)| *leased > 0)
    }

    /// Shard that a packet for this address and port (or ICMP identifier) belongs to; `None` for a port that is in no
    /// block. Any answer will do for a block that is free: its owner finds no mapping.
    #[inline]
    pub fn shard(&self, addr: Ipv4Addr, port: u16) -> Option<u8> {
        let address = self.find(addr)?;
        let number = port / address.block_size;
        let (word, bit) = place(number);
        let known = address.allowed_in(word) | address.leased_in(word);
        if known & bit == 0 {
            return None;
        }
        address.shards.get(usize::from(number)).map(|s| s.load(Ordering::Relaxed))
    }

    /// Most ports that a block of the pool has.
    pub fn largest_block(&self) -> u16 {
        self.all().chain(&self.draining).map(|a| a.block_size).max().unwrap_or(1)
    }

    /// Number of the part of the pool with this name.
    pub fn scope(&self, name: Option<&str>) -> Option<u16> {
        self.scopes.iter().position(|s| s.name.as_deref() == name).map(|i| i as u16)
    }

    /// Whether some part of the scope lies below 1024.
    pub fn has_low(&self, scope: u16) -> bool {
        self.scopes.get(usize::from(scope)).is_some_and(|s| s.has_low)
    }

    fn addresses(&self, scope: u16) -> impl Iterator<Item = &Arc<Address>> + Clone {
        self.ranges.iter().filter(move |r| r.scope == scope).flat_map(|r| &r.addresses)
    }

    /// Leases a block: the subscriber's fixed one if that is free, otherwise one of the first address that has one
    /// from the place on that the hash names.
    pub fn lease(&self, wish: &Wish, now: Instant) -> Option<(Arc<Address>, Block)> {
        if let Some((address, number)) = self.fixed(wish) {
            let block = address.claim_fixed(number, wish).or_else(|| self.free_of(address, wish, now));
            if let Some(block) = block {
                return Some((address.clone(), block));
            }
        }
        if now < self.opens_at {
            return None;
        }
        let addresses = self.addresses(wish.scope);
        let count = addresses.clone().count();
        let start = (wish.hash % count.max(1) as u64) as usize;
        let from = addresses.clone().skip(start).chain(addresses.take(start));
        from.into_iter().find_map(|a| Some((a.clone(), a.lease(wish)?)))
    }

    /// Leases a further block of `address`, the fixed one first.
    pub fn lease_at(&self, address: &Arc<Address>, wish: &Wish, now: Instant) -> Option<Block> {
        let fixed = self.fixed(wish).filter(|(own, _)| Arc::ptr_eq(own, address));
        let fixed = fixed.and_then(|(_, number)| address.claim_fixed(number, wish));
        fixed.or_else(|| self.free_of(address, wish, now))
    }

    fn free_of(&self, address: &Address, wish: &Wish, now: Instant) -> Option<Block> {
        if now < self.opens_at { None } else { address.lease(wish) }
    }

    /// The block that is the subscriber's for good, leased or not.
    fn fixed(&self, wish: &Wish) -> Option<(&Arc<Address>, u16)> {
        let scope = self.scopes.get(usize::from(wish.scope))?;
        let (permutation, declared) = scope.permuted.as_ref()?;
        self.locate(scope, permutation.apply(declared.number(wish.subscriber)?))
    }

    /// The block at one place of a scope: range by range, address by address.
    fn locate(&self, scope: &Scope, mut place: u64) -> Option<(&Arc<Address>, u16)> {
        for range in scope.ranges.iter().filter_map(|i| self.ranges.get(*i)) {
            let address = range.addresses.first()?;
            let (first, count) = address.allowed_span();
            let all = u64::from(count) * range.addresses.len() as u64;
            if place < all {
                let nth = range.addresses.get((place / u64::from(count)) as usize)?;
                return Some((nth, first + (place % u64::from(count)) as u16));
            }
            place -= all;
        }
        None
    }

    /// Takes over a block that was leased before a restart. `None` when the pool has it not, or not any more.
    pub fn restore(&self, addr: Ipv4Addr, first: u16, size: u16, shard: u8) -> Option<(Arc<Address>, Block)> {
        let address = self.find(addr).filter(|a| a.block_size == size && first.is_multiple_of(size))?;
        let number = first / size;
        let (word, bit) = place(number);
        let fits = address.allowed_in(word) & bit != 0 && !address.is_fixed(number);
        if !fits {
            return None;
        }
        address.claim(number, shard).map(|block| (address.clone(), block))
    }

    /// Whether [`Pool::restore`] could take over this block if it is free.
    pub fn fits(&self, addr: Ipv4Addr, first: u16, size: u16) -> bool {
        let Some(address) = self.find(addr) else { return false };
        if address.block_size != size || !first.is_multiple_of(size) {
            return false;
        }
        let (word, bit) = place(first / size);
        address.allowed_in(word) & bit != 0 && !address.is_fixed(first / size)
    }

    /// Number of blocks, and how many of them are leased, range by range.
    pub fn usage_by_range(&self) -> impl Iterator<Item = (u64, u64)> {
        self.ranges.iter().map(|range| sum(range.addresses.iter()))
    }

    /// Number of blocks, and how many of them are leased, those of draining addresses too.
    pub fn usage(&self) -> (u64, u64) {
        let (blocks, leased) = sum(self.all());
        (blocks, leased + sum(self.draining.iter()).1)
    }

    /// Blocks and leased blocks of a scope once more than [`LOW_PERCENT`] are leased; said once until it has
    /// recovered by a tenth.
    pub fn newly_low(&self, scope: u16) -> Option<(u64, u64)> {
        let books = &self.scopes.get(usize::from(scope))?.books;
        let (blocks, leased) = (books.blocks.load(Ordering::Relaxed), books.leased.load(Ordering::Relaxed));
        if leased * 100 >= blocks * LOW_PERCENT {
            return (!books.low.swap(true, Ordering::Relaxed)).then_some((blocks, leased));
        }
        if leased * 100 < blocks * (LOW_PERCENT - 10) {
            books.low.store(false, Ordering::Relaxed);
        }
        None
    }
}

impl Scope {
    fn new(name: Option<String>, range: usize, old: Option<&Pool>) -> Self {
        let known = old.and_then(|old| old.scopes.iter().find(|s| s.name == name));
        let books = known.map(|s| s.books.clone()).unwrap_or_default();
        Self { name, ranges: vec![range], permuted: None, has_low: false, books }
    }

    /// Counts the blocks, and gives every declared subscriber a place if that is wanted and there are enough.
    fn count(&mut self, settings: &Settings) {
        let size = |range: &Pool4Range| range.block_size.unwrap_or(settings.pool4.block_size);
        let ranges = self.ranges.iter().filter_map(|i| settings.pool4.ranges.get(*i));
        let span = |range: &Pool4Range| span(&range.ports, size(range));
        self.has_low = ranges.clone().any(|range| {
            let (first, count) = span(range);
            count > 0 && u32::from(first) * u32::from(size(range)) < u32::from(FIRST_USER_PORT)
        });
        let blocks = ranges.map(|range| range.prefix.size() * u64::from(span(range).1)).sum();
        self.books.blocks.store(blocks, Ordering::Relaxed);
        let units = settings.units.iter().filter(|u| u.pool == self.name);
        let declared = Declared::new(units, settings.subscriber_len);
        let wanted = settings.pool4.assignment == Assignment::Permuted;
        if wanted && declared.count() <= u128::from(blocks) {
            self.permuted = Some((Permutation::new(settings.key, blocks), declared));
        }
    }
}

/// Place of a block in its scope: the inverse of [`Pool::locate`], before there are addresses.
fn place_of(settings: &Settings, ranges: &[usize], range: usize, nth: usize, number: u16) -> Option<u64> {
    let mut before = 0;
    for i in ranges {
        let at = settings.pool4.ranges.get(*i)?;
        let (first, count) = span(&at.ports, at.block_size.unwrap_or(settings.pool4.block_size));
        if *i == range {
            let inside = number.checked_sub(first).filter(|n| *n < count)?;
            return Some(before + nth as u64 * u64::from(count) + u64::from(inside));
        }
        before += at.prefix.size() * u64::from(count);
    }
    None
}

fn sum<'a>(addresses: impl Iterator<Item = &'a Arc<Address>>) -> (u64, u64) {
    addresses.fold((0, 0), |(blocks, leased), a| {
        let allowed = a.allowed.iter().map(|w| u64::from(w.load(Ordering::Relaxed).count_ones()));
        (blocks + allowed.sum::<u64>(), leased + a.leased_blocks())
    })
}

/// First whole block of a range of ports, and how many there are.
pub fn span(ports: &RangeInclusive<u16>, block_size: u16) -> (u16, u16) {
    let size = u32::from(block_size.max(1));
    let first = u32::from(*ports.start()).div_ceil(size);
    let end = (u32::from(*ports.end()) + 1) / size;
    // Port 0 is nobody's.
    let first = first.max(u32::from(*ports.start() == 0));
    (first as u16, end.saturating_sub(first) as u16)
}

/// Word and bit of a block.
const fn place(number: u16) -> (usize, u64) {
    (number as usize / 64, 1 << (number % 64))
}

impl Address {
    fn new(addr: Ipv4Addr, block_size: u16, books: Arc<Books>, is_fixed: impl Fn(u16) -> bool) -> Self {
        let count = 65_536 / usize::from(block_size.max(1));
        let words = count.div_ceil(64);
        let zeros = || (0..words).map(|_| AtomicU64::new(0)).collect();
        let mut fixed = vec![0; words].into_boxed_slice();
        for number in (0..count as u16).filter(|n| is_fixed(*n)) {
            let (word, bit) = place(number);
            fixed[word] |= bit;
        }
        Self {
            addr,
            block_size,
            shards: (0..count).map(|_| AtomicU8::new(0)).collect(),
            leased: zeros(),
            allowed: zeros(),
            fixed,
            overflow: AtomicU32::new(0),
            books,
        }
    }

    /// Says which blocks may be leased from now on.
    fn allow(&self, ports: Option<&RangeInclusive<u16>>) {
        let (first, count) = ports.map_or((0, 0), |ports| span(ports, self.block_size));
        for (i, word) in self.allowed.iter().enumerate() {
            let bits = (0..64).filter(|bit| {
                let number = i as u32 * 64 + bit;
                (u32::from(first)..u32::from(first) + u32::from(count)).contains(&number)
            });
            word.store(bits.fold(0, |mask, bit| mask | 1 << bit), Ordering::Relaxed);
        }
    }

    /// Ports in a block.
    pub const fn block_size(&self) -> u16 {
        self.block_size
    }

    /// Whether new mappings may be made in `block`.
    pub fn allows(&self, block: &Block) -> bool {
        let (word, bit) = place(block.number);
        self.allowed_in(word) & bit != 0
    }

    /// Leases a free block that will do; which one, nobody can guess.
    fn lease(&self, wish: &Wish) -> Option<Block> {
        loop {
            let free = |(word, mask): (usize, u64)| (word, self.free_in(word) & mask);
            let count: u32 = self.blocks(wish.class).map(|w| free(w).1.count_ones()).sum();
            if count == 0 {
                return None;
            }
            let mut nth = (wish.hash >> 32) as u32 % count;
            let found = self.blocks(wish.class).map(free).find_map(|(word, bits)| {
                if nth < bits.count_ones() {
                    return Some(word as u16 * 64 + nth_bit(bits, nth) as u16);
                }
                nth -= bits.count_ones();
                None
            });
            // Another worker can be faster; then there is one free block less to choose from.
            if let Some(block) = found.and_then(|number| self.claim(number, wish.shard)) {
                return Some(block);
            }
        }
    }

    /// Leases the block of a subscriber's own, if it is free and will do.
    fn claim_fixed(&self, number: u16, wish: &Wish) -> Option<Block> {
        let is_low = u32::from(number) * u32::from(self.block_size) < u32::from(FIRST_USER_PORT);
        let fits = match wish.class {
            Class::Low => is_low,
            Class::High => !is_low,
            Class::Any => true,
        };
        if fits { self.claim(number, wish.shard) } else { None }
    }

    /// Leases this very block, if it is free.
    fn claim(&self, number: u16, shard: u8) -> Option<Block> {
        let (word, bit) = place(number);
        if self.leased.get(word)?.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
            return None;
        }
        if let Some(slot) = self.shards.get(usize::from(number)) {
            slot.store(shard, Ordering::Relaxed);
        }
        self.books.leased.fetch_add(1, Ordering::Relaxed);
        let is_fixed = self.is_fixed(number);
        Some(Block { number, first: number * self.block_size, is_fixed })
    }

    /// Takes a block back.
    pub fn release(&self, block: Block) {
        let (word, bit) = place(block.number);
        if let Some(leased) = self.leased.get(word) {
            leased.fetch_and(!bit, Ordering::Relaxed);
            self.books.leased.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Leases a block for several subscribers to share, while fewer than `max` are.
    pub fn lease_shared(&self, wish: &Wish, max: u16) -> Option<Block> {
        let more = |n: u32| (n < u32::from(max)).then_some(n + 1);
        self.overflow.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        let block = self.lease(wish);
        if block.is_none() {
            self.overflow.fetch_sub(1, Ordering::Relaxed);
        }
        block
    }

    /// Counts a block as shared that was so before a restart.
    pub fn count_shared(&self) {
        self.overflow.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes a shared block back.
    pub fn release_shared(&self, block: Block) {
        self.overflow.fetch_sub(1, Ordering::Relaxed);
        self.release(block);
    }

    fn leased_blocks(&self) -> u64 {
        self.leased.iter().map(|w| u64::from(w.load(Ordering::Relaxed).count_ones())).sum()
    }

    /// First allowed block, and how many there are from it on.
    fn allowed_span(&self) -> (u16, u16) {
        let words = || self.allowed.iter().map(|w| w.load(Ordering::Relaxed));
        let first = words().enumerate().find(|(_, w)| *w != 0);
        let first = first.map_or(0, |(i, w)| i as u32 * 64 + w.trailing_zeros());
        (first as u16, words().map(u64::count_ones).sum::<u32>() as u16)
    }

    fn is_fixed(&self, number: u16) -> bool {
        let (word, bit) = place(number);
        self.fixed.get(word).is_some_and(|w| w & bit != 0)
    }

    fn allowed_in(&self, word: usize) -> u64 {
        self.allowed.get(word).map_or(0, |w| w.load(Ordering::Relaxed))
    }

    fn leased_in(&self, word: usize) -> u64 {
        self.leased.get(word).map_or(0, |w| w.load(Ordering::Relaxed))
    }

    fn free_in(&self, word: usize) -> u64 {
        self.allowed_in(word) & !self.leased_in(word) & !self.fixed.get(word).copied().unwrap_or(u64::MAX)
    }

    /// The words of the blocks of a class, each with a mask of those in it.
    fn blocks(&self, class: Class) -> impl Iterator<Item = (usize, u64)> + use<> {
        let low = u32::from(FIRST_USER_PORT) / u32::from(self.block_size);
        (0..self.allowed.len()).map(move |word| {
            let lower = match low.saturating_sub(word as u32 * 64) {
                0 => 0,
                n if n >= 64 => u64::MAX,
                n => (1 << n) - 1,
            };
            let mask = match class {
                Class::Low => lower,
                Class::High => !lower,
                Class::Any => u64::MAX,
            };
            (word, mask)
        })
    }
}

/// Position of set bit number `nth` (from 0) in `bits`.
pub(super) fn nth_bit(bits: u64, nth: u32) -> u32 {
    let mut left = bits;
    for _ in 0..nth {
        left &= left.wrapping_sub(1);
    }
    left.trailing_zeros()
}

#[cfg(test)]
mod tests;
