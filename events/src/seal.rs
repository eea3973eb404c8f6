//! Sealing: the personal texts of an event are in the log only as a ciphertext, and are gone from it for ever
//! once a key is destroyed.
//!
//! XChaCha20-Poly1305 with a random nonce over the texts as JSON. The associated data binds what is sealed to
//! its event: id, type, version and subject. What is sealed with two keys is sealed with one that is derived
//! from both (HKDF with SHA-256), so that it takes both to open it.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{RoomId, Timestamp, UserId};

/// How many bytes the nonce has.
const NONCE: usize = 24;

/// What the key that is derived from several is for.
const PURPOSE: &[u8] = b"hansard sealed texts 1";

/// A month of a year in UTC, written `2026-11`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month {
    year: i16,
    month: i8,
}

impl Month {
    /// The month in which `time` lies.
    pub fn of(time: Timestamp) -> Self {
        let (year, month) = time.year_and_month();
        Self { year, month }
    }

    /// When it is over: the beginning of the next month. `None` beyond the times that can be told.
    pub fn end(self) -> Option<Timestamp> {
        let (year, month) = match self.month {
            12 => (self.year.checked_add(1)?, 1),
            month => (self.year, month + 1),
        };
        Timestamp::beginning_of_month(year, month)
    }
}

impl fmt::Display for Month {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:04}-{:02}", self.year, self.month)
    }
}

/// Names a key that personal texts are sealed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyId {
    /// A person's: destroyed when the person is erased.
    Person(UserId),
    /// That of what was said in a room in a month: destroyed when all of it has expired.
    Period {
        /// The room.
        room: RoomId,
        /// The month of posting.
        month: Month,
    },
}

/// The text names no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not the id of a key: {0:?}")]
pub struct InvalidKeyId(String);

impl fmt::Display for KeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Person(user) => write!(formatter, "person.{user}"),
            Self::Period { room, month } => write!(formatter, "period.{room}.{month}"),
        }
    }
}

impl FromStr for KeyId {
    type Err = InvalidKeyId;

    fn from_str(text: &str) -> Result<Self, InvalidKeyId> {
        let read = || {
            let (kind, rest) = text.split_once('.')?;
            match kind {
                "person" => Some(Self::Person(rest.parse().ok()?)),
                "period" => {
                    let (room, month) = rest.split_once('.')?;
                    let (year, number) = month.rsplit_once('-')?;
                    let month = Month {
                        year: year.parse().ok()?,
                        month: number.parse().ok()?,
                    };
                    let room = room.parse().ok()?;
                    Some(Self::Period { room, month })
                }
                _ => None,
            }
        };
        // Only the one spelling: two texts must not name the same key.
        read()
            .filter(|id| id.to_string() == text)
            .ok_or_else(|| InvalidKeyId(text.to_owned()))
    }
}

/// A secret key of 256 bits. Its memory is overwritten when it is dropped.
#[derive(Clone)]
pub struct DataKey(Zeroizing<[u8; 32]>);

impl DataKey {
    /// A new random key.
    pub fn random() -> Self {
        Self(Zeroizing::new(rand::random()))
    }

    /// The key that is these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes that are the key.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key that it takes all of `keys` to have: opens what is sealed with all of them, and nothing else of
    /// what is sealed with any of them.
    // SHA-256 can derive 32 bytes: the limit is 255 times that.
    #[allow(clippy::expect_used)]
    pub fn derived_from(keys: &[Self]) -> Self {
        if let [key] = keys {
            return key.clone();
        }
        let material = Zeroizing::new(
            keys.iter()
                .flat_map(|key| key.as_bytes())
                .copied()
                .collect::<Vec<u8>>(),
        );
        let mut derived = Self::from_bytes([0; 32]);
        Hkdf::<Sha256>::new(None, &material)
            .expand(PURPOSE, derived.0.as_mut_slice())
            .expect("SHA-256 can derive 32 bytes");
        derived
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("DataKey")
    }
}

/// Seals `text` with all of `keys`, bound to `bound_to`: nonce and ciphertext in base64.
// Encrypting in memory fails only for texts of more than 256 GiB.
#[allow(clippy::expect_used)]
pub(crate) fn seal(text: &[u8], keys: &[DataKey], bound_to: &[u8]) -> String {
    let cipher = cipher(keys);
    let nonce: [u8; NONCE] = rand::random();
    let payload = Payload {
        msg: text,
        aad: bound_to,
    };
    let ciphertext = cipher
        .encrypt(&XNonce::from(nonce), payload)
        .expect("the text fits");
    let mut sealed = nonce.to_vec();
    sealed.extend(ciphertext);
    BASE64.encode(sealed)
}

/// The text that was sealed with all of `keys`; `None` when it was not, or was changed since.
pub(crate) fn open(sealed: &str, keys: &[DataKey], bound_to: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let sealed = BASE64.decode(sealed).ok()?;
    let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE>()?;
    let payload = Payload {
        msg: ciphertext,
        aad: bound_to,
    };
    let text = cipher(keys).decrypt(&XNonce::from(*nonce), payload);
    text.ok().map(Zeroizing::new)
}

fn cipher(keys: &[DataKey]) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(DataKey::derived_from(keys).as_bytes().into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_all_keys_and_what_it_was_bound_to() {
        let [person, period, other] = [(); 3].map(|()| DataKey::random());
        let both = [person.clone(), period.clone()];
        let sealed = seal(b"between us", &both, b"event 1");
        assert_eq!(*open(&sealed, &both, b"event 1").unwrap(), b"between us");
        assert!(open(&sealed, &both, b"event 2").is_none());
        assert!(open(&sealed, &[period.clone(), person.clone()], b"event 1").is_none());
        assert!(open(&sealed, std::slice::from_ref(&person), b"event 1").is_none());
        assert!(open(&sealed, &[person, other], b"event 1").is_none());
        for damaged in ["", "AAAA", &sealed[4..], &format!("{sealed}AAAA")] {
            assert!(open(damaged, &both, b"event 1").is_none(), "{damaged}");
        }
        assert_ne!(seal(b"between us", &both, b"event 1"), sealed);
    }

    #[test]
    fn a_key_id_has_one_spelling() {
        let hex = "0123456789abcdef0123456789abcdef";
        let time: Timestamp = "2026-03-31T23:59:59.999Z".parse().unwrap();
        let room = hex.parse().unwrap();
        let month = Month::of(time);
        for (id, text) in [
            (KeyId::Person(hex.parse().unwrap()), format!("person.{hex}")),
            (
                KeyId::Period { room, month },
                format!("period.{hex}.2026-03"),
            ),
        ] {
            assert_eq!(id.to_string(), text);
            assert_eq!(text.parse(), Ok(id));
        }
        for wrong in [
            "",
            "person.",
            &format!("period.{hex}"),
            &format!("period.{hex}.2026-3"),
            &format!("room.{hex}"),
        ] {
            assert!(wrong.parse::<KeyId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_month_ends_when_the_next_begins() {
        for (within, end) in [
            ("2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z"),
            ("2024-02-29T23:59:59.999Z", "2024-03-01T00:00:00Z"),
            ("2026-12-31T23:59:59.999Z", "2027-01-01T00:00:00Z"),
        ] {
            let month = Month::of(within.parse().unwrap());
            assert_eq!(month.end(), end.parse().ok(), "{within}");
        }
        assert_eq!(
            Month::of("9999-12-01T00:00:00Z".parse().unwrap()).end(),
            None
        );
    }

    #[test]
    fn a_key_is_not_shown() {
        assert_eq!(format!("{:?}", DataKey::from_bytes([7; 32])), "DataKey");
    }
}
