//! Layer 4: thin shells around the kernel.

pub mod host;
