//! The `data` of an event, in every version ever written.

use std::borrow::Cow;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::{
    DecodeError, Event, MessageEdited, MessageId, MessagePosted, Names, RoomId, Timestamp,
    UserCreated, UserId, UserType,
};

/// What stands in the log.
#[derive(Debug)]
pub(crate) enum Payload {
    /// All of the event.
    Plain(Box<Event>),
    /// An event whose personal texts are sealed.
    Sealed(Sealed),
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Sealed {
    UserCreated(SealedUserCreated),
    MessagePosted(SealedMessagePosted),
    MessageEdited(SealedMessageEdited),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SealedUserCreated {
    pub(crate) user_id: UserId,
    #[serde(rename = "type")]
    user_type: UserType,
    /// [`Names`].
    sealed: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SealedMessagePosted {
    pub(crate) room_id: RoomId,
    pub(crate) author: UserId,
    /// [`Text`].
    sealed: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SealedMessageEdited {
    pub(crate) room_id: RoomId,
    message_id: MessageId,
    pub(crate) author: UserId,
    pub(crate) posted_at: Timestamp,
    /// [`Text`].
    sealed: String,
}

/// What is sealed of a message.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Text<'a> {
    message_text: Cow<'a, str>,
}

/// `user.created` with its texts as they are: version 1, and how it is shown to who reads the record.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OpenUserCreated<S> {
    user_id: UserId,
    first_name: S,
    last_name: S,
    #[serde(rename = "type")]
    user_type: UserType,
}

/// The same of `message.posted`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OpenMessagePosted<S> {
    room_id: RoomId,
    author: UserId,
    message_text: S,
}

/// How `message.edited` is shown to who reads the record.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OpenMessageEdited<'a> {
    room_id: RoomId,
    message_id: MessageId,
    author: UserId,
    posted_at: Timestamp,
    message_text: Option<&'a str>,
}

/// Reads the data of an event of this type and version.
pub(crate) fn parse(
    event_type: &str,
    version: u16,
    data: &RawValue,
) -> Result<Payload, DecodeError> {
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
    macro_rules! plain {
        ($variant:ident) => {
            read(event_type, version, data).map(|it| Payload::Plain(Box::new(Event::$variant(it))))
        };
    }
    macro_rules! sealed {
        ($variant:ident) => {
            read(event_type, version, data).map(|it| Payload::Sealed(Sealed::$variant(it)))
        };
    }
    // One arm for each version ever written; an old one is read as it was and turned into the newest.
    match (event_type, version) {
        ("user.created", 1) => {
            let data: OpenUserCreated<String> = read(event_type, version, data)?;
            Ok(Payload::Plain(Box::new(Event::UserCreated(UserCreated {
                user_id: data.user_id,
                names: Some(Names {
                    first_name: data.first_name,
                    last_name: data.last_name,
                }),
                user_type: data.user_type,
            }))))
        }
        ("user.created", 2) => sealed!(UserCreated),
        ("user.deleted", 1) => plain!(UserDeleted),
        ("user.erased", 1) => plain!(UserErased),
        ("room.initiated", 1) => plain!(RoomInitiated),
        ("room.deleted", 1) => plain!(RoomDeleted),
        ("room.held", 1) => plain!(RoomHeld),
        ("room.released", 1) => plain!(RoomReleased),
        ("message.posted", 1) => {
            let data: OpenMessagePosted<String> = read(event_type, version, data)?;
            let event = Event::MessagePosted(MessagePosted {
                room_id: data.room_id,
                author: data.author,
                message_text: Some(data.message_text),
            });
            Ok(Payload::Plain(Box::new(event)))
        }
        ("message.posted", 2) => sealed!(MessagePosted),
        ("message.edited", 1) => sealed!(MessageEdited),
        ("message.deleted", 1) => plain!(MessageDeleted),
        ("message.expired", 1) => plain!(MessageExpired),
        ("conversation.read", 1) => plain!(ConversationRead),
        ("audit.read", 1) => plain!(AuditRead),
        _ => Err(DecodeError::UnknownType {
            event_type: event_type.to_owned(),
            version,
        }),
    }
}

