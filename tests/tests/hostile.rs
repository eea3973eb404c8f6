//! Hostile input from the network: requests made up from the description of the API, and WebSocket frames in any
//! order. What decoders make of hostile bytes by themselves is tested in `fuzz`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use hansard_tests::{
    Auth, Backend, Layout, Options, Person, Schemathesis, Service, Stack, WsClient, on_every_stack,
    room_of, run_with,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

// --- Requests ---

/// How many requests each operation is sent at random, beside those that cover its parameters one by one.
const EXAMPLES: u32 = 60;

#[test]
fn every_answer_is_as_described_on_the_embedded_stack() {
    answers_are_as_described(Backend::Embedded, Auth::Open);
}

#[test]
fn every_answer_is_as_described_on_the_distributed_stack() {
    answers_are_as_described(Backend::Distributed, Auth::Token);
}

fn answers_are_as_described(backend: Backend, auth: Auth) {
    let mut options = Options::new(backend, Layout::OneProcess, auth);
    // Exports wait for it.
    options.flags = vec!["--tree-head-seconds=1".to_owned()];
    run_with(options, async |stack: Stack| {
        let Some(schemathesis) = Schemathesis::prepare() else {
            return;
        };
        // Does everything, and is in none of the dictionaries, so that it is not deleted on the way.
        let ada = stack.auditor("Ada").await;
        let token = match auth {
            Auth::Open => ada.token.clone(),
            Auth::Token => stack.token_with_role(&ada.id, "support", "admin"),
        };
        let others = [
            stack.person("Grace").await,
            stack.person("Hedy").await,
            stack.person_of_type("Joan", "support").await,
        ];
        let mut rooms = Vec::new();
        let mut messages = Vec::new();
        for other in &others {
            let room = room_of(&ada, &[other]).await;
            for text in ["Hello", "Order, order!", "Hello, order"] {
                let answer = ada.client.post(&room, text).await.ok();
                messages.push(answer["post"]["postId"].as_str().unwrap().to_owned());
            }
            rooms.push(room);
        }
        let mut moments = messages.clone();
        moments.extend(
            ["2026-11-22T17:16:12.692Z", "2999-01-01T00:00:00Z", "1", "7"].map(str::to_owned),
        );
        let users = others.map(|person| person.id);

        let schemathesis = schemathesis
            .with("users", &users)
            .with("rooms", &rooms)
            .with("messages", &messages)
            .with("moments", &moments);
        schemathesis.attack(&stack, &token, EXAMPLES, 1).await;

        nobody_panicked(&stack);
        let _ = ada.client.conversations("").await.ok();
    });
}

// --- Frames ---

/// How many connections are made, and how many frames each is sent at most.
const CONNECTIONS: usize = 40;
const FRAMES: usize = 30;

/// With these the server may close a connection because of what it was sent: not as RFC 6455 wants it, too
/// large, unauthorized.
const CLOSES: [u16; 3] = [1002, 1009, 4001];

/// A frame to be sent.
#[derive(Debug, Clone)]
enum Sent {
    /// It may be answered, or not.
    Sound(Value),
    /// It must be refused.
    Broken(Message),
}

