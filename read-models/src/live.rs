//! The read models as queries see them: always the live generation, whichever that is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use events::{MessageId, Position, RoomId, RoomType, Timestamp, UserId};
use tokio::time::Instant;

use crate::{
    Catalogue, Checkpoint, ConversationRow, DeadLetter, Generations, HistoryRow, MessageRow, Page,
    Projection, ReadModelError, ReadModels, RecentRow, RoomDeletion, RoomRow, Search, UserRow,
};

/// How old what is known of the catalogue may be. Whoever changes a generation's state waits for longer
/// before it counts on everybody's knowing.
const FRESH: Duration = Duration::from_secs(1);

/// The live generation.
pub struct Live {
    catalogue: Arc<dyn Catalogue>,
    known: Mutex<Option<Arc<Known>>>,
}

/// What is known of the catalogue.
struct Known {
    since: Instant,
    /// The generation to read.
    read: Opened,
    /// The others that commands wait for.
    waited_for: Vec<Opened>,
}

#[derive(Clone)]
struct Opened {
    number: u32,
    projection: Arc<dyn Projection>,
}

impl Known {
    /// The generation, if it has been opened before.
    fn opened(&self, number: u32) -> Option<Opened> {
        let opened = self.waited_for.iter().chain([&self.read]);
        opened.into_iter().find(|it| it.number == number).cloned()
    }
}

impl Live {
    /// The live generation of this program's schema in `catalogue`.
    pub fn new(catalogue: Arc<dyn Catalogue>) -> Self {
        Self {
            catalogue,
            known: Mutex::new(None),
        }
    }

    /// The generation to read; `None` when nothing has been prepared yet.
    async fn current(&self) -> Result<Option<Arc<dyn Projection>>, ReadModelError> {
        let known = self.known().await?;
        Ok(known.map(|known| Arc::clone(&known.read.projection)))
    }

    /// What is known of the catalogue, which is looked at again if that is too long ago. Nobody waits for
    /// another's look: while the server hangs, they would wait one after the other.
    async fn known(&self) -> Result<Option<Arc<Known>>, ReadModelError> {
        let old = self.lock().clone();
        if let Some(old) = &old
            && old.since.elapsed() < FRESH
        {
            return Ok(Some(Arc::clone(old)));
        }
        // Counted from before the look, which may take its time.
        let since = Instant::now();
        let generations = self.catalogue.generations().await?;
        let Some(renewed) = self.renewed(since, old.as_deref(), &generations).await? else {
            return Ok(None);
        };
        let renewed = Arc::new(renewed);
        let mut known = self.lock();
        if known.as_ref().is_none_or(|other| other.since <= since) {
            *known = Some(Arc::clone(&renewed));
        }
        Ok(Some(renewed))
    }

    async fn renewed(
        &self,
        since: Instant,
        old: Option<&Known>,
        generations: &Generations,
    ) -> Result<Option<Known>, ReadModelError> {
        let schema = self.catalogue.schema();
        let Some(live) = generations.live(schema) else {
            if generations.all.is_empty() {
                return Ok(None);
            }
            return Err(ReadModelError::BeingBuilt);
        };
        let mut waited_for = Vec::new();
        for other in generations.of(schema) {
            if other.state.is_waited_for() && other.number != live.number {
                waited_for.push(self.opened(other.number, old).await?);
            }
        }
        Ok(Some(Known {
            since,
            read: self.opened(live.number, old).await?,
            waited_for,
        }))
    }

    async fn opened(&self, number: u32, old: Option<&Known>) -> Result<Opened, ReadModelError> {
        match old.and_then(|old| old.opened(number)) {
            Some(opened) => Ok(opened),
            None => Ok(Opened {
                number,
                projection: self.catalogue.open(number).await?,
            }),
        }
    }

