//! How long posts take at a load that does not wait for them.

use serde::Serialize;

use crate::arrivals::Pace;
use crate::figure::Figure;
use crate::load::{self, Length};
use crate::posts::stack::{Kind, Stack};

/// The percentiles that are told.
pub const PERCENTILES: [f64; 4] = [50.0, 90.0, 99.0, 99.9];

/// A load of posts on one server.
#[derive(Debug)]
pub struct Offered {
    kind: Kind,
    percent: u32,
    per_second: f64,
    /// Of each run the [`PERCENTILES`], in microseconds.
    runs: Vec<[f64; 4]>,
}

/// What it led to.
#[derive(Debug, Serialize)]
pub struct Latencies {
    /// On which server.
    pub kind: Kind,
    /// The load in percent of what the server can take.
    pub percent: u32,
    /// Posts that were due, a second.
    pub per_second: f64,
    /// The [`PERCENTILES`], in microseconds from the moment at which a post was due until it was answered: durable
    /// and readable.
    pub latencies: [Figure; 4],
}

impl Offered {
    /// So many percent of `capacity`, which is in posts a second.
    pub fn new(kind: Kind, percent: u32, capacity: f64) -> Self {
        Self {
            kind,
            percent,
            per_second: capacity * f64::from(percent) / 100.0,
            runs: Vec::new(),
        }
    }

    /// Measures once, with so many connections: a post that finds none free waits for one, and that counts.
    ///
    /// # Errors
    /// The server fails or refuses.
    pub async fn measure(
        &mut self,
        stacks: &[Stack],
        connections: usize,
        length: Length,
    ) -> anyhow::Result<()> {
        let stack = Stack::of_kind(stacks, self.kind)?;
        let clients = stack.posting(connections, false).await?;
        let pace = Pace::Open {
            per_second: self.per_second,
        };
        let load = load::run(clients, pace, length).await?;
        stack.settled().await?;
        let percentiles = PERCENTILES.map(|percentile| load.percentile(percentile));
        eprintln!(
            "{}, {:.0} posts/s offered: {percentiles:.0?}",
            self.kind.name(),
            self.per_second
        );
        self.runs.push(percentiles);
        Ok(())
    }

    /// What all runs measured.
    pub fn latencies(&self) -> Latencies {
        let figure = |which: usize| Figure::of(self.runs.iter().map(|run| run[which]).collect());
        Latencies {
            kind: self.kind,
            percent: self.percent,
            per_second: self.per_second,
            latencies: [figure(0), figure(1), figure(2), figure(3)],
        }
    }
}
