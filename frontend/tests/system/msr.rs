//! Model-specific registers and the time-stamp counter.

use mimus_frontend::x86::Features;
use mimus_frontend::x86::cpuid::Identity;
use mimus_frontend::x86::helpers::Helper::*;
use mimus_frontend::x86::state::{Cr4, Efer, Seg, reg};

use super::fixture::Machine;

fn read(m: &mut Machine, number: u32) -> u64 {
    m.cpu.state.gpr[reg::RCX] = number.into();
    m.call(Rdmsr, [0; 3], 0).unwrap_or_else(|e| panic!("{number:#x}: {e:?}"));
    assert_eq!((m.cpu.state.gpr[reg::RAX] | m.cpu.state.gpr[reg::RDX]) >> 32, 0);
    m.cpu.state.gpr[reg::RAX] | m.cpu.state.gpr[reg::RDX] << 32
}

fn prepare(m: &mut Machine, number: u32, value: u64) {
    m.cpu.state.gpr[reg::RCX] = 0xdead << 32 | u64::from(number);
    m.cpu.state.gpr[reg::RAX] = 0xdead << 32 | value & 0xffff_ffff;
    m.cpu.state.gpr[reg::RDX] = 0xdead << 32 | value >> 32;
}

fn write(m: &mut Machine, number: u32, value: u64) {
    prepare(m, number, value);
    m.call(Wrmsr, [0; 3], 0).unwrap_or_else(|e| panic!("{number:#x}: {e:?}"));
}

fn refused(m: &mut Machine, number: u32, value: u64) {
    prepare(m, number, value);
    assert_eq!(m.fails(Wrmsr, [0; 3], 0), (13, Some(0)), "{number:#x} = {value:#x}");
}

const KERNEL: u64 = 0xffff_8000_0000_1000;
const NOT_CANONICAL: u64 = 1 << 47;

#[test]
fn fields_hold_what_is_written_and_refuse_what_they_cannot_hold() {
    let rows: &[(u32, u64, &[u64])] = &[
        (0x3b, u64::MAX, &[]),
        (0x48, 1 | 1 << 10, &[2, 1 << 32]),
        (0x174, 0x10, &[]),
        (0x175, KERNEL, &[NOT_CANONICAL]),
        (0x176, KERNEL, &[NOT_CANONICAL]),
        (0x1a0, 0x4_00c5_1889, &[]),
        (0x200, 0xff_ffff_f006, &[0x100, 1 << 40]),
        (0x20f, 0xff_c000_0800, &[0x100, 1 << 40]),
        (0x250, 0x0606_0606_0606_0606, &[2, 0x0700, 7]),
        (0x258, 0x0505_0505_0505_0505, &[3]),
        (0x259, 0x0404_0404_0404_0404, &[0xff << 56]),
        (0x268, 0x0101_0101_0101_0101, &[2]),
        (0x26f, 0, &[2]),
        (0x277, 0x0007_0406_0107_0506, &[2, 3, 8, 0x8000]),
        (0x2ff, 0xc06, &[0x100, 1 << 12]),
        (0xc000_0081, u64::MAX, &[]),
        (0xc000_0082, KERNEL, &[NOT_CANONICAL]),
        (0xc000_0083, KERNEL, &[NOT_CANONICAL]),
        (0xc000_0084, 0x4_7700, &[1 << 32]),
        (0xc000_0100, KERNEL, &[NOT_CANONICAL]),
        (0xc000_0101, KERNEL, &[NOT_CANONICAL]),
        (0xc000_0102, KERNEL, &[NOT_CANONICAL]),
        (0xc000_0103, 0x1234, &[1 << 32]),
    ];
    for &(number, value, bad) in rows {
        let mut m = Machine::long(0);
        write(&mut m, number, value);
        for &bad in bad {
            refused(&mut m, number, bad);
        }
        assert_eq!(read(&mut m, number), value, "{number:#x}");
    }
}

