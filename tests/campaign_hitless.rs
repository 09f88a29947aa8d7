//! The campaign `hitless`: established TCP and UDP flows under load while the gateway is killed and started again, is an
//! older build that is replaced by this one, and is told to reload, each beside a run in which nothing happens. The load is
//! half of the highest rate that was found to lose nothing.
//!
//! Gates: no connection is reset, from each comes back what was sent, no mapping changes, no more datagrams are lost than in
//! the worst of the runs without an event, and a new flow works within 300 ms of a start. Needs root and `/dev/net/tun`.
//!
//! Environment: `SAMPAN_FLOWS` connections, and as many UDP flows (1000), `SAMPAN_RATE` questions of each in 100 s (0: half
//! of what is found), `SAMPAN_SECONDS` of load (60), `SAMPAN_ROUNDS` (5), `SAMPAN_RELOADS` (1000), `SAMPAN_OTHER` the older
//! build (the program itself when it is not set), `SAMPAN_REPORT` a file for the figures.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on shall say where")]

#[path = "support/campaign.rs"]
mod campaign;
#[path = "support/hitless.rs"]
mod hitless;
#[path = "netns/support.rs"]
#[allow(dead_code, reason = "few of the tools are needed")]
mod support;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use campaign::number;
use hitless::{Event, Outcome, Size};
use serde_json::{Value, json};
use support::{SAMPAN, TestLab};

/// How long nobody is there.
const PAUSE: Duration = Duration::from_secs(5);
/// When a new flow must work.
const NEW_FLOW: Duration = Duration::from_millis(300);
/// Load of one step of the search.
const TRIAL: Duration = Duration::from_secs(3);
/// Questions of each flow per second with which the search begins, where it ends, and how exact it is.
const LEAST: f64 = 2.0;
const MOST: f64 = 64.0;
const EXACT: f64 = 1.15;
/// Flows that ask less than this share of what they should are as good as a loss.
const REACHED: f64 = 0.97;

fn main() -> ExitCode {
    // Each flow has a socket at both ends, and this process has them all.
    let most = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap().1;
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, most, most).unwrap();
    let flows = number("SAMPAN_FLOWS", 1_000) as usize;
    let (loss_free, trials) = match number("SAMPAN_RATE", 0) {
        0 => search(flows),
        _ => (0.0, Vec::new()),
    };
    let rate = match number("SAMPAN_RATE", 0) {
        0 => loss_free / 2.0,
        hundredths => hundredths as f64 / 100.0,
    };
    let size = Size { flows, hosts: 1, rate, time: Duration::from_secs(number("SAMPAN_SECONDS", 60)) };
    let reloads = number("SAMPAN_RELOADS", 1_000) as usize;
    let other = std::env::var("SAMPAN_OTHER").map_or_else(|_| PathBuf::from(SAMPAN), PathBuf::from);
    let events = [
        ("nothing", Event::Nothing),
        ("kill", Event::Kill(PAUSE)),
        ("upgrade", Event::Upgrade(PathBuf::from(SAMPAN))),
        ("reloads", Event::Reloads(reloads)),
    ];
    let (mut rows, mut passed, mut most_lost) = (Vec::new(), true, 0);
    let rounds = number("SAMPAN_ROUNDS", 5);
    let mut outcomes = Vec::new();
    for round in 0..rounds {
        for (name, event) in &events {
            // What is replaced is the other one.
            let program = if *name == "upgrade" { &*other } else { Path::new(SAMPAN) };
            let outcome = once(size, event, program);
            if matches!(event, Event::Nothing) {
                most_lost = most_lost.max(outcome.udp_lost);
            }
            eprintln!("round {round}, {name}: {outcome:?}");
            outcomes.push((round, *name, outcome));
        }
    }
    for (round, name, outcome) in &outcomes {
        let holds = holds(outcome, size, most_lost);
        passed &= holds;
        rows.push(row(*round, name, outcome, holds).to_string());
    }
    let members = [
        ("flows", json!(2 * flows)),
        ("loss_free_questions_per_second", json!((2.0 * flows as f64 * loss_free).round())),
        ("trials", json!(trials)),
        ("questions_per_second", json!((2.0 * flows as f64 * size.rate).round())),
        ("seconds", json!(size.time.as_secs())),
        ("rounds", json!(rounds)),
        ("reloads", json!(reloads)),
    ];
    let members = members.map(|(name, value)| format!("\"{name}\": {value}")).join(",\n  ");
    campaign::report(&format!("{members},\n  \"runs\": [\n    {}\n  ]", rows.join(",\n    ")));
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The highest rate of questions of each flow at which nothing is lost and all are asked in time, and each step there.
fn search(flows: usize) -> (f64, Vec<Value>) {
    let mut trials = Vec::new();
    let mut carries = |rate: f64| {
        let outcome = once(Size { flows, hosts: 1, rate, time: TRIAL }, &Event::Nothing, Path::new(SAMPAN));
        let broken = outcome.udp_lost + outcome.tcp_reset + outcome.tcp_incomplete;
        let loss_free = broken == 0 && outcome.pace >= rate * REACHED;
        let trial = json!({"rate_of_a_flow": rate, "reached": outcome.pace, "lost_or_broken": broken, "loss_free": loss_free});
        eprintln!("{trial}");
        trials.push(trial);
        loss_free
    };
    let (mut good, mut bad) = (0.0, LEAST);
    while bad <= MOST && carries(bad) {
        (good, bad) = (bad, bad * 2.0);
    }
    assert!(good > 0.0, "even {LEAST} questions of each flow a second are too many");
    while bad > good * EXACT {
        let middle = f64::midpoint(good, bad);
        if carries(middle) { good = middle } else { bad = middle }
    }
    (good, trials)
}

fn once(size: Size, event: &Event, from: &Path) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("sampan");
    std::fs::copy(from, &program).unwrap();
    let mut lab = TestLab::with(|options| {
        options.sampan = program;
        options.workers = Some(2);
        options.fast_path = Some("mode = \"require\"\n".into());
    });
    hitless::run(&mut lab, size, event)
}

fn holds(outcome: &Outcome, size: Size, most_lost: usize) -> bool {
    outcome.tcp_reset == 0
        && outcome.tcp_incomplete == 0
        && outcome.changed == 0
        && outcome.mappings >= 2 * size.flows
        && outcome.udp_lost <= most_lost
        && outcome.new_flow.is_none_or(|time| time < NEW_FLOW)
}

fn row(round: u64, name: &str, outcome: &Outcome, holds: bool) -> Value {
    json!({
        "round": round,
        "event": name,
        "tcp_reset": outcome.tcp_reset,
        "tcp_incomplete": outcome.tcp_incomplete,
        "udp_sent": outcome.udp_sent,
        "udp_lost": outcome.udp_lost,
        "pace": outcome.pace,
        "mappings": outcome.mappings,
        "changed": outcome.changed,
        "udp_changed": outcome.udp_changed,
        "riding": outcome.riding,
        "new_flow_ms": outcome.new_flow.map(|time| time.as_millis() as u64),
        "holds": holds,
    })
}
