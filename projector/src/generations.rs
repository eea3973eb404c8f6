//! The generations of the read models: each that is to be written is led by this projector or watched for
//! its turn, and those that nobody needs any more are removed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use read_models::{Generation, Generations, ReadModelError, State};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::hand_over::hand_over;
use crate::lead::lead;
use crate::project::{Ended, Work, project};
use crate::rebuild::build;
use crate::retention::keep;
use crate::waited_for::WaitedFor;
use crate::{Options, ProjectorError, Status, backoff};

/// How often the catalogue is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Sees to all generations until `shutdown`.
///
/// # Errors
/// What can't be waited out.
pub(crate) async fn tend(
    options: Options,
    shutdown: CancellationToken,
) -> Result<(), ProjectorError> {
    options.status.waiting("the read models");
    let catalogue = Arc::clone(&options.catalogue);
    let prepared = backoff::wait_for("the read models", &shutdown, || catalogue.prepare()).await;
    if prepared.map_err(ProjectorError::ReadModels)?.is_none() {
        return Ok(());
    }
    let mut tending = Tending {
        waited_for: WaitedFor::new(options.progress.clone()),
        options,
        running: HashMap::new(),
        unused_since: HashMap::new(),
    };
    let mut outcome = Ok(());
    while !shutdown.is_cancelled() {
        match tending.look(&shutdown).await {
            Ok(()) => {}
            Err(ReadModelError::Unavailable(reason)) => {
                tracing::debug!(reason, "the catalogue of generations can't be read");
            }
            Err(error) => {
                outcome = Err(ProjectorError::ReadModels(error));
                break;
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = sleep(LOOK) => {}
            ended = tending.any_ended() => {
                outcome = ended;
                if outcome.is_err() {
                    break;
                }
            }
        }
    }
    // Also when one of them has failed.
    let ended = tending.stop().await;
    outcome.and(ended)
}

struct Tending {
    options: Options,
    waited_for: WaitedFor,
    /// The generations that are led or watched, by number.
    running: HashMap<u32, Running>,
    /// Since when the generations that are to be removed have been seen to be unused.
    unused_since: HashMap<u32, (Option<u64>, Instant)>,
}

struct Running {
    stop: CancellationToken,
    /// Stops it also when nobody sees to it any more.
    _stop_at_the_end: DropGuard,
    task: JoinHandle<Result<(), ProjectorError>>,
}

impl Tending {
    async fn look(&mut self, shutdown: &CancellationToken) -> Result<(), ReadModelError> {
        let catalogue = Arc::clone(&self.options.catalogue);
        let schema = catalogue.schema();
        let mut generations = catalogue.generations().await?;
        if self.options.only.is_none()
            && let Some(state) = missing(&generations, schema)
        {
            // If another projector was faster, its generation will do.
            catalogue.add(generations.last, state).await?;
            generations = catalogue.generations().await?;
        }
        let written: Vec<&Generation> = generations
            .of(schema)
            .filter(|it| it.state.is_written())
            .filter(|it| self.options.only.is_none_or(|only| it.number == only))
            .collect();
        if let Some(served) = generations.live(schema).or(written.last().copied()) {
            self.options.status.serve(served.number);
        }
        let waited_for: Vec<u32> = written
            .iter()
            .filter(|it| it.state.is_waited_for())
            .map(|it| it.number)
            .collect();
        self.waited_for.set(&waited_for);
        for (number, running) in &self.running {
            if written.iter().all(|it| it.number != *number) {
                running.stop.cancel();
            }
        }
        for generation in written {
            if !self.running.contains_key(&generation.number) {
                let running = self.start(generation.number, shutdown);
                self.running.insert(generation.number, running);
            }
        }
        match self.options.only {
            Some(_) => Ok(()),
            None => self.remove_unused(&generations).await,
        }
    }

    fn start(&self, number: u32, shutdown: &CancellationToken) -> Running {
        let stop = shutdown.child_token();
        let tended = Tended {
            number,
            status: self.options.status.of(number),
            options: self.options.clone(),
            waited_for: self.waited_for.clone(),
        };
        let task = tokio::spawn(tended.tend(stop.clone()));
        Running {
            _stop_at_the_end: stop.clone().drop_guard(),
            stop,
            task,
        }
    }

    /// Waits until one has ended by itself.
    async fn any_ended(&mut self) -> Result<(), ProjectorError> {
        if self.running.is_empty() {
            return std::future::pending().await;
        }
        let tasks = self.running.values_mut().map(|running| &mut running.task);
        let (ended, _, _) = futures::future::select_all(tasks).await;
        self.running
            .retain(|_, running| !running.task.is_finished());
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    async fn stop(self) -> Result<(), ProjectorError> {
        let mut outcome = Ok(());
        for running in self.running.values() {
            running.stop.cancel();
        }
        for running in self.running.into_values() {
            let ended = running.task.await;
            outcome = outcome
                .and(ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())));
        }
        outcome
    }

    /// Removes what has not been used for some time: generations that were given up, and those of older
    /// schemas once there is one of this program's, and no older program is at work on them.
    async fn remove_unused(&mut self, generations: &Generations) -> Result<(), ReadModelError> {
        let catalogue = Arc::clone(&self.options.catalogue);
        let schema = catalogue.schema();
        let is_served = generations.live(schema).is_some();
        let unused = |it: &&Generation| match it.state {
            State::Retired => true,
            // It stays for those who want to know why, until there is a better one.
            State::Rejected => generations
                .of(schema)
                .any(|other| other.number > it.number && other.state == State::Live),
            State::Building | State::Joining | State::Live => is_served && it.schema < schema,
        };
        let unused: Vec<&Generation> = generations.all.iter().filter(unused).collect();
        self.unused_since
            .retain(|number, _| unused.iter().any(|it| it.number == *number));
        for generation in unused {
            let number = generation.number;
            let heartbeat = catalogue.heartbeat(number).await?;
            let now = Instant::now();
            let (before, since) = *self.unused_since.entry(number).or_insert((heartbeat, now));
            if before != heartbeat {
                self.unused_since.insert(number, (heartbeat, now));
            } else if now - since >= self.options.grace {
                catalogue.remove(number).await?;
                tracing::info!(generation = number, "the generation is removed");
            }
        }
        Ok(())
    }
}

