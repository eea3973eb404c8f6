//! Rooms as they were at a moment of the past, folded from the log: the same rows, in the same pages, as the
//! read models had then.
//!
//! A room is read twice. The first time only the outlines of its events, which takes no keys: what stays in
//! memory of each message is its id. That tells which messages are on the page; all that concerns a message
//! comes after it, so the second reading begins with the oldest of them, and opens their texts and no others.

mod index;
mod messages;
mod moment;
mod part;
mod users;

use std::collections::HashMap;
use std::sync::Mutex;

use event_log::{Filter, LogError, Position, Recorded};
use events::{Envelope, Event, MessageId, RoomId, UserId};
use futures::{Stream, TryStreamExt, future};
use keys::Record;
use read_models::{MessageRow, Page, RecentRow, RoomRow, UserRow};

use crate::index::Index;
use crate::messages::Messages;
use crate::part::part;
use crate::users::Known;

pub use crate::moment::{BeyondTheEnd, Moment};

/// How many rooms are read at once for a list of recent rooms.
const ROOMS_AT_ONCE: usize = 100;

/// What there was at a moment of the past. For one request: what was looked up is kept.
pub struct AsOf {
    record: Record,
    moment: Moment,
    users: Mutex<HashMap<UserId, Known>>,
}

/// A room as it was, if it was there and had not been deleted.
pub struct PastRoom<'a> {
    as_of: &'a AsOf,
    index: Index,
    row: RoomRow,
}

impl AsOf {
    /// What there was at this moment.
    pub fn new(record: Record, moment: Moment) -> Self {
        Self {
            record,
            moment,
            users: Mutex::default(),
        }
    }

    /// The moment.
    pub fn moment(&self) -> Moment {
        self.moment
    }

