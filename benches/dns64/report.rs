//! From rows to a table, a JSON file and a judgement.

use std::fmt::Write;
use std::process::Command;

use serde::Serialize;

use crate::Test;
use crate::peers::Peer;
use crate::stats::{Spread, spread};

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub test: Test,
    pub peer: Peer,
    pub round: u32,
    pub answers: f64,
    pub lost: f64,
    /// User CPU time of the server for each answer.
    pub user_us: Option<f64>,
    /// All CPU time of the server for each answer.
    pub cpu_us: Option<f64>,
    /// Answers a second.
    pub rate: Option<f64>,
    /// Median.
    pub latency_ms: Option<f64>,
    pub upstream_per_query: Option<f64>,
}

impl Row {
    pub const fn of(test: Test, peer: Peer) -> Self {
        Self {
            test,
            peer,
            round: 0,
            answers: 0.0,
            lost: 0.0,
            user_us: None,
            cpu_us: None,
            rate: None,
            latency_ms: None,
            upstream_per_query: None,
        }
    }
}

/// What is looked at: a name, and where it stands in a row.
type Column = (&'static str, fn(&Row) -> Option<f64>);

const COLUMNS: [Column; 5] = [
    ("user µs", |row| row.user_us),
    ("CPU µs", |row| row.cpu_us),
    ("rate /s", |row| row.rate),
    ("latency ms", |row| row.latency_ms),
    ("upstream", |row| row.upstream_per_query),
];

/// Sampan beside unbound: test, column, and the bound of the ratio.
struct Gate {
    test: Test,
    column: usize,
    bound: Bound,
}

enum Bound {
    Most(f64),
    Least(f64),
}

const GATES: [Gate; 5] = [
    Gate { test: Test::Cached, column: 0, bound: Bound::Most(0.5) },
    Gate { test: Test::Cached, column: 1, bound: Bound::Most(1.0) },
    Gate { test: Test::Cached, column: 2, bound: Bound::Least(1.0) },
    Gate { test: Test::Uncached, column: 1, bound: Bound::Most(1.6) },
    Gate { test: Test::Latency, column: 3, bound: Bound::Most(0.6) },
];

/// The spread of one column.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    test: Test,
    peer: Peer,
    column: &'static str,
    value: Spread,
    /// Sampan's value divided by this server's, round by round.
    sampan_to_it: Option<Spread>,
}

/// A gate and how it came out.
#[derive(Clone, Debug, Serialize)]
pub struct Judged {
    test: Test,
    column: &'static str,
    limit: String,
    ratio: f64,
    passed: bool,
}

/// Everything that goes into the JSON file.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    commit: String,
    date: String,
    kernel: String,
    cpu: String,
    versions: Vec<(Peer, String)>,
    memory_kb: Vec<(Peer, u64)>,
    rounds: u32,
    seconds: u32,
    summary: Vec<Summary>,
    gates: Vec<Judged>,
    rows: Vec<Row>,
}

impl Report {
    pub fn new(rounds: u32, seconds: u32, rows: Vec<Row>, memory: impl Iterator<Item = u64>) -> Self {
        let summary = summarise(&rows);
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            commit: commit(),
            date: said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
            kernel: said("uname", &["-r"]),
            cpu: cpuinfo
                .lines()
                .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
                .map_or_else(String::new, |(_, name)| name.trim().to_owned()),
            versions: Peer::ALL.map(|peer| (peer, peer.version())).into(),
            memory_kb: Peer::ALL.into_iter().zip(memory).collect(),
            rounds,
            seconds,
            gates: judge(&summary),
            summary,
            rows,
        }
    }

    pub fn passed(&self) -> bool {
        self.gates.iter().all(|gate| gate.passed)
    }

    /// The report for people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = writeln!(
            text,
            "Sampan {} on {}, Linux {}, {}\n{} rounds of {} s a measurement, one core for the server; \
             median [quartiles]; the last column is Sampan's value by this server's, round by round\n",
            self.commit, self.date, self.kernel, self.cpu, self.rounds, self.seconds
        );
        for (peer, version) in &self.versions {
            let _ = writeln!(text, "{:<8} {version}", peer.name());
        }
        for (peer, memory) in &self.memory_kb {
            let _ = writeln!(text, "{:<8} {memory} kB resident at the end", peer.name());
        }
        let show = |s: &Spread| format!("{:.2} [{:.2} {:.2}]", s.median, s.q1, s.q3);
        let mut last = None;
        for row in &self.summary {
            if last != Some(row.test) {
                last = Some(row.test);
                let _ = writeln!(text, "\n{:?}", row.test);
            }
            let ratio = row.sampan_to_it.as_ref().map(show).unwrap_or_default();
            let _ = writeln!(
                text,
                "  {:<8} {:<11} {:>32} {ratio:>24}",
                row.peer.name(),
                row.column,
                show(&row.value)
            );
        }
        let _ = writeln!(text, "\nGates (Sampan beside unbound)");
        for gate in &self.gates {
            let verdict = if gate.passed { "holds" } else { "FAILS" };
            let _ = writeln!(
                text,
                "  {:<10} {:<11} {:.3} ({}) {verdict}",
                format!("{:?}", gate.test),
                gate.column,
                gate.ratio,
                gate.limit
            );
        }
        text
    }
}

fn summarise(rows: &[Row]) -> Vec<Summary> {
    let mut all = Vec::new();
    for test in [Test::Cached, Test::Uncached, Test::Latency, Test::Rfc8219] {
        for (column, value) in COLUMNS {
            for peer in Peer::ALL {
                let of = |peer| rows.iter().filter(move |row| row.test == test && row.peer == peer);
                let ratios = of(peer).filter_map(|row| {
                    let ours = of(Peer::Sampan).find(|ours| ours.round == row.round)?;
                    Some(value(ours)? / value(row)?).filter(|ratio| ratio.is_finite())
                });
                if let Some(own) = spread(of(peer).filter_map(value)) {
                    let sampan_to_it = spread(ratios).filter(|_| peer != Peer::Sampan);
                    all.push(Summary { test, peer, column, value: own, sampan_to_it });
                }
            }
        }
    }
    all
}

/// A gate whose test was not made is not judged.
fn judge(summary: &[Summary]) -> Vec<Judged> {
    let judged = GATES.iter().filter_map(|gate| {
        let (column, _) = COLUMNS[gate.column];
        let row = summary
            .iter()
            .find(|row| row.test == gate.test && row.column == column && row.peer == Peer::Unbound)?;
        let ratio = row.sampan_to_it?.median;
        let (limit, passed) = match gate.bound {
            Bound::Most(limit) => (format!("at most {limit}"), ratio <= limit),
            Bound::Least(limit) => (format!("at least {limit}"), ratio >= limit),
        };
        Some(Judged { test: gate.test, column, limit, ratio, passed })
    });
    judged.collect()
}

/// The source, with `+` when it was changed since.
pub fn commit() -> String {
    let changed = !said("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty();
    said("git", &["rev-parse", "--short=10", "HEAD"]) + if changed { "+" } else { "" }
}

fn said(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output();
    out.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned()).unwrap_or_default()
}
