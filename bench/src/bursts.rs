//! Fan-out of what waits: how fast messages that are there reach their subscribers, in one room with many of them
//! and in many rooms of two. What accepts the messages, and stores them, has no part in it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use events::{Envelope, Event, Expect, MessagePosted, RoomId, UserId};
use futures::{StreamExt, TryStreamExt, stream};
use nix::sys::signal::Signal;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::fan_out::TEXT_BYTES;
use crate::figure::Figure;
use crate::frames::Frames;
use crate::record;
use crate::report::cell;
use crate::server::{Server, Setup, System};
use crate::socket::Socket;
use crate::sockets::connect;
use crate::world::{APPENDS, created, initiated};

/// The members of the one room, and how many connections they have together.
const MEMBERS: usize = 5;
const SUBSCRIBERS: usize = 500;
/// How many messages the one room has to hand out: they fit into what any server keeps for a client.
const TO_ONE_ROOM: usize = 400;
/// How many rooms of two there are, each member with one connection, and how many messages each has to hand out.
const COUPLES: usize = 2_500;
const TO_A_COUPLE: usize = 20;
/// How long everything may take to reach everybody.
const LIMIT: Duration = Duration::from_secs(60);

/// What was measured: messages received by subscribers, a second.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// In one room.
    pub one_room: Figures,
    /// In rooms of two.
    pub couples: Figures,
}

/// The figures of one kind of rooms.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// The size of a frame, in bytes.
    pub frame_bytes: usize,
    /// Of Hansard's gateway.
    pub hansard: Figure,
    /// Of socket.io.
    pub socket_io: Figure,
    /// Of a bare loop.
    pub broadcast: Figure,
}

/// Who is in which rooms.
struct Crowd {
    data_dir: PathBuf,
    rooms: Vec<(RoomId, Vec<UserId>)>,
    /// Each with the room it is told of.
    subscribers: Vec<(UserId, RoomId)>,
    messages_each: usize,
}

#[derive(Default)]
struct Runs {
    hansard: Vec<f64>,
    socket_io: Vec<f64>,
    broadcast: Vec<f64>,
    frame_bytes: usize,
}

/// Measures everything `runs` times, the systems by turns.
///
/// # Errors
/// A server fails, or does not tell everybody.
pub async fn run(setup: &Setup, runs: u32) -> anyhow::Result<Outcome> {
    let one_room = Crowd::in_one_room(&setup.directory.join("one-room")).await?;
    let couples = Crowd::of_couples(&setup.directory.join("couples")).await?;
    let (mut in_one, mut in_couples) = (Runs::default(), Runs::default());
    for run in 1..=runs {
        eprintln!("bursts: run {run} of {runs}");
        for (crowd, runs) in [(&one_room, &mut in_one), (&couples, &mut in_couples)] {
            let (rate, frame_bytes) = crowd.measure(setup, System::Hansard, 0).await?;
            runs.hansard.push(rate);
            runs.frame_bytes = frame_bytes;
            let (rate, _) = crowd.measure(setup, System::SocketIo, frame_bytes).await?;
            runs.socket_io.push(rate);
            let (rate, _) = crowd.measure(setup, System::Broadcast, frame_bytes).await?;
            runs.broadcast.push(rate);
        }
    }
    Ok(Outcome {
        one_room: in_one.into(),
        couples: in_couples.into(),
    })
}

impl From<Runs> for Figures {
    fn from(runs: Runs) -> Self {
        Self {
            frame_bytes: runs.frame_bytes,
            hansard: Figure::of(runs.hansard),
            socket_io: Figure::of(runs.socket_io),
            broadcast: Figure::of(runs.broadcast),
        }
    }
}

