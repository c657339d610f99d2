//! Segment registers, descriptor tables and the instructions that look at descriptors.

use mimus_frontend::x86::helpers::Helper::{self, *};
use mimus_frontend::x86::state::{Cr4, Rflags, Seg, Segment};

use super::fixture::{GDT, LDT, Machine, sel};

fn load(m: &mut Machine, seg: Seg, selector: u16) -> Result<u64, (u8, Option<u32>)> {
    let before = m.cpu.state;
    m.call(LoadSeg, [selector.into(), 0, 0], seg as u32).map_err(|e| {
        assert!(m.cpu.state == before);
        (e.vector, e.error)
    })
}

#[test]
fn real_mode_loads_the_base_only() {
    let mut m = Machine::new();
    m.cpu.state.seg[Seg::Es as usize].limit = u32::MAX;
    load(&mut m, Seg::Es, 0xb800).unwrap();
    let es = Segment { base: 0xb_8000, limit: u32::MAX, selector: 0xb800, access: 0x93 };
    assert_eq!(m.cpu.state.seg[Seg::Es as usize], es);
    assert_eq!(m.cpu.state.seg_base[Seg::Es as usize], 0xb_8000);
}

#[test]
fn a_null_segment_from_protected_mode_is_usable_again_in_real_mode() {
    let mut m = Machine::new();
    m.cpu.state.seg[Seg::Fs as usize] = Segment { base: 0, limit: 0, selector: 0, access: 0 };
    load(&mut m, Seg::Fs, 0x10).unwrap();
    assert_eq!(m.cpu.state.seg[Seg::Fs as usize], Segment { base: 0x100, limit: 0xffff, selector: 0x10, access: 0x93 });
}

#[test]
fn protected_mode_checks() {
    let rows = [
        (0, Seg::Ds, 0, Ok(())),
        (0, Seg::Ds, 3, Ok(())),
        (0, Seg::Ss, 0, Err((13, 0))),
        (0, Seg::Ss, sel::DATA, Ok(())),
        (0, Seg::Ss, sel::DATA | 1, Err((13, sel::DATA))),
        (0, Seg::Ss, sel::USER_DATA, Err((13, sel::USER_DATA & !3))),
        (0, Seg::Ss, sel::READ_ONLY, Err((13, sel::READ_ONLY))),
        (0, Seg::Ss, sel::CODE, Err((13, sel::CODE))),
        (0, Seg::Ss, sel::ABSENT_DATA, Err((12, sel::ABSENT_DATA))),
        (0, Seg::Ds, sel::ABSENT_DATA, Err((11, sel::ABSENT_DATA))),
        (0, Seg::Ds, sel::BEYOND, Err((13, sel::BEYOND))),
        (0, Seg::Ds, sel::TSS, Err((13, sel::TSS))),
        (0, Seg::Ds, sel::CODE, Ok(())),
        (0, Seg::Ds, sel::EXECUTE_ONLY, Err((13, sel::EXECUTE_ONLY))),
        (0, Seg::Ds, 4, Err((13, 4))),
        (3, Seg::Es, sel::DATA, Err((13, sel::DATA))),
        (3, Seg::Es, sel::USER_DATA, Ok(())),
        (3, Seg::Es, sel::CONFORMING, Ok(())),
        (3, Seg::Es, sel::CODE | 3, Err((13, sel::CODE))),
        (0, Seg::Es, sel::DATA | 3, Err((13, sel::DATA))),
    ];
    for (cpl, seg, selector, expected) in rows {
        let mut m = Machine::protected(cpl);
        let result = load(&mut m, seg, selector).map(drop);
        assert_eq!(result, expected.map_err(|(v, code)| (v, Some(u32::from(code)))), "{cpl} {seg:?} {selector:#x}");
        if expected == Ok(()) && selector > 3 {
            assert_eq!(m.get(GDT + u64::from(selector & !7) + 5, 1) & 1, 1, "accessed bit of {selector:#x}");
            assert_eq!(m.selector(seg), selector);
        }
    }
}

