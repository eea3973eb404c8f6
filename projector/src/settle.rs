//! A snapshot of a generation at exactly where the log ends, while others go on projecting it.
//!
//! Where batches are not written at once, a snapshot could fall into the middle of one. So whoever takes it
//! takes the lead first, projects what is left, and gives the lead back as soon as the snapshot has begun.

use std::sync::Arc;

use event_log::Position;
use keys::Record;
use read_models::{Projection, Snapshot};
use tokio_util::sync::CancellationToken;

use crate::lead::Led;
use crate::project::{Ended, Work, project};
use crate::waited_for::WaitedFor;
use crate::{ProjectorError, Status, backoff};

/// A snapshot of everything up to its checkpoint, and nothing of what comes after.
pub struct Settled {
    /// The snapshot.
    pub snapshot: Box<dyn Snapshot>,
    /// Kept where the snapshot is one only while nothing is written.
    _led: Option<Led>,
}

impl Settled {
    /// The position up to which it holds everything.
    pub fn position(&self) -> Position {
        let checkpoint = self.snapshot.checkpoint();
        checkpoint.map_or(Position::ZERO, |checkpoint| checkpoint.position)
    }
}

/// Takes a snapshot of the generation at the end of the log; `None` when `stop` comes first. `name` names
/// whoever does it, to those who project the generation otherwise.
///
/// # Errors
/// What can't be waited out.
pub async fn settled_snapshot(
    record: &Record,
    number: u32,
    projection: Arc<dyn Projection>,
    name: &str,
    stop: &CancellationToken,
) -> Result<Option<Settled>, ProjectorError> {
    while !stop.is_cancelled() {
        let status = Status::default().of(number);
        let seize = || Led::seize(number, Arc::clone(&projection), name, status.clone());
        let seized = backoff::wait_for("the read models", stop, seize).await;
        let Some(led) = seized.map_err(ProjectorError::ReadModels)? else {
            return Ok(None);
        };
        // Somebody else has just taken it.
        let Some(led) = led else { continue };
        let work = Work {
            record: record.clone(),
            led: led.clone(),
            status: status.clone(),
            told: WaitedFor::new(None).of(number),
            drain: std::time::Duration::ZERO,
        };
        let tail = backoff::wait_for("the log", stop, || record.log.tail()).await;
        let Some(tail) = tail.map_err(ProjectorError::Log)? else {
            return Ok(None);
        };
        match project(&work, Some(tail.last), stop).await {
            Ok(Ended::Done) => {}
            Ok(Ended::Stopped) => return Ok(None),
            Ok(Ended::Overtaken) => continue,
            Err(error) => {
                led.release().await;
                return Err(error);
            }
        }
        let snapshot = projection.snapshot().await;
        let snapshot = snapshot.map_err(ProjectorError::ReadModels)?;
        let led = if snapshot.needs_stillness() {
            Some(led)
        } else {
            led.release().await;
            None
        };
        return Ok(Some(Settled {
            snapshot,
            _led: led,
        }));
    }
    Ok(None)
}
