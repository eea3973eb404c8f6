//! Clients that write and listen without a pause while a test does something to the servers.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use uuid::Uuid;
use xtask::process::POLL;

use crate::client::TestClient;
use crate::socket::WsClient;
use crate::stack::{Person, Stack};
use crate::wait::eventually;

/// How long what goes on may take to come to an end.
const END: Duration = Duration::from_secs(60);

/// A message as a client knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Said {
    /// The message's id.
    pub id: String,
    /// Its text.
    pub text: String,
}

/// Posts one message after the other, each with an idempotency key of its own, and repeats each until it
/// is acknowledged: the client that may rely on Hansard's promises.
#[derive(Debug)]
pub struct Writer {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    task: JoinHandle<Vec<Said>>,
}

impl Writer {
    /// Starts writing to a room: `NAME 0`, `NAME 1` and so on.
    #[must_use]
    pub fn start(client: &TestClient, room: &str, name: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&acknowledged));
        let (client, room, name) = (client.clone(), room.to_owned(), name.to_owned());
        let task = tokio::spawn(async move {
            let mut said = Vec::new();
            while !stopped.load(Ordering::SeqCst) {
                let text = format!("{name} {}", said.len());
                let id = post_until_acknowledged(&client, &room, &text).await;
                said.push(Said { id, text });
                count.fetch_add(1, Ordering::SeqCst);
            }
            said
        });
        Self {
            stop,
            acknowledged,
            task,
        }
    }

    /// Waits until so many more messages have been acknowledged.
    ///
    /// # Panics
    /// They are not in time.
    pub async fn go_on(&self, messages: usize) {
        let wanted = self.acknowledged.load(Ordering::SeqCst) + messages;
        eventually("more acknowledgements", END, || {
            let there =
                self.acknowledged.load(Ordering::SeqCst) >= wanted || self.task.is_finished();
            std::future::ready(there.then_some(()))
        })
        .await;
    }

    /// Stops; gives what was acknowledged, in that order.
    ///
    /// # Panics
    /// A post was refused.
    pub async fn stop(self) -> Vec<Said> {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.unwrap()
    }
}

async fn post_until_acknowledged(client: &TestClient, room: &str, text: &str) -> String {
    let path = format!("/room/{room}/message");
    let body = json!({"messageText": text});
    let answer = until_acknowledged(client, Method::POST, &path, Some(body)).await;
    assert_eq!(answer["post"]["message"]["messageText"], text);
    answer["post"]["postId"].as_str().unwrap().to_owned()
}

