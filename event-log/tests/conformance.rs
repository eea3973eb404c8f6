//! What every event log must do, run against each adapter: a case is written once, with what it needs of
//! the log underneath behind [`Stack`].
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use event_log::testing::NatsServer;
use event_log::{
    EventLog, Events, Expect, Filter, Followed, Listening, LogError, LogUrl, MAX_EVENT_BYTES,
    MAX_SIGNAL_BYTES, NewEvent, Position, Recorded, Signal, Signals, SqliteLog, follow_forever,
};
use events::{RoomId, Subject, UserId};
use futures::future::join_all;
use futures::{FutureExt, StreamExt};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Longer than anything here takes on the busiest machine: only a hang reaches it.
const DEADLINE: Duration = Duration::from_secs(60);

/// A log and what it is kept in.
enum Stack {
    Sqlite(tempfile::TempDir),
    JetStream(NatsServer),
}

impl Stack {
    fn sqlite() -> Option<Self> {
        Some(Self::Sqlite(tempfile::tempdir().unwrap()))
    }

    fn jetstream() -> Option<Self> {
        NatsServer::start().map(Self::JetStream)
    }

    /// Opens the log once more, as another process would.
    async fn open(&self) -> Arc<dyn EventLog> {
        match self {
            Self::Sqlite(directory) => {
                let url = "sqlite:sub/log.db".parse().unwrap();
                event_log::open(&url, directory.path()).await.unwrap()
            }
            Self::JetStream(server) => open_nats(server).await,
        }
    }

    /// Two ends of the signals, as far apart as they may be.
    async fn signals(&self) -> (Arc<dyn Signals>, Arc<dyn Signals>) {
        let one = self.open().await;
        match self {
            // Within one process only.
            Self::Sqlite(_) => (one.signals(), one.signals()),
            Self::JetStream(_) => (one.signals(), self.open().await.signals()),
        }
    }

    /// Stops what keeps the log as hard as can be, and starts it again.
    fn crash(&mut self) {
        if let Self::JetStream(server) = self {
            server.restart();
        }
    }
}

async fn open_nats(server: &NatsServer) -> Arc<dyn EventLog> {
    let nowhere = std::path::Path::new("/nonexistent");
    event_log::open(&server.log_url(), nowhere).await.unwrap()
}

macro_rules! conformance {
    ($($case:ident,)+) => {
        mod sqlite {
            use super::Stack;
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    if let Some(stack) = Stack::sqlite() {
                        super::within(super::$case(stack)).await;
                    }
                }
            )+
        }
        mod jetstream {
            use super::Stack;
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    if let Some(stack) = Stack::jetstream() {
                        super::within(super::$case(stack)).await;
                    }
                }
            )+
        }
    };
}

conformance! {
    any_expectation_always_appends,
    empty_is_met_once,
    exact_is_met_by_the_last_position_only,
    another_subject_may_be_expected_to_be_as_it_was,
    a_conflict_appends_nothing,
    a_repeated_append_adds_nothing,
    a_repeated_append_is_found_behind_later_events,
    reads_by_every_filter_from_a_position_to_the_end,
    a_read_ends_at_the_end_of_its_time,
    following_passes_from_history_to_live_without_gap_or_duplicate,
    followers_see_only_what_matches,
    long_histories_of_many_rooms_are_merged_in_order,
    events_are_read_by_position,
    the_last_event_of_a_subject_is_found,
    the_tail_is_where_the_log_ends,
    a_log_keeps_its_identity,
    everything_acknowledged_is_there_after_a_crash,
    one_of_many_concurrent_appenders_wins,
    concurrent_appends_are_dense_and_each_there_once,
    a_payload_too_large_is_refused,
    payloads_are_kept_byte_for_byte,
    two_processes_see_each_others_appends,
    following_for_ever_ends_when_it_is_told_to,
    signals_reach_every_listener_in_the_senders_order,
    signals_are_bounded_and_never_kept,
    a_listener_that_falls_behind_is_told,
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    let Ok(done) = tokio::time::timeout(DEADLINE, work).await else {
        panic!("not done within {DEADLINE:?}");
    };
    done
}

fn user(number: u128) -> UserId {
    UserId::from_uuid(Uuid::from_u128(number))
}

fn room(number: u128) -> RoomId {
    RoomId::from_uuid(Uuid::from_u128(number))
}

fn rooms(numbers: impl IntoIterator<Item = u128>) -> Filter {
    Filter::Rooms(numbers.into_iter().map(room).collect())
}

/// An event whose payload is `text`.
fn event(subject: Subject, text: impl Into<String>) -> NewEvent {
    NewEvent {
        subject,
        deduplication_id: Uuid::new_v4(),
        payload: Bytes::from(text.into()),
    }
}

fn text(event: &Recorded) -> String {
    String::from_utf8(event.payload.to_vec()).unwrap()
}

/// Appends an event; its position.
async fn append(log: &dyn EventLog, subject: Subject, text: &str) -> Position {
    let appended = log.append(event(subject, text), Expect::Any).await.unwrap();
    assert!(!appended.duplicate);
    appended.position
}

async fn all(events: Events) -> Vec<Recorded> {
    events.map(Result::unwrap).collect().await
}

/// The texts of the events that match, read from `after` to the end.
async fn texts(log: &dyn EventLog, filter: Filter, after: Position) -> Vec<String> {
    let events = log.read(filter, after).await.unwrap();
    all(events).await.iter().map(text).collect()
}

async fn any_expectation_always_appends(stack: Stack) {
    let log = stack.open().await;
    let subject = Subject::RoomTimeline(room(1));
    for number in 1..=3 {
        let appended = log.append(event(subject, "x"), Expect::Any).await.unwrap();
        assert_eq!(appended.position, Position::new(number));
        assert!(!appended.duplicate);
    }
}

async fn empty_is_met_once(stack: Stack) {
    let log = stack.open().await;
    let subject = Subject::RoomLifecycle(room(1));
    append(&*log, Subject::RoomTimeline(room(1)), "elsewhere").await;
    let appended = log.append(event(subject, "first"), Expect::Empty).await;
    assert_eq!(appended.unwrap().position, Position::new(2));
    let second = log.append(event(subject, "second"), Expect::Empty).await;
    assert!(matches!(second, Err(LogError::Conflict(_))), "{second:?}");
}

async fn exact_is_met_by_the_last_position_only(stack: Stack) {
    let log = stack.open().await;
    let subject = Subject::User(user(1));
    let first = append(&*log, subject, "first").await;
    append(&*log, Subject::User(user(2)), "elsewhere").await;
    let exact = Expect::Exact(first);
    let second = log.append(event(subject, "second"), exact).await.unwrap();
    assert_eq!(second.position, Position::new(3));
    for wrong in [first, second.position.next(), Position::new(u64::MAX / 4)] {
        let third = event(subject, "third");
        let refused = log.append(third, Expect::Exact(wrong)).await;
        assert!(matches!(refused, Err(LogError::Conflict(_))), "{refused:?}");
    }
}

