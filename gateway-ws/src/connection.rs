//! One connection of a client, over whatever transport: one task, from its beginning to its close.
//!
//! What is to be sent waits in two places: the outbox, which the hub fills, and `pending`, which this
//! task fills only while it is short. A client that stops reading stops `pending`, then the reading of its own
//! frames and its replay, and at last the outbox overflows and the connection is closed, with the
//! position to resume from.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::extract::ws::Utf8Bytes;
use events::{Position, RoomId, Timestamp, UserId};
use futures::{SinkExt, StreamExt};
use platform::auth::{Claims, TokenError};
use platform::config::AuthMode;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::Shared;
use crate::catch_up::{CatchUp, Outcome, Progress, Request, Step};
use crate::history::Scope;
use crate::hub::{ConnectionId, TooManyConnections};
use crate::outbox::{Ended, Outbox, Push, PushKind};
use crate::protocol::{
    After, ClientFrame, Cursor, ErrorCode, InvalidFrame, ServerFrame, Typing, close,
};
use crate::rate::Allowance;
use crate::signals::Message;
use crate::subscriptions::{Resumed, Subscription, Subscriptions, Waiting};
use crate::transport::{FrameSink, FrameStream, Gone, Incoming, Kind, Outgoing, Transport};

/// With this many frames or bytes waiting to be written, nothing is done that would add more.
const MAX_PENDING_FRAMES: usize = 64;
const MAX_PENDING_BYTES: usize = 256 * 1024;

/// Runs a connection to its end. `claims` is what the client's token said, if it came with one; without,
/// it has to say later who it is.
pub async fn run<Out: FrameSink, In: FrameStream>(
    shared: Arc<Shared>,
    transport: Transport<Out, In>,
    claims: Option<Result<Claims, String>>,
) {
    let gauge = metrics::gauge!("hansard_sockets");
    gauge.increment(1.0);
    let mut connection = Connection::new(shared, transport);
    let end = connection.serve(claims).await;
    connection.unregister();
    connection.close(end).await;
    gauge.decrement(1.0);
}

/// How a connection ends.
enum End {
    /// The client has closed it, or it broke.
    Gone,
    /// The client has begun to close it; the answer is on its way.
    ClosedByClient,
    /// It is closed with this code and reason.
    Close {
        code: u16,
        reason: String,
        /// Where to resume from, when what is pending is not sent first.
        resume: Option<Cursor>,
        /// Whether what is pending is sent first.
        finish: bool,
    },
}

impl End {
    fn close(code: u16, reason: impl Into<String>) -> Self {
        Self::Close {
            code,
            reason: reason.into(),
            resume: None,
            finish: true,
        }
    }
}

struct Connection<Out, In> {
    shared: Arc<Shared>,
    id: ConnectionId,
    kind: Kind,
    writer: Writer<Out>,
    stream: In,
    outbox: Arc<Outbox>,
    user: Option<Authenticated>,
    subscriptions: Subscriptions,
    /// Subscriptions still to be made, one after the other.
    requests: VecDeque<Request>,
    catch_up: Option<CatchUp>,
    /// From where subscriptions resume that don't say it themselves.
    after: Option<After>,
    /// The members whose presence is watched, by room.
    watched: HashMap<RoomId, Vec<UserId>>,
    /// Whether the presence of the members of all rooms is watched, later ones included.
    watches_own: bool,
    /// When the client was last heard.
    heard: Instant,
    /// Whether it has been pinged since.
    pinged: bool,
    /// When to leave, once the process is to shut down.
    leave_at: Option<Instant>,
    frames_allowed: Allowance,
    typing_allowed: Allowance,
    authenticate_by: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Authenticated {
    user: UserId,
    /// When the token expires; without a token, never.
    expires_at: Option<Timestamp>,
}

struct Writer<Out> {
    sink: Out,
    pending: VecDeque<Outgoing>,
    pending_bytes: usize,
    unflushed: bool,
    /// Whether the transport takes nothing at present: the client has to read first.
    blocked: bool,
    /// Whether the client has read since that was last asked.
    has_read: bool,
    /// Who wants to know when everything has been written.
    on_drained: Option<oneshot::Sender<()>>,
}

impl<Out: FrameSink> Writer<Out> {
    fn new(sink: Out) -> Self {
        Self {
            sink,
            pending: VecDeque::new(),
            pending_bytes: 0,
            unflushed: false,
            blocked: false,
            has_read: false,
            on_drained: None,
        }
    }

    fn has_work(&self) -> bool {
        self.unflushed || !self.pending.is_empty()
    }

