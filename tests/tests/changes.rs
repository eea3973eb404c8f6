//! `GET /changes` as a mobile client uses it: nothing is missed or comes twice, page by page and on into
//! `/ws`; who waits is told at once; and what can't be answered is refused.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hansard_tests::{
    Answer, Auditor, Lines, Person, Service, Stack, TestClient, Told, Writer, eventually,
    on_every_stack, room_of,
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// How long anything may take. Generous: the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(60);

const GONE: &str = "the token's user does not exist";

fn beginning() -> String {
    "0".repeat(16)
}

/// The position of the event alone, as the record has it.
fn bare(position: &Value) -> &str {
    let (position, log) = position.as_str().unwrap().split_once('-').unwrap();
    assert_eq!(log.len(), 8);
    position
}

/// A client that keeps what it was told, and the position that it has got to.
struct Sync {
    client: TestClient,
    after: String,
    lines: Lines,
    told: Vec<Told>,
}

impl Sync {
    fn new(person: &Person, after: String) -> Self {
        Self {
            client: person.client.clone(),
            after,
            lines: Lines::default(),
            told: Vec::new(),
        }
    }

    /// Takes one page, and gives it.
    async fn page(&mut self, query: &str) -> Value {
        let query = format!("after={}&{query}", self.after);
        let page = self.client.changes(&query).await.ok();
        assert_eq!(page["success"], true, "{page}");
        for frame in page["changes"].as_array().unwrap() {
            self.take(frame);
        }
        let position = page["position"].as_str().unwrap();
        assert!(*position >= *self.after, "{position} after {}", self.after);
        position.clone_into(&mut self.after);
        page
    }

    fn take(&mut self, frame: &Value) {
        let mut frame = frame.clone();
        frame["position"] = bare(&frame["position"]).into();
        self.told.extend(self.lines.of_frame(&frame));
    }

    /// Takes pages until there is nothing more; gives the largest number of changes that one had.
    async fn catch_up(&mut self, query: &str) -> usize {
        let mut largest = 0;
        loop {
            let page = self.page(query).await;
            largest = largest.max(page["changes"].as_array().unwrap().len());
            if page["more"] == false {
                return largest;
            }
        }
    }

    /// Takes pages until it has got to this position.
    async fn reach(&mut self, position: &str) {
        while *self.after < *position {
            self.page("wait=20").await;
        }
    }

    /// That it was told what the record has of these rooms up to where it has got to, no more and no less.
    async fn assert_complete(&self, auditor: &Auditor, rooms: &[&str]) {
        let rooms: BTreeSet<&str> = rooms.iter().copied().collect();
        let record = auditor.events(&format!("to={}", &self.after[..16])).await;
        let recorded = record.iter().filter_map(|line| self.lines.of_record(line));
        let recorded: Vec<Told> = recorded
            .filter(|told| rooms.contains(&*told.room))
            .collect();
        let differing = (0..recorded.len().max(self.told.len()))
            .find(|index| recorded.get(*index) != self.told.get(*index));
        if let Some(index) = differing {
            let (recorded, told) = (recorded.get(index), self.told.get(index));
            panic!("at {index} the record has {recorded:?}, and what was told {told:?}");
        }
    }
}

/// A request that waits.
fn ask(client: &TestClient, query: &str) -> JoinHandle<Answer> {
    let (client, query) = (client.clone(), query.to_owned());
    tokio::spawn(async move { client.changes(&query).await })
}

async fn figure(stack: &Stack, name: &str) -> Option<u64> {
    let gateway = stack.direct(Service::GatewayWs);
    let figures = gateway.get("/metrics").await.text;
    let mut lines = figures.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    Some(value.parse::<f64>().unwrap() as u64)
}

/// Waits until so many requests wait.
async fn waiting(stack: &Stack, count: u64) {
    eventually("as many requests that wait", DEADLINE, async || {
        let waiting = figure(stack, "hansard_waiting_requests").await;
        (waiting == Some(count)).then_some(())
    })
    .await;
}

/// Waits until the gateway has handed out the event at this position.
async fn handed_out(stack: &Stack, position: &str) {
    let position = u64::from_str_radix(position, 16).unwrap();
    eventually("the gateway has handed it out", DEADLINE, async || {
        let reached = figure(stack, "hansard_gateway_position").await;
        reached.is_some_and(|it| it >= position).then_some(())
    })
    .await;
}

