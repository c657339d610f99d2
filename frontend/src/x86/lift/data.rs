//! Moves, conversions, exchanges, conditional moves, flag transfers.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use mimus_ir::block::EnvSlot;
use mimus_ir::op::{Op, RmwKind, Type};

use super::operand::{Gpr, seg_of};
use super::{Lift, Lifted, Refusal};
use crate::x86::helpers::Helper;
use crate::x86::state::{Rflags, Seg, Segment, State, reg, shadow, slot};

/// Slot of a segment register's selector.
pub(super) fn selector_slot(seg: Seg) -> EnvSlot {
    let offset = std::mem::offset_of!(State, seg) + size_of::<Segment>() * seg as usize;
    EnvSlot { offset: (offset + std::mem::offset_of!(Segment, selector)) as u16, ty: Type::I16 }
}

impl Lift {
    /// MOV in all its forms, MOVNTI.
    pub(super) fn mov(&mut self, insn: &Instruction) -> Lifted {
        if insn.op_kind(0) == OpKind::Register {
            let dst = insn.op_register(0);
            if let Some(seg) = seg_of(dst) {
                return self.mov_to_segment(insn, seg);
            }
            if dst.is_cr() || dst.is_dr() {
                return self.mov_to_control(insn, dst);
            }
        }
        if insn.op_kind(1) == OpKind::Register {
            let src = insn.op_register(1);
            if let Some(seg) = seg_of(src) {
                let ty = if self.is_memory(insn, 0) { Type::I16 } else { self.operand_type(insn, 0) };
                let selector = self.b.load_env(selector_slot(seg));
                self.write(insn, 0, ty, selector);
                return Ok(());
            }
            if src.is_cr() || src.is_dr() {
                return self.mov_from_control(insn, src);
            }
        }
        if insn.op_kind(0) == OpKind::Register && Gpr::of(insn.op_register(0)).is_none()
            || insn.op_kind(1) == OpKind::Register && Gpr::of(insn.op_register(1)).is_none()
        {
            return Err(Refusal::Undefined);
        }
        let ty = self.operand_type(insn, 0);
        let value = self.read(insn, 1, ty);
        self.write(insn, 0, ty, value);
        Ok(())
    }

    fn mov_to_segment(&mut self, insn: &Instruction, seg: Seg) -> Lifted {
        if seg == Seg::Cs {
            return Err(Refusal::Undefined);
        }
        let selector = self.read(insn, 1, Type::I16);
        let selector = self.b.extend(Op::Zext, Type::I64, Type::I16, selector);
        self.call(Helper::LoadSeg, Type::I64, &[selector], seg as u32);
        self.hold_off(seg);
        self.after_segment_load(seg);
        Ok(())
    }

    /// MOV SS and POP SS, but not LSS, hold off interrupts and debug exceptions for one instruction (SDM vol. 3A, 6.8.3).
    pub(super) fn hold_off(&mut self, seg: Seg) {
        if seg == Seg::Ss {
            self.b.store_env_imm(slot::SHADOW, shadow::ALL);
        }
    }

    /// What has to follow a segment load: it may change how code is translated.
    pub(super) fn after_segment_load(&mut self, seg: Seg) {
        if seg == Seg::Ss || !self.mode.intersects(crate::x86::Mode::CODE64) {
            self.end_to_dispatcher();
        }
    }

    fn mov_to_control(&mut self, insn: &Instruction, dst: Register) -> Lifted {
        if self.privileged() {
            return Ok(());
        }
        let value = self.read(insn, 1, self.operand_type(insn, 1));
        let value = if self.mode.intersects(crate::x86::Mode::CODE64) { value } else { self.zext64(Type::I32, value) };
        let helper = if dst.is_cr() { Helper::WriteCr } else { Helper::WriteDr };
        self.call(helper, Type::I64, &[value], dst.number() as u32);
        self.end_to_context();
        Ok(())
    }

    fn mov_from_control(&mut self, insn: &Instruction, src: Register) -> Lifted {
        if self.privileged() {
            return Ok(());
        }
        let helper = if src.is_cr() { Helper::ReadCr } else { Helper::ReadDr };
        let value = self.call(helper, Type::I64, &[], src.number() as u32);
        self.write(insn, 0, self.operand_type(insn, 0), value);
        Ok(())
    }

    /// MOVZX, MOVSX, MOVSXD.
    pub(super) fn mov_extend(&mut self, insn: &Instruction) -> Lifted {
        let dst = self.operand_type(insn, 0);
        let src = self.operand_type(insn, 1);
        let op = if insn.mnemonic() == Mnemonic::Movzx { Op::Zext } else { Op::Sext };
        let value = self.read(insn, 1, src);
        let value = if src == dst { self.zext64(dst, value) } else { self.b.extend(op, dst, src, value) };
        self.write(insn, 0, dst, value);
        Ok(())
    }

