//! Keys in an SQLite file, which several processes may share.
//!
//! A destroyed key must be in no file. Rows are only appended, and changed in place by others of the same size,
//! so that SQLite never moves a key and leaves a copy behind in a page; `secure_delete` is there for what it
//! might move nevertheless. The write-ahead log is emptied after each destruction.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use event_log::sqlite_file::{self, Kind, failed};
use futures::{StreamExt, TryStreamExt, stream};
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};

use crate::blocking::blocking;
use crate::{Kept, KeyError, KeyStore, Listing, Slot, WrappedKey};

/// How many keys are listed at a time.
const PAGE: u32 = 1_000;

/// How long the write-ahead log is waited for, which others may be reading.
const EMPTYING: Duration = Duration::from_secs(5);

/// The pause before it is tried again.
const EMPTYING_PAUSE: Duration = Duration::from_millis(5);

/// A destroyed key's row keeps its size: zeros are in the place of the key.
const TABLES: &str = "
CREATE TABLE keys (
    number    INTEGER PRIMARY KEY AUTOINCREMENT,
    slot      TEXT    NOT NULL UNIQUE,
    destroyed INTEGER NOT NULL, -- 0 or 1
    master    TEXT    NOT NULL, -- the master key that unwraps it; of a destroyed one, that did
    sealed    BLOB    NOT NULL
) STRICT;
";

const KEYS: Kind = Kind {
    name: "key store",
    application_id: i32::from_be_bytes(*b"HSKY"),
    versions: &[TABLES],
};

/// Keys in an SQLite file. Clones share the connection.
#[derive(Clone)]
pub struct SqliteKeys {
    path: PathBuf,
    connection: Arc<Mutex<Connection>>,
}

impl SqliteKeys {
    /// Opens the key store in the file `path`, creating it and its directory if they don't exist.
    ///
    /// # Errors
    /// [`KeyError::Unusable`] when the file can't be created or is no key store that this version knows;
    /// [`KeyError::Unavailable`] when it can't be read at present.
    pub async fn open(path: &Path) -> Result<Self, KeyError> {
        let path = path.to_owned();
        blocking(move || {
            let connection = sqlite_file::open(&KEYS, &path)?;
            let set = connection.pragma_update(None, "secure_delete", true);
            set.map_err(|error| failed(&error))?;
            Ok(Self {
                path,
                connection: Arc::new(Mutex::new(connection)),
            })
        })
        .await
    }

    /// Does something with the connection where blocking is allowed.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, KeyError> {
        let connection = Arc::clone(&self.connection);
        blocking(move || {
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(work(&mut connection).map_err(|error| failed(&error))?)
        })
        .await
    }

    async fn page(&self, after: i64) -> Result<Vec<(i64, Slot, Kept)>, KeyError> {
        let rows = self.with(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT destroyed, master, sealed, number, slot FROM keys WHERE number > ?1
                 ORDER BY number LIMIT ?2",
            )?;
            let rows = query.query_map(params![after, PAGE], |row| {
                Ok((row.get(3)?, row.get::<_, String>(4)?, Stored::read(row)?))
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        });
        let rows = rows.await?.into_iter();
        let read = rows.map(|(number, slot, stored)| Ok((number, slot.parse()?, stored.kept()?)));
        read.collect()
    }
}

#[async_trait]
impl KeyStore for SqliteKeys {
    async fn get(&self, slot: Slot) -> Result<Option<Kept>, KeyError> {
        let stored = self.with(move |connection| get(connection, slot)).await?;
        stored.map(Stored::kept).transpose()
    }

