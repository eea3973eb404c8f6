//! Gathers events from the log into a batch.

use std::time::{Duration, Instant};

use bytes::Bytes;
use event_log::Position;
use events::Timestamp;
use read_models::{DeadLetter, Entry};

use crate::source::Opened;

/// A batch has at most this many events.
const MAX_EVENTS: usize = 1_000;

/// A batch takes no further event once it has this many bytes.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// Consecutive events, decoded where they could be.
#[derive(Debug, Default)]
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
}

impl Gathered {
    pub(crate) fn len(&self) -> usize {
        self.entries.len() + self.undecodable.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len() >= MAX_EVENTS || self.bytes >= MAX_BYTES
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
