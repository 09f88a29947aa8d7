//! Checks of `[nat64]` and `[[unit]]`.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::ports::{blocks, enough_for_all, pools_of_units, ports, quota, quota_of};
use super::{
    Allowed, MAX_WORKERS, MtuPlan, Nat64Plan, Pool4Mode, Pool4Plan, absolute, interface_name, static_bib,
};
use crate::addr::{Prefix4, Prefix6, is_illegal_source6, is_non_global};
use crate::control::config::{self, At, Mode};
use crate::control::problem::{Fault, Problems};
use crate::nat64::policy::{Assignment, Quotas};
use crate::nat64::pool4::span;
use crate::nat64::settings::{
    Classes, FRAGMENT_MIN, Filter, Filtering, Fragments, ICMP_DEFAULT, IPV6_MIN_MTU, Limits, Pool4Range,
    TCP_EST, TCP_INCOMING_SYN, TCP_TRANS, Timers, UDP_MIN, Unit,
};
use crate::text::shown;
use crate::xlat::pref64::Pref64;

/// Addresses of all pool ranges together. The block table takes one byte for each block.
const MAX_POOL_ADDRESSES: u64 = 65_536;
/// A week: no lifetime needs more, and the timers need a bound.
pub(super) const MAX_TIMER: u64 = 604_800;
/// The shortest translation prefix: a whole provider's allocation.
const WIDEST: u8 = 32;
/// Longest time that fragments may wait for the rest (RFC 8200 §4.5).
const FRAGMENT_MAX: u64 = 60;
/// Pieces of the smallest kind that make up the longest datagram.
const MAX_PIECES: u64 = 8_192;

/// Checks the sections and makes the plan. What could not be read is replaced by its default; the problems then
/// say that there is no plan.
pub(super) fn build(
    section: &config::Nat64,
    units: Option<&At<Vec<At<config::Unit>>>>,
    tun_name: &str,
    problems: &mut Problems,
) -> Nat64Plan {
    let pool6 = pool6(section, problems);
    let block_size = block_size(section, problems);
    let pool4 = pool4(section, block_size, tun_name, problems);
    let subscriber = number(section.subscriber.as_ref(), 128u8, 1..=128, problems);
    let units = units.map(|at| self::units(at, &pool6, subscriber, problems)).unwrap_or_default();
    // Not worth a word while something else is wrong.
    if units.is_empty() && !problems.any_error() {
        problems.warning("unit", Fault::NoUnits);
    }
    let workers = section.workers.as_ref().map(|at| number(Some(at), 1u16, 1..=MAX_WORKERS.into(), problems));
    if let Some(workers) = workers {
        enough_blocks(&pool4, block_size, workers, problems);
    }
    let key_file = absolute(section.key_file.as_ref(), "/var/lib/sampan/key", problems);
    let assignment = section.block_assignment.as_ref().map(|at| at.value).unwrap_or_default();
    pools_of_units(&pool4, &units, problems);
    let limits = limits(section, problems);
    let reserved: u64 = units.iter().map(|unit| u64::from(unit.reserve)).sum();
    if reserved >= limits.sessions.into() {
        problems.error("unit", Fault::ReserveTooLarge { reserved, sessions: limits.sessions });
    }
    if assignment == Assignment::Permuted {
        enough_for_all(section, &pool4, block_size, &units, subscriber, problems);
    }
    let reach_gateway = section.reach_gateway.as_ref().is_some_and(|at| at.value);
    if reach_gateway && pool4.iter().any(|pool| pool.mode == Pool4Mode::Shared) {
        problems.error("nat64.reach-gateway", Fault::SharedReach);
    }
    let static_bib = static_bib::build(section.static_bib.as_ref(), &pool6, &pool4, &units, problems);
    Nat64Plan {
        static_bib,
        assignment,
        journal: match &section.journal {
            Some(at) => absolute(Some(at), "", problems),
            None => key_file.with_extension("blocks"),
        },
        ports: ports(section, problems),
        quotas: Quotas {
            subscriber: quota(section.quota.as_ref(), problems),
            network: quota(section.network_quota.as_ref(), problems),
            eviction: section.when_full.as_ref().map(|at| at.value).unwrap_or_default(),
        },
        allow: allow(section.allow.as_ref(), &pool6, problems),
        block_size,
        subscriber_len: subscriber,
        key_file,
        workers,
        filtering: filtering(section),
        timers: timers(section, problems),
        limits,
        mtu: mtu(&section.mtu6, &section.mtu4, &section.lowest_ipv6_mtu, problems),
        reach_gateway,
        mss_clamp: section.mss_clamp.as_ref().is_none_or(|at| at.value),
        classes: classes(&section.tos, &section.traffic_class, problems),
        fragments: fragments(section, problems),
        icmp6_source: icmp6_source(section.icmp6_source.as_ref(), &pool6, problems),
        pool6,
        pool4,
        units,
    }
}

