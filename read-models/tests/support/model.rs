//! The read models as a handful of lists in memory: slow, and simple enough to be seen to be right.

use std::collections::{BTreeMap, HashMap};

use events::{Event, MessageId, Position, RoomId, RoomType, Timestamp, UserId};
use read_models::{
    COUNT_CAP, ConversationRow, Entry, Gone, HistoryRow, Left, MessageRow, Page, PageStart,
    Receipt, RecentRow, RoomDeletion, RoomRow, Search, UserRow, VersionRow, Words,
};
use uuid::Uuid;

#[derive(Default)]
pub struct Model {
    users: Vec<UserRow>,
    rooms: BTreeMap<RoomId, Room>,
    messages: BTreeMap<MessageId, Message>,
    reads: Vec<Read>,
    erased: HashMap<UserId, Gone>,
    keys: HashMap<Uuid, Position>,
}

struct Room {
    room_type: RoomType,
    members: Vec<UserId>,
    deletion: Option<RoomDeletion>,
    /// The last message whose text has expired.
    expired: Option<MessageId>,
}

struct Message {
    room: RoomId,
    author: UserId,
    /// As posted, and then by each edit; whether they are gone is another question.
    versions: Vec<VersionRow>,
    deleted: Option<(Position, Gone)>,
}

struct Read {
    position: Position,
    room: RoomId,
    reader: UserId,
    up_to: Option<MessageId>,
    at: Timestamp,
}

impl Read {
    fn covers(&self, id: MessageId, room: RoomId) -> bool {
        self.room == room
            && id.position() < self.position
            && self.up_to.is_none_or(|up_to| id <= up_to)
    }
}

impl Model {
    /// Folds the next event of the log.
    pub fn apply(&mut self, entry: &Entry) {
        let Entry { position, envelope } = entry;
        if envelope.key.is_some() {
            let first = self
                .keys
                .entry(envelope.deduplication_id())
                .or_insert(*position);
            if first != position {
                return;
            }
        }
        let gone = Gone {
            at: envelope.at,
            by: envelope.actor,
        };
        match &envelope.event {
            Event::UserCreated(event) => {
                let is_erased = self.erased.contains_key(&event.user_id);
                let name = |name: &str| if is_erased { "" } else { name }.to_owned();
                if self.users.iter().all(|user| user.id != event.user_id) {
                    self.users.push(UserRow {
                        id: event.user_id,
                        first_name: name(event.first_name()),
                        last_name: name(event.last_name()),
                        user_type: event.user_type,
                        created_at: envelope.at,
                        updated_at: envelope.at,
                        deleted: false,
                    });
                }
            }
            Event::UserDeleted(event) => self.delete_user(event.user_id, envelope.at),
            Event::UserErased(event) => {
                self.delete_user(event.user_id, envelope.at);
                self.erased.entry(event.user_id).or_insert(gone);
            }
            Event::RoomInitiated(event) => {
                self.rooms.entry(event.room_id).or_insert(Room {
                    room_type: event.room_type,
                    members: event.members.clone(),
                    deletion: None,
                    expired: None,
                });
            }
            Event::RoomDeleted(event) => {
                let id = event.room_id;
                let messages = self.live_messages_of(id).len() as u64;
                if self.open_room(id).is_some() {
                    self.rooms.get_mut(&id).unwrap().deletion = Some(RoomDeletion { messages });
                    self.messages.retain(|_, message| message.room != id);
                    self.reads.retain(|read| read.room != id);
                }
            }
            Event::MessagePosted(event) => {
                if self.is_member(event.room_id, event.author) {
                    let message = Message {
                        room: event.room_id,
                        author: event.author,
                        versions: vec![VersionRow {
                            position: *position,
                            text: event.message_text.clone(),
                            at: envelope.at,
                        }],
                        deleted: None,
                    };
                    self.messages.insert(MessageId::at(*position), message);
                }
            }
            Event::MessageDeleted(event) => {
                if let Some(message) = self.messages.get_mut(&event.message_id)
                    && message.room == event.room_id
                {
                    message.deleted.get_or_insert((*position, gone));
                }
            }
            Event::MessageEdited(event) => {
                let id = event.message_id;
                if let Some(message) = self.messages.get(&id)
                    && (message.room, message.author) == (event.room_id, event.author)
                    && message.deleted.is_none()
                    && self.rooms[&message.room]
                        .expired
                        .is_none_or(|up_to| id > up_to)
                {
                    self.messages
                        .get_mut(&id)
                        .unwrap()
                        .versions
                        .push(VersionRow {
                            position: *position,
                            text: event.message_text.clone(),
                            at: envelope.at,
                        });
                }
            }
            Event::MessageExpired(event) => {
                if self.open_room(event.room_id).is_some() {
                    let last = MessageId::at(Position::new(position.get() - 1));
                    let room = self.rooms.get_mut(&event.room_id).unwrap();
                    room.expired = room.expired.max(Some(event.up_to.min(last)));
                }
            }
            Event::RoomHeld(_) | Event::RoomReleased(_) | Event::AuditRead(_) => {}
            Event::ConversationRead(event) => {
                if self.is_member(event.room_id, event.reader) {
                    self.reads.push(Read {
                        position: *position,
                        room: event.room_id,
                        reader: event.reader,
                        up_to: event.up_to,
                        at: envelope.at,
                    });
                }
            }
        }
    }

