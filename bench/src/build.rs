//! Building read models from a whole log, as a rebuild does, and how long that takes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use keys::Record;
use read_models::{Catalogue, State};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::project::options;

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(3_600);
/// How often it is looked whether it is done.
const POLL: Duration = Duration::from_millis(20);

/// The generation that is built.
pub const BUILT: u32 = 2;

/// Builds all that `record` has into generation [`BUILT`] of `catalogue`, which must be empty, beside an empty one
/// that is live; tells how long it took until the last event was in it. What a rebuild does after that, the
/// comparison, is not waited for.
///
/// # Errors
/// It is not done within an hour, or the projector stops.
pub async fn build(record: Record, catalogue: Arc<dyn Catalogue>) -> anyhow::Result<Duration> {
    let end = record.log.tail().await?.last;
    catalogue.prepare().await?;
    for (last, state) in [(0, State::Live), (1, State::Building)] {
        let added = catalogue.add(last, state).await?;
        ensure!(added.is_some(), "the read models are not empty");
    }
    let shutdown = CancellationToken::new();
    let begun = Instant::now();
    let mut options = options(record, Arc::clone(&catalogue));
    options.only = Some(BUILT);
    let mut running = tokio::spawn(projector::run(options, shutdown.clone()));
    let built = catalogue.open(BUILT).await?;
    loop {
        if running.is_finished() {
            (&mut running).await??;
            bail!("the projector ended by itself");
        }
        // There are no tables yet, at first.
        if let Ok(Some(checkpoint)) = built.checkpoint().await
            && checkpoint.position >= end
        {
            break;
        }
        ensure!(
            begun.elapsed() < LIMIT,
            "the log was not projected within {LIMIT:?}"
        );
        sleep(POLL).await;
    }
    let taken = begun.elapsed();
    shutdown.cancel();
    running.await?.context("the projector failed")?;
    Ok(taken)
}