    async fn insert(&self, slot: Slot, key: WrappedKey) -> Result<Kept, KeyError> {
        let stored = self.with(move |connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            put(&transaction, slot, &Stored::of(key))?;
            let stored = get(&transaction, slot)?;
            transaction.commit()?;
            Ok(stored)
        });
        let stored = stored.await?;
        stored
            .ok_or_else(|| KeyError::Unavailable(format!("{slot} was not put into the file")))?
            .kept()
    }

    async fn replace(
        &self,
        slot: Slot,
        old: &WrappedKey,
        new: WrappedKey,
    ) -> Result<bool, KeyError> {
        let old = old.clone();
        self.with(move |connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction
                .prepare_cached(
                    "UPDATE keys SET master = ?2, sealed = ?3
                     WHERE slot = ?1 AND destroyed = 0 AND sealed = ?4",
                )?
                .execute(params![
                    slot.to_string(),
                    new.master.to_string(),
                    new.sealed,
                    old.sealed
                ])?;
            let stored = get(&transaction, slot)?;
            transaction.commit()?;
            Ok(stored.is_some_and(|it| !it.destroyed && it.sealed == new.sealed))
        })
        .await
    }

    async fn destroy(&self, slot: Slot) -> Result<(), KeyError> {
        let path = self.path.clone();
        let emptied = self.with(move |connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            put(&transaction, slot, &Stored::nothing())?;
            transaction
                .prepare_cached(
                    "UPDATE keys SET destroyed = 1, sealed = zeroblob(length(sealed))
                     WHERE slot = ?1 AND destroyed = 0",
                )?
                .execute([slot.to_string()])?;
            transaction.commit()?;
            // Also when there was nothing to change: the process that changed it may have been killed.
            empty_write_ahead_log(connection)
        });
        match emptied.await? {
            true => Ok(()),
            false => Err(KeyError::Unavailable(format!(
                "another process went on reading {}; until it stops, the destroyed key {slot} may be in its \
                 write-ahead log",
                path.display()
            ))),
        }
    }

    fn list(&self) -> Listing {
        let pages = stream::try_unfold((self.clone(), 0), |(keys, after)| async move {
            let page = keys.page(after).await?;
            let Some(last) = page.last().map(|(number, ..)| *number) else {
                return Ok::<_, KeyError>(None);
            };
            let items = page.into_iter().map(|(_, slot, kept)| Ok((slot, kept)));
            Ok(Some((stream::iter(items), (keys, last))))
        });
        pages.try_flatten().boxed()
    }
}

/// A row's content.
struct Stored {
    destroyed: bool,
    master: String,
    sealed: Vec<u8>,
}

impl Stored {
    fn of(key: WrappedKey) -> Self {
        Self {
            destroyed: false,
            master: key.master.to_string(),
            sealed: key.sealed,
        }
    }

    /// What is in the place of a key that never was.
    fn nothing() -> Self {
        Self {
            destroyed: true,
            master: String::new(),
            sealed: Vec::new(),
        }
    }

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            destroyed: row.get(0)?,
            master: row.get(1)?,
            sealed: row.get(2)?,
        })
    }

    fn kept(self) -> Result<Kept, KeyError> {
        Ok(match self.destroyed {
            true => Kept::Destroyed,
            false => Kept::Wrapped(WrappedKey {
                master: self.master.parse()?,
                sealed: self.sealed,
            }),
        })
    }
}

fn get(connection: &Connection, slot: Slot) -> rusqlite::Result<Option<Stored>> {
    connection
        .prepare_cached("SELECT destroyed, master, sealed FROM keys WHERE slot = ?1")?
        .query_row([slot.to_string()], Stored::read)
        .optional()
}

/// Fills the slot if it is empty.
fn put(connection: &Connection, slot: Slot, stored: &Stored) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO keys (slot, destroyed, master, sealed) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (slot) DO NOTHING",
        )?
        .execute(params![
            slot.to_string(),
            stored.destroyed,
            stored.master,
            stored.sealed
        ])
        .map(drop)
}

/// Moves everything from the write-ahead log into the file and cuts it to nothing; says whether it could, since
/// others may be reading it.
fn empty_write_ahead_log(connection: &Connection) -> rusqlite::Result<bool> {
    let deadline = Instant::now() + EMPTYING;
    loop {
        let busy: bool =
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        if !busy || Instant::now() >= deadline {
            return Ok(!busy);
        }
        std::thread::sleep(EMPTYING_PAUSE);
    }
}
