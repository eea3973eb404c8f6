//! The tree as it is stored: tiles of up to 256 hashes (C2SP tlog-tiles). Level 0 has the leaves' hashes, and
//! each hash of a level above is the root over a full tile of the level below.
//!
//! Reading is in two steps, so that it can be done by whoever has the tiles, in whatever way: `tiles_for_…`
//! says which tiles are needed, and `prove_…` computes from them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use tlog_tiles::tile::Tile;
use tlog_tiles::tlog::{self, HashReader};

use crate::Hash;

/// Hashes in a full tile.
pub const TILE_WIDTH: usize = 1 << HEIGHT;

/// Levels of the tree that a tile spans.
pub(crate) const HEIGHT: u8 = 8;

/// Which tile: the hashes from `index` × 256 on of a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TileId {
    /// 0 for the leaves' hashes.
    pub level: u8,
    /// Its number within the level, from 0.
    pub index: u64,
}

/// Tiles with their hashes, one after the other in 32 bytes each. The last of a level may hold fewer than
/// 256, and any may hold more than what is asked for: the tree has grown since.
pub type Tiles = BTreeMap<TileId, Vec<u8>>;

/// Why something can't be computed from tiles.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// A tile that is needed is not there or too short: it was lost or tampered with.
    #[error("the tree's tile {index} of level {level} is missing or too short", index = .0.index, level = .0.level)]
    Tile(TileId),
    /// The tree does not have what is asked for.
    #[error("a tree of {size} leaves has no {asked}")]
    Outside {
        /// Its size.
        size: u64,
        /// What was asked for.
        asked: String,
    },
}

/// Which tiles the root of the tree with the first `size` leaves is computed from.
pub fn tiles_for_root(size: u64) -> BTreeSet<TileId> {
    needed(|reader| tlog::tree_hash(size, reader).map(drop))
}

/// The root of the tree with the first `size` leaves.
///
/// # Errors
/// [`TreeError::Tile`].
pub fn root(size: u64, tiles: &Tiles) -> Result<Hash, TreeError> {
    computed(tiles, |reader| tlog::tree_hash(size, reader)).map(Hash::from)
}

/// Which tiles [`prove_inclusion`] needs.
///
/// # Errors
/// [`TreeError::Outside`].
pub fn tiles_for_inclusion(size: u64, index: u64) -> Result<BTreeSet<TileId>, TreeError> {
    check_index(size, index)?;
    Ok(needed(|reader| {
        tlog::prove_record(size, index, reader).map(drop)
    }))
}

/// The proof that the tree with the first `size` leaves has the leaf `index` (RFC 9162, section 2.1.3).
///
/// # Errors
/// [`TreeError`].
pub fn prove_inclusion(size: u64, index: u64, tiles: &Tiles) -> Result<Vec<Hash>, TreeError> {
    check_index(size, index)?;
    let proof = computed(tiles, |reader| tlog::prove_record(size, index, reader))?;
    Ok(proof.into_iter().map(Hash::from).collect())
}

/// Which tiles [`prove_consistency`] needs.
///
/// # Errors
/// [`TreeError::Outside`].
pub fn tiles_for_consistency(from: u64, to: u64) -> Result<BTreeSet<TileId>, TreeError> {
    check_range(from, to)?;
    Ok(needed(|reader| {
        tlog::prove_tree(to, from, reader).map(drop)
    }))
}

/// The proof that the tree with the first `to` leaves begins with the one with the first `from` (RFC 9162,
/// section 2.1.4).
///
/// # Errors
/// [`TreeError`].
pub fn prove_consistency(from: u64, to: u64, tiles: &Tiles) -> Result<Vec<Hash>, TreeError> {
    check_range(from, to)?;
    let proof = computed(tiles, |reader| tlog::prove_tree(to, from, reader))?;
    Ok(proof.into_iter().map(Hash::from).collect())
}

fn check_index(size: u64, index: u64) -> Result<(), TreeError> {
    if index < size {
        return Ok(());
    }
    Err(TreeError::Outside {
        size,
        asked: format!("leaf {index}"),
    })
}

fn check_range(from: u64, to: u64) -> Result<(), TreeError> {
    if (1..=to).contains(&from) {
        return Ok(());
    }
    Err(TreeError::Outside {
        size: to,
        asked: format!("beginning of {from} leaves"),
    })
}

/// The tile that holds the hash with this index of [`tlog::stored_hash_index`].
fn tile_of(index: u64) -> (Tile, TileId) {
    let tile = Tile::from_index(HEIGHT, index);
    let id = TileId {
        level: tile.level(),
        index: tile.level_index(),
    };
    (tile, id)
}

/// Notes which tiles are read, and reads zeros.
#[derive(Default)]
struct Notes(RefCell<BTreeSet<TileId>>);

impl HashReader for Notes {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog::Hash>, tlog::Error> {
        let ids = indexes.iter().map(|index| tile_of(*index).1);
        self.0.borrow_mut().extend(ids);
        Ok(vec![tlog::Hash::default(); indexes.len()])
    }
}

fn needed(compute: impl FnOnce(&Notes) -> Result<(), tlog::Error>) -> BTreeSet<TileId> {
    let notes = Notes::default();
    // It fails for what is outside of the tree only, which was looked at before.
    let _ = compute(&notes);
    notes.0.into_inner()
}

/// Reads from tiles, and remembers which one was not as needed.
struct Reader<'a> {
    tiles: &'a Tiles,
    bad: RefCell<Option<TileId>>,
}

impl HashReader for Reader<'_> {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog::Hash>, tlog::Error> {
        let read = |index: &u64| {
            let (tile, id) = tile_of(*index);
            let hashes = self.tiles.get(&id).map_or(&[][..], Vec::as_slice);
            tile.hash_at_index(hashes, *index).inspect_err(|_| {
                self.bad.replace(Some(id));
            })
        };
        indexes.iter().map(read).collect()
    }
}

fn computed<'a, T>(
    tiles: &'a Tiles,
    compute: impl FnOnce(&Reader<'a>) -> Result<T, tlog::Error>,
) -> Result<T, TreeError> {
    let reader = Reader {
        tiles,
        bad: RefCell::new(None),
    };
    compute(&reader).map_err(|error| match reader.bad.take() {
        Some(id) => TreeError::Tile(id),
        // What is outside of the tree was looked at before.
        None => TreeError::Outside {
            size: 0,
            asked: error.to_string(),
        },
    })
}
