//! A set of rooms, as the adapters want it: each room once, and quickly found.

use events::{RoomId, Subject};

/// Rooms in order, each once.
#[derive(Debug, Clone)]
pub(crate) struct RoomSet(Vec<RoomId>);

impl RoomSet {
    pub(crate) fn new(rooms: &[RoomId]) -> Self {
        let mut rooms = rooms.to_vec();
        rooms.sort_unstable();
        rooms.dedup();
        Self(rooms)
    }

    /// How many rooms there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = RoomId> {
        self.0.iter().copied()
    }

    /// The subjects of all rooms: four each.
    pub(crate) fn subjects(&self) -> impl Iterator<Item = String> {
        self.0.iter().flat_map(|room| subjects_of(*room))
    }

    /// Whether an event on this subject happened to or in one of the rooms.
    pub(crate) fn has(&self, subject: &str) -> bool {
        let room = subject.parse().ok().and_then(Subject::room);
        room.is_some_and(|room| self.0.binary_search(&room).is_ok())
    }
}

/// The subjects of a room: its lifecycle, its timeline, its legal holds, its retention.
pub(crate) fn subjects_of(room: RoomId) -> [String; 4] {
    [
        Subject::RoomLifecycle(room),
        Subject::RoomTimeline(room),
        Subject::RoomHold(room),
        Subject::RoomRetention(room),
    ]
    .map(|subject| subject.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn has_what_belongs_to_its_rooms() {
        let [one, two, three] = ["1", "2", "3"].map(|digit| digit.repeat(32).parse().unwrap());
        let rooms = RoomSet::new(&[two, one, two]);
        assert_eq!(rooms.len(), 2);
        assert_eq!(rooms.subjects().count(), 8);
        assert!(rooms.subjects().all(|subject| rooms.has(&subject)));
        assert!(!rooms.has(&Subject::RoomTimeline(three).to_string()));
        assert!(!rooms.has(&format!("chat.room.{one}.weather")));
        assert!(!rooms.has("chat.user.11111111111111111111111111111111"));
    }
}
