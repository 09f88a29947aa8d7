//! The campaign `tables`: what sessions cost in memory, what an insertion into full tables touches and how long it takes,
//! and how long a worker is away when all sessions end in the same instant.
//!
//! On every push it runs at a small size and judges only what is counted; `tests/campaign tables` runs it at full size.
//! Environment: `SAMPAN_SESSIONS` (20000), `SAMPAN_TIMES` the capacity that is churned (10), `SAMPAN_NANOS` that the
//! 99.99th percentile of an insertion may take (no limit), `SAMPAN_REPORT` a file for the figures.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on shall say where")]

#[path = "support/mod.rs"]
mod support;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use sampan::nat64::bib::{Bib, Binding};
use sampan::nat64::engine::{Engine, Place, Sink, Step};
use sampan::nat64::index::{ENTRIES, MAX_PROBES};
use sampan::nat64::policy::PortPolicy;
use sampan::nat64::pool4::Pool;
use sampan::nat64::session::{Session, Sessions};
use sampan::nat64::settings::{Pool4Range, Protocol, Settings};
use sampan::nat64::steer::Steering;
use sampan::nat64::tcp::State;
use sampan::nat64::wheel::{self, Wheel};
use sampan::time::Instant;
use sampan::verdict::{Sent, Settled, Verdict};
use sampan::wire::packet::PacketBuf;
use sampan::xlat::FlowPair;
use support::campaign::{self, number};
use support::churn::{self, Times};
use support::rng::Rng;
use support::settings;

/// What an insertion into one index may touch, and what a session may take.
const SLOTS: usize = 64;
const BYTES: f64 = 160.0;
/// Sessions that a worker looks at in one turn (`daemon::worker`).
const TURN: u32 = 256;
/// Flows of one host in the filled engine.
const FLOWS: u32 = 448;
const NOW: Instant = Instant::from_secs(1000);

