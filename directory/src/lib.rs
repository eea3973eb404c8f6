//! Users and rooms as the log knows them, cached in each process and kept fresh by following the log.
//!
//! Commands are decided from what is here, so it depends on the log alone and never on the read models.
//! What is not cached is read from the log: the last event of a user or of a room's lifecycle is its
//! whole state. The cache is used only while the log is being followed; when the following breaks off,
//! everything is read from the log until it is resumed, so that nothing stale is ever answered for long.

use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use event_log::{Filter, LogError, Recorded};
use events::{Envelope, Position, Room, RoomId, Subject, User, UserId};
use futures::{StreamExt, TryStreamExt};
use keys::Record;
use moka::ops::compute::Op;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio_util::sync::CancellationToken;

/// How many users and how many rooms are kept at most.
const CAPACITY: u64 = 100_000;

/// How many users are read from the log at once for one call.
const CONCURRENT_READS: usize = 16;

/// The pause before the log is followed again after the following broke off: the first and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The users and rooms of a log. Cheap to clone; all clones share one cache.
#[derive(Clone)]
pub struct Directory {
    inner: Arc<Inner>,
}

struct Inner {
    record: Record,
    users: Cache<UserId, Known<User>>,
    rooms: Cache<RoomId, Known<Room>>,
    following: RwLock<Following>,
}

/// Whether the log is being followed at present.
#[derive(Debug, Clone, Copy)]
struct Following {
    /// Counts how often the following began. What was cached in an earlier epoch may have missed events
    /// and is not used.
    epoch: u64,
    /// The log is being followed from this position on; `None`: not at present.
    from: Option<Position>,
}

/// A cached state and the epoch in which it was cached.
struct Known<T> {
    epoch: u64,
    state: Arc<T>,
}

impl<T> Clone for Known<T> {
    fn clone(&self) -> Self {
        Self {
            epoch: self.epoch,
            state: Arc::clone(&self.state),
        }
    }
}

/// A state folded from one subject: that of its last event.
trait State: Clone + Send + Sync + 'static {
    type Id: Copy + Eq + Hash + Send + Sync + 'static;

    fn after(position: Position, envelope: &Envelope) -> Option<Self>;
    fn id(&self) -> Self::Id;
    fn position(&self) -> Position;
    /// The same state with its history's last event at `position`.
    fn up_to(self, position: Position) -> Self;
    fn subject(id: Self::Id) -> Subject;
    fn history(id: Self::Id) -> Filter;
    fn cache(inner: &Inner) -> &Cache<Self::Id, Known<Self>>;
}

impl State for User {
    type Id = UserId;

    fn after(position: Position, envelope: &Envelope) -> Option<Self> {
        User::after(position, envelope)
    }

    fn id(&self) -> UserId {
        self.id
    }

    fn position(&self) -> Position {
        self.position
    }

    fn up_to(self, position: Position) -> Self {
        Self { position, ..self }
    }

    fn subject(id: UserId) -> Subject {
        Subject::User(id)
    }

    fn history(id: UserId) -> Filter {
        Filter::User(id)
    }

    fn cache(inner: &Inner) -> &Cache<UserId, Known<Self>> {
        &inner.users
    }
}

impl State for Room {
    type Id = RoomId;

    fn after(position: Position, envelope: &Envelope) -> Option<Self> {
        Room::after(position, envelope)
    }

    fn id(&self) -> RoomId {
        self.id
    }

    fn position(&self) -> Position {
        self.position
    }

    fn up_to(self, position: Position) -> Self {
        Self { position, ..self }
    }

    fn subject(id: RoomId) -> Subject {
        Subject::RoomLifecycle(id)
    }

    fn history(id: RoomId) -> Filter {
        Filter::Room(id)
    }

    fn cache(inner: &Inner) -> &Cache<RoomId, Known<Self>> {
        &inner.rooms
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Directory").finish_non_exhaustive()
    }
}

