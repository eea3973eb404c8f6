//! The power is cut again and again, and nothing that was acknowledged may be lost.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use forgetful_disk::Loss;
use hansard_tests::{Stack, run_prepared};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep};

use crate::checker::{EXACTLY_ONCE, Violation, check};
use crate::evidence::{Evidence, Finding};
use crate::faults::Victims;
use crate::history::Recorder;
use crate::leaks::Holdings;
use crate::living::Living;
use crate::power::machine::{Machine, disk};
use crate::power::{Log, Names, Settings, databases, rule_of, up_to};
use crate::record;
use crate::run::{addresses, show, sockets};
use crate::town::{Places, Town};
use crate::verification;

/// How long the first start may go on until it is cut.
const LONGEST_START: Duration = Duration::from_millis(1500);
/// How long people are at work until the power is cut, at most.
const LONGEST_WORK: Duration = Duration::from_secs(5);
/// How long followers may take to hear the last word.
const HEARD: Duration = Duration::from_secs(90);

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// Where the log was.
    pub log: Log,
    /// What made a name durable.
    pub names: Names,
    /// The seed.
    pub seed: u64,
    /// How often the power was cut, the first starts included.
    pub cuts: usize,
    /// How many commands were acknowledged.
    pub acknowledged: usize,
    /// How many of them are not in the log as they were acknowledged.
    pub lost: usize,
    /// All that is wrong, these included.
    pub violations: usize,
    /// The worst time until everything worked again, of those measured.
    pub recovery: Duration,
}

/// Runs; says what it does as it goes.
///
/// # Errors
/// The harness can't do its work; that says nothing of Hansard.
///
/// # Panics
/// As [`run_prepared`], and when a server can't be started again.
pub fn run(settings: &Settings) -> anyhow::Result<Outcome> {
    std::fs::create_dir_all(&settings.directory)
        .with_context(|| format!("{} can't be made", settings.directory.display()))?;
    let (log, rule, seed) = (settings.log, rule_of(settings.names), settings.seed);
    println!("## {log}; a name is durable when {rule}; seed {seed}\n");
    let mut random = StdRng::seed_from_u64(seed);
    let mut findings = Vec::new();
    for _ in 0..settings.first_starts {
        let random = StdRng::seed_from_u64(random.random());
        findings.extend(on_new_machine(settings, random, Run::first_start)?);
    }
    let mut outcome = on_new_machine(settings, random, async |run| {
        run.work(settings, findings).await
    })?;
    outcome.cuts += settings.first_starts;
    Ok(outcome)
}

/// Does something on a machine with an empty disk.
fn on_new_machine<T>(
    settings: &Settings,
    random: StdRng,
    act: impl AsyncFnOnce(Run) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let disk = disk(settings.names)?;
    let mut outcome = None;
    run_prepared(settings.options(disk.path()), async |mut stack: Stack| {
        stack.leave_unverified("the checker does it");
        let run = Run {
            machine: Machine { stack, disk },
            random,
            findings: Vec::new(),
            cuts: 0,
            recovery: Duration::ZERO,
        };
        outcome = Some(act(run).await);
    });
    outcome.context("this stack is left out (HANSARD_TEST_EMBEDDED_ONLY)")?
}

pub(super) async fn found(
    stack: &Stack,
    recorder: &Arc<Recorder>,
    random: &mut StdRng,
) -> anyhow::Result<Town> {
    let front = stack.base_url().trim_start_matches("http://");
    let (addresses, sockets) = (addresses(stack, front), sockets(stack, front));
    let places = Places {
        addresses: &addresses,
        sockets: &sockets,
    };
    Town::found(stack, &places, recorder, random).await
}

/// A run under way.
struct Run {
    machine: Machine,
    random: StdRng,
    findings: Vec<Finding>,
    cuts: usize,
    recovery: Duration,
}

impl Run {
    /// The power is cut while everything starts for the first time. The second start has to do.
    async fn first_start(mut self) -> anyhow::Result<Vec<Finding>> {
        self.machine.begin().await;
        let after = up_to(LONGEST_START, &mut self.random);
        sleep(after).await;
        let mut loss = Loss::of_seed(self.random.random());
        self.cut(after, &mut loss)?;
        if self.start().await {
            let recorder = Arc::new(Recorder::create(Path::new("/dev/null"))?);
            found(&self.machine.stack, &recorder, &mut self.random).await?;
        }
        Ok(self.findings)
    }

