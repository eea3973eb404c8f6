//! What a leaf of the tree is: a position of the log with the bytes that are stored there.

use events::Position;

use crate::Hash;

/// The leaf data of a position at which the log had nothing any more when it was hashed.
pub const MISSING: &[u8] = b"";

/// What is hashed for an event: its position as 16 lower-case hex digits, a line feed, its stored bytes.
pub fn leaf_data(position: Position, payload: &[u8]) -> Vec<u8> {
    let mut data = format!("{position}\n").into_bytes();
    data.extend_from_slice(payload);
    data
}

/// The leaf's hash: SHA-256 of a zero byte and the leaf data (RFC 9162, section 2.1.1).
pub fn leaf_hash(data: &[u8]) -> Hash {
    tlog_tiles::tlog::record_hash(data).into()
}

/// Which leaf, counted from 0, is this position's; the log's first position is 1.
pub fn index_of(position: Position) -> Option<u64> {
    position.get().checked_sub(1)
}

/// Which position the leaf with this index stands for.
pub fn position_of(index: u64) -> Position {
    Position::new(index).next()
}
