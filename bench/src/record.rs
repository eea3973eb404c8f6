//! The record in a data directory, as the embedded Hansard has it by default.

use std::path::Path;

use keys::Record;
use platform::config::Config;
use tokio_util::sync::CancellationToken;

/// Opens log and keys in `data_dir`, which are made if they are not there.
///
/// # Errors
/// They can't be opened.
pub async fn open(data_dir: &Path) -> anyhow::Result<Record> {
    let config = Config {
        data_dir: data_dir.to_owned(),
        ..Config::default()
    };
    platform::startup::open_record(&config, &CancellationToken::new()).await
}
