//! The log folded into what must be stored, a shard of it at a time: what each event does, in the plainest
//! way, and nothing of how either adapter goes about it.

use std::collections::HashMap;

use events::{
    ConversationRead, Envelope, Event, MessagePosted, Position, RoomId, RoomType, Timestamp,
    UserId, UserType,
};
use read_models::COUNT_CAP;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// A part of all users, rooms and keys: those whose id leaves this remainder.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shard {
    pub(crate) index: u64,
    of: u64,
}

impl Shard {
    /// All of so many.
    pub(crate) fn all(of: u64) -> impl Iterator<Item = Self> {
        (0..of).map(move |index| Self { index, of })
    }

    pub(crate) fn holds(self, id: &Uuid) -> bool {
        id.as_u128() % u128::from(self.of) == u128::from(self.index)
    }
}

/// What stands for a text: as good for comparing, and small.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct TextHash([u8; 16]);

impl TextHash {
    pub(crate) fn of(text: &str) -> Self {
        let mut hash = [0; 16];
        hash.copy_from_slice(&Sha256::digest(text)[..16]);
        Self(hash)
    }
}

pub(crate) struct User {
    pub(crate) created: Position,
    pub(crate) first_name: TextHash,
    pub(crate) last_name: TextHash,
    pub(crate) user_type: UserType,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) deleted: bool,
}

pub(crate) struct Room {
    pub(crate) room_type: RoomType,
    pub(crate) initiated: Position,
    /// None once deleted, as everything below.
    pub(crate) members: Vec<UserId>,
    pub(crate) deletion: Option<Deletion>,
    /// All that was posted, deleted or not, in order.
    posted: Vec<Position>,
    marks: Vec<Position>,
    /// Up to where each member has read.
    read: HashMap<UserId, Position>,
}

#[derive(Clone, Copy)]
pub(crate) struct Deletion {
    pub(crate) position: Position,
    pub(crate) messages: u64,
}

pub(crate) struct Message {
    pub(crate) room: RoomId,
    pub(crate) author: UserId,
    pub(crate) text: TextHash,
    pub(crate) created_at: Timestamp,
    pub(crate) deleted_at: Option<Position>,
}

pub(crate) struct Mark {
    pub(crate) room: RoomId,
    pub(crate) reader: UserId,
    pub(crate) from: Position,
    pub(crate) up_to: Position,
    pub(crate) at: Timestamp,
}

/// What the log comes to, of one shard.
pub(crate) struct Fold {
    shard: Shard,
    pub(crate) users: HashMap<UserId, User>,
    pub(crate) rooms: HashMap<RoomId, Room>,
    pub(crate) messages: HashMap<Position, Message>,
    pub(crate) marks: HashMap<Position, Mark>,
}

impl Fold {
    pub(crate) fn of(shard: Shard) -> Self {
        Self {
            shard,
            users: HashMap::new(),
            rooms: HashMap::new(),
            messages: HashMap::new(),
            marks: HashMap::new(),
        }
    }

