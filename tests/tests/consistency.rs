//! What a client may rely on: it reads what it wrote, a repeated request has one effect, and everybody
//! sees one order.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures::future::join_all;
use hansard_tests::{
    Answer, Auditor, Listener, Person, Service, Stack, TestClient, assert_kept, eventually,
    on_every_stack, read_all, room_of,
};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

/// A command that took as long as this may have given up waiting for the projection.
const WAITED_IN_VAIN: Duration = Duration::from_millis(240);

/// Enough for reads to come between any two steps of a deletion.
const ROOMS_THAT_GO: usize = 30;

/// How long the projection may take on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// The position that a command was answered with.
fn position(answer: &Answer) -> String {
    let position = answer.header("hansard-position");
    assert!(
        position.len() == 16 && position.bytes().all(|it| it.is_ascii_hexdigit()),
        "{position:?} is no position: {}",
        answer.text
    );
    position.to_owned()
}

async fn posted(person: &Person, room: &str, text: &str) -> String {
    let answer = person.client.post(room, text).await;
    let position = position(&answer);
    let post = answer.ok();
    assert_eq!(post["post"]["postId"], position.as_str());
    position
}

// --- Reading what was written ---

async fn what_was_written_is_read_at_once(mut stack: Stack) {
    let grace = stack.person("Grace").await;
    let mut writers = Vec::new();
    for name in ["Ada", "Barbara", "Katherine", "Radia"] {
        let writer = stack.person(name).await;
        let room = room_of(&writer, &[&grace]).await;
        writers.push((writer, room));
    }
    let in_time = writers.iter().map(|(writer, room)| async move {
        let mut in_time = 0;
        for number in 0..50 {
            let text = format!("number {number}");
            let begun = Instant::now();
            let answer = writer.client.post(room, &text).await;
            let taken = begun.elapsed();
            let position = position(&answer);
            let reader = if taken < WAITED_IN_VAIN {
                in_time += 1;
                writer.client.clone()
            } else {
                // The answer did not promise it, so ask for what was written.
                writer.client.with_header("hansard-position", &position)
            };
            let page = reader.conversation(room, "limit=1").await.ok();
            assert_eq!(page["conversation"][0]["_id"], position.as_str(), "{text}");
            if number % 5 == 0 {
                let recent = reader.conversations("limit=1").await.ok();
                assert_eq!(recent["conversation"][0]["messageId"], position.as_str());
            }
        }
        in_time
    });
    let in_time: usize = join_all(in_time).await.into_iter().sum();
    assert!(
        in_time >= 100,
        "only {in_time} of 200 posts were readable in time"
    );

    every_command_is_read_back(&stack).await;
    answers_without_waiting(&mut stack, &writers[0].0, &writers[0].1).await;
    positions_that_are_none(&stack, &writers[0].0).await;
}

/// Asserts that a query answers so, asking for what `command` wrote.
async fn then(
    command: Answer,
    query: impl AsyncFn(TestClient) -> Answer,
    client: &TestClient,
) -> Value {
    let position = position(&command);
    let _ = command.ok();
    query(client.with_header("hansard-position", &position))
        .await
        .ok()
}

