//! Retention: what is past its age is gone from everything that is made of the record, what is under legal hold
//! is not, and a projector that is killed on the way goes on.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashMap;
use std::time::Duration;

use event_log::{Filter, Position};
use events::{
    Envelope, Event, Expect, MessageEdited, MessageId, MessagePosted, RoomId, RoomInitiated,
    RoomType, Timestamp, UserId,
};
use futures::TryStreamExt;
use hansard_tests::{
    Auth, Backend, Layout, Options, Person, Service, Stack, eventually, no_file_has, room_of,
    run_with,
};
use keys::Record;
use serde_json::{Value, json};

const SECRET: &str = "Xylophonkonzertabend";

/// How long it may take on a busy machine.
const SOON: Duration = Duration::from_secs(60);

fn days_ago(days: u64) -> Timestamp {
    Timestamp::now().before(Duration::from_secs(days * 24 * 60 * 60))
}

/// Something that `actor` did at some time, as if it had been appended then.
async fn happened(record: &Record, at: Timestamp, actor: UserId, event: Event) -> Position {
    let envelope = Envelope {
        at,
        ..Envelope::new(event, Some(actor), None)
    };
    let appended = record.append(&envelope, Expect::Any).await.unwrap();
    appended.position
}

async fn posted(record: &Record, at: Timestamp, author: &str, room: &str, text: &str) -> MessageId {
    let author = author.parse().unwrap();
    let event = Event::MessagePosted(MessagePosted {
        room_id: room.parse().unwrap(),
        author,
        message_text: Some(text.to_owned()),
    });
    MessageId::at(happened(record, at, author, event).await)
}

/// What is shown of each message of a room: its text, and whether that has expired.
async fn shown(person: &Person, room: &str, query: &str) -> Vec<(String, bool)> {
    let page = person.client.conversation(room, query).await.ok();
    let messages = page["conversation"].as_array().unwrap();
    let shown = messages.iter().map(|message| {
        let text = message["message"]["messageText"].as_str().unwrap();
        (text.to_owned(), message["expired"] == json!(true))
    });
    shown.collect()
}

async fn becomes(person: &Person, room: &str, expected: &[(String, bool)]) {
    eventually("the texts expire", SOON, || async {
        (shown(person, room, "").await == expected).then_some(())
    })
    .await;
}

fn said(text: &str) -> (String, bool) {
    (text.to_owned(), false)
}

fn gone() -> (String, bool) {
    (String::new(), true)
}

/// The expiries of each room, as the record has them.
async fn expiries(record: &Record) -> HashMap<RoomId, Vec<MessageId>> {
    let mut expiries: HashMap<RoomId, Vec<MessageId>> = HashMap::new();
    let mut events = record.log.read(Filter::All, Position::ZERO).await.unwrap();
    while let Some(recorded) = events.try_next().await.unwrap() {
        if let Event::MessageExpired(event) = record.outline(&recorded).unwrap().event {
            let of_room = expiries.entry(event.room_id).or_default();
            of_room.push(event.up_to);
        }
    }
    expiries
}

