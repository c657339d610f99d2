//! Delivery of interrupts and exceptions, in each mode.

use mimus_frontend::x86::exception::Exception;
use mimus_frontend::x86::helpers::Helper::*;
use mimus_frontend::x86::state::{Dr6, Dr7, Rflags, Seg, reg, shadow};
use mimus_frontend::x86::sys::acceptance::Acceptance;

use super::fixture::{GDT, Machine, STACK, STACK_IST, STACK0, TABLES, TSS, descriptor, gate, rflags, sel};

const INT_GATE: u64 = 0x8e;
const TRAP_GATE: u64 = 0x8f;
const USER_INT_GATE: u64 = 0xee;

#[test]
fn real_mode_pushes_three_words() {
    let mut m = Machine::new();
    let s = &mut m.cpu.state;
    s.seg[Seg::Ss as usize].base = 0x7000;
    s.gpr[reg::RSP] = 0xdead_0000 | 0x100;
    s.seg[Seg::Cs as usize].selector = 0x1111;
    s.flags |= Rflags::IF | Rflags::TF;
    s.set_arith_flags(Rflags::CF);
    s.rip = 0x2222;
    s.idtr.base = 0x500;
    s.halted = 1;
    s.shadow = 1;
    m.set(0x500 + 8 * 4, 4, 0x1234_5678);
    m.cpu.deliver_interrupt(8);
    assert_eq!(
        (m.selector(Seg::Cs), m.cpu.state.rip, m.cpu.state.seg_base[Seg::Cs as usize]),
        (0x1234, 0x5678, 0x1_2340)
    );
    assert_eq!(m.rsp(), 0xdead_00fa);
    assert_eq!(m.words(0x70fa, 2, 3), [0x2222, 0x1111, 0x303]);
    assert_eq!(m.cpu.state.rflags().bits(), 3);
    assert_eq!((m.cpu.state.halted, m.cpu.state.shadow, m.cpu.vectors[8]), (0, 0, 1));
}

#[test]
fn real_mode_exceptions_push_no_error_code_and_shut_down_without_a_table() {
    let mut m = Machine::new();
    m.cpu.state.gpr[reg::RSP] = 0x100;
    m.deliver(Exception::gp(0));
    assert_eq!(m.rsp(), 0xfa);
    m.cpu.state.idtr.limit = 0x1f;
    m.deliver(Exception::gp(0));
    assert!(m.cpu.triple_fault);
}

#[test]
fn same_level_gates_of_both_widths() {
    for (access, size, flags) in [(INT_GATE, 4, 0), (TRAP_GATE, 4, rflags::IF), (0x86, 2, 0), (0x87, 2, rflags::IF)] {
        let mut m = Machine::protected(0);
        m.set_gate(0x40, sel::CODE, 0x9_8765, access, 0);
        m.cpu.state.flags |= Rflags::NT | Rflags::TF;
        m.cpu.update_mode();
        m.cpu.deliver_interrupt(0x40);
        let pushed = m.words(m.rsp(), size, 3);
        assert_eq!(
            (m.rsp(), pushed),
            (STACK - 3 * u64::from(size), vec![0x1234, sel::CODE.into(), 0x4302]),
            "{access:#x}"
        );
        assert_eq!(m.cpu.state.rip, if size == 4 { 0x9_8765 } else { 0x8765 });
        assert_eq!(m.cpu.state.rflags().bits(), 2 | flags);
    }
}

#[test]
fn inner_level_switches_to_the_stack_in_the_tss() {
    let mut m = Machine::protected(3);
    m.set_gate(14, sel::CODE, 0x1_0000, INT_GATE, 0);
    m.deliver(Exception::page_fault(0xdead_beef, 6));
    assert_eq!(m.cpu.state.cr2, 0xdead_beef);
    assert_eq!((m.cpu.state.cpl(), m.selector(Seg::Ss), m.selector(Seg::Cs)), (0, sel::DATA, sel::CODE));
    assert_eq!(m.rsp(), STACK0 - 24);
    let flags = 2 | rflags::IF | rflags::RF;
    let frame = [6, 0x1234, sel::USER_CODE.into(), flags, STACK, sel::USER_DATA.into()];
    assert_eq!(m.words(STACK0 - 24, 4, 6), frame);
}

