//! String instructions: single ones become ops, repeated ones a helper that loops.

use iced_x86::{Instruction, Mnemonic, Register};
use mimus_ir::block::Value;
use mimus_ir::op::{Op, Type};

use super::cond::Record;
use super::operand::{Addr, Gpr};
use super::{Lift, Lifted};
use crate::x86::flags::CcKind;
use crate::x86::helpers::Helper;
use crate::x86::state::{Rflags, Seg, reg, slot};
use crate::x86::strings::{Repeat, StringInsn, StringKind};

fn kind_and_width(mnemonic: Mnemonic) -> Option<(StringKind, Type)> {
    use StringKind::*;
    Some(match mnemonic {
        Mnemonic::Movsb => (Movs, Type::I8),
        Mnemonic::Movsw => (Movs, Type::I16),
        Mnemonic::Movsd => (Movs, Type::I32),
        Mnemonic::Movsq => (Movs, Type::I64),
        Mnemonic::Cmpsb => (Cmps, Type::I8),
        Mnemonic::Cmpsw => (Cmps, Type::I16),
        Mnemonic::Cmpsd => (Cmps, Type::I32),
        Mnemonic::Cmpsq => (Cmps, Type::I64),
        Mnemonic::Stosb => (Stos, Type::I8),
        Mnemonic::Stosw => (Stos, Type::I16),
        Mnemonic::Stosd => (Stos, Type::I32),
        Mnemonic::Stosq => (Stos, Type::I64),
        Mnemonic::Lodsb => (Lods, Type::I8),
        Mnemonic::Lodsw => (Lods, Type::I16),
        Mnemonic::Lodsd => (Lods, Type::I32),
        Mnemonic::Lodsq => (Lods, Type::I64),
        Mnemonic::Scasb => (Scas, Type::I8),
        Mnemonic::Scasw => (Scas, Type::I16),
        Mnemonic::Scasd => (Scas, Type::I32),
        Mnemonic::Scasq => (Scas, Type::I64),
        Mnemonic::Insb => (Ins, Type::I8),
        Mnemonic::Insw => (Ins, Type::I16),
        Mnemonic::Insd => (Ins, Type::I32),
        Mnemonic::Outsb => (Outs, Type::I8),
        Mnemonic::Outsw => (Outs, Type::I16),
        Mnemonic::Outsd => (Outs, Type::I32),
        _ => return None,
    })
}

/// Address width of a string instruction, by its index registers.
fn index_type(insn: &Instruction) -> Type {
    use iced_x86::OpKind::*;
    for i in 0..insn.op_count() {
        match insn.op_kind(i) {
            MemorySegSI | MemorySegDI | MemoryESDI => return Type::I16,
            MemorySegESI | MemorySegEDI | MemoryESEDI => return Type::I32,
            MemorySegRSI | MemorySegRDI | MemoryESRDI => return Type::I64,
            _ => {}
        }
    }
    Type::I64
}

/// Whether the mnemonic is MOVSD or CMPSD of SSE2 rather than a string instruction.
fn is_vector(insn: &Instruction) -> bool {
    (0..insn.op_count()).any(|i| insn.op_kind(i) == iced_x86::OpKind::Register && insn.op_register(i).is_xmm())
}

impl Lift {
    /// Every string instruction; and the SSE2 instructions that share two of their mnemonics.
    pub(super) fn string(&mut self, insn: &Instruction) -> Lifted {
        if is_vector(insn) {
            return self.vector(insn);
        }
        let Some((kind, ty)) = kind_and_width(insn.mnemonic()) else { return Err(super::Refusal::Undefined) };
        let seg = match insn.segment_prefix() {
            Register::None => Seg::Ds,
            other => super::operand::seg_of(other).unwrap_or(Seg::Ds),
        };
        let repeat = match (insn.has_rep_prefix(), insn.has_repne_prefix()) {
            (false, false) => Repeat::None,
            (_, true) => Repeat::WhileNotEqual,
            _ => Repeat::WhileEqual,
        };
        let address = index_type(insn);
        if repeat == Repeat::None && !matches!(kind, StringKind::Ins | StringKind::Outs) {
            self.single(kind, ty, seg, address);
            return Ok(());
        }
        let encoded = StringInsn { kind, log2: ty as u8, repeat, address_log2: address as u8, seg };
        self.call(Helper::StringOp, Type::I64, &[], encoded.encode());
        if matches!(kind, StringKind::Ins | StringKind::Outs) {
            // As IN and OUT.
            self.end_to_dispatcher();
        } else {
            self.end_after_helper_store();
        }
        Ok(())
    }

    fn index_address(&mut self, number: usize, seg: Seg, address: Type, ty: Type, write: bool) -> (Value, Addr) {
        let index = self.gpr(number);
        let addr = self.linear_in(seg, Addr { value: index, disp: 0 }, address, ty.bytes(), write);
        (index, addr)
    }

    fn advance(&mut self, number: usize, index: Value, address: Type, step: Value) {
        let value = self.b.binary(Op::Add, address, index, step);
        self.write_gpr(Gpr::new(number, address), value);
    }

    fn single(&mut self, kind: StringKind, ty: Type, seg: Seg, address: Type) {
        let flags = self.b.load_env(slot::FLAGS);
        let down = self.b.extract(Type::I64, flags, Rflags::DF.position(), 1);
        let up = self.iconst(u64::from(ty.bytes()));
        let back = self.iconst(u64::from(ty.bytes()).wrapping_neg());
        let step = self.b.select(Type::I64, down, back, up);
        let source = matches!(kind, StringKind::Movs | StringKind::Cmps | StringKind::Lods);
        let target = !matches!(kind, StringKind::Lods);
        let si = source.then(|| self.index_address(reg::RSI, seg, address, ty, false));
        let left = match si {
            Some((_, addr)) => self.load(ty, addr),
            None => self.gpr(reg::RAX),
        };
        let di = target.then(|| {
            let write = matches!(kind, StringKind::Movs | StringKind::Stos);
            self.index_address(reg::RDI, Seg::Es, address, ty, write)
        });
        match (kind, di) {
            (StringKind::Movs | StringKind::Stos, Some((_, addr))) => self.store(ty, addr, left),
            (StringKind::Cmps | StringKind::Scas, Some((_, addr))) => {
                let right = self.load(ty, addr);
                let dst = self.b.binary(Op::Sub, ty, left, right);
                self.set_flags(Record { kind: CcKind::Sub, ty, a: left, dst, src: right, aux: right });
            }
            _ => self.write_gpr(Gpr::new(reg::RAX, ty), left),
        }
        if let Some((index, _)) = si {
            self.advance(reg::RSI, index, address, step);
        }
        if let Some((index, _)) = di {
            self.advance(reg::RDI, index, address, step);
        }
    }
}
