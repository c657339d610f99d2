//! Far jumps, calls and returns, IRET and the fast system calls.

use mimus_frontend::x86::helpers::Helper::*;
use mimus_frontend::x86::state::{Dr7, Efer, Rflags, Seg, reg};

use super::fixture::{GDT, Machine, STACK, STACK0, gate, rflags, sel};

const NEXT: u64 = 0x1237;

fn far(selector: u16, offset: u64) -> [u64; 3] {
    [selector.into(), offset, NEXT]
}

fn set_call_gate(m: &Machine, selector: u16, offset: u64, access: u64, count: u64) {
    let (low, high) = gate(selector, offset, access, count);
    m.set(GDT + u64::from(sel::GATE), 8, low);
    if m.cpu.state.long_active() {
        m.set(GDT + u64::from(sel::GATE) + 8, 8, high);
    }
}

/// Puts words of `size` bytes where RSP points.
fn stack_up(m: &mut Machine, size: u8, words: &[u64]) {
    let sp = STACK - words.len() as u64 * u64::from(size);
    for (i, &word) in (0u64..).zip(words) {
        m.set(sp + i * u64::from(size), size, word);
    }
    m.cpu.state.gpr[reg::RSP] = sp;
}

#[test]
fn real_mode() {
    let mut m = Machine::new();
    m.cpu.state.gpr[reg::RSP] = 0x100;
    m.call(FarJump, far(0x2000, 0x1_1234), 2).unwrap();
    assert_eq!((m.selector(Seg::Cs), m.cpu.state.rip, m.cpu.state.seg_base[1]), (0x2000, 0x1234, 0x2_0000));
    m.call(FarCall, far(0x3000, 0x10), 2).unwrap();
    assert_eq!((m.rsp(), m.words(0xfc, 2, 2)), (0xfc, vec![NEXT, 0x2000]));
    m.call(FarRet, [6, 0, 0], 2).unwrap();
    assert_eq!((m.selector(Seg::Cs), m.cpu.state.rip, m.rsp()), (0x2000, NEXT, 0x106));
    assert_eq!(m.fails(FarJump, far(0x2000, 0x1_0000), 4), (13, Some(0)), "beyond the limit");
}

#[test]
fn a_jump_into_protected_and_64_bit_code() {
    let mut m = Machine::protected(0);
    m.call(FarJump, far(sel::CODE16 | 3, 0x1_2345), 2).unwrap_err();
    m.call(FarJump, far(sel::CODE16, 0x1_2345), 2).unwrap();
    assert_eq!((m.cpu.mode.bitness(), m.cpu.state.rip), (16, 0x2345));
    let mut m = Machine::long(0);
    m.call(FarJump, far(sel::CODE, 0x1_2345), 4).unwrap();
    assert_eq!(m.cpu.mode.bitness(), 32);
    m.call(FarJump, far(sel::CODE64, 0x1_2345), 4).unwrap();
    assert_eq!((m.cpu.mode.bitness(), m.cpu.state.rip), (64, 0x1_2345));
}

#[test]
fn direct_transfer_checks() {
    let rows = [
        (0, 0, 0, (13, 0)),
        (0, sel::BEYOND, 0, (13, sel::BEYOND)),
        (0, sel::DATA, 0, (13, sel::DATA)),
        (0, sel::USER_CODE, 0, (13, sel::USER_CODE & !3)),
        (3, sel::CODE, 0, (13, sel::CODE)),
        (0, sel::ABSENT_CODE, 0, (11, sel::ABSENT_CODE)),
        (0, sel::CODE16, 0x1_0000, (13, 0)),
        (0, sel::LDT, 0, (13, sel::LDT)),
    ];
    for (cpl, selector, offset, (vector, code)) in rows {
        for helper in [FarJump, FarCall] {
            let mut m = Machine::protected(cpl);
            let failed = m.fails(helper, far(selector, offset), 4);
            assert_eq!(failed, (vector, Some(u32::from(code))), "{helper:?} {selector:#x}");
        }
    }
    let mut m = Machine::long(0);
    assert_eq!(m.fails(FarJump, far(sel::CODE64, 1 << 47), 8), (13, Some(0)));
    assert_eq!(m.fails(FarJump, far(sel::TSS, 0), 8), (13, Some(sel::TSS.into())));
}

