//! The log in a NATS JetStream stream, for deployments that outgrow one machine.
//!
//! Positions are the stream's sequence numbers. A lost acknowledgement is never taken for a failure: the
//! same message is sent again with the same message id, and a conflict is looked into before it is
//! reported.

pub mod api;
mod cluster;
mod connection;
mod delivery;
mod monitor;
mod signals;

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, PersistenceMode, RetentionPolicy, StorageType,
};
use async_nats::{HeaderMap, HeaderValue};
use async_trait::async_trait;
use bytes::Bytes;
use events::{Expect, Position, RoomId, Subject, Timestamp};
use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::rooms::RoomSet;
use crate::{
    Appended, EventLog, Events, ExpectText, Filter, Incarnation, LogError, NatsAddress, NewEvent,
    Recorded, Signals, Tail, append_measured,
};
use api::code;
use cluster::{ClusterInfo, OfCluster};
use connection::Connection;
use delivery::Delivery;
use signals::NatsSignals;

pub use connection::Connection as NatsConnection;

/// Every subject of the log.
const SUBJECTS: &str = "chat.>";

/// For how long the server recognises a repeated message id; also what it remembers again after a
/// restart. Later repetitions are found by actor and idempotency key in the read models.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// How long an append is tried before it is reported as unavailable.
const APPEND_DEADLINE: Duration = Duration::from_secs(5);

/// How long anything else is tried.
const READ_DEADLINE: Duration = Duration::from_secs(3);

/// The pause before an append that the server was not ready for is sent again.
const NOT_READY_PAUSE: Duration = Duration::from_millis(50);

/// Names the subject that an expectation is of, where it is not the event's own (since server 2.12).
const EXPECTED_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";

/// How long a read waits for the next event before it looks whether there is one.
const END_CHECK: Duration = Duration::from_secs(1);

/// How many reads one log of this process has under way at most, with a consumer on the server each: when
/// many clients come back at once, the server must not be asked for everything at once.
const CONCURRENT_READS: usize = 64;

/// Up to how many rooms the server picks the events; for more this side reads everything and picks. A
/// server's consumer with filters takes about 1.2 ms for each event that it picks; to send everything
/// takes less than 20 µs an event. Measured with 200,000 events of 2,000 rooms on nats-server 2.15, from the
/// beginning: 1 room 0.16 s, 10 rooms 1.3 s, 30 rooms 3.4 s, 100 rooms 12 s, and everything 3.4 s.
const ROOMS_PICKED_BY_SERVER: usize = 30;

/// The log in a JetStream stream.
#[derive(Clone)]
pub struct JetStreamLog {
    address: NatsAddress,
    connection: Connection,
    /// Whether the stream has more than one replica.
    replicated: bool,
    /// Whether a direct get is as good as asking the stream's leader: with one replica only.
    direct: bool,
    /// The reads that may begin, [`CONCURRENT_READS`] of them.
    reads: Arc<Semaphore>,
}

/// The answer to `STREAM.INFO` and `STREAM.CREATE`, as far as it matters here.
#[derive(Deserialize)]
struct StreamInfo {
    /// As the server writes it: compared, never calculated with.
    created: String,
    config: Config,
    state: StreamState,
    /// In a cluster.
    cluster: Option<ClusterInfo>,
}

impl OfCluster for StreamInfo {
    fn cluster(&self) -> Option<&ClusterInfo> {
        self.cluster.as_ref()
    }
}

#[derive(Deserialize)]
struct StreamState {
    last_seq: u64,
}

