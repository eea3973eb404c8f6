//! Read models in SQLite files, which several processes may share: the catalogue, and one file for each
//! generation.
//!
//! One connection writes: each batch is one transaction with the checkpoint in it, so there is no half
//! written batch. A few connections read, each query from one snapshot; in WAL mode they and the writer
//! do not wait for each other. Every call runs on a blocking thread and is never stopped midway.

mod apply;
mod catalogue;
mod lease;
mod purge;
mod queries;
mod search;
mod snapshot;
mod tree;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use event_log::sqlite_file::keep_plans;
use events::{MessageId, Position, RoomId, RoomType, Timestamp, UserId};
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use tokio::sync::Semaphore;

pub use self::catalogue::SqliteCatalogue;
use crate::{
    Batch, Checkpoint, ConversationRow, DeadLetter, Fence, HistoryRow, Lease, MessageRow, Page,
    Projection, ReadModelError, ReadModels, RecentRow, RoomDeletion, RoomRow, Search, Snapshot,
    UserRow,
};

/// The version of `schema.sql`, kept in the file's `user_version`.
const SCHEMA_VERSION: i64 = 3;

/// How long a connection waits for another process's write to end.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Queries that run at the same time; more wait their turn.
const READERS: usize = 4;

/// Prepared statements kept per connection: more than there are.
const STATEMENTS: usize = 64;

/// A generation of the read models in a SQLite file.
pub struct SqliteReadModels {
    file: Arc<File>,
    reading: Arc<Semaphore>,
}

struct File {
    path: PathBuf,
    writer: Mutex<Connection>,
    idle_readers: Mutex<Vec<Connection>>,
}

impl SqliteReadModels {
    /// Opens the file, or creates it with its tables.
    ///
    /// # Errors
    /// [`ReadModelError::Unusable`] when the file can't be opened, is no SQLite file, or was written by a
    /// newer version; [`ReadModelError::Unavailable`] when other processes keep it locked.
    pub async fn open(path: &Path) -> Result<Self, ReadModelError> {
        let path = path.to_owned();
        let file = blocking(move || {
            let writer = open_writer(&path)?;
            Ok(File {
                path,
                writer: Mutex::new(writer),
                idle_readers: Mutex::new(Vec::new()),
            })
        })
        .await?;
        Ok(Self {
            file: Arc::new(file),
            reading: Arc::new(Semaphore::new(READERS)),
        })
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, ReadModelError> + Send + 'static,
    ) -> Result<T, ReadModelError> {
        let file = Arc::clone(&self.file);
        blocking(move || work(&mut lock(&file.writer))).await
    }

    /// Runs a query on one snapshot.
    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ReadModelError> {
        let permit = Arc::clone(&self.reading)
            .acquire_owned()
            .await
            .map_err(|_| ReadModelError::Unavailable("they are being closed".to_owned()))?;
        let file = Arc::clone(&self.file);
        blocking(move || {
            let _permit = permit;
            let idle = lock(&file.idle_readers).pop();
            let mut connection = match idle {
                Some(connection) => connection,
                None => open_reader(&file.path).map_err(failure)?,
            };
            let snapshot = connection.transaction().map_err(failure)?;
            let answer = query(&snapshot).map_err(failure)?;
            drop(snapshot);
            lock(&file.idle_readers).push(connection);
            Ok(answer)
        })
        .await
    }

    /// The query plans of every statement that answers a query, so that tests can look at them.
    #[cfg(feature = "testing")]
    pub async fn query_plans(&self) -> Result<Vec<(String, Vec<String>)>, ReadModelError> {
        self.read(queries::plans).await
    }
}

/// A connection is in order even when a query on it has panicked: its transaction was rolled back.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ReadModelError> + Send + 'static,
) -> Result<T, ReadModelError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            Err(ReadModelError::Unavailable(format!(
                "an operation ended early: {error}"
            )))
        })
}

fn open_writer(path: &Path) -> Result<Connection, ReadModelError> {
    let mut connection = open_shared(path)?;
    // What is deleted or replaced is overwritten at once, not when its place is needed.
    connection
        .pragma_update(None, "secure_delete", true)
        .map_err(failure)?;
    create_tables(&mut connection)?;
    Ok(connection)
}

