//! Guest memory: the TLB probe, and the slow paths behind the block.

use std::mem::offset_of;

use mimus_ir::op::RmwKind;
use mimus_ir::{Inst, MemFlags, Type, Value};
use mimus_softmmu::tlb::probe;
use mimus_softmmu::{EnvHeader, ExitCode};

use super::alloc::Loc;
use super::emit::{
    Alu, Cond, Emitter, Gpr, LEA, Label, Opcode, R8, RAX, RCX, RDI, RDX, RSI, Rm, Shift, Width, op, op0f,
};
use super::{Cold, Quick, Refused, vector};
use crate::coalesce::ProbePlan;

/// A probe that several accesses off one value share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shared {
    /// Position of the access that makes it.
    leader: usize,
    /// What the displacements count from.
    base: Value,
    /// Displacement of its first byte.
    start: i32,
    /// Has the host address of that byte; 0 if the probe has found nothing.
    host: Gpr,
    /// Position of the last access that uses it.
    last: usize,
}

/// An access that the TLB does not serve: its address is in RAX once `base` is looked at, and its value is found there again.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlowAccess {
    pc: u64,
    /// What RAX is to be set to: a value, as it was at the access, or RAX itself, and a displacement.
    base: (Option<Loc>, i32),
    /// The register of a [`Shared`] that is to be 0 from now on.
    nothing: Option<Gpr>,
    path: Path,
    /// What is stored, or the operand of a read-modify-write, in the second argument's place.
    value: Option<Source>,
    /// A third argument, for compare-and-swap.
    new: Option<Source>,
    /// Constant, in the last argument's place.
    info: u64,
    back: Label,
}

/// What the TLB does not serve, in the order of [`EnvHeader::quick_slow`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
enum Path {
    Load,
    Rmw,
    Cas,
    /// A load or store that looks in the TLB itself first.
    ProbeLoad,
    ProbeStore,
}

/// Every path, in order: offset of its thunk in the header, and the register that has its last argument.
const PATHS: [(usize, Gpr); 5] = [
    (offset_of!(EnvHeader, slow_load), RDX),
    (offset_of!(EnvHeader, slow_rmw), RCX),
    (offset_of!(EnvHeader, slow_cas), R8),
    (offset_of!(EnvHeader, probe_load), RDX),
    (offset_of!(EnvHeader, probe_store), RCX),
];

/// Guest PCs below this are handed over in the last argument, above what it is else, plus 1.
const SHORT_PC: u64 = 0x7fff;

/// Where that has them, in bits; what it is else is below.
const PC_SHIFT: u8 = 16;

/// The codes of [`EnvHeader::quick_slow`]. Beside what their thunks do they take the guest PC of the instruction from the last
/// argument, leave the block if a verdict is out, and have the address of the value in RAX.
pub(crate) fn slow_stubs(header_offset: i32) -> [Vec<u8>; 5] {
    let field = |field: usize| Rm::Mem(RDI, header_offset + field as i32);
    PATHS.map(|(thunk, last)| {
        let mut e = Emitter::default();
        let (known, stopped) = (e.label(), e.label());
        e.mov(Width::Plain, RAX, Rm::Reg(last));
        e.shift_imm(Width::Plain, Shift::Shr, RAX, PC_SHIFT);
        e.jump_if(Cond::E, known);
        e.alu_imm(Width::Plain, Alu::Sub, Rm::Reg(RAX), 1);
        e.mov_mem(8, field(offset_of!(EnvHeader, exit_value)), RAX);
        e.zero_extend(2, last, Rm::Reg(last));
        e.place(known);
        e.call(field(thunk));
        e.alu_imm(Width::Plain, Alu::Cmp, field(offset_of!(EnvHeader, verdict)), 0);
        e.jump_if(Cond::NE, stopped);
        e.inst(Width::Wide, LEA, RAX, field(offset_of!(EnvHeader, slow_value)));
        e.ret();
        // Out of the block that called.
        e.place(stopped);
        e.pop(RAX);
        e.mov_imm(RAX, ExitCode::Stopped as u64);
        e.ret();
        // Every label is placed.
        let _ = e.finish();
        e.code
    })
}

