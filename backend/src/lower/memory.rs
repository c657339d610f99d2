//! Guest memory: the inline TLB probe and the ops behind it.

use std::mem::offset_of;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{AtomicRmwOp, Block, BlockArg, Endianness, InstBuilder, MemFlagsData, Value, types};
use mimus_ir::op::RmwKind;
use mimus_ir::{Inst, MemFlags, Type};
use mimus_softmmu::EnvHeader;
use mimus_softmmu::header::KeptPage;
use mimus_softmmu::tlb::probe;

use super::{Lowering, Slow, pages};
use crate::coalesce::ProbePlan;
use crate::error::BackendError;
use crate::thunks::tlb_entry;

/// What the probe of an access has to find out.
#[derive(Clone, Copy)]
pub(super) struct Access {
    /// Bytes.
    pub size: u32,
    /// Whether the page must be writable.
    pub write: bool,
    /// Whether the address must be a multiple of the size.
    pub aligned: bool,
}

impl Lowering<'_, '_> {
    /// The host address of guest address `addr`. Behind a miss, `slow` is called with the arguments made by
    /// `args`; when it has done the access, the address is that of `slow_value`, where the access is made again:
    /// a load finds the result there, an atomic op the old value, and a store is without effect. So the access is
    /// in the code once, and the paths meet in one value.
    fn probe(
        &mut self,
        addr: Value,
        access: Access,
        slow: Slow,
        args: impl FnOnce(&mut Self) -> Result<Vec<Value>, BackendError>,
    ) -> Result<Value, BackendError> {
        let resume = self.b.create_block();
        let delta = self.b.append_block_param(resume, types::I64);
        let miss = self.find_page(addr, access, resume, 1);
        let stash = self.slow_path(miss, slow, args)?;
        self.leave_on_verdict(resume, &[BlockArg::Value(stash)])?;
        self.b.switch_to_block(resume);
        Ok(self.b.ins().iadd(addr, delta))
    }

    /// Goes on at `resume`, with the addend of the page of `addr` in so many arguments, if that is kept or in the TLB, and
    /// otherwise at the cold block returned.
    fn find_page(&mut self, addr: Value, access: Access, resume: Block, args: usize) -> Block {
        let miss = self.cold_block();
        let kept = self.pages.of(self.part, self.index);
        let fill = kept.map(|number| {
            let field = |field: usize| pages::kept(number, field);
            let [tag, limit] = [offset_of!(KeptPage, tag), offset_of!(KeptPage, limit)];
            let known = self.load_header(types::I64, field(tag));
            let difference = self.b.ins().bxor(addr, known);
            let addend = self.load_header(types::I64, field(offset_of!(KeptPage, addend)));
            let below = self.load_header(types::I64, field(limit));
            let hit = self.b.ins().icmp(IntCC::UnsignedLessThan, difference, below);
            let (another, fill) = (self.cold_block(), self.cold_block());
            self.b.ins().brif(hit, resume, &vec![BlockArg::Value(addend); args], another, &[]);
            self.b.switch_to_block(another);
            (fill, field(0))
        });
        let (hit, addend, tag) = self.look_up(addr, access);
        let found = vec![BlockArg::Value(addend); args];
        match fill {
            None => {
                self.b.ins().brif(hit, resume, &found, miss, &[]);
            }
            Some((fill, page)) => {
                self.b.ins().brif(hit, fill, &[], miss, &[]);
                self.b.switch_to_block(fill);
                let limit = self.const64(probe::limit(access.size.into()));
                self.store_header(tag, page + offset_of!(KeptPage, tag));
                self.store_header(limit, page + offset_of!(KeptPage, limit));
                self.store_header(addend, page + offset_of!(KeptPage, addend));
                self.b.ins().jump(resume, &found);
            }
        }
        miss
    }

    /// Looks for the page of `addr` in the TLB: whether it is there, its addend and its tag.
    pub(super) fn look_up(&mut self, addr: Value, access: Access) -> (Value, Value, Value) {
        let size = u64::from(access.size);
        let entry = tlb_entry(&mut self.b, self.flags.env, self.env, addr, self.request.header_offset);
        let tag = self.b.ins().load(types::I64, self.flags.env, entry, probe::tag(access.write) as i32);
        let difference = self.b.ins().bxor(addr, tag);
        let hit = if access.aligned {
            let wrong = self.b.ins().band_imm_s(difference, probe::aligned(size) as i64);
            self.b.ins().icmp_imm_u(IntCC::Equal, wrong, 0)
        } else {
            self.b.ins().icmp_imm_u(IntCC::UnsignedLessThan, difference, probe::limit(size) as i64)
        };
        let addend = self.b.ins().load(types::I64, self.flags.env, entry, probe::ADDEND as i32);
        (hit, addend, tag)
    }

