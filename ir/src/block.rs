//! Blocks and how they are built.

use bitflags::bitflags;

use crate::op::{Effects, JumpKind, Op, RmwKind, Shape, Type};
use crate::vec::{VecInfo, VecKind};

/// An SSA value: the index of the instruction that defines it.
pub type Value = u16;

/// The absent operand.
pub const NONE: Value = u16::MAX;

/// Most instructions a block may have; a frontend ends a block well before.
pub const MAX_INSTS: usize = 1024;

/// A place in a guest's env: what the backend knows of a guest register.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct EnvSlot {
    /// Offset from the env pointer in bytes, a multiple of the type's width.
    pub offset: u16,
    /// Type of the value held.
    pub ty: Type,
}

bitflags! {
    /// What a guest memory access asks for; with no flag it is at any alignment and in total store order.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
    pub struct MemFlags: u8 {
        /// The load is the first half of a read-modify-write: write permission is checked too.
        const FOR_WRITE = 1;
        /// The guest's memory model is weaker than total store order and this access needs no order.
        const RELAXED = 2;
    }
}

/// What [`Op::Call`] carries in its `imm`: helper number, effects and a 32-bit constant argument.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallInfo {
    /// Number in the guest's helper table.
    pub helper: u16,
    /// Env and fault effects.
    pub effects: Effects,
    /// Constant, passed after the three operands.
    pub arg: u32,
}

impl CallInfo {
    /// As held in an instruction.
    pub const fn encode(self) -> u64 {
        self.helper as u64 | (self.effects.bits() as u64) << 16 | (self.arg as u64) << 32
    }

    /// From an instruction.
    pub const fn decode(imm: u64) -> CallInfo {
        CallInfo { helper: imm as u16, effects: Effects::from_bits_retain((imm >> 16) as u16), arg: (imm >> 32) as u32 }
    }
}

/// One op with its operands: 16 bytes, so that four fit a cache line of the interpreter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Inst {
    /// The op.
    pub op: Op,
    /// Type computed in: of the result, or of the operands for a comparison, or of the value stored.
    pub ty: Type,
    /// First operand.
    pub a: Value,
    /// Second operand.
    pub b: Value,
    /// Third operand, or a small constant, by the op's [`Shape`].
    pub c: u16,
    /// Constant, by the op's [`Shape`].
    pub imm: u64,
}

const _: () = assert!(size_of::<Inst>() == 16);

impl Inst {
    /// The instruction as bytes, least significant first.
    pub fn to_bytes(&self) -> [u8; 16] {
        let [a, b, c] = [self.a, self.b, self.c].map(u16::to_le_bytes);
        let i = self.imm.to_le_bytes();
        let (op, ty) = (self.op as u8, self.ty as u8);
        [op, ty, a[0], a[1], b[0], b[1], c[0], c[1], i[0], i[1], i[2], i[3], i[4], i[5], i[6], i[7]]
    }

    /// The instruction of [`Inst::to_bytes`]; `None` if there is no such op or type.
    pub fn from_bytes(bytes: &[u8; 16]) -> Option<Inst> {
        let [op, ty, a0, a1, b0, b1, c0, c1, imm @ ..] = *bytes;
        let [a, b, c] = [[a0, a1], [b0, b1], [c0, c1]].map(u16::from_le_bytes);
        let (op, ty) = (*Op::ALL.get(usize::from(op))?, *Type::ALL.get(usize::from(ty))?);
        Some(Inst { op, ty, a, b, c, imm: u64::from_le_bytes(imm) })
    }

    /// Type of the value it defines, if it defines one.
    pub fn result_type(&self) -> Option<Type> {
        let info = self.op.info();
        match info.shape {
            _ if !info.has_result => None,
            Shape::Compare | Shape::CompareImm => Some(Type::I8),
            _ => Some(self.ty),
        }
    }

