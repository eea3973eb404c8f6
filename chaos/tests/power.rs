//! Short runs on a disk that forgets what was not synced: a power loss in the first start, and two while people
//! are at work.
#![allow(clippy::unwrap_used)]

use forgetful_disk::Mounted;
use hansard_chaos::power::{Log, Names, Settings, keep};
use hansard_tests::{Backend, Layout, left_out};

fn nothing_acknowledged_is_lost(log: Log, names: Names) {
    let backend = match log {
        Log::Sqlite => Backend::Embedded,
        Log::Jetstream | Log::JetstreamDefault => Backend::Distributed,
    };
    if let Some(reason) = left_out(backend, Layout::OneProcess) {
        println!("SKIPPED, no power was cut: {reason}");
        return;
    }
    if let Err(error) = Mounted::new(names) {
        println!(
            "SKIPPED, no power was cut: no disk can be mounted that forgets, which takes root and /dev/fuse: {error}"
        );
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings {
        seed: 1,
        log,
        names,
        cuts: 2,
        first_starts: 1,
        directory: directory.path().to_owned(),
    };
    let outcome = keep::run(&settings).unwrap();
    assert!(outcome.acknowledged > 0, "{outcome:?}");
    assert_eq!((outcome.lost, outcome.violations), (0, 0), "{outcome:?}");
}

#[test]
fn sqlite() {
    nothing_acknowledged_is_lost(Log::Sqlite, Names::OfDirectory);
}

#[test]
fn jetstream() {
    nothing_acknowledged_is_lost(Log::Jetstream, Names::InJournal);
}
