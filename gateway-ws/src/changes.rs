//! `GET /changes`: what a personal subscription would be sent, page by page, for clients that come and go.
//!
//! A page is read as a replay is, from the hub's recent events or from the log. A request that finds
//! nothing may wait: then it is one more subscriber of the hub, whose queue is its answer. So it sees what
//! happens without asking for it again, and events are made into frames once for all who get them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::ws::Utf8Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use contract::Problem;
use event_log::LogError;
use events::{Position, UserId};
use platform::auth::{Claims, TokenError};
use platform::error::ApiError;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep, sleep_until};
use utoipa::ToSchema;

use crate::Shared;
use crate::connection::time_until;
use crate::history::Scope;
use crate::hub::{ConnectionId, TooManyConnections};
use crate::outbox::{Ended, Outbox};
use crate::protocol::{After, Change, Cursor, InvalidAfter, LogTag};

/// How many changes a page may have, and has if the request does not say.
const LIMITS: RangeInclusive<usize> = 1..=1000;
const DEFAULT_LIMIT: usize = 100;

/// Of how many bytes the changes of a page may be together. A single one may be larger.
const MAX_BYTES: usize = 1024 * 1024;

/// How many events a page is looked for in: those of rooms that are gone by now are passed over.
const MAX_EVENTS: usize = 10_000;

/// How many seconds a request may wait.
const WAITS: RangeInclusive<u64> = 0..=60;

const NO_POSITION: &str = "please provide the position of an answer or of a frame, or a message id";

/// How long a request waits for a gateway that has just been started.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// Answers with what changed.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChangesAnswer {
    /// Always `true`.
    success: bool,
    /// What happened in the caller's rooms, in the order of the log.
    #[schema(value_type = Vec<Change<'static>>)]
    changes: Vec<Box<RawValue>>,
    /// Everything up to here has been told: what to send next as `after`, here or to `/ws`.
    #[schema(value_type = String, example = "000000000000002a-3aefbf0d")]
    position: Cursor,
    /// Whether there is more already, so that the next request should follow at once.
    more: bool,
}

/// What happened in all rooms of the caller after a position.
///
/// The changes are the frames of `/ws` that tell of events, in the order of the log, each once. Begin
/// without `after`, which answers with the current position alone, then load what there is by the other
/// routes, and go on from that position. With `wait` a request that finds nothing is answered as soon as
/// something happens.
#[utoipa::path(
    get,
    path = "/changes",
    tag = "push",
    params(
        ("after" = Option<String>, Query, description = "the `position` of the last answer or frame, or a message's id; `0000000000000000` for everything. When absent, the answer has no changes and the current position"),
        ("limit" = Option<String>, Query, description = "how many changes to answer with at most, 1 to 1000; 100 when absent"),
        ("wait" = Option<String>, Query, description = "for how many seconds to wait when there is nothing after `after`, 0 to 60; 0 when absent"),
    ),
    responses(
        (status = 200, description = "the changes, maybe none", body = ChangesAnswer),
        (status = 400, description = "wrong parameters", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "a token is missing or bad, or has expired meanwhile, or its user has been deleted", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`start-over`: there is no going on from `after`, since the log is another one, or an older copy of it, than the client knew", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "`too-many-connections`: the user has as many connections as one may have", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "the event log is unavailable", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = []))
)]
pub(crate) async fn changes(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<impl IntoResponse, ApiError> {
    let claims = shared.auth.bearer(&headers)?;
    let request = Request::read(&query.unwrap_or_default())?;
    tokio::select! {
        biased;
        () = shared.hub.started() => {}
        () = shared.shutdown.cancelled() => return Err(not_ready()),
        () = sleep(START_PATIENCE) => return Err(not_ready()),
    }
    let feed = Feed {
        shared: &shared,
        claims,
        limit: request.limit,
    };
    // Named before anything is read: should the log be replaced meanwhile, the next request says so.
    let log = shared.hub.cursor(Position::ZERO).log;
    let page = feed.answer(request.after, request.wait).await?;
    let answer = page.answer(log);
    metrics::counter!("hansard_pushed_messages_total").increment(answer.changes.len() as u64);
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(answer)))
}

/// What a request's query asks for.
pub(crate) struct Request {
    after: Option<After>,
    limit: usize,
    wait: Duration,
}

impl Request {
    /// Unknown names are refused: a misspelt `after` would lose messages.
    pub(crate) fn read(query: &str) -> Result<Self, ApiError> {
        let mut request = Self {
            after: None,
            limit: DEFAULT_LIMIT,
            wait: Duration::ZERO,
        };
        let mut given = BTreeSet::new();
        let mut errors = BTreeMap::new();
        for (name, text) in url::form_urlencoded::parse(query.as_bytes()) {
            let wrong = match name.as_ref() {
                _ if !given.insert(name.clone()) => Err("given more than once".to_owned()),
                "after" => match text.parse() {
                    Ok(after) => {
                        request.after = Some(after);
                        Ok(())
                    }
                    Err(InvalidAfter) => Err(NO_POSITION.to_owned()),
                },
                "limit" => whole_number(&text, &LIMITS).map(|limit| request.limit = limit),
                "wait" => whole_number(&text, &WAITS)
                    .map(|seconds| request.wait = Duration::from_secs(seconds)),
                _ => Err("unknown parameter; there are after, limit and wait".to_owned()),
            };
            if let Err(text) = wrong {
                errors.insert(name.clone(), text);
            }
        }
        if errors.is_empty() {
            Ok(request)
        } else {
            Err(ApiError::validation(errors))
        }
    }
}

