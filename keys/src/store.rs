//! The port to where keys are kept.

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use events::KeyId;
use futures::stream::BoxStream;

use crate::{KeyError, MasterId};

/// A place for a key in a store, written `check` or as the key's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// Of a key that nothing is sealed with: whoever can unwrap it has the store's master key.
    Check,
    /// Of a key that personal texts are sealed with.
    Key(KeyId),
}

impl fmt::Display for Slot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Check => formatter.write_str("check"),
            Self::Key(id) => id.fmt(formatter),
        }
    }
}

impl FromStr for Slot {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        match text {
            "check" => Ok(Self::Check),
            _ => text.parse().map(Self::Key).map_err(|error| {
                KeyError::Unusable(format!("there is something else among them: {error}"))
            }),
        }
    }
}

/// A key as it is kept: encrypted with a master key.
#[derive(Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// The master key that unwraps it.
    pub master: MasterId,
    /// Nonce and ciphertext.
    pub sealed: Vec<u8>,
}

impl fmt::Debug for WrappedKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "WrappedKey({})", self.master)
    }
}

/// What is in a slot that is not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// A key.
    Wrapped(WrappedKey),
    /// Nothing, for ever: the key was destroyed.
    Destroyed,
}

/// Slots with what is in them, in no particular order, or the error that ended the listing.
pub type Listing = BoxStream<'static, Result<(Slot, Kept), KeyError>>;

/// Where keys are kept. Several processes may share one.
///
/// Every method may be called from many tasks at once. Dropping a returned future at any moment is safe; what
/// it was to change may or may not be changed.
#[async_trait]
pub trait KeyStore: Send + Sync + 'static {
    /// What is in the slot, with everything that was acknowledged to anybody; `None` when nothing ever was.
    ///
    /// # Errors
    /// [`KeyError`].
    async fn get(&self, slot: Slot) -> Result<Option<Kept>, KeyError>;

    /// Puts the key into the slot if nothing ever was in it, durably, and says what is in it now: of several
    /// who try, all learn of the same key.
    ///
    /// # Errors
    /// [`KeyError`].
    async fn insert(&self, slot: Slot, key: WrappedKey) -> Result<Kept, KeyError>;

    /// Puts `new` in the place of `old`, if that is still there; says whether `new` is there now.
    ///
    /// # Errors
    /// [`KeyError`].
    async fn replace(
        &self,
        slot: Slot,
        old: &WrappedKey,
        new: WrappedKey,
    ) -> Result<bool, KeyError>;

    /// Destroys the key in the slot, or the one that might come to be there: when this returns, its bytes have
    /// been overwritten, as far as the store can tell, and nothing will ever be in the slot again. To repeat
    /// it does no harm, and completes one that failed.
    ///
    /// # Errors
    /// [`KeyError`]; the key may or may not be destroyed. Repeat it.
    async fn destroy(&self, slot: Slot) -> Result<(), KeyError>;

    /// Everything that was in a slot when the listing began and, perhaps, what came later. It is read as the
    /// listing is.
    fn list(&self) -> Listing;
}
