//! Everything in the collections as of one moment: a session of the server's that reads one snapshot.
//!
//! That needs a replica set (or a sharded cluster). A standalone server is read as it is at the time of
//! each page, so the projection must stand still meanwhile, and [`Snapshot::finish`] looks whether it did.

use std::sync::Arc;

use async_trait::async_trait;
use events::{MessageId, Position, RoomId, UserId};
use futures::stream::TryStreamExt;
use mongodb::bson::{Bson, Document, doc};
use mongodb::error::{Error, ErrorKind};
use mongodb::options::ReadConcern;
use mongodb::{ClientSession, Collection};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Mutex, OwnedMutexGuard};
use uuid::Uuid;

use super::apply::Interruption;
use super::documents::{
    CheckpointDocument, EditDocument, ErasureDocument, KeyDocument, MarkDocument, MessageDocument,
    RoomDocument, TextDocument, UserDocument, message_id, timestamp,
};
use super::queries::{anybody_but, collected, messages_by};
use super::{MESSAGES_OF_AUTHORS, MongoReadModels, Store, WRITE_LIMIT, failure, hint};
use crate::rows::{position, sequence};
use crate::snapshot::{
    Snapshot, StoredDeletion, StoredEdit, StoredErasure, StoredKey, StoredMark, StoredMember,
    StoredMessage, StoredRoom, StoredUser,
};
use crate::{COUNT_CAP, Checkpoint, ReadModelError};

/// <https://github.com/mongodb/mongo/blob/v6.0/src/mongo/base/error_codes.yml>
const SNAPSHOT_TOO_OLD: i32 = 239;

pub(super) struct MongoSnapshot {
    read_models: MongoReadModels,
    session: Arc<Mutex<Session>>,
    checkpoint: Option<Checkpoint>,
    standalone: bool,
}

/// The session that reads one snapshot; `None` on a standalone server. Each read states the read concern:
/// the driver leaves the collections' own one in place, and then there is no snapshot.
struct Session(Option<ClientSession>);

impl MongoSnapshot {
    pub(super) async fn begin(read_models: &MongoReadModels) -> Result<Self, ReadModelError> {
        let read_models = MongoReadModels {
            store: read_models.store.clone(),
            connection: read_models.connection.clone(),
            interruption: Interruption::none(),
        };
        let (session, checkpoint) = read_models
            .run(WRITE_LIMIT, |store| async move {
                let mut session = Session::begin(&store).await?;
                // The first read fixes the moment.
                let checkpoint = session.checkpoint(&store).await?;
                Ok((session, checkpoint))
            })
            .await?;
        Ok(Self {
            read_models,
            standalone: session.0.is_none(),
            session: Arc::new(Mutex::new(session)),
            checkpoint,
        })
    }

    /// Runs an operation with the session to its end, as [`MongoReadModels::run`] does.
    async fn run<T, Work>(
        &self,
        operation: impl FnOnce(Store, OwnedMutexGuard<Session>) -> Work,
    ) -> Result<T, ReadModelError>
    where
        T: Send + 'static,
        Work: Future<Output = Result<T, ReadModelError>> + Send + 'static,
    {
        // Taken, if at all, by an operation that was given up.
        let session = Arc::clone(&self.session).lock_owned().await;
        let operation = |store| operation(store, session);
        self.read_models.run(WRITE_LIMIT, operation).await
    }
}

impl Session {
    async fn begin(store: &Store) -> Result<Self, ReadModelError> {
        let hello = store.database().run_command(doc! { "hello": 1 });
        let hello = hello.await.map_err(failure)?;
        let cluster = hello.contains_key("setName") || hello.get_str("msg") == Ok("isdbgrid");
        if !cluster {
            return Ok(Self(None));
        }
        let client = store.database().client();
        let session = client.start_session().snapshot(true).await;
        Ok(Self(Some(session.map_err(failure)?)))
    }

    async fn checkpoint(&mut self, store: &Store) -> Result<Option<Checkpoint>, ReadModelError> {
        let filter = doc! { "_id": store.number };
        let found = self
            .find::<CheckpointDocument>(&store.checkpoints, filter, doc! { "_id": 1 }, 1)
            .await?;
        Ok(found
            .into_iter()
            .next()
            .and_then(CheckpointDocument::into_checkpoint))
    }

    /// The first documents that match, in this order.
    async fn find<T>(
        &mut self,
        collection: &Collection<T>,
        filter: Document,
        order: Document,
        limit: u32,
    ) -> Result<Vec<T>, ReadModelError>
    where
        T: DeserializeOwned + Unpin + Send + Sync,
    {
        let find = collection
            .find(filter)
            .sort(order)
            .limit(limit.into())
            .batch_size(limit);
        match &mut self.0 {
            None => collected(find.await).await,
            Some(session) => {
                let find = find.read_concern(ReadConcern::snapshot());
                let mut cursor = find.session(&mut *session).await.map_err(too_old)?;
                let found = cursor.stream(session).try_collect();
                found.await.map_err(too_old)
            }
        }
    }

