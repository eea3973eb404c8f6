//! A log, read models that misbehave on command, and a projector between them.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

pub mod running;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use event_log::{
    Appended, EventLog, Events, Expect, Filter, LogError, NewEvent, Position, Recorded, Signals,
    SqliteLog, Tail,
};
use events::{
    Envelope, Event, MessagePosted, Names, RoomId, RoomInitiated, RoomType, Subject, UserCreated,
    UserId, UserType,
};
use futures::StreamExt;
use keys::{Keyring, Record};
use projector::{Options, Status};
use read_models::{
    Batch, Catalogue, Checkpoint, ConversationRow, DeadLetter, Fence, Generation, Generations,
    HistoryRow, Lease, MessageRow, Page, PageStart, Projection, ReadModelError, ReadModels,
    RecentRow, RoomDeletion, RoomRow, Search, Snapshot, SqliteReadModels, State, TreeStore,
    UserRow,
};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub const ANNA: UserId = UserId::from_uuid(Uuid::from_u128(1));
pub const BELA: UserId = UserId::from_uuid(Uuid::from_u128(2));

pub fn room() -> RoomId {
    RoomId::derive(RoomType::ConsumerToConsumer, &[ANNA, BELA], 0)
}

/// Waits for `condition` to hold.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait)
        .await
        .unwrap_or_else(|_| panic!("not within 30 s: {what}"));
}

/// SQLite read models that can be made to fail, and remember what was asked of them.
pub struct Models {
    pub inner: SqliteReadModels,
    /// Everything fails as if they could not be reached.
    pub down: AtomicBool,
    /// How many calls failed for that reason.
    pub failures: AtomicU64,
    /// Batches that hold this text are refused.
    pub refused_text: Mutex<Option<String>>,
    /// Dead letters are refused if they have a payload.
    pub refuses_payloads: AtomicBool,
    /// Writing a batch waits while this is locked.
    pub gate: tokio::sync::Mutex<()>,
    /// How many batches wait or waited at the gate.
    pub at_gate: AtomicU64,
    /// The positions of all entries applied, in the order of the calls that succeeded.
    pub applied: Mutex<Vec<u64>>,
    pub letters: Mutex<Vec<DeadLetter>>,
}

impl Models {
    pub async fn open(directory: &TempDir) -> Arc<Self> {
        let inner = SqliteReadModels::open(&directory.path().join("read.db"))
            .await
            .unwrap();
        Arc::new(Self {
            inner,
            down: AtomicBool::new(false),
            failures: AtomicU64::new(0),
            refused_text: Mutex::new(None),
            refuses_payloads: AtomicBool::new(false),
            gate: tokio::sync::Mutex::new(()),
            at_gate: AtomicU64::new(0),
            applied: Mutex::new(Vec::new()),
            letters: Mutex::new(Vec::new()),
        })
    }

    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::SeqCst)
    }

    fn reached(&self) -> Result<(), ReadModelError> {
        if self.down.load(Ordering::SeqCst) {
            self.failures.fetch_add(1, Ordering::SeqCst);
            return Err(ReadModelError::Unavailable("switched off".to_owned()));
        }
        Ok(())
    }

    pub async fn position(&self) -> Option<u64> {
        let checkpoint = self.inner.checkpoint().await.unwrap();
        checkpoint.map(|checkpoint| checkpoint.position.get())
    }

    pub async fn reach(&self, position: u64) {
        eventually("the projection reaches its position", || async {
            self.position().await == Some(position)
        })
        .await;
        // The checkpoint is seen a moment before the call that wrote it has returned.
        drop(self.gate.lock().await);
    }

    pub async fn texts(&self) -> Vec<String> {
        let page = Page {
            start: PageStart::Number(0),
            limit: 100,
        };
        let found = self.inner.conversation(room(), page).await.unwrap();
        let rows = found.unwrap().messages;
        rows.into_iter().map(|row| row.text).collect()
    }
}

/// A catalogue with the models as its only generation.
pub struct Only(pub Arc<Models>);

#[async_trait]
impl Catalogue for Only {
    fn schema(&self) -> u32 {
        1
    }

