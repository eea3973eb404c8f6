//! Retention: what goes with age, what stays, and that nothing that cuts it off leaves a trace. On SQLite, and on
//! JetStream and MongoDB.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use commands::{CommandError, Commands};
use directory::Directory;
use event_log::testing::NatsServer;
use event_log::{Filter, LogUrl, Position};
use events::{
    Authority, Caller, Command, Envelope, Event, KeyId, MessageEdited, MessageId, MessagePosted,
    Month, Names, RoomDeleted, RoomHeld, RoomId, RoomInitiated, RoomReleased, RoomType, Timestamp,
    UserCreated, UserType,
};
use futures::{StreamExt, TryStreamExt};
use keys::{KeyStore, Keyring, KeysUrl, MasterKeys, MemoryKeys, Record, Slot};
use projector::{Options, Retention, Status};
use read_models::testing::TestDatabase;
use read_models::{
    Catalogue, Left, Live, MongoCatalogue, Page, PageStart, ReadModels, SqliteCatalogue,
};
use tempfile::{TempDir, tempdir};
use tokio_util::sync::CancellationToken;

use support::running::Running;
use support::{ANNA, BELA, eventually};

const CONSUMERS: RoomType = RoomType::ConsumerToConsumer;
const SUPPORT: RoomType = RoomType::ConsumerToSupport;

/// A log, keys and read models, and how long texts are kept.
struct Setting {
    record: Record,
    keys: Arc<dyn KeyStore>,
    masters: MasterKeys,
    database: Option<TestDatabase>,
    _server: Option<NatsServer>,
    directory: TempDir,
    days: BTreeMap<RoomType, u32>,
}

impl Setting {
    async fn all(days: impl IntoIterator<Item = (RoomType, u32)> + Clone) -> Vec<Self> {
        let directory = tempdir().unwrap();
        let (log, keys) = (
            LogUrl::Sqlite("log.db".into()),
            KeysUrl::Sqlite("keys.db".into()),
        );
        let mut all = vec![Self::open(&log, &keys, None, None, directory, days.clone()).await];
        let servers = NatsServer::start().zip(TestDatabase::new());
        if let Some((server, database)) = servers {
            let (log, directory) = (server.log_url(), tempdir().unwrap());
            let keys = KeysUrl::beside(&log);
            let (server, database) = (Some(server), Some(database));
            all.push(Self::open(&log, &keys, server, database, directory, days).await);
        }
        all
    }

    async fn open(
        log: &LogUrl,
        keys: &KeysUrl,
        server: Option<NatsServer>,
        database: Option<TestDatabase>,
        directory: TempDir,
        days: impl IntoIterator<Item = (RoomType, u32)>,
    ) -> Self {
        let log = event_log::open(log, directory.path()).await.unwrap();
        let keys = keys::open(keys, directory.path()).await.unwrap();
        let masters = MasterKeys::random();
        let keyring = Keyring::open(Arc::clone(&keys), masters.clone()).await;
        let setting = Self {
            record: Record::new(log, keyring.unwrap()),
            keys,
            masters,
            database,
            _server: server,
            directory,
            days: days.into_iter().collect(),
        };
        for (user_id, name) in [(ANNA, "Anna"), (BELA, "Bela")] {
            let names = Some(Names::new(name, ""));
            let user_type = UserType::Consumer;
            let user = UserCreated {
                user_id,
                names,
                user_type,
            };
            setting
                .happens(days_ago(200), Event::UserCreated(user))
                .await;
        }
        setting
    }

    async fn catalogue(&self) -> Arc<dyn Catalogue> {
        match &self.database {
            None => {
                let path = self.directory.path().join("read.db");
                Arc::new(SqliteCatalogue::open(&path).await.unwrap())
            }
            Some(database) => Arc::new(MongoCatalogue::open(&database.url).await.unwrap()),
        }
    }

