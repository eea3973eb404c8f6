//! What clients that ask for changes are told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::sync::Arc;

use event_log::Filter;
use events::{Envelope, Position, UserId};
use futures::{StreamExt, TryStreamExt};
use gateway_ws::Limits;
use serde_json::{Value, json};
use support::*;

on_both_logs! {
    nothing_is_missed_or_doubled_under_full_load
    a_page_is_bounded_and_a_large_change_comes_all_the_same
    what_was_in_a_room_that_is_gone_is_passed_over
}

/// A client of one user, who has got somewhere.
struct Asker {
    http: reqwest::Client,
    token: String,
    after: String,
}

impl Asker {
    fn new(gateway: &Gateway, user: UserId) -> Self {
        Self {
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            token: gateway.token(user),
            after: Position::ZERO.to_string(),
        }
    }

    async fn ask(&self, gateway: &Gateway, query: &str) -> (u16, String, Value) {
        let url = format!(
            "http://{}/changes?after={}&{query}",
            gateway.address, self.after
        );
        let request = self.http.get(url).bearer_auth(&self.token).send();
        let answer = within("asking", request).await.unwrap();
        let status = answer.status().as_u16();
        let retry = answer.headers().get("retry-after");
        let retry = retry.map_or("", |it| it.to_str().unwrap()).to_owned();
        (status, retry, answer.json().await.unwrap())
    }

    /// Takes a page: the changes in it, and whether there is more.
    async fn page(&mut self, gateway: &Gateway, query: &str) -> (Vec<Value>, bool) {
        let (status, _, page) = self.ask(gateway, query).await;
        assert_eq!(status, 200, "{page}");
        let position = page["position"].as_str().unwrap();
        assert!(*position >= *self.after, "{page}");
        self.after = position.to_owned();
        let changes = page["changes"].as_array().unwrap().clone();
        (changes, page["more"].as_bool().unwrap())
    }
}

/// The position of the event that a change tells of.
fn position_of(change: &Value) -> Position {
    let cursor = change["position"].as_str().unwrap();
    cursor.split_once('-').unwrap().0.parse().unwrap()
}

/// Writers post at full speed while clients ask two gateways in turn, which remember little, and have
/// next to no room for what comes while a client waits. In the end each client has what the log has.
async fn nothing_is_missed_or_doubled_under_full_load(test: TestLog) {
    const POSTS: usize = 400;
    let record = &test.record;
    let [anna, bela] = [user(record, "Anna").await, user(record, "Bela").await];
    let carl = user(record, "Carl").await;
    let room_id = room(record, &[anna, bela]).await;
    let other = room(record, &[anna, carl]).await;
    let limits = Limits {
        queue_frames: 1,
        recent_events: 50,
        ..limits()
    };
    let gateways = Arc::new([
        Gateway::start_with(record, limits.clone(), &[]).await,
        Gateway::start_with(record, limits, &[]).await,
    ]);
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let record = record.clone();
            tokio::spawn(async move {
                for number in 0..POSTS {
                    post(&record, room_id, anna, "hello").await;
                    if number % 3 == 0 {
                        post(&record, other, anna, "noise").await;
                    }
                }
            })
        })
        .collect();
    let clients: Vec<_> = (0..4)
        .map(|number| {
            let gateways = Arc::clone(&gateways);
            tokio::spawn(async move {
                let mut client = Asker::new(&gateways[0], bela);
                let mut told = Vec::new();
                let mut asked = 0;
                while told.last().is_none_or(|(_, text)| text != "the end") {
                    let gateway = &gateways[(asked + number) % 2];
                    asked += 1;
                    let query = ["wait=60", "wait=60&limit=2", "limit=30"][asked % 3];
                    let (changes, _) = client.page(gateway, query).await;
                    told.extend(changes.iter().map(|change| {
                        let text = &change["message"]["message"]["messageText"];
                        let text = text.as_str().unwrap_or_default().to_owned();
                        (position_of(change), text)
                    }));
                }
                (told, asked)
            })
        })
        .collect();
    for writer in writers {
        within("writing", writer).await.unwrap();
    }
    post(record, room_id, anna, "the end").await;

    let events = record.log.read(Filter::Room(room_id), Position::ZERO).await;
    let recorded: Vec<_> = events.unwrap().try_collect().await.unwrap();
    let expected = recorded.iter().map(|recorded| recorded.position);
    let expected: Vec<Position> = expected.collect();
    for client in clients {
        let (told, asked) = within("asking", client).await.unwrap();
        let told: Vec<Position> = told.into_iter().map(|(position, _)| position).collect();
        assert!(told == expected, "after {asked} requests");
        assert!(asked > 20, "{asked}");
    }
}

