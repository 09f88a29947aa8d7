//! The campaign `flood`: unit A opens sessions as fast as half of what the box can carry of just that without a loss,
//! and unit B works on beside it. The whole box in network namespaces; needs root and `/dev/net/tun`.
//!
//! Each run has two laboratories of its own: in the first the loss-free rate of A's mix is searched for, in the second A
//! floods at a half of it. Medians over the runs decide; one run takes some 45 s longer than the flood.
//!
//! Environment: `SAMPAN_SECONDS` how long A floods (60), `SAMPAN_RUNS` how often (5), `SAMPAN_SEED` from where (1),
//! `SAMPAN_REPORT` a file for the figures.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on shall say where")]

#[path = "support/campaign.rs"]
mod campaign;
#[path = "support/flood.rs"]
mod flood;
#[path = "netns/support.rs"]
#[allow(dead_code, reason = "few of the tools are needed")]
mod support;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use campaign::number;
use flood::{A_NEW_PER_SECOND, A_PORTS, A_SESSIONS, A_UNANSWERED, Books, FLOWS, Ground, Sample};

/// Requests of each of B's flows a second.
const PACE: u16 = 10;
/// B begins before A and ends after it.
const MARGIN: f64 = 3.0;
/// Seconds of one step of the search, and of the last look at what was found.
const TRIAL: f64 = 2.0;
const CONFIRM: f64 = 5.0;
/// Where the search begins, where it ends, and how exact it is.
const LEAST: f64 = 10_000.0;
const MOST: f64 = 640_000.0;
const EXACT: f64 = 1.06;
/// The sender must reach this share of what it was asked for.
const REACHED: f64 = 0.95;
/// From then on A has all that it may have, and no table touches memory for the first time.
const SETTLED: Duration = Duration::from_secs(8);
/// Resident memory may grow by so much after that.
const FLAT_KIB: u64 = 1_024;
/// What may be lost of B's packets in all.
const LOST: f64 = 1e-4;
/// Until a host that the gateway has never seen gets an answer, after the flood.
const RECOVERY: Duration = Duration::from_secs(5);
/// Nobody is waited for longer.
const GIVE_UP: Duration = Duration::from_secs(6);

