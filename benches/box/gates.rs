//! What must hold, and what we aim at.

use serde::Serialize;

use crate::stats::Spread;

/// A median of fewer rounds decides nothing.
pub const ROUNDS: usize = 9;

/// A test on a case, by their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Point {
    /// The case.
    pub case: &'static str,
    /// The test.
    pub test: &'static str,
}

/// A limit for a ratio of CPU costs within a round.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Gate {
    /// What is judged.
    pub of: Point,
    /// What it is compared with.
    pub to: Point,
    /// A case by which both are divided first, each under its own load.
    pub over: Option<&'static str>,
    /// The ratio may not be larger. Without a limit it is only told.
    pub limit: Option<f64>,
    /// Where we want to be.
    pub aim: Option<f64>,
}

/// All of them.
pub const GATES: [Gate; 17] = [
    gate("fast", "up", "forward", 1.25, Some(1.0)),
    gate("fast", "down", "forward", 1.25, Some(1.0)),
    gate("fast", "echo", "forward", 1.15, Some(0.95)),
    gate("fast", "connect", "nat44", 1.4, Some(1.0)),
    gate("fast-1m", "up", "fast", 1.25, None),
    gate("fast-1m", "down", "fast", 1.25, None),
    gate("fast-1m", "echo", "fast", 1.25, None),
    gate("fast-1m", "connect", "fast", 1.25, None),
    // The load of many flows costs client and server more, too: what forwarding pays for it is not the gateway's doing.
    Gate { over: Some("forward"), limit: Some(1.25), ..MANY },
    MANY,
    Gate { of: Point { case: "forward", ..MANY.of }, to: Point { case: "forward", ..MANY.to }, ..MANY },
    gate("sampan", "up", "forward", 2.0, Some(1.4)),
    gate("sampan", "down", "forward", 2.0, Some(1.4)),
    gate("sampan", "echo", "forward", 2.5, Some(1.7)),
    gate("sampan", "up", "tayga", 1.0 / 6.0, None),
    gate("sampan", "down", "tayga", 1.0 / 6.0, None),
    gate("sampan", "echo", "tayga", 1.0, Some(0.75)),
];

const MANY: Gate = Gate {
    of: Point { case: "fast-1m", test: "wide" },
    to: Point { case: "fast", test: "few" },
    over: None,
    limit: None,
    aim: None,
};

const fn gate(
    case: &'static str,
    test: &'static str,
    to: &'static str,
    limit: f64,
    aim: Option<f64>,
) -> Gate {
    Gate { of: Point { case, test }, to: Point { case: to, test }, over: None, limit: Some(limit), aim }
}

/// How a gate came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The aim is reached, or the limit where there is no aim.
    Reached,
    /// Within the limit, not at the aim.
    Holds,
    /// Over the limit.
    Fails,
    /// Not measured, or in too few rounds.
    NotJudged,
    /// There is no limit.
    Told,
}

impl Gate {
    /// The ratio within a round, from what each point cost in it.
    pub fn ratio(&self, cost: impl Fn(Point) -> Option<f64>) -> Option<f64> {
        let relative = |point: Point| {
            let own = cost(point)?;
            match self.over {
                Some(case) => Some(own / cost(Point { case, ..point })?),
                None => Some(own),
            }
        };
        Some(relative(self.of)? / relative(self.to)?)
    }

    /// Judges the ratios of all rounds by their median.
    pub fn judge(&self, ratio: Option<Spread>) -> Outcome {
        match (ratio, self.limit) {
            (_, None) => Outcome::Told,
            (None, _) => Outcome::NotJudged,
            (Some(ratio), _) if ratio.n < ROUNDS => Outcome::NotJudged,
            (Some(ratio), Some(limit)) if ratio.median <= self.aim.unwrap_or(limit) => Outcome::Reached,
            (Some(ratio), Some(limit)) if ratio.median <= limit => Outcome::Holds,
            // Also what is not a number.
            (Some(_), Some(_)) => Outcome::Fails,
        }
    }
}

/// The exit code of the whole run.
pub fn exit_code(outcomes: &[Outcome]) -> u8 {
    if outcomes.contains(&Outcome::Fails) {
        1
    } else if outcomes.contains(&Outcome::NotJudged) {
        3
    } else {
        0
    }
}
