//! Follows the log and writes the read models.
//!
//! Each generation of the read models has one leader among the projectors (`lead.rs`), and the others stand
//! by. The leader follows the log in order from the generation's checkpoint (`project.rs`), gathers events
//! into batches, and projects each with one call of [`Projection::apply`](read_models::Projection::apply),
//! which moves the checkpoint last. While a batch is being written the next one is read and decoded.
//! Which generations there are to lead, and what becomes of them, is seen to in `generations.rs`.
//!
//! What goes wrong is told apart by whether it is the event's fault. An event that can't be decoded, or
//! whose write is refused for its content, is set aside with its reason and never stops the projection. An
//! outage of the log or of the read models is waited out, for ever. A log that is not the one the read
//! models come from, or that ends before their checkpoint, stops the projector: going on would mix two
//! histories.

mod apply;
mod backoff;
mod gather;
mod generations;
mod hand_over;
mod lead;
mod project;
mod purge;
mod rebuild;
mod retention;
mod settle;
mod source;
mod status;
mod tend;
mod verification;
mod waited_for;

use std::sync::Arc;
use std::time::Duration;

use event_log::{Incarnation, LogError, Position, Tail};
use keys::Record;
use read_models::{Catalogue, Progress, ReadModelError};
use tokio_util::sync::CancellationToken;

pub use crate::retention::Retention;
pub use crate::settle::{Settled, settled_snapshot};
pub use crate::status::{Lag, Stage, Status};
pub use crate::verification::{VerificationError, verify_generation};
pub use platform::startup::Interrupted;

/// How long the all-in-one process goes on projecting, after it was told to stop, what had been accepted.
pub const DRAIN: Duration = Duration::from_secs(5);

/// How long a generation is kept that nobody uses any more.
pub const GRACE: Duration = Duration::from_secs(60);

/// What a projector works with.
#[derive(Clone)]
pub struct Options {
    /// The record to follow.
    pub record: Record,
    /// The generations of the read models, to be written.
    pub catalogue: Arc<dyn Catalogue>,
    /// Names this projector among others, the same when it is started again: a restarted one need not wait
    /// until it is clear that its own last run has ended.
    pub name: String,
    /// The one generation to see to; all of them, for `None`.
    pub only: Option<u32>,
    /// Is told at once how far the projection has come, for those in the same process who wait for it.
    pub progress: Option<Progress>,
    /// Where the projector reports how it is doing.
    pub status: Status,
    /// Which texts are let go for their age; none, for `None`.
    pub retention: Option<Retention>,
    /// How long a generation is kept that nobody uses any more: [`GRACE`], except in tests.
    pub grace: Duration,
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
         give the projector that log, or make the read models anew from this one with `hansard rebuild`",
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
         restore the whole log, or make the read models anew from what is left with `hansard rebuild`"
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
    let result = generations::tend(options, shutdown).await;
    match &result {
        Ok(()) => status.stopped("it was told to stop"),
        Err(error) => status.stopped(&error.to_string()),
    }
    Ok(result?)
}
