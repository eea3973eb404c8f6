//! One suite for every adapter: each test runs on SQLite and on MongoDB.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use event_log::Incarnation;
use events::{MessageId, Position, RoomId, RoomType, Timestamp};
use mongodb::bson::{Document, doc};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use read_models::testing::TestDatabase;
use read_models::{
    Batch, COUNT_CAP, DeadLetter, Entry, Fence, Left, MessageRow, MongoReadModels, Page, PageStart,
    Projection, ReadModelError, ReadModels, Search, SqliteReadModels, Words,
};
use support::compare::compare;
use support::history::{self, History, room, user};
use tokio::runtime::Runtime;

/// An adapter with something of its own to store in, made anew for each use.
enum Stack {
    Sqlite(tempfile::TempDir),
    Mongo(TestDatabase),
}

impl Stack {
    /// Every stack that can be had.
    fn all() -> Vec<Self> {
        let sqlite = Self::Sqlite(tempfile::tempdir().unwrap());
        let mongo = TestDatabase::new().map(Self::Mongo);
        std::iter::once(sqlite).chain(mongo).collect()
    }

    async fn open(&self) -> Arc<dyn Projection> {
        match self {
            Self::Sqlite(directory) => {
                let path = directory.path().join("read.db");
                Arc::new(SqliteReadModels::open(&path).await.unwrap())
            }
            Self::Mongo(database) => Arc::new(MongoReadModels::open(&database.url).await.unwrap()),
        }
    }

    async fn remove(self) {
        if let Self::Mongo(database) = self {
            database.drop_database().await.unwrap();
        }
    }
}

/// Runs a test on every stack.
fn on_every_stack(test: impl AsyncFn(&Stack, Arc<dyn Projection>)) {
    let runtime = Runtime::new().unwrap();
    for stack in Stack::all() {
        runtime.block_on(async {
            let read_models = stack.open().await;
            read_models.prepare().await.unwrap();
            test(&stack, read_models).await;
            stack.remove().await;
        });
    }
}

fn incarnation() -> Incarnation {
    Incarnation("the log".to_owned())
}

fn batch(entries: &[Entry], up_to: Position) -> Batch {
    Batch {
        incarnation: incarnation(),
        entries: entries.to_vec(),
        up_to,
        fence: Fence::default(),
    }
}

async fn apply_all(read_models: &dyn Projection, history: &History) {
    let all = batch(&history.entries, history.last());
    read_models.apply(&all).await.unwrap();
}

const FIRST: Page = Page {
    start: PageStart::Number(0),
    limit: 10,
};

#[test]
fn nothing_prepared_is_nothing_found() {
    let runtime = Runtime::new().unwrap();
    for stack in Stack::all() {
        runtime.block_on(async {
            let read_models = stack.open().await;
            assert_eq!(read_models.checkpoint().await.unwrap(), None);
            compare(read_models.as_ref(), &[], false).await;
            assert_eq!(read_models.dead_letter_count().await.unwrap(), 0);
            let fence = Fence::default();
            read_models.heartbeat(fence, None).await.unwrap();
            assert_eq!(read_models.checkpoint().await.unwrap(), None);
            stack.remove().await;
        });
    }
}

#[test]
fn many_processes_prepare_at_once() {
    on_every_stack(async |stack, _| {
        let opened = futures::future::join_all((0..6).map(|_| async {
            let read_models = stack.open().await;
            read_models.prepare().await.unwrap();
            read_models
        }));
        let mut history = History::default();
        history.create(0);
        for read_models in opened.await {
            apply_all(read_models.as_ref(), &history).await;
            assert_eq!(read_models.users().await.unwrap().len(), 1);
        }
    });
}

#[test]
fn the_checkpoint_goes_forward_only_and_belongs_to_one_log() {
    on_every_stack(async |stack, read_models| {
        read_models
            .apply(&batch(&[], Position::ZERO))
            .await
            .unwrap();
        let claimed = read_models.checkpoint().await.unwrap().unwrap();
        assert_eq!(claimed.position, Position::ZERO);
        assert_eq!(claimed.incarnation, incarnation());
        assert_eq!(claimed.lag, Duration::ZERO);
        let lag = Duration::from_millis(12_345);
        let fence = Fence::default();
        read_models.heartbeat(fence, Some(lag)).await.unwrap();
        let told = read_models.checkpoint().await.unwrap().unwrap();
        assert!(told.heartbeat > claimed.heartbeat);
        assert_eq!(told.lag, lag);
        // One that does not know the lag leaves it as it was, and so does a batch.
        read_models.heartbeat(fence, None).await.unwrap();
        let beaten = read_models.checkpoint().await.unwrap().unwrap();
        assert!(beaten.heartbeat > told.heartbeat);
        assert_eq!(beaten.lag, lag);

        let mut history = History::default();
        history.create(0);
        let later = batch(&history.entries, Position::new(9));
        read_models.apply(&later).await.unwrap();
        let moved = read_models.checkpoint().await.unwrap().unwrap();
        assert_eq!(moved.position, Position::new(9));
        assert!(moved.heartbeat > beaten.heartbeat);
        assert_eq!(moved.lag, lag);
        for up_to in [0, 5, 9] {
            let earlier = batch(&history.entries, Position::new(up_to));
            read_models.apply(&earlier).await.unwrap();
            assert_eq!(read_models.checkpoint().await.unwrap().unwrap(), moved);
        }

        let foreign = Batch {
            incarnation: Incarnation("another log".to_owned()),
            ..batch(&history.entries, Position::new(20))
        };
        let error = read_models.apply(&foreign).await.unwrap_err();
        assert!(matches!(error, ReadModelError::Unusable(_)), "{error}");
        assert!(error.to_string().contains("another log"), "{error}");

        // Another process sees the same.
        let other = stack.open().await;
        assert_eq!(other.checkpoint().await.unwrap().unwrap(), moved);
        assert_eq!(other.users().await.unwrap().len(), 1);
    });
}

