//! Medians and quartiles.

use serde::Serialize;

/// The middle of some values, and how far the middle half reaches.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Half of the values are below.
    pub median: f64,
    /// A quarter of the values is below.
    pub q1: f64,
    /// A quarter of the values is above.
    pub q3: f64,
    /// How many values there were.
    pub n: usize,
}

/// The spread of `values`; none of no values.
pub fn spread(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    Some(Spread {
        median: quantile(&sorted, 0.5)?,
        q1: quantile(&sorted, 0.25)?,
        q3: quantile(&sorted, 0.75)?,
        n: sorted.len(),
    })
}

/// Between two values it lies in proportion, as spreadsheets and numpy have it.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let at = share * sorted.len().checked_sub(1)? as f64;
    let below = sorted.get(at.floor() as usize)?;
    let above = sorted.get(at.ceil() as usize)?;
    Some(below + (above - below) * at.fract())
}
