//! Hardware task switches.

use mimus_frontend::x86::exception::Exception;
use mimus_frontend::x86::helpers::Helper::*;
use mimus_frontend::x86::state::{Cr0, Cr3, Cr4, Dr6, Dr7, Rflags, Seg, reg};

use super::fixture::{GDT, IDT, LDT, Machine, STACK, TSS, TSS_B, descriptor, rflags, sel};

const NEXT: u64 = 0x1237;

fn access_byte(m: &Machine, selector: u16) -> u64 {
    m.get(GDT + u64::from(selector & !7) + 5, 1)
}

/// A 32-bit task in TSS_B.
fn with_task() -> Machine {
    let mut m = Machine::protected(0);
    m.set(TSS_B + 0x20, 4, 0xb_0000);
    m.set(TSS_B + 0x24, 4, 2 | rflags::ZF | rflags::IF);
    for i in 0..8 {
        m.set(TSS_B + 0x28 + 4 * i, 4, 0x1000 + 0x100 * i);
    }
    let selectors = [sel::DATA, sel::CODE, sel::DATA, sel::DATA, 0, sel::READ_ONLY];
    for (i, selector) in (0u64..).zip(selectors) {
        m.set(TSS_B + 0x48 + 4 * i, 4, selector.into());
    }
    m.set(TSS_B + 0x60, 4, sel::LDT.into());
    m.cpu.state.gpr[reg::RAX] = 0xaaaa;
    m.cpu.state.dr7 = Dr7::from_bits_retain(0x455);
    m
}

fn check_new_task(m: &Machine) {
    let s = &m.cpu.state;
    assert_eq!((s.rip, s.tr.selector, s.tr.base, s.tr.access), (0xb_0000, sel::TSS_B, TSS_B, 0x8b));
    assert_eq!(s.gpr[..8], [0x1000, 0x1100, 0x1200, 0x1300, 0x1400, 0x1500, 0x1600, 0x1700]);
    assert_eq!([Seg::Es, Seg::Fs, Seg::Gs].map(|seg| m.selector(seg)), [sel::DATA, 0, sel::READ_ONLY]);
    assert_eq!((s.ldtr.selector, s.ldtr.base), (sel::LDT, LDT));
    assert_eq!((s.cr0.contains(Cr0::TS), s.dr7.bits()), (true, 0x400));
}

#[test]
fn jump_to_a_tss() {
    let mut m = with_task();
    m.call(FarJump, [sel::TSS_B.into(), 0, NEXT], 4).unwrap();
    check_new_task(&m);
    assert_eq!(m.cpu.state.rflags().bits(), 2 | rflags::ZF | rflags::IF);
    assert_eq!((access_byte(&m, sel::TSS), access_byte(&m, sel::TSS_B)), (0x89, 0x8b));
    // The old task's image.
    assert_eq!((m.get(TSS + 0x20, 4), m.get(TSS + 0x24, 4), m.get(TSS + 0x28, 4)), (NEXT, 2 | rflags::IF, 0xaaaa));
    assert_eq!((m.get(TSS + 0x38, 4), m.get(TSS + 0x4c, 2), m.get(TSS + 0x50, 2)), (STACK, 8, 0x10));
    // And back: it is not busy any more.
    m.call(FarJump, [sel::TSS.into(), 0, 0], 4).unwrap();
    assert_eq!((m.cpu.state.rip, m.cpu.state.gpr[reg::RAX], m.rsp()), (NEXT, 0xaaaa, STACK));
}

#[test]
fn call_links_and_iret_returns() {
    for selector in [sel::TSS_B, sel::TASK_GATE] {
        let mut m = with_task();
        m.call(FarCall, [selector.into(), 0, NEXT], 4).unwrap();
        check_new_task(&m);
        assert_eq!(m.get(TSS_B, 2), u64::from(sel::TSS));
        assert_eq!(m.cpu.state.flags & Rflags::NT, Rflags::NT);
        assert_eq!((access_byte(&m, sel::TSS), access_byte(&m, sel::TSS_B)), (0x8b, 0x8b));
        assert_eq!(m.fails(FarCall, [selector.into(), 0, 0], 4), (13, Some(sel::TSS_B.into())), "busy");
        m.call(Iret, [0, 0, 0xb_0001], 4).unwrap();
        assert_eq!((m.cpu.state.rip, m.cpu.state.tr.selector, m.rsp()), (NEXT, sel::TSS, STACK));
        assert_eq!((access_byte(&m, sel::TSS), access_byte(&m, sel::TSS_B)), (0x8b, 0x89));
        assert_eq!((m.get(TSS_B + 0x20, 4), m.get(TSS_B + 0x24, 4) & rflags::NT), (0xb_0001, 0));
    }
}

