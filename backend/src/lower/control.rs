//! Exits, links, calls and what leaves a block early.

use std::mem::offset_of;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{AbiParam, Block, BlockArg, InstBuilder, Signature, Value, types};
use cranelift_codegen::isa::CallConv;
use mimus_ir::block::CallInfo;
use mimus_ir::{Effects, Inst, JumpKind, NONE, Op, Shape, Type};
use mimus_softmmu::tlb::PAGE_SIZE;
use mimus_softmmu::{EnvHeader, ExitCode, JumpCacheEntry};

use super::{Lowering, SLOW_PATHS, Slow, slow_signature};
use crate::error::BackendError;

impl Lowering<'_, '_> {
    /// In counted mode: counts the whole block; an early exit takes back what it does not run.
    pub(super) fn count(&mut self) {
        if self.request.counted {
            self.add_insns(i64::from(self.guest_insns));
        }
    }

    fn add_insns(&mut self, n: i64) {
        let count = self.load_header(types::I64, offset_of!(EnvHeader, insns));
        let count = self.b.ins().iadd_imm_s(count, n);
        self.store_header(count, offset_of!(EnvHeader, insns));
    }

    /// What is added to the block's guest PCs.
    fn pc_base(&mut self) -> Value {
        let offset = self.header_offset(offset_of!(EnvHeader, pc_base));
        self.b.ins().load(types::I64, self.flags.constant, self.env, offset)
    }

    /// A guest PC of the block as the guest has it.
    pub(super) fn guest_pc(&mut self, pc: u64) -> Value {
        let base = self.pc_base();
        self.b.ins().iadd_imm_s(base, pc as i64)
    }

    /// A guest PC as the block would have it.
    pub(super) fn relative(&mut self, pc: Value) -> Value {
        let base = self.pc_base();
        self.b.ins().isub(pc, base)
    }

    /// Leaves word of the current instruction where the stopped exit wants it.
    pub(super) fn store_pc(&mut self) {
        let pc = self.const64(self.pc);
        self.store_header(pc, offset_of!(EnvHeader, exit_value));
    }

    /// The stopped exit, and its argument.
    fn stopped(&mut self) -> (Block, Vec<BlockArg>) {
        let block = match self.stopped {
            Some(block) => block,
            None => {
                let block = self.cold_block();
                if self.request.counted {
                    self.b.append_block_param(block, types::I64);
                }
                self.stopped = Some(block);
                block
            }
        };
        let mut args = Vec::new();
        if self.request.counted {
            let completed = self.begun.saturating_sub(1);
            let rest = self.const64(u64::from(self.guest_insns - completed));
            args.push(BlockArg::Value(rest));
        }
        (block, args)
    }

    /// Emits the stopped exit, if anything goes there.
    pub(super) fn finish_stopped(&mut self) {
        let Some(block) = self.stopped else { return };
        self.b.switch_to_block(block);
        if self.request.counted {
            let rest = self.b.block_params(block)[0];
            let count = self.load_header(types::I64, offset_of!(EnvHeader, insns));
            let count = self.b.ins().isub(count, rest);
            self.store_header(count, offset_of!(EnvHeader, insns));
        }
        self.return_code(ExitCode::Stopped);
    }

    /// Goes on at `resume` unless a verdict is out; [`Self::store_pc`] was done before.
    pub(super) fn leave_on_verdict(&mut self, resume: Block, args: &[BlockArg]) -> Result<(), BackendError> {
        let verdict = self.load_header(types::I32, offset_of!(EnvHeader, verdict));
        self.stop(|l, stopped, stopped_args| {
            l.b.ins().brif(verdict, stopped, stopped_args, resume, args);
        })
    }

    /// Has `jump` go to the stopped exit, by way of the stub that makes the stores which wait.
    fn stop(&mut self, jump: impl FnOnce(&mut Self, Block, &[BlockArg])) -> Result<(), BackendError> {
        let (stopped, args) = self.stopped();
        let Some((stub, new)) = self.way_out() else {
            jump(self, stopped, &args);
            return Ok(());
        };
        if new {
            for _ in &args {
                self.b.append_block_param(stub, types::I64);
            }
        }
        jump(self, stub, &args);
        if new {
            self.b.switch_to_block(stub);
            let args: Vec<BlockArg> = self.b.block_params(stub).iter().map(|&value| BlockArg::Value(value)).collect();
            self.make_stores_aside()?;
            self.b.ins().jump(stopped, &args);
        }
        Ok(())
    }

