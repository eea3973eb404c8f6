//! Who may do what where tokens are needed: every cell of the table in docs/decisions/0007, allowed and
//! refused; and what keeps anybody else from getting a token.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::process::Command;

use hansard_tests::{
    Answer, Auth, Backend, Layout, Person, Service, Stack, TestClient, WsClient, hansard_command,
    on_every_stack, run,
};
use jsonwebtoken::{EncodingKey, Header};
use reqwest::Method;
use serde_json::{Value, json};

const CONSUMERS: &str = "consumer-to-consumer";
const NOT_A_MEMBER: &str = "only members of the room may do this";
const NO_TOKEN: &str = "No access token provided";
const UNKNOWN_CALLER: &str = "the token's user does not exist";
const CREATE_USERS: &str = "only support may create users";
const DELETE_USERS: &str = "only users themselves and support may delete a user";
const DELETE_ROOMS: &str = "only members of a room and support may delete it";
const DELETE_MESSAGES: &str = "only the author of a message and support may delete it";
const READ_THE_RECORD: &str = "only auditors and admins may read the record";

/// Everybody whom the table tells apart.
struct House {
    /// A member of the room, and the author of its messages.
    author: Person,
    /// Another member.
    member: Person,
    /// A member of type support.
    supporting_member: Person,
    /// Not a member.
    outsider: Person,
    /// Not a member, of type support.
    support: Person,
    /// Not a member, of type support and with the role auditor: the role counts.
    auditor: Person,
    /// Tokens that belong to no user: of type support, and with the roles auditor and admin.
    back_office: TestClient,
    audits: TestClient,
    admin: TestClient,
}

impl House {
    async fn new(stack: &Stack) -> Self {
        Self {
            author: stack.person("Author").await,
            member: stack.person("Member").await,
            supporting_member: stack.person_of_type("Supporting member", "support").await,
            outsider: stack.person("Outsider").await,
            support: stack.person_of_type("Support", "support").await,
            auditor: stack.auditor("Auditor").await,
            back_office: stack.operator(),
            audits: stack.back_office("auditor"),
            admin: stack.back_office("admin"),
        }
    }

