//! Writing a batch in phases, each of which may be repeated.
//!
//! A crash may come between any two writes; the next attempt, perhaps with other batch boundaries, starts
//! again from the checkpoint. A projector that was overtaken may still be writing an old batch. Neither
//! does harm: inserts find their documents there already, a deletion keeps its first position, a room's
//! newest message never goes back to an older batch's, and of a deleted room nothing is written again.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use events::{Event, RoomId, UserId};
use futures::stream::{self, StreamExt, TryStreamExt};
use mongodb::Collection;
use mongodb::bson::{Bson, Document, doc};
use serde::Deserialize;
use uuid::Uuid;

use super::connection::reply;
use super::documents::{
    CheckpointDocument, DeadLetterDocument, DeletionDocument, ErasureDocument, MarkDocument,
    MessageDocument, RoomDocument, TextDocument,
};
use super::plan::{
    self, Expiry, Known, Plan, Posted, Reading, RoomDeletionAt, Touched, UserDeletion, plan,
};
use super::queries::collected;
use super::{
    EDITS_OF_MESSAGE, MESSAGES_OF_AUTHORS, MESSAGES_OF_ROOM, SIDE_BY_SIDE, Store, failure, fault,
    hint, insert, lease,
};
use crate::rows::{millis, sequence};
use crate::{Batch, DeadLetter, Entry, Fence, ReadModelError};

/// Messages are inserted in this many parts side by side, each room in one of them.
const SHARDS: usize = 4;

/// Batches with fewer messages than this are inserted at once: another round trip costs more.
const WORTH_SHARDING: usize = 200;

/// Ids that one query looks for.
const IDS_AT_ONCE: usize = 10_000;

/// Rooms whose texts one command removes.
const ROOMS_AT_ONCE: usize = 200;

/// Statements in one `update` command.
const STATEMENTS: usize = 500;

/// A moment in [`crate::Projection::apply`], after the writes that it is named for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing has been written; the batch has been planned.
    Planned,
    /// Users, rooms and keys.
    Created,
    /// Messages.
    Posted,
    /// Edits.
    Edited,
    /// Deletions of users and messages, texts that are gone, and read marks.
    Changed,
    /// Deletions of rooms: the first half, after which they are hidden.
    RoomsHidden,
    /// Deletions of rooms: their messages and marks.
    RoomsRemoved,
    /// The rooms' newest messages: everything but the checkpoint.
    Listed,
}

/// What a test lets happen between two phases.
#[cfg(feature = "testing")]
#[derive(Clone)]
pub(super) struct Interruption(Option<std::sync::Arc<Interrupting>>);

#[cfg(feature = "testing")]
type Interrupting =
    dyn Fn(Phase) -> futures::future::BoxFuture<'static, Result<(), ReadModelError>> + Send + Sync;

/// Outside tests nothing happens between two phases.
#[cfg(not(feature = "testing"))]
#[derive(Clone)]
pub(super) struct Interruption;

impl Interruption {
    pub(super) fn none() -> Self {
        #[cfg(feature = "testing")]
        return Self(None);
        #[cfg(not(feature = "testing"))]
        return Self;
    }

    #[cfg(feature = "testing")]
    pub(super) fn new(
        interruption: impl Fn(Phase) -> futures::future::BoxFuture<'static, Result<(), ReadModelError>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self(Some(std::sync::Arc::new(interruption)))
    }

    #[cfg(feature = "testing")]
    async fn at(&self, phase: Phase) -> Result<(), ReadModelError> {
        match &self.0 {
            Some(interruption) => interruption(phase).await,
            None => Ok(()),
        }
    }

    #[cfg(not(feature = "testing"))]
    async fn at(&self, _: Phase) -> Result<(), ReadModelError> {
        Ok(())
    }
}

