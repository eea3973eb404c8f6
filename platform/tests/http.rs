//! What every service answers, whatever its routes: seen through real connections.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::routing::{get, post};
use futures::{StreamExt, stream};
use platform::body::Fields;
use platform::config::Config;
use platform::health::Health;
use platform::http::{Shared, finish, serve};
use platform::stall::StallLimit;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;

struct Service {
    address: SocketAddr,
    health: Health,
    shutdown: CancellationToken,
    /// Lets the request to `/slow` finish.
    release: Arc<Notify>,
    /// Tells that the request to `/slow` has arrived.
    arrived: Arc<Notify>,
    /// Cancelled when the endless answer of `/flood`, which has a stall limit, is over.
    flood_over: CancellationToken,
    serving: tokio::task::JoinHandle<anyhow::Result<()>>,
    client: Client,
}

impl Service {
    async fn start() -> Self {
        Self::start_with(Config {
            max_body_bytes: 100,
            ..Config::default()
        })
        .await
    }

    async fn start_with(config: Config) -> Self {
        let (release, arrived) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let slow = (Arc::clone(&release), Arc::clone(&arrived));
        let flood_over = CancellationToken::new();
        let flooding = flood_over.clone();
        let routes = OpenApiRouter::new()
            .route("/echo", post(|fields: Fields| async { Json(fields.0) }))
            .route("/room/{id}", get(|| async { "a room" }))
            .route("/panic", get(panics))
            .route(
                "/flood",
                get(
                    move |ConnectInfo(stall): ConnectInfo<StallLimit>| async move {
                        stall.set(Duration::from_millis(200));
                        let over = flooding.drop_guard();
                        let chunks = stream::repeat(vec![b'x'; 64 * 1024]).map(move |chunk| {
                            let _ = &over;
                            Ok::<_, Infallible>(chunk)
                        });
                        Body::from_stream(chunks)
                    },
                ),
            )
            .route(
                "/slow",
                get(move || {
                    let (release, arrived) = slow.clone();
                    async move {
                        arrived.notify_one();
                        release.notified().await;
                        "at last"
                    }
                }),
            );
        let health = Health::new();
        let shared = Shared {
            health: health.clone(),
            config: Arc::new(config),
            openapi: "{\"openapi\":\"3.1.0\"}".into(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let router = finish(routes, shared);
        let serving = tokio::spawn(serve(listener, router, shutdown.clone()));
        Self {
            address,
            health,
            shutdown,
            release,
            arrived,
            flood_over,
            serving,
            client: Client::builder().no_proxy().build().unwrap(),
        }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("http://{}{path}", self.address);
        self.client.request(method, url)
    }

    async fn get(&self, path: &str) -> reqwest::Response {
        self.request(Method::GET, path).send().await.unwrap()
    }
}

async fn panics() -> &'static str {
    panic!("on purpose")
}

#[tokio::test]
async fn what_no_route_answers_is_404_with_the_tutorials_text() {
    let service = Service::start().await;
    for (method, path) in [
        (Method::GET, "/nothing"),
        (Method::GET, "/echo"),
        (Method::DELETE, "/room/1"),
        (Method::POST, "/health/live"),
        (Method::GET, "/room/1/2%2f%00"),
    ] {
        let response = service.request(method, path).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["success"], false);
        assert_eq!(body["message"], "API endpoint doesnt exist");
    }
}