impl JetStreamLog {
    /// Connects to the servers, and creates the stream if it does not exist. An existing stream keeps
    /// its settings: replicas and placement are its operator's, who is told of too few replicas.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] when no server answers within a few seconds, or too few for a new stream;
    /// [`LogError::Unusable`] when the login is refused or the stream is not fit to be a log.
    pub async fn open(address: &NatsAddress) -> Result<Self, LogError> {
        let connection = Connection::open(address).await?;
        let mut log = Self {
            address: address.clone(),
            connection,
            replicated: false,
            direct: false,
            reads: Arc::new(Semaphore::new(CONCURRENT_READS)),
        };
        let info = match log.info().await? {
            Some(info) => info,
            None => log.create().await?,
        };
        if let Some(reason) = unfit(&info.config) {
            return Err(LogError::Unusable(format!(
                "the stream {} at {} {reason}",
                address.stream,
                address.hosts()
            )));
        }
        address.warn_of_replicas(&address.stream, info.config.num_replicas);
        log.replicated = info.config.num_replicas > 1;
        log.direct = info.config.allow_direct && !log.replicated;
        Ok(log)
    }

    async fn create(&self) -> Result<StreamInfo, LogError> {
        let stream = &self.address.stream;
        let config = Config {
            name: stream.clone(),
            subjects: vec![SUBJECTS.to_owned()],
            retention: RetentionPolicy::Limits,
            // There are no limits; should an operator set one, new events are refused rather than old
            // ones dropped.
            discard: DiscardPolicy::New,
            storage: StorageType::File,
            num_replicas: self.address.replicas,
            duplicate_window: DUPLICATE_WINDOW,
            allow_direct: true,
            // Denying deletion can't be undone on a stream, and whether erasure deletes messages or
            // destroys keys has not been decided.
            deny_delete: false,
            deny_purge: false,
            ..Config::default()
        };
        tracing::info!(%stream, replicas = config.num_replicas, "creating the stream");
        // Several processes may do this at once.
        let deadline = Instant::now() + READ_DEADLINE;
        let created = self.connection.create_stream(stream, &config, deadline);
        created.await.map_err(|error| match error {
            LogError::Unusable(reason) => LogError::Unusable(format!(
                "the stream {stream} at {}: {reason}",
                self.address.hosts()
            )),
            other => other,
        })
    }

    /// The stream's settings and state; `None` when there is no such stream.
    async fn info(&self) -> Result<Option<StreamInfo>, LogError> {
        let deadline = Instant::now() + READ_DEADLINE;
        self.connection
            .stream_info(&self.address.stream, Vec::new(), deadline)
            .await
    }

    async fn existing_info(&self) -> Result<StreamInfo, LogError> {
        let info = self.info().await?;
        info.ok_or_else(|| self.gone())
    }

    /// What it means that a server says that the stream is not there. One of a cluster may say so of a stream that
    /// has just been created: when the others have taken the lead of the cluster from it, or it has just taken it
    /// from them.
    fn gone(&self) -> LogError {
        let NatsAddress { stream, .. } = &self.address;
        if self.address.replicas > 1 {
            let reason = format!("a server of the cluster knows of no stream {stream} (yet)");
            return self.connection.unavailable(&reason);
        }
        let hosts = self.address.hosts();
        LogError::Unusable(format!("the stream {stream} no longer exists at {hosts}"))
    }

    /// The stream's settings and state, by the one server that knows every acknowledged append.
    async fn leaders_info(&self) -> Result<StreamInfo, LogError> {
        let deadline = Instant::now() + READ_DEADLINE;
        let stream = &self.address.stream;
        let info = self.connection.leaders_info(stream, deadline).await?;
        info.ok_or_else(|| self.gone())
    }

