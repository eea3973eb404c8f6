//! One suite for every store of the Merkle tree: each test runs on SQLite and on MongoDB.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::sync::Arc;

use event_log::Incarnation;
use events::Position;
use merkle::{
    Hash, SigningKey, TileId, Tiles, Tree, TreeHead, leaf_data, leaf_hash, root, tiles_for_root,
};
use read_models::testing::TestDatabase;
use read_models::{
    Catalogue, KeptTree, MongoCatalogue, SqliteCatalogue, State, TreeStore, TreeStoreError,
};
use tokio::runtime::Runtime;

/// A store of a test's own, opened anew for each use, as another process would.
enum Stack {
    Sqlite(tempfile::TempDir),
    Mongo(TestDatabase),
}

impl Stack {
    async fn catalogue(&self) -> Arc<dyn Catalogue> {
        let catalogue: Arc<dyn Catalogue> = match self {
            Self::Sqlite(directory) => {
                let path = directory.path().join("read.db");
                Arc::new(SqliteCatalogue::open(&path).await.unwrap())
            }
            Self::Mongo(database) => Arc::new(MongoCatalogue::open(&database.url).await.unwrap()),
        };
        catalogue.prepare().await.unwrap();
        catalogue
    }

    async fn store(&self) -> Arc<dyn TreeStore> {
        self.catalogue().await.tree()
    }
}

/// Runs a test on every stack.
fn on_every_stack(test: impl AsyncFn(&Stack)) {
    let runtime = Runtime::new().unwrap();
    let sqlite = Stack::Sqlite(tempfile::tempdir().unwrap());
    let mongo = TestDatabase::new().map(Stack::Mongo);
    for stack in std::iter::once(sqlite).chain(mongo) {
        runtime.block_on(test(&stack));
        if let Stack::Mongo(database) = stack {
            runtime.block_on(database.drop_database()).unwrap();
        }
    }
}

fn log(name: &str) -> Incarnation {
    Incarnation(name.to_owned())
}

/// A tree with the leaves of the positions up to `size`, whose texts begin with `salt`.
fn grown(tree: &mut Tree, size: u64, salt: &str) -> Tiles {
    for position in tree.size() + 1..=size {
        let payload = format!("{salt} {position}");
        let data = leaf_data(Position::new(position), payload.as_bytes());
        tree.append(leaf_hash(&data));
    }
    tree.take_changed()
}

fn head(size: u64, root: Hash) -> TreeHead {
    let key = SigningKey::from_seed("hansard", [1; 32]).unwrap();
    TreeHead::sign(&key, "a log", size, root).unwrap()
}

#[test]
fn there_is_no_tree_before_one_is_begun() {
    on_every_stack(async |stack| {
        let store = stack.store().await;
        assert_eq!(store.newest().await.unwrap(), None);
        assert_eq!(store.latest_head(1).await.unwrap(), None);
        assert!(store.heads(1, 0, 10).await.unwrap().is_empty());
        let some = TileId { level: 0, index: 0 };
        let tiles = store.tiles(1, &BTreeSet::from([some])).await.unwrap();
        assert!(tiles.is_empty());
    });
}

#[test]
fn of_many_who_begin_a_tree_one_does_and_all_have_it() {
    on_every_stack(async |stack| {
        let mut stores = Vec::new();
        for _ in 0..8 {
            stores.push(stack.store().await);
        }
        let names: Vec<String> = (0..8).map(|number| format!("log {number}")).collect();
        let begun = stores.iter().zip(&names).map(|(store, name)| {
            let name = log(name);
            async move { store.begin(0, &name).await.unwrap() }
        });
        let begun = futures::future::join_all(begun).await;
        assert!(begun.iter().all(|tree| *tree == begun[0]), "{begun:?}");
        assert_eq!((begun[0].number, begun[0].size), (1, 0));

        // Another one only on purpose: by somebody who knows of this one.
        let store = &stores[0];
        assert_eq!(store.begin(0, &log("x")).await.unwrap(), begun[0]);
        let next = store.begin(1, &log("x")).await.unwrap();
        assert_eq!((next.number, &next.log), (2, &log("x")));
        assert_eq!(store.newest().await.unwrap(), Some(next));
    });
}