    /// In a region, a copy for a call: the register that it has to be in does not matter then to where the value itself is.
    /// In a block, where few values live across the access, it costs more than it saves.
    fn apart(&mut self, value: Value) -> Value {
        if self.request.region { self.b.ins().iadd_imm_s(value, 0) } else { value }
    }

    /// In the cold block `miss`: has the access done, and returns what added to its address, which is the argument behind env, is
    /// where its value is.
    fn slow_path(
        &mut self,
        miss: Block,
        slow: Slow,
        args: impl FnOnce(&mut Self) -> Result<Vec<Value>, BackendError>,
    ) -> Result<Value, BackendError> {
        self.b.switch_to_block(miss);
        self.store_pc();
        let args = args(self)?;
        self.call_slow(slow, &args);
        self.slow_value_to_guest_order();
        let stash = self.header_address(offset_of!(EnvHeader, slow_value));
        Ok(self.b.ins().isub(stash, args[1]))
    }

    /// [`Self::probe`] for the load or store `inst` at guest address `addr`, which may share a probe with others. The page's
    /// addend is what is shared: 0 says that its probe found nothing.
    fn probe_shared(
        &mut self,
        inst: &Inst,
        addr: Value,
        access: Access,
        slow: Slow,
        args: impl FnOnce(&mut Self) -> Result<Vec<Value>, BackendError>,
    ) -> Result<Value, BackendError> {
        let (miss, resume);
        let plan = self.plans[self.index];
        match plan {
            // A page with code has no tag for stores: the thunk makes those beside the code.
            ProbePlan::Alone if access.write => return self.probe(addr, access, slow.looking(), args),
            ProbePlan::Alone => return self.probe(addr, access, slow, args),
            ProbePlan::Leads { start, span } => {
                let base = self.int(inst.a, Type::I64)?;
                let first = if start == 0 { base } else { self.b.ins().iadd_imm_s(base, i64::from(start)) };
                resume = self.b.create_block();
                self.b.append_block_param(resume, types::I64);
                let shared = self.b.append_block_param(resume, types::I64);
                self.shared.push((self.index as mimus_ir::Value, shared));
                miss = self.find_page(first, Access { size: span, ..access }, resume, 2);
            }
            ProbePlan::Follows(leader) => {
                let found = self.shared.iter().find(|(index, _)| *index == leader);
                let &(_, shared) = found.ok_or_else(|| self.malformed("no probe to share"))?;
                (miss, resume) = (self.cold_block(), self.b.create_block());
                self.b.append_block_param(resume, types::I64);
                self.b.ins().brif(shared, resume, &[BlockArg::Value(shared)], miss, &[]);
            }
        }
        // That the shared probe finds nothing says little of this access.
        let stash = BlockArg::Value(self.slow_path(miss, slow.looking(), args)?);
        if matches!(plan, ProbePlan::Follows(_)) {
            self.leave_on_verdict(resume, &[stash])?;
        } else {
            let nothing = BlockArg::Value(self.const64(0));
            self.leave_on_verdict(resume, &[stash, nothing])?;
        }
        self.b.switch_to_block(resume);
        let delta = self.b.block_params(resume)[0];
        Ok(self.b.ins().iadd(addr, delta))
    }

    /// `slow_value` holds host numbers; what follows reads it as guest memory.
    fn slow_value_to_guest_order(&mut self) {
        if !self.host.big_endian() {
            return;
        }
        for half in 0..2 {
            let field = offset_of!(EnvHeader, slow_value) + 8 * half;
            let value = self.load_header(types::I64, field);
            let offset = self.header_offset(field);
            let little = MemFlagsData::new().with_notrap().with_endianness(Endianness::Little);
            self.b.ins().store(little, value, self.env, offset);
        }
    }

    /// Address operand plus displacement.
    fn address(&mut self, inst: &Inst) -> Result<Value, BackendError> {
        let base = self.int(inst.a, Type::I64)?;
        let disp = i64::from(inst.mem_disp());
        Ok(if disp == 0 { base } else { self.b.ins().iadd_imm_s(base, disp) })
    }

    /// The same for a slow path's call, computed there: on the hot path it is part of the access's addressing mode.
    fn address_aside(&mut self, inst: &Inst) -> Result<Value, BackendError> {
        let base = self.int(inst.a, Type::I64)?;
        match i64::from(inst.mem_disp()) {
            0 => Ok(self.apart(base)),
            disp => Ok(self.b.ins().iadd_imm_s(base, disp)),
        }
    }

