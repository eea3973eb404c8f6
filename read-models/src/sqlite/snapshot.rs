//! Everything in the tables as of one moment: one read transaction on a connection of its own.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use events::{MessageId, Position, RoomId, UserId};
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::queries::{self, gone, optional_message, parsed, room_id, timestamp, user_id, user_row};
use super::{blocking, failure, lock, open_reader};
use crate::rows::{position, sequence};
use crate::snapshot::{
    Snapshot, StoredDeletion, StoredEdit, StoredErasure, StoredKey, StoredMark, StoredMember,
    StoredMessage, StoredRoom, StoredText, StoredUser,
};
use crate::{Checkpoint, ReadModelError};

const USERS: &str =
    "SELECT id, first_name, last_name, type, created_at, updated_at, deleted, position
     FROM users WHERE id > ?1 ORDER BY id LIMIT ?2";

const ROOMS: &str = "SELECT id, type, position, deleted_at, deleted_messages, expired
     FROM rooms WHERE id > ?1 ORDER BY id LIMIT ?2";

/// Rooms by id, and the members of each in order.
const MEMBERS: &str = "SELECT room.id, member.user, member.last_message
     FROM rooms AS room CROSS JOIN room_members AS member ON member.room = room.position
     WHERE room.id >= ?1 AND (room.id > ?1 OR member.user > ?2)
     ORDER BY room.id, member.user LIMIT ?3";

const MESSAGES: &str = "SELECT message.id, room.id, message.author, message.text, created_at,
     message.deleted_at, deleted_on, deleted_by, message.edit, edits.text, edits.at
     FROM messages AS message LEFT JOIN rooms AS room ON room.position = message.room
     LEFT JOIN edits ON edits.position = message.edit
     WHERE message.id > ?1 ORDER BY message.id LIMIT ?2";

const EDITS: &str = "SELECT edit.position, room.id, message, text, at
     FROM edits AS edit LEFT JOIN rooms AS room ON room.position = edit.room
     WHERE edit.position > ?1 ORDER BY edit.position LIMIT ?2";

const ERASURES: &str = "SELECT user, position, at, erased_by
     FROM erasures WHERE user > ?1 ORDER BY user LIMIT ?2";

const MARKS: &str = "SELECT mark.position, room.id, reader, from_message, up_to, at
     FROM marks AS mark LEFT JOIN rooms AS room ON room.position = mark.room
     WHERE mark.position > ?1 ORDER BY mark.position LIMIT ?2";

const KEYS: &str = "SELECT deduplication_id, position
     FROM keys WHERE deduplication_id > ?1 ORDER BY deduplication_id LIMIT ?2";

const DEAD_LETTERS: &str =
    "SELECT position FROM dead_letters WHERE position > ?1 ORDER BY position LIMIT ?2";

const ROOM_ROW: &str = "SELECT position FROM rooms WHERE id = ?1";

pub(super) struct SqliteSnapshot {
    connection: Arc<Mutex<Connection>>,
    checkpoint: Option<Checkpoint>,
}

impl SqliteSnapshot {
    pub(super) async fn begin(path: PathBuf) -> Result<Self, ReadModelError> {
        blocking(move || {
            let connection = open_reader(&path).map_err(failure)?;
            // Ends with the connection. The first read fixes the moment.
            connection.execute_batch("BEGIN").map_err(failure)?;
            let checkpoint = queries::checkpoint(&connection).map_err(failure)?;
            Ok(Self {
                connection: Arc::new(Mutex::new(connection)),
                checkpoint,
            })
        })
        .await
    }

    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ReadModelError> {
        let connection = Arc::clone(&self.connection);
        blocking(move || query(&lock(&connection)).map_err(failure)).await
    }

    /// A page of what has an id.
    async fn by_id<T: Send + 'static>(
        &self,
        sql: &'static str,
        after: Option<Uuid>,
        limit: u32,
        row: impl FnMut(&Row<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<Vec<T>, ReadModelError> {
        self.read(move |snapshot| {
            snapshot
                .prepare_cached(sql)?
                .query_map(params![bytes(after.as_ref()), limit], row)?
                .collect()
        })
        .await
    }

    /// A page of what has a place in the log.
    async fn by_position<T: Send + 'static>(
        &self,
        sql: &'static str,
        after: Option<Position>,
        limit: u32,
        row: impl FnMut(&Row<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<Vec<T>, ReadModelError> {
        self.read(move |snapshot| {
            snapshot
                .prepare_cached(sql)?
                .query_map(params![after.map_or(i64::MIN, sequence), limit], row)?
                .collect()
        })
        .await
    }
}

/// Before every id there is nothing at all, which is less than any.
fn bytes(id: Option<&Uuid>) -> &[u8] {
    id.map_or(&[], |id| id.as_bytes().as_slice())
}

fn optional_position(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Position>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(position))
}

/// The room that a message or mark names by its row, if there is one.
fn joined_room(row: &Row<'_>, column: usize) -> rusqlite::Result<RoomId> {
    let id: Option<[u8; 16]> = row.get(column)?;
    Ok(RoomId::from_uuid(id.map_or(Uuid::nil(), Uuid::from_bytes)))
}

#[async_trait]
impl Snapshot for SqliteSnapshot {
    fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_ref()
    }

    fn needs_stillness(&self) -> bool {
        false
    }

