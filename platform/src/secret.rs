//! Secrets that are made where none are given: files in the data directory that only their owner may read.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use event_log::durable;

use crate::config::{Config, ConfigError};
use crate::startup::ensure_data_dir;

/// The file `name` in the data directory, which is made with a random secret of 32 bytes in it if it is not
/// there. All processes that share the directory use it.
///
/// # Errors
/// One sentence that names the file.
pub(crate) fn generated(config: &Config, name: &str) -> Result<PathBuf, ConfigError> {
    generated_as(config, name, |bytes| Ok(in_hexadecimal(bytes)))
}

/// As [`generated`], with the secret written as `write` says.
///
/// # Errors
/// As [`generated`].
pub(crate) fn generated_as(
    config: &Config,
    name: &str,
    write: impl FnOnce([u8; 32]) -> Result<String, ConfigError>,
) -> Result<PathBuf, ConfigError> {
    ensure_data_dir(config)?;
    let file = config.data_dir.join(name);
    let failed = |error: std::io::Error| {
        let name = file.display();
        ConfigError::new(format!("can't create the secret file {name}: {error}"))
    };
    if !file.exists() {
        create_secret(&file, &write(rand::random())?).map_err(failed)?;
    }
    // Nothing may be sealed or signed with a secret that a power loss takes. Also when it was there: another
    // process may have made it just now.
    durable::sync_name(&file).map_err(failed)?;
    Ok(file)
}

/// Writes a new secret to `file`, unless another process was first: the file appears whole or not at
/// all, so that processes that start together agree on it.
fn create_secret(file: &Path, secret: &str) -> std::io::Result<()> {
    let draft = file.with_extension(uuid::Uuid::new_v4().simple().to_string());
    let mut options = fs::OpenOptions::new();
    let mut written = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)?;
    let outcome = writeln!(written, "{secret}")
        .and_then(|()| written.sync_all())
        .and_then(|()| fs::hard_link(&draft, file));
    fs::remove_file(&draft)?;
    match outcome {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        outcome => outcome,
    }
}

/// As two lower-case digits a byte.
fn in_hexadecimal(bytes: [u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
