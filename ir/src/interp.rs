//! The interpreter: tier 0, and the reference that compiled code is compared with.

use std::sync::atomic::{Ordering, fence};

use crate::block::{Block, CallInfo, Inst, MAX_INSTS, MemFlags, Value};
use crate::op::{Op, RmwKind, Type};
use crate::vec::VecInfo;

/// Why a guest access or helper did not go through. The guest keeps the details (which exception, which
/// address); the interpreter only has to know where to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// A fault is pending: leave at the start of the current instruction.
    Fault,
    /// The access was done and changed translated code: leave after the current instruction. The op's
    /// result, if it has one, is 0.
    CodeChanged,
}

/// What the interpreter needs of a guest.
pub trait Guest {
    /// The env, as bytes; ops address it by offset.
    fn env(&mut self) -> &mut [u8];
    /// What is added to the guest PCs in the block that runs ([`Op::Pc`]).
    fn pc_base(&self) -> u64;
    /// Reads `ty.bytes()` bytes at `addr`, zero-extended; `[low, high]` halves.
    fn load(&mut self, addr: u64, ty: Type, flags: MemFlags) -> Result<[u64; 2], Stop>;
    /// Writes the low `ty.bytes()` bytes of `value` at `addr`.
    fn store(&mut self, addr: u64, ty: Type, value: [u64; 2], flags: MemFlags) -> Result<(), Stop>;
    /// Atomic read-modify-write, which no later load overtakes; the old value, and whether code changed. `operand` has no bits beyond `ty`.
    fn rmw(&mut self, kind: RmwKind, addr: u64, ty: Type, operand: u64) -> Result<(u64, bool), Stop>;
    /// Atomic compare-and-swap; the old value, and whether code changed. `expected` and `new` have no bits
    /// beyond `ty`.
    fn cas(&mut self, addr: u64, ty: Type, expected: u64, new: u64) -> Result<(u64, bool), Stop>;
    /// Calls helper `helper`. [`Stop::Fault`] when it left a fault pending.
    fn call(&mut self, helper: u16, args: [u64; 3], arg: u32) -> Result<u64, Stop>;
    /// Does an operation of [`Op::Float`] or [`Op::FloatTest`] by the guest's floating-point environment ([`crate::fp`]).
    /// Integer operands are zero-extended, operands that the operation does not have 0.
    fn float(&mut self, info: VecInfo, operands: [u128; 3]) -> u128;
    /// Makes the trap with the guest-defined `code` pending.
    fn trap(&mut self, code: u64);
}

/// How a block was left. Guest PCs are as the guest has them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// By link slot `slot`, to guest PC `pc`.
    Jump {
        /// 0, or 1 for a branch not taken.
        slot: u8,
        /// Guest PC of the successor.
        pc: u64,
    },
    /// To the computed guest PC `pc`.
    Indirect {
        /// Guest PC of the successor.
        pc: u64,
    },
    /// To the dispatcher, by [`Op::Exit`] with this reason; the guest PC is in env.
    Main(u64),
    /// A fault is pending in the instruction at `pc`; nothing of that instruction was done.
    Fault {
        /// Guest PC of the faulting instruction.
        pc: u64,
    },
    /// Translated code changed; the next instruction is at `pc`.
    CodeChanged {
        /// Guest PC of the next instruction.
        pc: u64,
    },
    /// The block is malformed: a frontend's bug, never the guest's.
    Malformed,
}

/// Guest instructions run and how the block ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// How the block was left.
    pub exit: Exit,
    /// Guest instructions completed.
    pub insns: u32,
}

/// Value storage of the interpreter, reused from block to block.
pub struct Interp {
    values: Box<[[u64; 2]; MAX_INSTS]>,
}

impl Default for Interp {
    fn default() -> Self {
        Interp { values: Box::new([[0; 2]; MAX_INSTS]) }
    }
}

const BITS: [u32; 5] = [8, 16, 32, 64, 64];

#[inline(always)]
fn signed(value: u64, ty: Type) -> i64 {
    let shift = 64 - BITS[ty as usize];
    ((value << shift) as i64) >> shift
}

