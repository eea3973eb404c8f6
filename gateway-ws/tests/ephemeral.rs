//! Typing and presence, across two gateways.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::time::Duration;

use gateway_ws::Limits;
use serde_json::{Value, json};
use support::*;
use tokio::time::Instant;

on_both_logs! {
    typing_is_seen_by_the_others_in_the_room
    presence_is_that_of_all_gateways
    presence_survives_the_return_on_another_gateway
}

fn typing(room: impl serde::Serialize, state: &str) -> Value {
    json!({"type": "typing", "room": room, "state": state})
}

async fn typing_is_seen_by_the_others_in_the_room(test: TestLog) {
    let record = &test.record;
    let [anna, bela] = [user(record, "Anna").await, user(record, "Bela").await];
    let carl = user(record, "Carl").await;
    let ours = room(record, &[anna, bela]).await;
    let theirs = room(record, &[bela, carl]).await;
    let [here, there] = [Gateway::start(record).await, Gateway::start(record).await];
    let mut of_anna = here.connect(anna).await;
    let mut also_anna = there.connect(anna).await;
    let mut bela_here = here.connect(bela).await;
    let mut bela_there = there.connect(bela).await;
    let mut of_carl = there.connect(carl).await;
    of_anna.subscribe(ours, None).await;
    also_anna.follow(None).await;
    bela_here.subscribe(ours, None).await;
    bela_there.follow(None).await;
    of_carl.follow(None).await;

    of_anna.send(typing(ours, "start")).await;
    let started = json!({"type": "typing", "room": ours, "user": anna, "state": "start"});
    let stopped = json!({"type": "typing", "room": ours, "user": anna, "state": "stop"});
    let begun = Instant::now();
    for client in [&mut bela_here, &mut bela_there] {
        assert_eq!(client.next().await, started);
    }
    // Nothing more is said, so it expires by itself.
    for client in [&mut bela_here, &mut bela_there] {
        assert_eq!(client.next().await, stopped);
        assert!(begun.elapsed() > Duration::from_secs(5), "too early");
    }
    of_anna.send(typing(ours, "start")).await;
    assert_eq!(bela_there.next().await, started);
    of_anna.send(typing(ours, "stop")).await;
    assert_eq!(bela_there.next().await, stopped);
    // The message itself ends it.
    of_anna.send(typing(ours, "start")).await;
    assert_eq!(bela_there.next().await, started);
    post(record, ours, anna, "hello").await;
    assert_eq!(bela_there.next().await["type"], "new message");
    of_anna.send(typing(ours, "stop")).await;
    of_anna.next_of_type("new message").await;

    of_anna.send(typing(theirs, "start")).await;
    of_anna.error("not_a_member").await;
    for client in [&mut of_anna, &mut also_anna, &mut of_carl, &mut bela_there] {
        let others = client.until_pong().await;
        let ephemeral: Vec<&Value> = others.iter().filter(|it| it["type"] == "typing").collect();
        assert!(ephemeral.is_empty(), "{ephemeral:?}");
    }
    assert_eq!(
        record.log.tail().await.unwrap().last.get(),
        6,
        "it is in the log"
    );
}

#[tokio::test]
async fn typing_is_limited() {
    let test = TestLog::sqlite().await.unwrap();
    let record = &test.record;
    let [anna, bela] = [user(record, "Anna").await, user(record, "Bela").await];
    let ours = room(record, &[anna, bela]).await;
    let gateway = Gateway::start(record).await;
    let mut client = gateway.connect(anna).await;
    for _ in 0..50 {
        client.send(typing(ours, "start")).await;
        client.send(typing(ours, "stop")).await;
    }
    let frames = client.until_pong().await;
    assert!(frames.len() > 50, "{}", frames.len());
    assert!(frames.iter().all(|it| it["code"] == "rate_limited"));
}

fn online(user: impl serde::Serialize) -> Value {
    json!({"type": "presence", "user": user, "status": "online", "lastSeen": null})
}

