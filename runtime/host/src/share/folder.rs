//! What a security model makes of owners, permissions and kinds of files.
//!
//! The mapped model keeps the guest's in extended attributes, under the names and in the form that QEMU's has, so that either can go on
//! with what the other has left: numbers in little-endian order, of four bytes, and eight for a device's. All that is neither file nor
//! directory is a file on the host; a symbolic link's contents are where it leads.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Uid, XattrFlags, chmodat, chownat, getxattr, makedev, mkdirat,
    mknodat, openat, readlinkat, setxattr, symlinkat, unlinkat,
};
use rustix::io::{Errno, Result};

use super::node::{Budget, Node, OPENING, name};
use super::wire::Qid;
use crate::config::{OtherDevices, SecurityModel, SharedFolder};

/// Extended attributes of the mapped model, which the guest does not see.
pub(super) const MAPPED: &str = "user.virtfs.";
const UID: &str = "user.virtfs.uid";
const GID: &str = "user.virtfs.gid";
const MODE: &str = "user.virtfs.mode";
const RDEV: &str = "user.virtfs.rdev";

/// The bits of a mode that are permissions.
const PERMISSIONS: u32 = 0o7777;
/// The longest that a symbolic link leads, in bytes.
const LONGEST_LINK: usize = 4095;

/// A qid's kinds.
const DIRECTORY: u8 = 0x80;
const LINK: u8 = 0x02;

/// File systems whose files are given numbers of their own.
const MAX_DEVICES: usize = 0xffff;
/// Bits of a file's number that stay where they are when a file system's number is put above them.
const NUMBER_BITS: u32 = 48;

/// Who makes a file, and with which mode.
#[derive(Clone, Copy, Debug)]
pub(super) struct Maker {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
}

/// A shared folder.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) root: Arc<Node>,
    pub(super) budget: Budget,
    pub(super) config: SharedFolder,
    /// Numbers of other file systems, from 1 on.
    devices: HashMap<u64, u64>,
    has_warned: bool,
}

impl Folder {
    pub(super) fn open(config: &SharedFolder, budget: Budget) -> Result<Folder> {
        let root = Node::root(&config.path, &budget)?;
        Ok(Folder { root, budget, config: config.clone(), devices: HashMap::new(), has_warned: false })
    }

    fn is_mapped(&self) -> bool {
        self.config.model == SecurityModel::MappedXattr
    }

    /// # Errors
    ///
    /// EROFS where nothing may be changed.
    pub(super) fn writable(&self) -> Result<()> {
        if self.config.read_only { Err(Errno::ROFS) } else { Ok(()) }
    }

    /// A file's number for the guest.
    pub(super) fn number(&mut self, (device, number): (u64, u64)) -> Result<u64> {
        if device == self.root.identity().0 {
            return Ok(number);
        }
        match self.config.devices {
            OtherDevices::Forbid => Err(Errno::NODEV),
            OtherDevices::Warn => {
                if !std::mem::replace(&mut self.has_warned, true) {
                    let option = &self.config.option;
                    tracing::warn!(
                        "{option}: there are several file systems below it, whose files may have the same numbers: multidevs=remap"
                    );
                }
                Ok(number)
            }
            OtherDevices::Remap => {
                let next = self.devices.len() as u64 + 1;
                if !self.devices.contains_key(&device) && self.devices.len() == MAX_DEVICES {
                    return Err(Errno::NODEV);
                }
                let prefix = *self.devices.entry(device).or_insert(next);
                // Numbers of more bits are rare, and folded.
                Ok(number ^ number >> NUMBER_BITS << NUMBER_BITS ^ number >> NUMBER_BITS ^ prefix << NUMBER_BITS)
            }
        }
    }

