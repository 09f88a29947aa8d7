//! Who owns a packet. Every subscriber belongs to one of 256 fixed shards by a keyed hash, every shard to a
//! worker by a table, so that no mapping depends on the number of workers.

use std::hash::Hasher;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use siphasher::sip::SipHasher13;

use super::pool4::Pool;
use super::settings::{Key, Protocol, StaticEntry};
use crate::addr::Prefix6;
use crate::verdict::DropReason;
use crate::wire::icmp::{self, Icmp, QuotedFlow};
use crate::wire::ipv4::View4;
use crate::wire::ipv6::View6;
use crate::wire::l4::Payload;
use crate::xlat::icmp::{Head, body4, body6};

/// Number of shards.
pub const SHARDS: usize = 256;

/// A number that only the holder of the key can predict (SipHash-1-3).
pub fn keyed(key: &Key, data: &impl KeyedData) -> u64 {
    let mut hasher = SipHasher13::new_with_key(&key.0);
    data.feed(&mut hasher);
    hasher.finish()
}

/// What can be hashed with the key. The encoding is part of the mapping: it must never change.
pub trait KeyedData {
    /// Feeds the bytes.
    fn feed(&self, hasher: &mut SipHasher13);
}

impl KeyedData for u64 {
    fn feed(&self, hasher: &mut SipHasher13) {
        hasher.write(&self.to_be_bytes());
    }
}

impl KeyedData for u128 {
    fn feed(&self, hasher: &mut SipHasher13) {
        hasher.write(&self.to_be_bytes());
    }
}

impl KeyedData for (u128, u64) {
    fn feed(&self, hasher: &mut SipHasher13) {
        self.0.feed(hasher);
        self.1.feed(hasher);
    }
}

/// Which worker has which shard.
#[derive(Clone, Debug)]
pub struct Steering {
    key: Key,
    subscriber_len: u8,
    workers: u16,
    /// Shards of static mappings by their pool side, sorted.
    fixed: Arc<[(Protocol, Ipv4Addr, u16, u8)]>,
}

impl Steering {
    /// Spreads the shards over `workers` workers (at least one).
    pub fn new(key: Key, subscriber_len: u8, workers: u16) -> Self {
        Self { key, subscriber_len, workers: if workers == 0 { 1 } else { workers }, fixed: Arc::new([]) }
    }

    /// Takes note of the static mappings: their ports lie in no block, so they are looked up by themselves.
    pub(super) fn set_static(&mut self, entries: &[StaticEntry]) {
        let shard = |entry: &StaticEntry| self.shard(self.subscriber(entry.src6));
        let mut fixed: Vec<_> = entries.iter().map(|e| (e.protocol, e.src4, e.port4, shard(e))).collect();
        fixed.sort_unstable();
        self.fixed = fixed.into();
    }

    fn fixed_shard(&self, protocol: Protocol, addr: Ipv4Addr, port: u16) -> Option<u8> {
        let key = (protocol, addr, port);
        let at = self.fixed.binary_search_by_key(&key, |(protocol, addr, port, _)| (*protocol, *addr, *port));
        at.ok().and_then(|at| self.fixed.get(at)).map(|(.., shard)| *shard)
    }

    /// The subscriber that `addr` belongs to, as the bits of its prefix.
    #[inline]
    pub fn subscriber(&self, addr: Ipv6Addr) -> u128 {
        Prefix6::covering(addr, self.subscriber_len).addr().to_bits()
    }

    /// Shard of a subscriber.
    #[inline]
    pub fn shard(&self, subscriber: u128) -> u8 {
        keyed(&self.key, &subscriber) as u8
    }

    /// Worker of a shard.
    #[inline]
    pub const fn worker(&self, shard: u8) -> u16 {
        shard as u16 % self.workers
    }

    /// Number of workers.
    pub const fn workers(&self) -> u16 {
        self.workers
    }

    /// Worker that puts together the datagram of a fragment: every piece goes there, the first one too.
    fn reassembler(&self, pair: u128, id: u32) -> u16 {
        self.worker(keyed(&self.key, &(pair, u64::from(id))) as u8)
    }