/// Sends a command with an idempotency key of its own, and repeats it until it is acknowledged; gives the
/// answer's body.
///
/// # Panics
/// It is refused.
pub async fn until_acknowledged(
    client: &TestClient,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> Value {
    let client = client.with_header("idempotency-key", &Uuid::new_v4().to_string());
    loop {
        match client.try_send(method.clone(), path, body.clone()).await {
            Ok(answer) if !answer.status.is_server_error() => return answer.ok(),
            // Not now, or nobody knows: the key makes asking again harmless.
            Ok(_) | Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

/// Listens to a room from its beginning, and comes back after each interruption with the position it has:
/// the client that may rely on Hansard's promises.
#[derive(Debug)]
pub struct Listener {
    heard: Arc<Mutex<Heard>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Heard {
    messages: Vec<Said>,
    /// See [`Listener::notices`].
    notices: Vec<String>,
    /// What should never have come.
    wrong: Vec<String>,
}

impl Listener {
    /// Starts listening as `person`.
    #[must_use]
    pub fn start(stack: &Stack, person: &Person, room: &str) -> Self {
        let heard = Arc::new(Mutex::new(Heard::default()));
        let task = tokio::spawn(listen(
            stack.ws_url(),
            person.token.clone(),
            room.to_owned(),
            Arc::clone(&heard),
        ));
        Self { heard, task }
    }

    /// What was heard so far: every message once, in the order in which it came.
    ///
    /// # Panics
    /// Something came that should not have: a message out of order or twice, a resumption with a gap.
    #[must_use]
    pub fn messages(&self) -> Vec<Said> {
        let heard = lock(&self.heard);
        assert!(heard.wrong.is_empty(), "{:?}", heard.wrong);
        heard.messages.clone()
    }

    /// Waits until so many messages have been heard, and gives them all.
    ///
    /// # Panics
    /// They don't come in time, or as [`Self::messages`].
    pub async fn heard(&self, messages: usize) -> Vec<Said> {
        eventually("messages at the socket", END, || {
            let there = lock(&self.heard).messages.len() >= messages;
            std::future::ready(there.then_some(()))
        })
        .await;
        self.messages()
    }

    /// What else came, in this order: `deleted MESSAGE`, `degraded`, `restored`, and `closed CODE` for each
    /// close.
    #[must_use]
    pub fn notices(&self) -> Vec<String> {
        lock(&self.heard).notices.clone()
    }

    /// Waits for a notice, see [`Self::notices`], after the first `seen` ones; gives how many there are
    /// with it.
    ///
    /// # Panics
    /// It doesn't come in time.
    pub async fn notice(&self, notice: &str, seen: usize) -> usize {
        eventually(&format!("{notice} at the socket"), END, || {
            let heard = lock(&self.heard);
            let found = heard.notices.iter().skip(seen).position(|it| it == notice);
            std::future::ready(found.map(|index| seen + index + 1))
        })
        .await
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(heard: &Mutex<Heard>) -> std::sync::MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn listen(url: String, token: String, room: String, heard: Arc<Mutex<Heard>>) {
    let mut last = "0".repeat(16);
    loop {
        let Ok(mut socket) = WsClient::try_connect(&url, Some(&token)).await else {
            tokio::time::sleep(POLL).await;
            continue;
        };
        let frame = json!({"type": "subscribe", "room": room, "after": last});
        if socket.try_send(frame).await.is_err() {
            continue;
        }
        loop {
            let frame = match socket.receive().await {
                Ok(frame) => frame,
                Err(code) => {
                    let code = code.map_or("without a code".to_owned(), |code| code.to_string());
                    lock(&heard).notices.push(format!("closed {code}"));
                    break;
                }
            };
            let mut heard = lock(&heard);
            match frame["type"].as_str().unwrap_or_default() {
                "subscribed" if frame["recovered"] == true => {}
                "replayed" => {}
                "room created" | "conversation read" => last = text_of(&frame["position"]),
                "new message" | "message deleted" => {
                    let position = frame["position"].as_str().unwrap_or_default().to_owned();
                    if position <= last {
                        heard.wrong.push(format!("after {last} came {frame}"));
                    }
                    last.clone_from(&position);
                    let post = &frame["message"];
                    if frame["type"] == "message deleted" {
                        heard
                            .notices
                            .push(format!("deleted {}", text_of(&frame["messageId"])));
                    } else if post["postId"] == position.as_str() {
                        heard.messages.push(Said {
                            id: position,
                            text: text_of(&post["message"]["messageText"]),
                        });
                    } else {
                        heard.wrong.push(frame.to_string());
                    }
                }
                "degraded" | "restored" => heard.notices.push(text_of(&frame["type"])),
                _ => heard.wrong.push(frame.to_string()),
            }
        }
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Everything in a room as queries give it, oldest first.
///
/// # Panics
/// The pages don't fit together.
pub async fn read_all(client: &TestClient, room: &str) -> Vec<Said> {
    let mut all: Vec<Said> = Vec::new();
    let mut query = "limit=100".to_owned();
    loop {
        let page = client.conversation(room, &query).await.ok();
        let mut page: Vec<Said> = page["conversation"]
            .as_array()
            .unwrap()
            .iter()
            .map(|message| Said {
                id: message["_id"].as_str().unwrap().to_owned(),
                text: message["message"]["messageText"]
                    .as_str()
                    .unwrap()
                    .to_owned(),
            })
            .collect();
        let Some(first) = page.first() else {
            assert!(all.is_sorted_by(|one, other| one.id < other.id), "{all:?}");
            return all;
        };
        query = format!("limit=100&before={}", first.id);
        page.append(&mut all);
        all = page;
    }
}

/// That `all` has everything that each writer was told, exactly once and in the order in which it was
/// told, and nothing else.
///
/// # Panics
/// It has not.
pub fn assert_kept(all: &[Said], acknowledged: &[Vec<Said>]) {
    let expected: usize = acknowledged.iter().map(Vec::len).sum();
    for said in acknowledged {
        let name = said[0].text.rsplit_once(' ').unwrap().0;
        let kept: Vec<&Said> = all
            .iter()
            .filter(|it| it.text.rsplit_once(' ').is_some_and(|(who, _)| who == name))
            .collect();
        let told: Vec<&Said> = said.iter().collect();
        assert_eq!(kept, told, "what {name} was told is not what is there");
    }
    assert_eq!(all.len(), expected, "there is more than anybody was told");
}
