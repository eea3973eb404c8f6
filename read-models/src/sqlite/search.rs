//! The index of words and the query that it answers.
//!
//! A room's number is a word in a column of its own, so a search reads where a room's messages and those
//! with a word meet, and walks over neither the one nor the other.

use std::collections::BTreeMap;

use events::{MessageId, Position, UserId};
use rusqlite::{Connection, params};

use super::queries::{self, ROOM_BY_ROW};
use crate::rows::sequence;
use crate::{MessageRow, Search, Words};

pub(super) const ROOMS: &str = "SELECT room, last_message FROM room_members
     WHERE user = ?1 AND last_message IS NOT NULL ORDER BY last_message DESC";

pub(super) const FOUND: &str = "SELECT rowid FROM message_words
     WHERE message_words MATCH ?1 AND rowid > ?2 AND rowid < ?3 ORDER BY rowid DESC LIMIT ?4";

/// Adds a message of the room with this number, if it has a text.
pub(super) fn add(
    connection: &Connection,
    message: Position,
    room: i64,
    text: Option<&str>,
) -> rusqlite::Result<()> {
    let words = text.map(Words::of).unwrap_or_default();
    if words.is_empty() {
        return Ok(());
    }
    let words: Vec<&str> = words.iter().collect();
    connection
        .prepare_cached("INSERT INTO message_words (rowid, room, words) VALUES (?1, ?2, ?3)")?
        .execute(params![
            sequence(message),
            room.to_string(),
            words.join(" ")
        ])?;
    Ok(())
}

/// Removes a message, if it is there.
pub(super) fn remove(connection: &Connection, message: MessageId) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM message_words WHERE rowid = ?1")?
        .execute(params![sequence(message.position())])?;
    Ok(())
}

/// Removes all messages of the room with this number, which must still be in the table of messages.
pub(super) fn remove_room(connection: &Connection, room: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "DELETE FROM message_words WHERE rowid IN
             (SELECT id FROM messages WHERE room = ?1 AND deleted_at IS NULL)",
        )?
        .execute(params![room])?;
    Ok(())
}

/// Removes the messages of the room after one and up to another.
pub(super) fn remove_between(
    connection: &Connection,
    room: i64,
    after: i64,
    up_to: i64,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "DELETE FROM message_words WHERE rowid IN
             (SELECT id FROM messages WHERE room = ?1 AND id > ?2 AND id <= ?3 AND deleted_at IS NULL)",
        )?
        .execute(params![room, after, up_to])?;
    Ok(())
}

/// Removes the messages of the room that are by this author.
pub(super) fn remove_author(
    connection: &Connection,
    room: i64,
    author: UserId,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "DELETE FROM message_words WHERE rowid IN
             (SELECT id FROM messages WHERE room = ?1 AND author = ?2 AND deleted_at IS NULL)",
        )?
        .execute(params![room, author.as_uuid().as_bytes()])?;
    Ok(())
}

/// See [`crate::ReadModels::search`].
pub(super) fn search(
    snapshot: &Connection,
    user: UserId,
    search: &Search,
) -> rusqlite::Result<Vec<MessageRow>> {
    if search.words.is_empty() {
        return Ok(Vec::new());
    }
    let rooms: Vec<(i64, i64)> = match search.room {
        None => snapshot
            .prepare_cached(ROOMS)?
            .query_map(params![user.as_uuid().as_bytes()], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?
            .collect::<rusqlite::Result<_>>()?,
        Some(room) => queries::find_room(snapshot, room)?
            .filter(|found| found.room.members.contains(&user))
            .map(|found| (found.row, i64::MAX))
            .into_iter()
            .collect(),
    };
    let mut statement = snapshot.prepare_cached(FOUND)?;
    // Message to room.
    let mut found: BTreeMap<i64, i64> = BTreeMap::new();
    for (room, newest) in rooms {
        // Only what is newer than the oldest of a full page can still come onto it.
        let over = match found.first_key_value() {
            Some((oldest, _)) if found.len() == search.items() => *oldest,
            _ => 0,
        };
        if newest < over {
            // So are all messages of the rooms that follow.
            break;
        }
        let parameters = params![
            expression(room, &search.words),
            over,
            search.bound(),
            search.items() as i64
        ];
        for message in statement.query_map(parameters, |row| row.get(0))? {
            found.insert(message?, room);
        }
        while found.len() > search.items() {
            found.pop_first();
        }
    }
    let rows = found.into_iter().rev();
    rows.map(|(message, room)| message_row(snapshot, message, room))
        .collect()
}

/// What FTS5 is asked for. A word holds nothing that could end the quotes around it.
fn expression(room: i64, words: &Words) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    format!("room : \"{room}\" AND words : ({})", words.join(" AND "))
}

fn message_row(snapshot: &Connection, message: i64, row: i64) -> rusqlite::Result<MessageRow> {
    let room = snapshot
        .prepare_cached(ROOM_BY_ROW)?
        .query_row(params![row], |row| queries::room_id(row, 0))?;
    let members = queries::members(snapshot, row)?;
    // What is found has a text: nothing of it has expired.
    let mut messages = [queries::message(snapshot, message, room, None)?];
    queries::fill_receipts(snapshot, row, &members, &mut messages)?;
    let [message] = messages;
    Ok(message)
}
