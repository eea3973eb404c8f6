//! Verifying the log: hashes all of it afresh, compares each leaf with the stored tree and each root with
//! the signed tree heads, and tells what was done where they differ.
//!
//! Leaves tell positions apart, roots tell who is right: what a trusted tree head was signed over is what
//! there was.

use std::collections::BTreeMap;

use event_log::{EventLog, Filter, LogError, Position, Recorded};
use futures::TryStreamExt;
use merkle::{
    Hash, MISSING, TILE_WIDTH, TileId, Tree, TreeError, TreeHead, VerifyingKey, index_of,
    leaf_data, leaf_hash, position_of, root, tiles_for_root,
};
use read_models::{KeptTree, TreeStore, TreeStoreError};

use crate::report::{How, LISTED, LogReport};

/// Stored tree heads read at a time.
const PAGE: u32 = 1000;

/// As many bytes of differing events are kept to find out what was done with them.
const KEPT_BYTES: usize = 32 * 1024 * 1024;

/// By how many positions events may have moved for that to be noticed.
const MOVED_BY: u64 = 8;

/// What to verify the log against.
pub struct Evidence<'a> {
    /// The stored tree.
    pub store: Option<&'a dyn TreeStore>,
    /// Tree heads that were kept elsewhere, with where they are from.
    pub heads: Vec<(String, String)>,
    /// The keys that tree heads must be signed with.
    pub keys: Vec<VerifyingKey>,
    /// Is told how many of how many events were hashed.
    pub progress: &'a (dyn Fn(u64, u64) + Sync),
}

/// Nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum VerifyLogError {
    /// The log can't be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The stored tree can't be read.
    #[error(transparent)]
    Store(#[from] TreeStoreError),
    /// The tree could not be computed.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// There is nothing to compare the log with.
    #[error(
        "there is neither a stored tree nor a tree head to compare the log with; give heads with --heads, or let a \
         projector run"
    )]
    NoEvidence,
}

/// Verifies the log.
///
/// # Errors
/// [`VerifyLogError`]: nothing can be said.
pub async fn verify_log(
    log: &dyn EventLog,
    evidence: Evidence<'_>,
) -> Result<LogReport, VerifyLogError> {
    let kept = match evidence.store {
        Some(store) => store.newest().await?,
        None => None,
    };
    // After the tree: the log can only have got longer since.
    let tail = log.tail().await?;
    let mut verifying = Verifying {
        report: LogReport {
            last: tail.last.get(),
            tree_size: kept.as_ref().map(|kept| kept.size),
            ..LogReport::default()
        },
        stored: evidence
            .store
            .zip(kept.as_ref())
            .map(|(store, kept)| Stored {
                store,
                kept,
                tile: None,
            }),
        tree: Tree::default(),
        mismatches: Mismatches::default(),
        wrong_root: None,
        root_of_tree: None,
    };
    if let Some(kept) = &kept
        && kept.log != tail.incarnation
    {
        verifying.other_log(&tail.incarnation.0, &kept.log.0, "the stored tree");
    }
    let mut heads = Heads::new(evidence.heads, evidence.store, kept.as_ref());
    let mut next_head = heads.next().await?;
    if next_head.is_none() && kept.is_none() {
        return Err(VerifyLogError::NoEvidence);
    }

    let mut events = log.read(Filter::All, Position::ZERO).await?;
    let mut next = events.try_next().await?;
    let last = tail.last.get();
    while verifying.tree.size() < last {
        let position = position_of(verifying.tree.size());
        let event = match &next {
            Some(event) if event.position == position => {
                let event = next.take();
                next = events.try_next().await?;
                event
            }
            _ => None,
        };
        verifying.hash(position, event.as_ref()).await?;
        while let Some((head, _)) = &next_head
            && head.size <= verifying.tree.size()
        {
            let Some((head, by)) = next_head.take() else {
                break;
            };
            verifying.compare(&head, &by, &evidence.keys, &tail.incarnation.0)?;
            next_head = heads.next().await?;
        }
        if verifying.tree.size().is_multiple_of(1024) {
            (evidence.progress)(verifying.tree.size(), last);
        }
    }
    (evidence.progress)(last, last);
    // What is said of events that are not there.
    let mut largest = None;
    while let Some((head, by)) = next_head {
        if verifying.trusts(&head, &by, &evidence.keys, &tail.incarnation.0) {
            largest = Some((head.size, by));
        }
        next_head = heads.next().await?;
    }
    verifying.finish(heads.unreadable, largest).await
}

