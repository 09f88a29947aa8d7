//! The arithmetic of `benches/box`: what it says about a gate must be right before anyone believes it.
#![allow(clippy::unwrap_used)] // fixed inputs

#[path = "../benches/box/gates.rs"]
mod gates;
#[path = "../benches/box/stats.rs"]
mod stats;
#[path = "../benches/box/svg.rs"]
mod svg;

use gates::{GATES, Outcome, Point, ROUNDS, exit_code};
use stats::{Spread, spread};
use svg::{Group, Panel, Row};

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

fn rounds(median: f64, n: usize) -> Option<Spread> {
    Some(Spread { median, q1: median, q3: median, n })
}

#[test]
fn a_gate_holds_up_to_its_limit_and_not_beyond() {
    for gate in GATES {
        let Some(limit) = gate.limit else {
            assert_eq!(gate.judge(rounds(99.0, ROUNDS)), Outcome::Told, "{gate:?}");
            continue;
        };
        let judge = |median| gate.judge(rounds(median, ROUNDS));
        assert_eq!(judge(gate.aim.unwrap_or(limit)), Outcome::Reached, "{gate:?}");
        if gate.aim.is_some() {
            assert_eq!(judge(limit), Outcome::Holds, "{gate:?}");
        }
        assert_eq!(judge(limit * 1.001), Outcome::Fails, "{gate:?}");
        assert_eq!(judge(f64::NAN), Outcome::Fails, "{gate:?}");
        assert_eq!(gate.judge(None), Outcome::NotJudged, "{gate:?}");
        assert_eq!(gate.judge(rounds(0.5, ROUNDS - 1)), Outcome::NotJudged, "{gate:?}");
    }
}

#[test]
fn what_a_load_costs_forwarding_is_taken_out_of_the_ratio() {
    // Eight flows cost forwarding 4 and the gateway 5, many flows 6 and 9.
    let cost = |point: Point| match (point.case, point.test) {
        ("forward", "few") => Some(4.0),
        ("fast", "few") => Some(5.0),
        ("forward", "wide") => Some(6.0),
        ("fast-1m", "wide") => Some(9.0),
        _ => None,
    };
    let ratios: Vec<_> =
        GATES.iter().filter(|gate| gate.of.test == "wide").map(|gate| gate.ratio(cost).unwrap()).collect();
    assert_eq!(ratios, [(9.0 / 6.0) / (5.0 / 4.0), 9.0 / 5.0, 6.0 / 4.0]);
    assert!(GATES.iter().filter(|gate| gate.of.test != "wide").all(|gate| gate.ratio(cost).is_none()));
}

#[test]
fn the_picture_is_whole_and_shows_what_it_is_given() {
    let row = |label: &str, group, median: f64| Row {
        label: label.into(),
        group,
        ratio: Spread { median, q1: median * 0.9, q3: median * 1.1, n: 9 },
    };
    let panels = [
        Panel {
            title: "a < b".into(),
            rows: vec![row("one", Group::Kernel, 1.0), row("other & more", Group::Other, 9.5)],
        },
        Panel { title: "c".into(), rows: vec![row("third", Group::Ours, 0.5)] },
    ];
    let picture = svg::draw("title", "note", &panels);
    for text in ["a &lt; b", "other &amp; more", ">9.50<", ">0.50<", "title", "note"] {
        assert!(picture.contains(text), "{text}: {picture}");
    }
    // Every element is closed: as many ends as beginnings.
    let ends = picture.matches("/>").count() + picture.matches("</").count();
    assert_eq!(picture.matches('<').count() - picture.matches("</").count(), ends);
    let width = |part: &str| -> f64 {
        let (_, rest) = picture.split_once(&format!("<rect class=\"{part}\"")).unwrap();
        let (_, rest) = rest.split_once("width=\"").unwrap();
        rest.split('"').next().unwrap().parse().unwrap()
    };
    assert!((width("kernel") / width("ours") - 2.0).abs() < 0.01, "{picture}");
    // What is far longer than the rest is cut, and its number stays.
    assert!(width("other") < width("kernel") * 9.0, "{picture}");
}

#[test]
fn the_exit_code_is_zero_only_if_every_gate_holds() {
    assert_eq!(exit_code(&[Outcome::Reached, Outcome::Holds, Outcome::Told]), 0);
    assert_eq!(exit_code(&[Outcome::Reached, Outcome::NotJudged]), 3);
    assert_eq!(exit_code(&[Outcome::Fails, Outcome::NotJudged]), 1);
}
