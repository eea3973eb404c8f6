//! The servers that are measured, each on its own core with its own data.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use events::{RoomId, UserId};
use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::json;
use tokio::time::{Instant, sleep};
use xtask::cores::Cores;
use xtask::port::Port;
use xtask::process::{Supervised, without_own_settings};

use crate::memory;
use crate::socket::Socket;

/// How long a server may take to be ready, a new log projected and its tree built.
const START: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(5);
/// Long enough for HS256 (RFC 7518: at least 256 bits).
const SECRET: &str = "the bench signs its tokens with this";

/// What the servers are started with.
#[derive(Debug)]
pub struct Setup {
    /// The hansard binary.
    pub hansard: PathBuf,
    /// The gateway-ws binary.
    pub gateway: Option<PathBuf>,
    /// The directory of the socket.io server.
    pub socket_io: Option<PathBuf>,
    /// The mongod binary.
    pub mongod: Option<PathBuf>,
    /// The nats-server binary.
    pub nats_server: Option<PathBuf>,
    /// For data and output; removed at the end.
    pub directory: PathBuf,
    /// Who runs where.
    pub cores: Cores,
}

/// Which server it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    /// Hansard, embedded.
    Hansard,
    /// socket.io on Node.
    SocketIo,
    /// A bare loop over axum's WebSockets.
    Broadcast,
}

impl System {
    /// What a speaker sends for all subscribers of `room` to be told in a frame of so many bytes.
    ///
    /// # Errors
    /// The server takes no messages from connections.
    pub fn saying(self, room: RoomId, frame_bytes: usize) -> anyhow::Result<String> {
        match self {
            Self::Hansard => bail!("Hansard takes messages over HTTP"),
            Self::SocketIo => {
                let around = r#"42["new message",{"message":""}]"#.len();
                let text = "x".repeat(frame_bytes.saturating_sub(around));
                Ok(format!("42{}", json!(["post", room, text])))
            }
            Self::Broadcast => Ok(format!("say {room} {}", "x".repeat(frame_bytes))),
        }
    }
}

/// What is asked of Hansard over HTTP.
#[derive(Debug, Clone)]
pub struct Request {
    /// By whom.
    pub caller: UserId,
    /// How.
    pub method: Method,
    /// What, with the query.
    pub path: String,
    /// With what body.
    pub body: Option<serde_json::Value>,
}

/// A running server; it is killed on drop.
#[derive(Debug)]
pub struct Server {
    system: System,
    process: Supervised,
    port: Port,
    http: reqwest::Client,
}

impl Setup {
    /// Starts Hansard on `data_dir` and waits until it has projected all of its log.
    ///
    /// # Errors
    /// It does not get ready in time.
    pub async fn start_hansard(&self, data_dir: &Path) -> anyhow::Result<Server> {
        self.start_hansard_on(data_dir, "sqlite:read.db").await
    }

    /// Starts Hansard on `data_dir` and these read models and waits until it has projected all of its log.
    ///
    /// # Errors
    /// It does not get ready in time.
    pub async fn start_hansard_on(
        &self,
        data_dir: &Path,
        read_models: &str,
    ) -> anyhow::Result<Server> {
        let server = self
            .start_hansard_until_ready(data_dir, read_models)
            .await?;
        server.until_caught_up().await?;
        Ok(server)
    }

    /// Starts Hansard on `data_dir` and these read models and waits until it says that it is ready.
    ///
    /// # Errors
    /// It does not get ready in time.
    pub async fn start_hansard_until_ready(
        &self,
        data_dir: &Path,
        read_models: &str,
    ) -> anyhow::Result<Server> {
        let tokens = self.tokens()?;
        let serve = ["serve", "--read-models", read_models];
        let arguments = [&serve[..], &tokens.each_ref().map(String::as_str)].concat();
        self.run(&self.hansard, &arguments, data_dir).await
    }

    /// Starts a Hansard where anybody may log in, as the tutorial's contract has it, on `data_dir`, this log and
    /// these read models, and waits until it has projected all of the log.
    ///
    /// # Errors
    /// It does not get ready in time.
    pub async fn start_open_hansard(
        &self,
        data_dir: &Path,
        log: &str,
        read_models: &str,
    ) -> anyhow::Result<Server> {
        let arguments = [
            "serve",
            "--auth",
            "open",
            "--log",
            log,
            "--read-models",
            read_models,
        ];
        let server = self.run(&self.hansard, &arguments, data_dir).await?;
        server.until_caught_up().await?;
        Ok(server)
    }

