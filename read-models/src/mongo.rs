//! Read models in a MongoDB database.
//!
//! No multi-document transaction is needed, so a standalone server will do: a batch is written in phases,
//! each of which may be repeated, and the checkpoint moves last. See [`apply`].

mod apply;
mod documents;
mod plan;
mod queries;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use events::{MessageId, Position, RoomId, UserId};
use mongodb::bson::{Document, doc, to_document};
use mongodb::error::{Error, ErrorKind, WriteFailure};
use mongodb::options::{ClientOptions, Hint, IndexOptions, ReadConcern, WriteConcern};
use mongodb::{Client, Collection, Database, IndexModel};
use tokio::sync::Semaphore;

use self::apply::Interruption;
#[cfg(feature = "testing")]
pub use self::apply::Phase;
use self::documents::{
    CheckpointDocument, DeadLetterDocument, KeyDocument, MarkDocument, MessageDocument,
    RoomDocument, SCHEMA, SchemaDocument, UserDocument,
};
use crate::{
    Batch, Checkpoint, DeadLetter, MessageRow, Page, ReadModelError, ReadModels, RecentRow,
    RoomDeletion, RoomRow, UserRow,
};

/// The version of the collections' layout.
const SCHEMA_VERSION: i64 = 1;

/// How long to look for a server: short, so that queries fail fast while there is none.
const SERVER_SELECTION: Duration = Duration::from_secs(2);

/// How long a query may take.
const QUERY_LIMIT: Duration = Duration::from_secs(5);

/// How long writing a batch may take, with the deletion of large rooms in it, and creating indexes.
const WRITE_LIMIT: Duration = Duration::from_secs(60);

/// Connections to each server. The driver's default is 10.
const CONNECTIONS: u32 = 64;

/// Connections kept open, so that a burst does not wait for them to be made.
const WARM_CONNECTIONS: u32 = 8;

/// Operations at the same time. While a server hangs, those that were given up still wait for it.
const OPERATIONS: usize = 256;

/// Parts of one operation that go to the server side by side.
const SIDE_BY_SIDE: usize = 8;

/// Of `messages`: the messages of a room in order, those that are deleted apart.
const MESSAGES_OF_ROOM: &str = "room_deleted_id";

/// Of `messages`: the messages of a room by author, so that counting those by others walks over none of
/// one's own.
const MESSAGES_OF_AUTHORS: &str = "room_deleted_author_id";

/// Read models in a MongoDB database.
pub struct MongoReadModels {
    store: Store,
    operations: Arc<Semaphore>,
    interruption: Interruption,
}

/// The database with its collections.
#[derive(Clone)]
struct Store {
    database: Database,
    /// As a command that is not the driver's own must state it.
    write_concern: Document,
    schema: Collection<SchemaDocument>,
    checkpoints: Collection<CheckpointDocument>,
    users: Collection<UserDocument>,
    rooms: Collection<RoomDocument>,
    messages: Collection<MessageDocument>,
    marks: Collection<MarkDocument>,
    keys: Collection<KeyDocument>,
    dead_letters: Collection<DeadLetterDocument>,
}

impl MongoReadModels {
    /// The read models at `url`, a connection string that names the database. Does no I/O (except that
    /// `mongodb+srv` is looked up): servers are contacted in the background and when needed.
    ///
    /// # Errors
    /// [`ReadModelError::Unusable`] when `url` is not such a connection string.
    pub async fn open(url: &str) -> Result<Self, ReadModelError> {
        // The driver's message may quote the password.
        let mut options = ClientOptions::parse(url).await.map_err(|_| {
            ReadModelError::Unusable("their URL is not a MongoDB connection string".to_owned())
        })?;
        let name = options.default_database.clone().ok_or_else(|| {
            ReadModelError::Unusable(
                "their URL names no database: use mongodb://HOST[:PORT]/DATABASE".to_owned(),
            )
        })?;
        options.app_name.get_or_insert_with(|| "hansard".to_owned());
        options
            .server_selection_timeout
            .get_or_insert(SERVER_SELECTION);
        options.connect_timeout.get_or_insert(SERVER_SELECTION);
        options.max_pool_size.get_or_insert(CONNECTIONS);
        options.min_pool_size.get_or_insert(WARM_CONNECTIONS);
        options.max_connecting.get_or_insert(WARM_CONNECTIONS);
        // What has been projected stays projected when a replica set elects another primary. A standalone
        // server takes these too.
        options.read_concern.get_or_insert(ReadConcern::majority());
        let write_concern = options
            .write_concern
            .get_or_insert(WriteConcern::majority())
            .clone();
        let write_concern = to_document(&write_concern)
            .map_err(|error| ReadModelError::Unusable(format!("their URL: {error}")))?;
        let database = Client::with_options(options)
            .map_err(failure)?
            .database(&name);
        Ok(Self {
            store: Store {
                write_concern,
                schema: database.collection("schema"),
                checkpoints: database.collection("checkpoints"),
                users: database.collection("users"),
                rooms: database.collection("rooms"),
                messages: database.collection("messages"),
                marks: database.collection("marks"),
                keys: database.collection("keys"),
                dead_letters: database.collection("deadLetters"),
                database,
            },
            operations: Arc::new(Semaphore::new(OPERATIONS)),
            interruption: Interruption::none(),
        })
    }