    /// One message of the stream, read by `query` (a message get request of the JetStream API). `latest`
    /// asks the stream's leader, which alone is sure to know every acknowledged append.
    async fn fetch(
        &self,
        query: serde_json::Value,
        latest: bool,
    ) -> Result<Option<StreamMessage>, LogError> {
        let stream = &self.address.stream;
        let deadline = Instant::now() + READ_DEADLINE;
        if latest || !self.direct {
            let message = self
                .connection
                .message(stream, self.replicated, &query, deadline);
            return message.await;
        }
        let payload = query.to_string().into_bytes();
        let subject = format!("$JS.API.DIRECT.GET.{stream}");
        let answer = self
            .connection
            .request(&subject, None, payload.into(), deadline)
            .await?;
        match answer.status {
            None => StreamMessage::try_from(answer)
                .map(Some)
                .map_err(|error| self.connection.unavailable(&error)),
            Some(async_nats::StatusCode::NOT_FOUND) => Ok(None),
            Some(status) => Err(self.connection.unavailable(&format!(
                "{status} {}",
                answer.description.unwrap_or_default()
            ))),
        }
    }

    /// Sends the event until there is an answer, at most until the deadline.
    async fn publish(&self, event: &NewEvent, expect: Expect) -> Result<Appended, LogError> {
        let deadline = Instant::now() + APPEND_DEADLINE;
        let subject = event.subject.to_string();
        let headers = self.headers(event, expect);
        loop {
            let answer = self
                .connection
                .request(
                    &subject,
                    Some(headers.clone()),
                    event.payload.clone(),
                    deadline,
                )
                .await?;
            let response: Response<PublishAck> = serde_json::from_slice(&answer.payload)
                .map_err(|error| self.connection.unavailable(&error))?;
            let error = match response {
                Response::Ok(ack) => {
                    return Ok(Appended {
                        position: Position::new(ack.sequence),
                        duplicate: ack.duplicate,
                    });
                }
                Response::Err { error } => error,
            };
            match error.error_code().0 {
                code::WRONG_LAST_SEQUENCE | code::WRONG_LAST_SEQUENCE_CONSTANT => {
                    return self.conflict(event, expect).await;
                }
                code::MESSAGE_EXCEEDS_MAXIMUM => {
                    let size = event.payload.len();
                    return Err(LogError::TooLarge { size });
                }
                code::NOT_THE_EXPECTED_STREAM => {
                    return Err(LogError::Unusable(format!(
                        "another stream than {} takes its subjects: {error}",
                        self.address.stream
                    )));
                }
                // What the server says while a leader is elected, or while a first try of the same
                // message is still under way.
                code::CLUSTER_NOT_AVAILABLE | code::DUPLICATE_IN_PROCESS
                    if Instant::now() + NOT_READY_PAUSE < deadline =>
                {
                    tokio::time::sleep(NOT_READY_PAUSE).await;
                }
                _ => return Err(self.connection.unavailable(&error)),
            }
        }
    }