/// The result of a pure op with operands `a` and `b` (its constant, for the forms with one). Shared with
/// constant folding, so that a folded op cannot differ from an executed one. `None` for any other op.
#[inline(always)]
pub fn eval(op: Op, ty: Type, a: u64, b: u64) -> Option<u64> {
    let mask = ty.mask();
    let bits = BITS[ty as usize];
    let count = b as u32 & (bits - 1);
    let (ua, ub) = (a & mask, b & mask);
    let value = match op {
        Op::Add | Op::AddI => a.wrapping_add(b),
        Op::Sub | Op::SubI => a.wrapping_sub(b),
        Op::Mul | Op::MulI => a.wrapping_mul(b),
        Op::UMulHi => ((u128::from(ua) * u128::from(ub)) >> bits) as u64,
        Op::SMulHi => ((i128::from(signed(a, ty)) * i128::from(signed(b, ty))) >> bits) as u64,
        Op::UDiv => ua.checked_div(ub).unwrap_or(u64::MAX),
        Op::SDiv if ub == 0 => u64::MAX,
        Op::SDiv => signed(a, ty).wrapping_div(signed(b, ty)) as u64,
        Op::And | Op::AndI => a & b,
        Op::Or | Op::OrI => a | b,
        Op::Xor | Op::XorI => a ^ b,
        Op::Shl | Op::ShlI => a << count,
        Op::Shr | Op::ShrI => ua >> count,
        Op::Sar | Op::SarI => (signed(a, ty) >> count) as u64,
        Op::Rotl | Op::RotlI => rotate_left(ua, count, bits),
        Op::Rotr | Op::RotrI => rotate_left(ua, (bits - count) & (bits - 1), bits),
        Op::Eq | Op::EqI => return Some(u64::from(ua == ub)),
        Op::Ne | Op::NeI => return Some(u64::from(ua != ub)),
        Op::Ult | Op::UltI => return Some(u64::from(ua < ub)),
        Op::Ule | Op::UleI => return Some(u64::from(ua <= ub)),
        Op::Slt | Op::SltI => return Some(u64::from(signed(a, ty) < signed(b, ty))),
        Op::Sle | Op::SleI => return Some(u64::from(signed(a, ty) <= signed(b, ty))),
        Op::Neg => a.wrapping_neg(),
        Op::Not => !a,
        Op::Clz => u64::from(ua.leading_zeros() - (64 - bits)),
        Op::Ctz => u64::from(ua.trailing_zeros().min(bits)),
        Op::Popcnt => u64::from(ua.count_ones()),
        Op::Bswap => a.swap_bytes() >> (64 - bits),
        _ => return None,
    };
    Some(value & mask)
}

#[inline(always)]
fn rotate_left(value: u64, count: u32, bits: u32) -> u64 {
    if count == 0 { value } else { value << count | value >> (bits - count) }
}

/// The result of [`Op::Zext`] or [`Op::Sext`]: `a` as `from`, extended to `ty`.
#[inline(always)]
pub fn eval_extend(op: Op, ty: Type, from: u16, a: u64) -> u64 {
    let from = Type::ALL[usize::from(from).min(3)];
    let value = if op == Op::Sext { signed(a, from) as u64 } else { a & from.mask() };
    value & ty.mask()
}

/// The result of [`Op::Deposit`].
#[inline(always)]
pub fn eval_deposit(ty: Type, a: u64, b: u64, (pos, len): (u32, u32)) -> u64 {
    let field = (u64::MAX >> (64 - len.clamp(1, 64))) << (pos & 63);
    (a & !field | (b << (pos & 63)) & field) & ty.mask()
}

/// The result of [`Op::Extract`].
#[inline(always)]
pub fn eval_extract(ty: Type, a: u64, (pos, len): (u32, u32)) -> u64 {
    (a >> (pos & 63)) & (u64::MAX >> (64 - len.clamp(1, 64))) & ty.mask()
}

#[inline(always)]
fn read_env(env: &[u8], offset: usize, ty: Type) -> Option<[u64; 2]> {
    let bytes = env.get(offset..offset + ty.bytes() as usize)?;
    Some(match ty {
        Type::I64 => [u64::from_ne_bytes(bytes.try_into().ok()?), 0],
        Type::I32 => [u64::from(u32::from_ne_bytes(bytes.try_into().ok()?)), 0],
        Type::I16 => [u64::from(u16::from_ne_bytes(bytes.try_into().ok()?)), 0],
        Type::I8 => [u64::from(bytes[0]), 0],
        Type::V128 => {
            let v = u128::from_ne_bytes(bytes.try_into().ok()?);
            [v as u64, (v >> 64) as u64]
        }
    })
}