    /// Calls `interruption` after each phase of [`ReadModels::apply`]; its error ends the call as a crash
    /// at that moment would.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn interrupted_by(
        mut self,
        interruption: impl Fn(Phase) -> futures::future::BoxFuture<'static, Result<(), ReadModelError>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.interruption = Interruption::new(interruption);
        self
    }

    /// Runs an operation to its end, and waits for it no longer than `limit`.
    ///
    /// It runs in a task of its own because a driver future that is dropped midway can leave a connection
    /// in the middle of an answer.
    async fn run<T, Work>(
        &self,
        limit: Duration,
        operation: impl FnOnce(Store) -> Work,
    ) -> Result<T, ReadModelError>
    where
        T: Send + 'static,
        Work: Future<Output = Result<T, ReadModelError>> + Send + 'static,
    {
        let late = |_| ReadModelError::Unavailable(format!("no answer within {limit:?}"));
        let deadline = tokio::time::Instant::now() + limit;
        let permit = Arc::clone(&self.operations).acquire_owned();
        let permit = tokio::time::timeout_at(deadline, permit)
            .await
            .map_err(late)?;
        let work = operation(self.store.clone());
        let task = tokio::spawn(async move {
            let _permit = permit;
            work.await
        });
        tokio::time::timeout_at(deadline, task)
            .await
            .map_err(late)?
            .unwrap_or_else(|error| {
                Err(ReadModelError::Unavailable(format!(
                    "an operation ended early: {error}"
                )))
            })
    }
}

impl Store {
    async fn prepare(self) -> Result<(), ReadModelError> {
        let version = SchemaDocument {
            id: SCHEMA.to_owned(),
            version: SCHEMA_VERSION,
        };
        insert(&self.schema, vec![version]).await?;
        let found = self.schema.find_one(doc! { "_id": SCHEMA });
        let found = found.await.map_err(failure)?;
        if let Some(found) = found.filter(|found| found.version != SCHEMA_VERSION) {
            return Err(ReadModelError::Unusable(format!(
                "the database has schema version {} and this program knows {SCHEMA_VERSION}: use the \
                 program that wrote it, or another database",
                found.version
            )));
        }
        let indexes = [
            (
                "users",
                doc! { "deleted": 1, "position": 1 },
                "deleted_position",
            ),
            (
                "rooms",
                doc! { "members": 1, "lastMessage": -1 },
                "members_last",
            ),
            (
                "messages",
                doc! { "room": 1, "deleted": 1, "_id": -1 },
                MESSAGES_OF_ROOM,
            ),
            (
                "messages",
                doc! { "room": 1, "deleted": 1, "author": 1, "_id": 1 },
                MESSAGES_OF_AUTHORS,
            ),
            (
                "marks",
                doc! { "room": 1, "reader": 1, "upTo": 1 },
                "room_reader_up_to",
            ),
        ];
        for (collection, keys, name) in indexes {
            let options = IndexOptions::builder().name(name.to_owned()).build();
            let index = IndexModel::builder().keys(keys).options(options).build();
            let collection = self.database.collection::<Document>(collection);
            collection.create_index(index).await.map_err(failure)?;
        }
        Ok(())
    }
}

fn hint(index: &str) -> Hint {
    Hint::Name(index.to_owned())
}

/// Inserts what is not there already. An id is an event's or named by one, so a document with the same id
/// is the same document.
async fn insert<T: serde::Serialize + Send + Sync>(
    collection: &Collection<T>,
    documents: Vec<T>,
) -> Result<(), ReadModelError> {
    if documents.is_empty() {
        return Ok(());
    }
    let Err(error) = collection.insert_many(documents).ordered(false).await else {
        return Ok(());
    };
    let ErrorKind::InsertMany(errors) = error.kind.as_ref() else {
        return Err(failure(error));
    };
    if let Some(error) = &errors.write_concern_error {
        return Err(ReadModelError::Unavailable(error.message.clone()));
    }
    let other = errors
        .write_errors
        .iter()
        .flatten()
        .find(|error| error.code != DUPLICATE_KEY);
    match other {
        Some(error) => Err(fault(error.code, &error.message)),
        None => Ok(()),
    }
}

/// <https://github.com/mongodb/mongo/blob/v6.0/src/mongo/base/error_codes.yml>
const DUPLICATE_KEY: i32 = 11_000;

