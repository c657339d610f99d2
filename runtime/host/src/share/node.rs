//! Files below a shared folder.
//!
//! Each is held by a descriptor that names it and opens nothing (O_PATH). A name is only ever looked up in such a directory, one at a time
//! and without following links, and `..` is where the walk came from, which is no look-up at all. So nothing outside is reached, whatever
//! is renamed meanwhile; a file that was moved or removed is still the one that was found.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::{Errno, Result};

/// Descriptors that are taken from what a guest can have at most.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    used: Arc<AtomicUsize>,
    most: usize,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Unit(Arc<AtomicUsize>);

impl Budget {
    pub(super) fn new(most: usize) -> Budget {
        Budget { used: Arc::default(), most }
    }

    /// # Errors
    ///
    /// EMFILE when all are taken.
    pub(super) fn take(&self) -> Result<Unit> {
        if self.used.fetch_add(1, Ordering::Relaxed) >= self.most {
            self.used.fetch_sub(1, Ordering::Relaxed);
            return Err(Errno::MFILE);
        }
        Ok(Unit(self.used.clone()))
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A name within a directory.
///
/// # Errors
///
/// ENOENT for what can be the name of nothing, EINVAL for a directory itself and the one above it.
pub(super) fn name(bytes: &[u8]) -> Result<CString> {
    match bytes {
        b"." | b".." => Err(Errno::INVAL),
        b"" => Err(Errno::NOENT),
        _ if bytes.contains(&b'/') => Err(Errno::NOENT),
        _ => CString::new(bytes).map_err(|_| Errno::NOENT),
    }
}

/// A file, directory or link, whether it is still there or not.
#[derive(Debug)]
pub(super) struct Node {
    fd: OwnedFd,
    /// The directory that it was found in, and its name there; the shared folder itself has none.
    place: Option<(Arc<Node>, CString)>,
    /// The file system, and the number there.
    identity: (u64, u64),
    kind: FileType,
    budget: Budget,
    _unit: Unit,
}

/// How a name is looked up.
const LOOK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Node {
    /// The shared folder itself, however it is named.
    pub(super) fn root(path: &Path, budget: &Budget) -> Result<Arc<Node>> {
        let unit = budget.take()?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        Node::of(fd, None, budget, unit)
    }

    fn of(fd: OwnedFd, place: Option<(Arc<Node>, CString)>, budget: &Budget, unit: Unit) -> Result<Arc<Node>> {
        let stat = fstat(&fd)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        Ok(Arc::new(Node {
            fd,
            place,
            identity: (stat.st_dev, stat.st_ino),
            kind,
            budget: budget.clone(),
            _unit: unit,
        }))
    }

    /// What is called so in this directory.
    pub(super) fn child(self: &Arc<Node>, name: CString) -> Result<Arc<Node>> {
        let unit = self.budget.take()?;
        let fd = openat(&self.fd, &name, LOOK, Mode::empty())?;
        Node::of(fd, Some((self.clone(), name)), &self.budget, unit)
    }

    /// One step of a walk. Above the shared folder is the shared folder.
    pub(super) fn step(self: &Arc<Node>, to: &[u8]) -> Result<Arc<Node>> {
        match to {
            b"." | b".." if self.kind != FileType::Directory => Err(Errno::NOTDIR),
            b"." => Ok(self.clone()),
            b".." => Ok(self.place.as_ref().map_or(self, |(parent, _)| parent).clone()),
            _ => self.child(name(to)?),
        }
    }

    /// The file that `opened` is, which was made in this directory under that name.
    pub(super) fn adopt(self: &Arc<Node>, opened: &OwnedFd, name: CString) -> Result<Arc<Node>> {
        let unit = self.budget.take()?;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path_of(opened), flags, Mode::empty())?;
        Node::of(fd, Some((self.clone(), name)), &self.budget, unit)
    }

    /// The same file, which was moved to another place.
    pub(super) fn moved(&self, place: (Arc<Node>, CString)) -> Result<Arc<Node>> {
        let unit = self.budget.take()?;
        let fd = rustix::io::fcntl_dupfd_cloexec(&self.fd, 0)?;
        Node::of(fd, Some(place), &self.budget, unit)
    }

    /// The directory that it is in, and its name there, provided that it still is.
    pub(super) fn place(&self) -> Result<&(Arc<Node>, CString)> {
        let place = self.place.as_ref().ok_or(Errno::BUSY)?;
        let there = statat(&place.0.fd, &place.1, AtFlags::SYMLINK_NOFOLLOW)?;
        if (there.st_dev, there.st_ino) == self.identity { Ok(place) } else { Err(Errno::NOENT) }
    }

    pub(super) fn is_root(&self) -> bool {
        self.place.is_none()
    }

    /// The file system, and the number there.
    pub(super) fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// What the host takes it for.
    pub(super) fn kind(&self) -> FileType {
        self.kind
    }

    /// What the host knows of it.
    pub(super) fn stat(&self) -> Result<Stat> {
        fstat(&self.fd)
    }

    /// Opens it. What is neither a file nor a directory is not opened: a pipe would wait for its other end, and a device do whatever
    /// devices do.
    pub(super) fn open(&self, flags: OFlags) -> Result<OwnedFd> {
        if !matches!(self.kind, FileType::RegularFile | FileType::Directory) {
            return Err(Errno::NXIO);
        }
        rustix::fs::open(self.path(), flags | OPENING, Mode::empty())
    }

    /// A name of exactly this file for calls that take no descriptor of this kind.
    pub(super) fn path(&self) -> String {
        path_of(&self.fd)
    }
}

/// How anything is opened.
pub(super) const OPENING: OFlags = OFlags::CLOEXEC.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

fn path_of(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// One after another: a guest makes folders in folders as deep as it likes, and there is only so much stack.
impl Drop for Node {
    fn drop(&mut self) {
        let mut above = self.place.take();
        while let Some((node, _)) = above {
            above = Arc::into_inner(node).and_then(|mut node| node.place.take());
        }
    }
}

impl AsFd for Node {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
