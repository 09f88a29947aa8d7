//! What must hold, and what we aim at.

use serde::Serialize;

/// A limit for a ratio of CPU costs, Sampan's to another case's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gate {
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
pub const GATES: [Gate; 5] = [
    Gate { test: "up", to: "forward", limit: 2.2, aim: Some(1.5) },
    Gate { test: "down", to: "forward", limit: 2.2, aim: Some(1.5) },
    Gate { test: "up", to: "tayga", limit: 1.0 / 6.0, aim: None },
    Gate { test: "down", to: "tayga", limit: 1.0 / 6.0, aim: None },
    Gate { test: "echo", to: "tayga", limit: 1.0, aim: Some(0.75) },
];

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