#[test]
fn conforming_code_keeps_the_level() {
    let mut m = Machine::protected(3);
    m.call(FarJump, far(sel::CONFORMING, 0x5000), 4).unwrap();
    assert_eq!((m.selector(Seg::Cs), m.cpu.state.cpl()), (sel::CONFORMING | 3, 3));
}

#[test]
fn call_and_return_within_a_level() {
    let mut m = Machine::protected(0);
    m.call(FarCall, far(sel::CODE, 0x5000), 4).unwrap();
    assert_eq!((m.rsp(), m.words(m.rsp(), 4, 2)), (STACK - 8, vec![NEXT, sel::CODE.into()]));
    m.call(FarRet, [0; 3], 4).unwrap();
    assert_eq!((m.rsp(), m.cpu.state.rip), (STACK, NEXT));
    let mut m = Machine::long(0);
    m.call(FarCall, far(sel::CODE64, 0x5000), 8).unwrap();
    assert_eq!(m.words(m.rsp(), 8, 2), [NEXT, sel::CODE64.into()]);
    m.call(FarRet, [0; 3], 8).unwrap();
    assert_eq!((m.rsp(), m.cpu.state.rip), (STACK, NEXT));
}

#[test]
fn call_gate_to_an_inner_level_copies_parameters() {
    let mut m = Machine::protected(3);
    set_call_gate(&m, sel::CODE, 0x1_2345, 0xec, 2);
    stack_up(&mut m, 4, &[0x11, 0x22]);
    m.call(FarCall, far(sel::GATE | 3, 0), 4).unwrap();
    assert_eq!((m.cpu.state.cpl(), m.cpu.state.rip, m.selector(Seg::Ss)), (0, 0x1_2345, sel::DATA));
    let frame = [NEXT, sel::USER_CODE.into(), 0x11, 0x22, STACK - 8, sel::USER_DATA.into()];
    assert_eq!((m.rsp(), m.words(m.rsp(), 4, 6)), (STACK0 - 24, frame.to_vec()));
    // And back, which releases the parameters on both stacks and takes the inner level's segments away.
    m.call(LoadSeg, [sel::DATA.into(), 0, 0], Seg::Fs as u32).unwrap();
    m.call(FarRet, [8, 0, 0], 4).unwrap();
    assert_eq!((m.cpu.state.cpl(), m.rsp(), m.cpu.state.rip), (3, STACK, NEXT));
    assert_eq!((m.selector(Seg::Fs), m.selector(Seg::Es)), (0, sel::USER_DATA));
    assert!(!m.cpu.state.seg[Seg::Fs as usize].present());
}

#[test]
fn call_gate_of_16_bits_and_jump_through_a_gate() {
    let mut m = Machine::protected(0);
    set_call_gate(&m, sel::CODE, 0x1_2345, 0x84, 0);
    m.call(FarCall, far(sel::GATE, 0), 4).unwrap();
    assert_eq!((m.rsp(), m.words(m.rsp(), 2, 2), m.cpu.state.rip), (STACK - 4, vec![NEXT, sel::CODE.into()], 0x2345));
    let mut m = Machine::protected(3);
    set_call_gate(&m, sel::CODE, 0x1_2345, 0xec, 0);
    assert_eq!(m.fails(FarJump, far(sel::GATE, 0), 4), (13, Some(sel::CODE.into())), "JMP cannot change the level");
    set_call_gate(&m, sel::CONFORMING, 0x1_2345, 0xec, 0);
    m.call(FarJump, far(sel::GATE, 0), 4).unwrap();
    assert_eq!((m.cpu.state.rip, m.cpu.state.cpl()), (0x1_2345, 3));
}

