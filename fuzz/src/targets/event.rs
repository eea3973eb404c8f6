//! What stands in the log: `events::Encoded`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use events::{DataKey, DecodeError, Encoded, Envelope, KeyId, Subject};
use serde_json::Value;

use crate::{Outcome, refused};

pub fn run(data: &[u8]) -> Outcome {
    let encoded = match Encoded::parse(data) {
        Ok(encoded) => encoded,
        Err(error) => return told(&error),
    };
    let keys = keys_of(&encoded.key_ids());
    let without_texts = encoded.decode(None).unwrap();
    read_back(&without_texts);
    // An event whose texts are not sealed is the same with keys and without.
    match Encoded::parse(data).unwrap().decode(Some(&keys)) {
        Ok(envelope) => {
            read_back(&envelope);
            Outcome::Accepted
        }
        Err(error) => {
            assert!(!keys.is_empty(), "nothing is sealed: {error}");
            told(&error)
        }
    }
}

fn told(error: &DecodeError) -> Outcome {
    assert!(!error.kind().is_empty());
    refused(error)
}

/// Whatever was read is written in a way that says the same, and opens with nothing but its keys.
fn read_back(envelope: &Envelope) {
    let subject = envelope.event.subject();
    assert_eq!(subject.to_string().parse::<Subject>(), Ok(subject));
    serde_json::from_slice::<Value>(&envelope.to_json()).unwrap();

    let keys = keys_of(&envelope.key_ids());
    let written = envelope.encode(&keys);
    let encoded = Encoded::parse(&written).unwrap();
    assert_eq!(encoded.key_ids(), envelope.key_ids());
    assert_eq!(encoded.decode(Some(&keys)).unwrap(), *envelope);
    if keys.is_empty() {
        return;
    }
    let other: Vec<DataKey> = keys.iter().map(|_| DataKey::from_bytes([0; 32])).collect();
    opens_never(&written, &other);
    let mut written: Value = serde_json::from_slice(&written).unwrap();
    let mut sealed = STANDARD
        .decode(written["data"]["sealed"].as_str().unwrap())
        .unwrap();
    let middle = sealed.len() / 2;
    for place in [0, middle, sealed.len() - 1] {
        sealed[place] ^= 1;
        written["data"]["sealed"] = STANDARD.encode(&sealed).into();
        opens_never(written.to_string().as_bytes(), &keys);
        sealed[place] ^= 1;
    }
}

fn opens_never(written: &[u8], keys: &[DataKey]) {
    let decoded = Encoded::parse(written).unwrap().decode(Some(keys));
    assert!(
        matches!(decoded, Err(DecodeError::Sealed { .. })),
        "{decoded:?}"
    );
}

/// The keys that the golden files of `events` are sealed with, which the corpus begins with.
fn keys_of(ids: &[KeyId]) -> Vec<DataKey> {
    let key = |id: &KeyId| match id {
        KeyId::Person(_) => DataKey::from_bytes([1; 32]),
        KeyId::Period { .. } => DataKey::from_bytes([2; 32]),
    };
    ids.iter().map(key).collect()
}
