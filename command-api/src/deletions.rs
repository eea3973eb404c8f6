//! Deleting rooms and messages.

use std::sync::Arc;

use axum::extract::{Path, State};
use contract::{DeleteMessageAnswer, DeleteRoomAnswer, Problem};
use events::{Command, MessageId, RoomId};
use platform::error::ApiError;

use crate::Options;
use crate::caller::{Anyone, Handling};
use crate::execute::Outcome;
use crate::reply::Reply;

/// Delete a room and its messages.
///
/// Its members can initiate a new one afterwards, which starts empty.
#[utoipa::path(
    delete,
    path = "/delete/room/{roomId}",
    tag = "deletions",
    params(
        ("roomId" = String, Path, description = "the room's id"),
        ("Idempotency-Key" = Option<String>, Header, pattern = "^[!-~]{1,255}$", description = "repeating the request with the same key has no further effect"),
        ("Prefer" = Option<String>, Header, description = "`respond-async`: answer without waiting for the read models; the count of messages is then 0"),
    ),
    responses(
        (status = 200, description = "how many rooms and messages were deleted", body = DeleteRoomAnswer, headers(("Hansard-Position" = String, description = "where the event stands in the log"))),
        (status = 400, description = "a wrong header", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "a token is missing or bad (auth=token)", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "only members and support may (auth=token)", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "the room is under legal hold", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "the idempotency key was used for another request", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "the log is unavailable", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("token" = []))
)]
pub(crate) async fn delete_room(
    State(options): State<Arc<Options>>,
    Anyone(caller): Anyone,
    Path(room): Path<String>,
    handling: Handling,
) -> Result<Reply<DeleteRoomAnswer>, ApiError> {
    let mut rooms = 0;
    let mut messages = 0;
    let mut position = None;
    // What is no id names no room.
    if let Ok(room) = room.parse::<RoomId>() {
        let command = Command::DeleteRoom { room };
        let outcome = options.execute(caller, &handling, &command).await?;
        position = outcome.position();
        if let Outcome::Done(done) = outcome {
            rooms = 1;
            if done.projected {
                // The deletion stands whatever the count's look-up says.
                let deletion = options.read_models.room_deletion(room).await;
                messages = deletion.ok().flatten().map_or(0, |it| it.messages);
            }
        }
    }
    Ok(Reply {
        position,
        respond_async: handling.respond_async,
        body: DeleteRoomAnswer::new("Operation performed succesfully", rooms, messages),
    })
}

/// Delete a message.
#[utoipa::path(
    delete,
    path = "/delete/message/{messageId}",
    tag = "deletions",
    params(
        ("messageId" = String, Path, description = "the message's id"),
        ("Idempotency-Key" = Option<String>, Header, pattern = "^[!-~]{1,255}$", description = "repeating the request with the same key has no further effect"),
        ("Prefer" = Option<String>, Header, description = "`respond-async`: answer without waiting for the read models"),
    ),
    responses(
        (status = 200, description = "how many messages were deleted: 0 or 1", body = DeleteMessageAnswer, headers(("Hansard-Position" = String, description = "where the event stands in the log"))),
        (status = 400, description = "a wrong header", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "a token is missing or bad (auth=token)", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "only the author and support may (auth=token)", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "the idempotency key was used for another request", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "the log is unavailable", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("token" = []))
)]
pub(crate) async fn delete_message(
    State(options): State<Arc<Options>>,
    Anyone(caller): Anyone,
    Path(message): Path<String>,
    handling: Handling,
) -> Result<Reply<DeleteMessageAnswer>, ApiError> {
    let mut count = 0;
    let mut position = None;
    // What is no id names no message.
    if let Ok(message) = message.parse::<MessageId>() {
        let command = Command::DeleteMessage { message };
        let outcome = options.execute(caller, &handling, &command).await?;
        position = outcome.position();
        if let Outcome::Done(done) = outcome {
            // The message exists and was asked to go: 1, unless the read models say that an earlier event
            // had deleted it.
            let deleted = if done.projected {
                let lookup = options.read_models.deleted_by(message, done.position);
                lookup.await.unwrap_or(true)
            } else {
                true
            };
            count = u64::from(deleted);
        }
    }
    Ok(Reply {
        position,
        respond_async: handling.respond_async,
        body: DeleteMessageAnswer::new(count),
    })
}
