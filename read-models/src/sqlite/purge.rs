//! Getting texts that are gone out of the files.
//!
//! What is deleted is overwritten as it is deleted (`secure_delete`), in the pages of the database. Two places are
//! left: the index of words, whose older parts keep the words of removed rows until they are merged, and the
//! write-ahead log, which has pages as they were.

use rusqlite::{Connection, OptionalExtension, params};

use super::failure;
use crate::ReadModelError;

/// See [`crate::Projection::purge`].
pub(super) fn purge(connection: &mut Connection) -> Result<(), ReadModelError> {
    let unpurged: Option<i64> = connection
        .query_row("SELECT unpurged FROM checkpoint", [], |row| row.get(0))
        .optional()
        .map_err(failure)?
        .flatten();
    let Some(unpurged) = unpurged else {
        return Ok(());
    };
    connection
        .execute(
            "INSERT INTO message_words (message_words) VALUES ('optimize')",
            [],
        )
        .map_err(failure)?;
    truncate_log(connection)?;
    connection
        .execute(
            "UPDATE checkpoint SET unpurged = NULL WHERE unpurged = ?1",
            params![unpurged],
        )
        .map_err(failure)?;
    Ok(())
}

/// Brings everything in the write-ahead log into the database and empties it.
fn truncate_log(connection: &Connection) -> Result<(), ReadModelError> {
    let busy: bool = connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
        .map_err(failure)?;
    match busy {
        false => Ok(()),
        true => Err(ReadModelError::Unavailable(
            "somebody still reads from the write-ahead log what has been erased".to_owned(),
        )),
    }
}
