//! What the integration tests share: packets built and judged by etherparse, and a gateway without a kernel.
#![allow(dead_code, unused_imports, reason = "each test target uses its own part of this module")]

pub mod campaign;
pub mod churn;
pub mod device;
pub mod fast;
pub mod gateway;
pub mod packet;
pub mod rng;
pub mod segment;
pub mod traffic;

pub use gateway::{Gateway, Out, settings};
pub use packet::{Extension, L4, Packet, at, echo_reply, echo_request, error, ip, other, tcp, udp};
