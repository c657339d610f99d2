//! Memory of a display adapter, with a record of which of its pages were written.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use vm_memory::MmapRegion;
use vm_memory::mmap::MmapRegionError;

use crate::access::Int;
use crate::tlb::PAGE_SIZE;

/// Pages in a word of the record.
const WORD: u64 = 64;

/// Memory of a display adapter. As in guest RAM every access is a raw or atomic one: the vCPU writes while a display reads.
pub struct Vram {
    region: MmapRegion<()>,
    /// Bit by page: written since the record was last taken.
    dirty: Box<[AtomicU64]>,
}

impl Vram {
    /// Zeroed memory of `size` bytes, rounded up to pages.
    ///
    /// # Errors
    ///
    /// When the host has no room for it.
    pub fn new(size: usize) -> Result<Vram, MmapRegionError> {
        let size = size.next_multiple_of(PAGE_SIZE as usize).max(PAGE_SIZE as usize);
        let region = MmapRegion::new(size)?;
        let words = (size as u64 / PAGE_SIZE).div_ceil(WORD);
        let dirty = (0..words).map(|_| AtomicU64::new(0)).collect();
        Ok(Vram { region, dirty })
    }

    /// Size in bytes.
    pub fn len(&self) -> u64 {
        self.region.size() as u64
    }

    /// Never: there is one page at least.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Host address of `len` bytes at `offset`, if all of them are inside.
    #[inline]
    pub(crate) fn host(&self, offset: u64, len: u64) -> Option<*mut u8> {
        let inside = offset <= self.len() && self.len() - offset >= len;
        // SAFETY: the offset is inside the mapping that `region` owns.
        inside.then(|| unsafe { self.region.as_ptr().add(offset as usize) })
    }

    /// Reads `size` (1 to 8) bytes at `offset`, little-endian; bytes outside read as all ones.
    pub fn read(&self, offset: u64, size: u8) -> u64 {
        (0..u64::from(size.min(8))).rev().fold(0, |value, byte| {
            let byte = offset.checked_add(byte).and_then(|at| self.host(at, 1)).map_or(0xff, |p| {
                // SAFETY: `host` checked that the byte is inside.
                unsafe { u8::read(p, true) }
            });
            value << 8 | u64::from(byte)
        })
    }

    /// Writes the low `size` (1 to 8) bytes of `value` at `offset`, little-endian; what is outside is dropped.
    pub fn write(&self, offset: u64, size: u8, value: u64) {
        for (at, byte) in (0..u64::from(size.min(8))).zip(value.to_le_bytes()) {
            if let Some(p) = offset.checked_add(at).and_then(|at| self.host(at, 1)) {
                // SAFETY: `host` checked that the byte is inside.
                unsafe { byte.write(p, true) };
            }
        }
        self.mark(offset, u64::from(size));
    }

    fn word(&self, offset: u64) -> Option<&AtomicU32> {
        let p = self.host(offset, 4).filter(|_| offset.is_multiple_of(4))?;
        // SAFETY: inside the mapping for as long as `self` lives, and aligned; atomics are the only references made.
        Some(unsafe { AtomicU32::from_ptr(p.cast()) })
    }

    /// The aligned double word at `offset`, as its bytes lie; 0 outside.
    pub fn read_word(&self, offset: u64) -> [u8; 4] {
        self.word(offset).map_or([0; 4], |word| word.load(Ordering::Relaxed).to_ne_bytes())
    }

    /// Writes an aligned double word; nothing outside.
    pub fn write_word(&self, offset: u64, bytes: [u8; 4]) {
        if let Some(word) = self.word(offset) {
            word.store(u32::from_ne_bytes(bytes), Ordering::Relaxed);
            self.mark(offset, 4);
        }
    }

    /// Copies from `offset` on; what is outside becomes 0.
    pub fn copy_to(&self, offset: u64, out: &mut [u8]) {
        let inside = self.len().saturating_sub(offset).min(out.len() as u64) as usize;
        let (inner, outer) = out.split_at_mut(inside);
        outer.fill(0);
        if let Some(p) = self.host(offset, inside as u64).filter(|_| inside != 0) {
            // SAFETY: `host` checked the range, and `inner` is not in it. A vCPU may write meanwhile: these are plain bytes of which
            // any mixture will do, as when a display reads while its memory is written.
            unsafe { std::ptr::copy_nonoverlapping(p, inner.as_mut_ptr(), inside) };
        }
    }

    /// Zeroes `len` bytes from `offset` on, as far as they are inside.
    pub fn clear(&self, offset: u64, len: u64) {
        let inside = self.len().saturating_sub(offset).min(len);
        if let Some(p) = self.host(offset, inside).filter(|_| inside != 0) {
            // SAFETY: `host` checked the range; no reference into it exists.
            unsafe { std::ptr::write_bytes(p, 0, inside as usize) };
            self.mark(offset, inside);
        }
    }

    /// Records that `len` bytes at `offset` were written.
    #[inline]
    pub fn mark(&self, offset: u64, len: u64) {
        let end = offset.saturating_add(len.max(1)).min(self.len());
        for page in offset / PAGE_SIZE..end.div_ceil(PAGE_SIZE) {
            if let Some(word) = self.dirty.get((page / WORD) as usize) {
                let bit = 1 << (page % WORD);
                // Most writes are to pages that were written before: no exclusive access for those.
                if word.load(Ordering::Relaxed) & bit == 0 {
                    word.fetch_or(bit, Ordering::Release);
                }
            }
        }
    }

    /// Whether anything was written since the record was last taken.
    pub fn is_dirty(&self) -> bool {
        self.dirty.iter().any(|word| word.load(Ordering::Relaxed) != 0)
    }

    /// Whether the page at `offset` is in the record.
    pub fn is_page_dirty(&self, offset: u64) -> bool {
        let page = offset / PAGE_SIZE;
        self.dirty
            .get((page / WORD) as usize)
            .is_some_and(|word| word.load(Ordering::Relaxed) >> (page % WORD) & 1 != 0)
    }

    /// Moves the record to `pages`, which keeps what it has. Whoever stores without telling must have been stopped before.
    pub fn take_dirty(&self, pages: &mut DirtyPages) {
        pages.words.resize(self.dirty.len(), 0);
        for (to, word) in pages.words.iter_mut().zip(&self.dirty) {
            if word.load(Ordering::Relaxed) != 0 {
                *to |= word.swap(0, Ordering::AcqRel);
            }
        }
    }
}

impl std::fmt::Debug for Vram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vram").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Pages of a [`Vram`] that were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirtyPages {
    words: Vec<u64>,
}

impl DirtyPages {
    /// Whether there are any.
    pub fn any(&self) -> bool {
        self.words.iter().any(|word| *word != 0)
    }

    /// Whether one of the pages of `len` bytes at `offset` is among them.
    pub fn touches(&self, offset: u64, len: u64) -> bool {
        let end = offset.saturating_add(len.max(1)).div_ceil(PAGE_SIZE).min(self.words.len() as u64 * WORD);
        (offset / PAGE_SIZE..end)
            .any(|page| self.words.get((page / WORD) as usize).is_some_and(|word| word >> (page % WORD) & 1 != 0))
    }

    /// Adds those of `other`.
    pub fn add(&mut self, other: &DirtyPages) {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        self.words.iter_mut().zip(&other.words).for_each(|(to, from)| *to |= from);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }
}
