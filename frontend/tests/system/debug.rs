//! Debug exceptions and what holds them off (SDM vol. 3B, chapter 17; vol. 3A, 6.8.3).

use mimus_frontend::guest::GuestCpu;
use mimus_frontend::x86::helpers::Helper::{FarJump, Sysret, WriteDr};
use mimus_frontend::x86::lift::{MAX_INSN_LEN, Request, lift};
use mimus_frontend::x86::state::{Dr6, Dr7, Rflags, reg, shadow};
use mimus_ir::{Exit, Interp};
use mimus_softmmu::Verdict;

use super::fixture::{Machine, STACK, TSS, rflags, sel};

const CODE: u64 = 0x3000;
/// Where handlers are, by vector.
const HANDLER: u64 = 0x1_0000;
const DATA: u64 = 0x7000;

/// Executes the instruction at RIP by itself, as the dispatcher does while it single-steps.
fn step(m: &mut Machine) {
    if m.cpu.before_step().is_err() {
        return GuestCpu::deliver(&mut *m.cpu);
    }
    let mut bytes = [0; MAX_INSN_LEN];
    let rip = m.cpu.state.rip;
    assert!(m.cpu.mmu.ram.read_bytes(rip, &mut bytes));
    let request = Request {
        bytes: &bytes,
        in_page: bytes.len(),
        rip,
        base: m.cpu.header.pc_base,
        mode: m.cpu.mode,
        max_insns: 1,
    };
    let exit = Interp::default().run(&lift(&request).expect("a whole instruction"), &mut *m.cpu).exit;
    match exit {
        Exit::Jump { pc, .. } | Exit::Indirect { pc } | Exit::CodeChanged { pc } | Exit::Fault { pc } => {
            m.cpu.state.rip = pc;
        }
        _ => {}
    }
    if matches!(exit, Exit::Fault { .. }) {
        if std::mem::take(&mut m.cpu.header.verdict) == Verdict::Fault as u32 {
            GuestCpu::deliver(&mut *m.cpu);
        }
    } else {
        m.cpu.after_step();
    }
}

/// Level 0 code with TF set and a gate for each vector.
fn stepping(code: &[u8]) -> Machine {
    let mut m = Machine::protected(0);
    (0..=255).for_each(|vector: u8| m.set_gate(vector, sel::CODE, HANDLER + 16 * u64::from(vector), 0x8e, 0));
    assert!(m.cpu.mmu.ram.write_bytes(CODE, code));
    assert!(m.cpu.mmu.ram.write_bytes(HANDLER, &[0x90; 16 * 256]));
    let s = &mut m.cpu.state;
    s.rip = CODE;
    s.flags |= Rflags::TF;
    s.gpr[reg::RCX] = sel::DATA.into();
    m.cpu.update_mode();
    m
}

/// A write breakpoint on 4 bytes.
fn watch(m: &mut Machine, at: u64) {
    m.cpu.state.dr[0] = at;
    m.cpu.state.dr7 = Dr7::from_bits_retain(0x400 | 2 | 0xd << 16);
    m.cpu.update_mode();
    let dr7 = m.cpu.state.dr7.bits();
    m.call(WriteDr, [dr7, 0, 0], 7).unwrap();
}

/// Handles the #DB that has just been delivered: where it came, the flags that were pushed, and DR6.
fn handled(m: &mut Machine) -> (u64, u64, u64) {
    assert_eq!(m.cpu.state.rip, HANDLER + 16, "no #DB");
    let [rip, _, flags] = m.words(m.rsp(), 4, 3)[..] else { panic!() };
    let dr6 = std::mem::replace(&mut m.cpu.state.dr6, Dr6::FIXED).bits();
    let s = &mut m.cpu.state;
    s.gpr[reg::RSP] += 12;
    s.rip = rip;
    s.set_rflags(Rflags::from_bits_retain(flags));
    m.cpu.update_mode();
    (rip, flags, dr6)
}

#[test]
fn a_single_step_follows_each_instruction() {
    let mut m = stepping(&[0x90, 0xfa, 0xfb, 0x90]);
    for (i, name) in (1..).zip(["NOP", "CLI", "STI, which holds off interrupts only", "NOP"]) {
        step(&mut m);
        let (rip, _, dr6) = handled(&mut m);
        assert_eq!((rip, dr6), (CODE + i, 0xffff_4ff0), "{name}");
    }
}

#[test]
fn none_follows_what_ends_in_a_handler() {
    for (code, vector) in
        [(&[0xcd_u8, 0x80][..], 0x80), (&[0xcc], 3), (&[0xce], 4), (&[0xf1], 1), (&[0x0f, 0x0b], 6), (&[0xd4, 0], 0)]
    {
        let mut m = stepping(code);
        m.cpu.state.set_arith_flags(Rflags::OF);
        step(&mut m);
        assert_eq!(m.cpu.state.rip, HANDLER + 16 * vector, "{code:x?}");
        assert!(!m.cpu.state.dr6.contains(Dr6::BS), "{code:x?}");
        let count: u64 = m.cpu.vectors.iter().sum();
        assert_eq!(count, 1, "{code:x?}");
    }
}

