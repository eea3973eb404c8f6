//! A client of the HTTP API that keeps to what clients are told to do: a key for each command, the same one
//! for each attempt, and whatever happened is taken down.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::history::{Action, Answer, Attempt, Operation, Outcome, Recorder, Shown};

/// How long an answer may take before the client gives the attempt up.
const ATTEMPT: Duration = Duration::from_secs(5);
/// How long a client repeats a command: well within the two minutes in which JetStream recognises it by
/// itself, so that nothing depends on the read models.
const PERSISTENCE: Duration = Duration::from_secs(60);
/// The longest time between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// How many messages a page has.
const PAGE: usize = 30;

/// Where requests go. For each kind any address will do.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// `http://HOST:PORT` of each command-api, and of what stands before them.
    pub commands: Vec<String>,
    /// The same for queries.
    pub queries: Vec<String>,
}

/// Somebody who does one thing after the other.
#[derive(Debug)]
pub struct Session {
    /// Its name in the history.
    pub name: String,
    /// The user's id.
    pub actor: String,
    /// The newest position that it was told; 0 before the first.
    pub position: u64,
    /// Whether it sends that position with its queries, and does without waiting for anything else.
    careful: bool,
    token: String,
    http: reqwest::Client,
    addresses: Addresses,
    recorder: Arc<Recorder>,
    random: StdRng,
}

/// Whose session it is to be, and how it behaves.
#[derive(Debug)]
pub struct Identity {
    /// The session's name in the history.
    pub name: String,
    /// The user's id.
    pub actor: String,
    /// The bearer token.
    pub token: String,
    /// Whether it sends the newest position that it was told with its queries.
    pub careful: bool,
    /// For its choices.
    pub seed: u64,
}

impl Session {
    /// A session of which nothing is in the history yet.
    ///
    /// # Errors
    /// The HTTP client can't be made.
    pub fn new(
        identity: Identity,
        addresses: &Addresses,
        recorder: &Arc<Recorder>,
    ) -> reqwest::Result<Self> {
        let http = reqwest::Client::builder().no_proxy().timeout(ATTEMPT);
        Ok(Self {
            name: identity.name,
            actor: identity.actor,
            position: 0,
            careful: identity.careful,
            token: identity.token,
            http: http.build()?,
            addresses: addresses.clone(),
            recorder: Arc::clone(recorder),
            random: StdRng::seed_from_u64(identity.seed),
        })
    }

    /// Sends a command with a key until it is answered, or nobody would wait any longer. `None` when it was
    /// refused or nobody knows.
    pub async fn command(&mut self, action: Action) -> Option<Answer> {
        let key = Uuid::from_u128(self.random.random()).to_string();
        self.perform(action, Some(key)).await
    }

    /// Sends a command once, without a key.
    pub async fn command_once(&mut self, action: Action) -> Option<Answer> {
        self.perform(action, None).await
    }

    /// Asks once.
    pub async fn query(&mut self, action: Action) -> Option<Answer> {
        self.perform(action, None).await
    }

    async fn perform(&mut self, action: Action, key: Option<String>) -> Option<Answer> {
        let mut operation = Operation {
            number: self.recorder.number(),
            client: self.name.clone(),
            actor: self.actor.clone(),
            action,
            key,
            attempts: Vec::new(),
        };
        let begun = Instant::now();
        loop {
            let attempt = self.attempt(&operation).await;
            let is_known = !matches!(attempt.outcome, Outcome::Unknown { .. });
            operation.attempts.push(attempt);
            if is_known || operation.key.is_none() || begun.elapsed() > PERSISTENCE {
                break;
            }
            let pause = LONGEST_PAUSE.mul_f64(self.random.random());
            tokio::time::sleep(pause).await;
        }
        let answer = operation.acknowledged().map(|(position, answer)| {
            self.position = self.position.max(position.unwrap_or_default());
            answer.clone()
        });
        self.recorder.add(operation);
        answer
    }

    async fn attempt(&mut self, operation: &Operation) -> Attempt {
        let action = &operation.action;
        let addresses = match action.is_query() {
            true => &self.addresses.queries,
            false => &self.addresses.commands,
        };
        let base = addresses
            .choose(&mut self.random)
            .cloned()
            .unwrap_or_default();
        let (method, path, body) = request(action);
        let mut request = self
            .http
            .request(method, format!("{base}{path}"))
            .bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        if let Some(key) = &operation.key {
            request = request.header("idempotency-key", key);
        }
        let from =
            (self.careful && action.is_query() && self.position > 0).then_some(self.position);
        if let Some(from) = from {
            request = request.header("hansard-position", format!("{from:016x}"));
        }
        if self.careful && !action.is_query() {
            // Whoever sends positions back need not wait for the read models: its queries do.
            request = request.header("prefer", "respond-async");
        }
        let invoked = self.recorder.now();
        let outcome = match answer(request).await {
            Ok(reply) => outcome(action, &reply),
            Err(error) => Outcome::Unknown { why: cause(&error) },
        };
        Attempt {
            through: base,
            from,
            invoked,
            returned: self.recorder.now(),
            outcome,
        }
    }
}

