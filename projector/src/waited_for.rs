//! How far the generations have come that commands wait for, told at once to those who wait in this process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use event_log::Position;
use read_models::{Checkpoint, Progress};

/// The generations that commands wait for. Clones share them.
#[derive(Clone)]
pub(crate) struct WaitedFor {
    progress: Option<Progress>,
    /// How far each has come, by number; `None` when another process projects it.
    positions: Arc<Mutex<BTreeMap<u32, Option<Position>>>>,
}

/// Tells of one generation.
#[derive(Clone)]
pub(crate) struct Told {
    waited_for: WaitedFor,
    number: u32,
}

impl WaitedFor {
    pub(crate) fn new(progress: Option<Progress>) -> Self {
        Self {
            progress,
            positions: Arc::default(),
        }
    }

    /// Commands wait for these from now on.
    pub(crate) fn set(&self, numbers: &[u32]) {
        let mut positions = self.lock();
        positions.retain(|number, _| numbers.contains(number));
        for number in numbers {
            positions.entry(*number).or_default();
        }
    }

    /// To tell of this generation.
    pub(crate) fn of(&self, number: u32) -> Told {
        Told {
            waited_for: self.clone(),
            number,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, Option<Position>>> {
        self.positions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    /// The generation has come so far.
    pub(crate) fn advance(&self, checkpoint: &Checkpoint) {
        let Some(progress) = &self.waited_for.progress else {
            return;
        };
        let mut positions = self.waited_for.lock();
        let Some(own) = positions.get_mut(&self.number) else {
            return;
        };
        *own = Some(checkpoint.position);
        // Those that others project are seen by looking at the database.
        let all: Option<Vec<Position>> = positions.values().copied().collect();
        drop(positions);
        if let Some(least) = all.and_then(|all| all.into_iter().min()) {
            progress.advance(&Checkpoint {
                position: least,
                ..checkpoint.clone()
            });
        }
    }

    /// Another process goes on with it.
    pub(crate) fn lose(&self) {
        if let Some(own) = self.waited_for.lock().get_mut(&self.number) {
            *own = None;
        }
    }
}
