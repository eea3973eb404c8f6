//! A real mongod is started, killed and started again.
#![allow(clippy::unwrap_used)]

use xtask::mongod;
use xtask::port::Port;

#[test]
fn a_killed_mongod_starts_again_on_its_data() {
    let Some(binary) = xtask::servers::for_tests("HANSARD_TEST_MONGOD") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let port = Port::reserve().unwrap();

    let mut first = mongod::start(&binary, directory.path(), &port).unwrap();
    first.kill();
    let mut second = mongod::start(&binary, directory.path(), &port).unwrap();

    assert!(second.ended().is_none());
}

#[test]
fn a_program_that_is_no_mongod_is_reported_with_its_output() {
    let directory = tempfile::tempdir().unwrap();
    let port = Port::reserve().unwrap();

    let error =
        mongod::start(std::path::Path::new("/bin/ls"), directory.path(), &port).unwrap_err();

    let text = format!("{error:#}");
    assert!(text.contains("ended at once"), "{text}");
    assert!(text.contains("unrecognized option"), "{text}");
}
