//! Getting texts that are gone out of the files.
//!
//! What is deleted is overwritten as it is deleted (`secure_delete`), in the pages of the database. Two places are
//! left: the index of words, whose older parts keep the words of removed rows until they are merged, and the
//! write-ahead log, which has pages as they were.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::{BUSY_TIMEOUT, SqliteReadModels, failure};
use crate::ReadModelError;

/// Pages of the index that are merged at a time: the projection and its heartbeat wait no longer than that takes.
const PAGES: i64 = 500;

/// How long readers are waited for: less than the heartbeat may stand still.
const PATIENCE: Duration = Duration::from_secs(1);

impl SqliteReadModels {
    /// See [`crate::Projection::purge`].
    pub(super) async fn purge_files(&self) -> Result<(), ReadModelError> {
        let Some(unpurged) = self.write(|connection| unpurged(connection)).await? else {
            return Ok(());
        };
        // Negative the first time: everything is to be merged into one part.
        let mut pages = -PAGES;
        while self
            .write(move |connection| merge(connection, pages))
            .await?
        {
            pages = PAGES;
        }
        self.write(move |connection| {
            truncate_log(connection)?;
            connection
                .execute(
                    "UPDATE checkpoint SET unpurged = NULL WHERE unpurged = ?1",
                    params![unpurged],
                )
                .map_err(failure)?;
            Ok(())
        })
        .await
    }
}

/// The last batch that made texts go, unless that has been purged.
fn unpurged(connection: &Connection) -> Result<Option<i64>, ReadModelError> {
    let found = connection
        .query_row("SELECT unpurged FROM checkpoint", [], |row| row.get(0))
        .optional();
    Ok(found.map_err(failure)?.flatten())
}

/// Merges a part of the index; `false` when there is nothing more to merge.
fn merge(connection: &Connection, pages: i64) -> Result<bool, ReadModelError> {
    let before = connection.total_changes();
    connection
        .execute(
            "INSERT INTO message_words (message_words, rank) VALUES ('merge', ?1)",
            params![pages],
        )
        .map_err(failure)?;
    // The statement itself counts as one.
    Ok(connection.total_changes() - before >= 2)
}

/// Brings everything in the write-ahead log into the database and empties it.
fn truncate_log(connection: &Connection) -> Result<(), ReadModelError> {
    connection.busy_timeout(PATIENCE).map_err(failure)?;
    let busy = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failure)?;
    match busy.map_err(failure)? {
        false => Ok(()),
        true => Err(ReadModelError::Unavailable(
            "somebody still reads from the write-ahead log what has been erased".to_owned(),
        )),
    }
}
