//! The queries. Each statement is answered from an index, without sorting: see [`STATEMENTS`].

use event_log::Incarnation;
use events::{MessageId, Position, RoomId, RoomType, Timestamp, UserId};
use rusqlite::types::{FromSqlError, Type};
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use crate::receipts::{self, Mark};
use crate::rows::{lag, position, sequence};
use crate::{
    COUNT_CAP, Checkpoint, ConversationRow, DeadLetter, Gone, HistoryRow, Left, MessageRow, Page,
    PageStart, RecentRow, RoomDeletion, RoomRow, UserRow, VersionRow,
};

const USERS: &str = "SELECT id, first_name, last_name, type, created_at, updated_at, deleted
     FROM users WHERE deleted = 0 ORDER BY position";

const USER: &str = "SELECT id, first_name, last_name, type, created_at, updated_at, deleted
     FROM users WHERE id = ?1";

const ROOM: &str = "SELECT position, type, expired FROM rooms WHERE id = ?1 AND deleted_at IS NULL";

pub(super) const ROOM_BY_ROW: &str = "SELECT id, type, expired FROM rooms WHERE position = ?1";

const MEMBERS: &str = "SELECT user FROM room_members WHERE room = ?1 ORDER BY user";

const RECENT_OLDER: &str = "SELECT room, last_message FROM room_members
     WHERE user = ?1 AND last_message < ?2 ORDER BY last_message DESC LIMIT ?3 OFFSET ?4";

const RECENT_NEWER: &str = "SELECT room, last_message FROM room_members
     WHERE user = ?1 AND last_message > ?2 ORDER BY last_message LIMIT ?3 OFFSET ?4";

/// With its newest text.
const MESSAGE: &str = "SELECT message.id, message.author,
     CASE WHEN edit IS NULL THEN message.text ELSE edits.text END, created_at, edits.at, deleted_at
     FROM messages AS message LEFT JOIN edits ON edits.position = message.edit WHERE message.id = ?1";

/// Those that are deleted and those that are not lie apart; each part is in order, so they are merged.
const MESSAGES_OLDER: &str =
    "SELECT id FROM messages WHERE room = ?1 AND id < ?2 AND deleted_at IS NULL
     UNION ALL SELECT id FROM messages WHERE room = ?1 AND id < ?2 AND deleted_at IS NOT NULL
     ORDER BY id DESC LIMIT ?3 OFFSET ?4";

const MESSAGES_NEWER: &str =
    "SELECT id FROM messages WHERE room = ?1 AND id > ?2 AND deleted_at IS NULL
     UNION ALL SELECT id FROM messages WHERE room = ?1 AND id > ?2 AND deleted_at IS NOT NULL
     ORDER BY id LIMIT ?3 OFFSET ?4";

const POSTED: &str = "SELECT author, text, created_at, deleted_at, deleted_on, deleted_by
     FROM messages WHERE id = ?1 AND room = ?2";

const EDITS: &str =
    "SELECT position, text, at FROM edits WHERE room = ?1 AND message = ?2 ORDER BY position";

const ERASURE: &str = "SELECT at, erased_by FROM erasures WHERE user = ?1";

const ROOMS_OF_TYPE: &str = "SELECT id, position, coalesce(expired, 0) FROM rooms
     WHERE type = ?1 AND id > ?2 AND deleted_at IS NULL ORDER BY id";

const EXPIRED: &str =
    "SELECT position, coalesce(expired, 0) FROM rooms WHERE id = ?1 AND deleted_at IS NULL";

/// Goes through what is older, which is what will expire, and no further.
const IN_ORDER: &str =
    "SELECT id, created_at FROM messages WHERE room = ?1 AND id > ?2 AND deleted_at IS NULL
     UNION ALL
     SELECT id, created_at FROM messages WHERE room = ?1 AND id > ?2 AND deleted_at IS NOT NULL
     ORDER BY id";

const MARKS_BETWEEN: &str = "SELECT position, reader, up_to, at FROM marks
     WHERE room = ?1 AND reader = ?2 AND up_to >= ?3 AND up_to < ?4";

