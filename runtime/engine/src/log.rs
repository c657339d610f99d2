//! The `-d` items, each a `tracing` target of its name.

use mimus_frontend::guest::GuestCpu;
use mimus_ir::{Block, text};
use tracing::enabled;

/// `in_asm` and `op`: a block just lifted.
pub fn lifted<C: GuestCpu>(cpu: &C, block: &Block, bytes: &[u8]) {
    if enabled!(target: "in_asm", tracing::Level::INFO) {
        let len = (block.guest_bytes as usize).min(bytes.len());
        let pc = cpu.pc_base().wrapping_add(block.pc);
        let listing = cpu.disassemble(&bytes[..len], pc);
        tracing::info!(target: "in_asm", "block {pc:#x}{listing}");
    }
    if enabled!(target: "op", tracing::Level::INFO) {
        tracing::info!(target: "op", "{}", text::print(block, Some(C::names())));
    }
}

/// `op_opt`: a block after the passes.
pub fn optimized<C: GuestCpu>(block: &Block) {
    if enabled!(target: "op_opt", tracing::Level::INFO) {
        tracing::info!(target: "op_opt", "{}", text::print(block, Some(C::names())));
    }
}

/// `exec`: a block about to be run.
pub fn exec<C: GuestCpu>(cpu: &C, how: &str) {
    if enabled!(target: "exec", tracing::Level::INFO) {
        tracing::info!(target: "exec", "{:#x} {how} words {:x?}", cpu.pc(), cpu.tb_words());
    }
}

/// `int`: an exception about to be delivered.
pub fn exception<C: GuestCpu>(cpu: &C) {
    if enabled!(target: "int", tracing::Level::INFO)
        && let Some(text) = cpu.pending_text()
    {
        tracing::info!(target: "int", "exception {text}");
    }
}

/// `int`: an interrupt taken at `pc` with privilege `level`.
pub fn interrupt(number: u32, pc: u64, level: u64) {
    tracing::info!(target: "int", "interrupt {number:#x} at {pc:#x} in mode {level}");
}
