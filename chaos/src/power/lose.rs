//! The power is cut where the log is not synced before it acknowledges: what is lost, what Hansard says, and
//! whether what an operator is told to do then helps.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use forgetful_disk::Loss;
use hansard_tests::{Service, Stack, run_prepared};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep};
use xtask::process::{POLL, Supervised};

use crate::checker::check;
use crate::evidence::Evidence;
use crate::history::Recorder;
use crate::living::Living;
use crate::power::keep::{acknowledged, found, lost};
use crate::power::machine::{Machine, disk};
use crate::power::{Settings, up_to};
use crate::record;

/// How long people are at work before everything is written back, and again until the power is cut, at most.
const LONGEST_WORK: Duration = Duration::from_secs(5);
/// How long nats-server may take to be ready.
const SERVER: Duration = Duration::from_secs(15);
/// How long Hansard may take until it has ended, or is ready.
const START: Duration = Duration::from_secs(60);
/// How long an operator's command may take.
const COMMAND: Duration = Duration::from_secs(120);
/// What Hansard says at its start.
const WARNING: &str = "MAY LOSE ACKNOWLEDGED EVENTS IN A POWER LOSS";

/// What it says of events whose keys are lost.
const KEYS_LOST: &str = "which is not in the key store";

/// What one power loss took.
#[derive(Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Whether everything had been written back once before; else the whole of nats-server's files was new.
    pub written_back: bool,
    /// How many commands had been acknowledged.
    pub acknowledged: usize,
    /// How many of them are not in the log as they were acknowledged; `None`: it could not be read.
    pub lost: Option<usize>,
    /// What is wrong with the log as such, if it can't be used.
    pub log: Option<String>,
    /// The error with which Hansard stopped; `None`: it was ready.
    pub stopped: Option<String>,
    /// Whether an operator who accepts the loss can go on with what is left; not without the keys.
    pub put_right: bool,
    /// What is not as it is said to be.
    pub wrong: Vec<String>,
}

/// Runs once; says what it does as it goes.
///
/// # Errors
/// The harness can't do its work; that says nothing of Hansard.
///
/// # Panics
/// As [`run_prepared`], and when mongod can't be started again.
pub fn run(settings: &Settings, written_back: bool) -> anyhow::Result<Outcome> {
    std::fs::create_dir_all(&settings.directory)
        .with_context(|| format!("{} can't be made", settings.directory.display()))?;
    let disk = disk(settings.names)?;
    let mut outcome = None;
    run_prepared(settings.options(disk.path()), async |mut stack: Stack| {
        stack.leave_unverified("the log has lost what was projected");
        let machine = Machine { stack, disk };
        outcome = Some(lose(settings, machine, written_back).await);
    });
    outcome.context("this stack is left out (HANSARD_TEST_EMBEDDED_ONLY)")?
}

async fn lose(
    settings: &Settings,
    mut machine: Machine,
    written_back: bool,
) -> anyhow::Result<Outcome> {
    let mut random = StdRng::seed_from_u64(settings.seed);
    machine.begin().await;
    machine.ready().await.map_err(anyhow::Error::msg)?;
    let mut wrong = Vec::new();
    if !machine.stack.output(Service::CommandApi).contains(WARNING) {
        wrong.push("Hansard did not warn".to_owned());
    }
    wrong.extend(insists(settings, &machine.stack)?);

    let mut evidence = Evidence {
        operations: work(settings, &mut machine, written_back, &mut random).await?,
        ..Evidence::default()
    };
    for service in [Service::Nats, Service::Mongod] {
        machine.stack.spawn(service).await;
    }
    let end = Instant::now() + SERVER;
    while !machine.stack.is_ready(Service::Nats).await && Instant::now() < end {
        sleep(POLL).await;
    }
    let log = match machine.stack.is_ready(Service::Nats).await {
        false => Some("nats-server can't recover it".to_owned()),
        true => match record::read(&machine.stack).await {
            Ok(log) => {
                evidence.log = log;
                None
            }
            Err(error) => Some(format!("{error:#}")),
        },
    };
    evidence.write(&settings.directory)?;
    let mut outcome = Outcome {
        seed: settings.seed,
        written_back,
        acknowledged: acknowledged(&evidence),
        lost: log.is_none().then(|| lost(&check(&evidence))),
        log,
        stopped: start(&mut machine).await,
        put_right: false,
        wrong,
    };
    let failures = put_right(settings, &mut machine).await?;
    outcome.put_right = failures.is_empty();
    if !failures.iter().any(|it| it.contains(KEYS_LOST)) {
        outcome.wrong.extend(failures);
    }
    Ok(outcome)
}

