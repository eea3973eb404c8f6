//! Following the log for as long as a process lives, across restarts of the log and lost connections.

use std::sync::Arc;
use std::time::{Duration, Instant};

use events::Position;
use futures::stream::{self, BoxStream, StreamExt};
use tokio_util::sync::CancellationToken;

use crate::{EventLog, Events, Filter, Incarnation, LogError, Recorded};

/// The first pause before following again; it doubles with each failure in a row.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause: how soon after the log's return following goes on.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// After this long without a failure, the next one is the first again.
const STABLE: Duration = Duration::from_secs(10);

/// What a follower sees.
#[derive(Debug)]
pub enum Followed {
    /// The next event.
    Event(Recorded),
    /// The log can't be followed at present, for this reason. Following goes on by itself when it can.
    Degraded(LogError),
    /// The log is followed again. Nothing was missed: the next event is the one after the last.
    Restored,
    /// The log is not the one that was followed so far: it was replaced, or lost events that had been
    /// seen. Nothing comes after this; what was derived from the log no longer matches it.
    Lost(LogError),
}

/// Follows the log from `after` on until `shutdown` is cancelled: the matching events in order, without
/// gap or duplicate, and when the connection to the log is lost and found.
///
/// The stream ends on cancellation or after [`Followed::Lost`].
pub fn follow_forever(
    log: Arc<dyn EventLog>,
    filter: Filter,
    after: Position,
    shutdown: CancellationToken,
) -> BoxStream<'static, Followed> {
    let follower = Follower {
        log,
        filter,
        after,
        incarnation: None,
        events: None,
        degraded: false,
        failures: 0,
        connected_at: Instant::now(),
        lost: false,
    };
    stream::unfold(
        (follower, shutdown),
        |(mut follower, shutdown)| async move {
            if follower.lost {
                return None;
            }
            let next = shutdown.run_until_cancelled(follower.next()).await?;
            Some((next, (follower, shutdown)))
        },
    )
    .boxed()
}

struct Follower {
    log: Arc<dyn EventLog>,
    filter: Filter,
    /// The position of the last event seen.
    after: Position,
    /// Which log is followed, once it is known.
    incarnation: Option<Incarnation>,
    events: Option<Events>,
    degraded: bool,
    failures: u32,
    connected_at: Instant,
    lost: bool,
}

impl Follower {
    async fn next(&mut self) -> Followed {
        loop {
            let Some(events) = &mut self.events else {
                if let Some(news) = self.connect().await {
                    return news;
                }
                continue;
            };
            match events.next().await {
                Some(Ok(event)) => {
                    debug_assert!(event.position > self.after, "the log went backwards");
                    self.after = event.position;
                    self.failures = 0;
                    return Followed::Event(event);
                }
                Some(Err(error)) => return self.interrupted(error),
                None => {
                    let error = LogError::Unavailable("following it ended".to_owned());
                    return self.interrupted(error);
                }
            }
        }
    }

    fn interrupted(&mut self, error: LogError) -> Followed {
        self.events = None;
        if self.connected_at.elapsed() > STABLE {
            self.failures = 0;
        }
        self.failures += 1;
        self.degraded = true;
        Followed::Degraded(error)
    }

    /// Follows (again), after a pause if the last attempt failed. What the caller has to be told, if
    /// anything.
    async fn connect(&mut self) -> Option<Followed> {
        if self.failures > 0 {
            tokio::time::sleep(pause(self.failures)).await;
        }
        match self.try_connect().await {
            Ok(None) => {
                self.connected_at = Instant::now();
                std::mem::take(&mut self.degraded).then_some(Followed::Restored)
            }
            Ok(Some(reason)) => {
                self.lost = true;
                Some(Followed::Lost(LogError::Unusable(reason)))
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                let news = !std::mem::replace(&mut self.degraded, true);
                news.then_some(Followed::Degraded(error))
            }
        }
    }

    /// Follows, unless the log is not what it was: then says why.
    async fn try_connect(&mut self) -> Result<Option<String>, LogError> {
        let tail = self.log.tail().await?;
        let known = self.incarnation.get_or_insert(tail.incarnation.clone());
        if *known != tail.incarnation {
            return Ok(Some(
                "it was replaced by another log while it was followed".to_owned(),
            ));
        }
        if tail.last < self.after {
            return Ok(Some(format!(
                "it ends at {}, but {} had been read from it: it lost its end or was replaced",
                tail.last, self.after
            )));
        }
        self.events = Some(self.log.follow(self.filter.clone(), self.after).await?);
        Ok(None)
    }
}

/// Grows from [`FIRST_PAUSE`] to [`LONGEST_PAUSE`]; half of it is random, so that many followers don't
/// come back all at once.
fn pause(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(10);
    let longest = (FIRST_PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE);
    longest.mul_f64(rand::random_range(0.5..1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit() {
        for failures in [1, 2, 10, u32::MAX] {
            assert!(pause(failures) >= FIRST_PAUSE / 2);
            assert!(pause(failures) <= LONGEST_PAUSE);
        }
        assert!(pause(1) <= FIRST_PAUSE);
        assert!(pause(10) >= LONGEST_PAUSE / 2);
    }
}
