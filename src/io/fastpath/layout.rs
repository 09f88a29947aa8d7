//! What daemon and programs share in memory: `src/io/bpf/fastpath.h` in Rust.
//!
//! Whatever both sides may write at any time is atomic. A record's first half is written only while no rule holds, and
//! becomes one by its last word.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

use super::Config;
use crate::nat64::mirror::{Rule, Scope, Seen, Traffic};
use crate::nat64::settings::Protocol;
use crate::nat64::witness::FlowWitness;
use crate::time::Instant;
use crate::wire::checksum::Sum;
use crate::wire::l4;
use crate::xlat::{Delta, FlowPair};

/// Version of everything here.
pub(super) const LAYOUT: u32 = 3;
/// Scopes that have a generation; a rule of any other is refused.
pub const SCOPES: u16 = 1024;
/// Most prefixes of each family that the programs look at packets for.
pub const POOLS: usize = 32;
const TICK_SHIFT: u32 = 26;
/// Workers that can be told of the end of a connection, and how many ends may wait for each.
pub(super) const LISTENERS: usize = 16;
const NOTICES: usize = 16_384;
/// Words of the longer key.
pub(super) const KEY_WORDS: usize = 10;
const FIXED_TOS: u32 = 1;
const FIXED_TRAFFIC_CLASS: u32 = 2;

const FREE: u8 = 0;
const CHANGING: u8 = 1;
const LIVE: u8 = 2;
/// The word of [`Fixed`] that holds the state.
const STATE_WORD: usize = 5;
/// The word of [`Fixed`] that says whose the flow is.
const OWNER_WORD: usize = 7;

/// What a flow is found by from IPv6, as the programs see it: addresses, ports, protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key6(pub(super) [u32; KEY_WORDS]);

/// The same from IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key4(pub(super) [u32; 4]);

/// The half of a record that says what to do.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Fixed {
    src6: [u8; 16],
    dst6: [u8; 16],
    src4: [u8; 4],
    dst4: [u8; 4],
    port6: [u8; 2],
    port4: [u8; 2],
    peer_port: [u8; 2],
    protocol: u8,
    state: u8,
    /// Sums of words in network byte order.
    delta_addresses: [u8; 2],
    delta_ports: [u8; 2],
    scope: u16,
    generation: u16,
    worker: u32,
    tag: u32,
}

/// One flow in shared memory.
#[repr(C)]
pub(super) struct Record {
    fixed: [AtomicU64; 8],
    last6: AtomicU32,
    last4: AtomicU32,
    packets6: AtomicU64,
    packets4: AtomicU64,
    bytes6: AtomicU64,
    bytes4: AtomicU64,
    witness: [AtomicU32; 6],
}

