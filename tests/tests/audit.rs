//! Audits: a known history, read back as a stream by an auditor and with `hansard replay`, whole and in parts,
//! and the same through both.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use hansard_tests::{Answer, Person, Shapes, Stack, TestClient, on_every_stack};
use reqwest::Method;
use serde_json::{Value, json};

/// Who and what the history is about.
struct History {
    ada: Person,
    grace: Person,
    sam: Person,
    /// Sam, with the role auditor.
    auditor: TestClient,
    /// Of Ada and Grace; deleted in the end.
    first_room: String,
    /// Of Ada and Sam.
    second_room: String,
    /// Grace's message, which Sam deleted.
    message: String,
    /// The type and position of each event, as the commands' answers said.
    events: Vec<(&'static str, String)>,
}

const TEXT: &str = "line one\nline two \u{1b}[31m \"quoted\" \u{202e}👋 é";

impl History {
    async fn make(stack: &Stack) -> Self {
        let mut events = Vec::new();
        let mut people = Vec::new();
        for (name, user_type) in [
            ("Ada", "consumer"),
            ("Grace", "consumer"),
            ("Sam", "support"),
        ] {
            let answer = stack
                .operator()
                .create_user(name, "Lovelace", user_type)
                .await;
            let created = happened(&mut events, "user.created", answer);
            let id = created["user"]["_id"].as_str().unwrap().to_owned();
            let token = stack.token(&id, user_type);
            let client = stack.client().with_token(&token);
            people.push(Person { id, token, client });
        }
        let [ada, grace, sam]: [Person; 3] = people.try_into().unwrap();
        let room = |answer: Value| {
            answer["chatRoom"]["chatRoomId"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        let post = |answer: Value| answer["post"]["postId"].as_str().unwrap().to_owned();

        let answer = ada
            .client
            .initiate(&[&grace.id], "consumer-to-consumer")
            .await;
        let first_room = room(happened(&mut events, "room.initiated", answer));
        // Found and not made: no event.
        let _ = grace
            .client
            .initiate(&[&ada.id], "consumer-to-consumer")
            .await
            .ok();
        let answer = ada.client.post(&first_room, TEXT).await;
        post(happened(&mut events, "message.posted", answer));
        let keyed = grace.client.with_header("idempotency-key", "key-1");
        let answer = keyed.post(&first_room, "to be deleted").await;
        let message = post(happened(&mut events, "message.posted", answer));
        // Sent again: no event.
        assert_eq!(
            post(keyed.post(&first_room, "to be deleted").await.ok()),
            message
        );
        let answer = ada.client.mark_read_up_to(&first_room, &message).await;
        happened(&mut events, "conversation.read", answer);
        let answer = sam.client.delete_message(&message).await;
        happened(&mut events, "message.deleted", answer);
        let answer = ada.client.initiate(&[&sam.id], "consumer-to-support").await;
        let second_room = room(happened(&mut events, "room.initiated", answer));
        let answer = sam.client.post(&second_room, "How may I help?").await;
        happened(&mut events, "message.posted", answer);
        // Refused: no event.
        grace
            .client
            .post(&second_room, "me too")
            .await
            .refused(403, "only members of the room may do this");
        let answer = ada.client.delete_room(&first_room).await;
        happened(&mut events, "room.deleted", answer);
        let answer = sam.client.delete_user(&grace.id).await;
        happened(&mut events, "user.deleted", answer);
        assert_eq!(events.len(), 12);
        Self {
            ada,
            grace,
            auditor: stack
                .client()
                .with_token(&stack.token_with_role(&sam.id, "support", "auditor")),
            sam,
            first_room,
            second_room,
            message,
            events,
        }
    }

    fn position(&self, index: usize) -> &str {
        &self.events[index].1
    }
}

fn happened(
    events: &mut Vec<(&'static str, String)>,
    event_type: &'static str,
    answer: Answer,
) -> Value {
    let position = answer.header("hansard-position").to_owned();
    assert_eq!(position.len(), 16, "{}", answer.text);
    events.push((event_type, position));
    answer.ok()
}

/// Those with personal texts have been sealed since the second.
fn version(event_type: &str) -> u8 {
    match event_type {
        "user.created" | "message.posted" => 2,
        _ => 1,
    }
}

fn lines(text: &str) -> Vec<Value> {
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

async fn the_record_is_read_back(stack: Stack) {
    let stack = stack.with_positions();
    let history = History::make(&stack).await;
    let auditor = &history.auditor;

    // All of it, in its order.
    let answer = auditor.audit_events("").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/x-ndjson");
    assert_eq!(answer.header("cache-control"), "no-store");
    let record = lines(&answer.text);
    let found: Vec<(&str, String)> = record
        .iter()
        .map(|line| {
            let event_type = line["event"]["type"].as_str().unwrap();
            (event_type, line["position"].as_str().unwrap().to_owned())
        })
        .collect();
    assert_eq!(found, history.events);
    the_events_are_whole(&history, &record);

    // Parts of it. The indexes are those of the history's events.
    let (ada, grace, sam) = (&history.ada.id, &history.grace.id, &history.sam.id);
    let (first, second) = (&history.first_room, &history.second_room);
    let (fourth, seventh) = (history.position(4), history.position(7));
    let decimal = u64::from_str_radix(fourth, 16).unwrap().to_string();
    let beyond = "f".repeat(16);
    let unknown = "0".repeat(32);
    let stored = |index: usize| record[index]["storedAt"].as_str().unwrap();
    let (early, late) = (stored(4), stored(7));
    let between = |from: &str, to: &str| -> Vec<usize> {
        (0..12)
            .filter(|index| from <= stored(*index) && stored(*index) <= to)
            .collect()
    };
    for (filter, expected) in [
        (vec![("room", first)], vec![3, 4, 5, 6, 7, 10]),
        (vec![("room", second)], vec![8, 9]),
        (vec![("room", &unknown)], vec![]),
        (vec![("user", ada)], vec![0, 3, 4, 6, 8, 10]),
        (vec![("user", grace)], vec![1, 3, 5, 7, 10, 11]),
        (vec![("user", sam)], vec![2, 7, 8, 9, 11]),
        (vec![("user", &unknown)], vec![]),
        (vec![("room", first), ("user", sam)], vec![7]),
        (vec![("room", second), ("user", grace)], vec![]),
        (vec![("from", &fourth.to_owned())], (4..12).collect()),
        (vec![("from", &decimal)], (4..12).collect()),
        (vec![("to", &fourth.to_owned())], (0..5).collect()),
        (
            vec![("from", &fourth.to_owned()), ("to", &seventh.to_owned())],
            (4..8).collect(),
        ),
        (
            vec![("from", &fourth.to_owned()), ("to", &fourth.to_owned())],
            vec![4],
        ),
        (
            vec![("from", &"0".to_owned()), ("to", &beyond)],
            (0..12).collect(),
        ),
        (vec![("from", &beyond)], vec![]),
        (vec![("from", &early.to_owned())], between(early, "9")),
        (vec![("to", &late.to_owned())], between("0", late)),
        (
            vec![("from", &early.to_owned()), ("to", &late.to_owned())],
            between(early, late),
        ),
        (vec![("from", &"2100-01-01T00:00:00Z".to_owned())], vec![]),
        (vec![("to", &"2000-01-01T00:00:00Z".to_owned())], vec![]),
        (
            vec![
                ("room", first),
                ("user", ada),
                ("from", &fourth.to_owned()),
                ("to", &late.to_owned()),
            ],
            between("0", late)
                .into_iter()
                .filter(|index| [4, 6].contains(index))
                .collect(),
        ),
    ] {
        let query: Vec<String> = filter
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let streamed = auditor.audit_events(&query.join("&")).await;
        assert_eq!(streamed.status, 200, "{query:?}: {}", streamed.text);
        let expected: Vec<&Value> = expected
            .into_iter()
            .map(|index: usize| &record[index])
            .collect();
        assert_eq!(
            lines(&streamed.text).iter().collect::<Vec<_>>(),
            expected,
            "{query:?}"
        );

        // The command gives the same, byte for byte.
        let flags: Vec<String> = filter
            .iter()
            .flat_map(|(name, value)| [format!("--{name}"), (*value).clone()])
            .collect();
        let mut arguments = vec!["replay", "--format", "jsonl"];
        arguments.extend(flags.iter().map(String::as_str));
        let printed = stack.hansard(&arguments);
        assert!(printed.status.success(), "{printed:?}");
        assert_eq!(
            String::from_utf8(printed.stdout).unwrap(),
            streamed.text,
            "{query:?}"
        );
        let summary = String::from_utf8(printed.stderr).unwrap();
        let events = match expected.len() {
            1 => "1 event,".to_owned(),
            count => format!("{count} events,"),
        };
        assert!(
            summary.contains(&format!("replayed {events}")),
            "{query:?}: {summary}"
        );
    }

    into_a_file_and_for_people(&stack, &history, &record, &answer.text);
    what_cannot_be_is_refused(&stack, &history).await;
}

/// Each event as it stands in the log, in the envelope that every event has.
fn the_events_are_whole(history: &History, record: &[Value]) {
    let mut seen = Shapes::new();
    let (ada, grace, sam) = (&history.ada.id, &history.grace.id, &history.sam.id);
    let (first, second) = (&history.first_room, &history.second_room);
    let sorted = |mut members: Vec<&str>| {
        members.sort_unstable();
        json!(members)
    };
    let lifecycle = |room: &str| format!("chat.room.{room}.lifecycle");
    let timeline = |room: &str| format!("chat.room.{room}.timeline");
    let person = |id: &str, name: &str, user_type: &str| {
        let data =
            json!({"userId": id, "firstName": name, "lastName": "Lovelace", "type": user_type});
        (format!("chat.user.{id}"), "<id>".to_owned(), data)
    };
    let room = |id: &str, other: &str, room_type: &str| {
        let members = sorted(vec![ada, other]);
        let data = json!({"roomId": id, "type": room_type, "members": members, "initiator": ada, "generation": 0});
        (lifecycle(id), ada.clone(), data)
    };
    let post = |room: &str, author: &str, text: &str| {
        let data = json!({"roomId": room, "author": author, "messageText": text});
        (timeline(room), author.to_owned(), data)
    };
    let mut deleted = room(first, grace, "consumer-to-consumer");
    deleted.2["initiatedAt"] = "<date>".into();
    let read = json!({"roomId": first, "reader": ada, "upTo": history.message});
    let removed = json!({"roomId": first, "messageId": history.message});
    let gone = json!({"userId": grace, "type": "consumer", "createdAt": "<date>"});
    let expected = [
        person(ada, "Ada", "consumer"),
        person(grace, "Grace", "consumer"),
        person(sam, "Sam", "support"),
        room(first, grace, "consumer-to-consumer"),
        post(first, ada, TEXT),
        post(first, grace, "to be deleted"),
        (timeline(first), ada.clone(), read),
        (timeline(first), sam.clone(), removed),
        room(second, sam, "consumer-to-support"),
        post(second, sam, "How may I help?"),
        deleted,
        (format!("chat.user.{grace}"), sam.clone(), gone),
    ];
    for (index, (line, (subject, actor, data))) in record.iter().zip(expected).enumerate() {
        let (event_type, position) = &history.events[index];
        let mut event = json!({
            "id": "<text>", "type": event_type, "v": version(event_type), "at": "<date>", "actor": actor, "data": data,
        });
        if index == 5 {
            event["key"] = "key-1".into();
        }
        let pattern =
            json!({"position": position, "storedAt": "<date>", "subject": subject, "event": event});
        seen.check(line, &pattern);
    }
}

fn into_a_file_and_for_people(stack: &Stack, history: &History, record: &[Value], jsonl: &str) {
    // Into a file, which is all that is written.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("record.jsonl");
    let name = file.to_str().unwrap();
    std::fs::write(&file, "an older record").unwrap();
    let printed = stack.hansard(&["replay", "--output", name]);
    assert!(printed.status.success(), "{printed:?}");
    assert_eq!(printed.stdout, b"");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), jsonl);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);

    // For people: a line an event, with nothing in it that a terminal obeys.
    let printed = stack.hansard(&["replay", "--format", "text", "--room", &history.first_room]);
    assert!(printed.status.success(), "{printed:?}");
    let text = String::from_utf8(printed.stdout).unwrap();
    let of_room: Vec<&Value> = [3, 4, 5, 6, 7, 10]
        .iter()
        .map(|index: &usize| &record[*index])
        .collect();
    assert_eq!(text.lines().count(), of_room.len(), "{text}");
    for (line, event) in text.lines().zip(of_room) {
        let member = |value: &Value| value.as_str().unwrap().to_owned();
        let beginning = format!(
            "{}  {}  {}  ",
            member(&event["storedAt"]),
            member(&event["position"]),
            member(&event["event"]["actor"])
        );
        assert!(line.starts_with(&beginning), "{line}");
        assert!(
            !line.contains(['\u{1b}', '\u{202e}']) && !line.contains(char::is_control),
            "{line}"
        );
    }
    assert!(text.contains("line one\\nline two "), "{text}");
    assert!(text.contains("\\\"quoted\\\""), "{text}");

    // What can't be read or written is said in a sentence, and nothing is left.
    let nowhere = directory.path().join("no/such/directory/record");
    for (arguments, sentence) in [
        (
            vec!["replay", "--output", nowhere.to_str().unwrap()],
            "can't write",
        ),
        (
            vec!["replay", "--from", "8", "--to", "7"],
            "ends before it begins",
        ),
        (
            vec![
                "replay",
                "--from",
                "2026-11-22T17:00:00Z",
                "--to",
                "2026-11-22T16:00:00Z",
            ],
            "ends before it begins",
        ),
        (
            vec!["replay", "--from", "yesterday"],
            "neither a time nor a position",
        ),
        (vec!["replay", "--to", "-1"], "-1"),
        (vec!["replay", "--room", "*"], "lower-case hex digits"),
        (vec!["replay", "--user", "Ada"], "lower-case hex digits"),
        (vec!["replay", "--format", "xml"], "jsonl"),
    ] {
        let refused = stack.hansard(&arguments);
        assert!(!refused.status.success(), "{arguments:?}");
        assert_eq!(refused.stdout, b"", "{arguments:?}");
        let text = String::from_utf8(refused.stderr).unwrap();
        assert!(text.contains(sentence), "{arguments:?}: {text}");
        assert!(!text.contains("panicked"), "{arguments:?}: {text}");
    }
}

async fn what_cannot_be_is_refused(stack: &Stack, history: &History) {
    let auditor = &history.auditor;
    const BOUND: &str = "neither a time nor a position: expected RFC 3339, for example \
                         2026-11-22T17:16:12.692Z, or 16 lower-case hex digits, or a decimal number";
    let backwards = "the range from 0000000000000008 to 0000000000000007 ends before it begins";
    for (query, errors) in [
        ("from=yesterday", json!({"from": BOUND})),
        ("from=&to=-1", json!({"from": BOUND, "to": BOUND})),
        ("from=8&to=7", json!({"to": backwards})),
        (
            "room=*",
            json!({"room": "not a room id: expected 32 lower-case hex digits"}),
        ),
        (
            "user=Ada",
            json!({"user": "not a user id: expected 32 lower-case hex digits"}),
        ),
        (
            "rooms=x",
            json!({"rooms": "unknown parameter; there are room, user, type, from, to and format"}),
        ),
        ("from=1&from=2", json!({"from": "given more than once"})),
    ] {
        assert_eq!(
            auditor.audit_events(query).await.wrong_fields(),
            errors,
            "{query}"
        );
    }

    // Auditors read the record, nobody else.
    let answer = stack.client().audit_events("").await;
    assert_eq!(answer.header("www-authenticate"), "Bearer");
    answer.refused(401, "No access token provided");
    stack
        .client()
        .with_token("x")
        .audit_events("")
        .await
        .refused(401, "jwt malformed");
    let consumer = &history.ada.client;
    let text = "only auditors and admins may read the record";
    consumer.audit_events("").await.refused(403, text);
    consumer
        .audit_events("from=yesterday")
        .await
        .refused(403, text);
    consumer
        .audit_events(&format!("user={}", history.ada.id))
        .await
        .refused(403, text);
    // Nobody changes it.
    for method in [Method::POST, Method::PUT, Method::DELETE] {
        let answer = auditor.send(method, "/audit/events", None).await;
        answer.refused(404, "API endpoint doesnt exist");
    }
    let again = lines(&auditor.audit_events("").await.text);
    assert_eq!(
        again.len(),
        history.events.len(),
        "reading the record leaves no trace in it"
    );
}

on_every_stack!(Auth::Token; the_record_is_read_back);
