//! Keeping the tree: follows the log, hashes what comes, stores it, and signs.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use event_log::{EventLog, Filter, Followed, Position, Recorded, follow_forever};
use futures::stream::Peekable;
use futures::{FutureExt, Stream, StreamExt};
use merkle::{MISSING, SigningKey, Tree, TreeHead, index_of, leaf_data, leaf_hash, position_of};
use platform::config::{Config, ConfigError};
use read_models::{KeptTree, TreeStore};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::examine::{Begun, check_length, check_log, examine};
use crate::tampering::Trouble;
use crate::webhook::Telling;
use crate::{HeadsFile, Status, Tampering, Webhook};

/// Events that are hashed and stored at once, at most.
const BATCH: usize = 4096;

/// How long is waited for more, once all that there was has been stored: nobody waits for the tree, and each time
/// something is stored costs the same, however little it is.
const PACE: Duration = Duration::from_millis(50);

/// Events that are worth storing without a pause: there are more where they came from.
const WORTHWHILE: usize = 256;

/// How often it is looked whether the log is still the same, and whether a tree head is due.
const LOOK: Duration = Duration::from_millis(500);

/// A notary that is ahead and stores nothing for so long, while there is something to store, is gone.
const GONE_AFTER: Duration = Duration::from_secs(4);

/// The pauses after an outage: from this, twice as long each time, up to [`LONGEST`].
const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);

/// What a notary works with.
#[derive(Clone)]
pub struct Options {
    /// The log to hash.
    pub log: Arc<dyn EventLog>,
    /// Where the tree is kept.
    pub store: Arc<dyn TreeStore>,
    /// The key that signs, and after it those that have signed before.
    pub keys: Vec<SigningKey>,
    /// The file that tree heads are appended to.
    pub file: HeadsFile,
    /// Where they are posted to as well.
    pub webhook: Option<Webhook>,
    /// Sign at the latest after so many events.
    pub every_events: u64,
    /// Sign at the latest after so long, if there was an event.
    pub every: Duration,
    /// Where the notary reports how it is doing.
    pub status: Status,
    /// How long to go on after the shutdown signal with what the log holds by then.
    pub drain: Duration,
}

impl Options {
    /// As the configuration says. Makes a signing key if there is none.
    ///
    /// # Errors
    /// The keys can't be read or made.
    pub fn of(
        config: &Config,
        log: Arc<dyn EventLog>,
        store: Arc<dyn TreeStore>,
        status: Status,
        drain: Duration,
    ) -> Result<Self, ConfigError> {
        Ok(Self {
            log,
            store,
            keys: platform::signing::load(config)?,
            file: HeadsFile::new(config.tree_heads_path()),
            webhook: config.tree_heads_webhook.clone().map(Webhook::new),
            every_events: config.tree_head_events,
            every: config.tree_head_interval(),
            status,
            drain,
        })
    }
}

/// Keeps the tree until `shutdown`, across outages. Something wrong with the log or the stored tree is told
/// in the status, a figure and the log lines, and ends the keeping until a new tree is begun on purpose: what
/// was signed is never made to fit.
pub async fn keep(options: Options, shutdown: CancellationToken) {
    let telling = options
        .webhook
        .clone()
        .map(|webhook| webhook.start(options.status.clone()));
    let keeper = Keeper {
        options,
        telling,
        shutdown,
        seen: AtomicU32::new(0),
    };
    while let Err(tampering) = keeper.keep().await {
        keeper.options.status.stopped(&tampering);
        tracing::error!("THE RECORD DOES NOT STAND ITS EXAMINATION: {tampering}");
        if !keeper.another_tree().await {
            break;
        }
    }
    if let Some(telling) = keeper.telling {
        telling.finish().await;
    }
}

struct Keeper {
    options: Options,
    telling: Option<Telling>,
    shutdown: CancellationToken,
    /// The newest tree when it was looked at last; 0 before the first.
    seen: AtomicU32,
}

/// Why keeping ended without trouble.
enum Ended {
    /// It was told to stop.
    Stopped,
    /// Another notary is ahead.
    Behind,
    /// The log is to be looked at again: what followed it can't go on.
    Lost(String),
}

