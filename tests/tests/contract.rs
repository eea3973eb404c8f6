//! The tutorial's API, as its clients see it: every route's exact answers, every validation text, paging,
//! receipts, and each place where Hansard differs on purpose.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::StreamExt;
use hansard_tests::{Person, Shapes, Stack, TestClient, eventually, on_every_stack, room_of};
use reqwest::Method;
use serde_json::{Value, json};

const CONSUMERS: &str = "consumer-to-consumer";
const SUPPORT: &str = "consumer-to-support";
const FORM: &str = "application/x-www-form-urlencoded";
const NO_USER: &str = "No user with this id found";
const NO_ROOM: &str = "No room exists for this id";
const NOT_A_MEMBER: &str = "only members of the room may do this";
/// An id that nobody and nothing has.
const NOBODY: &str = "00000000000000000000000000000000";

// ---------------------------------------------------------------------------------------------------------
// Patterns of what the contract names USER, POST, MSG and CONV. Names of things seen before stand for them:
// the user `ada` is `<id ada>`, her creation `<date ada-created>`.

fn user(name: &str, first: &str, last: &str, user_type: &str) -> Value {
    json!({
        "_id": format!("<id {name}>"),
        "firstName": first,
        "lastName": last,
        "type": user_type,
        "createdAt": format!("<date {name}-created>"),
        "updatedAt": format!("<date {name}-created>"),
        "__v": 0,
    })
}

fn ada() -> Value {
    user("ada", "Ada", "Lovelace", "consumer")
}

fn grace() -> Value {
    user("grace", "Grace", "Lovelace", "consumer")
}

fn sam() -> Value {
    user("sam", "Sam", "Lovelace", "support")
}

/// The author of a message who has been deleted since.
fn deleted(name: &str, user_type: &str) -> Value {
    json!({
        "_id": format!("<id {name}>"),
        "firstName": "",
        "lastName": "",
        "type": user_type,
        "createdAt": format!("<date {name}-created>"),
        "updatedAt": format!("<date {name}-deleted>"),
        "__v": 0,
        "deleted": true,
    })
}

/// Members of a room, in the order in which rooms show them: that of their ids.
fn by_id(seen: &Shapes, members: &[(&str, Value)]) -> Vec<Value> {
    let mut members: Vec<_> = members.iter().collect();
    members.sort_by_key(|(name, _)| seen[name].to_owned());
    members.into_iter().map(|(_, user)| user.clone()).collect()
}

/// That `name` read something at a time that is remembered as `at`.
fn receipt(name: &str, at: &str) -> Value {
    json!({"readByUserId": format!("<id {name}>"), "readAt": format!("<date {at}>")})
}

/// The message remembered as `name`.
fn post(name: &str, text: &str, author: (&str, Value), members: &[Value]) -> Value {
    json!({
        "_id": "<id room>",
        "postId": format!("<message {name}>"),
        "chatRoomId": "<id room>",
        "message": {"messageText": text},
        "type": "text",
        "postedByUser": author.1,
        "readByRecipients": [receipt(author.0, &format!("{name}-posted"))],
        "chatRoomInfo": members,
        "createdAt": format!("<date {name}-posted>"),
        "updatedAt": format!("<date {name}-posted>"),
    })
}

/// The same in a conversation, where others may have read it; `updated` is the last time of both.
fn message(name: &str, text: &str, author: Value, receipts: &[Value], updated: &str) -> Value {
    json!({
        "_id": format!("<message {name}>"),
        "chatRoomId": "<id room>",
        "message": {"messageText": text},
        "type": "text",
        "postedByUser": author,
        "readByRecipients": receipts,
        "createdAt": format!("<date {name}-posted>"),
        "updatedAt": format!("<date {updated}>"),
        "__v": 0,
    })
}

