//! What every service's HTTP side shares: the layers around the routes, the routes for operators, and
//! serving until told to stop.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::body::{Body, HttpBody};
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{DefaultBodyLimit, FromRequestParts, MatchedPath, RawPathParams, Request};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use axum::{Json, Router};
use futures::stream::{self, StreamExt};
use serde_json::{Map, Value, json};
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer};
use tracing::Instrument;
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::SwaggerUi;

use crate::admission::Refused;
use crate::config::Config;
use crate::error::ApiError;
use crate::health::Health;
use crate::stall::{Guard, StallLimit};
use crate::telemetry;

/// Names a request in the answer, in log lines, and towards other services.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The log position that an answer reflects; a query that sends it back waits for it.
pub const POSITION: HeaderName = HeaderName::from_static("hansard-position");

/// How long requests that are under way when a service stops may take to finish.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// How many connections may wait to be accepted; the system may allow fewer (`net.core.somaxconn`). Those beyond try
/// again only after a second and more.
const BACKLOG: u32 = 16_384;

/// How much of a body that was not wanted is still read, in bytes, and for how long.
const MAX_UNWANTED_BYTES: usize = 16 * 1024 * 1024;
const UNWANTED_TIME: Duration = Duration::from_secs(5);

/// The longest request id that is taken from a client, in bytes.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// What the routes for operators and the layers need.
#[derive(Clone)]
pub struct Shared {
    /// What `/health/ready` asks.
    pub health: Health,
    /// Limits and origins.
    pub config: Arc<Config>,
    /// The API's description, as JSON: what `/openapi.json` serves.
    pub openapi: Cow<'static, str>,
}

/// The request's id, among the extensions of every request that passed the layers of [`finish`].
#[derive(Debug, Clone)]
pub struct RequestId(pub HeaderValue);

/// Puts the routes for operators (`/health/live`, `/health/ready`, `/metrics`, `/openapi.json`, `/docs`)
/// beside a service's own, and the layers around all: request ids, log lines, figures, CORS, the limit on
/// bodies, an answer even if a handler panics, and 404 for what no route answers.
pub fn finish(router: OpenApiRouter, shared: Shared) -> Router {
    // Figures that are recorded before there is a recorder are lost.
    telemetry::figures();
    let (router, _) = router.split_for_parts();
    let Shared {
        health,
        config,
        openapi,
    } = shared;
    let openapi = axum::body::Bytes::from(openapi.into_owned());
    let docs = utoipa_swagger_ui::Config::new(["/openapi.json"])
        // Its default is a validator somewhere else.
        .validator_url("none");
    router
        .route(
            "/health/live",
            get(|| async { Json(json!({"live": true})) }),
        )
        .route("/health/ready", get(move || ready(health.clone())))
        .route("/metrics", get(figures))
        .route(
            "/openapi.json",
            get(move || {
                let openapi = openapi.clone();
                async move { ([(header::CONTENT_TYPE, "application/json")], openapi) }
            }),
        )
        .merge(SwaggerUi::new("/docs").config(docs))
        .fallback(unknown_endpoint)
        .method_not_allowed_fallback(unknown_endpoint)
        // One stack, the outermost first: each layer of a router's own is a box, copied for each request together
        // with all boxes below.
        .layer(
            ServiceBuilder::new()
                .layer(middleware::from_fn(observe))
                .layer(middleware::from_fn(take_in))
                .layer(middleware::from_fn(allow_credentials))
                .layer(cors(&config))
                .layer(middleware::from_fn(refuse_unreadable_path))
                .layer(CatchPanicLayer::custom(|_| {
                    ApiError::internal_unlogged().into_response()
                }))
                .layer(DefaultBodyLimit::max(config.max_body_bytes)),
        )
}

