//! How a projector is doing, for health checks and metrics.

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
    Following { projected: Position, lag: Lag },
    Stopped(String),
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
    pub fn report_to(&self, health: &Health) {
        let status = self.clone();
        health.add("projection", move || std::future::ready(status.check()));
    }

    /// Whether the projection is at work and close behind the log.
    ///
    /// # Errors
    /// In words, why it is not.
    pub fn check(&self) -> Result<(), String> {
        match &*self.lock() {
            Phase::Waiting(what) => Err(format!("the projection waits for {what}")),
            Phase::Following { lag, .. } if lag.age > LARGEST_HEALTHY_LAG => Err(format!(
                "the projection is {} events and {} s behind the log",
                lag.events,
                lag.age.as_secs()
            )),
            Phase::Following { .. } => Ok(()),
            Phase::Stopped(why) => Err(format!("the projection has stopped: {why}")),
        }
    }

    /// How far the projection was behind the log when it was last looked at, at most about a second ago;
    /// `None` while it is not following the log.
    pub fn lag(&self) -> Option<Lag> {
        match &*self.lock() {
            Phase::Following { lag, .. } => Some(*lag),
            _ => None,
        }
    }

    /// Everything up to here is projected; [`Position::ZERO`] while the projection is not following.
    pub(crate) fn position(&self) -> Position {
        match &*self.lock() {
            Phase::Following { projected, .. } => *projected,
            _ => Position::ZERO,
        }
    }

    pub(crate) fn waiting(&self, what: &'static str) {
        *self.lock() = Phase::Waiting(what);
    }

    pub(crate) fn following(&self, from: Position) {
        *self.lock() = Phase::Following {
            projected: from,
            lag: Lag::default(),
        };
    }

    pub(crate) fn projected(&self, position: Position) {
        if let Phase::Following { projected, .. } = &mut *self.lock() {
            *projected = position;
        }
    }

    pub(crate) fn behind(&self, now: Lag) {
        if let Phase::Following { lag, .. } = &mut *self.lock() {
            *lag = now;
        }
    }

    pub(crate) fn stopped(&self, why: &str) {
        *self.lock() = Phase::Stopped(why.to_owned());
    }

    /// Each change is one assignment, so that a panic elsewhere can't leave half of one.
    fn lock(&self) -> MutexGuard<'_, Phase> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
