//! `GET /audit/checkpoint`, `/audit/proof/{messageId}` and `/audit/consistency`: that the record is what it
//! was, for whoever wants to see for themselves.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use contract::Problem;
use events::Position;
use merkle::{ConsistencyProof, InclusionProof};
use notary::{ProveError, Proven};
use platform::error::ApiError;
use read_models::TreeStoreError;

use crate::Options;
use crate::http::{authorized, parameters, read};
use crate::reading::record_reading;

/// When to ask again for what is not covered by a tree head yet, in seconds.
pub(crate) const SIGNED_SOON: u32 = 10;

/// The newest signed tree head.
///
/// A signed note of C2SP tlog-checkpoint: the log's name, how many events it has, the root of the Merkle
/// tree (RFC 9162) over them, and the signature. Keep it: nothing that it covers can be changed unnoticed.
#[utoipa::path(
    get,
    path = "/audit/checkpoint",
    tag = "audit",
    responses(
        (status = 200, description = "the signed note", body = String, content_type = "text/plain"),
        (status = 401, description = "a token is missing or bad", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "the caller may not read the record", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "nothing has been signed yet, or the tree can't be reached", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = []))
)]
pub(crate) async fn checkpoint(
    State(options): State<Arc<Options>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    authorized(&options, &headers).await?;
    let proven = newest(&options).await?;
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, proven.head.note).into_response())
}

/// The proof that the record has an event.
///
/// Of a message by its id, or of any other event by its position. The proof holds all that is needed to
/// check it offline, with nothing but the public key: `hansard verify proof FILE --key KEY`. That it is handed
/// out is recorded first, as an event `audit.read`.
#[utoipa::path(
    get,
    path = "/audit/proof/{messageId}",
    tag = "audit",
    params(("messageId" = String, Path, description = "a message's id, or a position: 16 hex digits")),
    responses(
        (status = 200, description = "the proof", body = InclusionProof),
        (status = 400, description = "it is no position", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "a token is missing or bad", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "the caller may not read the record", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "the log has no such event", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "no tree head covers it yet, or the tree can't be reached", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = []))
)]
pub(crate) async fn proof(
    State(options): State<Arc<Options>>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<InclusionProof>, ApiError> {
    let (record, claims) = authorized(&options, &headers).await?;
    let position: Position = id
        .parse()
        .map_err(|error| ApiError::validation([("messageId", format!("{error}"))]))?;
    let proven = newest(&options).await?;
    let proof = proven.inclusion(record.log.as_ref(), position).await;
    let proof = proof.map_err(refused)?;
    // It has the event's bytes, which say who did what, where and when.
    let what = "GET /audit/proof/{messageId}";
    let filter = BTreeMap::from([("messageId".to_owned(), position.to_string())]);
    record_reading(&record, Some(claims.user), what, filter).await?;
    Ok(Json(proof))
}

/// Which trees are asked for: the size of the earlier one, and of the later one.
fn sizes(query: &str) -> Result<(u64, Option<u64>), ApiError> {
    let (mut from, mut to): (Option<u64>, Option<u64>) = (None, None);
    let size = |text: &str, into: &mut Option<u64>| {
        read(text, into).map_err(|_| "expected a whole number".to_owned())
    };
    let mut errors = parameters(query, "from and to", &[], |name, value| {
        Some(match name {
            "from" => size(value, &mut from),
            "to" => size(value, &mut to),
            _ => return None,
        })
    });
    if from.is_none() {
        let missing = || "expected the size of the earlier tree".to_owned();
        errors.entry("from".to_owned()).or_insert_with(missing);
    }
    match from {
        Some(from) if errors.is_empty() => Ok((from, to)),
        _ => Err(ApiError::validation(errors)),
    }
}

/// The proof that the record only grew.
///
/// That the tree with the first `to` events begins with the one with the first `from`: with the roots of two
/// signed tree heads of these sizes, that nothing of what the earlier one covers was changed since.
#[utoipa::path(
    get,
    path = "/audit/consistency",
    tag = "audit",
    params(
        ("from" = u64, Query, minimum = 1, description = "the size of the earlier tree"),
        ("to" = Option<u64>, Query, description = "the size of the later tree; without it, that of the newest tree head"),
    ),
    responses(
        (status = 200, description = "the proof", body = ConsistencyProof),
        (status = 400, description = "there are no such trees", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "a token is missing or bad", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "the caller may not read the record", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "nothing has been signed yet, or the tree can't be reached", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = []))
)]
pub(crate) async fn consistency(
    State(options): State<Arc<Options>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Json<ConsistencyProof>, ApiError> {
    authorized(&options, &headers).await?;
    let (from, to) = sizes(query.as_deref().unwrap_or_default())?;
    let proven = newest(&options).await?;
    let proof = proven.consistency(from, to.unwrap_or(proven.head.size));
    Ok(Json(proof.await.map_err(refused)?))
}

async fn newest(options: &Options) -> Result<Proven<'_>, ApiError> {
    Proven::newest(options.tree.as_ref()).await.map_err(refused)
}

fn refused(error: ProveError) -> ApiError {
    match error {
        ProveError::Store(TreeStoreError::Store(error)) => error.into(),
        ProveError::Log(error) => error.into(),
        ProveError::Unsigned | ProveError::NotCovered { .. } => {
            ApiError::unavailable(format!("{error}; try again"), SIGNED_SOON)
        }
        ProveError::NoEvent(_) => ApiError::not_found(error.to_string()),
        ProveError::Sizes { .. } => ApiError::bad_request(error.to_string()),
        ProveError::Store(_)
        | ProveError::Changed(_)
        | ProveError::Tree(_)
        | ProveError::Head(_) => ApiError::internal(&error.into()),
    }
}
