//! Golden packets: every `.txt` file below this directory is a test named after it. `README.md` says how they are
//! written.
//!
//! `cargo test --test golden` runs all of them, `cargo test --test golden -- b02` those whose name contains `b02`,
//! `-- --show b02` prints what comes out, `-- --seeds DIR` writes their packets as seeds for the fuzzers.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails must fail")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

mod format;
#[path = "../fuzz/entry/gateway.rs"]
#[allow(dead_code, reason = "shared with the fuzzers")]
mod gateway;
#[path = "../fuzz/entry/judge.rs"]
#[allow(dead_code, reason = "shared with the fuzzers")]
mod judge;
mod layers;
#[path = "../fuzz/entry/naive.rs"]
#[allow(dead_code, reason = "shared with the fuzzers")]
mod naive;
mod run;
mod seeds;
mod show;

#[derive(Default)]
struct Arguments {
    filters: Vec<String>,
    list: bool,
    show: bool,
    seeds: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(e) => {
            eprintln!("golden: {e}");
            return ExitCode::from(2);
        }
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut files = Vec::new();
    find(&root, &mut files);
    files.sort();
    let name = |file: &Path| {
        let path = file.strip_prefix(&root).unwrap_or(file).with_extension("");
        path.to_string_lossy().into_owned()
    };
    let named = files.iter().map(|f| (name(f), f));
    let wanted: Vec<_> = named
        .filter(|(n, _)| {
            arguments.filters.is_empty() || arguments.filters.iter().any(|f| n.contains(f.as_str()))
        })
        .collect();
    if arguments.list {
        wanted.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", wanted.len());
    let mut failed = Vec::new();
    for (name, file) in &wanted {
        match check(name, file, &arguments) {
            Ok(()) => println!("test {name} ... ok"),
            Err(e) => {
                println!("test {name} ... FAILED");
                failed.push((name, e));
            }
        }
    }
    for (name, e) in &failed {
        println!("\n---- {name}\n{e}");
    }
    let word = if failed.is_empty() { "ok" } else { "FAILED" };
    let (passed, out) = (wanted.len() - failed.len(), files.len() - wanted.len());
    println!(
        "\ntest result: {word}. {passed} passed; {} failed; 0 ignored; 0 measured; {out} filtered out",
        failed.len()
    );
    // Without a filter there must be something to test.
    let nothing = arguments.filters.is_empty() && files.is_empty();
    if failed.is_empty() && !nothing { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn arguments() -> Result<Arguments, String> {
    let mut found = Arguments::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--list" => found.list = true,
            "--show" => found.show = true,
            "--seeds" => found.seeds = Some(words.next().ok_or("--seeds DIR")?.into()),
            // What the usual harness takes and this one has no use for.
            "--nocapture" | "--no-capture" | "--quiet" | "-q" => {}
            "--test-threads" => drop(words.next()),
            w if w.starts_with("--test-threads=") => {}
            w if w.starts_with('-') => return Err(format!("no option {w}")),
            filter => found.filters.push(filter.to_owned()),
        }
    }
    Ok(found)
}

fn find(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, files);
        } else if path.extension().is_some_and(|e| e == "txt") {
            files.push(path);
        }
    }
}

/// Runs one file, with one worker and with three: no mapping depends on their number.
fn check(name: &str, file: &Path, arguments: &Arguments) -> Result<(), String> {
    let text = std::fs::read_to_string(file).map_err(|e| e.to_string())?;
    let golden = format::parse(&text)?;
    check_name(name, &golden.title)?;
    for workers in &golden.workers {
        let run = || run::run(&golden, *workers);
        // The gateway checks its own books, and panics when they do not close.
        let happened = std::panic::catch_unwind(run).map_err(|_| "panicked".to_owned())??;
        if *workers > 1 {
            continue;
        }
        if arguments.show {
            println!("{}\n{}", golden.title, golden.why);
            happened.iter().for_each(|h| println!("{}", run::describe(h)));
        }
        if let Some(dir) = &arguments.seeds {
            let inputs: Vec<_> = happened.into_iter().map(|h| h.input).filter(|i| !i.is_empty()).collect();
            seeds::write(dir, name, &inputs).map_err(|e| e.to_string())?;
        }
    }
    Ok(())
}

/// A file is called after the requirement that its first line names: `b02-...` is about B-02.
fn check_name(name: &str, title: &str) -> Result<(), String> {
    let file = name.rsplit('/').next().unwrap_or(name);
    let id = title.split_whitespace().next().unwrap_or("").replace('-', "").to_lowercase();
    match file.split('-').next() == Some(&id) {
        true => Ok(()),
        false => Err(format!("{name} does not begin with the requirement of its title, {id}")),
    }
}
