//! Page walks in all three formats, permissions, accessed and dirty bits, fences, address spaces.

use mimus_frontend::riscv::isa::Code::*;
use mimus_frontend::riscv::isa::Insn;
use mimus_frontend::riscv::state::{Envcfg, Mstatus};
use mimus_softmmu::Backing;

use crate::hart::{BASE, DATA, HANDLER, Hart, action, i, r, s};

const V: u64 = 1;
const R: u64 = 2;
const W: u64 = 4;
const X: u64 = 8;
const U: u64 = 16;
const G: u64 = 32;
const A: u64 = 64;
const D: u64 = 128;
const LEAF: u64 = V | R | W | X | A | D;

/// Where tables begin; a page for each level.
const TABLES: u64 = BASE + 0x1_0000;
/// Virtual address that the tests map, with a different index at every level of Sv39.
const VIRTUAL: u64 = 0x12_3456_7000 & 0x3f_ffff_ffff;

fn entry(gpa: u64, flags: u64) -> u64 {
    gpa >> 12 << 10 | flags
}

/// A hart in supervisor mode at a page that maps itself; `VIRTUAL` is mapped to `DATA` by an entry with `flags`.
struct Paged {
    hart: Hart,
    /// Address of the leaf entry of `VIRTUAL`.
    leaf: u64,
    levels: u32,
}

impl Paged {
    fn new(levels: u32, flags: u64) -> Paged {
        let mut hart = Hart::new().open_pmp();
        let ram = hart.cpu.mmu.ram.clone();
        let index = |addr: u64, level: u32| addr >> (12 + 9 * level) & 0x1ff;
        let table = |level: u32| TABLES + 0x1000 * u64::from(level);
        let mut leaf = 0;
        for level in (0..levels).rev() {
            leaf = table(level) + 8 * index(VIRTUAL, level);
            let value = if level == 0 { entry(DATA, flags) } else { entry(table(level - 1), V) };
            ram.write_u64(leaf, value).unwrap();
        }
        // Code is in a gigapage that maps itself; the levels above have the same entries for it.
        ram.write_u64(table(2) + 8 * index(BASE, 2), entry(BASE, LEAF | G)).unwrap();
        let satp = u64::from(levels + 5) << 60 | (TABLES + 0x1000 * u64::from(levels - 1)) >> 12;
        hart.cpu.access_csr(0x180, action::WRITE, satp).unwrap();
        hart.cpu.state.x[10] = VIRTUAL;
        hart.cpu.state.x[11] = 0x55;
        hart.enter(1, BASE);
        Paged { hart, leaf, levels }
    }

    fn pte(&self) -> u64 {
        self.hart.cpu.mmu.ram.read_u64(self.leaf).unwrap()
    }

    fn set_pte(&mut self, value: u64) {
        self.hart.cpu.mmu.ram.write_u64(self.leaf, value).unwrap();
        self.hart.cpu.flush_tlb();
    }

    /// Cause of the fault of an access in a mode, 0 if there is none.
    fn access(&mut self, privilege: u64, insn: Insn) -> u64 {
        self.hart.enter(3, BASE);
        self.hart.code(&[insn]);
        // In user mode the instruction is executed from memory that is its own: machine mode lends it its privilege.
        let mpp = Mstatus::from_bits_retain(privilege << Mstatus::MPP_SHIFT);
        let mstatus = &mut self.hart.cpu.state.mstatus;
        *mstatus = *mstatus & !Mstatus::MPP | Mstatus::MPRV | mpp;
        self.hart.cpu.update_mode();
        self.hart.block(1);
        let faulted = self.hart.cpu.state.pc == HANDLER;
        if faulted {
            assert_eq!(self.hart.cpu.state.mtval, VIRTUAL);
        }
        if faulted { self.hart.cpu.state.mcause } else { 0 }
    }

    fn load(&mut self, privilege: u64) -> u64 {
        self.access(privilege, i(Lw, 12, 10, 0))
    }

    fn store(&mut self, privilege: u64) -> u64 {
        self.access(privilege, s(Sw, 11, 10, 0))
    }