impl Store {
    pub(super) async fn apply(
        self,
        batch: Batch,
        interruption: Interruption,
    ) -> Result<(), ReadModelError> {
        let after = self.claim(&batch).await?;
        let end = sequence(batch.up_to);
        let entries: Vec<Entry> = batch
            .entries
            .iter()
            .filter(|entry| sequence(entry.position) > after)
            .cloned()
            .collect();
        if end > after {
            self.write(entries, end, &interruption).await?;
            self.advance(&batch).await?;
        }
        Ok(())
    }

    /// The checkpoint's position, after making sure that it is this log's and that nobody has taken over.
    /// The first batch of all claims it for its log, so that two logs can't both begin to write.
    async fn claim(&self, batch: &Batch) -> Result<i64, ReadModelError> {
        let found = self.claimed().await?;
        if found.as_ref().is_none_or(|it| it.incarnation.is_none()) {
            let unclaimed = CheckpointDocument::unclaimed(self.number);
            insert(&self.checkpoints, vec![unclaimed]).await?;
            self.checkpoints
                .update_one(
                    doc! { "_id": self.number, "incarnation": null },
                    doc! { "$set": { "incarnation": &batch.incarnation.0, "heartbeat": 1_i64 } },
                )
                .await
                .map_err(failure)?;
        }
        let found = match found.filter(|it| it.incarnation.is_some()) {
            Some(found) => Some(found),
            None => self.claimed().await?,
        };
        match found {
            None => Err(ReadModelError::Unavailable(
                "the checkpoint has just been removed".to_owned(),
            )),
            Some(found) if found.incarnation.as_ref() != Some(&batch.incarnation.0) => {
                Err(ReadModelError::Unusable(format!(
                    "they were made from the log {:?} and the events come from the log {:?}: rebuild \
                     them, or use the log that they belong to",
                    found.incarnation.unwrap_or_default(),
                    batch.incarnation.0
                )))
            }
            Some(found) if found.fence > lease::stored(batch.fence) => {
                Err(ReadModelError::Overtaken)
            }
            Some(found) => Ok(found.position),
        }
    }

    async fn claimed(&self) -> Result<Option<CheckpointDocument>, ReadModelError> {
        let found = self.checkpoints.find_one(doc! { "_id": self.number });
        found.await.map_err(failure)
    }

    /// Everything but the checkpoint.
    async fn write(
        &self,
        entries: Vec<Entry>,
        end: i64,
        interruption: &Interruption,
    ) -> Result<(), ReadModelError> {
        let Some(first) = entries.first().map(|entry| sequence(entry.position)) else {
            return Ok(());
        };
        let known = self.look_up(&entries).await?;
        let Plan {
            users,
            rooms,
            messages,
            keys,
            reads,
            erasures,
            edits,
            edited,
            message_deletions,
            expiries,
            user_deletions,
            room_deletions,
            touched,
        } = plan(&entries, known);
        drop(entries);
        interruption.at(Phase::Planned).await?;

        let (users, rooms, keys, erased) = futures::join!(
            insert(&self.users, users),
            insert(&self.rooms, rooms),
            insert(&self.keys, keys),
            insert(&self.erasures, erasures.clone()),
        );
        users.and(rooms).and(keys).and(erased)?;
        interruption.at(Phase::Created).await?;

        self.insert_messages(messages).await?;
        interruption.at(Phase::Posted).await?;

        insert(&self.edits, edits).await?;
        let edited = edited.into_iter().map(edit_message).collect();
        self.update(self.messages.name(), edited).await?;
        interruption.at(Phase::Edited).await?;

        if !expiries.is_empty() || !erasures.is_empty() {
            self.note_unpurged(end).await?;
        }
        let deleted = message_deletions.keys().copied().collect();
        let message_deletions = message_deletions
            .into_iter()
            .map(|((message, room), deletion)| delete_message(message, room, deletion))
            .collect();
        let user_deletions = user_deletions.into_iter().map(delete_user).collect();
        let (messages, edits, users, expired, erased, marks) = futures::join!(
            self.update(self.messages.name(), message_deletions),
            self.forget_edits(deleted),
            self.update(self.users.name(), user_deletions),
            self.expire(expiries),
            self.erase(&erasures),
            self.insert_marks(&reads, &touched, first),
        );
        messages.and(users)?;
        edits.and(expired).and(erased).and(marks)?;
        interruption.at(Phase::Changed).await?;

        self.delete_rooms(&room_deletions, interruption).await?;
        interruption.at(Phase::RoomsRemoved).await?;

        self.update_last_messages(touched, end).await?;
        interruption.at(Phase::Listed).await
    }

