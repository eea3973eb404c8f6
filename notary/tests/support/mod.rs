//! A log, a stored tree and a file of tree heads of a test's own, and a notary to run on them.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_log::testing::NatsServer;
use event_log::{EventLog, Expect, NewEvent, Position, SqliteLog};
use events::{Subject, UserId};
use merkle::{SigningKey, VerifyingKey, heads_of};
use notary::{Evidence, HeadsFile, LogReport, Options, Status, Tampering, Webhook, verify_log};
use read_models::testing::TestDatabase;
use read_models::{Catalogue, MongoCatalogue, SqliteCatalogue, TreeStore};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long something may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn position(number: u64) -> Position {
    Position::new(number)
}

pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed("test.example/log", [seed; 32]).unwrap()
}

/// An event's bytes mean nothing to a notary.
pub fn event(number: u64) -> NewEvent {
    NewEvent {
        subject: Subject::User(UserId::from_uuid(Uuid::from_u128(number.into()))),
        deduplication_id: Uuid::from_u128(number.into()),
        payload: format!("{{\"event\": {number}}}").into(),
    }
}

pub fn events(count: u64) -> Vec<NewEvent> {
    (1..=count).map(event).collect()
}

pub async fn fill(log: &dyn EventLog, events: Vec<NewEvent>) {
    for event in events {
        log.append(event, Expect::Any).await.unwrap();
    }
}

pub async fn sqlite_log(path: &Path) -> Arc<dyn EventLog> {
    Arc::new(SqliteLog::open(path).await.unwrap())
}

