//! The log as one unbroken stream of events, whatever happens to the connection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use event_log::{Filter, Followed, Incarnation, Position, Recorded, follow_forever};
use events::{DecodeError, Envelope};
use futures::stream::{BoxStream, StreamExt};
use keys::Record;
use tokio_util::sync::CancellationToken;

use crate::{ProjectorError, backoff, check_history};

/// An event as it stands in the log, and what it says.
pub(crate) struct Opened {
    pub(crate) recorded: Recorded,
    pub(crate) decoded: Result<Envelope, DecodeError>,
    /// How long it took to find out.
    pub(crate) took: Duration,
}

/// The events after `after` in order, until `stop`. Outages of the log are waited out and logged; an error
/// means that the log is not the one it was.
pub(crate) fn follow(
    record: Record,
    incarnation: Incarnation,
    after: Position,
    stop: CancellationToken,
) -> BoxStream<'static, Result<Opened, ProjectorError>> {
    let log = Arc::clone(&record.log);
    let followed = follow_forever(Arc::clone(&log), Filter::All, after, stop.clone());
    let items = followed.scan(after, move |position, followed| {
        let item = match followed {
            Followed::Event(recorded) => {
                *position = recorded.position;
                Item::Event(recorded)
            }
            Followed::Degraded(error) => {
                tracing::warn!(%error, after = %position, "waiting for the log");
                Item::Nothing
            }
            Followed::Restored => {
                tracing::info!(after = %position, "following the log again");
                Item::Nothing
            }
            Followed::Lost(error) => Item::Lost(error, *position),
        };
        std::future::ready(Some(item))
    });
    items
        .filter_map(move |item| {
            let (log, incarnation) = (Arc::clone(&log), incarnation.clone());
            let (record, stop) = (record.clone(), stop.clone());
            async move {
                match item {
                    Item::Event(recorded) => open(&record, recorded, &stop).await.transpose(),
                    Item::Nothing => None,
                    Item::Lost(error, position) => {
                        // In the words that say what to do about it.
                        let told = match log.tail().await {
                            Ok(tail) => check_history(&tail, &incarnation, position),
                            Err(_) => Ok(()),
                        };
                        Some(Err(told.err().unwrap_or(ProjectorError::Log(error))))
                    }
                }
            }
        })
        .boxed()
}

/// Opens the event, however long the keys may be away; `None` when `stop` comes first.
async fn open(
    record: &Record,
    recorded: Recorded,
    stop: &CancellationToken,
) -> Result<Option<Opened>, ProjectorError> {
    let begun = Instant::now();
    let decode = || record.decode(&recorded);
    let decoded = backoff::wait_for("the keys", stop, decode).await;
    let decoded = decoded.map_err(ProjectorError::Log)?;
    Ok(decoded.map(|decoded| Opened {
        recorded,
        decoded,
        took: begun.elapsed(),
    }))
}

enum Item {
    Event(Recorded),
    Nothing,
    Lost(event_log::LogError, Position),
}
