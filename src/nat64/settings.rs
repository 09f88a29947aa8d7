//! The checked settings of the NAT64 engine and the typed changes that a running engine accepts.
//!
//! `control::plan` builds both from the operator's file; nothing here reads text.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::policy::{Assignment, PortPolicy, Quota, Quotas};
use super::ride::Path;
use crate::addr::{Prefix4, Prefix6};
use crate::xlat::pref64::Pref64;

/// UDP_MIN, RFC 6146 §4: no UDP lifetime may be configured below it.
pub const UDP_MIN: Duration = Duration::from_secs(120);
/// UDP_DEFAULT, RFC 6146 §4.
pub const UDP_DEFAULT: Duration = Duration::from_secs(300);
/// TCP_TRANS, RFC 6146 §4; also the floor by RFC 5382 REQ-5.
pub const TCP_TRANS: Duration = Duration::from_secs(240);
/// TCP_EST, RFC 6146 §4: two hours; also the floor (RFC 6146 §3.5.2.2, RFC 5382 REQ-5).
pub const TCP_EST: Duration = Duration::from_secs(7_200);
/// TCP_INCOMING_SYN, RFC 6146 §4.
pub const TCP_INCOMING_SYN: Duration = Duration::from_secs(6);
/// ICMP_DEFAULT, RFC 6146 §4; also the floor (RFC 5508 REQ-2).
pub const ICMP_DEFAULT: Duration = Duration::from_secs(60);
/// The smallest MTU that every IPv6 link has (RFC 8200 §5).
pub const IPV6_MIN_MTU: u16 = 1280;

/// The three transports that stateful NAT64 carries (RFC 6146 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP queries; the identifier takes the place of the port.
    Icmp,
}

impl Protocol {
    /// All three, in table order.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Icmp];
}

/// Everything the engine needs to know, already checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Accepted translation prefixes, at least one; each session answers from the one its client used.
    pub pool6: Vec<Pref64>,
    /// The IPv4 side.
    pub pool4: Pool4,
    /// How its ports are chosen and given back.
    pub ports: PortPolicy,
    /// Who may have how much.
    pub quotas: Quotas,
    /// Length of the IPv6 prefix that is one subscriber, 1–128; 128 is a host.
    pub subscriber_len: u8,
    /// Secret of the keyed hashes (shard, ports).
    pub key: Key,
    /// Who may answer a mapping.
    pub filtering: Filtering,
    /// Lifetimes.
    pub timers: Timers,
    /// The organisations served. When there is at least one, packets from outside all of them are refused.
    pub units: Vec<Unit>,
    /// Non-global IPv4 destinations that may be reached under a network-specific prefix.
    pub allow: Vec<Prefix4>,
    /// Mappings by the operator.
    pub static_bib: Vec<StaticEntry>,
    /// Table sizes.
    pub limits: Limits,
    /// Bounds of reassembly, for each worker.
    pub fragments: Fragments,
    /// MTUs that decide about Packet Too Big and fragmenting.
    pub mtu: Mtu,
    /// Largest TCP segment that a SYN may announce through the gateway; `None` leaves it alone.
    pub mss_clamp: Option<u16>,
    /// What translated packets say about how they want to be treated.
    pub classes: Classes,
    /// Source of the ICMPv6 errors that the gateway originates; `None` = the address that was sent to.
    pub icmp6_source: Option<Ipv6Addr>,
    /// How hop limits count through this device.
    pub hops: Hops,
}

#[cfg(test)]
impl Settings {
    /// Settings for the tests of the rooms; there is nothing in the pool.
    pub(crate) fn of_key(key: Key) -> Self {
        Self {
            pool6: vec![Pref64::well_known()],
            pool4: Pool4 { ranges: Vec::new(), block_size: 512, assignment: Assignment::Dynamic },
            ports: PortPolicy::default(),
            quotas: Quotas::default(),
            subscriber_len: 128,
            key,
            filtering: Filtering::default(),
            timers: Timers::default(),
            units: Vec::new(),
            allow: Vec::new(),
            limits: Limits::default(),
            fragments: Fragments::default(),
            mtu: Mtu::default(),
            mss_clamp: None,
            icmp6_source: None,
            hops: Hops::Translator,
            classes: Classes::default(),
            static_bib: Vec::new(),
        }
    }
}

