//! Control and debug registers, TLB control, HLT and the FS and GS base instructions.

use mimus_frontend::x86::Features;
use mimus_frontend::x86::cpu::bank;
use mimus_frontend::x86::helpers::Helper::*;
use mimus_frontend::x86::state::{Cr0, Cr3, Cr4, Dr7, Efer, Rflags, Seg, reg};

use super::fixture::{GDT, Machine, TABLES, TSS, rflags, sel};

fn write_cr(m: &mut Machine, number: u32, value: impl Into<u64>) {
    m.call(WriteCr, [value.into(), 0, 0], number).unwrap();
}

fn cr_fails(m: &mut Machine, number: u32, value: impl Into<u64>) {
    let value = value.into();
    assert_eq!(m.fails(WriteCr, [value, 0, 0], number), (13, Some(0)), "CR{number} = {value:#x}");
}

#[test]
fn from_real_through_protected_to_64_bit_mode_and_back() {
    let mut m = Machine::new();
    m.set(TABLES, 8, TABLES + 0x1000 + 7);
    m.set(TABLES + 0x1000, 8, 0x87);
    m.call(Lgdt, [GDT, 0xbf, 0], 0).unwrap();
    write_cr(&mut m, 0, Cr0::PE | Cr0::ET);
    assert_eq!((m.cpu.state.cpl(), m.cpu.mode.bitness(), m.cpu.mode.real_or_vm86()), (0, 16, false));
    m.call(FarJump, [sel::CODE.into(), 0x1000, 0], 2).unwrap();
    assert_eq!(m.cpu.mode.bitness(), 32);
    for seg in [Seg::Ds, Seg::Es, Seg::Ss] {
        m.call(LoadSeg, [sel::DATA.into(), 0, 0], seg as u32).unwrap();
    }
    cr_fails(&mut m, 0, Cr0::PG);
    write_cr(&mut m, 4, Cr4::PAE);
    write_cr(&mut m, 3, TABLES);
    m.cpu.state.gpr[1] = 0xc000_0080;
    m.cpu.state.gpr[0] = (Efer::LME | Efer::NXE).bits();
    m.cpu.state.gpr[2] = 0;
    m.call(Wrmsr, [0; 3], 0).unwrap();
    assert!(!m.cpu.state.long_active());
    write_cr(&mut m, 0, Cr0::PE | Cr0::PG);
    assert!(m.cpu.state.long_active() && m.cpu.mode.bitness() == 32, "compatibility mode");
    m.call(FarJump, [sel::CODE64.into(), 0x1000, 0], 4).unwrap();
    assert_eq!(m.cpu.mode.bitness(), 64);
    cr_fails(&mut m, 0, Cr0::PE);
    cr_fails(&mut m, 4, 0_u64);
    // And out again.
    m.call(FarJump, [sel::CODE.into(), 0x1000, 0], 4).unwrap();
    write_cr(&mut m, 0, Cr0::PE);
    assert!(!m.cpu.state.long_active());
    m.call(FarJump, [sel::CODE16.into(), 0x1000, 0], 4).unwrap();
    write_cr(&mut m, 0, 0_u64);
    m.call(FarJump, [0x100, 0x10, 0], 2).unwrap();
    assert_eq!((m.cpu.mode.bitness(), m.cpu.state.seg_base[Seg::Cs as usize]), (16, 0x1000));
}

#[test]
fn long_mode_needs_pae_and_32_bit_code_and_tss() {
    let prepare = || {
        let mut m = Machine::protected(0);
        m.cpu.state.efer = Efer::LME;
        m.cpu.state.cr4 = Cr4::PAE;
        m
    };
    let on = Cr0::PE | Cr0::PG;
    let mut m = prepare();
    m.cpu.state.cr4 = Cr4::empty();
    cr_fails(&mut m, 0, on);
    let mut m = prepare();
    m.cpu.state.seg[Seg::Cs as usize].access |= 0x2000;
    cr_fails(&mut m, 0, on);
    let mut m = prepare();
    m.cpu.state.tr.access = 0x83;
    cr_fails(&mut m, 0, on);
}

