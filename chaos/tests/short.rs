//! A short pass of chaos on each stack, with a fixed seed: a few rounds of short faults.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use hansard_chaos::run::{Length, Settings, run};
use hansard_tests::{Backend, Layout};

/// As four processes, with a second of each.
fn keeps_its_promises(backend: Backend, seed: u64) {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings {
        seed,
        backend,
        layout: Layout::FourProcesses,
        length: Length::Rounds {
            rounds: 6,
            operations: 400,
        },
        longest_fault: Duration::from_secs(3),
        directory: directory.path().to_owned(),
    };
    let violations = run(&settings).unwrap();
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn embedded() {
    keeps_its_promises(Backend::Embedded, 1);
}

#[test]
fn distributed() {
    keeps_its_promises(Backend::Distributed, 1);
}
