//! What clients of the gateway see.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use contract::Post;
use event_log::{Expect, Filter, NewEvent};
use events::{Envelope, Event, Position, Subject, UserId, UserType};
use futures::TryStreamExt;
use gateway_ws::Limits;
use keys::{Keyring, Record};
use serde_json::{Value, json};
use support::*;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

on_both_logs! {
    members_get_what_happens_in_order
    edits_of_ones_own_messages_are_pushed_and_replayed
    what_an_erased_user_wrote_is_replayed_without_its_text
    what_was_missed_is_replayed
    what_was_said_before_the_gateway_started_is_replayed
    starting_takes_no_keys_of_users_of_whom_nothing_is_told
    a_deleted_room_ends_its_subscriptions
    nothing_is_missed_or_doubled_under_full_load
    resuming_on_the_same_connection_doubles_nothing
}

async fn starting_takes_no_keys_of_users_of_whom_nothing_is_told(test: TestLog) {
    let record = &test.record;
    // Her key is in no store that the gateway has: it would never start if it asked for it.
    let elsewhere = Record::new(Arc::clone(&record.log), Keyring::in_memory());
    user(&elsewhere, "Zoe").await;
    let [anna, bela] = [user(record, "Anna").await, user(record, "Bela").await];
    let ours = room(record, &[anna, bela]).await;
    post(record, ours, bela, "before").await;
    let limits = Limits {
        recent_events: 1,
        ..limits()
    };
    let gateway = Gateway::start_with(record, limits, &[]).await;
    let mut client = gateway.connect(anna).await;
    client.follow(None).await;
    post(record, ours, bela, "after").await;
    let frame = client.next().await;
    assert_eq!(frame["message"]["message"]["messageText"], "after");
}

async fn edits_of_ones_own_messages_are_pushed_and_replayed(test: TestLog) {
    let record = &test.record;
    let gateway = Gateway::start(record).await;
    let [anna, bela] = [user(record, "Anna").await, user(record, "Bela").await];
    let carl = user(record, "Carl").await;
    let ours = room(record, &[anna, bela]).await;
    let elsewhere = room(record, &[anna, carl]).await;
    let mut live = gateway.connect(bela).await;
    live.subscribe(ours, None).await;
    let first = post(record, ours, anna, "helo").await;
    let other = post(record, elsewhere, anna, "elsewhere").await;
    // Not the author's, not a message, one of another room, one that comes later.
    let beyond = Position::new(u64::MAX);
    for (author, message) in [(bela, first), (anna, beyond), (anna, other)] {
        append(
            record,
            edited(ours, author, message, "forged"),
            Some(author),
        )
        .await;
    }
    let position = append(record, edited(ours, anna, first, "hello"), Some(anna)).await;
    for replayed in [false, true] {
        if replayed {
            live.settle().await;
            live = gateway.connect(bela).await;
            live.subscribe(ours, Some(created(record, ours).await))
                .await;
        }
        let client = &mut live;
        assert_eq!(client.next().await["type"], "new message");
        let frame = client.next().await;
        assert_eq!(frame["type"], "message edited");
        assert_eq!(frame["position"], json!(position));
        let edit = &frame["edit"];
        assert_eq!(edit["_id"], json!(first));
        assert_eq!(edit["chatRoomId"], json!(ours));
        assert_eq!(edit["message"]["messageText"], "hello");
        assert_eq!(edit["postedByUserId"], json!(anna));
    }
}

async fn what_an_erased_user_wrote_is_replayed_without_its_text(test: TestLog) {
    let record = &test.record;
    let [anna, bela] = [user(record, "Anna").await, user(record, "Bela").await];
    let room = room(record, &[anna, bela]).await;
    let before = created(record, room).await;
    // One gateway has the events in memory, the other reads them from the log.
    let limits = Limits {
        recent_events: 0,
        ..Limits::default()
    };
    let gateways = [
        Gateway::start(record).await,
        Gateway::start_with(record, limits, &[]).await,
    ];
    let first = post(record, room, anna, "a secret of Anna").await;
    append(
        record,
        edited(room, anna, first, "another secret"),
        Some(anna),
    )
    .await;
    let last = post(record, room, bela, "no secret").await;
    let mut live = Vec::new();
    for gateway in &gateways {
        let mut client = gateway.connect(bela).await;
        client.subscribe(room, Some(before)).await;
        // Where the gateway had not handed it out yet, the replay ends before it.
        let mut frame = client.next().await;
        if frame["type"] == "replayed" {
            frame = client.next().await;
        }
        assert_eq!(
            frame["message"]["message"]["messageText"],
            "a secret of Anna"
        );
        live.push(client);
    }
    erase_user(record, anna).await;
    let key = events::KeyId::Person(anna);
    record.keyring.destroy(key).await.unwrap();
    let marker = post(record, room, bela, "it is done").await;
    for (gateway, mut live) in gateways.iter().zip(live) {
        // What comes after the erasure has been handed out.
        while live.next().await["position"] != json!(marker) {}
        let mut client = gateway.connect(bela).await;
        client.subscribe(room, Some(before)).await;
        let frame = client.next().await;
        assert_eq!(frame["position"], json!(first));
        let message = &frame["message"];
        assert_eq!(message["message"]["messageText"], "");
        assert_eq!(
            (&message["erased"], &message["expired"]),
            (&json!(true), &Value::Null)
        );
        assert_eq!(message["postedByUser"]["firstName"], "");
        // The edit has nothing left to tell.
        assert_eq!(client.next().await["position"], json!(last));
    }
}