    /// LEA.
    pub(super) fn lea(&mut self, insn: &Instruction) -> Lifted {
        let ty = self.operand_type(insn, 0);
        let addr = self.effective(insn);
        let value = self.flatten(addr);
        self.write(insn, 0, ty, value);
        Ok(())
    }

    /// XCHG; with memory it is always atomic.
    pub(super) fn xchg(&mut self, insn: &Instruction) -> Lifted {
        let ty = self.operand_type(insn, 0);
        let (memory, register) = if self.is_memory(insn, 0) { (0, 1) } else { (1, 0) };
        let gpr = Gpr::of(insn.op_register(register)).ok_or(Refusal::Undefined)?;
        if self.is_memory(insn, memory) {
            let value = self.read_gpr(gpr);
            let addr = self.linear(insn, ty.bytes(), true);
            let addr = self.flatten(addr);
            let old = self.b.rmw(RmwKind::Xchg, ty, addr, value);
            self.write_gpr(gpr, old);
            return Ok(());
        }
        let x = self.read(insn, 0, ty);
        let y = self.read(insn, 1, ty);
        self.write(insn, 0, ty, y);
        self.write(insn, 1, ty, x);
        Ok(())
    }

    /// BSWAP; of a 16-bit register it is undefined, and clears it as processors do.
    pub(super) fn bswap(&mut self, insn: &Instruction) -> Lifted {
        let ty = self.operand_type(insn, 0);
        let value = self.read(insn, 0, ty);
        let swapped = if ty == Type::I16 { self.iconst(0) } else { self.b.unary(Op::Bswap, ty, value) };
        self.write(insn, 0, ty, swapped);
        Ok(())
    }

    /// MOVBE: between memory and a register, the bytes in the opposite order (SDM vol. 2B, MOVBE).
    pub(super) fn movbe(&mut self, insn: &Instruction) -> Lifted {
        let ty = self.operand_type(insn, 0);
        let value = self.read(insn, 1, ty);
        let swapped = self.b.unary(Op::Bswap, ty, value);
        self.write(insn, 0, ty, swapped);
        Ok(())
    }

    /// CBW, CWDE, CDQE: sign extension within the accumulator. CWD, CDQ, CQO: into RDX.
    pub(super) fn convert(&mut self, insn: &Instruction) -> Lifted {
        let (ty, to_rdx) = match insn.mnemonic() {
            Mnemonic::Cbw => (Type::I16, false),
            Mnemonic::Cwde => (Type::I32, false),
            Mnemonic::Cdqe => (Type::I64, false),
            Mnemonic::Cwd => (Type::I16, true),
            Mnemonic::Cdq => (Type::I32, true),
            _ => (Type::I64, true),
        };
        let acc = self.gpr(reg::RAX);
        if to_rdx {
            let sign = self.b.binary_imm(Op::SarI, ty, acc, u64::from(ty.bits() - 1));
            self.write_gpr(Gpr::new(reg::RDX, ty), sign);
        } else {
            let half = Type::ALL[ty as usize - 1];
            let wide = self.b.extend(Op::Sext, ty, half, acc);
            self.write_gpr(Gpr::new(reg::RAX, ty), wide);
        }
        Ok(())
    }

    /// CMOVcc: the source is read, and a 32-bit destination's upper half cleared, whatever the condition.
    pub(super) fn cmov(&mut self, insn: &Instruction) -> Lifted {
        let ty = self.operand_type(insn, 0);
        let new = self.read(insn, 1, ty);
        let condition = self.condition(insn.condition_code() as u8 - 1);
        let old = self.read(insn, 0, ty);
        let value = self.b.select(ty, condition, new, old);
        self.write(insn, 0, ty, value);
        Ok(())
    }

    /// SETcc.
    pub(super) fn setcc(&mut self, insn: &Instruction) -> Lifted {
        let condition = self.condition(insn.condition_code() as u8 - 1);
        self.write(insn, 0, Type::I8, condition);
        Ok(())
    }

    /// LAHF.
    pub(super) fn lahf(&mut self, _: &Instruction) -> Lifted {
        let bits = self.flag_bits();
        let value = self.b.binary_imm(Op::OrI, Type::I64, bits, 2);
        self.write_gpr(Gpr { number: reg::RAX, ty: Type::I8, high: true }, value);
        Ok(())
    }

