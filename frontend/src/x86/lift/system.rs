//! System instructions that are a helper and little else.

use iced_x86::{Instruction, Mnemonic, OpKind};
use mimus_ir::block::Value;
use mimus_ir::op::{Op, Type};

use super::operand::{Addr, Gpr};
use super::{Lift, Lifted, Refusal};
use crate::x86::Mode;
use crate::x86::exception::Exception;
use crate::x86::helpers::Helper;
use crate::x86::state::{Rflags, Seg, Segment, State, TableReg, reg, slot};

/// Slot of a field at `offset` in the state.
const fn field(offset: usize, ty: Type) -> mimus_ir::EnvSlot {
    mimus_ir::EnvSlot { offset: offset as u16, ty }
}

impl Lift {
    /// LGDT, LIDT.
    pub(super) fn load_table(&mut self, insn: &Instruction) -> Lifted {
        if self.privileged() {
            return Ok(());
        }
        let helper = if insn.mnemonic() == Mnemonic::Lgdt { Helper::Lgdt } else { Helper::Lidt };
        let base_type = if self.code64() { Type::I64 } else { Type::I32 };
        let addr = self.linear(insn, 2 + base_type.bytes(), false);
        let limit = self.load(Type::I16, addr);
        let flat = self.flatten(addr);
        let at = self.b.binary_imm(Op::AddI, Type::I64, flat, 2);
        let base = self.load(base_type, Addr { value: at, disp: 0 });
        // With a 16-bit operand size only 24 bits of the base are loaded (SDM vol. 2A, LGDT).
        let narrow = matches!(insn.code(), iced_x86::Code::Lgdt_m1632_16 | iced_x86::Code::Lidt_m1632_16);
        let base = if narrow { self.b.binary_imm(Op::AndI, Type::I32, base, 0xff_ffff) } else { base };
        self.call(helper, Type::I64, &[base, limit], 0);
        self.end_to_dispatcher();
        Ok(())
    }

    /// SGDT, SIDT.
    pub(super) fn store_table(&mut self, insn: &Instruction) -> Lifted {
        self.call(Helper::CheckUmip, Type::I64, &[], 0);
        let table = if insn.mnemonic() == Mnemonic::Sgdt {
            std::mem::offset_of!(State, gdtr)
        } else {
            std::mem::offset_of!(State, idtr)
        };
        let base_type = if self.code64() { Type::I64 } else { Type::I32 };
        let base = self.b.load_env(field(table + std::mem::offset_of!(TableReg, base), Type::I64));
        let limit = self.b.load_env(field(table + std::mem::offset_of!(TableReg, limit), Type::I64));
        let addr = self.linear(insn, 2 + base_type.bytes(), true);
        let flat = self.flatten(addr);
        let at = self.b.binary_imm(Op::AddI, Type::I64, flat, 2);
        self.store(Type::I16, addr, limit);
        self.store(base_type, Addr { value: at, disp: 0 }, base);
        Ok(())
    }

    /// SLDT, STR, SMSW.
    pub(super) fn store_system_register(&mut self, insn: &Instruction) -> Lifted {
        let selector = |segment: usize| field(segment + std::mem::offset_of!(Segment, selector), Type::I16);
        let slot = match insn.mnemonic() {
            Mnemonic::Sldt => selector(std::mem::offset_of!(State, ldtr)),
            Mnemonic::Str => selector(std::mem::offset_of!(State, tr)),
            _ => field(std::mem::offset_of!(State, cr0), Type::I64),
        };
        if self.mode.real_or_vm86() && insn.mnemonic() != Mnemonic::Smsw {
            return Err(Refusal::Undefined);
        }
        self.call(Helper::CheckUmip, Type::I64, &[], 0);
        let ty = if self.is_memory(insn, 0) { Type::I16 } else { self.operand_type(insn, 0) };
        let value = self.b.load_env(slot);
        self.write(insn, 0, ty, value);
        Ok(())
    }

    /// LLDT, LTR, LMSW.
    pub(super) fn load_system_register(&mut self, insn: &Instruction) -> Lifted {
        let helper = match insn.mnemonic() {
            Mnemonic::Lldt => Helper::Lldt,
            Mnemonic::Ltr => Helper::Ltr,
            _ => Helper::Lmsw,
        };
        if self.mode.real_or_vm86() && helper != Helper::Lmsw {
            return Err(Refusal::Undefined);
        }
        if self.privileged() {
            return Ok(());
        }
        let value = self.read(insn, 0, Type::I16);
        let value = self.zext64(Type::I16, value);
        self.call(helper, Type::I64, &[value], 0);
        self.end_to_dispatcher();
        Ok(())
    }

