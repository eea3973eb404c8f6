//! How the tree is kept and signed: when, how often, by whom, and whom it is told.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use merkle::{TreeHead, heads_of};
use notary::{Status, Webhook};
use support::*;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use ureq::tls::RootCerts;

async fn each() -> Vec<Case> {
    let mut cases = vec![Case::new(sqlite().await)];
    cases.extend(distributed().await.map(Case::new));
    cases
}

fn sizes(notes: &[String]) -> Vec<u64> {
    let heads = notes.iter().map(|note| TreeHead::parse(note).unwrap());
    heads.map(|head| head.size).collect()
}

fn in_file(case: &Case) -> Vec<String> {
    heads_of(&std::fs::read_to_string(case.path("tree-heads")).unwrap()).collect()
}

#[tokio::test]
async fn heads_are_signed_after_so_many_events_and_at_an_orderly_stop() {
    for case in each().await {
        case.append(250).await;
        case.keep_until_signed(250).await;
        assert_eq!(sizes(&case.heads().await), [100, 200, 250]);
        // Started again it goes on where it was, and signs nothing when there is nothing new.
        case.keep_until_signed(250).await;
        case.append(60).await;
        case.keep_until_signed(310).await;
        let heads = case.heads().await;
        assert_eq!(sizes(&heads), [100, 200, 250, 310]);
        assert_eq!(in_file(&case), heads);
        let report = case.verify().await;
        assert!(report.is_equal(), "{report}");
        assert_eq!((report.heads, report.proven), (4, 310));
    }
}

#[tokio::test]
async fn a_head_is_signed_so_long_after_an_event_and_none_without_one() {
    let mut case = Case::new(sqlite().await);
    case.every = Duration::from_millis(1);
    let status = Status::default();
    let running = case.start(status.clone());
    case.append(3).await;
    until("they are signed", || status.signed() == Some(3)).await;
    running.stop().await;
    assert_eq!(sizes(&case.heads().await).last(), Some(&3));
    let before = case.heads().await;
    case.keep_until_signed(3).await;
    assert_eq!(case.heads().await, before);
}

#[tokio::test]
async fn killed_at_any_moment_it_goes_on_with_the_same_tree() {
    for case in each().await {
        let mut size = 0;
        for round in 0..6 {
            let status = Status::default();
            let running = case.start(status.clone());
            case.append(40 + round).await;
            size += 40 + round;
            let some = size - 20;
            until("some of it is hashed", || status.size() >= some).await;
            running.kill().await;
        }
        case.keep_until_signed(size).await;
        let report = case.verify().await;
        assert!(report.is_equal(), "{report}");
        assert_eq!(report.tree_size, Some(size));
    }
}

#[tokio::test]
async fn of_two_notaries_one_stands_by_and_takes_over() {
    for case in each().await {
        let (one, two) = (Status::default(), Status::default());
        let (first, second) = (case.start(one.clone()), case.start(two.clone()));
        let mut size = 0;
        while !one.is_standing_by() && !two.is_standing_by() {
            case.append(10).await;
            size += 10;
            assert!(size < 10_000, "both go on");
        }
        let (behind, ahead, left) = match one.is_standing_by() {
            true => (one, second, first),
            false => (two, first, second),
        };
        ahead.kill().await;
        case.append(30).await;
        size += 30;
        until("the other one has taken over", || behind.size() == size).await;
        left.stop().await;
        let report = case.verify().await;
        assert!(report.is_equal(), "{report}");
        assert_eq!(report.proven, size);
    }
}

/// What a webhook got.
type Got = Arc<Mutex<Vec<String>>>;

