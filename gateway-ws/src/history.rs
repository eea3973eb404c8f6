//! What happened after a position, for one who wants to know: from the hub's recent events where they reach
//! back so far, and else from the log.

use std::collections::HashSet;
use std::sync::Arc;

use event_log::{Events, Filter, LogError};
use events::{Envelope, Event, Position, RoomId, UserId};
use futures::TryStreamExt;
use keys::Record;

use crate::Shared;
use crate::outbox::Push;
use crate::protocol::{After, LogTag};
use crate::recent::Placed;

/// How many recent events are looked through at a time.
const PAGE: usize = 256;

/// Why an `after` can't be resumed from.
const BEYOND_THE_END: &str = "the position lies beyond the end of the log";
const ANOTHER_LOG: &str = "the position belongs to another log";

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One room.
    Room(RoomId),
    /// All rooms of the caller.
    Own,
}

impl Scope {
    /// The one room.
    pub fn room(self) -> Option<RoomId> {
        match self {
            Self::Room(room) => Some(room),
            Self::Own => None,
        }
    }
}

/// A part of what happened in the rooms of a scope. One that is read from the log has a turn there until
/// it is dropped.
pub struct Stretch {
    rooms: HashSet<RoomId>,
    source: Source,
    end: Position,
}

enum Source {
    Recent(std::vec::IntoIter<Placed>),
    Recorded(Record, Events),
}

impl Stretch {
    /// The next event, in the order of the log.
    ///
    /// # Errors
    /// The log can't be read.
    pub async fn next(&mut self) -> Result<Option<Placed>, LogError> {
        match &mut self.source {
            Source::Recent(events) => Ok(events.find(|(_, envelope)| {
                let room = envelope.event.room();
                room.is_some_and(|room| self.rooms.contains(&room))
            })),
            Source::Recorded(record, events) => {
                while let Some(recorded) = events.try_next().await? {
                    if recorded.position > self.end {
                        break;
                    }
                    // The follower warns of what can't be decoded; here it is just skipped.
                    if let Ok(envelope) = record.decode(&recorded).await? {
                        return Ok(Some((recorded.position, Arc::new(envelope))));
                    }
                }
                Ok(None)
            }
        }
    }

    /// Up to where it goes, whatever its last event is.
    pub fn end(&self) -> Position {
        self.end
    }
}

impl Shared {
    /// Why nobody can resume from there, if that is so.
    ///
    /// # Errors
    /// It takes a look into the log, and that can't be read.
    pub(crate) async fn unusable(&self, after: After) -> Result<Option<&'static str>, LogError> {
        let here = self.hub.cursor(after.position).log;
        let is_known_here = after.log.is_none_or(|log| log == here);
        if is_known_here && after.position <= self.hub.position() {
            return Ok(None);
        }
        // Not yet handed out here, or beyond the end; or the log has been replaced just now.
        let tail = self.record.log.tail().await?;
        let is_of_another_log = |log| log != LogTag::of(&tail.incarnation);
        if after.log.is_some_and(is_of_another_log) {
            return Ok(Some(ANOTHER_LOG));
        }
        Ok((after.position > tail.last).then_some(BEYOND_THE_END))
    }

    /// The beginning of what happened for `user` after `after` up to and with `end`, which the hub has
    /// handed out, so that the log has it: at least one event, if there is one.
    ///
    /// # Errors
    /// The log can't be read.
    pub(crate) async fn stretch(
        &self,
        user: UserId,
        scope: Scope,
        after: Position,
        end: Position,
    ) -> Result<Stretch, LogError> {
        // The memberships know every room that was created up to `end`.
        let rooms: HashSet<RoomId> = match scope {
            Scope::Room(room) => HashSet::from([room]),
            Scope::Own => {
                let rooms = self.hub.memberships().since(user, after);
                rooms.into_iter().collect()
            }
        };
        if let Some(recent) = self.hub.recent(after, end, PAGE) {
            let last = recent.last().filter(|_| recent.len() == PAGE);
            return Ok(Stretch {
                end: last.map_or(end, |(position, _)| *position),
                rooms,
                source: Source::Recent(recent.into_iter()),
            });
        }
        let filter = match scope {
            Scope::Room(room) => Filter::Room(room),
            Scope::Own => Filter::Rooms(rooms.iter().copied().collect()),
        };
        Ok(Stretch {
            end,
            rooms,
            source: Source::Recorded(
                self.record.clone(),
                self.record.log.read(filter, after).await?,
            ),
        })
    }

    /// What to tell of an event, if it is anything.
    ///
    /// # Errors
    /// What it takes can't be read from the log.
    pub(crate) async fn tell(
        &self,
        scope: Scope,
        position: Position,
        envelope: &Envelope,
    ) -> Result<Option<Push>, LogError> {
        let is_deletion = matches!(envelope.event, Event::RoomDeleted(_));
        if let (Scope::Own, false, Some(room)) = (scope, is_deletion, envelope.event.room()) {
            // Of a room that is gone by now, one is told that it is gone, not what was in it.
            let room = self.directory.room(room).await?;
            if room.is_none_or(|room| room.deleted) {
                return Ok(None);
            }
        }
        let cursor = self.hub.cursor(position);
        self.renderer.render(cursor, envelope).await
    }
}
