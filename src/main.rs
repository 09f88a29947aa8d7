//! The `sampan` program; everything is in the library.

fn main() -> std::process::ExitCode {
    sampan::cli::main()
}
