//! Master keys: what the keys in a store are wrapped with, and the file they come from.
//!
//! XChaCha20-Poly1305 with a random nonce; the associated data is the slot, so that no wrapped key passes for
//! another one.

use std::fmt;
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use event_log::durable;
use events::DataKey;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use crate::blocking::blocking;
use crate::{KeyError, Slot, WrappedKey};

/// How many bytes a key has.
const KEY: usize = 32;

/// How many bytes the nonce has.
const NONCE: usize = 24;

/// What the hash that names a master key is of, before the key itself.
const ID_PREFIX: &[u8] = b"hansard master key id 1";

/// Names a master key without telling anything of it: the beginning of a hash of it, 16 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MasterId(u64);

impl fmt::Display for MasterId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

impl FromStr for MasterId {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let id = u64::from_str_radix(text, 16).map(Self).ok();
        id.filter(|id| id.to_string() == text)
            .ok_or_else(|| KeyError::Unusable(format!("{text:?} names no master key")))
    }
}

/// A master key.
#[derive(Debug, Clone)]
struct MasterKey {
    id: MasterId,
    key: DataKey,
}

impl MasterKey {
    fn new(key: DataKey) -> Self {
        let hash = Sha256::new()
            .chain_update(ID_PREFIX)
            .chain_update(key.as_bytes())
            .finalize();
        let (head, _) = hash.split_at(8);
        let id = head.iter().fold(0, |id, byte| id << 8 | u64::from(*byte));
        Self {
            id: MasterId(id),
            key,
        }
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(self.key.as_bytes().into())
    }
}

/// The master keys of a file, one a line as base64 or hex digits. The first one wraps, all unwrap. The file is
/// read again when it has changed or does not have a key that is needed, so that it can be changed while
/// services run. Clones share what was read.
#[derive(Clone)]
pub struct MasterKeys(Arc<Inner>);

struct Inner {
    /// `None`: there is no file, and the keys stay what they are.
    file: Option<PathBuf>,
    read: RwLock<Read>,
}

/// What was read, and when.
#[derive(Clone)]
struct Read {
    keys: Arc<[MasterKey]>,
    /// `None` where there is no file.
    version: Option<Version>,
}

/// Differs when a file has been written or replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Version {
    inode: u64,
    bytes: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl Version {
    fn of(file: &Path) -> std::io::Result<Self> {
        let facts = fs::metadata(file)?;
        Ok(Self {
            inode: facts.ino(),
            bytes: facts.len(),
            seconds: facts.mtime(),
            nanoseconds: facts.mtime_nsec(),
        })
    }
}

impl MasterKeys {
    /// Reads the file.
    ///
    /// # Errors
    /// [`KeyError::Unusable`]: it can't be read or has something else in it.
    pub async fn open(file: PathBuf) -> Result<Self, KeyError> {
        let path = file.clone();
        let read = blocking(move || read(&path)).await?;
        Ok(Self(Arc::new(Inner {
            file: Some(file),
            read: RwLock::new(read),
        })))
    }

    /// A new master key that is gone with this value.
    pub fn random() -> Self {
        let keys = Arc::new([MasterKey::new(DataKey::random())]);
        Self(Arc::new(Inner {
            file: None,
            read: RwLock::new(Read {
                keys,
                version: None,
            }),
        }))
    }

    /// The names of the keys, in the order of the file; the first one wraps.
    ///
    /// # Errors
    /// The file has changed and can't be read.
    pub async fn ids(&self) -> Result<Vec<MasterId>, KeyError> {
        let keys = self.newest().await?;
        Ok(keys.iter().map(|master| master.id).collect())
    }

    /// Puts a new key at the head of the file. The file is replaced whole, keeping its mode and owner.
    ///
    /// # Errors
    /// [`KeyError::Unusable`]: the file can't be replaced; it is as it was.
    pub async fn add(&self) -> Result<MasterId, KeyError> {
        let Some(file) = self.0.file.clone() else {
            let reason = "there is no master key file to put a new key into";
            return Err(KeyError::Unusable(reason.to_owned()));
        };
        blocking(move || prepend(&file)).await
    }

