//! The frames of `/ws`: what clients may send, what they are sent, and the codes with which a connection
//! is closed.

use axum::extract::ws::Utf8Bytes;
use contract::Post;
use events::{MessageId, Position, RoomId, UserId};
use serde::Serialize;
use serde_json::{Map, Value};

/// Close codes (RFC 6455, section 7.4; 4000 to 4999 are Hansard's own). A code never changes its meaning.
pub mod close {
    /// The gateway is shutting down. Connect again and resume.
    pub const GOING_AWAY: u16 = 1001;
    /// A frame or message was larger than allowed.
    pub const TOO_LARGE: u16 = 1009;
    /// The frames are not as RFC 6455 wants them.
    pub const PROTOCOL_ERROR: u16 = 1002;
    /// The gateway follows another log than before. Connect again and start over.
    pub const LOG_REPLACED: u16 = 1012;
    /// The gateway can't do its work at present. Connect again later.
    pub const TRY_AGAIN_LATER: u16 = 1013;
    /// No token in time, a bad token, or the token has expired. Connect again with a good one.
    pub const UNAUTHORIZED: u16 = 4001;
    /// The user has been deleted.
    pub const USER_DELETED: u16 = 4003;
    /// The client reads too slowly. The reason names the position to resume from.
    pub const TOO_SLOW: u16 = 4008;
    /// Nothing was heard from the client for too long.
    pub const SILENT: u16 = 4009;
}

/// What was wrong with a client's frame. The codes never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// The frame is not JSON.
    NotJson,
    /// The frame is JSON but no message: no object, no type, or a field is missing or wrong.
    InvalidMessage,
    /// The message's type is none that clients may send.
    UnknownType,
    /// The frame is binary.
    UnsupportedFrame,
    /// The frame is larger than allowed.
    TooLarge,
    /// The connection sends more frames than allowed.
    RateLimited,
    /// The token is missing, bad or expired.
    Unauthorized,
    /// There is no such room, or not any more.
    UnknownRoom,
    /// The caller is not a member of the room.
    NotAMember,
    /// The connection has as many subscriptions as it may have.
    TooManySubscriptions,
    /// The log can't be reached.
    Unavailable,
}

impl ErrorCode {
    /// The code as it is sent.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotJson => "not_json",
            Self::InvalidMessage => "invalid_message",
            Self::UnknownType => "unknown_type",
            Self::UnsupportedFrame => "unsupported_frame",
            Self::TooLarge => "too_large",
            Self::RateLimited => "rate_limited",
            Self::Unauthorized => "unauthorized",
            Self::UnknownRoom => "unknown_room",
            Self::NotAMember => "not_a_member",
            Self::TooManySubscriptions => "too_many_subscriptions",
            Self::Unavailable => "unavailable",
        }
    }
}

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
        /// To which room.
        room: RoomId,
        /// With `recovered`: everything after `after` up to here is replayed next, in order. Else:
        /// everything after here will be pushed.
        position: Position,
        /// Whether nothing was missed: the log was read from `after` on.
        recovered: bool,
        /// Why an `after` could not be resumed from.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
    },
    /// The replay is over; from here on the room is pushed as it happens.
    #[serde(rename = "replayed")]
    Replayed {
        /// Which room.
        room: RoomId,
        /// Everything up to here has been sent.
        position: Position,
        /// How many events were sent again.
        count: u64,
    },
    /// A message was posted.
    #[serde(rename = "new message")]
    NewMessage {
        /// Where to.
        room: RoomId,
        /// The event's position: what to resume from once this frame has been dealt with.
        position: Position,
        /// The message, as the answer to posting it shows it.
        message: &'a Post,
    },
    /// A message was deleted. May come more than once for one message.
    #[serde(rename = "message deleted")]
    MessageDeleted {
        /// Where from.
        room: RoomId,
        /// The event's position.
        position: Position,
        /// Which.
        message_id: MessageId,
    },
    /// The room was deleted; with it the subscription is over.
    #[serde(rename = "room deleted")]
    RoomDeleted {
        /// Which.
        room: RoomId,
        /// The event's position.
        position: Position,
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

/// A frame from the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientFrame {
    /// `{"type":"auth","token":TOKEN}`
    Auth {
        /// The token.
        token: String,
    },
    /// `{"type":"subscribe","room":ROOM,"after":MESSAGE?}`
    Subscribe {
        /// The room.
        room: RoomId,
        /// The last position the client has; `None`: only what happens from now on.
        after: Option<Position>,
    },
    /// `{"type":"unsubscribe","room":ROOM}`
    Unsubscribe {
        /// The room.
        room: RoomId,
    },
    /// `{"type":"ping"}`
    Ping,
}

/// Why a client's frame can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidFrame {
    /// For programs.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
}

