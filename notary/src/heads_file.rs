//! The file that every signed tree head is appended to: a copy outside of log and database, which is easily
//! copied further.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use event_log::durable;
use merkle::{TreeHead, VerifyingKey, heads_of};

/// As much of the file's end as the newest tree head is looked for in. One takes some 300 bytes.
const END: u64 = 64 * 1024;

/// The file of tree heads.
#[derive(Debug, Clone)]
pub struct HeadsFile(PathBuf);

impl HeadsFile {
    /// The file at `path`, which need not be there.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Appends a tree head, and syncs it to the disk.
    ///
    /// # Errors
    /// The file system's.
    pub async fn append(&self, head: &TreeHead) -> io::Result<()> {
        let (path, note) = (self.0.clone(), head.note.clone());
        blocking(move || {
            let mut options = OpenOptions::new();
            let mut file = options.create(true).append(true).read(true).open(&path)?;
            let is_new = file.metadata()?.len() == 0;
            // A note ends with a line feed; an empty line separates it from the next, and also from what a
            // crash left half-written. All in one write.
            let separator = match ends_whole(&mut file)? {
                true => "",
                false => "\n\n",
            };
            file.write_all(format!("{separator}{note}\n").as_bytes())?;
            file.sync_data()?;
            match is_new {
                true => durable::sync_name(&path),
                false => Ok(()),
            }
        })
        .await
    }

    /// The newest tree head in it that one of the keys has signed; `None` when there is none. What a crash
    /// left half-written is passed over.
    ///
    /// # Errors
    /// The file system's.
    pub async fn newest(&self, keys: Vec<VerifyingKey>) -> io::Result<Option<TreeHead>> {
        let path = self.0.clone();
        let end = blocking(move || match File::open(path) {
            Ok(file) => end_of(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(error),
        });
        let end = end.await?;
        let notes: Vec<String> = heads_of(&end).collect();
        let newest = notes.iter().rev().find_map(|note| {
            TreeHead::verify(note, &keys)
                .inspect_err(
                    |error| tracing::warn!(%error, "passed over in the file of tree heads"),
                )
                .ok()
        });
        Ok(newest)
    }
}

/// Moves the file aside, for a new tree to begin with a new one. Gives its new name; `None` when there is no
/// such file.
///
/// # Errors
/// The file system's.
pub fn set_aside(file: &HeadsFile, tree: u32) -> io::Result<Option<PathBuf>> {
    let mut name = file.0.as_os_str().to_owned();
    name.push(format!("-of-tree-{tree}"));
    match fs::rename(&file.0, &name).and_then(|()| durable::sync_name(&file.0)) {
        Ok(()) => Ok(Some(name.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the file is empty or ends with an empty line.
fn ends_whole(file: &mut File) -> io::Result<bool> {
    let length = file.metadata()?.len();
    let mut end = [b'\n'; 2];
    let read = usize::try_from(length).unwrap_or(usize::MAX).min(end.len());
    file.seek(SeekFrom::End(-i64::try_from(read).unwrap_or_default()))?;
    file.read_exact(&mut end[..read])?;
    Ok(length == 0 || end == *b"\n\n")
}

/// The last tree heads, from where the first whole one of them begins.
fn end_of(mut file: File) -> io::Result<String> {
    let length = file.metadata()?.len();
    let cut = length > END;
    file.seek(SeekFrom::Start(length.saturating_sub(END)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    if !cut {
        return Ok(text.into_owned());
    }
    // Signatures begin with a dash; what follows the empty line after them is a new tree head.
    let begin = text.match_indices("\n\n").map(|(at, _)| at).find(|at| {
        text[..*at]
            .lines()
            .last()
            .is_some_and(|line| line.starts_with('—'))
    });
    Ok(begin.map_or_else(String::new, |at| text[at + 2..].to_owned()))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}
