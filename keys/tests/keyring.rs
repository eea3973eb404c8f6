//! What a keyring seals and opens, and with which master keys.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use event_log::{LogError, NewEvent, Position, Recorded};
use events::{
    DataKey, Envelope, Event, KeyId, MessagePosted, Month, RoomId, Timestamp, UserErased, UserId,
    UserType,
};
use futures::future::join_all;
use keys::{
    Kept, KeyError, KeyStore, Keyring, MasterKeys, MemoryKeys, SealError, Slot, census, rotate,
};

/// A store in memory, and a file with a master key.
struct Fixture {
    store: Arc<MemoryKeys>,
    directory: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let fixture = Self {
            store: Arc::default(),
            directory: tempfile::tempdir().unwrap(),
        };
        fixture.write(&[1]);
        fixture
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("master-key")
    }

    /// Writes the master keys with these numbers, as an operator does who copies a file.
    fn write(&self, numbers: &[u8]) {
        let lines = numbers.iter().map(|number| format!("{number:064x}\n"));
        let draft = self.directory.path().join("draft");
        std::fs::write(&draft, lines.collect::<String>()).unwrap();
        std::fs::rename(draft, self.file()).unwrap();
    }

    async fn masters(&self) -> MasterKeys {
        MasterKeys::open(self.file()).await.unwrap()
    }

    /// A keyring as another process has it: it remembers nothing.
    async fn keyring(&self) -> Keyring {
        let masters = self.masters().await;
        Keyring::open(self.store.clone(), masters).await.unwrap()
    }
}

fn author(number: u128) -> UserId {
    format!("{number:032x}").parse().unwrap()
}

fn posted(number: u128) -> Envelope {
    let event = MessagePosted {
        room_id: room(),
        author: author(number),
        message_text: Some("between us".to_owned()),
    };
    Envelope::new(Event::MessagePosted(event), Some(author(number)), None)
}

fn room() -> RoomId {
    format!("{:032x}", 99).parse().unwrap()
}

fn recorded(event: &NewEvent) -> Recorded {
    Recorded {
        position: Position::new(42),
        subject: event.subject.to_string(),
        stored_at: Timestamp::now(),
        payload: event.payload.clone(),
    }
}