    /// The power is cut while people are at work.
    async fn work(
        mut self,
        settings: &Settings,
        findings: Vec<Finding>,
    ) -> anyhow::Result<Outcome> {
        self.findings = findings;
        let recorder = Arc::new(Recorder::create(&settings.directory.join("history.jsonl"))?);
        let mut evidence = Evidence::default();
        let mut before = None;
        if self.start().await {
            let town = found(&self.machine.stack, &recorder, &mut self.random).await?;
            before = Some(Holdings::count(&mut self.machine.stack).await);
            self.live(town, settings, &recorder, &mut evidence).await?;
        }
        self.finish(settings, &recorder, evidence, before).await
    }

    /// A power loss, after so long.
    fn cut(&mut self, after: Duration, loss: &mut Loss) -> anyhow::Result<()> {
        self.cuts += 1;
        self.machine.cut_power(loss)?;
        println!(
            "power loss {} after {:.2} s",
            self.cuts,
            after.as_secs_f64()
        );
        let damaged = databases::damage(&self.machine.stack.data_directory())?;
        for damage in damaged {
            self.find("SQLite's files", damage);
        }
        Ok(())
    }

    /// Starts everything; whether that can be done.
    async fn start(&mut self) -> bool {
        self.machine.begin().await;
        match self.machine.ready().await {
            Ok(()) => true,
            Err(wrong) => {
                self.find("the start after a power loss", wrong);
                false
            }
        }
    }

    /// Lets people do what they do while the power is cut, often enough or until something does not start any
    /// more. Then everybody is heard out.
    async fn live(
        &mut self,
        town: Town,
        settings: &Settings,
        recorder: &Arc<Recorder>,
        evidence: &mut Evidence,
    ) -> anyhow::Result<()> {
        let mut living = Living::begin(town, recorder);
        for number in 0..settings.cuts {
            let after = up_to(LONGEST_WORK, &mut self.random);
            sleep(after).await;
            // What has never been synced is gone with the first, or else it may become durable by chance.
            let mut loss = match number {
                0 => Loss::Everything,
                _ => Loss::of_seed(self.random.random()),
            };
            self.cut(after, &mut loss)?;
            let begun = Instant::now();
            if !self.start().await {
                evidence.streams = living.into_streams();
                return Ok(());
            }
            if let Err(wrong) = living.measure().await {
                self.find("recovery after a power loss", wrong);
            }
            self.recovery = self.recovery.max(begun.elapsed());
        }
        living.end().await?;
        if let Ok(log) = record::read(&self.machine.stack).await {
            living.heard(&log, HEARD).await;
        }
        evidence.streams = living.into_streams();
        Ok(())
    }

    async fn finish(
        mut self,
        settings: &Settings,
        recorder: &Recorder,
        mut evidence: Evidence,
        before: Option<Holdings>,
    ) -> anyhow::Result<Outcome> {
        evidence.operations = recorder.finish();
        match record::read(&self.machine.stack).await {
            Ok(log) => evidence.log = log,
            Err(error) => self.find("the log", format!("{error:#}")),
        }
        let Machine { stack, disk } = self.machine;
        let output = settings.directory.join("rebuild.log");
        let mut victims = Victims::new(stack, BTreeMap::new(), None, output);
        evidence.findings = self.findings;
        if let Some(before) = before {
            let found = verification::verify(&mut victims, &before).await;
            evidence.findings.extend(found);
        }
        drop((victims, disk));
        evidence.write(&settings.directory)?;
        let violations = check(&evidence);
        show(&evidence, &violations);
        Ok(Outcome {
            log: settings.log,
            names: settings.names,
            seed: settings.seed,
            cuts: self.cuts,
            acknowledged: acknowledged(&evidence),
            lost: lost(&violations),
            violations: violations.len(),
            recovery: self.recovery,
        })
    }

    fn find(&mut self, what: &str, wrong: String) {
        println!("  {what}: {wrong}");
        self.findings.push(Finding {
            what: what.to_owned(),
            wrong: Some(wrong),
        });
    }
}

/// How many commands were acknowledged.
pub(super) fn acknowledged(evidence: &Evidence) -> usize {
    let commands = evidence
        .operations
        .iter()
        .filter(|it| !it.action.is_query());
    commands.filter(|it| it.acknowledged().is_some()).count()
}

/// How many of them are not in the log as they were acknowledged.
pub(super) fn lost(violations: &[Violation]) -> usize {
    violations
        .iter()
        .filter(|it| it.rule == EXACTLY_ONCE)
        .count()
}

impl Outcome {
    /// The heading of the table that outcomes are rows of.
    pub const HEADING: &str = "| log | a name is durable when | seed | power losses | acknowledged | lost | violations | worst recovery |\n|---|---|---|---|---|---|---|---|";
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "| {} | {} | {} | {} | {} | {} | {} | {:.1} s |",
            self.log,
            rule_of(self.names),
            self.seed,
            self.cuts,
            self.acknowledged,
            self.lost,
            self.violations,
            self.recovery.as_secs_f64()
        )
    }
}