    fn has_room(&self) -> bool {
        self.pending.len() < MAX_PENDING_FRAMES && self.pending_bytes < MAX_PENDING_BYTES
    }

    fn text(&mut self, text: Utf8Bytes, position: Option<Position>) {
        self.pending_bytes += text.as_str().len();
        self.pending.push_back(Outgoing::Frame { text, position });
    }

    fn when_drained(&mut self, answer: oneshot::Sender<()>) {
        if self.has_work() {
            self.on_drained = Some(answer);
        } else {
            // The catch-up that asked may be over.
            let _ = answer.send(());
        }
    }

    /// The first event that is still to be written.
    fn first_pending(&self) -> Option<Position> {
        let pending = self.pending.iter().filter_map(|outgoing| match outgoing {
            Outgoing::Frame { position, .. } => *position,
            Outgoing::Ping | Outgoing::Close { .. } => None,
        });
        pending.min()
    }

    /// A transport that was blocked and goes on has a client that reads, even if what it says is behind
    /// all that it still has to read. One that was not blocked says nothing: the kernel takes a lot for a
    /// client that is gone.
    fn watch<T>(&mut self, polled: Poll<T>) -> Poll<T> {
        self.has_read |= self.blocked && polled.is_ready();
        self.blocked = polled.is_pending();
        polled
    }

    /// Writes what is pending, with one flush for all of it. Dropping the future loses nothing.
    async fn write(&mut self) -> Result<(), Gone> {
        let pushed = metrics::counter!("hansard_pushed_messages_total");
        while !self.pending.is_empty() {
            std::future::poll_fn(|context| {
                let ready = self.sink.poll_ready_unpin(context);
                self.watch(ready)
            })
            .await?;
            if let Some(outgoing) = self.pending.pop_front() {
                self.unflushed = true;
                if let Outgoing::Frame { text, position } = &outgoing {
                    self.pending_bytes -= text.as_str().len();
                    pushed.increment(u64::from(position.is_some()));
                }
                self.sink.start_send_unpin(outgoing)?;
            }
        }
        std::future::poll_fn(|context| {
            let flushed = self.sink.poll_flush_unpin(context);
            self.watch(flushed)
        })
        .await?;
        self.unflushed = false;
        if let Some(answer) = self.on_drained.take() {
            // The catch-up that asked may be over.
            let _ = answer.send(());
        }
        Ok(())
    }
}

impl<Out: FrameSink, In: FrameStream> Connection<Out, In> {
    fn new(shared: Arc<Shared>, transport: Transport<Out, In>) -> Self {
        let limits = &shared.limits;
        let now = Instant::now();
        Self {
            id: shared.hub.name(),
            kind: transport.kind,
            writer: Writer::new(transport.sink),
            stream: transport.stream,
            outbox: Arc::new(Outbox::new(limits.queue_frames, limits.queue_bytes)),
            user: None,
            subscriptions: Subscriptions::default(),
            requests: VecDeque::new(),
            catch_up: None,
            after: transport.after,
            watched: HashMap::new(),
            watches_own: false,
            heard: now,
            pinged: false,
            leave_at: None,
            frames_allowed: Allowance::new(limits.frames_per_second, limits.frame_burst, now),
            typing_allowed: Allowance::new(
                limits.typing_per_second,
                limits.typing_per_second.saturating_mul(2),
                now,
            ),
            authenticate_by: now + limits.auth_timeout,
            shared,
        }
    }

    async fn serve(&mut self, claims: Option<Result<Claims, String>>) -> End {
        match claims {
            None => {}
            Some(Ok(claims)) => {
                if let Err(end) = self.authenticate(claims.into(), false).await {
                    return end;
                }
            }
            Some(Err(reason)) => return self.refuse(&reason),
        }
        let shared = Arc::clone(&self.shared);
        let outbox = Arc::clone(&self.outbox);
        let alarm = sleep_until(self.deadline());
        tokio::pin!(alarm);
        loop {
            // An alarm that rings too early does no harm: then there is nothing to do yet.
            let deadline = self.deadline();
            if alarm.is_elapsed() || deadline < alarm.deadline() {
                alarm.as_mut().reset(deadline);
            }
            let has_room = self.writer.has_room();
            tokio::select! {
                ended = outbox.ended() => return self.ended(ended),
                () = shared.shutdown.cancelled(), if self.leave_at.is_none() => {
                    self.leave_at = Some(Instant::now() + self.leaving_delay());
                }
                () = &mut alarm => {
                    if let Some(end) = self.on_alarm() {
                        return end;
                    }
                }
                written = self.writer.write(), if self.writer.has_work() => {
                    if let Err(Gone) = written {
                        return End::Gone;
                    }
                }
                incoming = self.stream.next(), if has_room => {
                    if let Some(end) = self.on_incoming(incoming).await {
                        return end;
                    }
                }
                () = outbox.filled(), if self.writer.pending.is_empty() => self.take_pushes(),
                progress = next(&mut self.catch_up, has_room) => {
                    self.on_progress(progress);
                }
            }
        }
    }

