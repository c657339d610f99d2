//! The `-d` items, each a `tracing` target of its name.

use iced_x86::{Decoder, DecoderOptions, Formatter, NasmFormatter};
use mimus_frontend::x86::{Cpu, Mode};
use mimus_ir::{Block, text};
use tracing::enabled;

use std::borrow::Cow;

/// Names of helpers and registers for dumps.
struct X86Names;

impl text::Names for X86Names {
    fn slot(&self, slot: mimus_ir::EnvSlot) -> Option<Cow<'_, str>> {
        const GPR: [&str; 16] = [
            "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
            "r15",
        ];
        use mimus_frontend::x86::state::slot as s;
        if slot.offset < 128 {
            return GPR.get(usize::from(slot.offset) / 8).filter(|_| slot.offset.is_multiple_of(8)).map(|&n| n.into());
        }
        let named = [
            (s::RIP, "rip"),
            (s::CC_OP, "cc_op"),
            (s::CC_DST, "cc_dst"),
            (s::CC_SRC, "cc_src"),
            (s::CC_AUX, "cc_aux"),
            (s::FLAGS, "flags"),
            (s::SHADOW, "shadow"),
        ];
        named.iter().find(|(known, _)| known.offset == slot.offset).map(|&(_, n)| n.into())
    }

    fn helper(&self, number: u16) -> Option<Cow<'_, str>> {
        mimus_frontend::x86::helpers::TABLE.get(usize::from(number)).map(|row| row.name.into())
    }
}

/// `in_asm` and `op`: a block just lifted.
pub fn lifted(block: &Block, bytes: &[u8], mode: Mode) {
    if enabled!(target: "in_asm", tracing::Level::INFO) {
        let len = (block.guest_bytes as usize).min(bytes.len());
        let decoder = Decoder::with_ip(mode.bitness(), &bytes[..len], block.pc, DecoderOptions::NONE);
        let mut formatter = NasmFormatter::new();
        let mut out = String::new();
        for insn in decoder {
            out.push_str(&format!("\n{:#018x}  ", insn.ip()));
            formatter.format(&insn, &mut out);
        }
        tracing::info!(target: "in_asm", "block {:#x}{out}", block.pc);
    }
    if enabled!(target: "op", tracing::Level::INFO) {
        tracing::info!(target: "op", "{}", text::print(block, Some(&X86Names)));
    }
}

/// `op_opt`: a block after the passes.
pub fn optimized(block: &Block) {
    if enabled!(target: "op_opt", tracing::Level::INFO) {
        tracing::info!(target: "op_opt", "{}", text::print(block, Some(&X86Names)));
    }
}

/// `exec`: a block about to be run.
pub fn exec(cpu: &Cpu, how: &str) {
    if enabled!(target: "exec", tracing::Level::INFO) {
        tracing::info!(target: "exec", "{:#x} {how} mode {:#x}", cpu.state.rip, cpu.mode.0);
    }
}

/// `int`: an exception about to be delivered.
pub fn exception(cpu: &Cpu) {
    if enabled!(target: "int", tracing::Level::INFO)
        && let Some(e) = cpu.pending
    {
        tracing::info!(
            target: "int",
            "exception {:#x} error {:x?} address {:#x} at {:#x} cpl {}",
            e.vector, e.error, e.address, cpu.state.rip, cpu.state.cpl()
        );
    }
}

/// `int`: an interrupt about to be delivered.
pub fn interrupt(cpu: &Cpu, vector: u8) {
    if enabled!(target: "int", tracing::Level::INFO) {
        tracing::info!(target: "int", "interrupt {vector:#x} at {:#x} cpl {}", cpu.state.rip, cpu.state.cpl());
    }
}