impl Sealed {
    /// The data to write of an event that has personal texts, sealed by `seal`; `None` of one that has none.
    pub(crate) fn of(event: &Event, seal: impl Fn(&[u8]) -> String) -> Option<Self> {
        let seal_text = |text: &Option<String>| {
            let text = text.as_ref().map(|text| Text {
                message_text: text.into(),
            });
            seal(&json(&text))
        };
        Some(match event {
            Event::UserCreated(event) => Self::UserCreated(SealedUserCreated {
                user_id: event.user_id,
                user_type: event.user_type,
                sealed: seal(&json(&event.names)),
            }),
            Event::MessagePosted(event) => Self::MessagePosted(SealedMessagePosted {
                room_id: event.room_id,
                author: event.author,
                sealed: seal_text(&event.message_text),
            }),
            Event::MessageEdited(event) => Self::MessageEdited(SealedMessageEdited {
                room_id: event.room_id,
                message_id: event.message_id,
                author: event.author,
                posted_at: event.posted_at,
                sealed: seal_text(&event.message_text),
            }),
            _ => return None,
        })
    }
}

impl Payload {
    /// The event without its personal texts, and these as they are sealed.
    pub(crate) fn unopened(self) -> (Event, Option<String>) {
        match self {
            Self::Plain(event) => (*event, None),
            Self::Sealed(Sealed::UserCreated(data)) => {
                let event = UserCreated {
                    user_id: data.user_id,
                    names: None,
                    user_type: data.user_type,
                };
                (Event::UserCreated(event), Some(data.sealed))
            }
            Self::Sealed(Sealed::MessagePosted(data)) => {
                let event = MessagePosted {
                    room_id: data.room_id,
                    author: data.author,
                    message_text: None,
                };
                (Event::MessagePosted(event), Some(data.sealed))
            }
            Self::Sealed(Sealed::MessageEdited(data)) => {
                let event = MessageEdited {
                    room_id: data.room_id,
                    message_id: data.message_id,
                    author: data.author,
                    posted_at: data.posted_at,
                    message_text: None,
                };
                (Event::MessageEdited(event), Some(data.sealed))
            }
        }
    }
}

/// Puts the opened texts into the event they are of; `None` when they don't fit. What did not fit is not told:
/// it is personal.
pub(crate) fn fill_in(event: &mut Event, opened: &[u8]) -> Option<()> {
    match event {
        Event::UserCreated(event) => event.names = serde_json::from_slice(opened).ok()?,
        Event::MessagePosted(event) => event.message_text = opened_text(opened)?,
        Event::MessageEdited(event) => event.message_text = opened_text(opened)?,
        _ => return None,
    }
    Some(())
}

fn opened_text(opened: &[u8]) -> Option<Option<String>> {
    let text: Option<Text<'_>> = serde_json::from_slice(opened).ok()?;
    Some(text.map(|text| text.message_text.into_owned()))
}

// Texts can't fail to be serialised.
#[allow(clippy::expect_used)]
fn json(texts: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(texts).expect("texts are JSON")
}

/// An event's data with the personal texts as they are.
pub(crate) struct Opened<'a>(pub(crate) &'a Event);

impl Serialize for Opened<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Event::UserCreated(event) => OpenUserCreated {
                user_id: event.user_id,
                first_name: event.names.as_ref().map(|names| &names.first_name),
                last_name: event.names.as_ref().map(|names| &names.last_name),
                user_type: event.user_type,
            }
            .serialize(serializer),
            Event::UserDeleted(event) => event.serialize(serializer),
            Event::UserErased(event) => event.serialize(serializer),
            Event::RoomInitiated(event) => event.serialize(serializer),
            Event::RoomDeleted(event) => event.serialize(serializer),
            Event::RoomHeld(event) => event.serialize(serializer),
            Event::RoomReleased(event) => event.serialize(serializer),
            Event::MessagePosted(event) => OpenMessagePosted {
                room_id: event.room_id,
                author: event.author,
                message_text: event.message_text.as_ref(),
            }
            .serialize(serializer),
            Event::MessageEdited(event) => OpenMessageEdited {
                room_id: event.room_id,
                message_id: event.message_id,
                author: event.author,
                posted_at: event.posted_at,
                message_text: event.message_text.as_deref(),
            }
            .serialize(serializer),
            Event::MessageDeleted(event) => event.serialize(serializer),
            Event::MessageExpired(event) => event.serialize(serializer),
            Event::ConversationRead(event) => event.serialize(serializer),
            Event::AuditRead(event) => event.serialize(serializer),
        }
    }
}
