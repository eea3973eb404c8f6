//! Projects the log into one generation, as its leader.

use std::time::{Duration, Instant};

use event_log::Position;
use futures::{FutureExt, StreamExt};
use keys::Record;
use read_models::{Batch, Checkpoint};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::apply::{self, Applied};
use crate::gather::{Gathered, Sizes};
use crate::lead::Led;
use crate::purge::Purging;
use crate::waited_for::Told;
use crate::{ProjectorError, Status, backoff, check_history, source, tend};

/// How long events may be gathered into a batch while nothing else is being written.
const GATHER_TIME: Duration = Duration::from_millis(5);

/// What one generation is projected with.
#[derive(Clone)]
pub(crate) struct Work {
    pub(crate) record: Record,
    pub(crate) led: Led,
    pub(crate) status: Status,
    /// Is told how far the projection has come.
    pub(crate) told: Told,
    /// See [`crate::Options::drain`].
    pub(crate) drain: Duration,
}

/// Why projecting ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was to stop.
    Stopped,
    /// It has come to where it was to end.
    Done,
    /// Another projector has taken over.
    Overtaken,
}

/// Projects until `stop`, or until another projector takes over; no further than `end`, if there is one,
/// where the log must have an event.
pub(crate) async fn project(
    work: &Work,
    end: Option<Position>,
    stop: &CancellationToken,
) -> Result<Ended, ProjectorError> {
    let Some(start) = begin(work, stop).await? else {
        return Ok(Ended::Stopped);
    };
    tracing::info!(generation = work.led.number, checkpoint = %start.position, "projecting");
    work.status.following(start.position);
    work.told.advance(&start);
    // The first batch will show that a projector is at work: before it, how far behind that begins.
    match stop
        .run_until_cancelled(tend::look(work, &start.incarnation))
        .await
    {
        Some(looked) => drop(looked?),
        None => return Ok(Ended::Stopped),
    }
    work.led.beat().await;
    let purging = Purging::start(work.led.clone());
    if work.led.is_served() {
        purging.ask();
    }
    let is_over = |position: Position| end.is_some_and(|end| position >= end);
    if is_over(start.position) {
        return Ok(Ended::Done);
    }

    // Cancelled when this function ends, however it does: then the tasks end too.
    let abandon = CancellationToken::new();
    let _abandon_at_the_end = abandon.clone().drop_guard();
    let mut tending = tokio::spawn(tend::tend(
        work.clone(),
        start.incarnation.clone(),
        abandon.clone(),
    ));
    let mut source = source::follow(
        work.record.clone(),
        start.incarnation.clone(),
        start.position,
        abandon.clone(),
    );
    let mut gathered = Gathered::first(match work.led.is_served() {
        true => Sizes::SERVED,
        false => Sizes::UNSERVED,
    });
    let mut applying: Option<JoinHandle<Result<Applied, ProjectorError>>> = None;
    let mut projected = start.clone();
    // Up to where events have been handed to be applied.
    let mut read = start.position;
    let mut draining: Option<Draining> = None;
    // Since when the log is asked for the next event.
    let mut asked = Instant::now();
    let mut ended = Ended::Stopped;

    loop {
        if applying.is_none() && !gathered.is_empty() {
            // What has been read goes out as soon as no more is waiting to be read.
            while !gathered.is_full() && !is_over(gathered.up_to) && gathered.age() < GATHER_TIME {
                let Some(Some(opened)) = source.next().now_or_never() else {
                    break;
                };
                gathered.push(opened?);
            }
            read = gathered.up_to;
            work.status.writing(read);
            asked = Instant::now();
            let next = gathered.next();
            applying = Some(tokio::spawn(apply::apply(
                work.led.clone(),
                work.record.keyring.clone(),
                start.incarnation.clone(),
                std::mem::replace(&mut gathered, next),
                purging.clone(),
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
            () = work.led.lost.cancelled() => {
                ended = Ended::Overtaken;
                break;
            }
            () = stop.cancelled(), if draining.is_none() => {
                if work.drain.is_zero() {
                    break;
                }
                draining = Some(Draining::start(work, projected.position).await);
            }
            () = until(draining.as_ref().map(|draining| draining.deadline)) => break,
            tended = &mut tending => {
                tended.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
                break;
            }
            applied = finished(&mut applying) => {
                applying = None;
                match applied? {
                    Applied::UpTo(position) => {
                        advance(work, &mut projected, position);
                        if is_over(position) {
                            ended = Ended::Done;
                            break;
                        }
                    }
                    Applied::Abandoned => break,
                    Applied::Overtaken => {
                        ended = Ended::Overtaken;
                        break;
                    }
                }
            }
            item = source.next(), if !gathered.is_full() && !is_over(read.max(gathered.up_to)) => {
                let Some(opened) = item else { break };
                let opened = opened?;
                let position = opened.recorded.position;
                if gathered.is_empty() {
                    work.status.gathering(position);
                }
                gathered.waited += work.status.waited_for(position, asked).saturating_sub(opened.took);
                gathered.push(opened);
                asked = Instant::now();
            }
        }
    }

    // The batch in hand is finished; what it waits for is not waited for any longer.
    abandon.cancel();
    if applying.is_some()
        && let Applied::UpTo(position) = finished(&mut applying).await?
    {
        advance(work, &mut projected, position);
    }
    tracing::info!(
        generation = work.led.number,
        checkpoint = %projected.position,
        "stopped projecting"
    );
    Ok(ended)
}

/// What is still to be projected after the shutdown signal.
struct Draining {
    target: Position,
    deadline: tokio::time::Instant,
}

impl Draining {
    async fn start(work: &Work, projected: Position) -> Self {
        let deadline = tokio::time::Instant::now() + work.drain;
        let tail = tokio::time::timeout_at(deadline, work.record.log.tail()).await;
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

fn advance(work: &Work, projected: &mut Checkpoint, position: Position) {
    projected.position = position;
    work.status.projected(position);
    work.told.advance(projected);
}

/// The checkpoint to begin at, after a look at whether log and read models belong together. `None` when it
/// is to stop before that is known.
pub(crate) async fn begin(
    work: &Work,
    stop: &CancellationToken,
) -> Result<Option<Checkpoint>, ProjectorError> {
    let projection = &work.led.projection;
    let waiting = |what| work.status.waiting(what);

    waiting("the read models");
    let read = backoff::wait_for("the read models", stop, || projection.checkpoint()).await;
    let Some(checkpoint) = read.map_err(ProjectorError::ReadModels)? else {
        return Ok(None);
    };

    waiting("the log");
    let tail = backoff::wait_for("the log", stop, || work.record.log.tail()).await;
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
        fence: work.led.fence,
    };
    let begun = backoff::wait_for("the read models", stop, || projection.apply(&nothing)).await;
    let begun = begun.map_err(ProjectorError::ReadModels)?;
    Ok(begun.map(|()| Checkpoint {
        position: Position::ZERO,
        incarnation: tail.incarnation,
        heartbeat: 0,
        lag: Duration::ZERO,
    }))
}