#[test]
fn inner_level_through_a_16_bit_tss() {
    let mut m = Machine::protected(3);
    m.cpu.state.tr.access = 0x83;
    m.set(TSS + 2, 2, 0x8800);
    m.set(TSS + 4, 2, sel::DATA16.into());
    m.set_gate(0x40, sel::CODE, 0x1_0000, INT_GATE, 0);
    m.cpu.state.gpr[reg::RSP] = 0x1234_5678;
    m.cpu.deliver_interrupt(0x40);
    assert_eq!((m.rsp() & 0xffff, m.selector(Seg::Ss)), (0x8800 - 20, sel::DATA16));
    assert_eq!(m.get(0x8800 - 8, 4), 0x1234_5678);
}

#[test]
fn conforming_handlers_stay_at_their_level() {
    let mut m = Machine::protected(3);
    m.set_gate(0x40, sel::CONFORMING, 0x1_0000, INT_GATE, 0);
    m.cpu.deliver_interrupt(0x40);
    assert_eq!((m.cpu.state.cpl(), m.selector(Seg::Cs), m.rsp()), (3, sel::CONFORMING | 3, STACK - 12));
}

/// INT 0x40 from privilege level `cpl`, which fails.
fn int_fails(m: &mut Machine) -> (u8, Option<u32>) {
    m.fails(Int, [0x40, 0, 0x1236], 0)
}

#[test]
fn gate_faults_name_what_was_wrong() {
    const IDT_CODE: u32 = 0x40 << 3 | 2;
    let rows: &[(u16, u64, (u8, u32))] = &[
        (sel::CODE, INT_GATE, (13, IDT_CODE)),
        (sel::CODE, 0xe8, (13, IDT_CODE)),
        (sel::CODE, 0x6e, (11, IDT_CODE)),
        (0, USER_INT_GATE, (13, 0)),
        (sel::BEYOND, USER_INT_GATE, (13, sel::BEYOND as u32)),
        (sel::DATA, USER_INT_GATE, (13, sel::DATA as u32)),
        (sel::ABSENT_CODE, USER_INT_GATE, (11, sel::ABSENT_CODE as u32)),
    ];
    for &(selector, access, (vector, code)) in rows {
        let mut m = Machine::protected(3);
        m.set_gate(0x40, selector, 0, access, 0);
        assert_eq!(int_fails(&mut m), (vector, Some(code)), "{selector:#x} {access:#x}");
    }
    let mut m = Machine::protected(3);
    m.set_gate(0x40, sel::CODE, 0, USER_INT_GATE, 0);
    m.cpu.state.idtr.limit = 0x40 * 8 + 6;
    assert_eq!(int_fails(&mut m), (13, Some(IDT_CODE)));
}

#[test]
fn stack_switch_faults() {
    let with_ss0 = |ss: u16| {
        let m = Machine::protected(3);
        m.set_gate(0x40, sel::CODE, 0, USER_INT_GATE, 0);
        m.set(TSS + 8, 2, ss.into());
        m
    };
    for (ss, vector, code) in [
        (0, 10, 0),
        (sel::USER_DATA, 10, sel::USER_DATA & !3),
        (sel::READ_ONLY, 10, sel::READ_ONLY),
        (sel::BEYOND, 10, sel::BEYOND),
        (sel::ABSENT_DATA, 12, sel::ABSENT_DATA),
    ] {
        assert_eq!(int_fails(&mut with_ss0(ss)), (vector, Some(code.into())), "{ss:#x}");
    }
    let mut m = with_ss0(sel::SMALL);
    assert_eq!(int_fails(&mut m), (12, Some(sel::SMALL.into())), "beyond the new stack's limit");
    let mut m = with_ss0(sel::DATA);
    m.cpu.state.tr.limit = 8;
    assert_eq!(int_fails(&mut m), (10, Some(sel::TSS.into())));
}

