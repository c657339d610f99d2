//! Lowering: micro-ops to Cranelift's intermediate form.
//!
//! Every op is a case of [`Lowering::op`], which matches exhaustively: an op of the table that is not lowered
//! does not compile. Where an op allows what its row does not say (an operand of the wrong type), the block is
//! rejected as malformed rather than guessed at.

mod control;
mod extension;
mod float;
mod memory;
mod pages;
mod peel;
mod pure;
mod region;
mod sink;
mod vector;

use std::borrow::Cow;
use std::mem::offset_of;

use cranelift_codegen::ir::{
    AbiParam, AliasRegionData, Block, Endianness, InstBuilder, MemFlagsData, SigRef, Signature, Value, types,
};
use cranelift_codegen::isa::CallConv;
use cranelift_frontend::FunctionBuilder;
use mimus_ir::{Inst, MAX_INSTS, Op, Shape, Type};
use mimus_softmmu::EnvHeader;

use crate::coalesce;
use crate::compile::{MAX_PARTS, Request, block_signature};
use crate::error::BackendError;
use crate::host::HostIsa;
use crate::target::{self, Extension};
use pages::Pages;
use peel::PeeledLoop;
use region::Region;
use sink::{Source, SunkStores};

/// A value in each of the types it was used in, by [`Type`]; then lane 0 as a 32-bit and as a 64-bit float.
pub(crate) type TypedValues = [Option<Value>; 7];

/// What lowering found out beside the code.
pub(crate) struct Summary {
    /// See [`crate::CompiledInfo::link_targets`].
    pub link_targets: Vec<[Option<u64>; 2]>,
    /// Whether the code calls helpers directly, so that it must keep the stack aligned.
    pub calls_helpers: bool,
}

/// A row of the slow paths' table: the pointer to the thunk in the header, and how many arguments it takes.
pub(crate) struct SlowPath {
    /// Offset of the thunk's pointer in [`EnvHeader`].
    pub offset: usize,
    /// Offset of the pointer to the Rust function behind it.
    pub rust: usize,
    /// Number of 64-bit arguments, env included.
    pub params: usize,
}

const fn slow_path(offset: usize, rust: usize, params: usize) -> SlowPath {
    SlowPath { offset, rust, params }
}

/// Offset of entry `index` of [`EnvHeader::slow_rust`].
const fn slow_rust(index: usize) -> usize {
    offset_of!(EnvHeader, slow_rust) + 8 * index
}

/// Offset of entry `index` of [`EnvHeader::extension_rust`].
const fn extension_rust(index: usize) -> usize {
    offset_of!(EnvHeader, extension_rust) + 8 * index
}

/// The slow paths, in the order of [`Slow`]. Those that look in the TLB first have the same functions as those that do not.
pub(crate) const SLOW_PATHS: [SlowPath; 10] = [
    slow_path(offset_of!(EnvHeader, slow_load), slow_rust(0), 3),
    slow_path(offset_of!(EnvHeader, slow_store), slow_rust(1), 4),
    slow_path(offset_of!(EnvHeader, slow_rmw), slow_rust(2), 4),
    slow_path(offset_of!(EnvHeader, slow_cas), slow_rust(3), 5),
    slow_path(offset_of!(EnvHeader, slow_trap), slow_rust(4), 2),
    slow_path(offset_of!(EnvHeader, probe_load), slow_rust(0), 3),
    slow_path(offset_of!(EnvHeader, probe_store), slow_rust(1), 4),
    slow_path(offset_of!(EnvHeader, extension_park), extension_rust(0), 1),
    slow_path(offset_of!(EnvHeader, extension_resume), extension_rust(1), 1),
    slow_path(offset_of!(EnvHeader, extension_step), extension_rust(2), 4),
];

/// The slow path to [`EnvHeader::vector`].
pub(crate) const SLOW_VECTOR: SlowPath =
    slow_path(offset_of!(EnvHeader, slow_vector), offset_of!(EnvHeader, vector), 2);

/// Index into [`SLOW_PATHS`].
#[derive(Clone, Copy)]
pub(crate) enum Slow {
    Load,
    Store,
    Rmw,
    Cas,
    Trap,
    ProbeLoad,
    ProbeStore,
    ExtensionPark,
    ExtensionResume,
    ExtensionStep,
}