    fn headers(&self, event: &NewEvent, expect: Expect) -> HeaderMap {
        use async_nats::header;
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_MESSAGE_ID, message_id(event).as_str());
        headers.insert(header::NATS_EXPECTED_STREAM, self.address.stream.as_str());
        let expected = match expect {
            Expect::Any => None,
            Expect::Empty => Some(0),
            Expect::Exact(position) | Expect::Beside(_, position) => Some(position.get()),
        };
        if let Expect::Beside(other, _) = expect {
            headers.insert(EXPECTED_SUBJECT, other.to_string().as_str());
        }
        if let Some(expected) = expected {
            headers.insert(
                header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
                HeaderValue::from(expected),
            );
        }
        headers
    }

    /// What a conflict means: a server with one replica checks the expectation before the message id, so
    /// the subject may have changed by this very event, on an earlier try whose acknowledgement was lost.
    /// Then it is the first one after what was expected, or, where another subject was expected to be somewhere,
    /// the last one of its own.
    async fn conflict(&self, event: &NewEvent, expect: Expect) -> Result<Appended, LogError> {
        let subject = event.subject.to_string();
        let first_after =
            |expected: Position| json!({ "seq": expected.next().get(), "next_by_subj": subject });
        let query = match expect {
            Expect::Any | Expect::Empty => first_after(Position::ZERO),
            Expect::Exact(position) => first_after(position),
            // Others may have appended to this one at any time.
            Expect::Beside(..) => json!({ "last_by_subj": subject }),
        };
        let found = self.fetch(query, true).await?;
        let own = found.filter(|found| {
            let id = found.headers.get(async_nats::header::NATS_MESSAGE_ID);
            id.is_some_and(|id| id.as_str() == message_id(event))
        });
        match own {
            Some(own) => Ok(Appended {
                position: Position::new(own.sequence),
                duplicate: true,
            }),
            None => Err(LogError::Conflict(ExpectText(expect))),
        }
    }

    /// The position of the next event after `after` that matches. (The server's "last by subject" is no
    /// help with wildcards: it finds nothing when the stream's last message has been deleted.)
    async fn next_matching(
        &self,
        selection: &Selection,
        after: Position,
    ) -> Result<Option<Position>, LogError> {
        let everything = [">".to_owned()];
        let subjects = match selection.subjects.as_slice() {
            [] => &everything,
            subjects => subjects,
        };
        let next = subjects.iter().map(|subject| {
            let query = json!({ "seq": after.next().get(), "next_by_subj": subject });
            self.fetch(query, true)
        });
        let next = try_join_all(next).await?;
        let next = next.iter().flatten().map(|message| message.sequence).min();
        Ok(next.map(Position::new))
    }

    /// Begins a delivery, which counts as a read for as long as it has a `turn`.
    async fn deliver(
        &self,
        selection: &Selection,
        after: Position,
        turn: Option<OwnedSemaphorePermit>,
    ) -> Result<Delivery, LogError> {
        let subjects = selection.subjects.clone();
        let stream = &self.address.stream;
        Delivery::start(&self.connection, stream, subjects, after, turn).await
    }
}

#[async_trait]
impl EventLog for JetStreamLog {
    async fn append(&self, event: NewEvent, expect: Expect) -> Result<Appended, LogError> {
        append_measured(&event, self.publish(&event, expect)).await
    }

    async fn read(&self, filter: Filter, after: Position) -> Result<Events, LogError> {
        let selection = Selection::of(&filter);
        if selection.is_empty() {
            return Ok(stream::empty().boxed());
        }
        let reading = Reading {
            up_to: self.tail().await?.last,
            log: self.clone(),
            selection,
            after,
        };
        // The semaphore is never closed.
        let turn = Arc::clone(&self.reads).acquire_owned().await.ok();
        if reading.is_complete().await? {
            return Ok(stream::empty().boxed());
        }
        let delivery = self.deliver(&reading.selection, after, turn).await?;
        let rooms = reading.selection.rooms.clone();
        Ok(only(rooms, reading.events(delivery)))
    }

    async fn follow(&self, filter: Filter, after: Position) -> Result<Events, LogError> {
        let selection = Selection::of(&filter);
        if selection.is_empty() {
            return Ok(stream::pending().boxed());
        }
        let delivery = self.deliver(&selection, after, None).await?;
        Ok(only(selection.rooms, delivery.events()))
    }

    async fn get(&self, position: Position) -> Result<Option<Recorded>, LogError> {
        if position == Position::ZERO {
            return Ok(None);
        }
        let message = self.fetch(json!({ "seq": position.get() }), false).await?;
        Ok(message.map(recorded))
    }

    async fn last_of(&self, subject: Subject) -> Result<Option<Recorded>, LogError> {
        let query = json!({ "last_by_subj": subject.to_string() });
        Ok(self.fetch(query, false).await?.map(recorded))
    }

    async fn tail(&self) -> Result<Tail, LogError> {
        let info = self.leaders_info().await?;
        Ok(Tail {
            incarnation: Incarnation(format!("{}@{}", self.address.stream, info.created)),
            last: Position::new(info.state.last_seq),
        })
    }

