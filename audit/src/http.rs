//! The audit routes: who may call them, and `GET /audit/events`, a replay as a stream of NDJSON.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use contract::Problem;
use event_log::LogError;
use events::{Subject, User, UserId, UserType};
use futures::stream::{self, Stream};
use keys::Record;
use platform::auth::Auth;
use platform::error::ApiError;
use read_models::TreeStore;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::format::ReplayedEvent;
use crate::proofs;
use crate::{Format, ReplayFilter, Selection};

/// Bytes gathered before they are handed to the connection.
const CHUNK: usize = 16 * 1024;

/// A way to the record, which may not be there yet: a process must be able to start and serve without it.
#[derive(Clone)]
pub struct RecordHandle(Arc<dyn Fn() -> Option<Record> + Send + Sync>);

impl RecordHandle {
    /// A handle that asks `obtain` for the record at each request.
    pub fn new(obtain: impl Fn() -> Option<Record> + Send + Sync + 'static) -> Self {
        Self(Arc::new(obtain))
    }

    fn get(&self) -> Result<Record, ApiError> {
        (self.0)().ok_or_else(|| {
            ApiError::unavailable("the event log has not been reached yet; try again", 1)
        })
    }
}

impl From<Record> for RecordHandle {
    fn from(record: Record) -> Self {
        Self::new(move || Some(record.clone()))
    }
}

impl fmt::Debug for RecordHandle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("RecordHandle")
    }
}

/// What the audit routes are built from.
#[derive(Clone)]
pub struct Options {
    /// The record to replay.
    pub record: RecordHandle,
    /// The Merkle tree over it.
    pub tree: Arc<dyn TreeStore>,
    /// Who may call.
    pub auth: Auth,
}

/// The audit routes.
pub fn routes(options: Options) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(replay_events))
        .routes(routes!(proofs::checkpoint))
        .routes(routes!(proofs::proof))
        .routes(routes!(proofs::consistency))
        .with_state(Arc::new(options))
}

/// The record itself.
///
/// Streams the events that match, in log order, one JSON object a line, up to the end of the log at the
/// time of the request. For users of type support, in every authentication mode. A stream that can't be
/// completed ends with a line `{"error": ...}`.
#[utoipa::path(
    get,
    path = "/audit/events",
    tag = "audit",
    params(
        ("room" = Option<String>, Query, description = "a room id: only events of this room"),
        ("user" = Option<String>, Query, description = "a user id: only events that this user caused or that are about this user"),
        ("from" = Option<String>, Query, description = "only events from here on: an RFC 3339 time (compared with the time stored), or a position as 16 hex digits or a decimal number"),
        ("to" = Option<String>, Query, description = "only events up to and with here: a time or a position"),
    ),
    responses(
        (status = 200, description = "the events, one a line", body = ReplayedEvent<'static>, content_type = "application/x-ndjson"),
        (status = 400, description = "wrong parameters", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "a token is missing or bad", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "only users of type support may", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "the event log is unavailable", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = []))
)]
async fn replay_events(
    State(options): State<Arc<Options>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let record = authorized(&options, &headers).await?;
    let filter = parse_filter(query.as_deref().unwrap_or_default())?;
    let selection = Selection::start(record, filter).await?;
    let headers = [
        (header::CONTENT_TYPE, "application/x-ndjson"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, Body::from_stream(lines(selection))).into_response())
}

/// The record, if the caller may read it.
pub(crate) async fn authorized(options: &Options, headers: &HeaderMap) -> Result<Record, ApiError> {
    let claims = options.auth.bearer(headers)?;
    if claims.user_type != UserType::Support {
        return Err(ApiError::forbidden(
            "only users of type support may read the record",
        ));
    }
    let record = options.record.get()?;
    if is_deleted(&record, claims.user).await? {
        return Err(ApiError::invalid_token("the token's user does not exist"));
    }
    Ok(record)
}

/// Whether the log says that the user was deleted. One whom it does not know is the firm's own back
/// office, whose tokens come from elsewhere.
async fn is_deleted(record: &Record, user: UserId) -> Result<bool, LogError> {
    let Some(last) = record.log.last_of(Subject::User(user)).await? else {
        return Ok(false);
    };
    let envelope = record.decode(&last).await?.ok();
    let user = envelope.and_then(|envelope| User::after(last.position, &envelope));
    Ok(user.is_some_and(|user| user.deleted))
}

fn parse_filter(query: &str) -> Result<ReplayFilter, ApiError> {
    let mut filter = ReplayFilter::default();
    let mut given: BTreeMap<String, String> = BTreeMap::new();
    let mut errors: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if given.insert(name.to_string(), value.to_string()).is_some() {
            errors.insert(name.to_string(), "given more than once".to_owned());
        }
    }
    for (name, value) in &given {
        let wrong = match name.as_str() {
            "room" => read(value, &mut filter.room),
            "user" => read(value, &mut filter.user),
            "from" => read(value, &mut filter.from),
            "to" => read(value, &mut filter.to),
            _ => Err("unknown parameter; there are room, user, from and to".to_owned()),
        };
        if let Err(text) = wrong {
            errors.entry(name.clone()).or_insert(text);
        }
    }
    if let Err(error) = filter.check() {
        errors.insert("to".to_owned(), error.to_string());
    }
    if errors.is_empty() {
        Ok(filter)
    } else {
        Err(ApiError::validation(errors))
    }
}

fn read<T: std::str::FromStr<Err: fmt::Display>>(
    text: &str,
    into: &mut Option<T>,
) -> Result<(), String> {
    let value = text.parse().map_err(|error: T::Err| error.to_string())?;
    *into = Some(value);
    Ok(())
}

/// The replay in chunks of whole lines. Nothing is read ahead of what the client takes.
fn lines(selection: Selection) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> {
    stream::unfold(Some(selection), |selection| async {
        let mut selection = selection?;
        let mut chunk = Vec::new();
        while chunk.len() < CHUNK {
            match selection.next().await {
                Ok(Some(selected)) => Format::Jsonl.write(&selected, &mut chunk),
                Ok(None) if chunk.is_empty() => return None,
                Ok(None) => return Some((Ok(chunk.into()), None)),
                Err(error) => {
                    tracing::warn!(%error, "a replay ended before it was complete");
                    let last = json!({
                        "error": format!(
                            "the event log can't be read any further than position {}; ask again from there",
                            selection.position()
                        ),
                    });
                    chunk.extend_from_slice(last.to_string().as_bytes());
                    chunk.push(b'\n');
                    return Some((Ok(chunk.into()), None));
                }
            }
        }
        Some((Ok(chunk.into()), Some(selection)))
    })
}
