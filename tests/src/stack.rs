//! Starts Hansard's real binaries, with the servers and the proxy that they need, and takes them down
//! again, one by one or all at once.

mod cluster;

pub use cluster::{Member, network};

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use event_log::EventLog;
use keys::Record;
use nix::sys::signal::Signal;
use platform::config::Config;
use read_models::Catalogue;
use serde_json::json;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use xtask::port::Port;
use xtask::process::{Supervised, read_lossily, without_own_settings};

use crate::client::{NewestPosition, TestClient};
use crate::edge;
use crate::network::Network;
use crate::socket::WsClient;
use crate::wait::eventually;

/// How long a process may take to be ready on a busy machine.
const START: Duration = Duration::from_secs(60);
/// How long a process may take to stop when told to.
const STOP: Duration = Duration::from_secs(30);
/// How much of each process's output is shown when a test fails.
const SHOWN_LINES: usize = 100;
/// Hansard's programs: the one with everything, and that of each service.
pub const PROGRAMS: [&str; 5] = [
    "hansard",
    "command-api",
    "projector",
    "query-api",
    "gateway-ws",
];

/// Long enough for HS256 (RFC 7518: at least 256 bits).
const SECRET: &str = "the black-box suites sign with this";

/// Which log and read models Hansard uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// SQLite.
    Embedded,
    /// NATS JetStream and MongoDB.
    Distributed,
    /// The same, each on three servers: a stream with three replicas, and a replica set of three.
    Cluster,
}

/// In how many processes Hansard runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `hansard serve`.
    OneProcess,
    /// The four services behind nginx.
    FourProcesses,
}

/// How Hansard knows who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// Anybody may log in as anybody.
    Open,
    /// Tokens come from elsewhere.
    Token,
}

/// A part of a running Hansard. As one process, the four services are the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Takes commands.
    CommandApi,
    /// Writes the read models.
    Projector,
    /// Answers queries.
    QueryApi,
    /// Pushes to WebSockets.
    GatewayWs,
    /// Pushes to WebSockets as well, not through the edge; where [`Options::second_gateway`] asks for it.
    SecondGatewayWs,
    /// Takes commands as well, not through the edge; where [`Options::second_services`] asks for it.
    SecondCommandApi,
    /// Stands by, or writes the read models; where [`Options::second_services`] asks for it.
    SecondProjector,
    /// Answers queries as well, not through the edge; where [`Options::second_services`] asks for it.
    SecondQueryApi,
    /// nginx; with four processes only.
    Edge,
    /// nats-server; on the distributed backends only.
    Nats,
    /// The second nats-server of a cluster.
    SecondNats,
    /// The third nats-server of a cluster.
    ThirdNats,
    /// mongod; where [`Options::own_mongod`] asks for it, and in a cluster.
    Mongod,
    /// The second mongod of a cluster.
    SecondMongod,
    /// The third mongod of a cluster.
    ThirdMongod,
}

impl Service {
    /// Hansard's own, one of each.
    pub const OWN: [Self; 4] = [
        Self::CommandApi,
        Self::Projector,
        Self::QueryApi,
        Self::GatewayWs,
    ];
    /// The nats-servers of a cluster, by host.
    pub const NATS: [Self; 3] = [Self::Nats, Self::SecondNats, Self::ThirdNats];
    /// The mongods of a cluster, by host.
    pub const MONGODS: [Self; 3] = [Self::Mongod, Self::SecondMongod, Self::ThirdMongod];

    /// Whether it is a server that Hansard uses.
    #[must_use]
    pub fn is_server(self) -> bool {
        Self::NATS.contains(&self) || Self::MONGODS.contains(&self)
    }

    /// Whether it is one of Hansard's own.
    #[must_use]
    pub fn is_own(self) -> bool {
        !self.is_server() && self != Self::Edge
    }

    /// What a server's files are called.
    fn name(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::SecondNats => "second-nats",
            Self::ThirdNats => "third-nats",
            Self::Mongod => "mongod",
            Self::SecondMongod => "second-mongod",
            Self::ThirdMongod => "third-mongod",
            _ => panic!("{self:?} is no server"),
        }
    }

    /// The program that is this service alone.
    ///
    /// # Panics
    /// It is none of Hansard's own.
    #[must_use]
    pub fn binary(self) -> &'static str {
        match self {
            Self::CommandApi | Self::SecondCommandApi => "command-api",
            Self::Projector | Self::SecondProjector => "projector",
            Self::QueryApi | Self::SecondQueryApi => "query-api",
            Self::GatewayWs | Self::SecondGatewayWs => "gateway-ws",
            _ => panic!("{self:?} is none of Hansard's own"),
        }
    }
}