fn whole_number<T>(text: &str, range: &RangeInclusive<T>) -> Result<T, String>
where
    T: std::str::FromStr + PartialOrd + fmt::Display,
{
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text
        .parse()
        .ok()
        .filter(|number| digits && range.contains(number));
    number.ok_or_else(|| {
        let (first, last) = (range.start(), range.end());
        format!("please provide a whole number from {first} to {last}")
    })
}

/// The changes to answer with, as far as they are known.
struct Page {
    limit: usize,
    frames: Vec<Utf8Bytes>,
    bytes: usize,
    /// Everything up to here is in it.
    position: Position,
    /// Whether there is more after that.
    more: bool,
}

impl Page {
    fn new(after: Position, limit: usize) -> Self {
        Self {
            limit,
            frames: Vec::new(),
            bytes: 0,
            position: after,
            more: false,
        }
    }

    /// Adds what happened at `position`; `false` when there is no room for it.
    fn add(&mut self, position: Position, frame: Utf8Bytes) -> bool {
        let bytes = self.bytes + frame.as_str().len();
        let is_full = self.frames.len() >= self.limit || bytes > MAX_BYTES;
        if is_full && !self.frames.is_empty() {
            self.more = true;
            return false;
        }
        self.bytes = bytes;
        self.frames.push(frame);
        self.position = position;
        true
    }

    /// Whether it has something to say.
    fn is_worth_sending(&self) -> bool {
        self.more || !self.frames.is_empty()
    }

    // What frames are made of cannot fail to be JSON.
    #[allow(clippy::expect_used)]
    fn answer(self, log: LogTag) -> ChangesAnswer {
        let frames = self.frames.into_iter();
        let changes = frames.map(|frame| {
            RawValue::from_string(frame.as_str().to_owned()).expect("a frame is JSON")
        });
        ChangesAnswer {
            success: true,
            changes: changes.collect(),
            position: Cursor {
                position: self.position,
                log,
            },
            more: self.more,
        }
    }
}

/// What happens to one user.
struct Feed<'a> {
    shared: &'a Arc<Shared>,
    claims: Claims,
    limit: usize,
}

impl Feed<'_> {
    async fn answer(&self, after: Option<After>, wait: Duration) -> Result<Page, ApiError> {
        self.user_exists().await?;
        let Some(after) = after else {
            return Ok(Page::new(self.shared.hub.position(), self.limit));
        };
        if let Some(reason) = self.shared.unusable(after).await? {
            return Err(start_over(reason));
        }
        let deadline = Instant::now() + wait;
        let page = self
            .read(after.position, self.shared.hub.position())
            .await?;
        if page.is_worth_sending() || wait.is_zero() {
            return Ok(page);
        }
        self.wait(page.position, deadline).await
    }

    async fn user_exists(&self) -> Result<(), ApiError> {
        match self.shared.directory.user(self.claims.user).await? {
            Some(user) if !user.deleted => Ok(()),
            _ => Err(user_is_gone()),
        }
    }

    /// The first page of what happened after `after` up to and with `end`. When the log is lost on the
    /// way, as far as it has got.
    async fn read(&self, after: Position, end: Position) -> Result<Page, ApiError> {
        let mut page = Page::new(after, self.limit);
        match self.fill(&mut page, end).await {
            Err(error) if page.position == after => return Err(error.into()),
            Err(error) => tracing::debug!(%error, "a page of changes is cut short"),
            Ok(()) => {}
        }
        page.more = page.position < end;
        Ok(page)
    }

    async fn fill(&self, page: &mut Page, end: Position) -> Result<(), LogError> {
        let mut events = 0;
        while page.position < end {
            let stretch = self
                .shared
                .stretch(self.claims.user, Scope::Own, page.position, end);
            let mut stretch = stretch.await?;
            while let Some((position, envelope)) = stretch.next().await? {
                let push = self.shared.tell(Scope::Own, position, &envelope).await?;
                if push.is_some_and(|push| !page.add(position, push.frame)) {
                    return Ok(());
                }
                page.position = position;
                events += 1;
                if events == MAX_EVENTS || page.frames.len() == page.limit {
                    return Ok(());
                }
            }
            page.position = stretch.end();
        }
        Ok(())
    }

    /// What happens after `after`, of which there is nothing so far: the first of it, or nothing when it is
    /// time to answer.
    async fn wait(&self, after: Position, deadline: Instant) -> Result<Page, ApiError> {
        let (shared, user) = (self.shared, self.claims.user);
        let waiting = Waiting::register(shared, user)?;
        // The user's deletion has ended the waiting if it came after that, and is seen here if before.
        self.user_exists().await?;
        let joined = shared.hub.join_own(user, waiting.id, &waiting.outbox);
        let page = self.read(after, joined).await?;
        if page.is_worth_sending() {
            return Ok(page);
        }
        let after = page.position;
        let expiry = sleep(time_until(self.claims.expires_at));
        let time_is_up = sleep_until(deadline);
        tokio::pin!(expiry, time_is_up);
        loop {
            tokio::select! {
                biased;
                ended = waiting.outbox.ended() => return match ended {
                    Ended::UserDeleted => Err(user_is_gone()),
                    Ended::LogReplaced => Err(start_over("the log was replaced")),
                    // What did not fit has to be read.
                    Ended::TooSlow { .. } => self.read(after, shared.hub.position()).await,
                },
                () = &mut expiry => return Err(TokenError::Expired.into()),
                () = waiting.outbox.filled() => {
                    let page = self.take(&waiting.outbox, after);
                    // Signals wake it as well.
                    if page.is_worth_sending() {
                        return Ok(page);
                    }
                }
                () = &mut time_is_up => return Ok(self.take(&waiting.outbox, after)),
                () = shared.shutdown.cancelled() => return Ok(self.take(&waiting.outbox, after)),
            }
        }
    }

    /// What is queued, as a page.
    fn take(&self, outbox: &Outbox, after: Position) -> Page {
        let mut page = Page::new(after, self.limit);
        // Asked first: what was handed out up to there is in the queue.
        let end = self.shared.hub.position();
        let pushes = outbox.take();
        // Asked last: unless it has overflowed meanwhile.
        if outbox.has_ended() {
            return page;
        }
        for push in pushes {
            // The client may be ahead of this gateway.
            let Some(position) = push.position.filter(|position| *position > after) else {
                continue;
            };
            if !page.add(position, push.frame.clone()) {
                return page;
            }
        }
        page.position = page.position.max(end);
        page
    }
}