#[test]
fn call_gate_in_long_mode() {
    let mut m = Machine::long(3);
    set_call_gate(&m, sel::CODE64, 0xffff_8000_0001_2345, 0xec, 0);
    m.call(FarCall, far(sel::GATE, 0), 4).unwrap();
    let frame = [NEXT, sel::USER_CODE64.into(), STACK, sel::USER_DATA.into()];
    assert_eq!((m.rsp(), m.words(m.rsp(), 8, 4)), (STACK0 - 32, frame.to_vec()));
    assert_eq!((m.selector(Seg::Ss), m.cpu.state.rip), (0, 0xffff_8000_0001_2345));
    m.call(FarRet, [0; 3], 8).unwrap();
    assert_eq!((m.cpu.state.cpl(), m.rsp(), m.selector(Seg::Ss)), (3, STACK, sel::USER_DATA));
    let mut m = Machine::long(3);
    set_call_gate(&m, sel::CODE, 0x1_2345, 0xec, 0);
    assert_eq!(m.fails(FarCall, far(sel::GATE, 0), 4), (13, Some(sel::CODE.into())), "the target must be 64-bit");
}

#[test]
fn gate_privilege_and_presence() {
    let mut m = Machine::protected(3);
    for (access, vector) in [(0x8c, 13), (0x6c, 11)] {
        set_call_gate(&m, sel::CODE, 0, access, 0);
        assert_eq!(m.fails(FarCall, far(sel::GATE, 0), 4), (vector, Some(sel::GATE.into())));
    }
}

#[test]
fn return_checks() {
    let rows = [
        (0, 0, (13, 0)),
        (3, sel::CODE, (13, sel::CODE)),
        (0, sel::DATA, (13, sel::DATA)),
        (0, sel::CODE | 3, (13, sel::CODE)),
        (0, sel::ABSENT_CODE, (11, sel::ABSENT_CODE)),
    ];
    for (cpl, selector, (vector, code)) in rows {
        for helper in [FarRet, Iret] {
            let mut m = Machine::protected(cpl);
            stack_up(&mut m, 4, &[0x5000, selector.into(), 2]);
            assert_eq!(m.fails(helper, [0; 3], 4), (vector, Some(u32::from(code))), "{helper:?} {selector:#x}");
        }
    }
    for (ss, vector, code) in [(0, 13, 0), (sel::DATA, 13, sel::DATA), (sel::BEYOND | 3, 13, sel::BEYOND)] {
        let mut m = Machine::protected(0);
        stack_up(&mut m, 4, &[0x5000, sel::USER_CODE.into(), 2, 0x7000, ss.into()]);
        assert_eq!(m.fails(Iret, [0; 3], 4), (vector, Some(u32::from(code))), "{ss:#x}");
    }
}

#[test]
fn iret_in_real_mode() {
    let mut m = Machine::new();
    stack_up(&mut m, 2, &[0x5000, 0x300, 0x7202 | rflags::CF]);
    m.cpu.state.nmi_blocked = 1;
    m.call(Iret, [0; 3], 2).unwrap();
    assert_eq!((m.selector(Seg::Cs), m.cpu.state.rip, m.cpu.state.rflags().bits()), (0x300, 0x5000, 0x7203));
    assert_eq!((m.cpu.state.nmi_blocked, m.rsp()), (0, STACK));
}

#[test]
fn iret_outward_loads_flags_by_privilege() {
    let all = u64::from(u32::MAX) & !rflags::VM & !rflags::NT;
    let mut m = Machine::protected(0);
    m.cpu.state.dr7 |= Dr7::L0;
    stack_up(&mut m, 4, &[0x5000, sel::USER_CODE.into(), all, 0x7000, sel::USER_DATA.into()]);
    m.call(Iret, [0; 3], 4).unwrap();
    assert_eq!((m.cpu.state.cpl(), m.rsp(), m.cpu.state.rip), (3, 0x7000, 0x5000));
    assert_eq!(m.cpu.state.rflags().bits(), 0x003d_3fd7, "every flag there is but VM and NT");
    assert_eq!(m.selector(Seg::Ds), 0, "level 0 segments are not for level 3");
    assert!(!m.cpu.state.seg[Seg::Ds as usize].present());
    // RF means something with a breakpoint armed only.
    m.cpu.state.dr7 = Dr7::FIXED;
    m.cpu.state.flags &= !Rflags::RF;
    stack_up(&mut m, 4, &[0x5000, sel::USER_CODE.into(), rflags::RF]);
    m.call(Iret, [0; 3], 4).unwrap();
    assert_eq!(m.cpu.state.flags & Rflags::RF, Rflags::empty());
    // Level 3 with IOPL 0 can change neither IF nor IOPL.
    let mut m = Machine::protected(3);
    stack_up(&mut m, 4, &[0x5000, sel::USER_CODE.into(), rflags::IOPL | rflags::ZF]);
    m.call(Iret, [0; 3], 4).unwrap();
    assert_eq!(m.cpu.state.rflags().bits(), 2 | rflags::IF | rflags::ZF);
}

