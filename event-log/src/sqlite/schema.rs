//! The log's file: its tables, and whether it is a log that this version knows.

use std::fs::OpenOptions;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use url::Url;

use crate::sqlite_file::{self, Kind, failed};
use crate::{Incarnation, LogError};

/// Partial indexes have the lifecycles and the legal holds, which are few, so that following them never scans
/// timelines. A query must repeat the index's condition literally to be served from it.
const TABLES: &str = "
CREATE TABLE meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
INSERT INTO meta (key, value) VALUES ('incarnation', lower(hex(randomblob(16))));
CREATE TABLE events (
    position         INTEGER PRIMARY KEY AUTOINCREMENT,
    subject          TEXT    NOT NULL,
    deduplication_id BLOB    NOT NULL UNIQUE,
    stored_at        INTEGER NOT NULL, -- milliseconds since 1970
    payload          BLOB    NOT NULL
) STRICT;
CREATE INDEX events_by_subject ON events (subject, position);
CREATE INDEX events_of_lifecycles ON events (position) WHERE substr(subject, -9) <> '.timeline';
";

/// What version 2 added.
const SINCE_2: &str = "
CREATE INDEX events_of_holds ON events (position) WHERE substr(subject, -5) = '.hold';
";

/// What version 3 changed: expiries are many.
const SINCE_3: &str = "
DROP INDEX events_of_lifecycles;
CREATE INDEX events_of_lifecycles ON events (position)
WHERE substr(subject, -9) <> '.timeline' AND substr(subject, -10) <> '.retention';
";

const LOG: Kind = Kind {
    name: "log",
    application_id: i32::from_be_bytes(*b"HSLG"),
    versions: &[TABLES, SINCE_2, SINCE_3],
};

/// Opens the log for writing, creating it if need be.
pub(super) fn open(path: &Path) -> Result<Connection, LogError> {
    sqlite_file::open(&LOG, path)
}

/// Opens another connection to a log that exists, for reading.
pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    // Not read-only: reading in WAL mode may have to create the shared-memory file.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    sqlite_file::keep_plans(&connection)?;
    connection.busy_handler(Some(sqlite_file::wait_for_others))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// Opens a copy of a log, which nobody may write to, for reading.
pub(super) fn open_copy(path: &Path) -> Result<Connection, LogError> {
    let shown = path.display();
    let metadata = std::fs::metadata(path)
        .map_err(|error| LogError::Unusable(format!("can't read {shown}: {error}")))?;
    // Who may do everything may write to what is marked as not to be written to as well.
    let is_marked = metadata.permissions().readonly();
    if !is_marked && OpenOptions::new().write(true).open(path).is_ok() {
        return Err(LogError::Unusable(format!(
            "{shown} can be written to: if it is a copy, mark it as one that is not to be (chmod a-w)"
        )));
    }
    let mut ahead = path.as_os_str().to_owned();
    ahead.push("-wal");
    if std::fs::metadata(&ahead).is_ok_and(|ahead| ahead.len() > 0) {
        return Err(LogError::Unusable(format!(
            "{shown} is not the whole of a log, there is a write-ahead file beside it: make a copy with \
             sqlite3's .backup"
        )));
    }
    let connection = open_reader_of_copy(path).map_err(|error| failed(&error))?;
    sqlite_file::check_filled(&LOG, &connection, path)?;
    Ok(connection)
}

/// Opens another connection to a copy of a log.
pub(super) fn open_reader_of_copy(path: &Path) -> rusqlite::Result<Connection> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let url = Url::from_file_path(&path).map_err(|()| rusqlite::Error::InvalidPath(path))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // Immutable: without locks and files beside it, which could not be made where nobody may write.
    let connection = Connection::open_with_flags(format!("{url}?immutable=1"), flags)?;
    sqlite_file::keep_plans(&connection)?;
    Ok(connection)
}

/// The identity that the log was given when it was created.
pub(super) fn incarnation(connection: &Connection) -> Result<Incarnation, LogError> {
    connection
        .query_row(
            "SELECT value FROM meta WHERE key = 'incarnation'",
            [],
            |row| row.get(0),
        )
        .map(Incarnation)
        .map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn refusal(path: &Path) -> String {
        match open(path) {
            Err(LogError::Unusable(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_no_log_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notes.txt");
        let text = "Dear diary, ".repeat(100);
        std::fs::write(&path, &text).unwrap();
        assert!(refusal(&path).contains("not an SQLite database"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);

        let path = directory.path().join("other.db");
        let other = Connection::open(&path).unwrap();
        other.execute_batch("CREATE TABLE cats (name)").unwrap();
        drop(other);
        let before = std::fs::read(&path).unwrap();
        assert!(refusal(&path).contains("not a Hansard log"));
        assert_eq!(std::fs::read(&path).unwrap(), before);

        assert!(refusal(directory.path()).contains("can't write to"));
        let below_a_file = path.join("log.db");
        assert!(refusal(&below_a_file).contains("can't create the directory"));
    }

    #[test]
    fn a_newer_logs_schema_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.db");
        let log = open(&path).unwrap();
        log.pragma_update(None, "user_version", 4).unwrap();
        drop(log);
        assert!(refusal(&path).contains("newer Hansard"));
    }

    #[test]
    fn an_older_logs_schema_is_brought_up_to_date() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.db");
        let log = open(&path).unwrap();
        let before = incarnation(&log).unwrap();
        log.execute_batch(
            "DROP INDEX events_of_holds;
             DROP INDEX events_of_lifecycles;
             CREATE INDEX events_of_lifecycles ON events (position)
             WHERE substr(subject, -9) <> '.timeline';
             PRAGMA user_version = 1",
        )
        .unwrap();
        drop(log);
        let log = open(&path).unwrap();
        assert_eq!(incarnation(&log).unwrap(), before);
        assert_eq!(sqlite_file::version(&log).unwrap(), 3);
        let indexes = |log: &Connection| -> Vec<String> {
            let mut query = log
                .prepare("SELECT sql FROM sqlite_master WHERE type = 'index' ORDER BY name")
                .unwrap();
            let sql = query.query_map([], |row| row.get::<_, Option<String>>(0));
            let sql = sql.unwrap().map(Result::unwrap);
            sql.flatten().collect()
        };
        let new = open(&directory.path().join("new.db")).unwrap();
        assert_eq!(indexes(&log), indexes(&new));
    }

    #[test]
    fn many_processes_may_create_it_at_once() {
        let directory = tempfile::tempdir().unwrap();
        // Often, since few of them meet at the wrong moment.
        for number in 0..50 {
            let path = directory.path().join(format!("deep/er/{number}.db"));
            let incarnations: Vec<Incarnation> = std::thread::scope(|scope| {
                let openers: Vec<_> = (0..8)
                    .map(|_| scope.spawn(|| incarnation(&open(&path).unwrap()).unwrap()))
                    .collect();
                openers
                    .into_iter()
                    .map(|opener| opener.join().unwrap())
                    .collect()
            });
            assert!(incarnations.windows(2).all(|pair| pair[0] == pair[1]));
        }
    }
}
