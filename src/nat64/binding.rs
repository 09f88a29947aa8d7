//! Bindings and what they cost: subscribers, their ports and blocks.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use super::bib::Binding;
use super::engine::Engine;
use super::event::{BindingEnds, Event, Kind, Limit, Stream};
use super::evict::Leaving;
use super::journal::{Held, Journal, Owner};
use super::lease::{NoPort, Request, Taken};
use super::policy::NETWORK_LEN;
use super::quota::{Account, Item, Ledger};
use super::session::Key6;
use super::settings::{Filter, Unit};
use super::slab::NIL;
use crate::time::Instant;
use crate::verdict::DropReason;
use crate::xlat::{Notice, Refusal};

impl Engine {
    /// From now on every block that is leased or given back is written down there.
    pub fn set_journal(&mut self, journal: Arc<Journal>) {
        self.leases.set_journal(journal);
    }

    /// Shares quotas with the other workers. Before the first packet.
    pub fn set_ledger(&mut self, ledger: Arc<Ledger>) {
        self.accounts.set_ledger(ledger);
    }

    /// Takes over the blocks that subscribers of this worker had before a restart; gives those that it could not.
    /// They stay with them for as long as a freed port rests, even if unused (H-12).
    pub fn restore(&mut self, now: Instant, blocks: &[Held]) -> Vec<Held> {
        self.leases.set_now(now);
        let policy = self.settings.ports;
        let stay = policy.hold_down.max(policy.block_idle);
        let mut left = Vec::new();
        for held in blocks {
            let (shard, prefix) = match held.owner {
                Owner::Subscriber(bits) => {
                    let prefix = self.steering.subscriber(std::net::Ipv6Addr::from_bits(bits));
                    (self.steering.shard(prefix), Some(prefix))
                }
                Owner::Shard(shard) => (shard, None),
            };
            if self.steering.worker(shard) != self.worker {
                continue;
            }
            let subscriber = prefix.map_or(Some(NIL), |prefix| self.subscriber(prefix));
            let restored = subscriber
                .is_some_and(|subscriber| self.leases.restore(held, subscriber, shard, &self.pool, stay));
            if !restored {
                left.push(*held);
                self.forget_if_idle(subscriber.unwrap_or(NIL));
            }
        }
        left
    }

    /// Takes events of exactly these kinds from now on.
    pub fn want_events(&mut self, kinds: &[Kind]) {
        self.events.want(kinds);
    }

    /// Where its events can be read.
    pub fn events(&self) -> Arc<Stream> {
        self.events.stream()
    }

    /// Ports that rest before anybody gets them again.
    pub fn resting_ports(&self) -> usize {
        self.leases.resting()
    }

    /// Leased blocks.
    pub const fn blocks(&self) -> u32 {
        self.leases.len()
    }

    /// RFC 6146 §3.5.1.1, §3.5.2.3, §3.5.3: a port of the client's own blocks.
    pub(super) fn new_binding(&mut self, now: Instant, key: &Key6) -> Result<u32, Refusal> {
        self.leases.set_now(now);
        self.try_new_binding(now, key, None).map_err(|limit| {
            self.events.push(now, Event::LimitHit { limit, client: key.src6 });
            // the IPv6 twin of "host unreachable".
            reason(limit).with(Notice::Unreachable)
        })
    }

    /// The binding that a client had before a restart.
    pub(super) fn same_binding(
        &mut self,
        now: Instant,
        key: &Key6,
        addr: Ipv4Addr,
        port: u16,
    ) -> Option<u32> {
        self.leases.set_now(now);
        self.try_new_binding(now, key, Some((addr, port))).ok()
    }

    /// A binding with any port, or with exactly the one that is wanted.
    fn try_new_binding(
        &mut self,
        now: Instant,
        key: &Key6,
        wanted: Option<(Ipv4Addr, u16)>,
    ) -> Result<u32, Limit> {
        let prefix = self.steering.subscriber(key.src6);
        let mut subscriber = self.subscriber(prefix).ok_or(Limit::Table)?;
        let mut allowed = match wanted {
            // Nobody gets a port, or even a block, for a session that he may not have.
            None => self.may_have_binding(now, subscriber),
            // What was there before a restart is nothing new.
            Some(_) => self.charge_port(subscriber),
        };
        if let Err(limit) = allowed
            && wanted.is_none()
            && self.give_way(now, subscriber, NIL, limit)
        {
            // A subscriber without mappings may have gone with the last of its idle blocks.
            subscriber = self.subscriber(prefix).ok_or(Limit::Table)?;
            allowed = self.may_have_binding(now, subscriber);
        }
        let made = allowed.and_then(|()| {
            let made = self.lease_port(now, key, prefix, subscriber, wanted);
            if made.is_err() {
                self.refund_port(subscriber);
            }
            made
        });
        if made.is_err() {
            self.forget_if_idle(subscriber);
        }
        made
    }

