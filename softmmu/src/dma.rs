//! Guest RAM as devices access it: what they write passes the code watches.

use std::iter::FusedIterator;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use vm_memory::bitmap::{Bitmap, BitmapSlice, WithBitmapSlice};
use vm_memory::guest_memory::GuestMemorySliceIterator;
use vm_memory::{GuestAddress, GuestMemory, GuestMemoryError, GuestMemoryMmap, Permissions, VolatileSlice};

use crate::ram::{CodeSink, Ram};
use crate::tlb::PAGE_SIZE;

/// Guest RAM for devices, by guest-physical address. It is a [`GuestMemory`], so that all of vm-memory's accesses and
/// what is built on them work; each write is told to the [`CodeSink`] if it hits translated code.
#[derive(Clone)]
pub struct Dma {
    ram: Arc<Ram>,
    sink: Arc<dyn CodeSink>,
}

impl Dma {
    /// Access to `ram`. `sink` must also make a vCPU that runs leave for its dispatcher: the device is not on its thread.
    pub fn new(ram: Arc<Ram>, sink: Arc<dyn CodeSink>) -> Dma {
        Dma { ram, sink }
    }

    /// Host address of `count` bytes at `addr`, if all of them are RAM that may be accessed so.
    fn host(&self, addr: GuestAddress, count: usize, access: Permissions) -> Option<*mut u8> {
        let read = self.ram.readable(addr.0, count as u64);
        let write = || self.ram.writable(addr.0, count as u64);
        match access {
            Permissions::No | Permissions::Read => read,
            Permissions::Write => write(),
            // Both in one piece only.
            Permissions::ReadWrite => write().filter(|&write| read == Some(write)),
        }
    }

    /// `len` bytes at `gpa` were written.
    fn written(&self, gpa: u64, len: u64) {
        self.ram.record(gpa, len);
        // Between writing and looking at the mark, as for a vCPU's own stores: see `Mmu::phys_write`.
        fence(Ordering::SeqCst);
        let mut at = gpa;
        let mut left = len;
        while left != 0 {
            let here = left.min(PAGE_SIZE - (at & (PAGE_SIZE - 1)));
            if self.ram.hits_code(at, here) {
                self.sink.code_written(at, here);
            }
            at = at.wrapping_add(here);
            left -= here;
        }
    }
}

impl std::fmt::Debug for Dma {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dma").field("ram", &self.ram).finish_non_exhaustive()
    }
}

/// Where vm-memory reports writes to: the watches of guest-physical addresses from a base on.
#[derive(Clone, Copy, Debug)]
pub struct DmaWatch<'a> {
    dma: &'a Dma,
    base: u64,
}

impl WithBitmapSlice<'_> for DmaWatch<'_> {
    type S = Self;
}

impl BitmapSlice for DmaWatch<'_> {}

impl Bitmap for DmaWatch<'_> {
    fn mark_dirty(&self, offset: usize, len: usize) {
        self.dma.written(self.base.wrapping_add(offset as u64), len as u64);
    }

    fn dirty_at(&self, _offset: usize) -> bool {
        false
    }

    fn slice_at(&self, offset: usize) -> Self {
        DmaWatch { dma: self.dma, base: self.base.wrapping_add(offset as u64) }
    }
}

impl<'a> WithBitmapSlice<'a> for Dma {
    type S = DmaWatch<'a>;
}

impl Bitmap for Dma {
    fn mark_dirty(&self, offset: usize, len: usize) {
        self.written(offset as u64, len as u64);
    }

    fn dirty_at(&self, _offset: usize) -> bool {
        false
    }

    fn slice_at(&self, offset: usize) -> DmaWatch<'_> {
        DmaWatch { dma: self, base: offset as u64 }
    }
}

/// The one piece of RAM that an access is to; nothing for an access of no bytes.
struct Piece<'a>(Option<VolatileSlice<'a, DmaWatch<'a>>>);

impl<'a> Iterator for Piece<'a> {
    type Item = Result<VolatileSlice<'a, DmaWatch<'a>>, GuestMemoryError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.take().map(Ok)
    }
}

impl FusedIterator for Piece<'_> {}

impl<'a> GuestMemorySliceIterator<'a, DmaWatch<'a>> for Piece<'a> {}

impl GuestMemory for Dma {
    type PhysicalMemory = GuestMemoryMmap<()>;
    type Bitmap = Dma;

    fn check_range(&self, addr: GuestAddress, count: usize, access: Permissions) -> bool {
        self.host(addr, count, access).is_some()
    }

    fn get_slices<'a>(
        &'a self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> Result<impl GuestMemorySliceIterator<'a, DmaWatch<'a>>, GuestMemoryError> {
        if count == 0 {
            return Ok(Piece(None));
        }
        let Some(host) = self.host(addr, count, access) else {
            return Err(GuestMemoryError::InvalidGuestAddress(addr));
        };
        let watch = DmaWatch { dma: self, base: addr.0 };
        // SAFETY: `Ram` checked that the bytes are inside a mapping that `self.ram` keeps for longer than `'a`, and whoever
        // accesses guest RAM does so by raw or atomic accesses: see `Ram`.
        Ok(Piece(Some(unsafe { VolatileSlice::with_bitmap(host, count, watch, None) })))
    }
}