const MARK_REACHING: &str = "SELECT position, reader, up_to, at FROM marks
     WHERE room = ?1 AND reader = ?2 AND up_to >= ?3 ORDER BY up_to LIMIT 1";

const READ_UP_TO: &str = "SELECT max(up_to) FROM marks WHERE room = ?1 AND reader = ?2";

const MARK: &str = "SELECT room, reader, from_message, up_to FROM marks WHERE position = ?1";

/// Goes author by author, so that what the reader wrote is never walked over, however much that is.
const COUNT_BY_OTHERS: &str = "SELECT count(*) FROM (
         SELECT 1 FROM room_members AS member
         CROSS JOIN messages AS message INDEXED BY messages_live_by_author
         ON message.room = member.room AND message.author = member.user
         WHERE member.room = ?1 AND member.user <> ?2
         AND message.id > ?3 AND message.id <= ?4 AND message.deleted_at IS NULL
         LIMIT ?5)";

const DELETED_BY: &str = "SELECT 1 FROM messages WHERE id = ?1 AND deleted_at = ?2";

const ROOM_DELETION: &str =
    "SELECT deleted_messages FROM rooms WHERE id = ?1 AND deleted_at IS NOT NULL";

const KEY: &str = "SELECT position FROM keys WHERE deduplication_id = ?1";

const DEAD_LETTERS: &str = "SELECT position, subject, payload, reason FROM dead_letters
     WHERE position > ?1 ORDER BY position LIMIT ?2";

/// Every statement whose cost must not grow with the history.
#[cfg(feature = "testing")]
const STATEMENTS: &[&str] = &[
    USERS,
    USER,
    ROOM,
    ROOM_BY_ROW,
    MEMBERS,
    RECENT_OLDER,
    RECENT_NEWER,
    MESSAGE,
    MESSAGES_OLDER,
    MESSAGES_NEWER,
    POSTED,
    EDITS,
    ERASURE,
    ROOMS_OF_TYPE,
    EXPIRED,
    IN_ORDER,
    MARKS_BETWEEN,
    MARK_REACHING,
    READ_UP_TO,
    MARK,
    COUNT_BY_OTHERS,
    DELETED_BY,
    ROOM_DELETION,
    KEY,
    DEAD_LETTERS,
    super::search::ROOMS,
    super::search::FOUND,
];

/// How SQLite goes about each of [`STATEMENTS`].
#[cfg(feature = "testing")]
pub(super) fn plans(snapshot: &Connection) -> rusqlite::Result<Vec<(String, Vec<String>)>> {
    let plan = |sql: &&str| {
        let mut explain = snapshot.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
        // The values do not matter: SQLite plans for any.
        let values = vec![0; explain.parameter_count()];
        let steps = explain
            .query_map(rusqlite::params_from_iter(values), |row| row.get("detail"))?
            .collect::<rusqlite::Result<_>>()?;
        Ok(((*sql).to_owned(), steps))
    };
    STATEMENTS.iter().map(plan).collect()
}

pub(super) fn checkpoint(snapshot: &Connection) -> rusqlite::Result<Option<Checkpoint>> {
    snapshot
        .prepare_cached("SELECT position, incarnation, heartbeat, lag_millis FROM checkpoint")?
        .query_row([], |row| {
            Ok(Checkpoint {
                position: position(row.get(0)?),
                incarnation: Incarnation(row.get(1)?),
                heartbeat: count(row, 2)?,
                lag: lag(row.get(3)?),
            })
        })
        .optional()
}

pub(super) fn dead_letters(
    snapshot: &Connection,
    after: Position,
    limit: u32,
) -> rusqlite::Result<Vec<DeadLetter>> {
    snapshot
        .prepare_cached(DEAD_LETTERS)?
        .query_map(params![sequence(after), limit], |row| {
            Ok(DeadLetter {
                position: position(row.get(0)?),
                subject: row.get(1)?,
                payload: row.get(2)?,
                reason: row.get(3)?,
            })
        })?
        .collect()
}

pub(super) fn dead_letter_count(snapshot: &Connection) -> rusqlite::Result<u64> {
    snapshot
        .prepare_cached("SELECT count(*) FROM dead_letters")?
        .query_row([], |row| count(row, 0))
}

