//! The configuration file as it is written. Every key is declared once, in the tables below: the reader, the
//! hints for misspelt keys and `docs/reference/config.md` all come from the same row.
//!
//! Words follow RFC 8512 (ietf-nat) where it has one. Meaning is checked in [`super::plan`].

mod read;
mod reference;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use hickory_proto::rr::Name;
use toml::Spanned;
use toml::de::DeValue;

use crate::addr::{Prefix4, Prefix6, PrefixAny};
use crate::dns64::{Mode as Synthesis, OnError, Transport, WhenDown};
use crate::io::dns_net::Upstream;
use crate::nat64::policy::{Assignment, Eviction, Pairing};
use crate::nat64::settings::{Filter, HoldSyn, Protocol, StrayTcp};
use crate::siit::settings::{Hairpin, ZeroChecksum};
use crate::xlat::eam::Home;
use crate::xlat::pref64::Pref64;

pub use read::{At, Reader, Value};
pub use reference::reference;

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name within its table.
    pub key: &'static str,
    /// What holds when it is left out.
    pub need: Need,
    /// How a change takes effect.
    pub apply: Apply,
    /// What it means.
    pub text: &'static str,
    /// What kind of value it has.
    pub kind: fn() -> String,
    /// Whether it is a list.
    pub list: bool,
    /// The keys below it, when it is a table.
    pub rows: &'static [Self],
}

/// What holds when a key is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It may not be left out.
    Required,
    /// This value, in TOML.
    Default(&'static str),
    /// What the words say.
    Otherwise(&'static str),
}

/// How a change of a key takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apply {
    /// With `sampan reload`.
    Reload,
    /// With the next start.
    Restart,
    /// As the keys below it say.
    Below,
}

/// How the addresses of a pool reach this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A router sends them here.
    Routed,
    /// They lie in the subnet of an interface; this machine answers ARP for them.
    OnLink,
    /// The machine has the address itself, and keeps all ports but those of the pool.
    Shared,
}

/// When there is a fast path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FastMode {
    /// Where it is possible and nothing is bypassed.
    #[default]
    Auto,
    /// Where it is possible.
    On,
    /// Never.
    Off,
    /// Or the gateway does not start.
    Require,
}

/// An address to answer on, and the port where the operator names none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenOn<const PORT: u16>(pub SocketAddr);

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// Only what stops a function.
    Error,
    /// What needs attention.
    Warn,
    /// What happens rarely: start, stop, reload.
    #[default]
    Info,
    /// For finding faults.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// The word in the file, which is also the one that `tracing` knows.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Declares a table of the file: a struct, its keys and its reader.
macro_rules! section {
    ($(#[doc = $about:literal])+ $name:ident {
        $($field:ident: $type:ty = $key:literal, $need:expr, $apply:ident, $text:literal;)+
    }) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $(#[doc = $text] pub $field: Option<At<$type>>,)+
        }

        impl Value for $name {
            const ROWS: &'static [Row] = {
                use Need::{Default, Otherwise, Required};
                // Not every section uses every word.
                const _: (fn(&'static str) -> Need, fn(&'static str) -> Need, Need) = (Default, Otherwise, Required);
                &[$(Row {
                    key: $key,
                    need: $need,
                    apply: Apply::$apply,
                    text: $text,
                    kind: <$type as Value>::kind,
                    list: <$type as Value>::LIST,
                    rows: <$type as Value>::ROWS,
                },)+]
            };

            fn kind() -> String {
                "table".into()
            }

            fn example() -> String {
                "{ … }".into()
            }

            fn read(value: &Spanned<DeValue<'_>>, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
                let table = reader.table::<Self>(value, path)?;
                let mut rows = Self::ROWS.iter();
                let section = Self {
                    $($field: rows.next().and_then(|row| reader.key(table, path, row)),)+
                };
                reader.unknown_keys(table, path, Self::ROWS);
                Some(section)
            }
        }
    };
}

section! {
    /// The whole file.
    File {
        nat64: Nat64 = "nat64", Otherwise("there must be `[siit]` instead"), Below, "The stateful translator (NAT64): many IPv6 hosts share a few IPv4 addresses.";
        siit: Siit = "siit", Otherwise("there must be `[nat64]` instead"), Below, "The stateless translator (SIIT): each IPv6 node has an IPv4 address of its own.";
        fastpath: Fastpath = "fastpath", Otherwise("defaults"), Below, "The fast path of the stateful translator: established flows are translated within the kernel, by eBPF. Has no effect with `[siit]`.";
        dns64: Dns64 = "dns64", Otherwise("no DNS64"), Below, "The DNS64. Leave the table out to run without one.";
        unit: Vec<At<Unit>> = "unit", Otherwise("everyone who is routed here is served"), Reload, "An organisation that is served. With at least one, packets from outside all of them are refused.";
        health: Health = "health", Otherwise("defaults"), Below, "By what the translator counts as working. While it does not, DNS64 answers as `dns64.when-down` says.";
        ra: Ra = "ra", Otherwise("no router advertisements"), Below, "Router advertisements that tell clients the translation prefixes (PREF64, RFC 8781) and resolvers (RDNSS, RFC 8106), where no router does. While the translator is down the prefixes are taken back.";
        admin: Admin = "admin", Otherwise("defaults"), Below, "The socket of the `sampan` commands.";
        tun: Tun = "tun", Otherwise("defaults"), Below, "The network device of the translator.";
        log: Log = "log", Otherwise("defaults"), Below, "Messages on standard error.";
    }
}

