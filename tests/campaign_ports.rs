//! The campaign `ports`: whether ports can be guessed, whether blocks and first ports are the same on every instance,
//! and whether every port that was given out comes back.
//!
//! On every push it runs at a small size; `tests/campaign ports` runs it at full size. Environment:
//! `SAMPAN_ALLOCATIONS` for each of 20 keys (20000), `SAMPAN_CYCLES` mappings made and expired (30000),
//! `SAMPAN_HOSTS` compared between instances (300), `SAMPAN_REPORT` a file for the figures.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on shall say where")]

#[path = "support/mod.rs"]
mod support;

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sampan::nat64::journal::{HEADER, Held, Journal, replay, write_row};
use sampan::nat64::lease::{Leases, PortLease, Request};
use sampan::nat64::policy::{Assignment, PortPolicy, Quota, Quotas};
use sampan::nat64::pool4::Pool;
use sampan::nat64::settings::{Key, Pool4Range, Protocol, Settings, Unit};
use sampan::wire::packet::Offload;
use support::campaign::{self, number};
use support::packet::SYN;
use support::{Gateway, at, echo_request, ip, settings, tcp, udp};

const KEYS: u8 = 20;
const BLOCK: u16 = 512;
const SERVER: &str = "203.0.113.10";

fn main() -> ExitCode {
    let allocations = number("SAMPAN_ALLOCATIONS", 20_000);
    let cycles = number("SAMPAN_CYCLES", 30_000);
    let hosts = number("SAMPAN_HOSTS", 300) as u32;
    let start = Instant::now();
    let mut faults = Vec::new();
    let keys: Vec<Figures> = (0..KEYS).map(|key| randomness(key, allocations, &mut faults)).collect();
    let permuted = same_when_permuted(hosts);
    let journalled = same_after_journal(hosts);
    let (made, left) = accounting(cycles);
    if permuted != u64::from(hosts) {
        faults.push(format!("permuted: {permuted} of {hosts} hosts have the same block and port"));
    }
    if journalled != u64::from(hosts) {
        faults.push(format!("journal: {journalled} of {hosts} hosts have the same block and port"));
    }
    if !left.is_empty() {
        faults.push(format!("after {made} cycles: {left}"));
    }
    let rows: Vec<String> = keys.iter().map(Figures::row).collect();
    let worst =
        |of: fn(&Figures) -> f64, best: fn(f64, f64) -> f64| keys.iter().map(of).reduce(best).unwrap();
    let report = [
        format!("\"allocations_per_key\": {allocations}"),
        format!("\"least_p\": {:.6}", worst(Figures::least_p, f64::min)),
        format!("\"best_guess_times_chance\": {:.3}", worst(|f| f.guess, f64::max)),
        format!("\"greatest_serial_correlation\": {:.5}", worst(|f| f.correlation.abs(), f64::max)),
        format!("\"hosts_compared\": {hosts}"),
        format!("\"same_when_permuted\": {permuted}"),
        format!("\"same_after_copying_the_journal\": {journalled}"),
        format!("\"cycles\": {made}"),
        format!("\"left_after_cycles\": {left:?}"),
        format!("\"seconds\": {:.1}", start.elapsed().as_secs_f64()),
        format!("\"faults\": [{}]", faults.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(", ")),
        format!("\"keys\": [\n    {}\n  ]", rows.join(",\n    ")),
    ]
    .join(",\n  ");
    campaign::report(&report);
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What was found for one key.
struct Figures {
    /// Of the place inside the block, of the part of the port range, and of the rank among the free places.
    p: [f64; 3],
    /// How many times as often as by chance the best simple rule guesses the next port.
    guess: f64,
    correlation: f64,
}

impl Figures {
    fn least_p(&self) -> f64 {
        self.p.iter().copied().fold(1.0, f64::min)
    }

    fn row(&self) -> String {
        let [place, range, rank] = self.p;
        format!(
            "{{\"p_place\": {place:.6}, \"p_range\": {range:.6}, \"p_rank\": {rank:.6}, \"guess\": {:.3}, \
             \"serial_correlation\": {:.5}}}",
            self.guess, self.correlation
        )
    }
}

/// Rules by which somebody who knows a host's last two places guesses the next one.
const RULES: [fn(i32, i32) -> i32; 6] =
    [|a, _| a, |a, _| a + 1, |a, _| a - 1, |a, _| a + 2, |a, b| a + (a - b), |a, _| a ^ 1];

/// Many subscribers come, take ports of their blocks and go; half of them few, half of them most of a block.
fn randomness(key: u8, allocations: u64, faults: &mut Vec<String>) -> Figures {
    let mut settings = settings();
    settings.key = Key([key ^ 0x5a; 16]);
    settings.pool4.block_size = BLOCK;
    settings.pool4.ranges = vec![Pool4Range::new("198.51.100.0/28".parse().unwrap(), 1024..=65535)];
    let pool = Pool::new(&settings, None);
    let mut leases = Leases::new(2016, BLOCK, 1024, 0);
    let (mut places, mut parts, mut ranks) = (vec![0u64; BLOCK.into()], vec![0u64; 63], vec![0u64; 16]);
    let mut fair_ranks = [0.0; 16];
    // Three more rules: the place that the host before had for its mapping of the same number, and the next free one
    // above or below the last.
    let (mut hits, mut chance) = ([0u64; RULES.len() + 3], 0.0);
    let mut neighbour: Vec<i32> = Vec::new();
    let mut series = Vec::new();
    let mut waiting: VecDeque<Vec<PortLease>> = VecDeque::new();
    let mut made = 0;
    for who in 0u32.. {
        if made >= allocations {
            break;
        }
        let few = who % 16 != 0;
        let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp][who as usize % 3];
        let mut free = vec![true; BLOCK.into()];
        let mut seen: Vec<i32> = Vec::new();
        let mut held = Vec::new();
        for n in 0..if few { 32u16 } else { 400 } {
            // As many even as odd ones, so that UDP fills both halves.
            let port = 1024 + n + (who % 4096) as u16;
            let prefix = u128::from(who) << 64 | 0x2001_0db8 << 96;
            let request = Request {
                subscriber: who % 1024,
                prefix,
                shard: 0,
                scope: 0,
                max_blocks: 1,
                client: prefix | 7,
                port,
                protocol,
            };
            let taken = leases.take(&request, &pool, &settings.ports, &settings.key).unwrap();
            let (_, t) = leases.transport(&taken.port).unwrap();
            held.push(taken.port);
            let place = usize::from(t % BLOCK);
            let fits = |i: usize| protocol != Protocol::Udp || i % 2 == usize::from(port) % 2;
            let room = (0..BLOCK.into()).filter(|i| free[*i] && fits(*i)).count();
            let rank = (0..place).filter(|i| free[*i] && fits(*i)).count();
            assert!(free[place], "a port that was taken");
            ranks[rank * 16 / room] += 1;
            for (i, fair) in fair_ranks.iter_mut().enumerate() {
                let upto = |i: usize| (i * room).div_ceil(16);
                *fair += (upto(i + 1) - upto(i)) as f64 / room as f64;
            }
            places[place] += u64::from(few);
            // Once for each block: its other ports are where it is.
            parts[usize::from((t - 1024) / 1024)] += u64::from(n == 0);
            if let [.., before, last] = seen[..] {
                // Whoever guesses a place that is taken, or of the other parity, would not have guessed.
                for (rule, hits) in RULES.iter().zip(&mut hits) {
                    *hits += u64::from(rule(last, before) == place as i32);
                }
                hits[RULES.len()] += u64::from(neighbour.get(seen.len()) == Some(&(place as i32)));
                let size = usize::from(BLOCK);
                let is_next = |step: usize| {
                    let way = (1..=size).map(|n| (last as usize + n * step) % size);
                    way.into_iter().find(|i| free[*i] && fits(*i)) == Some(place)
                };
                hits[RULES.len() + 1] += u64::from(is_next(1));
                hits[RULES.len() + 2] += u64::from(is_next(size - 1));
                chance += 1.0 / room as f64;
            }
            if few {
                series.extend(seen.last().map(|last| (f64::from(*last), place as f64)));
            }
            free[place] = false;
            seen.push(place as i32);
            made += 1;
        }
        neighbour = seen;
        waiting.push_back(held);
        if waiting.len() > 900 {
            give_back(&mut leases, waiting.pop_front().unwrap(), &settings.ports);
        }
    }
    waiting.into_iter().for_each(|held| give_back(&mut leases, held, &settings.ports));
    let figures = Figures {
        p: [even(&places), even(&parts), p_value(&ranks, &fair_ranks)],
        guess: hits.iter().map(|hits| *hits as f64 / chance).fold(0.0, f64::max),
        correlation: correlation(&series),
    };
    let mut check = |ok: bool, what: &str| {
        if !ok {
            faults.push(format!("key {key}: {what}: {}", figures.row()));
        }
    };
    check(pool.usage().1 == 0 && leases.len() == 0, "blocks are left");
    check(figures.least_p() > 1e-5, "chi-square");
    // In a small run chance itself strays further than the limits of the full one.
    check(figures.guess <= (1.0 + 5.0 / chance.sqrt()).max(1.5), "the next port can be guessed");
    check(figures.correlation.abs() < (4.0 / (series.len() as f64).sqrt()).max(0.01), "serial correlation");
    figures
}