    /// Cause of the fault of a jump to the page.
    fn fetch(&mut self, privilege: u64) -> u64 {
        self.hart.cpu.mmu.ram.write_u32(DATA, i(Addi, 0, 0, 0).encode()).unwrap();
        self.hart.enter(privilege, VIRTUAL);
        self.hart.block(1);
        if self.hart.cpu.state.pc == HANDLER { self.hart.cpu.state.mcause } else { 0 }
    }
}

#[test]
fn three_formats_translate_and_know_their_addresses() {
    for levels in [3, 4, 5] {
        let mut p = Paged::new(levels, LEAF);
        p.hart.cpu.mmu.ram.write_u64(DATA + 0x128, 0xfeed).unwrap();
        p.hart.run(&[i(Ld, 12, 10, 0x128)]);
        assert_eq!(p.hart.cpu.state.x[12], 0xfeed, "{levels} levels");
        // The first address that is not canonical, and the last.
        let half = 1u64 << (11 + 9 * p.levels);
        for addr in [half, half.wrapping_neg() - 8] {
            p.hart.cpu.state.x[10] = addr;
            p.hart.enter(1, BASE);
            assert_eq!(p.hart.trap(i(Ld, 12, 10, 0)), (13, addr));
        }
    }
}

#[test]
fn permissions_are_checked_for_every_access_and_mode() {
    // Flags, then for supervisor and user mode the causes of loads, stores and fetches.
    for (flags, supervisor, user) in [
        (LEAF, [0, 0, 0], [13, 15, 12]),
        (LEAF | U, [13, 15, 12], [0, 0, 0]),
        (LEAF & !W, [0, 15, 0], [13, 15, 12]),
        (LEAF & !X, [0, 0, 12], [13, 15, 12]),
        (V | X | A | D, [13, 15, 0], [13, 15, 12]),
        (LEAF & !V, [13, 15, 12], [13, 15, 12]),
        (V | W | A | D, [13, 15, 12], [13, 15, 12]),
        (LEAF | 1 << 54, [13, 15, 12], [13, 15, 12]),
        (LEAF | 1 << 61, [13, 15, 12], [13, 15, 12]),
        (LEAF | 1 << 63, [13, 15, 12], [13, 15, 12]),
        (V, [13, 15, 12], [13, 15, 12]),
    ] {
        let mut p = Paged::new(3, flags);
        assert_eq!([p.load(1), p.store(1), p.fetch(1)], supervisor, "{flags:#x}");
        assert_eq!([p.load(0), p.store(0), p.fetch(0)], user, "{flags:#x}");
    }
}

#[test]
fn sum_opens_user_pages_to_data_only_and_mxr_executable_ones() {
    let mut p = Paged::new(3, LEAF | U);
    p.hart.cpu.state.mstatus |= Mstatus::SUM;
    assert_eq!([p.load(1), p.store(1), p.fetch(1)], [0, 0, 12]);
    let mut p = Paged::new(3, V | X | A | D);
    assert_eq!(p.load(1), 13);
    p.hart.enter(1, BASE);
    p.hart.cpu.state.x[6] = Mstatus::MXR.bits();
    p.hart.run(&[i(Csrrs, 0, 6, 0x100)]);
    assert_eq!(p.load(1), 0);
    p.hart.enter(1, BASE);
    p.hart.run(&[i(Csrrc, 0, 6, 0x100)]);
    assert_eq!(p.load(1), 13, "and closed again");
}