    /// Calls a slow path's thunk, which preserves every register.
    pub(super) fn call_slow(&mut self, slow: Slow, args: &[Value]) {
        let row = &SLOW_PATHS[slow as usize];
        let signature = match self.slow_sigs[slow as usize] {
            Some(signature) => signature,
            None => self.b.import_signature(slow_signature(CallConv::PreserveAll, row)),
        };
        self.slow_sigs[slow as usize] = Some(signature);
        let thunk = self.load_header(types::I64, row.offset);
        self.b.ins().call_indirect(signature, thunk, args);
    }

    pub(super) fn call(&mut self, inst: &Inst) -> Result<(), BackendError> {
        if inst.ty == Type::V128 {
            return Err(self.malformed("no 128-bit form"));
        }
        let info = CallInfo::decode(inst.imm);
        if info.effects.contains(Effects::CONDITIONAL) {
            return self.conditional_call(inst, info);
        }
        self.make_stores()?;
        if info.effects.contains(Effects::EXTENSION)
            && let Some(form) = self.unit.and_then(|extension| (extension.form)(info.arg))
        {
            return self.extension(inst, info, form);
        }
        let faults = info.effects.contains(Effects::FAULT);
        let args = self.helper_args(inst, info)?;
        if faults {
            self.store_pc();
        }
        if self.unit.is_some() && !info.effects.contains(Effects::LEAF) {
            self.park_extension();
        }
        let helper = self.helper(info);
        let result = self.call_rust(helper, args, info.effects.contains(Effects::FLOAT));
        if faults {
            let resume = self.b.create_block();
            self.leave_on_verdict(resume, &[])?;
            self.b.switch_to_block(resume);
        }
        if info.effects.contains(Effects::WRITE_ENV) {
            self.region.forget_all();
        }
        let result = self.convert(result, Type::I64, inst.ty);
        self.define(inst.ty, result);
        Ok(())
    }

    /// What a helper is called with.
    fn helper_args(&mut self, inst: &Inst, info: CallInfo) -> Result<Vec<Value>, BackendError> {
        let mut args = vec![self.env];
        for v in [inst.a, inst.b, inst.c] {
            args.push(if v == NONE { self.const64(0) } else { self.int(v, Type::I64)? });
        }
        let constant = self.host.c_u32(info.arg);
        args.push(self.b.ins().iconst(types::I64, constant));
        Ok(args)
    }

    /// The address of a helper.
    fn helper(&mut self, info: CallInfo) -> Value {
        let table = self.load_header(types::I64, offset_of!(EnvHeader, helpers));
        self.b.ins().load(types::I64, self.flags.env, table, i32::from(info.helper) * 8)
    }

    /// A helper that is called off the hot path, where `a` is not 0; else the result is `b`.
    fn conditional_call(&mut self, inst: &Inst, info: CallInfo) -> Result<(), BackendError> {
        let (_, guard) = self.definition(inst.a)?;
        let guard = self.int(inst.a, guard)?;
        let value = self.int(inst.b, inst.ty)?;
        let (call, resume) = (self.cold_block(), self.b.create_block());
        let clif = self.ty(inst.ty);
        let result = self.b.append_block_param(resume, clif);
        self.b.ins().brif(guard, call, &[], resume, &[value.into()]);
        self.b.switch_to_block(call);
        self.aside(|l| {
            l.make_stores_aside()?;
            let args = l.helper_args(inst, info)?;
            let helper = l.helper(info);
            let called = l.call_rust(helper, args, false);
            let called = l.convert(called, Type::I64, inst.ty);
            l.b.ins().jump(resume, &[called.into()]);
            Ok(())
        })?;
        self.b.switch_to_block(resume);
        self.define(inst.ty, result);
        Ok(())
    }

    /// Calls the Rust function `function` with env, three operands and a constant; `float` if it works on the guest's floating-point
    /// environment.
    pub(super) fn call_rust(&mut self, function: Value, mut args: Vec<Value>, float: bool) -> Value {
        let float = float && self.host.floats();
        let count = args.len();
        let slot = usize::from(float);
        let signature = match self.helper_sigs[slot] {
            Some(signature) => signature,
            None => {
                let mut signature = Signature::new(self.host.c_call_conv());
                signature.params.resize(count + slot, AbiParam::new(types::I64));
                signature.returns.push(AbiParam::new(types::I64));
                self.b.import_signature(signature)
            }
        };
        self.helper_sigs[slot] = Some(signature);
        self.summary.calls_helpers = true;
        let callee = if float {
            args.push(function);
            self.load_header(types::I64, offset_of!(EnvHeader, float_call))
        } else {
            function
        };
        let call = self.b.ins().call_indirect(signature, callee, &args);
        self.b.inst_results(call)[0]
    }

