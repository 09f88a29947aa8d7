//! From samples to a table, a JSON file and a judgement.

use std::fmt::Write;

use sampan::lab::tool::Tool;
use serde::Serialize;

use crate::case::Case;
use crate::gates::{GATES, Gate, Outcome, Point};
use crate::load::{Sample, Test, Times};
use crate::stats::{Spread, spread};
use crate::svg::{self, Panel, Row};

/// Where and when it was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Setting {
    /// The source, with `+` when it was changed since.
    pub commit: String,
    /// When it began, UTC.
    pub date: String,
    /// The kernel.
    pub kernel: String,
    /// The processor's name.
    pub cpu: String,
    /// How many of them.
    pub cpus: usize,
    /// tayga as installed.
    pub tayga: String,
    /// Load average before it began.
    pub load_before: String,
}

/// What the samples of one test and case come to.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    test: Test,
    case: Case,
    /// CPU time per unit, in microseconds.
    cost: Spread,
    /// Units a second.
    rate: Spread,
    /// Share of the CPU time that is the gateway's process.
    gateway_share: f64,
    /// Cost divided by that of kernel IPv6 forwarding in the same round.
    to_forward: Option<Spread>,
    /// Cost divided by that of kernel NAT44 in the same round.
    to_nat44: Option<Spread>,
    /// Cost divided by that of tayga in the same round.
    to_tayga: Option<Spread>,
    /// Round trips, where they are timed.
    times: Option<TimesSummary>,
    /// In how many rounds the sender was at its limit.
    sender_limited: usize,
    /// Units lost, or retransmitted segments, in all rounds.
    lost: u64,
}

/// How long round trips took: the spread over the rounds of what each round measured, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct TimesSummary {
    p50: Spread,
    p99: Spread,
    p999: Spread,
    /// From the shortest to the one that 0.1 % are slower than.
    variation: Spread,
}

/// A gate and how it came out.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Judged {
    #[serde(flatten)]
    gate: Gate,
    ratio: Option<Spread>,
    /// How it came out.
    pub outcome: Outcome,
}

/// Everything that goes into the JSON file.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where and when.
    pub setting: Setting,
    /// How many rounds were made.
    pub rounds: u32,
    /// Length of one measurement.
    pub seconds_each: u32,
    /// Length of the whole.
    pub seconds_in_all: f64,
    /// Share of the machine's CPU time that the host took.
    pub steal: f64,
    /// Share of the CPU time that others used, while we measured.
    pub others: f64,
    /// Sampan's packets, and the share of them that changed the worker: by case.
    pub crossed: Vec<(Case, u64, f64)>,
    /// Flows that were there in the end: those that ride, or all UDP sessions where there is no fast path.
    pub flows: Vec<(Case, u64)>,
    /// What the samples come to.
    pub summary: Vec<Summary>,
    /// The judgement.
    pub gates: Vec<Judged>,
    /// All samples.
    pub samples: Vec<Sample>,
}

impl Setting {
    /// Here and now.
    pub fn here() -> Self {
        let changed = !said("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty();
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            commit: said("git", &["rev-parse", "--short=10", "HEAD"]) + if changed { "+" } else { "" },
            date: said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
            kernel: said("uname", &["-r"]),
            cpu: cpuinfo
                .lines()
                .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
                .map_or_else(String::new, |(_, name)| name.trim().to_owned()),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            tayga: said("dpkg-query", &["-W", "-f=${Version}", "tayga"]),
            load_before: std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned(),
        }
    }
}

