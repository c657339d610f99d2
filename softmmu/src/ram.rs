//! Guest-physical RAM and the record of which parts of it hold translated code.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vm_memory::{Address, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use crate::access::{self, Int};
use crate::backing::{Backing, Backings};
use crate::exclusive::Exclusive;
use crate::mmu::Access;
use crate::tlb::PAGE_SIZE;
use crate::vram::Vram;

/// log2 of the granule in which translated code is tracked, in bytes: 64 granules a page.
pub const GRANULE_SHIFT: u32 = 6;

/// Told when guest RAM that holds translated code is written.
pub trait CodeSink: Send + Sync {
    /// `len` bytes at guest-physical `gpa`, within one page, were just written: translations of any of them are dropped.
    fn code_written(&self, gpa: u64, len: u64) -> Dropped;

    /// The same, for accessed and dirty bits that a page walk has set in the middle of an instruction: vCPUs that may run the code,
    /// the walking one included, must leave for their dispatchers.
    fn table_written(&self, gpa: u64, len: u64) {
        self.code_written(gpa, len);
    }

    /// Whether a write of `len` bytes at guest-physical `gpa`, within one page, would drop a translation that has the
    /// instruction at guest PC `pc`. It may say so wrongly.
    fn translates(&self, gpa: u64, len: u64, pc: u64) -> bool {
        let _ = (gpa, len, pc);
        true
    }
}

/// Which translations a write has dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Dropped {
    /// Whether there are any.
    any: bool,
    /// How many guest PCs lead to them; too many to tell where it is not known.
    count: usize,
    /// The first.
    pcs: [u64; Dropped::MOST],
}

impl Dropped {
    /// Guest PCs remembered.
    const MOST: usize = 8;

    /// None.
    pub const NONE: Dropped = Dropped { any: false, count: 0, pcs: [0; Dropped::MOST] };

    /// It is not known which.
    pub const UNKNOWN: Dropped = Dropped { any: true, count: usize::MAX, pcs: [0; Dropped::MOST] };

    /// Whether there are any.
    pub fn any(&self) -> bool {
        self.any
    }

    /// Adds one or more, to which jump caches may lead by these guest PCs; `None` when there are too many.
    pub fn push(&mut self, pcs: Option<&[u64]>) {
        self.any = true;
        let Some(pcs) = pcs else {
            self.count = usize::MAX;
            return;
        };
        for &pc in pcs {
            if let Some(place) = self.pcs.get_mut(self.count) {
                *place = pc;
            }
            self.count = self.count.saturating_add(1);
        }
    }

    /// Adds those of `other`.
    pub fn add(&mut self, other: &Dropped) {
        if other.any {
            self.push(other.pcs());
        }
    }

    /// Guest PCs by which jump caches may lead to them; `None` when there are too many.
    pub fn pcs(&self) -> Option<&[u64]> {
        self.pcs.get(..self.count)
    }
}

/// What is watched in a page.
#[repr(C)]
#[derive(bytemuck::Zeroable)]
struct Watch {
    /// Granules that hold translated code.
    code: AtomicU64,
    /// Not 0: there has been code and stores beside it, or to it, so that no TLB lets stores to the page through, with code in
    /// it or without. So many more stores to the page without code, and it is a page like others.
    mixed: AtomicU64,
}

/// Byte offset of the granules in a page's entry of the table at [`Ram::watches`].
pub const WATCH_CODE: usize = std::mem::offset_of!(Watch, code);

/// Byte offset of what is not 0 where stores beside code are made by the code of the store's slow path.
pub const WATCH_MIXED: usize = std::mem::offset_of!(Watch, mixed);

/// Size of an entry of the table at [`Ram::watches`], in bytes.
pub const WATCH_SIZE: usize = size_of::<Watch>();

/// Stores to a mixed page without code before it is a page like others.
const MIXED: u64 = 64;

/// What [`Ram::mark_code`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Marked {
    /// Nothing that anybody has to hear of.
    Known,
    /// A vCPU may be just storing to the new granules, having found no code there: every other one must pass its dispatcher.
    Mixed,
    /// The page may be in the store tags of every TLB.
    Fresh,
}

/// Pages whose backing can be set, at least: those below 4 GiB.
const LOWEST_PAGES: u64 = (1 << 32) / PAGE_SIZE;

struct Region {
    start: u64,
    end: u64,
    host: *mut u8,
}

