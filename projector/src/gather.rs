//! Gathers events from the log into a batch.

use std::time::{Duration, Instant};

use bytes::Bytes;
use event_log::Position;
use events::Timestamp;
use read_models::{DeadLetter, Entry};

use crate::source::Opened;

/// How large batches may become. A batch that is full is followed by one twice as large: what many events do to the
/// same room is written once, so that more is done at a time the more there is to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    most_events: usize,
    most_bytes: usize,
}

impl Sizes {
    /// Where people wait for what is projected, and see it batch by batch.
    pub(crate) const SERVED: Self = Self {
        most_events: 8_000,
        most_bytes: 8 * 1024 * 1024,
    };
    /// Where nobody looks yet.
    pub(crate) const UNSERVED: Self = Self {
        most_events: 32_000,
        most_bytes: 32 * 1024 * 1024,
    };
}

/// A batch after one that was not full has at most this many events.
const FEW_EVENTS: usize = 1_000;

/// Consecutive events, decoded where they could be.
#[derive(Debug)]
pub(crate) struct Gathered {
    /// The events that decode, in log order.
    pub(crate) entries: Vec<Entry>,
    /// The bytes of each entry, in the same order: what to keep of it should its write be refused.
    pub(crate) payloads: Vec<Bytes>,
    /// The events that don't decode.
    pub(crate) undecodable: Vec<DeadLetter>,
    /// The last event's position.
    pub(crate) up_to: Position,
    /// When the log stored the events: times, each with how many in a row it stored then.
    pub(crate) stored: Vec<(Timestamp, usize)>,
    /// How long the log was waited for, while it had more.
    pub(crate) waited: Duration,
    /// How long opening and decoding them took.
    pub(crate) decoding: Duration,
    bytes: usize,
    since: Option<Instant>,
    /// How many events it takes.
    room_for: usize,
    sizes: Sizes,
}

impl Gathered {
    /// The first batch, empty.
    pub(crate) fn first(sizes: Sizes) -> Self {
        Self::with_room_for(FEW_EVENTS, sizes)
    }

    /// The batch after this one, empty.
    pub(crate) fn next(&self) -> Self {
        let room_for = match self.is_full() {
            true => self.room_for.saturating_mul(2).min(self.sizes.most_events),
            false => FEW_EVENTS,
        };
        Self::with_room_for(room_for, self.sizes)
    }

    fn with_room_for(room_for: usize, sizes: Sizes) -> Self {
        Self {
            entries: Vec::new(),
            payloads: Vec::new(),
            undecodable: Vec::new(),
            up_to: Position::ZERO,
            stored: Vec::new(),
            waited: Duration::ZERO,
            decoding: Duration::ZERO,
            bytes: 0,
            since: None,
            room_for,
            sizes,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() + self.undecodable.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len() >= self.room_for || self.bytes >= self.sizes.most_bytes
    }

    /// How long ago the first event was added.
    pub(crate) fn age(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    pub(crate) fn push(&mut self, opened: Opened) {
        let Opened {
            recorded,
            decoded,
            took,
        } = opened;
        debug_assert!(recorded.position > self.up_to);
        self.since.get_or_insert_with(Instant::now);
        self.up_to = recorded.position;
        self.bytes += recorded.payload.len();
        match self.stored.last_mut() {
            Some((stored_at, events)) if *stored_at == recorded.stored_at => *events += 1,
            _ => self.stored.push((recorded.stored_at, 1)),
        }
        self.decoding += took;
        match decoded {
            Ok(envelope) => {
                self.entries.push(Entry {
                    position: recorded.position,
                    envelope,
                });
                self.payloads.push(recorded.payload);
            }
            Err(error) => {
                // What the event holds is kept out of the operator's log.
                let (position, trouble) = (recorded.position, error.kind());
                tracing::error!(%position, "an event can't be projected: {trouble}");
                self.undecodable.push(DeadLetter {
                    position: recorded.position,
                    subject: recorded.subject,
                    payload: recorded.payload.into(),
                    reason: error.to_string(),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use event_log::Recorded;
    use events::{ConversationRead, Envelope, Event, RoomId, UserId};
    use uuid::Uuid;

    use super::*;

    const SIZES: Sizes = Sizes {
        most_events: 3_000,
        most_bytes: 1_000_000,
    };

    fn fill(gathered: &mut Gathered, events: u64, bytes: usize) {
        for _ in 0..events {
            let read = Event::ConversationRead(ConversationRead {
                room_id: RoomId::from_uuid(Uuid::from_u128(1)),
                reader: UserId::from_uuid(Uuid::from_u128(2)),
                up_to: None,
            });
            gathered.push(Opened {
                recorded: Recorded {
                    position: gathered.up_to.next(),
                    subject: read.subject().to_string(),
                    stored_at: Timestamp::now(),
                    payload: vec![0; bytes].into(),
                },
                decoded: Ok(Envelope::new(read, None, None)),
                took: Duration::ZERO,
            });
        }
    }

    #[test]
    fn batches_grow_while_they_are_full_and_no_larger_than_they_may() {
        let mut batch = Gathered::first(SIZES);
        for expected in [1_000, 2_000, 3_000, 3_000] {
            fill(&mut batch, expected - 1, 1);
            assert!(!batch.is_full(), "{expected}");
            fill(&mut batch, 1, 1);
            assert!(batch.is_full(), "{expected}");
            batch = batch.next();
            assert!(batch.is_empty());
        }
        fill(&mut batch, 10, 1);
        batch = batch.next();
        fill(&mut batch, 1_000, 1);
        assert!(batch.is_full());
    }

    #[test]
    fn a_batch_is_full_of_bytes_too() {
        let mut batch = Gathered::first(SIZES);
        fill(&mut batch, 9, 100_000);
        assert!(!batch.is_full());
        fill(&mut batch, 1, 100_000);
        assert!(batch.is_full());
    }
}
