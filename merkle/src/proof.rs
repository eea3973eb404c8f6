//! Proofs as they are handed to somebody, who checks them without the log, with a public key alone.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use events::Position;
use serde::{Deserialize, Serialize};
use tlog_tiles::tlog;
use utoipa::ToSchema;

use crate::{Hash, InvalidHead, TreeHead, VerifyingKey, index_of, leaf_data, leaf_hash};

/// That the log has an event at a position: its bytes, the hashes up to the root, the signed tree head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InclusionProof {
    /// The event's position.
    #[schema(value_type = String, example = "000000000000002a")]
    pub position: Position,
    /// What is hashed for it, in base64: the position, a line feed, and the event's bytes as the log stores
    /// them; empty for an event that was removed before it was hashed.
    pub leaf: String,
    /// Which leaf of the tree it is, from 0.
    pub index: u64,
    /// How many leaves the tree has.
    pub tree_size: u64,
    /// The hashes beside the path from the leaf to the root, in base64, the leaf's neighbour first.
    #[schema(value_type = Vec<String>)]
    pub hashes: Vec<Hash>,
    /// The signed tree head: a signed note of C2SP tlog-checkpoint.
    pub tree_head: String,
}

/// That a tree begins with an earlier one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConsistencyProof {
    /// How many leaves the earlier tree has.
    pub from: u64,
    /// How many the later one has.
    pub to: u64,
    /// The root of the earlier tree, in base64.
    #[schema(value_type = String)]
    pub from_root: Hash,
    /// The root of the later tree, in base64.
    #[schema(value_type = String)]
    pub to_root: Hash,
    /// The proof of RFC 9162, section 2.1.4: hashes in base64.
    #[schema(value_type = Vec<String>)]
    pub hashes: Vec<Hash>,
}

/// The proof proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProof {
    /// Its tree head can't be trusted.
    #[error(transparent)]
    Head(#[from] InvalidHead),
    /// The leaf is no base64.
    #[error("the leaf is not in base64")]
    Leaf,
    /// It contradicts itself.
    #[error("{0}")]
    Contradiction(String),
    /// The hashes do not lead from the leaf to the signed root: something of it was changed.
    #[error(
        "the hashes do not lead from the event to the signed root: the event or the proof was changed"
    )]
    Inclusion,
    /// The hashes do not lead from the earlier root to the later one.
    #[error(
        "the hashes do not lead from the earlier root to the later one: one is no beginning of the other"
    )]
    Consistency,
}

impl InclusionProof {
    /// A proof for the leaf data at `position`.
    pub fn new(position: Position, leaf: &[u8], hashes: Vec<Hash>, head: &TreeHead) -> Self {
        Self {
            position,
            leaf: BASE64_STANDARD.encode(leaf),
            index: index_of(position).unwrap_or_default(),
            tree_size: head.size,
            hashes,
            tree_head: head.note.clone(),
        }
    }

    /// The bytes of the event that is proven; `None` when what is proven is that it had been removed.
    ///
    /// # Errors
    /// [`InvalidProof`].
    pub fn payload(&self) -> Result<Option<Vec<u8>>, InvalidProof> {
        let leaf = self.leaf()?;
        if leaf.is_empty() {
            return Ok(None);
        }
        let before = leaf_data(self.position, b"");
        match leaf.strip_prefix(before.as_slice()) {
            Some(payload) => Ok(Some(payload.to_vec())),
            None => Err(InvalidProof::Contradiction(format!(
                "the leaf is not of position {}",
                self.position
            ))),
        }
    }

    /// Whether the log whose heads are signed with one of `keys` has this event at this position. Gives the
    /// tree head that says so.
    ///
    /// # Errors
    /// [`InvalidProof`].
    pub fn verify(&self, keys: &[VerifyingKey]) -> Result<TreeHead, InvalidProof> {
        let head = TreeHead::verify(&self.tree_head, keys)?;
        self.verify_in(&head)?;
        Ok(head)
    }

    /// Whether the tree with this head, which is known to be signed, has this event at this position.
    ///
    /// # Errors
    /// [`InvalidProof`].
    pub fn verify_in(&self, head: &TreeHead) -> Result<(), InvalidProof> {
        self.payload()?;
        let contradiction = |text: String| Err(InvalidProof::Contradiction(text));
        if Some(self.index) != index_of(self.position) {
            return contradiction(format!(
                "leaf {} is not that of position {}",
                self.index, self.position
            ));
        }
        if self.tree_size != head.size {
            return contradiction(format!(
                "the proof is for {} leaves, its tree head for {}",
                self.tree_size, head.size
            ));
        }
        let hashes = self.hashes.iter().map(|hash| (*hash).into()).collect();
        let leaf = leaf_hash(&self.leaf()?);
        tlog::check_record(
            &hashes,
            head.size,
            head.root.into(),
            self.index,
            leaf.into(),
        )
        .map_err(|_| InvalidProof::Inclusion)
    }

    fn leaf(&self) -> Result<Vec<u8>, InvalidProof> {
        BASE64_STANDARD
            .decode(&self.leaf)
            .map_err(|_| InvalidProof::Leaf)
    }
}

impl ConsistencyProof {
    /// Whether the later tree begins with the earlier one. That the roots are those of signed tree heads is
    /// for the caller to see.
    ///
    /// # Errors
    /// [`InvalidProof::Consistency`].
    pub fn verify(&self) -> Result<(), InvalidProof> {
        let hashes = self.hashes.iter().map(|hash| (*hash).into()).collect();
        let (from_root, to_root) = (self.from_root.into(), self.to_root.into());
        tlog::check_tree(&hashes, self.to, to_root, self.from, from_root)
            .map_err(|_| InvalidProof::Consistency)
    }
}
