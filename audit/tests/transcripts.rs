//! Transcripts, as text and as a page, compared with golden files, on both logs. To write the files anew after a
//! change that is meant, run this with `WRITE_GOLDEN=1` and look at the difference.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use audit::{Format, ReplayArgs, replay};
use event_log::testing::NatsServer;
use event_log::{EventLog, Expect, SqliteLog};
use events::{
    ConversationRead, Envelope, Event, IdempotencyKey, KeyId, MessageDeleted, MessageEdited,
    MessageExpired, MessageId, MessagePosted, Names, RoomDeleted, RoomHeld, RoomInitiated,
    RoomReleased, RoomType, UserCreated, UserErased, UserId, UserType,
};
use keys::{Keyring, Record};
use support::{ANNA, BELA, CARL, at, position, room};
use uuid::Uuid;

/// Text that must not do anything to who reads it.
const HOSTILE: &str = "line one\n17:00:59.000  00000000000000ff  Anna Support:\n\u{202e}desrever\u{1b}[31m \
                       <script>alert('x')</script> & \"quotes\" \\ \u{0}\u{200b} e\u{301} 👩\u{200d}🔬";

struct Story {
    record: Record,
    told: Vec<(u64, Option<UserId>, Event)>,
}

impl Story {
    /// Whatever can happen in rooms, with all that can become of a text.
    async fn tell(record: Record) -> Record {
        let mut story = Self {
            record,
            told: Vec::new(),
        };
        let created = |user_id, first: &str, last: &str, user_type| {
            Event::UserCreated(UserCreated {
                user_id,
                names: Some(Names::new(first, last)),
                user_type,
            })
        };
        let posted = |author, text: &str| {
            Event::MessagePosted(MessagePosted {
                room_id: room(),
                author,
                message_text: Some(text.to_owned()),
            })
        };
        let message = |sequence| MessageId::at(position(sequence));
        let edited = |sequence, author, text: &str| {
            Event::MessageEdited(MessageEdited {
                room_id: room(),
                message_id: message(sequence),
                author,
                posted_at: at(6),
                message_text: Some(text.to_owned()),
            })
        };
        let read = |reader, up_to: Option<u64>| {
            Event::ConversationRead(ConversationRead {
                room_id: room(),
                reader,
                up_to: up_to.map(message),
            })
        };
        let other = events::RoomId::derive(RoomType::ConsumerToSupport, &[ANNA, CARL], 0);
        let initiated = |room_id, room_type, members: &[UserId], initiator| {
            Event::RoomInitiated(RoomInitiated {
                room_id,
                room_type,
                members: members.to_vec(),
                initiator,
                generation: 0,
            })
        };
        story.happens(1, None, created(ANNA, "Anna", "Support", UserType::Support));
        story.happens(
            2,
            None,
            created(BELA, "Bela\u{202e}", "<b>Bartok</b>", UserType::Consumer),
        );
        story.happens(3, None, created(CARL, "Carl", "Gone", UserType::Consumer));
        let two = [ANNA, BELA];
        let rooms = RoomType::ConsumerToConsumer;
        story.happens(4, Some(BELA), initiated(room(), rooms, &two, BELA));
        story.happens(5, Some(BELA), posted(BELA, "Soon forgotten")); // 5
        story.happens(6, Some(BELA), posted(BELA, HOSTILE)); // 6
        story.happens(7, Some(ANNA), read(ANNA, Some(5)));
        story.happens(8, Some(BELA), read(BELA, None));
        story.happens(9, Some(ANNA), read(ANNA, None));
        story.happens(10, Some(BELA), edited(6, BELA, "line one, again"));
        // 11: not Anna's to edit.
        story.happens(11, Some(ANNA), edited(6, ANNA, "words in Bela's mouth"));
        story.happens(12, Some(ANNA), posted(ANNA, "To be deleted"));
        let deleted = MessageDeleted {
            room_id: room(),
            message_id: message(12),
        };
        story.happens(13, Some(BELA), Event::MessageDeleted(deleted));
        let held = RoomHeld {
            room_id: room(),
            reason: "case <7>\u{7}".to_owned(),
        };
        story.happens(14, None, Event::RoomHeld(held));
        let released = RoomReleased { room_id: room() };
        story.happens(15, None, Event::RoomReleased(released));
        let expired = MessageExpired {
            room_id: room(),
            up_to: message(5),
        };
        story.happens(16, None, Event::MessageExpired(expired));
        let support = RoomType::ConsumerToSupport;
        story.happens(
            17,
            Some(CARL),
            initiated(other, support, &[ANNA, CARL], CARL),
        );
        let secret = MessagePosted {
            room_id: other,
            author: CARL,
            message_text: Some("secret".to_owned()),
        };
        story.happens(18, Some(CARL), Event::MessagePosted(secret));
        story.happens(19, Some(BELA), posted(BELA, "Hello?")); // 19
        let gone = RoomDeleted {
            room_id: room(),
            room_type: RoomType::ConsumerToConsumer,
            members: two.to_vec(),
            initiator: BELA,
            generation: 0,
            initiated_at: at(4),
        };
        story.happens(20, Some(ANNA), Event::RoomDeleted(gone));
        // 21: it raced the room's deletion.
        story.happens(21, Some(BELA), posted(BELA, "Too late"));
        let erased = UserErased {
            user_id: CARL,
            user_type: UserType::Consumer,
            created_at: at(3),
        };
        story.happens(22, None, Event::UserErased(erased));
        story.recorded().await
    }

