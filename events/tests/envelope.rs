//! The envelope keeps whatever it is given byte for byte, and refuses what it does not know with a reason.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use events::{
    AuditRead, ConversationRead, DataKey, DecodeError, Encoded, Envelope, Event, MessageDeleted,
    MessageEdited, MessageExpired, MessageId, MessagePosted, Names, Position, RoomDeleted,
    RoomHeld, RoomId, RoomInitiated, RoomReleased, RoomType, Timestamp, UserCreated, UserDeleted,
    UserErased, UserId, UserType,
};
use proptest::prelude::*;
use uuid::Uuid;

fn user_id() -> impl Strategy<Value = UserId> {
    any::<u128>().prop_map(|bits| UserId::from_uuid(Uuid::from_u128(bits)))
}

fn room_id() -> impl Strategy<Value = RoomId> {
    any::<u128>().prop_map(|bits| RoomId::from_uuid(Uuid::from_u128(bits)))
}

fn message_id() -> impl Strategy<Value = MessageId> {
    any::<u64>().prop_map(|sequence| MessageId::at(Position::new(sequence)))
}

/// Milliseconds within the years 0 to 9999, those before 1970 included.
fn timestamp() -> impl Strategy<Value = Timestamp> {
    (-62_167_219_200_000_i64..253_402_214_400_000)
        .prop_map(|milliseconds| Timestamp::from_millis(milliseconds).unwrap())
}

/// Any Unicode: control characters, unassigned and private code points, combining marks.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::collection::vec(any::<char>(), 0..40).prop_map(|it| it.into_iter().collect()),
        proptest::collection::vec(proptest::char::range('\0', '\u{a0}'), 0..40)
            .prop_map(|it| it.into_iter().collect()),
    ]
}

fn members() -> impl Strategy<Value = Vec<UserId>> {
    proptest::collection::btree_set(user_id(), 1..6).prop_map(|it| it.into_iter().collect())
}

fn event() -> impl Strategy<Value = Event> {
    let user_type = || proptest::sample::select(UserType::ALL);
    let room_type = || proptest::sample::select(RoomType::ALL);
    prop_oneof![
        (user_id(), text(), text(), user_type()).prop_map(
            |(user_id, first_name, last_name, user_type)| Event::UserCreated(UserCreated {
                user_id,
                names: Some(Names {
                    first_name,
                    last_name,
                }),
                user_type,
            })
        ),
        (user_id(), user_type(), timestamp()).prop_map(|(user_id, user_type, created_at)| {
            Event::UserErased(UserErased {
                user_id,
                user_type,
                created_at,
            })
        }),
        (room_id(), text())
            .prop_map(|(room_id, reason)| Event::RoomHeld(RoomHeld { room_id, reason })),
        room_id().prop_map(|room_id| Event::RoomReleased(RoomReleased { room_id })),
        (room_id(), message_id(), user_id(), timestamp(), text()).prop_map(
            |(room_id, message_id, author, posted_at, text)| {
                Event::MessageEdited(MessageEdited {
                    room_id,
                    message_id,
                    author,
                    posted_at,
                    message_text: Some(text),
                })
            }
        ),
        (room_id(), message_id())
            .prop_map(|(room_id, up_to)| Event::MessageExpired(MessageExpired { room_id, up_to })),
        (
            text(),
            proptest::collection::btree_map(text(), text(), 0..3),
            proptest::option::of(text())
        )
            .prop_map(|(what, filter, operator)| {
                Event::AuditRead(AuditRead {
                    what,
                    filter,
                    operator,
                })
            }),
        (user_id(), user_type(), timestamp()).prop_map(|(user_id, user_type, created_at)| {
            Event::UserDeleted(UserDeleted {
                user_id,
                user_type,
                created_at,
            })
        }),
        (room_id(), room_type(), members(), user_id(), any::<u32>()).prop_map(
            |(room_id, room_type, members, initiator, generation)| {
                Event::RoomInitiated(RoomInitiated {
                    room_id,
                    room_type,
                    members,
                    initiator,
                    generation,
                })
            }
        ),
        (
            room_id(),
            room_type(),
            members(),
            user_id(),
            any::<u32>(),
            timestamp()
        )
            .prop_map(
                |(room_id, room_type, members, initiator, generation, initiated_at)| {
                    Event::RoomDeleted(RoomDeleted {
                        room_id,
                        room_type,
                        members,
                        initiator,
                        generation,
                        initiated_at,
                    })
                }
            ),
        (room_id(), user_id(), text()).prop_map(|(room_id, author, message_text)| {
            Event::MessagePosted(MessagePosted {
                room_id,
                author,
                message_text: Some(message_text),
            })
        }),
        (room_id(), message_id()).prop_map(|(room_id, message_id)| {
            Event::MessageDeleted(MessageDeleted {
                room_id,
                message_id,
            })
        }),
        (room_id(), user_id(), proptest::option::of(message_id())).prop_map(
            |(room_id, reader, up_to)| Event::ConversationRead(ConversationRead {
                room_id,
                reader,
                up_to,
            })
        ),
    ]
}

