//! `GET /audit/events`: who may read it, what it refuses, and how it ends.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::time::Duration;

use audit::{Options, RecordHandle, routes};
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use events::UserType;
use http_body_util::BodyExt;
use platform::auth::Auth;
use platform::config::AuthMode;
use serde_json::Value;
use tower::ServiceExt;

use support::*;

fn auth(mode: AuthMode) -> Auth {
    let secret = "a secret of thirty-two bytes, or more".to_owned();
    Auth::new(mode, Duration::from_secs(60), &[secret]).unwrap()
}

fn app(mode: AuthMode, record: impl Into<RecordHandle>) -> Router {
    let options = Options {
        record: record.into(),
        auth: auth(mode),
    };
    routes(options).split_for_parts().0
}

fn support_token() -> String {
    auth(AuthMode::Token).issue(ANNA, UserType::Support)
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
async fn support_reads_the_record() {
    for mode in [AuthMode::Token, AuthMode::Open] {
        let app = app(mode, history().done().await);
        let (status, headers, body) = get(app, "", Some(&support_token())).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(headers["content-type"], "application/x-ndjson");
        assert_eq!(positions(&body).len(), 11);
    }
    let query = format!(
        "?room={}&user={BELA}&from=5&to=2026-11-22T17:00:09Z",
        room()
    );
    let app = app(AuthMode::Token, history().done().await);
    let (_, _, body) = get(app, &query, Some(&support_token())).await;
    assert_eq!(positions(&body), ["0000000000000006"]);
}

#[tokio::test]
async fn nobody_else_reads_it() {
    for mode in [AuthMode::Token, AuthMode::Open] {
        let app = app(mode, history().done().await);
        let (status, headers, _) = get(app.clone(), "", None).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert_eq!(headers["www-authenticate"], "Bearer");

        let (status, _, _) = get(app.clone(), "", Some("nonsense")).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);

        let consumer = auth(mode).issue(BELA, UserType::Consumer);
        // Also what else is wrong with the request is none of their business.
        for query in ["", "?colour=red"] {
            let (status, _, body) = get(app.clone(), query, Some(&consumer)).await;
            assert_eq!(status, StatusCode::FORBIDDEN);
            assert!(body.contains("only users of type support"), "{body}");
        }

        // Carl was deleted; his old token says that he is support.
        let deleted = auth(mode).issue(CARL, UserType::Support);
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
            "unknown parameter; there are room, user, from and to",
        ),
        ("?from=1&from=2", "from", "given more than once"),
        (
            "?from=3&to=2",
            "to",
            "the range from 0000000000000003 to 0000000000000002 ends",
        ),
    ] {
        let app = app(AuthMode::Token, history().done().await);
        let (status, _, body) = get(app, query, Some(&support_token())).await;
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
        let app = app(AuthMode::Token, handle);
        let (status, headers, _) = get(app, "", Some(&support_token())).await;
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
    let app = app(AuthMode::Token, failing.done().await);
    let (status, _, body) = get(app, "", Some(&support_token())).await;
    assert_eq!(status, StatusCode::OK);
    let lines: Vec<&str> = body.lines().collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(positions(&lines[..3].join("\n")).len(), 3);
    let last: Value = serde_json::from_str(lines[3]).unwrap();
    let error = last["error"].as_str().unwrap();
    assert!(error.contains("0000000000000003"), "{error}");
    assert!(!body.contains("gone"), "{body}");
}
