//! The WebSocket at `/ws` as clients meet it: who gets what, resuming after an absence, and clients that
//! misbehave.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::{SystemTime, UNIX_EPOCH};

use futures::future::join_all;
use hansard_tests::{
    Listener, Person, Said, Service, Stack, Writer, WsClient, assert_kept, on_every_stack,
    read_all, room_of,
};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

/// Posts, and gives the answer's post.
async fn post(person: &Person, room: &str, text: &str) -> Value {
    person.client.post(room, text).await.ok()["post"].clone()
}

fn is_position(value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    text.len() == 16
        && text
            .bytes()
            .all(|it| it.is_ascii_digit() || (b'a'..=b'f').contains(&it))
}

/// The code of the error that must come next.
async fn refused(socket: &mut WsClient) -> String {
    let frame = socket.next().await;
    assert_eq!(frame["type"], "error", "{frame}");
    assert!(
        frame["message"].as_str().is_some_and(|it| !it.is_empty()),
        "{frame}"
    );
    frame["code"].as_str().unwrap().to_owned()
}

// --- What is pushed, and to whom ---

async fn members_are_told_what_happens(stack: Stack) {
    let ada = stack.person("Ada").await;
    let grace = stack.person("Grace").await;
    let hedy = stack.person("Hedy").await;
    let room = room_of(&ada, &[&grace]).await;
    let other_room = room_of(&ada, &[&hedy]).await;
    let earlier = post(&ada, &room, "before anybody listens").await;

    let mut by_header = stack.socket(&grace).await;
    let mut by_frame = WsClient::connect(&stack.ws_url(), None).await;
    by_frame.send(json!({"type": "ping"})).await;
    assert_eq!(by_frame.next().await, json!({"type": "pong"}));
    by_frame
        .send(json!({"type": "subscribe", "room": room}))
        .await;
    assert_eq!(refused(&mut by_frame).await, "unauthorized");
    by_frame
        .send(json!({"type": "auth", "token": ada.token}))
        .await;
    assert_eq!(
        by_frame.next().await,
        json!({"type": "authenticated", "user": ada.id})
    );

    for socket in [&mut by_header, &mut by_frame] {
        let subscribed = socket.subscribe(&room, None).await;
        assert!(is_position(&subscribed["position"]), "{subscribed}");
        assert!(subscribed["position"].as_str() >= earlier["postId"].as_str());
        let position = subscribed["position"].clone();
        let expected = json!({
            "type": "subscribed", "room": room, "position": position, "recovered": false,
        });
        assert_eq!(subscribed, expected);
    }

    // Any text goes through unharmed, and the frame carries what the request was answered with.
    let texts = [
        "Order, order!",
        "a\u{0}b\u{1b}[31m\"\\\n",
        "👋🏽 é e\u{301} ﷽ \u{202e}x",
    ];
    for text in texts {
        let posted = post(&ada, &room, text).await;
        assert_eq!(posted["message"]["messageText"], text);
        let expected = json!({
            "type": "new message", "room": room, "position": posted["postId"], "message": posted,
        });
        assert_eq!(by_header.next().await, expected);
        assert_eq!(by_frame.next().await, expected);
    }

    // Other rooms are none of these sockets' business.
    let reading = grace.client.mark_read(&room).await;
    let position = reading.header("hansard-position");
    for socket in [&mut by_header, &mut by_frame] {
        let frame = socket.next().await;
        let expected = json!({
            "type": "conversation read", "room": room, "position": position, "user": grace.id,
            "upTo": position, "readAt": frame["readAt"],
        });
        assert_eq!(frame, expected);
    }
    post(&hedy, &other_room, "elsewhere").await;
    let id = earlier["postId"].as_str().unwrap();
    let deletion = ada.client.delete_message(id).await;
    let expected = json!({
        "type": "message deleted", "room": room,
        "position": deletion.header("hansard-position"), "messageId": id,
    });
    assert_eq!(by_header.next().await, expected);
    assert_eq!(by_frame.next().await, expected);

    // Several rooms on one socket; one is left.
    by_frame.subscribe(&other_room, None).await;
    by_frame.unsubscribe(&room).await;
    let unheard = post(&grace, &room, "not for Ada's socket").await;
    let heard = post(&hedy, &other_room, "for Ada's socket").await;
    assert_eq!(by_frame.next().await["message"], heard);
    assert_eq!(by_header.next().await["message"], unheard);
    // Leaving what one is not in is no error, coming back works, and twice is once.
    by_frame.unsubscribe(&room).await;
    by_frame.subscribe(&room, None).await;
    by_frame.subscribe(&room, None).await;
    let both = post(&grace, &room, "for both").await;
    assert_eq!(by_frame.next().await["message"], both);
    assert_eq!(by_frame.frames_until_pong().await, Vec::<Value>::new());
    assert_eq!(by_header.next().await["message"], both);

    outsiders_are_told_nothing(&hedy, &stack, &room).await;
    misbehaviour_disturbs_nobody(&stack, &ada, &grace, &room, &mut by_header).await;
    let said = post(&ada, &room, "still here").await;
    assert_eq!(by_header.next().await["message"], said);
    assert_eq!(
        by_frame.next_of_type("new message").await["room"],
        room.as_str()
    );

    ends_are_told(
        &stack,
        [&ada, &hedy],
        [&room, &other_room],
        by_header,
        by_frame,
    )
    .await;
}