    /// LAR, LSL: ZF tells whether the destination was loaded.
    pub(super) fn load_rights(&mut self, insn: &Instruction) -> Lifted {
        if self.mode.real_or_vm86() {
            return Err(Refusal::Undefined);
        }
        let helper = if insn.mnemonic() == Mnemonic::Lar { Helper::Lar } else { Helper::Lsl };
        let ty = self.operand_type(insn, 0);
        let gpr = Gpr::of(insn.op_register(0)).ok_or(Refusal::Undefined)?;
        let selector = self.read(insn, 1, Type::I16);
        let selector = self.zext64(Type::I16, selector);
        let found = self.call(helper, Type::I64, &[selector], 0);
        let ok = self.b.extract(Type::I64, found, 32, 1);
        let old = self.flag_bits();
        let failed = self.b.binary_imm(Op::EqI, Type::I8, ok, 0);
        let value = self.b.extend(Op::Zext, Type::I64, Type::I32, found);
        let narrowed = if ty == Type::I16 { self.b.extend(Op::Zext, Type::I64, Type::I16, value) } else { value };
        self.keep_or_write(gpr, failed, narrowed);
        let bits = self.b.deposit(Type::I64, old, ok, Rflags::ZF.position(), 1);
        self.set_flag_bits(bits);
        Ok(())
    }

    /// VERR, VERW.
    pub(super) fn verify(&mut self, insn: &Instruction) -> Lifted {
        if self.mode.real_or_vm86() {
            return Err(Refusal::Undefined);
        }
        let helper = if insn.mnemonic() == Mnemonic::Verr { Helper::Verr } else { Helper::Verw };
        let selector = self.read(insn, 0, Type::I16);
        let selector = self.zext64(Type::I16, selector);
        let ok = self.call(helper, Type::I64, &[selector], 0);
        let old = self.flag_bits();
        let bits = self.b.deposit(Type::I64, old, ok, Rflags::ZF.position(), 1);
        self.set_flag_bits(bits);
        Ok(())
    }

    /// Instructions that are one helper call without operands, which may change modes; the block ends.
    pub(super) fn simple_system(&mut self, insn: &Instruction) -> Lifted {
        let helper = match insn.mnemonic() {
            Mnemonic::Clts => Helper::Clts,
            Mnemonic::Sti => Helper::Sti,
            Mnemonic::Clac => Helper::Clac,
            Mnemonic::Stac => Helper::Stac,
            Mnemonic::Wrmsr => Helper::Wrmsr,
            Mnemonic::Xsetbv => Helper::Xsetbv,
            _ => Helper::CheckCpl0,
        };
        self.call(helper, Type::I64, &[], 0);
        self.end_to_context();
        Ok(())
    }

    /// SWAPGS. In 64-bit mode the mode does not depend on the base of GS.
    pub(super) fn swapgs(&mut self, _: &Instruction) -> Lifted {
        if !self.code64() {
            self.raise(Exception::ud());
            return Ok(());
        }
        if self.privileged() {
            return Ok(());
        }
        let segment = std::mem::offset_of!(State, seg) + Seg::Gs as usize * size_of::<Segment>();
        let visible = field(segment + std::mem::offset_of!(Segment, base), Type::I64);
        let hidden = field(std::mem::offset_of!(State, kernel_gs_base), Type::I64);
        let (old, new) = (self.b.load_env(visible), self.b.load_env(hidden));
        self.b.store_env(hidden, old);
        self.b.store_env(visible, new);
        self.b.store_env(crate::x86::state::seg_base_slot(Seg::Gs), new);
        Ok(())
    }

    /// CLI. At privilege level 0 outside virtual-8086 mode it cannot fail.
    pub(super) fn cli(&mut self, _: &Instruction) -> Lifted {
        if self.mode.cpl() == 0 {
            let flags = self.b.load_env(slot::FLAGS);
            let flags = self.b.binary_imm(Op::AndI, Type::I64, flags, (!Rflags::IF).bits());
            self.b.store_env(slot::FLAGS, flags);
        } else {
            self.call(Helper::Cli, Type::I64, &[], 0);
        }
        Ok(())
    }

    /// Instructions that are one helper call without operands and leave modes alone.
    pub(super) fn simple_query(&mut self, insn: &Instruction) -> Lifted {
        let (helper, arg) = match insn.mnemonic() {
            Mnemonic::Cpuid => (Helper::Cpuid, 0),
            Mnemonic::Rdtsc => (Helper::Rdtsc, 0),
            Mnemonic::Rdtscp => (Helper::Rdtsc, 1),
            Mnemonic::Rdmsr => (Helper::Rdmsr, 0),
            Mnemonic::Rdpmc => (Helper::Rdpmc, 0),
            _ => (Helper::Xgetbv, 0),
        };
        let flags = self.flags;
        self.call(helper, Type::I64, &[], arg);
        self.flags = flags;
        Ok(())
    }

