//! What is found wrong with a log, a stored tree or a tree head, and what is only out of reach.

use event_log::{Incarnation, LogError, Position};
use merkle::{InvalidHead, TreeError};
use read_models::{ReadModelError, TreeStoreError};

/// The log is not what was hashed and signed, or what was stored of that was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Tampering {
    /// It is another log.
    #[error(
        "the log was replaced: it is log {:?}, the tree is over log {:?}; give the projector that log, or begin a new \
         tree with `hansard tree begin-anew`",
        log.0, tree.0
    )]
    OtherLog {
        /// The log's identity.
        log: Incarnation,
        /// That of the log that was hashed.
        tree: Incarnation,
    },
    /// Its end is gone.
    #[error(
        "the log's tail was cut off: it ends at position {log}, and {by} has {size} events; restore the whole log, or \
         begin a new tree with `hansard tree begin-anew`"
    )]
    CutOff {
        /// The position of the log's last event.
        log: Position,
        /// What says that there were more: the tree, or a tree head.
        by: &'static str,
        /// How many there were.
        size: u64,
    },
    /// An event is another one than was hashed.
    #[error("the event at position {0} is not the one that was hashed: see `hansard verify log`")]
    Changed(Position),
    /// The first events do not give a signed root.
    #[error("the first {0} events are not those of the signed tree head: see `hansard verify log`")]
    Root(u64),
    /// The newest tree head is not what this notary would have signed.
    #[error(
        "the newest tree head can't be trusted: {0}; if the key was changed, or another projector signs with its own, \
         name all keys in one signing_key_file for all projectors"
    )]
    Head(InvalidHead),
    /// The newest tree head is over another log than the tree.
    #[error("the newest tree head is over log {0:?}, the tree over another one")]
    HeadOfOtherLog(String),
    /// What is stored of the tree is not whole.
    #[error("the stored tree was changed: {0}")]
    Tree(TreeError),
    /// What is stored of the tree differs from what the log gives.
    #[error("{0}; see `hansard verify log`")]
    Contradiction(String),
}

/// Why the notary can't go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// Something is wrong.
    #[error(transparent)]
    Tampering(#[from] Tampering),
    /// Something can't be reached.
    #[error("{0}")]
    Outage(String),
}

impl From<LogError> for Trouble {
    fn from(error: LogError) -> Self {
        Self::Outage(error.to_string())
    }
}

impl From<ReadModelError> for Trouble {
    fn from(error: ReadModelError) -> Self {
        Self::Outage(error.to_string())
    }
}

impl From<TreeStoreError> for Trouble {
    fn from(error: TreeStoreError) -> Self {
        match error {
            TreeStoreError::Store(error) => error.into(),
            contradiction @ TreeStoreError::Contradiction { .. } => {
                Tampering::Contradiction(contradiction.to_string()).into()
            }
        }
    }
}

impl From<TreeError> for Trouble {
    fn from(error: TreeError) -> Self {
        Tampering::Tree(error).into()
    }
}
