//! The first reading of a room: which messages it had, without what they said.

use std::collections::HashSet;

use events::{Envelope, Event, MessageId, Position, UserId};
use read_models::{COUNT_CAP, Page, RoomRow};
use uuid::Uuid;

use crate::part::part;

/// What is kept of every message.
struct Posted {
    id: MessageId,
    /// Whether it is the viewer's own.
    is_own: bool,
    is_deleted: bool,
}

/// What the outlines of a room's events come to.
#[derive(Default)]
pub(crate) struct Index {
    /// The room, while it is there.
    pub(crate) room: Option<RoomRow>,
    is_deleted: bool,
    posted: Vec<Posted>,
    /// Up to where the viewer has read.
    read: Position,
    /// The last message whose text has expired by now, be it after the moment.
    pub(crate) expired: Option<MessageId>,
    keys: HashSet<Uuid>,
    /// Events whose idempotency key is that of an earlier one.
    void: HashSet<Position>,
}

impl Index {
    /// Folds an event of the room that came after the moment. All that matters of it is what it let go: what is
    /// gone is not brought back.
    pub(crate) fn later(&mut self, position: Position, envelope: &Envelope) {
        if self.is_first_with_its_key(position, envelope)
            && let Event::MessageExpired(event) = &envelope.event
        {
            self.expire(position, event.up_to);
        }
    }

    fn expire(&mut self, position: Position, up_to: MessageId) {
        // Nothing at or after the event itself can have expired.
        let up_to = MessageId::at(read_up_to(position, Some(up_to)));
        self.expired = self.expired.max(Some(up_to));
    }

    fn is_first_with_its_key(&mut self, position: Position, envelope: &Envelope) -> bool {
        let is_first = envelope.key.is_none() || self.keys.insert(envelope.deduplication_id());
        if !is_first {
            self.void.insert(position);
        }
        is_first
    }

    /// Folds the next event of the room. `viewer` is whoever has unread messages.
    pub(crate) fn event(
        &mut self,
        position: Position,
        envelope: &Envelope,
        viewer: Option<UserId>,
    ) {
        if !self.is_first_with_its_key(position, envelope) {
            return;
        }
        match &envelope.event {
            Event::RoomInitiated(event) => {
                if self.room.is_none() && !self.is_deleted {
                    self.room = Some(RoomRow {
                        id: event.room_id,
                        room_type: event.room_type,
                        members: event.members.clone(),
                    });
                }
            }
            Event::RoomDeleted(_) => {
                if self.room.take().is_some() {
                    self.is_deleted = true;
                    self.posted = Vec::new();
                }
            }
            Event::MessagePosted(event) => {
                if self.has_member(event.author) {
                    self.posted.push(Posted {
                        id: MessageId::at(position),
                        is_own: viewer == Some(event.author),
                        is_deleted: false,
                    });
                }
            }
            Event::MessageDeleted(event) => {
                let id = event.message_id;
                if let Ok(index) = self.posted.binary_search_by_key(&id, |message| message.id) {
                    self.posted[index].is_deleted = true;
                }
            }
            Event::ConversationRead(event) => {
                if viewer == Some(event.reader) && self.has_member(event.reader) {
                    self.read = self.read.max(read_up_to(position, event.up_to));
                }
            }
            Event::MessageExpired(event) => self.expire(position, event.up_to),
            Event::MessageEdited(_)
            | Event::RoomHeld(_)
            | Event::RoomReleased(_)
            | Event::UserCreated(_)
            | Event::UserDeleted(_)
            | Event::UserErased(_)
            | Event::AuditRead(_) => {}
        }
    }

    /// Whether `user` takes part in the room.
    pub(crate) fn has_member(&self, user: UserId) -> bool {
        let mut rooms = self.room.iter();
        rooms.any(|room| room.members.binary_search(&user).is_ok())
    }

    /// Whether the event at this position is void for its idempotency key.
    pub(crate) fn is_void(&self, position: Position) -> bool {
        self.void.contains(&position)
    }

    /// The newest message that has not been deleted.
    pub(crate) fn newest(&self) -> Option<MessageId> {
        let mut newest_first = self.posted.iter().rev();
        let newest = newest_first.find(|message| !message.is_deleted)?;
        Some(newest.id)
    }

    /// How many messages the viewer has not read, as far as that is counted.
    pub(crate) fn unread(&self) -> u64 {
        let read = MessageId::at(self.read);
        let first = self.posted.partition_point(|message| message.id <= read);
        let unread = self.posted[first..]
            .iter()
            .filter(|message| !message.is_own && !message.is_deleted);
        unread.take(COUNT_CAP as usize).count() as u64
    }

    /// The messages of a page, oldest first; deleted ones keep their place.
    pub(crate) fn page(&self, page: Page) -> Vec<MessageId> {
        let shown = part(&self.posted, |message| message.id, page);
        self.posted[shown].iter().map(|it| it.id).collect()
    }

    /// Keeps only what the second reading needs.
    pub(crate) fn forget_messages(&mut self) {
        self.posted = Vec::new();
        self.keys = HashSet::new();
    }
}

/// The last position that a reading at `position` covers: nothing that came after it.
pub(crate) fn read_up_to(position: Position, up_to: Option<MessageId>) -> Position {
    let before = Position::new(position.get().saturating_sub(1));
    up_to.map_or(before, |message| message.position().min(before))
}