    pub(super) fn trap_if(&mut self, inst: &Inst) -> Result<(), BackendError> {
        let cond = self.int(inst.a, Type::I8)?;
        let (trap, resume) = (self.cold_block(), self.b.create_block());
        self.b.ins().brif(cond, trap, &[], resume, &[]);
        self.b.switch_to_block(trap);
        self.store_pc();
        let code = self.const64(inst.imm);
        self.call_slow(Slow::Trap, &[self.env, code]);
        self.stop(|l, stopped, args| {
            l.b.ins().jump(stopped, args);
        })?;
        self.b.switch_to_block(resume);
        Ok(())
    }

    pub(super) fn jump(&mut self, inst: &Inst) -> Result<(), BackendError> {
        let slot = inst.c;
        if slot > 1 {
            return Err(self.malformed("a block has two link slots"));
        }
        self.leave_to(inst.imm, slot)
    }

    pub(super) fn branch(&mut self, inst: &Inst) -> Result<(), BackendError> {
        let inverted = self.inverted(inst.a)?;
        let cond = self.int(inverted.unwrap_or(inst.a), Type::I8)?;
        let (taken, fallthrough) = (self.b.create_block(), self.b.create_block());
        // What leaves the region is out of the way of what stays.
        let stays = [inst.imm, self.block.fallthrough].map(|pc| self.region.part_at(pc).is_some());
        if stays[0] != stays[1] {
            self.b.set_cold_block(if stays[0] { fallthrough } else { taken });
        }
        let (if_true, if_false) = if inverted.is_some() { (fallthrough, taken) } else { (taken, fallthrough) };
        self.b.ins().brif(cond, if_true, &[], if_false, &[]);
        self.b.switch_to_block(taken);
        self.leave_to(inst.imm, 0)?;
        self.b.switch_to_block(fallthrough);
        self.leave_to(self.block.fallthrough, 1)
    }

    /// The comparison that a condition is the inverse of, so that a branch on it needs no value in a register.
    fn inverted(&self, cond: mimus_ir::Value) -> Result<Option<mimus_ir::Value>, BackendError> {
        let (inst, _) = self.definition(cond)?;
        if inst.op != Op::XorI || inst.imm != 1 {
            return Ok(None);
        }
        let (inner, _) = self.definition(inst.a)?;
        Ok(matches!(inner.op.info().shape, Shape::Compare | Shape::CompareImm).then_some(inst.a))
    }

    pub(super) fn jump_ind(&mut self, inst: &Inst) -> Result<(), BackendError> {
        let pc = self.int(inst.a, Type::I64)?;
        if inst.jump_kind() == JumpKind::Return {
            self.return_within(pc)?;
        }
        self.leave_indirect(pc)
    }

    pub(super) fn exit(&mut self, inst: &Inst) -> Result<(), BackendError> {
        self.make_stores()?;
        let reason = self.const64(inst.imm);
        self.leave(reason, ExitCode::Main);
        Ok(())
    }

    /// Leaves to a constant guest PC.
    fn leave_to(&mut self, target: u64, slot: u16) -> Result<(), BackendError> {
        let linear = |pc: u64| pc.wrapping_add(self.request.linear_offset);
        let page = |pc: u64| linear(pc) / PAGE_SIZE;
        let within = self.region.part_at(target);
        if within.is_none() && (!self.request.may_link || page(target) != page(self.block.pc)) {
            let pc = self.guest_pc(target);
            return self.leave_indirect(pc);
        }
        if linear(target) <= linear(self.pc) {
            self.leave_if_requested(|l| l.const64(target))?;
        }
        if let Some(part) = within {
            return self.jump_to_part(part);
        }
        self.make_stores_aside()?;
        self.summary.link_targets[self.part][usize::from(slot)] = Some(target);
        let number = u64::from(self.request.parts[self.part].link_slot) + u64::from(slot);
        let links = self.load_header(types::I64, offset_of!(EnvHeader, links));
        let address = self.b.ins().iadd_imm_s(links, (number * 8) as i64);
        // Acquire: whoever links publishes the target's code first.
        let entry = self.b.ins().atomic_load(types::I64, self.flags.env, address);
        let number = self.const64(number);
        self.b.ins().return_call_indirect(self.block_sig, entry, &[self.env, number]);
        Ok(())
    }

