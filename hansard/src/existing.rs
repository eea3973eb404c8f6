//! Opening a log and read models that must be there already.

use std::sync::Arc;

use ::keys::Record;
use anyhow::Context as _;
use event_log::{LogUrl, SqliteLog};
use platform::Context;
use platform::startup::open_keyring;
use read_models::{Catalogue, ReadModelsUrl};

/// Opens the log and its keys; a SQLite file that is not there is an error. Opening would make an empty log: the last
/// thing that somebody who asks about the record wants.
pub(crate) async fn open_existing_record(context: &Context) -> anyhow::Result<Record> {
    if let LogUrl::Sqlite(path) = &context.config.log {
        let file = context.config.data_dir.join(path);
        anyhow::ensure!(
            file.exists(),
            "there is no log at {}; say where it is with --data-dir or --log",
            file.display()
        );
    }
    context.open_record().await
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

/// Opens the record and the catalogue of the read models, neither of which is made if it is not there.
pub(crate) async fn open_existing(
    context: &Context,
) -> anyhow::Result<(Record, Arc<dyn Catalogue>)> {
    let record = open_existing_record(context).await?;
    if let ReadModelsUrl::Sqlite(path) = &context.config.read_models {
        let file = context.config.data_dir.join(path);
        anyhow::ensure!(
            file.exists(),
            "there is no file of read models at {}; say where it is with --data-dir or --read-models",
            file.display()
        );
    }
    Ok((record, context.open_catalogue().await?))
}

/// Names this process to projectors: whoever looks at a lease sees which command has it.
pub(crate) fn name_of_process(context: &Context) -> String {
    format!("{}, process {}", context.service, std::process::id())
}
