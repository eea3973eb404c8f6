//! The events of the log that a filter selects, one at a time.

use event_log::{Events, LogError, Position, Recorded};
use events::{DecodeError, Envelope, Event, PostedMessage, Subject, UserId};
use futures::StreamExt;
use keys::Record;

use crate::ReplayFilter;
use crate::filter::concerns;

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
        let decoded = self.record.decode(&recorded).await?;
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
