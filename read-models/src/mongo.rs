//! Read models in a MongoDB database.
//!
//! No multi-document transaction is needed, so a standalone server will do: a batch is written in phases,
//! each of which may be repeated, and the checkpoint moves last. See [`apply`].

mod apply;
mod catalogue;
mod connection;
mod documents;
mod lease;
mod migrations;
mod plan;
mod purge;
mod queries;
mod search;
mod snapshot;
mod tree;

use std::time::Duration;

use async_trait::async_trait;
use events::{MessageId, Position, RoomId, RoomType, Timestamp, UserId};
use mongodb::error::{Error, ErrorKind, WriteFailure};
use mongodb::options::Hint;
use mongodb::{Collection, Database};

use self::apply::Interruption;
#[cfg(feature = "testing")]
pub use self::apply::Phase;
pub use self::catalogue::MongoCatalogue;
use self::connection::Connection;
use self::documents::{
    CheckpointDocument, DeadLetterDocument, EditDocument, ErasureDocument, KeyDocument,
    MarkDocument, MessageDocument, RoomDocument, UserDocument,
};
use crate::{
    Batch, Checkpoint, ConversationRow, DeadLetter, Fence, HistoryRow, Lease, MessageRow, Page,
    Projection, ReadModelError, ReadModels, RecentRow, RoomDeletion, RoomRow, Search, Snapshot,
    UserRow,
};

/// How long a query may take.
const QUERY_LIMIT: Duration = Duration::from_secs(5);

/// How long writing a batch may take, with the deletion of large rooms in it, and creating indexes.
const WRITE_LIMIT: Duration = Duration::from_secs(60);

/// How long it may take to purge the files of what is gone, or to look through all rooms of a type.
const PURGE_LIMIT: Duration = Duration::from_secs(600);

/// Parts of one operation that go to the server side by side.
const SIDE_BY_SIDE: usize = 8;

/// Of the messages: those of a room in order, those that are deleted apart.
const MESSAGES_OF_ROOM: &str = "room_deleted_id";

/// Of the messages: those of a room by author, so that counting those by others walks over none of
/// one's own.
const MESSAGES_OF_AUTHORS: &str = "room_deleted_author_id";

/// Of the messages: those of a room with a certain word in order.
const MESSAGES_BY_WORD: &str = "room_words_id";

/// Of the edits: those of a message in order.
const EDITS_OF_MESSAGE: &str = "room_message_id";

/// Of the rooms: those of a type in order.
const ROOMS_OF_TYPE: &str = "type_id";

/// A generation of the read models in a MongoDB database.
pub struct MongoReadModels {
    connection: Connection,
    store: Store,
    interruption: Interruption,
}

/// The collections of one generation.
#[derive(Clone)]
struct Store {
    connection: Connection,
    /// The generation's number.
    number: i64,
    /// Of all generations.
    checkpoints: Collection<CheckpointDocument>,
    users: Collection<UserDocument>,
    rooms: Collection<RoomDocument>,
    messages: Collection<MessageDocument>,
    edits: Collection<EditDocument>,
    erasures: Collection<ErasureDocument>,
    marks: Collection<MarkDocument>,
    keys: Collection<KeyDocument>,
    dead_letters: Collection<DeadLetterDocument>,
}

impl MongoReadModels {
    /// The first generation in the database at `url`, whether the catalogue has it or not.
    ///
    /// # Errors
    /// As [`MongoCatalogue::open`].
    #[cfg(feature = "testing")]
    pub async fn open(url: &str) -> Result<Self, ReadModelError> {
        Ok(Self::generation(Connection::open(url).await?, 1))
    }

    /// The generation with this number.
    fn generation(connection: Connection, number: u32) -> Self {
        Self {
            store: Store::of(connection.clone(), number),
            connection,
            interruption: Interruption::none(),
        }
    }

    /// Calls `interruption` after each phase of [`Projection::apply`]; its error ends the call as a crash
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

    /// Runs an operation to its end; see [`Connection::run`].
    async fn run<T, Work>(
        &self,
        limit: Duration,
        operation: impl FnOnce(Store) -> Work,
    ) -> Result<T, ReadModelError>
    where
        T: Send + 'static,
        Work: Future<Output = Result<T, ReadModelError>> + Send + 'static,
    {
        self.connection
            .run(limit, operation(self.store.clone()))
            .await
    }
}

