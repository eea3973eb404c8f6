//! How soon Hansard is ready when it is started on a record that was projected before.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::figure::Figure;
use crate::history::{History, Size};
use crate::report::{cell, thousands};
use crate::server::Setup;

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// How many events the log has.
    pub events: u64,
    /// From starting the process until it says that it is ready, in milliseconds.
    pub ready_ms: Figure,
    /// The same on an empty data directory.
    pub empty_ready_ms: Figure,
}

/// Measures the embedded stack.
///
/// # Errors
/// Hansard fails.
pub async fn run(setup: &Setup, size: Size, runs: u32) -> anyhow::Result<Outcome> {
    let data_dir = setup.directory.join("start");
    std::fs::create_dir(&data_dir)?;
    let events = History::create(size, &data_dir).await?.events;
    // Projects it.
    setup.start_hansard(&data_dir).await?.stop()?;
    let (mut ready, mut empty) = (Vec::new(), Vec::new());
    for run in 1..=runs {
        let begun = Instant::now();
        let server = setup
            .start_hansard_until_ready(&data_dir, "sqlite:read.db")
            .await?;
        ready.push(milliseconds(begun.elapsed()));
        server.stop()?;
        let new = setup.directory.join(format!("start-{run}"));
        std::fs::create_dir(&new)?;
        let begun = Instant::now();
        let server = setup
            .start_hansard_until_ready(&new, "sqlite:read.db")
            .await?;
        empty.push(milliseconds(begun.elapsed()));
        server.stop()?;
        eprintln!(
            "start: run {run} of {runs}: {:?}, new {:?} ms",
            ready.last(),
            empty.last()
        );
    }
    Ok(Outcome {
        events,
        ready_ms: Figure::of(ready),
        empty_ready_ms: Figure::of(empty),
    })
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

impl Outcome {
    /// What the page shows of it.
    ///
    /// # Errors
    /// None that can happen: text is written to memory.
    pub fn section(&self) -> anyhow::Result<String> {
        let mut page = String::new();
        writeln!(
            page,
            "| median of {} runs (least to most) | ms until `/health/ready` | goal |",
            self.ready_ms.runs.len()
        )?;
        writeln!(page, "|---|---|---|")?;
        #[allow(clippy::cast_precision_loss)]
        let events = thousands(self.events as f64);
        writeln!(
            page,
            "| {events} events, projected before | {} | <= 1,000 |",
            cell(&self.ready_ms)
        )?;
        writeln!(page, "| nothing | {} | - |", cell(&self.empty_ready_ms))?;
        Ok(page)
    }
}
