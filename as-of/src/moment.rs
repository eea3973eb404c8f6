//! Moments: places in the log, which can be named by a time.

use audit::Bound;
use event_log::{EventLog, Filter, LogError, Position};
use events::Timestamp;
use futures::TryStreamExt;

/// A moment of the past: everything up to and with this position has happened, and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The position of the last event that has happened.
    pub position: Position,
    /// When the log stored that event; `None` where there is none at the position.
    pub time: Option<Timestamp>,
}

/// The moment has not come yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the record ends at position {0}")]
pub struct BeyondTheEnd(pub Position);

impl Moment {
    /// The moment that is named: a position is itself, a time is the last event stored at or before it.
    ///
    /// The log's clock may have jumped back, so that a later event was stored at an earlier time. The times are
    /// taken to ascend: where they do not, there are several places at which one event was stored by then and
    /// the next one was not, and it is one of these, the same one as long as the log does not grow.
    ///
    /// # Errors
    /// [`LogError`]; and [`BeyondTheEnd`] inside, of a position that the log has not reached.
    pub async fn find(
        log: &dyn EventLog,
        bound: Bound,
    ) -> Result<Result<Self, BeyondTheEnd>, LogError> {
        let last = log.tail().await?.last;
        match bound {
            Bound::Position(position) if position > last => Ok(Err(BeyondTheEnd(last))),
            Bound::Position(position) => {
                let event = log.get(position).await?;
                let time = event.map(|event| event.stored_at);
                Ok(Ok(Self { position, time }))
            }
            Bound::Time(time) => {
                let at_or_after = |position| at_or_after(log, position);
                Ok(Ok(Self::by(time, last, at_or_after).await?))
            }
        }
    }

    /// Halves the part of the log in which the event must be, until one is left.
    async fn by<Found>(
        time: Timestamp,
        last: Position,
        at_or_after: impl Fn(Position) -> Found,
    ) -> Result<Self, LogError>
    where
        Found: Future<Output = Result<Option<(Position, Timestamp)>, LogError>>,
    {
        let mut found = Self {
            position: Position::ZERO,
            time: None,
        };
        let mut last = last.get();
        while found.position.get() < last {
            let middle = last - (last - found.position.get()) / 2;
            match at_or_after(Position::new(middle)).await? {
                Some((position, stored_at)) if position.get() <= last && stored_at <= time => {
                    found = Self {
                        position,
                        time: Some(stored_at),
                    };
                }
                _ => last = middle - 1,
            }
        }
        Ok(found)
    }
}

/// Where and when the event there was stored, or the next one where there is none.
async fn at_or_after(
    log: &dyn EventLog,
    position: Position,
) -> Result<Option<(Position, Timestamp)>, LogError> {
    let event = match log.get(position).await? {
        Some(event) => Some(event),
        None => log.read(Filter::All, position).await?.try_next().await?,
    };
    Ok(event.map(|event| (event.position, event.stored_at)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn time(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis).unwrap()
    }

    /// The place of the moment in a log that has these events: position and time.
    async fn found(events: &[(u64, i64)], by: i64) -> u64 {
        let last = events.last().map_or(0, |(position, _)| *position);
        let at_or_after = |position: Position| {
            let event = events.iter().find(|(it, _)| *it >= position.get());
            let event = event.map(|(position, at)| (Position::new(*position), time(*at)));
            std::future::ready(Ok(event))
        };
        let moment = Moment::by(time(by), Position::new(last), at_or_after).await;
        let moment = moment.unwrap();
        let position = moment.position.get();
        let event = events.iter().find(|(it, _)| *it == position);
        assert_eq!(moment.time, event.map(|(_, at)| time(*at)));
        position
    }

    #[tokio::test]
    async fn it_is_the_last_event_by_then_whatever_is_missing() {
        for gap in [1, 2, 7] {
            for count in 0..12 {
                let numbers = 1..=count;
                let events = numbers.map(|number| (number as u64 * gap, number / 3 * 10));
                let events: Vec<(u64, i64)> = events.collect();
                for by in -1..50 {
                    let by_then = events.iter().rev().find(|(_, at)| *at <= by);
                    let expected = by_then.map_or(0, |(position, _)| *position);
                    assert_eq!(found(&events, by).await, expected, "{events:?} {by}");
                }
            }
        }
    }

    #[tokio::test]
    async fn where_the_clock_jumped_back_it_is_a_place_between_by_then_and_not_yet() {
        let times = [1, 2, 9, 4, 5, 6, 3, 7, 8, 9];
        let events: Vec<(u64, i64)> = (1..).zip(times).collect();
        for by in 0..10 {
            let position = found(&events, by).await as usize;
            assert!(position == 0 || times[position - 1] <= by);
            assert!(position == times.len() || times[position] > by);
        }
    }
}