#[test]
fn dead_letters_are_kept_once() {
    on_every_stack(async |_, read_models| {
        for position in [3, 3, 8] {
            let letter = DeadLetter {
                position: Position::new(position),
                subject: "chat.user.x".to_owned(),
                payload: vec![0, 255],
                reason: "not an event envelope".to_owned(),
            };
            read_models.set_aside(&letter).await.unwrap();
        }
        assert_eq!(read_models.dead_letter_count().await.unwrap(), 2);
    });
}

#[test]
fn a_conversation_told_by_hand() {
    on_every_stack(async |_, read_models| {
        // Given Anna and Bela in a room with three messages.
        let mut history = History::default();
        history.create(0);
        history.create(1);
        history.initiate(0, 0);
        let room = room(0, 0);
        let one = history.post(room, 0, "one");
        let two = history.post(room, 0, "two");
        let three = history.post(room, 1, "three");
        apply_all(read_models.as_ref(), &history).await;
        let recent = read_models.recent(user(1), FIRST).await.unwrap();
        assert_eq!(recent[0].message.text, "three");
        assert_eq!(recent[0].unread, 2);

        // When Bela reads up to the first, then all, then all again.
        let first = history.read(room, 1, Some(one));
        let second = history.read(room, 1, None);
        let third = history.read(room, 1, None);
        apply_all(read_models.as_ref(), &history).await;

        // Then each read counts what it made read, and the receipts say who came first.
        assert_eq!(read_models.newly_read(first).await.unwrap(), 1);
        assert_eq!(read_models.newly_read(second).await.unwrap(), 1);
        assert_eq!(read_models.newly_read(third).await.unwrap(), 0);
        let page = messages(read_models.as_ref(), room, FIRST).await;
        let readers = |index: usize| -> Vec<_> {
            let receipts = page[index].read_by.iter();
            receipts.map(|receipt| receipt.reader).collect()
        };
        assert_eq!(
            page.iter().map(|message| message.id).collect::<Vec<_>>(),
            [one, two, three]
        );
        assert_eq!(readers(0), [user(0), user(1)]);
        assert_eq!(readers(1), [user(0), user(1)]);
        assert_eq!(readers(2), [user(1)]);

        // When the newest is deleted twice, and then the room.
        let deleted = history.delete_message(room, three);
        let again = history.delete_message(room, three);
        apply_all(read_models.as_ref(), &history).await;
        assert!(read_models.deleted_by(three, deleted).await.unwrap());
        assert!(!read_models.deleted_by(three, again).await.unwrap());
        let recent = read_models.recent(user(0), FIRST).await.unwrap();
        assert_eq!(recent[0].message.id, two);
        history.delete_room(0, 0);
        history.post(room, 0, "void");
        apply_all(read_models.as_ref(), &history).await;

        // Then two messages went with it, and nothing is left.
        let deletion = read_models.room_deletion(room).await.unwrap().unwrap();
        assert_eq!(deletion.messages, 2);
        assert_eq!(read_models.room(room).await.unwrap(), None);
        assert_eq!(read_models.conversation(room, FIRST).await.unwrap(), None);
        assert_eq!(read_models.recent(user(0), FIRST).await.unwrap(), []);
        compare(read_models.as_ref(), &history.entries, true).await;
    });
}

