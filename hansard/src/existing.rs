//! Opening a log and read models that must be there already.

use std::sync::Arc;

use ::keys::Record;
use event_log::LogUrl;
use platform::Context;
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