#[inline(always)]
fn write_env(env: &mut [u8], offset: usize, ty: Type, value: [u64; 2]) -> Option<()> {
    let bytes = env.get_mut(offset..offset + ty.bytes() as usize)?;
    match ty {
        Type::I64 => bytes.copy_from_slice(&value[0].to_ne_bytes()),
        Type::I32 => bytes.copy_from_slice(&(value[0] as u32).to_ne_bytes()),
        Type::I16 => bytes.copy_from_slice(&(value[0] as u16).to_ne_bytes()),
        Type::I8 => bytes[0] = value[0] as u8,
        Type::V128 => bytes.copy_from_slice(&(u128::from(value[0]) | u128::from(value[1]) << 64).to_ne_bytes()),
    }
    Some(())
}

impl Interp {
    #[inline(always)]
    fn full(&self, v: Value) -> [u64; 2] {
        self.values[usize::from(v) & (MAX_INSTS - 1)]
    }

    #[inline(always)]
    fn get(&self, v: Value) -> u64 {
        self.full(v)[0]
    }

    /// Runs `block` from its start until it leaves.
    #[inline]
    pub fn run<G: Guest>(&mut self, block: &Block, guest: &mut G) -> Outcome {
        let mut pc = block.pc;
        let mut insns = 0u32;
        let mut code_changed = false;
        if block.insts.len() > MAX_INSTS {
            return Outcome { exit: Exit::Malformed, insns };
        }
        // An instruction counts once it is complete: at the next marker or at the terminator.
        let mut open = 0;
        for (index, inst) in block.insts.iter().enumerate() {
            let result = match inst.op {
                Op::Insn => {
                    insns += open;
                    pc = inst.imm;
                    if code_changed {
                        return Outcome { exit: Exit::CodeChanged { pc: at(guest, pc) }, insns };
                    }
                    open = 1;
                    continue;
                }
                Op::Jump => {
                    let exit = Exit::Jump { slot: inst.c as u8, pc: at(guest, inst.imm) };
                    return Outcome { exit, insns: insns + open };
                }
                Op::Branch => {
                    let exit = if self.get(inst.a) & 0xff != 0 {
                        Exit::Jump { slot: 0, pc: at(guest, inst.imm) }
                    } else {
                        Exit::Jump { slot: 1, pc: at(guest, block.fallthrough) }
                    };
                    return Outcome { exit, insns: insns + open };
                }
                Op::JumpInd => {
                    return Outcome { exit: Exit::Indirect { pc: self.get(inst.a) }, insns: insns + open };
                }
                Op::Exit => return Outcome { exit: Exit::Main(inst.imm), insns: insns + open },
                Op::TrapIf => {
                    if self.get(inst.a) & 0xff != 0 {
                        guest.trap(inst.imm);
                        return Outcome { exit: Exit::Fault { pc: at(guest, pc) }, insns };
                    }
                    continue;
                }
                Op::StoreEnv => {
                    let value = self.full(inst.a);
                    if write_env(guest.env(), usize::from(inst.c), inst.ty, value).is_none() {
                        return Outcome { exit: Exit::Malformed, insns };
                    }
                    continue;
                }
                Op::StoreEnvI => {
                    if write_env(guest.env(), usize::from(inst.c), inst.ty, [inst.imm, 0]).is_none() {
                        return Outcome { exit: Exit::Malformed, insns };
                    }
                    continue;
                }
                Op::LoadEnv => match read_env(guest.env(), usize::from(inst.c), inst.ty) {
                    Some(value) => value,
                    None => return Outcome { exit: Exit::Malformed, insns },
                },
                Op::Fence => {
                    fence(Ordering::SeqCst);
                    continue;
                }
                Op::Load | Op::Store | Op::Rmw | Op::Cas | Op::Call => {
                    match self.effect(inst, guest, &mut code_changed) {
                        Ok(value) => value,
                        Err(Stop::CodeChanged) => {
                            code_changed = true;
                            [0, 0]
                        }
                        Err(Stop::Fault) => return Outcome { exit: Exit::Fault { pc: at(guest, pc) }, insns },
                    }
                }
                Op::Pc => [at(guest, inst.imm), 0],
                Op::Vec => match self.vector(inst) {
                    Some(value) => value,
                    None => return Outcome { exit: Exit::Malformed, insns },
                },
                Op::Float | Op::FloatTest => match self.vector_operands(inst) {
                    Some((info, operands)) => {
                        let value = guest.float(info, operands);
                        [value as u64, (value >> 64) as u64]
                    }
                    None => return Outcome { exit: Exit::Malformed, insns },
                },
                _ => match self.pure(inst) {
                    Some(value) => [value, 0],
                    None => return Outcome { exit: Exit::Malformed, insns },
                },
            };
            self.values[index & (MAX_INSTS - 1)] = result;
        }
        Outcome { exit: Exit::Malformed, insns }
    }