    async fn prepare(&self) -> Result<(), ReadModelError> {
        self.0.reached()
    }

    async fn generations(&self) -> Result<Generations, ReadModelError> {
        self.0.reached()?;
        let only = Generation {
            number: 1,
            schema: 1,
            state: State::Live,
            note: None,
        };
        Ok(Generations {
            last: 1,
            all: vec![only],
        })
    }

    async fn add(&self, _: u32, _: State) -> Result<Option<Generation>, ReadModelError> {
        unreachable!("there is one")
    }

    async fn change(
        &self,
        _: u32,
        _: State,
        _: State,
        _: Option<&str>,
    ) -> Result<bool, ReadModelError> {
        unreachable!("there is no other")
    }

    async fn heartbeat(&self, _: u32) -> Result<Option<u64>, ReadModelError> {
        unreachable!("there is no other")
    }

    async fn remove(&self, _: u32) -> Result<(), ReadModelError> {
        unreachable!("there is no other")
    }

    async fn open(&self, _: u32) -> Result<Arc<dyn Projection>, ReadModelError> {
        Ok(self.0.clone())
    }

    fn tree(&self) -> Arc<dyn TreeStore> {
        unreachable!("projecting does not need the tree")
    }
}

#[async_trait]
impl Projection for Models {
    async fn lease(&self) -> Result<Lease, ReadModelError> {
        self.reached()?;
        self.inner.lease().await
    }

    async fn take_lease(&self, seen: Fence, holder: &str) -> Result<Option<Fence>, ReadModelError> {
        self.reached()?;
        self.inner.take_lease(seen, holder).await
    }

    async fn release_lease(&self, fence: Fence) -> Result<(), ReadModelError> {
        self.reached()?;
        self.inner.release_lease(fence).await
    }

    async fn prepare(&self) -> Result<(), ReadModelError> {
        self.reached()?;
        self.inner.prepare().await
    }

    async fn apply(&self, batch: &Batch) -> Result<(), ReadModelError> {
        self.at_gate.fetch_add(1, Ordering::SeqCst);
        let _open = self.gate.lock().await;
        self.reached()?;
        let refused = self.refused_text.lock().unwrap().clone();
        let holds_refused = batch.entries.iter().any(|entry| {
            matches!(&entry.envelope.event, Event::MessagePosted(post) if refused.is_some() && post.message_text == refused)
        });
        if holds_refused {
            return Err(ReadModelError::Refused("not to my taste".to_owned()));
        }
        self.inner.apply(batch).await?;
        let positions = batch.entries.iter().map(|entry| entry.position.get());
        self.applied.lock().unwrap().extend(positions);
        Ok(())
    }

    async fn heartbeat(&self, fence: Fence, lag: Option<Duration>) -> Result<(), ReadModelError> {
        self.reached()?;
        self.inner.heartbeat(fence, lag).await
    }

    async fn set_aside(&self, letter: &DeadLetter) -> Result<(), ReadModelError> {
        self.reached()?;
        if self.refuses_payloads.load(Ordering::SeqCst) && !letter.payload.is_empty() {
            return Err(ReadModelError::Refused("too large".to_owned()));
        }
        self.inner.set_aside(letter).await?;
        self.letters.lock().unwrap().push(letter.clone());
        Ok(())
    }

    async fn purge(&self) -> Result<(), ReadModelError> {
        self.reached()?;
        self.inner.purge().await
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, ReadModelError> {
        unreachable!("projectors don't query")
    }
}

#[async_trait]
impl ReadModels for Models {
    async fn checkpoint(&self) -> Result<Option<Checkpoint>, ReadModelError> {
        self.reached()?;
        self.inner.checkpoint().await
    }

    async fn dead_letters(&self, _: Position, _: u32) -> Result<Vec<DeadLetter>, ReadModelError> {
        unreachable!("projectors don't query")
    }

    async fn dead_letter_count(&self) -> Result<u64, ReadModelError> {
        self.reached()?;
        self.inner.dead_letter_count().await
    }

    async fn users(&self) -> Result<Vec<UserRow>, ReadModelError> {
        unreachable!("projectors don't query")
    }

