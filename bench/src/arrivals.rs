//! When requests are sent.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Mutex;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

/// The runtime's timer is good to a millisecond, so the rest is waited for awake.
const AWAKE: Duration = Duration::from_millis(2);

/// Who decides when the next request is sent.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// The server: each connection sends its next request when it has the answer to the last one (a closed
    /// loop). It measures how much a server can take.
    Closed,
    /// The world: requests come so many a second, on average, whatever became of those before (an open loop).
    /// It measures what clients see, stalls included.
    Open {
        /// How many.
        per_second: f64,
    },
}

/// The moments at which requests have to be sent; shared by all connections.
#[derive(Debug)]
pub enum Arrivals {
    /// At once, until then.
    AtOnce(Instant),
    /// As they are scheduled.
    Scheduled(Box<Mutex<Schedule>>),
}

impl Arrivals {
    /// From `begin` to `end`.
    pub fn new(pace: Pace, begin: Instant, end: Instant) -> Self {
        match pace {
            Pace::Closed => Self::AtOnce(end),
            Pace::Open { per_second } => {
                let schedule = Schedule::new(per_second, begin, end);
                Self::Scheduled(Box::new(Mutex::new(schedule)))
            }
        }
    }

    /// Waits for the next moment at which a request has to be sent, and tells it: it has passed already where no
    /// connection was free. `None` at the end.
    pub async fn next(&self) -> Option<Instant> {
        match self {
            Self::AtOnce(end) => {
                let now = Instant::now();
                (now < *end).then_some(now)
            }
            Self::Scheduled(schedule) => {
                // One connection waits for the moment, the other free ones for the lock.
                let mut schedule = schedule.lock().await;
                let moment = schedule.next()?;
                until(moment).await;
                Some(moment)
            }
        }
    }
}

async fn until(moment: Instant) {
    if let Some(asleep) = moment.checked_sub(AWAKE)
        && asleep > Instant::now()
    {
        sleep_until(asleep).await;
    }
    while Instant::now() < moment {
        yield_now().await;
    }
}

/// Moments as independent clients make them (a Poisson process): the pauses between them are distributed
/// exponentially. The same every time.
#[derive(Debug)]
pub struct Schedule {
    per_second: f64,
    last: Instant,
    end: Instant,
    random: StdRng,
}

impl Schedule {
    fn new(per_second: f64, begin: Instant, end: Instant) -> Self {
        Self {
            per_second,
            last: begin,
            end,
            random: StdRng::seed_from_u64(1),
        }
    }
}

impl Iterator for Schedule {
    type Item = Instant;

    fn next(&mut self) -> Option<Instant> {
        // In (0, 1], which has a logarithm.
        let uniform = 1.0 - self.random.random::<f64>();
        let pause = Duration::try_from_secs_f64(-uniform.ln() / self.per_second).ok()?;
        self.last = self.last.checked_add(pause)?;
        (self.last < self.end).then_some(self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_has_so_many_moments_a_second_in_order() {
        let begin = Instant::now();
        let end = begin + Duration::from_secs(10);

        let moments: Vec<Instant> = Schedule::new(1_000.0, begin, end).collect();

        // The standard deviation is 100.
        assert!(moments.len().abs_diff(10_000) < 400, "{}", moments.len());
        assert!(moments.is_sorted());
        assert!(moments.iter().all(|moment| (begin..end).contains(moment)));
    }

    #[test]
    fn pauses_differ_as_those_of_independent_clients_do() {
        let begin = Instant::now();
        let moments: Vec<Instant> =
            Schedule::new(1_000.0, begin, begin + Duration::from_secs(10)).collect();

        let long = moments
            .windows(2)
            .filter(|pair| pair[1] - pair[0] > Duration::from_millis(1))
            .count();

        // 1/e of them are longer than the mean.
        assert!(long.abs_diff(3_679) < 200, "{long}");
    }

    #[tokio::test]
    async fn a_moment_that_has_passed_is_told_as_it_was_scheduled() {
        let begin = Instant::now();
        let end = begin + Duration::from_millis(20);
        let scheduled: Vec<Instant> = Schedule::new(1_000.0, begin, end).collect();
        let arrivals = Arrivals::new(
            Pace::Open {
                per_second: 1_000.0,
            },
            begin,
            end,
        );

        tokio::time::sleep_until(end).await;

        for moment in scheduled {
            assert_eq!(arrivals.next().await, Some(moment));
        }
        assert_eq!(arrivals.next().await, None);
    }
}