fn pool6(section: &config::Nat64, problems: &mut Problems) -> Vec<Pref64> {
    let Some(list) = &section.pool6 else { return vec![Pref64::well_known()] };
    nonempty(list, problems);
    for (i, at) in list.value.iter().enumerate() {
        pref64(at, problems);
        let prefix = at.value.prefix();
        let value = || at.value.to_string();
        let earlier = list.value.iter().take(i).find(|other| other.value.prefix().overlaps(prefix));
        if let Some(other) = earlier {
            let (other, at_path) = (other.value.to_string(), other.path.clone());
            problems.error(&at.path, Fault::Overlap { value: value(), other, at: at_path });
        }
    }
    list.value.iter().map(|at| at.value).collect()
}

/// Checks one translation prefix by itself.
pub(super) fn pref64(at: &At<Pref64>, problems: &mut Problems) {
    let (prefix, value) = (at.value.prefix(), at.value.to_string());
    if prefix.overlaps(Pref64::well_known().prefix()) && !at.value.is_well_known() {
        problems.error(&at.path, Fault::NearWellKnown { value: value.clone() });
    }
    if !is_unicast6(prefix) {
        problems.error(&at.path, Fault::NotUnicast { value });
    } else if prefix.len() == WIDEST {
        problems.warning(&at.path, Fault::Pref64Wide { value });
    }
}

fn block_size(section: &config::Nat64, problems: &mut Problems) -> u16 {
    size_of_blocks(section.block_size.as_ref(), 512, problems)
}

fn size_of_blocks(at: Option<&At<u64>>, usual: u16, problems: &mut Problems) -> u16 {
    let size = number(at, usual, 64..=4096, problems);
    match at {
        Some(at) if (64..=4096).contains(&at.value) && !at.value.is_power_of_two() => {
            problems.error(&at.path, Fault::NotPowerOfTwo { value: at.value });
        }
        _ => {}
    }
    size
}

fn pool4(
    section: &config::Nat64,
    block_size: u16,
    tun_name: &str,
    problems: &mut Problems,
) -> Vec<Pool4Plan> {
    let Some(list) = &section.pool4 else { return Vec::new() };
    nonempty(list, problems);
    let mut plans: Vec<Pool4Plan> = Vec::new();
    let mut seen: Vec<&At<Prefix4>> = Vec::new();
    for pool in &list.value {
        let mode = pool4_mode(pool, tun_name, problems);
        let own_size =
            pool.value.block_size.as_ref().map(|at| size_of_blocks(Some(at), block_size, problems));
        let ports = pool4_ports(pool, own_size.unwrap_or(block_size), problems);
        let name = pool.value.name.as_ref().map(|at| checked_name(at, problems));
        let Some(at) = &pool.value.prefix else { continue };
        let prefix = at.value;
        if !is_unicast4(prefix) {
            problems.error(&at.path, Fault::NotUnicast { value: prefix.to_string() });
        }
        if let Some(other) = seen.iter().find(|other| other.value.overlaps(prefix)) {
            let (other, at_path) = (other.value.to_string(), other.path.clone());
            problems.error(&at.path, Fault::Overlap { value: prefix.to_string(), other, at: at_path });
        }
        seen.push(at);
        let shared = mode == Pool4Mode::Shared;
        if shared && prefix.len() != 32 {
            problems.error(&at.path, Fault::SharedPrefix { value: prefix.to_string() });
        }
        let range = Pool4Range { prefix, ports, block_size: own_size, pool: name, shared };
        plans.push(Pool4Plan { range, mode });
    }
    let addresses = plans.iter().map(|pool| pool.range.prefix.size()).sum();
    if addresses > MAX_POOL_ADDRESSES {
        problems.error(&list.path, Fault::PoolTooLarge { addresses, max: MAX_POOL_ADDRESSES });
    }
    plans
}

