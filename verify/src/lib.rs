//! Verifies what is derived from the log: folds the log afresh, by the simplest rules there are, and compares
//! what comes out with what is stored.
//!
//! Memory is bounded: the log is read as many times as it takes to hold no more than so many messages at a
//! time ([`Options::at_once`]), each time for the users and rooms of another shard. Everything else goes on
//! meanwhile: what is stored is read from a snapshot.

mod compare;
mod fold;
mod keys;
mod report;

use std::collections::{BTreeSet, HashSet};

use ::keys::Record;
use event_log::{Filter, Incarnation, LogError, Tail};
use events::{Envelope, Position};
use futures::StreamExt;
use read_models::{Checkpoint, ReadModelError, Snapshot};

pub use crate::report::{Counts, Difference, Kind, Report};

use crate::fold::{Fold, Shard};
use crate::keys::Keys;

/// Progress is told every so many events.
const TOLD_EVERY: u64 = 1_000;

/// How many dead letters are read at a time.
const PAGE: u32 = 1_000;

/// How to verify.
pub struct Options<'a> {
    /// How many events to hold at a time, more or less: ids spread them evenly, but a room is held as a
    /// whole. A message takes some 150 bytes.
    pub at_once: u64,
    /// How many differences to list; the rest are counted.
    pub listed: usize,
    /// Is told how far the verification is: events read, of how many.
    pub progress: &'a (dyn Fn(u64, u64) + Send + Sync),
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self {
            at_once: 500_000,
            listed: 100,
            progress: &|_, _| {},
        }
    }
}

/// Why a verification could not be done.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The read models are another log's.
    #[error(
        "the log is not the one that the read models were projected from: it is log {:?}, they come from \
         log {:?}", log.0, read_models.0
    )]
    OtherLog {
        /// The log's identity.
        log: Incarnation,
        /// The identity of the log that the read models come from.
        read_models: Incarnation,
    },
    /// The log lost events that were projected.
    #[error(
        "the log ends at position {log}, before the read models' checkpoint at position {checkpoint}: it \
         has lost its tail"
    )]
    LogEndsEarly {
        /// The position of the log's last event.
        log: Position,
        /// The position up to which events were projected.
        checkpoint: Position,
    },
    /// The log can't be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The read models can't be read.
    #[error(transparent)]
    ReadModels(#[from] ReadModelError),
}

/// Compares what is stored, which is the log up to the snapshot's checkpoint and nothing of what comes after,
/// with the log.
///
/// # Errors
/// A [`VerifyError`]: it could not be done.
pub async fn snapshot(
    record: &Record,
    snapshot: &mut dyn Snapshot,
    options: &Options<'_>,
) -> Result<Report, VerifyError> {
    let tail = record.log.tail().await?;
    if let Some(checkpoint) = snapshot.checkpoint() {
        check_history(&tail, checkpoint)?;
    }
    let up_to = place(snapshot.checkpoint());
    let mut report = Report::new(up_to, tail.last, options.listed);
    let shards = up_to.get().div_ceil(options.at_once.max(1)).max(1);
    let mut passes = Passes {
        record,
        up_to,
        set_aside: dead_letters(snapshot, up_to).await?,
        planned: 2 * shards,
        passed: 0,
        progress: options.progress,
    };
    let mut unfound = passes.set_aside.clone();
    // Events that are void because another came first with their key.
    let mut void = HashSet::new();
    for shard in Shard::all(shards) {
        let is_first = shard.index == 0;
        let mut keys = Keys::of(shard);
        passes
            .pass(|position, event| {
                report.set_aside += u64::from(is_first && unfound.remove(&position));
                match event.decoded {
                    Ok(envelope) => keys.event(position, &envelope, event.is_set_aside, &mut void),
                    Err(reason) if is_first && !event.is_set_aside => {
                        let told = format!("{reason}, and it is not set aside as a dead letter");
                        report.differs(Kind::Event, position, told);
                    }
                    Err(_) => {}
                }
            })
            .await?;
        compare::keys(keys, shard, snapshot, &mut void, &mut report).await?;
    }
    for position in unfound {
        let told = "is set aside as a dead letter, but the log has no such event".to_owned();
        report.differs(Kind::Event, position, told);
    }
    for shard in Shard::all(shards) {
        let mut fold = Fold::of(shard);
        passes
            .pass(|position, event| {
                if let Ok(envelope) = event.decoded
                    && !event.is_set_aside
                    && !void.contains(&position)
                {
                    fold.event(position, &envelope);
                }
            })
            .await?;
        compare::shard(fold, shard, snapshot, &mut report).await?;
    }
    snapshot.finish().await?;
    Ok(report)
}

fn place(checkpoint: Option<&Checkpoint>) -> Position {
    checkpoint.map_or(Position::ZERO, |checkpoint| checkpoint.position)
}

/// That the checkpoint is one of the log that ends here.
fn check_history(tail: &Tail, checkpoint: &Checkpoint) -> Result<(), VerifyError> {
    if tail.incarnation != checkpoint.incarnation {
        return Err(VerifyError::OtherLog {
            log: tail.incarnation.clone(),
            read_models: checkpoint.incarnation.clone(),
        });
    }
    if tail.last < checkpoint.position {
        return Err(VerifyError::LogEndsEarly {
            log: tail.last,
            checkpoint: checkpoint.position,
        });
    }
    Ok(())
}

/// Where the dead letters up to here stand.
async fn dead_letters(
    snapshot: &mut dyn Snapshot,
    up_to: Position,
) -> Result<BTreeSet<Position>, VerifyError> {
    let mut found = BTreeSet::new();
    let mut after = None;
    loop {
        let page = snapshot.dead_letters(after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(*last);
        found.extend(page.into_iter().filter(|position| *position <= up_to));
    }
    Ok(found)
}

/// The log up to the checkpoint, to be read again and again.
struct Passes<'a> {
    record: &'a Record,
    up_to: Position,
    set_aside: BTreeSet<Position>,
    planned: u64,
    passed: u64,
    progress: &'a (dyn Fn(u64, u64) + Send + Sync),
}

struct Read {
    /// The event, or why it can't be used.
    decoded: Result<Envelope, &'static str>,
    /// Whether it is among the dead letters.
    is_set_aside: bool,
}

impl Passes<'_> {
    /// Reads the log once.
    async fn pass(&mut self, mut each: impl FnMut(Position, Read)) -> Result<(), VerifyError> {
        let length = self.up_to.get();
        let (before, total) = (self.passed * length, self.planned * length);
        if length > 0 {
            let mut events = self.record.log.read(Filter::All, Position::ZERO).await?;
            while let Some(recorded) = events.next().await {
                let recorded = recorded?;
                let position = recorded.position;
                if position > self.up_to {
                    break;
                }
                let read = Read {
                    decoded: self.record.decode(&recorded).await?.map_err(|it| it.kind()),
                    is_set_aside: self.set_aside.contains(&position),
                };
                each(position, read);
                if position.get() % TOLD_EVERY == 0 {
                    (self.progress)(before + position.get(), total);
                }
            }
        }
        (self.progress)(before + length, total);
        self.passed += 1;
        Ok(())
    }
}
