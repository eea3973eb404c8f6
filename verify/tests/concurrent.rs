//! Two projectors at work on one random history at once, one of them overtaken, with queries meanwhile: in
//! the end every unread count, receipt, list and deletion is as in the model, and all that is stored is
//! what the log gives.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use events::Position;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use read_models::{Batch, COUNT_CAP, MessageRow, MongoReadModels, Page, PageStart, Projection};
use support::compare::compare;
use support::history::{self, History, USERS};
use support::record::{Record, compared, incarnation};
use support::{Store, batch};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use verify::Options;

/// How long the overtaken projector waits to be overtaken, on a busy machine.
const OVERTAKING: Duration = Duration::from_secs(60);

/// How one projector goes about the log.
#[derive(Debug, Clone)]
struct Course {
    /// How many events its batches have, in turn.
    batches: Vec<usize>,
    /// It has its batches again from some events before.
    repeated: usize,
}

fn course() -> impl Strategy<Value = Course> {
    let batches = prop::collection::vec(prop_oneof![1..4_usize, 4..40_usize], 1..8);
    (batches, prop_oneof![Just(0), 1..12_usize])
        .prop_map(|(batches, repeated)| Course { batches, repeated })
}

/// Where a projector stands still until the other has finished: after so many phases of so manieth batch.
#[derive(Debug, Clone)]
struct Pause {
    batch: usize,
    phase: usize,
}

fn pause() -> impl Strategy<Value = Pause> {
    (0..6_usize, 0..8_usize).prop_map(|(batch, phase)| Pause { batch, phase })
}

impl Course {
    /// The batches of the history, each up to the event after it.
    fn of(&self, history: &History) -> Vec<Batch> {
        let entries = &history.entries;
        let mut batches = Vec::new();
        let mut done = 0;
        for length in self.batches.iter().cycle() {
            let start = done - self.repeated.min(done);
            done = (done + length).min(entries.len());
            let mut part = batch(&entries[start..done], history);
            if let Some(next) = entries.get(done) {
                part.up_to = Position::new(next.position.get() - 1);
            }
            batches.push(part);
            if done == entries.len() {
                return batches;
            }
        }
        batches
    }
}

async fn project(read_models: &dyn Projection, batches: &[Batch]) {
    for batch in batches {
        read_models.apply(batch).await.unwrap();
        tokio::task::yield_now().await;
    }
}

/// Asks as clients do until `done`: whatever has been written by then, no answer contradicts itself.
async fn query(read_models: &dyn Projection, mut done: watch::Receiver<bool>) {
    let page = Page {
        start: PageStart::Number(0),
        limit: 100,
    };
    loop {
        let last_round = *done.borrow_and_update();
        for room in history::rooms() {
            let found = read_models.conversation(room, page).await.unwrap();
            let messages = found.map(|found| found.messages).unwrap_or_default();
            assert!(messages.is_sorted_by(|one, next| one.id < next.id));
            messages.iter().for_each(assert_sound);
            assert!(messages.iter().all(|message| message.room == room));
        }
        for number in 0..USERS {
            let user = history::user(number);
            let recent = read_models.recent(user, page).await.unwrap();
            let rooms: HashSet<_> = recent.iter().map(|row| row.room.id).collect();
            assert_eq!(rooms.len(), recent.len(), "a room is listed twice");
            for row in &recent {
                assert!(row.room.members.contains(&user));
                assert!(row.unread <= COUNT_CAP);
                assert_eq!(row.message.room, row.room.id);
                assert_sound(&row.message);
            }
        }
        if last_round {
            return;
        }
    }
}

/// The author first, and nobody twice.
fn assert_sound(message: &MessageRow) {
    let readers: HashSet<_> = message.read_by.iter().map(|it| it.reader).collect();
    assert_eq!(readers.len(), message.read_by.len(), "{message:?}");
    assert_eq!(message.read_by[0].reader, message.author);
}

/// Tells those who query when those who project are done.
async fn with_queries(read_models: &dyn Projection, projecting: impl Future<Output = ()>) {
    let (done, is_done) = watch::channel(false);
    let projecting = async {
        projecting.await;
        done.send(true).unwrap();
    };
    tokio::join!(projecting, query(read_models, is_done));
}

