//! The second reading: what had become of some messages.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;

use events::{Envelope, Event, MessageId, Position, RoomId, Timestamp, UserId};
use read_models::{Left, MessageRow, Receipt};

use crate::index::{Index, read_up_to};

/// Some messages, and what has become of them.
pub(crate) struct Messages<'a> {
    wanted: BTreeSet<MessageId>,
    rooms: &'a HashMap<RoomId, &'a Index>,
    found: BTreeMap<MessageId, Message>,
    /// How far the texts of each room had expired.
    expired: HashMap<RoomId, MessageId>,
    /// Up to where each reader has read in each room.
    read: HashMap<(RoomId, UserId), Position>,
}

struct Message {
    room: RoomId,
    author: UserId,
    text: Option<String>,
    created_at: Timestamp,
    edited_at: Option<Timestamp>,
    is_deleted: bool,
    read_by: Vec<Receipt>,
}

impl<'a> Messages<'a> {
    /// These messages of these rooms.
    pub(crate) fn new(wanted: BTreeSet<MessageId>, rooms: &'a HashMap<RoomId, &'a Index>) -> Self {
        Self {
            wanted,
            rooms,
            found: BTreeMap::new(),
            expired: HashMap::new(),
            read: HashMap::new(),
        }
    }

    /// Whether the event's text is one of theirs, and has not expired.
    pub(crate) fn needs_text_of(&self, position: Position, outline: &Envelope) -> bool {
        let id = match &outline.event {
            Event::MessagePosted(_) => MessageId::at(position),
            Event::MessageEdited(event) => event.message_id,
            _ => return false,
        };
        let room = self.room_of(outline);
        let expired = room.and_then(|(_, index)| index.expired);
        self.wanted.contains(&id) && expired < Some(id)
    }

    /// Folds the next event of the rooms.
    pub(crate) fn event(&mut self, position: Position, envelope: &Envelope) {
        let Some((room, index)) = self.room_of(envelope) else {
            return;
        };
        if index.is_void(position) {
            return;
        }
        let at = envelope.at;
        match &envelope.event {
            Event::MessagePosted(event) => {
                let id = MessageId::at(position);
                if self.wanted.contains(&id) {
                    let author = Receipt {
                        reader: event.author,
                        read_at: at,
                    };
                    let message = Message {
                        room,
                        author: event.author,
                        text: event.message_text.clone(),
                        created_at: at,
                        edited_at: None,
                        is_deleted: false,
                        read_by: vec![author],
                    };
                    self.found.insert(id, message);
                }
            }
            Event::MessageEdited(event) => {
                let id = event.message_id;
                let has_expired = self.expired.get(&room).is_some_and(|up_to| id <= *up_to);
                if let Some(message) = self.found.get_mut(&id)
                    && (message.room, message.author) == (room, event.author)
                    && !message.is_deleted
                    && !has_expired
                {
                    message.text.clone_from(&event.message_text);
                    message.edited_at = Some(at);
                }
            }
            Event::MessageDeleted(event) => {
                if let Some(message) = self.found.get_mut(&event.message_id)
                    && message.room == room
                {
                    message.is_deleted = true;
                }
            }
            Event::MessageExpired(event) => {
                // Nothing at or after the event itself can have expired.
                let up_to = MessageId::at(read_up_to(position, Some(event.up_to)));
                let expired = self.expired.entry(room).or_insert(up_to);
                *expired = up_to.max(*expired);
            }
            Event::ConversationRead(event) => {
                if index.has_member(event.reader) {
                    let up_to = read_up_to(position, event.up_to);
                    self.read(room, event.reader, up_to, at);
                }
            }
            Event::RoomInitiated(_)
            | Event::RoomDeleted(_)
            | Event::RoomHeld(_)
            | Event::RoomReleased(_)
            | Event::UserCreated(_)
            | Event::UserDeleted(_)
            | Event::UserErased(_)
            | Event::AuditRead(_) => {}
        }
    }

    fn room_of(&self, envelope: &Envelope) -> Option<(RoomId, &'a Index)> {
        let room = envelope.event.room()?;
        Some((room, *self.rooms.get(&room)?))
    }

    /// The first reading that covers a message counts.
    fn read(&mut self, room: RoomId, reader: UserId, up_to: Position, at: Timestamp) {
        let read = self.read.entry((room, reader)).or_default();
        if up_to <= *read {
            return;
        }
        let newly = (
            Bound::Excluded(MessageId::at(*read)),
            Bound::Included(MessageId::at(up_to)),
        );
        *read = up_to;
        for (_, message) in self.found.range_mut(newly) {
            if message.room == room && message.author != reader {
                message.read_by.push(Receipt {
                    reader,
                    read_at: at,
                });
            }
        }
    }

    /// Who wrote them.
    pub(crate) fn authors(&self) -> Vec<UserId> {
        let authors: BTreeSet<UserId> = self.found.values().map(|it| it.author).collect();
        authors.into_iter().collect()
    }

    /// The messages. `erased` are those of the authors who have been erased by now, be it after the moment:
    /// what is gone is not brought back, and neither is what has expired since.
    pub(crate) fn into_rows(self, erased: &HashSet<UserId>) -> HashMap<MessageId, MessageRow> {
        let rows = self.found.into_iter().map(|(id, message)| {
            let expired = self.rooms.get(&message.room);
            let expired = expired.and_then(|index| index.expired);
            let is_erased = erased.contains(&message.author);
            let has_expired = expired.is_some_and(|up_to| id <= up_to);
            let text = message.text.filter(|_| !is_erased && !has_expired);
            let left = match Left::of(id, message.is_deleted, text.is_some(), expired) {
                // Nobody's erasure has destroyed the key: so it went with its month.
                Left::Erased if !is_erased => Left::Expired,
                left => left,
            };
            let row = MessageRow {
                id,
                room: message.room,
                author: message.author,
                text: text.filter(|_| left == Left::Text).unwrap_or_default(),
                left,
                created_at: message.created_at,
                edited_at: message.edited_at,
                read_by: message.read_by,
            };
            (id, row)
        });
        rows.collect()
    }
}