fn pool4_mode(pool: &At<config::Pool4>, tun_name: &str, problems: &mut Problems) -> Pool4Mode {
    let interface = interface_name(pool.value.interface.as_ref(), problems);
    let mode = pool.value.mode.as_ref().map_or(Mode::Routed, |at| at.value);
    let on_link = mode == Mode::OnLink;
    let other = if mode == Mode::Shared { Pool4Mode::Shared } else { Pool4Mode::Routed };
    match interface {
        Some(interface) if on_link => {
            if interface == tun_name {
                let path = format!("{}.interface", pool.path);
                problems.error(&path, Fault::InterfaceIsTun { value: interface.clone() });
            }
            Pool4Mode::OnLink { interface }
        }
        Some(_) => {
            problems.error(&format!("{}.interface", pool.path), Fault::InterfaceUnused);
            other
        }
        None => {
            if on_link {
                problems.error(&format!("{}.interface", pool.path), Fault::InterfaceNeeded);
            }
            other
        }
    }
}

fn pool4_ports(pool: &At<config::Pool4>, block: u16, problems: &mut Problems) -> RangeInclusive<u16> {
    let Some(at) = &pool.value.ports else { return 1024..=65_535 };
    let (low, high) = (*at.value.start(), *at.value.end());
    let ports = (u32::from(high) + 1).saturating_sub(low.into());
    let (_, blocks) = span(&at.value, block);
    let left = ports.saturating_sub(u32::from(blocks) * u32::from(block));
    if low > high {
        problems.error(&at.path, Fault::PortsReversed { low, high });
    } else if low == 0 {
        problems.error(&at.path, Fault::PortZero);
    } else if blocks == 0 {
        problems.error(&at.path, Fault::PortsBelowBlock { ports, block });
    } else if left != 0 {
        problems.warning(&at.path, Fault::PortsLeftOver { left, block });
    }
    at.value.clone()
}

fn enough_blocks(pool4: &[Pool4Plan], block_size: u16, workers: u16, problems: &mut Problems) {
    let blocks: u64 = pool4.iter().map(|pool| blocks(pool, block_size)).sum();
    if blocks < workers.into() && !problems.any_error() {
        problems.error("nat64.pool4", Fault::PoolTooSmall { blocks, workers });
    }
}

pub(super) fn units(
    list: &At<Vec<At<config::Unit>>>,
    pool6: &[Pref64],
    subscriber: u8,
    problems: &mut Problems,
) -> Vec<Unit> {
    let mut plans: Vec<Unit> = Vec::new();
    let mut seen: Vec<&At<Prefix6>> = Vec::new();
    for (i, unit) in list.value.iter().enumerate() {
        let name = unit.value.name.as_ref().map(|at| checked_name(at, problems)).unwrap_or_default();
        let earlier =
            |other: &&At<config::Unit>| other.value.name.as_ref().is_some_and(|at| at.value == name);
        if let (Some(at), Some(other)) = (&unit.value.name, list.value.iter().take(i).find(earlier)) {
            let value = shown(&name, 60);
            problems.error(&at.path, Fault::DuplicateName { value, at: other.path.clone() });
        }
        let Some(prefixes) = &unit.value.prefixes else { continue };
        nonempty(prefixes, problems);
        for at in &prefixes.value {
            unit_prefix(at, &seen, pool6, subscriber, problems);
            seen.push(at);
        }
        let config::Unit { pool, max_blocks, quota, .. } = &unit.value;
        let limits = quota.as_ref().map(|at| &at.value);
        plans.push(Unit {
            name,
            prefixes: prefixes.value.iter().map(|at| at.value).collect(),
            pool: pool.as_ref().map(|at| checked_name(at, problems)),
            max_blocks: max_blocks.as_ref().map(|at| number(Some(at), 0, 0..=1_024, problems)),
            quota: limits
                .map(|q| quota_of([&q.ports, &q.sessions, &q.unanswered, &q.new_per_second], problems))
                .unwrap_or_default(),
            reserve: number(limits.and_then(|q| q.reserve.as_ref()), 0u32, 0..=16_777_216, problems),
        });
    }
    plans
}

fn unit_prefix(
    at: &At<Prefix6>,
    seen: &[&At<Prefix6>],
    pool6: &[Pref64],
    subscriber: u8,
    problems: &mut Problems,
) {
    let value = at.value.to_string();
    if !is_unicast6(at.value) {
        problems.error(&at.path, Fault::NotUnicast { value: value.clone() });
    } else if let Some(pref64) = pool6.iter().find(|pref64| pref64.prefix().overlaps(at.value)) {
        problems.error(&at.path, Fault::InPool6 { value: value.clone(), pool6: pref64.to_string() });
    }
    if at.value.len() > subscriber {
        problems.warning(&at.path, Fault::SharedSubscriber { value: value.clone(), subscriber });
    }
    if let Some(other) = seen.iter().find(|other| other.value.overlaps(at.value)) {
        let fault = if other.value == at.value {
            Fault::Duplicate { value, at: other.path.clone() }
        } else {
            Fault::Overlap { value, other: other.value.to_string(), at: other.path.clone() }
        };
        problems.error(&at.path, fault);
    }
}