async fn outsiders_are_told_nothing(hedy: &Person, stack: &Stack, room: &str) {
    let mut socket = stack.socket(hedy).await;
    for frame in [
        json!({"type": "subscribe", "room": room}),
        json!({"type": "subscribe", "room": room, "after": "0000000000000000"}),
    ] {
        socket.send(frame).await;
        let refusal = socket.next().await;
        assert_eq!(refusal["code"], "not_a_member", "{refusal}");
        assert_eq!(refusal["room"], room);
    }
    let nowhere = "0123456789abcdef0123456789abcdef";
    socket
        .send(json!({"type": "subscribe", "room": nowhere}))
        .await;
    assert_eq!(refused(&mut socket).await, "unknown_room");
    assert_eq!(socket.frames_until_pong().await, Vec::<Value>::new());
}

async fn misbehaviour_disturbs_nobody(
    stack: &Stack,
    ada: &Person,
    grace: &Person,
    room: &str,
    bystander: &mut WsClient,
) {
    let mut socket = stack.socket(grace).await;
    socket.subscribe(room, None).await;
    let odd_ids = [
        "",
        "*",
        ">",
        "chat.room.>",
        "../x",
        "\u{0}",
        "0123456789ABCDEF0123456789ABCDEF",
        "０１２",
        &"a".repeat(33),
        &format!("{room} "),
    ];
    for id in odd_ids {
        for frame_type in ["subscribe", "unsubscribe"] {
            socket.send(json!({"type": frame_type, "room": id})).await;
            assert_eq!(refused(&mut socket).await, "invalid_message", "{id:?}");
        }
        socket
            .send(json!({"type": "subscribe", "room": room, "after": id}))
            .await;
        assert_eq!(refused(&mut socket).await, "invalid_message", "{id:?}");
    }
    for (frame, code) in [
        ("", "not_json"),
        ("ping", "not_json"),
        ("{\"type\":\"ping\"", "not_json"),
        ("{\"type\":\"ping\"}{\"type\":\"ping\"}", "not_json"),
        ("[\"ping\"]", "invalid_message"),
        ("null", "invalid_message"),
        ("{}", "invalid_message"),
        ("{\"type\":null}", "invalid_message"),
        ("{\"type\":\"subscribe\",\"room\":null}", "invalid_message"),
        (
            "{\"type\":\"subscribe\",\"room\":{\"$ne\":1}}",
            "invalid_message",
        ),
        ("{\"type\":\"typing\"}", "invalid_message"),
        ("{\"type\":\"auth\"}", "invalid_message"),
        ("{\"type\":\"publish\"}", "unknown_type"),
        ("{\"type\":\"new message\"}", "unknown_type"),
    ] {
        socket.send_raw(Message::text(frame)).await;
        assert_eq!(refused(&mut socket).await, code, "{frame:?}");
    }
    let nested = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    socket.send_raw(Message::text(nested)).await;
    assert_eq!(refused(&mut socket).await, "not_json");
    socket.send_raw(Message::binary(vec![0xff; 100])).await;
    assert_eq!(refused(&mut socket).await, "unsupported_frame");
    // A misspelt field would change what the client means.
    socket
        .send(json!({"type": "ping", "colour": "blue", "room": 7}))
        .await;
    assert_eq!(refused(&mut socket).await, "invalid_message");

    let said = post(ada, room, "in the midst of it").await;
    assert_eq!(bystander.next().await["message"], said);
    assert_eq!(
        socket.next().await["message"],
        said,
        "the subscription has survived it all"
    );

    socket.send_raw(Message::text("x".repeat(1 << 20))).await;
    assert_eq!(socket.next().await["code"], "too_large");
    assert_eq!(socket.closed().await, Some(1009));

    // Clients that never say who they are, that leave without a word, and that are no WebSockets.
    let silent = WsClient::connect(&stack.ws_url(), None).await;
    for _ in 0..20 {
        let mut socket = stack.socket(grace).await;
        socket
            .send(json!({"type": "subscribe", "room": room, "after": "0000000000000000"}))
            .await;
        drop(socket);
    }
    let answer = ada.client.get("/ws").await;
    assert_eq!(answer.expect(400)["success"], false);
    let said = post(ada, room, "and afterwards").await;
    assert_eq!(bystander.next().await["message"], said);
    assert_eq!(bystander.frames_until_pong().await, Vec::<Value>::new());
    drop(silent);
}