section! {
    /// `[nat64]`
    Nat64 {
        pool6: Vec<At<Pref64>> = "pool6", Default("[\"64:ff9b::/96\"]"), Restart, "Translation prefixes (PREF64): IPv6 addresses under them stand for IPv4 addresses. Use a /96 of your own if private IPv4 destinations are to be reached. RFC 8512: nat64-prefix.";
        pool4: Vec<At<Pool4>> = "pool4", Required, Reload, "IPv4 addresses that the clients share. RFC 8512: external-ip-pool.";
        subscriber: u64 = "subscriber", Default("128"), Restart, "Prefix length that is one subscriber: 128 is a host, 64 an office LAN, 56 a broadband customer. RFC 8512: subscriber-mask-v6.";
        block_size: u64 = "block-size", Default("512"), Restart, "Ports in one block; a subscriber is given blocks one by one. A power of two from 64 to 4096. RFC 8512: port-set-size.";
        block_assignment: Assignment = "block-assignment", Default("\"dynamic\""), Restart, "`dynamic`: a subscriber is given free blocks when it appears, and a journal remembers them. `permuted`: the first block of every subscriber that the units declare is computed from the key; there must be enough blocks for all of them.";
        journal: PathBuf = "journal", Otherwise("the key file's name with the ending `.blocks`"), Restart, "Journal of the leased blocks, so that everybody has the same ones after a restart.";
        ports: Ports = "ports", Otherwise("defaults"), Below, "How ports are chosen and given back.";
        quota: Quota = "quota", Otherwise("defaults"), Reload, "What one subscriber may have; 0 is no limit. RFC 8512: limit-subscribers and what follows it.";
        network_quota: Quota = "network-quota", Otherwise("no limits"), Reload, "What all subscribers of one /64 together may have, when a subscriber is smaller than that.";
        when_full: Eviction = "when-full", Default("\"sessions\""), Reload, "What makes room when the session table, or the quota of a /64 or a unit, is full: `sessions`: the unanswered session that waits longest, if its mapping has others (RFC 6888 REQ-11d); `mappings`: such a session with its mapping, too; `off`: nothing. For a quota only sessions of the same /64 or unit give way. What was ever answered always stays.";
        key_file: PathBuf = "key-file", Default("\"/var/lib/sampan/key\""), Restart, "Secret of the keyed hashes: 32 hexadecimal digits, readable for root only. `sampan run` makes it when it is missing.";
        workers: u64 = "workers", Otherwise("one per CPU, at most 64"), Restart, "Threads that translate, 1 to 64.";
        sessions: u64 = "sessions", Default("262144"), Restart, "Sessions of all workers together; memory for them is taken at start. RFC 8512: limit-per-instance.";
        subscribers: u64 = "subscribers", Default("16384"), Restart, "Subscribers of all workers together. RFC 8512: limit-subscribers.";
        icmp6_source: Ipv6Addr = "icmp6-source", Otherwise("a global IPv6 address of this machine"), Restart, "Source of the ICMPv6 errors that the translator originates. Without any global address: the address the packet was sent to.";
        icmp_errors_per_second: u64 = "icmp-errors-per-second", Default("1000"), Restart, "ICMP errors that one worker originates per second at most; 0 is none. Under load chance takes up to a half of them, so that nobody can count what others were told.";
        mtu6: u64 = "mtu6", Otherwise("the MTU of the interface towards the IPv6 network"), Restart, "MTU of the next hop on the IPv6 side, at least 1280.";
        mtu4: u64 = "mtu4", Otherwise("the MTU of the interface towards the IPv4 network"), Restart, "MTU of the next hop on the IPv4 side, at least 68.";
        lowest_ipv6_mtu: u64 = "lowest-ipv6-mtu", Default("1280"), Restart, "Packets that may be fragmented are cut to this size on the way to IPv6 (RFC 7915 §4).";
        mss_clamp: bool = "mss-clamp", Default("true"), Restart, "Lower the segment size that TCP connections announce to what fits the links of this machine, for paths where ICMP is filtered.";
        tos: u64 = "tos", Otherwise("the traffic class of the packet"), Restart, "Type of service of every packet to IPv4, 0 to 255, whatever its traffic class says (RFC 7915 §5.1). It has the DSCP and ECN bits: with a fixed value congestion is no longer signalled through the gateway.";
        traffic_class: u64 = "traffic-class", Otherwise("the type of service of the packet"), Restart, "Traffic class of every packet to IPv6, 0 to 255, whatever its type of service says (RFC 7915 §4.1).";
        fragments: Fragments = "fragments", Otherwise("defaults"), Restart, "Bounds of the fragments that wait for the rest of their datagram, for each worker. What goes beyond them is dropped. RFC 8512: fragments-limit.";
        filtering: Filtering = "filtering", Otherwise("defaults"), Reload, "Who may answer a mapping. Concerns new sessions.";
        timers: Timers = "timers", Otherwise("defaults"), Reload, "Idle lifetimes in seconds.";
        reach_gateway: bool = "reach-gateway", Default("false"), Restart, "Whether clients reach the IPv4 addresses of this machine itself by way of the prefix.";
        allow: Vec<At<Allow>> = "allow", Otherwise("none"), Reload, "Non-global IPv4 destinations that may be reached. Has no effect under 64:ff9b::/96.";
        static_bib: Vec<At<Static>> = "static", Otherwise("none"), Reload, "A mapping that is always there, so that an IPv6 host can be reached from IPv4. RFC 8512: mapping-table.";
    }
}

