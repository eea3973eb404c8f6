//! A client of the WebSocket that comes and goes as clients do, always resumes from where it has got to,
//! and keeps what it was told: for suites that ask whether anything is ever missed or told twice.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use xtask::process::POLL;

use crate::socket::WsClient;
use crate::stack::Person;
use crate::telling::{Lines, Told};

/// How long a follower may take to hear the last event, once it is known, with all that it has slept
/// through before it.
const END: Duration = Duration::from_secs(120);
/// How long it may not read at a time: who does not answer a ping for long is rightly given up.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// The receive buffer of those that read slowly, in bytes.
const NARROW: u32 = 8 * 1024;
/// Connections shown on either side of a difference.
const SHOWN_CONNECTIONS: usize = 2;
/// Events shown before and after a difference.
const SHOWN_EVENTS: usize = 3;

/// What a follower follows.
#[derive(Debug, Clone)]
pub enum Following {
    /// All rooms of the person, with one cursor, except for those muted.
    Own {
        /// Ids of rooms.
        muted: BTreeSet<String>,
    },
    /// These rooms, by their ids, each with a cursor of its own.
    Rooms(Vec<String>),
}

/// How a follower is to behave.
#[derive(Debug, Clone)]
pub struct Plan {
    /// For people who read what went wrong.
    pub name: String,
    /// Whose client it is.
    pub person: Person,
    /// What it follows.
    pub following: Following,
    /// The WebSockets' URLs: one at random for each connection.
    pub urls: Vec<String>,
    /// Whether it wants the history as well; else it begins with now.
    pub with_history: bool,
    /// Whether it stops reading now and then, with little room for what comes meanwhile.
    pub reads_slowly: bool,
    /// How long it may stay away.
    pub longest_sleep: Duration,
    /// For its choices.
    pub seed: u64,
}

/// Up to where a follower has been told, for those who watch it from outside.
#[derive(Debug, Clone)]
pub struct Cursor(Arc<AtomicU64>);

impl Cursor {
    /// Before the follower knows where it begins, nothing is owed to it.
    fn nowhere() -> Self {
        Self(Arc::new(AtomicU64::new(u64::MAX)))
    }

    /// The position after which everything is still to be told.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What followers have done, to be added up.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Connections that were made.
    pub connections: u64,
    /// Connections that were refused or broke before anything was said.
    pub refused: u64,
    /// Subscriptions that resumed.
    pub resumed: u64,
    /// Connections that the client closed.
    pub closed: u64,
    /// Connections on which the client hung up.
    pub hung_up: u64,
    /// Connections that broke: their gateway was killed.
    pub broken: u64,
    /// Connections that the gateway closed because the client was too slow.
    pub too_slow: u64,
    /// Frames received, of all kinds.
    pub frames: u64,
    /// Events among them that were replayed.
    pub replayed: u64,
    /// Bytes of the frames.
    pub bytes: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.connections += other.connections;
        self.refused += other.refused;
        self.resumed += other.resumed;
        self.closed += other.closed;
        self.hung_up += other.hung_up;
        self.broken += other.broken;
        self.too_slow += other.too_slow;
        self.frames += other.frames;
        self.replayed += other.replayed;
        self.bytes += other.bytes;
    }
}

/// How long clients waited.
#[derive(Debug, Default)]
pub struct Waits {
    /// From a connection's first `subscribe` to its `subscribed`.
    pub answers: Vec<Duration>,
    /// From a `subscribed` to its `replayed`.
    pub replays: Vec<Duration>,
}

impl Waits {
    /// Adds those of another client.
    pub fn extend(&mut self, other: &Self) {
        self.answers.extend(&other.answers);
        self.replays.extend(&other.replays);
    }
}

/// The last event of each room of each person, by their ids; `None` as long as more may happen.
pub type Last = Option<Arc<HashMap<String, BTreeMap<String, u64>>>>;

/// A client that comes and goes.
#[derive(Debug)]
pub struct Follower {
    plan: Plan,
    random: StdRng,
    lines: Arc<Lines>,
    last: watch::Receiver<Last>,
    begun: Instant,
    /// How positions name the log.
    log: Option<String>,
    tracks: Vec<Track>,
    connections: Vec<Connection>,
    /// What should never have come.
    wrong: Vec<String>,
    /// What it has done.
    pub tally: Tally,
    /// The spans of the log that were replayed: after which position, up to which.
    pub resumptions: Vec<(u64, u64)>,
    /// How long the first answer of each connection took, and each replay that came to its end.
    pub waits: Waits,
    /// When this connection asked for its subscriptions, until the first is answered.
    asked: Option<Instant>,
}

