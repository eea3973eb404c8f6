//! The catalogue of generations in a SQLite file, beside which each generation has a file of its own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::tree::{self, SqliteTree};
use super::{SqliteReadModels, blocking, create_schema, failure, lock, open_reader, open_shared};
use crate::{
    Catalogue, Generation, Generations, Projection, ReadModelError, SCHEMA, State, TreeStore,
};

/// The version of `catalogue.sql`.
const VERSION: i64 = 2;

/// The catalogue of the generations in a SQLite file.
pub struct SqliteCatalogue {
    path: PathBuf,
    connection: Arc<Mutex<Connection>>,
    schema: u32,
}

impl SqliteCatalogue {
    /// Opens the file, or creates it.
    ///
    /// # Errors
    /// As [`SqliteReadModels::open`].
    pub async fn open(path: &Path) -> Result<Self, ReadModelError> {
        let path = path.to_owned();
        blocking(move || {
            let mut connection = open_shared(&path)?;
            create_schema(&mut connection, VERSION, include_str!("catalogue.sql")).map_err(
                |error| match error {
                    ReadModelError::Unusable(reason) => {
                        ReadModelError::Unusable(format!("{}: {reason}", path.display()))
                    }
                    other => other,
                },
            )?;
            tree::create(&connection).map_err(failure)?;
            Ok(Self {
                path,
                connection: Arc::new(Mutex::new(connection)),
                schema: SCHEMA,
            })
        })
        .await
    }

    /// As a program with another schema would use it.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn with_schema(mut self, schema: u32) -> Self {
        self.schema = schema;
        self
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ReadModelError> {
        let connection = Arc::clone(&self.connection);
        blocking(move || work(&mut lock(&connection)).map_err(failure)).await
    }

    /// The file of the generation: `read.db` has `read.g1.db`, `read.g2.db`, … beside it.
    fn file_of(&self, number: u32) -> PathBuf {
        let mut name = self.path.file_stem().unwrap_or_default().to_owned();
        name.push(format!(".g{number}"));
        if let Some(extension) = self.path.extension() {
            name.push(".");
            name.push(extension);
        }
        self.path.with_file_name(name)
    }
}

#[async_trait]
impl Catalogue for SqliteCatalogue {
    fn schema(&self) -> u32 {
        self.schema
    }

    /// Opening has made everything.
    async fn prepare(&self) -> Result<(), ReadModelError> {
        Ok(())
    }

    async fn generations(&self) -> Result<Generations, ReadModelError> {
        self.run(|connection| {
            let snapshot = connection.transaction()?;
            let all = snapshot
                .prepare_cached(
                    "SELECT number, schema, state, note FROM generations ORDER BY number",
                )?
                .query_map([], |row| {
                    Ok(Generation {
                        number: row.get(0)?,
                        schema: row.get(1)?,
                        state: super::queries::parsed(row, 2)?,
                        note: row.get(3)?,
                    })
                })?
                .collect::<rusqlite::Result<_>>()?;
            Ok(Generations {
                last: last(&snapshot)?,
                all,
            })
        })
        .await
    }

    async fn add(&self, last: u32, state: State) -> Result<Option<Generation>, ReadModelError> {
        let schema = self.schema;
        self.run(move |connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if self::last(&transaction)? != last {
                return Ok(None);
            }
            transaction.execute(
                "INSERT INTO generations (schema, state) VALUES (?1, ?2)",
                params![schema, state.as_str()],
            )?;
            transaction.commit()?;
            Ok(Some(Generation {
                number: last + 1,
                schema,
                state,
                note: None,
            }))
        })
        .await
    }

    async fn change(
        &self,
        number: u32,
        from: State,
        to: State,
        note: Option<&str>,
    ) -> Result<bool, ReadModelError> {
        let note = note.map(str::to_owned);
        self.run(move |connection| {
            let changed = connection.execute(
                "UPDATE generations SET state = ?3, note = coalesce(?4, note)
                 WHERE number = ?1 AND state = ?2",
                params![number, from.as_str(), to.as_str(), note],
            )?;
            Ok(changed == 1)
        })
        .await
    }

    async fn heartbeat(&self, number: u32) -> Result<Option<u64>, ReadModelError> {
        let file = self.file_of(number);
        blocking(move || {
            if !file.exists() {
                return Ok(None);
            }
            // Of every schema, also of those to come: the table `checkpoint` has this column.
            let heartbeat = open_reader(&file).and_then(|reader| {
                reader
                    .query_row("SELECT heartbeat FROM checkpoint", [], |row| row.get(0))
                    .optional()
            });
            let heartbeat: Option<i64> = heartbeat.map_err(failure)?;
            Ok(heartbeat.map(i64::unsigned_abs))
        })
        .await
    }

    async fn remove(&self, number: u32) -> Result<(), ReadModelError> {
        let file = self.file_of(number);
        blocking(move || {
            // Who has them open keeps them until it closes them.
            for suffix in ["", "-wal", "-shm"] {
                let mut path = OsString::from(&file);
                path.push(suffix);
                match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        let path = Path::new(&path).display();
                        let reason = format!("{path} can't be removed: {error}");
                        return Err(ReadModelError::Unavailable(reason));
                    }
                    _ => {}
                }
            }
            Ok(())
        })
        .await?;
        self.run(move |connection| {
            connection.execute("DELETE FROM generations WHERE number = ?1", [number])
        })
        .await?;
        Ok(())
    }

    async fn open(&self, number: u32) -> Result<Arc<dyn Projection>, ReadModelError> {
        Ok(Arc::new(
            SqliteReadModels::open(&self.file_of(number)).await?,
        ))
    }

    fn tree(&self) -> Arc<dyn TreeStore> {
        Arc::new(SqliteTree::new(Arc::clone(&self.connection)))
    }
}

/// The number given last.
fn last(snapshot: &Connection) -> rusqlite::Result<u32> {
    let last = snapshot
        .query_row(
            "SELECT seq FROM sqlite_sequence WHERE name = 'generations'",
            [],
            |row| row.get(0),
        )
        .optional()?;
    Ok(last.unwrap_or(0))
}
