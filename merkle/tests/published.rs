//! The published vectors: those of Certificate Transparency for RFC 6962 (the same trees as in RFC 9162), and
//! the examples of C2SP's signed-note.
#![allow(clippy::unwrap_used)]

use merkle::{
    Hash, InvalidHead, Tiles, Tree, TreeHead, VerifyingKey, leaf_hash, prove_consistency,
    prove_inclusion, root,
};

/// The eight leaves of the reference implementation's tests.
const LEAVES: [&[u8]; 8] = [
    b"",
    b"\x00",
    b"\x10",
    b"\x20\x21",
    b"\x30\x31",
    b"\x40\x41\x42\x43",
    b"\x50\x51\x52\x53\x54\x55\x56\x57",
    b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
];

/// The roots of the trees with the first of them.
const ROOTS: [&str; 8] = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

fn hex(hash: Hash) -> String {
    hash.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn all_hex(hashes: Vec<Hash>) -> Vec<String> {
    hashes.into_iter().map(hex).collect()
}

fn tiles() -> Tiles {
    let mut tree = Tree::default();
    for leaf in LEAVES {
        tree.append(leaf_hash(leaf));
    }
    tree.take_changed()
}

#[test]
fn the_roots_are_those_of_the_reference_implementation() {
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(hex(Tree::default().root().unwrap()), empty);
    let mut tree = Tree::default();
    for (leaf, expected) in LEAVES.into_iter().zip(ROOTS) {
        tree.append(leaf_hash(leaf));
        assert_eq!(hex(tree.root().unwrap()), expected);
        assert_eq!(hex(root(tree.size(), &tiles()).unwrap()), expected);
    }
}

#[test]
fn the_proofs_are_those_of_the_reference_implementation() {
    let inclusion = |index, size| all_hex(prove_inclusion(size, index, &tiles()).unwrap());
    assert!(inclusion(0, 1).is_empty());
    assert_eq!(
        inclusion(0, 8),
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ]
    );
    assert_eq!(
        inclusion(5, 8),
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            ROOTS[3],
        ]
    );
    let consistency = |from, to| all_hex(prove_consistency(from, to, &tiles()).unwrap());
    assert!(consistency(8, 8).is_empty());
    assert_eq!(
        consistency(6, 8),
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            ROOTS[3],
        ]
    );
    assert_eq!(
        consistency(2, 5),
        [
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ]
    );
}

/// The key pair of the examples in signed-note and in Go's `note` package.
const NEUMANN: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const NEUMANN_PRIVATE: &str =
    "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";

#[test]
fn the_published_private_key_has_the_published_public_key() {
    let key: merkle::SigningKey = NEUMANN_PRIVATE.parse().unwrap();
    assert_eq!(key.public().to_string(), NEUMANN);
    assert_eq!(key.expose(), NEUMANN_PRIVATE);
}

/// The example of C2SP tlog-checkpoint.
#[test]
fn the_published_checkpoint_is_read_and_no_other_key_vouches_for_it() {
    let note = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
                — example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n";
    let head = TreeHead::parse(note).unwrap();
    assert_eq!(head.origin, "example.com/behind-the-sofa");
    assert_eq!((head.size, head.log), (20_852_163, None));
    let other: VerifyingKey = NEUMANN.parse().unwrap();
    assert!(matches!(
        TreeHead::verify(note, &[other]),
        Err(InvalidHead::Unsigned { .. })
    ));
}
