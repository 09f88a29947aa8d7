//! The campaign `hitless`: established TCP and UDP flows under load while the gateway is killed and started again, replaced
//! by another build, and told to reload, each beside a run in which nothing happens.
//!
//! Gates: no connection is reset, from each comes back what was sent, no mapping changes, no more datagrams are lost than in
//! the worst of the runs without an event, and a new flow works within 300 ms of a start. Needs root and `/dev/net/tun`.
//!
//! Environment: `SAMPAN_FLOWS` connections, and as many UDP flows (1000), `SAMPAN_RATE` questions of each per second (4),
//! `SAMPAN_SECONDS` of load (60), `SAMPAN_ROUNDS` (5), `SAMPAN_RELOADS` (1000), `SAMPAN_OTHER` the other build (the program
//! itself when it is not set), `SAMPAN_REPORT` a file for the figures.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on shall say where")]

#[path = "support/campaign.rs"]
mod campaign;
#[path = "support/hitless.rs"]
mod hitless;
#[path = "netns/support.rs"]
#[allow(dead_code, reason = "few of the tools are needed")]
mod support;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use campaign::number;
use hitless::{Event, Outcome, Size};
use support::{SAMPAN, TestLab};

/// How long nobody is there.
const PAUSE: Duration = Duration::from_secs(5);
/// When a new flow must work.
const NEW_FLOW: Duration = Duration::from_millis(300);

fn main() -> ExitCode {
    // Each flow has a socket at both ends, and this process has them all.
    let most = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap().1;
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, most, most).unwrap();
    let size = Size {
        flows: number("SAMPAN_FLOWS", 1_000) as usize,
        rate: number("SAMPAN_RATE", 4) as u32,
        time: Duration::from_secs(number("SAMPAN_SECONDS", 60)),
    };
    let reloads = number("SAMPAN_RELOADS", 1_000) as usize;
    let other = std::env::var("SAMPAN_OTHER").map_or_else(|_| PathBuf::from(SAMPAN), PathBuf::from);
    let events = [
        ("nothing", Event::Nothing),
        ("kill", Event::Kill(PAUSE)),
        ("upgrade", Event::Upgrade(other)),
        ("reloads", Event::Reloads(reloads)),
    ];
    let (mut rows, mut passed, mut most_lost) = (Vec::new(), true, 0);
    let rounds = number("SAMPAN_ROUNDS", 5);
    let mut outcomes = Vec::new();
    for round in 0..rounds {
        for (name, event) in &events {
            let outcome = once(size, event);
            if matches!(event, Event::Nothing) {
                most_lost = most_lost.max(outcome.udp_lost);
            }
            outcomes.push((round, *name, outcome));
        }
    }
    for (round, name, outcome) in &outcomes {
        let holds = holds(outcome, size, most_lost);
        passed &= holds;
        rows.push(row(*round, name, outcome, holds));
    }
    campaign::report(&format!(
        "\"flows\": {}, \"rate\": {}, \"seconds\": {}, \"rounds\": {rounds}, \"reloads\": {reloads},\n  \"runs\": [\n    {}\n  ]",
        2 * size.flows,
        size.rate,
        size.time.as_secs(),
        rows.join(",\n    ")
    ));
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn once(size: Size, event: &Event) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("sampan");
    std::fs::copy(SAMPAN, &program).unwrap();
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

fn row(round: u64, name: &str, outcome: &Outcome, holds: bool) -> String {
    let new_flow = outcome.new_flow.map_or("null".to_owned(), |time| time.as_millis().to_string());
    format!(
        "{{\"round\": {round}, \"event\": \"{name}\", \"tcp_reset\": {}, \"tcp_incomplete\": {}, \"udp_sent\": {}, \
         \"udp_lost\": {}, \"mappings\": {}, \"changed\": {}, \"riding\": {}, \"new_flow_ms\": {new_flow}, \
         \"holds\": {holds}}}",
        outcome.tcp_reset,
        outcome.tcp_incomplete,
        outcome.udp_sent,
        outcome.udp_lost,
        outcome.mappings,
        outcome.changed,
        outcome.riding
    )
}