/// What was told for one subscription, over all connections.
#[derive(Debug)]
struct Track {
    /// The room; `None` for all of the person's.
    room: Option<String>,
    /// After which position it began; `None` before the first answer.
    start: Option<u64>,
    /// Everything up to here was told.
    cursor: u64,
    /// The same, for others to see.
    shown: Cursor,
    told: Vec<Told>,
    /// Since when a replay runs, and how many events were replayed so far.
    replaying: Option<(Instant, u64)>,
}

/// What happened on a connection, for people who read what went wrong.
#[derive(Debug)]
struct Connection {
    /// When it was made, since the follower began.
    at: Duration,
    url: String,
    /// How many events each track had been told before, and up to where.
    told_before: Vec<(usize, u64)>,
    /// What was asked, answered, and how it ended.
    notes: Vec<String>,
}

/// What to do about a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Listen,
    /// It is over.
    Reconnect,
    /// Everything that has happened was told.
    Finish,
}

impl Follower {
    /// Starts following, until `last` says which event is the last of each room, and all that was heard.
    /// With it come its cursors: one for all rooms, or one for each, as in the plan.
    #[must_use]
    pub fn start(
        plan: Plan,
        lines: &Arc<Lines>,
        last: &watch::Receiver<Last>,
    ) -> (JoinHandle<Self>, Vec<Cursor>) {
        let track = |room| Track {
            room,
            start: plan.with_history.then_some(0),
            cursor: 0,
            shown: Cursor::nowhere(),
            told: Vec::new(),
            replaying: None,
        };
        let tracks = match &plan.following {
            Following::Own { .. } => vec![track(None)],
            Following::Rooms(rooms) => rooms.iter().cloned().map(Some).map(track).collect(),
        };
        let follower = Self {
            random: StdRng::seed_from_u64(plan.seed),
            lines: Arc::clone(lines),
            last: last.clone(),
            begun: Instant::now(),
            log: None,
            tracks,
            connections: Vec::new(),
            wrong: Vec::new(),
            tally: Tally::default(),
            resumptions: Vec::new(),
            waits: Waits::default(),
            asked: None,
            plan,
        };
        follower.show_cursors();
        let cursors = follower.tracks.iter().map(|it| it.shown.clone());
        let cursors = cursors.collect();
        (tokio::spawn(follower.follow()), cursors)
    }

    fn show_cursors(&self) {
        for track in self.tracks.iter().filter(|it| it.start.is_some()) {
            track.shown.0.store(track.cursor, Ordering::Relaxed);
        }
    }

    async fn follow(mut self) -> Self {
        let mut last = self.last.clone();
        let given_up = async {
            // Fails when the test is over.
            let _ = last.wait_for(Option::is_some).await;
            sleep(END).await;
        };
        tokio::select! {
            () = self.come_and_go() => {}
            () = given_up => {
                let waited = END.as_secs();
                self.wrong.push(format!("the last event has not come within {waited} s"));
            }
        }
        self
    }

    async fn come_and_go(&mut self) {
        while self.connect().await != Next::Finish {
            // Mostly they are back soon, as after a lost network.
            let asleep = match self.random.random_range(0..10) {
                0..4 => Duration::ZERO,
                4..8 => self.random_up_to(Duration::from_millis(500)),
                _ => self.random_up_to(self.plan.longest_sleep),
            };
            self.sleep(asleep).await;
        }
    }

    /// Does nothing for so long, but no longer than until the last event is known.
    async fn sleep(&self, asleep: Duration) {
        let mut last = self.last.clone();
        let _ = timeout(asleep, last.wait_for(Option::is_some)).await;
    }

    fn random_up_to(&mut self, longest: Duration) -> Duration {
        longest.mul_f64(self.random.random::<f64>())
    }