    async fn finish(&mut self) -> Result<(), ReadModelError> {
        Ok(())
    }

    async fn users(
        &mut self,
        after: Option<UserId>,
        limit: u32,
    ) -> Result<Vec<StoredUser>, ReadModelError> {
        let after = after.map(|id| *id.as_uuid());
        self.by_id(USERS, after, limit, |row| {
            Ok(StoredUser {
                row: user_row(row)?,
                created: position(row.get(7)?),
            })
        })
        .await
    }

    async fn rooms(
        &mut self,
        after: Option<RoomId>,
        limit: u32,
    ) -> Result<Vec<StoredRoom>, ReadModelError> {
        let after = after.map(|id| *id.as_uuid());
        self.by_id(ROOMS, after, limit, |row| {
            Ok(StoredRoom {
                id: room_id(row, 0)?,
                room_type: parsed(row, 1)?,
                initiated: position(row.get(2)?),
                deleted: optional_position(row, 3)?,
                deleted_messages: row.get::<_, Option<i64>>(4)?.map(i64::unsigned_abs),
                expired: optional_message(row, 5)?,
            })
        })
        .await
    }

    async fn members(
        &mut self,
        after: Option<(RoomId, UserId)>,
        limit: u32,
    ) -> Result<Vec<StoredMember>, ReadModelError> {
        self.read(move |snapshot| {
            let (room, user) = after.unzip();
            let room = bytes(room.as_ref().map(RoomId::as_uuid));
            let user = bytes(user.as_ref().map(UserId::as_uuid));
            snapshot
                .prepare_cached(MEMBERS)?
                .query_map(params![room, user, limit], |row| {
                    Ok(StoredMember {
                        room: room_id(row, 0)?,
                        user: user_id(row, 1)?,
                        last_message: optional_message(row, 2)?,
                    })
                })?
                .collect()
        })
        .await
    }

    async fn messages(
        &mut self,
        after: Option<MessageId>,
        limit: u32,
    ) -> Result<Vec<StoredMessage>, ReadModelError> {
        let after = after.map(MessageId::position);
        self.by_position(MESSAGES, after, limit, |row| {
            let deletion = match optional_position(row, 5)? {
                None => None,
                Some(position) => Some(StoredDeletion {
                    position,
                    gone: gone(row, 6)?,
                }),
            };
            let edit = match optional_position(row, 8)? {
                None => None,
                Some(position) => Some(StoredText {
                    position,
                    text: row.get(9)?,
                    at: timestamp(row, 10)?,
                }),
            };
            Ok(StoredMessage {
                id: MessageId::at(position(row.get(0)?)),
                room: joined_room(row, 1)?,
                author: user_id(row, 2)?,
                text: row.get(3)?,
                created_at: timestamp(row, 4)?,
                edit,
                deleted: deletion.is_some(),
                deletion,
            })
        })
        .await
    }

    async fn edits(
        &mut self,
        after: Option<Position>,
        limit: u32,
    ) -> Result<Vec<StoredEdit>, ReadModelError> {
        self.by_position(EDITS, after, limit, |row| {
            Ok(StoredEdit {
                room: joined_room(row, 1)?,
                message: MessageId::at(position(row.get(2)?)),
                edit: StoredText {
                    position: position(row.get(0)?),
                    text: row.get(3)?,
                    at: timestamp(row, 4)?,
                },
            })
        })
        .await
    }

    async fn erasures(
        &mut self,
        after: Option<UserId>,
        limit: u32,
    ) -> Result<Vec<StoredErasure>, ReadModelError> {
        let after = after.map(|id| *id.as_uuid());
        self.by_id(ERASURES, after, limit, |row| {
            Ok(StoredErasure {
                user: user_id(row, 0)?,
                position: position(row.get(1)?),
                gone: gone(row, 2)?,
            })
        })
        .await
    }

    async fn marks(
        &mut self,
        after: Option<Position>,
        limit: u32,
    ) -> Result<Vec<StoredMark>, ReadModelError> {
        self.by_position(MARKS, after, limit, |row| {
            Ok(StoredMark {
                position: position(row.get(0)?),
                room: joined_room(row, 1)?,
                reader: user_id(row, 2)?,
                from: position(row.get(3)?),
                up_to: position(row.get(4)?),
                at: timestamp(row, 5)?,
            })
        })
        .await
    }

    async fn keys(
        &mut self,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<StoredKey>, ReadModelError> {
        self.by_id(KEYS, after, limit, |row| {
            Ok(StoredKey {
                id: Uuid::from_bytes(row.get(0)?),
                position: position(row.get(1)?),
            })
        })
        .await
    }

    async fn dead_letters(
        &mut self,
        after: Option<Position>,
        limit: u32,
    ) -> Result<Vec<Position>, ReadModelError> {
        self.by_position(DEAD_LETTERS, after, limit, |row| Ok(position(row.get(0)?)))
            .await
    }

    async fn unread(&mut self, room: RoomId, user: UserId) -> Result<u64, ReadModelError> {
        self.read(move |snapshot| {
            let row: Option<i64> = snapshot
                .prepare_cached(ROOM_ROW)?
                .query_row(params![room.as_uuid().as_bytes()], |row| row.get(0))
                .optional()?;
            row.map_or(Ok(0), |row| queries::unread(snapshot, row, user))
        })
        .await
    }
}
