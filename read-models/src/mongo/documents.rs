//! The documents of each collection. Ids of users and rooms are hex strings, as everywhere; everything
//! that is a place in the log is its sequence number as a 64-bit integer.

use event_log::Incarnation;
use events::{MessageId, RoomId, RoomType, Timestamp, UserId, UserType};
use mongodb::bson::{Binary, DateTime};
use serde::{Deserialize, Serialize};

use crate::receipts::Mark;
use crate::rows::{lag, position};
use crate::{Checkpoint, DeadLetter, MessageRow, ReadModelError, RoomRow, UserRow};

/// In `users`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UserDocument {
    #[serde(rename = "_id")]
    pub id: UserId,
    /// Of its creation.
    pub position: i64,
    pub first_name: String,
    pub last_name: String,
    #[serde(rename = "type")]
    pub user_type: UserType,
    pub created_at: DateTime,
    pub updated_at: DateTime,
    pub deleted: bool,
}

/// In `rooms`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RoomDocument {
    #[serde(rename = "_id")]
    pub id: RoomId,
    /// Of its initiation.
    pub position: i64,
    #[serde(rename = "type")]
    pub room_type: RoomType,
    pub members: Vec<UserId>,
    /// The end of the last batch that changed `lastMessage`: guards it against older ones.
    pub applied: i64,
    /// The newest message; only there when there is one and the room has not been deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_message: Option<i64>,
    /// The position of its deletion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<i64>,
    /// How many messages went with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted_messages: Option<i64>,
}

/// In `messages`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MessageDocument {
    #[serde(rename = "_id")]
    pub id: i64,
    pub room: RoomId,
    pub author: UserId,
    /// Gone once deleted.
    #[serde(default)]
    pub text: String,
    /// Those of the text, for search alone: queries leave them out. Gone once deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<String>,
    pub created_at: DateTime,
    pub deleted: bool,
    /// The position of the first deletion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<i64>,
}

/// In `marks`: that `reader` read the messages after `from`, up to and with `upTo`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MarkDocument {
    /// The position of the `conversation.read` event.
    #[serde(rename = "_id")]
    pub position: i64,
    pub room: RoomId,
    pub reader: UserId,
    pub from: i64,
    pub up_to: i64,
    pub at: DateTime,
}

/// In `keys`: the first event with a deduplication id that was made from an idempotency key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct KeyDocument {
    /// Hex.
    #[serde(rename = "_id")]
    pub deduplication_id: String,
    pub position: i64,
}

/// In `deadLetters`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct DeadLetterDocument {
    #[serde(rename = "_id")]
    pub position: i64,
    pub subject: String,
    pub payload: Binary,
    pub reason: String,
}

/// In `checkpoints`, which has one for each generation.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CheckpointDocument {
    /// The generation's number.
    #[serde(rename = "_id")]
    pub generation: i64,
    pub position: i64,
    /// Of the log; not there before the first batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<String>,
    pub heartbeat: i64,
    /// How far behind the log the projector was by the last heartbeat.
    #[serde(default)]
    pub lag_millis: i64,
    /// How often the lease was taken.
    pub fence: i64,
    /// Who has the lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
}

impl CheckpointDocument {
    /// Of a generation that nobody has written yet.
    pub(super) fn unclaimed(generation: i64) -> Self {
        Self {
            generation,
            position: 0,
            incarnation: None,
            heartbeat: 0,
            lag_millis: 0,
            fence: 0,
            holder: None,
        }
    }
}

pub(super) fn date(timestamp: Timestamp) -> DateTime {
    DateTime::from_millis(timestamp.as_millis())
}

pub(super) fn timestamp(date: DateTime) -> Result<Timestamp, ReadModelError> {
    Timestamp::from_millis(date.timestamp_millis()).ok_or_else(|| {
        ReadModelError::Unusable("a stored time is outside the years that a time can have".into())
    })
}

impl CheckpointDocument {
    /// `None` before the first batch.
    pub(super) fn into_checkpoint(self) -> Option<Checkpoint> {
        Some(Checkpoint {
            position: position(self.position),
            incarnation: Incarnation(self.incarnation?),
            heartbeat: self.heartbeat.unsigned_abs(),
            lag: lag(self.lag_millis),
        })
    }
}

impl UserDocument {
    pub(super) fn into_row(self) -> Result<UserRow, ReadModelError> {
        Ok(UserRow {
            id: self.id,
            first_name: self.first_name,
            last_name: self.last_name,
            user_type: self.user_type,
            created_at: timestamp(self.created_at)?,
            updated_at: timestamp(self.updated_at)?,
            deleted: self.deleted,
        })
    }
}

impl DeadLetterDocument {
    pub(super) fn into_row(self) -> DeadLetter {
        DeadLetter {
            position: position(self.position),
            subject: self.subject,
            payload: self.payload.bytes,
            reason: self.reason,
        }
    }
}

impl RoomDocument {
    pub(super) fn into_row(self) -> RoomRow {
        RoomRow {
            id: self.id,
            room_type: self.room_type,
            members: self.members,
        }
    }
}

impl MessageDocument {
    pub(super) fn into_row(self) -> Result<MessageRow, ReadModelError> {
        Ok(MessageRow {
            id: MessageId::at(position(self.id)),
            room: self.room,
            author: self.author,
            text: self.text,
            created_at: timestamp(self.created_at)?,
            read_by: Vec::new(),
        })
    }
}

impl MarkDocument {
    pub(super) fn into_mark(self) -> Result<Mark, ReadModelError> {
        Ok(Mark {
            position: position(self.position),
            reader: self.reader,
            up_to: MessageId::at(position(self.up_to)),
            at: timestamp(self.at)?,
        })
    }
}
