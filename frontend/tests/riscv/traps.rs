//! Traps, delegation, interrupts, returns, WFI, and the instructions that lower modes may or may not use.

use std::sync::atomic::Ordering;

use mimus_frontend::riscv::irq;
use mimus_frontend::riscv::isa::Code::*;
use mimus_frontend::riscv::isa::Insn;
use mimus_frontend::riscv::state::{Envcfg, Exceptions, Interrupts, Mstatus};
use mimus_softmmu::Backing;

use crate::hart::{BASE, DATA, DEVICE, HANDLER, Hart, action, i, r, s};

const S_HANDLER: u64 = BASE + 0xc00;

/// A hart whose exceptions and interrupts all go to supervisor mode, in `privilege`.
fn delegating(privilege: u64) -> Hart {
    let mut hart = Hart::new().open_pmp();
    hart.cpu.state.medeleg = Exceptions::from_bits_retain(0xb3ff);
    hart.cpu.state.mideleg = Interrupts::from_bits_retain(0x222);
    hart.cpu.state.stvec = S_HANDLER;
    hart.enter(privilege, BASE);
    hart
}

#[test]
fn environment_calls_say_where_they_come_from() {
    for (privilege, cause) in [(0, 8), (1, 9), (3, 11)] {
        let mut hart = Hart::new().open_pmp();
        hart.cpu.state.mstatus |= Mstatus::MIE;
        hart.enter(privilege, BASE);
        assert_eq!(hart.trap(Insn::new(Ecall)), (cause, 0));
        let state = &hart.cpu.state;
        assert_eq!((state.privilege, state.mpp()), (3, privilege));
        assert_eq!(state.mstatus & (Mstatus::MIE | Mstatus::MPIE), Mstatus::MPIE);
        hart.run(&[Insn::new(Mret)]);
        let state = &hart.cpu.state;
        assert_eq!((state.privilege, state.pc, state.mpp()), (privilege, BASE, 0));
        assert_eq!(state.mstatus & (Mstatus::MIE | Mstatus::MPIE), Mstatus::MIE | Mstatus::MPIE);
    }
}

#[test]
fn delegated_traps_go_to_supervisor_mode_unless_they_come_from_machine_mode() {
    for privilege in [0, 1] {
        let mut hart = delegating(privilege);
        hart.cpu.state.mstatus |= Mstatus::SIE;
        hart.run(&[Insn::new(Ebreak)]);
        let state = &hart.cpu.state;
        assert_eq!((state.pc, state.sepc, state.scause, state.stval), (S_HANDLER, BASE, 3, 0));
        assert_eq!(state.mstatus.intersects(Mstatus::SPP), privilege == 1);
        assert_eq!(state.mstatus & (Mstatus::SIE | Mstatus::SPIE), Mstatus::SPIE);
        hart.run(&[Insn::new(Sret)]);
        let state = &hart.cpu.state;
        assert_eq!((state.privilege, state.pc), (privilege, BASE));
        assert_eq!(state.mstatus & (Mstatus::SIE | Mstatus::SPIE | Mstatus::SPP), Mstatus::SIE | Mstatus::SPIE);
    }
    let mut hart = delegating(3);
    assert_eq!(hart.trap(Insn::new(Ebreak)), (3, 0));
}

#[test]
fn returns_leave_a_modified_privilege_behind() {
    let mut hart = Hart::new().open_pmp();
    hart.cpu.state.mstatus |= Mstatus::MPRV | Mstatus::MPP;
    hart.run(&[Insn::new(Mret)]);
    assert!(hart.cpu.state.mstatus.contains(Mstatus::MPRV), "still machine mode");
    hart.cpu.state.mstatus |= Mstatus::from_bits_retain(1 << Mstatus::MPP_SHIFT);
    hart.enter(3, BASE);
    hart.run(&[Insn::new(Mret)]);
    assert!(!hart.cpu.state.mstatus.contains(Mstatus::MPRV));
}

#[test]
fn what_lower_modes_may_not_do_is_illegal() {
    let none = Mstatus::empty();
    let cases = [
        // Instruction, mstatus, modes from which it is illegal.
        (Insn::new(Mret), none, [true, true]),
        (Insn::new(Sret), none, [true, false]),
        (Insn::new(Sret), Mstatus::TSR, [true, true]),
        (Insn::new(Wfi), none, [true, false]),
        (Insn::new(Wfi), Mstatus::TW, [true, true]),
        (r(SfenceVma, 0, 0, 0), none, [true, false]),
        (r(SfenceVma, 0, 5, 6), Mstatus::TVM, [true, true]),
        (r(SinvalVma, 0, 5, 6), Mstatus::TVM, [true, true]),
        (Insn::new(SfenceWInval), Mstatus::TVM, [true, false]),
        (Insn::new(SfenceInvalIr), none, [true, false]),
    ];
    for (insn, bits, illegal) in cases {
        for (privilege, illegal) in (0..).zip(illegal) {
            let mut hart = Hart::new().open_pmp();
            hart.cpu.state.mstatus |= bits;
            hart.enter(privilege, BASE);
            if illegal {
                assert_eq!(hart.trap(insn), (2, insn.encode().into()), "{insn:?} in {privilege}");
            } else {
                hart.run(&[insn]);
                assert_ne!(hart.cpu.state.pc, HANDLER, "{insn:?} in {privilege}");
            }
        }
        let mut hart = Hart::new();
        hart.cpu.state.mstatus |= bits;
        hart.run(&[insn]);
        assert_ne!(hart.cpu.state.pc, HANDLER, "{insn:?} in machine mode");
    }
}

