//! The load generator: many clients that send requests, in a closed or an open loop, and how long the answers
//! take, from the moment at which a request had to be sent. So a server that stalls is charged for all the
//! requests that had to wait, not just for those that it was given (no coordinated omission).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::arrivals::{Arrivals, Pace};

/// Latencies are kept with so many significant digits.
const DIGITS: u8 = 3;

/// One of those who send requests, one at a time.
pub trait Client: Send + 'static {
    /// Sends the next request and waits for the whole answer.
    fn request(&mut self) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// How long a load lasts.
#[derive(Debug, Clone, Copy)]
pub struct Length {
    /// What comes first is not counted.
    pub warm_up: Duration,
    /// What is.
    pub measured: Duration,
}

/// What became of a load.
#[derive(Debug)]
pub struct Load {
    /// How long the answers took, in nanoseconds from the moment at which each request had to be sent.
    latencies: Histogram<u64>,
    /// From the end of the warm-up to the last answer.
    taken: Duration,
    /// Requests that were answered, those of the warm-up included.
    pub requests: u64,
}

impl Load {
    /// Requests that were answered, a second.
    pub fn per_second(&self) -> f64 {
        #[allow(clippy::cast_precision_loss)]
        let answered = self.latencies.len() as f64;
        answered / self.taken.as_secs_f64()
    }

    /// What so many of 100 answers took at most, in microseconds.
    pub fn percentile(&self, percent: f64) -> f64 {
        #[allow(clippy::cast_precision_loss)]
        let nanoseconds = self.latencies.value_at_percentile(percent) as f64;
        nanoseconds / 1e3
    }
}

/// What the clients share.
#[derive(Debug)]
struct Shared {
    arrivals: Arrivals,
    /// What had to be sent before is not counted.
    counted_from: Instant,
    counted: Mutex<Counted>,
}

#[derive(Debug)]
struct Counted {
    latencies: Histogram<u64>,
    requests: u64,
}

/// Has the clients send requests, all at once.
///
/// # Errors
/// A request fails: what is not served is no load.
pub async fn run<C: Client>(clients: Vec<C>, pace: Pace, length: Length) -> anyhow::Result<Load> {
    let begin = Instant::now();
    let counted_from = begin + length.warm_up;
    let shared = Arc::new(Shared {
        arrivals: Arrivals::new(pace, begin, counted_from + length.measured),
        counted_from,
        counted: Mutex::new(Counted {
            latencies: Histogram::new(DIGITS)?,
            requests: 0,
        }),
    });
    let mut running: JoinSet<anyhow::Result<()>> = clients
        .into_iter()
        .map(|client| send(client, Arc::clone(&shared)))
        .collect();
    while let Some(ended) = running.join_next().await {
        ended?.context("a request failed")?;
    }
    let taken = counted_from.elapsed();
    let shared = Arc::into_inner(shared).context("a client is still at work")?;
    let counted = shared.counted.into_inner();
    let Counted {
        latencies,
        requests,
    } = counted.unwrap_or_else(PoisonError::into_inner);
    Ok(Load {
        latencies,
        taken,
        requests,
    })
}

async fn send<C: Client>(mut client: C, shared: Arc<Shared>) -> anyhow::Result<()> {
    while let Some(due) = shared.arrivals.next().await {
        client.request().await?;
        let latency = u64::try_from(due.elapsed().as_nanos())?;
        let mut counted = shared
            .counted
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        counted.requests += 1;
        if due >= shared.counted_from {
            counted.latencies.record(latency)?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const LENGTH: Length = Length {
        warm_up: Duration::ZERO,
        measured: Duration::from_millis(200),
    };
    const STALL: Duration = Duration::from_millis(150);

    /// A server that answers at once, but for the first request.
    struct Stalling {
        for_first: Duration,
    }

    impl Client for Stalling {
        async fn request(&mut self) -> anyhow::Result<()> {
            tokio::time::sleep(std::mem::take(&mut self.for_first)).await;
            Ok(())
        }
    }

    fn stalling() -> Vec<Stalling> {
        vec![Stalling { for_first: STALL }]
    }

    #[tokio::test]
    async fn all_that_had_to_be_sent_during_a_stall_is_charged_for_it() {
        let pace = Pace::Open {
            per_second: 1_000.0,
        };

        let load = run(stalling(), pace, LENGTH).await.unwrap();

        // About 200 were due, about 150 of them during the stall, each of which waited for the rest of it. On a
        // slow machine they take longer still.
        assert!(load.requests > 150, "{}", load.requests);
        assert_eq!(load.latencies.len(), load.requests);
        let waited = load.latencies.count_between(50_000_000, u64::MAX);
        assert!(waited > 70, "{waited}");
    }

    #[tokio::test]
    async fn a_closed_loop_sends_nothing_during_a_stall() {
        let load = run(stalling(), Pace::Closed, LENGTH).await.unwrap();

        assert!(load.percentile(100.0) >= 150_000.0);
        assert!(load.requests > 1);
    }

    #[tokio::test]
    async fn the_warm_up_is_not_counted() {
        let length = Length {
            warm_up: STALL,
            ..LENGTH
        };

        let load = run(stalling(), Pace::Closed, length).await.unwrap();

        // The stalled request was sent first.
        assert!(load.latencies.len() < load.requests);
    }

    #[tokio::test]
    async fn what_is_refused_is_no_load() {
        struct Refused;
        impl Client for Refused {
            async fn request(&mut self) -> anyhow::Result<()> {
                anyhow::bail!("503")
            }
        }

        let error = run(vec![Refused], Pace::Closed, LENGTH).await.unwrap_err();

        assert_eq!(format!("{error:#}"), "a request failed: 503");
    }
}