    fn delete_user(&mut self, id: UserId, at: Timestamp) {
        for user in &mut self.users {
            if user.id == id && !user.deleted {
                user.first_name.clear();
                user.last_name.clear();
                user.updated_at = at;
                user.deleted = true;
            }
        }
    }

    fn open_room(&self, id: RoomId) -> Option<&Room> {
        self.rooms.get(&id).filter(|room| room.deletion.is_none())
    }

    fn is_member(&self, room: RoomId, user: UserId) -> bool {
        self.open_room(room)
            .is_some_and(|room| room.members.contains(&user))
    }

    /// Oldest first.
    fn messages_of(&self, room: RoomId) -> Vec<MessageId> {
        self.messages
            .iter()
            .filter(|(_, message)| message.room == room)
            .map(|(id, _)| *id)
            .collect()
    }

    /// Those that have not been deleted.
    fn live_messages_of(&self, room: RoomId) -> Vec<MessageId> {
        let mut all = self.messages_of(room);
        all.retain(|id| self.messages[id].deleted.is_none());
        all
    }

    fn left(&self, id: MessageId) -> Left {
        let message = &self.messages[&id];
        let expired = self.rooms[&message.room].expired;
        if message.deleted.is_some() {
            Left::Deleted
        } else if expired.is_some_and(|up_to| id <= up_to) {
            Left::Expired
        } else if self.erased.contains_key(&message.author) {
            Left::Erased
        } else {
            Left::Text
        }
    }

    fn text(&self, id: MessageId) -> Option<&str> {
        let newest = self.messages[&id].versions.last().unwrap();
        let text = newest.text.as_deref();
        text.filter(|_| self.left(id) == Left::Text)
    }

    pub fn history(&self, room: RoomId, id: MessageId) -> Option<HistoryRow> {
        let message = self.messages.get(&id).filter(|it| it.room == room)?;
        let left = self.left(id);
        let mut versions = message.versions.clone();
        if left != Left::Text {
            versions.iter_mut().for_each(|version| version.text = None);
        }
        Some(HistoryRow {
            author: message.author,
            created_at: message.versions[0].at,
            versions,
            left,
            gone: match left {
                Left::Deleted => message.deleted.map(|(_, gone)| gone),
                Left::Erased => self.erased.get(&message.author).copied(),
                Left::Text | Left::Expired => None,
            },
        })
    }

    pub fn expirable(
        &self,
        room_type: RoomType,
        before: Timestamp,
        after: Option<RoomId>,
        limit: u32,
    ) -> Vec<(RoomId, MessageId)> {
        let rooms = self.rooms.iter().filter(|(id, room)| {
            room.deletion.is_none()
                && room.room_type == room_type
                && after.is_none_or(|after| **id > after)
        });
        let found = rooms.filter_map(|(id, room)| {
            let messages = self.messages_of(*id).into_iter();
            let older = messages
                .skip_while(|message| room.expired.is_some_and(|up_to| *message <= up_to))
                .take_while(|message| self.messages[message].versions[0].at < before);
            Some((*id, older.last()?))
        });
        found.take(limit as usize).collect()
    }

    pub fn oldest_unexpired(&self, id: RoomId) -> Option<Timestamp> {
        let room = self.rooms.get(&id)?;
        if room.deletion.is_some() {
            return None;
        }
        let mut messages = self.messages_of(id).into_iter();
        let oldest = messages.find(|message| Some(*message) > room.expired)?;
        Some(self.messages[&oldest].versions[0].at)
    }

    fn message(&self, id: MessageId) -> MessageRow {
        let message = &self.messages[&id];
        let mut read_by = vec![Receipt {
            reader: message.author,
            read_at: message.versions[0].at,
        }];
        // In log order: the first read that covers the message counts for each reader.
        for read in &self.reads {
            let known = read_by.iter().any(|receipt| receipt.reader == read.reader);
            if read.covers(id, message.room) && !known {
                read_by.push(Receipt {
                    reader: read.reader,
                    read_at: read.at,
                });
            }
        }
        MessageRow {
            id,
            room: message.room,
            author: message.author,
            text: self.text(id).unwrap_or_default().to_owned(),
            left: self.left(id),
            created_at: message.versions[0].at,
            edited_at: message.versions[1..].last().map(|edit| edit.at),
            read_by,
        }
    }

