//! Whatever is stored otherwise than the log says is told, in a line that names it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use events::{Event, Position};
use mongodb::bson::{Document, doc};
use proptest::test_runner::{Config, TestRunner};
use read_models::{Batch, Checksums, DeadLetter, Entry, Fence, Left, Page, PageStart, Projection};
use support::history::{self, History, room, user};
use support::record::{Record, compared, compared_without, incarnation, verified};
use support::{Store, batch, removal};
use tokio::runtime::Runtime;
use verify::{Kind, Options, VerifyError};

/// Users at 1 to 4, rooms at 5 to 8, and something of everything in the first two of them.
fn told() -> History {
    let mut history = History::default();
    for number in 0..4 {
        history.create(number);
    }
    for set in 0..4 {
        history.initiate(set, 0);
    }
    let [one, two] = [room(0, 0), room(1, 0)];
    let first = history.post(one, 0, "first"); // 9
    history.read(one, 1, None); // 10
    let second = history.post(one, 0, "second"); // 11
    history.push(0, Some(0), Some(1), history::posted(one, 0, "third")); // 12
    history.delete_message(one, second); // 13
    history.post(two, 2, "goes with its room"); // 14
    history.delete_room(1, 0); // 15
    history.push(0, None, None, history::user_deleted(3)); // 16
    history.post(room(2, 0), 1, "elsewhere"); // 17
    history.read(one, 1, Some(first)); // 18: read before
    history.edit(one, first, 0, "first, edited"); // 19
    let old = history.post(room(2, 0), 2, "expires"); // 20
    history.expire(room(2, 0), old); // 21
    history.post(room(2, 0), 2, "is erased"); // 22
    history.erase(2); // 23
    history
}

/// One wrong value: how to make it in SQLite, how in MongoDB, and what must be told.
struct Wrong {
    sql: String,
    collection: &'static str,
    filter: Document,
    update: Document,
    told: &'static [&'static str],
}

fn wrong(
    sql: &str,
    collection: &'static str,
    filter: Document,
    update: Document,
    told: &'static [&'static str],
) -> Wrong {
    Wrong {
        sql: sql.to_owned(),
        collection,
        filter,
        update,
        told,
    }
}

