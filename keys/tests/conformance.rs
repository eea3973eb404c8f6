//! What every key store must do, run against each adapter: a case is written once, with what it needs of the
//! store underneath behind [`Stack`].
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use event_log::testing::NatsServer;
use events::{DataKey, KeyId, Month, Timestamp, UserId};
use futures::TryStreamExt;
use futures::future::join_all;
use keys::{
    JetStreamKeys, Kept, KeyError, KeyStore, KeysUrl, MasterKeys, MemoryKeys, Slot, WrappedKey,
};

/// Longer than anything here takes on the busiest machine: only a hang reaches it.
const DEADLINE: Duration = Duration::from_secs(60);

/// A key store and what it is kept in.
enum Stack {
    Memory(Arc<MemoryKeys>),
    Sqlite(tempfile::TempDir),
    JetStream(NatsServer),
}

impl Stack {
    fn memory() -> Option<Self> {
        Some(Self::Memory(Arc::default()))
    }

    fn sqlite() -> Option<Self> {
        Some(Self::Sqlite(tempfile::tempdir().unwrap()))
    }

    fn jetstream() -> Option<Self> {
        NatsServer::start().map(Self::JetStream)
    }

    /// Opens the store once more, as another process would.
    async fn open(&self) -> Arc<dyn KeyStore> {
        match self {
            Self::Memory(keys) => Arc::clone(keys) as Arc<dyn KeyStore>,
            Self::Sqlite(directory) => {
                let url = "sqlite:sub/keys.db".parse().unwrap();
                keys::open(&url, directory.path()).await.unwrap()
            }
            Self::JetStream(server) => {
                let url = KeysUrl::beside(&server.log_url());
                keys::open(&url, Path::new("/nonexistent")).await.unwrap()
            }
        }
    }

    /// Every file that the store is kept in.
    fn files(&self) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        match self {
            Self::Memory(_) => {}
            Self::Sqlite(directory) => read_all(directory.path(), &mut files),
            Self::JetStream(server) => read_all(server.directory(), &mut files),
        }
        files
    }

    /// Stops what keeps the keys as hard as can be, and starts it again.
    fn crash(&mut self) {
        if let Self::JetStream(server) = self {
            server.restart();
        }
    }
}

fn read_all(directory: &Path, files: &mut BTreeMap<std::path::PathBuf, Vec<u8>>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(&path, files);
        } else {
            files.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
}

macro_rules! conformance {
    ($($case:ident,)+) => {
        conformance!(@on memory $($case)+);
        conformance!(@on sqlite $($case)+);
        conformance!(@on jetstream $($case)+);
    };
    (@on $stack:ident $($case:ident)+) => {
        mod $stack {
            use super::{DEADLINE, Stack};
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    if let Some(stack) = Stack::$stack() {
                        let case = super::$case(stack);
                        tokio::time::timeout(DEADLINE, case).await.expect("it hangs");
                    }
                }
            )+
        }
    };
}

conformance! {
    a_slot_is_filled_once,
    all_who_fill_a_slot_at_once_learn_of_the_same_key,
    a_key_is_replaced_only_by_who_knows_it,
    nothing_comes_after_a_destruction,
    what_never_was_can_be_destroyed,
    destroying_and_inserting_at_once_destroys,
    everything_is_listed_once,
    everything_acknowledged_is_there_after_a_crash,
    a_destroyed_key_is_in_no_file,
}

fn slot(number: u128) -> Slot {
    let user: UserId = format!("{number:032x}").parse().unwrap();
    Slot::Key(KeyId::Person(user))
}

fn period(number: u128) -> Slot {
    let room = format!("{number:032x}").parse().unwrap();
    let month = Month::of("2026-11-25T00:00:00.000Z".parse::<Timestamp>().unwrap());
    Slot::Key(KeyId::Period { room, month })
}

async fn wrapped(slot: Slot) -> WrappedKey {
    let masters = MasterKeys::random();
    masters.wrap(slot, &DataKey::random()).await.unwrap()
}

async fn inserted(store: &Arc<dyn KeyStore>, slot: Slot) -> WrappedKey {
    let key = wrapped(slot).await;
    let kept = store.insert(slot, key.clone()).await.unwrap();
    assert_eq!(kept, Kept::Wrapped(key.clone()));
    key
}

async fn a_slot_is_filled_once(stack: Stack) {
    let (one, other) = (stack.open().await, stack.open().await);
    for slot in [Slot::Check, slot(1), period(1)] {
        assert_eq!(one.get(slot).await.unwrap(), None);
        let key = inserted(&one, slot).await;
        let second = other.insert(slot, wrapped(slot).await).await.unwrap();
        assert_eq!(second, Kept::Wrapped(key.clone()));
        assert_eq!(other.get(slot).await.unwrap(), Some(Kept::Wrapped(key)));
    }
    assert_eq!(one.get(slot(2)).await.unwrap(), None);
}