/// What an error of the driver means to the caller.
fn failure(error: Error) -> ReadModelError {
    match error.kind.as_ref() {
        ErrorKind::Command(error) => fault(error.code, &error.message),
        ErrorKind::Write(WriteFailure::WriteError(error)) => fault(error.code, &error.message),
        // A document that is too large or can't be encoded does not leave the driver.
        ErrorKind::InvalidArgument { message, .. } => ReadModelError::Refused(message.clone()),
        ErrorKind::BsonSerialization(error) => ReadModelError::Refused(error.to_string()),
        ErrorKind::BsonDeserialization(error) => ReadModelError::Unusable(format!(
            "a document is not as this program writes it: {error}"
        )),
        ErrorKind::Authentication { message, .. }
        | ErrorKind::InvalidTlsConfig { message, .. }
        | ErrorKind::IncompatibleServer { message, .. } => {
            ReadModelError::Unusable(message.clone())
        }
        kind => ReadModelError::Unavailable(kind.to_string()),
    }
}

/// What an error that the server reports means to the caller. Only codes that are certainly due to the
/// content count as a refusal: an event that is refused is set aside, an outage is waited for.
fn fault(code: i32, message: &str) -> ReadModelError {
    let text = format!("{message} (code {code})");
    match code {
        // BadValue, FailedToParse, TypeMismatch, InvalidBSON, DocumentValidationFailure,
        // BSONObjectTooLarge, KeyTooLong, and an update whose result is too large.
        2 | 9 | 14 | 22 | 121 | 10_334 | 17_280 | 17_419 | 17_420 => ReadModelError::Refused(text),
        // Unauthorized, AuthenticationFailed.
        13 | 18 => ReadModelError::Unusable(text),
        _ => ReadModelError::Unavailable(text),
    }
}

#[async_trait]
impl ReadModels for MongoReadModels {
    async fn prepare(&self) -> Result<(), ReadModelError> {
        self.run(WRITE_LIMIT, Store::prepare).await
    }

    async fn checkpoint(&self) -> Result<Option<Checkpoint>, ReadModelError> {
        self.run(QUERY_LIMIT, Store::checkpoint).await
    }

    async fn apply(&self, batch: &Batch) -> Result<(), ReadModelError> {
        let batch = batch.clone();
        let interruption = self.interruption.clone();
        self.run(WRITE_LIMIT, |store| store.apply(batch, interruption))
            .await
    }

    async fn heartbeat(&self, lag: Option<Duration>) -> Result<(), ReadModelError> {
        self.run(QUERY_LIMIT, move |store| store.heartbeat(lag))
            .await
    }

    async fn set_aside(&self, letter: &DeadLetter) -> Result<(), ReadModelError> {
        let letter = letter.clone();
        self.run(QUERY_LIMIT, |store| store.set_aside(letter)).await
    }

    async fn dead_letter_count(&self) -> Result<u64, ReadModelError> {
        self.run(QUERY_LIMIT, Store::dead_letter_count).await
    }

    async fn users(&self) -> Result<Vec<UserRow>, ReadModelError> {
        self.run(QUERY_LIMIT, Store::all_users).await
    }

    async fn users_by_id(&self, ids: &[UserId]) -> Result<Vec<UserRow>, ReadModelError> {
        let ids = ids.to_vec();
        self.run(QUERY_LIMIT, |store| store.users_by_id(ids)).await
    }

    async fn room(&self, id: RoomId) -> Result<Option<RoomRow>, ReadModelError> {
        self.run(QUERY_LIMIT, move |store| store.room(id)).await
    }

    async fn recent(&self, user: UserId, page: Page) -> Result<Vec<RecentRow>, ReadModelError> {
        self.run(QUERY_LIMIT, move |store| store.recent(user, page))
            .await
    }

    async fn conversation(
        &self,
        room: RoomId,
        page: Page,
    ) -> Result<Vec<MessageRow>, ReadModelError> {
        self.run(QUERY_LIMIT, move |store| store.conversation(room, page))
            .await
    }

    async fn newly_read(&self, position: Position) -> Result<u64, ReadModelError> {
        self.run(QUERY_LIMIT, move |store| store.newly_read(position))
            .await
    }

    async fn deleted_by(
        &self,
        message: MessageId,
        position: Position,
    ) -> Result<bool, ReadModelError> {
        self.run(QUERY_LIMIT, move |store| {
            store.deleted_by(message, position)
        })
        .await
    }

    async fn room_deletion(&self, room: RoomId) -> Result<Option<RoomDeletion>, ReadModelError> {
        self.run(QUERY_LIMIT, move |store| store.room_deletion(room))
            .await
    }

    async fn position_of_key(
        &self,
        deduplication_id: uuid::Uuid,
    ) -> Result<Option<Position>, ReadModelError> {
        self.run(QUERY_LIMIT, move |store| {
            store.position_of_key(deduplication_id)
        })
        .await
    }
}
