//! x87 stores to translated code.
#![forbid(unsafe_code)]

mod common;

use common::{flat32, ram};
use mimus_frontend::x86::Features;
use mimus_frontend::x86::lift::{Request, lift};
use mimus_ir::{Block, Exit, Interp};
use mimus_softmmu::Verdict;

/// Where the block begins, and what it stores to.
const CODE: u64 = 0x3000;
const TARGET: u64 = 0x5000;

/// `fld1; fstp store [TARGET]; nop`.
fn block(store: [u8; 2], mode: mimus_frontend::x86::Mode) -> Block {
    let bytes = [0xd9, 0xe8, store[0], store[1], 0, 0x50, 0, 0, 0x90];
    let request = Request { bytes: &bytes, in_page: bytes.len(), rip: CODE, base: 0, mode, max_insns: 3 };
    lift(&request).expect("whole instructions")
}

const FSTP_M64: [u8; 2] = [0xdd, 0x1d];
const FSTP_M80: [u8; 2] = [0xdb, 0x3d];

#[test]
fn the_block_is_left_after_the_store() {
    for (store, at) in [(FSTP_M64, TARGET + 7), (FSTP_M80, TARGET + 9)] {
        let ram = ram();
        let mut cpu = flat32(ram.clone(), Features::default());
        let block = block(store, cpu.mode);
        ram.set_code(TARGET, 1);
        let outcome = Interp::default().run(&block, &mut *cpu);
        assert_eq!((outcome.exit, outcome.insns), (Exit::CodeChanged { pc: CODE + 8 }, 2));
        assert_eq!(ram.read_u8(at), Some(0x3f));
        assert_eq!((cpu.state.fpu.top(), cpu.state.fpu.fip), (0, CODE + 2));
    }
}

#[test]
fn data_beside_it_does_no_harm() {
    let ram = ram();
    let mut cpu = flat32(ram.clone(), Features::default());
    let block = block(FSTP_M80, cpu.mode);
    ram.set_code(TARGET, 2);
    let outcome = Interp::default().run(&block, &mut *cpu);
    assert!(matches!(outcome.exit, Exit::Jump { .. }), "{outcome:?}");
}

#[test]
fn compiled_code_leaves_it_to_the_interpreter() {
    let ram = ram();
    let mut cpu = flat32(ram.clone(), Features::default());
    let block = block(FSTP_M64, cpu.mode);
    ram.set_code(TARGET, 1);
    cpu.in_compiled_code = true;
    let outcome = Interp::default().run(&block, &mut *cpu);
    assert_eq!((outcome.exit, outcome.insns), (Exit::Fault { pc: CODE + 2 }, 1));
    assert_eq!(cpu.header.verdict, Verdict::Interpret as u32);
    assert_eq!((ram.read_u8(TARGET + 7), cpu.state.fpu.top()), (Some(0), 7));
}
