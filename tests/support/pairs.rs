//! Rows of features such that every pair of values meets in one of them.

use std::collections::BTreeSet;

/// A feature and its values.
pub type Feature = (&'static str, &'static [&'static str]);

/// A value of a feature, by their places.
pub type Value = (usize, usize);

/// Two values of different features, the first feature first.
pub type Pair = (Value, Value);

/// One value of each feature, by its place.
pub type Row = Vec<usize>;

/// What cannot be, and what hides what.
pub struct Rules<'a> {
    /// Pairs that do not exist.
    pub impossible: &'a dyn Fn(Value, Value) -> bool,
    /// Values of the row that decide everything alone: then only pairs with all of them are met.
    pub hiding: &'a dyn Fn(&Row) -> Vec<usize>,
}

/// All pairs that can be.
pub fn pairs(features: &[Feature], rules: &Rules<'_>) -> BTreeSet<Pair> {
    let values = |at: usize| (0..features[at].1.len()).map(move |value| (at, value));
    let firsts =
        (0..features.len()).flat_map(|first| (first + 1..features.len()).map(move |second| (first, second)));
    let all = firsts
        .flat_map(|(i, j)| values(i).flat_map(move |first| values(j).map(move |second| (first, second))));
    all.filter(|(first, second)| !(rules.impossible)(*first, *second)).collect()
}

/// The pairs that a row meets.
pub fn met(row: &Row, rules: &Rules<'_>) -> BTreeSet<Pair> {
    let hiding = (rules.hiding)(row);
    let firsts = (0..row.len()).flat_map(|i| (i + 1..row.len()).map(move |j| (i, j)));
    let seen = firsts.filter(|(i, j)| hiding.iter().all(|at| at == i || at == j));
    seen.map(|(i, j)| ((i, row[i]), (j, row[j]))).collect()
}

/// The rows: always the same ones. Each begins with a pair that was not met yet, and takes for every other feature the
/// value that meets most of what is left.
pub fn rows(features: &[Feature], rules: &Rules<'_>) -> Vec<Row> {
    let mut left = pairs(features, rules);
    let mut rows: Vec<Row> = Vec::new();
    while let Some(pair) = left.first().copied() {
        let turn = rows.len();
        let mut row: Vec<Option<usize>> = vec![None; features.len()];
        for (at, value) in [pair.0, pair.1] {
            row[at] = Some(value);
        }
        for at in 0..features.len() {
            if row[at].is_some() {
                continue;
            }
            let fixed: Vec<Value> =
                row.iter().enumerate().filter_map(|(at, value)| Some((at, (*value)?))).collect();
            let count = features[at].1.len();
            let ordered = |a: Value, b: Value| if a.0 < b.0 { (a, b) } else { (b, a) };
            // Turn by turn another value goes first, so that equals take turns.
            let best = (0..count)
                .map(|step| (step + turn) % count)
                .filter(|value| {
                    let with = |other: &Value| {
                        let (first, second) = ordered(*other, (at, *value));
                        (rules.impossible)(first, second)
                    };
                    !fixed.iter().any(with) && !hides(&row, (at, *value), pair, rules)
                })
                .max_by_key(|value| {
                    fixed.iter().filter(|other| left.contains(&ordered(**other, (at, *value)))).count()
                });
            row[at] = Some(best.expect("a value that can be"));
        }
        let row: Row = row.into_iter().map(|value| value.expect("every feature has one")).collect();
        let before = left.len();
        for pair in met(&row, rules) {
            left.remove(&pair);
        }
        assert!(left.len() < before, "{row:?} meets nothing new: {pair:?} cannot be met");
        rows.push(row);
    }
    rows
}

/// Whether taking this value would hide the pair that the row is made for. What is open counts as its first value that
/// hides nothing.
fn hides(row: &[Option<usize>], value: Value, pair: Pair, rules: &Rules<'_>) -> bool {
    let mut whole: Row = row.iter().map(|value| value.unwrap_or(0)).collect();
    whole[value.0] = value.1;
    (rules.hiding)(&whole).iter().any(|at| *at != pair.0.0 && *at != pair.1.0)
}

#[test]
fn every_pair_is_met_and_impossible_ones_are_not() {
    const FEATURES: &[Feature] = &[("a", &["0", "1", "2"]), ("b", &["0", "1"]), ("c", &["0", "1", "hides"])];
    let rules = Rules {
        impossible: &|first, second| (first, second) == ((0, 1), (1, 1)),
        hiding: &|row| if row[2] == 2 { vec![2] } else { vec![] },
    };
    let all = pairs(FEATURES, &rules);
    assert_eq!(all.len(), 3 * 2 + 3 * 3 + 2 * 3 - 1);
    let rows = rows(FEATURES, &rules);
    assert!(rows.iter().all(|row| (row[0], row[1]) != (1, 1)));
    let found: BTreeSet<_> = rows.iter().flat_map(|row| met(row, &rules)).collect();
    assert_eq!(found, all);
    // With the third feature hidden, the first two still meet elsewhere.
    assert!(rows.iter().filter(|row| row[2] != 2).count() >= 5);
}
