//! How far the projection has come, watched for the requests of one process.
//!
//! Commands wait here until their event can be read, queries until what their caller has seen can be. One
//! task looks at the checkpoint for all of them: rarely when nobody waits, often when somebody does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use events::Position;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Checkpoint, ReadModels};

/// How often the checkpoint is read while nobody waits for it.
const IDLE_POLL: Duration = Duration::from_secs(1);

/// How often it is read while somebody waits: short against the time that a batch takes.
const BUSY_POLL: Duration = Duration::from_millis(3);

/// A heartbeat that stands still for longer than this means that no projector is at work. Projectors move
/// it about once a second, and it is looked at about once a second.
const DOWN_AFTER: Duration = Duration::from_secs(3);

/// How far the projection has come. Clones share one watcher.
#[derive(Clone)]
pub struct Progress {
    shared: Arc<Shared>,
}

struct Shared {
    seen: watch::Sender<Seen>,
    waiting: AtomicUsize,
    wanted: Notify,
}

#[derive(Debug, Clone)]
struct Seen {
    checkpoint: Option<Checkpoint>,
    /// When the checkpoint or its heartbeat last moved, or watching began.
    moved: Instant,
    /// Whether the last look did not reach the read models.
    unreachable: bool,
}

impl Seen {
    /// Takes over what was read or told; `false` when it is nothing new.
    fn note(&mut self, checkpoint: Option<Checkpoint>) -> bool {
        let was_unreachable = std::mem::replace(&mut self.unreachable, false);
        let Some(new) = checkpoint else {
            return was_unreachable;
        };
        let moved = self.checkpoint.as_ref().is_none_or(|old| {
            old.incarnation != new.incarnation
                || new.position > old.position
                || new.heartbeat > old.heartbeat
        });
        if !moved {
            return was_unreachable;
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
        true
    }
}

impl Progress {
    /// Starts watching, until `shutdown`.
    pub fn start(read_models: Arc<dyn ReadModels>, shutdown: CancellationToken) -> Self {
        let (seen, _) = watch::channel(Seen {
            checkpoint: None,
            moved: Instant::now(),
            unreachable: false,
        });
        let shared = Arc::new(Shared {
            seen,
            waiting: AtomicUsize::new(0),
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
        self.shared
            .seen
            .send_if_modified(|seen| seen.note(Some(checkpoint.clone())));
    }

    /// Waits until everything up to and with `position` has been projected; `false` when `timeout` passes
    /// first.
    pub async fn wait_for(&self, position: Position, timeout: Duration) -> bool {
        let reached = |seen: &Seen| {
            seen.checkpoint
                .as_ref()
                .is_some_and(|checkpoint| checkpoint.position >= position)
        };
        let mut seen = self.shared.seen.subscribe();
        if reached(&seen.borrow_and_update()) {
            return true;
        }
        let _waiting = Waiting::on(&self.shared);
        tokio::time::timeout(timeout, seen.wait_for(reached))
            .await
            .is_ok_and(|found| found.is_ok())
    }

    /// The newest checkpoint seen; `None` before the first.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        self.shared.seen.borrow().checkpoint.clone()
    }

    /// Whether the last look at the read models did not reach them: asking them for anything is hardly
    /// worth waiting for.
    pub fn read_models_are_down(&self) -> bool {
        self.shared.seen.borrow().unreachable
    }

    /// Whether it is known that nothing is being projected: the heartbeat stood still for 3 seconds, no
    /// checkpoint came up in the first 3, or the read models can't be reached.
    pub fn projector_is_down(&self) -> bool {
        let seen = self.shared.seen.borrow();
        seen.unreachable || seen.moved.elapsed() > DOWN_AFTER
    }

    /// How far behind the log the read models are, as far as that is known: what the projector told last,
    /// and once it has been silent for 3 seconds, the time since it was last heard of as well.
    pub fn lag(&self) -> Duration {
        let seen = self.shared.seen.borrow();
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
        match read_models.checkpoint().await {
            Ok(checkpoint) => {
                shared.seen.send_if_modified(|seen| seen.note(checkpoint));
            }
            Err(_) => {
                shared
                    .seen
                    .send_if_modified(|seen| !std::mem::replace(&mut seen.unreachable, true));
            }
        }
        if shared.waiting.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(BUSY_POLL).await;
        } else {
            tokio::select! {
                () = tokio::time::sleep(IDLE_POLL) => {}
                () = shared.wanted.notified() => {}
            }
        }
    }
}

/// Makes the watcher look often for as long as it lives.
struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    fn on(shared: &'a Shared) -> Self {
        if shared.waiting.fetch_add(1, Ordering::SeqCst) == 0 {
            shared.wanted.notify_one();
        }
        Self(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}
