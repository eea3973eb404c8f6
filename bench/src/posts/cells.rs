//! What is measured in a closed loop, run by run: each kind of work on each server.

use anyhow::Context;
use serde::Serialize;

use crate::arrivals::Pace;
use crate::cpu;
use crate::figure::Figure;
use crate::load::{self, Client, Length, Load};
use crate::posts::stack::{Kind, Page, Stack};

/// What is asked of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// Posts, answered when they are durable and can be read.
    Posts,
    /// Posts, answered when they are durable: `Prefer: respond-async`.
    AsyncPosts,
    /// Acknowledged writes to the log's engine itself, as large as posts are there.
    Bare,
    /// Pages of `GET /room`.
    Rooms,
    /// Pages of `GET /room/:id`.
    Messages,
}

/// One kind of work on one server, by so many clients at once.
#[derive(Debug)]
pub struct Cell {
    kind: Kind,
    work: Work,
    at_once: usize,
    samples: Vec<Sample>,
}

/// What one run measured. Times are in microseconds.
#[derive(Debug)]
struct Sample {
    per_second: f64,
    p50: f64,
    p99: f64,
    /// Processor time for each request, of Hansard and of the engines; `None` where it is not known.
    processor: Option<[f64; 2]>,
    /// That of the generator.
    generator: f64,
}

/// What all runs measured. Times are in microseconds.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// On which server.
    pub kind: Kind,
    /// What becomes there of an acknowledged post when the power fails.
    pub durability: &'static str,
    /// What was asked.
    pub work: Work,
    /// How many clients asked at once.
    pub at_once: usize,
    /// Answers a second.
    pub per_second: Figure,
    /// How long half of them took at most.
    pub p50: Figure,
    /// How long 99 of 100 took at most.
    pub p99: Figure,
    /// Processor time for each, of the server.
    pub hansard_processor: Option<Figure>,
    /// Of the engines beneath it.
    pub engines_processor: Option<Figure>,
    /// Of the generator; with SQLite's bare log that of the log too.
    pub generator_processor: Figure,
}

impl Cell {
    /// Nothing is measured yet.
    pub fn new(kind: Kind, work: Work, at_once: usize) -> Self {
        Self {
            kind,
            work,
            at_once,
            samples: Vec::new(),
        }
    }

    /// Measures once.
    ///
    /// # Errors
    /// The server fails or refuses.
    pub async fn measure(&mut self, stacks: &[Stack], length: Length) -> anyhow::Result<()> {
        let stack = Stack::of_kind(stacks, self.kind)?;
        let before = stack.used()?;
        let generator_before = cpu::used(std::process::id())?;
        let load = self.load(stack, length).await;
        let load = load.with_context(|| format!("{:?} on {}", self.work, self.kind.name()))?;
        // What is still to be projected is part of the work.
        if matches!(self.work, Work::Posts | Work::AsyncPosts) {
            stack.settled().await?;
        }
        #[allow(clippy::cast_precision_loss)]
        let each = |time: std::time::Duration| time.as_secs_f64() * 1e6 / load.requests as f64;
        let processor = before.zip(stack.used()?).map(|(before, after)| {
            [
                each(after.hansard - before.hansard),
                each(after.engines - before.engines),
            ]
        });
        let sample = Sample {
            per_second: load.per_second(),
            p50: load.percentile(50.0),
            p99: load.percentile(99.0),
            processor,
            generator: each(cpu::used(std::process::id())? - generator_before),
        };
        eprintln!(
            "{}, {:?}, {} at once: {sample:.0?}",
            self.kind.name(),
            self.work,
            self.at_once
        );
        self.samples.push(sample);
        Ok(())
    }

    async fn load(&self, stack: &Stack, length: Length) -> anyhow::Result<Load> {
        let count = self.at_once;
        match self.work {
            Work::Posts => closed(stack.posting(count, false).await?, length).await,
            Work::AsyncPosts => closed(stack.posting(count, true).await?, length).await,
            Work::Rooms => closed(stack.reading(count, Page::Rooms).await?, length).await,
            Work::Messages => closed(stack.reading(count, Page::Messages).await?, length).await,
            Work::Bare => {
                let engine = stack.engine.as_ref();
                let engine = engine.context("its engine is not known")?;
                closed(engine.clients(count, stack.event_bytes), length).await
            }
        }
    }

    /// What all runs measured.
    pub fn measured(&self) -> Measured {
        let figure = |of: fn(&Sample) -> f64| Figure::of(self.samples.iter().map(of).collect());
        let processor = |which: usize| {
            let samples = self.samples.iter();
            let known: Option<Vec<f64>> = samples
                .map(|sample| Some(sample.processor?[which]))
                .collect();
            known.map(Figure::of)
        };
        Measured {
            kind: self.kind,
            durability: self.kind.durability(),
            work: self.work,
            at_once: self.at_once,
            per_second: figure(|sample| sample.per_second),
            p50: figure(|sample| sample.p50),
            p99: figure(|sample| sample.p99),
            hansard_processor: processor(0),
            engines_processor: processor(1),
            generator_processor: figure(|sample| sample.generator),
        }
    }
}

async fn closed<C: Client>(clients: Vec<C>, length: Length) -> anyhow::Result<Load> {
    load::run(clients, Pace::Closed, length).await
}
