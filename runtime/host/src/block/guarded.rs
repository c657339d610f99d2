//! The file of an image with metadata, and the order in which a killed process leaves it.
//!
//! imago writes a qcow2 image's tables in an order that holds when it is killed, but for two: the entry of a table of the first
//! level (L1, or refcount table) is written at once, while the refcount of the cluster that it refers to may still be in
//! memory only. So what is to be written there is looked at first, and a refcount that is still 0 in the file becomes 1. That is
//! what imago is about to write itself; if it never comes to that, a cluster is lost, and nothing is damaged.
//!
//! Names are those of "qcow2 format" (docs/interop/qcow2.txt of QEMU).

//!
//! It is written by two ways: imago's own metadata by one, the guest's data by the other. What goes by the second never reaches
//! metadata, and by the first only as [`Tables`] says, so that an image that is damaged, or was made to look so, cannot
//! have the guest write its header.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use imago::io_buffers::{IoVector, IoVectorMut};
use imago::storage::drivers::CommonStorageHelper;
use imago::storage::{PreallocateMode, StorageCreateOptions};
use imago::{Storage, StorageOpenOptions};

use super::file::unlock;
use super::layout::{Changes, Tables};

/// What is written by a way to the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// The format's own.
    Metadata,
    /// The guest's.
    Data,
}

/// An image's file, as all ways to it share it.
#[derive(Debug)]
struct Shared {
    inner: imago::file::File,
    /// The same file.
    file: fs::File,
    /// What is where, if it is a qcow2 image that may be written.
    tables: Mutex<Option<Tables>>,
    /// Somebody was told that a write was refused.
    told: AtomicBool,
}

/// A way to an image's file.
#[derive(Debug)]
pub(super) struct Guarded {
    shared: Arc<Shared>,
    role: Role,
}

impl Drop for Shared {
    fn drop(&mut self) {
        unlock(&self.file);
    }
}

impl Shared {
    /// Nothing is behind the lock that a panic could have spoilt.
    fn tables(&self) -> MutexGuard<'_, Option<Tables>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self, what: &str) -> io::Error {
        if !self.told.swap(true, Ordering::Relaxed) {
            let name = self.inner.get_filename().unwrap_or_default();
            tracing::error!("'{}' is damaged: a write to {what} was refused", name.display());
        }
        io::ErrorKind::InvalidData.into()
    }

    /// Whether `len` of the guest's bytes may be written at `offset`.
    fn before_data(&self, offset: u64, len: u64) -> io::Result<()> {
        match &*self.tables() {
            Some(tables) => tables.allow_data(offset, len, self.inner.size()?).map_err(|what| self.refuse(what)),
            None => Ok(()),
        }
    }

    /// Whether `bufv` may be written to metadata at `offset`. Sees to the refcounts of what it refers to.
    fn before_metadata(&self, bufv: &IoVector<'_>, offset: u64) -> io::Result<Changes> {
        let tables = self.tables();
        let Some(tables) = &*tables else { return Ok(Changes::new()) };
        let mut bytes = vec![0; bufv.len() as usize];
        bufv.copy_into_slice(&mut bytes);
        let changes = tables.allow_metadata(&self.file, &bytes, offset)?.map_err(|what| self.refuse(what))?;
        for (_, target) in &changes {
            tables.layout().hold(&self.file, *target, |_at, _count| {
                #[cfg(test)]
                tests::record(_at, _count);
            })?;
        }
        Ok(changes)
    }
}

impl Guarded {
    /// The storage of `file`, which was opened as `options` say, for a format's metadata, or for all data of one without any.
    pub(super) fn new(file: fs::File, options: StorageOpenOptions) -> io::Result<Guarded> {
        let same = file.try_clone()?;
        let inner = imago::file::File::from_open_file(file, options)?;
        let shared = Shared { inner, file: same, tables: Mutex::new(None), told: AtomicBool::new(false) };
        Ok(Guarded { shared: Arc::new(shared), role: Role::Metadata })
    }

    /// The storage through which imago reads and writes the guest's data.
    pub(super) fn for_data(&self) -> Guarded {
        Guarded { shared: self.shared.clone(), role: Role::Data }
    }