/// Connections that have ended, for one worker: a ring that programs fill and the worker empties.
#[repr(C)]
pub(super) struct Notices {
    head: AtomicU32,
    spare: [AtomicU32; 15],
    tail: AtomicU32,
    spare2: [AtomicU32; 15],
    /// Tag of a record plus one; zero: nothing yet.
    of: [AtomicU32; NOTICES],
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Pool6 {
    addr: [u8; 16],
    mask: [u8; 16],
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Pool4 {
    addr: [u8; 4],
    mask: [u8; 4],
    /// Ports that are ours where the machine has the address, too; otherwise zero.
    low: u16,
    high: u16,
}

/// What the programs are told.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    layout: u32,
    flags: u32,
    heartbeat: u64,
    orphan_limit: u64,
    seed: u64,
    interval: u64,
    burst: u64,
    reserve: u64,
    subscriber_mask: [u8; 16],
    tun: u32,
    port_shift: u32,
    mtu6: u16,
    mtu4: u16,
    lowest_mtu6: u16,
    tos: u8,
    traffic_class: u8,
    ident_base: u32,
    ident_span: u32,
    mask6: u32,
    mask4: u32,
    secret: [u32; KEY_WORDS],
    pools6: u32,
    pools4: u32,
    pool6: [Pool6; POOLS],
    pool4: [Pool4; POOLS],
}

const TOLD_WORDS: usize = size_of::<Told>() / 8;
const HEARTBEAT_WORD: usize = 1;
const SEED_WORD: usize = 3;

/// What the maps say and no configuration: the seed, what has been made of it, and the size of both indexes.
pub(super) struct Found {
    pub(super) seed: u64,
    pub(super) secret: [u32; KEY_WORDS],
    pub(super) masks: (u32, u32),
}

/// [`Told`] in shared memory.
#[repr(C)]
pub(super) struct Board([AtomicU64; TOLD_WORDS]);

/// Names of the counters, in the order of `enum counter`.
pub(super) const COUNTERS: [&str; 20] = [
    "sent_v6_to_v4",
    "sent_v4_to_v6",
    "segments_v6_to_v4",
    "segments_v4_to_v6",
    "bytes_v6_to_v4",
    "bytes_v4_to_v6",
    "up_miss",
    "up_stale",
    "up_orphan",
    "up_control",
    "up_protocol",
    "up_fragment",
    "up_options",
    "up_hop_limit",
    "up_odd",
    "up_no_checksum",
    "up_too_big",
    "up_route",
    "drop_policed",
    "drop_failed",
];

/// Value of `counters`.
pub(super) type Counters = [u64; COUNTERS.len()];

const _: () = assert!(size_of::<Fixed>() == 64 && size_of::<Record>() == 128);
const _: () = assert!(std::mem::offset_of!(Fixed, state) == STATE_WORD * 8 + 7);
const _: () = assert!(std::mem::offset_of!(Fixed, worker) == OWNER_WORD * 8);
const _: () = assert!(std::mem::offset_of!(Record, witness) == 104);
const _: () = assert!(size_of::<Notices>() == 128 + 4 * NOTICES);
const _: () = assert!(size_of::<Told>() == 152 + 44 * POOLS && size_of::<Board>() == size_of::<Told>());
const _: () = assert!(std::mem::offset_of!(Told, heartbeat) == HEARTBEAT_WORD * 8);
const _: () = assert!(std::mem::offset_of!(Told, seed) == SEED_WORD * 8);

impl Key6 {
    fn of(fixed: &Fixed) -> Self {
        let Fixed { src6, dst6, port6, peer_port, protocol, .. } = *fixed;
        let [s0, s1, s2, s3] = words(src6);
        let [d0, d1, d2, d3] = words(dst6);
        Self([s0, s1, s2, s3, d0, d1, d2, d3, ports(port6, peer_port), protocol.into()])
    }
}

impl Key4 {
    fn of(fixed: &Fixed) -> Self {
        let Fixed { src4, dst4, port4, peer_port, protocol, .. } = *fixed;
        Self([u32::from_ne_bytes(dst4), u32::from_ne_bytes(src4), ports(peer_port, port4), protocol.into()])
    }
}

/// As they lie in a packet, source first.
const fn ports([a, b]: [u8; 2], [c, d]: [u8; 2]) -> u32 {
    u32::from_ne_bytes([a, b, c, d])
}

fn words(address: [u8; 16]) -> [u32; 4] {
    std::array::from_fn(|word| u32::from_ne_bytes(std::array::from_fn(|byte| address[word * 4 + byte])))
}

impl Fixed {
    /// `None` for a protocol or scope that has no place here.
    fn of(rule: &Rule) -> Option<Self> {
        let FlowPair { src6, port6, dst6, src4, port4, dst4, peer_port } = rule.flow;
        let protocol = match rule.protocol {
            Protocol::Tcp => l4::TCP,
            Protocol::Udp => l4::UDP,
            Protocol::Icmp => return None,
        };
        let ports = Sum::ZERO.minus_word(port6).word(port4).fold();
        (rule.scope.number < SCOPES).then_some(Self {
            src6: src6.octets(),
            dst6: dst6.octets(),
            src4: src4.octets(),
            dst4: dst4.octets(),
            port6: port6.to_be_bytes(),
            port4: port4.to_be_bytes(),
            peer_port: peer_port.to_be_bytes(),
            protocol,
            state: CHANGING,
            delta_addresses: rule.delta.addresses.to_be_bytes(),
            delta_ports: ports.to_be_bytes(),
            scope: rule.scope.number,
            generation: rule.scope.generation,
            worker: 0,
            tag: 0,
        })
    }

