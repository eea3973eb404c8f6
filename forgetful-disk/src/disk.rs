//! Files and directories, in two versions: what programs see, and what a power cut leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::errno::Errno;

use crate::content::Content;
use crate::loss::Loss;

/// The number of a file or directory.
pub type Inode = u64;

/// The directory at the top.
pub const ROOT: Inode = 1;

/// What makes a name durable, that is the creation, renaming or removal of a file or directory. In either
/// case a file's content is durable once the file was synced, and not before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// Syncing the directory that the name is in, and nothing else. This is all that POSIX and the manual of
    /// fsync(2) promise, so what survives this survives everywhere. Names that were not made durable reach
    /// the disk in any order.
    OfDirectory,
    /// Syncing any file or directory, for all names that changed before. So does a journal of which every
    /// sync writes all that is in it, as ext4's does; XFS and Btrfs do the same for the file that is synced.
    /// Names that were not made durable reach the disk in the order of their changes.
    InJournal,
}

/// What something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
}

/// What is known of a file or directory besides its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Its number.
    pub inode: Inode,
    /// What it is.
    pub kind: Kind,
    /// In bytes.
    pub length: u64,
    /// The permissions.
    pub mode: u16,
    /// How many names it has.
    pub names: u32,
    /// When the content was changed last, as programs see it.
    pub modified: SystemTime,
}

#[derive(Debug, Clone)]
enum Body {
    File(Content),
    Directory(Directory),
    Link(PathBuf),
}

/// The names in a directory.
#[derive(Debug, Clone, Default)]
struct Directory {
    seen: BTreeMap<OsString, Inode>,
    durable: BTreeMap<OsString, Inode>,
}

#[derive(Debug, Clone)]
struct Node {
    body: Body,
    mode: u16,
    names: u32,
    modified: SystemTime,
}

/// What one name stands for from now on; `None`: nothing.
type Naming = (Inode, OsString, Option<Inode>);

/// The model. Permissions, owners and times are not lost, and nobody is refused anything.
#[derive(Debug, Clone)]
pub struct Disk {
    rule: Names,
    nodes: BTreeMap<Inode, Node>,
    next: Inode,
    /// Changes of names that are not durable, in their order. Each is durable as a whole, but for one that
    /// concerns two directories of which one was synced.
    pending: Vec<Vec<Naming>>,
}

type Result<T> = std::result::Result<T, Errno>;

impl Disk {
    /// An empty one.
    #[must_use]
    pub fn new(rule: Names) -> Self {
        let root = Node {
            body: Body::Directory(Directory::default()),
            mode: 0o755,
            names: 1,
            modified: SystemTime::now(),
        };
        Self {
            rule,
            nodes: BTreeMap::from([(ROOT, root)]),
            next: ROOT + 1,
            pending: Vec::new(),
        }
    }

    /// What is known of it.
    ///
    /// # Errors
    /// `ENOENT`: there is none.
    pub fn facts(&self, inode: Inode) -> Result<Facts> {
        let node = self.node(inode)?;
        let (kind, length) = match &node.body {
            Body::File(content) => (Kind::File, content.length()),
            Body::Directory(directory) => (Kind::Directory, directory.seen.len() as u64),
            Body::Link(target) => (Kind::Link, target.as_os_str().len() as u64),
        };
        Ok(Facts {
            inode,
            kind,
            length,
            mode: node.mode,
            names: node.names,
            modified: node.modified,
        })
    }

    /// What a name stands for.
    ///
    /// # Errors
    /// `ENOENT`: nothing. `ENOTDIR`: `directory` is none.
    pub fn look_up(&self, directory: Inode, name: &OsStr) -> Result<Inode> {
        let names = &self.directory(directory)?.seen;
        names.get(name).copied().ok_or(Errno::ENOENT)
    }

    /// What a path from the top leads to.
    ///
    /// # Errors
    /// As [`Self::look_up`].
    pub fn find(&self, path: impl AsRef<Path>) -> Result<Inode> {
        let mut names = path.as_ref().iter();
        names.try_fold(ROOT, |directory, name| self.look_up(directory, name))
    }

    /// The names in a directory and what they stand for.
    ///
    /// # Errors
    /// `ENOTDIR`: it is none.
    pub fn list(&self, directory: Inode) -> Result<&BTreeMap<OsString, Inode>> {
        Ok(&self.directory(directory)?.seen)
    }

    /// A new file.
    ///
    /// # Errors
    /// `EEXIST`: the name is taken.
    pub fn create(&mut self, directory: Inode, name: &OsStr, mode: u16) -> Result<Inode> {
        self.add(directory, name, mode, Body::File(Content::default()))
    }

