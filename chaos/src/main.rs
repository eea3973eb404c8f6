//! Runs chaos on one stack or both; `cargo xtask chaos` builds what this needs and runs it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use hansard_chaos::overload;
use hansard_chaos::power::{self, Log, Names, keep, lose};
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
    /// Cut the power instead of anything else: on a disk that forgets what was not synced. Takes root.
    #[arg(long, conflicts_with_all = ["minutes", "longest_fault"])]
    power: bool,
    /// With --power, how often on each log.
    #[arg(long, default_value_t = 10, requires = "power")]
    losses: usize,
    /// With --power, on this log alone.
    #[arg(long, requires = "power")]
    log: Option<Log>,
    /// With --power, what makes a name on the disk durable: `directory` or `journal`; else both.
    #[arg(long, requires = "power", value_parser = names)]
    names: Option<Names>,
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
    if arguments.power {
        return power(&arguments, seed).unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        });
    }
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

/// Power losses on each log, and tables of what they took.
fn power(arguments: &Arguments, seed: u64) -> anyhow::Result<ExitCode> {
    let is_wanted = |log: Log| {
        let stack = match log {
            Log::Sqlite => StackKind::Embedded,
            Log::Jetstream | Log::JetstreamDefault => StackKind::Distributed,
        };
        arguments.stack.is_none_or(|it| it == stack) && arguments.log.is_none_or(|it| it == log)
    };
    let settings = |log: Log, names: Names, seed: u64| power::Settings {
        seed,
        log,
        names,
        cuts: arguments.losses,
        first_starts: arguments.losses.div_ceil(3),
        directory: {
            let name = format!("power-{log:?}-{names:?}-{seed}").to_lowercase();
            arguments.directory.join(name)
        },
    };
    let mut kept = Vec::new();
    // nats-server does not sync the directories in which it creates files.
    for (log, names) in [
        (Log::Sqlite, Names::OfDirectory),
        (Log::Sqlite, Names::InJournal),
        (Log::Jetstream, Names::InJournal),
    ] {
        if is_wanted(log) && arguments.names.is_none_or(|it| it == names) {
            kept.push(keep::run(&settings(log, names, seed))?);
        }
    }
    let mut lost = Vec::new();
    if is_wanted(Log::JetstreamDefault) {
        for number in 0..arguments.losses {
            let seed = seed.wrapping_add(number as u64);
            let settings = settings(Log::JetstreamDefault, Names::InJournal, seed);
            let outcome = lose::run(&settings, number % 4 > 0)?;
            println!("{outcome}");
            for wrong in &outcome.wrong {
                println!("VIOLATION: {wrong}");
            }
            lost.push(outcome);
        }
    }
    if !kept.is_empty() {
        println!("\n{}", keep::Outcome::HEADING);
        kept.iter().for_each(|row| println!("{row}"));
    }
    if !lost.is_empty() {
        println!("\n{}", lose::Outcome::HEADING);
        lost.iter().for_each(|row| println!("{row}"));
    }
    let violations = kept.iter().map(|it| it.violations);
    let wrong = lost.iter().map(|it| it.wrong.len());
    Ok(match violations.chain(wrong).sum() {
        0_usize => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

fn names(text: &str) -> Result<Names, String> {
    match text {
        "directory" => Ok(Names::OfDirectory),
        "journal" => Ok(Names::InJournal),
        _ => Err("it is `directory` or `journal`".to_owned()),
    }
}
