//! contract/asyncapi.json describes the protocol as the code has it: every message with its fields, every
//! code, and the shapes that HTTP has as well. That the messages are sent as described is for the
//! black-box suites (tests/tests/asyncapi.rs).
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};

use contract::{Edit, Post, User};
use event_log::Incarnation;
use events::{
    Envelope, Event, MessageEdited, MessageId, MessagePosted, Position, Room, RoomId,
    RoomInitiated, RoomType, Timestamp, UserId,
};
use gateway_ws::Limits;
use gateway_ws::protocol::{
    Change, ClientFrame, Cursor, ErrorCode, LogTag, Presence, ServerFrame, Typing, close,
};
use serde_json::{Value, json};

const ROOM: &str = "0123456789abcdef0123456789abcdef";
const USER: &str = "fedcba9876543210fedcba9876543210";

fn document() -> Value {
    serde_json::from_str(contract::ASYNCAPI).unwrap()
}

/// The messages that operations of this action have, and with `receive` not their answers: by name.
fn messages(document: &Value, action: &str) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for operation in document["operations"].as_object().unwrap().values() {
        let answers = &operation["reply"]["messages"];
        let (named, others) = (&operation["messages"], &Value::Null);
        let lists = match (operation["action"] == action, action) {
            (true, _) => [named, others],
            (false, "send") => [answers, others],
            (false, _) => [others, others],
        };
        for reference in lists.into_iter().filter_map(Value::as_array).flatten() {
            let message = follow(document, follow(document, reference));
            let name = message["name"].as_str().unwrap();
            found.insert(name.to_owned(), message.clone());
        }
    }
    found
}

fn follow<'a>(document: &'a Value, reference: &Value) -> &'a Value {
    let pointer = reference["$ref"].as_str().unwrap().trim_start_matches('#');
    document.pointer(pointer).expect(pointer)
}

fn names(names: &Value) -> BTreeSet<&str> {
    names
        .as_array()
        .into_iter()
        .flatten()
        .map(|it| it.as_str().unwrap())
        .collect()
}

fn fields(object: &Value) -> BTreeSet<&str> {
    let fields = object.as_object().unwrap();
    fields.keys().map(String::as_str).collect()
}

fn refusal(frame: &Value) -> String {
    ClientFrame::read(&frame.to_string()).unwrap_err().message
}

#[test]
fn what_clients_may_send_is_described() {
    let document = document();
    let described = messages(&document, "receive");
    let possible = refusal(&json!({"type": "dance"}));
    let (_, possible) = possible.split_once("possible types are ").unwrap();
    let possible = possible.replace(" and ", ", ");
    let possible: BTreeSet<&str> = possible.split(", ").collect();
    let found: BTreeSet<&str> = described.keys().map(String::as_str).collect();
    assert_eq!(found, possible);

    for (name, message) in &described {
        let schema = &message["payload"];
        assert_eq!(schema["properties"]["type"]["const"], name.as_str());
        assert_eq!(schema["additionalProperties"], false, "{name}");
        let known = refusal(&json!({"type": name, "dance": 1}));
        let (_, known) = known.split_once("its type has these: ").unwrap();
        assert_eq!(
            fields(&schema["properties"]),
            known.split(", ").collect(),
            "{name}"
        );

        for example in message["examples"].as_array().unwrap() {
            let payload = &example["payload"];
            let read = ClientFrame::read(&payload.to_string());
            assert!(read.is_ok(), "{payload}: {read:?}");
            // What is required is, and nothing else.
            for field in fields(payload) {
                let mut without = payload.clone();
                without.as_object_mut().unwrap().remove(field);
                let is_refused = ClientFrame::read(&without.to_string()).is_err();
                let is_required = names(&schema["required"]).contains(field);
                assert_eq!(is_refused, is_required, "{payload} without {field}");
            }
        }
    }
}