#[tokio::test]
async fn ids_that_are_no_text_are_refused_in_json() {
    let service = Service::start().await;
    let response = service.get("/room/%FF").await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["message"], "the request's path is not valid UTF-8");
    assert_eq!(service.get("/room/%C3%BF").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_panic_is_a_500_in_json_and_disturbs_nothing_else() {
    let service = Service::start().await;
    let response = service.get("/panic").await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["code"], "internal");
    assert!(!body.to_string().contains("on purpose"));
    assert_eq!(service.get("/room/1").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn bodies_are_limited() {
    let service = Service::start().await;
    let send = async |text: String| {
        let request = service.request(Method::POST, "/echo");
        let response = request.json(&json!({"text": text})).send().await.unwrap();
        response.status()
    };
    assert_eq!(send("x".repeat(50)).await, StatusCode::OK);
    assert_eq!(send("x".repeat(200)).await, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_not_wanted_leaves_the_connection_in_order() {
    let service = Service::start_with(Config::default()).await;
    for _ in 0..20 {
        for (path, status) in [("/echo", 413), ("/room/1", 404), ("/nowhere", 404)] {
            let request = service.request(Method::POST, path);
            let request = request.header("content-type", "application/json");
            let response = request.body(vec![b' '; 3 << 20]).send().await.unwrap();
            assert_eq!(response.status().as_u16(), status, "{path}");
            let body: Value = response.json().await.unwrap();
            assert_eq!(body["success"], false);
            let next = service.request(Method::POST, "/echo");
            let next = next.json(&json!({"a": "b"})).send().await.unwrap();
            assert_eq!(next.status(), StatusCode::OK, "after {path}");
        }
    }
}

#[tokio::test]
async fn requests_keep_a_sane_id_and_get_one_otherwise() {
    let service = Service::start().await;
    let send = async |id: &str| {
        let request = service.request(Method::GET, "/nothing");
        let response = request.header("x-request-id", id).send().await.unwrap();
        let id = response.headers()["x-request-id"].to_str().unwrap();
        id.to_owned()
    };
    assert_eq!(send("abc-123_x.y").await, "abc-123_x.y");
    for wrong in ["", "with space", "\"quoted\"", &"x".repeat(129)] {
        let made = send(wrong).await;
        assert_eq!(uuid::Uuid::try_parse(&made).unwrap().get_version_num(), 7);
    }
}

#[tokio::test]
async fn browsers_may_use_the_api_from_any_origin_or_the_configured_ones() {
    let preflight = async |service: &Service, origin: &str| {
        let request = service.request(Method::OPTIONS, "/echo");
        let request = request
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header(
                "access-control-request-headers",
                "authorization,content-type",
            );
        request.send().await.unwrap().headers().clone()
    };
    let open = Service::start().await;
    let headers = preflight(&open, "https://any.example").await;
    assert_eq!(headers["access-control-allow-origin"], "*");
    assert_eq!(headers["access-control-allow-methods"], "POST");
    assert_eq!(
        headers["access-control-allow-headers"],
        "authorization,content-type"
    );
    let request = open.request(Method::GET, "/nothing");
    let response = request.header("origin", "https://any.example").send().await;
    let headers = response.unwrap().headers().clone();
    assert_eq!(headers["access-control-allow-origin"], "*");
    assert_eq!(
        headers["access-control-expose-headers"],
        "hansard-position,retry-after,x-request-id"
    );

    let closed = Service::start_with(Config {
        allowed_origins: vec!["https://chat.example".to_owned()],
        ..Config::default()
    })
    .await;
    let headers = preflight(&closed, "https://chat.example").await;
    assert_eq!(
        headers["access-control-allow-origin"],
        "https://chat.example"
    );
    let headers = preflight(&closed, "https://evil.example").await;
    assert!(!headers.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn readiness_says_what_is_not_ready() {
    let service = Service::start().await;
    service.health.add("log", || async { Ok(()) });
    let response = service.get("/health/ready").await;
    assert_eq!(response.status(), StatusCode::OK);
    let body: Value = response.json().await.unwrap();
    assert_eq!(
        body,
        json!({"ready": true, "checks": {"log": {"ok": true}}})
    );

    let reason = || async { Err("can't be reached".to_owned()) };
    service.health.add("readModels", reason);
    let response = service.get("/health/ready").await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["ready"], false);
    assert_eq!(
        body["checks"]["readModels"],
        json!({"ok": false, "reason": "can't be reached"})
    );
    assert_eq!(service.get("/health/live").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn requests_are_counted_by_route_not_by_path() {
    let service = Service::start().await;
    service.get("/room/0123").await;
    service.get("/secret-path").await;
    let response = service.get("/metrics").await;
    let content_type = response.headers()["content-type"].to_str().unwrap();
    assert!(content_type.starts_with("text/plain"), "{content_type}");
    let text = response.text().await.unwrap();
    assert!(
        text.contains(
            "hansard_http_requests_total{method=\"GET\",route=\"/room/{id}\",status=\"200\"}"
        ),
        "{text}"
    );
    assert!(text.contains("route=\"unmatched\""), "{text}");
    assert!(
        text.contains("hansard_http_request_seconds_bucket{"),
        "{text}"
    );
    assert!(!text.contains("secret-path"), "{text}");
}

#[tokio::test]
async fn the_api_describes_itself_without_anything_from_elsewhere() {
    let service = Service::start().await;
    let response = service.get("/openapi.json").await;
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.text().await.unwrap(), "{\"openapi\":\"3.1.0\"}");
    let page = service.get("/docs").await;
    assert_eq!(page.status(), StatusCode::OK);
    assert_eq!(page.url().path(), "/docs/");
    let page = page.text().await.unwrap();
    assert!(
        !page.contains("src=\"http") && !page.contains("href=\"http"),
        "{page}"
    );
    let script = service.get("/docs/swagger-initializer.js").await;
    assert!(script.text().await.unwrap().contains("/openapi.json"));
}

#[tokio::test]
async fn a_stopping_service_finishes_what_it_began() {
    let service = Service::start().await;
    let request = service.request(Method::GET, "/slow").send();
    let request = tokio::spawn(request);
    service.arrived.notified().await;
    service.shutdown.cancel();
    let deadline = Duration::from_secs(5);
    // New connections are refused, while the request under way goes on.
    tokio::time::timeout(deadline, async {
        while tokio::net::TcpStream::connect(service.address)
            .await
            .is_ok()
        {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    service.release.notify_one();
    let response = request.await.unwrap().unwrap();
    assert_eq!(response.text().await.unwrap(), "at last");
    let stopped = tokio::time::timeout(deadline, service.serving).await;
    stopped.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn who_takes_nothing_is_given_up_where_the_route_says_so() {
    let service = Service::start().await;
    let mut peer = TcpStream::connect(service.address).await.unwrap();
    peer.write_all(b"GET /flood HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut first = [0; 8];
    peer.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1");
    let over = service.flood_over.cancelled();
    let over = tokio::time::timeout(Duration::from_secs(20), over).await;
    assert!(
        over.is_ok(),
        "the answer goes on for somebody who takes nothing"
    );
    drop(peer);
}
