//! The one error of every HTTP handler, and the body it is sent as.

use std::collections::BTreeMap;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use contract::Problem;
use event_log::LogError;
use read_models::ReadModelError;

use crate::auth::TokenError;

/// Why a request is refused or failed, as the client gets to see it: a status, a sentence, and a code
/// that never changes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    errors: Option<BTreeMap<String, String>>,
    retry_after_seconds: Option<u32>,
    challenge: Option<&'static str>,
}

impl ApiError {
    /// An error with this status, code and message. The code is for programs: lower-case words joined by
    /// hyphens, and never changed or given another meaning.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            errors: None,
            retry_after_seconds: None,
            challenge: None,
        }
    }

    /// 400 `bad-request`: the request can't be understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", message)
    }

    /// 400 `validation`: these fields of the request are wrong; field to text.
    pub fn validation<Name: Into<String>, Text: Into<String>>(
        errors: impl IntoIterator<Item = (Name, Text)>,
    ) -> Self {
        let errors = errors.into_iter();
        let errors = errors.map(|(name, text)| (name.into(), text.into()));
        Self {
            errors: Some(errors.collect()),
            ..Self::new(
                StatusCode::BAD_REQUEST,
                "validation",
                contract::texts::FIX_ERRORS,
            )
        }
    }

    /// 401 `unauthorized`: the request needs a token.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self {
            challenge: Some("Bearer"),
            ..Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
        }
    }

    /// 401 `invalid-token`: the request's token is refused for this reason.
    pub fn invalid_token(message: impl Into<String>) -> Self {
        Self {
            challenge: Some("Bearer error=\"invalid_token\""),
            ..Self::new(StatusCode::UNAUTHORIZED, "invalid-token", message)
        }
    }

    /// 403 `forbidden`: the caller may not do this.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// 404 `not-found`: what the request names does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", message)
    }

    /// 404 `unknown-endpoint`: no route has this method and path.
    pub fn unknown_endpoint() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "unknown-endpoint",
            contract::texts::UNKNOWN_ENDPOINT,
        )
    }

    /// 409 `conflict`: something changed meanwhile; the client may try again.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", message)
    }

    /// 409 `under-legal-hold`: it may not be done as long as rooms are under legal hold.
    pub fn under_hold(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "under-legal-hold", message)
    }

    /// 413 `payload-too-large`: the request's body is over the limit.
    pub fn payload_too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "payload-too-large", message)
    }

    /// 415 `unsupported-media-type`: the request's body is in a format that the API does not take.
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            message,
        )
    }

    /// 422 `unprocessable`: understood, but it contradicts an earlier request.
    pub fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "unprocessable", message)
    }

    /// 503 `unavailable`: what is needed to answer can't be reached; try again after so many seconds.
    pub fn unavailable(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self {
            retry_after_seconds: Some(retry_after_seconds),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
        }
    }

    /// 503 `overloaded`: more is asked for at a time than can be worked on; nothing was done.
    pub fn overloaded() -> Self {
        Self {
            retry_after_seconds: Some(1),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "overloaded",
                "too much is asked for at once; nothing was done, try again",
            )
        }
    }

    /// 500 `internal`: something went wrong that the client can do nothing about. What it was goes to
    /// the log and not to the client.
    pub fn internal(error: &anyhow::Error) -> Self {
        tracing::error!(error = format!("{error:#}"), "a request failed");
        Self::internal_unlogged()
    }

    pub(crate) fn internal_unlogged() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "something went wrong on the server; its log says what, under the request's id",
        )
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The code that never changes.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// What was wrong.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let problem = Problem {
            success: false,
            detail: self.message.clone(),
            message: self.message,
            errors: self.errors,
            code: self.code.to_owned(),
            problem_type: "about:blank".to_owned(),
            title: title.to_owned(),
            status: self.status.as_u16(),
        };
        let mut response = (self.status, Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(challenge) = self.challenge {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static(challenge),
            );
        }
        response
    }
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        Self::invalid_token(error.to_string())
    }
}

