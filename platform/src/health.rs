//! Whether a process can do its work: named checks that `/health/ready` runs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};

/// A check that has not answered by then has failed.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// What a check has come to: what is to be said of it although it is ready, or why it is not.
pub type Outcome = Result<Option<String>, String>;

type Check = Arc<dyn Fn() -> BoxFuture<'static, Outcome> + Send + Sync>;

/// The checks of this process. Clones share them.
#[derive(Clone, Default)]
pub struct Health {
    checks: Arc<Mutex<Vec<(String, Check)>>>,
}

impl Health {
    /// No checks: always ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check, which answers `Err` with the reason while what it checks is not ready. It runs each
    /// time somebody asks, so it must be cheap, and dropping its future must be safe. A check with the
    /// same name is replaced.
    pub fn add<Checking>(
        &self,
        name: impl Into<String>,
        check: impl Fn() -> Checking + Send + Sync + 'static,
    ) where
        Checking: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.add_with_note(name, move || check().map(|outcome| outcome.map(|()| None)));
    }

    /// Adds a check, as [`add`](Self::add) does, that may have something to say although it is ready.
    pub fn add_with_note<Checking>(
        &self,
        name: impl Into<String>,
        check: impl Fn() -> Checking + Send + Sync + 'static,
    ) where
        Checking: Future<Output = Outcome> + Send + 'static,
    {
        let name = name.into();
        let check: Check = Arc::new(move || check().boxed());
        let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        checks.retain(|(other, _)| *other != name);
        checks.push((name, check));
    }

    /// Runs every check at once: each check's name and outcome, in the order in which they were added.
    pub async fn check(&self) -> Vec<(String, Outcome)> {
        let checks = self
            .checks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let running = checks.into_iter().map(|(name, check)| async move {
            let outcome = tokio::time::timeout(CHECK_TIMEOUT, check())
                .await
                .unwrap_or_else(|_| Err("no answer in time".to_owned()));
            (name, outcome)
        });
        join_all(running).await
    }
}
