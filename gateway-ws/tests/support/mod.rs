//! A gateway on a real port over a real log, and clients for it.
#![allow(dead_code)] // No suite uses all of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use directory::Directory;
use event_log::testing::NatsServer;
use event_log::{Expect, Filter, JetStreamLog, LogUrl, SqliteLog};
use events::{
    ConversationRead, Envelope, Event, MessageDeleted, MessageEdited, MessageId, MessagePosted,
    Names, Position, RoomDeleted, RoomId, RoomInitiated, RoomType, Timestamp, UserCreated,
    UserDeleted, UserErased, UserId, UserType,
};
use futures::{SinkExt, StreamExt};
use gateway_ws::{Limits, Options};
use keys::{Keyring, Record};
use platform::auth::Auth;
use platform::config::AuthMode;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::Response;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long anything may take. Generous: the machine may be busy.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {DEADLINE:?}"),
    }
}

/// A log to test with, and what keeps it alive.
pub struct TestLog {
    pub record: Record,
    pub server: Option<NatsServer>,
    _directory: Option<tempfile::TempDir>,
}

impl TestLog {
    pub async fn sqlite() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let log = SqliteLog::open(&directory.path().join("log.db"))
            .await
            .unwrap();
        Some(Self {
            record: Record::new(Arc::new(log), Keyring::in_memory()),
            server: None,
            _directory: Some(directory),
        })
    }

    pub async fn jetstream() -> Option<Self> {
        let server = NatsServer::start()?;
        let LogUrl::Nats(address) = server.log_url() else {
            panic!("not a nats URL");
        };
        let log = JetStreamLog::open(&address).await.unwrap();
        Some(Self {
            record: Record::new(Arc::new(log), Keyring::in_memory()),
            server: Some(server),
            _directory: None,
        })
    }
}