/// What went wrong inside goes to the log; the client learns what it can do.
impl From<LogError> for ApiError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Conflict(_) => {
                Self::conflict("what the request changes was changed meanwhile; try again")
            }
            LogError::TooLarge { size } => Self::payload_too_large(format!(
                "the request makes an event of {size} bytes, larger than the log takes"
            )),
            LogError::Unavailable(reason) => {
                tracing::warn!(reason, "the log is unavailable");
                Self::unavailable("the event log can't be reached; try again", 1)
            }
            LogError::Unusable(reason) => {
                tracing::error!(reason, "the log is unusable");
                Self::unavailable("the event log is not fit for use; try again later", 10)
            }
        }
    }
}

/// What went wrong inside goes to the log; the client learns what it can do.
impl From<ReadModelError> for ApiError {
    fn from(error: ReadModelError) -> Self {
        match error {
            ReadModelError::Unavailable(reason) => {
                tracing::warn!(reason, "the read models are unavailable");
                Self::unavailable("the read models can't be reached; try again", 1)
            }
            // The second is what projectors are told, and nobody else.
            error @ (ReadModelError::BeingBuilt | ReadModelError::Overtaken) => {
                Self::unavailable(format!("{error}; try again later"), 10)
            }
            ReadModelError::Unusable(reason) => {
                tracing::error!(reason, "the read models are unusable");
                Self::unavailable("the read models are not fit for use; try again later", 10)
            }
            ReadModelError::Refused(reason) => {
                tracing::error!(reason, "the read models refused an operation");
                Self::internal_unlogged()
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    async fn sent(error: ApiError) -> (axum::http::HeaderMap, Value) {
        let response = error.into_response();
        let headers = response.headers().clone();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await;
        (headers, serde_json::from_slice(&body.unwrap()).unwrap())
    }

    #[tokio::test]
    async fn a_refusal_has_the_tutorials_members_and_the_standards() {
        let (headers, body) = sent(ApiError::validation([("type", "wrong")])).await;
        assert_eq!(headers["content-type"], "application/problem+json");
        assert_eq!(
            body,
            json!({
                "success": false,
                "message": "Kindly fix the error(s)",
                "errors": {"type": "wrong"},
                "code": "validation",
                "type": "about:blank",
                "title": "Bad Request",
                "status": 400,
                "detail": "Kindly fix the error(s)",
            })
        );
        let (_, body) = sent(ApiError::not_found("No room exists for this id")).await;
        assert_eq!(body["message"], "No room exists for this id");
        assert_eq!(body.get("errors"), None);
    }

    #[tokio::test]
    async fn a_401_says_how_to_authenticate_and_a_503_when_to_retry() {
        let (headers, _) = sent(ApiError::unauthorized("No access token provided")).await;
        assert_eq!(headers["www-authenticate"], "Bearer");
        let (headers, body) = sent(TokenError::Expired.into()).await;
        assert_eq!(
            headers["www-authenticate"],
            "Bearer error=\"invalid_token\""
        );
        assert_eq!(body["message"], "jwt expired");
        let (headers, _) = sent(ApiError::unavailable("later", 7)).await;
        assert_eq!(headers["retry-after"], "7");
    }

    #[tokio::test]
    async fn nothing_internal_reaches_the_client() {
        let secret = || "nats://user:password@10.0.0.1".to_owned();
        for (error, status) in [
            (LogError::Unavailable(secret()).into(), 503),
            (LogError::Unusable(secret()).into(), 503),
            (ReadModelError::Unavailable(secret()).into(), 503),
            (ReadModelError::Unusable(secret()).into(), 503),
            (ReadModelError::Refused(secret()).into(), 500),
            (ApiError::internal(&anyhow::anyhow!(secret())), 500),
        ] {
            let error: ApiError = error;
            assert_eq!(error.status().as_u16(), status);
            let (headers, body) = sent(error).await;
            assert_eq!(headers.contains_key("retry-after"), status == 503);
            assert!(!body.to_string().contains("password"), "{body}");
        }
    }
}
