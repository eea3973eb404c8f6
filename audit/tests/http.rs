//! `GET /audit/events`: who may read it, what it refuses, and how it ends.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use audit::{Options, RecordHandle, routes};
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use events::{Encoded, Event, Subject, UserId, UserType};
use http_body_util::BodyExt;
use platform::auth::Auth;
use platform::config::AuthMode;
use platform::role::Role;
use read_models::{Catalogue, SqliteCatalogue};
use serde_json::Value;
use tower::ServiceExt;

use support::*;

fn auth(mode: AuthMode) -> Auth {
    let secret = "a secret of thirty-two bytes, or more".to_owned();
    Auth::new(mode, Duration::from_secs(60), &[secret]).unwrap()
}

async fn app(mode: AuthMode, record: impl Into<RecordHandle>) -> Router {
    // No proofs are asked for here.
    let nowhere = tempfile::tempdir().unwrap();
    let catalogue = SqliteCatalogue::open(&nowhere.path().join("read.db")).await;
    let options = Options {
        record: record.into(),
        tree: catalogue.unwrap().tree(),
        keys: Vec::new(),
        auth: auth(mode),
    };
    routes(options).split_for_parts().0
}

fn token(user: UserId, role: Option<Role>) -> String {
    let minute = Duration::from_secs(60);
    auth(AuthMode::Token).issue_for(user, UserType::Support, role, minute)
}

fn auditors_token() -> String {
    token(ANNA, Some(Role::Auditor))
}

async fn get(app: Router, query: &str, token: Option<&str>) -> (StatusCode, HeaderMap, String) {
    let mut request = Request::get(format!("/audit/events{query}"));
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let response = app
        .oneshot(request.body(Body::empty()).unwrap())
        .await
        .unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, headers, String::from_utf8(body.to_vec()).unwrap())
}

fn positions(body: &str) -> Vec<String> {
    body.lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            line["position"].as_str().unwrap().to_owned()
        })
        .collect()
}

#[tokio::test]
async fn auditors_and_admins_read_the_record() {
    for role in [Role::Auditor, Role::Admin] {
        // The second is no user of the chat.
        for user in [ANNA, UserId::random()] {
            let app = app(AuthMode::Token, history().done().await).await;
            let (status, headers, body) = get(app, "", Some(&token(user, Some(role)))).await;
            assert_eq!(status, StatusCode::OK);
            assert_eq!(headers["content-type"], "application/x-ndjson");
            assert_eq!(positions(&body).len(), 11);
        }
    }
    let query = format!(
        "?room={}&user={BELA}&from=5&to=2026-11-22T17:00:09Z",
        room()
    );
    let app = app(AuthMode::Token, history().done().await).await;
    let (_, _, body) = get(app, &query, Some(&auditors_token())).await;
    assert_eq!(positions(&body), ["0000000000000006"]);
}

#[tokio::test]
async fn nobody_else_reads_it() {
    let app = app(AuthMode::Token, history().done().await).await;
    for role in [None, Some(Role::Member), Some(Role::Support)] {
        // Also what else is wrong with the request is none of their business.
        for query in ["", "?colour=red"] {
            let (status, _, body) = get(app.clone(), query, Some(&token(BELA, role))).await;
            assert_eq!(status, StatusCode::FORBIDDEN);
            assert!(body.contains("only auditors and admins"), "{body}");
        }
    }
}