/// The innermost reason, which is the one that tells something.
fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// An answer as it came.
struct Reply {
    status: u16,
    position: Option<u64>,
    body: Value,
}

async fn answer(request: reqwest::RequestBuilder) -> reqwest::Result<Reply> {
    let response = request.send().await?;
    let status = response.status().as_u16();
    let position = response.headers().get("hansard-position");
    let position = position.and_then(|it| position_in(it.to_str().ok()?));
    let text = response.text().await?;
    Ok(Reply {
        status,
        position,
        body: serde_json::from_str(&text).unwrap_or_default(),
    })
}

/// The position in a text, with or without the log's name.
#[must_use]
pub fn position_in(text: &str) -> Option<u64> {
    let digits = text.split('-').next()?;
    u64::from_str_radix(digits, 16).ok()
}

fn request(action: &Action) -> (Method, String, Option<Value>) {
    match action {
        Action::CreateUser { name } => {
            let body = json!({"firstName": name, "lastName": "Chaos", "type": "consumer"});
            (Method::POST, "/users".to_owned(), Some(body))
        }
        Action::DeleteUser { user } => (Method::DELETE, format!("/users/{user}"), None),
        Action::Initiate { members } => {
            let body = json!({"userIds": members, "type": "consumer-to-consumer"});
            (Method::POST, "/room/initiate".to_owned(), Some(body))
        }
        Action::DeleteRoom { room } => (Method::DELETE, format!("/delete/room/{room}"), None),
        Action::Post { room, text } => {
            let body = json!({"messageText": text});
            (Method::POST, format!("/room/{room}/message"), Some(body))
        }
        Action::Edit {
            room,
            message,
            text,
        } => {
            let path = format!("/room/{room}/message/{message:016x}");
            (Method::PATCH, path, Some(json!({"messageText": text})))
        }
        Action::DeleteMessage { message, .. } => {
            let path = format!("/delete/message/{message:016x}");
            (Method::DELETE, path, None)
        }
        Action::MarkRead { room } => (Method::PUT, format!("/room/{room}/mark-read"), None),
        Action::Read { room } => (Method::GET, format!("/room/{room}?limit={PAGE}"), None),
    }
}

fn outcome(action: &Action, reply: &Reply) -> Outcome {
    let message = || match reply.body["message"].as_str() {
        Some(message) => format!("{}: {message}", reply.status),
        None => reply.status.to_string(),
    };
    match reply.status {
        200..=299 => match said(action, &reply.body) {
            Some(answer) => Outcome::Acknowledged {
                position: reply.position,
                answer,
            },
            // Whoever can't read the answer does not know either.
            None => Outcome::Unknown {
                why: format!("an answer that can't be read: {}", reply.body),
            },
        },
        // Not now; try again.
        408 | 425 | 429 => Outcome::Unknown { why: message() },
        400..=499 => Outcome::Refused {
            status: reply.status,
            message: message(),
        },
        _ => Outcome::Unknown { why: message() },
    }
}

fn said(action: &Action, body: &Value) -> Option<Answer> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Some(match action {
        Action::CreateUser { .. } => Answer::User {
            user: text(&body["user"]["_id"])?,
        },
        Action::Initiate { .. } => Answer::Room {
            room: text(&body["chatRoom"]["chatRoomId"])?,
        },
        Action::Post { .. } => Answer::Message {
            message: position_in(body["post"]["postId"].as_str()?)?,
        },
        Action::Read { .. } => {
            let messages = body["conversation"].as_array()?.iter().map(|it| {
                Some(Shown {
                    message: position_in(it["_id"].as_str()?)?,
                    author: text(&it["postedByUser"]["_id"])?,
                    text: text(&it["message"]["messageText"]).unwrap_or_default(),
                    deleted: it["deleted"] == true,
                })
            });
            let messages: Vec<Shown> = messages.collect::<Option<_>>()?;
            Answer::Page {
                full: messages.len() >= PAGE,
                messages,
            }
        }
        Action::DeleteUser { .. }
        | Action::DeleteRoom { .. }
        | Action::Edit { .. }
        | Action::DeleteMessage { .. }
        | Action::MarkRead { .. } => Answer::Done,
    })
}