pub(super) fn users(snapshot: &Connection) -> rusqlite::Result<Vec<UserRow>> {
    snapshot
        .prepare_cached(USERS)?
        .query_map([], user_row)?
        .collect()
}

pub(super) fn users_by_id(snapshot: &Connection, ids: &[UserId]) -> rusqlite::Result<Vec<UserRow>> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    let mut statement = snapshot.prepare_cached(USER)?;
    let mut found = Vec::new();
    for id in ids {
        found.extend(
            statement
                .query_row(params![id.as_uuid().as_bytes()], user_row)
                .optional()?,
        );
    }
    Ok(found)
}

pub(super) fn room(snapshot: &Connection, id: RoomId) -> rusqlite::Result<Option<RoomRow>> {
    Ok(find_room(snapshot, id)?.map(|found| found.room))
}

/// A room that has not been deleted.
pub(super) struct Found {
    /// The number under which the other tables have it.
    pub(super) row: i64,
    pub(super) room: RoomRow,
    /// Up to which message its texts have expired.
    expired: Option<MessageId>,
}

/// The room, unless unknown or deleted.
pub(super) fn find_room(snapshot: &Connection, id: RoomId) -> rusqlite::Result<Option<Found>> {
    let found = snapshot
        .prepare_cached(ROOM)?
        .query_row(params![id.as_uuid().as_bytes()], |row| {
            Ok((row.get(0)?, parsed(row, 1)?, optional_message(row, 2)?))
        })
        .optional()?;
    let Some((row, room_type, expired)) = found else {
        return Ok(None);
    };
    let room = RoomRow {
        id,
        room_type,
        members: members(snapshot, row)?,
    };
    Ok(Some(Found { row, room, expired }))
}

pub(super) fn members(snapshot: &Connection, room: i64) -> rusqlite::Result<Vec<UserId>> {
    snapshot
        .prepare_cached(MEMBERS)?
        .query_map(params![room], |row| user_id(row, 0))?
        .collect()
}

