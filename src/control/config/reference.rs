//! The reference of all keys, written from the same rows that the reader uses.

use std::fmt::Write;

use super::{Apply, File, Need, Row, Value};

/// `docs/reference/config.md`.
pub fn reference() -> String {
    let mut out = String::from(
        "# Configuration keys\n\n\
         Generated from the key tables in `src/control/config/mod.rs`; a test keeps it current. To write it anew:\n\
         `UPDATE_DOCS=1 cargo test --test cli reference`.\n\n\
         *Applies* says when a change takes effect: with `sampan reload`, or with the next start. `sampan reload`\n\
         names the keys that need a restart and changes nothing then.\n",
    );
    table(&mut out, "", File::ROWS);
    out
}

fn table(out: &mut String, path: &str, rows: &[Row]) {
    let plain: Vec<&Row> = rows.iter().filter(|row| row.rows.is_empty()).collect();
    // Writing to a string cannot fail.
    if !plain.is_empty() {
        let _ = writeln!(out, "\n| Key | Value | When left out | Applies | Meaning |\n|---|---|---|---|---|");
    }
    for row in plain {
        let kind = (row.kind)();
        let _ = writeln!(
            out,
            "| `{}` | {kind} | {} | {} | {} |",
            row.key,
            absent(row.need),
            applies(row.apply),
            row.text
        );
    }
    for row in rows.iter().filter(|row| !row.rows.is_empty()) {
        let path = if path.is_empty() { row.key.to_owned() } else { format!("{path}.{}", row.key) };
        let title = if row.list { format!("[[{path}]]") } else { format!("[{path}]") };
        let _ = writeln!(out, "\n## `{title}`\n\n{} When left out: {}.", row.text, absent(row.need));
        table(out, &path, row.rows);
    }
}

fn absent(need: Need) -> String {
    match need {
        Need::Required => "required".into(),
        Need::Default(value) => format!("`{value}`"),
        Need::Otherwise(words) => words.into(),
    }
}

fn applies(apply: Apply) -> &'static str {
    match apply {
        Apply::Reload => "reload",
        Apply::Restart => "restart",
        Apply::Below => "",
    }
}
