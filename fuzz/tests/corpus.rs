//! Every input that was ever found to matter is decoded again.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use fuzz::{Outcome, TARGETS};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn names_in(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target() {
    let targets = TARGETS.iter().map(|target| target.name.to_owned());
    assert_eq!(names_in(&corpus()), targets.collect());
}

#[test]
fn no_input_of_the_corpus_is_too_much_for_its_decoder() {
    for target in TARGETS {
        let directory = corpus().join(target.name);
        let mut outcomes = BTreeSet::new();
        for name in names_in(&directory) {
            // Printed only when the test fails: the last line names the input.
            println!("{}/{name}", target.name);
            outcomes.insert((target.run)(&fs::read(directory.join(&name)).unwrap()));
        }
        // Inputs that are all refused at the door show little.
        assert_eq!(
            outcomes,
            BTreeSet::from([Outcome::Accepted, Outcome::Refused]),
            "{}",
            target.name
        );
    }
}

#[test]
fn the_worst_of_every_sort_is_refused_or_understood() {
    let deep = "[".repeat(100_000);
    let long = "a".repeat(100_000);
    for target in TARGETS {
        for input in [
            &b""[..],
            &[0; 64],
            &[0xff; 64],
            deep.as_bytes(),
            long.as_bytes(),
        ] {
            (target.run)(input);
        }
    }
}
