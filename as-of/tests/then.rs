//! What there was at a moment is what the read models answered then, on both logs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)]
#[path = "../../read-models/tests/support/history.rs"]
mod history;

use std::collections::HashMap;
use std::sync::Arc;

use as_of::{AsOf, BeyondTheEnd, Moment};
use audit::Bound;
use event_log::testing::NatsServer;
use event_log::{Expect, Filter, JetStreamLog, LogUrl, Position, SqliteLog};
use events::{Envelope, Event, KeyId, MessageId, RoomId, Timestamp, UserErased, UserType};
use futures::TryStreamExt;
use keys::{Keyring, Record};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use read_models::{
    Batch, Entry, Fence, Left, MessageRow, Page, PageStart, Projection, SqliteReadModels,
};
use tokio::runtime::Runtime;

use history::{History, USERS, edited, expired, posted, room, user};

/// A log with something of its own to be kept in.
struct TestLog {
    record: Record,
    _server: Option<NatsServer>,
    _directory: tempfile::TempDir,
}

impl TestLog {
    async fn sqlite() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let log = SqliteLog::open(&directory.path().join("log.db")).await;
        Some(Self {
            record: Record::new(Arc::new(log.unwrap()), Keyring::in_memory()),
            _server: None,
            _directory: directory,
        })
    }

    async fn jetstream() -> Option<Self> {
        let server = NatsServer::start()?;
        let LogUrl::Nats(address) = server.log_url() else {
            panic!("not a nats URL");
        };
        let log = JetStreamLog::open(&address).await.unwrap();
        Some(Self {
            record: Record::new(Arc::new(log), Keyring::in_memory()),
            _server: Some(server),
            _directory: tempfile::tempdir().unwrap(),
        })
    }

    /// Appends the events, whose places in the log are others: there are no gaps, and no event comes twice with
    /// a key.
    async fn append(&self, history: &History) {
        let mut places: HashMap<MessageId, MessageId> = HashMap::new();
        for entry in &history.entries {
            let mut envelope = entry.envelope.clone();
            if let Some(id) = names_message(&mut envelope.event) {
                *id = places.get(id).copied().unwrap_or(*id);
            }
            let appended = self.record.append(&envelope, Expect::Any).await.unwrap();
            places.insert(
                MessageId::at(entry.position),
                MessageId::at(appended.position),
            );
        }
    }

    /// What is in the log.
    async fn entries(&self) -> Vec<Entry> {
        let events = self.record.log.read(Filter::All, Position::ZERO).await;
        let events: Vec<_> = events.unwrap().try_collect().await.unwrap();
        let mut entries = Vec::new();
        for recorded in events {
            let envelope = self.record.decode(&recorded).await.unwrap().unwrap();
            entries.push(Entry {
                position: recorded.position,
                envelope,
            });
        }
        entries
    }

    async fn at(&self, bound: &str) -> AsOf {
        let bound: Bound = bound.parse().unwrap();
        let moment = Moment::find(self.record.log.as_ref(), bound).await.unwrap();
        AsOf::new(self.record.clone(), moment.unwrap())
    }
}

/// The message that the event says something about.
fn names_message(event: &mut Event) -> Option<&mut MessageId> {
    match event {
        Event::MessageEdited(event) => Some(&mut event.message_id),
        Event::MessageDeleted(event) => Some(&mut event.message_id),
        Event::MessageExpired(event) => Some(&mut event.up_to),
        Event::ConversationRead(event) => event.up_to.as_mut(),
        _ => None,
    }
}

fn page(start: PageStart, limit: u32) -> Page {
    Page { start, limit }
}

const ALL: Page = Page {
    start: PageStart::Number(0),
    limit: 100,
};

