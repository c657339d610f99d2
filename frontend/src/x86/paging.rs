//! Linear to physical translation (SDM vol. 3A, chapter 4).

use mimus_softmmu::{Access, Mapping, Ram, Walker};

use super::cpu::bank;
use super::state::{State, cr0, cr4, efer};

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
        /// Error code ([`code`]).
        code: u32,
    },
    /// The address is not canonical.
    NonCanonical,
}

/// Bits of a page-fault error code (SDM vol. 3A, 4.7).
pub mod code {
    /// The page is present: the fault is one of rights or reserved bits.
    pub const PRESENT: u32 = 1 << 0;
    /// The access was a write.
    pub const WRITE: u32 = 1 << 1;
    /// The access was made at CPL 3.
    pub const USER: u32 = 1 << 2;
    /// A reserved bit is set in a paging structure.
    pub const RESERVED: u32 = 1 << 3;
    /// The access was an instruction fetch, and fetches can be forbidden.
    pub const FETCH: u32 = 1 << 4;
}

/// Bits of paging-structure entries (SDM vol. 3A, tables 4-4 to 4-20).
mod pte {
    pub const P: u64 = 1 << 0;
    pub const W: u64 = 1 << 1;
    pub const U: u64 = 1 << 2;
    pub const A: u64 = 1 << 5;
    pub const D: u64 = 1 << 6;
    pub const PS: u64 = 1 << 7;
    pub const G: u64 = 1 << 8;
    pub const NX: u64 = 1 << 63;
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
            Format::Long { levels: if s.cr4 & cr4::LA57 != 0 { 5 } else { 4 } }
        } else if s.cr4 & cr4::PAE != 0 {
            Format::Pae
        } else {
            Format::Bits32
        }
    }

    /// Bits that must be 0 in a present entry of `level`; `leaf` with PS for levels above 1.
    const fn reserved(self, s: &State, level: u32, leaf: bool) -> u64 {
        if matches!(self, Format::Bits32) {
            // PSE-36: bits 13..21 are address bits 32..40 (SDM vol. 3A, table 4-4).
            return if level == 2 && leaf { 1 << 21 } else { 0 };
        }
        let mut bits = HIGH_RESERVED;
        if s.efer & efer::NXE == 0 {
            bits |= pte::NX;
        }
        if matches!(self, Format::Pae) {
            bits |= 0x7ff << 52;
        }
        match (level, leaf) {
            (4 | 5, _) => bits | pte::PS,
            (3, true) => bits | 0x3fff_e000,
            (2, true) => bits | 0x1f_e000,
            _ => bits,
        }
    }
}

impl State {
    /// Whether `addr` is canonical (SDM vol. 1, 3.3.7.1). Outside IA-32e mode there is no such notion: true.
    pub const fn canonical(&self, addr: u64) -> bool {
        if !self.long_active() {
            return true;
        }
        let unused = if self.cr4 & cr4::LA57 != 0 { 7 } else { 16 };
        ((addr << unused) as i64 >> unused) as u64 == addr
    }

    /// `addr` as a linear address of the current mode: 32 bits wide outside IA-32e mode.
    pub const fn linear(&self, addr: u64) -> u64 {
        if self.long_active() { addr } else { addr & 0xffff_ffff }
    }

    /// Whether legacy PAE paging is in use.
    pub const fn pae_paging(&self) -> bool {
        self.cr0 & cr0::PG != 0 && self.cr4 & cr4::PAE != 0 && !self.long_active()
    }

    /// The four PDPTEs that `cr3` points at; `None` when a present one has a reserved bit set (SDM vol. 3A, 4.4.1).
    pub fn read_pdptes(ram: &Ram, cr3: u64) -> Option<[u64; 4]> {
        let mut entries = [0; 4];
        for (i, entry) in (0u64..).zip(&mut entries) {
            *entry = ram.read_u64((cr3 & 0xffff_ffe0) + 8 * i).unwrap_or(0);
        }
        let valid = |e: &u64| e & pte::P == 0 || e & PDPTE_RESERVED == 0;
        entries.iter().all(valid).then_some(entries)
    }
}

/// An entry visited on the way, to have its accessed bit set.
#[derive(Clone, Copy, Default)]
struct Visited {
    gpa: u64,
    value: u64,
}

struct Walk<'a> {
    state: &'a State,
    ram: &'a Ram,
    addr: u64,
    access: Access,
    bank: usize,
    format: Format,
}

/// Another agent changed an entry between its reading and the setting of its accessed bit.
struct Changed;

