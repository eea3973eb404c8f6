//! Moments: places in the log, which can be named by a time.

use audit::Bound;
use event_log::{EventLog, Filter, LogError, Position, Recorded};
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
            Bound::Time(time) => Ok(Ok(Self::by(log, time, last).await?)),
        }
    }

    /// Halves the part of the log in which the event must be, until one is left.
    async fn by(log: &dyn EventLog, time: Timestamp, last: Position) -> Result<Self, LogError> {
        let mut found = Self {
            position: Position::ZERO,
            time: None,
        };
        let mut last = last.get();
        while found.position.get() < last {
            let middle = last - (last - found.position.get()) / 2;
            match at_or_after(log, Position::new(middle)).await? {
                Some(event) if event.position.get() <= last && event.stored_at <= time => {
                    found = Self {
                        position: event.position,
                        time: Some(event.stored_at),
                    };
                }
                _ => last = middle - 1,
            }
        }
        Ok(found)
    }
}

/// The event there, or the next one where there is none.
async fn at_or_after(log: &dyn EventLog, position: Position) -> Result<Option<Recorded>, LogError> {
    if let Some(event) = log.get(position).await? {
        return Ok(Some(event));
    }
    let mut events = log.read(Filter::All, position).await?;
    events.try_next().await
}
