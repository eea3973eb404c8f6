//! The frames that clients may send.

use events::RoomId;
use serde_json::{Map, Value};

use super::{After, ErrorCode, Typing};

/// A frame from the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientFrame {
    /// `{"type":"auth","token":TOKEN}`
    Auth {
        /// The token.
        token: String,
    },
    /// `{"type":"subscribe","room":ROOM?,"after":POSITION?,"presence":BOOLEAN?}`
    Subscribe {
        /// The room; `None`: all rooms of the caller.
        room: Option<RoomId>,
        /// The last position the client has; `None`: only what happens from now on.
        after: Option<After>,
        /// Whether the client wants to know which of the other members are connected.
        presence: bool,
    },
    /// `{"type":"unsubscribe","room":ROOM?}`
    Unsubscribe {
        /// The room; `None`: all rooms of the caller.
        room: Option<RoomId>,
    },
    /// `{"type":"typing","room":ROOM,"state":"start"|"stop"}`
    Typing {
        /// Where.
        room: RoomId,
        /// Whether it begins (or goes on) or is over.
        state: Typing,
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
        Self::from_fields(&fields)
    }

    /// Reads a frame's object, as [`read`](Self::read) does.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_fields(fields: &Map<String, Value>) -> Result<Self, InvalidFrame> {
        let name = match fields.get("type") {
            Some(Value::String(name)) => name.as_str(),
            Some(_) => return Err(invalid("type must be a string")),
            None => return Err(invalid("a message has a type")),
        };
        match name {
            "auth" => {
                only(fields, &["type", "token"])?;
                Ok(Self::Auth {
                    token: token(fields)?,
                })
            }
            "subscribe" => {
                only(fields, &["type", "room", "after", "presence"])?;
                Ok(Self::Subscribe {
                    room: optional_room(fields)?,
                    after: after(fields)?,
                    presence: presence(fields)?,
                })
            }
            "unsubscribe" => {
                only(fields, &["type", "room"])?;
                Ok(Self::Unsubscribe {
                    room: optional_room(fields)?,
                })
            }
            "typing" => {
                only(fields, &["type", "room", "state"])?;
                Ok(Self::Typing {
                    room: optional_room(fields)?
                        .ok_or_else(|| invalid("room must be a room's id"))?,
                    state: state(fields)?,
                })
            }
            "ping" => {
                only(fields, &["type"])?;
                Ok(Self::Ping)
            }
            _ => Err(InvalidFrame {
                code: ErrorCode::UnknownType,
                message: "the type is unknown; possible types are auth, subscribe, unsubscribe, \
                          typing and ping"
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

/// A room that is named but isn't one is an error, not the same as none: the client would be subscribed
/// to everything.
fn optional_room(fields: &Map<String, Value>) -> Result<Option<RoomId>, InvalidFrame> {
    match fields.get("room") {
        None => Ok(None),
        Some(room) => room
            .as_str()
            .and_then(|room| room.parse().ok())
            .map(Some)
            .ok_or_else(|| invalid("room must be a room's id")),
    }
}

fn after(fields: &Map<String, Value>) -> Result<Option<After>, InvalidFrame> {
    match fields.get("after") {
        None | Some(Value::Null) => Ok(None),
        Some(after) => after
            .as_str()
            .and_then(|after| after.parse().ok())
            .map(Some)
            .ok_or_else(|| invalid("after must be the position of a frame or a message's id")),
    }
}

fn presence(fields: &Map<String, Value>) -> Result<bool, InvalidFrame> {
    match fields.get("presence") {
        None => Ok(false),
        Some(Value::Bool(presence)) => Ok(*presence),
        Some(_) => Err(invalid("presence must be true or false")),
    }
}

fn state(fields: &Map<String, Value>) -> Result<Typing, InvalidFrame> {
    match fields.get("state").and_then(Value::as_str) {
        Some("start") => Ok(Typing::Start),
        Some("stop") => Ok(Typing::Stop),
        _ => Err(invalid("state must be start or stop")),
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
        let subscribe = |room, after: Option<&str>, presence| ClientFrame::Subscribe {
            room,
            after: after.map(|after| after.parse().unwrap()),
            presence,
        };
        for (text, frame) in [
            (r#"{"type":"ping"}"#.to_owned(), ClientFrame::Ping),
            (
                r#"{"type":"subscribe"}"#.to_owned(),
                subscribe(None, None, false),
            ),
            (
                format!(r#"{{"type":"subscribe","room":"{ROOM}","after":null,"presence":true}}"#),
                subscribe(Some(room), None, true),
            ),
            (
                format!(r#"{{"type":"subscribe","room":"{ROOM}","after":"00000000000000ff"}}"#),
                subscribe(Some(room), Some("00000000000000ff"), false),
            ),
            (
                r#"{"type":"subscribe","after":"00000000000000ff-3f9c1b2e"}"#.to_owned(),
                subscribe(None, Some("00000000000000ff-3f9c1b2e"), false),
            ),
            (
                format!(r#"{{"type":"unsubscribe","room":"{ROOM}"}}"#),
                ClientFrame::Unsubscribe { room: Some(room) },
            ),
            (
                r#"{"type":"unsubscribe"}"#.to_owned(),
                ClientFrame::Unsubscribe { room: None },
            ),
            (
                format!(r#"{{"type":"typing","room":"{ROOM}","state":"stop"}}"#),
                ClientFrame::Typing {
                    room,
                    state: Typing::Stop,
                },
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
            (
                r#"{"type":"subscribe","room":null}"#,
                ErrorCode::InvalidMessage,
            ),
            (
                r#"{"type":"subscribe","presence":"yes"}"#,
                ErrorCode::InvalidMessage,
            ),
            (
                r#"{"type":"typing","state":"start"}"#,
                ErrorCode::InvalidMessage,
            ),
            (
                r#"{"type":"typing","room":"0123456789abcdef0123456789abcdef"}"#,
                ErrorCode::InvalidMessage,
            ),
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
