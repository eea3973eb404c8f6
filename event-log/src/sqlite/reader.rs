//! The queries, and the small pool of connections they run on.

use std::collections::BinaryHeap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use events::{Position, Subject, Timestamp};
use rusqlite::{Connection, OptionalExtension, Params, Row, named_params};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::schema;
use crate::rooms::{RoomSet, subjects_of};
use crate::sqlite_file;
use crate::{Filter, LogError, Recorded};

/// How many queries run at once.
const CONNECTIONS: usize = 8;

/// How many events a page has at most.
const PAGE_EVENTS: usize = 512;

/// After how many bytes of payload a page ends, so that large events don't fill the memory.
const PAGE_BYTES: usize = 4 << 20;

/// Connections for reading, opened as they are needed.
pub(super) struct Readers {
    path: PathBuf,
    open: fn(&Path) -> rusqlite::Result<Connection>,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn new(path: &Path) -> Self {
        Self::opened_by(schema::open_reader, path)
    }

    /// The same for a copy, which nobody may write to.
    pub(super) fn of_copy(path: &Path) -> Self {
        Self::opened_by(schema::open_reader_of_copy, path)
    }

    fn opened_by(open: fn(&Path) -> rusqlite::Result<Connection>, path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            open,
            idle: Mutex::new(Vec::new()),
            permits: Arc::new(Semaphore::new(CONNECTIONS)),
        }
    }

    /// Waits until a query may run.
    pub(super) async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        Arc::clone(&self.permits).acquire_owned().await.ok()
    }

    /// Runs a query. Blocks.
    pub(super) fn with<T>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, LogError> {
        let idle = self.lock().pop();
        let run = || -> rusqlite::Result<(Connection, T)> {
            let connection = match idle {
                Some(connection) => connection,
                None => (self.open)(&self.path)?,
            };
            let answer = query(&connection)?;
            Ok((connection, answer))
        };
        // A connection that failed is closed: the next one is opened anew.
        let (connection, answer) = run().map_err(|error| sqlite_file::failed(&error))?;
        self.lock().push(connection);
        Ok(answer)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Some events in order.
pub(super) struct Page {
    pub(super) events: Vec<Recorded>,
    /// Whether there may be more after them.
    pub(super) more: bool,
    /// Up to where everything has been looked through, if that is further than the last event.
    pub(super) looked_through: Option<Position>,
}

/// Reads the next events after `after`, up to and with `up_to`, that match.
pub(super) fn page(
    connection: &Connection,
    filter: &Filter,
    after: Position,
    up_to: Position,
) -> rusqlite::Result<Page> {
    let (after, up_to) = (sql(after), sql(up_to));
    match filter {
        Filter::All => collect(
            connection,
            ALL,
            named_params! {":after": after, ":up_to": up_to},
        ),
        Filter::Lifecycles => collect(
            connection,
            LIFECYCLES,
            named_params! {":after": after, ":up_to": up_to},
        ),
        Filter::Holds => collect(
            connection,
            HOLDS,
            named_params! {":after": after, ":up_to": up_to},
        ),
        Filter::User(user) => {
            let subject = Subject::User(*user).to_string();
            let params = named_params! {":after": after, ":up_to": up_to, ":subject": subject};
            collect(connection, ONE_SUBJECT, params)
        }
        Filter::Room(room) => {
            let [lifecycle, timeline, hold, retention] = subjects_of(*room);
            let params = named_params! {
                ":after": after, ":up_to": up_to, ":lifecycle": lifecycle, ":timeline": timeline,
                ":hold": hold, ":retention": retention,
            };
            collect(connection, SUBJECTS_OF_ROOM, params)
        }
        Filter::Rooms(rooms) => page_of_rooms(connection, &RoomSet::new(rooms), after, up_to),
    }
}

/// Merges the rooms' histories. SQLite would do so only after sorting all that is left of them, for every
/// page; so the next positions are found first, and then their events.
fn page_of_rooms(
    connection: &Connection,
    rooms: &RoomSet,
    after: i64,
    up_to: i64,
) -> rusqlite::Result<Page> {
    let up_to = up_to.min(sql(last_position(connection)?)).max(after);
    let looked_through = Some(position(up_to));
    if up_to.abs_diff(after) <= rooms.len() as u64 {
        // Less to look through than rooms to ask for: what a follower meets with every append.
        let params = named_params! {":after": after, ":up_to": up_to};
        let belongs = |row: &Row<'_>| Ok(rooms.has(row.get_ref(1)?.as_str()?));
        let mut page = collect_if(connection, ALL, params, belongs)?;
        page.looked_through = looked_through.filter(|_| !page.more);
        return Ok(page);
    }
    let positions = next_positions(connection, rooms, after, up_to)?;
    let mut statement = connection.prepare_cached(AT)?;
    let mut page = Page {
        events: Vec::with_capacity(positions.len()),
        more: positions.len() == PAGE_EVENTS,
        looked_through: None,
    };
    let mut bytes = 0;
    for position in positions {
        // What has been removed since is not there.
        let Some(event) = statement.query_row([position], recorded).optional()? else {
            continue;
        };
        bytes += event.payload.len();
        page.events.push(event);
        if bytes >= PAGE_BYTES {
            page.more = true;
            break;
        }
    }
    page.looked_through = looked_through.filter(|_| !page.more);
    Ok(page)
}

/// The positions of the rooms' next events, as many as a page has at most, in order. Each subject is read
/// no further than the page reaches by what the subjects before it have.
fn next_positions(
    connection: &Connection,
    rooms: &RoomSet,
    after: i64,
    up_to: i64,
) -> rusqlite::Result<Vec<i64>> {
    let mut statement = connection.prepare_cached(POSITIONS)?;
    let mut next = BinaryHeap::with_capacity(PAGE_EVENTS + 1);
    for subject in rooms.subjects() {
        let reach = match next.peek() {
            Some(last) if next.len() == PAGE_EVENTS => *last,
            _ => up_to,
        };
        let params = named_params! {":after": after, ":up_to": reach, ":subject": subject};
        let mut rows = statement.query(params)?;
        while let Some(row) = rows.next()? {
            let position = row.get(0)?;
            if next.len() == PAGE_EVENTS {
                if next.peek().is_some_and(|last| position >= *last) {
                    break;
                }
                next.pop();
            }
            next.push(position);
        }
    }
    Ok(next.into_sorted_vec())
}

/// The position of the last event.
pub(super) fn last_position(connection: &Connection) -> rusqlite::Result<Position> {
    let last: Option<i64> = connection
        .prepare_cached("SELECT max(position) FROM events")?
        .query_row([], |row| row.get(0))?;
    Ok(position(last.unwrap_or(0)))
}

/// The event at a position.
pub(super) fn get(connection: &Connection, at: Position) -> rusqlite::Result<Option<Recorded>> {
    connection
        .prepare_cached(AT)?
        .query_row([sql(at)], recorded)
        .optional()
}

/// The last event of a subject.
pub(super) fn last_of(
    connection: &Connection,
    subject: &str,
) -> rusqlite::Result<Option<Recorded>> {
    connection
        .prepare_cached(
            "SELECT position, subject, stored_at, payload FROM events
             WHERE subject = ?1 ORDER BY position DESC LIMIT 1",
        )?
        .query_row([subject], recorded)
        .optional()
}

/// The position in SQL's signed integers. Beyond them there is nothing, nor can there be.
pub(super) fn sql(position: Position) -> i64 {
    i64::try_from(position.get()).unwrap_or(i64::MAX)
}

/// The position that SQL's integer means.
pub(super) fn position(sql: i64) -> Position {
    Position::new(sql.try_into().unwrap_or(0))
}

const ALL: &str = "
SELECT position, subject, stored_at, payload FROM events
WHERE position > :after AND position <= :up_to
ORDER BY position";

const LIFECYCLES: &str = "
SELECT position, subject, stored_at, payload FROM events INDEXED BY events_of_lifecycles
WHERE substr(subject, -9) <> '.timeline' AND substr(subject, -10) <> '.retention'
  AND substr(subject, -5) <> '.hold' AND subject <> 'chat.audit'
  AND position > :after AND position <= :up_to
ORDER BY position";

const HOLDS: &str = "
SELECT position, subject, stored_at, payload FROM events INDEXED BY events_of_holds
WHERE substr(subject, -5) = '.hold' AND position > :after AND position <= :up_to
ORDER BY position";

const ONE_SUBJECT: &str = "
SELECT position, subject, stored_at, payload FROM events
WHERE subject = :subject AND position > :after AND position <= :up_to
ORDER BY position";

const AT: &str = "SELECT position, subject, stored_at, payload FROM events WHERE position = ?1";

const POSITIONS: &str = "
SELECT position FROM events
WHERE subject = :subject AND position > :after AND position <= :up_to
ORDER BY position";

/// SQLite merges the ordered parts as they are read: a page costs what it returns.
const SUBJECTS_OF_ROOM: &str = "
SELECT position, subject, stored_at, payload FROM events
WHERE subject = :lifecycle AND position > :after AND position <= :up_to
UNION ALL
SELECT position, subject, stored_at, payload FROM events
WHERE subject = :timeline AND position > :after AND position <= :up_to
UNION ALL
SELECT position, subject, stored_at, payload FROM events
WHERE subject = :hold AND position > :after AND position <= :up_to
UNION ALL
SELECT position, subject, stored_at, payload FROM events
WHERE subject = :retention AND position > :after AND position <= :up_to
ORDER BY position";

fn collect(connection: &Connection, query: &str, params: impl Params) -> rusqlite::Result<Page> {
    collect_if(connection, query, params, |_| Ok(true))
}

fn collect_if(
    connection: &Connection,
    query: &str,
    params: impl Params,
    belongs: impl Fn(&Row<'_>) -> rusqlite::Result<bool>,
) -> rusqlite::Result<Page> {
    let mut statement = connection.prepare_cached(query)?;
    let mut rows = statement.query(params)?;
    let mut events = Vec::new();
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        if !belongs(row)? {
            continue;
        }
        let event = recorded(row)?;
        bytes += event.payload.len();
        events.push(event);
        if events.len() >= PAGE_EVENTS || bytes >= PAGE_BYTES {
            return Ok(Page {
                events,
                more: true,
                looked_through: None,
            });
        }
    }
    Ok(Page {
        events,
        more: false,
        looked_through: None,
    })
}

fn recorded(row: &Row<'_>) -> rusqlite::Result<Recorded> {
    let payload: Vec<u8> = row.get(3)?;
    Ok(Recorded {
        position: position(row.get(0)?),
        subject: row.get(1)?,
        // No clock writes a time outside the range; should a file have one, the event is still shown.
        stored_at: Timestamp::from_millis(row.get(2)?)
            .or_else(|| Timestamp::from_millis(0))
            .unwrap_or_else(Timestamp::now),
        payload: payload.into(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// How SQLite carries out a query, as it says itself.
    fn plan(query: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        let connection = schema::open(&directory.path().join("log.db")).unwrap();
        let mut statement = connection
            .prepare(&format!("EXPLAIN QUERY PLAN {query}"))
            .unwrap();
        // Unbound parameters are NULL, which does not matter to the plan.
        let steps = statement.raw_query().mapped(|row| row.get::<_, String>(3));
        steps.map(Result::unwrap).collect::<Vec<_>>().join("\n")
    }

    const QUERIES: [&str; 7] = [
        ALL,
        LIFECYCLES,
        HOLDS,
        ONE_SUBJECT,
        SUBJECTS_OF_ROOM,
        AT,
        POSITIONS,
    ];

    #[test]
    fn a_query_is_prepared_once_whatever_is_bound_to_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.db");
        let openers: [fn(&Path) -> rusqlite::Result<Connection>; 3] = [
            |path| Ok(schema::open(path).unwrap()),
            schema::open_reader,
            schema::open_reader_of_copy,
        ];
        // One after the other: a connection that is closed as the last leaves a whole file, as a copy is.
        for open in openers {
            let connection = open(&path).unwrap();
            for query in QUERIES {
                let again = sqlite_file::prepared_anew(&connection, query).unwrap();
                assert_eq!(again, 0, "{query}");
            }
        }
    }

    #[test]
    fn no_query_scans_or_sorts() {
        for query in QUERIES {
            let plan = plan(query);
            assert!(!plan.contains("SCAN events"), "{query}\n{plan}");
            assert!(!plan.contains("TEMP B-TREE"), "{query}\n{plan}");
        }
        assert!(plan(LIFECYCLES).contains("events_of_lifecycles (position>? AND position<?)"));
        assert!(plan(HOLDS).contains("events_of_holds (position>? AND position<?)"));
        assert!(plan(SUBJECTS_OF_ROOM).contains("MERGE (UNION ALL)"));
        // The positions come from the index alone, without the events.
        assert!(plan(POSITIONS).contains("COVERING INDEX events_by_subject"));
    }
}
