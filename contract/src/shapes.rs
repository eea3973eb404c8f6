//! Users, messages and conversations as the API shows them.

use events::{
    MessageEdited, MessageId, MessagePosted, Position, Room, RoomId, Timestamp, UserId, UserType,
};
use serde::Serialize;
use utoipa::ToSchema;

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// The user's id: opaque, 32 hex digits.
    #[serde(rename = "_id")]
    #[schema(value_type = String, example = "5f0c1c2e7a1f4c63b1f0a4d6a0c3b7e1")]
    pub id: UserId,
    /// Given name; empty once deleted.
    pub first_name: String,
    /// Family name; empty once deleted.
    pub last_name: String,
    /// `consumer` or `support`.
    #[serde(rename = "type")]
    #[schema(value_type = String, pattern = "^(consumer|support)$", example = "consumer")]
    pub user_type: UserType,
    /// When the user was created.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When the user last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    /// Always 0.
    #[serde(rename = "__v")]
    pub v: u32,
    /// `true` for a deleted user; otherwise absent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub deleted: bool,
}

impl From<&events::User> for User {
    fn from(user: &events::User) -> Self {
        Self {
            id: user.id,
            first_name: user.first_name.clone(),
            last_name: user.last_name.clone(),
            user_type: user.user_type,
            created_at: user.created_at,
            updated_at: user.updated_at,
            v: 0,
            deleted: user.deleted,
        }
    }
}

/// What kind of content a message has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MessageKind {
    /// Text.
    Text,
}

/// A message's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageText {
    /// The text, as it was sent.
    #[schema(example = "Hello there")]
    pub message_text: String,
}

/// That somebody has read a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// Who.
    #[schema(value_type = String)]
    pub read_by_user_id: UserId,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub read_at: Timestamp,
}

/// A message as the answer to posting it and as pushed to sockets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Post {
    /// The room's id.
    #[serde(rename = "_id")]
    #[schema(value_type = String)]
    pub id: RoomId,
    /// The message's id: opaque, 16 hex digits; later messages have greater ids.
    #[schema(value_type = String, example = "000000000000002a")]
    pub post_id: MessageId,
    /// The room's id once more.
    #[schema(value_type = String)]
    pub chat_room_id: RoomId,
    /// The content.
    pub message: MessageText,
    /// Always `text`.
    #[serde(rename = "type")]
    pub kind: MessageKind,
    /// The author.
    pub posted_by_user: User,
    /// Who has read it: so far its author.
    pub read_by_recipients: Vec<Receipt>,
    /// The room's members.
    pub chat_room_info: Vec<User>,
    /// When it was posted.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// The same.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    /// `true` when the text is gone because its author was erased; otherwise absent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub erased: bool,
    /// `true` when the text is gone because it was not to be kept any longer; otherwise absent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub expired: bool,
}

/// What an edit made of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Edit {
    /// The message's id.
    #[serde(rename = "_id")]
    #[schema(value_type = String, example = "000000000000002a")]
    pub id: MessageId,
    /// The room's id.
    #[schema(value_type = String)]
    pub chat_room_id: RoomId,
    /// The new content.
    pub message: MessageText,
    /// Who wrote it.
    #[schema(value_type = String)]
    pub posted_by_user_id: UserId,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub edited_at: Timestamp,
}

impl Edit {
    /// What `event`, at the time `at`, made of a message; `None` when its text is gone by now.
    pub fn new(at: Timestamp, event: &MessageEdited) -> Option<Self> {
        Some(Self {
            id: event.message_id,
            chat_room_id: event.room_id,
            message: MessageText {
                message_text: event.message_text.clone()?,
            },
            posted_by_user_id: event.author,
            edited_at: at,
        })
    }
}

impl Post {
    /// The message that `event` posted at `position` and time `at`. `users` are the room's members as far
    /// as they are known, deleted ones included.
    pub fn new(
        position: Position,
        at: Timestamp,
        event: &MessagePosted,
        room: &Room,
        users: &[events::User],
    ) -> Self {
        let user = |id: UserId| users.iter().find(|user| user.id == id);
        let is_gone = event.message_text.is_none();
        let is_erased = user(event.author).is_some_and(|author| author.erased);
        let author = match user(event.author) {
            Some(author) => author.into(),
            None => User::unknown(event.author, at),
        };
        Self {
            id: event.room_id,
            post_id: MessageId::at(position),
            chat_room_id: event.room_id,
            message: MessageText {
                message_text: event.message_text.clone().unwrap_or_default(),
            },
            kind: MessageKind::Text,
            posted_by_user: author,
            read_by_recipients: vec![Receipt {
                read_by_user_id: event.author,
                read_at: at,
            }],
            chat_room_info: room
                .members
                .iter()
                .filter_map(|member| user(*member))
                .filter(|member| !member.deleted)
                .map(User::from)
                .collect(),
            created_at: at,
            updated_at: at,
            erased: is_gone && is_erased,
            expired: is_gone && !is_erased,
        }
    }
}

