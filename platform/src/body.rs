//! Request bodies as the tutorial takes them: a JSON object or a form, either way a map of fields.

use std::collections::HashMap;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use serde_json::{Map, Value};

use crate::error::ApiError;

/// The fields of a request's body: of a JSON object, or of a form, in which a repeated key, `key[]` or
/// `key[0]` makes an array. No body: no fields.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fields(pub Map<String, Value>);

impl<State: Send + Sync> FromRequest<State> for Fields {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &State) -> Result<Self, ApiError> {
        let headers = request.headers().clone();
        let body =
            Bytes::from_request(request, state)
                .await
                .map_err(|rejection| match rejection.into_response().status() {
                    StatusCode::PAYLOAD_TOO_LARGE => {
                        ApiError::payload_too_large("the request's body is larger than the limit")
                    }
                    _ => ApiError::bad_request("the request's body ended early"),
                })?;
        Self::read(&headers, &body)
    }
}

/// What a body is written in.
enum Format {
    Json,
    Form,
}

impl Fields {
    /// The fields of a body that came with these headers.
    ///
    /// # Errors
    /// 415 for a body in another format, 400 for one that can't be read.
    pub fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, ApiError> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        match format(headers)? {
            Format::Json => read_json(body).map(Self),
            Format::Form => read_form(body).map(Self),
        }
    }
}

fn format(headers: &HeaderMap) -> Result<Format, ApiError> {
    let refused = |what: &str| {
        ApiError::unsupported_media_type(format!(
            "{what}; send application/json or application/x-www-form-urlencoded in UTF-8"
        ))
    };
    let encoding = headers.get(header::CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(refused("the request's body is compressed"));
    }
    let content_type = headers.get(header::CONTENT_TYPE);
    let Some(content_type) = content_type.and_then(|value| value.to_str().ok()) else {
        return Err(refused("the request's body has no content type"));
    };
    let mut parts = content_type.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
    let other_charset = parts
        .filter_map(|parameter| parameter.split_once('='))
        .filter(|(name, _)| name.eq_ignore_ascii_case("charset"))
        .any(|(_, charset)| {
            let charset = charset.trim_matches('"');
            !charset.eq_ignore_ascii_case("utf-8") && !charset.eq_ignore_ascii_case("us-ascii")
        });
    if other_charset {
        return Err(refused("the request's body is not in UTF-8"));
    }
    match media_type.as_str() {
        "application/json" => Ok(Format::Json),
        "application/x-www-form-urlencoded" => Ok(Format::Form),
        other if other.starts_with("application/") && other.ends_with("+json") => Ok(Format::Json),
        _ => Err(refused("the request's content type is not supported")),
    }
}

fn read_json(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    // The parser gives up at 128 levels, so that deep nesting can't exhaust the stack.
    match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(ApiError::bad_request(
            "the request's body is JSON but not an object",
        )),
        Err(error) => Err(ApiError::bad_request(format!(
            "the request's body is not valid JSON: {error}"
        ))),
    }
}

fn read_form(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    let mut fields: HashMap<String, FormField> = HashMap::new();
    for pair in body.split(|byte| *byte == b'&') {
        if pair.is_empty() {
            continue;
        }
        let (key, value) = match pair.iter().position(|byte| *byte == b'=') {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &b""[..]),
        };
        let (key, value) = (decode(key)?, decode(value)?);
        let element_of = array_name(&key);
        let field = fields
            .entry(element_of.unwrap_or(&key).to_owned())
            .or_default();
        field.is_array |= element_of.is_some();
        field.values.push(value);
    }
    Ok(fields
        .into_iter()
        .map(|(key, field)| (key, field.into()))
        .collect())
}

/// What a form says about one field.
#[derive(Default)]
struct FormField {
    is_array: bool,
    values: Vec<String>,
}

impl From<FormField> for Value {
    fn from(mut field: FormField) -> Self {
        match field.values.pop() {
            Some(only) if field.values.is_empty() && !field.is_array => Self::String(only),
            last => {
                field.values.extend(last);
                Self::Array(field.values.into_iter().map(Self::String).collect())
            }
        }
    }
}

/// The name of the array of which `key` is an element: `key[]` or `key[0]`.
fn array_name(key: &str) -> Option<&str> {
    let (name, index) = key.strip_suffix(']')?.rsplit_once('[')?;
    let valid = !name.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
    valid.then_some(name)
}

/// Undoes `application/x-www-form-urlencoded` (WHATWG URL, section 5.1), except that what is not UTF-8
/// is refused rather than replaced: texts are kept byte for byte or not at all.
fn decode(encoded: &[u8]) -> Result<String, ApiError> {
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'+', _) => decoded.push(b' '),
            (b'%', [high, low, after @ ..]) => match (hex_digit(*high), hex_digit(*low)) {
                (Some(high), Some(low)) => {
                    decoded.push(high * 16 + low);
                    rest = after;
                }
                _ => decoded.push(b'%'),
            },
            _ => decoded.push(*first),
        }
    }
    String::from_utf8(decoded)
        .map_err(|_| ApiError::bad_request("the request's form is not valid UTF-8"))
}

