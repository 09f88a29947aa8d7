//! Replays the committed fuzz corpora on stable, through the same entry functions as the fuzzers.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails must fail")]

use std::path::Path;

#[path = "fuzz/entry/mod.rs"]
mod entry;

fn replay(target: &str) {
    let (_, run) = entry::TARGETS.iter().find(|(name, _)| *name == target).expect("a target of that name");
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 20, "{} holds only {} inputs", dir.display(), files.len());
    for file in files {
        let data = std::fs::read(&file).unwrap();
        if std::panic::catch_unwind(|| run(&data)).is_err() {
            panic!("{} fails", file.display());
        }
    }
}

#[test]
fn wire_parse() {
    replay("wire_parse");
}

#[test]
fn xlat_6to4() {
    replay("xlat_6to4");
}

#[test]
fn xlat_4to6() {
    replay("xlat_4to6");
}

#[test]
fn icmp_quote() {
    replay("icmp_quote");
}

#[test]
fn fragments() {
    replay("fragments");
}

#[test]
fn journal() {
    replay("journal");
}

#[test]
fn stateless() {
    replay("stateless");
}

#[test]
fn whole_box() {
    replay("whole_box");
}

#[test]
fn dns64_query() {
    replay("dns64_query");
}

#[test]
fn dns64_upstream() {
    replay("dns64_upstream");
}