    /// INVLPG.
    pub(super) fn invlpg(&mut self, insn: &Instruction) -> Lifted {
        if self.privileged() {
            return Ok(());
        }
        let seg = Lift::default_data_segment(insn);
        let offset = self.effective(insn);
        let offset = self.flatten(offset);
        let mut addr = self.zext64(Lift::address_type(insn), offset);
        if !self.mode.flat(seg) {
            let base = self.b.load_env(crate::x86::state::seg_base_slot(seg));
            addr = self.b.binary(Op::Add, if self.code64() { Type::I64 } else { Type::I32 }, base, addr);
        }
        self.call(Helper::Invlpg, Type::I64, &[addr], 0);
        self.end_to_context();
        Ok(())
    }

    /// INVPCID.
    pub(super) fn invpcid(&mut self, insn: &Instruction) -> Lifted {
        if self.privileged() {
            return Ok(());
        }
        let kind = self.read(insn, 0, self.operand_type(insn, 0));
        let kind = if self.code64() { kind } else { self.zext64(Type::I32, kind) };
        let addr = self.linear(insn, 16, false);
        let low = self.load(Type::I64, addr);
        let flat = self.flatten(addr);
        let at = self.b.binary_imm(Op::AddI, Type::I64, flat, 8);
        let high = self.load(Type::I64, Addr { value: at, disp: 0 });
        self.call(Helper::Invpcid, Type::I64, &[kind, low, high], 0);
        self.end_to_context();
        Ok(())
    }

    fn port(&mut self, insn: &Instruction, index: u32) -> Value {
        if insn.op_kind(index) == OpKind::Immediate8 {
            return self.iconst(u64::from(insn.immediate8()));
        }
        let dx = self.gpr(reg::RDX);
        self.b.extend(Op::Zext, Type::I64, Type::I16, dx)
    }

    /// IN. The block ends, so that what the device did is seen at once.
    pub(super) fn port_in(&mut self, insn: &Instruction) -> Lifted {
        let ty = self.operand_type(insn, 0);
        let port = self.port(insn, 1);
        let value = self.call(Helper::PortIn, ty, &[port], ty.bytes());
        self.write(insn, 0, ty, value);
        self.end_to_dispatcher();
        Ok(())
    }

    /// OUT.
    pub(super) fn port_out(&mut self, insn: &Instruction) -> Lifted {
        let ty = self.operand_type(insn, 1);
        let port = self.port(insn, 0);
        let acc = self.gpr(reg::RAX);
        let value = self.b.extend(Op::Zext, Type::I64, if ty == Type::I64 { Type::I32 } else { ty }, acc);
        self.call(Helper::PortOut, Type::I64, &[port, value], ty.bytes());
        self.end_to_dispatcher();
        Ok(())
    }

    /// RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE.
    pub(super) fn fs_gs_base(&mut self, insn: &Instruction) -> Lifted {
        if !self.code64() {
            return Err(Refusal::Undefined);
        }
        let ty = self.operand_type(insn, 0);
        let gs = u32::from(matches!(insn.mnemonic(), Mnemonic::Rdgsbase | Mnemonic::Wrgsbase));
        let arg = gs | ty.bytes() << 8;
        if matches!(insn.mnemonic(), Mnemonic::Rdfsbase | Mnemonic::Rdgsbase) {
            let value = self.call(Helper::ReadFsGsBase, ty, &[], arg);
            self.write(insn, 0, ty, value);
        } else {
            let value = self.read(insn, 0, ty);
            let value = self.zext64(ty, value);
            let flags = self.flags;
            self.call(Helper::WriteFsGsBase, Type::I64, &[value], arg);
            self.flags = flags;
        }
        Ok(())
    }

    /// #UD or #NM where x87, MMX or SSE are not available (SDM vol. 3A, tables 2-2, 13-1): whether it was raised.
    pub(super) fn unavailable(&mut self, sse: bool, mmx: bool) -> bool {
        use crate::x86::exception::vector;
        let undefined = (sse || mmx) && self.mode.intersects(Mode::EM) || sse && !self.mode.intersects(Mode::OSFXSR);
        if undefined {
            self.raise(Exception::ud());
        } else if self.mode.intersects(Mode::TS) || !sse && !mmx && self.mode.intersects(Mode::EM) {
            self.raise(Exception::plain(vector::NM));
        }
        self.ended
    }
}