fn hex_digit(byte: u8) -> Option<u8> {
    let digit = char::from(byte).to_digit(16)?;
    u8::try_from(digit).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use axum::body::Body;
    use axum::extract::DefaultBodyLimit;
    use serde_json::json;
    use tower::ServiceExt;

    use super::*;

    const FORM: &str = "application/x-www-form-urlencoded";

    fn read(content_type: &str, body: impl AsRef<[u8]>) -> Result<Value, (u16, String)> {
        let mut headers = HeaderMap::new();
        if !content_type.is_empty() {
            headers.insert(header::CONTENT_TYPE, content_type.parse().unwrap());
        }
        Fields::read(&headers, body.as_ref())
            .map(|fields| Value::Object(fields.0))
            .map_err(|error| (error.status().as_u16(), error.message().to_owned()))
    }

    #[test]
    fn json_objects_are_read_whatever_the_spelling_of_their_type() {
        for content_type in [
            "application/json",
            "Application/JSON; charset=UTF-8",
            "application/json;charset=\"utf-8\"",
            "application/vnd.api+json",
        ] {
            let fields = read(content_type, r#"{"a": ["x", 1], "b": null}"#);
            assert_eq!(
                fields,
                Ok(json!({"a": ["x", 1], "b": null})),
                "{content_type}"
            );
        }
    }

    #[test]
    fn no_body_has_no_fields() {
        for content_type in ["", "application/json", FORM, "text/plain"] {
            assert_eq!(read(content_type, ""), Ok(json!({})));
        }
    }

    #[test]
    fn forms_are_read_as_the_tutorials_server_reads_them() {
        for (form, fields) in [
            (
                "a=1&b=two+words&c=%C3%A9%00",
                json!({"a": "1", "b": "two words", "c": "é\u{0}"}),
            ),
            ("a=1&a=2&a=3", json!({"a": ["1", "2", "3"]})),
            ("a[]=1", json!({"a": ["1"]})),
            ("a%5B%5D=1&a%5B%5D=2", json!({"a": ["1", "2"]})),
            ("a[0]=1&a[1]=2", json!({"a": ["1", "2"]})),
            (
                "a&b=&=c&&d==%zz%",
                json!({"a": "", "b": "", "": "c", "d": "=%zz%"}),
            ),
            ("a[b]=1&[]=2", json!({"a[b]": "1", "[]": "2"})),
        ] {
            assert_eq!(read(FORM, form), Ok(fields), "{form}");
        }
    }

    #[test]
    fn what_is_no_object_of_fields_is_refused() {
        let deep = "[".repeat(500_000);
        let deep_object = format!("{}1{}", "{\"a\":".repeat(200), "}".repeat(200));
        for (content_type, body, status, text) in [
            (
                "application/json",
                "{\"a\": }",
                400,
                "is not valid JSON: expected value at line 1 column 7",
            ),
            (
                "application/json",
                "{\"a\": 1} x",
                400,
                "trailing characters",
            ),
            ("application/json", " ", 400, "is not valid JSON"),
            ("application/json", "[1]", 400, "not an object"),
            ("application/json", "\"a\"", 400, "not an object"),
            ("application/json", deep.as_str(), 400, "recursion limit"),
            (
                "application/json",
                deep_object.as_str(),
                400,
                "recursion limit",
            ),
            (
                "application/json",
                "{\"a\":\"\\ud800\"}",
                400,
                "is not valid JSON",
            ),
            (FORM, "a=%ff", 400, "not valid UTF-8"),
            (
                "application/json; charset=latin1",
                "{}",
                415,
                "not in UTF-8",
            ),
            ("text/plain", "{}", 415, "not supported"),
            (
                "multipart/form-data; boundary=x",
                "--x--",
                415,
                "not supported",
            ),
            ("", "{}", 415, "no content type"),
        ] {
            let (found, message) = read(content_type, body).unwrap_err();
            assert_eq!(found, status, "{message}");
            assert!(message.contains(text), "{message}");
        }
        let (status, _) = read("application/json", b"{\"a\":\"\xff\"}").unwrap_err();
        assert_eq!(status, 400);
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
        assert_eq!(
            Fields::read(&headers, b"x").unwrap_err().status().as_u16(),
            415
        );
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_413_with_or_without_a_length() {
        let router = axum::Router::new()
            .route(
                "/",
                axum::routing::post(|fields: Fields| async move { axum::Json(fields.0) }),
            )
            .layer(DefaultBodyLimit::max(10));
        let send = async |body: Body| {
            let request = Request::post("/").header("content-type", "application/json");
            let response = router
                .clone()
                .oneshot(request.body(body).unwrap())
                .await
                .unwrap();
            (
                response.status().as_u16(),
                response.headers()["content-type"].clone(),
            )
        };
        assert_eq!(send(Body::from("{\"a\":1}")).await.0, 200);
        let (status, content_type) = send(Body::from("{\"a\":\"bbbbb\"}")).await;
        assert_eq!(
            (status, content_type.to_str().unwrap()),
            (413, "application/problem+json")
        );
        let chunks = std::iter::repeat_n(Ok::<_, std::convert::Infallible>("xxxx"), 4);
        let stream = Body::from_stream(futures::stream::iter(chunks));
        assert_eq!(send(stream).await.0, 413);
    }
}
