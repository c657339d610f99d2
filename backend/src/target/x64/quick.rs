//! The quick tier: x86-64 code for one block at a time, without Cranelift.
//!
//! Every op has a fixed template, and values get registers in one pass over the block: some 2 us a block instead of 100, for
//! code that takes perhaps half as long again to run. It is for blocks that are executed too often to be interpreted
//! and not (yet) often enough for the compiler. What comes out obeys the same rules as the compiler's code: entered with env in
//! RDI, position-independent, chained by link slots, faults leave before the instruction's first side effect.
//!
//! A block counts its executions down in [`mimus_softmmu::EnvHeader::counts`] and leaves with [`ExitCode::Hot`] when they are
//! over. A block with an op that has no template, or too many values alive, is left to the other tiers.
//!
//! RDI is env, RBP is not touched (the code generator's frames rely on it), RAX, RCX, RDX, RSI, XMM0 and XMM1 are scratch; the
//! other registers hold values. Integers are zero-extended to 64 bits, as the interpreter holds them.

mod alloc;
mod control;
mod emit;
mod memory;
mod pure;
mod vector;

use std::mem::offset_of;

use mimus_ir::{Block, Inst, MAX_INSTS, Op, Type, Value};
use mimus_softmmu::{EnvHeader, ExitCode};

use crate::coalesce::{self, ProbePlan};
use crate::compile::{CompiledInfo, Request};
use crate::host::{Arch, HostIsa};
use alloc::{Loc, Plan, Registers};
use emit::{Alu, Emitter, Gpr, Label, RAX, RCX, RDI, Rm, Width};

pub(crate) use control::{checked_stub, entry_shim, indirect_stub};
pub(crate) use memory::slow_stubs;

/// This tier has no code for the block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Refused;

/// Makes quick code; reused from block to block.
#[derive(Debug)]
pub struct QuickCompiler {
    fma: bool,
    emitter: Emitter,
    plan: Plan,
    registers: Registers,
    probes: Vec<ProbePlan>,
    shared: Vec<memory::Shared>,
    cold: Vec<(Label, Cold)>,
}

impl QuickCompiler {
    /// For `host`; `None` if there is no quick tier for it.
    pub fn new(host: &HostIsa) -> Option<QuickCompiler> {
        (host.arch == Arch::X64 && host.floats()).then(|| QuickCompiler {
            fma: host.fma(),
            emitter: Emitter::default(),
            plan: Plan::default(),
            registers: Registers::default(),
            probes: Vec::new(),
            shared: Vec::new(),
            cold: Vec::new(),
        })
    }

    /// Compiles a block, the request's only part. Its code is [`QuickCompiler::code`]. `None` if this tier does not do it.
    pub fn compile(&mut self, request: &Request<'_>) -> Option<CompiledInfo> {
        let [part] = request.parts else { return None };
        let block = part.block;
        if block.insts.len() > MAX_INSTS || !self.plan.make(block) {
            return None;
        }
        self.emitter.clear();
        self.shared.clear();
        self.cold.clear();
        self.registers.clear(block.insts.len());
        coalesce::plan(&block.insts, &mut self.probes);
        let stopped = self.emitter.label();
        let mut quick = Quick {
            e: &mut self.emitter,
            plan: &self.plan,
            regs: &mut self.registers,
            probes: &self.probes,
            shared: &mut self.shared,
            request,
            block,
            link_slot: part.link_slot,
            index: 0,
            pc: block.pc,
            begun: false,
            uncounted: 0,
            stopped,
            cold: &mut self.cold,
            link_targets: [None; 2],
            fma: self.fma,
        };
        quick.block().ok()?;
        let link_targets = quick.link_targets;
        self.emitter.finish()?;
        Some(CompiledInfo { entry_offset: 0, link_targets: vec![link_targets] })
    }

    /// The code of the last block compiled, which works at any address.
    pub fn code(&self) -> &[u8] {
        &self.emitter.code
    }

    /// The same as text, a line an instruction.
    pub fn listing(&self) -> String {
        super::listing::listing(self.code())
    }
}

/// Code off the hot path, which is emitted behind the block.
#[derive(Clone, Copy, Debug)]
enum Cold {
    /// A guest access that the TLB does not serve.
    Slow(memory::SlowAccess),
    /// The state of the guest's extension is put back into env.
    Park { back: Label },
    /// A trap with this code.
    Trap { pc: u64, code: u64 },
    /// Leaves to the dispatcher on the way to `pc`.
    Leave { pc: u64, code: ExitCode },
}

/// One block under construction.
struct Quick<'a> {
    e: &'a mut Emitter,
    plan: &'a Plan,
    regs: &'a mut Registers,
    /// How loads and stores look in the TLB.
    probes: &'a [ProbePlan],
    shared: &'a mut Vec<memory::Shared>,
    request: &'a Request<'a>,
    block: &'a Block,
    link_slot: u32,
    /// Position of the op being compiled.
    index: usize,
    /// Guest PC of the current instruction.
    pc: u64,
    /// Whether an instruction has begun.
    begun: bool,
    /// In counted mode: instructions complete but not counted yet.
    uncounted: i32,
    /// The exit of instructions that stop.
    stopped: Label,
    cold: &'a mut Vec<(Label, Cold)>,
    link_targets: [Option<u64>; 2],
    /// Whether the host has FMA3.
    fma: bool,
}

