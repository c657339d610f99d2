//! Files of images: how they are opened, and which of those that an image names may be.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, fcntl_getfl, fcntl_setfl, flock};
use rustix::io::Errno;

/// An error whose words follow an image's name.
pub(super) fn wrong(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// Opens a file and, with `locking`, locks it: against everybody if it may be written, and otherwise against those who write.
///
/// # Errors
///
/// Whatever the host says; [`io::ErrorKind::WouldBlock`] for a file in use; what is neither a regular file nor a block device.
pub(super) fn open_file(path: &Path, read_only: bool, locking: bool) -> io::Result<File> {
    // Opening a pipe would wait for somebody at its other end.
    let flags = OFlags::NONBLOCK.bits() as i32;
    let file = OpenOptions::new().read(true).write(!read_only).custom_flags(flags).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(Errno::ISDIR.into());
    }
    if !kind.is_file() && !kind.is_block_device() {
        return Err(wrong("neither a regular file nor a block device"));
    }
    let lock = match read_only {
        true => FlockOperation::NonBlockingLockShared,
        false => FlockOperation::NonBlockingLockExclusive,
    };
    // Errors but one are those of file systems that have no locks.
    if locking && (flock(&file, lock) == Err(Errno::WOULDBLOCK) || !lock_bytes(&file, read_only)) {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let access = if read_only { "reading" } else { "reading and writing" };
    tracing::info!(target: "block", "opened '{}' for {access}", path.display());
    Ok(file)
}

/// What a user of an image does, or keeps others from doing, bit by bit, as QEMU's block layer has it ("Permissions" in
/// include/block/block-common.h): reading, writing, resizing.
const READS: u8 = 1 << 0;
const WRITES: u8 = 1 << 1;
const RESIZES: u8 = 1 << 3;
/// The bytes of a file that QEMU locks: from here on one for each thing that somebody does, and one for each that nobody else may.
const DONE: i64 = 100;
const FORBIDDEN: i64 = 200;

/// Locks a file against QEMU and its tools, as they do against each other; false if one of them uses it. Where such locks cannot
/// be had, as without the right to write, nobody is kept away.
fn lock_bytes(file: &File, read_only: bool) -> bool {
    let does = if read_only { READS } else { READS | WRITES | RESIZES };
    let forbids = WRITES | RESIZES;
    let bytes = |bits: u8, from: i64| (0..8).filter(move |bit| bits >> bit & 1 != 0).map(move |bit| from + bit);
    let own = bytes(does, DONE).chain(bytes(forbids, FORBIDDEN));
    let others = bytes(does, FORBIDDEN).chain(bytes(forbids, DONE));
    for at in own {
        byte_lock(file, libc::F_OFD_SETLK, libc::F_RDLCK, at, 1);
    }
    others.into_iter().all(|at| byte_lock(file, libc::F_OFD_GETLK, libc::F_WRLCK, at, 1) != Some(libc::F_RDLCK))
}

/// Gives up all locks on a file. Closing it is not enough: locks are those of its opening, which a process that is made meanwhile has too,
/// until it runs a program of its own.
pub(super) fn unlock(file: &File) {
    let _ = flock(file, FlockOperation::Unlock);
    byte_lock(file, libc::F_OFD_SETLK, libc::F_UNLCK, 0, 0);
}

/// Asks for a lock of `len` bytes, with 0 of all from there on; the kind of lock that the host answers with, unless it has none.
fn byte_lock(file: &File, command: libc::c_int, kind: libc::c_int, at: i64, len: i64) -> Option<libc::c_int> {
    let mut lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: at,
        l_len: len,
        // Must be 0 for locks of a file's opening.
        l_pid: 0,
    };
    // SAFETY: both commands take a pointer to such a struct, which they read and write while the call lasts.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), command, &mut lock) };
    (result == 0).then_some(lock.l_type.into())
}

/// Has a file go past the host's cache.
pub(super) fn make_direct(file: &File) -> io::Result<()> {
    Ok(fcntl_setfl(file, fcntl_getfl(file)? | OFlags::DIRECT)?)
}

/// Bytes of a file or block device.
pub(super) fn length(mut file: &File) -> io::Result<u64> {
    file.seek(SeekFrom::End(0))
}

/// What tells a file from all others.
pub(super) fn identity(file: &File) -> io::Result<(u64, u64)> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

/// The file that the image at `image` calls `name`, as its `what` (such as "backing file"). An image may have been made by
/// anybody, so this must be one of its own folder, wherever symbolic links lead to. It may be called by its absolute name only if
/// `absolute`.
///
/// # Errors
///
/// Any other name, with the option that allows it all the same, if there is one.
pub(super) fn named_inside(
    image: &Path,
    name: &str,
    absolute: bool,
    what: &str,
    allowed_by: Option<&str>,
) -> io::Result<PathBuf> {
    let otherwise =
        allowed_by.map(|option| format!("; {option}=FILE names one on the command line")).unwrap_or_default();
    let refused = |why: &str| {
        wrong(format!(
            "its {what} '{}' {why}: a name from inside an image must be that of a file beside it{otherwise}",
            name.escape_debug()
        ))
    };
    let relative = Path::new(name.strip_prefix("file:").unwrap_or(name));
    let whole = std::fs::canonicalize(image)?;
    let folder = whole.parent().unwrap_or(Path::new("/"));
    // As it is, and as it was called.
    let called = std::path::absolute(image)?;
    let own = [Some(folder), called.parent()].into_iter().flatten().filter(|_| absolute);
    let within = own.into_iter().find_map(|own| relative.strip_prefix(own).ok());
    let relative = within.unwrap_or(relative);
    let plain = relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !plain || relative.as_os_str().is_empty() {
        return Err(refused("is not in the image's own folder"));
    }
    // As block drivers have them: nbd://..., json:{...}.
    if relative.to_str().is_some_and(|name| name.split('/').next().is_some_and(|first| first.contains(':'))) {
        return Err(refused("is not a file's name"));
    }
    // Beside a device are all others.
    if !std::fs::metadata(&whole)?.is_file() {
        return Err(refused("is a name beside a device"));
    }
    let target = std::fs::canonicalize(folder.join(relative))
        .map_err(|error| io::Error::new(error.kind(), format!("its {what} '{}': {error}", name.escape_debug())))?;
    if !target.starts_with(folder) {
        return Err(refused("leads out of the image's own folder"));
    }
    Ok(target)
}

/// Reads all of `out`; what is beyond the end of the file is 0.
pub(super) fn read_padded(file: &File, out: &mut [u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while let Some(room) = out.get_mut(done..).filter(|room| !room.is_empty()) {
        match file.read_at(room, offset.saturating_add(done as u64)) {
            Ok(0) => {
                room.fill(0);
                break;
            }
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The big-endian numbers in `bytes`.
pub(super) fn numbers(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.as_chunks().0.iter().map(|bytes| u64::from_be_bytes(*bytes))
}
