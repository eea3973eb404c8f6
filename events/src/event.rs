//! What can happen: the events and their payloads, each in its newest version.
//!
//! Types are only ever added. A payload that must change gets a new version number, and the old one is
//! upcast on reading ([`crate::Envelope::decode`]); every version ever written stays as a golden file.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{MessageId, RoomId, Subject, Timestamp, UserId};

/// The text names none of the possible values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("possible values are {0}")]
pub struct UnknownVariant(&'static str);

macro_rules! text_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $text)] $variant,)+
        }

        impl $name {
            /// Every possible value.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The value as it is written in the log and in the API.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownVariant;

            fn from_str(text: &str) -> Result<Self, UnknownVariant> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(UnknownVariant(text_enum!(@list $($text)+))),
                }
            }
        }
    };
    (@list $first:literal $($rest:literal)*) => { concat!($first $(, ",", $rest)*) };
}

text_enum!(
    /// What kind of user somebody is.
    UserType {
        /// A customer.
        Consumer = "consumer",
        /// Somebody who supports customers.
        Support = "support",
    }
);

text_enum!(
    /// What kind of conversation a room holds.
    RoomType {
        /// Among customers.
        ConsumerToConsumer = "consumer-to-consumer",
        /// Between customers and support.
        ConsumerToSupport = "consumer-to-support",
    }
);

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// `user.created`
    UserCreated(UserCreated),
    /// `user.deleted`
    UserDeleted(UserDeleted),
    /// `user.erased`
    UserErased(UserErased),
    /// `room.initiated`
    RoomInitiated(RoomInitiated),
    /// `room.deleted`
    RoomDeleted(RoomDeleted),
    /// `room.held`
    RoomHeld(RoomHeld),
    /// `room.released`
    RoomReleased(RoomReleased),
    /// `message.posted`
    MessagePosted(MessagePosted),
    /// `message.edited`
    MessageEdited(MessageEdited),
    /// `message.deleted`
    MessageDeleted(MessageDeleted),
    /// `message.expired`
    MessageExpired(MessageExpired),
    /// `conversation.read`
    ConversationRead(ConversationRead),
    /// `audit.read`
    AuditRead(AuditRead),
}

/// A user was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserCreated {
    /// The new user's id.
    pub user_id: UserId,
    /// The user's names, as they were sent; `None` once the user has been erased.
    pub names: Option<Names>,
    /// What kind of user it is.
    pub user_type: UserType,
}

impl UserCreated {
    /// Given name; empty once the user has been erased.
    pub fn first_name(&self) -> &str {
        self.names.as_ref().map_or("", |names| &names.first_name)
    }

    /// Family name; empty once the user has been erased.
    pub fn last_name(&self) -> &str {
        self.names.as_ref().map_or("", |names| &names.last_name)
    }
}

/// A person's names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Names {
    /// Given name.
    pub first_name: String,
    /// Family name.
    pub last_name: String,
}

impl Names {
    /// These two.
    pub fn new(first_name: impl Into<String>, last_name: impl Into<String>) -> Self {
        Self {
            first_name: first_name.into(),
            last_name: last_name.into(),
        }
    }
}

/// A user was deleted. Carries what is still shown of a deleted user, so that the last event of a user's
/// subject is the user's whole state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UserDeleted {
    /// The deleted user's id.
    pub user_id: UserId,
    /// What kind of user it was.
    #[serde(rename = "type")]
    pub user_type: UserType,
    /// When the user had been created.
    pub created_at: Timestamp,
}

/// A user was erased: deleted, if that had not happened before, and everything personal made unreadable for
/// ever by the destruction of the user's key. Carries what [`UserDeleted`] carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UserErased {
    /// The erased user's id.
    pub user_id: UserId,
    /// What kind of user it was.
    #[serde(rename = "type")]
    pub user_type: UserType,
    /// When the user had been created.
    pub created_at: Timestamp,
}

/// Members as the log must hold them: membership is looked up by binary search.
fn members<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<UserId>, D::Error> {
    let members = Vec::<UserId>::deserialize(deserializer)?;
    if !members.is_sorted_by(|one, next| one < next) {
        return Err(serde::de::Error::custom(
            "members must be in ascending order, each once",
        ));
    }
    Ok(members)
}

/// A room was initiated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RoomInitiated {
    /// The new room's id; see [`RoomId::derive`].
    pub room_id: RoomId,
    /// What kind of conversation it holds.
    #[serde(rename = "type")]
    pub room_type: RoomType,
    /// Its members, in ascending order, each once.
    #[serde(deserialize_with = "members")]
    pub members: Vec<UserId>,
    /// The member who initiated it.
    pub initiator: UserId,
    /// How many times the room of these members had been deleted before.
    pub generation: u32,
}

/// A room was deleted, and all its messages with it. Carries what the room was, so that the last event of
/// a room's lifecycle subject is the room's whole state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RoomDeleted {
    /// The deleted room's id.
    pub room_id: RoomId,
    /// What kind of conversation it held.
    #[serde(rename = "type")]
    pub room_type: RoomType,
    /// Who its members were, in ascending order, each once.
    #[serde(deserialize_with = "members")]
    pub members: Vec<UserId>,
    /// Who had initiated it.
    pub initiator: UserId,
    /// How many times the room of these members had been deleted before.
    pub generation: u32,
    /// When it had been initiated.
    pub initiated_at: Timestamp,
}

