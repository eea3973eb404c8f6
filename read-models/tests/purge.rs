//! Texts that have been erased or have expired are not in the databases' files any longer, once these have been
//! purged.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[allow(dead_code)]
mod support;

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use event_log::Incarnation;
use events::{Event, MessageEdited, MessageId, MessagePosted};
use mongodb::Database;
use mongodb::bson::doc;
use read_models::{
    Batch, Catalogue, Entry, Fence, MongoCatalogue, Projection, ReadModels, Search,
    SqliteReadModels, State, Words,
};
use support::history::{History, room, user};

/// In each text that is looked for.
const LETTERS: usize = 20;

/// The last letters of a text, which are enough to know it by.
const TAIL: usize = 12;

/// A word of the text with this number that no other text has, of letters that no compression makes fewer.
fn secret(number: u32) -> String {
    let mut state = u64::from(number) + 1;
    (0..LETTERS)
        .map(|_| {
            // Knuth's MMIX.
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            char::from(b'a' + (state >> 59) as u8 % 26)
        })
        .collect()
}

/// Messages and edits of two people, of whom one is erased, and what is oldest expires. It is few enough that no
/// index is cleaned of it by itself.
struct Told {
    history: History,
    /// What is not to be found in the end.
    gone: Vec<String>,
    /// What is.
    kept: Vec<String>,
}

fn told(messages: u32) -> Told {
    let mut history = History::default();
    for number in 0..3 {
        history.create(number);
    }
    history.initiate(0, 0);
    history.initiate(2, 0);
    let (mut gone, mut kept, mut posted) = (Vec::new(), Vec::new(), Vec::new());
    let mut last_expired: Option<MessageId> = None;
    for number in 0..messages {
        let author = u8::from(number % 25 != 0);
        let text = secret(number);
        let id = history.post(
            room(0, 0),
            author,
            &format!("{text} {}", "x".repeat(number as usize % 90)),
        );
        let expires = number < messages / 50;
        if expires {
            last_expired = Some(id);
        }
        match author == 0 || expires {
            true => gone.push(text),
            false => kept.push(text),
        }
        posted.push((id, author, expires));
    }
    for (number, (id, author, expires)) in (messages..).zip(&posted).step_by(7) {
        let text = secret(number);
        history.edit(room(0, 0), *id, *author, &text);
        match *author == 0 || *expires {
            true => gone.push(text),
            false => kept.push(text),
        }
    }
    history.expire(room(0, 0), last_expired.unwrap());
    history.erase(0);
    Told {
        history,
        gone,
        kept,
    }
}

async fn apply_in_batches(read_models: &dyn Projection, entries: &[Entry]) {
    for entries in entries.chunks(500) {
        let batch = Batch {
            incarnation: Incarnation("the log".to_owned()),
            entries: entries.to_vec(),
            up_to: entries.last().unwrap().position,
            fence: Fence::default(),
        };
        read_models.apply(&batch).await.unwrap();
    }
}

/// Which of the texts are in the file, or in any of the directory's.
fn found_in(path: &Path, texts: &[String]) -> BTreeSet<String> {
    // Indexes leave out what a word has in common with the one before.
    let tail = |text: &'_ String| text.as_bytes()[LETTERS - TAIL..].to_vec();
    let texts: HashSet<Vec<u8>> = texts.iter().map(tail).collect();
    let mut found = BTreeSet::new();
    let files = match path.is_dir() {
        false => vec![path.to_owned()],
        true => {
            let entries = std::fs::read_dir(path).unwrap();
            entries.map(|entry| entry.unwrap().path()).collect()
        }
    };
    for file in files {
        let bytes = std::fs::read(file).unwrap();
        let runs = bytes.split(|byte| !byte.is_ascii_lowercase());
        for window in runs.flat_map(|run| run.windows(TAIL)) {
            if texts.contains(window) {
                found.insert(String::from_utf8(window.to_vec()).unwrap());
            }
        }
    }
    found
}

#[tokio::test]
async fn nothing_erased_or_expired_is_left_in_the_files_of_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("read.db");
    let read_models = SqliteReadModels::open(&path).await.unwrap();
    let Told {
        history,
        gone,
        kept,
    } = told(4_000);
    let (erasure, before) = history.entries.split_last().unwrap();
    apply_in_batches(&read_models, before).await;
    assert!(!found_in(directory.path(), &gone).is_empty());
    apply_in_batches(&read_models, std::slice::from_ref(erasure)).await;

    read_models.purge().await.unwrap();

    assert_eq!(found_in(directory.path(), &gone), BTreeSet::new());
    // The others are there, and are found.
    assert_eq!(found_in(directory.path(), &kept).len(), kept.len());
    for (text, expected) in [(&gone[90], 0), (&kept[900], 1)] {
        let search = Search {
            words: Words::of(text),
            room: None,
            before: None,
            limit: 10,
        };
        let found = read_models.search(user(1), search).await.unwrap();
        assert_eq!(found.len(), expected);
    }
    // What has been purged is not purged again.
    read_models.purge().await.unwrap();
}

