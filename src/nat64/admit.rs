//! Who may have one more session, and what gives way when there is no room: quotas of subscriber, network and unit,
//! places that are kept free for units.

use std::net::Ipv6Addr;

use super::binding::reason;
use super::engine::Engine;
use super::event::{BindingEnds, Event, Limit, SessionEnds};
use super::evict::Lack;
use super::quota::Item;
use super::session::{Session, Waits};
use crate::time::Instant;
use crate::verdict::DropReason;

impl Engine {
    /// Charges one session more of binding `bib` to everybody who has a quota, and makes room for it.
    pub(super) fn admit(&mut self, now: Instant, bib: u32, waits: Waits) -> Result<(), DropReason> {
        self.try_admit(now, bib, waits).map_err(|limit| {
            let client = self.bib.get(bib).map_or(Ipv6Addr::UNSPECIFIED, |b| b.src6);
            self.events.push(now, Event::LimitHit { limit, client });
            reason(limit)
        })
    }

    fn try_admit(&mut self, now: Instant, bib: u32, waits: Waits) -> Result<(), Limit> {
        let slot = self.bib.get(bib).map(|b| b.subscriber);
        let Some(subscriber) = slot.and_then(|slot| self.subscribers.get_mut(slot)) else {
            return self.make_room(bib, None);
        };
        if waits == Waits::Nobody {
            return slot.map_or(Ok(()), |slot| self.readmit(bib, slot));
        }
        let quota = self.settings.quotas.subscriber;
        // Strangers cannot use up what the client needs for its own: half is kept for what it starts itself.
        let most = |limit: u32| if waits == Waits::V6 { limit.div_ceil(2) } else { limit };
        if quota.sessions > 0 && subscriber.sessions >= most(quota.sessions) {
            return Err(Limit::Sessions);
        }
        if quota.unanswered > 0 && subscriber.unanswered >= most(quota.unanswered) {
            return Err(Limit::Unanswered);
        }
        if quota.new_per_second > 0 && subscriber.new.take(now, quota.new_per_second, 1) == 0 {
            return Err(Limit::Rate);
        }
        let accounts = subscriber.accounts;
        if let Err(limit) = self.charge(now, accounts) {
            if !slot.is_some_and(|slot| self.give_way(now, slot, bib, limit)) {
                return Err(limit);
            }
            self.charge(now, accounts)?;
        }
        let made = self.make_room(bib, Some(accounts[1]));
        if made.is_err() {
            accounts.iter().for_each(|a| self.refund(*a, true));
            return made;
        }
        if let Some(subscriber) = slot.and_then(|slot| self.subscribers.get_mut(slot)) {
            subscriber.sessions += 1;
            subscriber.unanswered += 1;
        }
        Ok(())
    }

    /// Charges a session of before a restart: it is neither new nor does it wait for an answer.
    fn readmit(&mut self, bib: u32, slot: u32) -> Result<(), Limit> {
        let most = self.settings.quotas.subscriber.sessions;
        let Some(subscriber) = self.subscribers.get_mut(slot) else { return Err(Limit::Table) };
        if most > 0 && subscriber.sessions >= most {
            return Err(Limit::Sessions);
        }
        subscriber.sessions += 1;
        let [network, unit] = subscriber.accounts;
        let made = if !self.accounts.charge(network, Item::Sessions) {
            Err(Limit::Sessions)
        } else if !self.accounts.charge(unit, Item::Sessions) {
            self.accounts.refund(network, Item::Sessions);
            Err(Limit::Sessions)
        } else {
            self.make_room(bib, Some(unit)).inspect_err(|_| {
                self.refund(network, false);
                self.refund(unit, false);
            })
        };
        if made.is_err()
            && let Some(subscriber) = self.subscribers.get_mut(slot)
        {
            subscriber.sessions -= 1;
        }
        made
    }

    /// Whether the quotas of the network and the unit of `subscriber` have one more session that the client begins.
    /// Nothing is charged.
    pub(super) fn may_have_session(&mut self, now: Instant, subscriber: u32) -> Result<(), Limit> {
        let Some(subscriber) = self.subscribers.get(subscriber) else { return Err(Limit::Table) };
        for account in subscriber.accounts {
            if !self.accounts.has(account, Item::Sessions) {
                return Err(Limit::Sessions);
            }
            if !self.accounts.has(account, Item::Unanswered) {
                return Err(Limit::Unanswered);
            }
            if !self.accounts.has_rate(account, now) {
                return Err(Limit::Rate);
            }
        }
        Ok(())
    }

    /// Charges a session to both accounts, or to none.
    fn charge(&mut self, now: Instant, accounts: [u32; 2]) -> Result<(), Limit> {
        for (i, account) in accounts.into_iter().enumerate() {
            let charged = self.charge_one(now, account);
            if charged.is_err() {
                accounts.iter().take(i).for_each(|a| self.refund(*a, true));
                return charged;
            }
        }
        Ok(())
    }

