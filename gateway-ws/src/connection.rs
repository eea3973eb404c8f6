//! One WebSocket connection: one task, from the upgrade to the close.
//!
//! What is to be sent waits in two places: the outbox, which the hub fills, and `pending`, which this
//! task fills only while it is short. A client that stops reading stops `pending`, then the reading of its own
//! frames and its replay, and at last the outbox overflows and the connection is closed, with the
//! position to resume from.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use events::{Position, RoomId, Timestamp, UserId};
use futures::stream::{SplitSink, SplitStream};
use futures::{Sink, SinkExt, StreamExt};
use platform::auth::{Claims, TokenError};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite;

use crate::Shared;
use crate::catch_up::{CatchUp, Outcome, Progress, Request, Step};
use crate::hub::ConnectionId;
use crate::outbox::{Ended, Outbox, Push};
use crate::protocol::{ClientFrame, ErrorCode, InvalidFrame, ServerFrame, close};

/// With this many frames or bytes waiting to be written, nothing is done that would add more.
const MAX_PENDING_FRAMES: usize = 64;
const MAX_PENDING_BYTES: usize = 256 * 1024;

/// Runs a connection to its end. `claims` is what the upgrade's `Authorization` header said, if it had
/// one; without, the first frame must bring the token.
pub async fn run(shared: Arc<Shared>, socket: WebSocket, claims: Option<Result<Claims, String>>) {
    let gauge = metrics::gauge!("hansard_sockets");
    gauge.increment(1.0);
    let (sink, stream) = socket.split();
    let limits = &shared.limits;
    let outbox = Arc::new(Outbox::new(limits.queue_frames, limits.queue_bytes));
    let now = Instant::now();
    let mut connection = Connection {
        id: shared.hub.name(),
        writer: Writer {
            sink,
            pending: VecDeque::new(),
            pending_bytes: 0,
            unflushed: false,
            on_drained: None,
        },
        stream,
        outbox,
        user: None,
        rooms: HashMap::new(),
        requests: VecDeque::new(),
        catch_up: None,
        heard: now,
        pinged: false,
        leave_at: None,
        tokens: f64::from(limits.frame_burst),
        tokens_at: now,
        authenticate_by: now + limits.auth_timeout,
        shared,
    };
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
        /// Whether what is pending is sent first.
        finish: bool,
    },
}

impl End {
    fn close(code: u16, reason: impl Into<String>) -> Self {
        Self::Close {
            code,
            reason: reason.into(),
            finish: true,
        }
    }
}

struct Connection {
    shared: Arc<Shared>,
    id: ConnectionId,
    writer: Writer,
    stream: SplitStream<WebSocket>,
    outbox: Arc<Outbox>,
    user: Option<Authenticated>,
    rooms: HashMap<RoomId, Subscription>,
    /// Subscriptions still to be made, one after the other.
    requests: VecDeque<Request>,
    catch_up: Option<CatchUp>,
    /// When the client was last heard.
    heard: Instant,
    /// Whether it has been pinged since.
    pinged: bool,
    /// When to leave, once the process is to shut down.
    leave_at: Option<Instant>,
    /// How many frames the client may send now, and when that was reckoned.
    tokens: f64,
    tokens_at: Instant,
    authenticate_by: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Authenticated {
    user: UserId,
    expires_at: Timestamp,
}

/// What a connection has of a room.
enum Subscription {
    /// Pushes after this position are sent on.
    Live(Position),
    /// Its history is being sent, or waits for its turn.
    CatchingUp(Box<Waiting>),
}

/// The live pushes that wait for a catch-up.
#[derive(Default)]
struct Waiting {
    pushes: VecDeque<Arc<Push>>,
    bytes: usize,
    /// There were too many; the catch-up has to go on from where it has got to.
    overflowed: bool,
    /// What of the room has been sent; `None` when the client asked for no history.
    sent: Option<Position>,
}

/// A frame to send.
struct Outgoing {
    message: Message,
    /// The event it tells of, if any.
    position: Option<Position>,
}

struct Writer {
    sink: SplitSink<WebSocket, Message>,
    pending: VecDeque<Outgoing>,
    pending_bytes: usize,
    unflushed: bool,
    /// Who wants to know when everything has been written.
    on_drained: Option<oneshot::Sender<()>>,
}

impl Writer {
    fn has_work(&self) -> bool {
        self.unflushed || !self.pending.is_empty()
    }

