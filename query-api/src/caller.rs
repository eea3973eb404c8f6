//! Who asks, and from which position on the answer must be. Who has no good token is refused before anything
//! else of a request is judged, or waited for: so routes read the token first, and look its user up later.

use axum::http::HeaderMap;
use contract::texts;
use events::{Position, RoomId, UserId};
use platform::auth::Claims;
use platform::config::AuthMode;
use platform::error::ApiError;
use platform::http::POSITION;
use read_models::RoomRow;

use crate::{Options, POSITION_WAIT};

/// Who asks.
pub(crate) struct Somebody {
    pub(crate) id: UserId,
    /// Whether it is a user of the chat.
    pub(crate) is_user: bool,
}

impl Options {
    /// What the token says, on a route that the tutorial leaves open to all; `None` with `auth=open`, where none
    /// is needed.
    pub(crate) fn token_if_needed(&self, headers: &HeaderMap) -> Result<Option<Claims>, ApiError> {
        match self.auth.mode() {
            AuthMode::Open => Ok(None),
            AuthMode::Token => self.auth.bearer(headers).map(Some),
        }
    }

    /// Waits until the read models have reached the position in the `Hansard-Position` header, if there
    /// is one: a client that sends back what a command answered reads its own writes from every replica,
    /// and one that sends a frame's position reads nothing older than what it was pushed.
    pub(crate) async fn reach(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(value) = headers.get(POSITION) else {
            return Ok(());
        };
        let position: Position = value.to_str().ok().and_then(position_in).ok_or_else(|| {
            ApiError::bad_request(
                "the Hansard-Position header must be one that a command answered: 16 hex digits",
            )
        })?;
        if self.progress.wait_for(position, POSITION_WAIT).await {
            return Ok(());
        }
        Err(ApiError::unavailable(
            "the read models have not reached the Hansard-Position yet; try again",
            1,
        ))
    }

    /// The caller of a route that is about somebody's own rooms: a token is needed in every mode, and its
    /// user must exist.
    pub(crate) async fn member(&self, claims: &Claims) -> Result<UserId, ApiError> {
        let caller = self.somebody(claims).await?;
        match caller.is_user {
            true => Ok(caller.id),
            false => Err(no_such_user()),
        }
    }

    /// Who calls with a token: a user who has not been deleted, or somebody of the firm's own back office.
    pub(crate) async fn somebody(&self, claims: &Claims) -> Result<Somebody, ApiError> {
        let users = self.read_models.users_by_id(&[claims.user]).await?;
        let is_user = match users.first() {
            Some(user) if !user.deleted => true,
            None if claims.role.stands_alone() => false,
            _ => return Err(no_such_user()),
        };
        Ok(Somebody {
            id: claims.user,
            is_user,
        })
    }

    /// The room that a request names, which only a member may look into.
    pub(crate) async fn room_of_member(
        &self,
        room: &str,
        member: UserId,
    ) -> Result<RoomRow, ApiError> {
        let found = match room.parse::<RoomId>() {
            Ok(id) => self.read_models.room(id).await?,
            Err(_) => None,
        };
        match found {
            Some(room) if room.members.contains(&member) => Ok(room),
            other => Err(not_shown(other.as_ref())),
        }
    }

    /// The caller of a route that the tutorial leaves open to all: with `auth=token` a token is needed,
    /// and its user must not have been deleted.
    pub(crate) async fn anyone(&self, claims: Option<&Claims>) -> Result<(), ApiError> {
        match claims {
            Some(claims) => self.somebody(claims).await.map(drop),
            None => Ok(()),
        }
    }
}

/// The token is good, but its user is none of the chat's (any more).
pub(crate) fn no_such_user() -> ApiError {
    ApiError::invalid_token("the token's user does not exist")
}

/// Why the caller may not look into the room: there is none, or it is others'.
pub(crate) fn not_shown(room: Option<&RoomRow>) -> ApiError {
    match room {
        None => ApiError::not_found(texts::UNKNOWN_ROOM),
        Some(_) => ApiError::forbidden(texts::NOT_A_MEMBER),
    }
}

/// The position in a text as commands answer it, or as frames of the gateway have it: these name their log
/// as well, after a `-`, with 8 digits.
fn position_in(text: &str) -> Option<Position> {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    match text.split_once('-') {
        None => text.parse().ok(),
        Some((position, log)) if log.len() == 8 && log.bytes().all(is_hex) => position.parse().ok(),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_of_answers_and_of_frames_are_read() {
        let position = Some(Position::new(255));
        assert_eq!(position_in("00000000000000ff"), position);
        assert_eq!(position_in("00000000000000ff-3f9c1b2e"), position);
        for wrong in [
            "",
            "-",
            "ff-3f9c1b2e",
            "00000000000000ff-",
            "00000000000000ff-3f9c1b2",
            "00000000000000ff-3F9C1B2E",
            "00000000000000ff-3f9c1b2e-",
        ] {
            assert_eq!(position_in(wrong), None, "{wrong:?}");
        }
    }
}