impl Walk<'_> {
    fn fault(&self, extra: u32) -> PageFault {
        let no_execute = self.state.efer & efer::NXE != 0 && self.format != Format::Bits32;
        let fetch = self.access == Access::Fetch && (no_execute || self.state.cr4 & cr4::SMEP != 0);
        let code = extra
            | if self.access == Access::Write { code::WRITE } else { 0 }
            | if self.bank == bank::USER { code::USER } else { 0 }
            | if fetch { code::FETCH } else { 0 };
        PageFault::Page { addr: self.addr, code }
    }

    fn entry(&self, gpa: u64) -> u64 {
        let value = match self.format {
            Format::Bits32 => self.ram.read_u32(gpa).map(u64::from),
            _ => self.ram.read_u64(gpa),
        };
        value.unwrap_or(0)
    }

    fn set_bits(&self, at: Visited, bits: u64) -> Result<(), Changed> {
        if at.value & bits == bits {
            return Ok(());
        }
        let new = at.value | bits;
        let done = match self.format {
            Format::Bits32 => self.ram.cas_u32(at.gpa, at.value as u32, new as u32),
            _ => self.ram.cas_u64(at.gpa, at.value, new),
        };
        // Entries are aligned and were just read from RAM: `None` cannot be.
        if done == Some(false) { Err(Changed) } else { Ok(()) }
    }

    /// Where the walk starts: table address and level.
    fn root(&self) -> Result<(u64, u32), PageFault> {
        match self.format {
            Format::Long { levels } => Ok((self.state.cr3 & PHYSICAL_MASK & !0xfff, levels)),
            Format::Bits32 => Ok((self.state.cr3 & 0xffff_f000, 2)),
            Format::Pae => {
                let entry = self.state.pdpte[(self.addr >> 30 & 3) as usize];
                if entry & pte::P == 0 {
                    return Err(self.fault(0));
                }
                Ok((entry & PHYSICAL_MASK & !0xfff, 2))
            }
        }
    }

    fn run(&self) -> Result<Result<Mapping, Changed>, PageFault> {
        let s = self.state;
        let (entry_bytes, index_bits) = if self.format == Format::Bits32 { (4, 10) } else { (8, 9) };
        let (mut table, mut level) = self.root()?;
        let mut visited = [Visited::default(); 5];
        let mut depth = 0;
        let (mut rights, mut no_execute) = (pte::U | pte::W, false);
        let (leaf, shift) = loop {
            let shift = 12 + index_bits * (level - 1);
            let index = self.addr >> shift & ((1 << index_bits) - 1);
            let gpa = table + index * entry_bytes;
            let value = self.entry(gpa);
            if value & pte::P == 0 {
                return Err(self.fault(0));
            }
            let large = level > 1
                && value & pte::PS != 0
                && (self.format != Format::Bits32 || s.cr4 & cr4::PSE != 0)
                && level <= 3;
            if value & self.format.reserved(s, level, large) != 0 {
                return Err(self.fault(code::PRESENT | code::RESERVED));
            }
            rights &= value;
            no_execute |= value & pte::NX != 0;
            visited[depth] = Visited { gpa, value };
            depth += 1;
            if large || level == 1 {
                break (value, shift);
            }
            table = value & PHYSICAL_MASK & !0xfff;
            level -= 1;
        };
        let writable = self.check_rights(rights, no_execute)?;

        let (last, upper) = visited[..depth].split_last().map_or((Visited::default(), &[][..]), |(l, u)| (*l, u));
        for &entry in upper {
            if self.set_bits(entry, pte::A).is_err() {
                return Ok(Err(Changed));
            }
        }
        let write = self.access == Access::Write;
        if self.set_bits(last, if write { pte::A | pte::D } else { pte::A }).is_err() {
            return Ok(Err(Changed));
        }
        let page_mask = (1u64 << shift) - 1;
        let frame = if self.format == Format::Bits32 && shift == 22 {
            leaf & 0xffc0_0000 | (leaf >> 13 & 0xff) << 32
        } else {
            leaf & PHYSICAL_MASK & !page_mask
        };
        Ok(Ok(Mapping {
            gpa: (frame | self.addr & page_mask) & !0xfff,
            writable: writable && (write || leaf & pte::D != 0),
            global: leaf & pte::G != 0 && s.cr4 & cr4::PGE != 0,
            shift,
        }))
    }

    /// Checks access rights (SDM vol. 3A, 4.6.1); whether a write would be allowed.
    fn check_rights(&self, rights: u64, no_execute: bool) -> Result<bool, PageFault> {
        let s = self.state;
        let (user_page, write_bit) = (rights & pte::U != 0, rights & pte::W != 0);
        let user = self.bank == bank::USER;
        let writable = write_bit || !user && s.cr0 & cr0::WP == 0;
        let allowed = match self.access {
            _ if user && !user_page => false,
            Access::Fetch => !no_execute && (user || !user_page || s.cr4 & cr4::SMEP == 0),
            _ if self.bank == bank::KERNEL_SMAP && user_page => false,
            Access::Read => true,
            Access::Write => writable,
        };
        if allowed { Ok(writable) } else { Err(self.fault(code::PRESENT)) }
    }
}

impl Walker for State {
    type Fault = PageFault;

    fn walk(&self, ram: &Ram, addr: u64, access: Access, bank: usize) -> Result<Mapping, PageFault> {
        if self.cr0 & cr0::PG == 0 {
            return Ok(Mapping { gpa: addr & 0xffff_f000, writable: true, global: false, shift: 12 });
        }
        if !self.canonical(addr) {
            return Err(PageFault::NonCanonical);
        }
        let addr = self.linear(addr);
        let walk = Walk { state: self, ram, addr, access, bank, format: Format::of(self) };
        loop {
            // A lost race with another agent is another agent's progress: walk again.
            if let Ok(mapping) = walk.run()? {
                return Ok(mapping);
            }
        }
    }
}
