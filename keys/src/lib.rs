//! The keys that personal texts are sealed with: where they are kept, and how they are destroyed.
//!
//! Each key is kept, wrapped with a master key, in a [`KeyStore`] apart from the log. [`Keyring`] seals and
//! opens events with them. To destroy a key is to erase everything that was sealed with it, wherever there
//! are copies of the log. No error, log line or `Debug` of this crate shows a key.

mod keyring;
mod master;
mod memory;
mod record;
mod store;

use event_log::LogError;
use events::KeyId;

pub use keyring::Keyring;
pub use master::{MasterId, MasterKeys};
pub use memory::MemoryKeys;
pub use record::{AppendError, Record};
pub use store::{Kept, KeyStore, Listing, Slot, WrappedKey};

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
