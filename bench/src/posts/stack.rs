//! The servers that are put under load, with the users and rooms in them.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures::future::try_join_all;
use hyper::Method;
use hyper::header::{HeaderName, HeaderValue};
use serde::{Serialize, Serializer};
use tokio::time::Instant;
use xtask::port::Port;
use xtask::process::Supervised;

use crate::bare::Engine;
use crate::contract::{Address, Caller, PREFER, Repeating};
use crate::cpu;
use crate::load::Client;
use crate::posts::pushed::Pushing;
use crate::server::{Server, Setup};
use crate::socket::Socket;

/// How many rooms there are, each of the one caller who is in all of them and a partner of its own.
pub const ROOMS: usize = 64;
/// The text of a message, in bytes.
pub const TEXT_BYTES: usize = 80;
/// How many connections fill a server.
const FILLING: usize = 64;
/// How long the projector may need for what is left when a load has ended.
const CATCH_UP: Duration = Duration::from_secs(600);
/// Tells where a command's event stands, and how far a query has to have come.
const POSITION: HeaderName = HeaderName::from_static("hansard-position");

/// What kind of server it is, and what it promises of what it has acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Hansard on SQLite.
    Embedded,
    /// Hansard on JetStream as it is by default, and MongoDB.
    Distributed,
    /// Hansard on JetStream that syncs first, and MongoDB.
    DistributedSync,
    /// The server that `--against` names.
    Against,
}

/// A server that is put under load.
pub struct Stack {
    /// What kind.
    pub kind: Kind,
    address: Address,
    /// Hansard's; nobody knows those of another server.
    processes: Option<Processes>,
    /// Its log's engine, to write to directly.
    pub engine: Option<Engine>,
    /// How many bytes a post has in the log.
    pub event_bytes: usize,
    caller: Caller,
    rooms: Vec<Room>,
}

/// Ended in this order when it is dropped.
struct Processes {
    hansard: Server,
    /// nats-server.
    _log: Option<(Supervised, Port)>,
    /// The process ids of all engines.
    engines: Vec<u32>,
}

struct Room {
    id: String,
    partner: Caller,
}

/// A server as it was started: nobody is in it yet.
struct Empty {
    kind: Kind,
    address: Address,
    processes: Option<Processes>,
    engine: Option<Engine>,
    log: Option<LogLocation>,
}

/// Where a log is, to look at it.
struct LogLocation {
    url: String,
    data_dir: PathBuf,
}

/// How much processor time processes have used.
#[derive(Debug, Clone, Copy)]
pub struct Used {
    /// Hansard.
    pub hansard: Duration,
    /// nats-server and mongod.
    pub engines: Duration,
}

/// A page that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// `GET /room`: the caller's rooms, with the newest message of each.
    Rooms,
    /// `GET /room/:id`: a room's newest messages.
    Messages,
}

