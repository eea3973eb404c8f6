//! The port to the read models, [`ReadModels`], and its adapters: MongoDB and SQLite.
//!
//! Read models are derived from the log and nothing else. The projector writes them with
//! [`ReadModels::apply`]; queries read them. Both adapters, and the in-memory model in the tests, give the
//! same answers to the same log.

mod mongodb;
mod receipts;
mod sqlite;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use event_log::Incarnation;
use events::{Envelope, MessageId, Position, RoomId, RoomType, Timestamp, UserId, UserType};

pub use crate::mongodb::MongoReadModels;
pub use crate::sqlite::SqliteReadModels;

/// Unread and newly read messages are counted up to this many: more are reported as this many, so that
/// counting costs the same at any history.
pub const COUNT_CAP: u64 = 1_000;

/// How far the projection has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Everything up to and with this position is in the read models.
    pub position: Position,
    /// Which log's position it is.
    pub incarnation: Incarnation,
    /// Grows while a projector is at work, whether or not there are events: a value that stands still
    /// means that none is.
    pub heartbeat: u64,
}

/// A decoded event with its place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the log.
    pub position: Position,
    /// What happened.
    pub envelope: Envelope,
}

/// Consecutive events to project at once.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The log they come from.
    pub incarnation: Incarnation,
    /// The events in log order. Positions that held no usable event are left out.
    pub entries: Vec<Entry>,
    /// Everything up to and with this position is covered by the batch: the checkpoint after it.
    pub up_to: Position,
}

/// An event that could not be projected, set aside so that the projection can go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its place in the log.
    pub position: Position,
    /// Its subject.
    pub subject: String,
    /// Its bytes.
    pub payload: Vec<u8>,
    /// Why it could not be projected.
    pub reason: String,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRow {
    /// The user's id.
    pub id: UserId,
    /// Given name; empty once deleted.
    pub first_name: String,
    /// Family name; empty once deleted.
    pub last_name: String,
    /// What kind of user.
    pub user_type: UserType,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was created or deleted.
    pub updated_at: Timestamp,
    /// Whether it has been deleted.
    pub deleted: bool,
}

/// A room that has not been deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomRow {
    /// The room's id.
    pub id: RoomId,
    /// What kind of conversation.
    pub room_type: RoomType,
    /// The members in ascending order.
    pub members: Vec<UserId>,
}

/// That a member has read a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Who read it.
    pub reader: UserId,
    /// When.
    pub read_at: Timestamp,
}

/// A message that has not been deleted, in a room that has not been deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRow {
    /// The message's id.
    pub id: MessageId,
    /// Its room.
    pub room: RoomId,
    /// Who wrote it.
    pub author: UserId,
    /// The text.
    pub text: String,
    /// When it was posted.
    pub created_at: Timestamp,
    /// Who has read it: the author first, then the others in the order in which they read it (by the log
    /// position of the read, never by a clock).
    pub read_by: Vec<Receipt>,
}

/// A room with its newest message, as the list of recent conversations shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecentRow {
    /// The room.
    pub room: RoomRow,
    /// Its newest message.
    pub message: MessageRow,
    /// How many of its messages the caller has not read: posted by others, after the caller's last read,
    /// not deleted; at most [`COUNT_CAP`].
    pub unread: u64,
}

/// Which part of a list, newest first, is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Where the part begins.
    pub start: PageStart,
    /// How many items at most; 1 to 100.
    pub limit: u32,
}

/// Where a part of a list, newest first, begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageStart {
    /// After this many whole pages from the newest. Deep pages cost more than cursors.
    Number(u64),
    /// The newest items older than this message.
    Before(MessageId),
    /// The oldest items newer than this message.
    After(MessageId),
}

/// What deleting a room did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomDeletion {
    /// How many messages, not deleted before, went with the room.
    pub messages: u64,
}

/// Why an operation on the read models failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadModelError {
    /// They can't be reached or did not answer in time. Trying again may help.
    #[error("the read models are unavailable: {0}")]
    Unavailable(String),
    /// A write was refused for its content: trying again with the same events will not help.
    #[error("the read models refuse a write: {0}")]
    Refused(String),
    /// They are there but are not fit for use: another incarnation's, a newer schema, damaged.
    #[error("the read models are unusable: {0}")]
    Unusable(String),
}

