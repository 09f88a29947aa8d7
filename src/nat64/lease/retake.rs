//! Ports that their clients had before a restart.

use std::net::Ipv4Addr;

use super::{Leases, NoPort, Owner, PortLease, Request, Taken, Wish, give_up};
use crate::nat64::pool4::{Class, Pool};

impl Leases {
    /// Takes exactly this port for `request`: in a block that the subscriber has or shares, or else in one that is
    /// free and becomes its own, which is written down first.
    pub fn retake(
        &mut self,
        request: &Request,
        addr: Ipv4Addr,
        port: u16,
        pool: &Pool,
    ) -> Result<Taken, NoPort> {
        let own = self.lists.get(request.subscriber as usize).ok_or(NoPort::TableFull)?.head;
        let shared = self.shared.get(usize::from(request.shard)).copied();
        for head in std::iter::once(own).chain(shared) {
            let mut at = head;
            while let Some(lease) = self.leases.get(at) {
                if lease.address.addr == addr && self.offset(at, port).is_some() {
                    let port = self.take_exactly(at, port, request).ok_or(NoPort::Exhausted)?;
                    return Ok(Taken { port, block: None });
                }
                at = lease.next;
            }
        }
        if self.leases.len() == self.leases.capacity() {
            return Err(NoPort::TableFull);
        }
        let address = pool.find(addr).ok_or(NoPort::Exhausted)?.clone();
        let size = address.block_size();
        let first = port - port.checked_rem(size).ok_or(NoPort::Exhausted)?;
        let owner = Owner::Subscriber(request.prefix);
        let Request { scope, shard, prefix: subscriber, .. } = *request;
        let restored = pool.restore(addr, first, size, shard).or_else(|| {
            // A block that the key gives to this subscriber is leased by asking for it.
            let wish = Wish { scope, subscriber, shard, hash: 0, class: Class::Any };
            let block = pool.lease_at(&address, &wish, self.now)?;
            if block.is_fixed && block.first == first {
                return Some((address.clone(), block));
            }
            give_up(&address, block, owner);
            None
        });
        let (address, block) = restored.ok_or(NoPort::Exhausted)?;
        let at = self.keep(address, block, owner, request.subscriber).ok_or(NoPort::Exhausted)?;
        let held = self.held(at);
        let port = self.take_exactly(at, port, request).ok_or(NoPort::Exhausted)?;
        Ok(Taken { port, block: held })
    }

    /// Where `port` lies in lease `at`, if it does.
    fn offset(&self, at: u32, port: u16) -> Option<u16> {
        let lease = self.leases.get(at)?;
        port.checked_sub(lease.block.first).filter(|offset| *offset < lease.address.block_size())
    }

    fn take_exactly(&mut self, at: u32, port: u16, request: &Request) -> Option<PortLease> {
        let offset = self.offset(at, port)?;
        let words = self.words_of(at, request.protocol);
        let word = self.taken.get_mut(words)?.get_mut(usize::from(offset) / 64)?;
        let bit = 1 << (offset % 64);
        if *word & bit != 0 {
            return None;
        }
        *word |= bit;
        self.leases.get_mut(at)?.used[request.protocol as usize] += 1;
        Some(PortLease { lease: at, offset, protocol: request.protocol, is_answered: true })
    }
}
