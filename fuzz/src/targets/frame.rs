//! What clients send over `/ws`: `gateway_ws::protocol::ClientFrame`.

use gateway_ws::protocol::{After, ClientFrame, Cursor};
use serde_json::{Value, json};

use crate::{Outcome, refused};

pub fn run(data: &[u8]) -> Outcome {
    // What is no UTF-8 ends the connection before it gets here.
    let Ok(text) = std::str::from_utf8(data) else {
        return Outcome::Refused;
    };
    match ClientFrame::read(text) {
        Ok(frame) => {
            assert_eq!(ClientFrame::read(&written(&frame).to_string()), Ok(frame));
            Outcome::Accepted
        }
        Err(invalid) => {
            assert!(!invalid.code.as_str().is_empty());
            refused(&invalid.message)
        }
    }
}

fn written(frame: &ClientFrame) -> Value {
    let mut written = match frame {
        ClientFrame::Auth { token } => json!({"type": "auth", "token": token}),
        ClientFrame::Subscribe {
            room,
            after,
            presence,
        } => json!({
            "type": "subscribe",
            "room": room,
            "after": after.map(|After { position, log }| match log {
                Some(log) => Cursor { position, log }.to_string(),
                None => position.to_string(),
            }),
            "presence": presence,
        }),
        ClientFrame::Unsubscribe { room } => json!({"type": "unsubscribe", "room": room}),
        ClientFrame::Typing { room, state } => {
            json!({"type": "typing", "room": room, "state": state})
        }
        ClientFrame::Ping => json!({"type": "ping"}),
    };
    // No room is another thing than a room that is `null`.
    if written["room"].is_null() {
        written.as_object_mut().unwrap().remove("room");
    }
    written
}