    /// Wraps a key for a slot.
    ///
    /// # Errors
    /// The file has changed and can't be read.
    // Encrypting in memory fails only for texts of more than 256 GiB.
    #[allow(clippy::expect_used, clippy::missing_panics_doc)]
    pub async fn wrap(&self, slot: Slot, key: &DataKey) -> Result<WrappedKey, KeyError> {
        let keys = self.newest().await?;
        let [master, ..] = &*keys else {
            return Err(KeyError::Unusable("there is no master key".to_owned()));
        };
        let nonce: [u8; NONCE] = rand::random();
        let bound_to = slot.to_string();
        let payload = Payload {
            msg: key.as_bytes(),
            aad: bound_to.as_bytes(),
        };
        let ciphertext = master
            .cipher()
            .encrypt(&XNonce::from(nonce), payload)
            .expect("a key fits");
        let mut sealed = nonce.to_vec();
        sealed.extend(ciphertext);
        Ok(WrappedKey {
            master: master.id,
            sealed,
        })
    }

    /// Unwraps the key of a slot.
    ///
    /// # Errors
    /// [`KeyError::Unavailable`]: its master key is not in the file, where it may yet come.
    /// [`KeyError::Unusable`]: it was not wrapped with it.
    pub async fn unwrap(&self, slot: Slot, wrapped: &WrappedKey) -> Result<DataKey, KeyError> {
        let known = find(&self.known().keys, wrapped.master);
        let master = match known {
            Some(master) => master,
            None => {
                let keys = self.newest().await?;
                find(&keys, wrapped.master).ok_or_else(|| self.lacks(wrapped.master))?
            }
        };
        let opened = || {
            let (nonce, ciphertext) = wrapped.sealed.split_first_chunk::<NONCE>()?;
            let bound_to = slot.to_string();
            let payload = Payload {
                msg: ciphertext,
                aad: bound_to.as_bytes(),
            };
            let opened = master.cipher().decrypt(&XNonce::from(*nonce), payload);
            key_of(&Zeroizing::new(opened.ok()?))
        };
        opened().ok_or_else(|| {
            KeyError::Unusable(format!(
                "{slot} is damaged: it was not wrapped with the master key {}, whose name it bears",
                wrapped.master
            ))
        })
    }

    fn known(&self) -> Read {
        let read = self.0.read.read();
        read.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The keys, read again if the file has changed.
    async fn newest(&self) -> Result<Arc<[MasterKey]>, KeyError> {
        let known = self.known();
        let Some(file) = self.0.file.clone() else {
            return Ok(known.keys);
        };
        // Whoever changes the file may not have finished.
        let changed = blocking(move || match Version::of(&file) {
            Ok(version) if Some(version) == known.version => Ok(None),
            _ => read(&file).map(Some),
        });
        let changed = changed
            .await
            .map_err(|error| KeyError::Unavailable(error.reason().to_owned()))?;
        let Some(read) = changed else {
            return Ok(known.keys);
        };
        let keys = Arc::clone(&read.keys);
        *self.0.read.write().unwrap_or_else(PoisonError::into_inner) = read;
        Ok(keys)
    }

    fn lacks(&self, master: MasterId) -> KeyError {
        let place = match &self.0.file {
            Some(file) => format!("the file {}", file.display()),
            None => "memory".to_owned(),
        };
        KeyError::Unavailable(format!(
            "they are wrapped with the master key {master}, which is not in {place}; give all services the \
             master key file that the key store was begun with (--master-key-file)"
        ))
    }
}

impl fmt::Debug for MasterKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("MasterKeys")
    }
}