#[test]
fn cr0_checks_and_fixed_bits() {
    let mut m = Machine::protected(0);
    cr_fails(&mut m, 0, Cr0::PG);
    cr_fails(&mut m, 0, Cr0::PE | Cr0::NW);
    write_cr(&mut m, 0, 0xffff_ffff_0000_0000 | Cr0::PE.bits() | 1 << 20);
    assert_eq!(m.cpu.state.cr0, Cr0::PE | Cr0::ET, "upper half dropped outside 64-bit mode, unknown bits ignored");
    let mut m = Machine::long(0);
    let value = 1 << 32 | m.cpu.state.cr0.bits();
    cr_fails(&mut m, 0, value);
    cr_fails(&mut Machine::protected(3), 0, Cr0::PE);
}

#[test]
fn cr0_switches_that_matter_to_translations_flush() {
    let mut m = Machine::long(0);
    let base = m.cpu.state.cr0;
    for (bit, flushes) in [(Cr0::WP, true), (Cr0::TS, false), (Cr0::EM, false), (Cr0::AM, false)] {
        let before = m.cpu.mmu.stats.flushes;
        write_cr(&mut m, 0, base ^ bit);
        assert_eq!(m.cpu.mmu.stats.flushes != before, flushes, "{bit:#x}");
        write_cr(&mut m, 0, base);
    }
}

#[test]
fn cr3_reserved_bits_and_pcid() {
    let mut m = Machine::long(0);
    cr_fails(&mut m, 3, 1 << 40 | TABLES);
    cr_fails(&mut m, 3, 1 << 63 | TABLES);
    cr_fails(&mut Machine::protected(0), 4, Cr4::PCIDE);
    m.cpu.state.cr3 = Cr3::from_bits_retain(TABLES | 0x18);
    let value = m.cpu.state.cr4 | Cr4::PCIDE;
    cr_fails(&mut m, 4, value);
    m.cpu.state.cr3 = Cr3::from_bits_retain(TABLES);
    let value = m.cpu.state.cr4 | Cr4::PCIDE;
    write_cr(&mut m, 4, value);
    write_cr(&mut m, 3, 1 << 63 | TABLES | 5);
    assert_eq!(m.cpu.state.cr3.bits(), TABLES | 5);
    let value = m.cpu.state.cr0 & !Cr0::PG;
    cr_fails(&mut m, 0, value);
}

#[test]
fn cr3_writes_drop_old_translations() {
    let mut m = Machine::long(0);
    m.set(0x40_0000, 8, 0x1111);
    assert_eq!(m.cpu.read(0x20_0000, 8), Ok(0));
    m.set(TABLES + 0x2008, 8, 0x40_0087);
    assert_eq!(m.cpu.read(0x20_0000, 8), Ok(0), "still in the TLB");
    write_cr(&mut m, 3, TABLES);
    assert_eq!(m.cpu.read(0x20_0000, 8), Ok(0x1111));
    m.set(TABLES + 0x2008, 8, 0x20_0087);
    m.call(Invlpg, [0x20_0000, 0, 0], 0).unwrap();
    assert_eq!(m.cpu.read(0x20_0000, 8), Ok(0));
}

#[test]
fn pae_loads_pdptes_with_cr3_cr0_and_cr4() {
    let mut m = Machine::protected(0);
    m.set(TABLES, 8, TABLES + 0x1001);
    m.set(TABLES + 0x1000, 8, 0x83);
    m.set(TABLES + 0x20, 8, TABLES + 0x1003);
    write_cr(&mut m, 4, Cr4::PAE);
    write_cr(&mut m, 3, TABLES + 0x20);
    cr_fails(&mut m, 0, Cr0::PE | Cr0::PG);
    write_cr(&mut m, 3, TABLES);
    write_cr(&mut m, 0, Cr0::PE | Cr0::PG);
    assert_eq!(m.cpu.state.pdpte[0], TABLES + 0x1001);
    cr_fails(&mut m, 3, TABLES + 0x20);
    m.set(TABLES, 8, TABLES + 0x2001);
    assert!(m.cpu.read(0x1000, 4).is_ok(), "PDPTEs in memory are not looked at again");
    m.cpu.pending = None;
}

