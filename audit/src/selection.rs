//! The events of the log that a filter selects, one at a time.

use std::collections::HashMap;

use event_log::{Events, LogError, Position, Recorded};
use events::{DecodeError, Envelope, Event, MessageId, PostedMessage, RoomId, Subject, UserId};
use futures::StreamExt;
use keys::Record;

use crate::ReplayFilter;
use crate::filter::concerns;

/// Of how many rooms it is remembered up to where their texts have expired.
const REMEMBERED: usize = 10_000;

/// An event of the replay.
#[derive(Debug)]
pub struct Selected {
    /// The event as it stands in the log.
    pub recorded: Recorded,
    /// What it says, or why it can't be read.
    pub decoded: Result<Envelope, DecodeError>,
}

/// What came of reading one event.
#[derive(Debug)]
pub enum Step {
    /// It is part of the replay.
    Selected(Box<Selected>),
    /// It is not.
    Passed,
}

/// A replay in progress.
pub struct Selection {
    record: Record,
    filter: ReplayFilter,
    /// What is read next; `None` while the selection rests.
    events: Option<Events>,
    first: Option<Recorded>,
    up_to: Position,
    position: Position,
    unattributed: u64,
    /// The last message of each room whose text has expired, as far as that has been looked up.
    expired: HashMap<RoomId, Option<MessageId>>,
}

impl Selection {
    /// Begins a replay of what the log holds up to and with the position `up_to`.
    ///
    /// # Errors
    /// [`LogError`]: the log can't be read.
    pub async fn start(
        record: Record,
        filter: ReplayFilter,
        up_to: Position,
    ) -> Result<Self, LogError> {
        let mut selection = Self {
            position: filter.after(),
            record,
            filter,
            events: None,
            first: None,
            up_to,
            unattributed: 0,
            expired: HashMap::new(),
        };
        // So that a log that can't be read is known before anything is answered.
        selection.first = selection.read().await?;
        Ok(selection)
    }

    /// The positions between which the replay moves: the one before its first, and its last.
    pub fn range(&self) -> (Position, Position) {
        let last = match self.filter.to {
            Some(crate::Bound::Position(to)) => to.min(self.up_to),
            _ => self.up_to,
        };
        (self.filter.after(), last)
    }

    /// Lets go of the log for a while: it bears a limited number of reads at once. The next step goes on where
    /// this one ended.
    pub fn rest(&mut self) {
        self.events = None;
    }

    /// The position of the event read last.
    pub fn position(&self) -> Position {
        self.position
    }

    /// How many events were passed over because they can't be decoded, so that nothing tells whether they are
    /// of the types, or concern the user, that the filter names.
    pub fn unattributed(&self) -> u64 {
        self.unattributed
    }

    /// Reads one event; `None` at the end.
    ///
    /// # Errors
    /// [`LogError`]: the log can't be read any further.
    pub async fn step(&mut self) -> Result<Option<Step>, LogError> {
        let next = match self.first.take() {
            Some(first) => Some(first),
            None => self.read().await?,
        };
        let Some(recorded) = next else {
            return Ok(None);
        };
        if recorded.position > self.up_to || self.filter.ends_before(recorded.position) {
            return Ok(None);
        }
        self.position = recorded.position;
        if !self.filter.times_match(&recorded) {
            return Ok(Some(Step::Passed));
        }
        let mut decoded = self.record.decode(&recorded).await?;
        if let Ok(envelope) = &mut decoded {
            self.take_out_expired(recorded.position, envelope).await?;
        }
        match self.filter.type_matches(&decoded) {
            Some(true) => {}
            Some(false) => return Ok(Some(Step::Passed)),
            None => {
                self.unattributed += 1;
                return Ok(Some(Step::Passed));
            }
        }
        if let Some(user) = self.filter.user
            && !self.is_about(user, &recorded, &decoded).await?
        {
            return Ok(Some(Step::Passed));
        }
        Ok(Some(Step::Selected(Box::new(Selected {
            recorded,
            decoded,
        }))))
    }

    /// The next event of the replay; `None` at the end.
    ///
    /// # Errors
    /// [`LogError`]: the log can't be read any further.
    pub async fn next(&mut self) -> Result<Option<Selected>, LogError> {
        loop {
            match self.step().await? {
                Some(Step::Selected(selected)) => return Ok(Some(*selected)),
                Some(Step::Passed) => {}
                None => return Ok(None),
            }
        }
    }

    /// The next event of the log, selected or not.
    async fn read(&mut self) -> Result<Option<Recorded>, LogError> {
        let events = match &mut self.events {
            Some(events) => events,
            None => {
                let filter = self.filter.log_filter();
                let reading = self.record.log.read(filter, self.position).await?;
                self.events.insert(reading)
            }
        };
        events.next().await.transpose()
    }

    /// Takes the text out of an event if it has expired by now: the key may be there still.
    async fn take_out_expired(
        &mut self,
        position: Position,
        envelope: &mut Envelope,
    ) -> Result<(), LogError> {
        let (room, message, text) = match &mut envelope.event {
            Event::MessagePosted(event) => {
                let message = MessageId::at(position);
                (event.room_id, message, &mut event.message_text)
            }
            Event::MessageEdited(event) => {
                (event.room_id, event.message_id, &mut event.message_text)
            }
            _ => return Ok(()),
        };
        if text.is_some() && self.expired(room).await? >= Some(message) {
            *text = None;
        }
        Ok(())
    }

    /// The last message of the room whose text has expired.
    async fn expired(&mut self, room: RoomId) -> Result<Option<MessageId>, LogError> {
        if let Some(known) = self.expired.get(&room) {
            return Ok(*known);
        }
        let last = self
            .record
            .log
            .last_of(Subject::RoomRetention(room))
            .await?;
        let expired = last.and_then(|last| match self.record.outline(&last).ok()?.event {
            Event::MessageExpired(event) => Some(event.up_to),
            _ => None,
        });
        if self.expired.len() >= REMEMBERED {
            self.expired.clear();
        }
        self.expired.insert(room, expired);
        Ok(expired)
    }

    async fn is_about(
        &mut self,
        user: UserId,
        recorded: &Recorded,
        decoded: &Result<Envelope, DecodeError>,
    ) -> Result<bool, LogError> {
        let Ok(envelope) = decoded else {
            let of_user = recorded.subject.parse() == Ok(Subject::User(user));
            if !of_user && !recorded.subject.starts_with("chat.user.") {
                self.unattributed += 1;
            }
            return Ok(of_user);
        };
        if concerns(envelope, user) {
            return Ok(true);
        }
        let Event::MessageDeleted(deletion) = &envelope.event else {
            return Ok(false);
        };
        // Somebody else deleted it; whose it was stands where it was posted.
        let Some(post) = self.record.log.get(deletion.message_id.position()).await? else {
            return Ok(false);
        };
        let envelope = self.record.decode(&post).await?;
        let message = envelope
            .ok()
            .and_then(|envelope| PostedMessage::after(post.position, &envelope));
        Ok(message.is_some_and(|message| message.author == user))
    }
}
