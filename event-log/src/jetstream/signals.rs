//! Signals by plain NATS messages, on a subject of the stream's own that no stream keeps.

use std::time::Duration;

use async_nats::Subscriber;
use async_trait::async_trait;
use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream};
use tokio::task::unconstrained;

use super::JetStreamLog;
use super::connection::MissWatch;
use crate::signals::check_size;
use crate::{Listening, LogError, Signal, Signals};

/// How long a signal waits for a place in the queue to the server.
const SEND_PATIENCE: Duration = Duration::from_millis(100);

/// The subject of the signals of those who use this stream.
pub(super) fn subject_of(stream: &str) -> String {
    format!("hansard.signals.{stream}")
}

/// Signals among all that are connected to the stream's servers.
pub(super) struct NatsSignals {
    log: JetStreamLog,
    subject: String,
}

impl NatsSignals {
    pub(super) fn new(log: &JetStreamLog) -> Self {
        Self {
            log: log.clone(),
            subject: subject_of(&log.address.stream),
        }
    }
}

#[async_trait]
impl Signals for NatsSignals {
    async fn send(&self, signal: Bytes) -> Result<(), LogError> {
        check_size(&signal)?;
        let connection = &self.log.connection;
        connection
            .publish(&self.subject, signal, SEND_PATIENCE)
            .await
    }

    async fn listen(&self) -> Result<Listening, LogError> {
        let (messages, misses) = self.log.connection.subscribe(&self.subject).await?;
        // A server takes requests in order: when it answers this one, it knows the subscription.
        self.log.existing_info().await?;
        let listener = Listener { messages, misses };
        let signals = stream::unfold(listener, |mut listener| async {
            let signal = listener.next().await?;
            Some((signal, listener))
        });
        Ok(signals.boxed())
    }
}

struct Listener {
    messages: Subscriber,
    misses: MissWatch,
}

impl Listener {
    async fn next(&mut self) -> Option<Signal> {
        tokio::select! {
            biased;
            () = self.misses.missed() => {
                // What has piled up is out of date, and to go through it would be to fall behind again.
                while let Some(Some(_)) = unconstrained(self.messages.next()).now_or_never() {}
                tracing::warn!("signals of other processes may have been missed");
                Some(Signal::Missed)
            }
            message = self.messages.next() => Some(Signal::Sent(message?.payload)),
        }
    }
}
