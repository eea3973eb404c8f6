//! What a batch of events comes to: pure, from the events and what the database already holds.
//!
//! Everything in a plan may be written any number of times, in part or in whole, also by a projector that
//! has been overtaken: inserts have the ids of their events, and updates are guarded.

use std::collections::{BTreeMap, HashMap, HashSet};

use events::{Event, Position, RoomId, UserId};
use uuid::Uuid;

use super::documents::{
    KeyDocument, MarkDocument, MessageDocument, RoomDocument, UserDocument, date,
};
use crate::rows::{normalised, sequence};
use crate::{Entry, Words};

/// What the database holds of the rooms and keys that a batch names.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub rooms: HashMap<RoomId, RoomDocument>,
    /// The position of the first event with the key.
    pub keys: HashMap<Uuid, i64>,
}

/// What to write.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub users: Vec<UserDocument>,
    pub rooms: Vec<RoomDocument>,
    pub messages: Vec<MessageDocument>,
    pub keys: Vec<KeyDocument>,
    pub reads: Vec<Reading>,
    /// The position of the first deletion in the batch of a message that an event says is in a room.
    pub message_deletions: BTreeMap<(i64, RoomId), i64>,
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
    pub at: mongodb::bson::DateTime,
}

#[derive(Debug)]
pub(super) struct UserDeletion {
    pub user: UserId,
    pub position: i64,
    pub at: mongodb::bson::DateTime,
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
    /// Whether messages were deleted, so that the newest one has to be looked up.
    pub deletions: bool,
}

/// A room as the events so far leave it.
struct Room {
    initiated: i64,
    members: Vec<UserId>,
    /// The position of its deletion. When that is in the database already, an earlier attempt has come as
    /// far, and nothing of the room may be written again, not even what happened before it.
    deleted: Option<i64>,
}

/// Folds `entries`, which are in log order.
pub(super) fn plan(entries: &[Entry], known: Known) -> Plan {
    let mut fold = Fold {
        created: HashSet::new(),
        keys: known.keys,
        rooms: HashMap::new(),
        plan: Plan::default(),
    };
    for (id, room) in known.rooms {
        let room = Room {
            initiated: room.position,
            members: room.members,
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
                    self.plan.users.push(UserDocument {
                        id: event.user_id,
                        position,
                        first_name: event.first_name().to_owned(),
                        last_name: event.last_name().to_owned(),
                        user_type: event.user_type,
                        created_at: at,
                        updated_at: at,
                        deleted: false,
                    });
                }
            }
            Event::UserDeleted(event) => self.plan.user_deletions.push(UserDeletion {
                user: event.user_id,
                position,
                at,
            }),
            Event::RoomInitiated(event) => {
                // Known already: initiated twice, or written by an earlier attempt at this batch.
                if self.rooms.contains_key(&event.room_id) {
                    return;
                }
                let members = normalised(&event.members);
                let room = Room {
                    initiated: position,
                    members: members.clone(),
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
                    deleted_at: None,
                    deleted_messages: None,
                });
            }
            Event::RoomDeleted(event) => self.delete_room(event.room_id, position),
            Event::MessagePosted(event) => {
                if self.is_open_to(event.room_id, Some(event.author), entry.position) {
                    self.touch(event.room_id).posted.push(position);
                    self.plan.messages.push(MessageDocument {
                        id: position,
                        room: event.room_id,
                        author: event.author,
                        text: event.message_text.clone().unwrap_or_default(),
                        words: Words::of(event.message_text.as_deref().unwrap_or_default()).into(),
                        created_at: at,
                        deleted: false,
                        deleted_at: None,
                    });
                }
            }
            Event::MessageDeleted(event) => {
                let message = sequence(event.message_id.position());
                if message < position && self.is_open_to(event.room_id, None, entry.position) {
                    self.touch(event.room_id).deletions = true;
                    self.plan
                        .message_deletions
                        .entry((message, event.room_id))
                        .or_insert(position);
                }
            }
            Event::UserErased(_)
            | Event::MessageEdited(_)
            | Event::MessageExpired(_)
            | Event::RoomHeld(_)
            | Event::RoomReleased(_)
            | Event::AuditRead(_) => {}
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
        self.plan.touched.remove(&id);
    }
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