    fn has_room(&self) -> bool {
        self.pending.len() < MAX_PENDING_FRAMES && self.pending_bytes < MAX_PENDING_BYTES
    }

    fn text(&mut self, frame: Utf8Bytes, position: Option<Position>) {
        self.pending_bytes += frame.as_str().len();
        self.pending.push_back(Outgoing {
            message: Message::Text(frame),
            position,
        });
    }

    fn when_drained(&mut self, answer: oneshot::Sender<()>) {
        if self.has_work() {
            self.on_drained = Some(answer);
        } else {
            // The catch-up that asked may be over.
            let _ = answer.send(());
        }
    }

    /// Writes what is pending, with one flush for all of it. Dropping the future loses nothing.
    async fn write(&mut self) -> Result<(), axum::Error> {
        let pushed = metrics::counter!("hansard_pushed_messages_total");
        while !self.pending.is_empty() {
            std::future::poll_fn(|context| Pin::new(&mut self.sink).poll_ready(context)).await?;
            if let Some(outgoing) = self.pending.pop_front() {
                self.unflushed = true;
                if let Message::Text(text) = &outgoing.message {
                    self.pending_bytes -= text.as_str().len();
                }
                Pin::new(&mut self.sink).start_send(outgoing.message)?;
                if outgoing.position.is_some() {
                    pushed.increment(1);
                }
            }
        }
        self.sink.flush().await?;
        self.unflushed = false;
        if let Some(answer) = self.on_drained.take() {
            // The catch-up that asked may be over.
            let _ = answer.send(());
        }
        Ok(())
    }
}

impl Connection {
    async fn serve(&mut self, claims: Option<Result<Claims, String>>) -> End {
        match claims {
            None => {}
            Some(Ok(claims)) => {
                if let Err(end) = self.authenticate(claims, false).await {
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
                    if written.is_err() {
                        return End::Gone;
                    }
                }
                message = self.stream.next(), if self.writer.has_room() => {
                    if let Some(end) = self.on_message(message).await {
                        return end;
                    }
                }
                () = outbox.filled(), if self.writer.pending.is_empty() => self.take_pushes(),
                progress = next(&mut self.catch_up), if self.catch_up.is_some() && self.writer.has_room() => {
                    self.on_progress(progress);
                }
            }
        }
    }

    // --- Time ---

