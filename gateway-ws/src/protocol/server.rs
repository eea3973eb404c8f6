//! The frames that clients are sent.

use axum::extract::ws::Utf8Bytes;
use contract::{Post, User};
use events::{MessageId, Room, RoomId, RoomType, Timestamp, UserId};
use serde::Serialize;

use super::{Cursor, Typing};

/// A frame to the client.
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
    /// A message was posted.
    #[serde(rename = "new message")]
    NewMessage {
        /// Where to.
        room: RoomId,
        /// The event's position: what to resume from once this frame has been dealt with.
        position: Cursor,
        /// The message, as the answer to posting it shows it.
        message: &'a Post,
    },
    /// A message was deleted. May come more than once for one message.
    #[serde(rename = "message deleted")]
    MessageDeleted {
        /// Where from.
        room: RoomId,
        /// The event's position.
        position: Cursor,
        /// Which.
        message_id: MessageId,
    },
    /// A member has read the conversation.
    #[serde(rename = "conversation read")]
    ConversationRead {
        /// Which.
        room: RoomId,
        /// The event's position.
        position: Cursor,
        /// Who.
        user: UserId,
        /// Up to where: every message whose id is not greater has been read.
        up_to: MessageId,
        /// When.
        read_at: Timestamp,
    },
    /// A room was created, with the caller as a member.
    #[serde(rename = "room created")]
    RoomCreated {
        /// Which.
        room: RoomId,
        /// The event's position.
        position: Cursor,
        /// What it is.
        chat_room: ChatRoom,
        /// Its members.
        users: &'a [User],
    },
    /// The room was deleted; with it a subscription to it is over.
    #[serde(rename = "room deleted")]
    RoomDeleted {
        /// Which.
        room: RoomId,
        /// The event's position.
        position: Cursor,
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

/// A room, as `room created` tells of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChatRoom {
    /// The room's id.
    pub chat_room_id: RoomId,
    /// What kind of conversation it holds.
    #[serde(rename = "type")]
    pub room_type: RoomType,
    /// The member who initiated it.
    pub initiator: UserId,
    /// When it was initiated.
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
    #[allow(clippy::expect_used)]
    pub fn encode(&self) -> Utf8Bytes {
        // Serialising cannot fail: every key is a string, and writing to a String does not fail.
        serde_json::to_string(self)
            .expect("a frame has only string keys")
            .into()
    }
}
