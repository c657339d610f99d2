//! Jumps, calls, returns, interrupts and the system calls.

use iced_x86::{Instruction, Mnemonic, OpKind};
use mimus_ir::block::Value;
use mimus_ir::op::{JumpKind, Op, Type};

use super::operand::{Addr, Gpr};
use super::{Lift, Lifted, Refusal};
use crate::x86::helpers::Helper;
use crate::x86::state::{Seg, reg};

impl Lift {
    fn near_target(&self, insn: &Instruction) -> u64 {
        let target = self.mask_ip(insn.near_branch_target());
        if insn.op0_kind() == OpKind::NearBranch16 { target & 0xffff } else { target }
    }

    fn is_direct(insn: &Instruction) -> bool {
        matches!(insn.op0_kind(), OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64)
    }

    fn is_far(insn: &Instruction) -> bool {
        insn.is_jmp_far() || insn.is_jmp_far_indirect() || insn.is_call_far() || insn.is_call_far_indirect()
    }

    /// An indirect target, zero-extended from its operand width.
    fn indirect_target(&mut self, insn: &Instruction) -> Value {
        let ty = self.operand_type(insn, 0);
        let value = self.read(insn, 0, ty);
        self.zext64(ty, value)
    }

    /// JMP.
    pub(super) fn jmp(&mut self, insn: &Instruction) -> Lifted {
        if Lift::is_far(insn) {
            return self.far(insn, Helper::FarJump);
        }
        if Lift::is_direct(insn) {
            let target = self.near_target(insn);
            self.b.jump(target);
        } else {
            let target = self.indirect_target(insn);
            self.b.jump_ind(JumpKind::Plain, target);
        }
        self.ended = true;
        Ok(())
    }

    /// Jcc.
    pub(super) fn jcc(&mut self, insn: &Instruction) -> Lifted {
        let condition = self.condition(insn.condition_code() as u8 - 1);
        let target = self.near_target(insn);
        self.b.branch(condition, target);
        self.ended = true;
        Ok(())
    }

    /// JCXZ, JECXZ, JRCXZ, LOOP, LOOPE, LOOPNE.
    pub(super) fn count_jump(&mut self, insn: &Instruction) -> Lifted {
        let ty = match insn.code() {
            c if format_width(c) == 2 => Type::I16,
            c if format_width(c) == 4 => Type::I32,
            _ => Type::I64,
        };
        let count = self.gpr(reg::RCX);
        let target = self.near_target(insn);
        let condition = match insn.mnemonic() {
            Mnemonic::Jcxz | Mnemonic::Jecxz | Mnemonic::Jrcxz => self.b.binary_imm(Op::EqI, ty, count, 0),
            mnemonic => {
                let left = self.b.binary_imm(Op::SubI, ty, count, 1);
                let more = self.b.binary_imm(Op::NeI, ty, left, 0);
                let condition = match mnemonic {
                    Mnemonic::Loop => more,
                    Mnemonic::Loope => {
                        let equal = self.condition(super::cond::cc::E);
                        self.b.binary(Op::And, Type::I8, more, equal)
                    }
                    _ => {
                        let unequal = self.condition(super::cond::cc::E | 1);
                        self.b.binary(Op::And, Type::I8, more, unequal)
                    }
                };
                self.write_gpr(Gpr::new(reg::RCX, ty), left);
                condition
            }
        };
        self.b.branch(condition, target);
        self.ended = true;
        Ok(())
    }

    /// Width of a near return address.
    fn return_type(&self, insn: &Instruction) -> Type {
        let pops = match insn.op_kind(0) {
            OpKind::Immediate16 if insn.op_count() == 1 => insn.immediate16() as i32,
            _ => 0,
        };
        let bytes = if insn.mnemonic() == Mnemonic::Ret {
            insn.stack_pointer_increment() - pops
        } else {
            -insn.stack_pointer_increment()
        };
        Type::int(bytes.unsigned_abs()).unwrap_or(Type::I64)
    }

    /// CALL.
    pub(super) fn call_near_or_far(&mut self, insn: &Instruction) -> Lifted {
        if Lift::is_far(insn) {
            return self.far(insn, Helper::FarCall);
        }
        let ty = self.return_type(insn);
        let direct = Lift::is_direct(insn);
        let target = if direct { 0 } else { self.indirect_target(insn) };
        let next = self.next_rip();
        self.push_value(ty, next);
        if direct {
            let target = self.near_target(insn);
            self.b.jump_as(JumpKind::Call, target);
        } else {
            self.b.jump_ind(JumpKind::Call, target);
        }
        self.ended = true;
        Ok(())
    }

