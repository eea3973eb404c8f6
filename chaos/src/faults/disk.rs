//! A file system that is small enough to be filled.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use tempfile::TempDir;

/// Enough for a run, and filled in a moment.
const SIZE: &str = "size=512m,mode=700";

/// A tmpfs of its own; unmounted on drop.
#[derive(Debug)]
pub struct SmallDisk {
    directory: TempDir,
}

impl SmallDisk {
    /// Mounts it.
    ///
    /// # Errors
    /// It can't be: that takes root.
    pub fn mount() -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("hansard-chaos-disk-")
            .tempdir()?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", SIZE, "tmpfs"])
            .arg(directory.path())
            .output()
            .context("mount can't be run")?;
        ensure!(
            mounted.status.success(),
            "no small file system can be mounted, which takes root: {}",
            String::from_utf8_lossy(&mounted.stderr).trim()
        );
        Ok(Self { directory })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes until there is no byte left.
    pub fn fill(&self) {
        let Ok(mut file) = File::create(self.filler()) else {
            return;
        };
        // Large pieces first; then whatever still fits.
        for size in [1 << 20, 1 << 12, 1] {
            let piece = vec![0_u8; size];
            while file.write_all(&piece).is_ok() {}
        }
    }

    /// Gives the room back.
    pub fn clear(&self) {
        let _ = std::fs::remove_file(self.filler());
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("--lazy")
            .arg(self.path())
            .status();
    }
}
