//! Who gets what: the connections of this process, by room and by user, and the position up to which the
//! log has been handed out to them.
//!
//! Everything happens under one lock that is held for moments and never while waiting, so joining a room
//! falls between two events: whoever joins at position P gets every later event of the room, and none up
//! to P. A personal subscription is joining all rooms of the user at one such moment, and each later room
//! with the event that creates it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_log::Tail;
use events::{Envelope, Event, Position, RoomId, UserId};
use tokio::sync::watch;

use crate::memberships::Memberships;
use crate::outbox::{Ended, Outbox, Push, PushKind};
use crate::protocol::{Cursor, LogTag, ServerFrame};
use crate::recent::{Placed, Recent};
use crate::transport::Kind;

/// Names a connection within this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId(pub u64);

/// The connections of this process.
#[derive(Debug)]
pub struct Hub {
    state: Mutex<State>,
    memberships: Memberships,
    started: watch::Sender<bool>,
    next_connection: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    log: LogTag,
    position: Position,
    recent: Recent,
    degraded: bool,
    rooms: HashMap<RoomId, Outboxes>,
    users: HashMap<UserId, HashMap<ConnectionId, Registered>>,
}

type Outboxes = HashMap<ConnectionId, Arc<Outbox>>;

/// A connection of a user.
#[derive(Debug)]
struct Registered {
    outbox: Arc<Outbox>,
    /// `None`: not a connection, but a request that waits.
    kind: Option<Kind>,
    /// Whether it has a personal subscription.
    personal: bool,
}

/// The user has as many connections as one may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyConnections;

impl Hub {
    /// A hub without connections, that has not started.
    pub fn new() -> Self {
        Self {
            state: Mutex::default(),
            memberships: Memberships::default(),
            started: watch::Sender::new(false),
            next_connection: AtomicU64::new(1),
        }
    }

    /// Begins at the end of the log. `recent` are its last events; the memberships are known.
    pub fn start(&self, tail: &Tail, recent: Recent) {
        self.lock().begin(tail, recent);
        self.started.send_replace(true);
    }

    /// Starts over at the end of another log: every connection ends. What is subscribed from now on waits
    /// for the [start](Self::start).
    pub fn replace_log(&self) {
        self.started.send_replace(false);
        let state = self.lock();
        for outbox in state.outboxes() {
            outbox.end(Ended::LogReplaced);
        }
    }

    /// Waits until the hub knows where in the log it is.
    pub async fn started(&self) {
        // Fails only when the sender is gone, and it is part of `self`.
        let _ = self.started.subscribe().wait_for(|started| *started).await;
    }

    /// Which rooms each user is in, up to the last event that was handed out.
    pub fn memberships(&self) -> &Memberships {
        &self.memberships
    }

    /// The last event that was handed out.
    pub fn position(&self) -> Position {
        self.lock().position
    }

    /// The position as clients see it.
    pub fn cursor(&self, position: Position) -> Cursor {
        let log = self.lock().log;
        Cursor { position, log }
    }

    /// Events that have been handed out lately; see [`Recent::read`].
    pub fn recent(&self, after: Position, end: Position, limit: usize) -> Option<Vec<Placed>> {
        self.lock().recent.read(after, end, limit)
    }

    /// A name for a new connection.
    pub fn name(&self) -> ConnectionId {
        ConnectionId(self.next_connection.fetch_add(1, Ordering::Relaxed))
    }

    // --- Connections ---

    /// Adds a connection of `user`, or, with no `kind`, a request that waits; the user may have at most
    /// `limit`. Returns whether the log is lost at present.
    ///
    /// # Errors
    /// The user has that many.
    pub fn register(
        &self,
        user: UserId,
        id: ConnectionId,
        kind: Option<Kind>,
        outbox: &Arc<Outbox>,
        limit: usize,
    ) -> Result<bool, TooManyConnections> {
        let mut state = self.lock();
        let of_user = state.users.entry(user).or_default();
        if of_user.len() >= limit {
            return Err(TooManyConnections);
        }
        let registered = Registered {
            outbox: Arc::clone(outbox),
            kind,
            personal: false,
        };
        of_user.insert(id, registered);
        Ok(state.degraded)
    }