/// What to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which log and read models.
    pub backend: Backend,
    /// In how many processes.
    pub layout: Layout,
    /// How callers are known.
    pub auth: Auth,
    /// Whether to start a mongod for this stack alone, which can then be killed, instead of using a
    /// database of its own on the one that all tests share.
    pub own_mongod: bool,
    /// Whether to start a second gateway; with four processes only.
    pub second_gateway: bool,
    /// Whether to start a second command-api, projector and query-api; with four processes only.
    pub second_services: bool,
    /// Where Hansard is told that its servers are, if not where they are: a proxy stands there.
    pub through: Through,
    /// The directory that `--data-dir` names, if not one of the stack's own.
    pub data_directory: Option<PathBuf>,
    /// The directory in which nats-server and a mongod of the stack's own keep their data, if not one of the
    /// stack's own.
    pub servers_directory: Option<PathBuf>,
    /// Whether nats-server syncs when it does by default, and not before it acknowledges; Hansard is then not
    /// told to insist (`--require-sync`).
    pub lazy_sync: bool,
    /// libfaketime, where Hansard's processes are to have clocks that [`Stack::set_clock`] moves.
    pub clocks: Option<PathBuf>,
    /// More flags for each of Hansard's processes.
    pub flags: Vec<String>,
    /// The hosts of a cluster's servers; else they are all on this one.
    pub network: Option<Arc<Network>>,
    /// The directory of an older Hansard's programs, to begin with; see [`Stack::upgrade`].
    pub old_programs: Option<PathBuf>,
}

impl Options {
    /// The usual.
    #[must_use]
    pub fn new(backend: Backend, layout: Layout, auth: Auth) -> Self {
        Self {
            backend,
            layout,
            auth,
            own_mongod: false,
            second_gateway: false,
            second_services: false,
            through: Through::default(),
            data_directory: None,
            servers_directory: None,
            lazy_sync: false,
            clocks: None,
            flags: Vec::new(),
            network: None,
            old_programs: None,
        }
    }
}

/// Addresses, `HOST:PORT`, at which Hansard reaches its servers; `None`: at their own.
#[derive(Debug, Clone, Default)]
pub struct Through {
    /// That of nats-server.
    pub log: Option<String>,
    /// That of mongod; with [`Options::own_mongod`] only.
    pub read_models: Option<String>,
}

/// A user with a token.
#[derive(Debug, Clone)]
pub struct Person {
    /// The user's id.
    pub id: String,
    /// The token.
    pub token: String,
    /// A client that sends the token.
    pub client: TestClient,
}

/// A running Hansard. Everything is killed and deleted on drop; when a test fails, the end of each
/// process's output is printed. Before that, [`crate::run`] and its like verify the read models, so a stack
/// can't be had in another way.
#[derive(Debug)]
pub struct Stack {
    options: Options,
    base_url: String,
    log_url: String,
    read_models_url: String,
    /// What each of Hansard's processes is told.
    flags: Vec<OsString>,
    /// Who gets the stack when the scenario has dropped it.
    heir: Option<Sender<Stack>>,
    /// Why the read models are not verified in the end; see [`Stack::leave_unverified`].
    unverified: Option<&'static str>,
    newest: Option<NewestPosition>,
    http: reqwest::Client,
    /// The directory of the programs that Hansard's processes are started from.
    programs: PathBuf,
    // Before the directory, which is deleted once the processes are gone.
    processes: Vec<Process>,
    directory: Arc<TempDir>,
}

/// One process of a stack, running or not.
#[derive(Debug)]
struct Process {
    name: &'static str,
    /// Which parts it is.
    services: Vec<Service>,
    program: PathBuf,
    arguments: Vec<OsString>,
    /// `HOST:PORT` where it listens.
    address: String,
    /// Answers 200 once the process is ready.
    ready_url: String,
    output: PathBuf,
    running: Option<Supervised>,
    /// The ports that are its own.
    ports: Vec<Port>,
}

impl Process {
    /// The file that says how far its clock is from the real one.
    fn clock(&self) -> PathBuf {
        self.output.with_extension("clock")
    }
}

impl Stack {
    /// Starts everything that there is and waits until all of it is ready.
    ///
    /// # Panics
    /// It is not ready in time, or a process ends.
    pub async fn start_all(&mut self) {
        // Hansard waits for its servers by itself, but that is for suites of its own to show.
        let is_server = |it: &Process| it.services.iter().any(|it| it.is_server());
        let (servers, others): (Vec<usize>, Vec<usize>) =
            (0..self.processes.len()).partition(|it| is_server(&self.processes[*it]));
        for index in &servers {
            self.spawn_process(*index).await;
        }
        if self.is_cluster() {
            self.initiate_replica_set().await;
        }
        for index in servers {
            self.process_ready(index).await;
        }
        if self.options.old_programs.is_some() && self.is_cluster() {
            // It may not know how to create a stream with replicas, so its operator does.
            drop(self.open_record().await);
        }
        for index in &others {
            self.spawn_process(*index).await;
        }
        for index in others {
            self.process_ready(index).await;
        }
    }

