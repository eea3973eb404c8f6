//! A tree that grows at its end. It holds the unfinished tile of each level only, and what is to be stored.

use tlog_tiles::tile::Tile;

use crate::tiles::HEIGHT;
use crate::{Hash, TILE_WIDTH, TileId, Tiles, TreeError, root};

/// Bytes of a full tile.
const FULL: usize = TILE_WIDTH * Hash::BYTES;

/// A growing tree.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    size: u64,
    /// The unfinished tile of each level, perhaps empty.
    edge: Vec<Vec<u8>>,
    /// Tiles that were finished since they were last taken.
    finished: Tiles,
    /// The size when they were last taken.
    taken: u64,
}

impl Tree {
    /// Which tiles to [`resume`](Self::resume) a tree of this size from: at most one of each level.
    pub fn tiles_to_resume(size: u64) -> Vec<TileId> {
        let levels = 0_u8..=u8::MAX;
        let counts = levels.map_while(|level| Some((level, count_at(size, level)?)));
        counts
            .filter(|(_, count)| width(*count) > 0)
            .map(|(level, count)| TileId {
                level,
                index: count >> HEIGHT,
            })
            .collect()
    }

    /// Goes on with the tree of this size, from its stored tiles.
    ///
    /// # Errors
    /// [`TreeError::Tile`].
    pub fn resume(size: u64, tiles: &Tiles) -> Result<Self, TreeError> {
        let mut edge = Vec::new();
        for (level, count) in (0_u8..=u8::MAX).map_while(|it| Some((it, count_at(size, it)?))) {
            let id = TileId {
                level,
                index: count >> HEIGHT,
            };
            let bytes = width(count) * Hash::BYTES;
            let stored = tiles.get(&id).map_or(&[][..], Vec::as_slice);
            // It may be longer: whoever stored it may have ended before it stored the new size.
            let hashes = stored.get(..bytes).ok_or(TreeError::Tile(id))?;
            edge.push(hashes.to_vec());
        }
        Ok(Self {
            size,
            edge,
            finished: Tiles::new(),
            taken: size,
        })
    }

    /// How many leaves there are.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf by its hash.
    pub fn append(&mut self, leaf: Hash) {
        self.size += 1;
        let mut hash = leaf;
        for level in 0_u8.. {
            let at = usize::from(level);
            if self.edge.len() == at {
                self.edge.push(Vec::new());
            }
            let tile = &mut self.edge[at];
            tile.extend_from_slice(&hash.0);
            if tile.len() < FULL {
                return;
            }
            let tile = std::mem::take(tile);
            hash = Tile::subtree_hash(&tile).into();
            let id = TileId {
                level,
                index: (count_at(self.size, level).unwrap_or_default() >> HEIGHT) - 1,
            };
            self.finished.insert(id, tile);
        }
    }

    /// The root.
    ///
    /// # Errors
    /// None: what a tree holds is enough for its own root.
    pub fn root(&self) -> Result<Hash, TreeError> {
        root(self.size, &self.unfinished(0).collect())
    }

    /// The tiles that are new or have grown since they were last taken, to be stored.
    pub fn take_changed(&mut self) -> Tiles {
        let mut changed = std::mem::take(&mut self.finished);
        changed.extend(self.unfinished(self.taken));
        self.taken = self.size;
        changed
    }

    /// The unfinished tiles that have got something since the size was `since`.
    fn unfinished(&self, since: u64) -> impl Iterator<Item = (TileId, Vec<u8>)> {
        let levels = (0_u8..).zip(&self.edge);
        levels.filter_map(move |(level, hashes)| {
            let count = count_at(self.size, level)?;
            let grown = count_at(since, level) != Some(count);
            let id = TileId {
                level,
                index: count >> HEIGHT,
            };
            (grown && !hashes.is_empty()).then(|| (id, hashes.clone()))
        })
    }
}

/// How many hashes a level has; `None` where a tree of this size has none.
fn count_at(size: u64, level: u8) -> Option<u64> {
    let count = size.checked_shr(u32::from(HEIGHT) * u32::from(level))?;
    (count > 0).then_some(count)
}

/// How many hashes the unfinished tile of a level with so many hashes has.
fn width(count: u64) -> usize {
    (count as usize) % TILE_WIDTH
}
