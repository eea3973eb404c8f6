//! The read side over HTTP: GET, answered from the read models alone; but what is asked of the past, from the
//! log.

mod caller;
mod page;
mod past;
mod rooms;
mod search;
mod users;
mod view;

use std::sync::Arc;
use std::time::Duration;

use audit::RecordHandle;
use platform::admission::admit;
use platform::auth::Auth;
use read_models::{Progress, ReadModels};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use crate::page::Requested;

/// How long a query waits for the position that its client has seen, at most.
pub const POSITION_WAIT: Duration = Duration::from_secs(2);

/// What the read side is built from.
pub struct Options {
    /// What queries are answered from.
    pub read_models: Arc<dyn ReadModels>,
    /// How far the projection has come.
    pub progress: Progress,
    /// What is asked of the past.
    pub past: RecordHandle,
    /// Who may call.
    pub auth: Auth,
    /// How many queries are worked on at a time.
    pub max_requests: usize,
}

/// The read side's routes.
pub fn routes(options: Options) -> OpenApiRouter {
    let router = OpenApiRouter::new()
        .routes(routes!(users::list))
        .routes(routes!(users::get))
        .routes(routes!(rooms::recent))
        .routes(routes!(rooms::conversation))
        .routes(routes!(rooms::history))
        .routes(routes!(search::search));
    admit(router, options.max_requests).with_state(Arc::new(options))
}
