//! The arithmetic of `benches/box`: what it says about a gate must be right before anyone believes it.
#![allow(clippy::unwrap_used)] // fixed inputs

#[path = "../benches/box/gates.rs"]
mod gates;
#[path = "../benches/box/stats.rs"]
mod stats;

use gates::{GATES, Outcome, exit_code};
use stats::spread;

#[test]
fn median_and_quartiles_of_known_values() {
    let five = spread([5.0, 1.0, 4.0, 2.0, 3.0]).unwrap();
    assert_eq!((five.q1, five.median, five.q3, five.n), (2.0, 3.0, 4.0, 5));
    let four = spread([4.0, 1.0, 3.0, 2.0]).unwrap();
    assert_eq!((four.q1, four.median, four.q3), (1.75, 2.5, 3.25));
    assert_eq!(spread([7.0]).unwrap().q3, 7.0);
    assert_eq!(spread([]), None);
}

#[test]
fn one_outlier_does_not_move_the_median_far() {
    let calm = spread((1..=9).map(f64::from)).unwrap();
    let noisy = spread((1..=8).map(f64::from).chain([1e9])).unwrap();
    assert_eq!(calm.median, noisy.median);
}

#[test]
fn a_gate_holds_up_to_its_limit_and_not_beyond() {
    for gate in GATES {
        assert_eq!(gate.judge(Some(gate.aim.unwrap_or(gate.limit))), Outcome::Reached, "{gate:?}");
        if gate.aim.is_some() {
            assert_eq!(gate.judge(Some(gate.limit)), Outcome::Holds, "{gate:?}");
        }
        assert_eq!(gate.judge(Some(gate.limit * 1.001)), Outcome::Fails, "{gate:?}");
        assert_eq!(gate.judge(Some(f64::NAN)), Outcome::Fails, "{gate:?}");
        assert_eq!(gate.judge(None), Outcome::NotJudged, "{gate:?}");
    }
}

#[test]
fn the_exit_code_is_zero_only_if_every_gate_holds() {
    assert_eq!(exit_code(&[Outcome::Reached, Outcome::Holds]), 0);
    assert_eq!(exit_code(&[Outcome::Reached, Outcome::NotJudged]), 3);
    assert_eq!(exit_code(&[Outcome::Fails, Outcome::NotJudged]), 1);
}