#[test]
fn a_16_bit_task_has_ones_in_the_upper_halves_of_its_registers() {
    let mut m = Machine::protected(0);
    m.set(GDT + u64::from(sel::TSS_B) + 5, 1, 0x81);
    m.set(TSS_B + 0xe, 2, 0x5678);
    m.set(TSS_B + 0x10, 2, 2);
    (0..8).for_each(|i| m.set(TSS_B + 0x12 + 2 * i, 2, 0x1000 + i));
    let selectors = [sel::DATA, sel::CODE, sel::DATA, sel::DATA];
    (0u64..).zip(selectors).for_each(|(i, selector)| m.set(TSS_B + 0x22 + 2 * i, 2, selector.into()));
    m.call(FarJump, [sel::TSS_B.into(), 0, NEXT], 4).unwrap();
    assert_eq!((m.cpu.state.rip, m.cpu.state.rflags().bits()), (0x5678, 2));
    assert_eq!(m.cpu.state.gpr[..8], std::array::from_fn::<u64, 8, _>(|i| 0xffff_1000 + i as u64));
}

#[test]
fn exception_through_a_task_gate_pushes_its_error_code_on_the_new_stack() {
    let mut m = with_task();
    m.set_gate(13, sel::TSS_B, 0, 0x85, 0);
    m.set(TSS_B + 0x38, 4, 0x7000);
    m.deliver(Exception::gp(0x18));
    assert_eq!((m.rsp(), m.get(0x6ffc, 4), m.cpu.state.rip), (0x6ffc, 0x18, 0xb_0000));
    assert_eq!((m.get(TSS + 0x20, 4), m.get(TSS + 0x24, 4) & rflags::RF), (0x1234, rflags::RF));
    assert_eq!(m.cpu.vectors[13], 1);
}

#[test]
fn tss_checks_come_before_any_change() {
    for (offset, byte, vector, code) in
        [(5, 0x09, 11, sel::TSS_B), (5, 0x8b, 13, sel::TSS_B), (0, 0x66, 10, sel::TSS_B), (5, 0xa2, 13, sel::TSS_B)]
    {
        let mut m = with_task();
        m.set(GDT + u64::from(sel::TSS_B) + offset, 1, byte);
        let failed = m.fails(FarJump, [sel::TSS_B.into(), 0, NEXT], 4);
        assert_eq!(failed, (vector, Some(code.into())), "{byte:#x}");
        assert_eq!(m.get(TSS + 0x20, 4), 0, "nothing saved");
    }
    let mut m = with_task();
    m.cpu.state.flags |= Rflags::NT;
    m.set(TSS, 2, sel::TSS_B.into());
    assert_eq!(m.fails(Iret, [0; 3], 4), (10, Some(sel::TSS_B.into())), "IRET needs a busy TSS");
    let mut m = with_task();
    m.set(GDT + u64::from(sel::TASK_GATE), 8, descriptor(0, 0, 0x05) | u64::from(sel::TSS_B) << 16);
    assert_eq!(m.fails(FarCall, [sel::TASK_GATE.into(), 0, 0], 4), (11, Some(sel::TASK_GATE.into())));
}