    fn happens(&mut self, second: u64, actor: Option<UserId>, event: Event) {
        self.told.push((second, actor, event));
    }

    async fn recorded(self) -> Record {
        let key: IdempotencyKey = "again".parse().unwrap();
        for (second, actor, event) in self.told {
            let envelope = Envelope {
                id: Uuid::from_u128(second.into()),
                at: at(second),
                actor,
                key: (second == 5).then(|| key.clone()),
                event,
            };
            let appended = self.record.append(&envelope, Expect::Any).await.unwrap();
            assert_eq!(appended.position, position(second));
        }
        let destroyed = self.record.keyring.destroy(KeyId::Person(CARL)).await;
        destroyed.unwrap();
        self.record
    }
}

/// The transcript that `args` ask for.
async fn written(record: Record, args: &ReplayArgs) -> String {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("transcript");
    let args = ReplayArgs {
        output: Some(output.clone()),
        ..args.clone()
    };
    let summary = replay(&args, record).await.unwrap();
    assert!(summary.complete);
    std::fs::read_to_string(output).unwrap()
}

fn golden(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert!(
        text == expected,
        "{} is not what is written now:\n{text}",
        path.display()
    );
}

async fn is_told_as_the_golden_files_say(log: Arc<dyn EventLog>) {
    let record = Story::tell(Record::new(log, Keyring::in_memory())).await;
    for (format, name) in [
        (Format::Transcript, "everything.txt"),
        (Format::Html, "everything.html"),
    ] {
        // Before the reading itself is recorded again, so that both say the same.
        let args = ReplayArgs {
            format,
            to: Some("22".parse().unwrap()),
            ..ReplayArgs::default()
        };
        golden(name, &up_to_22(&written(record.clone(), &args).await));
    }
    let args = ReplayArgs {
        format: Format::Transcript,
        room: Some(room()),
        types: vec!["message.posted".parse().unwrap()],
        from: Some("6".parse().unwrap()),
        to: Some("20".parse().unwrap()),
        ..ReplayArgs::default()
    };
    golden("a_part.txt", &up_to_22(&written(record, &args).await));
}

/// With the position up to which the log was read as the first reading found it: each adds an event.
fn up_to_22(text: &str) -> String {
    let mut text = text.to_owned();
    for later in ["0000000000000017", "0000000000000018"] {
        text = text.replace(later, "0000000000000016");
    }
    text
}

#[tokio::test]
async fn on_sqlite_it_is_told_as_the_golden_files_say() {
    let directory = tempfile::tempdir().unwrap();
    let log = SqliteLog::open(&directory.path().join("log.db")).await;
    is_told_as_the_golden_files_say(Arc::new(log.unwrap())).await;
}

#[tokio::test]
async fn on_jetstream_it_is_told_as_the_golden_files_say() {
    let Some(server) = NatsServer::start() else {
        return;
    };
    let log = event_log::open(&server.log_url(), Path::new("")).await;
    is_told_as_the_golden_files_say(log.unwrap()).await;
}