async fn ends_are_told(
    stack: &Stack,
    [ada, hedy]: [&Person; 2],
    [room, other_room]: [&str; 2],
    mut of_grace: WsClient,
    mut of_ada: WsClient,
) {
    let before = post(ada, room, "the last one").await;
    assert_eq!(
        of_grace.next_of_type("new message").await["message"],
        before
    );
    let deletion = ada.client.delete_room(room).await;
    let position = deletion.header("hansard-position").to_owned();
    let _ = deletion.ok();
    let expected = json!({"type": "room deleted", "room": room, "position": position});
    assert_eq!(of_grace.next().await, expected);
    assert_eq!(of_ada.next_of_type("room deleted").await, expected);
    of_grace
        .send(json!({"type": "subscribe", "room": room}))
        .await;
    assert_eq!(refused(&mut of_grace).await, "unknown_room");

    // The other subscription of the same socket goes on.
    let said = post(hedy, other_room, "life goes on").await;
    assert_eq!(of_ada.next().await["message"], said);

    let mut of_hedy = stack.socket(hedy).await;
    of_hedy.subscribe(other_room, None).await;
    let _ = stack.client().delete_user(&hedy.id).await.ok();
    assert_eq!(of_hedy.closed().await, Some(4003));
    let mut late = stack.socket(hedy).await;
    assert_eq!(refused(&mut late).await, "unauthorized");
    assert_eq!(late.closed().await, Some(4001));
    // The room is still Ada's.
    let said = post(ada, other_room, "alone").await;
    assert_eq!(of_ada.next_of_type("new message").await["message"], said);
    assert_eq!(of_grace.frames_until_pong().await, Vec::<Value>::new());
}

// --- Coming back ---

/// What comes after `subscribed`, up to and with the message `last`.
async fn replay(socket: &mut WsClient, last: &str) -> Vec<Said> {
    let mut said = Vec::new();
    loop {
        let frame = socket.next().await;
        match frame["type"].as_str().unwrap() {
            "new message" => {
                assert_eq!(frame["position"], frame["message"]["postId"]);
                said.push(Said {
                    id: frame["position"].as_str().unwrap().to_owned(),
                    text: frame["message"]["message"]["messageText"]
                        .as_str()
                        .unwrap()
                        .to_owned(),
                });
                if frame["position"] == last {
                    return said;
                }
            }
            "replayed" => {}
            _ => panic!("{frame}"),
        }
    }
}