/// A tree being kept.
struct Keeping {
    kept: KeptTree,
    tree: Tree,
    signed: Option<u64>,
    expected: Option<TreeHead>,
    /// Since when there is something that is not signed.
    unsigned_since: Option<Instant>,
}

impl Keeping {
    /// How many events no tree head covers.
    fn unsigned(&self) -> u64 {
        self.tree.size().saturating_sub(self.signed.unwrap_or(0))
    }

    /// How many events may be hashed at once where so many are signed at the latest: no more than until the next tree
    /// head, which may be one that is known already.
    fn room(&self, every_events: u64) -> usize {
        let left = match &self.expected {
            Some(head) => head.size.saturating_sub(self.tree.size()),
            None => every_events.saturating_sub(self.unsigned()),
        };
        usize::try_from(left).unwrap_or(BATCH).clamp(1, BATCH)
    }
}

impl Keeper {
    async fn keep(&self) -> Result<(), Tampering> {
        let mut pause = FIRST;
        while !self.shutdown.is_cancelled() {
            let Options {
                log,
                store,
                file,
                keys,
                ..
            } = &self.options;
            // Before it is examined: one that is begun meanwhile is another one.
            if let Ok(Some(newest)) = store.newest().await {
                self.seen.store(newest.number, Ordering::Relaxed);
            }
            let begun = examine(log.as_ref(), store.as_ref(), file, keys).await;
            let outcome = match begun {
                Ok(begun) => {
                    pause = FIRST;
                    self.keep_from(begun).await
                }
                Err(trouble) => Err(trouble),
            };
            match outcome {
                Ok(Ended::Stopped) => return Ok(()),
                Ok(Ended::Behind) => self.stand_by().await,
                Ok(Ended::Lost(why)) => tracing::warn!("the tree's log is looked at again: {why}"),
                Err(Trouble::Tampering(tampering)) => return Err(tampering),
                Err(Trouble::Outage(why)) => {
                    tracing::warn!("keeping the tree waits: {why}");
                    self.shutdown.run_until_cancelled(sleep(pause)).await;
                    pause = (pause * 2).min(LONGEST);
                }
            }
        }
        Ok(())
    }

    /// Waits until another tree is begun; `false` when it is told to stop before.
    async fn another_tree(&self) -> bool {
        let given_up = self.seen.load(Ordering::Relaxed);
        while self
            .shutdown
            .run_until_cancelled(sleep(LOOK))
            .await
            .is_some()
        {
            if let Ok(Some(newest)) = self.options.store.newest().await
                && newest.number != given_up
            {
                return true;
            }
        }
        false
    }

