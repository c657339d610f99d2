//! CSRs: who may use them, what can be written.

use mimus_frontend::riscv::csr::{TABLE, least_privilege, lookup, read_only};
use mimus_frontend::riscv::irq;
use mimus_frontend::riscv::isa::Code::{self, *};
use mimus_frontend::riscv::isa::Insn;
use mimus_frontend::riscv::state::{Envcfg, Interrupts, Mstatus};

use crate::hart::{BASE, DATA, HANDLER, Hart, action, i, r, s};

fn read(hart: &mut Hart, number: u16) -> u64 {
    hart.cpu.access_csr(number, action::READ, 0).unwrap_or_else(|| panic!("{number:#x}"))
}

fn write(hart: &mut Hart, number: u16, value: u64) -> u64 {
    hart.cpu.access_csr(number, action::WRITE, value).unwrap_or_else(|| panic!("{number:#x}"));
    read(hart, number)
}

/// Whether an instruction on a CSR is illegal in a mode.
fn illegal(hart: &mut Hart, privilege: u64, code: Code, number: u16, operand: u8) -> bool {
    hart.enter(privilege, BASE);
    hart.code(&[i(code, 5, operand, number.into())]);
    hart.block(1);
    if hart.cpu.state.pc == BASE {
        // The first to look at instret has the code count, and starts again.
        hart.block(1);
    }
    assert!([BASE + 4, crate::hart::HANDLER].contains(&hart.cpu.state.pc), "{number:#x}");
    hart.cpu.state.pc != BASE + 4
}

#[test]
fn numbers_say_who_may_do_what_and_others_are_illegal() {
    let mut hart = Hart::new().open_pmp().with_float();
    hart.cpu.state.mcounteren = 0xffff_ffff;
    hart.cpu.state.scounteren = 0xffff_ffff;
    hart.cpu.state.menvcfg = Envcfg::STCE;
    for number in 0..4096 {
        let exists = lookup(number).is_some();
        for privilege in [0, 1, 3] {
            let readable = exists && privilege >= least_privilege(number);
            assert_eq!(illegal(&mut hart, privilege, Csrrs, number, 0), !readable, "{number:#x} in mode {privilege}");
            // Clearing no bit but trying to.
            let writable = readable && !read_only(number);
            hart.cpu.state.x[6] = 0;
            assert_eq!(illegal(&mut hart, privilege, Csrrc, number, 6), !writable, "{number:#x} in mode {privilege}");
        }
    }
}

#[test]
fn every_action_of_the_six_instructions() {
    let mut hart = Hart::new();
    let scratch = 0x340;
    hart.cpu.state.x[6] = 0xff00;
    hart.run(&[
        i(Csrrw, 5, 6, scratch),
        i(Csrrsi, 7, 0x1f, scratch),
        i(Csrrc, 8, 6, scratch),
        i(Csrrwi, 9, 0x15, scratch),
        i(Csrrci, 10, 0x10, scratch),
        i(Csrrs, 11, 6, scratch),
        i(Csrrs, 12, 0, scratch),
        // Source and destination are one register.
        i(Csrrw, 6, 6, scratch),
    ]);
    assert_eq!(hart.cpu.state.x[7..=12], [0xff00, 0xff1f, 0x1f, 0x15, 5, 0xff05]);
    assert_eq!(hart.cpu.state.x[5], 0);
    assert_eq!((hart.cpu.state.x[6], hart.cpu.state.mscratch), (0xff05, 0xff00));
}

#[test]
fn what_cannot_be_written_stays() {
    let mut hart = Hart::new();
    let all = u64::MAX;
    // Number, what reads back of all ones, and of zero.
    for (number, ones, zeros) in [
        (0x300, 0x8000_000a_007e_79aa, 0xa_0000_0000),
        (0x301, 0x8000_0000_0014_112d, 0x8000_0000_0014_112d),
        (0x302, 0xb3ff, 0),
        (0x303, 0x222, 0),
        (0x304, 0xaaa, 0),
        (0x305, !2, 0),
        (0x341, !1, 0),
        (0x106, 0xffff_ffff, 0),
        (0x10a, 0xf1, 0),
        (0x30a, 0xa000_0000_0000_00f1, 0),
        (0x320, 5, 0),
        (0x141, !1, 0),
        (0x323, 0, 0),
        (0xb1f, 0, 0),
        (0x7a0, 0, 0),
        (0x3bf, 0x003f_ffff_ffff_fc00, 0),
        (0x3c0, 0, 0),
    ] {
        assert_eq!(write(&mut hart, number, all), ones, "{number:#x}");
        assert_eq!(write(&mut hart, number, 0), zeros, "{number:#x}");
    }
    assert_eq!(read(&mut hart, 0xf14), 3, "mhartid");
    assert_eq!(TABLE.iter().map(|row| usize::from(row.count)).sum::<usize>(), 202);
}

