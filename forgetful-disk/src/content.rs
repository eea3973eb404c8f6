//! What is in a file, in two versions: what programs see, and what was synced.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::loss::Loss;

/// The kernel writes whole pages, so these are lost or kept.
const PAGE: usize = 4096;
/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

type Page = [u8; PAGE];

/// A file's length and pages. Pages that were never written are absent, and read as zeros.
#[derive(Debug, Clone, Default)]
struct Version {
    length: u64,
    pages: BTreeMap<u64, Arc<Page>>,
}

/// A file's content.
#[derive(Debug, Clone, Default)]
pub(crate) struct Content {
    seen: Version,
    synced: Version,
    /// Numbers of the pages that differ in the two.
    changed: BTreeSet<u64>,
}

impl Content {
    /// In bytes.
    pub(crate) fn length(&self) -> u64 {
        self.seen.length
    }

    /// As many bytes from there as there are.
    pub(crate) fn read(&self, from: u64, most: usize) -> Vec<u8> {
        let end = self.seen.length.min(from.saturating_add(most as u64));
        let mut bytes = Vec::with_capacity(most.min(PAGE));
        for (number, begin, stop) in pieces(from, end) {
            match self.seen.pages.get(&number) {
                Some(page) => bytes.extend_from_slice(&page[begin..stop]),
                None => bytes.resize(bytes.len() + stop - begin, 0),
            }
        }
        bytes
    }

    pub(crate) fn write(&mut self, from: u64, bytes: &[u8]) {
        let end = from + bytes.len() as u64;
        let mut rest = bytes;
        for (number, begin, stop) in pieces(from, end) {
            let (piece, further) = rest.split_at(stop - begin);
            rest = further;
            let page = self.seen.pages.entry(number);
            let page = Arc::make_mut(page.or_insert_with(|| Arc::new([0; PAGE])));
            page[begin..stop].copy_from_slice(piece);
            self.changed.insert(number);
        }
        self.seen.length = self.seen.length.max(end);
    }

    /// Cuts off what is behind that length, or adds zeros.
    pub(crate) fn set_length(&mut self, length: u64) {
        if length < self.seen.length {
            let (last, within) = place(length);
            if within > 0
                && let Some(page) = self.seen.pages.get_mut(&last)
            {
                Arc::make_mut(page)[within..].fill(0);
                self.changed.insert(last);
            }
            let behind = last + u64::from(within > 0);
            self.changed
                .extend(self.seen.pages.split_off(&behind).keys());
        }
        self.seen.length = length;
    }

    /// What programs see is durable now.
    pub(crate) fn sync(&mut self) {
        for number in std::mem::take(&mut self.changed) {
            take_over(&mut self.synced, &self.seen, number);
        }
        self.synced.length = self.seen.length;
    }

    /// What a power cut leaves: what was synced, and of the rest what the loss keeps. Content and length
    /// reach the disk independently of each other, so there may be zeros where the content is missing.
    pub(crate) fn after_power_cut(mut self, loss: &mut Loss) -> Self {
        for number in std::mem::take(&mut self.changed) {
            if !loss.keeps() {
                continue;
            }
            if loss.tears() {
                let torn = torn(&self, number, loss);
                self.synced.pages.insert(number, Arc::new(torn));
            } else {
                take_over(&mut self.synced, &self.seen, number);
            }
        }
        if self.synced.length != self.seen.length && loss.keeps() {
            self.synced.length = self.seen.length;
        }
        // No program sees what is behind the end.
        let mut left = Self {
            seen: self.synced,
            ..Self::default()
        };
        let length = left.seen.length;
        left.seen.length = u64::MAX;
        left.set_length(length);
        left.changed.clear();
        left.synced = left.seen.clone();
        left
    }
}

/// The number of a byte's page, and its place there.
fn place(byte: u64) -> (u64, usize) {
    let page = PAGE as u64;
    // Below 4096.
    (
        byte / page,
        usize::try_from(byte % page).unwrap_or_default(),
    )
}

/// The pages of a stretch of bytes: number, and where the stretch begins and stops within the page.
fn pieces(from: u64, end: u64) -> impl Iterator<Item = (u64, usize, usize)> {
    let (first, begin) = place(from);
    let (last, stop) = place(end);
    (first..=last)
        .map(move |number| {
            let begin = if number == first { begin } else { 0 };
            let stop = if number == last { stop } else { PAGE };
            (number, begin, stop)
        })
        .filter(|(_, begin, stop)| begin < stop)
}

