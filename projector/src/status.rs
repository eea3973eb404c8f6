//! How a projector is doing, for health checks and metrics.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use event_log::Position;
use events::Timestamp;
use platform::health::Health;

/// What an event passes through on its way into the read models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It is in the log and has not been read from there.
    Log,
    /// It has been read; it and those after it are decoded and gathered into a batch.
    Decode,
    /// Its batch is being written to the read models.
    Write,
}

impl Stage {
    /// All, in the order in which an event passes them.
    pub const ALL: [Self; 3] = [Self::Log, Self::Decode, Self::Write];

    /// The stage's name, as figures have it for a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Decode => "decode",
            Self::Write => "write",
        }
    }
}

/// How far the projection is behind the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lag {
    /// How many events are not projected yet.
    pub events: u64,
    /// How long ago the oldest of them was stored; zero when there is none.
    pub age: Duration,
    /// Where the oldest of them is: what the lag is due to. `None` when there is none.
    pub cause: Option<Stage>,
}

#[derive(Debug)]
enum Phase {
    Waiting(&'static str),
    Following(Following),
    Stopped(String),
}

#[derive(Debug)]
struct Following {
    projected: Position,
    /// The first event of the batch that was gathered last.
    gathered: Position,
    /// The last event of the batch that was handed to the read models last.
    handed: Position,
    /// The end of the log when it was last looked at.
    end: Position,
    /// When it was first seen to end there.
    end_seen: Instant,
    /// `None` before the first look.
    lag: Option<Lag>,
}

/// How a projector is doing. Clones share it.
#[derive(Debug, Clone)]
pub struct Status(Arc<Mutex<Phase>>);

impl Default for Status {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Phase::Waiting("its start"))))
    }
}

impl Status {
    /// Adds the check `projection` to a process's health checks.
    pub fn report_to(&self, health: &Health, max_lag: Duration) {
        let status = self.clone();
        health.add("projection", move || {
            std::future::ready(status.check(max_lag))
        });
    }

    /// Whether the projection is at work and no further behind the log than `max_lag`.
    ///
    /// # Errors
    /// In words, why it is not.
    pub fn check(&self, max_lag: Duration) -> Result<(), String> {
        match &*self.lock() {
            Phase::Waiting(what) => Err(format!("the projection waits for {what}")),
            Phase::Following(Following { lag: Some(lag), .. }) if lag.age > max_lag => {
                let cause = lag.cause.map_or("", Stage::as_str);
                Err(format!(
                    "the projection is {} events and {} s behind the log, due to: {cause}",
                    lag.events,
                    lag.age.as_secs(),
                ))
            }
            Phase::Following(_) => Ok(()),
            Phase::Stopped(why) => Err(format!("the projection has stopped: {why}")),
        }
    }

    /// How far the projection was behind the log when it was last looked at, at most about a second ago
    /// while the log can be reached; `None` while it is not following the log.
    pub fn lag(&self) -> Option<Lag> {
        match &*self.lock() {
            Phase::Following(following) => following.lag,
            _ => None,
        }
    }

    /// Everything up to here is projected; [`Position::ZERO`] while the projection is not following.
    pub(crate) fn position(&self) -> Position {
        match &*self.lock() {
            Phase::Following(following) => following.projected,
            _ => Position::ZERO,
        }
    }

    /// Where the oldest event is that is not projected, if there is one.
    pub(crate) fn stage_of_oldest(&self) -> Stage {
        match &*self.lock() {
            Phase::Following(following) if following.handed > following.projected => Stage::Write,
            Phase::Following(following) if following.gathered > following.projected => {
                Stage::Decode
            }
            _ => Stage::Log,
        }
    }

    /// How much of the time since `since` was spent waiting for the event at `position`: that for which it
    /// is known to have been in the log. A projector that has all there is waits for nothing.
    pub(crate) fn waited_for(&self, position: Position, since: Instant) -> Duration {
        match &*self.lock() {
            Phase::Following(following) if following.end >= position => {
                since.elapsed().min(following.end_seen.elapsed())
            }
            _ => Duration::ZERO,
        }
    }