async fn who_was_away_misses_nothing(mut stack: Stack) {
    let ada = stack.person("Ada").await;
    let grace = stack.person("Grace").await;
    let room = room_of(&ada, &[&grace]).await;
    let mut socket = stack.socket(&grace).await;
    socket.subscribe(&room, None).await;
    let seen = post(&ada, &room, "seen 0").await["postId"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        socket.next_of_type("new message").await["position"],
        seen.as_str()
    );
    drop(socket);

    // 300 and more while away, and it goes on while they are caught up with.
    let hasty = ada.client.with_header("prefer", "respond-async");
    let writers: Vec<Writer> = ["one", "two", "three", "four"]
        .iter()
        .map(|name| Writer::start(&hasty, &room, name))
        .collect();
    join_all(writers.iter().map(|writer| writer.go_on(75))).await;
    let mut sockets = Vec::new();
    for _ in 0..4 {
        let mut socket = stack.socket(&grace).await;
        let subscribed = socket.subscribe(&room, Some(&seen)).await;
        assert_eq!(subscribed["recovered"], true, "{subscribed}");
        assert!(is_position(&subscribed["position"]));
        sockets.push(socket);
        writers[0].go_on(5).await;
    }
    let listener = Listener::start(&stack, &grace, &room);
    join_all(writers.iter().map(|writer| writer.go_on(5))).await;
    let mut acknowledged = join_all(writers.into_iter().map(Writer::stop)).await;
    acknowledged.push(vec![Said {
        id: seen.clone(),
        text: "seen 0".to_owned(),
    }]);
    let last = acknowledged
        .iter()
        .flatten()
        .map(|said| &said.id)
        .max()
        .unwrap()
        .clone();
    let reader = grace.client.with_header("hansard-position", &last);
    let all = read_all(&reader, &room).await;
    assert_kept(&all, &acknowledged);
    assert!(all.len() > 300);
    for socket in &mut sockets {
        assert_eq!(replay(socket, &last).await, all[1..]);
        assert_eq!(
            without_replayed(socket.frames_until_pong().await),
            Vec::<Value>::new()
        );
    }
    assert_eq!(listener.heard(all.len()).await, all);

    // From the middle, from the end, on a socket that is subscribed already, and after a restart.
    let middle = all[all.len() / 2].id.clone();
    let mut socket = sockets.remove(0);
    assert_eq!(
        socket.subscribe(&room, Some(&middle)).await["recovered"],
        true
    );
    assert_eq!(replay(&mut socket, &last).await, all[all.len() / 2 + 1..]);
    assert_eq!(socket.next().await["type"], "replayed");
    stack.kill(Service::GatewayWs);
    assert_eq!(socket.closed().await, None);
    stack.restart(Service::GatewayWs).await;
    let mut socket = stack.socket(&grace).await;
    assert_eq!(
        socket.subscribe(&room, Some(&middle)).await["recovered"],
        true
    );
    assert_eq!(replay(&mut socket, &last).await, all[all.len() / 2 + 1..]);
    let mut socket = stack.socket(&grace).await;
    let subscribed = socket.subscribe(&room, Some(&last)).await;
    assert_eq!(subscribed["recovered"], true);
    assert_eq!(subscribed["position"], last.as_str());
    let next = post(&ada, &room, "next").await;
    assert_eq!(
        replay(&mut socket, next["postId"].as_str().unwrap())
            .await
            .len(),
        1
    );

    // Positions that never were: told so, and pushed from now on.
    let mut socket = stack.socket(&grace).await;
    let subscribed = socket.subscribe(&room, Some("00000000ffffffff")).await;
    assert_eq!(subscribed["recovered"], false, "{subscribed}");
    assert!(subscribed["reason"].is_string());
    let next = post(&ada, &room, "from now on").await;
    assert_eq!(socket.next().await["message"], next);

    // Away while the room was deleted: told that, after what was said before.
    let _ = ada.client.delete_room(&room).await.ok();
    let mut socket = stack.socket(&grace).await;
    let frame = json!({"type": "subscribe", "room": room, "after": last});
    socket.send(frame).await;
    let end = socket.next_of_type("room deleted").await;
    assert_eq!(end["room"], room.as_str());
}

