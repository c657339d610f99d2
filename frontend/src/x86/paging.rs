//! Linear to physical translation (SDM vol. 3A, chapter 4).

use bitflags::bitflags;
use mimus_softmmu::{Access, Mapping, PageTables, Ram, Walker};

use super::cpu::bank;
use super::state::{Cr0, Cr3, Cr4, Efer, State};
use crate::common::debug::{MAX_ENTRIES, Tables, append};

/// Width of physical addresses in bits, as CPUID tells it (MAXPHYADDR).
pub const PHYSICAL_BITS: u32 = 40;

/// Bits of physical addresses that exist.
pub const PHYSICAL_MASK: u64 = (1 << PHYSICAL_BITS) - 1;

/// A failed translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageFault {
    /// #PF.
    Page {
        /// Faulting linear address, for CR2.
        addr: u64,
        /// Error code.
        code: FaultCode,
    },
    /// The address is not canonical.
    NonCanonical,
    /// No fault: a watchpoint wants the instruction executed by itself.
    Watched,
}

bitflags! {
    /// A page-fault error code (SDM vol. 3A, 4.7).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct FaultCode: u32 {
        /// The page is present: the fault is one of rights or reserved bits.
        const PRESENT = 1 << 0;
        /// The access was a write.
        const WRITE = 1 << 1;
        /// The access was made at CPL 3.
        const USER = 1 << 2;
        /// A reserved bit is set in a paging structure.
        const RESERVED = 1 << 3;
        /// The access was an instruction fetch, and fetches can be forbidden.
        const FETCH = 1 << 4;
    }
}

bitflags! {
    /// A paging-structure entry (SDM vol. 3A, tables 4-4 to 4-20).
    #[derive(Clone, Copy, PartialEq, Eq, Default)]
    struct Pte: u64 {
        const P = 1 << 0;
        const W = 1 << 1;
        const U = 1 << 2;
        const PWT = 1 << 3;
        const PCD = 1 << 4;
        const A = 1 << 5;
        const D = 1 << 6;
        const PS = 1 << 7;
        const G = 1 << 8;
        const NX = 1 << 63;
    }
}

impl Pte {
    /// Physical address of the table or page of 4 KiB that it leads to.
    const fn address(self) -> u64 {
        self.bits() & PHYSICAL_MASK & !0xfff
    }
}

impl Cr3 {
    /// Physical address of the top table of IA-32e paging (SDM vol. 3A, table 4-12).
    const fn table(self) -> u64 {
        self.bits() & PHYSICAL_MASK & !0xfff
    }

    /// Physical address of the page directory of 32-bit paging (table 4-3).
    const fn directory(self) -> u64 {
        self.bits() & 0xffff_f000
    }

    /// Physical address of the page-directory-pointer table of PAE paging (table 4-7).
    const fn pointer_table(self) -> u64 {
        self.bits() & 0xffff_ffe0
    }
}

/// Bits of a legacy PAE PDPTE that must be 0 (SDM vol. 3A, table 4-8).
const PDPTE_RESERVED: u64 = !PHYSICAL_MASK | 0x1e6;

/// Physical address bits above MAXPHYADDR in an 8-byte entry.
const HIGH_RESERVED: u64 = 0x000f_ffff_ffff_f000 & !PHYSICAL_MASK;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Bits32,
    Pae,
    Long { levels: u32 },
}

impl Format {
    const fn of(s: &State) -> Format {
        if s.long_active() {
            Format::Long { levels: if s.cr4.contains(Cr4::LA57) { 5 } else { 4 } }
        } else if s.cr4.contains(Cr4::PAE) {
            Format::Pae
        } else {
            Format::Bits32
        }
    }

    /// Bits that must be 0 in any present entry.
    const fn reserved(self, s: &State) -> u64 {
        let execute = if !s.efer.contains(Efer::NXE) { Pte::NX.bits() } else { 0 };
        match self {
            Format::Bits32 => 0,
            Format::Pae => HIGH_RESERVED | execute | 0x7ff << 52,
            Format::Long { .. } => HIGH_RESERVED | execute,
        }
    }
}

impl State {
    /// Whether `addr` is canonical (SDM vol. 1, 3.3.7.1). Outside IA-32e mode there is no such notion: true.
    pub const fn canonical(&self, addr: u64) -> bool {
        !self.long_active() || self.canonical_value(addr)
    }

    /// Whether `value` is canonical whatever the mode, as what WRMSR puts into a base has to be.
    pub const fn canonical_value(&self, value: u64) -> bool {
        let unused = if self.cr4.contains(Cr4::LA57) { 7 } else { 16 };
        ((value << unused) as i64 >> unused) as u64 == value
    }