fn everything_that_can_be_wrong() -> Vec<Wrong> {
    let id = |number: u8| user(number).to_string();
    let one = room(0, 0).to_string();
    let two = room(1, 0).to_string();
    let set = |field: &str, value: mongodb::bson::Bson| doc! { "$set": { field: value } };
    let date = |ms| mongodb::bson::DateTime::from_millis(ms).into();
    vec![
        // Users.
        wrong(
            "UPDATE users SET first_name = 'Eve' WHERE position = 1",
            "users",
            doc! { "_id": id(0) },
            set("firstName", "Eve".into()),
            &["user 02", "the first name is not the one in the log"],
        ),
        wrong(
            "UPDATE users SET last_name = 'Left' WHERE position = 4",
            "users",
            doc! { "_id": id(3) },
            set("lastName", "Left".into()),
            &["user 01", "the last name is not"],
        ),
        wrong(
            "UPDATE users SET type = 'support' WHERE position = 1",
            "users",
            doc! { "_id": id(0) },
            set("type", "support".into()),
            &["user 02", "the type is support, should be consumer"],
        ),
        wrong(
            "UPDATE users SET created_at = 0 WHERE position = 1",
            "users",
            doc! { "_id": id(0) },
            set("createdAt", date(0)),
            &["user 02", "the time of its creation is 1970-01-01T00:00:00.000Z"],
        ),
        wrong(
            "UPDATE users SET updated_at = 0 WHERE position = 1",
            "users",
            doc! { "_id": id(0) },
            set("updatedAt", date(0)),
            &["user 02", "the time of its last change is 1970"],
        ),
        wrong(
            "UPDATE users SET deleted = 1 WHERE position = 1",
            "users",
            doc! { "_id": id(0) },
            set("deleted", true.into()),
            &["user 02", "whether it is deleted is true, should be false"],
        ),
        wrong(
            "UPDATE users SET position = 99 WHERE position = 1",
            "users",
            doc! { "_id": id(0) },
            set("position", 99_i64.into()),
            &["user 02", "the position of its creation is 0000000000000063"],
        ),
        wrong(
            "DELETE FROM users WHERE position = 1",
            "users",
            doc! { "_id": id(0) },
            removal(),
            &["user 02", "is in the log, but not stored"],
        ),
        wrong(
            "INSERT INTO users SELECT 99, x'ff000000000000000000000000000000', first_name, last_name,
             type, created_at, updated_at, deleted FROM users WHERE position = 1",
            "users",
            doc! { "_id": "ff000000000000000000000000000000" },
            doc! { "$set": {
                "position": 99_i64, "firstName": "Eve", "lastName": "", "type": "support",
                "createdAt": mongodb::bson::DateTime::from_millis(0),
                "updatedAt": mongodb::bson::DateTime::from_millis(0), "deleted": false,
            } },
            &["user ff000000000000000000000000000000", "but the log gives none"],
        ),
        // Rooms.
        wrong(
            "UPDATE rooms SET type = 'consumer-to-support' WHERE position = 5",
            "rooms",
            doc! { "_id": &one },
            set("type", "consumer-to-support".into()),
            &["room ", "the type is consumer-to-support"],
        ),
        wrong(
            "UPDATE rooms SET deleted_messages = 7 WHERE position = 6",
            "rooms",
            doc! { "_id": &two },
            set("deletedMessages", 7_i64.into()),
            &["room ", "how many messages went with it is 7, should be 1"],
        ),
        wrong(
            "UPDATE rooms SET deleted_at = 16 WHERE position = 6",
            "rooms",
            doc! { "_id": &two },
            set("deletedAt", 16_i64.into()),
            &["room ", "the position of its deletion is 0000000000000010"],
        ),
        wrong(
            "DELETE FROM rooms WHERE position = 6",
            "rooms",
            doc! { "_id": &two },
            removal(),
            &["room ", "is in the log, but not stored"],
        ),
        wrong(
            "INSERT INTO rooms SELECT 99, x'ff000000000000000000000000000000', type, NULL, 98, 1 FROM rooms
             WHERE position = 6",
            "rooms",
            doc! { "_id": "ff000000000000000000000000000000" },
            doc! { "$set": {
                "position": 99_i64, "type": "consumer-to-support", "members": [], "applied": 0_i64,
                "deletedAt": 98_i64, "deletedMessages": 1_i64,
            } },
            &["room ff000000000000000000000000000000", "but the log gives none"],
        ),
        // Members and their lists.
        wrong(
            "DELETE FROM room_members WHERE room = 8",
            "rooms",
            doc! { "_id": room(3, 0).to_string() },
            set("members", Vec::<String>::new().into()),
            &["member 01", "of room", "is in the log, but not stored"],
        ),
        wrong(
            "INSERT INTO room_members VALUES (8, x'ff000000000000000000000000000000', NULL)",
            "rooms",
            doc! { "_id": room(3, 0).to_string() },
            doc! { "$push": { "members": "ff000000000000000000000000000000" } },
            &["member ff000000000000000000000000000000 of room", "the log gives none"],
        ),
        wrong(
            "UPDATE room_members SET last_message = 9 WHERE room = 5 AND user = x'02000000000000000000000000000007'",
            "rooms",
            doc! { "_id": &one },
            set("lastMessage", 9_i64.into()),
            &[
                "member 02",
                "newest message in the list of recent rooms is 0000000000000009, should be 000000000000000c",
            ],
        ),
        // Messages.
        wrong(
            "UPDATE messages SET text = 'First' WHERE id = 9",
            "messages",
            doc! { "_id": 9_i64 },
            set("text", "First".into()),
            &["message 0000000000000009: the text is not the one in the log"],
        ),
        wrong(
            "UPDATE messages SET text = 'second' WHERE id = 11",
            "messages",
            doc! { "_id": 11_i64 },
            set("text", "second".into()),
            &["message 000000000000000b: the text is there, should be gone"],
        ),
        wrong(
            "UPDATE messages SET author = x'02000000000000000000000000000008' WHERE id = 9",
            "messages",
            doc! { "_id": 9_i64 },
            set("author", "02000000000000000000000000000008".into()),
            &["message 0000000000000009: the author is 02000000000000000000000000000008"],
        ),
        wrong(
            "UPDATE messages SET room = 99 WHERE id = 9",
            "messages",
            doc! { "_id": 9_i64 },
            set("room", "00000000000000000000000000000000".into()),
            &["message 0000000000000009: the room is 0000"],
        ),
        wrong(
            "UPDATE messages SET created_at = 0 WHERE id = 9",
            "messages",
            doc! { "_id": 9_i64 },
            set("createdAt", date(0)),
            &["message 0000000000000009: the time of posting is 1970"],
        ),
        wrong(
            "UPDATE messages SET deleted_at = 14 WHERE id = 11",
            "messages",
            doc! { "_id": 11_i64 },
            set("deletion.position", 14_i64.into()),
            &["message 000000000000000b: the position of its deletion is 000000000000000e"],
        ),
        wrong(
            "UPDATE messages SET text = NULL, deleted_at = 10, deleted_on = 0 WHERE id = 9",
            "messages",
            doc! { "_id": 9_i64 },
            set("deleted", true.into()),
            &["message 0000000000000009: ", "whether it is deleted is true"],
        ),
        wrong(
            "DELETE FROM messages WHERE id = 9",
            "messages",
            doc! { "_id": 9_i64 },
            removal(),
            &["message 0000000000000009: is in the log, but not stored"],
        ),
        wrong(
            "INSERT INTO messages SELECT 8, room, author, text, created_at, NULL, 10, 0, NULL FROM messages WHERE id = 11",
            "messages",
            doc! { "_id": 8_i64 },
            doc! { "$set": {
                "room": &one, "author": id(0), "createdAt": mongodb::bson::DateTime::from_millis(0),
                "deleted": true, "deletion": {
                    "position": 10_i64, "at": mongodb::bson::DateTime::from_millis(0),
                },
            } },
            &["message 0000000000000008: is stored, but the log gives none"],
        ),
        wrong(
            "UPDATE messages SET text = 'expires' WHERE id = 20",
            "messages",
            doc! { "_id": 20_i64 },
            set("text", "expires".into()),
            &["message 0000000000000014: the text is there, should be gone"],
        ),
        wrong(
            "UPDATE messages SET text = 'is erased' WHERE id = 22",
            "messages",
            doc! { "_id": 22_i64 },
            set("text", "is erased".into()),
            &["message 0000000000000016: the text is there, should be gone"],
        ),
        wrong(
            "UPDATE messages SET edit = NULL WHERE id = 9",
            "messages",
            doc! { "_id": 9_i64 },
            doc! { "$unset": { "edit": "" } },
            &["message 0000000000000009: the position of the newest edit is none, should be 0000000000000013"],
        ),
        wrong(
            "UPDATE messages SET deleted_on = 0 WHERE id = 11",
            "messages",
            doc! { "_id": 11_i64 },
            set("deletion.at", date(0)),
            &["message 000000000000000b: the time of its deletion is 1970"],
        ),
        wrong(
            "UPDATE messages SET deleted_by = NULL WHERE id = 11",
            "messages",
            doc! { "_id": 11_i64 },
            doc! { "$unset": { "deletion.by": "" } },
            &["message 000000000000000b: who is behind its deletion is none, should be 02"],
        ),
        wrong(
            "UPDATE rooms SET expired = 17 WHERE position = 7",
            "rooms",
            doc! { "_id": room(2, 0).to_string() },
            set("expired", 17_i64.into()),
            &["the last message whose text has expired is 0000000000000011, should be 0000000000000014"],
        ),
        // Edits.
        wrong(
            "UPDATE edits SET text = 'something else' WHERE position = 19",
            "edits",
            doc! { "_id": 19_i64 },
            set("text", "something else".into()),
            &["edit 0000000000000013: the edited text is not the one in the log"],
        ),
        wrong(
            "UPDATE edits SET at = 0 WHERE position = 19",
            "edits",
            doc! { "_id": 19_i64 },
            set("at", date(0)),
            &["edit 0000000000000013: the time of the edit is 1970"],
        ),
        wrong(
            "UPDATE edits SET message = 12 WHERE position = 19",
            "edits",
            doc! { "_id": 19_i64 },
            set("message", 12_i64.into()),
            &["edit 0000000000000013: the message is 000000000000000c"],
        ),
        wrong(
            "INSERT INTO edits SELECT 18, room, message, author, text, at FROM edits WHERE position = 19",
            "edits",
            doc! { "_id": 18_i64 },
            doc! { "$set": {
                "room": &one, "message": 9_i64, "author": id(0), "text": "first",
                "at": mongodb::bson::DateTime::from_millis(0),
            } },
            &["edit 0000000000000012: is stored, but the log gives none"],
        ),
        // Erasures.
        wrong(
            "DELETE FROM erasures",
            "erasures",
            doc! { "_id": id(2) },
            removal(),
            &["erasure 00", "is in the log, but not stored"],
        ),
        wrong(
            "UPDATE erasures SET position = 20",
            "erasures",
            doc! { "_id": id(2) },
            set("position", 20_i64.into()),
            &["erasure 00", "position is 0000000000000014, should be 0000000000000017"],
        ),
        // Marks, which unread counts and receipts come from.
        wrong(
            "UPDATE marks SET up_to = 12 WHERE position = 10",
            "marks",
            doc! { "_id": 10_i64 },
            set("upTo", 12_i64.into()),
            &["mark 000000000000000a: up to which message is 000000000000000c"],
        ),
        wrong(
            "UPDATE marks SET from_message = 3 WHERE position = 10",
            "marks",
            doc! { "_id": 10_i64 },
            set("from", 3_i64.into()),
            &["mark 000000000000000a: after which message is 0000000000000003"],
        ),
        wrong(
            "UPDATE marks SET at = 0 WHERE position = 10",
            "marks",
            doc! { "_id": 10_i64 },
            set("at", date(0)),
            &["mark 000000000000000a: the time of reading is 1970"],
        ),
        wrong(
            "UPDATE marks SET room = 7 WHERE position = 10",
            "marks",
            doc! { "_id": 10_i64 },
            set("room", room(2, 0).to_string().into()),
            &["mark 000000000000000a: the room is"],
        ),
        wrong(
            "UPDATE marks SET reader = x'02000000000000000000000000000008' WHERE position = 10",
            "marks",
            doc! { "_id": 10_i64 },
            set("reader", "02000000000000000000000000000008".into()),
            &["mark 000000000000000a: the reader is 02000000000000000000000000000008"],
        ),
        wrong(
            "DELETE FROM marks WHERE position = 10",
            "marks",
            doc! { "_id": 10_i64 },
            removal(),
            &["mark 000000000000000a: is in the log, but not stored"],
        ),
        wrong(
            "INSERT INTO marks SELECT 11, room, reader, 9, 10, at FROM marks WHERE position = 10",
            "marks",
            doc! { "_id": 11_i64 },
            doc! { "$set": {
                "room": &one, "reader": id(1), "from": 9_i64, "upTo": 10_i64,
                "at": mongodb::bson::DateTime::from_millis(0),
            } },
            &["mark 000000000000000b: is stored, but the log gives none"],
        ),
        // Keys.
        wrong(
            "UPDATE keys SET position = 13",
            "keys",
            doc! {},
            set("position", 13_i64.into()),
            &["key ", "position is 000000000000000d, should be 000000000000000c"],
        ),
        wrong(
            "DELETE FROM keys",
            "keys",
            doc! {},
            removal(),
            &["key ", "is in the log, but not stored"],
        ),
        wrong(
            "INSERT INTO keys VALUES (x'ff000000000000000000000000000000', 3)",
            "keys",
            doc! { "_id": "ff000000000000000000000000000000" },
            set("position", 3_i64.into()),
            &["key ff000000000000000000000000000000: is stored, but the log gives none"],
        ),
    ]
}