impl Crowd {
    async fn in_one_room(data_dir: &Path) -> anyhow::Result<Self> {
        let members: Vec<UserId> = (0..MEMBERS).map(|_| UserId::random()).collect();
        let rooms = create(data_dir, vec![members.clone()]).await?;
        let room = rooms[0].0;
        let subscribers = members.iter().cycle().take(SUBSCRIBERS);
        Ok(Self {
            data_dir: data_dir.to_owned(),
            subscribers: subscribers.map(|user| (*user, room)).collect(),
            rooms,
            messages_each: TO_ONE_ROOM,
        })
    }

    async fn of_couples(data_dir: &Path) -> anyhow::Result<Self> {
        let couple = || vec![UserId::random(), UserId::random()];
        let couples = (0..COUPLES).map(|_| couple()).collect();
        let rooms = create(data_dir, couples).await?;
        let subscribers = rooms.iter().flat_map(|(room, members)| {
            let told = members.iter().map(|member| (*member, *room));
            told.collect::<Vec<_>>()
        });
        Ok(Self {
            data_dir: data_dir.to_owned(),
            subscribers: subscribers.collect(),
            rooms,
            messages_each: TO_A_COUPLE,
        })
    }

    /// Deliveries a second, and the size of a frame; which is to be this one, of systems that don't decide it.
    async fn measure(
        &self,
        setup: &Setup,
        system: System,
        frame_bytes: usize,
    ) -> anyhow::Result<(f64, usize)> {
        let mut server = match system {
            System::Hansard => setup.start_gateway(&self.data_dir).await?,
            System::SocketIo => setup.start_socket_io().await?,
            System::Broadcast => setup.start_broadcast().await?,
        };
        let users: Vec<UserId> = self.subscribers.iter().map(|it| it.0).collect();
        let mut sockets = connect(&server, &users).await?;
        let subscribing = sockets.iter_mut().zip(&self.subscribers);
        stream::iter(subscribing)
            .map(|(socket, (_, room))| socket.subscribe_to(*room))
            .buffer_unordered(50)
            .try_collect::<()>()
            .await?;

        let mut source = Source::open(self, &server, frame_bytes).await?;
        source.say(&mut server, 1).await?;
        let mut told = JoinSet::new();
        let mut size = 0;
        for mut socket in sockets {
            let frame = timeout(LIMIT, socket.pushed()).await;
            size = frame.context("a subscriber was not told")??.len();
            ensure!(
                frame_bytes == 0 || size == frame_bytes,
                "a frame has {size} bytes instead of {frame_bytes}"
            );
            let (mut frames, due) = (Frames::of(socket), self.messages_each);
            told.spawn(async move { frames.take(due).await.map(|()| frames) });
        }
        let begun = source.say(&mut server, self.messages_each).await?;
        let all = async {
            // They stay open until all are done.
            let mut done = Vec::new();
            while let Some(frames) = told.join_next().await {
                done.push(frames??);
            }
            anyhow::Ok(begun.elapsed())
        };
        let taken = timeout(LIMIT, all).await;
        let taken = taken.context("not everybody was told everything")??;
        #[allow(clippy::cast_precision_loss)]
        let deliveries = (self.subscribers.len() * self.messages_each) as f64;
        Ok((deliveries / taken.as_secs_f64(), size))
    }
}

/// Where messages come from.
enum Source<'a> {
    /// The log, into which they are written while the gateway stands still.
    Log(&'a Crowd, keys::Record),
    /// A client that says this text in each of these rooms.
    Client(Box<Socket>, Vec<String>),
}

