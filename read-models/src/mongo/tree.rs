//! The stored Merkle tree in MongoDB. Without transactions: tiles first, the size last and only from what it
//! was. Tiles beyond the size are harmless, since whoever goes on stores the same ones again.

use std::collections::BTreeSet;

use async_trait::async_trait;
use event_log::Incarnation;
use merkle::{TileId, Tiles, TreeHead};
use mongodb::Collection;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, doc};
use mongodb::options::FindOneOptions;
use serde::{Deserialize, Serialize};

use super::connection::Connection;
use super::queries::collected;
use super::{QUERY_LIMIT, SIDE_BY_SIDE, WRITE_LIMIT, failure, insert};
use crate::tree::{Beside, beside, check_head};
use crate::{KeptTree, ReadModelError, TreeStore, TreeStoreError};
use futures::{StreamExt, TryStreamExt};

/// The stored tree in a MongoDB database.
#[derive(Clone)]
pub(super) struct MongoTree {
    connection: Connection,
    trees: Collection<TreeDocument>,
    tiles: Collection<TileDocument>,
    heads: Collection<HeadDocument>,
}

/// In `trees`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct TreeDocument {
    #[serde(rename = "_id")]
    number: i64,
    log: String,
    size: i64,
}

/// In `treeTiles`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct TileDocument {
    #[serde(rename = "_id")]
    id: TileKey,
    /// One hash after the other, up to 256.
    hashes: Binary,
}

/// Ids that are documents are compared field by field, in this order.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct TileKey {
    tree: i64,
    level: i64,
    index: i64,
}

/// In `treeHeads`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct HeadDocument {
    #[serde(rename = "_id")]
    id: HeadKey,
    /// The signed note.
    note: String,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct HeadKey {
    tree: i64,
    size: i64,
}

impl MongoTree {
    pub(super) fn new(connection: Connection) -> Self {
        let database = connection.database();
        Self {
            trees: database.collection("trees"),
            tiles: database.collection("treeTiles"),
            heads: database.collection("treeHeads"),
            connection,
        }
    }

    async fn find_newest(self) -> Result<Option<KeptTree>, ReadModelError> {
        let newest = FindOneOptions::builder().sort(doc! { "_id": -1 }).build();
        let found = self.trees.find_one(doc! {}).with_options(newest).await;
        let found = found.map_err(failure)?;
        found.map(kept).transpose()
    }

    async fn find_tiles(self, tree: u32, ids: Vec<TileId>) -> Result<Tiles, ReadModelError> {
        let mut keys = Vec::with_capacity(ids.len());
        for id in ids {
            let (level, index) = (i64::from(id.level), stored(id.index)?);
            keys.push(doc! { "tree": i64::from(tree), "level": level, "index": index });
        }
        let found = self.tiles.find(doc! { "_id": { "$in": keys } }).await;
        let found = collected(found).await?;
        found
            .into_iter()
            .map(|tile: TileDocument| {
                let level = u8::try_from(tile.id.level).map_err(|_| {
                    ReadModelError::Unusable("a tile of the tree has no level".to_owned())
                })?;
                let index = tile.id.index.unsigned_abs();
                Ok((TileId { level, index }, tile.hashes.bytes))
            })
            .collect()
    }

    /// Stores tiles. Each round looks at what is there, so the last one has seen all of it.
    async fn store_tiles(self, tree: u32, tiles: Tiles) -> Result<(), TreeStoreError> {
        loop {
            let there = self
                .clone()
                .find_tiles(tree, tiles.keys().copied().collect())
                .await?;
            let (mut new, mut longer) = (Vec::new(), Vec::new());
            for (id, hashes) in &tiles {
                let key = TileKey {
                    tree: i64::from(tree),
                    level: i64::from(id.level),
                    index: stored(id.index)?,
                };
                let document = TileDocument {
                    id: key,
                    hashes: binary(hashes),
                };
                match there.get(id) {
                    None => new.push(document),
                    Some(before) if beside(*id, before, hashes)? == Beside::Less => {
                        longer.push((binary(before), document));
                    }
                    Some(_) => {}
                }
            }
            if new.is_empty() && longer.is_empty() {
                return Ok(());
            }
            insert(&self.tiles, new).await?;
            let updates = longer.into_iter().map(|(before, tile)| {
                let tiles = self.tiles.clone();
                let id =
                    doc! { "tree": tile.id.tree, "level": tile.id.level, "index": tile.id.index };
                async move {
                    // Somebody else may have been faster; the next round sees.
                    let update = tiles.update_one(
                        doc! { "_id": id, "hashes": before },
                        doc! { "$set": { "hashes": tile.hashes } },
                    );
                    update.await.map(drop).map_err(failure)
                }
            });
            futures::stream::iter(updates)
                .buffer_unordered(SIDE_BY_SIDE)
                .try_collect::<()>()
                .await?;
        }
    }
}

