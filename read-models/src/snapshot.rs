//! The port to everything that is stored, as of one moment: [`Snapshot`], for those who verify or compare
//! read models as a whole. Queries have [`crate::ReadModels`].

use async_trait::async_trait;
use events::{MessageId, Position, RoomId, RoomType, Timestamp, UserId};
use uuid::Uuid;

use crate::{Checkpoint, Gone, ReadModelError, UserRow};

/// A user as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredUser {
    /// What queries see of the user.
    pub row: UserRow,
    /// The position of the user's creation, which is the order in which users are listed.
    pub created: Position,
}

/// A room as stored. Its members are [`StoredMember`]s.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRoom {
    /// The room's id.
    pub id: RoomId,
    /// What kind of conversation.
    pub room_type: RoomType,
    /// The position of its initiation.
    pub initiated: Position,
    /// The last message whose text has expired.
    pub expired: Option<MessageId>,
    /// The position of its deletion.
    pub deleted: Option<Position>,
    /// How many messages went with it.
    pub deleted_messages: Option<u64>,
}

/// A member of a room that has not been deleted, and the room's place in the member's list of recent
/// conversations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMember {
    /// The room.
    pub room: RoomId,
    /// The member.
    pub user: UserId,
    /// The room's newest message, by which the member's list is ordered.
    pub last_message: Option<MessageId>,
}

/// A message as stored, deleted or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// The message's id.
    pub id: MessageId,
    /// Its room; [`RoomId`]'s zero where no room is stored that it could belong to.
    pub room: RoomId,
    /// Who wrote it.
    pub author: UserId,
    /// The text as posted; gone once deleted, expired or erased.
    pub text: Option<String>,
    /// When it was posted.
    pub created_at: Timestamp,
    /// What it says since it was last edited.
    pub edit: Option<StoredText>,
    /// Whether queries take it for deleted.
    pub deleted: bool,
    /// Its first deletion.
    pub deletion: Option<StoredDeletion>,
}

/// What a message says since an edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredText {
    /// The position of the edit.
    pub position: Position,
    /// The text; gone with that of the message.
    pub text: Option<String>,
    /// When it was edited.
    pub at: Timestamp,
}

/// A message's deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDeletion {
    /// Its position.
    pub position: Position,
    /// When and by whom.
    pub gone: Gone,
}

/// An edit, the newest of its message or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEdit {
    /// The room; zero as in [`StoredMessage::room`].
    pub room: RoomId,
    /// The message.
    pub message: MessageId,
    /// What the message says since then.
    pub edit: StoredText,
}

/// Somebody who has been erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredErasure {
    /// Whoever it is.
    pub user: UserId,
    /// The position of the first erasure.
    pub position: Position,
    /// When and by whom.
    pub gone: Gone,
}

/// That somebody read a room: the messages after `from`, up to and with `up_to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMark {
    /// The position of the `conversation.read` event.
    pub position: Position,
    /// The room; zero as in [`StoredMessage::room`].
    pub room: RoomId,
    /// Who read it.
    pub reader: UserId,
    /// Up to where the reader had read before; zero for nothing.
    pub from: Position,
    /// The newest message read.
    pub up_to: Position,
    /// When.
    pub at: Timestamp,
}

/// The first event with a deduplication id that was made from an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// The deduplication id.
    pub id: Uuid,
    /// The event's position.
    pub position: Position,
}

/// Everything stored as of one moment. It can be read again and again, in key order and a page at a time:
/// `after` is the last key of the page before, `None` for the first page.
///
/// A snapshot holds on to something at the server: have no more of them, and no longer, than needed.
#[async_trait]
pub trait Snapshot: Send {
    /// How far the projection had come.
    fn checkpoint(&self) -> Option<&Checkpoint>;

    /// Whether it is of one moment only for as long as nothing is written.
    fn needs_stillness(&self) -> bool;

    /// Makes sure that everything read so far was as of one moment. What can't tell must have stood
    /// still.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn finish(&mut self) -> Result<(), ReadModelError>;

    /// Users, deleted ones too, by id.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn users(
        &mut self,
        after: Option<UserId>,
        limit: u32,
    ) -> Result<Vec<StoredUser>, ReadModelError>;

    /// Rooms, deleted ones too, by id.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn rooms(
        &mut self,
        after: Option<RoomId>,
        limit: u32,
    ) -> Result<Vec<StoredRoom>, ReadModelError>;

    /// Members, by room and user.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn members(
        &mut self,
        after: Option<(RoomId, UserId)>,
        limit: u32,
    ) -> Result<Vec<StoredMember>, ReadModelError>;

    /// Messages, deleted ones too, by id.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn messages(
        &mut self,
        after: Option<MessageId>,
        limit: u32,
    ) -> Result<Vec<StoredMessage>, ReadModelError>;

    /// Edits, by position.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn edits(
        &mut self,
        after: Option<Position>,
        limit: u32,
    ) -> Result<Vec<StoredEdit>, ReadModelError>;

    /// Those who have been erased, by id.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn erasures(
        &mut self,
        after: Option<UserId>,
        limit: u32,
    ) -> Result<Vec<StoredErasure>, ReadModelError>;

    /// Read marks, by position.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn marks(
        &mut self,
        after: Option<Position>,
        limit: u32,
    ) -> Result<Vec<StoredMark>, ReadModelError>;

    /// Idempotency keys, by deduplication id.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn keys(
        &mut self,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<StoredKey>, ReadModelError>;

    /// The positions of the dead letters.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn dead_letters(
        &mut self,
        after: Option<Position>,
        limit: u32,
    ) -> Result<Vec<Position>, ReadModelError>;

    /// How many messages of the room `user` has not read, counted as [`crate::RecentRow::unread`] is.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn unread(&mut self, room: RoomId, user: UserId) -> Result<u64, ReadModelError>;
}
