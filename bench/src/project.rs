//! Projecting a whole log into empty read models, and how long that takes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{bail, ensure};
use keys::Record;
use projector::{Options, Status};
use read_models::{Catalogue, Live, Progress};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(3_600);

/// Projects all that `record` has into the first generation of `catalogue`, and tells how long it took.
///
/// # Errors
/// It is not done within an hour, or the projector stops.
pub async fn project(record: Record, catalogue: Arc<dyn Catalogue>) -> anyhow::Result<Duration> {
    let end = record.log.tail().await?.last;
    let shutdown = CancellationToken::new();
    let live = Live::new(Arc::clone(&catalogue));
    let progress = Progress::start(Arc::new(live), shutdown.clone());
    let begun = Instant::now();
    let mut options = options(record, catalogue);
    options.progress = Some(progress.clone());
    let mut running = tokio::spawn(projector::run(options, shutdown.clone()));
    let reached = tokio::select! {
        reached = progress.wait_for(end, LIMIT) => reached,
        ended = &mut running => {
            ended??;
            bail!("the projector ended by itself");
        }
    };
    let taken = begun.elapsed();
    shutdown.cancel();
    running.await??;
    ensure!(reached, "the log was not projected within {LIMIT:?}");
    Ok(taken)
}

/// What a projector of the bench works with.
pub fn options(record: Record, catalogue: Arc<dyn Catalogue>) -> Options {
    Options {
        record,
        catalogue,
        name: "the bench".to_owned(),
        only: None,
        progress: None,
        status: Status::default(),
        drain: Duration::ZERO,
        grace: projector::GRACE,
        retention: None,
    }
}