#[test]
fn what_becomes_of_texts_told_by_hand() {
    on_every_stack(async |_, read_models| {
        // Given Anna, Bela and a room in which they have written in turn.
        let mut history = History::default();
        history.create(0);
        history.create(1);
        history.initiate(0, 0);
        let room = room(0, 0);
        let one = history.post(room, 0, "uno");
        let two = history.post(room, 1, "dos");
        let three = history.post(room, 0, "tres");
        let four = history.post(room, 1, "cuatro");
        let page = async || -> Vec<(String, Left, bool)> {
            let rows = messages(read_models.as_ref(), room, FIRST).await;
            rows.into_iter()
                .map(|row| (row.text, row.left, row.edited_at.is_some()))
                .collect()
        };
        let said = |text: &str, edited| (text.to_owned(), Left::Text, edited);
        let gone = |left, edited| (String::new(), left, edited);
        let finds = async |word: &str| -> usize {
            let found = read_models.search(user(0), search_for(word, 10)).await;
            found.unwrap().len()
        };

        // When three is edited twice, and once by somebody else.
        history.edit(room, three, 0, "drei");
        history.edit(room, three, 0, "three");
        history.edit(room, three, 1, "not by her");
        apply_all(read_models.as_ref(), &history).await;

        // Then the newest text is shown and found, and the history has all three.
        let unedited = [said("uno", false), said("dos", false)];
        let newest = [said("three", true), said("cuatro", false)];
        assert_eq!(page().await, [unedited, newest].concat());
        assert_eq!((finds("tres").await, finds("drei").await), (0, 0));
        assert_eq!((finds("three").await, finds("her").await), (1, 0));
        let found = read_models.history(room, three).await.unwrap().unwrap();
        let texts = found.versions.iter().map(|version| version.text.as_deref());
        let texts: Vec<_> = texts.collect();
        assert_eq!(texts, [Some("tres"), Some("drei"), Some("three")]);
        assert_eq!((found.author, found.gone), (user(0), None));
        let elsewhere = history::room(1, 0);
        assert_eq!(read_models.history(elsewhere, three).await.unwrap(), None);

        // When four is deleted and what comes before two has expired, and both are edited then.
        history.delete_message(room, four);
        history.edit(room, four, 1, "void");
        history.expire(room, two);
        history.edit(room, two, 1, "void");
        apply_all(read_models.as_ref(), &history).await;

        // Then they keep their places without their texts, and the list goes by the newest that is left.
        let expired = [gone(Left::Expired, false), gone(Left::Expired, false)];
        let rest = [said("three", true), gone(Left::Deleted, false)];
        assert_eq!(page().await, [expired.clone(), rest].concat());
        assert_eq!((finds("uno").await, finds("void").await), (0, 0));
        let recent = read_models.recent(user(1), FIRST).await.unwrap();
        assert_eq!((recent[0].message.id, recent[0].unread), (three, 2));
        let found = read_models.history(room, four).await.unwrap().unwrap();
        assert_eq!(found.gone.unwrap().by, Some(user(0)));
        assert_eq!(found.versions[0].text, None);

        // When Anna is erased, and what she wrote meanwhile comes after it.
        history.erase(0);
        history.post(room, 0, "too late");
        history.edit(room, three, 0, "too late as well");
        apply_all(read_models.as_ref(), &history).await;

        // Then nothing of hers is left, and nothing of others' has gone.
        let erased = [gone(Left::Erased, true), gone(Left::Deleted, false)];
        let late = vec![gone(Left::Erased, false)];
        assert_eq!(
            page().await,
            [expired.to_vec(), erased.to_vec(), late].concat()
        );
        assert_eq!((finds("three").await, finds("late").await), (0, 0));
        let found = read_models.history(room, three).await.unwrap().unwrap();
        assert!(found.versions.iter().all(|version| version.text.is_none()));
        assert_eq!(found.versions.len(), 4);
        assert_eq!(found.gone.unwrap().by, Some(user(0)));
        let anna = read_models.users_by_id(&[user(0)]).await.unwrap();
        assert!(anna[0].deleted && anna[0].first_name.is_empty());
        assert_eq!(one, messages(read_models.as_ref(), room, FIRST).await[0].id);
        compare(read_models.as_ref(), &history.entries, true).await;
    });
}

#[test]
fn dead_letters_about_somebody_who_is_erased_lose_what_they_say() {
    on_every_stack(async |_, read_models| {
        let letter = |position: u64, subject: String, payload: String| DeadLetter {
            position: Position::new(position),
            subject,
            payload: payload.into_bytes(),
            reason: "because of Anna".to_owned(),
        };
        let about = |number: u8| format!("{{\"author\":\"{}\"}}", user(number));
        let letters = |first: u64| {
            [
                letter(first, format!("chat.user.{}", user(0)), "{".to_owned()),
                letter(first + 1, "chat.room.x".to_owned(), about(0)),
                letter(first + 2, "chat.room.x".to_owned(), about(1)),
            ]
        };
        // Given dead letters about Anna and Bela, and more of them after Anna was erased.
        let mut history = History::default();
        history.create(0);
        for letter in letters(10) {
            read_models.set_aside(&letter).await.unwrap();
        }
        history.erase(0);
        apply_all(read_models.as_ref(), &history).await;
        for letter in letters(20) {
            read_models.set_aside(&letter).await.unwrap();
        }

        // Then hers say only where they stand, and Bela's all.
        let kept = read_models.dead_letters(Position::ZERO, 10).await.unwrap();
        assert_eq!(kept.len(), 6);
        for (kept, before) in kept.iter().zip([letters(10), letters(20)].concat()) {
            let is_hers = before.position.get() % 10 < 2;
            assert_eq!(
                (kept.position, &kept.subject),
                (before.position, &before.subject)
            );
            assert_eq!(kept.payload.is_empty(), is_hers, "{kept:?}");
            assert_eq!(kept.reason != before.reason, is_hers, "{kept:?}");
        }
    });
}

#[test]
fn somebody_with_a_hundred_thousand_messages_is_erased() {
    on_every_stack(async |_, read_models| {
        let mut history = History::default();
        history.initiate(0, 0);
        history.initiate(1, 0);
        for number in 0..100_000_u32 {
            history.post(room(number as usize % 2, 0), 0, "mine");
        }
        history.post(room(0, 0), 1, "mine not");
        apply_all(read_models.as_ref(), &history).await;
        let found = read_models.search(user(0), search_for("mine", 10)).await;
        assert_eq!(found.unwrap().len(), 10);

        history.erase(0);
        apply_all(read_models.as_ref(), &history).await;
        read_models.purge().await.unwrap();

        let found = read_models.search(user(0), search_for("mine", 10)).await;
        assert_eq!(found.unwrap().len(), 1);
        let mut snapshot = read_models.snapshot().await.unwrap();
        let (mut after, mut texts, mut messages) = (None, 0, 0);
        loop {
            let page = snapshot.messages(after, 10_000).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            messages += page.len();
            texts += page.iter().filter(|message| message.text.is_some()).count();
        }
        assert_eq!((messages, texts), (100_001, 1));
    });
}

