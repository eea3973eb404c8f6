//! Waiting out an outage: trying again, less and less often, and saying what is waited for.

use std::fmt::Display;
use std::time::Duration;

use event_log::LogError;
use read_models::ReadModelError;
use tokio_util::sync::CancellationToken;

use crate::ProjectorError;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);

/// The pauses between attempts: from 50 ms, twice as long each time, up to 2 s.
#[derive(Debug)]
pub(crate) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Backoff {
    pub(crate) async fn pause(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(LONGEST);
    }
}

/// Whether an error may go away by itself.
pub(crate) trait Outage: Display {
    fn is_outage(&self) -> bool;
}

impl Outage for LogError {
    fn is_outage(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

impl Outage for ReadModelError {
    fn is_outage(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

impl Outage for ProjectorError {
    fn is_outage(&self) -> bool {
        match self {
            Self::Log(error) => error.is_outage(),
            Self::ReadModels(error) => error.is_outage(),
            Self::OtherLog { .. } | Self::LogEndsEarly { .. } => false,
        }
    }
}

/// Does `attempt` again for as long as it fails because of an outage. `None` when `stop` is cancelled
/// while waiting; an attempt that was begun is always finished.
pub(crate) async fn wait_for<T, E: Outage, F: Future<Output = Result<T, E>>>(
    what: &'static str,
    stop: &CancellationToken,
    mut attempt: impl FnMut() -> F,
) -> Result<Option<T>, E> {
    let mut backoff = Backoff::default();
    let mut waited = false;
    loop {
        match attempt().await {
            Ok(value) => {
                if waited {
                    tracing::info!("{what}: reached again");
                }
                return Ok(Some(value));
            }
            Err(error) if error.is_outage() => {
                waited = true;
                tracing::warn!(%error, "waiting for {what}");
                tokio::select! {
                    () = stop.cancelled() => return Ok(None),
                    () = backoff.pause() => {}
                }
            }
            Err(error) => return Err(error),
        }
    }
}