#[test]
fn limit_of_the_handlers_code_segment() {
    let mut m = Machine::protected(0);
    m.set_gate(0x40, sel::CODE16, 0x1_0000, INT_GATE, 0);
    assert_eq!(int_fails(&mut m), (13, Some(0)));
}

#[test]
fn faults_of_external_events_have_ext_set() {
    let mut m = Machine::protected(0);
    m.set_gate(13, sel::CODE, 0x1_0000, INT_GATE, 0);
    m.cpu.deliver_interrupt(0x40);
    assert_eq!((m.cpu.state.rip, m.get(m.rsp(), 4)), (0x1_0000, 0x40 << 3 | 3));
    assert_eq!((m.cpu.vectors[0x40], m.cpu.vectors[13]), (0, 1));
}

#[test]
fn an_external_interrupt_with_an_exceptions_number_is_benign() {
    let mut m = Machine::protected(0);
    m.set_gate(13, sel::CODE, 0x1_0000, INT_GATE, 0);
    m.cpu.deliver_interrupt(10);
    assert_eq!((m.cpu.vectors[13], m.cpu.vectors[8], m.get(m.rsp(), 4)), (1, 0, 10 << 3 | 3));
}

#[test]
fn software_interrupts_return_after_themselves() {
    for (helper_kind, vector, access) in [(0, 0x80u64, USER_INT_GATE), (1, 3, USER_INT_GATE), (3, 1, INT_GATE)] {
        let mut m = Machine::protected(3);
        m.set_gate(vector as u8, sel::CODE, 0x1_0000, access, 0);
        m.call(Int, [vector, 0, 0x1236], helper_kind).unwrap();
        assert_eq!((m.get(m.rsp(), 4), m.get(m.rsp() + 8, 4) & rflags::RF), (0x1236, 0), "INT kind {helper_kind}");
    }
}

#[test]
fn into_depends_on_of() {
    let mut m = Machine::protected(0);
    m.set_gate(4, sel::CODE, 0x1_0000, INT_GATE, 0);
    m.call(Int, [4, 0, 0x1235], 2).unwrap();
    assert_eq!((m.cpu.state.rip, m.rsp()), (0x1235, STACK));
    m.cpu.state.set_arith_flags(Rflags::OF);
    m.call(Int, [4, 0, 0x1235], 2).unwrap();
    assert_eq!((m.cpu.state.rip, m.get(m.rsp(), 4)), (0x1_0000, 0x1235));
}

#[test]
fn double_faults_follow_the_table() {
    // First exception, what delivering it raises (its gate missing, or a page fault), what is delivered.
    for (first, delivered) in [
        (Exception::ud(), 13),
        (Exception::gp(0), 8),
        (Exception::plain(0), 8),
        (Exception::page_fault(0, 0), 8),
        (Exception::with_code(17, 0), 13),
    ] {
        let mut m = Machine::protected(0);
        if first.vector != 13 {
            m.set_gate(13, sel::CODE, 0x1_3000, INT_GATE, 0);
        }
        m.set_gate(8, sel::CODE, 0x8000, INT_GATE, 0);
        m.deliver(first);
        assert_eq!(m.cpu.vectors[delivered], 1, "{first:?}");
        assert_eq!(m.cpu.state.rip, if delivered == 8 { 0x8000 } else { 0x1_3000 });
        if delivered == 8 {
            assert_eq!((m.get(m.rsp(), 4), m.get(m.rsp() + 12, 4) & rflags::RF), (0, 0));
        }
    }
}

#[test]
fn page_fault_while_delivering_gp_is_delivered() {
    let mut m = Machine::long(0);
    m.set_gate(14, sel::CODE64, 0x1_4000, INT_GATE, 0);
    m.set_gate(8, sel::CODE64, 0x8000, INT_GATE, 0);
    // The #GP handler's stack is in a page that is not there.
    m.set_gate(13, sel::CODE64, 0x1_3000, INT_GATE, 2);
    m.set(TSS + 0x2c, 8, 0x20_1000);
    m.set(TABLES + 0x2008, 8, 0);
    m.deliver(Exception::gp(0));
    assert_eq!((m.cpu.state.rip, m.cpu.state.cr2), (0x1_4000, 0x20_0ff8));
    assert_eq!(m.get(m.rsp(), 8), 2);
    assert_eq!((m.cpu.vectors[14], m.cpu.vectors[8]), (1, 0));
}