/// Display memory and the guest-physical address that [`Route::At`](crate::Route::At) has it at.
struct Display {
    vram: Arc<Vram>,
    home: u64,
}

/// What keeps a TLB from letting stores to a page through, but for watches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stores {
    /// Nothing.
    Free,
    /// Nothing, until the record of written display memory is taken.
    Recorded,
    /// Its backing; or a store is to be recorded.
    Refused,
}

/// Guest RAM. Every access is a raw or atomic one by the contract of `access.rs`: other threads may access the same bytes.
pub struct Ram {
    regions: Vec<Region>,
    /// By page number, those that are not RAM included: zeroed memory, which the host gives as it is written.
    watches: Box<[Watch]>,
    backings: Backings,
    memory: GuestMemoryMmap<()>,
    display: Option<Display>,
    exclusive: Arc<Exclusive>,
}

// SAFETY: `host` points into mappings that `memory` and `display` own for as long as `Ram` lives, and every access through it is
// a raw or atomic one of plain bytes, with no reference into guest RAM ever made.
unsafe impl Send for Ram {}
// SAFETY: as for `Send`; concurrent guest accesses are the guest's own races on plain bytes.
unsafe impl Sync for Ram {}

macro_rules! raw_access {
    ($read:ident, $write:ident, $int:ty) => {
        /// Reads at `gpa`, unaligned too; `None` outside RAM.
        #[inline]
        pub fn $read(&self, gpa: u64) -> Option<$int> {
            let p = self.readable(gpa, size_of::<$int>() as u64)?;
            // SAFETY: `readable` checked that the bytes are inside a live mapping.
            Some(unsafe { <$int>::read(p, true) })
        }

        /// Writes at `gpa`, unaligned too; `None` outside RAM. Does not look at code watches.
        #[inline]
        pub fn $write(&self, gpa: u64, value: $int) -> Option<()> {
            let p = self.writable(gpa, size_of::<$int>() as u64)?;
            // SAFETY: as for the read.
            unsafe { value.write(p, true) };
            self.record(gpa, size_of::<$int>() as u64);
            Some(())
        }
    };
}

impl Ram {
    /// Takes over `memory`.
    pub fn new(memory: GuestMemoryMmap<()>) -> Ram {
        Ram::with_display(memory, None)
    }

    /// Takes over `memory`, and display memory with an address below 4 GiB at which [`Backing`]s find it, where there is no RAM.
    /// Until they do nobody reaches it.
    pub fn with_display(memory: GuestMemoryMmap<()>, display: Option<(u64, Arc<Vram>)>) -> Ram {
        let mut regions = Vec::new();
        for region in memory.iter() {
            let start = region.start_addr().raw_value();
            let Ok(host) = memory.get_host_address(GuestAddress(start)) else { continue };
            regions.push(Region { start, end: start + region.len(), host });
        }
        let pages = regions.iter().map(|r: &Region| r.end.div_ceil(PAGE_SIZE)).max().unwrap_or(0);
        // All that a device below 4 GiB may move about.
        let pages = pages.max(LOWEST_PAGES) as usize;
        let backings = Backings::new(pages);
        let display = display.map(|(home, vram)| Display { vram, home });
        if let Some(Display { vram, home }) = &display
            && let Some(host) = vram.host(0, vram.len())
        {
            regions.push(Region { start: *home, end: home.saturating_add(vram.len()), host });
            (0..vram.len()).step_by(PAGE_SIZE as usize).for_each(|page| {
                backings.set(home.saturating_add(page), Backing::DEVICE);
            });
        }
        let watches = bytemuck::zeroed_slice_box(pages);
        Ram { regions, watches, backings, memory, display, exclusive: Arc::default() }
    }

    /// The display memory.
    pub fn display(&self) -> Option<&Arc<Vram>> {
        self.display.as_ref().map(|display| &display.vram)
    }

    /// The memory as vm-memory sees it, for loaders.
    pub fn memory(&self) -> &GuestMemoryMmap<()> {
        &self.memory
    }

    #[inline(always)]
    fn region(&self, gpa: u64, len: u64) -> Option<&Region> {
        self.regions.iter().find(|r| gpa >= r.start && gpa < r.end && r.end - gpa >= len)
    }