/// A search in all rooms.
fn search_for(query: &str, limit: u32) -> Search {
    Search {
        words: Words::of(query),
        room: None,
        before: None,
        limit,
    }
}

#[test]
fn a_search_told_by_hand() {
    on_every_stack(async |_, read_models| {
        // Given Anna in a room with Bela and in one with Cleo.
        let mut history = History::default();
        history.initiate(0, 0);
        history.initiate(1, 0);
        history.initiate(2, 0);
        let [bela, cleo, others] = [room(0, 0), room(1, 0), room(2, 0)];
        let one = history.post(bela, 0, "Grüße aus Köln, Bela!");
        let two = history.post(cleo, 2, "KOLN? grusse \u{0} back");
        history.post(others, 1, "Köln, Grüße");
        let three = history.post(bela, 1, "köln \"NEAR(grüße koln)\" -bela OR NOT words:x *");
        history.read(bela, 0, None);
        apply_all(read_models.as_ref(), &history).await;
        let found = async |who: u8, search: Search| -> Vec<MessageId> {
            let rows = read_models.search(user(who), search).await.unwrap();
            rows.iter().map(|row| row.id).collect()
        };

        // Then she finds what is said in these, newest first, and nobody else does.
        assert_eq!(found(0, search_for("koln", 10)).await, [three, two, one]);
        assert_eq!(found(0, search_for("grüsse KÖLN", 2)).await, [three, two]);
        assert_eq!(found(0, search_for("köln bela", 10)).await, [three, one]);
        assert_eq!(found(0, search_for("köl", 10)).await, []);
        assert_eq!(found(0, search_for("köln OR nothing", 10)).await, []);
        assert_eq!(found(0, search_for("\" ( * -", 10)).await, []);
        assert_eq!(found(1, search_for("back", 10)).await, []);
        let older = Search {
            before: Some(three),
            ..search_for("koln", 1)
        };
        assert_eq!(found(0, older).await, [two]);
        for (who, expected) in [(0, vec![three, one]), (2, vec![])] {
            let in_room = Search {
                room: Some(bela),
                ..search_for("koln", 10)
            };
            assert_eq!(found(who, in_room).await, expected);
        }
        let rows = read_models.search(user(0), search_for("near", 10)).await;
        assert_eq!(rows.unwrap()[0].read_by.len(), 2);

        // When one is deleted, and a room.
        history.delete_message(bela, three);
        history.delete_room(1, 0);
        apply_all(read_models.as_ref(), &history).await;

        // Then neither is found, also when the room is there again.
        assert_eq!(found(0, search_for("koln", 10)).await, [one]);
        history.initiate(1, 1);
        let again = history.post(room(1, 1), 2, "koln");
        apply_all(read_models.as_ref(), &history).await;
        assert_eq!(found(0, search_for("koln", 10)).await, [again, one]);
        compare(read_models.as_ref(), &history.entries, true).await;
    });
}

#[test]
fn a_search_goes_through_hundreds_of_rooms_in_the_order_of_messages() {
    on_every_stack(async |stack, read_models| {
        // Given more rooms than one query looks into, with messages in turn, and rooms of others.
        let mut history = History::default();
        let rooms = history.many_rooms(0, 450);
        let foreign = history.many_rooms(1, 20);
        let mut posted = Vec::new();
        for round in 0..3 {
            for (number, room) in rooms.iter().enumerate() {
                let rare = if number % 90 == 7 { "rare" } else { "" };
                let message = history.post(*room, 0, &format!("common {rare} {round}"));
                posted.push((message, rare));
            }
            for room in &foreign {
                history.post(*room, 1, "common rare");
            }
        }
        apply_all(read_models.as_ref(), &history).await;

        let server = match stack {
            Stack::Sqlite(_) => None,
            Stack::Mongo(database) => Some(database.connect().await.unwrap()),
        };
        if let Some(server) = &server {
            server.run_command(doc! { "profile": 2 }).await.unwrap();
        }

        // When Anna reads page by page, then she gets each message once.
        for (query, expected) in [("common", 1_350), ("rare", 15), ("rare common", 15)] {
            let mut found = Vec::new();
            let mut search = search_for(query, 100);
            loop {
                let rows = read_models.search(user(0), search.clone()).await.unwrap();
                let Some(last) = rows.last() else { break };
                search.before = Some(last.id);
                found.extend(rows.iter().map(|row| row.id));
            }
            let all = posted.iter().rev();
            let all = all.filter(|(_, rare)| query == "common" || *rare == "rare");
            let all: Vec<MessageId> = all.map(|(message, _)| *message).collect();
            assert_eq!(found, all, "{query}");
            assert_eq!(found.len(), expected, "{query}");
        }
        // And no database has sorted what it found, as far back as the profile reaches.
        if let Some(server) = server {
            let profile = server.collection::<Document>("system.profile");
            let count = async |filter| profile.count_documents(filter).await.unwrap();
            assert_eq!(count(doc! { "hasSortStage": true }).await, 0);
            let by_word = doc! { "planSummary": { "$regex": "words: 1" } };
            assert!(count(by_word).await > 0);
        }
    });
}

