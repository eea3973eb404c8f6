//! The one binary.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    hansard::run(&hansard::Cli::parse())
}
