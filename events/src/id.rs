//! The ids of users, rooms and messages, and the position of an event in the log.
//!
//! Every id has exactly one spelling, in lower-case hex digits. That makes text equality the same as id
//! equality, and nothing but hex can reach a log subject built from an id.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::RoomType;

/// The text is not an id: it has the wrong length or characters other than lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not {kind}: expected {digits} lower-case hex digits")]
pub struct InvalidId {
    kind: &'static str,
    digits: usize,
}

fn is_lower_hex(text: &str, digits: usize) -> bool {
    text.len() == digits
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

macro_rules! text_serde {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// The id that these 128 bits spell.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The 128 bits of the id.
            pub const fn as_uuid(&self) -> &Uuid {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.simple().fmt(formatter)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let invalid = InvalidId { kind: $kind, digits: 32 };
                if !is_lower_hex(text, 32) {
                    return Err(invalid);
                }
                Uuid::try_parse(text).map(Self).map_err(|_| invalid)
            }
        }

        text_serde!($name);
    };
}

uuid_id!(
    /// A user's id: 32 lower-case hex digits, random.
    UserId,
    "a user id"
);

uuid_id!(
    /// A room's id: 32 lower-case hex digits, derived from what identifies the room.
    RoomId,
    "a room id"
);

impl UserId {
    /// A new random id.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

/// The name space of room ids (RFC 9562, section 5.5). Changing it would change every room's id.
const ROOM_NAMESPACE: Uuid = Uuid::from_u128(0x6861_6e73_6172_6421_8f0e_7c1d_0000_0001);

impl RoomId {
    /// The id of the room that has these members and this type, in its `generation`th life (0 is the
    /// first; each deletion of the room starts the next). The order of `members` does not matter, nor do
    /// repetitions.
    ///
    /// Because the id follows from the members, two concurrent calls that initiate a room name the same
    /// log subject, and only one of them can be its first event.
    pub fn derive(room_type: RoomType, members: &[UserId], generation: u32) -> Self {
        let mut sorted = members.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let mut name = format!("{}\n{generation}", room_type.as_str());
        for member in sorted {
            name.push('\n');
            name.push_str(&member.to_string());
        }
        Self(Uuid::new_v5(&ROOM_NAMESPACE, name.as_bytes()))
    }
}

/// An event's place in the log: the one total order. The first event is at 1.
///
/// Written as 16 lower-case hex digits, so that the order of the texts is the order of the log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(u64);

impl Position {
    /// Before the first event.
    pub const ZERO: Self = Self(0);

    /// The position with this sequence number in the log.
    pub const fn new(sequence: u64) -> Self {
        Self(sequence)
    }

    /// The sequence number in the log.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The position directly after this one; the last possible one is followed by itself.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

impl FromStr for Position {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = InvalidId {
            kind: "a position",
            digits: 16,
        };
        if !is_lower_hex(text, 16) {
            return Err(invalid);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| invalid)
    }
}

text_serde!(Position);

/// A message's id: the position of the event that posted it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(Position);

impl MessageId {
    /// The id of the message that was posted at `position`.
    pub const fn at(position: Position) -> Self {
        Self(position)
    }

    /// Where in the log the message was posted.
    pub const fn position(self) -> Position {
        self.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl FromStr for MessageId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        text.parse().map(Self).map_err(|_| InvalidId {
            kind: "a message id",
            digits: 16,
        })
    }
}

text_serde!(MessageId);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        let id = "0123456789abcdef0123456789abcdef";
        assert_eq!(id.parse::<UserId>().unwrap().to_string(), id);
        for wrong in [
            "",
            "0123456789ABCDEF0123456789ABCDEF",
            "01234567-89ab-cdef-0123-456789abcdef",
            "0123456789abcdef0123456789abcde",
            "0123456789abcdef0123456789abcde>",
            "0123456789abcdef0123456789abcde.",
            "0123456789abcdef0123456789abcdé",
        ] {
            assert!(wrong.parse::<UserId>().is_err(), "{wrong}");
            assert!(wrong.parse::<RoomId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn positions_sort_as_texts() {
        let mut positions = [
            Position::new(256),
            Position::new(3),
            Position::new(u64::MAX),
        ];
        let mut texts = positions.map(|position| position.to_string());
        positions.sort();
        texts.sort();
        assert_eq!(positions.map(|position| position.to_string()), texts);
        assert_eq!(texts[0], "0000000000000003");
        assert!("+000000000000003".parse::<Position>().is_err());
    }

    #[test]
    fn a_rooms_id_depends_on_the_set_of_members_type_and_generation() {
        let [anna, bela] = [1, 2].map(|n| UserId::from_uuid(Uuid::from_u128(n)));
        let id = RoomId::derive(RoomType::ConsumerToConsumer, &[anna, bela], 0);
        assert_eq!(
            id,
            RoomId::derive(RoomType::ConsumerToConsumer, &[bela, anna, bela], 0)
        );
        assert_ne!(
            id,
            RoomId::derive(RoomType::ConsumerToSupport, &[anna, bela], 0)
        );
        assert_ne!(
            id,
            RoomId::derive(RoomType::ConsumerToConsumer, &[anna, bela], 1)
        );
        assert_ne!(id, RoomId::derive(RoomType::ConsumerToConsumer, &[anna], 0));
        // Written to logs: must never change.
        assert_eq!(id.to_string(), "fdea73b895bd5d68b753699111fab779");
    }
}