#[test]
fn cr4_reserved_bits() {
    let mut m = Machine::protected(0);
    for bit in [13, 14, 15, 18, 19, 22, 23] {
        cr_fails(&mut m, 4, 1_u64 << bit);
    }
    cr_fails(&mut m, 4, Cr4::LA57);
    let features = Features { la57: true, ..Features::default() };
    let mut m = Machine::with(features);
    write_cr(&mut m, 4, Cr4::LA57 | Cr4::PAE);
    let mut m = Machine::long_with(0, features);
    let value = m.cpu.state.cr4 | Cr4::LA57;
    cr_fails(&mut m, 4, value);
}

#[test]
fn smap_changes_the_bank() {
    let mut m = Machine::long(0);
    let value = m.cpu.state.cr4 | Cr4::SMAP;
    write_cr(&mut m, 4, value);
    assert_eq!(m.cpu.bank, bank::KERNEL_SMAP);
    m.call(Stac, [0; 3], 0).unwrap();
    assert_eq!(m.cpu.bank, bank::KERNEL);
    m.call(Clac, [0; 3], 0).unwrap();
    assert_eq!(m.cpu.bank, bank::KERNEL_SMAP);
    assert_eq!(Machine::long(3).fails(Stac, [0; 3], 0), (6, None));
}

#[test]
fn cr2_cr8_and_registers_that_do_not_exist() {
    let mut m = Machine::long(0);
    write_cr(&mut m, 2, u64::MAX);
    assert_eq!(m.call(ReadCr, [0; 3], 2), Ok(u64::MAX));
    write_cr(&mut m, 8, 0xa_u64);
    assert_eq!(m.call(ReadCr, [0; 3], 8), Ok(0xa));
    assert_eq!(m.bus.lock().unwrap().tpr, 0xa0);
    cr_fails(&mut m, 8, 0x10_u64);
    for number in [1, 5, 6, 7, 9, 15] {
        assert_eq!(m.fails(WriteCr, [0; 3], number), (6, None));
        assert_eq!(m.fails(ReadCr, [0; 3], number), (6, None));
    }
    assert_eq!(Machine::long(3).fails(ReadCr, [0; 3], 0), (13, Some(0)));
}

#[test]
fn lmsw_and_clts() {
    let mut m = Machine::protected(0);
    m.call(Lmsw, [0xfffe, 0, 0], 0).unwrap();
    assert_eq!(m.cpu.state.cr0.bits() & 0xf, 0xf, "PE cannot be cleared");
    m.call(Lmsw, [0, 0, 0], 0).unwrap();
    assert_eq!(m.cpu.state.cr0.bits() & 0xf, 1);
    m.cpu.state.cr0 |= Cr0::TS;
    m.call(Clts, [0; 3], 0).unwrap();
    assert!(!m.cpu.state.cr0.contains(Cr0::TS));
    assert_eq!(Machine::protected(3).fails(Clts, [0; 3], 0), (13, Some(0)));
}

#[test]
fn debug_registers() {
    let mut m = Machine::long(0);
    m.call(WriteDr, [0x1234, 0, 0], 3).unwrap();
    m.call(WriteDr, [0, 0, 0], 6).unwrap();
    m.call(WriteDr, [0xffff_ffff, 0, 0], 5).unwrap();
    let s = &m.cpu.state;
    assert_eq!((s.dr[3], s.dr6.bits(), s.dr7.bits()), (0x1234, 0xffff_0ff0, 0xffff_2fff));
    let fault = m.call(ReadDr, [0; 3], 7).unwrap_err();
    assert_eq!((fault.vector, fault.address), (1, 1 << 13), "general detect");
    m.cpu.state.dr7 = Dr7::FIXED;
    assert_eq!(m.fails(WriteDr, [1 << 32, 0, 0], 7), (13, Some(0)));
    assert_eq!(m.call(ReadDr, [0; 3], 4), Ok(0xffff_0ff0));
    m.cpu.state.cr4 |= Cr4::DE;
    assert_eq!(m.fails(ReadDr, [0; 3], 4), (6, None));
    assert_eq!(m.fails(ReadDr, [0; 3], 8), (6, None));
    assert_eq!(Machine::long(3).fails(ReadDr, [0; 3], 0), (13, Some(0)));
}

