//! `snapshot=on`: what the guest writes goes to a temporary file that has no name.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustc_hash::FxHashMap;

use super::Store;
use super::file::read_padded;
use super::image::Image;

/// Bytes that are copied when one of them is written: what most guests write at once.
const BLOCK: u64 = 4096;

/// An image with a file above it.
#[derive(Debug)]
pub(super) struct Overlay {
    base: Image,
    file: File,
    /// The blocks that are in the file: 64 of them, bit by number, by the number of the first divided by 64. It grows with the
    /// file, since an image may say that it has any size.
    written: FxHashMap<u64, u64>,
}

/// A range cut into parts that begin in one block and end in the same or a later one.
struct Part {
    at: u64,
    count: u64,
    written: bool,
}

impl Overlay {
    pub(super) fn new(base: Image) -> io::Result<Overlay> {
        let file = unnamed_file()?;
        Ok(Overlay { base, file, written: FxHashMap::default() })
    }

    fn is_written(&self, block: u64) -> bool {
        self.written.get(&(block / 64)).is_some_and(|word| word >> (block % 64) & 1 != 0)
    }

    /// The first part of `at..end` whose blocks are all in the file, or all not.
    fn part(&self, at: u64, end: u64) -> Part {
        let written = self.is_written(at / BLOCK);
        let mut to = (at / BLOCK + 1) * BLOCK;
        while to < end && self.is_written(to / BLOCK) == written {
            to += BLOCK;
        }
        Part { at, count: to.min(end) - at, written }
    }

    pub(super) fn read(&mut self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let (mut at, end) = (offset, offset + out.len() as u64);
        while at < end {
            let part = self.part(at, end);
            let from = (at - offset) as usize;
            let out = out.get_mut(from..from + part.count as usize).unwrap_or_default();
            match part.written {
                true => read_padded(&self.file, out, part.at)?,
                false => self.base.read(out, part.at)?,
            }
            at += part.count;
        }
        Ok(())
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let end = offset + bytes.len() as u64;
        if bytes.is_empty() {
            return Ok(());
        }
        // Only the first and the last block can be written in part.
        for block in [offset / BLOCK, (end - 1) / BLOCK] {
            let start = block * BLOCK;
            let whole = offset <= start && start + BLOCK <= end;
            if !whole && !self.is_written(block) {
                let mut copy = vec![0; BLOCK.min(self.base.bytes() - start) as usize];
                self.base.read(&mut copy, start)?;
                self.file.write_all_at(&copy, start)?;
                self.mark(block);
            }
        }
        self.file.write_all_at(bytes, offset)?;
        (offset / BLOCK..=(end - 1) / BLOCK).for_each(|block| self.mark(block));
        Ok(())
    }

    fn mark(&mut self, block: u64) {
        *self.written.entry(block / 64).or_default() |= 1 << (block % 64);
    }
}

/// Where temporary files are that may be large: as QEMU has it, not where they are in memory, unless the user says so.
pub fn temporary_folder() -> PathBuf {
    let place = std::env::temp_dir();
    let large = Path::new("/var/tmp");
    if place == Path::new("/tmp") && large.is_dir() { large.to_owned() } else { place }
}

/// A file without a name there.
fn unnamed_file() -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let place = temporary_folder();
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::open(&place, flags, Mode::RUSR | Mode::WUSR) {
        return Ok(file.into());
    }
    // File systems without such files: one that is removed at once.
    let path = place.join(format!("mimus-snapshot-{}-{:p}", std::process::id(), &place));
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}