    /// What the database holds of the rooms, keys, people and messages that the events name.
    async fn look_up(&self, entries: &[Entry]) -> Result<Known, ReadModelError> {
        let rooms: BTreeSet<String> = entries
            .iter()
            .filter_map(|entry| entry.envelope.event.room())
            .map(|room| room.to_string())
            .collect();
        let keys: HashMap<String, Uuid> = entries
            .iter()
            .filter(|entry| entry.envelope.key.is_some())
            .map(|entry| entry.envelope.deduplication_id())
            .map(|id| (id.simple().to_string(), id))
            .collect();
        // Whoever has a text here that must not be stored once they have been erased.
        let people: BTreeSet<String> = entries
            .iter()
            .filter_map(|entry| match &entry.envelope.event {
                Event::UserCreated(event) => Some(event.user_id),
                Event::UserErased(event) => Some(event.user_id),
                Event::MessagePosted(event) => Some(event.author),
                Event::MessageEdited(event) => Some(event.author),
                _ => None,
            })
            .map(|user| user.to_string())
            .collect();
        let edited: BTreeSet<i64> = entries
            .iter()
            .filter_map(|entry| match &entry.envelope.event {
                Event::MessageEdited(event) => Some(sequence(event.message_id.position())),
                _ => None,
            })
            .collect();
        let messages = self.messages.clone_with_type::<Posted>();
        let ids: Vec<String> = keys.keys().cloned().collect();
        let (rooms, known_keys, erased, messages) = futures::join!(
            those_of(&self.rooms, rooms),
            those_of(&self.keys, ids),
            those_of(&self.erasures, people),
            those_of(&messages, edited),
        );
        Ok(Known {
            rooms: rooms?.into_iter().map(|room| (room.id, room)).collect(),
            keys: known_keys?
                .into_iter()
                .filter_map(|key| Some((*keys.get(&key.deduplication_id)?, key.position)))
                .collect(),
            erased: erased?
                .into_iter()
                .map(|erasure| (erasure.user, erasure.position))
                .collect(),
            messages: messages?
                .into_iter()
                .map(|message| (message.id, message))
                .collect(),
        })
    }

    async fn insert_messages(&self, messages: Vec<MessageDocument>) -> Result<(), ReadModelError> {
        if messages.len() < WORTH_SHARDING {
            return insert(&self.messages, messages).await;
        }
        let mut shards: Vec<Vec<MessageDocument>> = vec![Vec::new(); SHARDS];
        for message in messages {
            // Room ids are hashes: any of their bytes spreads them evenly.
            let shard = usize::from(message.room.as_uuid().as_bytes()[0]) % SHARDS;
            shards[shard].push(message);
        }
        let inserts = shards
            .into_iter()
            .map(|shard| insert(&self.messages, shard));
        each(inserts.collect()).await?;
        Ok(())
    }

    /// Notes that texts go which have to be purged from the files.
    async fn note_unpurged(&self, end: i64) -> Result<(), ReadModelError> {
        let noted = self.checkpoints.update_one(
            doc! { "_id": self.number },
            doc! { "$set": { "unpurged": end } },
        );
        noted.await.map_err(failure)?;
        Ok(())
    }