async fn post(person: &Person, room: &str, text: &str) -> Value {
    person.client.post(room, text).await.ok()["post"].clone()
}

/// The position that a client begins at.
async fn now(person: &Person) -> String {
    let answer = person.client.changes("").await;
    assert_eq!(answer.header("cache-control"), "no-store");
    let answer = answer.ok();
    let position = answer["position"].as_str().unwrap().to_owned();
    bare(&answer["position"]);
    let expected = json!({"success": true, "changes": [], "position": position, "more": false});
    assert_eq!(answer, expected);
    position
}

// --- Nothing missed, nothing twice ---

async fn everything_comes_once_and_in_order(mut stack: Stack) {
    let auditor = Auditor::new(&stack).await;
    let ada = stack.person("Ada").await;
    let grace = stack.person("Grace").await;
    let hedy = stack.person("Hedy").await;
    let first = room_of(&ada, &[&grace]).await;
    let elsewhere = room_of(&ada, &[&hedy]).await;
    let hasty = ada.client.with_header("prefer", "respond-async");
    let writers = [
        Writer::start(&hasty, &first, "one"),
        Writer::start(&hasty, &elsewhere, "two"),
        Writer::start(&hasty, &first, "three"),
    ];
    writers[0].go_on(40).await;
    let second = room_of(&grace, &[&hedy]).await;
    let said = post(&hedy, &second, "to be deleted").await;
    let id = said["postId"].as_str().unwrap();
    let _ = hedy.client.delete_message(id).await.ok();
    let _ = grace.client.mark_read(&second).await.ok();
    handed_out(&stack, id).await;

    // While it goes on, in small pages and in large ones.
    let mut sync = Sync::new(&grace, beginning());
    let mut of_hedy = Sync::new(&hedy, beginning());
    for _ in 0..5 {
        assert_eq!(sync.page("limit=7").await["more"], true);
    }
    assert_eq!(sync.told.len(), 35);
    writers[2].go_on(20).await;
    of_hedy.catch_up("limit=3&wait=1").await;
    assert!(sync.catch_up("limit=50").await <= 50);
    for _ in 0..10 {
        sync.page("wait=20").await;
    }
    sync.assert_complete(&auditor, &[&first, &second]).await;

    // Over a restart of the gateway, and from the log alone.
    stack.kill(Service::GatewayWs);
    stack.restart(Service::GatewayWs).await;
    writers[1].go_on(20).await;
    sync.catch_up("limit=20").await;
    of_hedy.catch_up("limit=20").await;
    sync.assert_complete(&auditor, &[&first, &second]).await;

    // Live from the same position on.
    let before = sync.told.len();
    writers[0].go_on(20).await;
    let mut socket = stack.socket(&grace).await;
    socket
        .send(json!({"type": "subscribe", "after": sync.after}))
        .await;
    assert_eq!(socket.next().await["recovered"], true);
    writers[2].go_on(20).await;
    for writer in writers {
        writer.stop().await;
    }
    let last = post(&ada, &first, "the last").await;
    let last = last["postId"].as_str().unwrap();
    while sync
        .told
        .last()
        .is_none_or(|told| !told.line.contains(last))
    {
        let frame = socket.next().await;
        sync.told.extend(sync.lines.of_frame(&frame));
    }
    assert!(sync.told.len() > before + 40);
    let after = format!("{last}-{}", socket.log);
    sync.after.clone_from(&after);
    sync.assert_complete(&auditor, &[&first, &second]).await;

    // And back to pages.
    post(&hedy, &second, "back again").await;
    sync.page("wait=20").await;
    sync.assert_complete(&auditor, &[&first, &second]).await;
    of_hedy.reach(last).await;
    of_hedy.catch_up("").await;
    of_hedy
        .assert_complete(&auditor, &[&second, &elsewhere])
        .await;

    // Of a room that is gone it is told that it is gone, in its place, and not what was in it.
    let deletion = ada.client.delete_room(&first).await;
    let position = deletion.header("hansard-position").to_owned();
    handed_out(&stack, &position).await;
    let page = sync.page("").await;
    let gone = json!([{
        "type": "room deleted", "room": first, "position": format!("{position}-{}", socket.log),
    }]);
    assert_eq!(page["changes"], gone);
    let everything = grace
        .client
        .changes("after=0000000000000000&limit=1000")
        .await;
    let everything = everything.ok()["changes"].clone();
    let everything = everything.as_array().unwrap();
    assert_eq!(everything.last(), gone.get(0));
    let of_first = everything.iter().filter(|it| it["room"] == *first);
    assert_eq!(of_first.count(), 1);
}

