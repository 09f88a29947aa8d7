//! The stateless translator (SIIT) as a worker runs it, on a device of queues: one test for each thing that RFC 7915,
//! 6052, 6791 and 7757 ask, named by the number of the requirement.

// Tests say what went wrong by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod address;
mod fragments;
mod headers;
mod icmp;
mod originated;
mod packet;
mod properties;
mod translator;
