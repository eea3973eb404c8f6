//! What a script tells its test, wherever it runs: JSON values, one after the other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::wait::eventually;

/// How long something may take that a script must say or do.
pub(crate) const SAID: Duration = Duration::from_secs(30);

/// All that was said. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Transcript(Arc<Mutex<Heard>>);

#[derive(Debug, Default)]
struct Heard {
    said: Vec<Value>,
    /// How many of them [`Transcript::next`] has gone past.
    passed: usize,
}

impl Transcript {
    pub(crate) fn add(&self, value: Value) {
        self.lock().said.push(value);
    }

    /// All that has been said so far.
    pub(crate) fn all(&self) -> Vec<Value> {
        self.lock().said.clone()
    }

    /// The next thing that matches; what was said before that is passed over. `ended` says whether
    /// nothing more will be said.
    ///
    /// # Panics
    /// It is not said in time, or nothing more will be; the text says that `what` was waited for.
    pub(crate) async fn next(
        &self,
        what: &str,
        mut ended: impl FnMut() -> bool,
        matches: impl Fn(&Value) -> bool,
    ) -> Value {
        eventually(what, SAID, || {
            // Looked at before what was said: after its end nothing comes.
            let ended = ended();
            let found = self.pass(&matches);
            assert!(found.is_some() || !ended, "{what}: the script has ended");
            std::future::ready(found)
        })
        .await
    }

    fn pass(&self, matches: impl Fn(&Value) -> bool) -> Option<Value> {
        let mut heard = self.lock();
        while let Some(value) = heard.said.get(heard.passed).cloned() {
            heard.passed += 1;
            if matches(&value) {
                return Some(value);
            }
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
