//! Bit tests, scans and counts.

use iced_x86::{Instruction, Mnemonic, OpKind};
use mimus_ir::block::Value;
use mimus_ir::op::{Op, RmwKind, Type};

use super::operand::{Addr, Gpr};
use super::{Lift, Lifted, Refusal};
use crate::x86::flags::CcKind;
use crate::x86::helpers::Helper;
use crate::x86::state::Rflags;

impl Lift {
    /// BT, BTS, BTR, BTC: CF is the bit, the other flags stay.
    pub(super) fn bit_test(&mut self, insn: &Instruction) -> Lifted {
        let ty = self.operand_type(insn, 0);
        let width = u64::from(ty.bits());
        let memory = self.is_memory(insn, 0);
        let writes = insn.mnemonic() != Mnemonic::Bt;
        let by_register = insn.op_kind(1) == OpKind::Register;
        let offset = self.read(insn, 1, if by_register { ty } else { Type::I8 });
        let bit = self.b.binary_imm(Op::AndI, Type::I8, offset, width - 1);
        let mut addr = Addr { value: offset, disp: 0 };
        if memory {
            addr = self.bit_address(insn, ty, if by_register { Some(offset) } else { None }, writes);
        }
        let one = self.b.iconst(ty, 1);
        let mask = self.b.binary(Op::Shl, ty, one, bit);
        let a = match (memory, writes) {
            (true, true) if insn.has_lock_prefix() => {
                let (kind, operand) = match insn.mnemonic() {
                    Mnemonic::Bts => (RmwKind::Or, mask),
                    Mnemonic::Btr => (RmwKind::And, self.b.unary(Op::Not, ty, mask)),
                    _ => (RmwKind::Xor, mask),
                };
                let addr = self.flatten(addr);
                self.b.rmw(kind, ty, addr, operand)
            }
            (true, true) => {
                let a = self.load_for_write(ty, addr);
                let new = self.bit_update(insn.mnemonic(), ty, a, mask);
                self.store(ty, addr, new);
                a
            }
            (true, false) => self.load(ty, addr),
            (false, _) => self.read(insn, 0, ty),
        };
        let shifted = self.b.binary(Op::Shr, ty, a, bit);
        let carry = self.b.extract(Type::I64, shifted, 0, 1);
        if !memory && writes {
            let new = self.bit_update(insn.mnemonic(), ty, a, mask);
            self.write(insn, 0, ty, new);
        }
        self.set_apart(Some(carry), None);
        Ok(())
    }

    fn bit_update(&mut self, mnemonic: Mnemonic, ty: Type, a: Value, mask: Value) -> Value {
        match mnemonic {
            Mnemonic::Bts => self.b.binary(Op::Or, ty, a, mask),
            Mnemonic::Btr => {
                let keep = self.b.unary(Op::Not, ty, mask);
                self.b.binary(Op::And, ty, a, keep)
            }
            _ => self.b.binary(Op::Xor, ty, a, mask),
        }
    }

    /// A bit offset in a register reaches beyond the operand: its signed multiple of the width is added to the address.
    fn bit_address(&mut self, insn: &Instruction, ty: Type, offset: Option<Value>, write: bool) -> Addr {
        let Some(offset) = offset else { return self.linear(insn, ty.bytes(), write) };
        let seg = super::operand::seg_of(insn.memory_segment()).unwrap_or(crate::x86::state::Seg::Ds);
        let width_log2 = u64::from(ty.bits().trailing_zeros());
        let units = self.b.binary_imm(Op::SarI, ty, offset, width_log2);
        let units = self.b.extend(Op::Sext, Type::I64, ty, units);
        let bytes = self.b.binary_imm(Op::ShlI, Type::I64, units, width_log2 - 3);
        let base = self.effective(insn);
        let base = self.flatten(base);
        let address_type = Lift::address_type(insn);
        let value = self.b.binary(Op::Add, address_type, base, bytes);
        self.linear_in(seg, Addr { value, disp: 0 }, address_type, ty.bytes(), write)
    }

    /// BSF, BSR. The destination of a scan of 0 is unchanged.
    pub(super) fn bit_scan(&mut self, insn: &Instruction) -> Lifted {
        let ty = self.operand_type(insn, 0);
        let gpr = Gpr::of(insn.op_register(0)).ok_or(Refusal::Undefined)?;
        let src = self.read(insn, 1, ty);
        let forward = insn.mnemonic() == Mnemonic::Bsf;
        let found = if forward {
            self.b.unary(Op::Ctz, ty, src)
        } else {
            let zeros = self.b.unary(Op::Clz, ty, src);
            self.b.binary_imm(Op::XorI, ty, zeros, u64::from(ty.bits() - 1))
        };
        let zero = self.b.binary_imm(Op::EqI, ty, src, 0);
        self.keep_or_write(gpr, zero, found);
        let result = self.zext64(ty, src);
        self.set_flags_simple(CcKind::Logic, ty, result, result);
        Ok(())
    }

    /// POPCNT: ZF tells a zero source, all other flags are cleared.
    pub(super) fn popcnt(&mut self, insn: &Instruction) -> Lifted {
        let ty = self.operand_type(insn, 0);
        let src = self.read(insn, 1, ty);
        let count = self.b.unary(Op::Popcnt, ty, src);
        self.write(insn, 0, ty, count);
        let zero = self.b.binary_imm(Op::EqI, ty, src, 0);
        let bits = self.b.binary_imm(Op::ShlI, Type::I64, zero, u64::from(Rflags::ZF.position()));
        self.set_flag_bits(bits);
        Ok(())
    }

    /// CRC32 with the Castagnoli polynomial.
    pub(super) fn crc32(&mut self, insn: &Instruction) -> Lifted {
        let ty = self.operand_type(insn, 1);
        let dst = self.operand_type(insn, 0);
        let src = self.read(insn, 1, ty);
        let acc = self.read(insn, 0, dst);
        let value = self.call(Helper::Crc32, Type::I32, &[acc, src], ty.bytes());
        self.write(insn, 0, dst, value);
        Ok(())
    }
}