section! {
    /// `[[nat64.static]]`
    Static {
        protocol: Protocol = "protocol", Required, Reload, "`tcp`, `udp` or `icmp`. RFC 8512: transport-protocol.";
        internal_address: Ipv6Addr = "internal-address", Required, Reload, "The IPv6 host. RFC 8512: internal-src-address.";
        internal_port: u64 = "internal-port", Required, Reload, "Its port, or ICMP identifier. RFC 8512: internal-src-port.";
        external_address: Ipv4Addr = "external-address", Required, Reload, "The pool address it is reached by. RFC 8512: external-src-address.";
        external_port: u64 = "external-port", Required, Reload, "The port, or ICMP identifier, it is reached by; not one of the `ports` of that pool, which are given out. RFC 8512: external-src-port.";
    }
}

section! {
    /// `[[nat64.pool4]]`
    Pool4 {
        prefix: Prefix4 = "prefix", Required, Reload, "The addresses. No machine may have them, this one included, unless `mode` is `shared`.";
        ports: RangeInclusive<u16> = "ports", Default("\"1024-65535\""), Reload, "Ports and ICMP identifiers that are given out. RFC 8512: port-set-restrict.";
        mode: Mode = "mode", Default("\"routed\""), Restart, "`routed`: a router sends the addresses here. `onlink`: they lie in the subnet of an interface and this machine answers ARP for them. `shared`: one address that this machine has itself; the clients get `ports`, the machine keeps the others. That needs the fast path.";
        interface: String = "interface", Otherwise("none"), Restart, "The interface of mode `onlink`.";
        block_size: u64 = "block-size", Otherwise("`nat64.block-size`"), Restart, "Ports in one block of these addresses.";
        name: String = "name", Otherwise("the common pool"), Reload, "Pool that the addresses belong to. Only units that name it get blocks of it. Several ranges can have the same name.";
    }
}

section! {
    /// `[nat64.ports]`
    Ports {
        parity: bool = "parity", Default("true"), Reload, "An even UDP port becomes an even one, an odd one an odd one (RFC 4787 REQ-4). RFC 8512: port-allocation-type.";
        range: bool = "range", Default("true"), Reload, "Ports below 1024 become ports below 1024 if the pool has some, and others others (RFC 4787 REQ-3a).";
        preserve: bool = "preserve", Default("false"), Reload, "A port keeps its place inside the block where that is free. Otherwise the place is random (RFC 6056).";
        pairing: Pairing = "pairing", Default("\"hard\""), Reload, "When the pool address of a subscriber has no port left for it: `hard` refuses, `soft` takes another address (RFC 7857 §4). RFC 8512: paired-address.";
        hold_down: u64 = "hold-down", Default("120"), Reload, "Seconds that a freed port rests; less than 120 gives a warning (RFC 6888 REQ-8). TCP ports do not rest, nor do those behind address-dependent filtering. RFC 8512: hold-down-timeout.";
        hold_down_max: u64 = "hold-down-max", Default("65536"), Restart, "Ports that rest at most; then those that rested longest are let go. RFC 8512: hold-down-max.";
        block_idle: u64 = "block-idle", Default("120"), Reload, "Seconds that a block without mappings stays with its subscriber. RFC 8512: port-set-timeout.";
        max_blocks: u64 = "max-blocks", Default("16"), Reload, "Blocks of one subscriber at most; 0 is no limit.";
        overflow_blocks: u64 = "overflow-blocks", Default("0"), Reload, "Blocks of each pool address that subscribers share who have `max-blocks` full ones; 0 is none. The journal cannot tell whose port of such a block was.";
    }
}

section! {
    /// `[nat64.quota]`
    Quota {
        ports: u64 = "ports", Default("0"), Reload, "Mappings, each with a port or ICMP identifier (RFC 6888 REQ-4).";
        sessions: u64 = "sessions", Default("0"), Reload, "Sessions (RFC 6888 REQ-5). Those that start on the IPv4 side may take half of them.";
        unanswered: u64 = "unanswered", Default("0"), Reload, "Sessions that nobody has answered yet.";
        new_per_second: u64 = "new-per-second", Default("0"), Reload, "New sessions per second, one second's worth at once (RFC 6888 REQ-4c).";
    }
}