/// Compares every answer as of `position` with that of read models that have come so far.
async fn compare(
    log: &TestLog,
    read_models: &dyn Projection,
    position: Position,
    expired: &HashMap<RoomId, MessageId>,
) {
    // What has expired since is not brought back.
    let gone = |mut row: MessageRow| {
        if row.left == Left::Text && expired.get(&row.room) >= Some(&row.id) {
            row.left = Left::Expired;
            row.text = String::new();
        }
        row
    };
    let then = log.at(&position.to_string()).await;
    let middle = MessageId::at(Position::new(position.get() / 2));
    let pages = [
        ALL,
        page(PageStart::Number(1), 2),
        page(PageStart::Before(middle), 2),
        page(PageStart::After(middle), 2),
    ];
    for id in history::rooms() {
        let past = then.room(id).await.unwrap();
        let row = past.as_ref().map(|room| room.row().clone());
        assert_eq!(row, read_models.room(id).await.unwrap(), "as of {position}");
        let Some(past) = past else { continue };
        for page in pages {
            assert_eq!(
                past.conversation(page).await.unwrap(),
                read_models
                    .conversation(id, page)
                    .await
                    .unwrap()
                    .unwrap()
                    .messages
                    .into_iter()
                    .map(gone)
                    .collect::<Vec<_>>(),
                "{id} as of {position}, {page:?}"
            );
        }
    }
    let ids: Vec<_> = (0..=USERS).map(user).collect();
    let mut users = then.users_by_id(&ids).await.unwrap();
    let mut expected = read_models.users_by_id(&ids).await.unwrap();
    users.sort_unstable_by_key(|user| user.id);
    expected.sort_unstable_by_key(|user| user.id);
    assert_eq!(users, expected, "as of {position}");
    for id in &ids {
        for page in pages {
            let mut expected_recent = read_models.recent(*id, page).await.unwrap();
            for row in &mut expected_recent {
                row.message = gone(row.message.clone());
            }
            assert_eq!(
                then.recent(*id, page).await.unwrap(),
                expected_recent,
                "{id} as of {position}, {page:?}"
            );
        }
    }
}

async fn compare_all(log: &TestLog, history: &History) {
    log.append(history).await;
    let directory = tempfile::tempdir().unwrap();
    let read_models = SqliteReadModels::open(&directory.path().join("read.db"))
        .await
        .unwrap();
    read_models.prepare().await.unwrap();
    let entries = log.entries().await;
    let expired = expired_by_the_end(&entries);
    compare(log, &read_models, Position::ZERO, &expired).await;
    let incarnation = log.record.log.tail().await.unwrap().incarnation;
    for entry in entries {
        let up_to = entry.position;
        let batch = Batch {
            incarnation: incarnation.clone(),
            entries: vec![entry],
            up_to,
            fence: Fence::default(),
        };
        read_models.apply(&batch).await.unwrap();
        compare(log, &read_models, up_to, &expired).await;
    }
}

/// The last message of each room whose text has expired by the end.
fn expired_by_the_end(entries: &[Entry]) -> HashMap<RoomId, MessageId> {
    let mut expired = HashMap::new();
    for Entry { position, envelope } in entries {
        if let Event::MessageExpired(event) = &envelope.event {
            let before = MessageId::at(Position::new(position.get() - 1));
            let bound = expired
                .entry(event.room_id)
                .or_insert(event.up_to.min(before));
            *bound = event.up_to.min(before).max(*bound);
        }
    }
    expired
}

/// Random histories of up to `length` events, so many of them, each on a log of its own. What is erased is gone
/// in the past as well, so nobody is.
fn random_histories(length: usize, cases: u32, log: impl AsyncFn() -> Option<TestLog>) {
    let runtime = Runtime::new().unwrap();
    let mut runner = TestRunner::new(Config {
        cases,
        ..Config::default()
    });
    let histories = history::history(length).prop_map(|mut history| {
        let entries = &mut history.entries;
        entries.retain(|entry| !matches!(entry.envelope.event, Event::UserErased(_)));
        history
    });
    let run = |history: History| {
        runtime.block_on(async {
            if let Some(log) = log().await {
                compare_all(&log, &history).await;
            }
        });
        Ok(())
    };
    runner.run(&histories, run).unwrap();
}

