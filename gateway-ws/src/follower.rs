//! The one follower of the log in this process: each event in order, once, to the hub.
//!
//! Before it begins, it reads what the hub needs to know of the past: who is a member of which room, and
//! the log's last events.

use std::sync::Arc;

use directory::Directory;
use event_log::{Filter, Followed, LogError, Recorded, Tail, follow_forever};
use events::{Envelope, Event, Position};
use futures::{StreamExt, TryStreamExt};
use keys::Record;
use tokio_util::sync::CancellationToken;

use crate::hub::Hub;
use crate::outbox::Push;
use crate::pause::Pause;
use crate::recent::Recent;
use crate::render::Renderer;
use crate::typing::TypingUsers;

/// How many of the log's last events are read at first when the gateway starts.
const FIRST_STEP: u64 = 128;

/// Follows the log from its end on.
pub struct Follower {
    pub(crate) record: Record,
    pub(crate) directory: Directory,
    pub(crate) renderer: Arc<Renderer>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) typing: Arc<TypingUsers>,
    pub(crate) recent_events: usize,
    pub(crate) stop: CancellationToken,
}

impl Follower {
    /// Follows until stopped. When the log is lost, the connections are told, and the following goes on
    /// after the last event that was handed out.
    pub async fn run(self) {
        while !self.stop.is_cancelled() {
            let position = self.begin().await;
            self.restored();
            self.follow(position).await;
            if !self.stop.is_cancelled() {
                // The log is another one than before, so no position means anything any more.
                self.hub.replace_log();
            }
        }
    }

    /// Starts the hub at the end of the log.
    async fn begin(&self) -> Position {
        let mut pause = Pause::new();
        loop {
            match self.read_past().await {
                Ok((tail, recent)) => {
                    self.hub.start(&tail, recent);
                    return tail.last;
                }
                Err(error) => self.degraded(&error),
            }
            pause.wait().await;
        }
    }

    /// Reads what the hub has to know, up to the log's end.
    async fn read_past(&self) -> Result<(Tail, Recent), LogError> {
        let tail = self.record.log.tail().await?;
        let memberships = self.hub.memberships();
        memberships.clear();
        let mut lifecycles = self
            .record
            .log
            .read(Filter::Lifecycles, Position::ZERO)
            .await?;
        while let Some(recorded) = up_to(tail.last, lifecycles.try_next().await?) {
            // Who is in which room takes no keys, which would have to be fetched for each user there ever was.
            if let Ok(envelope) = self.record.outline(&recorded) {
                memberships.observe(recorded.position, &envelope);
            }
        }
        drop(lifecycles);
        let recent = self.read_recent(tail.last).await?;
        for (position, envelope) in recent.events() {
            self.renderer.remember(*position, envelope);
        }
        Ok((tail, recent))
    }

    /// Reads the last events of a log that ends at `end`: backwards, in steps that grow, because only their
    /// sizes say how many are kept. To read as many as there may be would take long where they are large,
    /// and nobody is served until then.
    async fn read_recent(&self, end: Position) -> Result<Recent, LogError> {
        let kept = u64::try_from(self.recent_events).unwrap_or(u64::MAX);
        let oldest = end.get().saturating_sub(kept);
        let mut recent = Recent::starting_after(end, self.recent_events);
        let mut after = end.get();
        let mut step = FIRST_STEP;
        // Where not all of a step had room, there is none for more.
        while after > oldest && recent.after().get() == after {
            let until = Position::new(after);
            after = after.saturating_sub(step).max(oldest);
            step *= 2;
            recent.prepend(self.read_between(Position::new(after), until).await?);
        }
        Ok(recent)
    }

    /// The last of the events after `after` up to and with `end`, as many as are kept.
    async fn read_between(&self, after: Position, end: Position) -> Result<Recent, LogError> {
        let mut recent = Recent::starting_after(after, self.recent_events);
        let mut events = self.record.log.read(Filter::All, after).await?;
        while let Some(recorded) = up_to(end, events.try_next().await?) {
            if let Ok(envelope) = self.record.decode(&recorded).await? {
                let bytes = recorded.payload.len();
                recent.add(recorded.position, Arc::new(envelope), bytes);
            }
            if recorded.position == end {
                break;
            }
        }
        Ok(recent)
    }

    /// Follows until stopped or until the log turns out to be another one.
    async fn follow(&self, after: Position) {
        let mut events = follow_forever(
            Arc::clone(&self.record.log),
            Filter::All,
            after,
            self.stop.clone(),
        );
        let figure = metrics::gauge!("hansard_gateway_position");
        // Shown from the start, not only once something has happened.
        show(&figure, after);
        metrics::gauge!("hansard_sockets").increment(0.0);
        metrics::gauge!("hansard_waiting_requests").increment(0.0);
        while let Some(followed) = events.next().await {
            match followed {
                Followed::Event(recorded) => {
                    self.on_event(&recorded).await;
                    show(&figure, recorded.position);
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

    /// Hands out an event, for the first time.
    async fn on_event(&self, recorded: &Recorded) {
        let position = recorded.position;
        let Some(envelope) = self.decode_patiently(recorded).await.map(Arc::new) else {
            tracing::warn!(%position, "skipping an event in the log that can't be decoded");
            self.hub.skip(position);
            return;
        };
        // What the hub has handed out, the directory must know: whoever joins a room after its deletion
        // was handed out finds it deleted there.
        self.directory.observe(position, &envelope);
        self.renderer.remember(position, &envelope);
        let bytes = recorded.payload.len();
        match &envelope.event {
            Event::UserCreated(_) => self.hub.skip(position),
            Event::UserDeleted(event) => self.hub.end_user(position, event.user_id),
            Event::UserErased(event) => self.hub.erase_user(position, event.user_id),
            _ if self.hub.pass(position, &envelope, bytes) => {}
            event => {
                if let Event::MessagePosted(event) = event {
                    self.typing.has_posted(event.room_id, event.author);
                }
                let push = self.render_patiently(position, &envelope).await;
                let push = push.map(Arc::new);
                self.hub.publish(position, &envelope, bytes, push.as_ref());
            }
        }
    }

    /// The event, however long its keys may be away; `None` when it can't be decoded.
    async fn decode_patiently(&self, recorded: &Recorded) -> Option<Envelope> {
        let decoded = self.patiently(|| self.record.decode(recorded)).await;
        decoded.ok()
    }

    /// What to push of an event, however long the log may take to tell.
    async fn render_patiently(&self, position: Position, envelope: &Envelope) -> Option<Push> {
        let cursor = self.hub.cursor(position);
        self.patiently(|| self.renderer.render(cursor, envelope))
            .await
    }

    /// Makes attempts until one succeeds, and tells the connections meanwhile that the log is lost.
    async fn patiently<T, Attempt>(&self, attempt: impl Fn() -> Attempt) -> T
    where
        Attempt: Future<Output = Result<T, LogError>>,
    {
        let mut pause = Pause::new();
        let mut failed = false;
        loop {
            match attempt().await {
                Ok(outcome) => {
                    if failed {
                        self.restored();
                    }
                    return outcome;
                }
                Err(error) => self.degraded(&error),
            }
            failed = true;
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

#[allow(clippy::cast_precision_loss)]
fn show(figure: &metrics::Gauge, position: Position) {
    figure.set(position.get() as f64);
}

/// The event, unless it comes after `end`.
fn up_to(end: Position, recorded: Option<Recorded>) -> Option<Recorded> {
    recorded.filter(|recorded| recorded.position <= end)
}
