//! Keys in a bucket of NATS JetStream's key-value store, which is a stream: a subject for each slot, whose last
//! message is what is in it.
//!
//! JetStream drops a message that is replaced from its index, but leaves its bytes in the file for a while. Only
//! the deletion of a single message overwrites them (`STREAM.MSG.DELETE`), and only while the message is still
//! there. So the bucket keeps more than one message a subject; here what is replaced is deleted at once.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::HeaderValue;
use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_EXPECTED_STREAM};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{
    Compression, Config, DiscardPolicy, RetentionPolicy, StorageType,
};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use event_log::{NatsAddress, NatsConnection, jetstream_code as code};
use futures::{StreamExt, TryStreamExt, stream};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;

use crate::{Kept, KeyError, KeyStore, Listing, Slot, WrappedKey};

/// How long anything is tried.
const DEADLINE: Duration = Duration::from_secs(5);

/// The pause before something is tried again that the server was not ready for.
const PAUSE: Duration = Duration::from_millis(50);

/// How many messages a subject may have: the most that a bucket may be made for, and more than there ever are.
const HISTORY: i64 = 64;

/// How many keys are read at a time in a listing.
const AT_ONCE: usize = 64;

/// Keys in a bucket of JetStream's key-value store. Clones share the connection.
#[derive(Clone)]
pub struct JetStreamKeys {
    connection: NatsConnection,
    bucket: String,
    /// How many replicas a new bucket gets.
    replicas: usize,
    /// Whether this one has more than one.
    replicated: bool,
    hosts: String,
}

/// The answer to `STREAM.INFO`, as far as it matters here.
#[derive(Deserialize)]
struct StreamInfo {
    config: Config,
    state: StreamState,
    /// How many subjects there are, where they were asked for.
    #[serde(default)]
    total: usize,
}

#[derive(Deserialize)]
struct StreamState {
    #[serde(default)]
    subjects: std::collections::HashMap<String, u64>,
}

#[derive(Deserialize)]
struct Deleted {}

/// What is in a slot, as it is written.
#[derive(Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Written {
    Wrapped { master: String, sealed: String },
    Destroyed { destroyed: bool },
}

/// What is in a slot, and since which message.
struct Last {
    sequence: u64,
    kept: Kept,
}

impl JetStreamKeys {
    /// Connects to the servers, and creates the bucket that the address names if it does not exist. An existing
    /// one keeps its settings: replicas and placement are its operator's, who is told of too few replicas.
    ///
    /// # Errors
    /// [`KeyError::Unavailable`] when no server answers within a few seconds, or too few for a new bucket;
    /// [`KeyError::Unusable`] when the login is refused or the bucket is not fit for keys.
    pub async fn open(address: &NatsAddress) -> Result<Self, KeyError> {
        let mut keys = Self {
            connection: NatsConnection::open(address).await?,
            bucket: address.stream.clone(),
            replicas: address.replicas,
            replicated: address.replicas > 1,
            hosts: address.hosts(),
        };
        let config = match keys.info(json!({})).await? {
            Some(info) => info.config,
            None => keys.create().await?,
        };
        address.warn_of_replicas(&keys.stream(), config.num_replicas);
        keys.replicated = config.num_replicas > 1;
        match unfit(&config, &keys.subjects()) {
            None => Ok(keys),
            Some(reason) => Err(keys.unusable(&format!("the bucket {} {reason}", keys.bucket))),
        }
    }

    async fn create(&self) -> Result<Config, KeyError> {
        let config = Config {
            name: self.stream(),
            description: Some("the keys of a Hansard log".to_owned()),
            subjects: vec![self.subjects()],
            retention: RetentionPolicy::Limits,
            // Should an operator set a limit, new keys are refused rather than old ones dropped.
            discard: DiscardPolicy::New,
            storage: StorageType::File,
            num_replicas: self.replicas,
            max_messages_per_subject: HISTORY,
            deny_delete: false,
            ..Config::default()
        };
        tracing::info!(bucket = %self.bucket, "creating the bucket for keys");
        // Several processes may do this at once.
        let stream = self.stream();
        let creating = self.connection.create_stream(&stream, &config, deadline());
        match creating.await.map_err(KeyError::from) {
            Ok(StreamInfo { config, .. }) => Ok(config),
            Err(KeyError::Unusable(reason)) => {
                Err(self.unusable(&format!("the bucket {}: {reason}", self.bucket)))
            }
            Err(other) => Err(other),
        }
    }

    /// The stream's settings and state; `None` when there is no such stream.
    async fn info(&self, question: serde_json::Value) -> Result<Option<StreamInfo>, KeyError> {
        let (stream, question) = (self.stream(), question.to_string().into_bytes());
        let info = self.connection.stream_info(&stream, question, deadline());
        Ok(info.await?)
    }