pub(super) fn allow(
    list: Option<&At<Vec<At<config::Allow>>>>,
    pool6: &[Pref64],
    problems: &mut Problems,
) -> Vec<Allowed> {
    let Some(list) = list else { return Vec::new() };
    if !list.value.is_empty() && pool6.iter().all(|pref64| pref64.is_well_known()) {
        problems.warning(&list.path, Fault::AllowWithoutEffect);
    }
    let mut plans: Vec<Allowed> = Vec::new();
    let mut seen: Vec<&At<Prefix4>> = Vec::new();
    for allow in &list.value {
        let name = allow.value.name.as_ref().map(|at| checked_name(at, problems)).unwrap_or_default();
        let Some(at) = &allow.value.prefix else { continue };
        let value = at.value.to_string();
        if !is_unicast4(at.value) {
            problems.error(&at.path, Fault::NotUnicast { value });
        } else if !touches_non_global(at.value) {
            problems.warning(&at.path, Fault::AllowGlobal { value });
        } else if let Some(other) = seen.iter().find(|other| other.value == at.value) {
            problems.error(&at.path, Fault::Duplicate { value, at: other.path.clone() });
        }
        seen.push(at);
        plans.push(Allowed { prefix: at.value, name });
    }
    plans
}

fn filtering(section: &config::Nat64) -> Filtering {
    let Some(at) = &section.filtering else { return Filtering::default() };
    let filter = |at: &Option<At<Filter>>| at.as_ref().map(|at| at.value).unwrap_or_default();
    let switch = |at: &Option<At<bool>>, usual: bool| at.as_ref().map_or(usual, |at| at.value);
    let (section, usual) = (&at.value, Filtering::default());
    Filtering {
        tcp: filter(&section.tcp),
        udp: filter(&section.udp),
        icmp: filter(&section.icmp),
        drop_external_tcp: switch(&section.drop_external_tcp, usual.drop_external_tcp),
        hold_syn: section.hold_syn.as_ref().map_or(usual.hold_syn, |at| at.value),
        stray_tcp: section.stray_tcp.as_ref().map_or(usual.stray_tcp, |at| at.value),
        inbound_refresh: switch(&section.inbound_refresh, usual.inbound_refresh),
        tell_filtered: switch(&section.tell_filtered, usual.tell_filtered),
        tell_unmapped: switch(&section.tell_unmapped, usual.tell_unmapped),
        errors_to_ipv6: switch(&section.errors_to_ipv6, usual.errors_to_ipv6),
        errors_to_ipv4: switch(&section.errors_to_ipv4, usual.errors_to_ipv4),
    }
}

fn timers(section: &config::Nat64, problems: &mut Problems) -> Timers {
    let usual = Timers::default();
    let Some(at) = &section.timers else { return usual };
    let section = &at.value;
    let mut timer = |at: &Option<At<u64>>, default: Duration, floor: Duration, source: &str| {
        let Some(at) = at else { return default };
        let floor = floor.as_secs();
        if at.value < floor {
            let source = source.to_owned();
            problems.error(&at.path, Fault::TimerTooShort { value: at.value, floor, source });
        } else if at.value > MAX_TIMER {
            let value = at.value.to_string();
            problems.error(&at.path, Fault::OutOfRange { value, low: floor, high: MAX_TIMER });
        }
        Duration::from_secs(at.value)
    };
    let timers = Timers {
        udp: timer(&section.udp_timeout, usual.udp, UDP_MIN, "RFC 6146 §4 (UDP_MIN)"),
        tcp_est: timer(&section.tcp_idle_timeout, usual.tcp_est, TCP_EST, "RFC 6146 §4 (TCP_EST)"),
        // RFC 7857 §2.1 lets this one be shorter than four minutes; it names no floor. Ours is the time a SYN
        // from outside is held, so that the two cannot cross.
        tcp_trans_open: timer(
            &section.tcp_trans_open_timeout,
            usual.tcp_trans_open,
            TCP_INCOMING_SYN,
            "RFC 6146 §4 (TCP_INCOMING_SYN)",
        ),
        tcp_trans_close: timer(
            &section.tcp_trans_close_timeout,
            usual.tcp_trans_close,
            TCP_TRANS,
            "RFC 5382 REQ-5 (TCP_TRANS)",
        ),
        icmp: timer(&section.icmp_timeout, usual.icmp, ICMP_DEFAULT, "RFC 5508 REQ-2 (ICMP_DEFAULT)"),
        tcp_in_syn: timer(
            &section.tcp_in_syn_timeout,
            usual.tcp_in_syn,
            TCP_INCOMING_SYN,
            "RFC 5382 REQ-4 (TCP_INCOMING_SYN)",
        ),
        udp_ports: port_timers(section.per_port_timeout.as_ref(), problems),
    };
    if let Some(at) = &section.tcp_trans_open_timeout {
        let usual = TCP_TRANS.as_secs();
        if (TCP_INCOMING_SYN.as_secs()..usual).contains(&at.value) {
            let source = "RFC 7857 §2.1".to_owned();
            problems.warning(&at.path, Fault::TimerShort { value: at.value, usual, source });
        }
    }
    timers
}

