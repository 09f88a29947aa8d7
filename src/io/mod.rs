//! Layer 4: thin shells around the operating system.

pub mod dns_net;
