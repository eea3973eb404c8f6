//! What is done to a log behind Hansard's back is caught, and told as what it is: on SQLite by editing the
//! file, on JetStream through the server's own interface and with streams that were made to look alike.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use event_log::NewEvent;
use event_log::testing::NatsServer;
use merkle::TreeHead;
use notary::{How, LogReport, Status, Tampering};
use rusqlite::Connection;
use support::*;

/// Some more than two tiles.
const EVENTS: u64 = 600;

/// What somebody does to the log.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Deed {
    FlipBit(u64),
    Remove(u64),
    RemoveAndCloseRanks(u64),
    Swap(u64, u64),
    Insert(u64),
    CutOff(u64),
    Replace,
}

impl Deed {
    /// The events as they are afterwards.
    fn on(self, mut events: Vec<NewEvent>) -> Vec<NewEvent> {
        let at = |position: u64| usize::try_from(position - 1).unwrap();
        match self {
            Self::FlipBit(position) => {
                let mut payload = events[at(position)].payload.to_vec();
                payload[2] ^= 1;
                events[at(position)].payload = payload.into();
            }
            Self::Remove(position) | Self::RemoveAndCloseRanks(position) => {
                events.remove(at(position));
            }
            Self::Swap(one, other) => {
                let payload = events[at(one)].payload.clone();
                events[at(one)].payload = events[at(other)].payload.clone();
                events[at(other)].payload = payload;
            }
            Self::Insert(position) => events.insert(at(position), event(9_999)),
            Self::CutOff(last) => events.truncate(at(last + 1)),
            Self::Replace => events = (1..=EVENTS).map(|number| event(5_000 + number)).collect(),
        }
        events
    }

    /// Does it to the file of a log.
    fn in_file(self, path: &std::path::Path) {
        let file = Connection::open(path).unwrap();
        let run = |sql: &str| {
            assert_ne!(file.execute(sql, []).unwrap(), 0, "{sql}");
        };
        match self {
            Self::FlipBit(position) => {
                let mut payload = payload_of(&file, position);
                payload[2] ^= 1;
                let sql = "UPDATE events SET payload = ?1 WHERE position = ?2";
                file.execute(sql, (payload, position.cast_signed()))
                    .unwrap();
            }
            Self::Remove(position) => {
                run(&format!("DELETE FROM events WHERE position = {position}"));
            }
            Self::RemoveAndCloseRanks(position) => {
                run(&format!("DELETE FROM events WHERE position = {position}"));
                run(&format!(
                    "UPDATE events SET position = -position WHERE position > {position}"
                ));
                run("UPDATE events SET position = -position - 1 WHERE position < 0");
            }
            Self::Swap(one, other) => {
                run(&format!(
                    "UPDATE events SET position = -1 WHERE position = {one}"
                ));
                run(&format!(
                    "UPDATE events SET position = {one} WHERE position = {other}"
                ));
                run(&format!(
                    "UPDATE events SET position = {other} WHERE position = -1"
                ));
            }
            Self::Insert(position) => {
                run(&format!(
                    "UPDATE events SET position = -position WHERE position >= {position}"
                ));
                run("UPDATE events SET position = 1 - position WHERE position < 0");
                run(&format!(
                    "INSERT INTO events SELECT {position}, subject, randomblob(16), stored_at, x'00' \
                     FROM events LIMIT 1"
                ));
            }
            Self::CutOff(last) => run(&format!("DELETE FROM events WHERE position > {last}")),
            Self::Replace => unreachable!("the file itself is replaced"),
        }
    }
}

fn payload_of(file: &Connection, position: u64) -> Vec<u8> {
    let sql = "SELECT payload FROM events WHERE position = ?1";
    file.query_row(sql, [position.cast_signed()], |row| row.get(0))
        .unwrap()
}

/// What is told first, besides that it is another log.
fn first(report: &LogReport) -> (Option<u64>, How) {
    let own = report
        .differences
        .iter()
        .find(|it| !matches!(it.how, How::OtherLog { .. }));
    let own = own.unwrap_or_else(|| panic!("{report}"));
    (own.position.map(|position| position.get()), own.how.clone())
}