    /// SAHF: all arithmetic flags but OF.
    pub(super) fn sahf(&mut self, _: &Instruction) -> Lifted {
        const LOADED: u64 = Rflags::ARITH.difference(Rflags::OF).bits();
        let old = self.flag_bits();
        let kept = self.b.binary_imm(Op::AndI, Type::I64, old, Rflags::OF.bits());
        let acc = self.gpr(reg::RAX);
        let ah = self.b.extract(Type::I64, acc, 8, 8);
        let new = self.b.binary_imm(Op::AndI, Type::I64, ah, LOADED);
        let bits = self.b.binary(Op::Or, Type::I64, kept, new);
        self.set_flag_bits(bits);
        Ok(())
    }

    /// CLC, STC, CMC.
    pub(super) fn carry_flag(&mut self, insn: &Instruction) -> Lifted {
        let carry = match insn.mnemonic() {
            Mnemonic::Clc => self.iconst(0),
            Mnemonic::Stc => self.iconst(1),
            _ => {
                let carry = self.carry();
                self.b.binary_imm(Op::XorI, Type::I64, carry, 1)
            }
        };
        self.set_apart(Some(carry), None);
        Ok(())
    }

    /// CLD, STD.
    pub(super) fn direction_flag(&mut self, insn: &Instruction) -> Lifted {
        let flags = self.b.load_env(slot::FLAGS);
        let flags = if insn.mnemonic() == Mnemonic::Std {
            self.b.binary_imm(Op::OrI, Type::I64, flags, Rflags::DF.bits())
        } else {
            self.b.binary_imm(Op::AndI, Type::I64, flags, (!Rflags::DF).bits())
        };
        self.b.store_env(slot::FLAGS, flags);
        Ok(())
    }

    /// XLAT.
    pub(super) fn xlat(&mut self, insn: &Instruction) -> Lifted {
        let ty = match insn.memory_base() {
            Register::BX => Type::I16,
            Register::EBX => Type::I32,
            _ => Type::I64,
        };
        let acc = self.gpr(reg::RAX);
        let index = self.b.extend(Op::Zext, Type::I64, Type::I8, acc);
        let base = self.gpr(reg::RBX);
        let offset = self.b.binary(Op::Add, ty, base, index);
        let seg = seg_of(insn.memory_segment()).unwrap_or(Seg::Ds);
        let addr = self.linear_in(seg, super::operand::Addr { value: offset, disp: 0 }, ty, 1, false);
        let value = self.load(Type::I8, addr);
        self.write_gpr(Gpr::new(reg::RAX, Type::I8), value);
        Ok(())
    }

    /// LDS, LES, LFS, LGS, LSS: a far pointer from memory.
    pub(super) fn load_far_pointer(&mut self, insn: &Instruction) -> Lifted {
        let seg = match insn.mnemonic() {
            Mnemonic::Lds => Seg::Ds,
            Mnemonic::Les => Seg::Es,
            Mnemonic::Lfs => Seg::Fs,
            Mnemonic::Lgs => Seg::Gs,
            _ => Seg::Ss,
        };
        let ty = self.operand_type(insn, 0);
        let addr = self.linear(insn, ty.bytes() + 2, false);
        let offset = self.load(ty, addr);
        let flat = self.flatten(addr);
        let at = self.b.binary_imm(Op::AddI, Type::I64, flat, u64::from(ty.bytes()));
        let selector = self.b.load(Type::I16, at, 0, mimus_ir::MemFlags::empty());
        self.call(Helper::LoadSeg, Type::I64, &[selector], seg as u32);
        self.write(insn, 0, ty, offset);
        self.after_segment_load(seg);
        Ok(())
    }

    /// CLFLUSH: its address is checked as a byte's that is read.
    pub(super) fn flush_line(&mut self, insn: &Instruction) -> Lifted {
        self.read(insn, 0, Type::I8);
        Ok(())
    }

    /// SALC: AL is all CF; no flag changes.
    pub(super) fn salc(&mut self, _: &Instruction) -> Lifted {
        let carry = self.carry();
        let value = self.b.unary(Op::Neg, Type::I8, carry);
        self.write_gpr(Gpr::new(reg::RAX, Type::I8), value);
        Ok(())
    }

    /// NOP, PAUSE, prefetches, LFENCE, SFENCE: nothing to do in a coherent machine without a cache model.
    pub(super) fn nothing(&mut self, _: &Instruction) -> Lifted {
        Ok(())
    }

    /// MFENCE: a device, on another thread of the host, sees the stores before it ahead of the loads behind it.
    pub(super) fn fence(&mut self, _: &Instruction) -> Lifted {
        self.b.fence();
        Ok(())
    }
}