    /// Whether quotas have one more mapping with one more session for a subscriber; the mapping is charged.
    fn may_have_binding(&mut self, now: Instant, subscriber: u32) -> Result<(), Limit> {
        self.may_have_session(now, subscriber).and_then(|()| self.charge_port(subscriber))
    }

    fn lease_port(
        &mut self,
        now: Instant,
        key: &Key6,
        prefix: u128,
        subscriber: u32,
        wanted: Option<(Ipv4Addr, u16)>,
    ) -> Result<u32, Limit> {
        let unit = self.unit_of(key.src6);
        let scope = self.pool.scope(unit.and_then(|u| u.pool.as_deref())).ok_or(Limit::Pool)?;
        let request = Request {
            subscriber,
            prefix,
            shard: self.steering.shard(prefix),
            scope,
            max_blocks: unit.and_then(|u| u.max_blocks).unwrap_or(self.settings.ports.max_blocks),
            client: key.src6.to_bits(),
            port: key.port6,
            protocol: key.protocol,
        };
        let taken = match wanted {
            None => self.leases.take(&request, &self.pool, &self.settings.ports, &self.settings.key),
            Some((addr, port)) => self.leases.retake(&request, addr, port, &self.pool),
        };
        let Taken { port: lease, block } = taken.map_err(|no_port| match no_port {
            NoPort::Exhausted => Limit::Pool,
            NoPort::Quota => Limit::Ports,
            NoPort::TableFull => Limit::Table,
        })?;
        if let Some(block) = block {
            self.events.push(now, Event::BlockLeased(block));
            if let Some((blocks, leased)) = self.pool.newly_low(scope) {
                self.events.push(now, Event::PoolLow { scope, blocks, leased });
            }
        }
        let Some((src4, port4)) = self.leases.transport(&lease) else { return Err(Limit::Table) };
        let binding = Binding {
            src6: key.src6,
            port6: key.port6,
            port4,
            src4,
            protocol: key.protocol,
            pool6: key.pool6,
            sessions: 0,
            subscriber,
            lease: Some(lease),
        };
        let ends = ends(&binding);
        match self.bib.insert(binding) {
            Ok(slot) => {
                self.events.push(now, Event::BindingCreated(ends));
                Ok(slot)
            }
            Err(Binding { lease, .. }) => {
                if let Some(lease) = lease {
                    self.leases.give_back(lease, true, &self.settings.ports);
                }
                Err(Limit::Table)
            }
        }
    }

    /// Forgets binding `slot` when no session uses it; its port, block and subscriber go with it, some of them after
    /// a rest.
    pub(super) fn drop_binding_if_unused(&mut self, slot: u32, leaving: Leaving) {
        if self.bib.get(slot).is_some_and(|b| b.sessions > 0 || b.is_static()) {
            return;
        }
        let Some(binding) = self.bib.remove(slot) else { return };
        self.events.push(self.leases.now(), Event::BindingDeleted(ends(&binding)));
        let Binding { lease, subscriber, protocol, .. } = binding;
        // RFC 6888 REQ-8c: strangers cannot reach the next owner of such a port.
        let is_filtered = self.settings.filtering.of(protocol) == Filter::AddressDependent;
        match (lease, leaving) {
            (Some(lease), Leaving::Over) => self.leases.give_back(lease, is_filtered, &self.settings.ports),
            (Some(lease), Leaving::ForRoom) => self.leases.reclaim(lease, is_filtered, &self.settings.ports),
            (None, _) => {}
        }
        self.refund_port(subscriber);
        self.release_blocks(1);
        self.forget_if_idle(subscriber);
    }

    /// Frees ports and blocks that have rested, at most `budget` of each. False when there may be more.
    pub(super) fn tidy(&mut self, now: Instant, budget: u32) -> bool {
        self.leases.set_now(now);
        let woken = self.leases.wake(budget, &self.settings.ports);
        self.release_blocks(budget) && woken
    }

