//! The keyring: seals and opens events, with the keys it needs at hand.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use event_log::{LogError, NewEvent, Recorded};
use events::{DataKey, DecodeError, Encoded, Envelope, Event, KeyId};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use moka::sync::Cache;

use crate::{Kept, KeyError, KeyStore, MasterKeys, MemoryKeys, SealError, Slot};

/// How many keys are remembered.
const REMEMBERED: u64 = 100_000;

/// For how long a key is remembered: a process that nobody told opens nothing with a destroyed key after that.
const MEMORY: Duration = Duration::from_secs(60);

/// Seals and opens events. Clones share what they remember.
#[derive(Clone)]
pub struct Keyring(Arc<Inner>);

struct Inner {
    store: Arc<dyn KeyStore>,
    masters: MasterKeys,
    remembered: Cache<KeyId, Known>,
    /// How many times something was forgotten: what was read before must not be remembered after.
    forgotten: Mutex<u64>,
}

/// What is known of a key.
#[derive(Clone)]
enum Known {
    Key(DataKey),
    Destroyed,
}

impl Keyring {
    /// The keys in `store`, wrapped with `masters`. A store that is empty is begun with the first of them.
    ///
    /// # Errors
    /// [`KeyError::Unusable`]: the store was begun with another master key.
    pub async fn open(store: Arc<dyn KeyStore>, masters: MasterKeys) -> Result<Self, KeyError> {
        let check = masters.wrap(Slot::Check, &DataKey::random()).await?;
        match store.insert(Slot::Check, check).await? {
            Kept::Wrapped(check) => {
                let unwrapped = masters.unwrap(Slot::Check, &check).await;
                unwrapped.map_err(|error| KeyError::Unusable(error.reason().to_owned()))?;
            }
            Kept::Destroyed => {
                let reason = "the key store is damaged: its check was destroyed";
                return Err(KeyError::Unusable(reason.to_owned()));
            }
        }
        Ok(Self::new(store, masters))
    }

    /// Keys in memory, gone with this value: for tests, and for what needs no keys.
    pub fn in_memory() -> Self {
        Self::new(Arc::new(MemoryKeys::default()), MasterKeys::random())
    }

    fn new(store: Arc<dyn KeyStore>, masters: MasterKeys) -> Self {
        Self(Arc::new(Inner {
            store,
            masters,
            remembered: Cache::builder()
                .max_capacity(REMEMBERED)
                .time_to_live(MEMORY)
                .build(),
            forgotten: Mutex::new(0),
        }))
    }

    /// Whether keys can be had.
    ///
    /// # Errors
    /// They can't: [`KeyError`].
    pub async fn check(&self) -> Result<(), KeyError> {
        self.0.store.get(Slot::Check).await.map(drop)
    }

    /// The event with its personal texts sealed. Keys that there are not yet are made, and are durable before
    /// anything is sealed with them.
    ///
    /// # Errors
    /// [`SealError`].
    pub async fn seal(&self, envelope: &Envelope) -> Result<NewEvent, SealError> {
        let mut keys = Vec::new();
        for id in envelope.key_ids() {
            let known = match self.known(id).await? {
                Some(known) => known,
                None => self.create(id).await?,
            };
            match known {
                Known::Key(key) => keys.push(key),
                Known::Destroyed => return Err(SealError::Destroyed(id)),
            }
        }
        Ok(NewEvent::sealed(envelope, &keys))
    }

    /// The event, opened; without its personal texts, where a key has been destroyed. An erasure that passes
    /// makes the keyring forget the person's key.
    ///
    /// # Errors
    /// The keys can't be had at present ([`LogError::Unavailable`]), or were never there
    /// ([`LogError::Unusable`]).
    pub async fn decode(
        &self,
        recorded: &Recorded,
    ) -> Result<Result<Envelope, DecodeError>, LogError> {
        let encoded = match Encoded::parse(&recorded.payload) {
            Ok(encoded) => encoded,
            Err(error) => return Ok(Err(error)),
        };
        let keys = self.keys_to(&encoded, recorded).await?;
        let decoded = encoded.decode(keys.as_deref());
        if let Ok(envelope) = &decoded
            && let Event::UserErased(erased) = &envelope.event
        {
            self.forget(KeyId::Person(erased.user_id));
        }
        Ok(decoded)
    }