async fn every_command_is_read_back(stack: &Stack) {
    let ada = stack.person("Ada").await;
    let grace = stack.person("Grace").await;
    let anybody = stack.client();

    let created = anybody.create_user("Hedy", "Lamarr", "consumer").await;
    let hedy = created.json["user"]["_id"].as_str().unwrap().to_owned();
    let read = then(
        created,
        async |it: TestClient| it.user(&hedy).await,
        &anybody,
    )
    .await;
    assert_eq!(read["user"]["firstName"], "Hedy");

    let initiated = ada
        .client
        .initiate(&[&grace.id], "consumer-to-consumer")
        .await;
    let room = initiated.json["chatRoom"]["chatRoomId"]
        .as_str()
        .unwrap()
        .to_owned();
    let whole = async |it: TestClient| it.conversation(&room, "").await;
    let read = then(initiated, whole, &ada.client).await;
    assert_eq!(read["conversation"], json!([]));

    // Who only finds the room can read it as well.
    let found = grace
        .client
        .initiate(&[&ada.id], "consumer-to-consumer")
        .await;
    assert_eq!(found.json["chatRoom"]["isNew"], false);
    let read = then(found, whole, &grace.client).await;
    assert_eq!(read["users"].as_array().unwrap().len(), 2);

    let message = posted(&ada, &room, "one").await;
    let last = posted(&ada, &room, "two").await;
    let deleted = ada.client.delete_message(&message).await;
    assert_eq!(deleted.json["deletedMessagesCount"], 1);
    let read = then(deleted, whole, &grace.client).await;
    assert_eq!(read["conversation"][0]["_id"], message.as_str(), "{read}");
    assert_eq!(read["conversation"][0]["deleted"], true, "{read}");
    assert_eq!(read["conversation"][1]["_id"], last.as_str());
    let again = ada.client.delete_message(&message).await;
    assert_eq!(again.json["deletedMessagesCount"], 0);
    position(&again);

    let marked = grace.client.mark_read(&room).await;
    let recent = async |it: TestClient| it.conversations("").await;
    let read = then(marked, recent, &grace.client).await;
    assert_eq!(read["conversation"][0]["unreadCount"], 0, "{read}");

    let deleted = ada.client.delete_room(&room).await;
    let read = then(deleted, recent, &ada.client).await;
    assert_eq!(read["conversation"], json!([]));
    position(&ada.client.delete_room(&room).await);

    let deleted = anybody.delete_user(&hedy).await;
    let read = then(deleted, async |it: TestClient| it.users().await, &anybody).await;
    let users = read["users"].as_array().unwrap();
    assert!(
        users.iter().all(|user| user["_id"] != hedy.as_str()),
        "{read}"
    );
    position(&anybody.delete_user(&hedy).await);
}

async fn answers_without_waiting(stack: &mut Stack, ada: &Person, room: &str) {
    let hasty = Person {
        client: ada.client.with_header("prefer", "respond-async"),
        ..ada.clone()
    };
    let replica = stack.replica(Service::QueryApi).await;
    let replica = replica.with_token(&ada.token);
    for number in 0..20 {
        let answer = hasty.client.post(room, &format!("hasty {number}")).await;
        assert_eq!(answer.header("preference-applied"), "respond-async");
        let position = position(&answer);
        let _ = answer.ok();
        let reader = replica.with_header("hansard-position", &position);
        let page = reader.conversation(room, "limit=1").await.ok();
        assert_eq!(page["conversation"][0]["_id"], position.as_str());
    }
    // Without a position it is there soon, too.
    let last = posted(&hasty, room, "hasty at last").await;
    eventually("what was posted without waiting", SOON, || async {
        let page = ada.client.conversation(room, "limit=1").await.ok();
        (page["conversation"][0]["_id"] == last.as_str()).then_some(())
    })
    .await;
    assert_eq!(
        ada.client
            .conversations("")
            .await
            .header("preference-applied"),
        ""
    );
}

async fn positions_that_are_none(stack: &Stack, ada: &Person) {
    let queries = [
        "/users".to_owned(),
        format!("/users/{}", ada.id),
        "/room".to_owned(),
    ];
    for query in &queries {
        for wrong in [
            "",
            "12",
            "xyz",
            "00000000000000AB",
            "0000000000000001 ",
            "00000000000000000",
        ] {
            // Spaces around a header's value are not part of it (RFC 9110, section 5.5).
            if wrong.trim() != wrong {
                continue;
            }
            let answer = ada
                .client
                .with_header("hansard-position", wrong)
                .get(query)
                .await;
            assert_eq!(answer.expect(400)["success"], false, "{wrong:?}");
        }
    }
    let begun = Instant::now();
    let client = ada
        .client
        .with_header("hansard-position", "00000000ffffffff");
    let answers = join_all(queries.iter().map(|query| client.get(query))).await;
    for answer in answers {
        let seconds: u64 = answer.header("retry-after").parse().unwrap();
        assert!((1..=60).contains(&seconds));
        assert_eq!(answer.expect(503)["success"], false);
    }
    let taken = begun.elapsed();
    assert!((1..15).contains(&taken.as_secs()), "{taken:?}");
    assert_eq!(stack.client().get("/users").await.status, 200);
}

