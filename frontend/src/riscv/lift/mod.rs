//! From guest bytes to micro-ops. Within an instruction, everything that can fault comes before the first write to env, so that a
//! fault leaves at a precise state.

mod float;
mod int;
mod memory;
mod system;

use mimus_ir::block::{Block, Builder, NONE, Value};
use mimus_ir::op::{JumpKind, Op, Type};

use super::disasm::{self, length};
use super::helpers::Helper;
use super::isa::{Code, Insn};
use super::mode::Mode;
use super::state::{slot, x_slot};
use super::trap::{Trap, TrapCode, cause};
use crate::common::guest::{self, Truncated};

/// Most guest instructions in a block.
pub const MAX_GUEST_INSNS: u32 = 64;

/// A block also ends when it has this many ops, so that the largest instruction still fits.
const MAX_OPS: usize = mimus_ir::MAX_INSTS - 64;

/// Longest instruction in bytes.
pub const MAX_INSN_LEN: usize = 4;

/// Whether an instruction was one of those that a function lifts.
type Lifted = bool;

/// What an instruction is lifted with.
struct Lift {
    b: Builder,
    mode: Mode,
    /// Address of the current instruction, as the block has it: less `base`.
    pc: u64,
    /// That of the next one.
    next: u64,
    /// What addresses of code are relative to.
    base: u64,
    /// The current instruction's word, as an illegal-instruction exception has it.
    word: u32,
    /// Floating-point registers that are known to hold boxed single-precision numbers, by bit.
    boxed: u32,
    /// Whether the block is complete.
    ended: bool,
}

/// Translates the block at `pc`, with guest PCs relative to `base`. The result ends within the bytes given, and has at least one
/// instruction: one that is not defined raises its exception.
///
/// # Errors
///
/// [`Truncated`] when more bytes are needed for the first instruction.
pub fn lift(code: &guest::Code<'_>, pc: u64, base: u64, mode: Mode) -> Result<Block, Truncated> {
    let pc = pc.wrapping_sub(base);
    let mut lift = Lift { b: Builder::new(pc), mode, pc, next: pc, base, word: 0, boxed: 0, ended: false };
    let (mut at, mut count) = (0, 0);
    while !lift.ended {
        let first = count == 0;
        if !first && (at >= code.in_page || count >= code.max_insns || lift.b.len() > MAX_OPS) {
            break;
        }
        let rest = code.bytes.get(at..).unwrap_or_default();
        let len = match rest {
            [low, high, ..] => length(u16::from_le_bytes([*low, *high])),
            _ => 2,
        };
        if len > rest.len() || !first && at + len > code.in_page {
            if first {
                return Err(Truncated);
            }
            break;
        }
        lift.pc = lift.next;
        lift.next = lift.pc.wrapping_add(len as u64);
        lift.word = rest[..len].iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte));
        lift.b.insn(lift.pc, len as u32);
        match disasm::decode(rest) {
            Some((insn, _)) => lift.instruction(&insn),
            None => lift.undefined(),
        }
        if !lift.ended {
            lift.retire();
        }
        at += len;
        count += 1;
    }
    let next = lift.next;
    if !lift.ended {
        lift.b.jump(next);
    }
    Ok(lift.b.finish(next))
}

impl Lift {
    fn instruction(&mut self, insn: &Insn) {
        let lifted = self.int(insn) || self.memory(insn) || self.control(insn) || self.float(insn) || self.system(insn);
        debug_assert!(lifted, "{}", insn.row().name);
        if !lifted {
            self.illegal();
        }
    }

    fn undefined(&mut self) {
        // All zeros and all ones are defined to be illegal: programs stop with them.
        if !matches!(self.word, 0 | u32::MAX) {
            let pc = self.base.wrapping_add(self.pc);
            tracing::warn!(target: "unimp", "no instruction {:#x} at {pc:#x}: illegal", self.word);
        }
        self.illegal();
    }

    /// Integer register `number`.
    fn x(&mut self, number: u8) -> Value {
        if number & 31 == 0 { self.iconst(0) } else { self.b.load_env(x_slot(number)) }
    }

    /// Writes integer register `number`.
    fn set_x(&mut self, number: u8, value: Value) {
        if number & 31 != 0 {
            self.b.store_env(x_slot(number), value);
        }
    }