    // --- Time ---

    /// When something is to be done even if nothing happens.
    fn deadline(&self) -> Instant {
        let silent = self.heard + self.silence_allowed();
        let unauthenticated = self.user.is_none().then_some(self.authenticate_by);
        let only_here = silent.min(unauthenticated.unwrap_or(silent));
        let mut deadline = match self.kind {
            Kind::WebSocket => only_here,
            Kind::SocketIo => Instant::now() + LONG,
        };
        if let Some(expires_at) = self.user.and_then(|user| user.expires_at) {
            deadline = deadline.min(Instant::now() + time_until(expires_at));
        }
        if let Some(leave_at) = self.leave_at {
            deadline = deadline.min(leave_at);
        }
        deadline
    }

    /// How long nothing may be heard before the client is pinged, or, when it has been, given up.
    fn silence_allowed(&self) -> Duration {
        let interval = self.shared.limits.ping_interval;
        if self.pinged { interval * 2 } else { interval }
    }

    fn on_alarm(&mut self) -> Option<End> {
        let now = Instant::now();
        if self.leave_at.is_some_and(|leave_at| leave_at <= now) {
            self.take_pushes();
            return Some(End::close(
                close::GOING_AWAY,
                "the gateway is shutting down; connect again and resume",
            ));
        }
        let expires_at = self.user.and_then(|user| user.expires_at);
        if expires_at.is_some_and(|expires_at| expires_at <= Timestamp::now()) {
            return Some(self.refuse(&TokenError::Expired.to_string()));
        }
        if self.kind == Kind::SocketIo {
            return None;
        }
        if self.user.is_none() && self.authenticate_by <= now {
            return Some(self.refuse("no token came in time; send it in the first frame"));
        }
        if std::mem::take(&mut self.writer.has_read) {
            self.heard = now;
        }
        if self.heard + self.silence_allowed() <= now {
            if self.pinged {
                return Some(End::Close {
                    code: close::SILENT,
                    reason: "nothing was heard for too long".to_owned(),
                    resume: None,
                    finish: false,
                });
            }
            self.pinged = true;
            self.writer.pending.push_back(Outgoing::Ping);
        }
        None
    }

    /// The sockets are closed one after the other, so that their clients don't all come back at once.
    fn leaving_delay(&self) -> Duration {
        // The golden ratio spreads successive numbers evenly (Knuth, The Art of Computer Programming,
        // volume 3, section 6.4).
        let hash = self.id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let share = f64::from(u32::try_from(hash).unwrap_or(u32::MAX)) / f64::from(u32::MAX);
        self.shared.limits.shutdown_spread.mul_f64(share)
    }

    // --- What the client sends ---

    async fn on_incoming(&mut self, incoming: Option<Incoming>) -> Option<End> {
        self.heard = Instant::now();
        self.pinged = false;
        match incoming {
            None => return Some(End::Gone),
            Some(Incoming::Closing) => return Some(End::ClosedByClient),
            Some(Incoming::Broken {
                code,
                reason,
                error,
            }) => {
                if let Some(error) = error {
                    self.error(error, &reason, None);
                }
                return Some(End::close(code, reason));
            }
            Some(Incoming::Alive) => {}
            Some(incoming) if self.may_send_frame() => match incoming {
                Incoming::Frame(Ok(frame)) => return self.on_frame(frame).await,
                Incoming::Frame(Err(InvalidFrame { code, message })) => {
                    self.error(code, &message, None);
                }
                Incoming::Identity(user) => return self.identify(user).await,
                Incoming::Bring { user, room } => self.bring(user, room).await,
                Incoming::Alive | Incoming::Closing | Incoming::Broken { .. } => {}
            },
            Some(_) => {}
        }
        None
    }

