//! The directory over a real log: right at once, fresh, and unimpressed by events that it can't decode.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use directory::Directory;
use event_log::{Expect, NewEvent, SqliteLog};
use events::{
    Envelope, Event, Names, Position, RoomDeleted, RoomId, RoomInitiated, RoomType, Subject,
    Timestamp, UserCreated, UserDeleted, UserId, UserType,
};
use keys::{Keyring, Record};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(30);

async fn open(directory: &tempfile::TempDir) -> Record {
    open_with(directory, Keyring::in_memory()).await
}

async fn open_with(directory: &tempfile::TempDir, keyring: Keyring) -> Record {
    let log = SqliteLog::open(&directory.path().join("log.db")).await;
    Record::new(Arc::new(log.unwrap()), keyring)
}

async fn append(record: &Record, event: Event) -> (Position, Envelope) {
    let envelope = Envelope::new(event, None, None);
    let appended = record.append(&envelope, Expect::Any).await;
    (appended.unwrap().position, envelope)
}

fn created(user_id: UserId) -> Event {
    Event::UserCreated(UserCreated {
        user_id,
        names: Some(Names::new("Anna", "Test")),
        user_type: UserType::Consumer,
    })
}

fn deleted(user_id: UserId) -> Event {
    Event::UserDeleted(UserDeleted {
        user_id,
        user_type: UserType::Consumer,
        created_at: Timestamp::now(),
    })
}

async fn until<Condition: Future<Output = bool>>(condition: impl Fn() -> Condition) {
    let waiting = async {
        while !condition().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.unwrap();
}

#[tokio::test]
async fn what_other_processes_append_is_noticed() {
    let files = tempfile::tempdir().unwrap();
    let keyring = Keyring::in_memory();
    let ours = open_with(&files, keyring.clone()).await;
    let theirs = open_with(&files, keyring).await;
    let [anna, bela] = [UserId::random(), UserId::random()];
    let directory = Directory::start(ours, CancellationToken::new());
    assert_eq!(directory.user(anna).await.unwrap(), None);

    let (position, envelope) = append(&theirs, created(anna)).await;
    // Not even who was looked for in vain is remembered as unknown.
    let user = directory.user(anna).await.unwrap().unwrap();
    assert_eq!((user.position, user.deleted), (position, false));
    assert_eq!(user.created_at, envelope.at);
    assert_eq!(directory.users(&[bela, anna]).await.unwrap(), [user]);

    append(&theirs, deleted(anna)).await;
    until(async || directory.user(anna).await.unwrap().unwrap().deleted).await;
}

#[tokio::test]
async fn own_appends_are_seen_at_once_and_never_undone() {
    let files = tempfile::tempdir().unwrap();
    let record = open(&files).await;
    let anna = UserId::random();
    let directory = Directory::start(record.clone(), CancellationToken::new());
    let (created_at, creation) = append(&record, created(anna)).await;
    assert!(directory.user(anna).await.unwrap().is_some());
    let (deleted_at, deletion) = append(&record, deleted(anna)).await;
    directory.observe(deleted_at, &deletion);
    directory.observe(created_at, &creation);
    for _ in 0..100 {
        let user = directory.user(anna).await.unwrap().unwrap();
        assert_eq!((user.position, user.deleted), (deleted_at, true));
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn rooms_live_and_are_deleted() {
    let files = tempfile::tempdir().unwrap();
    let record = open(&files).await;
    let mut members = vec![UserId::random(), UserId::random()];
    members.sort_unstable();
    let room_type = RoomType::ConsumerToConsumer;
    let room_id = RoomId::derive(room_type, &members, 0);
    let directory = Directory::start(record.clone(), CancellationToken::new());
    assert_eq!(directory.room(room_id).await.unwrap(), None);
    let initiated = Event::RoomInitiated(RoomInitiated {
        room_id,
        room_type,
        members: members.clone(),
        initiator: members[0],
        generation: 0,
    });
    let (_, envelope) = append(&record, initiated).await;
    let room = directory.room(room_id).await.unwrap().unwrap();
    assert_eq!((&room.members, room.deleted), (&members, false));
    let deletion = Event::RoomDeleted(RoomDeleted {
        room_id,
        room_type,
        members: members.clone(),
        initiator: members[0],
        generation: 0,
        initiated_at: envelope.at,
    });
    append(&record, deletion).await;
    until(async || directory.room(room_id).await.unwrap().unwrap().deleted).await;
}

#[tokio::test]
async fn events_that_cannot_be_decoded_change_nothing_but_the_historys_end() {
    let files = tempfile::tempdir().unwrap();
    let record = open(&files).await;
    let anna = UserId::random();
    append(&record, created(anna)).await;
    let foreign = Envelope::new(deleted(UserId::random()), None, None);
    let append_strange = async |payload: Vec<u8>| {
        let event = NewEvent {
            subject: Subject::User(anna),
            deduplication_id: Uuid::new_v4(),
            payload: payload.into(),
        };
        let appended = record.log.append(event, Expect::Any).await;
        appended.unwrap().position
    };
    append_strange(b"nonsense".to_vec()).await;
    let last = append_strange(foreign.encode(&[])).await;
    let directory = Directory::start(record.clone(), CancellationToken::new());
    let user = directory.user(anna).await.unwrap().unwrap();
    assert_eq!((user.position, user.deleted), (last, false));

    // Also for who is cached by then.
    let last = append_strange(b"nonsense".to_vec()).await;
    until(async || directory.user(anna).await.unwrap().unwrap().position == last).await;
    let deletion = Envelope::new(deleted(anna), None, None);
    let appended = record.append(&deletion, Expect::Exact(last)).await;
    assert!(
        appended.is_ok(),
        "what is expected of a history is its last event"
    );
    until(async || directory.user(anna).await.unwrap().unwrap().deleted).await;
}