impl Slow {
    /// The path of a load or store that looks in the TLB again.
    pub(crate) fn looking(self) -> Slow {
        match self {
            Slow::Store => Slow::ProbeStore,
            Slow::Load => Slow::ProbeLoad,
            other => other,
        }
    }
}

/// Signature of a slow path's thunk or of the Rust function behind it.
pub(crate) fn slow_signature(call_conv: CallConv, slow: &SlowPath) -> Signature {
    let mut signature = Signature::new(call_conv);
    signature.params.resize(slow.params, AbiParam::new(types::I64));
    signature
}

/// Flags of accesses, by what is accessed.
struct Flags {
    /// Env and what hangs off it: aligned by construction.
    env: MemFlagsData,
    /// What in env stays the same while a block runs.
    constant: MemFlagsData,
    /// 128-bit env slots: the env's own alignment is not relied upon.
    env_wide: MemFlagsData,
    /// Guest memory: little-endian at any address.
    guest: MemFlagsData,
    /// Guest memory at a naturally aligned address.
    guest_aligned: MemFlagsData,
}

impl Flags {
    fn new(b: &mut FunctionBuilder<'_>) -> Flags {
        let mut region = |user_id, name| {
            b.func.dfg.alias_regions.insert(AliasRegionData { user_id, description: Cow::Borrowed(name) })
        };
        let env = MemFlagsData::new().with_notrap().with_alias_region(Some(region(0, "env")));
        let guest = MemFlagsData::new()
            .with_notrap()
            .with_endianness(Endianness::Little)
            .with_alias_region(Some(region(1, "guest")));
        Flags {
            env: env.with_aligned(),
            constant: env.with_aligned().with_readonly(),
            env_wide: env,
            guest,
            guest_aligned: guest.with_aligned(),
        }
    }
}

/// One function under construction.
pub(crate) struct Lowering<'a, 'f> {
    b: FunctionBuilder<'f>,
    host: &'a HostIsa,
    /// The guest's extension that the host executes.
    unit: Option<&'static Extension>,
    request: &'a Request<'a>,
    /// Position of the part being lowered.
    part: usize,
    /// Its micro-ops.
    block: &'a mimus_ir::Block,
    region: Region,
    peeled: Vec<PeeledLoop>,
    sunk: SunkStores,
    pages: Pages,
    /// How the part's accesses find their pages, and what those that lead others found.
    plans: Vec<coalesce::ProbePlan>,
    shared: Vec<(mimus_ir::Value, Value)>,
    values: &'a mut Vec<TypedValues>,
    flags: Flags,
    env: Value,
    block_sig: SigRef,
    slow_sigs: [Option<SigRef>; SLOW_PATHS.len()],
    /// For helpers, and for those that work on the guest's floating-point environment.
    helper_sigs: [Option<SigRef>; 2],
    /// For routines of the extension.
    routine_sig: Option<SigRef>,
    /// By position: whether an op that is sure to be executed uses the value. Empty if the block has no floating point.
    used: Vec<bool>,
    /// Position of the op being lowered.
    index: usize,
    /// Guest PC of the current instruction.
    pc: u64,
    /// Guest instructions begun in the part.
    begun: u32,
    /// Guest instructions in the part.
    guest_insns: u32,
    /// The cold exit of instructions that stop; its parameter in counted mode is the number not run.
    stopped: Option<Block>,
    summary: Summary,
}