pub(super) fn recent(
    snapshot: &Connection,
    user: UserId,
    page: Page,
) -> rusqlite::Result<Vec<RecentRow>> {
    let part = Part::of(page);
    let sql = if part.newer {
        RECENT_NEWER
    } else {
        RECENT_OLDER
    };
    let mut found: Vec<(i64, i64)> = snapshot
        .prepare_cached(sql)?
        .query_map(
            params![
                user.as_uuid().as_bytes(),
                part.bound,
                part.limit,
                part.offset
            ],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?
        .collect::<rusqlite::Result<_>>()?;
    if part.newer {
        found.reverse();
    }
    found
        .into_iter()
        .map(|(row, message)| recent_row(snapshot, user, row, message))
        .collect()
}

fn recent_row(
    snapshot: &Connection,
    user: UserId,
    row: i64,
    message: i64,
) -> rusqlite::Result<RecentRow> {
    let (id, room_type, expired) = snapshot
        .prepare_cached(ROOM_BY_ROW)?
        .query_row(params![row], |row| {
            Ok((room_id(row, 0)?, parsed(row, 1)?, optional_message(row, 2)?))
        })?;
    let room = RoomRow {
        id,
        room_type,
        members: members(snapshot, row)?,
    };
    let mut messages = [self::message(snapshot, message, id, expired)?];
    fill_receipts(snapshot, row, &room.members, &mut messages)?;
    let [message] = messages;
    Ok(RecentRow {
        room,
        message,
        unread: unread(snapshot, row, user)?,
    })
}

/// How many messages of the room `user` has not read, capped.
pub(super) fn unread(snapshot: &Connection, room: i64, user: UserId) -> rusqlite::Result<u64> {
    let read = read_up_to(snapshot, room, user)?;
    count_by_others(snapshot, room, user, read, i64::MAX)
}

pub(super) fn conversation(
    snapshot: &Connection,
    room: RoomId,
    page: Page,
) -> rusqlite::Result<Option<ConversationRow>> {
    let Some(Found { row, room, expired }) = find_room(snapshot, room)? else {
        return Ok(None);
    };
    let part = Part::of(page);
    let sql = if part.newer {
        MESSAGES_NEWER
    } else {
        MESSAGES_OLDER
    };
    let mut ids: Vec<i64> = snapshot
        .prepare_cached(sql)?
        .query_map(params![row, part.bound, part.limit, part.offset], |row| {
            row.get(0)
        })?
        .collect::<rusqlite::Result<_>>()?;
    if !part.newer {
        ids.reverse();
    }
    let mut messages = ids
        .into_iter()
        .map(|id| message(snapshot, id, room.id, expired))
        .collect::<rusqlite::Result<Vec<_>>>()?;
    fill_receipts(snapshot, row, &room.members, &mut messages)?;
    Ok(Some(ConversationRow { room, messages }))
}

pub(super) fn history(
    snapshot: &Connection,
    room: RoomId,
    message: MessageId,
) -> rusqlite::Result<Option<HistoryRow>> {
    let Some(Found { row, expired, .. }) = find_room(snapshot, room)? else {
        return Ok(None);
    };
    let id = sequence(message.position());
    let posted = snapshot
        .prepare_cached(POSTED)?
        .query_row(params![id, row], |row| {
            let first = VersionRow {
                position: message.position(),
                text: row.get(1)?,
                at: timestamp(row, 2)?,
            };
            let deleted_at: Option<i64> = row.get(3)?;
            let deleted = deleted_at.map(|_| gone(row, 4)).transpose()?;
            Ok((user_id(row, 0)?, first, deleted))
        })
        .optional()?;
    let Some((author, first, deleted)) = posted else {
        return Ok(None);
    };
    let created_at = first.at;
    let mut versions = vec![first];
    for edit in snapshot
        .prepare_cached(EDITS)?
        .query_map(params![row, id], |row| {
            Ok(VersionRow {
                position: position(row.get(0)?),
                text: row.get(1)?,
                at: timestamp(row, 2)?,
            })
        })?
    {
        versions.push(edit?);
    }
    let newest = versions.last().and_then(|newest| newest.text.as_ref());
    let left = Left::of(message, deleted.is_some(), newest.is_some(), expired);
    let gone = match left {
        Left::Deleted => deleted,
        Left::Erased => snapshot
            .prepare_cached(ERASURE)?
            .query_row(params![author.as_uuid().as_bytes()], |row| gone(row, 0))
            .optional()?,
        Left::Text | Left::Expired => None,
    };
    Ok(Some(HistoryRow {
        author,
        created_at,
        versions,
        left,
        gone,
    }))
}

pub(super) fn expirable(
    snapshot: &Connection,
    room_type: RoomType,
    before: Timestamp,
    after: Option<RoomId>,
    limit: u32,
) -> rusqlite::Result<Vec<(RoomId, MessageId)>> {
    // Before every id there is nothing at all, which is less than any.
    let after = after.map_or(Vec::new(), |after| after.as_uuid().as_bytes().to_vec());
    let mut statement = snapshot.prepare_cached(ROOMS_OF_TYPE)?;
    let mut rooms = statement.query(params![room_type.as_str(), after])?;
    let mut messages = snapshot.prepare_cached(IN_ORDER)?;
    let mut found = Vec::new();
    while found.len() < limit as usize
        && let Some(room) = rooms.next()?
    {
        let (id, row, expired) = (
            room_id(room, 0)?,
            room.get::<_, i64>(1)?,
            room.get::<_, i64>(2)?,
        );
        let mut last_older = None;
        let mut messages = messages.query(params![row, expired])?;
        while let Some(message) = messages.next()? {
            if timestamp(message, 1)? >= before {
                break;
            }
            last_older = optional_message(message, 0)?;
        }
        found.extend(last_older.map(|message| (id, message)));
    }
    Ok(found)
}

pub(super) fn oldest_unexpired(
    snapshot: &Connection,
    room: RoomId,
) -> rusqlite::Result<Option<Timestamp>> {
    let found = snapshot
        .prepare_cached(EXPIRED)?
        .query_row(params![room.as_uuid().as_bytes()], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        })
        .optional()?;
    let Some((row, expired)) = found else {
        return Ok(None);
    };
    let mut messages = snapshot.prepare_cached(IN_ORDER)?;
    let mut messages = messages.query(params![row, expired])?;
    let oldest = messages.next()?;
    oldest.map(|message| timestamp(message, 1)).transpose()
}

