//! The envelope in which an event is written to the log, and its JSON encoding.
//!
//! Personal texts are sealed on writing and opened on reading, see [`crate::seal`]; who reads and writes brings
//! the keys.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::payload::{self, Opened, Payload, Sealed};
use crate::seal::{self, DataKey, KeyId, Month};
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
    /// The event stands in a history that it does not belong to.
    #[error("the event belongs to the subject {belongs} but stands in {stands}")]
    Misplaced {
        /// The subject that it belongs to.
        belongs: crate::Subject,
        /// The one that it stands in, as written.
        stands: String,
    },
    /// What is sealed was not sealed with the keys it should be, or was changed or moved since.
    #[error("the sealed texts of {event_type} version {version} can't be opened with their keys")]
    Sealed {
        /// The type as written.
        event_type: String,
        /// The version as written.
        version: u16,
    },
}

impl DecodeError {
    /// What kind of trouble it is, without anything of what the event holds.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Envelope(_) => "it is not an event envelope",
            Self::UnknownType { .. } => "its type or version is unknown",
            Self::Data { .. } => "its data do not fit its type",
            Self::Misplaced { .. } => "it stands in another subject's history",
            Self::Sealed { .. } => "its sealed texts can't be opened",
        }
    }
}

/// The envelope as it is written.
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

/// An event as it stands in the log: what is sealed in it has not been opened.
#[derive(Debug)]
pub struct Encoded<'a> {
    id: Uuid,
    event_type: std::borrow::Cow<'a, str>,
    version: u16,
    at: Timestamp,
    actor: Option<UserId>,
    key: Option<IdempotencyKey>,
    payload: Payload,
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

    /// The keys that the event's personal texts are sealed with; none where it has no such texts.
    pub fn key_ids(&self) -> Vec<KeyId> {
        match &self.event {
            Event::UserCreated(event) => vec![KeyId::Person(event.user_id)],
            Event::MessagePosted(event) => message_keys(event.author, event.room_id, self.at),
            Event::MessageEdited(event) => {
                message_keys(event.author, event.room_id, event.posted_at)
            }
            _ => Vec::new(),
        }
    }

    /// The bytes to write to the log, with what is personal sealed with `keys`: those of
    /// [`key_ids`](Self::key_ids), in that order.
    pub fn encode(&self, keys: &[DataKey]) -> Vec<u8> {
        let version = self.event.version();
        let bound_to = self.bound_to(version);
        match Sealed::of(&self.event, |text| seal::seal(text, keys, &bound_to)) {
            Some(data) => json(&self.with_data(&data)),
            None => self.to_json(),
        }
    }

    /// [`Self::opened`] as bytes.
    pub fn to_json(&self) -> Vec<u8> {
        json(&self.opened())
    }

    /// The event to be serialised for who reads the record: as it stands in the log, but with its personal texts
    /// opened; those that are gone are `null`.
    pub fn opened(&self) -> OpenedEnvelope<'_> {
        OpenedEnvelope(self)
    }

    fn with_data<Data>(&self, data: Data) -> Written<'_, Data> {
        Written {
            id: self.id,
            event_type: self.event.type_name(),
            v: self.event.version(),
            at: self.at,
            actor: self.actor,
            key: self.key.as_ref(),
            data,
        }
    }

    /// What the sealed texts are bound to: nobody can move them to another event, or make another type or
    /// version of this one.
    fn bound_to(&self, version: u16) -> Vec<u8> {
        let Self { id, event, .. } = self;
        let (event_type, subject) = (event.type_name(), event.subject());
        format!("{id}\n{event_type}\n{version}\n{subject}").into_bytes()
    }
}

/// See [`Envelope::opened`].
#[derive(Debug, Clone, Copy)]
pub struct OpenedEnvelope<'a>(&'a Envelope);

impl Serialize for OpenedEnvelope<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = self.0.with_data(Opened(&self.0.event));
        written.serialize(serializer)
    }
}

// Serialising cannot fail: every map key is a string, and writing to a Vec does not fail.
#[allow(clippy::expect_used)]
fn json(written: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(written).expect("an event has only string keys")
}

/// A message's text is its author's, and of the month in which the message was posted.
fn message_keys(author: UserId, room: crate::RoomId, posted_at: Timestamp) -> Vec<KeyId> {
    let month = Month::of(posted_at);
    vec![KeyId::Person(author), KeyId::Period { room, month }]
}

impl<'a> Encoded<'a> {
    /// Reads what [`Envelope::encode`] wrote, now or in any earlier version of Hansard.
    ///
    /// # Errors
    /// The bytes are not an event that this version knows.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let read: Read<'a> = serde_json::from_slice(bytes).map_err(DecodeError::Envelope)?;
        let payload = payload::parse(&read.event_type, read.v, read.data)?;
        Ok(Self {
            id: read.id,
            event_type: read.event_type,
            version: read.v,
            at: read.at,
            actor: read.actor,
            key: read.key,
            payload,
        })
    }

    /// The keys that it takes to open what is sealed; none where nothing is.
    pub fn key_ids(&self) -> Vec<KeyId> {
        match &self.payload {
            Payload::Plain(_) => Vec::new(),
            Payload::Sealed(Sealed::UserCreated(data)) => vec![KeyId::Person(data.user_id)],
            Payload::Sealed(Sealed::MessagePosted(data)) => {
                message_keys(data.author, data.room_id, self.at)
            }
            Payload::Sealed(Sealed::MessageEdited(data)) => {
                message_keys(data.author, data.room_id, data.posted_at)
            }
        }
    }

    /// The event, opened with the keys of [`key_ids`](Self::key_ids), in that order; without its personal
    /// texts, for `None`: one of the keys has been destroyed.
    ///
    /// # Errors
    /// [`DecodeError::Sealed`], or [`DecodeError::Data`] of what was sealed.
    pub fn decode(self, keys: Option<&[DataKey]>) -> Result<Envelope, DecodeError> {
        let Self {
            id,
            event_type,
            version,
            at,
            actor,
            key,
            payload,
        } = self;
        let (event, sealed) = payload.unopened();
        let mut envelope = Envelope {
            id,
            at,
            actor,
            key,
            event,
        };
        if let (Some(sealed), Some(keys)) = (sealed, keys) {
            let refused = || DecodeError::Sealed {
                event_type: event_type.to_string(),
                version,
            };
            let bound_to = envelope.bound_to(version);
            let text = seal::open(&sealed, keys, &bound_to).ok_or_else(refused)?;
            payload::fill_in(&mut envelope.event, &text).ok_or_else(refused)?;
        }
        Ok(envelope)
    }
}
