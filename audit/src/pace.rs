//! The pace of a replay that is watched: that at which things happened, or a multiple of it.

use std::str::FromStr;
use std::time::Duration;

use events::Timestamp;

/// The longest pause: nobody wants to watch a night.
const LONGEST: Duration = Duration::from_secs(5);

/// How many times as fast as it happened.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed(f64);

/// The text is no speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a speed: expected a number above 0, for example 1 for real time or 60 for a minute a second"
)]
pub struct InvalidSpeed;

impl FromStr for Speed {
    type Err = InvalidSpeed;

    fn from_str(text: &str) -> Result<Self, InvalidSpeed> {
        let factor: f64 = text.parse().map_err(|_| InvalidSpeed)?;
        let is_possible = factor.is_finite() && factor > 0.0;
        is_possible.then_some(Self(factor)).ok_or(InvalidSpeed)
    }
}

/// How long to wait before each event.
pub(crate) struct Pace {
    speed: Speed,
    last: Option<Timestamp>,
}

impl Pace {
    pub(crate) fn new(speed: Speed) -> Self {
        Self { speed, last: None }
    }

    /// How long to wait before the event that was stored at this time.
    pub(crate) fn pause(&mut self, at: Timestamp) -> Duration {
        let Some(last) = self.last.replace(at) else {
            return Duration::ZERO;
        };
        // Clocks jump back as well, and then there is nothing to wait for.
        let milliseconds = at.as_millis().saturating_sub(last.as_millis()).max(0);
        let seconds = milliseconds as f64 / 1000.0 / self.speed.0;
        Duration::try_from_secs_f64(seconds).map_or(LONGEST, |pause| pause.min(LONGEST))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_those_between_the_times_stored_but_none_is_long_or_backwards() {
        let mut pace = Pace::new("2".parse().unwrap());
        for (at, milliseconds) in [
            ("2026-11-22T17:00:00Z", 0),
            ("2026-11-22T17:00:01.5Z", 750),
            ("2026-11-22T17:00:01.5Z", 0),
            ("2026-11-22T16:00:00Z", 0),
            ("2026-11-22T16:00:08Z", 4_000),
            ("2026-11-23T16:00:08Z", 5_000),
        ] {
            let pause = pace.pause(at.parse().unwrap());
            assert_eq!(pause, Duration::from_millis(milliseconds), "{at}");
        }
        let mut slowest = Pace::new("1e-300".parse().unwrap());
        slowest.pause("0001-01-01T00:00:00Z".parse().unwrap());
        let pause = slowest.pause("9999-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(pause, LONGEST);
    }

    #[test]
    fn a_speed_is_a_number_above_0() {
        for wrong in ["", "0", "-1", "inf", "NaN", "fast", "1x"] {
            assert_eq!(wrong.parse::<Speed>(), Err(InvalidSpeed), "{wrong}");
        }
    }
}
