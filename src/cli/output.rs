//! Printing: aligned tables, problems, JSON. A reader that goes away (`| head`) is no error.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use super::words::{CliFault, Word};
use crate::control::problem::ProblemView;
use crate::text::{Lang, shown};

/// How a command ended.
pub(super) type Outcome = Result<ExitCode, CliError>;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(super) enum CliError {
    /// Printed as one error; decides the exit code.
    Fault(CliFault),
    /// Nobody reads on.
    Closed,
}

impl From<CliFault> for CliError {
    fn from(fault: CliFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        if error.kind() == ErrorKind::BrokenPipe {
            Self::Closed
        } else {
            Self::Fault(CliFault::CannotPrint { reason: error.to_string() })
        }
    }
}

/// A table whose columns line up. Widths grow from page to page, never shrink.
pub(super) struct Table {
    widths: Vec<usize>,
    right: Vec<bool>,
}

impl Table {
    /// Columns; those marked stand right, as numbers do.
    pub(super) fn new(right: &[bool]) -> Self {
        Self { widths: vec![0; right.len()], right: right.to_vec() }
    }

    /// Prints some rows.
    pub(super) fn print(&mut self, rows: &[Vec<String>]) -> io::Result<()> {
        for row in rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        for row in rows {
            let mut line = String::new();
            for ((cell, width), right) in row.iter().zip(&self.widths).zip(&self.right) {
                let space = " ".repeat(width.saturating_sub(cell.chars().count()));
                if *right {
                    line.extend([&space, cell.as_str(), "  "]);
                } else {
                    line.extend([cell, space.as_str(), "  "]);
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        print(&text)
    }
}

/// Writes to standard output.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Help ends with a line break, whatever its template says.
pub(super) fn help_text(help: &str) -> String {
    format!("{}\n", help.trim_end())
}

/// Writes a value for machines.
pub(super) fn print_json(value: &impl serde::Serialize) -> io::Result<()> {
    let text = serde_json::to_string(value)?;
    print(&(text + "\n"))
}

/// Writes to standard error. When that is gone there is nobody left to tell.
pub(super) fn complain(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// One error in full: its code, what is wrong, what to do.
pub(super) fn error_text(lang: Lang, code: &str, what: &str, remedy: &str) -> String {
    format!("{}[{code}]: {what}\n  {}: {remedy}\n", Word::Error.say(lang), Word::Remedy.say(lang))
}

/// A fault of the command itself in full.
pub(super) fn fault_text(lang: Lang, fault: &CliFault) -> String {
    error_text(lang, &fault.code(), &fault.what(lang), &fault.remedy(lang))
}

/// One problem of a file in full: `file:line: error[code]: key: what` and the remedy.
pub(super) fn problem_text(lang: Lang, file: &str, problem: &ProblemView) -> String {
    let mut text = file.to_owned();
    if let Some(line) = problem.line {
        text.push_str(&format!(":{line}"));
    }
    let severity = if problem.severity == "error" { Word::Error } else { Word::Warning };
    text.push_str(&format!(": {}[{}]: ", severity.say(lang), problem.code));
    if !problem.path.is_empty() {
        text.push_str(&format!("{}: ", problem.path));
    }
    text.push_str(&problem.message);
    text.push('\n');
    if !problem.remedy.is_empty() {
        text.push_str(&format!("  {}: {}\n", Word::Remedy.say(lang), problem.remedy));
    }
    text
}

/// A transport address. Names and states from a gateway pass through [`clean`] instead.
pub(super) fn endpoint(addr: std::net::IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(addr, port).to_string()
}

/// Text from elsewhere in a table.
pub(super) fn clean(text: &str) -> String {
    shown(text, 60)
}

/// Seconds as people say them.
pub(super) fn duration(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let clock = format!("{:02}:{:02}:{:02}", rest / 3_600, rest / 60 % 60, rest % 60);
    if days == 0 { clock } else { format!("{days} d {clock}") }
}
