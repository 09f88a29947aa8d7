//! How often one client may ask over UDP: a token bucket for each network, in a table of fixed size.

use std::hash::BuildHasher;
use std::net::IpAddr;

use foldhash::fast::FixedState;

use super::wire::{self, HEADER};
use crate::time::Instant;

/// The limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Questions per second.
    pub per_second: u32,
    /// Questions that may come at once after a pause.
    pub burst: u32,
    /// Prefix length that is one IPv6 client. An IPv4 address is one.
    pub client_len: u8,
}

impl Default for Limit {
    fn default() -> Self {
        Self { per_second: 200, burst: 1000, client_len: 64 }
    }
}

/// What becomes of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is answered.
    Pass,
    /// It is told to come back over TCP, which a forged sender cannot do.
    Truncate,
    /// Nothing is sent.
    Drop,
}

/// Buckets in one row of the table.
const WAYS: usize = 4;
/// Rows: 64 Ki clients at once, 1.5 MiB. Beyond that the fullest bucket of a row is forgotten, which favours its
/// owner.
const ROWS: usize = 1 << 14;
/// Parts of a token: one for each nanosecond of a second.
const TOKEN: u64 = 1_000_000_000;

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// Hash of the client; 0 is nobody.
    key: u64,
    /// What is left, in parts of a token.
    left: u64,
    at: Instant,
}

/// The buckets of one thread.
#[derive(Debug)]
pub struct Limiter {
    limit: Limit,
    state: FixedState,
    rows: Vec<[Bucket; WAYS]>,
    refused: u64,
}

impl Limiter {
    /// Empty; `seed` makes it unknown which clients share a row.
    pub fn new(limit: Limit, seed: u64) -> Self {
        let state = FixedState::with_seed(seed);
        Self { limit, state, rows: vec![[Bucket::default(); WAYS]; ROWS], refused: 0 }
    }

    /// Takes over another limit; what clients have left is capped by it.
    pub fn set(&mut self, limit: Limit) {
        self.limit = limit;
    }

    /// Takes a token for a question. This host itself is not limited.
    pub fn check(&mut self, client: IpAddr, now: Instant) -> Verdict {
        let client = client.to_canonical();
        if client.is_loopback() {
            return Verdict::Pass;
        }
        let key = self.key(client);
        let limit = self.limit;
        let Some(row) = self.rows.get_mut(key as usize % ROWS) else { return Verdict::Pass };
        let full = u64::from(limit.burst.max(1)) * TOKEN;
        let at = match row.iter().position(|bucket| bucket.key == key) {
            Some(at) => at,
            None => {
                let left = |bucket: &Bucket| bucket.refilled(limit, now);
                let fullest = (0..WAYS).max_by_key(|at| row.get(*at).map_or(0, left)).unwrap_or(0);
                if let Some(bucket) = row.get_mut(fullest) {
                    *bucket = Bucket { key, left: full, at: now };
                }
                fullest
            }
        };
        let Some(bucket) = row.get_mut(at) else { return Verdict::Pass };
        bucket.left = bucket.refilled(limit, now);
        bucket.at = now;
        if let Some(left) = bucket.left.checked_sub(TOKEN) {
            bucket.left = left;
            return Verdict::Pass;
        }
        // Every second one may come back over TCP; the rest costs us nothing more.
        self.refused = self.refused.wrapping_add(1);
        if self.refused.is_multiple_of(2) { Verdict::Drop } else { Verdict::Truncate }
    }

    fn key(&self, client: IpAddr) -> u64 {
        let bits = match client {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
            IpAddr::V6(v6) => {
                let len = u32::from(self.limit.client_len.clamp(1, 128));
                v6.to_bits() & u128::MAX << (128 - len)
            }
        };
        self.state.hash_one(bits).max(1)
    }
}

impl Bucket {
    fn refilled(&self, limit: Limit, now: Instant) -> u64 {
        if self.key == 0 {
            return u64::MAX;
        }
        let nanos = u64::try_from(now.since(self.at).as_nanos()).unwrap_or(u64::MAX);
        let more = nanos.saturating_mul(u64::from(limit.per_second));
        self.left.saturating_add(more).min(u64::from(limit.burst.max(1)) * TOKEN)
    }
}

