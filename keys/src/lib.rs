//! The keys that personal texts are sealed with.

mod record;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use event_log::{LogError, NewEvent, Recorded};
use events::{DataKey, DecodeError, Encoded, Envelope, KeyId};

pub use record::{AppendError, Record};

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
    /// A key has been destroyed.
    #[error("the key {0} has been destroyed")]
    Destroyed(KeyId),
    /// The keys can't be had.
    #[error(transparent)]
    Keys(#[from] KeyError),
}

/// The keys.
#[derive(Clone)]
pub struct Keyring(Arc<Mutex<HashMap<KeyId, Option<DataKey>>>>);

impl fmt::Debug for Keyring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Keyring")
    }
}

impl Keyring {
    /// In memory.
    pub fn in_memory() -> Self {
        Self(Arc::default())
    }

    /// Seals.
    ///
    /// # Errors
    /// [`SealError`].
    pub async fn seal(&self, envelope: &Envelope) -> Result<NewEvent, SealError> {
        let mut keys = Vec::new();
        for id in envelope.key_ids() {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let key = all.entry(id).or_insert_with(|| Some(DataKey::random()));
            keys.push(key.clone().ok_or(SealError::Destroyed(id))?);
        }
        Ok(NewEvent::sealed(envelope, &keys))
    }

    /// Opens.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn decode(
        &self,
        recorded: &Recorded,
    ) -> Result<Result<Envelope, DecodeError>, LogError> {
        let encoded = match Encoded::parse(&recorded.payload) {
            Ok(encoded) => encoded,
            Err(error) => return Ok(Err(error)),
        };
        let mut keys = Some(Vec::new());
        for id in encoded.key_ids() {
            let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match all.get(&id) {
                None => return Err(LogError::Unusable(format!("no key {id}"))),
                Some(None) => keys = None,
                Some(Some(key)) => {
                    if let Some(keys) = &mut keys {
                        keys.push(key.clone());
                    }
                }
            }
        }
        Ok(encoded.decode(keys.as_deref()))
    }

    /// Destroys.
    ///
    /// # Errors
    /// [`KeyError`].
    pub async fn destroy(&self, id: KeyId) -> Result<(), KeyError> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(id, None);
        Ok(())
    }

    /// Forgets.
    pub fn forget(&self, _id: KeyId) {}
}
