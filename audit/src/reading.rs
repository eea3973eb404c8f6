//! That the record was read, in the record.

use std::collections::BTreeMap;

use event_log::{Expect, LogError, Position};
use events::{AuditRead, Envelope, Event, UserId};
use keys::{AppendError, Record, SealError};
use nix::unistd::{Uid, User, gethostname};

/// Appends that `actor` reads the record: `what`, restricted by `filter`; `None` is whoever runs this process.
/// To be done before anything is answered, so that nothing is read without a trace. Gives the position of that
/// event: what is read is what the log holds before it.
///
/// # Errors
/// [`LogError`]: it is not recorded, so it must not be read.
pub async fn record_reading(
    record: &Record,
    actor: Option<UserId>,
    what: impl Into<String>,
    filter: BTreeMap<String, String>,
) -> Result<Position, LogError> {
    let operator = match actor {
        Some(_) => None,
        None => Some(operator().await),
    };
    let event = Event::AuditRead(AuditRead {
        what: what.into(),
        filter,
        operator,
    });
    let envelope = Envelope::new(event, actor, None);
    match record.append(&envelope, Expect::Any).await {
        Ok(appended) => Ok(appended.position),
        Err(AppendError::Log(error)) => Err(error),
        Err(AppendError::Seal(SealError::Keys(error))) => Err(error.into()),
        // Nothing in it is sealed.
        Err(AppendError::Seal(error @ SealError::Destroyed(_))) => {
            Err(LogError::Unusable(error.to_string()))
        }
    }
}

/// The last position before an event: up to where a reading reads.
pub(crate) fn before(position: Position) -> Position {
    Position::new(position.get().saturating_sub(1))
}

/// Who runs this process, as the system says: `user@host`.
pub async fn operator() -> String {
    // Where users are looked up on the network, that takes a while.
    let asked = tokio::task::spawn_blocking(|| {
        let uid = Uid::current();
        let user = User::from_uid(uid).ok().flatten();
        let user = user.map_or_else(|| format!("uid {uid}"), |user| user.name);
        let host = gethostname().map(|name| name.to_string_lossy().into_owned());
        format!("{user}@{}", host.unwrap_or_default())
    });
    asked.await.unwrap_or_default()
}