#[test]
fn mpp_and_cbie_have_a_value_that_is_none() {
    let mut hart = Hart::new();
    write(&mut hart, 0x300, 1 << 11);
    assert_eq!(write(&mut hart, 0x300, 2 << 11) >> 11 & 3, 1);
    write(&mut hart, 0x30a, 3 << 4);
    assert_eq!(write(&mut hart, 0x30a, 2 << 4), 3 << 4);
}

#[test]
fn satp_takes_three_modes_and_otherwise_nothing() {
    let mut hart = Hart::new();
    for mode in [8, 9, 10, 0] {
        let value = mode << 60 | 0x1234 << 44 | 0x8_0001;
        assert_eq!(write(&mut hart, 0x180, value), value);
    }
    let before = read(&mut hart, 0x180);
    for mode in [1, 7, 11, 15] {
        assert_eq!(write(&mut hart, 0x180, mode << 60), before);
    }
}

#[test]
fn supervisor_registers_are_parts_of_the_machines() {
    let mut hart = Hart::new();
    write(&mut hart, 0x300, 0);
    assert_eq!(write(&mut hart, 0x100, u64::MAX), 0x8000_0002_000c_6122);
    assert_eq!(read(&mut hart, 0x300), 0x8000_000a_000c_6122);
    write(&mut hart, 0x304, 0xaaa);
    assert_eq!(read(&mut hart, 0x104), 0, "nothing is delegated");
    write(&mut hart, 0x303, 0x222);
    assert_eq!(read(&mut hart, 0x104), 0x222);
    assert_eq!((write(&mut hart, 0x104, 0), read(&mut hart, 0x304)), (0, 0x888));
    // Supervisor mode sets and clears its software interrupt alone.
    assert_eq!(write(&mut hart, 0x144, u64::MAX), 2);
    assert_eq!(write(&mut hart, 0x344, u64::MAX), 0x222);
    assert_eq!(write(&mut hart, 0x144, 0), 0x220);
}

#[test]
fn an_external_line_is_read_with_what_software_set_but_not_written_back() {
    let mut hart = Hart::new();
    let lines = hart.cpu.lines.clone();
    assert!(lines.set(irq::SEIP, true) && !lines.set(irq::SEIP, true));
    hart.cpu.state.x[6] = 1 << irq::SSIP;
    hart.run(&[i(Csrrs, 5, 6, 0x344)]);
    assert_eq!(hart.cpu.state.x[5], 1 << irq::SEIP);
    assert_eq!(hart.cpu.state.mip, Interrupts::SSI);
    lines.set(irq::SEIP, false);
    assert_eq!(read(&mut hart, 0x344), 1 << irq::SSIP);
}

#[test]
fn counters_are_closed_to_lower_modes_until_opened() {
    let mut hart = Hart::new().open_pmp();
    for (bit, number) in [(0, 0xc00), (1, 0xc01), (2, 0xc02), (31, 0xc1f)] {
        for (m, s, privilege, denied) in
            [(0, 0, 3, false), (0, 1, 1, true), (1, 0, 1, false), (1, 0, 0, true), (1, 1, 0, false), (0, 1, 0, true)]
        {
            hart.cpu.state.mcounteren = m << bit;
            hart.cpu.state.scounteren = s << bit;
            assert_eq!(illegal(&mut hart, privilege, Csrrs, number, 0), denied, "{number:#x} {m} {s} {privilege}");
        }
    }
}

#[test]
fn mcycle_counts_time_unless_inhibited_and_can_be_set() {
    let mut hart = Hart::new();
    let now = hart.board.now.clone();
    let set = |ticks| now.store(ticks, std::sync::atomic::Ordering::Relaxed);
    set(1000);
    assert_eq!(write(&mut hart, 0xb00, u64::MAX - 5), u64::MAX - 5);
    set(1_000_000);
    assert_eq!(read(&mut hart, 0xc00), 99_900_000 - 6);
    write(&mut hart, 0x320, 5);
    let stopped = read(&mut hart, 0xb00);
    set(2_000_000);
    assert_eq!(read(&mut hart, 0xc00), stopped);
    write(&mut hart, 0x320, 0);
    set(3_000_000);
    assert_eq!(read(&mut hart, 0xb00), stopped + 100_000_000);
    assert_eq!(read(&mut hart, 0xc01), 3_000_000);
}