pub fn incarnation_of(path: &Path) -> String {
    let file = rusqlite::Connection::open(path).unwrap();
    let sql = "SELECT value FROM meta WHERE key = 'incarnation'";
    file.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// What a test runs on.
pub struct Stack {
    directory: TempDir,
    log: Option<Arc<dyn EventLog>>,
    store: Option<Arc<dyn TreeStore>>,
    server: Option<NatsServer>,
    database: Option<TestDatabase>,
}

pub async fn sqlite() -> Stack {
    let directory = tempfile::tempdir().unwrap();
    Stack {
        log: Some(sqlite_log(&directory.path().join("log.db")).await),
        store: Some(sqlite_store(&directory.path().join("read.db")).await),
        directory,
        server: None,
        database: None,
    }
}

/// JetStream and MongoDB; `None` where there are none.
pub async fn distributed() -> Option<Stack> {
    let (server, database) = (NatsServer::start()?, TestDatabase::new()?);
    let directory = tempfile::tempdir().unwrap();
    let log = event_log::open(&server.log_url(), directory.path()).await;
    let catalogue = MongoCatalogue::open(&database.url).await.unwrap();
    catalogue.prepare().await.unwrap();
    Some(Stack {
        directory,
        log: Some(log.unwrap()),
        store: Some(catalogue.tree()),
        server: Some(server),
        database: Some(database),
    })
}

async fn sqlite_store(path: &Path) -> Arc<dyn TreeStore> {
    SqliteCatalogue::open(path).await.unwrap().tree()
}

/// A log with its tree.
pub struct Case {
    stack: Stack,
    pub keys: Vec<SigningKey>,
    pub webhook: Option<Webhook>,
    pub every_events: u64,
    pub every: Duration,
}

impl Case {
    /// Signs every hundred events, and at once when it is stopped.
    pub fn new(stack: Stack) -> Self {
        Self {
            stack,
            keys: vec![key(1)],
            webhook: None,
            every_events: 100,
            every: Duration::from_secs(600),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.stack.directory.path().join(name)
    }

    pub fn server(&self) -> &NatsServer {
        self.stack.server.as_ref().unwrap()
    }

    pub fn log(&self) -> Arc<dyn EventLog> {
        Arc::clone(self.stack.log.as_ref().expect("the log is open"))
    }

    pub fn store(&self) -> Arc<dyn TreeStore> {
        Arc::clone(self.stack.store.as_ref().expect("the store is open"))
    }

    pub fn set_log(&mut self, log: Arc<dyn EventLog>) {
        self.stack.log = Some(log);
    }

    /// Closes the files for them to be changed.
    pub fn close(&mut self) {
        self.stack.log = None;
        self.stack.store = None;
    }

    /// Opens the files again.
    pub async fn open(&mut self) {
        self.stack.log = Some(sqlite_log(&self.path("log.db")).await);
        self.stack.store = Some(sqlite_store(&self.path("read.db")).await);
    }

    /// Appends so many events more.
    pub async fn append(&self, count: u64) {
        let last = self.log().tail().await.unwrap().last.get();
        // Others than any there were before.
        let begin = last + Uuid::new_v4().as_fields().0 as u64 * 1_000_000;
        let numbers = match last {
            0 => 1..=count,
            _ => begin..=begin + count - 1,
        };
        fill(self.log().as_ref(), numbers.map(event).collect()).await;
    }

    pub fn file(&self) -> HeadsFile {
        HeadsFile::new(self.path("tree-heads"))
    }

    pub fn start(&self, status: Status) -> Running {
        let options = Options {
            log: self.log(),
            store: self.store(),
            keys: self.keys.clone(),
            file: self.file(),
            webhook: self.webhook.clone(),
            every_events: self.every_events,
            every: self.every,
            status,
            drain: Duration::from_secs(5),
        };
        let stop = CancellationToken::new();
        Running {
            task: tokio::spawn(notary::keep(options, stop.clone())),
            stop,
        }
    }

    /// Runs a notary until it has signed the tree of this size.
    pub async fn keep_until_signed(&self, size: u64) {
        let status = Status::default();
        let running = self.start(status.clone());
        until("all is hashed", || {
            assert_eq!(status.tampering(), None);
            status.size() == size
        })
        .await;
        running.stop().await;
        assert_eq!(status.signed(), Some(size));
    }

    /// Runs a notary until it has found something wrong.
    pub async fn keep_until_stopped(&self) -> Tampering {
        let status = Status::default();
        let running = self.start(status.clone());
        until("something is found wrong", || status.tampering().is_some()).await;
        running.stop().await;
        status.tampering().unwrap()
    }

    /// Runs a notary until it has begun, and says what it found wrong.
    pub async fn keep_for_a_look(&self) -> Option<Tampering> {
        let status = Status::default();
        let running = self.start(status.clone());
        until("it has begun", || {
            status.size() > 0 || status.tampering().is_some()
        })
        .await;
        running.stop().await;
        status.tampering()
    }

    fn public(&self) -> Vec<VerifyingKey> {
        self.keys.iter().map(|key| key.public().clone()).collect()
    }

    pub async fn verify(&self) -> LogReport {
        let (log, store) = (self.log(), self.store());
        let evidence = Evidence {
            store: Some(store.as_ref()),
            heads: Vec::new(),
            keys: self.public(),
            progress: &|_, _| {},
        };
        verify_log(log.as_ref(), evidence).await.unwrap()
    }

    /// With the tree heads of the file alone.
    pub async fn verify_by_file(&self) -> LogReport {
        let text = std::fs::read_to_string(self.path("tree-heads")).unwrap();
        let heads = heads_of(&text).map(|note| (note, "tree-heads".to_owned()));
        let evidence = Evidence {
            store: None,
            heads: heads.collect(),
            keys: self.public(),
            progress: &|_, _| {},
        };
        verify_log(self.log().as_ref(), evidence).await.unwrap()
    }

    /// Every stored tree head.
    pub async fn heads(&self) -> Vec<String> {
        let store = self.store();
        match store.newest().await.unwrap() {
            Some(kept) => store.heads(kept.number, 0, 10_000).await.unwrap(),
            None => Vec::new(),
        }
    }
}

/// A running notary.
pub struct Running {
    task: JoinHandle<()>,
    pub stop: CancellationToken,
}

impl Running {
    /// Stops it in order.
    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    /// Ends it like a crash.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// Waits for a condition.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