#[test]
fn a_16_bit_iret_keeps_the_upper_flags() {
    let mut m = Machine::protected(0);
    m.cpu.state.flags |= Rflags::ID | Rflags::AC;
    stack_up(&mut m, 2, &[0x5000, sel::CODE.into(), 2]);
    m.call(Iret, [0; 3], 2).unwrap();
    assert_eq!(m.cpu.state.rflags().bits(), 2 | rflags::ID | rflags::AC);
}

#[test]
fn iretq_always_pops_the_stack() {
    let mut m = Machine::long(0);
    stack_up(&mut m, 8, &[0x5000, sel::CODE64.into(), 0x202, 0x7008, 0]);
    m.call(Iret, [0; 3], 8).unwrap();
    assert_eq!((m.rsp(), m.selector(Seg::Ss), m.cpu.state.cpl()), (0x7008, 0, 0));
    let mut m = Machine::long(0);
    stack_up(&mut m, 8, &[0x5000, sel::USER_CODE64.into(), 0x202, 0x7008, sel::USER_DATA.into()]);
    m.call(Iret, [0; 3], 8).unwrap();
    assert_eq!((m.rsp(), m.cpu.mode.cpl(), m.cpu.mode.bitness()), (0x7008, 3, 64));
}

#[test]
fn a_return_to_an_outer_level_nulls_selectors_and_keeps_bases() {
    // What FS held, and what it holds in level 3.
    for (selector, access, after) in [
        (sel::DATA, 0xc093, 0),
        // Null selectors with an RPL are made 0.
        (3, 0, 0),
        (sel::USER_DATA, 0xc0f3, sel::USER_DATA),
        (sel::CONFORMING, 0xc09f, sel::CONFORMING),
    ] {
        for helper in [Iret, FarRet] {
            let mut m = Machine::long(0);
            let fs = &mut m.cpu.state.seg[Seg::Fs as usize];
            (fs.selector, fs.access, fs.base) = (selector, access, 0x7fff_1234_5000);
            let flags = if helper == Iret { &[0x202][..] } else { &[] };
            let frame = [&[0x5000, sel::USER_CODE64.into()], flags, &[0x7008, sel::USER_DATA.into()]].concat();
            stack_up(&mut m, 8, &frame);
            m.call(helper, [0; 3], 8).unwrap();
            assert_eq!((m.selector(Seg::Fs), m.cpu.state.cpl()), (after, 3), "{helper:?} {selector:#x}");
            let bases = (m.cpu.state.seg[Seg::Fs as usize].base, m.cpu.state.seg_base[Seg::Fs as usize]);
            assert_eq!(bases, (0x7fff_1234_5000, 0x7fff_1234_5000), "{helper:?} {selector:#x}");
        }
    }
}

#[test]
fn iretq_faults() {
    let user = u64::from(sel::USER_CODE64);
    let rows: &[(&[u64; 5], (u8, u32))] = &[
        (&[1 << 47, user, 2, 0, sel::USER_DATA as u64], (13, 0)),
        (&[0, user, 2, 0, 3], (13, 0)),
        (&[0, sel::CODE64 as u64, 2, 0, sel::USER_DATA as u64], (13, sel::USER_DATA as u32 & !3)),
        (&[0, user, 2, 0, sel::DATA as u64], (13, sel::DATA as u32)),
    ];
    for &(frame, (vector, code)) in rows {
        let mut m = Machine::long(0);
        stack_up(&mut m, 8, frame);
        assert_eq!(m.fails(Iret, [0; 3], 8), (vector, Some(code)), "{frame:x?}");
    }
    let mut m = Machine::long(0);
    m.cpu.state.flags |= Rflags::NT;
    assert_eq!(m.fails(Iret, [0; 3], 8), (13, Some(0)), "no nested tasks in IA-32e mode");
    let mut m = Machine::long(0);
    m.cpu.state.gpr[reg::RSP] = 1 << 47;
    assert_eq!(m.fails(Iret, [0; 3], 8), (12, Some(0)));
}