#[test]
fn bad_segments_fault_in_the_new_task() {
    for (slot, selector, vector, code) in [
        (0x48, sel::USER_CODE & !3 | 4, 10u8, sel::USER_CODE & !3 | 4),
        (0x4c, sel::DATA, 10, sel::DATA),
        (0x4c, sel::ABSENT_CODE, 11, sel::ABSENT_CODE),
        (0x50, 0, 10, 0),
        (0x50, sel::ABSENT_DATA, 12, sel::ABSENT_DATA),
        (0x60, sel::DATA, 10, sel::DATA),
    ] {
        let mut m = with_task();
        // Handlers without a change of level need only the IDT; the new task's SS may be unusable, so a task gate.
        m.set(TSS_B + slot, 2, selector.into());
        let tss_c = 0xc000;
        m.set(GDT + 0x88, 8, descriptor(tss_c, 0x67, 0x89));
        m.set(tss_c + 0x20, 4, 0xc_0000);
        m.set(tss_c + 0x38, 4, 0x7000);
        m.set(tss_c + 0x4c, 2, sel::CODE.into());
        m.set(tss_c + 0x50, 2, sel::DATA.into());
        m.set(IDT + u64::from(vector) * 8, 8, 0x88 << 16 | 0x85 << 40);
        m.call(FarJump, [sel::TSS_B.into(), 0, NEXT], 4).unwrap();
        assert_eq!((m.cpu.state.rip, m.get(tss_c, 2)), (0xc_0000, u64::from(sel::TSS_B)), "slot {slot:#x}");
        assert_eq!(m.get(0x6ffc, 4), u64::from(code));
        assert_eq!(m.get(TSS_B + 0x20, 4), 0xb_0000, "the faulting instruction is the new task's first");
    }
}

#[test]
fn sixteen_bit_task() {
    let mut m = Machine::protected(0);
    m.set(GDT + u64::from(sel::TSS_B), 8, descriptor(TSS_B, 0x2b, 0x81));
    m.set(TSS_B + 0x0e, 2, 0x4321);
    m.set(TSS_B + 0x10, 2, 0x202);
    for i in 0..8 {
        m.set(TSS_B + 0x12 + 2 * i, 2, 0x1000 + i);
    }
    for (i, selector) in (0u64..).zip([sel::DATA16, sel::CODE16, sel::DATA16, sel::DATA16]) {
        m.set(TSS_B + 0x22 + 2 * i, 2, selector.into());
    }
    m.call(FarCall, [sel::TSS_B.into(), 0, NEXT], 4).unwrap();
    let s = &m.cpu.state;
    assert_eq!((s.rip, s.tr.access, s.gpr[reg::RDI], s.rflags().bits()), (0x4321, 0x83, 0xffff_1007, 0x4202));
    assert_eq!((m.selector(Seg::Fs), m.cpu.mode.bitness(), m.cpu.mode.stack_mask()), (0, 16, 0xffff));
    m.call(Iret, [0, 0, 0x4323], 2).unwrap();
    assert_eq!((m.get(TSS_B + 0x0e, 2), m.cpu.state.rip, m.cpu.mode.bitness()), (0x4323, NEXT, 32));
}

#[test]
fn trap_bit_raises_a_debug_exception_in_the_new_task() {
    let mut m = with_task();
    m.set(TSS_B + 0x64, 2, 1);
    m.set(TSS_B + 0x38, 4, 0x7000);
    m.set_gate(1, sel::CODE, 0xd_0000, 0x8e, 0);
    m.call(FarJump, [sel::TSS_B.into(), 0, NEXT], 4).unwrap();
    assert_eq!((m.cpu.state.rip, m.get(0x6ff4, 4), m.cpu.state.dr6 & Dr6::BT), (0xd_0000, 0xb_0000, Dr6::BT));
}

#[test]
fn cr3_changes_with_the_task_when_paging() {
    let mut m = with_task();
    // 4 MiB identity pages in two directories.
    for directory in [0x2_0000, 0x2_1000] {
        for i in 0..4 {
            m.set(directory + 4 * i, 4, i << 22 | 0x87);
        }
    }
    m.cpu.state.cr4 |= Cr4::PSE;
    m.cpu.state.cr3 = Cr3::from_bits_retain(0x2_0000);
    m.cpu.state.cr0 |= Cr0::PG;
    m.cpu.flush_tlb(false);
    m.set(TSS_B + 0x1c, 4, 0x2_1000);
    let flushes = m.cpu.mmu.stats.flushes;
    m.call(FarJump, [sel::TSS_B.into(), 0, NEXT], 4).unwrap();
    check_new_task(&m);
    assert_eq!(m.cpu.state.cr3.bits(), 0x2_1000);
    assert!(m.cpu.mmu.stats.flushes > flushes);
}

#[test]
fn no_task_switch_in_long_mode() {
    let mut m = Machine::long(0);
    assert_eq!(m.fails(FarJump, [sel::TSS_B.into(), 0, 0], 8), (13, Some(sel::TSS_B.into())));
    assert_eq!(m.fails(FarCall, [sel::TASK_GATE.into(), 0, 0], 8), (13, Some(sel::TASK_GATE.into())));
}