// --- Repeating requests ---

/// A command that can be sent again.
#[derive(Debug, Clone)]
struct Request {
    client: TestClient,
    method: Method,
    path: String,
    body: Option<Value>,
}

impl Request {
    fn new(client: &TestClient, method: Method, path: String, body: Option<Value>) -> Self {
        let client = client.clone();
        Self {
            client,
            method,
            path,
            body,
        }
    }

    async fn send(&self, key: &str) -> Answer {
        let client = self.client.with_header("idempotency-key", key);
        client
            .send(self.method.clone(), &self.path, self.body.clone())
            .await
    }
}

/// Sends a request again and again, one after the other and all at once; gives the one answer.
async fn repeated(request: &Request, key: &str) -> (String, Value) {
    // At once first: then nobody has finished it yet.
    let mut answers = join_all((0..10).map(|_| request.send(key))).await;
    // One that did not give up waiting, and so has its counts.
    let last = eventually("an answer in time", SOON, || async {
        let begun = Instant::now();
        let answer = request.send(key).await;
        (begun.elapsed() < WAITED_IN_VAIN).then_some(answer)
    })
    .await;
    answers.push(last.clone());
    for answer in answers {
        let answer = (position(&answer), without_counts(answer.ok()));
        let first = (position(&last), without_counts(last.json.clone()));
        assert_eq!(answer, first, "{}", request.path);
    }
    (position(&last), last.ok())
}

/// An answer without what may be missing from it while the projection lags behind.
fn without_counts(mut answer: Value) -> Value {
    if answer["data"].is_object() {
        answer["data"] = Value::Null;
    }
    if answer["deletedRoomsCount"].is_number() {
        answer["deletedMessagesCount"] = Value::Null;
    }
    answer
}

