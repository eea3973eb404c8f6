//! What a batch of events comes to: pure, from the events and what the database already holds.
//!
//! Everything in a plan may be written any number of times, in part or in whole, also by a projector that
//! has been overtaken: inserts have the ids of their events, and updates are guarded.

use std::collections::{BTreeMap, HashMap, HashSet};

use events::{Event, MessageEdited, Position, RoomId, UserId};
use mongodb::bson::DateTime;
use serde::Deserialize;
use uuid::Uuid;

use super::documents::{
    DeletionDocument, EditDocument, ErasureDocument, KeyDocument, MarkDocument, MessageDocument,
    RoomDocument, TextDocument, UserDocument, date,
};
use crate::rows::{normalised, sequence};
use crate::{Entry, Words};

/// What the database holds of the rooms, keys, people and messages that a batch names.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub rooms: HashMap<RoomId, RoomDocument>,
    /// The position of the first event with the key.
    pub keys: HashMap<Uuid, i64>,
    /// The position at which somebody was first erased.
    pub erased: HashMap<UserId, i64>,
    /// Those that are edited.
    pub messages: HashMap<i64, Posted>,
}

/// What must be known of a message to edit it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Posted {
    #[serde(rename = "_id")]
    pub id: i64,
    pub room: RoomId,
    pub author: UserId,
    pub deleted: bool,
}

/// What to write.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub users: Vec<UserDocument>,
    pub rooms: Vec<RoomDocument>,
    pub messages: Vec<MessageDocument>,
    pub keys: Vec<KeyDocument>,
    pub reads: Vec<Reading>,
    pub erasures: Vec<ErasureDocument>,
    pub edits: Vec<EditDocument>,
    /// What edited messages say at the end of the batch.
    pub edited: HashMap<i64, TextDocument>,
    /// The first deletion in the batch of a message that an event says is in a room.
    pub message_deletions: BTreeMap<(i64, RoomId), DeletionDocument>,
    pub expiries: HashMap<RoomId, Expiry>,
    pub user_deletions: Vec<UserDeletion>,
    pub room_deletions: Vec<RoomDeletionAt>,
    /// The rooms whose newest message may change.
    pub touched: HashMap<RoomId, Touched>,
}

/// A `conversation.read` event.
#[derive(Debug)]
pub(super) struct Reading {
    pub position: i64,
    pub room: RoomId,
    pub reader: UserId,
    /// Messages up to and with this one may be read by it.
    pub bound: i64,
    pub at: DateTime,
}

#[derive(Debug)]
pub(super) struct UserDeletion {
    pub user: UserId,
    pub position: i64,
    pub at: DateTime,
}

/// The messages of a room whose texts expire.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expiry {
    /// Up to where they had expired before.
    pub after: i64,
    /// The last of them.
    pub up_to: i64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct RoomDeletionAt {
    pub room: RoomId,
    pub position: i64,
}

/// What a batch does to a room's list of messages.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// The messages posted, in order.
    pub posted: Vec<i64>,
    /// Whether messages were deleted or edited, so that the newest one has to be looked up.
    pub changes: bool,
}

/// A room as the events so far leave it.
struct Room {
    initiated: i64,
    members: Vec<UserId>,
    /// Up to where its texts have expired.
    expired: i64,
    /// The position of its deletion. When that is in the database already, an earlier attempt has come as
    /// far, and nothing of the room may be written again, not even what happened before it.
    deleted: Option<i64>,
}

/// Folds `entries`, which are in log order.
pub(super) fn plan(entries: &[Entry], known: Known) -> Plan {
    let mut fold = Fold {
        created: HashSet::new(),
        keys: known.keys,
        erased: known.erased,
        messages: known.messages,
        rooms: HashMap::new(),
        plan: Plan::default(),
    };
    for (id, room) in known.rooms {
        let room = Room {
            initiated: room.position,
            members: room.members,
            expired: room.expired.unwrap_or(0),
            deleted: room.deleted_at,
        };
        fold.rooms.insert(id, room);
    }
    for entry in entries {
        fold.entry(entry);
    }
    fold.plan
}

struct Fold {
    created: HashSet<UserId>,
    keys: HashMap<Uuid, i64>,
    erased: HashMap<UserId, i64>,
    messages: HashMap<i64, Posted>,
    rooms: HashMap<RoomId, Room>,
    plan: Plan,
}