async fn another_subject_may_be_expected_to_be_as_it_was(stack: Stack) {
    let log = stack.open().await;
    let (own, other) = (Subject::RoomRetention(room(1)), Subject::RoomHold(room(1)));
    let beside = |position| Expect::Beside(other, Position::new(position));
    log.append(event(own, "1"), beside(0)).await.unwrap();
    // What happens on its own subject, or on others, does not matter.
    append(&*log, own, "2").await;
    append(&*log, Subject::RoomHold(room(2)), "3").await;
    log.append(event(own, "4"), beside(0)).await.unwrap();
    append(&*log, other, "5").await;
    for wrong in [0, 4, 6] {
        let conflict = log.append(event(own, "6"), beside(wrong)).await;
        assert!(matches!(conflict, Err(LogError::Conflict(_))), "{wrong}");
    }
    let seventh = event(own, "7");
    let first = log.append(seventh.clone(), beside(5)).await.unwrap();
    append(&*log, other, "8").await;
    // The acknowledgement was lost, and the expectation is not met any more.
    let again = log.append(seventh, beside(5)).await.unwrap();
    assert_eq!(again.position, first.position);
    assert!(again.duplicate);
    assert_eq!(
        texts(&*log, Filter::All, Position::ZERO).await,
        ["1", "2", "3", "4", "5", "7", "8"]
    );
}

async fn a_conflict_appends_nothing(stack: Stack) {
    let log = stack.open().await;
    let subject = Subject::User(user(1));
    append(&*log, subject, "first").await;
    let refused = event(subject, "refused");
    let conflict = log.append(refused.clone(), Expect::Empty).await;
    assert!(matches!(conflict, Err(LogError::Conflict(_))));
    assert_eq!(log.tail().await.unwrap().last, Position::new(1));

    // The refusal is not remembered as an append: the same event may be appended after all.
    let appended = log.append(refused, Expect::Any).await.unwrap();
    assert_eq!(appended.position, Position::new(2));
    assert!(!appended.duplicate);
}

async fn a_repeated_append_adds_nothing(stack: Stack) {
    let log = stack.open().await;
    append(&*log, Subject::User(user(9)), "before").await;
    let created = event(Subject::User(user(1)), "created");
    let first = log.append(created.clone(), Expect::Empty).await.unwrap();
    assert!(!first.duplicate);

    // The expectation was met by the first one; it no longer is.
    for expect in [Expect::Any, Expect::Empty] {
        let again = log.append(created.clone(), expect).await.unwrap();
        assert_eq!((again.position, again.duplicate), (first.position, true));
    }

    // The same id on another subject names the first event too.
    let elsewhere = NewEvent {
        subject: Subject::RoomTimeline(room(1)),
        ..created.clone()
    };
    for expect in [Expect::Any, Expect::Empty] {
        let again = log.append(elsewhere.clone(), expect).await.unwrap();
        assert_eq!((again.position, again.duplicate), (first.position, true));
    }
    assert_eq!(log.tail().await.unwrap().last, first.position);

    // Another process knows it as well.
    let other = stack.open().await;
    let again = other.append(created, Expect::Empty).await.unwrap();
    assert_eq!((again.position, again.duplicate), (first.position, true));
}

async fn a_repeated_append_is_found_behind_later_events(stack: Stack) {
    let log = stack.open().await;
    let subject = Subject::User(user(1));
    let created = event(subject, "created");
    let deleted = event(subject, "deleted");
    let first = log.append(created.clone(), Expect::Empty).await.unwrap();
    let exact = Expect::Exact(first.position);
    let second = log.append(deleted.clone(), exact).await.unwrap();
    append(&*log, subject, "later").await;

    let again = log.append(created, Expect::Empty).await.unwrap();
    assert_eq!((again.position, again.duplicate), (first.position, true));
    let again = log.append(deleted, exact).await.unwrap();
    assert_eq!((again.position, again.duplicate), (second.position, true));
}

/// A history of two users and two rooms; its texts are subjects in short.
async fn history(log: &dyn EventLog) {
    for (subject, text) in [
        (Subject::User(user(1)), "u1"),           // 1
        (Subject::User(user(2)), "u2"),           // 2
        (Subject::RoomLifecycle(room(1)), "r1"),  // 3
        (Subject::RoomTimeline(room(1)), "m1"),   // 4
        (Subject::RoomLifecycle(room(2)), "r2"),  // 5
        (Subject::RoomTimeline(room(2)), "m2"),   // 6
        (Subject::RoomTimeline(room(1)), "m1b"),  // 7
        (Subject::User(user(1)), "u1b"),          // 8
        (Subject::RoomLifecycle(room(1)), "r1b"), // 9
        (Subject::RoomTimeline(room(1)), "m1c"),  // 10
    ] {
        append(log, subject, text).await;
    }
}

async fn reads_by_every_filter_from_a_position_to_the_end(stack: Stack) {
    let log = stack.open().await;
    let a_room = Filter::Room(room(1));
    for filter in [
        Filter::All,
        Filter::Lifecycles,
        Filter::Holds,
        a_room,
        rooms([1, 2]),
    ] {
        assert!(texts(&*log, filter, Position::ZERO).await.is_empty());
    }
    history(&*log).await;
    append(&*log, Subject::RoomHold(room(1)), "h1").await; // 11
    append(&*log, Subject::Audit, "a").await; // 12
    append(&*log, Subject::RoomRetention(room(1)), "x1").await; // 13
    for (filter, after, expected) in [
        (Filter::All, 0, "u1 u2 r1 m1 r2 m2 m1b u1b r1b m1c h1 a x1"),
        (Filter::All, 8, "r1b m1c h1 a x1"),
        (Filter::All, 13, ""),
        (Filter::All, 99, ""),
        (Filter::Lifecycles, 0, "u1 u2 r1 r2 u1b r1b"),
        (Filter::Lifecycles, 3, "r2 u1b r1b"),
        (Filter::Lifecycles, 9, ""),
        (Filter::Holds, 0, "h1"),
        (Filter::Holds, 11, ""),
        (Filter::Room(room(1)), 11, "x1"),
        (Filter::Room(room(1)), 0, "r1 m1 m1b r1b m1c h1 x1"),
        (Filter::Room(room(1)), 4, "m1b r1b m1c h1 x1"),
        (Filter::Room(room(2)), 0, "r2 m2"),
        (Filter::Room(room(2)), 6, ""),
        (Filter::Room(room(3)), 0, ""),
        (rooms([]), 0, ""),
        (rooms([1]), 0, "r1 m1 m1b r1b m1c h1 x1"),
        (rooms([1, 2]), 0, "r1 m1 r2 m2 m1b r1b m1c h1 x1"),
        (rooms([2, 3, 1, 2, 2]), 4, "r2 m2 m1b r1b m1c h1 x1"),
        (rooms([3, 2]), 5, "m2"),
        (rooms([3, 4]), 0, ""),
        (rooms([1, 2]), 13, ""),
        (rooms([1, 2]), 99, ""),
        (rooms(2..2_002), 0, "r2 m2"),
        (rooms(1..2_002), 5, "m2 m1b r1b m1c h1 x1"),
        (rooms(3..2_002), 0, ""),
        (Filter::User(user(1)), 0, "u1 u1b"),
        (Filter::User(user(1)), 1, "u1b"),
        (Filter::User(user(3)), 0, ""),
    ] {
        let found = texts(&*log, filter.clone(), Position::new(after)).await;
        let filter = format!("{filter:.200?}");
        assert_eq!(found.join(" "), expected, "{filter} after {after}");
    }
    let events = all(log.read(Filter::All, Position::new(6)).await.unwrap()).await;
    assert_eq!(events[0].position, Position::new(7));
    assert_eq!(
        events[0].subject,
        Subject::RoomTimeline(room(1)).to_string()
    );
    let age = events::Timestamp::now().as_millis() - events[0].stored_at.as_millis();
    assert!((-1_000..60_000).contains(&age), "{age} ms");
}