async fn members_get_what_happens_in_order(test: TestLog) {
    let record = &test.record;
    let gateway = Gateway::start(record).await;
    let [anna, bela, carl] = [
        user(record, "Anna").await,
        user(record, "Bela").await,
        user(record, "Carl").await,
    ];
    let ours = room(record, &[anna, bela]).await;
    let theirs = room(record, &[bela, carl]).await;
    let other = post(record, theirs, carl, "not for Anna").await;

    let mut of_anna = gateway.connect(anna).await;
    let mut of_bela = gateway.connect(bela).await;
    for client in [&mut of_anna, &mut of_bela] {
        let subscribed = client.subscribe(ours, None).await;
        assert_eq!(subscribed["type"], "subscribed");
        assert_eq!(subscribed["room"], json!(ours));
        assert_eq!(subscribed["recovered"], json!(false));
        assert!(subscribed.get("reason").is_none());
    }

    let text = "Grüße \u{0} \"\u{1f600}\"";
    let first = post(record, ours, anna, text).await;
    // Void, or elsewhere: none of these is pushed.
    post(record, ours, carl, "I am not a member").await;
    delete_message(record, ours, other).await;
    delete_message(record, ours, Position::new(first.get() + 1)).await;
    delete_message(record, ours, Position::new(u64::MAX)).await;
    post(record, theirs, carl, "elsewhere").await;
    let second = post(record, ours, bela, "hello").await;
    let deletion = delete_message(record, ours, first).await;

    let recorded = record.log.get(first).await.unwrap().unwrap();
    let envelope = record.decode(&recorded).await.unwrap().unwrap();
    let Event::MessagePosted(event) = &envelope.event else {
        panic!("not a post");
    };
    let about = gateway.directory.room(ours).await.unwrap().unwrap();
    let users = gateway.directory.users(&about.members).await.unwrap();
    let expected = Post::new(first, envelope.at, event, &about, &users);
    for client in [&mut of_anna, &mut of_bela] {
        assert_eq!(
            client.next().await,
            json!({"type": "new message", "room": ours, "position": first, "message": expected})
        );
        let frame = client.next().await;
        assert_eq!(frame["position"], json!(second));
        assert_eq!(frame["message"]["postedByUser"]["firstName"], "Bela");
        assert_eq!(
            client.next().await,
            json!({"type": "message deleted", "room": ours, "position": deletion, "messageId": first})
        );
        client.settle().await;
    }

    of_anna.unsubscribe(ours).await;
    let third = post(record, ours, anna, "only for Bela").await;
    assert_eq!(of_bela.next().await["position"], json!(third));
    of_anna.settle().await;
}

async fn what_was_missed_is_replayed(test: TestLog) {
    let record = &test.record;
    let [anna, bela] = [user(record, "Anna").await, user(record, "Bela").await];
    let room = room(record, &[anna, bela]).await;
    let mut expected = Vec::new();
    for number in 0..700 {
        expected.push(post(record, room, anna, &number.to_string()).await);
    }
    let gateway = Gateway::start(record).await;
    let mut client = gateway.connect(bela).await;

    for missed in [700, 3, 0] {
        let after = match missed {
            700 => created(record, room).await,
            missed => expected[expected.len() - 1 - missed],
        };
        let subscribed = client.subscribe(room, Some(after)).await;
        assert_eq!(subscribed["type"], "subscribed", "{subscribed}");
        assert_eq!(subscribed["recovered"], json!(true));
        assert_eq!(subscribed["position"], json!(expected.last().unwrap()));
        for position in &expected[expected.len() - missed..] {
            let frame = client.next().await;
            assert_eq!(frame["type"], "new message");
            assert_eq!(frame["position"], json!(position));
            assert_eq!(frame["message"]["postId"], json!(position));
        }
        assert_eq!(
            client.next().await,
            json!({"type": "replayed", "room": room, "position": expected.last(), "count": missed})
        );
    }
    let live = post(record, room, anna, "live").await;
    assert_eq!(client.next().await["position"], json!(live));

    let end = record.log.tail().await.unwrap().last;
    let beyond = Position::new(end.get() + 1);
    let subscribed = client.subscribe(room, Some(beyond)).await;
    assert_eq!(subscribed["recovered"], json!(false));
    assert_eq!(
        subscribed["reason"],
        "the position lies beyond the end of the log"
    );
    let live = post(record, room, anna, "live").await;
    assert_eq!(client.next().await["position"], json!(live));
}

