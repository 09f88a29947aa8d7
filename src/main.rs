//! The `sampan` command.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use sampan::lab::cli::{LabCommand, run};

/// Sampan.
#[derive(Parser)]
enum Command {
    /// The laboratory
    #[command(subcommand)]
    Lab(LabCommand),
    /// Run
    Run {
        /// Config
        #[arg(long)]
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    match Command::parse() {
        Command::Lab(command) => run(command),
        Command::Run { config } => {
            tracing_subscriber::fmt().with_writer(std::io::stderr).init();
            let checked = match sampan::control::plan::load(&config) {
                Ok(c) => c,
                Err(e) => {
                    eprintln!("{e:?}");
                    return ExitCode::FAILURE;
                }
            };
            match sampan::daemon::run(checked.plan, &config) {
                Ok(()) => ExitCode::SUCCESS,
                Err(e) => {
                    eprintln!("{e:?}");
                    ExitCode::FAILURE
                }
            }
        }
    }
}
