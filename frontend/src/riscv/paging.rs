//! Virtual to physical translation: Sv39, Sv48 and Sv57 (vol. II, "Supervisor-Level ISA"), with Svade and Svadu.

use bitflags::bitflags;
use mimus_softmmu::{Access, Mapping, PAGE_SIZE, PageTables, Ram, Walker};

use super::cpu::bank;
use super::state::{Envcfg, Mstatus, State, privilege};
use super::trap::{Trap, cause};
use crate::common::debug::{MAX_ENTRIES, Tables, append};

/// Width of physical addresses in bits.
pub const PHYSICAL_BITS: u32 = 56;

/// Modes of satp.
#[allow(missing_docs)]
pub mod satp {
    pub const BARE: u64 = 0;
    pub const SV39: u64 = 8;
    pub const SV57: u64 = 10;
    pub const MODE_SHIFT: u32 = 60;
    pub const ASID_SHIFT: u32 = 44;
    pub const ASID: u64 = 0xffff;
    pub const PPN: u64 = (1 << 44) - 1;
}

bitflags! {
    /// A page-table entry (vol. II, "Sv39: Page-Based 39-bit Virtual-Memory System").
    #[derive(Clone, Copy, PartialEq, Eq)]
    struct Pte: u64 {
        const V = 1 << 0;
        const R = 1 << 1;
        const W = 1 << 2;
        const X = 1 << 3;
        const U = 1 << 4;
        const G = 1 << 5;
        const A = 1 << 6;
        const D = 1 << 7;
        /// Of extensions that are not there: Svnapot's N, Svpbmt's PBMT, and what nobody has.
        const RESERVED = 0x3ff << 54;
    }
}

impl Pte {
    /// The bits that a listing shows.
    const RIGHTS: Pte = Pte::from_bits_retain(0xff);

    /// Physical address of the table or page that it leads to.
    const fn address(self) -> u64 {
        (self.bits() >> 10 & ((1 << 44) - 1)) << 12
    }

    const fn is_leaf(self) -> bool {
        self.intersects(Pte::R.union(Pte::X))
    }
}

/// The cause of a page fault.
const fn page_fault(access: Access) -> u64 {
    match access {
        Access::Read => cause::LOAD_PAGE_FAULT,
        Access::Write => cause::STORE_PAGE_FAULT,
        Access::Fetch => cause::FETCH_PAGE_FAULT,
    }
}

/// The cause of an access fault.
pub(crate) const fn access_fault(access: Access) -> u64 {
    match access {
        Access::Read => cause::LOAD_ACCESS_FAULT,
        Access::Write => cause::STORE_ACCESS_FAULT,
        Access::Fetch => cause::FETCH_ACCESS_FAULT,
    }
}

/// Another agent changed an entry between its reading and the setting of its accessed bit.
struct Changed;

struct Walk<'a> {
    state: &'a State,
    tables: &'a PageTables<'a>,
    addr: u64,
    access: Access,
    bank: usize,
    levels: u32,
}

