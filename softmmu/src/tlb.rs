//! The TLB: direct-mapped banks, probed inline by compiled code.
//!
//! There is one bank for each MMU mode, and for one mode, the *private* one, a bank for each of some address spaces: what
//! one space's programs used is still there when it comes back. In the other modes most pages are global; what is not goes
//! when the space changes.

use std::mem::size_of;

use crate::filter::PageFilter;

/// Guest page size in bytes.
pub const PAGE_SIZE: u64 = 4096;

/// One guest page of one bank.
///
/// The probe is `(addr ^ tag) < 4097 - size`, which checks page, permission and page-crossing in one
/// compare. A tag that must not match belongs to another set of the bank ([`invalid_tag`]).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlbEntry {
    /// Page address if loads may go to RAM directly.
    pub read: u64,
    /// Page address if stores may go to RAM directly: writable, dirty already, and watched by nobody.
    pub write: u64,
    /// Host address minus guest virtual address.
    pub addend: u64,
    /// Guest-physical page address, with [`META_GLOBAL`], [`META_WRITABLE`] and log2 of the guest's page size from [`META_SIZE`] on.
    pub meta: u64,
}

const _: () = assert!(size_of::<TlbEntry>() == 32);

/// In [`TlbEntry::meta`]: the page is global.
pub const META_GLOBAL: u64 = 1;

/// In [`TlbEntry::meta`]: stores may go to RAM if no watch forbids it, whatever the tag for stores says.
pub const META_WRITABLE: u64 = 1 << 7;

/// In [`TlbEntry::meta`]: position of log2 of the size in bytes of the guest's page, of which the entry has 4 KiB.
pub const META_SIZE: u32 = 1;

const SIZE_MASK: u64 = 0x3f;

/// Entries per bank.
pub const TLB_ENTRIES: usize = 1024;

/// A tag that no address of set `index` matches.
pub const fn invalid_tag(index: usize) -> u64 {
    ((index ^ 1) as u64) << 12
}

/// What is known of a bank beside its entries.
#[derive(Debug, Default)]
struct Filled {
    /// Anything at all, since everything was flushed.
    any: bool,
    /// Sets filled with pages that are not global since those were last flushed; past the cap a flush walks the whole bank.
    local: Vec<u16>,
}

/// The banks of one vCPU.
#[derive(Debug)]
pub struct Tlb {
    entries: Vec<TlbEntry>,
    filled: Vec<Filled>,
    /// The bank of each mode in the current address space.
    current: Vec<usize>,
    private: usize,
    /// Pages larger than 4 KiB that entries are parts of.
    large: PageFilter,
}

/// Past this many filled sets a flush walks the bank instead of a list.
const LOCAL_CAP: usize = 512;

impl Tlb {
    /// One address space with `modes` banks, all invalid.
    pub fn new(modes: usize) -> Tlb {
        Tlb::with_spaces(modes, 0, 1)
    }

    /// `modes` modes, of which `private` has a bank for each of `spaces` address spaces; all invalid, the first space current.
    pub fn with_spaces(modes: usize, private: usize, spaces: usize) -> Tlb {
        let banks = modes + spaces.max(1) - 1;
        let entries = (0..banks * TLB_ENTRIES).map(|i| Tlb::invalid(i % TLB_ENTRIES)).collect();
        let filled = (0..banks).map(|_| Filled::default()).collect();
        Tlb { entries, filled, current: (0..modes).collect(), private, large: PageFilter::default() }
    }

    const fn invalid(index: usize) -> TlbEntry {
        TlbEntry { read: invalid_tag(index), write: invalid_tag(index), addend: 0, meta: 0 }
    }

    /// Set of a guest virtual address.
    #[inline(always)]
    pub const fn index(addr: u64) -> usize {
        (addr >> 12) as usize & (TLB_ENTRIES - 1)
    }

    /// Host address of the first entry of a mode's bank, for [`crate::EnvHeader::tlb`].
    pub fn bank_address(&self, mode: usize) -> u64 {
        self.entries[self.current[mode] * TLB_ENTRIES..].as_ptr() as u64
    }

    /// Value of [`crate::EnvHeader::tlb_mask`].
    pub const fn mask() -> u64 {
        ((TLB_ENTRIES - 1) * size_of::<TlbEntry>()) as u64
    }

    /// The entry of `addr`'s set in a mode's bank.
    #[inline(always)]
    pub fn entry(&self, mode: usize, addr: u64) -> &TlbEntry {
        &self.entries[self.current[mode] * TLB_ENTRIES + Tlb::index(addr)]
    }

