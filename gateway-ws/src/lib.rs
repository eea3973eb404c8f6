//! The gateway: pushes what happens in a room to the WebSockets subscribed to it.
//!
//! One ordered follower (`follower.rs`) of the log per process hands each event to the hub (`hub.rs`), which
//! shares its once-encoded bytes among the subscribed connections (`connection.rs`). A client that was away
//! gets what it missed from the log itself (`catch_up.rs`), however long ago that was.
//!
//! # The protocol
//! JSON text frames; see [`protocol`] for every frame, error code and close code.
//! - The token comes in the `Authorization` header of the upgrade, or in a first frame
//!   `{"type":"auth","token":TOKEN}` within ten seconds, which is answered with `authenticated`. A later
//!   `auth` frame with a fresh token of the same user prolongs the connection.
//! - `{"type":"subscribe","room":ROOM}`: `subscribed` with `recovered: false` and the position after which
//!   everything will be pushed. That is where the follower is, a moment behind the log's end, so what was
//!   posted just before may be pushed as well; a client that has it passes its position as `after`.
//! - `{"type":"subscribe","room":ROOM,"after":POSITION}`: `subscribed` with `recovered: true` comes first,
//!   then everything in the room after that position, then `replayed` with how many that were, then what
//!   happens from now on: no gap, no duplicate. `after` beyond the end of the log is answered with
//!   `recovered: false` and a reason.
//! - Events that the log holds but that are void (posts by others than members, deletions of other rooms'
//!   messages) are not pushed.

mod catch_up;
mod connection;
mod follower;
mod hub;
mod outbox;
mod pause;
pub mod protocol;
mod render;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use directory::Directory;
use event_log::EventLog;
use platform::auth::Auth;
use platform::error::ApiError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::follower::Follower;
use crate::hub::Hub;
use crate::render::Renderer;

/// What the gateway works with.
#[derive(Clone)]
pub struct Options {
    /// The log to follow and to replay from.
    pub log: Arc<dyn EventLog>,
    /// The users and rooms of the log.
    pub directory: Directory,
    /// Checks tokens.
    pub auth: Auth,
    /// What a connection may use.
    pub limits: Limits,
    /// Origins whose web pages may connect; empty: any. Clients that are no browsers send no origin and
    /// may always.
    pub allowed_origins: Vec<String>,
    /// Ends the following and closes every socket.
    pub shutdown: CancellationToken,
    /// Counts the open sockets: after `shutdown`, wait for it to see the last one closed.
    pub sockets: TaskTracker,
}

/// What a connection may use.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The largest message from the client, in bytes.
    pub message_bytes: usize,
    /// How many frames may wait for a client; a client that makes more wait is closed.
    pub queue_frames: usize,
    /// How many bytes may wait for a client.
    pub queue_bytes: usize,
    /// How many rooms a connection may be subscribed to.
    pub subscriptions: usize,
    /// How many frames a second a client may send in the long run.
    pub frames_per_second: u32,
    /// How many frames a client may send at once.
    pub frame_burst: u32,
    /// How long a client may take to authenticate.
    pub auth_timeout: Duration,
    /// After how long a silence the client is pinged; after as long again it is given up.
    pub ping_interval: Duration,
    /// How long the closing of a socket may take.
    pub close_timeout: Duration,
    /// Over how long the sockets are closed when the process shuts down.
    pub shutdown_spread: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 64 * 1024,
            queue_frames: 1024,
            queue_bytes: 1024 * 1024,
            subscriptions: 1000,
            frames_per_second: 100,
            frame_burst: 1500,
            auth_timeout: Duration::from_secs(10),
            ping_interval: Duration::from_secs(30),
            close_timeout: Duration::from_secs(5),
            shutdown_spread: Duration::from_secs(2),
        }
    }
}

/// The size of a connection's read buffer in bytes. The library fills it with zeros before each read, so
/// its default of 128 KiB is slow as well as large.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// The size in bytes that a connection's write buffer reaches before it is written without being flushed.
const WRITE_BUFFER_BYTES: usize = 16 * 1024;

