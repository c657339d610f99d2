//! Page walks: formats, permissions, accessed and dirty bits, error codes.

use mimus_frontend::x86::NoDevices;
use mimus_frontend::x86::cpu::bank::{KERNEL, KERNEL_SMAP, USER};
use mimus_frontend::x86::paging::PageFault;
use mimus_frontend::x86::state::{Cr0, Cr3, Cr4, Efer, State};
use mimus_softmmu::{Access, Access::*, Mapping, PageTables, Walker};

use super::fixture::{Machine, TABLES};

const P: u64 = 1;
const W: u64 = 2;
const U: u64 = 4;
const A: u64 = 0x20;
const D: u64 = 0x40;
const PS: u64 = 0x80;
const G: u64 = 0x100;
const NX: u64 = 1 << 63;

/// Table `level` of the test's walks.
const fn table(level: u64) -> u64 {
    TABLES + 0x1000 * level
}

/// Tables from level `top` down to 1, for linear address 0 on; `flags` in every entry but the last.
fn chain(top: u64, entry: u8, flags: u64, leaf_level: u64, leaf: u64) -> Machine {
    let m = Machine::new();
    for level in (leaf_level + 1..=top).rev() {
        m.set(table(level), entry, table(level - 1) | flags);
    }
    m.set(table(leaf_level), entry, leaf);
    m
}

fn state(m: &Machine, top: u64, cr4: Cr4, efer: Efer) -> State {
    State { cr0: Cr0::PE | Cr0::PG | Cr0::WP, cr3: Cr3::from_bits_retain(table(top)), cr4, efer, ..m.cpu.state }
}

fn long4(m: &Machine) -> State {
    state(m, 4, Cr4::PAE, Efer::LMA | Efer::LME | Efer::NXE)
}

fn walk(m: &Machine, s: &State, addr: u64, access: Access, bank: usize) -> Result<Mapping, PageFault> {
    s.walk(&PageTables::new(&m.cpu.mmu.ram, &NoDevices), addr, access, bank)
}

