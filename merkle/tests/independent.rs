//! Trees, proofs and signatures beside those of libraries that Hansard does not use: `ct-merkle` and `ring`.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use ct_merkle::{ConsistencyProof as TheirConsistency, InclusionProof as TheirInclusion, RootHash};
use merkle::{
    ConsistencyProof, Hash, InclusionProof, InvalidHead, InvalidProof, MISSING, SigningKey, TileId,
    Tiles, Tree, TreeError, TreeHead, heads_of, leaf_data, leaf_hash, position_of,
    prove_consistency, prove_inclusion, root, tiles_for_consistency, tiles_for_inclusion,
    tiles_for_root,
};
use proptest::prelude::*;
use sha2::Sha256;

type Theirs = MemoryBackedTree<Sha256, Vec<u8>>;

/// Ten bytes or so for each leaf; now and then a missing one.
fn leaf(index: u64) -> Vec<u8> {
    match index % 97 {
        13 => MISSING.to_vec(),
        _ => leaf_data(position_of(index), &index.to_le_bytes()),
    }
}

/// Both trees with so many leaves; ours as it is stored.
fn grown(size: u64) -> (Theirs, Tiles) {
    let (mut theirs, mut tree) = (Theirs::new(), Tree::default());
    for index in 0..size {
        theirs.push(leaf(index));
        tree.append(leaf_hash(&leaf(index)));
    }
    (theirs, tree.take_changed())
}

