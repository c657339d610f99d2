//! Guest-physical RAM and the record of which parts of it hold translated code.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use vm_memory::{Address, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use crate::tlb::PAGE_SIZE;

/// log2 of the granule in which translated code is tracked, in bytes: 64 granules a page.
pub const GRANULE_SHIFT: u32 = 6;

/// Told when guest RAM that holds translated code is written.
pub trait CodeSink: Send + Sync {
    /// `len` bytes at guest-physical `gpa`, within one page, are about to be written or were just written.
    fn code_written(&self, gpa: u64, len: u64);
}

struct Region {
    start: u64,
    end: u64,
    host: *mut u8,
    first_page: usize,
}

/// Guest RAM. Every access is a raw or atomic one: other threads may access the same bytes.
pub struct Ram {
    regions: Vec<Region>,
    code: Vec<AtomicU64>,
    memory: GuestMemoryMmap<()>,
}

// SAFETY: `host` points into mappings that `memory` owns for as long as `Ram` lives, and every access through it is
// a raw or atomic one of plain bytes, with no reference into guest RAM ever made.
unsafe impl Send for Ram {}
// SAFETY: as for `Send`; concurrent guest accesses are the guest's own races on plain bytes.
unsafe impl Sync for Ram {}

macro_rules! raw_access {
    ($read:ident, $write:ident, $int:ty) => {
        /// Reads at `gpa`, unaligned too; `None` outside RAM.
        #[inline]
        pub fn $read(&self, gpa: u64) -> Option<$int> {
            let p = self.host(gpa, size_of::<$int>() as u64)?;
            // SAFETY: `host` checked that the bytes are inside a live mapping; no reference to them exists.
            Some(unsafe { read_raw::<$int>(p) })
        }

        /// Writes at `gpa`, unaligned too; `None` outside RAM. Does not look at code watches.
        #[inline]
        pub fn $write(&self, gpa: u64, value: $int) -> Option<()> {
            let p = self.host(gpa, size_of::<$int>() as u64)?;
            // SAFETY: as for the read.
            unsafe { write_raw::<$int>(p, value) };
            Some(())
        }
    };
}

/// Reads a possibly unaligned value.
///
/// # Safety
/// `p` points at `size_of::<T>()` readable bytes of guest RAM.
#[inline(always)]
pub(crate) unsafe fn read_raw<T: Copy>(p: *const u8) -> T {
    if (p as usize).is_multiple_of(align_of::<T>()) {
        // SAFETY: aligned, readable by the caller's promise.
        unsafe { p.cast::<T>().read_volatile() }
    } else {
        // SAFETY: readable by the caller's promise.
        unsafe { p.cast::<T>().read_unaligned() }
    }
}

/// Writes a possibly unaligned value.
///
/// # Safety
/// `p` points at `size_of::<T>()` writable bytes of guest RAM.
#[inline(always)]
pub(crate) unsafe fn write_raw<T: Copy>(p: *mut u8, value: T) {
    if (p as usize).is_multiple_of(align_of::<T>()) {
        // SAFETY: aligned, writable by the caller's promise.
        unsafe { p.cast::<T>().write_volatile(value) }
    } else {
        // SAFETY: writable by the caller's promise.
        unsafe { p.cast::<T>().write_unaligned(value) }
    }
}

impl Ram {
    /// Takes over `memory`.
    pub fn new(memory: GuestMemoryMmap<()>) -> Ram {
        let mut regions = Vec::new();
        let mut pages = 0;
        for region in memory.iter() {
            let start = region.start_addr().raw_value();
            let Ok(host) = memory.get_host_address(GuestAddress(start)) else { continue };
            regions.push(Region { start, end: start + region.len(), host, first_page: pages });
            pages += (region.len() / PAGE_SIZE) as usize;
        }
        let code = (0..pages).map(|_| AtomicU64::new(0)).collect();
        Ram { regions, code, memory }
    }

    /// The memory as vm-memory sees it, for loaders.
    pub fn memory(&self) -> &GuestMemoryMmap<()> {
        &self.memory
    }

    #[inline(always)]
    fn region(&self, gpa: u64, len: u64) -> Option<&Region> {
        self.regions.iter().find(|r| gpa >= r.start && gpa < r.end && r.end - gpa >= len)
    }