/// Who has read `messages` of the room: reads the marks among them and one more for each member, not all
/// that came after.
pub(super) fn fill_receipts(
    snapshot: &Connection,
    room: i64,
    members: &[UserId],
    messages: &mut [MessageRow],
) -> rusqlite::Result<()> {
    let Some((oldest, newest)) = receipts::range(messages) else {
        return Ok(());
    };
    let (oldest, newest) = (sequence(oldest.position()), sequence(newest.position()));
    let mut between = snapshot.prepare_cached(MARKS_BETWEEN)?;
    let mut reaching = snapshot.prepare_cached(MARK_REACHING)?;
    let mut marks: Vec<Mark> = Vec::new();
    for member in members {
        let reader = member.as_uuid().as_bytes();
        for among in between.query_map(params![room, reader, oldest, newest], mark)? {
            marks.push(among?);
        }
        marks.extend(
            reaching
                .query_row(params![room, reader, newest], mark)
                .optional()?,
        );
    }
    receipts::fill(messages, &marks);
    Ok(())
}

/// The newest message of the room that `reader` has read; 0 when none.
pub(super) fn read_up_to(
    snapshot: &Connection,
    room: i64,
    reader: UserId,
) -> rusqlite::Result<i64> {
    let up_to: Option<i64> = snapshot
        .prepare_cached(READ_UP_TO)?
        .query_row(params![room, reader.as_uuid().as_bytes()], |row| row.get(0))?;
    Ok(up_to.unwrap_or(0))
}

pub(super) fn newly_read(snapshot: &Connection, position: Position) -> rusqlite::Result<u64> {
    let found: Option<(i64, UserId, i64, i64)> = snapshot
        .prepare_cached(MARK)?
        .query_row(params![sequence(position)], |row| {
            Ok((row.get(0)?, user_id(row, 1)?, row.get(2)?, row.get(3)?))
        })
        .optional()?;
    match found {
        None => Ok(0),
        Some((room, reader, from, up_to)) => count_by_others(snapshot, room, reader, from, up_to),
    }
}

/// How many messages after `from` up to `up_to` are by others than `reader`, capped.
fn count_by_others(
    snapshot: &Connection,
    room: i64,
    reader: UserId,
    from: i64,
    up_to: i64,
) -> rusqlite::Result<u64> {
    snapshot.prepare_cached(COUNT_BY_OTHERS)?.query_row(
        params![
            room,
            reader.as_uuid().as_bytes(),
            from,
            up_to,
            COUNT_CAP.cast_signed()
        ],
        |row| count(row, 0),
    )
}

pub(super) fn deleted_by(
    snapshot: &Connection,
    message: MessageId,
    position: Position,
) -> rusqlite::Result<bool> {
    snapshot
        .prepare_cached(DELETED_BY)?
        .exists(params![sequence(message.position()), sequence(position)])
}

pub(super) fn room_deletion(
    snapshot: &Connection,
    room: RoomId,
) -> rusqlite::Result<Option<RoomDeletion>> {
    snapshot
        .prepare_cached(ROOM_DELETION)?
        .query_row(params![room.as_uuid().as_bytes()], |row| {
            Ok(RoomDeletion {
                messages: count(row, 0)?,
            })
        })
        .optional()
}

pub(super) fn position_of_key(
    snapshot: &Connection,
    deduplication_id: Uuid,
) -> rusqlite::Result<Option<Position>> {
    snapshot
        .prepare_cached(KEY)?
        .query_row(params![deduplication_id.as_bytes()], |row| {
            Ok(position(row.get(0)?))
        })
        .optional()
}

/// A [`Page`] as bounds and offsets.
struct Part {
    /// Whether it is the oldest after `bound` rather than the newest before it.
    newer: bool,
    bound: i64,
    limit: u32,
    offset: i64,
}

