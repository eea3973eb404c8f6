//! Three of each server, one nats-server and one mongod to a host: a JetStream cluster and a replica set.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;
use xtask::mongod::{self, Role};
use xtask::port::Port;

use super::{Backend, Service, Stack, from_xtask};
use crate::edge;
use crate::network::{Network, Trouble};
use crate::wait::eventually;

/// How many hosts there are.
pub const HOSTS: usize = 3;
/// How long the first election may take on a busy machine.
const ELECTION: Duration = Duration::from_secs(60);
/// The log's stream.
const STREAM: &str = "HANSARD";

/// A server of a cluster by what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Member {
    /// The nats-server that leads the log's stream.
    LogLeader,
    /// A nats-server that follows.
    LogFollower,
    /// The mongod that takes writes.
    Primary,
    /// A mongod that has copies.
    Secondary,
}

impl Member {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::LogLeader,
        Self::LogFollower,
        Self::Primary,
        Self::Secondary,
    ];
}

impl Stack {
    /// The address of a host of the cluster.
    fn host(&self, host: usize) -> String {
        match &self.options.network {
            Some(network) => network.address(host),
            None => "127.0.0.1".to_owned(),
        }
    }

    /// Adds a server that runs on a host and listens there on this port.
    fn add_member(
        &mut self,
        service: Service,
        host: usize,
        (program, arguments): (PathBuf, Vec<OsString>),
        port: Port,
    ) {
        let (program, arguments) = match &self.options.network {
            Some(network) => network.on(host, program, arguments),
            None => (program, arguments),
        };
        let address = format!("{}:{}", self.host(host), port.number());
        let name = service.name();
        let mut process = self.process(name, vec![service], program, arguments, port);
        process.address = address;
        self.processes.push(process);
    }

    /// Adds three nats-servers with the deployment's own configuration; gives the log's URL.
    pub(super) fn add_nats_cluster(&mut self) -> String {
        let ports: Vec<[Port; 3]> = (0..HOSTS)
            .map(|_| [(); 3].map(|()| Port::reserve().unwrap()))
            .collect();
        let at = |which: usize, scheme: &str| {
            let hosts = ports.iter().enumerate().map(|(host, ports)| {
                format!("{scheme}{}:{}", self.host(host), ports[which].number())
            });
            hosts.collect::<Vec<_>>()
        };
        let (clients, monitors, routes) = (at(0, ""), at(1, "http://"), at(2, "nats://"));
        for (host, (service, ports)) in Service::NATS.into_iter().zip(ports).enumerate() {
            let [port, monitor, route] = ports;
            let mut arguments: Vec<OsString> = vec![
                "--config".into(),
                edge::project_file("deploy/nats.conf").into(),
                "--store_dir".into(),
                self.directory.path().join(service.name()).into(),
            ];
            for (flag, value) in [
                ("--addr", self.host(host)),
                ("--port", port.number().to_string()),
                ("--http_port", monitor.number().to_string()),
                ("--name", service.name().to_owned()),
                ("--cluster_name", "hansard".to_owned()),
                ("--cluster", routes[host].clone()),
                ("--routes", routes.join(",")),
            ] {
                arguments.extend([flag.into(), value.into()]);
            }
            let program = from_xtask("HANSARD_TEST_NATS_SERVER").into();
            self.add_member(service, host, (program, arguments), port);
            let process = self.processes.last_mut().expect("just added");
            process.ready_url = format!("{}/healthz", monitors[host]);
            process.ports.extend([monitor, route]);
        }
        format!(
            "nats://{}/{STREAM}?replicas={HOSTS}&monitor={}",
            clients.join(","),
            monitors.join(",")
        )
    }

    /// Adds three mongods; gives the URL of a new database.
    pub(super) fn add_replica_set(&mut self) -> String {
        let mut addresses = Vec::new();
        for (host, service) in Service::MONGODS.into_iter().enumerate() {
            let port = Port::reserve().unwrap();
            let data = self.directory.path().join(service.name());
            std::fs::create_dir_all(&data).unwrap();
            let arguments = mongod::arguments(&data, &self.host(host), port.number());
            let program = from_xtask("HANSARD_TEST_MONGOD").into();
            self.add_member(service, host, (program, arguments), port);
            addresses.push(self.address(service));
        }
        let database = format!("hansard_{}", Uuid::new_v4().simple());
        format!(
            "mongodb://{}/{database}?replicaSet=rs0",
            addresses.join(",")
        )
    }