    /// A new directory.
    ///
    /// # Errors
    /// `EEXIST`: the name is taken.
    pub fn make_directory(&mut self, directory: Inode, name: &OsStr, mode: u16) -> Result<Inode> {
        self.add(directory, name, mode, Body::Directory(Directory::default()))
    }

    /// A new symbolic link.
    ///
    /// # Errors
    /// `EEXIST`: the name is taken.
    pub fn make_link(&mut self, directory: Inode, name: &OsStr, target: &Path) -> Result<Inode> {
        self.add(directory, name, 0o777, Body::Link(target.to_owned()))
    }

    /// One more name of a file.
    ///
    /// # Errors
    /// `EEXIST`: the name is taken. `EPERM`: it is a directory.
    pub fn add_name(&mut self, inode: Inode, directory: Inode, name: &OsStr) -> Result<()> {
        if self.facts(inode)?.kind == Kind::Directory {
            return Err(Errno::EPERM);
        }
        self.free(directory, name)?;
        self.change(vec![(directory, name.to_owned(), Some(inode))])
    }

    /// Removes a name of a file. Who has the file open goes on with it.
    ///
    /// # Errors
    /// `ENOENT`: there is no such name. `EISDIR`: it is a directory's.
    pub fn remove(&mut self, directory: Inode, name: &OsStr) -> Result<()> {
        let inode = self.look_up(directory, name)?;
        if self.facts(inode)?.kind == Kind::Directory {
            return Err(Errno::EISDIR);
        }
        self.change(vec![(directory, name.to_owned(), None)])
    }

    /// Removes a directory.
    ///
    /// # Errors
    /// `ENOTEMPTY`: something is in it. `ENOENT`, `ENOTDIR`: there is no such directory.
    pub fn remove_directory(&mut self, directory: Inode, name: &OsStr) -> Result<()> {
        let inode = self.look_up(directory, name)?;
        if !self.list(inode)?.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        self.change(vec![(directory, name.to_owned(), None)])
    }

    /// Renames, in one step; what had the new name loses it.
    ///
    /// # Errors
    /// `ENOENT`: nothing has the old name. `ENOTEMPTY`: something is in the directory that had the new name.
    pub fn rename(&mut self, from: (Inode, &OsStr), to: (Inode, &OsStr)) -> Result<()> {
        let inode = self.look_up(from.0, from.1)?;
        if let Ok(replaced) = self.look_up(to.0, to.1) {
            if replaced == inode {
                return Ok(());
            }
            if self.list(replaced).is_ok_and(|it| !it.is_empty()) {
                return Err(Errno::ENOTEMPTY);
            }
        }
        self.change(vec![
            (from.0, from.1.to_owned(), None),
            (to.0, to.1.to_owned(), Some(inode)),
        ])
    }

    /// Where a symbolic link leads.
    ///
    /// # Errors
    /// `EINVAL`: it is none.
    pub fn target(&self, inode: Inode) -> Result<&Path> {
        match &self.node(inode)?.body {
            Body::Link(target) => Ok(target),
            Body::File(_) | Body::Directory(_) => Err(Errno::EINVAL),
        }
    }

    /// At most so many bytes of a file.
    ///
    /// # Errors
    /// `EISDIR`: it is none.
    pub fn read(&self, inode: Inode, from: u64, most: usize) -> Result<Vec<u8>> {
        match &self.node(inode)?.body {
            Body::File(content) => Ok(content.read(from, most)),
            Body::Directory(_) | Body::Link(_) => Err(Errno::EISDIR),
        }
    }

    /// Writes into a file.
    ///
    /// # Errors
    /// `EISDIR`: it is none.
    pub fn write(&mut self, inode: Inode, from: u64, bytes: &[u8]) -> Result<()> {
        self.content(inode)?.write(from, bytes);
        self.touch(inode, SystemTime::now())
    }

    /// Cuts a file off, or adds zeros.
    ///
    /// # Errors
    /// `EISDIR`: it is none.
    pub fn set_length(&mut self, inode: Inode, length: u64) -> Result<()> {
        self.content(inode)?.set_length(length);
        self.touch(inode, SystemTime::now())
    }

    /// Changes the permissions.
    ///
    /// # Errors
    /// `ENOENT`: there is no such file.
    pub fn set_mode(&mut self, inode: Inode, mode: u16) -> Result<()> {
        self.node_mut(inode)?.mode = mode;
        Ok(())
    }

    /// Says when it was changed last.
    ///
    /// # Errors
    /// `ENOENT`: there is no such file.
    pub fn touch(&mut self, inode: Inode, modified: SystemTime) -> Result<()> {
        self.node_mut(inode)?.modified = modified;
        Ok(())
    }

