//! From guest bytes to micro-ops.
//!
//! [`lift`] decodes with iced-x86 until a block ends; [`table::handler`] has one row an instruction. Within an instruction,
//! everything that can fault comes before the first write to env, so that a fault leaves at a precise state.

mod alu;
mod bits;
mod cond;
mod control;
mod data;
mod division;
mod operand;
mod shift;
mod stack;
mod string;
mod system;
mod table;
mod vector;
mod x87;

use iced_x86::{Decoder, DecoderError, DecoderOptions, Instruction, Mnemonic};
use mimus_ir::block::{Block, Builder, NONE, Value};
use mimus_ir::op::{JumpKind, Op, Type};

use super::exception::Exception;
use super::helpers::Helper;
use super::mode::Mode;
use super::state::slot;
use cond::Flags;
pub use table::supported;

/// Most guest instructions in a block.
pub const MAX_GUEST_INSNS: u32 = 64;

/// A block also ends when it has this many ops, so that the largest instruction still fits.
const MAX_OPS: usize = mimus_ir::MAX_INSTS - 192;

/// Longest x86 instruction in bytes (SDM vol. 2A, 2.3.11).
pub const MAX_INSN_LEN: usize = 15;

/// Encodings that newer features have taken mean what they did before: CPUID tells of none of these features. The hint NOPs
/// (0F 0D, 0F 18 to 0F 1F) are NOPs, whatever prefixes and operands they have (CET, MPX, CLDEMOTE, PREFETCHI), TZCNT and LZCNT
/// are BSF and BSR, WBNOINVD is WBINVD.
const DECODER: u32 = DecoderOptions::FORCE_RESERVED_NOP
    | DecoderOptions::NO_MPFX_0FBC
    | DecoderOptions::NO_MPFX_0FBD
    | DecoderOptions::NO_WBNOINVD;

/// What to translate.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Code bytes from `rip` on; translation does not go past them.
    pub bytes: &'a [u8],
    /// How many of `bytes` are in the page of the first: only the first instruction may go beyond.
    pub in_page: usize,
    /// Guest PC of the first byte: RIP, without the base of CS.
    pub rip: u64,
    /// What the block's guest PCs are relative to; 0 but in 64-bit mode, where code depends on its address in no other way.
    pub base: u64,
    /// Mode bits.
    pub mode: Mode,
    /// Most instructions to translate.
    pub max_insns: u32,
}

pub use crate::common::guest::{Patched, Truncated};

impl Patched<'_> {
    /// Offset and length of an instruction's immediate operand, if it alone is what is written. The instruction starts at
    /// offset `start`, and `in_page` bytes have been translated or may be.
    fn immediate(&self, decoder: &Decoder<'_>, insn: &Instruction, start: usize, in_page: usize) -> Option<(u32, u32)> {
        if self.writes.is_empty() {
            return None;
        }
        let constants = decoder.get_constant_offsets(insn);
        let (from, len) = (start + constants.immediate_offset(), constants.immediate_size());
        let (first, last) = (self.gpa + from as u64, self.gpa + (from + len) as u64);
        let alone = |&(write, len): &(u64, u64)| first <= write && len != 0 && write + len <= last;
        let found = constants.has_immediate() && from + len <= in_page && self.writes.iter().any(alone);
        found.then_some((from as u32, len as u32))
    }
}

/// Why an instruction could not be lifted.
enum Refusal {
    /// It has no semantics here.
    Undefined,
}

type Lifted = Result<(), Refusal>;

/// What an instruction's handler works with.
struct Lift {
    b: Builder,
    mode: Mode,
    flags: Flags,
    /// Guest PC after the current instruction, as the block has it: as it would be in RIP, less `base`.
    next: u64,
    /// What guest PCs are relative to.
    base: u64,
    /// The current instruction's opcode if it is one of the x87's, as FOP would have it (SDM vol. 1, 8.1.9).
    x87_opcode: u16,
    /// Whether the block is complete.
    ended: bool,
    /// Guest-physical address of the block's first byte.
    gpa: u64,
    /// Offset and length of the current instruction's immediate operand, if it is to be read as the block runs.
    immediate: Option<(u32, u32)>,
    /// Of those that are.
    read: Vec<(u32, u32)>,
}

/// Translates a block. The result ends within `request.bytes`, and has at least one instruction: one that cannot be decoded
/// raises its exception.
///
/// # Errors
///
/// [`Truncated`] when more bytes are needed for the first instruction.
pub fn lift(request: &Request<'_>) -> Result<Block, Truncated> {
    lift_patched(request, &Patched { gpa: 0, writes: &[] }, &mut Vec::new())
}