    /// `addr` as a linear address of the current mode: 32 bits wide outside IA-32e mode.
    pub const fn linear(&self, addr: u64) -> u64 {
        if self.long_active() { addr } else { addr & 0xffff_ffff }
    }

    /// Whether legacy PAE paging is in use.
    pub const fn pae_paging(&self) -> bool {
        self.cr0.contains(Cr0::PG) && self.cr4.contains(Cr4::PAE) && !self.long_active()
    }

    /// The four PDPTEs that `cr3` points at; `None` when a present one has a reserved bit set (SDM vol. 3A, 4.4.1).
    pub fn read_pdptes(ram: &Ram, cr3: Cr3) -> Option<[u64; 4]> {
        let mut entries = [0; 4];
        for (i, entry) in (0u64..).zip(&mut entries) {
            *entry = ram.read_u64(cr3.pointer_table() + 8 * i).unwrap_or(0);
        }
        let valid = |e: &u64| e & Pte::P.bits() == 0 || e & PDPTE_RESERVED == 0;
        entries.iter().all(valid).then_some(entries)
    }
}

/// An entry visited on the way, to have its accessed bit set.
#[derive(Clone, Copy, Default)]
struct Visited {
    gpa: u64,
    value: Pte,
}

/// Bits that must be 0 in a present entry of `level` for what it is; `leaf` with PS for levels above 1.
const fn reserved_at(entry_bytes: u64, level: u32, leaf: bool) -> u64 {
    match (level, leaf) {
        // PSE-36: bits 13..21 are address bits 32..40 (SDM vol. 3A, table 4-4).
        (2, true) if entry_bytes == 4 => 1 << 21,
        _ if entry_bytes == 4 => 0,
        (4 | 5, _) => Pte::PS.bits(),
        (3, true) => 0x3fff_e000,
        (2, true) => 0x1f_e000,
        _ => 0,
    }
}

struct Walk<'a> {
    state: &'a State,
    tables: &'a PageTables<'a>,
    addr: u64,
    access: Access,
    bank: usize,
    format: Format,
}

/// Another agent changed an entry between its reading and the setting of its accessed bit.
struct Changed;

