//! Who calls, and how a request wants to be handled: its token, idempotency key and preferences.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use events::{Authority, Caller, IdempotencyKey};
use platform::auth::Claims;
use platform::config::AuthMode;
use platform::error::ApiError;

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

/// The caller of a route that is about somebody's own rooms: a token is needed in every mode, and its user must
/// exist.
pub(crate) struct Member(pub(crate) Caller);

/// The caller of a route that the tutorial leaves open to all. With `auth=open` so does Hansard, and a token only
/// tells who it was; otherwise a token is needed.
pub(crate) struct Anyone(pub(crate) Caller);

// Handlers take what they need of a request in the order of their arguments. With the caller first, who has no
// good token is told so before anything else of the request is judged, and before its body is read.

impl FromRequestParts<Arc<Options>> for Member {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        options: &Arc<Options>,
    ) -> Result<Self, ApiError> {
        let claims = options.auth.bearer(&parts.headers)?;
        match options.commands.directory.user(claims.user).await? {
            Some(user) if !user.deleted => {}
            _ => return Err(ApiError::invalid_token("the token's user does not exist")),
        }
        Ok(Self(options.caller(&claims)))
    }
}

impl FromRequestParts<Arc<Options>> for Anyone {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        options: &Arc<Options>,
    ) -> Result<Self, ApiError> {
        let claims = options.auth.bearer(&parts.headers);
        if options.auth.mode() == AuthMode::Open {
            return Ok(Self(Caller {
                user: claims.ok().map(|claims| claims.user),
                authority: Authority::Open,
            }));
        }
        let claims = claims?;
        // The firm's own back office is no user of the chat.
        let exists = match options.commands.directory.user(claims.user).await? {
            Some(user) => !user.deleted,
            None => claims.role.stands_alone(),
        };
        if !exists {
            return Err(ApiError::invalid_token("the token's user does not exist"));
        }
        Ok(Self(options.caller(&claims)))
    }
}

impl Options {
    fn caller(&self, claims: &Claims) -> Caller {
        Caller {
            user: Some(claims.user),
            authority: match self.auth.mode() {
                AuthMode::Open => Authority::Open,
                AuthMode::Token => claims.role.authority(),
            },
        }
    }
}