/// [`lift`], but immediate operands that are written again and again are read from RAM when they are executed: to `read` go
/// their offsets and lengths in bytes. The block stays valid when these bytes change.
///
/// # Errors
///
/// As for [`lift`].
pub fn lift_patched(
    request: &Request<'_>,
    patched: &Patched<'_>,
    read: &mut Vec<(u32, u32)>,
) -> Result<Block, Truncated> {
    let (mode, base) = (request.mode, request.base);
    let rip = request.rip.wrapping_sub(base);
    let mut lift = Lift {
        b: Builder::new(rip),
        mode,
        flags: Flags::DYNAMIC,
        next: rip,
        base,
        x87_opcode: 0,
        ended: false,
        gpa: patched.gpa,
        immediate: None,
        read: Vec::new(),
    };
    let mut decoder = Decoder::with_ip(mode.bitness(), request.bytes, rip, DECODER);
    let mut insn = Instruction::default();
    let mut count = 0;
    loop {
        let start = decoder.position();
        let pc = lift.next;
        if count > 0 && (start >= request.in_page || count >= request.max_insns || lift.b.len() > MAX_OPS) {
            break;
        }
        decoder.decode_out(&mut insn);
        let end = decoder.position();
        if count > 0 && (end > request.in_page || decoder.last_error() == DecoderError::NoMoreBytes) {
            break;
        }
        if decoder.last_error() == DecoderError::NoMoreBytes && request.bytes.len() < MAX_INSN_LEN {
            return Err(Truncated);
        }
        lift.next = lift.mask_ip(insn.next_ip());
        lift.b.insn(pc, (end - start) as u32);
        lift.immediate = patched.immediate(&decoder, &insn, start, request.in_page);
        lift.x87_opcode = x87::opcode(request.bytes.get(start..end).unwrap_or_default());
        if insn.is_invalid() {
            let long = end - start >= MAX_INSN_LEN || decoder.last_error() == DecoderError::NoMoreBytes;
            lift.raise(if long { Exception::gp(0) } else { Exception::ud() });
        } else {
            lift.instruction(&insn);
        }
        count += 1;
        if lift.ended {
            break;
        }
    }
    let next = lift.next;
    if !lift.ended {
        lift.b.jump(next);
    }
    *read = lift.read;
    Ok(lift.b.finish(next))
}

impl Lift {
    fn instruction(&mut self, insn: &Instruction) {
        let (undo, undo_read) = (self.b.len(), self.read.len());
        let result = match table::handler(insn.code()) {
            Some(handler) => handler(self, insn),
            None => Err(Refusal::Undefined),
        };
        if result.is_err() {
            self.b.truncate(undo);
            self.read.truncate(undo_read);
            if insn.mnemonic() != Mnemonic::Ud2 {
                let pc = self.base.wrapping_add(insn.ip());
                tracing::warn!(target: "unimp", "no semantics for {:?} at {pc:#x}: #UD", insn.code());
            }
            self.raise(Exception::ud());
        }
    }

    /// RIP as wide as the code segment has it.
    fn mask_ip(&self, ip: u64) -> u64 {
        match self.mode.bitness() {
            64 => ip,
            32 => ip & 0xffff_ffff,
            _ => ip & 0xffff,
        }
    }

    /// Raises `exception` in the current instruction and ends the block.
    fn raise(&mut self, exception: Exception) {
        let always = self.b.iconst(Type::I8, 1);
        self.b.trap_if(always, exception.trap_code());
        self.b.exit(0);
        self.ended = true;
    }

    /// Ends the block after the current instruction: modes may have changed, or an interrupt may be taken.
    fn end_to_dispatcher(&mut self) {
        let next = self.next_rip();
        self.b.store_env(slot::RIP, next);
        self.exit();
    }

    /// Ends the block after the current instruction, which may have changed the mode or how addresses are translated: the next
    /// block is looked for in the context that a helper has selected.
    fn end_to_context(&mut self) {
        let next = self.next_rip();
        self.b.jump_ind(JumpKind::Plain, next);
        self.ended = true;
    }

    /// Ends the block and goes on where a helper has put RIP, in the context that it has selected.
    fn end_to_rip(&mut self) {
        let rip = self.b.load_env(slot::RIP);
        self.b.jump_ind(JumpKind::Plain, rip);
        self.ended = true;
    }

    /// Ends the block; `rip` is in env already.
    fn exit(&mut self) {
        self.b.exit(0);
        self.ended = true;
    }

    /// Calls a helper for its effect or value. What it may have done to the flags is unknown afterwards when it writes env.
    fn call(&mut self, helper: Helper, ty: Type, args: &[Value], arg: u32) -> Value {
        let get = |i: usize| args.get(i).copied().unwrap_or(NONE);
        let info = helper.info(arg);
        if info.effects.contains(mimus_ir::Effects::WRITE_ENV) {
            self.flags = Flags::DYNAMIC;
        }
        self.b.call(ty, info, [get(0), get(1), get(2)])
    }

    fn iconst(&mut self, value: u64) -> Value {
        self.b.iconst(Type::I64, value)
    }

    /// A guest PC of the block as it would be in RIP.
    fn rip(&mut self, pc: u64) -> Value {
        if self.mode.intersects(Mode::CODE64) { self.b.pc(pc) } else { self.iconst(pc) }
    }

    /// RIP after the current instruction.
    fn next_rip(&mut self) -> Value {
        self.rip(self.next)
    }

    /// `value` zero-extended from `ty` to 64 bits, whatever bits its slot has above.
    fn zext64(&mut self, ty: Type, value: Value) -> Value {
        let narrow = self.b.inst(value).and_then(|i| i.result_type()).is_some_and(|t| t.bits() <= ty.bits());
        if narrow || ty == Type::I64 { value } else { self.b.extend(Op::Zext, Type::I64, ty, value) }
    }

    /// #GP(0) unless the privilege level is 0; whether it was raised.
    fn privileged(&mut self) -> bool {
        let denied = self.mode.cpl() != 0;
        if denied {
            self.raise(Exception::gp(0));
        }
        denied
    }
}
