//! Keys in memory: for tests, and for what needs no keys.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::{StreamExt, stream};

use crate::{Kept, KeyError, KeyStore, Listing, Slot, WrappedKey};

/// Keys in memory, gone with this value.
#[derive(Debug, Default)]
pub struct MemoryKeys(Mutex<BTreeMap<Slot, Kept>>);

impl MemoryKeys {
    fn slots(&self) -> MutexGuard<'_, BTreeMap<Slot, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl KeyStore for MemoryKeys {
    async fn get(&self, slot: Slot) -> Result<Option<Kept>, KeyError> {
        Ok(self.slots().get(&slot).cloned())
    }

    async fn insert(&self, slot: Slot, key: WrappedKey) -> Result<Kept, KeyError> {
        let mut slots = self.slots();
        Ok(slots.entry(slot).or_insert(Kept::Wrapped(key)).clone())
    }

    async fn replace(
        &self,
        slot: Slot,
        old: &WrappedKey,
        new: WrappedKey,
    ) -> Result<bool, KeyError> {
        match self.slots().get_mut(&slot) {
            Some(Kept::Wrapped(key)) if *key == *old || *key == new => {
                *key = new;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    async fn destroy(&self, slot: Slot) -> Result<(), KeyError> {
        self.slots().insert(slot, Kept::Destroyed);
        Ok(())
    }

    fn list(&self) -> Listing {
        let slots = self.slots().clone();
        stream::iter(slots.into_iter().map(Ok)).boxed()
    }
}
