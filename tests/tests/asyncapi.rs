//! The description of `/ws` is true: each message that a client may send, as its examples have it, is
//! answered as described, every message that comes back is as described, and each described one comes.
//!
//! That it has neither more nor fewer fields, messages and codes than the code is for the gateway's own
//! tests (gateway-ws/tests/asyncapi.rs).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use hansard_tests::{Backend, Person, Service, Stack, WsClient, on_every_stack, room_of, within};
use jsonschema::Validator;
use serde_json::{Map, Value, json};

/// How long a frame may take that must come.
const FRAME: Duration = Duration::from_secs(20);

// --- The document ---

struct Document {
    json: Value,
    /// By the message's key.
    validators: BTreeMap<String, Validator>,
}

/// A message that clients may send.
struct Sent {
    key: String,
    /// The keys of the messages that may answer it; the first is the usual answer.
    answers: Vec<String>,
}

impl Document {
    fn published() -> Self {
        let text = file("contract/asyncapi.json");
        Self::new(serde_json::from_str(&text).unwrap())
    }

    fn new(json: Value) -> Self {
        let mut components = json["components"].clone();
        refuse_what_is_not_described(&mut components);
        let messages = components["messages"].as_object().unwrap().clone();
        let validators = messages.keys().map(|key| {
            let schema = json!({
                "$ref": format!("#/components/messages/{key}/payload"),
                "components": components,
            });
            let validator = jsonschema::draft202012::options()
                .should_validate_formats(true)
                .build(&schema);
            (
                key.clone(),
                validator.unwrap_or_else(|it| panic!("{key}: {it}")),
            )
        });
        let validators = validators.collect();
        Self { json, validators }
    }

    fn message(&self, key: &str) -> &Value {
        &self.json["components"]["messages"][key]
    }

    fn examples(&self, key: &str) -> Vec<Value> {
        let examples = self.message(key)["examples"].as_array();
        let examples = examples.unwrap_or_else(|| panic!("{key} has no example"));
        examples.iter().map(|it| it["payload"].clone()).collect()
    }

    fn operations(&self, action: &str) -> Vec<&Value> {
        let operations = self.json["operations"].as_object().unwrap();
        let operations = operations.values();
        operations.filter(|it| it["action"] == action).collect()
    }

    fn sent_by_clients(&self) -> Vec<Sent> {
        let operations = self.operations("receive").into_iter();
        operations
            .map(|operation| {
                let [key] = &keys(&operation["messages"])[..] else {
                    panic!("not one message: {operation}");
                };
                Sent {
                    key: key.clone(),
                    answers: keys(&operation["reply"]["messages"]),
                }
            })
            .collect()
    }

    fn sent_by_servers(&self) -> BTreeSet<String> {
        let pushed = self.operations("send").into_iter();
        let pushed = pushed.flat_map(|operation| keys(&operation["messages"]));
        let answers = self.sent_by_clients().into_iter().flat_map(|it| it.answers);
        pushed.chain(answers).collect()
    }

    /// Which message of the server's a frame is. It has to be as described.
    fn recognize(&self, frame: &Value) -> String {
        let key = self
            .sent_by_servers()
            .into_iter()
            .find(|key| self.message(key)["name"] == frame["type"]);
        let key = key.unwrap_or_else(|| panic!("not described: {frame}"));
        self.check(&key, frame);
        key
    }

    fn check(&self, key: &str, payload: &Value) {
        let errors = self.validators[key].iter_errors(payload);
        let errors: Vec<String> = errors
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(
            errors.is_empty(),
            "{payload} is no {key} as described: {errors:?}"
        );
    }
}

/// The keys of the messages that these references lead to: `#/channels/ws/messages/KEY`.
fn keys(references: &Value) -> Vec<String> {
    let references = references.as_array().unwrap().iter();
    references
        .map(|it| {
            let reference = it["$ref"].as_str().unwrap();
            let key = reference.strip_prefix("#/channels/ws/messages/");
            key.unwrap_or_else(|| panic!("{reference}")).to_owned()
        })
        .collect()
}