impl<'a, 'f> Lowering<'a, 'f> {
    pub(crate) fn new(
        mut b: FunctionBuilder<'f>,
        host: &'a HostIsa,
        request: &'a Request<'a>,
        values: &'a mut Vec<TypedValues>,
    ) -> Lowering<'a, 'f> {
        let entry = b.create_block();
        b.append_block_params_for_function_params(entry);
        b.switch_to_block(entry);
        let env = b.block_params(entry)[0];
        let flags = Flags::new(&mut b);
        let block_sig = b.import_signature(block_signature());
        static NOTHING: mimus_ir::Block =
            mimus_ir::Block { pc: 0, fallthrough: 0, guest_insns: 0, guest_bytes: 0, insts: Vec::new() };
        Lowering {
            b,
            host,
            unit: target::extension(host),
            request,
            part: 0,
            block: request.parts.first().map_or(&NOTHING, |part| part.block),
            region: Region::default(),
            peeled: Vec::new(),
            sunk: SunkStores::default(),
            pages: Pages::default(),
            plans: Vec::new(),
            shared: Vec::new(),
            values,
            flags,
            env,
            block_sig,
            slow_sigs: [None; SLOW_PATHS.len()],
            helper_sigs: [None; 2],
            routine_sig: None,
            used: Vec::new(),
            index: 0,
            pc: 0,
            begun: 0,
            guest_insns: 0,
            stopped: None,
            summary: Summary { link_targets: vec![[None; 2]; request.parts.len()], calls_helpers: false },
        }
    }

    /// Lowers every part.
    pub(crate) fn run(mut self) -> Result<Summary, BackendError> {
        let parts = self.request.parts;
        if parts.is_empty() || parts.len() > MAX_PARTS {
            return Err(self.malformed("no part, or too many"));
        }
        self.begin_region()?;
        for (index, part) in parts.iter().enumerate() {
            self.begin_part(index, part.block, None);
            self.part()?;
            if let Some(copy) = self.copy_of(index) {
                self.begin_part(index, part.block, Some(copy));
                self.part()?;
            }
        }
        self.finish_stopped();
        self.b.seal_all_blocks();
        self.b.finalize(self.host.isa.frontend_config());
        Ok(self.summary)
    }

    fn begin_part(&mut self, index: usize, block: &'a mimus_ir::Block, copy: Option<usize>) {
        self.part = index;
        self.block = block;
        self.pc = block.pc;
        self.begun = 0;
        self.guest_insns = block.insts.iter().filter(|i| i.op == Op::Insn).count() as u32;
        self.values.clear();
        self.values.resize(block.insts.len(), TypedValues::default());
        coalesce::plan(&block.insts, &mut self.plans);
        self.shared.clear();
        self.begin_sinking();
        self.enter_part(copy);
    }

    /// Lowers the current part.
    fn part(&mut self) -> Result<(), BackendError> {
        let insts = &self.block.insts;
        if insts.len() > MAX_INSTS || self.block.terminator().is_none() {
            return Err(self.malformed("no terminator, or too long"));
        }
        self.count();
        self.mark_floats();
        for (index, inst) in insts.iter().enumerate() {
            self.index = index;
            let ends = inst.op.info().effects.contains(mimus_ir::Effects::END);
            if ends != (index + 1 == insts.len()) {
                return Err(self.malformed("terminator before the end"));
            }
            if !self.sunk.is_deferred(index) {
                self.op(inst)?;
            }
        }
        Ok(())
    }

    fn op(&mut self, inst: &Inst) -> Result<(), BackendError> {
        match inst.op {
            // Emitted where it is used, in the type it is used in.
            Op::Const => Ok(()),
            Op::Pc => {
                let pc = self.guest_pc(inst.imm);
                self.define(Type::I64, pc);
                Ok(())
            }
            Op::Neg
            | Op::Not
            | Op::Clz
            | Op::Ctz
            | Op::Popcnt
            | Op::Bswap
            | Op::Zext
            | Op::Sext
            | Op::Add
            | Op::Sub
            | Op::Mul
            | Op::UMulHi
            | Op::SMulHi
            | Op::UDiv
            | Op::SDiv
            | Op::And
            | Op::Or
            | Op::Xor
            | Op::Shl
            | Op::Shr
            | Op::Sar
            | Op::Rotl
            | Op::Rotr
            | Op::AddI
            | Op::SubI
            | Op::MulI
            | Op::AndI
            | Op::OrI
            | Op::XorI
            | Op::ShlI
            | Op::ShrI
            | Op::SarI
            | Op::RotlI
            | Op::RotrI
            | Op::Eq
            | Op::Ne
            | Op::Ult
            | Op::Ule
            | Op::Slt
            | Op::Sle
            | Op::EqI
            | Op::NeI
            | Op::UltI
            | Op::UleI
            | Op::SltI
            | Op::SleI
            | Op::Select
            | Op::Deposit
            | Op::Extract
            | Op::Lea => self.pure(inst),
            Op::LoadEnv => self.load_env(inst),
            Op::StoreEnv => self.store_env(inst),
            Op::StoreEnvI => self.store_env_imm(inst),
            Op::Load => self.load(inst),
            Op::Store => self.store(inst),
            Op::Rmw => self.rmw(inst),
            Op::Cas => self.cas(inst),
            Op::Fence => {
                self.b.ins().fence();
                Ok(())
            }
            Op::Call => {
                self.call(inst)?;
                if coalesce::may_flush(inst) {
                    self.forget_pages();
                }
                Ok(())
            }
            Op::Vec => self.vec(inst),
            Op::Float | Op::FloatTest => self.float(inst),
            Op::TrapIf => self.trap_if(inst),
            Op::Insn => {
                self.pc = inst.imm;
                self.begun += 1;
                Ok(())
            }
            Op::Jump => self.jump(inst),
            Op::Branch => self.branch(inst),
            Op::JumpInd => self.jump_ind(inst),
            Op::Exit => self.exit(inst),
        }
    }

