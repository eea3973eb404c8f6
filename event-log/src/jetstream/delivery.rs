//! Reading the stream in order, by a consumer of its own.
//!
//! This is what async-nats's ordered consumer does, with two differences: a loss of any kind ends it with
//! an error at once (the ordered consumer ignores a first missed heartbeat, and one that is renewed
//! before its first message begins at the stream's beginning), and nothing is ever delivered twice.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, ReplayPolicy, pull};
use async_nats::jetstream::{self, Message};
use events::Position;
use futures::{StreamExt, stream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use uuid::Uuid;

use super::connection::{Connection, LossWatch};
use super::timestamp;
use crate::{Events, LogError, MAX_EVENT_BYTES, Recorded};

/// How many events the server sends ahead.
const BATCH: usize = 1_000;

/// How many bytes the server sends ahead to who follows.
const BATCH_BYTES: usize = 16 << 20;

/// The same for a read, of which there are many at once: they share one connection, in which everything
/// else waits behind what was sent ahead, and what a client that leaves has not taken is thrown away. The
/// server sends nothing that is larger than all of it.
const READ_BATCH_BYTES: usize = 2 << 20;
const _: () = assert!(MAX_EVENT_BYTES + (64 << 10) < READ_BATCH_BYTES);

/// How often the server says that it is there while there is nothing to send. After two times this long
/// without a sign the delivery ends with an error.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// How long the server waits for events before the request for them is renewed.
const EXPIRES: Duration = Duration::from_secs(30);

/// How long the server keeps a consumer that nobody reads from. A reader may be slow; what has gone away
/// deletes its consumer.
const INACTIVE: Duration = Duration::from_secs(300);

/// How long anything around a consumer may take.
const SETUP_TIMEOUT: Duration = Duration::from_secs(4);

/// Events as they come from the server.
pub(super) struct Delivery {
    connection: Connection,
    watch: LossWatch,
    messages: pull::Stream,
    _consumer: Temporary,
    /// How many events came, as the consumer counts them: a gap in this count is a loss.
    delivered: u64,
    last: Position,
    pending: u64,
}

impl Delivery {
    /// Begins after `after`, with the events of `subjects`, or all where there are none. `turn` is given
    /// back once the server has been rid of the consumer.
    pub(super) async fn start(
        connection: &Connection,
        stream: &str,
        subjects: Vec<String>,
        after: Position,
        turn: Option<OwnedSemaphorePermit>,
    ) -> Result<Self, LogError> {
        let batch_bytes = match turn {
            Some(_) => READ_BATCH_BYTES,
            None => BATCH_BYTES,
        };
        let watch = connection.ready().await?;
        let context = connection.context();
        // There before the consumer is, so that none is left behind if this is dropped meanwhile.
        let temporary = Temporary {
            context: context.clone(),
            stream: stream.to_owned(),
            name: format!("hansard-{}", Uuid::new_v4().simple()),
            turn,
        };
        let config = pull::Config {
            name: Some(temporary.name.clone()),
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: after.next().get(),
            },
            filter_subjects: subjects,
            ack_policy: AckPolicy::None,
            replay_policy: ReplayPolicy::Instant,
            max_deliver: 1,
            inactive_threshold: INACTIVE,
            num_replicas: 1,
            memory_storage: true,
            ..pull::Config::default()
        };
        let setup = async {
            let consumer: Consumer<pull::Config> = context
                .create_consumer_on_stream(config, stream)
                .await
                .map_err(|error| error.to_string())?;
            let messages = consumer
                .stream()
                .max_messages_per_batch(BATCH)
                .max_bytes_per_batch(batch_bytes)
                .expires(EXPIRES)
                .heartbeat(HEARTBEAT)
                .messages()
                .await
                .map_err(|error| error.to_string())?;
            Ok::<_, String>(messages)
        };
        let messages = timeout(SETUP_TIMEOUT, setup)
            .await
            .unwrap_or_else(|_| Err("no answer in time".to_owned()))
            .map_err(|reason| connection.unavailable(&reason))?;
        Ok(Self {
            connection: connection.clone(),
            watch,
            messages,
            _consumer: temporary,
            delivered: 0,
            last: after,
            pending: u64::MAX,
        })
    }

    /// Every event, for ever.
    pub(super) fn events(self) -> Events {
        stream::unfold(Some(self), |delivery| async {
            let mut delivery = delivery?;
            match delivery.next().await {
                Ok(event) => Some((Ok(event), Some(delivery))),
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }

    /// Whether, as the server has it, nothing more is there for now. A hint: see what is there.
    pub(super) fn seems_complete(&self) -> bool {
        self.pending == 0
    }

    /// The next event. May be dropped while it waits.
    pub(super) async fn next(&mut self) -> Result<Recorded, LogError> {
        let message = tokio::select! {
            biased;
            message = self.messages.next() => message,
            () = self.watch.lost() => {
                return Err(self.connection.unavailable("the connection was lost"));
            }
        };
        match message {
            Some(Ok(message)) => self.check(message),
            Some(Err(error)) => Err(self.connection.unavailable(&error.to_string())),
            None => Err(self.connection.unavailable("the delivery ended")),
        }
    }

    /// Makes sure that the message is the one that comes next.
    fn check(&mut self, message: Message) -> Result<Recorded, LogError> {
        let (position, delivered, pending, stored_at) = {
            let info = message
                .info()
                .map_err(|error| self.connection.unavailable(&error.to_string()))?;
            (
                Position::new(info.stream_sequence),
                info.consumer_sequence,
                info.pending,
                timestamp(info.published.unix_timestamp_nanos()),
            )
        };
        if delivered != self.delivered + 1 || position <= self.last {
            return Err(self.connection.unavailable("events were lost on the way"));
        }
        self.delivered = delivered;
        self.last = position;
        self.pending = pending;
        Ok(Recorded {
            position,
            subject: message.subject.to_string(),
            stored_at,
            payload: message.message.payload,
        })
    }
}

/// A consumer on the server, deleted when it is dropped.
struct Temporary {
    context: jetstream::Context,
    stream: String,
    name: String,
    /// The turn of the read that it serves, if it is one that has to wait for its turn.
    turn: Option<OwnedSemaphorePermit>,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return; // The server deletes it by itself, later.
        };
        let context = self.context.clone();
        let (stream, name) = (self.stream.clone(), self.name.clone());
        let turn = self.turn.take();
        runtime.spawn(async move {
            let deleting = context.delete_consumer_from_stream(&name, &stream);
            // Should it fail, the server deletes it by itself, later.
            let _ = timeout(SETUP_TIMEOUT, deleting).await;
            drop(turn);
        });
    }
}
