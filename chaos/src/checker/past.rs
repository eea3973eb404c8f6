//! The rooms and messages that there were, by the log.

use std::collections::HashMap;

use crate::evidence::{Happening, Logged};
use crate::history::Shown;

/// Greater than the position of every edit: what is deleted stays so.
const DELETED: u64 = u64::MAX;

/// A message, with all that ever became of it.
pub(super) struct PastMessage<'a> {
    author: &'a str,
    /// Each text and the position from which it held, the first one included.
    texts: Vec<(u64, &'a str)>,
    /// Where its first deletion stands.
    deleted: Option<u64>,
}

/// A room, with all that ever happened in it.
#[derive(Default)]
pub(super) struct PastRoom<'a> {
    /// Where its deletion stands.
    pub(super) deleted: Option<u64>,
    pub(super) initiated: Option<u64>,
    /// By their positions, in ascending order.
    pub(super) messages: std::collections::BTreeMap<u64, PastMessage<'a>>,
}

/// The rooms by their ids.
pub(super) fn rooms(log: &[Logged]) -> HashMap<&str, PastRoom<'_>> {
    let mut rooms: HashMap<&str, PastRoom<'_>> = HashMap::new();
    for logged in log {
        let position = logged.position;
        let Some(room) = logged.happening.room() else {
            continue;
        };
        let room = rooms.entry(room).or_default();
        match &logged.happening {
            Happening::RoomInitiated { .. } => room.initiated = Some(position),
            Happening::RoomDeleted { .. } => room.deleted = room.deleted.or(Some(position)),
            // What stands behind the deletion of a room is void.
            _ if room.deleted.is_some() => {}
            Happening::Posted { author, text, .. } => {
                let message = PastMessage {
                    author,
                    texts: vec![(position, text)],
                    deleted: None,
                };
                room.messages.insert(position, message);
            }
            Happening::Edited { message, text, .. } => {
                // What stands behind the deletion of a message is void too.
                if let Some(message) = room.messages.get_mut(message)
                    && message.deleted.is_none()
                {
                    message.texts.push((position, text));
                }
            }
            Happening::MessageDeleted { message, .. } => {
                if let Some(message) = room.messages.get_mut(message) {
                    message.deleted = message.deleted.or(Some(position));
                }
            }
            _ => {}
        }
    }
    rooms
}

impl PastMessage<'_> {
    /// From which position on the message was as it is shown; `None` if it never was.
    pub(super) fn version(&self, shown: &Shown) -> Option<u64> {
        if shown.author != self.author {
            return None;
        }
        if shown.deleted {
            return self.deleted.map(|_| DELETED);
        }
        let texts = self.texts.iter();
        let mut texts = texts.filter(|(_, text)| *text == shown.text);
        texts.next_back().map(|(position, _)| *position)
    }

    /// The newest version that there was at a position, in the sense of [`Self::version`].
    pub(super) fn version_at(&self, position: u64) -> u64 {
        if self.deleted.is_some_and(|deleted| deleted <= position) {
            return DELETED;
        }
        let texts = self.texts.iter().rev();
        let mut texts = texts.filter(|(from, _)| *from <= position);
        texts.next().map_or(0, |(from, _)| *from)
    }
}
