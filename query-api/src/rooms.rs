//! The caller's conversations, and what was said in one of them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use contract::{ConversationAnswer, HistoryAnswer, Problem, RecentAnswer, texts};
use events::MessageId;
use platform::error::ApiError;

use crate::Options;
use crate::page::RequestedPage;
use crate::view::Profiles;

/// The caller's conversations: one item for each room that has a message, with its newest message.
///
/// The newest comes first. `before` and `after` compare with the rooms' newest messages.
#[utoipa::path(
    get,
    path = "/room",
    tag = "rooms",
    params(
        ("page" = Option<String>, Query, description = "how many pages to skip; 0 when absent or no number. Deep pages cost more than cursors"),
        ("limit" = Option<String>, Query, description = "items in a page, at most 100; 10 when absent, 0 or no number"),
        ("before" = Option<String>, Query, description = "a message id: the newest items older than it"),
        ("after" = Option<String>, Query, description = "a message id: the oldest items newer than it"),
        ("Hansard-Position" = Option<String>, Header, description = "wait until the read models have reached this position"),
    ),
    responses(
        (status = 200, description = "the conversations", body = RecentAnswer),
        (status = 400, description = "wrong parameters", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "a token is missing or bad", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "the read models are unavailable or behind the position", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = []))
)]
pub(crate) async fn recent(
    State(options): State<Arc<Options>>,
    headers: HeaderMap,
    RequestedPage(page): RequestedPage,
) -> Result<Json<RecentAnswer>, ApiError> {
    options.reach(&headers).await?;
    let caller = options.member(&headers).await?;
    let rows = options.read_models.recent(caller, page).await?;
    let mut ids = Vec::new();
    for row in &rows {
        ids.push(row.message.author);
        ids.extend(&row.room.members);
        ids.extend(row.message.read_by.iter().map(|receipt| receipt.reader));
    }
    let profiles = Profiles::load(options.read_models.as_ref(), ids).await?;
    Ok(Json(RecentAnswer::new(
        rows.into_iter()
            .map(|row| profiles.conversation(row))
            .collect(),
    )))
}

/// What was said in a room.
///
/// Pages run from the newest; each is returned oldest first. A message that has been deleted stays in its place,
/// with `deleted: true` and without its text. One that has been edited says what it says now; `history` has
/// the rest.
#[utoipa::path(
    get,
    path = "/room/{roomId}",
    tag = "rooms",
    params(
        ("roomId" = String, Path, description = "the room's id"),
        ("page" = Option<String>, Query, description = "how many pages to skip; 0 when absent or no number. Deep pages cost more than cursors"),
        ("limit" = Option<String>, Query, description = "items in a page, at most 100; 10 when absent, 0 or no number"),
        ("before" = Option<String>, Query, description = "a message id: the newest items older than it"),
        ("after" = Option<String>, Query, description = "a message id: the oldest items newer than it"),
        ("Hansard-Position" = Option<String>, Header, description = "wait until the read models have reached this position"),
    ),
    responses(
        (status = 200, description = "the messages", body = ConversationAnswer),
        (status = 400, description = "wrong parameters", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "a token is missing or bad", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "only members may", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such room", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "the read models are unavailable or behind the position", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = []))
)]
pub(crate) async fn conversation(
    State(options): State<Arc<Options>>,
    Path(room): Path<String>,
    headers: HeaderMap,
    RequestedPage(page): RequestedPage,
) -> Result<Json<ConversationAnswer>, ApiError> {
    options.reach(&headers).await?;
    let caller = options.member(&headers).await?;
    let room = options.room_of_member(&room, caller).await?;
    let rows = options.read_models.conversation(room.id, page).await?;
    let mut ids = room.members.clone();
    ids.extend(rows.iter().map(|row| row.author));
    let profiles = Profiles::load(options.read_models.as_ref(), ids).await?;
    let messages = rows.into_iter().map(|row| profiles.message(row)).collect();
    Ok(Json(ConversationAnswer::new(
        messages,
        profiles.members(&room.members),
    )))
}

/// All that a message has ever said: each version with its time, oldest first.
///
/// Where the texts are gone, because the message was deleted, they have expired, or their author was erased,
/// that is said instead, with when and by whom as far as it is known.
#[utoipa::path(
    get,
    path = "/room/{roomId}/message/{messageId}/history",
    tag = "rooms",
    params(
        ("roomId" = String, Path, description = "the room's id"),
        ("messageId" = String, Path, description = "the message's id"),
        ("Hansard-Position" = Option<String>, Header, description = "wait until the read models have reached this position"),
    ),
    responses(
        (status = 200, description = "the message's versions", body = HistoryAnswer),
        (status = 400, description = "a wrong header", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "a token is missing or bad", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "only members may", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such room, or no such message in it", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "the read models are unavailable or behind the position", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = []))
)]
pub(crate) async fn history(
    State(options): State<Arc<Options>>,
    Path((room, message)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Json<HistoryAnswer>, ApiError> {
    options.reach(&headers).await?;
    let caller = options.member(&headers).await?;
    let room = options.room_of_member(&room, caller).await?;
    let unknown = || ApiError::not_found(texts::UNKNOWN_MESSAGE);
    let id: MessageId = message.parse().map_err(|_| unknown())?;
    let found = options.read_models.history(room.id, id).await?;
    let row = found.ok_or_else(unknown)?;
    let profiles = Profiles::load(options.read_models.as_ref(), vec![row.author]).await?;
    Ok(Json(HistoryAnswer::new(profiles.history(room.id, id, row))))
}
