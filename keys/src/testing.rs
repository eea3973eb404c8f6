//! The decoders of what a store keeps, for hostile input.

use crate::{Kept, jetstream};

/// What a value of the bucket says; `None` when it is none of ours.
pub fn read_kept(value: &[u8]) -> Option<Kept> {
    jetstream::read(value)
}

/// The value of the bucket that says this.
pub fn written_kept(kept: &Kept) -> Vec<u8> {
    jetstream::written(kept).to_string().into_bytes()
}
