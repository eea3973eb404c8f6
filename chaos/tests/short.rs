//! A short pass of chaos on each stack: a few rounds of short faults, with seeds that bring many kinds of them.
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
        upgrade_from: None,
        directory: directory.path().to_owned(),
    };
    let violations = run(&settings).unwrap();
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn embedded() {
    // Everything killed at once, the disk full, clocks, resets, pauses.
    keeps_its_promises(Backend::Embedded, 527);
}

#[test]
fn distributed() {
    // Resets before Hansard and before both servers, nats-server killed and paused, a rebuild.
    keeps_its_promises(Backend::Distributed, 6824);
}
