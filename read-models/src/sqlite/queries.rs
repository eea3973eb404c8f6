//! The queries. Each statement is answered from an index, without sorting: see [`STATEMENTS`].

use event_log::Incarnation;
use events::{MessageId, Position, RoomId, Timestamp, UserId};
use rusqlite::types::{FromSqlError, Type};
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use crate::receipts::{self, Mark};
use crate::rows::{lag, position, sequence};
use crate::{
    COUNT_CAP, Checkpoint, DeadLetter, MessageRow, Page, PageStart, RecentRow, RoomDeletion,
    RoomRow, UserRow,
};

const USERS: &str = "SELECT id, first_name, last_name, type, created_at, updated_at, deleted
     FROM users WHERE deleted = 0 ORDER BY position";

const USER: &str = "SELECT id, first_name, last_name, type, created_at, updated_at, deleted
     FROM users WHERE id = ?1";

const ROOM: &str = "SELECT position, type FROM rooms WHERE id = ?1 AND deleted_at IS NULL";

pub(super) const ROOM_BY_ROW: &str = "SELECT id, type FROM rooms WHERE position = ?1";

const MEMBERS: &str = "SELECT user FROM room_members WHERE room = ?1 ORDER BY user";

const RECENT_OLDER: &str = "SELECT room, last_message FROM room_members
     WHERE user = ?1 AND last_message < ?2 ORDER BY last_message DESC LIMIT ?3 OFFSET ?4";

const RECENT_NEWER: &str = "SELECT room, last_message FROM room_members
     WHERE user = ?1 AND last_message > ?2 ORDER BY last_message LIMIT ?3 OFFSET ?4";

pub(super) const MESSAGE: &str =
    "SELECT id, author, text, created_at FROM messages WHERE id = ?1 AND deleted_at IS NULL";

const MESSAGES_OLDER: &str = "SELECT id, author, text, created_at FROM messages
     WHERE room = ?1 AND id < ?2 AND deleted_at IS NULL ORDER BY id DESC LIMIT ?3 OFFSET ?4";

const MESSAGES_NEWER: &str = "SELECT id, author, text, created_at FROM messages
     WHERE room = ?1 AND id > ?2 AND deleted_at IS NULL ORDER BY id LIMIT ?3 OFFSET ?4";

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
    Ok(find_room(snapshot, id)?.map(|(_, room)| room))
}

/// The room and the number under which the other tables have it, unless unknown or deleted.
pub(super) fn find_room(
    snapshot: &Connection,
    id: RoomId,
) -> rusqlite::Result<Option<(i64, RoomRow)>> {
    let found = snapshot
        .prepare_cached(ROOM)?
        .query_row(params![id.as_uuid().as_bytes()], |row| {
            Ok((row.get(0)?, parsed(row, 1)?))
        })
        .optional()?;
    let Some((row, room_type)) = found else {
        return Ok(None);
    };
    let room = RoomRow {
        id,
        room_type,
        members: members(snapshot, row)?,
    };
    Ok(Some((row, room)))
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
    let (id, room_type) = snapshot
        .prepare_cached(ROOM_BY_ROW)?
        .query_row(params![row], |row| Ok((room_id(row, 0)?, parsed(row, 1)?)))?;
    let room = RoomRow {
        id,
        room_type,
        members: members(snapshot, row)?,
    };
    let mut messages = [snapshot
        .prepare_cached(MESSAGE)?
        .query_row(params![message], |row| message_row(row, id))?];
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
) -> rusqlite::Result<Vec<MessageRow>> {
    let Some((row, room)) = find_room(snapshot, room)? else {
        return Ok(Vec::new());
    };
    let part = Part::of(page);
    let sql = if part.newer {
        MESSAGES_NEWER
    } else {
        MESSAGES_OLDER
    };
    let mut messages: Vec<MessageRow> = snapshot
        .prepare_cached(sql)?
        .query_map(params![row, part.bound, part.limit, part.offset], |row| {
            message_row(row, room.id)
        })?
        .collect::<rusqlite::Result<_>>()?;
    if !part.newer {
        messages.reverse();
    }
    fill_receipts(snapshot, row, &room.members, &mut messages)?;
    Ok(messages)
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

pub(super) fn message_row(row: &Row<'_>, room: RoomId) -> rusqlite::Result<MessageRow> {
    Ok(MessageRow {
        id: MessageId::at(position(row.get(0)?)),
        room,
        author: user_id(row, 1)?,
        text: row.get(2)?,
        created_at: timestamp(row, 3)?,
        read_by: Vec::new(),
    })
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