    fn rule(&self) -> Option<Rule> {
        let flow = FlowPair {
            src6: self.src6.into(),
            port6: u16::from_be_bytes(self.port6),
            dst6: self.dst6.into(),
            src4: self.src4.into(),
            port4: u16::from_be_bytes(self.port4),
            dst4: self.dst4.into(),
            peer_port: u16::from_be_bytes(self.peer_port),
        };
        let protocol = match self.protocol {
            l4::TCP => Protocol::Tcp,
            l4::UDP => Protocol::Udp,
            _ => return None,
        };
        let scope = Scope { number: self.scope, generation: self.generation };
        Some(Rule { protocol, flow, delta: Delta::v6_to_v4(&flow), scope })
    }

    const fn words(self) -> [u64; 8] {
        // SAFETY: both are 64 bytes without padding, and any bytes are a value of either.
        unsafe { std::mem::transmute::<Self, [u64; 8]>(self) }
    }

    const fn from_words(words: [u64; 8]) -> Self {
        // SAFETY: as in `words`.
        unsafe { std::mem::transmute::<[u64; 8], Self>(words) }
    }
}

impl Notices {
    /// The tag of the connection that ended first, of those not told yet.
    pub(super) fn next(&self) -> Option<u32> {
        let tail = self.tail.load(Relaxed);
        let place = self.of.get(tail as usize % NOTICES)?;
        let tag = place.load(Acquire).checked_sub(1)?;
        place.store(0, Relaxed);
        self.tail.store(tail.wrapping_add(1), Release);
        Some(tag)
    }
}

impl Record {
    /// Writes a rule that does not hold yet. Gives the keys under which it is to be found.
    pub(super) fn write(&self, rule: &Rule, witness: &FlowWitness) -> Option<(Key6, Key4)> {
        let fixed = Fixed::of(rule)?;
        // The state goes first, so that nothing half written is ever taken for a rule.
        self.set_state(CHANGING);
        for (slot, word) in self.fixed.iter().zip(fixed.words()) {
            slot.store(word, Relaxed);
        }
        for last in [&self.last6, &self.last4] {
            last.store(0, Relaxed);
        }
        for counter in [&self.packets6, &self.packets4, &self.bytes6, &self.bytes4] {
            counter.store(0, Relaxed);
        }
        self.set_witness(witness);
        Some((Key6::of(&fixed), Key4::of(&fixed)))
    }

    /// Says whose the flow is: the worker, and what the flow is to it.
    pub(super) fn set_owner(&self, worker: u16, tag: u32) {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&u32::from(worker).to_ne_bytes());
        bytes[4..].copy_from_slice(&tag.to_ne_bytes());
        self.fixed[OWNER_WORD].store(u64::from_ne_bytes(bytes), Relaxed);
    }

    pub(super) fn keys(&self) -> (Key6, Key4) {
        let fixed = self.fixed();
        (Key6::of(&fixed), Key4::of(&fixed))
    }

    pub(super) fn rule(&self) -> Option<Rule> {
        self.fixed().rule()
    }

    pub(super) fn is_live(&self) -> bool {
        self.state() == LIVE
    }

    pub(super) fn is_free(&self) -> bool {
        self.state() == FREE
    }

    /// The rule holds from now on.
    pub(super) fn begin(&self) {
        self.set_state(LIVE);
    }

    /// The rule holds no more.
    pub(super) fn end(&self) {
        self.set_state(CHANGING);
    }

    /// Nothing points here any more.
    pub(super) fn release(&self) {
        self.set_state(FREE);
    }

    pub(super) fn seen(&self) -> Seen {
        let at = |tick: &AtomicU32| Instant::from_nanos(u64::from(tick.load(Relaxed)) << TICK_SHIFT);
        let traffic = |packets: &AtomicU64, bytes: &AtomicU64| Traffic {
            packets: packets.load(Relaxed),
            bytes: bytes.load(Relaxed),
        };
        let words = self.witness.each_ref().map(|word| word.load(Relaxed));
        Seen {
            last6: at(&self.last6),
            last4: at(&self.last4),
            from6: traffic(&self.packets6, &self.bytes6),
            from4: traffic(&self.packets4, &self.bytes4),
            // SAFETY: both are 24 bytes without padding, and any bytes are a value of either.
            witness: unsafe { std::mem::transmute::<[u32; 6], FlowWitness>(words) },
        }
    }