    /// One connection, from its beginning to its end.
    async fn connect(&mut self) -> Next {
        let url = self.plan.urls.choose(&mut self.random);
        let url = url.expect("there is a gateway").clone();
        let token = Some(self.plan.person.token.as_str());
        let connected = match self.plan.reads_slowly {
            true => WsClient::try_connect_narrowly(&url, token, NARROW).await,
            false => WsClient::try_connect(&url, token).await,
        };
        let Ok(mut socket) = connected else {
            self.tally.refused += 1;
            sleep(POLL).await;
            return Next::Reconnect;
        };
        self.tally.connections += 1;
        let tracks = self.tracks.iter();
        let told_before = tracks.map(|track| (track.told.len(), track.cursor));
        self.connections.push(Connection {
            at: self.begun.elapsed(),
            url,
            told_before: told_before.collect(),
            notes: Vec::new(),
        });
        for track in &mut self.tracks {
            track.replaying = None;
        }
        self.asked = Some(Instant::now());
        let next = match self.subscribe(&mut socket).await {
            Ok(()) => self.listen(&mut socket).await,
            Err(_) => {
                self.tally.broken += 1;
                Next::Reconnect
            }
        };
        self.tally.bytes += socket.bytes;
        if !socket.log.is_empty() {
            self.log = Some(socket.log.clone());
        }
        if next == Next::Listen {
            // It is ours to end.
            if self.random.random() {
                self.tally.closed += 1;
                self.note("closed by the client".to_owned());
                socket.close().await;
            } else {
                self.tally.hung_up += 1;
                self.note("hung up by the client".to_owned());
            }
        }
        next
    }

    async fn subscribe(
        &mut self,
        socket: &mut WsClient,
    ) -> Result<(), Box<tokio_tungstenite::tungstenite::Error>> {
        for index in 0..self.tracks.len() {
            let track = &self.tracks[index];
            let mut frame = json!({"type": "subscribe"});
            if let Some(room) = &track.room {
                frame["room"] = room.as_str().into();
            }
            if track.start.is_some() {
                // With or without the log's name.
                let log = self.log.as_ref().filter(|_| self.random.random());
                let log = log.map_or(String::new(), |log| format!("-{log}"));
                frame["after"] = format!("{:016x}{log}", track.cursor).into();
                self.tally.resumed += 1;
            }
            self.note(frame.to_string());
            socket.try_send(frame).await?;
        }
        if let Following::Own { muted } = &self.plan.following {
            for room in muted {
                let frame = json!({"type": "unsubscribe", "room": room});
                socket.try_send(frame).await?;
            }
        }
        Ok(())
    }

    /// Listens until the connection ends, or it is time to end it ([`Next::Listen`]), or all is heard.
    async fn listen(&mut self, socket: &mut WsClient) -> Next {
        let stay = match self.random.random_range(0..5) {
            0 => Duration::from_millis(200),
            1 | 2 => Duration::from_secs(4),
            _ => Duration::from_secs(8),
        };
        let leave_at = Instant::now() + self.random_up_to(stay);
        let mut pause_at = self.plan.reads_slowly.then(|| Instant::now() + stay / 10);
        let mut unsubscribed = BTreeSet::new();
        let mut last = self.last.clone();
        let mut is_last_known = last.borrow_and_update().is_some();
        let mut asked_for_rest = false;
        loop {
            if is_last_known && !asked_for_rest && self.has_heard_all() {
                // Whatever else is on its way comes before the answer.
                asked_for_rest = true;
                if socket.try_send(json!({"type": "ping"})).await.is_err() {
                    return Next::Reconnect;
                }
            }
            let received = tokio::select! {
                received = socket.receive() => received,
                () = tokio::time::sleep_until(leave_at), if !is_last_known => return Next::Listen,
                _ = last.changed(), if !is_last_known => {
                    is_last_known = true;
                    continue;
                }
            };
            match received {
                Ok(frame) if asked_for_rest && frame["type"] == "pong" => return Next::Finish,
                Ok(frame) => {
                    self.on_frame(&frame, &mut unsubscribed);
                    self.show_cursors();
                }
                Err(code) => {
                    self.on_end(code, &socket.reason);
                    return Next::Reconnect;
                }
            }
            if !is_last_known && pause_at.is_some_and(|pause_at| pause_at <= Instant::now()) {
                pause_at = None;
                let pause = self.random_up_to(self.plan.longest_sleep.min(LONGEST_PAUSE));
                let paused_at = Instant::now();
                self.sleep(pause).await;
                let paused = paused_at.elapsed().as_millis();
                self.note(format!("did not read for {paused} ms"));
            }
        }
    }