#[test]
fn counts_stop_at_the_cap() {
    on_every_stack(async |_, read_models| {
        let mut history = History::default();
        history.initiate(0, 0);
        let room = room(0, 0);
        for number in 0..COUNT_CAP + 50 {
            history.post(room, 0, &number.to_string());
            history.post(room, 1, "mine");
        }
        apply_all(read_models.as_ref(), &history).await;
        let recent = read_models.recent(user(1), FIRST).await.unwrap();
        assert_eq!(recent[0].unread, COUNT_CAP);
        let read = history.read(room, 1, None);
        apply_all(read_models.as_ref(), &history).await;
        assert_eq!(read_models.newly_read(read).await.unwrap(), COUNT_CAP);
        let recent = read_models.recent(user(1), FIRST).await.unwrap();
        assert_eq!(recent[0].unread, 0);
    });
}

#[test]
fn limits_and_pages_out_of_range_are_harmless() {
    on_every_stack(async |_, read_models| {
        let mut history = History::default();
        history.initiate(0, 0);
        let room = room(0, 0);
        for number in 0..120 {
            history.post(room, 0, &number.to_string());
        }
        apply_all(read_models.as_ref(), &history).await;
        for (number, limit, expected) in [
            (0, 0, 1),
            (0, 100, 100),
            (0, u32::MAX, 100),
            (1, 100, 20),
            (u64::MAX, 100, 0),
            (u64::MAX / 100, 100, 0),
            (1 << 53, 1, 0),
        ] {
            let page = Page {
                start: PageStart::Number(number),
                limit,
            };
            let found = messages(read_models.as_ref(), room, page).await;
            assert_eq!(found.len(), expected, "{page:?}");
            let found = read_models.recent(user(0), page).await.unwrap();
            assert_eq!(found.len(), usize::from(number == 0), "{page:?}");
        }
    });
}

/// A part of what was said in a room that there is.
async fn messages(read_models: &dyn ReadModels, room: RoomId, page: Page) -> Vec<MessageRow> {
    let found = read_models.conversation(room, page).await.unwrap();
    found.unwrap().messages
}

/// Where the log is cut into batches, and what is applied besides.
#[derive(Debug, Clone)]
struct Delivery {
    batches: Vec<Part>,
}

#[derive(Debug, Clone)]
struct Part {
    /// Events that no batch has had before.
    fresh: usize,
    /// Events before them that it repeats.
    repeated: usize,
    /// Whether the batch is applied twice.
    twice: bool,
    /// Before that, an attempt that reaches this many events further (or less far) is cut off at this
    /// phase.
    cut_off: Option<(isize, usize)>,
}

fn delivery() -> impl Strategy<Value = Delivery> {
    let part = (
        prop_oneof![3 => 1..4_usize, 2 => 4..30_usize],
        prop_oneof![2 => Just(0), 1 => 1..12_usize],
        prop::bool::weighted(0.2),
        prop::option::weighted(0.6, (-3..8_isize, 0..8_usize)),
    )
        .prop_map(|(fresh, repeated, twice, cut_off)| Part {
            fresh,
            repeated,
            twice,
            cut_off,
        });
    prop::collection::vec(part, 1..12).prop_map(|batches| Delivery { batches })
}

/// The batch of the events from `start` to `end`, which covers everything up to the event after it.
fn part(history: &History, start: usize, end: usize) -> Batch {
    let up_to = match history.entries.get(end) {
        Some(next) => Position::new(next.position.get() - 1),
        None => history.last(),
    };
    batch(&history.entries[start..end], up_to)
}

async fn deliver(
    read_models: &dyn Projection,
    history: &History,
    delivery: &Delivery,
    cut_off: impl AsyncFn(&Batch, usize),
) {
    let total = history.entries.len();
    let mut done = 0;
    for index in 0.. {
        let planned = &delivery.batches[index % delivery.batches.len()];
        let start = done - planned.repeated.min(done);
        let end = (done + planned.fresh).min(total);
        if let Some((further, phase)) = planned.cut_off {
            let end = end.saturating_add_signed(further).clamp(done, total);
            cut_off(&part(history, done, end), phase).await;
        }
        let batch = part(history, start, end);
        for _ in 0..=usize::from(planned.twice) {
            read_models.apply(&batch).await.unwrap();
        }
        done = end;
        if done == total {
            break;
        }
    }
}

#[test]
fn any_history_reads_as_in_the_model_on_sqlite() {
    let runtime = Runtime::new().unwrap();
    let mut runner = TestRunner::new(Config::with_cases(64));
    runner
        .run(
            &(history::history(90), delivery()),
            |(history, delivery)| {
                runtime.block_on(async {
                    let stack = Stack::Sqlite(tempfile::tempdir().unwrap());
                    let read_models = stack.open().await;
                    let nothing = async |_: &Batch, _: usize| {};
                    deliver(read_models.as_ref(), &history, &delivery, nothing).await;
                    compare(read_models.as_ref(), &history.entries, true).await;
                });
                Ok(())
            },
        )
        .unwrap();
}

/// MongoDB read models whose writes are cut off after `phases` phases.
async fn cut_off_after(url: &str, phases: usize) -> MongoReadModels {
    let passed = AtomicUsize::new(0);
    let read_models = MongoReadModels::open(url).await.unwrap();
    read_models.interrupted_by(move |phase| {
        let cut = passed.fetch_add(1, Ordering::SeqCst) == phases;
        Box::pin(async move {
            match cut {
                true => Err(ReadModelError::Unavailable(format!("cut off: {phase:?}"))),
                false => Ok(()),
            }
        })
    })
}