section! {
    /// `[unit.quota]`
    UnitQuota {
        ports: u64 = "ports", Default("0"), Reload, "Mappings, each with a port or ICMP identifier.";
        sessions: u64 = "sessions", Default("0"), Reload, "Sessions.";
        unanswered: u64 = "unanswered", Default("0"), Reload, "Sessions that nobody has answered yet.";
        new_per_second: u64 = "new-per-second", Default("0"), Reload, "New sessions per second, one second's worth at once.";
        reserve: u64 = "reserve", Default("0"), Reload, "Sessions that are kept free for the unit, however full the table is.";
    }
}

section! {
    /// `[nat64.filtering]`
    Filtering {
        tcp: Filter = "tcp", Default("\"endpoint-independent\""), Reload, "For TCP. RFC 8512: filtering-type.";
        udp: Filter = "udp", Default("\"endpoint-independent\""), Reload, "For UDP.";
        icmp: Filter = "icmp", Default("\"endpoint-independent\""), Reload, "For ICMP queries.";
        drop_external_tcp: bool = "drop-external-tcp", Default("false"), Reload, "Refuse every TCP connection that starts on the IPv4 side.";
        hold_syn: HoldSyn = "hold-syn", Default("\"tell\""), Reload, "What becomes of a TCP connection from the IPv4 side to a port that nobody has, or that filtering does not let in (RFC 6146 §3.5.2.2): `tell` waits whether the client calls back, and tells the sender \"port unreachable\" when it does not; `silent` waits and tells nobody; `off` drops it at once.";
        stray_tcp: StrayTcp = "tcp-without-session", Default("\"static\""), Reload, "TCP segments that open nothing and belong to no session pass if their mapping exists and is `static`; or any mapping will do (`forward`); or none does (`drop`).";
        inbound_refresh: bool = "inbound-refresh", Default("true"), Reload, "Packets from the IPv4 side keep mappings alive. With `false` only the client does (RFC 4787 REQ-6).";
        tell_filtered: bool = "tell-filtered", Default("true"), Reload, "Tell the senders of UDP and ICMP that filtering refuses: \"prohibited\".";
        tell_unmapped: bool = "tell-unmapped", Default("false"), Reload, "Tell the senders of UDP and ICMP to a port that nobody has: \"unreachable\".";
        errors_to_ipv6: bool = "icmp-errors-to-ipv6", Default("true"), Reload, "Originate ICMPv6 errors. Errors of others are translated all the same.";
        errors_to_ipv4: bool = "icmp-errors-to-ipv4", Default("true"), Reload, "Originate ICMPv4 errors, likewise.";
    }
}

section! {
    /// `[nat64.timers]`
    Timers {
        udp_timeout: u64 = "udp-timeout", Default("300"), Reload, "UDP session; at least 120 (RFC 6146 §4).";
        tcp_idle_timeout: u64 = "tcp-idle-timeout", Default("7200"), Reload, "Established TCP; at least 7200 (RFC 6146 §4). Then a probe is sent and 240 s more are waited.";
        tcp_trans_open_timeout: u64 = "tcp-trans-open-timeout", Default("240"), Reload, "TCP while opening; less than 240 gives a warning (RFC 7857 §2.1).";
        tcp_trans_close_timeout: u64 = "tcp-trans-close-timeout", Default("240"), Reload, "TCP while closing; at least 240 (RFC 5382 REQ-5).";
        icmp_timeout: u64 = "icmp-timeout", Default("60"), Reload, "ICMP query; at least 60 (RFC 5508 REQ-2).";
        tcp_in_syn_timeout: u64 = "tcp-in-syn-timeout", Default("6"), Reload, "How long a connection from the IPv4 side waits for the client's own call; at least 6 (RFC 5382 REQ-4).";
        per_port_timeout: Vec<At<PortTimeout>> = "per-port-timeout", Otherwise("none"), Reload, "Another lifetime for UDP with a certain port of the peer.";
    }
}

section! {
    /// `[[nat64.timers.per-port-timeout]]`
    PortTimeout {
        port: u64 = "port-number", Required, Reload, "The port of the peer.";
        timeout: u64 = "timeout", Required, Reload, "Seconds; at least 120, but for ports below 1024 at least 1 (RFC 4787 REQ-5).";
    }
}

section! {
    /// `[nat64.fragments]`
    Fragments {
        bytes: u64 = "bytes", Default("4194304"), Restart, "Memory of waiting fragments, 131072 to 1073741824; taken at start.";
        datagrams: u64 = "datagrams", Default("1024"), Restart, "Datagrams that wait.";
        datagrams_per_source: u64 = "datagrams-per-source", Default("64"), Restart, "Of these, datagrams of one source address.";
        pieces: u64 = "pieces", Default("64"), Restart, "Fragments of one datagram, 2 to 8192.";
        timeout: u64 = "timeout", Default("2"), Restart, "Seconds that a datagram waits from its first fragment on, 2 (RFC 6146 §4) to 60 (RFC 8200 §4.5). RFC 8512: fragment-min-timeout.";
    }
}