    fn on_frame(&mut self, frame: &Value, unsubscribed: &mut BTreeSet<String>) {
        self.tally.frames += 1;
        let room = frame["room"].as_str();
        if let Some(told) = self.lines.of_frame(frame) {
            self.on_event(told, unsubscribed);
            return;
        }
        match frame["type"].as_str().unwrap_or_default() {
            "subscribed" => {
                self.note(frame.to_string());
                let asked = self.asked.take();
                self.waits.answers.extend(asked.map(|it| it.elapsed()));
                let position = position(frame);
                let track = self.tracks.iter_mut().find(|it| it.room.as_deref() == room);
                let Some(track) = track else {
                    return self.wrong(frame);
                };
                if track.start.is_none() {
                    track.start = Some(position);
                    track.cursor = position;
                } else {
                    track.replaying = Some((Instant::now(), 0));
                    self.resumptions.push((track.cursor, position));
                    if frame["recovered"] != true {
                        self.wrong(frame);
                    }
                }
            }
            "replayed" => {
                self.note(frame.to_string());
                let track = self.tracks.iter_mut().find(|it| it.room.as_deref() == room);
                let Some(track) = track else {
                    return self.wrong(frame);
                };
                let (began, replayed) = track.replaying.take().unzip();
                // All of it was told, whether or not there was anything to tell.
                track.cursor = track.cursor.max(position(frame));
                self.tally.replayed += replayed.unwrap_or_default();
                self.waits.replays.extend(began.map(|it| it.elapsed()));
                if replayed != frame["count"].as_u64() {
                    self.wrong(&format!("{frame} after {replayed:?} events"));
                }
            }
            "unsubscribed" => {
                unsubscribed.extend(room.map(str::to_owned));
            }
            // As when the log's server is slow; nothing is promised of how often.
            "degraded" | "restored" => self.note(frame.to_string()),
            _ => self.wrong(frame),
        }
    }

    fn on_event(&mut self, told: Told, unsubscribed: &BTreeSet<String>) {
        let mut tracks = self.tracks.iter_mut();
        let track = tracks.find(|it| it.room.as_deref().is_none_or(|room| *room == *told.room));
        let Some(track) = track else {
            return self.wrong(&told);
        };
        if let Some((_, replayed)) = &mut track.replaying {
            *replayed += 1;
        }
        track.cursor = track.cursor.max(told.position);
        match &self.plan.following {
            Following::Own { muted } if muted.contains(&*told.room) => {
                // What was on its way before the gateway took note.
                if unsubscribed.contains(&*told.room) {
                    self.wrong(&format!("of a muted room: {told}"));
                }
            }
            _ => track.told.push(told),
        }
    }

    fn on_end(&mut self, code: Option<u16>, reason: &str) {
        self.note(format!("ended with {code:?} {reason}"));
        match code {
            Some(4008) => {
                self.tally.too_slow += 1;
                let cursor = reason.strip_prefix("too slow; resume after ");
                let position = cursor.and_then(|cursor| cursor.split_once('-'));
                let position = position.and_then(|(it, _)| u64::from_str_radix(it, 16).ok());
                let Some(position) = position else {
                    return self.wrong(&reason);
                };
                // What was told is never behind it, where there is one cursor for all.
                if let (Following::Own { .. }, [track]) = (&self.plan.following, &*self.tracks)
                    && position < track.cursor
                {
                    self.wrong(&format!("{reason}, after {:016x}", track.cursor));
                }
                // Half of the clients go by it, the others by what they have.
                if self.random.random() {
                    for track in self.tracks.iter_mut().filter(|it| it.start.is_some()) {
                        track.cursor = track.cursor.max(position);
                    }
                }
            }
            None => self.tally.broken += 1,
            Some(code) => self.wrong(&format!("closed with {code}: {reason}")),
        }
    }

    fn note(&mut self, note: String) {
        if let Some(connection) = self.connections.last_mut() {
            connection.notes.push(note);
        }
    }

    fn wrong(&mut self, what: &dyn fmt::Display) {
        let connection = self.connections.len();
        let mut what = what.to_string();
        if let Some((end, _)) = what.char_indices().nth(500) {
            what.truncate(end);
        }
        self.wrong.push(format!("connection {connection}: {what}"));
    }

    /// Whether each track has begun and come to its last event.
    fn has_heard_all(&self) -> bool {
        let last = self.last.borrow();
        let Some(last) = last.as_ref() else {
            return false;
        };
        self.tracks.iter().all(|track| {
            // Somebody may have no room at all.
            let rooms = last.get(self.person()).into_iter().flatten();
            let end = rooms.filter(|(room, _)| self.is_told_of(track, room));
            let end = end.map(|(_, position)| *position).max();
            let told = track.told.last().map(|told| told.position);
            track.start.is_some() && (track.start >= end || told >= end)
        })
    }

