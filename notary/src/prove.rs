//! Proofs from the stored tree, for whoever hands them on.

use event_log::{EventLog, LogError, Position};
use merkle::{
    ConsistencyProof, Hash, InclusionProof, InvalidHead, MISSING, TILE_WIDTH, TileId, TreeError,
    TreeHead, index_of, leaf_data, leaf_hash, root, tiles_for_consistency, tiles_for_inclusion,
    tiles_for_root,
};
use read_models::{KeptTree, TreeStore, TreeStoreError};

/// There is no proof.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// The stored tree can't be read.
    #[error(transparent)]
    Store(#[from] TreeStoreError),
    /// The log can't be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// No tree head has been signed yet.
    #[error("no tree head has been signed yet")]
    Unsigned,
    /// The newest tree head does not cover the event yet.
    #[error("the newest tree head has {size} events: it does not cover position {position} yet")]
    NotCovered {
        /// The event's position.
        position: Position,
        /// How many events it has.
        size: u64,
    },
    /// There can be no event at this position.
    #[error("the log has no event at position {0}")]
    NoEvent(Position),
    /// A size that no proof can be from or to.
    #[error("there is a proof from 1 <= from <= to <= {size}, the size of the newest tree head")]
    Sizes {
        /// How many events the newest tree head has.
        size: u64,
    },
    /// The event is another one than was hashed.
    #[error("the event at position {0} is not the one that was hashed: see `hansard verify log`")]
    Changed(Position),
    /// The stored tree is not whole.
    #[error("the stored tree was changed: {0}")]
    Tree(#[from] TreeError),
    /// The newest tree head is none.
    #[error("the stored tree head was changed: {0}")]
    Head(#[from] InvalidHead),
}

/// The stored tree with its newest tree head, for proofs that refer to the same one.
pub struct Proven<'a> {
    store: &'a dyn TreeStore,
    kept: KeptTree,
    /// The newest tree head.
    pub head: TreeHead,
}

impl<'a> Proven<'a> {
    /// Looks up the newest tree head.
    ///
    /// # Errors
    /// [`ProveError`].
    pub async fn newest(store: &'a dyn TreeStore) -> Result<Self, ProveError> {
        let kept = store.newest().await?.ok_or(ProveError::Unsigned)?;
        let note = store.latest_head(kept.number).await?;
        let head = TreeHead::parse(&note.ok_or(ProveError::Unsigned)?)?;
        Ok(Self { store, kept, head })
    }

    /// Proves that the log has the event at `position`, as it stands in the log now.
    ///
    /// # Errors
    /// [`ProveError`].
    pub async fn inclusion(
        &self,
        log: &dyn EventLog,
        position: Position,
    ) -> Result<InclusionProof, ProveError> {
        let index = index_of(position).ok_or(ProveError::NoEvent(position))?;
        let event = log.get(position).await?;
        let size = self.head.size;
        if index >= size {
            return Err(match event {
                Some(_) => ProveError::NotCovered { position, size },
                None => ProveError::NoEvent(position),
            });
        }
        let data = match event {
            Some(event) => leaf_data(position, &event.payload),
            None => MISSING.to_vec(),
        };
        let own = TileId {
            level: 0,
            index: index / TILE_WIDTH as u64,
        };
        let mut ids = tiles_for_inclusion(size, index)?;
        ids.insert(own);
        let tiles = self.store.tiles(self.kept.number, &ids).await?;
        // A proof that proves nothing would only be noticed by whoever it is handed to.
        let begin = usize::try_from(index % TILE_WIDTH as u64).unwrap_or_default() * Hash::BYTES;
        let hashed = tiles
            .get(&own)
            .and_then(|hashes| hashes.get(begin..begin + Hash::BYTES))
            .ok_or(TreeError::Tile(own))?;
        if leaf_hash(&data).0[..] != *hashed {
            return Err(ProveError::Changed(position));
        }
        let hashes = merkle::prove_inclusion(size, index, &tiles)?;
        Ok(InclusionProof::new(position, &data, hashes, &self.head))
    }

    /// Proves that the tree with the first `to` events begins with the one with the first `from`.
    ///
    /// # Errors
    /// [`ProveError`].
    pub async fn consistency(&self, from: u64, to: u64) -> Result<ConsistencyProof, ProveError> {
        let size = self.head.size;
        if from == 0 || from > to || to > size {
            return Err(ProveError::Sizes { size });
        }
        let mut ids = tiles_for_consistency(from, to)?;
        ids.extend(tiles_for_root(from));
        ids.extend(tiles_for_root(to));
        let tiles = self.store.tiles(self.kept.number, &ids).await?;
        Ok(ConsistencyProof {
            from,
            to,
            from_root: root(from, &tiles)?,
            to_root: root(to, &tiles)?,
            hashes: merkle::prove_consistency(from, to, &tiles)?,
        })
    }
}