    /// The first message of the stream that `query` asks for.
    async fn fetch(&self, query: serde_json::Value) -> Result<Option<StreamMessage>, KeyError> {
        let stream = self.stream();
        let message = self
            .connection
            .message(&stream, self.replicated, &query, deadline());
        Ok(message.await?)
    }

    async fn last(&self, slot: Slot) -> Result<Option<Last>, KeyError> {
        let query = json!({ "last_by_subj": self.subject(slot) });
        let Some(message) = self.fetch(query).await? else {
            return Ok(None);
        };
        let kept = read(&message.payload).ok_or_else(|| {
            self.unusable(&format!(
                "what is under {slot} in the bucket {} is no key",
                self.bucket
            ))
        })?;
        Ok(Some(Last {
            sequence: message.sequence,
            kept,
        }))
    }

    /// Writes to a slot whose last message is the one at `expected` (0: has none). `None` when it is another
    /// one, perhaps by an earlier try of the same.
    async fn write(&self, slot: Slot, kept: &Kept, expected: u64) -> Result<Option<u64>, KeyError> {
        let deadline = deadline();
        let subject = self.subject(slot);
        let payload = written(kept).to_string();
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_STREAM, self.stream().as_str());
        headers.insert(
            NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
            HeaderValue::from(expected),
        );
        loop {
            let (headers, payload) = (headers.clone(), payload.clone().into());
            let answer = self
                .connection
                .request(&subject, Some(headers), payload, deadline)
                .await?;
            let response: Response<PublishAck> = serde_json::from_slice(&answer.payload)
                .map_err(|error| self.unavailable(&error))?;
            let error = match response {
                Response::Ok(ack) => return Ok(Some(ack.sequence)),
                Response::Err { error } => error,
            };
            match error.error_code().0 {
                code::WRONG_LAST_SEQUENCE | code::WRONG_LAST_SEQUENCE_CONSTANT => return Ok(None),
                code::CLUSTER_NOT_AVAILABLE if Instant::now() + PAUSE < deadline => {
                    tokio::time::sleep(PAUSE).await;
                }
                _ => return Err(self.unavailable(&error)),
            }
        }
    }

    /// Overwrites whatever was in the slot before the message at `sequence`.
    async fn erase_before(&self, slot: Slot, sequence: u64) -> Result<(), KeyError> {
        let first = json!({ "seq": 1, "next_by_subj": self.subject(slot) });
        let request = format!("STREAM.MSG.DELETE.{}", self.stream());
        while let Some(message) = self.fetch(first.clone()).await?
            && message.sequence < sequence
        {
            // `no_erase: false`: with random bytes, on every replica.
            let erase = json!({ "seq": message.sequence, "no_erase": false });
            match self.api::<Deleted>(&request, &erase).await? {
                Response::Ok(Deleted {}) => {}
                // Another process may have done the same.
                Response::Err { error } => match self.fetch(first.clone()).await? {
                    Some(now) if now.sequence == message.sequence => {
                        return Err(self.unavailable(&error));
                    }
                    _ => {}
                },
            }
        }
        Ok(())
    }

    /// The slots from the `offset`th on, as many as the server tells at a time, and how many there are.
    async fn slots(&self, offset: usize) -> Result<(Vec<Slot>, usize), KeyError> {
        let question = json!({ "subjects_filter": self.subjects(), "offset": offset });
        let info = self.info(question).await?;
        let info = info.ok_or_else(|| self.gone())?;
        let prefix = self.prefix();
        let subjects = info.state.subjects.into_keys();
        let slots = subjects.map(|subject| {
            let name = subject.strip_prefix(&prefix).unwrap_or(&subject);
            name.parse()
        });
        Ok((slots.collect::<Result<_, _>>()?, info.total))
    }

    /// One request to the JetStream API.
    async fn api<T: DeserializeOwned>(
        &self,
        request: &str,
        payload: &impl Serialize,
    ) -> Result<Response<T>, KeyError> {
        let payload = serde_json::to_vec(payload).map_err(|error| self.unavailable(&error))?;
        Ok(self.connection.api(request, payload, deadline()).await?)
    }

    fn stream(&self) -> String {
        format!("KV_{}", self.bucket)
    }

    fn prefix(&self) -> String {
        format!("$KV.{}.", self.bucket)
    }

    fn subjects(&self) -> String {
        format!("{}>", self.prefix())
    }

    fn subject(&self, slot: Slot) -> String {
        format!("{}{slot}", self.prefix())
    }

    fn unavailable(&self, reason: &dyn std::fmt::Display) -> KeyError {
        KeyError::Unavailable(format!("{}: {reason}", self.hosts))
    }

    /// What it means that a server says that the bucket is not there: in a cluster nothing, as with the log.
    fn gone(&self) -> KeyError {
        if self.replicas > 1 {
            let reason = format!(
                "a server of the cluster knows of no bucket {} (yet)",
                self.bucket
            );
            return self.unavailable(&reason);
        }
        self.unusable(&format!("the bucket {} no longer exists", self.bucket))
    }

    fn unusable(&self, reason: &str) -> KeyError {
        KeyError::Unusable(format!("{}: {reason}", self.hosts))
    }
}

