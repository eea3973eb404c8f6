//! Which rooms each user is a member of: an index of the log's room lifecycles, kept in memory.
//!
//! It is what a personal subscription follows. It is built from the log when the gateway starts and kept
//! by the follower, so it needs neither the read models nor a look at the log for each subscription.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use events::{Envelope, Event, Position, RoomId, UserId};

/// The rooms of every user.
#[derive(Debug, Default)]
pub struct Memberships {
    users: RwLock<HashMap<UserId, Rooms>>,
}

/// The rooms of one user.
#[derive(Debug, Default)]
struct Rooms {
    living: Vec<RoomId>,
    deleted: Vec<(Position, RoomId)>,
}

impl Memberships {
    /// Takes note of the event at `position`. Each event once, in log order.
    pub fn observe(&self, position: Position, envelope: &Envelope) {
        match &envelope.event {
            Event::RoomInitiated(event) => {
                let mut users = self.users.write().unwrap_or_else(PoisonError::into_inner);
                for member in &event.members {
                    users.entry(*member).or_default().living.push(event.room_id);
                }
            }
            Event::RoomDeleted(event) => {
                let mut users = self.users.write().unwrap_or_else(PoisonError::into_inner);
                for member in &event.members {
                    users
                        .entry(*member)
                        .or_default()
                        .delete(position, event.room_id);
                }
            }
            _ => {}
        }
    }

    /// Forgets everything: the log is another one.
    pub fn clear(&self) {
        let mut users = self.users.write().unwrap_or_else(PoisonError::into_inner);
        users.clear();
    }

    /// The rooms of `user` that live.
    pub fn living(&self, user: UserId) -> Vec<RoomId> {
        let users = self.users.read().unwrap_or_else(PoisonError::into_inner);
        users
            .get(&user)
            .map(|rooms| rooms.living.clone())
            .unwrap_or_default()
    }

    /// The rooms of `user` in which anything can have happened after `after` that still matters: those
    /// that live, and those deleted after it.
    pub fn since(&self, user: UserId, after: Position) -> Vec<RoomId> {
        let users = self.users.read().unwrap_or_else(PoisonError::into_inner);
        let Some(rooms) = users.get(&user) else {
            return Vec::new();
        };
        let deleted = rooms.deleted.iter();
        let deleted_since = deleted
            .filter(|(deleted_at, _)| *deleted_at > after)
            .map(|(_, room)| *room);
        rooms.living.iter().copied().chain(deleted_since).collect()
    }
}

impl Rooms {
    fn delete(&mut self, position: Position, room: RoomId) {
        // Rooms that were initiated lately are deleted more often than old ones.
        if let Some(index) = self.living.iter().rposition(|living| *living == room) {
            self.living.swap_remove(index);
            self.deleted.push((position, room));
        }
    }
}