impl Walk<'_> {
    fn fault(&self, mut code: FaultCode) -> PageFault {
        let no_execute = self.state.efer.contains(Efer::NXE) && self.format != Format::Bits32;
        let fetch = self.access == Access::Fetch && (no_execute || self.state.cr4.contains(Cr4::SMEP));
        code.set(FaultCode::WRITE, self.access == Access::Write);
        code.set(FaultCode::USER, self.bank == bank::USER);
        code.set(FaultCode::FETCH, fetch);
        PageFault::Page { addr: self.addr, code }
    }

    /// Sets accessed and dirty bits of the entries of a walk, the last of which is the leaf.
    #[cold]
    fn mark(&self, visited: &[Visited], leaf_bits: Pte) -> Result<(), Changed> {
        let Some((last, upper)) = visited.split_last() else { return Ok(()) };
        upper.iter().try_for_each(|&entry| self.set_bits(entry, Pte::A))?;
        self.set_bits(*last, leaf_bits)
    }

    fn set_bits(&self, at: Visited, bits: Pte) -> Result<(), Changed> {
        if at.value.contains(bits) {
            return Ok(());
        }
        let new = at.value | bits;
        let size = if self.format == Format::Bits32 { 4 } else { 8 };
        // Entries are aligned. Those in memory that cannot be written stay as they are.
        let done = self.tables.replace(at.gpa, size, at.value.bits(), new.bits());
        if done == Some(false) { Err(Changed) } else { Ok(()) }
    }

    /// Where the walk starts: table address and level.
    fn root(&self) -> Result<(u64, u32), PageFault> {
        match self.format {
            Format::Long { levels } => Ok((self.state.cr3.table(), levels)),
            Format::Bits32 => Ok((self.state.cr3.directory(), 2)),
            Format::Pae => {
                let entry = Pte::from_bits_retain(self.state.pdpte[(self.addr >> 30 & 3) as usize]);
                if !entry.contains(Pte::P) {
                    return Err(self.fault(FaultCode::empty()));
                }
                Ok((entry.address(), 2))
            }
        }
    }

    fn run(&self) -> Result<Result<Mapping, Changed>, PageFault> {
        if self.format == Format::Bits32 { self.run_in::<4>() } else { self.run_in::<8>() }
    }

    /// Walks tables with entries of so many bytes.
    #[inline(always)]
    fn run_in<const ENTRY_BYTES: u64>(&self) -> Result<Result<Mapping, Changed>, PageFault> {
        let s = self.state;
        let index_bits = 12 - ENTRY_BYTES.trailing_zeros();
        let (mut table, mut level) = self.root()?;
        let reserved = self.format.reserved(s);
        let mut visited = [Visited::default(); 5];
        let mut depth = 0;
        // Of all entries.
        let (mut and, mut or) = (Pte::from_bits_retain(u64::MAX), Pte::empty());
        let (leaf, shift) = loop {
            let shift = 12 + index_bits * (level - 1);
            let index = self.addr >> shift & ((1 << index_bits) - 1);
            let gpa = table + index * ENTRY_BYTES;
            let tables = self.tables;
            let value = if ENTRY_BYTES == 4 { tables.read_u32(gpa).map(u64::from) } else { tables.read_u64(gpa) };
            let value = Pte::from_bits_retain(value.unwrap_or(0));
            if !value.contains(Pte::P) {
                return Err(self.fault(FaultCode::empty()));
            }
            let large =
                level > 1 && value.contains(Pte::PS) && (ENTRY_BYTES != 4 || s.cr4.contains(Cr4::PSE)) && level <= 3;
            if value.bits() & (reserved | reserved_at(ENTRY_BYTES, level, large)) != 0 {
                return Err(self.fault(FaultCode::PRESENT | FaultCode::RESERVED));
            }
            and &= value;
            or |= value;
            visited[depth] = Visited { gpa, value };
            depth += 1;
            if large || level == 1 {
                break (value, shift);
            }
            table = value.address();
            level -= 1;
        };
        let writable = self.check_rights(and, or.contains(Pte::NX))?;
        let write = self.access == Access::Write;
        let leaf_bits = if write { Pte::A | Pte::D } else { Pte::A };
        if (!and.contains(Pte::A) || !leaf.contains(leaf_bits)) && self.mark(&visited[..depth], leaf_bits).is_err() {
            return Ok(Err(Changed));
        }
        let page_mask = (1u64 << shift) - 1;
        let frame = if ENTRY_BYTES == 4 && shift == 22 {
            leaf.bits() & 0xffc0_0000 | (leaf.bits() >> 13 & 0xff) << 32
        } else {
            leaf.bits() & PHYSICAL_MASK & !page_mask
        };
        Ok(Ok(Mapping {
            gpa: (frame | self.addr & page_mask) & !0xfff,
            writable: writable && (write || leaf.contains(Pte::D)),
            global: leaf.contains(Pte::G) && s.cr4.contains(Cr4::PGE),
            shift,
        }))
    }

    /// Checks access rights (SDM vol. 3A, 4.6.1); whether a write would be allowed.
    fn check_rights(&self, rights: Pte, no_execute: bool) -> Result<bool, PageFault> {
        let s = self.state;
        let (user_page, write_bit) = (rights.contains(Pte::U), rights.contains(Pte::W));
        let user = self.bank == bank::USER;
        let writable = write_bit || !user && !s.cr0.contains(Cr0::WP);
        let allowed = match self.access {
            _ if user && !user_page => false,
            Access::Fetch => !no_execute && (user || !user_page || !s.cr4.contains(Cr4::SMEP)),
            _ if self.bank == bank::KERNEL_SMAP && user_page => false,
            Access::Read => true,
            Access::Write => writable,
        };
        if allowed { Ok(writable) } else { Err(self.fault(FaultCode::PRESENT)) }
    }
}

impl Walker for State {
    type Fault = PageFault;

    fn watched() -> PageFault {
        PageFault::Watched
    }

    fn walk(&self, tables: &PageTables<'_>, addr: u64, access: Access, bank: usize) -> Result<Mapping, PageFault> {
        if !self.cr0.contains(Cr0::PG) {
            return Ok(Mapping { gpa: addr & 0xffff_f000, writable: true, global: false, shift: 12 });
        }
        if !self.canonical(addr) {
            return Err(PageFault::NonCanonical);
        }
        let addr = self.linear(addr);
        let walk = Walk { state: self, tables, addr, access, bank, format: Format::of(self) };
        loop {
            // A lost race with another agent is another agent's progress: walk again.
            if let Ok(mapping) = walk.run()? {
                return Ok(mapping);
            }
        }
    }
}

impl State {
    /// Physical address of linear address `addr`, whatever its rights, as a debugger asks for it: sets no bits.
    pub fn translate_debug(&self, ram: &Ram, addr: u64) -> Option<u64> {
        let addr = self.linear(addr);
        if !self.cr0.contains(Cr0::PG) {
            return Some(addr);
        }
        if !self.canonical(addr) {
            return None;
        }
        let format = Format::of(self);
        let tables = &PageTables::read_only(ram);
        let walk = Walk { state: self, tables, addr, access: Access::Read, bank: bank::KERNEL, format };
        match walk.run() {
            Ok(Ok(mapping)) => Some(mapping.gpa | addr & 0xfff),
            _ => None,
        }
    }
}