impl Quick<'_> {
    fn block(&mut self) -> Result<(), Refused> {
        self.count_down();
        if self.block.insts.iter().any(|i| i.op == Op::Float) {
            let floats = self.header(offset_of!(EnvHeader, floats));
            self.e.mov_mem_imm(4, floats, 1);
        }
        let block = self.block;
        for (index, inst) in block.insts.iter().enumerate() {
            self.index = index;
            self.regs.pin(inst);
            if inst.op == Op::Insn {
                self.pc = inst.imm;
                self.uncounted += i32::from(self.begun);
                self.begun = true;
            } else {
                self.op(inst)?;
            }
            self.regs.end(self.plan, &block.insts, index);
            self.end_shared(index);
        }
        self.finish()
    }

    fn op(&mut self, inst: &Inst) -> Result<(), Refused> {
        match inst.op {
            Op::Insn => {}
            Op::Const => self.regs.set(self.index, Loc::Const(inst.imm)),
            Op::Pc => self.pc_op(inst)?,
            Op::LoadEnv => self.load_env(inst)?,
            Op::StoreEnv => self.store_env(inst)?,
            Op::StoreEnvI => self.store_env_imm(inst),
            Op::Load => self.load(inst)?,
            Op::Store => self.store(inst)?,
            Op::Rmw => self.rmw(inst)?,
            Op::Cas => self.cas(inst)?,
            Op::Fence => self.fence(),
            Op::Call => self.call(inst)?,
            Op::Vec | Op::Float | Op::FloatTest => self.vector(inst)?,
            Op::TrapIf => self.trap_if(inst)?,
            Op::Jump => self.jump(inst)?,
            Op::Branch => self.branch(inst)?,
            Op::JumpInd => self.jump_ind(inst)?,
            Op::Exit => self.exit(inst),
            _ => self.pure(inst)?,
        }
        Ok(())
    }

    /// A field of the header.
    fn header(&self, field: usize) -> Rm {
        Rm::Mem(RDI, self.request.header_offset + field as i32)
    }

    fn spill(&self, slot: u8) -> Rm {
        self.header(offset_of!(EnvHeader, spills) + 16 * usize::from(slot))
    }

    fn type_of(&self, v: Value) -> Type {
        self.block.insts.get(usize::from(v)).and_then(Inst::result_type).unwrap_or(Type::I64)
    }

    /// A free general register, if need be by spilling what is needed last.
    fn alloc(&mut self) -> Result<Gpr, Refused> {
        let spill = self.regs.take(alloc::Class::General, self.plan).ok_or(Refused)?;
        if let Some(slot) = spill.slot {
            let mem = self.spill(slot);
            self.e.mov_mem(8, mem, spill.reg);
        }
        Ok(spill.reg)
    }

    /// A free XMM register, likewise.
    fn alloc_vector(&mut self) -> Result<u8, Refused> {
        let spill = self.regs.take(alloc::Class::Vector, self.plan).ok_or(Refused)?;
        if let Some(slot) = spill.slot {
            let mem = self.spill(slot);
            self.e.inst(Width::Plain, vector::MOVUPS_TO_MEMORY, spill.reg, mem);
        }
        Ok(spill.reg)
    }

    /// An integer operand where an instruction can read it: constants only if they are in a register anyway.
    fn rm(&mut self, v: Value, scratch: Gpr) -> Result<Rm, Refused> {
        Ok(match self.regs.get(v)? {
            Loc::General(reg) => Rm::Reg(reg),
            Loc::Spilled(slot) => self.spill(slot),
            Loc::Const(imm) => {
                self.e.mov_imm_flags(scratch, imm);
                Rm::Reg(scratch)
            }
            Loc::Deferred | Loc::Vector(_) | Loc::SpilledVector(_) | Loc::None => return Err(Refused),
        })
    }

    /// An integer operand in a register: its own, or `scratch`.
    fn reg(&mut self, v: Value, scratch: Gpr) -> Result<Gpr, Refused> {
        match self.rm(v, scratch)? {
            Rm::Reg(reg) => Ok(reg),
            mem => {
                self.e.mov(Width::Wide, scratch, mem);
                Ok(scratch)
            }
        }
    }

    /// Moves an integer operand to `reg`, truncated to `ty`. The flags are left alone.
    fn move_to(&mut self, reg: Gpr, v: Value, ty: Type) -> Result<(), Refused> {
        if let Loc::Const(imm) = self.regs.get(v)? {
            self.e.mov_imm_flags(reg, imm & ty.mask());
            return Ok(());
        }
        let rm = self.rm(v, RAX)?;
        let from = self.type_of(v).bytes().min(8);
        if from > ty.bytes() {
            self.e.zero_extend(ty.bytes(), reg, rm);
        } else if rm != Rm::Reg(reg) {
            // What is above the value's own type is zero.
            self.e.mov(if from == 8 || matches!(rm, Rm::Mem(..)) { Width::Wide } else { Width::Plain }, reg, rm);
        }
        Ok(())
    }

    /// A register for the current op's result that holds operand `a` already: its own if it is not needed any more. Bits above
    /// `ty` are undefined.
    fn result_from(&mut self, a: Value, ty: Type) -> Result<Gpr, Refused> {
        let inst = &self.block.insts[self.index];
        if let Loc::General(reg) = self.regs.get(a)?
            && self.plan.is_last(a, self.index)
            && ![inst.b, inst.c].contains(&a)
        {
            self.regs.release(a);
            self.regs.set(self.index, Loc::General(reg));
            return Ok(reg);
        }
        let reg = self.alloc()?;
        let width = if ty == Type::I64 { Width::Wide } else { Width::Plain };
        match self.regs.get(a)? {
            Loc::Const(imm) => self.e.mov_imm_flags(reg, imm & ty.mask()),
            _ => {
                let rm = self.rm(a, RAX)?;
                self.e.mov(width, reg, rm);
            }
        }
        self.regs.set(self.index, Loc::General(reg));
        Ok(reg)
    }

    /// A register for the current op's result.
    fn result(&mut self) -> Result<Gpr, Refused> {
        let reg = self.alloc()?;
        self.regs.set(self.index, Loc::General(reg));
        Ok(reg)
    }

    /// Truncates a result that was computed in 32 bits.
    fn narrow(&mut self, reg: Gpr, ty: Type) {
        if ty.bytes() < 4 {
            self.e.zero_extend(ty.bytes(), reg, Rm::Reg(reg));
        }
    }

    fn load_env(&mut self, inst: &Inst) -> Result<(), Refused> {
        let mem = Rm::Mem(RDI, inst.c.into());
        if inst.ty == Type::V128 {
            let reg = self.result_vector()?;
            self.e.inst(Width::Plain, vector::MOVUPS, reg, mem);
        } else {
            let reg = self.result()?;
            self.e.zero_extend(inst.ty.bytes(), reg, mem);
        }
        Ok(())
    }

    fn store_env(&mut self, inst: &Inst) -> Result<(), Refused> {
        let mem = Rm::Mem(RDI, inst.c.into());
        if inst.ty == Type::V128 {
            let reg = self.vector_reg(inst.a, 0)?;
            self.e.inst(Width::Plain, vector::MOVUPS_TO_MEMORY, reg, mem);
            return Ok(());
        }
        self.store_int(inst.a, inst.ty, mem)
    }

    /// Writes an integer operand to memory; uses RCX.
    fn store_int(&mut self, v: Value, ty: Type, mem: Rm) -> Result<(), Refused> {
        if let Loc::Const(imm) = self.regs.get(v)? {
            self.store_imm(ty, mem, imm);
            return Ok(());
        }
        let reg = self.reg(v, RCX)?;
        self.e.mov_mem(ty.bytes(), mem, reg);
        Ok(())
    }

    fn store_imm(&mut self, ty: Type, mem: Rm, imm: u64) {
        match i32::try_from(imm as i64) {
            Ok(short) => self.e.mov_mem_imm(ty.bytes(), mem, short),
            Err(_) if ty != Type::I64 => self.e.mov_mem_imm(ty.bytes(), mem, imm as i32),
            Err(_) => {
                self.e.mov_imm_flags(RCX, imm);
                self.e.mov_mem(8, mem, RCX);
            }
        }
    }

    fn store_env_imm(&mut self, inst: &Inst) {
        let offset = inst.c.into();
        if inst.ty == Type::V128 {
            self.store_imm(Type::I64, Rm::Mem(RDI, offset), inst.imm);
            self.store_imm(Type::I64, Rm::Mem(RDI, offset + 8), 0);
        } else {
            self.store_imm(inst.ty, Rm::Mem(RDI, offset), inst.imm);
        }
    }

    /// `op reg, operand` at width `ty`, of which 8 and 16 bits are done in 32; uses `scratch`.
    fn alu(&mut self, alu: Alu, reg: Gpr, v: Value, ty: Type, scratch: Gpr) -> Result<(), Refused> {
        let width = if ty == Type::I64 { Width::Wide } else { Width::Plain };
        if let Loc::Const(imm) = self.regs.get(v)? {
            self.alu_const(alu, reg, imm, ty, scratch);
            return Ok(());
        }
        let rm = self.rm(v, scratch)?;
        self.e.alu(width, alu, reg, rm);
        Ok(())
    }

    /// As [`Quick::alu`], with a constant.
    fn alu_const(&mut self, alu: Alu, reg: Gpr, imm: u64, ty: Type, scratch: Gpr) {
        match i32::try_from(imm as i64) {
            _ if ty != Type::I64 => self.e.alu_imm(Width::Plain, alu, Rm::Reg(reg), imm as i32),
            Ok(short) => self.e.alu_imm(Width::Wide, alu, Rm::Reg(reg), short),
            Err(_) => {
                self.e.mov_imm_flags(scratch, imm);
                self.e.alu(Width::Wide, alu, reg, Rm::Reg(scratch));
            }
        }
    }
}