#[tokio::test]
async fn where_anybody_may_log_in_as_anybody_every_user_reads_it() {
    let app = app(AuthMode::Open, history().done().await).await;
    for role in [None, Some(Role::Member), Some(Role::Auditor)] {
        let (status, _, _) = get(app.clone(), "", Some(&token(BELA, role))).await;
        assert_eq!(status, StatusCode::OK);
    }
    let nobody = token(UserId::random(), Some(Role::Member));
    let (status, _, _) = get(app, "", Some(&nobody)).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_token_of_somebody_who_is_there_is_needed_in_every_mode() {
    for mode in [AuthMode::Token, AuthMode::Open] {
        let app = app(mode, history().done().await).await;
        let (status, headers, _) = get(app.clone(), "", None).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert_eq!(headers["www-authenticate"], "Bearer");

        let (status, _, _) = get(app.clone(), "", Some("nonsense")).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);

        // Carl was deleted; his old token says that he is an admin.
        let deleted = token(CARL, Some(Role::Admin));
        let (status, _, _) = get(app, "", Some(&deleted)).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn wrong_parameters_are_named() {
    for (query, name, text) in [
        (
            "?room=x",
            "room",
            "not a room id: expected 32 lower-case hex digits",
        ),
        (
            "?user=",
            "user",
            "not a user id: expected 32 lower-case hex digits",
        ),
        (
            "?from=now",
            "from",
            "neither a time nor a position: expected RFC 3339",
        ),
        (
            "?to=-1",
            "to",
            "neither a time nor a position: expected RFC 3339",
        ),
        (
            "?colour=red",
            "colour",
            "unknown parameter; there are room, user, type, from, to and format",
        ),
        ("?from=1&from=2", "from", "given more than once"),
        (
            "?from=3&to=2",
            "to",
            "the range from 0000000000000003 to 0000000000000002 ends",
        ),
    ] {
        let app = app(AuthMode::Token, history().done().await).await;
        let (status, _, body) = get(app, query, Some(&auditors_token())).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["success"], false);
        let told = body["errors"][name].as_str().unwrap();
        assert!(told.starts_with(text), "{told}");
    }
}

#[tokio::test]
async fn without_the_log_clients_are_asked_to_come_back() {
    let unreachable = GivenLog {
        fails_after: Some(position(0)),
        ..history()
    };
    for handle in [RecordHandle::new(|| None), unreachable.done().await.into()] {
        let app = app(AuthMode::Token, handle).await;
        let (status, headers, _) = get(app, "", Some(&auditors_token())).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(headers.contains_key("retry-after"));
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_says_so_in_its_last_line() {
    let failing = GivenLog {
        fails_after: Some(position(3)),
        ..history()
    };
    let app = app(AuthMode::Token, failing.done().await).await;
    let (status, _, body) = get(app, "", Some(&auditors_token())).await;
    assert_eq!(status, StatusCode::OK);
    let lines: Vec<&str> = body.lines().collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(positions(&lines[..3].join("\n")).len(), 3);
    let last: Value = serde_json::from_str(lines[3]).unwrap();
    let error = last["error"].as_str().unwrap();
    assert!(error.contains("0000000000000003"), "{error}");
    assert!(!body.contains("gone"), "{body}");
}

#[tokio::test]
async fn a_reading_is_recorded_before_anything_is_answered() {
    let log = history();
    let appended = Arc::clone(&log.appended);
    let app = app(AuthMode::Token, log.done().await).await;
    let query = format!(
        "?room={}&type=message.posted&type=conversation.read&to=0000000000000009",
        room()
    );
    let (status, _, body) = get(app.clone(), &query, Some(&auditors_token())).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        positions(&body),
        ["0000000000000006", "0000000000000009"],
        "{body}"
    );
    let recorded = appended.lock().unwrap().pop().unwrap();
    assert_eq!(recorded.subject, Subject::Audit);
    let envelope = Encoded::parse(&recorded.payload).unwrap();
    let envelope = envelope.decode(None).unwrap();
    assert_eq!(envelope.actor, Some(ANNA));
    let Event::AuditRead(read) = envelope.event else {
        panic!("{envelope:?}")
    };
    assert_eq!((&read.what[..], read.operator), ("GET /audit/events", None));
    let filter = [
        ("room", &room().to_string()[..]),
        ("to", "0000000000000009"),
        ("type", "message.posted,conversation.read"),
    ];
    let filter = filter.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(read.filter, BTreeMap::from(filter));

    // What is refused is not recorded.
    for (query, token) in [
        ("?room=x", Some(auditors_token())),
        ("", Some(token(BELA, None))),
        ("", None),
    ] {
        let (status, _, _) = get(app.clone(), query, token.as_deref()).await;
        assert!(status.is_client_error(), "{query}");
    }
    assert!(appended.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_cant_be_recorded_is_not_read() {
    let log = GivenLog {
        is_read_only: true,
        ..history()
    };
    let app = app(AuthMode::Token, log.done().await).await;
    let (status, _, body) = get(app, "", Some(&auditors_token())).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!body.contains("position"), "{body}");
}

#[tokio::test]
async fn the_form_is_the_one_asked_for_or_the_one_liked_best() {
    let app = app(AuthMode::Token, history().done().await).await;
    let ask = async |query: &str, accept: &str| {
        let request = Request::get(format!("/audit/events{query}"))
            .header("authorization", format!("Bearer {}", auditors_token()))
            .header("accept", accept)
            .body(Body::empty())
            .unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let headers = response.headers().clone();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        let first = body.lines().next().unwrap().to_owned();
        (headers, first, body)
    };
    for (query, accept, media_type, begins) in [
        ("", "*/*", "application/x-ndjson", "{\"position\""),
        ("", "image/png", "application/x-ndjson", "{\"position\""),
        (
            "",
            "text/plain",
            "text/plain; charset=utf-8",
            "2026-11-22T17:00:01.000Z  ",
        ),
        (
            "",
            "text/plain;q=0.5, text/html;q=0.9",
            "text/html; charset=utf-8",
            "<!DOCTYPE html>",
        ),
        (
            "",
            "text/html;q=0, text/plain;q=0.1",
            "text/plain; charset=utf-8",
            "2026-",
        ),
        (
            "?format=transcript",
            "text/html",
            "text/plain; charset=utf-8",
            "TRANSCRIPT OF THE RECORD",
        ),
        (
            "?format=html",
            "application/x-ndjson",
            "text/html; charset=utf-8",
            "<!DOCTYPE html>",
        ),
        (
            "?format=jsonl",
            "text/html",
            "application/x-ndjson",
            "{\"position\"",
        ),
    ] {
        let (headers, first, _) = ask(query, accept).await;
        assert_eq!(headers["content-type"], media_type, "{query} {accept}");
        assert!(first.starts_with(begins), "{query} {accept}: {first}");
    }
    // The page is allowed nothing, and brings nothing along.
    let (headers, _, body) = ask("?format=html", "*/*").await;
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; ") && policy.ends_with("; sandbox"));
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    for outside in [
        "<script", "<img", "<link", "<iframe", "http:", "https:", "url(",
    ] {
        assert!(!body.contains(outside), "{outside}");
    }
    assert!(body.ends_with("</html>\n"));
}

#[tokio::test]
async fn a_transcript_that_breaks_off_says_so() {
    for (format, ending) in [
        (
            "text",
            "INCOMPLETE: the event log can't be read any further than position 0000000000000003",
        ),
        (
            "transcript",
            "INCOMPLETE: the event log can't be read any further than position 0000000000000003",
        ),
        (
            "html",
            "<footer class=\"incomplete\">INCOMPLETE: the event log can&#39;t be read any further",
        ),
    ] {
        let failing = GivenLog {
            fails_after: Some(position(3)),
            ..history()
        };
        let app = app(AuthMode::Token, failing.done().await).await;
        let query = format!("?format={format}");
        let (_, _, body) = get(app, &query, Some(&auditors_token())).await;
        assert!(body.contains(ending), "{body}");
    }
}
