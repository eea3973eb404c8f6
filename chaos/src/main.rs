//! Runs chaos on one stack or both; `cargo xtask chaos` builds what this needs and runs it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use hansard_chaos::overload;
use hansard_chaos::run::{Length, Settings, run};
use hansard_tests::{Backend, Layout};
use rand::Rng;

/// With `--overload`: how many times as much as can be done is asked for.
const FACTOR: u32 = 5;

/// What to run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StackKind {
    /// SQLite, as one process and as four with a second of each.
    Embedded,
    /// NATS JetStream and MongoDB, as four processes with a second of each, and as one.
    Distributed,
    /// Three nats-servers with three replicas and a MongoDB replica set of three, as four processes with a second
    /// of each; only where it is asked for.
    Cluster,
}

/// Faults, and a checker of what Hansard promises.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask chaos")]
struct Arguments {
    /// How long faults go on, in all: the stacks share it.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Repeat the choices of an earlier run, though not what the machine makes of them.
    #[arg(long)]
    seed: Option<u64>,
    /// Run on this alone; else on the first two.
    #[arg(long)]
    stack: Option<StackKind>,
    /// How long a fault lasts at most, in seconds: longer than every time-out of Hansard's.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=60))]
    longest_fault: u64,
    /// Break nothing, but ask for five times as much as can be done, for so many seconds on each stack.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    overload: Option<u64>,
    /// How many sockets connect at once, with `--overload`.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    sockets: u32,
    /// Begin with the programs in this directory (hansard, command-api, projector, query-api, gateway-ws), which are
    /// an older Hansard's, and replace them one by one while clients are at work.
    #[arg(long)]
    upgrade_from: Option<PathBuf>,
    /// Where the histories are written.
    #[arg(long)]
    directory: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(seconds) = arguments.overload {
        return overloaded(&arguments, seconds);
    }
    let seed = arguments.seed.unwrap_or_else(|| rand::rng().random());
    let mut stacks = Vec::new();
    if matches!(arguments.stack, None | Some(StackKind::Embedded)) {
        stacks.push((Backend::Embedded, Layout::OneProcess));
        stacks.push((Backend::Embedded, Layout::FourProcesses));
    }
    if matches!(arguments.stack, None | Some(StackKind::Distributed)) {
        stacks.push((Backend::Distributed, Layout::FourProcesses));
        stacks.push((Backend::Distributed, Layout::OneProcess));
    }
    if arguments.stack == Some(StackKind::Cluster) {
        stacks.push((Backend::Cluster, Layout::FourProcesses));
    }
    let share = Duration::from_secs(arguments.minutes * 60 / stacks.len() as u64);
    let mut violations = 0;
    for (backend, layout) in stacks {
        let name = format!("{backend:?}-{layout:?}-{seed}").to_lowercase();
        let settings = Settings {
            seed,
            backend,
            layout,
            length: Length::Time(share),
            longest_fault: Duration::from_secs(arguments.longest_fault),
            upgrade_from: arguments.upgrade_from.clone(),
            directory: arguments.directory.join(name),
        };
        match run(&settings) {
            Ok(found) => violations += found.len(),
            Err(error) => {
                eprintln!("error: {error:#}");
                return ExitCode::from(2);
            }
        }
    }
    if violations == 0 {
        return ExitCode::SUCCESS;
    }
    println!("{violations} violations; try again with --seed {seed}");
    ExitCode::FAILURE
}

/// Asks each stack for far too much.
fn overloaded(arguments: &Arguments, seconds: u64) -> ExitCode {
    let mut violations = 0;
    for (kind, backend) in [
        (StackKind::Embedded, Backend::Embedded),
        (StackKind::Distributed, Backend::Distributed),
    ] {
        if arguments.stack.is_some_and(|only| only != kind) {
            continue;
        }
        let settings = overload::Settings {
            backend,
            length: Duration::from_secs(seconds),
            factor: FACTOR,
            sockets: arguments.sockets as usize,
        };
        match overload::run(&settings) {
            Ok(found) => violations += found.len(),
            Err(error) => {
                eprintln!("error: {error:#}");
                return ExitCode::from(2);
            }
        }
    }
    match violations {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
