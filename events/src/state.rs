//! What is the case: users, rooms and messages, folded from events in log order.

use std::collections::{HashMap, HashSet};

use crate::{
    Envelope, Event, MessageId, Position, RoomId, RoomType, Timestamp, UserDeleted, UserErased,
    UserId, UserType,
};

/// A user as the last event of its subject leaves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user's id.
    pub id: UserId,
    /// Given name; empty once deleted.
    pub first_name: String,
    /// Family name; empty once deleted.
    pub last_name: String,
    /// What kind of user it is.
    pub user_type: UserType,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Whether it has been deleted.
    pub deleted: bool,
    /// Whether it has been erased, which is to be deleted as well.
    pub erased: bool,
    /// The last event of its history: what the log has there if nothing has changed since.
    pub position: Position,
}

impl User {
    /// The user that the event at `position` leaves; `None` when it is not about a user.
    pub fn after(position: Position, envelope: &Envelope) -> Option<Self> {
        match &envelope.event {
            Event::UserCreated(event) => Some(Self {
                id: event.user_id,
                first_name: event.first_name().to_owned(),
                last_name: event.last_name().to_owned(),
                user_type: event.user_type,
                created_at: envelope.at,
                updated_at: envelope.at,
                deleted: false,
                erased: false,
                position,
            }),
            Event::UserDeleted(UserDeleted {
                user_id,
                user_type,
                created_at,
            })
            | Event::UserErased(UserErased {
                user_id,
                user_type,
                created_at,
            }) => Some(Self {
                id: *user_id,
                first_name: String::new(),
                last_name: String::new(),
                user_type: *user_type,
                created_at: *created_at,
                updated_at: envelope.at,
                deleted: true,
                erased: matches!(envelope.event, Event::UserErased(_)),
                position,
            }),
            _ => None,
        }
    }
}

/// A room as the last event of its lifecycle leaves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// The room's id.
    pub id: RoomId,
    /// What kind of conversation it holds.
    pub room_type: RoomType,
    /// Its members, in ascending order.
    pub members: Vec<UserId>,
    /// The member who initiated it.
    pub initiator: UserId,
    /// How many times the room of these members had been deleted before.
    pub generation: u32,
    /// When it was initiated.
    pub initiated_at: Timestamp,
    /// Whether it has been deleted.
    pub deleted: bool,
    /// The last event of its history: what the log has there if nothing has changed since.
    pub position: Position,
}

impl Room {
    /// The room that the event at `position` leaves; `None` when it is not about a room's life.
    pub fn after(position: Position, envelope: &Envelope) -> Option<Self> {
        match &envelope.event {
            Event::RoomInitiated(event) => Some(Self {
                id: event.room_id,
                room_type: event.room_type,
                members: event.members.clone(),
                initiator: event.initiator,
                generation: event.generation,
                initiated_at: envelope.at,
                deleted: false,
                position,
            }),
            Event::RoomDeleted(event) => Some(Self {
                id: event.room_id,
                room_type: event.room_type,
                members: event.members.clone(),
                initiator: event.initiator,
                generation: event.generation,
                initiated_at: event.initiated_at,
                deleted: true,
                position,
            }),
            _ => None,
        }
    }

    /// Whether `user` is one of the members.
    pub fn has_member(&self, user: UserId) -> bool {
        self.members.binary_search(&user).is_ok()
    }
}

/// A message as it was posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostedMessage {
    /// The message's id.
    pub id: MessageId,
    /// The room it was posted to.
    pub room: RoomId,
    /// Who wrote it.
    pub author: UserId,
    /// When it was posted.
    pub at: Timestamp,
}

impl PostedMessage {
    /// The message that the event at `position` posts; `None` when it posts none.
    pub fn after(position: Position, envelope: &Envelope) -> Option<Self> {
        match &envelope.event {
            Event::MessagePosted(event) => Some(Self {
                id: MessageId::at(position),
                room: event.room_id,
                author: event.author,
                at: envelope.at,
            }),
            _ => None,
        }
    }
}

