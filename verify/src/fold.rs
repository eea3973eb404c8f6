//! The log folded into what must be stored, a shard of it at a time: what each event does, in the plainest
//! way, and nothing of how either adapter goes about it.

use std::collections::HashMap;

use events::{
    ConversationRead, Envelope, Event, MessageEdited, MessagePosted, Names, Position, RoomId,
    RoomType, Timestamp, UserId, UserType,
};
use read_models::{COUNT_CAP, Gone, StoredDeletion};
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

/// What is to be stored of a text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Text {
    /// This.
    Is(TextHash),
    /// Nothing: it is gone.
    Gone,
    /// This or nothing: its key has been destroyed, perhaps before it was projected, and the event that says
    /// why has not come yet.
    Unreadable,
}

impl Text {
    fn of(text: Option<&str>) -> Self {
        text.map_or(Self::Unreadable, |text| Self::Is(TextHash::of(text)))
    }
}

pub(crate) struct User {
    pub(crate) created: Position,
    pub(crate) first_name: Text,
    pub(crate) last_name: Text,
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
    /// The last message whose text has expired.
    pub(crate) expired: Option<Position>,
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
    /// As far as nothing else says that it is gone, see [`Fold::text`].
    pub(crate) text: Text,
    pub(crate) created_at: Timestamp,
    /// The newest.
    pub(crate) edit: Option<Position>,
    /// The first.
    pub(crate) deletion: Option<Box<StoredDeletion>>,
}

pub(crate) struct Edit {
    pub(crate) room: RoomId,
    pub(crate) message: Position,
    /// As that of a message.
    pub(crate) text: Text,
    pub(crate) at: Timestamp,
}

pub(crate) struct Erasure {
    pub(crate) position: Position,
    pub(crate) gone: Gone,
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
    pub(crate) edits: HashMap<Position, Edit>,
    /// Of everybody, whatever the shard: their texts are in rooms of all shards.
    pub(crate) erasures: HashMap<UserId, Erasure>,
    pub(crate) marks: HashMap<Position, Mark>,
}

impl Fold {
    pub(crate) fn of(shard: Shard) -> Self {
        Self {
            shard,
            users: HashMap::new(),
            rooms: HashMap::new(),
            messages: HashMap::new(),
            edits: HashMap::new(),
            erasures: HashMap::new(),
            marks: HashMap::new(),
        }
    }

    /// Folds the next event of the log, unless it is another shard's. One that is void for its idempotency
    /// key must be left out; see [`crate::keys`].
    pub(crate) fn event(&mut self, position: Position, envelope: &Envelope) {
        let at = envelope.at;
        let gone = Gone {
            at,
            by: envelope.actor,
        };
        match &envelope.event {
            Event::UserCreated(event) => {
                if self.shard.holds(event.user_id.as_uuid()) {
                    let is_erased = self.erasures.contains_key(&event.user_id);
                    let name = |name: fn(&Names) -> &str| match is_erased {
                        true => Text::of(Some("")),
                        false => Text::of(event.names.as_ref().map(name)),
                    };
                    self.users.entry(event.user_id).or_insert_with(|| User {
                        created: position,
                        first_name: name(|names| &names.first_name),
                        last_name: name(|names| &names.last_name),
                        user_type: event.user_type,
                        created_at: at,
                        updated_at: at,
                        deleted: false,
                    });
                }
            }
            Event::UserDeleted(event) => self.delete_user(event.user_id, at),
            Event::UserErased(event) => {
                self.delete_user(event.user_id, at);
                let erasure = Erasure { position, gone };
                self.erasures.entry(event.user_id).or_insert(erasure);
            }
            Event::RoomInitiated(event) => {
                if self.shard.holds(event.room_id.as_uuid()) {
                    self.rooms.entry(event.room_id).or_insert_with(|| Room {
                        room_type: event.room_type,
                        initiated: position,
                        members: event.members.clone(),
                        deletion: None,
                        expired: None,
                        posted: Vec::new(),
                        marks: Vec::new(),
                        read: HashMap::new(),
                    });
                }
            }
            Event::RoomDeleted(event) => self.delete_room(event.room_id, position),
            Event::MessagePosted(event) => self.post(event, position, at),
            Event::MessageEdited(event) => self.edit(event, position, at),
            Event::MessageDeleted(event) => {
                if let Some(message) = self.messages.get_mut(&event.message_id.position())
                    && message.room == event.room_id
                {
                    let deletion = StoredDeletion { position, gone };
                    message.deletion.get_or_insert(Box::new(deletion));
                }
            }
            Event::MessageExpired(event) => {
                if let Some(room) = self.rooms.get_mut(&event.room_id)
                    && room.deletion.is_none()
                {
                    // Nothing at or after the event itself can have expired.
                    let last = Position::new(position.get() - 1);
                    let up_to = event.up_to.position().min(last);
                    room.expired = room
                        .expired
                        .max(Some(up_to).filter(|it| *it > Position::ZERO));
                }
            }
            Event::RoomHeld(_) | Event::RoomReleased(_) | Event::AuditRead(_) => {}
            Event::ConversationRead(event) => self.read(event, position, at),
        }
    }

    fn delete_user(&mut self, user: UserId, at: Timestamp) {
        if let Some(user) = self.users.get_mut(&user)
            && !user.deleted
        {
            user.first_name = Text::of(Some(""));
            user.last_name = Text::of(Some(""));
            user.updated_at = at;
            user.deleted = true;
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
        let messages = removed.filter(|message| message.deletion.is_none());
        room.deletion = Some(Deletion {
            position,
            messages: messages.count() as u64,
        });
        for mark in std::mem::take(&mut room.marks) {
            self.marks.remove(&mark);
        }
        self.edits.retain(|_, edit| edit.room != id);
        room.expired = None;
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
            text: Text::of(event.message_text.as_deref()),
            created_at: at,
            edit: None,
            deletion: None,
        };
        self.messages.insert(position, message);
    }

    /// Only the author's, and only while there is a text.
    fn edit(&mut self, event: &MessageEdited, position: Position, at: Timestamp) {
        let id = event.message_id.position();
        let Some(message) = self.messages.get_mut(&id) else {
            return;
        };
        let expired = self.rooms[&message.room].expired;
        let is_its = (message.room, message.author) == (event.room_id, event.author);
        if !is_its || message.deletion.is_some() || expired.is_some_and(|up_to| id <= up_to) {
            return;
        }
        message.edit = Some(position);
        let edit = Edit {
            room: event.room_id,
            message: id,
            text: Text::of(event.message_text.as_deref()),
            at,
        };
        self.edits.insert(position, edit);
    }

    /// What is to be stored of a text of this message, as posted or by an edit.
    pub(crate) fn text(&self, id: Position, message: &Message, text: Text) -> Text {
        let expired = self.rooms.get(&message.room).and_then(|room| room.expired);
        let is_gone = message.deletion.is_some()
            || expired.is_some_and(|up_to| id <= up_to)
            || self.erasures.contains_key(&message.author);
        if is_gone { Text::Gone } else { text }
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
        self.messages[message].deletion.is_none()
    }
}
