//! `hansard verify`, beside everything else that runs.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::Output;

use event_log::Position;
use hansard_tests::{Stack, hansard_command, on_every_stack, room_of};
use read_models::DeadLetter;
use serde_json::Value;

/// The exit code and what was printed.
fn outcome(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

async fn read_models_are_verified_while_they_are_used(stack: Stack) {
    // What follows is a difference, on purpose.
    let mut stack = stack.with_positions();
    stack.leave_unverified("an event is set aside after it has been projected");
    let ada = stack.person("Ada").await;
    let grace = stack.person("Grace").await;
    let room = room_of(&ada, &[&grace]).await;
    let mut posts = Vec::new();
    for number in 0..5 {
        let posted = ada.client.post(&room, &format!("secret {number}")).await;
        posts.push(posted.ok()["post"]["postId"].as_str().unwrap().to_owned());
    }
    let _ = grace.client.mark_read_up_to(&room, &posts[2]).await.ok();
    let _ = ada.client.delete_message(&posts[1]).await.ok();
    // Until everything is there to be compared.
    let _ = grace.client.conversations("").await.ok();

    let (code, told, errors) = outcome(stack.hansard(&["verify", "read-models"]));
    assert_eq!(code, Some(0), "{told}{errors}");
    assert!(
        told.starts_with("no difference up to position 00"),
        "{told}"
    );
    let compared = "compared 2 users, 0 erasures, 1 rooms, 2 members with their recent rooms and unread counts, \
                    5 messages, 0 edits, 1 marks, 0 keys";
    assert!(told.contains(compared), "{told}");

    // An event that is set aside is left out, so what has come of it is too much.
    let doomed: Position = posts[4].parse().unwrap();
    let letter = DeadLetter {
        position: doomed,
        subject: String::new(),
        payload: Vec::new(),
        reason: "for this test".to_owned(),
    };
    let live = stack.open_catalogue().await.open(1).await.unwrap();
    live.set_aside(&letter).await.unwrap();
    let (code, told, errors) = outcome(stack.hansard(&["verify", "read-models"]));
    assert_eq!(code, Some(1), "{told}{errors}");
    let expected = format!("message {doomed}: is stored, but the log gives none");
    assert!(told.lines().any(|line| line == expected), "{told}");
    assert!(
        told.contains("1 event is set aside as a dead letter"),
        "{told}"
    );
    assert!(!told.contains("secret"), "{told}");

    let few = ["verify", "read-models", "--json", "--at-once", "3"];
    let (code, told, errors) = outcome(stack.hansard(&few));
    assert_eq!(code, Some(1), "{told}{errors}");
    let report: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(report["setAside"], 1, "{report}");
    assert_eq!(report["compared"]["messages"], 4, "{report}");
    let differences = report["differences"].as_array().unwrap();
    assert_eq!(report["differing"], differences.len(), "{report}");
    let id = doomed.to_string();
    let named = |it: &&Value| it["kind"] == "message" && it["id"] == id.as_str();
    assert_eq!(differences.iter().filter(named).count(), 1, "{report}");
}

#[test]
fn what_is_not_there_is_not_verified_and_not_made() {
    let directory = tempfile::tempdir().unwrap();
    let verify = |arguments: &[&str]| {
        let mut command = hansard_command();
        command.args(["verify", "read-models", "--data-dir"]);
        command.arg(directory.path()).args(arguments);
        let (code, told, errors) = outcome(command.output().unwrap());
        assert_eq!((code, told.as_str()), (Some(2), ""), "{errors}");
        errors
    };
    assert!(verify(&[]).contains("there is no log at "));
    std::fs::write(directory.path().join("log.db"), "").unwrap();
    assert!(verify(&[]).contains("there is no file of read models at "));
    assert!(!directory.path().join("read.db").exists());
    assert!(verify(&["--log", "postgres://x"]).contains("--log: "));
}

on_every_stack!(Auth::Token; read_models_are_verified_while_they_are_used);