#[test]
fn a_fault_while_delivering_a_double_fault_shuts_down() {
    let mut m = Machine::protected(0);
    let before = m.cpu.state;
    m.deliver(Exception::gp(0));
    assert!(m.cpu.triple_fault && m.cpu.state == before);
}

#[test]
fn long_mode_always_pushes_ss_and_rsp_on_an_aligned_stack() {
    let mut m = Machine::long(0);
    m.set_gate(0x40, sel::CODE64, 0xf_ffff, INT_GATE, 0);
    m.cpu.state.gpr[reg::RSP] = STACK + 7;
    m.cpu.deliver_interrupt(0x40);
    assert_eq!(m.rsp(), STACK - 40);
    let frame = [0x1234, sel::CODE64.into(), 2 | rflags::IF, STACK + 7, sel::DATA.into()];
    assert_eq!(m.words(m.rsp(), 8, 5), frame);
    assert_eq!((m.selector(Seg::Ss), m.cpu.state.rip), (sel::DATA, 0xf_ffff), "SS stays without a change of level");
}

#[test]
fn long_mode_inner_level_has_a_null_ss() {
    let mut m = Machine::long(3);
    m.set_gate(13, sel::CODE64, 0xffff_8000_0001_0000, INT_GATE, 0);
    m.deliver(Exception::gp(0x18));
    assert_eq!((m.cpu.state.cpl(), m.selector(Seg::Ss), m.cpu.state.rip), (0, 0, 0xffff_8000_0001_0000));
    let flags = 2 | rflags::IF | rflags::RF;
    let frame = [0x18, 0x1234, sel::USER_CODE64.into(), flags, STACK, sel::USER_DATA.into()];
    assert_eq!((m.rsp(), m.words(m.rsp(), 8, 6)), (STACK0 - 48, frame.to_vec()));
}

#[test]
fn interrupt_stack_table() {
    let mut m = Machine::long(0);
    m.set_gate(2, sel::CODE64, 0x1_0000, INT_GATE, 1);
    m.cpu.deliver_nmi();
    assert_eq!((m.rsp(), m.cpu.state.nmi_blocked), ((STACK_IST & !0xf) - 40, 1));
    assert_eq!(m.get(m.rsp() + 24, 8), STACK);
}

#[test]
fn an_nmi_waits_for_the_end_of_another() {
    let mut m = Machine::protected(0);
    m.set_gate(2, sel::CODE, 0x1_0000, INT_GATE, 0);
    m.set_gate(0x80, sel::CODE, 0x1_1000, INT_GATE, 0);
    assert_eq!(m.cpu.accepts(false), Acceptance::Nothing);
    m.cpu.raise_nmi();
    assert_eq!(m.cpu.accepts(false), Acceptance::Nmi);
    m.cpu.deliver_nmi();
    m.cpu.raise_nmi();
    assert_eq!(m.cpu.accepts(false), Acceptance::Nothing, "blocked");
    // Part of the saved state.
    let saved = m.cpu.save();
    m.cpu.state.nmi_pending = 0;
    m.cpu.restore(&saved).unwrap();
    // Whose IRET it is does not matter; software's INT 2 blocks nothing, and unblocks nothing either.
    m.call(Int, [2, 0, 0x1_0001], 0).unwrap();
    assert_eq!(m.cpu.accepts(false), Acceptance::Nothing);
    m.cpu.header.exit_request = 0.into();
    m.call(Iret, [0; 3], 4).unwrap();
    assert_eq!(m.cpu.accepts(false), Acceptance::Nmi);
    assert_eq!(m.cpu.header.exit_request.load(std::sync::atomic::Ordering::Relaxed), 1, "the dispatcher looks at once");
    m.call(Int, [2, 0, 0x1_0001], 0).unwrap();
    assert_eq!(m.cpu.accepts(false), Acceptance::Nmi);
}