    /// When something is to be done even if nothing happens.
    fn deadline(&self) -> Instant {
        let mut deadline = self.heard + self.silence_allowed();
        match self.user {
            None => deadline = deadline.min(self.authenticate_by),
            Some(user) => deadline = deadline.min(Instant::now() + time_until(user.expires_at)),
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
        match self.user {
            None if self.authenticate_by <= now => {
                return Some(self.refuse("no token came in time; send it in the first frame"));
            }
            Some(user) if user.expires_at <= Timestamp::now() => {
                return Some(self.refuse(&TokenError::Expired.to_string()));
            }
            _ => {}
        }
        if self.heard + self.silence_allowed() <= now {
            if self.pinged {
                return Some(End::Close {
                    code: close::SILENT,
                    reason: "nothing was heard for too long".to_owned(),
                    finish: false,
                });
            }
            self.pinged = true;
            self.writer.pending.push_back(Outgoing {
                message: Message::Ping(bytes::Bytes::new()),
                position: None,
            });
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

    async fn on_message(&mut self, message: Option<Result<Message, axum::Error>>) -> Option<End> {
        let message = match message {
            None => return Some(End::Gone),
            Some(Err(error)) => return Some(self.on_broken_frame(error)),
            Some(Ok(message)) => message,
        };
        self.heard = Instant::now();
        self.pinged = false;
        match message {
            Message::Close(_) => return Some(End::ClosedByClient),
            // The library answers pings. They count like other frames.
            Message::Ping(_) | Message::Pong(_) => {}
            Message::Binary(_) => {
                if self.take_token() {
                    self.error(
                        ErrorCode::UnsupportedFrame,
                        "binary frames are not supported; send JSON in text frames",
                        None,
                    );
                }
            }
            Message::Text(text) => {
                if self.take_token() {
                    return self.on_text(text.as_str()).await;
                }
            }
        }
        None
    }

    fn on_broken_frame(&mut self, error: axum::Error) -> End {
        let error = error.into_inner();
        match error.downcast_ref::<tungstenite::Error>() {
            Some(tungstenite::Error::Capacity(_)) => {
                let message = format!(
                    "a message may have at most {} bytes",
                    self.shared.limits.message_bytes
                );
                self.error(ErrorCode::TooLarge, &message, None);
                End::close(close::TOO_LARGE, message)
            }
            Some(tungstenite::Error::Utf8(_)) => {
                End::close(close::PROTOCOL_ERROR, "a text frame is not UTF-8")
            }
            Some(tungstenite::Error::Protocol(
                tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
            )) => End::Gone,
            Some(tungstenite::Error::Protocol(_)) => {
                End::close(close::PROTOCOL_ERROR, "a frame is not as RFC 6455 wants it")
            }
            _ => End::Gone,
        }
    }

    async fn on_text(&mut self, text: &str) -> Option<End> {
        let frame = match ClientFrame::read(text) {
            Ok(frame) => frame,
            Err(InvalidFrame { code, message }) => {
                self.error(code, &message, None);
                return None;
            }
        };
        match (frame, self.user) {
            (ClientFrame::Ping, _) => self.writer.text(ServerFrame::Pong.encode(), None),
            (ClientFrame::Auth { token }, _) => {
                return match self.shared.auth.verify(&token) {
                    Ok(claims) => self.authenticate(claims, true).await.err(),
                    Err(error) => Some(self.refuse(&error.to_string())),
                };
            }
            (_, None) => self.error(
                ErrorCode::Unauthorized,
                "send a token first: {\"type\":\"auth\",\"token\":TOKEN}",
                None,
            ),
            (ClientFrame::Subscribe { room, after }, Some(_)) => self.subscribe(room, after),
            (ClientFrame::Unsubscribe { room }, Some(_)) => self.unsubscribe(room),
        }
        None
    }

    /// Takes in whom the token speaks for; with another token of the same user, only its expiry.
    async fn authenticate(&mut self, claims: Claims, answer: bool) -> Result<(), End> {
        let authenticated = Authenticated {
            user: claims.user,
            expires_at: claims.expires_at,
        };
        match self.user {
            Some(before) if before.user != claims.user => {
                self.error(
                    ErrorCode::InvalidMessage,
                    "the connection is another user's; open one for each user",
                    None,
                );
                return Ok(());
            }
            Some(_) => self.user = Some(authenticated),
            None => {
                self.user = Some(authenticated);
                // Registered before the user is looked up: a deletion after that ends the connection.
                let hub = Arc::clone(&self.shared.hub);
                let degraded = hub.register(claims.user, self.id, &self.outbox);
                match self.shared.directory.user(claims.user).await {
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
            }
        }
        if answer {
            let user = claims.user;
            let frame = ServerFrame::Authenticated { user };
            self.writer.text(frame.encode(), None);
        }
        Ok(())
    }

    fn refuse(&mut self, reason: &str) -> End {
        self.error(ErrorCode::Unauthorized, reason, None);
        End::close(close::UNAUTHORIZED, reason)
    }

    /// Whether one more frame is within the rate allowed; if not, the client is told.
    fn take_token(&mut self) -> bool {
        let limits = &self.shared.limits;
        let burst = f64::from(limits.frame_burst);
        let elapsed = self.heard.duration_since(self.tokens_at).as_secs_f64();
        self.tokens_at = self.heard;
        let refilled = self.tokens + elapsed * f64::from(limits.frames_per_second);
        self.tokens = refilled.min(burst);
        if self.tokens < 1.0 {
            let message = format!(
                "at most {} frames a second; this one was ignored",
                limits.frames_per_second
            );
            self.error(ErrorCode::RateLimited, &message, None);
            return false;
        }
        self.tokens -= 1.0;
        true
    }

    fn error(&mut self, code: ErrorCode, message: &str, room: Option<RoomId>) {
        let frame = ServerFrame::Error {
            code: code.as_str(),
            message,
            room,
        };
        self.writer.text(frame.encode(), None);
    }

    // --- Subscriptions ---

    fn subscribe(&mut self, room: RoomId, after: Option<Position>) {
        if let (Some(Subscription::Live(_)), None) = (self.rooms.get(&room), after) {
            // It is made already.
            let frame = ServerFrame::Subscribed {
                room,
                position: self.shared.hub.position(),
                recovered: false,
                reason: None,
            };
            self.writer.text(frame.encode(), None);
            return;
        }
        // With a position, or while the first is still being made, the new one takes its place.
        self.unsubscribe(room);
        let limit = self.shared.limits.subscriptions;
        if self.rooms.len() >= limit {
            let message = format!("a connection may have at most {limit} subscriptions");
            self.error(ErrorCode::TooManySubscriptions, &message, Some(room));
            return;
        }
        let waiting = Waiting {
            sent: after,
            ..Waiting::default()
        };
        let subscription = Subscription::CatchingUp(Box::new(waiting));
        self.rooms.insert(room, subscription);
        self.requests.push_back(Request {
            room,
            after,
            continues: None,
        });
        self.start_next();
    }

    fn unsubscribe(&mut self, room: RoomId) {
        if self.rooms.remove(&room).is_none() {
            return;
        }
        self.requests.retain(|request| request.room != room);
        if self.catch_up.as_ref().is_some_and(|it| it.room() == room) {
            self.catch_up = None;
        }
        self.shared.hub.leave(room, self.id);
        self.start_next();
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
        let Some(room) = self.catch_up.as_ref().map(CatchUp::room) else {
            return;
        };
        match progress {
            Progress::Step(step) => {
                self.on_step(room, step);
                // Those that are ready as well share the flush.
                while self.writer.has_room()
                    && let Some(step) = self.catch_up.as_mut().and_then(CatchUp::ready_step)
                {
                    self.on_step(room, step);
                }
            }
            Progress::Done(outcome) => {
                self.catch_up = None;
                match outcome {
                    Outcome::Over => {
                        self.rooms.remove(&room);
                        self.shared.hub.leave(room, self.id);
                    }
                    Outcome::Live { from, replayed } => self.go_live(room, from, replayed),
                }
                self.start_next();
            }
        }
    }

    fn on_step(&mut self, room: RoomId, step: Step) {
        match step {
            Step::Send { frame, position } => {
                if position.is_some()
                    && let Some(Subscription::CatchingUp(waiting)) = self.rooms.get_mut(&room)
                {
                    waiting.sent = position;
                }
                self.writer.text(frame, position);
            }
            Step::Drain(answer) => self.writer.when_drained(answer),
        }
    }

    /// Everything of the room up to `from` has been sent: what came after that, and waited, is next.
    fn go_live(&mut self, room: RoomId, from: Position, replayed: Option<u64>) {
        let Some(Subscription::CatchingUp(waiting)) = self.rooms.get_mut(&room) else {
            return;
        };
        if waiting.overflowed {
            **waiting = Waiting {
                sent: Some(from),
                ..Waiting::default()
            };
            self.requests.push_front(Request {
                room,
                after: Some(from),
                continues: replayed.or(Some(0)),
            });
            return;
        }
        let waited = std::mem::take(&mut waiting.pushes);
        self.rooms.insert(room, Subscription::Live(from));
        if let Some(count) = replayed {
            let frame = ServerFrame::Replayed {
                room,
                position: from,
                count,
            };
            self.writer.text(frame.encode(), None);
        }
        for push in waited {
            self.on_push(push);
        }
    }

    // --- Pushes ---

    fn take_pushes(&mut self) {
        for push in self.outbox.take() {
            self.on_push(push);
        }
    }

    fn on_push(&mut self, push: Arc<Push>) {
        let Some(room) = push.room else {
            self.writer.text(push.frame.clone(), None);
            return;
        };
        let overflow = match self.rooms.get_mut(&room) {
            // What was still on its way when the client unsubscribed.
            None => return,
            Some(Subscription::Live(from)) => {
                if push.position <= *from {
                    return;
                }
                self.writer.text(push.frame.clone(), Some(push.position));
                if push.ends_room {
                    self.rooms.remove(&room);
                }
                return;
            }
            Some(Subscription::CatchingUp(waiting)) => waiting.add(
                push,
                self.shared.limits.queue_frames,
                self.shared.limits.queue_bytes,
            ),
        };
        if overflow {
            self.shared.hub.leave(room, self.id);
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
    fn resume_from(&self, first_lost: Position) -> Position {
        let pending = self.writer.pending.iter().filter_map(|it| it.position);
        let catching_up = self.rooms.values().filter_map(|subscription| {
            let Subscription::CatchingUp(waiting) = subscription else {
                return None;
            };
            let waits = waiting.pushes.front().map(|push| push.position);
            waiting.sent.map(Position::next).or(waits)
        });
        let first = pending.chain(catching_up).fold(first_lost, Position::min);
        Position::new(first.get().saturating_sub(1))
    }

    fn unregister(&mut self) {
        self.catch_up = None;
        if let Some(user) = self.user {
            let hub = &self.shared.hub;
            hub.unregister(user.user, self.id, self.rooms.keys());
        }
    }

    async fn close(mut self, end: End) {
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
                finish,
            } => {
                if !finish {
                    self.writer.pending.clear();
                    self.writer.pending_bytes = 0;
                }
                self.writer.pending.push_back(Outgoing {
                    message: Message::Close(Some(CloseFrame {
                        code,
                        reason: reason.into(),
                    })),
                    position: None,
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
                    Ok::<(), axum::Error>(())
                })
                .await;
            }
        }
    }
}

impl Waiting {
    /// Adds a push; `true` when there are now too many, and all are dropped.
    fn add(&mut self, push: Arc<Push>, max_frames: usize, max_bytes: usize) -> bool {
        if self.overflowed {
            return false;
        }
        self.bytes += push.frame.as_str().len();
        self.pushes.push_back(push);
        self.overflowed = self.pushes.len() > max_frames || self.bytes > max_bytes;
        if self.overflowed {
            self.pushes = VecDeque::new();
        }
        self.overflowed
    }
}

async fn next(catch_up: &mut Option<CatchUp>) -> Progress {
    match catch_up {
        Some(catch_up) => catch_up.next().await,
        None => std::future::pending().await,
    }
}

/// Reads to the end of the connection, ignoring what comes.
async fn drain(stream: &mut SplitStream<WebSocket>) {
    while let Some(Ok(_)) = stream.next().await {}
}

fn time_until(time: Timestamp) -> Duration {
    let milliseconds = time.as_millis() - Timestamp::now().as_millis();
    // An alarm far in the future is of no use, and adding it to an instant could overflow.
    let milliseconds = milliseconds.clamp(0, 24 * 60 * 60 * 1000);
    Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0))
}