    fn iconst(&mut self, value: u64) -> Value {
        self.b.iconst(Type::I64, value)
    }

    /// `value`'s low bits of `from`, sign-extended.
    fn sext(&mut self, from: Type, value: Value) -> Value {
        if from == Type::I64 { value } else { self.b.extend(Op::Sext, Type::I64, from, value) }
    }

    /// Counts the current instruction, if anybody wants to know: after all that may keep it from being executed, before it goes
    /// elsewhere.
    fn retire(&mut self) {
        if self.mode.counts() {
            let count = self.b.load_env(slot::INSTRET);
            let count = self.b.binary_imm(Op::Add, Type::I64, count, 1);
            self.b.store_env(slot::INSTRET, count);
        }
    }

    /// Raises an exception in the current instruction and ends the block.
    fn raise(&mut self, trap: Trap) {
        let always = self.b.iconst(Type::I8, 1);
        self.b.trap_if(always, TrapCode::Known(trap).encode());
        self.b.exit(0);
        self.ended = true;
    }

    /// Raises an illegal-instruction exception.
    fn illegal(&mut self) {
        self.raise(Trap { cause: cause::ILLEGAL, tval: self.word.into() });
    }

    /// Ends the block and goes on at `target` in the context that a helper has selected.
    fn end_at(&mut self, target: Value) {
        self.b.jump_ind(JumpKind::Plain, target);
        self.ended = true;
    }

    /// Ends the block after the current instruction, which may have changed the mode or how addresses are translated.
    fn end_to_context(&mut self) {
        let next = self.b.pc(self.next);
        self.end_at(next);
    }

    /// Ends the block and goes on where a helper has put the program counter.
    fn end_to_pc(&mut self) {
        let pc = self.b.load_env(slot::PC);
        self.end_at(pc);
    }

    /// Calls a helper for its effect or value.
    fn call(&mut self, helper: Helper, args: &[Value], arg: u32) -> Value {
        let get = |i: usize| args.get(i).copied().unwrap_or(NONE);
        self.b.call(Type::I64, helper.info(arg), [get(0), get(1), get(2)])
    }

    /// Jumps and branches.
    fn control(&mut self, insn: &Insn) -> Lifted {
        let target = self.pc.wrapping_add(insn.imm as u64);
        let compare = match insn.code {
            Code::Beq => (Op::Eq, false),
            Code::Bne => (Op::Ne, false),
            Code::Blt => (Op::Slt, false),
            Code::Bge => (Op::Sle, true),
            Code::Bltu => (Op::Ult, false),
            Code::Bgeu => (Op::Ule, true),
            Code::Jal => {
                self.link(insn.rd);
                self.retire();
                self.b.jump_as(if is_link(insn.rd) { JumpKind::Call } else { JumpKind::Plain }, target);
                self.ended = true;
                return true;
            }
            Code::Jalr => {
                self.jalr(insn);
                return true;
            }
            _ => return false,
        };
        let (op, swapped) = compare;
        let (a, b) = (self.x(insn.rs1), self.x(insn.rs2));
        let condition = if swapped { self.b.binary(op, Type::I64, b, a) } else { self.b.binary(op, Type::I64, a, b) };
        self.retire();
        self.b.branch(condition, target);
        self.ended = true;
        true
    }

    fn link(&mut self, rd: u8) {
        if rd & 31 != 0 {
            let next = self.b.pc(self.next);
            self.b.store_env(x_slot(rd), next);
        }
    }

    /// Which jumps are calls and returns is told by their registers (vol. I, "Unconditional Jumps", return-address stack hints).
    fn jalr(&mut self, insn: &Insn) {
        let base = self.x(insn.rs1);
        let sum = if insn.imm == 0 { base } else { self.b.binary_imm(Op::Add, Type::I64, base, insn.imm as u64) };
        let target = self.b.binary_imm(Op::And, Type::I64, sum, !1);
        self.link(insn.rd);
        let kind = match (is_link(insn.rd), is_link(insn.rs1)) {
            (true, _) => JumpKind::Call,
            (false, true) => JumpKind::Return,
            _ => JumpKind::Plain,
        };
        self.retire();
        self.b.jump_ind(kind, target);
        self.ended = true;
    }
}

/// Whether a register holds return addresses by convention: `ra` and `t0`.
const fn is_link(register: u8) -> bool {
    matches!(register, 1 | 5)
}
