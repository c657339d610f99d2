//! Loads, stores and the A extension.

use mimus_ir::MemFlags;
use mimus_ir::block::Value;
use mimus_ir::op::{Op, RmwKind, Type};

use super::{Lift, Lifted};
use crate::riscv::isa::{Code, Insn};
use crate::riscv::state::slot::RESERVATION;
use crate::riscv::trap::{TrapCode, cause};

/// Bit of an atomic instruction that has it follow all accesses before it: rl (vol. I, "A" extension).
const RELEASE: u32 = 1 << 25;

/// Width of a load and whether it is sign-extended; `None` if it is no load of an integer.
fn load(code: Code) -> Option<(Type, bool)> {
    Some(match code {
        Code::Lb => (Type::I8, true),
        Code::Lh => (Type::I16, true),
        Code::Lw => (Type::I32, true),
        Code::Ld => (Type::I64, false),
        Code::Lbu => (Type::I8, false),
        Code::Lhu => (Type::I16, false),
        Code::Lwu => (Type::I32, false),
        _ => return None,
    })
}

/// Width of a store.
fn store(code: Code) -> Option<Type> {
    Some(match code {
        Code::Sb => Type::I8,
        Code::Sh => Type::I16,
        Code::Sw => Type::I32,
        Code::Sd => Type::I64,
        _ => return None,
    })
}

/// What an AMO does: an op of its own, or a choice by comparison (the op, and whether the greater one is wanted).
enum Amo {
    Op(RmwKind),
    Choose(Op, bool),
}

fn amo(code: Code) -> Option<(Amo, Type)> {
    use Code::*;
    use Type::{I32, I64};
    Some(match code {
        AmoswapW => (Amo::Op(RmwKind::Xchg), I32),
        AmoswapD => (Amo::Op(RmwKind::Xchg), I64),
        AmoaddW => (Amo::Op(RmwKind::Add), I32),
        AmoaddD => (Amo::Op(RmwKind::Add), I64),
        AmoxorW => (Amo::Op(RmwKind::Xor), I32),
        AmoxorD => (Amo::Op(RmwKind::Xor), I64),
        AmoandW => (Amo::Op(RmwKind::And), I32),
        AmoandD => (Amo::Op(RmwKind::And), I64),
        AmoorW => (Amo::Op(RmwKind::Or), I32),
        AmoorD => (Amo::Op(RmwKind::Or), I64),
        AmominW => (Amo::Choose(Op::Slt, false), I32),
        AmominD => (Amo::Choose(Op::Slt, false), I64),
        AmomaxW => (Amo::Choose(Op::Slt, true), I32),
        AmomaxD => (Amo::Choose(Op::Slt, true), I64),
        AmominuW => (Amo::Choose(Op::Ult, false), I32),
        AmominuD => (Amo::Choose(Op::Ult, false), I64),
        AmomaxuW => (Amo::Choose(Op::Ult, true), I32),
        AmomaxuD => (Amo::Choose(Op::Ult, true), I64),
        _ => return None,
    })
}

impl Lift {
    pub(super) fn memory(&mut self, insn: &Insn) -> Lifted {
        if let Some((ty, signed)) = load(insn.code) {
            let base = self.x(insn.rs1);
            let value = self.b.load(ty, base, insn.imm as i32, MemFlags::empty());
            let value = if signed { self.sext(ty, value) } else { value };
            self.set_x(insn.rd, value);
        } else if let Some(ty) = store(insn.code) {
            let (base, value) = (self.x(insn.rs1), self.x(insn.rs2));
            self.b.store(ty, base, insn.imm as i32, value, MemFlags::empty());
        } else if let Some((amo, ty)) = amo(insn.code) {
            self.amo(insn, amo, ty);
        } else {
            match insn.code {
                Code::LrW => self.load_reserved(insn, Type::I32),
                Code::LrD => self.load_reserved(insn, Type::I64),
                Code::ScW => self.store_conditional(insn, Type::I32),
                Code::ScD => self.store_conditional(insn, Type::I64),
                _ => return false,
            }
        }
        true
    }

    /// The address of an atomic instruction, which must be a multiple of the operand's size.
    fn aligned(&mut self, insn: &Insn, ty: Type, cause: u64) -> Value {
        let addr = self.x(insn.rs1);
        let low = self.b.binary_imm(Op::And, Type::I64, addr, u64::from(ty.bytes() - 1));
        let odd = self.b.binary_imm(Op::Ne, Type::I64, low, 0);
        self.b.trap_if(odd, TrapCode::Register { cause, register: insn.rs1 }.encode());
        addr
    }

    fn amo(&mut self, insn: &Insn, amo: Amo, ty: Type) {
        let addr = self.aligned(insn, ty, cause::STORE_MISALIGNED);
        let operand = self.x(insn.rs2);
        let old = match amo {
            Amo::Op(kind) => self.b.rmw(kind, ty, addr, operand),
            Amo::Choose(op, greater) => {
                let old = self.b.load(ty, addr, 0, MemFlags::FOR_WRITE);
                let less = self.b.binary(op, ty, old, operand);
                let (first, second) = if greater { (operand, old) } else { (old, operand) };
                let new = self.b.select(ty, less, first, second);
                let seen = self.b.cas(ty, addr, old, new);
                let lost = self.b.binary(Op::Ne, ty, seen, old);
                self.b.trap_if(lost, TrapCode::Retry.encode());
                old
            }
        };
        let value = self.sext(ty, old);
        self.set_x(insn.rd, value);
    }

    fn load_reserved(&mut self, insn: &Insn, ty: Type) {
        let addr = self.aligned(insn, ty, cause::LOAD_MISALIGNED);
        if self.word & RELEASE != 0 {
            // A load in total store order may still overtake the stores before it.
            self.b.fence();
        }
        let value = RESERVATION.load(&mut self.b, ty, addr);
        let value = self.sext(ty, value);
        self.set_x(insn.rd, value);
    }

    /// Without a reservation for its address, which is rare, the dispatcher does what is left of an SC.
    fn store_conditional(&mut self, insn: &Insn, ty: Type) {
        let addr = self.aligned(insn, ty, cause::STORE_MISALIGNED);
        let expected = RESERVATION.expected(&mut self.b, addr, TrapCode::FailedStore { rd: insn.rd }.encode());
        let new = self.x(insn.rs2);
        let failed = RESERVATION.store(&mut self.b, ty, addr, [expected, new]);
        self.set_x(insn.rd, failed);
    }
}
