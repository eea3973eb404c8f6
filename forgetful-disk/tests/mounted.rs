//! Real system calls on a mounted disk.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use forgetful_disk::{Loss, Mounted, Names};
use nix::fcntl::OFlag;

/// `None` where nothing can be mounted, and says so.
fn mounted(rule: Names) -> Option<Mounted> {
    match Mounted::new(rule) {
        Ok(disk) => Some(disk),
        Err(error) => {
            println!("skipped: no disk can be mounted, which takes root and /dev/fuse: {error}");
            None
        }
    }
}

fn cut(disk: &mut Mounted) {
    disk.cut_power(&mut Loss::Everything, || {});
    disk.mount_again().unwrap();
}

fn sync(path: &Path) {
    File::open(path).unwrap().sync_all().unwrap();
}

#[test]
fn only_what_was_synced_is_there_after_a_power_cut() {
    let Some(mut disk) = mounted(Names::OfDirectory) else {
        return;
    };
    let path = disk.path().join("file");
    let mut file = File::create(&path).unwrap();
    file.write_all(b"synced").unwrap();
    file.sync_data().unwrap();
    sync(disk.path());
    file.write_all(b", and not").unwrap();
    fs::write(disk.path().join("other"), "unsynced").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"synced, and not");

    cut(&mut disk);

    assert_eq!(fs::read(&path).unwrap(), b"synced");
    assert!(!disk.path().join("other").exists());
    assert!(file.write_all(b"too late").is_err());
    fs::write(&path, "new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
}

#[test]
fn writes_to_files_that_sync_by_themselves_are_durable() {
    let Some(mut disk) = mounted(Names::InJournal) else {
        return;
    };
    for (name, flag) in [("sync", OFlag::O_SYNC), ("data", OFlag::O_DSYNC)] {
        let mut options = OpenOptions::new();
        options.create(true).write(true).custom_flags(flag.bits());
        let mut file = options.open(disk.path().join(name)).unwrap();
        file.write_all(name.as_bytes()).unwrap();
    }
    cut(&mut disk);
    for name in ["sync", "data"] {
        assert_eq!(fs::read_to_string(disk.path().join(name)).unwrap(), name);
    }
}

#[test]
fn programs_find_what_they_expect_of_a_file_system() {
    let Some(disk) = mounted(Names::OfDirectory) else {
        return;
    };
    let directory = disk.path().join("some/where");
    fs::create_dir_all(&directory).unwrap();
    for number in 0..2000 {
        fs::write(directory.join(format!("file {number}")), "x").unwrap();
    }
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 2000);
    let [from, to] = ["file 0", "file 1"].map(|it| directory.join(it));
    fs::write(&from, "moved").unwrap();
    fs::rename(&from, &to).unwrap();
    assert_eq!(fs::read_to_string(&to).unwrap(), "moved");
    fs::hard_link(&to, &from).unwrap();
    std::os::unix::fs::symlink(&from, directory.join("link")).unwrap();
    assert_eq!(fs::read_to_string(directory.join("link")).unwrap(), "moved");

    // Large, with a hole, and used after it was removed.
    let mut file = OpenOptions::new();
    let mut file = file.read(true).write(true).open(&to).unwrap();
    let large: Vec<u8> = (0..300_000_u32).map(|it| it.to_le_bytes()[0]).collect();
    file.write_all_at(&large, 1_000_000).unwrap();
    fs::remove_file(&to).unwrap();
    let mut read = Vec::new();
    file.seek(SeekFrom::Start(1_000_000)).unwrap();
    file.read_to_end(&mut read).unwrap();
    assert_eq!(read, large);
    file.set_len(3).unwrap();
    assert_eq!(fs::read_to_string(&from).unwrap(), "mov");

    fs::remove_dir_all(disk.path().join("some")).unwrap();
    assert_eq!(fs::read_dir(disk.path()).unwrap().count(), 0);
}
