//! The past: what was answered then is answered again as of then, by position and by time, to members of then
//! and to auditors, who leave a trace; and to nobody else.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use hansard_tests::{Answer, Person, Stack, TestClient, on_every_stack};
use reqwest::Method;
use serde_json::{Value, json};

const CONSUMERS: &str = "consumer-to-consumer";

/// What was answered when the event at a position was the last one.
struct Moment {
    position: String,
    /// The conversation, page by page.
    pages: Vec<Answer>,
    /// The recent rooms of both members.
    recent: [Answer; 2],
}

const PAGES: [&str; 3] = ["", "limit=1", "limit=1&page=1"];

fn answered(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text);
    let mut answer = answer.json.clone();
    answer.as_object_mut().unwrap().remove("asOf");
    answer
}

struct House {
    ada: Person,
    bela: Person,
    /// Not a member.
    eve: Person,
    auditor: Person,
    room: String,
    moments: Vec<Moment>,
}

impl House {
    /// Notes what is answered after this command.
    async fn note(&mut self, command: Answer) -> Value {
        let position = command.header("hansard-position").to_owned();
        let mut pages = Vec::new();
        for page in PAGES {
            pages.push(self.ada.client.conversation(&self.room, page).await);
        }
        let recent = [
            self.ada.client.conversations("").await,
            self.bela.client.conversations("").await,
        ];
        self.moments.push(Moment {
            position,
            pages,
            recent,
        });
        command.ok()
    }

    /// Compares what is answered to `client` as of each moment with what was answered then. `users`: the members,
    /// as far as `client` may see their rooms.
    async fn compare(&self, client: &TestClient, users: &[(usize, String)]) {
        for moment in &self.moments {
            let as_of = format!("asOf={}", moment.position);
            for (page, then) in PAGES.iter().zip(&moment.pages) {
                let query = format!("{as_of}&{page}");
                let answer = client.conversation(&self.room, &query).await;
                assert_eq!(answered(&answer), answered(then), "{query}");
                assert_eq!(answer.json["asOf"]["position"], moment.position);
            }
            for (index, user) in users {
                let answer = client.conversations(&format!("{as_of}{user}")).await;
                let then = &moment.recent[*index];
                assert_eq!(answered(&answer), answered(then), "{as_of}{user}");
                assert_eq!(answer.json["asOf"]["position"], moment.position);
            }
        }
    }
}

async fn what_was_answered_then_is_answered_again(stack: Stack) {
    let stack = stack.with_positions();
    let (ada, bela) = (stack.person("Ada").await, stack.person("Bela").await);
    let initiated = ada.client.initiate(&[&bela.id], CONSUMERS).await;
    let before = initiated.header("hansard-position").to_owned();
    let room = initiated.json["chatRoom"]["chatRoomId"].as_str();
    let room = room.unwrap().to_owned();
    let mut house = House {
        eve: stack.person("Eve").await,
        auditor: stack.auditor("Audrey").await,
        ada,
        bela,
        room: room.clone(),
        moments: Vec::new(),
    };
    let (ada, bela) = (house.ada.client.clone(), house.bela.client.clone());
    let id = |answer: Value| answer["post"]["postId"].as_str().unwrap().to_owned();

    let first = id(house.note(ada.post(&room, "first").await).await);
    let second = id(house.note(ada.post(&room, "second").await).await);
    house.note(bela.mark_read_up_to(&room, &first).await).await;
    let path = format!("/room/{room}/message/{first}");
    let text = json!({"messageText": "first, and again"});
    house
        .note(ada.send(Method::PATCH, &path, Some(text)).await)
        .await;
    house.note(bela.post(&room, "third").await).await;
    house.note(ada.delete_message(&second).await).await;
    house.note(bela.mark_read(&room).await).await;
    let last = house.moments.last().unwrap().position.clone();
    // Since then everything is gone.
    let deleted = ada.delete_room(&room).await;
    let after = deleted.header("hansard-position").to_owned();
    let _ = deleted.ok();
    ada.conversation(&room, "")
        .await
        .refused(404, "No room exists for this id");

    // Members, as of when they were.
    house.compare(&ada, &[(0, String::new())]).await;
    house.compare(&bela, &[(1, String::new())]).await;
    // Auditors, as anybody.
    let users = [
        (0, format!("&user={}", house.ada.id)),
        (1, format!("&user={}", house.bela.id)),
    ];
    house.compare(&house.auditor.client, &users).await;

    // Before there was a room, and after it.
    let unknown = "No room exists for this id";
    for as_of in ["0", "1", &after] {
        let query = format!("asOf={as_of}");
        for client in [&ada, &house.eve.client, &house.auditor.client] {
            client
                .conversation(&room, &query)
                .await
                .refused(404, unknown);
        }
        let answer = ada.conversations(&query).await.ok();
        assert_eq!(answer["conversation"], json!([]));
    }
    let answer = ada
        .conversation(&room, &format!("asOf={before}"))
        .await
        .ok();
    assert_eq!(answer["conversation"], json!([]));

    // A time is a position, which is said.
    for moment in &house.moments {
        let by_position = format!("asOf={}", moment.position);
        let then = ada.conversation(&room, &by_position).await.ok();
        let time = then["asOf"]["time"].as_str().unwrap();
        let by_time = ada.conversation(&room, &format!("asOf={time}")).await;
        let found = by_time.json["asOf"]["position"].as_str().unwrap();
        // Several events may have been stored in the same millisecond.
        assert!(found >= moment.position.as_str(), "{found}");
        assert_eq!(by_time.json["asOf"]["time"], time);
        let again = ada.conversation(&room, &format!("asOf={found}")).await;
        assert_eq!(by_time.ok(), again.ok());
    }
    let long_ago = house
        .auditor
        .client
        .conversations("asOf=2001-01-01T00:00:00Z")
        .await;
    assert_eq!(
        long_ago.ok()["asOf"],
        json!({"position": "0000000000000000"})
    );

    refusals(&stack, &house, &last).await;
    traces(&house).await;
}

