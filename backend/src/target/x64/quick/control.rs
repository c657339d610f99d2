//! Exits, links, calls and what leaves a block early.

use std::mem::offset_of;

use mimus_ir::block::CallInfo;
use mimus_ir::{Effects, Inst, NONE, Type};
use mimus_softmmu::tlb::PAGE_SIZE;
use mimus_softmmu::{EnvHeader, ExitCode, JumpCacheEntry};

use super::alloc::Class;
use super::emit::{Alu, Cond, Emitter, Gpr, LEA, R8, R9, RAX, RBX, RCX, RDI, RDX, RSI, Rm, Shift, Width, op};
use super::{Cold, Quick, Refused, vector};

impl Quick<'_> {
    /// Counts an execution of the block, and leaves when it was the last of the quick tier.
    pub(super) fn count_down(&mut self) {
        let counts = self.header(offset_of!(EnvHeader, counts));
        let hot = self.e.label();
        self.e.mov(Width::Wide, RAX, counts);
        self.e.alu_imm(Width::Plain, Alu::Sub, Rm::Mem(RAX, (self.link_slot / 2 * 4) as i32), 1);
        self.e.jump_if(Cond::S, hot);
        self.cold.push((hot, Cold::Leave { pc: self.block.pc, code: ExitCode::Hot }));
    }

    /// In counted mode: counts the instructions that are complete, before something that may leave.
    pub(super) fn count_now(&mut self) {
        let n = std::mem::take(&mut self.uncounted);
        if n != 0 && self.request.counted {
            let insns = self.header(offset_of!(EnvHeader, insns));
            self.e.alu_imm(Width::Wide, Alu::Add, insns, n);
        }
    }

    /// Counts the instruction that ends the block, too.
    fn count_all(&mut self) {
        self.uncounted += i32::from(self.begun);
        self.count_now();
    }

    /// Emits what is off the hot path.
    pub(super) fn finish(&mut self) -> Result<(), Refused> {
        let mut next = 0;
        while next < self.cold.len() {
            let (label, cold) = self.cold[next];
            next += 1;
            self.e.place(label);
            match cold {
                Cold::Slow(slow) => self.slow_access(slow)?,
                Cold::Park { back } => {
                    let park = self.header(offset_of!(EnvHeader, extension_park));
                    self.e.call(park);
                    self.e.jump(back);
                }
                Cold::Trap { pc, code } => {
                    self.store_pc(pc);
                    self.e.mov_imm(RSI, code);
                    let thunk = self.header(offset_of!(EnvHeader, slow_trap));
                    self.e.call(thunk);
                    self.e.jump(self.stopped);
                }
                Cold::Leave { pc, code } => {
                    self.store_pc(pc);
                    self.return_code(code);
                }
            }
        }
        self.e.place(self.stopped);
        self.return_code(ExitCode::Stopped);
        Ok(())
    }

    /// `reg` = a guest PC of the block as the guest has it. Uses RDX; the flags are left alone.
    fn guest_pc(&mut self, reg: Gpr, pc: u64) {
        let base = self.header(offset_of!(EnvHeader, pc_base));
        if pc == 0 {
            self.e.mov(Width::Wide, reg, base);
        } else if let Ok(offset) = i32::try_from(pc as i64) {
            self.e.mov(Width::Wide, reg, base);
            self.e.inst(Width::Wide, LEA, reg, Rm::Mem(reg, offset));
        } else {
            self.e.mov(Width::Wide, reg, base);
            self.e.mov_imm_flags(RDX, pc);
            self.e.inst(Width::Wide, LEA, reg, Rm::Index(reg, RDX, 0, 0));
        }
    }

    pub(super) fn pc_op(&mut self, inst: &Inst) -> Result<(), Refused> {
        let reg = self.result()?;
        self.guest_pc(reg, inst.imm);
        Ok(())
    }

    fn return_code(&mut self, code: ExitCode) {
        self.e.mov_imm(RAX, code as u64);
        self.e.ret();
    }

    pub(super) fn call(&mut self, inst: &Inst) -> Result<(), Refused> {
        if inst.ty == Type::V128 {
            return Err(Refused);
        }
        self.count_now();
        let info = CallInfo::decode(inst.imm);
        let conditional = info.effects.contains(Effects::CONDITIONAL);
        while let Some(spilled) = self.regs.spill_volatile(self.plan, self.index) {
            let (class, taken) = spilled?;
            let mem = self.spill(taken.slot.ok_or(Refused)?);
            match class {
                Class::General => self.e.mov_mem(8, mem, taken.reg),
                Class::Vector => self.e.inst(Width::Plain, vector::MOVUPS_TO_MEMORY, taken.reg, mem),
            }
        }
        let done = self.e.label();
        if conditional {
            self.move_to(RDX, inst.b, Type::I64)?;
            let guard = self.reg(inst.a, RAX)?;
            self.e.inst(Width::Wide, op(0x85), guard, Rm::Reg(guard));
            self.e.jump_if(Cond::E, done);
        }
        if info.effects.contains(Effects::FAULT) {
            self.store_pc(self.pc);
        }
        if !info.effects.contains(Effects::LEAF) {
            let live = self.header(offset_of!(EnvHeader, extension_live));
            let (park, back) = (self.e.label(), self.e.label());
            self.e.alu_imm(Width::Wide, Alu::Cmp, live, 0);
            self.e.jump_if(Cond::NE, park);
            self.e.place(back);
            self.cold.push((park, Cold::Park { back }));
        }
        for (argument, v) in [(RSI, inst.a), (RDX, inst.b), (RCX, inst.c)] {
            match v {
                NONE => self.e.mov_imm(argument, 0),
                v => self.move_to(argument, v, Type::I64)?,
            }
        }
        self.e.mov_imm(R8, info.arg.into());
        let helpers = self.header(offset_of!(EnvHeader, helpers));
        self.e.mov(Width::Wide, RAX, helpers);
        let helper = Rm::Mem(RAX, i32::from(info.helper) * 8);
        let float_call = self.header(offset_of!(EnvHeader, float_call));
        // Also aligns the stack.
        self.e.push(RDI);
        if info.effects.contains(Effects::FLOAT) {
            self.e.mov(Width::Wide, R9, helper);
            self.e.call(float_call);
        } else {
            self.e.call(helper);
        }
        self.e.pop(RDI);
        // Before the result has a register: what this one is for may be in memory then.
        if info.effects.contains(Effects::FAULT) {
            self.leave_on_verdict();
        }
        if conditional {
            self.e.mov(Width::Wide, RDX, Rm::Reg(RAX));
            self.e.place(done);
        }
        let reg = self.result()?;
        self.e.zero_extend(inst.ty.bytes(), reg, Rm::Reg(if conditional { RDX } else { RAX }));
        Ok(())
    }

    pub(super) fn trap_if(&mut self, inst: &Inst) -> Result<(), Refused> {
        self.count_now();
        let cond = self.condition(inst.a)?;
        let trap = self.e.label();
        self.e.jump_if(cond, trap);
        self.cold.push((trap, Cold::Trap { pc: self.pc, code: inst.imm }));
        Ok(())
    }

    pub(super) fn jump(&mut self, inst: &Inst) -> Result<(), Refused> {
        if inst.c > 1 {
            return Err(Refused);
        }
        self.count_all();
        self.leave_to(inst.imm, inst.c);
        Ok(())
    }

    pub(super) fn branch(&mut self, inst: &Inst) -> Result<(), Refused> {
        self.count_all();
        let cond = self.condition(inst.a)?;
        let taken = self.e.label();
        self.e.jump_if(cond, taken);
        self.leave_to(self.block.fallthrough, 1);
        self.e.place(taken);
        self.leave_to(inst.imm, 0);
        Ok(())
    }

    pub(super) fn jump_ind(&mut self, inst: &Inst) -> Result<(), Refused> {
        self.count_all();
        self.move_to(RSI, inst.a, Type::I64)?;
        self.leave_indirect();
        Ok(())
    }

    pub(super) fn exit(&mut self, inst: &Inst) {
        self.count_all();
        self.store_pc(inst.imm);
        self.return_code(ExitCode::Main);
    }

    /// Leaves to a constant guest PC.
    fn leave_to(&mut self, target: u64, slot: u16) {
        let linear = |pc: u64| pc.wrapping_add(self.request.linear_offset);
        let page = |pc: u64| linear(pc) / PAGE_SIZE;
        if !self.request.may_link || page(target) != page(self.block.pc) {
            self.guest_pc(RSI, target);
            return self.leave_indirect();
        }
        if linear(target) <= linear(self.pc) {
            let request = self.header(offset_of!(EnvHeader, exit_request));
            let requested = self.e.label();
            self.e.alu_imm(Width::Plain, Alu::Cmp, request, 0);
            self.e.jump_if(Cond::NE, requested);
            self.cold.push((requested, Cold::Leave { pc: target, code: ExitCode::Requested }));
        }
        self.link_targets[usize::from(slot & 1)] = Some(target);
        let number = self.link_slot + u32::from(slot);
        let links = self.header(offset_of!(EnvHeader, links));
        self.e.mov(Width::Wide, RAX, links);
        // The exit stub wants to know by which slot.
        self.e.mov_imm_flags(RSI, number.into());
        // A plain load acquires on this host: whoever links publishes the target's code first.
        self.e.jump_mem(Rm::Mem(RAX, number as i32 * 8));
    }

    /// Leaves to the guest PC in RSI, of another page or not known before.
    fn leave_indirect(&mut self) {
        if self.request.may_link {
            let stub = self.header(offset_of!(EnvHeader, indirect));
            self.e.jump_mem(stub);
        } else {
            let value = self.header(offset_of!(EnvHeader, exit_value));
            self.e.mov_mem(8, value, RSI);
            self.return_code(ExitCode::Indirect);
        }
    }
}

