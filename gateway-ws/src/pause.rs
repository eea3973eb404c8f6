//! How long to wait before the log is asked again.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);

/// A pause that grows with each use.
pub struct Pause(Duration);

impl Pause {
    /// A pause that is short at first.
    pub fn new() -> Self {
        Self(FIRST)
    }

    /// Waits, and longer the next time.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(LONGEST);
    }
}