#[test]
fn accessed_and_dirty_bits_are_set_or_asked_for() {
    let clear = LEAF & !(A | D);
    let mut p = Paged::new(3, clear);
    assert_eq!((p.load(1), p.pte() & (A | D)), (0, A), "Svadu, after a reset");
    p.hart.enter(3, BASE);
    p.hart.cpu.access_csr(0x30a, action::WRITE, 0).unwrap();
    p.set_pte(entry(DATA, clear));
    assert_eq!([p.load(1), p.store(1), p.fetch(1)], [13, 15, 12], "Svade");
    assert_eq!(p.pte() & (A | D), 0);
    p.set_pte(entry(DATA, clear | A));
    assert_eq!([p.load(1), p.store(1), p.load(1)], [0, 15, 0]);
    p.hart.enter(3, BASE);
    p.hart.cpu.access_csr(0x30a, action::WRITE, 1 << 61).unwrap();
    p.set_pte(entry(DATA, clear));
    assert_eq!((p.load(1), p.pte() & (A | D)), (0, A), "Svadu");
    assert_eq!((p.store(1), p.pte() & (A | D)), (0, A | D));
    p.set_pte(entry(DATA, clear & !W));
    assert_eq!((p.store(1), p.pte() & (A | D)), (15, 0), "a refused store sets nothing");
}

#[test]
fn large_pages_map_all_of_themselves_and_must_be_aligned() {
    for (level, size) in [(1u32, 1u64 << 21), (2, 1 << 30)] {
        let mut p = Paged::new(3, LEAF);
        let at = TABLES + 0x1000 * u64::from(level) + 8 * (VIRTUAL >> (12 + 9 * level) & 0x1ff);
        p.hart.cpu.mmu.ram.write_u64(at, entry(BASE, LEAF)).unwrap();
        p.hart.cpu.state.x[10] = VIRTUAL & !(size - 1) | 0x4008;
        p.hart.cpu.mmu.ram.write_u64(DATA + 8, 0xbeef).unwrap();
        p.hart.run(&[i(Ld, 12, 10, 0)]);
        assert_eq!(p.hart.cpu.state.x[12], 0xbeef, "level {level}");
        p.hart.cpu.mmu.ram.write_u64(at, entry(BASE + 0x1000, LEAF)).unwrap();
        p.hart.cpu.flush_tlb();
        p.hart.enter(1, BASE);
        assert_eq!(p.hart.trap(i(Ld, 12, 10, 0)).0, 13, "level {level}");
        p.hart.cpu.mmu.ram.write_u64(at, entry(BASE, V | A)).unwrap();
        p.hart.cpu.flush_tlb();
        p.hart.enter(1, BASE);
        assert_eq!(p.hart.trap(i(Ld, 12, 10, 0)).0, 13, "A in an entry that is no leaf");
    }
}

#[test]
fn fences_make_new_entries_seen() {
    let fences = [
        r(SfenceVma, 0, 0, 0),
        r(SfenceVma, 0, 10, 0),
        r(SfenceVma, 0, 0, 13),
        r(SfenceVma, 0, 10, 13),
        r(SinvalVma, 0, 10, 0),
    ];
    for fence in fences {
        let mut p = Paged::new(3, LEAF);
        let ram = p.hart.cpu.mmu.ram.clone();
        ram.write_u64(DATA, 1).unwrap();
        ram.write_u64(DATA + 0x1000, 2).unwrap();
        p.hart.run(&[i(Ld, 12, 10, 0)]);
        ram.write_u64(p.leaf, entry(DATA + 0x1000, LEAF)).unwrap();
        p.hart.run(&[i(Ld, 13, 10, 0)]);
        assert_eq!((p.hart.cpu.state.x[12], p.hart.cpu.state.x[13]), (1, 1), "the TLB has it");
        p.hart.cpu.state.x[13] = 0;
        p.hart.run(&[fence, i(Ld, 13, 10, 0)]);
        assert_eq!(p.hart.cpu.state.x[13], 2, "{fence:?}");
    }
}