/// Runs whole blocks until the program counter is at `pc`.
fn run_to(hart: &mut Hart, pc: u64) {
    for _ in 0..100 {
        if hart.cpu.state.pc == pc {
            return;
        }
        hart.block(64);
    }
    panic!("{:#x} is not reached", hart.cpu.state.pc);
}

#[test]
fn instret_counts_each_instruction_that_was_executed() {
    for hart in [Hart::new(), Hart::optimizing()] {
        let mut hart = hart.with_float();
        hart.cpu.state.x[6] = 100;
        hart.cpu.state.x[10] = DATA;
        // A signalling NaN: such an addition is not done by code for the common case.
        hart.cpu.state.f[2] = [0x7ff0 << 48 | 1, 0];
        hart.code(&[
            i(Addi, 11, 0, 1),
            i(Csrrw, 0, 6, 0xb02),
            i(Csrrs, 5, 0, 0xb02),
            s(Sd, 11, 10, 0),
            i(Ld, 12, 10, 0),
            r(AmoaddD, 12, 10, 11),
            // Without a reservation.
            r(ScD, 13, 10, 11),
            r(FaddD, 1, 2, 2),
            i(Csrrs, 7, 0, 0xc02),
            s(Beq, 0, 0, 8),
            i(Addi, 11, 0, 1),
            i(Jal, 0, 0, 4),
            i(Csrrs, 14, 0, 0xb02),
            Insn::new(Ecall),
        ]);
        run_to(&mut hart, HANDLER);
        let x = hart.cpu.state.x;
        assert_eq!([x[5], x[7], x[14]], [100, 106, 109]);
        assert_eq!(hart.cpu.state.instret, 110, "exceptions keep an instruction from being executed");
        assert_eq!((x[13], hart.cpu.state.f[1][0]), (1, 0x7ff8 << 48));
        hart.cpu.state.mepc = BASE + 0x400;
        hart.code(&[Insn::new(Mret)]);
        hart.cpu.state.mstatus |= Mstatus::MPP;
        run_to(&mut hart, BASE + 0x400);
        hart.code(&[
            i(Csrrs, 15, 0, 0xb02),
            i(Csrrwi, 0, 4, 0x320),
            i(Addi, 11, 0, 1),
            i(Csrrs, 16, 0, 0xb02),
            i(Csrrwi, 0, 0, 0x320),
            i(Csrrs, 17, 0, 0xb02),
            i(Csrrs, 18, 0, 0xb02),
        ]);
        run_to(&mut hart, BASE + 0x400 + 4 * 7);
        assert_eq!(hart.cpu.state.x[15..=18], [111, 113, 113, 114]);
    }
}

#[test]
fn nothing_counts_instructions_until_somebody_may_look() {
    let mut hart = Hart::new().open_pmp();
    hart.run(&[i(Addi, 11, 0, 1), i(Csrrs, 5, 0, 0xc00)]);
    assert!(illegal(&mut hart, 0, Csrrs, 0xc02, 0));
    assert_eq!((hart.cpu.state.counting, hart.cpu.state.instret), (0, 0));
    (hart.cpu.state.mcounteren, hart.cpu.state.scounteren) = (4, 4);
    assert!(!illegal(&mut hart, 0, Csrrs, 0xc02, 0));
    assert_eq!((hart.cpu.state.counting, hart.cpu.state.instret), (1, 1));
}

#[test]
fn virtual_machines_keep_supervisor_mode_from_satp() {
    let mut hart = Hart::new().open_pmp();
    assert!(!illegal(&mut hart, 1, Csrrs, 0x180, 0));
    hart.cpu.state.mstatus |= Mstatus::TVM;
    assert!(illegal(&mut hart, 1, Csrrs, 0x180, 0));
    assert!(illegal(&mut hart, 1, SfenceVma, 0, 0));
    assert!(!illegal(&mut hart, 3, Csrrs, 0x180, 0));
    assert!(!illegal(&mut hart, 3, SfenceVma, 0, 0));
}

#[test]
fn stimecmp_is_closed_until_opened() {
    let mut hart = Hart::new().open_pmp();
    assert!(!illegal(&mut hart, 3, Csrrs, 0x14d, 0));
    for (stce, tm) in [(0, 0), (0, 1), (1, 0)] {
        hart.cpu.state.menvcfg = Envcfg::from_bits_retain(stce << 63);
        hart.cpu.state.mcounteren = tm << 1;
        assert!(illegal(&mut hart, 1, Csrrs, 0x14d, 0));
    }
    hart.cpu.state.menvcfg = Envcfg::STCE;
    hart.cpu.state.mcounteren = 2;
    assert!(!illegal(&mut hart, 1, Csrrs, 0x14d, 0));
    assert!(illegal(&mut hart, 0, Csrrs, 0x14d, 0));
}
