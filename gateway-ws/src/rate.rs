//! How often a client may do something: a token bucket.

use tokio::time::Instant;

/// What is left of an allowance that refills with time.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    per_second: f64,
    burst: f64,
    left: f64,
    at: Instant,
}

impl Allowance {
    /// So many at once, and so many a second in the long run.
    pub fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        Self {
            per_second: f64::from(per_second),
            burst: f64::from(burst),
            left: f64::from(burst),
            at: now,
        }
    }

    /// Takes one; `false` when there is none left.
    pub fn take(&mut self, now: Instant) -> bool {
        let elapsed = now.duration_since(self.at).as_secs_f64();
        self.at = now;
        self.left = (self.left + elapsed * self.per_second).min(self.burst);
        let allowed = self.left >= 1.0;
        if allowed {
            self.left -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_refills_up_to_its_burst() {
        let begun = Instant::now();
        let mut allowance = Allowance::new(2, 3, begun);
        let mut taken = |after: Duration| {
            let now = begun + after;
            std::iter::repeat_with(|| allowance.take(now))
                .take_while(|allowed| *allowed)
                .count()
        };
        assert_eq!(taken(Duration::ZERO), 3);
        assert_eq!(taken(Duration::from_millis(400)), 0);
        assert_eq!(taken(Duration::from_millis(600)), 1);
        assert_eq!(taken(Duration::from_secs(600)), 3);
    }
}