    /// Fills the set of page `page`.
    pub fn fill(&mut self, mode: usize, page: u64, read: bool, write: bool, addend: u64, meta: u64) {
        let index = Tlb::index(page);
        let none = invalid_tag(index);
        let bank = self.current[mode];
        self.entries[bank * TLB_ENTRIES + index] =
            TlbEntry { read: if read { page } else { none }, write: if write { page } else { none }, addend, meta };
        let filled = &mut self.filled[bank];
        filled.any = true;
        if meta & META_GLOBAL == 0 && filled.local.len() < LOCAL_CAP {
            filled.local.push(index as u16);
        }
        let size = (meta >> META_SIZE & SIZE_MASK) as u32;
        if size > PAGE_SIZE.trailing_zeros() {
            self.large.insert(page, size);
        }
    }

    /// Invalidates everything in every address space, or everything but global pages.
    pub fn flush(&mut self, keep_global: bool) {
        for bank in 0..self.filled.len() {
            if keep_global {
                self.flush_local(bank);
            } else {
                self.flush_bank(bank);
            }
        }
        if !keep_global {
            self.large.clear();
        }
    }

    /// Invalidates the pages of the current address space that are not global.
    pub fn flush_space(&mut self) {
        for mode in 0..self.current.len() {
            self.flush_local(self.current[mode]);
        }
    }

    /// Makes address space `space` the current one.
    pub fn switch_space(&mut self, space: usize) {
        let bank = if space == 0 { self.private } else { self.current.len() + space - 1 };
        if bank == self.current[self.private] {
            return;
        }
        self.current[self.private] = bank;
        for mode in 0..self.current.len() {
            if mode != self.private {
                self.flush_local(self.current[mode]);
            }
        }
    }

    fn flush_bank(&mut self, bank: usize) {
        let filled = &mut self.filled[bank];
        filled.local.clear();
        if std::mem::take(&mut filled.any) {
            let entries = self.entries[bank * TLB_ENTRIES..].iter_mut().take(TLB_ENTRIES);
            entries.enumerate().for_each(|(index, entry)| *entry = Tlb::invalid(index));
        }
    }

    fn flush_local(&mut self, bank: usize) {
        let local = &mut self.filled[bank].local;
        let entries = &mut self.entries[bank * TLB_ENTRIES..][..TLB_ENTRIES];
        let drop_local = |index: usize, entry: &mut TlbEntry| {
            if entry.meta & META_GLOBAL == 0 {
                *entry = Tlb::invalid(index);
            }
        };
        if local.len() < LOCAL_CAP {
            local.iter().for_each(|&index| drop_local(usize::from(index), &mut entries[usize::from(index)]));
        } else {
            entries.iter_mut().enumerate().for_each(|(index, entry)| drop_local(index, entry));
        }
        local.clear();
    }

    /// Every entry of the banks that are not empty, with its set.
    fn filled_entries(&mut self) -> impl Iterator<Item = (usize, &mut TlbEntry)> {
        let banks = self.entries.chunks_exact_mut(TLB_ENTRIES).zip(&self.filled);
        banks.filter(|(_, filled)| filled.any).flat_map(|(entries, _)| entries.iter_mut().enumerate())
    }

    /// Invalidates the page of `addr` in every mode and address space: all of it when it is larger than 4 KiB
    /// (SDM vol. 3A, 4.10.4.1, INVLPG).
    pub fn flush_page(&mut self, addr: u64) {
        let index = Tlb::index(addr);
        for bank in 0..self.filled.len() {
            let entry = &mut self.entries[bank * TLB_ENTRIES + index];
            if (entry.read ^ addr) < PAGE_SIZE || (entry.write ^ addr) < PAGE_SIZE {
                *entry = Tlb::invalid(index);
            }
        }
        if self.large.may_contain(addr) {
            self.flush_large(addr);
        }
    }

    #[cold]
    fn flush_large(&mut self, addr: u64) {
        for (index, entry) in self.filled_entries() {
            let size = (entry.meta >> META_SIZE & SIZE_MASK) as u32;
            if size > PAGE_SIZE.trailing_zeros()
                && [entry.read, entry.write].iter().any(|tag| (tag ^ addr) >> size == 0)
            {
                *entry = Tlb::invalid(index);
            }
        }
    }

    /// Makes every store take the slow path, which lets those through again that may.
    pub fn protect_all(&mut self) {
        for (index, entry) in self.filled_entries() {
            entry.write = invalid_tag(index);
        }
    }

    /// Makes stores to the guest-physical page `gpa` take the slow path.
    pub fn protect_page(&mut self, gpa: u64) {
        for (index, entry) in self.filled_entries() {
            if entry.meta & !(PAGE_SIZE - 1) == gpa {
                entry.write = invalid_tag(index);
            }
        }
    }
}