section! {
    /// `[[nat64.allow]]`
    Allow {
        prefix: Prefix4 = "prefix", Required, Reload, "The destinations.";
        name: String = "name", Otherwise("no name"), Reload, "What they are, for people.";
    }
}

section! {
    /// `[siit]`
    Siit {
        prefix: Pref64 = "prefix", Required, Restart, "Translation prefix of any of the six lengths: IPv6 addresses under it stand for the IPv4 addresses that no explicit mapping names. RFC 8512: nat64-prefix.";
        eam: Vec<At<Eam>> = "eam", Otherwise("none"), Reload, "An explicit address mapping (RFC 7757). The longest prefix wins. RFC 8512: eam.";
        translatable4: Vec<At<Prefix4>> = "translatable4", Otherwise("none"), Reload, "IPv4 addresses of IPv6 nodes whose own address is that IPv4 address embedded in `prefix` (RFC 6052 §1.3).";
        icmp6_pool4: Vec<At<Prefix4>> = "icmp6-pool4", Otherwise("none; then such errors are dropped"), Reload, "IPv4 addresses for ICMP errors of IPv6 routers that have none (RFC 6791), chosen at random. One is enough; a few make traceroute clearer.";
        interface_info: bool = "interface-info", Default("true"), Restart, "Tell the real IPv6 source of such an error in an ICMP extension (RFC 6791 §4, RFC 5837).";
        udp_zero_checksum: ZeroChecksum = "udp-zero-checksum", Default("\"drop\""), Restart, "What becomes of IPv4 UDP without a checksum (RFC 7915 §4.5): `drop` it and log between whom, or `compute` one. Fragments of it are always dropped.";
        hairpin: Hairpin = "hairpin", Default("\"intrinsic\""), Restart, "Packets between two explicitly mapped IPv6 nodes (RFC 7757 §4): `intrinsic` turns them back at once, `simple` lets them leave as IPv4 and come back by routing, `off` does neither.";
        reach_gateway: bool = "reach-gateway", Default("false"), Restart, "Whether clients reach the IPv4 addresses of this machine itself by way of the prefix.";
        allow: Vec<At<Allow>> = "allow", Otherwise("none"), Reload, "Non-global IPv4 hosts that may be spoken to by way of the prefix. Has no effect under 64:ff9b::/96.";
        workers: u64 = "workers", Otherwise("one per CPU, at most 64"), Restart, "Threads that translate, 1 to 64.";
        icmp6_source: Ipv6Addr = "icmp6-source", Otherwise("a global IPv6 address of this machine"), Restart, "Source of the ICMPv6 errors that the translator originates. Without any global address: the address the packet was sent to.";
        icmp_errors_per_second: u64 = "icmp-errors-per-second", Default("1000"), Restart, "ICMP errors that one worker originates per second at most; 0 is none. Under load chance takes up to a half of them, so that nobody can count what others were told.";
        mtu6: u64 = "mtu6", Otherwise("the MTU of the interface towards the IPv6 network"), Restart, "MTU of the next hop on the IPv6 side, at least 1280.";
        mtu4: u64 = "mtu4", Otherwise("the MTU of the interface towards the IPv4 network"), Restart, "MTU of the next hop on the IPv4 side, at least 68.";
        lowest_ipv6_mtu: u64 = "lowest-ipv6-mtu", Default("1280"), Restart, "Packets that may be fragmented are cut to this size on the way to IPv6 (RFC 7915 §4). Raise it to the smallest MTU of the IPv6 network, so that less is cut.";
        mss_clamp: bool = "mss-clamp", Default("true"), Restart, "Lower the segment size that TCP connections announce to what fits the links of this machine, for paths where ICMP is filtered.";
        tos: u64 = "tos", Otherwise("the traffic class of the packet"), Restart, "Type of service of every packet to IPv4, 0 to 255, whatever its traffic class says (RFC 7915 §5.1). It has the DSCP and ECN bits: with a fixed value congestion is no longer signalled through the gateway.";
        traffic_class: u64 = "traffic-class", Otherwise("the type of service of the packet"), Restart, "Traffic class of every packet to IPv6, 0 to 255, whatever its type of service says (RFC 7915 §4.1).";
    }
}

section! {
    /// `[[siit.eam]]`
    Eam {
        ipv4: Prefix4 = "ipv4", Required, Reload, "IPv4 address or prefix. RFC 8512: ipv4-prefix.";
        ipv6: Prefix6 = "ipv6", Required, Reload, "The IPv6 address or prefix that it stands for, with at least as many bits behind the prefix. RFC 8512: ipv6-prefix.";
        home: Home = "home", Default("\"ipv6\""), Reload, "The network that the nodes are in: `ipv6`, known to IPv4 by the IPv4 address, which is routed to the translator; or `ipv4`, the other way round.";
    }
}