/// The pool of IPv4 transport addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool4 {
    /// Disjoint ranges of addresses, each with its ports.
    pub ranges: Vec<Pool4Range>,
    /// Ports (and ICMP identifiers) in one block, a power of two, 64–4096, where a range does not say otherwise.
    pub block_size: u16,
    /// How blocks come to subscribers.
    pub assignment: Assignment,
}

/// Addresses of the pool that share a port range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool4Range {
    /// The addresses.
    pub prefix: Prefix4,
    /// Ports and ICMP identifiers that may be given out, as far as they make whole blocks; the default is 1024–65535.
    pub ports: RangeInclusive<u16>,
    /// Its own block size.
    pub block_size: Option<u16>,
    /// Name of the pool that it is part of, for units that have one of their own.
    pub pool: Option<String>,
    /// Whether the machine has the address, too: then all other ports are its own.
    pub shared: bool,
}

impl Pool4Range {
    /// A range of the common pool with the usual block size.
    pub const fn new(prefix: Prefix4, ports: RangeInclusive<u16>) -> Self {
        Self { prefix, ports, block_size: None, pool: None, shared: false }
    }
}

/// A secret of 16 bytes that does not show itself in debug output.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key(pub [u8; 16]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Filtering behaviour (RFC 6146 §1.2.3, RFC 4787 §5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Filter {
    /// Anyone may answer an existing mapping (EIF).
    #[default]
    EndpointIndependent,
    /// Only addresses the client has a session with (ADF).
    AddressDependent,
}

/// What becomes of a SYN from IPv4 that no session, binding or permission lets in (RFC 6146 §3.5.2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HoldSyn {
    /// It waits for the client's own SYN; when none comes its sender is told "port unreachable".
    #[default]
    Tell,
    /// It waits; when none comes nobody is told (RFC 5382 REQ-4a).
    Silent,
    /// It is dropped at once, as under attack (RFC 6146 §5.3).
    Off,
}

/// Which TCP segments other than SYNs pass without a session, if their mapping exists (RFC 6146 §3.5.2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StrayTcp {
    /// Those of static mappings.
    #[default]
    Static,
    /// Those of any mapping.
    Forward,
    /// None.
    Drop,
}

/// The filter of each protocol (RFC 5382 REQ-3b lets them differ), and what else the RFCs leave to policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filtering {
    /// For TCP.
    pub tcp: Filter,
    /// For UDP.
    pub udp: Filter,
    /// For ICMP queries.
    pub icmp: Filter,
    /// Whether TCP connections from the IPv4 side are refused outright (RFC 6146 §3.5.2.2).
    pub drop_external_tcp: bool,
    /// SYNs that come before the client's.
    pub hold_syn: HoldSyn,
    /// TCP segments without a session.
    pub stray_tcp: StrayTcp,
    /// Whether packets from IPv4 keep sessions and mappings alive (RFC 4787 REQ-6).
    pub inbound_refresh: bool,
    /// Whether senders of filtered UDP and ICMP are told "prohibited" (RFC 6146 §3.5.1, §3.5.3).
    pub tell_filtered: bool,
    /// Whether senders to a port without mapping are told "unreachable" (RFC 6146 §3.5.1, §3.5.3).
    pub tell_unmapped: bool,
    /// Whether errors are originated towards IPv6 at all (RFC 5508 REQ-9).
    pub errors_to_ipv6: bool,
    /// Whether errors are originated towards IPv4 at all (RFC 5508 REQ-9).
    pub errors_to_ipv4: bool,
}

impl Default for Filtering {
    fn default() -> Self {
        Self {
            tcp: Filter::default(),
            udp: Filter::default(),
            icmp: Filter::default(),
            drop_external_tcp: false,
            hold_syn: HoldSyn::default(),
            stray_tcp: StrayTcp::default(),
            inbound_refresh: true,
            tell_filtered: true,
            tell_unmapped: false,
            errors_to_ipv6: true,
            errors_to_ipv4: true,
        }
    }
}