    async fn start_with(&self, keyring: Keyring) -> Running {
        let record = Record::new(Arc::clone(&self.record.log), keyring);
        let retention = Retention {
            days: self.days.clone(),
            commands: commands(&record),
            period: Duration::from_millis(20),
        };
        Running::start(Options {
            record,
            catalogue: self.catalogue().await,
            name: "the projector".to_owned(),
            only: None,
            progress: None,
            status: Status::default(),
            retention: Some(retention),
            drain: Duration::ZERO,
            grace: projector::GRACE,
        })
    }

    async fn start(&self) -> Running {
        self.start_with(self.fresh_keyring().await).await
    }

    /// Remembers nothing.
    async fn fresh_keyring(&self) -> Keyring {
        let keyring = Keyring::open(Arc::clone(&self.keys), self.masters.clone()).await;
        keyring.unwrap()
    }

    async fn happens(&self, at: Timestamp, event: Event) -> Position {
        let envelope = Envelope {
            at,
            ..Envelope::new(event, None, None)
        };
        let appended = self.record.append(&envelope, events::Expect::Any).await;
        appended.unwrap().position
    }

    /// A room of Anna's and Bela's.
    async fn room(&self, room_type: RoomType, generation: u32) -> RoomId {
        let room = initiated(room_type, generation);
        let id = room.room_id;
        self.happens(days_ago(200), Event::RoomInitiated(room))
            .await;
        id
    }

    async fn post(&self, room_id: RoomId, at: Timestamp, text: &str) -> MessageId {
        let post = MessagePosted {
            room_id,
            author: ANNA,
            message_text: Some(text.to_owned()),
        };
        MessageId::at(self.happens(at, Event::MessagePosted(post)).await)
    }

    /// What the read models have left of a room's texts.
    async fn left(&self, room: RoomId) -> Vec<(String, Left)> {
        let read_models = Live::new(self.catalogue().await);
        let page = Page {
            start: PageStart::Number(0),
            limit: 100,
        };
        let found = read_models.conversation(room, page).await.unwrap();
        let rows = found.unwrap().messages;
        rows.into_iter().map(|row| (row.text, row.left)).collect()
    }

    async fn is_destroyed(&self, room: RoomId, month: Month) -> bool {
        let slot = Slot::Key(KeyId::Period { room, month });
        self.keys.get(slot).await.unwrap() == Some(keys::Kept::Destroyed)
    }

    /// The expiries of each room, as the log has them.
    async fn expiries(&self) -> HashMap<RoomId, Vec<MessageId>> {
        let mut expiries: HashMap<RoomId, Vec<MessageId>> = HashMap::new();
        let read = self.record.log.read(Filter::All, Position::ZERO);
        let mut events = read.await.unwrap();
        while let Some(recorded) = events.try_next().await.unwrap() {
            if let Ok(envelope) = self.record.outline(&recorded)
                && let Event::MessageExpired(event) = envelope.event
            {
                let of_room = expiries.entry(event.room_id).or_default();
                of_room.push(event.up_to);
            }
        }
        expiries
    }

    async fn remove(self) {
        if let Some(database) = self.database {
            database.drop_database().await.unwrap();
        }
    }
}

fn commands(record: &Record) -> Commands {
    let stopped = CancellationToken::new();
    stopped.cancel();
    Commands {
        directory: Directory::start(record.clone(), stopped),
        record: record.clone(),
    }
}

fn days_ago(days: u64) -> Timestamp {
    Timestamp::now().before(Duration::from_secs(days * 24 * 60 * 60))
}

fn initiated(room_type: RoomType, generation: u32) -> RoomInitiated {
    let members = vec![ANNA, BELA];
    RoomInitiated {
        room_id: RoomId::derive(room_type, &members, generation),
        room_type,
        members,
        initiator: ANNA,
        generation,
    }
}

fn held(room_id: RoomId) -> Event {
    Event::RoomHeld(RoomHeld {
        room_id,
        reason: "a case".to_owned(),
    })
}

fn released(room_id: RoomId) -> Event {
    Event::RoomReleased(RoomReleased { room_id })
}