    async fn on_frame(&mut self, frame: ClientFrame) -> Option<End> {
        match (frame, self.user) {
            (ClientFrame::Ping, _) => self.writer.text(ServerFrame::Pong.encode(), None),
            (ClientFrame::Auth { token }, _) => {
                return match self.shared.auth.verify(&token) {
                    Ok(claims) => self.authenticate(claims.into(), true).await.err(),
                    Err(error) => Some(self.refuse(&error.to_string())),
                };
            }
            (_, None) => self.error(
                ErrorCode::Unauthorized,
                match self.kind {
                    Kind::WebSocket => "send a token first: {\"type\":\"auth\",\"token\":TOKEN}",
                    Kind::SocketIo => "say first who you are: emit identity with the user's id",
                },
                None,
            ),
            (
                ClientFrame::Subscribe {
                    room,
                    after,
                    presence,
                },
                Some(_),
            ) => {
                let scope = room.map_or(Scope::Own, Scope::Room);
                self.subscribe(scope, after.or(self.after), presence);
            }
            (ClientFrame::Unsubscribe { room }, Some(_)) => {
                self.unsubscribe(room.map_or(Scope::Own, Scope::Room));
            }
            (ClientFrame::Typing { room, state }, Some(user)) => {
                self.typing(room, user.user, state).await;
            }
        }
        None
    }

    /// Takes in who it is; when that is known, only how long it may stay.
    async fn authenticate(&mut self, who: Authenticated, answer: bool) -> Result<(), End> {
        match self.user {
            Some(before) if before.user != who.user => {
                self.error(
                    ErrorCode::InvalidMessage,
                    "the connection is another user's; open one for each user",
                    None,
                );
                return Ok(());
            }
            Some(_) => self.user = Some(who),
            None => self.begin(who).await?,
        }
        if answer {
            let user = who.user;
            let frame = ServerFrame::Authenticated { user };
            self.writer.text(frame.encode(), None);
        }
        Ok(())
    }

    async fn begin(&mut self, who: Authenticated) -> Result<(), End> {
        let shared = Arc::clone(&self.shared);
        let limit = shared.limits.connections_per_user;
        // Registered before the user is looked up: a deletion after that ends the connection.
        let registered =
            shared
                .hub
                .register(who.user, self.id, Some(self.kind), &self.outbox, limit);
        let degraded = match registered {
            Ok(degraded) => degraded,
            Err(TooManyConnections) => {
                let message =
                    format!("a user may have at most {limit} connections; close another one first");
                self.error(ErrorCode::TooManyConnections, &message, None);
                return Err(End::close(close::TOO_MANY_CONNECTIONS, message));
            }
        };
        self.user = Some(who);
        shared.presences.connected(who.user);
        match shared.directory.user(who.user).await {
            Ok(Some(user)) if !user.deleted => {}
            Ok(_) => return Err(self.refuse(contract::texts::UNKNOWN_USER)),
            Err(error) => {
                tracing::debug!(%error, "a socket is refused because the log is lost");
                let message = "the log is unavailable; connect again later";
                self.error(ErrorCode::Unavailable, message, None);
                return Err(End::close(close::TRY_AGAIN_LATER, message));
            }
        }
        if degraded {
            self.writer.text(ServerFrame::Degraded.encode(), None);
        }
        Ok(())
    }

    /// Socket.IO's `identity`: true to the token, or, where none is needed, taken at its word.
    async fn identify(&mut self, user: UserId) -> Option<End> {
        let who = match self.user {
            Some(known) if known.user == user => known,
            None if self.shared.auth.mode() == AuthMode::Open => Authenticated {
                user,
                expires_at: None,
            },
            _ => {
                self.error(
                    ErrorCode::Unauthorized,
                    "this is not the user of the connection's token",
                    None,
                );
                return None;
            }
        };
        self.authenticate(who, true).await.err()
    }

    fn refuse(&mut self, reason: &str) -> End {
        self.error(ErrorCode::Unauthorized, reason, None);
        End::close(close::UNAUTHORIZED, reason)
    }

    /// Whether one more frame is within the rate allowed; if not, the client is told.
    fn may_send_frame(&mut self) -> bool {
        let allowed = self.frames_allowed.take(self.heard);
        if !allowed {
            let message = format!(
                "at most {} frames a second; this one was ignored",
                self.shared.limits.frames_per_second
            );
            self.error(ErrorCode::RateLimited, &message, None);
        }
        allowed
    }

    fn error(&mut self, code: ErrorCode, message: &str, room: Option<RoomId>) {
        let frame = ServerFrame::Error {
            code: code.as_str(),
            message,
            room,
        };
        self.writer.text(frame.encode(), None);
    }

    // --- Signals to other gateways ---

    async fn typing(&mut self, room: RoomId, user: UserId, state: Typing) {
        if !self.typing_allowed.take(self.heard) {
            let message = format!(
                "typing may change at most {} times a second; this was ignored",
                self.shared.limits.typing_per_second
            );
            self.error(ErrorCode::RateLimited, &message, Some(room));
            return;
        }
        if self.is_member(room, user).await {
            self.shared
                .sender
                .send(Message::Typing { room, user, state });
        }
    }

