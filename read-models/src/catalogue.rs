//! The catalogue: which generations of the read models there are, and what each is for.
//!
//! A generation begins empty and is filled from the log. While one is read, the next can be built beside
//! it, by the same program or by one with another schema, and then take its place at one moment:
//!
//! | state | written | commands wait for it | read |
//! |---|---|---|---|
//! | building | yes | | |
//! | joining | yes | yes | |
//! | live | yes | yes | the newest of the program's schema |
//! | retired, rejected | | | |
//!
//! Processes look at the catalogue about once a second, so one may still read the old generation while
//! another already reads the new one. Between the steps there is time for all to notice (see the projector),
//! and commands wait for both: whoever reads after its own command sees it in either.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{Projection, ReadModelError, TreeStore};

/// What a generation is for at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is being filled from the log.
    Building,
    /// It is complete and about to be read.
    Joining,
    /// It may be read.
    Live,
    /// Another has taken its place: it is to be removed.
    Retired,
    /// It did not stand its examination: it is to be removed.
    Rejected,
}

impl State {
    /// As it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Building => "building",
            Self::Joining => "joining",
            Self::Live => "live",
            Self::Retired => "retired",
            Self::Rejected => "rejected",
        }
    }

    /// Whether a projector is to write it.
    pub fn is_written(self) -> bool {
        matches!(self, Self::Building | Self::Joining | Self::Live)
    }

    /// Whether commands wait until their events are in it.
    pub fn is_waited_for(self) -> bool {
        matches!(self, Self::Joining | Self::Live)
    }
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A text that names no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no state of a generation")]
pub struct UnknownState(String);

impl FromStr for State {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, UnknownState> {
        let all = [
            Self::Building,
            Self::Joining,
            Self::Live,
            Self::Retired,
            Self::Rejected,
        ];
        all.into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| UnknownState(text.to_owned()))
    }
}

/// A generation of the read models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// Its number: 1, 2, 3, …; never used again.
    pub number: u32,
    /// The schema of the program that made it.
    pub schema: u32,
    /// What it is for.
    pub state: State,
    /// What is to be said of its state, for people: why it was rejected, for example.
    pub note: Option<String>,
}

/// The generations as they were at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Generations {
    /// The number given last; 0 before the first.
    pub last: u32,
    /// Those that there are, by number.
    pub all: Vec<Generation>,
}

impl Generations {
    /// Those of a schema in log order of their making.
    pub fn of(&self, schema: u32) -> impl DoubleEndedIterator<Item = &Generation> {
        self.all.iter().filter(move |it| it.schema == schema)
    }

    /// The one that programs with this schema read.
    pub fn live(&self, schema: u32) -> Option<&Generation> {
        self.of(schema).rfind(|it| it.state == State::Live)
    }

    /// The one with this number.
    pub fn get(&self, number: u32) -> Option<&Generation> {
        self.all.iter().find(|it| it.number == number)
    }
}

/// The catalogue of the generations in one database.
///
/// Every method may be called from many tasks and processes at once, and dropping a returned future at any
/// moment is safe.
#[async_trait]
pub trait Catalogue: Send + Sync + 'static {
    /// The schema that this program reads and writes: [`crate::SCHEMA`], except in tests.
    fn schema(&self) -> u32;

    /// Creates the catalogue itself, if it is missing.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn prepare(&self) -> Result<(), ReadModelError>;

    /// What there is.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn generations(&self) -> Result<Generations, ReadModelError>;

    /// Adds a generation of this program's schema, with the number after `last`. `None` when others have
    /// been added since [`Generations::last`] was `last`.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn add(&self, last: u32, state: State) -> Result<Option<Generation>, ReadModelError>;

    /// Changes the state of a generation from `from` to `to`, with what is to be said of it. `false` when
    /// it was not in that state.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn change(
        &self,
        number: u32,
        from: State,
        to: State,
        note: Option<&str>,
    ) -> Result<bool, ReadModelError>;

    /// The heartbeat of a generation of whatever schema; `None` when nobody has ever written it.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn heartbeat(&self, number: u32) -> Result<Option<u64>, ReadModelError>;

    /// Removes everything that is stored for the generation, then the generation itself. To be repeated
    /// when it fails midway.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn remove(&self, number: u32) -> Result<(), ReadModelError>;

    /// Opens the generation with this number, which is of this program's schema.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn open(&self, number: u32) -> Result<Arc<dyn Projection>, ReadModelError>;

    /// The Merkle tree over the log that is stored in the same database.
    fn tree(&self) -> Arc<dyn TreeStore>;
}
