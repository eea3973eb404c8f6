//! Names in directories that survive a power loss. Syncing a file makes its content durable and not its name:
//! without its directory synced a new file, or a new directory with all that is in it, may be gone afterwards.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Makes the name of a file or directory durable, that is its creation or renaming.
///
/// # Errors
/// The file system's.
pub fn sync_name(path: &Path) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)?.sync_all()
}

/// Creates a directory if there is none, and those above it, and makes the names of all that are new durable.
///
/// # Errors
/// The file system's.
pub fn create_directory(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        create_directory(parent)?;
    }
    match fs::create_dir(path) {
        // Somebody else did, and may not have come to sync it.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        created => created?,
    }
    sync_name(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn directories_are_created_as_far_as_they_are_missing() {
        let above = tempfile::tempdir().unwrap();
        let below = above.path().join("one/two");
        create_directory(&below).unwrap();
        create_directory(&below).unwrap();
        assert!(below.is_dir());
        let file = below.join("file");
        fs::write(&file, "").unwrap();
        sync_name(&file).unwrap();
        assert!(create_directory(&file.join("three")).is_err());
        assert!(create_directory(&file).is_err());
    }
}
