//! Answers the kernel's requests from a [`Disk`]; see fuse(4) and the crate `fuser`.
//!
//! The kernel passes every write(2) on before it returns. What programs write into a mapping of a file comes
//! when the mapping is synced or the kernel likes to, and a sync of the file comes after it. Locks are the
//! kernel's own business.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use nix::fcntl::OFlag;

use crate::disk::{Disk, Facts, Inode, Kind};

/// How long the kernel may believe what it was told: nobody else changes anything.
const VALID: Duration = Duration::from_secs(3600);
/// No number is used twice.
const GENERATION: Generation = Generation(0);
/// In bytes; as large as anybody asks for.
const BLOCK: u32 = 4096;
/// How many blocks are said to be free.
const FREE: u64 = 1 << 28;

/// Whether requests are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Power {
    On,
    /// Not any more, and nobody gets to know: so is a machine without power.
    Failing,
    /// With errors, which nobody is there to see.
    Gone,
}

#[derive(Debug)]
struct State {
    disk: Disk,
    power: Power,
    /// What is in the directories that are being read: it stays the same until they have been.
    listings: BTreeMap<u64, Vec<(OsString, Facts)>>,
    next_listing: u64,
}

/// A disk that the kernel's requests and whoever cuts the power share.
#[derive(Debug, Clone)]
pub(crate) struct Shared(Arc<(Mutex<State>, Condvar)>);

impl Shared {
    pub(crate) fn new(disk: Disk) -> Self {
        let state = State {
            disk,
            power: Power::On,
            listings: BTreeMap::new(),
            next_listing: 0,
        };
        Self(Arc::new((Mutex::new(state), Condvar::new())))
    }

    /// Cuts the power: from this moment on nothing changes, and nobody is answered. Gives the disk as it is
    /// then.
    pub(crate) fn freeze(&self) -> Disk {
        let mut state = self.lock();
        state.power = Power::Failing;
        state.disk.clone()
    }

    pub(crate) fn sync_everything(&self) {
        self.lock().disk.sync_everything();
    }

    /// Lets go of whoever waits for an answer, with errors.
    pub(crate) fn let_go(&self) {
        self.lock().power = Power::Gone;
        self.0.1.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn powered(&self) -> Result<MutexGuard<'_, State>, nix::errno::Errno> {
        let waiting = |state: &mut State| state.power == Power::Failing;
        let state = self.0.1.wait_while(self.lock(), waiting);
        let state = state.unwrap_or_else(PoisonError::into_inner);
        match state.power {
            Power::On => Ok(state),
            Power::Failing | Power::Gone => Err(nix::errno::Errno::EIO),
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Disk) -> Answer<T>) -> Answer<T> {
        act(&mut self.powered()?.disk)
    }
}

type Answer<T> = Result<T, nix::errno::Errno>;

fn error(error: nix::errno::Errno) -> Errno {
    Errno::from_i32(error as i32)
}

fn kind(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Link => FileType::Symlink,
    }
}

fn attributes(facts: &Facts) -> FileAttr {
    FileAttr {
        ino: INodeNo(facts.inode),
        size: facts.length,
        blocks: facts.length.div_ceil(512),
        atime: facts.modified,
        mtime: facts.modified,
        ctime: facts.modified,
        crtime: facts.modified,
        kind: kind(facts.kind),
        perm: facts.mode,
        nlink: facts.names,
        // Root's, who is the only one to use it.
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK,
        flags: 0,
    }
}

/// The permissions without the bits that say what kind of file it is.
fn permissions(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).unwrap_or_default()
}

fn entry(answer: Answer<Facts>, reply: ReplyEntry) {
    match answer {
        Ok(facts) => reply.entry(&VALID, &attributes(&facts), GENERATION),
        Err(code) => reply.error(error(code)),
    }
}

fn done(answer: Answer<()>, reply: ReplyEmpty) {
    match answer {
        Ok(()) => reply.ok(),
        Err(code) => reply.error(error(code)),
    }
}

