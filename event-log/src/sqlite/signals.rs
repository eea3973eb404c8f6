//! Signals beside an SQLite log: within this process, among those who share one opened log.
//!
//! Several processes may share the file, but they don't hear each other's signals.

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::sync::broadcast::{self, error::RecvError};

use crate::signals::check_size;
use crate::{Listening, LogError, Signal, Signals};

/// How many signals are kept for a listener that is behind.
const CAPACITY: usize = 4_096;

/// Signals within this process.
pub(super) struct LocalSignals {
    sender: broadcast::Sender<Bytes>,
}

impl LocalSignals {
    pub(super) fn new() -> Self {
        Self {
            sender: broadcast::Sender::new(CAPACITY),
        }
    }
}

#[async_trait]
impl Signals for LocalSignals {
    async fn send(&self, signal: Bytes) -> Result<(), LogError> {
        check_size(&signal)?;
        // An error means that nobody listens.
        let _ = self.sender.send(signal);
        Ok(())
    }

    async fn listen(&self) -> Result<Listening, LogError> {
        let signals = stream::unfold(self.sender.subscribe(), |mut receiver| async {
            let signal = match receiver.recv().await {
                Ok(signal) => Signal::Sent(signal),
                Err(RecvError::Lagged(_)) => {
                    // What has piled up is out of date, and to go through it would be to fall behind
                    // again with the very next signal.
                    receiver = receiver.resubscribe();
                    Signal::Missed
                }
                Err(RecvError::Closed) => return None,
            };
            Some((signal, receiver))
        });
        Ok(signals.boxed())
    }
}