impl Filtering {
    /// The filter of one protocol.
    pub const fn of(&self, protocol: Protocol) -> Filter {
        match protocol {
            Protocol::Tcp => self.tcp,
            Protocol::Udp => self.udp,
            Protocol::Icmp => self.icmp,
        }
    }
}

/// Session lifetimes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timers {
    /// UDP, at least [`UDP_MIN`].
    pub udp: Duration,
    /// Established TCP, at least [`TCP_EST`].
    pub tcp_est: Duration,
    /// TCP while opening.
    pub tcp_trans_open: Duration,
    /// TCP after FINs or RST.
    pub tcp_trans_close: Duration,
    /// ICMP queries, at least [`ICMP_DEFAULT`].
    pub icmp: Duration,
    /// How long a SYN from IPv4 waits for the client's, at least [`TCP_INCOMING_SYN`].
    pub tcp_in_syn: Duration,
    /// UDP towards certain ports of the peer, by port; below [`UDP_MIN`] for well-known ports only (RFC 4787 REQ-5a).
    pub udp_ports: Vec<(u16, Duration)>,
}

impl Timers {
    /// Lifetime of a UDP session with port `peer_port` of a peer.
    #[inline]
    pub fn udp_of(&self, peer_port: u16) -> Duration {
        let at = self.udp_ports.binary_search_by_key(&peer_port, |(port, _)| *port);
        at.ok().and_then(|at| self.udp_ports.get(at)).map_or(self.udp, |(_, time)| *time)
    }
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            udp: UDP_DEFAULT,
            tcp_est: TCP_EST,
            tcp_trans_open: TCP_TRANS,
            tcp_trans_close: TCP_TRANS,
            icmp: ICMP_DEFAULT,
            tcp_in_syn: TCP_INCOMING_SYN,
            udp_ports: Vec::new(),
        }
    }
}

/// A mapping that the operator has made (RFC 6146 §3.1). It never expires. Its pool port lies outside those that are
/// given out, so that no client can have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StaticEntry {
    /// Table.
    pub protocol: Protocol,
    /// Client X'.
    pub src6: Ipv6Addr,
    /// Its port or identifier x.
    pub port6: u16,
    /// Pool address T.
    pub src4: Ipv4Addr,
    /// Pool port or identifier t.
    pub port4: u16,
}

/// An organisation and its networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    /// Name, as the operator wrote it.
    pub name: String,
    /// Its IPv6 prefixes.
    pub prefixes: Vec<Prefix6>,
    /// The pool that its subscribers get their blocks from; `None` is the common one.
    pub pool: Option<String>,
    /// Most blocks of one of its subscribers, instead of the usual number.
    pub max_blocks: Option<u16>,
    /// What all its subscribers together may have.
    pub quota: Quota,
    /// Sessions that are kept free for it.
    pub reserve: u32,
}

/// Table sizes, fixed at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sessions of all workers together.
    pub sessions: u32,
    /// Subscribers of all workers together.
    pub subscribers: u32,
    /// ICMP errors that one worker originates, per second.
    pub icmp_errors_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { sessions: 262_144, subscribers: 16_384, icmp_errors_per_second: 1_000 }
    }
}

/// SYNs from IPv4 that one worker lets wait at most.
pub const HELD_SYNS: u32 = 1_024;
/// Static mappings at most.
pub const MAX_STATIC: u32 = 4_096;

/// FRAGMENT_MIN, RFC 6146 §4: fragments wait for the rest at least this long.
pub const FRAGMENT_MIN: Duration = Duration::from_secs(2);

/// Bounds of reassembly, for each worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragments {
    /// Bytes of waiting fragments.
    pub bytes: usize,
    /// Datagrams that are waiting for fragments.
    pub datagrams: u32,
    /// Of these, datagrams of one source address.
    pub datagrams_per_source: u32,
    /// Fragments of one datagram.
    pub pieces: u32,
    /// How long a datagram waits from its first fragment on, at least [`FRAGMENT_MIN`].
    pub timeout: Duration,
}

impl Default for Fragments {
    fn default() -> Self {
        Self { bytes: 4 << 20, datagrams: 1_024, datagrams_per_source: 64, pieces: 64, timeout: FRAGMENT_MIN }
    }
}