    /// Has the other user's Socket.IO connections subscribed to the room; whether that user is a member,
    /// each gateway looks up itself.
    async fn bring(&mut self, user: UserId, room: RoomId) {
        // Who is not a member is told so by the subscription that came with it.
        let me = self.user.map(|me| me.user);
        if let Some(me) = me
            && let Ok(Some(found)) = self.shared.directory.room(room).await
            && found.has_member(me)
        {
            self.shared.sender.send(Message::Bring { user, room });
        }
    }

    /// Whether the user may take part in the room; if not, the client is told.
    async fn is_member(&mut self, room: RoomId, user: UserId) -> bool {
        let (code, message) = match self.shared.directory.room(room).await {
            Ok(Some(found)) if found.deleted => {
                (ErrorCode::UnknownRoom, contract::texts::UNKNOWN_ROOM)
            }
            Ok(Some(found)) if found.has_member(user) => return true,
            Ok(Some(_)) => (
                ErrorCode::NotAMember,
                "only members of the room may do this",
            ),
            Ok(None) => (ErrorCode::UnknownRoom, contract::texts::UNKNOWN_ROOM),
            Err(error) => {
                tracing::debug!(%error, "a frame is ignored because the log is lost");
                (
                    ErrorCode::Unavailable,
                    "the log is unavailable; try again later",
                )
            }
        };
        self.error(code, message, Some(room));
        false
    }

    // --- Subscriptions ---

    fn subscribe(&mut self, scope: Scope, after: Option<After>, presence: bool) {
        let current = self.subscriptions.get(scope);
        if let (Some(Subscription::Live(_)), None, false) = (current, after, presence) {
            // It is made already. What was pushed up to the position is sent before it.
            let hub = Arc::clone(&self.shared.hub);
            let position = hub.position();
            self.take_pushes();
            let frame = ServerFrame::Subscribed {
                room: scope.room(),
                position: hub.cursor(position),
                recovered: false,
                reason: None,
            };
            self.writer.text(frame.encode(), None);
            return;
        }
        // With a position, or while the first is still being made, the new one takes its place.
        self.end_subscription(scope);
        if let Scope::Room(room) = scope
            && !self.may_have_another(room)
        {
            return;
        }
        if scope == Scope::Own {
            self.watches_own = presence;
        }
        let waiting = Waiting::after(after.map(|after| after.position));
        let subscription = Subscription::CatchingUp(Box::new(waiting));
        self.subscriptions.insert(scope, subscription);
        self.requests.push_back(Request {
            scope,
            after,
            presence,
            continues: false,
        });
        self.start_next();
    }

    /// Whether something may be said of one more room; if not, the client is told.
    fn may_have_another(&mut self, room: RoomId) -> bool {
        let limit = self.shared.limits.subscriptions;
        if self.subscriptions.count() < limit {
            return true;
        }
        let message = format!("a connection may have at most {limit} subscriptions");
        self.error(ErrorCode::TooManySubscriptions, &message, Some(room));
        false
    }

    fn unsubscribe(&mut self, scope: Scope) {
        self.end_subscription(scope);
        if let Scope::Room(room) = scope
            && self.subscriptions.has_own()
        {
            // It is one of the rooms that the personal subscription is for.
            if !self.may_have_another(room) {
                return;
            }
            self.subscriptions.insert(scope, Subscription::Muted);
        }
        let room = scope.room();
        let frame = ServerFrame::Unsubscribed { room };
        self.writer.text(frame.encode(), None);
    }

    fn end_subscription(&mut self, scope: Scope) {
        if self.subscriptions.remove(scope).is_none() {
            if let Scope::Room(room) = scope {
                self.unwatch(|watched| watched == room);
            }
            return;
        }
        self.requests.retain(|request| request.scope != scope);
        if self.catch_up.as_ref().is_some_and(|it| it.scope() == scope) {
            self.catch_up = None;
        }
        self.leave(scope);
        self.start_next();
    }

    /// Gets no more pushes of what is not subscribed to any more.
    fn leave(&mut self, scope: Scope) {
        let Some(user) = self.user else {
            return;
        };
        match scope {
            Scope::Room(room) => {
                if !self.subscriptions.has_own() {
                    self.shared.hub.leave(room, self.id);
                }
                self.unwatch(|watched| watched == room);
            }
            Scope::Own => {
                self.subscriptions.unmute();
                let subscriptions = &self.subscriptions;
                let keep = |room: &RoomId| subscriptions.has_room(*room);
                self.shared.hub.leave_own(user.user, self.id, keep);
                self.watches_own = false;
                let kept: Vec<RoomId> = self.subscriptions.rooms().copied().collect();
                self.unwatch(|watched| !kept.contains(&watched));
            }
        }
    }