#[test]
fn projectors_at_once_on_sqlite() {
    let runtime = Runtime::new().unwrap();
    let mut runner = TestRunner::new(Config::with_cases(32));
    runner
        .run(
            &(history::history(120), course(), course()),
            |(history, one, other)| {
                runtime.block_on(async {
                    let store = Store::sqlite();
                    let first = store.filled(&History::default()).await;
                    let second = store.open().await;
                    let reader = store.open().await;
                    let record = Record::of(&history.entries);
                    let (one, other) = (one.of(&history), other.of(&history));
                    let projecting = async {
                        // Verified in the middle of it too: a snapshot is never of half a batch.
                        let verifying = async {
                            for _ in 0..3 {
                                let options = Options::default();
                                let report = compared(&record, reader.as_ref(), &options);
                                let report = report.await.unwrap();
                                assert!(report.is_equal(), "{report}");
                            }
                        };
                        tokio::join!(
                            project(first.as_ref(), &one),
                            project(second.as_ref(), &other),
                            verifying,
                        );
                    };
                    with_queries(reader.as_ref(), projecting).await;
                    compare(reader.as_ref(), &history.entries, false).await;
                });
                Ok(())
            },
        )
        .unwrap();
}

/// MongoDB read models that stand still where `pause` says, once, and tell that they do, until `released`.
async fn paused(
    store: &Store,
    pause: &Pause,
    reached: watch::Sender<bool>,
    released: watch::Receiver<bool>,
) -> MongoReadModels {
    let Store::Mongo(database) = store else {
        panic!("only MongoDB is written in phases");
    };
    // Each batch has seven phases, unless it has nothing to write.
    let here = pause.batch * 7 + pause.phase;
    let passed = AtomicUsize::new(0);
    let read_models = MongoReadModels::open(&database.url).await.unwrap();
    read_models.interrupted_by(move |_| {
        let stops = passed.fetch_add(1, Ordering::SeqCst) == here;
        if stops {
            reached.send_replace(true);
        }
        let mut released = released.clone();
        Box::pin(async move {
            if stops {
                let overtaken = released.wait_for(|released| *released);
                let overtaken = tokio::time::timeout(OVERTAKING, overtaken).await;
                overtaken.expect("the other comes to an end").unwrap();
            }
            Ok(())
        })
    })
}

#[test]
fn projectors_at_once_on_mongodb_one_of_them_overtaken() {
    let Some(probe) = Store::mongo() else {
        return;
    };
    drop(probe);
    let runtime = Runtime::new().unwrap();
    let mut runner = TestRunner::new(Config::with_cases(24));
    runner
        .run(
            &(
                history::history(120),
                course(),
                course(),
                prop::option::weighted(0.7, pause()),
            ),
            |(history, one, other, pause)| {
                runtime.block_on(async {
                    let store = Store::mongo().unwrap();
                    let leader = store.filled(&History::default()).await;
                    let (one, other) = (one.of(&history), other.of(&history));
                    let projecting = async {
                        match pause {
                            None => {
                                let second = store.open().await;
                                tokio::join!(
                                    project(leader.as_ref(), &one),
                                    project(second.as_ref(), &other),
                                );
                            }
                            Some(pause) => {
                                overtake(&store, &pause, leader.as_ref(), &one, &other).await
                            }
                        }
                    };
                    with_queries(leader.as_ref(), projecting).await;
                    let checkpoint = leader.checkpoint().await.unwrap().unwrap();
                    assert_eq!(checkpoint.position, history.last());
                    assert_eq!(checkpoint.incarnation, incarnation());
                    compare(leader.as_ref(), &history.entries, false).await;
                    store.remove().await;
                });
                Ok(())
            },
        )
        .unwrap();
}

/// Projects `stale` up to the pause, then all of `leading`, then the rest of `stale`.
async fn overtake(
    store: &Store,
    pause: &Pause,
    leader: &dyn Projection,
    leading: &[Batch],
    stale: &[Batch],
) {
    let (reached, mut has_reached) = watch::channel(false);
    let (release, released) = watch::channel(false);
    let overtaken = paused(store, pause, reached, released).await;
    let late = async {
        project(&overtaken, stale).await;
        // If it never stands still, nobody may wait for that.
        drop(overtaken);
    };
    let leading = async {
        let _ = has_reached.wait_for(|reached| *reached).await;
        project(leader, leading).await;
        release.send_replace(true);
    };
    tokio::join!(late, leading);
}