impl<'a> Source<'a> {
    async fn open(
        crowd: &'a Crowd,
        server: &Server,
        frame_bytes: usize,
    ) -> anyhow::Result<Source<'a>> {
        let system = server.system();
        if system == System::Hansard {
            return Ok(Self::Log(crowd, record::open(&crowd.data_dir).await?));
        }
        let frames = crowd.rooms.iter();
        let frames = frames.map(|(room, _)| system.saying(*room, frame_bytes));
        let frames = frames.collect::<anyhow::Result<Vec<String>>>()?;
        Ok(Self::Client(Box::new(server.speaker().await?), frames))
    }

    /// Says so many messages in each room; from when on the server could tell them.
    async fn say(&mut self, server: &mut Server, each: usize) -> anyhow::Result<Instant> {
        match self {
            Self::Log(crowd, record) => {
                server.signal(Signal::SIGSTOP);
                let rooms = std::iter::repeat_n(&crowd.rooms, each).flatten();
                let appends = rooms.map(|(room, members)| {
                    let posted = Event::MessagePosted(MessagePosted {
                        room_id: *room,
                        author: members[0],
                        message_text: Some("x".repeat(TEXT_BYTES)),
                    });
                    let envelope = Envelope::new(posted, Some(members[0]), None);
                    let record = &*record;
                    async move { record.append(&envelope, Expect::Any).await.map(drop) }
                });
                let appended = stream::iter(appends).buffered(APPENDS).try_collect::<()>();
                let appended = appended.await;
                let begun = Instant::now();
                server.signal(Signal::SIGCONT);
                appended.context("the log can't be written")?;
                Ok(begun)
            }
            Self::Client(socket, frames) => {
                let begun = Instant::now();
                for frame in std::iter::repeat_n(&*frames, each).flatten() {
                    socket.feed(frame).await?;
                }
                socket.flush().await?;
                Ok(begun)
            }
        }
    }
}

/// Users and rooms, in a new log.
async fn create(
    data_dir: &Path,
    rooms: Vec<Vec<UserId>>,
) -> anyhow::Result<Vec<(RoomId, Vec<UserId>)>> {
    std::fs::create_dir(data_dir)?;
    let record = &record::open(data_dir).await?;
    let users = rooms.iter().flatten().copied().map(created);
    let mut events: Vec<Event> = users.collect();
    let mut created = Vec::new();
    for members in rooms {
        let room = initiated(members.clone());
        created.push((room.room_id, members));
        events.push(Event::RoomInitiated(room));
    }
    let appends = events.into_iter().map(async |event| {
        let envelope = Envelope::new(event, None, None);
        record.append(&envelope, Expect::Empty).await.map(drop)
    });
    let appended = stream::iter(appends).buffered(APPENDS);
    let appended = appended.try_collect::<()>().await;
    appended.context("the log can't be written")?;
    Ok(created)
}

impl Outcome {
    /// What the page shows of it.
    ///
    /// # Errors
    /// None that can happen: text is written to memory.
    pub fn section(&self, socket_io: &str) -> anyhow::Result<String> {
        let mut page = String::new();
        writeln!(
            page,
            "| deliveries/s; median of {} runs (least to most) | Hansard's gateway | socket.io {socket_io} | ratio | goal | a bare axum loop | ratio | goal |",
            self.one_room.hansard.runs.len()
        )?;
        writeln!(page, "|---|---|---|---|---|---|---|---|")?;
        for (what, it, goal, bare_goal) in [
            (
                format!("{TO_ONE_ROOM} messages to {SUBSCRIBERS} subscribers of one room"),
                &self.one_room,
                ">= 8",
                ">= 0.9",
            ),
            (
                format!(
                    "{TO_A_COUPLE} messages in each of {COUPLES} rooms of two, to {} sockets",
                    2 * COUPLES
                ),
                &self.couples,
                ">= 4",
                "-",
            ),
        ] {
            let ratio = |other: &Figure| format!("{:.2}", it.hansard.median / other.median);
            writeln!(
                page,
                "| {what}, in frames of {} bytes | {} | {} | {} | {goal} | {} | {} | {bare_goal} |",
                it.frame_bytes,
                cell(&it.hansard),
                cell(&it.socket_io),
                ratio(&it.socket_io),
                cell(&it.broadcast),
                ratio(&it.broadcast),
            )?;
        }
        Ok(page)
    }
}