#[test]
fn what_holds_interrupts_and_nmis_off() {
    use Acceptance::{AfterNext, Interrupt, Nmi, Nothing};
    // RFLAGS.IF, the shadow, whether a #DB is due; what is taken when an interrupt waits, and an NMI, and both.
    for (open, shadow, trap, taken) in [
        (false, 0, false, [Nothing, Nmi, Nmi]),
        (true, 0, false, [Interrupt, Nmi, Nmi]),
        (true, shadow::INTERRUPTS, false, [AfterNext; 3]),
        (false, shadow::ALL, false, [Nothing, AfterNext, AfterNext]),
        (true, 0, true, [Nothing; 3]),
        (true, shadow::ALL, true, [Nothing; 3]),
    ] {
        let mut m = Machine::protected(0);
        let s = &mut m.cpu.state;
        s.flags.set(Rflags::IF, open);
        s.flags.set(Rflags::TF, trap);
        (s.shadow, s.debug_pending) = (shadow, if trap { Dr6::B0 } else { Dr6::empty() });
        m.cpu.update_mode();
        let interrupt = m.cpu.accepts(true);
        m.cpu.raise_nmi();
        assert_eq!([interrupt, m.cpu.accepts(false), m.cpu.accepts(true)], taken, "{open} {shadow} {trap}");
        // A program that is stepped through sees the shadow itself.
        assert!(m.cpu.resume(true) && m.cpu.interrupt_waits);
        assert_eq!(m.cpu.state.shadow, if trap { shadow } else { 0 });
        m.cpu.state.halted = 1;
        assert!(!m.cpu.resume(false) && !m.cpu.interrupt_waits);
    }
}

#[test]
fn an_application_processor_waits_for_its_start_up() {
    let mut m = Machine::long(0);
    for base in [0, 0xfee0_0900] {
        m.bus.lock().unwrap().apic_base = base;
        m.cpu.init();
        assert!(!m.cpu.waits(), "without a local APIC, and the bootstrap processor: {base:#x}");
        assert!(!m.cpu.start_up(0x12) && m.cpu.state.rip == 0xfff0);
    }
    m.bus.lock().unwrap().apic_base = 0xfee0_0800;
    m.cpu.init();
    m.cpu.raise_nmi();
    m.cpu.state.flags |= Rflags::IF;
    assert_eq!((m.cpu.accepts(true), m.cpu.resume(true)), (Acceptance::Nothing, false));
    let saved = m.cpu.save();
    assert!(m.cpu.start_up(0x9a) && !m.cpu.waits());
    let start = |m: &Machine| (m.selector(Seg::Cs), m.cpu.state.seg_base[Seg::Cs as usize], m.cpu.state.rip);
    assert_eq!((start(&m), m.cpu.accepts(true)), ((0x9a00, 0x9_a000, 0), Acceptance::Nmi));
    assert!(!m.cpu.start_up(0x9b), "it runs");
    m.cpu.restore(&saved).unwrap();
    assert!(m.cpu.waits());
    m.cpu.reset();
    assert!(m.cpu.waits() && m.cpu.start_up(0x10));
    assert_eq!(start(&m), (0x1000, 0x1_0000, 0));
}

#[test]
fn long_mode_gate_faults() {
    let rows: &[(u16, u64, u64, (u8, u32))] = &[
        (sel::CODE, USER_INT_GATE, 0, (13, sel::CODE as u32)),
        (sel::CODE64, 0xe5, 0, (13, 0x202)),
        (sel::CODE64, 0xe6, 0, (13, 0x202)),
        (sel::CODE64, 0x6e, 0, (11, 0x202)),
        (sel::CODE64, USER_INT_GATE, 1 << 47, (13, 0)),
    ];
    for &(selector, access, offset, (vector, code)) in rows {
        let mut m = Machine::long(3);
        m.set_gate(0x40, selector, offset, access, 0);
        assert_eq!(int_fails(&mut m), (vector, Some(code)), "{selector:#x} {access:#x} {offset:#x}");
    }
    let mut m = Machine::long(3);
    m.set_gate(0x40, sel::CODE64, 0, USER_INT_GATE, 0);
    m.set(TSS + 4, 8, 1 << 47 | 0x1000);
    assert_eq!(int_fails(&mut m), (12, Some(0)), "stack not canonical");
    m.cpu.state.tr.limit = 10;
    assert_eq!(int_fails(&mut m), (10, Some(sel::TSS.into())));
}