#[test]
fn what_has_grown_is_there_when_it_is_opened_again_and_after_a_rebuild() {
    on_every_stack(async |stack| {
        let catalogue = stack.catalogue().await;
        let store = catalogue.tree();
        let number = store.begin(0, &log("a log")).await.unwrap().number;
        let mut tree = Tree::default();
        for size in [1, 255, 256, 257, 700] {
            let from = tree.size();
            let tiles = grown(&mut tree, size, "text");
            assert!(store.grow(number, from, size, &tiles).await.unwrap());
        }
        // Generations of the read models come and go.
        let generation = catalogue.add(0, State::Building).await.unwrap().unwrap();
        catalogue.open(generation.number).await.unwrap();
        catalogue.remove(generation.number).await.unwrap();

        let store = stack.store().await;
        let expected = KeptTree {
            number,
            log: log("a log"),
            size: 700,
        };
        assert_eq!(store.newest().await.unwrap(), Some(expected));
        let tiles = store.tiles(number, &tiles_for_root(700)).await.unwrap();
        assert_eq!(root(700, &tiles).unwrap(), tree.root().unwrap());
        let edge = Tree::tiles_to_resume(700).into_iter().collect();
        let tiles = store.tiles(number, &edge).await.unwrap();
        let resumed = Tree::resume(700, &tiles).unwrap();
        assert_eq!(resumed.root().unwrap(), tree.root().unwrap());
    });
}

#[test]
fn two_who_store_the_same_at_once_store_it_once() {
    on_every_stack(async |stack| {
        let store = stack.store().await;
        let number = store.begin(0, &log("a log")).await.unwrap().number;
        let first = grown(&mut Tree::default(), 300, "text");
        let longer = grown(&mut Tree::default(), 420, "text");
        let other = stack.store().await;
        let (one, two) = tokio::join!(
            store.grow(number, 0, 300, &first),
            other.grow(number, 0, 420, &longer)
        );
        // One is told that it was not the first.
        assert_ne!(one.unwrap(), two.unwrap());
        let size = store.newest().await.unwrap().unwrap().size;
        let mut tree = Tree::default();
        grown(&mut tree, size, "text");
        let tiles = store.tiles(number, &tiles_for_root(size)).await.unwrap();
        assert_eq!(root(size, &tiles).unwrap(), tree.root().unwrap());
        assert!(!store.grow(number, 0, 300, &first).await.unwrap());
    });
}

#[test]
fn a_stored_tile_is_never_overwritten_with_other_hashes() {
    on_every_stack(async |stack| {
        let store = stack.store().await;
        let number = store.begin(0, &log("a log")).await.unwrap().number;
        let mut tree = Tree::default();
        let tiles = grown(&mut tree, 100, "text");
        assert!(store.grow(number, 0, 100, &tiles).await.unwrap());

        let mut changed = Tree::default();
        let other = grown(&mut changed, 120, "other text");
        let refused = store.grow(number, 100, 120, &other).await;
        let Err(TreeStoreError::Contradiction { what }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(what, "hash 0 of tile 0 of level 0 of the tree");
        let first = TileId { level: 0, index: 0 };
        let kept = store.tiles(number, &BTreeSet::from([first])).await.unwrap();
        assert_eq!(kept[&first], tiles[&first]);
        assert_eq!(store.newest().await.unwrap().unwrap().size, 100);

        // The right one still grows.
        let more = grown(&mut tree, 120, "text");
        assert!(store.grow(number, 100, 120, &more).await.unwrap());
    });
}

#[test]
fn tree_heads_are_kept_by_size_each_once() {
    on_every_stack(async |stack| {
        let store = stack.store().await;
        let number = store.begin(0, &log("a log")).await.unwrap().number;
        let other = store.begin(number, &log("b")).await.unwrap().number;
        let heads = [1, 9, 10, 300, 70_000].map(|size| head(size, Hash([7; 32])));
        for at in [3, 0, 4, 2, 1, 1] {
            store.add_head(number, &heads[at]).await.unwrap();
        }
        store
            .add_head(other, &head(80_000, Hash([8; 32])))
            .await
            .unwrap();
        let notes = heads.clone().map(|head| head.note);
        let latest = store.latest_head(number).await.unwrap();
        assert_eq!(latest.as_ref(), notes.last());
        assert_eq!(store.heads(number, 0, 10).await.unwrap(), notes);
        assert_eq!(store.heads(number, 9, 2).await.unwrap(), notes[2..4]);

        // Signed anew, with another key: the first one stays.
        let key = SigningKey::from_seed("hansard", [2; 32]).unwrap();
        let again = TreeHead::sign(&key, "a log", 300, Hash([7; 32])).unwrap();
        store.add_head(number, &again).await.unwrap();
        assert_eq!(store.heads(number, 10, 1).await.unwrap(), notes[3..4]);

        let refused = store.add_head(number, &head(300, Hash([9; 32]))).await;
        let Err(TreeStoreError::Contradiction { what }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(what, "tree head of size 300");
        assert_eq!(store.heads(number, 10, 1).await.unwrap(), notes[3..4]);
    });
}
