//! From an event to the frame that tells of it, the same for live pushes and for replays.

use axum::extract::ws::Utf8Bytes;
use contract::{Edit, Post, User};
use directory::Directory;
use event_log::LogError;
use events::{
    ConversationRead, Envelope, Event, MessageDeleted, MessageEdited, MessageId, MessagePosted,
    Position, PostedMessage, Room, RoomId, Subject, UserId,
};
use keys::Record;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use uuid::Uuid;

use crate::outbox::{Push, PushKind};
use crate::protocol::{Change, Cursor};

/// How many of the latest events with an idempotency key are remembered.
const REMEMBERED_KEYS: u64 = 65_536;

/// Turns events into frames.
pub struct Renderer {
    record: Record,
    directory: Directory,
    /// The first position of each of the latest keyed events, by deduplication id. The log itself drops
    /// repetitions within its window, and the command side looks for older ones in the read models; what
    /// slips through both (a late retry while the read models are down) is void, and is not pushed as
    /// long as this process has seen the first one and still remembers it.
    keys: Cache<Uuid, Position>,
}

impl Renderer {
    /// A renderer that looks users and rooms up in `directory`, and messages in `record`.
    pub fn new(record: Record, directory: Directory) -> Self {
        let keys = Cache::builder()
            .max_capacity(REMEMBERED_KEYS)
            .eviction_policy(EvictionPolicy::lru())
            .build();
        Self {
            record,
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

    /// What to push of the event at `cursor`; `None` when it is void or nothing that is pushed.
    ///
    /// # Errors
    /// What it takes can't be read from the log.
    pub async fn render(
        &self,
        cursor: Cursor,
        envelope: &Envelope,
    ) -> Result<Option<Push>, LogError> {
        let Some(room) = envelope.event.room() else {
            return Ok(None);
        };
        // What begins and ends a room is guarded by the log itself, so it is never void.
        let is_lifecycle = matches!(envelope.event.subject(), Subject::RoomLifecycle(_));
        if !is_lifecycle && self.is_repetition(cursor.position, envelope) {
            return Ok(None);
        }
        let mut kind = PushKind::Room(room);
        let frame = match &envelope.event {
            Event::RoomInitiated(event) => {
                kind = PushKind::RoomCreated(room, event.members.clone());
                self.room_created(cursor, envelope).await?
            }
            Event::RoomDeleted(_) => {
                kind = PushKind::RoomDeleted(room);
                let position = cursor;
                Some(Change::RoomDeleted { room, position }.encode())
            }
            Event::MessagePosted(event) => self.new_message(cursor, envelope, event).await?,
            Event::MessageEdited(event) => self.message_edited(cursor, envelope, event).await?,
            Event::MessageDeleted(event) => self.message_deleted(cursor, event).await?,
            Event::ConversationRead(event) => {
                self.conversation_read(cursor, envelope, event).await?
            }
            Event::UserCreated(_)
            | Event::UserDeleted(_)
            | Event::UserErased(_)
            | Event::RoomHeld(_)
            | Event::RoomReleased(_)
            | Event::MessageExpired(_)
            | Event::AuditRead(_) => None,
        };
        Ok(frame.map(|frame| Push {
            kind,
            position: Some(cursor.position),
            frame,
        }))
    }

    async fn room_created(
        &self,
        cursor: Cursor,
        envelope: &Envelope,
    ) -> Result<Option<Utf8Bytes>, LogError> {
        // As it was created, whatever has become of it.
        let Some(room) = Room::after(cursor.position, envelope) else {
            return Ok(None);
        };
        let users = self.directory.users(&room.members).await?;
        let users: Vec<User> = users.iter().map(User::from).collect();
        let frame = Change::RoomCreated {
            room: room.id,
            position: cursor,
            chat_room: (&room).into(),
            users: &users,
        };
        Ok(Some(frame.encode()))
    }

    async fn new_message(
        &self,
        cursor: Cursor,
        envelope: &Envelope,
        event: &MessagePosted,
    ) -> Result<Option<Utf8Bytes>, LogError> {
        let Some(room) = self.room_of_member(event.room_id, event.author).await? else {
            return Ok(None);
        };
        let users = self.directory.users(&room.members).await?;
        let post = Post::new(cursor.position, envelope.at, event, &room, &users);
        let frame = Change::NewMessage {
            room: room.id,
            position: cursor,
            message: &post,
        };
        Ok(Some(frame.encode()))
    }

    async fn conversation_read(
        &self,
        cursor: Cursor,
        envelope: &Envelope,
        event: &ConversationRead,
    ) -> Result<Option<Utf8Bytes>, LogError> {
        let room = self.room_of_member(event.room_id, event.reader).await?;
        // It marks what came before it, so no later message, whatever it names.
        let up_to = MessageId::at(cursor.position);
        let frame = room.map(|room| Change::ConversationRead {
            room: room.id,
            position: cursor,
            user: event.reader,
            up_to: event.up_to.map_or(up_to, |named| named.min(up_to)),
            read_at: envelope.at,
        });
        Ok(frame.map(|frame| frame.encode()))
    }

    async fn message_edited(
        &self,
        cursor: Cursor,
        envelope: &Envelope,
        event: &MessageEdited,
    ) -> Result<Option<Utf8Bytes>, LogError> {
        let posted_at = event.message_id.position();
        let Some(edit) = Edit::new(envelope.at, event) else {
            return Ok(None);
        };
        if posted_at >= cursor.position
            || self.author_of(event.room_id, posted_at).await? != Some(event.author)
        {
            return Ok(None);
        }
        let frame = Change::MessageEdited {
            room: event.room_id,
            position: cursor,
            edit: &edit,
        };
        Ok(Some(frame.encode()))
    }

    async fn message_deleted(
        &self,
        cursor: Cursor,
        event: &MessageDeleted,
    ) -> Result<Option<Utf8Bytes>, LogError> {
        let posted_at = event.message_id.position();
        if posted_at >= cursor.position || self.author_of(event.room_id, posted_at).await?.is_none()
        {
            return Ok(None);
        }
        let frame = Change::MessageDeleted {
            room: event.room_id,
            position: cursor,
            message_id: event.message_id,
        };
        Ok(Some(frame.encode()))
    }

    async fn room_of_member(&self, room: RoomId, user: UserId) -> Result<Option<Room>, LogError> {
        let room = self.directory.room(room).await?;
        Ok(room.filter(|room| room.has_member(user)))
    }

    /// Who wrote the message at `position`, if it is one of this room.
    async fn author_of(
        &self,
        room: RoomId,
        position: Position,
    ) -> Result<Option<UserId>, LogError> {
        let Some(recorded) = self.record.log.get(position).await? else {
            return Ok(None);
        };
        let envelope = self.record.decode(&recorded).await?.ok();
        let posted = envelope.and_then(|it| PostedMessage::after(position, &it));
        let Some(posted) = posted.filter(|posted| posted.room == room) else {
            return Ok(None);
        };
        let room = self.room_of_member(room, posted.author).await?;
        Ok(room.map(|_| posted.author))
    }
}
