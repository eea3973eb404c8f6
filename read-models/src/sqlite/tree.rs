//! The stored Merkle tree in the catalogue's file. What is stored at once is one transaction.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use event_log::Incarnation;
use merkle::{TileId, Tiles, TreeHead};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::{blocking, failure, lock};
use crate::tree::{Beside, beside, check_head};
use crate::{KeptTree, ReadModelError, TreeStore, TreeStoreError};

/// The stored tree in a SQLite file.
pub(super) struct SqliteTree(Arc<Mutex<Connection>>);

/// Creates the tables that are missing.
pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(include_str!("tree.sql"))
}

impl SqliteTree {
    pub(super) fn new(connection: Arc<Mutex<Connection>>) -> Self {
        Self(connection)
    }

    /// Runs something in a transaction, which is undone where it fails.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, TreeStoreError> {
        let connection = Arc::clone(&self.0);
        let outcome = blocking(move || {
            let mut connection = lock(&connection);
            let transaction = connection
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .map_err(failure)?;
            match work(&transaction) {
                Ok(value) => {
                    transaction.commit().map_err(failure)?;
                    Ok(Ok(value))
                }
                Err(Failure::Sqlite(error)) => Err(failure(error)),
                Err(Failure::Tree(error)) => Ok(Err(error)),
            }
        });
        outcome.await?
    }
}

/// What ends a transaction.
enum Failure {
    Sqlite(rusqlite::Error),
    Tree(TreeStoreError),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<TreeStoreError> for Failure {
    fn from(error: TreeStoreError) -> Self {
        Self::Tree(error)
    }
}

#[async_trait]
impl TreeStore for SqliteTree {
    async fn newest(&self) -> Result<Option<KeptTree>, TreeStoreError> {
        self.run(|file| Ok(newest(file)?)).await
    }

    async fn begin(&self, last: u32, log: &Incarnation) -> Result<KeptTree, TreeStoreError> {
        let log = log.clone();
        self.run(move |file| {
            match newest(file)? {
                Some(tree) if tree.number != last => return Ok(tree),
                _ => {}
            }
            let tree = KeptTree {
                number: last + 1,
                log,
                size: 0,
            };
            file.execute(
                "INSERT INTO trees (number, log, size) VALUES (?1, ?2, 0)",
                params![tree.number, tree.log.0],
            )?;
            Ok(tree)
        })
        .await
    }

    async fn tiles(&self, tree: u32, ids: &BTreeSet<TileId>) -> Result<Tiles, TreeStoreError> {
        let ids = ids.clone();
        self.run(move |file| {
            let mut tiles = Tiles::new();
            for id in ids {
                if let Some(hashes) = tile(file, tree, id)? {
                    tiles.insert(id, hashes);
                }
            }
            Ok(tiles)
        })
        .await
    }

    async fn grow(
        &self,
        tree: u32,
        from: u64,
        to: u64,
        tiles: &Tiles,
    ) -> Result<bool, TreeStoreError> {
        let tiles = tiles.clone();
        let (from, to) = (stored(from)?, stored(to)?);
        self.run(move |file| {
            let grown = file.execute(
                "UPDATE trees SET size = ?3 WHERE number = ?1 AND size = ?2",
                params![tree, from, to],
            )?;
            if grown == 0 {
                return Ok(false);
            }
            for (id, hashes) in &tiles {
                let before = tile(file, tree, *id)?.unwrap_or_default();
                if beside(*id, &before, hashes)? == Beside::Less {
                    file.prepare_cached(
                        "INSERT INTO tree_tiles (tree, level, number, hashes) VALUES (?1, ?2, ?3, ?4)
                         ON CONFLICT DO UPDATE SET hashes = excluded.hashes",
                    )?
                    .execute(params![tree, id.level, stored(id.index)?, hashes])?;
                }
            }
            Ok(true)
        })
        .await
    }

    async fn add_head(&self, tree: u32, head: &TreeHead) -> Result<(), TreeStoreError> {
        let head = head.clone();
        let size = stored(head.size)?;
        self.run(move |file| {
            file.execute(
                "INSERT INTO tree_heads (tree, size, note) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
                params![tree, size, head.note],
            )?;
            let kept: String = file.query_row(
                "SELECT note FROM tree_heads WHERE tree = ?1 AND size = ?2",
                params![tree, size],
                |row| row.get(0),
            )?;
            Ok(check_head(&kept, &head)?)
        })
        .await
    }

    async fn latest_head(&self, tree: u32) -> Result<Option<String>, TreeStoreError> {
        self.run(move |file| {
            let note = file.query_row(
                "SELECT note FROM tree_heads WHERE tree = ?1 ORDER BY size DESC LIMIT 1",
                [tree],
                |row| row.get(0),
            );
            Ok(note.optional()?)
        })
        .await
    }

    async fn heads(
        &self,
        tree: u32,
        after: u64,
        limit: u32,
    ) -> Result<Vec<String>, TreeStoreError> {
        let after = stored(after)?;
        self.run(move |file| {
            let notes = file
                .prepare_cached(
                    "SELECT note FROM tree_heads WHERE tree = ?1 AND size > ?2 ORDER BY size LIMIT ?3",
                )?
                .query_map(params![tree, after, limit], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            Ok(notes)
        })
        .await
    }
}

fn newest(file: &Connection) -> rusqlite::Result<Option<KeptTree>> {
    file.query_row(
        "SELECT number, log, size FROM trees ORDER BY number DESC LIMIT 1",
        [],
        |row| {
            let size: i64 = row.get(2)?;
            Ok(KeptTree {
                number: row.get(0)?,
                log: Incarnation(row.get(1)?),
                size: size.unsigned_abs(),
            })
        },
    )
    .optional()
}

fn tile(file: &Connection, tree: u32, id: TileId) -> Result<Option<Vec<u8>>, Failure> {
    let hashes = file
        .prepare_cached(
            "SELECT hashes FROM tree_tiles WHERE tree = ?1 AND level = ?2 AND number = ?3",
        )?
        .query_row(params![tree, id.level, stored(id.index)?], |row| row.get(0));
    Ok(hashes.optional()?)
}

/// As SQLite stores it.
fn stored(number: u64) -> Result<i64, TreeStoreError> {
    i64::try_from(number).map_err(|_| {
        ReadModelError::Refused(format!("{number} is no size of a tree: it is too large")).into()
    })
}