    /// The page after this id.
    async fn after<T>(
        &mut self,
        collection: &Collection<T>,
        after: Option<Bson>,
        limit: u32,
    ) -> Result<Vec<T>, ReadModelError>
    where
        T: DeserializeOwned + Unpin + Send + Sync,
    {
        let filter = after.map_or_else(Document::new, |id| doc! { "_id": { "$gt": id } });
        self.find(collection, filter, doc! { "_id": 1 }, limit)
            .await
    }

    /// As queries count; see [`Store::recent`].
    async fn unread(
        &mut self,
        store: &Store,
        room: RoomId,
        user: UserId,
    ) -> Result<u64, ReadModelError> {
        let filter = doc! { "room": room.to_string(), "reader": user.to_string() };
        let last = self
            .find(&store.marks, filter, doc! { "upTo": -1 }, 1)
            .await?;
        let read = last.first().map_or(0, |mark| mark.up_to);
        let count = store
            .messages
            .count_documents(messages_by(anybody_but(user), room, read, i64::MAX))
            .limit(COUNT_CAP)
            .hint(hint(MESSAGES_OF_AUTHORS));
        match &mut self.0 {
            None => count.await,
            Some(session) => {
                let count = count.read_concern(ReadConcern::snapshot());
                count.session(session).await
            }
        }
        .map_err(too_old)
    }
}

/// What an error of reading a snapshot means.
fn too_old(error: Error) -> ReadModelError {
    match error.kind.as_ref() {
        ErrorKind::Command(error) if error.code == SNAPSHOT_TOO_OLD => {
            ReadModelError::Unavailable(format!(
                "their server keeps no snapshot as old as the one being read; raise its \
                 minSnapshotHistoryWindowInSeconds (300 by default): {}",
                error.message
            ))
        }
        _ => failure(error),
    }
}

fn sequence_of(position: Position) -> Bson {
    sequence(position).into()
}