impl Fold {
    fn entry(&mut self, entry: &Entry) {
        let position = sequence(entry.position);
        if entry.envelope.key.is_some() && !self.is_first_with_its_key(entry) {
            return;
        }
        let at = date(entry.envelope.at);
        match &entry.envelope.event {
            Event::UserCreated(event) => {
                if self.created.insert(event.user_id) {
                    let is_erased = self.erased.contains_key(&event.user_id);
                    let name = |name: &str| if is_erased { "" } else { name }.to_owned();
                    self.plan.users.push(UserDocument {
                        id: event.user_id,
                        position,
                        first_name: name(event.first_name()),
                        last_name: name(event.last_name()),
                        user_type: event.user_type,
                        created_at: at,
                        updated_at: at,
                        deleted: false,
                    });
                }
            }
            Event::UserDeleted(event) => self.delete_user(event.user_id, position, at),
            Event::UserErased(event) => {
                self.delete_user(event.user_id, position, at);
                let first = *self.erased.entry(event.user_id).or_insert(position);
                // The same position again: an earlier attempt may not have come to the end of it.
                if first >= position {
                    self.plan.erasures.push(ErasureDocument {
                        user: event.user_id,
                        position,
                        at,
                        by: entry.envelope.actor,
                    });
                }
            }
            Event::RoomInitiated(event) => {
                // Known already: initiated twice, or written by an earlier attempt at this batch.
                if self.rooms.contains_key(&event.room_id) {
                    return;
                }
                let members = normalised(&event.members);
                let room = Room {
                    initiated: position,
                    members: members.clone(),
                    expired: 0,
                    deleted: None,
                };
                self.rooms.insert(event.room_id, room);
                self.plan.rooms.push(RoomDocument {
                    id: event.room_id,
                    position,
                    room_type: event.room_type,
                    members,
                    applied: 0,
                    last_message: None,
                    expired: None,
                    deleted_at: None,
                    deleted_messages: None,
                });
            }
            Event::RoomDeleted(event) => self.delete_room(event.room_id, position),
            Event::MessagePosted(event) => {
                if self.is_open_to(event.room_id, Some(event.author), entry.position) {
                    self.touch(event.room_id).posted.push(position);
                    let text = self.text_of(event.author, event.message_text.as_ref());
                    let posted = Posted {
                        id: position,
                        room: event.room_id,
                        author: event.author,
                        deleted: false,
                    };
                    self.messages.insert(position, posted);
                    self.plan.messages.push(MessageDocument {
                        id: position,
                        room: event.room_id,
                        author: event.author,
                        words: words(text.as_deref()),
                        text,
                        created_at: at,
                        edit: None,
                        deleted: false,
                        deletion: None,
                    });
                }
            }
            Event::MessageEdited(event) => self.edit(event, entry.position, at),
            Event::MessageDeleted(event) => {
                let message = sequence(event.message_id.position());
                if message < position && self.is_open_to(event.room_id, None, entry.position) {
                    self.touch(event.room_id).changes = true;
                    self.plan
                        .message_deletions
                        .entry((message, event.room_id))
                        .or_insert(DeletionDocument {
                            position,
                            at,
                            by: entry.envelope.actor,
                        });
                }
            }
            Event::MessageExpired(event) => {
                if self.is_open_to(event.room_id, None, entry.position) {
                    // Nothing at or after the event itself can have expired.
                    let up_to = sequence(event.up_to.position()).min(position - 1);
                    self.expire(event.room_id, up_to);
                }
            }
            Event::RoomHeld(_) | Event::RoomReleased(_) | Event::AuditRead(_) => {}
            Event::ConversationRead(event) => {
                if self.is_open_to(event.room_id, Some(event.reader), entry.position) {
                    // Nothing at or after the event itself can have been read.
                    let before_event = position - 1;
                    let bound = event.up_to.map_or(before_event, |message| {
                        before_event.min(sequence(message.position()))
                    });
                    self.plan.reads.push(Reading {
                        position,
                        room: event.room_id,
                        reader: event.reader,
                        bound,
                        at,
                    });
                }
            }
        }
    }

    /// Notes the event's key. A key keeps its first event, also when that event is void; the same position
    /// again is that first event itself.
    fn is_first_with_its_key(&mut self, entry: &Entry) -> bool {
        let position = sequence(entry.position);
        let id = entry.envelope.deduplication_id();
        if let Some(first) = self.keys.get(&id) {
            return *first >= position;
        }
        self.keys.insert(id, position);
        self.plan.keys.push(KeyDocument {
            deduplication_id: id.simple().to_string(),
            position,
        });
        true
    }

