//! The port to the event log, [`EventLog`], and its adapters: NATS JetStream and SQLite.
//!
//! The log is an append-only sequence of events, each at a [`Position`], in one total order. This crate
//! moves bytes: what an event means is the business of [`events`].

pub mod durable;
mod follower;
mod jetstream;
mod rooms;
mod signals;
mod sqlite;
pub mod sqlite_file;
#[cfg(feature = "testing")]
pub mod testing;
mod url;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use events::{DataKey, Envelope, RoomId, Subject, Timestamp, UserId};
use futures::stream::BoxStream;
use uuid::Uuid;

pub use events::{Expect, Position};
pub use follower::{Followed, follow_forever};
pub use jetstream::{JetStreamLog, NatsConnection, api::code as jetstream_code};
pub use signals::{Listening, MAX_SIGNAL_BYTES, Signal, Signals};
pub use sqlite::SqliteLog;
pub use url::{Credentials, DEFAULT_STREAM, InvalidLogUrl, LogUrl, NatsAddress};

/// The largest payload in bytes that any log takes. A NATS server's own limit (`max_payload`, 1 MiB by
/// default) covers the headers too, so this stays a little below it.
pub const MAX_EVENT_BYTES: usize = 1_000_000;

/// An event to append.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// The history it belongs to.
    pub subject: Subject,
    /// The id under which a repeated append of the same event is recognised.
    pub deduplication_id: Uuid,
    /// The event's bytes.
    pub payload: Bytes,
}

impl NewEvent {
    /// The event, with its personal texts sealed with `keys`: those of [`Envelope::key_ids`], in that order.
    pub fn sealed(envelope: &Envelope, keys: &[DataKey]) -> Self {
        Self {
            subject: envelope.event.subject(),
            deduplication_id: envelope.deduplication_id(),
            payload: envelope.encode(keys).into(),
        }
    }
}

/// Where an append put its event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The event's position; with `duplicate` that of the first append with the same deduplication id,
    /// which may be on another subject.
    pub position: Position,
    /// Whether an earlier append with the same deduplication id had already put it there, so that this
    /// one added nothing.
    pub duplicate: bool,
}

/// An event as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Where it stands.
    pub position: Position,
    /// Its subject, as text: the log may hold what this version of Hansard does not know.
    pub subject: String,
    /// When the log stored it, by the log's clock.
    pub stored_at: Timestamp,
    /// The event's bytes.
    pub payload: Bytes,
}

/// Which events to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// Every event.
    All,
    /// The creation and deletion of users and rooms, without what happens inside rooms.
    Lifecycles,
    /// The legal holds of all rooms.
    Holds,
    /// One room's lifecycle, timeline, legal holds and retention.
    Room(RoomId),
    /// The same of these rooms, merged in log order. A room may be named twice; no
    /// rooms, no events.
    Rooms(Arc<[RoomId]>),
    /// One user's creation, deletion and erasure.
    User(UserId),
}

/// The state of the whole log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    /// Which log this is. Another log, or the same one made anew, has another.
    pub incarnation: Incarnation,
    /// The position of the last event; [`Position::ZERO`] when there is none.
    pub last: Position,
}

/// The identity of a log, fixed when it was created: positions of different incarnations have nothing to
/// do with each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Incarnation(pub String);

/// Why an operation on the log failed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The subject was not as expected. Nothing was appended.
    #[error("the subject has changed: it was expected to be {0}")]
    Conflict(ExpectText),
    /// The event is larger than the log takes. Nothing was appended.
    #[error("an event of {size} bytes is larger than the log takes")]
    TooLarge {
        /// The event's size in bytes.
        size: usize,
    },
    /// The log can't be reached or did not answer in time. An append may or may not have happened;
    /// repeating it with the same deduplication id is safe.
    #[error("the log is unavailable: {0}")]
    Unavailable(String),
    /// The log is there but is not fit for use: wrong settings, damaged, not a log.
    #[error("the log is unusable: {0}")]
    Unusable(String),
}