/// Refuses a path whose ids are no text, so that handlers need not: the router's own refusal is no JSON.
async fn refuse_unreadable_path(request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    match RawPathParams::from_request_parts(&mut parts, &()).await {
        Err(RawPathParamsRejection::InvalidUtf8InPathParam(_)) => {
            ApiError::bad_request("the request's path is not valid UTF-8").into_response()
        }
        _ => next.run(Request::from_parts(parts, body)).await,
    }
}

async fn unknown_endpoint() -> ApiError {
    ApiError::unknown_endpoint()
}

async fn ready(health: Health) -> Response {
    let outcomes = health.check().await;
    let ready = outcomes.iter().all(|(_, outcome)| outcome.is_ok());
    let checks = outcomes.into_iter().map(|(name, outcome)| {
        let outcome = match outcome {
            Ok(None) => json!({"ok": true}),
            Ok(Some(note)) => json!({"ok": true, "note": note}),
            Err(reason) => json!({"ok": false, "reason": reason}),
        };
        (name, outcome)
    });
    let checks: Map<String, Value> = checks.collect();
    let status = match ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(json!({"ready": ready, "checks": checks}))).into_response()
}

async fn figures() -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        telemetry::figures().render(),
    )
}

fn cors(config: &Config) -> CorsLayer {
    let origins = config.allowed_origins.iter();
    let origins: Vec<HeaderValue> = origins.filter_map(|origin| origin.parse().ok()).collect();
    let allowed = match config.allowed_origins.is_empty() {
        true => AllowOrigin::any(),
        false => AllowOrigin::list(origins),
    };
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods(AllowMethods::mirror_request())
        // Not `*`, which does not cover the Authorization header (Fetch, "CORS-safelisted").
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([POSITION, header::RETRY_AFTER, REQUEST_ID])
        .max_age(Duration::from_secs(600))
}

/// Among the extensions of an answer: pages of other origins may read it though their request carried
/// credentials, which Hansard itself never looks at.
#[derive(Debug, Clone, Copy)]
pub struct WithCredentials;

/// Names the origin in an answer to a request with credentials: then `*` does not count (Fetch, "CORS
/// protocol and credentials").
async fn allow_credentials(request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let mut response = next.run(request).await;
    if response.extensions().get::<WithCredentials>().is_some()
        && let Some(origin) = origin
        && let Some(allowed) = response
            .headers_mut()
            .get_mut(header::ACCESS_CONTROL_ALLOW_ORIGIN)
    {
        *allowed = origin;
        let yes = HeaderValue::from_static("true");
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
    }
    response
}

