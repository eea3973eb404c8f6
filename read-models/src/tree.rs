//! The port to the stored Merkle tree over the log, [`TreeStore`]: tiles, size, and every signed tree head.
//!
//! It is kept beside the read models and belongs to none of their generations: making those anew leaves it
//! as it is. A tree that is given up on purpose, since its log was given up, stays with its number; the next
//! one begins beside it.

use std::collections::BTreeSet;

use async_trait::async_trait;
use event_log::Incarnation;
use merkle::{Hash, TileId, Tiles, TreeHead};

use crate::ReadModelError;

/// Why an operation on the stored tree failed.
#[derive(Debug, thiserror::Error)]
pub enum TreeStoreError {
    /// The store can't do it.
    #[error(transparent)]
    Store(#[from] ReadModelError),
    /// What is stored is not what is to be stored in its place: one of them has been tampered with.
    #[error("the stored {what} contradicts what the log gives: one of them was changed")]
    Contradiction {
        /// Which tile or tree head.
        what: String,
    },
}

/// A tree that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptTree {
    /// Its number: 1, 2, 3, …
    pub number: u32,
    /// The log that it is over.
    pub log: Incarnation,
    /// How many leaves are stored.
    pub size: u64,
}

/// The stored tree.
///
/// Every method may be called from many tasks and processes at once, and dropping a returned future at any
/// moment is safe. Nothing that is stored is ever changed: tiles and the size grow, tree heads are added.
#[async_trait]
pub trait TreeStore: Send + Sync + 'static {
    /// The newest tree; `None` before the first.
    ///
    /// # Errors
    /// [`TreeStoreError::Store`].
    async fn newest(&self) -> Result<Option<KeptTree>, TreeStoreError>;

    /// Begins a tree over this log, with the number after `last`: that of the newest one, 0 before the
    /// first. Somebody else may have been faster: the answer is the newest one either way.
    ///
    /// # Errors
    /// [`TreeStoreError::Store`].
    async fn begin(&self, last: u32, log: &Incarnation) -> Result<KeptTree, TreeStoreError>;

    /// Those of the tiles that are stored.
    ///
    /// # Errors
    /// [`TreeStoreError::Store`].
    async fn tiles(&self, tree: u32, ids: &BTreeSet<TileId>) -> Result<Tiles, TreeStoreError>;

    /// Stores tiles, and then the size `to` if it was `from`. `false` when it was not: somebody else has
    /// stored, or is storing, the same.
    ///
    /// # Errors
    /// [`TreeStoreError`]: a stored tile that has other hashes stays as it is.
    async fn grow(
        &self,
        tree: u32,
        from: u64,
        to: u64,
        tiles: &Tiles,
    ) -> Result<bool, TreeStoreError>;

    /// Keeps a tree head. One of the same size and root is kept already, perhaps: then that one stays.
    ///
    /// # Errors
    /// [`TreeStoreError`]: one of the same size with another root stays as it is.
    async fn add_head(&self, tree: u32, head: &TreeHead) -> Result<(), TreeStoreError>;

    /// The tree head of the largest size, as a signed note.
    ///
    /// # Errors
    /// [`TreeStoreError::Store`].
    async fn latest_head(&self, tree: u32) -> Result<Option<String>, TreeStoreError>;

    /// Tree heads as signed notes, by size: those of more than `after` leaves, at most `limit`.
    ///
    /// # Errors
    /// [`TreeStoreError::Store`].
    async fn heads(&self, tree: u32, after: u64, limit: u32)
    -> Result<Vec<String>, TreeStoreError>;
}

/// What a stored tile comes to beside the one to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beside {
    /// It has all of it.
    Enough,
    /// It has the beginning of it.
    Less,
}

/// Compares a stored tile with the one to be stored: one must begin with the other.
pub(crate) fn beside(id: TileId, stored: &[u8], new: &[u8]) -> Result<Beside, TreeStoreError> {
    if stored.starts_with(new) {
        return Ok(Beside::Enough);
    }
    if new.starts_with(stored) {
        return Ok(Beside::Less);
    }
    let pairs = stored.chunks(Hash::BYTES).zip(new.chunks(Hash::BYTES));
    let at = pairs.take_while(|(stored, new)| stored == new).count();
    Err(TreeStoreError::Contradiction {
        what: format!(
            "hash {at} of tile {} of level {} of the tree",
            id.index, id.level
        ),
    })
}

/// Compares a stored tree head with the one of the same size to be stored.
pub(crate) fn check_head(stored: &str, new: &TreeHead) -> Result<(), TreeStoreError> {
    if TreeHead::parse(stored).is_ok_and(|stored| stored.root == new.root) {
        return Ok(());
    }
    Err(TreeStoreError::Contradiction {
        what: format!("tree head of size {}", new.size),
    })
}