    /// fsync(2), fdatasync(2), or a write to a file that was opened with `O_SYNC` or `O_DSYNC`. All of them
    /// make the length durable with the content, and differ only in times.
    ///
    /// # Errors
    /// `ENOENT`: there is no such file.
    pub fn sync(&mut self, inode: Inode) -> Result<()> {
        if let Body::File(content) = &mut self.node_mut(inode)?.body {
            content.sync();
        }
        for mut change in std::mem::take(&mut self.pending) {
            let stays = |naming: &mut Naming| self.rule == Names::OfDirectory && naming.0 != inode;
            let synced: Vec<Naming> = change.extract_if(.., |it| !stays(it)).collect();
            self.make_durable(synced);
            if !change.is_empty() {
                self.pending.push(change);
            }
        }
        Ok(())
    }

    /// Everything is durable now: sync(2), or what the kernel does by itself within half a minute.
    pub fn sync_everything(&mut self) {
        for node in self.nodes.values_mut() {
            if let Body::File(content) = &mut node.body {
                content.sync();
            }
        }
        for change in std::mem::take(&mut self.pending) {
            self.make_durable(change);
        }
    }

    /// What a power cut leaves, for somebody to start again with.
    #[must_use]
    pub fn after_power_cut(mut self, loss: &mut Loss) -> Self {
        let mut pending = std::mem::take(&mut self.pending);
        match self.rule {
            Names::OfDirectory => pending.retain(|_| loss.keeps()),
            Names::InJournal => pending.truncate(loss.first_of(pending.len())),
        }
        for change in pending {
            self.make_durable(change);
        }
        let mut left = BTreeMap::new();
        let mut reached = BTreeSet::from([ROOT]);
        let mut names: BTreeMap<Inode, u32> = BTreeMap::from([(ROOT, 1)]);
        let mut next = vec![ROOT];
        while let Some(inode) = next.pop() {
            let Some(mut node) = self.nodes.remove(&inode) else {
                continue;
            };
            node.body = match node.body {
                Body::File(content) => Body::File(content.after_power_cut(loss)),
                Body::Directory(Directory { durable, .. }) => {
                    for child in durable.values() {
                        *names.entry(*child).or_default() += 1;
                        if reached.insert(*child) {
                            next.push(*child);
                        }
                    }
                    Body::Directory(Directory {
                        seen: durable.clone(),
                        durable,
                    })
                }
                link @ Body::Link(_) => link,
            };
            left.insert(inode, node);
        }
        for (inode, node) in &mut left {
            node.names = names.get(inode).copied().unwrap_or_default();
        }
        Self {
            nodes: left,
            ..self
        }
    }

    fn add(&mut self, directory: Inode, name: &OsStr, mode: u16, body: Body) -> Result<Inode> {
        self.free(directory, name)?;
        let inode = self.next;
        self.next += 1;
        let node = Node {
            body,
            mode,
            names: 0,
            modified: SystemTime::now(),
        };
        self.nodes.insert(inode, node);
        self.change(vec![(directory, name.to_owned(), Some(inode))])?;
        Ok(inode)
    }