fn keys(envelope: &Envelope) -> Vec<DataKey> {
    let ids = envelope.key_ids();
    ids.iter().map(|_| DataKey::random()).collect()
}

fn decode(bytes: &[u8], keys: &[DataKey]) -> Result<Envelope, DecodeError> {
    Encoded::parse(bytes)?.decode(Some(keys))
}

fn envelope() -> impl Strategy<Value = Envelope> {
    (
        any::<u128>(),
        timestamp(),
        proptest::option::of(user_id()),
        proptest::option::of("[!-~]{1,255}"),
        event(),
    )
        .prop_map(|(id, at, actor, key, event)| Envelope {
            id: Uuid::from_u128(id),
            at,
            actor,
            key: key.map(|key| key.parse().unwrap()),
            event,
        })
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_the_same(envelope in envelope()) {
        let keys = keys(&envelope);
        let bytes = envelope.encode(&keys);
        let encoded = Encoded::parse(&bytes).unwrap();
        prop_assert_eq!(encoded.key_ids(), envelope.key_ids());
        prop_assert_eq!(&encoded.decode(Some(&keys)).unwrap(), &envelope);
        if keys.is_empty() {
            prop_assert_eq!(envelope.to_json(), bytes);
        }
    }

    #[test]
    fn what_is_sealed_can_be_moved_to_no_other_event(one in envelope(), other in envelope()) {
        let keys = keys(&one);
        prop_assume!(!keys.is_empty());
        let moved = Envelope { id: other.id, ..one.clone() };
        prop_assume!(moved.id != one.id);
        let id = |envelope: &Envelope| envelope.id.to_string();
        let bytes = String::from_utf8(one.encode(&keys)).unwrap();
        let bytes = bytes.replace(&id(&one), &id(&moved));
        let refused = decode(bytes.as_bytes(), &keys).unwrap_err();
        prop_assert!(refused.to_string().contains("can't be opened"), "{}", refused);
    }

    #[test]
    fn decoding_arbitrary_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Encoded::parse(&bytes).is_err());
    }

    #[test]
    fn decoding_a_damaged_event_never_panics(
        envelope in envelope(),
        place in any::<proptest::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let keys = keys(&envelope);
        let mut bytes = envelope.encode(&keys);
        let place = place.index(bytes.len());
        if cut {
            bytes.truncate(place);
        } else {
            bytes[place] = byte;
        }
        let _ = decode(&bytes, &keys);
    }
}

const GOOD: &str = r#"{"id":"019b0e5c-7d00-7000-8000-000000000006","type":"message.deleted","v":1,"at":"2026-11-22T17:19:00.000Z","actor":null,"data":{"roomId":"5f2d1c0b9a8e7d6c5b4a39281706f5e4","messageId":"00000000000000a5"}}"#;

