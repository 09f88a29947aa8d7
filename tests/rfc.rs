//! The compliance tables in `docs/rfc/` and the tests agree: every requirement that a test names has a row, every row
//! that says `done` names tests that exist, and the summary is what the tables say.
//!
//! `UPDATE_DOCS=1 cargo test --test rfc` writes the summary anew.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on shall say where")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// One row of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    file: String,
    level: String,
    state: String,
    tests: Vec<String>,
}

/// Groups whose tables are complete. Tests of other groups carry their numbers ahead of their tables.
const GROUPS: &str = "ABCDEIKL";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(dir: &Path, ending: &str, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, ending, out);
        } else if path.extension().is_some_and(|e| e == ending) {
            out.push(path);
        }
    }
}

/// Rows of a Markdown table whose first cell is a requirement number.
fn rows(file: &str, text: &str) -> BTreeMap<String, Row> {
    let row = |line: &str| {
        let cells: Vec<&str> =
            line.strip_prefix("| ")?.strip_suffix('|')?.split(" |").map(str::trim).collect();
        let [id, level, _, state, _, tests] = cells[..] else { return None };
        let tests = tests.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        let row = Row { file: file.into(), level: level.into(), state: state.into(), tests };
        is_id(id).then(|| (id.to_owned(), row))
    };
    text.lines().filter_map(row).collect()
}

fn is_id(text: &str) -> bool {
    matches!(text.as_bytes(), [b'A'..=b'Q', b'-', a, b] if a.is_ascii_digit() && b.is_ascii_digit())
}

/// Requirement numbers at the beginning of a test's name: `b04_b09_…`, `d03_to_d21_…`.
fn numbers(name: &str) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    let mut last: Option<(char, u32)> = None;
    let mut range = false;
    for word in name.split(['_', '-']) {
        if word == "to" && last.is_some() {
            range = true;
            continue;
        }
        let mut chars = word.chars();
        let (Some(group @ 'a'..='q'), Ok(number), 3) =
            (chars.next(), chars.as_str().parse::<u32>(), word.len())
        else {
            break;
        };
        let from = match last {
            Some((g, n)) if range && g == group => n,
            _ => number,
        };
        out.extend((from..=number).map(|n| format!("{}-{n:02}", group.to_ascii_uppercase())));
        last = Some((group, number));
        range = false;
    }
    out
}

/// A test without the directories of a golden file.
fn own_name(test: &str) -> &str {
    test.strip_prefix("golden:").and_then(|t| t.split('/').next_back()).unwrap_or(test)
}

/// Every test function and golden file.
fn tests() -> BTreeSet<String> {
    let mut sources = Vec::new();
    for dir in ["src", "tests"] {
        files_below(&root().join(dir), "rs", &mut sources);
    }
    let mut out = BTreeSet::new();
    for path in sources {
        let text = fs::read_to_string(path).unwrap();
        let mut marked = false;
        for line in text.lines().map(str::trim) {
            if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                marked = true;
            } else if let Some(rest) = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ") {
                // Inside `proptest!` the attribute stands there too.
                if std::mem::take(&mut marked) {
                    out.insert(rest.split(['(', '<']).next().unwrap().to_owned());
                }
            }
        }
    }
    let golden = root().join("tests/golden");
    if golden.is_dir() {
        let mut files = Vec::new();
        files_below(&golden, "txt", &mut files);
        out.extend(files.iter().map(|f| format!("golden:{}", f.strip_prefix(&golden).unwrap().display())));
    }
    out
}

fn tables() -> BTreeMap<String, Row> {
    let mut files = Vec::new();
    files_below(&root().join("docs/rfc"), "md", &mut files);
    let mut out = BTreeMap::new();
    for path in files {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name == "summary.md" {
            continue;
        }
        for (id, row) in rows(&name, &fs::read_to_string(&path).unwrap()) {
            assert!(out.insert(id.clone(), row).is_none(), "{id} has two rows");
        }
    }
    out
}

