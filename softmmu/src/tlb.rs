//! The TLB: direct-mapped banks, probed inline by compiled code.
//!
//! There is one bank for each MMU mode, and for one mode, the *private* one, a bank for each of some address spaces: what
//! one space's programs used is still there when it comes back. In the other modes most pages are global; what is not goes
//! when the space changes.
//!
//! A bank's size follows its use: it gets larger when it is filled again and again between two flushes, and smaller when flushes
//! find little in it. That happens where compiled code is told the bank's place anyway ([`Tlb::select`]).

use std::mem::size_of;

use crate::filter::PageFilter;

/// Guest page size in bytes.
pub const PAGE_SIZE: u64 = 4096;

/// One guest page of one bank, found by [`probe`]. A tag that must not match belongs to another set of the bank
/// ([`invalid_tag`]).
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

/// The probe: how an address is looked up, here and in code that is generated. [`probe::hits`] is what such code computes.
pub mod probe {
    use std::mem::{offset_of, size_of};

    use super::{PAGE_SIZE, TlbEntry};
    use crate::header::EnvHeader;

    /// Byte offset of the bank's first entry's address in the header.
    pub const BANK: usize = offset_of!(EnvHeader, tlb);
    /// Byte offset in the header of the mask for an entry's byte offset into the bank.
    pub const MASK: usize = offset_of!(EnvHeader, tlb_mask);
    /// An address shifted right by so many bits and masked is the byte offset of its page's entry: page number times the
    /// entry's size.
    pub const SHIFT: u32 = PAGE_SIZE.trailing_zeros() - size_of::<TlbEntry>().trailing_zeros();
    /// Byte offset of the addend in an entry.
    pub const ADDEND: usize = offset_of!(TlbEntry, addend);
    /// Byte offset of the physical page and its flags in an entry.
    pub const META: usize = offset_of!(TlbEntry, meta);

    /// Byte offset in an entry of the tag for stores, or for loads.
    pub const fn tag(write: bool) -> usize {
        if write { offset_of!(TlbEntry, write) } else { offset_of!(TlbEntry, read) }
    }

    /// An access of `size` bytes is a hit if its address exclusive-ored with the tag is below this: that checks page,
    /// permission and page-crossing in one compare.
    pub const fn limit(size: u64) -> u64 {
        PAGE_SIZE + 1 - size
    }

    /// An access of `size` bytes, a power of two, is a hit and a multiple of its size if its address exclusive-ored with the tag
    /// has none of these bits.
    pub const fn aligned(size: u64) -> u64 {
        !(PAGE_SIZE - 1) | (size - 1)
    }

    /// Whether an access of `size` bytes at `addr` is to the page of `tag`, and to no other.
    #[inline(always)]
    pub const fn hits(tag: u64, addr: u64, size: u64) -> bool {
        (addr ^ tag) < limit(size)
    }
}

/// In [`TlbEntry::meta`]: the page is global.
pub const META_GLOBAL: u64 = 1;

/// In [`TlbEntry::meta`]: stores may go to RAM if no watch forbids it, whatever the tag for stores says.
pub const META_WRITABLE: u64 = 1 << 7;

/// In [`TlbEntry::meta`]: position of log2 of the size in bytes of the guest's page, of which the entry has 4 KiB.
pub const META_SIZE: u32 = 1;

const SIZE_MASK: u64 = 0x3f;

/// Entries of a bank at first, and at least.
pub const TLB_ENTRIES: usize = 1024;

/// Most entries of a bank.
pub const TLB_MOST_ENTRIES: usize = 1 << 15;

/// A bank that was filled so many times its size since it was flushed or made larger is too small.
const CROWDED: u32 = 2;

/// How many times larger it gets then.
const GROWTH: usize = 4;

/// Of a bank's size, as a divisor: what is filled between two flushes when the bank is too large.
const SPARSE: u32 = 8;

/// After so many flushes that find little in it, a bank gets smaller.
const PATIENCE: u32 = 4;

/// A tag that no address of set `index` matches, whatever the bank's size.
pub const fn invalid_tag(index: usize) -> u64 {
    ((index ^ 1) as u64) << 12
}

/// The translations of one mode, or of one address space in the private mode.
#[derive(Debug)]
struct Bank {
    /// A power of two of them.
    entries: Vec<TlbEntry>,
    /// Anything at all, since everything was flushed.
    any: bool,
    /// Sets filled with pages that are not global since those were last flushed; past the cap a flush walks the whole bank.
    local: Vec<u16>,
    /// Fills since the bank was flushed or made larger.
    fills: u32,
    /// Flushes, one after the other, that found it sparse.
    sparse: u32,
}

