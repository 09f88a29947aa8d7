//! What one worker does with its leased blocks: which port of which block is taken, for each protocol, which rests,
//! and which block goes back to the pool.

mod rest;
mod retake;

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use super::journal::{Held, Journal, Owner, Row};
use super::policy::{FIRST_USER_PORT, Pairing, PortPolicy};
use super::pool4::{Address, Block, Class, Pool, Wish, nth_bit};
use super::settings::{Key, Protocol};
use super::slab::{NIL, Slab};
use super::steer::{SHARDS, keyed};
use crate::time::Instant;

/// Even places of a word.
const EVEN: u64 = 0x5555_5555_5555_5555;
/// How late a worker at rest learns the time: ports rest that much longer.
const LATE: Duration = Duration::from_millis(250);

/// The blocks that the subscribers of one worker have leased.
pub struct Leases {
    leases: Slab<Lease>,
    /// One bit for each port, `words` words for each protocol of each lease.
    taken: Box<[u64]>,
    words: usize,
    /// What each subscriber has, by its slot.
    lists: Box<[List]>,
    /// Blocks that are shared, by shard.
    shared: Box<[u32]>,
    /// Freed ports that rest, those that rested longest first.
    resting: VecDeque<(Instant, PortLease)>,
    max_resting: usize,
    /// Blocks in which nothing was taken when they came in here, each at most once.
    idle: VecDeque<(Instant, u32)>,
    journal: Option<Arc<Journal>>,
    now: Instant,
}

#[derive(Clone, Copy)]
struct List {
    head: u32,
    blocks: u16,
}

struct Lease {
    address: Arc<Address>,
    block: Block,
    used: [u16; 3],
    next: u32,
    /// Slot of the subscriber; none when the block is shared.
    subscriber: u32,
    owner: Owner,
    /// Until when it stays although nothing in it is taken.
    stays_until: Instant,
    is_in_idle: bool,
}

/// A taken port (or ICMP identifier) of one protocol. Given back exactly once, by [`Leases::give_back`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct PortLease {
    lease: u32,
    offset: u16,
    protocol: Protocol,
    /// Whether anybody ever answered its client.
    is_answered: bool,
}

impl PortLease {
    /// Somebody has answered the client that has it.
    pub const fn note_answer(&mut self) {
        self.is_answered = true;
    }
}

/// Why there is no port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPort {
    /// Neither its own blocks nor the pool have one for this subscriber.
    Exhausted,
    /// It has as many blocks as it may have, and they are full.
    Quota,
    /// This worker's table of leases is full.
    TableFull,
}

/// Who asks for a port.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Slot of the subscriber.
    pub subscriber: u32,
    /// The same as the bits of its prefix.
    pub prefix: u128,
    /// Its shard.
    pub shard: u8,
    /// Its part of the pool.
    pub scope: u16,
    /// Most blocks it may have; 0 is no limit.
    pub max_blocks: u16,
    /// Client address, as bits.
    pub client: u128,
    /// Client port or identifier.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// A port that was found, and the block that was leased for it.
#[derive(Debug, PartialEq, Eq)]
pub struct Taken {
    /// The port.
    pub port: PortLease,
    /// The new block, if there is one.
    pub block: Option<Held>,
}

/// What a port must be like.
#[derive(Clone, Copy)]
struct Want {
    class: Class,
    /// Its lowest bit.
    parity: Option<u16>,
    /// The place inside the block to try first; otherwise the hash says.
    place: Option<u16>,
    hash: u64,
    protocol: Protocol,
}

/// What [`Leases::take`] goes by.
struct Ground<'a> {
    pool: &'a Pool,
    policy: &'a PortPolicy,
    hash: u64,
}

impl Leases {
    /// Room for `capacity` leased blocks of up to `block_size` ports of `subscribers` subscribers, and for
    /// `max_resting` ports that rest.
    pub fn new(capacity: u32, block_size: u16, subscribers: u32, max_resting: u32) -> Self {
        let words = usize::from(block_size).div_ceil(64);
        let max_resting = max_resting as usize;
        Self {
            leases: Slab::new(capacity),
            taken: vec![0; capacity as usize * 3 * words].into_boxed_slice(),
            words,
            lists: vec![List { head: NIL, blocks: 0 }; subscribers as usize].into_boxed_slice(),
            shared: vec![NIL; SHARDS].into_boxed_slice(),
            resting: VecDeque::with_capacity(max_resting),
            max_resting,
            idle: VecDeque::with_capacity(capacity as usize),
            journal: None,
            now: Instant::ZERO,
        }
    }

