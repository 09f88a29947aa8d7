//! How ports and blocks come back: some at once, some after a rest (RFC 6888 REQ-8).

use std::time::Duration;

use super::{Held, LATE, Leases, PortLease};
use crate::nat64::policy::PortPolicy;
use crate::nat64::settings::Protocol;

impl Leases {
    /// Gives a port back. RFC 6888 REQ-8: it rests before anybody gets it, except for TCP, whose sessions are tracked
    /// (a), for a block that is its subscriber's for good (b), and behind a filter by address (c).
    pub fn give_back(&mut self, port: PortLease, is_filtered: bool, policy: &PortPolicy) {
        let is_fixed = self.leases.get(port.lease).is_some_and(|lease| lease.block.is_fixed);
        let free = port.protocol == Protocol::Tcp || is_fixed || is_filtered || policy.hold_down.is_zero();
        if free || self.max_resting == 0 {
            return self.free(&port, policy.block_idle);
        }
        if self.resting.len() == self.max_resting
            && let Some((_, oldest)) = self.resting.pop_front()
        {
            self.free(&oldest, policy.block_idle);
        }
        self.resting.push_back((self.now + policy.hold_down + LATE, port));
    }

    /// Takes back a port whose mapping gave way to another one. If nobody ever answered its client, it does not rest,
    /// nor does its block when nothing else is in it: or a flood that is thinned out would use up the pool by what rests.
    pub fn reclaim(&mut self, port: PortLease, is_filtered: bool, policy: &PortPolicy) {
        if port.is_answered {
            return self.give_back(port, is_filtered, policy);
        }
        self.free(&port, Duration::ZERO);
    }

    /// Frees ports that have rested, at most `budget`. False when there may be more.
    pub fn wake(&mut self, budget: u32, policy: &PortPolicy) -> bool {
        for _ in 0..budget {
            match self.resting.front() {
                Some((until, _)) if *until <= self.now => {}
                Some(_) | None => return true,
            }
            if let Some((_, port)) = self.resting.pop_front() {
                self.free(&port, policy.block_idle);
            }
        }
        false
    }

    /// Gives back to the pool the next block that has been idle long enough; says which, and the slot of the
    /// subscriber who had it.
    pub fn release_idle(&mut self) -> Option<(Held, u32)> {
        while let Some((due, at)) = self.idle.front().copied() {
            if due > self.now {
                return None;
            }
            self.idle.pop_front();
            let Some(lease) = self.leases.get_mut(at) else { continue };
            lease.is_in_idle = false;
            if lease.used != [0; 3] {
                continue;
            }
            let stays_until = lease.stays_until;
            if stays_until > self.now {
                lease.is_in_idle = true;
                self.idle.push_back((stays_until, at));
                continue;
            }
            let is_fixed = lease.block.is_fixed;
            let held = self.held(at)?;
            if !is_fixed && !self.write(false, held) {
                // The writer is behind: the block goes when it has caught up.
                if let Some(lease) = self.leases.get_mut(at) {
                    lease.is_in_idle = true;
                    self.idle.push_front((due, at));
                }
                return None;
            }
            return self.unlink(at).map(|subscriber| (held, subscriber));
        }
        None
    }

    fn free(&mut self, port: &PortLease, block_idle: Duration) {
        let words = self.words_of(port.lease, port.protocol);
        if let Some(word) = self.taken.get_mut(words.start + usize::from(port.offset) / 64) {
            *word &= !(1 << (port.offset % 64));
        }
        let Some(lease) = self.leases.get_mut(port.lease) else { return };
        lease.used[port.protocol as usize] -= 1;
        if lease.used == [0; 3] {
            self.rest_block(port.lease, block_idle);
        }
    }

    pub(super) fn rest_block(&mut self, at: u32, stay: Duration) {
        let until = self.now + stay;
        let Some(lease) = self.leases.get_mut(at) else { return };
        lease.stays_until = until;
        if std::mem::replace(&mut lease.is_in_idle, true) {
            return;
        }
        if stay.is_zero() {
            self.idle.push_front((until, at));
        } else {
            self.idle.push_back((until, at));
        }
    }
}