impl Store {
    fn of(connection: Connection, number: u32) -> Self {
        let database = connection.database().clone();
        let name = |name: &str| format!("{}{name}", prefix(number));
        Self {
            number: i64::from(number),
            checkpoints: database.collection("checkpoints"),
            users: database.collection(&name("users")),
            rooms: database.collection(&name("rooms")),
            messages: database.collection(&name("messages")),
            edits: database.collection(&name("edits")),
            erasures: database.collection(&name("erasures")),
            marks: database.collection(&name("marks")),
            keys: database.collection(&name("keys")),
            dead_letters: database.collection(&name("deadLetters")),
            connection,
        }
    }

    fn database(&self) -> &Database {
        self.connection.database()
    }

    /// A collection of this generation.
    fn collection<T: Send + Sync>(&self, name: &str) -> Collection<T> {
        let name = format!("{}{name}", prefix(self.number));
        self.database().collection(&name)
    }
}

/// With what the names of a generation's collections begin.
fn prefix(number: impl std::fmt::Display) -> String {
    format!("g{number}_")
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
impl Projection for MongoReadModels {
    async fn prepare(&self) -> Result<(), ReadModelError> {
        self.run(WRITE_LIMIT, Store::migrate).await
    }

    async fn lease(&self) -> Result<Lease, ReadModelError> {
        self.run(QUERY_LIMIT, Store::lease).await
    }

    async fn take_lease(&self, seen: Fence, holder: &str) -> Result<Option<Fence>, ReadModelError> {
        let holder = holder.to_owned();
        self.run(QUERY_LIMIT, move |store| store.take_lease(seen, holder))
            .await
    }

    async fn release_lease(&self, fence: Fence) -> Result<(), ReadModelError> {
        self.run(QUERY_LIMIT, move |store| store.release_lease(fence))
            .await
    }

    async fn apply(&self, batch: &Batch) -> Result<(), ReadModelError> {
        let batch = batch.clone();
        let interruption = self.interruption.clone();
        self.run(WRITE_LIMIT, |store| store.apply(batch, interruption))
            .await
    }

    async fn heartbeat(&self, fence: Fence, lag: Option<Duration>) -> Result<(), ReadModelError> {
        self.run(QUERY_LIMIT, move |store| store.heartbeat(fence, lag))
            .await
    }

    async fn purge(&self) -> Result<(), ReadModelError> {
        self.run(PURGE_LIMIT, Store::purge).await
    }

    async fn set_aside(&self, letter: &DeadLetter) -> Result<(), ReadModelError> {
        let letter = letter.clone();
        self.run(QUERY_LIMIT, |store| store.set_aside(letter)).await
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, ReadModelError> {
        Ok(Box::new(snapshot::MongoSnapshot::begin(self).await?))
    }
}

#[async_trait]
impl ReadModels for MongoReadModels {
    async fn checkpoint(&self) -> Result<Option<Checkpoint>, ReadModelError> {
        self.run(QUERY_LIMIT, Store::checkpoint).await
    }

    async fn dead_letters(
        &self,
        after: Position,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, ReadModelError> {
        self.run(QUERY_LIMIT, move |store| store.dead_letters(after, limit))
            .await
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
    ) -> Result<Option<ConversationRow>, ReadModelError> {
        self.run(QUERY_LIMIT, move |store| store.conversation(room, page))
            .await
    }

    async fn history(
        &self,
        room: RoomId,
        message: MessageId,
    ) -> Result<Option<HistoryRow>, ReadModelError> {
        self.run(QUERY_LIMIT, move |store| store.history(room, message))
            .await
    }

    async fn expirable(
        &self,
        room_type: RoomType,
        before: Timestamp,
        after: Option<RoomId>,
        limit: u32,
    ) -> Result<Vec<(RoomId, MessageId)>, ReadModelError> {
        self.run(PURGE_LIMIT, move |store| {
            store.expirable(room_type, before, after, limit)
        })
        .await
    }

    async fn oldest_unexpired(&self, room: RoomId) -> Result<Option<Timestamp>, ReadModelError> {
        self.run(QUERY_LIMIT, move |store| store.oldest_unexpired(room))
            .await
    }

    async fn search(
        &self,
        user: UserId,
        search: Search,
    ) -> Result<Vec<MessageRow>, ReadModelError> {
        self.run(QUERY_LIMIT, move |store| store.search(user, search))
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
