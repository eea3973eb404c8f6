//! How fast read models are made again from a log, beside inserting the same documents plainly.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use keys::Record;
use read_models::ReadModelsUrl;
use serde::Serialize;

use crate::build::{BUILT, build};
use crate::figure::Figure;
use crate::history::{History, Size};
use crate::plain;
use crate::record;
use crate::report::{cell, ratio, thousands};
use crate::server::Setup;

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// How many events the log has.
    pub events: u64,
    /// Into SQLite.
    pub sqlite: Measured,
    /// Into MongoDB.
    pub mongodb: Measured,
}

/// The figures of one kind of read models.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// Events projected, a second.
    pub projected: Figure,
    /// Events whose documents were inserted plainly, a second.
    pub inserted: Figure,
    /// The one by the other, run by run.
    pub ratio: Figure,
}

/// Measures.
///
/// # Errors
/// A server fails.
pub async fn run(setup: &Setup, size: Size, runs: u32) -> anyhow::Result<Outcome> {
    let (mongod, port) = setup.start_mongod()?;
    let data_dir = setup.directory.join("rebuild");
    std::fs::create_dir(&data_dir)?;
    let events = History::create(size, &data_dir).await?.events;
    let record = record::open(&data_dir).await?;
    let (mut sqlite, mut mongodb) = (Vec::new(), Vec::new());
    for run in 0..runs {
        let file = |name: &str| data_dir.join(format!("{name}-{run}.db"));
        let (projected, inserted) = (file("projected"), file("inserted"));
        let url = format!("sqlite:{}", projected.display());
        sqlite.push([
            rebuilt(&record, &url, &data_dir).await?,
            plain::into_sqlite(&projected.with_extension(format!("g{BUILT}.db")), &inserted)
                .await?,
        ]);
        let url = |name: &str| format!("mongodb://{}/{name}-{run}?replicaSet=rs0", port.address());
        let (projected, inserted) = (url("projected"), url("inserted"));
        mongodb.push([
            rebuilt(&record, &projected, &data_dir).await?,
            plain::into_mongodb(&projected, &inserted).await?,
        ]);
        eprintln!("{:?} {:?}", sqlite.last(), mongodb.last());
    }
    drop(mongod);
    Ok(Outcome {
        events,
        sqlite: measured(events, &sqlite),
        mongodb: measured(events, &mongodb),
    })
}

async fn rebuilt(record: &Record, url: &str, data_dir: &Path) -> anyhow::Result<Duration> {
    let url: ReadModelsUrl = url.parse()?;
    let catalogue = read_models::open(&url, data_dir).await?;
    build(record.clone(), catalogue).await
}

fn measured(events: u64, runs: &[[Duration; 2]]) -> Measured {
    let projected = Figure::rate(events, runs.iter().map(|run| run[0]));
    let inserted = Figure::rate(events, runs.iter().map(|run| run[1]));
    Measured {
        ratio: projected.over(&inserted),
        projected,
        inserted,
    }
}

impl Outcome {
    /// What the page shows of it.
    ///
    /// # Errors
    /// None that can happen: text is written to memory.
    pub fn section(&self) -> anyhow::Result<String> {
        let mut page = String::new();
        let runs = self.sqlite.ratio.runs.len();
        #[allow(clippy::cast_precision_loss)]
        let events = thousands(self.events as f64);
        writeln!(
            page,
            "| {events} events, a second; median of {runs} runs (least to most) | projected | the same documents, inserted plainly | ratio |"
        )?;
        writeln!(page, "|---|---|---|---|")?;
        for (store, it) in [("SQLite", &self.sqlite), ("MongoDB", &self.mongodb)] {
            writeln!(
                page,
                "| into {store} | {} | {} | {} |",
                cell(&it.projected),
                cell(&it.inserted),
                ratio(&it.ratio)
            )?;
        }
        Ok(page)
    }
}