async fn checksums(read_models: &dyn Projection) -> Checksums {
    let mut snapshot = read_models.snapshot().await.unwrap();
    Checksums::of(snapshot.as_mut()).await.unwrap()
}

#[test]
fn each_wrong_value_is_told_in_a_line_that_names_it_and_changes_a_checksum() {
    Runtime::new().unwrap().block_on(async {
        let history = told();
        let record = Record::of(&history.entries);
        for wrong in everything_that_can_be_wrong() {
            for store in Store::all() {
                let read_models = store.filled(&history).await;
                let before = verified(&record, read_models.as_ref()).await;
                assert!(before.is_equal(), "{before}");
                let sums = checksums(read_models.as_ref()).await;
                let Wrong {
                    sql,
                    collection,
                    filter,
                    update,
                    told,
                } = &wrong;
                store
                    .tamper(sql, collection, filter.clone(), update.clone())
                    .await;
                let report = verified(&record, read_models.as_ref()).await;
                assert!(!report.is_equal(), "{sql}");
                let text = report.to_string();
                let mut lines = text.lines();
                assert!(
                    lines.any(|line| told.iter().all(|words| line.contains(words))),
                    "{sql}\n{told:?}\n{text}"
                );
                let differing = checksums(read_models.as_ref()).await.differing(&sums);
                assert!(!differing.is_empty(), "{sql}");
                store.remove().await;
            }
        }
    });
}