    #[inline(always)]
    fn pure(&self, inst: &Inst) -> Option<u64> {
        let a = self.get(inst.a);
        Some(match inst.op {
            Op::Const => inst.imm,
            Op::Zext | Op::Sext => eval_extend(inst.op, inst.ty, inst.c, a),
            Op::Select => self.get(if a & 0xff != 0 { inst.b } else { inst.c }) & inst.ty.mask(),
            Op::Deposit => eval_deposit(inst.ty, a, self.get(inst.b), inst.bit_field()),
            Op::Extract => eval_extract(inst.ty, a, inst.bit_field()),
            Op::Lea => a.wrapping_add(self.get(inst.b) << (inst.c & 63)).wrapping_add(inst.imm) & inst.ty.mask(),
            Op::AddI
            | Op::SubI
            | Op::MulI
            | Op::AndI
            | Op::OrI
            | Op::XorI
            | Op::ShlI
            | Op::ShrI
            | Op::SarI
            | Op::RotlI
            | Op::RotrI
            | Op::EqI
            | Op::NeI
            | Op::UltI
            | Op::UleI
            | Op::SltI
            | Op::SleI => return eval(inst.op, inst.ty, a, inst.imm),
            op => return eval(op, inst.ty, a, self.get(inst.b)),
        })
    }

    /// Operands of a vector operation; integers cut to the type that its row takes them in.
    #[inline(always)]
    fn vector_operands(&self, inst: &Inst) -> Option<(VecInfo, [u128; 3])> {
        let info = inst.vec_info()?;
        let row = info.kind.row();
        let wide = |v: Value| {
            let [low, high] = self.full(v);
            u128::from(low) | u128::from(high) << 64
        };
        let operand = |v: Value, kind: Option<bool>| match kind {
            None => 0,
            Some(true) => wide(v),
            Some(false) => (self.get(v) & row.int.mask()).into(),
        };
        let [a, b, c] = row.shape.operands();
        Some((info, [operand(inst.a, a), operand(inst.b, b), operand(inst.c, c)]))
    }

    #[inline(always)]
    fn vector(&self, inst: &Inst) -> Option<[u64; 2]> {
        let (info, [a, b, c]) = self.vector_operands(inst)?;
        let value = info.kind.row().eval?(a, b, c, info.imm);
        Some([value as u64, (value >> 64) as u64])
    }

    #[inline(always)]
    fn effect<G: Guest>(&self, inst: &Inst, guest: &mut G, code_changed: &mut bool) -> Result<[u64; 2], Stop> {
        let a = self.get(inst.a);
        let (old, changed) = match inst.op {
            Op::Load => return guest.load(a.wrapping_add(inst.mem_disp() as u64), inst.ty, inst.mem_flags()),
            Op::Store => {
                let addr = a.wrapping_add(inst.mem_disp() as u64);
                guest.store(addr, inst.ty, self.full(inst.b), inst.mem_flags())?;
                return Ok([0, 0]);
            }
            Op::Rmw => {
                let kind = RmwKind::from_code(inst.c).unwrap_or(RmwKind::Xchg);
                guest.rmw(kind, a, inst.ty, self.get(inst.b) & inst.ty.mask())?
            }
            Op::Cas => {
                let mask = inst.ty.mask();
                guest.cas(a, inst.ty, self.get(inst.b) & mask, self.get(inst.c) & mask)?
            }
            _ => {
                let info = CallInfo::decode(inst.imm);
                let arg = |v: Value| if v == crate::block::NONE { 0 } else { self.get(v) };
                let value = guest.call(info.helper, [a_or_zero(inst.a, a), arg(inst.b), arg(inst.c)], info.arg)?;
                (value & inst.ty.mask(), false)
            }
        };
        *code_changed |= changed;
        Ok([old, 0])
    }
}

/// A guest PC of a block as the guest has it.
#[inline(always)]
fn at<G: Guest>(guest: &G, pc: u64) -> u64 {
    guest.pc_base().wrapping_add(pc)
}

#[inline(always)]
fn a_or_zero(v: Value, a: u64) -> u64 {
    if v == crate::block::NONE { 0 } else { a }
}
