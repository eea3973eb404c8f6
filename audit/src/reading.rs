//! That the record was read, in the record.

use std::collections::BTreeMap;

use event_log::{Expect, LogError};
use events::{AuditRead, Envelope, Event, UserId};
use keys::{AppendError, Record, SealError};

/// Appends that `actor` reads the record: `what`, restricted by `filter`. To be done before anything is answered,
/// so that nothing is read without a trace.
///
/// # Errors
/// [`LogError`]: it is not recorded, so it must not be read.
pub async fn record_reading(
    record: &Record,
    actor: Option<UserId>,
    what: impl Into<String>,
    filter: BTreeMap<String, String>,
) -> Result<(), LogError> {
    let event = Event::AuditRead(AuditRead {
        what: what.into(),
        filter,
        operator: None,
    });
    let envelope = Envelope::new(event, actor, None);
    match record.append(&envelope, Expect::Any).await {
        Ok(_) => Ok(()),
        Err(AppendError::Log(error)) => Err(error),
        Err(AppendError::Seal(SealError::Keys(error))) => Err(error.into()),
        // Nothing in it is sealed.
        Err(AppendError::Seal(error @ SealError::Destroyed(_))) => {
            Err(LogError::Unusable(error.to_string()))
        }
    }
}
