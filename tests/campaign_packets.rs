//! The campaign `packets`: random and mutated packets by the million through the workers that ship, on memory
//! devices and virtual time. Nothing panics, both accounting sums close after every batch, flawless packets become
//! flawless packets, and no state is left at the end.
//!
//! On every push it runs at a small size; `tests/campaign packets` runs it at full size. Environment:
//! `SAMPAN_PACKETS` how many (20000), `SAMPAN_SEED` from where (1), `SAMPAN_REPORT` a file for the figures.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on shall say where")]

#[path = "support/mod.rs"]
mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use sampan::daemon::counters::Totals;
use sampan::verdict::DropReason;
use support::Gateway;
use support::campaign::{self, number};
use support::traffic::{Traffic, judge, judge_headers};

/// Packets between two looks at what came out.
const BATCH: u64 = 60;
/// Least share of packets that are translated, of all.
const SHARE: f64 = 0.40;

#[derive(Default)]
struct Result {
    totals: Totals,
    packets: u64,
    mutated: u64,
    judged: u64,
    gateways: u64,
    faults: Vec<String>,
}

fn main() -> ExitCode {
    let wanted = number("SAMPAN_PACKETS", 20_000);
    let seed = number("SAMPAN_SEED", 1);
    let start = Instant::now();
    let mut result = Result::default();
    let mut traffic = Traffic::new(seed);
    while result.packets < wanted && result.faults.is_empty() {
        let workers = 1 + (result.gateways % 3) as u16;
        // Many lives even in a short run, so that there are gateways of all sorts.
        let life = (wanted / 100).clamp(2_000, 50_000).min(wanted - result.packets);
        // A panic is a finding, not the end of the report.
        let run = catch_unwind(AssertUnwindSafe(|| live(&mut traffic, workers, life, &mut result)));
        if run.is_err() {
            result.faults.push(format!("panic in packets {}..", result.packets));
        }
        result.gateways += 1;
    }
    let report = report(&result, seed, start.elapsed());
    let share = result.totals.translated as f64 / result.packets.max(1) as f64;
    campaign::report(&report);
    if result.faults.is_empty() && share >= SHARE && result.totals.closes() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The life of one gateway.
fn live(traffic: &mut Traffic, workers: u16, packets: u64, result: &mut Result) {
    let mut gateway = traffic.gateway(workers);
    let mut fed = 0;
    while fed < packets {
        let mutated = traffic.rng().chance(30);
        let batch = BATCH.min(packets - fed);
        for i in 0..batch {
            let (bytes, offload) = if mutated { traffic.mutated(&gateway) } else { traffic.clean(&gateway) };
            gateway.feed((i % u64::from(workers)) as u16, bytes, offload);
        }
        fed += batch;
        result.packets += batch;
        result.mutated += if mutated { batch } else { 0 };
        let out = gateway.run();
        let verdict = if mutated {
            judge_headers(&out)
        } else {
            traffic.learn(&out);
            judge(&out).map(|whole| result.judged += whole as u64)
        };
        if let Err(fault) = verdict {
            result.faults.push(format!("packets {}..{}: {fault}", result.packets - batch, result.packets));
            return;
        }
        if traffic.rng().chance(2) {
            gateway.advance_telling(Duration::from_secs(traffic.rng().below(100) as u64));
        }
    }
    result.totals.add(&gateway.totals());
    gateway.advance_telling(Duration::from_secs(8000));
    check_empty(&gateway, result);
}

fn check_empty(gateway: &Gateway, result: &mut Result) {
    if !gateway.is_empty() {
        result.faults.push(format!(
            "state is left: sessions {:?}, bindings {}, subscribers {}, blocks {}",
            gateway.sessions(),
            gateway.bindings(),
            gateway.subscribers(),
            gateway.blocks()
        ));
    }
}

/// The figures as members of a JSON object.
fn report(result: &Result, seed: u64, took: Duration) -> String {
    let t = &result.totals;
    let drops: Vec<_> = DropReason::ALL
        .iter()
        .map(|r| (r.name(), t.drops[*r as usize]))
        .filter(|(_, n)| *n > 0)
        .map(|(name, n)| format!("\"{name}\": {n}"))
        .collect();
    let faults: Vec<_> = result.faults.iter().map(|f| format!("{f:?}")).collect();
    [
        format!("\"seed\": {seed}"),
        format!("\"packets\": {}", result.packets),
        format!("\"mutated\": {}", result.mutated),
        format!("\"gateways\": {}", result.gateways),
        format!("\"translated\": {}", t.translated),
        format!("\"translated_share\": {:.4}", t.translated as f64 / result.packets.max(1) as f64),
        format!("\"dropped\": {}", t.dropped()),
        format!("\"out_translated\": {}", t.out_translated),
        format!("\"out_pieces\": {}", t.out_pieces),
        format!("\"out_originated\": {}", t.out_originated),
        format!("\"passed_between_workers\": {}", t.passed),
        format!("\"judged_flawless\": {}", result.judged),
        format!("\"accounting_closes\": {}", t.closes()),
        format!("\"faults\": [{}]", faults.join(", ")),
        format!("\"drops\": {{{}}}", drops.join(", ")),
        format!("\"seconds\": {:.1}", took.as_secs_f64()),
    ]
    .join(",\n  ")
}