/// Writes an empty reply with TC: never longer than the query. `None` if that is not one, or `out` is too small.
pub fn truncated(query: &[u8], out: &mut [u8]) -> Option<usize> {
    let header = wire::Header::read(query).filter(|header| header.flags & wire::QR == 0)?;
    let end = if header.counts[0] == 1 { wire::question_end(query)? } else { return None };
    let out = out.get_mut(..end)?;
    out.copy_from_slice(query.get(..end)?);
    let flags = wire::QR | wire::RA | wire::TC | header.flags & (0xf << 11 | wire::RD | wire::CD);
    let counts = [1, 0, 0, 0];
    let fields = [header.id, flags].into_iter().chain(counts);
    for (field, bytes) in fields.zip(out.get_mut(..HEADER)?.chunks_exact_mut(2)) {
        bytes.copy_from_slice(&field.to_be_bytes());
    }
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit { per_second: 10, burst: 20, client_len: 64 };

    fn passed(limiter: &mut Limiter, client: &str, questions: usize, now: Instant) -> usize {
        let client = client.parse().unwrap();
        (0..questions).filter(|_| limiter.check(client, now) == Verdict::Pass).count()
    }

    #[test]
    fn o21_a_burst_then_a_rate_and_others_are_fine() {
        let mut limiter = Limiter::new(LIMIT, 7);
        assert_eq!(passed(&mut limiter, "2001:db8::1", 100, Instant::from_secs(5)), 20);
        assert_eq!(passed(&mut limiter, "2001:db8::2", 100, Instant::from_secs(5)), 0, "the same /64");
        assert_eq!(passed(&mut limiter, "2001:db8:0:1::1", 100, Instant::from_secs(5)), 20);
        assert_eq!(passed(&mut limiter, "192.0.2.1", 100, Instant::from_secs(5)), 20);
        assert_eq!(passed(&mut limiter, "192.0.2.2", 100, Instant::from_secs(5)), 20);
        assert_eq!(passed(&mut limiter, "2001:db8::1", 100, Instant::from_secs(6)), 10);
        assert_eq!(passed(&mut limiter, "2001:db8::1", 100, Instant::from_secs(60)), 20);
        assert_eq!(passed(&mut limiter, "::1", 1000, Instant::from_secs(60)), 1000);
    }

    #[test]
    fn half_of_what_is_refused_may_come_back_over_tcp() {
        let mut limiter = Limiter::new(LIMIT, 7);
        let client = "2001:db8::1".parse().unwrap();
        let verdicts: Vec<_> = (0..120).map(|_| limiter.check(client, Instant::ZERO)).collect();
        let count = |wanted| verdicts.iter().filter(|v| **v == wanted).count();
        assert_eq!((count(Verdict::Pass), count(Verdict::Truncate), count(Verdict::Drop)), (20, 50, 50));
    }

    #[test]
    fn a_flood_of_senders_does_not_free_a_limited_one_of_its_limit() {
        let mut limiter = Limiter::new(LIMIT, 7);
        assert_eq!(passed(&mut limiter, "2001:db8::1", 30, Instant::ZERO), 20);
        for i in 0..200_000u128 {
            limiter.check(std::net::Ipv6Addr::from_bits((0x2001_0db9 << 96) | i << 64).into(), Instant::ZERO);
        }
        assert_eq!(passed(&mut limiter, "2001:db8::1", 30, Instant::ZERO), 0);
    }

    #[test]
    fn the_truncated_reply_is_no_longer_than_the_query() {
        let query = b"\x12\x34\x01\x10\0\x01\0\0\0\0\0\x01\x01a\0\0\x1c\0\x01\0\0\x29\x04\xd0\0\0\x80\0\0\0";
        let mut out = [0; 512];
        let len = truncated(query, &mut out).unwrap();
        assert_eq!(&out[..len], b"\x12\x34\x83\x90\0\x01\0\0\0\0\0\0\x01a\0\0\x1c\0\x01");
        assert!(len <= query.len());
        assert_eq!(truncated(&query[..15], &mut out), None);
        assert_eq!(truncated(&out[..len], &mut [0; 512]), None, "a response");
        assert_eq!(truncated(query, &mut [0; 12]), None);
    }
}
