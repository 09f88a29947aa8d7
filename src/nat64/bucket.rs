//! Rate limits of what a worker says by itself.

use crate::time::Instant;

/// A token bucket that holds one second's worth.
pub(crate) struct Bucket {
    per_second: u64,
    tokens: u64,
    at: Instant,
    refused: u64,
}

impl Bucket {
    pub(crate) fn new(per_second: u32, now: Instant) -> Self {
        Self { per_second: per_second.into(), tokens: per_second.into(), at: now, refused: 0 }
    }

    /// Errors that were kept back.
    pub(crate) const fn refused(&self) -> u64 {
        self.refused
    }

    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let nanos = now.since(self.at).as_nanos() as u64;
        let new = nanos.saturating_mul(self.per_second) / 1_000_000_000;
        if new > 0 {
            self.tokens = (self.tokens.saturating_add(new)).min(self.per_second);
            self.at = now;
        }
        if self.tokens == 0 {
            self.refused += 1;
            return false;
        }
        self.tokens -= 1;
        true
    }
}