#[async_trait]
impl Snapshot for MongoSnapshot {
    fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_ref()
    }

    fn needs_stillness(&self) -> bool {
        self.standalone
    }

    async fn finish(&mut self) -> Result<(), ReadModelError> {
        if !self.standalone {
            return Ok(());
        }
        let now = self
            .run(|store, mut session| async move { session.checkpoint(&store).await })
            .await?;
        let place = |checkpoint: Option<&Checkpoint>| checkpoint.map(|it| it.position);
        if place(now.as_ref()) == place(self.checkpoint.as_ref()) {
            return Ok(());
        }
        Err(ReadModelError::Unavailable(
            "they changed while they were read: a standalone MongoDB server has no snapshots, so stop \
             the projector meanwhile, or make the server a replica set of one"
                .to_owned(),
        ))
    }

    async fn users(
        &mut self,
        after: Option<UserId>,
        limit: u32,
    ) -> Result<Vec<StoredUser>, ReadModelError> {
        let after = after.map(|id| id.to_string().into());
        let found = self
            .run(move |store, mut session| async move {
                session.after(&store.users, after, limit).await
            })
            .await?;
        let stored = |user: UserDocument| {
            Ok(StoredUser {
                created: position(user.position),
                row: user.into_row()?,
            })
        };
        found.into_iter().map(stored).collect()
    }

    async fn rooms(
        &mut self,
        after: Option<RoomId>,
        limit: u32,
    ) -> Result<Vec<StoredRoom>, ReadModelError> {
        let after = after.map(|id| id.to_string().into());
        let found = self
            .run(move |store, mut session| async move {
                session.after(&store.rooms, after, limit).await
            })
            .await?;
        let stored = |room: RoomDocument| StoredRoom {
            id: room.id,
            room_type: room.room_type,
            initiated: position(room.position),
            expired: room.expired.map(message_id),
            deleted: room.deleted_at.map(position),
            deleted_messages: room.deleted_messages.map(i64::unsigned_abs),
        };
        Ok(found.into_iter().map(stored).collect())
    }

    async fn members(
        &mut self,
        after: Option<(RoomId, UserId)>,
        limit: u32,
    ) -> Result<Vec<StoredMember>, ReadModelError> {
        // That room may have members left.
        let mut ids = after.map(|(room, _)| doc! { "$gte": room.to_string() });
        loop {
            // A deleted room counts only if it is listed all the same.
            let mut filter = doc! { "$or": [
                { "deletedAt": null },
                { "lastMessage": { "$exists": true } },
            ] };
            filter.extend(ids.map(|ids| ("_id".to_owned(), ids.into())));
            let rooms = self
                .run(move |store, mut session| async move {
                    session
                        .find(&store.rooms, filter, doc! { "_id": 1 }, limit)
                        .await
                })
                .await?;
            let Some(last) = rooms.last().map(|room| room.id) else {
                return Ok(Vec::new());
            };
            let mut members: Vec<StoredMember> = rooms.into_iter().flat_map(members_of).collect();
            members.retain(|member| after.is_none_or(|after| (member.room, member.user) > after));
            members.truncate(limit as usize);
            if !members.is_empty() {
                return Ok(members);
            }
            ids = Some(doc! { "$gt": last.to_string() });
        }
    }

    async fn messages(
        &mut self,
        after: Option<MessageId>,
        limit: u32,
    ) -> Result<Vec<StoredMessage>, ReadModelError> {
        let after = after.map(|id| sequence_of(id.position()));
        let found = self
            .run(move |store, mut session| async move {
                session.after(&store.messages, after, limit).await
            })
            .await?;
        let stored = |message: MessageDocument| {
            let deletion = message.deletion.map(|deletion| {
                Ok(StoredDeletion {
                    position: position(deletion.position),
                    gone: deletion.gone()?,
                })
            });
            Ok(StoredMessage {
                id: message_id(message.id),
                room: message.room,
                author: message.author,
                text: message.text,
                created_at: timestamp(message.created_at)?,
                edit: message.edit.map(TextDocument::into_stored).transpose()?,
                deleted: message.deleted,
                deletion: deletion.transpose()?,
            })
        };
        found.into_iter().map(stored).collect()
    }

    async fn edits(
        &mut self,
        after: Option<Position>,
        limit: u32,
    ) -> Result<Vec<StoredEdit>, ReadModelError> {
        let after = after.map(sequence_of);
        let found = self
            .run(move |store, mut session| async move {
                session.after(&store.edits, after, limit).await
            })
            .await?;
        let stored = |edit: EditDocument| {
            let EditDocument {
                position,
                room,
                message,
                author: _,
                text,
                at,
            } = edit;
            Ok(StoredEdit {
                room,
                message: message_id(message),
                edit: TextDocument { position, text, at }.into_stored()?,
            })
        };
        found.into_iter().map(stored).collect()
    }

    async fn erasures(
        &mut self,
        after: Option<UserId>,
        limit: u32,
    ) -> Result<Vec<StoredErasure>, ReadModelError> {
        let after = after.map(|id| id.to_string().into());
        let found = self
            .run(move |store, mut session| async move {
                session.after(&store.erasures, after, limit).await
            })
            .await?;
        let stored = |erasure: ErasureDocument| {
            Ok(StoredErasure {
                user: erasure.user,
                position: position(erasure.position),
                gone: erasure.gone()?,
            })
        };
        found.into_iter().map(stored).collect()
    }

    async fn marks(
        &mut self,
        after: Option<Position>,
        limit: u32,
    ) -> Result<Vec<StoredMark>, ReadModelError> {
        let after = after.map(sequence_of);
        let found = self
            .run(move |store, mut session| async move {
                session.after(&store.marks, after, limit).await
            })
            .await?;
        let stored = |mark: MarkDocument| {
            Ok(StoredMark {
                position: position(mark.position),
                room: mark.room,
                reader: mark.reader,
                from: position(mark.from),
                up_to: position(mark.up_to),
                at: timestamp(mark.at)?,
            })
        };
        found.into_iter().map(stored).collect()
    }

    async fn keys(
        &mut self,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<StoredKey>, ReadModelError> {
        let after = after.map(|id| id.simple().to_string().into());
        let found =
            self.run(move |store, mut session| async move {
                session.after(&store.keys, after, limit).await
            })
            .await?;
        let stored = |key: KeyDocument| {
            let id = Uuid::try_parse(&key.deduplication_id).map_err(|_| {
                ReadModelError::Unusable("a stored key's id is not 32 hex digits".to_owned())
            })?;
            Ok(StoredKey {
                id,
                position: position(key.position),
            })
        };
        found.into_iter().map(stored).collect()
    }

    async fn dead_letters(
        &mut self,
        after: Option<Position>,
        limit: u32,
    ) -> Result<Vec<Position>, ReadModelError> {
        /// A dead letter without its bytes, which may be many.
        #[derive(Deserialize)]
        struct Place {
            #[serde(rename = "_id")]
            position: i64,
        }
        let after = after.map(sequence_of);
        let found = self
            .run(move |store, mut session| async move {
                let letters = store.dead_letters.clone_with_type::<Place>();
                session.after(&letters, after, limit).await
            })
            .await?;
        let places = found.into_iter().map(|place| position(place.position));
        Ok(places.collect())
    }

    async fn unread(&mut self, room: RoomId, user: UserId) -> Result<u64, ReadModelError> {
        self.run(move |store, mut session| async move { session.unread(&store, room, user).await })
            .await
    }
}

/// In order, as they are kept.
fn members_of(room: RoomDocument) -> impl Iterator<Item = StoredMember> {
    let mut members = room.members;
    members.sort_unstable();
    let last_message = room.last_message.map(|id| MessageId::at(position(id)));
    members.into_iter().map(move |user| StoredMember {
        room: room.id,
        user,
        last_message,
    })
}
