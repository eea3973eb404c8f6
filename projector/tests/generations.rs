//! Generations of the read models, and the projectors that lead them: on both adapters.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use event_log::{EventLog, Position};
use projector::{Options, Status, verify_generation};
use read_models::testing::TestDatabase;
use read_models::{
    Batch, Catalogue, Generation, Live, MongoCatalogue, Page, PageStart, Projection,
    ReadModelError, ReadModels, SqliteCatalogue, State,
};
use tempfile::{TempDir, tempdir};
use tokio_util::sync::CancellationToken;

use support::running::Running;
use support::*;

/// How long these projectors keep what nobody uses.
const GRACE: Duration = Duration::from_secs(2);

/// Where generations are stored, made anew for each use.
enum Store {
    Sqlite(TempDir),
    Mongo(TestDatabase),
}

impl Store {
    fn all() -> Vec<Self> {
        let mongo = TestDatabase::new().map(Self::Mongo);
        std::iter::once(Self::Sqlite(tempdir().unwrap()))
            .chain(mongo)
            .collect()
    }

    /// As a program with this schema has it.
    async fn of_schema(&self, schema: u32) -> Arc<dyn Catalogue> {
        match self {
            Self::Sqlite(directory) => {
                let path = directory.path().join("read.db");
                let catalogue = SqliteCatalogue::open(&path).await.unwrap();
                Arc::new(catalogue.with_schema(schema))
            }
            Self::Mongo(database) => {
                let catalogue = MongoCatalogue::open(&database.url).await.unwrap();
                Arc::new(catalogue.with_schema(schema))
            }
        }
    }

    async fn catalogue(&self) -> Arc<dyn Catalogue> {
        self.of_schema(1).await
    }

    async fn remove(self) {
        if let Self::Mongo(database) = self {
            database.drop_database().await.unwrap();
        }
    }
}

fn start(log: &Arc<Log>, catalogue: Arc<dyn Catalogue>, name: &str) -> Running {
    start_for(None, log, catalogue, name)
}

/// As `hansard rebuild` does, for this generation alone.
fn start_for(
    only: Option<u32>,
    log: &Arc<Log>,
    catalogue: Arc<dyn Catalogue>,
    name: &str,
) -> Running {
    Running::start(Options {
        record: log.record(),
        catalogue,
        name: name.to_owned(),
        only,
        progress: None,
        status: Status::default(),
        drain: Duration::ZERO,
        retention: None,
        grace: GRACE,
    })
}

async fn reached(read_models: &dyn ReadModels, position: u64) {
    eventually("the projection reaches its position", || async {
        let checkpoint = read_models.checkpoint().await.ok().flatten();
        checkpoint.is_some_and(|it| it.position.get() >= position)
    })
    .await;
}

async fn texts(read_models: &dyn ReadModels) -> Vec<String> {
    let page = Page {
        start: PageStart::Number(0),
        limit: 100,
    };
    let found = read_models.conversation(room(), page).await.unwrap();
    let rows = found.unwrap().messages;
    rows.into_iter().map(|row| row.text).collect()
}

async fn state_of(catalogue: &dyn Catalogue, number: u32) -> Option<State> {
    let generations = catalogue.generations().await.unwrap();
    generations.get(number).map(|it| it.state)
}

async fn becomes(catalogue: &dyn Catalogue, number: u32, state: State) -> Generation {
    eventually(&format!("generation {number} is {state}"), || async {
        state_of(catalogue, number).await == Some(state)
    })
    .await;
    let generations = catalogue.generations().await.unwrap();
    generations.get(number).unwrap().clone()
}

/// A log with a room in it.
async fn setting() -> (TempDir, Arc<Log>) {
    let directory = tempdir().unwrap();
    let log = Log::open(&directory).await;
    log.a_room().await;
    (directory, log)
}