impl Bank {
    fn new() -> Bank {
        Bank { entries: Bank::invalid(TLB_ENTRIES), any: false, local: Vec::new(), fills: 0, sparse: 0 }
    }

    fn invalid(count: usize) -> Vec<TlbEntry> {
        (0..count).map(Tlb::invalid).collect()
    }

    /// Set of a guest virtual address.
    #[inline(always)]
    fn index(&self, addr: u64) -> usize {
        (addr >> 12) as usize & (self.entries.len() - 1)
    }

    fn fill(&mut self, page: u64, entry: TlbEntry) {
        let index = self.index(page);
        self.entries[index] = entry;
        self.any = true;
        self.fills = self.fills.saturating_add(1);
        if entry.meta & META_GLOBAL == 0 && self.local.len() < LOCAL_CAP {
            self.local.push(index as u16);
        }
    }

    fn flush(&mut self) {
        self.note_flush();
        self.local.clear();
        if std::mem::take(&mut self.any) {
            self.entries.iter_mut().enumerate().for_each(|(index, entry)| *entry = Tlb::invalid(index));
        }
    }

    fn flush_local(&mut self) {
        self.note_flush();
        let drop_local = |index: usize, entry: &mut TlbEntry| {
            if entry.meta & META_GLOBAL == 0 {
                *entry = Tlb::invalid(index);
            }
        };
        if self.local.len() < LOCAL_CAP {
            self.local.iter().for_each(|&index| drop_local(usize::from(index), &mut self.entries[usize::from(index)]));
        } else {
            self.entries.iter_mut().enumerate().for_each(|(index, entry)| drop_local(index, entry));
        }
        self.local.clear();
    }

    fn note_flush(&mut self) {
        let fills = std::mem::take(&mut self.fills);
        let sparse = self.entries.len() > TLB_ENTRIES && fills < self.entries.len() as u32 / SPARSE;
        self.sparse = if sparse { self.sparse + 1 } else { 0 };
    }

    /// Whether [`Bank::adapt`] would change its size.
    fn misfits(&self) -> bool {
        let crowded = self.fills >= self.entries.len() as u32 * CROWDED;
        crowded && self.entries.len() < TLB_MOST_ENTRIES || self.sparse >= PATIENCE
    }

    /// Makes the bank larger if it is crowded, and smaller if it is sparse.
    #[cold]
    fn adapt(&mut self) {
        let count = if self.sparse >= PATIENCE {
            self.entries.len() / 2
        } else {
            (self.entries.len() * GROWTH).min(TLB_MOST_ENTRIES)
        };
        (self.fills, self.sparse) = (0, 0);
        let old = std::mem::replace(&mut self.entries, Bank::invalid(count.max(TLB_ENTRIES)));
        // Sets have other numbers now.
        self.local.clear();
        for (index, entry) in old.into_iter().enumerate() {
            let tags = [entry.read, entry.write];
            let Some(page) = tags.into_iter().find(|&tag| tag != invalid_tag(index)) else { continue };
            let none = invalid_tag(self.index(page));
            let tag = |tag| if tag == page { page } else { none };
            self.fill(page, TlbEntry { read: tag(entry.read), write: tag(entry.write), ..entry });
        }
        self.fills = 0;
    }
}

/// The banks of one vCPU.
#[derive(Debug)]
pub struct Tlb {
    banks: Vec<Bank>,
    /// The bank of each mode in the current address space.
    current: Vec<usize>,
    private: usize,
    /// Pages larger than 4 KiB that entries are parts of.
    large: PageFilter,
    /// Bank and page of entries that let stores through because the page is in the record of written display memory, and
    /// perhaps of others; if there are [`RECORDED_CAP`], not of all.
    recorded: Vec<(usize, u64)>,
}

/// Past this many entries with display memory all entries are looked at instead of a list.
const RECORDED_CAP: usize = 4096;

/// Past this many filled sets a flush walks the bank instead of a list.
const LOCAL_CAP: usize = 512;

impl Tlb {
    /// One address space with `modes` banks, all invalid.
    pub fn new(modes: usize) -> Tlb {
        Tlb::with_spaces(modes, 0, 1)
    }

