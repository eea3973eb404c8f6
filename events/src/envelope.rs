//! The envelope in which an event is written to the log, and its JSON encoding.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{Event, Timestamp, UserId};

/// An event with what is known about its origin: `{"id", "type", "v", "at", "actor", "key", "data"}`.
///
/// The log adds the position and the time at which the event was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The event's own id, a UUIDv7.
    pub id: Uuid,
    /// When the command was decided, by the clock of the process that decided it.
    pub at: Timestamp,
    /// Who commanded it; `None` where nobody in particular did.
    pub actor: Option<UserId>,
    /// The client's idempotency key, where it sent one.
    pub key: Option<IdempotencyKey>,
    /// What happened.
    pub event: Event,
}

/// An `Idempotency-Key` that is empty, too long, or has characters other than visible ASCII.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an idempotency key is 1 to 255 visible ASCII characters")]
pub struct InvalidIdempotencyKey;

/// A client's name for one request: 1 to 255 visible ASCII characters. Repeating a request with the same
/// key has no further effect.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The key as the client sent it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for IdempotencyKey {
    type Err = InvalidIdempotencyKey;

    fn from_str(text: &str) -> Result<Self, InvalidIdempotencyKey> {
        let valid = (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        valid
            .then(|| Self(text.to_owned()))
            .ok_or(InvalidIdempotencyKey)
    }
}

impl<'de> Deserialize<'de> for IdempotencyKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Bytes in the log that are not an event this version of Hansard knows.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not the envelope's JSON.
    #[error("not an event envelope: {0}")]
    Envelope(#[source] serde_json::Error),
    /// An event type or version that this version of Hansard does not know.
    #[error("unknown event type {event_type:?} version {version}")]
    UnknownType {
        /// The type as written.
        event_type: String,
        /// The version as written.
        version: u16,
    },
    /// The payload does not fit the type and version.
    #[error("the data do not fit {event_type} version {version}: {source}")]
    Data {
        /// The type as written.
        event_type: String,
        /// The version as written.
        version: u16,
        /// What did not fit.
        source: serde_json::Error,
    },
}

/// The envelope as it stands in the log.
#[derive(Serialize)]
struct Written<'a, Data> {
    id: Uuid,
    #[serde(rename = "type")]
    event_type: &'a str,
    v: u16,
    at: Timestamp,
    actor: Option<UserId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a IdempotencyKey>,
    data: Data,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read<'a> {
    id: Uuid,
    #[serde(rename = "type", borrow)]
    event_type: std::borrow::Cow<'a, str>,
    v: u16,
    at: Timestamp,
    actor: Option<UserId>,
    key: Option<IdempotencyKey>,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// The name space of the ids under which the log recognises a repeated request.
const DEDUPLICATION_NAMESPACE: Uuid = Uuid::from_u128(0x6861_6e73_6172_6421_8f0e_7c1d_0000_0002);

impl Envelope {
    /// A new event, decided now.
    pub fn new(event: Event, actor: Option<UserId>, key: Option<IdempotencyKey>) -> Self {
        Self {
            id: Uuid::now_v7(),
            at: Timestamp::now(),
            actor,
            key,
            event,
        }
    }

    /// The id under which the log recognises this event when it is appended again: made from actor and
    /// idempotency key where there is a key, so that any replica makes the same one from a repeated
    /// request; else the event's own id.
    pub fn deduplication_id(&self) -> Uuid {
        match &self.key {
            None => self.id,
            Some(key) => Self::deduplication_id_for(self.actor, key),
        }
    }

    /// The [deduplication id](Self::deduplication_id) of any event that `actor` causes with `key`.
    pub fn deduplication_id_for(actor: Option<UserId>, key: &IdempotencyKey) -> Uuid {
        let actor = actor.map(|actor| actor.to_string()).unwrap_or_default();
        Uuid::new_v5(
            &DEDUPLICATION_NAMESPACE,
            format!("{actor}\n{key}").as_bytes(),
        )
    }

    /// The bytes to write to the log.
    pub fn encode(&self) -> Vec<u8> {
        // Serialising cannot fail: every map key is a string, and writing to a Vec does not fail.
        match &self.event {
            Event::UserCreated(data) => self.encode_with(data),
            Event::UserDeleted(data) => self.encode_with(data),
            Event::RoomInitiated(data) => self.encode_with(data),
            Event::RoomDeleted(data) => self.encode_with(data),
            Event::MessagePosted(data) => self.encode_with(data),
            Event::MessageDeleted(data) => self.encode_with(data),
            Event::ConversationRead(data) => self.encode_with(data),
        }
    }

    #[allow(clippy::expect_used)]
    fn encode_with(&self, data: impl Serialize) -> Vec<u8> {
        serde_json::to_vec(&Written {
            id: self.id,
            event_type: self.event.type_name(),
            v: self.event.version(),
            at: self.at,
            actor: self.actor,
            key: self.key.as_ref(),
            data,
        })
        .expect("an event has only string keys")
    }

    /// Reads what [`encode`](Self::encode) wrote, now or in any earlier version of Hansard.
    ///
    /// # Errors
    /// The bytes are not an event that this version knows.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let read: Read<'_> = serde_json::from_slice(bytes).map_err(DecodeError::Envelope)?;
        Ok(Self {
            id: read.id,
            at: read.at,
            actor: read.actor,
            key: read.key,
            event: decode_event(&read.event_type, read.v, read.data)?,
        })
    }
}

fn decode_event(event_type: &str, version: u16, data: &RawValue) -> Result<Event, DecodeError> {
    fn read<'a, T: Deserialize<'a>>(
        event_type: &str,
        version: u16,
        data: &'a RawValue,
    ) -> Result<T, DecodeError> {
        serde_json::from_str(data.get()).map_err(|source| DecodeError::Data {
            event_type: event_type.to_owned(),
            version,
            source,
        })
    }
    // One arm for each version ever written; an old one is read as it was and turned into the newest.
    match (event_type, version) {
        ("user.created", 1) => read(event_type, version, data).map(Event::UserCreated),
        ("user.deleted", 1) => read(event_type, version, data).map(Event::UserDeleted),
        ("room.initiated", 1) => read(event_type, version, data).map(Event::RoomInitiated),
        ("room.deleted", 1) => read(event_type, version, data).map(Event::RoomDeleted),
        ("message.posted", 1) => read(event_type, version, data).map(Event::MessagePosted),
        ("message.deleted", 1) => read(event_type, version, data).map(Event::MessageDeleted),
        ("conversation.read", 1) => read(event_type, version, data).map(Event::ConversationRead),
        _ => Err(DecodeError::UnknownType {
            event_type: event_type.to_owned(),
            version,
        }),
    }
}
