//! Who has read what, computed from read marks for the messages of one page.
//!
//! A mark says that somebody read a room up to a message. The marks of one reader in one room go strictly
//! forward, so the first of them that reaches a message is the moment at which it was read. Nothing is
//! stored per message: marking a million messages as read is one mark.

use std::collections::HashMap;

use events::{MessageId, Position, Timestamp, UserId};

use crate::{MessageRow, Receipt};

/// That `reader` has read a room up to and with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The `conversation.read` event.
    pub position: Position,
    /// Who read.
    pub reader: UserId,
    /// The newest message read.
    pub up_to: MessageId,
    /// When, by the clock; for people to read.
    pub at: Timestamp,
}

/// The range of a page's messages, oldest and newest; `None` for an empty page.
pub(crate) fn range(messages: &[MessageRow]) -> Option<(MessageId, MessageId)> {
    let ids = || messages.iter().map(|message| message.id);
    ids().min().zip(ids().max())
}

/// Fills in who has read each of `messages`, which are of one room.
///
/// `marks`, in any order and repeated or not, must hold those with the oldest message <= `up_to` < the
/// newest message, and for each reader the first with `up_to` >= the newest message.
pub(crate) fn fill(messages: &mut [MessageRow], marks: &[Mark]) {
    let mut by_reader: HashMap<UserId, Vec<Mark>> = HashMap::new();
    for mark in marks {
        by_reader.entry(mark.reader).or_default().push(*mark);
    }
    for marks in by_reader.values_mut() {
        marks.sort_unstable_by_key(|mark| mark.up_to);
    }
    for message in messages {
        let mut readings: Vec<Mark> = by_reader
            .iter()
            .filter(|(reader, _)| **reader != message.author)
            .filter_map(|(_, marks)| {
                let first = marks.partition_point(|mark| mark.up_to < message.id);
                marks.get(first).copied()
            })
            .collect();
        readings.sort_unstable_by_key(|mark| mark.position);
        let author = Receipt {
            reader: message.author,
            read_at: message.created_at,
        };
        message.read_by = std::iter::once(author)
            .chain(readings.iter().map(|mark| Receipt {
                reader: mark.reader,
                read_at: mark.at,
            }))
            .collect();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use events::RoomId;
    use uuid::Uuid;

    fn user(number: u128) -> UserId {
        UserId::from_uuid(Uuid::from_u128(number))
    }

    fn message(id: u64, author: UserId) -> MessageRow {
        MessageRow {
            id: MessageId::at(Position::new(id)),
            room: RoomId::from_uuid(Uuid::from_u128(9)),
            author,
            text: String::new(),
            left: crate::Left::Text,
            created_at: Timestamp::from_millis(0).unwrap(),
            edited_at: None,
            read_by: Vec::new(),
        }
    }

    fn mark(position: u64, reader: UserId, up_to: u64) -> Mark {
        Mark {
            position: Position::new(position),
            reader,
            up_to: MessageId::at(Position::new(up_to)),
            // A clock that runs backwards: order must not come from it.
            at: Timestamp::from_millis(1_000 - position as i64).unwrap(),
        }
    }

    #[test]
    fn the_first_mark_that_reaches_a_message_counts_and_the_author_comes_first() {
        let [anna, bela, cora] = [1, 2, 3].map(user);
        let mut page = [message(10, anna), message(20, bela), message(30, anna)];
        let marks = [
            mark(40, bela, 30),
            mark(15, bela, 10),
            mark(32, cora, 30),
            mark(33, anna, 30),
            mark(50, cora, 45),
        ];
        fill(&mut page, &marks);
        let read = |index: usize| -> Vec<(UserId, i64)> {
            page[index]
                .read_by
                .iter()
                .map(|receipt| (receipt.reader, receipt.read_at.as_millis()))
                .collect()
        };
        assert_eq!(read(0), [(anna, 0), (bela, 985), (cora, 968)]);
        assert_eq!(read(1), [(bela, 0), (cora, 968), (anna, 967)]);
        assert_eq!(read(2), [(anna, 0), (cora, 968), (bela, 960)]);
    }
}