#[tokio::test]
async fn a_catalogue_lists_changes_and_forgets_generations() {
    for store in Store::all() {
        let catalogue = store.catalogue().await;
        catalogue.prepare().await.unwrap();
        assert_eq!(catalogue.generations().await.unwrap().all, []);

        // Many at once: one of them adds it.
        let adding = (0..8).map(|_| async {
            let another = store.catalogue().await;
            another.prepare().await.unwrap();
            another.add(0, State::Live).await.unwrap()
        });
        let added = futures::future::join_all(adding).await;
        assert_eq!(added.iter().flatten().count(), 1);
        assert_eq!(catalogue.add(0, State::Live).await.unwrap(), None);
        let second = catalogue.add(1, State::Building).await.unwrap().unwrap();
        assert_eq!((second.number, second.state), (2, State::Building));

        let (from, to) = (State::Building, State::Rejected);
        assert!(catalogue.change(2, from, to, Some("why")).await.unwrap());
        assert!(!catalogue.change(2, from, to, None).await.unwrap());
        let generations = catalogue.generations().await.unwrap();
        assert_eq!(generations.get(2).unwrap().note.as_deref(), Some("why"));
        assert_eq!(generations.live(1).unwrap().number, 1);
        assert_eq!(generations.live(2), None);

        // What is removed leaves nothing, and its number is not used again.
        let projection = catalogue.open(2).await.unwrap();
        projection.prepare().await.unwrap();
        catalogue.remove(2).await.unwrap();
        catalogue.remove(2).await.unwrap();
        assert_eq!(state_of(catalogue.as_ref(), 2).await, None);
        let third = catalogue.add(2, State::Building).await.unwrap().unwrap();
        assert_eq!(third.number, 3);
        match &store {
            Store::Sqlite(directory) => {
                assert!(!directory.path().join("read.g2.db").exists());
            }
            Store::Mongo(database) => {
                let database = database.connect().await.unwrap();
                let names = database.list_collection_names().await.unwrap();
                assert!(!names.iter().any(|it| it.starts_with("g2_")), "{names:?}");
            }
        }
        store.remove().await;
    }
}

#[tokio::test]
async fn a_lease_is_taken_by_one_and_fences_off_the_others() {
    for store in Store::all() {
        let catalogue = store.catalogue().await;
        catalogue.prepare().await.unwrap();
        catalogue.add(0, State::Live).await.unwrap();
        let one = catalogue.open(1).await.unwrap();
        let other = store.catalogue().await.open(1).await.unwrap();
        one.prepare().await.unwrap();
        let free = one.lease().await.unwrap();
        assert_eq!(free.holder, None);
        let first = one.take_lease(free.fence, "one").await.unwrap().unwrap();
        // Seen before it was taken.
        assert_eq!(other.take_lease(free.fence, "other").await.unwrap(), None);
        assert_eq!(other.lease().await.unwrap().holder.as_deref(), Some("one"));

        let incarnation = || event_log::Incarnation("the log".to_owned());
        let batch = |up_to: u64, fence| Batch {
            fence,
            ..nothing_up_to(up_to, incarnation())
        };
        one.apply(&batch(5, first)).await.unwrap();
        let second = other.take_lease(first, "other").await.unwrap().unwrap();
        assert!(second > first);
        let overtaken = |outcome| matches!(outcome, Err(ReadModelError::Overtaken));
        assert!(overtaken(one.apply(&batch(6, first)).await));
        assert!(overtaken(one.heartbeat(first, None).await));
        let position = async || one.checkpoint().await.unwrap().unwrap().position.get();
        assert_eq!(position().await, 5);
        other.apply(&batch(7, second)).await.unwrap();
        assert_eq!(position().await, 7);

        // What was overtaken can't be given back.
        one.release_lease(first).await.unwrap();
        assert!(one.lease().await.unwrap().holder.is_some());
        other.release_lease(second).await.unwrap();
        assert_eq!(one.lease().await.unwrap().holder, None);
        store.remove().await;
    }
}

