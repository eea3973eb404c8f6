//! How a projector is doing, for health checks and metrics.

use std::collections::BTreeMap;
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
    StandingBy { leader: String },
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
#[derive(Debug, Clone, Default)]
pub struct Status {
    shared: Arc<Mutex<Shared>>,
    /// The generation that is reported of through this clone.
    number: u32,
}

#[derive(Debug, Default)]
struct Shared {
    /// By generation.
    phases: BTreeMap<u32, Phase>,
    /// The generation that is served: it is the one that counts.
    served: u32,
    /// How many dead letters it has.
    dead_letters: u64,
}

impl Shared {
    fn served(&self) -> &Phase {
        self.phases
            .get(&self.served)
            .unwrap_or(&Phase::Waiting("its start"))
    }
}

impl Status {
    /// Adds the checks `projection` and `deadLetters` to a process's health checks. Dead letters are told
    /// and make nothing unready: everything else goes on.
    pub fn report_to(&self, health: &Health, max_lag: Duration) {
        let status = self.clone();
        health.add("projection", move || {
            std::future::ready(status.check(max_lag))
        });
        let status = self.clone();
        health.add_with_note("deadLetters", move || {
            let note = match status.dead_letters() {
                0 => None,
                1 => Some("1 event could not be projected: see `hansard dead-letters`".to_owned()),
                many => Some(format!(
                    "{many} events could not be projected: see `hansard dead-letters`"
                )),
            };
            std::future::ready(Ok(note))
        });
    }

    /// How many events could not be projected, when that was last looked at.
    pub fn dead_letters(&self) -> u64 {
        self.lock().dead_letters
    }

    /// Whether the projection is at work and no further behind the log than `max_lag`.
    ///
    /// # Errors
    /// In words, why it is not.
    pub fn check(&self, max_lag: Duration) -> Result<(), String> {
        match self.lock().served() {
            Phase::Waiting(what) => Err(format!("the projection waits for {what}")),
            Phase::Following(Following { lag: Some(lag), .. }) if lag.age > max_lag => {
                let cause = lag.cause.map_or("", Stage::as_str);
                Err(format!(
                    "the projection is {} events and {} s behind the log, due to: {cause}",
                    lag.events,
                    lag.age.as_secs(),
                ))
            }
            Phase::Following(_) | Phase::StandingBy { .. } => Ok(()),
            Phase::Stopped(why) => Err(format!("the projection has stopped: {why}")),
        }
    }

    /// How far the projection was behind the log when it was last looked at, at most about a second ago
    /// while the log can be reached; `None` while it is not following the log.
    pub fn lag(&self) -> Option<Lag> {
        match self.lock().served() {
            Phase::Following(following) => following.lag,
            _ => None,
        }
    }

    /// Who leads the projection, when that is another projector and this one stands by.
    pub fn leader(&self) -> Option<String> {
        match self.lock().served() {
            Phase::StandingBy { leader } => Some(leader.clone()),
            _ => None,
        }
    }

    /// To report of this generation.
    pub(crate) fn of(&self, number: u32) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            number,
        }
    }

    /// This generation is the one that counts.
    pub(crate) fn serve(&self, number: u32) {
        self.lock().served = number;
    }

    /// As [`lag`](Self::lag), of the generation that is reported of here.
    pub(crate) fn own_lag(&self) -> Option<Lag> {
        self.with(|following| following.lag).flatten()
    }

    /// Everything up to here is projected; [`Position::ZERO`] while the projection is not following.
    pub(crate) fn position(&self) -> Position {
        self.with(|following| following.projected)
            .unwrap_or(Position::ZERO)
    }

    /// Whether the generation that is reported of here is the one that counts.
    pub(crate) fn is_served(&self) -> bool {
        self.lock().served == self.number
    }

    /// Where the oldest event is that is not projected, if there is one.
    pub(crate) fn stage_of_oldest(&self) -> Stage {
        let stage = self.with(|following| {
            if following.handed > following.projected {
                Stage::Write
            } else if following.gathered > following.projected {
                Stage::Decode
            } else {
                Stage::Log
            }
        });
        stage.unwrap_or(Stage::Log)
    }

    /// How much of the time since `since` was spent waiting for the event at `position`: that for which it
    /// is known to have been in the log. A projector that has all there is waits for nothing.
    pub(crate) fn waited_for(&self, position: Position, since: Instant) -> Duration {
        let waited = self.with(|following| {
            let known = following.end >= position;
            known.then(|| since.elapsed().min(following.end_seen.elapsed()))
        });
        waited.flatten().unwrap_or(Duration::ZERO)
    }

    /// It waits for `what` before it can begin. Who has stood by goes on as such until it follows the log:
    /// taking over is no moment of being unready.
    pub(crate) fn waiting(&self, what: &'static str) {
        let mut shared = self.lock();
        let phase = shared.phases.get(&self.number);
        if !matches!(phase, Some(Phase::StandingBy { .. })) {
            shared.phases.insert(self.number, Phase::Waiting(what));
        }
    }

    pub(crate) fn standing_by(&self, leader: &str) {
        self.set(Phase::StandingBy {
            leader: leader.to_owned(),
        });
    }

    pub(crate) fn following(&self, from: Position) {
        self.set(Phase::Following(Following {
            projected: from,
            gathered: from,
            handed: from,
            end: from,
            end_seen: Instant::now(),
            lag: None,
        }));
    }

    /// A batch that begins with this event is being gathered.
    pub(crate) fn gathering(&self, first: Position) {
        self.with(|following| following.gathered = first);
    }

    /// The batch that ends with this event is being written.
    pub(crate) fn writing(&self, last: Position) {
        self.with(|following| following.handed = last);
    }

    pub(crate) fn projected(&self, position: Position) {
        self.with(|following| following.projected = position);
    }

    /// The log was seen to end at `end`, and the projection to be so far behind it.
    pub(crate) fn behind(&self, end: Position, lag: Lag) {
        self.with(|following| {
            if following.end != end {
                following.end = end;
                following.end_seen = Instant::now();
            }
            following.lag = Some(lag);
        });
    }

    /// The generation that counts has so many dead letters.
    pub(crate) fn set_aside(&self, dead_letters: u64) {
        self.lock().dead_letters = dead_letters;
    }

    /// The whole projector has stopped.
    pub(crate) fn stopped(&self, why: &str) {
        let mut shared = self.lock();
        let served = shared.served;
        shared.phases.insert(served, Phase::Stopped(why.to_owned()));
    }

    fn set(&self, phase: Phase) {
        self.lock().phases.insert(self.number, phase);
    }

    /// Does something with what is known of the generation that is reported of here, while it follows the
    /// log.
    fn with<T>(&self, work: impl FnOnce(&mut Following) -> T) -> Option<T> {
        match self.lock().phases.get_mut(&self.number) {
            Some(Phase::Following(following)) => Some(work(following)),
            _ => None,
        }
    }

    /// No change can panic, so that a panic elsewhere can't leave half of one.
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn taking_over_is_no_moment_of_being_unready() {
        let status = Status::default();
        assert!(status.check(MAX_LAG).is_err());
        status.waiting("the log");
        assert!(status.check(MAX_LAG).is_err());
        status.standing_by("another");
        assert_eq!(status.check(MAX_LAG), Ok(()));
        status.waiting("the log");
        assert_eq!(status.check(MAX_LAG), Ok(()));
        status.following(Position::new(3));
        assert_eq!(status.check(MAX_LAG), Ok(()));
        assert_eq!(status.leader(), None);
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
