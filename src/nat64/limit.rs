//! How many ICMP errors we originate (RFC 4443 §2.4 f, RFC 1812 §4.3.2.8).
//!
//! A limit that all senders share tells each of them how much the others made us say, and so which ports are open. As
//! Linux does since that was found out, an error takes a random amount from the bucket, so that counting what is left
//! says little.

use crate::time::Instant;

/// A token bucket that holds one second's worth. Each taking costs one token or two, by chance: never more than
/// `per_second` pass at once, and half as many at least.
pub(crate) struct Bucket {
    per_second: u64,
    tokens: u64,
    at: Instant,
    refused: u64,
    random: Random,
}

impl Bucket {
    pub(crate) const fn new(per_second: u32, seed: u64, now: Instant) -> Self {
        let per_second = per_second as u64;
        Self { per_second, tokens: per_second, at: now, refused: 0, random: Random(seed) }
    }

    /// Whether one more may pass now.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let nanos = now.since(self.at).as_nanos() as u64;
        let new = nanos.saturating_mul(self.per_second) / 1_000_000_000;
        if new > 0 {
            self.tokens = self.tokens.saturating_add(new).min(self.per_second);
            self.at = now;
        }
        if self.tokens == 0 {
            self.refused += 1;
            return false;
        }
        self.tokens = self.tokens.saturating_sub(1 + (self.random.next() >> 63));
        true
    }

    /// How many were kept back.
    pub(crate) const fn refused(&self) -> u64 {
        self.refused
    }
}

/// SplitMix64: cheap, and good enough to choose an address or to blur a count.
pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::time::Duration;

    /// How many of `n` pass now.
    fn passed(bucket: &mut Bucket, now: Instant, n: usize) -> usize {
        (0..n).filter(|_| bucket.take(now)).count()
    }

    #[test]
    fn d67_o15_what_is_left_cannot_be_counted() {
        let mut now = Instant::from_secs(1000);
        let mut bucket = Bucket::new(100, 0x5eed, now);
        let mut seen = Vec::new();
        for _ in 0..400 {
            seen.push(passed(&mut bucket, now, 1000));
            now = now + Duration::from_secs(1);
        }
        assert!(seen.iter().all(|n| (50..=100).contains(n)), "{seen:?}");
        assert!(seen.iter().collect::<HashSet<_>>().len() > 10, "{seen:?}");
        let mean = seen.iter().sum::<usize>() / seen.len();
        assert!((64..=69).contains(&mean), "two thirds, not {mean}");
        assert_eq!(bucket.refused() as usize, 400 * 1000 - seen.iter().sum::<usize>());
        // Another gateway, or the same after a restart, chooses differently.
        let mut other = Bucket::new(100, 0x5eee, now);
        let theirs: Vec<_> =
            (1..=400_u64).map(|second| passed(&mut other, now + Duration::from_secs(second), 1000)).collect();
        assert_ne!(seen, theirs);
    }

    #[test]
    fn d67_the_first_one_always_passes_and_none_passes_a_limit_of_nothing() {
        let now = Instant::from_secs(1000);
        for seed in 0..50 {
            assert_eq!(passed(&mut Bucket::new(1, seed, now), now, 9), 1);
            assert!((1..=2).contains(&passed(&mut Bucket::new(2, seed, now), now, 9)));
            let mut off = Bucket::new(0, seed, now);
            assert_eq!(passed(&mut off, now + Duration::from_secs(99), 9), 0);
        }
    }

    #[test]
    fn what_was_spent_comes_back_with_time_and_no_more() {
        let now = Instant::from_secs(1000);
        let mut bucket = Bucket::new(10, 7, now);
        passed(&mut bucket, now, 100);
        let later = |millis| now + Duration::from_millis(millis);
        assert_eq!(passed(&mut bucket, later(99), 100), 0);
        assert_eq!(passed(&mut bucket, later(100), 100), 1);
        assert!((2..=3).contains(&passed(&mut bucket, later(400), 100)));
        assert!((5..=10).contains(&passed(&mut bucket, later(3_600_000), 100)));
    }
}
