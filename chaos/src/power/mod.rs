//! Power losses: everything that Hansard and its servers write is on a disk that forgets what was not synced
//! ([`forgetful_disk`]), and the power is cut while people are at work.
//!
//! - [`keep`] cuts the power again and again, and checks that no promise is broken.
//! - [`lose`] does so where the log is not synced before it acknowledges. It counts what is lost, and tries
//!   what an operator is told to do then.

mod databases;
pub mod keep;
pub mod lose;
mod machine;

use std::fmt;
use std::path::PathBuf;

use clap::ValueEnum;
pub use forgetful_disk::Names;
use hansard_tests::{Auth, Backend, Layout, Options};
use rand::Rng;
use rand::rngs::StdRng;

/// Where the log is, and when it is synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Log {
    /// In SQLite, which syncs each group of commits; the read models are in SQLite too.
    Sqlite,
    /// In JetStream with `sync_interval: always`; the read models are in MongoDB.
    Jetstream,
    /// In JetStream as it is by default, synced every two minutes; the read models are in MongoDB.
    JetstreamDefault,
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The seed of every choice, though not of what the machine makes of it.
    pub seed: u64,
    /// Where the log is.
    pub log: Log,
    /// What makes a name on the disk durable.
    pub names: Names,
    /// How often the power is cut while people are at work.
    pub cuts: usize,
    /// How often it is cut while everything starts for the first time, before that, each time on a new disk.
    pub first_starts: usize,
    /// Where the history is written.
    pub directory: PathBuf,
}

impl Settings {
    /// One process, with everything on that disk.
    fn options(&self, disk: &std::path::Path) -> Options {
        let backend = match self.log {
            Log::Sqlite => Backend::Embedded,
            Log::Jetstream | Log::JetstreamDefault => Backend::Distributed,
        };
        let mut options = Options::new(backend, Layout::OneProcess, Auth::Token);
        options.own_mongod = backend == Backend::Distributed;
        options.lazy_sync = self.log == Log::JetstreamDefault;
        options.data_directory = Some(disk.join("data"));
        options.servers_directory = Some(disk.to_owned());
        options
    }
}

impl fmt::Display for Log {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Sqlite => "SQLite, `synchronous=FULL`",
            Self::Jetstream => "JetStream, `sync_interval: always`",
            Self::JetstreamDefault => "JetStream, default",
        })
    }
}

/// What makes a name durable, in a few words.
fn rule_of(names: Names) -> &'static str {
    match names {
        Names::OfDirectory => "its directory is synced",
        Names::InJournal => "anything is synced",
    }
}

/// A time by chance, up to so long.
fn up_to(longest: std::time::Duration, random: &mut StdRng) -> std::time::Duration {
    longest.mul_f64(random.random())
}