async fn a_read_ends_at_the_end_of_its_time(stack: Stack) {
    let log = stack.open().await;
    let subject = Subject::RoomTimeline(room(1));
    // More than one page of either adapter.
    let appends =
        (0..1_200).map(|number| log.append(event(subject, number.to_string()), Expect::Any));
    for appended in join_all(appends).await {
        appended.unwrap();
    }
    let everything = log.read(Filter::All, Position::ZERO).await.unwrap();
    let one_room = log
        .read(Filter::Room(room(1)), Position::ZERO)
        .await
        .unwrap();
    let nothing = log
        .read(Filter::Room(room(2)), Position::ZERO)
        .await
        .unwrap();
    append(&*log, subject, "later").await;
    append(&*log, Subject::RoomTimeline(room(2)), "later").await;
    for events in [everything, one_room] {
        let positions: Vec<u64> = all(events)
            .await
            .iter()
            .map(|it| it.position.get())
            .collect();
        assert!(positions.iter().copied().eq(1..=1_200));
    }
    assert!(all(nothing).await.is_empty());
}

async fn following_passes_from_history_to_live_without_gap_or_duplicate(stack: Stack) {
    const HISTORY: u64 = 1_000;
    const TOTAL: u64 = 3_000;
    let log = stack.open().await;
    let write = |log: Arc<dyn EventLog>, from: u64, to: u64| async move {
        let mut appends = futures::stream::iter(from..to)
            .map(|number| {
                let subject = Subject::RoomTimeline(room(u128::from(number % 7)));
                let event = event(subject, number.to_string());
                let log = Arc::clone(&log);
                async move { log.append(event, Expect::Any).await.unwrap() }
            })
            .buffer_unordered(64);
        while appends.next().await.is_some() {}
    };
    write(Arc::clone(&log), 0, HISTORY).await;

    // From here on there is a writer at full speed in this process and one in another.
    let middle = HISTORY + (TOTAL - HISTORY) / 2;
    let writers = [
        tokio::spawn(write(Arc::clone(&log), HISTORY, middle)),
        tokio::spawn(write(stack.open().await, middle, TOTAL)),
    ];
    let mut followers = JoinSet::new();
    for after in [0, 1, 500, HISTORY, HISTORY + 100] {
        let log = Arc::clone(&log);
        followers.spawn(async move {
            let events = log.follow(Filter::All, Position::new(after)).await.unwrap();
            let count = usize::try_from(TOTAL - after).unwrap();
            let positions: Vec<u64> = events
                .take(count)
                .map(|event| event.unwrap().position.get())
                .collect()
                .await;
            assert!(
                positions.iter().copied().eq(after + 1..=TOTAL),
                "after {after}"
            );
        });
    }
    for writer in writers {
        writer.await.unwrap();
    }
    while let Some(follower) = followers.join_next().await {
        follower.unwrap();
    }
    let texts: HashSet<String> = texts(&*log, Filter::All, Position::ZERO)
        .await
        .into_iter()
        .collect();
    assert_eq!(texts.len() as u64, TOTAL);
}

async fn followers_see_only_what_matches(stack: Stack) {
    let log = stack.open().await;
    history(&*log).await;
    let mut lifecycles = log
        .follow(Filter::Lifecycles, Position::new(3))
        .await
        .unwrap();
    let mut one_room = log
        .follow(Filter::Room(room(1)), Position::new(7))
        .await
        .unwrap();
    let mut one_user = log
        .follow(Filter::User(user(2)), Position::ZERO)
        .await
        .unwrap();
    // Few rooms, and so many that an adapter may go about it in another way.
    let mut few_rooms = log
        .follow(rooms([2, 1, 2]), Position::new(5))
        .await
        .unwrap();
    let mut many_rooms = log.follow(rooms(2..2_002), Position::ZERO).await.unwrap();
    let mut no_room = log.follow(rooms([]), Position::ZERO).await.unwrap();
    for expected in ["m2", "m1b", "r1b", "m1c"] {
        assert_eq!(text(&few_rooms.next().await.unwrap().unwrap()), expected);
    }
    for expected in ["r2", "m2"] {
        assert_eq!(text(&many_rooms.next().await.unwrap().unwrap()), expected);
    }
    for expected in ["r2", "u1b", "r1b"] {
        assert_eq!(text(&lifecycles.next().await.unwrap().unwrap()), expected);
    }
    for expected in ["r1b", "m1c"] {
        assert_eq!(text(&one_room.next().await.unwrap().unwrap()), expected);
    }
    assert_eq!(text(&one_user.next().await.unwrap().unwrap()), "u2");

    for (subject, text) in [
        (Subject::RoomTimeline(room(2)), "m2b"),
        (Subject::RoomTimeline(room(1)), "m1d"),
        (Subject::User(user(2)), "u2b"),
    ] {
        append(&*log, subject, text).await;
    }
    assert_eq!(text(&one_room.next().await.unwrap().unwrap()), "m1d");
    assert_eq!(text(&lifecycles.next().await.unwrap().unwrap()), "u2b");
    assert_eq!(text(&one_user.next().await.unwrap().unwrap()), "u2b");
    for expected in ["m2b", "m1d"] {
        assert_eq!(text(&few_rooms.next().await.unwrap().unwrap()), expected);
    }
    assert_eq!(text(&many_rooms.next().await.unwrap().unwrap()), "m2b");
    append(&*log, Subject::RoomLifecycle(room(2)), "r2b").await;
    for mut events in [few_rooms, many_rooms] {
        assert_eq!(text(&events.next().await.unwrap().unwrap()), "r2b");
    }
    assert!(no_room.next().now_or_never().is_none());
}

async fn long_histories_of_many_rooms_are_merged_in_order(stack: Stack) {
    const ROOMS: u128 = 40;
    const EVENTS: u64 = 4_000;
    let log = stack.open().await;
    let appends = (0..EVENTS).map(|number| {
        // Neither evenly nor in turn: some rooms have much and late, some little and early.
        let of = u128::from(number * number / 7) % (1 + ROOMS * u128::from(number) / 4_000);
        let subject = if number % 9 == 0 {
            Subject::RoomLifecycle(room(of))
        } else {
            Subject::RoomTimeline(room(of))
        };
        let sent = event(subject, of.to_string());
        let log = Arc::clone(&log);
        async move { log.append(sent, Expect::Any).await.unwrap() }
    });
    let mut appends = futures::stream::iter(appends).buffered(128);
    while appends.next().await.is_some() {}
    let everything = all(log.read(Filter::All, Position::ZERO).await.unwrap()).await;
    for (numbers, after) in [
        ((0..ROOMS).collect::<Vec<_>>(), 0),
        ((0..ROOMS).rev().step_by(3).collect(), 17),
        (vec![1], 1_000),
        ((5..ROOMS).collect(), 3_990),
    ] {
        let expected = everything.iter().filter(|event| {
            let of: u128 = text(event).parse().unwrap();
            event.position > Position::new(after) && numbers.contains(&of)
        });
        let filter = rooms(numbers.iter().copied());
        let read = log
            .read(filter.clone(), Position::new(after))
            .await
            .unwrap();
        let read = all(read).await;
        assert!(read.iter().eq(expected), "{numbers:?} after {after}");
        let followed = log.follow(filter, Position::new(after)).await.unwrap();
        assert_eq!(all(followed.take(read.len()).boxed()).await, read);
    }
}

