//! Who there is.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use contract::{Problem, UserAnswer, UsersAnswer, texts};
use events::UserId;
use platform::error::ApiError;

use crate::{Options, view};

/// All users, in the order of creation.
#[utoipa::path(
    get,
    path = "/users",
    tag = "users",
    params(("Hansard-Position" = Option<String>, Header, description = "wait until the read models have reached this position")),
    responses(
        (status = 200, description = "all users", body = UsersAnswer),
        (status = 400, description = "a wrong header", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "a token is missing or bad (auth=token)", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "the read models are unavailable or behind the position", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("token" = []))
)]
pub(crate) async fn list(
    State(options): State<Arc<Options>>,
    headers: HeaderMap,
) -> Result<Json<UsersAnswer>, ApiError> {
    let claims = options.token_if_needed(&headers)?;
    options.reach(&headers).await?;
    options.anyone(claims.as_ref()).await?;
    let users = options.read_models.users().await?;
    Ok(Json(UsersAnswer::new(
        users.into_iter().map(view::user).collect(),
    )))
}

/// One user.
#[utoipa::path(
    get,
    path = "/users/{id}",
    tag = "users",
    params(
        ("id" = String, Path, description = "the user's id"),
        ("Hansard-Position" = Option<String>, Header, description = "wait until the read models have reached this position"),
    ),
    responses(
        (status = 200, description = "the user", body = UserAnswer),
        (status = 400, description = "a wrong header", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "a token is missing or bad (auth=token)", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such user", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "the read models are unavailable or behind the position", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("token" = []))
)]
pub(crate) async fn get(
    State(options): State<Arc<Options>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<UserAnswer>, ApiError> {
    let claims = options.token_if_needed(&headers)?;
    options.reach(&headers).await?;
    options.anyone(claims.as_ref()).await?;
    let unknown = || ApiError::not_found(texts::UNKNOWN_USER);
    let id: UserId = id.parse().map_err(|_| unknown())?;
    let users = options.read_models.users_by_id(&[id]).await?;
    let user = users.into_iter().find(|user| !user.deleted);
    let user = user.ok_or_else(unknown)?;
    Ok(Json(UserAnswer::new(view::user(user))))
}