/// A webhook that refuses the first `refusals` requests.
fn webhook(refusals: usize) -> (Router, Got) {
    let got = Got::default();
    let (seen, left) = (Arc::clone(&got), Arc::new(Mutex::new(refusals)));
    let answer = move |headers: HeaderMap, body: String| {
        let mut left = left.lock().unwrap();
        let status = match *left {
            0 => {
                assert_eq!(headers["content-type"], "text/plain; charset=utf-8");
                seen.lock().unwrap().push(body);
                StatusCode::NO_CONTENT
            }
            _ => {
                *left -= 1;
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        async move { status }
    };
    (Router::new().route("/heads", post(answer)), got)
}

#[tokio::test]
async fn a_webhook_gets_the_newest_head_also_when_it_refuses_at_first() {
    let (routes, got) = webhook(2);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/heads", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move { axum::serve(listener, routes).await });
    let mut case = Case::new(sqlite().await);
    case.webhook = Some(Webhook::new(url.parse().unwrap()));
    let status = Status::default();
    let running = case.start(status.clone());
    case.append(100).await;
    until("it is signed", || status.signed() == Some(100)).await;
    until(
        "it has refused",
        || matches!(status.check(), Ok(Some(note)) if note.contains("503")),
    )
    .await;
    // Nothing waits for it.
    case.append(100).await;
    until("it goes on", || status.signed() == Some(200)).await;
    until("it is there", || !got.lock().unwrap().is_empty()).await;
    until("it is told", || status.check() == Ok(None)).await;
    running.stop().await;
    let heads = case.heads().await;
    assert_eq!(got.lock().unwrap().last(), heads.last());
    serving.abort();
}

#[tokio::test]
async fn a_webhook_may_speak_https() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let der = made.cert.der().clone();
    let secret = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let ring = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![der.clone()], secret)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                // Somebody who does not trust the certificate hangs up.
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let mut request = Vec::new();
                while !String::from_utf8_lossy(&request).contains("\n\n") {
                    let mut part = [0; 4096];
                    let count = stream.read(&mut part).await.unwrap();
                    request.extend_from_slice(&part[..count]);
                }
                stream
                    .write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
                    .await
                    .unwrap();
                stream.shutdown().await.unwrap();
            });
        }
    });
    let url: url::Url = format!("https://localhost:{port}/heads").parse().unwrap();
    let root = ureq::tls::Certificate::from_der(&der).to_owned();
    let trusting = Webhook::trusting(url.clone(), RootCerts::new_with_certs(&[root]));
    for (webhook, trusted) in [(trusting, true), (Webhook::new(url), false)] {
        let mut case = Case::new(sqlite().await);
        case.webhook = Some(webhook);
        case.append(1).await;
        let status = Status::default();
        let running = case.start(status.clone());
        until("it is hashed", || status.size() == 1).await;
        running.stop().await;
        let note = status.check().unwrap();
        match trusted {
            true => assert_eq!(note, None),
            // A certificate that nobody vouches for is refused.
            false => assert!(note.unwrap().contains("ertificate"), "it was accepted"),
        }
    }
    serving.abort();
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_told_and_keeps_nothing_from_being_signed() {
    let case = Case::new(sqlite().await);
    std::fs::create_dir(case.path("tree-heads")).unwrap();
    case.append(5).await;
    let status = Status::default();
    let running = case.start(status.clone());
    until("all is hashed", || status.size() == 5).await;
    running.stop().await;
    assert_eq!(sizes(&case.heads().await), [5]);
    let note = status.check().unwrap().unwrap();
    assert!(
        note.contains("the tree head can't be written to "),
        "{note}"
    );
}

#[tokio::test]
async fn a_half_written_head_at_the_end_of_the_file_is_passed_over() {
    let case = Case::new(sqlite().await);
    case.append(5).await;
    case.keep_until_signed(5).await;
    let whole = std::fs::read_to_string(case.path("tree-heads")).unwrap();
    // As long as it takes for the reading to begin in the middle of the file.
    let many = whole.repeat(500);
    let text = format!("{many}{}", &whole[..whole.len() - 40]);
    std::fs::write(case.path("tree-heads"), text).unwrap();
    case.append(1).await;
    case.keep_until_signed(6).await;
    let file = case.file();
    let newest = file.newest(vec![key(1).public().clone()]).await.unwrap();
    assert_eq!(newest.unwrap().size, 6);
}