/// Who may not, and what can't be.
async fn refusals(stack: &Stack, house: &House, last: &str) {
    let as_of = format!("asOf={last}");
    let eve = &house.eve.client;
    let not_a_member = "only members of the room may do this";
    eve.conversation(&house.room, &as_of)
        .await
        .refused(403, not_a_member);
    let support = stack.operator();
    support
        .conversation(&house.room, &as_of)
        .await
        .refused(403, not_a_member);
    let anothers = format!("{as_of}&user={}", house.ada.id);
    for client in [eve, &support, &house.bela.client] {
        let refused = client.conversations(&anothers).await;
        refused.refused(403, "only auditors and admins may read the record");
    }
    // Not one's own, where one is nobody.
    let admin = stack.back_office("admin");
    assert_eq!(admin.conversations(&anothers).await.status, 200);
    let refused = admin.conversations(&as_of).await;
    refused.refused(401, "the token's user does not exist");
    for answer in [
        stack.client().conversations(&as_of).await,
        stack.client().conversation(&house.room, &as_of).await,
    ] {
        answer.refused(401, "No access token provided");
    }
    let unknown = format!("{as_of}&user={}", "0".repeat(32));
    let refused = admin.conversations(&unknown).await;
    refused.refused(404, "No user with this id found");

    let ada = &house.ada.client;
    let bound = "neither a time nor a position: expected RFC 3339, for example \
                 2026-11-22T17:16:12.692Z, or 16 lower-case hex digits, or a decimal number";
    for answer in [
        ada.conversations("asOf=yesterday").await,
        ada.conversation(&house.room, "asOf=yesterday").await,
    ] {
        assert_eq!(answer.wrong_fields(), json!({"asOf": bound}));
    }
    let alone = ada.conversations(&format!("user={}", house.ada.id)).await;
    assert_eq!(
        alone.wrong_fields(),
        json!({"user": "only together with asOf"})
    );
    let beyond = ada
        .conversations("asOf=ffffffffffffffff")
        .await
        .wrong_fields();
    let text = beyond["asOf"].as_str().unwrap();
    assert!(text.starts_with("the record ends at position "), "{text}");
}

/// Auditors leave a trace, members none.
async fn traces(house: &House) {
    let record = house.auditor.client.audit_events("").await;
    let read = record.text.lines().filter_map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        let is_reading = line["event"]["type"] == "audit.read";
        is_reading.then(|| line["event"].clone())
    });
    let read: Vec<Value> = read.collect();
    for reader in [&house.ada, &house.bela, &house.eve] {
        assert!(read.iter().all(|event| event["actor"] != reader.id));
    }
    for moment in &house.moments {
        for filter in [
            json!({"asOf": moment.position, "room": house.room}),
            json!({"asOf": moment.position, "user": house.bela.id}),
        ] {
            let found = read.iter().find(|event| event["data"]["filter"] == filter);
            assert_eq!(found.unwrap()["actor"], house.auditor.id, "{filter}");
        }
    }
}

on_every_stack!(Auth::Token; what_was_answered_then_is_answered_again);
