//! What the events of a room come to, without what was said: what is needed to tell of each of them.

use std::collections::{BTreeSet, HashMap, HashSet};

use events::{Envelope, Event, MessageId, Position, RoomInitiated, Timestamp, UserId};
use uuid::Uuid;

const REPEATED: &str = "without effect: it repeats an earlier request";
const AFTER_DELETION: &str = "without effect: the room had been deleted";
const NOT_BY_A_MEMBER: &str = "without effect: not by a member";
const NOT_BY_THE_AUTHOR: &str = "without effect: not by the author";
const OF_A_DELETED_MESSAGE: &str = "without effect: the message had been deleted";
const OF_AN_EXPIRED_TEXT: &str = "without effect: the text had expired";

/// A message, without its text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Posted {
    pub(crate) author: UserId,
    pub(crate) at: Timestamp,
    is_deleted: bool,
}

/// What the events of a room come to. What happened before the first of them may be unknown.
#[derive(Debug, Default)]
pub(crate) struct Outline {
    /// How the room began; `None` where that is not among the events.
    pub(crate) initiated: Option<(RoomInitiated, Timestamp)>,
    /// Who caused something in the room, member or not.
    pub(crate) acted: BTreeSet<UserId>,
    is_deleted: bool,
    messages: HashMap<MessageId, Posted>,
    expired: Option<MessageId>,
    void: HashMap<Position, &'static str>,
    keys: HashSet<Uuid>,
}

impl Outline {
    /// Folds the next event of the room.
    pub(crate) fn event(&mut self, position: Position, envelope: &Envelope) {
        self.acted.extend(envelope.actor);
        if let Some(reason) = self.why_void(envelope) {
            self.void.insert(position, reason);
            return;
        }
        match &envelope.event {
            Event::RoomInitiated(event) if self.initiated.is_none() => {
                self.initiated = Some((event.clone(), envelope.at));
            }
            Event::RoomDeleted(_) => self.is_deleted = true,
            Event::MessagePosted(event) => {
                self.acted.insert(event.author);
                let posted = Posted {
                    author: event.author,
                    at: envelope.at,
                    is_deleted: false,
                };
                self.messages.insert(MessageId::at(position), posted);
            }
            Event::MessageDeleted(event) => {
                if let Some(message) = self.messages.get_mut(&event.message_id) {
                    message.is_deleted = true;
                }
            }
            Event::MessageExpired(event) => {
                // Nothing at or after the event itself can have expired.
                let before = Position::new(position.get().saturating_sub(1));
                let up_to = event.up_to.min(MessageId::at(before));
                self.expired = self.expired.max(Some(up_to));
            }
            _ => {}
        }
    }

    /// Everybody who appears in the room.
    pub(crate) fn people(&self) -> BTreeSet<UserId> {
        let mut people = self.acted.clone();
        if let Some((initiated, _)) = &self.initiated {
            people.extend(&initiated.members);
        }
        people
    }

    /// The message, if it is among those that were posted.
    pub(crate) fn message(&self, id: MessageId) -> Option<Posted> {
        self.messages.get(&id).copied()
    }

    /// Whether the texts of a message have expired by the end.
    pub(crate) fn has_expired(&self, id: MessageId) -> bool {
        self.expired.is_some_and(|up_to| id <= up_to)
    }

    /// Why the event at this position had no effect; `None` where it had.
    pub(crate) fn void(&self, position: Position) -> Option<&'static str> {
        self.void.get(&position).copied()
    }

    fn why_void(&mut self, envelope: &Envelope) -> Option<&'static str> {
        if envelope.key.is_some() && !self.keys.insert(envelope.deduplication_id()) {
            return Some(REPEATED);
        }
        let event = &envelope.event;
        if self.is_deleted && !matches!(event, Event::RoomHeld(_) | Event::RoomReleased(_)) {
            return Some(AFTER_DELETION);
        }
        match event {
            Event::MessagePosted(event) if self.is_stranger(event.author) => Some(NOT_BY_A_MEMBER),
            Event::ConversationRead(event) if self.is_stranger(event.reader) => {
                Some(NOT_BY_A_MEMBER)
            }
            Event::MessageEdited(event) => {
                // One that was posted before the first event is taken as it is told.
                let message = self.messages.get(&event.message_id);
                if message.is_some_and(|message| message.author != event.author) {
                    Some(NOT_BY_THE_AUTHOR)
                } else if message.is_some_and(|message| message.is_deleted) {
                    Some(OF_A_DELETED_MESSAGE)
                } else if self.has_expired(event.message_id) {
                    Some(OF_AN_EXPIRED_TEXT)
                } else {
                    None
                }
            }
            _ => None,
        }
    }

    /// Whether somebody is known to be no member.
    fn is_stranger(&self, user: UserId) -> bool {
        let initiated = self.initiated.as_ref();
        initiated.is_some_and(|(room, _)| room.members.binary_search(&user).is_err())
    }
}
