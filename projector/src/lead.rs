//! Leading a generation: one projector at a time writes it, and another takes over within seconds when
//! that one is gone.
//!
//! No clocks are compared. A leader moves the generation's heartbeat, and one whose heartbeat stands still
//! is taken to be gone. That may be wrong: it may only have been paused. So each take-over has a new fence,
//! and what the old leader still tries to write as such is refused.

use std::sync::Arc;
use std::time::Duration;

use read_models::{Fence, Projection, ReadModelError};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{ProjectorError, Status, backoff};

/// How often a leader shows that it is there.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// A leader that has shown nothing for so long is gone.
const GONE_AFTER: Duration = Duration::from_secs(3);

/// How often those who stand by look.
const LOOK: Duration = Duration::from_millis(250);

/// How often they look at first, and for how long: a lease that was taken for a moment only, for a snapshot,
/// is soon given back.
const FIRST_LOOKS: Duration = Duration::from_millis(20);
const FIRST: Duration = Duration::from_secs(1);

/// A generation that this projector leads.
#[derive(Clone)]
pub(crate) struct Led {
    pub(crate) number: u32,
    pub(crate) projection: Arc<dyn Projection>,
    pub(crate) fence: Fence,
    /// Cancelled when another projector has taken over.
    pub(crate) lost: CancellationToken,
    heart: Heart,
    /// Ends the heartbeat with the last clone.
    _beating: Arc<DropGuard>,
}

/// Shows that a leader is there.
#[derive(Clone)]
struct Heart {
    projection: Arc<dyn Projection>,
    fence: Fence,
    lost: CancellationToken,
    status: Status,
}

impl Heart {
    async fn go_on_beating(self, stop: CancellationToken) {
        let mut ticks = interval(HEARTBEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() && !self.lost.is_cancelled() {
            self.beat().await;
        }
    }

    /// Tells those who look at the checkpoint that a projector is at work, and how far behind it is. A log
    /// that can't be reached adds nothing to that: who can't append can't be missed.
    async fn beat(&self) {
        let lag = self.status.own_lag().map(|lag| lag.age);
        match self.projection.heartbeat(self.fence, lag).await {
            Ok(()) => {}
            Err(ReadModelError::Overtaken) => self.lost.cancel(),
            // An outage is noticed and waited out by the projection itself.
            Err(error) => tracing::debug!(%error, "no heartbeat"),
        }
    }
}

impl Led {
    /// Begins to lead with a fence that was just taken.
    fn begin(number: u32, projection: Arc<dyn Projection>, fence: Fence, status: Status) -> Self {
        let (lost, stop) = (CancellationToken::new(), CancellationToken::new());
        let heart = Heart {
            projection: Arc::clone(&projection),
            fence,
            lost: lost.clone(),
            status,
        };
        tokio::spawn(heart.clone().go_on_beating(stop.clone()));
        Self {
            number,
            projection,
            fence,
            lost,
            heart,
            _beating: Arc::new(stop.drop_guard()),
        }
    }

    /// Shows at once that this projector is there, and how far behind it is.
    pub(crate) async fn beat(&self) {
        self.heart.beat().await;
    }

    /// Whether the generation is the one that is read.
    pub(crate) fn is_served(&self) -> bool {
        self.heart.status.is_served()
    }

    /// Takes the lead at once, whoever has it. `None` when somebody else was faster.
    pub(crate) async fn seize(
        number: u32,
        projection: Arc<dyn Projection>,
        name: &str,
        status: Status,
    ) -> Result<Option<Self>, ReadModelError> {
        let seen = projection.lease().await?;
        let fence = projection.take_lease(seen.fence, name).await?;
        Ok(fence.map(|fence| Self::begin(number, projection, fence, status)))
    }

    /// Lets others lead at once.
    pub(crate) async fn release(self) {
        // If it can't be reached, the others wait until they see no heartbeat.
        if let Err(error) = self.projection.release_lease(self.fence).await {
            tracing::debug!(%error, "the lease could not be given back");
        }
    }
}

/// Waits until nobody else leads the generation, and leads it; `None` when `stop` comes first. A lease of
/// `own_last_run`, the name that this projector had before it was started again, is not waited for.
pub(crate) async fn lead(
    number: u32,
    projection: Arc<dyn Projection>,
    name: &str,
    own_last_run: Option<&str>,
    stop: &CancellationToken,
    status: &Status,
) -> Result<Option<Led>, ProjectorError> {
    let begun = Instant::now();
    let mut seen: Option<(Fence, Option<u64>, Instant)> = None;
    while !stop.is_cancelled() {
        let look = || async {
            let lease = projection.lease().await?;
            let checkpoint = projection.checkpoint().await?;
            Ok((lease, checkpoint.map(|checkpoint| checkpoint.heartbeat)))
        };
        let looked = backoff::wait_for("the read models", stop, look).await;
        let Some((lease, heartbeat)) = looked.map_err(ProjectorError::ReadModels)? else {
            return Ok(None);
        };
        let now = Instant::now();
        let since = match seen {
            Some((fence, before, since)) if fence == lease.fence && before == heartbeat => since,
            _ => now,
        };
        seen = Some((lease.fence, heartbeat, since));
        let holder = lease.holder.as_deref();
        let is_free =
            holder.is_none_or(|holder| Some(holder) == own_last_run) || now - since >= GONE_AFTER;
        if is_free {
            let take = || projection.take_lease(lease.fence, name);
            let taken = backoff::wait_for("the read models", stop, take).await;
            if let Some(Some(fence)) = taken.map_err(ProjectorError::ReadModels)? {
                if let Some(holder) = holder {
                    tracing::info!(generation = number, from = holder, "taking the lead over");
                }
                return Ok(Some(Led::begin(number, projection, fence, status.clone())));
            }
            continue;
        }
        status.standing_by(holder.unwrap_or_default());
        tokio::select! {
            () = stop.cancelled() => {}
            () = sleep(if begun.elapsed() < FIRST { FIRST_LOOKS } else { LOOK }) => {}
        }
    }
    Ok(None)
}
