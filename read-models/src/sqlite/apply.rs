//! Folding a batch of events into the tables, event by event in log order, in one transaction.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use events::{Event, MessageEdited, MessageId, Position, RoomId, UserId};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::{failure, lease, queries, search};
use crate::rows::{millis, normalised, sequence};
use crate::{Batch, DeadLetter, Entry, Fence, ReadModelError};

/// See [`crate::Projection::apply`].
pub(super) fn apply(connection: &mut Connection, batch: &Batch) -> Result<(), ReadModelError> {
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(failure)?;
    ensure_newest(&transaction, batch.fence)?;
    let checkpoint = queries::checkpoint(&transaction).map_err(failure)?;
    let after = match checkpoint {
        None => None,
        Some(checkpoint) if checkpoint.incarnation != batch.incarnation => {
            return Err(ReadModelError::Unusable(format!(
                "they were made from the log {:?} and the events come from the log {:?}: rebuild them, \
                 or use the log that they belong to",
                checkpoint.incarnation.0, batch.incarnation.0
            )));
        }
        Some(checkpoint) if checkpoint.position >= batch.up_to => return Ok(()),
        Some(checkpoint) => Some(checkpoint.position),
    };
    fold(&transaction, batch, after).map_err(failure)?;
    transaction.commit().map_err(failure)
}

fn fold(
    transaction: &Transaction<'_>,
    batch: &Batch,
    after: Option<Position>,
) -> rusqlite::Result<()> {
    let mut fold = Fold {
        transaction,
        rooms: HashMap::new(),
        touched: HashSet::new(),
        has_texts_gone: false,
    };
    for entry in &batch.entries {
        if after.is_none_or(|after| entry.position > after) {
            fold.entry(entry)?;
        }
    }
    fold.update_last_messages()?;
    let unpurged = fold.has_texts_gone.then_some(sequence(batch.up_to));
    transaction
        .prepare_cached(
            "INSERT INTO checkpoint (only_row, position, incarnation, heartbeat, lag_millis, unpurged)
             VALUES (1, ?1, ?2, 1, 0, ?3)
             ON CONFLICT (only_row) DO UPDATE SET position = ?1, heartbeat = heartbeat + 1,
             unpurged = coalesce(?3, unpurged)",
        )?
        .execute(params![
            sequence(batch.up_to),
            batch.incarnation.0,
            unpurged
        ])?;
    Ok(())
}

/// That nobody has taken the lease over.
fn ensure_newest(transaction: &Transaction<'_>, fence: Fence) -> Result<(), ReadModelError> {
    match lease::lease(transaction).map_err(failure)?.fence > fence {
        true => Err(ReadModelError::Overtaken),
        false => Ok(()),
    }
}

/// See [`crate::Projection::heartbeat`].
pub(super) fn heartbeat(
    connection: &mut Connection,
    fence: Fence,
    lag: Option<Duration>,
) -> Result<(), ReadModelError> {
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(failure)?;
    ensure_newest(&transaction, fence)?;
    transaction
        .prepare_cached(
            "UPDATE checkpoint SET heartbeat = heartbeat + 1, lag_millis = coalesce(?1, lag_millis)",
        )
        .and_then(|mut statement| statement.execute(params![lag.map(millis)]))
        .map_err(failure)?;
    transaction.commit().map_err(failure)
}

/// See [`crate::Projection::set_aside`].
pub(super) fn set_aside(connection: &Connection, letter: &DeadLetter) -> rusqlite::Result<()> {
    let mut letter = letter.clone();
    for user in letter.users() {
        if is_erased(connection, user)? {
            letter.redact();
        }
    }
    connection
        .prepare_cached(
            "INSERT OR IGNORE INTO dead_letters (position, subject, payload, reason)
             VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![
            sequence(letter.position),
            letter.subject,
            letter.payload,
            letter.reason
        ])?;
    Ok(())
}

/// Takes payload and reason from the dead letters that are about the user.
fn redact_dead_letters(connection: &Connection, user: UserId) -> rusqlite::Result<()> {
    let id = user.to_string();
    connection
        .prepare_cached(
            "UPDATE dead_letters SET payload = x'', reason = ?2
             WHERE instr(subject, ?1) > 0 OR instr(payload, CAST(?1 AS BLOB)) > 0",
        )?
        .execute(params![id, DeadLetter::REDACTED])?;
    Ok(())
}