    pub(super) fn set_witness(&self, witness: &FlowWitness) {
        // SAFETY: as in `seen`.
        let words = unsafe { std::mem::transmute::<FlowWitness, [u32; 6]>(*witness) };
        for (slot, word) in self.witness.iter().zip(words) {
            slot.store(word, Relaxed);
        }
    }

    fn fixed(&self) -> Fixed {
        Fixed::from_words(self.fixed.each_ref().map(|word| word.load(Relaxed)))
    }

    fn state(&self) -> u8 {
        let [.., state] = self.fixed[STATE_WORD].load(Relaxed).to_ne_bytes();
        state
    }

    fn set_state(&self, state: u8) {
        let mut bytes = self.fixed[STATE_WORD].load(Relaxed).to_ne_bytes();
        bytes[7] = state;
        self.fixed[STATE_WORD].store(u64::from_ne_bytes(bytes), Release);
    }
}

impl Board {
    /// Layout of whoever wrote the board; zero when nobody has.
    pub(super) fn layout(&self) -> u32 {
        self.read().layout
    }

    /// Says what `config` and `found` say; the heartbeat stays.
    pub(super) fn write(&self, config: &Config, found: &Found) {
        let told = Told::of(config, found);
        // SAFETY: both have the same size, `Told` has no padding, and any bytes are an array of words.
        let words = unsafe { std::mem::transmute::<Told, [u64; TOLD_WORDS]>(told) };
        for (at, (slot, word)) in self.0.iter().zip(words).enumerate() {
            if at != HEARTBEAT_WORD {
                slot.store(word, Relaxed);
            }
        }
    }

    pub(super) fn seed(&self) -> u64 {
        self.read().seed
    }

    /// Before there are records that are found by it.
    pub(super) fn set_seed(&self, seed: u64) {
        self.0[SEED_WORD].store(seed, Release);
    }

    pub(super) fn set_heartbeat(&self, now: Instant) {
        self.0[HEARTBEAT_WORD].store(now.as_nanos(), Release);
    }

    fn read(&self) -> Told {
        let words = self.0.each_ref().map(|word| word.load(Relaxed));
        // SAFETY: as in `write`.
        unsafe { std::mem::transmute::<[u64; TOLD_WORDS], Told>(words) }
    }
}

impl Told {
    fn of(config: &Config, found: &Found) -> Self {
        let mut pool6 = [Pool6::default(); POOLS];
        for (slot, prefix) in pool6.iter_mut().zip(&config.pool6) {
            *slot = Pool6 { addr: prefix.addr().octets(), mask: mask(prefix.len()) };
        }
        let mut pool4 = [Pool4::default(); POOLS];
        let shared = config.shared.iter().map(|(addr, ports)| Pool4 {
            addr: addr.octets(),
            mask: mask(32),
            low: *ports.start(),
            high: *ports.end(),
        });
        let whole = config.pool4.iter().map(|prefix| Pool4 {
            addr: prefix.addr().octets(),
            mask: mask(prefix.len()),
            ..Pool4::default()
        });
        for (slot, pool) in pool4.iter_mut().zip(shared.chain(whole)) {
            *slot = pool;
        }
        let interval = 1_000_000_000_u64.checked_div(config.miss_rate.into()).unwrap_or(0);
        let burst = interval * u64::from(config.miss_burst.max(1));
        let flag = |octet: Option<u8>, flag: u32| if octet.is_some() { flag } else { 0 };
        Self {
            layout: LAYOUT,
            flags: flag(config.tos, FIXED_TOS) | flag(config.traffic_class, FIXED_TRAFFIC_CLASS),
            heartbeat: 0,
            orphan_limit: u64::try_from(config.orphan_limit.as_nanos()).unwrap_or(u64::MAX),
            seed: found.seed,
            interval,
            burst,
            // A quarter of the bucket is for what ends or corrects flows.
            reserve: burst / 4,
            subscriber_mask: mask(config.subscriber_len),
            tun: config.tun_index,
            port_shift: config.port_shift.into(),
            mtu6: config.mtu6,
            mtu4: config.mtu4,
            lowest_mtu6: config.lowest_ipv6_mtu,
            tos: config.tos.unwrap_or(0),
            traffic_class: config.traffic_class.unwrap_or(0),
            ident_base: config.ident_base.into(),
            ident_span: config.ident_span.into(),
            mask6: found.masks.0,
            mask4: found.masks.1,
            secret: found.secret,
            pools6: config.pool6.len().min(POOLS) as u32,
            pools4: (config.pool4.len() + config.shared.len()).min(POOLS) as u32,
            pool6,
            pool4,
        }
    }
}