/// The history as its log gives it once the keys are destroyed: without the texts that are gone.
fn without(texts: &[String], entries: &[Entry]) -> Vec<Entry> {
    let mut entries = entries.to_vec();
    for entry in &mut entries {
        let (Event::MessagePosted(MessagePosted { message_text, .. })
        | Event::MessageEdited(MessageEdited { message_text, .. })) = &mut entry.envelope.event
        else {
            continue;
        };
        let word = |text: &String| text.chars().take(LETTERS).collect::<String>();
        message_text.take_if(|text| texts.contains(&word(text)));
    }
    entries
}

/// MongoDB overwrites nothing by itself: `compact` gives back what it can of a file. Sure is what a rebuild does, which
/// makes new files and removes the old ones. The journal and the oplog are the server's, and hold what was
/// written for as long as it is set up to.
#[tokio::test]
async fn nothing_erased_or_expired_is_left_in_the_files_of_rebuilt_collections_of_mongodb() {
    let Some(binary) = xtask::servers::for_tests("HANSARD_TEST_MONGOD") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let port = xtask::port::Port::reserve().unwrap();
    let _server = xtask::mongod::start(&binary, directory.path(), &port).unwrap();
    let url = format!("mongodb://{}/hansard", port.address());
    let catalogue = MongoCatalogue::open(&url).await.unwrap();
    catalogue.prepare().await.unwrap();
    let client = mongodb::Client::with_uri_str(&url).await.unwrap();
    let database = client.default_database().unwrap();
    // Dropped files stay for as long as snapshots of them may be read: five minutes unless told otherwise.
    let at_once = doc! { "setParameter": 1, "minSnapshotHistoryWindowInSeconds": 0 };
    let admin = client.database("admin");
    admin.run_command(at_once).await.unwrap();
    let sync = async || {
        admin.run_command(doc! { "fsync": 1 }).await.unwrap();
    };
    let is_there = |file: &Path, gone: &[String]| !found_in(file, gone).is_empty();
    let Told {
        history,
        gone,
        kept,
    } = told(4_000);
    let (erasure, before) = history.entries.split_last().unwrap();

    // Given messages in the files of a generation.
    catalogue.add(0, State::Live).await.unwrap().unwrap();
    let first = catalogue.open(1).await.unwrap();
    first.prepare().await.unwrap();
    apply_in_batches(first.as_ref(), before).await;
    sync().await;
    let old = files_of(&database, directory.path(), 1).await;
    assert!(old.iter().any(|file| is_there(file, &gone)));
    apply_in_batches(first.as_ref(), std::slice::from_ref(erasure)).await;
    first.purge().await.unwrap();

    // When another is made from what the log still gives, and the first one removed.
    catalogue.add(1, State::Building).await.unwrap().unwrap();
    let second = catalogue.open(2).await.unwrap();
    second.prepare().await.unwrap();
    apply_in_batches(second.as_ref(), &without(&gone, &history.entries)).await;
    catalogue.remove(1).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while old.iter().any(|file| file.exists()) {
        assert!(Instant::now() < deadline, "the old files are still there");
        sync().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // Then its files have what is left and nothing else.
    sync().await;
    let new = files_of(&database, directory.path(), 2).await;
    assert!(new.iter().all(|file| !is_there(file, &gone)));
    assert!(new.iter().any(|file| is_there(file, &kept)));
}

/// The files of a generation's collections and indexes.
async fn files_of(database: &Database, directory: &Path, number: u32) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for collection in ["messages", "edits", "users", "deadLetters"] {
        let stats = doc! { "collStats": format!("g{number}_{collection}"), "indexDetails": true };
        // One in which nothing has been stored has no file.
        let Ok(stats) = database.run_command(stats).await else {
            continue;
        };
        let mut uris = Vec::new();
        if let Ok(tree) = stats.get_document("wiredTiger") {
            uris.push(tree.get_str("uri").unwrap());
        }
        if let Ok(indexes) = stats.get_document("indexDetails") {
            let trees = indexes.values().map(|index| index.as_document().unwrap());
            uris.extend(trees.map(|tree| tree.get_str("uri").unwrap()));
        }
        for uri in uris {
            let name = uri.strip_prefix("statistics:table:").unwrap();
            files.push(directory.join("mongod").join(format!("{name}.wt")));
        }
    }
    assert!(files.len() > 2);
    files
}