async fn events_are_read_by_position(stack: Stack) {
    let log = stack.open().await;
    assert_eq!(log.get(Position::new(1)).await.unwrap(), None);
    history(&*log).await;
    let events = all(log.read(Filter::All, Position::ZERO).await.unwrap()).await;
    for event in events {
        assert_eq!(log.get(event.position).await.unwrap(), Some(event));
    }
    for nowhere in [0, 11, u64::MAX] {
        let found = log.get(Position::new(nowhere)).await;
        assert_eq!(found.unwrap(), None, "{nowhere}");
    }
}

async fn the_last_event_of_a_subject_is_found(stack: Stack) {
    let log = stack.open().await;
    history(&*log).await;
    for (subject, expected) in [
        (Subject::User(user(1)), Some("u1b")),
        (Subject::User(user(2)), Some("u2")),
        (Subject::User(user(3)), None),
        (Subject::RoomLifecycle(room(1)), Some("r1b")),
        (Subject::RoomTimeline(room(1)), Some("m1c")),
        (Subject::RoomTimeline(room(3)), None),
    ] {
        let last = log.last_of(subject).await.unwrap();
        assert_eq!(last.as_ref().map(text).as_deref(), expected, "{subject}");
    }
}

async fn the_tail_is_where_the_log_ends(stack: Stack) {
    let log = stack.open().await;
    assert_eq!(log.tail().await.unwrap().last, Position::ZERO);
    let last = append(&*log, Subject::User(user(1)), "x").await;
    assert_eq!(log.tail().await.unwrap().last, last);
}

async fn a_log_keeps_its_identity(mut stack: Stack) {
    let log = stack.open().await;
    let tail = log.tail().await.unwrap();
    assert_eq!(stack.open().await.tail().await.unwrap(), tail);
    drop(log);
    stack.crash();
    assert_eq!(stack.open().await.tail().await.unwrap(), tail);

    let another = match &stack {
        Stack::Sqlite(_) => Stack::sqlite(),
        Stack::JetStream(_) => Stack::jetstream(),
    };
    let another = another.unwrap().open().await.tail().await.unwrap();
    assert_ne!(another.incarnation, tail.incarnation);
}

async fn everything_acknowledged_is_there_after_a_crash(mut stack: Stack) {
    let log = stack.open().await;
    history(&*log).await;
    let before = all(log.read(Filter::All, Position::ZERO).await.unwrap()).await;
    drop(log);
    stack.crash();
    let log = stack.open().await;
    let after = all(log.read(Filter::All, Position::ZERO).await.unwrap()).await;
    assert_eq!(before, after);
    let next = append(&*log, Subject::User(user(1)), "goes on").await;
    assert_eq!(next, Position::new(11));
}

async fn one_of_many_concurrent_appenders_wins(stack: Stack) {
    let (log, other) = (stack.open().await, stack.open().await);
    for number in 0..5 {
        let subject = Subject::RoomLifecycle(room(number));
        let appends = (0..64).map(|appender| {
            let log = if appender % 2 == 0 { &log } else { &other };
            log.append(event(subject, appender.to_string()), Expect::Empty)
        });
        let outcomes = join_all(appends).await;
        let mut winners = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok());
        let winner = winners.next().expect("somebody wins");
        assert!(winners.next().is_none(), "{outcomes:?}");
        let conflicts = outcomes
            .iter()
            .filter(|outcome| matches!(outcome, Err(LogError::Conflict(_))));
        assert_eq!(conflicts.count(), 63);
        let last = log.last_of(subject).await.unwrap().unwrap();
        assert_eq!(last.position, winner.position);
    }
    assert_eq!(log.tail().await.unwrap().last, Position::new(5));
}

async fn concurrent_appends_are_dense_and_each_there_once(stack: Stack) {
    let (log, other) = (stack.open().await, stack.open().await);
    let mut appends = JoinSet::new();
    for number in 0..500_u64 {
        let log = Arc::clone(if number % 2 == 0 { &log } else { &other });
        appends.spawn(async move {
            let subject = Subject::RoomTimeline(room(u128::from(number % 3)));
            let event = event(subject, number.to_string());
            // Every fourth is sent twice, at the same time.
            let position = if number % 4 == 0 {
                let (one, two) = tokio::join!(
                    log.append(event.clone(), Expect::Any),
                    log.append(event.clone(), Expect::Any),
                );
                let (one, two) = (one.unwrap(), two.unwrap());
                assert_eq!(one.position, two.position);
                assert_ne!(one.duplicate, two.duplicate);
                one.position
            } else {
                log.append(event, Expect::Any).await.unwrap().position
            };
            (position, number.to_string())
        });
    }
    let mut appended = appends.join_all().await;
    appended.sort_unstable();
    let stored = all(log.read(Filter::All, Position::ZERO).await.unwrap()).await;
    let stored: Vec<_> = stored.iter().map(|it| (it.position, text(it))).collect();
    assert_eq!(stored, appended);
    assert_eq!(stored.last().unwrap().0, Position::new(500));
}

async fn a_payload_too_large_is_refused(stack: Stack) {
    let log = stack.open().await;
    let subject = Subject::RoomTimeline(room(1));
    let largest = event(subject, "x".repeat(MAX_EVENT_BYTES));
    log.append(largest, Expect::Any).await.unwrap();
    for size in [MAX_EVENT_BYTES + 1, 10 * MAX_EVENT_BYTES] {
        let refused = log
            .append(event(subject, "x".repeat(size)), Expect::Any)
            .await;
        let reported = match refused {
            Err(LogError::TooLarge { size }) => size,
            other => panic!("{other:?}"),
        };
        assert_eq!(reported, size);
    }
    // Nothing else is disturbed.
    assert_eq!(append(&*log, subject, "small").await, Position::new(2));
    let found = all(log.read(Filter::All, Position::ZERO).await.unwrap()).await;
    assert_eq!(found[0].payload.len(), MAX_EVENT_BYTES);
}

