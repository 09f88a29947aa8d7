//! The campaign `model`: a slow and obvious model of RFC 6146 (`properties/model.rs`) and the workers that ship take the
//! same walks (`properties/walk.rs`) and agree after each step.
//!
//! On every push it runs at a small size; `tests/campaign model` runs it at full size. Environment: `SAMPAN_OPERATIONS`
//! how many steps (20000), `SAMPAN_SEED` from where (1), `SAMPAN_REPORT` a file for the figures. Walk n of seed s is
//! walk 0 of seed s + n; one that fails is shrunk and printed with its seed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on shall say where")]

#[path = "properties/model.rs"]
mod model;
#[path = "properties/setup.rs"]
mod setup;
#[path = "support/mod.rs"]
mod support;
#[path = "properties/walk.rs"]
mod walk;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use support::campaign::{self, number};
use support::traffic::Rng;
use walk::{Divergence, walk};

/// Steps of one walk.
const STEPS: u64 = 1000;

/// Steps from which on everything must have been met with.
const ENOUGH: u64 = 100_000;
/// Walks that never get there would agree about nothing.
const MUST_MEET: [&str; 23] = [
    "another pool",
    "evicted the oldest",
    "filtered",
    "hairpin",
    "mapping",
    "no_bib",
    "no_session",
    "not_allowed",
    "not_pool4",
    "packet_too_big",
    "ports_exhausted",
    "probe",
    "quota_ports",
    "reload",
    "source_not_served",
    "syn_met",
    "syn_repeated",
    "syn_unanswered",
    "table_full",
    "told a client",
    "told a peer",
    "translated to IPv4",
    "translated to IPv6",
];

fn main() -> ExitCode {
    let wanted = number("SAMPAN_OPERATIONS", 20_000);
    let seed = number("SAMPAN_SEED", 1);
    let start = Instant::now();
    // A panic is a divergence like others, and is told with it.
    std::panic::set_hook(Box::new(|_| {}));
    let mut met: BTreeMap<&'static str, u64> = BTreeMap::new();
    let (mut operations, mut walks, mut divergences) = (0, 0, 0);
    while operations < wanted && divergences == 0 {
        let mut rng = Rng(seed + walks);
        let setup = rng.next();
        let steps: Vec<u64> = (0..STEPS.min(wanted - operations)).map(|_| rng.next()).collect();
        match walk(setup, &steps) {
            Ok(tally) => tally.into_iter().for_each(|(what, n)| *met.entry(what).or_default() += n),
            Err(_) => {
                divergences += 1;
                let (fewer, found) = shrink(setup, &steps);
                eprintln!("seed {}: setup {setup:#x}, steps {fewer:#x?}\n{}", seed + walks, found.what);
            }
        }
        operations += steps.len() as u64;
        walks += 1;
    }
    let idle = if operations < ENOUGH { Vec::new() } else { not_met(&met) };
    let met: Vec<String> = met.iter().map(|(what, n)| format!("\"{what}\": {n}")).collect();
    let report = [
        format!("\"seed\": {seed}"),
        format!("\"operations\": {operations}"),
        format!("\"walks\": {walks}"),
        format!("\"divergences\": {divergences}"),
        format!("\"not_met\": {idle:?}"),
        format!("\"met\": {{{}}}", met.join(", ")),
        format!("\"seconds\": {:.1}", start.elapsed().as_secs_f64()),
    ]
    .join(",\n  ");
    campaign::report(&report);
    if divergences == 0 && idle.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the walks have not met with, and whether too few sessions gave way in their order.
fn not_met(met: &BTreeMap<&'static str, u64>) -> Vec<&'static str> {
    let count = |what: &str| met.get(what).copied().unwrap_or(0);
    let mut idle: Vec<_> = MUST_MEET.into_iter().filter(|what| count(what) == 0).collect();
    if count("evicted the oldest") < count("evicted another") {
        idle.push("an order in which sessions give way");
    }
    if count("evicted none") * 10 > count("evicted the oldest") {
        idle.push("those that may give way");
    }
    idle
}

/// Leaves out whatever steps can be left out, so that the walk still fails.
fn shrink(setup: u64, steps: &[u64]) -> (Vec<u64>, Divergence) {
    let Err(mut found) = walk(setup, steps) else { panic!("this walk does not fail") };
    let mut steps = steps[..found.step].to_vec();
    let mut chunk = steps.len().div_ceil(2);
    while chunk > 0 {
        let mut from = 0;
        while from < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(from..(from + chunk).min(steps.len()));
            match walk(setup, &fewer) {
                Err(still) => {
                    fewer.truncate(still.step);
                    (steps, found) = (fewer, still);
                }
                Ok(_) => from += chunk,
            }
        }
        chunk /= 2;
    }
    (steps, found)
}