#[test]
fn every_answer_is_what_the_read_models_answered_then() {
    random_histories(50, 40, TestLog::sqlite);
}

#[test]
fn every_answer_is_what_the_read_models_answered_then_on_jetstream() {
    random_histories(30, 4, TestLog::jetstream);
}

/// Two users and their room.
fn small() -> History {
    let mut history = History::default();
    for number in [0, 1] {
        history.create(number);
    }
    history.initiate(0, 0);
    history
}

#[tokio::test]
async fn edits_of_what_is_gone_and_rooms_deleted_before_stay_void() {
    let log = TestLog::sqlite().await.unwrap();
    let mut history = small();
    let edit = |message| edited(room(0, 0), message, 0, "edited");
    let expires = history.post(room(0, 0), 0, "expires");
    let is_deleted = history.post(room(0, 0), 0, "is deleted");
    history.push(0, Some(0), None, expired(room(0, 0), expires));
    history.push(0, Some(0), None, edit(expires));
    history.delete_message(room(0, 0), is_deleted);
    history.push(0, Some(0), None, edit(is_deleted));
    history.delete_room(0, 0);
    history.initiate(0, 0);
    history.post(room(0, 0), 0, "to nobody");
    compare_all(&log, &history).await;
}

#[tokio::test]
async fn what_has_expired_since_is_not_brought_back() {
    let log = TestLog::sqlite().await.unwrap();
    let mut history = small();
    let expires = history.post(room(0, 0), 0, "expires");
    history.push(
        0,
        Some(0),
        None,
        edited(room(0, 0), expires, 0, "otherwise"),
    );
    history.post(room(0, 0), 1, "stays");
    log.append(&history).await;
    let texts = async || {
        let then = log.at("6").await;
        let past = then.room(room(0, 0)).await.unwrap().unwrap();
        let rows = past.conversation(ALL).await.unwrap();
        let rows = rows.into_iter().map(|row| (row.text, row.left));
        let recent = then.recent(user(1), ALL).await.unwrap();
        let newest = recent.into_iter().map(|row| row.message.left);
        (rows.collect::<Vec<_>>(), newest.collect::<Vec<_>>())
    };
    let said = |text: &str| (text.to_owned(), Left::Text);
    let gone = || (String::new(), Left::Expired);
    let before = texts().await;
    let all = vec![said("otherwise"), said("stays")];
    assert_eq!(before, (all, vec![Left::Text]));

    // The event alone: the key of the month is there for as long as something of it has not expired.
    for (up_to, left, newest) in [
        (4, vec![gone(), said("stays")], Left::Text),
        (6, vec![gone(), gone()], Left::Expired),
    ] {
        let up_to = MessageId::at(Position::new(up_to));
        let expired = Envelope::new(expired(room(0, 0), up_to), None, None);
        log.record.append(&expired, Expect::Any).await.unwrap();
        assert_eq!(texts().await, (left, vec![newest]));
    }
}

