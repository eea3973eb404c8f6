//! A log that holds exactly what a test puts into it: times that jump, bytes that are no events, failures.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use event_log::{
    Appended, EventLog, Events, Expect, Filter, Incarnation, LogError, NewEvent, Position,
    Recorded, Signals, Tail,
};
use events::{
    ConversationRead, Envelope, Event, MessageDeleted, MessageId, MessagePosted, Names, RoomId,
    RoomInitiated, RoomType, Subject, Timestamp, UserCreated, UserDeleted, UserId, UserType,
};
use futures::StreamExt;
use keys::{Keyring, Record};
use uuid::Uuid;

/// A log in memory. What is appended is kept beside what was given, and is not read.
#[derive(Default)]
pub struct GivenLog {
    pub appended: Arc<Mutex<Vec<NewEvent>>>,
    pub events: Vec<Recorded>,
    /// What is to be sealed: the event at each place, unless there are only bytes.
    pub envelopes: Vec<Option<Envelope>>,
    /// Reading fails behind this position.
    pub fails_after: Option<Position>,
    /// Nothing can be appended.
    pub is_read_only: bool,
}

const fn user(number: u128) -> UserId {
    UserId::from_uuid(Uuid::from_u128(number))
}
pub const ANNA: UserId = user(0xa);
pub const BELA: UserId = user(0xb);
pub const CARL: UserId = user(0xc);

pub fn room() -> RoomId {
    RoomId::derive(RoomType::ConsumerToConsumer, &[ANNA, BELA], 0)
}

pub fn other_room() -> RoomId {
    RoomId::derive(RoomType::ConsumerToConsumer, &[BELA, CARL], 0)
}

pub fn at(seconds: u64) -> Timestamp {
    format!("2026-11-22T17:00:{seconds:02}Z").parse().unwrap()
}

pub fn position(sequence: u64) -> Position {
    Position::new(sequence)
}

impl GivenLog {
    /// Adds an event by `actor`, stored so many seconds after 17:00.
    pub fn event(self, stored: u64, actor: Option<UserId>, event: Event) -> Self {
        let subject = event.subject().to_string();
        let envelope = Envelope {
            id: Uuid::from_u128(self.events.len() as u128 + 1),
            at: at(stored),
            actor,
            key: None,
            event,
        };
        let mut log = self.bytes(stored, subject, envelope.to_json());
        log.envelopes.pop();
        log.envelopes.push(Some(envelope));
        log
    }

    /// Adds bytes, whatever they are.
    pub fn bytes(mut self, stored: u64, subject: String, payload: impl Into<Bytes>) -> Self {
        self.events.push(Recorded {
            position: position(self.events.len() as u64 + 1),
            subject,
            stored_at: at(stored),
            payload: payload.into(),
        });
        self.envelopes.push(None);
        self
    }

    /// The log, with its events sealed, and the keys to them.
    pub async fn done(mut self) -> Record {
        let keyring = Keyring::in_memory();
        for (recorded, envelope) in self.events.iter_mut().zip(&self.envelopes) {
            if let Some(envelope) = envelope {
                recorded.payload = keyring.seal(envelope).await.unwrap().payload;
            }
        }
        Record::new(Arc::new(self), keyring)
    }
}

/// Positions 1 to 11; Anna is support. 8 is no event; the clock jumps back before 6.
pub fn history() -> GivenLog {
    let created = |user_id, user_type| {
        Event::UserCreated(UserCreated {
            user_id,
            names: Some(Names::new("First", "Last\n")),
            user_type,
        })
    };
    let initiated = |room_id, members: &[UserId]| {
        Event::RoomInitiated(RoomInitiated {
            room_id,
            room_type: RoomType::ConsumerToConsumer,
            members: members.to_vec(),
            initiator: BELA,
            generation: 0,
        })
    };
    let posted = |room_id, author, text: &str| {
        Event::MessagePosted(MessagePosted {
            room_id,
            author,
            message_text: Some(text.to_owned()),
        })
    };
    GivenLog::default()
        .event(1, None, created(ANNA, UserType::Support))
        .event(2, None, created(BELA, UserType::Consumer))
        .event(3, None, created(CARL, UserType::Consumer))
        .event(4, Some(BELA), initiated(room(), &[ANNA, BELA]))
        .event(20, Some(BELA), initiated(other_room(), &[BELA, CARL]))
        .event(
            6,
            Some(BELA),
            posted(room(), BELA, "line\none \u{202e}\u{1b}[31m\"é\""),
        )
        .event(7, Some(CARL), posted(other_room(), CARL, "elsewhere"))
        .bytes(
            8,
            Subject::RoomTimeline(room()).to_string(),
            &b"{\n\xff"[..],
        )
        .event(
            9,
            Some(ANNA),
            Event::ConversationRead(ConversationRead {
                room_id: room(),
                reader: ANNA,
                up_to: None,
            }),
        )
        // Support deletes Bela's message.
        .event(
            10,
            Some(ANNA),
            Event::MessageDeleted(MessageDeleted {
                room_id: room(),
                message_id: MessageId::at(position(6)),
            }),
        )
        .event(
            11,
            Some(ANNA),
            Event::UserDeleted(UserDeleted {
                user_id: CARL,
                user_type: UserType::Consumer,
                created_at: at(3),
            }),
        )
}

#[async_trait]
impl EventLog for GivenLog {
    async fn append(&self, event: NewEvent, _: Expect) -> Result<Appended, LogError> {
        if self.is_read_only {
            return Err(LogError::Unavailable("it can't be written".to_owned()));
        }
        let mut appended = self.appended.lock().unwrap();
        appended.push(event);
        Ok(Appended {
            position: position((self.events.len() + appended.len()) as u64),
            duplicate: false,
        })
    }

    async fn read(&self, filter: Filter, after: Position) -> Result<Events, LogError> {
        let matches = |subject: &str| {
            let subject: Option<Subject> = subject.parse().ok();
            match (&filter, subject) {
                (Filter::All, _) => true,
                (Filter::Room(room), Some(subject)) => {
                    [Subject::RoomLifecycle(*room), Subject::RoomTimeline(*room)].contains(&subject)
                }
                _ => false,
            }
        };
        let mut items = Vec::new();
        for event in &self.events {
            if self.fails_after.is_some_and(|last| event.position > last) {
                items.push(Err(LogError::Unavailable("gone".to_owned())));
                break;
            }
            if event.position > after && matches(&event.subject) {
                items.push(Ok(event.clone()));
            }
        }
        Ok(futures::stream::iter(items).boxed())
    }

    fn signals(&self) -> Arc<dyn Signals> {
        unreachable!("a replay sends no signals")
    }

    async fn follow(&self, _: Filter, _: Position) -> Result<Events, LogError> {
        unreachable!("a replay follows nothing")
    }

    async fn get(&self, position: Position) -> Result<Option<Recorded>, LogError> {
        let mut events = self.events.iter();
        Ok(events.find(|event| event.position == position).cloned())
    }

    async fn last_of(&self, subject: Subject) -> Result<Option<Recorded>, LogError> {
        let subject = subject.to_string();
        let mut events = self.events.iter().rev();
        Ok(events.find(|event| event.subject == subject).cloned())
    }

    async fn tail(&self) -> Result<Tail, LogError> {
        Ok(Tail {
            incarnation: Incarnation("given".to_owned()),
            last: position(self.events.len() as u64),
        })
    }

    async fn durability(&self) -> Result<Result<(), String>, LogError> {
        Ok(Ok(()))
    }
}