    /// Removes what messages that are deleted said by editing.
    async fn forget_edits(&self, messages: Vec<(i64, RoomId)>) -> Result<(), ReadModelError> {
        let statements = messages
            .into_iter()
            .map(|(message, room)| {
                doc! {
                    "q": { "room": room.to_string(), "message": message },
                    "u": { "$unset": { "text": "" } },
                    "multi": true,
                    "hint": EDITS_OF_MESSAGE,
                }
            })
            .collect();
        self.update(self.edits.name(), statements).await?;
        Ok(())
    }

    /// Removes texts that have expired, and then notes up to where.
    async fn expire(&self, expiries: HashMap<RoomId, Expiry>) -> Result<(), ReadModelError> {
        let expiries: Vec<(String, Expiry)> = expiries
            .into_iter()
            .map(|(room, expiry)| (room.to_string(), expiry))
            .collect();
        let gone = expiries.iter().map(|(room, expiry)| {
            let range = doc! { "$gt": expiry.after, "$lte": expiry.up_to };
            self.remove_texts(
                doc! { "room": room, "deleted": false, "_id": &range },
                MESSAGES_OF_ROOM,
                doc! { "room": room, "message": &range },
            )
        });
        each(gone.collect()).await?;
        let noted = expiries
            .iter()
            .map(|(room, expiry)| {
                doc! {
                    "q": { "_id": room, "deletedAt": null },
                    "u": { "$max": { "expired": expiry.up_to } },
                }
            })
            .collect();
        self.update(self.rooms.name(), noted).await?;
        Ok(())
    }

    /// Removes every text of those who are erased: from the rooms that they are members of, which are all that
    /// they have written in.
    async fn erase(&self, erasures: &[ErasureDocument]) -> Result<(), ReadModelError> {
        for erasure in erasures {
            let user = erasure.user.to_string();
            let mut rooms = self
                .rooms
                .find(doc! { "members": &user })
                .sort(doc! { "lastMessage": -1 })
                .await
                .map_err(failure)?
                .try_chunks(ROOMS_AT_ONCE);
            while let Some(rooms) = rooms.next().await {
                let rooms = rooms.map_err(|error| failure(error.1))?;
                let rooms: Vec<String> = rooms.iter().map(|room| room.id.to_string()).collect();
                let rooms = doc! { "$in": rooms };
                self.remove_texts(
                    doc! { "room": &rooms, "deleted": false, "author": &user },
                    MESSAGES_OF_AUTHORS,
                    doc! { "room": &rooms, "author": &user },
                )
                .await?;
            }
            self.redact_dead_letters(erasure.user).await?;
        }
        Ok(())
    }

    /// Removes the texts of these messages, to be found by this index, and of these edits.
    async fn remove_texts(
        &self,
        messages: Document,
        index: &str,
        edits: Document,
    ) -> Result<(), ReadModelError> {
        let (messages, edits) = futures::join!(
            self.messages
                .update_many(
                    messages,
                    doc! { "$unset": { "text": "", "words": "", "edit.text": "" } }
                )
                .hint(hint(index))
                .into_future(),
            self.edits
                .update_many(edits, doc! { "$unset": { "text": "" } })
                .hint(hint(EDITS_OF_MESSAGE))
                .into_future(),
        );
        messages.and(edits).map_err(failure)?;
        Ok(())
    }

    /// Takes payload and reason from the dead letters that are about the user.
    async fn redact_dead_letters(&self, user: UserId) -> Result<(), ReadModelError> {
        let letters = self.dead_letters.find(doc! {}).await.map_err(failure)?;
        let mut letters = letters.map_ok(DeadLetterDocument::into_row);
        while let Some(letter) = letters.next().await {
            let mut letter = letter.map_err(failure)?;
            if letter.users().contains(&user) {
                letter.redact();
                let letter = DeadLetterDocument::of(letter);
                self.dead_letters
                    .replace_one(doc! { "_id": letter.position }, letter)
                    .await
                    .map_err(failure)?;
            }
        }
        Ok(())
    }

