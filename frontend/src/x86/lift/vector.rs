//! MMX and SSE: moves and what [`inline`] has a row for as ops, everything else through the vector helpers.
//!
//! An XMM register is read and written whole, so that no load has to wait for two stores.

use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};
use mimus_ir::block::{NONE, Value};
use mimus_ir::op::{Op, Type};
use mimus_ir::{EnvSlot, VecKind};

use super::cond::Record;
use super::operand::{Addr, Gpr};
use super::{Lift, Lifted, Refusal};
use crate::x86::Mode;
use crate::x86::exception::Exception;
use crate::x86::flags::CcKind;
use crate::x86::fp::inline::{self, Form, Inline};
use crate::x86::fp::vec::{self, Dest, VecOp, VecRow};
use crate::x86::helpers::Helper;
use crate::x86::state::{State, vtmp_offset, xmm_offset, xmm_slot};

/// Env offset of an MMX register: the significand of the x87 register of that number.
fn mm_offset(number: usize) -> u16 {
    (std::mem::offset_of!(State, fpu) + 16 * (number & 7)) as u16
}

fn half(offset: u16) -> EnvSlot {
    EnvSlot { offset, ty: Type::I64 }
}

fn uses(insn: &Instruction, test: impl Fn(Register) -> bool) -> bool {
    (0..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::Register && test(insn.op_register(i)))
}

impl Lift {
    /// Any MMX or SSE instruction.
    pub(super) fn vector(&mut self, insn: &Instruction) -> Lifted {
        let mmx = uses(insn, |r| r.is_mm());
        let sse = uses(insn, |r| r.is_xmm()) || !mmx;
        if self.unavailable(sse, mmx) {
            return Ok(());
        }
        if self.vector_move(insn)? {
            return Ok(());
        }
        let row = vec::lookup(insn.code()).ok_or(Refusal::Undefined)?;
        self.vector_row(insn, row)
    }

    /// #MF if an x87 exception is pending, which comes before all else that an MMX instruction may raise. Only then can ops
    /// reach MMX registers.
    fn check_x87(&mut self) {
        let flags = self.flags;
        self.call(Helper::Fwait, Type::I64, &[], 0);
        self.flags = flags;
    }

    /// Takes the x87 unit into MMX mode: once memory has been read or written.
    fn enter_mmx(&mut self) {
        let flags = self.flags;
        self.call(Helper::EnterMmx, Type::I64, &[], 0);
        self.flags = flags;
    }

    /// #GP(0) unless the address is a multiple of 16.
    fn check_aligned(&mut self, addr: Addr) {
        let flat = self.flatten(addr);
        let low = self.b.binary_imm(Op::AndI, Type::I8, flat, 15);
        let odd = self.b.binary_imm(Op::NeI, Type::I8, low, 0);
        self.b.trap_if(odd, Exception::gp(0).trap_code());
    }

    fn write_mm(&mut self, number: usize, value: Value) {
        let offset = mm_offset(number);
        self.b.store_env(half(offset), value);
        self.b.store_env_imm(EnvSlot { offset: offset + 8, ty: Type::I16 }, 0xffff);
    }

    /// Writes the low bits of an XMM register and clears the rest.
    fn write_xmm_low(&mut self, number: usize, ty: Type, value: Value) {
        let vector = self.low_vector(ty, value);
        self.b.store_env(xmm_slot(number), vector);
    }

    /// A vector of an integer's low `ty` bits and zeros.
    fn low_vector(&mut self, ty: Type, value: Value) -> Value {
        let kind = if ty == Type::I64 { VecKind::From64 } else { VecKind::From32 };
        self.b.vec(kind, 0, [value, NONE, NONE])
    }

    fn xmm(&mut self, register: Register) -> Value {
        self.b.load_env(xmm_slot(register.number()))
    }

    /// The low bits of a vector register operand.
    fn read_low(&mut self, register: Register, ty: Type) -> Value {
        if register.is_mm() {
            return self.b.load_env(half(mm_offset(register.number())));
        }
        let whole = self.xmm(register);
        let kind = if ty == Type::I64 { VecKind::Extract64 } else { VecKind::Extract32 };
        self.b.vec(kind, 0, [whole, NONE, NONE])
    }