    pub fn users(&self) -> Vec<UserRow> {
        let live = self.users.iter().filter(|user| !user.deleted);
        live.cloned().collect()
    }

    pub fn users_by_id(&self, ids: &[UserId]) -> Vec<UserRow> {
        let named = self.users.iter().filter(|user| ids.contains(&user.id));
        named.cloned().collect()
    }

    pub fn room(&self, id: RoomId) -> Option<RoomRow> {
        self.open_room(id).map(|room| RoomRow {
            id,
            room_type: room.room_type,
            members: room.members.clone(),
        })
    }

    pub fn recent(&self, user: UserId, page: Page) -> Vec<RecentRow> {
        let mut newest: Vec<(MessageId, RoomId)> = self
            .rooms
            .keys()
            .filter(|room| self.is_member(**room, user))
            .filter_map(|room| Some((*self.live_messages_of(*room).last()?, *room)))
            .collect();
        newest.sort_unstable();
        newest.reverse();
        part(newest, |(message, _)| *message, page)
            .into_iter()
            .map(|(message, room)| RecentRow {
                room: self.room(room).unwrap(),
                message: self.message(message),
                unread: self.unread(user, room),
            })
            .collect()
    }

    fn unread(&self, user: UserId, room: RoomId) -> u64 {
        let unread = self.live_messages_of(room).into_iter().filter(|id| {
            let mut reads = self.reads.iter();
            self.messages[id].author != user
                && !reads.any(|read| read.reader == user && read.covers(*id, room))
        });
        (unread.count() as u64).min(COUNT_CAP)
    }

    pub fn conversation(&self, room: RoomId, page: Page) -> Option<ConversationRow> {
        let row = self.room(room)?;
        let mut newest_first = self.messages_of(room);
        newest_first.reverse();
        let mut page = part(newest_first, |id| *id, page);
        page.reverse();
        Some(ConversationRow {
            room: row,
            messages: page.into_iter().map(|id| self.message(id)).collect(),
        })
    }

    pub fn search(&self, user: UserId, search: &Search) -> Vec<MessageRow> {
        let found = self.messages.iter().rev().filter(|(id, message)| {
            self.is_member(message.room, user)
                && search.room.is_none_or(|room| room == message.room)
                && search.before.is_none_or(|before| **id < before)
                && !search.words.is_empty()
                && search
                    .words
                    .are_all_in(&self.text(**id).map(Words::of).unwrap_or_default())
        });
        let found = found.take(search.limit as usize);
        found.map(|(id, _)| self.message(*id)).collect()
    }

    pub fn newly_read(&self, position: Position) -> u64 {
        let Some(index) = self.reads.iter().position(|read| read.position == position) else {
            return 0;
        };
        let read = &self.reads[index];
        let newly = self.live_messages_of(read.room).into_iter().filter(|id| {
            let mut earlier = self.reads[..index].iter();
            self.messages[id].author != read.reader
                && read.covers(*id, read.room)
                && !earlier.any(|one| one.reader == read.reader && one.covers(*id, read.room))
        });
        (newly.count() as u64).min(COUNT_CAP)
    }

    pub fn deleted_by(&self, message: MessageId, position: Position) -> bool {
        self.messages
            .get(&message)
            .is_some_and(|message| message.deleted.is_some_and(|(at, _)| at == position))
    }

    pub fn room_deletion(&self, room: RoomId) -> Option<RoomDeletion> {
        self.rooms.get(&room)?.deletion
    }

    pub fn position_of_key(&self, deduplication_id: Uuid) -> Option<Position> {
        self.keys.get(&deduplication_id).copied()
    }
}

/// A part of a list that runs newest first.
fn part<T>(list: Vec<T>, id: impl Fn(&T) -> MessageId, page: Page) -> Vec<T> {
    let limit = page.limit as usize;
    match page.start {
        PageStart::Number(number) => {
            let skipped = usize::try_from(number).unwrap().saturating_mul(limit);
            list.into_iter().skip(skipped).take(limit).collect()
        }
        PageStart::Before(message) => {
            let older = list.into_iter().filter(|item| id(item) < message);
            older.take(limit).collect()
        }
        PageStart::After(message) => {
            let newer: Vec<T> = list.into_iter().filter(|item| id(item) > message).collect();
            let skipped = newer.len().saturating_sub(limit);
            newer.into_iter().skip(skipped).collect()
        }
    }
}