    fn charge_one(&mut self, now: Instant, account: u32) -> Result<(), Limit> {
        if !self.accounts.charge(account, Item::Sessions) {
            return Err(Limit::Sessions);
        }
        if !self.accounts.charge(account, Item::Unanswered) {
            self.accounts.refund(account, Item::Sessions);
            return Err(Limit::Unanswered);
        }
        if !self.accounts.charge_rate(account, now) {
            self.refund(account, true);
            return Err(Limit::Rate);
        }
        Ok(())
    }

    fn refund(&mut self, account: u32, unanswered: bool) {
        self.accounts.refund(account, Item::Sessions);
        if unanswered {
            self.accounts.refund(account, Item::Unanswered);
        }
    }

    /// Finds a place for a session of a subscriber whose unit has this account, already charged: one of those that
    /// are kept free for the unit, or one of those that all share, or that of an unanswered session.
    fn make_room(&mut self, bib: u32, unit: Option<u32>) -> Result<(), Limit> {
        if let Some(unit) = unit
            && self.accounts.is_within_reserve(unit)
        {
            self.reserved_used += 1;
            return Ok(());
        }
        let shared_used = self.sessions.len().saturating_sub(self.reserved_used);
        if shared_used < self.shared_room || self.evict(bib, Lack::Place) {
            Ok(())
        } else {
            Err(Limit::Table)
        }
    }

    /// The session in `slot` was answered.
    pub(super) fn answered(&mut self, slot: u32) {
        let Some(session) = self.sessions.get_mut(slot) else { return };
        if std::mem::replace(&mut session.waits, Waits::Nobody) == Waits::Nobody {
            return;
        }
        let bib = session.bib;
        if let Some(lease) = self.bib.get_mut(bib).and_then(|binding| binding.lease.as_mut()) {
            lease.note_answer();
        }
        self.unanswered.done();
        self.settle_unanswered(bib);
    }

    fn settle_unanswered(&mut self, bib: u32) {
        let slot = self.bib.get(bib).map(|b| b.subscriber);
        let Some(subscriber) = slot.and_then(|slot| self.subscribers.get_mut(slot)) else { return };
        subscriber.unanswered -= 1;
        for account in subscriber.accounts {
            self.accounts.refund(account, Item::Unanswered);
        }
    }

    /// A session that was admitted is in the table now.
    pub(super) fn session_made(&mut self, now: Instant, slot: u32) {
        let sessions = &self.sessions;
        let waits = |slot| sessions.get(slot).is_some_and(|s| s.waits != Waits::Nobody);
        if waits(slot) {
            self.unanswered.push(slot, waits);
        }
        if self.tells_sessions()
            && let Some(session) = self.sessions.get(slot)
        {
            self.events.push(now, Event::SessionCreated(session_ends(session)));
        }
    }

    /// A session that was admitted found no room after all.
    pub(super) fn not_made(&mut self, bib: u32, waits: Waits) {
        if waits != Waits::Nobody {
            self.settle_unanswered(bib);
        }
        self.discharge(bib);
    }

    /// A session is out of the table.
    pub(super) fn session_gone(&mut self, session: &Session) {
        if session.waits != Waits::Nobody {
            self.unanswered.done();
            self.settle_unanswered(session.bib);
        }
        self.discharge(session.bib);
        if self.tells_sessions() {
            self.events.push(self.leases.now(), Event::SessionDeleted(session_ends(session)));
        }
    }

    fn discharge(&mut self, bib: u32) {
        let slot = self.bib.get(bib).map(|b| b.subscriber);
        let Some(subscriber) = slot.and_then(|slot| self.subscribers.get_mut(slot)) else { return };
        subscriber.sessions -= 1;
        let accounts = subscriber.accounts;
        if self.accounts.is_within_reserve(accounts[1]) {
            self.reserved_used -= 1;
        }
        for account in accounts {
            self.accounts.refund(account, Item::Sessions);
        }
    }

    /// Quotas or units have changed: every account gets its quota anew.
    pub(super) fn update_quotas(&mut self) {
        let units: Vec<_> = self.settings.units.iter().map(|u| (u, self.reserve_share(u))).collect();
        self.shared_room =
            units.iter().fold(self.sessions.capacity(), |room, (_, share)| room.saturating_sub(*share));
        let network = self.settings.quotas.network;
        let accounts = &mut self.accounts;
        accounts.update(|account| match account {
            super::quota::Account::Network(_) => (network, 0),
            super::quota::Account::Unit(_) => {
                let unit = units.iter().find(|(u, _)| super::quota::Account::unit(&u.name) == account);
                unit.map(|(u, share)| (u.quota, *share)).unwrap_or_default()
            }
        });
        self.reserved_used = self.accounts.reserved_used();
    }

    /// Unanswered sessions that gave way to others.
    pub const fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Sessions that nobody has answered yet.
    pub const fn unanswered(&self) -> u32 {
        self.unanswered.count()
    }
}

fn session_ends(session: &Session) -> SessionEnds {
    SessionEnds {
        binding: BindingEnds {
            protocol: session.protocol,
            src6: session.src6,
            src6_port: session.port6,
            src4: session.src4,
            src4_port: session.port4,
        },
        dst4: session.dst4,
        dst4_port: session.peer_port,
    }
}