impl ClientFrame {
    /// Reads a text frame. A field that its type does not have is refused: a misspelt `after` must not
    /// lose what its client missed.
    ///
    /// # Errors
    /// What is wrong with it, without repeating its content.
    pub fn read(text: &str) -> Result<Self, InvalidFrame> {
        let value: Value = serde_json::from_str(text).map_err(|error| InvalidFrame {
            code: ErrorCode::NotJson,
            message: format!(
                "the frame is not JSON (line {}, column {})",
                error.line(),
                error.column()
            ),
        })?;
        let Value::Object(fields) = value else {
            return Err(invalid("a message is a JSON object with a type"));
        };
        let name = match fields.get("type") {
            Some(Value::String(name)) => name.as_str(),
            Some(_) => return Err(invalid("type must be a string")),
            None => return Err(invalid("a message has a type")),
        };
        match name {
            "auth" => {
                only(&fields, &["type", "token"])?;
                Ok(Self::Auth {
                    token: token(&fields)?,
                })
            }
            "subscribe" => {
                only(&fields, &["type", "room", "after"])?;
                Ok(Self::Subscribe {
                    room: room(&fields)?,
                    after: after(&fields)?,
                })
            }
            "unsubscribe" => {
                only(&fields, &["type", "room"])?;
                Ok(Self::Unsubscribe {
                    room: room(&fields)?,
                })
            }
            "ping" => {
                only(&fields, &["type"])?;
                Ok(Self::Ping)
            }
            _ => Err(InvalidFrame {
                code: ErrorCode::UnknownType,
                message: "the type is unknown; possible types are auth, subscribe, unsubscribe \
                          and ping"
                    .to_owned(),
            }),
        }
    }
}

/// Refuses fields other than these.
fn only(fields: &Map<String, Value>, known: &[&str]) -> Result<(), InvalidFrame> {
    if fields.keys().all(|field| known.contains(&field.as_str())) {
        return Ok(());
    }
    let known = known.join(", ");
    Err(invalid(&format!(
        "the message has an unknown field; its type has these: {known}"
    )))
}

fn invalid(message: &str) -> InvalidFrame {
    InvalidFrame {
        code: ErrorCode::InvalidMessage,
        message: message.to_owned(),
    }
}

fn token(fields: &Map<String, Value>) -> Result<String, InvalidFrame> {
    match fields.get("token") {
        Some(Value::String(token)) => Ok(token.clone()),
        _ => Err(invalid("token must be a string")),
    }
}

fn room(fields: &Map<String, Value>) -> Result<RoomId, InvalidFrame> {
    fields
        .get("room")
        .and_then(Value::as_str)
        .and_then(|room| room.parse().ok())
        .ok_or_else(|| invalid("room must be a room's id"))
}

fn after(fields: &Map<String, Value>) -> Result<Option<Position>, InvalidFrame> {
    match fields.get("after") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => match text.parse() {
            Ok(position) => Ok(Some(position)),
            Err(_) => Err(invalid("after must be a message's id or a position")),
        },
        Some(_) => Err(invalid("after must be a message's id or a position")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ROOM: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn frames_are_read() {
        let room: RoomId = ROOM.parse().unwrap();
        for (text, frame) in [
            (r#"{"type":"ping"}"#.to_owned(), ClientFrame::Ping),
            (
                format!(r#"{{"type":"subscribe","room":"{ROOM}"}}"#),
                ClientFrame::Subscribe { room, after: None },
            ),
            (
                format!(r#"{{"type":"subscribe","room":"{ROOM}","after":"00000000000000ff"}}"#),
                ClientFrame::Subscribe {
                    room,
                    after: Some(Position::new(255)),
                },
            ),
            (
                format!(r#"{{"type":"unsubscribe","room":"{ROOM}"}}"#),
                ClientFrame::Unsubscribe { room },
            ),
        ] {
            assert_eq!(ClientFrame::read(&text), Ok(frame), "{text}");
        }
    }

    #[test]
    fn every_malformed_frame_has_its_code() {
        for (text, code) in [
            ("", ErrorCode::NotJson),
            ("subscribe", ErrorCode::NotJson),
            ("{\"type\":\"ping\"", ErrorCode::NotJson),
            ("[]", ErrorCode::InvalidMessage),
            ("null", ErrorCode::InvalidMessage),
            ("{}", ErrorCode::InvalidMessage),
            (r#"{"type":7}"#, ErrorCode::InvalidMessage),
            (r#"{"type":"dance"}"#, ErrorCode::UnknownType),
            (r#"{"type":"auth"}"#, ErrorCode::InvalidMessage),
            (
                r#"{"type":"subscribe","room":"0123456789abcdef0123456789abcdef","afer":"0"}"#,
                ErrorCode::InvalidMessage,
            ),
            (r#"{"type":"ping","room":7}"#, ErrorCode::InvalidMessage),
            (r#"{"type":"subscribe"}"#, ErrorCode::InvalidMessage),
            (
                r#"{"type":"subscribe","room":"chat.room.>"}"#,
                ErrorCode::InvalidMessage,
            ),
            (
                r#"{"type":"subscribe","room":"0123456789abcdef0123456789abcdef","after":12}"#,
                ErrorCode::InvalidMessage,
            ),
        ] {
            assert_eq!(ClientFrame::read(text).unwrap_err().code, code, "{text}");
        }
    }
}
