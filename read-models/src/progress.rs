//! How far the projection has come, watched for the requests of one process.
//!
//! Commands wait here until their event can be read, queries until what their caller has seen can be. One
//! task looks at the checkpoint for all of them: rarely when nobody waits or a projector of this process tells,
//! else often.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use events::Position;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Checkpoint, ReadModels};

/// How often the checkpoint is read while nobody waits for it.
const IDLE_POLL: Duration = Duration::from_secs(1);

/// How often it is read while somebody waits: short against the time that a batch takes.
const BUSY_POLL: Duration = Duration::from_millis(3);

/// The same while a projector of this process tells of its progress.
const TOLD_POLL: Duration = Duration::from_millis(50);

/// A heartbeat that stands still for longer than this means that no projector is at work. Projectors move
/// it about once a second, and it is looked at about once a second.
const DOWN_AFTER: Duration = Duration::from_secs(3);

/// How far the projection has come. Clones share one watcher.
#[derive(Clone)]
pub struct Progress {
    shared: Arc<Shared>,
}

struct Shared {
    seen: Mutex<Seen>,
    wanted: Notify,
}

#[derive(Debug)]
struct Seen {
    checkpoint: Option<Checkpoint>,
    /// When the checkpoint or its heartbeat last moved, or watching began.
    moved: Instant,
    /// When a projector of this process last told of its progress.
    told: Option<Instant>,
    /// Whether the last look did not reach the read models.
    unreachable: bool,
    /// Who waits, by position, so that each is woken once: there may be thousands.
    waiting: BTreeMap<(Position, u64), oneshot::Sender<()>>,
    /// How many have waited.
    waited: u64,
}

impl Seen {
    /// Takes over what was read or told, and wakes those for whom it is enough.
    fn note(&mut self, checkpoint: Option<Checkpoint>) {
        self.unreachable = false;
        let Some(new) = checkpoint else {
            return;
        };
        let moved = self.checkpoint.as_ref().is_none_or(|old| {
            old.incarnation != new.incarnation
                || new.position > old.position
                || new.heartbeat > old.heartbeat
        });
        if !moved {
            return;
        }
        self.moved = Instant::now();
        match &mut self.checkpoint {
            // A look that began before a projector told of its progress must not take it back.
            Some(old) if old.incarnation == new.incarnation => {
                old.position = old.position.max(new.position);
                if new.heartbeat > old.heartbeat {
                    old.heartbeat = new.heartbeat;
                    old.lag = new.lag;
                }
            }
            other => *other = Some(new),
        }
        let reached = self.checkpoint.as_ref().map(|it| it.position);
        while let Some(first) = self.waiting.first_entry()
            && Some(first.key().0) <= reached
        {
            // Whoever has gone away does not want to know.
            let _ = first.remove().send(());
        }
    }

    fn has_reached(&self, position: Position) -> bool {
        let checkpoint = self.checkpoint.as_ref();
        checkpoint.is_some_and(|checkpoint| checkpoint.position >= position)
    }

    /// When to look again, while somebody waits.
    fn busy_poll(&self) -> Duration {
        match self.told {
            Some(told) if told.elapsed() < TOLD_POLL => TOLD_POLL,
            _ => BUSY_POLL,
        }
    }
}

impl Progress {
    /// Starts watching, until `shutdown`.
    pub fn start(read_models: Arc<dyn ReadModels>, shutdown: CancellationToken) -> Self {
        let shared = Arc::new(Shared {
            seen: Mutex::new(Seen {
                checkpoint: None,
                moved: Instant::now(),
                told: None,
                unreachable: false,
                waiting: BTreeMap::new(),
                waited: 0,
            }),
            wanted: Notify::new(),
        });
        let watcher = Arc::clone(&shared);
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = watch_checkpoint(&watcher, read_models.as_ref()) => {}
            }
        });
        Self { shared }
    }

    /// Tells of a checkpoint that a projector in this process has just written.
    pub fn advance(&self, checkpoint: &Checkpoint) {
        let mut seen = self.shared.seen();
        seen.told = Some(Instant::now());
        seen.note(Some(checkpoint.clone()));
    }

    /// Waits until everything up to and with `position` has been projected; `false` when `timeout` passes
    /// first.
    pub async fn wait_for(&self, position: Position, timeout: Duration) -> bool {
        if timeout.is_zero() {
            return self.shared.seen().has_reached(position);
        }
        let Some((_waiting, reached)) = self.shared.enlist(position) else {
            return true;
        };
        let reached = tokio::time::timeout(timeout, reached).await;
        reached.is_ok_and(|told| told.is_ok())
    }

    /// The newest checkpoint seen; `None` before the first.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        self.shared.seen().checkpoint.clone()
    }

    /// Whether the last look at the read models did not reach them: asking them for anything is hardly
    /// worth waiting for.
    pub fn read_models_are_down(&self) -> bool {
        self.shared.seen().unreachable
    }

    /// Whether it is known that nothing is being projected: the heartbeat stood still for 3 seconds, no
    /// checkpoint came up in the first 3, or the read models can't be reached.
    pub fn projector_is_down(&self) -> bool {
        let seen = self.shared.seen();
        seen.unreachable || seen.moved.elapsed() > DOWN_AFTER
    }

    /// How far behind the log the read models are, as far as that is known: what the projector told last,
    /// and once it has been silent for 3 seconds, the time since it was last heard of as well.
    pub fn lag(&self) -> Duration {
        let seen = self.shared.seen();
        let told = seen
            .checkpoint
            .as_ref()
            .map_or(Duration::ZERO, |checkpoint| checkpoint.lag);
        match seen.moved.elapsed() {
            silence if silence > DOWN_AFTER => told + silence,
            _ => told,
        }
    }
}

async fn watch_checkpoint(shared: &Shared, read_models: &dyn ReadModels) {
    loop {
        let read = read_models.checkpoint().await;
        let busy_poll = {
            let mut seen = shared.seen();
            match read {
                Ok(checkpoint) => seen.note(checkpoint),
                Err(_) => seen.unreachable = true,
            }
            (!seen.waiting.is_empty()).then(|| seen.busy_poll())
        };
        match busy_poll {
            Some(poll) => tokio::time::sleep(poll).await,
            None => {
                tokio::select! {
                    () = tokio::time::sleep(IDLE_POLL) => {}
                    () = shared.wanted.notified() => {}
                }
            }
        }
    }
}

/// Somebody who waits, for as long as it lives.
struct Waiting<'a> {
    shared: &'a Shared,
    key: (Position, u64),
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has somebody wait for `position`, who is told when it is reached; `None`: it is already.
    fn enlist(&self, position: Position) -> Option<(Waiting<'_>, oneshot::Receiver<()>)> {
        let mut seen = self.seen();
        if seen.has_reached(position) {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        if seen.waiting.is_empty() {
            self.wanted.notify_one();
        }
        seen.waited += 1;
        let key = (position, seen.waited);
        seen.waiting.insert(key, sender);
        Some((Waiting { shared: self, key }, receiver))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared.seen().waiting.remove(&self.key);
    }
}
