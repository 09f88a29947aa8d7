//! What must hold, and what we aim at.

use serde::Serialize;

/// A limit for a ratio of CPU costs, one of Sampan's cases to another case.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gate {
    /// Name of the case that is judged.
    pub of: &'static str,
    /// Name of the test.
    pub test: &'static str,
    /// Name of the case it is compared with.
    pub to: &'static str,
    /// The ratio may not be larger.
    pub limit: f64,
    /// Where we want to be.
    pub aim: Option<f64>,
}

/// All of them.
pub const GATES: [Gate; 10] = [
    gate("fast", "up", "forward", 1.25, Some(1.0)),
    gate("fast", "down", "forward", 1.25, Some(1.0)),
    gate("fast", "echo", "forward", 1.15, Some(0.95)),
    gate("fast", "connect", "nat44", 1.4, Some(1.0)),
    gate("sampan", "up", "forward", 2.0, Some(1.4)),
    gate("sampan", "down", "forward", 2.0, Some(1.4)),
    gate("sampan", "echo", "forward", 2.5, Some(1.7)),
    gate("sampan", "up", "tayga", 1.0 / 6.0, None),
    gate("sampan", "down", "tayga", 1.0 / 6.0, None),
    gate("sampan", "echo", "tayga", 1.0, Some(0.75)),
];

const fn gate(of: &'static str, test: &'static str, to: &'static str, limit: f64, aim: Option<f64>) -> Gate {
    Gate { of, test, to, limit, aim }
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
    /// Not measured.
    NotJudged,
}

impl Gate {
    /// Judges the median of the ratios.
    pub fn judge(&self, ratio: Option<f64>) -> Outcome {
        match ratio {
            None => Outcome::NotJudged,
            Some(ratio) if ratio <= self.aim.unwrap_or(self.limit) => Outcome::Reached,
            Some(ratio) if ratio <= self.limit => Outcome::Holds,
            // Also what is not a number.
            Some(_) => Outcome::Fails,
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
