//! The record proves itself: tree heads, proofs and their verification from outside, and what is done to the
//! log behind Hansard's back.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::Output;
use std::time::Duration;

use hansard_tests::{
    Auth, Backend, Layout, Options, Person, Service, Stack, eventually, hansard_command, room_of,
    run_with,
};
use reqwest::Method;
use serde_json::Value;

/// How long hashing and signing may take on a busy machine.
const SIGNING: Duration = Duration::from_secs(60);

/// The exit code and what was printed.
fn outcome(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// Somebody who may audit.
async fn auditor(stack: &Stack) -> Person {
    stack.auditor("Sam").await
}

/// Ada's room with Grace, with so many messages; gives the last one's id.
async fn talk(stack: &Stack, messages: u32) -> String {
    let ada = stack.person("Ada").await;
    let grace = stack.person("Grace").await;
    let room = room_of(&ada, &[&grace]).await;
    let mut last = String::new();
    for number in 0..messages {
        let posted = ada.client.post(&room, &format!("secret {number}")).await;
        last = posted.ok()["post"]["postId"].as_str().unwrap().to_owned();
    }
    last
}

/// The proof of an event, once a tree head covers it.
async fn proof_of(auditor: &Person, message: &str) -> String {
    eventually("it is signed", SIGNING, || async {
        let answer = auditor.client.get(&format!("/audit/proof/{message}")).await;
        match answer.status.as_u16() {
            503 => None,
            _ => {
                assert_eq!(answer.status, 200, "{}", answer.text);
                Some(answer.text)
            }
        }
    })
    .await
}

async fn the_record_is_proven_from_outside(stack: Stack) {
    let auditor = auditor(&stack).await;
    let message = talk(&stack, 5).await;
    let proof = proof_of(&auditor, &message).await;

    let (code, key, errors) = outcome(stack.hansard(&["tree", "key"]));
    assert_eq!(code, Some(0), "{errors}");
    let key = key.trim().to_owned();
    let key = key.as_str();
    let (_, pem, _) = outcome(stack.hansard(&["tree", "key", "--pem"]));
    assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----\n"), "{pem}");

    // Offline: no data directory, no log.
    let directory = tempfile::tempdir().unwrap();
    let verify = |proof: &str, key: &str| {
        let file = directory.path().join("proof.json");
        std::fs::write(&file, proof).unwrap();
        let mut command = hansard_command();
        command.current_dir(directory.path());
        command.args(["verify", "proof", "--key", key]).arg(&file);
        outcome(command.output().unwrap())
    };
    let (code, told, errors) = verify(&proof, key);
    assert_eq!(code, Some(0), "{told}{errors}");
    let position = format!("at position {message}, in the signed tree of ");
    assert!(
        told.starts_with("proven: ") && told.contains(&position),
        "{told}"
    );
    assert!(!told.contains("secret"), "{told}");
    let mut wrong: Value = serde_json::from_str(&proof).unwrap();
    wrong["index"] = (wrong["index"].as_u64().unwrap() - 1).into();
    let (code, told, _) = verify(&wrong.to_string(), key);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.starts_with("not proven: "), "{told}");
    let (code, _, errors) = verify("{}", key);
    assert_eq!(code, Some(2));
    assert!(errors.contains("is not a proof"), "{errors}");
    let (code, _, errors) = verify(&proof, "nonsense");
    assert_eq!(code, Some(2));
    assert!(errors.contains("not a public key"), "{errors}");
    let files: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(files.len(), 1, "{files:?}");

    // The tree only grows.
    let head = auditor.client.get("/audit/checkpoint").await;
    assert_eq!(head.status, 200, "{}", head.text);
    let size = head.text.lines().nth(1).unwrap().to_owned();
    let path = format!("/audit/consistency?from=1&to={size}");
    assert_eq!(auditor.client.get(&path).await.ok()["from"], 1);

    // All of it, with the stored tree and with the file of tree heads alone.
    let heads = stack.data_directory().join("tree-heads");
    let heads = heads.to_str().unwrap();
    for arguments in [
        vec!["verify", "log"],
        vec!["verify", "log", "--heads", heads],
        vec![
            "verify",
            "log",
            "--heads",
            heads,
            "--without-tree",
            "--key",
            key,
        ],
    ] {
        let (code, told, errors) = outcome(stack.hansard(&arguments));
        assert_eq!(code, Some(0), "{told}{errors}");
        assert!(told.starts_with("no difference: compared "), "{told}");
    }
    let (code, told, _) = outcome(stack.hansard(&["verify", "log", "--json"]));
    assert_eq!(code, Some(0));
    let report: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(report["differing"], 0, "{report}");
    assert!(report["proven"].as_u64().unwrap() >= 5, "{report}");

    // Only who may audit gets any of it.
    let ada = stack.person("Ada").await;
    let refused = ada.client.get("/audit/checkpoint").await;
    assert_eq!(refused.status, 403, "{}", refused.text);
}

