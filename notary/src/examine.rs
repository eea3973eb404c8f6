//! Before the notary goes on with a tree: whether the log is still what was hashed and signed.

use event_log::{EventLog, Filter, Incarnation, Position};
use futures::TryStreamExt;
use merkle::{
    Hash, MISSING, SigningKey, TILE_WIDTH, TileId, Tree, TreeHead, VerifyingKey, leaf_data,
    leaf_hash, position_of, root, tiles_for_root,
};
use read_models::{KeptTree, TreeStore};

use crate::tampering::Trouble;
use crate::{HeadsFile, Tampering};

/// What the notary goes on from.
pub(crate) struct Begun {
    /// The stored tree.
    pub(crate) kept: KeptTree,
    /// The same, to grow.
    pub(crate) tree: Tree,
    /// The size of the newest tree head that is stored.
    pub(crate) signed: Option<u64>,
    /// A tree head, known from the file, that the tree has yet to grow to: then it must have this root.
    pub(crate) expected: Option<TreeHead>,
}

/// Looks at the log, the stored tree and the tree heads.
pub(crate) async fn examine(
    log: &dyn EventLog,
    store: &dyn TreeStore,
    file: &HeadsFile,
    keys: &[SigningKey],
) -> Result<Begun, Trouble> {
    let public: Vec<VerifyingKey> = keys.iter().map(|key| key.public().clone()).collect();
    let in_file = match file.newest(public.clone()).await {
        Ok(head) => head,
        Err(error) => {
            tracing::warn!("can't read {}: {error}", file.path().display());
            None
        }
    };
    let mut newest = store.newest().await?;
    // After the tree: the log can only have got longer since.
    let mut tail = log.tail().await?;
    if newest.is_none() {
        if let Some(head) = &in_file {
            check_log(&tail.incarnation, &logged(head))?;
        }
        newest = Some(store.begin(0, &tail.incarnation).await?);
        tail = log.tail().await?;
    }
    let Some(kept) = newest else {
        return Err(Trouble::Outage("the tree is gone again".to_owned()));
    };
    check_log(&tail.incarnation, &kept.log)?;
    check_length(tail.last, "the tree", kept.size)?;

    let stored = store.latest_head(kept.number).await?;
    let stored = stored
        .map(|note| trusted(&note, &public, &kept.log))
        .transpose()?;
    // A file may be left from a tree that was given up on another machine.
    let in_file = in_file.filter(|head| logged(head) == kept.log);
    let mut expected = None;
    for head in stored.iter().chain(&in_file) {
        check_length(tail.last, "a signed tree head", head.size)?;
        if head.size <= kept.size {
            let tiles = store.tiles(kept.number, &tiles_for_root(head.size)).await?;
            if root(head.size, &tiles)? != head.root {
                return Err(Tampering::Root(head.size).into());
            }
        } else {
            expected = Some(head.clone());
        }
    }

    let edge = Tree::tiles_to_resume(kept.size).into_iter().collect();
    let tree = Tree::resume(kept.size, &store.tiles(kept.number, &edge).await?)?;
    check_last_leaves(log, store, &kept).await?;
    Ok(Begun {
        signed: stored.map(|head| head.size),
        kept,
        tree,
        expected,
    })
}

fn logged(head: &TreeHead) -> Incarnation {
    Incarnation(head.log.clone().unwrap_or_default())
}

/// Whether it is the log that was hashed.
pub(crate) fn check_log(log: &Incarnation, tree: &Incarnation) -> Result<(), Tampering> {
    match log == tree {
        true => Ok(()),
        false => Err(Tampering::OtherLog {
            log: log.clone(),
            tree: tree.clone(),
        }),
    }
}

/// Whether the log still has as many events as were hashed.
pub(crate) fn check_length(last: Position, by: &'static str, size: u64) -> Result<(), Tampering> {
    match last.get() >= size {
        true => Ok(()),
        false => Err(Tampering::CutOff {
            log: last,
            by,
            size,
        }),
    }
}

fn trusted(note: &str, keys: &[VerifyingKey], log: &Incarnation) -> Result<TreeHead, Tampering> {
    let head = TreeHead::verify(note, keys).map_err(Tampering::Head)?;
    match logged(&head) == *log {
        true => Ok(head),
        false => Err(Tampering::HeadOfOtherLog(logged(&head).0)),
    }
}

/// Hashes the last events once more, as many as the last tile has. All of them would take as long as the log
/// is; that is what `hansard verify log` is for.
async fn check_last_leaves(
    log: &dyn EventLog,
    store: &dyn TreeStore,
    kept: &KeptTree,
) -> Result<(), Trouble> {
    let Some(last) = kept.size.checked_sub(1) else {
        return Ok(());
    };
    let id = TileId {
        level: 0,
        index: last / TILE_WIDTH as u64,
    };
    let tiles = store.tiles(kept.number, &[id].into()).await?;
    let hashes = tiles.get(&id).map_or(&[][..], Vec::as_slice);
    let first = id.index * TILE_WIDTH as u64;
    let mut events = log.read(Filter::All, Position::new(first)).await?;
    let mut next = events.try_next().await?;
    for (index, hash) in (first..=last).zip(hashes.chunks(Hash::BYTES)) {
        let position = position_of(index);
        let found = match &next {
            Some(event) if event.position == position => {
                let found = leaf_hash(&leaf_data(position, &event.payload));
                next = events.try_next().await?;
                found
            }
            _ => leaf_hash(MISSING),
        };
        if found.0[..] != *hash {
            return Err(Tampering::Changed(position).into());
        }
    }
    Ok(())
}