/// Puts the samples of each test and case together.
pub fn summarise(samples: &[Sample], tests: &[Test], cases: &[Case]) -> Vec<Summary> {
    let mut all = Vec::new();
    for &test in tests {
        for &case in cases {
            let own: Vec<_> = samples.iter().filter(|s| s.test == test && s.case == case).collect();
            let against = |other: Case| {
                spread(own.iter().filter_map(|s| {
                    let same = |o: &&Sample| o.test == test && o.case == other && o.round == s.round;
                    Some(s.cost / samples.iter().find(same)?.cost)
                }))
            };
            let (Some(cost), Some(rate)) =
                (spread(own.iter().map(|s| s.cost)), spread(own.iter().map(|s| s.rate)))
            else {
                continue;
            };
            let shares = spread(own.iter().map(|s| s.cpu.gateway / s.cpu.total()));
            all.push(Summary {
                test,
                case,
                cost,
                rate,
                gateway_share: shares.map_or(0.0, |s| s.median),
                to_forward: against(Case::Forward),
                to_nat44: against(Case::Nat44),
                to_tayga: against(Case::Tayga),
                times: times(&own),
                sender_limited: own.iter().filter(|s| s.sender_limited).count(),
                lost: own.iter().map(|s| s.lost).sum(),
            });
        }
    }
    all
}

fn times(samples: &[&Sample]) -> Option<TimesSummary> {
    let of = |take: fn(&Times) -> f64| spread(samples.iter().filter_map(|s| s.times.as_ref().map(take)));
    Some(TimesSummary {
        p50: of(|t| t.p50)?,
        p99: of(|t| t.p99)?,
        p999: of(|t| t.p999)?,
        variation: of(|t| t.p999 - t.min)?,
    })
}

/// Looks at every gate.
pub fn judge(samples: &[Sample]) -> Vec<Judged> {
    let rounds = samples.iter().map(|s| s.round).max().map_or(0, |last| last + 1);
    GATES
        .iter()
        .map(|gate| {
            let ratio = spread((0..rounds).filter_map(|round| {
                gate.ratio(|Point { case, test }| {
                    let same =
                        |s: &&Sample| s.round == round && s.case.name() == case && s.test.name() == test;
                    samples.iter().find(same).map(|s| s.cost)
                })
            }));
            Judged { gate: *gate, ratio, outcome: gate.judge(ratio) }
        })
        .collect()
}

