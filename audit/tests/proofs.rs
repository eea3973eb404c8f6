//! `GET /audit/checkpoint`, `/audit/proof/{messageId}` and `/audit/consistency`: what they hand out holds, who
//! may have it, and what they refuse.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::time::Duration;

use audit::{Options, RecordHandle, routes};
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use event_log::{Expect, NewEvent, SqliteLog};
use events::{Subject, UserId, UserType};
use http_body_util::BodyExt;
use keys::{Keyring, Record};
use merkle::{ConsistencyProof, InclusionProof, SigningKey, TreeHead};
use notary::{HeadsFile, Status};
use platform::auth::Auth;
use platform::config::AuthMode;
use platform::role::Role;
use read_models::{Catalogue, SqliteCatalogue, TreeStore};
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use uuid::Uuid;

/// A record with its tree, and the key that its heads are signed with.
struct Given {
    directory: TempDir,
    record: Record,
    tree: Arc<dyn TreeStore>,
    key: SigningKey,
}

impl Given {
    /// With so many events, of which nothing is hashed yet.
    async fn new(events: u128) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let log = SqliteLog::open(&directory.path().join("log.db")).await;
        let catalogue = SqliteCatalogue::open(&directory.path().join("read.db")).await;
        let given = Self {
            record: Record::new(Arc::new(log.unwrap()), Keyring::in_memory()),
            tree: catalogue.unwrap().tree(),
            key: SigningKey::from_seed("test.example/log", [1; 32]).unwrap(),
            directory,
        };
        given.append(1, events).await;
        given
    }

    async fn append(&self, first: u128, last: u128) {
        for number in first..=last {
            let event = NewEvent {
                subject: Subject::User(UserId::from_uuid(Uuid::from_u128(number))),
                deduplication_id: Uuid::from_u128(number),
                payload: format!("event {number}").into(),
            };
            self.record.log.append(event, Expect::Any).await.unwrap();
        }
    }

    /// Has everything hashed and signed.
    async fn sign(&self) {
        let options = notary::Options {
            log: Arc::clone(&self.record.log),
            store: Arc::clone(&self.tree),
            keys: vec![self.key.clone()],
            file: HeadsFile::new(self.directory.path().join("tree-heads")),
            webhook: None,
            every_events: 1,
            every: Duration::from_secs(1),
            status: Status::default(),
            drain: Duration::from_secs(30),
        };
        let (status, stop) = (options.status.clone(), CancellationToken::new());
        let keeping = tokio::spawn(notary::keep(options, stop.clone()));
        let last = self.record.log.tail().await.unwrap().last.get();
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while status.signed() != Some(last) {
            assert!(std::time::Instant::now() < deadline, "nothing was signed");
            tokio::task::yield_now().await;
        }
        stop.cancel();
        keeping.await.unwrap();
    }

    fn app(&self) -> Router {
        self.app_with(self.record.clone().into())
    }

    fn app_with(&self, record: RecordHandle) -> Router {
        let options = Options {
            record,
            tree: Arc::clone(&self.tree),
            keys: Vec::new(),
            auth: auth(),
        };
        routes(options).split_for_parts().0
    }
}

fn auth() -> Auth {
    let secret = "a secret of thirty-two bytes, or more".to_owned();
    Auth::new(AuthMode::Token, Duration::from_secs(60), &[secret]).unwrap()
}

async fn get_as(app: Router, path: &str, token: Option<String>) -> (StatusCode, HeaderMap, String) {
    let mut request = Request::get(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(Body::empty()).unwrap();
    let response = app.oneshot(request).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, headers, String::from_utf8(body.to_vec()).unwrap())
}

async fn get(app: Router, path: &str) -> (StatusCode, HeaderMap, String) {
    let token = auth().issue_for(
        UserId::random(),
        UserType::Support,
        Some(Role::Auditor),
        Duration::from_secs(60),
    );
    get_as(app, path, Some(token)).await
}