#[test]
fn any_history_reads_as_in_the_model_on_mongodb_even_when_writes_are_cut_off() {
    let Some(probe) = TestDatabase::new() else {
        return;
    };
    drop(probe);
    let runtime = Runtime::new().unwrap();
    let mut runner = TestRunner::new(Config::with_cases(16));
    runner
        .run(
            &(history::history(90), delivery()),
            |(history, delivery)| {
                runtime.block_on(async {
                    let database = TestDatabase::new().unwrap();
                    let read_models = MongoReadModels::open(&database.url).await.unwrap();
                    read_models.prepare().await.unwrap();
                    let url = &database.url;
                    let cut_off = async |batch: &Batch, phase: usize| {
                        let failing = cut_off_after(url, phase).await;
                        // It may also have nothing to write and so not come to that phase.
                        let _ = failing.apply(batch).await;
                    };
                    deliver(&read_models, &history, &delivery, cut_off).await;
                    compare(&read_models, &history.entries, false).await;
                    database.drop_database().await.unwrap();
                });
                Ok(())
            },
        )
        .unwrap();
}

/// Everything that deletes, in one batch after the other.
fn eventful() -> History {
    let mut history = History::default();
    for number in 0..4 {
        history.create(number);
    }
    for set in 0..4 {
        history.initiate(set, 0);
    }
    let [one, two] = [room(0, 0), room(1, 0)];
    let first = history.post(one, 0, "first");
    let second = history.post(one, 1, "second");
    let third = history.post(two, 2, "third");
    history.read(one, 1, Some(first));
    history.read(two, 0, None);
    history.push(0, Some(1), Some(1), history::posted(one, 1, "keyed"));
    history.push(0, Some(1), Some(1), history::posted(one, 1, "keyed"));
    history.edit(one, first, 0, "first, edited");
    history.edit(two, third, 2, "third, edited");
    history.delete_message(one, second);
    history.push(0, None, None, history::user_deleted(3));
    history.edit(one, second, 1, "void");
    history.edit(one, first, 0, "first, edited again");
    history.delete_room(1, 0);
    history.post(two, 2, "void");
    history.initiate(1, 1);
    history.post(room(1, 1), 2, "fourth");
    history.read(one, 0, None);
    history.read(one, 1, None);
    let fifth = history.post(one, 1, "fifth");
    history.expire(one, first);
    history.edit(one, first, 0, "void");
    history.edit(one, fifth, 1, "fifth, edited");
    history.read(one, 0, None);
    history.delete_message(one, second);
    history.erase(1);
    history.edit(one, fifth, 1, "never stored");
    history.post(one, 1, "never stored either");
    history
}

#[test]
fn a_write_cut_off_at_any_phase_is_completed_by_the_next() {
    let Some(probe) = TestDatabase::new() else {
        return;
    };
    drop(probe);
    Runtime::new().unwrap().block_on(async {
        let history = eventful();
        for phase in 0..8 {
            let database = TestDatabase::new().unwrap();
            let read_models = MongoReadModels::open(&database.url).await.unwrap();
            read_models.prepare().await.unwrap();
            let all = batch(&history.entries, history.last());
            let failing = cut_off_after(&database.url, phase).await;
            let error = failing.apply(&all).await.unwrap_err();
            assert!(matches!(error, ReadModelError::Unavailable(_)), "{error}");
            let checkpoint = read_models.checkpoint().await.unwrap().unwrap();
            assert_eq!(checkpoint.position, Position::ZERO, "phase {phase}");
            // As if the phase's own writes had not all come through: the first is missing.
            let written: &[&str] = match phase {
                1 => &["g1_users", "g1_rooms", "g1_keys"],
                2 => &["g1_messages"],
                3 => &["g1_edits"],
                4 => &["g1_marks"],
                _ => &[],
            };
            let server = database.connect().await.unwrap();
            for collection in written {
                let first = server
                    .collection::<Document>(collection)
                    .find_one_and_delete(doc! {})
                    .sort(doc! { "_id": 1 })
                    .await
                    .unwrap();
                assert!(first.is_some(), "{collection}");
            }
            // One event at a time from the beginning, then all again.
            for end in 1..=history.entries.len() {
                read_models
                    .apply(&part(&history, end - 1, end))
                    .await
                    .unwrap();
            }
            read_models.apply(&all).await.unwrap();
            compare(&read_models, &history.entries, false).await;
            database.drop_database().await.unwrap();
        }
    });
}