/// What is wrong between tables and tests.
fn disagreements(tables: &BTreeMap<String, Row>, tests: &BTreeSet<String>) -> Vec<String> {
    let mut out = Vec::new();
    for (id, row) in tables {
        for test in row.tests.iter().filter(|t| !tests.contains(*t)) {
            out.push(format!("{} {id}: there is no test {test}", row.file));
        }
        let state = row.state.split([':', ' ']).next().unwrap_or_default();
        if state == "done"
            && !row.tests.is_empty()
            && !row.tests.iter().any(|t| numbers(own_name(t)).contains(id))
        {
            out.push(format!("{} {id}: no test that it names has the number in its own name", row.file));
        }
        match state {
            "done" | "deviation" if row.tests.is_empty() => {
                out.push(format!("{} {id}: {state}, but no test", row.file))
            }
            "done" | "deviation" => {}
            "deferred" if row.state.len() > 12 => {}
            "not" if row.state.starts_with("not applicable: ") => {}
            _ => out.push(format!("{} {id}: what is `{}`?", row.file, row.state)),
        }
    }
    for test in tests {
        for id in numbers(own_name(test)).into_iter().filter(|id| GROUPS.contains(&id[..1])) {
            if !tables.contains_key(&id) {
                out.push(format!("test {test} names {id}, which has no row"));
            }
        }
    }
    out
}

fn summary(tables: &BTreeMap<String, Row>) -> String {
    let mut out = String::from(
        "# Compliance, in numbers\n\nGenerated from the tables beside this page by `UPDATE_DOCS=1 cargo test --test rfc`.\n\n\
         | Table | Rows | done | deviation | deferred | not applicable | MUST done |\n|---|---|---|---|---|---|---|\n",
    );
    let files: BTreeSet<&String> = tables.values().map(|r| &r.file).collect();
    for file in files {
        let rows: Vec<&Row> = tables.values().filter(|r| r.file == *file).collect();
        let count = |state: &str| rows.iter().filter(|r| r.state.starts_with(state)).count();
        let musts: Vec<_> = rows.iter().filter(|r| r.level.starts_with("MUST")).collect();
        let met =
            musts.iter().filter(|r| r.state.starts_with("done") || r.state.starts_with("deviation")).count();
        out.push_str(&format!(
            "| [{file}]({file}) | {} | {} | {} | {} | {} | {met} of {} |\n",
            rows.len(),
            count("done"),
            count("deviation"),
            count("deferred"),
            count("not applicable"),
            musts.len()
        ));
    }
    out.push_str("\n## Not done, and why\n\n| ID | Level | State |\n|---|---|---|\n");
    for (id, row) in tables.iter().filter(|(_, r)| !r.state.starts_with("done")) {
        out.push_str(&format!("| {id} | {} | {} |\n", row.level, row.state));
    }
    out
}

#[test]
fn tables_and_tests_agree() {
    let found = disagreements(&tables(), &tests());
    assert!(found.is_empty(), "{} disagreements:\n{}", found.len(), found.join("\n"));
}

#[test]
fn the_summary_is_what_the_tables_say() {
    let path = root().join("docs/rfc/summary.md");
    let wanted = summary(&tables());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &wanted).unwrap();
    }
    assert_eq!(fs::read_to_string(path).unwrap(), wanted, "run UPDATE_DOCS=1 cargo test --test rfc");
}

#[test]
fn the_checks_can_fail() {
    let table = "| B-01 | MUST | x | done | `r` | `b01_x` |\n| B-02 | MUST | x | done | `r` |  |\n\
                 | B-03 | MAY | x | later | `r` |  |\n| B-04 | MAY | x | not applicable: why | `r` |  |\nnoise\n";
    let rows = rows("t.md", table);
    assert_eq!(rows.len(), 4);
    let none = disagreements(&rows, &BTreeSet::new());
    assert_eq!(none.len(), 3, "{none:?}");
    let one = disagreements(&rows, &["b01_x".to_owned(), "b05_b06_y".to_owned()].into());
    assert!(
        one.iter().any(|l| l.contains("names B-05")) && one.iter().any(|l| l.contains("names B-06")),
        "{one:?}"
    );
    let other = disagreements(&rows, &["b01_x".to_owned()].into());
    assert_eq!(other.len(), 2, "{other:?}");
    let foreign = self::rows("t.md", "| B-01 | MUST | x | done | `r` | `b02_x` |\n");
    let foreign = disagreements(&foreign, &["b02_x".to_owned()].into());
    assert!(foreign.iter().any(|l| l.contains("in its own name")), "{foreign:?}");
    let range: Vec<_> = numbers("d03_to_d05_x").into_iter().collect();
    assert_eq!(range, ["D-03", "D-04", "D-05"]);
    assert!(numbers("echo_b01").is_empty() && numbers("a_b01").is_empty());
}
