//! The campaign `restart`: what `kill -9` and a start five seconds later leave of established flows where there is no fast
//! path, so that nothing but the key and the journal of blocks outlives the gateway. Once the flows are of many hosts, as
//! in an office, and once of a single one, whose ports lie close together in full blocks.
//!
//! Gate: 97 % of the UDP mappings of the many hosts are what they were (median of the runs). TCP is reported only: its
//! segments without a session are dropped (RFC 6146 §3.5.2.2). Needs root and `/dev/net/tun`.
//!
//! Environment: `SAMPAN_FLOWS` connections, and as many UDP flows (1000), `SAMPAN_HOSTS` they belong to (50),
//! `SAMPAN_SECONDS` of load (20), `SAMPAN_RUNS` of each (5), `SAMPAN_REPORT` a file for the figures.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on shall say where")]

#[path = "support/campaign.rs"]
mod campaign;
#[path = "support/hitless.rs"]
#[allow(dead_code, reason = "nothing else happens here, and the load is light")]
mod hitless;
#[path = "netns/support.rs"]
#[allow(dead_code, reason = "few of the tools are needed")]
mod support;

use std::process::ExitCode;
use std::time::Duration;

use campaign::number;
use hitless::{Event, Outcome, Size};
use serde_json::json;
use support::TestLab;

/// How long nobody is there.
const PAUSE: Duration = Duration::from_secs(5);
/// Questions of each flow per second.
const RATE: f64 = 1.0;
/// The least share of UDP mappings of many hosts, in percent.
const KEPT: f64 = 97.0;

fn main() -> ExitCode {
    let flows = number("SAMPAN_FLOWS", 1_000) as usize;
    let hosts = number("SAMPAN_HOSTS", 50) as usize;
    let time = Duration::from_secs(number("SAMPAN_SECONDS", 20));
    let runs = number("SAMPAN_RUNS", 5);
    let of = |hosts: usize| {
        let mut kept: Vec<f64> = Vec::new();
        let mut rows = Vec::new();
        for run in 0..runs {
            let outcome = once(Size { flows, hosts, rate: RATE, time });
            assert_eq!((outcome.mappings, outcome.riding), (2 * flows, 0));
            let share = 100.0 * (flows - outcome.udp_changed) as f64 / flows as f64;
            eprintln!("{hosts} hosts, run {run}: {share} % of UDP mappings, {outcome:?}");
            kept.push(share);
            rows.push(json!({
                "hosts": hosts,
                "udp_mappings_kept_percent": share,
                "udp_sent": outcome.udp_sent,
                "udp_lost": outcome.udp_lost,
                "connections_cut": outcome.tcp_incomplete,
                "connections_reset": outcome.tcp_reset,
                "new_flow_ms": outcome.new_flow.map(|time| time.as_millis() as u64),
            }));
        }
        kept.sort_by(f64::total_cmp);
        (kept[kept.len() / 2], rows)
    };
    let (many, mut rows) = of(hosts);
    let (one, more) = of(1);
    rows.extend(more);
    let rows: Vec<String> = rows.iter().map(ToString::to_string).collect();
    campaign::report(&format!(
        "\"connections\": {flows},\n  \"udp_flows\": {flows},\n  \"hosts\": {hosts},\n  \"runs\": {runs},\n  \
         \"udp_mappings_kept_percent_of_many_hosts\": {many},\n  \"udp_mappings_kept_percent_of_one_host\": {one},\n  \
         \"limit_percent_of_many_hosts\": {KEPT},\n  \"each\": [\n    {}\n  ]",
        rows.join(",\n    ")
    ));
    if many >= KEPT { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn once(size: Size) -> Outcome {
    let mut lab = TestLab::with(|options| {
        options.workers = Some(2);
        options.fast_path = Some("mode = \"off\"\n".into());
    });
    hitless::run(&mut lab, size, &Event::Kill(PAUSE))
}