    /// Starts making the next subscription, if none is being made.
    fn start_next(&mut self) {
        if self.catch_up.is_some() {
            return;
        }
        if let (Some(user), Some(request)) = (self.user, self.requests.pop_front()) {
            self.catch_up = Some(CatchUp::start(
                Arc::clone(&self.shared),
                user.user,
                self.id,
                Arc::clone(&self.outbox),
                request,
            ));
        }
    }

    fn on_progress(&mut self, progress: Progress) {
        let Some(scope) = self.catch_up.as_ref().map(CatchUp::scope) else {
            return;
        };
        match progress {
            Progress::Step(step) => {
                self.on_step(scope, step);
                // Those that are ready as well share the flush.
                while self.writer.has_room()
                    && let Some(step) = self.catch_up.as_mut().and_then(CatchUp::ready_step)
                {
                    self.on_step(scope, step);
                }
            }
            Progress::Done(outcome) => {
                self.catch_up = None;
                match outcome {
                    Outcome::Over => {
                        self.subscriptions.remove(scope);
                        self.leave(scope);
                    }
                    Outcome::Live { from, resumed } => self.go_live(scope, from, resumed),
                }
                self.start_next();
            }
        }
    }

    fn on_step(&mut self, scope: Scope, step: Step) {
        match step {
            Step::Send(frame) => self.writer.text(frame, None),
            Step::Replay {
                room,
                position,
                frame,
            } => {
                if self.subscriptions.replay(scope, room, position) {
                    self.writer.text(frame, Some(position));
                }
            }
            Step::Watch(room, members) => self.watch(room, members),
            Step::Drain(answer) => self.writer.when_drained(answer),
        }
    }

    /// Everything up to `from` has been sent: what came after that, and waited, is next.
    fn go_live(&mut self, scope: Scope, from: Position, resumed: bool) {
        match self.subscriptions.go_live(scope, from) {
            Resumed::Over => {}
            Resumed::Overflowed => self.requests.push_front(Request {
                scope,
                after: Some(After {
                    position: from,
                    log: None,
                }),
                presence: false,
                continues: true,
            }),
            Resumed::Live(waited, count) => {
                if resumed {
                    let frame = ServerFrame::Replayed {
                        room: scope.room(),
                        position: self.shared.hub.cursor(from),
                        count,
                    };
                    self.writer.text(frame.encode(), None);
                }
                for push in waited {
                    self.on_push(push);
                }
            }
        }
    }

    // --- Presence ---

    fn watch(&mut self, room: RoomId, members: Vec<UserId>) {
        let Some(user) = self.user else {
            return;
        };
        let others: Vec<UserId> = members.into_iter().filter(|it| *it != user.user).collect();
        let watched: usize = self.watched.values().map(Vec::len).sum();
        let limit = self.shared.limits.watched_users;
        if watched + others.len() > limit {
            let message = format!("the presence of at most {limit} users is pushed");
            self.error(ErrorCode::TooManySubscriptions, &message, Some(room));
            return;
        }
        let presences = &self.shared.presences;
        for push in presences.watch(&others, self.id, &self.outbox) {
            self.writer.text(push.frame.clone(), None);
        }
        self.watched.insert(room, others);
    }

    /// Ends the watching of rooms. Who is in another one that is watched is watched on.
    fn unwatch(&mut self, is_over: impl Fn(RoomId) -> bool) {
        let over: Vec<UserId> = self
            .watched
            .extract_if(|room, _| is_over(*room))
            .flat_map(|(_, members)| members)
            .collect();
        let is_watched = |user: &&UserId| self.watched.values().any(|it| it.contains(user));
        let over = over.iter().filter(|user| !is_watched(user));
        self.shared.presences.unwatch(over, self.id);
    }

    // --- Pushes ---

    fn take_pushes(&mut self) {
        for push in self.outbox.take() {
            self.on_push(push);
        }
    }