/// In which state a generation is to be added, if one is missing.
fn missing(generations: &Generations, schema: u32) -> Option<State> {
    if generations.all.is_empty() {
        // There is nothing else to read: it is filled while it is read.
        return Some(State::Live);
    }
    let is_there = |it: &Generation| it.state.is_written() || it.state == State::Rejected;
    match generations.of(schema).any(is_there) {
        true => None,
        // Those of another schema are read by other programs until this one is complete.
        false => Some(State::Building),
    }
}

/// A generation that is led, or watched for its turn.
struct Tended {
    number: u32,
    status: Status,
    options: Options,
    waited_for: WaitedFor,
}

impl Tended {
    async fn tend(self, stop: CancellationToken) -> Result<(), ProjectorError> {
        let what = "the read models";
        self.status.waiting(what);
        let catalogue = &self.options.catalogue;
        let opened = backoff::wait_for(what, &stop, || catalogue.open(self.number)).await;
        let Some(projection) = opened.map_err(ProjectorError::ReadModels)? else {
            return Ok(());
        };
        let prepared = backoff::wait_for(what, &stop, || projection.prepare()).await;
        if prepared.map_err(ProjectorError::ReadModels)?.is_none() {
            return Ok(());
        }
        let name = &self.options.name;
        // Once overtaken, whoever has the same name is another one.
        let mut own_last_run = Some(name.as_str());
        loop {
            let projection = Arc::clone(&projection);
            let own = own_last_run.take();
            let led = lead(self.number, projection, name, own, &stop, &self.status).await?;
            let Some(led) = led else {
                return Ok(());
            };
            let told = self.waited_for.of(self.number);
            let work = Work {
                record: self.options.record.clone(),
                led: led.clone(),
                status: self.status.clone(),
                told: told.clone(),
                drain: self.options.drain,
            };
            let ended = self.work(work, &stop).await;
            told.lose();
            match ended? {
                Ended::Overtaken => {
                    tracing::warn!(
                        generation = self.number,
                        "another projector has taken over; standing by"
                    );
                }
                Ended::Stopped | Ended::Done => {
                    led.release().await;
                    return Ok(());
                }
            }
        }
    }

    /// What is to be done for a generation that is led.
    async fn work(&self, work: Work, stop: &CancellationToken) -> Result<Ended, ProjectorError> {
        let catalogue = &self.options.catalogue;
        let number = self.number;
        let look = || catalogue.generations();
        let found = backoff::wait_for("the read models", stop, look).await;
        let Some(found) = found.map_err(ProjectorError::ReadModels)? else {
            return Ok(Ended::Stopped);
        };
        if found.get(number).map(|it| it.state) == Some(State::Building) {
            match build(&work, catalogue, &self.options.name, stop).await {
                Ok(Ended::Done) => {}
                Ok(ended) => return Ok(ended),
                Err(error) => {
                    // Those that are read go on.
                    let why = error.to_string();
                    tracing::error!(generation = number, "rejected: {why}");
                    let (from, to) = (State::Building, State::Rejected);
                    let change = || catalogue.change(number, from, to, Some(&why));
                    let changed = backoff::wait_for("the read models", stop, change).await;
                    changed.map_err(ProjectorError::ReadModels)?;
                    return Ok(Ended::Done);
                }
            }
            // It may have been rejected: then the next look at the catalogue ends this.
        }
        // Aborted at the end.
        let mut beside = JoinSet::new();
        beside.spawn(hand_over(
            Arc::clone(catalogue),
            Arc::clone(&work.record.log),
            work.led.clone(),
        ));
        if let Some(retention) = self.options.retention.clone() {
            beside.spawn(keep(retention, work.led.clone()));
        }
        project(&work, None, stop).await
    }
}
