//! Users as they were.

use std::collections::{HashMap, HashSet};
use std::sync::{MutexGuard, PoisonError};

use event_log::{Filter, LogError, Position};
use events::{Event, UserId};
use futures::{StreamExt, TryStreamExt, stream};
use read_models::UserRow;

use crate::AsOf;

/// How many users are read from the log at once.
const CONCURRENT_READS: usize = 16;

/// What is known of a user.
#[derive(Clone)]
pub(crate) struct Known {
    pub(crate) id: UserId,
    /// As of the moment; `None`: not there yet.
    pub(crate) row: Option<UserRow>,
    /// Whether the user has been erased by now, be it after the moment.
    pub(crate) is_erased: bool,
}

impl AsOf {
    /// What is known of these users.
    pub(crate) async fn known(&self, ids: &[UserId]) -> Result<Vec<Known>, LogError> {
        let known = stream::iter(ids.iter().copied()).map(|id| self.known_user(id));
        known.buffer_unordered(CONCURRENT_READS).try_collect().await
    }

    async fn known_user(&self, id: UserId) -> Result<Known, LogError> {
        if let Some(known) = self.remembered().get(&id) {
            return Ok(known.clone());
        }
        let known = self.read_user(id).await?;
        self.remembered().insert(id, known.clone());
        Ok(known)
    }

    fn remembered(&self) -> MutexGuard<'_, HashMap<UserId, Known>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the whole history of the user: names are not brought back either.
    async fn read_user(&self, id: UserId) -> Result<Known, LogError> {
        let mut row: Option<UserRow> = None;
        let mut is_erased = false;
        let mut keys = HashSet::new();
        let history = self.record.log.read(Filter::User(id), Position::ZERO);
        let history: Vec<_> = history.await?.try_collect().await?;
        for recorded in history {
            let Ok(envelope) = self.record.decode(&recorded).await? else {
                continue;
            };
            if envelope.key.is_some() && !keys.insert(envelope.deduplication_id()) {
                continue;
            }
            is_erased |= matches!(envelope.event, Event::UserErased(_));
            if recorded.position > self.moment.position {
                continue;
            }
            match &envelope.event {
                Event::UserCreated(event) if row.is_none() => {
                    row = Some(UserRow {
                        id,
                        first_name: event.first_name().to_owned(),
                        last_name: event.last_name().to_owned(),
                        user_type: event.user_type,
                        created_at: envelope.at,
                        updated_at: envelope.at,
                        deleted: false,
                    });
                }
                Event::UserDeleted(_) | Event::UserErased(_) => {
                    if let Some(row) = row.as_mut().filter(|row| !row.deleted) {
                        row.first_name.clear();
                        row.last_name.clear();
                        row.updated_at = envelope.at;
                        row.deleted = true;
                    }
                }
                _ => {}
            }
        }
        if let Some(row) = row.as_mut().filter(|_| is_erased) {
            row.first_name.clear();
            row.last_name.clear();
        }
        Ok(Known { id, row, is_erased })
    }
}