async fn payloads_are_kept_byte_for_byte(stack: Stack) {
    let log = stack.open().await;
    let subject = Subject::RoomTimeline(room(1));
    let payloads: [&[u8]; 5] = [
        b"",
        b"\0\r\n\x1b",
        &[0xff, 0xfe, 0x80],
        "e\u{301} \u{202e}\u{1f469}\u{200d}\u{1f680}".as_bytes(),
        b"\r\nNATS/1.0 503\r\n\r\n",
    ];
    for payload in payloads {
        let event = NewEvent {
            payload: Bytes::copy_from_slice(payload),
            ..event(subject, "")
        };
        let position = log.append(event, Expect::Any).await.unwrap().position;
        let found = log.get(position).await.unwrap().unwrap();
        assert_eq!(found.payload, payload);
        assert_eq!(log.last_of(subject).await.unwrap(), Some(found));
    }
    let read = all(log.read(Filter::All, Position::ZERO).await.unwrap()).await;
    assert!(read.iter().map(|it| &it.payload[..]).eq(payloads));
}

async fn two_processes_see_each_others_appends(stack: Stack) {
    let (one, two) = (stack.open().await, stack.open().await);
    let mut seen_by_one = one.follow(Filter::All, Position::ZERO).await.unwrap();
    let mut seen_by_two = two.follow(Filter::All, Position::ZERO).await.unwrap();
    for round in 0..20 {
        let writer = if round % 2 == 0 { &one } else { &two };
        let position = append(&**writer, Subject::User(user(round)), "x").await;
        for seen in [&mut seen_by_one, &mut seen_by_two] {
            assert_eq!(seen.next().await.unwrap().unwrap().position, position);
        }
        let found = one.get(position).await.unwrap();
        assert_eq!(
            found,
            two.last_of(Subject::User(user(round))).await.unwrap()
        );
    }
}

async fn following_for_ever_ends_when_it_is_told_to(stack: Stack) {
    let log = stack.open().await;
    history(&*log).await;
    let shutdown = CancellationToken::new();
    let mut followed = follow_forever(
        Arc::clone(&log),
        Filter::All,
        Position::new(9),
        shutdown.clone(),
    );
    let Some(Followed::Event(event)) = followed.next().await else {
        panic!("no event");
    };
    assert_eq!(text(&event), "m1c");
    shutdown.cancel();
    assert!(followed.next().await.is_none());

    // A position that the log has never reached is another log's.
    let shutdown = CancellationToken::new();
    let mut followed = follow_forever(log, Filter::All, Position::new(11), shutdown);
    let news = followed.next().await;
    assert!(
        matches!(&news, Some(Followed::Lost(LogError::Unusable(_)))),
        "{news:?}"
    );
    assert!(followed.next().await.is_none());
}

/// The next signal as text; `None` for [`Signal::Missed`].
async fn heard(listening: &mut Listening) -> Option<String> {
    match listening.next().await.expect("it goes on for ever") {
        Signal::Sent(signal) => Some(String::from_utf8(signal.to_vec()).unwrap()),
        Signal::Missed => None,
    }
}

async fn signals_reach_every_listener_in_the_senders_order(stack: Stack) {
    const EACH: usize = 500;
    let (one, two) = stack.signals().await;
    let mut listeners = JoinSet::new();
    for signals in [&one, &one, &two] {
        let mut listening = signals.listen().await.unwrap();
        listeners.spawn(async move {
            let mut of = [0, 0];
            while of != [EACH, EACH] {
                let signal = heard(&mut listening).await.expect("nothing is missed");
                let (sender, number) = signal.split_once(' ').unwrap();
                let count = &mut of[sender.parse::<usize>().unwrap()];
                assert_eq!(number.parse(), Ok(*count));
                *count += 1;
            }
        });
    }
    let senders = [one, two].into_iter().enumerate();
    let senders: JoinSet<()> = senders
        .map(|(sender, signals)| async move {
            for number in 0..EACH {
                let signal = format!("{sender} {number}").into();
                signals.send(signal).await.unwrap();
            }
        })
        .collect();
    senders.join_all().await;
    listeners.join_all().await;
}

async fn signals_are_bounded_and_never_kept(stack: Stack) {
    let log = stack.open().await;
    let signals = log.signals();
    signals.send("to nobody".into()).await.unwrap();
    let gone = signals.listen().await.unwrap();
    let mut listening = signals.listen().await.unwrap();
    drop(gone);
    for size in [0, MAX_SIGNAL_BYTES] {
        signals.send(vec![0xff; size].into()).await.unwrap();
        let expected = Signal::Sent(vec![0xff; size].into());
        assert_eq!(listening.next().await, Some(expected));
    }
    let refused = signals.send(vec![0; MAX_SIGNAL_BYTES + 1].into()).await;
    assert!(matches!(refused, Err(LogError::TooLarge { .. })));
    assert!(listening.next().now_or_never().is_none());
    assert_eq!(log.tail().await.unwrap().last, Position::ZERO);
}

async fn a_listener_that_falls_behind_is_told(stack: Stack) {
    // More than either adapter keeps for a listener.
    const TOO_MANY: usize = 70_000;
    let (one, two) = stack.signals().await;
    let mut slow = one.listen().await.unwrap();
    let mut quick = one.listen().await.unwrap();
    // Until all have come, or there were more than are kept for a listener.
    let came = tokio::spawn(async move {
        while heard(&mut quick)
            .await
            .is_some_and(|signal| signal != "end")
        {}
    });
    for number in 0..TOO_MANY {
        // What is dropped before it is sent is not what this is about.
        while two.send(number.to_string().into()).await.is_err() {}
    }
    while two.send("end".into()).await.is_err() {}
    came.await.unwrap();
    let mut heard_before = 0;
    while heard(&mut slow).await.is_some() {
        heard_before += 1;
    }
    assert!(heard_before < TOO_MANY, "nothing was missed");

    // It goes on. Should more have been missed meanwhile, that is said too.
    for signals in [one, two] {
        signals.send("fresh".into()).await.unwrap();
        loop {
            match heard(&mut slow).await.as_deref() {
                Some("fresh") => break,
                Some(_) => {}
                None => signals.send("fresh".into()).await.unwrap(),
            }
        }
    }
}

/// What only the SQLite log has to stand.
mod sqlite_only {
    use std::io::{BufRead, BufReader};
    use std::path::Path;
    use std::process::{Command, Stdio};

    use super::*;

    const CHILD_LOG: &str = "HANSARD_TEST_CHILD_LOG";
    const CHILD: &str = "sqlite_only::child_that_appends_until_it_is_killed";
    const APPENDERS: u128 = 16;

    /// The `number`th event of an appender.
    fn numbered(appender: u128, number: u128) -> NewEvent {
        NewEvent {
            subject: Subject::RoomTimeline(room(appender)),
            deduplication_id: Uuid::from_u128(appender << 64 | number),
            payload: Bytes::from(format!("{appender}/{number}")),
        }
    }