// --- Waiting ---

async fn who_waits_is_told_at_once(stack: Stack) {
    let ada = stack.person("Ada").await;
    let grace = stack.person("Grace").await;
    let hedy = stack.person("Hedy").await;
    let room = room_of(&ada, &[&grace]).await;
    let elsewhere = room_of(&ada, &[&hedy]).await;
    let last = post(&ada, &room, "known already").await;
    handed_out(&stack, last["postId"].as_str().unwrap()).await;
    let start = now(&grace).await;

    let query = format!("after={start}&wait=55");
    let requests = [ask(&grace.client, &query), ask(&grace.client, &query)];
    waiting(&stack, 2).await;
    // What is none of her business wakes nobody.
    let heard_elsewhere = post(&hedy, &elsewhere, "elsewhere").await;
    handed_out(&stack, heard_elsewhere["postId"].as_str().unwrap()).await;
    waiting(&stack, 2).await;
    let said = post(&ada, &room, "Order, order!").await;
    for request in requests {
        let page = request.await.unwrap().ok();
        let frame = &page["changes"][0];
        assert_eq!(frame["type"], "new message", "{page}");
        assert_eq!(frame["message"], said, "{page}");
        assert_eq!(page["changes"].as_array().unwrap().len(), 1);
        assert_eq!(page["more"], false);
        assert!(page["position"].as_str() >= frame["position"].as_str());
    }
    waiting(&stack, 0).await;

    // A new room is news too, and so is what is in it.
    let start = now(&hedy).await;
    let request = ask(&hedy.client, &format!("after={start}&wait=55"));
    waiting(&stack, 1).await;
    let new = room_of(&grace, &[&hedy]).await;
    let page = request.await.unwrap().ok();
    assert_eq!(page["changes"][0]["type"], "room created", "{page}");
    assert_eq!(page["changes"][0]["room"], *new);
    let position = page["position"].as_str().unwrap();
    let request = ask(&hedy.client, &format!("after={position}&wait=55"));
    waiting(&stack, 1).await;
    let said = post(&grace, &new, "welcome").await;
    let page = request.await.unwrap().ok();
    assert_eq!(page["changes"][0]["message"], said, "{page}");

    // Whoever hears nothing gets on all the same.
    let quiet = stack.person("Eve").await;
    let page = quiet
        .client
        .changes("after=0000000000000000&wait=1")
        .await
        .ok();
    assert_eq!(page["changes"], json!([]));
    assert_eq!(page["more"], false);
    assert!(bare(&page["position"]) >= said["postId"].as_str().unwrap());

    // Who gives up waits no longer.
    let request = ask(
        &quiet.client,
        &format!("after={}&wait=55", now(&quiet).await),
    );
    waiting(&stack, 1).await;
    request.abort();
    waiting(&stack, 0).await;

    // The user's deletion ends the waiting.
    let request = ask(&hedy.client, &format!("after={}&wait=55", now(&hedy).await));
    waiting(&stack, 1).await;
    let _ = stack.operator().delete_user(&hedy.id).await.ok();
    request.await.unwrap().refused(401, GONE);
    hedy.client.changes("").await.refused(401, GONE);
}

async fn a_gateway_that_stops_answers_who_waits(mut stack: Stack) {
    let ada = stack.person("Ada").await;
    let grace = stack.person("Grace").await;
    let room = room_of(&ada, &[&grace]).await;
    let said = post(&ada, &room, "known already").await;
    handed_out(&stack, said["postId"].as_str().unwrap()).await;
    let start = now(&grace).await;
    let request = ask(&grace.client, &format!("after={start}&wait=55"));
    waiting(&stack, 1).await;
    stack.terminate(Service::GatewayWs).await;
    let page = request.await.unwrap().ok();
    assert_eq!(page["changes"], json!([]));
    assert_eq!(page["position"], *start);

    stack.restart(Service::GatewayWs).await;
    let said = post(&ada, &room, "after the restart").await;
    let query = format!("after={start}&wait=55");
    let page = grace.client.changes(&query).await.ok();
    assert_eq!(page["changes"][0]["message"], said, "{page}");
}

// --- Refusals ---