    /// Starts Hansard's gateway alone on the log in `data_dir`, and waits until it says that it is ready.
    ///
    /// # Errors
    /// It does not get ready in time.
    pub async fn start_gateway(&self, data_dir: &Path) -> anyhow::Result<Server> {
        let gateway = self.gateway.as_ref();
        let gateway = gateway.context("where gateway-ws is was not said: --gateway")?;
        let arguments = self.tokens()?;
        self.run(gateway, &arguments.each_ref().map(String::as_str), data_dir)
            .await
    }

    /// What makes [`token`]s good.
    fn tokens(&self) -> anyhow::Result<[String; 4]> {
        let secret = self.directory.join("secret");
        std::fs::write(&secret, SECRET)?;
        let secret = secret.to_string_lossy();
        Ok(["--auth", "token", "--jwt-secret-file", &secret].map(str::to_owned))
    }

    /// Starts one of Hansard's programs, and waits until it says that it is ready.
    async fn run(
        &self,
        program: &Path,
        arguments: &[&str],
        data_dir: &Path,
    ) -> anyhow::Result<Server> {
        let port = Port::reserve()?;
        let mut command = Command::new(program);
        without_own_settings(&mut command);
        command
            .args(arguments)
            .args(["--log-level", "warn", "--listen"])
            .arg(port.address())
            .arg("--data-dir")
            .arg(data_dir);
        let mut server = self.start(System::Hansard, command, port)?;
        server.until_answered("/health/ready").await?;
        Ok(server)
    }

    /// Starts the bare loop.
    ///
    /// # Errors
    /// It does not get ready in time.
    pub async fn start_broadcast(&self) -> anyhow::Result<Server> {
        let port = Port::reserve()?;
        // It is built with this program.
        let mut command = Command::new(std::env::current_exe()?.with_file_name("broadcast"));
        command.env("PORT", port.number().to_string());
        let mut server = self.start(System::Broadcast, command, port)?;
        server.until_answered("/ready").await?;
        Ok(server)
    }

    /// Starts the socket.io server.
    ///
    /// # Errors
    /// It does not get ready in time.
    pub async fn start_socket_io(&self) -> anyhow::Result<Server> {
        let directory = self.socket_io.as_ref();
        let directory = directory.context("where socket.io is was not said: --socket-io")?;
        let port = Port::reserve()?;
        let mut command = Command::new("node");
        command
            .args(["--expose-gc", "server.js"])
            .current_dir(directory)
            .env("NODE_ENV", "production")
            .env("PORT", port.number().to_string());
        let mut server = self.start(System::SocketIo, command, port)?;
        server.until_answered("/sockets").await?;
        Ok(server)
    }

    /// Starts a mongod on the server's core.
    ///
    /// # Errors
    /// It is not there, or does not take writes in time.
    pub fn start_mongod(&self) -> anyhow::Result<(Supervised, Port)> {
        let mongod = self.mongod.as_ref();
        let mongod = mongod.context("where mongod is was not said: --mongod")?;
        let port = Port::reserve()?;
        // A replica set knows its member by the port, so each has data of its own.
        let directory = self.directory.join(format!("mongod-{}", port.number()));
        let start = || xtask::mongod::start(mongod, &directory, &port);
        Ok((self.cores.on_server_core(start)?, port))
    }

    /// Starts a nats-server on the server's core: one that syncs to the disk before it acknowledges, or one that
    /// does so when it does by default, every two minutes.
    ///
    /// # Errors
    /// It is not there, or does not take connections in time.
    pub fn start_nats(&self, sync_always: bool) -> anyhow::Result<(Supervised, Port)> {
        let nats_server = self.nats_server.as_ref();
        let nats_server =
            nats_server.context("where nats-server is was not said: --nats-server")?;
        let port = Port::reserve()?;
        let directory = self.directory.join(format!("nats-{}", port.number()));
        let config = self.directory.join("nats.conf");
        std::fs::write(&config, "jetstream { sync_interval: always }\n")?;
        let config = sync_always.then_some(config.as_path());
        let start = || xtask::nats::start(nats_server, &directory, &port, config);
        Ok((self.cores.on_server_core(start)?, port))
    }

    fn start(&self, system: System, command: Command, port: Port) -> anyhow::Result<Server> {
        let output = self.directory.join(format!("output-{}", port.number()));
        let start = || Supervised::start(command, &output);
        Ok(Server {
            system,
            process: self.cores.on_server_core(start)?,
            port,
            http: reqwest::Client::new(),
        })
    }
}

