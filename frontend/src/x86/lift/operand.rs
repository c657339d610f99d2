//! Operands: registers, immediates, effective and linear addresses.

use iced_x86::{Instruction, OpKind, Register};
use mimus_ir::block::{MemFlags, Value};
use mimus_ir::op::{Op, Type};

use super::Lift;
use crate::x86::Mode;
use crate::x86::exception::{Exception, vector};
use crate::x86::helpers::Helper;
use crate::x86::state::{Seg, gpr_slot, seg_base_slot};

/// A guest address: a value and a displacement added to it modulo 2^64.
#[derive(Clone, Copy)]
pub(super) struct Addr {
    pub value: Value,
    pub disp: i32,
}

/// Number, width and position of a general register.
#[derive(Clone, Copy)]
pub(super) struct Gpr {
    pub number: usize,
    pub ty: Type,
    /// AH, CH, DH or BH.
    pub high: bool,
}

impl Gpr {
    pub fn of(register: Register) -> Option<Gpr> {
        if !register.is_gpr() {
            return None;
        }
        Some(Gpr {
            number: register.full_register().number() & 15,
            ty: Type::int(register.size() as u32)?,
            high: matches!(register, Register::AH | Register::CH | Register::DH | Register::BH),
        })
    }

    pub fn new(number: usize, ty: Type) -> Gpr {
        Gpr { number, ty, high: false }
    }
}

/// Segment register of an iced register.
pub(super) fn seg_of(register: Register) -> Option<Seg> {
    Some(match register {
        Register::ES => Seg::Es,
        Register::CS => Seg::Cs,
        Register::SS => Seg::Ss,
        Register::DS => Seg::Ds,
        Register::FS => Seg::Fs,
        Register::GS => Seg::Gs,
        _ => return None,
    })
}

impl Lift {
    /// The whole 64-bit register `number`.
    pub(super) fn gpr(&mut self, number: usize) -> Value {
        self.b.load_env(gpr_slot(number))
    }

    /// A register operand; bits above its width are whatever the register holds there.
    pub(super) fn read_gpr(&mut self, gpr: Gpr) -> Value {
        let whole = self.gpr(gpr.number);
        if gpr.high { self.b.extract(Type::I64, whole, 8, 8) } else { whole }
    }

    /// Writes a register operand: 32-bit writes clear the upper half (SDM vol. 1, 3.4.1.1), narrower ones keep the rest.
    pub(super) fn write_gpr(&mut self, gpr: Gpr, value: Value) {
        let value = match gpr.ty {
            Type::I64 => value,
            Type::I32 => self.zext64(Type::I32, value),
            ty => {
                let old = self.gpr(gpr.number);
                self.b.deposit(Type::I64, old, value, if gpr.high { 8 } else { 0 }, ty.bits())
            }
        };
        self.b.store_env(gpr_slot(gpr.number), value);
    }

    /// Width of operand `index`.
    pub(super) fn operand_type(&self, insn: &Instruction, index: u32) -> Type {
        let bytes = match insn.op_kind(index) {
            OpKind::Register => insn.op_register(index).size(),
            OpKind::Memory => insn.memory_size().size(),
            OpKind::Immediate8 => 1,
            OpKind::Immediate16 | OpKind::Immediate8to16 => 2,
            OpKind::Immediate32 | OpKind::Immediate8to32 => 4,
            _ => 8,
        };
        Type::int(bytes as u32).unwrap_or(Type::I64)
    }

    pub(super) fn is_memory(&self, insn: &Instruction, index: u32) -> bool {
        insn.op_kind(index) == OpKind::Memory
    }

    /// Reads operand `index` as `ty`.
    pub(super) fn read(&mut self, insn: &Instruction, index: u32, ty: Type) -> Value {
        match insn.op_kind(index) {
            OpKind::Register => match Gpr::of(insn.op_register(index)) {
                Some(gpr) => self.read_gpr(gpr),
                None => self.iconst(0),
            },
            OpKind::Memory => {
                let addr = self.linear(insn, ty.bytes(), false);
                self.load(ty, addr)
            }
            _ => self.immediate(insn, index, ty),
        }
    }

    /// An immediate operand: a constant, unless it is one that changes.
    fn immediate(&mut self, insn: &Instruction, index: u32, ty: Type) -> Value {
        use OpKind::*;
        let signed = match insn.op_kind(index) {
            Immediate8to16 | Immediate8to32 | Immediate8to64 | Immediate32to64 => Some(true),
            Immediate8 | Immediate16 | Immediate32 | Immediate64 => Some(false),
            _ => None,
        };
        match (self.immediate, signed) {
            (Some((offset, len)), Some(signed)) => {
                self.read.push((offset, len));
                let at = self.iconst(self.gpa + u64::from(offset));
                self.call(Helper::CodeOperand, ty, &[at], len | u32::from(signed) << 8 | ty.bytes() << 16)
            }
            _ => self.b.iconst(ty, insn.immediate(index)),
        }
    }

    /// Writes operand `index`.
    pub(super) fn write(&mut self, insn: &Instruction, index: u32, ty: Type, value: Value) {
        if self.is_memory(insn, index) {
            let addr = self.linear(insn, ty.bytes(), true);
            self.store(ty, addr, value);
        } else if let Some(gpr) = Gpr::of(insn.op_register(index)) {
            self.write_gpr(gpr, value);
        }
    }

    pub(super) fn load(&mut self, ty: Type, addr: Addr) -> Value {
        self.b.load(ty, addr.value, addr.disp, MemFlags::empty())
    }