/// RFC 4787 REQ-5: less than UDP_MIN is for well-known ports only.
fn port_timers(
    list: Option<&At<Vec<At<config::PortTimeout>>>>,
    problems: &mut Problems,
) -> Vec<(u16, Duration)> {
    let mut timers: Vec<(u16, Duration)> = Vec::new();
    for at in list.iter().flat_map(|list| &list.value) {
        let (Some(port), Some(timeout)) = (&at.value.port, &at.value.timeout) else { continue };
        let number = number(Some(port), 1u16, 1..=65_535, problems);
        let floor = if number < 1024 { 1 } else { UDP_MIN.as_secs() };
        if timeout.value < floor {
            let source = "RFC 4787 REQ-5".to_owned();
            problems.error(&timeout.path, Fault::TimerTooShort { value: timeout.value, floor, source });
        } else if timeout.value > MAX_TIMER {
            let value = timeout.value.to_string();
            problems.error(&timeout.path, Fault::OutOfRange { value, low: floor, high: MAX_TIMER });
        }
        match timers.binary_search_by_key(&number, |(port, _)| *port) {
            Ok(_) => {
                let (value, at) = (port.value.to_string(), "nat64.timers.per-port-timeout".to_owned());
                problems.error(&port.path, Fault::Duplicate { value, at });
            }
            Err(place) => timers.insert(place, (number, Duration::from_secs(timeout.value))),
        }
    }
    timers
}

fn limits(section: &config::Nat64, problems: &mut Problems) -> Limits {
    let usual = Limits::default();
    Limits {
        sessions: number(section.sessions.as_ref(), usual.sessions, 1_024..=16_777_216, problems),
        subscribers: number(section.subscribers.as_ref(), usual.subscribers, 64..=4_194_304, problems),
        icmp_errors_per_second: number(
            section.icmp_errors_per_second.as_ref(),
            usual.icmp_errors_per_second,
            0..=1_000_000,
            problems,
        ),
    }
}

/// What one worker may store of fragments. The store holds the longest datagram at least.
fn fragments(section: &config::Nat64, problems: &mut Problems) -> Fragments {
    let usual = Fragments::default();
    let Some(at) = &section.fragments else { return usual };
    let section = &at.value;
    let datagrams = number(section.datagrams.as_ref(), usual.datagrams, 1..=1_048_576, problems);
    let per_source = usual.datagrams_per_source.min(datagrams);
    let of_a_source = section.datagrams_per_source.as_ref();
    let floor = FRAGMENT_MIN.as_secs();
    let timeout = number(section.timeout.as_ref(), floor, floor..=FRAGMENT_MAX, problems);
    Fragments {
        bytes: number(section.bytes.as_ref(), usual.bytes, 131_072..=1_073_741_824, problems),
        datagrams,
        datagrams_per_source: number(of_a_source, per_source, 1..=datagrams.into(), problems),
        pieces: number(section.pieces.as_ref(), usual.pieces, 2..=MAX_PIECES, problems),
        timeout: Duration::from_secs(timeout),
    }
}

/// Octets that are written whatever the packet says.
pub(super) fn classes(
    tos: &Option<At<u64>>,
    traffic_class: &Option<At<u64>>,
    problems: &mut Problems,
) -> Classes {
    let mut octet =
        |at: &Option<At<u64>>| at.as_ref().map(|at| number(Some(at), 0_u8, 0..=u8::MAX.into(), problems));
    Classes { tos: octet(tos), traffic_class: octet(traffic_class) }
}