/// The mask of a prefix as bytes on the wire.
fn mask<const N: usize>(len: u8) -> [u8; N] {
    std::array::from_fn(|byte| {
        let bits = usize::from(len).saturating_sub(byte * 8).min(8);
        (0xff00_u16 >> bits) as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = include_str!("../bpf/fastpath.h");

    fn constant(name: &str) -> u64 {
        let line = HEADER.lines().find_map(|l| l.strip_prefix(&format!("#define {name} ")));
        let text = line.unwrap_or_else(|| panic!("no {name} in the header"));
        text.strip_prefix("0x").map_or_else(|| text.parse(), |hex| u64::from_str_radix(hex, 16)).unwrap()
    }

    #[test]
    fn header_and_rust_agree() {
        use super::super::index;
        use crate::nat64::witness::Direction;
        for (name, here) in [
            ("LAYOUT", LAYOUT.into()),
            ("SCOPES", SCOPES.into()),
            ("POOLS", POOLS as u64),
            ("TICK_SHIFT", TICK_SHIFT.into()),
            ("ENTRIES", index::ENTRIES as u64),
            ("SLOT_BITS", index::SLOT_BITS.into()),
            ("KEY_WORDS", KEY_WORDS as u64),
            ("FIXED_TOS", FIXED_TOS.into()),
            ("FIXED_TRAFFIC_CLASS", FIXED_TRAFFIC_CLASS.into()),
            ("STATE_FREE", FREE.into()),
            ("STATE_CHANGING", CHANGING.into()),
            ("STATE_LIVE", LIVE.into()),
            ("SEEN", Direction::SEEN.into()),
            ("ACKED", Direction::ACKED.into()),
            ("SCALED", Direction::SCALED.into()),
        ] {
            assert_eq!(constant(name), here, "{name}");
        }
        let list = HEADER.split("enum counter {").nth(1).unwrap().split('}').next().unwrap();
        let names: Vec<_> =
            list.split(',').map(|n| n.trim().to_lowercase()).filter(|n| !n.is_empty()).collect();
        assert_eq!(names[..names.len() - 1], COUNTERS);
    }

    #[test]
    fn a_rule_comes_back_as_it_went_in() {
        let flow = FlowPair {
            src6: "2001:db8::1".parse().unwrap(),
            port6: 40_000,
            dst6: "64:ff9b::cb00:7109".parse().unwrap(),
            src4: "198.51.100.1".parse().unwrap(),
            port4: 1025,
            dst4: "203.0.113.9".parse().unwrap(),
            peer_port: 443,
        };
        let scope = Scope { number: 7, generation: 9 };
        let rule = Rule { protocol: Protocol::Udp, flow, delta: Delta::v6_to_v4(&flow), scope };
        let fixed = Fixed::of(&rule).unwrap();
        assert_eq!(Fixed::from_words(fixed.words()).rule(), Some(rule));
        assert_eq!(Fixed::of(&Rule { protocol: Protocol::Icmp, ..rule }), None);
        let far = Scope { number: SCOPES, generation: 0 };
        assert_eq!(Fixed::of(&Rule { scope: far, ..rule }), None);
    }

    #[test]
    fn masks() {
        assert_eq!(mask::<4>(0), [0; 4]);
        assert_eq!(mask::<4>(9), [255, 128, 0, 0]);
        assert_eq!(mask::<4>(32), [255; 4]);
        assert_eq!(mask::<16>(64)[7..9], [255, 0]);
    }
}