#[test]
fn mov_ss_and_pop_ss_hold_it_off() {
    for code in [&[0x8e, 0xd1, 0x90][..], &[0x17, 0x90]] {
        let mut m = stepping(code);
        m.set(STACK, 4, sel::DATA.into());
        step(&mut m);
        let next = CODE + code.len() as u64 - 1;
        assert_eq!((m.cpu.state.rip, m.cpu.state.shadow, m.cpu.vectors[1]), (next, shadow::ALL, 0));
        step(&mut m);
        assert_eq!(handled(&mut m).0, next + 1);
    }
    // LSS loads both, and needs no such help.
    let mut m = stepping(&[0x0f, 0xb2, 0x25, 0, 0x70, 0, 0]);
    m.set(DATA, 4, STACK - 8);
    m.set(DATA + 4, 2, sel::DATA.into());
    step(&mut m);
    assert_eq!((m.cpu.state.shadow, handled(&mut m).0), (0, CODE + 7));
    // An instruction breakpoint behind it is not met.
    let mut m = stepping(&[0x8e, 0xd1, 0x90, 0x90]);
    m.cpu.state.flags &= !Rflags::TF;
    (m.cpu.state.dr[0], m.cpu.state.dr[1]) = (CODE + 2, CODE + 3);
    m.cpu.state.dr7 = Dr7::from_bits_retain(0x40a);
    m.cpu.update_mode();
    (0..3).for_each(|_| step(&mut m));
    let (rip, flags, dr6) = handled(&mut m);
    assert_eq!((rip, flags & rflags::RF, dr6), (CODE + 3, 0, 0xffff_0ff2));
}

#[test]
fn a_data_breakpoint_of_mov_ss_comes_behind_the_next_instruction() {
    let load = [0x8e, 0x15, 0, 0x70, 0, 0];
    let watched = |next: &[u8]| {
        let mut m = stepping(&[&load[..], next].concat());
        m.cpu.state.flags &= !Rflags::TF;
        m.set(DATA, 4, sel::DATA.into());
        watch(&mut m, DATA);
        // Reads, too.
        m.cpu.state.dr7 |= Dr7::from_bits_retain(0xf << 16);
        let dr7 = m.cpu.state.dr7.bits();
        m.call(WriteDr, [dr7, 0, 0], 7).unwrap();
        step(&mut m);
        assert_eq!((m.cpu.state.rip, m.cpu.vectors[1]), (CODE + 6, 0));
        step(&mut m);
        m
    };
    assert_eq!(handled(&mut watched(&[0x90])), (CODE + 7, 2 | rflags::IF, 0xffff_0ff1));
    let mut m = watched(&[0xcd, 0x80]);
    assert_eq!(handled(&mut m).0, HANDLER + 16 * 0x80, "INT n: in its handler");
    let mut m = watched(&[0xf1]);
    assert_eq!((m.cpu.vectors[1], handled(&mut m).2), (1, 0xffff_0ff1), "INT1 is a #DB itself");
    let m = watched(&[0x0f, 0x0b]);
    assert_eq!((m.cpu.vectors[6], m.cpu.vectors[1]), (1, 0), "a fault drops it");
}

#[test]
fn causes_of_one_exception() {
    let mut m = stepping(&[0xa3, 0, 0x70, 0, 0, 0x90]);
    watch(&mut m, DATA);
    m.cpu.state.dr6 |= Dr6::B1 | Dr6::B2 | Dr6::B3;
    step(&mut m);
    assert_eq!(handled(&mut m), (CODE + 5, 2 | rflags::IF | rflags::TF, 0xffff_4ff1));
    m.cpu.state.dr6 |= Dr6::B0 | Dr6::BT;
    step(&mut m);
    assert_eq!(handled(&mut m).2, 0xffff_cff0, "B0 to B3 are this one's, the others stay");
}

#[test]
fn a_data_breakpoint_on_the_stack_of_a_handler() {
    let mut m = stepping(&[0x90]);
    m.cpu.state.flags &= !Rflags::TF;
    watch(&mut m, STACK - 4);
    m.cpu.deliver_interrupt(0x40);
    assert!(m.cpu.trap_is_due());
    step(&mut m);
    assert_eq!(handled(&mut m), (HANDLER + 16 * 0x40, 2, 0xffff_0ff1));
    assert!(!m.cpu.trap_is_due());
}