async fn a_deleted_room_ends_its_subscriptions(test: TestLog) {
    let record = &test.record;
    let gateway = Gateway::start(record).await;
    let members = [user(record, "Anna").await, user(record, "Bela").await];
    let carl = user(record, "Carl").await;
    let room = room(record, &members).await;
    let mut client = gateway.connect(members[1]).await;
    client.subscribe(room, None).await;
    let before = post(record, room, members[0], "hello").await;
    assert_eq!(client.next().await["position"], json!(before));

    let position = delete_room(record, room, &members).await;
    let gone = json!({"type": "room deleted", "room": room, "position": position});
    assert_eq!(client.next().await, gone);
    // A post that raced the deletion and lost is void.
    post(record, room, members[0], "too late").await;
    client.settle().await;

    // Who was away learns of it; for everybody else there is no such room.
    assert_eq!(client.subscribe(room, Some(before)).await, gone);
    client.send(subscribe(room, Some(position))).await;
    client.error("unknown_room").await;
    client.send(subscribe(room, None)).await;
    client.error("unknown_room").await;
    let mut of_carl = gateway.connect(carl).await;
    of_carl.send(subscribe(room, Some(before))).await;
    of_carl.error("unknown_room").await;
}

#[tokio::test]
async fn only_members_may_subscribe() {
    let test = TestLog::sqlite().await.unwrap();
    let record = &test.record;
    let gateway = Gateway::start(record).await;
    let [anna, bela, carl] = [
        user(record, "Anna").await,
        user(record, "Bela").await,
        user(record, "Carl").await,
    ];
    let room = room(record, &[anna, bela]).await;
    let mut client = gateway.connect(carl).await;
    for after in [None, Some(Position::ZERO)] {
        client.send(subscribe(room, after)).await;
        let frame = client.next().await;
        assert_eq!(frame["code"], "not_a_member");
        assert_eq!(frame["room"], json!(room));
    }
    let unknown = events::RoomId::from_uuid(Uuid::new_v4());
    client.send(subscribe(unknown, None)).await;
    client.error("unknown_room").await;
    post(record, room, anna, "not for Carl").await;
    client.settle().await;
}

/// It has the log's last events in memory, as many as it keeps: many small ones, or a few large ones.
async fn what_was_said_before_the_gateway_started_is_replayed(test: TestLog) {
    let record = &test.record;
    let [anna, bela] = [user(record, "Anna").await, user(record, "Bela").await];
    for (members, count, bytes) in [(vec![anna, bela], 450, 1), (vec![bela], 160, 60_000)] {
        let room = room(record, &members).await;
        let text = "x".repeat(bytes);
        let mut all = vec![created(record, room).await];
        for _ in 0..count {
            all.push(post(record, room, bela, &text).await);
        }
        let gateway = Gateway::start(record).await;
        let mut client = gateway.connect(bela).await;
        for known in [1, count / 3, count / 2, count - 100, count, count + 1] {
            let (known, missed) = all.split_at(known);
            let answer = client.subscribe(room, known.last().copied()).await;
            assert_eq!(answer["recovered"], true, "{answer}");
            for position in missed {
                assert_eq!(client.next().await["position"], json!(position));
            }
            let replayed = client.next().await;
            assert_eq!(replayed["count"], json!(missed.len()), "{replayed}");
        }
    }
}

/// Writers post and delete at full speed while clients come and go between two gateways. In the end each
/// client has what the log has.
async fn nothing_is_missed_or_doubled_under_full_load(test: TestLog) {
    const WRITERS: usize = 4;
    const POSTS: usize = 600;
    const CLIENTS: u64 = 6;
    let record = &test.record;
    let [anna, bela] = [user(record, "Anna").await, user(record, "Bela").await];
    let carl = user(record, "Carl").await;
    let room_id = room(record, &[anna, bela]).await;
    let other = room(record, &[anna, carl]).await;
    // Short queues, so that live events overflow while history is replayed, and slow readers are closed.
    let limits = Limits {
        queue_frames: 40,
        recent_events: 300,
        ..limits()
    };
    let gateways = Arc::new([
        Gateway::start_with(record, limits.clone(), &[]).await,
        Gateway::start_with(record, limits, &[]).await,
    ]);

    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let record = record.clone();
            tokio::spawn(async move {
                for number in 0..POSTS {
                    let position = post(&record, room_id, anna, "hello").await;
                    if number % 7 == 0 {
                        delete_message(&record, room_id, position).await;
                    }
                    if number % 3 == 0 {
                        post(&record, other, anna, "noise").await;
                    }
                }
            })
        })
        .collect();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|seed| {
            let gateways = Arc::clone(&gateways);
            tokio::spawn(come_and_go(gateways, bela, room_id, seed))
        })
        .collect();
    for writer in writers {
        within("writing", writer).await.unwrap();
    }
    post(record, room_id, anna, "the end").await;

    let events = record.log.read(Filter::Room(room_id), Position::ZERO).await;
    let recorded: Vec<_> = events.unwrap().try_collect().await.unwrap();
    let mut expected: Vec<(String, Position)> = Vec::new();
    for recorded in &recorded {
        let envelope = record.decode(recorded).await.unwrap().unwrap();
        let name = match envelope.event {
            Event::RoomInitiated(_) => "room created",
            Event::MessagePosted(_) => "new message",
            Event::MessageDeleted(_) => "message deleted",
            _ => continue,
        };
        expected.push((name.to_owned(), recorded.position));
    }
    assert!(expected.len() > WRITERS * POSTS);
    for client in clients {
        let (received, connections) = within("reading", client).await.unwrap();
        assert!(received == expected, "after {connections} connections");
        assert!(connections > 3);
    }
}

