//! Quotas above the subscriber: of a /64 and of a unit, whose hosts are spread over all workers.
//!
//! A worker never counts in shared memory packet by packet. It leases credits from the [`Ledger`] in batches, spends
//! them by itself, and gives back what it has too many of; so all workers together never spend more than the quota,
//! and may refuse at most [`SLACK_PERCENT`] percent before it.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::quality::FixedState;

use super::index::Index;
use super::policy::Quota;
use super::slab::Slab;
use crate::time::Instant;

/// How much of a quota can lie unused with other workers.
pub const SLACK_PERCENT: u32 = 25;
/// Parts of the ledger, so that workers rarely meet.
const PARTS: usize = 64;

/// Who has a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Account {
    /// A /64, as the upper bits of its prefix.
    Network(u64),
    /// A unit, as a number made of its name.
    Unit(u64),
}

impl Account {
    /// The account of the unit with this name, whatever place it has in the file (FNV-1a).
    pub fn unit(name: &str) -> Self {
        let mix = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        Self::Unit(name.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, mix))
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Item {
    /// Ports and identifiers.
    Ports,
    /// Sessions.
    Sessions,
    /// Sessions that nobody has answered.
    Unanswered,
}

const ITEMS: usize = 3;

const fn limit(quota: &Quota, item: Item) -> u32 {
    match item {
        Item::Ports => quota.ports,
        Item::Sessions => quota.sessions,
        Item::Unanswered => quota.unanswered,
    }
}

/// What all workers together have leased.
pub struct Ledger {
    parts: Box<[Mutex<HashMap<Account, Leased, FixedState>>]>,
    room: usize,
    workers: u32,
}

#[derive(Default)]
struct Leased {
    credits: [u32; ITEMS],
    new: Tokens,
}

/// New sessions per second: a bucket that holds one second's worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    tokens: u32,
    at: Option<Instant>,
}

impl Tokens {
    /// Takes up to `wanted` tokens of `per_second`; says how many there were.
    pub fn take(&mut self, now: Instant, per_second: u32, wanted: u32) -> u32 {
        let since = self.at.map(|at| now.since(at).as_nanos());
        let new =
            since.map_or(u128::from(per_second), |nanos| nanos * u128::from(per_second) / 1_000_000_000);
        if new > 0 {
            let all = u128::from(self.tokens) + new;
            (self.tokens, self.at) = (all.min(per_second.into()) as u32, Some(now));
        }
        let taken = wanted.min(self.tokens);
        self.tokens -= taken;
        taken
    }
}

impl Ledger {
    /// A ledger for `accounts` accounts and `workers` workers.
    pub fn new(accounts: u32, workers: u16) -> Self {
        let room = accounts as usize / PARTS * 2 + 64;
        // Twice the room, so that the map tidies itself up in place.
        let part = || Mutex::new(HashMap::with_capacity_and_hasher(room * 2, FixedState::default()));
        Self { parts: (0..PARTS).map(|_| part()).collect(), room, workers: workers.max(1).into() }
    }

    /// Credits that one worker leases at a time.
    fn batch(&self, limit: u32) -> u32 {
        (limit / (self.workers * 100 / SLACK_PERCENT) / 2).clamp(1, 256)
    }

    fn with<R>(&self, account: Account, what: impl FnOnce(&mut Leased) -> R) -> Option<R> {
        let part = (FixedState::default().hash_one(account) >> 32) as usize % PARTS;
        // A panic while it was held left whole numbers.
        let mut part = self.parts.get(part)?.lock().unwrap_or_else(PoisonError::into_inner);
        if part.len() >= self.room && !part.contains_key(&account) {
            return None;
        }
        let leased = part.entry(account).or_default();
        let out = what(leased);
        if leased.credits == [0; ITEMS] && leased.new == Tokens::default() {
            part.remove(&account);
        }
        Some(out)
    }

    fn lease(&self, account: Account, item: Item, wanted: u32, limit: u32) -> u32 {
        let granted = self.with(account, |leased| {
            let out = &mut leased.credits[item as usize];
            let granted = wanted.min(limit.saturating_sub(*out));
            *out += granted;
            granted
        });
        granted.unwrap_or(0)
    }

    fn give_back(&self, account: Account, credits: [u32; ITEMS]) {
        self.with(account, |leased| {
            for (out, back) in leased.credits.iter_mut().zip(credits) {
                *out = out.saturating_sub(back);
            }
            if leased.credits == [0; ITEMS] {
                leased.new = Tokens::default();
            }
        });
    }