    /// Plain data moves; whether the instruction was one.
    fn vector_move(&mut self, insn: &Instruction) -> Result<bool, Refusal> {
        let aligned = matches!(
            insn.mnemonic(),
            Mnemonic::Movaps
                | Mnemonic::Movapd
                | Mnemonic::Movdqa
                | Mnemonic::Movntps
                | Mnemonic::Movntpd
                | Mnemonic::Movntdq
                | Mnemonic::Movntdqa
        );
        match insn.mnemonic() {
            _ if aligned => self.move_whole(insn, true),
            Mnemonic::Movups | Mnemonic::Movupd | Mnemonic::Movdqu | Mnemonic::Lddqu => self.move_whole(insn, false),
            Mnemonic::Movss | Mnemonic::Movsd if uses_memory(insn) => {
                self.move_low(insn, if insn.mnemonic() == Mnemonic::Movss { Type::I32 } else { Type::I64 });
            }
            Mnemonic::Movd | Mnemonic::Movq => self.move_low(insn, self.move_width(insn)),
            Mnemonic::Movntq | Mnemonic::Movdq2q | Mnemonic::Movq2dq => self.move_low(insn, Type::I64),
            Mnemonic::Movlps | Mnemonic::Movlpd => self.move_half(insn, false),
            Mnemonic::Movhps | Mnemonic::Movhpd => self.move_half(insn, true),
            Mnemonic::Maskmovdqu | Mnemonic::Maskmovq => self.masked_move(insn),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn move_width(&self, insn: &Instruction) -> Type {
        let gpr_or_memory = (0..2).find(|&i| {
            insn.op_kind(i) == OpKind::Memory || insn.op_kind(i) == OpKind::Register && insn.op_register(i).is_gpr()
        });
        gpr_or_memory.map_or(Type::I64, |i| self.operand_type(insn, i))
    }

    fn move_whole(&mut self, insn: &Instruction, aligned: bool) {
        if !uses_memory(insn) {
            let value = self.b.load_env(xmm_slot(insn.op_register(1).number()));
            self.b.store_env(xmm_slot(insn.op_register(0).number()), value);
            return;
        }
        let store = self.is_memory(insn, 0);
        let addr = self.linear(insn, 16, store);
        if aligned {
            self.check_aligned(addr);
        }
        if store {
            let value = self.b.load_env(xmm_slot(insn.op_register(1).number()));
            self.store(Type::V128, addr, value);
        } else {
            let value = self.load(Type::V128, addr);
            self.b.store_env(xmm_slot(insn.op_register(0).number()), value);
        }
    }

    /// Moves of up to 64 low bits between a vector register and memory, a general or another vector register; a vector
    /// destination is zero above them.
    fn move_low(&mut self, insn: &Instruction, ty: Type) {
        let mmx = uses(insn, |r| r.is_mm());
        if mmx {
            self.check_x87();
        }
        let is_vector = |i: u32| {
            insn.op_kind(i) == OpKind::Register && (insn.op_register(i).is_xmm() || insn.op_register(i).is_mm())
        };
        if !mmx && is_vector(0) && is_vector(1) {
            let whole = self.xmm(insn.op_register(1));
            let low = self.b.vec(VecKind::Low64, 0, [whole, NONE, NONE]);
            self.b.store_env(xmm_slot(insn.op_register(0).number()), low);
            return;
        }
        let value = if is_vector(1) { self.read_low(insn.op_register(1), ty) } else { self.read(insn, 1, ty) };
        if mmx && !self.is_memory(insn, 0) {
            self.enter_mmx();
        }
        if is_vector(0) {
            let register = insn.op_register(0);
            if register.is_mm() {
                let value = self.zext64(ty, value);
                self.write_mm(register.number(), value);
            } else {
                self.write_xmm_low(register.number(), ty, value);
            }
        } else {
            self.write(insn, 0, ty, value);
        }
        if mmx && self.is_memory(insn, 0) {
            self.enter_mmx();
        }
    }

    /// MOVLPS, MOVHPS and their double-precision twins: 64 bits between memory and one half, the other half unchanged.
    fn move_half(&mut self, insn: &Instruction, high: bool) {
        if self.is_memory(insn, 0) {
            let whole = self.xmm(insn.op_register(1));
            let value = self.b.vec(VecKind::Extract64, high.into(), [whole, NONE, NONE]);
            self.write(insn, 0, Type::I64, value);
        } else {
            let value = self.read(insn, 1, Type::I64);
            let whole = self.xmm(insn.op_register(0));
            let whole = self.b.vec(VecKind::Insert64, high.into(), [whole, value, NONE]);
            self.b.store_env(xmm_slot(insn.op_register(0).number()), whole);
        }
    }

    fn masked_move(&mut self, insn: &Instruction) {
        let mm = insn.mnemonic() == Mnemonic::Maskmovq;
        if mm {
            self.check_x87();
            self.enter_mmx();
        }
        let index = self.gpr(crate::x86::state::reg::RDI);
        let ty = match insn.op0_kind() {
            OpKind::MemorySegDI => Type::I16,
            OpKind::MemorySegEDI => Type::I32,
            _ => Type::I64,
        };
        let bytes = if mm { 8 } else { 16 };
        let seg = Lift::default_data_segment(insn);
        let addr = self.linear_in(seg, Addr { value: index, disp: 0 }, ty, bytes, true);
        let offset = |r: Register| u64::from(if mm { mm_offset(r.number()) } else { xmm_offset(r.number()) });
        let offsets = self.iconst(offset(insn.op1_register()) | offset(insn.op2_register()) << 16);
        let flat = self.flatten(addr);
        self.call(Helper::MaskedMove, Type::I64, &[flat, offsets], bytes);
        self.end_after_helper_store();
    }

    /// An instruction of the vector table: the source goes to the operand buffer unless it is a vector register.
    fn vector_row(&mut self, insn: &Instruction, row: &'static VecRow) -> Lifted {
        let immediate = (0..insn.op_count()).find(|&i| insn.op_kind(i) == OpKind::Immediate8);
        let operands = immediate.unwrap_or(insn.op_count());
        let to_memory = self.is_memory(insn, 0);
        let source = if operands > 1 { 1 } else { 0 };
        let from_memory = !to_memory && self.is_memory(insn, source);
        let mmx = row.uses_mmx(from_memory);
        if !mmx && row.op == VecOp::Ptest_xmm_xmmm128 {
            return self.ptest(insn, row);
        }
        // An exception that is not masked is raised by the helpers only.
        let liftable = !row.is_float() || !self.mode.intersects(Mode::SIMD_TRAPS);
        if !mmx
            && liftable
            && let Some(inline) = inline::lookup(row.op)
        {
            return self.vector_inline(insn, row, inline);
        }
        if mmx {
            self.check_x87();
        }
        let mut imm = immediate.map_or(0, |_| insn.immediate8());
        let buffer = vtmp_offset(0);
        let mut src = buffer;
        if from_memory {
            imm = row.memory_immediate(imm);
            let addr = self.linear(insn, u32::from(row.memory), false);
            if row.needs_alignment() {
                self.check_aligned(addr);
            }
            match Type::int(row.memory.into()) {
                Some(ty) => {
                    let value = self.load(ty, addr);
                    self.write_buffer(value);
                }
                None => {
                    let value = self.load(Type::V128, addr);
                    self.b.store_env(EnvSlot { offset: buffer, ty: Type::V128 }, value);
                }
            }
        } else {
            let register = insn.op_register(source);
            match Gpr::of(register) {
                Some(gpr) => {
                    let value = self.read_gpr(gpr);
                    let value = self.zext64(gpr.ty, value);
                    self.write_buffer(value);
                }
                None if register.is_mm() => src = mm_offset(register.number()),
                None => src = xmm_offset(register.number()),
            }
        }
        if mmx {
            // Processors make the transition before a floating-point exception.
            self.enter_mmx();
        }
        let dst = match insn.op_kind(0) {
            OpKind::Register if insn.op_register(0).is_mm() => mm_offset(insn.op_register(0).number()),
            OpKind::Register if insn.op_register(0).is_xmm() => xmm_offset(insn.op_register(0).number()),
            _ => buffer,
        };
        let flags = self.flags;
        let helper = if row.is_float() { Helper::VectorFloat } else { Helper::Vector };
        let offsets = self.iconst(u64::from(src) | u64::from(dst) << 16);
        let value = self.call(helper, Type::I64, &[offsets], row.op as u32 | u32::from(imm) << 16);
        self.flags = flags;
        match row.dest {
            Dest::Xmm | Dest::Mm => {}
            Dest::Eflags | Dest::Ecx | Dest::Xmm0 => self.set_flag_bits(value),
            Dest::Mem(bytes) => {
                let ty = Type::int(bytes.into()).ok_or(Refusal::Undefined)?;
                self.write(insn, 0, ty, value);
            }
            Dest::GprOrMem(bytes) if to_memory => {
                let ty = Type::int(bytes.into()).ok_or(Refusal::Undefined)?;
                self.write(insn, 0, ty, value);
            }
            Dest::Gpr | Dest::GprOrMem(_) => {
                let gpr = Gpr::of(insn.op_register(0)).ok_or(Refusal::Undefined)?;
                self.write_gpr(Gpr { ty: Type::I64, ..gpr }, value);
            }
        }
        Ok(())
    }

    /// The source of an operation of the vector table that touches no MMX register, as a vector.
    fn vector_source(&mut self, insn: &Instruction, row: &VecRow) -> Value {
        if !self.is_memory(insn, 1) {
            return self.xmm(insn.op_register(1));
        }
        let addr = self.linear(insn, u32::from(row.memory), false);
        if row.needs_alignment() {
            self.check_aligned(addr);
        }
        let ty = Type::int(row.memory.into()).unwrap_or(Type::V128);
        let value = self.load(ty, addr);
        if ty == Type::V128 { value } else { self.low_vector(ty, value) }
    }

    /// An operation of the vector table that the IR has.
    fn vector_inline(&mut self, insn: &Instruction, row: &VecRow, inline: &Inline) -> Lifted {
        let immediate = (0..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::Immediate8);
        let mut imm = if immediate { insn.immediate8() } else { 0 };
        if !self.is_memory(insn, 0) && self.is_memory(insn, 1) {
            imm = row.memory_immediate(imm);
        }
        let source = match inline.form {
            Form::A => NONE,
            Form::AI => {
                let ty = Type::int(row.memory.into()).ok_or(Refusal::Undefined)?;
                self.read(insn, 1, ty)
            }
            _ => self.vector_source(insn, row),
        };
        let operands = match inline.form {
            Form::B => [source, NONE, NONE],
            Form::BB => [source, source, NONE],
            form => {
                let old = self.xmm(insn.op_register(0));
                match form {
                    Form::BA => [source, old, NONE],
                    Form::ABX => [old, source, self.xmm(Register::XMM0)],
                    _ => [old, source, NONE],
                }
            }
        };
        let value = self.b.vec(inline.kind, inline.immediate(imm), operands);
        match row.dest {
            Dest::Eflags => self.set_order(row.memory, operands),
            Dest::Gpr | Dest::GprOrMem(_) if !self.is_memory(insn, 0) => {
                let gpr = Gpr::of(insn.op_register(0)).ok_or(Refusal::Undefined)?;
                self.write_gpr(Gpr { ty: Type::I64, ..gpr }, value);
            }
            Dest::GprOrMem(bytes) => {
                let ty = Type::int(bytes.into()).ok_or(Refusal::Undefined)?;
                self.write(insn, 0, ty, value);
            }
            _ => self.b.store_env(xmm_slot(insn.op_register(0).number()), value),
        }
        Ok(())
    }

    /// Sets the flags to the order of two numbers of so many bytes in lane 0 of two vectors.
    fn set_order(&mut self, bytes: u8, [a, b, _]: [Value; 3]) {
        let double = bytes == 8;
        let (ty, extract) = if double { (Type::I64, VecKind::Extract64) } else { (Type::I32, VecKind::Extract32) };
        let [dst, src] = [a, b].map(|v| self.b.vec(extract, 0, [v, NONE, NONE]));
        let kind = if self.mode.intersects(Mode::DAZ) { CcKind::FloatDaz } else { CcKind::Float };
        self.set_flags(Record { kind, ty, a, dst, src, aux: b });
    }

    /// PTEST: ZF if source and destination have no one bit in common, CF if the source has none beyond the destination's.
    fn ptest(&mut self, insn: &Instruction, row: &VecRow) -> Lifted {
        let b = self.vector_source(insn, row);
        let a = self.xmm(insn.op_register(0));
        let [zero, carry] = [VecKind::And, VecKind::AndNot].map(|kind| {
            let bits = self.b.vec(kind, 0, [a, b, NONE]);
            let any = self.b.vec(VecKind::Any, 0, [bits, NONE, NONE]);
            self.b.binary_imm(Op::EqI, Type::I8, any, 0)
        });
        let zero = self.b.binary_imm(Op::ShlI, Type::I64, zero, 6);
        let bits = self.b.binary(Op::Or, Type::I64, zero, carry);
        self.set_flag_bits(bits);
        Ok(())
    }

    /// Fills the operand buffer with a zero-extended value.
    fn write_buffer(&mut self, value: Value) {
        self.b.store_env(half(vtmp_offset(0)), value);
        self.b.store_env_imm(half(vtmp_offset(0) + 8), 0);
    }

    /// EMMS.
    pub(super) fn emms(&mut self, _: &Instruction) -> Lifted {
        if !self.unavailable(false, true) {
            self.call(Helper::Emms, Type::I64, &[], 0);
        }
        Ok(())
    }

    /// LDMXCSR, STMXCSR.
    pub(super) fn mxcsr(&mut self, insn: &Instruction) -> Lifted {
        if self.unavailable(true, false) {
            return Ok(());
        }
        if insn.code() == Code::Ldmxcsr_m32 {
            let value = self.read(insn, 0, Type::I32);
            self.call(Helper::LoadMxcsr, Type::I64, &[value], 0);
            self.end_to_context();
        } else {
            let flags = self.flags;
            let value = self.call(Helper::StoreMxcsr, Type::I64, &[], 0);
            self.flags = flags;
            self.write(insn, 0, Type::I32, value);
        }
        Ok(())
    }
}

fn uses_memory(insn: &Instruction) -> bool {
    (0..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::Memory)
}
