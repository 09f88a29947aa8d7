//! Identifications for IPv4 packets that had no Fragment Header (RFC 7915 §5.1).
//!
//! A datagram that may be cut needs an identification that no other one between the same addresses has while it lives
//! (RFC 6864 §5.2). Each worker counts in a range of its own, and pairs of addresses count apart from each other as far
//! as the table goes, so that a busy pair does not use up the numbers of the others.

use std::hash::{BuildHasher, Hasher};
use std::net::Ipv4Addr;

use foldhash::quality::FixedState;

use super::Place;

/// Counters; pairs of addresses share them by hash.
const COUNTERS: usize = 1024;

pub(super) struct Idents {
    counters: Box<[u16]>,
    first: u16,
    range: u32,
    hash: FixedState,
}

impl Idents {
    pub(super) fn new(place: Place) -> Self {
        let range = 0x1_0000 / u32::from(place.workers.max(1));
        let hash = FixedState::with_seed(place.seed);
        // Nobody can tell from one packet what the next identification between other hosts is (RFC 7739 §5.3).
        let start = |i: usize| (hash.hash_one(i) % u64::from(range)) as u16;
        Self {
            counters: (0..COUNTERS).map(start).collect(),
            first: (u32::from(place.worker) * range) as u16,
            range,
            hash,
        }
    }

    /// The identification of the next packet between these addresses; a super-packet takes one for each segment.
    #[inline]
    pub(super) fn next(&mut self, src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, segments: usize) -> u16 {
        let mut hasher = self.hash.build_hasher();
        hasher.write_u64(u64::from(src.to_bits()) << 32 | u64::from(dst.to_bits()));
        hasher.write_u8(protocol);
        let Some(counter) = self.counters.get_mut(hasher.finish() as usize % COUNTERS) else { return 0 };
        let segments = segments as u32;
        // The segments of a super-packet are numbered without a gap, so they may not run over the end.
        let at = if u32::from(*counter) + segments > self.range { 0 } else { u32::from(*counter) };
        *counter = ((at + segments) % self.range) as u16;
        self.first.wrapping_add(at as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const SRC: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const DST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

    #[test]
    fn e18_no_identification_comes_back_before_its_range_is_used_up() {
        for workers in [1, 3, 64] {
            let range = 0x1_0000 / usize::from(workers);
            let mut seen = HashSet::new();
            for worker in 0..workers {
                let mut idents = Idents::new(Place { worker, workers, seed: 7 + u64::from(worker) });
                for _ in 0..range {
                    assert!(seen.insert(idents.next(SRC, DST, 17, 1)), "worker {worker} of {workers}");
                }
            }
        }
    }

    #[test]
    fn e18_segments_of_a_super_packet_are_counted() {
        let mut idents = Idents::new(Place { worker: 0, workers: 1, seed: 3 });
        let mut seen = HashSet::new();
        for _ in 0..1400 {
            let first = idents.next(SRC, DST, 6, 45);
            for i in 0..45 {
                assert!(seen.insert(first.checked_add(i).unwrap()));
            }
        }
    }
}