#[test]
fn invpcid_checks_its_descriptor() {
    let mut m = Machine::long(0);
    for kind in 0..4 {
        let flushed = |m: &Machine| (m.cpu.mmu.stats.page_flushes, m.cpu.mmu.stats.flushes);
        let (pages, all) = flushed(&m);
        m.call(Invpcid, [kind, 0, 0x1000], 0).unwrap();
        assert_eq!(flushed(&m), if kind == 0 { (pages + 1, all) } else { (pages, all + 1) });
    }
    for operands in [[4, 0, 0], [0, 0x1000, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1 << 47]] {
        assert_eq!(m.fails(Invpcid, operands, 0), (13, Some(0)), "{operands:x?}");
    }
    assert_eq!(Machine::long(3).fails(Invpcid, [0; 3], 0), (13, Some(0)));
}

#[test]
fn hlt_and_privilege() {
    let mut m = Machine::protected(0);
    m.call(Hlt, [0, 0, 0x99], 0).unwrap();
    assert_eq!((m.cpu.state.halted, m.cpu.state.rip), (1, 0x99));
    m.call(CheckCpl0, [0; 3], 0).unwrap();
    let mut m = Machine::protected(3);
    assert_eq!(m.fails(Hlt, [0; 3], 0), (13, Some(0)));
    assert_eq!(m.fails(CheckCpl0, [0; 3], 0), (13, Some(0)));
    assert_eq!(m.fails(Invlpg, [0; 3], 0), (13, Some(0)));
}

#[test]
fn cli_and_sti_by_iopl_and_pvi() {
    let mut m = Machine::protected(3);
    assert_eq!(m.fails(Cli, [0; 3], 0), (13, Some(0)));
    m.cpu.state.cr4 |= Cr4::PVI;
    m.call(Sti, [0; 3], 0).unwrap();
    assert_eq!(m.cpu.state.flags & Rflags::VIF, Rflags::VIF);
    m.call(Cli, [0; 3], 0).unwrap();
    assert_eq!(m.cpu.state.flags & (Rflags::VIF | Rflags::IF), Rflags::IF);
    m.cpu.state.flags |= Rflags::IOPL;
    m.call(Cli, [0; 3], 0).unwrap();
    assert_eq!(m.cpu.state.flags & Rflags::IF, Rflags::empty());
    m.call(Sti, [0; 3], 0).unwrap();
    assert_eq!((m.cpu.state.flags & Rflags::IF, m.cpu.state.shadow), (Rflags::IF, 1));
    m.cpu.state.shadow = 0;
    m.call(Sti, [0; 3], 0).unwrap();
    assert_eq!(m.cpu.state.shadow, 0, "no shadow when IF was set");
}

#[test]
fn pushf_and_popf() {
    let mut m = Machine::protected(0);
    m.cpu.state.flags |= Rflags::RF | Rflags::AC;
    m.cpu.state.set_arith_flags(Rflags::ARITH);
    assert_eq!(m.call(PushfValue, [0; 3], 4), Ok(2 | rflags::ARITH | rflags::IF | rflags::AC));
    assert_eq!(m.call(PushfValue, [0; 3], 2), Ok(2 | rflags::ARITH | rflags::IF));
    m.call(Popf, [u64::MAX, 0, 0], 4).unwrap();
    assert_eq!(m.cpu.state.rflags().bits(), 0x0024_7fd7, "VM, RF, VIF, VIP are out of reach");
    let mut m = Machine::protected(3);
    m.call(Popf, [rflags::IOPL | rflags::TF, 0, 0], 4).unwrap();
    assert_eq!(m.cpu.state.rflags().bits(), 2 | rflags::IF | rflags::TF);
    assert!(m.cpu.mode.intersects(mimus_frontend::x86::Mode::TF));
    m.call(Popf, [0; 3], 2).unwrap();
    assert!(!m.cpu.mode.intersects(mimus_frontend::x86::Mode::TF));
}