/// Clients have to be ready for fields that are new to them; this test must not be.
fn refuse_what_is_not_described(part: &mut Value) {
    match part {
        Value::Object(members) => {
            members.values_mut().for_each(refuse_what_is_not_described);
            if members.get("properties").is_some_and(Value::is_object) {
                members.insert("additionalProperties".to_owned(), json!(false));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(refuse_what_is_not_described),
        _ => {}
    }
}

fn file(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::fs::read_to_string(root.join(path)).unwrap()
}

#[test]
fn every_message_has_examples_that_are_as_described() {
    let document = Document::published();
    let mut in_operations = document.sent_by_servers();
    in_operations.extend(document.sent_by_clients().into_iter().map(|it| it.key));
    let all = |messages: &Value| -> BTreeSet<String> {
        let messages: &Map<String, Value> = messages.as_object().unwrap();
        messages.keys().cloned().collect()
    };
    let components = all(&document.json["components"]["messages"]);
    assert_eq!(
        all(&document.json["channels"]["ws"]["messages"]),
        components
    );
    assert_eq!(in_operations, components);
    for key in &components {
        let examples = document.examples(key);
        assert!(!examples.is_empty(), "{key} has no example");
        for example in examples {
            assert_eq!(example["type"], document.message(key)["name"], "{key}");
            document.check(key, &example);
        }
    }
}

#[test]
fn the_page_shows_nothing_but_examples_of_the_description() {
    let document = Document::published();
    let components = document.json["components"]["messages"].as_object().unwrap();
    let examples: Vec<Value> = components
        .keys()
        .flat_map(|key| document.examples(key))
        .collect();
    let mut shown = BTreeSet::new();
    let mut in_json = false;
    for line in file("docs/websocket.md").lines() {
        match line {
            "```json" => in_json = true,
            "```" => in_json = false,
            _ if in_json => {
                let frame: Value = serde_json::from_str(line).unwrap();
                assert!(examples.contains(&frame), "not in the description: {line}");
                shown.insert(frame["type"].as_str().unwrap().to_owned());
            }
            _ => {}
        }
    }
    let names = components.values().map(|it| it["name"].as_str().unwrap());
    let names: BTreeSet<String> = names.map(str::to_owned).collect();
    assert_eq!(shown, names, "the page shows each message");
}

// --- The server ---

/// What the server said to any client: the keys of the messages.
#[derive(Default)]
struct Seen(Mutex<BTreeSet<String>>);

/// A client that looks at every frame it gets.
struct Looking<'a> {
    socket: WsClient,
    document: &'a Document,
    seen: &'a Seen,
}

impl Looking<'_> {
    async fn send(&mut self, frame: Value) {
        self.socket.send(frame).await;
    }

    /// The next frame, with its message's key.
    async fn next(&mut self) -> (String, Value) {
        let frame = within("a frame", FRAME, self.socket.receive_whole()).await;
        let frame = frame.expect("the connection stays open");
        let key = self.document.recognize(&frame);
        self.seen.0.lock().unwrap().insert(key.clone());
        (key, frame)
    }

    /// The next frame of this message, and the keys of those before it.
    async fn until(&mut self, key: &str) -> (Vec<String>, Value) {
        let wanted = async {
            let mut before = Vec::new();
            loop {
                let (found, frame) = self.next().await;
                if found == key {
                    return (before, frame);
                }
                before.push(found);
            }
        };
        within(key, FRAME, wanted).await
    }

    /// Waits until the user has this presence.
    async fn until_presence(&mut self, user: &str, status: &str) -> Value {
        loop {
            let (_, frame) = self.until("presence").await;
            if frame["user"] == user && frame["status"] == status {
                return frame;
            }
        }
    }
}

/// What stands in the examples for what only a running server knows.
struct Real<'a> {
    token: &'a str,
    room: &'a str,
    position: &'a str,
}

impl Real<'_> {
    fn put_into(&self, example: &Value) -> Value {
        let mut frame = example.clone();
        for (field, real) in [("token", self.token), ("room", self.room)] {
            if frame.get(field).is_some() {
                frame[field] = json!(real);
            }
        }
        // As much of it as the example has: a message's id names no log.
        if let Some(after) = example["after"].as_str() {
            frame["after"] = json!(&self.position[..after.len()]);
        }
        frame
    }
}