fn said(text: &str) -> (String, Left) {
    (text.to_owned(), Left::Text)
}

fn gone() -> (String, Left) {
    (String::new(), Left::Expired)
}

#[tokio::test]
async fn texts_past_their_age_go_and_so_do_the_keys_of_their_months() {
    for setting in Setting::all([(CONSUMERS, 30)]).await {
        // In a month that was over before those of thirty days ago, and in one that was not.
        let (old, late) = (days_ago(100), days_ago(31));
        let room = setting.room(CONSUMERS, 0).await;
        let first = setting.post(room, old, "old").await;
        let last = setting.post(room, late, "late").await;
        let young = days_ago(0);
        let edit = MessageEdited {
            room_id: room,
            message_id: first,
            author: ANNA,
            posted_at: old,
            message_text: Some("old, said otherwise".to_owned()),
        };
        let edit = setting.happens(young, Event::MessageEdited(edit)).await;
        setting.post(room, young, "young").await;
        let kept = setting.room(SUPPORT, 0).await;
        setting.post(kept, old, "kept").await;
        // Nobody lets its texts go, and nobody can read them.
        let deleted = setting.room(CONSUMERS, 1).await;
        setting.post(deleted, old, "in a deleted room").await;
        let room_deleted = initiated(CONSUMERS, 1);
        let room_deleted = RoomDeleted {
            room_id: deleted,
            room_type: CONSUMERS,
            members: room_deleted.members,
            initiator: ANNA,
            generation: 1,
            initiated_at: old,
        };
        setting
            .happens(young, Event::RoomDeleted(room_deleted))
            .await;

        let running = setting.start().await;
        let month = Month::of(old);
        for room in [room, deleted] {
            eventually("the month's key is destroyed", || {
                setting.is_destroyed(room, month)
            })
            .await;
        }
        assert_eq!(setting.left(room).await, [gone(), gone(), said("young")]);
        assert_eq!(setting.left(kept).await, [said("kept")]);
        assert_eq!(
            setting.expiries().await,
            HashMap::from([(room, vec![last])])
        );
        assert!(!setting.is_destroyed(room, Month::of(late)).await);
        assert!(!setting.is_destroyed(room, Month::of(young)).await);
        assert!(!setting.is_destroyed(kept, month).await);

        // Nobody can open what was said then, whenever it was said anew.
        let record = Record::new(
            Arc::clone(&setting.record.log),
            setting.fresh_keyring().await,
        );
        for position in [first.position(), edit] {
            let recorded = record.log.get(position).await.unwrap().unwrap();
            let opened = record.decode(&recorded).await.unwrap().unwrap();
            let text = match opened.event {
                Event::MessagePosted(event) => event.message_text,
                Event::MessageEdited(event) => event.message_text,
                event => panic!("{event:?}"),
            };
            assert_eq!(text, None, "{position}");
        }
        let edit = Command::EditMessage {
            room,
            message: first,
            text: "back again".to_owned(),
        };
        let anna = Caller {
            user: Some(ANNA),
            authority: Authority::Own,
        };
        let refused = commands(&record).carry_out(anna, None, &edit).await;
        assert!(
            matches!(refused, Err(CommandError::Destroyed(KeyId::Period { .. }))),
            "{refused:?}"
        );
        running.stop().await;
        setting.remove().await;
    }
}

