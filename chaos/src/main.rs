//! Runs chaos on one stack or both; `cargo xtask chaos` builds what this needs and runs it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use hansard_chaos::power::{Log, Names, Settings as Settings2, keep, lose};
use hansard_chaos::run::{Length, Settings, run};
use hansard_tests::{Backend, Layout};
use rand::Rng;

/// What to run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StackKind {
    /// SQLite, as one process and as four with a second of each.
    Embedded,
    /// NATS JetStream and MongoDB, as four processes with a second of each, and as one.
    Distributed,
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
    /// Run on this alone; else on both.
    #[arg(long)]
    stack: Option<StackKind>,
    /// How long a fault lasts at most, in seconds: longer than every time-out of Hansard's.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=60))]
    longest_fault: u64,
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
    let seed = arguments.seed.unwrap_or_else(|| rand::rng().random());
    if arguments.power {
        return power(&arguments, seed).unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        });
    }
    let mut stacks = Vec::new();
    if arguments.stack != Some(StackKind::Distributed) {
        stacks.push((Backend::Embedded, Layout::OneProcess));
        stacks.push((Backend::Embedded, Layout::FourProcesses));
    }
    if arguments.stack != Some(StackKind::Embedded) {
        stacks.push((Backend::Distributed, Layout::FourProcesses));
        stacks.push((Backend::Distributed, Layout::OneProcess));
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

/// Power losses on each log, and a table of what they took.
fn power(arguments: &Arguments, seed: u64) -> anyhow::Result<ExitCode> {
    let embedded = arguments.stack != Some(StackKind::Distributed);
    let distributed = arguments.stack != Some(StackKind::Embedded);
    let kept = [(Log::Sqlite, embedded), (Log::Jetstream, distributed)];
    let wanted = |log| arguments.log.is_none_or(|it| it == log);
    let mut settings = Settings2 {
        seed,
        log: Log::Sqlite,
        names: Names::OfDirectory,
        cuts: arguments.losses,
        early_cuts: arguments.losses.div_ceil(3),
        directory: PathBuf::new(),
    };
    let mut violations = 0;
    let mut rows = Vec::new();
    for (log, _) in kept.into_iter().filter(|it| it.1 && wanted(it.0)) {
        let both = [Names::OfDirectory, Names::InJournal];
        for names in both
            .into_iter()
            .filter(|it| arguments.names.is_none_or(|only| only == *it))
        {
            (settings.log, settings.names) = (log, names);
            let name = format!("power-{log:?}-{names:?}-{seed}").to_lowercase();
            settings.directory = arguments.directory.join(name);
            let outcome = keep::run(&settings)?;
            println!("{outcome}");
            violations += outcome.violations;
            rows.push(outcome);
        }
    }
    if distributed && wanted(Log::JetstreamDefault) {
        settings.log = Log::JetstreamDefault;
        settings.names = Names::InJournal;
        settings.directory = arguments.directory.join("lost");
        println!("{}", lose::run(&settings)?);
    }
    println!("\n{}", keep::Outcome::HEADING);
    for row in rows {
        println!("{row}");
    }
    Ok(match violations {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

fn names(text: &str) -> Result<Names, String> {
    match text {
        "directory" => Ok(Names::OfDirectory),
        "journal" => Ok(Names::InJournal),
        _ => Err("it is directory or journal".to_owned()),
    }
}
