//! `hansard replay`: which events come out, in which form, and what becomes of the output file.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::Arc;

use audit::{Bound, Format, ReplayArgs, ReplayFilter, Selection, Summary, replay};
use clap::Parser;
use event_log::{Expect, NewEvent, Position, SqliteLog};
use events::{Encoded, Envelope, Event, MessageDeleted, MessageId};
use keys::{Keyring, Record};
use serde_json::Value;

use support::*;

/// The positions that a replay with these arguments has.
async fn positions(args: ReplayArgs) -> Vec<u64> {
    let record = history().done().await;
    let end = position(u64::MAX);
    let mut selection = Selection::start(record, args.filter(), end).await.unwrap();
    let mut positions = Vec::new();
    while let Some(selected) = selection.next().await.unwrap() {
        positions.push(selected.recorded.position.get());
    }
    positions
}

fn bound(text: &str) -> Option<Bound> {
    Some(text.parse().unwrap())
}

#[tokio::test]
async fn without_a_filter_everything_is_replayed() {
    let all = positions(ReplayArgs::default()).await;
    assert_eq!(all, (1..=11).collect::<Vec<_>>());
}

#[tokio::test]
async fn by_room_both_of_its_histories_are_replayed() {
    let args = ReplayArgs {
        room: Some(room()),
        ..ReplayArgs::default()
    };
    assert_eq!(positions(args).await, [4, 6, 8, 9, 10]);
}

#[tokio::test]
async fn by_user_what_the_user_did_and_what_is_about_the_user_is_replayed() {
    for (user, expected) in [
        (ANNA, &[1, 4, 9, 10, 11][..]),
        // 10: somebody else deleted Bela's message.
        (BELA, &[2, 4, 5, 6, 10]),
        (CARL, &[3, 5, 7, 11]),
    ] {
        let args = ReplayArgs {
            user: Some(user),
            ..ReplayArgs::default()
        };
        assert_eq!(positions(args).await, expected, "{user}");
    }
    let args = ReplayArgs {
        user: Some(BELA),
        room: Some(room()),
        ..ReplayArgs::default()
    };
    assert_eq!(positions(args).await, [4, 6, 10]);
}

#[tokio::test]
async fn bounds_belong_to_the_range_and_times_judge_each_event_by_its_own() {
    for (from, to, expected) in [
        ("4", "6", &[4, 5, 6][..]),
        ("0000000000000004", "0000000000000006", &[4, 5, 6]),
        // The event at 5 was stored by a clock that ran ahead: the ones behind it are not lost.
        ("2026-11-22T17:00:04Z", "2026-11-22T17:00:07Z", &[4, 6, 7]),
        ("2026-11-22T17:00:10Z", "2026-11-22T17:00:59Z", &[5, 10, 11]),
        ("6", "2026-11-22T17:00:07Z", &[6, 7]),
        ("2026-11-22T17:00:07Z", "7", &[5, 7]),
        ("12", "99", &[]),
        ("0", "1", &[1]),
    ] {
        let args = ReplayArgs {
            from: bound(from),
            to: bound(to),
            ..ReplayArgs::default()
        };
        assert_eq!(positions(args).await, expected, "{from} to {to}");
    }
}

async fn written(args: &ReplayArgs, record: Record) -> (String, Summary) {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("replay");
    let args = ReplayArgs {
        output: Some(output.clone()),
        ..args.clone()
    };
    let summary = replay(&args, record).await.unwrap();
    // Nothing else is left beside it.
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    (std::fs::read_to_string(output).unwrap(), summary)
}