    /// Not a test by itself: the process that [`a_process_killed_in_mid_append_loses_nothing`] kills.
    #[tokio::test(flavor = "multi_thread")]
    async fn child_that_appends_until_it_is_killed() {
        let Some(path) = std::env::var_os(CHILD_LOG) else {
            return;
        };
        let log = Arc::new(SqliteLog::open(Path::new(&path)).await.unwrap());
        let mut appenders = JoinSet::new();
        for appender in 0..APPENDERS {
            let log = Arc::clone(&log);
            appenders.spawn(async move {
                for number in 0.. {
                    let event = numbered(appender, number);
                    let appended = log.append(event, Expect::Any).await.unwrap();
                    println!("acknowledged {appender} {number} {}", appended.position);
                }
            });
        }
        appenders.join_all().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_process_killed_in_mid_append_loses_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.db");
        for round in 1..=3_usize {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args([CHILD, "--exact", "--nocapture"])
                .env(CHILD_LOG, &path)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let mut acknowledged = Vec::new();
            for line in lines {
                // What the kill cut off is no acknowledgement.
                let Ok(line) = line else { break };
                let fields: Vec<&str> = line.split(' ').collect();
                if let [.., "acknowledged", appender, number, position] = fields[..]
                    && position.len() == 16
                {
                    let of = |text: &str| text.parse::<u128>().unwrap();
                    let position = position.parse::<Position>().unwrap();
                    acknowledged.push((of(appender), of(number), position));
                }
                if acknowledged.len() == 300 * round {
                    // `kill` sends SIGKILL; what was written to the pipe before is still read.
                    child.kill().unwrap();
                }
            }
            child.wait().unwrap();
            assert!(acknowledged.len() >= 300 * round);

            let log = SqliteLog::open(&path).await.unwrap();
            for (appender, number, position) in &acknowledged {
                let found = log.get(*position).await.unwrap().expect("it is there");
                assert_eq!(text(&found), format!("{appender}/{number}"));
            }
            // What was under way may be there or not. Sent again, everything is there once.
            for appender in 0..APPENDERS {
                let own = acknowledged.iter().filter(|it| it.0 == appender);
                let next = own.map(|it| it.1 + 1).max().unwrap_or(0);
                for number in 0..=next {
                    let event = numbered(appender, number);
                    log.append(event, Expect::Any).await.unwrap();
                }
            }
            let events = all(log.read(Filter::All, Position::ZERO).await.unwrap()).await;
            let texts: HashSet<String> = events.iter().map(text).collect();
            assert_eq!(texts.len(), events.len(), "something is there twice");
            let last = log.tail().await.unwrap().last.get();
            assert_eq!(last, events.len() as u64, "there are gaps");
        }
    }

    #[tokio::test]
    async fn a_commit_is_durable() {
        let directory = tempfile::tempdir().unwrap();
        let log = SqliteLog::open(&directory.path().join("log.db"))
            .await
            .unwrap();
        assert_eq!(log.durability().await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn a_copy_that_nobody_may_write_to_is_read_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let original = directory.path().join("log.db");
        let log = SqliteLog::open(&original).await.unwrap();
        for text in ["one", "two"] {
            append(&log, Subject::RoomTimeline(room(1)), text).await;
        }
        let tail = log.tail().await.unwrap();
        // A name that is not one in a URL.
        let path = directory.path().join("a copy?#100%.db");
        let connection = rusqlite::Connection::open(&original).unwrap();
        connection
            .execute("VACUUM INTO ?1", [path.to_str().unwrap()])
            .unwrap();
        drop((log, connection));
        let refusal = |opened: Result<SqliteLog, LogError>| match opened {
            Err(LogError::Unusable(reason)) => reason,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it was opened"),
        };
        let told = refusal(SqliteLog::open_copy(&path).await);
        assert!(told.contains("can be written to"), "{told}");

        let mut permissions = std::fs::metadata(&path).unwrap().permissions();
        permissions.set_readonly(true);
        std::fs::set_permissions(&path, permissions).unwrap();
        let before = std::fs::read(&path).unwrap();
        let copy = SqliteLog::open_copy(&path).await.unwrap();
        assert_eq!(copy.tail().await.unwrap(), tail);
        assert_eq!(
            texts(&copy, Filter::All, Position::ZERO).await,
            ["one", "two"]
        );
        let new = NewEvent {
            subject: Subject::RoomTimeline(room(1)),
            deduplication_id: Uuid::new_v4(),
            payload: Bytes::from_static(b"three"),
        };
        let refused = copy.append(new, Expect::Any).await.unwrap_err();
        assert!(refused.to_string().contains("a copy"), "{refused}");
        drop(copy);
        assert_eq!(std::fs::read(&path).unwrap(), before);

        // What has not been moved into the file yet would be left out.
        let ahead = directory.path().join("a copy?#100%.db-wal");
        std::fs::write(&ahead, "something").unwrap();
        let told = refusal(SqliteLog::open_copy(&path).await);
        assert!(told.contains("not the whole of a log"), "{told}");
    }

    #[tokio::test]
    async fn a_directory_that_can_not_be_written_is_named() {
        let url: LogUrl = "sqlite:log.db".parse().unwrap();
        let Err(error) = event_log::open(&url, Path::new("/proc/nowhere")).await else {
            panic!("opened");
        };
        assert!(matches!(error, LogError::Unusable(_)), "{error}");
        assert!(error.to_string().contains("/proc/nowhere"), "{error}");
    }
}

/// What only the JetStream log has to stand.
mod jetstream_only {
    use std::time::Instant;

    use super::*;

    fn nowhere() -> &'static std::path::Path {
        std::path::Path::new("/nonexistent")
    }

    async fn error_of_opening(url: &str) -> LogError {
        match event_log::open(&url.parse().unwrap(), nowhere()).await {
            Ok(_) => panic!("opened"),
            Err(error) => error,
        }
    }

    /// A client of the server other than Hansard.
    async fn operator(server: &NatsServer) -> async_nats::jetstream::Context {
        let client = async_nats::connect(format!("127.0.0.1:{}", server.port()));
        async_nats::jetstream::new(client.await.unwrap())
    }

    /// Appends `events` at full speed, and says which were acknowledged, and where.
    fn burst(log: &Arc<dyn EventLog>, events: &[NewEvent]) -> JoinSet<Option<(usize, Position)>> {
        let mut appends = JoinSet::new();
        for (number, event) in events.iter().enumerate() {
            let (log, event) = (Arc::clone(log), event.clone());
            let expect = expectation(number);
            appends.spawn(async move {
                match log.append(event, expect).await {
                    Ok(appended) => Some((number, appended.position)),
                    Err(LogError::Unavailable(_)) => None,
                    Err(other) => panic!("{other}"),
                }
            });
        }
        appends
    }

