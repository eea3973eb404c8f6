//! Opening what a service needs, whatever order things are started in.
//!
//! A server that can't be reached yet is waited for, and the log says so every few seconds. What waiting
//! will not cure ends the start at once.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use event_log::{EventLog, LogError, LogUrl, durable};
use keys::{KeyError, KeyStore, Keyring, KeysUrl, MasterKeys, Record};
use read_models::{Catalogue, ReadModelError, ReadModelsUrl};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, ConfigError};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const BETWEEN_NOTICES: Duration = Duration::from_secs(3);

/// The process was told to stop while it was starting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stopped while starting")]
pub struct Interrupted;

/// Why one attempt to open something failed.
enum Failure {
    /// Trying again may help.
    Unavailable(String),
    /// Trying again will not help.
    Unusable(String),
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Unavailable(reason) => Self::Unavailable(reason),
            LogError::Unusable(reason) => Self::Unusable(reason),
            other => Self::Unusable(other.to_string()),
        }
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Unavailable(reason) => Self::Unavailable(reason),
            KeyError::Unusable(reason) => Self::Unusable(reason),
        }
    }
}

impl From<ReadModelError> for Failure {
    fn from(error: ReadModelError) -> Self {
        match error {
            ReadModelError::Unavailable(reason) => Self::Unavailable(reason),
            ReadModelError::Refused(reason) | ReadModelError::Unusable(reason) => {
                Self::Unusable(reason)
            }
            other @ (ReadModelError::BeingBuilt | ReadModelError::Overtaken) => {
                Self::Unavailable(other.to_string())
            }
        }
    }
}

/// Opens the event log, waiting for its server if need be, and checks that what it acknowledges is safe:
/// where it may not be, warns, or refuses if the configuration requires it.
///
/// # Errors
/// One sentence: the log can't be reached within the start-up time-out, or can't be used.
/// [`Interrupted`] when `shutdown` came first.
pub async fn open_log(
    config: &Config,
    shutdown: &CancellationToken,
) -> anyhow::Result<Arc<dyn EventLog>> {
    if let LogUrl::Sqlite(path) = &config.log {
        ensure_parent(config, path)?;
    }
    let what = format!("the event log at {}", config.log);
    let log = wait_for(&what, config.startup_timeout(), shutdown, || {
        let (url, data_dir) = (config.log.clone(), config.data_dir.clone());
        async move { Ok(event_log::open(&url, &data_dir).await?) }
    })
    .await?;
    let asked = if config.require_sync {
        // The server in use may have ended since, and another one has not been asked yet.
        wait_for(&what, config.startup_timeout(), shutdown, || {
            let log = Arc::clone(&log);
            async move { Ok(log.durability().await?) }
        })
        .await?
    } else {
        match log.durability().await {
            Err(LogError::Unavailable(reason)) => Err(reason),
            asked => asked.with_context(|| format!("{what} does not say whether it is durable"))?,
        }
    };
    if let Err(reason) = asked {
        if config.require_sync {
            anyhow::bail!(ConfigError::new(format!(
                "{what} may lose acknowledged events in a power loss, and require_sync is set: {reason}"
            )));
        }
        tracing::warn!("{what} MAY LOSE ACKNOWLEDGED EVENTS IN A POWER LOSS: {reason}");
    }
    Ok(log)
}

/// Opens the key store, waiting for its server if need be, and reads the master keys; where no file is named,
/// one is made in the data directory.
///
/// # Errors
/// One sentence: the key store can't be reached within the start-up time-out, or either can't be used.
/// [`Interrupted`] when `shutdown` came first.
pub async fn open_keys(
    config: &Config,
    shutdown: &CancellationToken,
) -> anyhow::Result<(Arc<dyn KeyStore>, MasterKeys)> {
    let url = config.keys_url();
    if let KeysUrl::Sqlite(path) = &url {
        ensure_parent(config, path)?;
    }
    let file = config.existing_master_key_file()?;
    if config.master_key_file.is_none() && !matches!(url, KeysUrl::Sqlite(_)) {
        tracing::warn!(
            "no master_key_file is set: the keys at {url} are encrypted with the one in {}; give it to all \
             services, and keep a copy of it: without it nothing that is sealed can be read again",
            file.display()
        );
    }
    let masters = MasterKeys::open(file)
        .await
        .map_err(|error| ConfigError::new(error.to_string()))?;
    let what = format!("the key store at {url}");
    let store = wait_for(&what, config.startup_timeout(), shutdown, || {
        let (url, data_dir) = (url.clone(), config.data_dir.clone());
        async move { Ok(keys::open(&url, &data_dir).await?) }
    })
    .await?;
    Ok((store, masters))
}