#[tokio::test]
async fn json_lines_hold_each_event_with_what_is_sealed_opened() {
    let log = history();
    let payloads: Vec<_> = log.events.iter().map(|it| it.payload.clone()).collect();
    let (text, summary) = written(&ReplayArgs::default(), log.done().await).await;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), payloads.len());
    for (index, (line, payload)) in lines.iter().zip(&payloads).enumerate() {
        let parsed: Value = serde_json::from_str(line).unwrap();
        assert_eq!(parsed["position"], position(index as u64 + 1).to_string());
        if index == 7 {
            let reason = parsed["undecodable"].as_str().unwrap();
            assert!(reason.starts_with("not an event envelope: "), "{reason}");
            assert_eq!(parsed["payloadBase64"], "ewr/");
            assert_eq!(parsed.get("event"), None);
        } else {
            let payload = std::str::from_utf8(payload).unwrap();
            assert!(line.ends_with(&format!("\"event\":{payload}}}")), "{line}");
        }
    }
    let first = r#"{"position":"0000000000000001","storedAt":"2026-11-22T17:00:01.000Z","subject":"chat.user.0000000000000000000000000000000a","event":{"id""#;
    assert!(lines[0].starts_with(first), "{}", lines[0]);
    assert_eq!(
        summary.to_string(),
        "read up to position 000000000000000b: replayed 11 events; 1 can't be decoded"
    );
}

#[tokio::test]
async fn what_is_no_event_but_text_is_replayed_as_text_on_one_line() {
    let subject = "chat.somewhere.else".to_owned();
    let pretty = history().events.remove(10);
    let value: Value = serde_json::from_slice(&pretty.payload).unwrap();
    let log = GivenLog::default()
        .bytes(1, subject, "no\nevent \u{1b}")
        .bytes(
            2,
            pretty.subject,
            serde_json::to_vec_pretty(&value).unwrap(),
        );
    let (text, _) = written(&ReplayArgs::default(), log.done().await).await;
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["payload"], "no\nevent \u{1b}");
    assert_eq!(lines[1]["event"], value);
}

#[tokio::test]
async fn what_cant_be_attributed_is_counted() {
    let args = ReplayArgs {
        user: Some(CARL),
        ..ReplayArgs::default()
    };
    let (_, summary) = written(&args, history().done().await).await;
    assert_eq!((summary.told.events, summary.told.unattributed), (4, 1));
    assert!(
        summary
            .to_string()
            .contains("left out 1 event that can't be decoded"),
        "{summary}"
    );
}

