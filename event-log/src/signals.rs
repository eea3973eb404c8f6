//! Signals: short-lived messages between the processes of one deployment, for what is not worth an event,
//! like who is typing. They are never kept.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::LogError;

/// The largest signal in bytes.
pub const MAX_SIGNAL_BYTES: usize = 256 << 10;

/// What a listener hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// Somebody sent this, perhaps this process itself.
    Sent(Bytes),
    /// Signals may have been missed up to here: the listener fell behind, or the connection was lost and
    /// is back. What this process sends from now on, and what others answer to it, is heard.
    Missed,
}

/// Signals as they come, for ever.
pub type Listening = BoxStream<'static, Signal>;

/// The way for signals to all processes of the deployment, this one included.
///
/// A signal arrives at most once. Those of one sender arrive in the order in which they were sent; between
/// senders there is no order.
#[async_trait]
pub trait Signals: Send + Sync + 'static {
    /// Sends a signal to whoever listens, and does not wait for it to arrive. Returns within a moment: a
    /// signal that can't be sent now is dropped.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] when it was dropped; [`LogError::TooLarge`] beyond [`MAX_SIGNAL_BYTES`].
    async fn send(&self, signal: Bytes) -> Result<(), LogError>;

    /// Listens from now on: once this returns, what is sent is heard. The stream survives lost
    /// connections, and says [`Signal::Missed`] wherever signals may be missing. Should be read without
    /// delay.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn listen(&self) -> Result<Listening, LogError>;
}

/// Refuses a signal that is too large.
pub(crate) fn check_size(signal: &Bytes) -> Result<(), LogError> {
    let size = signal.len();
    if size > MAX_SIGNAL_BYTES {
        return Err(LogError::TooLarge { size });
    }
    Ok(())
}
