//! Writes one batch, whatever it takes: waits out outages, and sets aside the events that can't be written.

use std::time::Instant;

use bytes::Bytes;
use event_log::{Incarnation, LogError, Position};
use events::{Event, KeyId};
use keys::Keyring;
use read_models::{Batch, DeadLetter, Entry, Projection, ReadModelError};
use tokio_util::sync::CancellationToken;

use crate::gather::Gathered;
use crate::lead::Led;
use crate::purge::Purging;
use crate::status::{Stage, age};
use crate::{ProjectorError, backoff};

/// What came of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Applied {
    /// Everything up to here is in the read models.
    UpTo(Position),
    /// The read models could not be reached, and the projector was told to stop.
    Abandoned,
    /// Another projector has taken over.
    Overtaken,
}

const WHAT: &str = "the read models";

/// Projects what was gathered and moves the checkpoint to its end.
pub(crate) async fn apply(
    led: Led,
    keyring: Keyring,
    incarnation: Incarnation,
    gathered: Gathered,
    purging: Purging,
    abandon: CancellationToken,
) -> Result<Applied, ProjectorError> {
    match write(&led, &keyring, incarnation, gathered, &purging, &abandon).await {
        Err(ProjectorError::ReadModels(ReadModelError::Overtaken)) => Ok(Applied::Overtaken),
        other => other,
    }
}

async fn write(
    led: &Led,
    keyring: &Keyring,
    incarnation: Incarnation,
    gathered: Gathered,
    purging: &Purging,
    abandon: &CancellationToken,
) -> Result<Applied, ProjectorError> {
    let begun = Instant::now();
    let events = gathered.len();
    let Gathered {
        up_to,
        stored,
        waited,
        decoding,
        ..
    } = gathered;
    let writer = Writer {
        projection: led.projection.as_ref(),
        abandon,
    };
    // Before the checkpoint can pass them: a crash in between sets them aside again, which changes nothing.
    for letter in &gathered.undecodable {
        if writer.set_aside(letter).await?.is_none() {
            return Ok(Applied::Abandoned);
        }
    }
    // Before anybody can read that it was done: whoever began an erasure may have been stopped in the middle.
    for entry in &gathered.entries {
        if let Event::UserErased(event) = &entry.envelope.event
            && destroy(keyring, KeyId::Person(event.user_id), abandon)
                .await?
                .is_none()
        {
            return Ok(Applied::Abandoned);
        }
    }
    let batch = Batch {
        incarnation,
        entries: gathered.entries,
        up_to,
        fence: led.fence,
    };
    let makes_texts_go = batch.entries.iter().any(|entry| {
        let event = &entry.envelope.event;
        matches!(event, Event::UserErased(_) | Event::MessageExpired(_))
    });
    if writer.write(batch, gathered.payloads).await?.is_none() {
        return Ok(Applied::Abandoned);
    }
    if makes_texts_go && led.is_served() {
        purging.ask();
    }
    metrics::counter!("hansard_projection_events_total").increment(events as u64);
    metrics::histogram!("hansard_projection_batch_events").record(events as f64);
    for (stage, taken) in [
        (Stage::Log, waited),
        (Stage::Decode, decoding),
        (Stage::Write, begun.elapsed()),
    ] {
        metrics::histogram!("hansard_projection_batch_seconds", "stage" => stage.as_str())
            .record(taken);
    }
    if !led.is_served() {
        // It makes nothing visible.
        return Ok(Applied::UpTo(up_to));
    }
    let visible = metrics::histogram!("hansard_projection_visible_seconds");
    for (stored_at, events) in stored {
        visible.record_many(age(stored_at), events);
    }
    Ok(Applied::UpTo(up_to))
}

/// Destroys a key, which may have been done before.
async fn destroy(
    keyring: &Keyring,
    key: KeyId,
    abandon: &CancellationToken,
) -> Result<Option<()>, ProjectorError> {
    let destroy = || async { keyring.destroy(key).await.map_err(LogError::from) };
    let destroyed = backoff::wait_for("the keys", abandon, destroy).await;
    destroyed.map_err(ProjectorError::Log)
}

struct Writer<'a> {
    projection: &'a dyn Projection,
    abandon: &'a CancellationToken,
}

impl Writer<'_> {
    /// Writes a batch. Where it is refused, halves it until the events at fault stand alone.
    async fn write(
        &self,
        batch: Batch,
        payloads: Vec<Bytes>,
    ) -> Result<Option<()>, ProjectorError> {
        let projection = self.projection;
        // Parts still to be written, the earliest last.
        let mut parts = vec![(batch, payloads)];
        while let Some((mut batch, mut payloads)) = parts.pop() {
            let written = backoff::wait_for(WHAT, self.abandon, || projection.apply(&batch)).await;
            match written {
                Ok(Some(())) => {}
                Ok(None) => return Ok(None),
                Err(ReadModelError::Refused(reason)) if batch.entries.len() == 1 => {
                    let entry = batch.entries.remove(0);
                    let payload = payloads.remove(0);
                    let letter = refused(entry, &payload, reason);
                    if self.set_aside(&letter).await?.is_none() {
                        return Ok(None);
                    }
                    // Without the event: moves the checkpoint past it.
                    parts.push((batch, payloads));
                }
                Err(ReadModelError::Refused(_)) if batch.entries.len() > 1 => {
                    let middle = batch.entries.len() / 2;
                    let later = Batch {
                        incarnation: batch.incarnation.clone(),
                        entries: batch.entries.split_off(middle),
                        up_to: batch.up_to,
                        fence: batch.fence,
                    };
                    let later_payloads = payloads.split_off(middle);
                    if let Some(last) = batch.entries.last() {
                        batch.up_to = last.position;
                    }
                    parts.push((later, later_payloads));
                    parts.push((batch, payloads));
                }
                Err(error) => return Err(ProjectorError::ReadModels(error)),
            }
        }
        Ok(Some(()))
    }

    async fn set_aside(&self, letter: &DeadLetter) -> Result<Option<()>, ProjectorError> {
        let projection = self.projection;
        let kept = backoff::wait_for(WHAT, self.abandon, || projection.set_aside(letter)).await;
        let kept = match kept {
            Err(ReadModelError::Refused(_)) => {
                // Too large, most likely. The log still has its bytes; the reason must be on record.
                let bare = DeadLetter {
                    payload: Vec::new(),
                    reason: format!(
                        "{}; its {} bytes could not be kept here, read them from the log",
                        letter.reason,
                        letter.payload.len()
                    ),
                    ..letter.clone()
                };
                backoff::wait_for(WHAT, self.abandon, || projection.set_aside(&bare)).await
            }
            kept => kept,
        };
        match kept {
            Err(ReadModelError::Refused(_)) => {
                tracing::error!(
                    position = %letter.position,
                    "the read models refuse even the dead letter of an event; it is left out"
                );
                Ok(Some(()))
            }
            Ok(Some(())) => {
                tracing::error!(position = %letter.position, "an event was set aside as a dead letter");
                Ok(Some(()))
            }
            Ok(None) => Ok(None),
            Err(error) => Err(ProjectorError::ReadModels(error)),
        }
    }
}

fn refused(entry: Entry, payload: &Bytes, reason: String) -> DeadLetter {
    DeadLetter {
        position: entry.position,
        subject: entry.envelope.event.subject().to_string(),
        payload: payload.to_vec(),
        reason: format!("its write was refused: {reason}"),
    }
}