#[test]
fn what_is_not_known_is_refused_with_the_reason() {
    assert!(Encoded::parse(GOOD.as_bytes()).is_ok());
    let members = r#""data":{"roomId":"5f2d1c0b9a8e7d6c5b4a39281706f5e4","type":"consumer-to-consumer","members":["b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0","a11ce0a11ce0a11ce0a11ce0a11ce0a1"],"initiator":"b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0","generation":0}}"#;
    let unsorted = format!("{}{members}", &GOOD[..GOOD.find(r#""data""#).unwrap()])
        .replace("message.deleted", "room.initiated");
    let replaced = |from: &str, to: &str| {
        assert!(GOOD.contains(from), "{from}");
        GOOD.replace(from, to)
    };
    for (bytes, reason) in [
        (
            replaced("message.deleted", "message.sung"),
            r#"unknown event type "message.sung" version 1"#,
        ),
        (
            replaced(r#""v":1"#, r#""v":2"#),
            r#"unknown event type "message.deleted" version 2"#,
        ),
        (
            replaced(r#""messageId""#, r#""colour":"red","messageId""#),
            "the data do not fit message.deleted version 1: unknown field `colour`",
        ),
        (
            replaced(r#","messageId":"00000000000000a5""#, ""),
            "the data do not fit message.deleted version 1: missing field `messageId`",
        ),
        (
            replaced("00000000000000a5", "00000000000000A5"),
            "the data do not fit message.deleted version 1: not a message id: expected 16 lower-case hex digits",
        ),
        (
            replaced("5f2d1c0b9a8e7d6c5b4a39281706f5e4", ">"),
            "the data do not fit message.deleted version 1: not a room id: expected 32 lower-case hex digits",
        ),
        (
            replaced(r#""v":1"#, r#""v":1,"w":1"#),
            "not an event envelope: unknown field `w`",
        ),
        (
            replaced(r#""v":1,"#, ""),
            "not an event envelope: missing field `v`",
        ),
        (
            replaced(r#""v":1"#, r#""v":1,"v":1"#),
            "not an event envelope: duplicate field `v`",
        ),
        (
            replaced(r#""v":1"#, r#""v":65536"#),
            "not an event envelope: invalid value: integer `65536`, expected u16",
        ),
        (
            replaced("2026-11-22T17:19:00.000Z", "yesterday"),
            "not an event envelope: not a time: expected RFC 3339",
        ),
        (
            replaced(r#""actor":null"#, r#""actor":null,"key":"a b""#),
            "not an event envelope: an idempotency key is 1 to 255 visible ASCII characters",
        ),
        (
            format!("{GOOD}{GOOD}"),
            "not an event envelope: trailing characters",
        ),
        (String::new(), "not an event envelope: EOF"),
        ("[]".to_owned(), "not an event envelope: invalid length 0"),
        (
            unsorted,
            "the data do not fit room.initiated version 1: members must be in ascending order, each once",
        ),
    ] {
        let error = Encoded::parse(bytes.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with(reason), "{error}\n  is not\n{reason}");
    }
}

#[test]
fn the_same_actor_and_key_make_the_same_deduplication_id_and_nobody_elses() {
    let [anna, bela] = [1, 2].map(|n| UserId::from_uuid(Uuid::from_u128(n)));
    let key = |text: &str| text.parse().unwrap();
    let id = Envelope::deduplication_id_for(Some(anna), &key("k"));
    assert_eq!(id, Envelope::deduplication_id_for(Some(anna), &key("k")));
    assert_ne!(id, Envelope::deduplication_id_for(Some(bela), &key("k")));
    assert_ne!(id, Envelope::deduplication_id_for(None, &key("k")));
    assert_ne!(id, Envelope::deduplication_id_for(Some(anna), &key("K")));

    let event = Event::ConversationRead(ConversationRead {
        room_id: RoomId::from_uuid(Uuid::from_u128(3)),
        reader: anna,
        up_to: None,
    });
    let keyed = Envelope::new(event.clone(), Some(anna), Some(key("k")));
    assert_eq!(keyed.deduplication_id(), id);
    let unkeyed = Envelope::new(event, Some(anna), None);
    assert_eq!(unkeyed.deduplication_id(), unkeyed.id);
    // Written to logs and read models: must never change.
    assert_eq!(id.to_string(), "bf7285f1-23a4-5d12-9968-8136ad32e677");
}

#[test]
fn an_idempotency_key_is_visible_ascii_of_a_bounded_length() {
    use events::IdempotencyKey;
    for good in ["a", "~!{}", &"x".repeat(255)] {
        assert_eq!(good.parse::<IdempotencyKey>().unwrap().as_str(), good);
    }
    for bad in ["", " ", "a b", "a\n", "\0", "é", &"x".repeat(256)] {
        assert!(bad.parse::<IdempotencyKey>().is_err(), "{bad:?}");
    }
}