#[test]
fn debug_exceptions_record_their_cause() {
    let mut m = Machine::protected(0);
    m.set_gate(1, sel::CODE, 0x1_0000, INT_GATE, 0);
    m.cpu.state.dr7 |= Dr7::GD;
    m.cpu.state.flags |= Rflags::TF;
    m.cpu.deliver_debug_trap(Dr6::BS);
    assert_eq!((m.cpu.state.dr6.bits(), m.cpu.state.dr7.bits()), (0xffff_4ff0, 0x400));
    assert_eq!(m.get(m.rsp() + 8, 4), 2 | rflags::IF | rflags::TF);
    assert_eq!(m.cpu.state.flags & Rflags::TF, Rflags::empty());
    // General detect: a fault, so RF is pushed.
    m.cpu.state.dr7 |= Dr7::GD;
    m.deliver(Exception { vector: 1, error: None, address: 1 << 13 });
    assert_eq!(m.get(m.rsp() + 8, 4) & rflags::RF, rflags::RF);
}

#[test]
fn nothing_is_pushed_when_part_of_the_frame_cannot_be() {
    let mut m = Machine::long(3);
    m.set_gate(0x40, sel::CODE64, 0x1_0000, USER_INT_GATE, 0);
    m.set(TABLES + 0x2000, 8, 0x7 | (TABLES + 0x3000));
    for page in 0..512 {
        m.set(TABLES + 0x3000 + 8 * page, 8, page << 12 | if page == 0xa { 5 } else { 7 });
    }
    m.set(TSS + 4, 8, 0xb010);
    m.cpu.flush_tlb(false);
    m.set(0xb000, 8, 0x5555);
    let fault = m.call(Int, [0x40, 0, 0x1236], 0).unwrap_err();
    assert_eq!((fault.vector, fault.error, fault.address), (14, Some(3), 0xaff8));
    assert_eq!(m.get(0xb000, 8), 0x5555);
    assert_eq!((m.cpu.state.cpl(), m.rsp()), (3, STACK));
}

#[test]
fn smap_guards_tables_even_with_ac_set() {
    use mimus_frontend::x86::state::Cr4;
    let mut m = Machine::long(0);
    m.set_gate(0x40, sel::CODE64, 0x1_0000, INT_GATE, 0);
    m.cpu.state.cr4 |= Cr4::SMAP;
    m.cpu.state.flags |= Rflags::AC;
    m.cpu.update_mode();
    let fault = m.call(Int, [0x40, 0, 0x1236], 0).unwrap_err();
    assert_eq!((fault.vector, fault.error), (14, Some(1)));
}

#[test]
fn a_task_gate_in_a_loop_of_bad_tasks_ends() {
    let mut m = Machine::protected(0);
    for vector in 0..32 {
        m.set_gate(vector, sel::TSS_B, 0, 0x85, 0);
    }
    m.deliver(Exception::gp(0));
    assert!(m.cpu.triple_fault, "the task has no code segment, and every handler is itself");
}

#[test]
fn fixture_descriptors_decode() {
    assert_eq!(descriptor(0x1234_5678, 0xabcde, 0xc09b), 0x12ca_9b34_5678_bcde);
    assert_eq!(gate(8, 0x1234_5678, 0x8e, 3), (0x1234_8e03_0008_5678, 0));
    assert_eq!(Machine::new().get(GDT + 8, 8), 0x00cf_9a00_0000_ffff);
}