#[test]
fn who_is_called_amds_has_the_counters_that_they_always_have() {
    let identity = Identity { vendor: *b"AuthenticAMD", ..Identity::default() };
    let mut amd = Machine::with(Features { identity, ..Features::default() });
    for number in 0xc001_0000..0xc001_0008 {
        write(&mut amd, number, 0x41_0076);
        assert_eq!(read(&mut amd, number), 0, "{number:#x}: nothing is counted");
        refused(&mut Machine::long(0), number, 0);
    }
    refused(&mut amd, 0xc001_0008, 0);
}

#[test]
fn every_mtrr_is_a_register_of_its_own() {
    let mut m = Machine::long(0);
    let fixed: Vec<u32> = [0x250, 0x258, 0x259].into_iter().chain(0x268..=0x26f).collect();
    let types = [0, 1, 4, 5, 6];
    for (i, &number) in fixed.iter().enumerate() {
        write(&mut m, number, types[i % 5] << (8 * (i / 5)));
    }
    for (i, &number) in fixed.iter().enumerate() {
        assert_eq!(read(&mut m, number), types[i % 5] << (8 * (i / 5)), "{number:#x}");
    }
    (0x200..=0x20f).for_each(|n| write(&mut m, n, u64::from(n) << 12));
    (0x200..=0x20f).for_each(|n| assert_eq!(read(&mut m, n), u64::from(n) << 12));
    assert_eq!(m.cpu.state.mtrr_var[7], [0x20e << 12, 0x20f << 12]);
    assert_eq!(read(&mut m, 0xfe) & 0xff, 8);
}

#[test]
fn read_only_and_ignored() {
    let mut m = Machine::long(0);
    for number in [0xfe, 0x17, 0x179, 0x10a] {
        let value = read(&mut m, number);
        refused(&mut m, number, value);
    }
    write(&mut m, 0x49, 1);
    refused(&mut m, 0x49, 2);
    m.cpu.state.gpr[reg::RCX] = 0x49;
    assert_eq!(m.fails(Rdmsr, [0; 3], 0), (13, Some(0)), "a command cannot be read");
    write(&mut m, 0x8b, 0);
    assert_eq!(read(&mut m, 0x8b), 1 << 32);
    write(&mut m, 0x17a, 0);
    refused(&mut m, 0x17a, 1);
    refused(&mut m, 0x1d9, 2);
}

#[test]
fn bases_are_canonical_in_every_mode() {
    for number in [0x175, 0x176, 0xc000_0082, 0xc000_0083, 0xc000_0100, 0xc000_0101, 0xc000_0102] {
        let mut m = Machine::protected(0);
        refused(&mut m, number, NOT_CANONICAL);
        write(&mut m, number, KERNEL);
        assert_eq!(read(&mut m, number), KERNEL, "{number:#x}");
    }
}

#[test]
fn segment_bases_reach_translated_code() {
    let mut m = Machine::long(0);
    write(&mut m, 0xc000_0101, KERNEL);
    assert_eq!((m.cpu.state.seg[Seg::Gs as usize].base, m.cpu.state.seg_base[Seg::Gs as usize]), (KERNEL, KERNEL));
}

#[test]
fn efer() {
    let mut m = Machine::long(0);
    let old = m.cpu.state.efer;
    refused(&mut m, 0xc000_0080, (old ^ Efer::LME).bits());
    refused(&mut m, 0xc000_0080, old.bits() | 1 << 12);
    let before = m.cpu.mmu.stats.flushes;
    write(&mut m, 0xc000_0080, Efer::LME.bits());
    assert_eq!(m.cpu.state.efer, Efer::LME | Efer::LMA, "LMA is not the program's");
    assert!(m.cpu.mmu.stats.flushes > before, "NXE flushes");
    let mut m = Machine::protected(0);
    write(&mut m, 0xc000_0080, (Efer::LMA | Efer::SCE).bits());
    assert_eq!(m.cpu.state.efer, Efer::SCE);
}

