//! The power is cut where the log is not synced before it acknowledges: what is lost, what Hansard says, and
//! whether what an operator is told to do then helps.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use anyhow::Context;
use forgetful_disk::Loss;
use hansard_tests::{Service, Stack, run_prepared};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;

use crate::checker::check;
use crate::evidence::Evidence;
use crate::history::Recorder;
use crate::power::keep::{acknowledged, found, lost};
use crate::power::machine::{Machine, disk};
use crate::power::{Settings, up_to};
use crate::record;
use crate::town::follow;

/// How long people are at work until the power is cut, at most.
const LONGEST_WORK: Duration = Duration::from_secs(8);

/// What one power loss took.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// How many commands had been acknowledged.
    pub acknowledged: usize,
    /// How many of them are not in the log as they were acknowledged.
    pub lost: usize,
    /// What became of the log.
    pub log: String,
    pub said: String,
}

/// Runs once; says what it does as it goes.
///
/// # Errors
/// The harness can't do its work; that says nothing of Hansard.
///
/// # Panics
/// As [`run_prepared`].
pub fn run(settings: &Settings) -> anyhow::Result<Outcome> {
    std::fs::create_dir_all(&settings.directory)
        .with_context(|| format!("{} can't be made", settings.directory.display()))?;
    let disk = disk(settings.names)?;
    let mut outcome = None;
    run_prepared(settings.options(disk.path()), async |mut stack: Stack| {
        stack.leave_unverified("the log has lost what was projected");
        outcome = Some(lose(settings, Machine { stack, disk }).await);
    });
    outcome.context("this stack is left out (HANSARD_TEST_EMBEDDED_ONLY)")?
}

async fn lose(settings: &Settings, mut machine: Machine) -> anyhow::Result<Outcome> {
    let mut random = StdRng::seed_from_u64(settings.seed);
    machine.begin().await;
    machine.ready().await.map_err(anyhow::Error::msg)?;
    let recorder = Arc::new(Recorder::create(&settings.directory.join("history.jsonl"))?);
    let town = found(&machine.stack, &recorder, &mut random).await?;
    let followers = follow(town.plans, &recorder);
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicUsize::new(0));
    let living: Vec<_> = town
        .people
        .into_iter()
        .map(|person| tokio::spawn(person.live(Arc::clone(&stop), Arc::clone(&done))))
        .collect();
    sleep(up_to(LONGEST_WORK, &mut random)).await;
    if std::env::var_os("YOUNG").is_none() {
        machine.disk.sync_everything();
    }
    sleep(up_to(LONGEST_WORK, &mut random)).await;
    machine.cut_power(&mut Loss::of_seed(random.random()))?;
    for person in &living {
        person.abort();
    }
    drop(followers);
    let services = machine.stack.services();
    for service in &services {
        if matches!(service, Service::Nats | Service::Mongod) {
            machine.stack.spawn(*service).await;
            let end = std::time::Instant::now() + Duration::from_secs(15);
            while !machine.stack.is_ready(*service).await && end > std::time::Instant::now() {
                sleep(Duration::from_millis(20)).await;
            }
            println!(
                "{service:?} ready {}",
                machine.stack.is_ready(*service).await
            );
        }
    }
    let mut evidence = Evidence {
        operations: recorder.finish(),
        ..Evidence::default()
    };
    let mut outcome = Outcome {
        seed: settings.seed,
        ..Outcome::default()
    };
    match record::read(&machine.stack).await {
        Ok(log) => {
            outcome.log = format!("{} events", log.len());
            evidence.log = log
        }
        Err(error) => outcome.log = format!("{error:#}"),
    }
    evidence.write(&settings.directory)?;
    let violations = check(&evidence);
    outcome.acknowledged = acknowledged(&evidence);
    outcome.lost = lost(&violations);
    let before = machine.stack.output(Service::CommandApi).len();
    machine.stack.spawn(Service::CommandApi).await;
    sleep(Duration::from_secs(12)).await;
    outcome.said = machine.stack.output(Service::CommandApi)[before..].to_owned();
    println!(
        "runs {} ready {}",
        machine.stack.runs(Service::CommandApi),
        machine.stack.is_ready(Service::CommandApi).await
    );
    println!("{}", outcome.said);
    for arguments in [
        &["rebuild"][..],
        &["tree", "begin-anew"],
        &["verify", "read-models"],
        &["verify", "log"],
    ] {
        let output = tokio::task::block_in_place(|| machine.stack.operation(arguments).output())?;
        println!(
            "hansard {arguments:?}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    sleep(Duration::from_secs(3)).await;
    println!(
        "ready {}",
        machine.stack.is_ready(Service::CommandApi).await
    );
    Ok(outcome)
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "| {} | {} | {} | {} |",
            self.seed, self.acknowledged, self.lost, self.log
        )
    }
}