fn is_erased(connection: &Connection, user: UserId) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM erasures WHERE user = ?1")?
        .exists(params![user.as_uuid().as_bytes()])
}

/// A room that has been initiated and not deleted.
struct Room {
    row: i64,
    members: Vec<UserId>,
}

/// A batch being folded, with what it has looked up so far.
struct Fold<'a> {
    transaction: &'a Transaction<'a>,
    /// Rooms as the events so far leave them; `None`: unknown or deleted.
    rooms: HashMap<RoomId, Option<Room>>,
    /// Rooms, by row, whose newest message may have changed.
    touched: HashSet<i64>,
    /// Whether texts have been erased or have expired.
    has_texts_gone: bool,
}

impl Fold<'_> {
    fn entry(&mut self, entry: &Entry) -> rusqlite::Result<()> {
        if entry.envelope.key.is_some() && !self.is_first_with_its_key(entry)? {
            return Ok(());
        }
        let at = entry.envelope.at.as_millis();
        let position = entry.position;
        match &entry.envelope.event {
            Event::UserCreated(event) => {
                let is_erased = is_erased(self.transaction, event.user_id)?;
                let name = |name| if is_erased { "" } else { name };
                self.execute(
                    "INSERT OR IGNORE INTO users
                     (position, id, first_name, last_name, type, created_at, updated_at, deleted)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, 0)",
                    params![
                        sequence(position),
                        event.user_id.as_uuid().as_bytes(),
                        name(event.first_name()),
                        name(event.last_name()),
                        event.user_type.as_str(),
                        at
                    ],
                )?;
            }
            Event::UserDeleted(event) => self.delete_user(event.user_id, at)?,
            Event::UserErased(event) => {
                self.delete_user(event.user_id, at)?;
                self.erase(event.user_id, entry)?;
            }
            Event::RoomInitiated(event) => {
                let initiated = self.execute(
                    "INSERT OR IGNORE INTO rooms (position, id, type) VALUES (?1, ?2, ?3)",
                    params![
                        sequence(position),
                        event.room_id.as_uuid().as_bytes(),
                        event.room_type.as_str()
                    ],
                )?;
                if initiated == 1 {
                    let room = Room {
                        row: sequence(position),
                        members: normalised(&event.members),
                    };
                    for member in &room.members {
                        self.execute(
                            "INSERT INTO room_members (room, user) VALUES (?1, ?2)",
                            params![room.row, member.as_uuid().as_bytes()],
                        )?;
                    }
                    self.rooms.insert(event.room_id, Some(room));
                }
            }
            Event::RoomDeleted(event) => self.delete_room(event.room_id, position)?,
            Event::MessagePosted(event) => {
                if let Some(room) = self.room_of_member(event.room_id, event.author)? {
                    let text = self.text_of(event.author, event.message_text.as_deref())?;
                    self.execute(
                        "INSERT INTO messages (id, room, author, text, created_at)
                         VALUES (?1, ?2, ?3, ?4, ?5)",
                        params![
                            sequence(position),
                            room,
                            event.author.as_uuid().as_bytes(),
                            text,
                            at
                        ],
                    )?;
                    search::add(self.transaction, position, room, text)?;
                    self.touched.insert(room);
                }
            }
            Event::MessageEdited(event) => self.edit(event, position, at)?,
            Event::MessageDeleted(event) => {
                if let Some(room) = self.room(event.room_id)?.map(|room| room.row) {
                    let message = sequence(event.message_id.position());
                    let by = entry.envelope.actor;
                    let deleted = self.execute(
                        "UPDATE messages SET text = NULL, deleted_at = ?1, deleted_on = ?4, deleted_by = ?5
                         WHERE id = ?2 AND room = ?3 AND deleted_at IS NULL",
                        params![
                            sequence(position),
                            message,
                            room,
                            at,
                            by.as_ref().map(|by| by.as_uuid().as_bytes())
                        ],
                    )?;
                    if deleted == 1 {
                        self.execute(
                            "UPDATE edits SET text = NULL WHERE room = ?1 AND message = ?2",
                            params![room, message],
                        )?;
                        search::remove(self.transaction, event.message_id)?;
                        self.touched.insert(room);
                    }
                }
            }
            Event::MessageExpired(event) => {
                if let Some(room) = self.room(event.room_id)?.map(|room| room.row) {
                    self.expire(room, event.up_to, position)?;
                }
            }
            Event::RoomHeld(_) | Event::RoomReleased(_) | Event::AuditRead(_) => {}
            Event::ConversationRead(event) => {
                if let Some(room) = self.room_of_member(event.room_id, event.reader)? {
                    self.mark(room, event.reader, event.up_to, position, at)?;
                }
            }
        }
        Ok(())
    }

    fn execute(&self, sql: &str, parameters: impl rusqlite::Params) -> rusqlite::Result<usize> {
        self.transaction.prepare_cached(sql)?.execute(parameters)
    }

    /// Records the event's key. A key keeps its first event, also when that event is void.
    fn is_first_with_its_key(&self, entry: &Entry) -> rusqlite::Result<bool> {
        let inserted = self.execute(
            "INSERT OR IGNORE INTO keys (deduplication_id, position) VALUES (?1, ?2)",
            params![
                entry.envelope.deduplication_id().as_bytes(),
                sequence(entry.position)
            ],
        )?;
        Ok(inserted == 1)
    }

    /// The room, unless unknown or deleted.
    fn room(&mut self, id: RoomId) -> rusqlite::Result<Option<&Room>> {
        if !self.rooms.contains_key(&id) {
            let found = queries::find_room(self.transaction, id)?.map(|found| Room {
                row: found.row,
                members: found.room.members,
            });
            self.rooms.insert(id, found);
        }
        Ok(self.rooms.get(&id).and_then(Option::as_ref))
    }

    /// The room's row, if `user` is a member of it.
    fn room_of_member(&mut self, id: RoomId, user: UserId) -> rusqlite::Result<Option<i64>> {
        let room = self.room(id)?;
        Ok(room
            .filter(|room| room.members.binary_search(&user).is_ok())
            .map(|room| room.row))
    }

    fn mark(
        &self,
        room: i64,
        reader: UserId,
        up_to: Option<MessageId>,
        position: Position,
        at: i64,
    ) -> rusqlite::Result<()> {
        // Nothing at or after the event itself can have been read.
        let before_event = sequence(position) - 1;
        let bound = up_to.map_or(before_event, |message| {
            before_event.min(sequence(message.position()))
        });
        let newest = |sql: &str| -> rusqlite::Result<Option<i64>> {
            self.transaction
                .prepare_cached(sql)?
                .query_row(params![room, bound], |row| row.get(0))
        };
        let up_to = newest(
            "SELECT max(id) FROM messages WHERE room = ?1 AND id <= ?2 AND deleted_at IS NULL",
        )?
        .max(newest(
            "SELECT max(id) FROM messages WHERE room = ?1 AND id <= ?2 AND deleted_at IS NOT NULL",
        )?)
        .unwrap_or(0);
        let from = queries::read_up_to(self.transaction, room, reader)?;
        if up_to > from {
            self.execute(
                "INSERT INTO marks (position, room, reader, from_message, up_to, at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    sequence(position),
                    room,
                    reader.as_uuid().as_bytes(),
                    from,
                    up_to,
                    at
                ],
            )?;
        }
        Ok(())
    }

    fn delete_user(&self, user: UserId, at: i64) -> rusqlite::Result<()> {
        self.execute(
            "UPDATE users SET first_name = '', last_name = '', updated_at = ?2, deleted = 1
             WHERE id = ?1 AND deleted = 0",
            params![user.as_uuid().as_bytes(), at],
        )?;
        Ok(())
    }

    /// The author's text as it may be stored.
    fn text_of<'a>(
        &self,
        author: UserId,
        text: Option<&'a str>,
    ) -> rusqlite::Result<Option<&'a str>> {
        Ok(match is_erased(self.transaction, author)? {
            true => None,
            false => text,
        })
    }

    fn edit(&mut self, event: &MessageEdited, position: Position, at: i64) -> rusqlite::Result<()> {
        let Some(room) = self.room_of_member(event.room_id, event.author)? else {
            return Ok(());
        };
        let (author, message) = (
            event.author.as_uuid().as_bytes(),
            sequence(event.message_id.position()),
        );
        let edited = self.execute(
            "UPDATE messages SET edit = ?1
             WHERE id = ?2 AND room = ?3 AND author = ?4 AND deleted_at IS NULL
             AND id > (SELECT coalesce(expired, 0) FROM rooms WHERE position = ?3)",
            params![sequence(position), message, room, author],
        )?;
        if edited == 1 {
            let text = self.text_of(event.author, event.message_text.as_deref())?;
            self.execute(
                "INSERT INTO edits (position, room, message, author, text, at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![sequence(position), room, message, author, text, at],
            )?;
            search::remove(self.transaction, event.message_id)?;
            search::add(self.transaction, event.message_id.position(), room, text)?;
        }
        Ok(())
    }

    fn expire(&mut self, room: i64, up_to: MessageId, position: Position) -> rusqlite::Result<()> {
        // Nothing at or after the event itself can have expired.
        let up_to = sequence(up_to.position()).min(sequence(position) - 1);
        let before: i64 = self
            .transaction
            .prepare_cached("SELECT coalesce(expired, 0) FROM rooms WHERE position = ?1")?
            .query_row(params![room], |row| row.get(0))?;
        if up_to <= before {
            return Ok(());
        }
        search::remove_between(self.transaction, room, before, up_to)?;
        for sql in [
            "UPDATE messages SET text = NULL
             WHERE room = ?1 AND id > ?2 AND id <= ?3 AND deleted_at IS NULL",
            "UPDATE edits SET text = NULL WHERE room = ?1 AND message > ?2 AND message <= ?3",
        ] {
            self.execute(sql, params![room, before, up_to])?;
        }
        self.execute(
            "UPDATE rooms SET expired = ?2 WHERE position = ?1",
            params![room, up_to],
        )?;
        self.has_texts_gone = true;
        Ok(())
    }

    /// Removes every text of the user's: room by room, since they are all in rooms that it is a member of.
    fn erase(&mut self, user: UserId, entry: &Entry) -> rusqlite::Result<()> {
        let id = user.as_uuid().as_bytes();
        let by = entry.envelope.actor;
        let erased = self.execute(
            "INSERT OR IGNORE INTO erasures (user, position, at, erased_by) VALUES (?1, ?2, ?3, ?4)",
            params![
                id,
                sequence(entry.position),
                entry.envelope.at.as_millis(),
                by.as_ref().map(|by| by.as_uuid().as_bytes())
            ],
        )?;
        if erased == 0 {
            return Ok(());
        }
        let rooms: Vec<i64> = self
            .transaction
            .prepare_cached("SELECT room FROM room_members WHERE user = ?1")?
            .query_map(params![id], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        for room in rooms {
            search::remove_author(self.transaction, room, user)?;
            for sql in [
                "UPDATE messages SET text = NULL
                 WHERE room = ?1 AND author = ?2 AND deleted_at IS NULL",
                "UPDATE edits SET text = NULL WHERE room = ?1 AND author = ?2",
            ] {
                self.execute(sql, params![room, id])?;
            }
        }
        redact_dead_letters(self.transaction, user)?;
        self.has_texts_gone = true;
        Ok(())
    }

    fn delete_room(&mut self, id: RoomId, position: Position) -> rusqlite::Result<()> {
        let Some(room) = self.room(id)?.map(|room| room.row) else {
            return Ok(());
        };
        self.execute(
            "UPDATE rooms SET expired = NULL, deleted_at = ?2, deleted_messages =
             (SELECT count(*) FROM messages WHERE room = ?1 AND deleted_at IS NULL)
             WHERE position = ?1",
            params![room, sequence(position)],
        )?;
        search::remove_room(self.transaction, room)?;
        for sql in [
            "DELETE FROM messages WHERE room = ?1 AND deleted_at IS NULL",
            "DELETE FROM messages WHERE room = ?1 AND deleted_at IS NOT NULL",
            "DELETE FROM edits WHERE room = ?1",
            "DELETE FROM marks WHERE room = ?1",
            "DELETE FROM room_members WHERE room = ?1",
        ] {
            self.execute(sql, params![room])?;
        }
        self.touched.remove(&room);
        self.rooms.insert(id, None);
        Ok(())
    }

    /// Once per room and batch, however many messages there were.
    fn update_last_messages(&self) -> rusqlite::Result<()> {
        for room in &self.touched {
            let last: Option<i64> = self
                .transaction
                .prepare_cached(
                    "SELECT max(id) FROM messages WHERE room = ?1 AND deleted_at IS NULL",
                )?
                .query_row(params![room], |row| row.get(0))?;
            self.execute(
                "UPDATE room_members SET last_message = ?2 WHERE room = ?1",
                params![room, last],
            )?;
        }
        Ok(())
    }
}