impl Kind {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded (SQLite)",
            Self::Distributed => "distributed, default sync",
            Self::DistributedSync => "distributed, sync_interval: always",
            Self::Against => "--against",
        }
    }

    /// What becomes of an acknowledged post when the power fails.
    pub fn durability(self) -> &'static str {
        match self {
            Self::Embedded => "on the disk: synchronous=FULL",
            Self::Distributed => "with the operating system; synced to the disk every 2 minutes",
            Self::DistributedSync => "on the disk: synced before it is acknowledged",
            Self::Against => "as its operator has set it",
        }
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Stack {
    /// The one of this kind.
    ///
    /// # Errors
    /// There is none.
    pub fn of_kind(stacks: &[Self], kind: Kind) -> anyhow::Result<&Self> {
        let stack = stacks.iter().find(|stack| stack.kind == kind);
        stack.context("a server is not there")
    }

    /// Hansard on SQLite, filled with so many messages.
    ///
    /// # Errors
    /// It does not start, or refuses what it is asked.
    pub async fn embedded(setup: &Setup, messages: usize) -> anyhow::Result<Self> {
        let data_dir = setup.directory.join("posts-embedded");
        std::fs::create_dir(&data_dir)?;
        let (log, read_models) = ("sqlite:log.db", "sqlite:read.db");
        let hansard = setup.start_open_hansard(&data_dir, log, read_models);
        let hansard = hansard.await?;
        let bare = setup.directory.join("bare.db");
        let empty = Empty {
            kind: Kind::Embedded,
            address: Address::new(&hansard.address()),
            processes: Some(Processes {
                hansard,
                _log: None,
                engines: Vec::new(),
            }),
            engine: Some(Engine::sqlite(&bare, setup.cores)?),
            log: Some(LogLocation {
                url: log.to_owned(),
                data_dir,
            }),
        };
        empty.filled(messages).await
    }

    /// Hansard on a nats-server of its own and this mongod, filled with so many messages.
    ///
    /// # Errors
    /// It does not start, or refuses what it is asked.
    pub async fn distributed(
        setup: &Setup,
        (mongod, mongod_port): &(Supervised, Port),
        sync_always: bool,
        messages: usize,
    ) -> anyhow::Result<Self> {
        let (kind, database) = match sync_always {
            true => (Kind::DistributedSync, "posts-sync"),
            false => (Kind::Distributed, "posts"),
        };
        let data_dir = setup.directory.join(format!("{database}-distributed"));
        std::fs::create_dir(&data_dir)?;
        let (nats, nats_port) = setup.start_nats(sync_always)?;
        let log = format!("nats://{}", nats_port.address());
        let read_models = format!(
            "mongodb://{}/{database}?replicaSet=rs0",
            mongod_port.address()
        );
        let hansard = setup.start_open_hansard(&data_dir, &log, &read_models);
        let hansard = hansard.await?;
        let empty = Empty {
            kind,
            address: Address::new(&hansard.address()),
            engine: Some(Engine::jetstream(&nats_port.address()).await?),
            processes: Some(Processes {
                hansard,
                engines: vec![nats.id(), mongod.id()],
                _log: Some((nats, nats_port)),
            }),
            log: Some(LogLocation { url: log, data_dir }),
        };
        empty.filled(messages).await
    }

    /// The server at this URL, which somebody else has started, empty, filled with so many messages.
    ///
    /// # Errors
    /// It refuses what it is asked.
    pub async fn against(url: &str, messages: usize) -> anyhow::Result<Self> {
        let empty = Empty {
            kind: Kind::Against,
            address: Address::of_url(url)?,
            processes: None,
            engine: None,
            log: None,
        };
        empty.filled(messages).await
    }

    /// So many clients that post, each to one room and as its partner.
    ///
    /// # Errors
    /// The server can't be reached.
    pub async fn posting(
        &self,
        count: usize,
        respond_async: bool,
    ) -> anyhow::Result<Vec<Repeating>> {
        let text = "x".repeat(TEXT_BYTES);
        let clients = self.rooms.iter().cycle().take(count).map(async |room| {
            let mut request = self.address.post(&room.id, &room.partner, &text)?;
            if respond_async {
                let respond_async = HeaderValue::from_static("respond-async");
                request.headers_mut().insert(PREFER, respond_async);
            }
            Repeating::connect(&self.address, request).await
        });
        try_join_all(clients).await
    }

    /// So many clients that post, each to a room of its own and as its partner, and hear what the caller is pushed of
    /// it; no more than there are rooms.
    ///
    /// # Errors
    /// The server can't be reached, or has no WebSocket as Hansard's.
    pub async fn pushing(&self, count: usize) -> anyhow::Result<Vec<Pushing>> {
        let text = "x".repeat(TEXT_BYTES);
        let clients = self.rooms.iter().take(count).map(async |room| {
            let mut request = self.address.post(&room.id, &room.partner, &text)?;
            let respond_async = HeaderValue::from_static("respond-async");
            request.headers_mut().insert(PREFER, respond_async);
            let address = self.address.host_and_port();
            let mut socket = Socket::to_hansard(address, self.caller.token()).await?;
            socket.subscribe(&[room.id.parse()?]).await?;
            Ok(Pushing {
                connection: self.address.connect().await?,
                request,
                socket,
            })
        });
        try_join_all(clients).await
    }

    /// So many clients that read a page, all as the caller.
    ///
    /// # Errors
    /// The server can't be reached.
    pub async fn reading(&self, count: usize, page: Page) -> anyhow::Result<Vec<Repeating>> {
        let clients = self.rooms.iter().cycle().take(count).map(async |room| {
            let path = match page {
                Page::Rooms => "/room".to_owned(),
                Page::Messages => format!("/room/{}", room.id),
            };
            let caller = Some(&self.caller);
            let request = self.address.request(Method::GET, &path, caller, None)?;
            Repeating::connect(&self.address, request).await
        });
        try_join_all(clients).await
    }

    /// Waits until all that was posted can be read. Of another server it is not known.
    ///
    /// # Errors
    /// It does not get there in time.
    pub async fn settled(&self) -> anyhow::Result<()> {
        if self.processes.is_none() {
            return Ok(());
        }
        let mut connection = self.address.connect().await?;
        let room = self.rooms.first().context("there are rooms")?;
        let last = self.address.post(&room.id, &self.caller, "the last one")?;
        let last = connection.send(last).await?;
        let position = last.headers().get(POSITION);
        let position = position.context("a post is answered without its position")?;
        let path = format!("/room/{}", room.id);
        let mut read = self
            .address
            .request(Method::GET, &path, Some(&self.caller), None)?;
        read.headers_mut().insert(POSITION, position.clone());
        let deadline = Instant::now() + CATCH_UP;
        // The server waits a while before it refuses.
        while let Err(refused) = connection.send(read.clone()).await {
            ensure!(
                Instant::now() < deadline,
                "the projector does not catch up: {refused}"
            );
        }
        Ok(())
    }

    /// The processor time used so far; unknown of another server's processes.
    ///
    /// # Errors
    /// A process has ended.
    pub fn used(&self) -> anyhow::Result<Option<Used>> {
        let Some(processes) = &self.processes else {
            return Ok(None);
        };
        let engines = processes.engines.iter().map(|engine| cpu::used(*engine));
        Ok(Some(Used {
            hansard: cpu::used(processes.hansard.id())?,
            engines: engines.sum::<anyhow::Result<Duration>>()?,
        }))
    }
}

