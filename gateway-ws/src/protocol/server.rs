//! The frames that clients are sent.

use axum::extract::ws::Utf8Bytes;
use contract::{Edit, Post, User};
use events::{MessageId, Room, RoomId, RoomType, Timestamp, UserId};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Cursor, Typing};

/// A frame to the client that tells of no event; those that do are [`Change`]s.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum ServerFrame<'a> {
    /// The token of an `auth` frame was accepted.
    #[serde(rename = "authenticated")]
    Authenticated {
        /// Whose it is.
        user: UserId,
    },
    /// The subscription is made. Sent before anything that is replayed.
    #[serde(rename = "subscribed")]
    Subscribed {
        /// To which room; absent: to all rooms of the caller.
        #[serde(skip_serializing_if = "Option::is_none")]
        room: Option<RoomId>,
        /// With `recovered`: everything after `after` up to here is replayed next, in order. Else:
        /// everything after here will be pushed.
        position: Cursor,
        /// Whether nothing was missed: the log was read from `after` on.
        recovered: bool,
        /// Why an `after` could not be resumed from.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
    },
    /// The replay is over; from here on everything is pushed as it happens.
    #[serde(rename = "replayed")]
    Replayed {
        /// Of which room; absent: of all rooms of the caller.
        #[serde(skip_serializing_if = "Option::is_none")]
        room: Option<RoomId>,
        /// Everything up to here has been sent.
        position: Cursor,
        /// How many events were sent again.
        count: u64,
    },
    /// The subscription is over: nothing of the room is pushed any more.
    #[serde(rename = "unsubscribed")]
    Unsubscribed {
        /// To which room; absent: the one to all rooms of the caller.
        #[serde(skip_serializing_if = "Option::is_none")]
        room: Option<RoomId>,
    },
    /// A member of the room types, or no longer does.
    #[serde(rename = "typing")]
    Typing {
        /// Where.
        room: RoomId,
        /// Who.
        user: UserId,
        /// Which of both.
        state: Typing,
    },
    /// Whether a member of a room is connected; see `presence` of `subscribe`.
    #[serde(rename = "presence")]
    Presence {
        /// Who.
        user: UserId,
        /// Whether it is connected.
        status: Presence,
        /// When the user was last connected; `null` while connected, and when that is not known.
        last_seen: Option<Timestamp>,
    },
    /// The gateway has lost the log; nothing is pushed until `restored`. Nothing will be missed.
    #[serde(rename = "degraded")]
    Degraded,
    /// The gateway follows the log again.
    #[serde(rename = "restored")]
    Restored,
    /// The answer to `ping`.
    #[serde(rename = "pong")]
    Pong,
    /// A frame was refused, or the connection is about to be closed.
    #[serde(rename = "error")]
    Error {
        /// What was wrong, for programs.
        code: &'a str,
        /// What was wrong and what to do, for people.
        message: &'a str,
        /// Which room it is about, if any.
        #[serde(skip_serializing_if = "Option::is_none")]
        room: Option<RoomId>,
    },
}

/// A frame that tells of an event. `GET /changes` answers with the same.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type")]
pub enum Change<'a> {
    /// A message was posted.
    #[serde(rename = "new message", rename_all = "camelCase")]
    NewMessage {
        /// Where to.
        #[schema(value_type = String)]
        room: RoomId,
        /// The event's position: what to resume from once this frame has been dealt with.
        #[schema(value_type = String, example = "0000000000000005-3aefbf0d")]
        position: Cursor,
        /// The message, as the answer to posting it shows it.
        #[schema(value_type = Post)]
        message: &'a Post,
    },
    /// The author gave a message another text. One that comes after the message's deletion is void.
    #[serde(rename = "message edited", rename_all = "camelCase")]
    MessageEdited {
        /// Where.
        #[schema(value_type = String)]
        room: RoomId,
        /// The event's position.
        #[schema(value_type = String, example = "0000000000000007-3aefbf0d")]
        position: Cursor,
        /// What the message says now.
        #[schema(value_type = Edit)]
        edit: &'a Edit,
    },
    /// A message was deleted. May come more than once for one message.
    #[serde(rename = "message deleted", rename_all = "camelCase")]
    MessageDeleted {
        /// Where from.
        #[schema(value_type = String)]
        room: RoomId,
        /// The event's position.
        #[schema(value_type = String, example = "0000000000000008-3aefbf0d")]
        position: Cursor,
        /// Which.
        #[schema(value_type = String, example = "0000000000000005")]
        message_id: MessageId,
    },
    /// A member has read the conversation.
    #[serde(rename = "conversation read", rename_all = "camelCase")]
    ConversationRead {
        /// Which.
        #[schema(value_type = String)]
        room: RoomId,
        /// The event's position.
        #[schema(value_type = String, example = "0000000000000006-3aefbf0d")]
        position: Cursor,
        /// Who.
        #[schema(value_type = String)]
        user: UserId,
        /// Up to where: every message whose id is not greater has been read.
        #[schema(value_type = String, example = "0000000000000006")]
        up_to: MessageId,
        /// When.
        #[schema(value_type = String, format = DateTime)]
        read_at: Timestamp,
    },
    /// A room was created, with the caller as a member.
    #[serde(rename = "room created", rename_all = "camelCase")]
    RoomCreated {
        /// Which.
        #[schema(value_type = String)]
        room: RoomId,
        /// The event's position.
        #[schema(value_type = String, example = "0000000000000004-3aefbf0d")]
        position: Cursor,
        /// What it is.
        chat_room: ChatRoom,
        /// Its members.
        #[schema(value_type = Vec<User>)]
        users: &'a [User],
    },
    /// The room was deleted, with its messages; with it a subscription to it is over.
    #[serde(rename = "room deleted", rename_all = "camelCase")]
    RoomDeleted {
        /// Which.
        #[schema(value_type = String)]
        room: RoomId,
        /// The event's position.
        #[schema(value_type = String, example = "0000000000000009-3aefbf0d")]
        position: Cursor,
    },
}

/// A room, as `room created` tells of it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChatRoom {
    /// The room's id.
    #[schema(value_type = String)]
    pub chat_room_id: RoomId,
    /// What kind of conversation it holds.
    #[serde(rename = "type")]
    #[schema(value_type = String, pattern = "^(consumer-to-consumer|consumer-to-support)$", example = "consumer-to-consumer")]
    pub room_type: RoomType,
    /// The member who initiated it.
    #[schema(value_type = String)]
    pub initiator: UserId,
    /// When it was initiated.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

impl From<&Room> for ChatRoom {
    fn from(room: &Room) -> Self {
        Self {
            chat_room_id: room.id,
            room_type: room.room_type,
            initiator: room.initiator,
            created_at: room.initiated_at,
        }
    }
}

/// Whether a user is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// To at least one gateway.
    Online,
    /// To none.
    Offline,
}

impl ServerFrame<'_> {
    /// The frame's text. Clones share its bytes.
    pub fn encode(&self) -> Utf8Bytes {
        encode(self)
    }
}

impl Change<'_> {
    /// The frame's text. Clones share its bytes.
    pub fn encode(&self) -> Utf8Bytes {
        encode(self)
    }
}

#[allow(clippy::expect_used)]
fn encode(frame: &impl Serialize) -> Utf8Bytes {
    // Serialising cannot fail: every key is a string, and writing to a String does not fail.
    serde_json::to_string(frame)
        .expect("a frame has only string keys")
        .into()
}