    fn on_push(&mut self, push: Arc<Push>) {
        let Some(room) = push.kind.room() else {
            self.writer.text(push.frame.clone(), None);
            return;
        };
        match &push.kind {
            PushKind::Bring(_) => {
                if self.subscriptions.of_room(room).is_none() {
                    self.subscribe(Scope::Room(room), None, false);
                }
                return;
            }
            PushKind::Typing(_, who) if self.user.is_some_and(|me| me.user == *who) => return,
            _ => {}
        }
        let overflow = match self.subscriptions.of_room(room) {
            // What was still on its way when the client unsubscribed.
            None => false,
            Some(Subscription::Muted) => {
                if let PushKind::RoomDeleted(_) = push.kind {
                    self.subscriptions.remove(Scope::Room(room));
                }
                false
            }
            Some(Subscription::Live(from)) => {
                if push.position.is_none_or(|position| position > *from) {
                    self.writer.text(push.frame.clone(), push.position);
                    self.on_pushed(&push.kind);
                }
                false
            }
            Some(Subscription::CatchingUp(_)) if push.position.is_none() => false,
            Some(Subscription::CatchingUp(waiting)) => waiting.add(
                Arc::clone(&push),
                self.shared.limits.queue_frames,
                self.shared.limits.queue_bytes,
            ),
        };
        if overflow {
            self.stop_pushes(room);
        }
    }

    /// What a push changes for the connection itself.
    fn on_pushed(&mut self, kind: &PushKind) {
        match kind {
            PushKind::RoomCreated(room, members) if self.watches_own => {
                self.watch(*room, members.clone());
            }
            PushKind::RoomDeleted(room) => {
                self.subscriptions.remove(Scope::Room(*room));
                self.unwatch(|watched| watched == *room);
            }
            _ => {}
        }
    }

    /// Too much waits for a catch-up: the hub sends nothing of it until that goes on.
    fn stop_pushes(&mut self, room: RoomId) {
        let Some(user) = self.user else {
            return;
        };
        let hub = &self.shared.hub;
        match (
            self.subscriptions.has_room(room),
            self.subscriptions.has_own(),
        ) {
            // The personal subscription may be live: it needs its own pushes, and these do no harm.
            (true, true) => {}
            (true, false) => hub.leave(room, self.id),
            (false, _) => {
                let keep = |room: &RoomId| self.subscriptions.has_room(*room);
                hub.leave_own(user.user, self.id, keep);
            }
        }
    }

    // --- The end ---

    fn ended(&mut self, ended: Ended) -> End {
        match ended {
            Ended::TooSlow { first_lost } => {
                let position = self.resume_from(first_lost);
                End::Close {
                    code: close::TOO_SLOW,
                    reason: format!("too slow; resume after {position}"),
                    resume: Some(position),
                    finish: false,
                }
            }
            Ended::UserDeleted => End::close(close::USER_DELETED, "the user has been deleted"),
            Ended::LogReplaced => {
                End::close(close::LOG_REPLACED, "the log was replaced; start over")
            }
        }
    }

    /// The position up to which everything was sent, when nothing that is pending or queued will be.
    fn resume_from(&self, first_lost: Option<Position>) -> Cursor {
        let hub = &self.shared.hub;
        let unsent = [
            first_lost,
            self.writer.first_pending(),
            self.subscriptions.first_unsent(),
        ];
        let first = unsent.into_iter().flatten().min();
        let first = first.unwrap_or_else(|| hub.position().next());
        hub.cursor(Position::new(first.get().saturating_sub(1)))
    }

    fn unregister(&mut self) {
        self.catch_up = None;
        if let Some(user) = self.user {
            let shared = &self.shared;
            shared
                .hub
                .unregister(user.user, self.id, self.subscriptions.rooms());
            shared.presences.disconnected(user.user);
            let watched = self.watched.values().flatten();
            shared.presences.unwatch(watched, self.id);
        }
    }

