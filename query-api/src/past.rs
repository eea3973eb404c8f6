//! The past: rooms as of then, which are read from the log, and who may see them.

use std::collections::BTreeMap;

use as_of::{AsOf, Moment, PastRoom};
use audit::{Bound, record_reading};
use axum::http::HeaderMap;
use contract::texts;
use events::{RoomId, UserId};
use platform::error::ApiError;

use crate::Options;
use crate::caller::Somebody;

impl Options {
    /// What there was then.
    pub(crate) async fn then(&self, bound: Bound) -> Result<AsOf, ApiError> {
        let record = self.past.get()?;
        let moment = Moment::find(record.log.as_ref(), bound).await?;
        let moment = moment.map_err(|error| {
            ApiError::validation([(
                "asOf",
                format!("{error}: nothing after it has happened yet"),
            )])
        })?;
        Ok(AsOf::new(record, moment))
    }

    /// The room as it was then, for its members of then; and for auditors, which is recorded.
    pub(crate) async fn past_room<'a>(
        &self,
        then: &'a AsOf,
        room: &str,
        caller: &Somebody,
        headers: &HeaderMap,
    ) -> Result<PastRoom<'a>, ApiError> {
        let unknown = || ApiError::not_found(texts::UNKNOWN_ROOM);
        let id: RoomId = room.parse().map_err(|_| unknown())?;
        let found = then.room(id).await?;
        let members = found.as_ref().map(|room| &room.row().members);
        let is_member = members.is_some_and(|it| it.contains(&caller.id));
        if !is_member {
            match self.auth.auditor(headers) {
                Ok(_) => {
                    let room = BTreeMap::from([("room".to_owned(), id.to_string())]);
                    self.record(caller, "GET /room/{roomId}", room, then)
                        .await?;
                }
                Err(_) if found.is_none() => {}
                Err(_) => return Err(ApiError::forbidden(texts::NOT_A_MEMBER)),
            }
        }
        found.ok_or_else(unknown)
    }

    /// Whose rooms are asked for: the caller's own; or another's, by auditors, which is recorded.
    pub(crate) async fn viewer(
        &self,
        then: &AsOf,
        user: Option<UserId>,
        caller: &Somebody,
        headers: &HeaderMap,
    ) -> Result<UserId, ApiError> {
        match user {
            Some(user) if user != caller.id || !caller.is_user => {
                self.auth.auditor(headers)?;
                let of = BTreeMap::from([("user".to_owned(), user.to_string())]);
                self.record(caller, "GET /room", of, then).await?;
                let found = then.users_by_id(&[user]).await?;
                match found.iter().any(|user| !user.deleted) {
                    true => Ok(user),
                    false => Err(ApiError::not_found(texts::UNKNOWN_USER)),
                }
            }
            _ if caller.is_user => Ok(caller.id),
            _ => Err(ApiError::invalid_token("the token's user does not exist")),
        }
    }

    async fn record(
        &self,
        caller: &Somebody,
        what: &str,
        mut filter: BTreeMap<String, String>,
        then: &AsOf,
    ) -> Result<(), ApiError> {
        let as_of = then.moment().position.to_string();
        filter.insert("asOf".to_owned(), as_of);
        let record = self.past.get()?;
        record_reading(&record, Some(caller.id), what, filter).await?;
        Ok(())
    }
}

/// The moment as the API shows it.
pub(crate) fn moment(then: &AsOf) -> contract::Moment {
    let Moment { position, time } = then.moment();
    contract::Moment { position, time }
}
