//! The file of an image with metadata, and the order in which a killed process leaves it.
//!
//! imago writes a qcow2 image's tables in an order that holds when it is killed, but for two: the entry of a table of the first
//! level (L1, or refcount table) is written at once, while the refcount of the cluster that it refers to may still be in
//! memory only. So what is to be written there is looked at first, and a refcount that is still 0 in the file becomes 1. That is
//! what imago is about to write itself; if it never comes to that, a cluster is lost, and nothing is damaged.
//!
//! Names are those of "qcow2 format" (docs/interop/qcow2.txt of QEMU).

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use imago::io_buffers::{IoVector, IoVectorMut};
use imago::storage::drivers::CommonStorageHelper;
use imago::storage::{PreallocateMode, StorageCreateOptions};
use imago::{Storage, StorageOpenOptions};

use super::image::open_file;

/// Bytes of the header that are of interest.
const HEADER: usize = 104;
/// A header begins with it.
pub(super) const QCOW2_MAGIC: &[u8] = b"QFI\xfb";
/// The bits of an entry of L1 or refcount table that are an offset.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// Where an image's tables are, from its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    cluster_bits: u32,
    /// Base-2 logarithm of the bits of a refcount.
    refcount_order: u32,
    /// Offset and bytes of the L1 table.
    l1: (u64, u64),
    /// Offset and bytes of the refcount table.
    refcounts: (u64, u64),
}

impl Layout {
    /// Reads the header; `None` if `file` is no qcow2 image whose tables can be told.
    fn read(file: &fs::File) -> Option<Layout> {
        let mut header = [0; HEADER];
        let mut len = 0;
        while let Some(room) = header.get_mut(len..).filter(|room| !room.is_empty()) {
            match file.read_at(room, len as u64).ok()? {
                0 => break,
                count => len += count,
            }
        }
        let u32_at = |at: usize| header.get(at..)?.first_chunk().copied().map(u32::from_be_bytes);
        let u64_at = |at: usize| header.get(at..)?.first_chunk().copied().map(u64::from_be_bytes);
        let cluster_bits = u32_at(20)?;
        if !header.starts_with(QCOW2_MAGIC) || !(9..=30).contains(&cluster_bits) {
            return None;
        }
        let version = u32_at(4)?;
        let refcount_order = if version < 3 { 4 } else { u32_at(96)? };
        Some(Layout {
            cluster_bits,
            refcount_order: refcount_order.min(6),
            l1: (u64_at(40)?, u64::from(u32_at(36)?) * 8),
            refcounts: (u64_at(48)?, u64::from(u32_at(56)?) << cluster_bits),
        })
    }

    /// Bytes of the disk that one L2 table maps.
    pub(super) fn l2_range(&self) -> u64 {
        1 << (2 * self.cluster_bits - 3)
    }

    /// Makes the refcount of the cluster at `offset` at least 1, if there is a refcount block for it.
    fn hold(&self, file: &fs::File, offset: u64) -> io::Result<()> {
        // Counts in a block: as many as its bits hold.
        let block_bits = self.cluster_bits + 3 - self.refcount_order;
        let cluster = offset >> self.cluster_bits;
        let (table, bytes) = self.refcounts;
        let at = (cluster >> block_bits) * 8;
        if at >= bytes {
            return Ok(());
        }
        let mut entry = [0; 8];
        read_all(file, &mut entry, table + at)?;
        let block = u64::from_be_bytes(entry) & OFFSET;
        if block == 0 {
            // The block that is being linked holds its own count.
            return Ok(());
        }
        let bit = (cluster & ((1 << block_bits) - 1)) << self.refcount_order;
        let width = 1usize << self.refcount_order;
        let (at, mut count) = (block + bit / 8, [0; 8]);
        let count = count.get_mut(..width.div_ceil(8)).unwrap_or_default();
        read_all(file, count, at)?;
        // Counts narrower than a byte begin with its lowest bits; wider ones are big-endian.
        let shift = bit % 8;
        let mask = if width < 8 { ((1u16 << width) - 1) as u8 } else { 0xff };
        let held = match count {
            [byte] => *byte >> shift & mask != 0,
            ref bytes => bytes.iter().any(|byte| *byte != 0),
        };
        if held {
            return Ok(());
        }
        if let Some(byte) = count.last_mut() {
            *byte |= 1 << shift;
        }
        #[cfg(test)]
        tests::record(at, count);
        file.write_all_at(count, at)
    }
}

/// Reads all of `out`; what is beyond the end is 0.
fn read_all(file: &fs::File, out: &mut [u8], at: u64) -> io::Result<()> {
    out.fill(0);
    match file.read_exact_at(out, at) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        result => result,
    }
}

/// An image's file.
#[derive(Debug)]
pub(super) struct Guarded {
    inner: imago::file::File,
    /// The same file.
    file: fs::File,
    /// Where the tables are, if it is a qcow2 image that may be written.
    layout: Mutex<Option<Layout>>,
}

