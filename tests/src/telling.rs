//! What is told of an event, as a line of text: made from the log on one side and from a frame on the other,
//! the same when the frame is true.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

/// Of longer texts a line has the beginning, the length and a hash.
const SHOWN_TEXT: usize = 40;

/// An event that clients are told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Where it stands in the log.
    pub position: u64,
    /// The room's id.
    pub room: Arc<str>,
    /// What happened, by whom and when, ids included.
    pub line: Arc<str>,
}

impl fmt::Display for Told {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x} {}", self.position, self.line)
    }
}

/// Makes [`Told`]s. What many clients are told of an event is kept once.
#[derive(Debug, Default)]
pub struct Lines {
    kept: Mutex<HashMap<u64, Told>>,
}

impl Lines {
    /// What a line of the record (`/audit/events`) is to clients; `None` when they are not told of it.
    ///
    /// # Panics
    /// It is not in the record's format.
    pub fn of_record(&self, record: &Value) -> Option<Told> {
        let event = &record["event"];
        let data = &event["data"];
        let (actor, at) = (text(&event["actor"]), text(&event["at"]));
        let own = text(&record["position"]);
        let line = match text(&event["type"]) {
            "room.initiated" => created(data, text(&data["initiator"]), ids(&data["members"]), at),
            "message.posted" => posted(own, text(&data["author"]), at, text(&data["messageText"])),
            "message.deleted" => deleted(text(&data["messageId"])),
            "conversation.read" => {
                // Without a message: everything up to the reading itself.
                let up_to = data["upTo"].as_str().map_or(own, |named| named.min(own));
                read(actor, up_to, at)
            }
            _ => return None,
        };
        Some(self.keep(own, text(&data["roomId"]), line))
    }

    /// What a frame tells; `None` when it tells of no event.
    ///
    /// # Panics
    /// It is not in the protocol's format.
    pub fn of_frame(&self, frame: &Value) -> Option<Told> {
        let line = match text(&frame["type"]) {
            "room created" => {
                let room = &frame["chatRoom"];
                let users = frame["users"].as_array().expect("a room has users");
                let users = users.iter().map(|user| text(&user["_id"])).collect();
                created(
                    room,
                    text(&room["initiator"]),
                    users,
                    text(&room["createdAt"]),
                )
            }
            "new message" => {
                let post = &frame["message"];
                posted(
                    text(&post["postId"]),
                    text(&post["postedByUser"]["_id"]),
                    text(&post["createdAt"]),
                    text(&post["message"]["messageText"]),
                )
            }
            "message deleted" => deleted(text(&frame["messageId"])),
            "conversation read" => read(
                text(&frame["user"]),
                text(&frame["upTo"]),
                text(&frame["readAt"]),
            ),
            _ => return None,
        };
        Some(self.keep(text(&frame["position"]), text(&frame["room"]), line))
    }

    fn keep(&self, position: &str, room: &str, line: String) -> Told {
        let position = u64::from_str_radix(position, 16).expect("a position is a hex number");
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Told {
            position,
            room: room.into(),
            line: line.as_str().into(),
        };
        let told = kept.entry(position).or_insert_with(new);
        if *told.room == *room && *told.line == line {
            told.clone()
        } else {
            new()
        }
    }
}

fn created(room: &Value, initiator: &str, mut users: Vec<&str>, at: &str) -> String {
    users.sort_unstable();
    let users = users.join(", ");
    let kind = text(&room["type"]);
    format!("room created: {kind}, by {initiator} at {at}, of {users}")
}

fn posted(id: &str, author: &str, at: &str, message: &str) -> String {
    let mut shown: String = message.chars().take(SHOWN_TEXT).collect();
    if shown.len() < message.len() {
        let mut hasher = DefaultHasher::new();
        message.hash(&mut hasher);
        shown = format!("{shown}… ({} bytes, {:x})", message.len(), hasher.finish());
    }
    format!("new message {id} by {author} at {at}: {shown}")
}

fn deleted(message: &str) -> String {
    format!("message deleted: {message}")
}

fn read(reader: &str, up_to: &str, at: &str) -> String {
    format!("conversation read up to {up_to} by {reader} at {at}")
}

fn ids(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().map(text).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn record_and_frame_say_the_same() {
        let lines = Lines::default();
        let record = json!({"position": "00000000000000a7", "event": {
            "type": "message.posted", "at": "2026-11-22T17:16:12.692Z", "actor": "ada",
            "data": {"roomId": "parlour", "author": "ada", "messageText": "x".repeat(90)},
        }});
        let mut frame = json!({
            "type": "new message", "room": "parlour", "position": "00000000000000a7",
            "message": {
                "postId": "00000000000000a7", "createdAt": "2026-11-22T17:16:12.692Z",
                "postedByUser": {"_id": "ada"}, "message": {"messageText": "x".repeat(90)},
            },
        });
        let recorded = lines.of_record(&record).unwrap();
        assert_eq!(lines.of_frame(&frame).unwrap(), recorded);
        frame["message"]["message"]["messageText"] = ("x".repeat(89) + "y").into();
        assert_ne!(lines.of_frame(&frame).unwrap(), recorded);
        assert_eq!(lines.of_frame(&json!({"type": "replayed"})), None);
    }

    #[test]
    fn a_reading_without_a_message_is_up_to_itself() {
        let record = json!({"position": "00000000000000a7", "event": {
            "type": "conversation.read", "at": "2026-11-22T17:16:12.692Z", "actor": "ada",
            "data": {"roomId": "parlour", "reader": "ada", "upTo": null},
        }});
        let told = Lines::default().of_record(&record).unwrap();
        assert!(
            told.line.contains("up to 00000000000000a7 by ada"),
            "{told}"
        );
    }
}
