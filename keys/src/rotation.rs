//! Changing the master key: every key is unwrapped with the one it was wrapped with and wrapped with the first
//! one of the file, while services go on.

use std::collections::BTreeMap;

use futures::TryStreamExt;

use crate::{Kept, KeyError, KeyStore, MasterId, MasterKeys, Slot, WrappedKey};

/// How many keys are rewrapped at once.
const AT_ONCE: usize = 16;

/// What is in a key store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    /// How many keys each master key has wrapped.
    pub wrapped: BTreeMap<MasterId, u64>,
    /// How many keys were destroyed.
    pub destroyed: u64,
}

/// Counts what is in the store.
///
/// # Errors
/// [`KeyError`].
pub async fn census(store: &dyn KeyStore) -> Result<Census, KeyError> {
    let keys = store.list();
    let count = |mut census: Census, (slot, kept)| async move {
        match (slot, kept) {
            (Slot::Check, _) => {}
            (Slot::Key(_), Kept::Wrapped(key)) => {
                *census.wrapped.entry(key.master).or_default() += 1;
            }
            (Slot::Key(_), Kept::Destroyed) => census.destroyed += 1,
        }
        Ok(census)
    };
    keys.try_fold(Census::default(), count).await
}

/// Wraps every key of the store with the first master key that is not yet; says how many there were. To run it
/// again does no harm, and completes one that was cut short.
///
/// # Errors
/// [`KeyError`]; some of the keys may have been rewrapped.
pub async fn rotate(store: &dyn KeyStore, masters: &MasterKeys) -> Result<u64, KeyError> {
    // First, since it tells who opens the store what master key it takes.
    let mut rewrapped = 0;
    if let Some(kept) = store.get(Slot::Check).await? {
        rewrap(store, masters, Slot::Check, kept).await?;
    }
    loop {
        let rewrapping = store
            .list()
            .map_ok(|(slot, kept)| rewrap(store, masters, slot, kept))
            .try_buffer_unordered(AT_ONCE);
        let adding = |sum, one| async move { Ok(sum + u64::from(one)) };
        let pass: u64 = rewrapping.try_fold(0, adding).await?;
        rewrapped += pass;
        // Whoever had not seen yet that the file has changed may have made a key meanwhile.
        if pass == 0 {
            return Ok(rewrapped);
        }
    }
}

/// Rewraps a key if need be; says whether it did.
async fn rewrap(
    store: &dyn KeyStore,
    masters: &MasterKeys,
    slot: Slot,
    mut kept: Kept,
) -> Result<bool, KeyError> {
    loop {
        let Kept::Wrapped(old) = kept else {
            return Ok(false);
        };
        let Some(new) = rewrapped(masters, slot, &old).await? else {
            return Ok(false);
        };
        if store.replace(slot, &old, new).await? {
            return Ok(true);
        }
        // Somebody else was faster, or it was destroyed.
        match store.get(slot).await? {
            Some(now) => kept = now,
            None => return Ok(false),
        }
    }
}

/// The key wrapped with the first master key; `None` when it is already.
async fn rewrapped(
    masters: &MasterKeys,
    slot: Slot,
    old: &WrappedKey,
) -> Result<Option<WrappedKey>, KeyError> {
    if masters.ids().await?.first() == Some(&old.master) {
        return Ok(None);
    }
    let key = masters.unwrap(slot, old).await?;
    masters.wrap(slot, &key).await.map(Some)
}
