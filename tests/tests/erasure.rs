//! Editing, erasing and holding: what can be read afterwards, by whom, and what is left in any file.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use event_log::{Filter, Position};
use events::{Envelope, Event, KeyId, UserErased, UserType};
use futures::TryStreamExt;
use hansard_tests::{Person, Stack, eventually, no_file_has, on_every_stack, room_of};
use serde_json::{Value, json};

const NO_MESSAGE: &str = "No message exists for this id";
const SECRET: &str = "Xylophonkonzertabend";

async fn said(person: &Person, room: &str, text: &str) -> String {
    let answer = person.client.post(room, text).await.ok();
    answer["post"]["postId"].as_str().unwrap().to_owned()
}

async fn texts(person: &Person, room: &str) -> Vec<String> {
    let answer = person.client.conversation(room, "").await.ok();
    let messages = answer["conversation"].as_array().unwrap();
    let text = |message: &Value| {
        message["message"]["messageText"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    messages.iter().map(text).collect()
}

async fn an_edit_is_seen_with_what_was_said_before(stack: Stack) {
    let stack = stack.with_positions();
    let (ada, grace) = (stack.person("Ada").await, stack.person("Grace").await);
    let room = room_of(&ada, &[&grace]).await;
    let message = said(&ada, &room, "Helo wrold").await;

    let edited = ada.client.edit(&room, &message, "Hello world").await.ok();
    let edit = &edited["edit"];
    assert_eq!(edit["_id"], json!(message));
    assert_eq!(edit["chatRoomId"], json!(room));
    assert_eq!(edit["message"]["messageText"], "Hello world");
    assert_eq!(edit["postedByUserId"], json!(ada.id));

    let page = grace.client.conversation(&room, "").await.ok();
    let shown = &page["conversation"][0];
    assert_eq!(shown["message"]["messageText"], "Hello world");
    assert_eq!(shown["editedAt"], edit["editedAt"]);
    let list = grace.client.conversations("").await.ok();
    let newest = &list["conversation"][0]["message"]["messageText"];
    assert_eq!(newest, "Hello world");
    let found = grace.client.search(&[("q", "wrold")]).await.ok();
    assert_eq!(found["messages"], json!([]));
    let found = grace.client.search(&[("q", "world")]).await.ok();
    assert_eq!(found["messages"][0]["_id"], json!(message));

    let history = grace.client.history(&room, &message).await.ok();
    let versions = history["history"]["versions"].as_array().unwrap().clone();
    let said = |version: &Value| version["message"]["messageText"].clone();
    assert_eq!(
        versions.iter().map(said).collect::<Vec<_>>(),
        ["Helo wrold", "Hello world"]
    );
    assert!(
        versions
            .iter()
            .all(|version| version["postedByUserId"] == json!(ada.id))
    );
    assert_eq!(versions[1]["at"], edit["editedAt"]);

    // Only the author may, and what is gone stays gone.
    grace
        .client
        .edit(&room, &message, "forged")
        .await
        .refused(403, "only the author of a message may edit it");
    let _ = ada.client.delete_message(&message).await.ok();
    ada.client
        .edit(&room, &message, "back again")
        .await
        .refused(404, NO_MESSAGE);
    let page = grace.client.conversation(&room, "").await.ok();
    assert_eq!(page["conversation"][0]["deleted"], true);
    assert_eq!(page["conversation"][0]["message"]["messageText"], "");
    let history = grace.client.history(&room, &message).await.ok();
    assert_eq!(history["history"]["deleted"], true);
    assert!(!history.to_string().contains("world"), "{history}");
}

async fn an_erased_user_is_gone_for_ever_and_the_record_stays(stack: Stack) {
    let stack = stack.with_positions();
    let (ada, grace) = (stack.person(SECRET).await, stack.person("Grace").await);
    let room = room_of(&ada, &[&grace]).await;
    let first = said(&ada, &room, &format!("{SECRET} one")).await;
    let _ = ada
        .client
        .edit(&room, &first, &format!("{SECRET} two"))
        .await
        .ok();
    let _ = said(&grace, &room, "mine stays").await;
    let before = raw(&stack).await;

    for message in [
        "The user has been erased.",
        "The user had been erased before.",
    ] {
        let erased = stack.client().erase_user(&ada.id).await.ok();
        assert_eq!(erased["message"], message);
    }
    assert_eq!(texts(&grace, &room).await, ["", "mine stays"]);
    let page = grace.client.conversation(&room, "").await.ok();
    assert_eq!(page["conversation"][0]["erased"], true);
    assert_eq!(page["conversation"][0]["postedByUser"]["firstName"], "");
    let found = grace.client.search(&[("q", SECRET)]).await.ok();
    assert_eq!(found["messages"], json!([]));
    let history = grace.client.history(&room, &first).await.ok();
    assert_eq!(history["history"]["erased"], true);
    let _ = ada.client.post(&room, "I am back").await.expect(401);

    // The events stand as they were, and nobody can open them.
    let after = raw(&stack).await;
    assert_eq!(after[..before.len()], before);
    let support = stack.person_of_type("Sam", "support").await;
    let replayed = support.client.audit_events("").await;
    assert!(!replayed.text.contains(SECRET), "{}", replayed.text);
    assert!(
        replayed.text.contains("\"messageText\":null"),
        "{}",
        replayed.text
    );
    assert!(replayed.text.contains("mine stays"));
    let verified = stack.hansard(&["verify", "read-models"]);
    assert!(verified.status.success(), "{verified:?}");

    // Nor does making everything anew bring anything back.
    let rebuilt = stack.hansard(&["rebuild"]);
    assert!(rebuilt.status.success(), "{rebuilt:?}");
    assert_eq!(texts(&grace, &room).await, ["", "mine stays"]);

    no_file_has(&stack, SECRET).await;
}

async fn an_erasure_that_was_cut_short_is_completed_by_the_projection(stack: Stack) {
    let stack = stack.with_positions();
    let (ada, grace) = (stack.person("Ada").await, stack.person("Grace").await);
    let room = room_of(&ada, &[&grace]).await;
    let _ = said(&ada, &room, SECRET).await;

    // Whoever appended the event was killed before it could destroy the key.
    let record = stack.open_record().await;
    let user_id = ada.id.parse().unwrap();
    let event = Event::UserErased(UserErased {
        user_id,
        user_type: UserType::Consumer,
        created_at: events::Timestamp::now(),
    });
    let envelope = Envelope::new(event, None, None);
    let _ = record.append(&envelope, events::Expect::Any).await.unwrap();
    eventually("the text is gone", Duration::from_secs(30), || async {
        (texts(&grace, &room).await == [""]).then_some(())
    })
    .await;
    let fresh = stack.open_record().await;
    let post = record_of_post(&fresh).await;
    let sealed = fresh.log.get(post).await.unwrap().unwrap();
    let opened = fresh.decode(&sealed).await.unwrap().unwrap();
    let Event::MessagePosted(event) = &opened.event else {
        panic!("{opened:?}");
    };
    assert_eq!(event.message_text, None);
    assert_eq!(opened.key_ids()[0], KeyId::Person(user_id));
}

async fn what_is_under_legal_hold_is_kept(stack: Stack) {
    let stack = stack.with_positions();
    let (ada, grace) = (stack.person("Ada").await, stack.person("Grace").await);
    let room = room_of(&ada, &[&grace]).await;
    let _ = said(&ada, &room, "evidence").await;
    let anyone = stack.client();
    let held = anyone.hold(&room, "case 17/2026").await.ok();
    assert_eq!(
        held,
        json!({"success": true, "held": true, "changed": true})
    );
    let held = anyone.hold(&room, "case 17/2026").await.ok();
    assert_eq!(held["changed"], false);

    let refusal = format!("under legal hold: {room}; it can be done once they are released");
    anyone.erase_user(&ada.id).await.refused(409, &refusal);
    anyone.delete_room(&room).await.refused(409, &refusal);
    // Also from the command line, and of somebody who has left.
    let _ = ada.client.delete_user(&ada.id).await.ok();
    let erased = stack.hansard(&["erase", "user", &ada.id]);
    assert_eq!(erased.status.code(), Some(1));
    let told = String::from_utf8(erased.stderr).unwrap();
    assert!(
        told.contains(&format!("under legal hold: {room}")),
        "{told}"
    );
    assert_eq!(texts(&grace, &room).await, ["evidence"]);

    let released = stack.hansard(&["release", "room", &room]);
    assert!(released.status.success(), "{released:?}");
    let erased = stack.hansard(&["erase", "user", &ada.id]);
    assert!(erased.status.success(), "{erased:?}");
    eventually("the text is gone", Duration::from_secs(30), || async {
        (texts(&grace, &room).await == [""]).then_some(())
    })
    .await;
}

async fn the_master_key_is_changed_beside_everything(stack: Stack) {
    let stack = stack.with_positions();
    let (ada, grace) = (stack.person("Ada").await, stack.person("Grace").await);
    let room = room_of(&ada, &[&grace]).await;
    let _ = said(&ada, &room, "before").await;
    let rotated = stack.hansard(&["keys", "rotate", "--new"]);
    assert!(rotated.status.success(), "{rotated:?}");
    let told = String::from_utf8(rotated.stdout).unwrap();
    // Of two persons, and of the room in this month.
    assert!(told.contains("keys wrapped anew: 3\n"), "{told}");
    let _ = said(&ada, &room, "after").await;
    let eve = stack.person("Eve").await;
    let other = room_of(&eve, &[&grace]).await;
    let _ = said(&eve, &other, "a new key").await;
    let status = stack.hansard(&["keys", "status"]);
    let told = String::from_utf8(status.stdout).unwrap();
    // Two more: Eve's, and that of the other room.
    assert!(told.contains(": 5 (the first of the file)\n"), "{told}");
    assert!(told.contains(": 0 (not needed)\n"), "{told}");
    // Whoever starts now opens everything, old and new.
    let rebuilt = stack.hansard(&["rebuild"]);
    assert!(rebuilt.status.success(), "{rebuilt:?}");
    assert_eq!(texts(&grace, &room).await, ["before", "after"]);
    assert_eq!(texts(&grace, &other).await, ["a new key"]);
}

/// The bytes of all events.
async fn raw(stack: &Stack) -> Vec<Vec<u8>> {
    let log = stack.open_log().await;
    let events = log.read(Filter::All, Position::ZERO).await.unwrap();
    let payloads = events.map_ok(|recorded| recorded.payload.to_vec());
    payloads.try_collect().await.unwrap()
}

/// Where the first message stands.
async fn record_of_post(record: &keys::Record) -> Position {
    let mut events = record.log.read(Filter::All, Position::ZERO).await.unwrap();
    while let Some(recorded) = events.try_next().await.unwrap() {
        let text = String::from_utf8_lossy(&recorded.payload);
        if text.contains("message.posted") {
            return recorded.position;
        }
    }
    panic!("nothing was posted");
}

on_every_stack!(
    Auth::Open;
    an_edit_is_seen_with_what_was_said_before,
    an_erased_user_is_gone_for_ever_and_the_record_stays,
    an_erasure_that_was_cut_short_is_completed_by_the_projection,
    what_is_under_legal_hold_is_kept,
    the_master_key_is_changed_beside_everything,
);