impl Part {
    fn of(page: Page) -> Self {
        let limit = page.items();
        let (newer, bound, offset) = match page.start {
            PageStart::Number(number) => {
                let offset = number.saturating_mul(u64::from(limit));
                (false, i64::MAX, i64::try_from(offset).unwrap_or(i64::MAX))
            }
            PageStart::Before(message) => (false, sequence(message.position()), 0),
            PageStart::After(message) => (true, sequence(message.position()), 0),
        };
        Self {
            newer,
            bound,
            limit,
            offset,
        }
    }
}

pub(super) fn user_row(row: &Row<'_>) -> rusqlite::Result<UserRow> {
    Ok(UserRow {
        id: user_id(row, 0)?,
        first_name: row.get(1)?,
        last_name: row.get(2)?,
        user_type: parsed(row, 3)?,
        created_at: timestamp(row, 4)?,
        updated_at: timestamp(row, 5)?,
        deleted: row.get(6)?,
    })
}

/// The message of this room, whose texts have expired up to a message, with nobody's receipts yet.
pub(super) fn message(
    snapshot: &Connection,
    message: i64,
    room: RoomId,
    expired: Option<MessageId>,
) -> rusqlite::Result<MessageRow> {
    snapshot
        .prepare_cached(MESSAGE)?
        .query_row(params![message], |row| {
            let id = MessageId::at(position(row.get(0)?));
            let text: Option<String> = row.get(2)?;
            let deleted_at: Option<i64> = row.get(5)?;
            Ok(MessageRow {
                id,
                room,
                author: user_id(row, 1)?,
                left: Left::of(id, deleted_at.is_some(), text.is_some(), expired),
                text: text.unwrap_or_default(),
                created_at: timestamp(row, 3)?,
                edited_at: optional_timestamp(row, 4)?,
                read_by: Vec::new(),
            })
        })
}

/// When, and by whom, if anybody.
pub(super) fn gone(row: &Row<'_>, column: usize) -> rusqlite::Result<Gone> {
    let by: Option<[u8; 16]> = row.get(column + 1)?;
    Ok(Gone {
        at: timestamp(row, column)?,
        by: by.map(|by| UserId::from_uuid(Uuid::from_bytes(by))),
    })
}

pub(super) fn optional_message(
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<Option<MessageId>> {
    let id: Option<i64> = row.get(column)?;
    Ok(id.map(|id| MessageId::at(position(id))))
}

pub(super) fn optional_timestamp(
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<Option<Timestamp>> {
    let found: Option<i64> = row.get(column)?;
    found.map(|_| timestamp(row, column)).transpose()
}

fn mark(row: &Row<'_>) -> rusqlite::Result<Mark> {
    Ok(Mark {
        position: position(row.get(0)?),
        reader: user_id(row, 1)?,
        up_to: MessageId::at(position(row.get(2)?)),
        at: timestamp(row, 3)?,
    })
}

fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get(column).map(i64::unsigned_abs)
}

pub(super) fn user_id(row: &Row<'_>, column: usize) -> rusqlite::Result<UserId> {
    Ok(UserId::from_uuid(Uuid::from_bytes(row.get(column)?)))
}

pub(super) fn room_id(row: &Row<'_>, column: usize) -> rusqlite::Result<RoomId> {
    Ok(RoomId::from_uuid(Uuid::from_bytes(row.get(column)?)))
}

pub(super) fn timestamp(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    let milliseconds = row.get(column)?;
    Timestamp::from_millis(milliseconds)
        .ok_or(FromSqlError::OutOfRange(milliseconds))
        .map_err(rusqlite::Error::from)
}

pub(super) fn parsed<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: String = row.get(column)?;
    text.parse().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use event_log::sqlite_file::prepared_anew;

    use super::*;
    use crate::sqlite::{open_reader, open_writer};

    #[test]
    fn a_statement_is_prepared_once_whatever_is_bound_to_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("read.db");
        let writer = open_writer(&path).unwrap();
        let reader = open_reader(&path).unwrap();
        for connection in [writer, reader] {
            for sql in STATEMENTS {
                let again = prepared_anew(&connection, sql).unwrap();
                assert_eq!(again, 0, "{sql}");
            }
        }
    }
}