    async fn close(&mut self, end: End) {
        let limit = self.shared.limits.close_timeout;
        match end {
            End::Gone => {}
            End::ClosedByClient => {
                // Reading on sends the answer and ends with the connection.
                let _ = timeout(limit, drain(&mut self.stream)).await;
            }
            End::Close {
                code,
                reason,
                resume,
                finish,
            } => {
                if !finish {
                    self.writer.pending.clear();
                    self.writer.pending_bytes = 0;
                }
                self.writer.pending.push_back(Outgoing::Close {
                    code,
                    reason,
                    resume,
                });
                let _ = timeout(limit, async {
                    self.writer.write().await?;
                    if code == close::TOO_LARGE {
                        // What is left of the frame can't be skipped, and hanging up on unread bytes
                        // would reset the connection before the client has read the close frame.
                        sleep(limit.min(Duration::from_secs(1))).await;
                    } else {
                        drain(&mut self.stream).await;
                    }
                    Ok::<(), Gone>(())
                })
                .await;
            }
        }
    }
}

impl From<Claims> for Authenticated {
    fn from(claims: Claims) -> Self {
        Self {
            user: claims.user,
            expires_at: Some(claims.expires_at),
        }
    }
}

/// The next step of the catch-up, if there is one and a step is wanted.
async fn next(catch_up: &mut Option<CatchUp>, wanted: bool) -> Progress {
    match catch_up {
        Some(catch_up) if wanted => catch_up.next().await,
        Some(catch_up) => catch_up.wait().await,
        None => std::future::pending().await,
    }
}

/// Reads to the end of the connection, ignoring what comes.
async fn drain(stream: &mut impl FrameStream) {
    while stream.next().await.is_some() {}
}

/// An alarm further in the future is of no use, and adding it to an instant could overflow.
const LONG: Duration = Duration::from_secs(24 * 60 * 60);

/// For how long it is still before that.
pub fn time_until(time: Timestamp) -> Duration {
    let milliseconds = time.as_millis() - Timestamp::now().as_millis();
    let left = Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0));
    left.min(LONG)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use directory::Directory;
    use event_log::SqliteLog;
    use futures::channel::mpsc;
    use futures::{FutureExt, stream};
    use keys::{Keyring, Record};
    use platform::auth::Auth;
    use tempfile::TempDir;
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::Limits;
    use crate::hub::Hub;
    use crate::presence::Presences;
    use crate::render::Renderer;
    use crate::signals::Sender;

    async fn shared() -> (Arc<Shared>, TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let log = SqliteLog::open(&directory.path().join("log.db")).await;
        let record = Record::new(Arc::new(log.unwrap()), Keyring::in_memory());
        let shutdown = CancellationToken::new();
        let users = Directory::start(record.clone(), shutdown.clone());
        let sender = Sender::start(record.log.signals());
        let secret = "a secret that is only used in tests".to_owned();
        let shared = Shared {
            renderer: Arc::new(Renderer::new(record.clone(), users.clone())),
            hub: Arc::new(Hub::new()),
            presences: Arc::new(Presences::new(sender.clone())),
            sender,
            record,
            directory: users,
            auth: Auth::new(AuthMode::Open, Duration::from_secs(3600), &[secret]).unwrap(),
            limits: Limits {
                auth_timeout: LONG,
                ..Limits::default()
            },
            allowed_origins: Vec::new(),
            shutdown,
            sockets: TaskTracker::new(),
        };
        (Arc::new(shared), directory)
    }

    /// A connection that has been pinged, and whose client says nothing any more. The transport takes so
    /// many frames more than one before its client reads one.
    async fn pinged(
        buffer: usize,
    ) -> (
        Connection<impl FrameSink, impl FrameStream>,
        mpsc::Receiver<Outgoing>,
        TempDir,
    ) {
        let (shared, directory) = shared().await;
        let (sink, client) = mpsc::channel(buffer);
        let transport = Transport {
            sink: sink.sink_map_err(|_| Gone),
            stream: stream::pending(),
            kind: Kind::WebSocket,
            after: None,
        };
        let mut connection = Connection::new(shared, transport);
        connection.heard -= connection.silence_allowed();
        assert!(connection.on_alarm().is_none());
        assert!(connection.pinged);
        for _ in 0..8 {
            connection.writer.text("{}".into(), None);
        }
        (connection, client, directory)
    }

    #[tokio::test]
    async fn a_client_that_reads_is_alive_though_its_answer_to_the_ping_is_behind_all_it_reads() {
        let (mut connection, mut client, _directory) = pinged(0).await;
        let blocked = |connection: &mut Connection<_, _>| {
            assert!(connection.writer.write().now_or_never().is_none());
        };
        blocked(&mut connection);
        for _ in 0..3 {
            client.next().await.unwrap();
            blocked(&mut connection);
            connection.heard -= connection.silence_allowed();
            assert!(connection.on_alarm().is_none());
        }
        // It reads no more.
        blocked(&mut connection);
        connection.heard -= connection.silence_allowed();
        let end = connection.on_alarm().unwrap();
        assert!(matches!(end, End::Close { code, .. } if code == close::SILENT));
    }

    #[tokio::test]
    async fn what_the_kernel_takes_is_no_sign_of_a_client() {
        let (mut connection, _client, _directory) = pinged(100).await;
        connection.writer.write().await.unwrap();
        connection.heard -= connection.silence_allowed();
        let end = connection.on_alarm().unwrap();
        assert!(matches!(end, End::Close { code, .. } if code == close::SILENT));
    }
}