#[tokio::test]
async fn what_is_erased_since_is_not_brought_back() {
    let log = TestLog::sqlite().await.unwrap();
    let mut history = small();
    for author in [0, 1] {
        history.post(room(0, 0), author, "said");
    }
    log.append(&history).await;
    let texts = async || {
        let then = log.at("5").await;
        let past = then.room(room(0, 0)).await.unwrap().unwrap();
        let rows = past.conversation(ALL).await.unwrap();
        let users = then.users_by_id(&[user(0)]).await.unwrap();
        let rows = rows.into_iter().map(|row| (row.text, row.left));
        (rows.collect::<Vec<_>>(), users[0].first_name.clone())
    };
    let said = || ("said".to_owned(), Left::Text);
    let gone = |left| (String::new(), left);
    assert_eq!(texts().await, (vec![said(), said()], "Anna".to_owned()));

    // The event alone, before the key is destroyed.
    let erased = UserErased {
        user_id: user(0),
        user_type: UserType::Consumer,
        created_at: Timestamp::from_millis(0).unwrap(),
    };
    let erased = Envelope::new(Event::UserErased(erased), None, None);
    log.record.append(&erased, Expect::Any).await.unwrap();
    let expected = (vec![gone(Left::Erased), said()], String::new());
    assert_eq!(texts().await, expected);
    let keyring = &log.record.keyring;
    keyring.destroy(KeyId::Person(user(0))).await.unwrap();
    assert_eq!(texts().await, expected);

    // The key of the month: nobody was erased.
    let period = log.entries().await[4].envelope.key_ids();
    let month = period
        .into_iter()
        .find(|id| matches!(id, KeyId::Period { .. }));
    keyring.destroy(month.unwrap()).await.unwrap();
    let expected = vec![gone(Left::Erased), gone(Left::Expired)];
    assert_eq!(texts().await, (expected, String::new()));
}

#[tokio::test]
async fn an_event_with_the_key_of_an_earlier_one_of_the_room_is_void() {
    let log = TestLog::sqlite().await.unwrap();
    let mut history = small();
    history.push(0, Some(0), Some(1), posted(room(0, 0), 0, "once"));
    log.append(&history).await;
    let edit = edited(room(0, 0), MessageId::at(Position::new(4)), 0, "edited");
    let same_key = [history.entries[3].envelope.event.clone(), edit];
    for (event, position) in same_key.into_iter().zip([5_u32, 6]) {
        let again = Envelope {
            event,
            ..history.entries[3].envelope.clone()
        };
        let mut event = log.record.keyring.seal(&again).await.unwrap();
        // As if the log had forgotten the first.
        event.deduplication_id = uuid::Uuid::from_u128(position.into());
        let appended = log.record.log.append(event, Expect::Any).await.unwrap();
        assert_eq!(appended.position, Position::new(position.into()));
    }
    let then = log.at("6").await;
    let past = then.room(room(0, 0)).await.unwrap().unwrap();
    let rows = past.conversation(ALL).await.unwrap();
    let texts: Vec<&str> = rows.iter().map(|row| row.text.as_str()).collect();
    assert_eq!(texts, ["once"]);
    assert_eq!(then.recent(user(1), ALL).await.unwrap()[0].unread, 1);
}

#[tokio::test]
async fn a_time_is_the_last_event_stored_by_then() {
    for log in [TestLog::sqlite().await, TestLog::jetstream().await] {
        let Some(log) = log else { continue };
        let mut history = small();
        for number in 0..7 {
            history.post(room(0, 0), 0, &format!("said {number}"));
        }
        log.append(&history).await;
        let events = log.record.log.read(Filter::All, Position::ZERO).await;
        let events: Vec<_> = events.unwrap().try_collect().await.unwrap();
        for event in &events {
            let moment = log.at(&event.stored_at.to_string()).await.moment();
            let expected = events
                .iter()
                .rev()
                .find(|it| it.stored_at <= event.stored_at);
            assert_eq!(moment.position, expected.unwrap().position);
            assert_eq!(moment.time, Some(event.stored_at));
        }
        let nothing = log.at("2001-01-01T00:00:00Z").await;
        assert_eq!(nothing.moment().position, Position::ZERO);
        assert_eq!(nothing.moment().time, None);
        assert!(nothing.room(room(0, 0)).await.unwrap().is_none());
        let all = log.at("2999-01-01T00:00:00Z").await;
        assert_eq!(all.moment().position, Position::new(10));

        let beyond = Bound::Position(Position::new(11));
        let beyond = Moment::find(log.record.log.as_ref(), beyond).await.unwrap();
        assert_eq!(beyond, Err(BeyondTheEnd(Position::new(10))));
    }
}