    /// Whether a timeline event at `position`, of this member if it must be one, counts.
    fn is_open_to(&self, room: RoomId, member: Option<UserId>, position: Position) -> bool {
        self.rooms.get(&room).is_some_and(|room| {
            room.initiated < sequence(position)
                && room.deleted.is_none()
                && member.is_none_or(|user| room.members.binary_search(&user).is_ok())
        })
    }

    fn delete_user(&mut self, user: UserId, position: i64, at: DateTime) {
        self.plan
            .user_deletions
            .push(UserDeletion { user, position, at });
    }

    /// The author's text as it may be stored.
    fn text_of(&self, author: UserId, text: Option<&String>) -> Option<String> {
        text.filter(|_| !self.erased.contains_key(&author)).cloned()
    }

    /// What the database has of the message may be of later than this event, when an earlier attempt came
    /// further: then the edit is there already.
    fn edit(&mut self, event: &MessageEdited, position: Position, at: DateTime) {
        let message = sequence(event.message_id.position());
        let room = event.room_id;
        let expired = self.rooms.get(&room).map_or(0, |room| room.expired);
        let is_known = self.messages.get(&message).is_some_and(|posted| {
            (posted.room, posted.author) == (room, event.author) && !posted.deleted
        });
        if !is_known
            || message >= sequence(position)
            || message <= expired
            || self.plan.message_deletions.contains_key(&(message, room))
            || !self.is_open_to(room, Some(event.author), position)
        {
            return;
        }
        self.touch(room).changes = true;
        let position = sequence(position);
        let text = self.text_of(event.author, event.message_text.as_ref());
        self.plan.edits.push(EditDocument {
            position,
            room,
            message,
            author: event.author,
            text: text.clone(),
            at,
        });
        let edit = TextDocument { position, text, at };
        self.plan.edited.insert(message, edit);
    }

    fn expire(&mut self, id: RoomId, up_to: i64) {
        let Some(room) = self.rooms.get_mut(&id) else {
            return;
        };
        // Texts go before this is noted, so what has expired according to the database is gone.
        if up_to <= room.expired {
            return;
        }
        let after = std::mem::replace(&mut room.expired, up_to);
        let expiry = Expiry { after, up_to };
        self.plan.expiries.entry(id).or_insert(expiry).up_to = up_to;
    }

    fn touch(&mut self, room: RoomId) -> &mut Touched {
        self.plan.touched.entry(room).or_default()
    }

    fn delete_room(&mut self, id: RoomId, position: i64) {
        let Some(room) = self.rooms.get_mut(&id) else {
            return;
        };
        let first = room.deleted.is_none_or(|deleted| deleted == position);
        if room.initiated >= position || !first {
            return;
        }
        room.deleted = Some(position);
        self.plan
            .room_deletions
            .push(RoomDeletionAt { room: id, position });
        // They would go with the room. Its messages are written all the same: they are counted.
        self.plan.reads.retain(|reading| reading.room != id);
        self.plan.edits.retain(|edit| edit.room != id);
        self.plan.expiries.remove(&id);
        self.plan.touched.remove(&id);
    }
}

pub(super) fn words(text: Option<&str>) -> Vec<String> {
    text.map(Words::of).unwrap_or_default().into()
}

/// The marks that `reads` leave.
///
/// `first` is the position of the batch's first event; `newest_before` finds the newest message of the room
/// before `first` that is within the reading's bound (0 for none), and `read_before` up to where the reader
/// had read before `first`.
pub(super) fn marks(
    reads: &[Reading],
    touched: &HashMap<RoomId, Touched>,
    newest_before: &HashMap<(RoomId, i64), i64>,
    mut read_before: HashMap<(RoomId, UserId), i64>,
    first: i64,
) -> Vec<MarkDocument> {
    let mut marks = Vec::new();
    for reading in reads {
        let posted = touched
            .get(&reading.room)
            .map_or(&[][..], |touched| &touched.posted);
        let within = posted.partition_point(|message| *message <= reading.bound);
        let newest_posted = posted[..within].last().copied().unwrap_or(0);
        let newest_before = newest_before
            .get(&(reading.room, before_batch(reading, first)))
            .copied()
            .unwrap_or(0);
        let up_to = newest_posted.max(newest_before);
        let read = read_before
            .entry((reading.room, reading.reader))
            .or_default();
        if up_to > *read {
            marks.push(MarkDocument {
                position: reading.position,
                room: reading.room,
                reader: reading.reader,
                from: *read,
                up_to,
                at: reading.at,
            });
            *read = up_to;
        }
    }
    marks
}

/// The part of the reading's bound that lies before the batch.
pub(super) fn before_batch(reading: &Reading, first: i64) -> i64 {
    reading.bound.min(first - 1)
}