#[test]
fn breakpoints_on_ports() {
    use mimus_frontend::x86::state::Cr4;
    // OUT 0x61, AL; IN AX, 0x60; IN AL, 0x62.
    let code = [0xe6, 0x61, 0x66, 0xe5, 0x60, 0xe4, 0x62];
    for (features, met) in [(Cr4::DE, 2), (Cr4::empty(), 0)] {
        let mut m = stepping(&code);
        m.cpu.state.flags &= !Rflags::TF;
        m.cpu.state.cr4 |= features;
        (m.cpu.state.dr[2], m.cpu.state.dr7) = (0x61, Dr7::from_bits_retain(0x420 | 2 << 24));
        m.cpu.update_mode();
        for i in 0..3 {
            step(&mut m);
            if i < met {
                assert_eq!(handled(&mut m).2, 0xffff_0ff4, "{i}");
            }
        }
        assert_eq!((m.cpu.state.rip, m.cpu.vectors[1]), (CODE + 7, met));
    }
}

#[test]
fn repeated_strings_trap_behind_each_element() {
    for code in [&[0xf3, 0xaa][..], &[0xf3, 0xa4], &[0xf3, 0xac], &[0xf2, 0xae]] {
        let mut m = stepping(code);
        let s = &mut m.cpu.state;
        (s.gpr[reg::RCX], s.gpr[reg::RSI], s.gpr[reg::RDI], s.gpr[reg::RAX]) = (3, DATA, DATA + 0x100, 0x55);
        for left in [2, 1] {
            step(&mut m);
            assert_eq!(m.cpu.state.gpr[reg::RCX], left, "{code:x?}");
            step(&mut m);
            let (rip, flags, dr6) = handled(&mut m);
            assert_eq!((rip, flags & rflags::RF, dr6), (CODE, rflags::RF, 0xffff_4ff0), "{code:x?}");
        }
        step(&mut m);
        let (rip, flags, _) = handled(&mut m);
        assert_eq!((rip, flags & rflags::RF, m.cpu.state.gpr[reg::RCX]), (CODE + 2, 0, 0), "{code:x?}");
    }
    // A data breakpoint stops it behind the element that met it.
    let mut m = stepping(&[0xf3, 0xab]);
    m.cpu.state.flags &= !Rflags::TF;
    watch(&mut m, DATA + 4);
    (m.cpu.state.gpr[reg::RCX], m.cpu.state.gpr[reg::RDI]) = (4, DATA);
    step(&mut m);
    step(&mut m);
    assert_eq!(handled(&mut m), (CODE, 2 | rflags::IF | rflags::RF, 0xffff_0ff1));
    assert_eq!(m.cpu.state.gpr[reg::RCX], 2);
    step(&mut m);
    assert_eq!((m.cpu.state.gpr[reg::RCX], m.cpu.state.rip, m.cpu.vectors[1]), (0, CODE + 2, 1));
}

#[test]
fn system_calls_are_stepped_over() {
    let mut m = Machine::long(3);
    assert!(m.cpu.mmu.ram.write_bytes(CODE, &[0x0f, 0x05, 0x90]));
    assert!(m.cpu.mmu.ram.write_bytes(0x5000, &[0x48, 0x0f, 0x07]));
    m.set_gate(1, sel::CODE64, HANDLER + 16, 0x8e, 0);
    let s = &mut m.cpu.state;
    (s.star, s.lstar, s.sfmask) = ((0x10 | 3) << 48 | 0x28 << 32, 0x5000, rflags::TF);
    s.rip = CODE;
    s.flags |= Rflags::TF;
    m.cpu.update_mode();
    step(&mut m);
    assert_eq!((m.cpu.state.rip, m.cpu.vectors[1]), (0x5000, 0), "the mask clears TF");
    // SYSRET, which compiled code may do: the trap comes before the program's next instruction.
    m.cpu.state.gpr[11] |= rflags::TF;
    m.call(Sysret, [0; 3], 8).unwrap();
    assert!(m.cpu.trap_is_due());
    step(&mut m);
    assert_eq!((m.cpu.state.rip, m.get(m.rsp(), 8)), (HANDLER + 16, CODE + 2));
    assert_eq!(m.cpu.state.dr6.bits(), 0xffff_4ff0);
}

#[test]
fn a_task_with_its_trap_bit() {
    let mut m = stepping(&[0x90]);
    m.cpu.state.flags &= !Rflags::TF;
    let task = super::fixture::TSS_B;
    let image = [(0x20, 4, 0xb_0000), (0x24, 4, 2), (0x38, 4, STACK), (0x64, 2, 1)];
    image.into_iter().for_each(|(at, size, value)| m.set(task + at, size, value));
    let selectors = [sel::DATA, sel::CODE, sel::DATA, sel::DATA, 0, 0];
    (0..).zip(selectors).for_each(|(i, selector)| m.set(task + 0x48 + 4 * i, 4, selector.into()));
    m.set(TSS, 2, 0);
    m.call(FarJump, [sel::TSS_B.into(), 0, CODE + 7], 4).unwrap();
    assert_eq!(handled(&mut m), (0xb_0000, 2, 0xffff_8ff0));
}
