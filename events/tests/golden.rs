//! Every event version ever written still decodes, to the same event, and the newest ones without sealed texts
//! are written in the same bytes.
//!
//! `golden/<type>.v<version>.json` is one event as it stands in a log; a further part in the name tells
//! variants of it apart. Golden files are added, never changed: logs hold what they hold.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::path::PathBuf;

use events::{
    AuditRead, ConversationRead, DataKey, DecodeError, Encoded, Envelope, Event, KeyId,
    MessageDeleted, MessageEdited, MessageExpired, MessagePosted, Names, Position, RoomDeleted,
    RoomHeld, RoomInitiated, RoomReleased, RoomType, UserCreated, UserDeleted, UserErased, UserId,
    UserType,
};

const ALICE: &str = "a11ce0a11ce0a11ce0a11ce0a11ce0a1";
const BOB: &str = "b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0";
const ROOM: &str = "5f2d1c0b9a8e7d6c5b4a39281706f5e4";

/// The keys that the golden files are sealed with.
fn keys(ids: &[KeyId]) -> Vec<DataKey> {
    let key = |id: &KeyId| match id {
        KeyId::Person(_) => DataKey::from_bytes([1; 32]),
        KeyId::Period { .. } => DataKey::from_bytes([2; 32]),
    };
    ids.iter().map(key).collect()
}

fn decode(bytes: &[u8]) -> Result<Envelope, DecodeError> {
    let encoded = Encoded::parse(bytes)?;
    let keys = keys(&encoded.key_ids());
    encoded.decode(Some(&keys))
}

fn user(id: &str) -> UserId {
    id.parse().unwrap()
}

const TEXT: &str = "tab\tquote\"back\\slash\0\u{1b}[31m\u{7f} 👋🏽 é é ﷽";

fn alice() -> Event {
    Event::UserCreated(UserCreated {
        user_id: user(ALICE),
        names: Some(Names {
            first_name: "Alice".to_owned(),
            last_name: "Ng ô Ünïcode".to_owned(),
        }),
        user_type: UserType::Consumer,
    })
}

fn posted() -> Event {
    Event::MessagePosted(MessagePosted {
        room_id: ROOM.parse().unwrap(),
        author: user(ALICE),
        message_text: Some(TEXT.to_owned()),
    })
}

