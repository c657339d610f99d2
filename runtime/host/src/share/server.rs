//! The server of a shared folder: what a client has open, and what becomes of each of its requests.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{
    AtFlags, CWD, FileType, OFlags, RawDir, SeekFrom, Stat, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, fdatasync,
    fstatvfs, fsync, ftruncate, linkat, renameat, seek, unlinkat, utimensat,
};
use rustix::io::{Errno, Result};

use super::attributes::{self, Attribute};
use super::folder::{Folder, Maker};
use super::node::{Budget, Node, Unit, name};
use super::wire::{HEADER, Message, Put, Qid, Request, Time, finish};
use crate::config::SharedFolder;

/// The one dialect that is spoken.
const DIALECT: &[u8] = b"9P2000.L";
/// The shortest and the longest message that may be agreed on.
const SHORTEST: u32 = 4096;
pub(super) const LONGEST: u32 = mimus_hw::virtio::MAX_MESSAGE;
/// Bytes of an answer before what was read.
const BEFORE_DATA: usize = HEADER + 4;
/// What a client says that has nobody to prove who it is.
const NOBODY: u32 = u32::MAX;
/// The number of the file system's kind, which clients look for.
const MAGIC: u32 = 0x0102_1997;
/// Attributes that are told: all up to the count of blocks.
const BASIC: u64 = 0x7ff;
/// A lock was had; nothing is locked.
const LOCKED: u8 = 0;
const UNLOCKED: u8 = 2;
/// Bytes of a directory that are read at once.
const ENTRIES: usize = 16 << 10;

bitflags::bitflags! {
    /// What is to be changed of a file's attributes.
    #[derive(Clone, Copy)]
    struct Change: u32 {
        const MODE = 1 << 0;
        const UID = 1 << 1;
        const GID = 1 << 2;
        const SIZE = 1 << 3;
        const ACCESSED = 1 << 4;
        const MODIFIED = 1 << 5;
        /// The time of the last change, which is now.
        const CHANGED = 1 << 6;
        /// The time that is given, and not the present one.
        const ACCESSED_AT = 1 << 7;
        const MODIFIED_AT = 1 << 8;
    }
}

/// Flags of a client that opens a file, by the host's: those not here make no difference.
const FLAGS: [(u32, OFlags); 5] = [
    (0o1000, OFlags::TRUNC),
    (0o2000, OFlags::APPEND),
    (0o1_0000, OFlags::DSYNC),
    (0o20_0000, OFlags::DIRECTORY),
    (0o400_0000, OFlags::SYNC),
];
/// The file must not be there yet.
const EXCLUSIVE: u32 = 0o200;
/// A directory is to be removed.
const REMOVE_DIRECTORY: u32 = 0x200;

/// How a client wants to open something.
fn opening(flags: u32) -> OFlags {
    let access = match flags & 3 {
        0 => OFlags::RDONLY,
        1 => OFlags::WRONLY,
        _ => OFlags::RDWR,
    };
    FLAGS.iter().filter(|(flag, _)| flags & flag != 0).fold(access, |all, (_, flag)| all | *flag)
}

/// A file or directory that is open.
pub(super) struct OpenFile {
    fd: OwnedFd,
    _unit: Unit,
}

/// What is open by way of a fid.
pub(super) enum State {
    Closed,
    File(OpenFile),
    Attribute(Attribute),
}

/// What a client calls by a number.
pub(super) struct Fid {
    pub(super) node: Arc<Node>,
    /// Who uses it.
    pub(super) uid: u32,
    pub(super) state: State,
    _unit: Unit,
}

impl Fid {
    fn file(&self) -> Result<&OwnedFd> {
        match &self.state {
            State::File(file) => Ok(&file.fd),
            _ => Err(Errno::BADF),
        }
    }
}

/// What a client has of a folder.
pub(super) struct Server {
    pub(super) folder: Folder,
    pub(super) fids: HashMap<u32, Fid>,
    /// How many attributes may be open.
    pub(super) attributes: Budget,
    /// Bytes of the longest message; 0 before one was agreed on.
    size: u32,
}

impl Server {
    /// # Errors
    ///
    /// When the folder cannot be opened.
    pub(super) fn new(config: &SharedFolder, budget: Budget) -> Result<Server> {
        Ok(Server {
            folder: Folder::open(config, budget)?,
            fids: HashMap::new(),
            attributes: attributes::budget(),
            size: 0,
        })
    }

    /// Forgets its client.
    pub(super) fn reset(&mut self) {
        self.fids.clear();
        self.size = 0;
    }

