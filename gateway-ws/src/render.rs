//! From an event to the frame that tells of it, the same for live pushes and for replays.

use std::sync::Arc;

use axum::extract::ws::Utf8Bytes;
use contract::Post;
use directory::Directory;
use event_log::{EventLog, LogError, Recorded};
use events::{
    Envelope, Event, MessageDeleted, MessagePosted, Position, PostedMessage, RoomId, Subject,
};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use uuid::Uuid;

use crate::outbox::Push;
use crate::protocol::ServerFrame;

/// How many of the latest events with an idempotency key are remembered.
const REMEMBERED_KEYS: u64 = 65_536;

/// Turns events into frames.
pub struct Renderer {
    log: Arc<dyn EventLog>,
    directory: Directory,
    /// The first position of each of the latest keyed events, by deduplication id. The log itself drops
    /// repetitions within its window, and the command side looks for older ones in the read models; what
    /// slips through both (a late retry while the read models are down) is void, and is not pushed as
    /// long as this process has seen the first one and still remembers it.
    keys: Cache<Uuid, Position>,
}

impl Renderer {
    /// A renderer that looks users and rooms up in `directory`, and messages in `log`.
    pub fn new(log: Arc<dyn EventLog>, directory: Directory) -> Self {
        let keys = Cache::builder()
            .max_capacity(REMEMBERED_KEYS)
            .eviction_policy(EvictionPolicy::lru())
            .build();
        Self {
            log,
            directory,
            keys,
        }
    }

    /// Remembers the event's idempotency key, if it has one.
    pub fn remember(&self, position: Position, envelope: &Envelope) {
        if envelope.key.is_some() {
            self.keys
                .entry(envelope.deduplication_id())
                .or_insert(position);
        }
    }

    fn is_repetition(&self, position: Position, envelope: &Envelope) -> bool {
        envelope.key.is_some()
            && self
                .keys
                .get(&envelope.deduplication_id())
                .is_some_and(|first| first < position)
    }

    /// What to push of the event at `position`; `None` when it is void or nothing that is pushed.
    ///
    /// # Errors
    /// What it takes can't be read from the log.
    pub async fn render(
        &self,
        position: Position,
        envelope: &Envelope,
    ) -> Result<Option<Push>, LogError> {
        let Some(room) = envelope.event.room() else {
            return Ok(None);
        };
        let frame = match &envelope.event {
            Event::RoomDeleted(_) => {
                return Ok(Some(Push {
                    room: Some(room),
                    position,
                    frame: ServerFrame::RoomDeleted { room, position }.encode(),
                    ends_room: true,
                }));
            }
            _ if self.is_repetition(position, envelope) => None,
            Event::MessagePosted(event) => self.new_message(position, envelope, event).await?,
            Event::MessageDeleted(event) => self.message_deleted(position, event).await?,
            _ => None,
        };
        Ok(frame.map(|frame| Push {
            room: Some(room),
            position,
            frame,
            ends_room: false,
        }))
    }

    async fn new_message(
        &self,
        position: Position,
        envelope: &Envelope,
        event: &MessagePosted,
    ) -> Result<Option<Utf8Bytes>, LogError> {
        let room = match self.directory.room(event.room_id).await? {
            Some(room) if room.has_member(event.author) => room,
            _ => return Ok(None),
        };
        let users = self.directory.users(&room.members).await?;
        let post = Post::new(position, envelope.at, event, &room, &users);
        let frame = ServerFrame::NewMessage {
            room: room.id,
            position,
            message: &post,
        };
        Ok(Some(frame.encode()))
    }

    async fn message_deleted(
        &self,
        position: Position,
        event: &MessageDeleted,
    ) -> Result<Option<Utf8Bytes>, LogError> {
        let posted_at = event.message_id.position();
        if posted_at >= position || !self.is_message_of(event.room_id, posted_at).await? {
            return Ok(None);
        }
        let frame = ServerFrame::MessageDeleted {
            room: event.room_id,
            position,
            message_id: event.message_id,
        };
        Ok(Some(frame.encode()))
    }

    async fn is_message_of(&self, room: RoomId, position: Position) -> Result<bool, LogError> {
        let Some(recorded) = self.log.get(position).await? else {
            return Ok(false);
        };
        let posted = decode(&recorded).and_then(|it| PostedMessage::after(position, &it));
        let Some(posted) = posted.filter(|posted| posted.room == room) else {
            return Ok(false);
        };
        let room = self.directory.room(room).await?;
        Ok(room.is_some_and(|room| room.has_member(posted.author)))
    }
}

/// The event, if this version of Hansard knows it and it stands on the subject that it belongs to.
pub fn decode(recorded: &Recorded) -> Option<Envelope> {
    let envelope = Envelope::decode(&recorded.payload).ok()?;
    let subject: Subject = recorded.subject.parse().ok()?;
    (envelope.event.subject() == subject).then_some(envelope)
}