impl Filesystem for Shared {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.with(|disk| disk.facts(disk.look_up(parent.0, name)?));
        entry(found, reply);
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.with(|disk| disk.facts(inode.0)) {
            Ok(facts) => reply.attr(&VALID, &attributes(&facts)),
            Err(code) => reply.error(error(code)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _file: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let facts = self.with(|disk| {
            if let Some(mode) = mode {
                disk.set_mode(inode.0, permissions(mode))?;
            }
            if let Some(size) = size {
                disk.set_length(inode.0, size)?;
            }
            match mtime {
                Some(TimeOrNow::SpecificTime(time)) => disk.touch(inode.0, time)?,
                Some(TimeOrNow::Now) => disk.touch(inode.0, SystemTime::now())?,
                None => {}
            }
            disk.facts(inode.0)
        });
        match facts {
            Ok(facts) => reply.attr(&VALID, &attributes(&facts)),
            Err(code) => reply.error(error(code)),
        }
    }

    fn readlink(&self, _: &Request, inode: INodeNo, reply: ReplyData) {
        match self.with(|disk| disk.target(inode.0).map(Path::to_owned)) {
            Ok(target) => reply.data(target.as_os_str().as_encoded_bytes()),
            Err(code) => reply.error(error(code)),
        }
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let made = self.with(|disk| {
            let mode = permissions(mode & !umask);
            let made = disk.make_directory(parent.0, name, mode)?;
            disk.facts(made)
        });
        entry(made, reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(self.with(|disk| disk.remove(parent.0, name)), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(
            self.with(|disk| disk.remove_directory(parent.0, name)),
            reply,
        );
    }

    fn symlink(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let made = self.with(|disk| {
            let made = disk.make_link(parent.0, name, target)?;
            disk.facts(made)
        });
        entry(made, reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let renamed = self.with(|disk| {
            let is_free = disk.look_up(new_parent.0, new_name).is_err();
            if flags == RenameFlags::RENAME_NOREPLACE && !is_free {
                return Err(nix::errno::Errno::EEXIST);
            }
            if !flags.is_empty() && flags != RenameFlags::RENAME_NOREPLACE {
                return Err(nix::errno::Errno::EINVAL);
            }
            disk.rename((parent.0, name), (new_parent.0, new_name))
        });
        done(renamed, reply);
    }

    fn link(
        &self,
        _: &Request,
        inode: INodeNo,
        new_parent: INodeNo,
        new_name: &OsStr,
        reply: ReplyEntry,
    ) {
        let linked = self.with(|disk| {
            disk.add_name(inode.0, new_parent.0, new_name)?;
            disk.facts(inode.0)
        });
        entry(linked, reply);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let created = self.with(|disk| {
            let mode = permissions(mode & !umask);
            let created = disk.create(parent.0, name, mode)?;
            disk.facts(created)
        });
        match created {
            Ok(facts) => reply.created(
                &VALID,
                &attributes(&facts),
                GENERATION,
                FileHandle(0),
                FopenFlags::FOPEN_KEEP_CACHE,
            ),
            Err(code) => reply.error(error(code)),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.powered() {
            Ok(_) => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
            Err(code) => reply.error(error(code)),
        }
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.with(|disk| disk.read(inode.0, offset, size as usize)) {
            Ok(bytes) => reply.data(&bytes),
            Err(code) => reply.error(error(code)),
        }
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.with(|disk| {
            disk.write(inode.0, offset, data)?;
            // O_SYNC contains it.
            match flags.0 & OFlag::O_DSYNC.bits() {
                0 => Ok(()),
                _ => disk.sync(inode.0),
            }
        });
        match written {
            // What was asked for in 32 bits.
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(code) => reply.error(error(code)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        done(self.powered().map(drop), reply);
    }

    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        done(self.with(|disk| disk.sync(inode.0)), reply);
    }

    fn opendir(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let listed = self.powered().and_then(|mut state| {
            let listing = listing(&state.disk, inode.0)?;
            state.next_listing += 1;
            let handle = state.next_listing;
            state.listings.insert(handle, listing);
            Ok(handle)
        });
        match listed {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(code) => reply.error(error(code)),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let state = match self.powered() {
            Ok(state) => state,
            Err(code) => return reply.error(error(code)),
        };
        let listing = state.listings.get(&handle.0).into_iter().flatten();
        // Each entry comes with the offset of the next.
        for (next, (name, facts)) in (1..).zip(listing) {
            if next > offset && reply.add(INodeNo(facts.inode), next, kind(facts.kind), name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        let released = self.powered().map(|mut state| {
            state.listings.remove(&handle.0);
        });
        done(released, reply);
    }

    fn fsyncdir(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        done(self.with(|disk| disk.sync(inode.0)), reply);
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(FREE, FREE, FREE, FREE, FREE, BLOCK, 255, BLOCK);
    }
}

/// What is in a directory; the kernel does not miss the one above.
fn listing(disk: &Disk, directory: Inode) -> Answer<Vec<(OsString, Facts)>> {
    let names = disk.list(directory)?.iter();
    names
        .map(|(name, inode)| Ok((name.clone(), disk.facts(*inode)?)))
        .collect()
}