    /// `modes` modes, of which `private` has a bank for each of `spaces` address spaces; all invalid, the first space current.
    pub fn with_spaces(modes: usize, private: usize, spaces: usize) -> Tlb {
        let banks = (0..modes + spaces.max(1) - 1).map(|_| Bank::new()).collect();
        Tlb { banks, current: (0..modes).collect(), private, large: PageFilter::default(), recorded: Vec::new() }
    }

    const fn invalid(index: usize) -> TlbEntry {
        TlbEntry { read: invalid_tag(index), write: invalid_tag(index), addend: 0, meta: 0 }
    }

    /// Chooses a mode's bank and gives it the size that it should have by now: host address of its first entry and mask for a
    /// byte offset into it, for [`crate::EnvHeader::tlb`] and [`crate::EnvHeader::tlb_mask`]. They are good until the next
    /// call.
    pub fn select(&mut self, mode: usize) -> (u64, u64) {
        let bank = &mut self.banks[self.current[mode]];
        if bank.misfits() {
            bank.adapt();
        }
        (bank.entries.as_ptr() as u64, ((bank.entries.len() - 1) * size_of::<TlbEntry>()) as u64)
    }

    /// The entry of `addr`'s set in a mode's bank.
    #[inline(always)]
    pub fn entry(&self, mode: usize, addr: u64) -> &TlbEntry {
        let bank = &self.banks[self.current[mode]];
        &bank.entries[bank.index(addr)]
    }

    /// Fills the set of page `page`.
    pub fn fill(&mut self, mode: usize, page: u64, read: bool, write: bool, addend: u64, meta: u64) {
        let bank = &mut self.banks[self.current[mode]];
        let none = invalid_tag(bank.index(page));
        let entry =
            TlbEntry { read: if read { page } else { none }, write: if write { page } else { none }, addend, meta };
        bank.fill(page, entry);
        let size = (meta >> META_SIZE & SIZE_MASK) as u32;
        if size > PAGE_SIZE.trailing_zeros() {
            self.large.insert(page, size);
        }
    }

    /// Invalidates everything in every address space, or everything but global pages.
    pub fn flush(&mut self, keep_global: bool) {
        self.banks.iter_mut().for_each(if keep_global { Bank::flush_local } else { Bank::flush });
        if !keep_global {
            self.large.clear();
            self.recorded.clear();
        }
    }

    /// Invalidates the pages of the current address space that are not global.
    pub fn flush_space(&mut self) {
        self.current.iter().for_each(|&bank| self.banks[bank].flush_local());
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
                self.banks[self.current[mode]].flush_local();
            }
        }
    }

    /// Every entry of the banks that are not empty, with its set.
    fn filled_entries(&mut self) -> impl Iterator<Item = (usize, &mut TlbEntry)> {
        let filled = self.banks.iter_mut().filter(|bank| bank.any);
        filled.flat_map(|bank| bank.entries.iter_mut().enumerate())
    }

    /// Invalidates the page of `addr` in every mode and address space: all of it when it is larger than 4 KiB
    /// (SDM vol. 3A, 4.10.4.1, INVLPG).
    pub fn flush_page(&mut self, addr: u64) {
        for bank in &mut self.banks {
            let index = bank.index(addr);
            let entry = &mut bank.entries[index];
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

    /// The set of page `page` in a mode's bank was filled with display memory and lets stores through.
    #[cold]
    pub(crate) fn note_recorded(&mut self, mode: usize, page: u64) {
        if self.recorded.len() < RECORDED_CAP {
            self.recorded.push((self.current[mode], page));
        }
    }

    /// Makes the next store to each page of display memory take the slow path: `is_display` says which those are, by
    /// guest-physical address.
    pub(crate) fn close_recorded(&mut self, is_display: impl Fn(u64) -> bool) {
        let close = |index: usize, entry: &mut TlbEntry| {
            entry.write = invalid_tag(index);
            entry.meta &= !META_WRITABLE;
        };
        let mut recorded = std::mem::take(&mut self.recorded);
        if recorded.len() < RECORDED_CAP {
            for &(bank, page) in &recorded {
                let bank = &mut self.banks[bank];
                let index = bank.index(page);
                let entry = &mut bank.entries[index];
                // The set may have another page by now, or the page another memory.
                if entry.write == page && is_display(entry.meta & !(PAGE_SIZE - 1)) {
                    close(index, entry);
                }
            }
        } else {
            let display = self.filled_entries().filter(|(_, entry)| is_display(entry.meta & !(PAGE_SIZE - 1)));
            display.for_each(|(index, entry)| close(index, entry));
        }
        recorded.clear();
        self.recorded = recorded;
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
