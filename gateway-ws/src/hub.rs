//! Who gets what: the connections of this process, by room and by user, and the position up to which the
//! log has been handed out to them.
//!
//! Everything happens under one lock that is held for moments and never while waiting, so joining a room
//! falls between two events: whoever joins at position P gets every later event of the room, and none up
//! to P.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use events::{Position, RoomId, UserId};
use tokio::sync::watch;

use crate::outbox::{Ended, Outbox, Push};
use crate::protocol::ServerFrame;

/// Names a connection within this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId(pub u64);

/// The connections of this process.
#[derive(Debug)]
pub struct Hub {
    state: Mutex<State>,
    started: watch::Sender<bool>,
    next_connection: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    position: Position,
    degraded: bool,
    rooms: HashMap<RoomId, Outboxes>,
    users: HashMap<UserId, Outboxes>,
}

type Outboxes = HashMap<ConnectionId, Arc<Outbox>>;

impl Hub {
    /// A hub without connections, that has not started.
    pub fn new() -> Self {
        Self {
            state: Mutex::default(),
            started: watch::Sender::new(false),
            next_connection: AtomicU64::new(1),
        }
    }

    /// Begins at `position`, the end of the log.
    pub fn start(&self, position: Position) {
        self.lock().position = position;
        self.started.send_replace(true);
    }

    /// Waits until the hub knows where in the log it is.
    pub async fn started(&self) {
        // Fails only when the sender is gone, and it is part of `self`.
        let _ = self.started.subscribe().wait_for(|started| *started).await;
    }

    /// The last event that was handed out.
    pub fn position(&self) -> Position {
        self.lock().position
    }

    /// A name for a new connection.
    pub fn name(&self) -> ConnectionId {
        ConnectionId(self.next_connection.fetch_add(1, Ordering::Relaxed))
    }

    /// Adds a connection of `user`. Returns whether the log is lost at present.
    pub fn register(&self, user: UserId, id: ConnectionId, outbox: &Arc<Outbox>) -> bool {
        let mut state = self.lock();
        let of_user = state.users.entry(user).or_default();
        of_user.insert(id, Arc::clone(outbox));
        state.degraded
    }

    /// Removes a connection of `user` that was in these rooms.
    pub fn unregister<'a>(
        &self,
        user: UserId,
        id: ConnectionId,
        rooms: impl Iterator<Item = &'a RoomId>,
    ) {
        let mut state = self.lock();
        for room in rooms {
            remove(&mut state.rooms, room, id);
        }
        remove(&mut state.users, &user, id);
    }

    /// Adds a connection to a room. It gets every event of the room after the position returned.
    pub fn join(&self, room: RoomId, id: ConnectionId, outbox: &Arc<Outbox>) -> Position {
        let mut state = self.lock();
        let subscribers = state.rooms.entry(room).or_default();
        subscribers.insert(id, Arc::clone(outbox));
        state.position
    }

    /// Removes a connection from a room.
    pub fn leave(&self, room: RoomId, id: ConnectionId) {
        remove(&mut self.lock().rooms, &room, id);
    }

    /// Moves on to `position`, where nothing is to be pushed; `false` when it is an event of `room` and
    /// somebody has joined that, so that it must be [published](Self::publish).
    pub fn pass(&self, position: Position, room: Option<RoomId>) -> bool {
        let mut state = self.lock();
        if room.is_some_and(|room| state.rooms.contains_key(&room)) {
            return false;
        }
        state.position = position;
        true
    }

    /// Moves on to `position` and hands out what there is to push of it.
    pub fn publish(&self, position: Position, push: Option<&Arc<Push>>) {
        let mut state = self.lock();
        state.position = position;
        let Some(push) = push else {
            return;
        };
        let Some(room) = push.room else {
            return;
        };
        if let Some(subscribers) = state.rooms.get(&room) {
            for outbox in subscribers.values() {
                outbox.push(push);
            }
        }
        if push.ends_room {
            state.rooms.remove(&room);
        }
    }

    /// Moves on to `position`, where `user` was deleted: that user's connections end.
    pub fn end_user(&self, position: Position, user: UserId) {
        let mut state = self.lock();
        state.position = position;
        if let Some(connections) = state.users.get(&user) {
            for outbox in connections.values() {
                outbox.end(Ended::UserDeleted);
            }
        }
    }

    /// Tells everybody, once, whether the log is lost or found again. Returns whether that is news.
    pub fn set_degraded(&self, degraded: bool) -> bool {
        let mut state = self.lock();
        if state.degraded == degraded {
            return false;
        }
        state.degraded = degraded;
        let frame = match degraded {
            true => ServerFrame::Degraded.encode(),
            false => ServerFrame::Restored.encode(),
        };
        let notice = Arc::new(Push {
            room: None,
            position: state.position,
            frame,
            ends_room: false,
        });
        for outbox in state.users.values().flat_map(HashMap::values) {
            outbox.push(&notice);
        }
        true
    }

    /// Starts over at `position` of another log: every connection ends.
    pub fn replace_log(&self, position: Position) {
        let mut state = self.lock();
        state.position = position;
        for outbox in state.users.values().flat_map(HashMap::values) {
            outbox.end(Ended::LogReplaced);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remove<Key: Eq + std::hash::Hash>(
    groups: &mut HashMap<Key, Outboxes>,
    key: &Key,
    id: ConnectionId,
) {
    if let Some(group) = groups.get_mut(key) {
        group.remove(&id);
        if group.is_empty() {
            groups.remove(key);
        }
    }
}