    /// Another handle of this storage.
    pub(super) fn again(&self) -> Guarded {
        Guarded { shared: self.shared.clone(), role: self.role }
    }

    /// From here on writes are looked at: `tables` is what the file has.
    pub(super) fn arm(&self, tables: Tables) {
        *self.shared.tables() = Some(tables);
    }
}

impl Storage for Guarded {
    fn open(options: StorageOpenOptions) -> io::Result<Guarded> {
        // All files are opened before imago is asked.
        drop(options);
        Err(io::ErrorKind::Unsupported.into())
    }

    fn create_open(_options: StorageCreateOptions) -> io::Result<Guarded> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn mem_align(&self) -> usize {
        self.shared.inner.mem_align()
    }

    fn req_align(&self) -> usize {
        self.shared.inner.req_align()
    }

    fn zero_align(&self) -> usize {
        self.shared.inner.zero_align()
    }

    fn discard_align(&self) -> usize {
        self.shared.inner.discard_align()
    }

    fn size(&self) -> io::Result<u64> {
        self.shared.inner.size()
    }

    fn resolve_relative_path<P: AsRef<Path>>(&self, relative: P) -> io::Result<PathBuf> {
        self.shared.inner.resolve_relative_path(relative)
    }

    fn get_filename(&self) -> Option<PathBuf> {
        self.shared.inner.get_filename()
    }

    unsafe fn pure_readv(&self, bufv: IoVectorMut<'_>, offset: u64) -> io::Result<()> {
        // SAFETY: the caller keeps this method's own rules, which are those of `inner`'s.
        unsafe { self.shared.inner.pure_readv(bufv, offset) }
    }

    unsafe fn pure_writev(&self, bufv: IoVector<'_>, offset: u64) -> io::Result<()> {
        let shared = &self.shared;
        let changes = match self.role {
            Role::Data => shared.before_data(offset, bufv.len()).map(|()| Changes::new())?,
            Role::Metadata => shared.before_metadata(&bufv, offset)?,
        };
        #[cfg(test)]
        tests::record_vector(offset, &bufv);
        // SAFETY: as for `pure_readv`.
        unsafe { shared.inner.pure_writev(bufv, offset) }?;
        if self.role == Role::Metadata
            && let Some(tables) = &mut *shared.tables()
        {
            tables.written(&shared.file, offset, &changes);
        }
        Ok(())
    }

    unsafe fn pure_write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        self.shared.before_data(offset, length)?;
        #[cfg(test)]
        tests::record(offset, &vec![0; length as usize]);
        // SAFETY: as for `pure_readv`.
        unsafe { self.shared.inner.pure_write_zeroes(offset, length) }
    }

    unsafe fn pure_write_allocated_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        self.shared.before_data(offset, length)?;
        #[cfg(test)]
        tests::record(offset, &vec![0; length as usize]);
        // SAFETY: as for `pure_readv`.
        unsafe { self.shared.inner.pure_write_allocated_zeroes(offset, length) }
    }

    unsafe fn pure_discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.shared.before_data(offset, length)?;
        // SAFETY: as for `pure_readv`.
        unsafe { self.shared.inner.pure_discard(offset, length) }
    }

    fn flush(&self) -> io::Result<()> {
        self.shared.inner.flush()
    }

    fn sync(&self) -> io::Result<()> {
        self.shared.file.sync_data()
    }

    fn settle_writes(&self) -> io::Result<()> {
        self.shared.inner.settle_writes()
    }

    unsafe fn invalidate_cache(&self) -> io::Result<()> {
        // SAFETY: as for `pure_readv`.
        unsafe { self.shared.inner.invalidate_cache() }
    }

    fn get_storage_helper(&self) -> &CommonStorageHelper {
        self.shared.inner.get_storage_helper()
    }

    fn resize(&self, new_size: u64, mode: PreallocateMode) -> io::Result<()> {
        self.shared.inner.resize(new_size, mode)
    }
}

impl Display for Guarded {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.shared.inner.fmt(f)
    }
}

#[cfg(test)]
mod tests;
