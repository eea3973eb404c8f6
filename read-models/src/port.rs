//! The ports themselves: [`ReadModels`], which is read, [`Projection`], which is one generation of them and
//! is written, and their errors.

use std::time::Duration;

use async_trait::async_trait;
use events::{MessageId, Position, RoomId, RoomType, Timestamp, UserId};

use crate::{
    Batch, Checkpoint, ConversationRow, DeadLetter, Fence, HistoryRow, Lease, MessageRow, Page,
    RecentRow, RoomDeletion, RoomRow, Search, Snapshot, UserRow,
};

/// Why an operation on the read models failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadModelError {
    /// They can't be reached or did not answer in time. Trying again may help.
    #[error("the read models are unavailable: {0}")]
    Unavailable(String),
    /// Those that this program reads are not complete yet. Trying again later will help.
    #[error("the read models of this version of Hansard are still being built from the log")]
    BeingBuilt,
    /// A write was refused for its content: trying again with the same events will not help.
    #[error("the read models refuse a write: {0}")]
    Refused(String),
    /// They are there but are not fit for use: another incarnation's, a newer schema, damaged.
    #[error("the read models are unusable: {0}")]
    Unusable(String),
    /// Somebody else has taken the lease over: this projector is to write no more.
    #[error("another projector has taken over")]
    Overtaken,
}

/// One generation of the read models, to be written by a projector.
///
/// Who writes should hold the [`Lease`], so that one projector at a time does the work. It is the fence
/// that keeps the others out: the checkpoint moves only for the newest. What an overtaken projector still
/// writes besides is guarded by position and does no harm.
#[async_trait]
pub trait Projection: ReadModels {
    /// Creates what is missing: tables or collections, and indexes. Safe to repeat, also from many
    /// processes at once.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn prepare(&self) -> Result<(), ReadModelError>;

    /// Who may write at present.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn lease(&self) -> Result<Lease, ReadModelError>;

    /// Takes the lease over from whoever had it with the fence `seen`; `None` when somebody else was
    /// faster.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn take_lease(&self, seen: Fence, holder: &str) -> Result<Option<Fence>, ReadModelError>;

    /// Gives the lease back, so that others need not wait for it. Does nothing when it was overtaken.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn release_lease(&self, fence: Fence) -> Result<(), ReadModelError>;

    /// Projects a batch and then moves the checkpoint to its end. Repeating a batch, or applying one that
    /// lies before the checkpoint, changes nothing.
    ///
    /// Events in log order mean: a second event with the idempotency key of an earlier one is void; a
    /// timeline event of a room that is unknown or deleted is void; a post or read by someone who is not a
    /// member is void; an edit by another than the author, or of a message that has been deleted or whose text
    /// has expired, is void; deleting what is not there does nothing. A text of somebody who has been erased is
    /// not stored, whenever it comes.
    ///
    /// An empty batch up to [`Position::ZERO`] claims the read models for a log before it has any event.
    /// A projector begins with one: without a checkpoint there is no heartbeat to show that it is there.
    ///
    /// # Errors
    /// [`ReadModelError`]; some of the batch may have been written, the checkpoint has not moved.
    async fn apply(&self, batch: &Batch) -> Result<(), ReadModelError>;

    /// Shows that a projector is at work: moves the checkpoint's heartbeat, and tells those who look at the
    /// checkpoint how far behind the log the projector is; `None` leaves what was told before. Does nothing
    /// before the first batch.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn heartbeat(&self, fence: Fence, lag: Option<Duration>) -> Result<(), ReadModelError>;

    /// Makes sure that texts that have been erased or have expired are not in the database's files any longer,
    /// as far as the database lets that be done; see `docs/decisions/0023-edits-and-texts-that-are-gone.md`.
    /// Does nothing when none have since it was last done.
    ///
    /// # Errors
    /// [`ReadModelError`]; it is to be repeated. [`ReadModelError::Unavailable`] also while something is still
    /// being read that was there before.
    async fn purge(&self) -> Result<(), ReadModelError>;

    /// Keeps a dead letter, without its bytes and its reason if it is about somebody who has been erased.
    /// Repeating it changes nothing.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn set_aside(&self, letter: &DeadLetter) -> Result<(), ReadModelError>;

    /// Everything that is stored, as of now.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, ReadModelError>;
}

/// The read models.
///
/// Every method may be called from many tasks at once, and dropping a returned future at any moment is
/// safe. A method that finds nothing prepared yet answers as if the log were empty.
#[async_trait]
pub trait ReadModels: Send + Sync + 'static {
    /// How far the projection has come; `None` before the first batch.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn checkpoint(&self) -> Result<Option<Checkpoint>, ReadModelError>;

    /// A part of the dead letters, in log order: those after `after`, at most `limit`.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn dead_letters(
        &self,
        after: Position,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, ReadModelError>;

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

    /// A room and a part of its messages, deleted ones included: oldest first, whatever the page's start. `None`
    /// if there is no such room.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn conversation(
        &self,
        room: RoomId,
        page: Page,
    ) -> Result<Option<ConversationRow>, ReadModelError>;

    /// The message with every version of its text, deleted or not; `None` if the room has no such message.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn history(
        &self,
        room: RoomId,
        message: MessageId,
    ) -> Result<Option<HistoryRow>, ReadModelError>;

    /// Rooms of a type whose oldest message that has not expired is older than `before`, those after the room
    /// `after` by id, at most `limit`: each with the last message of those that are, which all of its messages
    /// up to there are as well.
    ///
    /// Looks at every room of the type that it goes past; a call may take a while.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn expirable(
        &self,
        room_type: RoomType,
        before: Timestamp,
        after: Option<RoomId>,
        limit: u32,
    ) -> Result<Vec<(RoomId, MessageId)>, ReadModelError>;

    /// When the oldest of the room's messages that have not expired was posted; `None` when it has none, or is
    /// unknown or deleted.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn oldest_unexpired(&self, room: RoomId) -> Result<Option<Timestamp>, ReadModelError>;

    /// The messages, in rooms of `user`, whose newest text has all of the words: newest first. A room that is unknown or
    /// that `user` is not a member of has none.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn search(&self, user: UserId, search: Search)
    -> Result<Vec<MessageRow>, ReadModelError>;

    /// How many messages the `conversation.read` event at `position` made read for its reader, not
    /// counting those deleted since; at most [`crate::COUNT_CAP`].
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