impl Server {
    /// Tells it to stop, and waits until it has.
    ///
    /// # Errors
    /// It does not.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.process.signal(Signal::SIGTERM);
        let ended = self.process.wait(START);
        ended.context("a server does not stop").map(drop)
    }

    /// Which it is.
    pub fn system(&self) -> System {
        self.system
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> String {
        self.port.address()
    }

    /// The memory it has, once nothing changes any more; of Node after a full collection of garbage.
    ///
    /// # Errors
    /// It has ended.
    pub async fn memory(&self) -> anyhow::Result<u64> {
        if self.system == System::SocketIo {
            self.get("/collect").await?;
        }
        memory::settled(self.process.id()).await
    }

    /// How many connections it has.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn sockets(&self) -> anyhow::Result<usize> {
        let count = match self.system {
            System::Hansard => metric(&self.get("/metrics").await?, "hansard_sockets")?,
            System::SocketIo => Some(self.get("/sockets").await?.parse()?),
            System::Broadcast => bail!("a bare loop does not count its connections"),
        };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Ok(count.unwrap_or(0.0) as usize)
    }

    /// A connection of this user, or, where there are no users, of anybody.
    ///
    /// # Errors
    /// It is refused.
    pub async fn connect(&self, user: UserId) -> anyhow::Result<Socket> {
        let address = self.port.address();
        match self.system {
            System::Hansard => Socket::to_hansard(&address, &token(user)?).await,
            System::SocketIo => Socket::to_socket_io(&address).await,
            System::Broadcast => Socket::to_broadcast(&address).await,
        }
    }

    /// A connection that says what others are told, to a server that takes messages from connections.
    ///
    /// # Errors
    /// It is refused, or the server takes none.
    pub async fn speaker(&self) -> anyhow::Result<Socket> {
        let address = self.port.address();
        match self.system {
            System::Hansard => bail!("Hansard takes messages over HTTP"),
            System::SocketIo => Socket::to_socket_io(&address).await,
            System::Broadcast => Socket::to_broadcast(&address).await,
        }
    }

    /// Sends it a signal.
    pub fn signal(&mut self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Posts a message to a room of Hansard, over HTTP, and waits until it is durable; not until it can be
    /// queried, which is nothing to its pushing.
    ///
    /// # Errors
    /// It is refused.
    pub async fn post(&self, room: &str, author: &str, text: &str) -> anyhow::Result<()> {
        let url = format!("http://{}/room/{room}/message", self.port.address());
        let post = self.http.post(url).bearer_auth(author);
        let post = post.header("Prefer", "respond-async");
        let answer = post.json(&json!({"messageText": text})).send().await?;
        ensure!(
            answer.status().is_success(),
            "a post was answered {}",
            answer.status()
        );
        answer.bytes().await?;
        Ok(())
    }

    /// Sends a request as this user, and waits for the whole answer; which must be a success.
    ///
    /// # Errors
    /// It is refused.
    pub async fn ask(&self, request: &Request, token: &str) -> anyhow::Result<Bytes> {
        let url = format!("http://{}{}", self.port.address(), request.path);
        let sent = self.http.request(request.method.clone(), url);
        let sent = sent.bearer_auth(token);
        let answer = match &request.body {
            Some(body) => sent.json(body).send().await?,
            None => sent.send().await?,
        };
        let answer = answer.error_for_status()?;
        Ok(answer.bytes().await?)
    }

    async fn get(&self, path: &str) -> anyhow::Result<String> {
        let url = format!("http://{}{path}", self.port.address());
        let answer = self.http.get(url).send().await?;
        Ok(answer.error_for_status()?.text().await?)
    }

    async fn until_answered(&mut self, path: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + START;
        while let Err(error) = self.get(path).await {
            if self.process.ended().is_some() || Instant::now() >= deadline {
                bail!(
                    "{:?} does not start: {error}\n{}",
                    self.system,
                    self.process.output()
                );
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Waits until the gateway follows the log, nothing is left to be projected, and the tree has all of it.
    async fn until_caught_up(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START;
        loop {
            let figures = self.get("/metrics").await?;
            let follows = metric(&figures, "hansard_sockets")?.is_some();
            let lag = metric(&figures, "hansard_projection_lag_events")?;
            let end = metric(&figures, "hansard_gateway_position")?;
            let tree = metric(&figures, "hansard_tree_size")?;
            if follows && lag == Some(0.0) && tree == end {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "Hansard does not catch up with its log"
            );
            sleep(POLL).await;
        }
    }
}

/// The value of one of the figures that a server shows.
fn metric(figures: &str, name: &str) -> anyhow::Result<Option<f64>> {
    let value = figures
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value
        .map(str::parse)
        .transpose()
        .context("a figure is no number")
}

/// A token of this user.
///
/// # Errors
/// It can't be signed.
pub fn token(user: UserId) -> anyhow::Result<String> {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)?
        .as_secs();
    let claims = json!({"userId": user, "userType": "consumer", "iat": now, "exp": now + 86_400});
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    Ok(jsonwebtoken::encode(
        &jsonwebtoken::Header::default(),
        &claims,
        &key,
    )?)
}