#[test]
fn cs_and_unknown_numbers_are_undefined() {
    let mut m = Machine::protected(0);
    for number in [1, 6, 7, 255] {
        assert_eq!(m.fails(LoadSeg, [sel::DATA.into(), 0, 0], number), (6, None));
    }
}

#[test]
fn null_ss_in_64_bit_mode_keeps_the_privilege_level() {
    let mut m = Machine::long(0);
    load(&mut m, Seg::Ss, 0).unwrap();
    assert_eq!((m.cpu.state.cpl(), m.cpu.mode.stack_mask()), (0, u64::MAX));
    assert_eq!(load(&mut m, Seg::Ss, 3), Err((13, Some(0))));
    let mut m = Machine::long(3);
    assert_eq!(load(&mut m, Seg::Ss, 3), Err((13, Some(0))));
}

#[test]
fn descriptors_in_the_ldt() {
    let mut m = Machine::protected(0);
    m.set(LDT + 8, 8, super::fixture::descriptor(0x12_3456, 0xfff, 0x4092));
    assert_eq!(load(&mut m, Seg::Ds, 0xc), Err((13, Some(0xc))));
    m.call(Lldt, [sel::LDT.into(), 0, 0], 0).unwrap();
    load(&mut m, Seg::Ds, 0xc).unwrap();
    assert_eq!(m.cpu.state.seg_base[Seg::Ds as usize], 0x12_3456);
    m.call(Lldt, [0; 3], 0).unwrap();
    assert_eq!(load(&mut m, Seg::Ds, 0xc), Err((13, Some(0xc))));
}

const WRITE: u32 = 1 << 16;

fn linear(m: &mut Machine, seg: Seg, offset: u64, arg: u32) -> Result<u64, (u8, Option<u32>)> {
    m.call(Linear, [offset, 0, 0], seg as u32 | arg).map_err(|e| (e.vector, e.error))
}

#[test]
fn limits() {
    let mut m = Machine::protected(0);
    load(&mut m, Seg::Fs, sel::SMALL).unwrap();
    assert_eq!(linear(&mut m, Seg::Fs, 0x1c, 4 << 8 | WRITE), Ok(0x10_001c));
    assert_eq!(linear(&mut m, Seg::Fs, 0x1d, 4 << 8), Err((13, Some(0))));
    assert_eq!(linear(&mut m, Seg::Fs, 0xffff_ffff, 4 << 8), Err((13, Some(0))));
    load(&mut m, Seg::Ss, sel::SMALL).unwrap();
    assert_eq!(linear(&mut m, Seg::Ss, 0x20, 1 << 8), Err((12, Some(0))));
    assert_eq!(linear(&mut m, Seg::Fs, 0x20, 1 << 8 | 1 << 17), Err((12, Some(0))));
    load(&mut m, Seg::Gs, sel::EXPAND_DOWN).unwrap();
    assert_eq!(linear(&mut m, Seg::Gs, 0xfff, 1 << 8), Err((13, Some(0))));
    assert_eq!(linear(&mut m, Seg::Gs, 0x1000, 8 << 8 | WRITE), Ok(0x1000));
    assert_eq!(linear(&mut m, Seg::Gs, 0xffff_fffe, 4 << 8), Err((13, Some(0))));
}

#[test]
fn types() {
    let mut m = Machine::protected(0);
    assert_eq!(linear(&mut m, Seg::Cs, 0, 1 << 8 | WRITE), Err((13, Some(0))));
    assert_eq!(linear(&mut m, Seg::Cs, 0, 1 << 8), Ok(0));
    load(&mut m, Seg::Es, sel::READ_ONLY).unwrap();
    assert_eq!(linear(&mut m, Seg::Es, 5, 1 << 8), Ok(5));
    assert_eq!(linear(&mut m, Seg::Es, 5, 1 << 8 | WRITE), Err((13, Some(0))));
    load(&mut m, Seg::Es, 0).unwrap();
    assert_eq!(linear(&mut m, Seg::Es, 0, 1 << 8), Err((13, Some(0))));
    let mut m = Machine::new();
    assert_eq!(linear(&mut m, Seg::Cs, 0xffff, 1 << 8 | WRITE), Ok(0xffff_ffff));
    assert_eq!(linear(&mut m, Seg::Ds, 0xffff, 2 << 8), Err((13, Some(0))));
}

