//! Opening the file: settings, tables, and whether it is a log that this version knows.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior};
use uuid::Uuid;

use crate::{Incarnation, LogError};

/// Marks the file as a Hansard event log (`PRAGMA application_id`): "HSLG" in ASCII.
const APPLICATION_ID: i32 = 0x4853_4c47;

/// The version of the tables below (`PRAGMA user_version`).
const SCHEMA_VERSION: i32 = 2;

/// How long a connection waits for another process's write.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Partial indexes have the lifecycles and the legal holds, which are few, so that following them never scans
/// timelines. A query must repeat the index's condition literally to be served from it.
const TABLES: &str = "
CREATE TABLE meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
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

/// Opens the log for writing, creating it if need be.
pub(super) fn open(path: &Path) -> Result<Connection, LogError> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(|error| {
            let directory = directory.display();
            LogError::Unusable(format!("can't create the directory {directory}: {error}"))
        })?;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection =
        Connection::open_with_flags(path, flags).map_err(|error| at(path, &error))?;
    prepare(&mut connection, path)?;
    Ok(connection)
}

/// Opens another connection to a log that exists, for reading.
pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    // Not read-only: reading in WAL mode may have to create the shared-memory file.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_handler(Some(wait_for_others))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "query_only", true)?;
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

/// Called by SQLite while another process writes. A write takes about a millisecond, so looking again
/// every millisecond is fairer than SQLite's own pauses, which grow to 100 ms.
fn wait_for_others(attempt: i32) -> bool {
    if Duration::from_millis(attempt.unsigned_abs().into()) >= BUSY_TIMEOUT {
        return false;
    }
    std::thread::sleep(Duration::from_millis(1));
    true
}

fn prepare(connection: &mut Connection, path: &Path) -> Result<(), LogError> {
    let set = |connection: &mut Connection| -> rusqlite::Result<()> {
        connection.busy_handler(Some(wait_for_others))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "journal_size_limit", 64 << 20)
    };
    set(connection).map_err(|error| at(path, &error))?;
    check(connection, path)?;
    let mode = write_ahead(connection).map_err(|error| at(path, &error))?;
    if mode != "wal" {
        return Err(LogError::Unusable(format!(
            "{} is on a file system that can't hold a log: SQLite's write-ahead mode does not work there",
            path.display()
        )));
    }
    create(connection).map_err(|error| at(path, &error))?;
    check(connection, path)
}

/// Switches the file to write-ahead mode. While another process does the same, SQLite reports it busy
/// without asking the busy handler.
fn write_ahead(connection: &Connection) -> rusqlite::Result<String> {
    let deadline = Instant::now() + BUSY_TIMEOUT;
    loop {
        let mode = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0));
        match mode {
            Err(error) if is_busy(&error) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

/// Creates the tables if the file is empty, and what an older version lacks; of several processes that try, one
/// does.
fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    if version(connection)? == SCHEMA_VERSION {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if version(&transaction)? == 0 {
        transaction.execute_batch(TABLES)?;
        transaction.execute(
            "INSERT INTO meta (key, value) VALUES ('incarnation', ?1)",
            [Uuid::new_v4().simple().to_string()],
        )?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", 1)?;
    }
    if version(&transaction)? == 1 {
        transaction.execute_batch(SINCE_2)?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    }
    transaction.commit()
}

/// Refuses a file that is something else, or a log of a newer version. An empty file is fine.
fn check(connection: &Connection, path: &Path) -> Result<(), LogError> {
    let facts = || -> rusqlite::Result<(i32, i32, bool)> {
        // In one transaction: another process may be creating the log just now, and half of what it was
        // before with half of what it is then would look like something else.
        let moment = connection.unchecked_transaction()?;
        let id = moment.query_row("PRAGMA application_id", [], |row| row.get(0))?;
        let anything = moment
            .query_row("SELECT 1 FROM sqlite_master LIMIT 1", [], |_| Ok(()))
            .optional()?;
        Ok((id, version(&moment)?, anything.is_some()))
    };
    let (id, version, anything) = facts().map_err(|error| at(path, &error))?;
    let path = path.display();
    if (id != APPLICATION_ID) && (anything || id != 0 || version != 0) {
        return Err(LogError::Unusable(format!(
            "{path} is an SQLite database, but not a Hansard log; give another path"
        )));
    }
    if version > SCHEMA_VERSION {
        return Err(LogError::Unusable(format!(
            "{path} was written by a newer Hansard (its schema is version {version}, this one knows up to \
             {SCHEMA_VERSION}); use that one"
        )));
    }
    Ok(())
}

fn version(connection: &Connection) -> rusqlite::Result<i32> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

/// What a failure while opening `path` means.
fn at(path: &Path, error: &rusqlite::Error) -> LogError {
    let shown = path.display();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => LogError::Unusable(format!(
            "{shown} is not an SQLite database; give another path"
        )),
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            LogError::Unusable(format!("can't write to {shown}: {error}"))
        }
        _ => match failed(error) {
            LogError::Unusable(reason) => LogError::Unusable(format!("{shown}: {reason}")),
            LogError::Unavailable(reason) => LogError::Unavailable(format!("{shown}: {reason}")),
            other => other,
        },
    }
}

/// What a failure of SQLite means.
pub(super) fn failed(error: &rusqlite::Error) -> LogError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            LogError::Unusable(format!("the file is damaged: {error}"))
        }
        Some(ErrorCode::DiskFull) => LogError::Unavailable("the disk is full".to_owned()),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            let seconds = BUSY_TIMEOUT.as_secs();
            LogError::Unavailable(format!("another process held it for more than {seconds} s"))
        }
        _ => LogError::Unavailable(error.to_string()),
    }
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
        log.pragma_update(None, "user_version", SCHEMA_VERSION + 1)
            .unwrap();
        drop(log);
        assert!(refusal(&path).contains("newer Hansard"));
    }

    #[test]
    fn an_older_logs_schema_is_brought_up_to_date() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.db");
        let log = open(&path).unwrap();
        let before = incarnation(&log).unwrap();
        log.execute_batch("DROP INDEX events_of_holds; PRAGMA user_version = 1")
            .unwrap();
        drop(log);
        let log = open(&path).unwrap();
        assert_eq!(incarnation(&log).unwrap(), before);
        assert_eq!(version(&log).unwrap(), SCHEMA_VERSION);
        let indexes: i64 = log
            .query_row(
                "SELECT count(*) FROM sqlite_master WHERE name = 'events_of_holds'",
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(indexes, 1);
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
