//! MMX and SSE: moves as ops, everything else through the vector helpers.

use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};
use mimus_ir::EnvSlot;
use mimus_ir::block::Value;
use mimus_ir::op::{Op, Type};

use super::operand::{Addr, Gpr};
use super::{Lift, Lifted, Refusal};
use crate::x86::exception::Exception;
use crate::x86::fp::vec::{self, Dest, VecRow};
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

    /// #MF if an x87 exception is pending, which comes before all else that an MMX instruction may raise.
    fn check_x87(&mut self) {
        self.call(Helper::Fwait, Type::I64, &[], 0);
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

    /// Writes the low 64 bits of an XMM register and clears the rest.
    fn write_xmm_low(&mut self, number: usize, value: Value) {
        let offset = xmm_offset(number);
        self.b.store_env(half(offset), value);
        self.b.store_env_imm(half(offset + 8), 0);
    }

    /// 64 bits of a vector register operand: the low half, or the high one of an XMM register.
    fn read_half(&mut self, register: Register, high: bool) -> Value {
        let number = register.number();
        let offset = if register.is_mm() { mm_offset(number) } else { xmm_offset(number) + if high { 8 } else { 0 } };
        self.b.load_env(half(offset))
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
        let value = if is_vector(1) { self.read_half(insn.op_register(1), false) } else { self.read(insn, 1, ty) };
        if mmx && !self.is_memory(insn, 0) {
            self.enter_mmx();
        }
        if is_vector(0) {
            let value = self.zext64(ty, value);
            let register = insn.op_register(0);
            if register.is_mm() {
                self.write_mm(register.number(), value);
            } else {
                self.write_xmm_low(register.number(), value);
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
            let value = self.read_half(insn.op_register(1), high);
            self.write(insn, 0, Type::I64, value);
        } else {
            let value = self.read(insn, 1, Type::I64);
            let offset = xmm_offset(insn.op_register(0).number()) + if high { 8 } else { 0 };
            self.b.store_env(half(offset), value);
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
            self.end_to_dispatcher();
        } else {
            let offset = std::mem::offset_of!(State, mxcsr) as u16;
            let value = self.b.load_env(half(offset));
            self.write(insn, 0, Type::I32, value);
        }
        Ok(())
    }
}

fn uses_memory(insn: &Instruction) -> bool {
    (0..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::Memory)
}