#[test]
fn a_projector_that_was_overtaken_changes_nothing() {
    let Some(probe) = TestDatabase::new() else {
        return;
    };
    drop(probe);
    Runtime::new().unwrap().block_on(async {
        let history = eventful();
        for phase in 0..8 {
            let database = TestDatabase::new().unwrap();
            let leader = MongoReadModels::open(&database.url).await.unwrap();
            leader.prepare().await.unwrap();
            // Given a projector that stands still at this phase of its batch.
            let (reached, has_reached) = tokio::sync::oneshot::channel();
            let resume = Arc::new(tokio::sync::Notify::new());
            let reached = std::sync::Mutex::new(Some(reached));
            let passed = AtomicUsize::new(0);
            let waiting = Arc::clone(&resume);
            let overtaken = MongoReadModels::open(&database.url).await.unwrap();
            let overtaken = overtaken.interrupted_by(move |_| {
                let here = passed.fetch_add(1, Ordering::SeqCst) == phase;
                let reached = here.then(|| reached.lock().unwrap().take().unwrap());
                let waiting = Arc::clone(&waiting);
                Box::pin(async move {
                    if let Some(reached) = reached {
                        reached.send(()).unwrap();
                        waiting.notified().await;
                    }
                    Ok(())
                })
            });
            // Its batch ends before the deletions.
            let half = part(&history, 0, 17);
            let stale = tokio::spawn(async move { overtaken.apply(&half).await });
            tokio::time::timeout(Duration::from_secs(30), has_reached)
                .await
                .unwrap()
                .unwrap();
            // When another writes everything in the meantime.
            for (start, end) in [(0, 11), (11, 20), (20, history.entries.len())] {
                leader.apply(&part(&history, start, end)).await.unwrap();
            }
            resume.notify_one();
            stale.await.unwrap().unwrap();
            // Then all is as if there had been one.
            let checkpoint = leader.checkpoint().await.unwrap().unwrap();
            assert_eq!(checkpoint.position, history.last());
            compare(&leader, &history.entries, false).await;
            // Not even out of sight is anything left of the deleted room.
            let messages = database.connect().await.unwrap();
            let messages = messages.collection::<Document>("g1_messages");
            let of_room = doc! { "room": room(1, 0).to_string() };
            assert_eq!(
                messages.count_documents(of_room).await.unwrap(),
                0,
                "phase {phase}"
            );
            database.drop_database().await.unwrap();
        }
    });
}

#[test]
fn two_projectors_at_once_write_the_same_as_one() {
    on_every_stack(async |stack, first| {
        let history = eventful();
        let second = stack.open().await;
        let run = async |read_models: Arc<dyn Projection>, step: usize| {
            let total = history.entries.len();
            for start in (0..total).step_by(step) {
                let batch = part(&history, start, (start + step).min(total));
                read_models.apply(&batch).await.unwrap();
            }
        };
        futures::join!(run(Arc::clone(&first), 2), run(second, 5));
        compare(first.as_ref(), &history.entries, false).await;
    });
}

#[test]
fn mongodb_refuses_what_it_can_not_store_and_says_so() {
    let Some(database) = TestDatabase::new() else {
        return;
    };
    Runtime::new().unwrap().block_on(async {
        let read_models = MongoReadModels::open(&database.url).await.unwrap();
        read_models.prepare().await.unwrap();
        let mut history = History::default();
        history.initiate(0, 0);
        history.post(room(0, 0), 0, &"x".repeat(17 << 20));
        let all = batch(&history.entries, history.last());
        let error = read_models.apply(&all).await.unwrap_err();
        assert!(matches!(error, ReadModelError::Refused(_)), "{error}");
        // Without it the projection goes on.
        let rest = batch(&history.entries[..1], history.last());
        read_models.apply(&rest).await.unwrap();
        let checkpoint = read_models.checkpoint().await.unwrap().unwrap();
        assert_eq!(checkpoint.position, history.last());
        database.drop_database().await.unwrap();
    });
}

#[test]
fn a_server_that_is_not_there_is_unavailable_and_opening_does_not_mind() {
    Runtime::new().unwrap().block_on(async {
        // A port that nothing listens on, because it is taken and closed again.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let url = format!("mongodb://127.0.0.1:{port}/hansard?serverSelectionTimeoutMS=200");
        let read_models = MongoReadModels::open(&url).await.unwrap();
        let error = read_models.checkpoint().await.unwrap_err();
        assert!(matches!(error, ReadModelError::Unavailable(_)), "{error}");
    });
}

#[test]
fn sqlite_files_that_are_not_read_models_are_left_alone() {
    Runtime::new().unwrap().block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let text = directory.path().join("text");
        std::fs::write(&text, "this is not a database, and long enough to tell").unwrap();
        let foreign = directory.path().join("foreign.db");
        let connection = rusqlite::Connection::open(&foreign).unwrap();
        connection.execute_batch("CREATE TABLE t (x)").unwrap();
        let newer = directory.path().join("newer.db");
        let connection = rusqlite::Connection::open(&newer).unwrap();
        connection
            .execute_batch("PRAGMA user_version = 99")
            .unwrap();
        let missing = directory.path().join("missing/read.db");
        for (path, reason) in [
            (&text, "not a database"),
            (&foreign, "another program's tables"),
            (&newer, "schema version 99"),
            (&missing, "unable to open"),
        ] {
            let Err(error) = SqliteReadModels::open(path).await else {
                panic!("{} was opened", path.display());
            };
            assert!(matches!(error, ReadModelError::Unusable(_)), "{error}");
            assert!(error.to_string().contains(reason), "{error}");
        }
    });
}

/// A history large enough that a plan that is not by index would show.
fn large() -> History {
    let mut history = History::default();
    for number in 0..4 {
        history.create(number);
    }
    for set in 0..4 {
        history.initiate(set, 0);
    }
    history.post(room(0, 0), 1, "text of a room of two");
    let room = room(2, 0);
    let mut messages = Vec::new();
    for number in 0..3_000_u32 {
        // Mostly by one of them.
        let author = if number % 50 == 0 { 2 } else { 1 };
        messages.push(history.post(room, author, &format!("text {}", number % 100)));
        if number % 40 == 0 {
            history.read(room, 3, None);
        }
    }
    for message in messages.iter().skip(1).step_by(2) {
        history.delete_message(room, *message);
    }
    history.read(room, 1, Some(messages[2]));
    history
}

