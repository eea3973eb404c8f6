//! The audit routes: who may call them, and `GET /audit/events`, a replay as a stream.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use clap::ValueEnum;
use contract::Problem;
use event_log::LogError;
use events::{Subject, User};
use futures::stream::{self, Stream};
use keys::Record;
use merkle::VerifyingKey;
use platform::auth::{Auth, Claims};
use platform::error::ApiError;
use read_models::TreeStore;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::document::{Document, Moved};
use crate::export;
use crate::format::ReplayedEvent;
use crate::proofs;
use crate::reading::{before, record_reading};
use crate::transcript::content_security_policy;
use crate::{EventType, Format, ReplayFilter};

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

    /// The record.
    ///
    /// # Errors
    /// 503: it is not there yet.
    pub fn get(&self) -> Result<Record, ApiError> {
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
    /// The public keys of the log, the newest first, where they are known: for exports.
    pub keys: Vec<VerifyingKey>,
    /// Who may call.
    pub auth: Auth,
}

/// The audit routes.
pub fn routes(options: Options) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(replay_events))
        .routes(routes!(export::export_room))
        .routes(routes!(proofs::checkpoint))
        .routes(routes!(proofs::proof))
        .routes(routes!(proofs::consistency))
        .with_state(Arc::new(options))
}

