//! A disk that real programs use.

use std::io;
use std::path::Path;

use fuser::{BackgroundSession, Config, MountOption};
use nix::mount::{MntFlags, umount2};
use tempfile::TempDir;

use crate::disk::{Disk, Names};
use crate::fuse::Shared;
use crate::loss::Loss;

/// A mounted [`Disk`]; unmounted on drop. It is in the memory of this process.
#[derive(Debug)]
pub struct Mounted {
    shared: Shared,
    session: Option<BackgroundSession>,
    /// What is there for the next time, once the power was cut.
    left: Option<Disk>,
    // Removed once nothing is mounted there.
    directory: TempDir,
}

impl Mounted {
    /// Mounts an empty disk in a directory of its own.
    ///
    /// # Errors
    /// It can't be mounted: that takes root and `/dev/fuse`.
    pub fn new(rule: Names) -> io::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("forgetful-disk-")
            .tempdir()?;
        let shared = Shared::new(Disk::new(rule));
        let session = mount(&shared, directory.path())?;
        Ok(Self {
            shared,
            session: Some(session),
            left: None,
            directory,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Makes everything durable that was written; see [`Disk::sync_everything`].
    pub fn sync_everything(&self) {
        self.shared.sync_everything();
    }

    /// Cuts the power. From one moment on nothing is written and no program gets an answer any more; then
    /// `kill` kills whoever uses the disk (SIGKILL, without waiting), so that nobody lives to see an error.
    /// Programs can be waited for afterwards, and [`Self::mount_again`] has what is left.
    pub fn cut_power(&mut self, loss: &mut Loss, kill: impl FnOnce()) {
        let frozen = self.shared.freeze();
        kill();
        self.shared.let_go();
        self.unmount();
        self.left = Some(frozen.after_power_cut(loss));
    }

    /// Mounts what a power cut left, in the same place. Nothing when it is mounted.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn mount_again(&mut self) -> io::Result<()> {
        if let Some(disk) = self.left.take() {
            self.shared = Shared::new(disk);
            self.session = Some(mount(&self.shared, self.directory.path())?);
        }
        Ok(())
    }

    fn unmount(&mut self) {
        if let Some(session) = self.session.take() {
            // Also when a program that is just being killed has files open.
            let flags = MntFlags::MNT_FORCE | MntFlags::MNT_DETACH;
            let unmounted = umount2(self.directory.path(), flags);
            if unmounted.is_ok() {
                // How it ended does not matter.
                let _ = session.join();
            }
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.shared.let_go();
        self.unmount();
    }
}

fn mount(shared: &Shared, path: &Path) -> io::Result<BackgroundSession> {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("forgetful-disk".to_owned()),
        MountOption::NoAtime,
    ];
    fuser::spawn_mount(shared.clone(), path, &config)
}
