//! Follows the log and writes the read models.
//!
//! One reader follows the log in order from its own checkpoint, gathers events into batches, and projects
//! each with one call of [`ReadModels::apply`], which moves the checkpoint last. While a batch is being
//! written the next one is read and decoded.
//!
//! What goes wrong is told apart by whether it is the event's fault. An event that can't be decoded, or
//! whose write is refused for its content, is set aside with its reason and never stops the projection. An
//! outage of the log or of the read models is waited out, for ever. A log that is not the one the read
//! models come from, or that ends before their checkpoint, stops the projector: going on would mix two
//! histories.

mod apply;
mod backoff;
mod gather;
mod source;
mod status;
mod tend;

use std::sync::Arc;
use std::time::{Duration, Instant};

use event_log::{EventLog, Incarnation, LogError, Position, Tail};
use futures::{FutureExt, StreamExt};
use read_models::{Batch, Checkpoint, Progress, ReadModelError, ReadModels};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use crate::status::{Lag, Stage, Status};

use crate::apply::Applied;
use crate::gather::Gathered;

/// How long the all-in-one process goes on projecting, after it was told to stop, what had been accepted.
pub const DRAIN: Duration = Duration::from_secs(5);

/// How long events may be gathered into a batch while nothing else is being written.
const GATHER_TIME: Duration = Duration::from_millis(5);

/// What a projector works with.
#[derive(Clone)]
pub struct Options {
    /// The log to follow.
    pub log: Arc<dyn EventLog>,
    /// The read models to write.
    pub read_models: Arc<dyn ReadModels>,
    /// Is told at once how far the projection has come, for those in the same process who wait for it.
    pub progress: Option<Progress>,
    /// Where the projector reports how it is doing.
    pub status: Status,
    /// How long to go on after the shutdown signal with what the log holds by then. Zero: only the batch
    /// in hand is finished; another process will go on from the checkpoint.
    pub drain: Duration,
}

/// Why a projector stops by itself.
#[derive(Debug, thiserror::Error)]
pub enum ProjectorError {
    /// The log is not the one that the read models come from.
    #[error(
        "the log is not the one that the read models were projected from: it is log {:?}, they come from log {:?}; \
         give the projector that log, or other, empty read models, which it will fill from this one",
        log.0, read_models.0
    )]
    OtherLog {
        /// The log's identity.
        log: Incarnation,
        /// The identity of the log that the read models come from.
        read_models: Incarnation,
    },
    /// The log lost events that were projected.
    #[error(
        "the log ends at position {log}, before the read models' checkpoint at position {checkpoint}: it has lost its tail; \
         restore the whole log, or give the projector other, empty read models, which it will fill from what is left"
    )]
    LogEndsEarly {
        /// The position of the log's last event.
        log: Position,
        /// The position up to which events were projected.
        checkpoint: Position,
    },
    /// The log is there but not fit for use.
    #[error(transparent)]
    Log(LogError),
    /// The read models are there but not fit for use.
    #[error(transparent)]
    ReadModels(ReadModelError),
}

/// Whether `tail` is the end of the log from which everything up to `checkpoint` was projected.
fn check_history(
    tail: &Tail,
    incarnation: &Incarnation,
    checkpoint: Position,
) -> Result<(), ProjectorError> {
    if tail.incarnation != *incarnation {
        return Err(ProjectorError::OtherLog {
            log: tail.incarnation.clone(),
            read_models: incarnation.clone(),
        });
    }
    if tail.last < checkpoint {
        return Err(ProjectorError::LogEndsEarly {
            log: tail.last,
            checkpoint,
        });
    }
    Ok(())
}

/// Projects the log until `shutdown`. Waits for the log and the read models as long as they can't be
/// reached.
///
/// # Errors
/// A [`ProjectorError`]: what can't be waited out.
pub async fn run(options: Options, shutdown: CancellationToken) -> anyhow::Result<()> {
    let status = options.status.clone();
    let result = follow(options, shutdown).await;
    match &result {
        Ok(()) => status.stopped("it was told to stop"),
        Err(error) => status.stopped(&error.to_string()),
    }
    Ok(result?)
}