    async fn durability(&self) -> Result<Result<(), String>, LogError> {
        let config = self.existing_info().await?.config;
        if config.storage != StorageType::File {
            return Ok(Err("the stream is kept in memory".to_owned()));
        }
        if config.persist_mode == Some(PersistenceMode::Async) {
            let reason = "the stream's persist_mode is async: it acknowledges before it writes";
            return Ok(Err(reason.to_owned()));
        }
        monitor::syncs_always(&self.address, &self.connection.server_id()).await
    }

    fn signals(&self) -> Arc<dyn Signals> {
        Arc::new(NatsSignals::new(self))
    }
}

fn message_id(event: &NewEvent) -> String {
    event.deduplication_id.simple().to_string()
}

/// A read that ends.
struct Reading {
    log: JetStreamLog,
    selection: Selection,
    /// The position of the last event seen.
    after: Position,
    up_to: Position,
}

impl Reading {
    /// The events up to and with the end, for as long as there are any: those at the end may not match,
    /// or have been deleted.
    fn events(self, delivery: Delivery) -> Events {
        stream::unfold(Some((self, delivery)), |state| async {
            let (mut reading, mut delivery) = state?;
            match reading.next(&mut delivery).await {
                Ok(None) => None,
                Ok(Some(event)) => Some((Ok(event), Some((reading, delivery)))),
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }

    async fn next(&mut self, delivery: &mut Delivery) -> Result<Option<Recorded>, LogError> {
        if self.after >= self.up_to || (delivery.seems_complete() && self.is_complete().await?) {
            return Ok(None);
        }
        loop {
            if let Ok(event) = timeout(END_CHECK, delivery.next()).await {
                let event = event?;
                self.after = event.position;
                return Ok((event.position <= self.up_to).then_some(event));
            }
            if self.is_complete().await? {
                return Ok(None);
            }
        }
    }

    async fn is_complete(&self) -> Result<bool, LogError> {
        if self.after >= self.up_to {
            return Ok(true);
        }
        let next = self.log.next_matching(&self.selection, self.after).await?;
        Ok(next.is_none_or(|next| next > self.up_to))
    }
}

/// What to ask the server for, and what this side drops of the answer.
struct Selection {
    /// The subjects to ask for; none for all.
    subjects: Vec<String>,
    /// The rooms to keep, where the server sends more than what matches.
    rooms: Option<RoomSet>,
}

impl Selection {
    fn of(filter: &Filter) -> Self {
        match filter {
            Filter::All => Self::subjects(Vec::new()),
            Filter::Lifecycles => Self::subjects(vec![
                "chat.user.*".to_owned(),
                "chat.room.*.lifecycle".to_owned(),
            ]),
            Filter::Holds => Self::subjects(vec!["chat.room.*.hold".to_owned()]),
            Filter::User(user) => Self::subjects(vec![Subject::User(*user).to_string()]),
            Filter::Room(room) => Self::rooms(&[*room]),
            Filter::Rooms(rooms) => Self::rooms(rooms),
        }
    }

    fn subjects(subjects: Vec<String>) -> Self {
        Self {
            subjects,
            rooms: None,
        }
    }

    fn rooms(rooms: &[RoomId]) -> Self {
        let rooms = RoomSet::new(rooms);
        let subjects = if rooms.len() > ROOMS_PICKED_BY_SERVER {
            Vec::new()
        } else {
            // One subject a room instead of each of its four: half the server's work. What else there may be in a
            // room is dropped here.
            rooms
                .iter()
                .map(|room| format!("chat.room.{room}.*"))
                .collect()
        };
        Self {
            subjects,
            rooms: Some(rooms),
        }
    }

    /// Whether nothing matches.
    fn is_empty(&self) -> bool {
        self.rooms.as_ref().is_some_and(|rooms| rooms.len() == 0)
    }
}

/// Drops what belongs to other rooms than these, if there are any.
fn only(rooms: Option<RoomSet>, events: Events) -> Events {
    match rooms {
        None => events,
        Some(rooms) => events
            .try_filter(move |event| std::future::ready(rooms.has(&event.subject)))
            .boxed(),
    }
}

fn recorded(message: StreamMessage) -> Recorded {
    Recorded {
        position: Position::new(message.sequence),
        subject: message.subject.to_string(),
        stored_at: timestamp(message.time.unix_timestamp_nanos()),
        payload: Bytes::clone(&message.payload),
    }
}

/// The log's clock, in nanoseconds since 1970, as a timestamp.
fn timestamp(nanoseconds: i128) -> Timestamp {
    i64::try_from(nanoseconds / 1_000_000)
        .ok()
        .and_then(Timestamp::from_millis)
        .unwrap_or_else(Timestamp::now)
}

/// Why a stream with these settings can't be a log, if it can't.
fn unfit(config: &Config) -> Option<String> {
    let takes_all = config
        .subjects
        .iter()
        .any(|subject| subject == SUBJECTS || subject == ">");
    if !takes_all {
        return Some(format!("does not take the subjects {SUBJECTS}"));
    }
    let signals = signals::subject_of(&config.name);
    if config
        .subjects
        .iter()
        .any(|subject| covers(subject, &signals))
    {
        return Some(format!(
            "would keep what is not to be kept: it must not take the subject {signals}"
        ));
    }
    let drops = [
        (config.retention != RetentionPolicy::Limits, "retention"),
        (!config.max_age.is_zero(), "max_age"),
        (config.max_messages_per_subject > 0, "max_msgs_per_subject"),
        (
            config.max_messages > 0 && config.discard == DiscardPolicy::Old,
            "max_msgs",
        ),
        (
            config.max_bytes > 0 && config.discard == DiscardPolicy::Old,
            "max_bytes",
        ),
    ];
    if let Some((_, setting)) = drops.iter().find(|(drops, _)| *drops) {
        return Some(format!("would drop old events: change its {setting}"));
    }
    let unsuitable = [
        (config.no_ack, "does not acknowledge"),
        (config.sealed, "is sealed"),
        (config.mirror.is_some(), "is a mirror"),
        (config.subject_transform.is_some(), "renames its subjects"),
    ];
    let reason = unsuitable.iter().find(|(unsuitable, _)| *unsuitable);
    reason.map(|(_, reason)| (*reason).to_owned())
}

/// Whether a subject with wildcards covers one without.
fn covers(pattern: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for wanted in pattern.split('.') {
        match (wanted, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (wanted, Some(token)) if wanted == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_with_wildcards_covers_what_matches() {
        for pattern in ["a.b.c", "a.>", "a.b.>", "*.b.*", ">"] {
            assert!(covers(pattern, "a.b.c"), "{pattern}");
        }
        for pattern in ["a.b", "a.b.c.>", "a.b.c.d", "*.*", "b.>", "chat.>"] {
            assert!(!covers(pattern, "a.b.c"), "{pattern}");
        }
    }

    #[test]
    fn a_stream_that_loses_events_is_no_log() {
        let fit = Config {
            name: "X".to_owned(),
            subjects: vec![SUBJECTS.to_owned()],
            ..Config::default()
        };
        assert_eq!(unfit(&fit), None);
        let reason = |change: fn(&mut Config)| {
            let mut config = fit.clone();
            change(&mut config);
            unfit(&config).unwrap_or_default()
        };
        assert!(reason(|it| it.subjects = vec!["other".to_owned()]).contains("chat.>"));
        assert!(
            reason(|it| it.subjects.push("hansard.>".to_owned())).contains("hansard.signals.X")
        );
        assert!(reason(|it| it.max_age = Duration::from_secs(1)).contains("max_age"));
        assert!(reason(|it| it.max_bytes = 1).contains("max_bytes"));
        assert!(reason(|it| it.retention = RetentionPolicy::WorkQueue).contains("retention"));
        assert!(reason(|it| it.sealed = true).contains("sealed"));
    }
}