struct Verifying<'a> {
    report: LogReport,
    stored: Option<Stored<'a>>,
    tree: Tree,
    mismatches: Mismatches,
    /// The first tree head whose root the log does not give.
    wrong_root: Option<(u64, String)>,
    /// The root that the log gives at the size of the stored tree.
    root_of_tree: Option<Hash>,
}

/// The stored tree, read tile by tile.
struct Stored<'a> {
    store: &'a dyn TreeStore,
    kept: &'a KeptTree,
    tile: Option<(u64, Vec<u8>)>,
}

impl Stored<'_> {
    /// The stored hash of a leaf; `None` when there is none.
    async fn leaf(&mut self, index: u64) -> Result<Option<Hash>, TreeStoreError> {
        if index >= self.kept.size {
            return Ok(None);
        }
        let width = TILE_WIDTH as u64;
        let number = index / width;
        if self.tile.as_ref().is_none_or(|(at, _)| *at != number) {
            let id = TileId {
                level: 0,
                index: number,
            };
            let mut tiles = self.store.tiles(self.kept.number, &[id].into()).await?;
            self.tile = Some((number, tiles.remove(&id).unwrap_or_default()));
        }
        let hashes = self.tile.as_ref().map_or(&[][..], |(_, hashes)| hashes);
        let at = usize::try_from(index % width).unwrap_or_default() * Hash::BYTES;
        let hash = hashes.get(at..at + Hash::BYTES);
        // One that was cut out of its tile is as wrong as a changed one.
        Ok(Some(hash.map_or(Hash([0; Hash::BYTES]), to_hash)))
    }
}

fn to_hash(bytes: &[u8]) -> Hash {
    let mut hash = [0; Hash::BYTES];
    hash.copy_from_slice(bytes);
    Hash(hash)
}

/// Positions whose leaf is not the stored one, as many as are looked at closely.
#[derive(Default)]
struct Mismatches {
    found: BTreeMap<u64, Mismatch>,
    bytes: usize,
    /// Those besides.
    more: u64,
}

struct Mismatch {
    /// The event's bytes now.
    payload: Option<Vec<u8>>,
    /// The leaf's hash as it is stored.
    stored: Hash,
}

impl Mismatch {
    /// Whether the event's bytes are those that were hashed at `position` with the hash `stored` there.
    fn was_at(&self, position: u64, stored: Hash) -> bool {
        self.payload.as_ref().is_some_and(|payload| {
            leaf_hash(&leaf_data(Position::new(position), payload)) == stored
        })
    }
}