fn check(deed: Deed, report: &LogReport) {
    assert!(!report.is_equal(), "{deed:?}: {report}");
    let told = first(report);
    let expected = match deed {
        Deed::FlipBit(at) => (Some(at), How::Changed),
        Deed::Remove(at) => (Some(at), How::Missing),
        Deed::RemoveAndCloseRanks(at) => (Some(at), How::Removed { count: 1 }),
        Deed::Swap(one, other) => (
            Some(one),
            How::Swapped {
                with: position(other),
            },
        ),
        Deed::Insert(at) => (Some(at), How::Inserted { count: 1 }),
        Deed::CutOff(last) => (
            None,
            How::CutOff {
                last: position(last),
                size: EVENTS,
                by: "the signed tree head from the stored ones".to_owned(),
            },
        ),
        Deed::Replace => (Some(1), How::Changed),
    };
    assert_eq!(told, expected, "{deed:?}: {report}");
    // What is before it is proven all the same, up to the tree head before.
    let at = match deed {
        Deed::CutOff(last) => last + 1,
        _ => expected.0.unwrap_or(1),
    };
    assert_eq!(report.proven, (at - 1) / 100 * 100, "{deed:?}: {report}");
}

const DEEDS: [Deed; 12] = [
    Deed::FlipBit(1),
    Deed::FlipBit(299),
    Deed::FlipBit(EVENTS),
    Deed::Remove(256),
    Deed::RemoveAndCloseRanks(300),
    Deed::Swap(7, 8),
    Deed::Swap(10, 590),
    Deed::Swap(599, 600),
    Deed::Insert(257),
    Deed::CutOff(599),
    Deed::CutOff(450),
    Deed::CutOff(0),
];

#[tokio::test]
async fn every_deed_to_a_sqlite_log_is_told_as_what_it_is() {
    for deed in DEEDS {
        let mut case = Case::new(sqlite().await);
        case.append(EVENTS).await;
        case.keep_until_signed(EVENTS).await;
        assert!(case.verify().await.is_equal());
        case.close();
        deed.in_file(&case.path("log.db"));
        case.open().await;
        check(deed, &case.verify().await);

        // With nothing but the file of tree heads: which part, and which kind where the end is gone.
        let report = case.verify_by_file().await;
        assert!(!report.is_equal(), "{deed:?}");
        let told = report.to_string();
        match deed {
            Deed::CutOff(last) => {
                assert!(told.contains("the tail was cut off"), "{told}");
                assert_eq!(report.proven, last / 100 * 100);
            }
            _ => assert!(told.contains("they differ after the first "), "{told}"),
        }
    }
}

#[tokio::test]
async fn a_sqlite_log_in_the_place_of_another_is_told() {
    let mut case = Case::new(sqlite().await);
    case.append(EVENTS).await;
    case.keep_until_signed(EVENTS).await;
    let other = tempfile::tempdir().unwrap();
    case.set_log(sqlite_log(&other.path().join("log.db")).await);
    fill(case.log().as_ref(), Deed::Replace.on(events(EVENTS))).await;
    let report = case.verify().await;
    assert!(report.to_string().starts_with("another log: "), "{report}");
    check(Deed::Replace, &report);
    assert!(matches!(
        case.keep_until_stopped().await,
        Tampering::OtherLog { .. }
    ));

    // One that was made to pass for it.
    let incarnation = incarnation_of(&case.path("log.db"));
    let file = Connection::open(other.path().join("log.db")).unwrap();
    file.execute(
        "UPDATE meta SET value = ?1 WHERE key = 'incarnation'",
        [incarnation],
    )
    .unwrap();
    drop(file);
    case.set_log(sqlite_log(&other.path().join("log.db")).await);
    let report = case.verify().await;
    assert!(!report.to_string().contains("another log"), "{report}");
    check(Deed::Replace, &report);
    assert!(matches!(
        case.keep_until_stopped().await,
        Tampering::Changed(_)
    ));
}

