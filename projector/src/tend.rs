//! Once a second beside the projection: the heartbeat, the lag, and whether the log is still the same.
//!
//! The read models and the log are asked by a loop each, so that an outage of one hides nothing of the
//! other.

use std::time::{Duration, Instant};

use event_log::{Filter, Incarnation, LogError, Position};
use futures::StreamExt;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::status::{Lag, Stage, age};
use crate::{Options, ProjectorError, check_history};

const PERIOD: Duration = Duration::from_secs(1);

/// Tends the projection until `stop`.
pub(crate) async fn tend(
    options: Options,
    incarnation: Incarnation,
    stop: CancellationToken,
) -> Result<(), ProjectorError> {
    futures::try_join!(
        tend_read_models(&options, &stop),
        tend_log(&options, &incarnation, &stop),
    )?;
    Ok(())
}

async fn tend_read_models(
    options: &Options,
    stop: &CancellationToken,
) -> Result<(), ProjectorError> {
    let mut ticks = ticks();
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        tell(options).await;
        if let Ok(count) = options.read_models.dead_letter_count().await {
            metrics::gauge!("hansard_dead_letters").set(count as f64);
        }
    }
    Ok(())
}

async fn tend_log(
    options: &Options,
    incarnation: &Incarnation,
    stop: &CancellationToken,
) -> Result<(), ProjectorError> {
    let mut ticks = ticks();
    let mut looked = Instant::now();
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        if look(options, incarnation).await? {
            looked = Instant::now();
        } else {
            // What the log has got since is unknown. If it is anything, it may be as old as that.
            let known = options.status.lag().unwrap_or_default();
            show(Lag {
                age: known.age + looked.elapsed(),
                cause: Some(Stage::Log),
                ..known
            });
        }
    }
    Ok(())
}

fn ticks() -> Interval {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Tells those who look at the checkpoint that a projector is at work, and how far behind it is. A log that
/// can't be reached adds nothing to that: who can't append can't be missed.
pub(crate) async fn tell(options: &Options) {
    let lag = options.status.lag().map(|lag| lag.age);
    // An outage is noticed and waited out by the projection itself.
    if let Err(error) = options.read_models.heartbeat(lag).await {
        tracing::debug!(%error, "no heartbeat");
    }
}

/// Looks how far behind the log the projection is; `false` when the log can't be reached.
pub(crate) async fn look(
    options: &Options,
    incarnation: &Incarnation,
) -> Result<bool, ProjectorError> {
    // Read before the tail, so that what is projected in between can't look like a log cut short.
    let projected = options.status.position();
    let Ok(tail) = options.log.tail().await else {
        return Ok(false);
    };
    check_history(&tail, incarnation, projected)?;
    let Ok(lag) = lag(options, projected, tail.last).await else {
        return Ok(false);
    };
    options.status.behind(tail.last, lag);
    show(lag);
    Ok(true)
}

async fn lag(options: &Options, projected: Position, last: Position) -> Result<Lag, LogError> {
    if last <= projected {
        return Ok(Lag::default());
    }
    let next = match options.log.get(projected.next()).await? {
        Some(recorded) => Some(recorded),
        // Positions may have gaps.
        None => {
            let mut rest = options.log.read(Filter::All, projected).await?;
            rest.next().await.transpose()?
        }
    };
    let cause = options.status.stage_of_oldest();
    // What was projected meanwhile has no age.
    if options.status.position() >= last {
        return Ok(Lag::default());
    }
    Ok(Lag {
        events: last.get() - projected.get(),
        age: next.map_or(Duration::ZERO, |recorded| age(recorded.stored_at)),
        cause: Some(cause),
    })
}

fn show(lag: Lag) {
    metrics::gauge!("hansard_projection_lag_events").set(lag.events as f64);
    for stage in Stage::ALL {
        let due_to_it = lag.cause == Some(stage);
        let age = if due_to_it { lag.age } else { Duration::ZERO };
        metrics::gauge!("hansard_projection_lag_seconds", "cause" => stage.as_str())
            .set(age.as_secs_f64());
    }
}
