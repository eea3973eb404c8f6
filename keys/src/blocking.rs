//! Work that blocks, beside the runtime.

use crate::KeyError;

/// Runs `work` on a thread that may block. It goes on when the future is dropped.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KeyError> + Send + 'static,
) -> Result<T, KeyError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(KeyError::Unavailable(format!(
            "work on them was cut short: {error}"
        ))),
    }
}