#[test]
fn a_wrong_mark_is_told_as_the_wrong_unread_count_that_it_makes() {
    Runtime::new().unwrap().block_on(async {
        let history = told();
        for store in Store::all() {
            let read_models = store.filled(&history).await;
            store
                .tamper(
                    "UPDATE marks SET up_to = 12 WHERE position = 10",
                    "marks",
                    doc! { "_id": 10_i64 },
                    doc! { "$set": { "upTo": 12_i64 } },
                )
                .await;
            let report = verified(&Record::of(&history.entries), read_models.as_ref()).await;
            let member = report.differences.iter().find(|it| it.kind == Kind::Member);
            let member = member.unwrap().to_string();
            let expected = format!(
                "member {} of room {}: the number of unread messages is 0, should be 1",
                user(1),
                room(0, 0)
            );
            assert_eq!(member, expected);
            store.remove().await;
        }
    });
}

#[test]
fn only_so_many_differences_are_listed_and_all_are_counted() {
    Runtime::new().unwrap().block_on(async {
        let store = Store::sqlite();
        let read_models = store.filled(&History::default()).await;
        let mut history = told();
        let few = Batch {
            up_to: history.last(),
            ..batch(&[], &history)
        };
        read_models.apply(&few).await.unwrap();
        let options = Options {
            listed: 3,
            ..Options::default()
        };
        let record = Record::of(&history.entries);
        let report = compared(&record, read_models.as_ref(), &options)
            .await
            .unwrap();
        assert_eq!(report.differences.len(), 3);
        // 4 users, 1 erasure, 4 rooms, 8 members less those of the deleted room, 6 messages, 1 edit, 1 mark,
        // 1 key.
        assert_eq!(report.differing, 4 + 1 + 4 + 6 + 6 + 1 + 1 + 1, "{report}");
        assert!(report.to_string().contains("\nand 21 more\n"), "{report}");
        // What is not projected yet is no difference.
        history.create(0);
        let record = Record::of(&history.entries);
        let later = compared(&record, read_models.as_ref(), &options)
            .await
            .unwrap();
        assert_eq!(later.differing, report.differing);
        assert!(later.log_end > later.position);
    });
}