impl Walk<'_> {
    fn fault(&self, cause: u64) -> Trap {
        Trap { cause, tval: self.addr }
    }

    fn page_fault(&self) -> Trap {
        self.fault(page_fault(self.access))
    }

    fn access_fault(&self) -> Trap {
        self.fault(access_fault(self.access))
    }

    fn run(&self) -> Result<Result<Mapping, Changed>, Trap> {
        let s = self.state;
        let mut table = (s.satp & satp::PPN) << 12;
        let mut global = false;
        let mut level = self.levels;
        let (at, entry) = loop {
            level -= 1;
            let at = table + (self.addr >> (12 + 9 * level) & 0x1ff) * 8;
            if !s.pmp_allows(at, Access::Read, privilege::SUPERVISOR) {
                return Err(self.access_fault());
            }
            let Some(entry) = self.tables.read_u64(at) else { return Err(self.access_fault()) };
            let entry = Pte::from_bits_retain(entry);
            let reserved = entry.intersects(Pte::RESERVED) || entry & (Pte::R | Pte::W) == Pte::W;
            if !entry.contains(Pte::V) || reserved {
                return Err(self.page_fault());
            }
            global |= entry.contains(Pte::G);
            if entry.is_leaf() {
                break (at, entry);
            }
            if level == 0 || entry.intersects(Pte::A | Pte::D | Pte::U) {
                return Err(self.page_fault());
            }
            table = entry.address();
        };
        let shift = 12 + 9 * level;
        let frame = entry.address();
        if !self.allowed(entry) || frame & ((1 << shift) - 1) != 0 {
            return Err(self.page_fault());
        }
        let needed = if self.access == Access::Write { Pte::A | Pte::D } else { Pte::A };
        if !entry.contains(needed) {
            if !s.menvcfg.intersects(Envcfg::ADUE) {
                return Err(self.page_fault());
            }
            if !s.pmp_allows(at, Access::Write, privilege::SUPERVISOR) {
                return Err(self.access_fault());
            }
            match self.tables.replace(at, 8, entry.bits(), (entry | needed).bits()) {
                Some(true) => {}
                Some(false) => return Ok(Err(Changed)),
                // It was read from memory that cannot be written.
                None => return Err(self.access_fault()),
            }
        }
        let gpa = frame | self.addr & ((1 << shift) - 1) & !(PAGE_SIZE - 1);
        let writable = entry.contains(Pte::W) && (entry | needed).contains(Pte::D);
        self.physical(Mapping { gpa, writable, global, shift }).map(Ok)
    }

    /// Whether the leaf `entry` permits the access.
    fn allowed(&self, entry: Pte) -> bool {
        let user_page = entry.contains(Pte::U);
        let level = match self.bank {
            bank::USER => user_page,
            bank::SUPERVISOR_SUM => !user_page || self.access != Access::Fetch,
            _ => !user_page,
        };
        let executable_too = self.state.mstatus.intersects(Mstatus::MXR);
        let bits = match self.access {
            Access::Read if executable_too => Pte::R | Pte::X,
            Access::Read => Pte::R,
            Access::Write => Pte::W,
            Access::Fetch => Pte::X,
        };
        level && entry.intersects(bits)
    }

    /// The mapping, as far as physical memory protection allows it.
    fn physical(&self, map: Mapping) -> Result<Mapping, Trap> {
        let level = match self.bank {
            bank::MACHINE => privilege::MACHINE,
            bank::USER => privilege::USER,
            _ => privilege::SUPERVISOR,
        };
        if map.gpa >> PHYSICAL_BITS != 0 || !self.state.pmp_allows(map.gpa, self.access, level) {
            return Err(self.access_fault());
        }
        // What is kept of the mapping must be good for loads, whatever it was looked up for.
        let readable = self.access != Access::Write || self.state.pmp_allows(map.gpa, Access::Read, level);
        let writable = map.writable && readable && self.state.pmp_allows(map.gpa, Access::Write, level);
        Ok(Mapping { writable, ..map })
    }
}

impl Walker for State {
    type Fault = Trap;

    fn watched() -> Trap {
        Trap::WATCHED
    }

    fn walk(&self, tables: &PageTables<'_>, addr: u64, access: Access, bank: usize) -> Result<Mapping, Trap> {
        let mode = self.satp >> satp::MODE_SHIFT;
        let walk = |levels| Walk { state: self, tables, addr, access, bank, levels };
        if mode == satp::BARE || bank == bank::MACHINE {
            return walk(0).physical(Mapping { gpa: addr & !(PAGE_SIZE - 1), writable: true, global: true, shift: 12 });
        }
        // satp holds one of the three modes; Sv39 has three levels.
        let levels = (mode - satp::SV39) as u32 + 3;
        let walk = walk(levels);
        let unused = 64 - (12 + 9 * levels);
        if ((addr << unused) as i64 >> unused) as u64 != addr {
            return Err(walk.page_fault());
        }
        loop {
            // A lost race with another agent is another agent's progress: walk again.
            if let Ok(mapping) = walk.run()? {
                return Ok(mapping);
            }
        }
    }
}

impl State {
    /// Levels of the present mode's tables; 0 where addresses are physical.
    fn levels(&self) -> u32 {
        let mode = self.satp >> satp::MODE_SHIFT;
        if mode == satp::BARE || self.data_privilege() == privilege::MACHINE {
            return 0;
        }
        (mode - satp::SV39) as u32 + 3
    }