/// One entry for each golden file: its name without `.json`, and what it must decode to.
fn expected() -> Vec<(&'static str, Envelope)> {
    let envelope = |number: u8, at: &str, actor: Option<&str>, key: Option<&str>, event| Envelope {
        id: format!("019b0e5c-7d00-7000-8000-00000000000{number}")
            .parse()
            .unwrap(),
        at: at.parse().unwrap(),
        actor: actor.map(user),
        key: key.map(|key| key.parse().unwrap()),
        event,
    };
    let room_id = ROOM.parse().unwrap();
    let message_id = events::MessageId::at(Position::new(0xa5));
    let members = vec![user(ALICE), user(BOB)];
    vec![
        (
            "user.created.v1",
            envelope(1, "2026-11-22T17:16:12.692Z", None, None, alice()),
        ),
        (
            "user.created.v2",
            envelope(1, "2026-11-25T17:16:12.692Z", None, None, alice()),
        ),
        (
            "user.deleted.v1",
            envelope(
                2,
                "2026-11-23T08:00:00Z",
                Some(BOB),
                Some("retry-1"),
                Event::UserDeleted(UserDeleted {
                    user_id: user(ALICE),
                    user_type: UserType::Support,
                    created_at: "2026-11-22T17:16:12.692Z".parse().unwrap(),
                }),
            ),
        ),
        (
            "room.initiated.v1",
            envelope(
                3,
                "2026-11-22T17:17:00.001Z",
                Some(ALICE),
                None,
                Event::RoomInitiated(RoomInitiated {
                    room_id,
                    room_type: RoomType::ConsumerToConsumer,
                    members: members.clone(),
                    initiator: user(ALICE),
                    generation: 0,
                }),
            ),
        ),
        (
            "room.deleted.v1",
            envelope(
                4,
                "2026-11-24T00:00:00.999Z",
                Some(BOB),
                None,
                Event::RoomDeleted(RoomDeleted {
                    room_id,
                    room_type: RoomType::ConsumerToSupport,
                    members,
                    initiator: user(ALICE),
                    generation: 3,
                    initiated_at: "2026-11-22T17:17:00.001Z".parse().unwrap(),
                }),
            ),
        ),
        (
            "message.posted.v1",
            envelope(
                5,
                "2026-11-22T17:18:00Z",
                Some(ALICE),
                Some("0f8fad5b-d9cb-469f-a165-70867728950e"),
                posted(),
            ),
        ),
        (
            "message.posted.v2",
            envelope(
                5,
                "2026-11-25T17:18:00Z",
                Some(ALICE),
                Some("0f8fad5b-d9cb-469f-a165-70867728950e"),
                posted(),
            ),
        ),
        (
            "message.edited.v1",
            envelope(
                9,
                "2026-12-01T00:00:00Z",
                Some(ALICE),
                None,
                Event::MessageEdited(MessageEdited {
                    room_id,
                    message_id,
                    author: user(ALICE),
                    posted_at: "2026-11-25T17:18:00Z".parse().unwrap(),
                    message_text: Some(TEXT.to_owned()),
                }),
            ),
        ),
        (
            "message.expired.v1",
            envelope(
                1,
                "2027-11-25T00:00:00Z",
                None,
                None,
                Event::MessageExpired(MessageExpired {
                    room_id,
                    up_to: message_id,
                }),
            ),
        ),
        (
            "room.held.v1",
            envelope(
                2,
                "2026-11-26T00:00:00Z",
                Some(BOB),
                None,
                Event::RoomHeld(RoomHeld {
                    room_id,
                    reason: "case 17/2026".to_owned(),
                }),
            ),
        ),
        (
            "room.released.v1",
            envelope(
                3,
                "2026-11-27T00:00:00Z",
                Some(BOB),
                None,
                Event::RoomReleased(RoomReleased { room_id }),
            ),
        ),
        (
            "user.erased.v1",
            envelope(
                4,
                "2026-11-28T00:00:00Z",
                Some(BOB),
                None,
                Event::UserErased(UserErased {
                    user_id: user(ALICE),
                    user_type: UserType::Consumer,
                    created_at: "2026-11-22T17:16:12.692Z".parse().unwrap(),
                }),
            ),
        ),
        (
            "audit.read.v1",
            envelope(
                5,
                "2026-11-28T00:00:00Z",
                Some(BOB),
                None,
                Event::AuditRead(AuditRead {
                    what: "GET /audit/events".to_owned(),
                    filter: [("room".to_owned(), ROOM.to_owned())].into(),
                    operator: None,
                }),
            ),
        ),
        (
            "audit.read.v1.operator",
            envelope(
                6,
                "2026-11-28T00:00:00Z",
                None,
                None,
                Event::AuditRead(AuditRead {
                    what: "hansard replay".to_owned(),
                    filter: [].into(),
                    operator: Some("root@host".to_owned()),
                }),
            ),
        ),
        (
            "message.deleted.v1",
            envelope(
                6,
                "2026-11-22T17:19:00Z",
                Some(ALICE),
                None,
                Event::MessageDeleted(MessageDeleted {
                    room_id,
                    message_id,
                }),
            ),
        ),
        (
            "conversation.read.v1",
            envelope(
                7,
                "2026-11-22T17:20:00Z",
                Some(BOB),
                None,
                Event::ConversationRead(ConversationRead {
                    room_id,
                    reader: user(BOB),
                    up_to: None,
                }),
            ),
        ),
        (
            "conversation.read.v1.up-to",
            envelope(
                8,
                "2026-11-22T17:21:00Z",
                Some(BOB),
                None,
                Event::ConversationRead(ConversationRead {
                    room_id,
                    reader: user(BOB),
                    up_to: Some(message_id),
                }),
            ),
        ),
    ]
}

