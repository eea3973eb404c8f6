//! Gets texts that are gone out of the database's files. It may take long, so that the projection goes on
//! beside it.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use crate::lead::Led;

/// Purges the files of a generation that is led, whenever it is asked to; ends when it is dropped.
///
/// What was asked for and not done, or could not be, is noted in the database: it is done with the next, or
/// when a projector begins to lead.
#[derive(Debug, Clone)]
pub(crate) struct Purging {
    asked: Arc<Notify>,
    _task: Arc<AbortOnDropHandle<()>>,
}

impl Purging {
    pub(crate) fn start(led: Led) -> Self {
        let asked = Arc::new(Notify::new());
        let purging = purge_when_asked(led, Arc::clone(&asked));
        Self {
            asked,
            _task: Arc::new(AbortOnDropHandle::new(tokio::spawn(purging))),
        }
    }

    /// Asks for a purge of all that has gone so far; asked for again meanwhile, there is one more.
    pub(crate) fn ask(&self) {
        self.asked.notify_one();
    }
}

async fn purge_when_asked(led: Led, asked: Arc<Notify>) {
    loop {
        asked.notified().await;
        if let Err(error) = led.projection.purge().await {
            let generation = led.number;
            tracing::warn!(
                generation,
                "texts that are gone may still be in files: {error}"
            );
        }
    }
}