async fn all_who_fill_a_slot_at_once_learn_of_the_same_key(stack: Stack) {
    let stores = [stack.open().await, stack.open().await];
    for number in 0..20 {
        let slot = slot(number);
        let inserting = (0..8).map(|index| {
            let store = &stores[index % 2];
            async move { store.insert(slot, wrapped(slot).await).await.unwrap() }
        });
        let kept = join_all(inserting).await;
        assert!(kept.windows(2).all(|pair| pair[0] == pair[1]));
    }
}

async fn a_key_is_replaced_only_by_who_knows_it(stack: Stack) {
    let (one, other) = (stack.open().await, stack.open().await);
    let slot = slot(1);
    let [second, third, unknown] = [
        wrapped(slot).await,
        wrapped(slot).await,
        wrapped(slot).await,
    ];
    assert!(!one.replace(slot, &second, third.clone()).await.unwrap());
    assert_eq!(one.get(slot).await.unwrap(), None);

    let first = inserted(&one, slot).await;
    assert!(other.replace(slot, &first, second.clone()).await.unwrap());
    // Repeated, as after a lost answer.
    assert!(other.replace(slot, &first, second.clone()).await.unwrap());
    assert!(!one.replace(slot, &first, unknown.clone()).await.unwrap());
    assert!(one.replace(slot, &second, third.clone()).await.unwrap());
    let kept = other.get(slot).await.unwrap();
    assert_eq!(kept, Some(Kept::Wrapped(third.clone())));

    one.destroy(slot).await.unwrap();
    assert!(!other.replace(slot, &third, unknown).await.unwrap());
    assert_eq!(other.get(slot).await.unwrap(), Some(Kept::Destroyed));
}

async fn nothing_comes_after_a_destruction(stack: Stack) {
    let (one, other) = (stack.open().await, stack.open().await);
    let slot = slot(1);
    inserted(&one, slot).await;
    other.destroy(slot).await.unwrap();
    one.destroy(slot).await.unwrap();
    let kept = one.insert(slot, wrapped(slot).await).await.unwrap();
    assert_eq!(kept, Kept::Destroyed);
    assert_eq!(other.get(slot).await.unwrap(), Some(Kept::Destroyed));
}

async fn what_never_was_can_be_destroyed(stack: Stack) {
    let store = stack.open().await;
    let slot = period(1);
    store.destroy(slot).await.unwrap();
    assert_eq!(store.get(slot).await.unwrap(), Some(Kept::Destroyed));
    let kept = store.insert(slot, wrapped(slot).await).await.unwrap();
    assert_eq!(kept, Kept::Destroyed);
}

async fn destroying_and_inserting_at_once_destroys(stack: Stack) {
    let (one, other) = (stack.open().await, stack.open().await);
    for number in 0..20 {
        let slot = slot(number);
        let key = wrapped(slot).await;
        let (inserted, destroyed) = tokio::join!(one.insert(slot, key), other.destroy(slot));
        inserted.unwrap();
        destroyed.unwrap();
        assert_eq!(one.get(slot).await.unwrap(), Some(Kept::Destroyed));
    }
}

async fn everything_is_listed_once(stack: Stack) {
    let store = stack.open().await;
    assert!(listed(&store).await.is_empty());
    let mut expected = BTreeMap::new();
    let adding = (0..1_200).map(|number| {
        let (store, slot) = (&store, slot(number));
        async move {
            match number % 100 {
                0 => store.destroy(slot).await.map(|()| (slot, Kept::Destroyed)),
                _ => Ok((slot, Kept::Wrapped(inserted(store, slot).await))),
            }
        }
    });
    for added in join_all(adding).await {
        expected.extend([added.unwrap()]);
    }
    let old = match &expected[&slot(1)] {
        Kept::Wrapped(key) => key.clone(),
        Kept::Destroyed => panic!("it is a key"),
    };
    let new = wrapped(slot(1)).await;
    assert!(store.replace(slot(1), &old, new.clone()).await.unwrap());
    expected.insert(slot(1), Kept::Wrapped(new));
    assert_eq!(listed(&store).await, expected);
}

async fn listed(store: &Arc<dyn KeyStore>) -> BTreeMap<Slot, Kept> {
    let all: Vec<(Slot, Kept)> = store.list().try_collect().await.unwrap();
    let number = all.len();
    let map: BTreeMap<Slot, Kept> = all.into_iter().collect();
    assert_eq!(map.len(), number, "something is listed twice");
    map
}