/// A listing of page tables in the making.
struct Listing<'a> {
    state: &'a State,
    ram: &'a Ram,
    format: Format,
    tables: Tables,
    out: String,
    entries: usize,
    /// A range that may go on: begin, end, rights.
    range: Option<(u64, u64, Pte)>,
}

impl Listing<'_> {
    /// Lists what a table maps from linear address `base` on; whether there is to be more.
    fn table(&mut self, table: u64, level: u32, base: u64, rights: Pte) -> bool {
        let (bytes, bits) = if self.format == Format::Bits32 { (4, 10) } else { (8, 9) };
        let pae_root = self.format == Format::Pae && level == 3;
        let shift = 12 + bits * (level - 1);
        for index in 0..if pae_root { 4 } else { 1u64 << bits } {
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return false;
            }
            let entry = match self.format {
                Format::Pae if pae_root => self.state.pdpte.get(index as usize).copied(),
                Format::Bits32 => self.ram.read_u32(table + index * bytes).map(u64::from),
                _ => self.ram.read_u64(table + index * bytes),
            };
            let Some(entry) = entry.map(Pte::from_bits_retain).filter(|entry| entry.contains(Pte::P)) else { continue };
            let addr = base + (index << shift);
            let large = level > 1 && level <= 3 && !pae_root && entry.contains(Pte::PS);
            let large = large && (self.format != Format::Bits32 || self.state.cr4.contains(Cr4::PSE));
            // The PDPTEs of PAE have no rights.
            let rights = if pae_root { rights } else { rights & entry };
            let more = if large || level == 1 {
                self.page(addr, entry, shift, rights)
            } else {
                self.table(entry.address(), level - 1, addr, rights)
            };
            if !more {
                return false;
            }
        }
        true
    }

    fn page(&mut self, addr: u64, entry: Pte, shift: u32, rights: Pte) -> bool {
        let unused = match self.format {
            Format::Long { levels: 5 } => 7,
            Format::Long { .. } => 16,
            _ => 0,
        };
        let addr = ((addr << unused) as i64 >> unused) as u64;
        if self.tables == Tables::Pages {
            let frame = entry.bits() & PHYSICAL_MASK & !((1 << shift) - 1);
            let letters = [
                (Pte::NX, 'X'),
                (Pte::G, 'G'),
                (if shift > 12 { Pte::PS } else { Pte::empty() }, 'P'),
                (Pte::D, 'D'),
                (Pte::A, 'A'),
                (Pte::PCD, 'C'),
                (Pte::PWT, 'T'),
                (Pte::U, 'U'),
                (Pte::W, 'W'),
            ];
            let text: String = letters.iter().map(|&(bit, c)| if entry.intersects(bit) { c } else { '-' }).collect();
            return append(&mut self.out, &format!("{addr:016x}: {frame:016x} {text}\n"));
        }
        let (end, rights) = (addr.wrapping_add(1 << shift), rights);
        match &mut self.range {
            Some((_, last, same)) if *last == addr && *same == rights => {
                *last = end;
                true
            }
            _ => {
                let more = self.end_range();
                self.range = Some((addr, end, rights));
                more
            }
        }
    }

    fn end_range(&mut self) -> bool {
        let Some((begin, end, rights)) = self.range.take() else { return true };
        let (user, write) =
            (if rights.contains(Pte::U) { 'u' } else { '-' }, if rights.contains(Pte::W) { 'w' } else { '-' });
        let size = end.wrapping_sub(begin);
        append(&mut self.out, &format!("{begin:016x}-{end:016x} {size:016x} {user}r{write}\n"))
    }
}

/// What is mapped, as QEMU's `info tlb` and `info mem` show it.
pub(super) fn tables_text(state: &State, ram: &Ram, tables: Tables) -> String {
    if !state.cr0.contains(Cr0::PG) {
        return "PG disabled\n".to_owned();
    }
    let format = Format::of(state);
    let (root, level) = match format {
        Format::Bits32 => (state.cr3.directory(), 2),
        Format::Pae => (0, 3),
        Format::Long { levels } => (state.cr3.table(), levels),
    };
    let mut listing = Listing { state, ram, format, tables, out: String::new(), entries: 0, range: None };
    listing.table(root, level, 0, Pte::U | Pte::W);
    listing.end_range();
    listing.out
}