    /// Removes a connection of `user` that was in these rooms, or had a personal subscription.
    pub fn unregister<'a>(
        &self,
        user: UserId,
        id: ConnectionId,
        rooms: impl Iterator<Item = &'a RoomId>,
    ) {
        let mut state = self.lock();
        state.leave_own(&self.memberships, user, id, |_| false);
        for room in rooms {
            state.leave(*room, id);
        }
        if let Entry::Occupied(mut of_user) = state.users.entry(user) {
            of_user.get_mut().remove(&id);
            if of_user.get().is_empty() {
                of_user.remove();
            }
        }
    }

    /// Adds a connection to a room. It gets every event of the room after the position returned.
    pub fn join(&self, room: RoomId, id: ConnectionId, outbox: &Arc<Outbox>) -> Position {
        let mut state = self.lock();
        state.join(room, id, outbox);
        state.position
    }

    /// Removes a connection from a room.
    pub fn leave(&self, room: RoomId, id: ConnectionId) {
        self.lock().leave(room, id);
    }

    /// Adds a connection of `user` to all rooms of the user, and to those created later. It gets every
    /// event of these rooms after the position returned.
    pub fn join_own(&self, user: UserId, id: ConnectionId, outbox: &Arc<Outbox>) -> Position {
        let mut state = self.lock();
        // Read under the lock: the memberships move on with the position.
        for room in self.memberships.living(user) {
            state.join(room, id, outbox);
        }
        state.set_personal(user, id, true);
        state.position
    }

    /// Removes a connection of `user` from all rooms of the user, except those to `keep`.
    pub fn leave_own(&self, user: UserId, id: ConnectionId, keep: impl Fn(&RoomId) -> bool) {
        self.lock().leave_own(&self.memberships, user, id, keep);
    }

    // --- What happens ---

    /// Moves on to `position`, where there is nothing for anybody.
    pub fn skip(&self, position: Position) {
        self.lock().position = position;
    }

    /// Moves on past an event that nobody here is to be told of; `false` when somebody is, so that it
    /// must be [published](Self::publish).
    pub fn pass(&self, position: Position, envelope: &Arc<Envelope>, bytes: usize) -> bool {
        let mut state = self.lock();
        if state.has_audience(&envelope.event) {
            return false;
        }
        self.move_on(&mut state, position, envelope, bytes);
        true
    }

    /// Moves on to the event at `position`, and hands `push`, which tells of it, to all who are to get it.
    pub fn publish(
        &self,
        position: Position,
        envelope: &Arc<Envelope>,
        bytes: usize,
        push: Option<&Arc<Push>>,
    ) {
        let mut state = self.lock();
        self.move_on(&mut state, position, envelope, bytes);
        if let Some(push) = push {
            state.hand_out(push);
        }
    }

    /// Hands out what is not in the log to the room's subscribers.
    pub fn publish_ephemeral(&self, push: &Arc<Push>) {
        self.lock().hand_out(push);
    }

    /// Whether anybody here is subscribed to the room.
    pub fn has_subscribers(&self, room: RoomId) -> bool {
        self.lock().rooms.contains_key(&room)
    }

    /// Moves on to `position`, where `user` was deleted: that user's connections end.
    pub fn end_user(&self, position: Position, user: UserId) {
        let mut state = self.lock();
        state.position = position;
        for registered in state.users.get(&user).into_iter().flat_map(HashMap::values) {
            registered.outbox.end(Ended::UserDeleted);
        }
    }

    /// Moves on to `position`, where `user` was erased: as if deleted, and what the user wrote is forgotten.
    pub fn erase_user(&self, position: Position, user: UserId) {
        self.end_user(position, user);
        self.lock().recent.forget_texts_of(user);
    }

    /// Has the user's Socket.IO connections subscribe to the room.
    pub fn bring(&self, user: UserId, room: RoomId) {
        let push = Arc::new(Push {
            kind: PushKind::Bring(room),
            position: None,
            frame: "".into(),
        });
        let state = self.lock();
        for registered in state.users.get(&user).into_iter().flat_map(HashMap::values) {
            if registered.kind == Some(Kind::SocketIo) {
                registered.outbox.push(&push);
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
            kind: PushKind::Notice,
            position: None,
            frame,
        });
        for outbox in state.outboxes() {
            outbox.push(&notice);
        }
        true
    }

    /// Moves on to the event at `position`, and the memberships with it: were they ahead, whoever joins now would not
    /// join a room whose deletion is still to be handed out, and never be told of it.
    fn move_on(
        &self,
        state: &mut State,
        position: Position,
        envelope: &Arc<Envelope>,
        bytes: usize,
    ) {
        self.memberships.observe(position, envelope);
        state.move_on(position, envelope, bytes);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn begin(&mut self, tail: &Tail, recent: Recent) {
        self.log = LogTag::of(&tail.incarnation);
        self.position = tail.last;
        self.recent = recent;
    }

    fn move_on(&mut self, position: Position, envelope: &Arc<Envelope>, bytes: usize) {
        self.position = position;
        if envelope.event.room().is_some() {
            self.recent.add(position, Arc::clone(envelope), bytes);
        }
    }

    fn outboxes(&self) -> impl Iterator<Item = &Arc<Outbox>> {
        let registered = self.users.values().flat_map(HashMap::values);
        registered.map(|registered| &registered.outbox)
    }

    fn join(&mut self, room: RoomId, id: ConnectionId, outbox: &Arc<Outbox>) {
        let subscribers = self.rooms.entry(room).or_default();
        subscribers.insert(id, Arc::clone(outbox));
    }

    fn leave(&mut self, room: RoomId, id: ConnectionId) {
        if let Entry::Occupied(mut subscribers) = self.rooms.entry(room) {
            subscribers.get_mut().remove(&id);
            if subscribers.get().is_empty() {
                subscribers.remove();
            }
        }
    }

    /// Sets whether the connection has a personal subscription. Returns whether it had one.
    fn set_personal(&mut self, user: UserId, id: ConnectionId, personal: bool) -> bool {
        let of_user = self.users.get_mut(&user);
        let registered = of_user.and_then(|of_user| of_user.get_mut(&id));
        registered.is_some_and(|it| std::mem::replace(&mut it.personal, personal))
    }

    fn leave_own(
        &mut self,
        memberships: &Memberships,
        user: UserId,
        id: ConnectionId,
        keep: impl Fn(&RoomId) -> bool,
    ) {
        if !self.set_personal(user, id, false) {
            return;
        }
        for room in memberships.living(user) {
            if !keep(&room) {
                self.leave(room, id);
            }
        }
    }

    fn has_audience(&self, event: &Event) -> bool {
        match event {
            Event::RoomInitiated(event) => event
                .members
                .iter()
                .filter_map(|member| self.users.get(member))
                .any(|connections| connections.values().any(|it| it.personal)),
            event => event
                .room()
                .is_some_and(|room| self.rooms.contains_key(&room)),
        }
    }

    /// Hands `push` to its room's subscribers.
    fn hand_out(&mut self, push: &Arc<Push>) {
        let Some(room) = push.kind.room() else {
            return;
        };
        if let PushKind::RoomCreated(_, members) = &push.kind {
            self.join_personal(room, members);
        }
        for outbox in self.rooms.get(&room).into_iter().flat_map(HashMap::values) {
            outbox.push(push);
        }
        if let PushKind::RoomDeleted(_) = push.kind {
            self.rooms.remove(&room);
        }
    }

    /// The room is new: it belongs to its members' personal subscriptions.
    fn join_personal(&mut self, room: RoomId, members: &[UserId]) {
        for member in members {
            let connections = self.users.get(member).into_iter().flatten();
            for (id, registered) in connections.filter(|(_, it)| it.personal) {
                let subscribers = self.rooms.entry(room).or_default();
                subscribers.insert(*id, Arc::clone(&registered.outbox));
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use event_log::Incarnation;
    use events::{RoomDeleted, RoomInitiated, RoomType, Timestamp};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn whoever_joins_just_before_a_room_is_deleted_is_told_so() {
        let [anna, bela] = [1, 2].map(|n| UserId::from_uuid(Uuid::from_u128(n)));
        let members = vec![anna, bela];
        let room = RoomId::derive(RoomType::ConsumerToConsumer, &members, 0);
        let initiated = Event::RoomInitiated(RoomInitiated {
            room_id: room,
            room_type: RoomType::ConsumerToConsumer,
            initiator: anna,
            members: members.clone(),
            generation: 0,
        });
        let deleted = Event::RoomDeleted(RoomDeleted {
            room_id: room,
            room_type: RoomType::ConsumerToConsumer,
            members,
            initiator: anna,
            generation: 0,
            initiated_at: Timestamp::now(),
        });
        let [initiated, deleted] =
            [initiated, deleted].map(|event| Arc::new(Envelope::new(event, None, None)));
        let hub = Hub::new();
        let tail = Tail {
            last: Position::ZERO,
            incarnation: Incarnation("a log".to_owned()),
        };
        hub.start(&tail, Recent::starting_after(Position::ZERO, 10));
        assert!(hub.pass(Position::new(1), &initiated, 1));

        let outbox = Arc::new(Outbox::new(10, 1_000));
        let connection = hub.name();
        hub.register(anna, connection, Some(Kind::WebSocket), &outbox, 10)
            .unwrap();
        assert_eq!(hub.join_own(anna, connection, &outbox), Position::new(1));
        assert!(!hub.pass(Position::new(2), &deleted, 1));
        let push = Arc::new(Push {
            kind: PushKind::RoomDeleted(room),
            position: Some(Position::new(2)),
            frame: "gone".into(),
        });
        hub.publish(Position::new(2), &deleted, 1, Some(&push));

        assert_eq!(outbox.take().len(), 1);
        assert!(hub.memberships().living(anna).is_empty());
    }
}
