//! The personal subscription: all rooms of a user, with one cursor.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use events::{Position, RoomId, UserId};
use gateway_ws::Limits;
use keys::Record;
use serde_json::{Value, json};
use support::*;
use tokio_util::sync::CancellationToken;

on_both_logs! {
    it_follows_all_rooms_of_the_user_and_those_created_later
    one_cursor_resumes_all_rooms
    a_muted_room_is_muted_for_that_connection_only
    resuming_it_again_and_again_doubles_nothing
}

/// What a frame tells of: its type and position.
fn told(frame: &Value) -> (String, Position) {
    let name = frame["type"].as_str().unwrap().to_owned();
    (name, position_of(frame))
}

fn position_of(frame: &Value) -> Position {
    frame["position"].as_str().unwrap().parse().unwrap()
}

async fn three_users(record: &Record) -> [UserId; 3] {
    [
        user(record, "Anna").await,
        user(record, "Bela").await,
        user(record, "Carl").await,
    ]
}

async fn it_follows_all_rooms_of_the_user_and_those_created_later(test: TestLog) {
    let record = &test.record;
    let [anna, bela, carl] = three_users(record).await;
    let first = room(record, &[anna, bela]).await;
    let foreign = room(record, &[bela, carl]).await;
    let gateway = Gateway::start(record).await;
    let mut client = gateway.connect(anna).await;
    let subscribed = client.follow(None).await;
    assert_eq!(
        subscribed,
        json!({"type": "subscribed", "position": position_of(&subscribed), "recovered": false})
    );

    let in_first = post(record, first, bela, "hello").await;
    post(record, foreign, bela, "not for Anna").await;
    room(record, &[bela, carl, user(record, "Dora").await]).await;
    let second = room(record, &[anna, carl]).await;
    let in_second = post(record, second, carl, "hello").await;
    let read = read_conversation(record, second, anna, None).await;
    let read_one = read_conversation(record, first, anna, Some(in_first)).await;
    // Void: not a member.
    read_conversation(record, second, bela, None).await;
    let deletion = delete_message(record, first, in_first).await;

    assert_eq!(told(&client.next().await), ("new message".into(), in_first));
    let frame = client.next().await;
    let users = frame["users"].as_array().unwrap();
    let names: Vec<&Value> = users.iter().map(|user| &user["firstName"]).collect();
    assert!(names.contains(&&json!("Anna")) && names.contains(&&json!("Carl")));
    assert_eq!(
        frame,
        json!({
            "type": "room created", "room": second,
            "position": created(record, second).await,
            "chatRoom": {
                "chatRoomId": second, "type": "consumer-to-consumer", "initiator": anna,
                "createdAt": frame["chatRoom"]["createdAt"],
            },
            "users": users,
        })
    );
    assert_eq!(
        told(&client.next().await),
        ("new message".into(), in_second)
    );
    let frame = client.next().await;
    assert_eq!(
        frame,
        json!({
            "type": "conversation read", "room": second, "position": read, "user": anna,
            "upTo": read, "readAt": frame["readAt"],
        })
    );
    let frame = client.next().await;
    assert_eq!(position_of(&frame), read_one);
    assert_eq!(frame["upTo"], json!(in_first));
    assert_eq!(
        told(&client.next().await),
        ("message deleted".into(), deletion)
    );
    client.settle().await;

    let gone = delete_room(record, second, &[anna, carl]).await;
    post(record, second, carl, "into the void").await;
    let last = post(record, first, bela, "still here").await;
    assert_eq!(told(&client.next().await), ("room deleted".into(), gone));
    assert_eq!(told(&client.next().await), ("new message".into(), last));

    client.send(json!({"type": "unsubscribe"})).await;
    assert_eq!(client.next().await, json!({"type": "unsubscribed"}));
    post(record, first, bela, "nobody hears it").await;
    room(record, &[anna, bela, carl]).await;
    client.settle().await;
}

