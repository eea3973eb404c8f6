//! The one follower of the log in this process: each event in order, once, to the hub.

use std::sync::Arc;

use directory::Directory;
use event_log::{EventLog, Filter, Followed, LogError, Recorded, follow_forever};
use events::{Event, Position};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use crate::hub::Hub;
use crate::pause::Pause;
use crate::render::{Renderer, decode};

/// Follows the log from its end on.
pub struct Follower {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) directory: Directory,
    pub(crate) renderer: Arc<Renderer>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) shutdown: CancellationToken,
}

impl Follower {
    /// Follows until shutdown. When the log is lost, the connections are told, and the following goes on
    /// after the last event that was handed out.
    pub async fn run(self) {
        let mut position = self.end_of_log().await;
        self.hub.start(position);
        self.restored();
        while !self.shutdown.is_cancelled() {
            self.follow(position).await;
            if self.shutdown.is_cancelled() {
                return;
            }
            // The log is another one than before, so no position means anything any more.
            position = self.end_of_log().await;
            self.hub.replace_log(position);
            self.restored();
        }
    }

    /// Follows until shutdown or until the log turns out to be another one.
    async fn follow(&self, after: Position) {
        let mut events = follow_forever(
            Arc::clone(&self.log),
            Filter::All,
            after,
            self.shutdown.clone(),
        );
        let figure = metrics::gauge!("hansard_gateway_position");
        // Shown from the start, not only once somebody has connected.
        metrics::gauge!("hansard_sockets").increment(0.0);
        while let Some(followed) = events.next().await {
            match followed {
                Followed::Event(recorded) => {
                    if let Err(error) = self.hand_out(&recorded).await {
                        self.degraded(&error);
                        self.hand_out_patiently(&recorded).await;
                        self.restored();
                    }
                    #[allow(clippy::cast_precision_loss)]
                    figure.set(recorded.position.get() as f64);
                }
                Followed::Degraded(error) => self.degraded(&error),
                Followed::Restored => self.restored(),
                Followed::Lost(error) => {
                    tracing::error!(%error, "closing all sockets");
                    return;
                }
            }
        }
    }

    /// Hands out an event. Repeating that after a failure does no harm: the hub moves on last.
    async fn hand_out(&self, recorded: &Recorded) -> Result<(), LogError> {
        let position = recorded.position;
        let Some(envelope) = decode(recorded) else {
            tracing::warn!(%position, "skipping an event in the log that can't be decoded");
            self.hub.pass(position, None);
            return Ok(());
        };
        // What the hub has handed out, the directory must know: whoever joins a room after its deletion
        // was handed out finds it deleted there.
        self.directory.observe(position, &envelope);
        self.renderer.remember(position, &envelope);
        if let Event::UserDeleted(event) = &envelope.event {
            self.hub.end_user(position, event.user_id);
            return Ok(());
        }
        if self.hub.pass(position, envelope.event.room()) {
            return Ok(());
        }
        let push = self.renderer.render(position, &envelope).await?;
        self.hub.publish(position, push.map(Arc::new).as_ref());
        Ok(())
    }

    async fn hand_out_patiently(&self, recorded: &Recorded) {
        let mut pause = Pause::new();
        loop {
            pause.wait().await;
            match self.hand_out(recorded).await {
                Ok(()) => return,
                Err(error) => self.degraded(&error),
            }
        }
    }

    async fn end_of_log(&self) -> Position {
        let mut pause = Pause::new();
        loop {
            match self.log.tail().await {
                Ok(tail) => return tail.last,
                Err(error) => self.degraded(&error),
            }
            pause.wait().await;
        }
    }

    fn degraded(&self, error: &LogError) {
        if self.hub.set_degraded(true) {
            tracing::warn!(%error, "the gateway can't follow the log; trying until it can");
        }
    }

    fn restored(&self) {
        if self.hub.set_degraded(false) {
            tracing::info!("the gateway follows the log again");
        }
    }
}
