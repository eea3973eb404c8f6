//! Which events a replay is about.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use event_log::{Filter, Position, Recorded};
use events::{DecodeError, Envelope, Event, RoomId, Timestamp, UserId};

/// Which events to replay; what is `None` or empty does not restrict them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplayFilter {
    /// Those of this room: its lifecycle, its timeline and its legal holds.
    pub room: Option<RoomId>,
    /// Those that this user caused, or that are about this user.
    pub user: Option<UserId>,
    /// Those of these types.
    pub types: Vec<EventType>,
    /// Those not before this.
    pub from: Option<Bound>,
    /// Those not after this.
    pub to: Option<Bound>,
}

/// One of [`Event::TYPES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventType(&'static str);

/// The text names no type of events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a type of events: there are {}", Event::TYPES.join(", "))]
pub struct InvalidEventType;

impl FromStr for EventType {
    type Err = InvalidEventType;

    fn from_str(text: &str) -> Result<Self, InvalidEventType> {
        let mut types = Event::TYPES.iter();
        let known = types.find(|known| **known == text);
        known.copied().map(Self).ok_or(InvalidEventType)
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }
}

/// Where a part of the log begins or ends; the bound itself belongs to the part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// A time, compared with the time at which the log stored each event.
    ///
    /// Clocks jump, so these times need not ascend along the log: each event is judged by its own.
    Time(Timestamp),
    /// A position in the log.
    Position(Position),
}

/// The text is neither a time nor a position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "neither a time nor a position: expected RFC 3339, for example 2026-11-22T17:16:12.692Z, or 16 lower-case hex digits, or a decimal number"
)]
pub struct InvalidBound;

/// The range ends before it begins.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the range from {from} to {to} ends before it begins")]
pub struct InvalidRange {
    from: Bound,
    to: Bound,
}

impl FromStr for Bound {
    type Err = InvalidBound;

    /// Reads a position as the API writes it (16 hex digits) or as a decimal number, or else a time.
    fn from_str(text: &str) -> Result<Self, InvalidBound> {
        if let Ok(position) = text.parse() {
            return Ok(Self::Position(position));
        }
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let sequence = text.parse().map_err(|_| InvalidBound)?;
            return Ok(Self::Position(Position::new(sequence)));
        }
        text.parse().map(Self::Time).map_err(|_| InvalidBound)
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(time) => time.fmt(formatter),
            Self::Position(position) => position.fmt(formatter),
        }
    }
}

impl ReplayFilter {
    /// Whether the range can hold anything.
    ///
    /// # Errors
    /// Both bounds are times, or both positions, and the second comes before the first.
    pub fn check(&self) -> Result<(), InvalidRange> {
        let (Some(from), Some(to)) = (self.from, self.to) else {
            return Ok(());
        };
        let backwards = match (from, to) {
            (Bound::Time(from), Bound::Time(to)) => to < from,
            (Bound::Position(from), Bound::Position(to)) => to < from,
            _ => false,
        };
        if backwards {
            return Err(InvalidRange { from, to });
        }
        Ok(())
    }

    /// Each condition's name and value.
    pub fn conditions(&self) -> BTreeMap<String, String> {
        let types: Vec<&str> = self.types.iter().map(|it| it.0).collect();
        let conditions = [
            ("room", self.room.map(|room| room.to_string())),
            ("user", self.user.map(|user| user.to_string())),
            ("type", (!types.is_empty()).then(|| types.join(","))),
            ("from", self.from.map(|from| from.to_string())),
            ("to", self.to.map(|to| to.to_string())),
        ];
        let given = conditions.into_iter();
        given
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect()
    }

    /// What to ask the log for.
    pub(crate) fn log_filter(&self) -> Filter {
        self.room.map_or(Filter::All, Filter::Room)
    }

    /// The position after which to begin reading.
    pub(crate) fn after(&self) -> Position {
        match self.from {
            Some(Bound::Position(from)) => Position::new(from.get().saturating_sub(1)),
            _ => Position::ZERO,
        }
    }

