//! How a replayed event is written: as one line of JSON, or as one line for people.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use event_log::Position;
use events::{Envelope, Event, OpenedEnvelope, Timestamp};
use serde::Serialize;
use utoipa::ToSchema;

use crate::Selected;

/// How replayed events are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One JSON object a line: position, time stored, subject, and the event with its personal texts opened;
    /// null where they are gone for ever
    #[default]
    Jsonl,
    /// One line an event for people to read: time stored, position, who, and what happened
    Text,
    /// A conversation for each room, with names, as text
    Transcript,
    /// The same as a page that stands for itself, to look at in a browser or to print
    Html,
}

impl Format {
    /// The media type of what is written.
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Jsonl => "application/x-ndjson",
            Self::Text | Self::Transcript => "text/plain; charset=utf-8",
            Self::Html => "text/html; charset=utf-8",
        }
    }
}

/// Appends the event's line of JSON, with its end, to `buffer`.
pub(crate) fn write_json_line(selected: &Selected, buffer: &mut Vec<u8>) {
    write_json(selected, buffer);
    buffer.push(b'\n');
}

/// Appends the event's line for people, with its end, to `buffer`.
pub(crate) fn write_text_line(selected: &Selected, buffer: &mut Vec<u8>) {
    write_text(selected, buffer);
    buffer.push(b'\n');
}

/// One line of a replay.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReplayedEvent<'a> {
    /// The event's place in the log.
    #[schema(value_type = String, example = "00000000000000a5")]
    position: Position,
    /// When the log stored it.
    #[schema(value_type = String, format = DateTime)]
    stored_at: Timestamp,
    /// Which history it belongs to.
    #[schema(example = "chat.room.5f2d1c0b9a8e7d6c5b4a39281706f5e4.timeline")]
    subject: &'a str,
    /// The event: id, type, v, at, actor, key and data. What is sealed in the log is opened; a text that is
    /// gone for ever is null. Absent when the event can't be decoded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    event: Option<OpenedEnvelope<'a>>,
    /// Why the event can't be decoded.
    #[serde(skip_serializing_if = "Option::is_none")]
    undecodable: Option<String>,
    /// The bytes of an event that can't be decoded, where they are text.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    /// The bytes of an event that can't be decoded, in base64, where they are no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

fn write_json(selected: &Selected, buffer: &mut Vec<u8>) {
    let recorded = &selected.recorded;
    let mut line = ReplayedEvent {
        position: recorded.position,
        stored_at: recorded.stored_at,
        subject: &recorded.subject,
        event: None,
        undecodable: None,
        payload: None,
        payload_base64: None,
    };
    match &selected.decoded {
        Ok(envelope) => line.event = Some(envelope.opened()),
        Err(reason) => {
            line.undecodable = Some(reason.to_string());
            match std::str::from_utf8(&recorded.payload) {
                Ok(text) => line.payload = Some(text),
                Err(_) => line.payload_base64 = Some(STANDARD.encode(&recorded.payload)),
            }
        }
    }
    // Writing to a vector can't fail, and a line has nothing that JSON can't say.
    let _ = serde_json::to_writer(buffer, &line);
}

fn write_text(selected: &Selected, buffer: &mut Vec<u8>) {
    let recorded = &selected.recorded;
    let (actor, what) = match &selected.decoded {
        Ok(envelope) => {
            let actor = envelope.actor.map(|actor| actor.to_string());
            (actor.unwrap_or_else(|| "-".to_owned()), happened(envelope))
        }
        // Debug format: neither a subject nor a payload can reach the terminal with control characters.
        Err(reason) => (
            "?".to_owned(),
            format!(
                "undecodable event of {} bytes in {:?}: {:?}",
                recorded.payload.len(),
                recorded.subject,
                reason.to_string()
            ),
        ),
    };
    let line = format!(
        "{}  {}  {actor}  {what}",
        recorded.stored_at, recorded.position
    );
    buffer.extend_from_slice(line.as_bytes());
}

/// A name, quoted; one that is gone for ever is not.
fn name(name: Option<&String>) -> String {
    name.map_or_else(|| "[erased]".to_owned(), |name| format!("{name:?}"))
}

/// A message's text, quoted; one that is gone for ever is not.
fn text(text: Option<&String>) -> String {
    text.map_or_else(
        || "[erased or expired]".to_owned(),
        |text| format!("{text:?}"),
    )
}

/// What happened, on one line. Names and texts are quoted in Rust's debug format, which escapes quotes and
/// everything that is not visible: control characters, line ends, marks that reverse the direction.
pub(crate) fn happened(envelope: &Envelope) -> String {
    match &envelope.event {
        Event::UserCreated(event) => {
            let names = event.names.as_ref();
            format!(
                "created the {} user {}: {} {}",
                event.user_type,
                event.user_id,
                name(names.map(|names| &names.first_name)),
                name(names.map(|names| &names.last_name))
            )
        }
        Event::UserErased(event) => {
            format!("erased the {} user {}", event.user_type, event.user_id)
        }
        Event::UserDeleted(event) => {
            format!("deleted the {} user {}", event.user_type, event.user_id)
        }
        Event::RoomInitiated(event) => {
            let members: Vec<String> = event.members.iter().map(ToString::to_string).collect();
            format!(
                "initiated the {} room {} of {}",
                event.room_type,
                event.room_id,
                members.join(", ")
            )
        }
        Event::RoomDeleted(event) => {
            format!("deleted the {} room {}", event.room_type, event.room_id)
        }
        Event::MessagePosted(event) => {
            let text = text(event.message_text.as_ref());
            format!("posted to room {}: {text}", event.room_id)
        }
        Event::MessageEdited(event) => format!(
            "edited message {} of room {}: {}",
            event.message_id,
            event.room_id,
            text(event.message_text.as_ref())
        ),
        Event::MessageExpired(event) => format!(
            "let the texts of room {} expire up to message {}",
            event.room_id, event.up_to
        ),
        Event::RoomHeld(event) => format!(
            "put room {} under legal hold: {:?}",
            event.room_id, event.reason
        ),
        Event::RoomReleased(event) => {
            format!("released room {} from legal hold", event.room_id)
        }
        Event::AuditRead(event) => {
            let filter: Vec<String> = event
                .filter
                .iter()
                .map(|(name, value)| format!(", {name}={value:?}"))
                .collect();
            let operator = event.operator.as_ref();
            let operator = operator.map(|operator| format!(", by {operator:?}"));
            format!(
                "read the record: {:?}{}{}",
                event.what,
                filter.concat(),
                operator.unwrap_or_default()
            )
        }
        Event::MessageDeleted(event) => {
            format!(
                "deleted message {} of room {}",
                event.message_id, event.room_id
            )
        }
        Event::ConversationRead(event) => match event.up_to {
            None => format!("read all of room {}", event.room_id),
            Some(message) => format!("read room {} up to message {message}", event.room_id),
        },
    }
}