/// The record itself.
///
/// Streams the events that match, up to the end of the log at the time of the request: in log order, one JSON
/// object a line, or one line an event for people; or as a transcript, a conversation for each room. For auditors
/// and admins; with `auth=open` for everybody with a token. That the record is read is recorded first, as an event
/// `audit.read`. A stream that can't be completed says so in its last line, as JSON `{"error": ...}`.
#[utoipa::path(
    get,
    path = "/audit/events",
    tag = "audit",
    params(
        ("room" = Option<String>, Query, description = "a room id: only events of this room"),
        ("user" = Option<String>, Query, description = "a user id: only events that this user caused or that are about this user"),
        ("type" = Option<Vec<String>>, Query, style = Form, explode, description = "only events of this type, for example `message.posted`; may be given more than once"),
        ("from" = Option<String>, Query, description = "only events from here on: an RFC 3339 time (compared with the time stored), or a position as 16 hex digits or a decimal number"),
        ("to" = Option<String>, Query, description = "only events up to and with here: a time or a position"),
        ("format" = Option<String>, Query, description = "`jsonl`, `text`, `transcript` or `html`; else the `Accept` header tells"),
    ),
    responses(
        (status = 200, description = "the events", content(
            (ReplayedEvent<'static> = "application/x-ndjson"),
            (String = "text/plain"),
            (String = "text/html"),
        )),
        (status = 400, description = "wrong parameters", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "a token is missing or bad", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "only auditors and admins may (auth=token)", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "the event log is unavailable", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = []))
)]
async fn replay_events(
    State(options): State<Arc<Options>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let (record, claims) = authorized(&options, &headers).await?;
    let Asked { filter, format } = Asked::parse(query.as_deref().unwrap_or_default())?;
    let format = format.unwrap_or_else(|| accepted(&headers));
    let what = "GET /audit/events";
    let recorded = record_reading(&record, Some(claims.user), what, filter.conditions());
    let up_to = before(recorded.await?);
    let document = Document::start(record, filter, up_to, format).await?;
    let headers = [
        (header::CONTENT_TYPE, format.media_type().to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::VARY, "accept".to_owned()),
        (
            header::CONTENT_SECURITY_POLICY,
            format!("{}; sandbox", content_security_policy()),
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    Ok((headers, Body::from_stream(pieces(document))).into_response())
}

/// The record and who the caller is, if the caller may read it.
pub(crate) async fn authorized(
    options: &Options,
    headers: &HeaderMap,
) -> Result<(Record, Claims), ApiError> {
    let claims = options.auth.auditor(headers)?;
    let record = options.record.get()?;
    if !exists(&record, claims).await? {
        return Err(ApiError::invalid_token("the token's user does not exist"));
    }
    Ok((record, claims))
}

/// Whether the log knows the caller, undeleted. The firm's own back office is no user of the chat.
async fn exists(record: &Record, claims: Claims) -> Result<bool, LogError> {
    let subject = Subject::User(claims.user);
    let Some(last) = record.log.last_of(subject).await? else {
        return Ok(claims.role.stands_alone());
    };
    let envelope = record.decode(&last).await?.ok();
    let user = envelope.and_then(|envelope| User::after(last.position, &envelope));
    Ok(user.is_none_or(|user| !user.deleted))
}

/// What a request asks for.
#[derive(Default)]
struct Asked {
    filter: ReplayFilter,
    format: Option<Format>,
}

impl Asked {
    fn parse(query: &str) -> Result<Self, ApiError> {
        let mut asked = Self::default();
        let filter = &mut asked.filter;
        let known = "room, user, type, from, to and format";
        let mut errors = parameters(query, known, &["type"], |name, value| {
            Some(match name {
                "room" => read(value, &mut filter.room),
                "user" => read(value, &mut filter.user),
                "type" => {
                    let mut event_type: Option<EventType> = None;
                    let read = read(value, &mut event_type);
                    filter.types.extend(event_type);
                    read
                }
                "from" => read(value, &mut filter.from),
                "to" => read(value, &mut filter.to),
                "format" => Format::from_str(value, false)
                    .map(|format| asked.format = Some(format))
                    .map_err(|_| "possible values are jsonl,text,transcript,html".to_owned()),
                _ => return None,
            })
        });
        check_range(filter, &mut errors);
        match errors.is_empty() {
            true => Ok(asked),
            false => Err(ApiError::validation(errors)),
        }
    }
}

/// Hands the parameters of a query to `set`, which gives `None` for one that there is not, and gathers what is
/// wrong with each. Only those named in `repeatable` may be given more than once.
pub(crate) fn parameters(
    query: &str,
    known: &str,
    repeatable: &[&str],
    mut set: impl FnMut(&str, &str) -> Option<Result<(), String>>,
) -> BTreeMap<String, String> {
    let mut given: HashSet<String> = HashSet::new();
    let mut errors = BTreeMap::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let is_repeated = !given.insert(name.to_string());
        let set = match is_repeated && !repeatable.contains(&name.as_ref()) {
            true => Err("given more than once".to_owned()),
            false => set(&name, &value)
                .unwrap_or_else(|| Err(format!("unknown parameter; there are {known}"))),
        };
        if let Err(text) = set {
            errors.entry(name.to_string()).or_insert(text);
        }
    }
    errors
}

pub(crate) fn check_range(filter: &ReplayFilter, errors: &mut BTreeMap<String, String>) {
    if let Err(error) = filter.check() {
        errors.insert("to".to_owned(), error.to_string());
    }
}

/// The format that the client likes best of those that it names; JSON lines if it names none.
fn accepted(headers: &HeaderMap) -> Format {
    let mut best = (Format::default(), 0.0);
    let accept = headers.get_all(header::ACCEPT).iter();
    for range in accept
        .filter_map(|value| value.to_str().ok())
        .flat_map(|it| it.split(','))
    {
        let mut parts = range.split(';').map(str::trim);
        let format = match parts.next() {
            Some("application/x-ndjson") => Format::Jsonl,
            Some("text/plain") => Format::Text,
            Some("text/html") => Format::Html,
            _ => continue,
        };
        let quality = parts.find_map(|part| part.strip_prefix("q="));
        let quality = quality.map_or(1.0, |text| text.parse().unwrap_or(0.0));
        if quality > best.1 {
            best = (format, quality);
        }
    }
    best.0
}

pub(crate) fn read<T: std::str::FromStr<Err: fmt::Display>>(
    text: &str,
    into: &mut Option<T>,
) -> Result<(), String> {
    let value = text.parse().map_err(|error: T::Err| error.to_string())?;
    *into = Some(value);
    Ok(())
}

/// The replay in chunks. Nothing is read ahead of what the client takes.
fn pieces(document: Document) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> {
    stream::unfold(Some(document), |document| async {
        let mut document = document?;
        let mut chunk = Vec::new();
        while chunk.len() < CHUNK {
            match document.step(&mut chunk).await {
                Ok(Moved::Told(_) | Moved::On) => {}
                Ok(Moved::End) if chunk.is_empty() => return None,
                Ok(Moved::End) => return Some((Ok(chunk.into()), None)),
                Err(error) => {
                    tracing::warn!(%error, "a replay ended before it was complete");
                    let reason = format!(
                        "the event log can't be read any further than position {}; ask again from there",
                        document.position()
                    );
                    document.break_off(&reason, &mut chunk);
                    return Some((Ok(chunk.into()), None));
                }
            }
        }
        Some((Ok(chunk.into()), Some(document)))
    })
}