/// Link MTUs on both sides, in bytes of IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mtu {
    /// Of the next hop on the IPv6 side, at least 1280.
    pub v6: u16,
    /// Of the next hop on the IPv4 side, at least 68.
    pub v4: u16,
    /// `lowest-ipv6-mtu` of RFC 7915 §4: packets without DF are cut to it on the way to IPv6; at least 1280.
    pub lowest_ipv6: u16,
}

impl Default for Mtu {
    fn default() -> Self {
        Self { v6: 1500, v4: 1500, lowest_ipv6: IPV6_MIN_MTU }
    }
}

/// TOS octet and traffic class of translated packets; `None` copies all eight bits (RFC 7915 §4.1, §5.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Classes {
    /// The TOS of every packet to IPv4.
    pub tos: Option<u8>,
    /// The traffic class of every packet to IPv6.
    pub traffic_class: Option<u8>,
}

/// Who takes one off the hop limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hops {
    /// The kernel forwards into and out of the TUN and subtracts twice: the translator gives one back.
    KernelForwards,
    /// Packets come straight from a wire: the translator subtracts one and answers an expired packet itself.
    Translator,
}

/// A change that a running engine accepts without losing what it does not concern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Replace the units. Sessions of hosts that belong to no unit any more are ended.
    Units(Vec<Unit>),
    /// Replace the pool ranges (block sizes and key stay). Outside the new ranges no new mapping is made.
    Pool4(Vec<Pool4Range>),
    /// Replace how ports are chosen and given back; concerns new mappings.
    Ports(PortPolicy),
    /// Replace the quotas; what is above them stays until it ends by itself.
    Quotas(Quotas),
    /// Replace the filtering behaviour; concerns new sessions.
    Filtering(Filtering),
    /// Replace the list of allowed non-global destinations. Sessions it no longer covers are ended.
    Allow(Vec<Prefix4>),
    /// Replace the lifetimes; a running session takes its new lifetime with its next packet.
    Timers(Timers),
    /// Replace the static mappings. Sessions of those that go are ended.
    Static(Vec<StaticEntry>),
}

/// One row of the session table, for people and tools.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SessionRow {
    /// Transport.
    pub protocol: Protocol,
    /// Client address X'.
    pub src6: Ipv6Addr,
    /// Client port or ICMP identifier x.
    pub src6_port: u16,
    /// Y' = Pref64 + Z.
    pub dst6: Ipv6Addr,
    /// Pool address T.
    pub src4: Ipv4Addr,
    /// Pool port or ICMP identifier t.
    pub src4_port: u16,
    /// Peer Z.
    pub dst4: Ipv4Addr,
    /// Peer port z; 0 for ICMP.
    pub dst4_port: u16,
    /// State in the words of RFC 6146 §3.5.2.2; `active` for UDP and ICMP.
    pub state: String,
    /// Seconds until it expires when idle from now on.
    pub expires_s: u64,
    /// Unit of the client, if it belongs to one.
    pub unit: Option<String>,
    /// Worker that owns it.
    pub worker: u16,
    /// Which way its packets take, and why.
    #[serde(default)]
    pub path: Path,
}

/// One row of the binding information base.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BibRow {
    /// Transport.
    pub protocol: Protocol,
    /// Client address X'.
    pub src6: Ipv6Addr,
    /// Client port or ICMP identifier x.
    pub src6_port: u16,
    /// Pool address T.
    pub src4: Ipv4Addr,
    /// Pool port or ICMP identifier t.
    pub src4_port: u16,
    /// Number of sessions that use it.
    pub sessions: u32,
    /// Whether the operator made it; then it does not go with its last session.
    #[serde(default)]
    pub is_static: bool,
    /// Unit of the client, if it belongs to one.
    pub unit: Option<String>,
    /// Worker that owns it.
    pub worker: u16,
}

/// What rows an operator wants to see. All conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RowFilter {
    /// Any of the IPv6 addresses of the row.
    pub addr6: Option<Ipv6Addr>,
    /// Any of the IPv4 addresses of the row.
    pub addr4: Option<Ipv4Addr>,
    /// Any of the ports or identifiers of the row.
    pub port: Option<u16>,
    /// Transport.
    pub protocol: Option<Protocol>,
    /// Name of the unit.
    pub unit: Option<String>,
}
