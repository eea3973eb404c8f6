//! Retention: lets the texts go that have become older than the type of their room allows, and destroys the
//! keys that they were sealed with. The leader of the generation that is read does it.
//!
//! Nothing about it is stored. What is due follows from the read models and the keys, so a round that was cut
//! off anywhere is made up for by the next one, by whichever projector. See
//! `docs/decisions/0028-retention.md`.

use std::collections::BTreeMap;
use std::time::Duration;

use commands::{CarriedOut, CommandError, Commands};
use event_log::LogError;
use events::{
    Authority, Caller, Command, IdempotencyKey, KeyId, MessageId, Month, Refusal, RoomId, RoomType,
    Timestamp,
};
use futures::{StreamExt, TryStreamExt, stream};
use keys::KeyError;
use read_models::ReadModelError;
use tokio::time::{Instant, sleep};

use crate::lead::Led;

/// How often to look for texts that are past their age.
const PERIOD: Duration = Duration::from_secs(60);

/// A round that was at work for long is followed by a pause so many times as long.
const PAUSE: u32 = 4;

/// Texts go at full hours: a room that is busy all day has few expiries in its history.
const HOUR_IN_MILLIS: i64 = 60 * 60 * 1000;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a month must have been over: how far the clocks of those who post, and a post on its way, may be
/// behind.
const MARGIN: Duration = DAY;

/// How many rooms are looked up at once.
const PAGE: u32 = 100;

/// How many rooms' texts are let go at once.
const AT_ONCE: usize = 16;

/// How long to wait for the projection to catch up, and how often to look.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);

/// Nobody in particular.
const HANSARD: Caller = Caller {
    user: None,
    authority: Authority::Admin,
};

/// How long texts are kept, and with what they are let go.
#[derive(Debug, Clone)]
pub struct Retention {
    /// How old texts may become, in days; for ever in rooms of the types that are not there.
    pub days: BTreeMap<RoomType, u32>,
    /// What records it.
    pub commands: Commands,
    /// How often to look for older ones: once a minute, except in tests.
    pub period: Duration,
}

impl Retention {
    /// Texts may become so old, in days; `None` where all are kept for ever.
    pub fn of(days: &BTreeMap<RoomType, u32>, commands: impl FnOnce() -> Commands) -> Option<Self> {
        (!days.is_empty()).then(|| Self {
            days: days.clone(),
            commands: commands(),
            period: PERIOD,
        })
    }
}

/// Lets go what is past its age, round for round, until another projector leads.
pub(crate) async fn keep(retention: Retention, led: Led) {
    let period = retention.period;
    let mut keeper = Keeper {
        retention,
        led,
        looked_through: None,
        is_more_due: true,
        waited: Duration::ZERO,
    };
    while !keeper.led.lost.is_cancelled() {
        let begun = Instant::now();
        keeper.waited = Duration::ZERO;
        if keeper.led.is_served() {
            match keeper.round().await {
                Ok(()) => {
                    let now = Timestamp::now().as_millis() / 1000;
                    metrics::gauge!("hansard_retention_last_run_seconds").set(now as f64);
                }
                Err(error) => tracing::warn!("retention goes on with the next round: {error}"),
            }
        }
        let worked = begun.elapsed().saturating_sub(keeper.waited);
        sleep(period.max(worked * PAUSE)).await;
    }
}

/// Why a round ended before it was done.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error(transparent)]
    ReadModels(#[from] ReadModelError),
}

struct Keeper {
    retention: Retention,
    led: Led,
    /// When all keys were looked through last.
    looked_through: Option<Instant>,
    /// Whether texts have expired since.
    is_more_due: bool,
    /// How long this round has waited for the projection.
    waited: Duration,
}

impl Keeper {
    async fn round(&mut self) -> Result<(), RoundError> {
        let now = Timestamp::now();
        // Whoever begins to lead may have much to catch up with; if it is too much, the next rounds see it.
        self.is_caught_up().await?;
        let mut rooms = 0;
        for (room_type, days) in self.retention.days.clone() {
            rooms += self.let_go(room_type, bound(now, days)).await?;
        }
        if rooms > 0 {
            tracing::info!(rooms, "texts past their age were let go");
        }
        let last = self.looked_through;
        let is_due = self.is_more_due || last.is_none_or(|last| last.elapsed() >= DAY);
        if is_due && self.is_caught_up().await? {
            let keys = self.destroy_keys(now).await?;
            self.looked_through = Some(Instant::now());
            self.is_more_due = false;
            if keys > 0 {
                tracing::info!(keys, "keys of texts past their age were destroyed");
            }
        }
        Ok(())
    }

    /// Lets the texts go that are older than `before`; says of how many rooms.
    async fn let_go(&mut self, room_type: RoomType, before: Timestamp) -> Result<u64, RoundError> {
        let mut rooms = 0;
        let mut after = None;
        loop {
            let projection = &self.led.projection;
            let page = projection.expirable(room_type, before, after, PAGE).await?;
            let Some((last, _)) = page.last() else {
                return Ok(rooms);
            };
            after = Some(*last);
            let expiring = page.into_iter().map(|(room, up_to)| {
                let commands = self.retention.commands.clone();
                async move { expire(&commands, room, up_to).await }
            });
            let mut expiring = stream::iter(expiring).buffer_unordered(AT_ONCE);
            while let Some(is_recorded) = expiring.try_next().await? {
                if is_recorded {
                    rooms += 1;
                    self.is_more_due = true;
                    metrics::counter!("hansard_retention_rooms_total").increment(1);
                }
            }
        }
    }