    /// Credits of all accounts that some worker has.
    pub fn leased(&self) -> u64 {
        let sum = |part: &Mutex<HashMap<Account, Leased, FixedState>>| -> u64 {
            let part = part.lock().unwrap_or_else(PoisonError::into_inner);
            part.values().flat_map(|l| l.credits).map(u64::from).sum()
        };
        self.parts.iter().map(sum).sum()
    }
}

/// The accounts that the subscribers of one worker belong to.
pub struct Accounts {
    slots: Slab<Local>,
    index: Index,
    hash: FixedState,
    ledger: Arc<Ledger>,
}

struct Local {
    account: Account,
    quota: Quota,
    reserve: u32,
    users: u32,
    used: [u32; ITEMS],
    credits: [u32; ITEMS],
    tokens: u32,
}

impl Accounts {
    /// Room for `capacity` accounts.
    pub fn new(capacity: u32, ledger: Arc<Ledger>, seed: u64) -> Self {
        let hash = FixedState::with_seed(seed);
        Self { slots: Slab::new(capacity), index: Index::new(capacity), hash, ledger }
    }

    /// Shares a ledger with the other workers. Before the first account is opened.
    pub fn set_ledger(&mut self, ledger: Arc<Ledger>) {
        self.ledger = ledger;
    }

    /// Opens an account for one more subscriber. `None` when there is no room.
    pub fn open(&mut self, account: Account, quota: Quota, reserve: u32) -> Option<u32> {
        let hash = self.hash.hash_one(account);
        let slots = &mut self.slots;
        if let Some(slot) =
            self.index.find(hash, |slot| slots.get(slot).is_some_and(|l| l.account == account))
        {
            slots.get_mut(slot)?.users += 1;
            return Some(slot);
        }
        let (used, credits) = ([0; ITEMS], [0; ITEMS]);
        let slot =
            slots.insert(Local { account, quota, reserve, users: 1, used, credits, tokens: 0 }).ok()?;
        if self.index.insert(hash, slot) {
            return Some(slot);
        }
        slots.remove(slot);
        None
    }

    /// One subscriber less. With the last one all credits go back.
    pub fn close(&mut self, slot: u32) {
        let Some(local) = self.slots.get_mut(slot) else { return };
        local.users -= 1;
        if local.users > 0 {
            return;
        }
        if let Some(Local { account, credits, .. }) = self.slots.remove(slot) {
            self.ledger.give_back(account, credits);
            self.index.remove(self.hash.hash_one(account), slot);
        }
    }

    /// Counts one more, if the quota has it.
    pub fn charge(&mut self, slot: u32, item: Item) -> bool {
        let has = self.has(slot, item);
        if has && let Some(local) = self.slots.get_mut(slot) {
            local.used[item as usize] += 1;
        }
        has
    }

    /// Whether the quota has one more.
    pub fn has(&mut self, slot: u32, item: Item) -> bool {
        let Some(local) = self.slots.get_mut(slot) else { return true };
        let (limit, i) = (limit(&local.quota, item), item as usize);
        if limit > 0 && local.used[i] >= local.credits[i] {
            let missing = local.used[i] + 1 - local.credits[i];
            let wanted = missing.max(self.ledger.batch(limit));
            local.credits[i] += self.ledger.lease(local.account, item, wanted, limit);
        }
        limit == 0 || local.used[i] < local.credits[i]
    }

    /// Counts one less.
    pub fn refund(&mut self, slot: u32, item: Item) {
        let Some(local) = self.slots.get_mut(slot) else { return };
        let i = item as usize;
        local.used[i] -= 1;
        let spare = local.credits[i].saturating_sub(local.used[i]);
        let batch = self.ledger.batch(limit(&local.quota, item));
        if spare > 2 * batch || local.credits[i] > 0 && limit(&local.quota, item) == 0 {
            let mut back = [0; ITEMS];
            back[i] = spare - batch.min(spare);
            local.credits[i] -= back[i];
            self.ledger.give_back(local.account, back);
        }
    }

    /// Counts a new session, if the rate has it.
    pub fn charge_rate(&mut self, slot: u32, now: Instant) -> bool {
        let has = self.has_rate(slot, now);
        if has && let Some(local) = self.slots.get_mut(slot) {
            local.tokens = local.tokens.saturating_sub(1);
        }
        has
    }

