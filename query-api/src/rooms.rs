//! The caller's conversations, and what was said in one of them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use contract::{ConversationAnswer, HistoryAnswer, Problem, RecentAnswer, texts};
use events::{MessageId, UserId};
use platform::error::ApiError;
use read_models::{ConversationRow, MessageRow, RecentRow, RoomRow};

use crate::Options;
use crate::caller::{no_such_user, not_shown};
use crate::page::Requested;
use crate::past::moment;
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
        ("asOf" = Option<String>, Query, description = "a time or a position: the answer as it would have been then. A time, RFC 3339, means the last event stored by then; a position, 16 hex digits or a decimal number, that it is the last event"),
        ("user" = Option<String>, Query, description = "a user's id, only with `asOf`: the conversations as that user had them. For auditors and admins; it is recorded"),
        ("Hansard-Position" = Option<String>, Header, description = "wait until the read models have reached this position"),
    ),
    responses(
        (status = 200, description = "the conversations", body = RecentAnswer),
        (status = 400, description = "wrong parameters", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "a token is missing or bad", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "only auditors and admins may, as another user", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "there was no such user", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "the read models are unavailable or behind the position; with `asOf`, the log as well", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = []))
)]
pub(crate) async fn recent(
    State(options): State<Arc<Options>>,
    headers: HeaderMap,
    requested: Result<Requested, ApiError>,
) -> Result<Json<RecentAnswer>, ApiError> {
    let claims = options.auth.bearer(&headers)?;
    let requested = requested?;
    options.reach(&headers).await?;
    let page = requested.page;
    let (rows, profiles, as_of) = match requested.as_of {
        None => {
            let read_models = options.read_models.as_ref();
            let rows = read_models.recent(claims.user, page).await?;
            let shown = shown_with(&rows).chain([claims.user]).collect();
            let profiles = Profiles::load(read_models, shown).await?;
            profiles.present(claims.user).ok_or_else(no_such_user)?;
            (rows, profiles, None)
        }
        Some(bound) => {
            let caller = options.somebody(&claims).await?;
            let then = options.then(bound).await?;
            let viewer = options.viewer(&then, requested.user, &caller, &headers);
            let viewer = viewer.await?;
            let rows = then.recent(viewer, page).await?;
            let profiles = Profiles::of_then(&then, shown_with(&rows).collect()).await?;
            (rows, profiles, Some(moment(&then)))
        }
    };
    Ok(Json(RecentAnswer::new(
        rows.into_iter()
            .map(|row| profiles.conversation(row))
            .collect(),
        as_of,
    )))
}

/// The users whom the conversations show.
fn shown_with(rows: &[RecentRow]) -> impl Iterator<Item = UserId> {
    rows.iter().flat_map(|row| {
        let readers = row.message.read_by.iter().map(|receipt| receipt.reader);
        let members = row.room.members.iter().copied();
        members.chain(readers).chain([row.message.author])
    })
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
        ("asOf" = Option<String>, Query, description = "a time or a position: the answer as it would have been then, for members of then. Auditors and admins may as well; that is recorded. A time, RFC 3339, means the last event stored by then; a position, 16 hex digits or a decimal number, that it is the last event"),
        ("Hansard-Position" = Option<String>, Header, description = "wait until the read models have reached this position"),
    ),
    responses(
        (status = 200, description = "the messages", body = ConversationAnswer),
        (status = 400, description = "wrong parameters", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "a token is missing or bad", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "only members may", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such room", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "the read models are unavailable or behind the position; with `asOf`, the log as well", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = []))
)]
pub(crate) async fn conversation(
    State(options): State<Arc<Options>>,
    Path(room): Path<String>,
    headers: HeaderMap,
    requested: Result<Requested, ApiError>,
) -> Result<Json<ConversationAnswer>, ApiError> {
    let claims = options.auth.bearer(&headers)?;
    let requested = requested?;
    options.reach(&headers).await?;
    let page = requested.page;
    let (room, rows, profiles, as_of) = match requested.as_of {
        None => {
            let read_models = options.read_models.as_ref();
            let found = match room.parse() {
                Ok(id) => read_models.conversation(id, page).await?,
                Err(_) => None,
            };
            let ConversationRow { room, messages } = match found {
                Some(found) if found.room.members.contains(&claims.user) => found,
                other => {
                    // Who is nobody is told that, and nothing of rooms.
                    options.member(&claims).await?;
                    return Err(not_shown(other.map(|it| it.room).as_ref()));
                }
            };
            // The caller is among them.
            let profiles = Profiles::load(read_models, taking_part(&room, &messages)).await?;
            profiles.present(claims.user).ok_or_else(no_such_user)?;
            (room, messages, profiles, None)
        }
        Some(bound) => {
            let caller = options.somebody(&claims).await?;
            let then = options.then(bound).await?;
            let past = options.past_room(&then, &room, &caller, &headers).await?;
            let (room, rows) = (past.row().clone(), past.conversation(page).await?);
            let profiles = Profiles::of_then(&then, taking_part(&room, &rows)).await?;
            (room, rows, profiles, Some(moment(&then)))
        }
    };
    let messages = rows.into_iter().map(|row| profiles.message(row)).collect();
    Ok(Json(ConversationAnswer::new(
        messages,
        profiles.members(&room.members),
        as_of,
    )))
}

/// The users whom a conversation shows.
fn taking_part(room: &RoomRow, rows: &[MessageRow]) -> Vec<UserId> {
    let authors = rows.iter().map(|row| row.author);
    room.members.iter().copied().chain(authors).collect()
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
    let claims = options.auth.bearer(&headers)?;
    options.reach(&headers).await?;
    let caller = options.member(&claims).await?;
    let room = options.room_of_member(&room, caller).await?;
    let unknown = || ApiError::not_found(texts::UNKNOWN_MESSAGE);
    let id: MessageId = message.parse().map_err(|_| unknown())?;
    let found = options.read_models.history(room.id, id).await?;
    let row = found.ok_or_else(unknown)?;
    let profiles = Profiles::load(options.read_models.as_ref(), vec![row.author]).await?;
    Ok(Json(HistoryAnswer::new(profiles.history(room.id, id, row))))
}