    pub(crate) fn waiting(&self, what: &'static str) {
        *self.lock() = Phase::Waiting(what);
    }

    pub(crate) fn following(&self, from: Position) {
        *self.lock() = Phase::Following(Following {
            projected: from,
            gathered: from,
            handed: from,
            end: from,
            end_seen: Instant::now(),
            lag: None,
        });
    }

    /// A batch that begins with this event is being gathered.
    pub(crate) fn gathering(&self, first: Position) {
        self.change(|following| following.gathered = first);
    }

    /// The batch that ends with this event is being written.
    pub(crate) fn writing(&self, last: Position) {
        self.change(|following| following.handed = last);
    }

    pub(crate) fn projected(&self, position: Position) {
        self.change(|following| following.projected = position);
    }

    /// The log was seen to end at `end`, and the projection to be so far behind it.
    pub(crate) fn behind(&self, end: Position, lag: Lag) {
        self.change(|following| {
            if following.end != end {
                following.end = end;
                following.end_seen = Instant::now();
            }
            following.lag = Some(lag);
        });
    }

    pub(crate) fn stopped(&self, why: &str) {
        *self.lock() = Phase::Stopped(why.to_owned());
    }

    fn change(&self, change: impl FnOnce(&mut Following)) {
        if let Phase::Following(following) = &mut *self.lock() {
            change(following);
        }
    }

    /// No change can panic, so that a panic elsewhere can't leave half of one.
    fn lock(&self) -> MutexGuard<'_, Phase> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long ago the log stored an event: by this machine's clock, which may be a little behind the log's.
pub(crate) fn age(stored_at: Timestamp) -> Duration {
    let millis = Timestamp::now().as_millis() - stored_at.as_millis();
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_LAG: Duration = Duration::from_secs(10);

    #[test]
    fn the_oldest_missing_event_is_where_it_was_taken_last() {
        let status = Status::default();
        status.following(Position::new(3));
        assert_eq!(status.stage_of_oldest(), Stage::Log);
        status.gathering(Position::new(4));
        assert_eq!(status.stage_of_oldest(), Stage::Decode);
        status.writing(Position::new(9));
        // The next batch is no older.
        status.gathering(Position::new(10));
        assert_eq!(status.stage_of_oldest(), Stage::Write);
        status.projected(Position::new(9));
        assert_eq!(status.stage_of_oldest(), Stage::Decode);
        status.writing(Position::new(10));
        status.projected(Position::new(10));
        assert_eq!(status.stage_of_oldest(), Stage::Log);
    }

    #[test]
    fn only_what_is_in_the_log_is_waited_for() {
        let status = Status::default();
        status.following(Position::new(3));
        let asked = Instant::now() - Duration::from_secs(1);
        assert_eq!(status.waited_for(Position::new(4), asked), Duration::ZERO);
        // It may have come to the log just before it was seen there.
        status.behind(Position::new(4), Lag::default());
        let waited = status.waited_for(Position::new(4), asked);
        assert!(
            waited < asked.elapsed() - Duration::from_millis(900),
            "{waited:?}"
        );
    }

    #[test]
    fn a_lag_is_unready_beyond_the_limit_and_says_what_it_is_due_to() {
        let status = Status::default();
        status.following(Position::new(3));
        let mut lag = Lag {
            events: 5,
            age: MAX_LAG,
            cause: Some(Stage::Write),
        };
        status.behind(Position::new(8), lag);
        assert_eq!(status.check(MAX_LAG), Ok(()));
        lag.age += Duration::from_secs(1);
        status.behind(Position::new(8), lag);
        assert_eq!(
            status.check(MAX_LAG),
            Err("the projection is 5 events and 11 s behind the log, due to: write".to_owned())
        );
    }
}
