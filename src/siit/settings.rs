//! The checked settings of the stateless translator and the typed changes that a running one accepts.

use std::net::Ipv6Addr;

use super::mapping::Mapping;
use crate::nat64::settings::{Classes, Hops, Mtu};

/// Everything the translator needs to know, already checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Which addresses stand for which.
    pub mapping: Mapping,
    /// What becomes of UDP without a checksum on its way to IPv6.
    pub udp_zero_checksum: ZeroChecksum,
    /// How packets between two explicitly mapped IPv6 nodes are treated.
    pub hairpin: Hairpin,
    /// Whether an ICMP error that gets a pool address tells its real IPv6 source (RFC 6791 §4, RFC 5837).
    pub interface_info: bool,
    /// MTUs that decide about Packet Too Big and fragmenting.
    pub mtu: Mtu,
    /// Largest TCP segment that a SYN may announce through the gateway; `None` leaves it alone.
    pub mss_clamp: Option<u16>,
    /// What translated packets say about how they want to be treated.
    pub classes: Classes,
    /// Source of the ICMPv6 errors that the gateway originates; `None` = the address that was sent to.
    pub icmp6_source: Option<Ipv6Addr>,
    /// ICMP errors that one worker originates, per second; 0 = none.
    pub icmp_errors_per_second: u32,
    /// How hop limits count through this device.
    pub hops: Hops,
}

/// What becomes of whole IPv4 UDP datagrams without a checksum (RFC 7915 §4.5). Pieces of one are always dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZeroChecksum {
    /// They are dropped, and an event says between whom.
    #[default]
    Drop,
    /// The checksum is computed.
    Compute,
}

/// Ways to carry packets between two explicitly mapped IPv6 nodes (RFC 7757 §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hairpin {
    /// They turn back here, at once (§4.2.2).
    #[default]
    Intrinsic,
    /// They leave as IPv4 and come back by routing (§4.2.1). Explicit mappings of IPv4 nodes do not work then.
    Simple,
    /// Not at all.
    Off,
}

/// A change that a running translator accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Replace the mapping.
    Mapping(Mapping),
}