/// What a decision is made from: the users, rooms and messages that the command touches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    users: HashMap<UserId, User>,
    rooms: HashMap<RoomId, Room>,
    messages: HashMap<MessageId, PostedMessage>,
    /// The rooms under legal hold.
    held: HashSet<RoomId>,
    /// Where the last event on each room's legal holds stands.
    last_on_hold: HashMap<RoomId, Position>,
    /// The last message of each room whose text has expired.
    expired: HashMap<RoomId, MessageId>,
}

impl State {
    /// Folds the next event of the log.
    pub fn apply(&mut self, position: Position, envelope: &Envelope) {
        self.insert_user(User::after(position, envelope));
        self.insert_room(Room::after(position, envelope));
        self.insert_message(PostedMessage::after(position, envelope));
        self.apply_hold(position, &envelope.event);
        self.apply_expiry(&envelope.event);
    }

    /// Folds the next event on a room's legal holds.
    pub fn apply_hold(&mut self, position: Position, event: &Event) {
        let room = match event {
            Event::RoomHeld(event) => {
                self.held.insert(event.room_id);
                event.room_id
            }
            Event::RoomReleased(event) => {
                self.held.remove(&event.room_id);
                event.room_id
            }
            _ => return,
        };
        self.last_on_hold.insert(room, position);
    }

    /// Folds the next event on the expiry of a room's texts.
    pub fn apply_expiry(&mut self, event: &Event) {
        if let Event::MessageExpired(event) = event {
            let bound = self.expired.entry(event.room_id).or_insert(event.up_to);
            *bound = event.up_to.max(*bound);
        }
    }

    /// Adds what is known of a user.
    pub fn insert_user(&mut self, user: impl Into<Option<User>>) {
        if let Some(user) = user.into() {
            self.users.insert(user.id, user);
        }
    }

    /// Adds what is known of a room.
    pub fn insert_room(&mut self, room: impl Into<Option<Room>>) {
        if let Some(room) = room.into() {
            self.rooms.insert(room.id, room);
        }
    }

    /// Adds what is known of a message.
    pub fn insert_message(&mut self, message: impl Into<Option<PostedMessage>>) {
        if let Some(message) = message.into() {
            self.messages.insert(message.id, message);
        }
    }

    /// The user, unless it does not exist or is deleted.
    pub fn user(&self, id: UserId) -> Option<&User> {
        self.users.get(&id).filter(|user| !user.deleted)
    }

    /// The user, also when it has been deleted.
    pub fn known_user(&self, id: UserId) -> Option<&User> {
        self.users.get(&id)
    }

    /// Whether the room is under legal hold.
    pub fn is_held(&self, room: RoomId) -> bool {
        self.held.contains(&room)
    }

    /// The rooms under legal hold, in ascending order.
    pub fn held_rooms(&self) -> Vec<RoomId> {
        let mut held: Vec<RoomId> = self.held.iter().copied().collect();
        held.sort_unstable();
        held
    }

    /// Where the last event on the room's legal holds stands; [`Position::ZERO`] when there is none.
    pub fn last_on_hold(&self, room: RoomId) -> Position {
        self.last_on_hold.get(&room).copied().unwrap_or_default()
    }

    /// The last message of the room whose text has expired; `None` when none has.
    pub fn expired(&self, room: RoomId) -> Option<MessageId> {
        self.expired.get(&room).copied()
    }

    /// Whether the user is known to have been deleted.
    pub fn is_deleted(&self, id: UserId) -> bool {
        self.users.get(&id).is_some_and(|user| user.deleted)
    }

    /// The room, unless it does not exist or is deleted.
    pub fn room(&self, id: RoomId) -> Option<&Room> {
        self.rooms.get(&id).filter(|room| !room.deleted)
    }

    /// The room, also when it has been deleted.
    pub fn known_room(&self, id: RoomId) -> Option<&Room> {
        self.rooms.get(&id)
    }

    /// The message as posted, deleted or not.
    pub fn message(&self, id: MessageId) -> Option<&PostedMessage> {
        self.messages.get(&id)
    }

    /// The id and generation under which the room of these members lives or would live next: the first
    /// one that was not deleted.
    pub fn room_of(&self, room_type: RoomType, members: &[UserId]) -> (RoomId, u32) {
        let mut generation = 0;
        loop {
            let id = RoomId::derive(room_type, members, generation);
            match self.rooms.get(&id) {
                Some(room) if room.deleted => generation += 1,
                _ => return (id, generation),
            }
        }
    }
}
