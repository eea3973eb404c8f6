//! The thread that appends, in groups of one commit each, and the one that notices the appends of other
//! processes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use events::{Expect, Position, Timestamp};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot, watch};

use super::reader::{last_position, position, sql};
use super::schema;
use crate::sqlite_file;
use crate::{Appended, ExpectText, LogError, NewEvent};

/// How many appends may wait; more callers wait to get in.
const QUEUE: usize = 4_096;

/// How many appends one commit has at most. A larger group is hardly faster.
const GROUP: usize = 256;

/// The longest rest after a commit.
const LONGEST_REST: Duration = Duration::from_millis(5);

/// With this many appends waiting there is no rest: a larger group is hardly cheaper for each.
const MANY: usize = 64;

/// How often the file is looked at for appends of other processes.
const POLL: Duration = Duration::from_millis(10);

type Outcome = Result<Appended, LogError>;

/// An append that waits for its turn.
struct Job {
    event: NewEvent,
    expect: Expect,
    reply: oneshot::Sender<Outcome>,
}

/// The writing thread. It ends when this is dropped and everything accepted has been written.
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
}

impl Writer {
    pub(super) fn start(
        connection: Connection,
        committed: watch::Sender<Position>,
    ) -> Result<Self, LogError> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        spawn("log-writer", move || write(connection, queue, &committed))?;
        Ok(Self { jobs })
    }

    /// Appends one event and returns once it is on the disk.
    pub(super) async fn append(&self, event: NewEvent, expect: Expect) -> Outcome {
        let (reply, outcome) = oneshot::channel();
        let job = Job {
            event,
            expect,
            reply,
        };
        let stopped = || LogError::Unavailable("the writer has stopped".to_owned());
        self.jobs.send(job).await.map_err(|_| stopped())?;
        outcome.await.map_err(|_| stopped())?
    }
}

/// Starts a thread that reports to `committed` what other processes commit. It ends with the log.
pub(super) fn watch_other_processes(
    path: &Path,
    committed: watch::Sender<Position>,
) -> Result<(), LogError> {
    let connection = schema::open_reader(path).map_err(|error| sqlite_file::failed(&error))?;
    // The log itself holds one sender and the writer another; when they are gone, nobody is left who
    // could follow.
    spawn("log-watcher", move || {
        let mut seen: i64 = -1;
        while committed.sender_count() > 1 {
            std::thread::sleep(POLL);
            if committed.receiver_count() == 0 {
                continue;
            }
            match changed(&connection, &mut seen) {
                Ok(Some(last)) => announce(&committed, last),
                Ok(None) => {}
                // Followers report what is wrong when they read.
                Err(error) => tracing::debug!(%error, "can't look for new events"),
            }
        }
    })
}

/// The last position if any other connection has committed since the last call; a look costs
/// microseconds.
fn changed(connection: &Connection, seen: &mut i64) -> rusqlite::Result<Option<Position>> {
    let version: i64 = connection
        .prepare_cached("PRAGMA data_version")?
        .query_row([], |row| row.get(0))?;
    if version == *seen {
        return Ok(None);
    }
    let last = last_position(connection)?;
    *seen = version;
    Ok(Some(last))
}

/// Wakes the followers if `last` is news.
fn announce(committed: &watch::Sender<Position>, last: Position) {
    committed.send_if_modified(|known| {
        let news = last > *known;
        *known = last.max(*known);
        news
    });
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), LogError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map(drop)
        .map_err(|error| LogError::Unavailable(format!("can't start a thread: {error}")))
}

fn write(
    mut connection: Connection,
    mut queue: mpsc::Receiver<Job>,
    committed: &watch::Sender<Position>,
) {
    let mut rested = Instant::now();
    while let Some(first) = queue.blocking_recv() {
        // After a commit it rests for as long as that took: of a steady stream more is committed at a time then, and
        // nobody is woken for each. Where one append comes after the other, it does not.
        if queue.len() < MANY {
            std::thread::sleep(rested.saturating_duration_since(Instant::now()));
        }
        let mut group = vec![first];
        while group.len() < GROUP
            && let Ok(job) = queue.try_recv()
        {
            group.push(job);
        }
        let begun = Instant::now();
        // A panic takes the group's answers with it, never the thread: the transaction rolls back when
        // it is dropped, and the callers learn that they don't know.
        let outcomes = catch_unwind(AssertUnwindSafe(|| commit(&mut connection, &group)))
            .unwrap_or_else(|_| Err(LogError::Unavailable("an append failed".to_owned())));
        rested = Instant::now();
        if group.len() > 1 {
            rested += begun.elapsed().min(LONGEST_REST);
        }
        match outcomes {
            Ok(outcomes) => {
                let appended = outcomes.iter().flatten().map(|it| it.position).max();
                if let Some(last) = appended {
                    announce(committed, last);
                }
                for (job, outcome) in group.into_iter().zip(outcomes) {
                    // Whoever has gone away does not want to know.
                    let _ = job.reply.send(outcome);
                }
            }
            Err(error) => {
                tracing::warn!(%error, appends = group.len(), "can't append");
                for job in group {
                    let _ = job.reply.send(Err(again(&error)));
                }
            }
        }
    }
}

fn again(error: &LogError) -> LogError {
    match error {
        LogError::Unusable(reason) => LogError::Unusable(reason.clone()),
        other => LogError::Unavailable(match other {
            LogError::Unavailable(reason) => reason.clone(),
            _ => other.to_string(),
        }),
    }
}

