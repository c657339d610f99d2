//! Where loaders put what they load: into RAM at once, or into pieces that an option ROM copies there.

use std::cell::RefCell;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::BootError;
use super::image::{self, Image};

/// Guest-physical memory that is written before the kernel starts.
pub(super) trait Memory {
    /// Writes `bytes` at `at`.
    fn write(&self, bytes: &[u8], at: u64) -> Result<(), BootError>;

    /// Copies `len` bytes of a file from `offset` to `at`.
    fn copy(&self, image: &Image, offset: u64, len: u64, at: u64) -> Result<(), BootError>;

    /// Fills `len` bytes at `at` with zeros.
    fn zero(&self, at: u64, len: u64) -> Result<(), BootError>;
}

impl Memory for GuestMemoryMmap<()> {
    fn write(&self, bytes: &[u8], at: u64) -> Result<(), BootError> {
        Ok(self.write_slice(bytes, GuestAddress(at))?)
    }

    fn copy(&self, image: &Image, offset: u64, len: u64, at: u64) -> Result<(), BootError> {
        image.copy(self, offset, len, at)
    }

    fn zero(&self, at: u64, len: u64) -> Result<(), BootError> {
        image::zero(self, at, len)
    }
}

/// What is to be at an address.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Guest-physical address.
    pub(super) address: u64,
    /// Bytes, zeros behind `bytes` included.
    pub(super) len: u64,
    /// The first of them.
    pub(super) bytes: Vec<u8>,
}

/// Pieces in the order in which they were written.
#[derive(Debug, Default)]
pub(super) struct Pieces(RefCell<Vec<Piece>>);

impl Pieces {
    /// What was written.
    pub(super) fn into_inner(self) -> Vec<Piece> {
        self.0.into_inner()
    }

    fn add(&self, address: u64, len: u64, bytes: Vec<u8>) -> Result<(), BootError> {
        if len != 0 {
            self.0.borrow_mut().push(Piece { address, len, bytes });
        }
        Ok(())
    }
}

impl Memory for Pieces {
    fn write(&self, bytes: &[u8], at: u64) -> Result<(), BootError> {
        self.add(at, bytes.len() as u64, bytes.to_vec())
    }

    fn copy(&self, image: &Image, offset: u64, len: u64, at: u64) -> Result<(), BootError> {
        self.add(at, len, image.exactly(offset, len)?)
    }

    fn zero(&self, at: u64, len: u64) -> Result<(), BootError> {
        self.add(at, len, Vec::new())
    }
}