    /// The answer to a message, of at most `room` bytes if its client has left enough for one at all.
    pub(super) fn serve(&mut self, bytes: &[u8], room: usize) -> Vec<u8> {
        let Some(message) = Message::parse(bytes) else { return Vec::new() };
        let room = room.min(if self.size == 0 { SHORTEST } else { self.size } as usize);
        let mut answer = message.answer();
        let result = match &message.request {
            Some(request) => self.answer(request, room, &mut answer),
            None => Err(Errno::OPNOTSUPP),
        };
        let result = if answer.len() > room { Err(Errno::MSGSIZE) } else { result };
        if let Err(error) = result {
            answer = message.refusal(error.raw_os_error().unsigned_abs());
        }
        finish(&mut answer);
        answer
    }

    fn answer(&mut self, request: &Request, room: usize, out: &mut Vec<u8>) -> Result<()> {
        match *request {
            Request::Version { size, version } => return self.version(size, version, out),
            _ if self.size == 0 => return Err(Errno::PROTO),
            Request::Attach { fid, auth, uid, .. } => self.attach(fid, auth, uid)?.put(out),
            Request::Walk { fid, new, ref names } => self.walk(fid, new, names, out)?,
            // What was to be given up is done.
            Request::Flush { .. } => {}
            Request::Clunk { fid } => self.clunk(fid)?,
            Request::Open { fid, flags } => self.open(fid, flags)?.put(out),
            Request::Create { fid, name, flags, mode, gid } => self.create(fid, name, flags, mode, gid)?.put(out),
            Request::Read { fid, offset, count } => self.read(fid, offset, count as usize, room, out)?,
            Request::ReadDir { fid, offset, count } => self.read_dir(fid, offset, count as usize, room, out)?,
            Request::Write { fid, offset, data } => self.write(fid, offset, data.0)?.put(out),
            Request::Sync { fid, data_only } => self.sync(fid, data_only != 0)?,
            Request::GetAttr { fid, .. } => self.attributes(fid, out)?,
            Request::SetAttr { fid, valid, mode, uid, gid, size, accessed, modified } => {
                let change = Change::from_bits_truncate(valid);
                self.set_attributes(fid, change, (mode, uid, gid, size), (accessed, modified))?;
            }
            Request::StatFs { fid } => self.file_system(fid, out)?,
            Request::ReadLink { fid } => {
                let target = self.folder.target(&self.fid(fid)?.node)?;
                (&target[..]).put(out);
            }
            Request::XattrWalk { fid, new, name } => self.walk_attribute(fid, new, name)?.put(out),
            Request::XattrCreate { fid, name, size, flags } => self.create_attribute(fid, name, size, flags)?,
            Request::Symlink { dir, name, target, gid } => {
                let (node, maker) = self.maker(dir, 0, gid)?;
                let made = self.folder.make_link(&node, name, target, maker)?;
                self.qid(&made)?.put(out);
            }
            Request::MakeNode { dir, name, mode, major, minor, gid } => {
                let (node, maker) = self.maker(dir, mode, gid)?;
                let made = self.folder.make_node(&node, name, maker, (major, minor))?;
                self.qid(&made)?.put(out);
            }
            Request::MakeDir { dir, name, mode, gid } => {
                let (node, maker) = self.maker(dir, mode, gid)?;
                let made = self.folder.make_directory(&node, name, maker)?;
                self.qid(&made)?.put(out);
            }
            Request::Link { dir, fid, name } => self.link(dir, fid, name)?,
            Request::RenameAt { old_dir, old, new_dir, new } => self.rename_at(old_dir, old, new_dir, new)?,
            Request::Rename { fid, dir, name } => self.rename(fid, dir, name)?,
            Request::UnlinkAt { dir, name, flags } => self.unlink(dir, name, flags)?,
            Request::Remove { fid } => self.remove(fid)?,
            // Processes of the guest keep each other off by its own locks.
            Request::Lock { fid, .. } => {
                self.fid(fid)?;
                LOCKED.put(out);
            }
            Request::GetLock { fid, start, length, process, client, .. } => {
                self.fid(fid)?;
                UNLOCKED.put(out);
                start.put(out);
                length.put(out);
                process.put(out);
                client.put(out);
            }
        }
        Ok(())
    }

    pub(super) fn fid(&self, fid: u32) -> Result<&Fid> {
        self.fids.get(&fid).ok_or(Errno::BADF)
    }