fn give_back(leases: &mut Leases, held: Vec<PortLease>, policy: &PortPolicy) {
    held.into_iter().for_each(|port| leases.give_back(port, false, policy));
    while leases.release_idle().is_some() {}
}

/// Chance of counts at least as uneven, if all were equally likely.
fn even(counts: &[u64]) -> f64 {
    let expected = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
    p_value(counts, &vec![expected; counts.len()])
}

/// Chance of counts at least as far from what is expected (chi-square, Wilson and Hilferty's approximation).
fn p_value(counts: &[u64], expected: &[f64]) -> f64 {
    let square: f64 = counts.iter().zip(expected).map(|(n, e)| (*n as f64 - e).powi(2) / e).sum();
    let k = (counts.len() - 1) as f64;
    let z = ((square / k).cbrt() - (1.0 - 2.0 / (9.0 * k))) / (2.0 / (9.0 * k)).sqrt();
    upper_tail(z)
}

/// Chance that a normal variable exceeds `z` (Abramowitz and Stegun 26.2.17).
fn upper_tail(z: f64) -> f64 {
    if z < 0.0 {
        return 1.0 - upper_tail(-z);
    }
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let poly = [0.319_381_530, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    let sum = poly.iter().rev().fold(0.0, |sum, c| (sum + c) * t);
    sum * (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

fn correlation(pairs: &[(f64, f64)]) -> f64 {
    let n = pairs.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let sum = |of: &dyn Fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>();
    let both = sum(&|p| (p.0 - x) * (p.1 - y));
    both / (sum(&|p| (p.0 - x).powi(2)) * sum(&|p| (p.1 - y).powi(2))).sqrt()
}

/// A pool large enough for everybody, for instances that are compared.
fn roomy() -> Settings {
    let mut settings = settings();
    settings.pool4.ranges = vec![Pool4Range::new("198.51.100.0/26".parse().unwrap(), 1024..=65535)];
    settings.subscriber_len = 64;
    settings.limits.sessions = 400_000;
    settings.limits.subscribers = 100_000;
    settings.ports = PortPolicy::default();
    settings
}

fn host(n: u32) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::from_bits(0x2001_0db8_0001 << 80 | u128::from(n) << 64 | 7).into(), 40_000)
}

/// First mappings of `order`, on a gateway with this many workers.
fn firsts(gateway: &mut Gateway, order: impl Iterator<Item = u32>) -> HashMap<u32, SocketAddr> {
    let server = SocketAddr::new(gateway.y(ip(SERVER)), 53);
    order.map(|n| (n, gateway.translate(&udp(host(n), server, b"first")).source())).collect()
}

fn same(instances: &[HashMap<u32, SocketAddr>]) -> u64 {
    let [first, others @ ..] = instances else { return 0 };
    first.iter().filter(|(n, t)| others.iter().all(|other| other.get(n) == Some(t))).count() as u64
}

/// Hosts that have the same block and first port on instances with the same key and plan and other numbers of workers,
/// whatever the order they come in.
fn same_when_permuted(hosts: u32) -> u64 {
    let mut settings = roomy();
    settings.pool4.assignment = Assignment::Permuted;
    let prefixes = vec!["2001:db8:1::/48".parse().unwrap()];
    settings.units = vec![Unit { name: "all".into(), prefixes, ..Unit::default() }];
    // As many as the units declare.
    settings.pool4.block_size = 64;
    settings.pool4.ranges = vec![Pool4Range::new("198.51.0.0/25".parse().unwrap(), 1024..=65535)];
    let instances: Vec<_> = [(1, 0), (2, hosts / 2), (5, hosts / 3)]
        .into_iter()
        .map(|(workers, from)| {
            let mut gateway = Gateway::new(settings.clone(), workers);
            firsts(&mut gateway, (0..hosts).map(|n| (n + from) % hosts))
        })
        .collect();
    same(&instances)
}

/// The same for hosts whose blocks come from a copy of another instance's journal.
fn same_after_journal(hosts: u32) -> u64 {
    let settings = roomy();
    let rows = Arc::new(Journal::new(1 << 20));
    let mut gateway = Gateway::new(settings.clone(), 3);
    let journal = rows.clone();
    gateway.on_engines(move |engine, _| engine.set_journal(journal.clone()));
    let mut instances = vec![firsts(&mut gateway, 0..hosts)];
    // Some have more than one block by then.
    let server = SocketAddr::new(gateway.y(ip(SERVER)), 53);
    for n in (0..hosts).step_by(50) {
        for port in 0..100 {
            gateway.translate(&udp(SocketAddr::new(host(n).ip(), 2 * port), server, b"more"));
        }
    }
    let mut text = format!("{HEADER}\n");
    while let Some(row) = rows.pop() {
        write_row(&mut text, 1, &row);
    }
    let held: Vec<Held> = replay(text.as_bytes()).unwrap().held;
    for (workers, from) in [(1, 0), (4, hosts / 2)] {
        let mut gateway = Gateway::new(settings.clone(), workers);
        let blocks = held.clone();
        gateway.on_engines(move |engine, now| assert_eq!(engine.restore(now, &blocks), []));
        instances.push(firsts(&mut gateway, (0..hosts).map(|n| (n + from) % hosts)));
    }
    same(&instances)
}

/// Mappings of all three protocols are made and expire, `cycles` times, with ports and blocks that rest and quotas
/// that are charged. Gives how many were made, and what is left of them at the end.
fn accounting(cycles: u64) -> (u64, String) {
    let mut settings = roomy();
    settings.limits.sessions = 100_000;
    settings.ports.max_blocks = 4;
    settings.ports.overflow_blocks = 2;
    settings.quotas = Quotas {
        subscriber: Quota { ports: 400, sessions: 500, ..Quota::default() },
        network: Quota { ports: 2000, ..Quota::default() },
        ..Quotas::default()
    };
    settings.subscriber_len = 128;
    let quota = Quota { sessions: 40_000, unanswered: 30_000, ..Quota::default() };
    let prefixes = vec!["2001:db8:1::/48".parse().unwrap()];
    settings.units = vec![Unit { name: "all".into(), prefixes, quota, reserve: 100, ..Unit::default() }];
    let mut gateway = Gateway::new(settings, 2);
    let start = gateway.pool().usage();
    let server = SocketAddr::new(gateway.y(ip(SERVER)), 53);
    let mut seed = 9u64;
    let mut next = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut made = 0;
    while made < cycles {
        for i in 0..2_000u16 {
            let client = SocketAddr::new(host(next(40) as u32).ip(), next(65_536) as u16);
            let client = at(format!("2001:db8:1:{:x}::{:x}", next(40), next(8)), client.port());
            let packet = match next(3) {
                0 => udp(client, server, b"q"),
                1 => tcp(client, server, SYN, b""),
                _ => echo_request(client.ip(), server.ip(), client.port(), b"?"),
            };
            gateway.feed(i % 2, packet.bytes(), Offload::default());
        }
        let before = gateway.bindings();
        gateway.run();
        made += u64::from(gateway.bindings() - before);
        gateway.advance(Duration::from_secs(next(40)));
    }
    // Sessions first, then what rests, then blocks.
    for _ in 0..4 {
        gateway.advance(Duration::from_secs(400));
    }
    let mut left = Vec::new();
    if gateway.pool().usage() != start {
        left.push(format!("blocks {:?}, at the start {start:?}", gateway.pool().usage()));
    }
    let resting: usize = gateway.engines().map(|e| e.resting_ports()).sum();
    let numbers = [
        ("sessions", u64::from(gateway.sessions().iter().sum::<u32>())),
        ("bindings", gateway.bindings().into()),
        ("subscribers", gateway.subscribers().into()),
        ("resting ports", resting as u64),
        ("credits", gateway.credits()),
        ("unanswered", gateway.engines().map(|e| u64::from(e.unanswered())).sum()),
    ];
    left.extend(numbers.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{name} {n}")));
    (made, left.join(", "))
}