pub(super) fn mtu(
    mtu6: &Option<At<u64>>,
    mtu4: &Option<At<u64>>,
    lowest_ipv6: &Option<At<u64>>,
    problems: &mut Problems,
) -> MtuPlan {
    let lowest_v6 = u64::from(IPV6_MIN_MTU);
    let mut chosen = |at: &Option<At<u64>>, low: u64| {
        at.as_ref().map(|at| number(Some(at), u16::MAX, low..=65_535, problems))
    };
    let plan = MtuPlan {
        v6: chosen(mtu6, lowest_v6),
        v4: chosen(mtu4, 68),
        lowest_ipv6: chosen(lowest_ipv6, lowest_v6).unwrap_or(IPV6_MIN_MTU),
    };
    if let (Some(lowest), Some(mtu6)) = (lowest_ipv6, mtu6)
        && lowest.value > mtu6.value
    {
        problems.error(&lowest.path, Fault::MtuOrder { lowest: lowest.value, mtu6: mtu6.value });
    }
    plan
}

pub(super) fn icmp6_source(
    at: Option<&At<std::net::Ipv6Addr>>,
    pool6: &[Pref64],
    problems: &mut Problems,
) -> Option<std::net::Ipv6Addr> {
    let at = at?;
    let value = at.value.to_string();
    if is_illegal_source6(at.value) {
        problems.error(&at.path, Fault::NotUnicast { value });
    } else if let Some(pref64) = pool6.iter().find(|pref64| pref64.contains(at.value)) {
        // Clients drop what comes from a PREF64 that they did not ask (RFC 6146 §3.5: such sources are spoofed).
        problems.error(&at.path, Fault::InPool6 { value, pool6: pref64.to_string() });
    }
    Some(at.value)
}

/// A number in its range; the default when it is absent or wrong.
pub(super) fn number<T: TryFrom<u64>>(
    at: Option<&At<u64>>,
    default: T,
    range: RangeInclusive<u64>,
    problems: &mut Problems,
) -> T {
    let Some(at) = at else { return default };
    if !range.contains(&at.value) {
        let (low, high) = (*range.start(), *range.end());
        problems.error(&at.path, Fault::OutOfRange { value: at.value.to_string(), low, high });
        return default;
    }
    T::try_from(at.value).unwrap_or(default)
}

pub(super) fn nonempty<T>(list: &At<Vec<At<T>>>, problems: &mut Problems) {
    // An entry that could not be read has had its own complaint.
    if list.value.is_empty() && !problems.complained_below(&list.path) {
        problems.error(&list.path, Fault::Empty);
    }
}

fn checked_name(at: &At<String>, problems: &mut Problems) -> String {
    let name = &at.value;
    if name.trim().is_empty() || name.chars().count() > 100 || name.contains(char::is_control) {
        problems.error(&at.path, Fault::BadName { value: shown(name, 60) });
    }
    name.clone()
}

/// Whether every address of the prefix can be that of a host on a network.
pub(super) fn is_unicast6(prefix: Prefix6) -> bool {
    let forbidden = [(0xff00_u16, 8), (0xfe80, 10)]
        .into_iter()
        .any(|(first, len)| prefix.overlaps(Prefix6::covering([first, 0, 0, 0, 0, 0, 0, 0].into(), len)));
    // ::/96 holds the unspecified address, loopback and the old IPv4-compatible addresses; ::ffff:0:0/96 the mapped.
    let low = Prefix6::covering(std::net::Ipv6Addr::UNSPECIFIED, 80);
    !forbidden && !prefix.overlaps(low)
}

/// Whether every address of the prefix can be that of a host (RFC 1122 §3.2.1.3, RFC 6890).
pub(super) fn is_unicast4(prefix: Prefix4) -> bool {
    ![(0, 8), (127, 8), (224, 3)]
        .into_iter()
        .any(|(first, len)| prefix.overlaps(Prefix4::covering([first, 0, 0, 0].into(), len)))
}

/// Whether the prefix has a non-global address. The special blocks are /24 or larger below 224.0.0.0.
fn touches_non_global(prefix: Prefix4) -> bool {
    let first = prefix.addr().to_bits();
    let last = first.wrapping_add(u32::try_from(prefix.size() - 1).unwrap_or(u32::MAX));
    (first >> 8..=last >> 8).any(|net| is_non_global((net << 8).into()))
}
