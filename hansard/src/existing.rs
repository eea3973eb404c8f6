//! Opening a log and read models that must be there already.

use std::path::Path;
use std::sync::Arc;

use ::keys::{KeyStore, Keyring, KeysUrl, MasterKeys, Record};
use anyhow::Context as _;
use event_log::{EventLog, LogUrl, SqliteLog};
use platform::Context;
use platform::startup::{open_keyring, open_keys};
use read_models::{Catalogue, ReadModelsUrl};

/// Opens the log and its keys; see [`check_log`].
pub(crate) async fn open_existing_record(context: &Context) -> anyhow::Result<Record> {
    check_log(context)?;
    context.open_record().await
}

/// Opens the log alone, for what needs only its bytes; see [`check_log`].
pub(crate) async fn open_existing_log(context: &Context) -> anyhow::Result<Arc<dyn EventLog>> {
    check_log(context)?;
    context.open_log().await
}

/// A SQLite file that is not there is an error. Opening would make an empty log: the last thing that somebody
/// who asks about the record wants.
fn check_log(context: &Context) -> anyhow::Result<()> {
    match &context.config.log {
        LogUrl::Sqlite(path) => check_file(context, path, "log", "--log"),
        LogUrl::Nats(_) => Ok(()),
    }
}

/// That the file of `what`, which `flag` names, is there.
fn check_file(context: &Context, path: &Path, what: &str, flag: &str) -> anyhow::Result<()> {
    let file = context.config.data_dir.join(path);
    anyhow::ensure!(
        file.exists(),
        "there is no {what} at {}; say where it is with --data-dir or {flag}",
        file.display()
    );
    Ok(())
}

/// Opens a copy of a log, which nobody may write to, and its keys.
pub(crate) async fn open_copy_of_record(context: &Context) -> anyhow::Result<Record> {
    let LogUrl::Sqlite(path) = &context.config.log else {
        anyhow::bail!(
            "--unrecorded is for a copy of a log in an SQLite file: that a log on a server is read can be recorded"
        );
    };
    let log = SqliteLog::open_copy(&context.config.data_dir.join(path)).await;
    let log = log.context("--unrecorded is for a copy that nobody may write to")?;
    let keyring = open_keyring(&context.config, &context.shutdown).await?;
    Ok(Record::new(Arc::new(log), keyring))
}

/// Opens the key store with its own master keys; a SQLite file that is not there is an error.
pub(crate) async fn open_existing_keys(
    context: &Context,
) -> anyhow::Result<(Arc<dyn KeyStore>, MasterKeys)> {
    if let KeysUrl::Sqlite(path) = context.config.keys_url() {
        check_file(context, &path, "key store", "--keys")?;
    }
    let (store, masters) = open_keys(&context.config, &context.shutdown).await?;
    // Refuses those of another store.
    Keyring::open(Arc::clone(&store), masters.clone()).await?;
    Ok((store, masters))
}

/// Opens the record and the catalogue of the read models, neither of which is made if it is not there.
pub(crate) async fn open_existing(
    context: &Context,
) -> anyhow::Result<(Record, Arc<dyn Catalogue>)> {
    let record = open_existing_record(context).await?;
    Ok((record, open_existing_catalogue(context).await?))
}

/// Opens the catalogue of the read models, which is not made if it is not there.
pub(crate) async fn open_existing_catalogue(
    context: &Context,
) -> anyhow::Result<Arc<dyn Catalogue>> {
    if let ReadModelsUrl::Sqlite(path) = &context.config.read_models {
        check_file(context, path, "file of read models", "--read-models")?;
    }
    context.open_catalogue().await
}

/// Names this process to projectors: whoever looks at a lease sees which command has it.
pub(crate) fn name_of_process(context: &Context) -> String {
    format!("{}, process {}", context.service, std::process::id())
}