/// Gives the request its id, and logs and counts its answer. Of the path only the route is logged, and of
/// query and body nothing.
async fn observe(mut request: Request, next: Next) -> Response {
    let start = Instant::now();
    let id = request_id(&request);
    let method = known_method(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route
        .as_ref()
        .map_or("unmatched", MatchedPath::as_str)
        .to_owned();
    request.extensions_mut().insert(RequestId(id.clone()));
    let span = tracing::info_span!(
        "request",
        id = id.to_str().unwrap_or_default(),
        method,
        route
    );

    let mut response = next.run(request).instrument(span.clone()).await;
    response.headers_mut().insert(REQUEST_ID, id);

    let taken = start.elapsed();
    let status = response.status();
    let _entered = span.enter();
    let ms = (taken.as_secs_f64() * 100_000.0).round() / 100.0;
    let is_refused = response.extensions().get::<Refused>().is_some();
    if is_refused || is_for_operators(&route) {
        tracing::debug!(status = status.as_u16(), ms, "answered");
    } else if status.is_server_error() {
        tracing::warn!(status = status.as_u16(), ms, "answered");
    } else {
        tracing::info!(status = status.as_u16(), ms, "answered");
    }
    metrics::histogram!("hansard_http_request_seconds", "method" => method, "route" => route.clone())
        .record(taken.as_secs_f64());
    metrics::counter!(
        "hansard_http_requests_total",
        "method" => method, "route" => route, "status" => status.as_u16().to_string()
    )
    .increment(1);
    response
}

/// Reads what the handler left of the request's body before the answer goes out, within limits. A
/// connection that ends on unread bytes is reset: the answer that says why may never arrive, and the next
/// request on it, which behind a proxy is somebody else's, fails.
async fn take_in(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    // A client that waits for `100 Continue` has not sent its body.
    if body.is_end_stream() || parts.headers.contains_key(header::EXPECT) {
        return next.run(Request::from_parts(parts, body)).await;
    }
    let source = Arc::new(Mutex::new(body.into_data_stream()));
    let ended = Arc::new(AtomicBool::new(false));
    let chunks = {
        let (source, ended) = (Arc::clone(&source), Arc::clone(&ended));
        let poll = move |context: &mut std::task::Context<'_>| {
            if ended.load(Ordering::Relaxed) {
                return Poll::Ready(None);
            }
            let mut source = source.lock().unwrap_or_else(PoisonError::into_inner);
            let chunk = source.poll_next_unpin(context);
            if let Poll::Ready(None | Some(Err(_))) = chunk {
                ended.store(true, Ordering::Relaxed);
            }
            chunk
        };
        move || stream::poll_fn(poll.clone())
    };
    let body = Body::from_stream(chunks());
    let mut response = next.run(Request::from_parts(parts, body)).await;
    let rest = async {
        let mut bytes = 0;
        let mut rest = chunks();
        while let Some(Ok(chunk)) = rest.next().await {
            bytes += chunk.len();
            if bytes > MAX_UNWANTED_BYTES {
                break;
            }
        }
    };
    // The answer goes out in any case.
    let _ = tokio::time::timeout(UNWANTED_TIME, rest).await;
    if !ended.load(Ordering::Relaxed) {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}

/// Routes that are asked every few seconds for ever.
fn is_for_operators(route: &str) -> bool {
    route.starts_with("/health/") || route == "/metrics"
}

/// The client's id for the request if it is fit for log lines, else a new UUIDv7.
fn request_id(request: &Request) -> HeaderValue {
    let given = request.headers().get(REQUEST_ID).filter(|value| {
        (1..=MAX_REQUEST_ID_BYTES).contains(&value.len())
            && value
                .as_bytes()
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte))
    });
    given.cloned().unwrap_or_else(|| {
        let id = uuid::Uuid::now_v7().to_string();
        HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("none"))
    })
}

/// The method as a label: a client can make up methods, and each label costs memory for ever.
fn known_method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// Takes the address that the configuration says.
///
/// # Errors
/// One sentence that names the address.
pub async fn bind(config: &Config) -> anyhow::Result<TcpListener> {
    let address = config.listen;
    let listen = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        // Connections of an earlier process on this port may still be winding up.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "can't listen on {address}: the port is in use; stop what uses it or set --listen to \
             another"
        ),
        _ => anyhow::anyhow!("can't listen on {address}: {error}"),
    })
}

/// Serves until `shutdown` is cancelled: then stops accepting, and returns once the requests under way
/// have been answered, or after [`DRAIN_LIMIT`].
///
/// # Errors
/// The listener failed.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let listener = listener.tap_io(|stream| {
        // Answers are small and written whole: waiting to fill a packet only delays them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "can't set TCP_NODELAY");
        }
    });
    let service = router.into_make_service_with_connect_info::<StallLimit>();
    let serving = axum::serve(Guard(listener), service)
        .with_graceful_shutdown(shutdown.clone().cancelled_owned())
        .into_future();
    let out_of_time = async {
        shutdown.cancelled().await;
        tokio::time::sleep(DRAIN_LIMIT).await;
    };
    tokio::select! {
        outcome = serving => outcome.context("serving failed"),
        () = out_of_time => {
            tracing::warn!("requests were still under way after {DRAIN_LIMIT:?} and are cut off");
            Ok(())
        }
    }
}
