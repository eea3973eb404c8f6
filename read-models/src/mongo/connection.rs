//! The connection to the database, and how operations are run on it.

use std::sync::Arc;
use std::time::Duration;

use mongodb::bson::{Document, from_document, to_document};
use mongodb::options::{ClientOptions, ReadConcern, WriteConcern};
use mongodb::{Client, Database};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use super::failure;
use crate::ReadModelError;

/// How long to look for a server: short, so that queries fail fast while there is none.
const SERVER_SELECTION: Duration = Duration::from_secs(2);

/// Connections to each server. The driver's default is 10.
const CONNECTIONS: u32 = 64;

/// Connections kept open, so that a burst does not wait for them to be made.
const WARM_CONNECTIONS: u32 = 8;

/// Operations at the same time. While a server hangs, those that were given up still wait for it.
const OPERATIONS: usize = 256;

/// A database, with the connections to its servers. Clones share them.
#[derive(Clone)]
pub(super) struct Connection {
    database: Database,
    /// As a command that is not the driver's own must state them.
    write_concern: Document,
    read_concern: Document,
    operations: Arc<Semaphore>,
}

impl Connection {
    /// To the database at `url`, a connection string that names it. Does no I/O (except that
    /// `mongodb+srv` is looked up): servers are contacted in the background and when needed.
    ///
    /// # Errors
    /// [`ReadModelError::Unusable`] when `url` is not such a connection string.
    pub(super) async fn open(url: &str) -> Result<Self, ReadModelError> {
        // The driver's message may quote the password.
        let mut options = ClientOptions::parse(url).await.map_err(|_| {
            ReadModelError::Unusable("their URL is not a MongoDB connection string".to_owned())
        })?;
        let name = options.default_database.clone().ok_or_else(|| {
            ReadModelError::Unusable(
                "their URL names no database: use mongodb://HOST[:PORT]/DATABASE".to_owned(),
            )
        })?;
        options.app_name.get_or_insert_with(|| "hansard".to_owned());
        options
            .server_selection_timeout
            .get_or_insert(SERVER_SELECTION);
        options.connect_timeout.get_or_insert(SERVER_SELECTION);
        options.max_pool_size.get_or_insert(CONNECTIONS);
        options.min_pool_size.get_or_insert(WARM_CONNECTIONS);
        options.max_connecting.get_or_insert(WARM_CONNECTIONS);
        // What has been projected stays projected when a replica set elects another primary. A standalone
        // server takes these too.
        let read_concern = options
            .read_concern
            .get_or_insert(ReadConcern::majority())
            .clone();
        let write_concern = options
            .write_concern
            .get_or_insert(WriteConcern::majority())
            .clone();
        let unusable = |error| ReadModelError::Unusable(format!("their URL: {error}"));
        let write_concern = to_document(&write_concern).map_err(unusable)?;
        let read_concern = to_document(&read_concern).map_err(unusable)?;
        let database = Client::with_options(options)
            .map_err(failure)?
            .database(&name);
        Ok(Self {
            database,
            write_concern,
            read_concern,
            operations: Arc::new(Semaphore::new(OPERATIONS)),
        })
    }

    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    pub(super) fn write_concern(&self) -> &Document {
        &self.write_concern
    }

    /// The answer to a command that only reads and is not the driver's own. Is repeated once, as the driver does with
    /// its own: the server may have failed, and another one be found.
    pub(super) async fn read(&self, mut command: Document) -> Result<Document, ReadModelError> {
        command.insert("readConcern", self.read_concern.clone());
        let run = || {
            let run = self.database.run_command(command.clone());
            match self.database.selection_criteria() {
                Some(criteria) => run.selection_criteria(criteria.clone()),
                None => run,
            }
        };
        match run().await {
            Ok(answer) => Ok(answer),
            Err(_) => run().await.map_err(failure),
        }
    }

    /// Runs an operation to its end, and waits for it no longer than `limit`.
    ///
    /// It runs in a task of its own because a driver future that is dropped midway can leave a connection
    /// in the middle of an answer.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        limit: Duration,
        operation: impl Future<Output = Result<T, ReadModelError>> + Send + 'static,
    ) -> Result<T, ReadModelError> {
        let late = |_| ReadModelError::Unavailable(format!("no answer within {limit:?}"));
        let deadline = tokio::time::Instant::now() + limit;
        let permit = Arc::clone(&self.operations).acquire_owned();
        let permit = tokio::time::timeout_at(deadline, permit)
            .await
            .map_err(late)?;
        let task = tokio::spawn(async move {
            let _permit = permit;
            operation.await
        });
        tokio::time::timeout_at(deadline, task)
            .await
            .map_err(late)?
            .unwrap_or_else(|error| {
                Err(ReadModelError::Unavailable(format!(
                    "an operation ended early: {error}"
                )))
            })
    }
}

/// What the server replied to a command that is not the driver's own.
pub(super) fn reply<T: DeserializeOwned>(reply: Document) -> Result<T, ReadModelError> {
    from_document(reply).map_err(|error| ReadModelError::Unavailable(error.to_string()))
}
