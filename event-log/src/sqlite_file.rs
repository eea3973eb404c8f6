//! A file in SQLite that several processes share: settings, tables, and whether it is what it should be.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior};

use crate::LogError;

/// How long a connection waits for another process's write.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// What a file is for.
#[derive(Debug)]
pub struct Kind {
    /// What to call it: `log`.
    pub name: &'static str,
    /// Marks the file as one of this kind (`PRAGMA application_id`).
    pub application_id: i32,
    /// What each version of its schema adds to the one before (`PRAGMA user_version`), from the first.
    pub versions: &'static [&'static str],
}

impl Kind {
    fn version(&self) -> i32 {
        // There are few.
        i32::try_from(self.versions.len()).unwrap_or(i32::MAX)
    }
}

/// Opens a file for reading and writing, creating it and its directory if need be. What is acknowledged on the
/// connection is on the disk.
///
/// # Errors
/// [`LogError::Unusable`] when the file can't be created or is something else than this version knows;
/// [`LogError::Unavailable`] when it can't be read at present.
pub fn open(kind: &Kind, path: &Path) -> Result<Connection, LogError> {
    if let Some(directory) = path.parent() {
        crate::durable::create_directory(directory).map_err(|error| {
            let directory = directory.display();
            LogError::Unusable(format!("can't create the directory {directory}: {error}"))
        })?;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection =
        Connection::open_with_flags(path, flags).map_err(|error| at(path, &error))?;
    prepare(kind, &mut connection, path)?;
    Ok(connection)
}

/// Called by SQLite while another process writes. A write takes about a millisecond, so looking again
/// every millisecond is fairer than SQLite's own pauses, which grow to 100 ms.
pub(crate) fn wait_for_others(attempt: i32) -> bool {
    if Duration::from_millis(attempt.unsigned_abs().into()) >= BUSY_TIMEOUT {
        return false;
    }
    std::thread::sleep(Duration::from_millis(1));
    true
}

/// Lets a statement keep its plan, whatever is bound to it: else SQLite prepares some anew each time, in case
/// another value deserved another plan.
///
/// # Errors
/// SQLite knows no such setting.
pub fn keep_plans(connection: &Connection) -> rusqlite::Result<()> {
    let kept = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true);
    kept.map(drop)
}

/// How often SQLite prepares a statement anew while other values are bound to it. For tests.
///
/// # Errors
/// The statement can't be prepared or carried out.
#[cfg(any(test, feature = "testing"))]
pub fn prepared_anew(connection: &Connection, statement: &str) -> rusqlite::Result<i32> {
    let mut statement = connection.prepare(statement)?;
    for bound in 1..5 {
        for parameter in 1..=statement.parameter_count() {
            statement.raw_bind_parameter(parameter, bound)?;
        }
        let mut rows = statement.raw_query();
        while rows.next()?.is_some() {}
    }
    Ok(statement.get_status(rusqlite::StatementStatus::RePrepare))
}

fn prepare(kind: &Kind, connection: &mut Connection, path: &Path) -> Result<(), LogError> {
    let set = |connection: &mut Connection| -> rusqlite::Result<()> {
        keep_plans(connection)?;
        connection.busy_handler(Some(wait_for_others))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "journal_size_limit", 64 << 20)
    };
    set(connection).map_err(|error| at(path, &error))?;
    check(kind, connection, path)?;
    let mode = write_ahead(connection).map_err(|error| at(path, &error))?;
    if mode != "wal" {
        return Err(LogError::Unusable(format!(
            "{} is on a file system that can't hold a {}: SQLite's write-ahead mode does not work there",
            path.display(),
            kind.name
        )));
    }
    create(kind, connection).map_err(|error| at(path, &error))?;
    check(kind, connection, path)
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
fn create(kind: &Kind, connection: &mut Connection) -> rusqlite::Result<()> {
    if version(connection)? == kind.version() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let present = usize::try_from(version(&transaction)?).unwrap_or_default();
    for addition in kind.versions.iter().skip(present) {
        transaction.execute_batch(addition)?;
    }
    transaction.pragma_update(None, "application_id", kind.application_id)?;
    transaction.pragma_update(None, "user_version", kind.version())?;
    transaction.commit()
}

/// Refuses a file that is something else, or of a newer version. An empty file is fine.
fn check(kind: &Kind, connection: &Connection, path: &Path) -> Result<(), LogError> {
    let facts = || -> rusqlite::Result<(i32, i32, bool)> {
        // In one transaction: another process may be creating the tables just now, and half of what it was
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
    if (id != kind.application_id) && (anything || id != 0 || version != 0) {
        return Err(LogError::Unusable(format!(
            "{path} is an SQLite database, but not a Hansard {}; give another path",
            kind.name
        )));
    }
    let known = kind.version();
    if version > known {
        return Err(LogError::Unusable(format!(
            "{path} was written by a newer Hansard (its schema is version {version}, this one knows up to \
             {known}); use that one"
        )));
    }
    Ok(())
}

/// Refuses a file that is something else, of a newer version, or empty.
pub(crate) fn check_filled(
    kind: &Kind,
    connection: &Connection,
    path: &Path,
) -> Result<(), LogError> {
    check(kind, connection, path)?;
    match version(connection).map_err(|error| at(path, &error))? {
        0 => Err(LogError::Unusable(format!(
            "{} is empty; give another path",
            path.display()
        ))),
        _ => Ok(()),
    }
}

pub(crate) fn version(connection: &Connection) -> rusqlite::Result<i32> {
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
pub fn failed(error: &rusqlite::Error) -> LogError {
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