    async fn insert_marks(
        &self,
        reads: &[Reading],
        touched: &HashMap<RoomId, Touched>,
        first: i64,
    ) -> Result<(), ReadModelError> {
        let bounds: BTreeSet<(RoomId, i64)> = reads
            .iter()
            .map(|reading| (reading.room, plan::before_batch(reading, first)))
            .collect();
        let readers: BTreeSet<(RoomId, UserId)> = reads
            .iter()
            .map(|reading| (reading.room, reading.reader))
            .collect();
        // Deleted messages count: a mark stands for a place in the conversation.
        let newest = bounds.into_iter().map(|(room, bound)| async move {
            let newest = self
                .newest_message(room, bound, doc! { "$in": [false, true] })
                .await?;
            Ok(((room, bound), newest.unwrap_or(0)))
        });
        let read = readers.into_iter().map(|(room, reader)| async move {
            let filter = doc! {
                "room": room.to_string(),
                "reader": reader.to_string(),
                "_id": { "$lt": first },
            };
            let mark = self.marks.find_one(filter).sort(doc! { "upTo": -1 });
            let mark: Option<MarkDocument> = mark.await.map_err(failure)?;
            Ok(((room, reader), mark.map_or(0, |mark| mark.up_to)))
        });
        let (newest, read) = futures::join!(each(newest.collect()), each(read.collect()));
        let newest = newest?.into_iter().collect();
        let read = read?.into_iter().collect();
        let marks = plan::marks(reads, touched, &newest, read, first);
        insert(&self.marks, marks).await
    }

    /// The room's newest message up to and with `bound`, with this in the field `deleted`.
    async fn newest_message(
        &self,
        room: RoomId,
        bound: i64,
        deleted: impl Into<mongodb::bson::Bson>,
    ) -> Result<Option<i64>, ReadModelError> {
        #[derive(Deserialize)]
        struct Id {
            #[serde(rename = "_id")]
            id: i64,
        }
        let found = self
            .messages
            .clone_with_type::<Id>()
            .find_one(doc! {
                "room": room.to_string(),
                "deleted": deleted.into(),
                "_id": { "$lte": bound },
            })
            .projection(doc! { "_id": 1 })
            .sort(doc! { "_id": -1 })
            .hint(hint(MESSAGES_OF_ROOM))
            .await
            .map_err(failure)?;
        Ok(found.map(|message| message.id))
    }

    /// First hides the rooms, with what was in them counted, then removes what was in them.
    async fn delete_rooms(
        &self,
        deletions: &[RoomDeletionAt],
        interruption: &Interruption,
    ) -> Result<(), ReadModelError> {
        let hide = deletions.iter().map(|deletion| self.hide_room(*deletion));
        each(hide.collect()).await?;
        interruption.at(Phase::RoomsHidden).await?;
        let empty = deletions
            .iter()
            .map(|deletion| self.empty_room(deletion.room));
        each(empty.collect()).await?;
        Ok(())
    }

    async fn hide_room(&self, deletion: RoomDeletionAt) -> Result<(), ReadModelError> {
        let room = deletion.room.to_string();
        let messages = self
            .messages
            .count_documents(doc! {
                "room": &room,
                "deleted": false,
                "_id": { "$lt": deletion.position },
            })
            .hint(hint(MESSAGES_OF_ROOM))
            .await
            .map_err(failure)?;
        // Counted and hidden once: a later attempt finds fewer messages.
        self.rooms
            .update_one(
                doc! { "_id": &room, "deletedAt": null },
                doc! {
                    "$set": {
                        "deletedAt": deletion.position,
                        "deletedMessages": i64::try_from(messages).unwrap_or(i64::MAX),
                    },
                    "$unset": { "lastMessage": "", "expired": "" },
                },
            )
            .await
            .map_err(failure)?;
        Ok(())
    }

