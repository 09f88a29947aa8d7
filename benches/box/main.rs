//! The box bench: what the whole path costs in CPU time, with Sampan, tayga or only the kernel in the gateway.
//!
//! Started by `benches/box/run`; `docs/performance.md` has the method and a table.

mod case;
mod cpu;
mod gates;
mod load;
mod report;
mod stats;
mod svg;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use sampan::lab::{LabError, interrupt};

use crate::case::{Case, Stand};
use crate::cpu::{Machine, Softirq};
use crate::load::{Sample, Test, measure};
use crate::report::{Report, Setting, judge, summarise};

/// The program under test: built with the same profile as a release.
const SAMPAN: &str = env!("CARGO_BIN_EXE_sampan");

/// CPU cost of the whole box, beside kernel forwarding, kernel NAT44 and tayga.
#[derive(Debug, Parser)]
#[command(name = "benches/box/run")]
struct Args {
    /// How often each test is made on each case
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Which cases
    #[arg(long, value_enum, value_delimiter = ',')]
    cases: Vec<Case>,
    /// Which tests
    #[arg(long, value_enum, value_delimiter = ',')]
    tests: Vec<Test>,
    /// All tests; Sampan with one worker and with 1,000, 100,000 and a million flows, too
    #[arg(long)]
    full: bool,
    /// Seconds of one measurement
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Another program of Sampan to measure beside, such as one built before a change
    #[arg(long, value_name = "PROGRAM")]
    against: Option<PathBuf>,
    /// Write everything there
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the costs beside forwarding there
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.bench {
        println!("the box bench needs root and some minutes: start it with benches/box/run");
        return ExitCode::SUCCESS;
    }
    match run(&args) {
        Ok(report) => {
            print!("{}", report.text());
            let outcomes: Vec<_> = report.gates.iter().map(|gate| gate.outcome).collect();
            ExitCode::from(gates::exit_code(&outcomes))
        }
        Err(error) => {
            eprintln!("benches/box: {error}");
            ExitCode::from(if matches!(error, LabError::Interrupted) { 130 } else { 2 })
        }
    }
}

fn run(args: &Args) -> Result<Report, LabError> {
    let began = Instant::now();
    interrupt::watch()?;
    for file in args.json.iter().chain(&args.svg) {
        // Better now than after ten minutes.
        write(file, "")?;
    }
    let setting = Setting::here();
    let tests = args.tests();
    let cases = args.cases();
    let softirq = Softirq::find()?;
    let mut stands = Vec::new();
    for &case in &cases {
        eprintln!("setting up: {}", case.label());
        let program = match (case, &args.against) {
            (Case::Against, Some(program)) => program,
            _ => Path::new(SAMPAN),
        };
        stands.push(Stand::up(case, program, Path::new(SAMPAN))?);
    }
    let machine = Machine::now()?;
    let measuring = Instant::now();
    let samples = rounds(args, &tests, &stands, &softirq)?;
    let (busy, steal) = Machine::now()?.shares_since(&machine);
    let ours: f64 = samples.iter().map(|s| s.cpu.total()).sum();
    let all = measuring.elapsed().as_secs_f64() * setting.cpus.max(1) as f64;
    let (mut crossed, mut flows) = (Vec::new(), Vec::new());
    for stand in &stands {
        flows.extend(stand.flows()?.map(|number| (stand.case, number)));
        if let Some((packets, share)) = stand.crossed()? {
            crossed.push((stand.case, packets, share));
        }
    }
    let summary = summarise(&samples, &tests, &cases);
    let report = Report {
        setting,
        rounds: args.rounds,
        seconds_each: args.seconds,
        seconds_in_all: began.elapsed().as_secs_f64(),
        steal,
        others: (busy - ours / all).max(0.0),
        crossed,
        flows,
        gates: judge(&samples),
        summary,
        samples,
    };
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(&report).map_err(|e| LabError::Step(e.to_string()))?;
        write(file, &text)?;
    }
    if let Some(file) = &args.svg {
        write(file, &report.picture())?;
    }
    Ok(report)
}

/// Every test on every case in each round. Who comes first changes inside a round and from round to round, and every
/// second round goes backwards, so that neither a place nor a neighbour favours a case.
fn rounds(args: &Args, tests: &[Test], stands: &[Stand], softirq: &Softirq) -> Result<Vec<Sample>, LabError> {
    let mut samples = Vec::new();
    for round in 0..args.rounds {
        eprintln!("round {} of {}", round + 1, args.rounds);
        for (number, &test) in tests.iter().enumerate() {
            let mut order: Vec<_> = stands.iter().collect();
            order.rotate_left((round as usize + number) % stands.len().max(1));
            if round % 2 == 1 {
                order.reverse();
            }
            for stand in order.into_iter().filter(|stand| test.fits(stand.case, round)) {
                interrupt::check()?;
                samples.extend(measure(test, stand, round, args.seconds, softirq)?);
            }
        }
    }
    Ok(samples)
}

impl Args {
    fn tests(&self) -> Vec<Test> {
        match (self.tests.is_empty(), self.full) {
            (false, _) => self.tests.clone(),
            (true, true) => Test::ALL.to_vec(),
            (true, false) => Test::BASE.to_vec(),
        }
    }

    fn cases(&self) -> Vec<Case> {
        let mut cases = self.cases.clone();
        if cases.is_empty() {
            cases = if self.full { Case::ALL.to_vec() } else { Case::BASE.to_vec() };
        }
        if self.against.is_some() {
            cases.push(Case::Against);
        }
        cases
    }
}

fn write(file: &Path, text: &str) -> Result<(), LabError> {
    fs::write(file, text).map_err(LabError::io(format!("write {}", file.display())))
}