    /// Physical address of virtual address `addr`, whatever its rights, as a debugger asks for it: sets no bits.
    pub fn translate_debug(&self, ram: &Ram, addr: u64) -> Option<u64> {
        let levels = self.levels();
        if levels == 0 {
            return Some(addr);
        }
        let unused = 64 - (12 + 9 * levels);
        if ((addr << unused) as i64 >> unused) as u64 != addr {
            return None;
        }
        let mut table = (self.satp & satp::PPN) << 12;
        for level in (0..levels).rev() {
            let shift = 12 + 9 * level;
            let entry = Pte::from_bits_retain(ram.read_u64(table + (addr >> shift & 0x1ff) * 8)?);
            if !entry.contains(Pte::V) {
                return None;
            }
            let frame = entry.address();
            if entry.is_leaf() {
                let within = (1u64 << shift) - 1;
                return Some(frame & !within | addr & within);
            }
            table = frame;
        }
        None
    }
}

/// Mapped pages with the same rights that follow one another in both address spaces.
#[derive(Clone, Copy)]
struct Range {
    addr: u64,
    gpa: u64,
    size: u64,
    rights: Pte,
}

/// A listing of page tables in the making.
struct Listing<'a> {
    ram: &'a Ram,
    levels: u32,
    tables: Tables,
    out: String,
    entries: usize,
    range: Option<Range>,
}

impl Listing<'_> {
    /// Lists what a table maps from `base` on; whether there is to be more.
    fn table(&mut self, table: u64, level: u32, base: u64) -> bool {
        let shift = 12 + 9 * level;
        for index in 0..512u64 {
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return false;
            }
            let entry = self.ram.read_u64(table + index * 8).map(Pte::from_bits_retain);
            let Some(entry) = entry.filter(|entry| entry.contains(Pte::V)) else {
                continue;
            };
            let addr = base | index << shift;
            let frame = entry.address();
            let more = if entry.is_leaf() {
                self.page(addr, frame, 1 << shift, entry & Pte::RIGHTS)
            } else {
                level == 0 || self.table(frame, level - 1, addr)
            };
            if !more {
                return false;
            }
        }
        true
    }

    fn page(&mut self, addr: u64, gpa: u64, size: u64, rights: Pte) -> bool {
        let unused = 64 - (12 + 9 * self.levels);
        let addr = ((addr << unused) as i64 >> unused) as u64;
        let grows = self.tables == Tables::Ranges;
        match &mut self.range {
            Some(r)
                if grows
                    && r.addr.wrapping_add(r.size) == addr
                    && r.gpa.wrapping_add(r.size) == gpa
                    && r.rights == rights =>
            {
                r.size += size;
                true
            }
            _ => {
                let more = self.end_range();
                self.range = Some(Range { addr, gpa, size, rights });
                more
            }
        }
    }

    fn end_range(&mut self) -> bool {
        let Some(Range { addr, gpa, size, rights }) = self.range.take() else { return true };
        let letters =
            [(Pte::R, 'r'), (Pte::W, 'w'), (Pte::X, 'x'), (Pte::U, 'u'), (Pte::G, 'g'), (Pte::A, 'a'), (Pte::D, 'd')];
        let text: String = letters.iter().map(|&(bit, c)| if rights.contains(bit) { c } else { '-' }).collect();
        append(&mut self.out, &format!("{addr:016x} {gpa:016x} {size:016x} {text}\n"))
    }
}

/// What is mapped, as QEMU's `info mem` shows it.
pub(super) fn tables_text(state: &State, ram: &Ram, tables: Tables) -> String {
    let levels = state.levels();
    if levels == 0 {
        return "No translation or protection\n".to_owned();
    }
    let out = "vaddr            paddr            size             attr\n\
               ---------------- ---------------- ---------------- -------\n"
        .to_owned();
    let mut listing = Listing { ram, levels, tables, out, entries: 0, range: None };
    listing.table((state.satp & satp::PPN) << 12, levels - 1, 0);
    listing.end_range();
    listing.out
}