/// A room was put under legal hold: nothing in it expires, it can't be deleted, and none of its members can be
/// erased, until it is released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RoomHeld {
    /// The room.
    pub room_id: RoomId,
    /// Why, as it was given: the name of a case, for example. Not sealed: nothing personal belongs here.
    pub reason: String,
}

/// A room's legal hold was lifted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RoomReleased {
    /// The room.
    pub room_id: RoomId,
}

/// A message was posted. Its id is the position of this event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessagePosted {
    /// The room it was posted to.
    pub room_id: RoomId,
    /// The member who wrote it.
    pub author: UserId,
    /// The text, byte for byte as it was sent; `None` once it has expired or its author has been erased.
    pub message_text: Option<String>,
}

/// The author gave a message another text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageEdited {
    /// The room it was posted to.
    pub room_id: RoomId,
    /// The message.
    pub message_id: MessageId,
    /// Its author.
    pub author: UserId,
    /// When the message was posted: what it says now expires with what it said first.
    pub posted_at: Timestamp,
    /// The new text, byte for byte as it was sent; `None` once it has expired or its author has been erased.
    pub message_text: Option<String>,
}

/// A message was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MessageDeleted {
    /// The room it had been posted to.
    pub room_id: RoomId,
    /// The deleted message.
    pub message_id: MessageId,
}

/// The texts of a room's older messages have reached the age at which they are not kept any longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MessageExpired {
    /// The room.
    pub room_id: RoomId,
    /// The last message whose text has expired; so have those of all before it.
    pub up_to: MessageId,
}

/// The record was read. Who read it is the event's actor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuditRead {
    /// What was read: the route or command, for example `GET /audit/events`.
    pub what: String,
    /// How it was restricted: each condition's name and value.
    pub filter: BTreeMap<String, String>,
    /// Who gave the command, where it did not come over HTTP: the user's name on which machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
}

/// A member read a conversation. It marks everything before it as read, or, with `up_to`, everything up
/// to and with that message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConversationRead {
    /// The room that was read.
    pub room_id: RoomId,
    /// The member who read it.
    pub reader: UserId,
    /// The last message that was read; absent: all there were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_to: Option<MessageId>,
}

impl Event {
    /// Every type, as it is written in the log.
    pub const TYPES: &'static [&'static str] = &[
        "user.created",
        "user.deleted",
        "user.erased",
        "room.initiated",
        "room.deleted",
        "room.held",
        "room.released",
        "message.posted",
        "message.edited",
        "message.deleted",
        "message.expired",
        "conversation.read",
        "audit.read",
    ];

    /// The type as it is written in the log.
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::UserCreated(_) => "user.created",
            Self::UserDeleted(_) => "user.deleted",
            Self::UserErased(_) => "user.erased",
            Self::RoomInitiated(_) => "room.initiated",
            Self::RoomDeleted(_) => "room.deleted",
            Self::RoomHeld(_) => "room.held",
            Self::RoomReleased(_) => "room.released",
            Self::MessagePosted(_) => "message.posted",
            Self::MessageEdited(_) => "message.edited",
            Self::MessageDeleted(_) => "message.deleted",
            Self::MessageExpired(_) => "message.expired",
            Self::ConversationRead(_) => "conversation.read",
            Self::AuditRead(_) => "audit.read",
        }
    }

    /// The version in which new events of this type are written.
    pub const fn version(&self) -> u16 {
        match self {
            // Version 1 had the texts as they are.
            Self::UserCreated(_) | Self::MessagePosted(_) => 2,
            _ => 1,
        }
    }

    /// The history that the event belongs to.
    pub const fn subject(&self) -> Subject {
        match self {
            Self::UserCreated(event) => Subject::User(event.user_id),
            Self::UserDeleted(event) => Subject::User(event.user_id),
            Self::UserErased(event) => Subject::User(event.user_id),
            Self::RoomInitiated(event) => Subject::RoomLifecycle(event.room_id),
            Self::RoomDeleted(event) => Subject::RoomLifecycle(event.room_id),
            Self::RoomHeld(event) => Subject::RoomHold(event.room_id),
            Self::RoomReleased(event) => Subject::RoomHold(event.room_id),
            Self::MessagePosted(event) => Subject::RoomTimeline(event.room_id),
            Self::MessageEdited(event) => Subject::RoomTimeline(event.room_id),
            Self::MessageDeleted(event) => Subject::RoomTimeline(event.room_id),
            Self::MessageExpired(event) => Subject::RoomRetention(event.room_id),
            Self::ConversationRead(event) => Subject::RoomTimeline(event.room_id),
            Self::AuditRead(_) => Subject::Audit,
        }
    }

    /// The room in which it happened; `None` for what happens in none.
    pub const fn room(&self) -> Option<RoomId> {
        self.subject().room()
    }
}