section! {
    /// `[fastpath]`
    Fastpath {
        mode: FastMode = "mode", Default("\"auto\""), Restart, "`auto`: on where the kernel can do it and no firewall or connection tracking sees forwarded packets, which would miss what the fast path carries; `on`: with a firewall, too; `require`: like `on`, and without it the gateway does not start; `off`.";
        inside: Vec<At<String>> = "inside", Otherwise("every Ethernet interface with a global IPv6 address"), Restart, "Interfaces by which the clients come.";
        outside: Vec<At<String>> = "outside", Otherwise("every Ethernet interface with an IPv4 address"), Restart, "Interfaces by which the IPv4 network comes.";
        max_flows: u64 = "max-flows", Otherwise("`nat64.sessions`"), Restart, "Flows that it carries at most; the others go through user space. Memory for them is taken at start, and kept by a restart.";
        orphan_limit: u64 = "orphan-limit", Default("300"), Restart, "Seconds for which it goes on while no gateway runs, 5 to 86400.";
        pins: PathBuf = "pins", Otherwise("`sampan-` with the names of device and network namespace, in `/sys/fs/bpf` if that is a bpf file system, or else in `/run`"), Restart, "Directory in which its maps are kept for the next start, on a bpf file system; if it lies on another one, a bpf file system is mounted there.";
        miss_rate: u64 = "miss-rate", Default("20000"), Restart, "Packets per second of one subscriber that it passes up to user space, 0 is no limit. What is more is dropped in the kernel, so that a flood of new flows does not drown the others. Flows that do not ride (static mappings, hairpins, ICMP) count, too; with `inbound-refresh = false`, where none rides, there is no limit.";
        miss_burst: u64 = "miss-burst", Default("20000"), Restart, "How many of them may come at once.";
    }
}

section! {
    /// `[dns64]`
    Dns64 {
        listen: Vec<At<SocketAddr>> = "listen", Required, Restart, "Addresses to answer on, UDP and TCP. The port is 53 when left out.";
        upstream: Vec<At<Upstream>> = "upstream", Required, Reload, "Validating resolvers to ask, best first: `address`, with the port when that is not 53; `tls://address#name` (RFC 7858) or `https://address/path#name` (RFC 8484) with the name that the certificate has to show.";
        allow: Vec<At<PrefixAny>> = "allow", Otherwise("the prefixes of the units, and this machine"), Reload, "Who may ask.";
        mode: Synthesis = "mode", Default("\"synthesise\""), Reload, "What happens to AAAA questions. `synthesise`: addresses are made when there are no real ones (RFC 6147); `pass`: everything is handed on; `always`: addresses are made whenever there is an A record, for an uplink without IPv6.";
        on_error: OnError = "on-error", Default("\"use-a\""), Reload, "What follows an AAAA answer that is an error or does not come: `use-a`: the A answer decides (RFC 6147 §5.1.2); `fail`: the client gets the error.";
        exclude_aaaa: Vec<At<Prefix6>> = "exclude-aaaa", Default("[\"::ffff:0:0/96\"]"), Reload, "AAAA records inside these prefixes are treated as absent (RFC 6147 §5.1.4).";
        filter_a: bool = "filter-a", Default("false"), Reload, "Answer A questions with \"no such data\": for clients that have no IPv4 at all. `ipv4only.arpa` is exempt, and so are clients that validate (CD).";
        names: Vec<At<DnsName>> = "names", Otherwise("none"), Reload, "Names that are treated otherwise.";
        range: Vec<At<DnsRange>> = "range", Otherwise("every IPv4 address under every prefix"), Reload, "IPv4 networks with translation prefixes of their own. The first that covers an address counts.";
        view: Vec<At<DnsView>> = "view", Otherwise("all clients get the same"), Reload, "Clients that get something else. The longest network decides.";
        forward: Vec<At<Forward>> = "forward", Otherwise("none"), Reload, "Names that other resolvers are asked for. The longest name counts.";
        zone: Vec<At<LocalZone>> = "zone", Otherwise("none"), Reload, "Names that are answered here, such as those of an intranet. AAAA is synthesised for them, too.";
        private_reverse: bool = "private-reverse", Default("true"), Reload, "Answer the reverse zones of private addresses here, as empty (RFC 6303), but those of networks that the translator is allowed to reach (`allow`). A `forward` or `zone` for one of them goes first.";
        trust_ad: bool = "trust-ad", Default("false"), Reload, "Hand on the AD bit: the upstream validates, and nobody can change what comes from there.";
        when_down: WhenDown = "when-down", Default("\"stale\""), Reload, "What a question gets whose answer would be synthetic, while the translator is down. `stale`: what is cached, however old, for 5 seconds, else SERVFAIL; `servfail`: SERVFAIL, so that clients ask their second resolver; `nodata`: \"no such data\", for 5 seconds at most.";
        limit: DnsLimit = "limit", Otherwise("defaults"), Reload, "How often one client may ask over UDP. Half of what is over it is told to come back over TCP, the rest is dropped.";
        cache: u64 = "cache", Default("64"), Restart, "Memory of the caches and of questions in flight in MiB, 1 to 4096.";
        tls: DnsTls = "tls", Otherwise("clients ask over UDP and TCP only"), Below, "TLS (RFC 7858) and HTTPS (RFC 8484) for clients. At least one of `listen` and `https` is needed.";
        connections: DnsConnections = "connections", Otherwise("defaults"), Below, "Bounds of the connections of clients, over TCP, TLS and HTTPS.";
        upstream_ca: PathBuf = "upstream-ca", Otherwise("the authorities of the system"), Reload, "PEM file with the certificate authorities that vouch for resolvers asked over TLS or HTTPS, instead of those of the system. Read at start and by every reload.";
        top_names: u64 = "top-names", Default("0"), Reload, "So many of the names that are asked most are kept in memory, for `sampan status`, 0 to 1000. With 0 no name is remembered and nobody learns what was asked.";
    }
}

