//! One run, from the founding of a town to the verdict.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use hansard_tests::{
    Auth, Backend, Layout, Options, PROGRAMS, Service, Stack, network, run_prepared,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep, sleep_until};
use xtask::process::POLL;

use crate::checker::{RULES, Violation, check};
use crate::client::Addresses;
use crate::evidence::{Evidence, Finding};
use crate::faults::disk::SmallDisk;
use crate::faults::proxy::Proxy;
use crate::faults::schedule::{Cluster, Menu, Round, Schedule};
use crate::faults::{Fault, Link, Victims, clock};
use crate::history::Recorder;
use crate::leaks::Holdings;
use crate::living::Living;
use crate::record;
use crate::recovery::Worst;
use crate::shrink::shrink;
use crate::summary::Summary;
use crate::town::{Places, Town};
use crate::verification;

/// How long processes may take to be ready after faults, and followers to hear the last word.
const RECOVERY: Duration = Duration::from_secs(90);
/// The longest quiet time between two rounds.
const LONGEST_QUIET: Duration = Duration::from_secs(2);
/// In which round Hansard is upgraded, where it is: by then the older one has been through some.
const UPGRADE_ROUND: usize = 4;
/// How many violations of each rule are shown with their shortest histories.
const SHOWN: usize = 2;

/// When a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// With the first round that ends after so long.
    Time(Duration),
    /// After so many rounds and so many operations.
    Rounds {
        /// Rounds of faults.
        rounds: usize,
        /// Operations of people.
        operations: usize,
    },
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The seed of every choice, though not of what the machine makes of it.
    pub seed: u64,
    /// On which log and read models.
    pub backend: Backend,
    /// In how many processes; as four there are two of each service.
    pub layout: Layout,
    /// For how long.
    pub length: Length,
    /// How long a fault lasts at most.
    pub longest_fault: Duration,
    /// The programs of an older Hansard, with which the run begins.
    pub upgrade_from: Option<PathBuf>,
    /// Where the history is written.
    pub directory: PathBuf,
}

/// Runs; gives what was violated. Says what it does as it goes.
///
/// # Errors
/// The harness can't do its work; that says nothing of Hansard.
///
/// # Panics
/// As [`run_prepared`].
pub fn run(settings: &Settings) -> anyhow::Result<Vec<Violation>> {
    std::fs::create_dir_all(&settings.directory)
        .with_context(|| format!("{} can't be made", settings.directory.display()))?;
    let Settings {
        seed,
        backend,
        layout,
        ..
    } = settings;
    println!("## {backend:?}, {layout:?}, seed {seed}\n");
    let prepared = Prepared::new(settings)?;
    let options = prepared.options.clone();
    let mut verdict = None;
    run_prepared(options, async |stack: Stack| {
        verdict = Some(prepared.run(settings, stack).await);
    });
    verdict.unwrap_or_else(|| Ok(Vec::new()))
}

/// What has to be there before the stack is.
struct Prepared {
    options: Options,
    proxies: BTreeMap<Link, Proxy>,
    disk: Option<SmallDisk>,
    clocks: bool,
}

impl Prepared {
    fn new(settings: &Settings) -> anyhow::Result<Self> {
        let mut options = Options::new(settings.backend, settings.layout, Auth::Token);
        if let Some(directory) = &settings.upgrade_from {
            for program in PROGRAMS {
                let program = directory.join(program);
                ensure!(
                    program.is_file(),
                    "{} is not there, which an upgrade is to begin with",
                    program.display()
                );
            }
        }
        options.old_programs.clone_from(&settings.upgrade_from);
        let is_distributed = settings.backend == Backend::Distributed;
        options.own_mongod = is_distributed;
        options.second_gateway = settings.layout == Layout::FourProcesses;
        options.second_services = settings.layout == Layout::FourProcesses;
        let mut proxies = BTreeMap::from([(Link::Clients, Proxy::new()?)]);
        let mut disk = None;
        if settings.backend == Backend::Cluster {
            // Clients of a cluster are told by itself where its members are, so no proxy can stand before them.
            match network() {
                Ok(network) => {
                    if !network.has_netem() {
                        println!(
                            "the kernel has no netem: what is to be late is sent through a narrow way"
                        );
                    }
                    options.network = Some(network);
                }
                Err(error) => println!("left out: the network is not troubled: {error}"),
            }
        } else if is_distributed {
            let [log, read_models] = [Proxy::new()?, Proxy::new()?];
            options.through.log = Some(log.address());
            options.through.read_models = Some(read_models.address());
            proxies.extend([(Link::Log, log), (Link::ReadModels, read_models)]);
        } else {
            match SmallDisk::mount() {
                Ok(mounted) => {
                    options.data_directory = Some(mounted.path().join("data"));
                    disk = Some(mounted);
                }
                Err(error) => println!("left out: the disk is not filled: {error:#}"),
            }
        }
        if settings.backend != Backend::Cluster {
            match clock::library() {
                Ok(library) => options.clocks = Some(library),
                Err(error) => println!("left out: {error}"),
            }
        }
        Ok(Self {
            clocks: options.clocks.is_some(),
            options,
            proxies,
            disk,
        })
    }