    /// Effects, those of the helper called included.
    pub fn effects(&self) -> Effects {
        let own = self.op.info().effects;
        if self.op == Op::Call { own.union(CallInfo::decode(self.imm).effects) } else { own }
    }

    /// Whether translated code may be another after it, so that the block may be left at the next
    /// [`Op::Insn`] ([`crate::Stop::CodeChanged`]). A call that can do so has one of the effects
    /// [`Effects::FAULT`] and [`Effects::MEMORY`].
    #[inline]
    pub fn may_change_code(&self) -> bool {
        match self.op {
            Op::Store | Op::Rmw | Op::Cas => true,
            Op::Call => CallInfo::decode(self.imm).effects.intersects(Effects::FAULT.union(Effects::MEMORY)),
            _ => false,
        }
    }

    /// Calls `f` with each operand that is a value.
    #[inline]
    pub fn for_each_operand(&mut self, mut f: impl FnMut(&mut Value)) {
        let count = self.op.info().operands;
        if count > 0 && self.a != NONE {
            f(&mut self.a);
        }
        if count > 1 && self.b != NONE {
            f(&mut self.b);
        }
        if count > 2 && self.c != NONE {
            f(&mut self.c);
        }
    }

    /// Displacement of a [`Shape::Load`] or [`Shape::Store`], added to the address modulo 2^64.
    pub const fn mem_disp(&self) -> i32 {
        self.imm as i32
    }

    /// Flags of a [`Shape::Load`] or [`Shape::Store`].
    pub const fn mem_flags(&self) -> MemFlags {
        MemFlags::from_bits_retain((self.imm >> 32) as u8)
    }

    /// Kind of a [`Shape::Jump`] or [`Shape::JumpInd`].
    pub fn jump_kind(&self) -> JumpKind {
        JumpKind::from_code(self.b).unwrap_or_default()
    }

    /// Operation and immediate of a [`Shape::Vec`]; `None` if there is no such operation.
    #[inline]
    pub fn vec_info(&self) -> Option<VecInfo> {
        VecInfo::decode(self.imm)
    }

    /// Bit position and length of a [`Shape::Deposit`] or [`Shape::Extract`].
    pub const fn bit_field(&self) -> (u32, u32) {
        (self.imm as u8 as u32, (self.imm >> 8) as u8 as u32)
    }
}

/// A translation block: straight-line code with one terminator at its end.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Block {
    /// Guest PC of its first instruction. It and all others in the block are relative to a base, which may be 0, that whoever runs
    /// the block knows.
    pub pc: u64,
    /// Guest PC that follows its last instruction: where a [`Op::Branch`] not taken goes.
    pub fallthrough: u64,
    /// Number of guest instructions.
    pub guest_insns: u32,
    /// Guest bytes translated.
    pub guest_bytes: u32,
    /// The ops; the last is a terminator.
    pub insts: Vec<Inst>,
}

impl Block {
    /// The terminator, if the block is complete.
    pub fn terminator(&self) -> Option<&Inst> {
        self.insts.last().filter(|i| i.op.info().effects.contains(Effects::END))
    }
}

/// Appends ops to a block.
#[derive(Debug, Default)]
pub struct Builder {
    block: Block,
}

impl Builder {
    /// Starts a block at guest PC `pc`.
    pub fn new(pc: u64) -> Builder {
        Builder { block: Block { pc, insts: Vec::with_capacity(64), ..Block::default() } }
    }

    /// Number of ops so far.
    pub fn len(&self) -> usize {
        self.block.insts.len()
    }

    /// Whether there is no op yet.
    pub fn is_empty(&self) -> bool {
        self.block.insts.is_empty()
    }

    /// The op that defined `value`, if it did.
    pub fn inst(&self, value: Value) -> Option<&Inst> {
        self.block.insts.get(usize::from(value))
    }

    /// Drops every op from position `len` on, to undo a partly lifted instruction.
    pub fn truncate(&mut self, len: usize) {
        self.block.insts.truncate(len);
    }