    /// The room, unless it had not been initiated yet or had been deleted.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn room(&self, id: RoomId) -> Result<Option<PastRoom<'_>>, LogError> {
        let mut index = Index::default();
        let filter = Filter::Room(id);
        let mut events = self.record.log.read(filter, Position::ZERO).await?;
        while let Some(recorded) = events.try_next().await? {
            if let Ok(envelope) = self.record.outline(&recorded) {
                self.fold(&mut index, &recorded, &envelope, None);
            }
        }
        let row = index.room.clone();
        Ok(row.map(|row| PastRoom {
            as_of: self,
            index,
            row,
        }))
    }

    /// A part of the list of `user`'s rooms that had a message, ordered by their newest message: newest first,
    /// whatever the page's start.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn recent(&self, user: UserId, page: Page) -> Result<Vec<RecentRow>, LogError> {
        let mut found = Vec::new();
        for rooms in self.rooms_of(user).await?.chunks(ROOMS_AT_ONCE) {
            found.extend(self.with_newest(rooms, user).await?);
        }
        found.sort_unstable_by_key(|room| room.newest);
        let shown = part(&found, |room| room.newest, page);
        let mut shown: Vec<WithNewest> = found.drain(shown).collect();
        shown.reverse();
        let wanted = shown.iter().map(|room| room.newest).collect();
        let rooms = shown.iter().map(|room| (room.row.id, &room.index));
        let rooms = rooms.collect();
        let mut messages = self.messages(wanted, &rooms).await?;
        drop(rooms);
        Ok(shown
            .into_iter()
            .filter_map(|room| {
                Some(RecentRow {
                    message: messages.remove(&room.newest)?,
                    room: room.row,
                    unread: room.unread,
                })
            })
            .collect())
    }

    /// These users, deleted ones included; those who were not there yet are left out.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn users_by_id(&self, ids: &[UserId]) -> Result<Vec<UserRow>, LogError> {
        let known = self.known(ids).await?;
        Ok(known.into_iter().filter_map(|known| known.row).collect())
    }

    /// The rooms that may be `user`'s: those that were ever initiated with the user among the members.
    async fn rooms_of(&self, user: UserId) -> Result<Vec<RoomId>, LogError> {
        let mut rooms = Vec::new();
        let mut events = self.events(Filter::Lifecycles, Position::ZERO).await?;
        while let Some(recorded) = events.try_next().await? {
            if let Ok(envelope) = self.record.outline(&recorded)
                && let Event::RoomInitiated(event) = envelope.event
                && event.members.contains(&user)
            {
                rooms.push(event.room_id);
            }
        }
        rooms.sort_unstable();
        rooms.dedup();
        Ok(rooms)
    }

    /// Those of `rooms` that were there, had `user` as a member, and had a message.
    async fn with_newest(
        &self,
        rooms: &[RoomId],
        user: UserId,
    ) -> Result<Vec<WithNewest>, LogError> {
        let mut indexes: HashMap<RoomId, Index> = HashMap::new();
        let filter = Filter::Rooms(rooms.into());
        let mut events = self.record.log.read(filter, Position::ZERO).await?;
        while let Some(recorded) = events.try_next().await? {
            if let Ok(envelope) = self.record.outline(&recorded)
                && let Some(room) = envelope.event.room()
            {
                let index = indexes.entry(room).or_default();
                self.fold(index, &recorded, &envelope, Some(user));
            }
        }
        let indexes = indexes.into_values().filter_map(|mut index| {
            let row = index.room.clone()?;
            let newest = index.newest()?;
            let unread = index.unread();
            index.forget_messages();
            row.members.contains(&user).then_some(WithNewest {
                newest,
                row,
                unread,
                index,
            })
        });
        Ok(indexes.collect())
    }

    /// Folds an event that came before the moment or after it.
    fn fold(
        &self,
        index: &mut Index,
        recorded: &Recorded,
        envelope: &Envelope,
        viewer: Option<UserId>,
    ) {
        match recorded.position <= self.moment.position {
            true => index.event(recorded.position, envelope, viewer),
            false => index.later(recorded.position, envelope),
        }
    }

    /// The messages `wanted`, in ascending order and of these rooms, as they were.
    async fn messages(
        &self,
        wanted: Vec<MessageId>,
        rooms: &HashMap<RoomId, &Index>,
    ) -> Result<HashMap<MessageId, MessageRow>, LogError> {
        let Some(oldest) = wanted.iter().min() else {
            return Ok(HashMap::new());
        };
        let before = Position::new(oldest.position().get() - 1);
        let filter = Filter::Rooms(rooms.keys().copied().collect());
        let mut messages = Messages::new(wanted.iter().copied().collect(), rooms);
        let mut events = self.events(filter, before).await?;
        while let Some(recorded) = events.try_next().await? {
            let Ok(outline) = self.record.outline(&recorded) else {
                continue;
            };
            let envelope = match messages.needs_text_of(recorded.position, &outline) {
                true => match self.record.decode(&recorded).await? {
                    Ok(envelope) => envelope,
                    Err(_) => continue,
                },
                false => outline,
            };
            messages.event(recorded.position, &envelope);
        }
        drop(events);
        let authors = messages.authors();
        let known = self.known(&authors).await?;
        let erased = known.iter().filter(|known| known.is_erased);
        let erased = erased.map(|known| known.id).collect();
        Ok(messages.into_rows(&erased))
    }

    /// The events after `after`, up to and with the moment.
    async fn events(
        &self,
        filter: Filter,
        after: Position,
    ) -> Result<impl Stream<Item = Result<Recorded, LogError>> + Unpin, LogError> {
        let last = self.moment.position;
        let events = self.record.log.read(filter, after).await?;
        Ok(events.try_take_while(move |recorded| future::ok(recorded.position <= last)))
    }
}

impl PastRoom<'_> {
    /// What the room was.
    pub fn row(&self) -> &RoomRow {
        &self.row
    }

    /// A part of its messages: oldest first, whatever the page's start.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn conversation(&self, page: Page) -> Result<Vec<MessageRow>, LogError> {
        let shown = self.index.page(page);
        let rooms = HashMap::from([(self.row.id, &self.index)]);
        let mut messages = self.as_of.messages(shown.clone(), &rooms).await?;
        let rows = shown.iter().filter_map(|id| messages.remove(id));
        Ok(rows.collect())
    }
}

/// A room that had a message.
struct WithNewest {
    newest: MessageId,
    row: RoomRow,
    unread: u64,
    index: Index,
}
