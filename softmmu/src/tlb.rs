//! The TLB: one direct-mapped bank per MMU mode, probed inline by compiled code.

use std::mem::size_of;

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
    /// Guest-physical page address, with [`META_GLOBAL`].
    pub meta: u64,
}

const _: () = assert!(size_of::<TlbEntry>() == 32);

/// In [`TlbEntry::meta`]: the page is global.
pub const META_GLOBAL: u64 = 1;

/// Entries per bank.
pub const TLB_ENTRIES: usize = 1024;

/// A tag that no address of set `index` matches.
pub const fn invalid_tag(index: usize) -> u64 {
    ((index ^ 1) as u64) << 12
}

/// The banks of one vCPU.
#[derive(Debug)]
pub struct Tlb {
    entries: Vec<TlbEntry>,
    /// Sets filled since the last flush of a bank; past the cap a flush walks the whole bank.
    touched: Vec<Vec<u16>>,
    banks: usize,
}

/// Past this many filled sets a flush walks the bank instead of a list.
const TOUCHED_CAP: usize = 512;

impl Tlb {
    /// `banks` banks, all invalid.
    pub fn new(banks: usize) -> Tlb {
        let entries = (0..banks * TLB_ENTRIES).map(|i| Tlb::invalid(i % TLB_ENTRIES)).collect();
        Tlb { entries, touched: vec![Vec::with_capacity(TOUCHED_CAP); banks], banks }
    }

    const fn invalid(index: usize) -> TlbEntry {
        TlbEntry { read: invalid_tag(index), write: invalid_tag(index), addend: 0, meta: 0 }
    }

    /// Set of a guest virtual address.
    #[inline(always)]
    pub const fn index(addr: u64) -> usize {
        (addr >> 12) as usize & (TLB_ENTRIES - 1)
    }

    /// Host address of a bank's first entry, for [`crate::EnvHeader::tlb`].
    pub fn bank_address(&self, bank: usize) -> u64 {
        self.entries[bank.min(self.banks - 1) * TLB_ENTRIES..].as_ptr() as u64
    }

    /// Value of [`crate::EnvHeader::tlb_mask`].
    pub const fn mask() -> u64 {
        ((TLB_ENTRIES - 1) * size_of::<TlbEntry>()) as u64
    }

    /// The entry of `addr`'s set.
    #[inline(always)]
    pub fn entry(&self, bank: usize, addr: u64) -> &TlbEntry {
        &self.entries[bank * TLB_ENTRIES + Tlb::index(addr)]
    }

    /// Fills the set of page `page`.
    pub fn fill(&mut self, bank: usize, page: u64, read: bool, write: bool, addend: u64, meta: u64) {
        let index = Tlb::index(page);
        let none = invalid_tag(index);
        self.entries[bank * TLB_ENTRIES + index] =
            TlbEntry { read: if read { page } else { none }, write: if write { page } else { none }, addend, meta };
        if self.touched[bank].len() < TOUCHED_CAP {
            self.touched[bank].push(index as u16);
        }
    }

    /// Invalidates everything, or everything but global pages.
    pub fn flush(&mut self, keep_global: bool) {
        for bank in 0..self.banks {
            let base = bank * TLB_ENTRIES;
            let touched = std::mem::take(&mut self.touched[bank]);
            let mut kept = Vec::with_capacity(TOUCHED_CAP);
            let mut visit = |entries: &mut Vec<TlbEntry>, index: usize| {
                let entry = &mut entries[base + index];
                if keep_global && entry.meta & META_GLOBAL != 0 {
                    if kept.len() < TOUCHED_CAP {
                        kept.push(index as u16);
                    }
                } else {
                    *entry = Tlb::invalid(index);
                }
            };
            if touched.len() < TOUCHED_CAP {
                touched.iter().for_each(|&i| visit(&mut self.entries, usize::from(i)));
            } else {
                (0..TLB_ENTRIES).for_each(|i| visit(&mut self.entries, i));
            }
            self.touched[bank] = kept;
        }
    }

    /// Invalidates the page of `addr` in every bank.
    pub fn flush_page(&mut self, addr: u64) {
        let index = Tlb::index(addr);
        for bank in 0..self.banks {
            self.entries[bank * TLB_ENTRIES + index] = Tlb::invalid(index);
        }
    }

    /// Makes every store take the slow path, which lets those through again that may.
    pub fn protect_all(&mut self) {
        for (i, entry) in self.entries.iter_mut().enumerate() {
            entry.write = invalid_tag(i % TLB_ENTRIES);
        }
    }

    /// Makes stores to the guest-physical page `gpa` take the slow path.
    pub fn protect_page(&mut self, gpa: u64) {
        for (i, entry) in self.entries.iter_mut().enumerate() {
            if entry.meta & !(PAGE_SIZE - 1) == gpa {
                entry.write = invalid_tag(i % TLB_ENTRIES);
            }
        }
    }
}
