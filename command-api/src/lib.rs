//! The write side over HTTP: POST, PUT, PATCH and DELETE become commands, are decided from the log's state alone,
//! and are appended to the log.
//!
//! A command works without the read models. They only add to its answer: whether the projection has caught
//! up with it, and counts.

mod caller;
mod deletions;
mod execute;
mod holds;
mod reply;
mod rooms;
mod users;

use std::sync::Arc;
use std::time::Duration;

use commands::Commands;
use contract::Limits;
use platform::admission::admit;
use platform::auth::Auth;
use platform::config::AuthMode;
use read_models::{Progress, ReadModels};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// How long a command's answer waits for the projection at most.
pub const PROJECTION_WAIT: Duration = Duration::from_millis(250);

/// What the write side is built from.
pub struct Options {
    /// What carries commands out.
    pub commands: Commands,
    /// Where counts and late repetitions of idempotency keys are looked up.
    pub read_models: Arc<dyn ReadModels>,
    /// How far the projection has come.
    pub progress: Progress,
    /// Who may call.
    pub auth: Auth,
    /// How much a request may carry.
    pub limits: Limits,
    /// How many commands are worked on at a time.
    pub max_requests: usize,
}

/// The write side's routes.
pub fn routes(options: Options) -> OpenApiRouter {
    let open = options.auth.mode() == AuthMode::Open;
    let mut router = OpenApiRouter::new()
        .routes(routes!(users::create))
        .routes(routes!(users::delete))
        .routes(routes!(users::erase))
        .routes(routes!(rooms::initiate))
        .routes(routes!(rooms::post_message))
        .routes(routes!(rooms::edit_message))
        .routes(routes!(rooms::mark_read))
        .routes(routes!(holds::hold))
        .routes(routes!(holds::release))
        .routes(routes!(deletions::delete_room))
        .routes(routes!(deletions::delete_message));
    // Anyone could become anyone: with tokens required, they come from elsewhere.
    if open {
        router = router.routes(routes!(users::login));
    }
    admit(router, options.max_requests).with_state(Arc::new(options))
}