#[test]
fn fs_and_gs_bases() {
    let mut m = Machine::long(3);
    m.call(WriteFsGsBase, [0x1_2345_6789, 0, 0], 8 << 8).unwrap();
    m.call(WriteFsGsBase, [0x1_2345_6789, 0, 0], 4 << 8 | 1).unwrap();
    assert_eq!(m.cpu.state.seg_base[4..], [0x1_2345_6789, 0x2345_6789]);
    assert_eq!(m.call(ReadFsGsBase, [0; 3], 8 << 8), Ok(0x1_2345_6789));
    assert_eq!(m.call(ReadFsGsBase, [0; 3], 4 << 8), Ok(0x2345_6789));
    assert_eq!(m.fails(WriteFsGsBase, [1 << 47, 0, 0], 8 << 8), (13, Some(0)));
    m.cpu.state.cr4 &= !Cr4::FSGSBASE;
    assert_eq!(m.fails(ReadFsGsBase, [0; 3], 8 << 8), (6, None));
}

#[test]
fn swapgs_exchanges_the_bases() {
    const SWAPGS: [u8; 3] = [0x0f, 0x01, 0xf8];
    let mut m = Machine::long(0);
    m.cpu.state.kernel_gs_base = 0xffff_8000_0000_0000;
    m.cpu.state.seg[5].base = 0x1234;
    m.cpu.update_mode();
    for (base, hidden) in [(0xffff_8000_0000_0000, 0x1234), (0x1234, 0xffff_8000_0000_0000)] {
        assert_eq!(m.run(&SWAPGS), None);
        let s = &m.cpu.state;
        assert_eq!((s.seg[5].base, s.seg_base[5], s.kernel_gs_base), (base, base, hidden));
    }
    assert_eq!(Machine::long(3).run(&SWAPGS), Some((13, Some(0))));
    assert_eq!(Machine::protected(0).run(&SWAPGS), Some((6, None)));
}

#[test]
fn what_sets_if_asks_for_the_dispatcher_when_an_interrupt_waits() {
    use std::sync::atomic::Ordering::Relaxed;
    for waits in [false, true] {
        let start = || {
            let mut m = Machine::long(0);
            m.cpu.interrupt_waits = waits;
            m.cpu.state.flags &= !Rflags::IF;
            m.cpu.header.exit_request.store(0, Relaxed);
            m
        };
        let asked = |m: &Machine| m.cpu.header.exit_request.load(Relaxed) != 0;
        let mut m = start();
        m.call(Sti, [0; 3], 0).unwrap();
        assert_eq!((asked(&m), m.cpu.state.shadow), (waits, 1), "one instruction more");
        m.call(Popf, [rflags::IF, 0, 0], 8).unwrap();
        assert_eq!(m.cpu.state.shadow, 0, "that instruction");
        let mut m = start();
        m.call(Popf, [rflags::IF, 0, 0], 8).unwrap();
        assert_eq!(asked(&m), waits);
        m.call(Hlt, [0, 0, 0x99], 0).unwrap();
        let mut m = start();
        m.call(Popf, [0, 0, 0], 8).unwrap();
        assert!(!asked(&m), "IF stays clear");
        m.cpu.state.gpr[11] = rflags::IF;
        m.call(Sysret, [0; 3], 8).unwrap();
        assert_eq!(asked(&m), waits);
        let mut m = start();
        let rsp = m.rsp();
        for (i, value) in (0..).zip([0x10_0000, sel::CODE64.into(), rflags::IF, rsp, sel::DATA.into()]) {
            m.set(rsp + 8 * i, 8, value);
        }
        m.call(Iret, [0; 3], 8).unwrap();
        assert_eq!(asked(&m), waits);
    }
    let mut m = Machine::long(0);
    m.call(Sti, [0; 3], 0).unwrap();
    m.call(Hlt, [0, 0, 0x99], 0).unwrap();
    assert_eq!(m.cpu.state.shadow, 0, "HLT was the instruction in the shadow");
}

/// REP INS of `size` bytes to ES:EDI; what it raised.
fn rep_ins(m: &mut Machine, di: u64, count: u64, size: u8) -> Option<(u8, Option<u32>)> {
    m.cpu.state.gpr[reg::RDX] = 0x1f0;
    m.cpu.state.gpr[reg::RDI] = di;
    m.cpu.state.gpr[reg::RCX] = count;
    let operand = if size == 2 && m.cpu.mode.bitness() == 32 { 0x66 } else { 0x3e };
    m.run(&[operand, 0xf3, if size == 1 { 0x6c } else { 0x6d }])
}