impl Directory {
    /// Opens the directory of `record` and follows it until `shutdown`.
    ///
    /// Must be called within a Tokio runtime. Answers are right at once: until the log is being followed
    /// they are read from it.
    pub fn start(record: Record, shutdown: CancellationToken) -> Self {
        let directory = Self {
            inner: Arc::new(Inner {
                record,
                users: cache(),
                rooms: cache(),
                following: RwLock::new(Following {
                    epoch: 0,
                    from: None,
                }),
            }),
        };
        let follower = directory.clone();
        tokio::spawn(async move {
            // Dropping the log's futures and streams at any moment is safe.
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = follower.follow_for_ever() => {}
            }
        });
        directory
    }

    /// The user as the log knows it, deleted or not; `None` when there never was one.
    ///
    /// # Errors
    /// The log can't be read.
    pub async fn user(&self, id: UserId) -> Result<Option<User>, LogError> {
        let user = self.find::<User>(id).await?;
        Ok(user.map(|user| User::clone(&user)))
    }

    /// These users in the order of `ids`, deleted or not, without those that never were.
    ///
    /// # Errors
    /// The log can't be read.
    pub async fn users(&self, ids: &[UserId]) -> Result<Vec<User>, LogError> {
        let found: Vec<Option<Arc<User>>> = futures::stream::iter(ids.iter().copied())
            .map(|id| self.find::<User>(id))
            .buffered(CONCURRENT_READS)
            .try_collect()
            .await?;
        Ok(found
            .into_iter()
            .flatten()
            .map(|user| User::clone(&user))
            .collect())
    }

    /// The room as the log knows it, deleted or not; `None` when there never was one.
    ///
    /// # Errors
    /// The log can't be read.
    pub async fn room(&self, id: RoomId) -> Result<Option<Room>, LogError> {
        let room = self.find::<Room>(id).await?;
        Ok(room.map(|room| Room::clone(&room)))
    }

    /// Takes note of the event at `position`, which the caller has appended or read, so that this process
    /// sees its effect at once and not only when the following gets there.
    pub fn observe(&self, position: Position, envelope: &Envelope) {
        let following = self.following();
        // An event from before the following began may since have been followed by another one that
        // nobody will tell of.
        if following.from.is_some_and(|from| position > from) {
            self.fold(following.epoch, position, envelope);
        }
    }

    fn fold(&self, epoch: u64, position: Position, envelope: &Envelope) {
        if let Some(user) = User::after(position, envelope) {
            self.remember(epoch, Arc::new(user));
        }
        if let Some(room) = Room::after(position, envelope) {
            self.remember(epoch, Arc::new(room));
        }
    }

    fn following(&self) -> Following {
        *self
            .inner
            .following
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn set_following(&self, from: Option<Position>) -> u64 {
        let mut following = self
            .inner
            .following
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        following.from = from;
        if from.is_some() {
            following.epoch += 1;
        }
        following.epoch
    }

    async fn find<T: State>(&self, id: T::Id) -> Result<Option<Arc<T>>, LogError> {
        // Asked before the log is read: whatever is appended after the reading is then sure to be
        // followed.
        let following = self.following();
        if following.from.is_some()
            && let Some(known) = T::cache(&self.inner).get(&id)
            && known.epoch == following.epoch
        {
            return Ok(Some(known.state));
        }
        let Some(state) = self.load::<T>(id).await?.map(Arc::new) else {
            return Ok(None);
        };
        if following.from.is_some() {
            self.remember(following.epoch, Arc::clone(&state));
        }
        Ok(Some(state))
    }

    /// Caches `state` unless the cache knows a later one.
    fn remember<T: State>(&self, epoch: u64, state: Arc<T>) {
        T::cache(&self.inner)
            .entry(state.id())
            .and_compute_with(|known| match known.map(|entry| entry.into_value()) {
                Some(known)
                    if (known.epoch, known.state.position()) >= (epoch, state.position()) =>
                {
                    Op::Nop
                }
                _ => Op::Put(Known { epoch, state }),
            });
    }

    async fn load<T: State>(&self, id: T::Id) -> Result<Option<T>, LogError> {
        let subject = T::subject(id);
        let Some(last) = self.inner.record.log.last_of(subject).await? else {
            return Ok(None);
        };
        let decoded = self.inner.record.decode(&last).await?;
        if let Some(state) = decoded.ok().and_then(|it| T::after(last.position, &it)) {
            return Ok(Some(state));
        }
        // The subject's last event is none that this version knows. Every reader skips such events, so
        // the state is that of the last one which is not skipped; but who appends must expect the log to
        // have them.
        let mut history = self
            .inner
            .record
            .log
            .read(T::history(id), Position::ZERO)
            .await?;
        let mut state = None;
        while let Some(recorded) = history.try_next().await? {
            let decoded = self.inner.record.decode(&recorded).await?;
            if let Some(next) = decoded.ok().and_then(|it| T::after(recorded.position, &it)) {
                state = Some(next);
            }
        }
        Ok(state.map(|state: T| state.up_to(last.position)))
    }

    async fn follow_for_ever(&self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.follow(&mut pause).await {
                Ok(()) => LogError::Unavailable("the log ended its stream of events".to_owned()),
                Err(error) => error,
            };
            self.set_following(None);
            tracing::warn!(%error, "the directory can't follow the log; reading from the log itself");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Follows the log from its end until that breaks off.
    async fn follow(&self, pause: &mut Duration) -> Result<(), LogError> {
        let tail = self.inner.record.log.tail().await?;
        let mut events = self
            .inner
            .record
            .log
            .follow(Filter::Lifecycles, tail.last)
            .await?;
        let epoch = self.set_following(Some(tail.last));
        while let Some(recorded) = events.try_next().await? {
            *pause = FIRST_PAUSE;
            match self.inner.record.decode(&recorded).await? {
                Ok(envelope) => self.fold(epoch, recorded.position, &envelope),
                Err(_) => self.skip(&recorded),
            }
        }
        Ok(())
    }

    /// An event that this version doesn't know changes no state, but moves the end of its history: what is
    /// cached of that is read anew.
    fn skip(&self, recorded: &Recorded) {
        match recorded.subject.parse() {
            Ok(Subject::User(user)) => self.inner.users.invalidate(&user),
            Ok(Subject::RoomLifecycle(room)) => self.inner.rooms.invalidate(&room),
            Ok(
                Subject::RoomTimeline(_)
                | Subject::RoomHold(_)
                | Subject::RoomRetention(_)
                | Subject::Audit,
            )
            | Err(_) => {}
        }
    }
}

fn cache<Id, T>() -> Cache<Id, Known<T>>
where
    Id: Eq + Hash + Send + Sync + 'static,
    T: Send + Sync + 'static,
{
    // LRU, because the default policy may refuse to take in what was just read, and a later event must
    // not find its predecessor gone while an older reading is still under way.
    Cache::builder()
        .max_capacity(CAPACITY)
        .eviction_policy(EvictionPolicy::lru())
        .build()
}