    /// The key that opens the event's personal texts, and nothing else but those that are sealed with the same
    /// keys; `None` where the event has none, can't be decoded, or a key has been destroyed.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub async fn text_key(&self, recorded: &Recorded) -> Result<Option<DataKey>, LogError> {
        let Ok(encoded) = Encoded::parse(&recorded.payload) else {
            return Ok(None);
        };
        let keys = self.keys_to(&encoded, recorded).await?;
        let keys = keys.filter(|keys| !keys.is_empty());
        Ok(keys.map(|keys| DataKey::derived_from(&keys)))
    }

    /// The keys to what is sealed in an event; `None` when one of them has been destroyed.
    async fn keys_to(
        &self,
        encoded: &Encoded<'_>,
        recorded: &Recorded,
    ) -> Result<Option<Vec<DataKey>>, LogError> {
        let mut keys = Vec::new();
        for id in encoded.key_ids() {
            match self.known(id).await? {
                Some(Known::Key(key)) => keys.push(key),
                Some(Known::Destroyed) => return Ok(None),
                None => return Err(never_there(id, recorded)),
            }
        }
        Ok(Some(keys))
    }

    /// Destroys a key, and with it everything that was sealed with it, for ever. To repeat it does no harm, and
    /// completes one that failed. Other processes forget the key within a minute, or when they are told.
    ///
    /// # Errors
    /// [`KeyError`]; the key may or may not be destroyed. Repeat it.
    pub async fn destroy(&self, id: KeyId) -> Result<(), KeyError> {
        let destroyed = self.0.store.destroy(Slot::Key(id)).await;
        self.forget(id);
        destroyed
    }

    /// Every key that was ever made, in no particular order, and whether it has been destroyed.
    pub fn list(&self) -> BoxStream<'static, Result<(KeyId, bool), KeyError>> {
        let keys = self.0.store.list().try_filter_map(|(slot, kept)| {
            std::future::ready(Ok(match slot {
                Slot::Check => None,
                Slot::Key(id) => Some((id, kept == Kept::Destroyed)),
            }))
        });
        keys.boxed()
    }

    /// Looks a key up again when it is needed next: it may have been destroyed.
    pub fn forget(&self, id: KeyId) {
        let mut forgotten = self.forgotten();
        *forgotten += 1;
        self.0.remembered.invalidate(&id);
    }

    /// What is known of a key; `None` when there never was one.
    async fn known(&self, id: KeyId) -> Result<Option<Known>, KeyError> {
        if let Some(known) = self.0.remembered.get(&id) {
            return Ok(Some(known));
        }
        let forgotten = *self.forgotten();
        match self.0.store.get(Slot::Key(id)).await? {
            Some(kept) => self.learn(id, kept, forgotten).await.map(Some),
            None => Ok(None),
        }
    }

    /// Makes a key, unless somebody else has.
    async fn create(&self, id: KeyId) -> Result<Known, KeyError> {
        let forgotten = *self.forgotten();
        let slot = Slot::Key(id);
        let wrapped = self.0.masters.wrap(slot, &DataKey::random()).await?;
        // Unwrapped again, whoever made it: what can't be unwrapped must not seal anything.
        let kept = self.0.store.insert(slot, wrapped).await?;
        self.learn(id, kept, forgotten).await
    }

    /// Unwraps what was kept, and remembers it unless something was forgotten since.
    async fn learn(&self, id: KeyId, kept: Kept, forgotten: u64) -> Result<Known, KeyError> {
        let known = match kept {
            Kept::Destroyed => Known::Destroyed,
            Kept::Wrapped(wrapped) => {
                Known::Key(self.0.masters.unwrap(Slot::Key(id), &wrapped).await?)
            }
        };
        let now = self.forgotten();
        if *now == forgotten {
            self.0.remembered.insert(id, known.clone());
        }
        Ok(known)
    }

    fn forgotten(&self) -> MutexGuard<'_, u64> {
        let forgotten = self.0.forgotten.lock();
        forgotten.unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Keyring")
    }
}

/// Never taken for an erasure: that would be to show as erased what was only mislaid.
fn never_there(id: KeyId, recorded: &Recorded) -> LogError {
    LogError::Unusable(format!(
        "the event at {} was sealed with the key {id}, which is not in the key store: that is not this log's \
         key store, or it was restored from a copy that is older than the log; restore the newest copy of it",
        recorded.position
    ))
}