/// Lets people work until the power is cut; gives what they did.
async fn work(
    settings: &Settings,
    machine: &mut Machine,
    written_back: bool,
    random: &mut StdRng,
) -> anyhow::Result<Vec<crate::history::Operation>> {
    let recorder = Arc::new(Recorder::create(&settings.directory.join("history.jsonl"))?);
    let town = found(&machine.stack, &recorder, random).await?;
    let living = Living::begin(town, &recorder);
    sleep(up_to(LONGEST_WORK, random)).await;
    if written_back {
        machine.disk.sync_everything();
    }
    sleep(up_to(LONGEST_WORK, random)).await;
    machine.cut_power(&mut Loss::of_seed(random.random()))?;
    drop(living.into_streams());
    Ok(recorder.finish())
}

/// Whether Hansard refuses to start with `--require-sync`; what it does instead.
fn insists(settings: &Settings, stack: &Stack) -> anyhow::Result<Option<String>> {
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--require-sync"];
    let output = settings.directory.join("require-sync.log");
    let mut serve = Supervised::start(stack.operation(&arguments), &output)?;
    let ended = block_in_place(|| serve.wait(START));
    let refused = ended.is_some_and(|it| !it.success());
    let says_why = serve.output().contains("require_sync is set");
    Ok((!refused || !says_why).then(|| format!("--require-sync: {ended:?}, {}", serve.output())))
}

/// Starts Hansard; gives the error with which it stops, `None` when it is ready.
async fn start(machine: &mut Machine) -> Option<String> {
    let stack = &mut machine.stack;
    let before = stack.output(Service::CommandApi).len();
    stack.spawn(Service::CommandApi).await;
    let end = Instant::now() + START;
    while stack.runs(Service::CommandApi) {
        if stack.is_ready(Service::CommandApi).await {
            return None;
        }
        if Instant::now() > end {
            return Some("it is not ready, and does not stop".to_owned());
        }
        sleep(POLL).await;
    }
    let output = stack.output(Service::CommandApi);
    let said = output.get(before..).unwrap_or_default().lines();
    let error = said.rev().find_map(|line| line.strip_prefix("hansard: "));
    Some(error.unwrap_or("it stopped without a word").to_owned())
}

/// Does what the documentation tells operators to do who accept the loss; says what fails.
async fn put_right(settings: &Settings, machine: &mut Machine) -> anyhow::Result<Vec<String>> {
    let mut failures = Vec::new();
    for arguments in [&["rebuild"][..], &["tree", "begin-anew"]] {
        failures.extend(command(settings, &machine.stack, arguments)?);
    }
    if let Some(error) = start(machine).await {
        failures.push(format!("Hansard does not start: {error}"));
    }
    for arguments in [["verify", "read-models"], ["verify", "log"]] {
        failures.extend(command(settings, &machine.stack, &arguments)?);
    }
    Ok(failures)
}

/// Runs `hansard` to its end; what is wrong if it does not succeed.
fn command(
    settings: &Settings,
    stack: &Stack,
    arguments: &[&str],
) -> anyhow::Result<Option<String>> {
    let output = settings.directory.join("commands.log");
    let before = xtask::process::read_lossily(&output).len();
    let mut running = Supervised::start(stack.operation(arguments), &output)?;
    let ended = block_in_place(|| running.wait(COMMAND));
    let said = running.output().split_off(before);
    let name = arguments.join(" ");
    Ok(match ended {
        Some(status) if status.success() => None,
        Some(status) => Some(format!("hansard {name}: {status}: {said}")),
        None => Some(format!("hansard {name} does not end: {said}")),
    })
}

impl Outcome {
    /// The heading of the table that outcomes are rows of.
    pub const HEADING: &str = "| seed | written back before | acknowledged | lost | the log | Hansard | put right by `rebuild` and `tree begin-anew` |\n|---|---|---|---|---|---|---|";
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let yes = |it| if it { "yes" } else { "no" };
        write!(
            formatter,
            "| {} | {} | {} | {} | {} | {} | {} |",
            self.seed,
            yes(self.written_back),
            self.acknowledged,
            match self.lost {
                Some(lost) => lost.to_string(),
                None => "can't be counted".to_owned(),
            },
            self.log.as_deref().unwrap_or("can be read"),
            self.stopped.as_deref().unwrap_or("starts"),
            yes(self.put_right)
        )
    }
}
