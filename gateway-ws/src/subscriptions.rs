//! What a connection is subscribed to, and what waits while a subscription is being made.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use events::{Position, RoomId};

use crate::history::Scope;
use crate::outbox::Push;

/// The subscriptions of a connection. What is said of a room itself goes before the personal subscription.
#[derive(Default)]
pub struct Subscriptions {
    rooms: HashMap<RoomId, Subscription>,
    own: Option<Subscription>,
}

/// What a connection has of a room, or of all rooms of its user.
pub enum Subscription {
    /// Pushes after this position are sent on.
    Live(Position),
    /// Its history is being sent, or waits for its turn.
    CatchingUp(Box<Waiting>),
    /// Nothing of it is sent.
    Muted,
}

/// The live pushes that wait for a catch-up.
#[derive(Default)]
pub struct Waiting {
    pushes: VecDeque<Arc<Push>>,
    bytes: usize,
    /// There were too many; the catch-up has to go on from where it has got to.
    overflowed: bool,
    /// Up to where everything has been sent; `None` when the client asked for no history.
    pub sent: Option<Position>,
    /// How many events were replayed.
    pub replayed: u64,
}

/// What has come of a catch-up's end.
pub enum Resumed {
    /// It is live: these pushes have waited and come next. So many events had been replayed.
    Live(VecDeque<Arc<Push>>, u64),
    /// Too much had come meanwhile: it has to go on from where it has got to.
    Overflowed,
    /// There is no such subscription any more.
    Over,
}

impl Subscriptions {
    /// The rooms that something is said of.
    pub fn rooms(&self) -> impl Iterator<Item = &RoomId> {
        self.rooms.keys()
    }

    /// How many rooms something is said of.
    pub fn count(&self) -> usize {
        self.rooms.len()
    }

    /// Whether something is said of the room itself.
    pub fn has_room(&self, room: RoomId) -> bool {
        self.rooms.contains_key(&room)
    }

    /// Whether there is a personal subscription.
    pub fn has_own(&self) -> bool {
        self.own.is_some()
    }

    /// The subscription made for this scope.
    pub fn get(&self, scope: Scope) -> Option<&Subscription> {
        match scope {
            Scope::Room(room) => self.rooms.get(&room),
            Scope::Own => self.own.as_ref(),
        }
    }

    /// What decides of the room's events.
    pub fn of_room(&mut self, room: RoomId) -> Option<&mut Subscription> {
        self.rooms.get_mut(&room).or(self.own.as_mut())
    }

    /// Sets a subscription.
    pub fn insert(&mut self, scope: Scope, subscription: Subscription) {
        match scope {
            Scope::Room(room) => {
                self.rooms.insert(room, subscription);
            }
            Scope::Own => self.own = Some(subscription),
        }
    }

    /// Removes a subscription.
    pub fn remove(&mut self, scope: Scope) -> Option<Subscription> {
        match scope {
            Scope::Room(room) => self.rooms.remove(&room),
            Scope::Own => self.own.take(),
        }
    }

    /// Forgets which rooms are muted: that is said of the personal subscription, which is over.
    pub fn unmute(&mut self) {
        self.rooms
            .retain(|_, subscription| !matches!(subscription, Subscription::Muted));
    }

    fn catching_up(&mut self, scope: Scope) -> Option<&mut Waiting> {
        let subscription = match scope {
            Scope::Room(room) => self.rooms.get_mut(&room),
            Scope::Own => self.own.as_mut(),
        };
        match subscription {
            Some(Subscription::CatchingUp(waiting)) => Some(waiting),
            _ => None,
        }
    }

    /// Takes note of a replayed event. `false` when it is not to be sent: something else is said of its
    /// room.
    pub fn replay(&mut self, scope: Scope, room: RoomId, position: Position) -> bool {
        let is_overruled = scope == Scope::Own && self.has_room(room);
        let Some(waiting) = self.catching_up(scope) else {
            return false;
        };
        waiting.sent = Some(position);
        if is_overruled {
            return false;
        }
        waiting.replayed += 1;
        true
    }

    /// Ends a catch-up that has sent everything up to `from`.
    pub fn go_live(&mut self, scope: Scope, from: Position) -> Resumed {
        let Some(waiting) = self.catching_up(scope) else {
            return Resumed::Over;
        };
        if waiting.overflowed {
            *waiting = Waiting {
                sent: Some(from),
                replayed: waiting.replayed,
                ..Waiting::default()
            };
            return Resumed::Overflowed;
        }
        let waited = std::mem::take(&mut waiting.pushes);
        let replayed = waiting.replayed;
        self.insert(scope, Subscription::Live(from));
        Resumed::Live(waited, replayed)
    }

    /// The first position that has not been sent of what is being caught up on.
    pub fn first_unsent(&self) -> Option<Position> {
        let all = self.rooms.values().chain(&self.own);
        let unsent = all.filter_map(|subscription| {
            let Subscription::CatchingUp(waiting) = subscription else {
                return None;
            };
            let waits = waiting.pushes.iter().find_map(|push| push.position);
            waiting.sent.map(Position::next).or(waits)
        });
        unsent.min()
    }
}

impl Waiting {
    /// Nothing waits; the client has everything up to `sent`, if it has asked for history.
    pub fn after(sent: Option<Position>) -> Self {
        Self {
            sent,
            ..Self::default()
        }
    }

    /// Adds a push; `true` when there are now too many, and all are dropped.
    pub fn add(&mut self, push: Arc<Push>, max_frames: usize, max_bytes: usize) -> bool {
        if self.overflowed {
            return false;
        }
        self.bytes += push.frame.as_str().len();
        self.pushes.push_back(push);
        self.overflowed = self.pushes.len() > max_frames || self.bytes > max_bytes;
        if self.overflowed {
            self.pushes = VecDeque::new();
        }
        self.overflowed
    }
}