    /// From now on every block that is leased or given back is written down.
    pub fn set_journal(&mut self, journal: Arc<Journal>) {
        self.journal = Some(journal);
    }

    /// Tells the time.
    pub fn set_now(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// The time that it was last told.
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// Takes a port for `request`: of the subscriber's blocks, or of a further one of the same address (G-02: a
    /// subscriber keeps its address), or of a shared one. Parity and range are given up before that fails.
    pub fn take(
        &mut self,
        request: &Request,
        pool: &Pool,
        policy: &PortPolicy,
        key: &Key,
    ) -> Result<Taken, NoPort> {
        let hash = keyed(key, &(request.client, u64::from(request.port) << 8 | request.protocol as u64));
        let ground = Ground { pool, policy, hash: keyed(key, &request.prefix) };
        let is_port = request.protocol != Protocol::Icmp;
        let class = match (policy.range && is_port && pool.has_low(request.scope), request.port) {
            (false, _) => Class::Any,
            (true, ..FIRST_USER_PORT) => Class::Low,
            (true, _) => Class::High,
        };
        let strict = Want {
            class,
            parity: (policy.parity && request.protocol == Protocol::Udp).then_some(request.port & 1),
            place: policy.preserve.then_some(request.port),
            hash,
            protocol: request.protocol,
        };
        if let Some(port) = self.take_held(request, &strict) {
            return Ok(Taken { port, block: None });
        }
        let mut refused = match self.take_new(request, &strict, &ground) {
            Ok(taken) => return Ok(taken),
            Err(refused) => refused,
        };
        for loose in [Want { parity: None, ..strict }, Want { parity: None, class: Class::Any, ..strict }] {
            if let Some(port) = self.take_held(request, &loose) {
                return Ok(Taken { port, block: None });
            }
        }
        let any = Want { parity: None, class: Class::Any, ..strict };
        if class != Class::Any {
            match self.take_new(request, &any, &ground) {
                Ok(taken) => return Ok(taken),
                Err(again) => refused = again,
            }
        }
        if let Some(taken) = self.take_shared(request, &any, &ground) {
            return Ok(taken);
        }
        Err(refused)
    }

    /// A port of the blocks that the subscriber has.
    fn take_held(&mut self, request: &Request, want: &Want) -> Option<PortLease> {
        let mut at = self.lists.get(request.subscriber as usize)?.head;
        while let Some(lease) = self.leases.get(at) {
            let next = lease.next;
            if let Some(port) = self.take_in(at, want) {
                return Some(port);
            }
            at = next;
        }
        None
    }

    /// A port of a further block.
    fn take_new(&mut self, request: &Request, want: &Want, ground: &Ground<'_>) -> Result<Taken, NoPort> {
        let list = self.lists.get(request.subscriber as usize).ok_or(NoPort::TableFull)?;
        if request.max_blocks > 0 && list.blocks >= request.max_blocks {
            return Err(NoPort::Quota);
        }
        if self.leases.len() == self.leases.capacity() {
            return Err(NoPort::TableFull);
        }
        let wish = wish(request, want.class, ground);
        let paired = self.paired(request.subscriber).cloned();
        let at_same =
            paired.as_ref().and_then(|a| Some((a.clone(), ground.pool.lease_at(a, &wish, self.now)?)));
        let may_move = paired.is_none() || ground.policy.pairing == Pairing::Soft;
        let found = at_same.or_else(|| if may_move { ground.pool.lease(&wish, self.now) } else { None });
        let (address, block) = found.ok_or(NoPort::Exhausted)?;
        let owner = Owner::Subscriber(request.prefix);
        let at = self.keep(address, block, owner, request.subscriber).ok_or(NoPort::Exhausted)?;
        let held = self.held(at);
        match self.take_in(at, want) {
            Some(port) => Ok(Taken { port, block: held }),
            // Cannot be: every block has ports of both parities.
            None => Err(NoPort::Exhausted),
        }
    }

    /// A port of the blocks that the subscribers of a shard share when they have their most. Only at the address of
    /// the subscriber, unless pairing is soft.
    fn take_shared(&mut self, request: &Request, want: &Want, ground: &Ground<'_>) -> Option<Taken> {
        if ground.policy.overflow_blocks == 0 || request.max_blocks == 0 {
            return None;
        }
        let paired = self.paired(request.subscriber)?.clone();
        let mut at = *self.shared.get(usize::from(request.shard))?;
        while let Some(lease) = self.leases.get(at) {
            let next = lease.next;
            let will_do = ground.policy.pairing == Pairing::Soft || Arc::ptr_eq(&lease.address, &paired);
            if will_do && let Some(port) = self.take_in(at, want) {
                return Some(Taken { port, block: None });
            }
            at = next;
        }
        if self.leases.len() == self.leases.capacity() {
            return None;
        }
        let wish = wish(request, want.class, ground);
        let block = paired.lease_shared(&wish, ground.policy.overflow_blocks)?;
        let at = self.keep(paired, block, Owner::Shard(request.shard), NIL)?;
        let held = self.held(at);
        Some(Taken { port: self.take_in(at, want)?, block: held })
    }

    /// The address that the subscriber is paired with: that of its oldest block that is not being taken away.
    fn paired(&self, subscriber: u32) -> Option<&Arc<Address>> {
        let mut at = self.lists.get(subscriber as usize)?.head;
        while let Some(lease) = self.leases.get(at) {
            if lease.address.allows(&lease.block) {
                return Some(&lease.address);
            }
            at = lease.next;
        }
        None
    }

    /// Writes a new lease down and puts it into its list. `None`, and the block is free again, when the journal has
    /// no room.
    fn keep(&mut self, address: Arc<Address>, block: Block, owner: Owner, subscriber: u32) -> Option<u32> {
        let held = held_of(&address, &block, owner);
        let too_large = usize::from(address.block_size()) > self.words * 64;
        if too_large || (!block.is_fixed && !self.write(true, held)) {
            give_up(&address, block, owner);
            return None;
        }
        self.insert(address, block, owner, subscriber)
    }

    fn insert(&mut self, address: Arc<Address>, block: Block, owner: Owner, subscriber: u32) -> Option<u32> {
        let (used, stays_until, is_in_idle) = ([0; 3], self.now, false);
        let lease = Lease { address, block, used, next: NIL, subscriber, owner, stays_until, is_in_idle };
        match self.leases.insert(lease) {
            Ok(at) => {
                self.append(at, owner, subscriber);
                Some(at)
            }
            Err(Lease { address, block, owner, .. }) => {
                give_up(&address, block, owner);
                None
            }
        }
    }

    /// Puts a lease at the end of its list: the oldest block is filled first, so that later ones come free again.
    fn append(&mut self, at: u32, owner: Owner, subscriber: u32) {
        let head = match owner {
            Owner::Subscriber(_) => self.lists.get_mut(subscriber as usize).map(|list| {
                list.blocks += 1;
                &mut list.head
            }),
            Owner::Shard(shard) => self.shared.get_mut(usize::from(shard)),
        };
        let Some(head) = head else { return };
        if *head == NIL {
            *head = at;
            return;
        }
        let mut last = *head;
        while let Some(lease) = self.leases.get_mut(last) {
            if lease.next == NIL {
                lease.next = at;
                return;
            }
            last = lease.next;
        }
    }

    /// Takes over a block from before a restart. Nothing in it is taken; it stays for `stay`.
    pub fn restore(&mut self, held: &Held, subscriber: u32, shard: u8, pool: &Pool, stay: Duration) -> bool {
        let Some((address, block)) = pool.restore(held.addr, held.first, held.size, shard) else {
            return false;
        };
        if matches!(held.owner, Owner::Shard(_)) {
            address.count_shared();
        }
        let Some(at) = self.insert(address, block, held.owner, subscriber) else { return false };
        self.rest_block(at, stay);
        true
    }

    /// Address and port of a lease.
    pub fn transport(&self, port: &PortLease) -> Option<(Ipv4Addr, u16)> {
        let lease = self.leases.get(port.lease)?;
        Some((lease.address.addr, lease.block.first + port.offset))
    }

    /// The pool address that a lease is of.
    pub fn address(&self, port: &PortLease) -> Option<&Arc<Address>> {
        self.leases.get(port.lease).map(|lease| &lease.address)
    }

    /// Number of blocks of a subscriber.
    pub fn blocks_of(&self, subscriber: u32) -> u16 {
        self.lists.get(subscriber as usize).map_or(0, |list| list.blocks)
    }

    /// Number of leased blocks.
    #[allow(clippy::len_without_is_empty)]
    pub const fn len(&self) -> u32 {
        self.leases.len()
    }

    /// Ports that rest.
    pub fn resting(&self) -> usize {
        self.resting.len()
    }

    /// Bytes of memory.
    pub const fn bytes(&self) -> usize {
        self.leases.bytes()
            + self.taken.len() * 8
            + self.lists.len() * size_of::<List>()
            + self.max_resting * size_of::<(Instant, PortLease)>()
            + self.leases.capacity() as usize * size_of::<(Instant, u32)>()
    }

    fn held(&self, at: u32) -> Option<Held> {
        let lease = self.leases.get(at)?;
        Some(held_of(&lease.address, &lease.block, lease.owner))
    }

    fn write(&self, is_leased: bool, block: Held) -> bool {
        let row = Row { at: self.now, is_leased, block };
        self.journal.as_ref().is_none_or(|journal| journal.push(row).is_ok())
    }

    /// Takes a lease out of its list and gives its block to the pool; says whose it was.
    fn unlink(&mut self, at: u32) -> Option<u32> {
        let Lease { address, block, next, subscriber, owner, .. } = self.leases.remove(at)?;
        give_up(&address, block, owner);
        let head = match owner {
            Owner::Subscriber(_) => {
                let list = self.lists.get_mut(subscriber as usize)?;
                list.blocks -= 1;
                &mut list.head
            }
            Owner::Shard(shard) => self.shared.get_mut(usize::from(shard))?,
        };
        if *head == at {
            *head = next;
            return Some(subscriber);
        }
        let mut before = *head;
        while let Some(lease) = self.leases.get_mut(before) {
            if lease.next == at {
                lease.next = next;
                break;
            }
            before = lease.next;
        }
        Some(subscriber)
    }

    /// A free port of lease `at`: the one that the hash names, so that it is unpredictable (RFC 6056) and repeatable;
    /// when that is taken, any of the free ones is equally likely.
    fn take_in(&mut self, at: u32, want: &Want) -> Option<PortLease> {
        let lease = self.leases.get(at)?;
        let is_low = lease.block.first < FIRST_USER_PORT;
        let fits = match want.class {
            Class::Low => is_low,
            Class::High => !is_low,
            Class::Any => true,
        };
        let size = lease.address.block_size();
        if !fits || lease.used[want.protocol as usize] >= size || !lease.address.allows(&lease.block) {
            return None;
        }
        // Blocks lie at multiples of their size, so a port has the parity of its place.
        let (mask, first) = match (want.parity, want.place) {
            (None, None) => (u64::MAX, want.hash % u64::from(size)),
            (None, Some(place)) => (u64::MAX, u64::from(place % size)),
            (Some(0), None) => (EVEN, want.hash % u64::from(size / 2) * 2),
            (Some(_), None) => (!EVEN, want.hash % u64::from(size / 2) * 2 + 1),
            (Some(parity), Some(place)) => (if parity == 0 { EVEN } else { !EVEN }, u64::from(place % size)),
        };
        let words = self.words_of(at, want.protocol);
        let taken = self.taken.get_mut(words.start..words.start + usize::from(size).div_ceil(64))?;
        let offset = choose(taken, first as usize, mask, want.hash >> 32)?;
        taken[offset / 64] |= 1 << (offset % 64);
        self.leases.get_mut(at)?.used[want.protocol as usize] += 1;
        Some(PortLease { lease: at, offset: offset as u16, protocol: want.protocol, is_answered: false })
    }

    fn words_of(&self, lease: u32, protocol: Protocol) -> std::ops::Range<usize> {
        let first = (lease as usize * 3 + protocol as usize) * self.words;
        first..first + self.words
    }
}

fn wish(request: &Request, class: Class, ground: &Ground<'_>) -> Wish {
    let Request { scope, shard, prefix: subscriber, .. } = *request;
    Wish { scope, subscriber, shard, hash: ground.hash, class }
}

const fn held_of(address: &Address, block: &Block, owner: Owner) -> Held {
    Held { addr: address.addr, first: block.first, size: address.block_size(), owner }
}

fn give_up(address: &Address, block: Block, owner: Owner) {
    match owner {
        Owner::Subscriber(_) => address.release(block),
        Owner::Shard(_) => address.release_shared(block),
    }
}

/// Place `first` if it is clear, otherwise any clear bit of those in `mask` (the same for each word): the one that
/// `lot` draws.
fn choose(taken: &[u64], first: usize, mask: u64, lot: u64) -> Option<usize> {
    if taken.get(first / 64)? & 1 << (first % 64) == 0 {
        return Some(first);
    }
    let count: u32 = taken.iter().map(|w| (!w & mask).count_ones()).sum();
    let mut nth = u32::try_from(lot.checked_rem(count.into())?).ok()?;
    for (i, word) in taken.iter().enumerate() {
        let free = !word & mask;
        if nth < free.count_ones() {
            return Some(i * 64 + nth_bit(free, nth) as usize);
        }
        nth -= free.count_ones();
    }
    None
}

#[cfg(test)]
mod tests;
