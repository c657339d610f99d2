//! Virtual-8086 mode.

use mimus_frontend::x86::exception::Exception;
use mimus_frontend::x86::helpers::Helper::*;
use mimus_frontend::x86::state::{Cr4, Rflags, Seg, reg};

use super::fixture::{Machine, STACK, STACK0, TSS, rflags, sel};

/// A virtual-8086 program at 0x300:0x10 with stack 0x800:0x100, entered by IRET.
fn program(iopl: u64) -> Machine {
    let mut m = Machine::protected(0);
    let flags = 2 | rflags::VM | rflags::IF | iopl << 12;
    let frame = [0x10, 0x300, flags, 0x100, 0x800, 0xe00, 0xd00, 0xf00, 0x900];
    let sp = STACK - 4 * frame.len() as u64;
    for (i, word) in (0u64..).zip(frame) {
        m.set(sp + 4 * i, 4, word);
    }
    m.cpu.state.gpr[reg::RSP] = sp;
    m.call(Iret, [0; 3], 4).unwrap();
    m
}

#[test]
fn iret_enters() {
    let m = program(0);
    assert_eq!(
        [Seg::Cs, Seg::Ss, Seg::Es, Seg::Ds, Seg::Fs, Seg::Gs].map(|s| m.selector(s)),
        [0x300, 0x800, 0xe00, 0xd00, 0xf00, 0x900]
    );
    assert_eq!(
        (m.cpu.state.cpl(), m.rsp(), m.cpu.state.rip, m.cpu.state.seg_base[Seg::Gs as usize]),
        (3, 0x100, 0x10, 0x9000)
    );
    assert_eq!((m.cpu.mode.bitness(), m.cpu.mode.real_or_vm86(), m.cpu.bank), (16, true, 1));
    assert_eq!(m.cpu.state.seg[0].limit, 0xffff);
}

#[test]
fn exceptions_leave_for_level_0_with_all_segments_pushed() {
    let mut m = program(0);
    m.set_gate(13, sel::CODE, 0x1_0000, 0x8e, 0);
    m.deliver(Exception::gp(0));
    let flags = 2 | rflags::VM | rflags::IF | rflags::RF;
    let frame = vec![0, 0x10, 0x300, flags, 0x100, 0x800, 0xe00, 0xd00, 0xf00, 0x900];
    assert_eq!((m.rsp(), m.words(m.rsp(), 4, 10)), (STACK0 - 40, frame));
    assert_eq!(
        (m.cpu.state.cpl(), m.cpu.state.vm86(), m.selector(Seg::Ds), m.selector(Seg::Cs)),
        (0, false, 0, sel::CODE)
    );
    // And back again.
    m.cpu.state.gpr[reg::RSP] += 4;
    m.call(Iret, [0; 3], 4).unwrap();
    assert_eq!((m.cpu.state.vm86(), m.cpu.state.rip, m.selector(Seg::Gs)), (true, 0x10, 0x900));
}

#[test]
fn handlers_must_be_at_level_0() {
    let mut m = program(3);
    m.set_gate(0x40, sel::CONFORMING, 0, 0xee, 0);
    assert_eq!(m.fails(Int, [0x40, 0, 0x12], 0), (13, Some(sel::CONFORMING.into())));
    m.set_gate(0x40, sel::USER_CODE, 0, 0xee, 0);
    assert_eq!(m.fails(Int, [0x40, 0, 0x12], 0), (13, Some(u32::from(sel::USER_CODE & !3))));
}

#[test]
fn int_n_needs_iopl_3() {
    let mut m = program(0);
    m.set_gate(0x40, sel::CODE, 0x1_0000, 0xee, 0);
    m.set_gate(3, sel::CODE, 0x1_0000, 0xee, 0);
    assert_eq!(m.fails(Int, [0x40, 0, 0x12], 0), (13, Some(0)));
    m.call(Int, [3, 0, 0x11], 1).unwrap();
    assert_eq!(m.cpu.state.rip, 0x1_0000, "INT3 does not ask IOPL");
    let mut m = program(3);
    m.set_gate(0x40, sel::CODE, 0x1_0000, 0xee, 0);
    m.call(Int, [0x40, 0, 0x12], 0).unwrap();
    assert_eq!(m.cpu.state.rip, 0x1_0000);
}

