//! Once a second beside the projection: the lag, and whether the log is still the same. (The heartbeat, which
//! tells others of the lag, is the leader's, see `lead.rs`.)
//!
//! The read models and the log are asked by a loop each, so that an outage of one hides nothing of the
//! other.

use std::time::{Duration, Instant};

use event_log::{Filter, Incarnation, LogError, Position};
use futures::StreamExt;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::project::Work;
use crate::status::{Lag, Stage, age};
use crate::{ProjectorError, check_history};

const PERIOD: Duration = Duration::from_secs(1);

/// Tends the projection until `stop`.
pub(crate) async fn tend(
    work: Work,
    incarnation: Incarnation,
    stop: CancellationToken,
) -> Result<(), ProjectorError> {
    futures::try_join!(
        tend_read_models(&work, &stop),
        tend_log(&work, &incarnation, &stop),
    )?;
    Ok(())
}

async fn tend_read_models(work: &Work, stop: &CancellationToken) -> Result<(), ProjectorError> {
    let mut ticks = ticks();
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        // Nobody is told of those beside it.
        if work.status.is_served()
            && let Ok(count) = work.led.projection.dead_letter_count().await
        {
            work.status.set_aside(count);
            metrics::gauge!("hansard_dead_letters").set(count as f64);
        }
    }
    Ok(())
}

async fn tend_log(
    work: &Work,
    incarnation: &Incarnation,
    stop: &CancellationToken,
) -> Result<(), ProjectorError> {
    let mut ticks = ticks();
    let mut looked = Instant::now();
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        if look(work, incarnation).await? {
            looked = Instant::now();
        } else {
            // What the log has got since is unknown. If it is anything, it may be as old as that.
            let known = work.status.own_lag().unwrap_or_default();
            let lag = Lag {
                age: known.age + looked.elapsed(),
                cause: Some(Stage::Log),
                ..known
            };
            show(work, lag);
        }
    }
    Ok(())
}

fn ticks() -> Interval {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Looks how far behind the log the projection is; `false` when the log can't be reached.
pub(crate) async fn look(work: &Work, incarnation: &Incarnation) -> Result<bool, ProjectorError> {
    // Read before the tail, so that what is projected in between can't look like a log cut short.
    let projected = work.status.position();
    let Ok(tail) = work.record.log.tail().await else {
        return Ok(false);
    };
    check_history(&tail, incarnation, projected)?;
    let Ok(lag) = lag(work, projected, tail.last).await else {
        return Ok(false);
    };
    work.status.behind(tail.last, lag);
    show(work, lag);
    Ok(true)
}

async fn lag(work: &Work, projected: Position, last: Position) -> Result<Lag, LogError> {
    if last <= projected {
        return Ok(Lag::default());
    }
    let next = match work.record.log.get(projected.next()).await? {
        Some(recorded) => Some(recorded),
        // Positions may have gaps.
        None => {
            let mut rest = work.record.log.read(Filter::All, projected).await?;
            rest.next().await.transpose()?
        }
    };
    let cause = work.status.stage_of_oldest();
    // What was projected meanwhile has no age.
    if work.status.position() >= last {
        return Ok(Lag::default());
    }
    Ok(Lag {
        events: last.get() - projected.get(),
        age: next.map_or(Duration::ZERO, |recorded| age(recorded.stored_at)),
        cause: Some(cause),
    })
}

/// Shows the lag of the generation that is read; those beside it are nobody's concern.
fn show(work: &Work, lag: Lag) {
    if !work.status.is_served() {
        return;
    }
    metrics::gauge!("hansard_projection_lag_events").set(lag.events as f64);
    for stage in Stage::ALL {
        let due_to_it = lag.cause == Some(stage);
        let age = if due_to_it { lag.age } else { Duration::ZERO };
        metrics::gauge!("hansard_projection_lag_seconds", "cause" => stage.as_str())
            .set(age.as_secs_f64());
    }
}