    /// A room of the three members. Its type makes it a new one each time, once the last is deleted.
    async fn room(&self) -> String {
        let others = [&self.member.id[..], &self.supporting_member.id];
        let answer = self.author.client.initiate(&others, CONSUMERS).await.ok();
        answer["chatRoom"]["chatRoomId"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    async fn message(&self, room: &str) -> String {
        let answer = self.author.client.post(room, "between us").await.ok();
        answer["post"]["postId"].as_str().unwrap().to_owned()
    }
}

/// The answer to somebody without a token.
fn no_token(answer: Answer) {
    assert_eq!(answer.header("www-authenticate"), "Bearer");
    answer.refused(401, NO_TOKEN);
}

/// The answer to a token that belongs to nobody where somebody is needed.
fn unknown_caller(answer: Answer) {
    assert_eq!(
        answer.header("www-authenticate"),
        "Bearer error=\"invalid_token\""
    );
    answer.refused(401, UNKNOWN_CALLER);
}

async fn members_take_part_and_support_removes(stack: Stack) {
    let stack = stack.with_positions();
    let anyone = stack.client();
    let house = House::new(&stack).await;
    let room = house.room().await;
    let message = house.message(&room).await;
    let read = |person: &Person| {
        let (client, room, message) = (person.client.clone(), room.clone(), message.clone());
        async move {
            [
                client.conversation(&room, "").await,
                client.post(&room, "may I?").await,
                client.mark_read(&room).await,
                client.mark_read_up_to(&room, &message).await,
            ]
        }
    };

    // Reading, posting, marking as read, subscribing: members, whatever their type, and nobody else.
    for person in [&house.author, &house.member, &house.supporting_member] {
        for answer in read(person).await {
            let _ = answer.ok();
        }
        let mut socket = stack.socket(person).await;
        socket.subscribe(&room, None).await;
    }
    for person in [&house.outsider, &house.support, &house.auditor] {
        for answer in read(person).await {
            answer.refused(403, NOT_A_MEMBER);
        }
        let mut socket = stack.socket(person).await;
        socket
            .send(json!({"type": "subscribe", "room": room}))
            .await;
        let answer = socket.next().await;
        assert_eq!(answer["type"], "error", "{answer}");
        assert_eq!(answer["code"], "not_a_member", "{answer}");
        assert_eq!(
            person.client.conversations("").await.ok()["conversation"],
            json!([])
        );
    }
    for nobody in [&house.back_office, &house.audits, &house.admin] {
        unknown_caller(nobody.conversation(&room, "").await);
        unknown_caller(nobody.conversations("").await);
        unknown_caller(nobody.post(&room, "may I?").await);
        unknown_caller(nobody.mark_read(&room).await);
        unknown_caller(nobody.initiate(&[&house.author.id], CONSUMERS).await);
    }
    let page = house.author.client.conversation(&room, "").await.ok();
    assert_eq!(page["conversation"].as_array().unwrap().len(), 4);

    // Deleting a message: its author, support and admins.
    for client in [
        &house.author.client,
        &house.support.client,
        &house.back_office,
        &house.admin,
    ] {
        let message = house.message(&room).await;
        for person in [&house.member, &house.outsider, &house.auditor] {
            person
                .client
                .delete_message(&message)
                .await
                .refused(403, DELETE_MESSAGES);
        }
        no_token(anyone.delete_message(&message).await);
        assert_eq!(
            client.delete_message(&message).await.ok()["deletedMessagesCount"],
            1
        );
    }
    let message = house.message(&room).await;
    let deleted = house
        .supporting_member
        .client
        .delete_message(&message)
        .await
        .ok();
    assert_eq!(deleted["deletedMessagesCount"], 1);

    // Deleting a room: its members, support and admins.
    for client in [
        &house.author.client,
        &house.member.client,
        &house.supporting_member.client,
        &house.support.client,
        &house.back_office,
        &house.admin,
    ] {
        let room = house.room().await;
        let _ = house.message(&room).await;
        for client in [&house.outsider.client, &house.auditor.client, &house.audits] {
            client.delete_room(&room).await.refused(403, DELETE_ROOMS);
        }
        no_token(anyone.delete_room(&room).await);
        assert_eq!(client.delete_room(&room).await.ok()["deletedRoomsCount"], 1);
    }
}

async fn users_are_made_by_support_and_deleted_by_themselves_too(stack: Stack) {
    let stack = stack.with_positions();
    let anyone = stack.client();
    let house = House::new(&stack).await;
    let count = async || {
        let users = house.back_office.users().await.ok();
        users["users"].as_array().unwrap().len()
    };
    assert_eq!(count().await, 6);

    // Creating: support and admins.
    for client in [
        &house.author.client,
        &house.outsider.client,
        &house.auditor.client,
        &house.audits,
    ] {
        let refused = client.create_user("Eve", "Eve", "consumer").await;
        refused.refused(403, CREATE_USERS);
    }
    no_token(anyone.create_user("Eve", "Eve", "support").await);
    let mut made = Vec::new();
    for client in [
        &house.support.client,
        &house.supporting_member.client,
        &house.back_office,
        &house.admin,
    ] {
        let created = client.create_user("New", "User", "consumer").await.ok();
        made.push(created["user"]["_id"].as_str().unwrap().to_owned());
    }
    assert_eq!(count().await, 10);

    // Listing and getting: everybody with a token.
    for client in [
        &house.author.client,
        &house.outsider.client,
        &house.support.client,
        &house.auditor.client,
        &house.back_office,
        &house.audits,
        &house.admin,
    ] {
        assert_eq!(
            client.users().await.ok()["users"].as_array().unwrap().len(),
            10
        );
        let _ = client.user(&house.member.id).await.ok();
    }
    no_token(anyone.users().await);
    no_token(anyone.user(&house.member.id).await);

    // Deleting: the user, support and admins.
    for person in [&house.author, &house.outsider, &house.auditor] {
        person
            .client
            .delete_user(&house.member.id)
            .await
            .refused(403, DELETE_USERS);
        let unknown = "0".repeat(32);
        person
            .client
            .delete_user(&unknown)
            .await
            .refused(403, DELETE_USERS);
    }
    no_token(anyone.delete_user(&house.member.id).await);
    assert_eq!(count().await, 10);
    for (client, user) in [
        (&house.support.client, &made[0]),
        (&house.back_office, &made[1]),
        (&house.admin, &made[2]),
        (&house.member.client, &house.member.id),
        (&house.supporting_member.client, &house.supporting_member.id),
    ] {
        let deleted = client.delete_user(user).await.ok();
        assert_eq!(deleted["message"], "Deleted a count of 1 user.");
    }
    assert_eq!(count().await, 5);
    // Whoever is deleted is refused everywhere, support or not.
    for person in [&house.member, &house.supporting_member] {
        unknown_caller(person.client.users().await);
        unknown_caller(person.client.create_user("Eve", "Eve", "consumer").await);
        unknown_caller(person.client.delete_user(&house.author.id).await);
        unknown_caller(person.client.conversations("").await);
    }
    // Whatever the token says they may do.
    let gone = &house.supporting_member.id;
    let audits = anyone.with_token(&stack.token_with_role(gone, "support", "admin"));
    unknown_caller(audits.audit_events("").await);

    // Reading the record: auditors and admins.
    for client in [&house.auditor.client, &house.audits, &house.admin] {
        assert_eq!(client.audit_events("").await.status, 200);
    }
    for client in [
        &house.author.client,
        &house.outsider.client,
        &house.support.client,
        &house.back_office,
    ] {
        let refused = client.audit_events("").await;
        refused.refused(403, READ_THE_RECORD);
    }
    no_token(anyone.audit_events("").await);

    // The token's word is taken for what its user is.
    let promoted = anyone.with_token(&stack.token(&house.outsider.id, "support"));
    let created = promoted.create_user("By", "Token", "consumer").await.ok();
    assert_eq!(created["user"]["firstName"], "By");
    let demoted = anyone.with_token(&stack.token(&house.support.id, "consumer"));
    demoted
        .create_user("Eve", "Eve", "consumer")
        .await
        .refused(403, CREATE_USERS);
    let role = |person: &Person, user_type: &str, role: &str| {
        anyone.with_token(&stack.token_with_role(&person.id, user_type, role))
    };
    let demoted = role(&house.support, "support", "member");
    let refused = demoted.create_user("Eve", "Eve", "consumer").await;
    refused.refused(403, CREATE_USERS);
    let promoted = role(&house.outsider, "consumer", "support");
    let _ = promoted.create_user("By", "Role", "consumer").await.ok();
    let promoted = role(&house.outsider, "consumer", "auditor");
    assert_eq!(promoted.audit_events("").await.status, 200);
    // But a member that does not exist is nobody.
    let zero = "0".repeat(32);
    for token in [
        stack.token(&zero, "consumer"),
        stack.token_with_role(&zero, "support", "member"),
    ] {
        let nobody = anyone.with_token(&token);
        unknown_caller(nobody.users().await);
        unknown_caller(nobody.delete_user(&house.author.id).await);
    }

    // Everything needs a token, and nothing gives one.
    let room = house
        .author
        .client
        .initiate(&[&house.outsider.id], CONSUMERS)
        .await
        .ok();
    let room = room["chatRoom"]["chatRoomId"].as_str().unwrap().to_owned();
    for (method, path) in [
        (Method::POST, "/room/initiate".to_owned()),
        (Method::GET, "/room".to_owned()),
        (Method::GET, format!("/room/{room}")),
        (Method::POST, format!("/room/{room}/message")),
        (Method::PUT, format!("/room/{room}/mark-read")),
    ] {
        no_token(anyone.send(method, &path, Some(json!({}))).await);
    }
    for client in [
        &anyone,
        &house.author.client,
        &house.support.client,
        &house.back_office,
    ] {
        let path = format!("/login/{}", house.author.id);
        for method in [Method::POST, Method::GET] {
            let answer = client.send(method, &path, None).await;
            answer.refused(404, "API endpoint doesnt exist");
        }
    }
    for path in [
        "/health/live",
        "/health/ready",
        "/openapi.json",
        "/asyncapi.json",
    ] {
        assert_eq!(
            anyone.get(path).await.status,
            200,
            "{path} is for operators"
        );
    }
}

on_every_stack!(
    Auth::Token;
    members_take_part_and_support_removes,
    users_are_made_by_support_and_deleted_by_themselves_too,
);

/// A token of an hour for `user`, of type support, signed with `secret`.
fn signed(secret: &str, stack: &Stack, user: &str) -> String {
    let claims = stack.token(user, "support");
    let claims = jsonwebtoken::dangerous::insecure_decode::<Value>(&claims)
        .unwrap()
        .claims;
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap()
}

#[test]
fn secrets_are_replaced_without_a_moment_in_which_good_tokens_are_refused() {
    run(
        Backend::Embedded,
        Layout::OneProcess,
        Auth::Token,
        async |mut stack: Stack| {
            let sam = stack.person_of_type("Sam", "support").await;
            let old = std::fs::read_to_string(stack.secret_file()).unwrap();
            let new = "the secret that the suites will sign with next";
            let (by_old, by_new) = (sam.token.clone(), signed(new, &stack, &sam.id));
            let with = |token: &str| stack.client().with_token(token);
            let (by_old, by_new) = (with(&by_old), with(&by_new));
            let _ = by_old.users().await.ok();
            by_new.users().await.refused(401, "invalid signature");

            // Both are taken while both are in the file; the first one signs.
            std::fs::write(stack.secret_file(), format!("{new}\n{old}\n")).unwrap();
            stack.restart(Service::CommandApi).await;
            let _ = by_old.users().await.ok();
            let _ = by_new.users().await.ok();
            let printed = stack.hansard(&[
                "token", "--user", &sam.id, "--type", "support", "--role", "auditor", "--ttl", "60",
            ]);
            let printed = String::from_utf8(printed.stdout).unwrap();
            let by_hand = stack.client().with_token(printed.trim());
            let _ = by_hand.users().await.ok();
            assert_eq!(by_hand.audit_events("").await.status, 200);

            std::fs::write(stack.secret_file(), format!("{new}\n")).unwrap();
            stack.restart(Service::CommandApi).await;
            by_old.users().await.refused(401, "invalid signature");
            let _ = by_new.users().await.ok();
            let _ = by_hand.users().await.ok();
            let mut socket = WsClient::connect(&stack.ws_url(), Some(printed.trim())).await;
            assert_eq!(socket.frames_until_pong().await.len(), 0);
        },
    );
}

#[test]
fn anybody_may_log_in_as_anybody_on_this_machine_only() {
    let directory = tempfile::tempdir().unwrap();
    let hansard = hansard_command();
    let programs = Path::new(hansard.get_program()).parent().unwrap();
    for (program, address) in [
        ("hansard", "0.0.0.0:0"),
        ("hansard", "[::]:0"),
        ("command-api", "0.0.0.0:0"),
        ("query-api", "0.0.0.0:0"),
        ("gateway-ws", "0.0.0.0:0"),
    ] {
        let refused = Command::new(programs.join(program))
            .env_clear()
            .args(["--auth", "open", "--listen", address, "--data-dir"])
            .arg(directory.path().join("data"))
            .output()
            .unwrap();
        assert_eq!(refused.status.code(), Some(2), "{program}: {refused:?}");
        let text = String::from_utf8(refused.stderr).unwrap();
        let expected = format!("auth=open lets anybody act as anybody and is refused on {address}");
        assert!(text.contains(&expected), "{program} says: {text}");
        assert_eq!(text.trim_end().lines().count(), 1, "{program} says: {text}");
    }
    assert!(
        !directory.path().join("data").exists(),
        "nothing is left behind"
    );
}