/// Where an operand was at the access.
#[derive(Clone, Copy, Debug)]
struct Source {
    loc: Loc,
    ty: Type,
}

/// What an access needs of its page.
#[derive(Clone, Copy)]
struct Access {
    size: u32,
    write: bool,
    aligned: bool,
}

const ADD_BANK: Opcode = op(0x03);

const TEST: Opcode = op(0x85);

impl Quick<'_> {
    /// Has the host address of guest address `a + disp` in RAX; behind a miss, what `slow` says is done. Uses RCX and RDX.
    fn probe(&mut self, inst: &Inst, disp: i32, access: Access, mut slow: SlowAccess) -> Result<(), Refused> {
        let miss = self.look_up(inst, disp, access)?;
        slow.back = self.e.label();
        self.e.place(slow.back);
        self.cold.push((miss, Cold::Slow(slow)));
        Ok(())
    }

    /// Looks in the TLB for guest address `a + disp`, and has its host address in RAX; the label that a miss leads to.
    fn look_up(&mut self, inst: &Inst, disp: i32, access: Access) -> Result<Label, Refused> {
        let base = self.reg(inst.a, RAX)?;
        match disp {
            0 if base == RAX => {}
            0 => self.e.mov(Width::Wide, RAX, Rm::Reg(base)),
            _ => self.e.inst(Width::Wide, LEA, RAX, Rm::Mem(base, disp)),
        }
        let [bank, mask] = [probe::BANK, probe::MASK].map(|f| self.header(f));
        self.e.mov(Width::Wide, RCX, Rm::Reg(RAX));
        self.e.shift_imm(Width::Wide, Shift::Shr, RCX, probe::SHIFT as u8);
        self.e.alu(Width::Wide, Alu::And, RCX, mask);
        self.e.inst(Width::Wide, ADD_BANK, RCX, bank);
        self.e.mov(Width::Wide, RDX, Rm::Mem(RCX, probe::tag(access.write) as i32));
        self.e.alu(Width::Wide, Alu::Xor, RDX, Rm::Reg(RAX));
        let miss = self.e.label();
        if access.aligned {
            self.e.inst(Width::Wide, op(0xf7), 0, Rm::Reg(RDX));
            let wrong = probe::aligned(access.size.into()) as i32;
            self.e.code.extend_from_slice(&wrong.to_le_bytes());
            self.e.jump_if(Cond::NE, miss);
        } else {
            let limit = probe::limit(access.size.into()) as i32;
            self.e.alu_imm(Width::Wide, Alu::Cmp, Rm::Reg(RDX), limit);
            self.e.jump_if(Cond::AE, miss);
        }
        self.e.inst(Width::Wide, ADD_BANK, RAX, Rm::Mem(RCX, probe::ADDEND as i32));
        Ok(miss)
    }

    /// As [`Quick::probe`] for a load or store, by a probe that it shares with others if there is one. `looking` is the path that
    /// looks in the TLB itself: that a shared probe finds nothing says little of one access.
    fn probe_shared(
        &mut self,
        inst: &Inst,
        access: Access,
        mut slow: SlowAccess,
        looking: Path,
    ) -> Result<(), Refused> {
        let (disp, leader) = (inst.mem_disp(), self.index);
        match self.probes[self.index] {
            ProbePlan::Leads { start, span } => {
                let Some((last, host)) = self.last_follower(inst).and_then(|last| Some((last, self.regs.lend()?)))
                else {
                    return self.probe(inst, disp, access, slow);
                };
                let miss = self.look_up(inst, start, Access { size: span, ..access })?;
                self.e.mov(Width::Wide, host, Rm::Reg(RAX));
                if disp != start {
                    self.e.inst(Width::Wide, LEA, RAX, Rm::Mem(RAX, disp - start));
                }
                self.shared.push(Shared { leader, base: inst.a, start, host, last });
                (slow.path, slow.base, slow.nothing) = (looking, (None, disp - start), Some(host));
                slow.back = self.e.label();
                self.e.place(slow.back);
                self.cold.push((miss, Cold::Slow(slow)));
                Ok(())
            }
            ProbePlan::Follows(leader) => {
                let found = self.shared.iter().find(|s| s.leader == usize::from(leader) && s.base == inst.a).copied();
                let Some(Shared { start, host, .. }) = found else { return self.probe(inst, disp, access, slow) };
                (slow.path, slow.base) = (looking, (Some(self.regs.get(inst.a)?), disp));
                let miss = self.e.label();
                self.e.inst(Width::Wide, TEST, host, Rm::Reg(host));
                self.e.jump_if(Cond::E, miss);
                self.e.inst(Width::Wide, LEA, RAX, Rm::Mem(host, disp.wrapping_sub(start)));
                slow.back = self.e.label();
                self.e.place(slow.back);
                self.cold.push((miss, Cold::Slow(slow)));
                Ok(())
            }
            ProbePlan::Alone => self.probe(inst, disp, access, slow),
        }
    }

    /// The last access off the same value that uses the probe of the current one.
    fn last_follower(&self, leader: &Inst) -> Option<usize> {
        let follows = |at: &usize| self.probes[*at] == ProbePlan::Follows(self.index as Value);
        let same = |at: &usize| self.block.insts[*at].a == leader.a;
        (self.index + 1..self.probes.len()).rev().filter(follows).find(same)
    }

    /// Gives back the registers of shared probes that the op at `at` was the last one to use.
    pub(super) fn end_shared(&mut self, at: usize) {
        let regs = &mut *self.regs;
        self.shared.retain(|shared| {
            if shared.last == at {
                regs.give_back(shared.host);
            }
            shared.last != at
        });
    }

    fn slow(&mut self, path: Path, info: u64) -> SlowAccess {
        self.count_now();
        SlowAccess {
            pc: self.pc,
            base: (None, 0),
            nothing: None,
            path,
            value: None,
            new: None,
            info,
            back: self.stopped,
        }
    }

    /// The cold part of [`Quick::probe`]: the thunk changes no register.
    pub(super) fn slow_access(&mut self, slow: SlowAccess) -> Result<(), Refused> {
        let short = slow.pc < SHORT_PC;
        if !short {
            self.store_pc(slow.pc);
        }
        let base = match slow.base.0 {
            None => RAX,
            Some(Loc::General(reg)) => reg,
            Some(Loc::Spilled(slot)) => {
                let spilled = self.spill(slot);
                self.e.mov(Width::Wide, RAX, spilled);
                RAX
            }
            Some(Loc::Const(imm)) => {
                self.e.mov_imm_flags(RAX, imm);
                RAX
            }
            Some(_) => return Err(Refused),
        };
        self.e.inst(Width::Wide, LEA, RSI, Rm::Mem(base, slow.base.1));
        let mut arguments = [RDX, RCX, R8].into_iter();
        // The new value first: it may be in R8.
        if let Some(Source { loc: Loc::Vector(reg), .. }) = slow.value {
            let stash = self.header(offset_of!(EnvHeader, slow_value));
            self.e.inst(Width::Plain, vector::MOVUPS_TO_MEMORY, reg, stash);
        }
        for source in [slow.value, slow.new].into_iter().flatten() {
            let argument = arguments.next().ok_or(Refused)?;
            let rm = match source.loc {
                Loc::General(reg) => Rm::Reg(reg),
                Loc::Spilled(slot) => self.spill(slot),
                Loc::Const(imm) => {
                    self.e.mov_imm_flags(argument, imm & source.ty.mask());
                    continue;
                }
                Loc::Vector(_) => continue,
                _ => return Err(Refused),
            };
            self.e.zero_extend(source.ty.bytes(), argument, rm);
        }
        let argument = arguments.next().ok_or(Refused)?;
        let pc = if short { slow.pc + 1 } else { 0 };
        self.e.mov_imm_flags(argument, slow.info | pc << PC_SHIFT);
        let stub = self.header(offset_of!(EnvHeader, quick_slow) + size_of::<u64>() * slow.path as usize);
        self.e.call(stub);
        if let Some(host) = slow.nothing {
            self.e.alu(Width::Plain, Alu::Xor, host, Rm::Reg(host));
        }
        self.e.jump(slow.back);
        Ok(())
    }

    /// Leaves for the dispatcher if a verdict is out.
    pub(super) fn leave_on_verdict(&mut self) {
        let verdict = self.header(offset_of!(EnvHeader, verdict));
        self.e.alu_imm(Width::Plain, Alu::Cmp, verdict, 0);
        self.e.jump_if(Cond::NE, self.stopped);
    }

    pub(super) fn load(&mut self, inst: &Inst) -> Result<(), Refused> {
        let (size, flags) = (inst.ty.bytes(), inst.mem_flags());
        let write = flags.contains(MemFlags::FOR_WRITE);
        let path = if write { Path::ProbeLoad } else { Path::Load };
        let slow = self.slow(path, size_and_flags(size, flags));
        let access = Access { size, write, aligned: false };
        self.probe_shared(inst, access, slow, Path::ProbeLoad)?;
        if inst.ty == Type::V128 {
            let reg = self.result_vector()?;
            self.e.inst(Width::Plain, vector::MOVUPS, reg, Rm::Mem(RAX, 0));
        } else {
            let reg = self.result()?;
            self.e.zero_extend(size, reg, Rm::Mem(RAX, 0));
        }
        Ok(())
    }

    pub(super) fn store(&mut self, inst: &Inst) -> Result<(), Refused> {
        let (size, flags) = (inst.ty.bytes(), inst.mem_flags());
        // A page with code has no tag for stores: the thunk makes those beside the code.
        let mut slow = self.slow(Path::ProbeStore, size_and_flags(size, flags));
        let access = Access { size, write: true, aligned: false };
        if inst.ty == Type::V128 {
            let reg = self.vector_reg(inst.b, 0)?;
            slow.value = Some(Source { loc: Loc::Vector(reg), ty: inst.ty });
            self.probe_shared(inst, access, slow, Path::ProbeStore)?;
            self.e.inst(Width::Plain, vector::MOVUPS_TO_MEMORY, reg, Rm::Mem(RAX, 0));
            return Ok(());
        }
        slow.value = Some(Source { loc: self.regs.get(inst.b)?, ty: inst.ty });
        self.probe_shared(inst, access, slow, Path::ProbeStore)?;
        self.store_int(inst.b, inst.ty, Rm::Mem(RAX, 0))
    }

    pub(super) fn rmw(&mut self, inst: &Inst) -> Result<(), Refused> {
        let kind = RmwKind::from_code(inst.c).ok_or(Refused)?;
        let size = inst.ty.bytes();
        let info = u64::from(inst.c) | u64::from(size) << 8;
        let mut slow = self.slow(Path::Rmw, info);
        slow.value = Some(Source { loc: self.regs.get(inst.b)?, ty: inst.ty });
        self.probe(inst, 0, Access { size, write: true, aligned: true }, slow)?;
        self.e.mov(Width::Wide, RSI, Rm::Reg(RAX));
        let alu = match kind {
            RmwKind::Add => return self.exchange(inst, &[0xf0], op0f(0, 0xc1), op0f(0, 0xc0)),
            RmwKind::Xchg => return self.exchange(inst, &[], op(0x87), op(0x86)),
            RmwKind::And => Alu::And,
            RmwKind::Or => Alu::Or,
            RmwKind::Xor => Alu::Xor,
        };
        self.move_to(RCX, inst.b, inst.ty)?;
        self.e.zero_extend(size, RAX, Rm::Mem(RSI, 0));
        let again = self.e.label();
        self.e.place(again);
        self.e.mov(Width::Wide, RDX, Rm::Reg(RAX));
        self.e.alu(Width::Wide, alu, RDX, Rm::Reg(RCX));
        self.compare_exchange(size, RDX);
        self.e.jump_if(Cond::NE, again);
        let reg = self.result()?;
        self.e.zero_extend(size, reg, Rm::Reg(RAX));
        Ok(())
    }

    /// An instruction that puts a register into `[RSI]` and has the old value in it afterwards.
    fn exchange(&mut self, inst: &Inst, lock: &[u8], opcode: Opcode, byte: Opcode) -> Result<(), Refused> {
        self.move_to(RCX, inst.b, inst.ty)?;
        let reg = self.result()?;
        self.e.code.extend_from_slice(lock);
        let (width, opcode) = sized(inst.ty.bytes(), opcode, byte);
        self.e.inst(width, opcode, RCX, Rm::Mem(RSI, 0));
        self.e.zero_extend(inst.ty.bytes(), reg, Rm::Reg(RCX));
        Ok(())
    }

    /// `lock or dword [rsp], 0`, which takes less than MFENCE.
    pub(super) fn fence(&mut self) {
        self.e.code.extend_from_slice(&[0xf0, 0x83, 0x0c, 0x24, 0x00]);
    }

    /// `lock cmpxchg [rsi], new`.
    fn compare_exchange(&mut self, size: u32, new: u8) {
        self.e.code.push(0xf0);
        let (width, opcode) = sized(size, op0f(0, 0xb1), op0f(0, 0xb0));
        self.e.inst(width, opcode, new, Rm::Mem(RSI, 0));
    }

    pub(super) fn cas(&mut self, inst: &Inst) -> Result<(), Refused> {
        let size = inst.ty.bytes();
        let mut slow = self.slow(Path::Cas, size.into());
        // The slow path has its last argument in R8, which must not hold a value then.
        self.free_r8()?;
        slow.value = Some(Source { loc: self.regs.get(inst.b)?, ty: inst.ty });
        slow.new = Some(Source { loc: self.regs.get(inst.c)?, ty: inst.ty });
        self.probe(inst, 0, Access { size, write: true, aligned: true }, slow)?;
        self.e.mov(Width::Wide, RSI, Rm::Reg(RAX));
        self.move_to(RCX, inst.c, inst.ty)?;
        self.move_to(RAX, inst.b, inst.ty)?;
        self.compare_exchange(size, RCX);
        let reg = self.result()?;
        self.e.zero_extend(size, reg, Rm::Reg(RAX));
        Ok(())
    }

    /// Moves what is in R8 to memory.
    fn free_r8(&mut self) -> Result<(), Refused> {
        if let Some(slot) = self.regs.free_register(R8)? {
            let mem = self.spill(slot);
            self.e.mov_mem(8, mem, R8);
        }
        Ok(())
    }

    /// Leaves word of the current instruction where the stopped exit wants it. Uses RDX.
    pub(super) fn store_pc(&mut self, pc: u64) {
        let place = self.header(offset_of!(EnvHeader, exit_value));
        match i32::try_from(pc as i64) {
            Ok(short) => self.e.mov_mem_imm(8, place, short),
            Err(_) => {
                self.e.mov_imm_flags(RDX, pc);
                self.e.mov_mem(8, place, RDX);
            }
        }
    }
}

/// Width and opcode of an instruction that has a form for bytes.
fn sized(bytes: u32, opcode: Opcode, byte: Opcode) -> (Width, Opcode) {
    match bytes {
        1 => (Width::Byte, byte),
        2 => (Width::Plain, opcode.size16()),
        4 => (Width::Plain, opcode),
        _ => (Width::Wide, opcode),
    }
}

/// As [`EnvHeader::slow_load`] and [`EnvHeader::slow_store`] take it: size in bytes, flags from bit 8 on.
fn size_and_flags(size: u32, flags: MemFlags) -> u64 {
    u64::from(size) | u64::from(flags.bits()) << 8
}
