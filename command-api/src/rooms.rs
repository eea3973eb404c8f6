//! Initiating rooms, posting to them, and marking them as read.

use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::{Path, State};
use contract::{
    Edit, EditAnswer, FieldErrors, InitiateAnswer, InitiateBody, InitiatedRoom, MarkReadAnswer,
    MarkReadBody, MarkReadResult, Post, PostAnswer, PostMessageBody, Problem, texts,
};
use events::{Command, Event, Position, Refusal, RoomId, Subject, UserId};
use platform::body::Fields;
use platform::error::ApiError;
use read_models::HistoryRow;

use crate::Options;
use crate::caller::{Handling, Member};
use crate::execute::{Failure, Outcome, Unchanged, unexpected};
use crate::reply::Reply;

/// Initiate the room of the caller and other users, or find it.
///
/// A room is identified by its type and the set of its members: the same members get the same room,
/// whoever asks, in whatever order, however many ask at once.
#[utoipa::path(
    post,
    path = "/room/initiate",
    tag = "rooms",
    params(
        ("Idempotency-Key" = Option<String>, Header, pattern = "^[!-~]{1,255}$", description = "repeating the request with the same key has no further effect"),
        ("Prefer" = Option<String>, Header, description = "`respond-async`: answer without waiting for the read models"),
    ),
    request_body(content(
        (InitiateBody = "application/json"),
        (InitiateBody = "application/x-www-form-urlencoded"),
    )),
    responses(
        (status = 200, description = "the room", body = InitiateAnswer, headers(("Hansard-Position" = String, description = "where the event stands in the log; absent when the room was there"))),
        (status = 400, description = "wrong fields; `errors.userIds` names users that do not exist", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "a token is missing or bad", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "the body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "the body's content type is not known", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "the idempotency key was used for another request", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "the log is unavailable", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = []))
)]
pub(crate) async fn initiate(
    State(options): State<Arc<Options>>,
    Member(caller): Member,
    handling: Handling,
    fields: Fields,
) -> Result<Reply<InitiateAnswer>, ApiError> {
    let body = InitiateBody::read(&fields.0, &options.limits).map_err(ApiError::validation)?;
    let users: Vec<UserId> = body
        .user_ids
        .iter()
        .filter_map(|text| text.parse().ok())
        .collect();
    if users.len() < body.user_ids.len() {
        // Texts that are no ids name nobody; say so together with the ids that name nobody.
        let known: HashSet<UserId> = options
            .commands
            .directory
            .users(&users)
            .await?
            .into_iter()
            .filter(|user| !user.deleted)
            .map(|user| user.id)
            .collect();
        let unknown = body
            .user_ids
            .iter()
            .filter(|text| text.parse().map_or(true, |id: UserId| !known.contains(&id)));
        return Err(unknown_users(unknown.cloned()));
    }
    let room_type = body.room_type;
    let command = Command::InitiateRoom { users, room_type };
    let room = match options.execute(caller, &handling, &command).await {
        Ok(Outcome::Done(done)) => {
            let Event::RoomInitiated(event) = &done.envelope.event else {
                return Err(unexpected(&done.envelope.event));
            };
            InitiatedAt {
                position: Some(done.position),
                room: InitiatedRoom::new(true, event.room_id, event.room_type),
            }
        }
        Ok(Outcome::Nothing(Unchanged {
            subject: Some(Subject::RoomLifecycle(id)),
            position,
        })) => InitiatedAt {
            position,
            room: InitiatedRoom::new(false, id, room_type),
        },
        Ok(Outcome::Nothing(_)) => {
            return Err(Failure::impossible("initiating makes or finds a room"));
        }
        Err(Failure::Refused(Refusal::UnknownUsers(ids))) => {
            return Err(unknown_users(ids.iter().map(ToString::to_string)));
        }
        Err(failure) => return Err(failure.into()),
    };
    Ok(Reply {
        position: room.position,
        respond_async: handling.respond_async,
        body: InitiateAnswer::new(room.room),
    })
}