/// From the recent events in memory, and from the log.
async fn one_cursor_resumes_all_rooms(test: TestLog) {
    let record = &test.record;
    let [anna, bela, carl] = three_users(record).await;
    let kept = room(record, &[anna, bela]).await;
    let lost = room(record, &[anna, carl]).await;
    let foreign = room(record, &[bela, carl]).await;
    let from_memory = Gateway::start(record).await;
    let mut client = from_memory.connect(anna).await;
    client.follow(None).await;
    let seen = post(record, kept, bela, "seen").await;
    assert_eq!(told(&client.next().await), ("new message".into(), seen));
    let cursor = format!("{seen}-{}", client.log);
    client.socket.close(None).await.unwrap();

    let mut expected = Vec::new();
    for number in 0..300 {
        let position = post(record, kept, bela, "missed").await;
        expected.push(("new message".to_owned(), position));
        post(record, foreign, bela, "not for Anna").await;
        // What was in it is not told again once it is deleted.
        post(record, lost, carl, "soon gone").await;
        if number == 150 {
            let gone = delete_room(record, lost, &[anna, carl]).await;
            expected.push(("room deleted".to_owned(), gone));
            let new = room(record, &[anna, bela, carl]).await;
            expected.push(("room created".to_owned(), created(record, new).await));
            let first = post(record, new, carl, "welcome").await;
            expected.push(("new message".to_owned(), first));
        }
    }
    let no_memory = Limits {
        recent_events: 0,
        ..limits()
    };
    let from_log = Gateway::start_with(record, no_memory, &[]).await;
    for gateway in [&from_memory, &from_log] {
        let mut client = gateway.connect(anna).await;
        let subscribed = client.follow(Some(&cursor)).await;
        assert_eq!(subscribed["recovered"], json!(true), "{subscribed}");
        for expected in &expected {
            assert_eq!(told(&client.next().await), *expected);
        }
        let replayed = client.next().await;
        assert_eq!(replayed["type"], "replayed");
        assert_eq!(replayed["count"], json!(expected.len()));
        assert!(replayed.get("room").is_none());
        client.settle().await;
    }
}

async fn a_muted_room_is_muted_for_that_connection_only(test: TestLog) {
    let record = &test.record;
    let [anna, bela, carl] = three_users(record).await;
    let loud = room(record, &[anna, bela]).await;
    let quiet = room(record, &[anna, carl]).await;
    let gateway = Gateway::start(record).await;
    let mut phone = gateway.connect(anna).await;
    let mut desk = gateway.connect(anna).await;
    phone.follow(None).await;
    desk.follow(None).await;
    phone.unsubscribe(loud).await;
    let muted = post(record, loud, bela, "blah").await;
    let heard = post(record, quiet, carl, "psst").await;
    assert_eq!(told(&phone.next().await), ("new message".into(), heard));
    assert_eq!(told(&desk.next().await), ("new message".into(), muted));
    assert_eq!(told(&desk.next().await), ("new message".into(), heard));

    // A replay leaves it out as well, and does not count it.
    let cursor = format!("{}-{}", created(record, quiet).await, phone.log);
    phone.follow(Some(&cursor)).await;
    assert_eq!(told(&phone.next().await), ("new message".into(), muted));
    phone.next().await;
    assert_eq!(phone.next().await["count"], json!(2));
    phone.unsubscribe(loud).await;
    let muted_too = post(record, loud, bela, "blah blah").await;
    assert_eq!(told(&desk.next().await), ("new message".into(), muted_too));
    phone.settle().await;

    // Subscribed to by itself, it is replayed by itself, and comes once.
    let subscribed = phone.subscribe(loud, Some(muted)).await;
    assert_eq!(subscribed["room"], json!(loud));
    let frame = phone.next().await;
    assert_eq!(frame["message"]["message"]["messageText"], "blah blah");
    assert_eq!(phone.next().await["count"], json!(1));
    let both = post(record, loud, bela, "again").await;
    assert_eq!(told(&phone.next().await), ("new message".into(), both));
    phone.settle().await;
}

