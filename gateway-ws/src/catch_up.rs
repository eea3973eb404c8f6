//! Making a subscription: checking it, replaying what was missed, and going live.
//!
//! The switch from history to live has neither gap nor duplicate, by positions alone. What the hub has
//! handed out is read, from its recent events or from the log, again and again, until the client has taken
//! all of it and the hub has hardly moved on; then the connection joins the room in the hub, at position J
//! say, and what is missing up to J is read. The hub delivers what comes after J. Meanwhile that waits with the connection, in a bounded queue;
//! should it overflow, the connection leaves the room and begins again from where it has got to. So
//! memory is bounded however long the history and however busy the room, and a client that reads slowly
//! is only longer in catching up.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::ws::Utf8Bytes;
use event_log::LogError;
use events::{Envelope, Event, Position, Room, RoomId, UserId};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use crate::Shared;
use crate::history::Scope;
use crate::hub::ConnectionId;
use crate::outbox::Outbox;
use crate::pause::Pause;
use crate::protocol::{After, Change, ErrorCode, ServerFrame};

/// How many positions the hub may be ahead when a catching-up connection joins: an upper bound of how
/// many events of the room are still to be read while live ones wait.
const NEAR: u64 = 512;

/// How many frames are made ahead of their being written.
const AHEAD: usize = 16;

/// For how long in all a client may make the log wait before others get its turn.
const PATIENCE: Duration = Duration::from_secs(3);

/// A subscription to make.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// To what.
    pub scope: Scope,
    /// The last position the client has.
    pub after: Option<After>,
    /// Whether the members' presence is wanted.
    pub presence: bool,
    /// Whether it goes on with a replay that had to stop at `after`.
    pub continues: bool,
}

/// What the connection is to do next for a catch-up.
#[derive(Debug)]
pub enum Step {
    /// Send a frame that tells of no event.
    Send(Utf8Bytes),
    /// Send a frame that tells of an event.
    Replay {
        /// Where it happened.
        room: RoomId,
        /// The event's position.
        position: Position,
        /// The frame.
        frame: Utf8Bytes,
    },
    /// Watch the presence of the room's members.
    Watch(RoomId, Vec<UserId>),
    /// Answer when everything has been written.
    Drain(oneshot::Sender<()>),
}

/// How a catch-up ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything up to and with `from` has been sent: live events follow.
    Live {
        /// Where live begins.
        from: Position,
        /// Whether events before that had been asked for.
        resumed: bool,
    },
    /// There is no subscription: it was refused, or the room is deleted.
    Over,
}

/// What a catch-up has come to.
#[derive(Debug)]
pub enum Progress {
    /// Do this next.
    Step(Step),
    /// It is over, and every step has been handed over.
    Done(Outcome),
}

/// A running catch-up. It gets on only while it is asked for the next step, in the connection's own task.
pub struct CatchUp {
    scope: Scope,
    steps: mpsc::Receiver<Step>,
    work: Option<Pin<Box<dyn Future<Output = Outcome> + Send>>>,
    outcome: Option<Outcome>,
}

impl CatchUp {
    /// Starts a catch-up for a connection of `user`.
    pub fn start(
        shared: Arc<Shared>,
        user: UserId,
        connection: ConnectionId,
        outbox: Arc<Outbox>,
        request: Request,
    ) -> Self {
        let (sender, steps) = mpsc::channel(AHEAD);
        let work = Work {
            shared,
            user,
            connection,
            outbox,
            request,
            steps: sender,
        };
        Self {
            scope: request.scope,
            steps,
            work: Some(Box::pin(work.run())),
            outcome: None,
        }
    }