#[test]
fn what_clients_are_sent_is_described() {
    let document = document();
    let mut described = messages(&document, "send");
    for (frame, required_only) in frames_of_every_type() {
        let frame: Value = serde_json::from_str(&frame).unwrap();
        let required_only: Value = serde_json::from_str(&required_only).unwrap();
        let name = frame["type"].as_str().unwrap();
        let message = described.remove(name);
        let message = message.unwrap_or_else(|| panic!("{name} is not described"));
        let schema = &message["payload"];
        assert_eq!(schema["properties"]["type"]["const"], name);
        assert_eq!(fields(&schema["properties"]), fields(&frame), "{name}");
        assert_eq!(names(&schema["required"]), fields(&required_only), "{name}");
    }
    assert!(described.is_empty(), "nothing sends these: {described:?}");
}

#[test]
fn every_code_is_described_here_and_on_the_page() {
    let document = document();
    let page = include_str!("../../docs/websocket.md");
    let errors = &document["components"]["schemas"]["ErrorCode"]["oneOf"];
    let described: BTreeSet<&str> = errors
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["const"].as_str().unwrap())
        .collect();
    let codes: BTreeSet<&str> = ErrorCode::ALL.iter().map(|it| it.as_str()).collect();
    assert_eq!(described, codes);

    let closes = &document["channels"]["ws"]["x-close-codes"];
    let codes: BTreeSet<String> = close::ALL.iter().map(u16::to_string).collect();
    assert_eq!(fields(closes), codes.iter().map(String::as_str).collect());
    let on_page = |code: &str| page.contains(&format!("\n| {code} |"));
    assert!(described.iter().all(|code| on_page(&format!("`{code}`"))));
    assert!(codes.iter().all(|code| on_page(code)));
}

#[test]
fn the_page_has_the_limits_as_they_are() {
    let page = include_str!("../../docs/websocket.md");
    // Named in full, so that a new one is missed here.
    let Limits {
        message_bytes,
        queue_frames,
        queue_bytes,
        recent_events: _,
        subscriptions,
        watched_users,
        connections_per_user,
        frames_per_second,
        frame_burst,
        typing_per_second,
        auth_timeout,
        ping_interval,
        close_timeout,
        shutdown_spread,
    } = Limits::default();
    for (what, limit) in [
        (
            "a message from the client",
            format!("{} KiB", message_bytes >> 10),
        ),
        ("frames that wait for the client", format!("{queue_frames}")),
        (
            "bytes that wait for the client",
            format!("{} MiB", queue_bytes >> 20),
        ),
        (
            "rooms subscribed to one by one, or muted",
            format!("{subscriptions}"),
        ),
        ("users whose presence is pushed", format!("{watched_users}")),
        (
            "connections of a user to one gateway",
            format!("{connections_per_user}"),
        ),
        (
            "frames from the client",
            format!("{frames_per_second} a second, {frame_burst} at once"),
        ),
        (
            "`typing` from the client",
            format!(
                "{typing_per_second} a second, {} at once",
                typing_per_second * 2
            ),
        ),
        (
            "time to authenticate",
            format!("{} s", auth_timeout.as_secs()),
        ),
        (
            "silence until a ping; until the end",
            format!(
                "{} s; {} s",
                ping_interval.as_secs(),
                ping_interval.as_secs() * 2
            ),
        ),
        (
            "time to answer a close frame",
            format!("{} s", close_timeout.as_secs()),
        ),
        (
            "time over which a gateway that stops closes its sockets",
            format!("{} s", shutdown_spread.as_secs()),
        ),
    ] {
        let row = format!("| {what} | {limit} |");
        assert!(page.contains(&row), "docs/websocket.md has no row {row}");
    }
}

#[test]
fn shapes_are_those_of_http() {
    let document = document();
    let http: Value = serde_json::from_str(contract::OPENAPI).unwrap();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let shapes = http["components"]["schemas"].as_object().unwrap();
    let mut compared = 0;
    for (name, schema) in schemas {
        if let Some(shape) = shapes.get(name) {
            assert_eq!(schema, shape, "{name} is not as in contract/openapi.json");
            compared += 1;
        }
    }
    assert_eq!(compared, 6, "POST, USER, EDIT and what they consist of");
    assert_eq!(document["info"]["version"], http["info"]["version"]);
}