    /// Leaves to a guest PC of another page or not known before: the only way that is not bound to a mapping of
    /// guest memory.
    fn leave_indirect(&mut self, pc: Value) -> Result<(), BackendError> {
        self.make_stores_aside()?;
        if !self.request.may_link {
            self.leave(pc, ExitCode::Indirect);
            return Ok(());
        }
        self.with_nothing_sunk(|l| l.leave_if_requested(|l| l.relative(pc)))?;
        let hash = self.jump_cache_hash(pc);
        let mask = self.load_header(types::I64, offset_of!(EnvHeader, jump_cache_mask));
        let offset = self.b.ins().band(hash, mask);
        let cache = self.load_header(types::I64, offset_of!(EnvHeader, jump_cache));
        let row = self.b.ins().iadd(offset, cache);
        let cached = |l: &mut Self, field: usize| l.b.ins().load(types::I64, l.flags.env, row, field as i32);
        let cached_pc = cached(self, offset_of!(JumpCacheEntry, pc));
        let wrong_pc = self.b.ins().bxor(cached_pc, pc);
        let context = self.load_header(types::I64, offset_of!(EnvHeader, jump_context));
        let cached_context = cached(self, offset_of!(JumpCacheEntry, context));
        let wrong_context = self.b.ins().bxor(context, cached_context);
        let wrong = self.b.ins().bor(wrong_pc, wrong_context);
        let hit = self.b.ins().icmp_imm_u(IntCC::Equal, wrong, 0);
        let (found, miss) = (self.b.create_block(), self.cold_block());
        self.b.ins().brif(hit, found, &[], miss, &[]);
        self.b.switch_to_block(miss);
        self.leave(pc, ExitCode::Indirect);
        self.b.switch_to_block(found);
        let entry = cached(self, offset_of!(JumpCacheEntry, entry));
        let base = cached(self, offset_of!(JumpCacheEntry, pc_base));
        self.store_header(base, offset_of!(EnvHeader, pc_base));
        let none = self.const64(0);
        self.b.ins().return_call_indirect(self.block_sig, entry, &[self.env, none]);
        Ok(())
    }

    /// [`mimus_softmmu::header::jump_cache_offset`] before it is masked.
    fn jump_cache_hash(&mut self, pc: Value) -> Value {
        let high = self.b.ins().ushr_imm_u(pc, 10);
        let hash = self.b.ins().bxor(pc, high);
        self.b.ins().ishl_imm_u(hash, 5)
    }

    /// Leaves to the dispatcher, on the way to a guest PC of the block, if somebody asked for it, or it is time to see where the
    /// guest is.
    pub(super) fn leave_if_requested(&mut self, pc: impl FnOnce(&mut Self) -> Value) -> Result<(), BackendError> {
        let address = self.header_address(offset_of!(EnvHeader, exit_request));
        let mut request = self.b.ins().atomic_load(types::I32, self.flags.env, address);
        if !self.request.region {
            let left = self.load_header(types::I32, offset_of!(EnvHeader, sample));
            let left = self.b.ins().iadd_imm_s(left, -1);
            self.store_header(left, offset_of!(EnvHeader, sample));
            let over = self.b.ins().ushr_imm_u(left, 31);
            request = self.b.ins().bor(request, over);
        }
        let (requested, go_on) = (self.cold_block(), self.b.create_block());
        self.b.ins().brif(request, requested, &[], go_on, &[]);
        self.b.switch_to_block(requested);
        self.make_stores_aside()?;
        let pc = pc(self);
        self.leave(pc, ExitCode::Requested);
        self.b.switch_to_block(go_on);
        Ok(())
    }

    /// Leaves to the dispatcher with `value` and `code`.
    fn leave(&mut self, value: Value, code: ExitCode) {
        self.store_header(value, offset_of!(EnvHeader, exit_value));
        self.return_code(code);
    }

    fn return_code(&mut self, code: ExitCode) {
        let code = self.const64(code as u64);
        self.b.ins().return_(&[code]);
    }
}