/// Opens the key store, see [`open_keys`], and makes sure that the master keys are its own.
///
/// # Errors
/// As [`open_keys`].
pub async fn open_keyring(
    config: &Config,
    shutdown: &CancellationToken,
) -> anyhow::Result<Keyring> {
    let (store, masters) = open_keys(config, shutdown).await?;
    let what = format!("the key store at {}", config.keys_url());
    wait_for(&what, config.startup_timeout(), shutdown, || {
        let (store, masters) = (Arc::clone(&store), masters.clone());
        async move { Ok(Keyring::open(store, masters).await?) }
    })
    .await
}

/// Opens the event log and its keys.
///
/// # Errors
/// As [`open_log`].
pub async fn open_record(config: &Config, shutdown: &CancellationToken) -> anyhow::Result<Record> {
    let log = open_log(config, shutdown).await?;
    Ok(Record::new(log, open_keyring(config, shutdown).await?))
}

/// Opens the catalogue of the read models, waiting for their server if need be, and prepares it.
///
/// # Errors
/// One sentence: the read models can't be reached within the start-up time-out, or can't be used.
/// [`Interrupted`] when `shutdown` came first.
pub async fn open_catalogue(
    config: &Config,
    shutdown: &CancellationToken,
) -> anyhow::Result<Arc<dyn Catalogue>> {
    let catalogue = open_catalogue_unprepared(config).await?;
    prepare_catalogue(config, &catalogue, shutdown).await?;
    Ok(catalogue)
}

/// Waits for the read models' server if need be, and prepares their catalogue.
///
/// # Errors
/// As [`open_catalogue`].
pub async fn prepare_catalogue(
    config: &Config,
    catalogue: &Arc<dyn Catalogue>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let what = format!("the read models at {}", config.read_models);
    wait_for(&what, config.startup_timeout(), shutdown, || {
        let catalogue = Arc::clone(catalogue);
        async move { Ok(catalogue.prepare().await?) }
    })
    .await
}

/// Opens the catalogue of the read models without waiting for their server and without preparing it: for a service that
/// works without them, and answers what needs them once they are there.
///
/// # Errors
/// One sentence: the read models can't be used.
pub async fn open_catalogue_unprepared(config: &Config) -> anyhow::Result<Arc<dyn Catalogue>> {
    if let ReadModelsUrl::Sqlite(path) = &config.read_models {
        ensure_parent(config, path)?;
    }
    read_models::open(&config.read_models, &config.data_dir)
        .await
        .with_context(|| format!("can't open the read models at {}", config.read_models))
}

/// Creates the data directory if it does not exist, and makes sure that files can be written there.
///
/// # Errors
/// One sentence that names the directory.
pub fn ensure_data_dir(config: &Config) -> Result<(), ConfigError> {
    let directory = config.data_dir.as_path();
    let name = directory.display();
    durable::create_directory(directory).map_err(|error| {
        ConfigError::new(format!("can't create the data directory {name}: {error}"))
    })?;
    let probe = directory.join(format!(".probe-{}", uuid::Uuid::new_v4().simple()));
    std::fs::write(&probe, b"")
        .and_then(|()| std::fs::remove_file(&probe))
        .map_err(|error| {
            ConfigError::new(format!("can't write to the data directory {name}: {error}"))
        })
}

fn ensure_parent(config: &Config, file: &Path) -> Result<(), ConfigError> {
    match file.is_absolute() {
        true => Ok(()),
        false => ensure_data_dir(config),
    }
}