/// The same as the newest in a list of conversations. `readers` are a user's name, pattern, and time.
fn conversation(
    name: &str,
    text: &str,
    author: Value,
    readers: &[(&str, Option<Value>, &str)],
    members: &[Value],
    unread: u64,
) -> Value {
    let receipts: Vec<Value> = readers
        .iter()
        .map(|(reader, user, at)| {
            json!({
                "readByUserId": format!("<id {reader}>"),
                "readAt": format!("<date {at}>"),
                "readByUser": user.iter().collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "_id": "<id room>",
        "messageId": format!("<message {name}>"),
        "chatRoomId": "<id room>",
        "message": {"messageText": text},
        "type": "text",
        "postedByUser": author,
        "readByRecipients": receipts,
        "roomInfo": members.iter().map(|member| json!([member])).collect::<Vec<_>>(),
        "createdAt": format!("<date {name}-posted>"),
        "unreadCount": unread,
    })
}

fn initiated(is_new: bool, name: &str, room_type: &str) -> Value {
    let message = match is_new {
        true => "creating a new chatroom",
        false => "retrieving an old chat room",
    };
    json!({
        "success": true,
        "chatRoom": {
            "isNew": is_new,
            "message": message,
            "chatRoomId": format!("<id {name}>"),
            "type": room_type,
        },
    })
}

fn marked(count: u64) -> Value {
    json!({"success": true, "data": {"n": count, "nModified": count, "ok": 1}})
}

fn list(conversations: &[Value]) -> Value {
    json!({"success": true, "conversation": conversations})
}

fn page(messages: &[Value], members: &[Value]) -> Value {
    json!({"success": true, "conversation": messages, "users": members})
}

// ---------------------------------------------------------------------------------------------------------
// Shorthands for what most scenarios begin with.

async fn message_of(caller: &Person, room: &str, text: &str) -> String {
    let answer = caller.client.post(room, text).await.ok();
    answer["post"]["postId"].as_str().unwrap().to_owned()
}

fn ids(answer: &Value, member: &str) -> Vec<String> {
    let items = answer["conversation"].as_array().unwrap();
    let ids = items.iter().map(|item| item[member].as_str().unwrap());
    ids.map(str::to_owned).collect()
}

/// The machine's clock as dates are written.
fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let millis = i64::try_from(since.as_millis()).unwrap();
    events::Timestamp::from_millis(millis).unwrap().to_string()
}

/// Waits until the clock shows another millisecond, so that what comes next has a later date.
async fn the_clock_ticks() {
    let start = now();
    eventually(
        "the clock's next millisecond",
        Duration::from_secs(5),
        || std::future::ready((now() > start).then_some(())),
    )
    .await;
}

// ---------------------------------------------------------------------------------------------------------

async fn the_tutorials_walk_through(stack: Stack) {
    let stack = stack.with_positions();
    let anyone = stack.client();
    let mut seen = Shapes::new();

    // Three users.
    for (first, user_type, pattern) in [
        ("Ada", "consumer", ada()),
        ("Grace", "consumer", grace()),
        ("Sam", "support", sam()),
    ] {
        let created = anyone.create_user(first, "Lovelace", user_type).await.ok();
        seen.check(&created, &json!({"success": true, "user": pattern}));
    }
    seen.check(
        &anyone.users().await.ok(),
        &json!({"success": true, "users": [ada(), grace(), sam()]}),
    );
    seen.check(
        &anyone.user(&seen["grace"]).await.ok(),
        &json!({"success": true, "user": grace()}),
    );

    // They log in.
    let mut clients = BTreeMap::new();
    for name in ["ada", "grace", "sam"] {
        let answer = anyone.login(&seen[name]).await.ok();
        let token = format!("<token {name}-token>");
        seen.check(&answer, &json!({"success": true, "authorization": token}));
        clients.insert(name, anyone.with_token(&seen[&format!("{name}-token")]));
    }
    let claims = jsonwebtoken::dangerous::insecure_decode::<Value>(&seen["sam-token"]).unwrap();
    assert_eq!(claims.header.alg, jsonwebtoken::Algorithm::HS256);
    seen.check(
        &claims.claims,
        &json!({"userId": "<id sam>", "userType": "support", "iat": "<number>", "exp": "<number>"}),
    );
    let (iat, exp) = (&claims.claims["iat"], &claims.claims["exp"]);
    assert!(exp.as_u64() > iat.as_u64(), "tokens expire");

    // A room, and the same room again: in another order, by another of its members, with the caller named
    // or not. Another type is another room.
    let (a, g, s) = (
        seen["ada"].to_owned(),
        seen["grace"].to_owned(),
        seen["sam"].to_owned(),
    );
    let first = clients["ada"].initiate(&[&g, &s], CONSUMERS).await.ok();
    seen.check(&first, &initiated(true, "room", CONSUMERS));
    for (caller, others) in [
        ("ada", vec![s.as_str(), &g]),
        ("sam", vec![&g, &a]),
        ("grace", vec![&g, &a, &s]),
    ] {
        let again = clients[caller].initiate(&others, CONSUMERS).await.ok();
        seen.check(&again, &initiated(false, "room", CONSUMERS));
    }
    let other = clients["ada"].initiate(&[&g, &s], SUPPORT).await.ok();
    seen.check(&other, &initiated(true, "other-room", SUPPORT));
    assert_ne!(seen["room"], seen["other-room"]);
    let pair = clients["ada"].initiate(&[&g], CONSUMERS).await.ok();
    seen.check(&pair, &initiated(true, "pair", CONSUMERS));
    assert_ne!(seen["room"], seen["pair"]);
    let room = seen["room"].to_owned();
    let members = by_id(&seen, &[("ada", ada()), ("grace", grace()), ("sam", sam())]);

    // Without messages a room is empty, and in nobody's list.
    seen.check(
        &clients["sam"].conversation(&room, "").await.ok(),
        &page(&[], &members),
    );
    seen.check(&clients["ada"].conversations("").await.ok(), &list(&[]));

    // Messages.
    for (name, author, text) in [
        ("m1", ("ada", ada()), "Order, order!"),
        ("m2", ("grace", grace()), "Hear, hear!"),
        ("m3", ("ada", ada()), "The ayes have it."),
    ] {
        let posted = clients[author.0].post(&room, text).await.ok();
        let pattern = post(name, text, author, &members);
        seen.check(&posted, &json!({"success": true, "post": pattern}));
    }
    assert!(seen["m1"] < seen["m2"] && seen["m2"] < seen["m3"]);
    assert!(seen["m1-posted"] <= seen["m2-posted"]);

    // The conversation, oldest first, and the list of conversations.
    let unread = [
        message(
            "m1",
            "Order, order!",
            ada(),
            &[receipt("ada", "m1-posted")],
            "m1-posted",
        ),
        message(
            "m2",
            "Hear, hear!",
            grace(),
            &[receipt("grace", "m2-posted")],
            "m2-posted",
        ),
        message(
            "m3",
            "The ayes have it.",
            ada(),
            &[receipt("ada", "m3-posted")],
            "m3-posted",
        ),
    ];
    seen.check(
        &clients["sam"].conversation(&room, "").await.ok(),
        &page(&unread, &members),
    );
    for (name, count) in [("ada", 1), ("grace", 2), ("sam", 3)] {
        let readers = [("ada", Some(ada()), "m3-posted")];
        let newest = conversation("m3", "The ayes have it.", ada(), &readers, &members, count);
        seen.check(
            &clients[name].conversations("").await.ok(),
            &list(&[newest]),
        );
    }

    // Reading.
    seen.check(&clients["sam"].mark_read(&room).await.ok(), &marked(3));
    seen.check(&clients["sam"].mark_read(&room).await.ok(), &marked(0));
    let (by_ada, by_sam) = (receipt("ada", "m1-posted"), receipt("sam", "sam-read"));
    let read = [
        message(
            "m1",
            "Order, order!",
            ada(),
            &[by_ada, by_sam.clone()],
            "sam-read",
        ),
        message(
            "m2",
            "Hear, hear!",
            grace(),
            &[receipt("grace", "m2-posted"), by_sam.clone()],
            "sam-read",
        ),
        message(
            "m3",
            "The ayes have it.",
            ada(),
            &[receipt("ada", "m3-posted"), by_sam],
            "sam-read",
        ),
    ];
    seen.check(
        &clients["grace"].conversation(&room, "").await.ok(),
        &page(&read, &members),
    );
    let readers = [
        ("ada", Some(ada()), "m3-posted"),
        ("sam", Some(sam()), "sam-read"),
    ];
    let newest = conversation("m3", "The ayes have it.", ada(), &readers, &members, 0);
    seen.check(
        &clients["sam"].conversations("").await.ok(),
        &list(&[newest]),
    );

    // Deleting a message, which anyone may here.
    let gone = |count: u64| json!({"success": true, "deletedMessagesCount": count});
    let m3 = seen["m3"].to_owned();
    seen.check(&anyone.delete_message(&m3).await.ok(), &gone(1));
    seen.check(&anyone.delete_message(&m3).await.ok(), &gone(0));
    let mut read = read;
    read[2]["message"]["messageText"] = "".into();
    read[2]["deleted"] = true.into();
    seen.check(
        &clients["grace"].conversation(&room, "").await.ok(),
        &page(&read, &members),
    );
    let readers = [
        ("grace", Some(grace()), "m2-posted"),
        ("sam", Some(sam()), "sam-read"),
    ];
    let newest = conversation("m2", "Hear, hear!", grace(), &readers, &members, 1);
    seen.check(
        &clients["ada"].conversations("").await.ok(),
        &list(&[newest]),
    );

    // Deleting the room.
    let gone = |rooms: u64, messages: u64| {
        json!({
            "success": true,
            "message": "Operation performed succesfully",
            "deletedRoomsCount": rooms,
            "deletedMessagesCount": messages,
        })
    };
    seen.check(&anyone.delete_room(&room).await.ok(), &gone(1, 2));
    seen.check(&anyone.delete_room(&room).await.ok(), &gone(0, 0));
    seen.check(&clients["ada"].conversations("").await.ok(), &list(&[]));
    clients["ada"]
        .conversation(&room, "")
        .await
        .refused(404, NO_ROOM);

    // Deleting a user.
    let gone = |count: u64| json!({"success": true, "message": format!("Deleted a count of {count} user.")});
    seen.check(&anyone.delete_user(&s).await.ok(), &gone(1));
    seen.check(&anyone.delete_user(&s).await.ok(), &gone(0));
    anyone.user(&s).await.refused(404, NO_USER);
    anyone.login(&s).await.refused(404, NO_USER);
    seen.check(
        &anyone.users().await.ok(),
        &json!({"success": true, "users": [ada(), grace()]}),
    );
}

async fn fields_come_as_json_or_forms_and_wrong_ones_are_named(stack: Stack) {
    let stack = stack.with_positions();
    let anyone = stack.client();
    let mut seen = Shapes::new();

    // Forms do all that JSON does.
    let form = async |client: &TestClient, method: Method, path: &str, body: &str| {
        let body = body.to_owned();
        client.send_bytes(method, path, FORM, body).await
    };
    let created = form(
        &anyone,
        Method::POST,
        "/users",
        "firstName=Ada&lastName=King%20of%20Lovelace+%26+Co&type=consumer",
    );
    seen.check(
        &created.await.ok(),
        &json!({"success": true, "user": user("ada", "Ada", "King of Lovelace & Co", "consumer")}),
    );
    let token = anyone.login(&seen["ada"]).await.ok()["authorization"].clone();
    let ada = anyone.with_token(token.as_str().unwrap());
    let (grace, sam) = (stack.person("Grace").await, stack.person("Sam").await);
    let (g, s) = (&grace.id, &sam.id);
    let pair = ada.initiate(&[g, s], CONSUMERS).await.ok();
    seen.check(&pair, &initiated(true, "room", CONSUMERS));
    for members in [
        format!("userIds={g}&userIds={s}"),
        format!("userIds[]={s}&userIds[]={g}"),
        format!("userIds%5B0%5D={s}&userIds%5B1%5D={g}"),
    ] {
        let body = format!("type={CONSUMERS}&{members}");
        let answer = form(&ada, Method::POST, "/room/initiate", &body).await.ok();
        seen.check(&answer, &initiated(false, "room", CONSUMERS));
    }
    let body = format!("type={CONSUMERS}&userIds[]={g}");
    let answer = form(&ada, Method::POST, "/room/initiate", &body).await.ok();
    seen.check(&answer, &initiated(true, "pair", CONSUMERS));
    // One value under a plain name is a text, as in the tutorial.
    let body = format!("type={CONSUMERS}&userIds={g}");
    let refused = form(&ada, Method::POST, "/room/initiate", &body).await;
    assert_eq!(
        refused.wrong_fields(),
        json!({"userIds": "Please provide an array"})
    );
    let room = seen["room"].to_owned();
    let path = format!("/room/{room}/message");
    let posted = form(&ada, Method::POST, &path, "messageText=2+%2B+2%3D4%0A")
        .await
        .ok();
    assert_eq!(
        posted["post"]["message"],
        json!({"messageText": "2 + 2=4\n"})
    );
    let _ = ada.post(&room, "another").await.ok();
    let path = format!("/room/{room}/mark-read");
    let body = format!("upTo={}", posted["post"]["postId"].as_str().unwrap());
    let read = form(&grace.client, Method::PUT, &path, &body).await.ok();
    seen.check(&read, &marked(1));

    // Fields that no rule names are ignored.
    let body =
        json!({"messageText": "x", "postedByUser": NOBODY, "chatRoomId": NOBODY, "$set": {"a": 1}});
    let path = format!("/room/{room}/message");
    let posted = ada.send(Method::POST, &path, Some(body)).await.ok();
    assert_eq!(posted["post"]["chatRoomId"], room.as_str());
    assert_eq!(posted["post"]["postedByUser"]["_id"], seen["ada"]);

    // Every text about a user's fields.
    const TYPES: &str = "Possible value are consumer,support";
    const ABSENT: &str = "please provide a string";
    const BLANK: &str = "string cannot be empty";
    for (body, errors) in [
        (
            json!({}),
            json!({"firstName": ABSENT, "lastName": ABSENT, "type": TYPES}),
        ),
        (
            json!({"firstName": "", "lastName": " \t\n", "type": ""}),
            json!({"firstName": BLANK, "lastName": BLANK, "type": TYPES}),
        ),
        (
            json!({"firstName": null, "lastName": ["a"], "type": ["consumer"]}),
            json!({"firstName": ABSENT, "lastName": ABSENT, "type": TYPES}),
        ),
        (
            json!({"firstName": 1, "lastName": {"a": "b"}, "type": "Consumer"}),
            json!({"firstName": ABSENT, "lastName": ABSENT, "type": TYPES}),
        ),
        (
            json!({"firstName": true, "lastName": "King", "type": "support"}),
            json!({"firstName": ABSENT}),
        ),
        (
            json!({"firstName": "Ada", "lastName": "King", "type": "admin"}),
            json!({"type": TYPES}),
        ),
    ] {
        let refused = anyone.send(Method::POST, "/users", Some(body)).await;
        assert_eq!(refused.wrong_fields(), errors);
    }
    let refused = anyone.send(Method::POST, "/users", None).await;
    assert_eq!(
        refused.wrong_fields(),
        json!({"firstName": ABSENT, "lastName": ABSENT, "type": TYPES})
    );
    let refused = form(
        &anyone,
        Method::POST,
        "/users",
        "firstName=Ada&firstName=Eve&type=support",
    )
    .await;
    assert_eq!(
        refused.wrong_fields(),
        json!({"firstName": ABSENT, "lastName": ABSENT})
    );

    // Every text about a room's.
    const ROOM_TYPES: &str = "Possible value are consumer-to-consumer,consumer-to-support";
    const NO_ARRAY: &str = "Please provide an array";
    const TWICE: &str = "Values of array should be unique";
    const NO_STRING: &str = "Values of array should be string only";
    const EMPTY: &str = "Array cannot be empty";
    for (users, text) in [
        (Value::Null, NO_ARRAY),
        (json!(g), NO_ARRAY),
        (json!({"0": g}), NO_ARRAY),
        (json!([g, g]), TWICE),
        (json!([1, 1]), TWICE),
        (json!(["", ""]), TWICE),
        (json!([g, 1]), NO_STRING),
        (json!([g, ""]), NO_STRING),
        (json!([null]), NO_STRING),
        (json!([[g]]), NO_STRING),
        (json!([]), EMPTY),
    ] {
        let body = json!({"userIds": users, "type": CONSUMERS});
        let refused = ada.send(Method::POST, "/room/initiate", Some(body)).await;
        assert_eq!(refused.wrong_fields(), json!({"userIds": text}), "{users}");
    }
    let refused = ada.send(Method::POST, "/room/initiate", None).await;
    assert_eq!(
        refused.wrong_fields(),
        json!({"userIds": NO_ARRAY, "type": ROOM_TYPES})
    );
    let refused = ada.initiate(&[g], "consumer").await;
    assert_eq!(refused.wrong_fields(), json!({"type": ROOM_TYPES}));

    // And about a message's.
    for (body, text) in [
        (json!({}), ABSENT),
        (json!({"messageText": null}), ABSENT),
        (json!({"messageText": 5}), ABSENT),
        (json!({"messageText": ["a"]}), ABSENT),
        (json!({"messageText": {"messageText": "a"}}), ABSENT),
        (json!({"messageText": ""}), BLANK),
        (json!({"messageText": " \r\n\t\u{a0}\u{2003}"}), BLANK),
    ] {
        let refused = ada.send(Method::POST, &path, Some(body)).await;
        assert_eq!(refused.wrong_fields(), json!({"messageText": text}));
    }

    // And about how far somebody has read.
    const NO_MESSAGE: &str = "no message exists in this room for this id";
    let path = format!("/room/{room}/mark-read");
    for (up_to, text) in [
        (json!(5), ABSENT),
        (json!([]), ABSENT),
        (json!(""), NO_MESSAGE),
        (json!("5"), NO_MESSAGE),
        (json!("000000000000ffff"), NO_MESSAGE),
        // The position of something else: of Ada's creation.
        (json!("0000000000000001"), NO_MESSAGE),
    ] {
        let body = json!({"upTo": up_to});
        let refused = ada.send(Method::PUT, &path, Some(body)).await;
        assert_eq!(refused.wrong_fields(), json!({"upTo": text}), "{up_to}");
    }
    let elsewhere = ada.post(&seen["pair"], "elsewhere").await.ok();
    let elsewhere = elsewhere["post"]["postId"].as_str().unwrap();
    let refused = ada.mark_read_up_to(&room, elsewhere).await;
    assert_eq!(refused.wrong_fields(), json!({"upTo": NO_MESSAGE}));

    // Nothing of all that was done.
    assert_eq!(
        anyone.users().await.ok()["users"].as_array().unwrap().len(),
        3
    );
    let page = ada.conversation(&room, "").await.ok();
    assert_eq!(page["conversation"].as_array().unwrap().len(), 3);
}

async fn what_the_tutorial_let_pass_is_refused(stack: Stack) {
    let stack = stack.with_positions();
    let anyone = stack.client();
    let (ada, grace, eve) = (
        stack.person("Ada").await,
        stack.person("Grace").await,
        stack.person("Eve").await,
    );
    let room = room_of(&ada, &[&grace]).await;
    let message = message_of(&ada, &room, "between us").await;

    // Without a token: 401 that says how to come with one.
    let no_token = |path: &str, method| {
        let (anyone, path) = (anyone.clone(), path.to_owned());
        async move { anyone.send(method, &path, Some(json!({}))).await }
    };
    for (method, path) in [
        (Method::POST, "/room/initiate".to_owned()),
        (Method::POST, format!("/room/{room}/message")),
        (Method::GET, "/room".to_owned()),
        (Method::GET, format!("/room/{room}")),
        (Method::PUT, format!("/room/{room}/mark-read")),
    ] {
        let answer = no_token(&path, method.clone()).await;
        assert_eq!(
            answer.header("www-authenticate"),
            "Bearer",
            "{method} {path}"
        );
        answer.refused(401, "No access token provided");
        let garbage = anyone.with_token("garbage");
        let answer = garbage.send(method.clone(), &path, Some(json!({}))).await;
        assert_eq!(
            answer.header("www-authenticate"),
            "Bearer error=\"invalid_token\"",
            "{method} {path}"
        );
        answer.refused(401, "jwt malformed");
    }

    // Rooms are for their members.
    eve.client
        .conversation(&room, "")
        .await
        .refused(403, NOT_A_MEMBER);
    eve.client
        .post(&room, "me too")
        .await
        .refused(403, NOT_A_MEMBER);
    eve.client.mark_read(&room).await.refused(403, NOT_A_MEMBER);
    eve.client
        .mark_read_up_to(&room, &message)
        .await
        .refused(403, NOT_A_MEMBER);

    // What does not exist is 404, and nothing is kept of it.
    anyone.user(NOBODY).await.refused(404, NO_USER);
    anyone.login(NOBODY).await.refused(404, NO_USER);
    ada.client
        .conversation(NOBODY, "")
        .await
        .refused(404, NO_ROOM);
    ada.client
        .post(NOBODY, "an orphan")
        .await
        .refused(404, NO_ROOM);
    ada.client.mark_read(NOBODY).await.refused(404, NO_ROOM);
    assert_eq!(
        anyone.delete_user(NOBODY).await.ok()["message"],
        "Deleted a count of 0 user."
    );
    assert_eq!(
        anyone.delete_message("00000000ffffffff").await.ok()["deletedMessagesCount"],
        0
    );
    // An event that is no message.
    assert_eq!(
        anyone.delete_message("0000000000000001").await.ok()["deletedMessagesCount"],
        0
    );

    // Rooms are made of users that exist.
    let other = "f".repeat(32);
    for (users, unknown) in [
        (vec![NOBODY], NOBODY.to_owned()),
        (vec![&grace.id, NOBODY, &other], format!("{NOBODY},{other}")),
        (vec!["no id", &grace.id, NOBODY], format!("no id,{NOBODY}")),
    ] {
        let refused = ada.client.initiate(&users, CONSUMERS).await;
        let errors = json!({"userIds": format!("No user exists for {unknown}")});
        assert_eq!(refused.wrong_fields(), errors);
    }
    let _ = anyone.delete_user(&eve.id).await.ok();
    let refused = ada.client.initiate(&[&eve.id], CONSUMERS).await;
    let errors = json!({"userIds": format!("No user exists for {}", eve.id)});
    assert_eq!(refused.wrong_fields(), errors);

    // Malformed JSON is answered in JSON.
    let path = format!("/room/{room}/message");
    let malformed = ada.client.send_bytes(
        Method::POST,
        &path,
        "application/json",
        "{\"messageText\": ",
    );
    let malformed = malformed.await;
    let text =
        "the request's body is not valid JSON: EOF while parsing a value at line 1 column 16";
    malformed.refused(400, text);

    // What no route has is the tutorial's 404, whatever is asked of it.
    for (method, path) in [
        (Method::GET, "/"),
        (Method::GET, "/nope"),
        (Method::POST, "/nope"),
        (Method::PUT, "/users"),
        (Method::PATCH, "/users"),
        (Method::DELETE, "/room"),
        (Method::POST, "/room"),
        (Method::GET, "/login/x"),
        (Method::GET, "/room/initiate/x"),
        (Method::DELETE, "/delete/room"),
    ] {
        let answer = ada.client.send(method, path, None).await;
        answer.refused(404, "API endpoint doesnt exist");
    }

    // Nothing of all that was done.
    assert_eq!(
        ids(&ada.client.conversation(&room, "").await.ok(), "_id"),
        [message]
    );
    assert_eq!(
        anyone.users().await.ok()["users"].as_array().unwrap().len(),
        2
    );

    // Web pages may call, with a token, and see what they need of an answer.
    let page = ada.client.with_header("origin", "https://chat.example");
    let asking = page
        .with_header("access-control-request-method", "POST")
        .with_header(
            "access-control-request-headers",
            "authorization,content-type,idempotency-key",
        );
    for path in ["/room/initiate", "/users", &format!("/room/{room}/message")] {
        let answer = asking.send(Method::OPTIONS, path, None).await;
        assert!(answer.status.is_success(), "{path}: {}", answer.status);
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert_eq!(answer.header("access-control-allow-methods"), "POST");
        assert_eq!(
            answer.header("access-control-allow-headers"),
            "authorization,content-type,idempotency-key"
        );
    }
    let posted = page.post(&room, "from a web page").await;
    for answer in [
        posted,
        page.conversations("").await,
        page.conversation(NOBODY, "").await,
        page.get("/nope").await,
    ] {
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        let exposed = answer.header("access-control-expose-headers");
        assert!(exposed.contains("hansard-position"), "{exposed}");
    }
}

async fn a_rooms_pages_run_from_the_newest_and_read_from_the_oldest(stack: Stack) {
    let stack = stack.with_positions();
    let (ada, grace) = (stack.person("Ada").await, stack.person("Grace").await);
    let room = room_of(&ada, &[&grace]).await;
    let quickly = ada.client.with_header("prefer", "respond-async");
    let mut all = Vec::new();
    let mut position = String::new();
    for number in 0..103 {
        let answer = quickly.post(&room, &format!("message {number}")).await;
        position = answer.header("hansard-position").to_owned();
        all.push(answer.ok()["post"]["postId"].as_str().unwrap().to_owned());
    }
    assert_eq!(
        Some(&position),
        all.last(),
        "a message's id is its position"
    );
    assert!(all.is_sorted());
    let reader = grace.client.with_header("hansard-position", &position);
    let get = async |query: &str| {
        let answer = reader.conversation(&room, query).await.ok();
        assert_eq!(answer["users"].as_array().unwrap().len(), 2, "{query}");
        ids(&answer, "_id")
    };
    let paged = |page: usize, limit: usize| {
        let end = all.len().saturating_sub(page * limit);
        all[end.saturating_sub(limit)..end].to_vec()
    };

    for (query, expected) in [
        ("", paged(0, 10)),
        ("page=0", paged(0, 10)),
        ("page=1", paged(1, 10)),
        ("page=10", paged(10, 10)),
        ("page=11", vec![]),
        ("limit=3", paged(0, 3)),
        ("page=2&limit=7", paged(2, 7)),
        ("limit=100", paged(0, 100)),
        // What there is at most.
        ("limit=101", paged(0, 100)),
        ("limit=1000000", paged(0, 100)),
        ("limit=99999999999999999999999", paged(0, 100)),
        ("page=1&limit=5000", paged(1, 100)),
        ("page=99999999999999999999999", vec![]),
        ("page=4294967296&limit=100", vec![]),
        ("page=9223372036854775807&limit=100", vec![]),
        // As parseInt reads, with a default for 0 and what is no number.
        ("limit=0", paged(0, 10)),
        ("limit=-0", paged(0, 10)),
        ("limit=", paged(0, 10)),
        ("limit=all&page=first", paged(0, 10)),
        ("limit=5x&page=1st", paged(1, 5)),
        ("limit=%204&page=%2B1", paged(1, 4)),
        ("limit=1e3", paged(0, 1)),
        ("limit=NaN&page=Infinity", paged(0, 10)),
        // Others are none of its business.
        ("limit=2&sort=asc&page=1&", paged(1, 2)),
        // Cursors.
        (&format!("before={}", all[50]), all[40..50].to_vec()),
        (&format!("before={}&limit=3", all[50]), all[47..50].to_vec()),
        (&format!("before={}", all[0]), vec![]),
        (&format!("before={}&page=0", all[2]), all[0..2].to_vec()),
        (&format!("before={}", "f".repeat(16)), paged(0, 10)),
        (&format!("after={}", all[50]), all[51..61].to_vec()),
        (&format!("after={}&limit=3", all[50]), all[51..54].to_vec()),
        (&format!("after={}&limit=500", all[1]), all[2..102].to_vec()),
        (&format!("after={}", all[102]), vec![]),
        (&format!("after={}", "0".repeat(16)), all[0..10].to_vec()),
    ] {
        assert_eq!(get(query).await, expected, "{query}");
    }

    const NUMBER: &str = "please provide a whole number, 0 or more";
    const MESSAGE: &str = "please provide a message id";
    let first = &all[0];
    for (query, errors) in [
        ("page=-1", json!({"page": NUMBER})),
        ("limit=-1", json!({"limit": NUMBER})),
        ("limit=-10x", json!({"limit": NUMBER})),
        (
            "page=-1.5&limit=2.5",
            json!({"page": NUMBER, "limit": NUMBER}),
        ),
        ("limit=0.5", json!({"limit": NUMBER})),
        ("page=-99999999999999999999999", json!({"page": NUMBER})),
        ("before=", json!({"before": MESSAGE})),
        ("before=5", json!({"before": MESSAGE})),
        ("after=00000000000000AB", json!({"after": MESSAGE})),
        (&format!("after={first}0"), json!({"after": MESSAGE})),
        (
            &format!("after={first}&before={first}"),
            json!({"after": "use either before or after"}),
        ),
        (
            &format!("before={first}&page=1"),
            json!({"page": "use either page or a cursor"}),
        ),
    ] {
        let refused = reader.conversation(&room, query).await;
        assert_eq!(refused.wrong_fields(), errors, "{query}");
        let refused = reader.conversations(query).await;
        assert_eq!(refused.wrong_fields(), errors, "{query}");
    }

    // A deleted message keeps its place, without its text.
    let answer = stack.client().delete_message(&all[100]).await;
    let since = answer.header("hansard-position").to_owned();
    let _ = answer.ok();
    assert_eq!(get("limit=3").await, paged(0, 3));
    assert_eq!(
        get(&format!("before={}&limit=1", all[101])).await,
        [&all[100][..]]
    );
    assert_eq!(
        get(&format!("after={}&limit=1", all[99])).await,
        [&all[100][..]]
    );
    let reader = grace.client.with_header("hansard-position", &since);
    let answer = reader.conversation(&room, "limit=3").await.ok();
    let [deleted, other] = [0, 1].map(|index| &answer["conversation"][index]);
    assert_eq!(deleted["deleted"], true);
    assert_eq!(deleted["message"]["messageText"], "");
    assert_eq!(other.get("deleted"), None);
}

async fn a_message_keeps_all_that_it_has_said(stack: Stack) {
    let stack = stack.with_positions();
    let ada = stack.person("Ada").await;
    let grace = stack.person("Grace").await;
    let eve = stack.person("Eve").await;
    let room = room_of(&ada, &[&grace]).await;
    let other = room_of(&ada, &[&eve]).await;
    let post = ada.client.post(&room, "frist").await.ok();
    let message = post["post"]["postId"].as_str().unwrap();
    for text in ["fist", "first"] {
        let edited = ada.client.edit(&room, message, text).await.ok();
        assert_eq!(edited["edit"]["message"]["messageText"], text);
    }

    // Everywhere the newest text, and when it was edited.
    let read = grace.client.conversation(&room, "").await.ok();
    let recent = grace.client.conversations("").await.ok();
    for shown in [&read["conversation"][0], &recent["conversation"][0]] {
        assert_eq!(shown["message"]["messageText"], "first");
        assert!(shown["editedAt"].is_string(), "{shown}");
        for absent in ["deleted", "expired", "erased"] {
            assert_eq!(shown.get(absent), None);
        }
    }
    for (word, expected) in [("first", 1), ("frist", 0)] {
        let found = grace.client.search(&[("q", word)]).await.ok();
        assert_eq!(found["messages"].as_array().unwrap().len(), expected);
    }

    // And all of it, for members, by its own room's name.
    let mut version = json!({
        "message": {"messageText": "frist"},
        "postedByUserId": ada.id,
        "at": "<date>",
    });
    let mut history = json!({
        "_id": message,
        "chatRoomId": room,
        "postedByUser": null,
        "versions": [version.clone()],
    });
    for text in ["fist", "first"] {
        version["message"]["messageText"] = text.into();
        history["versions"]
            .as_array_mut()
            .unwrap()
            .push(version.clone());
    }
    let found = grace.client.history(&room, message).await.ok();
    let pattern = json!({"success": true, "history": history});
    Shapes::new().check(&without_author(&found), &without_author(&pattern));
    let unknown = "No message exists for this id";
    for (room, message) in [(&other, message), (&room, "x"), (&room, "00000000ffffffff")] {
        ada.client
            .history(room, message)
            .await
            .refused(404, unknown);
    }
    let nowhere = ada.client.history(&"f".repeat(32), message).await;
    nowhere.refused(404, "No room exists for this id");
    let outsider = eve.client.history(&room, message).await;
    outsider.refused(403, "only members of the room may do this");

    // Once it is deleted, that, and by whom, without any of its texts.
    let _ = stack.client().delete_message(message).await.ok();
    let found = grace.client.history(&room, message).await.ok();
    assert_eq!(found["history"]["deleted"], true);
    assert!(found["history"]["goneAt"].is_string());
    let versions = found["history"]["versions"].as_array().unwrap();
    assert_eq!(versions.len(), 3);
    assert!(
        versions
            .iter()
            .all(|version| version.get("message").is_none())
    );
}

/// Who wrote it is checked elsewhere.
fn without_author(answer: &Value) -> Value {
    let mut answer = answer.clone();
    answer["history"]
        .as_object_mut()
        .unwrap()
        .remove("postedByUser");
    answer
}

async fn the_list_of_conversations_has_the_newest_first(stack: Stack) {
    let stack = stack.with_positions();
    // Eight users make many rooms of Ada and some of the others.
    let ada = stack.person("Ada").await;
    let mut others = Vec::new();
    for number in 0..7 {
        others.push(stack.person(&format!("Other {number}")).await);
    }
    let quickly = ada.client.with_header("prefer", "respond-async");
    let rooms: Vec<(String, String)> = futures::stream::iter(1_usize..=103)
        .map(|set| {
            let members: Vec<String> = (0..7)
                .filter(|member| set & (1 << member) != 0)
                .map(|member: usize| others[member].id.clone())
                .collect();
            let quickly = quickly.clone();
            async move {
                let members: Vec<&str> = members.iter().map(String::as_str).collect();
                let room = quickly.initiate(&members, CONSUMERS).await.ok();
                let room = room["chatRoom"]["chatRoomId"].as_str().unwrap().to_owned();
                let message = quickly.post(&room, "the newest").await.ok();
                (message["post"]["postId"].as_str().unwrap().to_owned(), room)
            }
        })
        .buffer_unordered(8)
        .collect()
        .await;
    // And one of Ada alone in which nothing was said, and one that Ada is not part of.
    let _silent = room_of(&ada, &[&ada]).await;
    let foreign = room_of(&others[0], &[&others[1]]).await;
    let _ = message_of(&others[0], &foreign, "without Ada").await;

    // From the message to its room, the newest first.
    let mut all = rooms;
    all.sort_by(|left, right| right.cmp(left));
    let last = ada.client.with_header("hansard-position", &all[0].0);
    let get = async |query: &str| ids(&last.conversations(query).await.ok(), "messageId");
    let messages: Vec<&str> = all.iter().map(|(message, _)| message.as_str()).collect();
    let nothing: &[&str] = &[];
    for (query, expected) in [
        ("", &messages[..10]),
        ("page=1", &messages[10..20]),
        ("page=10", &messages[100..]),
        ("page=11", nothing),
        ("limit=4&page=2", &messages[8..12]),
        ("limit=0", &messages[..10]),
        ("limit=x&page=y", &messages[..10]),
        ("limit=100", &messages[..100]),
        ("limit=101", &messages[..100]),
        ("limit=99999999999999999999999&page=1", &messages[100..]),
        ("page=99999999999999999999999", nothing),
        (
            &format!("before={}&limit=3", messages[50]),
            &messages[51..54],
        ),
        (&format!("before={}", messages[102]), nothing),
        (
            &format!("after={}&limit=3", messages[50]),
            &messages[47..50],
        ),
        (&format!("after={}", messages[0]), nothing),
    ] {
        assert_eq!(get(query).await, expected, "{query}");
    }

    // A new message takes its room to the top; deleting it takes the room back to its place.
    let (old_message, old_room) = &all[60];
    let new = message_of(&others[0], &foreign, "still without Ada").await;
    let newest = message_of(&ada, old_room, "once more").await;
    assert!(newest > new);
    assert_eq!(get("limit=2").await, [&newest, messages[0]]);
    assert_eq!(
        get(&format!("before={}&limit=2", messages[59])).await,
        [messages[61], messages[62]]
    );
    let _ = stack.client().delete_message(&newest).await.ok();
    assert_eq!(get("limit=1").await, [messages[0]]);
    assert_eq!(
        get(&format!("before={}&limit=1", messages[59])).await,
        [old_message.as_str()]
    );
    // Without its last message it is as if nothing had been said.
    let _ = stack.client().delete_message(old_message).await.ok();
    assert_eq!(
        get(&format!("before={}&limit=1", messages[59])).await,
        [messages[61]]
    );
}

async fn receipts_say_who_read_what_and_when(stack: Stack) {
    let stack = stack.with_positions();
    let (ada, grace, sam) = (
        stack.person("Ada").await,
        stack.person("Grace").await,
        stack.person("Sam").await,
    );
    let room = room_of(&ada, &[&grace, &sam]).await;
    let unread = async |person: &Person| {
        let list = person.client.conversations("").await.ok();
        list["conversation"][0]["unreadCount"].as_u64().unwrap()
    };
    // Who read each message, and when, in the order of the messages.
    let receipts = async || {
        let page = ada.client.conversation(&room, "").await.ok();
        let messages = page["conversation"].as_array().unwrap().clone();
        let of_message = |message: &Value| {
            let receipts = message["readByRecipients"].as_array().unwrap();
            let receipts = receipts.iter().map(|receipt| {
                let text = |name: &str| receipt[name].as_str().unwrap().to_owned();
                (text("readByUserId"), text("readAt"))
            });
            receipts.collect::<BTreeMap<_, _>>()
        };
        messages.iter().map(of_message).collect::<Vec<_>>()
    };

    let first = message_of(&ada, &room, "one").await;
    let second = message_of(&ada, &room, "two").await;
    let third = message_of(&sam, &room, "three").await;
    assert_eq!(
        (unread(&ada).await, unread(&grace).await, unread(&sam).await),
        (1, 3, 2)
    );

    // Grace reads up to the second.
    the_clock_ticks().await;
    let before = now();
    let read = grace.client.mark_read_up_to(&room, &second).await.ok();
    let after = now();
    assert_eq!(read["data"]["n"], 2);
    assert_eq!(unread(&grace).await, 1);
    let seen = receipts().await;
    let read_at = seen[0][&grace.id].clone();
    assert!(
        before <= read_at && read_at <= after,
        "{before} {read_at} {after}"
    );
    assert_eq!(seen[1][&grace.id], read_at);
    assert_eq!(seen[2].get(&grace.id), None);
    assert!(
        seen[0][&ada.id] < read_at,
        "authors read what they post when they post it"
    );

    // Reading all later adds what is new, and changes nothing of what was.
    the_clock_ticks().await;
    let before = now();
    assert_eq!(grace.client.mark_read(&room).await.ok()["data"]["n"], 1);
    let seen = receipts().await;
    assert_eq!(seen[0][&grace.id], read_at);
    assert_eq!(seen[1][&grace.id], read_at);
    let read_third_at = seen[2][&grace.id].clone();
    assert!(read_third_at >= before);
    assert_eq!(unread(&grace).await, 0);

    // Reading less than what is read, or what is read, does nothing.
    the_clock_ticks().await;
    assert_eq!(
        grace.client.mark_read_up_to(&room, &first).await.ok()["data"]["n"],
        0
    );
    assert_eq!(
        grace.client.mark_read_up_to(&room, &third).await.ok()["data"]["n"],
        0
    );
    assert_eq!(grace.client.mark_read(&room).await.ok()["data"]["n"], 0);
    assert_eq!(receipts().await, seen);

    // Others' reading is their own; one's own message is never unread.
    assert_eq!((unread(&ada).await, unread(&sam).await), (1, 2));
    let fourth = message_of(&grace, &room, "four").await;
    assert_eq!(unread(&grace).await, 0);
    assert_eq!(unread(&ada).await, 2);
    assert_eq!(ada.client.mark_read(&room).await.ok()["data"]["n"], 2);
    let read_all = receipts().await;
    assert_eq!(read_all[2][&grace.id], read_third_at);
    assert_eq!(read_all[3].len(), 2);

    // A deleted message is not unread any more.
    assert_eq!(unread(&sam).await, 3);
    let _ = stack.client().delete_message(&fourth).await.ok();
    assert_eq!(unread(&sam).await, 2);
    assert_eq!(sam.client.mark_read(&room).await.ok()["data"]["n"], 2);
}

async fn who_leaves_is_missed_but_what_was_said_stays(stack: Stack) {
    let stack = stack.with_positions();
    let anyone = stack.client();
    let mut seen = Shapes::new();
    let people = [
        ("ada", stack.person("Ada").await),
        ("grace", stack.person("Grace").await),
        ("sam", stack.person_of_type("Sam", "support").await),
    ];
    for ((name, person), pattern) in people.iter().zip([ada(), grace(), sam()]) {
        let answer = anyone.user(&person.id).await.ok();
        seen.check(&answer, &json!({"success": true, "user": pattern}));
        assert_eq!(&seen[name], person.id);
    }
    let [(_, ada_), (_, grace_), (_, sam_)] = &people;
    let room = room_of(ada_, &[grace_, sam_]).await;
    let members = by_id(&seen, &[("ada", ada()), ("grace", grace()), ("sam", sam())]);
    for (name, person, text) in [
        ("m1", sam_, "one"),
        ("m2", grace_, "two"),
        ("m3", sam_, "three"),
    ] {
        let author = match name {
            "m2" => ("grace", grace()),
            _ => ("sam", sam()),
        };
        let posted = person.client.post(&room, text).await.ok();
        let pattern = post(name, text, author, &members);
        seen.check(&posted, &json!({"success": true, "post": pattern}));
    }
    assert_eq!(sam_.client.mark_read(&room).await.ok()["data"]["n"], 1);

    // Sam leaves.
    the_clock_ticks().await;
    let _ = anyone.delete_user(&sam_.id).await.ok();
    let members = by_id(&seen, &[("ada", ada()), ("grace", grace())]);
    let author = deleted("sam", "support");
    let receipts = [receipt("grace", "m2-posted"), receipt("sam", "sam-read")];
    seen.check(
        &ada_.client.conversation(&room, "").await.ok(),
        &page(
            &[
                message(
                    "m1",
                    "one",
                    author.clone(),
                    &[receipt("sam", "m1-posted")],
                    "m1-posted",
                ),
                message("m2", "two", grace(), &receipts, "sam-read"),
                message(
                    "m3",
                    "three",
                    author.clone(),
                    &[receipt("sam", "m3-posted")],
                    "m3-posted",
                ),
            ],
            &members,
        ),
    );
    assert!(seen["sam-deleted"] > seen["sam-created"]);
    let readers = [("sam", None, "m3-posted")];
    let newest = conversation("m3", "three", author, &readers, &members, 3);
    seen.check(&ada_.client.conversations("").await.ok(), &list(&[newest]));
    let posted = ada_.client.post(&room, "four").await.ok();
    let pattern = post("m4", "four", ("ada", ada()), &members);
    seen.check(&posted, &json!({"success": true, "post": pattern}));

    // Sam's token is worth nothing any more, on any route that needs one.
    const GONE: &str = "the token's user does not exist";
    sam_.client.conversation(&room, "").await.refused(401, GONE);
    sam_.client.conversations("").await.refused(401, GONE);
    sam_.client
        .post(&room, "still here")
        .await
        .refused(401, GONE);
    sam_.client.mark_read(&room).await.refused(401, GONE);
    sam_.client
        .initiate(&[&ada_.id], CONSUMERS)
        .await
        .refused(401, GONE);

    // Sam's room is found by its members still; a user named Sam again is somebody else.
    let again = stack.person_of_type("Sam", "support").await;
    assert_ne!(again.id, sam_.id);
    again
        .client
        .conversation(&room, "")
        .await
        .refused(403, NOT_A_MEMBER);
}

async fn one_room_for_the_same_members_however_many_ask(stack: Stack) {
    let stack = stack.with_positions();
    let (ada, grace) = (stack.person("Ada").await, stack.person("Grace").await);
    let initiate_twenty = async || {
        let calls = (0..20).map(|number| {
            let (caller, other) = match number % 2 {
                0 => (&ada, &grace),
                _ => (&grace, &ada),
            };
            let (client, other) = (caller.client.clone(), other.id.clone());
            async move { client.initiate(&[&other], CONSUMERS).await.ok() }
        });
        let answers = futures::future::join_all(calls).await;
        let mut seen = Shapes::new();
        let mut new = 0;
        for answer in answers {
            let is_new = answer["chatRoom"]["isNew"].as_bool().unwrap();
            seen.check(&answer, &initiated(is_new, "room", CONSUMERS));
            new += usize::from(is_new);
        }
        assert_eq!(new, 1, "exactly one call makes the room");
        seen["room"].to_owned()
    };
    let first = initiate_twenty().await;
    let message = message_of(&ada, &first, "soon gone").await;

    // After its deletion the same members start again, with another room, which is empty.
    let deleted = ada.client.delete_room(&first).await.ok();
    assert_eq!(deleted["deletedMessagesCount"], 1);
    let second = initiate_twenty().await;
    assert_ne!(second, first);
    let page = grace.client.conversation(&second, "").await.ok();
    assert_eq!(ids(&page, "_id"), [""; 0]);
    assert_eq!(grace.client.conversations("").await.ok(), list(&[]));
    grace
        .client
        .conversation(&first, "")
        .await
        .refused(404, NO_ROOM);
    grace
        .client
        .post(&first, "too late")
        .await
        .refused(404, NO_ROOM);
    grace.client.mark_read(&first).await.refused(404, NO_ROOM);
    assert_eq!(
        ada.client.delete_message(&message).await.ok()["deletedMessagesCount"],
        0
    );
    assert_eq!(
        ada.client.delete_room(&first).await.ok()["deletedRoomsCount"],
        0
    );

    // What is said in the new one stays there, also when the old id is used again.
    let message = message_of(&grace, &second, "a fresh start").await;
    assert_eq!(
        ids(&ada.client.conversation(&second, "").await.ok(), "_id"),
        [message]
    );
    let _ = ada.client.delete_room(&second).await.ok();
    let third = initiate_twenty().await;
    assert!(third != first && third != second);

    // Twenty deletions at once delete once.
    let calls = (0..20).map(|_| {
        let client = ada.client.clone();
        let third = third.clone();
        async move { client.delete_room(&third).await.ok() }
    });
    let answers = futures::future::join_all(calls).await;
    let counts = answers
        .iter()
        .map(|answer| answer["deletedRoomsCount"].as_u64().unwrap());
    assert_eq!(counts.sum::<u64>(), 1);
}

on_every_stack!(
    Auth::Open;
    the_tutorials_walk_through,
    fields_come_as_json_or_forms_and_wrong_ones_are_named,
    what_the_tutorial_let_pass_is_refused,
    a_rooms_pages_run_from_the_newest_and_read_from_the_oldest,
    a_message_keeps_all_that_it_has_said,
    the_list_of_conversations_has_the_newest_first,
    receipts_say_who_read_what_and_when,
    who_leaves_is_missed_but_what_was_said_stays,
    one_room_for_the_same_members_however_many_ask,
);