async fn frames_in_any_order_are_answered_or_refused(stack: Stack) {
    let ada = stack.person("Ada").await;
    let grace = stack.person("Grace").await;
    let room = room_of(&ada, &[&grace]).await;
    let post = ada.client.post(&room, "Hello").await.ok();
    let message = post["post"]["postId"].as_str().unwrap().to_owned();

    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[1; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let conversations = (any::<bool>(), vec(frame(&ada, &room, &message), 0..FRAMES));
    for _ in 0..CONNECTIONS {
        let (with_token, frames) = conversations.new_tree(&mut runner).unwrap().current();
        let token = with_token.then_some(ada.token.as_str());
        let socket = WsClient::connect(&stack.ws_url(), token).await;
        converse(socket, &frames).await;
    }

    nobody_panicked(&stack);
    let mut socket = stack.socket(&grace).await;
    socket.subscribe(&room, None).await;
}

/// Sends the frames, and sees that as many as are broken are refused.
async fn converse(mut socket: WsClient, frames: &[Sent]) {
    let mut broken = 0;
    for sent in frames {
        let message = match sent {
            Sent::Sound(frame) => Message::text(frame.to_string()),
            Sent::Broken(message) => {
                broken += 1;
                message.clone()
            }
        };
        if socket.try_send_raw(message).await.is_err() {
            break;
        }
    }
    // Its answer comes after all others; where the connection is closed, the code says why.
    let _ = socket.try_send(json!({"type": "ping", "last": true})).await;
    let mut refused = 0;
    loop {
        match socket.next_or_close().await {
            Ok(frame) if frame["type"] == "error" => {
                for field in ["code", "message"] {
                    let text = frame[field].as_str().unwrap_or_default();
                    assert!(!text.is_empty(), "{frame}");
                }
                refused += 1;
                // The last one is broken as well, for an answer that nothing else has.
                if refused > broken {
                    return;
                }
            }
            Ok(frame) => assert!(frame["type"].is_string(), "{frame}"),
            Err(code) => {
                let expected = code.is_some_and(|code| CLOSES.contains(&code));
                assert!(expected, "closed with {code:?} after {frames:?}");
                return;
            }
        }
    }
}

fn frame(person: &Person, room: &str, message: &str) -> impl Strategy<Value = Sent> + use<> {
    let sound = sound(person, room, message);
    let misspelt = (sound.clone(), "[a-z]{1,8}", text()).prop_map(|(mut frame, field, text)| {
        // No type has fields that begin so.
        frame[format!("x{field}")] = text.into();
        Message::text(frame.to_string())
    });
    let of_wrong_type = (sound.clone(), text()).prop_map(|(mut frame, text)| {
        frame["type"] = format!("x{text}").into();
        Message::text(frame.to_string())
    });
    let wrong_room = (sound.clone(), text()).prop_map(|(mut frame, text)| {
        frame["type"] = "subscribe".into();
        frame["room"] = text.into();
        Message::text(frame.to_string())
    });
    let broken = prop_oneof![
        misspelt,
        of_wrong_type,
        wrong_room,
        text().prop_map(Message::text),
        vec(any::<u8>(), 0..40).prop_map(Message::binary),
        Just(Message::text("[".repeat(10_000))),
    ];
    prop_oneof![
        3 => sound.prop_map(Sent::Sound),
        2 => broken.prop_map(Sent::Broken),
    ]
}

fn sound(
    person: &Person,
    room: &str,
    message: &str,
) -> impl Strategy<Value = Value> + Clone + use<> {
    let (room, token) = (room.to_owned(), person.token.clone());
    let after = prop_oneof![
        Just(Value::Null),
        Just(json!(message)),
        Just(json!("0000000000000000")),
        Just(json!("ffffffffffffffff")),
        Just(json!("0000000000000001-00000000")),
    ];
    (0..7, after, any::<bool>()).prop_map(move |(which, after, flag)| match which {
        0 => json!({"type": "ping"}),
        1 => json!({"type": "auth", "token": token}),
        2 => json!({"type": "subscribe", "room": room, "after": after, "presence": flag}),
        3 => json!({"type": "subscribe", "after": after, "presence": flag}),
        4 => json!({"type": "unsubscribe", "room": room}),
        5 => json!({"type": "unsubscribe"}),
        _ => json!({"type": "typing", "room": room, "state": if flag { "start" } else { "stop" }}),
    })
}

/// Any text that means nothing.
fn text() -> impl Strategy<Value = String> + Clone {
    "\\PC{0,30}|[\\[\\]{}\":,0-9a-z]{0,30}"
}

on_every_stack!(Auth::Open; frames_in_any_order_are_answered_or_refused);

// --- Both ---

/// A request that makes its handler panic is answered with 500, a socket's task just ends.
fn nobody_panicked(stack: &Stack) {
    for service in Service::OWN {
        let output = stack.output(service);
        assert!(!output.contains("panicked"), "{service:?}: {output}");
    }
}