fn not_ready() -> ApiError {
    ApiError::unavailable("the gateway is not ready; try again", 1)
}

fn user_is_gone() -> ApiError {
    ApiError::invalid_token("the token's user does not exist")
}

fn start_over(reason: &str) -> ApiError {
    let message = format!("{reason}; load everything again and go on from a new position");
    ApiError::new(StatusCode::CONFLICT, "start-over", message)
}

/// A request that waits, among the user's connections to this gateway, until it is dropped.
struct Waiting<'a> {
    shared: &'a Shared,
    user: UserId,
    id: ConnectionId,
    outbox: Arc<Outbox>,
}

impl<'a> Waiting<'a> {
    fn register(shared: &'a Shared, user: UserId) -> Result<Self, ApiError> {
        let limits = &shared.limits;
        let limit = limits.connections_per_user;
        let id = shared.hub.name();
        let outbox = Arc::new(Outbox::new(limits.queue_frames, limits.queue_bytes));
        shared
            .hub
            .register(user, id, None, &outbox, limit)
            .map_err(|TooManyConnections| {
                let message =
                    format!("a user may have at most {limit} connections; close another one first");
                let status = StatusCode::TOO_MANY_REQUESTS;
                ApiError::new(status, "too-many-connections", message)
            })?;
        metrics::gauge!("hansard_waiting_requests").increment(1.0);
        Ok(Self {
            shared,
            user,
            id,
            outbox,
        })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let hub = &self.shared.hub;
        hub.unregister(self.user, self.id, std::iter::empty());
        metrics::gauge!("hansard_waiting_requests").decrement(1.0);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn frame(bytes: usize) -> Utf8Bytes {
        "x".repeat(bytes).into()
    }

    #[test]
    fn a_page_takes_so_many_changes_and_bytes_and_a_single_larger_one() {
        let at = Position::new;
        let mut page = Page::new(at(1), 2);
        assert!(page.add(at(2), frame(1)) && page.add(at(3), frame(1)));
        assert!(!page.more);
        assert!(!page.add(at(4), frame(1)));
        assert_eq!((page.frames.len(), page.position), (2, at(3)));
        assert!(page.more);

        let mut page = Page::new(at(1), 9);
        assert!(page.add(at(2), frame(MAX_BYTES)));
        assert!(!page.add(at(3), frame(1)));
        assert_eq!(page.position, at(2));

        let mut page = Page::new(at(1), 9);
        assert!(page.add(at(2), frame(MAX_BYTES + 1)));
        assert!(!page.add(at(3), frame(1)));
    }

    #[test]
    fn numbers_are_whole_and_in_their_range() {
        for (text, number) in [("0", 0), ("7", 7), ("007", 7), ("60", 60)] {
            assert_eq!(whole_number(text, &WAITS), Ok(number));
        }
        let refusal = "please provide a whole number from 0 to 60";
        for text in [
            "",
            "-0",
            "+1",
            "61",
            "1.0",
            " 1",
            "1 ",
            "0x1",
            "٣",
            "9".repeat(30).as_str(),
        ] {
            assert_eq!(whole_number(text, &WAITS).unwrap_err(), refusal, "{text}");
        }
    }
}
