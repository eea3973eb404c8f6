//! Requests to the JetStream API, for the log and for what else is kept in streams on the same servers.

use std::time::Duration;

use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::RawMessage;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::cluster::{ClusterInfo, OfCluster};
use super::connection::Connection;
use crate::LogError;

/// The pause before something is asked again of which no leader tells for certain.
const NO_LEADER_PAUSE: Duration = Duration::from_millis(50);

/// Errors of the JetStream API (`server/errors.json` of nats-server), as far as they matter here.
pub mod code {
    #![allow(missing_docs)]
    /// Too few of a cluster's servers are there for as many replicas as were asked for.
    pub const NO_SUITABLE_PEERS: u64 = 10_005;
    pub const CLUSTER_NOT_AVAILABLE: u64 = 10_008;
    pub const NO_MESSAGE_FOUND: u64 = 10_037;
    pub const MESSAGE_EXCEEDS_MAXIMUM: u64 = 10_054;
    pub const STREAM_NOT_FOUND: u64 = 10_059;
    pub const NOT_THE_EXPECTED_STREAM: u64 = 10_060;
    pub const WRONG_LAST_SEQUENCE: u64 = 10_071;
    pub const DUPLICATE_IN_PROCESS: u64 = 10_158;
    /// Another message for the same subject is on its way through the replicas.
    pub const WRONG_LAST_SEQUENCE_CONSTANT: u64 = 10_164;
}

#[derive(Deserialize)]
struct Fetched {
    message: RawMessage,
}

/// The answer to `STREAM.INFO`, where nothing but who leads is wanted.
#[derive(Deserialize)]
struct Leadership {
    /// In a cluster.
    cluster: Option<ClusterInfo>,
}

impl OfCluster for Leadership {
    fn cluster(&self) -> Option<&ClusterInfo> {
        self.cluster.as_ref()
    }
}

impl Connection {
    /// One request to the JetStream API, which must bear repetition until `deadline`.
    ///
    /// # Errors
    /// As [`Self::request`]; [`LogError::Unavailable`] also for an answer that can't be read.
    pub async fn api<T: DeserializeOwned>(
        &self,
        request: &str,
        payload: Vec<u8>,
        deadline: Instant,
    ) -> Result<Response<T>, LogError> {
        let subject = format!("$JS.API.{request}");
        let answer = self
            .request(&subject, None, payload.into(), deadline)
            .await?;
        serde_json::from_slice(&answer.payload).map_err(|error| self.unavailable(&error))
    }

    /// What the server tells of a stream; `None` when there is no such stream.
    ///
    /// # Errors
    /// As [`Self::api`]; [`LogError::Unavailable`] also when the server refuses.
    pub async fn stream_info<T: DeserializeOwned>(
        &self,
        stream: &str,
        question: Vec<u8>,
        deadline: Instant,
    ) -> Result<Option<T>, LogError> {
        let request = format!("STREAM.INFO.{stream}");
        match self.api(&request, question, deadline).await? {
            Response::Ok(info) => Ok(Some(info)),
            Response::Err { error } if error.error_code().0 == code::STREAM_NOT_FOUND => Ok(None),
            Response::Err { error } => Err(self.unavailable(&error)),
        }
    }

    /// What the one server tells of a stream that knows everything acknowledged; `None` when there is no such stream.
    ///
    /// # Errors
    /// As [`Self::stream_info`]; [`LogError::Unavailable`] also when no leader tells for certain.
    pub(super) async fn leaders_info<T: DeserializeOwned + OfCluster>(
        &self,
        stream: &str,
        deadline: Instant,
    ) -> Result<Option<T>, LogError> {
        loop {
            let info: Option<T> = self.stream_info(stream, Vec::new(), deadline).await?;
            let checked = info
                .as_ref()
                .and_then(T::cluster)
                .map(ClusterInfo::check_leader);
            let Some(Err(reason)) = checked else {
                return Ok(info);
            };
            tracing::debug!(stream, %reason, "asking again who leads");
            if Instant::now() + NO_LEADER_PAUSE >= deadline {
                return Err(self.unavailable(&reason));
            }
            tokio::time::sleep(NO_LEADER_PAUSE).await;
        }
    }

    /// Creates a stream with the settings in `config`, as `STREAM.CREATE` takes them. The same again is no error.
    ///
    /// # Errors
    /// As [`Self::stream_info`]: a cluster may not be complete yet; [`LogError::Unusable`] when the server will
    /// have no such stream.
    pub async fn create_stream<T: DeserializeOwned>(
        &self,
        stream: &str,
        config: &impl Serialize,
        deadline: Instant,
    ) -> Result<T, LogError> {
        let config = serde_json::to_vec(config)
            .map_err(|error| LogError::Unusable(format!("its settings can't be sent: {error}")))?;
        let request = format!("STREAM.CREATE.{stream}");
        let error = match self.api(&request, config, deadline).await? {
            Response::Ok(info) => return Ok(info),
            Response::Err { error } => error,
        };
        match error.error_code().0 {
            code::NO_SUITABLE_PEERS | code::CLUSTER_NOT_AVAILABLE => Err(self.unavailable(&error)),
            _ => Err(LogError::Unusable(format!("it can't be created: {error}"))),
        }
    }

    /// The message of a stream that `query` asks for (a message get request), by the stream's leader, which alone
    /// is sure to know every acknowledged one.
    ///
    /// For some seconds a server that stood still, or that is cut off from the others, takes itself for the leader
    /// of a stream that `is_replicated`. So that there is no such message is believed only of one that certainly
    /// leads.
    ///
    /// # Errors
    /// As [`Self::stream_info`]; [`LogError::Unavailable`] also when no leader tells for certain.
    pub async fn message(
        &self,
        stream: &str,
        is_replicated: bool,
        query: &serde_json::Value,
        deadline: Instant,
    ) -> Result<Option<StreamMessage>, LogError> {
        let found = self.told_message(stream, query, deadline).await?;
        if found.is_some() || !is_replicated {
            return Ok(found);
        }
        // That there is no such stream is told when the message is asked for again.
        let _: Option<Leadership> = self.leaders_info(stream, deadline).await?;
        self.told_message(stream, query, deadline).await
    }

    /// The message, as whichever server tells of it that takes itself for the leader.
    async fn told_message(
        &self,
        stream: &str,
        query: &serde_json::Value,
        deadline: Instant,
    ) -> Result<Option<StreamMessage>, LogError> {
        let request = format!("STREAM.MSG.GET.{stream}");
        let query = query.to_string().into_bytes();
        match self.api::<Fetched>(&request, query, deadline).await? {
            Response::Ok(fetched) => StreamMessage::try_from(fetched.message)
                .map(Some)
                .map_err(|error| self.unavailable(&error)),
            Response::Err { error } if error.error_code().0 == code::NO_MESSAGE_FOUND => Ok(None),
            Response::Err { error } => Err(self.unavailable(&error)),
        }
    }
}
