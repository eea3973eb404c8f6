//! How fast the record is replayed, beside reading the log and doing nothing with it.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use event_log::{Filter, LogUrl, Position};
use futures::StreamExt;
use serde::Serialize;
use xtask::process::without_own_settings;

use crate::figure::Figure;
use crate::history::{History, Size};
use crate::report::{cell, ratio, thousands};
use crate::server::Setup;

/// What was measured: events a second.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// How many events the log has.
    pub events: u64,
    /// How many bytes a replay of them is.
    pub bytes: u64,
    /// Replayed to a file, as JSON lines.
    pub replayed: Figure,
    /// Read through the same port, and dropped.
    pub read: Figure,
    /// The one by the other, run by run.
    pub ratio: Figure,
}

/// Measures on the SQLite log.
///
/// # Errors
/// The log can't be read, or the replay fails.
pub async fn run(setup: &Setup, size: Size, runs: u32) -> anyhow::Result<Outcome> {
    let data_dir = setup.directory.join("replay");
    std::fs::create_dir(&data_dir)?;
    let events = History::create(size, &data_dir).await?.events;
    let output = setup.directory.join("replay.jsonl");
    let (mut replayed, mut read) = (Vec::new(), Vec::new());
    for run in 1..=runs {
        read.push(read_all(&data_dir, events).await?);
        replayed.push(replay(setup, &data_dir, &output)?);
        eprintln!("replay: run {run} of {runs}: read in {read:?}, replayed in {replayed:?}");
    }
    let bytes = std::fs::metadata(&output)?.len();
    let replayed = Figure::rate(events, replayed.into_iter());
    let read = Figure::rate(events, read.into_iter());
    Ok(Outcome {
        events,
        bytes,
        ratio: replayed.over(&read),
        replayed,
        read,
    })
}

/// Reads all of the log, in this process.
async fn read_all(data_dir: &Path, expected: u64) -> anyhow::Result<Duration> {
    let url: LogUrl = "sqlite:log.db".parse()?;
    let log = event_log::open(&url, data_dir).await?;
    let last = log.tail().await?.last;
    let begun = Instant::now();
    let mut events = log.read(Filter::All, Position::ZERO).await?;
    let mut count = 0;
    while let Some(event) = events.next().await {
        count += 1;
        if event?.position == last {
            break;
        }
    }
    let taken = begun.elapsed();
    ensure!(count >= expected, "of {expected} events {count} were read");
    Ok(taken)
}

/// Replays all of the log to a file, in a process of its own, from its start to its end.
fn replay(setup: &Setup, data_dir: &Path, output: &Path) -> anyhow::Result<Duration> {
    let mut command = Command::new(&setup.hansard);
    without_own_settings(&mut command);
    command
        .args([
            "replay",
            "--no-progress",
            "--log-level",
            "warn",
            "--data-dir",
        ])
        .arg(data_dir)
        .arg("--output")
        .arg(output);
    let begun = Instant::now();
    let status = setup
        .cores
        .on_server_core(|| command.status().context("hansard can't be started"))?;
    ensure!(status.success(), "the replay failed: {status}");
    Ok(begun.elapsed())
}

impl Outcome {
    /// What the page shows of it.
    ///
    /// # Errors
    /// None that can happen: text is written to memory.
    pub fn section(&self) -> anyhow::Result<String> {
        let mut page = String::new();
        #[allow(clippy::cast_precision_loss)]
        let [events, megabytes] =
            [self.events, self.bytes / 1_000_000].map(|it| thousands(it as f64));
        writeln!(
            page,
            "| {events} events, a second; median of {} runs (least to most) | replayed to {megabytes} MB of JSON lines | read | ratio | goal |",
            self.ratio.runs.len()
        )?;
        writeln!(page, "|---|---|---|---|---|")?;
        writeln!(
            page,
            "| the SQLite log | {} | {} | {} | >= 0.7 |",
            cell(&self.replayed),
            cell(&self.read),
            ratio(&self.ratio)
        )?;
        Ok(page)
    }
}