async fn the_description_is_true(mut stack: Stack) {
    let answer = stack.client().get("/asyncapi.json").await;
    assert_eq!(answer.header("content-type"), "application/json");
    let document = Document::new(answer.ok());
    assert_eq!(document.json, Document::published().json);

    let seen = Seen::default();
    let url = stack.ws_url();
    let looking = async |token: Option<&str>| Looking {
        socket: WsClient::connect(&url, token).await,
        document: &document,
        seen: &seen,
    };
    let (ada, grace) = (stack.person("Ada").await, stack.person("Grace").await);
    let room = room_of(&ada, &[&grace]).await;

    let mut socket = looking(Some(&grace.token)).await;
    let subscribe = json!({"type": "subscribe", "room": room});
    socket.send(subscribe).await;
    let _ = socket.until("subscribed").await;
    let _ = ada.client.post(&room, "the first").await.ok();
    let (_, first) = socket.until("newMessage").await;
    let _ = ada.client.post(&room, "the second").await.ok();
    let real = Real {
        token: &grace.token,
        room: &room,
        position: first["position"].as_str().unwrap(),
    };
    for sent in document.sent_by_clients() {
        for example in document.examples(&sent.key) {
            let token = (sent.key != "auth").then_some(grace.token.as_str());
            let frame = real.put_into(&example);
            is_answered_as_described(looking(token).await, &sent, frame).await;
        }
    }

    let mut of_grace = looking(Some(&grace.token)).await;
    let subscribe = json!({"type": "subscribe", "presence": true});
    of_grace.send(subscribe).await;
    let mut of_ada = looking(Some(&ada.token)).await;
    let _ = of_grace.until_presence(&ada.id, "online").await;
    of_ada
        .send(json!({"type": "typing", "room": room, "state": "start"}))
        .await;
    let _ = of_grace.until("typingPushed").await;
    everything_is_pushed(&stack, &ada, &grace, &mut of_grace).await;
    drop(of_ada);
    let offline = of_grace.until_presence(&ada.id, "offline").await;
    assert!(offline["lastSeen"].is_string(), "{offline}");

    let mut expected = document.sent_by_servers();
    match stack.options().backend {
        Backend::Distributed | Backend::Cluster => {
            stack.kill(Service::Nats);
            let _ = of_grace.until("degraded").await;
            stack.restart(Service::Nats).await;
            let _ = of_grace.until("restored").await;
        }
        // Between the gateway and its log is nothing that could fail here.
        Backend::Embedded => expected.retain(|key| key != "degraded" && key != "restored"),
    }
    assert_eq!(*seen.0.lock().unwrap(), expected);
}

/// Sends an example and looks at all that comes before the answer to a ping after it.
async fn is_answered_as_described(mut socket: Looking<'_>, sent: &Sent, frame: Value) {
    println!("{frame}");
    let after = frame["after"].is_string();
    socket.send(frame.clone()).await;
    if sent.answers == ["error"] {
        // Silence is consent.
        socket.send(json!({"type": "ping"})).await;
        let (before, _) = socket.until("pong").await;
        assert!(before.is_empty(), "{frame} is answered with {before:?}");
        return;
    }
    let (key, answer) = socket.next().await;
    assert_eq!(Some(&key), sent.answers.first(), "{frame}: {answer}");
    assert_eq!(answer["room"], frame["room"], "{frame}");
    if after {
        assert_eq!(answer["recovered"], true, "{frame}: {answer}");
        let (before, replayed) = socket.until("replayed").await;
        assert!(sent.answers.contains(&"replayed".to_owned()));
        let events = before.iter().filter(|key| *key != "presence").count();
        assert_eq!(replayed["count"], events, "{before:?}");
        assert_eq!(events, 1, "{before:?}");
    }
}

/// Does everything that changes a room, which is pushed in this order, and asks for one that is gone.
async fn everything_is_pushed(
    stack: &Stack,
    ada: &Person,
    grace: &Person,
    of_grace: &mut Looking<'_>,
) {
    let hedy = stack.person("Hedy").await;
    let room = room_of(ada, &[grace, &hedy]).await;
    let (_, created) = of_grace.until("roomCreated").await;
    assert_eq!(created["room"], room.as_str());
    let posted = ada.client.post(&room, "for Grace").await.ok();
    let (_, pushed) = of_grace.until("newMessage").await;
    assert_eq!(pushed["message"], posted["post"]);
    let _ = grace.client.mark_read(&room).await.ok();
    let _ = of_grace.until("conversationRead").await;
    let message = posted["post"]["postId"].as_str().unwrap();
    let edited = ada.client.edit(&room, message, "for Hedy").await.ok();
    let (_, pushed) = of_grace.until("messageEdited").await;
    assert_eq!(pushed["edit"], edited["edit"]);
    let _ = ada.client.delete_message(message).await.ok();
    let _ = of_grace.until("messageDeleted").await;
    let _ = ada.client.delete_room(&room).await.ok();
    let _ = of_grace.until("roomDeleted").await;
    let subscribe = json!({"type": "subscribe", "room": room});
    of_grace.send(subscribe).await;
    let (_, refusal) = of_grace.until("error").await;
    assert_eq!(refusal["code"], "unknown_room");
}

on_every_stack!(Auth::Open; the_description_is_true);
