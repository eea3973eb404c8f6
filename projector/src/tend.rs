//! Once a second beside the projection: the lag, and whether the log is still the same.

use std::time::Duration;

use event_log::{Filter, Incarnation, LogError, Position};
use events::Timestamp;
use futures::StreamExt;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::project::Work;
use crate::status::Lag;
use crate::{ProjectorError, check_history};

const PERIOD: Duration = Duration::from_secs(1);

/// Tends the projection until `stop`.
pub(crate) async fn tend(
    work: Work,
    incarnation: Incarnation,
    stop: CancellationToken,
) -> Result<(), ProjectorError> {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        // An outage is noticed and waited out by the projection itself.
        if let Ok(count) = work.led.projection.dead_letter_count().await {
            metrics::gauge!("hansard_dead_letters").set(count as f64);
        }
        // Read before the tail, so that what is projected in between can't look like a log cut short.
        let projected = work.status.position();
        let Ok(tail) = work.log.tail().await else {
            continue;
        };
        check_history(&tail, &incarnation, projected)?;
        if let Ok(lag) = lag(&work, projected, tail.last).await {
            work.status.behind(lag);
            metrics::gauge!("hansard_projection_lag_events").set(lag.events as f64);
            metrics::gauge!("hansard_projection_lag_seconds").set(lag.age.as_secs_f64());
        }
    }
}

async fn lag(work: &Work, projected: Position, last: Position) -> Result<Lag, LogError> {
    if last <= projected {
        return Ok(Lag::default());
    }
    let next = match work.log.get(projected.next()).await? {
        Some(recorded) => Some(recorded),
        // Positions may have gaps.
        None => {
            let mut rest = work.log.read(Filter::All, projected).await?;
            rest.next().await.transpose()?
        }
    };
    // What was projected meanwhile has no age.
    if work.status.position() >= last {
        return Ok(Lag::default());
    }
    let age = next.map_or(0, |recorded| {
        Timestamp::now().as_millis() - recorded.stored_at.as_millis()
    });
    Ok(Lag {
        events: last.get() - projected.get(),
        age: Duration::from_millis(u64::try_from(age).unwrap_or(0)),
    })
}