fn main() -> ExitCode {
    let sessions = number("SAMPAN_SESSIONS", 20_000) as u32;
    let times = number("SAMPAN_TIMES", 10);
    let limit = number("SAMPAN_NANOS", u64::MAX);
    let mut faults = Vec::new();

    let mut engine = fill_and_expire(sessions);
    let mut churned = churn::churn(|| Tables::new(sessions), sessions, times);
    let tables = &churned.table;
    let bytes = (tables.sessions.bytes() + tables.bib.bytes()) as f64 / f64::from(sessions);
    let looks = tables.looks();
    let most = looks.iter().rposition(|n| *n > 0).map_or(0, |at| (at + 1) * ENTRIES);
    let p9999 = u64::from(churned.inserts.quantile(0.9999));

    if churned.refused > 0 {
        faults.push(format!("{} insertions found no room", churned.refused));
    }
    if most > SLOTS {
        faults.push(format!("an insertion looked at {most} entries"));
    }
    // A small table has its fixed parts on few sessions.
    if sessions >= 1 << 20 && bytes > BYTES {
        faults.push(format!("{bytes:.1} bytes per session"));
    }
    if p9999 > limit {
        faults.push(format!("99.99 % of insertions within {p9999} ns"));
    }
    if engine.most_ended > TURN {
        faults.push(format!("{} sessions ended in one turn", engine.most_ended));
    }
    if engine.left > 0 {
        faults.push(format!("{} sessions are left after their time", engine.left));
    }
    let report = [
        format!("\"sessions\": {sessions}"),
        format!("\"bytes_by_structure\": {bytes:.1}"),
        format!("\"bytes_by_engine\": {:.1}", engine.told),
        format!("\"bytes_by_rss\": {:.1}", engine.resident),
        format!("\"insertions\": {}", looks.iter().sum::<u64>()),
        format!("\"insertions_by_entries_looked_at\": {{{}}}", by_entries(&looks)),
        format!("\"most_entries_looked_at\": {most}"),
        format!("\"refused\": {}", churned.refused),
        format!("\"clock_ns\": {}", churn::clock_nanos()),
        format!("\"insert_ns\": {{{}}}", quantiles(&mut churned.inserts)),
        format!("\"first_packet_ns\": {{{}}}", quantiles(&mut engine.first_packets)),
        format!("\"expiry_turns\": {}", engine.turns),
        format!("\"expiry_turn_ns\": {{{}}}", quantiles(&mut engine.expiry)),
        format!("\"expiry_cpu_seconds\": {:.2}", engine.seconds),
        format!("\"faults\": [{}]", faults.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(", ")),
    ]
    .join(",\n  ");
    campaign::report(&report);
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn by_entries(looks: &[u64]) -> String {
    let each = looks.iter().enumerate().map(|(i, n)| format!("\"{}\": {n}", (i + 1) * ENTRIES));
    each.collect::<Vec<_>>().join(", ")
}

fn quantiles(times: &mut Times) -> String {
    let [p50, p99, p9999] = [0.5, 0.99, 0.9999].map(|q| times.quantile(q));
    format!("\"p50\": {p50}, \"p99\": {p99}, \"p99.99\": {p9999}, \"max\": {}", times.max())
}

/// What the engine has for a flow: a binding of its own, a session, and its place in the wheel.
struct Tables {
    sessions: Sessions,
    bib: Bib,
    wheel: Wheel,
}

impl Tables {
    fn new(capacity: u32) -> Self {
        Self { sessions: Sessions::new(capacity, 1), bib: Bib::new(capacity, 2), wheel: Wheel::new(NOW) }
    }

    fn looks(&self) -> [u64; MAX_PROBES] {
        let (sessions, bib) = (self.sessions.looks(), self.bib.looks());
        std::array::from_fn(|i| sessions[i] + bib[i])
    }
}

impl churn::Table for Tables {
    fn insert(&mut self, n: u64) -> Option<u32> {
        let mut rng = Rng(n);
        let flow = FlowPair {
            src6: Ipv6Addr::from_bits(
                0x2001_0db8 << 96 | u128::from(rng.next() & 0xffff) << 64 | u128::from(rng.next()),
            ),
            port6: rng.next() as u16,
            dst6: Ipv6Addr::UNSPECIFIED,
            // Never the same again, whatever the rest is.
            src4: Ipv4Addr::from_bits((n >> 16) as u32),
            port4: n as u16,
            dst4: Ipv4Addr::from_bits(rng.next() as u32),
            peer_port: 443,
        };
        let binding = Binding {
            src6: flow.src6,
            port6: flow.port6,
            port4: flow.port4,
            src4: flow.src4,
            protocol: Protocol::Udp,
            pool6: 0,
            sessions: 1,
            subscriber: 0,
            lease: None,
        };
        let bib = self.bib.insert(binding).ok()?;
        let mut session = Session::new(Protocol::Udp, 0, &flow, State::Active, bib);
        session.deadline = wheel::deadline(NOW, Duration::from_millis(rng.next() % 300_000));
        let slot = self.sessions.insert(session)?;
        self.wheel.add(&mut self.sessions, slot);
        Some(slot)
    }

    fn remove(&mut self, slot: u32) {
        self.wheel.remove(&mut self.sessions, slot);
        let session = self.sessions.remove(slot).expect("is there");
        assert!(self.bib.remove(session.bib).is_some());
    }
}

/// Figures of a whole engine.
struct Filled {
    /// Bytes for each session, as the engine and as the kernel tell.
    told: f64,
    resident: f64,
    first_packets: Times,
    /// Each call of a worker's turn.
    expiry: Times,
    turns: u64,
    seconds: f64,
    /// Sessions that one turn ended.
    most_ended: u32,
    left: u32,
}

/// Nobody is there to take packets.
struct Nowhere;

impl Sink for Nowhere {
    fn send(&mut self, _: &mut PacketBuf, _: Sent) -> bool {
        true
    }

    fn settle(&mut self, _: u32, _: Settled) {}
}

fn settings_for(sessions: u32) -> Settings {
    let mut settings = settings();
    settings.pool4.ranges = vec![Pool4Range::new("198.51.100.0/24".parse().unwrap(), 1024..=65535)];
    settings.pool4.block_size = 512;
    settings.ports = PortPolicy::default();
    settings.limits.sessions = sessions;
    settings.limits.subscribers = sessions / FLOWS + 1;
    settings
}

/// An engine that packets fill, each of a flow of its own, and whose sessions are all over in the same tick.
fn fill_and_expire(sessions: u32) -> Filled {
    let mut first_packets = Times::new(sessions as usize);
    let before = resident();
    let settings = settings_for(sessions);
    let place = Place {
        worker: 0,
        steering: Steering::new(settings.key, settings.subscriber_len, 1),
        pool: Arc::new(Pool::new(&settings, None)),
        seed: 0x5eed,
    };
    let later = NOW + settings.timers.udp + Duration::from_secs(1);
    let mut engine = Engine::new(settings, place, NOW);
    let mut packet = PacketBuf::new();
    for n in 0..sessions {
        let client = format!("2001:db8:{:x}:{:x}::1", (n / FLOWS) >> 16, (n / FLOWS) & 0xffff);
        let client = support::at(client.parse::<Ipv6Addr>().unwrap(), 0);
        let client = std::net::SocketAddr::new(client.ip(), 2000 + (n % FLOWS) as u16);
        let server = support::at(support::ip("2001:db8:64::203.0.113.10"), 443);
        packet.fill(&support::udp(client, server, b"x").bytes());
        let start = churn::cpu_nanos();
        let step = engine.handle(NOW, &mut packet, &mut Nowhere);
        first_packets.add(churn::cpu_nanos() - start);
        assert!(matches!(step, Step::Done(Verdict::Translated)), "{n}: {step:?}");
    }
    assert_eq!(engine.session_counts(), [0, sessions, 0]);
    let bytes = (resident() - before) as f64;
    let (mut expiry, mut turns, mut most_ended) = (Times::new(sessions as usize / 64 + 64), 0, 0);
    let mut left = sessions;
    let begin = churn::cpu_nanos();
    loop {
        let start = churn::cpu_nanos();
        let done = engine.expire(later, TURN, &mut Nowhere);
        expiry.add(churn::cpu_nanos() - start);
        let now = engine.session_counts()[1];
        most_ended = most_ended.max(left - now);
        left = now;
        turns += 1;
        if done {
            break;
        }
    }
    Filled {
        told: engine.table_bytes() as f64 / f64::from(sessions),
        resident: bytes / f64::from(sessions),
        first_packets,
        expiry,
        turns,
        seconds: (churn::cpu_nanos() - begin) as f64 / 1e9,
        most_ended,
        left,
    }
}

/// Bytes of memory of this process.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
