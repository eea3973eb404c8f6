//! The Merkle tree over the log, with which the record is proven: one leaf for each position, hashed as in
//! RFC 9162 (section 2.1), kept in tiles (C2SP tlog-tiles), with signed tree heads (C2SP tlog-checkpoint
//! and signed-note).
//!
//! The arithmetic of trees and the formats are those of `tlog_tiles` and `signed_note`, ports of what Go's
//! checksum database uses. What is here is what they leave open: what a leaf is, which tiles there are to
//! read and to write, and what a proof looks like when it is handed to somebody.

mod hash;
mod head;
mod key;
mod leaf;
mod proof;
mod tiles;
mod tree;

pub use hash::Hash;
pub use head::{InvalidHead, TreeHead, heads_of};
pub use key::{InvalidKey, SigningKey, VerifyingKey};
pub use leaf::{MISSING, index_of, leaf_data, leaf_hash, position_of};
pub use proof::{ConsistencyProof, InclusionProof, InvalidProof};
pub use tiles::{
    TILE_WIDTH, TileId, Tiles, TreeError, prove_consistency, prove_inclusion, root,
    tiles_for_consistency, tiles_for_inclusion, tiles_for_root,
};
pub use tree::Tree;