struct InitiatedAt {
    position: Option<Position>,
    room: InitiatedRoom,
}

fn unknown_users(ids: impl Iterator<Item = String>) -> ApiError {
    let ids: Vec<String> = ids.collect();
    ApiError::validation(FieldErrors::from([(
        "userIds",
        format!("No user exists for {}", ids.join(",")),
    )]))
}

/// Post a message to a room.
#[utoipa::path(
    post,
    path = "/room/{roomId}/message",
    tag = "rooms",
    params(
        ("roomId" = String, Path, description = "the room's id"),
        ("Idempotency-Key" = Option<String>, Header, pattern = "^[!-~]{1,255}$", description = "repeating the request with the same key has no further effect"),
        ("Prefer" = Option<String>, Header, description = "`respond-async`: answer without waiting for the read models"),
    ),
    request_body(content(
        (PostMessageBody = "application/json"),
        (PostMessageBody = "application/x-www-form-urlencoded"),
    )),
    responses(
        (status = 200, description = "the message as posted", body = PostAnswer, headers(("Hansard-Position" = String, description = "where the event stands in the log"))),
        (status = 400, description = "wrong fields", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "a token is missing or bad", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "only members may", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such room", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "the body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "the body's content type is not known", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "the idempotency key was used for another request", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "the log is unavailable", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = []))
)]
pub(crate) async fn post_message(
    State(options): State<Arc<Options>>,
    Member(caller): Member,
    Path(room): Path<String>,
    handling: Handling,
    fields: Fields,
) -> Result<Reply<PostAnswer>, ApiError> {
    let body = PostMessageBody::read(&fields.0, &options.limits).map_err(ApiError::validation)?;
    let command = Command::PostMessage {
        room: room_id(&room)?,
        text: body.message_text,
    };
    let done = match options.execute(caller, &handling, &command).await? {
        Outcome::Done(done) => done,
        Outcome::Nothing(_) => return Err(Failure::impossible("a post always leads to a message")),
    };
    let Event::MessagePosted(event) = &done.envelope.event else {
        return Err(unexpected(&done.envelope.event));
    };
    let room = options.commands.directory.room(event.room_id).await?;
    let room = room.ok_or_else(|| ApiError::not_found(texts::UNKNOWN_ROOM))?;
    let members = options.commands.directory.users(&room.members).await?;
    Ok(Reply {
        position: Some(done.position),
        respond_async: handling.respond_async,
        body: PostAnswer::new(Post::new(
            done.position,
            done.envelope.at,
            event,
            &room,
            &members,
        )),
    })
}

