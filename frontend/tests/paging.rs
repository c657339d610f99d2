//! Page walks through the TLB: what accesses do to accessed and dirty bits, and which are seen by a walk at all.
#![forbid(unsafe_code)]

mod common;

use common::{flat32, ram};
use mimus_frontend::x86::state::{Cr0, Cr3, Cr4};
use mimus_frontend::x86::{Cpu, Features};

const P: u32 = 1;
const W: u32 = 2;
const U: u32 = 4;
const A: u32 = 1 << 5;
const D: u32 = 1 << 6;
const G: u32 = 1 << 8;

const DIRECTORY: u64 = 0x1_0000;
const TABLE: u64 = 0x1_1000;
/// Linear address of the first page that `paged` maps, and where it maps it to.
const LINEAR: u64 = 0x40_0000;
const PHYSICAL: u64 = 0x2_0000;

/// 32-bit paging; entry `i` of the table for `LINEAR` maps the page at `PHYSICAL + i * 4096` with `flags[i]`.
fn paged(flags: &[u32]) -> Box<Cpu> {
    let ram = ram();
    assert!(ram.write_u32(DIRECTORY + 4, TABLE as u32 | P | W | U).is_some());
    for (i, flags) in (0u64..).zip(flags) {
        assert!(ram.write_u32(TABLE + 4 * i, (PHYSICAL + i * 4096) as u32 | flags).is_some());
    }
    let mut cpu = flat32(ram, Features::default());
    cpu.state.cr3 = Cr3::from_bits_retain(DIRECTORY);
    cpu.state.cr0 |= Cr0::PG | Cr0::WP;
    cpu.state.cr4 |= Cr4::PGE;
    cpu.update_mode();
    cpu
}

fn entry(cpu: &Cpu, i: u64) -> u32 {
    cpu.mmu.ram.read_u32(TABLE + 4 * i).unwrap()
}

#[test]
fn a_load_sets_the_accessed_bits_and_a_later_store_the_dirty_bit() {
    let mut cpu = paged(&[P | W]);
    cpu.mmu.ram.write_u32(PHYSICAL + 8, 0x1234_5678).unwrap();
    assert_eq!(cpu.read(LINEAR + 8, 4), Ok(0x1234_5678));
    assert_eq!(entry(&cpu, 0) & (A | D), A);
    assert_eq!(cpu.mmu.ram.read_u32(DIRECTORY + 4).unwrap() & (A | D), A);
    // The TLB has the page now; a store must walk all the same.
    let refills = cpu.mmu.stats.refills;
    cpu.write(LINEAR + 8, 4, 1).unwrap();
    assert_eq!(entry(&cpu, 0) & (A | D), A | D);
    assert_eq!(cpu.mmu.stats.refills, refills + 1);
    // From now on neither walks.
    cpu.write(LINEAR + 8, 4, 2).unwrap();
    assert_eq!(cpu.read(LINEAR + 8, 4), Ok(2));
    assert_eq!(cpu.mmu.stats.refills, refills + 1);
}

#[test]
fn a_page_that_was_dirty_when_read_is_written_without_a_walk() {
    let mut cpu = paged(&[P | W | D]);
    cpu.read(LINEAR, 1).unwrap();
    let refills = cpu.mmu.stats.refills;
    cpu.write(LINEAR, 1, 7).unwrap();
    assert_eq!(cpu.mmu.stats.refills, refills);
}

#[test]
fn a_refused_store_sets_no_bit() {
    let mut cpu = paged(&[P]);
    assert!(cpu.write(LINEAR, 4, 1).is_err());
    assert_eq!(cpu.pending.map(|e| (e.vector, e.error, e.address)), Some((14, Some(3), LINEAR)));
    assert_eq!(entry(&cpu, 0) & (A | D), 0);
    assert_eq!(cpu.mmu.ram.read_u32(PHYSICAL), Some(0));
}

#[test]
fn a_store_across_pages_writes_both_or_neither() {
    let mut cpu = paged(&[P | W, P | W, P]);
    let last = LINEAR + 4096 - 3;
    cpu.write(last, 8, 0x8877_6655_4433_2211).unwrap();
    assert_eq!(cpu.mmu.ram.read_u64(PHYSICAL + 4096 - 3), Some(0x8877_6655_4433_2211));
    assert_eq!((entry(&cpu, 0) & D, entry(&cpu, 1) & D), (D, D));
    assert_eq!(cpu.read(last, 8), Ok(0x8877_6655_4433_2211));
    assert!(cpu.write(last + 4096, 8, u64::MAX).is_err());
    assert_eq!(cpu.pending.map(|e| e.address), Some(LINEAR + 2 * 4096), "the second page's address");
    assert_eq!(cpu.mmu.ram.read_u64(PHYSICAL + 2 * 4096 - 8), Some(0), "nothing of it was done");
}

#[test]
fn a_changed_entry_is_seen_after_its_page_is_flushed() {
    let mut cpu = paged(&[P | W, P | W]);
    cpu.mmu.ram.write_u8(PHYSICAL, 1).unwrap();
    cpu.mmu.ram.write_u8(PHYSICAL + 4096, 2).unwrap();
    assert_eq!(cpu.read(LINEAR, 1), Ok(1));
    cpu.mmu.ram.write_u32(TABLE, (PHYSICAL + 4096) as u32 | P | W).unwrap();
    assert_eq!(cpu.read(LINEAR, 1), Ok(1), "still in the TLB");
    cpu.flush_page(LINEAR + 123);
    assert_eq!(cpu.read(LINEAR, 1), Ok(2));
}

#[test]
fn only_global_pages_outlive_a_flush_that_keeps_them() {
    let mut cpu = paged(&[P | W | G, P | W]);
    for page in 0..2 {
        cpu.mmu.ram.write_u8(PHYSICAL + 4096 * page, 1).unwrap();
        assert_eq!(cpu.read(LINEAR + 4096 * page, 1), Ok(1));
        cpu.mmu.ram.write_u32(TABLE + 4 * page, 0).unwrap();
    }
    cpu.flush_tlb(true);
    assert_eq!(cpu.read(LINEAR, 1), Ok(1));
    assert!(cpu.read(LINEAR + 4096, 1).is_err());
    cpu.flush_tlb(false);
    assert!(cpu.read(LINEAR, 1).is_err());
}

#[test]
fn rights_are_those_of_each_mmu_mode() {
    use mimus_frontend::x86::cpu::bank;
    let mut cpu = paged(&[P | W, P | W | U]);
    assert!(cpu.read_as(bank::KERNEL, LINEAR, 1).is_ok());
    assert!(cpu.read_as(bank::USER, LINEAR, 1).is_err(), "the other bank's entry does not help");
    assert_eq!(cpu.pending.and_then(|e| e.error), Some(5));
    assert!(cpu.read_as(bank::USER, LINEAR + 4096, 1).is_ok());
    assert!(cpu.read_as(bank::KERNEL_SMAP, LINEAR + 4096, 1).is_err());
    assert!(cpu.read_as(bank::KERNEL_SMAP, LINEAR, 1).is_ok());
}