    async fn users_by_id(&self, _: &[UserId]) -> Result<Vec<UserRow>, ReadModelError> {
        unreachable!("projectors don't query")
    }

    async fn room(&self, _: RoomId) -> Result<Option<RoomRow>, ReadModelError> {
        unreachable!("projectors don't query")
    }

    async fn recent(&self, _: UserId, _: Page) -> Result<Vec<RecentRow>, ReadModelError> {
        unreachable!("projectors don't query")
    }

    async fn conversation(
        &self,
        _: RoomId,
        _: Page,
    ) -> Result<Option<ConversationRow>, ReadModelError> {
        unreachable!("projectors don't query")
    }

    async fn search(&self, _: UserId, _: Search) -> Result<Vec<MessageRow>, ReadModelError> {
        unreachable!("projectors don't query")
    }

    async fn history(
        &self,
        _: RoomId,
        _: events::MessageId,
    ) -> Result<Option<HistoryRow>, ReadModelError> {
        unreachable!("projectors don't query")
    }

    async fn expirable(
        &self,
        _: events::RoomType,
        _: events::Timestamp,
        _: Option<RoomId>,
        _: u32,
    ) -> Result<Vec<(RoomId, events::MessageId)>, ReadModelError> {
        unreachable!("projectors don't query")
    }

    async fn oldest_unexpired(
        &self,
        _: RoomId,
    ) -> Result<Option<events::Timestamp>, ReadModelError> {
        unreachable!("projectors don't query")
    }

    async fn newly_read(&self, _: Position) -> Result<u64, ReadModelError> {
        unreachable!("projectors don't query")
    }

    async fn deleted_by(&self, _: events::MessageId, _: Position) -> Result<bool, ReadModelError> {
        unreachable!("projectors don't query")
    }

    async fn room_deletion(&self, _: RoomId) -> Result<Option<RoomDeletion>, ReadModelError> {
        unreachable!("projectors don't query")
    }

    async fn position_of_key(&self, _: Uuid) -> Result<Option<Position>, ReadModelError> {
        unreachable!("projectors don't query")
    }
}

/// A SQLite log that can be made unreachable.
pub struct Log {
    pub inner: SqliteLog,
    keyring: Keyring,
    pub down: AtomicBool,
    pub failures: AtomicU64,
    /// A follower that has delivered this many events loses its connection.
    pub breaks_after: AtomicU64,
    /// Followers are given nothing.
    pub silent: AtomicBool,
}

impl Log {
    pub async fn open(directory: &TempDir) -> Arc<Self> {
        let path = directory.path().join("log.db");
        Arc::new(Self {
            inner: SqliteLog::open(&path).await.unwrap(),
            keyring: Keyring::in_memory(),
            down: AtomicBool::new(false),
            failures: AtomicU64::new(0),
            breaks_after: AtomicU64::new(u64::MAX),
            silent: AtomicBool::new(false),
        })
    }

    /// The log with its keys.
    pub fn record(self: &Arc<Self>) -> Record {
        Record::new(self.clone(), self.keyring.clone())
    }

    /// An event as it would be appended.
    pub async fn sealed(&self, event: Event) -> NewEvent {
        let envelope = Envelope::new(event, None, None);
        self.keyring.seal(&envelope).await.unwrap()
    }

    fn reached(&self) -> Result<(), LogError> {
        if self.down.load(Ordering::SeqCst) {
            self.failures.fetch_add(1, Ordering::SeqCst);
            return Err(LogError::Unavailable("switched off".to_owned()));
        }
        Ok(())
    }

    pub async fn event(&self, event: Event) -> u64 {
        let sealed = self.sealed(event).await;
        let appended = self.inner.append(sealed, Expect::Any).await;
        appended.unwrap().position.get()
    }

    /// Anna (1), Bela (2) and their room (3).
    pub async fn a_room(&self) {
        for (user_id, name) in [(ANNA, "Anna"), (BELA, "Bela")] {
            self.event(Event::UserCreated(UserCreated {
                user_id,
                names: Some(Names::new(name, "")),
                user_type: UserType::Consumer,
            }))
            .await;
        }
        self.event(Event::RoomInitiated(RoomInitiated {
            room_id: room(),
            room_type: RoomType::ConsumerToConsumer,
            members: vec![ANNA, BELA],
            initiator: ANNA,
            generation: 0,
        }))
        .await;
    }