/// Appends a group in one transaction: either all that can be are on the disk when it returns, each with
/// its own outcome, or none.
fn commit(connection: &mut Connection, group: &[Job]) -> Result<Vec<Outcome>, LogError> {
    let mut run = || -> rusqlite::Result<Vec<Outcome>> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let outcomes = group
            .iter()
            .map(|job| append(&transaction, &job.event, job.expect))
            .collect::<rusqlite::Result<Vec<Outcome>>>()?;
        transaction.commit()?;
        Ok(outcomes)
    };
    run().map_err(|error| sqlite_file::failed(&error))
}

/// Appends one event in a transaction that shows all earlier ones, those of the same group included.
fn append(
    transaction: &Transaction<'_>,
    event: &NewEvent,
    expect: Expect,
) -> rusqlite::Result<Outcome> {
    let deduplication_id = event.deduplication_id.as_bytes().as_slice();
    // Before the expectation: what has happened already is no longer subject to it.
    let earlier = transaction
        .prepare_cached("SELECT position FROM events WHERE deduplication_id = ?1")?
        .query_row([deduplication_id], |row| row.get(0))
        .optional()?;
    if let Some(earlier) = earlier {
        return Ok(Ok(Appended {
            position: position(earlier),
            duplicate: true,
        }));
    }
    let expected = match expect {
        Expect::Any => None,
        Expect::Empty => Some((event.subject, Position::ZERO)),
        Expect::Exact(position) => Some((event.subject, position)),
        Expect::Beside(other, position) => Some((other, position)),
    };
    if let Some((subject, expected)) = expected {
        let last: Option<i64> = transaction
            .prepare_cached("SELECT max(position) FROM events WHERE subject = ?1")?
            .query_row([subject.to_string()], |row| row.get(0))?;
        if last.unwrap_or(0) != sql(expected) {
            return Ok(Err(LogError::Conflict(ExpectText(expect))));
        }
    }
    transaction
        .prepare_cached(
            "INSERT INTO events (subject, deduplication_id, stored_at, payload)
             VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![
            event.subject.to_string(),
            deduplication_id,
            Timestamp::now().as_millis(),
            event.payload.as_ref(),
        ])?;
    Ok(Ok(Appended {
        position: position(transaction.last_insert_rowid()),
        duplicate: false,
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bytes::Bytes;
    use events::{Subject, UserId};
    use uuid::Uuid;

    fn job(number: u128, size: usize, expect: Expect) -> (Job, oneshot::Receiver<Outcome>) {
        let (reply, outcome) = oneshot::channel();
        let event = NewEvent {
            subject: Subject::User(UserId::from_uuid(Uuid::from_u128(1))),
            deduplication_id: Uuid::from_u128(number),
            payload: Bytes::from(vec![b'x'; size]),
        };
        (
            Job {
                event,
                expect,
                reply,
            },
            outcome,
        )
    }

    #[test]
    fn a_full_disk_takes_the_group_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let mut connection = schema::open(&directory.path().join("log.db")).unwrap();
        // A limit on the file's size fails with the same error as a full disk.
        connection
            .pragma_update(None, "max_page_count", 40)
            .unwrap();
        let mut acknowledged = 0;
        let error = loop {
            let first = 1 + 2 * acknowledged as u128;
            let group: Vec<Job> = (first..first + 2)
                .map(|number| job(number, 10_000, Expect::Any).0)
                .collect();
            match commit(&mut connection, &group) {
                Ok(outcomes) => {
                    assert!(outcomes.iter().all(Result::is_ok));
                    acknowledged += 1;
                }
                Err(error) => break error,
            }
        };
        assert!(matches!(&error, LogError::Unavailable(reason) if reason.contains("full")));
        let stored = last_position(&connection).unwrap();
        assert_eq!(stored.get(), 2 * acknowledged);

        // There is room again: it goes on where it stopped.
        connection
            .pragma_update(None, "max_page_count", 4_000)
            .unwrap();
        let (next, _) = job(1_000_000, 10_000, Expect::Any);
        let outcomes = commit(&mut connection, &[next]).unwrap();
        assert_eq!(outcomes[0].as_ref().unwrap().position, stored.next());
    }

    #[test]
    fn one_group_has_one_winner() {
        let directory = tempfile::tempdir().unwrap();
        let mut connection = schema::open(&directory.path().join("log.db")).unwrap();
        let group: Vec<Job> = (1..=3)
            .map(|number| job(number, 10, Expect::Empty).0)
            .chain([job(1, 10, Expect::Empty).0])
            .collect();
        let outcomes = commit(&mut connection, &group).unwrap();
        assert!(matches!(outcomes[0], Ok(it) if !it.duplicate));
        assert!(matches!(outcomes[1], Err(LogError::Conflict(_))));
        assert!(matches!(outcomes[2], Err(LogError::Conflict(_))));
        assert!(matches!(outcomes[3], Ok(it) if it.duplicate));
    }

    #[test]
    fn what_a_caller_does_not_wait_for_is_written_nonetheless() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.db");
        let connection = schema::open(&path).unwrap();
        let committed = watch::Sender::new(Position::ZERO);
        let (jobs, queue) = mpsc::channel(10);
        let (abandoned, _) = job(1, 10, Expect::Any);
        let (awaited, outcome) = job(2, 10, Expect::Any);
        jobs.blocking_send(abandoned).unwrap();
        jobs.blocking_send(awaited).unwrap();
        drop(jobs);
        write(connection, queue, &committed);
        assert_eq!(outcome.blocking_recv().unwrap().unwrap().position.get(), 2);
        assert_eq!(*committed.borrow(), Position::new(2));
    }
}
