//! The whole box with real software, in network namespaces: nginx, curl, iperf3, dig, ping, traceroute, NSD.
//!
//! The network is `sampan::lab`, the same code as `sampan lab demo`. Each test builds a laboratory of its own under a
//! unique name, so tests can run beside each other. They need root and `/dev/net/tun` and fail without them.
//!
//! `SAMPAN_NETNS_TRANSLATOR=tayga` puts Debian's tayga and unbound into the gateway instead of Sampan: it shows
//! whether a failure is the network's or the gateway's (a few tests ask for what that pair does not do).

// Tests say what went wrong by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/packet.rs"]
#[allow(dead_code, reason = "the whole box needs few kinds of forged packets")]
mod packet;

#[path = "../support/flood.rs"]
#[allow(dead_code, reason = "the campaign looks at more")]
mod flood_ground;
#[path = "../support/forge.rs"]
mod forge;
#[path = "../support/hitless.rs"]
#[allow(dead_code, reason = "the campaign lets more things happen")]
mod hitless;
#[path = "../support/rng.rs"]
mod rng;
mod tcp;

mod dns;
mod dns_tls;
mod fastpath;
mod flood;
mod health;
mod lifecycle;
mod links;
mod policy;
mod ra;
mod route;
mod shared;
mod siit;
mod start;
mod support;
mod tayga;
mod traffic;