async fn a_repeated_command_has_one_effect(mut stack: Stack) {
    let ada = stack.person("Ada").await;
    let grace = stack.person("Grace").await;
    let hedy = stack.person("Hedy").await;
    let auditor = Auditor::new(&stack).await;
    let room = room_of(&ada, &[&grace]).await;
    let doomed = room_of(&ada, &[&grace, &hedy]).await;
    let message = posted(&ada, &room, "soon deleted").await;
    posted(&ada, &doomed, "soon gone").await;
    let listener = Listener::start(&stack, &grace, &room);
    listener.heard(1).await;
    let before = auditor.events("").await.len();

    let user = json!({"firstName": "Joan", "lastName": "Clarke", "type": "consumer"});
    let pair = json!({"userIds": [hedy.id], "type": "consumer-to-consumer"});
    let text = json!({"messageText": "once"});
    let requests = [
        Request::new(&ada.client, Method::POST, "/users".into(), Some(user)),
        Request::new(
            &ada.client,
            Method::POST,
            "/room/initiate".into(),
            Some(pair),
        ),
        Request::new(
            &ada.client,
            Method::POST,
            format!("/room/{room}/message"),
            Some(text),
        ),
        Request::new(
            &ada.client,
            Method::DELETE,
            format!("/delete/message/{message}"),
            None,
        ),
        Request::new(
            &grace.client,
            Method::PUT,
            format!("/room/{room}/mark-read"),
            None,
        ),
        Request::new(
            &ada.client,
            Method::DELETE,
            format!("/delete/room/{doomed}"),
            None,
        ),
        Request::new(
            &ada.client,
            Method::DELETE,
            format!("/users/{}", hedy.id),
            None,
        ),
    ];
    let mut sent = Vec::new();
    for request in requests {
        let key = Uuid::new_v4().to_string();
        let answer = repeated(&request, &key).await;
        sent.push((request, key, answer));
    }
    let answers: Vec<&Value> = sent.iter().map(|(_, _, (_, answer))| answer).collect();
    assert_eq!(answers[1]["chatRoom"]["isNew"], true);
    assert_eq!(answers[3]["deletedMessagesCount"], 1);
    assert_eq!(answers[4]["data"]["n"], 1, "the other one is deleted");
    assert_eq!(answers[5]["deletedRoomsCount"], 1);
    assert_eq!(answers[6]["message"], "Deleted a count of 1 user.");
    assert_eq!(auditor.events("").await.len(), before + sent.len());

    // By another process, and by one that was started since.
    let replica = stack
        .replica(Service::CommandApi)
        .await
        .with_token(&ada.token);
    stack.restart(Service::CommandApi).await;
    for (request, key, answer) in &sent {
        let mut elsewhere = request.clone();
        if request.method != Method::PUT {
            elsewhere.client = replica.clone();
        }
        for request in [request, &elsewhere] {
            let again = request.send(key).await;
            assert_eq!(position(&again), answer.0, "{}", request.path);
            let (again, first) = (again.ok(), answer.1.clone());
            assert_eq!(without_counts(again), without_counts(first));
        }
    }
    assert_eq!(auditor.events("").await.len(), before + sent.len());

    keys_stand_for_one_request(&stack, &sent[2].0, &sent[2].1, &ada, &grace, &room).await;
    // The two by the key's other owners; the first post was before the others.
    assert_eq!(auditor.events("").await.len(), before + sent.len() + 2);
    posted(&ada, &room, "the last word").await;
    let heard = listener.heard(5).await;
    let texts: Vec<&str> = heard.iter().map(|said| said.text.as_str()).collect();
    assert_eq!(
        texts,
        ["soon deleted", "once", "once", "once", "the last word"],
        "a repeated post was pushed again"
    );
    let deleted = format!("deleted {message}");
    let notices = listener.notices();
    let deletions = notices.iter().filter(|notice| **notice == deleted).count();
    assert_eq!(
        deletions, 1,
        "a repeated deletion was pushed again: {notices:?}"
    );
}

/// The same key with another request is refused, and means nothing with another actor.
async fn keys_stand_for_one_request(
    stack: &Stack,
    post: &Request,
    key: &str,
    ada: &Person,
    grace: &Person,
    room: &str,
) {
    let with_key = ada.client.with_header("idempotency-key", key);
    let others = [
        with_key.post(room, "another text").await,
        with_key.mark_read(room).await,
        with_key.initiate(&[&grace.id], "consumer-to-support").await,
        with_key.create_user("Joan", "Clarke", "consumer").await,
        with_key.delete_user(&grace.id).await,
    ];
    for answer in others {
        assert_eq!(answer.expect(422)["success"], false);
    }
    let mut by_grace = post.clone();
    by_grace.client = grace.client.clone();
    repeated(&by_grace, key).await;
    // Somebody else again, of the same first letters.
    let longer = format!("{key}+");
    repeated(post, &longer).await;
    for wrong in ["", "two words", &"k".repeat(256), "\u{7f}"] {
        let Ok(value) = reqwest::header::HeaderValue::from_bytes(wrong.as_bytes()) else {
            continue;
        };
        let body = json!({"messageText": "never"});
        let path = format!("/room/{room}/message");
        let request = ada.client.request(Method::POST, &path, Some(body));
        let status = request
            .header("idempotency-key", value)
            .send()
            .await
            .unwrap()
            .status();
        assert_eq!(status, 400, "{wrong:?}");
    }
    assert_eq!(stack.client().user(&grace.id).await.status, 200);
}

// --- One order, and counts ---