#[tokio::test]
async fn what_is_handed_out_holds() {
    let given = Given::new(300).await;
    given.sign().await;
    let keys = [given.key.public().clone()];
    let (status, headers, note) = get(given.app(), "/audit/checkpoint").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers["content-type"], "text/plain; charset=utf-8");
    let head = TreeHead::verify(&note, &keys).unwrap();
    assert_eq!(head.size, 300);
    let incarnation = given.record.log.tail().await.unwrap().incarnation.0;
    assert_eq!(head.log, Some(incarnation));

    for position in [1, 0x2a, 256, 257, 300] {
        let path = format!("/audit/proof/{position:016x}");
        let (status, _, body) = get(given.app(), &path).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let proof: InclusionProof = serde_json::from_str(&body).unwrap();
        assert_eq!(proof.verify(&keys), Ok(head.clone()));
        let payload = proof.payload().unwrap().unwrap();
        assert_eq!(payload, format!("event {position}").into_bytes());
    }

    given.append(301, 420).await;
    given.sign().await;
    let (_, _, later) = get(given.app(), "/audit/checkpoint").await;
    let later = TreeHead::verify(&later, &keys).unwrap();
    // That each proof was handed out is recorded.
    assert_eq!(later.size, 300 + 5 + 120);
    for query in ["from=300", "from=300&to=425"] {
        let (status, _, body) = get(given.app(), &format!("/audit/consistency?{query}")).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let proof: ConsistencyProof = serde_json::from_str(&body).unwrap();
        assert_eq!(proof.verify(), Ok(()));
        assert_eq!((proof.from_root, proof.to_root), (head.root, later.root));
    }
}

#[tokio::test]
async fn nobody_else_gets_it() {
    let given = Given::new(3).await;
    given.sign().await;
    for path in [
        "/audit/checkpoint",
        "/audit/proof/0000000000000001",
        "/audit/proof/x",
        "/audit/consistency?from=1",
        "/audit/consistency",
    ] {
        let (status, _, _) = get_as(given.app(), path, None).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
        let consumer = auth().issue(UserId::random(), UserType::Consumer);
        let (status, _, body) = get_as(given.app(), path, Some(consumer)).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}");
        assert!(body.contains("may read the record"), "{body}");
    }
}

#[tokio::test]
async fn what_is_not_signed_yet_is_asked_for_again() {
    let given = Given::new(3).await;
    for path in ["/audit/checkpoint", "/audit/proof/0000000000000001"] {
        let (status, headers, body) = get(given.app(), path).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
        assert_eq!(headers["retry-after"], "10");
        assert!(body.contains("no tree head has been signed yet"), "{body}");
    }
    given.sign().await;
    given.append(4, 4).await;
    let (status, headers, body) = get(given.app(), "/audit/proof/0000000000000004").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(headers["retry-after"], "10");
    assert!(
        body.contains("does not cover position 0000000000000004 yet"),
        "{body}"
    );
    let (status, _, _) = get(
        given.app_with(RecordHandle::new(|| None)),
        "/audit/checkpoint",
    )
    .await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn what_there_is_not_is_refused() {
    let given = Given::new(3).await;
    given.sign().await;
    for (path, expected, text) in [
        ("/audit/proof/x", 400, "not a position"),
        ("/audit/proof/0000000000000000", 404, "no event at position"),
        ("/audit/proof/0000000000000004", 404, "no event at position"),
        (
            "/audit/consistency",
            400,
            "expected the size of the earlier tree",
        ),
        ("/audit/consistency?from=x", 400, "expected a whole number"),
        ("/audit/consistency?from=0", 400, "1 <= from <= to <= 3"),
        (
            "/audit/consistency?from=3&to=2",
            400,
            "1 <= from <= to <= 3",
        ),
        (
            "/audit/consistency?from=3&to=4",
            400,
            "1 <= from <= to <= 3",
        ),
    ] {
        let (status, _, body) = get(given.app(), path).await;
        assert_eq!(status.as_u16(), expected, "{path}: {body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["success"], false);
        assert!(body.to_string().contains(text), "{path}: {body}");
    }
}

#[tokio::test]
async fn no_proof_is_handed_out_that_would_not_hold() {
    let given = Given::new(3).await;
    given.sign().await;
    let file = rusqlite::Connection::open(given.directory.path().join("log.db")).unwrap();
    file.execute("UPDATE events SET payload = x'00' WHERE position = 2", [])
        .unwrap();
    let (status, _, _) = get(given.app(), "/audit/proof/0000000000000002").await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    let (status, _, _) = get(given.app(), "/audit/proof/0000000000000003").await;
    assert_eq!(status, StatusCode::OK);
}
