//! The stack as faults see it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use hansard_tests::{Member, Service, Stack};
use nix::sys::signal::Signal;
use xtask::process::Supervised;

use crate::faults::disk::SmallDisk;
use crate::faults::proxy::{Proxy, Weather};
use crate::faults::{Fault, Harm, Link};

/// How long a rebuild may take to end, once everything runs.
const REBUILD: Duration = Duration::from_secs(180);

/// What faults happen to.
#[derive(Debug)]
pub struct Victims {
    /// The processes.
    pub stack: Stack,
    /// The proxies that stand before Hansard and its servers.
    pub proxies: BTreeMap<Link, Proxy>,
    /// The file system of the data directory, where it is one that can be filled.
    pub disk: Option<SmallDisk>,
    /// Which server a harm that was done to a member of a cluster has hit.
    pub(super) harmed: Vec<(Member, Harm, Service)>,
    rebuilds: Vec<Supervised>,
    /// Where what rebuilds print is written.
    rebuild_output: PathBuf,
    /// Processes that ended although nobody had told them to, and what they said last.
    pub ended: Vec<String>,
}

impl Victims {
    /// Nothing has happened to them yet.
    #[must_use]
    pub fn new(
        stack: Stack,
        proxies: BTreeMap<Link, Proxy>,
        disk: Option<SmallDisk>,
        rebuild_output: PathBuf,
    ) -> Self {
        Self {
            stack,
            proxies,
            disk,
            harmed: Vec::new(),
            rebuilds: Vec::new(),
            rebuild_output,
            ended: Vec::new(),
        }
    }

    /// Makes it go wrong.
    ///
    /// # Errors
    /// A program can't be started.
    pub async fn begin(&mut self, fault: &Fault) -> anyhow::Result<()> {
        match fault {
            Fault::Kill(service) => {
                tokio::task::block_in_place(|| self.stack.kill(*service));
            }
            Fault::Terminate(service) => self.stack.signal(*service, Signal::SIGTERM),
            Fault::Pause(service) => {
                tokio::task::block_in_place(|| self.stack.signal(*service, Signal::SIGSTOP));
            }
            Fault::PowerCut(order) => tokio::task::block_in_place(|| {
                for service in order {
                    self.stack.kill(*service);
                }
            }),
            Fault::Weather(link, weather) => self.set(*link, *weather),
            Fault::ClockJump(service, seconds) => self.stack.set_clock(*service, *seconds),
            Fault::FullDisk => {
                if let Some(disk) = &self.disk {
                    tokio::task::block_in_place(|| disk.fill());
                }
            }
            Fault::Rebuild => {
                let command = self.stack.operation(&["rebuild"]);
                self.rebuilds
                    .push(Supervised::start(command, &self.rebuild_output)?);
            }
            Fault::Member(member, harm) => self.harm(*member, *harm).await,
            Fault::RollServers => self.roll(Service::is_server).await,
            Fault::RollHansard => self.roll(Service::is_own).await,
            Fault::Upgrade => {
                self.stack.upgrade();
                self.roll(Service::is_own).await;
            }
        }
        Ok(())
    }

    /// Puts it right again, as whoever runs Hansard would: starts what does not run.
    pub async fn end(&mut self, fault: &Fault) {
        match fault {
            Fault::Kill(service) | Fault::Terminate(service) => self.stack.spawn(*service).await,
            Fault::Pause(service) => self.stack.signal(*service, Signal::SIGCONT),
            Fault::PowerCut(order) => {
                for service in order {
                    self.stack.spawn(*service).await;
                }
            }
            Fault::Weather(link, _) => self.set(*link, Weather::Fair),
            Fault::ClockJump(service, _) => self.stack.set_clock(*service, 0),
            Fault::FullDisk => {
                if let Some(disk) = &self.disk {
                    disk.clear();
                }
            }
            Fault::Member(member, harm) => self.heal(*member, *harm).await,
            // They end by themselves.
            Fault::Rebuild | Fault::RollServers | Fault::RollHansard | Fault::Upgrade => {}
        }
    }

    fn set(&self, link: Link, weather: Weather) {
        if let Some(proxy) = self.proxies.get(&link) {
            proxy.set(weather);
        }
    }

    /// Starts what has ended by itself, which nothing here gives it a reason for, and takes note of it.
    pub async fn look_after(&mut self) {
        for service in self.stack.services() {
            if self.stack.runs(service) {
                continue;
            }
            let output = self.stack.output(service);
            let lines: Vec<&str> = output.lines().collect();
            let last = lines[lines.len().saturating_sub(5)..].join("\n    ");
            self.ended
                .push(format!("{service:?} ended by itself:\n    {last}"));
            self.stack.spawn(service).await;
        }
    }

    /// The services that are not ready now.
    pub async fn unready(&mut self) -> Vec<Service> {
        let mut unready = Vec::new();
        for service in self.stack.services() {
            // nginx has nothing that says so.
            if service != Service::Edge && !self.stack.is_ready(service).await {
                unready.push(service);
            }
        }
        unready
    }

    /// Waits for rebuilds that were begun; says which do not end.
    pub fn rebuilt(&mut self) -> Result<(), String> {
        for rebuild in &mut self.rebuilds {
            // How it ended does not matter: a server may have been gone. Projectors go on with what it began.
            if tokio::task::block_in_place(|| rebuild.wait(REBUILD)).is_none() {
                return Err(format!("a rebuild does not end: {}", rebuild.output()));
            }
        }
        Ok(())
    }
}