    pub(super) fn store(&mut self, ty: Type, addr: Addr, value: Value) {
        self.b.store(ty, addr.value, addr.disp, value, MemFlags::empty());
    }

    /// Reads memory that the same instruction then writes.
    pub(super) fn load_for_write(&mut self, ty: Type, addr: Addr) -> Value {
        self.b.load(ty, addr.value, addr.disp, MemFlags::FOR_WRITE)
    }

    /// The address as one value.
    pub(super) fn flatten(&mut self, addr: Addr) -> Value {
        if addr.disp == 0 {
            addr.value
        } else {
            self.b.binary_imm(Op::Add, Type::I64, addr.value, addr.disp as i64 as u64)
        }
    }

    /// Address width of the memory operand.
    pub(super) fn address_type(insn: &Instruction) -> Type {
        let base = insn.memory_base();
        let index = insn.memory_index();
        let bytes = match (base, index) {
            (Register::None, Register::None) => insn.memory_displ_size(),
            (Register::RIP, _) => 8,
            (Register::EIP, _) => 4,
            (Register::None, index) => index.size() as u32,
            (base, _) => base.size() as u32,
        };
        match bytes {
            2 => Type::I16,
            8 => Type::I64,
            _ => Type::I32,
        }
    }

    /// Offset of the memory operand in its segment, wrapped to the address width.
    pub(super) fn effective(&mut self, insn: &Instruction) -> Addr {
        let ty = Lift::address_type(insn);
        let disp = insn.memory_displacement64();
        let base = insn.memory_base();
        if matches!(base, Register::RIP | Register::EIP) {
            let pc = insn.ip_rel_memory_address();
            return match i32::try_from(pc as i64) {
                Ok(disp) if ty == Type::I64 => Addr { value: self.rip(0), disp },
                _ => Addr { value: self.rip(pc), disp: 0 },
            };
        }
        let base = Gpr::of(base).map(|r| self.gpr(r.number));
        let index =
            Gpr::of(insn.memory_index()).map(|r| (self.gpr(r.number), insn.memory_index_scale().trailing_zeros()));
        let small = ty == Type::I64 && i32::try_from(disp as i64).is_ok();
        let (folded, kept) = if small { (0, disp as i32) } else { (disp, 0) };
        let value = match (base, index) {
            (None, None) => return Addr { value: self.b.iconst(ty, disp), disp: 0 },
            (Some(base), None) if small => base,
            (Some(base), None) => self.b.binary_imm(Op::Add, ty, base, folded),
            (Some(base), Some((index, shift))) => self.b.lea(ty, base, index, shift, folded),
            (None, Some((index, shift))) => {
                let zero = self.iconst(0);
                self.b.lea(ty, zero, index, shift, folded)
            }
        };
        Addr { value, disp: kept }
    }

    /// Linear address of the memory operand, for an access of `size` bytes: in a segment that is not flat its checks are
    /// made first.
    pub(super) fn linear(&mut self, insn: &Instruction, size: u32, write: bool) -> Addr {
        let offset = self.effective(insn);
        let seg = seg_of(insn.memory_segment()).unwrap_or(Seg::Ds);
        self.linear_in(seg, offset, Lift::address_type(insn), size, write)
    }

    /// Linear address of `offset` in `seg`, its alignment checked where the mode asks for that.
    pub(super) fn linear_in(&mut self, seg: Seg, offset: Addr, ty: Type, size: u32, write: bool) -> Addr {
        let addr = self.linear_unaligned(seg, offset, ty, size, write);
        self.check_alignment(addr, size);
        addr
    }

    /// #AC(0) for an operand of 2, 4 or 8 bytes that is not aligned to its size, where alignment checks are on (SDM vol. 3A,
    /// 6.15, "Alignment Check Exception").
    pub(super) fn check_alignment(&mut self, addr: Addr, size: u32) {
        if !self.mode.intersects(Mode::ALIGN) || !matches!(size, 2 | 4 | 8) {
            return;
        }
        let flat = self.flatten(addr);
        let low = self.b.binary_imm(Op::AndI, Type::I8, flat, u64::from(size - 1));
        let odd = self.b.binary_imm(Op::NeI, Type::I8, low, 0);
        self.b.trap_if(odd, Exception::with_code(vector::AC, 0).trap_code());
    }

    fn linear_unaligned(&mut self, seg: Seg, offset: Addr, ty: Type, size: u32, write: bool) -> Addr {
        if self.mode.intersects(Mode::CODE64) {
            return match seg {
                Seg::Fs | Seg::Gs => {
                    let base = self.b.load_env(seg_base_slot(seg));
                    // The offset wraps at the address width before the base is added.
                    let offset_value = self.zext64(ty, offset.value);
                    Addr { value: self.b.binary(Op::Add, Type::I64, base, offset_value), disp: offset.disp }
                }
                _ => Addr { value: self.zext64(ty, offset.value), disp: offset.disp },
            };
        }
        let offset = self.flatten(offset);
        let offset = self.zext64(ty, offset);
        if self.mode.flat(seg) {
            return Addr { value: offset, disp: 0 };
        }
        if self.mode.open(seg) {
            let base = self.b.load_env(seg_base_slot(seg));
            return Addr { value: self.b.binary(Op::Add, Type::I32, base, offset), disp: 0 };
        }
        let arg = seg as u32 | size << 8 | u32::from(write) << 16 | u32::from(seg == Seg::Ss) << 17;
        Addr { value: self.call(Helper::Linear, Type::I64, &[offset], arg), disp: 0 }
    }
}