fn bytes(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

/// These tiles and no others.
fn only(tiles: &Tiles, ids: BTreeSet<TileId>) -> Tiles {
    let found = ids
        .into_iter()
        .filter_map(|id| Some((id, tiles.get(&id)?.clone())));
    found.collect()
}

fn key() -> SigningKey {
    SigningKey::from_seed("example.com/log", [7; 32]).unwrap()
}

fn head(size: u64, root: Hash) -> TreeHead {
    TreeHead::sign(&key(), "an incarnation", size, root).unwrap()
}

#[test]
fn a_tree_of_three_levels_of_tiles_has_their_root_and_proofs() {
    let size = 66_000;
    let (theirs, tiles) = grown(size);
    assert_eq!(tiles.keys().map(|id| id.level).max(), Some(2));
    assert_eq!(root(size, &tiles).unwrap().0, theirs.root().as_bytes()[..]);
    for index in [0, 255, 256, 65_535, 65_536, size - 1] {
        let ours = prove_inclusion(size, index, &tiles).unwrap();
        let theirs = theirs.prove_inclusion(usize::try_from(index).unwrap());
        assert_eq!(bytes(&ours), theirs.as_bytes(), "{index}");
        assert!(tiles_for_inclusion(size, index).unwrap().len() < 8);
    }
    // 32 bytes an event, and little besides.
    let stored: usize = tiles.values().map(Vec::len).sum();
    assert!(stored < 33 * 66_000, "{stored}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn inclusion_is_proven_as_they_do_and_each_accepts_the_others(
        (size, index) in (1_u64..1500).prop_flat_map(|size| (Just(size), 0..size)),
        more in 0_u64..300,
    ) {
        // Also in a tree that has grown since.
        let (theirs, _) = grown(size);
        let (_, tiles) = grown(size + more);
        let tiles = only(&tiles, tiles_for_inclusion(size, index).unwrap());
        let proof = prove_inclusion(size, index, &tiles).unwrap();
        let their_proof = theirs.prove_inclusion(usize::try_from(index).unwrap());
        prop_assert_eq!(bytes(&proof), their_proof.as_bytes());

        let read = TheirInclusion::<Sha256>::try_from_bytes(bytes(&proof)).unwrap();
        let their_root: RootHash<Sha256> = theirs.root();
        prop_assert!(their_root.verify_inclusion(&leaf(index), index, &read).is_ok());

        let head = head(size, Hash(theirs.root().as_bytes()[..].try_into().unwrap()));
        let ours = InclusionProof::new(position_of(index), &leaf(index), proof, &head);
        prop_assert_eq!(ours.verify(&[key().public().clone()]), Ok(head));
    }

    #[test]
    fn consistency_is_proven_as_they_do_and_each_accepts_the_others(
        (from, to) in (1_u64..1500).prop_flat_map(|to| (1..=to, Just(to))),
    ) {
        let (earlier, _) = grown(from);
        let (theirs, tiles) = grown(to);
        let needed = only(&tiles, tiles_for_consistency(from, to).unwrap());
        let hashes = prove_consistency(from, to, &needed).unwrap();
        let added = usize::try_from(to - from).unwrap();
        let their_proof = theirs.prove_consistency(added);
        prop_assert_eq!(bytes(&hashes), their_proof.as_bytes());

        let read = TheirConsistency::<Sha256>::try_from_bytes(bytes(&hashes)).unwrap();
        prop_assert!(theirs.root().verify_consistency(&earlier.root(), &read).is_ok());

        let from_root = root(from, &only(&tiles, tiles_for_root(from))).unwrap();
        let to_root = root(to, &tiles).unwrap();
        let ours = ConsistencyProof { from, to, from_root, to_root, hashes };
        prop_assert_eq!(ours.verify(), Ok(()));
        let mut wrong = ours;
        wrong.from_root.0[3] ^= 1;
        prop_assert_eq!(wrong.verify(), Err(InvalidProof::Consistency));
    }

    #[test]
    fn a_tree_that_was_stored_and_resumed_at_any_size_is_the_same(
        steps in prop::collection::vec(0_u64..700, 1..6),
    ) {
        let (mut stored, mut size) = (Tiles::new(), 0);
        for step in steps {
            let ids = Tree::tiles_to_resume(size).into_iter().collect();
            let mut tree = Tree::resume(size, &only(&stored, ids)).unwrap();
            for index in size..size + step {
                tree.append(leaf_hash(&leaf(index)));
            }
            size += step;
            prop_assert_eq!(tree.size(), size);
            for (id, hashes) in tree.take_changed() {
                // A tile only ever grows.
                let before = stored.insert(id, hashes.clone()).unwrap_or_default();
                prop_assert!(hashes.starts_with(&before) && hashes.len() > before.len());
            }
            prop_assert!(tree.take_changed().is_empty());
            let (theirs, whole) = grown(size);
            prop_assert_eq!(&whole, &stored);
            let their_root = theirs.root();
            prop_assert_eq!(&tree.root().unwrap().0[..], &their_root.as_bytes()[..]);
        }
    }

    #[test]
    fn whatever_is_changed_in_a_proof_is_noticed(
        (size, index) in (2_u64..400).prop_flat_map(|size| (Just(size), 0..size)),
        what in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let (_, tiles) = grown(size);
        let head = head(size, root(size, &tiles).unwrap());
        let hashes = prove_inclusion(size, index, &tiles).unwrap();
        let leaf = leaf_data(position_of(index), &index.to_le_bytes());
        prop_assume!(index % 97 != 13);
        let right = InclusionProof::new(position_of(index), &leaf, hashes.clone(), &head);
        prop_assert!(right.verify(&[key().public().clone()]).is_ok());

        let mut wrongs = vec![right.clone(), right.clone(), right.clone(), right.clone()];
        let mut changed = leaf.clone();
        changed[what.index(leaf.len())] ^= 1 << bit;
        wrongs[0].leaf = BASE64_STANDARD.encode(changed);
        wrongs[1].hashes[what.index(hashes.len())].0[usize::from(bit)] ^= 1;
        wrongs[2].hashes.pop();
        let mut note = right.tree_head.clone().into_bytes();
        // Any byte of the text, which is what is signed.
        let text = right.tree_head.find("\n\n").unwrap();
        note[what.index(text)] ^= 1;
        wrongs[3].tree_head = String::from_utf8_lossy(&note).into_owned();
        for wrong in wrongs {
            prop_assert!(wrong.verify(&[key().public().clone()]).is_err(), "{:?}", wrong);
        }
    }
}

#[test]
fn a_missing_or_short_tile_is_named() {
    let (_, mut tiles) = grown(700);
    let first = TileId { level: 0, index: 0 };
    tiles.get_mut(&first).unwrap().truncate(32 * 100);
    assert_eq!(prove_inclusion(700, 3, &tiles), Err(TreeError::Tile(first)));
    tiles.clear();
    assert!(matches!(root(700, &tiles), Err(TreeError::Tile(_))));
    assert!(matches!(Tree::resume(700, &tiles), Err(TreeError::Tile(_))));
    let told = prove_inclusion(700, 700, &tiles).unwrap_err().to_string();
    assert_eq!(told, "a tree of 700 leaves has no leaf 700");
    assert!(tiles_for_consistency(0, 700).is_err());
    assert!(tiles_for_consistency(701, 700).is_err());
}

#[test]
fn a_tree_head_carries_the_signature_that_ring_accepts() {
    let (_, tiles) = grown(5);
    let head = head(5, root(5, &tiles).unwrap());
    assert_eq!(head.log.as_deref(), Some("an incarnation"));
    assert_eq!((head.origin.as_str(), head.size), ("example.com/log", 5));
    let (text, signatures) = head.note.split_once("\n\n").unwrap();
    let signature = signatures.trim_end().rsplit_once(' ').unwrap().1;
    let signature = BASE64_STANDARD.decode(signature).unwrap();
    let public = key().public().to_string();
    let public = BASE64_STANDARD
        .decode(public.rsplit_once("+").unwrap().1)
        .unwrap();
    let ring = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, &public[1..]);
    assert!(
        ring.verify(format!("{text}\n").as_bytes(), &signature[4..])
            .is_ok()
    );
    // The key's id, as signed-note says: the hash of name, line feed and key begins with it.
    let named = [b"example.com/log\n", &public[..]].concat();
    let digest = ring::digest::digest(&ring::digest::SHA256, &named);
    assert_eq!(digest.as_ref()[..4], signature[..4]);
    // PEM has the same key.
    let pem = key().public().to_pem();
    let der = BASE64_STANDARD.decode(pem.lines().nth(1).unwrap()).unwrap();
    assert_eq!(der[12..], public[1..]);
}

