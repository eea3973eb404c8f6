//! Waiting for what happens in other processes.

use std::future::Future;
use std::time::{Duration, Instant};

use xtask::process::POLL;

/// Tries until there is something, and gives it.
///
/// # Panics
/// There is nothing by the deadline; the text says that `what` was waited for.
pub async fn eventually<T, F>(what: &str, deadline: Duration, mut attempt: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = attempt().await {
            return found;
        }
        assert!(
            Instant::now() < end,
            "{what}: not within {} ms",
            deadline.as_millis()
        );
        tokio::time::sleep(POLL).await;
    }
}

/// Waits for `future`.
///
/// # Panics
/// It is not done by the deadline; the text says that `what` was waited for.
pub async fn within<T>(what: &str, deadline: Duration, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(deadline, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {} ms", deadline.as_millis()),
    }
}