impl Verifying<'_> {
    async fn hash(
        &mut self,
        position: Position,
        event: Option<&Recorded>,
    ) -> Result<(), VerifyLogError> {
        let hash = match event {
            Some(event) => leaf_hash(&leaf_data(position, &event.payload)),
            None => leaf_hash(MISSING),
        };
        self.tree.append(hash);
        // Only the hashes at its edge are needed of it.
        drop(self.tree.take_changed());
        if self.report.tree_size == Some(self.tree.size()) {
            self.root_of_tree = Some(self.tree.root()?);
        }
        self.report.events += u64::from(event.is_some());
        let index = index_of(position).unwrap_or_default();
        let stored = match &mut self.stored {
            Some(stored) => stored.leaf(index).await?,
            None => None,
        };
        match stored {
            Some(stored) if stored != hash => {
                let payload = event.map(|event| event.payload.to_vec());
                let bytes = payload.as_ref().map_or(0, Vec::len);
                let mismatches = &mut self.mismatches;
                if mismatches.found.len() < LISTED && mismatches.bytes + bytes <= KEPT_BYTES {
                    mismatches.bytes += bytes;
                    let mismatch = Mismatch { payload, stored };
                    mismatches.found.insert(position.get(), mismatch);
                } else {
                    mismatches.more += 1;
                }
            }
            Some(_) if event.is_none() => self.report.missing += 1,
            _ => {}
        }
        Ok(())
    }

    /// Compares with a tree head over as many events as have been hashed.
    fn compare(
        &mut self,
        head: &TreeHead,
        by: &str,
        keys: &[VerifyingKey],
        log: &str,
    ) -> Result<(), VerifyLogError> {
        if !self.trusts(head, by, keys, log) {
            return Ok(());
        }
        // A head of no events says nothing.
        if head.size == self.tree.size() && self.tree.root()? != head.root {
            if self.wrong_root.is_none() {
                self.wrong_root = Some((head.size, by.to_owned()));
            }
        } else if self.wrong_root.is_none() {
            self.report.proven = self.report.proven.max(head.size);
        }
        Ok(())
    }

    fn trusts(&mut self, head: &TreeHead, by: &str, keys: &[VerifyingKey], log: &str) -> bool {
        self.report.heads += 1;
        if let Err(error) = TreeHead::verify(&head.note, keys) {
            self.untrusted(error.to_string(), by.to_owned());
            return false;
        }
        let expected = head.log.as_deref().unwrap_or_default();
        if expected != log {
            self.other_log(log, expected, by);
        }
        true
    }

    fn untrusted(&mut self, reason: String, by: String) {
        self.report.add(None, How::Head { reason, by });
    }

    /// Tells once that it is another log.
    fn other_log(&mut self, log: &str, expected: &str, by: &str) {
        let known = self
            .report
            .differences
            .iter()
            .any(|it| matches!(it.how, How::OtherLog { .. }));
        if !known {
            let other = How::OtherLog {
                log: log.to_owned(),
                expected: expected.to_owned(),
                by: by.to_owned(),
            };
            self.report.add(None, other);
        }
    }

    /// With the largest tree head that says of events that are not there.
    async fn finish(
        mut self,
        unreadable: Vec<String>,
        beyond: Option<(u64, String)>,
    ) -> Result<LogReport, VerifyLogError> {
        for by in unreadable {
            self.untrusted("it has not the form of one".to_owned(), by);
        }
        let mismatches = std::mem::take(&mut self.mismatches);
        let first = mismatches.found.keys().next().copied();
        // The log gives a signed root over the position that differs: then it is the tree that was changed.
        let proven = self.report.proven;
        let of_tree = |position: u64| position <= proven;
        let moved = first
            .filter(|first| !of_tree(*first))
            .and_then(|first| Some((first, self.moved(first, &mismatches)?)));
        let mut removed = 0;
        if let Some((first, how)) = moved {
            if let How::Removed { count } = how {
                removed = count;
            }
            self.report.add(Some(Position::new(first)), how);
            // All that follows from it is no further difference.
        } else {
            for (position, mismatch) in &mismatches.found {
                let at = Some(Position::new(*position));
                if of_tree(*position) {
                    let reason = "the stored hash of this event is not its own".to_owned();
                    self.report.add(at, How::Tree { reason });
                } else if let Some(how) = done(*position, mismatch, &mismatches.found) {
                    self.report.add(at, how);
                }
            }
            self.report.differing += mismatches.more;
        }
        let beyond = beyond.map(|(size, by)| (size, format!("the signed tree head from {by}")));
        let in_tree = self.report.tree_size.unwrap_or(0);
        let beyond = match beyond {
            Some(beyond) if beyond.0 >= in_tree => beyond,
            _ => (in_tree, "the stored tree".to_owned()),
        };
        // Fewer events by those that were removed: then nothing besides is gone.
        if beyond.0 > self.report.last + removed {
            let last = Position::new(self.report.last);
            let (size, by) = beyond;
            self.report.add(None, How::CutOff { last, size, by });
        }
        if let Some((size, by)) = self.wrong_root.take() {
            let after = proven;
            self.report.add(None, How::Root { size, after, by });
        }
        self.compare_stored_root(first.is_none()).await?;
        Ok(self.report)
    }

    /// Whether the stored tree above the leaves is theirs.
    async fn compare_stored_root(&mut self, leaves_agree: bool) -> Result<(), VerifyLogError> {
        let Some(stored) = &self.stored else {
            return Ok(());
        };
        let size = stored.kept.size;
        let Some(expected) = self.root_of_tree.filter(|_| leaves_agree) else {
            return Ok(());
        };
        let number = stored.kept.number;
        let tiles = stored.store.tiles(number, &tiles_for_root(size)).await?;
        match root(size, &tiles) {
            Ok(root) if root == expected => {}
            Ok(_) => {
                let reason = "its inner hashes are not those of its leaves".to_owned();
                self.report.add(None, How::Tree { reason });
            }
            Err(error) => {
                let reason = error.to_string();
                self.report.add(None, How::Tree { reason });
            }
        }
        Ok(())
    }

    /// Whether everything from `first` on has moved by as many positions, and how.
    fn moved(&self, first: u64, mismatches: &Mismatches) -> Option<How> {
        // Then nothing behind it is where it was; and a swap is no move.
        let compared = self.report.last.min(self.report.tree_size.unwrap_or(0));
        let behind = compared.saturating_sub(first) + 1;
        let swapped = mismatches.found.get(&first).is_some_and(|mismatch| {
            matches!(
                done(first, mismatch, &mismatches.found),
                Some(How::Swapped { .. })
            )
        });
        if mismatches.found.len() as u64 + mismatches.more != behind || swapped {
            return None;
        }
        let run: Vec<(u64, &Mismatch)> = mismatches
            .found
            .iter()
            .map(|(position, mismatch)| (*position, mismatch))
            .collect();
        // At least one event that follows must be known by it, and all of those looked at must fit.
        let fits = |from: u64, to: u64| {
            let mut count = 0;
            for (position, mismatch) in &run {
                let Some(origin) = (position + from).checked_sub(to).filter(|it| *it >= first)
                else {
                    continue;
                };
                let Some(there) = mismatches.found.get(&origin) else {
                    continue;
                };
                if !mismatch.was_at(origin, there.stored) {
                    return false;
                }
                count += 1;
            }
            count > 1 || (count == 1 && run.len() <= 2)
        };
        (1..=MOVED_BY).find_map(|by| {
            if fits(0, by) {
                Some(How::Inserted { count: by })
            } else if fits(by, 0) {
                Some(How::Removed { count: by })
            } else {
                None
            }
        })
    }
}