#[tokio::test]
async fn another_projector_takes_over_when_the_leader_is_gone() {
    for store in Store::all() {
        let (_directory, log) = setting().await;
        let one = start(&log, store.catalogue().await, "one");
        let live = Live::new(store.catalogue().await);
        reached(&live, 3).await;
        let other = start(&log, store.catalogue().await, "other");
        eventually("the other one stands by", || async {
            other.status.leader().as_deref() == Some("one")
        })
        .await;
        assert_eq!(other.status.check(Duration::from_secs(10)), Ok(()));

        one.kill();
        let last = log.post("after the leader").await;
        reached(&live, last).await;
        assert_eq!(other.status.leader(), None);

        // One that stops in order is not waited for, and comes back as another's stand-by.
        let third = start(&log, store.catalogue().await, "third");
        eventually("the third one stands by", || async {
            third.status.leader().as_deref() == Some("other")
        })
        .await;
        other.stop().await;
        let last = log.post("after the second").await;
        reached(&live, last).await;
        assert_eq!(texts(&live).await, ["after the leader", "after the second"]);
        third.stop().await;
        store.remove().await;
    }
}

#[tokio::test]
async fn a_leader_that_was_overtaken_stands_by_and_has_done_no_harm() {
    let (directory, log) = setting().await;
    let models = Models::open(&directory).await;
    let leader = Projector::start(&log, &models);
    models.reach(3).await;
    // It is in the middle of writing a batch when somebody else takes over.
    let gate = models.gate.lock().await;
    log.post("while it stands still").await;
    eventually("a batch waits", || async {
        models.at_gate.load(std::sync::atomic::Ordering::SeqCst) > 1
    })
    .await;
    let seen = models.inner.lease().await.unwrap();
    let taken = models.inner.take_lease(seen.fence, "another").await;
    let fence = taken.unwrap().unwrap();
    drop(gate);
    eventually("it stands by", || async {
        leader.status.leader().as_deref() == Some("another")
    })
    .await;
    assert_eq!(models.position().await, Some(3));
    models.inner.release_lease(fence).await.unwrap();
    models.reach(4).await;
    assert_eq!(models.texts().await, ["while it stands still"]);
    leader.stop().await;
}

#[tokio::test]
async fn a_rebuilt_generation_takes_the_place_of_the_live_one_while_both_are_used() {
    for store in Store::all() {
        let (_directory, log) = setting().await;
        log.posts(1_500).await;
        let catalogue = store.catalogue().await;
        let projector = start(&log, store.catalogue().await, "one");
        let live = Live::new(store.catalogue().await);
        reached(&live, 1_503).await;

        catalogue.add(1, State::Building).await.unwrap().unwrap();
        // Whoever waits for a position reads what it has written, whichever generation that is.
        let mut number = 0;
        while state_of(catalogue.as_ref(), 1).await == Some(State::Live) {
            let text = format!("meanwhile {number}");
            let position = log.post(&text).await;
            reached(&live, position).await;
            assert_eq!(texts(&live).await.last().unwrap(), &text);
            number += 1;
        }
        let second = becomes(catalogue.as_ref(), 2, State::Live).await;
        let note = second.note.unwrap();
        assert!(
            note.starts_with("it has the same content as generation 1"),
            "{note}"
        );
        eventually("the old generation is removed", || async {
            state_of(catalogue.as_ref(), 1).await.is_none()
        })
        .await;
        let last = log.post("the last").await;
        reached(&live, last).await;
        assert_eq!(texts(&live).await.last().unwrap(), "the last");
        projector.stop().await;
        store.remove().await;
    }
}

