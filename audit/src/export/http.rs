//! `GET /audit/export`: the legal export of a room, for auditors.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use contract::Problem;
use events::RoomId;
use notary::ProveError;
use platform::error::ApiError;
use read_models::TreeStoreError;
use tokio_util::io::ReaderStream;

use super::{ExportError, ExportRequest, Sources, export};
use crate::http::{authorized, check_range, parameters, read};
use crate::proofs::SIGNED_SOON;
use crate::{Bound, Options};

/// What happened in a room, with the proof of it.
///
/// One archive (tar) with the events as the log stores them, a transcript, the signed tree head, a proof of each
/// event, and an explanation: what a stranger can verify with the log's public key alone, `hansard verify export`.
/// It takes until a tree head covers the last event, 30 seconds at most. For auditors and admins; with `auth=open`
/// for everybody with a token. That the room is exported is recorded first, as an event `audit.read`.
#[utoipa::path(
    get,
    path = "/audit/export",
    tag = "audit",
    params(
        ("room" = String, Query, description = "the room's id"),
        ("from" = Option<String>, Query, description = "only events from here on: an RFC 3339 time (compared with the time stored), or a position as 16 hex digits or a decimal number"),
        ("to" = Option<String>, Query, description = "only events up to and with here: a time or a position"),
    ),
    responses(
        (status = 200, description = "the archive", body = Vec<u8>, content_type = "application/x-tar"),
        (status = 400, description = "wrong parameters", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "a token is missing or bad", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "only auditors and admins may (auth=token)", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "nothing of the room is in that part of the log", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "no tree head covers it yet, or the event log is unavailable", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = []))
)]
pub(crate) async fn export_room(
    State(options): State<Arc<Options>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let (record, claims) = authorized(&options, &headers).await?;
    let request = asked(query.as_deref().unwrap_or_default())?;
    let sources = Sources {
        record,
        tree: Arc::clone(&options.tree),
        keys: options.keys.clone(),
    };
    let exported = export(&request, &sources, Some(claims.user), "GET /audit/export").await;
    let exported = exported.map_err(refused)?;
    let name = format!(
        "attachment; filename=\"hansard-export-{}.tar\"",
        request.room
    );
    let headers = [
        (header::CONTENT_TYPE, "application/x-tar".to_owned()),
        (header::CONTENT_DISPOSITION, name),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    let archive = ReaderStream::new(tokio::fs::File::from_std(exported.archive));
    Ok((headers, Body::from_stream(archive)).into_response())
}

fn asked(query: &str) -> Result<ExportRequest, ApiError> {
    let mut room: Option<RoomId> = None;
    let (mut from, mut to): (Option<Bound>, Option<Bound>) = (None, None);
    let mut errors = parameters(query, "room, from and to", &[], |name, value| {
        Some(match name {
            "room" => read(value, &mut room),
            "from" => read(value, &mut from),
            "to" => read(value, &mut to),
            _ => return None,
        })
    });
    if room.is_none() {
        let missing = || "which room is to be exported?".to_owned();
        errors.entry("room".to_owned()).or_insert_with(missing);
    }
    let request = room.map(|room| ExportRequest { room, from, to });
    if let Some(request) = &request {
        check_range(&request.filter(), &mut errors);
    }
    match request {
        Some(request) if errors.is_empty() => Ok(request),
        _ => Err(ApiError::validation(errors)),
    }
}

fn refused(error: ExportError) -> ApiError {
    match error {
        ExportError::Nothing(_) => ApiError::not_found(error.to_string()),
        ExportError::NotSigned(_) => ApiError::unavailable(error.to_string(), SIGNED_SOON),
        ExportError::Log(error) | ExportError::Prove(ProveError::Log(error)) => error.into(),
        ExportError::Prove(ProveError::Store(TreeStoreError::Store(error))) => error.into(),
        ExportError::OtherLog | ExportError::Prove(_) | ExportError::Write(_) => {
            ApiError::internal(&error.into())
        }
    }
}
