//! Log subjects: which user's or room's history an event belongs to.

use std::fmt;
use std::str::FromStr;

use crate::{RoomId, UserId};

/// The text is not the subject of any of Hansard's histories.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a subject of this log: {0:?}")]
pub struct InvalidSubject(String);

/// The history that an event belongs to. The number of subjects grows with users and rooms, never with
/// messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// `chat.user.<user>`: the user's creation, deletion and erasure.
    User(UserId),
    /// `chat.room.<room>.lifecycle`: the room's initiation and deletion.
    RoomLifecycle(RoomId),
    /// `chat.room.<room>.timeline`: posts, edits and deletions of messages, reads.
    RoomTimeline(RoomId),
    /// `chat.room.<room>.hold`: the room's legal holds.
    RoomHold(RoomId),
    /// `chat.room.<room>.retention`: up to where the room's texts have expired.
    RoomRetention(RoomId),
    /// `chat.audit`: readings of the record itself.
    Audit,
}

impl Subject {
    /// The room whose history it is; `None` for the others.
    pub const fn room(self) -> Option<RoomId> {
        match self {
            Self::RoomLifecycle(room)
            | Self::RoomTimeline(room)
            | Self::RoomHold(room)
            | Self::RoomRetention(room) => Some(room),
            Self::User(_) | Self::Audit => None,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => write!(formatter, "chat.user.{user}"),
            Self::RoomLifecycle(room) => write!(formatter, "chat.room.{room}.lifecycle"),
            Self::RoomTimeline(room) => write!(formatter, "chat.room.{room}.timeline"),
            Self::RoomHold(room) => write!(formatter, "chat.room.{room}.hold"),
            Self::RoomRetention(room) => write!(formatter, "chat.room.{room}.retention"),
            Self::Audit => formatter.write_str("chat.audit"),
        }
    }
}

impl FromStr for Subject {
    type Err = InvalidSubject;

    fn from_str(text: &str) -> Result<Self, InvalidSubject> {
        let invalid = || InvalidSubject(text.to_owned());
        if let Some(user) = text.strip_prefix("chat.user.") {
            return user.parse().map(Self::User).map_err(|_| invalid());
        }
        if text == "chat.audit" {
            return Ok(Self::Audit);
        }
        let (room, history) = text
            .strip_prefix("chat.room.")
            .and_then(|rest| rest.split_once('.'))
            .ok_or_else(invalid)?;
        let room = room.parse().map_err(|_| invalid())?;
        match history {
            "lifecycle" => Ok(Self::RoomLifecycle(room)),
            "timeline" => Ok(Self::RoomTimeline(room)),
            "hold" => Ok(Self::RoomHold(room)),
            "retention" => Ok(Self::RoomRetention(room)),
            _ => Err(invalid()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn subjects_read_back() {
        let hex = "0123456789abcdef0123456789abcdef";
        for subject in [
            Subject::User(hex.parse().unwrap()),
            Subject::RoomLifecycle(hex.parse().unwrap()),
            Subject::RoomTimeline(hex.parse().unwrap()),
            Subject::RoomHold(hex.parse().unwrap()),
            Subject::RoomRetention(hex.parse().unwrap()),
            Subject::Audit,
        ] {
            assert_eq!(subject.to_string().parse(), Ok(subject));
        }
        for wrong in [
            "",
            "chat.user.>",
            "chat.room.*.timeline",
            "chat.room.x",
            "other",
        ] {
            assert!(wrong.parse::<Subject>().is_err(), "{wrong}");
        }
    }
}