#[tokio::test]
async fn what_is_held_is_kept_until_it_is_released() {
    for setting in Setting::all([(CONSUMERS, 30), (SUPPORT, 60)]).await {
        let old = days_ago(150);
        let rooms = [
            setting.room(CONSUMERS, 0).await,
            setting.room(CONSUMERS, 1).await,
            setting.room(SUPPORT, 0).await,
        ];
        let [kept, other, of_support] = rooms;
        for room in rooms {
            setting.post(room, old, "evidence").await;
        }
        setting.happens(days_ago(0), held(kept)).await;
        let running = setting.start().await;
        for room in [other, of_support] {
            eventually("the month's key is destroyed", || {
                setting.is_destroyed(room, Month::of(old))
            })
            .await;
        }
        assert_eq!(setting.left(kept).await, [said("evidence")]);
        assert!(!setting.is_destroyed(kept, Month::of(old)).await);

        setting.happens(days_ago(0), released(kept)).await;
        eventually("the month's key is destroyed", || {
            setting.is_destroyed(kept, Month::of(old))
        })
        .await;
        assert_eq!(setting.left(kept).await, [gone()]);
        assert_eq!(setting.expiries().await.len(), 3);
        running.stop().await;
        setting.remove().await;
    }
}

#[tokio::test]
async fn killed_at_any_moment_it_lets_everything_go_once() {
    // More than are looked up at once.
    const ROOMS: u32 = 250;
    for setting in Setting::all([(CONSUMERS, 30)]).await {
        let old = days_ago(100);
        let posting = (0..ROOMS).map(|number| {
            let setting = &setting;
            async move {
                let room = setting.room(CONSUMERS, number).await;
                let last = setting.post(room, old, "old").await;
                (room, last)
            }
        });
        let posting = futures::stream::iter(posting).buffer_unordered(64);
        let mut expected: HashMap<RoomId, Vec<MessageId>> = posting
            .map(|(room, last)| (room, vec![last]))
            .collect()
            .await;
        let kept: Vec<RoomId> = expected.keys().copied().take(10).collect();
        for room in &kept {
            setting.happens(old, held(*room)).await;
            expected.remove(room);
        }

        let mut kills = 0;
        let mut before = 0;
        while before < expected.len() {
            let running = setting.start().await;
            // Somewhere after the next few, and sooner or later among the last.
            let next = expected.len().min(before + 60);
            eventually("some more have expired", || async {
                setting.expiries().await.len() >= next
            })
            .await;
            running.kill();
            kills += 1;
            before = setting.expiries().await.len();
        }
        assert!(kills > 1, "it was never cut off");
        let running = setting.start().await;
        eventually("the keys of all are destroyed", || async {
            let listed: Vec<(KeyId, bool)> =
                setting.record.keyring.list().try_collect().await.unwrap();
            let destroyed = listed.iter().filter(|(_, is_destroyed)| *is_destroyed);
            destroyed.count() == expected.len()
        })
        .await;
        running.stop().await;
        assert_eq!(setting.expiries().await, expected);
        for room in kept {
            assert_eq!(setting.left(room).await, [said("old")]);
            assert!(!setting.is_destroyed(room, Month::of(old)).await);
        }
        setting.remove().await;
    }
}

#[tokio::test]
async fn keys_that_an_older_copy_brings_back_are_destroyed_again() {
    for setting in Setting::all([(CONSUMERS, 30)]).await {
        let (old, room) = (days_ago(100), setting.room(CONSUMERS, 0).await);
        setting.post(room, old, "old").await;
        let copy: Arc<dyn KeyStore> = Arc::new(MemoryKeys::default());
        let mut listed = setting.keys.list();
        while let Some((slot, kept)) = listed.try_next().await.unwrap() {
            if let keys::Kept::Wrapped(key) = kept {
                copy.insert(slot, key).await.unwrap();
            }
        }
        let running = setting.start().await;
        eventually("the month's key is destroyed", || {
            setting.is_destroyed(room, Month::of(old))
        })
        .await;
        running.stop().await;

        let restored = Keyring::open(Arc::clone(&copy), setting.masters.clone()).await;
        let running = setting.start_with(restored.unwrap()).await;
        let month = Month::of(old);
        let slot = Slot::Key(KeyId::Period { room, month });
        eventually("the restored key is destroyed", || async {
            copy.get(slot).await.unwrap() == Some(keys::Kept::Destroyed)
        })
        .await;
        running.stop().await;
        assert_eq!(setting.expiries().await[&room].len(), 1);
        setting.remove().await;
    }
}