#[test]
fn address_spaces_keep_their_own_entries_and_share_global_ones() {
    let mut p = Paged::new(3, LEAF | U);
    let ram = p.hart.cpu.mmu.ram.clone();
    ram.write_u64(DATA, 1).unwrap();
    let first = p.hart.cpu.state.satp;
    assert_eq!(p.load(0), 0);
    // Another space, in which the page is not there.
    p.hart.cpu.access_csr(0x180, action::WRITE, first | 5 << 44).unwrap();
    ram.write_u64(p.leaf, 0).unwrap();
    assert_eq!(p.load(0), 13);
    p.hart.enter(3, BASE);
    p.hart.cpu.access_csr(0x180, action::WRITE, first).unwrap();
    assert_eq!(p.load(0), 0, "what was known before");
    p.hart.enter(3, BASE);
    p.hart.cpu.state.x[13] = 5;
    p.hart.run(&[r(SfenceVma, 0, 0, 13)]);
    assert_eq!(p.load(0), 0, "the other space was flushed");
    p.hart.enter(3, BASE);
    p.hart.run(&[r(SfenceVma, 0, 0, 0)]);
    assert_eq!(p.load(0), 13);
}

#[test]
fn an_access_that_crosses_into_a_missing_page_faults_there_and_does_nothing() {
    let mut p = Paged::new(3, LEAF);
    p.hart.cpu.state.x[10] = VIRTUAL + 0xffd;
    p.hart.cpu.mmu.ram.write_u64(DATA + 0xff8, 0).unwrap();
    p.hart.enter(1, BASE);
    assert_eq!(p.hart.trap(s(Sd, 11, 10, 0)), (15, VIRTUAL + 0x1000));
    assert_eq!(p.hart.cpu.mmu.ram.read_u64(DATA + 0xff8), Some(0));
    // An instruction that does, too.
    p.hart.cpu.mmu.ram.write_u16(DATA + 0xffe, 0x0013).unwrap();
    p.hart.enter(1, VIRTUAL + 0xffe);
    let pc = p.hart.cpu.state.pc;
    assert!(p.hart.cpu.translate_fetch(pc).is_ok());
    assert!(p.hart.cpu.translate_fetch(pc + 2).is_err());
    p.hart.cpu.deliver_pending();
    assert_eq!((p.hart.cpu.state.mcause, p.hart.cpu.state.mepc, p.hart.cpu.state.mtval), (12, pc, pc + 2));
}

#[test]
fn protection_of_physical_memory_holds_for_pages_and_tables() {
    let mut p = Paged::new(3, LEAF);
    // The page at DATA is for machine mode alone.
    p.hart.cpu.state.privilege = 3;
    for (number, value) in [(0x3b1, u64::MAX), (0x3b0, DATA >> 2 | 0x1ff), (0x3a0, 0x1f18)] {
        p.hart.cpu.access_csr(number, action::WRITE, value).unwrap();
    }
    assert_eq!([p.load(1), p.store(1), p.fetch(1)], [5, 7, 1]);
    // Its table instead.
    p.hart.enter(3, BASE);
    p.hart.cpu.access_csr(0x3b0, action::WRITE, TABLES >> 2 | 0x1ff).unwrap();
    assert_eq!([p.load(1), p.store(1), p.fetch(1)], [5, 7, 1]);
    // A page that may be read only.
    p.hart.enter(3, BASE);
    p.hart.cpu.access_csr(0x3b0, action::WRITE, DATA >> 2 | 0x1ff).unwrap();
    p.hart.cpu.access_csr(0x3a0, action::WRITE, 0x1f19).unwrap();
    assert_eq!([p.load(1), p.store(1), p.load(1), p.store(1), p.fetch(1)], [0, 7, 0, 7, 1]);
}

#[test]
fn a_table_in_rom_cannot_be_marked_as_accessed() {
    let mut paged = Paged::new(3, LEAF & !(A | D));
    paged.hart.cpu.state.menvcfg |= Envcfg::ADUE;
    let page = paged.leaf & !0xfff;
    assert!(paged.hart.cpu.mmu.ram.set_backing(page, Backing::ROM));
    assert_eq!(paged.access(1, i(Lw, 12, 10, 0)), 5);
    assert_eq!(paged.access(1, s(Sw, 11, 10, 0)), 7);
    assert!(paged.hart.cpu.mmu.ram.set_backing(page, Backing::RAM));
    assert_eq!((paged.access(1, s(Sw, 11, 10, 0)), paged.pte() & (A | D)), (0, A | D));
}