/// A client that resumes again and again on one connection, while the pushes of its former subscription
/// are still under way.
async fn resuming_on_the_same_connection_doubles_nothing(test: TestLog) {
    const RESUMPTIONS: usize = 100;
    let record = &test.record;
    let [anna, bela] = [user(record, "Anna").await, user(record, "Bela").await];
    let room = room(record, &[anna, bela]).await;
    let gateway = Gateway::start_with(record, patient(), &[]).await;
    let stop = CancellationToken::new();
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let (record, stop) = (record.clone(), stop.clone());
            tokio::spawn(async move {
                let mut positions = Vec::new();
                while !stop.is_cancelled() {
                    positions.push(post(&record, room, anna, "hello").await);
                }
                positions
            })
        })
        .collect();

    let mut client = gateway.connect(bela).await;
    let frame = |after| subscribe(room, Some(after));
    let resumed =
        Resumed::again_and_again(&mut client, RESUMPTIONS, created(record, room).await, frame);
    let resumed = resumed.await;
    stop.cancel();
    let mut positions = Vec::new();
    for writer in writers {
        positions.extend(within("writing", writer).await.unwrap());
    }
    resumed.assert_complete(positions);
}

/// A client that asks where it is while it is pushed to: everything up to there has been sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_position_of_a_subscription_is_never_ahead_of_what_was_sent() {
    let test = TestLog::sqlite().await.unwrap();
    let record = &test.record;
    let [anna, bela] = [user(record, "Anna").await, user(record, "Bela").await];
    let room = room(record, &[anna, bela]).await;
    let gateway = Gateway::start_with(record, patient(), &[]).await;
    let mut client = gateway.connect(bela).await;
    client.subscribe(room, None).await;
    let stop = CancellationToken::new();
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let (record, stop) = (record.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.is_cancelled() {
                    post(&record, room, anna, "hello").await;
                }
            })
        })
        .collect();
    for _ in 0..300 {
        client.send(subscribe(room, None)).await;
    }
    let mut answered = 0;
    let mut reached = String::new();
    while answered < 300 {
        let frame = client.next().await;
        let position = frame["position"].as_str().unwrap().to_owned();
        if frame["type"] == "subscribed" {
            answered += 1;
            assert!(position >= reached, "{position} after {reached}");
        } else {
            assert!(position > reached, "{position} after {reached}");
        }
        reached = position;
    }
    stop.cancel();
    for writer in writers {
        within("writing", writer).await.unwrap();
    }
}

