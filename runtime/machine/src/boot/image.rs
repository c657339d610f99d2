//! A file whose contents go into guest RAM.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use super::BootError;

/// The most that one read takes: Linux reads 2 GiB less a page at once.
const CHUNK: u64 = 1 << 30;

/// An open regular file.
pub(super) struct Image {
    /// What it is to the user: "kernel" or "initrd".
    what: &'static str,
    path: PathBuf,
    file: File,
    /// Size in bytes when it was opened.
    pub(super) len: u64,
}

impl Image {
    pub(super) fn open(what: &'static str, path: &Path) -> Result<Self, BootError> {
        let fail = |source| BootError::Open { what, path: path.into(), source };
        // Asked before opening, since opening a pipe would wait for its writer.
        if !std::fs::metadata(path).map_err(fail)?.is_file() {
            return Err(fail(io::Error::other("not a regular file")));
        }
        let file = File::open(path).map_err(fail)?;
        let len = file.metadata().map_err(fail)?.len();
        Ok(Image { what, path: path.into(), file, len })
    }

    /// An error about this file.
    pub(super) fn error(&self, reason: impl Into<String>) -> BootError {
        BootError::Image { what: self.what, path: self.path.clone(), reason: reason.into() }
    }

    pub(super) fn read_error(&self, source: io::Error) -> BootError {
        BootError::Read { what: self.what, path: self.path.clone(), source }
    }

    /// The path as the user gave it.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Up to `len` bytes from `offset`, fewer only at the file's end.
    pub(super) fn bytes(&self, offset: u64, len: u64) -> Result<Vec<u8>, BootError> {
        let mut file = &self.file;
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| file.take(len).read_to_end(&mut bytes))
            .map_err(|error| self.read_error(error))?;
        Ok(bytes)
    }

    /// `len` bytes from `offset`, all of which must be there.
    pub(super) fn exactly(&self, offset: u64, len: u64) -> Result<Vec<u8>, BootError> {
        let bytes = self.bytes(offset, len)?;
        if bytes.len() as u64 != len {
            return Err(self.read_error(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(bytes)
    }

    /// Copies `len` bytes from `offset` to the guest address `to`.
    pub(super) fn copy(&self, mem: &GuestMemoryMmap<()>, offset: u64, len: u64, to: u64) -> Result<(), BootError> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(offset)).map_err(|error| self.read_error(error))?;
        let mut done = 0;
        while done < len {
            let chunk = (len - done).min(CHUNK) as usize;
            match mem.read_volatile_from(GuestAddress(to + done), &mut file, chunk) {
                Ok(0) => return Err(self.read_error(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => done += count as u64,
                Err(GuestMemoryError::IOError(error)) => return Err(self.read_error(error)),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Fills `len` bytes of guest RAM at `start` with zeros.
pub(super) fn zero(mem: &GuestMemoryMmap<()>, start: u64, len: u64) -> Result<(), BootError> {
    let zeros = vec![0; len.min(1 << 16) as usize];
    let mut done = 0;
    while done < len {
        let chunk = (len - done).min(zeros.len() as u64) as usize;
        mem.write_slice(&zeros[..chunk], GuestAddress(start + done))?;
        done += chunk as u64;
    }
    Ok(())
}

/// The little-endian number at `offset`, if the bytes are there.
pub(super) fn le_u16(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// The little-endian number at `offset`, if the bytes are there.
pub(super) fn le_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// The little-endian number at `offset`, if the bytes are there.
pub(super) fn le_u64(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}