    /// Folds the next event of the log, unless it is another shard's. One that is void for its idempotency
    /// key must be left out; see [`crate::keys`].
    pub(crate) fn event(&mut self, position: Position, envelope: &Envelope) {
        let at = envelope.at;
        match &envelope.event {
            Event::UserCreated(event) => {
                if self.shard.holds(event.user_id.as_uuid()) {
                    self.users.entry(event.user_id).or_insert_with(|| User {
                        created: position,
                        first_name: TextHash::of(event.first_name()),
                        last_name: TextHash::of(event.last_name()),
                        user_type: event.user_type,
                        created_at: at,
                        updated_at: at,
                        deleted: false,
                    });
                }
            }
            Event::UserDeleted(event) => {
                if let Some(user) = self.users.get_mut(&event.user_id)
                    && !user.deleted
                {
                    user.first_name = TextHash::of("");
                    user.last_name = TextHash::of("");
                    user.updated_at = at;
                    user.deleted = true;
                }
            }
            Event::RoomInitiated(event) => {
                if self.shard.holds(event.room_id.as_uuid()) {
                    self.rooms.entry(event.room_id).or_insert_with(|| Room {
                        room_type: event.room_type,
                        initiated: position,
                        members: event.members.clone(),
                        deletion: None,
                        posted: Vec::new(),
                        marks: Vec::new(),
                        read: HashMap::new(),
                    });
                }
            }
            Event::RoomDeleted(event) => self.delete_room(event.room_id, position),
            Event::MessagePosted(event) => self.post(event, position, at),
            Event::MessageDeleted(event) => {
                if let Some(message) = self.messages.get_mut(&event.message_id.position())
                    && message.room == event.room_id
                {
                    message.deleted_at.get_or_insert(position);
                }
            }
            Event::UserErased(_)
            | Event::MessageEdited(_)
            | Event::MessageExpired(_)
            | Event::RoomHeld(_)
            | Event::RoomReleased(_)
            | Event::AuditRead(_) => {}
            Event::ConversationRead(event) => self.read(event, position, at),
        }
    }

    fn delete_room(&mut self, id: RoomId, position: Position) {
        let Some(room) = self
            .rooms
            .get_mut(&id)
            .filter(|room| room.deletion.is_none())
        else {
            return;
        };
        let posted = std::mem::take(&mut room.posted).into_iter();
        let removed = posted.filter_map(|message| self.messages.remove(&message));
        let messages = removed.filter(|message| message.deleted_at.is_none());
        room.deletion = Some(Deletion {
            position,
            messages: messages.count() as u64,
        });
        for mark in std::mem::take(&mut room.marks) {
            self.marks.remove(&mark);
        }
        room.members = Vec::new();
        room.read = HashMap::new();
    }

    /// The room if it is in this shard and open to this user.
    fn room_of(&mut self, room: RoomId, user: UserId) -> Option<&mut Room> {
        let room = self.rooms.get_mut(&room)?;
        room.members.contains(&user).then_some(room)
    }

    fn post(&mut self, event: &MessagePosted, position: Position, at: Timestamp) {
        let Some(room) = self.room_of(event.room_id, event.author) else {
            return;
        };
        room.posted.push(position);
        let message = Message {
            room: event.room_id,
            author: event.author,
            text: TextHash::of(event.message_text.as_deref().unwrap_or_default()),
            created_at: at,
            deleted_at: None,
        };
        self.messages.insert(position, message);
    }

    /// A mark goes up to the newest message there was, deleted or not, and only forward.
    fn read(&mut self, event: &ConversationRead, position: Position, at: Timestamp) {
        let Some(room) = self.room_of(event.room_id, event.reader) else {
            return;
        };
        let bound = event.up_to.map_or(position, |message| message.position());
        let within = room.posted.partition_point(|message| *message <= bound);
        let Some(up_to) = room.posted[..within].last().copied() else {
            return;
        };
        let read = room.read.entry(event.reader).or_default();
        let from = *read;
        if up_to > from {
            *read = up_to;
            room.marks.push(position);
            let mark = Mark {
                room: event.room_id,
                reader: event.reader,
                from,
                up_to,
                at,
            };
            self.marks.insert(position, mark);
        }
    }

    /// The room's newest message that has not been deleted.
    pub(crate) fn last_message(&self, room: &Room) -> Option<Position> {
        let mut newest_first = room.posted.iter().rev();
        newest_first.find(|message| self.is_live(message)).copied()
    }

    /// How many messages the member has not read, as far as that is counted.
    pub(crate) fn unread(&self, room: &Room, member: UserId) -> u64 {
        let read = room.read.get(&member).copied().unwrap_or_default();
        let first = room.posted.partition_point(|message| *message <= read);
        let unread = room.posted[first..]
            .iter()
            .filter(|message| self.is_live(message) && self.messages[*message].author != member);
        unread.take(COUNT_CAP as usize).count() as u64
    }

    fn is_live(&self, message: &Position) -> bool {
        self.messages[message].deleted_at.is_none()
    }
}
