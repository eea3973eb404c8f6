//! The log in an SQLite file: nothing else to install, and several processes may share it.
//!
//! One thread a process writes, in groups: it takes what is waiting, commits it all with one sync to disk
//! and answers. Positions are handed out inside the write transaction, of which SQLite allows one at a
//! time, so their order is the order of the commits and a reader never sees a later one before an earlier.

mod reader;
mod schema;
mod signals;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use events::{Expect, Position, Subject};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::watch;

use crate::{
    Appended, EventLog, Events, Filter, Incarnation, LogError, NewEvent, Recorded, Signals, Tail,
    append_measured,
};
use reader::Readers;
use signals::LocalSignals;
use writer::Writer;

/// How often a follower looks by itself, should no notice reach it.
const FALLBACK_POLL: Duration = Duration::from_secs(1);

/// The log in an SQLite file.
pub struct SqliteLog {
    incarnation: Incarnation,
    /// `None` for a copy, which is only read.
    writer: Option<Writer>,
    readers: Arc<Readers>,
    /// The last position known to be committed, by this process or another.
    committed: watch::Sender<Position>,
    signals: Arc<LocalSignals>,
}

impl SqliteLog {
    /// Opens the log in the file `path`, creating it and its directory if they don't exist.
    ///
    /// # Errors
    /// [`LogError::Unusable`] when the file can't be created or is no log that this version knows;
    /// [`LogError::Unavailable`] when it can't be read at present.
    pub async fn open(path: &Path) -> Result<Self, LogError> {
        let path = path.to_owned();
        blocking(move || Self::open_blocking(&path)).await
    }

    fn open_blocking(path: &Path) -> Result<Self, LogError> {
        let connection = schema::open(path)?;
        let incarnation = schema::incarnation(&connection)?;
        let readers = Arc::new(Readers::new(path));
        let last = readers.with(reader::last_position)?;
        let committed = watch::Sender::new(last);
        writer::watch_other_processes(path, committed.clone())?;
        Ok(Self {
            incarnation,
            writer: Some(Writer::start(connection, committed.clone())?),
            readers,
            committed,
            signals: Arc::new(LocalSignals::new()),
        })
    }

    /// Opens a copy of a log in the file `path`, for reading only: one that nobody may write to, by its
    /// permissions or those of where it is. Nothing is written beside it either.
    ///
    /// # Errors
    /// [`LogError::Unusable`] when the file may be written to, is not the whole of a log, or is no log that this
    /// version knows.
    pub async fn open_copy(path: &Path) -> Result<Self, LogError> {
        let path = path.to_owned();
        blocking(move || {
            let connection = schema::open_copy(&path)?;
            let readers = Arc::new(Readers::of_copy(&path));
            let last = readers.with(reader::last_position)?;
            Ok(Self {
                incarnation: schema::incarnation(&connection)?,
                writer: None,
                readers,
                committed: watch::Sender::new(last),
                signals: Arc::new(LocalSignals::new()),
            })
        })
        .await
    }

    /// Runs a query where blocking is allowed, on a connection of the pool.
    async fn query<T: Send + 'static>(
        &self,
        query: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, LogError> {
        query_on(&self.readers, query).await
    }
}

#[async_trait]
impl EventLog for SqliteLog {
    async fn append(&self, event: NewEvent, expect: Expect) -> Result<Appended, LogError> {
        let Some(writer) = &self.writer else {
            let reason = "it is a copy that was opened for reading only";
            return Err(LogError::Unusable(reason.to_owned()));
        };
        append_measured(&event, writer.append(event.clone(), expect)).await
    }

    async fn read(&self, filter: Filter, after: Position) -> Result<Events, LogError> {
        let up_to = self.query(reader::last_position).await?;
        Ok(events(Reading {
            readers: Arc::clone(&self.readers),
            filter,
            after,
            up_to,
            wake: None,
            caught_up: false,
        }))
    }

    async fn follow(&self, filter: Filter, after: Position) -> Result<Events, LogError> {
        // Fails at once when the log can't be read.
        self.query(reader::last_position).await?;
        Ok(events(Reading {
            readers: Arc::clone(&self.readers),
            filter,
            after,
            up_to: Position::new(i64::MAX as u64),
            wake: Some(self.committed.subscribe()),
            caught_up: false,
        }))
    }

    async fn get(&self, position: Position) -> Result<Option<Recorded>, LogError> {
        self.query(move |connection| reader::get(connection, position))
            .await
    }

    async fn last_of(&self, subject: Subject) -> Result<Option<Recorded>, LogError> {
        self.query(move |connection| reader::last_of(connection, &subject.to_string()))
            .await
    }

    async fn tail(&self) -> Result<Tail, LogError> {
        Ok(Tail {
            incarnation: self.incarnation.clone(),
            last: self.query(reader::last_position).await?,
        })
    }

    async fn durability(&self) -> Result<Result<(), String>, LogError> {
        // Every connection is opened with `synchronous=FULL`: a commit returns once it is on the disk.
        Ok(Ok(()))
    }

    fn signals(&self) -> Arc<dyn Signals> {
        Arc::clone(&self.signals) as Arc<dyn Signals>
    }
}

/// Where a reader or follower is.
struct Reading {
    readers: Arc<Readers>,
    filter: Filter,
    after: Position,
    up_to: Position,
    /// What wakes a follower; `None` for a reader, which ends instead.
    wake: Option<watch::Receiver<Position>>,
    /// Whether the last page was the last there is for now.
    caught_up: bool,
}

impl Reading {
    /// The next page; `None` at the end.
    async fn next_page(&mut self) -> Result<Option<Vec<Recorded>>, LogError> {
        if self.caught_up {
            let Some(wake) = &mut self.wake else {
                return Ok(None);
            };
            // An error would mean that the log has been dropped; then other processes' appends are
            // still found by looking.
            let woken = tokio::time::timeout(FALLBACK_POLL, wake.changed()).await;
            if matches!(woken, Ok(Err(_))) {
                tokio::time::sleep(FALLBACK_POLL).await;
            }
        }
        // Before the page is read: what is committed meanwhile is either in the page or wakes us again.
        if let Some(wake) = &mut self.wake {
            drop(wake.borrow_and_update());
        }
        let (filter, after, up_to) = (self.filter.clone(), self.after, self.up_to);
        let page = query_on(&self.readers, move |connection| {
            reader::page(connection, &filter, after, up_to)
        })
        .await?;
        let last = page.events.last().map(|event| event.position);
        if let Some(reached) = page.looked_through.or(last) {
            self.after = reached;
        }
        self.caught_up = !page.more;
        Ok(Some(page.events))
    }
}

/// The events of all pages to come.
fn events(reading: Reading) -> Events {
    stream::try_unfold(reading, |mut reading| async move {
        let page = reading.next_page().await?;
        Ok(page.map(|page| (stream::iter(page.into_iter().map(Ok)), reading)))
    })
    .try_flatten()
    .boxed()
}

async fn query_on<T: Send + 'static>(
    readers: &Arc<Readers>,
    query: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
) -> Result<T, LogError> {
    let permit = readers.permit().await;
    let readers = Arc::clone(readers);
    blocking(move || {
        let _permit = permit;
        readers.with(query)
    })
    .await
}

/// Runs `work` on a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(LogError::Unavailable(format!(
            "a read was cut short: {error}"
        ))),
    }
}