#[test]
fn repeated_input_fills_pages_and_stops_where_its_segment_does() {
    let bytes = [0x1234_5678u32.to_le_bytes(); 4].concat();
    for size in [1u8, 2, 4] {
        let mut m = Machine::protected(0);
        let (at, count) = (0x4_0ff8u64, 0x1010 / u64::from(size));
        assert_eq!(rep_ins(&mut m, at, count, size), None);
        assert_eq!((m.cpu.state.gpr[reg::RDI], m.cpu.state.gpr[reg::RCX]), (at + 0x1010, 0));
        assert_eq!(m.bus.lock().unwrap().ports, vec![(0x1f0, size, None); count as usize]);
        let unit: Vec<u8> = bytes[..size.into()].repeat(8 / usize::from(size));
        for word in (at..at + 0x1010).step_by(8) {
            assert_eq!(m.words(word, 1, 8), unit.iter().map(|&byte| u64::from(byte)).collect::<Vec<_>>(), "{word:#x}");
        }
        assert_eq!((m.words(at - 1, 1, 1), m.words(at + 0x1010, 1, 1)), (vec![0], vec![0]));
    }
    // The segment ends after three elements: #GP for the fourth, which is not read.
    let mut m = Machine::protected(0);
    m.cpu.state.seg[Seg::Es as usize].limit = 0x4_0005;
    m.cpu.update_mode();
    assert_eq!(rep_ins(&mut m, 0x4_0000, 100, 2), Some((13, Some(0))));
    assert_eq!((m.cpu.state.gpr[reg::RDI], m.cpu.state.gpr[reg::RCX]), (0x4_0006, 97));
    assert_eq!(m.bus.lock().unwrap().ports.len(), 3);
    // Real mode, a segment with a base.
    let mut m = Machine::new();
    m.cpu.state.seg[Seg::Es as usize].base = 0x4_0000;
    m.cpu.state.seg_base[Seg::Es as usize] = 0x4_0000;
    m.cpu.update_mode();
    assert_eq!(rep_ins(&mut m, 0x100, 256, 2), None);
    assert_eq!((m.words(0x4_02fe, 2, 1), m.words(0x4_0300, 2, 1)), (vec![0x5678], vec![0]));
    // Refused by the permission map: nothing is read.
    let mut m = Machine::protected(3);
    m.set(TSS + 0x88 + 0x1f0 / 8, 1, 1);
    assert_eq!(rep_ins(&mut m, 0x4_0000, 100, 2), Some((13, Some(0))));
    assert_eq!((m.cpu.state.gpr[reg::RCX], m.bus.lock().unwrap().ports.len()), (100, 0));
}

#[test]
fn ports_and_the_permission_map() {
    let mut m = Machine::protected(0);
    assert_eq!(m.call(PortIn, [0x60, 0, 0], 1), Ok(0x1234_5678));
    m.call(PortOut, [0xcf8, 0x8000_0000, 0], 4).unwrap();
    assert_eq!(m.bus.lock().unwrap().ports, [(0x60, 1, None), (0xcf8, 4, Some(0x8000_0000))]);
    let mut m = Machine::protected(3);
    m.set(TSS + 0x88 + 0xc, 2, 0b1000_0111_1111_1111);
    m.call(PortIn, [0x6b, 0, 0], 4).unwrap();
    for (port, size) in [(0x6a, 1), (0x6a, 2), (0x6c, 4), (0x6f, 1)] {
        assert_eq!(m.fails(PortIn, [port, 0, 0], size), (13, Some(0)), "{port:#x} {size}");
        assert_eq!(m.fails(PortOut, [port, 0, 0], size), (13, Some(0)), "{port:#x} {size}");
    }
    assert_eq!(m.fails(PortIn, [0xffff, 0, 0], 1), (13, Some(0)), "beyond the TSS's limit");
    m.cpu.state.tr.limit = 0x66;
    assert_eq!(m.fails(PortIn, [0x6b, 0, 0], 1), (13, Some(0)), "no map base");
    m.cpu.state.flags |= Rflags::IOPL;
    m.call(PortIn, [0xffff, 0, 0], 4).unwrap();
    assert_eq!(m.bus.lock().unwrap().ports.len(), 2, "refused accesses do not reach the bus");
}

