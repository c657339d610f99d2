//! A vCPU's state goes through a file.

use std::sync::atomic::Ordering;

use mimus_frontend::riscv::isa::Code::*;
use mimus_frontend::riscv::isa::Insn;
use mimus_frontend::riscv::{CpuState, RestoreError};

use crate::hart::{BASE, HANDLER, Hart, action, i};

#[test]
fn a_restored_vcpu_goes_on_where_the_saved_one_was() {
    let mut hart = Hart::new().open_pmp().with_float();
    hart.cpu.access_csr(0x30a, action::WRITE, 1 << 63).unwrap();
    hart.cpu.access_csr(0x14d, action::WRITE, 777).unwrap();
    hart.cpu.access_csr(3, action::WRITE, 0x71).unwrap();
    hart.run(&[i(Addi, 5, 0, 33)]);
    hart.enter(1, BASE + 4);
    // A fault that has not been delivered yet.
    assert!(hart.cpu.translate_fetch(0x2000_0000).is_err());
    let bytes = postcard::to_stdvec(&hart.cpu.save()).unwrap();
    let saved: CpuState = postcard::from_bytes(&bytes).unwrap();

    let mut other = Hart::new();
    other.cpu.restore(&saved).unwrap();
    assert_eq!(other.cpu.state, hart.cpu.state);
    assert_eq!((other.cpu.mode, other.cpu.bank, other.cpu.pending), (hart.cpu.mode, hart.cpu.bank, hart.cpu.pending));
    assert_eq!(other.board.deadline.load(Ordering::Relaxed), 777);
    assert_eq!(other.cpu.save(), saved);
    other.cpu.deliver_pending();
    assert_eq!((other.cpu.state.pc, other.cpu.state.mcause, other.cpu.state.mepc), (HANDLER, 1, BASE + 4));
}

#[test]
fn what_is_of_another_version_or_hart_is_refused() {
    let mut hart = Hart::new();
    let mut bytes = postcard::to_stdvec(&hart.cpu.save()).unwrap();
    bytes[0] += 1;
    let other: CpuState = postcard::from_bytes(&bytes).unwrap();
    hart.run(&[Insn::new(Fence)]);
    assert_eq!(hart.cpu.restore(&other), Err(RestoreError::Version { found: 4 }));
    let saved = hart.cpu.save();
    hart.cpu.features.hart += 1;
    assert_eq!(hart.cpu.restore(&saved), Err(RestoreError::Features));
    assert_eq!(hart.cpu.state.pc, BASE + 4, "unchanged");
}