    fn menu(&self, stack: &Stack) -> Menu {
        let services: Vec<Service> = stack
            .services()
            .into_iter()
            .filter(|it| *it != Service::Edge)
            .collect();
        let own = services.iter().filter(|it| it.is_own());
        Menu {
            own: own.copied().collect(),
            services,
            links: self.proxies.keys().copied().collect(),
            clocks: self.clocks,
            disk: self.disk.is_some(),
            cluster: (self.options.backend == Backend::Cluster).then(|| Cluster {
                network: self.options.network.is_some(),
            }),
        }
    }

    async fn run(
        mut self,
        settings: &Settings,
        mut stack: Stack,
    ) -> anyhow::Result<Vec<Violation>> {
        stack.leave_unverified("the checker does it");
        let mut random = StdRng::seed_from_u64(settings.seed);
        let targets = [
            (
                Link::Clients,
                Some(stack.base_url().trim_start_matches("http://").to_owned()),
            ),
            (
                Link::Log,
                stack
                    .has(Service::Nats)
                    .then(|| stack.address(Service::Nats)),
            ),
            (
                Link::ReadModels,
                stack
                    .has(Service::Mongod)
                    .then(|| stack.address(Service::Mongod)),
            ),
        ];
        for (link, target) in targets {
            if let (Some(proxy), Some(target)) = (self.proxies.get_mut(&link), target) {
                proxy.listen(&target, random.random()).await?;
            }
        }
        stack.start_all().await;
        let front = self
            .proxies
            .get(&Link::Clients)
            .map(Proxy::address)
            .unwrap_or_default();
        let schedule = Schedule::new(
            self.menu(&stack),
            StdRng::seed_from_u64(random.random()),
            settings.longest_fault,
        );
        let recorder = Arc::new(Recorder::create(&settings.directory.join("history.jsonl"))?);
        let addresses = addresses(&stack, &front);
        let sockets = sockets(&stack, &front);
        let places = Places {
            addresses: &addresses,
            sockets: &sockets,
        };
        let town = Town::found(&stack, &places, &recorder, &mut random).await?;
        let before = Holdings::count(&mut stack).await;
        let victims = Victims::new(
            stack,
            self.proxies,
            self.disk,
            settings.directory.join("rebuild.log"),
        );
        let run = Run {
            settings,
            recorder,
            victims,
            schedule,
            random,
            worst: Worst::default(),
            findings: Vec::new(),
            faults: BTreeMap::new(),
            begun: Instant::now(),
        };
        run.finish(town, &before).await
    }
}

/// Prints some violations of each rule, with the shortest histories that show them.
pub(crate) fn show(evidence: &Evidence, violations: &[Violation]) {
    let shown = RULES.iter().flat_map(|rule| {
        let of_rule = violations.iter().filter(|it| it.rule == rule.name);
        of_rule.take(SHOWN)
    });
    for violation in shown {
        println!("VIOLATION of {:?}: {}", violation.rule, violation.message);
        println!(
            "the shortest history that shows it:\n{}",
            shrink(evidence, violation)
        );
    }
}

/// Every address at which requests are answered: `http://HOST:PORT`.
pub(crate) fn addresses(stack: &Stack, front: &str) -> Addresses {
    let all = |services: [Service; 2]| {
        let direct = services
            .into_iter()
            .filter(|it| stack.has(*it))
            .map(|it| stack.address(it));
        let all = std::iter::once(front.to_owned()).chain(direct);
        all.map(|address| format!("http://{address}")).collect()
    };
    Addresses {
        commands: all([Service::CommandApi, Service::SecondCommandApi]),
        queries: all([Service::QueryApi, Service::SecondQueryApi]),
    }
}

