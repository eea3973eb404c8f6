//! What every service shares: configuration, authentication, errors, telemetry, shutdown.
//!
//! A service's `main.rs` is these few lines:
//!
//! ```no_run
//! use clap::Parser;
//!
//! /// Answers GET requests from the read models.
//! #[derive(Parser)]
//! #[command(name = "query-api", version)]
//! struct Cli {
//!     #[command(flatten)]
//!     args: platform::config::Args,
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     let cli = Cli::parse();
//!     platform::run("query-api", &cli.args, |context| async move {
//!         let listener = context.bind().await?;
//!         let auth = context.auth()?;
//!         let log = context.open_log().await?;
//!         let (read_models, _) = context.open_read_models().await?;
//!         // let routes = query_api::routes(query_api::Options { auth, log, read_models, .. });
//!         # drop((auth, log, read_models));
//!         let routes = utoipa_axum::router::OpenApiRouter::new();
//!         context.serve(listener, routes, contract::OPENAPI).await
//!     })
//! }
//! ```

pub mod admission;
pub mod auth;
pub mod body;
pub mod config;
mod descriptors;
pub mod error;
pub mod health;
pub mod http;
pub mod role;
mod secret;
pub mod shutdown;
pub mod signing;
pub mod stall;
pub mod startup;
pub mod telemetry;

/// What every process takes its memory from; each says so in its `main.rs`. A post is some hundred small allocations
/// in several threads: with the C library's allocator they take a seventh of its time.
pub use mimalloc::MiMalloc as Allocator;

use std::borrow::Cow;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use event_log::EventLog;
use keys::{Keyring, Record};
use read_models::{Catalogue, Live, Progress, ReadModelError, ReadModels};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;

use crate::auth::Auth;
use crate::config::{Args, Config, ConfigError};
use crate::health::Health;
use crate::http::Shared;
use crate::startup::Interrupted;

/// The exit code of a process whose configuration can't be used.
const EXIT_CONFIGURATION: u8 = 2;

/// How long blocking work may go on after everything else has ended.
const LAST_WORK: Duration = Duration::from_secs(5);

/// What a service starts from.
#[derive(Clone)]
pub struct Context {
    /// The service's name, as it is started.
    pub service: &'static str,
    /// The configuration.
    pub config: Arc<Config>,
    /// Cancelled when the process is told to stop.
    pub shutdown: CancellationToken,
    /// What `/health/ready` asks.
    pub health: Health,
}

impl Context {
    /// The issuer and judge of tokens; see [`Auth::load`].
    ///
    /// # Errors
    /// As [`Auth::load`].
    pub fn auth(&self) -> Result<Auth, ConfigError> {
        Auth::load(&self.config)
    }

    /// Takes the configured address; see [`http::bind`]. Do it first: a port in use should be reported
    /// before anything is created or waited for.
    ///
    /// # Errors
    /// As [`http::bind`].
    pub async fn bind(&self) -> anyhow::Result<TcpListener> {
        http::bind(&self.config).await
    }

    /// Names this process among others, the same when it is started again: only one at a time can have the
    /// address.
    ///
    /// # Errors
    /// The system does not say.
    pub fn name_at(&self, listener: &TcpListener) -> anyhow::Result<String> {
        let host = nix::unistd::gethostname()?;
        let address = listener.local_addr()?;
        Ok(format!("{} {address}", host.to_string_lossy()))
    }

    /// Opens the event log, see [`startup::open_log`], and adds it to the health checks as `log`.
    ///
    /// # Errors
    /// As [`startup::open_log`].
    pub async fn open_log(&self) -> anyhow::Result<Arc<dyn EventLog>> {
        let log = startup::open_log(&self.config, &self.shutdown).await?;
        let checked = Arc::clone(&log);
        self.health.add("log", move || {
            let log = Arc::clone(&checked);
            async move {
                log.tail().await.map_err(|error| {
                    tracing::debug!(%error, "not ready");
                    "can't be reached".to_owned()
                })?;
                Ok(())
            }
        });
        Ok(log)
    }

    /// Opens the keys, see [`startup::open_keyring`], and adds them to the health checks as `keys`.
    ///
    /// # Errors
    /// As [`startup::open_keyring`].
    pub async fn open_keyring(&self) -> anyhow::Result<Keyring> {
        let keyring = startup::open_keyring(&self.config, &self.shutdown).await?;
        let checked = keyring.clone();
        self.health.add("keys", move || {
            let keyring = checked.clone();
            async move {
                keyring.check().await.map_err(|error| {
                    tracing::debug!(%error, "not ready");
                    "can't be reached".to_owned()
                })
            }
        });
        Ok(keyring)
    }

    /// Opens the log and its keys, see [`open_log`](Self::open_log) and
    /// [`open_keyring`](Self::open_keyring).
    ///
    /// # Errors
    /// As there.
    pub async fn open_record(&self) -> anyhow::Result<Record> {
        let log = self.open_log().await?;
        Ok(Record::new(log, self.open_keyring().await?))
    }

    /// Opens the catalogue of the read models, see [`startup::open_catalogue`], and adds it to the health
    /// checks as `readModels`: a projector can do its work when it can be read.
    ///
    /// # Errors
    /// As [`startup::open_catalogue`].
    pub async fn open_catalogue(&self) -> anyhow::Result<Arc<dyn Catalogue>> {
        let catalogue = startup::open_catalogue(&self.config, &self.shutdown).await?;
        let checked = Arc::clone(&catalogue);
        self.check_read_models(move || {
            let catalogue = Arc::clone(&checked);
            async move { catalogue.generations().await.map(drop) }
        });
        Ok(catalogue)
    }

