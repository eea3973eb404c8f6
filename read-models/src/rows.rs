//! What goes into the read models, batches of events, and what comes out of them, rows.

use std::collections::HashSet;
use std::time::Duration;

use event_log::Incarnation;
use events::{Envelope, MessageId, Position, RoomId, RoomType, Timestamp, UserId, UserType};

use crate::Words;

/// Unread and newly read messages are counted up to this many: more are reported as this many, so that
/// counting costs the same at any history.
pub const COUNT_CAP: u64 = 1_000;

/// The most items that one page holds; a larger limit means this many.
pub const MAX_PAGE: u32 = 100;

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
    /// How far behind the log the projector was by the last heartbeat that knew: the age of the oldest
    /// event that was not in the read models, zero when none was missing.
    pub lag: Duration,
}

/// A fencing token: each time a lease is taken it grows, and the checkpoint moves only for the newest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fence(pub u64);

/// Who may write a generation of the read models.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lease {
    /// The fence of whoever took it last.
    pub fence: Fence,
    /// Who that was; `None` when it was given back, or never taken.
    pub holder: Option<String>,
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
    /// The fence of the lease that it is written with.
    pub fence: Fence,
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

impl DeadLetter {
    /// The reason of one that was about somebody who has been erased.
    pub(crate) const REDACTED: &'static str =
        "it is about somebody who has been erased: its bytes and its reason went with them";

    /// All who may be meant by its subject and its bytes: what could be a user's id.
    pub(crate) fn users(&self) -> HashSet<UserId> {
        const DIGITS: usize = 32;
        let texts = [self.subject.as_bytes(), &self.payload];
        let runs = texts
            .into_iter()
            .flat_map(|bytes| bytes.split(|byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
        let ids = runs.flat_map(|run| run.windows(DIGITS));
        ids.filter_map(|id| str::from_utf8(id).ok()?.parse().ok())
            .collect()
    }

    /// Takes away what may be personal.
    pub(crate) fn redact(&mut self) {
        self.payload = Vec::new();
        Self::REDACTED.clone_into(&mut self.reason);
    }
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

/// What is left of a message's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// All of it.
    Text,
    /// Nothing: the message has been deleted.
    Deleted,
    /// Nothing: it has reached the age at which texts are not kept any longer.
    Expired,
    /// Nothing: its author has been erased.
    Erased,
}

impl Left {
    /// What is left of a message, by what is stored of it: whether it has been deleted, whether its text is
    /// there, and how far its room's texts have expired.
    ///
    /// A text that is gone for no other reason is one whose author has been erased, or whose key was destroyed
    /// before the event that says why has come.
    pub fn of(id: MessageId, deleted: bool, text: bool, expired: Option<MessageId>) -> Self {
        match (deleted, text) {
            (true, _) => Self::Deleted,
            (false, true) => Self::Text,
            (false, false) if expired.is_some_and(|up_to| id <= up_to) => Self::Expired,
            (false, false) => Self::Erased,
        }
    }
}

/// A message, deleted or not, in a room that has not been deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRow {
    /// The message's id.
    pub id: MessageId,
    /// Its room.
    pub room: RoomId,
    /// Who wrote it.
    pub author: UserId,
    /// The newest text; empty unless it is [`Left::Text`].
    pub text: String,
    /// What is left of the text.
    pub left: Left,
    /// When it was posted.
    pub created_at: Timestamp,
    /// When it was last edited.
    pub edited_at: Option<Timestamp>,
    /// Who has read it: the author first, then the others in the order in which they read it (by the log
    /// position of the read, never by a clock).
    pub read_by: Vec<Receipt>,
}

/// A message with all that it has ever said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRow {
    /// Who wrote every version.
    pub author: UserId,
    /// When the message was posted.
    pub created_at: Timestamp,
    /// Each version, oldest first: the first as posted, the others by editing.
    pub versions: Vec<VersionRow>,
    /// What is left of the texts.
    pub left: Left,
    /// When and by whom they were made to go, as far as that is known.
    pub gone: Option<Gone>,
}

/// What a message said at some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRow {
    /// Where the event stands that gave the message this text.
    pub position: Position,
    /// The text; `None` where it is gone.
    pub text: Option<String>,
    /// Since when it said that.
    pub at: Timestamp,
}

/// When and by whom something was made to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone {
    /// When.
    pub at: Timestamp,
    /// By whom; `None` where nobody in particular did it.
    pub by: Option<UserId>,
}

/// A room with its newest message, as the list of recent conversations shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecentRow {
    /// The room.
    pub room: RoomRow,
    /// Its newest message that has not been deleted.
    pub message: MessageRow,
    /// How many of its messages the caller has not read: posted by others, after the caller's last read,
    /// not deleted; at most [`COUNT_CAP`].
    pub unread: u64,
}

/// A room with a part of what was said in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationRow {
    /// The room.
    pub room: RoomRow,
    /// Some of its messages, oldest first.
    pub messages: Vec<MessageRow>,
}

/// Which part of a list, newest first, is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Where the part begins.
    pub start: PageStart,
    /// How many items at most; 1 to 100.
    pub limit: u32,
}

impl Page {
    /// The limit, kept within what a page may hold.
    pub(crate) fn items(self) -> u32 {
        self.limit.clamp(1, MAX_PAGE)
    }
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

/// Which messages are asked for by the words in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// All of these must occur. Without any nothing is found.
    pub words: Words,
    /// Only in this room.
    pub room: Option<RoomId>,
    /// Only those older than this message.
    pub before: Option<MessageId>,
    /// How many messages at most; 1 to 100.
    pub limit: u32,
}

impl Search {
    /// The limit, kept within what a page may hold.
    pub(crate) fn items(&self) -> usize {
        self.limit.clamp(1, MAX_PAGE) as usize
    }

    /// The place in the log that everything found lies before.
    pub(crate) fn bound(&self) -> i64 {
        self.before
            .map_or(i64::MAX, |message| sequence(message.position()))
    }
}

/// What deleting a room did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomDeletion {
    /// How many messages, not deleted before, went with the room.
    pub messages: u64,
}

/// A position as the databases hold it, whose integers are signed. A log's positions are far below 2^63;
/// a greater one comes from outside, as a cursor or an id, and nothing is there.
pub(crate) fn sequence(position: Position) -> i64 {
    i64::try_from(position.get()).unwrap_or(i64::MAX)
}

/// A lag as the databases hold it, in milliseconds.
pub(crate) fn millis(lag: Duration) -> i64 {
    i64::try_from(lag.as_millis()).unwrap_or(i64::MAX)
}

/// The lag that was written as [`millis`].
pub(crate) fn lag(millis: i64) -> Duration {
    Duration::from_millis(millis.unsigned_abs())
}

/// The position that was written as [`sequence`].
pub(crate) fn position(sequence: i64) -> Position {
    Position::new(sequence.unsigned_abs())
}

/// The members of a room as they are kept: in ascending order, each once.
pub(crate) fn normalised(members: &[UserId]) -> Vec<UserId> {
    let mut members = members.to_vec();
    members.sort_unstable();
    members.dedup();
    members
}