async fn come_and_go(
    gateways: Arc<[Gateway; 2]>,
    user: UserId,
    room: events::RoomId,
    seed: u64,
) -> (Vec<(String, Position)>, usize) {
    let mut random = seed;
    let mut next_random = move |limit: u64| {
        // Knuth's MMIX generator; its high bits are good enough here.
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % limit
    };
    let mut received: Vec<(String, Position)> = Vec::new();
    let mut connections = 0;
    loop {
        let gateway = &gateways[usize::try_from(next_random(2)).unwrap()];
        let mut client = gateway.connect(user).await;
        connections += 1;
        let after = received.last().map_or(Position::ZERO, |last| last.1);
        client.send(subscribe(room, Some(after))).await;
        let mut left = 1 + next_random(300);
        while left > 0 {
            let frame = match client.receive().await {
                Received::Frame(frame) => frame,
                Received::Closed(code, reason) => {
                    assert_eq!(code, 4008);
                    let cursor = reason.strip_prefix("too slow; resume after ").unwrap();
                    let (resume, _) = cursor.split_once('-').unwrap();
                    let last = received.last().map_or(Position::ZERO, |last| last.1);
                    assert!(resume.parse::<Position>().unwrap() >= last);
                    break;
                }
            };
            match frame["type"].as_str().unwrap() {
                "subscribed" => assert_eq!(frame["recovered"], json!(true)),
                "replayed" => {}
                name => {
                    left -= 1;
                    let position = frame["position"].as_str().unwrap().parse().unwrap();
                    received.push((name.to_owned(), position));
                }
            }
            if frame["message"]["message"]["messageText"] == "the end" {
                return (received, connections);
            }
        }
        if next_random(2) == 0 {
            // Half of the clients say goodbye, the others just hang up.
            let _ = client.socket.close(None).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_is_closed_and_hurts_nobody() {
    const POSTS: usize = 400;
    let test = TestLog::sqlite().await.unwrap();
    let record = &test.record;
    let limits = Limits {
        queue_frames: 32,
        close_timeout: Duration::from_secs(30),
        ..limits()
    };
    let gateway = Gateway::start_with(record, limits, &[]).await;
    let [anna, bela] = [user(record, "Anna").await, user(record, "Bela").await];
    let room = room(record, &[anna, bela]).await;
    let mut slow = gateway.connect(anna).await;
    let mut quick = gateway.connect(bela).await;
    for client in [&mut slow, &mut quick] {
        client.subscribe(room, None).await;
    }

    // More than the buffers of both kernels' ends take. The next is posted when the quick one has it.
    let text = "x".repeat(60_000);
    let mut positions = Vec::new();
    for _ in 0..POSTS {
        positions.push(post(record, room, anna, &text).await);
        assert_eq!(quick.next().await["position"], json!(positions.last()));
    }

    let mut received = 0;
    let (code, reason) = loop {
        match slow.receive().await {
            Received::Frame(frame) => {
                assert_eq!(frame["position"], json!(positions[received]));
                received += 1;
            }
            Received::Closed(code, reason) => break (code, reason),
        }
    };
    assert_eq!(code, 4008);
    assert!(received < POSTS);
    let resume = positions[received - 1];
    assert_eq!(
        reason,
        format!("too slow; resume after {resume}-{}", slow.log)
    );

    let mut again = gateway.connect(anna).await;
    again.subscribe(room, Some(resume)).await;
    for position in &positions[received..] {
        assert_eq!(again.next().await["position"], json!(position));
    }
    quick.settle().await;
}

#[tokio::test]
async fn a_client_that_reads_its_history_slowly_is_not_closed() {
    const POSTS: usize = 300;
    let test = TestLog::sqlite().await.unwrap();
    let record = &test.record;
    let limits = Limits {
        queue_frames: 8,
        ..limits()
    };
    let gateway = Gateway::start_with(record, limits, &[]).await;
    let [anna, bela] = [user(record, "Anna").await, user(record, "Bela").await];
    let room = room(record, &[anna, bela]).await;
    let text = "x".repeat(60_000);
    let mut positions = Vec::new();
    for _ in 0..POSTS {
        positions.push(post(record, room, anna, &text).await);
    }
    let mut client = gateway.connect(bela).await;
    let subscribed = client.subscribe(room, Some(Position::ZERO)).await;
    assert_eq!(subscribed["recovered"], json!(true));
    // It does not read on while more is posted than its queue holds.
    for _ in 0..100 {
        positions.push(post(record, room, anna, &text).await);
    }
    let mut next = positions.iter();
    let mut left = positions.len();
    while left > 0 {
        let frame = client.next().await;
        if frame["type"] == "new message" {
            assert_eq!(frame["position"], json!(next.next().unwrap()));
            left -= 1;
        }
    }
}

#[tokio::test]
async fn malformed_frames_get_an_error_each_and_disturb_nobody() {
    let test = TestLog::sqlite().await.unwrap();
    let record = &test.record;
    let gateway = Gateway::start(record).await;
    let [anna, bela] = [user(record, "Anna").await, user(record, "Bela").await];
    let room = room(record, &[anna, bela]).await;
    let mut client = gateway.connect(anna).await;
    let mut other = gateway.connect(bela).await;
    client.subscribe(room, None).await;
    other.subscribe(room, None).await;

    for (message, code) in [
        (Message::text("hello"), "not_json"),
        (Message::text("{\"type\":\"ping\""), "not_json"),
        (Message::text("[1,2,3]"), "invalid_message"),
        (Message::text("{}"), "invalid_message"),
        (
            Message::text("{\"type\":\"subscribe\",\"room\":null}"),
            "invalid_message",
        ),
        (
            Message::text("{\"type\":\"subscribe\",\"room\":\"../>*.\"}"),
            "invalid_message",
        ),
        (Message::text("{\"type\":\"sing\"}"), "unknown_type"),
        (Message::binary(vec![0_u8, 159, 255]), "unsupported_frame"),
        (Message::text("[".repeat(60_000)), "not_json"),
    ] {
        client.send_message(message).await;
        client.error(code).await;
    }
    let position = post(record, room, anna, "still here").await;
    assert_eq!(client.next().await["position"], json!(position));

    let huge = Message::text("x".repeat(70_000));
    client.send_message(huge).await;
    client.error("too_large").await;
    assert_eq!(client.closed().await.0, 1009);

    let position = post(record, room, anna, "and here").await;
    other.next().await;
    assert_eq!(other.next().await["position"], json!(position));
}

#[tokio::test]
async fn the_token_comes_in_the_header_or_in_the_first_frame() {
    let test = TestLog::sqlite().await.unwrap();
    let record = &test.record;
    let gateway = Gateway::start(record).await;
    let [anna, bela] = [user(record, "Anna").await, user(record, "Bela").await];
    let room = room(record, &[anna, bela]).await;

    let mut by_header = gateway.connect(anna).await;
    assert_eq!(by_header.subscribe(room, None).await["type"], "subscribed");

    let mut by_frame = gateway.connect_with(&[]).await.unwrap();
    by_frame.send(subscribe(room, None)).await;
    by_frame.error("unauthorized").await;
    by_frame.settle().await;
    let auth = |user| json!({"type": "auth", "token": gateway.token(user)});
    by_frame.send(auth(anna)).await;
    let authenticated = json!({"type": "authenticated", "user": anna});
    assert_eq!(by_frame.next().await, authenticated);
    assert_eq!(by_frame.subscribe(room, None).await["type"], "subscribed");
    // Again, with a fresh token; but not as somebody else.
    by_frame.send(auth(anna)).await;
    assert_eq!(by_frame.next().await, authenticated);
    by_frame.send(auth(bela)).await;
    by_frame.error("invalid_message").await;
    by_frame.settle().await;
}

#[tokio::test]
async fn bad_tokens_are_refused() {
    let test = TestLog::sqlite().await.unwrap();
    let record = &test.record;
    let gateway = Gateway::start(record).await;
    let [anna, bela] = [user(record, "Anna").await, user(record, "Bela").await];
    delete_user(record, bela).await;
    let good = gateway.token(anna);
    let stranger = gateway.token(UserId::random());
    let of_deleted = gateway.token(bela);
    let forged = format!("{}x", &good[..good.len() - 2]);
    // {"alg":"none"}
    let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", good.split('.').nth(1).unwrap());
    for token in ["", "nonsense", &stranger, &of_deleted, &forged, &unsigned] {
        let header = format!("Bearer {token}");
        let mut client = gateway
            .connect_with(&[("authorization", &header)])
            .await
            .unwrap();
        client.error("unauthorized").await;
        assert_eq!(client.closed().await.0, 4001);

        let mut client = gateway.connect_with(&[]).await.unwrap();
        client.send(json!({"type": "auth", "token": token})).await;
        client.error("unauthorized").await;
        assert_eq!(client.closed().await.0, 4001);
    }
}

#[tokio::test]
async fn who_does_not_authenticate_in_time_is_closed() {
    let test = TestLog::sqlite().await.unwrap();
    let limits = Limits {
        auth_timeout: Duration::from_millis(100),
        ..limits()
    };
    let gateway = Gateway::start_with(&test.record, limits, &[]).await;
    let mut client = gateway.connect_with(&[]).await.unwrap();
    client.error("unauthorized").await;
    assert_eq!(client.closed().await.0, 4001);
}

#[tokio::test]
async fn an_expired_token_closes_the_connection() {
    let test = TestLog::sqlite().await.unwrap();
    let gateway = Gateway::start(&test.record).await;
    let anna = user(&test.record, "Anna").await;
    let short = Duration::from_secs(2);
    let token = gateway
        .auth
        .issue_for(anna, UserType::Consumer, None, short);
    let mut client = gateway.connect_with(&[]).await.unwrap();
    client.send(json!({"type": "auth", "token": token})).await;
    assert_eq!(client.next().await["type"], "authenticated");
    client.error("unauthorized").await;
    assert_eq!(client.closed().await, (4001, "jwt expired".to_owned()));

    // A fresh one in time prolongs it.
    let mut client = gateway.connect_with(&[]).await.unwrap();
    let token = gateway
        .auth
        .issue_for(anna, UserType::Consumer, None, short);
    for token in [token, gateway.token(anna)] {
        client.send(json!({"type": "auth", "token": token})).await;
        assert_eq!(client.next().await["type"], "authenticated");
    }
    let nothing = tokio::time::timeout(Duration::from_secs(3), client.receive()).await;
    assert!(nothing.is_err(), "{nothing:?}");
}

#[tokio::test]
async fn a_deleted_user_is_disconnected() {
    let test = TestLog::sqlite().await.unwrap();
    let record = &test.record;
    let gateway = Gateway::start(record).await;
    let [anna, bela] = [user(record, "Anna").await, user(record, "Bela").await];
    let room = room(record, &[anna, bela]).await;
    let mut of_anna = [gateway.connect(anna).await, gateway.connect(anna).await];
    let mut of_bela = gateway.connect(bela).await;
    of_bela.subscribe(room, None).await;
    for client in &mut of_anna {
        client.subscribe(room, None).await;
    }
    delete_user(record, anna).await;
    for client in &mut of_anna {
        assert_eq!(client.closed().await.0, 4003);
    }
    // What is pushed from then on shows it.
    post(record, room, bela, "is somebody there?").await;
    let frame = of_bela.next().await;
    assert_eq!(
        frame["message"]["chatRoomInfo"].as_array().unwrap().len(),
        1
    );
}

#[tokio::test]
async fn web_pages_connect_only_from_allowed_origins() {
    let test = TestLog::sqlite().await.unwrap();
    let origins = ["https://chat.example"];
    let gateway = Gateway::start_with(&test.record, limits(), &origins).await;
    gateway
        .connect_with(&[("origin", "https://chat.example")])
        .await
        .unwrap();
    gateway.connect_with(&[]).await.unwrap();
    for origin in ["https://evil.example", "https://chat.example.evil", "null"] {
        let refused = gateway.connect_with(&[("origin", origin)]).await;
        assert_eq!(refused.unwrap_err().status(), 403);
    }
    let open = Gateway::start(&test.record).await;
    open.connect_with(&[("origin", "https://any.example")])
        .await
        .unwrap();
}

#[tokio::test]
async fn an_undecodable_event_disturbs_nobody() {
    let test = TestLog::sqlite().await.unwrap();
    let record = &test.record;
    let gateway = Gateway::start(record).await;
    let [anna, bela] = [user(record, "Anna").await, user(record, "Bela").await];
    let room = room(record, &[anna, bela]).await;
    let mut live = gateway.connect(anna).await;
    live.subscribe(room, None).await;
    let first = post(record, room, anna, "before").await;
    let misplaced = Envelope::new(posted(room, anna, "misplaced"), Some(anna), None);
    let misplaced = record.keyring.seal(&misplaced).await.unwrap().payload;
    for (subject, payload) in [
        (
            Subject::RoomTimeline(room),
            b"\xff\x00 not an event".to_vec(),
        ),
        (
            Subject::RoomTimeline(room),
            misplaced
                .escape_ascii()
                .to_string()
                .replace("message.posted", "message.sung")
                .into_bytes(),
        ),
        (Subject::RoomLifecycle(room), misplaced.to_vec()),
        (Subject::User(anna), b"{}".to_vec()),
    ] {
        let event = NewEvent {
            subject,
            deduplication_id: Uuid::new_v4(),
            payload: payload.into(),
        };
        record.log.append(event, Expect::Any).await.unwrap();
    }
    let last = post(record, room, anna, "after").await;
    let both = |frames: [Value; 2]| {
        let positions = frames.map(|frame| frame["position"].clone());
        assert_eq!(positions, [json!(first), json!(last)]);
    };
    both([live.next().await, live.next().await]);
    let mut away = gateway.connect(bela).await;
    away.subscribe(room, Some(created(record, room).await))
        .await;
    both([away.next().await, away.next().await]);
    live.settle().await;
}

#[tokio::test]
async fn a_late_repetition_is_not_pushed_again() {
    let test = TestLog::sqlite().await.unwrap();
    let record = &test.record;
    let gateway = Gateway::start(record).await;
    let [anna, bela] = [user(record, "Anna").await, user(record, "Bela").await];
    let room = room(record, &[anna, bela]).await;
    let mut client = gateway.connect(bela).await;
    client.subscribe(room, None).await;
    // As after the log's own window: it does not recognise the second one.
    let mut positions = Vec::new();
    for _ in 0..2 {
        let key = "key".parse().unwrap();
        let envelope = Envelope::new(posted(room, anna, "once"), Some(anna), Some(key));
        let event = NewEvent {
            deduplication_id: Uuid::new_v4(),
            ..record.keyring.seal(&envelope).await.unwrap()
        };
        positions.push(
            record
                .log
                .append(event, Expect::Any)
                .await
                .unwrap()
                .position,
        );
    }
    let last = post(record, room, anna, "something else").await;
    for replayed in [false, true] {
        assert_eq!(client.next().await["position"], json!(positions[0]));
        assert_eq!(client.next().await["position"], json!(last));
        if replayed {
            assert_eq!(client.next().await["count"], json!(2));
        }
        client.settle().await;
        client
            .subscribe(room, Some(created(record, room).await))
            .await;
    }
}

#[tokio::test]
async fn subscriptions_and_frames_are_limited() {
    let test = TestLog::sqlite().await.unwrap();
    let record = &test.record;
    let limits = Limits {
        subscriptions: 2,
        frame_burst: 10,
        frames_per_second: 1,
        ..limits()
    };
    let gateway = Gateway::start_with(record, limits, &[]).await;
    let anna = user(record, "Anna").await;
    let mut rooms = Vec::new();
    for name in ["Bela", "Carl", "Dora"] {
        let other = user(record, name).await;
        rooms.push(room(record, &[anna, other]).await);
    }
    let mut client = gateway.connect(anna).await;
    for room in &rooms[..2] {
        client.subscribe(*room, None).await;
    }
    client.send(subscribe(rooms[2], None)).await;
    client.error("too_many_subscriptions").await;
    client.unsubscribe(rooms[0]).await;
    assert_eq!(client.subscribe(rooms[2], None).await["type"], "subscribed");
    for _ in 0..20 {
        client.send(json!({"type": "ping"})).await;
    }
    let mut refused = 0;
    for _ in 0..20 {
        let frame = client.next().await;
        match frame["type"].as_str().unwrap() {
            "pong" => {}
            _ => {
                assert_eq!(frame["code"], "rate_limited");
                refused += 1;
            }
        }
    }
    assert!(refused > 5, "{refused}");
    // Pushes are not the client's frames.
    let position = post(record, rooms[1], anna, "hello").await;
    assert_eq!(client.next().await["position"], json!(position));
}

#[tokio::test]
async fn a_user_may_have_so_many_connections_and_no_more() {
    let test = TestLog::sqlite().await.unwrap();
    let record = &test.record;
    let limits = Limits {
        connections_per_user: 2,
        ..limits()
    };
    let gateway = Gateway::start_with(record, limits, &[]).await;
    let [anna, bela] = [user(record, "Anna").await, user(record, "Bela").await];
    let mut first = gateway.connect(anna).await;
    let mut second = gateway.connect(anna).await;
    first.settle().await;
    second.settle().await;
    let mut third = gateway.connect(anna).await;
    third.error("too_many_connections").await;
    assert_eq!(third.closed().await.0, 4010);
    gateway.connect(bela).await.settle().await;

    // The end of one makes room for another.
    first.socket.close(None).await.unwrap();
    within("another connection", async {
        loop {
            let mut again = gateway.connect(anna).await;
            again.send(json!({"type": "ping"})).await;
            if matches!(again.receive().await, Received::Frame(it) if it["type"] == "pong") {
                return;
            }
        }
    })
    .await;
    second.settle().await;
}

#[tokio::test]
async fn half_open_connections_are_given_up() {
    let test = TestLog::sqlite().await.unwrap();
    let limits = Limits {
        ping_interval: Duration::from_millis(200),
        close_timeout: Duration::from_millis(200),
        ..limits()
    };
    let gateway = Gateway::start_with(&test.record, limits, &[]).await;
    let anna = user(&test.record, "Anna").await;
    // One reads on, and so answers pings; the other doesn't, as if its machine were gone.
    let mut reading = gateway.connect(anna).await;
    let silent = gateway.connect(anna).await;
    let reader = tokio::spawn(async move {
        let received = tokio::time::timeout(Duration::from_secs(5), reading.receive()).await;
        assert!(received.is_err(), "{received:?}");
        reading
    });
    within("giving up", async {
        while gateway.sockets.len() > 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let mut reading = reader.await.unwrap();
    reading.settle().await;
    drop(silent);
}

#[tokio::test]
async fn shutdown_delivers_what_is_queued_and_says_goodbye() {
    let test = TestLog::sqlite().await.unwrap();
    let record = &test.record;
    let gateway = Gateway::start(record).await;
    let [anna, bela] = [user(record, "Anna").await, user(record, "Bela").await];
    let room = room(record, &[anna, bela]).await;
    let mut watcher = gateway.connect(bela).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = gateway.connect(anna).await;
        client.subscribe(room, None).await;
        clients.push(client);
    }
    watcher.subscribe(room, None).await;
    clients.push(gateway.connect_with(&[]).await.unwrap());
    let position = post(record, room, anna, "last words").await;
    // Handed out to one, it is queued for all.
    assert_eq!(watcher.next().await["position"], json!(position));

    gateway.shutdown.cancel();
    let unauthenticated = clients.pop();
    for mut client in clients {
        assert_eq!(client.next().await["position"], json!(position));
        assert_eq!(client.closed().await.0, 1001);
    }
    for mut client in unauthenticated.into_iter().chain([watcher]) {
        assert_eq!(client.closed().await.0, 1001);
    }
    within(
        "closing",
        gateway_ws::all_closed(&gateway.sockets, &limits()),
    )
    .await;
    assert_eq!(gateway.sockets.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_outlive_the_log() {
    let Some(mut test) = TestLog::jetstream().await else {
        return;
    };
    let record = test.record.clone();
    let gateway = Gateway::start(&record).await;
    let [anna, bela] = [user(&record, "Anna").await, user(&record, "Bela").await];
    let room = room(&record, &[anna, bela]).await;
    let mut client = gateway.connect(bela).await;
    client.subscribe(room, None).await;
    let position = post(&record, room, anna, "before").await;
    assert_eq!(client.next().await["position"], json!(position));

    let server = test.server.as_mut().unwrap();
    server.kill();
    assert_eq!(client.next().await, json!({"type": "degraded"}));
    client.settle().await;
    server.restart();
    assert_eq!(client.next().await, json!({"type": "restored"}));
    let envelope = Envelope::new(posted(room, anna, "after"), Some(anna), None);
    let position = append_patiently(&record, &envelope).await;
    assert_eq!(client.next().await["position"], json!(position));
    client.settle().await;
}

#[tokio::test]
async fn other_requests_get_an_answer() {
    let test = TestLog::sqlite().await.unwrap();
    let gateway = Gateway::start(&test.record).await;
    let stream = tokio::net::TcpStream::connect(gateway.address).await;
    let mut stream = stream.unwrap();
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    stream
        .write_all(b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    within("reading", stream.read_to_string(&mut answer))
        .await
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let body: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(body["success"], json!(false));
}

/// Clients that ask for a long history and don't read it must not keep others from the log, which lets
/// only so many read at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_do_not_read_their_history_keep_no_others_from_theirs() {
    const IDLE: usize = 70;
    let Some(test) = TestLog::jetstream().await else {
        return;
    };
    let record = &test.record;
    let no_memory = Limits {
        recent_events: 0,
        ..limits()
    };
    let gateway = Gateway::start_with(record, no_memory, &[]).await;
    let [anna, bela] = [user(record, "Anna").await, user(record, "Bela").await];
    let room = room(record, &[anna, bela]).await;
    // More for each than the kernel's buffers take.
    let text = "x".repeat(100_000);
    for _ in 0..60 {
        post(record, room, anna, &text).await;
    }
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        let mut client = gateway.connect(anna).await;
        let after = created(record, room).await;
        assert_eq!(client.subscribe(room, Some(after)).await["recovered"], true);
        idle.push(client);
    }
    let mut client = gateway.connect(bela).await;
    let after = created(record, room).await;
    client.send(subscribe(room, Some(after))).await;
    assert_eq!(client.next_of_type("replayed").await["count"], json!(60));
}
