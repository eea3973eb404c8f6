//! A history as a log to verify read models against.

use std::sync::Arc;

use async_trait::async_trait;
use event_log::{
    Appended, EventLog, Events, Expect, Filter, Incarnation, LogError, NewEvent, Position,
    Recorded, Signals, Tail,
};
use events::{KeyId, Subject, Timestamp, UserId};
use futures::StreamExt;
use keys::Keyring;
use read_models::{Entry, Projection};
use verify::{Options, Report, VerifyError};

/// What a log is to hold.
pub struct Record {
    entries: Vec<Entry>,
    /// Where it has bytes that are no event.
    bytes: Option<Position>,
}

impl Record {
    pub fn of(entries: &[Entry]) -> Self {
        Self {
            entries: entries.to_vec(),
            bytes: None,
        }
    }

    /// With bytes in it that are no event.
    #[allow(dead_code)]
    pub fn with_bytes(mut self, position: Position) -> Self {
        self.bytes = Some(position);
        self
    }

    /// The record itself; the keys of these people are destroyed.
    async fn sealed(&self, destroyed: &[UserId]) -> keys::Record {
        let keyring = Keyring::in_memory();
        let mut recorded = Vec::new();
        for entry in &self.entries {
            let sealed = keyring.seal(&entry.envelope).await.unwrap();
            recorded.push(Recorded {
                position: entry.position,
                subject: sealed.subject.to_string(),
                stored_at: Timestamp::from_millis(0).unwrap(),
                payload: sealed.payload,
            });
        }
        for user in destroyed {
            keyring.destroy(KeyId::Person(*user)).await.unwrap();
        }
        if let Some(position) = self.bytes {
            let at = recorded.partition_point(|event| event.position < position);
            let event = Recorded {
                position,
                subject: "chat.user.x".to_owned(),
                stored_at: Timestamp::from_millis(0).unwrap(),
                payload: b"{".as_slice().into(),
            };
            recorded.insert(at, event);
        }
        keys::Record::new(Arc::new(Log(recorded)), keyring)
    }
}

/// A log that holds this and gets no more.
struct Log(Vec<Recorded>);

/// Which log histories are of.
pub fn incarnation() -> Incarnation {
    Incarnation("the log".to_owned())
}

/// What the comparison of everything stored, as of now, with the log says.
pub async fn compared(
    record: &Record,
    read_models: &dyn Projection,
    options: &Options<'_>,
) -> Result<Report, VerifyError> {
    compared_without(&[], record, read_models, options).await
}

/// The same with the keys of these people destroyed.
pub async fn compared_without(
    destroyed: &[UserId],
    record: &Record,
    read_models: &dyn Projection,
    options: &Options<'_>,
) -> Result<Report, VerifyError> {
    let record = record.sealed(destroyed).await;
    let mut snapshot = read_models.snapshot().await.unwrap();
    verify::snapshot(&record, snapshot.as_mut(), options).await
}

/// Verifies in one shard and in some: it must find the same.
pub async fn verified(record: &Record, read_models: &dyn Projection) -> Report {
    let once = compared(record, read_models, &Options::default()).await;
    let few = Options {
        at_once: 20,
        ..Options::default()
    };
    let sharded = compared(record, read_models, &few).await;
    let once = once.unwrap();
    let sharded = sharded.unwrap();
    assert_eq!(once.compared, sharded.compared);
    assert_eq!(once.set_aside, sharded.set_aside);
    assert_eq!(once.is_equal(), sharded.is_equal(), "{once}\n{sharded}");
    once
}

/// That what is stored is what these events give.
pub async fn assert_verified(entries: &[Entry], read_models: &dyn Projection) {
    let report = verified(&Record::of(entries), read_models).await;
    assert!(report.is_equal(), "{report}");
}

#[async_trait]
impl EventLog for Log {
    async fn read(&self, filter: Filter, after: Position) -> Result<Events, LogError> {
        assert_eq!(filter, Filter::All);
        let events = self.0.iter().filter(|event| event.position > after);
        let events: Vec<_> = events.cloned().map(Ok).collect();
        Ok(futures::stream::iter(events).boxed())
    }

    async fn tail(&self) -> Result<Tail, LogError> {
        Ok(Tail {
            incarnation: incarnation(),
            last: self.0.last().map_or(Position::ZERO, |event| event.position),
        })
    }

    async fn append(&self, _: NewEvent, _: Expect) -> Result<Appended, LogError> {
        unreachable!("verifying appends nothing")
    }

    async fn follow(&self, _: Filter, _: Position) -> Result<Events, LogError> {
        unreachable!("verifying follows nothing")
    }

    async fn get(&self, _: Position) -> Result<Option<Recorded>, LogError> {
        unreachable!("verifying reads all")
    }

    async fn last_of(&self, _: Subject) -> Result<Option<Recorded>, LogError> {
        unreachable!("verifying reads all")
    }

    async fn durability(&self) -> Result<Result<(), String>, LogError> {
        unreachable!("verifying trusts the log")
    }

    fn signals(&self) -> Arc<dyn Signals> {
        unreachable!("verifying sends no signals")
    }
}
