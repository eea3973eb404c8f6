//! The log as one unbroken stream of events, whatever happens to the connection.

use std::sync::Arc;

use event_log::{EventLog, Filter, Followed, Incarnation, Position, Recorded, follow_forever};
use futures::stream::{BoxStream, StreamExt};
use tokio_util::sync::CancellationToken;

use crate::{ProjectorError, check_history};

/// The events after `after` in order, until `stop`. Outages of the log are waited out and logged; an error
/// means that the log is not the one it was.
pub(crate) fn follow(
    log: Arc<dyn EventLog>,
    incarnation: Incarnation,
    after: Position,
    stop: CancellationToken,
) -> BoxStream<'static, Result<Recorded, ProjectorError>> {
    let followed = follow_forever(Arc::clone(&log), Filter::All, after, stop);
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
            async move {
                match item {
                    Item::Event(recorded) => Some(Ok(recorded)),
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

enum Item {
    Event(Recorded),
    Nothing,
    Lost(event_log::LogError, Position),
}
