//! What a connection and a subscription cost in memory, and a first figure of fan-out: Hansard's WebSocket
//! beside socket.io.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use crate::chart::{Chart, Line, Scale};
use crate::fan_out::{self, FanOut};
use crate::figure::Figure;
use crate::server::{Server, Setup, System};
use crate::socket::Socket;
use crate::world::{MEMBERS, POSTERS, ROOMS_EACH, Shape, USERS, World};

/// The connections before the measured ones: they fill what starting has left of free memory.
const FIRST: usize = 500;
/// The connections measured.
const IDLE: usize = USERS - FIRST;
/// How many connections are made at once.
const AT_ONCE: usize = 50;
/// How many subscribers the one room has, each in a measurement of its own.
const SUBSCRIBERS: [usize; 4] = [10, 50, 150, 500];

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// How many idle connections were measured.
    pub idle_connections: usize,
    /// How many connections had how many subscriptions each.
    pub subscribed: (usize, usize),
    /// How many subscribers the one room had, each time.
    pub subscribers: [usize; 4],
    /// The size of the messages' text, in bytes.
    pub text_bytes: usize,
    /// The size of such a message's frame, in bytes.
    pub frame_bytes: usize,
    /// Hansard's figures.
    pub hansard: Figures,
    /// socket.io's.
    pub socket_io: Figures,
    /// Messages received by subscribers of a bare loop, as [`Figures::deliveries_per_second`].
    pub broadcast: [Figure; 4],
}

/// The figures of one system. Memory is in bytes.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// Of an idle connection.
    pub idle_connection: Figure,
    /// Of a subscription to a room with as many subscribers as there are connections.
    pub group_subscription: Figure,
    /// Of a subscription to a room with two subscribers.
    pub pair_subscription: Figure,
    /// The same once more, by second connections of the same users: what the first subscription to a room
    /// has brought into memory for all is there already.
    pub group_subscription_again: Figure,
    /// The same in rooms of two.
    pub pair_subscription_again: Figure,
    /// Of each room of a personal subscription, rooms as above; Hansard only.
    pub group_of_personal: Option<Figure>,
    /// The same with rooms of two.
    pub pair_of_personal: Option<Figure>,
    /// Messages received by subscribers, a second, one message at a time; for each number of them.
    pub deliveries_per_second: [Figure; 4],
}

/// How a connection subscribes.
#[derive(Debug, Clone, Copy)]
enum By {
    Room,
    Person,
}

/// A log with users and rooms, already projected.
struct Prepared {
    world: World,
    data_dir: PathBuf,
}

#[derive(Default)]
struct Runs {
    idle: Vec<f64>,
    groups: Vec<f64>,
    pairs: Vec<f64>,
    groups_again: Vec<f64>,
    pairs_again: Vec<f64>,
    own_groups: Vec<f64>,
    own_pairs: Vec<f64>,
    deliveries: [Vec<f64>; 4],
}

/// Measures everything `runs` times, the systems by turns.
///
/// # Errors
/// A server fails.
pub async fn run(setup: &Setup, runs: u32) -> anyhow::Result<Outcome> {
    let groups = prepare(setup, Shape::Groups).await?;
    let pairs = prepare(setup, Shape::Pairs).await?;
    let (mut hansard, mut socket_io) = (Runs::default(), Runs::default());
    let mut broadcast: [Vec<f64>; 4] = Default::default();
    let mut frame_bytes = 0;
    for run in 1..=runs {
        eprintln!("sockets: run {run} of {runs}");
        for (system, figures) in [
            (System::Hansard, &mut hansard),
            (System::SocketIo, &mut socket_io),
        ] {
            let on_groups = Start {
                setup,
                system,
                on: &groups,
            };
            let on_pairs = Start {
                setup,
                system,
                on: &pairs,
            };
            figures.idle.push(on_groups.idle().await?);
            let [first, again] = on_groups.subscribed(By::Room).await?;
            figures.groups.push(first);
            figures.groups_again.push(again);
            let [first, again] = on_pairs.subscribed(By::Room).await?;
            figures.pairs.push(first);
            figures.pairs_again.push(again);
            if system == System::Hansard {
                let [each, _] = on_groups.subscribed(By::Person).await?;
                figures.own_groups.push(each);
                let [each, _] = on_pairs.subscribed(By::Person).await?;
                figures.own_pairs.push(each);
            }
        }
        // Last, because it adds to the log.
        let on = |system| Start {
            setup,
            system,
            on: &groups,
        };
        for (which, subscribers) in SUBSCRIBERS.into_iter().enumerate() {
            let by_hansard = on(System::Hansard).fan_out(subscribers, 0).await?;
            frame_bytes = by_hansard.frame_bytes;
            hansard.deliveries[which].push(by_hansard.deliveries_per_second);
            let others = [
                (System::SocketIo, &mut socket_io.deliveries),
                (System::Broadcast, &mut broadcast),
            ];
            for (system, deliveries) in others {
                let fan_out = on(system).fan_out(subscribers, frame_bytes).await?;
                deliveries[which].push(fan_out.deliveries_per_second);
            }
        }
    }
    Ok(Outcome {
        idle_connections: IDLE,
        subscribed: (MEMBERS, ROOMS_EACH),
        subscribers: SUBSCRIBERS,
        text_bytes: fan_out::TEXT_BYTES,
        frame_bytes,
        hansard: hansard.into(),
        socket_io: socket_io.into(),
        broadcast: broadcast.map(Figure::of),
    })
}