/// The text of a message, as the keyring opens it.
async fn text(keyring: &Keyring, event: &NewEvent) -> Option<String> {
    let opened = keyring.decode(&recorded(event)).await.unwrap().unwrap();
    match opened.event {
        Event::MessagePosted(posted) => posted.message_text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_one_process_seals_another_opens() {
    let fixture = Fixture::new();
    let sealed = fixture.keyring().await.seal(&posted(1)).await.unwrap();
    let stored = String::from_utf8(sealed.payload.to_vec()).unwrap();
    assert!(!stored.contains("between us"), "{stored}");
    let opened = text(&fixture.keyring().await, &sealed).await;
    assert_eq!(opened.as_deref(), Some("between us"));
}

#[tokio::test]
async fn first_uses_at_once_make_one_key() {
    let fixture = Fixture::new();
    let keyrings = [fixture.keyring().await, fixture.keyring().await];
    let sealing = (0..16).map(|index| {
        let keyring = &keyrings[index % 2];
        async move { keyring.seal(&posted(1)).await.unwrap() }
    });
    let fresh = fixture.keyring().await;
    for sealed in join_all(sealing).await {
        let opened = text(&fresh, &sealed).await;
        assert_eq!(opened.as_deref(), Some("between us"));
    }
}

#[tokio::test]
async fn either_key_destroyed_is_the_text_gone() {
    let envelope = posted(1);
    let month = Month::of(envelope.at);
    for id in [
        KeyId::Person(author(1)),
        KeyId::Period {
            room: room(),
            month,
        },
    ] {
        let fixture = Fixture::new();
        let keyring = fixture.keyring().await;
        let sealed = keyring.seal(&envelope).await.unwrap();
        assert!(text(&keyring, &sealed).await.is_some());
        keyring.destroy(id).await.unwrap();
        keyring.destroy(id).await.unwrap();
        for keyring in [&keyring, &fixture.keyring().await] {
            assert_eq!(text(keyring, &sealed).await, None);
            match keyring.seal(&envelope).await {
                Err(SealError::Destroyed(destroyed)) => assert_eq!(destroyed, id),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn who_is_told_of_an_erasure_forgets_the_key() {
    let fixture = Fixture::new();
    let (one, other) = (fixture.keyring().await, fixture.keyring().await);
    let sealed = one.seal(&posted(1)).await.unwrap();
    let unrelated = one.seal(&posted(2)).await.unwrap();
    assert!(text(&other, &sealed).await.is_some());
    one.destroy(KeyId::Person(author(1))).await.unwrap();
    // It remembers.
    assert!(text(&other, &sealed).await.is_some());

    let erased = Event::UserErased(UserErased {
        user_id: author(1),
        user_type: UserType::Consumer,
        created_at: Timestamp::now(),
    });
    let erasure = one.seal(&Envelope::new(erased, None, None)).await.unwrap();
    other.decode(&recorded(&erasure)).await.unwrap().unwrap();
    assert_eq!(text(&other, &sealed).await, None);
    assert!(text(&other, &unrelated).await.is_some());
}

#[tokio::test]
async fn a_key_that_is_not_there_is_never_taken_for_destroyed() {
    let fixture = Fixture::new();
    let sealed = fixture.keyring().await.seal(&posted(1)).await.unwrap();
    // As after restoring a copy from before the key was made.
    let masters = fixture.masters().await;
    let older = Keyring::open(Arc::new(MemoryKeys::default()), masters).await;
    match older.unwrap().decode(&recorded(&sealed)).await {
        Err(LogError::Unusable(reason)) => {
            assert!(reason.contains("000000000000002a"), "{reason}");
            assert!(reason.contains("restored from a copy"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_store_with_another_master_key_is_refused_at_once() {
    let fixture = Fixture::new();
    drop(fixture.keyring().await);
    fixture.write(&[2]);
    let masters = fixture.masters().await;
    match Keyring::open(fixture.store.clone(), masters).await {
        Err(KeyError::Unusable(reason)) => {
            assert!(reason.contains("--master-key-file"), "{reason}");
            let file = fixture.file().display().to_string();
            assert!(reason.contains(&file), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_master_key_may_come_while_a_service_runs() {
    let fixture = Fixture::new();
    let service = fixture.keyring().await;
    let elsewhere = Fixture {
        store: Arc::clone(&fixture.store),
        ..Fixture::new()
    };
    elsewhere.write(&[2, 1]);
    let sealed = elsewhere.keyring().await.seal(&posted(1)).await.unwrap();
    match service.decode(&recorded(&sealed)).await {
        Err(LogError::Unavailable(reason)) => assert!(reason.contains("--master-key-file")),
        other => panic!("{other:?}"),
    }
    fixture.write(&[1, 2]);
    assert!(text(&service, &sealed).await.is_some());
}

#[tokio::test]
async fn keys_are_rewrapped_while_services_go_on() {
    let fixture = Fixture::new();
    let service = fixture.keyring().await;
    let mut sealed = Vec::new();
    for number in 1..=40 {
        sealed.push(service.seal(&posted(number)).await.unwrap());
    }
    service.destroy(KeyId::Person(author(40))).await.unwrap();
    sealed.pop();

    let masters = fixture.masters().await;
    let mode = std::fs::Permissions::from_mode(0o440);
    std::fs::set_permissions(fixture.file(), mode).unwrap();
    let old = masters.ids().await.unwrap()[0];
    let new = masters.add().await.unwrap();
    assert_eq!(masters.ids().await.unwrap(), [new, old]);
    let facts = std::fs::metadata(fixture.file()).unwrap();
    assert_eq!(facts.permissions().mode() & 0o777, 0o440);

    // 39 persons and the room's month.
    let rewrapped = rotate(fixture.store.as_ref(), &masters).await.unwrap();
    assert_eq!(rewrapped, 40);
    assert_eq!(rotate(fixture.store.as_ref(), &masters).await.unwrap(), 0);
    let counted = census(fixture.store.as_ref()).await.unwrap();
    assert_eq!(counted.wrapped.into_iter().collect::<Vec<_>>(), [(new, 40)]);
    assert_eq!(counted.destroyed, 1);

    // The running service makes its next key with the new one, and the old one can go.
    sealed.push(service.seal(&posted(41)).await.unwrap());
    let text_of_file = std::fs::read_to_string(fixture.file()).unwrap();
    let first = text_of_file.lines().next().unwrap();
    std::fs::remove_file(fixture.file()).unwrap();
    std::fs::write(fixture.file(), first).unwrap();
    for keyring in [service, fixture.keyring().await] {
        for sealed in &sealed {
            assert!(text(&keyring, sealed).await.is_some());
        }
    }
}

#[tokio::test]
async fn a_rotation_that_was_cut_short_is_completed() {
    let fixture = Fixture::new();
    let service = fixture.keyring().await;
    for number in 1..=3 {
        service.seal(&posted(number)).await.unwrap();
    }
    fixture.write(&[2, 1]);
    let masters = fixture.masters().await;
    // One key is as far as it came.
    let slot = Slot::Key(KeyId::Person(author(2)));
    let Some(Kept::Wrapped(old)) = fixture.store.get(slot).await.unwrap() else {
        panic!("there is a key");
    };
    let key = masters.unwrap(slot, &old).await.unwrap();
    let new = masters.wrap(slot, &key).await.unwrap();
    assert!(fixture.store.replace(slot, &old, new).await.unwrap());
    assert_eq!(rotate(fixture.store.as_ref(), &masters).await.unwrap(), 3);
}

#[tokio::test]
async fn only_one_process_at_a_time_adds_a_master_key() {
    let fixture = Fixture::new();
    let masters = fixture.masters().await;
    let before = std::fs::read(fixture.file()).unwrap();
    let draft = fixture.directory.path().join("master-key.new");
    std::fs::write(&draft, "").unwrap();
    match masters.add().await {
        Err(KeyError::Unusable(reason)) => assert!(reason.contains("master-key.new is there")),
        other => panic!("{other:?}"),
    }
    assert_eq!(std::fs::read(fixture.file()).unwrap(), before);
    std::fs::remove_file(draft).unwrap();
    masters.add().await.unwrap();
    assert_eq!(
        std::fs::read_dir(fixture.directory.path()).unwrap().count(),
        1
    );
}

#[tokio::test]
async fn a_wrapped_key_is_good_for_its_slot_only() {
    let masters = MasterKeys::random();
    let [one, other] = [1, 2].map(|number| Slot::Key(KeyId::Person(author(number))));
    let key = DataKey::random();
    let wrapped = masters.wrap(one, &key).await.unwrap();
    let unwrapped = masters.unwrap(one, &wrapped).await.unwrap();
    assert_eq!(unwrapped.as_bytes(), key.as_bytes());
    match masters.unwrap(other, &wrapped).await {
        Err(KeyError::Unusable(reason)) => assert!(reason.contains("damaged"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_file_of_something_else_is_refused_without_telling_what_is_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("master-key");
    let refusal = async |file: &Path| match MasterKeys::open(file.to_owned()).await {
        Err(KeyError::Unusable(reason)) => reason,
        other => panic!("{other:?}"),
    };
    assert!(
        refusal(&file)
            .await
            .contains("can't read the master key file")
    );
    for (content, reason) in [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("secret", "line 1"),
        (&format!("\n{:064x}\nsecret\n", 1), "line 3"),
        (&format!("{:062x}", 1), "line 1"),
        ("AAAA", "line 1"),
    ] {
        std::fs::write(&file, content).unwrap();
        let found = refusal(&file).await;
        assert!(found.contains(reason), "{content:?}: {found}");
        assert!(!found.contains("secret"), "{found}");
    }
}

#[tokio::test]
async fn a_master_key_is_the_same_in_hex_and_in_base64_and_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("master-key");
    let mut shown = Vec::new();
    for text in [
        "ABCDEF0000000000000000000000000000000000000000000000000000000001",
        "abcdef0000000000000000000000000000000000000000000000000000000001",
        "q83vAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=",
    ] {
        std::fs::write(&file, text).unwrap();
        let masters = MasterKeys::open(file.clone()).await.unwrap();
        shown.push(masters.ids().await.unwrap()[0].to_string());
        assert_eq!(format!("{masters:?}"), "MasterKeys");
    }
    // Written to key stores: must never change.
    assert_eq!(shown, [shown[0].as_str(); 3]);
    assert_eq!(shown[0], "e912478ebb46c9f3");
}