/// Give a message of one's own another text.
///
/// What it said before stays in its history.
#[utoipa::path(
    patch,
    path = "/room/{roomId}/message/{messageId}",
    tag = "rooms",
    params(
        ("roomId" = String, Path, description = "the room's id"),
        ("messageId" = String, Path, description = "the message's id"),
        ("Idempotency-Key" = Option<String>, Header, pattern = "^[!-~]{1,255}$", description = "repeating the request with the same key has no further effect"),
        ("Prefer" = Option<String>, Header, description = "`respond-async`: answer without waiting for the read models"),
    ),
    request_body(content(
        (PostMessageBody = "application/json"),
        (PostMessageBody = "application/x-www-form-urlencoded"),
    )),
    responses(
        (status = 200, description = "what the message says now", body = EditAnswer, headers(("Hansard-Position" = String, description = "where the event stands in the log"))),
        (status = 400, description = "wrong fields", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "a token is missing or bad", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "only the author may", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such room, or no such message in it; it may have been deleted", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "the body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "the body's content type is not known", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "the idempotency key was used for another request", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "the log is unavailable", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = []))
)]
pub(crate) async fn edit_message(
    State(options): State<Arc<Options>>,
    Member(caller): Member,
    Path((room, message)): Path<(String, String)>,
    handling: Handling,
    fields: Fields,
) -> Result<Reply<EditAnswer>, ApiError> {
    let unknown = || ApiError::not_found(texts::UNKNOWN_MESSAGE);
    let body = PostMessageBody::read(&fields.0, &options.limits).map_err(ApiError::validation)?;
    let command = Command::EditMessage {
        room: room_id(&room)?,
        message: message.parse().map_err(|_| unknown())?,
        text: body.message_text,
    };
    let done = match options.execute(caller, &handling, &command).await? {
        Outcome::Done(done) => done,
        Outcome::Nothing(_) => return Err(Failure::impossible("an edit always leads to an event")),
    };
    let Event::MessageEdited(event) = &done.envelope.event else {
        return Err(unexpected(&done.envelope.event));
    };
    // The log doesn't say whether the message was deleted, or has expired, before: then the event is void.
    if done.projected {
        let history = options.read_models.history(event.room_id, event.message_id);
        let is_void = |row: HistoryRow| row.versions.iter().all(|it| it.position != done.position);
        if history.await.is_ok_and(|row| row.is_none_or(is_void)) {
            return Err(unknown());
        }
    }
    let edit = Edit::new(done.envelope.at, event).ok_or_else(unknown)?;
    Ok(Reply {
        position: Some(done.position),
        respond_async: handling.respond_async,
        body: EditAnswer::new(edit),
    })
}

/// Mark a conversation as read.
///
/// Everything in it becomes read for the caller, or, with `upTo`, everything up to and with that message.
#[utoipa::path(
    put,
    path = "/room/{roomId}/mark-read",
    tag = "rooms",
    params(
        ("roomId" = String, Path, description = "the room's id"),
        ("Idempotency-Key" = Option<String>, Header, pattern = "^[!-~]{1,255}$", description = "repeating the request with the same key has no further effect"),
        ("Prefer" = Option<String>, Header, description = "`respond-async`: answer without waiting for the read models; the count is then 0"),
    ),
    request_body(content = Option<MarkReadBody>, description = "may be absent"),
    responses(
        (status = 200, description = "how many messages became read", body = MarkReadAnswer, headers(("Hansard-Position" = String, description = "where the event stands in the log"))),
        (status = 400, description = "`upTo` names no message of the room", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "a token is missing or bad", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "only members may", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such room", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "the body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "the body's content type is not known", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "the idempotency key was used for another request", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "the log is unavailable", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = []))
)]
pub(crate) async fn mark_read(
    State(options): State<Arc<Options>>,
    Member(caller): Member,
    Path(room): Path<String>,
    handling: Handling,
    fields: Fields,
) -> Result<Reply<MarkReadAnswer>, ApiError> {
    let room = room_id(&room)?;
    let body = MarkReadBody::read(&fields.0).map_err(ApiError::validation)?;
    let command = Command::MarkRead {
        room,
        up_to: body.up_to,
    };
    let done = match options.execute(caller, &handling, &command).await {
        Ok(Outcome::Done(done)) => done,
        Ok(Outcome::Nothing(_)) => {
            return Err(Failure::impossible("a reading always leads to an event"));
        }
        Err(Failure::Refused(Refusal::UnknownMessage(_))) => {
            return Err(ApiError::validation(MarkReadBody::unknown_message()));
        }
        Err(failure) => return Err(failure.into()),
    };
    let count = if done.projected {
        // The event stands whatever the count's look-up says: a failure here is no failure of the command.
        options
            .read_models
            .newly_read(done.position)
            .await
            .unwrap_or(0)
    } else {
        0
    };
    Ok(Reply {
        position: Some(done.position),
        respond_async: handling.respond_async,
        body: MarkReadAnswer::new(MarkReadResult::new(count)),
    })
}

/// The id that a path names; what is no id names no room.
pub(crate) fn room_id(text: &str) -> Result<RoomId, ApiError> {
    text.parse()
        .map_err(|_| ApiError::not_found(texts::UNKNOWN_ROOM))
}