/// The URL of every WebSocket.
pub(crate) fn sockets(stack: &Stack, front: &str) -> Vec<String> {
    let gateways = [Service::GatewayWs, Service::SecondGatewayWs].into_iter();
    let direct = gateways
        .filter(|it| stack.has(*it))
        .map(|it| stack.ws_url_of(it));
    std::iter::once(format!("ws://{front}/ws"))
        .chain(direct)
        .collect()
}

/// A run under way.
struct Run<'a> {
    settings: &'a Settings,
    recorder: Arc<Recorder>,
    victims: Victims,
    schedule: Schedule,
    random: StdRng,
    worst: Worst,
    findings: Vec<Finding>,
    /// How often each kind of fault came.
    faults: BTreeMap<String, usize>,
    begun: Instant,
}

impl Run<'_> {
    async fn finish(mut self, town: Town, before: &Holdings) -> anyhow::Result<Vec<Violation>> {
        let mut living = Living::begin(town, &self.recorder);
        let mut rounds = 0;
        while self.goes_on(rounds) {
            rounds += 1;
            let quiet = LONGEST_QUIET.mul_f64(self.random.random());
            sleep(quiet).await;
            let round = match self.settings.upgrade_from {
                Some(_) if rounds == UPGRADE_ROUND => Round::single(Fault::Upgrade, Duration::ZERO),
                _ => self.schedule.next_round(),
            };
            self.round(rounds, &round).await?;
            match living.measure().await {
                Ok(times) => self.worst.add(&round, times),
                Err(error) => self.find(&format!("recovery after {round}"), error),
            }
            self.ready(&round).await;
        }
        while !self.has_enough(living.done()) {
            sleep(POLL).await;
        }
        for room in living.end().await? {
            self.find("the end", format!("no last word in room {room}"));
        }
        let log = record::read(&self.victims.stack).await?;
        living.heard(&log, RECOVERY).await;
        let streams = living.into_streams();
        let took = self.begun.elapsed();
        self.findings
            .extend(verification::verify(&mut self.victims, before).await);

        let evidence = Evidence {
            operations: self.recorder.finish(),
            // Once more: nothing was to come behind it.
            log: record::read(&self.victims.stack).await?,
            streams,
            findings: std::mem::take(&mut self.findings),
        };
        evidence.write(&self.settings.directory)?;
        let violations = check(&evidence);
        show(&evidence, &violations);
        let summary = Summary {
            settings: self.settings,
            took,
            rounds,
            evidence: &evidence,
            faults: &self.faults,
            worst: &self.worst,
            violations: &violations,
        };
        println!("{summary}");
        Ok(violations)
    }

    fn goes_on(&self, rounds: usize) -> bool {
        match self.settings.length {
            Length::Time(time) => self.begun.elapsed() < time,
            Length::Rounds { rounds: wanted, .. } => rounds < wanted,
        }
    }

    fn has_enough(&self, done: usize) -> bool {
        match self.settings.length {
            Length::Time(_) => true,
            Length::Rounds { operations, .. } => done >= operations,
        }
    }

    /// One round of faults, from its first beginning to its last end.
    async fn round(&mut self, number: usize, round: &Round) -> anyhow::Result<()> {
        let begun = Instant::now();
        let at = self.begun.elapsed().as_secs_f64();
        println!("{at:7.1} s, round {number}: {round}");
        for (after, begins, fault) in round.turns() {
            sleep_until(begun + after).await;
            if begins {
                *self.faults.entry(fault.kind()).or_default() += 1;
                self.victims.begin(fault).await?;
            } else {
                self.victims.end(fault).await;
            }
        }
        self.victims.look_after().await;
        Ok(())
    }

    /// Waits until every process says that it is ready.
    async fn ready(&mut self, round: &Round) {
        let end = Instant::now() + RECOVERY;
        loop {
            self.victims.look_after().await;
            let unready = self.victims.unready().await;
            if unready.is_empty() {
                return;
            }
            if Instant::now() > end {
                let waited = RECOVERY.as_secs();
                let wrong = format!("{unready:?} not ready {waited} s later");
                return self.find(&format!("recovery after {round}"), wrong);
            }
            sleep(POLL).await;
        }
    }

    fn find(&mut self, what: &str, wrong: String) {
        println!("  {what}: {wrong}");
        self.findings.push(Finding {
            what: what.to_owned(),
            wrong: Some(wrong),
        });
    }
}