fn code(result: Result<Mapping, PageFault>) -> u32 {
    match result {
        Err(PageFault::Page { code, .. }) => code.bits(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_paging_addresses_are_32_bits_and_physical() {
    let m = Machine::new();
    let s = m.cpu.state;
    let mapping = Mapping { gpa: 0xffff_f000, writable: true, global: false, shift: 12 };
    assert_eq!(walk(&m, &s, 0x1_ffff_f123, Write, KERNEL), Ok(mapping));
}

#[test]
fn thirty_two_bit_pages() {
    let m = chain(2, 4, P | W | U, 1, 0x0070_0000 | P | W | U);
    let s = state(&m, 2, Cr4::empty(), Efer::empty());
    assert_eq!(
        walk(&m, &s, 0x123, Read, USER).unwrap(),
        Mapping { gpa: 0x0070_0000, writable: false, global: false, shift: 12 }
    );
    assert_eq!((m.get(table(2), 4) & 0xff, m.get(table(1), 4) & 0xff), (P | W | U | A, P | W | U | A));
    assert!(walk(&m, &s, 0x123, Write, USER).unwrap().writable);
    assert_eq!(m.get(table(1), 4), 0x0070_0000 | P | W | U | A | D);
    // Dirty by now: a read may fill the store tag too.
    assert!(walk(&m, &s, 0x123, Read, USER).unwrap().writable);
    // PS without CR4.PSE is ignored, NX does not exist, and index bits are 10.
    m.set(table(2), 4, table(1) | P | W | U | PS);
    assert_eq!(walk(&m, &s, 0x123, Fetch, USER).unwrap().gpa, 0x0070_0000);
    m.set(table(1) + 4 * 0x3ff, 4, 0x0071_0000 | P);
    assert_eq!(walk(&m, &s, 0x3f_f000, Read, KERNEL).unwrap().gpa, 0x0071_0000);
    // 32-bit linear addresses wrap.
    assert_eq!(walk(&m, &s, 0x1_0000_0123, Read, USER).unwrap().gpa, 0x0070_0000);
}

#[test]
fn four_mib_pages_with_36_bit_addresses() {
    let m = chain(2, 4, 0, 2, 0x00c0_0000 | 0x12 << 13 | P | W | PS | D);
    let mut s = state(&m, 2, Cr4::PSE, Efer::empty());
    assert_eq!(walk(&m, &s, 0x0012_3000, Read, KERNEL).unwrap().gpa, 0x12_00d2_3000);
    m.set(table(2), 4, 1 << 21 | P | PS);
    assert_eq!(code(walk(&m, &s, 0, Read, KERNEL)), 9);
    s.cr4 = Cr4::empty();
    assert_eq!(code(walk(&m, &s, 0, Read, KERNEL)), 0, "a page table in an unmapped page");
}

#[test]
fn pae_pages_start_at_the_loaded_pdptes() {
    let m = chain(2, 8, P | W | U, 1, 0x0070_0000 | P | W | U | D);
    let mut s = state(&m, 2, Cr4::PAE, Efer::NXE);
    s.pdpte = [0, 0, table(2) | P, 0];
    assert!(walk(&m, &s, 0x8000_0000, Read, USER).unwrap().writable);
    assert_eq!(code(walk(&m, &s, 0x4000_0000, Write, USER)), 6);
    m.set(table(1), 8, 0x0070_0000 | P | U | NX);
    assert_eq!(code(walk(&m, &s, 0x8000_0000, Fetch, USER)), 0x15);
    m.set(table(1), 8, 0x0070_0000 | P | U | 1 << 52);
    assert_eq!(code(walk(&m, &s, 0x8000_0000, Read, USER)), 0xd, "bits 52 to 62 are reserved");
    m.set(table(2), 8, 0x0060_0000 | P | U | PS);
    assert_eq!(walk(&m, &s, 0x8010_5000, Read, USER).unwrap().gpa, 0x0070_5000);
}

#[test]
fn pdptes_are_checked_when_loaded() {
    let m = Machine::new();
    m.set(TABLES + 0x20, 8, 0x1e6);
    m.set(TABLES + 0x28, 8, 0x5000 | P);
    let cr3 = Cr3::from_bits_retain(TABLES + 0x20);
    assert_eq!(State::read_pdptes(&m.cpu.mmu.ram, cr3), Some([0x1e6, 0x5001, 0, 0]));
    for reserved in [2, 4, 0x20, 0x100, 1 << 40, NX] {
        m.set(TABLES + 0x28, 8, 0x5000 | P | reserved);
        assert_eq!(State::read_pdptes(&m.cpu.mmu.ram, cr3), None, "{reserved:#x}");
    }
}

#[test]
fn four_level_pages_of_every_size() {
    for (level, offset) in [(1, 0), (2, 0x1f_5000), (3, 0x3fff_5000)] {
        let large = if level > 1 { PS } else { 0 };
        let m = chain(4, 8, P | W | U, level, 0x40_0000_0000 | large | P | W | U);
        let s = long4(&m);
        assert_eq!(walk(&m, &s, offset, Write, USER).unwrap().gpa, 0x40_0000_0000 + offset, "level {level}");
        for l in level..=4 {
            assert_eq!(m.get(table(l), 8) & (A | D), if l == level { A | D } else { A }, "level {l}");
        }
    }
}

#[test]
fn five_levels_with_la57() {
    let m = chain(5, 8, P | W | U, 1, 0x0070_0000 | P | W | U);
    m.set(table(5) + 8, 8, table(4) | P | W | U);
    let s = state(&m, 5, Cr4::PAE | Cr4::LA57, Efer::LMA);
    assert_eq!(walk(&m, &s, 1 << 48, Read, USER).unwrap().gpa, 0x0070_0000);
    assert_eq!(walk(&m, &s, 1 << 56, Read, USER), Err(PageFault::NonCanonical));
    let s = long4(&m);
    assert_eq!(walk(&m, &s, 1 << 47, Read, USER), Err(PageFault::NonCanonical));
    assert_eq!(code(walk(&m, &s, 0xffff_8000_0000_0000, Write, USER)), 6);
}

#[test]
fn rights_and_error_codes() {
    // Rights of the leaf, access, bank; the error code or success.
    let rows: &[(u64, Access, usize, Option<u32>)] = &[
        (P, Read, KERNEL, None),
        (P, Write, KERNEL, Some(3)),
        (P, Read, USER, Some(5)),
        (P, Write, USER, Some(7)),
        (P, Fetch, USER, Some(0x15)),
        (P | W, Write, KERNEL, None),
        (P | W, Write, USER, Some(7)),
        (P | U, Write, USER, Some(7)),
        (P | U, Write, KERNEL, Some(3)),
        (P | U | W, Write, USER, None),
        (P | U | NX, Fetch, USER, Some(0x15)),
        (P | NX, Fetch, KERNEL, Some(0x11)),
        (P | NX, Read, KERNEL, None),
        (P | U, Read, KERNEL_SMAP, Some(1)),
        (P | U | W, Write, KERNEL_SMAP, Some(3)),
        (P, Read, KERNEL_SMAP, None),
        (P | U, Fetch, KERNEL, None),
        (0, Read, KERNEL, Some(0)),
        (0, Write, KERNEL, Some(2)),
        (0, Fetch, USER, Some(0x14)),
        (P | 1 << 40, Read, KERNEL, Some(9)),
        (P | 1 << 51, Write, USER, Some(0xf)),
        (P | 1 << 52, Read, KERNEL, None),
    ];
    for &(leaf, access, bank, expected) in rows {
        let m = chain(4, 8, P | W | U, 1, 0x0070_0000 | leaf);
        let result = walk(&m, &long4(&m), 0, access, bank);
        match expected {
            None => assert!(result.is_ok(), "{leaf:#x} {access:?} {bank}: {result:?}"),
            Some(expected) => {
                assert_eq!(code(result), expected, "{leaf:#x} {access:?} {bank}");
                assert_eq!(m.get(table(1), 8) & (A | D), 0, "a faulting walk sets no bits");
            }
        }
    }
}

#[test]
fn rights_of_upper_levels_count() {
    for (flags, access, expected) in [(P | W, Read, 5), (P | U, Write, 7), (P | W | U | NX, Fetch, 0x15)] {
        let m = chain(4, 8, flags, 1, 0x0070_0000 | P | W | U);
        assert_eq!(code(walk(&m, &long4(&m), 0, access, USER)), expected, "{flags:#x}");
    }
}

#[test]
fn write_protect_smep_and_nxe_switch_checks() {
    let m = chain(4, 8, P | W | U, 1, 0x0070_0000 | P | U);
    let mut s = long4(&m);
    s.cr0 &= !Cr0::WP;
    assert!(walk(&m, &s, 0, Write, KERNEL).unwrap().writable);
    assert_eq!(code(walk(&m, &s, 0, Write, USER)), 7);
    s.cr4 |= Cr4::SMEP;
    assert_eq!(code(walk(&m, &s, 0, Fetch, KERNEL)), 0x11);
    assert!(walk(&m, &s, 0, Fetch, USER).is_ok());
    assert!(walk(&m, &s, 0, Read, KERNEL).is_ok());
    s.efer &= !Efer::NXE;
    s.cr4 &= !Cr4::SMEP;
    m.set(table(1), 8, 0x0070_0000 | P | U | NX);
    assert_eq!(code(walk(&m, &s, 0, Fetch, USER)), 0xd, "NX is reserved without NXE, and I/D is not told");
}

#[test]
fn reserved_bits_of_large_pages_and_upper_tables() {
    for (level, bits) in [(2, 1 << 13), (2, 1 << 20), (3, 1 << 13), (3, 1 << 29), (4, 0)] {
        let m = chain(4, 8, P | W | U, level, 0x4000_0000 | bits | PS | P | W | U);
        assert_eq!(code(walk(&m, &long4(&m), 0, Read, KERNEL)), 9, "level {level} {bits:#x}");
    }
    // PAT of a large page is no address bit.
    let m = chain(4, 8, P | W | U, 2, 0x4000_0000 | 1 << 12 | PS | P | W | U);
    assert_eq!(walk(&m, &long4(&m), 0x3000, Read, KERNEL).unwrap().gpa, 0x4000_3000);
}

#[test]
fn global_pages_need_pge() {
    let m = chain(4, 8, P | W | U, 1, 0x0070_0000 | P | G);
    let mut s = long4(&m);
    assert!(!walk(&m, &s, 0, Read, KERNEL).unwrap().global);
    s.cr4 |= Cr4::PGE;
    assert!(walk(&m, &s, 0, Read, KERNEL).unwrap().global);
}

#[test]
fn tables_outside_ram_are_not_present() {
    let m = Machine::new();
    let mut s = long4(&m);
    s.cr3 = Cr3::from_bits_retain(0x80_0000_0000);
    assert_eq!(code(walk(&m, &s, 0, Read, KERNEL)), 0);
}

#[test]
fn accesses_of_the_cpu_fault_precisely() {
    let mut m = Machine::long(3);
    m.set(TABLES + 0x2000 + 8, 8, 0);
    assert!(m.cpu.write(0x1f_fffc, 8, 1).is_err());
    let fault = m.cpu.pending.take().unwrap();
    assert_eq!((fault.vector, fault.error, fault.address), (14, Some(6), 0x20_0000));
    assert_eq!(m.get(0x1f_fff8, 8), 0, "nothing written in the first page");
    assert!(m.cpu.read(1 << 63, 1).is_err());
    assert_eq!(m.cpu.pending.take().unwrap().vector, 13);
}