    async fn keep_from(&self, begun: Begun) -> Result<Ended, Trouble> {
        let mut keeping = Keeping {
            unsigned_since: (begun.signed.unwrap_or(0) < begun.kept.size).then(Instant::now),
            kept: begun.kept,
            tree: begun.tree,
            signed: begun.signed,
            expected: begun.expected,
        };
        let status = &self.options.status;
        status.keeping(keeping.tree.size(), keeping.signed);
        let abandon = CancellationToken::new();
        let _abandon_at_the_end = abandon.clone().drop_guard();
        let events = follow_forever(
            Arc::clone(&self.options.log),
            Filter::All,
            Position::new(keeping.tree.size()),
            abandon,
        );
        let mut events = events.peekable();
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => break,
                _ = looks.tick() => {
                    if !self.look(&keeping).await? {
                        return Ok(Ended::Lost("another tree was begun".to_owned()));
                    }
                    self.sign_if_due(&mut keeping).await?;
                    status.show_age();
                }
                item = events.next() => match item {
                    Some(Followed::Event(event)) => {
                        let room = keeping.room(self.options.every_events);
                        let batch = gathered(event, &mut events, room, |_| true);
                        let is_all = batch.len() < room.min(WORTHWHILE);
                        if !self.append(&mut keeping, batch).await? {
                            return Ok(Ended::Behind);
                        }
                        self.sign_if_due(&mut keeping).await?;
                        if is_all {
                            self.shutdown.run_until_cancelled(sleep(PACE)).await;
                        }
                    }
                    Some(Followed::Degraded(error)) => {
                        tracing::debug!(%error, "the tree's log can't be followed at present");
                    }
                    Some(Followed::Restored) => {}
                    Some(Followed::Lost(error)) => return Ok(Ended::Lost(error.to_string())),
                    None => break,
                },
            }
        }
        // What the log has by now, in the time that there is.
        let deadline = Instant::now() + self.options.drain;
        if !self.options.drain.is_zero()
            && let Ok(Ok(tail)) = timeout_at(deadline, self.options.log.tail()).await
        {
            while keeping.tree.size() < tail.last.get() {
                match timeout_at(deadline, events.next()).await {
                    Ok(Some(Followed::Event(event))) => {
                        let until = tail.last;
                        let room = keeping.room(self.options.every_events);
                        let batch = gathered(event, &mut events, room, |last| last < until);
                        if !self.append(&mut keeping, batch).await? {
                            return Ok(Ended::Stopped);
                        }
                        self.sign_if_due(&mut keeping).await?;
                    }
                    Ok(Some(Followed::Degraded(_) | Followed::Restored)) => {}
                    Ok(Some(Followed::Lost(_)) | None) | Err(_) => break,
                }
            }
        }
        if keeping.unsigned() > 0 {
            self.sign(&mut keeping).await?;
        }
        Ok(Ended::Stopped)
    }

    /// Whether the log is still the one that was hashed, as far as can be seen from its end; `false` when this
    /// is no longer the tree to keep.
    async fn look(&self, keeping: &Keeping) -> Result<bool, Tampering> {
        if let Ok(newest) = self.options.store.newest().await
            && newest.is_none_or(|newest| newest.number != keeping.kept.number)
        {
            return Ok(false);
        }
        if let Ok(tail) = self.options.log.tail().await {
            check_log(&tail.incarnation, &keeping.kept.log)?;
            check_length(tail.last, "the tree", keeping.tree.size())?;
        }
        Ok(true)
    }

    /// Hashes and stores a batch; `false` when another notary has stored it already.
    async fn append(&self, keeping: &mut Keeping, batch: Vec<Recorded>) -> Result<bool, Trouble> {
        let from = keeping.tree.size();
        for event in batch {
            let index = index_of(event.position).unwrap_or_default();
            if index > keeping.tree.size() {
                self.tell_missing(keeping.tree.size(), index);
            }
            while keeping.tree.size() < index {
                self.append_leaf(keeping, MISSING)?;
            }
            self.append_leaf(keeping, &leaf_data(event.position, &event.payload))?;
        }
        let (number, to) = (keeping.kept.number, keeping.tree.size());
        let tiles = keeping.tree.take_changed();
        if !self.options.store.grow(number, from, to, &tiles).await? {
            return Ok(false);
        }
        keeping.unsigned_since.get_or_insert_with(Instant::now);
        self.options.status.grown(to);
        Ok(true)
    }

    fn append_leaf(&self, keeping: &mut Keeping, data: &[u8]) -> Result<(), Trouble> {
        keeping.tree.append(leaf_hash(data));
        if let Some(head) = &keeping.expected
            && head.size == keeping.tree.size()
        {
            if head.root != keeping.tree.root()? {
                return Err(Tampering::Root(head.size).into());
            }
            keeping.expected = None;
        }
        Ok(())
    }

    fn tell_missing(&self, from: u64, to: u64) {
        let (first, last) = (position_of(from), position_of(to - 1));
        tracing::error!(
            "THE LOG HAS NO EVENT from position {first} to position {last} any more: hashed as missing"
        );
        self.options.status.missing(to - from);
    }

    async fn sign_if_due(&self, keeping: &mut Keeping) -> Result<(), Trouble> {
        let unsigned = keeping.unsigned();
        let waited = keeping.unsigned_since.map(|since| since.elapsed());
        if unsigned > 0
            && (unsigned >= self.options.every_events
                || waited.is_some_and(|waited| waited >= self.options.every))
        {
            self.sign(keeping).await?;
        }
        Ok(())
    }

    async fn sign(&self, keeping: &mut Keeping) -> Result<(), Trouble> {
        // What is known to have been signed is never signed differently.
        if keeping.expected.is_some() {
            return Ok(());
        }
        let Some(key) = self.options.keys.first() else {
            return Ok(());
        };
        let size = keeping.tree.size();
        let head = TreeHead::sign(key, &keeping.kept.log.0, size, keeping.tree.root()?)
            .map_err(Tampering::Head)?;
        self.options
            .store
            .add_head(keeping.kept.number, &head)
            .await?;
        keeping.signed = Some(size);
        keeping.unsigned_since = None;
        self.options.status.signed_at(size);
        let written = self.options.file.append(&head).await;
        let problem = written.err().map(|error| {
            let file = self.options.file.path().display();
            format!("the tree head can't be written to {file}: {error}")
        });
        if let Some(problem) = &problem {
            tracing::warn!("{problem}");
        }
        self.options.status.file(problem);
        if let Some(telling) = &self.telling {
            telling.tell(&head.note);
        }
        Ok(())
    }

    /// Waits until the notary that is ahead stores nothing any more although there is something to store.
    async fn stand_by(&self) {
        self.options.status.standing_by();
        tracing::info!("another notary keeps the tree; this one stands by");
        let mut seen: Option<(u64, Instant)> = None;
        loop {
            let pausing = self.shutdown.run_until_cancelled(sleep(LOOK));
            if pausing.await.is_none() {
                return;
            }
            let kept = self.options.store.newest().await;
            let tail = self.options.log.tail().await;
            let (Ok(Some(kept)), Ok(tail)) = (kept, tail) else {
                seen = None;
                continue;
            };
            match seen {
                Some((size, since)) if size == kept.size && size < tail.last.get() => {
                    if since.elapsed() >= GONE_AFTER {
                        return;
                    }
                }
                _ => seen = Some((kept.size, Instant::now())),
            }
        }
    }
}

