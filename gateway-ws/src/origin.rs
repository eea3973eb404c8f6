//! Which web pages may connect. Browsers send cross-site WebSockets without asking first, so the gateway
//! has to look at the origin itself.

use axum::http::{HeaderMap, header};
use platform::error::ApiError;

/// Whether the request comes from an allowed origin. Clients that are no browsers send none and may always
/// connect; an empty list allows any.
pub fn is_allowed(allowed: &[String], headers: &HeaderMap) -> bool {
    if allowed.is_empty() {
        return true;
    }
    match headers.get(header::ORIGIN) {
        None => true,
        Some(origin) => allowed.iter().any(|it| it.as_bytes() == origin.as_bytes()),
    }
}

/// The answer to the others.
pub fn refusal() -> ApiError {
    ApiError::forbidden("web pages of this origin may not connect")
}