async fn everything_acknowledged_is_there_after_a_crash(mut stack: Stack) {
    let store = stack.open().await;
    let key = inserted(&store, slot(1)).await;
    inserted(&store, slot(2)).await;
    store.destroy(slot(2)).await.unwrap();
    stack.crash();
    let reopened = stack.open().await;
    for store in [store, reopened] {
        let kept = store.get(slot(1)).await.unwrap();
        assert_eq!(kept, Some(Kept::Wrapped(key.clone())));
        assert_eq!(store.get(slot(2)).await.unwrap(), Some(Kept::Destroyed));
    }
}

/// Whether the wrapped key, as bytes or as base64, is in one of the files.
fn found(files: &BTreeMap<std::path::PathBuf, Vec<u8>>, key: &WrappedKey) -> bool {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(&key.sealed);
    // A part of it will do: the file may have been cut up.
    let patterns = [
        key.sealed[24..56].to_vec(),
        text.as_bytes()[32..64].to_vec(),
    ];
    files.values().any(|bytes| {
        patterns
            .iter()
            .any(|pattern| bytes.windows(pattern.len()).any(|it| it == pattern))
    })
}

async fn a_destroyed_key_is_in_no_file(mut stack: Stack) {
    if matches!(stack, Stack::Memory(_)) {
        return;
    }
    let (store, other) = (stack.open().await, stack.open().await);
    // Enough for several pages, and some of them moved about by what comes after.
    let inserting = (0..300).map(|number| inserted(&store, slot(number)));
    let keys = join_all(inserting).await;
    let old = &keys[7];
    let new = wrapped(slot(7)).await;
    assert!(other.replace(slot(7), old, new.clone()).await.unwrap());
    let files = stack.files();
    if matches!(stack, Stack::JetStream(_)) {
        // What it drops by itself is not overwritten.
        assert!(!found(&files, old), "a replaced key is in a file");
    }
    for key in [&keys[3], &new] {
        assert!(found(&files, key), "the search finds nothing");
    }
    for number in [3, 7, 150, 299] {
        other.destroy(slot(number)).await.unwrap();
    }
    let gone = [&keys[3], old, &new, &keys[150], &keys[299]];
    for _ in 0..2 {
        let files = stack.files();
        for key in gone {
            assert!(!found(&files, key), "a destroyed key is in a file");
        }
        assert!(found(&files, &keys[4]), "another key is gone");
        stack.crash();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_left_is_destroyed_by_the_next_try() {
    let Some(server) = NatsServer::start() else {
        return;
    };
    let url = KeysUrl::beside(&server.log_url());
    let store = keys::open(&url, Path::new("/nonexistent")).await.unwrap();
    let key = inserted(&store, slot(1)).await;
    // As far as a destruction that is killed after its first step.
    let client = async_nats::connect(format!("127.0.0.1:{}", server.port()))
        .await
        .unwrap();
    let subject = format!("$KV.HANSARD-keys.{}", slot(1));
    let tombstone = r#"{"destroyed":true}"#.into();
    client.request(subject, tombstone).await.unwrap();
    let stack = Stack::JetStream(server);
    assert!(found(&stack.files(), &key));
    store.destroy(slot(1)).await.unwrap();
    assert!(!found(&stack.files(), &key));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_in_which_nothing_can_be_destroyed_is_refused() {
    use async_nats::jetstream::{self, stream};
    let Some(server) = NatsServer::start() else {
        return;
    };
    let client = async_nats::connect(format!("127.0.0.1:{}", server.port()))
        .await
        .unwrap();
    // As other programs make a bucket.
    let config = stream::Config {
        name: "KV_HANSARD-keys".to_owned(),
        subjects: vec!["$KV.HANSARD-keys.>".to_owned()],
        discard: stream::DiscardPolicy::New,
        max_messages_per_subject: 64,
        allow_rollup: true,
        deny_delete: true,
        ..stream::Config::default()
    };
    let context = jetstream::new(client);
    context.create_stream(config).await.unwrap();
    let KeysUrl::Nats(address) = KeysUrl::beside(&server.log_url()) else {
        panic!("the log is on NATS");
    };
    match JetStreamKeys::open(&address).await {
        Err(KeyError::Unusable(reason)) => assert!(reason.contains("denies the deletion")),
        other => panic!("{:?}", other.err()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_key_store_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let url = "sqlite:log.db".parse().unwrap();
    drop(event_log::open(&url, directory.path()).await.unwrap());
    let url = "sqlite:log.db".parse().unwrap();
    match keys::open(&url, directory.path()).await {
        Err(KeyError::Unusable(reason)) => assert!(reason.contains("not a Hansard key store")),
        other => panic!("{:?}", other.err()),
    }
}