    async fn empty_room(&self, room: RoomId) -> Result<(), ReadModelError> {
        let room = room.to_string();
        let (messages, edits, marks) = futures::join!(
            self.messages
                .delete_many(doc! { "room": &room })
                .hint(hint(MESSAGES_OF_ROOM))
                .into_future(),
            self.edits.delete_many(doc! { "room": &room }).into_future(),
            self.marks.delete_many(doc! { "room": &room }).into_future(),
        );
        messages.and(edits).and(marks).map_err(failure)?;
        Ok(())
    }

    /// One guarded update for each room, however many messages there were.
    async fn update_last_messages(
        &self,
        touched: HashMap<RoomId, Touched>,
        end: i64,
    ) -> Result<(), ReadModelError> {
        let rooms: Vec<RoomId> = touched.keys().copied().collect();
        let statements = touched.into_iter().map(|(room, touched)| async move {
            let newest = if touched.changes {
                self.newest_message(room, end, false).await?
            } else {
                touched.posted.last().copied()
            };
            Ok(set_last_message(room, newest, end))
        });
        let statements = each(statements.collect()).await?;
        let expected = statements.len();
        let matched = self.update(self.rooms.name(), statements).await?;
        if matched < expected {
            // Either this is an attempt at a batch that has been written before, or a projector that was
            // overtaken and may have put messages back into a room that has been deleted.
            let ids: Vec<String> = rooms.iter().map(RoomId::to_string).collect();
            let deleted = self
                .rooms
                .find(doc! { "_id": { "$in": ids }, "deletedAt": { "$ne": null } })
                .await
                .map_err(failure)?;
            let deleted: Vec<RoomDocument> = deleted.try_collect().await.map_err(failure)?;
            let empty = deleted.iter().map(|room| self.empty_room(room.id));
            each(empty.collect()).await?;
        }
        Ok(())
    }

    /// Moves the checkpoint forward. A projector that was overtaken moves nothing.
    async fn advance(&self, batch: &Batch) -> Result<(), ReadModelError> {
        let end = sequence(batch.up_to);
        let fence = lease::stored(batch.fence);
        let moved = self
            .checkpoints
            .update_one(
                doc! {
                    "_id": self.number,
                    "incarnation": &batch.incarnation.0,
                    "fence": fence,
                    "position": { "$lt": end },
                },
                doc! { "$set": { "position": end }, "$inc": { "heartbeat": 1_i64 } },
            )
            .await
            .map_err(failure)?;
        if moved.matched_count == 0
            && let Some(found) = self.claimed().await?
            && found.fence > fence
        {
            return Err(ReadModelError::Overtaken);
        }
        Ok(())
    }

    pub(super) async fn heartbeat(
        self,
        fence: Fence,
        lag: Option<Duration>,
    ) -> Result<(), ReadModelError> {
        let fence = lease::stored(fence);
        let mut change = doc! { "$inc": { "heartbeat": 1_i64 } };
        if let Some(lag) = lag {
            change.insert("$set", doc! { "lagMillis": millis(lag) });
        }
        let beaten = self
            .checkpoints
            .update_one(doc! { "_id": self.number, "fence": fence }, change)
            .await
            .map_err(failure)?;
        if beaten.matched_count == 0
            && let Some(found) = self.claimed().await?
            && found.fence > fence
        {
            return Err(ReadModelError::Overtaken);
        }
        Ok(())
    }

    pub(super) async fn set_aside(self, mut letter: DeadLetter) -> Result<(), ReadModelError> {
        let users: Vec<String> = letter.users().iter().map(UserId::to_string).collect();
        for users in users.chunks(IDS_AT_ONCE) {
            let erased = those_of(&self.erasures, users.iter().cloned()).await?;
            if !erased.is_empty() {
                letter.redact();
            }
        }
        insert(&self.dead_letters, vec![DeadLetterDocument::of(letter)]).await
    }

