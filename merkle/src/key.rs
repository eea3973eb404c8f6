//! The keys that tree heads are signed with and checked by, in the texts of C2SP signed-note and of Go's
//! `note` package: `PRIVATE+KEY+NAME+ID+BASE64` and `NAME+ID+BASE64`. The name says whose log it is.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use signed_note::{StandardSigner, StandardVerifier, Verifier, is_key_name_valid};

/// Ed25519 in key texts.
const ED25519: u8 = 1;

/// What stands before the 32 bytes of an Ed25519 key in a SubjectPublicKeyInfo (RFC 8410, section 10.1).
const SPKI: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// The text is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// It is no private key.
    #[error("not a signing key: expected PRIVATE+KEY+NAME+ID+BASE64 with an Ed25519 key ({0})")]
    Signing(String),
    /// It is no public key.
    #[error("not a public key: expected NAME+ID+BASE64 with an Ed25519 key ({0})")]
    Verifying(String),
    /// It can't be a key's name.
    #[error("{0:?} can't be a key's name: it must not be empty nor have spaces or a + in it")]
    Name(String),
}

/// A key that signs tree heads. It has no `Debug`: it is secret.
#[derive(Clone)]
pub struct SigningKey {
    pub(crate) signer: StandardSigner,
    text: String,
    public: VerifyingKey,
}

impl SigningKey {
    /// The key with this name made from 32 random bytes.
    ///
    /// # Errors
    /// [`InvalidKey::Name`].
    pub fn from_seed(name: &str, seed: [u8; 32]) -> Result<Self, InvalidKey> {
        if !is_key_name_valid(name) || name.chars().any(char::is_control) {
            return Err(InvalidKey::Name(name.to_owned()));
        }
        let key = ed25519_dalek::SigningKey::from_bytes(&seed);
        let public = [&[ED25519][..], &key.verifying_key().to_bytes()].concat();
        let private = BASE64_STANDARD.encode([&[ED25519][..], &seed].concat());
        let id = signed_note::key_id(name, &public);
        format!("PRIVATE+KEY+{name}+{id:08x}+{private}").parse()
    }

    /// As text, to be kept secret.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// What its signatures are checked with.
    pub fn public(&self) -> &VerifyingKey {
        &self.public
    }
}

impl FromStr for SigningKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let invalid = |reason: &dyn fmt::Display| InvalidKey::Signing(reason.to_string());
        let signer = StandardSigner::new(text).map_err(|error| invalid(&error))?;
        // Its name and seed: the signer has looked at their form.
        let mut parts = text.splitn(5, '+').skip(2);
        let name = parts.next().unwrap_or_default();
        let seed = parts
            .nth(1)
            .and_then(|text| BASE64_STANDARD.decode(text).ok());
        let seed: Option<[u8; 32]> = seed.and_then(|bytes| bytes.get(1..)?.try_into().ok());
        let seed = seed.ok_or_else(|| invalid(&"it is too short"))?;
        let key = ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key();
        Ok(Self {
            signer,
            text: text.to_owned(),
            public: signed_note::new_ed25519_verifier_key(name, &key).parse()?,
        })
    }
}

/// A key that tree heads are checked with.
#[derive(Clone)]
pub struct VerifyingKey {
    pub(crate) verifier: StandardVerifier,
    text: String,
    bytes: [u8; 32],
}

impl VerifyingKey {
    /// Whose log it is of.
    pub fn name(&self) -> &str {
        self.verifier.name()
    }

    /// The key in PEM, as other programs read it.
    pub fn to_pem(&self) -> String {
        let der = BASE64_STANDARD.encode([&SPKI[..], &self.bytes].concat());
        format!("-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n")
    }
}

impl FromStr for VerifyingKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let invalid = |reason: &dyn fmt::Display| InvalidKey::Verifying(reason.to_string());
        let verifier = StandardVerifier::new(text).map_err(|error| invalid(&error))?;
        let key = text.splitn(3, '+').nth(2);
        let key = key.and_then(|text| BASE64_STANDARD.decode(text).ok());
        let bytes: Option<[u8; 32]> = key.and_then(|bytes| bytes.get(1..)?.try_into().ok());
        Ok(Self {
            verifier,
            text: text.to_owned(),
            bytes: bytes.ok_or_else(|| invalid(&"it is too short"))?,
        })
    }
}

impl fmt::Display for VerifyingKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "VerifyingKey({self})")
    }
}

impl PartialEq for VerifyingKey {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for VerifyingKey {}
