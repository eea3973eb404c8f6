//! Writing to an engine without Hansard: acknowledged appends of payloads as large as Hansard's events, by as
//! many at once.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use async_nats::jetstream::{self, stream};
use bytes::Bytes;
use event_log::{EventLog, NewEvent, SqliteLog};
use events::{Expect, RoomId, RoomType, Subject, UserId};
use uuid::Uuid;
use xtask::cores::Cores;

use crate::load::Client;

/// The stream beside Hansard's own, and the subject that goes there.
const STREAM: &str = "BARE";
const SUBJECT: &str = "bare.room.timeline";

/// An engine to write to.
#[derive(Clone)]
pub enum Engine {
    /// An SQLite log of its own: what is waiting is committed together, with one sync to the disk.
    Sqlite(Arc<SqliteLog>),
    /// A JetStream stream of its own, on the server that Hansard's is on.
    JetStream(Arc<jetstream::Context>),
}

/// A client that appends the same payload again and again.
pub struct Appending {
    engine: Engine,
    subject: Subject,
    payload: Bytes,
}

impl Engine {
    /// A new SQLite log at `path`, whose writing thread is where the servers are.
    ///
    /// # Errors
    /// It can't be made.
    pub fn sqlite(path: &Path, cores: Cores) -> anyhow::Result<Self> {
        let path = path.to_owned();
        // The log's thread inherits its core from the one that it is opened on.
        let opening = cores.on_server_core(|| {
            Ok(std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build()?;
                anyhow::Ok(runtime.block_on(SqliteLog::open(&path))?)
            }))
        })?;
        let opened = opening
            .join()
            .map_err(|_| anyhow::anyhow!("opening the log panicked"))?;
        Ok(Self::Sqlite(Arc::new(opened?)))
    }

    /// A new stream on the nats-server at this address, with the settings of Hansard's that bear on speed.
    ///
    /// # Errors
    /// It can't be made.
    pub async fn jetstream(address: &str) -> anyhow::Result<Self> {
        let client = async_nats::connect(address)
            .await
            .with_context(|| format!("nats-server at {address}"))?;
        let context = jetstream::new(client);
        let config = stream::Config {
            name: STREAM.to_owned(),
            subjects: vec![SUBJECT.to_owned()],
            storage: stream::StorageType::File,
            allow_direct: true,
            ..stream::Config::default()
        };
        context
            .create_stream(config)
            .await
            .context("a stream can't be made")?;
        Ok(Self::JetStream(Arc::new(context)))
    }

    /// So many clients, whose payloads have this size.
    pub fn clients(&self, count: usize, payload_bytes: usize) -> Vec<Appending> {
        let payload = Bytes::from(vec![b'x'; payload_bytes]);
        let members = [UserId::random(), UserId::random()];
        let room = RoomId::derive(RoomType::ConsumerToConsumer, &members, 0);
        let client = || Appending {
            engine: self.clone(),
            subject: Subject::RoomTimeline(room),
            payload: payload.clone(),
        };
        std::iter::repeat_with(client).take(count).collect()
    }
}

impl Client for Appending {
    async fn request(&mut self) -> anyhow::Result<()> {
        match &self.engine {
            Engine::Sqlite(log) => {
                let event = NewEvent {
                    subject: self.subject,
                    // As events are numbered.
                    deduplication_id: Uuid::now_v7(),
                    payload: self.payload.clone(),
                };
                log.append(event, Expect::Any).await?;
            }
            Engine::JetStream(context) => {
                context
                    .publish(SUBJECT, self.payload.clone())
                    .await?
                    .await?;
            }
        }
        Ok(())
    }
}
