//! Fetching programs with the package managers' own clients: what comes is checked against a pinned hash,
//! and appears in its place only once it is complete.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, bail, ensure};
use sha2::{Digest, Sha256};

/// Makes `directory` unless it is there: `make` gets a scratch directory, which goes away afterwards, and
/// an empty one that becomes `directory` when it succeeds. Whoever comes second takes what the first made.
///
/// # Errors
/// As `make`, or nothing can be written beside `directory`.
pub(crate) fn once(
    directory: &Path,
    make: impl FnOnce(&Path, &Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if directory.exists() {
        return Ok(());
    }
    let cache = directory.parent().context("the cache has no parent")?;
    std::fs::create_dir_all(cache)?;
    let scratch = tempfile::tempdir_in(cache)?;
    let ready = scratch.path().join("ready");
    std::fs::create_dir(&ready)?;
    make(scratch.path(), &ready)?;
    if let Err(error) = std::fs::rename(&ready, directory) {
        // Somebody else was quicker.
        ensure!(directory.exists(), error);
    }
    Ok(())
}

/// Checks that a file is the one that was pinned.
///
/// # Errors
/// It is another, or can't be read.
pub(crate) fn check(path: &Path, sha256: &str) -> anyhow::Result<()> {
    let actual = hexadecimal(&Sha256::digest(std::fs::read(path)?));
    ensure!(
        actual == sha256,
        "{} is not the file that was pinned: its SHA-256 is {actual}, not {sha256}",
        path.display()
    );
    Ok(())
}

/// The first digits of a hash of these texts, to name a directory after what it is made from.
pub(crate) fn name_of(texts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for text in texts {
        hasher.update(text);
    }
    let mut name = hexadecimal(&hasher.finalize());
    name.truncate(12);
    name
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Runs a command to its end and gives what it wrote.
///
/// # Errors
/// It can't be run or fails; with what it wrote to standard error.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<Output> {
    let program = Path::new(command.get_program()).display().to_string();
    let output = command
        .output()
        .with_context(|| format!("{program} can't be run"))?;
    ensure!(
        output.status.success(),
        "{program} failed ({}{})",
        output.status,
        said(&output)
    );
    Ok(output)
}

/// Runs Python 3 with these arguments.
///
/// # Errors
/// As [`run`].
pub(crate) fn python<A: AsRef<OsStr>>(
    arguments: impl IntoIterator<Item = A>,
) -> anyhow::Result<()> {
    run(Command::new("python3").args(arguments)).map(drop)
}

/// What a command wrote to standard error, to go at the end of a sentence; empty when it wrote nothing.
pub(crate) fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    match text.trim() {
        "" => String::new(),
        text => format!(": {text}"),
    }
}

/// The one file that a download left in a directory.
///
/// # Errors
/// There is none, or more than one.
pub(crate) fn only_file_in(directory: &Path) -> anyhow::Result<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    match files.as_slice() {
        [file] => Ok(file.clone()),
        _ => bail!("the download left {} files instead of one", files.len()),
    }
}

/// Lets a file be run.
///
/// # Errors
/// Its permissions can't be changed.
pub(crate) fn make_executable(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn another_file_than_the_pinned_one_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("wheel");
        std::fs::write(&file, "abc").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        check(&file, abc).unwrap();

        std::fs::write(&file, "abd").unwrap();
        let refusal = check(&file, abc).unwrap_err().to_string();
        assert!(
            refusal.contains("is not the file that was pinned"),
            "{refusal}"
        );
    }

    #[test]
    fn what_was_not_completed_is_not_there() {
        let cache = tempfile::tempdir().unwrap();
        let directory = cache.path().join("thing");
        let failed = once(&directory, |_, ready| {
            std::fs::write(ready.join("half"), "")?;
            bail!("the line is down")
        });
        assert_eq!(failed.unwrap_err().to_string(), "the line is down");
        assert_eq!(std::fs::read_dir(cache.path()).unwrap().count(), 0);

        for text in ["first", "second"] {
            once(&directory, |_, ready| {
                Ok(std::fs::write(ready.join("whole"), text)?)
            })
            .unwrap();
        }
        let kept = std::fs::read_to_string(directory.join("whole")).unwrap();
        assert_eq!(kept, "first");
    }
}
