//! A command's answer: the body with the headers that say where its event stands.

use axum::Json;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use events::Position;
use platform::http::POSITION;
use serde::Serialize;

/// A successful answer to a command.
pub(crate) struct Reply<T> {
    /// Where the command's event stands; `None` when it needed none.
    pub(crate) position: Option<Position>,
    /// Whether the client asked not to wait for the projection.
    pub(crate) respond_async: bool,
    /// The body.
    pub(crate) body: T,
}

impl<T: Serialize> IntoResponse for Reply<T> {
    fn into_response(self) -> Response {
        let mut response = Json(self.body).into_response();
        let headers = response.headers_mut();
        if let Some(position) = self.position
            && let Ok(value) = HeaderValue::from_str(&position.to_string())
        {
            headers.insert(POSITION, value);
        }
        if self.respond_async {
            headers.insert(
                HeaderName::from_static("preference-applied"),
                HeaderValue::from_static("respond-async"),
            );
        }
        response
    }
}