#[test]
fn time() {
    let mut m = Machine::long(0);
    m.bus.lock().unwrap().tsc = 1000;
    write(&mut m, 0x10, 5000);
    assert_eq!((read(&mut m, 0x10), read(&mut m, 0x3b)), (5000, 4000));
    m.bus.lock().unwrap().tsc = 1 << 32;
    m.call(Rdtsc, [0; 3], 0).unwrap();
    assert_eq!((m.cpu.state.gpr[reg::RAX], m.cpu.state.gpr[reg::RDX]), (4000, 1));
    m.cpu.state.tsc_aux = 7;
    m.call(Rdtsc, [0; 3], 1).unwrap();
    assert_eq!(m.cpu.state.gpr[reg::RCX], 7);
    // The deadline is armed in the machine's time.
    write(&mut m, 0x6e0, 10_000);
    assert_eq!(read(&mut m, 0x6e0), 10_000);
    assert_eq!(m.bus.lock().unwrap().deadline, 6000);
    write(&mut m, 0x6e0, 4000);
    assert_eq!(m.bus.lock().unwrap().deadline, 1, "0 would disarm");
    write(&mut m, 0x6e0, 0);
    assert_eq!(read(&mut m, 0x6e0), 0);
    assert_eq!(m.bus.lock().unwrap().deadline, 0);
}

#[test]
fn time_stamp_disable() {
    let mut m = Machine::long(3);
    m.call(Rdtsc, [0; 3], 0).unwrap();
    m.cpu.state.cr4 |= Cr4::TSD;
    assert_eq!(m.fails(Rdtsc, [0; 3], 1), (13, Some(0)));
    let mut m = Machine::long(0);
    m.cpu.state.cr4 |= Cr4::TSD;
    m.call(Rdtsc, [0; 3], 0).unwrap();
}

#[test]
fn apic_base_is_the_machines() {
    let mut m = Machine::long(0);
    write(&mut m, 0x1b, 0xfee0_0800);
    assert_eq!(read(&mut m, 0x1b), 0xfee0_0800);
    prepare(&mut m, 0x1b, 1);
    assert_eq!(m.call(Wrmsr, [0; 3], 0).unwrap_err().vector, 13);
    refused(&mut m, 0x1b, 1 << 40 | 0xfee0_0800);
    write(&mut m, 0x1b, 0xff_ffff_f800);
}

#[test]
fn unknown_numbers_fault_and_are_remembered_within_bounds() {
    let mut m = Machine::long(0);
    for number in [0, 0x1c, 0x3a, 0x210, 0x25a, 0x270, 0x800, 0xc000_0104, u32::MAX] {
        m.cpu.state.gpr[reg::RCX] = number.into();
        assert_eq!(m.fails(Rdmsr, [0; 3], 0), (13, Some(0)), "{number:#x}");
        assert!(m.cpu.unknown_msrs.contains(&number));
    }
    for number in 0x1_0000..0x2_0000 {
        m.cpu.state.gpr[reg::RCX] = number;
        m.call(Rdmsr, [0; 3], 0).unwrap_err();
    }
    assert_eq!(m.cpu.unknown_msrs.len(), 256);
}

#[test]
fn privilege_and_what_is_not_offered() {
    let mut m = Machine::long(3);
    m.cpu.state.gpr[reg::RCX] = 0x10;
    assert_eq!(m.fails(Rdmsr, [0; 3], 0), (13, Some(0)));
    assert_eq!(m.fails(Wrmsr, [0; 3], 0), (13, Some(0)));
    let mut m = Machine::long(0);
    assert_eq!(m.fails(Rdpmc, [0; 3], 0), (13, Some(0)));
    assert_eq!(m.fails(Xgetbv, [0; 3], 0), (6, None));
    assert_eq!(m.fails(Xsetbv, [0; 3], 0), (6, None));
}