#[test]
fn iret_from_64_bit_to_compatibility_mode_and_back_by_interrupt() {
    let mut m = Machine::long(0);
    stack_up(&mut m, 8, &[0x5000, sel::USER_CODE.into(), 0x202, 0x7008, sel::USER_DATA.into()]);
    m.call(Iret, [0; 3], 8).unwrap();
    assert_eq!((m.cpu.mode.bitness(), m.cpu.mode.stack_mask()), (32, 0xffff_ffff));
    m.set_gate(0x80, sel::CODE64, 0x1_0000, 0xee, 0);
    m.call(Int, [0x80, 0, 0x5002], 0).unwrap();
    assert_eq!(
        (m.cpu.mode.bitness(), m.get(STACK0 - 40, 8), m.get(STACK0 - 32, 8)),
        (64, 0x5002, sel::USER_CODE.into())
    );
}

#[test]
fn iret_to_a_16_bit_stack_keeps_the_upper_half_of_esp() {
    let mut m = Machine::protected(0);
    let ss = sel::DATA16 | 3;
    m.set(GDT + u64::from(sel::DATA16) + 5, 1, 0xf2);
    stack_up(&mut m, 4, &[0x5000, sel::USER_CODE.into(), 0x202, 0xaaaa_7000, ss.into()]);
    m.cpu.state.gpr[reg::RSP] |= 0x55 << 48;
    m.call(Iret, [0; 3], 4).unwrap();
    assert_eq!(m.rsp() & 0xffff_ffff, 0x7000, "STACK has no upper half");
    assert_eq!(m.selector(Seg::Ss), ss);
}

const STAR: u64 = (0x10 | 3) << 48 | 0x28 << 32;

#[test]
fn syscall_and_sysret() {
    let mut m = Machine::long(3);
    let s = &mut m.cpu.state;
    s.star = STAR;
    s.lstar = 0xffff_8000_0000_1000;
    s.sfmask = rflags::IF | rflags::CF;
    s.set_arith_flags(Rflags::CF | Rflags::ZF);
    m.call(Syscall, [0, 0, NEXT], 0).unwrap();
    let s = &m.cpu.state;
    assert_eq!((s.cpl(), s.rip, s.gpr[reg::RCX], s.gpr[11]), (0, 0xffff_8000_0000_1000, NEXT, 0x243));
    assert_eq!(s.rflags().bits(), 2 | rflags::ZF);
    assert_eq!((m.selector(Seg::Cs), m.selector(Seg::Ss)), (0x28, 0x30));
    assert_eq!((m.cpu.mode.bitness(), m.cpu.bank, m.rsp()), (64, 0, STACK));
    m.call(Sysret, [0; 3], 8).unwrap();
    assert_eq!((m.cpu.state.cpl(), m.cpu.state.rip, m.cpu.state.rflags().bits()), (3, NEXT, 0x243));
    assert_eq!((m.selector(Seg::Cs), m.selector(Seg::Ss), m.cpu.bank), (0x20 | 3, 0x18 | 3, 1));
    m.call(Syscall, [0, 0, NEXT], 0).unwrap();
    m.call(Sysret, [0; 3], 4).unwrap();
    assert_eq!((m.selector(Seg::Cs), m.cpu.mode.bitness()), (0x10 | 3, 32));
}

#[test]
fn syscall_from_compatibility_mode() {
    let mut m = Machine::long(3);
    let cs = &mut m.cpu.state.seg[Seg::Cs as usize];
    (cs.selector, cs.access) = (sel::USER_CODE, 0xc0fb);
    (m.cpu.state.star, m.cpu.state.lstar, m.cpu.state.cstar) = (STAR, 0x1_0000, 0xffff_8000_0000_2000);
    m.cpu.update_mode();
    m.call(Syscall, [0, 0, NEXT], 0).unwrap();
    let s = &m.cpu.state;
    assert_eq!((s.cpl(), s.rip, s.gpr[reg::RCX], m.cpu.mode.bitness()), (0, 0xffff_8000_0000_2000, NEXT, 64));
}