    /// Waits until the read models have what the log has now; whether that came in time.
    async fn is_caught_up(&mut self) -> Result<bool, RoundError> {
        let begun = Instant::now();
        let before = self.waited;
        let end = self.retention.commands.record.log.tail().await?.last;
        loop {
            let checkpoint = self.led.projection.checkpoint().await?;
            if checkpoint.is_some_and(|it| it.position >= end) {
                return Ok(true);
            }
            if begun.elapsed() >= PATIENCE {
                return Ok(false);
            }
            sleep(LOOK).await;
            self.waited = before + begun.elapsed();
        }
    }

    /// Destroys the keys of months of which everything is past its age; says how many. The first time also
    /// those that are destroyed: whoever did it may have been killed before they were overwritten.
    async fn destroy_keys(&self, now: Timestamp) -> Result<u64, RoundError> {
        let again = self.looked_through.is_none();
        let least = self.retention.days.values().min();
        let Some(latest) = least.map(|days| bound(now, *days)) else {
            return Ok(0);
        };
        let keys = self.retention.commands.record.keyring.list();
        let destroying = keys
            .map_err(RoundError::from)
            .map_ok(|(id, is_destroyed)| async move {
                match id {
                    // Cheap, and true of most others: they are looked at no closer.
                    KeyId::Period { room, month }
                        if is_over(month, latest) && (again || !is_destroyed) =>
                    {
                        let gone = self.destroy_key(room, month, now).await?;
                        Ok(gone && !is_destroyed)
                    }
                    _ => Ok(false),
                }
            });
        let mut destroying = destroying.try_buffer_unordered(AT_ONCE);
        let mut destroyed = 0;
        while let Some(is_new) = destroying.try_next().await? {
            if is_new {
                destroyed += 1;
                metrics::counter!("hansard_retention_keys_total").increment(1);
            }
        }
        Ok(destroyed)
    }

    /// Destroys the key of a month of a room, if everything of it is past its age; whether it did.
    async fn destroy_key(
        &self,
        room: RoomId,
        month: Month,
        now: Timestamp,
    ) -> Result<bool, RoundError> {
        let has_expired = self.has_expired(room, month, now).await?;
        if has_expired {
            let keyring = &self.retention.commands.record.keyring;
            keyring.destroy(KeyId::Period { room, month }).await?;
        }
        Ok(has_expired)
    }

    /// Whether all that was or will be said in a room in a month is past its age, and is not under legal hold.
    async fn has_expired(
        &self,
        room: RoomId,
        month: Month,
        now: Timestamp,
    ) -> Result<bool, RoundError> {
        let commands = &self.retention.commands;
        let Some(room) = commands.directory.room(room).await? else {
            return Ok(false);
        };
        let Some(days) = self.retention.days.get(&room.room_type) else {
            return Ok(false);
        };
        if !is_over(month, bound(now, *days)) {
            return Ok(false);
        }
        // What the record does not say to have expired is readable until it does.
        let oldest = self.led.projection.oldest_unexpired(room.id).await?;
        if oldest.is_some_and(|oldest| !is_over(month, oldest)) {
            return Ok(false);
        }
        Ok(!commands.is_held(room.id).await?)
    }
}

/// Lets the texts of a room go up to a message; `false` where that is not to be: the room is under legal hold or
/// has been deleted, or it was recorded a moment ago.
async fn expire(commands: &Commands, room: RoomId, up_to: MessageId) -> Result<bool, CommandError> {
    // The same from every projector, should one have led that was only paused.
    let key: Option<IdempotencyKey> = format!("retention-{room}-{up_to}").parse().ok();
    let command = Command::ExpireMessages { room, up_to };
    match commands.carry_out(HANSARD, key.as_ref(), &command).await {
        Ok(CarriedOut::Event(..)) => Ok(true),
        Ok(CarriedOut::Nothing(_))
        | Err(CommandError::Refused(Refusal::UnderHold(_) | Refusal::UnknownRoom(_))) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Since when texts are young enough to be kept: so many days ago, at the last full hour.
fn bound(now: Timestamp, days: u32) -> Timestamp {
    let millis = now.before(DAY * days).as_millis();
    Timestamp::from_millis(millis - millis.rem_euclid(HOUR_IN_MILLIS)).unwrap_or(now)
}

/// Whether a month was over at a time, for everybody.
fn is_over(month: Month, at: Timestamp) -> bool {
    month.end().is_some_and(|end| end <= at.before(MARGIN))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn texts_go_at_the_full_hour_after_their_days() {
        for (now, days, expected) in [
            ("2026-03-31T10:00:00Z", 30, "2026-03-01T10:00:00Z"),
            ("2026-03-31T10:59:59.999Z", 30, "2026-03-01T10:00:00Z"),
            ("1970-01-01T12:30:00Z", 1, "1969-12-31T12:00:00Z"),
        ] {
            assert_eq!(bound(time(now), days), time(expected), "{now}");
        }
    }

    #[test]
    fn a_month_is_over_a_day_after_its_end() {
        let february = Month::of(time("2026-02-10T00:00:00Z"));
        assert!(!is_over(february, time("2026-03-01T23:59:59.999Z")));
        assert!(is_over(february, time("2026-03-02T00:00:00Z")));
    }
}