    /// Each change is one assignment, so that a panic elsewhere can't leave half of one.
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<Known>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ReadModels for Live {
    /// How far all generations have come that commands wait for.
    async fn checkpoint(&self) -> Result<Option<Checkpoint>, ReadModelError> {
        let Some(known) = self.known().await? else {
            return Ok(None);
        };
        let mut least = known.read.projection.checkpoint().await?;
        for other in &known.waited_for {
            let Some(other) = other.projection.checkpoint().await? else {
                return Ok(None);
            };
            if let Some(checkpoint) = &mut least {
                checkpoint.position = checkpoint.position.min(other.position);
            }
        }
        Ok(least)
    }

    async fn dead_letters(
        &self,
        after: Position,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, ReadModelError> {
        match self.current().await? {
            Some(current) => current.dead_letters(after, limit).await,
            None => Ok(Vec::new()),
        }
    }

    async fn dead_letter_count(&self) -> Result<u64, ReadModelError> {
        match self.current().await? {
            Some(current) => current.dead_letter_count().await,
            None => Ok(0),
        }
    }

    async fn users(&self) -> Result<Vec<UserRow>, ReadModelError> {
        match self.current().await? {
            Some(current) => current.users().await,
            None => Ok(Vec::new()),
        }
    }

    async fn users_by_id(&self, ids: &[UserId]) -> Result<Vec<UserRow>, ReadModelError> {
        match self.current().await? {
            Some(current) => current.users_by_id(ids).await,
            None => Ok(Vec::new()),
        }
    }

    async fn room(&self, id: RoomId) -> Result<Option<RoomRow>, ReadModelError> {
        match self.current().await? {
            Some(current) => current.room(id).await,
            None => Ok(None),
        }
    }

    async fn recent(&self, user: UserId, page: Page) -> Result<Vec<RecentRow>, ReadModelError> {
        match self.current().await? {
            Some(current) => current.recent(user, page).await,
            None => Ok(Vec::new()),
        }
    }

    async fn conversation(
        &self,
        room: RoomId,
        page: Page,
    ) -> Result<Option<ConversationRow>, ReadModelError> {
        match self.current().await? {
            Some(current) => current.conversation(room, page).await,
            None => Ok(None),
        }
    }

    async fn history(
        &self,
        room: RoomId,
        message: MessageId,
    ) -> Result<Option<HistoryRow>, ReadModelError> {
        match self.current().await? {
            Some(current) => current.history(room, message).await,
            None => Ok(None),
        }
    }

    async fn expirable(
        &self,
        room_type: RoomType,
        before: Timestamp,
        after: Option<RoomId>,
        limit: u32,
    ) -> Result<Vec<(RoomId, MessageId)>, ReadModelError> {
        match self.current().await? {
            Some(current) => current.expirable(room_type, before, after, limit).await,
            None => Ok(Vec::new()),
        }
    }

    async fn oldest_unexpired(&self, room: RoomId) -> Result<Option<Timestamp>, ReadModelError> {
        match self.current().await? {
            Some(current) => current.oldest_unexpired(room).await,
            None => Ok(None),
        }
    }

    async fn search(
        &self,
        user: UserId,
        search: Search,
    ) -> Result<Vec<MessageRow>, ReadModelError> {
        match self.current().await? {
            Some(current) => current.search(user, search).await,
            None => Ok(Vec::new()),
        }
    }

    async fn newly_read(&self, position: Position) -> Result<u64, ReadModelError> {
        match self.current().await? {
            Some(current) => current.newly_read(position).await,
            None => Ok(0),
        }
    }

    async fn deleted_by(
        &self,
        message: MessageId,
        position: Position,
    ) -> Result<bool, ReadModelError> {
        match self.current().await? {
            Some(current) => current.deleted_by(message, position).await,
            None => Ok(false),
        }
    }

    async fn room_deletion(&self, room: RoomId) -> Result<Option<RoomDeletion>, ReadModelError> {
        match self.current().await? {
            Some(current) => current.room_deletion(room).await,
            None => Ok(None),
        }
    }

    async fn position_of_key(
        &self,
        deduplication_id: uuid::Uuid,
    ) -> Result<Option<Position>, ReadModelError> {
        match self.current().await? {
            Some(current) => current.position_of_key(deduplication_id).await,
            None => Ok(None),
        }
    }
}