    fn release_blocks(&mut self, budget: u32) -> bool {
        for _ in 0..budget {
            let Some((held, subscriber)) = self.leases.release_idle() else { return true };
            self.events.push(self.leases.now(), Event::BlockReleased(held));
            self.forget_if_idle(subscriber);
        }
        false
    }

    /// The unit that an address belongs to.
    pub(super) fn unit_of(&self, addr: std::net::Ipv6Addr) -> Option<&Unit> {
        self.units.of(addr).and_then(|unit| self.settings.units.get(unit))
    }

    /// The subscriber with this prefix, made if need be, with its accounts. `None` when there is no room.
    fn subscriber(&mut self, prefix: u128) -> Option<u32> {
        if let Some(slot) = self.subscribers.find(prefix) {
            return Some(slot);
        }
        let addr = std::net::Ipv6Addr::from_bits(prefix);
        let unit = self.unit_of(addr);
        let unit = unit.map(|u| (Account::unit(&u.name), u.quota, self.reserve_share(u)));
        let quota = self.settings.quotas.network;
        let network = (self.settings.subscriber_len > NETWORK_LEN).then_some((
            Account::Network((prefix >> 64) as u64),
            quota,
            0,
        ));
        let slot = self.subscribers.insert(prefix)?;
        for (i, account) in [network, unit].into_iter().enumerate() {
            let Some((account, quota, reserve)) = account else { continue };
            let Some(opened) = self.accounts.open(account, quota, reserve) else {
                self.forget_if_idle(slot);
                return None;
            };
            if let Some(subscriber) = self.subscribers.get_mut(slot) {
                subscriber.accounts[i] = opened;
            }
        }
        Some(slot)
    }

    /// Forgets a subscriber that has neither bindings nor blocks.
    fn forget_if_idle(&mut self, slot: u32) {
        let Some(subscriber) = self.subscribers.get(slot) else { return };
        if subscriber.bindings > 0 || self.leases.blocks_of(slot) > 0 {
            return;
        }
        for account in subscriber.accounts {
            self.accounts.close(account);
        }
        self.subscribers.remove(slot);
    }

    /// H-04: one mapping more, if subscriber, network and unit may have it.
    fn charge_port(&mut self, slot: u32) -> Result<(), Limit> {
        let most = self.settings.quotas.subscriber.ports;
        let Some(subscriber) = self.subscribers.get_mut(slot) else { return Err(Limit::Table) };
        if most > 0 && subscriber.bindings >= most {
            return Err(Limit::Ports);
        }
        let [network, unit] = subscriber.accounts;
        if !self.accounts.charge(network, Item::Ports) {
            return Err(Limit::Ports);
        }
        if !self.accounts.charge(unit, Item::Ports) {
            self.accounts.refund(network, Item::Ports);
            return Err(Limit::Ports);
        }
        subscriber.bindings += 1;
        Ok(())
    }

    fn refund_port(&mut self, slot: u32) {
        let Some(subscriber) = self.subscribers.get_mut(slot) else { return };
        subscriber.bindings -= 1;
        for account in subscriber.accounts {
            self.accounts.refund(account, Item::Ports);
        }
    }

    /// How long this worker keeps how many places free for a unit.
    pub(super) fn reserve_share(&self, unit: &Unit) -> u32 {
        unit.reserve.div_ceil(u32::from(self.steering.workers()))
    }

    /// Whether events of sessions are wanted.
    pub(super) const fn tells_sessions(&self) -> bool {
        self.events.wants(Kind::Session)
    }

    /// How long blocks and ports can outlive their last mapping.
    pub const fn longest_rest(&self) -> Duration {
        self.settings.ports.hold_down.saturating_add(self.settings.ports.block_idle)
    }
}

/// The counter of a limit.
pub(super) const fn reason(limit: Limit) -> DropReason {
    match limit {
        Limit::Pool => DropReason::PortsExhausted,
        Limit::Table => DropReason::TableFull,
        Limit::Ports => DropReason::QuotaPorts,
        Limit::Sessions => DropReason::QuotaSessions,
        Limit::Unanswered => DropReason::QuotaUnanswered,
        Limit::Rate => DropReason::QuotaRate,
    }
}

pub(super) const fn ends(binding: &Binding) -> BindingEnds {
    BindingEnds {
        protocol: binding.protocol,
        src6: binding.src6,
        src6_port: binding.port6,
        src4: binding.src4,
        src4_port: binding.port4,
    }
}
