//! `cargo xtask`: what a developer runs.

mod bench;
mod chaos;
mod fuzz;
mod openapi;
mod project;
mod runner;
mod test;

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use xtask::chromium;
use xtask::node::Node;
use xtask::schemathesis;
use xtask::servers::{MONGOD, NATS_SERVER, find_nginx};

use crate::project::Project;
use crate::runner::Runner;

/// What a developer of Hansard runs.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run every suite, against real servers that are fetched, started and removed again.
    Test(test::Options),
    /// Measure, beside what people would use instead; writes bench/RESULTS.md and bench/results/.
    Bench(bench::Options),
    /// Break everything that can break while clients are at work, and check that no promise was broken.
    #[command(disable_help_flag = true)]
    Chaos(chaos::Options),
    /// Invent hostile input for every decoder that takes bytes from outside.
    Fuzz(fuzz::Options),
    /// Write contract/openapi.json from what the code declares.
    Openapi {
        /// Write nothing; fail when the file is not up to date.
        #[arg(long)]
        check: bool,
    },
    /// Print where the programs are that the tests use, fetching those that are nowhere.
    Servers,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let project = Project::find()?;
    let runner = Runner::new().context("signals can't be handled")?;
    match &arguments.command {
        Command::Test(options) => test::run(options, &project, &runner),
        Command::Bench(options) => bench::run(options, &project, &runner),
        Command::Chaos(options) => chaos::run(options, &project, &runner),
        Command::Fuzz(options) => fuzz::run(options, &project, &runner),
        Command::Openapi { check } => openapi::run(*check, &project),
        Command::Servers => {
            let cache = project.servers();
            println!("{}", NATS_SERVER.find(&cache)?.display());
            println!("{}", MONGOD.find(&cache)?.display());
            println!("{}", find_nginx()?.display());
            let node = Node::find(&cache)?;
            println!("{}", node.program.display());
            let packages = node.packages(&project.javascript(), &cache)?;
            println!("{}", packages.display());
            println!("{}", chromium::find(&node, &cache)?.display());
            let schemathesis = schemathesis::find(&project.python_requirements(), &cache)?;
            println!("{}", schemathesis.display());
            Ok(ExitCode::SUCCESS)
        }
    }
}