    /// Host address of `len` bytes at `gpa`, all within one region; `None` outside RAM.
    #[inline(always)]
    pub fn host(&self, gpa: u64, len: u64) -> Option<*mut u8> {
        // SAFETY: the offset is inside the region's mapping, by `region`.
        self.region(gpa, len).map(|r| unsafe { r.host.add((gpa - r.start) as usize) })
    }

    /// Whether the page at `gpa` is RAM.
    pub fn is_ram(&self, gpa: u64) -> bool {
        self.region(gpa, 1).is_some()
    }

    raw_access!(read_u8, write_u8, u8);
    raw_access!(read_u16, write_u16, u16);
    raw_access!(read_u32, write_u32, u32);
    raw_access!(read_u64, write_u64, u64);

    /// Copies from RAM; false when not all of it is RAM.
    pub fn read_bytes(&self, gpa: u64, out: &mut [u8]) -> bool {
        let Some(p) = self.host(gpa, out.len() as u64) else { return false };
        // SAFETY: `host` checked the range; `out` is not guest RAM, so they do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(p, out.as_mut_ptr(), out.len()) };
        true
    }

    /// Copies into RAM; false when not all of it is RAM. Does not look at code watches.
    pub fn write_bytes(&self, gpa: u64, bytes: &[u8]) -> bool {
        let Some(p) = self.host(gpa, bytes.len() as u64) else { return false };
        // SAFETY: as in `read_bytes`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), p, bytes.len()) };
        true
    }

    /// Atomic compare-and-swap of an aligned 32-bit word, sequentially consistent: whether it held `old`.
    /// `None` outside RAM or unaligned.
    pub fn cas_u32(&self, gpa: u64, old: u32, new: u32) -> Option<bool> {
        let p = self.host(gpa, 4).filter(|_| gpa.is_multiple_of(4))?;
        // SAFETY: inside a live mapping and aligned; atomics of this size are the only kind of reference made.
        let word = unsafe { AtomicU32::from_ptr(p.cast()) };
        Some(word.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).is_ok())
    }

    /// Atomic compare-and-swap of an aligned 64-bit word, as [`Ram::cas_u32`].
    pub fn cas_u64(&self, gpa: u64, old: u64, new: u64) -> Option<bool> {
        let p = self.host(gpa, 8).filter(|_| gpa.is_multiple_of(8))?;
        // SAFETY: as in `cas_u32`.
        let word = unsafe { AtomicU64::from_ptr(p.cast()) };
        Some(word.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).is_ok())
    }

    #[inline(always)]
    fn code_word(&self, gpa: u64) -> Option<&AtomicU64> {
        let r = self.region(gpa, 1)?;
        self.code.get(r.first_page + ((gpa - r.start) / PAGE_SIZE) as usize)
    }

    /// Granules that `len` bytes at `gpa` touch within its page, as a bit mask.
    #[inline]
    pub const fn granules(gpa: u64, len: u64) -> u64 {
        let first = (gpa & (PAGE_SIZE - 1)) >> GRANULE_SHIFT;
        let end = (gpa & (PAGE_SIZE - 1)) + if len == 0 { 1 } else { len };
        let last = (if end > PAGE_SIZE { PAGE_SIZE } else { end } - 1) >> GRANULE_SHIFT;
        (u64::MAX >> (63 - (last - first))) << first
    }

    /// Granules of the page of `gpa` that hold translated code; 0 outside RAM.
    #[inline]
    pub fn code_granules(&self, gpa: u64) -> u64 {
        self.code_word(gpa).map_or(0, |w| w.load(Ordering::Acquire))
    }

    /// Marks granules of a page as code; whether the page had none before, and so must be taken out of the store tags
    /// of every TLB.
    pub fn mark_code(&self, gpa: u64, granules: u64) -> bool {
        self.code_word(gpa).is_some_and(|w| w.fetch_or(granules, Ordering::AcqRel) == 0)
    }

    /// Sets the granules of a page that hold code to exactly `granules`.
    pub fn set_code(&self, gpa: u64, granules: u64) {
        if let Some(word) = self.code_word(gpa) {
            word.store(granules, Ordering::Release);
        }
    }

    /// Whether a write of `len` bytes at `gpa` (within one page) hits translated code.
    #[inline]
    pub fn hits_code(&self, gpa: u64, len: u64) -> bool {
        self.code_granules(gpa) & Ram::granules(gpa, len) != 0
    }
}

impl std::fmt::Debug for Ram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ram").field("pages", &self.code.len()).finish_non_exhaustive()
    }
}
