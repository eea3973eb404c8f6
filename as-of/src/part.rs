//! Which part of a list a page is.

use std::ops::Range;

use events::MessageId;
use read_models::{MAX_PAGE, Page, PageStart};

/// The part of `list`, which ascends by `id`, that the page shows: pages run from the newest.
pub(crate) fn part<T>(list: &[T], id: impl Fn(&T) -> MessageId, page: Page) -> Range<usize> {
    let limit = page.limit.clamp(1, MAX_PAGE) as usize;
    match page.start {
        PageStart::After(message) => {
            let start = list.partition_point(|item| id(item) <= message);
            start..list.len().min(start + limit)
        }
        PageStart::Before(message) => {
            let end = list.partition_point(|item| id(item) < message);
            end.saturating_sub(limit)..end
        }
        PageStart::Number(number) => {
            let number = usize::try_from(number).unwrap_or(usize::MAX);
            let end = list.len().saturating_sub(number.saturating_mul(limit));
            end.saturating_sub(limit)..end
        }
    }
}