fn find(keys: &[MasterKey], id: MasterId) -> Option<MasterKey> {
    keys.iter().find(|master| master.id == id).cloned()
}

fn read(file: &Path) -> Result<Read, KeyError> {
    let name = file.display();
    let unreadable = |error: std::io::Error| {
        KeyError::Unusable(format!("can't read the master key file {name}: {error}"))
    };
    // Before the text: what is written meanwhile makes another version.
    let version = Version::of(file).map_err(unreadable)?;
    let text = Zeroizing::new(fs::read_to_string(file).map_err(unreadable)?);
    let mut keys: Vec<MasterKey> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let key = parse(line).ok_or_else(|| {
            KeyError::Unusable(format!(
                "line {} of the master key file {name} is no key: write {KEY} random bytes as base64 or hex \
                 digits, such as the output of `openssl rand -base64 {KEY}`",
                index + 1
            ))
        })?;
        keys.push(MasterKey::new(key));
    }
    if keys.is_empty() {
        return Err(KeyError::Unusable(format!(
            "the master key file {name} is empty; write a key of {KEY} random bytes into it, such as the \
             output of `openssl rand -base64 {KEY}`"
        )));
    }
    Ok(Read {
        keys: keys.into(),
        version: Some(version),
    })
}

/// Of several who do this at once, one does.
fn prepend(file: &Path) -> Result<MasterId, KeyError> {
    let failed = |error: std::io::Error| {
        let name = file.display();
        KeyError::Unusable(format!("can't replace the master key file {name}: {error}"))
    };
    // Through links: the file itself is replaced.
    let file = &fs::canonicalize(file).map_err(failed)?;
    let mut draft = file.clone().into_os_string();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    let mut options = fs::OpenOptions::new();
    let options = options.write(true).create_new(true).mode(0o600);
    let written = options.open(&draft).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => KeyError::Unusable(format!(
            "{} is there: another process is just adding a key, or was killed while it did; in that case \
             remove it",
            draft.display()
        )),
        _ => failed(error),
    })?;
    let added = write_draft(file, written).and_then(|id| {
        fs::rename(&draft, file)?;
        durable::sync_name(file)?;
        Ok(id)
    });
    added.map_err(|error| {
        // Nothing may be left that holds keys; after the renaming nothing is.
        let _ = fs::remove_file(&draft);
        failed(error)
    })
}

/// Writes a new key and then what is in `file`.
fn write_draft(file: &Path, mut draft: fs::File) -> std::io::Result<MasterId> {
    let old = Zeroizing::new(fs::read(file)?);
    let new = MasterKey::new(DataKey::random());
    let line = Zeroizing::new(BASE64.encode(new.key.as_bytes()));
    draft.write_all(line.as_bytes())?;
    draft.write_all(b"\n")?;
    draft.write_all(&old)?;
    let facts = fs::metadata(file)?;
    if (facts.uid(), facts.gid()) != (draft.metadata()?.uid(), draft.metadata()?.gid()) {
        fchown(&draft, Some(facts.uid()), Some(facts.gid()))?;
    }
    draft.set_permissions(facts.permissions())?;
    draft.sync_all()?;
    Ok(new.id)
}

fn parse(line: &str) -> Option<DataKey> {
    let bytes = if line.len() == 2 * KEY && line.bytes().all(|it| it.is_ascii_hexdigit()) {
        let digits = (0..KEY).map(|index| line.get(2 * index..2 * index + 2));
        let bytes = digits.map(|pair| u8::from_str_radix(pair?, 16).ok());
        bytes.collect::<Option<Vec<u8>>>()
    } else {
        BASE64.decode(line).ok()
    };
    key_of(&Zeroizing::new(bytes?))
}

fn key_of(bytes: &[u8]) -> Option<DataKey> {
    let mut array: [u8; KEY] = bytes.try_into().ok()?;
    let key = DataKey::from_bytes(array);
    array.zeroize();
    Some(key)
}