#[test]
fn interrupts_are_taken_by_priority_where_they_are_enabled() {
    let mut hart = Hart::new().open_pmp();
    hart.cpu.state.mtvec = HANDLER | 1;
    let lines = hart.cpu.lines.clone();
    for number in [irq::MEIP, irq::MSIP, irq::MTIP, irq::SEIP] {
        lines.set(number, true);
    }
    hart.cpu.state.mie = Interrupts::from_bits_retain(0xaaa);
    assert_eq!(hart.cpu.take_interrupt(), None, "machine mode with MIE clear");
    hart.cpu.state.mstatus |= Mstatus::MIE;
    for number in [irq::MEIP, irq::MSIP, irq::MTIP, irq::SEIP] {
        hart.enter(3, BASE);
        hart.cpu.state.mstatus |= Mstatus::MIE;
        assert_eq!(hart.cpu.take_interrupt(), Some(number));
        let state = &hart.cpu.state;
        assert_eq!((state.mcause, state.mepc), (1 << 63 | u64::from(number), BASE));
        assert_eq!(state.pc, HANDLER + 4 * u64::from(number), "vectored");
        assert_eq!(hart.cpu.take_interrupt(), None, "MIE is clear now");
        lines.set(number, false);
    }
    // A lower mode cannot keep machine mode's away.
    hart.enter(0, BASE);
    hart.cpu.state.mstatus &= !Mstatus::MIE;
    lines.set(irq::MTIP, true);
    assert_eq!(hart.cpu.take_interrupt(), Some(irq::MTIP));
}

#[test]
fn delegated_interrupts_wait_for_supervisor_mode() {
    let mut hart = delegating(1);
    hart.cpu.state.mie = Interrupts::from_bits_retain(0xaaa);
    hart.cpu.lines.set(irq::SEIP, true);
    assert_eq!(hart.cpu.take_interrupt(), None, "SIE is clear");
    hart.enter(3, BASE);
    hart.cpu.state.mstatus |= Mstatus::MIE | Mstatus::SIE;
    assert_eq!(hart.cpu.take_interrupt(), None, "machine mode is above it");
    hart.enter(0, BASE);
    hart.cpu.state.mstatus &= !Mstatus::SIE;
    assert_eq!(hart.cpu.take_interrupt(), Some(irq::SEIP), "user mode is below it");
    let state = &hart.cpu.state;
    assert_eq!((state.privilege, state.pc, state.scause), (1, S_HANDLER, 1 << 63 | 9));
}

#[test]
fn enabling_an_interrupt_that_waits_calls_the_dispatcher() {
    let asked = |hart: &Hart| hart.cpu.header.exit_request.swap(0, Ordering::Relaxed) != 0;
    let mut hart = delegating(1);
    hart.cpu.lines.set(irq::SEIP, true);
    hart.cpu.state.x[6] = 0x222;
    hart.run(&[i(Csrrs, 0, 6, 0x104)]);
    assert!(!asked(&hart), "sie, but sstatus.SIE is clear");
    hart.run(&[i(Csrrsi, 0, 2, 0x100)]);
    assert!(asked(&hart));
    hart.run(&[i(Csrrci, 7, 2, 0x100)]);
    assert!(!asked(&hart));
    assert_eq!(hart.cpu.state.x[7], 0x2_0000_0002, "sstatus before");
    assert!(!hart.cpu.state.mstatus.contains(Mstatus::SIE));
    hart.cpu.state.mstatus |= Mstatus::SPIE | Mstatus::SPP;
    hart.run(&[Insn::new(Sret)]);
    assert!(asked(&hart), "SRET to where it is enabled");
}

#[test]
fn the_comparator_interrupts_when_its_time_has_come() {
    let mut hart = delegating(1);
    hart.cpu.state.mie = Interrupts::STI;
    hart.cpu.state.mstatus |= Mstatus::SIE;
    hart.cpu.state.mcounteren = 2;
    hart.cpu.state.privilege = 3;
    hart.cpu.access_csr(0x30a, action::WRITE, 1 << 63).unwrap();
    hart.enter(1, BASE);
    hart.cpu.state.x[6] = 500;
    hart.run(&[i(Csrrw, 0, 6, 0x14d)]);
    assert_eq!(hart.board.deadline.load(Ordering::Relaxed), 500);
    assert_eq!(hart.cpu.take_interrupt(), None);
    hart.board.now.store(500, Ordering::Relaxed);
    assert_eq!(hart.cpu.take_interrupt(), Some(irq::STIP));
    hart.cpu.state.x[6] = 501;
    hart.run(&[i(Csrrw, 0, 6, 0x14d)]);
    assert!(!hart.cpu.mip().contains(Interrupts::STI), "it is a level");
}