impl Guarded {
    /// `file`, which was opened as `options` say.
    pub(super) fn new(file: fs::File, options: StorageOpenOptions) -> io::Result<Guarded> {
        let same = file.try_clone()?;
        let layout = if options.get_writable() { Layout::read(&same) } else { None };
        let inner = imago::file::File::from_open_file(file, options)?;
        Ok(Guarded { inner, file: same, layout: Mutex::new(layout) })
    }

    /// Where the tables are, if it is a qcow2 image that may be written.
    pub(super) fn layout(&self) -> Option<Layout> {
        *self.layout.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to the refcounts of what `bufv`, which is to be written at `offset`, refers to.
    fn before_write(&self, bufv: &IoVector<'_>, offset: u64) -> io::Result<()> {
        let Some(layout) = self.layout() else { return Ok(()) };
        let end = offset.saturating_add(bufv.len());
        let touches = |(table, bytes): (u64, u64)| offset < table.saturating_add(bytes) && table < end;
        if !touches(layout.l1) && !touches(layout.refcounts) {
            return Ok(());
        }
        let mut bytes = vec![0; bufv.len() as usize];
        bufv.copy_into_slice(&mut bytes);
        for (table, size) in [layout.l1, layout.refcounts] {
            let (from, to) = (offset.max(table), end.min(table.saturating_add(size)));
            let entries = bytes.get(from.saturating_sub(offset) as usize..to.saturating_sub(offset) as usize);
            for entry in entries.unwrap_or_default().as_chunks().0 {
                let target = u64::from_be_bytes(*entry) & OFFSET;
                if target != 0 {
                    layout.hold(&self.file, target)?;
                }
            }
        }
        Ok(())
    }

    /// Looks at the header again if that was written.
    fn after_write(&self, offset: u64) {
        let mut layout = self.layout.lock().unwrap_or_else(PoisonError::into_inner);
        if offset < HEADER as u64 && layout.is_some() {
            *layout = Layout::read(&self.file);
        }
    }
}

impl Storage for Guarded {
    fn open(options: StorageOpenOptions) -> io::Result<Guarded> {
        let path = options.get_filename().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let file = open_file(path, !options.get_writable(), options.get_direct())?;
        Guarded::new(file, options)
    }

    fn create_open(_options: StorageCreateOptions) -> io::Result<Guarded> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn mem_align(&self) -> usize {
        self.inner.mem_align()
    }

    fn req_align(&self) -> usize {
        self.inner.req_align()
    }

    fn zero_align(&self) -> usize {
        self.inner.zero_align()
    }

    fn discard_align(&self) -> usize {
        self.inner.discard_align()
    }

    fn size(&self) -> io::Result<u64> {
        self.inner.size()
    }

    fn resolve_relative_path<P: AsRef<Path>>(&self, relative: P) -> io::Result<PathBuf> {
        self.inner.resolve_relative_path(relative)
    }

    fn get_filename(&self) -> Option<PathBuf> {
        self.inner.get_filename()
    }

    unsafe fn pure_readv(&self, bufv: IoVectorMut<'_>, offset: u64) -> io::Result<()> {
        // SAFETY: the caller keeps this method's own rules, which are those of `inner`'s.
        unsafe { self.inner.pure_readv(bufv, offset) }
    }

    unsafe fn pure_writev(&self, bufv: IoVector<'_>, offset: u64) -> io::Result<()> {
        self.before_write(&bufv, offset)?;
        #[cfg(test)]
        tests::record_vector(offset, &bufv);
        // SAFETY: as for `pure_readv`.
        unsafe { self.inner.pure_writev(bufv, offset) }?;
        self.after_write(offset);
        Ok(())
    }

    unsafe fn pure_write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        #[cfg(test)]
        tests::record(offset, &vec![0; length as usize]);
        // SAFETY: as for `pure_readv`.
        unsafe { self.inner.pure_write_zeroes(offset, length) }
    }

    unsafe fn pure_write_allocated_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        #[cfg(test)]
        tests::record(offset, &vec![0; length as usize]);
        // SAFETY: as for `pure_readv`.
        unsafe { self.inner.pure_write_allocated_zeroes(offset, length) }
    }

    unsafe fn pure_discard(&self, offset: u64, length: u64) -> io::Result<()> {
        // SAFETY: as for `pure_readv`.
        unsafe { self.inner.pure_discard(offset, length) }
    }

    fn flush(&self) -> io::Result<()> {
        self.inner.flush()
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn settle_writes(&self) -> io::Result<()> {
        self.inner.settle_writes()
    }

    unsafe fn invalidate_cache(&self) -> io::Result<()> {
        // SAFETY: as for `pure_readv`.
        unsafe { self.inner.invalidate_cache() }
    }

    fn get_storage_helper(&self) -> &CommonStorageHelper {
        self.inner.get_storage_helper()
    }

    fn resize(&self, new_size: u64, mode: PreallocateMode) -> io::Result<()> {
        self.inner.resize(new_size, mode)
    }
}

impl Display for Guarded {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[cfg(test)]
mod tests;