    /// Whether nothing at or after this position can match.
    pub(crate) fn ends_before(&self, position: Position) -> bool {
        matches!(self.to, Some(Bound::Position(to)) if position > to)
    }

    /// Whether the event was stored between the bounds that are times.
    pub(crate) fn times_match(&self, recorded: &Recorded) -> bool {
        let late_enough = match self.from {
            Some(Bound::Time(from)) => recorded.stored_at >= from,
            _ => true,
        };
        let early_enough = match self.to {
            Some(Bound::Time(to)) => recorded.stored_at <= to,
            _ => true,
        };
        late_enough && early_enough
    }

    /// Whether an event of this type matches; `None` when nothing tells its type.
    pub(crate) fn type_matches(&self, decoded: &Result<Envelope, DecodeError>) -> Option<bool> {
        if self.types.is_empty() {
            return Some(true);
        }
        let event_type = match decoded {
            Ok(envelope) => envelope.event.type_name(),
            Err(
                DecodeError::UnknownType { event_type, .. }
                | DecodeError::Data { event_type, .. }
                | DecodeError::Sealed { event_type, .. },
            ) => event_type,
            Err(DecodeError::Envelope(_) | DecodeError::Misplaced { .. }) => return None,
        };
        Some(self.types.iter().any(|wanted| wanted.0 == event_type))
    }
}

/// Whether `user` caused the event, or the event by itself tells that it is about `user`.
pub(crate) fn concerns(envelope: &Envelope, user: UserId) -> bool {
    envelope.actor == Some(user)
        || match &envelope.event {
            Event::UserCreated(event) => event.user_id == user,
            Event::UserDeleted(event) => event.user_id == user,
            Event::UserErased(event) => event.user_id == user,
            Event::RoomInitiated(event) => event.initiator == user || event.members.contains(&user),
            Event::RoomDeleted(event) => event.initiator == user || event.members.contains(&user),
            Event::MessagePosted(event) => event.author == user,
            Event::MessageEdited(event) => event.author == user,
            Event::ConversationRead(event) => event.reader == user,
            // Whose message it was stands in the event that posted it.
            Event::MessageDeleted(_) => false,
            // Of rooms as a whole, or of the record.
            Event::RoomHeld(_)
            | Event::RoomReleased(_)
            | Event::MessageExpired(_)
            | Event::AuditRead(_) => false,
        }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_a_position_or_a_time() {
        let position = |sequence| Ok(Bound::Position(Position::new(sequence)));
        assert_eq!("00000000000000a5".parse(), position(0xa5));
        assert_eq!("0000000000000010".parse(), position(16));
        assert_eq!("10".parse(), position(10));
        assert_eq!("0".parse(), position(0));
        assert_eq!("18446744073709551615".parse(), position(u64::MAX));
        let time = "2026-11-22T17:16:12.692Z";
        assert_eq!(time.parse(), Ok(Bound::Time(time.parse().unwrap())));
        assert_eq!(
            "2026-11-22T18:16:12.692+01:00".parse(),
            Ok(Bound::Time(time.parse().unwrap()))
        );
        for wrong in [
            "",
            " ",
            "-1",
            "+1",
            "0x10",
            "00000000000000A5",
            "yesterday",
            "2026-11-22",
            "18446744073709551616",
        ] {
            assert_eq!(wrong.parse::<Bound>(), Err(InvalidBound), "{wrong}");
        }
    }

    #[test]
    fn a_range_that_ends_before_it_begins_is_refused() {
        let check = |from: &str, to: &str| {
            ReplayFilter {
                from: Some(from.parse().unwrap()),
                to: Some(to.parse().unwrap()),
                ..ReplayFilter::default()
            }
            .check()
        };
        assert!(check("3", "3").is_ok());
        assert!(check("3", "2026-11-22T17:16:12Z").is_ok());
        assert_eq!(
            check("3", "2").unwrap_err().to_string(),
            "the range from 0000000000000003 to 0000000000000002 ends before it begins"
        );
        assert!(check("2026-11-22T17:16:12Z", "2026-11-22T17:16:11.999Z").is_err());
    }
}