async fn a_hot_room_has_one_order(stack: Stack) {
    let ada = stack.person("Ada").await;
    let grace = stack.person("Grace").await;
    let reader = stack.person("Hedy").await;
    let room = room_of(&ada, &[&grace, &reader]).await;
    let listeners = [
        Listener::start(&stack, &ada, &room),
        Listener::start(&stack, &reader, &room),
    ];

    let acknowledged = join_all((0..64).map(|number| {
        let author = if number % 2 == 0 { &ada } else { &grace };
        let room = &room;
        async move {
            let mut said = Vec::new();
            for turn in 0..3 {
                let text = format!("voice-{number} {turn}");
                let id = posted(author, room, &text).await;
                said.push(hansard_tests::Said { id, text });
            }
            said
        }
    }));
    // Reading all the while: sometimes before, sometimes after what is being posted.
    let counted = async {
        let mut counted = 0;
        let mut all_in_time = true;
        for _ in 0..8 {
            let begun = Instant::now();
            let answer = reader.client.mark_read(&room).await.ok();
            all_in_time &= begun.elapsed() < WAITED_IN_VAIN;
            counted += answer["data"]["n"].as_u64().unwrap();
        }
        (counted, all_in_time)
    };
    let (acknowledged, (counted, all_in_time)) = tokio::join!(acknowledged, counted);

    let current = format!(
        "{:0>16}",
        acknowledged
            .iter()
            .flatten()
            .map(|it| &it.id)
            .max()
            .unwrap()
    );
    let up_to_date = reader.client.with_header("hansard-position", &current);
    let all = read_all(&up_to_date, &room).await;
    assert_kept(&all, &acknowledged);
    for listener in listeners {
        assert_eq!(listener.heard(all.len()).await, all);
    }

    let recent = up_to_date.conversations("").await.ok();
    let unread = recent["conversation"][0]["unreadCount"].as_u64().unwrap();
    let rest = eventually("the rest is counted", SOON, || async {
        let begun = Instant::now();
        let rest = up_to_date.mark_read(&room).await.ok()["data"]["n"]
            .as_u64()
            .unwrap();
        (rest > 0 || begun.elapsed() < WAITED_IN_VAIN).then_some(rest)
    })
    .await;
    if all_in_time {
        assert_eq!(counted + unread, 192, "each message becomes read once");
        assert_eq!(rest, unread);
    }
    let last = posted(&reader, &room, "enough").await;
    let reader = reader.client.with_header("hansard-position", &last);
    let recent = reader.conversations("").await.ok();
    assert_eq!(recent["conversation"][0]["unreadCount"], 0, "{recent}");
    let page = reader.conversation(&room, "limit=100").await.ok();
    for message in page["conversation"].as_array().unwrap() {
        let readers: Vec<&Value> = message["readByRecipients"]
            .as_array()
            .unwrap()
            .iter()
            .map(|receipt| &receipt["readByUserId"])
            .collect();
        let distinct: BTreeSet<String> = readers.iter().map(ToString::to_string).collect();
        assert_eq!(readers.len(), distinct.len(), "a receipt twice: {message}");
    }

    readings_reach_as_far_as_they_say(&stack).await;
}

/// Who has read each message of a room, oldest first, and how many are unread for `person`.
async fn receipts(person: &Person, position: &str, room: &str) -> (Vec<BTreeSet<String>>, u64) {
    let client = person.client.with_header("hansard-position", position);
    let page = client.conversation(room, "limit=100").await.ok();
    let readers = page["conversation"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| {
            let receipts = message["readByRecipients"].as_array().unwrap().iter();
            let readers = receipts.map(|it| it["readByUserId"].as_str().unwrap().to_owned());
            readers.collect()
        });
    let readers = readers.collect();
    let recent = client.conversations("").await.ok();
    let item = recent["conversation"]
        .as_array()
        .unwrap()
        .iter()
        .find(|item| item["_id"] == room)
        .unwrap_or_else(|| panic!("{room} is not in {recent}"));
    (readers, item["unreadCount"].as_u64().unwrap())
}

