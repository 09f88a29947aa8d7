//! Layer 1: bytes and their meaning. Knows packets, knows no NAT.
//!
//! Contract: parsing checks every length once and never panics on any input; what it returns can be trusted by
//! the layers above without checking again.

pub mod checksum;
pub mod fragment;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod l4;
pub mod nd;
pub mod packet;