impl Empty {
    async fn filled(self, messages: usize) -> anyhow::Result<Stack> {
        let begun = Instant::now();
        let mut connection = self.address.connect().await?;
        let caller = connection.new_caller().await?;
        let mut rooms = Vec::with_capacity(ROOMS);
        for _ in 0..ROOMS {
            let partner = connection.new_caller().await?;
            let id = connection.new_room(&caller, &partner).await?;
            rooms.push(Room { id, partner });
        }
        // All by the caller, for whom nothing is unread then.
        let text = "x".repeat(TEXT_BYTES);
        let filling = (0..FILLING).map(async |number| {
            let room = &rooms[number % ROOMS];
            let post = self.address.post(&room.id, &caller, &text)?;
            let mut client = Repeating::connect(&self.address, post).await?;
            for _ in (number..messages).step_by(FILLING) {
                client.request().await?;
            }
            anyhow::Ok(())
        });
        let filled = try_join_all(filling).await;
        filled.with_context(|| format!("{} can't be filled", self.kind.name()))?;
        let event_bytes = match &self.log {
            Some(log) => log.size_of_last().await?,
            None => 0,
        };
        eprintln!(
            "{}: {messages} messages in {:.1?}",
            self.kind.name(),
            begun.elapsed()
        );
        Ok(Stack {
            kind: self.kind,
            address: self.address,
            processes: self.processes,
            engine: self.engine,
            event_bytes,
            caller,
            rooms,
        })
    }
}

impl LogLocation {
    /// The size in bytes of the last event.
    async fn size_of_last(&self) -> anyhow::Result<usize> {
        let log = event_log::open(&self.url.parse()?, &self.data_dir).await?;
        let last = log.tail().await?.last;
        let last = log.get(last).await?.context("the log is empty")?;
        Ok(last.payload.len())
    }
}