/// What was done at a position; `None` for what is told at another one.
fn done(position: u64, mismatch: &Mismatch, found: &BTreeMap<u64, Mismatch>) -> Option<How> {
    if mismatch.payload.is_none() {
        return Some(How::Missing);
    }
    if mismatch.stored == leaf_hash(MISSING) {
        return Some(How::Appeared);
    }
    let origin = found
        .iter()
        .find(|(at, other)| **at != position && mismatch.was_at(**at, other.stored));
    let Some((origin, other)) = origin else {
        return Some(How::Changed);
    };
    match other.was_at(position, mismatch.stored) {
        true if position < *origin => Some(How::Swapped {
            with: Position::new(*origin),
        }),
        true => None,
        false => Some(How::Moved {
            from: Position::new(*origin),
        }),
    }
}

/// Tree heads by size: the stored ones and those from elsewhere.
struct Heads<'a> {
    elsewhere: std::iter::Peekable<std::vec::IntoIter<(TreeHead, String)>>,
    stored: Option<(&'a dyn TreeStore, u32)>,
    page: std::iter::Peekable<std::vec::IntoIter<TreeHead>>,
    after: u64,
    /// Where what is no tree head is from.
    unreadable: Vec<String>,
}

impl<'a> Heads<'a> {
    fn new(
        notes: Vec<(String, String)>,
        store: Option<&'a dyn TreeStore>,
        kept: Option<&KeptTree>,
    ) -> Self {
        let (mut heads, mut unreadable) = (Vec::new(), Vec::new());
        for (note, by) in notes {
            match TreeHead::parse(&note) {
                Ok(head) => heads.push((head, by)),
                Err(_) => unreadable.push(by),
            }
        }
        heads.sort_by_key(|(head, _)| head.size);
        Self {
            elsewhere: heads.into_iter().peekable(),
            stored: store.zip(kept.map(|kept| kept.number)),
            page: Vec::new().into_iter().peekable(),
            after: 0,
            unreadable,
        }
    }

    async fn next(&mut self) -> Result<Option<(TreeHead, String)>, TreeStoreError> {
        while let Some((store, tree)) = self.stored
            && self.page.peek().is_none()
        {
            let notes = store.heads(tree, self.after, PAGE).await?;
            let mut heads = Vec::new();
            for note in &notes {
                match TreeHead::parse(note) {
                    Ok(head) => heads.push(head),
                    Err(_) => self.unreadable.push("the stored ones".to_owned()),
                }
            }
            match heads.last() {
                Some(head) => self.after = head.size.max(self.after + 1),
                None => self.stored = None,
            }
            self.page = heads.into_iter().peekable();
        }
        let stored = self.page.peek().map(|head| head.size);
        let elsewhere = self.elsewhere.peek().map(|(head, _)| head.size);
        Ok(match (stored, elsewhere) {
            (Some(stored), Some(elsewhere)) if elsewhere < stored => self.elsewhere.next(),
            (None, _) => self.elsewhere.next(),
            (Some(_), _) => self
                .page
                .next()
                .map(|head| (head, "the stored ones".to_owned())),
        })
    }
}