fn main() -> ExitCode {
    let (seconds, runs) = (number("SAMPAN_SECONDS", 60) as f64, number("SAMPAN_RUNS", 5));
    let seed = number("SAMPAN_SEED", 1);
    let runs: Vec<Value> = (0..runs)
        .map(|run| {
            let run = one_run(seconds, seed + run);
            eprintln!("{run}");
            run
        })
        .collect();
    let middle = |at: &str| {
        let mut values: Vec<f64> =
            runs.iter().map(|run| run.pointer(at).unwrap().as_f64().unwrap()).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let gates = [
        ("b_lost_to_named_drops", 0.0),
        ("queue_overflows", 0.0),
        ("b_lost_share", LOST),
        ("b_pages_failed", 0.0),
        ("a_sessions_most", A_SESSIONS as f64),
        ("a_ports_most", A_PORTS as f64),
        ("recovery_a_seconds", RECOVERY.as_secs_f64()),
        ("recovery_b_seconds", RECOVERY.as_secs_f64()),
        ("rss_growth_kib", FLAT_KIB as f64),
    ]
    .map(|(name, limit)| {
        let median = middle(&format!("/{name}"));
        (median <= limit, json!({"gate": name, "median": median, "limit": limit, "holds": median <= limit}))
    });
    let members = [
        ("device", json!("TUN in network namespaces, two workers, one veth towards both units")),
        ("seconds", json!(seconds)),
        ("when_full", json!("mappings")),
        ("flows_of_b", json!({"udp": FLOWS, "tcp": FLOWS, "requests_per_second_each": PACE})),
        (
            "quota_of_a",
            json!({"sessions": A_SESSIONS, "unanswered": A_UNANSWERED, "ports": A_PORTS,
                "new_per_second": A_NEW_PER_SECOND}),
        ),
        ("gates", gates.iter().map(|(_, gate)| gate.clone()).collect()),
        ("runs", json!(runs)),
    ];
    campaign::report(&members.map(|(name, value)| format!("\"{name}\": {value}")).join(",\n  "));
    if gates.iter().all(|(holds, _)| *holds) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one_run(seconds: f64, seed: u64) -> Value {
    let (loss_free, trials) = search(&Ground::new(), seed);
    let ground = Ground::new();
    // Both ends know their way before anything is counted.
    ground.page().expect("a page before the flood");
    let (before, rss_before) = (ground.books(), ground.rss_kib());
    let (ground, flooding) = (&ground, &AtomicBool::new(true));
    let (sent, worked, pages, samples, recovery) = thread::scope(|scope| {
        let work = scope.spawn(|| ground.work(PACE, seconds + 2.0 * MARGIN));
        sleep(Duration::from_secs_f64(MARGIN));
        let began = Instant::now();
        let pages = scope.spawn(|| fetch(ground, flooding));
        let samples = scope.spawn(move || watch(ground, flooding, began));
        let sent = ground.flood(loss_free / 2.0, seconds, seed);
        flooding.store(false, Ordering::Relaxed);
        let recovery_b = scope.spawn(|| ground.recovery("client2", GIVE_UP));
        let recovery = [ground.recovery("client1", GIVE_UP), recovery_b.join().unwrap()];
        (sent, work.join().unwrap(), pages.join().unwrap(), samples.join().unwrap(), recovery)
    });
    let came = ground.books().since(&before);
    let (rss_after, resettled) = (ground.rss_kib(), samples.iter().find(|s| s.at >= SETTLED));
    let rss_settled = resettled.or(samples.last()).expect("at least one sample").rss_kib;
    let rss_most = samples.iter().map(|s| s.rss_kib).max().unwrap_or(0).max(rss_after);
    let count = |at: &str| worked.pointer(at).and_then(Value::as_u64).expect("a count");
    let udp_lost = count("/udp/sent") - count("/udp/answered");
    let lost =
        udp_lost + (count("/tcp/sent") - count("/tcp/answered")) + came.retransmitted + count("/broken");
    let asked = count("/udp/sent") + count("/tcp/sent");
    let mut times: Vec<f64> = pages.iter().filter_map(|page| page.as_ref().ok().copied()).collect();
    times.sort_by(f64::total_cmp);
    let most = |what: fn(&Sample) -> u64| samples.iter().map(what).max().unwrap_or(0);
    json!({
        "seed": seed,
        "loss_free_per_second": loss_free.round(),
        // Otherwise a queue overflowed above that rate.
        "sender_was_the_limit": trials.iter().all(|trial| trial["overflows"] == 0),
        "trials": trials,
        "flood": sent,
        "b": worked,
        "b_udp_lost": udp_lost,
        "b_retransmitted_segments": came.retransmitted,
        // Every packet goes there and back.
        "b_lost_share": lost as f64 / (2 * asked) as f64,
        "b_lost_to_named_drops": udp_lost.min(came.not_by_quota().values().sum()),
        "not_by_quota": came.not_by_quota(),
        "b_pages": times.len(),
        "b_pages_failed": pages.len() - times.len(),
        "b_page_median_ms": times.get(times.len() / 2).map(|s| s * 1e3),
        "b_page_slowest_ms": times.last().map(|s| s * 1e3),
        "queue_overflows": came.overflowed(),
        "queues": came.queues,
        "drops": came.named,
        "refused_by_quotas_of_a": came.by_quota(),
        "from_lan": came.from_lan,
        "samples": samples.len(),
        "a_sessions_most": most(|s| s.sessions),
        "a_ports_most": most(|s| s.ports),
        "blocks_most": most(|s| s.blocks),
        "recovery_a_seconds": seconds_or_limit(recovery[0]),
        "recovery_b_seconds": seconds_or_limit(recovery[1]),
        "rss_before_kib": rss_before,
        "rss_settled_kib": rss_settled,
        "rss_most_kib": rss_most,
        "rss_after_kib": rss_after,
        "rss_growth_kib": rss_most - rss_settled,
    })
}

/// Whoever did not recover has the limit of waiting, which no gate lets through.
fn seconds_or_limit(time: Option<Duration>) -> f64 {
    time.unwrap_or(GIVE_UP).as_secs_f64()
}

/// The highest rate of A's mix at which no queue overflows, and how every step on the way there came out.
fn search(ground: &Ground, seed: u64) -> (f64, Vec<Value>) {
    let mut trials = Vec::new();
    let mut carries = |rate: f64, seconds: f64| {
        let before = ground.books();
        let sent = ground.flood(rate, seconds, seed);
        // What still waits in a queue is worked off.
        sleep(Duration::from_millis(200));
        let came: Books = ground.books().since(&before);
        let reached = sent["per_second"].as_f64().unwrap();
        let ok = came.overflowed() == 0 && reached >= rate * REACHED;
        trials.push(json!({"asked": rate.round(), "sent_per_second": reached.round(),
            "overflows": came.overflowed(), "loss_free": ok}));
        ok
    };
    let (mut good, mut bad) = (0.0, LEAST);
    while bad <= MOST && carries(bad, TRIAL) {
        (good, bad) = (bad, bad * 2.0);
    }
    assert!(good > 0.0, "even {LEAST} packets a second overflow something");
    while bad > good * EXACT {
        let middle = f64::midpoint(good, bad);
        if carries(middle, TRIAL) { good = middle } else { bad = middle }
    }
    while !carries(good, CONFIRM) {
        good /= EXACT;
        assert!(good >= LEAST, "no rate holds for {CONFIRM} s");
    }
    (good, trials)
}

fn fetch(ground: &Ground, flooding: &AtomicBool) -> Vec<Result<f64, String>> {
    let mut pages = Vec::new();
    while flooding.load(Ordering::Relaxed) {
        let page = ground.page();
        if let Err(why) = &page {
            eprintln!("a page did not load: {why}");
        }
        pages.push(page);
        sleep(Duration::from_millis(250));
    }
    pages
}

fn watch(ground: &Ground, flooding: &AtomicBool, began: Instant) -> Vec<Sample> {
    let mut samples = Vec::new();
    while flooding.load(Ordering::Relaxed) {
        samples.push(ground.sample(began));
        sleep(Duration::from_secs(1));
    }
    samples
}