    /// What the subscription is to.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// The next step. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Progress {
        std::future::poll_fn(|context| {
            loop {
                match self.steps.poll_recv(context) {
                    Poll::Ready(Some(step)) => return Poll::Ready(Progress::Step(step)),
                    // The sender is gone with the finished work, and every step was received.
                    Poll::Ready(None) => {
                        let outcome = self.outcome.unwrap_or(Outcome::Over);
                        return Poll::Ready(Progress::Done(outcome));
                    }
                    Poll::Pending => {}
                }
                if self.poll_work(context).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Gets on as far as it can while no step is wanted, so that it gives its turn at the log to others.
    /// Never ready. Dropping the future loses nothing.
    pub async fn wait(&mut self) -> Progress {
        std::future::poll_fn(|context| {
            let _ = self.poll_work(context);
            Poll::Pending
        })
        .await
    }

    /// Ready when the work has just ended.
    fn poll_work(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(work) = &mut self.work else {
            return Poll::Pending;
        };
        work.as_mut().poll(context).map(|outcome| {
            self.outcome = Some(outcome);
            self.work = None;
        })
    }

    /// A step that is there already.
    pub fn ready_step(&mut self) -> Option<Step> {
        self.steps.try_recv().ok()
    }
}

struct Work {
    shared: Arc<Shared>,
    user: UserId,
    connection: ConnectionId,
    outbox: Arc<Outbox>,
    request: Request,
    steps: mpsc::Sender<Step>,
}

/// The room has been deleted, and the client told.
struct RoomIsGone;

impl Work {
    async fn run(mut self) -> Outcome {
        self.shared.hub.started().await;
        let after = self.request.after;
        if self.request.continues {
            let after = after.map_or(Position::ZERO, |after| after.position);
            return self.replay(after).await;
        }
        if !self.may_subscribe(after.map(|after| after.position)).await {
            return Outcome::Over;
        }
        let Some(after) = after else {
            return self.begin_now(None).await;
        };
        if let Some(reason) = self.unusable(after).await {
            return self.begin_now(Some(reason)).await;
        }
        let after = after.position;
        let position = self.shared.hub.position().max(after);
        self.subscribed(position, true, None).await;
        self.watch().await;
        self.replay(after).await
    }

    /// Subscribes from now on, without replay.
    async fn begin_now(&mut self, reason: Option<&str>) -> Outcome {
        let from = self.join();
        // The room may have been deleted since it was looked at; then the hub will not tell.
        if !self.may_subscribe(None).await {
            return Outcome::Over;
        }
        self.subscribed(from, false, reason).await;
        self.watch().await;
        Outcome::Live {
            from,
            resumed: false,
        }
    }

    async fn replay(&mut self, after: Position) -> Outcome {
        let hub = Arc::clone(&self.shared.hub);
        let mut cursor = after;
        loop {
            if let Err(RoomIsGone) = self.copy(&mut cursor, hub.position()).await {
                return Outcome::Over;
            }
            // A client that is still busy with its history would seem too slow once live events come.
            self.drained().await;
            if hub.position().get().saturating_sub(cursor.get()) <= NEAR {
                break;
            }
        }
        let joined = self.join();
        match self.copy(&mut cursor, joined).await {
            Ok(()) => Outcome::Live {
                // The client may be ahead of this process's hub.
                from: joined.max(cursor),
                resumed: true,
            },
            Err(RoomIsGone) => Outcome::Over,
        }
    }

    fn join(&self) -> Position {
        let hub = &self.shared.hub;
        match self.request.scope {
            Scope::Room(room) => hub.join(room, self.connection, &self.outbox),
            Scope::Own => hub.join_own(self.user, self.connection, &self.outbox),
        }
    }

    /// Whether the caller may subscribe; if not, the client is told.
    ///
    /// That the caller exists was checked when the connection was made, and its deletion ends that.
    async fn may_subscribe(&mut self, after: Option<Position>) -> bool {
        let Scope::Room(id) = self.request.scope else {
            return true;
        };
        let refusal = match self.look_up(id).await {
            Some(room) if room.deleted => {
                let was_there = room.has_member(self.user);
                if was_there && after.is_some_and(|after| after < room.position) {
                    // The client subscribed while the room lived: it learns what it missed.
                    let frame = Change::RoomDeleted {
                        room: id,
                        position: self.shared.hub.cursor(room.position),
                    };
                    self.replayed(id, room.position, frame.encode()).await;
                    return false;
                }
                (ErrorCode::UnknownRoom, contract::texts::UNKNOWN_ROOM)
            }
            Some(room) if room.has_member(self.user) => return true,
            Some(_) => (
                ErrorCode::NotAMember,
                "only members of the room may subscribe to it",
            ),
            None => (ErrorCode::UnknownRoom, contract::texts::UNKNOWN_ROOM),
        };
        let frame = ServerFrame::Error {
            code: refusal.0.as_str(),
            message: refusal.1,
            room: Some(id),
        };
        self.send(frame.encode()).await;
        false
    }

    /// Has the members' presence watched, if that is wanted.
    async fn watch(&mut self) {
        if !self.request.presence {
            return;
        }
        let rooms = match self.request.scope {
            Scope::Room(room) => vec![room],
            Scope::Own => self.shared.hub.memberships().living(self.user),
        };
        for id in rooms {
            if let Some(room) = self.look_up(id).await {
                // As in `send`.
                let _ = self.steps.send(Step::Watch(id, room.members)).await;
            }
        }
    }

    /// Sends what happened after `cursor` up to and with `end`, which the hub has handed out, so that the
    /// log has it.
    async fn copy(&mut self, cursor: &mut Position, end: Position) -> Result<(), RoomIsGone> {
        let mut pause = Pause::new();
        while *cursor < end {
            let before = *cursor;
            match self.copy_some(cursor, end).await {
                Ok(Ok(())) => {}
                Ok(Err(gone)) => return Err(gone),
                Err(error) => {
                    tracing::debug!(%error, position = %cursor, "a replay is interrupted");
                    if *cursor != before {
                        pause = Pause::new();
                    }
                    pause.wait().await;
                }
            }
        }
        Ok(())
    }

    /// Sends some of that: from memory, or as much as can be in one turn at the log.
    ///
    /// The log lets only so many read at once, so a client that is slow to take its history must not keep
    /// the others waiting: when it has made the log wait for too long, the log is left, and read again
    /// later. Waiting for the log itself does not count: to begin anew is what takes it longest.
    async fn copy_some(
        &mut self,
        cursor: &mut Position,
        end: Position,
    ) -> Result<Result<(), RoomIsGone>, LogError> {
        let shared = Arc::clone(&self.shared);
        let stretch = shared.stretch(self.user, self.request.scope, *cursor, end);
        let mut stretch = stretch.await?;
        let mut patience = PATIENCE;
        while let Some((position, envelope)) = stretch.next().await? {
            let begun = Instant::now();
            let copied = match timeout(patience, self.copy_event(position, &envelope)).await {
                Ok(copied) => copied?,
                // It was not sent: what is dropped while it waits is not in the queue.
                Err(_) => {
                    drop(stretch);
                    let copied = self.copy_event(position, &envelope).await?;
                    *cursor = position;
                    return Ok(copied);
                }
            };
            if let Err(gone) = copied {
                return Ok(Err(gone));
            }
            patience = patience.saturating_sub(begun.elapsed());
            *cursor = position;
        }
        *cursor = stretch.end();
        Ok(Ok(()))
    }

    /// Sends what the event is to the client, if it is anything. Sending is last, so that after an error
    /// the same event can be tried again.
    async fn copy_event(
        &mut self,
        position: Position,
        envelope: &Envelope,
    ) -> Result<Result<(), RoomIsGone>, LogError> {
        let Some(room) = envelope.event.room() else {
            return Ok(Ok(()));
        };
        let scope = self.request.scope;
        if let Some(push) = self.shared.tell(scope, position, envelope).await? {
            self.replayed(room, position, push.frame).await;
        }
        if matches!(envelope.event, Event::RoomDeleted(_)) && scope != Scope::Own {
            return Ok(Err(RoomIsGone));
        }
        Ok(Ok(()))
    }

    // While the log is lost, subscribing takes longer.

    async fn look_up(&self, room: RoomId) -> Option<Room> {
        let mut pause = Pause::new();
        loop {
            match self.shared.directory.room(room).await {
                Ok(room) => return room,
                Err(error) => tracing::debug!(%error, "a subscription waits for the log"),
            }
            pause.wait().await;
        }
    }

    async fn unusable(&self, after: After) -> Option<&'static str> {
        let mut pause = Pause::new();
        loop {
            match self.shared.unusable(after).await {
                Ok(reason) => return reason,
                Err(error) => tracing::debug!(%error, "a subscription waits for the log"),
            }
            pause.wait().await;
        }
    }

    async fn subscribed(&self, position: Position, recovered: bool, reason: Option<&str>) {
        let frame = ServerFrame::Subscribed {
            room: self.request.scope.room(),
            position: self.shared.hub.cursor(position),
            recovered,
            reason,
        };
        self.send(frame.encode()).await;
    }

    async fn replayed(&self, room: RoomId, position: Position, frame: Utf8Bytes) {
        let step = Step::Replay {
            room,
            position,
            frame,
        };
        // As in `send`.
        let _ = self.steps.send(step).await;
    }

    async fn send(&self, frame: Utf8Bytes) {
        // Fails only when the connection is gone, and then this work is dropped as well.
        let _ = self.steps.send(Step::Send(frame)).await;
    }

    async fn drained(&self) {
        let (answer, drained) = oneshot::channel();
        // As in `send`.
        let _ = self.steps.send(Step::Drain(answer)).await;
        let _ = drained.await;
    }
}
