//! The one queue of a connection: what the hub has for it and the connection has not yet taken.
//!
//! The hub never waits for a connection. A queue that is full closes its connection instead.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::ws::Utf8Bytes;
use events::{Position, RoomId, UserId};
use tokio::sync::Notify;

/// Something to push, encoded once for all who get it.
#[derive(Debug)]
pub struct Push {
    /// What it is.
    pub kind: PushKind,
    /// The position of the event it tells of; `None` for what is not in the log.
    pub position: Option<Position>,
    /// The frame to send.
    pub frame: Utf8Bytes,
}

/// What a push is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushKind {
    /// Something happened in the room.
    Room(RoomId),
    /// The room was initiated, with these members.
    RoomCreated(RoomId, Vec<UserId>),
    /// The room was deleted: its subscriptions are over with it.
    RoomDeleted(RoomId),
    /// This member of the room types, or no longer does.
    Typing(RoomId, UserId),
    /// Whether somebody is connected.
    Presence,
    /// For every connection.
    Notice,
    /// Not for the client: the connection is to be subscribed to the room.
    Bring(RoomId),
}

impl PushKind {
    /// The room it is about, if it is about one.
    pub fn room(&self) -> Option<RoomId> {
        match self {
            Self::Room(room)
            | Self::RoomCreated(room, _)
            | Self::RoomDeleted(room)
            | Self::Typing(room, _)
            | Self::Bring(room) => Some(*room),
            Self::Presence | Self::Notice => None,
        }
    }

    /// Whether it is out of date soon, so that a client that is busy does without it.
    fn is_ephemeral(&self) -> bool {
        matches!(self, Self::Typing(..) | Self::Presence)
    }
}

/// Why the hub ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The connection does not take what it is sent fast enough.
    TooSlow {
        /// The first event that was dropped; `None` when there was none.
        first_lost: Option<Position>,
    },
    /// The connection's user has been deleted.
    UserDeleted,
    /// The log is another one than before.
    LogReplaced,
}

/// A connection's queue, bounded by count and bytes.
#[derive(Debug)]
pub struct Outbox {
    queue: Mutex<Queue>,
    /// Wakes the connection when there is something to take.
    filled: Notify,
    /// Wakes the connection when it is to end.
    ended: Notify,
    max_frames: usize,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct Queue {
    pushes: VecDeque<Arc<Push>>,
    bytes: usize,
    ended: Option<Ended>,
}

impl Outbox {
    /// An empty queue for at most this many frames and bytes. A single frame may be larger.
    pub fn new(max_frames: usize, max_bytes: usize) -> Self {
        Self {
            queue: Mutex::default(),
            filled: Notify::new(),
            ended: Notify::new(),
            max_frames,
            max_bytes,
        }
    }

    /// Adds `push`; if it does not fit, the connection is ended.
    pub fn push(&self, push: &Arc<Push>) {
        let mut queue = self.lock();
        if queue.ended.is_some() {
            return;
        }
        let bytes = queue.bytes + push.frame.as_str().len();
        if push.kind.is_ephemeral() && queue.pushes.len() >= self.max_frames / 2 {
            return;
        }
        let full = queue.pushes.len() >= self.max_frames || bytes > self.max_bytes;
        if full && !queue.pushes.is_empty() {
            let queued = queue.pushes.iter().chain([push]);
            let first_lost = queued.filter_map(|push| push.position).min();
            self.end_locked(queue, Ended::TooSlow { first_lost });
            return;
        }
        queue.bytes = bytes;
        queue.pushes.push_back(Arc::clone(push));
        let first = queue.pushes.len() == 1;
        drop(queue);
        if first {
            self.filled.notify_one();
        }
    }

    /// Ends the connection and drops what is queued. The first reason counts.
    pub fn end(&self, ended: Ended) {
        let queue = self.lock();
        if queue.ended.is_none() {
            self.end_locked(queue, ended);
        }
    }

    fn end_locked(&self, mut queue: MutexGuard<'_, Queue>, ended: Ended) {
        queue.ended = Some(ended);
        queue.pushes = VecDeque::new();
        queue.bytes = 0;
        drop(queue);
        self.ended.notify_one();
    }

    /// Takes everything that is queued.
    pub fn take(&self) -> VecDeque<Arc<Push>> {
        let mut queue = self.lock();
        queue.bytes = 0;
        std::mem::take(&mut queue.pushes)
    }

    /// Waits until something is queued. For one task at a time.
    pub async fn filled(&self) {
        while self.lock().pushes.is_empty() {
            self.filled.notified().await;
        }
    }

    /// Whether the connection is to end, so that what was queued may be lost.
    pub fn has_ended(&self) -> bool {
        self.lock().ended.is_some()
    }

    /// Waits until the connection is to end. For one task at a time.
    pub async fn ended(&self) -> Ended {
        loop {
            if let Some(ended) = self.lock().ended {
                return ended;
            }
            self.ended.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(position: u64, text: &'static str) -> Arc<Push> {
        Arc::new(Push {
            kind: PushKind::Notice,
            position: Some(Position::new(position)),
            frame: Utf8Bytes::from_static(text),
        })
    }

    #[tokio::test]
    async fn a_full_queue_ends_its_connection_and_names_what_was_lost() {
        for (outbox, full_at) in [(Outbox::new(2, 1_000), 3), (Outbox::new(100, 8), 3)] {
            for position in 1..full_at {
                outbox.push(&push(position, "four"));
            }
            assert_eq!(outbox.take().len(), 2);
            assert!(!outbox.has_ended());
            for position in 11..11 + full_at {
                outbox.push(&push(position, "four"));
            }
            let first_lost = Some(Position::new(11));
            assert_eq!(outbox.ended().await, Ended::TooSlow { first_lost });
            assert!(outbox.take().is_empty() && outbox.has_ended());
            outbox.end(Ended::UserDeleted);
            assert_eq!(outbox.ended().await, Ended::TooSlow { first_lost });
        }
    }

    #[tokio::test]
    async fn a_single_frame_may_be_larger_than_the_queue() {
        let outbox = Outbox::new(10, 3);
        outbox.push(&push(1, "four"));
        outbox.filled().await;
        assert_eq!(outbox.take().len(), 1);
    }

    #[test]
    fn what_is_soon_out_of_date_never_ends_a_connection() {
        let outbox = Outbox::new(4, 1_000);
        let presence = Arc::new(Push {
            kind: PushKind::Presence,
            position: None,
            frame: Utf8Bytes::from_static("four"),
        });
        for _ in 0..10 {
            outbox.push(&presence);
        }
        outbox.push(&push(1, "four"));
        outbox.push(&push(2, "four"));
        assert_eq!(outbox.take().len(), 4);
    }
}
