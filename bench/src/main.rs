//! Measures Hansard beside what people would use instead. `cargo xtask bench` builds what this needs and
//! runs it; results go to `bench/results/` and `bench/RESULTS.md`.

mod arrivals;
mod bare;
mod build;
mod bursts;
mod chart;
mod conditions;
mod contract;
mod cpu;
mod fan_out;
mod figure;
mod frames;
mod history;
mod load;
mod memory;
mod plain;
mod plans;
mod posts;
mod project;
mod reads;
mod rebuild;
mod record;
mod replay;
mod report;
mod server;
mod socket;
mod sockets;
mod start;
mod world;

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Parser;
use xtask::cores::Cores;

use crate::conditions::Conditions;

/// What can be measured, by name.
const BENCHES: [&str; 7] = [
    "sockets", "bursts", "posts", "reads", "rebuild", "replay", "start",
];

/// What to measure, and with what.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure; everything unless named.
    names: Vec<String>,
    /// How often everything is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// How many messages a long history has.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(10_000..))]
    messages: u32,
    /// How often each request of `reads` is measured in a run.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    samples: u32,
    /// How many seconds each measurement of `posts` takes, after a warm-up of a fifth of that.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// The URL (`http://HOST:PORT`) of an empty server that keeps the tutorial's contract, with `/login`; `posts`
    /// measures it beside Hansard. Its operator starts it, on the first of this machine's cores.
    #[arg(long)]
    against: Option<String>,
    /// The hansard binary.
    #[arg(long)]
    hansard: PathBuf,
    /// The gateway-ws binary; for `bursts`.
    #[arg(long)]
    gateway: Option<PathBuf>,
    /// The directory with the socket.io server and its installed packages; for `sockets` and `bursts`.
    #[arg(long)]
    socket_io: Option<PathBuf>,
    /// The mongod binary; for `posts`, `reads` and `rebuild`.
    #[arg(long)]
    mongod: Option<PathBuf>,
    /// The nats-server binary; for `posts`.
    #[arg(long)]
    nats_server: Option<PathBuf>,
    /// The directory for RESULTS.md and results/.
    #[arg(long)]
    results: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let unknown = arguments
        .names
        .iter()
        .find(|name| !BENCHES.contains(&name.as_str()));
    if let Some(unknown) = unknown {
        bail!(
            "there is no bench {unknown:?}; there are: {}",
            BENCHES.join(", ")
        );
    }
    let directory = tempfile::Builder::new()
        .prefix("hansard-bench-")
        .tempdir()
        .context("no temporary directory can be made")?;
    let cores = Cores::split()?;
    let setup = server::Setup {
        hansard: arguments.hansard,
        gateway: arguments.gateway,
        socket_io: arguments.socket_io,
        mongod: arguments.mongod,
        nats_server: arguments.nats_server,
        directory: directory.path().to_owned(),
        cores,
    };
    let conditions = Conditions::find(&setup)?;
    socket::allow_many()?;
    // One thread, on one core: the generator must not take the server's.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let wanted = |bench: &str| {
        arguments.names.is_empty() || arguments.names.iter().any(|name| name == bench)
    };
    let place = report::Place::new(&arguments.results, &conditions);
    if wanted("sockets") {
        let outcome = runtime.block_on(sockets::run(&setup, arguments.runs))?;
        place.write("sockets", &outcome, &outcome.section(&conditions)?)?;
        place.draw("sockets", &outcome.chart())?;
    }
    if wanted("posts") {
        let against = arguments.against.as_deref();
        let measuring = posts::run(&setup, arguments.runs, arguments.seconds, against);
        let outcome = runtime.block_on(measuring)?;
        place.write("posts", &outcome, &outcome.section()?)?;
        for (name, chart) in outcome.charts() {
            place.draw(name, &chart)?;
        }
    }
    if wanted("bursts") {
        let outcome = runtime.block_on(bursts::run(&setup, arguments.runs))?;
        let socket_io = conditions.socket_io.as_deref().unwrap_or_default();
        place.write("bursts", &outcome, &outcome.section(socket_io)?)?;
    }
    let long = history::Size::long(arguments.messages as usize);
    if wanted("reads") {
        let samples = arguments.samples as usize;
        let measuring = reads::run(&setup, long, arguments.runs, samples);
        let outcome = runtime.block_on(measuring)?;
        place.write("reads", &outcome, &outcome.section()?)?;
        for (name, chart) in outcome.charts() {
            place.draw(name, &chart)?;
        }
    }
    if wanted("rebuild") {
        let outcome = runtime.block_on(rebuild::run(&setup, long, arguments.runs))?;
        place.write("rebuild", &outcome, &outcome.section()?)?;
    }
    if wanted("replay") {
        let outcome = runtime.block_on(replay::run(&setup, long, arguments.runs))?;
        place.write("replay", &outcome, &outcome.section()?)?;
    }
    if wanted("start") {
        let outcome = runtime.block_on(start::run(&setup, long, arguments.runs))?;
        place.write("start", &outcome, &outcome.section()?)?;
    }
    Ok(())
}