section! {
    /// `[dns64.tls]`
    DnsTls {
        certificate: PathBuf = "certificate", Required, Reload, "PEM file with the certificate, followed by those of its issuers. The file is watched: a new certificate holds from the next connection on; one that cannot be used is reported, and the old one stays.";
        key: PathBuf = "key", Required, Reload, "PEM file with the private key of the certificate. The user `sampan` has to be able to read it, or a new certificate takes a restart.";
        listen: Vec<At<ListenOn<853>>> = "listen", Otherwise("no DNS over TLS"), Restart, "Addresses to answer on over TLS. The port is 853 when left out.";
        https: Vec<At<ListenOn<443>>> = "https", Otherwise("no DNS over HTTPS"), Restart, "Addresses to answer on over HTTPS (HTTP/2). The port is 443 when left out.";
        https_path: String = "https-path", Default("\"/dns-query\""), Reload, "Path of the requests over HTTPS.";
    }
}

section! {
    /// `[dns64.connections]`
    DnsConnections {
        most: u64 = "most", Default("512"), Restart, "Connections of all clients together, 1 to 65536.";
        per_client: u64 = "per-client", Default("16"), Restart, "Connections of one client address, 1 to 65536.";
        idle: u64 = "idle", Default("10"), Restart, "Seconds without a question after which a connection is closed (RFC 7766 §6.2.3), 1 to 3600.";
        handshake: u64 = "handshake", Default("5"), Restart, "Seconds that a TLS handshake may take, 1 to 60.";
    }
}

section! {
    /// `[[dns64.view]]`
    DnsView {
        name: String = "name", Required, Reload, "Its name.";
        units: Vec<At<String>> = "units", Otherwise("none"), Reload, "Its clients: the networks of these units.";
        clients: Vec<At<PrefixAny>> = "clients", Otherwise("none"), Reload, "Its clients: these networks. They still need permission to ask.";
        transports: Vec<At<Transport>> = "transports", Otherwise("all"), Reload, "It is about questions that come in these ways.";
        prefixes: Vec<At<Pref64>> = "prefixes", Otherwise("all of the translator"), Reload, "Translation prefixes of its clients, out of those of the translator.";
        mode: Synthesis = "mode", Otherwise("as in `[dns64]`"), Reload, "What happens to AAAA questions.";
        on_error: OnError = "on-error", Otherwise("as in `[dns64]`"), Reload, "What follows an AAAA answer that is an error or does not come.";
        exclude_aaaa: Vec<At<Prefix6>> = "exclude-aaaa", Otherwise("as in `[dns64]`"), Reload, "AAAA records that are treated as absent.";
        filter_a: bool = "filter-a", Otherwise("as in `[dns64]`"), Reload, "Answer A questions with \"no such data\".";
        names: Vec<At<DnsName>> = "names", Otherwise("as in `[dns64]`"), Reload, "Names that are treated otherwise.";
        range: Vec<At<DnsRange>> = "range", Otherwise("as in `[dns64]`"), Reload, "IPv4 networks with translation prefixes of their own.";
    }
}

section! {
    /// `[[dns64.names]]`
    DnsName {
        suffix: Name = "suffix", Required, Reload, "The name, with all that is below it. The longest counts.";
        mode: Synthesis = "mode", Required, Reload, "What happens to AAAA questions about it.";
    }
}

section! {
    /// `[[dns64.range]]`
    DnsRange {
        ipv4: Prefix4 = "ipv4", Required, Reload, "The IPv4 network.";
        prefixes: Vec<At<Pref64>> = "prefixes", Required, Reload, "Its translation prefixes, out of those of the translator. An empty list: no addresses are made for it.";
    }
}

section! {
    /// `[[dns64.forward]]`
    Forward {
        names: Vec<At<Name>> = "names", Required, Reload, "The names, each with all that is below it.";
        upstream: Vec<At<Upstream>> = "upstream", Required, Reload, "Resolvers to ask, best first.";
        trust_ad: bool = "trust-ad", Default("false"), Reload, "Hand on the AD bit of these resolvers.";
    }
}

section! {
    /// `[[dns64.zone]]`
    LocalZone {
        name: Name = "name", Required, Reload, "Its name. What is not written down below it does not exist.";
        records: Vec<At<String>> = "records", Required, Reload, "Its records: `owner [TTL] A|AAAA|CNAME|PTR|TXT data`. The owner is relative to the zone, `@` is the zone itself; names in the data are whole. The TTL is 300 when left out.";
    }
}