    /// Calls `node` by a number that is free.
    pub(super) fn insert(&mut self, fid: u32, node: Arc<Node>, uid: u32, state: State) -> Result<()> {
        let unit = self.folder.budget.take()?;
        match self.fids.entry(fid) {
            Entry::Occupied(_) => Err(Errno::INVAL),
            Entry::Vacant(entry) => {
                entry.insert(Fid { node, uid, state, _unit: unit });
                Ok(())
            }
        }
    }

    fn qid(&mut self, node: &Node) -> Result<Qid> {
        let stat = self.folder.stat(node)?;
        self.folder.qid(node, &stat)
    }

    fn version(&mut self, size: u32, version: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.reset();
        let is_known = version == DIALECT;
        if is_known && size < SHORTEST {
            return Err(Errno::MSGSIZE);
        }
        let size = size.min(LONGEST);
        if is_known {
            self.size = size;
        }
        size.put(out);
        (if is_known { DIALECT } else { b"unknown" }).put(out);
        Ok(())
    }

    fn attach(&mut self, fid: u32, auth: u32, uid: u32) -> Result<Qid> {
        if auth != NOBODY {
            return Err(Errno::OPNOTSUPP);
        }
        let root = self.folder.root.clone();
        let qid = self.qid(&root)?;
        self.insert(fid, root, uid, State::Closed)?;
        Ok(qid)
    }