/// What all connections share.
pub struct Shared {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) directory: Directory,
    pub(crate) auth: Auth,
    pub(crate) limits: Limits,
    pub(crate) allowed_origins: Vec<String>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) sockets: TaskTracker,
    pub(crate) hub: Arc<Hub>,
    pub(crate) renderer: Arc<Renderer>,
}

/// The gateway's route, `GET /ws`. Starts following the log until `options.shutdown`; must be called
/// within a Tokio runtime.
pub fn routes(options: Options) -> OpenApiRouter {
    metrics::describe_gauge!("hansard_sockets", "Open WebSocket connections");
    metrics::describe_counter!(
        "hansard_pushed_messages_total",
        "Events written to WebSockets, replays included"
    );
    metrics::describe_gauge!(
        "hansard_gateway_position",
        "The position of the last event that the gateway has handed out"
    );
    let renderer = Renderer::new(Arc::clone(&options.log), options.directory.clone());
    let shared = Arc::new(Shared {
        renderer: Arc::new(renderer),
        hub: Arc::new(Hub::new()),
        log: options.log,
        directory: options.directory,
        auth: options.auth,
        limits: options.limits,
        allowed_origins: options.allowed_origins,
        shutdown: options.shutdown,
        sockets: options.sockets,
    });
    let follower = Follower {
        log: Arc::clone(&shared.log),
        directory: shared.directory.clone(),
        renderer: Arc::clone(&shared.renderer),
        hub: Arc::clone(&shared.hub),
        shutdown: shared.shutdown.clone(),
    };
    let shutdown = shared.shutdown.clone();
    tokio::spawn(async move {
        // Dropping the log's futures and streams at any moment is safe.
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = follower.run() => {}
        }
    });
    OpenApiRouter::new()
        .routes(routes!(connect))
        .with_state(shared)
}

/// Waits, after shutdown, until every socket is closed, but no longer than that may take. For the end of
/// `main`: the HTTP server does not wait for connections that have become WebSockets.
pub async fn all_closed(sockets: &TaskTracker, limits: &Limits) {
    sockets.close();
    let limit = limits.shutdown_spread + limits.close_timeout + Duration::from_secs(1);
    if tokio::time::timeout(limit, sockets.wait()).await.is_err() {
        tracing::warn!(open = sockets.len(), "some sockets did not close in time");
    }
}

/// Open a WebSocket.
///
/// JSON text frames. Send `{"type":"subscribe","room":ROOM,"after":MESSAGE}` to get what happens in a room
/// pushed; with `after`, everything after that message comes first.
#[utoipa::path(
    get,
    path = "/ws",
    tag = "push",
    responses(
        (status = 101, description = "The connection is a WebSocket now"),
        (status = 400, description = "Not a WebSocket upgrade", body = contract::Problem, content_type = "application/problem+json"),
        (status = 403, description = "The web page's origin is not allowed", body = contract::Problem, content_type = "application/problem+json"),
    )
)]
async fn connect(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    if !origin_is_allowed(&shared.allowed_origins, &headers) {
        return ApiError::forbidden("web pages of this origin may not connect").into_response();
    }
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => {
            let message = format!("this path takes WebSocket connections: {rejection}");
            return ApiError::bad_request(message).into_response();
        }
    };
    let claims = headers.contains_key(header::AUTHORIZATION).then(|| {
        let claims = shared.auth.bearer(&headers);
        claims.map_err(|error| error.message().to_owned())
    });
    let open = shared.sockets.token();
    let message_bytes = shared.limits.message_bytes;
    upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_message_size(message_bytes)
        .max_frame_size(message_bytes)
        .on_upgrade(move |socket| async move {
            connection::run(shared, socket, claims).await;
            drop(open);
        })
}

fn origin_is_allowed(allowed: &[String], headers: &HeaderMap) -> bool {
    if allowed.is_empty() {
        return true;
    }
    match headers.get(header::ORIGIN) {
        None => true,
        Some(origin) => allowed.iter().any(|it| it.as_bytes() == origin.as_bytes()),
    }
}
