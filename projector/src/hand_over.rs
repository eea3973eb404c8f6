//! Handing over from one live generation to the next, so that nobody ever reads less than it has read or
//! written before.
//!
//! Everybody looks at the catalogue about once a second. So between two steps there is time for all to have
//! looked: first commands wait for the new generation too, then it is read, and only when nobody can still
//! be reading the old one, that is given up.

use std::sync::Arc;
use std::time::Duration;

use event_log::EventLog;
use read_models::{Catalogue, Generation, State};
use tokio::time::sleep;

use crate::lead::Led;

/// Time for everybody to have looked at the catalogue: three times as long as it should take.
const NOTICE: Duration = Duration::from_secs(3);

/// How often to look whether the new generation has caught up with the old one.
const LOOK: Duration = Duration::from_millis(50);

/// Makes the generation, which is being projected, the one that is read, and gives up those before it.
/// Dropping the future is safe: whoever leads the generation next goes on.
pub(crate) async fn hand_over(catalogue: Arc<dyn Catalogue>, log: Arc<dyn EventLog>, led: Led) {
    loop {
        match step(catalogue.as_ref(), log.as_ref(), &led).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "a hand-over waits"),
        }
        sleep(LOOK).await;
    }
}

/// Gets one step further; whether everything is done.
async fn step(catalogue: &dyn Catalogue, log: &dyn EventLog, led: &Led) -> anyhow::Result<bool> {
    let generations = catalogue.generations().await?;
    let Some(own) = generations.get(led.number) else {
        return Ok(true);
    };
    let older: Vec<&Generation> = generations
        .of(catalogue.schema())
        .filter(|it| it.number < led.number && it.state.is_waited_for())
        .collect();
    match own.state {
        State::Joining => {
            sleep(NOTICE).await;
            for other in older {
                if !has_caught_up(catalogue, log, led, other.number).await? {
                    return Ok(false);
                }
            }
            let (from, to) = (State::Joining, State::Live);
            if catalogue.change(led.number, from, to, None).await? {
                tracing::info!(generation = led.number, "the generation is live");
            }
            Ok(false)
        }
        State::Live if older.is_empty() => Ok(true),
        State::Live => {
            sleep(NOTICE).await;
            for other in older {
                let note = format!("generation {} has taken its place", led.number);
                catalogue
                    .change(other.number, other.state, State::Retired, Some(&note))
                    .await?;
            }
            Ok(true)
        }
        State::Building | State::Retired | State::Rejected => Ok(true),
    }
}

async fn has_caught_up(
    catalogue: &dyn Catalogue,
    log: &dyn EventLog,
    led: &Led,
    other: u32,
) -> anyhow::Result<bool> {
    // The other one first: it is what has to be reached.
    let other = catalogue.open(other).await?.checkpoint().await?;
    let own = led.projection.checkpoint().await?;
    let (Some(own), Some(other)) = (own, other) else {
        return Ok(true);
    };
    if own.incarnation != other.incarnation {
        // The positions of another log, which this one has taken the place of, mean nothing.
        return Ok(true);
    }
    // A log that has lost its tail ends before what the other one has seen, and nobody gets further.
    let end = log.tail().await?.last;
    Ok(own.position >= other.position.min(end))
}