/// An event that stands at this position and was set aside.
async fn set_aside(read_models: &dyn Projection, position: u64) {
    let letter = DeadLetter {
        position: Position::new(position),
        subject: "chat.user.x".to_owned(),
        payload: b"{".to_vec(),
        reason: "not an event envelope".to_owned(),
    };
    read_models.set_aside(&letter).await.unwrap();
}

#[test]
fn events_that_were_set_aside_are_told_and_are_no_differences() {
    Runtime::new().unwrap().block_on(async {
        for store in Store::all() {
            let mut history = told();
            history.push(1, None, None, history::created(0, "Anna again"));
            let gap = Position::new(history.last().get() - 1);
            let read_models = store.filled(&history).await;
            let record = Record::of(&history.entries).with_bytes(gap);

            let report = verified(&record, read_models.as_ref()).await;
            let lost = &report.differences[0];
            assert_eq!((lost.kind, report.differing), (Kind::Event, 1), "{report}");
            assert_eq!(
                lost.to_string(),
                format!(
                    "event {gap}: it is not an event envelope, and it is not set aside as a dead letter"
                )
            );

            set_aside(read_models.as_ref(), gap.get()).await;
            let report = verified(&record, read_models.as_ref()).await;
            assert!(report.is_equal(), "{report}");
            assert_eq!(report.set_aside, 1);
            let told = "1 event is set aside as a dead letter; it is not in the read models";
            assert!(report.to_string().contains(told), "{report}");

            let report = verified(&Record::of(&history.entries), read_models.as_ref()).await;
            let told = format!(
                "event {gap}: is set aside as a dead letter, but the log has no such event"
            );
            assert_eq!(report.differences[0].to_string(), told);
            store.remove().await;
        }
    });
}

