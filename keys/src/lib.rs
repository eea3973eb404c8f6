//! The keys that personal texts are sealed with: where they are kept, and how they are destroyed.
//!
//! Each key is kept, wrapped with a master key, in a [`KeyStore`] apart from the log. [`Keyring`] seals and
//! opens events with them. To destroy a key is to erase everything that was sealed with it, wherever there
//! are copies of the log. No error, log line or `Debug` of this crate shows a key.

mod blocking;
mod jetstream;
mod keyring;
mod master;
mod memory;
mod record;
mod rotation;
mod sqlite;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod url;

use std::path::Path;
use std::sync::Arc;

use event_log::LogError;
use events::KeyId;

pub use jetstream::JetStreamKeys;
pub use keyring::Keyring;
pub use master::{MasterId, MasterKeys};
pub use memory::MemoryKeys;
pub use record::{AppendError, Record, belonging};
pub use rotation::{Census, census, rotate};
pub use sqlite::SqliteKeys;
pub use store::{Kept, KeyStore, Listing, Slot, WrappedKey};
pub use url::{InvalidKeysUrl, KeysUrl};

/// Opens the key store at `url`, creating it if it does not exist. A relative path is relative to `data_dir`.
///
/// # Errors
/// The store can't be reached ([`KeyError::Unavailable`]; try again) or used ([`KeyError::Unusable`]).
pub async fn open(url: &KeysUrl, data_dir: &Path) -> Result<Arc<dyn KeyStore>, KeyError> {
    match url {
        KeysUrl::Sqlite(path) => Ok(Arc::new(SqliteKeys::open(&data_dir.join(path)).await?)),
        KeysUrl::Nats(address) => Ok(Arc::new(JetStreamKeys::open(address).await?)),
    }
}

/// Why the keys can't be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Trying again may help.
    #[error("the keys are unavailable: {0}")]
    Unavailable(String),
    /// Trying again will not help.
    #[error("the keys are unusable: {0}")]
    Unusable(String),
}

impl KeyError {
    /// The reason alone.
    fn reason(&self) -> &str {
        match self {
            Self::Unavailable(reason) | Self::Unusable(reason) => reason,
        }
    }
}

/// Who can't open what is in the log can't use the log.
impl From<KeyError> for LogError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Unavailable(_) => Self::Unavailable(error.to_string()),
            KeyError::Unusable(_) => Self::Unusable(error.to_string()),
        }
    }
}

impl From<LogError> for KeyError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Unavailable(reason) => Self::Unavailable(reason),
            LogError::Unusable(reason) => Self::Unusable(reason),
            other => Self::Unusable(other.to_string()),
        }
    }
}

/// Why an event could not be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// A key has been destroyed: what is sealed with it could never be read.
    #[error("the key {0} has been destroyed")]
    Destroyed(KeyId),
    /// The keys can't be had.
    #[error(transparent)]
    Keys(#[from] KeyError),
}