async fn a_page_is_bounded_and_a_large_change_comes_all_the_same(test: TestLog) {
    let record = &test.record;
    let [anna, bela] = [user(record, "Anna").await, user(record, "Bela").await];
    let room = room(record, &[anna, bela]).await;
    let text = "x".repeat(600_000);
    for text in ["small", &text, &text, &text, "small"] {
        post(record, room, anna, text).await;
    }
    // From memory, and from the log.
    for recent_events in [100, 0] {
        let limits = Limits {
            recent_events,
            ..limits()
        };
        let gateway = Gateway::start_with(record, limits, &[]).await;
        let mut client = Asker::new(&gateway, bela);
        let mut counts = Vec::new();
        for query in ["limit=1", "limit=2", "", "", ""] {
            let (changes, more) = client.page(&gateway, query).await;
            counts.push((changes.len(), more));
        }
        let expected = [(1, true), (2, true), (1, true), (2, false), (0, false)];
        assert_eq!(counts, expected);
    }
}

/// However long that was: a page that finds nothing gets on, and says that there is more.
async fn what_was_in_a_room_that_is_gone_is_passed_over(test: TestLog) {
    let record = &test.record;
    let members = [user(record, "Anna").await, user(record, "Bela").await];
    let [anna, bela] = members;
    let room = room(record, &members).await;
    let posts = futures::stream::iter(0..10_050).map(|_| post(record, room, anna, "forgotten"));
    posts.buffer_unordered(256).collect::<Vec<_>>().await;
    let deletion = delete_room(record, room, &members).await;
    let limits = Limits {
        recent_events: 10,
        ..limits()
    };
    let gateway = Gateway::start_with(record, limits, &[]).await;
    let mut client = Asker::new(&gateway, bela);
    assert_eq!(client.page(&gateway, "wait=60").await, (Vec::new(), true));
    let (changes, more) = client.page(&gateway, "wait=60").await;
    assert_eq!(changes[0]["type"], "room deleted");
    assert_eq!(position_of(&changes[0]), deletion);
    assert_eq!((changes.len(), more), (1, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_outlives_the_log_and_reading_says_that_it_is_lost() {
    let Some(mut test) = TestLog::jetstream().await else {
        return;
    };
    let record = test.record.clone();
    let [anna, bela] = [user(&record, "Anna").await, user(&record, "Bela").await];
    let room = room(&record, &[anna, bela]).await;
    let limits = Limits {
        recent_events: 0,
        ..limits()
    };
    let gateway = Gateway::start_with(&record, limits, &[]).await;
    let mut client = Asker::new(&gateway, bela);
    let start = client.after.clone();
    client.page(&gateway, "").await;
    // Tells when the log is lost.
    let mut socket = gateway.connect(bela).await;
    socket.settle().await;

    let query = "wait=60";
    let waiting = async {
        let (changes, _) = client.page(&gateway, query).await;
        changes
    };
    let outage = async {
        // Once others have been answered who asked later, the client is waiting.
        for _ in 0..3 {
            Asker::new(&gateway, bela).page(&gateway, "").await;
        }
        let server = test.server.as_mut().unwrap();
        server.kill();
        assert_eq!(socket.next().await, json!({"type": "degraded"}));
        let mut late = Asker::new(&gateway, bela);
        late.after = start;
        let (status, retry, problem) = late.ask(&gateway, query).await;
        assert_eq!((status, retry.as_str()), (503, "1"), "{problem}");
        assert_eq!(problem["code"], "unavailable");
        server.restart();
        assert_eq!(socket.next().await, json!({"type": "restored"}));
        let envelope = Envelope::new(posted(room, anna, "after"), Some(anna), None);
        append_patiently(&record, &envelope).await
    };
    let (changes, position) = tokio::join!(waiting, outage);
    let told: Vec<Position> = changes.iter().map(position_of).collect();
    assert_eq!(told, [position]);
}

/// So that what was looked through once, for nothing, need not be read from the log again.
#[tokio::test]
async fn who_is_told_nothing_gets_as_far_as_the_log() {
    let test = TestLog::sqlite().await.unwrap();
    let record = &test.record;
    let [anna, bela, carl] = [
        user(record, "Anna").await,
        user(record, "Bela").await,
        user(record, "Carl").await,
    ];
    room(record, &[anna, carl]).await;
    let busy = room(record, &[anna, bela]).await;
    let limits = Limits {
        recent_events: 2,
        ..limits()
    };
    let gateway = Gateway::start_with(record, limits, &[]).await;
    let mut quiet = Asker::new(&gateway, carl);
    let mut other = Asker::new(&gateway, bela);
    quiet.page(&gateway, "").await;
    for _ in 0..5 {
        let mut last = Position::ZERO;
        for _ in 0..3 {
            last = post(record, busy, anna, "elsewhere").await;
        }
        while *other.after < *last.to_string() {
            other.page(&gateway, "wait=60").await;
        }
        assert_eq!(quiet.page(&gateway, "").await, (Vec::new(), false));
        assert!(*quiet.after > *last.to_string(), "it is as far as the log");
    }
}