#[test]
fn vme_redirects_to_the_program() {
    let mut m = program(0);
    m.cpu.state.cr4 |= Cr4::VME;
    m.cpu.state.flags |= Rflags::VIF;
    m.set(0x40 * 4, 4, 0x0444_0055);
    m.set(TSS + 0x88 - 32 + 8, 1, 0);
    m.call(Int, [0x40, 0, 0x12], 0).unwrap();
    assert_eq!((m.selector(Seg::Cs), m.cpu.state.rip, m.rsp(), m.cpu.state.vm86()), (0x444, 0x55, 0xfa, true));
    assert_eq!(m.words(0x80fa, 2, 3), [0x12, 0x300, 0x3202], "IF stands for VIF, IOPL reads 3");
    assert_eq!(m.cpu.state.flags & (Rflags::VIF | Rflags::IF), Rflags::IF);
    // Its IRET gives VIF back.
    m.call(Iret, [0; 3], 2).unwrap();
    assert_eq!((m.cpu.state.rip, m.cpu.state.flags & (Rflags::VIF | Rflags::IF)), (0x12, Rflags::VIF | Rflags::IF));
    // With the vector's bit set the monitor gets it.
    m.set(TSS + 0x88 - 32 + 8, 1, 1);
    assert_eq!(m.fails(Int, [0x40, 0, 0x12], 0), (13, Some(0)));
}

#[test]
fn vme_gives_a_virtual_interrupt_flag() {
    let mut m = program(0);
    for helper in [Cli, Sti, PushfValue, Popf] {
        assert_eq!(m.fails(helper, [2, 0, 0], 2), (13, Some(0)), "{helper:?} without VME");
    }
    m.cpu.state.cr4 |= Cr4::VME;
    m.call(Sti, [0; 3], 0).unwrap();
    assert_eq!(m.cpu.state.flags & Rflags::VIF, Rflags::VIF);
    assert_eq!(m.call(PushfValue, [0; 3], 2), Ok(0x3202));
    m.call(Cli, [0; 3], 0).unwrap();
    assert_eq!(m.call(PushfValue, [0; 3], 2), Ok(0x3002));
    assert_eq!(m.cpu.state.flags & Rflags::IF, Rflags::IF);
    m.call(Popf, [rflags::IF | rflags::ZF, 0, 0], 2).unwrap();
    assert_eq!((m.cpu.state.flags & Rflags::VIF, m.cpu.state.rflags() & Rflags::ZF), (Rflags::VIF, Rflags::ZF));
    assert_eq!(m.fails(Popf, [rflags::TF, 0, 0], 2), (13, Some(0)));
    assert_eq!(m.fails(Popf, [0; 3], 4), (13, Some(0)));
    m.cpu.state.flags |= Rflags::VIP;
    assert_eq!(m.fails(Sti, [0; 3], 0), (13, Some(0)));
    assert_eq!(m.fails(Popf, [rflags::IF, 0, 0], 2), (13, Some(0)));
}

#[test]
fn segment_loads_and_jumps_are_8086_like() {
    let mut m = program(3);
    m.call(LoadSeg, [0x1234, 0, 0], Seg::Es as u32).unwrap();
    assert_eq!((m.cpu.state.seg_base[0], m.cpu.state.seg[0].access), (0x1_2340, 0xf3));
    m.call(FarJump, [0x4321, 0x10, 0], 2).unwrap();
    assert_eq!((m.cpu.state.seg_base[Seg::Cs as usize], m.cpu.state.cpl()), (0x4_3210, 3));
}

#[test]
fn io_ports_always_ask_the_bit_map() {
    let mut m = program(3);
    m.set(TSS + 0x88, 8, 0);
    m.set(TSS + 0x88, 1, 0b0100);
    m.call(PortIn, [1, 0, 0], 1).unwrap();
    assert_eq!(m.fails(PortIn, [1, 0, 0], 2), (13, Some(0)));
}