/// The read models.
///
/// Every method may be called from many tasks at once, and dropping a returned future at any moment is
/// safe. A method that finds nothing prepared yet answers as if the log were empty.
#[async_trait]
pub trait ReadModels: Send + Sync + 'static {
    /// Creates what is missing: tables or collections, and indexes. Safe to repeat, also from many
    /// processes at once.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn prepare(&self) -> Result<(), ReadModelError>;

    /// How far the projection has come; `None` before the first batch.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn checkpoint(&self) -> Result<Option<Checkpoint>, ReadModelError>;

    /// Projects a batch and then moves the checkpoint to its end. Repeating a batch, or applying one that
    /// lies before the checkpoint, changes nothing.
    ///
    /// Events in log order mean: a second event with the idempotency key of an earlier one is void; a
    /// timeline event of a room that is unknown or deleted is void; a post or read by someone who is not a
    /// member is void; deleting what is not there does nothing.
    ///
    /// # Errors
    /// [`ReadModelError`]; some of the batch may have been written, the checkpoint has not moved.
    async fn apply(&self, batch: &Batch) -> Result<(), ReadModelError>;

    /// Shows that a projector is at work: moves the checkpoint's heartbeat.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn heartbeat(&self) -> Result<(), ReadModelError>;

    /// Keeps a dead letter. Repeating it changes nothing.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn set_aside(&self, letter: &DeadLetter) -> Result<(), ReadModelError>;

    /// How many dead letters there are.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn dead_letter_count(&self) -> Result<u64, ReadModelError>;

    /// Every user that has not been deleted, in the order of creation in the log.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn users(&self) -> Result<Vec<UserRow>, ReadModelError>;

    /// These users, deleted ones included, in any order; unknown ids are left out.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn users_by_id(&self, ids: &[UserId]) -> Result<Vec<UserRow>, ReadModelError>;

    /// The room, unless unknown or deleted.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn room(&self, id: RoomId) -> Result<Option<RoomRow>, ReadModelError>;

    /// A part of the list of `user`'s rooms that have a message, ordered by their newest message: newest
    /// first, whatever the page's start.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn recent(&self, user: UserId, page: Page) -> Result<Vec<RecentRow>, ReadModelError>;

    /// A part of a room's messages: oldest first, whatever the page's start.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn conversation(&self, room: RoomId, page: Page)
    -> Result<Vec<MessageRow>, ReadModelError>;

    /// How many messages the `conversation.read` event at `position` made read for its reader, not
    /// counting those deleted since; at most [`COUNT_CAP`].
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn newly_read(&self, position: Position) -> Result<u64, ReadModelError>;

    /// Whether the `message.deleted` event at `position` is the one that deleted `message`.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn deleted_by(
        &self,
        message: MessageId,
        position: Position,
    ) -> Result<bool, ReadModelError>;

    /// What the deletion of `room` did; `None` when it has not been deleted.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn room_deletion(&self, room: RoomId) -> Result<Option<RoomDeletion>, ReadModelError>;

    /// The position of the first event with this deduplication id, made from actor and idempotency key.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn position_of_key(
        &self,
        deduplication_id: uuid::Uuid,
    ) -> Result<Option<Position>, ReadModelError>;
}

/// Where read models are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadModelsUrl {
    /// A file, absolute or relative to the data directory.
    Sqlite(PathBuf),
    /// A database on a MongoDB server: the connection string as given, which names the database.
    MongoDb(String),
}

/// Opens the read models at `url`. A SQLite file is opened or created; MongoDB is first contacted when it
/// is used, so that a process can start before it.
///
/// # Errors
/// [`ReadModelError`].
pub async fn open(
    url: &ReadModelsUrl,
    data_dir: &Path,
) -> Result<Arc<dyn ReadModels>, ReadModelError> {
    match url {
        ReadModelsUrl::Sqlite(path) => {
            Ok(Arc::new(SqliteReadModels::open(&data_dir.join(path)).await?))
        }
        ReadModelsUrl::MongoDb(url) => Ok(Arc::new(MongoReadModels::open(url).await?)),
    }
}