#[test]
fn sqlite_answers_from_indexes_without_sorting() {
    Runtime::new().unwrap().block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("read.db");
        let read_models = SqliteReadModels::open(&path).await.unwrap();
        let plans = read_models.query_plans().await.unwrap();
        assert!(plans.len() > 15);
        let counting = "COVERING INDEX messages_live_by_author (room=? AND author=? AND id>?";
        let mut steps = plans.iter().flat_map(|(_, steps)| steps);
        assert!(steps.any(|step| step.contains(counting)), "{plans:#?}");
        for (statement, steps) in plans {
            for step in steps {
                // What FTS5 makes of MATCH in the order of row ids is an index's look-up, whatever it says.
                let words = step.starts_with("SCAN message_words VIRTUAL TABLE INDEX");
                let harmless =
                    step == "SCAN (subquery-1)" || step.starts_with("CO-ROUTINE") || words;
                assert!(
                    harmless || !step.contains("SCAN") && !step.contains("TEMP B-TREE"),
                    "{statement}: {step}"
                );
            }
        }
    });
}

#[test]
fn mongodb_answers_from_indexes_without_sorting_and_reads_little_more_than_it_returns() {
    let Some(database) = TestDatabase::new() else {
        return;
    };
    Runtime::new().unwrap().block_on(async {
        let read_models = MongoReadModels::open(&database.url).await.unwrap();
        read_models.prepare().await.unwrap();
        let history = large();
        apply_all(&read_models, &history).await;

        // Given a profile of everything that the server does.
        let server = database.connect().await.unwrap();
        server.run_command(doc! { "profile": 2 }).await.unwrap();
        let id = |sequence| MessageId::at(Position::new(sequence));
        let starts = [
            PageStart::Number(0),
            PageStart::Before(id(1_000)),
            PageStart::After(id(1_000)),
        ];
        for start in starts {
            let page = Page { start, limit: 10 };
            for number in 0..4 {
                read_models.recent(user(number), page).await.unwrap();
            }
            let found = messages(&read_models, room(2, 0), page).await;
            assert_eq!(found.len(), 10);
        }
        for query in ["text", "text 8", "absent text"] {
            let search = search_for(query, 10);
            let found = read_models.search(user(1), search.clone()).await.unwrap();
            assert_eq!(found.is_empty(), query.contains("absent"), "{query}");
            let room = Some(room(2, 0));
            let in_room = Search { room, ..search };
            assert_eq!(read_models.search(user(1), in_room).await.unwrap(), found);
        }
        read_models.users().await.unwrap();
        read_models.users_by_id(&[user(0), user(1)]).await.unwrap();
        read_models.room(room(0, 0)).await.unwrap();
        read_models.newly_read(history.last()).await.unwrap();
        read_models
            .deleted_by(id(10), Position::new(9))
            .await
            .unwrap();
        read_models.room_deletion(room(0, 0)).await.unwrap();
        read_models.history(room(2, 0), id(1_000)).await.unwrap();
        let nothing = Timestamp::from_millis(0).unwrap();
        let room_type = RoomType::ConsumerToConsumer;
        read_models
            .expirable(room_type, nothing, None, 10)
            .await
            .unwrap();
        read_models.oldest_unexpired(room(2, 0)).await.unwrap();
        read_models
            .position_of_key(uuid::Uuid::nil())
            .await
            .unwrap();
        read_models.checkpoint().await.unwrap();
        // A small batch writes as little.
        let mut history = history;
        history.post(room(2, 0), 1, "text");
        history.read(room(2, 0), 2, None);
        history.edit(room(2, 0), id(1_010), 1, "text");
        history.expire(room(2, 0), id(20));
        history.delete_message(room(2, 0), id(1_000));
        apply_all(&read_models, &history).await;
        server.run_command(doc! { "profile": 0 }).await.unwrap();

        // Then nothing was scanned or sorted, and of a single other member keys were counted, not read.
        let profile = server.collection::<Document>("system.profile");
        let mut operations = profile.find(doc! {}).await.unwrap();
        let (mut seen, mut counted) = (0, false);
        while operations.advance().await.unwrap() {
            let operation = operations.deserialize_current().unwrap();
            let plan = operation.get_str("planSummary").unwrap_or("");
            assert!(!plan.contains("COLLSCAN"), "{operation}");
            counted |= plan.starts_with("COUNT_SCAN { room: 1, deleted: 1, author: 1");
            assert!(
                !operation.get_bool("hasSortStage").unwrap_or(false),
                "{operation}"
            );
            let examined = |name| {
                let count = operation.get_i32(name).map(i64::from);
                count.or(operation.get_i64(name)).unwrap_or(0)
            };
            // The cap on counts bounds keys; a page and its receipts bound documents.
            assert!(examined("docsExamined") <= 60, "{operation}");
            assert!(examined("keysExamined") <= 1_100, "{operation}");
            // Of marks, of which one of the members has more, only those that are wanted are walked over.
            if operation.get_str("ns").unwrap().ends_with("_marks") {
                assert!(examined("keysExamined") <= 60, "{operation}");
            }
            seen += 1;
        }
        assert!(seen > 60, "{seen}");
        assert!(counted, "no COUNT_SCAN");
        database.drop_database().await.unwrap();
    });
}