#[test]
fn init_keeps_numbers_and_msrs() {
    let mut m = Machine::long(3);
    let s = &mut m.cpu.state;
    (s.xmm[3], s.pat, s.lstar, s.tsc_offset, s.nmi_blocked, s.halted) = ([5, 6], 7, 8, 9, 1, 1);
    (s.cr0, s.dr[0], s.gpr[reg::RBX]) = (s.cr0 & !Cr0::CD & !Cr0::NW, 0x1000, 1);
    s.fpu.set_control_word(0x0240);
    m.cpu.update_mode();
    m.cpu.init();
    let s = &m.cpu.state;
    assert_eq!((s.xmm[3], s.pat, s.lstar, s.tsc_offset, s.fpu.control_word()), ([5, 6], 7, 8, 9, 0x0240));
    assert_eq!((s.rip, s.seg_base[Seg::Cs as usize], s.efer, s.flags.bits()), (0xfff0, 0xffff_0000, Efer::empty(), 2));
    assert_eq!((s.cr0, s.cr3, s.cr4, s.dr[0], s.gpr[reg::RBX]), (Cr0::ET, Cr3::empty(), Cr4::empty(), 0, 0));
    assert_eq!((s.nmi_blocked, s.halted, m.cpu.mode.bitness()), (0, 0, 16));
}

/// With CR0.NE clear an x87 exception is the board's to tell of, and the vCPU waits.
#[test]
fn x87_errors_without_ne() {
    let mut m = Machine::protected(0);
    m.cpu.state.cr0 &= !Cr0::NE;
    let divide = |m: &mut Machine| {
        // FNINIT; FLDCW [0x7000] with division by zero unmasked; FLD1; FLDZ; FDIVP
        m.set(0x7000, 2, 0x37b);
        for insn in [&[0xdb, 0xe3][..], &[0xd9, 0x2d, 0, 0x70, 0, 0], &[0xd9, 0xe8], &[0xd9, 0xee], &[0xde, 0xf9]] {
            assert_eq!(m.run(insn), None, "{insn:x?}");
        }
    };
    divide(&mut m);
    assert_eq!(m.bus.lock().unwrap().ferr, [] as [bool; 0], "told by the next waiting instruction");
    assert_eq!((m.run(&[0x9b]), m.cpu.header.verdict), (None, mimus_softmmu::Verdict::Again as u32));
    assert_eq!((m.cpu.state.halted, m.cpu.vectors[16]), (1, 0));
    m.cpu.state.halted = 0;
    // FNCLEX.
    assert_eq!(m.run(&[0xdb, 0xe2]), None);
    assert_eq!(m.bus.lock().unwrap().ferr, [true, false]);
    assert_eq!((m.run(&[0x9b]), m.cpu.header.verdict, m.cpu.state.halted), (None, 0, 0));
    // IGNNE#: the next instruction is executed, and the exception stays.
    divide(&mut m);
    m.bus.lock().unwrap().ignne = true;
    assert_eq!((m.run(&[0xd9, 0xe8]), m.cpu.header.verdict), (None, 0));
    assert_eq!((m.cpu.state.fpu.top(), m.cpu.state.fpu.status_word() & 0x8084), (5, 0x8084));
    m.cpu.state.cr0 |= Cr0::NE;
    assert_eq!(m.run(&[0x9b]), Some((16, None)));
}

/// What is hidden from a guest is not there for it.
#[test]
fn features_that_are_hidden() {
    use mimus_frontend::x86::features::{Feature, FeatureSet};
    let hide = |names: &[&str]| {
        let set = names.iter().map(|name| Feature::named(name).unwrap()).fold(FeatureSet::default(), FeatureSet::with);
        Machine::long_with(0, Features { hidden: set, ..Features::default() })
    };
    let mut m = hide(&["pcid", "smep"]);
    for bit in [Cr4::PCIDE, Cr4::SMEP] {
        let value = m.cpu.state.cr4 | bit;
        cr_fails(&mut m, 4, value);
    }
    let value = m.cpu.state.cr4 | Cr4::UMIP;
    write_cr(&mut m, 4, value);
    m.call(Invpcid, [2, 0, 0], 0).unwrap();
    assert_eq!(hide(&["invpcid"]).fails(Invpcid, [2, 0, 0], 0), (6, None));
}