#[test]
fn an_event_that_was_refused_is_left_out_with_or_without_its_key() {
    Runtime::new().unwrap().block_on(async {
        for key_is_kept in [false, true] {
            for store in Store::all() {
                // Given a keyed event that was refused, and another with its key.
                let mut history = told();
                let refused = history.push(
                    0,
                    Some(0),
                    Some(2),
                    history::posted(room(0, 0), 0, "too large"),
                );
                let next =
                    history.push(0, Some(0), Some(2), history::posted(room(0, 0), 0, "small"));
                let mut projected = history.clone();
                projected.entries.retain(|entry| {
                    entry.position != refused && (entry.position != next || !key_is_kept)
                });
                let read_models = store.filled(&projected).await;
                set_aside(read_models.as_ref(), refused.get()).await;
                // When its key was written before it was refused, or not.
                if key_is_kept {
                    let key = &history.entries.last().unwrap().envelope;
                    let id = key.deduplication_id().simple();
                    store
                        .tamper(
                            &format!("INSERT INTO keys VALUES (x'{id}', {})", refused.get()),
                            "keys",
                            doc! { "_id": id.to_string() },
                            doc! { "$set": { "position": refused.get() as i64 } },
                        )
                        .await;
                }
                let report = verified(&Record::of(&history.entries), read_models.as_ref()).await;
                assert!(report.is_equal(), "{report}");
                assert_eq!(report.set_aside, 1);
                store.remove().await;
            }
        }
    });
}

#[test]
fn another_log_or_one_that_lost_its_tail_can_not_be_compared_with() {
    Runtime::new().unwrap().block_on(async {
        let store = Store::sqlite();
        let history = told();
        let read_models = store.filled(&history).await;
        let shorter = Record::of(&history.entries[..5]);
        let error = compared(&shorter, read_models.as_ref(), &Options::default()).await;
        let error = error.unwrap_err();
        assert!(matches!(error, VerifyError::LogEndsEarly { .. }), "{error}");

        let other = Store::sqlite();
        let read_models = other.open().await;
        let foreign = Batch {
            incarnation: event_log::Incarnation("another".to_owned()),
            ..batch(&history.entries, &history)
        };
        read_models.apply(&foreign).await.unwrap();
        let record = Record::of(&history.entries);
        let error = compared(&record, read_models.as_ref(), &Options::default()).await;
        let error = error.unwrap_err();
        assert!(matches!(error, VerifyError::OtherLog { .. }), "{error}");
        assert!(error.to_string().contains(&incarnation().0), "{error}");
    });
}

/// Everything that a snapshot holds, read in pages of this size.
async fn all_rows(read_models: &dyn Projection, limit: u32) -> Vec<String> {
    let mut snapshot = read_models.snapshot().await.unwrap();
    let mut rows = vec![format!("{:?}", snapshot.checkpoint().map(|it| it.position))];
    macro_rules! read {
        ($of:ident, $key:expr) => {
            let mut after = None;
            loop {
                let page = snapshot.$of(after, limit).await.unwrap();
                assert!(page.len() <= limit as usize);
                let Some(last) = page.last() else { break };
                after = Some($key(last));
                rows.extend(page.iter().map(|row| format!("{row:?}")));
            }
        };
    }
    read!(users, |it: &read_models::StoredUser| it.row.id);
    read!(rooms, |it: &read_models::StoredRoom| it.id);
    read!(members, |it: &read_models::StoredMember| (it.room, it.user));
    read!(messages, |it: &read_models::StoredMessage| it.id);
    read!(edits, |it: &read_models::StoredEdit| it.edit.position);
    read!(erasures, |it: &read_models::StoredErasure| it.user);
    read!(marks, |it: &read_models::StoredMark| it.position);
    read!(keys, |it: &read_models::StoredKey| it.id);
    read!(dead_letters, |it: &Position| *it);
    snapshot.finish().await.unwrap();
    rows
}

#[test]
fn a_snapshot_reads_the_same_in_pages_of_any_size_and_from_every_store() {
    Runtime::new().unwrap().block_on(async {
        let history = told();
        let mut from_every_store = Vec::new();
        for store in Store::all() {
            let read_models = store.filled(&history).await;
            for position in [3, 7] {
                set_aside(read_models.as_ref(), position).await;
            }
            let all = all_rows(read_models.as_ref(), 1_000).await;
            for limit in 1..5 {
                assert_eq!(all_rows(read_models.as_ref(), limit).await, all, "{limit}");
            }
            from_every_store.push(all);
            store.remove().await;
        }
        // 4 users, an erasure, 4 rooms, 6 members, 6 messages, an edit, a mark, a key, 2 dead letters and the
        // checkpoint.
        assert_eq!(
            from_every_store[0].len(),
            4 + 1 + 4 + 6 + 6 + 1 + 1 + 1 + 2 + 1
        );
        assert!(
            from_every_store
                .iter()
                .all(|rows| *rows == from_every_store[0])
        );
    });
}