section! {
    /// `[dns64.limit]`
    DnsLimit {
        per_second: u64 = "per-second", Default("0"), Reload, "Questions per second, up to 1000000, counted by each thread that receives; 0 is no limit.";
        burst: u64 = "burst", Default("1000"), Reload, "Questions that may come at once after a pause.";
        client: u64 = "client", Default("64"), Reload, "Prefix length that is one IPv6 client, 32 to 128. An IPv4 address is one.";
    }
}

section! {
    /// `[[unit]]`
    Unit {
        name: String = "name", Required, Reload, "Its name.";
        prefixes: Vec<At<Prefix6>> = "prefixes", Required, Reload, "Its IPv6 networks.";
        pool: String = "pool", Otherwise("the common pool"), Reload, "Name of the pool that its subscribers get their blocks from. A subscriber keeps the blocks that it has.";
        max_blocks: u64 = "max-blocks", Otherwise("`nat64.ports.max-blocks`"), Reload, "Blocks of one of its subscribers at most; 0 is no limit.";
        quota: UnitQuota = "quota", Otherwise("no limits"), Reload, "What all its subscribers together may have; 0 is no limit. Has no effect with `[siit]`.";
    }
}

section! {
    /// `[health]`
    Health {
        down_after: u64 = "down-after", Default("3"), Reload, "Seconds of failing, 3 to 300, after which the translator is down. It is looked at every second: each worker has to translate a test packet within a second, the TUN must be up, the routes of the translation prefixes must point at it, and IPv4 must lead out.";
        up_after: u64 = "up-after", Default("2"), Reload, "Seconds of working, up to 300, after which it is up again.";
        egress: Vec<At<Ipv4Addr>> = "egress", Otherwise("a route to the Internet if there has been one since the start, else any route out of this machine"), Reload, "IPv4 addresses that must be routed out of another interface than the TUN. They are only looked up in the routing tables. An empty list: nothing is looked up.";
        targets: Vec<At<SocketAddr>> = "targets", Otherwise("none"), Reload, "Addresses and TCP ports outside that are tried every 5 seconds. That none of them answers is shown as a warning. The port is 53 when left out.";
        targets_count: bool = "targets-count", Default("false"), Reload, "Whether the translator is down when none of `targets` answers.";
        restart_grace: u64 = "restart-grace", Default("120"), Reload, "Seconds, up to 86400, for which a gateway may be away before its DNS64, when that runs by itself (`run --only dns64`), takes it for down.";
        gateway: PathBuf = "gateway", Otherwise("`admin.socket`, on which there need not be any gateway"), Restart, "The socket of the gateway whose state such a DNS64 goes by. A gateway that is named here is down when it has not answered for `restart-grace`, even if it never did.";
    }
}

section! {
    /// `[ra]`
    Ra {
        interfaces: Vec<At<String>> = "interfaces", Required, Restart, "Interfaces on which they are sent.";
        max_interval: u64 = "max-interval", Default("600"), Restart, "Longest time between two of them, 4 to 1800 seconds. RFC 4861: MaxRtrAdvInterval.";
        min_interval: u64 = "min-interval", Otherwise("a third of `max-interval`"), Restart, "Shortest time between two that nobody has asked for, 3 seconds to three quarters of `max-interval`. RFC 4861: MinRtrAdvInterval.";
        router_lifetime: u64 = "router-lifetime", Default("0"), Restart, "Seconds for which this machine is a default router, `max-interval` to 9000; 0: it is none. RFC 4861: AdvDefaultLifetime.";
        pref64: bool = "pref64", Default("true"), Restart, "Whether the translation prefixes are told.";
        pref64_lifetime: u64 = "pref64-lifetime", Otherwise("three times `max-interval`, at least `router-lifetime`"), Restart, "Seconds for which they hold, up to 65528; rounded up to a multiple of 8.";
        dns: Vec<At<Ipv6Addr>> = "dns", Otherwise("none"), Restart, "Resolvers to tell, usually the addresses of `dns64.listen`.";
        dns_lifetime: u64 = "dns-lifetime", Otherwise("three times `max-interval`"), Restart, "Seconds for which they hold, at least `max-interval`.";
        managed: bool = "managed", Default("false"), Restart, "Set the M flag: addresses come by DHCPv6. It should say what other routers of the link say.";
        other_config: bool = "other-config", Default("false"), Restart, "Set the O flag: other things come by DHCPv6.";
    }
}

section! {
    /// `[admin]`
    Admin {
        socket: PathBuf = "socket", Default("\"/run/sampan/admin.sock\""), Restart, "The Unix socket that the `sampan` commands talk to.";
        dns64_socket: PathBuf = "dns64-socket", Default("\"/run/sampan/dns64.sock\""), Restart, "The same of a DNS64 that runs by itself (`run --only dns64`); commands find it with `--socket`.";
    }
}

section! {
    /// `[tun]`
    Tun {
        name: String = "name", Default("\"nat64\""), Restart, "Name of the device; it stays after a restart.";
    }
}

section! {
    /// `[log]`
    Log {
        level: Level = "level", Default("\"info\""), Restart, "How much is said.";
    }
}