#[test]
fn a_tree_head_by_another_key_or_of_another_origin_is_refused() {
    let head = head(5, Hash([9; 32]));
    let other = SigningKey::from_seed("example.com/log", [8; 32]).unwrap();
    let named_otherwise = SigningKey::from_seed("example.com/other", [7; 32]).unwrap();
    for key in [&other, &named_otherwise] {
        assert!(matches!(
            TreeHead::verify(&head.note, &[key.public().clone()]),
            Err(InvalidHead::Unsigned { .. })
        ));
    }
    // Rotated: one of several is enough, named twice or not.
    let keys = [&other, &key(), &key()].map(|key| key.public().clone());
    assert_eq!(TreeHead::verify(&head.note, &keys), Ok(head.clone()));
    let forged = head.note.replace("\n5\n", "\n6\n");
    assert!(matches!(
        TreeHead::verify(&forged, &keys),
        Err(InvalidHead::Signature { .. })
    ));
    for note in ["", "x", "a\n1\nAA==\n\n— a b\n", &head.note[..40]] {
        assert_eq!(TreeHead::verify(note, &keys), Err(InvalidHead::Form));
    }
    for log in ["", "two\nlines"] {
        assert!(TreeHead::sign(&key(), log, 5, Hash([9; 32])).is_err());
    }
}

#[test]
fn keys_are_read_back_and_others_are_refused() {
    let key = key();
    let again: SigningKey = key.expose().parse().unwrap();
    assert_eq!(again.public(), key.public());
    for name in ["", "two words", "a+b", "line\u{7}"] {
        assert!(SigningKey::from_seed(name, [1; 32]).is_err(), "{name}");
    }
    let public = key.public().to_string();
    for wrong in ["", "x", &public.replace("log", "lag"), &public[..30]] {
        assert!(wrong.parse::<merkle::VerifyingKey>().is_err(), "{wrong}");
        assert!(wrong.parse::<SigningKey>().is_err(), "{wrong}");
    }
}

#[test]
fn a_file_of_tree_heads_is_read_one_by_one() {
    let heads = [1, 2, 3].map(|size| head(size, Hash([9; 32])).note);
    let file: String = heads.iter().map(|note| format!("{note}\n")).collect();
    assert_eq!(heads_of(&file).collect::<Vec<_>>(), heads);
    assert_eq!(heads_of(&heads[1]).collect::<Vec<_>>(), heads[1..2]);
    assert_eq!(heads_of("").count(), 0);
    // Cut off in the middle: what is left is no tree head.
    let last = heads_of(&file[..file.len() - 100]).last().unwrap();
    assert!(TreeHead::parse(&last).is_err());
    // What follows it is whole again, wherever it was cut off.
    for cut in 1..heads[2].len() {
        let half = &heads[2].as_bytes()[..cut];
        let file = format!("{}\n\n{}\n", String::from_utf8_lossy(half), heads[1]);
        assert_eq!(heads_of(&file).last().unwrap(), heads[1], "{cut}");
    }
}

#[test]
fn a_proof_that_contradicts_itself_is_refused() {
    let (_, tiles) = grown(30);
    let head = head(30, root(30, &tiles).unwrap());
    let hashes = prove_inclusion(30, 4, &tiles).unwrap();
    let right = InclusionProof::new(position_of(4), &leaf(4), hashes, &head);
    let keys = [key().public().clone()];
    assert!(right.verify(&keys).is_ok());
    assert_eq!(right.payload().unwrap().unwrap(), 4_u64.to_le_bytes());
    let json = serde_json::to_string(&right).unwrap();
    assert_eq!(
        serde_json::from_str::<InclusionProof>(&json).unwrap(),
        right
    );
    let told = |change: fn(&mut InclusionProof)| {
        let mut wrong = right.clone();
        change(&mut wrong);
        wrong.verify(&keys).unwrap_err().to_string()
    };
    assert_eq!(
        told(|proof| proof.position = position_of(5)),
        "the leaf is not of position 0000000000000006"
    );
    assert_eq!(
        told(|proof| proof.index = 5),
        "leaf 5 is not that of position 0000000000000005"
    );
    assert_eq!(
        told(|proof| proof.tree_size = 31),
        "the proof is for 31 leaves, its tree head for 30"
    );
    assert_eq!(
        told(|proof| proof.leaf = "?".into()),
        "the leaf is not in base64"
    );
    assert_eq!(
        told(|proof| proof.leaf = String::new()),
        "the hashes do not lead from the event to the signed root: the event or the proof was changed"
    );
}
