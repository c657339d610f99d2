//! Which instructions keep loads after stores, as a device on another thread sees them.
#![forbid(unsafe_code)]

mod common;

use std::sync::Arc;

use common::{flat32, ram};
use mimus_frontend::guest::{Code, GuestCpu};
use mimus_frontend::riscv;
use mimus_frontend::x86::Features;
use mimus_ir::Op;
use mimus_ir::passes::{Scratch, optimize};

/// How many fences the block of `bytes`, which is one instruction and whatever follows it in a page, comes to.
fn fences<C: GuestCpu>(cpu: &C, bytes: &[u8]) -> usize {
    let code = Code { bytes, in_page: bytes.len(), max_insns: 1 };
    let Ok(mut block) = cpu.lift(&code) else { panic!("{bytes:x?} is cut off") };
    optimize(&mut block, &mut Scratch::default());
    block.insts.iter().filter(|inst| inst.op == Op::Fence).count()
}

/// SDM vol. 2, MFENCE; vol. 3, "Memory Ordering": loads pass neither loads nor LFENCE, stores neither stores nor SFENCE anyway.
/// What LOCK makes one step orders by itself.
#[test]
fn x86() {
    let cpu = flat32(ram(), Features::default());
    for (bytes, expected) in [
        (&[0x0f, 0xae, 0xf0][..], 1),
        (&[0x0f, 0xae, 0xe8], 0),
        (&[0x0f, 0xae, 0xf8], 0),
        (&[0xf3, 0x90], 0),
        (&[0xf0, 0x0f, 0xc7, 0x0b], 0),
        (&[0x0f, 0xc7, 0x0b], 0),
    ] {
        assert_eq!(fences(&*cpu, bytes), expected, "{bytes:x?}");
    }
}

/// vol. I, 2.7: what comes before, as PI, PO, PR, PW, and what comes after.
#[test]
fn riscv() {
    let devices = Arc::new(riscv::NoDevices);
    let cpu = riscv::Cpu::new(ram(), devices, Box::new(riscv::NoDevices), riscv::Features::default());
    for (word, expected) in [
        (0x0ff0_000f_u32, 1), // iorw, iorw
        (0x0330_000f, 1),     // rw, rw
        (0x0140_000f, 0),     // w, o
        (0x0120_000f, 1),     // w, r
        (0x0180_000f, 1),     // w, i
        (0x0420_000f, 1),     // o, r
        (0x0230_000f, 0),     // r, rw
        (0x0310_000f, 0),     // rw, w
        (0x0100_000f, 0),     // w, nothing: PAUSE
        (0x0000_100f, 0),     // FENCE.I
    ] {
        assert_eq!(fences(&*cpu, &word.to_le_bytes()), expected, "{word:#x}");
    }
}
