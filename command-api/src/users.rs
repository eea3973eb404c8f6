//! Logging in, and creating and deleting users.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use contract::{
    CreateUserBody, DeleteUserAnswer, EraseUserAnswer, LoginAnswer, Problem, User, UserAnswer,
    texts,
};
use events::{Command, Event, UserId};
use platform::body::Fields;
use platform::error::ApiError;

use crate::Options;
use crate::caller::{Anyone, Handling};
use crate::execute::{Failure, Outcome, Unchanged, unexpected};
use crate::reply::Reply;

/// Log in as a user, without a password.
///
/// Only with `auth=open`, for trying things out: with `auth=token` this route does not exist, and tokens
/// come from the firm's own sign-in.
#[utoipa::path(
    post,
    path = "/login/{userId}",
    tag = "users",
    params(("userId" = String, Path, description = "the user's id")),
    responses(
        (status = 200, description = "a token", body = LoginAnswer),
        (status = 400, description = "the id is no text", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such user", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "the log is unavailable", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn login(
    State(options): State<Arc<Options>>,
    Path(user): Path<String>,
) -> Result<Json<LoginAnswer>, ApiError> {
    let unknown = || ApiError::not_found(texts::UNKNOWN_USER);
    let id: UserId = user.parse().map_err(|_| unknown())?;
    let user = options.commands.directory.user(id).await?;
    let user = user.filter(|user| !user.deleted).ok_or_else(unknown)?;
    let token = options.auth.issue(user.id, user.user_type);
    Ok(Json(LoginAnswer::new(token)))
}

/// Create a user.
#[utoipa::path(
    post,
    path = "/users",
    tag = "users",
    params(
        ("Idempotency-Key" = Option<String>, Header, pattern = "^[!-~]{1,255}$", description = "repeating the request with the same key has no further effect"),
        ("Prefer" = Option<String>, Header, description = "`respond-async`: answer without waiting for the read models"),
    ),
    request_body(content(
        (CreateUserBody = "application/json"),
        (CreateUserBody = "application/x-www-form-urlencoded"),
    )),
    responses(
        (status = 200, description = "the new user", body = UserAnswer, headers(("Hansard-Position" = String, description = "where the event stands in the log"))),
        (status = 400, description = "wrong fields", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "a token is missing or bad (auth=token)", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "only support may (auth=token)", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "the body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "the body's content type is not known", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "the idempotency key was used for another request", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "the log is unavailable", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("token" = []))
)]
pub(crate) async fn create(
    State(options): State<Arc<Options>>,
    Anyone(caller): Anyone,
    handling: Handling,
    fields: Fields,
) -> Result<Reply<UserAnswer>, ApiError> {
    let body = CreateUserBody::read(&fields.0, &options.limits).map_err(ApiError::validation)?;
    let command = Command::CreateUser {
        user: UserId::random(),
        first_name: body.first_name,
        last_name: body.last_name,
        user_type: body.user_type,
    };
    let done = match options.execute(caller, &handling, &command).await? {
        Outcome::Done(done) => done,
        Outcome::Nothing(_) => {
            return Err(Failure::impossible("creating a user always leads to one"));
        }
    };
    let user = events::User::after(done.position, &done.envelope)
        .ok_or_else(|| unexpected(&done.envelope.event))?;
    Ok(Reply {
        position: Some(done.position),
        respond_async: handling.respond_async,
        body: UserAnswer::new(User::from(&user)),
    })
}

/// Delete a user.
///
/// The user's messages stay, without the name.
#[utoipa::path(
    delete,
    path = "/users/{id}",
    tag = "users",
    params(
        ("id" = String, Path, description = "the user's id"),
        ("Idempotency-Key" = Option<String>, Header, pattern = "^[!-~]{1,255}$", description = "repeating the request with the same key has no further effect"),
        ("Prefer" = Option<String>, Header, description = "`respond-async`: answer without waiting for the read models"),
    ),
    responses(
        (status = 200, description = "how many users were deleted: 0 or 1", body = DeleteUserAnswer, headers(("Hansard-Position" = String, description = "where the event stands in the log"))),
        (status = 400, description = "a wrong header", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "a token is missing or bad (auth=token)", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "only the user and support may (auth=token)", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "the idempotency key was used for another request", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "the log is unavailable", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("token" = []))
)]
pub(crate) async fn delete(
    State(options): State<Arc<Options>>,
    Anyone(caller): Anyone,
    Path(user): Path<String>,
    handling: Handling,
) -> Result<Reply<DeleteUserAnswer>, ApiError> {
    let outcome = match user.parse() {
        // What is no id names nobody.
        Err(_) => Outcome::Nothing(Unchanged::default()),
        Ok(user) => {
            let command = Command::DeleteUser { user };
            options.execute(caller, &handling, &command).await?
        }
    };
    let count = match &outcome {
        Outcome::Done(done) if !matches!(done.envelope.event, Event::UserDeleted(_)) => {
            return Err(unexpected(&done.envelope.event));
        }
        Outcome::Done(_) => 1,
        Outcome::Nothing(_) => 0,
    };
    Ok(Reply {
        position: outcome.position(),
        respond_async: handling.respond_async,
        body: DeleteUserAnswer::new(format!("Deleted a count of {count} user.")),
    })
}

/// Erase a user.
///
/// As deleted, and everything personal of the user becomes unreadable for ever: the key that the names and
/// texts are sealed with is destroyed. The events stay, and their proofs hold. Refused as long as the user is a
/// member of a room under legal hold. To repeat it does no harm, and completes one that failed midway.
#[utoipa::path(
    post,
    path = "/users/{id}/erase",
    tag = "users",
    params(
        ("id" = String, Path, description = "the user's id"),
        ("Idempotency-Key" = Option<String>, Header, pattern = "^[!-~]{1,255}$", description = "repeating the request with the same key has no further effect"),
        ("Prefer" = Option<String>, Header, description = "`respond-async`: answer without waiting for the read models"),
    ),
    responses(
        (status = 200, description = "the user is erased", body = EraseUserAnswer, headers(("Hansard-Position" = String, description = "where the event stands in the log"))),
        (status = 400, description = "a wrong header", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "a token is missing or bad (auth=token)", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "only admins may (auth=token)", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such user", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "the user is a member of rooms under legal hold", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "the idempotency key was used for another request", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "the log or its keys are unavailable", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("token" = []))
)]
pub(crate) async fn erase(
    State(options): State<Arc<Options>>,
    Anyone(caller): Anyone,
    Path(user): Path<String>,
    handling: Handling,
) -> Result<Reply<EraseUserAnswer>, ApiError> {
    let user: UserId = user
        .parse()
        .map_err(|_| ApiError::not_found(texts::UNKNOWN_USER))?;
    let command = Command::EraseUser { user };
    let outcome = options.execute(caller, &handling, &command).await?;
    let message = match &outcome {
        Outcome::Done(_) => "The user has been erased.",
        Outcome::Nothing(_) => "The user had been erased before.",
    };
    Ok(Reply {
        position: outcome.position(),
        respond_async: handling.respond_async,
        body: EraseUserAnswer::new(message.to_owned()),
    })
}