    /// RET near.
    pub(super) fn ret(&mut self, insn: &Instruction) -> Lifted {
        let ty = self.return_type(insn);
        let sp = self.gpr(reg::RSP);
        let addr = self.stack_address(sp, 0, ty.bytes(), false);
        let target = self.load(ty, addr);
        let release = if insn.op_count() == 1 { i32::from(insn.immediate16()) } else { 0 };
        self.move_sp(sp, ty.bytes() as i32 + release);
        self.b.jump_ind(JumpKind::Return, target);
        self.ended = true;
        Ok(())
    }

    /// Far JMP and CALL, direct or through memory.
    fn far(&mut self, insn: &Instruction, helper: Helper) -> Lifted {
        let (selector, offset, bytes);
        match insn.op0_kind() {
            OpKind::FarBranch16 => {
                selector = self.iconst(u64::from(insn.far_branch_selector()));
                offset = self.iconst(u64::from(insn.far_branch16()));
                bytes = 2;
            }
            OpKind::FarBranch32 => {
                selector = self.iconst(u64::from(insn.far_branch_selector()));
                offset = self.iconst(u64::from(insn.far_branch32()));
                bytes = 4;
            }
            _ => {
                bytes = insn.memory_size().size() as u32 - 2;
                let ty = Type::int(bytes).ok_or(Refusal::Undefined)?;
                let addr = self.linear(insn, bytes + 2, false);
                offset = self.load(ty, addr);
                let flat = self.flatten(addr);
                let at = self.b.binary_imm(Op::AddI, Type::I64, flat, u64::from(bytes));
                selector = self.load(Type::I16, Addr { value: at, disp: 0 });
            }
        }
        let next = self.next_rip();
        self.call(helper, Type::I64, &[selector, offset, next], bytes);
        self.exit();
        Ok(())
    }

    /// RET far.
    pub(super) fn ret_far(&mut self, insn: &Instruction) -> Lifted {
        let release = if insn.op_count() == 1 { u64::from(insn.immediate16()) } else { 0 };
        let bytes = (insn.stack_pointer_increment() - release as i32).unsigned_abs() / 2;
        let release = self.iconst(release);
        let next = self.next_rip();
        self.call(Helper::FarRet, Type::I64, &[release, next, next], bytes);
        self.exit();
        Ok(())
    }

    /// IRET, IRETD, IRETQ.
    pub(super) fn iret(&mut self, insn: &Instruction) -> Lifted {
        let bytes = match insn.mnemonic() {
            Mnemonic::Iretq => 8,
            Mnemonic::Iretd => 4,
            _ => 2,
        };
        self.transfer(Helper::Iret, bytes)
    }

    /// A helper that sets RIP itself.
    fn transfer(&mut self, helper: Helper, arg: u32) -> Lifted {
        let next = self.next_rip();
        self.call(helper, Type::I64, &[next, next, next], arg);
        if helper == Helper::Hlt {
            self.exit()
        } else {
            self.end_to_rip()
        }
        Ok(())
    }

    /// SYSCALL, SYSRET, SYSENTER, SYSEXIT, HLT.
    pub(super) fn system_transfer(&mut self, insn: &Instruction) -> Lifted {
        let (helper, arg) = match insn.mnemonic() {
            Mnemonic::Syscall => (Helper::Syscall, 0),
            Mnemonic::Sysret => (Helper::Sysret, 4),
            Mnemonic::Sysretq => (Helper::Sysret, 8),
            Mnemonic::Sysenter => (Helper::Sysenter, 0),
            Mnemonic::Sysexit => (Helper::Sysexit, 4),
            Mnemonic::Sysexitq => (Helper::Sysexit, 8),
            _ => (Helper::Hlt, 0),
        };
        self.transfer(helper, arg)
    }

