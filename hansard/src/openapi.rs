//! The whole API: its routes merged from the services, and its description.

use std::sync::Arc;
use std::time::Duration;

use ::keys::{Keyring, Record};
use anyhow::Context as _;
use event_log::LogUrl;
use platform::auth::Auth;
use platform::config::AuthMode;
use read_models::{Live, Progress, ReadModels, ReadModelsUrl};
use tokio_util::sync::CancellationToken;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;

/// What the description says about the API as a whole.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Hansard",
        description = "A chat backend whose record can be trusted.\n\nIds are opaque texts. Every refusal has \
                       the same body, `Problem`. Any request may carry an `X-Request-Id`, which the answer \
                       and the server's log repeat. A command's answer says in `Hansard-Position` where \
                       its event stands; a query that sends that header back waits until it can see it.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    modifiers(&Tokens),
    tags(
        (name = "users", description = "Who takes part"),
        (name = "rooms", description = "Conversations and their messages"),
        (name = "deletions", description = "Removing rooms and messages"),
        (name = "push", description = "What happens, as it happens"),
        (name = "audit", description = "The record itself"),
    )
)]
struct Description;

struct Tokens;

impl Modify for Tokens {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .description(Some(
                "HS256 over `{userId, userType, role, iat, exp}`; `role` may be absent. With auth=open, `POST /login/{userId}` issues one.",
            ))
            .build();
        openapi
            .components
            .get_or_insert_default()
            .add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// The routes of all services.
pub(crate) fn merged(
    commands: command_api::Options,
    queries: query_api::Options,
    gateway: gateway_ws::Options,
    audits: audit::Options,
) -> OpenApiRouter {
    OpenApiRouter::with_openapi(Description::openapi())
        .merge(command_api::routes(commands))
        .merge(query_api::routes(queries))
        .merge(gateway_ws::routes(gateway))
        .merge(audit::routes(audits))
}

/// The API's description as the code declares it, as indented JSON: what `contract/openapi.json` must be.
///
/// # Errors
/// There is no room for temporary files.
pub fn document() -> anyhow::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(describe())
}

pub(crate) fn print() -> anyhow::Result<()> {
    crate::print_line(&document()?)
}

/// Routes are declared together with what they work on, so an empty log and empty read models are made
/// for them, and removed again.
async fn describe() -> anyhow::Result<String> {
    let directory = tempfile::tempdir().context("can't create a temporary directory")?;
    let log = event_log::open(&LogUrl::Sqlite("log.db".into()), directory.path()).await?;
    let url = ReadModelsUrl::Sqlite("read.db".into());
    let catalogue = read_models::open(&url, directory.path()).await?;
    let tree = catalogue.tree();
    let read_models: Arc<dyn ReadModels> = Arc::new(Live::new(catalogue));

    let stopped = CancellationToken::new();
    stopped.cancel();
    let record = Record::new(log, Keyring::in_memory());
    let users = directory::Directory::start(record.clone(), stopped.clone());
    let progress = Progress::start(Arc::clone(&read_models), stopped.clone());
    // Open, because that has the route that issues tokens as well.
    let secret = "nothing is ever signed with this secret".to_owned();
    let auth = Auth::new(AuthMode::Open, Duration::ZERO, &[secret])?;
    let mut routes = merged(
        command_api::Options {
            commands: commands::Commands {
                record: record.clone(),
                directory: users.clone(),
            },
            read_models: Arc::clone(&read_models),
            progress: progress.clone(),
            auth: auth.clone(),
            limits: contract::Limits::default(),
            max_requests: 1,
        },
        query_api::Options {
            read_models,
            progress,
            past: record.clone().into(),
            auth: auth.clone(),
            max_requests: 1,
        },
        gateway_ws::Options {
            record: record.clone(),
            directory: users,
            auth: auth.clone(),
            limits: gateway_ws::Limits::default(),
            allowed_origins: Vec::new(),
            shutdown: stopped,
            sockets: tokio_util::task::TaskTracker::new(),
        },
        audit::Options {
            record: record.into(),
            tree,
            keys: Vec::new(),
            auth,
        },
    );
    Ok(routes.to_openapi().to_pretty_json()?)
}
