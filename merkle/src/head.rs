//! A signed tree head: which log, how many leaves, which root (C2SP tlog-checkpoint in a signed-note).

use signed_note::{Note, NoteError, VerifierList};
use tlog_tiles::checkpoint::Checkpoint;

use crate::{Hash, SigningKey, VerifyingKey};

/// Begins the extension line that names the log's incarnation.
const LOG: &str = "log ";

/// Begins a line with a signature.
const SIGNATURE: char = '—';

/// A tree head, with the signed note that says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeHead {
    /// Whose log it is: the name of the key that signs.
    pub origin: String,
    /// The log's incarnation, from the extension line `log INCARNATION`; `None` in a head of another
    /// program's log.
    pub log: Option<String>,
    /// How many leaves the tree has: the position of the last event.
    pub size: u64,
    /// The tree's root.
    pub root: Hash,
    /// The signed note.
    pub note: String,
}

/// The text is no tree head, or not one that is to be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHead {
    /// It does not have the form.
    #[error("not a signed tree head: expected origin, size, root, an empty line and signatures")]
    Form,
    /// The key's signature does not fit: the text was changed after it was signed, or the signature was.
    #[error("the signature of {key} is wrong: the tree head was changed after it was signed")]
    Signature {
        /// Whose signature.
        key: String,
    },
    /// None of the keys has signed it.
    #[error("the tree head of {origin:?} is not signed with {keys}")]
    Unsigned {
        /// Whose log it claims to be of.
        origin: String,
        /// The names and ids of the keys.
        keys: String,
    },
    /// What is to be signed can't be a tree head.
    #[error("{0:?} can't be in a tree head: it must be one line that is not empty")]
    Line(String),
}

impl TreeHead {
    /// Signs the head of the tree with this size and root over the log with this incarnation.
    ///
    /// # Errors
    /// [`InvalidHead::Line`] for an incarnation that is not one line.
    pub fn sign(key: &SigningKey, log: &str, size: u64, root: Hash) -> Result<Self, InvalidHead> {
        if log.is_empty() || log.chars().any(char::is_control) {
            return Err(InvalidHead::Line(log.to_owned()));
        }
        let origin = key.public().name();
        let text = format!("{origin}\n{size}\n{root}\n{LOG}{log}\n");
        let mut note = Note::new(text.as_bytes(), &[]).map_err(|_| InvalidHead::Form)?;
        note.add_sigs(&[&key.signer])
            .map_err(|_| InvalidHead::Form)?;
        Self::parse(&String::from_utf8_lossy(&note.to_bytes()))
    }

    /// Reads a signed note without checking signatures: for what is known to be so.
    ///
    /// # Errors
    /// [`InvalidHead::Form`].
    pub fn parse(note: &str) -> Result<Self, InvalidHead> {
        let parsed = Note::from_bytes(note.as_bytes()).map_err(|_| InvalidHead::Form)?;
        let head = Checkpoint::from_bytes(parsed.text()).map_err(|_| InvalidHead::Form)?;
        let mut lines = head.extension().lines();
        Ok(Self {
            origin: head.origin().to_owned(),
            log: lines.find_map(|line| line.strip_prefix(LOG).map(str::to_owned)),
            size: head.size(),
            root: (*head.hash()).into(),
            note: note.to_owned(),
        })
    }

    /// Reads a signed note that one of the keys has signed, for the log that the key is named after.
    /// Signatures by others, such as witnesses, may stand beside.
    ///
    /// # Errors
    /// [`InvalidHead`].
    pub fn verify(note: &str, keys: &[VerifyingKey]) -> Result<Self, InvalidHead> {
        let head = Self::parse(note)?;
        let parsed = Note::from_bytes(note.as_bytes()).map_err(|_| InvalidHead::Form)?;
        // A key signs for the log of its own name only.
        let mut own: Vec<&VerifyingKey> = Vec::new();
        for key in keys.iter().filter(|key| key.name() == head.origin) {
            if !own.contains(&key) {
                own.push(key);
            }
        }
        let verifiers = own
            .iter()
            .map(|key| Box::new(key.verifier.clone()) as Box<_>);
        match parsed.verify(&VerifierList::new(verifiers.collect())) {
            Ok(_) => Ok(head),
            Err(NoteError::InvalidSignature { name, id }) => Err(InvalidHead::Signature {
                key: format!("{name}+{id:08x}"),
            }),
            Err(_) => Err(InvalidHead::Unsigned {
                origin: head.origin,
                keys: match keys {
                    [] => "any key: none was given".to_owned(),
                    keys => keys
                        .iter()
                        .map(VerifyingKey::to_string)
                        .collect::<Vec<_>>()
                        .join(" or "),
                },
            }),
        }
    }
}

/// The signed notes in a file of tree heads: one after the other, with an empty line after each. What is only
/// half there is given as it is, and is no tree head.
pub fn heads_of(file: &str) -> impl Iterator<Item = String> {
    // In a note, too, an empty line stands between its text and its signatures.
    let blocks = file.split("\n\n").map(|block| block.trim_matches('\n'));
    let mut blocks = blocks.filter(|block| !block.is_empty()).peekable();
    std::iter::from_fn(move || {
        let text = blocks.next()?;
        let signatures = blocks.next_if(|block| block.starts_with(SIGNATURE));
        Some(format!("{text}\n\n{}\n", signatures.unwrap_or_default()))
    })
}