#[test]
fn sixty_four_bit_addresses() {
    let mut m = Machine::long(0);
    m.cpu.state.seg[Seg::Gs as usize].base = 0x1000;
    m.cpu.state.seg[Seg::Ds as usize].base = 0x1000;
    m.cpu.update_mode();
    assert_eq!(linear(&mut m, Seg::Gs, 0x10, 8 << 8), Ok(0x1010));
    assert_eq!(linear(&mut m, Seg::Ds, 0x10, 8 << 8), Ok(0x10));
    assert_eq!(linear(&mut m, Seg::Ds, 0x7fff_ffff_fff9, 8 << 8), Err((13, Some(0))));
    assert_eq!(linear(&mut m, Seg::Ds, 1 << 47, 1 << 8 | 1 << 17), Err((12, Some(0))));
}

#[test]
fn lar_lsl_verr_verw() {
    const OK: u64 = 1 << 32;
    let rows: &[(u8, u16, [u64; 4])] = &[
        (0, sel::CODE, [OK | 0xc0_9a00, OK | 0xffff_ffff, 1, 0]),
        (0, sel::READ_ONLY, [OK | 0xc0_9000, OK | 0xffff_ffff, 1, 0]),
        (0, sel::EXECUTE_ONLY, [OK | 0xc0_9800, OK | 0xffff_ffff, 0, 0]),
        (0, sel::SMALL, [OK | 0x40_9200, OK | 0x1f, 1, 1]),
        (0, sel::LDT, [OK | 0x8200, OK | 0xff, 0, 0]),
        (0, sel::TASK_GATE, [OK | 0x8500, 0, 0, 0]),
        (0, sel::BEYOND, [0; 4]),
        (0, 0, [0; 4]),
        (3, sel::DATA, [0; 4]),
        (3, sel::CONFORMING, [OK | 0xc0_9e00, OK | 0xffff_ffff, 1, 0]),
        (0, sel::DATA | 3, [0; 4]),
    ];
    for &(cpl, selector, expected) in rows {
        let mut m = Machine::protected(cpl);
        let got = [Lar, Lsl, Verr, Verw].map(|h| m.call(h, [selector.into(), 0, 0], 0).unwrap());
        assert_eq!(got, expected, "{cpl} {selector:#x}");
    }
    let mut m = Machine::long(0);
    assert_eq!(m.call(Lar, [sel::TASK_GATE.into(), 0, 0], 0), Ok(0), "no task gates in IA-32e mode");
    let mut m = Machine::new();
    assert_eq!(m.fails(Lar, [sel::CODE.into(), 0, 0], 0), (6, None));
}

#[test]
fn ltr_makes_the_tss_busy() {
    let mut m = Machine::protected(0);
    m.set(GDT + u64::from(sel::TSS) + 5, 1, 0x89);
    m.call(Ltr, [sel::TSS.into(), 0, 0], 0).unwrap();
    assert_eq!(m.get(GDT + u64::from(sel::TSS) + 5, 1), 0x8b);
    assert_eq!((m.cpu.state.tr.base, m.cpu.state.tr.access), (super::fixture::TSS, 0x8b));
    assert_eq!(m.fails(Ltr, [sel::TSS.into(), 0, 0], 0), (13, Some(sel::TSS.into())));
    assert_eq!(m.fails(Ltr, [0; 3], 0), (13, Some(0)));
    assert_eq!(m.fails(Ltr, [sel::LDT.into(), 0, 0], 0), (13, Some(sel::LDT.into())));
    assert_eq!(m.fails(Lldt, [u64::from(sel::LDT) | 4, 0, 0], 0), (13, Some(u32::from(sel::LDT) | 4)));
    m.set(GDT + u64::from(sel::LDT) + 5, 1, 0x02);
    assert_eq!(m.fails(Lldt, [sel::LDT.into(), 0, 0], 0), (11, Some(sel::LDT.into())));
    assert_eq!(Machine::protected(3).fails(Lldt, [0; 3], 0), (13, Some(0)));
}