async fn presence_is_that_of_all_gateways(test: TestLog) {
    let record = &test.record;
    let [anna, bela] = [user(record, "Anna").await, user(record, "Bela").await];
    let carl = user(record, "Carl").await;
    let ours = room(record, &[anna, bela]).await;
    let [here, there] = [Gateway::start(record).await, Gateway::start(record).await];
    let mut of_anna = here.connect(anna).await;
    let subscribe = json!({"type": "subscribe", "presence": true});
    of_anna.send(subscribe).await;
    assert_eq!(of_anna.next().await["type"], "subscribed");
    let absent = json!({"type": "presence", "user": bela, "status": "offline", "lastSeen": null});
    assert_eq!(of_anna.next().await, absent);

    let mut of_bela = there.connect(bela).await;
    assert_eq!(of_anna.next().await, online(bela));
    // A second device changes nothing, nor does its end.
    let mut again = here.connect(bela).await;
    again.settle().await;
    again.socket.close(None).await.unwrap();
    // A stranger is nobody's business, until there is a room.
    let mut of_carl = there.connect(carl).await;
    of_carl.settle().await;
    of_anna.settle().await;
    let new = room(record, &[anna, carl]).await;
    assert_eq!(of_anna.next().await["room"], json!(new));
    assert_eq!(of_anna.next().await, online(carl));

    // Who comes later learns how it is.
    let mut also_anna = there.connect(anna).await;
    also_anna
        .send(json!({"type": "subscribe", "room": ours, "presence": true}))
        .await;
    assert_eq!(also_anna.next().await["type"], "subscribed");
    assert_eq!(also_anna.next().await, online(bela));

    of_bela.socket.close(None).await.unwrap();
    let left = Instant::now();
    for client in [&mut of_anna, &mut also_anna] {
        let frame = client.next().await;
        assert_eq!(frame["user"], json!(bela));
        assert_eq!(frame["status"], "offline");
        assert!(frame["lastSeen"].is_string(), "{frame}");
        assert!(left.elapsed() > Duration::from_secs(2), "too early");
    }

    // What is subscribed to no longer is watched no longer.
    also_anna.unsubscribe(ours).await;
    let mut of_bela = there.connect(bela).await;
    assert_eq!(of_anna.next().await, online(bela));
    of_bela.settle().await;
    also_anna.settle().await;
}

async fn presence_survives_the_return_on_another_gateway(test: TestLog) {
    let record = &test.record;
    let [anna, bela] = [user(record, "Anna").await, user(record, "Bela").await];
    let carl = user(record, "Carl").await;
    room(record, &[anna, bela]).await;
    room(record, &[anna, carl]).await;
    let [here, there] = [Gateway::start(record).await, Gateway::start(record).await];
    let mut of_anna = here.connect(anna).await;
    of_anna
        .send(json!({"type": "subscribe", "presence": true}))
        .await;
    assert_eq!(of_anna.next().await["type"], "subscribed");
    of_anna.next().await;
    of_anna.next().await;
    let mut of_bela = there.connect(bela).await;
    let mut of_carl = there.connect(carl).await;
    let mut came = [of_anna.next().await, of_anna.next().await];
    came.sort_by_key(|frame| frame["user"] == json!(carl));
    assert_eq!(came, [online(bela), online(carl)]);

    // There is never a moment at which Bela counts as offline, but Carl does not come back.
    of_bela.socket.close(None).await.unwrap();
    of_carl.socket.close(None).await.unwrap();
    let mut of_bela = here.connect(bela).await;
    of_bela.settle().await;
    let frame = of_anna.next().await;
    assert_eq!(frame["user"], json!(carl), "{frame}");
    assert_eq!(frame["status"], "offline");
    of_anna.settle().await;
}

#[tokio::test]
async fn the_presence_of_so_many_users_is_watched_and_no_more() {
    let test = TestLog::sqlite().await.unwrap();
    let record = &test.record;
    let limits = Limits {
        watched_users: 1,
        ..limits()
    };
    let gateway = Gateway::start_with(record, limits, &[]).await;
    let anna = user(record, "Anna").await;
    let mut rooms = Vec::new();
    for name in ["Bela", "Carl"] {
        let other = user(record, name).await;
        rooms.push(room(record, &[anna, other]).await);
    }
    let mut client = gateway.connect(anna).await;
    for room in &rooms {
        client
            .send(json!({"type": "subscribe", "room": room, "presence": true}))
            .await;
    }
    assert_eq!(client.next().await["type"], "subscribed");
    assert_eq!(client.next().await["status"], "offline");
    assert_eq!(client.next().await["type"], "subscribed");
    client.error("too_many_subscriptions").await;
}