/// As `resuming_on_the_same_connection_doubles_nothing`, over several rooms that come into being meanwhile.
async fn resuming_it_again_and_again_doubles_nothing(test: TestLog) {
    const RESUMPTIONS: usize = 60;
    let record = &test.record;
    let [anna, bela, carl] = three_users(record).await;
    let few_recent = Limits {
        recent_events: 50,
        ..patient()
    };
    let gateway = Gateway::start_with(record, few_recent, &[]).await;
    let stop = CancellationToken::new();
    let writers: Vec<_> = [bela, carl]
        .into_iter()
        .map(|writer| {
            let (record, stop) = (record.clone(), stop.clone());
            tokio::spawn(write_in_new_rooms(record, stop, anna, writer))
        })
        .collect();

    let mut client = gateway.connect(anna).await;
    let frame = |after: Position| json!({"type": "subscribe", "after": after});
    let resumed = Resumed::again_and_again(&mut client, RESUMPTIONS, Position::ZERO, frame).await;
    stop.cancel();
    let mut positions = Vec::new();
    for writer in writers {
        positions.extend(within("writing", writer).await.unwrap());
    }
    resumed.assert_complete(positions);
}

/// Posts to a room with `reader`, and to a new one after each ten posts.
async fn write_in_new_rooms(
    record: Record,
    stop: CancellationToken,
    reader: UserId,
    writer: UserId,
) -> Vec<Position> {
    let mut positions = Vec::new();
    while !stop.is_cancelled() {
        let third = user(&record, "Dora").await;
        let current: RoomId = room(&record, &[reader, writer, third]).await;
        positions.push(created(&record, current).await);
        for _ in 0..10 {
            positions.push(post(&record, current, writer, "hello").await);
        }
    }
    positions
}

#[tokio::test]
async fn a_position_of_another_log_is_told_apart() {
    let [one, other] = [
        TestLog::sqlite().await.unwrap(),
        TestLog::sqlite().await.unwrap(),
    ];
    let mut cursors = Vec::new();
    for test in [&one, &other] {
        let record = &test.record;
        let [anna, bela, _] = three_users(record).await;
        let ours = room(record, &[anna, bela]).await;
        let gateway = Gateway::start(record).await;
        let mut client = gateway.connect(anna).await;
        let subscribed = client.follow(None).await;
        let here = format!("{}-{}", position_of(&subscribed), client.log);
        post(record, ours, bela, "missed").await;
        for scope in [json!({}), json!({"room": ours})] {
            for before in &cursors {
                let mut frame = scope.clone();
                frame["type"] = json!("subscribe");
                frame["after"] = json!(before);
                client.send(frame).await;
                let answer = client.next_of_type("subscribed").await;
                assert_eq!(answer["recovered"], json!(false));
                assert_eq!(answer["reason"], "the position belongs to another log");
            }
        }
        // Here it is good, however the connection has been used before.
        client
            .send(json!({"type": "subscribe", "after": here}))
            .await;
        let answer = client.next_of_type("subscribed").await;
        assert_eq!(answer["recovered"], json!(true));
        cursors.push(here);
    }
}

#[tokio::test]
async fn a_position_beyond_the_end_is_refused() {
    let test = TestLog::sqlite().await.unwrap();
    let record = &test.record;
    let [anna, bela, _] = three_users(record).await;
    let ours = room(record, &[anna, bela]).await;
    let gateway = Gateway::start(record).await;
    let mut client = gateway.connect(anna).await;
    let subscribed = client.follow(None).await;
    let beyond = Position::new(position_of(&subscribed).get() + 1);
    let answer = client
        .follow(Some(&format!("{beyond}-{}", client.log)))
        .await;
    assert_eq!(answer["recovered"], json!(false));
    assert_eq!(
        answer["reason"],
        "the position lies beyond the end of the log"
    );
    let live = post(record, ours, bela, "live all the same").await;
    assert_eq!(position_of(&client.next().await), live);
}