    /// INT n, INT3, INT1, INTO.
    pub(super) fn interrupt(&mut self, insn: &Instruction) -> Lifted {
        let (vector, kind) = match insn.mnemonic() {
            Mnemonic::Int => (u64::from(insn.immediate8()), 0),
            Mnemonic::Int3 => (3, 1),
            Mnemonic::Into => (4, 2),
            _ => (1, 3),
        };
        let vector = self.iconst(vector);
        let next = self.next_rip();
        // INTO goes on with the next instruction when OF is clear.
        self.b.store_env(crate::x86::state::slot::RIP, next);
        self.call(Helper::Int, Type::I64, &[vector, next, next], kind);
        self.end_to_rip();
        Ok(())
    }

    /// BOUND.
    pub(super) fn bound(&mut self, insn: &Instruction) -> Lifted {
        let ty = self.operand_type(insn, 0);
        let index = self.read(insn, 0, ty);
        let addr = self.linear(insn, 2 * ty.bytes(), false);
        let low = self.load(ty, addr);
        let flat = self.flatten(addr);
        let at = self.b.binary_imm(Op::AddI, Type::I64, flat, u64::from(ty.bytes()));
        let high = self.load(ty, Addr { value: at, disp: 0 });
        let below = self.b.binary(Op::Slt, ty, index, low);
        let above = self.b.binary(Op::Slt, ty, high, index);
        let outside = self.b.binary(Op::Or, Type::I8, below, above);
        let exception = crate::x86::exception::Exception::plain(crate::x86::exception::vector::BR);
        self.b.trap_if(outside, exception.trap_code());
        Ok(())
    }

    /// UD0, UD1, UD2.
    pub(super) fn undefined(&mut self, _: &Instruction) -> Lifted {
        self.raise(crate::x86::exception::Exception::ud());
        Ok(())
    }

    /// ARPL.
    pub(super) fn arpl(&mut self, insn: &Instruction) -> Lifted {
        if self.mode.real_or_vm86() {
            return Err(Refusal::Undefined);
        }
        let src = self.read(insn, 1, Type::I16);
        let zf = crate::x86::state::Rflags::ZF.position();
        if self.is_memory(insn, 0) {
            let addr = self.linear(insn, 2, true);
            let addr = self.flatten(addr);
            let old = self.flag_bits();
            let raised = self.call(Helper::Arpl, Type::I64, &[addr, src], 0);
            let bits = self.b.deposit(Type::I64, old, raised, zf, 1);
            self.set_flag_bits(bits);
            self.end_after_helper_store();
            return Ok(());
        }
        let gpr = Gpr::of(insn.op_register(0)).ok_or(Refusal::Undefined)?;
        let dst = self.read_gpr(gpr);
        let dst_rpl = self.b.extract(Type::I16, dst, 0, 2);
        let src_rpl = self.b.extract(Type::I16, src, 0, 2);
        let lower = self.b.binary(Op::Ult, Type::I16, dst_rpl, src_rpl);
        let raised = self.b.deposit(Type::I16, dst, src_rpl, 0, 2);
        let result = self.b.select(Type::I16, lower, raised, dst);
        let old = self.flag_bits();
        // The register may be named with 32 bits, but only 16 are written.
        self.write_gpr(Gpr { ty: Type::I16, ..gpr }, result);
        let bits = self.b.deposit(Type::I64, old, lower, zf, 1);
        self.set_flag_bits(bits);
        Ok(())
    }

    /// Segment that string and stack helpers take by default.
    pub(super) fn default_data_segment(insn: &Instruction) -> Seg {
        super::operand::seg_of(insn.memory_segment()).unwrap_or(Seg::Ds)
    }
}

/// Width in bytes of the count register of JCXZ and LOOP, which is the address size.
fn format_width(code: iced_x86::Code) -> u32 {
    use iced_x86::Code::*;
    match code {
        Jcxz_rel8_16 | Jcxz_rel8_32 | Loop_rel8_16_CX | Loop_rel8_32_CX | Loope_rel8_16_CX | Loope_rel8_32_CX
        | Loopne_rel8_16_CX | Loopne_rel8_32_CX => 2,
        Jecxz_rel8_16 | Jecxz_rel8_32 | Jecxz_rel8_64 | Loop_rel8_16_ECX | Loop_rel8_32_ECX | Loop_rel8_64_ECX
        | Loope_rel8_16_ECX | Loope_rel8_32_ECX | Loope_rel8_64_ECX | Loopne_rel8_16_ECX | Loopne_rel8_32_ECX
        | Loopne_rel8_64_ECX => 4,
        _ => 8,
    }
}