    /// Goes as far as there are names; only who gets to the end has a new fid.
    fn walk(&mut self, fid: u32, new: u32, names: &[&[u8]], out: &mut Vec<u8>) -> Result<()> {
        let from = self.fid(fid)?;
        let (mut node, uid) = (from.node.clone(), from.uid);
        if fid == new && !matches!(from.state, State::Closed) {
            return Err(Errno::BUSY);
        }
        let mut qids = Vec::new();
        for step in names {
            let next = node.step(step).and_then(|next| Ok((self.qid(&next)?, next)));
            match next {
                Ok((qid, next)) => {
                    qids.push(qid);
                    node = next;
                }
                Err(error) if qids.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        if qids.len() == names.len() {
            if fid == new {
                self.fids.remove(&fid);
            }
            self.insert(new, node, uid, State::Closed)?;
        }
        (qids.len() as u16).put(out);
        qids.iter().for_each(|qid| qid.put(out));
        Ok(())
    }

    fn clunk(&mut self, fid: u32) -> Result<()> {
        let fid = self.fids.remove(&fid).ok_or(Errno::BADF)?;
        match fid.state {
            State::Attribute(attribute) => attribute.close(&fid.node),
            _ => Ok(()),
        }
    }

    /// Opens what a fid names; the answer has the size of pieces, 0 for any.
    fn open(&mut self, fid: u32, flags: u32) -> Result<Opened> {
        let flags = opening(flags);
        let node = self.closed(fid)?;
        let qid = self.qid(&node)?;
        if flags.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC) {
            self.folder.writable()?;
        }
        let unit = self.folder.budget.take()?;
        let fd = node.open(flags)?;
        self.set_state(fid, node, State::File(OpenFile { fd, _unit: unit }));
        Ok(Opened(qid))
    }

    /// What a fid names that has nothing open.
    pub(super) fn closed(&self, fid: u32) -> Result<Arc<Node>> {
        let fid = self.fid(fid)?;
        if matches!(fid.state, State::Closed) { Ok(fid.node.clone()) } else { Err(Errno::INVAL) }
    }

    pub(super) fn set_state(&mut self, fid: u32, node: Arc<Node>, state: State) {
        if let Some(fid) = self.fids.get_mut(&fid) {
            (fid.node, fid.state) = (node, state);
        }
    }

    /// The directory that something is to be made in, and whose it will be.
    fn maker(&self, dir: u32, mode: u32, gid: u32) -> Result<(Arc<Node>, Maker)> {
        self.folder.writable()?;
        let dir = self.fid(dir)?;
        Ok((dir.node.clone(), Maker { uid: dir.uid, gid, mode }))
    }

    /// Makes a file and opens it by the fid of its directory, or opens the one that is there.
    fn create(&mut self, fid: u32, name: &[u8], flags: u32, mode: u32, gid: u32) -> Result<Opened> {
        let dir = self.closed(fid)?;
        let (_, maker) = self.maker(fid, mode, gid)?;
        let unit = self.folder.budget.take()?;
        let (node, fd) = match self.folder.create(&dir, name, opening(flags), maker) {
            Err(Errno::EXIST) if flags & EXCLUSIVE == 0 => {
                let node = dir.child(super::node::name(name)?)?;
                let fd = node.open(opening(flags))?;
                (node, fd)
            }
            made => made?,
        };
        let qid = self.qid(&node)?;
        self.set_state(fid, node, State::File(OpenFile { fd, _unit: unit }));
        Ok(Opened(qid))
    }

    fn read(&mut self, fid: u32, offset: u64, count: usize, room: usize, out: &mut Vec<u8>) -> Result<()> {
        let count = count.min(room.saturating_sub(BEFORE_DATA));
        let mut data = Vec::new();
        match &self.fid(fid)?.state {
            State::File(file) => {
                data.resize(count, 0);
                let len = if count == 0 { 0 } else { rustix::io::pread(&file.fd, &mut data[..], offset)? };
                data.truncate(len);
            }
            State::Attribute(attribute) => data.extend(attribute.read(offset, count)?),
            State::Closed => return Err(Errno::BADF),
        }
        (data.len() as u32).put(out);
        out.append(&mut data);
        Ok(())
    }

    fn write(&mut self, fid: u32, offset: u64, data: &[u8]) -> Result<u32> {
        let is_through = self.folder.config.writes_through;
        match &mut self.fids.get_mut(&fid).ok_or(Errno::BADF)?.state {
            State::File(file) => {
                let len = rustix::io::pwrite(&file.fd, data, offset)?;
                if is_through {
                    fdatasync(&file.fd)?;
                }
                Ok(len as u32)
            }
            State::Attribute(attribute) => attribute.write(offset, data),
            State::Closed => Err(Errno::BADF),
        }
    }

    fn sync(&self, fid: u32, data_only: bool) -> Result<()> {
        let file = self.fid(fid)?.file()?;
        if data_only { fdatasync(file) } else { fsync(file) }
    }

    /// Entries from a place on that an earlier answer has told of, as many as there is room for.
    fn read_dir(&mut self, fid: u32, offset: u64, count: usize, room: usize, out: &mut Vec<u8>) -> Result<()> {
        let count = count.min(room.saturating_sub(BEFORE_DATA));
        let mut entries = Vec::new();
        let from = self.fids.get(&fid).ok_or(Errno::BADF)?;
        let (node, file) = (from.node.clone(), from.file()?);
        seek(file, SeekFrom::Start(offset))?;
        let mut buffer = [MaybeUninit::uninit(); ENTRIES];
        let mut all = RawDir::new(file, &mut buffer);
        while let Some(entry) = all.next() {
            let entry = entry?;
            let (bytes, is_above) = (entry.file_name().to_bytes(), entry.file_name() == c"..");
            let number = if is_above && node.is_root() { node.identity().1 } else { entry.ino() };
            let (kind, told) = self.folder.entry(entry.file_type());
            let before = entries.len();
            Qid { kind, version: 0, path: self.folder.number((node.identity().0, number))? }.put(&mut entries);
            entry.next_entry_cookie().put(&mut entries);
            told.put(&mut entries);
            bytes.put(&mut entries);
            if entries.len() > count {
                entries.truncate(before);
                break;
            }
        }
        (entries.len() as u32).put(out);
        out.append(&mut entries);
        Ok(())
    }

    fn attributes(&mut self, fid: u32, out: &mut Vec<u8>) -> Result<()> {
        let node = self.fid(fid)?.node.clone();
        let stat = self.folder.stat(&node)?;
        BASIC.put(out);
        self.folder.qid(&node, &stat)?.put(out);
        put_stat(&stat, out);
        Ok(())
    }

    fn set_attributes(
        &mut self,
        fid: u32,
        change: Change,
        (mode, uid, gid, size): (u32, u32, u32, u64),
        (accessed, modified): (Time, Time),
    ) -> Result<()> {
        self.folder.writable()?;
        let fid = self.fid(fid)?;
        let (node, folder) = (&fid.node, &self.folder);
        if change.contains(Change::MODE) {
            folder.set_mode(node, mode)?;
        }
        if change.intersects(Change::ACCESSED | Change::MODIFIED) {
            let accessed = time(change, (Change::ACCESSED, Change::ACCESSED_AT), accessed);
            let modified = time(change, (Change::MODIFIED, Change::MODIFIED_AT), modified);
            let times = Timestamps { last_access: accessed, last_modification: modified };
            utimensat(&**node, c"", &times, AtFlags::EMPTY_PATH)?;
        }
        if change.intersects(Change::UID | Change::GID) {
            let (uid, gid) = (change.contains(Change::UID).then_some(uid), change.contains(Change::GID).then_some(gid));
            folder.set_owner(node, uid, gid)?;
        }
        if change.contains(Change::SIZE) {
            match fid.file().map(|file| ftruncate(file, size)) {
                Ok(Ok(())) => {}
                // Nothing is open, or only to be read.
                _ => ftruncate(node.open(OFlags::WRONLY)?, size)?,
            }
        }
        Ok(())
    }

    fn file_system(&self, fid: u32, out: &mut Vec<u8>) -> Result<()> {
        let all = fstatvfs(&*self.fid(fid)?.node)?;
        MAGIC.put(out);
        (all.f_bsize as u32).put(out);
        for count in [all.f_blocks, all.f_bfree, all.f_bavail, all.f_files, all.f_ffree, all.f_fsid] {
            count.put(out);
        }
        (all.f_namemax as u32).put(out);
        Ok(())
    }

    fn link(&self, dir: u32, fid: u32, to: &[u8]) -> Result<()> {
        self.folder.writable()?;
        let (dir, node) = (&self.fid(dir)?.node, &self.fid(fid)?.node);
        linkat(CWD, node.path(), &**dir, name(to)?, AtFlags::SYMLINK_FOLLOW)
    }

    fn rename_at(&self, old_dir: u32, old: &[u8], new_dir: u32, new: &[u8]) -> Result<()> {
        self.folder.writable()?;
        let (old_dir, new_dir) = (&self.fid(old_dir)?.node, &self.fid(new_dir)?.node);
        renameat(&**old_dir, name(old)?, &**new_dir, name(new)?)
    }

    fn rename(&mut self, fid: u32, dir: u32, to: &[u8]) -> Result<()> {
        self.folder.writable()?;
        let (node, dir) = (self.fid(fid)?.node.clone(), self.fid(dir)?.node.clone());
        let (parent, old) = node.place()?;
        let new = name(to)?;
        let moved = node.moved((dir.clone(), new.clone()))?;
        renameat(&**parent, old, &*dir, &new)?;
        if let Some(fid) = self.fids.get_mut(&fid) {
            fid.node = moved;
        }
        Ok(())
    }

    fn unlink(&self, dir: u32, what: &[u8], flags: u32) -> Result<()> {
        self.folder.writable()?;
        let flags = if flags & REMOVE_DIRECTORY != 0 { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        unlinkat(&*self.fid(dir)?.node, name(what)?, flags)
    }

    /// Removes what a fid names, and the fid in any case.
    fn remove(&mut self, fid: u32) -> Result<()> {
        let fid = self.fids.remove(&fid).ok_or(Errno::BADF)?;
        self.folder.writable()?;
        let (parent, name) = fid.node.place()?;
        let flags = if fid.node.kind() == FileType::Directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        unlinkat(&**parent, name, flags)
    }
}

/// The answer to who has opened something: any size of pieces is as good as another.
struct Opened(Qid);

impl Put for Opened {
    fn put(&self, answer: &mut Vec<u8>) {
        self.0.put(answer);
        0u32.put(answer);
    }
}

/// A time to be set: none, now, or the one that is given.
fn time(change: Change, (is_set, is_given): (Change, Change), Time(seconds, nanoseconds): Time) -> Timespec {
    match (change.contains(is_set), change.contains(is_given)) {
        (false, _) => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        (true, false) => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        (true, true) => Timespec { tv_sec: seconds.cast_signed(), tv_nsec: nanoseconds.cast_signed() },
    }
}

/// A file's attributes from the mode on. When it was made, and its generation, are not told.
#[allow(clippy::unnecessary_cast, reason = "hosts differ in how wide these are")]
fn put_stat(stat: &Stat, out: &mut Vec<u8>) {
    stat.st_mode.put(out);
    stat.st_uid.put(out);
    stat.st_gid.put(out);
    let numbers =
        [stat.st_nlink as u64, stat.st_rdev, stat.st_size as u64, stat.st_blksize as u64, stat.st_blocks as u64];
    numbers.iter().for_each(|number| number.put(out));
    let times = [
        Time(stat.st_atime as u64, stat.st_atime_nsec as u64),
        Time(stat.st_mtime as u64, stat.st_mtime_nsec as u64),
        Time(stat.st_ctime as u64, stat.st_ctime_nsec as u64),
    ];
    times.iter().for_each(|time| time.put(out));
    [0u64; 4].iter().for_each(|zero| zero.put(out));
}