impl User {
    /// What is shown of somebody of whom nothing but the id is known: like a deleted user.
    pub fn unknown(id: UserId, at: Timestamp) -> Self {
        Self {
            id,
            first_name: String::new(),
            last_name: String::new(),
            user_type: UserType::Consumer,
            created_at: at,
            updated_at: at,
            v: 0,
            deleted: true,
        }
    }
}

/// A message in a room's conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// The message's id: opaque, 16 hex digits; later messages have greater ids.
    #[serde(rename = "_id")]
    #[schema(value_type = String, example = "000000000000002a")]
    pub id: MessageId,
    /// The room's id.
    #[schema(value_type = String)]
    pub chat_room_id: RoomId,
    /// The content: the newest text, empty when it is gone.
    pub message: MessageText,
    /// Always `text`.
    #[serde(rename = "type")]
    pub kind: MessageKind,
    /// The author. A deleted author keeps `_id`, has empty names and `deleted: true`.
    pub posted_by_user: User,
    /// Who has read it and when: the author first.
    pub read_by_recipients: Vec<Receipt>,
    /// When it was posted.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it was posted or, later, edited or read by somebody.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    /// Always 0.
    #[serde(rename = "__v")]
    pub v: u32,
    /// When it was last edited; absent if it never was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub edited_at: Option<Timestamp>,
    /// `true` for a deleted message, which has no text; otherwise absent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub deleted: bool,
    /// `true` when the text is gone because it was not to be kept any longer; otherwise absent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub expired: bool,
    /// `true` when the text is gone because its author was erased; otherwise absent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub erased: bool,
}

/// A message with all that it has ever said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct History {
    /// The message's id.
    #[serde(rename = "_id")]
    #[schema(value_type = String, example = "000000000000002a")]
    pub id: MessageId,
    /// The room's id.
    #[schema(value_type = String)]
    pub chat_room_id: RoomId,
    /// The author of every version. A deleted author keeps `_id`, has empty names and `deleted: true`.
    pub posted_by_user: User,
    /// Each version, oldest first: as posted, and then one for each edit.
    pub versions: Vec<Version>,
    /// `true` for a deleted message, whose versions have no texts; otherwise absent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub deleted: bool,
    /// `true` when the texts are gone because they were not to be kept any longer; otherwise absent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub expired: bool,
    /// `true` when the texts are gone because their author was erased; otherwise absent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub erased: bool,
    /// When the texts went; absent unless they have gone and that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub gone_at: Option<Timestamp>,
    /// Who made them go; absent unless they have gone and that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub gone_by_user_id: Option<UserId>,
}

/// What a message said at some time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    /// The content; absent when it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<MessageText>,
    /// Who wrote it.
    #[schema(value_type = String)]
    pub posted_by_user_id: UserId,
    /// Since when the message said that.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
}

/// That somebody has read a message, with who that is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConversationReceipt {
    /// Who.
    #[schema(value_type = String)]
    pub read_by_user_id: UserId,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub read_at: Timestamp,
    /// The reader; empty when the reader has been deleted.
    pub read_by_user: Vec<User>,
}

/// One of the caller's conversations, with its newest message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Conversation {
    /// The room's id.
    #[serde(rename = "_id")]
    #[schema(value_type = String)]
    pub id: RoomId,
    /// The id of the newest message that has not been deleted.
    #[schema(value_type = String)]
    pub message_id: MessageId,
    /// The room's id once more.
    #[schema(value_type = String)]
    pub chat_room_id: RoomId,
    /// That message's content: the newest text, empty when it is gone.
    pub message: MessageText,
    /// Always `text`.
    #[serde(rename = "type")]
    pub kind: MessageKind,
    /// Its author. A deleted author keeps `_id`, has empty names and `deleted: true`.
    pub posted_by_user: User,
    /// Who has read it and when: the author first.
    pub read_by_recipients: Vec<ConversationReceipt>,
    /// The room's members, each in an array of its own.
    pub room_info: Vec<Vec<User>>,
    /// When it was posted.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// How many of the room's messages the caller has not read; 1000 stands for that many or more.
    pub unread_count: u64,
    /// When it was last edited; absent if it never was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub edited_at: Option<Timestamp>,
    /// `true` when the text is gone because it was not to be kept any longer; otherwise absent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub expired: bool,
    /// `true` when the text is gone because its author was erased; otherwise absent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub erased: bool,
}

/// A moment of the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Moment {
    /// The position of the last event that had happened: asked for again, it gives the same answer.
    #[schema(value_type = String, example = "000000000000002a")]
    pub position: Position,
    /// When that event was stored; absent where there is none at the position.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub time: Option<Timestamp>,
}
