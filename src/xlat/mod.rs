//! Layer 2: stateless translation.

pub mod pref64;