    /// Whether the rate has one more new session.
    pub fn has_rate(&mut self, slot: u32, now: Instant) -> bool {
        let Some(local) = self.slots.get_mut(slot) else { return true };
        let rate = local.quota.new_per_second;
        if rate > 0 && local.tokens == 0 {
            let wanted = self.ledger.batch(rate);
            let taken = self.ledger.with(local.account, |leased| leased.new.take(now, rate, wanted));
            local.tokens = taken.unwrap_or(0);
        }
        rate == 0 || local.tokens > 0
    }

    /// Whether all sessions of the account lie in places that are kept free for it.
    pub fn is_within_reserve(&self, slot: u32) -> bool {
        self.slots.get(slot).is_some_and(|l| l.used[Item::Sessions as usize] <= l.reserve)
    }

    /// Sets quota and reserve of every account anew.
    pub fn update(&mut self, quota: impl Fn(Account) -> (Quota, u32)) {
        for slot in 0..self.slots.touched() {
            if let Some(local) = self.slots.get_mut(slot) {
                (local.quota, local.reserve) = quota(local.account);
            }
        }
    }

    /// Sessions in reserved places.
    pub fn reserved_used(&self) -> u32 {
        let locals = (0..self.slots.touched()).filter_map(|slot| self.slots.get(slot));
        locals.map(|l| l.used[Item::Sessions as usize].min(l.reserve)).sum()
    }

    /// Number of accounts.
    #[allow(clippy::len_without_is_empty)]
    pub const fn len(&self) -> u32 {
        self.slots.len()
    }

    /// Bytes of memory.
    pub const fn bytes(&self) -> usize {
        self.slots.bytes() + self.index.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const A: Account = Account::Network(1);

    fn quota(sessions: u32) -> Quota {
        Quota { sessions, ..Quota::default() }
    }

    #[test]
    fn o08_workers_together_never_spend_more_than_the_quota_and_little_less() {
        for limit in [1, 7, 100, 10_000] {
            let ledger = Arc::new(Ledger::new(16, 4));
            let mut workers: Vec<_> = (0..4).map(|i| Accounts::new(16, ledger.clone(), i)).collect();
            let slots: Vec<_> = workers.iter_mut().map(|w| w.open(A, quota(limit), 0).unwrap()).collect();
            let mut spent = [0; 4];
            // One worker fills up, then the others get what is left.
            for round in 0..limit as usize * 4 {
                let w = if round < limit as usize { 0 } else { round % 4 };
                spent[w] += u32::from(workers[w].charge(slots[w], Item::Sessions));
            }
            assert_eq!(spent.iter().sum::<u32>(), limit);
            // Credits that lie unused elsewhere are few.
            for _ in 0..spent[0] {
                workers[0].refund(slots[0], Item::Sessions);
            }
            let mut other = 0;
            while workers[3].charge(slots[3], Item::Sessions) {
                other += 1;
            }
            let least = spent[0].saturating_sub(3 + spent[0] * SLACK_PERCENT / 100);
            assert!(other >= least, "{other} of {} after {spent:?}", spent[0]);
            for (worker, slot) in workers.iter_mut().zip(slots) {
                worker.close(slot);
            }
            assert_eq!(ledger.leased(), 0);
        }
    }

    #[test]
    fn a_quota_that_shrinks_lets_nothing_new_in_until_it_is_met() {
        let mut accounts = Accounts::new(16, Arc::new(Ledger::new(16, 1)), 1);
        let slot = accounts.open(A, Quota::default(), 0).unwrap();
        assert!((0..100).all(|_| accounts.charge(slot, Item::Sessions)));
        accounts.update(|_| (quota(50), 0));
        assert!(!accounts.charge(slot, Item::Sessions));
        for _ in 0..51 {
            accounts.refund(slot, Item::Sessions);
        }
        assert!(accounts.charge(slot, Item::Sessions) && !accounts.charge(slot, Item::Sessions));
    }

    #[test]
    fn h05_a_rate_is_a_rate() {
        let mut tokens = Tokens::default();
        let mut taken = 0;
        for millis in 0..10_000u64 {
            taken += tokens.take(Instant::ZERO + Duration::from_millis(millis), 100, 1);
        }
        // One second's worth at once, and then a hundred each second.
        assert!((1090..=1100).contains(&taken), "{taken}");
    }

    #[test]
    fn names_make_accounts() {
        assert_eq!(Account::unit("a"), Account::unit("a"));
        assert_ne!(Account::unit("a"), Account::unit("b"));
    }
}