    fn is_told_of(&self, track: &Track, room: &str) -> bool {
        match (&track.room, &self.plan.following) {
            (Some(own), _) => own == room,
            (None, Following::Own { muted }) => !muted.contains(room),
            (None, Following::Rooms(_)) => false,
        }
    }

    /// Compares what was told with what happened, in the log's order, in the rooms of the person. Gives
    /// how many events were compared.
    ///
    /// # Errors
    /// They differ, or something came that should not have; the text shows where, and the connections
    /// around it.
    pub fn compare(&self, happened: &[&Told]) -> Result<usize, String> {
        let mut compared = 0;
        for (index, track) in self.tracks.iter().enumerate() {
            let Some(start) = track.start else {
                return Err(format!(
                    "{} was never subscribed\n{}",
                    self.plan.name,
                    self.last_connections()
                ));
            };
            let expected = happened
                .iter()
                .filter(|it| it.position > start && self.is_told_of(track, &it.room));
            let expected: Vec<&Told> = expected.copied().collect();
            let mut pairs = expected.iter().zip(&track.told);
            let difference = pairs.position(|(expected, told)| *expected != told);
            let shorter = expected.len().min(track.told.len());
            let longer = expected.len().max(track.told.len());
            if let Some(at) = difference.or((shorter < longer).then_some(shorter)) {
                return Err(self.difference(index, &expected, at));
            }
            compared += expected.len();
        }
        if self.wrong.is_empty() {
            return Ok(compared);
        }
        let wrong = self.wrong.iter().take(5).map(String::as_str);
        let wrong: Vec<&str> = wrong.collect();
        Err(format!(
            "{}:\n  {}\n{}",
            self.plan.name,
            wrong.join("\n  "),
            self.last_connections()
        ))
    }

    fn last_connections(&self) -> String {
        let connections = self.connections.iter().enumerate();
        let last = connections.skip(self.connections.len().saturating_sub(SHOWN_CONNECTIONS));
        let last: String = last.map(|(number, it)| it.shown(number, None)).collect();
        format!("its last connections:\n{last}")
    }

    fn difference(&self, index: usize, expected: &[&Told], at: usize) -> String {
        let track = &self.tracks[index];
        let first = at.saturating_sub(SHOWN_EVENTS);
        let excerpt = |shown: &mut dyn Iterator<Item = &Told>| -> String {
            let shown = shown.skip(first).take(2 * SHOWN_EVENTS + 1).enumerate();
            let lines = shown.map(|(number, told)| {
                let mark = if first + number == at { '>' } else { ' ' };
                let room = &told.room[..told.room.len().min(8)];
                format!("  {mark} {room} {told}\n")
            });
            lines.collect()
        };
        // The last that could still tell of what is missing, or else told what is too much, and those
        // before it.
        let missing = expected.get(at).filter(|missing| {
            let told = track.told.get(at);
            told.is_none_or(|told| told.position > missing.position)
        });
        let came_on = self
            .connections
            .iter()
            .rposition(|it| {
                let (events, cursor) = it.told_before[index];
                missing.map_or(events <= at, |missing| cursor < missing.position)
            })
            .unwrap_or_default();
        let around = came_on.saturating_sub(SHOWN_CONNECTIONS)..=came_on;
        let connections: String = around
            .filter_map(|number| {
                let connection = self.connections.get(number)?;
                Some(connection.shown(number, Some(index)))
            })
            .collect();
        let scope = track.room.as_deref().unwrap_or("all rooms");
        format!(
            "{}, {scope}: event {at} differs (of {} in the log, {} told)\n\
             in the log:\n{}told:\n{}on connections:\n{connections}{}",
            self.plan.name,
            expected.len(),
            track.told.len(),
            excerpt(&mut expected.iter().copied()),
            excerpt(&mut track.told.iter()),
            self.wrong.first().map_or("", String::as_str),
        )
    }

    /// The person's id.
    #[must_use]
    pub fn person(&self) -> &str {
        &self.plan.person.id
    }
}

impl Connection {
    fn shown(&self, number: usize, track: Option<usize>) -> String {
        let told = track.map(|track| {
            let (events, cursor) = self.told_before[track];
            format!(", {events} events told before, up to {cursor:016x}")
        });
        format!(
            "  {number}: after {} ms, {}{}\n    {}\n",
            self.at.as_millis(),
            self.url,
            told.unwrap_or_default(),
            self.notes.join("\n    ")
        )
    }
}

fn position(frame: &Value) -> u64 {
    let position = frame["position"].as_str().unwrap_or_default();
    u64::from_str_radix(position, 16).expect("a position is a hex number")
}
