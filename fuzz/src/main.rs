//! Invents inputs for the target that the variable names, with libFuzzer, whose options are its arguments. To
//! be run by `cargo xtask fuzz`, which builds it in such a way that libFuzzer sees what code an input reaches.
#![no_main]
#![allow(clippy::expect_used, missing_docs)]

use std::sync::LazyLock;

use fuzz::Target;
use libfuzzer_sys::fuzz_target;
use nix::sys::resource::{Resource, setrlimit};

/// How much memory the process may have, in bytes: no input needs nearly as much. Beyond it an allocation
/// fails, which ends the process as a panic does.
const MEMORY: u64 = 1 << 30;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("HANSARD_FUZZ_TARGET").expect("`cargo xtask fuzz` says which target");
    setrlimit(Resource::RLIMIT_DATA, MEMORY, MEMORY).expect("memory can be limited");
    Target::named(&name).expect("the target is one of fuzz::TARGETS")
});

fuzz_target!(|data: &[u8]| {
    (TARGET.run)(data);
});
