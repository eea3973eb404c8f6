//! Hostile input: one target for each decoder that takes bytes from outside, and inputs for them.
//!
//! A target is a function of bytes that panics when the decoder does what it must not. `fuzz/corpus/TARGET/` has
//! its inputs, which every run of the tests decodes again (`tests/corpus.rs`); `cargo xtask fuzz` invents more
//! of them, led by what code they reach (`main.rs`). Both need nothing but these functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod targets;

use std::fmt::Display;

pub use targets::TARGETS;

/// A decoder under attack.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// What it is called: the name of its directory in the corpus.
    pub name: &'static str,
    /// Decodes the bytes.
    ///
    /// # Panics
    /// The decoder has a fault.
    pub run: fn(&[u8]) -> Outcome,
}

impl Target {
    /// The target of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        TARGETS.iter().find(|target| target.name == name)
    }
}

/// What became of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It means something.
    Accepted,
    /// It means nothing, and it was said why.
    Refused,
}

impl Outcome {
    /// The outcome of a decoding whose value is not looked at any further.
    fn of<T, E: Display>(decoded: Result<T, E>) -> Self {
        match decoded {
            Ok(_) => Self::Accepted,
            Err(error) => refused(&error),
        }
    }
}

/// The input is refused with this error, which must say something.
fn refused(error: &dyn Display) -> Outcome {
    let text = error.to_string();
    assert!(!text.trim().is_empty(), "refused without a word");
    Outcome::Refused
}

/// The first byte, which chooses among the ways in which a target reads the rest; 0 where there is none.
fn choice(data: &[u8]) -> (u8, &[u8]) {
    match data {
        [] => (0, data),
        [choice, rest @ ..] => (*choice, rest),
    }
}
