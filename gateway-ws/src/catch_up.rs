//! Making a subscription: checking it, replaying the room's history from the log, and going live.
//!
//! The switch from history to live has neither gap nor duplicate, by positions alone. The log is read
//! up to the hub's position, again and again, until the client has taken all of it and the hub has hardly
//! moved on; then the connection joins the room in the hub, at position J say, and the log is read up to
//! J. The hub delivers what comes after J. Meanwhile that waits with the connection, in a bounded queue;
//! should it overflow, the connection leaves the room and begins again from where it has got to. So
//! memory is bounded however long the history and however busy the room, and a client that reads slowly
//! is only longer in catching up.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use axum::extract::ws::Utf8Bytes;
use event_log::{Filter, LogError};
use events::{Event, Position, Room, RoomId, UserId};
use futures::TryStreamExt;
use tokio::sync::{mpsc, oneshot};

use crate::Shared;
use crate::hub::ConnectionId;
use crate::outbox::Outbox;
use crate::pause::Pause;
use crate::protocol::{ErrorCode, ServerFrame};
use crate::render::decode;

/// How many positions the hub may be ahead when a catching-up connection joins: an upper bound of how
/// many events of the room are still to be read while live ones wait.
const NEAR: u64 = 512;

/// How many frames are made ahead of their being written.
const AHEAD: usize = 16;

/// A subscription to make.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// To which room.
    pub room: RoomId,
    /// The last position the client has.
    pub after: Option<Position>,
    /// The replay that this one continues: how many events that had sent.
    pub continues: Option<u64>,
}

/// What the connection is to do next for a catch-up.
#[derive(Debug)]
pub enum Step {
    /// Send a frame.
    Send {
        /// The frame.
        frame: Utf8Bytes,
        /// The event it tells of, if any.
        position: Option<Position>,
    },
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
        /// How many events were replayed; `None` when nothing had to be.
        replayed: Option<u64>,
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
    room: RoomId,
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
            room: request.room,
            steps: sender,
            replayed: request.continues.unwrap_or(0),
        };
        Self {
            room: request.room,
            steps,
            work: Some(Box::pin(work.run(request))),
            outcome: None,
        }
    }

    /// Which room it is about.
    pub fn room(&self) -> RoomId {
        self.room
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
                let Some(work) = &mut self.work else {
                    return Poll::Pending;
                };
                match work.as_mut().poll(context) {
                    Poll::Ready(outcome) => {
                        self.outcome = Some(outcome);
                        self.work = None;
                    }
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
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
    room: RoomId,
    steps: mpsc::Sender<Step>,
    replayed: u64,
}

/// The room has been deleted, and the client told.
struct RoomIsGone;

impl Work {
    async fn run(mut self, request: Request) -> Outcome {
        self.shared.hub.started().await;
        if request.continues.is_some() {
            let after = request.after.unwrap_or(Position::ZERO);
            return self.replay(after).await;
        }
        if !self.may_subscribe(request.after).await {
            return Outcome::Over;
        }
        let Some(after) = request.after else {
            return self.begin_now(None).await;
        };
        if after > self.shared.hub.position() {
            // Not yet handed out here, or beyond the end.
            if after > self.end_of_log().await {
                let reason = "the position lies beyond the end of the log";
                return self.begin_now(Some(reason)).await;
            }
        }
        let position = self.shared.hub.position().max(after);
        self.subscribed(position, true, None).await;
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
        Outcome::Live {
            from,
            replayed: None,
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
                replayed: Some(self.replayed),
            },
            Err(RoomIsGone) => Outcome::Over,
        }
    }

    fn join(&self) -> Position {
        let hub = &self.shared.hub;
        hub.join(self.room, self.connection, &self.outbox)
    }

    /// Whether the caller may subscribe; if not, the client is told.
    ///
    /// That the caller exists was checked when the connection was made, and its deletion ends that.
    async fn may_subscribe(&mut self, after: Option<Position>) -> bool {
        let refusal = match self.look_up_room().await {
            Some(room) if room.deleted => {
                let was_there = room.has_member(self.user);
                if was_there && after.is_some_and(|after| after < room.position) {
                    // The client subscribed while the room lived: it learns what it missed.
                    let frame = ServerFrame::RoomDeleted {
                        room: self.room,
                        position: room.position,
                    };
                    self.send(frame.encode(), Some(room.position)).await;
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
            room: Some(self.room),
        };
        self.send(frame.encode(), None).await;
        false
    }

    /// Sends what happened in the room after `cursor` up to and with `end`, which the hub has handed
    /// out, so that the log has it.
    async fn copy(&mut self, cursor: &mut Position, end: Position) -> Result<(), RoomIsGone> {
        let mut pause = Pause::new();
        while *cursor < end {
            let before = *cursor;
            match self.copy_once(cursor, end).await {
                Ok(result) => return result,
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

    async fn copy_once(
        &mut self,
        cursor: &mut Position,
        end: Position,
    ) -> Result<Result<(), RoomIsGone>, LogError> {
        let filter = Filter::Room(self.room);
        let mut events = self.shared.log.read(filter, *cursor).await?;
        while let Some(recorded) = events.try_next().await? {
            let position = recorded.position;
            if position > end {
                break;
            }
            // The follower warns of what can't be decoded; here it is just skipped.
            if let Some(envelope) = decode(&recorded) {
                let push = self.shared.renderer.render(position, &envelope).await?;
                if let Some(push) = push {
                    self.replayed += 1;
                    self.send(push.frame, Some(position)).await;
                }
                if matches!(envelope.event, Event::RoomDeleted(_)) {
                    return Ok(Err(RoomIsGone));
                }
            }
            *cursor = position;
        }
        *cursor = end;
        Ok(Ok(()))
    }

    // While the log is lost, subscribing takes longer.

    async fn look_up_room(&self) -> Option<Room> {
        let mut pause = Pause::new();
        loop {
            match self.shared.directory.room(self.room).await {
                Ok(room) => return room,
                Err(error) => tracing::debug!(%error, "a subscription waits for the log"),
            }
            pause.wait().await;
        }
    }

    async fn end_of_log(&self) -> Position {
        let mut pause = Pause::new();
        loop {
            match self.shared.log.tail().await {
                Ok(tail) => return tail.last,
                Err(error) => tracing::debug!(%error, "a subscription waits for the log"),
            }
            pause.wait().await;
        }
    }

    async fn subscribed(&self, position: Position, recovered: bool, reason: Option<&str>) {
        let frame = ServerFrame::Subscribed {
            room: self.room,
            position,
            recovered,
            reason,
        };
        self.send(frame.encode(), None).await;
    }

    async fn send(&self, frame: Utf8Bytes, position: Option<Position>) {
        // Fails only when the connection is gone, and then this work is dropped as well.
        let _ = self.steps.send(Step::Send { frame, position }).await;
    }

    async fn drained(&self) {
        let (answer, drained) = oneshot::channel();
        // As in `send`.
        let _ = self.steps.send(Step::Drain(answer)).await;
        let _ = drained.await;
    }
}