impl Outcome {
    /// Deliveries by subscribers.
    pub fn chart(&self) -> Chart {
        #[allow(clippy::cast_precision_loss)]
        let subscribers = self.subscribers.map(|count| count as f64);
        let line = |name: &str, deliveries: &[Figure; 4]| Line {
            name: name.to_owned(),
            points: subscribers
                .into_iter()
                .zip(deliveries.iter().map(|it| it.median))
                .collect(),
        };
        Chart {
            title: "Fan-out, one message at a time".to_owned(),
            across: ("subscribers of the room", Scale::Logarithmic),
            upwards: "deliveries/s",
            lines: vec![
                line("Hansard, durable", &self.hansard.deliveries_per_second),
                line(
                    "socket.io, nothing stored",
                    &self.socket_io.deliveries_per_second,
                ),
                line("a bare loop, nothing stored", &self.broadcast),
            ],
        }
    }
}

async fn prepare(setup: &Setup, shape: Shape) -> anyhow::Result<Prepared> {
    let data_dir = setup.directory.join(format!("{shape:?}"));
    std::fs::create_dir(&data_dir)?;
    let world = World::create(shape, &data_dir).await?;
    // Projecting leaves free memory behind that would hide what is measured: another process does it.
    drop(setup.start_hansard(&data_dir).await?);
    Ok(Prepared { world, data_dir })
}

/// How a measurement begins: with a new process of this system, on this world.
struct Start<'a> {
    setup: &'a Setup,
    system: System,
    on: &'a Prepared,
}

impl Start<'_> {
    async fn server(&self) -> anyhow::Result<Server> {
        match self.system {
            System::Hansard => self.setup.start_hansard(&self.on.data_dir).await,
            System::SocketIo => self.setup.start_socket_io().await,
            System::Broadcast => self.setup.start_broadcast().await,
        }
    }

    /// The memory of an idle connection, in bytes.
    async fn idle(&self) -> anyhow::Result<f64> {
        let server = self.server().await?;
        let users = &self.on.world.users;
        let mut sockets = connect(&server, &users[..FIRST]).await?;
        let before = server.memory().await?;
        sockets.extend(connect(&server, &users[FIRST..]).await?);
        let after = server.memory().await?;
        ensure_open(&server, sockets.len()).await?;
        Ok(each(before, after, IDLE))
    }

    /// The memory of a subscription, in bytes, and that of each of as many more by second connections of
    /// the same users.
    async fn subscribed(&self, by: By) -> anyhow::Result<[f64; 2]> {
        let server = self.server().await?;
        let mut first = self.members(&server).await?;
        let for_first = self.subscribe(&server, &mut first, by).await?;
        let mut second = self.members(&server).await?;
        let for_second = self.subscribe(&server, &mut second, by).await?;
        ensure_open(&server, first.len() + second.len()).await?;
        Ok([for_first, for_second])
    }

    async fn members(&self, server: &Server) -> anyhow::Result<Vec<Socket>> {
        connect(server, &self.on.world.users[..MEMBERS]).await
    }

    async fn subscribe(
        &self,
        server: &Server,
        sockets: &mut [Socket],
        by: By,
    ) -> anyhow::Result<f64> {
        let before = server.memory().await?;
        stream::iter(sockets.iter_mut().zip(&self.on.world.rooms))
            .map(|(socket, rooms)| async move {
                match by {
                    By::Room => socket.subscribe(rooms).await,
                    By::Person => socket.subscribe_to_own().await,
                }
            })
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await?;
        let after = server.memory().await?;
        Ok(each(before, after, MEMBERS * ROOMS_EACH))
    }

    /// In frames of so many bytes, of a system that does not decide it.
    async fn fan_out(&self, subscribers: usize, frame_bytes: usize) -> anyhow::Result<FanOut> {
        let server = self.server().await?;
        let world = &self.on.world;
        let users: Vec<_> = world
            .posters()
            .iter()
            .cycle()
            .take(subscribers)
            .copied()
            .collect();
        let mut sockets = connect(&server, &users).await?;
        for socket in &mut sockets {
            socket.subscribe(&[world.fan_out]).await?;
        }
        let author = world.posters()[POSTERS - 1];
        fan_out::measure(&server, sockets, world.fan_out, author, frame_bytes).await
    }
}

/// A connection of each of these users, in their order.
///
/// # Errors
/// One is refused.
pub async fn connect(server: &Server, users: &[events::UserId]) -> anyhow::Result<Vec<Socket>> {
    let sockets = stream::iter(users).map(|user| server.connect(*user));
    let sockets = sockets.buffered(AT_ONCE).try_collect().await;
    sockets.context("a connection is refused")
}

/// # Errors
/// Some are lost: what was measured is of fewer.
async fn ensure_open(server: &Server, expected: usize) -> anyhow::Result<()> {
    let open = server.sockets().await?;
    ensure!(
        open == expected,
        "of {expected} connections {open} are open"
    );
    Ok(())
}

#[allow(clippy::cast_precision_loss)]
fn each(before: u64, after: u64, count: usize) -> f64 {
    (after as f64 - before as f64) / count as f64
}

impl From<Runs> for Figures {
    fn from(runs: Runs) -> Self {
        let of_some = |runs: Vec<f64>| (!runs.is_empty()).then(|| Figure::of(runs));
        Self {
            idle_connection: Figure::of(runs.idle),
            group_subscription: Figure::of(runs.groups),
            pair_subscription: Figure::of(runs.pairs),
            group_subscription_again: Figure::of(runs.groups_again),
            pair_subscription_again: Figure::of(runs.pairs_again),
            group_of_personal: of_some(runs.own_groups),
            pair_of_personal: of_some(runs.own_pairs),
            deliveries_per_second: runs.deliveries.map(Figure::of),
        }
    }
}