#[test]
fn syscall_faults() {
    let mut m = Machine::long(3);
    assert_eq!(m.fails(Sysret, [0; 3], 8), (13, Some(0)));
    m.cpu.state.efer &= !Efer::SCE;
    assert_eq!(m.fails(Syscall, [0; 3], 0), (6, None));
    let mut m = Machine::long(0);
    m.cpu.state.gpr[reg::RCX] = 1 << 47;
    assert_eq!(m.fails(Sysret, [0; 3], 8), (13, Some(0)));
    assert_eq!(Machine::protected(3).fails(Syscall, [0; 3], 0), (6, None));
}

#[test]
fn sysenter_and_sysexit() {
    let mut m = Machine::protected(3);
    assert_eq!(m.fails(Sysenter, [0; 3], 0), (13, Some(0)));
    let s = &mut m.cpu.state;
    (s.sysenter_cs, s.sysenter_eip, s.sysenter_esp) = (sel::CODE.into(), 0x1_0000, 0x8888);
    m.call(Sysenter, [0; 3], 0).unwrap();
    assert_eq!((m.cpu.state.cpl(), m.cpu.state.rip, m.rsp(), m.cpu.state.flags.bits()), (0, 0x1_0000, 0x8888, 2));
    assert_eq!((m.selector(Seg::Cs), m.selector(Seg::Ss)), (sel::CODE, sel::DATA));
    m.cpu.state.gpr[reg::RDX] = 0x5000;
    m.cpu.state.gpr[reg::RCX] = 0x7000;
    m.call(Sysexit, [0; 3], 4).unwrap();
    assert_eq!((m.cpu.state.cpl(), m.cpu.state.rip, m.rsp()), (3, 0x5000, 0x7000));
    assert_eq!((m.selector(Seg::Cs), m.selector(Seg::Ss)), (sel::USER_CODE, sel::USER_DATA));
    assert_eq!(m.fails(Sysexit, [0; 3], 4), (13, Some(0)));
    let mut m = Machine::long(0);
    m.cpu.state.sysenter_cs = sel::CODE.into();
    m.cpu.state.gpr[reg::RDX] = 1 << 47;
    assert_eq!(m.fails(Sysexit, [0; 3], 8), (13, Some(0)));
    m.cpu.state.gpr[reg::RDX] = 0x5000;
    m.call(Sysexit, [0; 3], 8).unwrap();
    assert_eq!((m.cpu.mode.bitness(), m.selector(Seg::Cs)), (64, (sel::CODE + 32) | 3));
}

#[test]
fn enter() {
    let mut m = Machine::protected(0);
    m.cpu.state.gpr[reg::RBP] = 0x7777;
    m.call(Enter, [0x20, 0, 0], 4).unwrap();
    assert_eq!((m.rsp(), m.cpu.state.gpr[reg::RBP], m.get(STACK - 4, 4)), (STACK - 0x24, STACK - 4, 0x7777));
    // Nested: the outer frames' pointers are copied.
    let mut m = Machine::long(0);
    m.cpu.state.gpr[reg::RBP] = 0x8000;
    m.set(0x8000 - 8, 8, 0x11);
    m.set(0x8000 - 16, 8, 0x22);
    m.call(Enter, [8, 3, 0], 8).unwrap();
    assert_eq!(m.words(STACK - 32, 8, 4), [STACK - 8, 0x22, 0x11, 0x8000]);
    assert_eq!((m.rsp(), m.cpu.state.gpr[reg::RBP]), (STACK - 40, STACK - 8));
    // 16-bit operands on a 16-bit stack.
    let mut m = Machine::new();
    m.cpu.state.gpr[reg::RSP] = 0xdead_0100;
    m.cpu.state.gpr[reg::RBP] = 0xbeef_7777;
    m.call(Enter, [2, 1, 0], 2).unwrap();
    assert_eq!((m.rsp(), m.cpu.state.gpr[reg::RBP]), (0xdead_00fa, 0xbeef_00fe));
    assert_eq!(m.words(0xfc, 2, 2), [0xfe, 0x7777]);
    let mut m = Machine::protected(0);
    m.call(LoadSeg, [sel::SMALL.into(), 0, 0], Seg::Ss as u32).unwrap();
    m.cpu.state.gpr[reg::RSP] = 0x10;
    assert_eq!(m.fails(Enter, [0x20, 0, 0], 4), (12, Some(0)));
}
