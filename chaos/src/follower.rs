//! A client of the WebSocket that comes and goes, always resumes from where it has got to, and keeps what it
//! was told.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hansard_tests::WsClient;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::client::position_in;
use crate::evidence::{Happening, Stream, Told};
use crate::history::Recorder;

/// How long connecting may take, and closing.
const CONNECTING: Duration = Duration::from_secs(5);
/// The longest that a follower stays connected, and waits before it comes back.
const LONGEST_STAY: Duration = Duration::from_secs(8);
const LONGEST_PAUSE: Duration = Duration::from_millis(300);

/// What a follower follows.
#[derive(Debug)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// The user's id.
    pub person: String,
    /// The bearer token.
    pub token: String,
    /// A room; `None`: all of the user's.
    pub room: Option<String>,
    /// `ws://HOST:PORT/ws` of each gateway: one at random for each connection.
    pub urls: Vec<String>,
    /// For its choices.
    pub seed: u64,
}

/// A running follower.
#[derive(Debug)]
pub struct Follower {
    stream: Arc<Mutex<Stream>>,
    cursor: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Follower {
    /// Starts following, from now on.
    #[must_use]
    pub fn start(plan: Plan, recorder: &Arc<Recorder>) -> Self {
        let stream = Arc::new(Mutex::new(Stream {
            follower: plan.name.clone(),
            person: plan.person.clone(),
            room: plan.room.clone(),
            start: None,
            told: Vec::new(),
            wrong: Vec::new(),
            notes: Vec::new(),
        }));
        let cursor = Arc::new(AtomicU64::new(0));
        let following = Following {
            random: StdRng::seed_from_u64(plan.seed),
            plan,
            recorder: Arc::clone(recorder),
            stream: Arc::clone(&stream),
            cursor: Arc::clone(&cursor),
        };
        Self {
            stream,
            cursor,
            task: tokio::spawn(following.come_and_go()),
        }
    }

    /// The position up to which everything was told; 0 before it was subscribed.
    #[must_use]
    pub fn cursor(&self) -> u64 {
        self.cursor.load(Ordering::SeqCst)
    }

    /// Whether it follows all rooms of its user.
    #[must_use]
    pub fn follows_everything(&self) -> bool {
        lock(&self.stream).room.is_none()
    }

    /// What was told so far.
    #[must_use]
    pub fn stream(&self) -> Stream {
        lock(&self.stream).clone()
    }

    /// Stops; gives what was told.
    #[must_use]
    pub fn stop(self) -> Stream {
        self.task.abort();
        self.stream()
    }
}

fn lock(stream: &Mutex<Stream>) -> MutexGuard<'_, Stream> {
    stream.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Following {
    plan: Plan,
    recorder: Arc<Recorder>,
    random: StdRng,
    stream: Arc<Mutex<Stream>>,
    cursor: Arc<AtomicU64>,
}

impl Following {
    async fn come_and_go(mut self) {
        loop {
            let end = self.connection().await;
            self.note(end);
            let pause = LONGEST_PAUSE.mul_f64(self.random.random());
            sleep(pause).await;
        }
    }

    fn note(&self, what: &str) {
        let at = self.recorder.now() / 1000;
        lock(&self.stream).notes.push(format!("{at} ms: {what}"));
    }

    /// One connection, from its beginning to its end; says how it ended.
    async fn connection(&mut self) -> &'static str {
        let url = self
            .plan
            .urls
            .choose(&mut self.random)
            .cloned()
            .unwrap_or_default();
        let connecting = WsClient::try_connect(&url, Some(&self.plan.token));
        let mut socket = match timeout(CONNECTING, connecting).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(_)) => return "no connection",
            Err(_) => return "no connection in time",
        };
        let mut frame = json!({"type": "subscribe"});
        if let Some(room) = &self.plan.room {
            frame["room"] = json!(room);
        }
        if self.is_subscribed() {
            frame["after"] = json!(format!("{:016x}", self.cursor.load(Ordering::SeqCst)));
        }
        self.note(&format!("{url}: {frame}"));
        if !matches!(
            timeout(CONNECTING, socket.try_send(frame)).await,
            Ok(Ok(()))
        ) {
            return "broken while it subscribed";
        }
        let leave_at = Instant::now() + LONGEST_STAY.mul_f64(self.random.random());
        loop {
            let received = tokio::time::timeout_at(leave_at, socket.receive()).await;
            match received {
                Ok(Ok(frame)) => {
                    if !self.on_frame(&frame) {
                        return "given up";
                    }
                }
                Ok(Err(_)) => return "broken",
                Err(_) => break,
            }
        }
        if self.random.random() {
            // As one should, or else by hanging up.
            let _ = timeout(CONNECTING, socket.close()).await;
            return "closed";
        }
        "hung up"
    }

    fn is_subscribed(&self) -> bool {
        lock(&self.stream).start.is_some()
    }

    /// Whether to go on with this connection.
    fn on_frame(&mut self, frame: &Value) -> bool {
        let Some(kind) = frame["type"].as_str() else {
            self.wrong(frame);
            return false;
        };
        if let Some(happening) = happening(kind, frame) {
            let position = position_of(frame);
            lock(&self.stream).told.push(Told {
                position,
                happening,
            });
            self.cursor.fetch_max(position, Ordering::SeqCst);
            return true;
        }
        match kind {
            "subscribed" if self.is_subscribed() => {
                if frame["recovered"] != true {
                    self.wrong(frame);
                }
            }
            "subscribed" => {
                self.note("subscribed");
                let position = position_of(frame);
                lock(&self.stream).start = Some(position);
                self.cursor.store(position, Ordering::SeqCst);
            }
            "replayed" => {
                self.note("replayed");
                // All of it was told, whether or not there was anything to tell.
                self.cursor.fetch_max(position_of(frame), Ordering::SeqCst);
            }
            "degraded" | "restored" => {}
            "error" => match frame["code"].as_str() {
                // It can't be had at present.
                Some("unavailable" | "rate_limited" | "too_many_connections") => return false,
                _ => {
                    self.wrong(frame);
                    return false;
                }
            },
            _ => self.wrong(frame),
        }
        true
    }

    fn wrong(&self, frame: &Value) {
        lock(&self.stream).wrong.push(frame.to_string());
    }
}

fn position_of(frame: &Value) -> u64 {
    let position = frame["position"].as_str().and_then(position_in);
    position.unwrap_or_default()
}

/// What a frame tells of; `None` when it tells of no event.
fn happening(kind: &str, frame: &Value) -> Option<Happening> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let id = |value: &Value| value.as_str().and_then(position_in).unwrap_or_default();
    let room = text(&frame["room"]);
    Some(match kind {
        "room created" => {
            let users = frame["users"].as_array().into_iter().flatten();
            let mut members: Vec<String> = users.map(|user| text(&user["_id"])).collect();
            members.sort_unstable();
            Happening::RoomInitiated { room, members }
        }
        "room deleted" => Happening::RoomDeleted { room },
        "new message" => Happening::Posted {
            room,
            author: text(&frame["message"]["postedByUser"]["_id"]),
            text: text(&frame["message"]["message"]["messageText"]),
        },
        "message edited" => Happening::Edited {
            room,
            message: id(&frame["edit"]["_id"]),
            text: text(&frame["edit"]["message"]["messageText"]),
        },
        "message deleted" => Happening::MessageDeleted {
            room,
            message: id(&frame["messageId"]),
        },
        "conversation read" => Happening::ConversationRead {
            room,
            reader: text(&frame["user"]),
            up_to: id(&frame["upTo"]),
        },
        _ => return None,
    })
}
