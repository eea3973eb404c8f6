//! Legal holds: what is said in a room is kept, whatever else would make it go.

use std::sync::Arc;

use axum::extract::{Path, State};
use contract::{HoldAnswer, HoldBody, Problem};
use events::{Caller, Command};
use platform::body::Fields;
use platform::error::ApiError;

use crate::Options;
use crate::caller::{Anyone, Handling};
use crate::execute::Outcome;
use crate::reply::Reply;
use crate::rooms::room_id;

/// Put a room under legal hold.
///
/// Until it is released its texts don't expire, it can't be deleted, and none of its members can be erased.
#[utoipa::path(
    put,
    path = "/room/{roomId}/hold",
    tag = "audit",
    params(
        ("roomId" = String, Path, description = "the room's id"),
        ("Idempotency-Key" = Option<String>, Header, pattern = "^[!-~]{1,255}$", description = "repeating the request with the same key has no further effect"),
        ("Prefer" = Option<String>, Header, description = "`respond-async`: answer without waiting for the read models"),
    ),
    request_body(content(
        (HoldBody = "application/json"),
        (HoldBody = "application/x-www-form-urlencoded"),
    )),
    responses(
        (status = 200, description = "the room is under legal hold", body = HoldAnswer, headers(("Hansard-Position" = String, description = "where the event stands in the log"))),
        (status = 400, description = "wrong fields", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "a token is missing or bad (auth=token)", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "only admins may (auth=token)", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such room", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "the body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "the body's content type is not known", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "the idempotency key was used for another request", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "the log is unavailable", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("token" = []))
)]
pub(crate) async fn hold(
    State(options): State<Arc<Options>>,
    Anyone(caller): Anyone,
    Path(room): Path<String>,
    handling: Handling,
    fields: Fields,
) -> Result<Reply<HoldAnswer>, ApiError> {
    let body = HoldBody::read(&fields.0, &options.limits).map_err(ApiError::validation)?;
    let command = Command::HoldRoom {
        room: room_id(&room)?,
        reason: body.reason,
    };
    change(&options, caller, handling, &command, true).await
}

/// Release a room from legal hold.
#[utoipa::path(
    delete,
    path = "/room/{roomId}/hold",
    tag = "audit",
    params(
        ("roomId" = String, Path, description = "the room's id"),
        ("Idempotency-Key" = Option<String>, Header, pattern = "^[!-~]{1,255}$", description = "repeating the request with the same key has no further effect"),
        ("Prefer" = Option<String>, Header, description = "`respond-async`: answer without waiting for the read models"),
    ),
    responses(
        (status = 200, description = "the room is not under legal hold", body = HoldAnswer, headers(("Hansard-Position" = String, description = "where the event stands in the log"))),
        (status = 400, description = "a wrong header", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "a token is missing or bad (auth=token)", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "only admins may (auth=token)", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "the id is no room's", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "the idempotency key was used for another request", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "the log is unavailable", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("token" = []))
)]
pub(crate) async fn release(
    State(options): State<Arc<Options>>,
    Anyone(caller): Anyone,
    Path(room): Path<String>,
    handling: Handling,
) -> Result<Reply<HoldAnswer>, ApiError> {
    let command = Command::ReleaseRoom {
        room: room_id(&room)?,
    };
    change(&options, caller, handling, &command, false).await
}

async fn change(
    options: &Options,
    caller: Caller,
    handling: Handling,
    command: &Command,
    held: bool,
) -> Result<Reply<HoldAnswer>, ApiError> {
    let outcome = options.execute(caller, &handling, command).await?;
    Ok(Reply {
        position: outcome.position(),
        respond_async: handling.respond_async,
        body: HoldAnswer::new(held, matches!(outcome, Outcome::Done(_))),
    })
}