#[tokio::test]
async fn an_event_deleted_from_a_stream_is_told_as_missing() {
    let Some(stack) = distributed().await else {
        return;
    };
    let case = Case::new(stack);
    case.append(EVENTS).await;
    case.keep_until_signed(EVENTS).await;
    assert!(case.verify().await.is_equal());
    let server = case.server();
    let client = async_nats::connect(format!("127.0.0.1:{}", server.port())).await;
    let stream = async_nats::jetstream::new(client.unwrap());
    let stream = stream.get_stream(event_log::DEFAULT_STREAM).await.unwrap();
    stream.delete_message(300).await.unwrap();
    check(Deed::Remove(300), &case.verify().await);
    assert_eq!(case.keep_for_a_look().await, None);

    // The end, which the notary looks at itself.
    stream.delete_message(EVENTS).await.unwrap();
    assert_eq!(
        case.keep_until_stopped().await,
        Tampering::Changed(position(EVENTS))
    );
    let report = case.verify().await;
    let told: Vec<_> = report.differences.iter().map(|it| it.position).collect();
    assert_eq!(told[..2], [Some(position(300)), Some(position(EVENTS))]);
}

#[tokio::test]
async fn every_deed_to_a_stream_is_told_as_what_it_is() {
    let Some(stack) = distributed().await else {
        return;
    };
    let mut case = Case::new(stack);
    case.append(EVENTS).await;
    case.keep_until_signed(EVENTS).await;
    for deed in [
        Deed::FlipBit(299),
        Deed::RemoveAndCloseRanks(300),
        Deed::Swap(10, 590),
        Deed::Insert(257),
        Deed::CutOff(450),
        Deed::Replace,
    ] {
        // A stream that is altered can only be made anew.
        let server = NatsServer::start().unwrap();
        let log = event_log::open(&server.log_url(), std::path::Path::new("")).await;
        case.set_log(log.unwrap());
        fill(case.log().as_ref(), deed.on(events(EVENTS))).await;
        let report = case.verify().await;
        assert!(report.to_string().starts_with("another log: "), "{report}");
        check(deed, &report);
        assert!(matches!(
            case.keep_until_stopped().await,
            Tampering::OtherLog { .. }
        ));
    }
}

#[tokio::test]
async fn the_notary_stops_at_what_it_sees_and_signs_nothing_any_more() {
    for (deed, expected) in [
        (
            Deed::FlipBit(EVENTS - 3),
            Tampering::Changed(position(EVENTS - 3)),
        ),
        (
            Deed::CutOff(599),
            Tampering::CutOff {
                log: position(599),
                by: "the tree",
                size: EVENTS,
            },
        ),
    ] {
        let mut case = Case::new(sqlite().await);
        case.append(EVENTS).await;
        case.keep_until_signed(EVENTS).await;
        case.close();
        deed.in_file(&case.path("log.db"));
        case.open().await;
        let before = case.heads().await;
        assert_eq!(case.keep_until_stopped().await, expected);
        // Also not once the log is as long again.
        case.append(5).await;
        assert!(matches!(
            case.keep_until_stopped().await,
            Tampering::Changed(_)
        ));
        assert_eq!(case.heads().await, before);
    }
}

#[tokio::test]
async fn what_is_done_while_the_notary_runs_is_seen_as_well() {
    let case = Case::new(sqlite().await);
    case.append(20).await;
    let status = Status::default();
    let running = case.start(status.clone());
    until("all is hashed", || status.size() == 20).await;
    Deed::CutOff(12).in_file(&case.path("log.db"));
    until("it is noticed", || status.tampering().is_some()).await;
    let told = status.check().unwrap_err();
    assert!(told.starts_with("the log's tail was cut off: it ends at position 000000000000000c"));
    running.stop().await;
}

#[tokio::test]
async fn a_changed_tree_is_told_apart_from_a_changed_log() {
    let case = Case::new(sqlite().await);
    case.append(EVENTS).await;
    case.keep_until_signed(EVENTS).await;
    let change = |sql: &str| {
        let file = Connection::open(case.path("read.db")).unwrap();
        assert_eq!(file.execute(sql, []).unwrap(), 1, "{sql}");
    };
    change(
        "UPDATE tree_tiles SET hashes = CAST(zeroblob(32) || substr(hashes, 33) AS BLOB) WHERE level = 0 AND number = 1",
    );
    let report = case.verify().await;
    assert_eq!(report.proven, EVENTS);
    let told = report.differences[0].to_string();
    let expected = "position 0000000000000101: the stored tree was changed, not the log: ";
    assert!(told.starts_with(expected), "{told}");

    change("UPDATE tree_tiles SET hashes = substr(hashes, 1, 32) WHERE level = 0 AND number = 2");
    assert!(matches!(
        case.keep_until_stopped().await,
        Tampering::Tree(_) | Tampering::Root(_)
    ));
}