#[test]
fn system_descriptors_have_16_bytes_in_long_mode() {
    let mut m = Machine::long(0);
    m.set(GDT + u64::from(sel::LDT) + 8, 8, 0x1234);
    m.call(Lldt, [sel::LDT.into(), 0, 0], 0).unwrap();
    assert_eq!(m.cpu.state.ldtr.base, 0x1234_0000_0000 | LDT);
    m.set(GDT + u64::from(sel::LDT) + 8, 8, 0x1234_5678);
    assert_eq!(m.fails(Lldt, [sel::LDT.into(), 0, 0], 0), (13, Some(sel::LDT.into())), "not canonical");
    m.set(GDT + u64::from(sel::LDT) + 8, 8, 1 << 40);
    assert_eq!(m.fails(Lldt, [sel::LDT.into(), 0, 0], 0), (13, Some(sel::LDT.into())), "second type");
    m.cpu.state.gdtr.limit = u64::from(sel::LDT) + 14;
    assert_eq!(m.fails(Lldt, [sel::LDT.into(), 0, 0], 0), (13, Some(sel::LDT.into())), "cut by the limit");
}

#[test]
fn table_registers() {
    let mut m = Machine::protected(0);
    m.call(Lgdt, [0xffff_1234_5678_9abc, 0xf_ffff, 0], 0).unwrap();
    assert_eq!((m.cpu.state.gdtr.base, m.cpu.state.gdtr.limit), (0x5678_9abc, 0xffff));
    let mut m = Machine::long(0);
    m.call(Lidt, [0xffff_8000_0000_0000, 0xfff, 0], 0).unwrap();
    assert_eq!(m.cpu.state.idtr.base, 0xffff_8000_0000_0000);
    assert_eq!(m.fails(Lidt, [1 << 47, 0xfff, 0], 0), (13, Some(0)));
    assert_eq!(Machine::long(3).fails(Lgdt, [0; 3], 0), (13, Some(0)));
}

#[test]
fn umip() {
    let mut m = Machine::protected(3);
    m.call(CheckUmip, [0; 3], 0).unwrap();
    m.cpu.state.cr4 |= Cr4::UMIP;
    assert_eq!(m.fails(CheckUmip, [0; 3], 0), (13, Some(0)));
    let mut m = Machine::protected(0);
    m.cpu.state.cr4 |= Cr4::UMIP;
    m.call(CheckUmip, [0; 3], 0).unwrap();
}

#[test]
fn no_helper_panics_on_hostile_operands() {
    let values = [0, 1, 7, 8, 0xffff, 0x1_0000, u64::from(u32::MAX), 1 << 47, 1 << 63, u64::MAX];
    for helper in [
        LoadSeg,
        Linear,
        Lar,
        Lsl,
        Verr,
        Verw,
        Lldt,
        Ltr,
        Lgdt,
        Lidt,
        FarJump,
        FarCall,
        FarRet,
        Iret,
        Int,
        Syscall,
        Sysret,
        Sysenter,
        Sysexit,
        ReadCr,
        WriteCr,
        ReadDr,
        WriteDr,
        Lmsw,
        Invlpg,
        Invpcid,
        Popf,
        PushfValue,
        ReadFsGsBase,
        WriteFsGsBase,
        Rdmsr,
        Wrmsr,
        PortIn,
        PortOut,
        Enter,
        Cpuid,
    ] as [Helper; 36]
    {
        for build in [Machine::new, || Machine::protected(0), || Machine::protected(3), || Machine::long(0)] {
            let mut m = build();
            for a in values {
                for arg in [0, 1, 2, 3, 4, 8, 0x10, 0x803, u32::MAX] {
                    m.cpu.state.gpr = [a; 16];
                    m.cpu.state.flags = Rflags::from_bits_retain(2 | a) & !(Rflags::VM | Rflags::ARITH);
                    m.cpu.state.sysenter_cs = a;
                    m.cpu.update_mode();
                    let _ = m.call(helper, [a, a.rotate_left(32), a], arg);
                }
            }
        }
    }
}
