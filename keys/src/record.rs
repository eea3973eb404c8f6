//! The record: a log with the keys to what is sealed in it.

use std::fmt;
use std::sync::Arc;

use event_log::{Appended, EventLog, Expect, LogError, Recorded};
use events::{DecodeError, Encoded, Envelope};

use crate::{Keyring, SealError};

/// A log with the keys to what is sealed in it. Cheap to clone.
#[derive(Clone)]
pub struct Record {
    /// The log: bytes, sealed as they are stored.
    pub log: Arc<dyn EventLog>,
    /// What opens them.
    pub keyring: Keyring,
}

impl Record {
    /// This log with these keys.
    pub fn new(log: Arc<dyn EventLog>, keyring: Keyring) -> Self {
        Self { log, keyring }
    }

    /// Seals the event and appends it, see [`EventLog::append`].
    ///
    /// # Errors
    /// [`AppendError`].
    pub async fn append(
        &self,
        envelope: &Envelope,
        expect: Expect,
    ) -> Result<Appended, AppendError> {
        let sealed = self.keyring.seal(envelope).await?;
        Ok(self.log.append(sealed, expect).await?)
    }

    /// The event, opened; see [`Keyring::decode`]. One that stands in a history that it does not belong to is
    /// refused as well.
    ///
    /// # Errors
    /// The keys can't be had at present.
    pub async fn decode(
        &self,
        recorded: &Recorded,
    ) -> Result<Result<Envelope, DecodeError>, LogError> {
        let decoded = self.keyring.decode(recorded).await?;
        Ok(decoded.and_then(|envelope| belonging(envelope, recorded)))
    }

    /// The event without what is sealed in it, which takes no keys; else as [`Self::decode`].
    ///
    /// # Errors
    /// It can't be decoded.
    pub fn outline(&self, recorded: &Recorded) -> Result<Envelope, DecodeError> {
        let envelope = Encoded::parse(&recorded.payload)?.decode(None)?;
        belonging(envelope, recorded)
    }
}

/// The event, if it stands in the history that it belongs to.
///
/// # Errors
/// [`DecodeError::Misplaced`].
pub fn belonging(envelope: Envelope, recorded: &Recorded) -> Result<Envelope, DecodeError> {
    let belongs = envelope.event.subject();
    match recorded.subject.parse() == Ok(belongs) {
        true => Ok(envelope),
        false => Err(DecodeError::Misplaced {
            belongs,
            stands: recorded.subject.clone(),
        }),
    }
}

/// Why an event could not be appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// It could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The log did not take it.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl fmt::Debug for Record {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Record")
    }
}