    /// Worker of a packet from IPv6: by its source, or for an ICMP error by whom the quoted packet went to.
    #[inline]
    pub fn owner6(&self, view: &View6, packet: &[u8]) -> Result<u16, DropReason> {
        if self.workers == 1 {
            return Ok(0);
        }
        let client = match view.payload {
            Payload::Fragment => {
                let id = view.fragment.map_or(0, |f| f.id);
                return Ok(self.reassembler(view.src.to_bits() ^ view.dst.to_bits().rotate_left(64), id));
            }
            Payload::Icmp(Icmp::Error { kind, code, rest }) => {
                let message = packet.get(view.l4..).unwrap_or(&[]);
                icmp::quote6(body6(Head { kind, code, rest }, message).quote)?.dst
            }
            Payload::Tcp(_) | Payload::Udp(_) | Payload::Icmp(_) | Payload::Other(_) => view.src,
        };
        Ok(self.worker(self.shard(self.subscriber(client))))
    }

    /// Worker of a packet from IPv4: by the block that its destination port lies in, or for an ICMP error the
    /// block of the quoted packet's source.
    #[inline]
    pub fn owner4(&self, view: &View4, packet: &[u8], pool: &Pool) -> Result<u16, DropReason> {
        if self.workers == 1 {
            return Ok(0);
        }
        let (protocol, addr, port) = match view.payload {
            Payload::Tcp(tcp) => (Protocol::Tcp, view.dst, tcp.dst),
            Payload::Udp(udp) => (Protocol::Udp, view.dst, udp.dst),
            Payload::Icmp(Icmp::Echo { id, .. }) => (Protocol::Icmp, view.dst, id),
            Payload::Icmp(Icmp::Error { kind, code, rest }) => {
                let message = packet.get(view.l4..).unwrap_or(&[]);
                let quote = icmp::quote4(body4(Head { kind, code, rest }, message).quote)?;
                let (protocol, port) = match quote.flow {
                    QuotedFlow::Tcp { src, .. } => (Protocol::Tcp, src),
                    QuotedFlow::Udp { src, .. } => (Protocol::Udp, src),
                    QuotedFlow::Echo { id, .. } => (Protocol::Icmp, id),
                    QuotedFlow::Other { .. } => return Err(DropReason::IcmpQuote),
                };
                (protocol, quote.src, port)
            }
            Payload::Fragment => {
                let pair = u128::from(view.src.to_bits()) << 32 | u128::from(view.dst.to_bits());
                return Ok(self.reassembler(pair, view.fragment.map_or(0, |f| f.id)));
            }
            // Refused by whoever has it.
            Payload::Icmp(Icmp::Other { .. }) | Payload::Other(_) => (Protocol::Udp, view.dst, 0),
        };
        let shard = match pool.shard(addr, port) {
            // A static mapping's port lies in no block.
            None => self.fixed_shard(protocol, addr, port),
            shard => shard,
        };
        Ok(shard.map_or(0, |shard| self.worker(shard)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_do_not_depend_on_the_number_of_workers_and_are_even() {
        let key = Key([3; 16]);
        let one = Steering::new(key, 64, 1);
        let four = Steering::new(key, 64, 4);
        let mut counts = [0u32; 4];
        for i in 0..4096u128 {
            let subscriber = one.subscriber(Ipv6Addr::from_bits(0x2001_0db8 << 96 | i << 64 | 77));
            assert_eq!(one.shard(subscriber), four.shard(subscriber));
            counts[usize::from(four.worker(four.shard(subscriber)))] += 1;
        }
        assert!(counts.iter().all(|c| (800..1250).contains(c)), "{counts:?}");
    }

    #[test]
    fn h07_two_hosts_of_one_prefix_are_one_subscriber() {
        let steering = Steering::new(Key([3; 16]), 64, 4);
        let a = steering.subscriber("2001:db8::1".parse().unwrap());
        assert_eq!(a, steering.subscriber("2001:db8::ffff".parse().unwrap()));
        assert_ne!(a, steering.subscriber("2001:db8:0:1::1".parse().unwrap()));
    }
}
