//! Building a generation beside the one that is read, and examining it before it takes that one's place.
//!
//! Nothing is lost when this ends at any moment: whoever leads the generation next goes on from its
//! checkpoint. The generation that is read is never touched.

use std::sync::Arc;

use event_log::Position;
use read_models::{Catalogue, Checksums, State};
use tokio_util::sync::CancellationToken;
use verify::VerifyError;

use crate::project::{Ended, Work, project};
use crate::settle::settled_snapshot;
use crate::{ProjectorError, backoff};

/// With at most so many events to go, a generation is examined.
const NEAR: u64 = 1_000;

/// How many differences are named when a generation is rejected.
const NAMED: usize = 3;

/// What the examination of a generation has come to.
enum Verdict {
    /// It is what the log gives, as far as can be told: this is what was found.
    Sound(String),
    /// It is not, and this is why.
    Unsound(String),
}

/// Fills the generation from the log, examines it, and lets it join those that commands wait for, or
/// rejects it. [`Ended::Done`] when either is done.
pub(crate) async fn build(
    work: &Work,
    catalogue: &Arc<dyn Catalogue>,
    name: &str,
    stop: &CancellationToken,
) -> Result<Ended, ProjectorError> {
    let number = work.led.number;
    let mut projected = Position::ZERO;
    loop {
        let tail = backoff::wait_for("the log", stop, || work.record.log.tail()).await;
        let Some(tail) = tail.map_err(ProjectorError::Log)? else {
            return Ok(Ended::Stopped);
        };
        if tail.last.get().saturating_sub(projected.get()) <= NEAR && projected > Position::ZERO
            || tail.last == Position::ZERO
        {
            break;
        }
        match project(work, Some(tail.last), stop).await? {
            Ended::Done => projected = tail.last,
            ended => return Ok(ended),
        }
    }
    tracing::info!(generation = number, "examining the generation");
    let examined = backoff::wait_for("what is examined", stop, || {
        examine(work, catalogue, name, stop)
    });
    let verdict = match examined.await {
        Ok(Some(Ok(verdict))) => verdict,
        Ok(Some(Err(ended))) => return Ok(ended),
        Ok(None) => return Ok(Ended::Stopped),
        Err(error) => Verdict::Unsound(error.to_string()),
    };
    let (to, note) = match verdict {
        Verdict::Sound(note) => (State::Joining, note),
        Verdict::Unsound(note) => (State::Rejected, note),
    };
    let change = || catalogue.change(number, State::Building, to, Some(&note));
    let changed = backoff::wait_for("the read models", stop, change).await;
    match changed.map_err(ProjectorError::ReadModels)? {
        None => Ok(Ended::Stopped),
        Some(changed) => {
            match to {
                State::Rejected => tracing::error!(generation = number, "rejected: {note}"),
                _ if changed => tracing::info!(generation = number, "complete: {note}"),
                _ => {}
            }
            Ok(Ended::Done)
        }
    }
}

/// Compares the generation with the live one at the same position. Where there is none, or it is not the
/// same, the log itself decides which is right.
async fn examine(
    work: &Work,
    catalogue: &Arc<dyn Catalogue>,
    name: &str,
    stop: &CancellationToken,
) -> Result<Result<Verdict, Ended>, ProjectorError> {
    let generations = backoff::wait_for("the read models", stop, || catalogue.generations()).await;
    let Some(generations) = generations.map_err(ProjectorError::ReadModels)? else {
        return Ok(Err(Ended::Stopped));
    };
    let doubt = match generations.live(catalogue.schema()) {
        None => "there is none to compare it with".to_owned(),
        Some(live) => {
            let live = live.number;
            let projection = catalogue.open(live).await;
            let projection = projection.map_err(ProjectorError::ReadModels)?;
            let name = format!("{name}, for a comparison");
            match settled_snapshot(&work.record, live, projection, &name, stop).await {
                Ok(None) => return Ok(Err(Ended::Stopped)),
                Ok(Some(mut settled)) => {
                    let position = settled.position();
                    match project(work, Some(position), stop).await? {
                        Ended::Done => {}
                        ended => return Ok(Err(ended)),
                    }
                    let own = work.led.projection.snapshot().await;
                    let mut own = own.map_err(ProjectorError::ReadModels)?;
                    let own = Checksums::of(own.as_mut()).await;
                    let own = own.map_err(ProjectorError::ReadModels)?;
                    let theirs = Checksums::of(settled.snapshot.as_mut()).await;
                    let theirs = theirs.map_err(ProjectorError::ReadModels)?;
                    let differing = own.differing(&theirs);
                    if differing.is_empty() {
                        return Ok(Ok(Verdict::Sound(format!(
                            "it has the same content as generation {live} at position {position}"
                        ))));
                    }
                    let differing = differing.join(", ");
                    format!("its {differing} differ from those of generation {live}")
                }
                // It can't be brought to the end of this log: it may even be another log's.
                Err(error) => format!("generation {live} can't be compared with it: {error}"),
            }
        }
    };
    tracing::info!(
        generation = work.led.number,
        "{doubt}; comparing it with the log"
    );
    let snapshot = work.led.projection.snapshot().await;
    let mut snapshot = snapshot.map_err(ProjectorError::ReadModels)?;
    let options = verify::Options {
        listed: NAMED,
        ..verify::Options::default()
    };
    let report = verify::snapshot(&work.record, snapshot.as_mut(), &options).await;
    match report {
        Ok(report) if report.is_equal() => Ok(Ok(Verdict::Sound(format!(
            "{doubt}, and it is what the log gives"
        )))),
        Ok(report) => Ok(Ok(Verdict::Unsound(format!(
            "{doubt}, and it is not what the log gives: {report}"
        )))),
        Err(VerifyError::ReadModels(error)) => Err(ProjectorError::ReadModels(error)),
        Err(VerifyError::Log(error)) => Err(ProjectorError::Log(error)),
        Err(error) => Ok(Ok(Verdict::Unsound(error.to_string()))),
    }
}
