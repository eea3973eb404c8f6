//! The one binary.

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: platform::Allocator = platform::Allocator;

fn main() -> ExitCode {
    hansard::run(&hansard::Cli::parse())
}