    /// Host address of `len` bytes at `gpa`, all within one region, whatever their pages' backings; `None` outside RAM.
    #[inline(always)]
    pub fn host(&self, gpa: u64, len: u64) -> Option<*mut u8> {
        // SAFETY: the offset is inside the region's mapping, by `region`.
        self.region(gpa, len).map(|r| unsafe { r.host.add((gpa - r.start) as usize) })
    }

    /// Host address of the RAM that reads of `len` bytes at `gpa` reach; `None` where they reach something else.
    #[inline(always)]
    pub fn readable(&self, gpa: u64, len: u64) -> Option<*mut u8> {
        self.host(self.backings.read(gpa, len)?, len)
    }

    /// Host address of the RAM that writes of `len` bytes at `gpa` reach; `None` where they reach something else.
    #[inline(always)]
    pub fn writable(&self, gpa: u64, len: u64) -> Option<*mut u8> {
        self.host(self.backings.write(gpa, len)?, len)
    }

    /// What keeps a TLB that is filled for `access` from letting stores to the page of `gpa` through. A store to display memory
    /// is recorded here.
    #[inline(always)]
    pub(crate) fn stores(&self, gpa: u64, access: Access) -> Stores {
        if self.backings.is_plain(gpa) { Stores::Free } else { self.stores_elsewhere(gpa, access) }
    }

    #[cold]
    fn stores_elsewhere(&self, gpa: u64, access: Access) -> Stores {
        match self.displayed(gpa) {
            _ if !self.backings.is_one(gpa) => Stores::Refused,
            None => Stores::Free,
            Some((vram, offset)) => {
                if access == Access::Write {
                    vram.mark(offset, 1);
                }
                if vram.is_page_dirty(offset) { Stores::Recorded } else { Stores::Refused }
            }
        }
    }

    /// The display memory that writes at `gpa` reach, and where in it.
    fn displayed(&self, gpa: u64) -> Option<(&Vram, u64)> {
        let Display { vram, home } = self.display.as_ref()?;
        let offset = self.backings.write(gpa, 1)?.checked_sub(*home)?;
        (offset < vram.len()).then_some((vram, offset))
    }

    /// Whether writes to the page of `gpa` reach display memory.
    pub(crate) fn is_displayed(&self, gpa: u64) -> bool {
        self.displayed(gpa).is_some()
    }

    /// Records that `len` bytes at `gpa`, in what is one piece of RAM, were written, if that is display memory.
    #[inline(always)]
    pub(crate) fn record(&self, gpa: u64, len: u64) {
        if !self.backings.is_plain(gpa)
            && let Some((vram, offset)) = self.displayed(gpa)
        {
            vram.mark(offset, len);
        }
    }

    /// Whether reads of the page at `gpa` reach RAM.
    pub fn is_ram(&self, gpa: u64) -> bool {
        self.readable(gpa, 1).is_some()
    }

    /// Whether translations of code in the page of `gpa` may be kept: writes to it pass the watches. The adapter's own writes to
    /// display memory do not.
    pub fn keeps_code(&self, gpa: u64) -> bool {
        self.is_ram(gpa) && (self.backings.is_plain(gpa) || !self.is_displayed(gpa))
    }

    /// Says what accesses to the page of `gpa` reach; whether that has changed. TLBs, and translations of code in the page, are
    /// the caller's to flush: see [`Mmu::set_backings`](crate::Mmu::set_backings).
    pub fn set_backing(&self, gpa: u64, backing: Backing) -> bool {
        self.backings.set(gpa, backing)
    }

    raw_access!(read_u8, write_u8, u8);
    raw_access!(read_u16, write_u16, u16);
    raw_access!(read_u32, write_u32, u32);
    raw_access!(read_u64, write_u64, u64);

    /// Copies from RAM; false when not all of it is RAM.
    pub fn read_bytes(&self, gpa: u64, out: &mut [u8]) -> bool {
        let Some(p) = self.readable(gpa, out.len() as u64) else { return false };
        // SAFETY: `readable` checked the range; `out` is not guest RAM, so they do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(p, out.as_mut_ptr(), out.len()) };
        true
    }

    /// Copies into RAM; false when not all of it is RAM. Does not look at code watches.
    pub fn write_bytes(&self, gpa: u64, bytes: &[u8]) -> bool {
        let Some(p) = self.writable(gpa, bytes.len() as u64) else { return false };
        // SAFETY: as in `read_bytes`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), p, bytes.len()) };
        self.record(gpa, bytes.len() as u64);
        true
    }