/// [`Expect`] in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpectText(pub Expect);

impl std::fmt::Display for ExpectText {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Expect::Any => formatter.write_str("anything"),
            Expect::Empty => formatter.write_str("empty"),
            Expect::Exact(position) => write!(formatter, "at {position}"),
            Expect::Beside(other, position) => {
                write!(formatter, "appended to while {other} is at {position}")
            }
        }
    }
}

/// Events in log order, or the error that ended the reading.
pub type Events = BoxStream<'static, Result<Recorded, LogError>>;

/// The event log.
///
/// Every method may be called from many tasks at once. Dropping a returned future or stream at any moment
/// is safe; an append whose future is dropped may or may not happen.
#[async_trait]
pub trait EventLog: Send + Sync + 'static {
    /// Appends one event if its subject is as expected, and returns once it is durable.
    ///
    /// A time-out or conflict is not taken at face value: the adapter looks whether its own append had
    /// landed before it reports a failure.
    ///
    /// # Errors
    /// [`LogError::Conflict`], [`LogError::TooLarge`], [`LogError::Unavailable`].
    async fn append(&self, event: NewEvent, expect: Expect) -> Result<Appended, LogError>;

    /// The events after `after` that match, in order, up to the end of the log at the time of the call.
    ///
    /// A server bears a limited number of reads at once: the others wait for their turn, which ends when
    /// the stream has ended or is dropped. So read without long pauses, and don't begin a read in the
    /// middle of another.
    ///
    /// # Errors
    /// [`LogError::Unavailable`], at once or as the stream's last item.
    async fn read(&self, filter: Filter, after: Position) -> Result<Events, LogError>;

    /// The events after `after` that match, in order and without gap or duplicate, for ever: first what
    /// is there, then each new one as it is appended, by whatever process.
    ///
    /// # Errors
    /// [`LogError::Unavailable`], at once or as the stream's last item; follow again from the last
    /// position seen.
    async fn follow(&self, filter: Filter, after: Position) -> Result<Events, LogError>;

    /// The event at a position; `None` when there is none.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn get(&self, position: Position) -> Result<Option<Recorded>, LogError>;

    /// The last event of a subject; `None` when it has none.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn last_of(&self, subject: Subject) -> Result<Option<Recorded>, LogError>;

    /// The log's identity and end.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn tail(&self) -> Result<Tail, LogError>;

    /// Whether an acknowledged append survives a power loss: `Ok(())`, or the reason why it may not.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] when the log can't be asked.
    async fn durability(&self) -> Result<Result<(), String>, LogError>;

    /// The way for short-lived messages between the processes that share this log. Beside an SQLite log
    /// it reaches those in this process only that share this opened log.
    fn signals(&self) -> Arc<dyn Signals>;
}

/// Opens the log at `url`, creating it if it does not exist: `sqlite:PATH` (relative paths are relative
/// to `data_dir`) or `nats://[USER:PASSWORD@]HOST[:PORT][,HOST...][/STREAM]`.
///
/// # Errors
/// The log can't be reached ([`LogError::Unavailable`]; try again) or used ([`LogError::Unusable`]).
pub async fn open(url: &LogUrl, data_dir: &Path) -> Result<Arc<dyn EventLog>, LogError> {
    match url {
        LogUrl::Sqlite(path) => Ok(Arc::new(SqliteLog::open(&data_dir.join(path)).await?)),
        LogUrl::Nats(address) => Ok(Arc::new(JetStreamLog::open(address).await?)),
    }
}

/// What every adapter's append has in common: the size limit and the measurement.
async fn append_measured<F>(event: &NewEvent, append: F) -> Result<Appended, LogError>
where
    F: Future<Output = Result<Appended, LogError>>,
{
    let size = event.payload.len();
    if size > MAX_EVENT_BYTES {
        return Err(LogError::TooLarge { size });
    }
    let begun = Instant::now();
    let result = append.await;
    metrics::histogram!("hansard_append_seconds").record(begun.elapsed());
    result
}