    /// Everything in place, nothing started: [`Self::spawn`] starts it piece by piece.
    ///
    /// # Panics
    /// Something that is needed is not there.
    #[must_use]
    pub(crate) fn prepare(options: Options, heir: Sender<Self>) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("hansard-stack-")
            .tempdir()
            .unwrap();
        let mut stack = Self {
            options,
            base_url: String::new(),
            log_url: "sqlite:log.db".to_owned(),
            read_models_url: "sqlite:read.db".to_owned(),
            flags: Vec::new(),
            heir: Some(heir),
            unverified: None,
            newest: None,
            http: reqwest::Client::builder()
                .no_proxy()
                .timeout(Duration::from_secs(10))
                .build()
                .unwrap(),
            programs: PathBuf::new(),
            processes: Vec::new(),
            directory: Arc::new(directory),
        };
        let old = stack.options.old_programs.clone();
        stack.programs = old.unwrap_or_else(|| from_xtask("HANSARD_TEST_BIN_DIR").into());
        let mut flags: Vec<OsString> = vec![
            "--data-dir".into(),
            stack.data_directory().into(),
            "--auth".into(),
            match stack.options.auth {
                Auth::Open => "open".into(),
                Auth::Token => "token".into(),
            },
        ];
        if stack.options.auth == Auth::Token {
            let secret = stack.secret_file();
            std::fs::write(&secret, SECRET).unwrap();
            flags.extend(["--jwt-secret-file".into(), secret.into()]);
        }
        if stack.options.backend != Backend::Embedded {
            (stack.log_url, stack.read_models_url) = match stack.is_cluster() {
                true => (stack.add_nats_cluster(), stack.add_replica_set()),
                false => (stack.add_nats(), stack.add_database()),
            };
            let log_url = match &stack.options.old_programs {
                Some(_) => stack.log_url.replace("replicas=3&", ""),
                None => stack.log_url.clone(),
            };
            flags.extend(["--log".into(), log_url.into()]);
            flags.extend(["--read-models".into(), stack.read_models_url.clone().into()]);
            if !stack.options.lazy_sync {
                flags.push("--require-sync".into());
            }
        }
        flags.extend(stack.options.flags.iter().map(OsString::from));
        stack.flags.clone_from(&flags);
        stack.base_url = match stack.options.layout {
            Layout::OneProcess => {
                let all = Service::OWN.to_vec();
                format!("http://{}", stack.add_service("hansard", all, &flags))
            }
            Layout::FourProcesses => stack.add_services_and_edge(&flags),
        };
        stack
    }

    /// Adds the deployment's own NATS configuration, elsewhere; gives the log's URL.
    fn add_nats(&mut self) -> String {
        let port = Port::reserve().unwrap();
        let monitor = Port::reserve().unwrap();
        let through = self.options.through.log.clone();
        let url = format!(
            "nats://{}/HANSARD?monitor=http://{}",
            through.unwrap_or_else(|| port.address()),
            monitor.address()
        );
        let mut arguments: Vec<OsString> = match self.options.lazy_sync {
            true => vec!["--jetstream".into()],
            false => vec![
                "--config".into(),
                edge::project_file("deploy/nats.conf").into(),
            ],
        };
        arguments.extend([
            "--addr".into(),
            "127.0.0.1".into(),
            "--port".into(),
            port.number().to_string().into(),
            "--http_port".into(),
            monitor.number().to_string().into(),
            "--store_dir".into(),
            self.servers_directory().join("nats").into(),
        ]);
        let program = from_xtask("HANSARD_TEST_NATS_SERVER").into();
        let ready_url = format!("http://{}/healthz", monitor.address());
        let mut process = self.process("nats", vec![Service::Nats], program, arguments, port);
        process.ready_url = ready_url;
        process.ports.push(monitor);
        self.processes.push(process);
        url
    }

    /// Adds a mongod if one is asked for; gives the URL of a new database.
    fn add_database(&mut self) -> String {
        let database = format!("hansard_{}", Uuid::new_v4().simple());
        if !self.options.own_mongod {
            let server = from_xtask("HANSARD_TEST_MONGODB");
            let server = server.to_str().expect("the URL is text");
            return format!("{}/{database}", server.trim_end_matches('/'));
        }
        let port = Port::reserve().unwrap();
        let url = match &self.options.through.read_models {
            // Direct: the replica set's own configuration names the server behind the proxy.
            Some(proxy) => format!("mongodb://{proxy}/{database}?directConnection=true"),
            None => format!("mongodb://{}/{database}", port.address()),
        };
        let program = from_xtask("HANSARD_TEST_MONGOD").into();
        let process = self.process("mongod", vec![Service::Mongod], program, Vec::new(), port);
        self.processes.push(process);
        url
    }

    /// Adds one of Hansard's own processes; gives its address.
    fn add_service(
        &mut self,
        name: &'static str,
        services: Vec<Service>,
        flags: &[OsString],
    ) -> String {
        let port = Port::reserve().unwrap();
        let address = port.address();
        let mut arguments: Vec<OsString> = Vec::new();
        if name == "hansard" {
            arguments.push("serve".into());
        }
        arguments.extend(["--listen".into(), address.clone().into()]);
        arguments.extend_from_slice(flags);
        // That is found when it is started.
        let process = self.process(name, services, name.into(), arguments, port);
        self.processes.push(process);
        address
    }

    /// Adds the four services and nginx before them; gives the base URL.
    fn add_services_and_edge(&mut self, flags: &[OsString]) -> String {
        let port = Port::reserve().unwrap();
        let command_api = self.add_service("command-api", vec![Service::CommandApi], flags);
        self.add_service("projector", vec![Service::Projector], flags);
        let query_api = self.add_service("query-api", vec![Service::QueryApi], flags);
        let gateway_ws = self.add_service("gateway-ws", vec![Service::GatewayWs], flags);
        if self.options.second_gateway {
            self.add_second(Service::SecondGatewayWs, flags);
        }
        if self.options.second_services {
            self.add_second(Service::SecondCommandApi, flags);
            self.add_second(Service::SecondProjector, flags);
            self.add_second(Service::SecondQueryApi, flags);
        }
        let addresses = edge::Addresses {
            listen: port.address(),
            command_api,
            query_api,
            gateway_ws,
        };
        let arguments = edge::configure(self.directory.path(), &addresses);
        let nginx = edge::nginx().unwrap_or_else(|error| panic!("{error}"));
        let process = self.process("edge", vec![Service::Edge], nginx, arguments, port);
        self.processes.push(process);
        format!("http://{}", addresses.listen)
    }

    /// Adds one more process of a service, with an output of its own.
    fn add_second(&mut self, service: Service, flags: &[OsString]) {
        let name = service.binary();
        self.add_service(name, vec![service], flags);
        let output = self.directory.path().join(format!("second-{name}.log"));
        self.processes.last_mut().expect("just added").output = output;
    }

    fn process(
        &self,
        name: &'static str,
        services: Vec<Service>,
        program: PathBuf,
        arguments: Vec<OsString>,
        port: Port,
    ) -> Process {
        Process {
            name,
            services,
            program,
            arguments,
            ready_url: format!("http://{}/health/ready", port.address()),
            address: port.address(),
            output: self.directory.path().join(format!("{name}.log")),
            running: None,
            ports: vec![port],
        }
    }

    /// The same stack, whose clients from now on send back the newest position that any of them was
    /// answered. So they read what they wrote on the slowest of machines, where plain ones may not: for
    /// plain ones a command waits a quarter of a second at most.
    #[must_use]
    pub fn with_positions(mut self) -> Self {
        self.newest = Some(NewestPosition::default());
        self
    }

    /// What was started.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// `http://HOST:PORT` of the one address that clients use.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// The WebSocket's URL.
    #[must_use]
    pub fn ws_url(&self) -> String {
        format!("{}/ws", self.base_url.replacen("http", "ws", 1))
    }

    /// The WebSocket's URL at one service, not through the edge.
    ///
    /// # Panics
    /// The stack has no such service.
    #[must_use]
    pub fn ws_url_of(&self, service: Service) -> String {
        format!("ws://{}/ws", self.address(service))
    }

    /// `HOST:PORT` at which the process that is this service listens.
    ///
    /// # Panics
    /// The stack has no such service.
    #[must_use]
    pub fn address(&self, service: Service) -> String {
        self.processes[self.index(service)].address.clone()
    }

    /// The directory that `--data-dir` names.
    #[must_use]
    pub fn data_directory(&self) -> PathBuf {
        let own = || self.directory.path().join("data");
        self.options.data_directory.clone().unwrap_or_else(own)
    }

    /// The directory that the log is in.
    #[must_use]
    pub fn log_directory(&self) -> PathBuf {
        match self.options.backend {
            Backend::Embedded => self.data_directory(),
            Backend::Distributed | Backend::Cluster => self.servers_directory().join("nats"),
        }
    }

    fn servers_directory(&self) -> PathBuf {
        let own = || self.directory.path().to_owned();
        self.options.servers_directory.clone().unwrap_or_else(own)
    }

    /// The file with the secrets that tokens are signed with; with [`Auth::Token`] only.
    #[must_use]
    pub fn secret_file(&self) -> PathBuf {
        self.directory.path().join("jwt-secret")
    }

    /// The URL of the log that this Hansard uses.
    #[must_use]
    pub fn log_url(&self) -> &str {
        &self.log_url
    }

    /// The log that this Hansard uses, opened by the test itself as by one more process.
    ///
    /// # Panics
    /// It can't be opened.
    pub async fn open_log(&self) -> Arc<dyn EventLog> {
        let url = self
            .log_url
            .parse()
            .expect("the URL is one that Hansard takes");
        event_log::open(&url, &self.data_directory())
            .await
            .unwrap_or_else(|error| panic!("can't open {}: {error}", self.log_url))
    }

    /// The log with its keys, opened by the test itself as by one more process.
    ///
    /// # Panics
    /// They can't be opened.
    pub async fn open_record(&self) -> Record {
        let config = Config {
            log: self
                .log_url
                .parse()
                .expect("the URL is one that Hansard takes"),
            data_dir: self.data_directory(),
            ..Config::default()
        };
        platform::startup::open_record(&config, &CancellationToken::new())
            .await
            .unwrap_or_else(|error| panic!("can't open {}: {error}", self.log_url))
    }

    /// The generations of this Hansard's read models, opened by the test itself as by one more process.
    ///
    /// # Panics
    /// They can't be opened.
    pub async fn open_catalogue(&self) -> Arc<dyn Catalogue> {
        let url = self
            .read_models_url
            .parse()
            .expect("the URL is one that Hansard takes");
        read_models::open(&url, &self.data_directory())
            .await
            .unwrap_or_else(|error| panic!("can't open {}: {error}", self.read_models_url))
    }

    /// Says that this scenario leaves the log, the read models or the projector broken on purpose, and why:
    /// else the read models are verified when it has ended.
    pub fn leave_unverified(&mut self, reason: &'static str) {
        self.unverified = Some(reason);
    }

    pub(crate) fn unverified(&self) -> Option<&'static str> {
        self.unverified
    }

    /// Runs `hansard` with these arguments and this stack's settings to its end.
    ///
    /// # Panics
    /// It can't be started.
    #[must_use]
    pub fn hansard(&self, arguments: &[&str]) -> Output {
        self.operation(arguments).output().unwrap()
    }

    /// `hansard` with these arguments and this stack's settings, not started yet.
    #[must_use]
    pub fn operation(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join("hansard"));
        without_own_settings(&mut command);
        command.args(arguments).args(&self.flags);
        command
    }

    /// From now on Hansard's processes are started from the programs that were built, and no longer from
    /// [`Options::old_programs`].
    ///
    /// # Panics
    /// Nothing says where the programs are.
    pub fn upgrade(&mut self) {
        self.programs = from_xtask("HANSARD_TEST_BIN_DIR").into();
    }

    /// A client without a token.
    #[must_use]
    pub fn client(&self) -> TestClient {
        let client = TestClient::new(&self.base_url);
        match &self.newest {
            Some(newest) => client.with_newest_position(newest),
            None => client,
        }
    }

    /// A client that talks to one service, not through the edge.
    ///
    /// # Panics
    /// The stack has no such service.
    #[must_use]
    pub fn direct(&self, service: Service) -> TestClient {
        TestClient::new(&format!("http://{}", self.address(service)))
    }

    /// Starts one more process of a service, on the same log and read models, and gives a client that
    /// talks to it. It runs until the stack is dropped.
    ///
    /// # Panics
    /// It is not ready in time.
    pub async fn replica(&mut self, service: Service) -> TestClient {
        let name = service.binary();
        let flags = self.flags.clone();
        let address = self.add_service(name, Vec::new(), &flags);
        let index = self.processes.len() - 1;
        self.spawn_process(index).await;
        self.process_ready(index).await;
        TestClient::new(&format!("http://{address}"))
    }

    /// The parts that this Hansard has, servers first, in the order in which [`Self::start_all`] starts them.
    /// A process that is several parts is named once, by its first.
    #[must_use]
    pub fn services(&self) -> Vec<Service> {
        let processes = self.processes.iter();
        processes
            .filter_map(|it| it.services.first().copied())
            .collect()
    }

    /// A token that says this: the caller is `user`, of type `consumer` or `support`.
    ///
    /// # Panics
    /// With [`Auth::Open`], where tokens come from [`TestClient::login`].
    #[must_use]
    pub fn token(&self, user: &str, user_type: &str) -> String {
        self.token_of(json!({"userId": user, "userType": user_type}))
    }

    /// A token that says as well which role its holder has.
    ///
    /// # Panics
    /// As [`Self::token`].
    #[must_use]
    pub fn token_with_role(&self, user: &str, user_type: &str, role: &str) -> String {
        self.token_of(json!({"userId": user, "userType": user_type, "role": role}))
    }

    /// A token of an hour with these claims.
    fn token_of(&self, mut claims: serde_json::Value) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        claims["iat"] = json!(now);
        claims["exp"] = json!(now + 3600);
        self.sign(&claims)
    }

    /// A client whose token belongs to no user of the chat and has this role.
    ///
    /// # Panics
    /// As [`Self::token`].
    #[must_use]
    pub fn back_office(&self, role: &str) -> TestClient {
        let nobody = Uuid::new_v4().simple().to_string();
        self.client()
            .with_token(&self.token_with_role(&nobody, "support", role))
    }

    /// A token with any claims, signed as Hansard wants it.
    ///
    /// # Panics
    /// With [`Auth::Open`], where Hansard has a secret of its own.
    #[must_use]
    pub fn sign(&self, claims: &serde_json::Value) -> String {
        assert_eq!(
            self.options.auth,
            Auth::Token,
            "with Auth::Open tokens come from POST /login"
        );
        let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).unwrap()
    }

    /// A client that may create users and delete anything.
    #[must_use]
    pub fn operator(&self) -> TestClient {
        match self.options.auth {
            Auth::Open => self.client(),
            Auth::Token => {
                let nobody = Uuid::new_v4().simple().to_string();
                self.client().with_token(&self.token(&nobody, "support"))
            }
        }
    }

    /// A new user of type `consumer`.
    pub async fn person(&self, first_name: &str) -> Person {
        self.person_of_type(first_name, "consumer").await
    }

    /// A new user of type `consumer` or `support`.
    pub async fn person_of_type(&self, first_name: &str, user_type: &str) -> Person {
        let created = self
            .operator()
            .create_user(first_name, "Lovelace", user_type)
            .await
            .ok();
        let id = created["user"]["_id"]
            .as_str()
            .unwrap_or_else(|| panic!("no _id in {created}"))
            .to_owned();
        let token = match self.options.auth {
            Auth::Open => {
                let answer = self.client().login(&id).await.ok();
                answer["authorization"]
                    .as_str()
                    .unwrap_or_else(|| panic!("no authorization in {answer}"))
                    .to_owned()
            }
            Auth::Token => self.token(&id, user_type),
        };
        Person {
            client: self.client().with_token(&token),
            id,
            token,
        }
    }

    /// A new user who may read the record.
    pub async fn auditor(&self, first_name: &str) -> Person {
        let person = self.person_of_type(first_name, "support").await;
        match self.options.auth {
            // Where everybody may.
            Auth::Open => person,
            Auth::Token => {
                let token = self.token_with_role(&person.id, "support", "auditor");
                let client = self.client().with_token(&token);
                Person {
                    token,
                    client,
                    ..person
                }
            }
        }
    }

    /// A WebSocket with this person's token.
    pub async fn socket(&self, person: &Person) -> WsClient {
        self.socket_with(&person.token).await
    }

    /// A WebSocket with this token, good or bad, in its header.
    pub async fn socket_with(&self, token: &str) -> WsClient {
        WsClient::connect(&self.ws_url(), Some(token)).await
    }

    /// Kills the process that is this service with signal 9.
    ///
    /// # Panics
    /// The stack has no such service.
    pub fn kill(&mut self, service: Service) {
        let index = self.index(service);
        if let Some(running) = &mut self.processes[index].running {
            running.kill();
        }
    }

    /// Sends a signal to the process that is this service: `SIGSTOP` and `SIGCONT` make it hang and go on.
    ///
    /// # Panics
    /// The stack has no such service.
    pub fn signal(&mut self, service: Service, signal: Signal) {
        let index = self.index(service);
        if let Some(running) = &mut self.processes[index].running {
            running.signal(signal);
        }
    }

    /// Sends a signal to the process that [`replica`](Self::replica) started last.
    ///
    /// # Panics
    /// The stack has no process.
    pub fn signal_replica(&mut self, signal: Signal) {
        let last = self.processes.last_mut().expect("there is a process");
        if let Some(running) = &mut last.running {
            running.signal(signal);
        }
    }

    /// Removes all read models, as when their disk is lost. Nobody may be using them.
    ///
    /// # Panics
    /// They can't be removed.
    pub async fn remove_read_models(&self) {
        if let Some(file) = self.read_models_url.strip_prefix("sqlite:") {
            let stem = file.strip_suffix("db").unwrap_or(file);
            for entry in std::fs::read_dir(self.data_directory()).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                if name.starts_with(stem) {
                    std::fs::remove_file(&path).unwrap();
                }
            }
        } else {
            let client = mongodb::Client::with_uri_str(&self.read_models_url);
            let database = client.await.unwrap().default_database();
            database.expect("the URL names it").drop().await.unwrap();
        }
    }

    /// The most memory that the process that is this service has had since its start, in bytes; `None`
    /// when it does not run.
    ///
    /// # Panics
    /// The stack has no such service.
    #[must_use]
    pub fn peak_memory(&self, service: Service) -> Option<u64> {
        let running = self.processes[self.index(service)].running.as_ref()?;
        let status = read_lossily(Path::new(&format!("/proc/{}/status", running.id())));
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kilobytes: u64 = peak.split_whitespace().next()?.parse().ok()?;
        Some(kilobytes * 1024)
    }

    /// The id of the process that is this service; `None` when it does not run.
    ///
    /// # Panics
    /// The stack has no such service.
    pub fn process_id(&mut self, service: Service) -> Option<u32> {
        let index = self.index(service);
        let running = self.processes[index].running.as_mut()?;
        running.ended().is_none().then(|| running.id())
    }

    /// Moves the clock of the process that is this service to so many seconds after the real one, or before
    /// it, within a second or two; see [`Options::clocks`]. A restart changes nothing.
    ///
    /// # Panics
    /// The stack has no such service.
    pub fn set_clock(&self, service: Service, seconds: i64) {
        let file = self.processes[self.index(service)].clock();
        // At once: a process may be reading it.
        let new = file.with_extension("new");
        std::fs::write(&new, format!("{seconds:+}\n")).unwrap();
        std::fs::rename(new, file).unwrap();
    }

    /// Tells the process that is this service to stop (SIGTERM) and waits until it has.
    ///
    /// # Panics
    /// The stack has no such service, it does not run, or it doesn't stop in time.
    pub async fn terminate(&mut self, service: Service) -> ExitStatus {
        self.signal(service, Signal::SIGTERM);
        self.ended(service).await
    }

    /// Waits until the process that is this service has ended.
    ///
    /// # Panics
    /// The stack has no such service, it does not run, or it doesn't end in time.
    pub async fn ended(&mut self, service: Service) -> ExitStatus {
        let index = self.index(service);
        let process = &mut self.processes[index];
        let what = format!("the end of {}", process.name);
        let running = process.running.as_mut().expect("it was started");
        eventually(&what, STOP, || std::future::ready(running.ended())).await
    }

    /// Whether the process that is this service runs.
    ///
    /// # Panics
    /// The stack has no such service.
    pub fn runs(&mut self, service: Service) -> bool {
        let index = self.index(service);
        self.processes[index]
            .running
            .as_mut()
            .is_some_and(|running| running.ended().is_none())
    }

    /// Starts the process that is this service, on its old address and data; kills it first if it runs.
    ///
    /// # Panics
    /// The stack has no such service, or it can't be started.
    pub async fn spawn(&mut self, service: Service) {
        self.kill(service);
        self.spawn_process(self.index(service)).await;
    }

    /// Whether this service says that it is ready.
    ///
    /// # Panics
    /// The stack has no such service.
    pub async fn is_ready(&mut self, service: Service) -> bool {
        if !self.runs(service) {
            return false;
        }
        if Service::MONGODS.contains(&service) {
            // A lone mongod is ready once it runs.
            return !self.is_cluster() || self.is_in_set(service);
        }
        let answer = self
            .http
            .get(&self.processes[self.index(service)].ready_url);
        let answer = answer.send().await;
        answer.is_ok_and(|it| it.status().is_success())
    }

    /// Waits until this service says that it is ready.
    ///
    /// # Panics
    /// The stack has no such service, it ends, or it is not ready in time.
    pub async fn ready(&mut self, service: Service) {
        self.process_ready(self.index(service)).await;
    }

    /// [`Self::spawn`] and [`Self::ready`].
    ///
    /// # Panics
    /// As they do.
    pub async fn restart(&mut self, service: Service) {
        self.spawn(service).await;
        self.ready(service).await;
    }

    /// What the process that is this service has written so far, over all its starts.
    ///
    /// # Panics
    /// The stack has no such service.
    #[must_use]
    pub fn output(&self, service: Service) -> String {
        read_lossily(&self.processes[self.index(service)].output)
    }

    /// Whether the stack has this service.
    #[must_use]
    pub fn has(&self, service: Service) -> bool {
        self.processes
            .iter()
            .any(|process| process.services.contains(&service))
    }

    fn index(&self, service: Service) -> usize {
        self.processes
            .iter()
            .position(|process| process.services.contains(&service))
            .unwrap_or_else(|| panic!("{:?} has no {service:?}", self.options))
    }

    async fn spawn_process(&mut self, index: usize) {
        let data = self.servers_directory().join("mongod");
        let is_lone_mongod =
            self.processes[index].services == [Service::Mongod] && !self.is_cluster();
        let process = &mut self.processes[index];
        if is_lone_mongod {
            // Waits until it is ready, and blocks.
            let running = tokio::task::block_in_place(|| {
                let port = &process.ports[0];
                xtask::mongod::start_in(&process.program, &data, &process.output, port)
            });
            process.running = Some(running.unwrap_or_else(|error| panic!("{error:#}")));
            return;
        }
        let is_own = process.services.iter().all(|it| it.is_own());
        let program = match is_own {
            true => self.programs.join(&process.program),
            false => process.program.clone(),
        };
        let mut command = Command::new(program);
        command.args(&process.arguments);
        without_own_settings(&mut command);
        command.env("RUST_BACKTRACE", "1");
        if let Some(library) = &self.options.clocks
            && is_own
        {
            let file = process.clock();
            if !file.exists() {
                std::fs::write(&file, "+0\n").unwrap();
            }
            command
                .env("LD_PRELOAD", library)
                .env("FAKETIME_TIMESTAMP_FILE", file)
                // In seconds: how long the file's content holds.
                .env("FAKETIME_CACHE_DURATION", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        let running = Supervised::start(command, &process.output);
        process.running = Some(running.unwrap_or_else(|error| panic!("{error:#}")));
    }

    async fn process_ready(&mut self, index: usize) {
        let process = &self.processes[index];
        if let [service] = process.services[..]
            && Service::MONGODS.contains(&service)
        {
            if self.is_cluster() {
                let what = format!("{} is ready", process.name);
                eventually(&what, START, || async {
                    self.is_in_set(service).then_some(())
                })
                .await;
            }
            return;
        }
        let process = &mut self.processes[index];
        let what = format!("{} is ready", process.name);
        let running = process.running.as_mut().expect("it was started");
        let http = &self.http;
        let url = process.ready_url.as_str();
        let name = process.name;
        let output = process.output.as_path();
        eventually(&what, START, || {
            let ended = running.ended();
            async move {
                if let Some(status) = ended {
                    panic!("{name} ended, {status}:\n{}", last_lines(output));
                }
                let answer = http.get(url).send().await.ok()?;
                answer.status().is_success().then_some(())
            }
        })
        .await;
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let heir = self.heir.take();
        if !std::thread::panicking() {
            // Running as it is: everything ends when the heir has dropped it.
            if let Some(heir) = heir {
                let _ = heir.send(Self {
                    options: self.options.clone(),
                    base_url: std::mem::take(&mut self.base_url),
                    log_url: std::mem::take(&mut self.log_url),
                    read_models_url: std::mem::take(&mut self.read_models_url),
                    flags: std::mem::take(&mut self.flags),
                    heir: None,
                    unverified: self.unverified,
                    newest: None,
                    http: self.http.clone(),
                    programs: self.programs.clone(),
                    processes: std::mem::take(&mut self.processes),
                    directory: Arc::clone(&self.directory),
                });
            }
        } else {
            for process in &self.processes {
                let lines = last_lines(&process.output);
                println!("--- {} ---\n{lines}", process.name);
            }
        }
    }
}

fn last_lines(path: &Path) -> String {
    let text = read_lossily(path);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}

/// `hansard` without any settings, not started yet.
///
/// # Panics
/// Nothing says where the binaries are.
#[must_use]
pub fn hansard_command() -> Command {
    service_command("hansard")
}

/// One of Hansard's programs without any settings, not started yet.
///
/// # Panics
/// Nothing says where the binaries are.
#[must_use]
pub fn service_command(name: &str) -> Command {
    let program = PathBuf::from(from_xtask("HANSARD_TEST_BIN_DIR")).join(name);
    let mut command = Command::new(program);
    without_own_settings(&mut command);
    command
}

fn from_xtask(variable: &str) -> OsString {
    std::env::var_os(variable).unwrap_or_else(|| {
        panic!("{variable} is not set: run `cargo xtask test`, which builds and starts what this test needs")
    })
}

/// The id of the room of a person and others, which they initiate if there is none.
///
/// # Panics
/// The room can't be initiated.
pub async fn room_of(person: &Person, others: &[&Person]) -> String {
    let others: Vec<&str> = others.iter().map(|other| other.id.as_str()).collect();
    let room = person
        .client
        .initiate(&others, "consumer-to-consumer")
        .await;
    let room = room.ok()["chatRoom"]["chatRoomId"].clone();
    room.as_str().unwrap().to_owned()
}