#[tokio::test]
async fn a_rebuild_goes_on_where_it_was_cut_off() {
    for store in Store::all() {
        let (_directory, log) = setting().await;
        log.posts(3_000).await;
        let catalogue = store.catalogue().await;
        let projector = start(&log, store.catalogue().await, "one");
        reached(&Live::new(store.catalogue().await), 3_003).await;
        catalogue.add(1, State::Building).await.unwrap().unwrap();
        let building = catalogue.open(2).await.unwrap();
        reached(building.as_ref(), 1).await;
        projector.kill();
        assert_eq!(state_of(catalogue.as_ref(), 1).await, Some(State::Live));

        let projector = start(&log, store.catalogue().await, "one");
        becomes(catalogue.as_ref(), 2, State::Live).await;
        eventually("the old generation is removed", || async {
            state_of(catalogue.as_ref(), 1).await.is_none()
        })
        .await;
        projector.stop().await;
        store.remove().await;
    }
}

#[tokio::test]
async fn a_rebuild_from_a_log_that_has_lost_its_tail_comes_to_an_end() {
    for store in Store::all() {
        let (_directory, log) = setting().await;
        log.post("left").await;
        let catalogue = store.catalogue().await;
        let projector = start(&log, store.catalogue().await, "one");
        reached(&Live::new(store.catalogue().await), 4).await;
        projector.stop().await;
        // There was more, and it was projected.
        let first = catalogue.open(1).await.unwrap();
        let incarnation = log.tail().await.unwrap().incarnation;
        let lost = Batch {
            fence: first.lease().await.unwrap().fence,
            ..nothing_up_to(9, incarnation)
        };
        first.apply(&lost).await.unwrap();

        catalogue.add(1, State::Building).await.unwrap().unwrap();
        let rebuild = start_for(Some(2), &log, store.catalogue().await, "rebuild");
        let second = becomes(catalogue.as_ref(), 2, State::Live).await;
        let note = second.note.unwrap();
        assert!(note.contains("it has lost its tail"), "{note}");
        assert!(note.ends_with("and it is what the log gives"), "{note}");
        let retired = async || state_of(catalogue.as_ref(), 1).await != Some(State::Live);
        eventually("the old generation is given up", retired).await;
        let live = Live::new(store.catalogue().await);
        assert_eq!(texts(&live).await, ["left"]);
        rebuild.stop().await;
        store.remove().await;
    }
}

#[tokio::test]
async fn a_live_generation_that_is_not_what_the_log_gives_is_replaced_by_one_that_is() {
    for store in Store::all() {
        let (_directory, log) = setting().await;
        log.post("said").await;
        let catalogue = store.catalogue().await;
        let projector = start(&log, store.catalogue().await, "one");
        let live = Live::new(store.catalogue().await);
        reached(&live, 4).await;
        // Half of what happened is not in it, and never will be.
        tamper(&store).await;
        let record = log.record();
        let (options, stop) = (verify::Options::default(), CancellationToken::new());
        let verify = async |number| {
            let catalogue = catalogue.as_ref();
            verify_generation(&record, catalogue, number, "test", &options, &stop).await
        };
        let report = verify(None).await.unwrap();
        assert!(!report.is_equal(), "{report}");

        catalogue.add(1, State::Building).await.unwrap().unwrap();
        let second = becomes(catalogue.as_ref(), 2, State::Live).await;
        let note = second.note.unwrap();
        assert_eq!(
            note,
            "its messages differ from those of generation 1, and it is what the log gives"
        );
        let report = verify(None).await.unwrap();
        assert!(report.is_equal(), "{report}");
        assert_eq!(texts(&live).await, ["said"]);
        projector.stop().await;
        store.remove().await;
    }
}

/// Changes the text of the only message, past the port.
async fn tamper(store: &Store) {
    match store {
        Store::Sqlite(directory) => {
            let file = directory.path().join("read.g1.db");
            let connection = rusqlite::Connection::open(file).unwrap();
            let changed = connection.execute("UPDATE messages SET text = 'unsaid'", []);
            assert_eq!(changed.unwrap(), 1);
        }
        Store::Mongo(database) => {
            let database = database.connect().await.unwrap();
            let messages = database.collection::<mongodb::bson::Document>("g1_messages");
            let text = mongodb::bson::doc! { "$set": { "text": "unsaid" } };
            let changed = messages.update_many(mongodb::bson::doc! {}, text).await;
            assert_eq!(changed.unwrap().modified_count, 1);
        }
    }
}