#[async_trait]
impl TreeStore for MongoTree {
    async fn newest(&self) -> Result<Option<KeptTree>, TreeStoreError> {
        let finding = self.clone().find_newest();
        Ok(self.connection.run(QUERY_LIMIT, finding).await?)
    }

    async fn begin(&self, last: u32, log: &Incarnation) -> Result<KeptTree, TreeStoreError> {
        let this = self.clone();
        let begun = TreeDocument {
            number: i64::from(last) + 1,
            log: log.0.clone(),
            size: 0,
        };
        let beginning = async move {
            if this
                .clone()
                .find_newest()
                .await?
                .is_none_or(|newest| newest.number == last)
            {
                insert(&this.trees, vec![begun]).await?;
            }
            let newest = this.find_newest().await?;
            newest.ok_or_else(|| ReadModelError::Unavailable("the tree is gone again".to_owned()))
        };
        Ok(self.connection.run(QUERY_LIMIT, beginning).await?)
    }

    async fn tiles(&self, tree: u32, ids: &BTreeSet<TileId>) -> Result<Tiles, TreeStoreError> {
        let finding = self.clone().find_tiles(tree, ids.iter().copied().collect());
        Ok(self.connection.run(QUERY_LIMIT, finding).await?)
    }

    async fn grow(
        &self,
        tree: u32,
        from: u64,
        to: u64,
        tiles: &Tiles,
    ) -> Result<bool, TreeStoreError> {
        let (this, tiles) = (self.clone(), tiles.clone());
        let (number, from, to) = (i64::from(tree), stored(from)?, stored(to)?);
        let growing = async move {
            let filter = doc! { "_id": number, "size": from };
            let unchanged = this.trees.find_one(filter.clone()).await.map_err(failure)?;
            if unchanged.is_none() {
                return Ok(Ok(false));
            }
            match this.clone().store_tiles(tree, tiles).await {
                Ok(()) => {}
                Err(TreeStoreError::Store(error)) => return Err(error),
                Err(contradiction) => return Ok(Err(contradiction)),
            }
            let grown = this
                .trees
                .update_one(filter, doc! { "$set": { "size": to } });
            Ok(Ok(grown.await.map_err(failure)?.matched_count == 1))
        };
        self.connection.run(WRITE_LIMIT, growing).await?
    }

    async fn add_head(&self, tree: u32, head: &TreeHead) -> Result<(), TreeStoreError> {
        let heads = self.heads.clone();
        let document = HeadDocument {
            id: HeadKey {
                tree: i64::from(tree),
                size: stored(head.size)?,
            },
            note: head.note.clone(),
        };
        let adding = async move {
            let id = doc! { "tree": document.id.tree, "size": document.id.size };
            insert(&heads, vec![document]).await?;
            heads.find_one(doc! { "_id": id }).await.map_err(failure)
        };
        let kept = self.connection.run(QUERY_LIMIT, adding).await?;
        let kept = kept.map_or_else(String::new, |kept| kept.note);
        check_head(&kept, head)
    }

    async fn latest_head(&self, tree: u32) -> Result<Option<String>, TreeStoreError> {
        let (heads, tree) = (self.heads.clone(), i64::from(tree));
        let finding = async move {
            let of_tree = doc! { "_id": {
                "$gte": { "tree": tree, "size": 0_i64 },
                "$lte": { "tree": tree, "size": i64::MAX },
            } };
            let found = heads.find_one(of_tree).sort(doc! { "_id": -1 });
            found.await.map_err(failure)
        };
        let found = self.connection.run(QUERY_LIMIT, finding).await?;
        Ok(found.map(|head| head.note))
    }

    async fn heads(
        &self,
        tree: u32,
        after: u64,
        limit: u32,
    ) -> Result<Vec<String>, TreeStoreError> {
        let heads = self.heads.clone();
        let (tree, after) = (i64::from(tree), stored(after)?);
        let finding = async move {
            let later = doc! { "_id": {
                "$gt": { "tree": tree, "size": after },
                "$lte": { "tree": tree, "size": i64::MAX },
            } };
            let found = heads
                .find(later)
                .sort(doc! { "_id": 1 })
                .limit(i64::from(limit));
            collected(found.await).await
        };
        let found = self.connection.run(QUERY_LIMIT, finding).await?;
        Ok(found.into_iter().map(|head| head.note).collect())
    }
}

fn kept(tree: TreeDocument) -> Result<KeptTree, ReadModelError> {
    let number = u32::try_from(tree.number)
        .map_err(|_| ReadModelError::Unusable("the tree has no number".to_owned()))?;
    Ok(KeptTree {
        number,
        log: Incarnation(tree.log),
        size: tree.size.unsigned_abs(),
    })
}

fn binary(bytes: &[u8]) -> Binary {
    Binary {
        subtype: BinarySubtype::Generic,
        bytes: bytes.to_vec(),
    }
}

/// As MongoDB stores it.
fn stored(number: u64) -> Result<i64, ReadModelError> {
    i64::try_from(number).map_err(|_| {
        ReadModelError::Refused(format!("{number} is no size of a tree: it is too large"))
    })
}
