//! Who connects: what the handshake says of the client.

use axum::http::header;
use axum::http::request::Parts;
use platform::auth::{Auth, Claims, TokenError};
use platform::config::AuthMode;
use serde_json::{Map, Value};
use url::form_urlencoded;

use crate::protocol::After;

/// The largest token that is looked at, in bytes.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// A handshake that is accepted.
#[derive(Debug)]
pub struct Handshake {
    /// Who it is; `None` where nobody needs to say.
    pub claims: Option<Claims>,
    /// From where subscriptions resume that don't say it themselves.
    pub after: Option<After>,
}

impl Handshake {
    /// Reads `token` and `after` from `auth`, the JSON with which the client connects (Socket.IO 3 and
    /// later), or else from the query of the request that opened the session; the token may be in that
    /// request's `Authorization` header as well.
    ///
    /// # Errors
    /// Why the client can't connect.
    pub fn check(auth: &Auth, request: &Parts, given: Option<&str>) -> Result<Self, String> {
        let given = match given.map(serde_json::from_str) {
            None | Some(Ok(Value::Null)) => Map::new(),
            Some(Ok(Value::Object(given))) => given,
            Some(_) => return Err("auth must be an object with token and after".to_owned()),
        };
        let field = |name: &str| match given.get(name) {
            None | Some(Value::Null) => Ok(in_query(request, name)),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(format!("auth.{name} must be a string")),
        };
        let after = field("after")?
            .filter(|after| !after.is_empty())
            .map(|after| after.parse())
            .transpose()
            .map_err(|_| "after must be the position of a frame or a message's id".to_owned())?;
        let claims = match field("token")?.filter(|token| !token.is_empty()) {
            Some(token) if token.len() > MAX_TOKEN_BYTES => {
                return Err(format!("a token has at most {MAX_TOKEN_BYTES} bytes"));
            }
            Some(token) => Some(auth.verify(&token).map_err(|error| error.to_string())?),
            None if request.headers.contains_key(header::AUTHORIZATION) => {
                let claims = auth.bearer(&request.headers);
                Some(claims.map_err(|error| error.message().to_owned())?)
            }
            None if auth.mode() == AuthMode::Token => return Err(TokenError::Missing.to_string()),
            None => None,
        };
        Ok(Self { claims, after })
    }
}

fn in_query(request: &Parts, name: &str) -> Option<String> {
    let query = request.uri.query()?;
    form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}