async fn readings_reach_as_far_as_they_say(stack: &Stack) {
    let ada = stack.person("Ada").await;
    let grace = stack.person("Grace").await;
    let room = room_of(&ada, &[&grace]).await;
    let elsewhere = room_of(&ada, &[&grace, &stack.person("Hedy").await]).await;
    let foreign = posted(&ada, &elsewhere, "elsewhere").await;
    let mut messages = Vec::new();
    for number in 0..10 {
        messages.push(posted(&ada, &room, &format!("number {number}")).await);
    }
    let end = messages[9].as_str();
    let by_ada = BTreeSet::from([ada.id.clone()]);
    let by_both = BTreeSet::from([ada.id.clone(), grace.id.clone()]);
    assert_eq!(
        receipts(&grace, end, &room).await,
        (vec![by_ada.clone(); 10], 10)
    );
    assert_eq!(receipts(&ada, end, &room).await.1, 0);

    let upto = async |message: &str, expected: u64| {
        let begun = Instant::now();
        let answer = grace.client.mark_read_up_to(&room, message).await;
        let position = position(&answer);
        let data = answer.ok()["data"].clone();
        if begun.elapsed() < WAITED_IN_VAIN {
            assert_eq!(data, json!({"n": expected, "nModified": expected, "ok": 1}));
        }
        position
    };
    let marked = upto(&messages[3], 4).await;
    let some = [vec![by_both.clone(); 4], vec![by_ada.clone(); 6]].concat();
    assert_eq!(receipts(&grace, &marked, &room).await, (some.clone(), 6));
    // Backwards is no unreading, and again is nothing new.
    for message in [&messages[1], &messages[3]] {
        let marked = upto(message, 0).await;
        assert_eq!(receipts(&grace, &marked, &room).await, (some.clone(), 6));
    }
    // A deleted message is not unread.
    let deleted = ada.client.delete_message(&messages[8]).await;
    let deleted = position(&deleted);
    assert_eq!(receipts(&grace, &deleted, &room).await.1, 5);
    // Up to a deleted message still means up to there.
    let marked = upto(&messages[8], 4).await;
    assert_eq!(receipts(&grace, &marked, &room).await.1, 1);

    for wrong in [foreign.as_str(), "00000000ffffffff", "x", "", &deleted] {
        let answer = grace.client.mark_read_up_to(&room, wrong).await;
        let errors = answer.expect(400)["errors"].clone();
        assert!(errors["upTo"].is_string(), "{wrong:?}: {errors}");
    }
    let path = format!("/room/{room}/mark-read");
    for body in [
        json!({"upTo": 7}),
        json!({"upTo": [end]}),
        json!({"upTo": {}}),
    ] {
        let answer = grace.client.send(Method::PUT, &path, Some(body)).await;
        assert!(answer.expect(400)["errors"]["upTo"].is_string());
    }
    assert_eq!(receipts(&grace, &marked, &room).await.1, 1);
    let marked = grace.client.mark_read(&room).await;
    assert_eq!(
        receipts(&grace, &position(&marked), &room).await,
        (vec![by_both; 10], 0)
    );
}

/// A room that is deleted is there with what was said in it, and then not at all.
async fn a_room_that_goes_is_never_seen_empty(stack: Stack) {
    let stack = stack.with_positions();
    let (ada, ben) = (stack.person("Ada").await, stack.person("Ben").await);
    for round in 0..ROOMS_THAT_GO {
        let room = room_of(&ada, &[&ben]).await;
        let _ = ada.client.post(&room, "soon gone").await.ok();
        let readers = (0..4).map(|_| async {
            let begun = Instant::now();
            loop {
                let answer = ben.client.conversation(&room, "").await;
                if answer.status == 404 {
                    break;
                }
                let messages = answer.ok()["conversation"].as_array().map(Vec::len);
                assert_eq!(messages, Some(1), "of room {round}, which goes");
                assert!(begun.elapsed() < SOON, "room {round} does not go");
            }
        });
        let deleting = async { ada.client.delete_room(&room).await.ok() };
        futures::join!(join_all(readers), deleting);
    }
}

on_every_stack!(
    Auth::Open;
    what_was_written_is_read_at_once,
    a_repeated_command_has_one_effect,
    a_hot_room_has_one_order,
    a_room_that_goes_is_never_seen_empty,
);