/// Opens a file to write to, which other processes may do as well; creates it if it is missing.
fn open_shared(path: &Path) -> Result<Connection, ReadModelError> {
    let unusable = |error: rusqlite::Error| match failure(error) {
        ReadModelError::Unavailable(reason) | ReadModelError::Refused(reason) => {
            ReadModelError::Unusable(format!("{}: {reason}", path.display()))
        }
        ReadModelError::Unusable(reason) => {
            ReadModelError::Unusable(format!("{}: {reason}", path.display()))
        }
        other @ (ReadModelError::BeingBuilt | ReadModelError::Overtaken) => other,
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(unusable)?;
    configure(&connection).map_err(unusable)?;
    // SQLite does not wait by itself for a lock that the change to WAL needs.
    let deadline = Instant::now() + BUSY_TIMEOUT;
    loop {
        match enter_wal(&connection) {
            Ok(()) => break,
            Err(error) if is_busy(&error) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) if is_busy(&error) => return Err(failure(error)),
            Err(error) => return Err(unusable(error)),
        }
    }
    Ok(connection)
}

fn enter_wal(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // A power loss may take the last batches, but never leaves half of one. The checkpoint goes with
    // them, so the projector writes them again: all of this is derived from the log.
    connection.pragma_update(None, "synchronous", "NORMAL")
}

fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    configure(&connection)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    keep_plans(connection)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(())
}

fn create_tables(connection: &mut Connection) -> Result<(), ReadModelError> {
    create_schema(
        connection,
        SCHEMA_VERSION,
        include_str!("sqlite/schema.sql"),
    )
}

/// Creates the tables that `sql` describes in a file that has none, and makes sure that a file that has
/// some has these: `version` is what `sql` sets as `user_version`.
fn create_schema(
    connection: &mut Connection,
    version: i64,
    sql: &str,
) -> Result<(), ReadModelError> {
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(failure)?;
    let found: i64 = transaction
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(failure)?;
    if found == version {
        return Ok(());
    }
    let tables: i64 = transaction
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(failure)?;
    if found != 0 {
        return Err(ReadModelError::Unusable(format!(
            "the file has schema version {found} where this program expects {version}: use the program that \
             wrote it, or another file, which will be filled from the log"
        )));
    }
    if tables > 0 {
        return Err(ReadModelError::Unusable(
            "the file holds another program's tables: use another file".to_owned(),
        ));
    }
    transaction.execute_batch(sql).map_err(failure)?;
    transaction.commit().map_err(failure)
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

/// What an error of SQLite means to the caller.
fn failure(error: rusqlite::Error) -> ReadModelError {
    use rusqlite::Error::{
        FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType,
        ToSqlConversionFailure,
    };
    let reason = error.to_string();
    match (&error, error.sqlite_error_code()) {
        (_, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        | (FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..), _) => {
            ReadModelError::Unusable(reason)
        }
        (_, Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch))
        | (ToSqlConversionFailure(_), _) => ReadModelError::Refused(reason),
        _ => ReadModelError::Unavailable(reason),
    }
}

#[async_trait]
impl Projection for SqliteReadModels {
    async fn prepare(&self) -> Result<(), ReadModelError> {
        self.write(create_tables).await
    }

    async fn lease(&self) -> Result<Lease, ReadModelError> {
        self.read(lease::lease).await
    }

    async fn take_lease(&self, seen: Fence, holder: &str) -> Result<Option<Fence>, ReadModelError> {
        let holder = holder.to_owned();
        self.write(move |connection| lease::take(connection, seen, &holder).map_err(failure))
            .await
    }

    async fn release_lease(&self, fence: Fence) -> Result<(), ReadModelError> {
        self.write(move |connection| lease::release(connection, fence).map_err(failure))
            .await
    }

    async fn apply(&self, batch: &Batch) -> Result<(), ReadModelError> {
        let batch = batch.clone();
        self.write(move |connection| apply::apply(connection, &batch))
            .await
    }