/// The code of [`crate::Thunks::checked_stub`]: goes to the guest PC that the link slot numbered by RSI leads to, by the code of
/// [`indirect_stub`].
pub(crate) fn checked_stub(header_offset: i32) -> Vec<u8> {
    let field = |field: usize| Rm::Mem(RDI, header_offset + field as i32);
    let mut e = Emitter::default();
    e.mov(Width::Wide, RAX, field(offset_of!(EnvHeader, link_targets)));
    e.mov(Width::Wide, RSI, Rm::Index(RAX, RSI, 3, 0));
    e.alu(Width::Wide, Alu::Add, RSI, field(offset_of!(EnvHeader, pc_base)));
    e.jump_mem(field(offset_of!(EnvHeader, indirect)));
    e.code
}

/// The code of [`EnvHeader::indirect`]: goes to the guest PC in RSI by the jump cache, or to the dispatcher.
pub(crate) fn indirect_stub(header_offset: i32) -> Vec<u8> {
    let field = |field: usize| Rm::Mem(RDI, header_offset + field as i32);
    let mut e = Emitter::default();
    let (requested, miss) = (e.label(), e.label());
    e.alu_imm(Width::Plain, Alu::Cmp, field(offset_of!(EnvHeader, exit_request)), 0);
    e.jump_if(Cond::NE, requested);
    // As `mimus_softmmu::header::jump_cache_offset` says.
    e.mov(Width::Wide, RAX, Rm::Reg(RSI));
    e.shift_imm(Width::Wide, Shift::Shr, RAX, 10);
    e.alu(Width::Wide, Alu::Xor, RAX, Rm::Reg(RSI));
    e.shift_imm(Width::Wide, Shift::Shl, RAX, 5);
    e.alu(Width::Wide, Alu::And, RAX, field(offset_of!(EnvHeader, jump_cache_mask)));
    e.alu(Width::Wide, Alu::Add, RAX, field(offset_of!(EnvHeader, jump_cache)));
    let entry = |field: usize| Rm::Mem(RAX, field as i32);
    e.mov(Width::Wide, RCX, field(offset_of!(EnvHeader, jump_context)));
    e.alu(Width::Wide, Alu::Cmp, RSI, entry(offset_of!(JumpCacheEntry, pc)));
    e.jump_if(Cond::NE, miss);
    e.alu(Width::Wide, Alu::Cmp, RCX, entry(offset_of!(JumpCacheEntry, context)));
    e.jump_if(Cond::NE, miss);
    e.mov(Width::Wide, RCX, entry(offset_of!(JumpCacheEntry, pc_base)));
    e.mov_mem(8, field(offset_of!(EnvHeader, pc_base)), RCX);
    e.jump_mem(entry(offset_of!(JumpCacheEntry, entry)));
    for (label, code) in [(requested, ExitCode::Requested), (miss, ExitCode::Indirect)] {
        e.place(label);
        if code == ExitCode::Requested {
            e.alu(Width::Wide, Alu::Sub, RSI, field(offset_of!(EnvHeader, pc_base)));
        }
        e.mov_mem(8, field(offset_of!(EnvHeader, exit_value)), RSI);
        e.mov_imm(RAX, code as u64);
        e.ret();
    }
    // Every label is placed.
    let _ = e.finish();
    e.code
}

/// Calls the block at RSI, which may change every register but RBP, for a caller that the code generator made: to that, blocks
/// preserve RBX and R12 to R15. Takes env in RDI, as blocks do.
pub(crate) fn entry_shim() -> Vec<u8> {
    let mut e = Emitter::default();
    let saved = [RBX, 12, 13, 14, 15];
    saved.into_iter().for_each(|reg| e.push(reg));
    e.mov(Width::Wide, RAX, Rm::Reg(RSI));
    e.mov_imm(RSI, 0);
    e.call(Rm::Reg(RAX));
    saved.into_iter().rev().for_each(|reg| e.pop(reg));
    e.ret();
    e.code
}
