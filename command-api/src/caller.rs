//! Who calls, and how a request wants to be handled: its token, idempotency key and preferences.

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use events::{Authority, Caller, IdempotencyKey};
use platform::config::AuthMode;
use platform::error::ApiError;
use platform::role::Role;

use crate::Options;

/// How a request wants its command handled.
#[derive(Debug, Clone, Default)]
pub(crate) struct Handling {
    /// The client's name for the request, which makes repeating it harmless.
    pub(crate) key: Option<IdempotencyKey>,
    /// Whether to answer without waiting for the projection.
    pub(crate) respond_async: bool,
}

impl<S: Sync> FromRequestParts<S> for Handling {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let key = match parts.headers.get("idempotency-key") {
            None => None,
            Some(value) => Some(
                value
                    .to_str()
                    .ok()
                    .and_then(|text| text.parse().ok())
                    .ok_or_else(|| {
                        ApiError::bad_request(
                            "the Idempotency-Key header must be 1 to 255 visible ASCII characters",
                        )
                    })?,
            ),
        };
        let respond_async = parts
            .headers
            .get_all("prefer")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|preference| preference.trim().eq_ignore_ascii_case("respond-async"));
        Ok(Self { key, respond_async })
    }
}

impl Options {
    /// The caller of a route that is about somebody's own rooms: a token is needed in every mode, and its
    /// user must exist.
    pub(crate) async fn member(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        let claims = self.auth.bearer(headers)?;
        match self.commands.directory.user(claims.user).await? {
            Some(user) if !user.deleted => {}
            _ => return Err(ApiError::invalid_token("the token's user does not exist")),
        }
        Ok(Caller {
            user: Some(claims.user),
            authority: self.authority(claims.role),
        })
    }

    /// The caller of a route that the tutorial leaves open to all. With `auth=open` so does Hansard, and
    /// a token only tells who it was; otherwise a token is needed.
    pub(crate) async fn anyone(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        if self.auth.mode() == AuthMode::Open {
            let claims = self.auth.bearer(headers).ok();
            return Ok(Caller {
                user: claims.map(|claims| claims.user),
                authority: Authority::Open,
            });
        }
        let claims = self.auth.bearer(headers)?;
        // The firm's own back office is no user of the chat.
        let exists = match self.commands.directory.user(claims.user).await? {
            Some(user) => !user.deleted,
            None => claims.role.stands_alone(),
        };
        if !exists {
            return Err(ApiError::invalid_token("the token's user does not exist"));
        }
        Ok(Caller {
            user: Some(claims.user),
            authority: self.authority(claims.role),
        })
    }

    fn authority(&self, role: Role) -> Authority {
        match self.auth.mode() {
            AuthMode::Open => Authority::Open,
            AuthMode::Token => role.authority(),
        }
    }
}