    async fn heartbeat(&self, fence: Fence, lag: Option<Duration>) -> Result<(), ReadModelError> {
        self.write(move |connection| apply::heartbeat(connection, fence, lag))
            .await
    }

    async fn purge(&self) -> Result<(), ReadModelError> {
        self.purge_files().await
    }

    async fn set_aside(&self, letter: &DeadLetter) -> Result<(), ReadModelError> {
        let letter = letter.clone();
        self.write(move |connection| apply::set_aside(connection, &letter).map_err(failure))
            .await
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, ReadModelError> {
        let snapshot = snapshot::SqliteSnapshot::begin(self.file.path.clone()).await?;
        Ok(Box::new(snapshot))
    }
}

#[async_trait]
impl ReadModels for SqliteReadModels {
    async fn checkpoint(&self) -> Result<Option<Checkpoint>, ReadModelError> {
        self.read(queries::checkpoint).await
    }

    async fn dead_letters(
        &self,
        after: Position,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, ReadModelError> {
        self.read(move |snapshot| queries::dead_letters(snapshot, after, limit))
            .await
    }

    async fn dead_letter_count(&self) -> Result<u64, ReadModelError> {
        self.read(queries::dead_letter_count).await
    }

    async fn users(&self) -> Result<Vec<UserRow>, ReadModelError> {
        self.read(queries::users).await
    }

    async fn users_by_id(&self, ids: &[UserId]) -> Result<Vec<UserRow>, ReadModelError> {
        let ids = ids.to_vec();
        self.read(move |snapshot| queries::users_by_id(snapshot, &ids))
            .await
    }

    async fn room(&self, id: RoomId) -> Result<Option<RoomRow>, ReadModelError> {
        self.read(move |snapshot| queries::room(snapshot, id)).await
    }

    async fn recent(&self, user: UserId, page: Page) -> Result<Vec<RecentRow>, ReadModelError> {
        self.read(move |snapshot| queries::recent(snapshot, user, page))
            .await
    }

    async fn conversation(
        &self,
        room: RoomId,
        page: Page,
    ) -> Result<Option<ConversationRow>, ReadModelError> {
        self.read(move |snapshot| queries::conversation(snapshot, room, page))
            .await
    }

    async fn history(
        &self,
        room: RoomId,
        message: MessageId,
    ) -> Result<Option<HistoryRow>, ReadModelError> {
        self.read(move |snapshot| queries::history(snapshot, room, message))
            .await
    }

    async fn expirable(
        &self,
        room_type: RoomType,
        before: Timestamp,
        after: Option<RoomId>,
        limit: u32,
    ) -> Result<Vec<(RoomId, MessageId)>, ReadModelError> {
        self.read(move |snapshot| queries::expirable(snapshot, room_type, before, after, limit))
            .await
    }

    async fn oldest_unexpired(&self, room: RoomId) -> Result<Option<Timestamp>, ReadModelError> {
        self.read(move |snapshot| queries::oldest_unexpired(snapshot, room))
            .await
    }

    async fn search(
        &self,
        user: UserId,
        search: Search,
    ) -> Result<Vec<MessageRow>, ReadModelError> {
        self.read(move |snapshot| search::search(snapshot, user, &search))
            .await
    }

    async fn newly_read(&self, position: Position) -> Result<u64, ReadModelError> {
        self.read(move |snapshot| queries::newly_read(snapshot, position))
            .await
    }

    async fn deleted_by(
        &self,
        message: MessageId,
        position: Position,
    ) -> Result<bool, ReadModelError> {
        self.read(move |snapshot| queries::deleted_by(snapshot, message, position))
            .await
    }

    async fn room_deletion(&self, room: RoomId) -> Result<Option<RoomDeletion>, ReadModelError> {
        self.read(move |snapshot| queries::room_deletion(snapshot, room))
            .await
    }

    async fn position_of_key(
        &self,
        deduplication_id: uuid::Uuid,
    ) -> Result<Option<Position>, ReadModelError> {
        self.read(move |snapshot| queries::position_of_key(snapshot, deduplication_id))
            .await
    }
}