    fn free(&self, directory: Inode, name: &OsStr) -> Result<()> {
        match self.look_up(directory, name) {
            Ok(_) => Err(Errno::EEXIST),
            Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Changes what programs see. Nodes without a name stay: somebody may have them open, and a removal that
    /// is not durable brings them back.
    fn change(&mut self, namings: Vec<Naming>) -> Result<()> {
        for (directory, name, inode) in &namings {
            let names = &mut self.directory_mut(*directory)?.seen;
            let before = match inode {
                Some(inode) => names.insert(name.clone(), *inode),
                None => names.remove(name),
            };
            self.touch(*directory, SystemTime::now())?;
            if let Some(inode) = inode {
                self.node_mut(*inode)?.names += 1;
            }
            if let Some(before) = before {
                self.node_mut(before)?.names -= 1;
            }
        }
        self.pending.push(namings);
        Ok(())
    }

    fn make_durable(&mut self, namings: Vec<Naming>) {
        for (directory, name, inode) in namings {
            // Each was a directory when the name was changed, and still is.
            let Ok(directory) = self.directory_mut(directory) else {
                continue;
            };
            match inode {
                Some(inode) => directory.durable.insert(name, inode),
                None => directory.durable.remove(&name),
            };
        }
    }

    fn node(&self, inode: Inode) -> Result<&Node> {
        self.nodes.get(&inode).ok_or(Errno::ENOENT)
    }

    fn node_mut(&mut self, inode: Inode) -> Result<&mut Node> {
        self.nodes.get_mut(&inode).ok_or(Errno::ENOENT)
    }

    fn content(&mut self, inode: Inode) -> Result<&mut Content> {
        match &mut self.node_mut(inode)?.body {
            Body::File(content) => Ok(content),
            Body::Directory(_) | Body::Link(_) => Err(Errno::EISDIR),
        }
    }

    fn directory(&self, inode: Inode) -> Result<&Directory> {
        match &self.node(inode)?.body {
            Body::Directory(directory) => Ok(directory),
            Body::File(_) | Body::Link(_) => Err(Errno::ENOTDIR),
        }
    }

    fn directory_mut(&mut self, inode: Inode) -> Result<&mut Directory> {
        match &mut self.node_mut(inode)?.body {
            Body::Directory(directory) => Ok(directory),
            Body::File(_) | Body::Link(_) => Err(Errno::ENOTDIR),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const BOTH: [Names; 2] = [Names::OfDirectory, Names::InJournal];

    fn name(text: &str) -> &OsStr {
        OsStr::new(text)
    }

    fn file(disk: &mut Disk, directory: Inode, text: &str, content: &[u8]) -> Inode {
        let inode = disk.create(directory, name(text), 0o600).unwrap();
        disk.write(inode, 0, content).unwrap();
        inode
    }

    fn cut(disk: &Disk) -> Disk {
        disk.clone().after_power_cut(&mut Loss::Everything)
    }

    fn read(disk: &Disk, path: &str) -> Option<Vec<u8>> {
        let inode = disk.find(path).ok()?;
        Some(disk.read(inode, 0, usize::MAX).unwrap())
    }

    #[test]
    fn what_was_not_synced_is_gone() {
        for rule in BOTH {
            let mut disk = Disk::new(rule);
            file(&mut disk, ROOT, "a", b"unsynced");
            assert_eq!(read(&disk, "a").unwrap(), b"unsynced");
            assert_eq!(read(&cut(&disk), "a"), None, "{rule:?}");
        }
    }

    #[test]
    fn a_new_file_needs_its_directory_synced_unless_there_is_a_journal() {
        for rule in BOTH {
            let mut disk = Disk::new(rule);
            let a = file(&mut disk, ROOT, "a", b"synced");
            disk.sync(a).unwrap();
            let left = read(&cut(&disk), "a");
            assert_eq!(left.is_some(), rule == Names::InJournal);
            disk.sync(ROOT).unwrap();
            assert_eq!(read(&cut(&disk), "a").unwrap(), b"synced");
        }
    }

    #[test]
    fn a_synced_name_does_not_bring_the_content() {
        for rule in BOTH {
            let mut disk = Disk::new(rule);
            file(&mut disk, ROOT, "a", b"unsynced");
            disk.sync(ROOT).unwrap();
            assert_eq!(read(&cut(&disk), "a").unwrap(), b"");
        }
    }

    #[test]
    fn a_new_directory_needs_the_one_above_synced_unless_there_is_a_journal() {
        for rule in BOTH {
            let mut disk = Disk::new(rule);
            let directory = disk.make_directory(ROOT, name("d"), 0o700).unwrap();
            let a = file(&mut disk, directory, "a", b"synced");
            disk.sync(a).unwrap();
            disk.sync(directory).unwrap();
            let left = read(&cut(&disk), "d/a");
            assert_eq!(left.is_some(), rule == Names::InJournal);
            disk.sync(ROOT).unwrap();
            assert_eq!(read(&cut(&disk), "d/a").unwrap(), b"synced");
        }
    }

    #[test]
    fn a_replacement_by_renaming_is_undone_or_done_as_a_whole() {
        for rule in BOTH {
            let mut disk = Disk::new(rule);
            let old = file(&mut disk, ROOT, "a", b"old");
            disk.sync(old).unwrap();
            disk.sync(ROOT).unwrap();
            let new = file(&mut disk, ROOT, "a.new", b"new");
            disk.sync(new).unwrap();
            disk.rename((ROOT, name("a.new")), (ROOT, name("a")))
                .unwrap();
            assert_eq!(read(&disk, "a").unwrap(), b"new");
            assert_eq!(read(&cut(&disk), "a").unwrap(), b"old", "{rule:?}");
            for seed in 0..32 {
                let left = disk.clone().after_power_cut(&mut Loss::of_seed(seed));
                let a = read(&left, "a").unwrap();
                assert!(a == b"old" || a == b"new", "{rule:?}, {seed}");
                assert!(a == b"old" || read(&left, "a.new").is_none());
            }
            disk.sync(ROOT).unwrap();
            let left = cut(&disk);
            assert_eq!(read(&left, "a").unwrap(), b"new");
            assert_eq!(read(&left, "a.new"), None);
        }
    }

    #[test]
    fn a_removal_that_is_not_durable_is_undone() {
        for rule in BOTH {
            let mut disk = Disk::new(rule);
            let a = file(&mut disk, ROOT, "a", b"a");
            disk.sync(a).unwrap();
            disk.sync(ROOT).unwrap();
            disk.remove(ROOT, name("a")).unwrap();
            assert_eq!(disk.facts(a).unwrap().names, 0);
            let left = cut(&disk);
            assert_eq!(read(&left, "a").unwrap(), b"a", "{rule:?}");
            assert_eq!(left.facts(a).unwrap().names, 1);
            disk.sync(ROOT).unwrap();
            assert_eq!(read(&cut(&disk), "a"), None);
        }
    }

    #[test]
    fn a_file_that_was_removed_while_open_can_be_used_until_the_power_is_cut() {
        let mut disk = Disk::new(Names::OfDirectory);
        let a = file(&mut disk, ROOT, "a", b"a");
        disk.remove(ROOT, name("a")).unwrap();
        disk.write(a, 1, b"bc").unwrap();
        disk.sync(a).unwrap();
        assert_eq!(disk.read(a, 0, 10).unwrap(), b"abc");
        assert_eq!(cut(&disk).facts(a).unwrap_err(), Errno::ENOENT);
    }

    #[test]
    fn a_journal_keeps_names_in_their_order() {
        let mut disk = Disk::new(Names::InJournal);
        for number in 0..8 {
            file(&mut disk, ROOT, &number.to_string(), b"");
        }
        let mut lefts = BTreeSet::new();
        for seed in 0..64 {
            let left = disk.clone().after_power_cut(&mut Loss::of_seed(seed));
            let names: Vec<OsString> = left.list(ROOT).unwrap().keys().cloned().collect();
            let first = (0..names.len()).map(|it| OsString::from(it.to_string()));
            assert!(first.eq(names.iter().cloned()), "{names:?}");
            lefts.insert(names.len());
        }
        assert!(lefts.len() > 3, "{lefts:?}");
    }

    #[test]
    fn a_renaming_between_directories_may_be_half_done() {
        let mut disk = Disk::new(Names::OfDirectory);
        let directory = disk.make_directory(ROOT, name("d"), 0o700).unwrap();
        let a = file(&mut disk, ROOT, "a", b"a");
        disk.sync(a).unwrap();
        disk.sync(ROOT).unwrap();
        disk.rename((ROOT, name("a")), (directory, name("b")))
            .unwrap();
        disk.sync(directory).unwrap();
        let left = cut(&disk);
        assert_eq!(left.find("a"), left.find("d/b"));
        assert_eq!(left.facts(a).unwrap().names, 2);
        disk.sync(ROOT).unwrap();
        assert_eq!(cut(&disk).facts(a).unwrap().names, 1);
    }

    #[test]
    fn everything_can_be_made_durable_at_once() {
        let mut disk = Disk::new(Names::OfDirectory);
        let directory = disk.make_directory(ROOT, name("d"), 0o700).unwrap();
        file(&mut disk, directory, "a", b"a");
        disk.sync_everything();
        file(&mut disk, directory, "b", b"b");
        let left = cut(&disk);
        assert_eq!(read(&left, "d/a").unwrap(), b"a");
        assert_eq!(read(&left, "d/b"), None);
    }

    #[test]
    fn mistakes_are_refused() {
        let mut disk = Disk::new(Names::OfDirectory);
        let directory = disk.make_directory(ROOT, name("d"), 0o700).unwrap();
        let a = file(&mut disk, directory, "a", b"");
        assert_eq!(
            disk.create(directory, name("a"), 0).unwrap_err(),
            Errno::EEXIST
        );
        assert_eq!(disk.remove(ROOT, name("d")).unwrap_err(), Errno::EISDIR);
        let removed = disk.remove_directory(ROOT, name("d"));
        assert_eq!(removed.unwrap_err(), Errno::ENOTEMPTY);
        assert_eq!(disk.look_up(a, name("b")).unwrap_err(), Errno::ENOTDIR);
        assert_eq!(disk.find("d/b").unwrap_err(), Errno::ENOENT);
        assert_eq!(
            disk.add_name(directory, ROOT, name("e")).unwrap_err(),
            Errno::EPERM
        );
        assert_eq!(disk.write(directory, 0, b"").unwrap_err(), Errno::EISDIR);
    }
}