/// An event, and those behind it that are there already, `room` in all.
fn gathered(
    first: Recorded,
    events: &mut Peekable<impl Stream<Item = Followed> + Unpin>,
    room: usize,
    goes_on_after: impl Fn(Position) -> bool,
) -> Vec<Recorded> {
    let mut last = first.position;
    let mut batch = vec![first];
    // Anything but an event is left for whoever reads on.
    let is_event = |followed: &Followed| matches!(followed, Followed::Event(_));
    while batch.len() < room
        && goes_on_after(last)
        && let Some(Some(Followed::Event(event))) =
            Pin::new(&mut *events).next_if(is_event).now_or_never()
    {
        last = event.position;
        batch.push(event);
    }
    batch
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use bytes::Bytes;
    use event_log::{Incarnation, LogError};
    use events::Timestamp;
    use futures::stream;

    use super::*;

    #[test]
    fn what_is_hashed_at_once_ends_with_the_next_head_and_be_it_one_that_is_known() {
        let log = "a log";
        let mut tree = Tree::default();
        (0..150).for_each(|_| tree.append(leaf_hash(b"a leaf")));
        let root = tree.root().unwrap();
        let key = SigningKey::from_seed("test.example/log", [1; 32]).unwrap();
        let mut keeping = Keeping {
            kept: KeptTree {
                number: 1,
                log: Incarnation(log.to_owned()),
                size: 150,
            },
            tree,
            signed: Some(100),
            expected: None,
            unsigned_since: None,
        };
        assert_eq!(keeping.room(100), 50);
        keeping.signed = None;
        assert_eq!(keeping.room(100), 1);
        for (known, room) in [(1_000, 850), (1_000_000, BATCH)] {
            keeping.expected = Some(TreeHead::sign(&key, log, known, root).unwrap());
            assert_eq!(keeping.room(100), room);
        }
    }

    #[test]
    fn what_is_no_event_is_left_for_whoever_reads_on() {
        let recorded = |position| Recorded {
            position: Position::new(position),
            subject: "chat.audit".to_owned(),
            stored_at: Timestamp::now(),
            payload: Bytes::new(),
        };
        let lost = LogError::Unusable("it was replaced".to_owned());
        let mut events = stream::iter([
            Followed::Event(recorded(2)),
            Followed::Lost(lost),
            Followed::Event(recorded(3)),
        ])
        .peekable();
        let batch = gathered(recorded(1), &mut events, BATCH, |_| true);
        let positions: Vec<u64> = batch.iter().map(|event| event.position.get()).collect();
        assert_eq!(positions, [1, 2]);
        let next = events.next().now_or_never().unwrap();
        assert!(matches!(next, Some(Followed::Lost(_))), "{next:?}");
    }
}
