//! IPv4 identifications of the packets we make (RFC 6864 §5.3.1): not used again for the same addresses and protocol
//! while a datagram may still be on its way.
//!
//! Each worker has a part of the 65,536 numbers for itself, because several workers share a pool address. Within it,
//! counters by addresses and protocol go round, so that a busy destination does not use up the numbers of another one.

use std::net::Ipv4Addr;

use super::settings::Protocol;

/// Counters; different destinations may share one.
const COUNTERS: usize = 4096;

/// The identifications of one worker.
pub struct Idents {
    counters: Box<[u16]>,
    seed: u64,
    base: u16,
    span: u32,
}

impl Idents {
    /// The part of worker `worker` of `workers`. `seed` makes the beginnings unpredictable.
    pub fn new(worker: u16, workers: u16, seed: u64) -> Self {
        let span = 65_536 / u32::from(workers.max(1));
        let mut state = seed;
        let counters = (0..COUNTERS).map(|_| {
            // Any spread will do for a beginning (Knuth's MMIX constants).
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) as u32 % span) as u16
        });
        Self { counters: counters.collect(), seed: seed | 1, base: (u32::from(worker) * span) as u16, span }
    }

    /// The identification of the next packet, or of the first segment of a super-packet, whose other segments use the
    /// numbers behind it.
    #[inline]
    pub fn next(&mut self, src: Ipv4Addr, dst: Ipv4Addr, protocol: Protocol, segments: usize) -> u16 {
        let pair = u64::from(src.to_bits()) << 32 | u64::from(dst.to_bits()) ^ ((protocol as u64) << 30);
        let at = (pair ^ self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52;
        let Some(counter) = self.counters.get_mut(at as usize) else { return self.base };
        let needed = segments.min(self.span as usize) as u32;
        let first = if u32::from(*counter) + needed > self.span { 0 } else { u32::from(*counter) };
        *counter = ((first + needed) % self.span) as u16;
        self.base.wrapping_add(first as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const T: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

    #[test]
    fn e18_g26_no_reuse_among_workers_within_their_parts() {
        let mut seen = HashSet::new();
        for worker in 0..3 {
            let mut idents = Idents::new(worker, 3, 7);
            for _ in 0..21_845 {
                assert!(seen.insert(idents.next(T, Ipv4Addr::new(203, 0, 113, 1), Protocol::Udp, 1)));
            }
        }
    }

    #[test]
    fn e18_a_super_packet_uses_one_number_per_segment() {
        let mut idents = Idents::new(1, 2, 9);
        let dst = Ipv4Addr::new(203, 0, 113, 1);
        let mut seen = HashSet::new();
        for _ in 0..700 {
            let first = idents.next(T, dst, Protocol::Tcp, 45);
            for i in 0..45 {
                let id = first.checked_add(i).unwrap();
                assert!(id >= 32_768 && seen.insert(id), "{id}");
            }
        }
    }
}