#[tokio::test]
async fn changed_inner_hashes_are_told() {
    let case = Case::new(sqlite().await);
    case.append(EVENTS).await;
    case.keep_until_signed(EVENTS).await;
    let file = Connection::open(case.path("read.db")).unwrap();
    let sql = "UPDATE tree_tiles SET hashes = CAST(zeroblob(32) || substr(hashes, 33) AS BLOB) WHERE level = 1";
    assert_eq!(file.execute(sql, []).unwrap(), 1);
    let report = case.verify().await;
    let told = report.to_string();
    assert!(
        told.contains("its inner hashes are not those of its leaves"),
        "{told}"
    );
}

#[tokio::test]
async fn a_tree_that_was_turned_back_does_not_get_another_history_signed() {
    let mut case = Case::new(sqlite().await);
    case.append(50).await;
    case.keep_until_signed(50).await;
    // Log and database from a backup; only the file of tree heads is of today.
    case.close();
    std::fs::remove_file(case.path("read.db")).unwrap();
    let file = Connection::open(case.path("log.db")).unwrap();
    file.execute("UPDATE events SET payload = x'00' WHERE position = 7", [])
        .unwrap();
    drop(file);
    case.open().await;
    assert_eq!(case.keep_until_stopped().await, Tampering::Root(50));
    assert!(case.heads().await.is_empty());

    Deed::CutOff(40).in_file(&case.path("log.db"));
    case.open().await;
    let told = case.keep_until_stopped().await.to_string();
    assert!(told.contains("a signed tree head has 50 events"), "{told}");
}

#[tokio::test]
async fn a_tree_head_that_was_not_signed_here_is_not_taken_over() {
    let mut case = Case::new(sqlite().await);
    case.append(30).await;
    case.keep_until_signed(30).await;
    case.keys = vec![key(2)];
    let told = case.keep_until_stopped().await.to_string();
    assert!(
        told.contains("name all keys in one signing_key_file"),
        "{told}"
    );
    assert!(!case.verify().await.is_equal());
    // With both it goes on, and signs with the first.
    case.keys = vec![key(2), key(1)];
    case.append(1).await;
    case.keep_until_signed(31).await;
    let newest = case.heads().await.pop().unwrap();
    assert!(TreeHead::verify(&newest, &[key(2).public().clone()]).is_ok());
    assert!(case.verify().await.is_equal());
}

#[tokio::test]
async fn an_event_that_was_gone_before_it_was_hashed_is_hashed_as_missing_and_told() {
    let case = Case::new(sqlite().await);
    case.append(10).await;
    Deed::Remove(4).in_file(&case.path("log.db"));
    let status = Status::default();
    let running = case.start(status.clone());
    until("all is hashed", || status.size() == 10).await;
    let note = status.check().unwrap().unwrap();
    assert_eq!(
        note,
        "1 positions had no event any more when they were hashed"
    );
    running.stop().await;
    let report = case.verify().await;
    assert!(report.is_equal(), "{report}");
    assert_eq!(report.missing, 1);
}

#[tokio::test]
async fn a_new_tree_is_begun_on_purpose_only_and_the_old_one_is_kept() {
    let mut case = Case::new(sqlite().await);
    case.append(30).await;
    case.keep_until_signed(30).await;
    let old = case.heads().await;
    case.close();
    Deed::CutOff(20).in_file(&case.path("log.db"));
    case.open().await;
    let status = Status::default();
    let running = case.start(status.clone());
    until("it is noticed", || status.tampering().is_some()).await;

    let aside = notary::set_aside(&case.file(), 1).unwrap().unwrap();
    let log = case.log().tail().await.unwrap().incarnation;
    case.store().begin(1, &log).await.unwrap();
    until("it goes on", || {
        status.size() == 20 && status.tampering().is_none()
    })
    .await;
    running.stop().await;
    let report = case.verify().await;
    assert!(report.is_equal(), "{report}");
    assert_eq!(report.proven, 20);
    assert_eq!(case.store().heads(1, 0, 10).await.unwrap(), old);
    let kept = std::fs::read_to_string(aside).unwrap();
    assert_eq!(merkle::heads_of(&kept).collect::<Vec<_>>(), old);
}
