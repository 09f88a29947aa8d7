//! What gives way when there is no room: sessions that nobody has answered. What was answered never does.

use super::engine::Engine;
use super::event::Limit;
use super::policy::Eviction;
use super::quota::Item;
use super::session::Waits;
use crate::time::Instant;

/// Unanswered sessions looked at for one that may give way.
const LOOKS: u32 = 16;

/// How a session leaves the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    /// It is over.
    Over,
    /// It makes room, or never found any.
    ForRoom,
}

/// What there is no more of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lack {
    /// A place in the session table.
    Place,
    /// Something of this account: of a network or a unit.
    Of(u32, Item),
}

impl Engine {
    /// A subscriber may have no more since its network or unit has all that it may have: sessions of the same that
    /// nobody answers give way, so that a flood from one host does not keep its neighbours out for as long as its
    /// sessions last. Whoever comes faster than allowed pushes nobody out. False when nothing has changed; mapping
    /// `spared` stays.
    pub(super) fn give_way(&mut self, now: Instant, subscriber: u32, spared: u32, limit: Limit) -> bool {
        let item = match limit {
            Limit::Sessions => Item::Sessions,
            Limit::Unanswered => Item::Unanswered,
            Limit::Ports => Item::Ports,
            Limit::Rate | Limit::Pool | Limit::Table => return false,
        };
        let Some(accounts) = self.subscribers.get(subscriber).map(|s| s.accounts) else { return false };
        if !accounts.iter().all(|account| self.accounts.has_rate(*account, now)) {
            return false;
        }
        let mut any = false;
        for account in accounts {
            if !self.accounts.has(account, item) {
                if !self.evict(spared, Lack::Of(account, item)) {
                    return false;
                }
                any = true;
            }
        }
        any
    }

    /// Ends the session that waits longest for an answer and may give way. Looks at few, so that it takes the same
    /// time however many wait. Mapping `spared` stays.
    pub(super) fn evict(&mut self, spared: u32, lack: Lack) -> bool {
        if self.settings.quotas.eviction == Eviction::Off {
            return false;
        }
        for _ in 0..LOOKS {
            let Some(slot) = self.unanswered.pop() else { return false };
            if !self.is_waiting(slot) {
                continue;
            }
            if self.may_give_way(slot, spared, lack) {
                self.evicted += 1;
                self.displace_session(slot);
                return true;
            }
            self.unanswered.put_back(slot);
        }
        false
    }

    fn is_waiting(&self, slot: u32) -> bool {
        self.sessions.get(slot).is_some_and(|s| s.waits != Waits::Nobody)
    }

    fn may_give_way(&self, slot: u32, spared: u32, lack: Lack) -> bool {
        let Some(session) = self.sessions.get(slot) else { return false };
        let Some(binding) = self.bib.get(session.bib) else { return false };
        let accounts = self.subscribers.get(binding.subscriber).map(|s| s.accounts);
        let keeps_mapping = binding.sessions > 1 || binding.is_static();
        let helps = match lack {
            // Its place must be one that all share, or nothing is gained.
            Lack::Place => accounts.is_none_or(|[_, unit]| !self.accounts.is_within_reserve(unit)),
            Lack::Of(account, Item::Ports) => {
                !keeps_mapping && accounts.is_some_and(|a| a.contains(&account))
            }
            Lack::Of(account, Item::Sessions | Item::Unanswered) => {
                accounts.is_some_and(|a| a.contains(&account))
            }
        };
        let may = match self.settings.quotas.eviction {
            Eviction::Off => false,
            Eviction::Sessions => keeps_mapping,
            Eviction::Mappings => keeps_mapping || session.bib != spared,
        };
        helps && may
    }
}
