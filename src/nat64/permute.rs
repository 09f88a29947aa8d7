//! A keyed permutation: every number below `size` has one place below `size`, and nobody without the key can tell
//! which. And the numbers of declared subscribers, which it permutes.

use super::settings::{Key, Unit};
use super::steer::keyed;
use crate::addr::Prefix6;

/// Rounds of the Feistel network. Four make a pseudorandom permutation of a good function (Luby and Rackoff); the
/// domain is small, so there are more.
const ROUNDS: u64 = 8;

/// A permutation of the numbers below its size.
#[derive(Clone, Debug)]
pub struct Permutation {
    key: Key,
    size: u64,
    half: u32,
}

impl Permutation {
    /// The permutation of the numbers below `size` that `key` chooses.
    pub const fn new(key: Key, size: u64) -> Self {
        // Two equal halves that hold every number: the domain is less than four times as large as needed, and
        // what falls outside is permuted again.
        let bits = 64 - size.saturating_sub(1).leading_zeros();
        let half = if bits < 2 { 1 } else { bits.div_ceil(2) };
        Self { key, size, half }
    }

    /// The place of `number`; itself when it is not below the size.
    pub fn apply(&self, number: u64) -> u64 {
        self.walk(number, |halves| (0..ROUNDS).fold(halves, |h, round| self.round(h, round)))
    }

    /// The number that has this place.
    pub fn invert(&self, place: u64) -> u64 {
        self.walk(place, |halves| (0..ROUNDS).rev().fold(halves, |h, round| self.unround(h, round)))
    }

    fn walk(&self, number: u64, rounds: impl Fn((u64, u64)) -> (u64, u64)) -> u64 {
        if number >= self.size {
            return number;
        }
        let mask = (1 << self.half) - 1;
        let mut at = number;
        loop {
            let (left, right) = rounds((at >> self.half, at & mask));
            at = left << self.half | right;
            // Ends: the cycle of `number` comes back to it at the latest.
            if at < self.size {
                return at;
            }
        }
    }

    fn round(&self, (left, right): (u64, u64), round: u64) -> (u64, u64) {
        (right, left ^ self.scramble(right, round))
    }

    fn unround(&self, (left, right): (u64, u64), round: u64) -> (u64, u64) {
        (right ^ self.scramble(left, round), left)
    }

    fn scramble(&self, half: u64, round: u64) -> u64 {
        let place = u128::from(self.size) << 64 | u128::from(round) << 40 | u128::from(half);
        keyed(&self.key, &place) & ((1 << self.half) - 1)
    }
}

/// All subscribers that units declare by their prefixes, numbered in the order of their addresses.
#[derive(Clone, Debug, Default)]
pub struct Declared {
    /// First subscriber, how many from there on, and the number of the first.
    spans: Vec<(u128, u128, u64)>,
    shift: u32,
    count: u128,
}

impl Declared {
    /// The subscribers of `len` bits under the prefixes of `units`.
    pub fn new<'a>(units: impl Iterator<Item = &'a Unit>, len: u8) -> Self {
        let shift = 128 - u32::from(len.clamp(1, 128));
        let mut prefixes: Vec<Prefix6> = units.flat_map(|u| u.prefixes.iter().copied()).collect();
        prefixes.sort_unstable();
        let mut declared = Self { spans: Vec::new(), shift, count: 0 };
        for prefix in prefixes {
            let first = prefix.addr().to_bits() >> shift;
            let count = 1u128.checked_shl(u32::from(len.saturating_sub(prefix.len()))).unwrap_or(u128::MAX);
            // Two prefixes longer than a subscriber can be the same one.
            if declared.spans.last().is_some_and(|(f, n, _)| first < f.saturating_add(*n)) {
                continue;
            }
            declared.spans.push((first, count, u64::try_from(declared.count).unwrap_or(u64::MAX)));
            declared.count = declared.count.saturating_add(count);
        }
        declared
    }

    /// How many there are.
    pub const fn count(&self) -> u128 {
        self.count
    }

    /// Number of the subscriber with these prefix bits, if it is declared.
    pub fn number(&self, subscriber: u128) -> Option<u64> {
        let subscriber = subscriber >> self.shift;
        let at = self.spans.partition_point(|(first, _, _)| *first <= subscriber).checked_sub(1)?;
        let (first, count, start) = self.spans.get(at)?;
        let offset = subscriber - first;
        if offset >= *count {
            return None;
        }
        start.checked_add(u64::try_from(offset).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn h23_every_number_has_one_place_and_comes_back() {
        for size in [1, 2, 3, 5, 64, 126, 1000, 4097] {
            let permutation = Permutation::new(Key([7; 16]), size);
            let places: HashSet<u64> = (0..size).map(|n| permutation.apply(n)).collect();
            assert_eq!(places.len() as u64, size);
            assert!(places.iter().all(|p| *p < size));
            assert!((0..size).all(|n| permutation.invert(permutation.apply(n)) == n));
        }
    }

    #[test]
    fn neighbours_and_keys_are_far_apart() {
        let size = 8192;
        let (a, b) = (Permutation::new(Key([7; 16]), size), Permutation::new(Key([8; 16]), size));
        let same = (0..size).filter(|n| a.apply(*n) == b.apply(*n)).count();
        assert!(same < 10, "{same} places do not depend on the key");
        let steps = (1..size).filter(|n| a.apply(*n).wrapping_sub(a.apply(n - 1)) == 1).count();
        assert!(steps < 10, "{steps} neighbours stayed neighbours");
    }

    fn unit(prefixes: &[&str]) -> Unit {
        Unit { prefixes: prefixes.iter().map(|p| p.parse().unwrap()).collect(), ..Unit::default() }
    }

    #[test]
    fn declared_subscribers_are_counted_in_order_and_once() {
        let units = [unit(&["2001:db8:2::/62"]), unit(&["2001:db8:1::/96", "2001:db8:1::1:0:0/96"])];
        let declared = Declared::new(units.iter(), 64);
        let of =
            |text: &str| declared.number(text.parse::<std::net::Ipv6Addr>().unwrap().to_bits() >> 64 << 64);
        assert_eq!(declared.count(), 5);
        assert_eq!(
            (of("2001:db8:1::"), of("2001:db8:2::"), of("2001:db8:2:3::")),
            (Some(0), Some(1), Some(4))
        );
        assert_eq!((of("2001:db8:2:4::"), of("2001:db8::")), (None, None));
        assert!(Declared::new([unit(&["2001:db8::/32"])].iter(), 128).count() > 1 << 95);
    }
}