    /// Runs `update` commands with these statements, and returns how many of them found their document.
    ///
    /// The command itself, because the driver has a bulk form of it only for servers from 8.0.
    async fn update(
        &self,
        collection: &str,
        statements: Vec<Document>,
    ) -> Result<usize, ReadModelError> {
        let commands: Vec<Document> = statements
            .chunks(STATEMENTS)
            .map(|statements| {
                doc! {
                    "update": collection,
                    "updates": statements,
                    "ordered": false,
                    "writeConcern": self.connection.write_concern(),
                }
            })
            .collect();
        let matched = commands.into_iter().map(|command| async move {
            let updated = self.database().run_command(command).await;
            let reply: UpdateReply = reply(updated.map_err(failure)?)?;
            if let Some(error) = reply.write_errors.first() {
                return Err(fault(error.code, &error.errmsg));
            }
            match reply.write_concern_error {
                Some(error) => Err(ReadModelError::Unavailable(error.errmsg)),
                None => Ok(reply.n),
            }
        });
        Ok(each(matched.collect()).await?.into_iter().sum())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UpdateReply {
    n: usize,
    #[serde(default)]
    write_errors: Vec<Fault>,
    write_concern_error: Option<Fault>,
}

#[derive(Deserialize)]
struct Fault {
    code: i32,
    errmsg: String,
}

/// Does all of `work`, several side by side, even when some of it fails: nothing is dropped midway.
pub(super) async fn each<T, Work>(work: Vec<Work>) -> Result<Vec<T>, ReadModelError>
where
    Work: Future<Output = Result<T, ReadModelError>>,
{
    let results: Vec<Result<T, ReadModelError>> =
        stream::iter(work).buffered(SIDE_BY_SIDE).collect().await;
    results.into_iter().collect()
}

/// Those of the documents with these ids that there are.
async fn those_of<T>(
    collection: &Collection<T>,
    ids: impl IntoIterator<Item = impl Into<Bson>>,
) -> Result<Vec<T>, ReadModelError>
where
    T: for<'a> Deserialize<'a> + Unpin + Send + Sync,
{
    let ids: Vec<Bson> = ids.into_iter().map(Into::into).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    collected(collection.find(doc! { "_id": { "$in": ids } }).await).await
}

fn edit_message((message, edit): (i64, TextDocument)) -> Document {
    let words = plan::words(edit.text.as_deref());
    let TextDocument { position, text, at } = edit;
    let mut set = doc! { "edit.position": position, "edit.at": at, "words": words };
    let mut change = doc! {};
    match text {
        Some(text) => set.insert("edit.text", text),
        None => change.insert("$unset", doc! { "edit.text": "" }),
    };
    change.insert("$set", set);
    doc! {
        "q": {
            "_id": message,
            "deleted": false,
            "edit.position": { "$not": { "$gte": position } },
        },
        "u": change,
    }
}

fn delete_message(message: i64, room: RoomId, deletion: DeletionDocument) -> Document {
    let DeletionDocument { position, at, by } = deletion;
    let mut set = doc! { "deleted": true, "deletion.position": position, "deletion.at": at };
    if let Some(by) = by {
        set.insert("deletion.by", by.to_string());
    }
    doc! {
        "q": { "_id": message, "room": room.to_string(), "deleted": false },
        "u": { "$set": set, "$unset": { "text": "", "words": "", "edit.text": "" } },
    }
}

fn delete_user(deletion: UserDeletion) -> Document {
    doc! {
        "q": {
            "_id": deletion.user.to_string(),
            "deleted": false,
            "position": { "$lt": deletion.position },
        },
        "u": {
            "$set": { "firstName": "", "lastName": "", "updatedAt": deletion.at, "deleted": true },
        },
    }
}

fn set_last_message(room: RoomId, newest: Option<i64>, end: i64) -> Document {
    let change = match newest {
        Some(newest) => doc! { "$set": { "lastMessage": newest, "applied": end } },
        None => doc! { "$set": { "applied": end }, "$unset": { "lastMessage": "" } },
    };
    doc! {
        "q": { "_id": room.to_string(), "applied": { "$lt": end }, "deletedAt": null },
        "u": change,
    }
}