    fn expectation(number: usize) -> Expect {
        if number.is_multiple_of(2) {
            Expect::Any
        } else {
            Expect::Empty
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_killed_in_a_burst_loses_and_doubles_nothing() {
        let Some(mut server) = NatsServer::start() else {
            return;
        };
        let log = open_nats(&server).await;
        let mut acknowledged = Vec::new();
        let mut events = Vec::new();
        // The second time the server stays away until every append has given up.
        for (round, stays_away) in [(0, false), (1, true)] {
            let batch: Vec<NewEvent> = (0..2_000)
                .map(|number| {
                    let number = round * 2_000 + number;
                    event(Subject::User(user(number)), number.to_string())
                })
                .collect();
            let mut appends = burst(&log, &batch);
            let mut done = Vec::new();
            while let Some(outcome) = appends.join_next().await {
                done.extend(outcome.unwrap());
                if done.len() == 200 {
                    server.kill();
                    if !stays_away {
                        server.restart();
                    }
                }
            }
            assert!(
                !stays_away || done.len() < batch.len(),
                "nothing was cut off"
            );
            if stays_away {
                server.restart();
            }
            let first = events.len();
            acknowledged.extend(done.iter().map(|(number, at)| (first + number, *at)));
            // Everything is sent again, acknowledged or not.
            for (number, event) in batch.iter().enumerate() {
                let again = log
                    .append(event.clone(), expectation(number))
                    .await
                    .unwrap();
                if let Some((_, at)) = done.iter().find(|it| it.0 == number) {
                    assert_eq!((again.position, again.duplicate), (*at, true));
                }
            }
            events.extend(batch);
        }
        for (number, position) in acknowledged {
            let found = log.get(position).await.unwrap().expect("it is there");
            assert_eq!(found.payload, events[number].payload);
        }
        let stored = texts(&*log, Filter::All, Position::ZERO).await;
        let distinct: HashSet<&String> = stored.iter().collect();
        assert_eq!((stored.len(), distinct.len()), (events.len(), events.len()));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_follower_outlives_the_server() {
        let Some(mut server) = NatsServer::start() else {
            return;
        };
        let log = open_nats(&server).await;
        let shutdown = CancellationToken::new();
        let writing = CancellationToken::new();
        let writer = tokio::spawn({
            let (log, writing) = (Arc::clone(&log), writing.clone());
            async move {
                let mut acknowledged = 0_u64;
                while !writing.is_cancelled() {
                    let event = event(Subject::User(user(1)), acknowledged.to_string());
                    while log.append(event.clone(), Expect::Any).await.is_err() {}
                    acknowledged += 1;
                }
                acknowledged
            }
        });
        let mut followed = follow_forever(log, Filter::All, Position::ZERO, shutdown.clone());
        let (mut next, mut restarts, mut degraded) = (1, 0, false);
        within(async {
            while restarts < 3 {
                match followed.next().await.unwrap() {
                    Followed::Event(event) => {
                        assert!(!degraded, "an event while degraded");
                        assert_eq!(event.position.get(), next);
                        next += 1;
                        if next % 200 == 0 {
                            server.kill();
                        }
                    }
                    Followed::Degraded(error) => {
                        assert!(matches!(error, LogError::Unavailable(_)), "{error}");
                        degraded = true;
                        server.restart();
                    }
                    Followed::Restored => {
                        degraded = false;
                        restarts += 1;
                    }
                    Followed::Lost(error) => panic!("{error}"),
                }
            }
        })
        .await;
        writing.cancel();
        let acknowledged = within(writer).await.unwrap();
        within(async {
            while next <= acknowledged {
                if let Followed::Event(event) = followed.next().await.unwrap() {
                    assert_eq!(event.position.get(), next);
                    next += 1;
                }
            }
        })
        .await;
        shutdown.cancel();
        assert!(within(followed.next()).await.is_none());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_that_answers_nothing_is_noticed() {
        let Some(mut server) = NatsServer::start() else {
            return;
        };
        let log = open_nats(&server).await;
        append(&*log, Subject::User(user(1)), "before").await;
        let mut follower = log.follow(Filter::All, Position::new(1)).await.unwrap();
        server.freeze();

        let begun = Instant::now();
        let sent = event(Subject::User(user(2)), "sent");
        let error = log.append(sent.clone(), Expect::Empty).await.unwrap_err();
        assert!(matches!(error, LogError::Unavailable(_)), "{error}");
        assert!(
            begun.elapsed() < Duration::from_secs(8),
            "{:?}",
            begun.elapsed()
        );
        let end = within(follower.next()).await.unwrap();
        assert!(matches!(end, Err(LogError::Unavailable(_))), "{end:?}");
        assert!(
            begun.elapsed() < Duration::from_secs(15),
            "{:?}",
            begun.elapsed()
        );
        assert!(matches!(log.tail().await, Err(LogError::Unavailable(_))));
        assert!(log.read(Filter::All, Position::ZERO).await.is_err());
        let opening = error_of_opening(&server.url()).await;
        assert!(matches!(opening, LogError::Unavailable(_)), "{opening}");

        server.thaw();
        let again = within(async {
            loop {
                match log.append(sent.clone(), Expect::Empty).await {
                    Ok(appended) => break appended,
                    Err(LogError::Unavailable(_)) => {}
                    Err(other) => panic!("{other}"),
                }
            }
        })
        .await;
        assert_eq!(again.position, Position::new(2));
        assert_eq!(
            texts(&*log, Filter::All, Position::ZERO).await,
            ["before", "sent"]
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn deleted_messages_leave_no_reader_waiting() {
        let Some(server) = NatsServer::start() else {
            return;
        };
        let log = open_nats(&server).await;
        history(&*log).await;
        let stream = operator(&server).await.get_stream("HANSARD").await.unwrap();
        for position in [4, 9, 10] {
            stream.delete_message(position).await.unwrap();
        }
        within(async {
            let all = texts(&*log, Filter::All, Position::ZERO).await;
            assert_eq!(all, ["u1", "u2", "r1", "r2", "m2", "m1b", "u1b"]);
            let one_room = texts(&*log, Filter::Room(room(1)), Position::ZERO).await;
            assert_eq!(one_room, ["r1", "m1b"]);
            assert!(texts(&*log, Filter::All, Position::new(8)).await.is_empty());
            assert_eq!(log.get(Position::new(9)).await.unwrap(), None);
            // Nothing takes the place of what was deleted.
            assert_eq!(log.tail().await.unwrap().last, Position::new(10));

            // What a reader waits for is deleted under way.
            let events = log.read(Filter::All, Position::ZERO).await.unwrap();
            stream.delete_message(8).await.unwrap();
            stream.delete_message(7).await.unwrap();
            assert!(all_texts(events).await.len() >= 5);
        })
        .await;
    }

    async fn all_texts(events: Events) -> Vec<String> {
        all(events).await.iter().map(text).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn readers_leave_nothing_behind_on_the_server() {
        let Some(server) = NatsServer::start() else {
            return;
        };
        let log = open_nats(&server).await;
        history(&*log).await;
        for _ in 0..10 {
            texts(&*log, Filter::All, Position::ZERO).await;
            drop(log.follow(Filter::All, Position::ZERO).await.unwrap());
        }
        let stream = operator(&server).await.get_stream("HANSARD").await.unwrap();
        within(async {
            while stream.get_info().await.unwrap().state.consumer_count > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn many_readers_at_once_take_turns() {
        let Some(server) = NatsServer::start() else {
            return;
        };
        let log = open_nats(&server).await;
        history(&*log).await;
        let stream = operator(&server).await.get_stream("HANSARD").await.unwrap();
        // Readers that were given their turn and take their time.
        let mut slow = Vec::new();
        for _ in 0..64 {
            let mut events = log.read(rooms([1, 2]), Position::ZERO).await.unwrap();
            assert_eq!(text(&events.next().await.unwrap().unwrap()), "r1");
            slow.push(events);
        }
        let readers = (0..200).map(|number| {
            let log = Arc::clone(&log);
            async move { texts(&*log, rooms([1, number]), Position::new(6)).await }
        });
        let mut readers: JoinSet<_> = readers.collect();
        // Following needs no turn.
        let mut followed = log.follow(rooms([1]), Position::new(9)).await.unwrap();
        assert_eq!(
            text(&within(followed.next()).await.unwrap().unwrap()),
            "m1c"
        );
        assert!(readers.try_join_next().is_none(), "a reader did not wait");
        assert_eq!(stream.get_info().await.unwrap().state.consumer_count, 65);

        // A waiting reader that goes away takes nobody's turn.
        let waiting = log.read(Filter::All, Position::ZERO).now_or_never();
        assert!(waiting.is_none());
        slow.clear();
        within(async {
            drop(followed);
            loop {
                let consumers = stream.get_info().await.unwrap().state.consumer_count;
                assert!(consumers <= 65, "{consumers} consumers");
                while let Some(found) = readers.try_join_next() {
                    assert_eq!(found.unwrap(), ["m1b", "r1b", "m1c"]);
                }
                if readers.is_empty() && consumers == 0 {
                    break;
                }
            }
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn signals_outlive_the_server() {
        let Some(mut server) = NatsServer::start() else {
            return;
        };
        let logs = [open_nats(&server).await, open_nats(&server).await];
        let ends = logs.map(|log| log.signals());
        let mut listeners = Vec::new();
        for end in &ends {
            listeners.push(end.listen().await.unwrap());
        }
        for round in 0..3 {
            server.kill();
            let begun = Instant::now();
            for end in &ends {
                // Until the loss is noticed, signals are lost without a word.
                let error = within(async {
                    loop {
                        match end.send("lost".into()).await {
                            Ok(()) => tokio::task::yield_now().await,
                            Err(error) => break error,
                        }
                    }
                });
                assert!(matches!(error.await, LogError::Unavailable(_)));
            }
            assert!(begun.elapsed() < Duration::from_secs(5));
            server.restart();
            for (end, listening) in ends.iter().zip(&mut listeners) {
                within(async {
                    while heard(listening).await.is_some() {}
                    // From here on it hears itself.
                    let own = format!("own {round}");
                    end.send(own.clone().into()).await.unwrap();
                    while heard(listening).await.as_ref() != Some(&own) {}
                })
                .await;
            }
            for (number, end) in ends.iter().enumerate() {
                let signal = format!("{round} by {number}");
                end.send(signal.clone().into()).await.unwrap();
                for listening in &mut listeners {
                    within(async { while heard(listening).await.as_ref() != Some(&signal) {} })
                        .await;
                }
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stream_made_anew_is_another_log() {
        let Some(server) = NatsServer::start() else {
            return;
        };
        let log = open_nats(&server).await;
        history(&*log).await;
        let shutdown = CancellationToken::new();
        let mut followed = follow_forever(Arc::clone(&log), Filter::All, Position::ZERO, shutdown);
        for _ in 0..10 {
            assert!(matches!(followed.next().await, Some(Followed::Event(_))));
        }
        let before = log.tail().await.unwrap();
        operator(&server)
            .await
            .delete_stream("HANSARD")
            .await
            .unwrap();
        let gone = log.tail().await;
        assert!(matches!(gone, Err(LogError::Unusable(_))), "{gone:?}");
        let another = open_nats(&server).await;
        history(&*another).await;
        history(&*another).await;
        assert_ne!(
            another.tail().await.unwrap().incarnation,
            before.incarnation
        );
        within(async {
            loop {
                match followed.next().await.unwrap() {
                    Followed::Lost(LogError::Unusable(reason)) => {
                        assert!(reason.contains("replaced"), "{reason}");
                        break;
                    }
                    Followed::Degraded(_) => {}
                    other => panic!("{other:?}"),
                }
            }
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_existing_stream_keeps_its_settings_if_they_keep_events() {
        let Some(server) = NatsServer::start() else {
            return;
        };
        let operator = operator(&server).await;
        let config = async_nats::jetstream::stream::Config {
            name: "HANSARD".to_owned(),
            subjects: vec!["chat.>".to_owned()],
            description: Some("made by hand".to_owned()),
            // No direct gets: then everything is read from the stream's leader.
            allow_direct: false,
            ..Default::default()
        };
        operator.create_stream(config.clone()).await.unwrap();
        let log = open_nats(&server).await;
        history(&*log).await;
        let found = log.get(Position::new(4)).await.unwrap().unwrap();
        assert_eq!(text(&found), "m1");
        assert_eq!(log.get(Position::new(11)).await.unwrap(), None);
        let last = log.last_of(Subject::User(user(1))).await.unwrap().unwrap();
        assert_eq!(text(&last), "u1b");
        let stream = operator.get_stream("HANSARD").await.unwrap();
        let kept = &stream.cached_info().config;
        assert_eq!(kept.description.as_deref(), Some("made by hand"));

        let config = async_nats::jetstream::stream::Config {
            max_age: Duration::from_secs(3_600),
            ..config
        };
        operator.update_stream(config).await.unwrap();
        let error = error_of_opening(&server.url()).await;
        assert!(matches!(error, LogError::Unusable(_)), "{error}");
        assert!(error.to_string().contains("max_age"), "{error}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn durability_is_read_from_the_monitoring_endpoint() {
        let Some(server) = NatsServer::start() else {
            return;
        };
        let asked = async |url: String| {
            let log = event_log::open(&url.parse().unwrap(), nowhere())
                .await
                .unwrap();
            log.durability().await
        };
        let durability = async |url: String| asked(url).await.unwrap();
        assert_eq!(durability(server.monitored_url()).await, Ok(()));
        let unknown = durability(server.url()).await.unwrap_err();
        assert!(unknown.contains("could not be determined"), "{unknown}");

        let lazy = NatsServer::start_with("sync_interval: 30s").unwrap();
        let reason = durability(lazy.monitored_url()).await.unwrap_err();
        assert!(reason.contains("every 30 s"), "{reason}");

        // The monitoring address of another server proves nothing.
        let (_, monitor) = server
            .monitored_url()
            .split_once('?')
            .map(|it| (it.0.to_owned(), it.1.to_owned()))
            .unwrap();
        let reason = durability(format!("{}?{monitor}", lazy.url()))
            .await
            .unwrap_err();
        assert!(reason.contains("server in use"), "{reason}");

        // A server that is down acknowledges nothing; but the one in use has to say what it does.
        let one_down = format!("{},http://127.0.0.1:1", server.monitored_url());
        assert_eq!(durability(one_down).await, Ok(()));
        let nobody = asked(format!("{}?monitor=http://127.0.0.1:1", server.url())).await;
        assert!(
            matches!(&nobody, Err(LogError::Unavailable(reason)) if reason.contains("could not be determined")),
            "{nobody:?}"
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_that_is_not_there_is_named_without_the_password() {
        let begun = Instant::now();
        let error = error_of_opening("nats://ann:secret@127.0.0.1:1,127.0.0.1:2/X").await;
        assert!(begun.elapsed() < Duration::from_secs(10));
        assert!(matches!(error, LogError::Unavailable(_)), "{error}");
        let shown = format!("{error} {error:?}");
        assert!(shown.contains("127.0.0.1:1"), "{shown}");
        assert!(!shown.contains("secret"), "{shown}");
    }
}