/// One frame of each type with every field it may have, and one with those that it must have.
fn frames_of_every_type() -> Vec<(String, String)> {
    let room: RoomId = ROOM.parse().unwrap();
    let user: UserId = USER.parse().unwrap();
    let at = Position::new(5);
    let position = Cursor {
        position: at,
        log: LogTag::of(&Incarnation("a log".to_owned())),
    };
    let now = Timestamp::now();
    let initiated = Event::RoomInitiated(RoomInitiated {
        room_id: room,
        room_type: RoomType::ConsumerToConsumer,
        members: vec![user],
        initiator: user,
        generation: 0,
    });
    let initiated = Envelope::new(initiated, Some(user), None);
    let initiated = Room::after(at, &initiated).unwrap();
    let posted = MessagePosted {
        room_id: room,
        author: user,
        message_text: Some("x".to_owned()),
    };
    let post = Post::new(at, now, &posted, &initiated, &[]);
    let users: Vec<User> = Vec::new();
    let message_id = MessageId::at(at);
    let edited = MessageEdited {
        room_id: room,
        message_id,
        author: user,
        posted_at: now,
        message_text: Some("y".to_owned()),
    };
    let edit = Edit::new(now, &edited).unwrap();

    let changes = [
        Change::NewMessage {
            room,
            position,
            message: &post,
        },
        Change::MessageEdited {
            room,
            position,
            edit: &edit,
        },
        Change::MessageDeleted {
            room,
            position,
            message_id,
        },
        Change::ConversationRead {
            room,
            position,
            user,
            up_to: message_id,
            read_at: now,
        },
        Change::RoomCreated {
            room,
            position,
            chat_room: (&initiated).into(),
            users: &users,
        },
        Change::RoomDeleted { room, position },
    ];
    let frames = [
        ServerFrame::Authenticated { user },
        ServerFrame::Subscribed {
            room: Some(room),
            position,
            recovered: false,
            reason: Some("x"),
        },
        ServerFrame::Replayed {
            room: Some(room),
            position,
            count: 1,
        },
        ServerFrame::Unsubscribed { room: Some(room) },
        ServerFrame::Typing {
            room,
            user,
            state: Typing::Start,
        },
        ServerFrame::Presence {
            user,
            status: Presence::Online,
            last_seen: None,
        },
        ServerFrame::Degraded,
        ServerFrame::Restored,
        ServerFrame::Pong,
        ServerFrame::Error {
            code: "x",
            message: "x",
            room: Some(room),
        },
    ];
    let changes = changes.iter().map(|change| {
        let whole = all_required(change).encode().to_string();
        (whole.clone(), whole)
    });
    let frames = frames.into_iter().map(|frame| {
        let whole = frame.encode().to_string();
        (whole, with_required_only(frame).encode().to_string())
    });
    frames.chain(changes).collect()
}

/// Names every change, so that a new one is missed here and added above. None has what may be absent.
fn all_required<'a>(change: &'a Change<'a>) -> &'a Change<'a> {
    match change {
        Change::NewMessage { .. }
        | Change::MessageEdited { .. }
        | Change::MessageDeleted { .. }
        | Change::ConversationRead { .. }
        | Change::RoomCreated { .. }
        | Change::RoomDeleted { .. } => change,
    }
}

/// Without what may be absent. Names every type, so that a new one is missed here and added above.
fn with_required_only(mut frame: ServerFrame<'_>) -> ServerFrame<'_> {
    match &mut frame {
        ServerFrame::Subscribed { room, reason, .. } => {
            *room = None;
            *reason = None;
        }
        ServerFrame::Replayed { room, .. }
        | ServerFrame::Unsubscribed { room }
        | ServerFrame::Error { room, .. } => *room = None,
        ServerFrame::Authenticated { .. }
        | ServerFrame::Typing { .. }
        | ServerFrame::Presence { .. }
        | ServerFrame::Degraded
        | ServerFrame::Restored
        | ServerFrame::Pong => {}
    }
    frame
}
