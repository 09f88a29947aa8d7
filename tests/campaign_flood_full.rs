//! The campaign `flood-full`: unit A floods as fast as its machine can, and unit B's established flows, which ride the fast
//! path, lose no more than they lose where the kernel forwards the same load, and 0.1 percentage point. What is lost: UDP
//! requests without an answer, and segments that TCP sent again, whether it had to or was only impatient.
//!
//! Rounds in turn, each with a laboratory of its own for either way; the median of the differences decides. On a machine
//! of two processors the sender takes one of them. Needs root and `/dev/net/tun`.
//!
//! Environment: `SAMPAN_SECONDS` how long A floods (10), `SAMPAN_ROUNDS` how often (9), `SAMPAN_SEED` from where (1),
//! `SAMPAN_REPORT` a file for the figures.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on shall say where")]

#[path = "support/campaign.rs"]
mod campaign;
#[path = "support/flood.rs"]
#[allow(dead_code, reason = "only what is sent and what is lost is of interest")]
mod flood;
#[path = "netns/support.rs"]
#[allow(dead_code, reason = "few of the tools are needed")]
mod support;

use std::process::ExitCode;
use std::thread::{self, sleep};
use std::time::Duration;

use serde_json::{Value, json};

use campaign::number;
use flood::{FLOWS, Ground, Way};

/// Requests of each of B's flows a second.
const PACE: u16 = 20;
/// B begins before A and ends after it.
const MARGIN: f64 = 2.0;
/// Percentage points.
const LIMIT: f64 = 0.1;

fn main() -> ExitCode {
    let (seconds, rounds) = (number("SAMPAN_SECONDS", 10) as f64, number("SAMPAN_ROUNDS", 9));
    let seed = number("SAMPAN_SEED", 1);
    let mut runs = Vec::new();
    let mut differences = Vec::new();
    let mut ride = true;
    for round in 0..rounds {
        let mut ways = [("fast_path", Way::FastPath), ("forwarding", Way::Forward)];
        // Turn and turn about, so that what grows in the course of a run weighs on both.
        if round % 2 == 1 {
            ways.reverse();
        }
        let run: serde_json::Map<String, Value> =
            ways.into_iter().map(|(name, way)| (name.to_owned(), once(way, seconds, seed + round))).collect();
        let lost = |name: &str| run[name]["b_lost_percent"].as_f64().unwrap();
        let difference = lost("fast_path") - lost("forwarding");
        let run = json!({"round": round, "difference": difference, "ways": run});
        eprintln!("{run}");
        ride &= run["ways"]["fast_path"]["b_riding"] == u64::from(2 * FLOWS);
        differences.push(difference);
        runs.push(run);
    }
    differences.sort_by(f64::total_cmp);
    let median = differences[differences.len() / 2];
    let members = [
        ("device", json!("network namespaces, veth, two workers; both units behind one port of the gateway")),
        ("seconds", json!(seconds)),
        ("flows_of_b", json!({"udp": FLOWS, "tcp": FLOWS, "requests_per_second_each": PACE})),
        ("median_difference_percentage_points", json!(median)),
        ("limit", json!(LIMIT)),
        ("all_flows_of_b_rode", json!(ride)),
        ("runs", json!(runs)),
    ];
    campaign::report(&members.map(|(name, value)| format!("\"{name}\": {value}")).join(",\n  "));
    if median <= LIMIT && ride { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn once(way: Way, seconds: f64, seed: u64) -> Value {
    let ground = Ground::with(way);
    // Both ends know their way, and B's flows ride, before anything is counted.
    let (sent, worked, came, riding) = thread::scope(|scope| {
        let work = scope.spawn(|| ground.work(PACE, seconds + 2.0 * MARGIN));
        sleep(Duration::from_secs_f64(MARGIN));
        let (before, riding) = (ground.books(), (way == Way::FastPath).then(|| riding(&ground)));
        let sent = ground.flood(0.0, seconds, seed);
        let worked = work.join().unwrap();
        (sent, worked, ground.books().since(&before), riding)
    });
    let count = |at: &str| worked.pointer(at).and_then(Value::as_u64).expect("a count");
    let asked = count("/udp/sent") + count("/tcp/sent");
    let udp_lost = count("/udp/sent") - count("/udp/answered");
    let tcp_lost = count("/tcp/sent") - count("/tcp/answered") + came.retransmitted + count("/broken");
    json!({
        "flood_sent_per_second": sent["per_second"],
        "b_udp_lost": udp_lost,
        "b_tcp_lost_or_retransmitted": tcp_lost,
        // Every request goes there and back.
        "b_lost_percent": (udp_lost + tcp_lost) as f64 / (2 * asked) as f64 * 100.0,
        "b": worked,
        "b_riding": riding,
        "queues": came.queues,
        "drops": came.named,
        "from_lan": came.from_lan,
    })
}

/// How many of B's sessions ride the fast path.
fn riding(ground: &Ground) -> u64 {
    let said = ground.lab.sampan(&["sessions", "--unit", "B", "--json", "--all"]).unwrap().check().unwrap();
    let said: Value = serde_json::from_str(&said).unwrap();
    said["rows"].as_array().unwrap().iter().filter(|row| row["path"] == "fast").count() as u64
}