/// Makes attempts, with growing pauses between them, until one succeeds or waiting is of no more use.
///
/// Each attempt runs as its own task and is never dropped midway: drivers of database servers don't take
/// that well.
async fn wait_for<Opened, Attempt>(
    what: &(impl Display + ?Sized),
    timeout: Duration,
    shutdown: &CancellationToken,
    mut attempt: impl FnMut() -> Attempt,
) -> anyhow::Result<Opened>
where
    Opened: Send + 'static,
    Attempt: Future<Output = Result<Opened, Failure>> + Send + 'static,
{
    let start = Instant::now();
    let deadline = start + timeout;
    let mut last_notice: Option<Instant> = None;
    let mut pause = FIRST_PAUSE;
    let mut reason = "no answer".to_owned();
    loop {
        let mut running = tokio::spawn(attempt());
        let outcome = loop {
            // An attempt that hangs must not keep the notices from appearing.
            let notice_at = deadline.min(Instant::now() + BETWEEN_NOTICES);
            tokio::select! {
                () = shutdown.cancelled() => anyhow::bail!(Interrupted),
                outcome = timeout_at(notice_at, &mut running) => match outcome {
                    Ok(outcome) => break Some(outcome),
                    Err(_) if Instant::now() >= deadline => break None,
                    Err(_) => notice(what, &reason, &mut last_notice),
                },
            }
        };
        match outcome {
            Some(Ok(Ok(opened))) => {
                if last_notice.is_some() {
                    tracing::info!("{what} is there after {:?}", start.elapsed());
                }
                return Ok(opened);
            }
            Some(Ok(Err(Failure::Unusable(why)))) => anyhow::bail!("can't use {what}: {why}"),
            Some(Ok(Err(Failure::Unavailable(why)))) => reason = why,
            Some(Err(error)) => anyhow::bail!("opening {what} failed: {error}"),
            None => {}
        }
        let next = Instant::now() + pause;
        if next >= deadline {
            anyhow::bail!(
                "can't reach {what} within {} s: {reason}",
                timeout.as_secs()
            );
        }
        notice(what, &reason, &mut last_notice);
        pause = LONGEST_PAUSE.min(pause * 2);
        tokio::select! {
            () = shutdown.cancelled() => anyhow::bail!(Interrupted),
            () = sleep_until(next) => {}
        }
    }
}

/// Says what is waited for, unless that was said just before.
fn notice(what: &(impl Display + ?Sized), reason: &str, last: &mut Option<Instant>) {
    if last.is_none_or(|last| last.elapsed() >= BETWEEN_NOTICES) {
        tracing::warn!(reason, "waiting for {what}");
        *last = Some(Instant::now());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const HALF_A_MINUTE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn what_is_unreachable_is_waited_for() {
        let attempts = AtomicU32::new(0);
        let shutdown = CancellationToken::new();
        let opened = wait_for("it", HALF_A_MINUTE, &shutdown, || {
            let attempt = attempts.fetch_add(1, Ordering::Relaxed);
            async move {
                match attempt {
                    0..5 => Err(Failure::Unavailable("not yet".to_owned())),
                    _ => Ok(attempt),
                }
            }
        });
        assert_eq!(opened.await.unwrap(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_a_sentence() {
        let shutdown = CancellationToken::new();
        let refused = || async { Err::<(), _>(Failure::Unavailable("refused".to_owned())) };
        let error = wait_for("the log", HALF_A_MINUTE, &shutdown, refused).await;
        let error = error.unwrap_err().to_string();
        assert_eq!(error, "can't reach the log within 30 s: refused");

        let hanging = || std::future::pending::<Result<(), Failure>>();
        let error = wait_for("the log", HALF_A_MINUTE, &shutdown, hanging).await;
        let error = error.unwrap_err().to_string();
        assert_eq!(error, "can't reach the log within 30 s: no answer");

        let damaged = || async { Err::<(), _>(Failure::Unusable("damaged".to_owned())) };
        let error = wait_for("the log", HALF_A_MINUTE, &shutdown, damaged).await;
        assert_eq!(error.unwrap_err().to_string(), "can't use the log: damaged");
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_ends_the_waiting() {
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        let hanging = || std::future::pending::<Result<(), Failure>>();
        let error = wait_for("the log", HALF_A_MINUTE, &shutdown, hanging).await;
        assert!(error.unwrap_err().is::<Interrupted>());
    }

    #[test]
    fn a_data_directory_that_cant_be_written_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        let config = Config {
            data_dir: file.join("data"),
            ..Config::default()
        };
        let error = ensure_data_dir(&config).unwrap_err().to_string();
        let expected = format!("can't create the data directory {}/data: ", file.display());
        assert!(error.starts_with(&expected), "{error}");
    }
}