/// Until when what begins now is tried.
fn deadline() -> Instant {
    Instant::now() + DEADLINE
}

#[async_trait]
impl KeyStore for JetStreamKeys {
    async fn get(&self, slot: Slot) -> Result<Option<Kept>, KeyError> {
        Ok(self.last(slot).await?.map(|last| last.kept))
    }

    async fn insert(&self, slot: Slot, key: WrappedKey) -> Result<Kept, KeyError> {
        let kept = Kept::Wrapped(key);
        if self.write(slot, &kept, 0).await?.is_some() {
            return Ok(kept);
        }
        let last = self.last(slot).await?;
        let lost = || self.unavailable(&format!("what was under {slot} is gone"));
        last.map(|last| last.kept).ok_or_else(lost)
    }

    async fn replace(
        &self,
        slot: Slot,
        old: &WrappedKey,
        new: WrappedKey,
    ) -> Result<bool, KeyError> {
        let new = Kept::Wrapped(new);
        let old = Kept::Wrapped(old.clone());
        let sequence = loop {
            match self.last(slot).await? {
                // By an earlier try.
                Some(last) if last.kept == new => break last.sequence,
                Some(last) if last.kept == old => {
                    if let Some(sequence) = self.write(slot, &new, last.sequence).await? {
                        break sequence;
                    }
                }
                _ => return Ok(false),
            }
        };
        self.erase_before(slot, sequence).await?;
        Ok(true)
    }

    async fn destroy(&self, slot: Slot) -> Result<(), KeyError> {
        // The tombstone first: killed in between, this leaves what can be found and erased by the next try.
        let sequence = loop {
            let last = self.last(slot).await?;
            let expected = match last {
                Some(last) if last.kept == Kept::Destroyed => break last.sequence,
                Some(last) => last.sequence,
                None => 0,
            };
            if let Some(sequence) = self.write(slot, &Kept::Destroyed, expected).await? {
                break sequence;
            }
        };
        self.erase_before(slot, sequence).await
    }

    fn list(&self) -> Listing {
        let pages = stream::try_unfold((self.clone(), 0), |(keys, offset)| async move {
            let (slots, total) = keys.slots(offset).await?;
            let reached = offset + slots.len();
            if slots.is_empty() || offset >= total {
                return Ok::<_, KeyError>(None);
            }
            let reading = keys.clone();
            let items = stream::iter(slots)
                .map(move |slot| {
                    let keys = reading.clone();
                    async move { Ok((slot, keys.get(slot).await?)) }
                })
                .buffer_unordered(AT_ONCE)
                .try_filter_map(|(slot, kept)| async move { Ok(kept.map(|kept| (slot, kept))) });
            Ok(Some((items, (keys, reached))))
        });
        pages.try_flatten().boxed()
    }
}

pub(crate) fn written(kept: &Kept) -> serde_json::Value {
    let written = match kept {
        Kept::Wrapped(key) => Written::Wrapped {
            master: key.master.to_string(),
            sealed: BASE64.encode(&key.sealed),
        },
        Kept::Destroyed => Written::Destroyed { destroyed: true },
    };
    json!(written)
}

pub(crate) fn read(payload: &[u8]) -> Option<Kept> {
    match serde_json::from_slice(payload).ok()? {
        Written::Wrapped { master, sealed } => Some(Kept::Wrapped(WrappedKey {
            master: master.parse().ok()?,
            sealed: BASE64.decode(sealed).ok()?,
        })),
        Written::Destroyed { destroyed } => destroyed.then_some(Kept::Destroyed),
    }
}

/// Why a stream with these settings can't keep keys, if it can't.
fn unfit(config: &Config, subjects: &str) -> Option<String> {
    let reasons = [
        (
            config.subjects != [subjects],
            "is no bucket of the key-value store",
        ),
        (config.storage != StorageType::File, "is kept in memory"),
        (
            config.max_messages_per_subject == 1,
            "has a history of 1: a key that is replaced could not be overwritten; give it one of 64",
        ),
        (
            config.deny_delete,
            "denies the deletion of messages: no key could be destroyed; create one that does not",
        ),
        (
            !matches!(config.compression, None | Some(Compression::None)),
            "is compressed: a destroyed key could not be overwritten in place; create one that is not",
        ),
        (
            config.retention != RetentionPolicy::Limits
                || !config.max_age.is_zero()
                || (config.discard == DiscardPolicy::Old
                    && (config.max_messages > 0 || config.max_bytes > 0)),
            "would drop old keys: take its limits away",
        ),
        (config.sealed || config.no_ack, "takes no keys"),
        (config.mirror.is_some(), "is a mirror"),
    ];
    let reason = reasons.iter().find(|(unfit, _)| *unfit);
    reason.map(|(_, reason)| (*reason).to_owned())
}