/// Changes the log without Hansard: gives the position.
async fn tamper(stack: &Stack, position: &str) {
    let number = u64::from_str_radix(position, 16).unwrap();
    match stack.options().backend {
        Backend::Embedded => {
            let file = rusqlite::Connection::open(stack.log_directory().join("log.db")).unwrap();
            let sql = "UPDATE events SET payload = CAST(substr(payload, 1, 40) || 'X' || substr(payload, 42) AS BLOB) \
                       WHERE position = ?1";
            let changed = file.execute(sql, [number.cast_signed()]).unwrap();
            assert_eq!(changed, 1);
        }
        Backend::Distributed | Backend::Cluster => {
            delete_from_stream(stack.log_url(), number).await
        }
    }
}

/// Deletes an event as somebody who can reach the server would.
async fn delete_from_stream(url: &str, number: u64) {
    let address = url.split('/').nth(2).unwrap();
    let client = async_nats::connect(address).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let stream = jetstream.get_stream(event_log::DEFAULT_STREAM).await;
    stream.unwrap().delete_message(number).await.unwrap();
}

async fn what_was_done_to_the_log_is_told(mut stack: Stack) {
    stack.leave_unverified("the log is changed on purpose");
    let auditor = auditor(&stack).await;
    let message = talk(&stack, 5).await;
    let _ = proof_of(&auditor, &message).await;
    tamper(&stack, &message).await;
    let (code, told, errors) = outcome(stack.hansard(&["verify", "log"]));
    assert_eq!(code, Some(1), "{told}{errors}");
    let how = match stack.options().backend {
        Backend::Embedded => "the event's bytes were changed",
        Backend::Distributed | Backend::Cluster => "the event is missing",
    };
    let expected = format!("position {message}: {how}");
    assert!(told.lines().any(|line| line == expected), "{told}");
    assert!(
        told.contains("are not those of the signed tree head from "),
        "{told}"
    );
    let (code, told, _) = outcome(stack.hansard(&["verify", "log", "--json"]));
    assert_eq!(code, Some(1));
    let report: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(report["differences"][0]["position"], message.as_str());

    // Started again the notary sees it, and everything else goes on.
    let _ = stack.terminate(Service::Projector).await;
    stack.spawn(Service::Projector).await;
    let ready = eventually("it is told", SIGNING, || async {
        let client = stack.direct(Service::Projector);
        let answer = client
            .try_send(Method::GET, "/health/ready", None)
            .await
            .ok()?;
        (answer.json["checks"]["tree"]["ok"] == false).then_some(answer.json)
    })
    .await;
    let reason = ready["checks"]["tree"]["reason"].as_str().unwrap();
    assert!(
        reason.contains("is not the one that was hashed"),
        "{reason}"
    );
    let ada = stack.person("Ada").await;
    let _ = ada.client.conversations("").await.ok();

    // It goes on with a new tree when that is asked for, and only then.
    let (code, told, errors) = outcome(stack.hansard(&["tree", "begin-anew"]));
    assert_eq!(code, Some(0), "{errors}");
    assert!(told.starts_with("tree 2 begins over log "), "{told}");
    eventually("it goes on", SIGNING, || async {
        let client = stack.direct(Service::Projector);
        let answer = client
            .try_send(Method::GET, "/health/ready", None)
            .await
            .ok()?;
        (answer.json["checks"]["tree"]["ok"] == true).then_some(())
    })
    .await;
    eventually("it is signed", SIGNING, || async {
        let (code, _, _) = outcome(stack.hansard(&["verify", "log"]));
        (code == Some(0)).then_some(())
    })
    .await;
}

fn options(backend: Backend, layout: Layout) -> Options {
    let mut options = Options::new(backend, layout, Auth::Token);
    options.flags = vec!["--tree-head-seconds".to_owned(), "1".to_owned()];
    options
}

macro_rules! on_each {
    ($($name:ident $backend:ident $layout:ident),+) => {
        $(mod $name {
            use super::{Backend, Layout, options, run_with};

            #[test]
            fn the_record_is_proven_from_outside() {
                run_with(options(Backend::$backend, Layout::$layout), super::the_record_is_proven_from_outside);
            }

            #[test]
            fn what_was_done_to_the_log_is_told() {
                run_with(options(Backend::$backend, Layout::$layout), super::what_was_done_to_the_log_is_told);
            }
        })+
    };
}

on_each!(
    embedded_one_process Embedded OneProcess,
    distributed_four_processes Distributed FourProcesses
);

#[test]
fn what_is_not_there_is_not_verified_and_not_made() {
    let directory = tempfile::tempdir().unwrap();
    let told = |arguments: &[&str]| {
        let mut command = hansard_command();
        command
            .args(arguments)
            .arg("--data-dir")
            .arg(directory.path());
        let (code, told, errors) = outcome(command.output().unwrap());
        assert_eq!((code, told.as_str()), (Some(2), ""), "{errors}");
        errors
    };
    assert!(told(&["verify", "log"]).contains("can't read the signing key file "));
    assert!(told(&["tree", "key"]).contains("can't read the signing key file "));
    let key = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    assert!(told(&["verify", "log", "--key", key]).contains("there is no log at "));
    assert!(told(&["tree", "new-key", "two words"]).contains("can't be a key's name"));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}