    /// Makes the mongods one set, and waits until it has a primary.
    pub(super) async fn initiate_replica_set(&self) {
        let addresses: Vec<String> = Service::MONGODS.map(|it| self.address(it)).to_vec();
        eventually("the replica set has a primary", ELECTION, || async {
            tokio::task::block_in_place(|| match mongod::role(&addresses[0]).ok()? {
                Role::Uninitiated => mongod::initiate(&addresses).ok().and(None),
                Role::Primary | Role::Secondary | Role::Other => self.primary().map(drop),
            })
        })
        .await;
    }

    /// Whether a mongod of the cluster has what the others have, or takes writes.
    pub(super) fn is_in_set(&self, service: Service) -> bool {
        matches!(self.role(service), Some(Role::Primary | Role::Secondary))
    }

    /// What a mongod of the cluster is to its set; `None` when it does not say.
    fn role(&self, service: Service) -> Option<Role> {
        tokio::task::block_in_place(|| mongod::role(&self.address(service)).ok())
    }

    fn primary(&self) -> Option<Service> {
        let is_primary = |it: &Service| self.role(*it) == Some(Role::Primary);
        Service::MONGODS.into_iter().find(is_primary)
    }

    /// The server that leads the stream, as the first server knows that says so.
    async fn log_leader(&self) -> Option<Service> {
        for service in Service::NATS {
            let monitor = self.processes[self.index(service)]
                .ready_url
                .trim_end_matches("/healthz")
                .to_owned();
            let answer = self.http.get(format!("{monitor}/jsz?streams=true")).send();
            let Ok(answer) = answer.await else { continue };
            let Ok(text) = answer.text().await else {
                continue;
            };
            let status: Value = serde_json::from_str(&text).unwrap_or_default();
            let accounts = status["account_details"].as_array().into_iter().flatten();
            let mut streams =
                accounts.flat_map(|it| it["stream_detail"].as_array().into_iter().flatten());
            let stream = streams.find(|it| it["name"] == STREAM);
            let leader = stream.and_then(|it| it["cluster"]["leader"].as_str());
            let leader =
                leader.and_then(|it| Service::NATS.into_iter().find(|own| own.name() == it));
            if leader.is_some() {
                return leader;
            }
        }
        None
    }

    /// The server that is this member now; `None` while none is.
    pub async fn member(&self, member: Member) -> Option<Service> {
        match member {
            Member::LogLeader => self.log_leader().await,
            Member::LogFollower => {
                let leader = self.log_leader().await?;
                Service::NATS.into_iter().find(|it| *it != leader)
            }
            Member::Primary => self.primary(),
            Member::Secondary => {
                let primary = self.primary()?;
                Service::MONGODS.into_iter().find(|it| *it != primary)
            }
        }
    }

    /// Makes trouble on the ways to and from the host of this server, or ends it.
    ///
    /// # Panics
    /// The stack's hosts are not on a network of their own ([`Options::network`](super::Options::network)), or
    /// the trouble can't be made.
    pub fn trouble(&self, service: Service, trouble: Option<Trouble>) {
        let network = self.options.network.as_ref().expect("there is a network");
        let host = [Service::NATS, Service::MONGODS]
            .iter()
            .find_map(|all| all.iter().position(|it| *it == service))
            .expect("a server of the cluster");
        if let Err(error) = network.set(host, trouble) {
            panic!("no {trouble:?}: {error}");
        }
    }

    /// Whether the stack is a cluster.
    pub(super) fn is_cluster(&self) -> bool {
        self.options.backend == Backend::Cluster
    }
}

/// The network of a cluster's hosts.
///
/// # Errors
/// As [`Network::make`].
pub fn network() -> Result<Arc<Network>, String> {
    Network::make(HOSTS).map(Arc::new)
}