fn take_over(to: &mut Version, from: &Version, number: u64) {
    match from.pages.get(&number) {
        Some(page) => to.pages.insert(number, Arc::clone(page)),
        None => to.pages.remove(&number),
    };
}

/// A page of which some sectors are as programs saw them, and the others as they were synced.
fn torn(content: &Content, number: u64, loss: &mut Loss) -> Page {
    let page = |version: &Version| version.pages.get(&number).map_or([0; PAGE], |it| **it);
    let (mut torn, seen) = (page(&content.synced), page(&content.seen));
    for begin in (0..PAGE).step_by(SECTOR) {
        if loss.keeps() {
            let sector = begin..begin + SECTOR;
            torn[sector.clone()].copy_from_slice(&seen[sector]);
        }
    }
    torn
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(content: &Content) -> Content {
        content.clone().after_power_cut(&mut Loss::Everything)
    }

    fn whole(content: &Content) -> Vec<u8> {
        content.read(0, usize::MAX)
    }

    #[test]
    fn what_was_written_is_read_across_pages_and_holes() {
        let mut content = Content::default();
        content.write(4090, b"over the edge");
        assert_eq!(content.length(), 4103);
        assert_eq!(content.read(4090, 100), b"over the edge");
        assert_eq!(content.read(0, 3), [0; 3]);
        assert_eq!(content.read(4095, 4), b"the ");
        assert_eq!(content.read(5000, 4), b"");
    }

    #[test]
    fn what_was_cut_off_does_not_come_back_when_the_file_grows() {
        let mut content = Content::default();
        content.write(0, &[7; 10_000]);
        content.set_length(3);
        content.set_length(9000);
        assert_eq!(whole(&content), [vec![7; 3], vec![0; 8997]].concat());
    }

    #[test]
    fn synced_content_stays_and_the_rest_is_gone() {
        let mut content = Content::default();
        content.write(0, b"synced");
        content.sync();
        content.write(0, b"S");
        content.write(6, b" and more");
        assert_eq!(whole(&content), b"Synced and more");
        assert_eq!(whole(&after(&content)), b"synced");
    }

    #[test]
    fn a_truncation_that_was_not_synced_did_not_happen() {
        let mut content = Content::default();
        content.write(0, &[7; 10_000]);
        content.sync();
        content.set_length(0);
        content.write(0, b"new");
        assert_eq!(whole(&after(&content)), [7; 10_000]);
        content.sync();
        assert_eq!(whole(&after(&content)), b"new");
    }

    #[test]
    fn some_losses_keep_pages_apart_and_tear_them() {
        let mut content = Content::default();
        content.write(0, &[1; 8 * PAGE]);
        content.sync();
        content.write(0, &[2; 8 * PAGE]);
        let (mut mixed, mut torn) = (false, false);
        for seed in 0..64 {
            let left = content.clone().after_power_cut(&mut Loss::of_seed(seed));
            let bytes = whole(&left);
            assert_eq!(bytes.len(), 8 * PAGE);
            for sector in bytes.chunks(SECTOR) {
                assert!(sector.iter().all(|it| *it == sector[0]), "half a sector");
            }
            mixed |= bytes.contains(&1) && bytes.contains(&2);
            torn |= bytes
                .chunks(PAGE)
                .any(|it| it.contains(&1) && it.contains(&2));
        }
        assert!(mixed && torn, "mixed {mixed}, torn {torn}");
    }

    #[test]
    fn a_length_may_be_there_without_the_content() {
        let mut content = Content::default();
        content.write(0, b"lost");
        let lefts = (0..64).map(|seed| content.clone().after_power_cut(&mut Loss::of_seed(seed)));
        let lefts: BTreeSet<Vec<u8>> = lefts.map(|it| whole(&it)).collect();
        let expected = [&b""[..], &[0; 4], b"lost"];
        assert_eq!(lefts, expected.into_iter().map(<[u8]>::to_vec).collect());
    }

    #[test]
    fn what_a_power_cut_left_is_durable() {
        let mut content = Content::default();
        content.write(0, &[3; 9000]);
        let left = content.after_power_cut(&mut Loss::of_seed(3));
        assert_eq!(whole(&after(&left)), whole(&left));
    }
}