    /// Appends any op.
    pub fn push(&mut self, inst: Inst) -> Value {
        let value = self.block.insts.len();
        self.block.insts.push(inst);
        value as Value
    }

    fn op(&mut self, op: Op, ty: Type, operands: [Value; 3], imm: u64) -> Value {
        self.push(Inst { op, ty, a: operands[0], b: operands[1], c: operands[2], imm })
    }

    /// A constant.
    pub fn iconst(&mut self, ty: Type, value: u64) -> Value {
        self.op(Op::Const, ty, [NONE; 3], value & ty.mask())
    }

    /// The guest PC `pc`, given as the block has it, as the guest has it.
    pub fn pc(&mut self, pc: u64) -> Value {
        self.op(Op::Pc, Type::I64, [NONE; 3], pc)
    }

    /// A [`Shape::Unary`] op.
    pub fn unary(&mut self, op: Op, ty: Type, a: Value) -> Value {
        self.op(op, ty, [a, NONE, NONE], 0)
    }

    /// A [`Shape::Extend`] op: `a` taken as `from`, extended to `ty`.
    pub fn extend(&mut self, op: Op, ty: Type, from: Type, a: Value) -> Value {
        self.op(op, ty, [a, NONE, from as u16], 0)
    }

    /// A [`Shape::Binary`] or [`Shape::Compare`] op.
    pub fn binary(&mut self, op: Op, ty: Type, a: Value, b: Value) -> Value {
        self.op(op, ty, [a, b, NONE], 0)
    }

    /// A [`Shape::BinaryImm`] or [`Shape::CompareImm`] op, given as itself or as the op that it is a form of.
    pub fn binary_imm(&mut self, op: Op, ty: Type, a: Value, imm: u64) -> Value {
        self.op(op.info().imm_form.unwrap_or(op), ty, [a, NONE, NONE], imm & ty.mask())
    }

    /// `cond != 0 ? then : otherwise`.
    pub fn select(&mut self, ty: Type, cond: Value, then: Value, otherwise: Value) -> Value {
        self.op(Op::Select, ty, [cond, then, otherwise], 0)
    }

    /// `into` with the `len` bits from bit `pos` on replaced by the low bits of `value`.
    pub fn deposit(&mut self, ty: Type, into: Value, value: Value, pos: u32, len: u32) -> Value {
        self.op(Op::Deposit, ty, [into, value, NONE], u64::from(pos | len << 8))
    }

    /// `len` bits of `value` from bit `pos` on.
    pub fn extract(&mut self, ty: Type, value: Value, pos: u32, len: u32) -> Value {
        self.op(Op::Extract, ty, [value, NONE, NONE], u64::from(pos | len << 8))
    }

    /// `a + (b << shift) + disp`.
    pub fn lea(&mut self, ty: Type, a: Value, b: Value, shift: u32, disp: u64) -> Value {
        self.op(Op::Lea, ty, [a, b, shift as u16], disp & ty.mask())
    }

    /// Reads an env slot.
    pub fn load_env(&mut self, slot: EnvSlot) -> Value {
        self.op(Op::LoadEnv, slot.ty, [NONE, NONE, slot.offset], 0)
    }

    /// Writes an env slot.
    pub fn store_env(&mut self, slot: EnvSlot, value: Value) {
        self.op(Op::StoreEnv, slot.ty, [value, NONE, slot.offset], 0);
    }

    /// Writes a constant to an env slot.
    pub fn store_env_imm(&mut self, slot: EnvSlot, value: u64) {
        self.op(Op::StoreEnvI, slot.ty, [NONE, NONE, slot.offset], value & slot.ty.mask());
    }