    fn malformed(&self, reason: &'static str) -> BackendError {
        BackendError::Malformed { index: self.index, reason }
    }

    /// Cranelift's type for one of ours.
    fn ty(&self, ty: Type) -> types::Type {
        match ty {
            Type::I8 => types::I8,
            Type::I16 => types::I16,
            Type::I32 => types::I32,
            Type::I64 => types::I64,
            Type::V128 if self.host.has_vectors() => types::I64X2,
            Type::V128 => types::I128,
        }
    }

    /// A constant of an integer type.
    fn constant(&mut self, ty: Type, value: u64) -> Value {
        let clif = self.ty(ty);
        self.b.ins().iconst(clif, (value & ty.mask()) as i64)
    }

    fn const64(&mut self, value: u64) -> Value {
        self.b.ins().iconst(types::I64, value as i64)
    }

    /// The op that defines operand `v`, and the type it defines.
    fn definition(&self, v: mimus_ir::Value) -> Result<(&'a Inst, Type), BackendError> {
        let v = usize::from(v);
        if v >= self.index {
            return Err(self.malformed("operand not defined before"));
        }
        let inst = &self.block.insts[v];
        let ty = inst.result_type().ok_or_else(|| self.malformed("operand defines no value"))?;
        Ok((inst, ty))
    }

    /// Operand `v` truncated or zero-extended to the integer type `ty`, and remembered in that type: to be called
    /// only where all that follows is dominated, so not in cold paths.
    fn int(&mut self, v: mimus_ir::Value, ty: Type) -> Result<Value, BackendError> {
        if let Some(value) = self.values.get(usize::from(v)).and_then(|s| s[ty as usize]) {
            return Ok(value);
        }
        let (inst, from) = self.definition(v)?;
        if from == Type::V128 || ty == Type::V128 {
            return Err(self.malformed("128-bit value where an integer is needed"));
        }
        if inst.op == Op::Const {
            return Ok(self.constant(ty, inst.imm & from.mask()));
        }
        self.emit_deferred(v)?;
        let value = self.values[usize::from(v)][from as usize].ok_or_else(|| self.malformed("operand has no value"))?;
        let value = self.convert(value, from, ty);
        self.remember(usize::from(v), ty, value);
        Ok(value)
    }

    /// An integer truncated or zero-extended.
    fn convert(&mut self, value: Value, from: Type, to: Type) -> Value {
        let ty = self.ty(to);
        match to.bits().cmp(&from.bits()) {
            std::cmp::Ordering::Less => self.b.ins().ireduce(ty, value),
            std::cmp::Ordering::Equal => value,
            std::cmp::Ordering::Greater => self.b.ins().uextend(ty, value),
        }
    }

    /// A 128-bit operand.
    fn wide(&mut self, v: mimus_ir::Value) -> Result<Value, BackendError> {
        let (_, from) = self.definition(v)?;
        match self.values[usize::from(v)][Type::V128 as usize] {
            Some(value) if from == Type::V128 => Ok(value),
            _ => Err(self.malformed("128-bit operand needed")),
        }
    }