#[test]
fn waiting_ends_with_an_interrupt_that_mie_enables_whether_it_is_taken_or_not() {
    let mut hart = Hart::new();
    hart.cpu.state.mie = Interrupts::MTI;
    hart.run(&[Insn::new(Wfi)]);
    assert_eq!((hart.cpu.state.halted, hart.cpu.state.pc), (1, BASE + 4));
    hart.cpu.lines.set(irq::MEIP, true);
    assert!(!hart.cpu.wakes());
    hart.cpu.lines.set(irq::MTIP, true);
    assert!(hart.cpu.wakes());
    assert_eq!((hart.cpu.state.halted, hart.cpu.take_interrupt()), (0, None));
}

#[test]
fn where_nobody_answers_is_an_access_fault() {
    let mut hart = Hart::new();
    hart.cpu.state.x[10] = 0x2000_0000;
    for (insn, cause) in [(i(Lw, 5, 10, 4), 5), (s(Sd, 5, 10, 4), 7), (r(AmoaddW, 5, 10, 5), 7), (r(LrD, 5, 10, 0), 5)]
    {
        hart.cpu.state.pc = BASE;
        let at = 0x2000_0000 + insn.imm as u64;
        assert_eq!(hart.trap(insn), (cause, at), "{insn:?}");
    }
    hart.cpu.state.pc = BASE;
    hart.run(&[i(Jalr, 0, 10, 0)]);
    hart.block(1);
    assert_eq!((hart.cpu.state.mcause, hart.cpu.state.mtval), (1, 0x2000_0000));
    // A device does answer.
    hart.cpu.state.x[10] = DEVICE;
    hart.cpu.state.x[11] = 77;
    hart.cpu.state.pc = BASE;
    hart.run(&[s(Sw, 11, 10, 8), i(Lw, 12, 10, 8)]);
    assert_eq!(hart.cpu.state.x[12], 77);
}

#[test]
fn rom_is_read_and_run_and_stores_to_it_are_access_faults() {
    let mut hart = Hart::new();
    let ram = hart.cpu.mmu.ram.clone();
    assert!(ram.write_u64(DATA, 0x1234_5678).is_some() && ram.set_backing(DATA, Backing::ROM));
    hart.cpu.state.x[10] = DATA;
    for insn in [s(Sd, 5, 10, 0), s(Sb, 5, 10, 7), r(AmoaddW, 5, 10, 5)] {
        hart.cpu.state.pc = BASE;
        let at = DATA + insn.imm as u64;
        assert_eq!(hart.trap(insn), (7, at), "{insn:?}");
    }
    hart.cpu.state.pc = BASE;
    hart.run(&[i(Ld, 5, 10, 0)]);
    assert_eq!((hart.cpu.state.x[5], ram.read_u64(DATA)), (0x1234_5678, Some(0x1234_5678)));
    assert_eq!(hart.cpu.translate_fetch(DATA).ok(), Some(DATA));
}

#[test]
fn cache_blocks_are_zeroed_or_left_alone_as_lower_modes_are_let() {
    let mut hart = Hart::new().open_pmp();
    hart.cpu.state.x[10] = DATA + 77;
    for at in 0..32 {
        hart.cpu.mmu.ram.write_u64(DATA + 8 * at, u64::MAX).unwrap();
    }
    hart.run(&[r(CboZero, 0, 10, 0), r(CboFlush, 0, 10, 0), r(CboInval, 0, 10, 0)]);
    assert_eq!(hart.cpu.state.pc, BASE + 12);
    let words: Vec<u64> = (0..32).map(|at| hart.cpu.mmu.ram.read_u64(DATA + 8 * at).unwrap()).collect();
    assert!((0..32).all(|n| (words[n] == 0) == (8..16).contains(&n)), "{words:x?}");
    for (code, field) in [(CboZero, 1 << 7), (CboInval, 1 << 4), (CboClean, 1 << 6), (CboFlush, 1 << 6)] {
        for (m, s, privilege, illegal) in
            [(0, 0, 1, true), (0, field, 1, true), (field, 0, 1, false), (field, 0, 0, true), (field, field, 0, false)]
        {
            (hart.cpu.state.menvcfg, hart.cpu.state.senvcfg) =
                (Envcfg::from_bits_retain(m), Envcfg::from_bits_retain(s));
            hart.enter(privilege, BASE);
            hart.run(&[r(code, 0, 10, 0)]);
            assert_eq!(hart.cpu.state.pc == HANDLER, illegal, "{code:?} {m} {s} {privilege}");
        }
    }
    // Where there is nothing to be written, it is a store that faults.
    hart.cpu.state.x[10] = 0x2000_0003;
    hart.enter(3, BASE);
    assert_eq!(hart.trap(r(CboZero, 0, 10, 0)).0, 7);
}