/// Runs a test on SQLite and on JetStream.
macro_rules! on_both_logs {
    ($($(#[$attribute:meta])* $name:ident)*) => {
        mod sqlite {
            $(
                $(#[$attribute])*
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    if let Some(record) = crate::support::TestLog::sqlite().await {
                        super::$name(record).await;
                    }
                }
            )*
        }
        mod jetstream {
            $(
                $(#[$attribute])*
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    if let Some(record) = crate::support::TestLog::jetstream().await {
                        super::$name(record).await;
                    }
                }
            )*
        }
    };
}
pub(crate) use on_both_logs;

/// A running gateway.
pub struct Gateway {
    pub directory: Directory,
    pub auth: Auth,
    pub address: SocketAddr,
    pub shutdown: CancellationToken,
    pub sockets: TaskTracker,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

pub fn limits() -> Limits {
    Limits {
        shutdown_spread: Duration::from_millis(100),
        ..Limits::default()
    }
}

/// Limits for a client that may fall behind writers at full speed: its slowness is not what is tested.
pub fn patient() -> Limits {
    Limits {
        queue_frames: usize::MAX,
        queue_bytes: usize::MAX,
        ..limits()
    }
}

impl Gateway {
    pub async fn start(record: &Record) -> Self {
        Self::start_with(record, limits(), &[]).await
    }

    pub async fn start_with(record: &Record, limits: Limits, origins: &[&str]) -> Self {
        let shutdown = CancellationToken::new();
        let sockets = TaskTracker::new();
        let directory = Directory::start(record.clone(), shutdown.clone());
        let secret = "a secret that is only used in tests".to_owned();
        let auth = Auth::new(AuthMode::Token, Duration::from_secs(3600), &[secret]).unwrap();
        let routes = gateway_ws::routes(Options {
            record: record.clone(),
            directory: directory.clone(),
            auth: auth.clone(),
            limits,
            allowed_origins: origins.iter().map(|&origin| origin.to_owned()).collect(),
            shutdown: shutdown.clone(),
            sockets: sockets.clone(),
        });
        let (router, _) = routes.split_for_parts();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = shutdown.clone();
        tokio::spawn(async move {
            axum::serve(listener, router)
                .with_graceful_shutdown(stop.cancelled_owned())
                .await
                .unwrap();
        });
        Self {
            directory,
            auth,
            address,
            shutdown,
            sockets,
        }
    }

    pub fn token(&self, user: UserId) -> String {
        self.auth.issue(user, UserType::Consumer)
    }

    /// A client of `user`, with the token in the header.
    pub async fn connect(&self, user: UserId) -> Client {
        let token = self.token(user);
        self.connect_with(&[("authorization", &format!("Bearer {token}"))])
            .await
            .unwrap()
    }

    pub async fn connect_with(
        &self,
        headers: &[(&'static str, &str)],
    ) -> Result<Client, Box<Response<Option<Vec<u8>>>>> {
        let mut request = format!("ws://{}/ws", self.address)
            .into_client_request()
            .unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let connecting = tokio_tungstenite::connect_async(request);
        match within("connecting", connecting).await {
            Ok((socket, _)) => Ok(Client {
                socket,
                log: String::new(),
            }),
            Err(tungstenite::Error::Http(response)) => Err(response),
            Err(error) => panic!("{error}"),
        }
    }
}

/// What a test writes to the log.
pub async fn append(record: &Record, event: Event, actor: Option<UserId>) -> Position {
    let envelope = Envelope::new(event, actor, None);
    append_envelope(record, &envelope).await
}

pub async fn append_envelope(record: &Record, envelope: &Envelope) -> Position {
    let appending = record.append(envelope, Expect::Any);
    within("appending", appending).await.unwrap().position
}

/// Appends it once the log can be reached again.
pub async fn append_patiently(record: &Record, envelope: &Envelope) -> Position {
    within("appending", async {
        loop {
            if let Ok(appended) = record.append(envelope, Expect::Any).await {
                return appended.position;
            }
        }
    })
    .await
}

pub async fn user(record: &Record, name: &str) -> UserId {
    let user_id = UserId::random();
    let event = Event::UserCreated(UserCreated {
        user_id,
        names: Some(Names::new(name, "Test")),
        user_type: UserType::Consumer,
    });
    append(record, event, None).await;
    user_id
}

pub async fn delete_user(record: &Record, user_id: UserId) -> Position {
    let event = Event::UserDeleted(UserDeleted {
        user_id,
        user_type: UserType::Consumer,
        created_at: Timestamp::now(),
    });
    append(record, event, None).await
}

fn sorted(members: &[UserId]) -> Vec<UserId> {
    let mut members = members.to_vec();
    members.sort_unstable();
    members
}

pub async fn room(record: &Record, members: &[UserId]) -> RoomId {
    let room_id = RoomId::derive(RoomType::ConsumerToConsumer, members, 0);
    let event = Event::RoomInitiated(RoomInitiated {
        room_id,
        room_type: RoomType::ConsumerToConsumer,
        members: sorted(members),
        initiator: members[0],
        generation: 0,
    });
    append(record, event, Some(members[0])).await;
    room_id
}

/// The position of the room's creation.
pub async fn created(record: &Record, room: RoomId) -> Position {
    let lifecycle = record.log.read(Filter::Room(room), Position::ZERO).await;
    let first = lifecycle.unwrap().next().await;
    first.unwrap().unwrap().position
}

pub async fn delete_room(record: &Record, room_id: RoomId, members: &[UserId]) -> Position {
    let event = Event::RoomDeleted(RoomDeleted {
        room_id,
        room_type: RoomType::ConsumerToConsumer,
        members: sorted(members),
        initiator: members[0],
        generation: 0,
        initiated_at: Timestamp::now(),
    });
    append(record, event, Some(members[0])).await
}

pub fn posted(room_id: RoomId, author: UserId, text: &str) -> Event {
    Event::MessagePosted(MessagePosted {
        room_id,
        author,
        message_text: Some(text.to_owned()),
    })
}

pub async fn post(record: &Record, room_id: RoomId, author: UserId, text: &str) -> Position {
    append(record, posted(room_id, author, text), Some(author)).await
}

pub async fn delete_message(record: &Record, room_id: RoomId, message: Position) -> Position {
    let event = Event::MessageDeleted(MessageDeleted {
        room_id,
        message_id: MessageId::at(message),
    });
    append(record, event, None).await
}

pub fn edited(room_id: RoomId, author: UserId, message: Position, text: &str) -> Event {
    Event::MessageEdited(MessageEdited {
        room_id,
        message_id: MessageId::at(message),
        author,
        posted_at: Timestamp::now(),
        message_text: Some(text.to_owned()),
    })
}

pub async fn erase_user(record: &Record, user_id: UserId) -> Position {
    let event = Event::UserErased(UserErased {
        user_id,
        user_type: UserType::Consumer,
        created_at: Timestamp::now(),
    });
    append(record, event, None).await
}

pub async fn read_conversation(
    record: &Record,
    room_id: RoomId,
    reader: UserId,
    up_to: Option<Position>,
) -> Position {
    let event = Event::ConversationRead(ConversationRead {
        room_id,
        reader,
        up_to: up_to.map(MessageId::at),
    });
    append(record, event, Some(reader)).await
}

/// A WebSocket client.
#[derive(Debug)]
pub struct Client {
    pub socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// How the last position named its log.
    pub log: String,
}

/// What a client received.
#[derive(Debug, PartialEq)]
pub enum Received {
    Frame(Value),
    Closed(u16, String),
}

impl Client {
    pub async fn send(&mut self, frame: Value) {
        self.send_message(Message::text(frame.to_string())).await;
    }

    pub async fn send_message(&mut self, message: Message) {
        within("sending", self.socket.send(message)).await.unwrap();
    }

    /// The next frame, or the close. The frame's position is that of the event alone, so that tests can
    /// compare it; which log it names is kept beside it.
    pub async fn receive(&mut self) -> Received {
        loop {
            match within("receiving", self.socket.next()).await {
                Some(Ok(Message::Text(text))) => {
                    let mut frame: Value = serde_json::from_str(text.as_str()).unwrap();
                    if let Some(cursor) = frame.get("position").and_then(Value::as_str) {
                        let (position, log) = cursor.split_once('-').expect("it names its log");
                        self.log = log.to_owned();
                        frame["position"] = json!(position);
                    }
                    return Received::Frame(frame);
                }
                Some(Ok(Message::Close(Some(close)))) => {
                    let reason = close.reason.as_str().to_owned();
                    return Received::Closed(close.code.into(), reason);
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// The next frame.
    pub async fn next(&mut self) -> Value {
        match self.receive().await {
            Received::Frame(frame) => frame,
            Received::Closed(code, reason) => panic!("closed with {code}: {reason}"),
        }
    }

    /// The code and reason of the close, which must be next.
    pub async fn closed(&mut self) -> (u16, String) {
        match self.receive().await {
            Received::Closed(code, reason) => (code, reason),
            Received::Frame(frame) => panic!("unexpected {frame}"),
        }
    }

    /// The next frame must be an error with this code.
    pub async fn error(&mut self, code: &str) {
        let frame = self.next().await;
        assert_eq!(frame["type"], "error", "{frame}");
        assert_eq!(frame["code"], code, "{frame}");
        assert!(frame["message"].is_string(), "{frame}");
    }

    /// Subscribes, and returns the answer.
    pub async fn subscribe(&mut self, room: RoomId, after: Option<Position>) -> Value {
        self.send(subscribe(room, after)).await;
        self.next().await
    }

    /// Unsubscribes, when nothing else is expected.
    pub async fn unsubscribe(&mut self, room: RoomId) {
        self.send(json!({"type": "unsubscribe", "room": room}))
            .await;
        let expected = json!({"type": "unsubscribed", "room": room});
        assert_eq!(self.next().await, expected);
    }

    /// Subscribes to all rooms of the user, and returns the answer.
    pub async fn follow(&mut self, after: Option<&str>) -> Value {
        let mut frame = json!({"type": "subscribe"});
        if let Some(after) = after {
            frame["after"] = json!(after);
        }
        self.send(frame).await;
        self.next().await
    }

    /// The next frame of this type; others before it are skipped.
    pub async fn next_of_type(&mut self, name: &str) -> Value {
        loop {
            let frame = self.next().await;
            if frame["type"] == name {
                return frame;
            }
        }
    }

    /// What comes before the answer to a ping sent now.
    pub async fn until_pong(&mut self) -> Vec<Value> {
        self.send(json!({"type": "ping"})).await;
        let mut frames = Vec::new();
        loop {
            let frame = self.next().await;
            if frame["type"] == "pong" {
                return frames;
            }
            frames.push(frame);
        }
    }

    /// Waits until everything sent before was dealt with, when nothing else is expected.
    pub async fn settle(&mut self) {
        self.send(json!({"type": "ping"})).await;
        assert_eq!(self.next().await, json!({"type": "pong"}));
    }
}

pub fn subscribe(room: RoomId, after: Option<Position>) -> Value {
    let mut frame = json!({"type": "subscribe", "room": room});
    if let Some(after) = after {
        frame["after"] = json!(after);
    }
    frame
}

/// What a client was told that resumed again and again on one connection: for each time, the position it
/// resumed after and those of the frames that came.
pub struct Resumed(Vec<(Position, Vec<Position>)>);

impl Resumed {
    /// Resumes so many times, first after `after`, then after the last frame that came: the replay and
    /// some live frames each time.
    pub async fn again_and_again(
        client: &mut Client,
        times: usize,
        mut after: Position,
        subscribe: impl Fn(Position) -> Value,
    ) -> Self {
        let mut runs = Vec::new();
        for _ in 0..times {
            client.send(subscribe(after)).await;
            while client.next().await["type"] != "subscribed" {}
            let mut run: Vec<Position> = Vec::new();
            let mut live = 0;
            while live < 5 {
                let frame = client.next().await;
                if frame["type"] == "replayed" {
                    assert_eq!(frame["count"], json!(run.len()));
                    live = 1;
                    continue;
                }
                run.push(frame["position"].as_str().unwrap().parse().unwrap());
                live += usize::from(live > 0);
            }
            let next = *run.last().unwrap();
            runs.push((after, run));
            after = next;
        }
        Self(runs)
    }

    /// Each time it was told of all these positions from there on, and of each once.
    pub fn assert_complete(self, mut positions: Vec<Position>) {
        positions.sort_unstable();
        for (after, run) in self.0 {
            let first = positions.partition_point(|position| *position <= after);
            assert_eq!(run, positions[first..first + run.len()]);
        }
    }
}
