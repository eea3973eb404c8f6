//! The last events of the log, in memory: clients that were away for a moment are served from here, so that
//! a crowd that reconnects does not read the log once for each of them.

use std::collections::VecDeque;
use std::sync::Arc;

use events::{Envelope, Event, MessageEdited, MessagePosted, Position, UserId};

/// Of how many bytes the events may be together.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// The events after some position, up to the end.
#[derive(Debug, Default)]
pub struct Recent {
    max_events: usize,
    /// Every event after this one is here.
    after: Position,
    events: VecDeque<Kept>,
    bytes: usize,
}

/// An event and where it stands.
pub type Placed = (Position, Arc<Envelope>);

#[derive(Debug)]
struct Kept {
    event: Placed,
    bytes: usize,
}

impl Recent {
    /// Nothing, of a log that is at `position`; for at most so many events.
    pub fn starting_after(position: Position, max_events: usize) -> Self {
        Self {
            max_events,
            after: position,
            ..Self::default()
        }
    }

    /// Adds the next event, whose encoded size is `bytes`. Events that no client is told of need not be
    /// added.
    pub fn add(&mut self, position: Position, envelope: Arc<Envelope>, bytes: usize) {
        self.bytes += bytes;
        self.events.push_back(Kept {
            event: (position, envelope),
            bytes,
        });
        while (self.events.len() > self.max_events || self.bytes > MAX_BYTES)
            && let Some(oldest) = self.events.pop_front()
        {
            self.bytes -= oldest.bytes;
            self.after = oldest.event.0;
        }
    }

    /// Forgets what `user` wrote; that something was written stays known.
    pub fn forget_texts_of(&mut self, user: UserId) {
        for kept in &mut self.events {
            let (Event::MessagePosted(MessagePosted { author, .. })
            | Event::MessageEdited(MessageEdited { author, .. })) = &kept.event.1.event
            else {
                continue;
            };
            if *author != user {
                continue;
            }
            if let Event::MessagePosted(MessagePosted { message_text, .. })
            | Event::MessageEdited(MessageEdited { message_text, .. }) =
                &mut Arc::make_mut(&mut kept.event.1).event
            {
                *message_text = None;
            }
        }
    }

    /// After which position every event is here.
    pub fn after(&self) -> Position {
        self.after
    }

    /// Puts earlier events before these, the latest of them, as far as there is room. `earlier` ends where
    /// these begin.
    pub fn prepend(&mut self, earlier: Self) {
        for kept in earlier.events.into_iter().rev() {
            let bytes = self.bytes + kept.bytes;
            if self.events.len() >= self.max_events || bytes > MAX_BYTES {
                self.after = kept.event.0;
                return;
            }
            self.bytes = bytes;
            self.events.push_front(kept);
        }
        self.after = earlier.after;
    }

    /// All of them, oldest first.
    pub fn events(&self) -> impl Iterator<Item = &Placed> {
        self.events.iter().map(|kept| &kept.event)
    }

    /// At most `limit` events after `after` up to and with `end`, oldest first; `None` when not all of
    /// them are here.
    pub fn read(&self, after: Position, end: Position, limit: usize) -> Option<Vec<Placed>> {
        if after < self.after {
            return None;
        }
        let first = self.events.partition_point(|kept| kept.event.0 <= after);
        let rest = self.events.range(first..);
        let wanted = rest.take_while(|kept| kept.event.0 <= end).take(limit);
        Some(wanted.map(|kept| kept.event.clone()).collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use events::{ConversationRead, Event, RoomId, Timestamp, UserId};
    use uuid::Uuid;

    use super::*;

    fn envelope() -> Arc<Envelope> {
        let reader = UserId::random();
        Arc::new(Envelope {
            id: Uuid::now_v7(),
            at: Timestamp::now(),
            actor: Some(reader),
            key: None,
            event: Event::ConversationRead(ConversationRead {
                room_id: RoomId::from_uuid(Uuid::nil()),
                reader,
                up_to: None,
            }),
        })
    }

    fn positions(recent: &Recent, after: u64, end: u64, limit: usize) -> Option<Vec<u64>> {
        let found = recent.read(Position::new(after), Position::new(end), limit)?;
        Some(found.iter().map(|(position, _)| position.get()).collect())
    }

    #[test]
    fn what_is_here_is_read_in_order() {
        let mut recent = Recent::starting_after(Position::new(10), 9);
        for position in [12, 13, 17] {
            recent.add(Position::new(position), envelope(), 100);
        }
        assert_eq!(positions(&recent, 9, 20, 9), None);
        assert_eq!(positions(&recent, 10, 20, 9), Some(vec![12, 13, 17]));
        assert_eq!(positions(&recent, 12, 16, 9), Some(vec![13]));
        assert_eq!(positions(&recent, 11, 20, 2), Some(vec![12, 13]));
        assert_eq!(positions(&recent, 17, 20, 9), Some(vec![]));
    }

    #[test]
    fn earlier_events_go_before_these_as_far_as_there_is_room() {
        let of = |after: u64, positions: std::ops::RangeInclusive<u64>, bytes: usize| {
            let mut recent = Recent::starting_after(Position::new(after), 5);
            positions.for_each(|position| recent.add(Position::new(position), envelope(), bytes));
            recent
        };
        let mut recent = of(20, 21..=22, 1);
        recent.prepend(of(10, 13..=14, 1));
        assert_eq!(recent.after(), Position::new(10));
        assert_eq!(positions(&recent, 10, 99, 9), Some(vec![13, 14, 21, 22]));
        recent.prepend(of(3, 5..=6, 1));
        assert_eq!(recent.after(), Position::new(5), "that one had no place");
        assert_eq!(positions(&recent, 5, 99, 9), Some(vec![6, 13, 14, 21, 22]));

        let mut recent = of(20, 21..=22, MAX_BYTES / 3);
        recent.prepend(of(10, 13..=14, MAX_BYTES / 3));
        assert_eq!(recent.after(), Position::new(13));
        assert_eq!(positions(&recent, 13, 99, 9), Some(vec![14, 21, 22]));
        // What had no place before it was put here is no more here than what has none now.
        let mut recent = of(20, 21..=21, 3);
        recent.prepend(of(10, 11..=14, MAX_BYTES / 3));
        assert_eq!(recent.after(), Position::new(12));
    }

    #[test]
    fn what_was_dropped_is_never_passed_over() {
        let event = envelope();
        let mut recent = Recent::starting_after(Position::ZERO, 5);
        for position in 1..=8 {
            recent.add(Position::new(position), Arc::clone(&event), 1);
        }
        assert_eq!(positions(&recent, 2, 9, 9), None);
        assert_eq!(positions(&recent, 3, 5, 9), Some(vec![4, 5]));

        let mut recent = Recent::starting_after(Position::ZERO, 5);
        for position in 1..=4 {
            recent.add(Position::new(position), Arc::clone(&event), MAX_BYTES / 3);
        }
        assert_eq!(positions(&recent, 0, 9, 9), None);
        assert_eq!(positions(&recent, 1, 9, 9), Some(vec![2, 3, 4]));
    }
}