#[test]
fn a_snapshot_stays_as_it_was_while_the_projection_goes_on() {
    Runtime::new().unwrap().block_on(async {
        for store in Store::all() {
            let mut history = told();
            let read_models = store.filled(&history).await;
            let mut snapshot = read_models.snapshot().await.unwrap();
            let before = Checksums::of(snapshot.as_mut()).await.unwrap();
            let unread = snapshot.unread(room(0, 0), user(1)).await.unwrap();

            history.post(room(0, 0), 0, "later");
            history.push(0, None, None, history::user_deleted(0));
            history.push(0, None, None, history::room_deleted(2, 0));
            read_models
                .apply(&batch(&history.entries, &history))
                .await
                .unwrap();

            let after = Checksums::of(snapshot.as_mut()).await.unwrap();
            assert_eq!(after, before);
            assert_eq!(snapshot.unread(room(0, 0), user(1)).await.unwrap(), unread);
            let now = checksums(read_models.as_ref()).await;
            assert_eq!(
                now.differing(&before),
                ["users", "rooms", "members", "messages"]
            );
            store.remove().await;
        }
    });
}

#[test]
fn checksums_of_any_history_are_the_same_from_every_store() {
    let Some(probe) = Store::mongo() else {
        return;
    };
    drop(probe);
    let runtime = Runtime::new().unwrap();
    let mut runner = TestRunner::new(Config::with_cases(12));
    runner
        .run(&history::history(90), |history| {
            runtime.block_on(async {
                let mut sums = Vec::new();
                for store in Store::all() {
                    let read_models = store.filled(&history).await;
                    sums.push(checksums(read_models.as_ref()).await);
                    store.remove().await;
                }
                assert_eq!(sums[0], sums[1]);
            });
            Ok(())
        })
        .unwrap();
}

/// The history as it is decoded once Anna's key is destroyed.
fn without_her_texts(entries: &[Entry]) -> Vec<Entry> {
    let mut entries = entries.to_vec();
    for entry in &mut entries {
        match &mut entry.envelope.event {
            Event::UserCreated(event) if event.user_id == user(0) => event.names = None,
            Event::MessagePosted(event) if event.author == user(0) => event.message_text = None,
            Event::MessageEdited(event) if event.author == user(0) => event.message_text = None,
            _ => {}
        }
    }
    entries
}

#[test]
fn a_text_whose_key_was_destroyed_ahead_of_the_event_that_says_so_may_be_there_or_not() {
    Runtime::new().unwrap().block_on(async {
        // Given a log in which nobody has been erased, and read models from before and from after the
        // destruction of a key.
        let entries = &told().entries[..19];
        let record = Record::of(entries);
        let options = Options::default();
        let destroyed = [user(0)];
        for (projected, left) in [
            (entries.to_vec(), Left::Text),
            (without_her_texts(entries), Left::Erased),
        ] {
            for store in Store::all() {
                let read_models = store.open().await;
                read_models.prepare().await.unwrap();
                let batch = Batch {
                    incarnation: incarnation(),
                    up_to: entries[18].position,
                    entries: projected.clone(),
                    fence: Fence::default(),
                };
                read_models.apply(&batch).await.unwrap();

                // Then both are right once the key is destroyed, and only what has the texts before.
                let after = compared_without(&destroyed, &record, read_models.as_ref(), &options);
                let after = after.await.unwrap();
                assert!(after.is_equal(), "{after}");
                let before = compared(&record, read_models.as_ref(), &options).await;
                assert_eq!(before.unwrap().is_equal(), left == Left::Text);
                let first = Page {
                    start: PageStart::Number(0),
                    limit: 1,
                };
                let page = read_models.conversation(room(0, 0), first).await.unwrap();
                assert_eq!(page.unwrap().messages[0].left, left);
                store.remove().await;
            }
        }
    });
}