    /// Reads guest memory at `addr + disp`.
    pub fn load(&mut self, ty: Type, addr: Value, disp: i32, flags: MemFlags) -> Value {
        self.op(Op::Load, ty, [addr, NONE, NONE], u64::from(disp as u32) | u64::from(flags.bits()) << 32)
    }

    /// Writes guest memory at `addr + disp`.
    pub fn store(&mut self, ty: Type, addr: Value, disp: i32, value: Value, flags: MemFlags) {
        self.op(Op::Store, ty, [addr, value, NONE], u64::from(disp as u32) | u64::from(flags.bits()) << 32);
    }

    /// Atomic read-modify-write; the result is the old value.
    pub fn rmw(&mut self, kind: RmwKind, ty: Type, addr: Value, operand: Value) -> Value {
        self.op(Op::Rmw, ty, [addr, operand, kind as u16], 0)
    }

    /// Atomic compare-and-swap; the result is the old value.
    pub fn cas(&mut self, ty: Type, addr: Value, expected: Value, new: Value) -> Value {
        self.op(Op::Cas, ty, [addr, expected, new], 0)
    }

    /// Keeps loads behind it after stores before it.
    pub fn fence(&mut self) {
        self.op(Op::Fence, Type::I64, [NONE; 3], 0);
    }

    /// Calls a helper; absent arguments are [`NONE`] and arrive as 0.
    pub fn call(&mut self, ty: Type, info: CallInfo, args: [Value; 3]) -> Value {
        self.op(Op::Call, ty, args, info.encode())
    }

    /// An operation of the vector table; operands that it does not have are [`NONE`].
    pub fn vec(&mut self, kind: VecKind, imm: u8, operands: [Value; 3]) -> Value {
        let row = kind.row();
        self.op(row.op, row.ty, operands, VecInfo { kind, imm }.encode())
    }

    /// Traps with a guest-defined `code` if `cond` is not 0.
    pub fn trap_if(&mut self, cond: Value, code: u64) {
        self.op(Op::TrapIf, Type::I8, [cond, NONE, NONE], code);
    }

    /// Marks the start of a guest instruction.
    pub fn insn(&mut self, pc: u64, len: u32) {
        self.op(Op::Insn, Type::I64, [NONE, NONE, len as u16], pc);
        self.block.guest_insns += 1;
        self.block.guest_bytes += len;
    }

    /// Ends the block with a jump to a constant guest PC.
    pub fn jump(&mut self, target: u64) {
        self.jump_as(JumpKind::Plain, target);
    }

    /// Ends the block with a jump of a kind to a constant guest PC.
    pub fn jump_as(&mut self, kind: JumpKind, target: u64) {
        self.op(Op::Jump, Type::I64, [NONE, kind as u16, 0], target);
    }

    /// Ends the block with a conditional jump.
    pub fn branch(&mut self, cond: Value, taken: u64) {
        self.op(Op::Branch, Type::I8, [cond, NONE, NONE], taken);
    }

    /// Ends the block with a jump to a computed guest PC.
    pub fn jump_ind(&mut self, kind: JumpKind, target: Value) {
        self.op(Op::JumpInd, Type::I64, [target, kind as u16, NONE], 0);
    }

    /// Ends the block and returns to the dispatcher.
    pub fn exit(&mut self, reason: u64) {
        self.op(Op::Exit, Type::I64, [NONE; 3], reason);
    }

    /// The finished block; `fallthrough` is the guest PC after its last instruction.
    pub fn finish(mut self, fallthrough: u64) -> Block {
        self.block.fallthrough = fallthrough;
        self.block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_is_what_its_bytes_say() {
        for &op in Op::ALL {
            for ty in Type::ALL {
                let inst = Inst { op, ty, a: 0x1234, b: NONE, c: 0x8001, imm: 0x0123_4567_89ab_cdef };
                assert_eq!(Inst::from_bytes(&inst.to_bytes()), Some(inst));
            }
        }
        assert_eq!(Inst::from_bytes(&[255; 16]), None);
    }
}