    /// Opens the read models without waiting for them, see [`startup::open_catalogue_unprepared`], and
    /// adds them to the health checks as `readModels`: with their catalogue, for who projects as well.
    ///
    /// # Errors
    /// As [`startup::open_catalogue_unprepared`].
    pub async fn open_read_models(
        &self,
    ) -> anyhow::Result<(Arc<dyn ReadModels>, Arc<dyn Catalogue>)> {
        let catalogue = startup::open_catalogue_unprepared(&self.config).await?;
        let read_models: Arc<dyn ReadModels> = Arc::new(Live::new(Arc::clone(&catalogue)));
        let checked = Arc::clone(&read_models);
        self.check_read_models(move || {
            let read_models = Arc::clone(&checked);
            async move { read_models.checkpoint().await.map(drop) }
        });
        Ok((read_models, catalogue))
    }

    fn check_read_models<Checking>(&self, check: impl Fn() -> Checking + Send + Sync + 'static)
    where
        Checking: Future<Output = Result<(), ReadModelError>> + Send + 'static,
    {
        self.health.add("readModels", move || {
            let checking = check();
            async move {
                checking.await.map_err(|error| {
                    tracing::debug!(%error, "not ready");
                    match error {
                        ReadModelError::BeingBuilt => error.to_string(),
                        _ => "can't be reached".to_owned(),
                    }
                })
            }
        });
    }

    /// Adds to the health checks, as `projection`, whether the read models are no further behind the log than
    /// the configuration allows: for a process that reads them and has no projector of its own to ask.
    pub fn check_projection(&self, progress: &Progress) {
        let (progress, max_lag) = (progress.clone(), self.config.max_lag());
        self.health.add("projection", move || {
            let lag = progress.lag();
            let checked = match lag.as_secs() {
                _ if lag <= max_lag => Ok(()),
                seconds if progress.projector_is_down() => Err(format!(
                    "no projector is at work, and what is read may be {seconds} s old"
                )),
                seconds => Err(format!("the projection is {seconds} s behind the log")),
            };
            std::future::ready(checked)
        });
    }

    /// Says on standard output where the service listens, `NAME listens on http://ADDRESS (DETAILS)`, in
    /// one line that scripts may wait for and read.
    pub fn announce(&self, listener: &TcpListener, details: &str) {
        if let Ok(address) = listener.local_addr() {
            let service = self.service;
            let mut output = std::io::stdout().lock();
            // Nobody may be reading it.
            let _ = writeln!(output, "{service} listens on http://{address} ({details})");
            let _ = output.flush();
        }
    }

    /// Puts the layers and the routes for operators around `routes` ([`http::finish`]), announces the
    /// address, and serves until the process is told to stop ([`http::serve`]).
    ///
    /// # Errors
    /// As [`http::serve`].
    pub async fn serve(
        &self,
        listener: TcpListener,
        routes: OpenApiRouter,
        openapi: impl Into<Cow<'static, str>>,
    ) -> anyhow::Result<()> {
        let router = self.finish(routes, openapi);
        self.announce(&listener, &self.stack());
        http::serve(listener, router, self.shutdown.clone()).await
    }

    /// Puts the layers and the routes for operators around `routes`; see [`http::finish`].
    pub fn finish(
        &self,
        routes: OpenApiRouter,
        openapi: impl Into<Cow<'static, str>>,
    ) -> axum::Router {
        let shared = Shared {
            health: self.health.clone(),
            config: Arc::clone(&self.config),
            openapi: openapi.into(),
        };
        http::finish(routes, shared)
    }

    /// Log, read models and authentication in a few words, for the line at start.
    pub fn stack(&self) -> String {
        let Config {
            log,
            read_models,
            auth,
            ..
        } = self.config.as_ref();
        format!("log {log}, read models {read_models}, auth {auth}")
    }
}

/// Runs a service from its arguments to its exit code: loads the configuration, sets up telemetry and
/// signals, and runs `body`. An error becomes one sentence on standard error and exit code 2 where the
/// configuration is at fault, else 1.
pub fn run<Body, Running>(service: &'static str, args: &Args, body: Body) -> ExitCode
where
    Body: FnOnce(Context) -> Running,
    Running: Future<Output = anyhow::Result<()>>,
{
    exit(service, run_to_end(service, args, body))
}

fn run_to_end<Body, Running>(service: &'static str, args: &Args, body: Body) -> anyhow::Result<()>
where
    Body: FnOnce(Context) -> Running,
    Running: Future<Output = anyhow::Result<()>>,
{
    let config = Arc::new(Config::load(args)?);
    telemetry::init(&config);
    descriptors::raise_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        let context = Context {
            service,
            config,
            shutdown: shutdown::on_signal()?,
            health: Health::new(),
        };
        tokio::spawn(telemetry::upkeep());
        body(context).await
    });
    runtime.shutdown_timeout(LAST_WORK);
    outcome
}

/// The exit code for an outcome; an error is told in one sentence on standard error.
pub fn exit(service: &str, outcome: anyhow::Result<()>) -> ExitCode {
    let Err(error) = outcome else {
        return ExitCode::SUCCESS;
    };
    if error.is::<Interrupted>() {
        return ExitCode::SUCCESS;
    }
    // A sentence is a line, whatever an error's text is made of.
    let sentence = format!("{error:#}");
    let lines: Vec<&str> = sentence.lines().map(str::trim).collect();
    let _ = writeln!(std::io::stderr(), "{service}: {}", lines.join(" "));
    match error.downcast_ref::<ConfigError>() {
        Some(_) => ExitCode::from(EXIT_CONFIGURATION),
        None => ExitCode::FAILURE,
    }
}
