//! What is handed to people to prove something with: tree heads, keys, proofs. The first byte chooses.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use merkle::{
    ConsistencyProof, InclusionProof, SigningKey, TreeHead, VerifyingKey, heads_of, leaf_data,
};

use crate::{Outcome, choice, refused};

/// Which key has signed what is genuine.
pub static KEY: LazyLock<VerifyingKey> = LazyLock::new(|| {
    let key = SigningKey::from_seed("test.example/log", [1; 32]);
    key.unwrap().public().clone()
});

/// The one tree head that was ever signed with [`KEY`].
const HEAD: &str = include_str!("../../genuine/checkpoint");

/// The proof of an event in that tree.
static PROOF: LazyLock<InclusionProof> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../genuine/proof.json")).unwrap());

pub fn run(data: &[u8]) -> Outcome {
    let (choice, rest) = choice(data);
    let text = String::from_utf8_lossy(rest);
    match choice % 5 {
        0 => tree_head(&text),
        1 => inclusion(&text),
        2 => consistency(&text),
        3 => keys(&text),
        _ => tree_heads(&text),
    }
}

fn tree_head(note: &str) -> Outcome {
    if let Ok(head) = TreeHead::parse(note) {
        assert_eq!(head.note, note);
    }
    match TreeHead::verify(note, std::slice::from_ref(&*KEY)) {
        Ok(head) => {
            // Others may have signed it as well.
            let genuine = TreeHead::parse(HEAD).unwrap();
            let says = |head: &TreeHead| {
                let text = head.note.split("\n\n").next().map(str::to_owned);
                (text, head.origin.clone(), head.size, head.root)
            };
            assert_eq!(says(&head), says(&genuine), "a forged tree head passes");
            Outcome::Accepted
        }
        Err(error) => refused(&error),
    }
}

fn inclusion(text: &str) -> Outcome {
    let proof: InclusionProof = match serde_json::from_str(text) {
        Ok(proof) => proof,
        Err(error) => return refused(&error),
    };
    let written = serde_json::to_string(&proof).unwrap();
    assert_eq!(
        serde_json::from_str::<InclusionProof>(&written).unwrap(),
        proof
    );
    match proof.verify(std::slice::from_ref(&*KEY)) {
        Ok(_) => {
            let says = |proof: &InclusionProof| {
                let payload = proof.payload().unwrap();
                (proof.position, payload, proof.hashes.clone())
            };
            assert_eq!(says(&proof), says(&PROOF), "a forged proof passes");
            Outcome::Accepted
        }
        Err(error) => {
            // With the genuine tree head, and whatever leaf fits the position.
            let head = TreeHead::parse(HEAD).unwrap();
            let leaf = leaf_data(proof.position, text.as_bytes());
            let again = InclusionProof::new(proof.position, &leaf, proof.hashes, &head);
            assert!(again.verify_in(&head).is_err(), "a forged event is proven");
            refused(&error)
        }
    }
}

fn consistency(text: &str) -> Outcome {
    let proof: ConsistencyProof = match serde_json::from_str(text) {
        Ok(proof) => proof,
        Err(error) => return refused(&error),
    };
    let written = serde_json::to_string(&proof).unwrap();
    assert_eq!(
        serde_json::from_str::<ConsistencyProof>(&written).unwrap(),
        proof
    );
    match proof.verify() {
        Ok(()) => {
            assert!((1..=proof.to).contains(&proof.from));
            if proof.from == proof.to {
                assert_eq!(proof.from_root, proof.to_root);
            }
            Outcome::Accepted
        }
        Err(error) => refused(&error),
    }
}

fn keys(text: &str) -> Outcome {
    let outcome = match text.parse::<VerifyingKey>() {
        Ok(key) => {
            assert_eq!(key.to_string(), text);
            assert!(!key.name().is_empty());
            let pem = key.to_pem();
            let der = pem.lines().nth(1).unwrap();
            assert_eq!(STANDARD.decode(der).unwrap().len(), 44);
            Outcome::Accepted
        }
        Err(error) => refused(&error),
    };
    match text.parse::<SigningKey>() {
        Ok(key) => {
            assert_eq!(key.expose(), text);
            let head = TreeHead::sign(&key, "log", 1, merkle::Hash([0; 32])).unwrap();
            TreeHead::verify(&head.note, std::slice::from_ref(key.public())).unwrap();
            Outcome::Accepted
        }
        Err(error) => {
            refused(&error);
            outcome
        }
    }
}

/// A file of tree heads, of which a crash may have left half of one.
fn tree_heads(file: &str) -> Outcome {
    let mut outcome = Outcome::Refused;
    for note in heads_of(file) {
        assert!(!note.trim_matches('\n').is_empty());
        if tree_head(&note) == Outcome::Accepted {
            outcome = Outcome::Accepted;
        }
    }
    // What is appended to it is found, whatever was there.
    let longer = format!("{file}\n\n{HEAD}\n");
    let last = heads_of(&longer).last().unwrap();
    assert_eq!(last, HEAD);
    outcome
}
