//! What is left in files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::stack::Stack;
use crate::wait::eventually;

/// How long the files may take to be purged.
const PURGED: Duration = Duration::from_secs(60);

/// Waits until no file of Hansard's own has a text any more, nor any of the log; also not in lower case, as an
/// index of words has it. (What MongoDB keeps for a while, its journal and its oplog, is another matter:
/// docs/decisions/0023.)
///
/// # Panics
/// One still has it after a minute.
pub async fn no_file_has(stack: &Stack, text: &str) {
    let places = [stack.data_directory(), stack.log_directory()];
    eventually("no file has the text", PURGED, || {
        let holding: Vec<PathBuf> = places
            .iter()
            .flat_map(|place| files_with(place, text))
            .collect();
        std::future::ready(holding.is_empty().then_some(()))
    })
    .await;
}

fn files_with(directory: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if std::fs::read(&path).is_ok_and(|bytes| holds(&bytes, text)) {
            found.push(path);
        }
    }
    found
}

fn holds(bytes: &[u8], text: &str) -> bool {
    let lower = text.to_lowercase();
    [text, &lower].iter().any(|text| {
        bytes
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    })
}