    pub async fn post(&self, text: &str) -> u64 {
        self.event(posted(text)).await
    }

    /// Many posts at once, in the order of their numbers or another.
    pub async fn posts(&self, count: u64) {
        let appends = (0..count).map(|number| self.post_number(number));
        futures::stream::iter(appends)
            .buffer_unordered(256)
            .collect::<Vec<_>>()
            .await;
    }

    async fn post_number(&self, number: u64) {
        self.post(&format!("number {number}")).await;
    }

    /// Bytes, whatever they are, in a subject.
    pub async fn bytes(&self, subject: Subject, payload: impl Into<Vec<u8>>) -> u64 {
        let event = NewEvent {
            subject,
            deduplication_id: Uuid::now_v7(),
            payload: payload.into().into(),
        };
        let appended = self.inner.append(event, Expect::Any).await;
        appended.unwrap().position.get()
    }
}

pub fn posted(text: &str) -> Event {
    Event::MessagePosted(MessagePosted {
        room_id: room(),
        author: ANNA,
        message_text: Some(text.to_owned()),
    })
}

#[async_trait]
impl EventLog for Log {
    async fn append(&self, event: NewEvent, expect: Expect) -> Result<Appended, LogError> {
        self.reached()?;
        self.inner.append(event, expect).await
    }

    async fn read(&self, filter: Filter, after: Position) -> Result<Events, LogError> {
        self.reached()?;
        self.inner.read(filter, after).await
    }

    async fn follow(&self, filter: Filter, after: Position) -> Result<Events, LogError> {
        self.reached()?;
        if self.silent.load(Ordering::SeqCst) {
            return Ok(futures::stream::pending().boxed());
        }
        let events = self.inner.follow(filter, after).await?;
        let breaks_after = self.breaks_after.swap(u64::MAX, Ordering::SeqCst);
        if breaks_after == u64::MAX {
            return Ok(events);
        }
        let lost = Err(LogError::Unavailable("connection lost".to_owned()));
        let broken = events
            .take(usize::try_from(breaks_after).unwrap())
            .chain(futures::stream::iter([lost]));
        Ok(broken.boxed())
    }

    async fn get(&self, position: Position) -> Result<Option<Recorded>, LogError> {
        self.reached()?;
        self.inner.get(position).await
    }

    async fn last_of(&self, subject: Subject) -> Result<Option<Recorded>, LogError> {
        self.reached()?;
        self.inner.last_of(subject).await
    }

    async fn tail(&self) -> Result<Tail, LogError> {
        self.reached()?;
        self.inner.tail().await
    }

    fn signals(&self) -> Arc<dyn Signals> {
        self.inner.signals()
    }

    async fn durability(&self) -> Result<Result<(), String>, LogError> {
        self.reached()?;
        self.inner.durability().await
    }
}

/// A running projector.
pub struct Projector {
    pub shutdown: CancellationToken,
    pub status: Status,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Projector {
    pub fn start(log: &Arc<Log>, models: &Arc<Models>) -> Self {
        Self::start_with(log, models, Duration::ZERO)
    }

    pub fn start_with(log: &Arc<Log>, models: &Arc<Models>, drain: Duration) -> Self {
        let shutdown = CancellationToken::new();
        let status = Status::default();
        let options = Options {
            record: log.record(),
            catalogue: Arc::new(Only(models.clone())),
            name: "the projector".to_owned(),
            only: None,
            progress: None,
            status: status.clone(),
            drain,
            retention: None,
            grace: projector::GRACE,
        };
        Self {
            running: tokio::spawn(projector::run(options, shutdown.clone())),
            shutdown,
            status,
        }
    }

    /// How it ended by itself.
    pub async fn ended(self) -> anyhow::Result<()> {
        tokio::time::timeout(Duration::from_secs(30), self.running)
            .await
            .expect("the projector does not end")
            .unwrap()
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        self.ended().await.unwrap();
    }
}