fn without_replayed(frames: Vec<Value>) -> Vec<Value> {
    frames
        .into_iter()
        .filter(|frame| frame["type"] != "replayed")
        .collect()
}

on_every_stack!(
    Auth::Open;
    members_are_told_what_happens,
    who_was_away_misses_nothing,
);

// --- Tokens ---

mod with_tokens {
    use super::*;

    fn seconds_from_now(seconds: i64) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        i64::try_from(now.as_secs()).unwrap() + seconds
    }

    async fn sockets_are_worth_their_tokens(stack: Stack) {
        let ada = stack.person("Ada").await;
        let grace = stack.person("Grace").await;
        let room = room_of(&ada, &[&grace]).await;
        let claims = |user: &Person, lifetime: i64| {
            let issued = seconds_from_now(lifetime.min(0) - 10);
            let expires = seconds_from_now(lifetime);
            json!({"userId": user.id, "userType": "consumer", "iat": issued, "exp": expires})
        };
        // Begun first: these take their time.
        let mut short_lived = stack.socket_with(&stack.sign(&claims(&grace, 2))).await;
        short_lived.subscribe(&room, None).await;
        let mut prolonged = stack.socket_with(&stack.sign(&claims(&grace, 2))).await;
        prolonged.subscribe(&room, None).await;
        prolonged
            .send(json!({"type": "auth", "token": grace.token}))
            .await;
        assert_eq!(prolonged.next().await["type"], "authenticated");
        prolonged
            .send(json!({"type": "auth", "token": ada.token}))
            .await;
        assert_eq!(
            refused(&mut prolonged).await,
            "invalid_message",
            "another user's token"
        );

        let (head, signature) = grace.token.rsplit_once('.').unwrap();
        let payload = head.split_once('.').unwrap().1;
        let unsigned = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{payload}.");
        let mixed = format!("{}.{signature}", ada.token.rsplit_once('.').unwrap().0);
        let nobody = "0123456789abcdef0123456789abcdef";
        let bad_tokens = [
            String::new(),
            "x".to_owned(),
            "x".repeat(5000),
            unsigned,
            mixed,
            stack.sign(&claims(&grace, -120)),
            stack.sign(&json!({"userId": grace.id, "userType": "consumer", "iat": 1})),
            stack
                .sign(&json!({"userId": "*", "userType": "consumer", "exp": seconds_from_now(60)})),
            stack.token(nobody, "consumer"),
        ];
        for token in &bad_tokens {
            let mut by_header = stack.socket_with(token).await;
            assert_eq!(refused(&mut by_header).await, "unauthorized", "{token}");
            assert_eq!(by_header.closed().await, Some(4001), "{token}");
            let mut by_frame = WsClient::connect(&stack.ws_url(), None).await;
            by_frame.send(json!({"type": "auth", "token": token})).await;
            assert_eq!(refused(&mut by_frame).await, "unauthorized", "{token}");
            assert_eq!(by_frame.closed().await, Some(4001), "{token}");
        }

        assert_eq!(refused(&mut short_lived).await, "unauthorized");
        assert_eq!(
            short_lived.closed().await,
            Some(4001),
            "its token has expired"
        );
        let said = post(&ada, &room, "to those with valid tokens").await;
        assert_eq!(prolonged.next().await["message"], said);

        // Support may delete anybody; the deleted user's token is worth nothing from then on.
        let _ = stack.operator().delete_user(&grace.id).await.ok();
        assert_eq!(prolonged.closed().await, Some(4003));
        let mut late = stack.socket(&grace).await;
        assert_eq!(refused(&mut late).await, "unauthorized");
        assert_eq!(late.closed().await, Some(4001));
        let mut of_ada = stack.socket(&ada).await;
        of_ada
            .subscribe(&room, Some(said["postId"].as_str().unwrap()))
            .await;
    }

    on_every_stack!(Auth::Token; sockets_are_worth_their_tokens);
}