async fn follow(options: Options, shutdown: CancellationToken) -> Result<(), ProjectorError> {
    let Some(start) = prepare(&options, &shutdown).await? else {
        return Ok(());
    };
    tracing::info!(checkpoint = %start.position, "projecting");
    options.status.following(start.position);
    if let Some(progress) = &options.progress {
        progress.advance(&start);
    }
    // The first batch will show that a projector is at work: before it, how far behind that begins.
    let begun = async {
        tend::look(&options, &start.incarnation).await?;
        tend::tell(&options).await;
        Ok(())
    };
    match shutdown.run_until_cancelled(begun).await {
        Some(begun) => begun?,
        None => return Ok(()),
    }

    // Cancelled when this function ends, however it does: then the tasks end too.
    let abandon = CancellationToken::new();
    let _abandon_at_the_end = abandon.clone().drop_guard();
    let mut tending = tokio::spawn(tend::tend(
        options.clone(),
        start.incarnation.clone(),
        abandon.clone(),
    ));
    let mut source = source::follow(
        options.log.clone(),
        start.incarnation.clone(),
        start.position,
        abandon.clone(),
    );
    let mut gathered = Gathered::default();
    let mut applying: Option<JoinHandle<Result<Applied, ProjectorError>>> = None;
    let mut projected = start.clone();
    let mut draining: Option<Draining> = None;
    // Since when the log is asked for the next event.
    let mut asked = Instant::now();

    loop {
        if applying.is_none() && !gathered.is_empty() {
            // What has been read goes out as soon as no more is waiting to be read.
            while !gathered.is_full() && gathered.age() < GATHER_TIME {
                let Some(Some(recorded)) = source.next().now_or_never() else {
                    break;
                };
                gathered.push(recorded?);
            }
            options.status.writing(gathered.up_to);
            asked = Instant::now();
            applying = Some(tokio::spawn(apply::apply(
                options.clone(),
                start.incarnation.clone(),
                std::mem::take(&mut gathered),
                abandon.clone(),
            )));
        }
        if applying.is_none()
            && draining
                .as_ref()
                .is_some_and(|draining| projected.position >= draining.target)
        {
            break;
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled(), if draining.is_none() => {
                if options.drain.is_zero() {
                    break;
                }
                draining = Some(Draining::start(&options, projected.position).await);
            }
            () = until(draining.as_ref().map(|draining| draining.deadline)) => break,
            tended = &mut tending => {
                return tended.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
            }
            applied = finished(&mut applying) => {
                applying = None;
                let Applied::UpTo(position) = applied? else { break };
                advance(&options, &mut projected, position);
            }
            item = source.next(), if !gathered.is_full() => {
                let Some(recorded) = item else { break };
                let recorded = recorded?;
                if gathered.is_empty() {
                    options.status.gathering(recorded.position);
                }
                gathered.waited += options.status.waited_for(recorded.position, asked);
                gathered.push(recorded);
                asked = Instant::now();
            }
        }
    }

    // The batch in hand is finished; what it waits for is not waited for any longer.
    abandon.cancel();
    if applying.is_some()
        && let Applied::UpTo(position) = finished(&mut applying).await?
    {
        advance(&options, &mut projected, position);
    }
    tracing::info!(checkpoint = %projected.position, "stopped projecting");
    Ok(())
}

/// What is still to be projected after the shutdown signal.
struct Draining {
    target: Position,
    deadline: tokio::time::Instant,
}

impl Draining {
    async fn start(options: &Options, projected: Position) -> Self {
        let deadline = tokio::time::Instant::now() + options.drain;
        let tail = tokio::time::timeout_at(deadline, options.log.tail()).await;
        let target = match tail {
            Ok(Ok(tail)) => tail.last,
            // The log is gone: there is nothing more to be had.
            _ => projected,
        };
        Self { target, deadline }
    }
}

async fn until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn finished(
    applying: &mut Option<JoinHandle<Result<Applied, ProjectorError>>>,
) -> Result<Applied, ProjectorError> {
    match applying {
        Some(task) => task
            .await
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())),
        None => std::future::pending().await,
    }
}

fn advance(options: &Options, projected: &mut Checkpoint, position: Position) {
    projected.position = position;
    options.status.projected(position);
    if let Some(progress) = &options.progress {
        progress.advance(projected);
    }
}

/// Waits for the read models and the log, and checks that they belong together. `None` on shutdown.
async fn prepare(
    options: &Options,
    shutdown: &CancellationToken,
) -> Result<Option<Checkpoint>, ProjectorError> {
    let read_models = &options.read_models;
    let waiting = |what| options.status.waiting(what);

    waiting("the read models");
    let prepared = backoff::wait_for("the read models", shutdown, || read_models.prepare()).await;
    if prepared.map_err(ProjectorError::ReadModels)?.is_none() {
        return Ok(None);
    }
    let read = backoff::wait_for("the read models", shutdown, || read_models.checkpoint()).await;
    let Some(checkpoint) = read.map_err(ProjectorError::ReadModels)? else {
        return Ok(None);
    };

    waiting("the log");
    let tail = backoff::wait_for("the log", shutdown, || options.log.tail()).await;
    let Some(tail) = tail.map_err(ProjectorError::Log)? else {
        return Ok(None);
    };
    if let Some(checkpoint) = checkpoint {
        check_history(&tail, &checkpoint.incarnation, checkpoint.position)?;
        return Ok(Some(checkpoint));
    }
    // Says whose read models these are from now on, and to those who wait for a projection that there is
    // one.
    let nothing = Batch {
        incarnation: tail.incarnation.clone(),
        entries: Vec::new(),
        up_to: Position::ZERO,
    };
    let begun =
        backoff::wait_for("the read models", shutdown, || read_models.apply(&nothing)).await;
    let begun = begun.map_err(ProjectorError::ReadModels)?;
    Ok(begun.map(|()| Checkpoint {
        position: Position::ZERO,
        incarnation: tail.incarnation,
        heartbeat: 0,
        lag: Duration::ZERO,
    }))
}