    /// What a file is to the guest, by what that is told of it.
    pub(super) fn qid(&mut self, node: &Node, stat: &Stat) -> Result<Qid> {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => DIRECTORY,
            FileType::Symlink => LINK,
            _ => 0,
        };
        let version = stat.st_mtime as u32 ^ (stat.st_mtime_nsec as u32).rotate_left(8) ^ (stat.st_size as u32) << 8;
        Ok(Qid { kind, version, path: self.number(node.identity())? })
    }

    /// What the guest is told of a file.
    pub(super) fn stat(&self, node: &Node) -> Result<Stat> {
        let mut stat = node.stat()?;
        let is_ours = matches!(node.kind(), FileType::RegularFile | FileType::Directory);
        if self.is_mapped() && is_ours {
            let path = node.path();
            stat.st_uid = mapped(&path, UID).map_or(stat.st_uid, u32::from_le_bytes);
            stat.st_gid = mapped(&path, GID).map_or(stat.st_gid, u32::from_le_bytes);
            stat.st_mode = mapped(&path, MODE).map_or(stat.st_mode, |mode| told(node.kind(), u32::from_le_bytes(mode)));
            stat.st_rdev = mapped(&path, RDEV).map_or(stat.st_rdev, u64::from_le_bytes);
        }
        Ok(stat)
    }

    /// A qid's kind and a directory entry's type, of what the host says is of this type. What stands for something else says nothing.
    pub(super) fn entry(&self, kind: FileType) -> (u8, u8) {
        match kind {
            FileType::Directory => (DIRECTORY, 4),
            _ if self.is_mapped() => (0, 0),
            FileType::Symlink => (LINK, 10),
            FileType::Fifo => (0, 1),
            FileType::CharacterDevice => (0, 2),
            FileType::BlockDevice => (0, 6),
            FileType::RegularFile => (0, 8),
            FileType::Socket => (0, 12),
            FileType::Unknown => (0, 0),
        }
    }

    /// Changes the permissions.
    pub(super) fn set_mode(&self, node: &Node, mode: u32) -> Result<()> {
        if self.is_mapped() {
            let kind = self.stat(node)?.st_mode & !PERMISSIONS;
            return keep(&node.path(), MODE, &(kind | mode & PERMISSIONS).to_le_bytes());
        }
        if node.kind() == FileType::Symlink {
            return Err(Errno::OPNOTSUPP);
        }
        chmodat(CWD, node.path(), Mode::from_raw_mode(mode & PERMISSIONS), AtFlags::empty())
    }

    /// Changes the owners that are given.
    pub(super) fn set_owner(&self, node: &Node, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        if self.is_mapped() {
            let path = node.path();
            uid.map_or(Ok(()), |uid| keep(&path, UID, &uid.to_le_bytes()))?;
            return gid.map_or(Ok(()), |gid| keep(&path, GID, &gid.to_le_bytes()));
        }
        // All ones would be nobody, and leaves the owner as it is.
        let given = |id: Option<u32>| id.filter(|id| *id != u32::MAX);
        let (uid, gid) = (given(uid).map(Uid::from_raw), given(gid).map(Gid::from_raw));
        chownat(node, c"", uid, gid, AtFlags::EMPTY_PATH)
    }

    /// Gives a new file to its maker. One that cannot be given is not left behind.
    fn settle(&self, node: &Arc<Node>, maker: Maker, device: u64) -> Result<()> {
        let done = self.hand_over(node, maker, device);
        if done.is_err()
            && let Ok((parent, name)) = node.place()
        {
            let flags = if node.kind() == FileType::Directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            // Whoever made it is told what went wrong first.
            let _ = unlinkat(parent, name, flags);
        }
        done
    }

    fn hand_over(&self, node: &Node, Maker { uid, gid, mode }: Maker, device: u64) -> Result<()> {
        if self.is_mapped() {
            let path = node.path();
            if device != 0 {
                keep(&path, RDEV, &device.to_le_bytes())?;
            }
            keep(&path, MODE, &mode.to_le_bytes())?;
        }
        let owned = self.set_owner(node, Some(uid), Some(gid));
        // Without a model whoever runs this process has the file where it may not be given away.
        if self.config.model != SecurityModel::None {
            owned?;
        }
        if self.is_mapped() || node.kind() == FileType::Symlink { Ok(()) } else { self.set_mode(node, mode) }
    }

    /// The permissions of something new before it is its maker's.
    fn first_mode(&self, mode: u32, mapped: u32) -> Mode {
        Mode::from_raw_mode(if self.is_mapped() { mapped } else { mode & 0o700 })
    }

    /// Makes a file that is not there yet, and opens it.
    pub(super) fn create(
        &self,
        dir: &Arc<Node>,
        called: &[u8],
        flags: OFlags,
        maker: Maker,
    ) -> Result<(Arc<Node>, OwnedFd)> {
        let called = name(called)?;
        let flags = flags | OPENING | OFlags::NOFOLLOW | OFlags::CREATE | OFlags::EXCL;
        let file = openat(dir, &called, flags, self.first_mode(maker.mode, self.config.file_mode))?;
        let node = dir.adopt(&file, called)?;
        let mode = FileType::RegularFile.as_raw_mode() | maker.mode & PERMISSIONS;
        self.settle(&node, Maker { mode, ..maker }, 0)?;
        Ok((node, file))
    }

    pub(super) fn make_directory(&self, dir: &Arc<Node>, called: &[u8], maker: Maker) -> Result<Arc<Node>> {
        let called = name(called)?;
        mkdirat(dir, &called, self.first_mode(maker.mode, self.config.directory_mode))?;
        let mode = FileType::Directory.as_raw_mode() | maker.mode & PERMISSIONS;
        self.made(dir, called, Maker { mode, ..maker })
    }

    /// What was just made without being opened.
    fn made(&self, dir: &Arc<Node>, called: CString, maker: Maker) -> Result<Arc<Node>> {
        let node = dir.child(called)?;
        // Somebody on the host may have put something else there.
        if node.kind() != FileType::from_raw_mode(maker.mode) {
            return Err(Errno::NOENT);
        }
        self.settle(&node, maker, 0)?;
        Ok(node)
    }

    /// Makes a pipe, a socket, a device or an empty file.
    pub(super) fn make_node(
        &self,
        dir: &Arc<Node>,
        called: &[u8],
        maker: Maker,
        (major, minor): (u32, u32),
    ) -> Result<Arc<Node>> {
        let kind = match FileType::from_raw_mode(maker.mode) {
            FileType::Unknown => FileType::RegularFile,
            kind => kind,
        };
        if matches!(kind, FileType::Directory | FileType::Symlink) {
            return Err(Errno::INVAL);
        }
        let is_device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
        let called = name(called)?;
        let maker = Maker { mode: kind.as_raw_mode() | maker.mode & PERMISSIONS, ..maker };
        if self.is_mapped() {
            let node = self.stand_in(dir, called, b"")?;
            self.settle(&node, maker, if is_device { makedev(major, minor) } else { 0 })?;
            return Ok(node);
        }
        // No guest makes a device of the host's.
        if is_device {
            return Err(Errno::PERM);
        }
        mknodat(dir, &called, kind, self.first_mode(maker.mode, 0), 0)?;
        self.made(dir, called, maker)
    }

    pub(super) fn make_link(&self, dir: &Arc<Node>, called: &[u8], target: &[u8], maker: Maker) -> Result<Arc<Node>> {
        let called = name(called)?;
        let maker = Maker { mode: FileType::Symlink.as_raw_mode() | 0o777, ..maker };
        if target.is_empty() || target.len() > LONGEST_LINK {
            return Err(if target.is_empty() { Errno::NOENT } else { Errno::NAMETOOLONG });
        }
        if self.is_mapped() {
            let node = self.stand_in(dir, called, target)?;
            self.settle(&node, maker, 0)?;
            return Ok(node);
        }
        symlinkat(target, dir, &called)?;
        self.made(dir, called, maker)
    }

    /// A file of the mapped model that stands for something else.
    fn stand_in(&self, dir: &Arc<Node>, called: CString, contents: &[u8]) -> Result<Arc<Node>> {
        let flags = OPENING | OFlags::NOFOLLOW | OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
        let file = openat(dir, &called, flags, Mode::from_raw_mode(self.config.file_mode))?;
        let written = rustix::io::write(&file, contents);
        if !contents.is_empty() && written != Ok(contents.len()) {
            // What could not be written is told.
            let _ = unlinkat(dir, &called, AtFlags::empty());
            return Err(written.err().unwrap_or(Errno::NOSPC));
        }
        dir.adopt(&file, called)
    }

    /// Where a symbolic link leads.
    pub(super) fn target(&self, node: &Node) -> Result<Vec<u8>> {
        if node.kind() == FileType::Symlink {
            return Ok(readlinkat(node, c"", Vec::new())?.into_bytes());
        }
        if FileType::from_raw_mode(self.stat(node)?.st_mode) != FileType::Symlink {
            return Err(Errno::INVAL);
        }
        let file = node.open(OFlags::RDONLY)?;
        let mut target = vec![0; LONGEST_LINK];
        let len = rustix::io::pread(&file, &mut target[..], 0)?;
        target.truncate(len);
        Ok(target)
    }
}

/// The mode that the guest is told of a file of this kind that has `mode` kept.
fn told(kind: FileType, mode: u32) -> u32 {
    let kept = FileType::from_raw_mode(mode);
    let is_one = kept != FileType::Unknown && kept != FileType::Directory;
    let kind = if kind == FileType::RegularFile && is_one { kept } else { kind };
    kind.as_raw_mode() | mode & PERMISSIONS
}

/// A number that is kept beside a file, if there is one.
fn mapped<const N: usize>(path: &str, attribute: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    (getxattr(path, attribute, &mut bytes) == Ok(N)).then_some(bytes)
}

fn keep(path: &str, attribute: &str, bytes: &[u8]) -> Result<()> {
    setxattr(path, attribute, bytes, XattrFlags::empty())
}