#[tokio::test]
async fn text_is_one_harmless_line_an_event() {
    let args = ReplayArgs {
        format: Format::Text,
        ..ReplayArgs::default()
    };
    let (text, _) = written(&args, history().done().await).await;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 11);
    assert!(
        text.chars()
            .all(|c| c == '\n' || !(c.is_control() || c == '\u{202e}')),
        "{text:?}"
    );
    assert_eq!(
        lines[5],
        format!(
            r#"2026-11-22T17:00:06.000Z  0000000000000006  {BELA}  posted to room {}: "line\none \u{{202e}}\u{{1b}}[31m\"é\"""#,
            room()
        )
    );
    assert!(lines[0].contains(r#"  -  created the support user "#));
    assert!(lines[0].ends_with(r#": "First" "Last\n""#), "{}", lines[0]);
    assert!(lines[7].contains("undecodable event of 3 bytes in"));
}

#[tokio::test]
async fn an_incomplete_replay_leaves_the_output_file_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("replay.jsonl");
    std::fs::write(&output, "the last good one").unwrap();
    let args = ReplayArgs {
        output: Some(output.clone()),
        ..ReplayArgs::default()
    };
    let failing = GivenLog {
        fails_after: Some(position(5)),
        ..history()
    };
    let error = replay(&args, failing.done().await).await.unwrap_err();
    assert_eq!(
        format!("{error:#}"),
        "the replay ended after position 0000000000000005 before it was complete: the log is unavailable: gone"
    );
    let names: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(names.len(), 1);
    assert_eq!(
        std::fs::read_to_string(&output).unwrap(),
        "the last good one"
    );

    replay(&args, history().done().await).await.unwrap();
    assert_eq!(
        std::fs::read_to_string(&output).unwrap().lines().count(),
        11
    );
}

#[tokio::test]
async fn a_device_or_a_link_is_written_and_not_replaced() {
    let args = ReplayArgs {
        output: Some("/dev/null".into()),
        ..ReplayArgs::default()
    };
    replay(&args, history().done().await).await.unwrap();
    assert!(!std::fs::metadata("/dev/null").unwrap().is_file());

    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("target");
    let link = directory.path().join("link");
    std::fs::write(&target, "").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let args = ReplayArgs {
        output: Some(link.clone()),
        ..ReplayArgs::default()
    };
    replay(&args, history().done().await).await.unwrap();
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(std::fs::read_to_string(target).unwrap().lines().count(), 11);
}

#[tokio::test]
async fn an_output_that_cant_be_written_is_named() {
    let directory = tempfile::tempdir().unwrap();
    for (output, reason) in [
        (directory.path().join("missing/replay"), "No such file"),
        (directory.path().to_owned(), "it is a directory"),
    ] {
        let args = ReplayArgs {
            output: Some(output.clone()),
            ..ReplayArgs::default()
        };
        let error = replay(&args, history().done().await).await.unwrap_err();
        let error = format!("{error:#}");
        let expected = format!("can't write {}: {reason}", output.display());
        assert!(error.starts_with(&expected), "{error}");
    }
}

#[tokio::test]
async fn a_range_that_ends_before_it_begins_is_refused() {
    let args = ReplayArgs {
        from: bound("9"),
        to: bound("3"),
        ..ReplayArgs::default()
    };
    let error = replay(&args, history().done().await).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the range from 0000000000000009 to 0000000000000003 ends before it begins"
    );
}

#[test]
fn wrong_arguments_are_refused_with_what_is_expected() {
    #[derive(Parser, Debug)]
    struct Cli {
        #[command(flatten)]
        args: ReplayArgs,
    }
    let good = Cli::try_parse_from([
        "replay",
        "--room",
        &room().to_string(),
        "--user",
        &ANNA.to_string(),
        "--from",
        "1",
        "--to",
        "2026-11-22T17:00:04Z",
        "--format",
        "text",
        "--no-progress",
    ]);
    assert_eq!(good.unwrap().args.room, Some(room()));
    for (flag, value, expected) in [
        (
            "--room",
            "x",
            "not a room id: expected 32 lower-case hex digits",
        ),
        (
            "--user",
            "x",
            "not a user id: expected 32 lower-case hex digits",
        ),
        ("--from", "yesterday", "neither a time nor a position"),
        ("--to", "", "neither a time nor a position"),
        (
            "--format",
            "xml",
            "[possible values: jsonl, text, transcript, html]",
        ),
    ] {
        let error = Cli::try_parse_from(["replay", flag, value]).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_real_log_is_replayed() {
    let directory = tempfile::tempdir().unwrap();
    let log = SqliteLog::open(&directory.path().join("log.db"))
        .await
        .unwrap();
    let count = history().events.len() as u64;
    let given = history().done().await;
    let record = Record::new(Arc::new(log), given.keyring.clone());
    for number in 1..=count {
        let recorded = given.log.get(position(number)).await.unwrap().unwrap();
        let event = NewEvent {
            subject: recorded.subject.parse().unwrap(),
            deduplication_id: uuid::Uuid::from_u128(recorded.position.get().into()),
            payload: recorded.payload.clone(),
        };
        record.log.append(event, Expect::Any).await.unwrap();
    }
    let args = ReplayArgs {
        room: Some(room()),
        from: bound("5"),
        ..ReplayArgs::default()
    };
    let (text, summary) = written(&args, record.clone()).await;
    assert_eq!(summary.told.events, 4);
    let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let expected: Value = serde_json::from_slice(&history().events[5].payload).unwrap();
    assert_eq!(first["event"], expected);

    // Beyond what a log can hold.
    let args = ReplayArgs {
        from: bound("18446744073709551615"),
        ..ReplayArgs::default()
    };
    let (text, _) = written(&args, record.clone()).await;
    assert_eq!(text, "");
    let nowhere = Envelope::new(
        Event::MessageDeleted(MessageDeleted {
            room_id: room(),
            message_id: MessageId::at(position(u64::MAX)),
        }),
        Some(ANNA),
        None,
    );
    record.append(&nowhere, Expect::Any).await.unwrap();
    let args = ReplayArgs {
        user: Some(CARL),
        ..ReplayArgs::default()
    };
    assert_eq!(written(&args, record).await.1.told.events, 4);
}

#[tokio::test]
async fn by_type_nothing_else_is_replayed_and_what_has_no_type_is_counted() {
    let types = |types: &[&str]| ReplayArgs {
        types: types.iter().map(|it| it.parse().unwrap()).collect(),
        ..ReplayArgs::default()
    };
    assert_eq!(positions(types(&["message.posted"])).await, [6, 7]);
    let two = types(&["user.deleted", "conversation.read"]);
    assert_eq!(positions(two.clone()).await, [9, 11]);
    let (_, summary) = written(&two, history().done().await).await;
    assert_eq!((summary.told.events, summary.told.unattributed), (2, 1));
}

#[tokio::test]
async fn who_replays_is_recorded_first() {
    let log = history();
    let appended = Arc::clone(&log.appended);
    let args = ReplayArgs {
        room: Some(room()),
        ..ReplayArgs::default()
    };
    written(&args, log.done().await).await;
    let recorded = appended.lock().unwrap().pop().unwrap();
    let envelope = Encoded::parse(&recorded.payload).unwrap();
    let envelope = envelope.decode(None).unwrap();
    let Event::AuditRead(read) = envelope.event else {
        panic!("{envelope:?}")
    };
    assert_eq!(envelope.actor, None);
    assert_eq!(read.what, "hansard replay");
    assert_eq!(read.filter["room"], room().to_string());
    let operator = read.operator.unwrap();
    let (user, host) = operator.split_once('@').unwrap();
    assert!(!user.is_empty() && !host.is_empty(), "{operator}");

    // What can't be recorded is not read, unless it is said that it need not be.
    let args = ReplayArgs {
        output: Some("/dev/null".into()),
        ..ReplayArgs::default()
    };
    let read_only = || GivenLog {
        is_read_only: true,
        ..history()
    };
    let refused = replay(&args, read_only().done().await).await.unwrap_err();
    let refused = format!("{refused:#}");
    assert!(refused.contains("so it is not read"), "{refused}");
    let args = ReplayArgs {
        unrecorded: true,
        ..args
    };
    let summary = replay(&args, read_only().done().await).await.unwrap();
    assert_eq!(summary.told.events, 11);
}

#[tokio::test]
async fn a_reading_reads_what_was_there_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let log = SqliteLog::open(&directory.path().join("log.db")).await;
    let record = Record::new(Arc::new(log.unwrap()), Keyring::in_memory());
    for expected in ["", "1", "1 2"] {
        let (text, _) = written(&ReplayArgs::default(), record.clone()).await;
        let found: Vec<String> = text
            .lines()
            .map(|line| {
                let line: Value = serde_json::from_str(line).unwrap();
                assert_eq!(line["event"]["type"], "audit.read");
                let position: Position = line["position"].as_str().unwrap().parse().unwrap();
                position.get().to_string()
            })
            .collect();
        assert_eq!(found.join(" "), expected);
    }
}

#[tokio::test]
async fn what_is_not_watched_has_no_speed() {
    let speed = |output: Option<&str>, format| ReplayArgs {
        speed: Some("1".parse().unwrap()),
        output: output.map(Into::into),
        format,
        ..ReplayArgs::default()
    };
    for (args, expected) in [
        (
            speed(Some("/dev/null"), Format::Text),
            "--speed is for a terminal",
        ),
        (speed(Some("-"), Format::Html), "--speed is for lines"),
    ] {
        let refused = replay(&args, history().done().await).await.unwrap_err();
        assert!(refused.to_string().contains(expected), "{refused}");
    }
}

/// Reading on after a rest, from another reading of the log, changes nothing.
#[tokio::test]
async fn a_selection_that_rests_goes_on_where_it_was() {
    let record = history().done().await;
    let end = position(u64::MAX);
    let mut selection = Selection::start(record, ReplayFilter::default(), end)
        .await
        .unwrap();
    let mut found = Vec::new();
    while let Some(selected) = selection.next().await.unwrap() {
        found.push(selected.recorded.position.get());
        selection.rest();
    }
    assert_eq!(found, (1..=11).collect::<Vec<_>>());
}