    /// Stores `new` in the `size` (1, 2, 4, 8) bytes at `gpa`, a multiple of that, if `old` is there, in one step and
    /// sequentially consistent: whether it was. `None` outside RAM or unaligned. Does not look at code watches.
    pub(crate) fn compare_and_swap(&self, gpa: u64, size: u8, old: u64, new: u64) -> Option<bool> {
        let p = self.writable(gpa, size.into()).filter(|_| gpa.is_multiple_of(size.into()))?;
        // SAFETY: `writable` checked that the bytes are inside a live mapping.
        let seen = unsafe { access::compare_and_swap(p, size, old.into(), new.into()) }?;
        let swapped = seen == old.into();
        if swapped {
            self.record(gpa, size.into());
        }
        Some(swapped)
    }

    /// Atomic compare-and-swap of an aligned 32-bit word, sequentially consistent: whether it held `old`. `None` outside RAM or
    /// unaligned. Does not look at code watches.
    pub fn cas_u32(&self, gpa: u64, old: u32, new: u32) -> Option<bool> {
        self.compare_and_swap(gpa, 4, old.into(), new.into())
    }

    /// Atomic compare-and-swap of an aligned 64-bit word, as [`Ram::cas_u32`].
    pub fn cas_u64(&self, gpa: u64, old: u64, new: u64) -> Option<bool> {
        self.compare_and_swap(gpa, 8, old, new)
    }

    /// The exclusive sections of the vCPUs that this is the RAM of.
    pub(crate) fn exclusive(&self) -> &Arc<Exclusive> {
        &self.exclusive
    }

    #[inline(always)]
    fn watch(&self, gpa: u64) -> Option<&Watch> {
        self.watches.get((gpa / PAGE_SIZE) as usize)
    }

    /// Host address of the table of watches, for [`crate::EnvHeader::watches`].
    pub fn watches(&self) -> u64 {
        self.watches.as_ptr() as u64
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
        self.watch(gpa).map_or(0, |w| w.code.load(Ordering::SeqCst))
    }

    /// Marks granules of a page as code.
    pub fn mark_code(&self, gpa: u64, granules: u64) -> Marked {
        let Some(watch) = self.watch(gpa).filter(|_| self.keeps_code(gpa)) else { return Marked::Known };
        // Marked before `mixed` is looked at, as stores look at the marks after they have found it set.
        let old = watch.code.fetch_or(granules, Ordering::SeqCst);
        let renew = |left| (left != 0).then_some(if old == 0 { MIXED } else { left });
        let mixed = watch.mixed.fetch_update(Ordering::SeqCst, Ordering::SeqCst, renew).is_ok();
        match (old, mixed) {
            (0, false) => Marked::Fresh,
            (_, true) if granules & !old != 0 => Marked::Mixed,
            _ => Marked::Known,
        }
    }

    /// Whether stores to the page of `gpa` are watched: no TLB may let them through.
    #[inline]
    pub fn is_watched(&self, gpa: u64) -> bool {
        self.watch(gpa).is_some_and(|w| w.mixed.load(Ordering::SeqCst) != 0 || w.code.load(Ordering::SeqCst) != 0)
    }

    /// [`Ram::is_watched`] for a store that a watch has made slow: pages with code have stores beside it from now on, and
    /// others fewer left before they are watched no more.
    pub(crate) fn note_store(&self, gpa: u64) -> bool {
        let Some(watch) = self.watch(gpa) else { return false };
        if watch.code.load(Ordering::SeqCst) == 0 {
            let _ = watch.mixed.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        } else if watch.mixed.load(Ordering::Relaxed) != MIXED {
            watch.mixed.store(MIXED, Ordering::SeqCst);
        }
        self.is_watched(gpa)
    }

    /// Whether code of the page of `gpa` may be written often: it has been, not long ago.
    pub fn is_mixed(&self, gpa: u64) -> bool {
        self.watch(gpa).is_some_and(|w| w.mixed.load(Ordering::Relaxed) != 0)
    }

    /// Sets the granules of a page that hold code to exactly `granules`.
    pub fn set_code(&self, gpa: u64, granules: u64) {
        if let Some(watch) = self.watch(gpa).filter(|_| self.keeps_code(gpa)) {
            watch.code.store(granules, Ordering::Release);
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
        f.debug_struct("Ram").field("pages", &self.watches.len()).finish_non_exhaustive()
    }
}
