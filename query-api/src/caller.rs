//! Who asks, and from which position on the answer must be.

use axum::http::HeaderMap;
use events::{Position, UserId};
use platform::config::AuthMode;
use platform::error::ApiError;
use platform::http::POSITION;

use crate::{Options, POSITION_WAIT};

impl Options {
    /// Waits until the read models have reached the position in the `Hansard-Position` header, if there
    /// is one: a client that sends back what a command answered reads its own writes from every replica.
    pub(crate) async fn reach(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(value) = headers.get(POSITION) else {
            return Ok(());
        };
        let position: Position = value
            .to_str()
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| {
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
    pub(crate) async fn member(&self, headers: &HeaderMap) -> Result<UserId, ApiError> {
        let claims = self.auth.bearer(headers)?;
        let users = self.read_models.users_by_id(&[claims.user]).await?;
        if users.iter().any(|user| !user.deleted) {
            Ok(claims.user)
        } else {
            Err(ApiError::invalid_token("the token's user does not exist"))
        }
    }

    /// The caller of a route that the tutorial leaves open to all: with `auth=token` a token is needed,
    /// and its user must not have been deleted.
    pub(crate) async fn anyone(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        if self.auth.mode() == AuthMode::Open {
            return Ok(());
        }
        let claims = self.auth.bearer(headers)?;
        let users = self.read_models.users_by_id(&[claims.user]).await?;
        // The firm's own back office may act with a support token that belongs to no user of the chat.
        let exists = match users.first() {
            Some(user) => !user.deleted,
            None => claims.user_type == events::UserType::Support,
        };
        if exists {
            Ok(())
        } else {
            Err(ApiError::invalid_token("the token's user does not exist"))
        }
    }
}
