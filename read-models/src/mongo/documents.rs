//! The documents of each collection. Ids of users and rooms are hex strings, as everywhere; everything
//! that is a place in the log is its sequence number as a 64-bit integer.

use event_log::Incarnation;
use events::{MessageId, RoomId, RoomType, Timestamp, UserId, UserType};
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, DateTime};
use serde::{Deserialize, Serialize};

use crate::receipts::Mark;
use crate::rows::{lag, position, sequence};
use crate::{
    Checkpoint, DeadLetter, Gone, Left, MessageRow, ReadModelError, RoomRow, StoredText, UserRow,
};

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
    /// The last message whose text has expired; so have those of all before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expired: Option<i64>,
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
    /// As posted. Gone once deleted, expired or erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Those of the newest text, for search alone: queries leave them out. Gone with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<String>,
    pub created_at: DateTime,
    /// The newest edit, so that a page needs no other collection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edit: Option<TextDocument>,
    pub deleted: bool,
    /// The first deletion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion: Option<DeletionDocument>,
}

/// In a message: what it says since an edit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct TextDocument {
    /// Of the edit.
    pub position: i64,
    /// Gone with that of the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    pub at: DateTime,
}

/// In a message: that it was deleted.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct DeletionDocument {
    pub position: i64,
    pub at: DateTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<UserId>,
}

/// In `edits`: every text that a message was given by editing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct EditDocument {
    #[serde(rename = "_id")]
    pub position: i64,
    pub room: RoomId,
    pub message: i64,
    pub author: UserId,
    /// Gone with that of the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    pub at: DateTime,
}

/// In `erasures`: that somebody has been erased, whether there is a document in `users` or not.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct ErasureDocument {
    #[serde(rename = "_id")]
    pub user: UserId,
    /// Of the first erasure.
    pub position: i64,
    pub at: DateTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<UserId>,
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
    /// The last batch that made texts go, unless they have been purged from the files since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unpurged: Option<i64>,
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
            unpurged: None,
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
    pub(super) fn of(letter: DeadLetter) -> Self {
        Self {
            position: sequence(letter.position),
            subject: letter.subject,
            payload: Binary {
                subtype: BinarySubtype::Generic,
                bytes: letter.payload,
            },
            reason: letter.reason,
        }
    }

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
    /// Of a room whose texts have expired up to this message.
    pub(super) fn into_row(self, expired: Option<i64>) -> Result<MessageRow, ReadModelError> {
        let id = MessageId::at(position(self.id));
        let (text, edited_at) = match self.edit {
            None => (self.text, None),
            Some(edit) => (edit.text, Some(timestamp(edit.at)?)),
        };
        Ok(MessageRow {
            id,
            room: self.room,
            author: self.author,
            left: Left::of(id, self.deleted, text.is_some(), expired.map(message_id)),
            text: text.unwrap_or_default(),
            created_at: timestamp(self.created_at)?,
            edited_at,
            read_by: Vec::new(),
        })
    }
}

pub(super) fn message_id(id: i64) -> MessageId {
    MessageId::at(position(id))
}

impl TextDocument {
    pub(super) fn into_stored(self) -> Result<StoredText, ReadModelError> {
        Ok(StoredText {
            position: position(self.position),
            text: self.text,
            at: timestamp(self.at)?,
        })
    }
}

impl DeletionDocument {
    pub(super) fn gone(self) -> Result<Gone, ReadModelError> {
        Ok(Gone {
            at: timestamp(self.at)?,
            by: self.by,
        })
    }
}

impl ErasureDocument {
    pub(super) fn gone(self) -> Result<Gone, ReadModelError> {
        Ok(Gone {
            at: timestamp(self.at)?,
            by: self.by,
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