async fn what_is_past_its_age_is_gone_and_what_is_held_is_not(stack: Stack) {
    let mut stack = stack.with_positions();
    let (ada, grace) = (stack.person("Ada").await, stack.person("Grace").await);
    let eve = stack.person("Eve").await;
    let sam = stack.person_of_type("Sam", "support").await;
    let room = room_of(&ada, &[&grace]).await;
    let held = room_of(&ada, &[&eve]).await;
    let of_support = ada.client.initiate(&[&sam.id], "consumer-to-support").await;
    let of_support = of_support.ok()["chatRoom"]["chatRoomId"].clone();
    let of_support = of_support.as_str().unwrap().to_owned();

    let record = stack.open_record().await;
    let old = days_ago(100);
    let first = posted(&record, old, &ada.id, &room, &format!("{SECRET} one")).await;
    let author = ada.id.parse().unwrap();
    let edit = MessageEdited {
        room_id: room.parse().unwrap(),
        message_id: first,
        author,
        posted_at: old,
        message_text: Some(format!("{SECRET} two")),
    };
    let edit = Event::MessageEdited(edit);
    let then = happened(&record, days_ago(1), author, edit).await;
    let last = posted(
        &record,
        days_ago(31),
        &grace.id,
        &room,
        &format!("{SECRET} three"),
    )
    .await;
    let evidence = posted(&record, old, &ada.id, &held, "evidence").await;
    posted(&record, old, &sam.id, &of_support, "for long").await;
    let _ = stack.client().hold(&held, "case 17/2026").await.ok();
    let _ = ada.client.post(&room, "young").await.ok();
    eventually("everything is projected", SOON, || async {
        let found = grace.client.search(&[("q", SECRET)]).await.ok();
        (found["messages"].as_array().unwrap().len() == 2).then_some(())
    })
    .await;

    // A projector looks at once when it begins to lead.
    stack.restart(Service::Projector).await;
    let left = [gone(), gone(), said("young")];
    becomes(&grace, &room, &left).await;
    assert_eq!(shown(&eve, &held, "").await, [said("evidence")]);
    assert_eq!(shown(&sam, &of_support, "").await, [said("for long")]);
    let found = grace.client.search(&[("q", SECRET)]).await.ok();
    assert_eq!(found["messages"], json!([]));
    let history = grace.client.history(&room, &first.to_string()).await.ok();
    assert_eq!(history["history"]["expired"], true, "{history}");
    assert!(!history.to_string().contains(SECRET), "{history}");
    // What was said a month ago can be opened still, and is shown to nobody.
    let as_of_then = format!("asOf={then}");
    assert_eq!(shown(&grace, &room, &as_of_then).await, [gone()]);
    for format in ["jsonl", "text", "transcript", "html"] {
        let query = format!("format={format}");
        let replayed = sam.client.audit_events(&query).await;
        assert!(!replayed.text.contains(SECRET), "{}", replayed.text);
        assert!(replayed.text.contains("evidence"), "{}", replayed.text);
    }
    let verified = stack.hansard(&["verify", "read-models"]);
    assert!(verified.status.success(), "{verified:?}");

    // Making everything anew brings nothing back.
    let rebuilt = stack.hansard(&["rebuild"]);
    assert!(rebuilt.status.success(), "{rebuilt:?}");
    assert_eq!(shown(&grace, &room, "").await, left);
    no_file_has(&stack, SECRET).await;

    let _ = stack.client().release(&held).await.ok();
    stack.restart(Service::Projector).await;
    becomes(&eve, &held, &[gone()]).await;
    assert_eq!(shown(&sam, &of_support, "").await, [said("for long")]);
    let expected = [(room, last), (held, evidence)];
    let expected = expected.map(|(room, last)| (room.parse().unwrap(), vec![last]));
    assert_eq!(expiries(&record).await, HashMap::from(expected));

    // The keys of the month have gone as well: a process that remembers none finds none.
    eventually("the texts can't be opened", SOON, || async {
        let record = stack.open_record().await;
        for message in [first.position(), then, evidence.position()] {
            let recorded = record.log.get(message).await.unwrap().unwrap();
            let opened = record.decode(&recorded).await.unwrap().unwrap();
            let opened: Value = serde_json::from_slice(&opened.to_json()).unwrap();
            if !opened["data"]["messageText"].is_null() {
                return None;
            }
        }
        Some(())
    })
    .await;
}

async fn a_projector_that_is_killed_on_the_way_goes_on(stack: Stack) {
    const ROOMS: u32 = 150;
    let mut stack = stack.with_positions();
    let (ada, grace) = (stack.person("Ada").await, stack.person("Grace").await);
    let author: UserId = ada.id.parse().unwrap();
    let mut members: Vec<UserId> = vec![author, grace.id.parse().unwrap()];
    members.sort_unstable();
    let record = stack.open_record().await;
    let old = days_ago(100);
    let mut expected = HashMap::new();
    for generation in 0..ROOMS {
        let room_type = RoomType::ConsumerToConsumer;
        let room_id = RoomId::derive(room_type, &members, generation);
        let room = RoomInitiated {
            room_id,
            room_type,
            members: members.clone(),
            initiator: author,
            generation,
        };
        happened(&record, old, author, Event::RoomInitiated(room)).await;
        let last = posted(&record, old, &ada.id, &room_id.to_string(), "old").await;
        expected.insert(room_id, vec![last]);
    }
    stack.spawn(Service::Projector).await;
    eventually("some texts have expired", SOON, || async {
        (!expiries(&record).await.is_empty()).then_some(())
    })
    .await;
    stack.restart(Service::Projector).await;
    eventually("all texts have expired", SOON, || async {
        (expiries(&record).await.len() == expected.len()).then_some(())
    })
    .await;
    assert_eq!(expiries(&record).await, expected);
    for room in expected.keys() {
        becomes(&grace, &room.to_string(), &[gone()]).await;
    }
}

macro_rules! with_retention {
    ($($module:ident $backend:ident $layout:ident;)+) => {
        $(
            mod $module {
                use super::*;

                fn options() -> Options {
                    let mut options = Options::new(Backend::$backend, Layout::$layout, Auth::Open);
                    let days = "--retention-days=consumer-to-consumer=30,consumer-to-support=3650";
                    options.flags = vec![days.to_owned()];
                    options
                }

                #[test]
                fn what_is_past_its_age_is_gone_and_what_is_held_is_not() {
                    run_with(
                        options(),
                        super::what_is_past_its_age_is_gone_and_what_is_held_is_not,
                    );
                }

                #[test]
                fn a_projector_that_is_killed_on_the_way_goes_on() {
                    run_with(
                        options(),
                        super::a_projector_that_is_killed_on_the_way_goes_on,
                    );
                }
            }
        )+
    };
}

with_retention! {
    embedded_one_process Embedded OneProcess;
    embedded_four_processes Embedded FourProcesses;
    distributed_one_process Distributed OneProcess;
    distributed_four_processes Distributed FourProcesses;
}