    /// An operand of any type.
    fn operand(&mut self, v: mimus_ir::Value, ty: Type) -> Result<Value, BackendError> {
        if ty == Type::V128 { self.wide(v) } else { self.int(v, ty) }
    }

    /// Records the result of the current op.
    fn define(&mut self, ty: Type, value: Value) {
        self.remember(self.index, ty, value);
    }

    fn header_offset(&self, field: usize) -> i32 {
        self.request.header_offset + field as i32
    }

    fn load_header(&mut self, ty: types::Type, field: usize) -> Value {
        let offset = self.header_offset(field);
        self.b.ins().load(ty, self.flags.env, self.env, offset)
    }

    fn store_header(&mut self, value: Value, field: usize) {
        let offset = self.header_offset(field);
        self.b.ins().store(self.flags.env, value, self.env, offset);
    }

    fn header_address(&mut self, field: usize) -> Value {
        let offset = self.header_offset(field);
        self.b.ins().iadd_imm_s(self.env, i64::from(offset))
    }

    /// Starts a block off the hot path.
    fn cold_block(&mut self) -> Block {
        let block = self.b.create_block();
        self.b.set_cold_block(block);
        block
    }

    fn load_env(&mut self, inst: &Inst) -> Result<(), BackendError> {
        if let Some(value) = self.waiting(inst.c, inst.ty)? {
            self.define(inst.ty, value);
            return Ok(());
        }
        self.make_overlapping(inst.c, inst.ty)?;
        let value = match self.region.slot(inst) {
            Some(slot) => self.use_slot(slot),
            None => self.env_value(inst.ty, inst.c),
        };
        self.define(inst.ty, value);
        Ok(())
    }

    /// The value of env's memory at `offset`.
    fn env_value(&mut self, ty: Type, offset: u16) -> Value {
        let flags = if ty == Type::V128 { self.flags.env_wide } else { self.flags.env };
        let ty = self.ty(ty);
        self.b.ins().load(ty, flags, self.env, i32::from(offset))
    }

    fn store_env(&mut self, inst: &Inst) -> Result<(), BackendError> {
        if self.request.region {
            let (of, _) = self.definition(inst.a)?;
            // A vector operation's flags may need the store as their use.
            if inst.ty != Type::V128 && of.op.info().shape != Shape::Vec {
                return self.put_off(inst.c, inst.ty, Source::Op(inst.a));
            }
            self.make_overlapping(inst.c, inst.ty)?;
        }
        let slot = self.region.slot(inst);
        let lane = if slot.is_none() { self.stored_lane(inst.a, inst.ty)? } else { None };
        let value = lane.map_or_else(|| self.operand(inst.a, inst.ty), Ok)?;
        let flags = if inst.ty == Type::V128 { self.flags.env_wide } else { self.flags.env };
        self.b.ins().store(flags, value, self.env, i32::from(inst.c));
        if let Some(slot) = slot {
            self.define_slot(slot, value);
        }
        Ok(())
    }

    fn store_env_imm(&mut self, inst: &Inst) -> Result<(), BackendError> {
        let offset = i32::from(inst.c);
        if self.request.region {
            if inst.ty != Type::V128 {
                return self.put_off(inst.c, inst.ty, Source::Constant(inst.imm));
            }
            self.make_overlapping(inst.c, inst.ty)?;
        }
        if inst.ty != Type::V128 {
            let value = self.constant(inst.ty, inst.imm);
            self.b.ins().store(self.flags.env, value, self.env, offset);
            return Ok(());
        }
        // The halves of a 128-bit number, low half first on a little-endian host.
        let halves = if self.host.big_endian() { [0, inst.imm] } else { [inst.imm, 0] };
        for (i, half) in halves.into_iter().enumerate() {
            let value = self.const64(half);
            self.b.ins().store(self.flags.env_wide, value, self.env, offset + 8 * i as i32);
        }
        if let Some(slot) = self.region.slot(inst) {
            self.region.forget(slot);
        }
        Ok(())
    }
}
