//! Alignment checks are part of a translation's mode.
#![forbid(unsafe_code)]

use mimus_frontend::x86::Mode;
use mimus_frontend::x86::lift::{Request, lift};
use mimus_ir::Op;

/// Traps in the translation of `mov eax, [rbx]; push rax` in 64-bit user mode.
fn traps(extra: Mode) -> usize {
    let mode = Mode::CODE32 | Mode::CODE64 | Mode::STACK32 | Mode::PROTECTED | Mode::LONG | Mode::CPL | extra;
    let bytes = [0x8b, 0x03, 0x50];
    let request = Request { bytes: &bytes, in_page: bytes.len(), rip: 0x1000, base: 0, mode, max_insns: 2 };
    let block = lift(&request).expect("two whole instructions");
    block.insts.iter().filter(|i| i.op == Op::TrapIf).count()
}

#[test]
fn alignment_is_checked_only_where_the_mode_asks() {
    assert_eq!(traps(Mode::empty()), 0);
    assert_eq!(traps(Mode::ALIGN), 2);
}