async fn what_can_not_be_answered_is_refused(stack: Stack) {
    let ada = stack.person("Ada").await;
    let grace = stack.person("Grace").await;
    room_of(&ada, &[&grace]).await;
    let after = "please provide the position of an answer or of a frame, or a message id";
    let limit = "please provide a whole number from 1 to 1000";
    let wait = "please provide a whole number from 0 to 60";
    let twice = "given more than once";
    let position = beginning();
    for (query, errors) in [
        ("after=", json!({"after": after})),
        ("after=0", json!({"after": after})),
        ("after=000000000000000g", json!({"after": after})),
        ("after=0000000000000000-", json!({"after": after})),
        ("after=0000000000000000-3AEFBF0D", json!({"after": after})),
        ("after=%FF", json!({"after": after})),
        ("after=%00", json!({"after": after})),
        ("after=%F0%9F%91%A9", json!({"after": after})),
        ("limit=0", json!({"limit": limit})),
        ("limit=1001", json!({"limit": limit})),
        ("limit=-1", json!({"limit": limit})),
        ("limit=%2B1", json!({"limit": limit})),
        ("limit=1.5", json!({"limit": limit})),
        ("limit=", json!({"limit": limit})),
        ("limit=99999999999999999999999", json!({"limit": limit})),
        ("wait=61", json!({"wait": wait})),
        ("wait=-1", json!({"wait": wait})),
        ("wait=1s", json!({"wait": wait})),
        ("wait=", json!({"wait": wait})),
        ("limit=x&wait=x", json!({"limit": limit, "wait": wait})),
        ("wait=1&wait=1", json!({"wait": twice})),
        (
            "afer=0000000000000000",
            json!({"afer": "unknown parameter; there are after, limit and wait"}),
        ),
    ] {
        let answer = ada.client.changes(query).await;
        assert_eq!(answer.wrong_fields(), errors, "{query}");
    }

    // Who are you?
    let anyone = stack.client();
    let query = format!("after={position}&wait=55");
    let answer = anyone.changes(&query).await;
    assert_eq!(answer.header("www-authenticate"), "Bearer");
    answer.refused(401, "No access token provided");
    let answer = anyone.with_token("x").changes(&query).await;
    answer.refused(401, "jwt malformed");

    // Positions that never were here.
    let start_over = "load everything again and go on from a new position";
    for (after, reason) in [
        (
            "ffffffffffffffff".to_owned(),
            "the position lies beyond the end of the log",
        ),
        (
            format!("{position}-00000000"),
            "the position belongs to another log",
        ),
    ] {
        let answer = ada.client.changes(&format!("after={after}&wait=55")).await;
        let refusal = answer.refused(409, &format!("{reason}; {start_over}"));
        assert_eq!(refusal["code"], "start-over");
    }

    // Only so many may wait for one user.
    let query = format!("after={}&wait=55", now(&ada).await);
    let requests: Vec<_> = (0..100).map(|_| ask(&ada.client, &query)).collect();
    waiting(&stack, 100).await;
    let answer = ada.client.changes(&query).await;
    let text = "a user may have at most 100 connections; close another one first";
    assert_eq!(answer.refused(429, text)["code"], "too-many-connections");
    for request in requests {
        request.abort();
    }
    waiting(&stack, 0).await;
}

on_every_stack!(
    Auth::Open;
    everything_comes_once_and_in_order,
    who_waits_is_told_at_once,
    a_gateway_that_stops_answers_who_waits,
    what_can_not_be_answered_is_refused,
);

mod with_tokens {
    use super::*;

    async fn the_end_of_a_token_ends_the_waiting(stack: Stack) {
        let ada = stack.person("Ada").await;
        let now_in_seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let now_in_seconds = now_in_seconds.as_secs();
        let claims = json!({
            "userId": ada.id, "userType": "consumer",
            "iat": now_in_seconds, "exp": now_in_seconds + 3,
        });
        let start = now(&ada).await;
        let short_lived = stack.client().with_token(&stack.sign(&claims));
        let answer = short_lived.changes(&format!("after={start}&wait=55")).await;
        assert_eq!(
            answer.header("www-authenticate"),
            "Bearer error=\"invalid_token\""
        );
        answer.refused(401, "jwt expired");

        let nobody = stack.token(&"0".repeat(32), "support");
        let answer = stack.client().with_token(&nobody).changes("").await;
        answer.refused(401, GONE);
    }

    on_every_stack!(Auth::Token; the_end_of_a_token_ends_the_waiting);
}
