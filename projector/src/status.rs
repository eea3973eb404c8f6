//! How a projector is doing, for health checks and metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use event_log::Position;
use platform::health::Health;

/// A projection that is further behind than this is reported as not ready.
const LARGEST_HEALTHY_LAG: Duration = Duration::from_secs(10);

/// How far the projection is behind the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lag {
    /// How many events are not projected yet.
    pub events: u64,
    /// How long ago the oldest of them was stored; zero when there is none.
    pub age: Duration,
}

#[derive(Debug)]
enum Phase {
    Waiting(&'static str),
    StandingBy { leader: String },
    Following { projected: Position, lag: Lag },
    Stopped(String),
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
}

impl Shared {
    fn served(&self) -> &Phase {
        self.phases
            .get(&self.served)
            .unwrap_or(&Phase::Waiting("its start"))
    }
}

impl Status {
    /// Adds the check `projection` to a process's health checks.
    pub fn report_to(&self, health: &Health) {
        let status = self.clone();
        health.add("projection", move || std::future::ready(status.check()));
    }

    /// Whether the projection is at work and close behind the log.
    ///
    /// # Errors
    /// In words, why it is not.
    pub fn check(&self) -> Result<(), String> {
        match self.lock().served() {
            Phase::Waiting(what) => Err(format!("the projection waits for {what}")),
            Phase::Following { lag, .. } if lag.age > LARGEST_HEALTHY_LAG => Err(format!(
                "the projection is {} events and {} s behind the log",
                lag.events,
                lag.age.as_secs()
            )),
            Phase::Following { .. } | Phase::StandingBy { .. } => Ok(()),
            Phase::Stopped(why) => Err(format!("the projection has stopped: {why}")),
        }
    }

    /// How far the projection was behind the log when it was last looked at, at most about a second ago;
    /// `None` while it is not following the log.
    pub fn lag(&self) -> Option<Lag> {
        match self.lock().served() {
            Phase::Following { lag, .. } => Some(*lag),
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

    /// Everything up to here is projected; [`Position::ZERO`] while the projection is not following.
    pub(crate) fn position(&self) -> Position {
        match self.lock().phases.get(&self.number) {
            Some(Phase::Following { projected, .. }) => *projected,
            _ => Position::ZERO,
        }
    }

    pub(crate) fn waiting(&self, what: &'static str) {
        self.set(Phase::Waiting(what));
    }

    pub(crate) fn standing_by(&self, leader: &str) {
        self.set(Phase::StandingBy {
            leader: leader.to_owned(),
        });
    }

    pub(crate) fn following(&self, from: Position) {
        self.set(Phase::Following {
            projected: from,
            lag: Lag::default(),
        });
    }

    pub(crate) fn projected(&self, position: Position) {
        let mut shared = self.lock();
        if let Some(Phase::Following { projected, .. }) = shared.phases.get_mut(&self.number) {
            *projected = position;
        }
    }

    pub(crate) fn behind(&self, now: Lag) {
        let mut shared = self.lock();
        if let Some(Phase::Following { lag, .. }) = shared.phases.get_mut(&self.number) {
            *lag = now;
        }
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

    /// Each change is one assignment, so that a panic elsewhere can't leave half of one.
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
