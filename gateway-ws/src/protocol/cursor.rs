//! Positions as clients see them: they name their log as well, so that one from another log is told apart.

use std::fmt;
use std::str::FromStr;

use event_log::Incarnation;
use events::Position;
use serde::{Serialize, Serializer};
use uuid::Uuid;

/// Tells logs apart in a few characters: a hash of the log's incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogTag(u32);

impl LogTag {
    /// The tag of a log.
    pub fn of(incarnation: &Incarnation) -> Self {
        let hash = Uuid::new_v5(&Uuid::NAMESPACE_OID, incarnation.0.as_bytes());
        Self(hash.as_fields().0)
    }
}

/// A position of a log, as it stands in frames: 16 hex digits, `-`, and 8 for the log. Text order is log
/// order, among themselves and against message ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Where.
    pub position: Position,
    /// In which log.
    pub log: LogTag,
}

impl fmt::Display for Cursor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{:08x}", self.position, self.log.0)
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a client has: the position of a frame, or a message's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct After {
    /// Up to where.
    pub position: Position,
    /// Of which log; unknown for a message's id.
    pub log: Option<LogTag>,
}

/// The text is neither a frame's position nor a message's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is neither the position of a frame nor a message's id")]
pub struct InvalidAfter;

impl FromStr for After {
    type Err = InvalidAfter;

    fn from_str(text: &str) -> Result<Self, InvalidAfter> {
        let (position, log) = match text.split_once('-') {
            None => (text, None),
            Some((position, log)) => (position, Some(tag(log).ok_or(InvalidAfter)?)),
        };
        let position = position.parse().map_err(|_| InvalidAfter)?;
        Ok(Self { position, log })
    }
}

fn tag(text: &str) -> Option<LogTag> {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let well_formed = text.len() == 8 && text.bytes().all(is_hex);
    let tag = u32::from_str_radix(text, 16).ok()?;
    well_formed.then_some(LogTag(tag))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use events::MessageId;

    use super::*;

    fn cursor(position: u64, log: &str) -> Cursor {
        Cursor {
            position: Position::new(position),
            log: LogTag::of(&Incarnation(log.to_owned())),
        }
    }

    #[test]
    fn a_cursor_is_read_back_as_it_was_written() {
        let cursor = cursor(255, "one");
        let text = cursor.to_string();
        assert_eq!(&text[..17], "00000000000000ff-");
        assert_eq!(text.len(), 25);
        let after: After = text.parse().unwrap();
        assert_eq!(
            (after.position, after.log),
            (cursor.position, Some(cursor.log))
        );
    }

    #[test]
    fn logs_differ_in_their_tags() {
        assert_ne!(cursor(1, "one").log, cursor(1, "two").log);
    }

    #[test]
    fn a_message_id_names_no_log() {
        let after: After = "00000000000000ff".parse().unwrap();
        assert_eq!((after.position, after.log), (Position::new(255), None));
    }

    #[test]
    fn text_order_is_log_order() {
        let of_message = MessageId::at(Position::new(16)).to_string();
        assert!(cursor(15, "one").to_string() < of_message);
        assert!(cursor(16, "one").to_string() > of_message);
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "-",
            "ff",
            "00000000000000ff-",
            "00000000000000ff-3f9c1b2",
            "00000000000000ff-3f9c1b2e0",
            "00000000000000ff-3F9C1B2E",
            "00000000000000ff-+f9c1b2e",
            "00000000000000ff-3f9c1b2e-",
            "0000000000000-ff3f9c1b2e",
        ] {
            assert_eq!(text.parse::<After>(), Err(InvalidAfter), "{text}");
        }
    }
}