/// How many event types there are; the match makes a new type fail to compile here until it is counted
/// and has its golden file.
fn ordinal(event: &Event) -> usize {
    match event {
        Event::UserCreated(_) => 0,
        Event::UserDeleted(_) => 1,
        Event::RoomInitiated(_) => 2,
        Event::RoomDeleted(_) => 3,
        Event::MessagePosted(_) => 4,
        Event::MessageDeleted(_) => 5,
        Event::ConversationRead(_) => 6,
        Event::UserErased(_) => 7,
        Event::RoomHeld(_) => 8,
        Event::RoomReleased(_) => 9,
        Event::MessageEdited(_) => 10,
        Event::MessageExpired(_) => 11,
        Event::AuditRead(_) => 12,
    }
}
const TYPES: usize = 13;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

#[test]
fn every_golden_file_decodes_to_its_event_and_is_written_in_the_same_bytes() {
    for (name, envelope) in expected() {
        let path = directory().join(format!("{name}.json"));
        let file = std::fs::read(&path).unwrap_or_else(|error| {
            panic!(
                "the golden file {} can't be read: {error}; add it",
                path.display()
            )
        });
        let bytes = file
            .strip_suffix(b"\n")
            .expect("a golden file ends its one line");
        assert_eq!(decode(bytes).unwrap(), envelope, "{name}");
        // What is sealed is never twice the same, and of older versions none is written.
        if envelope.key_ids().is_empty() {
            assert_eq!(
                String::from_utf8(envelope.encode(&[])).unwrap(),
                String::from_utf8(bytes.to_vec()).unwrap(),
                "{name}"
            );
        }
    }
}

#[test]
fn a_text_whose_key_was_destroyed_is_gone_and_the_rest_stays() {
    for (name, envelope) in expected() {
        if !name.ends_with("v2") && !name.starts_with("message.edited") {
            continue;
        }
        let bytes = std::fs::read(directory().join(format!("{name}.json"))).unwrap();
        let encoded = Encoded::parse(bytes.trim_ascii_end()).unwrap();
        assert_eq!(encoded.key_ids(), envelope.key_ids());
        let mut without = envelope.clone();
        match &mut without.event {
            Event::UserCreated(event) => event.names = None,
            Event::MessagePosted(event) => event.message_text = None,
            Event::MessageEdited(event) => event.message_text = None,
            other => panic!("{other:?} has nothing sealed"),
        }
        assert_eq!(encoded.decode(None).unwrap(), without, "{name}");
        assert!(
            String::from_utf8(without.to_json())
                .unwrap()
                .contains(":null")
        );
    }
}

#[test]
fn no_golden_file_goes_unchecked() {
    let checked: BTreeSet<String> = expected()
        .iter()
        .map(|(name, _)| format!("{name}.json"))
        .collect();
    let present: BTreeSet<String> = std::fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(present, checked);
}

#[test]
fn every_type_and_every_version_that_decodes_has_a_golden_file() {
    let samples = expected();
    let types: BTreeSet<usize> = samples.iter().map(|(_, it)| ordinal(&it.event)).collect();
    assert_eq!(types, (0..TYPES).collect(), "a type has no golden file");
    for (_, envelope) in &samples {
        let type_name = envelope.event.type_name();
        for version in 0..=64 {
            let bytes = format!(
                r#"{{"id":"{}","type":"{type_name}","v":{version},"at":"{}","actor":null,"data":{{}}}}"#,
                envelope.id, envelope.at
            );
            let known = !matches!(
                Encoded::parse(bytes.as_bytes()),
                Err(DecodeError::UnknownType { .. })
            );
            let golden = format!("{type_name}.v{version}");
            let has_golden_file = samples.iter().any(|(name, _)| *name == golden);
            assert_eq!(known, has_golden_file, "{golden}");
        }
    }
}