#[tokio::test]
async fn a_program_with_another_schema_builds_its_own_beside_the_old_ones() {
    for store in Store::all() {
        let (_directory, log) = setting().await;
        log.posts(20).await;
        let old = start(&log, store.of_schema(1).await, "old");
        let old_live = Live::new(store.of_schema(1).await);
        reached(&old_live, 23).await;

        let new_catalogue = store.of_schema(2).await;
        let new_live = Live::new(store.of_schema(2).await);
        let error = new_live.users().await.unwrap_err();
        assert!(matches!(error, ReadModelError::BeingBuilt), "{error}");
        let new = start(&log, store.of_schema(2).await, "new");
        let second = becomes(new_catalogue.as_ref(), 2, State::Live).await;
        assert_eq!(second.schema, 2);

        // Both go on, each for its own programs, for as long as the old one is at work.
        let last = log.post("for both").await;
        reached(&old_live, last).await;
        reached(&new_live, last).await;
        assert_eq!(texts(&old_live).await, texts(&new_live).await);
        assert_eq!(state_of(new_catalogue.as_ref(), 1).await, Some(State::Live));
        // Once that has ended, nobody needs its generation any more.
        old.stop().await;
        eventually("the old generation is removed", || async {
            state_of(new_catalogue.as_ref(), 1).await.is_none()
        })
        .await;
        new.stop().await;
        store.remove().await;
    }
}

/// Has a generation built that was begun with this batch by somebody else; gives why it was rejected, after
/// the live one has gone on.
async fn rejected(store: &Store, log: &Arc<Log>, beginning: Batch) -> String {
    let catalogue = store.catalogue().await;
    let projector = start(log, store.catalogue().await, "one");
    let live = Live::new(store.catalogue().await);
    reached(&live, 3).await;
    projector.stop().await;

    catalogue.add(1, State::Building).await.unwrap().unwrap();
    let building = catalogue.open(2).await.unwrap();
    building.prepare().await.unwrap();
    building.apply(&beginning).await.unwrap();
    let projector = start(log, store.catalogue().await, "one");
    let second = becomes(catalogue.as_ref(), 2, State::Rejected).await;
    let last = log.post("goes on").await;
    reached(&live, last).await;
    assert_eq!(state_of(catalogue.as_ref(), 1).await, Some(State::Live));
    assert_eq!(projector.status.check(Duration::from_secs(10)), Ok(()));
    projector.stop().await;
    second.note.unwrap()
}

#[tokio::test]
async fn a_generation_that_is_not_what_the_log_gives_is_rejected() {
    for store in Store::all() {
        let (_directory, log) = setting().await;
        let incarnation = log.tail().await.unwrap().incarnation;
        // By somebody who left the first event out.
        let note = rejected(&store, &log, nothing_up_to(1, incarnation)).await;
        assert!(
            note.starts_with("its users differ from those of generation 1"),
            "{note}"
        );
        assert!(note.contains("but not stored"), "{note}");
        store.remove().await;
    }
}

#[tokio::test]
async fn a_generation_that_was_begun_from_another_log_is_rejected_and_stops_nothing() {
    for store in Store::all() {
        let (_directory, log) = setting().await;
        let incarnation = event_log::Incarnation("another".to_owned());
        let note = rejected(&store, &log, nothing_up_to(1, incarnation)).await;
        assert!(note.contains("they come from log \"another\""), "{note}");
        store.remove().await;
    }
}

/// A batch up to here with nothing in it.
fn nothing_up_to(position: u64, incarnation: event_log::Incarnation) -> Batch {
    Batch {
        incarnation,
        entries: Vec::new(),
        up_to: Position::new(position),
        fence: read_models::Fence::default(),
    }
}
