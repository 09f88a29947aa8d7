//! Stand-in for the real command table while the laboratory is built.

use std::process::ExitCode;

use clap::Parser;
use sampan::lab::cli::{LabCommand, run};

/// Sampan.
#[derive(Parser)]
enum Command {
    /// The laboratory
    #[command(subcommand)]
    Lab(LabCommand),
}

fn main() -> ExitCode {
    let Command::Lab(command) = Command::parse();
    run(command)
}