    /// Keeps an access in total store order with those around it, where the host does not by itself.
    fn order(&mut self, flags: MemFlags) {
        if !self.host.total_store_order() && !flags.contains(MemFlags::RELAXED) {
            self.b.ins().fence();
        }
    }

    pub(super) fn load(&mut self, inst: &Inst) -> Result<(), BackendError> {
        let (size, flags) = (inst.ty.bytes(), inst.mem_flags());
        let addr = self.address(inst)?;
        let access = Access { size, write: flags.contains(MemFlags::FOR_WRITE), aligned: false };
        let host = self.probe_shared(inst, addr, access, Slow::Load, |l| {
            let info = l.const64(size_and_flags(size, flags));
            Ok(vec![l.env, l.address_aside(inst)?, info])
        })?;
        let ty = self.ty(inst.ty);
        let value = self.b.ins().load(ty, self.flags.guest, host, 0);
        self.order(flags);
        self.define(inst.ty, value);
        Ok(())
    }

    pub(super) fn store(&mut self, inst: &Inst) -> Result<(), BackendError> {
        let (size, flags) = (inst.ty.bytes(), inst.mem_flags());
        let addr = self.address(inst)?;
        let lane = self.stored_lane(inst.b, inst.ty)?;
        let value = lane.map_or_else(|| self.operand(inst.b, inst.ty), Ok)?;
        let access = Access { size, write: true, aligned: false };
        let host = self.probe_shared(inst, addr, access, Slow::Store, |l| {
            let info = l.const64(size_and_flags(size, flags));
            let low = if inst.ty == Type::V128 {
                l.store_wide_header(value, offset_of!(EnvHeader, slow_value));
                l.const64(0)
            } else {
                let value = if lane.is_some() { l.lane_bits(value) } else { value };
                let value = l.convert(value, inst.ty, Type::I64);
                l.apart(value)
            };
            Ok(vec![l.env, l.address_aside(inst)?, low, info])
        })?;
        self.order(flags);
        self.b.ins().store(self.flags.guest, value, host, 0);
        Ok(())
    }

    pub(super) fn rmw(&mut self, inst: &Inst) -> Result<(), BackendError> {
        let kind = RmwKind::from_code(inst.c).ok_or_else(|| self.malformed("no such read-modify-write"))?;
        let op = match kind {
            RmwKind::Add => AtomicRmwOp::Add,
            RmwKind::And => AtomicRmwOp::And,
            RmwKind::Or => AtomicRmwOp::Or,
            RmwKind::Xor => AtomicRmwOp::Xor,
            RmwKind::Xchg => AtomicRmwOp::Xchg,
        };
        let size = inst.ty.bytes();
        let addr = self.int(inst.a, Type::I64)?;
        let operand = self.int(inst.b, inst.ty)?;
        let access = Access { size, write: true, aligned: true };
        let host = self.probe(addr, access, Slow::Rmw, |l| {
            let info = l.const64(u64::from(inst.c) | u64::from(size) << 8);
            let operand = l.convert(operand, inst.ty, Type::I64);
            Ok(vec![l.env, addr, operand, info])
        })?;
        let ty = self.ty(inst.ty);
        let old = self.b.ins().atomic_rmw(ty, self.flags.guest_aligned, op, host, operand);
        self.define(inst.ty, old);
        Ok(())
    }

    pub(super) fn cas(&mut self, inst: &Inst) -> Result<(), BackendError> {
        let size = inst.ty.bytes();
        let addr = self.int(inst.a, Type::I64)?;
        let (expected, new) = (self.int(inst.b, inst.ty)?, self.int(inst.c, inst.ty)?);
        let access = Access { size, write: true, aligned: true };
        let host = self.probe(addr, access, Slow::Cas, |l| {
            let info = l.const64(u64::from(size));
            let [expected, new] = [expected, new].map(|v| l.convert(v, inst.ty, Type::I64));
            Ok(vec![l.env, addr, expected, new, info])
        })?;
        let old = self.b.ins().atomic_cas(self.flags.guest_aligned, host, expected, new);
        self.define(inst.ty, old);
        Ok(())
    }
}

/// As [`EnvHeader::slow_load`] and [`EnvHeader::slow_store`] take it: size in bytes, flags from bit 8 on.
fn size_and_flags(size: u32, flags: MemFlags) -> u64 {
    u64::from(size) | u64::from(flags.bits()) << 8
}
