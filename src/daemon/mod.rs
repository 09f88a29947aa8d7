//! Layer 6: the only place that composes, reads the clock, starts threads and drops privileges.

pub mod counters;
pub mod ring;
pub mod worker;
