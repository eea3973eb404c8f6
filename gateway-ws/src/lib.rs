//! The gateway: pushes what happens in rooms to the clients subscribed to them, over WebSocket and
//! Socket.IO.
//!
//! One ordered follower (`follower.rs`) of the log per process hands each event to the hub (`hub.rs`), which
//! shares its once-encoded bytes among the subscribed connections (`connection.rs`). A client that was away
//! gets what it missed from the log itself (`catch_up.rs`, `history.rs`), however long ago that was; so does
//! one that asks for changes over HTTP (`changes.rs`). What is not in the log, typing (`typing.rs`) and
//! presence (`presence.rs`), the gateways tell each other (`signals.rs`).
//!
//! [`protocol`] has every frame, error code and close code, and docs/websocket.md tells how they are used.

mod catch_up;
mod changes;
mod connection;
mod follower;
mod history;
mod hub;
mod memberships;
mod origin;
mod outbox;
mod pause;
mod presence;
pub mod protocol;
mod rate;
mod recent;
mod render;
mod signals;
mod socketio;
mod subscriptions;
#[cfg(feature = "testing")]
pub mod testing;
mod transport;
mod typing;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use directory::Directory;
use keys::Record;
use platform::auth::Auth;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::follower::Follower;
use crate::hub::Hub;
use crate::presence::Presences;
use crate::render::Renderer;
use crate::signals::{Receiver, Sender};
use crate::typing::TypingUsers;

/// What the gateway works with.
#[derive(Clone)]
pub struct Options {
    /// The log to follow and to replay from.
    pub record: Record,
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
    /// How many of the log's last events are kept in memory for clients that were away for a moment.
    pub recent_events: usize,
    /// How many rooms a connection may be subscribed to, beside the personal subscription, or have muted.
    pub subscriptions: usize,
    /// Of how many users a connection may have the presence pushed.
    pub watched_users: usize,
    /// How many connections a user may have to this gateway.
    pub connections_per_user: usize,
    /// How many frames a second a client may send in the long run.
    pub frames_per_second: u32,
    /// How many frames a client may send at once.
    pub frame_burst: u32,
    /// How often a second a client may say in the long run that its user types, or no longer does.
    pub typing_per_second: u32,
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
            recent_events: 8192,
            subscriptions: 1000,
            watched_users: 10_000,
            connections_per_user: 100,
            frames_per_second: 100,
            frame_burst: 1500,
            typing_per_second: 5,
            auth_timeout: Duration::from_secs(10),
            ping_interval: Duration::from_secs(30),
            close_timeout: Duration::from_secs(5),
            shutdown_spread: Duration::from_secs(3),
        }
    }
}

/// What all connections share.
pub struct Shared {
    pub(crate) record: Record,
    pub(crate) directory: Directory,
    pub(crate) auth: Auth,
    pub(crate) limits: Limits,
    pub(crate) allowed_origins: Vec<String>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) sockets: TaskTracker,
    pub(crate) hub: Arc<Hub>,
    pub(crate) renderer: Arc<Renderer>,
    pub(crate) presences: Arc<Presences>,
    pub(crate) sender: Sender,
}

/// The gateway's routes. Starts following the log until `options.shutdown`; must be called within a Tokio
/// runtime.
pub fn routes(options: Options) -> OpenApiRouter {
    metrics::describe_gauge!("hansard_sockets", "Open connections of clients");
    metrics::describe_gauge!(
        "hansard_waiting_requests",
        "Requests for changes that wait for some"
    );
    metrics::describe_counter!(
        "hansard_pushed_messages_total",
        "Events written to clients, replays and pages of changes included"
    );
    metrics::describe_gauge!(
        "hansard_gateway_position",
        "The position of the last event that the gateway has handed out"
    );
    let renderer = Renderer::new(options.record.clone(), options.directory.clone());
    let signals = options.record.log.signals();
    let sender = Sender::start(Arc::clone(&signals));
    let shared = Arc::new(Shared {
        renderer: Arc::new(renderer),
        hub: Arc::new(Hub::new()),
        presences: Arc::new(Presences::new(sender.clone())),
        sender,
        record: options.record,
        directory: options.directory,
        auth: options.auth,
        limits: options.limits,
        allowed_origins: options.allowed_origins,
        shutdown: options.shutdown,
        sockets: options.sockets,
    });
    let stop = stop(&shared);
    let typing = Arc::new(TypingUsers::default());
    let follower = Follower {
        record: shared.record.clone(),
        directory: shared.directory.clone(),
        renderer: Arc::clone(&shared.renderer),
        hub: Arc::clone(&shared.hub),
        typing: Arc::clone(&typing),
        recent_events: shared.limits.recent_events,
        stop: stop.clone(),
    };
    let receiver = Receiver {
        signals,
        sender: shared.sender.clone(),
        directory: shared.directory.clone(),
        hub: Arc::clone(&shared.hub),
        typing,
        presences: Arc::clone(&shared.presences),
    };
    tokio::spawn(receiver.run(stop.clone()));
    // Dropping the log's futures and streams at any moment is safe.
    tokio::spawn(async move { stop.run_until_cancelled(follower.run()).await });
    OpenApiRouter::new()
        .routes(routes!(websocket::connect))
        .routes(routes!(changes::changes))
        .route("/asyncapi.json", get(description))
        .with_state(Arc::clone(&shared))
        .merge(socketio::routes(shared))
}

async fn description() -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "application/json")],
        contract::ASYNCAPI,
    )
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

/// Cancelled when the process is to shut down and the last socket is closed: until then they are served.
fn stop(shared: &Shared) -> CancellationToken {
    let stop = CancellationToken::new();
    let (shutdown, sockets) = (shared.shutdown.clone(), shared.sockets.clone());
    let stopped = stop.clone();
    tokio::spawn(async move {
        shutdown.cancelled().await;
        sockets.close();
        sockets.wait().await;
        stopped.cancel();
    });
    stop
}