impl Report {
    /// The report for people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let s = &self.setting;
        // Writing into a String cannot fail.
        let _ = writeln!(
            text,
            "Sampan {} on {}, Linux {}, {} × {}; tayga {}\n\
             {} rounds of {} s a measurement, {:.0} s in all; load before: {}; {:.1} % of the CPU time stolen by \
             the host, {:.0} % used by others\n\
             CPU time of client, gateway, server and ksoftirqd for each unit: median [quartiles]\n\
             to forwarding, to NAT44, to tayga: median [quartiles] of the ratios within each round\n",
            s.commit,
            s.date,
            s.kernel,
            s.cpus,
            s.cpu,
            s.tayga,
            self.rounds,
            self.seconds_each,
            self.seconds_in_all,
            s.load_before,
            self.steal * 100.0,
            self.others * 100.0,
        );
        let mut last = None;
        for row in &self.summary {
            if last != Some(row.test) {
                last = Some(row.test);
                let _ = writeln!(
                    text,
                    "{:<24} {:>20} {:>18} {:>18} {:>19} {:>12} {:>8}",
                    row.test.name(),
                    format!("µs per {}", row.test.unit()),
                    "to forwarding",
                    "to NAT44",
                    "to tayga",
                    "rate",
                    "gateway"
                );
            }
            let _ = writeln!(
                text,
                "  {:<22} {:>20} {:>18} {:>18} {:>19} {:>12} {:>7.0}%",
                row.case.label(),
                shown(row.cost),
                row.to_forward.map_or_else(String::new, shown),
                row.to_nat44.map_or_else(String::new, shown),
                row.to_tayga.map_or_else(String::new, shown),
                // More would have come through than the sender could make.
                if row.sender_limited > 0 { "≥ " } else { "" }.to_owned() + &row.test.rate(row.rate.median),
                row.gateway_share * 100.0
            );
        }
        text += &self.times_text();
        for (case, packets, share) in &self.crossed {
            let _ = writeln!(
                text,
                "\n{}: {packets} packets, {:.2} % of them changed the worker",
                case.label(),
                share * 100.0
            );
        }
        for (case, flows) in &self.flows {
            let _ = writeln!(text, "{}: {flows} flows at the end", case.label());
        }
        text.push('\n');
        for judged in &self.gates {
            let _ = writeln!(text, "{}", judged.text());
        }
        text
    }

    /// The report as a picture: all costs beside forwarding.
    pub fn picture(&self) -> String {
        let mut panels: Vec<Panel> = Vec::new();
        for row in &self.summary {
            let (Some(ratio), true) = (row.to_forward, row.test.is_cost()) else { continue };
            let title = row.test.label();
            if panels.last().is_none_or(|last| last.title != title) {
                panels.push(Panel { title: title.into(), rows: Vec::new() });
            }
            let (label, group) = (row.case.label().to_owned(), row.case.group());
            if let Some(panel) = panels.last_mut() {
                panel.rows.push(Row { label, group, ratio });
            }
        }
        let s = &self.setting;
        svg::draw(
            "CPU time of client, gateway and server beside plain IPv6 forwarding (1 = the same)",
            &format!(
                "Median of {} rounds, lines from quartile to quartile; {}, commit {}, Linux {}, {} CPUs",
                self.rounds, s.date, s.commit, s.kernel, s.cpus
            ),
            &panels,
        )
    }

    fn times_text(&self) -> String {
        let mut text = String::new();
        for row in &self.summary {
            let Some(times) = row.times else { continue };
            if text.is_empty() {
                text = format!(
                    "\nround trips, µs{:>31} {:>18} {:>18} {:>20}\n",
                    "p50", "p99", "p99.9", "p99.9 - shortest"
                );
            }
            let _ = writeln!(
                text,
                "  {:<8} {:<22} {:>18} {:>18} {:>18} {:>20}",
                row.test.name(),
                row.case.label(),
                shown(times.p50),
                shown(times.p99),
                shown(times.p999),
                shown(times.variation)
            );
        }
        text
    }
}

impl Judged {
    fn text(&self) -> String {
        let Gate { of, to, over, limit, aim } = self.gate;
        let point = |p: Point| match over {
            Some(case) => format!("({} / {case}) {}", p.case, p.test),
            None => format!("{} {}", p.case, p.test),
        };
        let ratio = self.ratio.map_or_else(
            || "?".into(),
            |r| format!("{:.3} [{:.3}-{:.3}] of {} rounds", r.median, r.q1, r.q3, r.n),
        );
        let limit = limit.map_or_else(String::new, |limit| format!(", at most {limit:.3}"));
        let aim = aim.map_or_else(String::new, |aim| format!(" (aim {aim})"));
        let verdict = match self.outcome {
            Outcome::Reached => ": holds",
            Outcome::Holds => ": holds, aim missed",
            Outcome::Fails => ": FAILS",
            Outcome::NotJudged => ": not judged, a case or test is left out or there were too few rounds",
            Outcome::Told => ", no limit",
        };
        format!("gate {} to {}: {ratio}{limit}{aim}{verdict}", point(of), point(to))
    }
}

fn shown(spread: Spread) -> String {
    let digits = match spread.median {
        m if m >= 100.0 => 0,
        m if m >= 10.0 => 1,
        m if m >= 0.2 => 2,
        _ => 3,
    };
    format!("{:.*} [{:.*}-{:.*}]", digits, spread.median, digits, spread.q1, digits, spread.q3)
}

/// What a program prints, or a question mark.
fn said(program: &str, args: &[&str]) -> String {
    let output = Tool::new(program).args(args.iter().copied()).run().and_then(|o| o.check());
    output.map_or_else(|_| "?".into(), |text| text.trim().to_owned())
}
