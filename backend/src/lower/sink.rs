//! Store sinking: stores of a region to env wait until somebody may look.
//!
//! Within a region a store to env is only noted. A later one to the same slot replaces it, so that the first is never made; what
//! is left is made where control leaves the region, before helpers, and on the way out behind an access that could not be done
//! (the *stub*, off the hot path). An op whose result nothing but such stores uses is emitted where they are made, if they are.
//! At the end of a part the stores are made, but for two kinds: those that the next part hides before anybody looks, and those
//! to slots that are in registers throughout a loop, which go on waiting there.
//!
//! Env is precise wherever it is looked at, as in a single block.

use cranelift_codegen::ir::{Block, InstBuilder, Value};
use mimus_ir::{Effects, Inst, Op, Shape, Type};

use super::peel::Computed;
use super::{Lowering, TypedValues};
use crate::error::BackendError;

/// Most ops that wait one for the other.
const MAX_DEPTH: u32 = 4;

/// What a store will write.
#[derive(Clone, Copy)]
pub(super) enum Source {
    /// The result of this op of the part.
    Op(mimus_ir::Value),
    Constant(u64),
    Host(Value),
    Computed(Computed),
}

#[derive(Clone, Copy)]
pub(super) struct Store {
    pub offset: u16,
    pub ty: Type,
    pub source: Source,
}

/// Whether two slots have bytes in common.
pub(super) fn overlap(offset: u16, ty: Type, other: u16, other_ty: Type) -> bool {
    let (start, end) = (u32::from(offset), u32::from(offset) + ty.bytes());
    start < u32::from(other) + other_ty.bytes() && u32::from(other) < end
}

/// The stores that wait.
#[derive(Default)]
pub(super) struct SunkStores {
    stores: Vec<Store>,
    /// Where they are made before the code is left at an instruction that stops; none for the present ones yet.
    stub: Option<Block>,
    /// By position in the part: ops that are emitted where they are needed.
    deferred: Vec<bool>,
    /// What [`Lowering::remember`] overwrote, while that is to be undone.
    undo: Option<Vec<(usize, TypedValues)>>,
}

impl SunkStores {
    pub(super) fn is_deferred(&self, index: usize) -> bool {
        self.deferred.get(index) == Some(&true)
    }
}

/// Whether an op can be emitted later: all it takes is in registers.
fn can_wait(inst: &Inst) -> bool {
    inst.ty != Type::V128
        && matches!(
            inst.op.info().shape,
            Shape::Unary
                | Shape::Extend
                | Shape::Binary
                | Shape::BinaryImm
                | Shape::Compare
                | Shape::CompareImm
                | Shape::Select
                | Shape::Deposit
                | Shape::Extract
                | Shape::Lea
        )
}

/// The slots that a part writes before control can leave it and before it reads them.
pub(super) fn hidden(insts: &[Inst]) -> Vec<(u16, Type)> {
    let observers = Effects::FAULT | Effects::MEMORY | Effects::END;
    let mut read: Vec<(u16, Type)> = Vec::new();
    let mut hidden = Vec::new();
    for inst in insts {
        match inst.op {
            Op::StoreEnv | Op::StoreEnvI if !read.iter().any(|&(offset, ty)| overlap(offset, ty, inst.c, inst.ty)) => {
                hidden.push((inst.c, inst.ty));
            }
            Op::LoadEnv => read.push((inst.c, inst.ty)),
            Op::Call => break,
            _ if inst.effects().intersects(observers) => break,
            _ => {}
        }
    }
    hidden
}

impl Lowering<'_, '_> {
    /// Begins a part: nothing waits, and which of its ops can.
    pub(super) fn begin_sinking(&mut self) {
        self.sunk.stores.clear();
        self.sunk.stub = None;
        let deferred = &mut self.sunk.deferred;
        deferred.clear();
        if !self.request.region {
            return;
        }
        // First: whether anything but a store to env uses it.
        deferred.resize(self.block.insts.len(), true);
        for index in (0..self.block.insts.len()).rev() {
            let mut inst = self.block.insts[index];
            deferred[index] &= can_wait(&inst);
            if inst.op != Op::StoreEnv && !deferred[index] {
                inst.for_each_operand(|v| {
                    if let Some(deferred) = deferred.get_mut(usize::from(*v)) {
                        *deferred = false;
                    }
                });
            }
        }
        // Second: no long chains, since each way out emits its own.
        let mut depths = vec![0u32; self.block.insts.len()];
        for index in 0..self.block.insts.len() {
            let mut inst = self.block.insts[index];
            if deferred[index] {
                let mut below = 0;
                inst.for_each_operand(|v| below = below.max(depths.get(usize::from(*v)).copied().unwrap_or(0)));
                deferred[index] = below < MAX_DEPTH;
                depths[index] = if deferred[index] { below + 1 } else { 0 };
            }
        }
    }

    /// Emits op `v`, and those that it takes, if that was put off.
    pub(super) fn emit_deferred(&mut self, v: mimus_ir::Value) -> Result<(), BackendError> {
        let missing = |l: &Self, v: mimus_ir::Value| {
            let index = usize::from(v);
            let ty = l.block.insts.get(index).and_then(Inst::result_type);
            l.sunk.is_deferred(index) && ty.is_some_and(|ty| l.values[index][ty as usize].is_none())
        };
        if !missing(self, v) {
            return Ok(());
        }
        let (mut needed, mut next) = (vec![v], 0);
        while let Some(&v) = needed.get(next) {
            next += 1;
            let mut inst = self.block.insts[usize::from(v)];
            inst.for_each_operand(|operand| {
                if missing(self, *operand) && !needed.contains(operand) {
                    needed.push(*operand);
                }
            });
        }
        needed.sort_unstable();
        let current = self.index;
        for v in needed {
            self.index = usize::from(v);
            self.pure(&self.block.insts[usize::from(v)])?;
        }
        self.index = current;
        Ok(())
    }

    /// Records the value of op `index` in type `ty`.
    pub(super) fn remember(&mut self, index: usize, ty: Type, value: Value) {
        if let Some(undo) = &mut self.sunk.undo {
            undo.push((index, self.values[index]));
        }
        self.values[index][ty as usize] = Some(value);
    }

    /// Does `body` in a block that does not dominate what is emitted afterwards.
    pub(super) fn aside(
        &mut self,
        body: impl FnOnce(&mut Self) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        let outer = self.sunk.undo.replace(Vec::new());
        let result = body(self);
        for (index, slots) in self.sunk.undo.take().into_iter().flatten().rev() {
            self.values[index] = slots;
        }
        self.sunk.undo = outer;
        result
    }

    /// A store to env that may wait.
    pub(super) fn put_off(&mut self, offset: u16, ty: Type, source: Source) -> Result<(), BackendError> {
        self.sunk.stores.retain(|store| (store.offset, store.ty) != (offset, ty));
        self.make_overlapping(offset, ty)?;
        self.sunk.stores.push(Store { offset, ty, source });
        self.sunk.stub = None;
        Ok(())
    }

    /// Makes all stores if one of them is to a part of this slot.
    pub(super) fn make_overlapping(&mut self, offset: u16, ty: Type) -> Result<(), BackendError> {
        if self.sunk.stores.iter().any(|store| overlap(store.offset, store.ty, offset, ty)) {
            self.make_stores()?;
        }
        Ok(())
    }

    /// The value that waits to be stored to a slot.
    pub(super) fn waiting(&mut self, offset: u16, ty: Type) -> Result<Option<Value>, BackendError> {
        match self.sunk.stores.iter().find(|store| (store.offset, store.ty) == (offset, ty)) {
            Some(&store) => self.source(store).map(Some),
            None => Ok(None),
        }
    }

    fn source(&mut self, store: Store) -> Result<Value, BackendError> {
        match store.source {
            Source::Op(v) => self.int(v, store.ty),
            Source::Constant(value) => Ok(self.constant(store.ty, value)),
            Source::Host(value) => Ok(value),
            Source::Computed(computed) => self.compute(computed),
        }
    }

    /// Makes the stores here and now.
    pub(super) fn make_stores(&mut self) -> Result<(), BackendError> {
        for store in std::mem::take(&mut self.sunk.stores) {
            let value = self.source(store)?;
            self.b.ins().store(self.flags.env, value, self.env, i32::from(store.offset));
            if let Some(slot) = self.region.slot_at(store.offset, store.ty) {
                self.define_slot(slot, value);
            }
        }
        self.sunk.stub = None;
        Ok(())
    }

    /// Makes the stores on a way out; they go on waiting elsewhere.
    pub(super) fn make_stores_aside(&mut self) -> Result<(), BackendError> {
        self.aside(|l| {
            for store in l.sunk.stores.clone() {
                let value = l.source(store)?;
                l.b.ins().store(l.flags.env, value, l.env, i32::from(store.offset));
            }
            Ok(())
        })
    }

    /// Does `body` as if nothing waited.
    pub(super) fn with_nothing_sunk(
        &mut self,
        body: impl FnOnce(&mut Self) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        let stores = std::mem::take(&mut self.sunk.stores);
        let result = body(self);
        self.sunk.stores = stores;
        result
    }

    /// What waits on the way to a part: stores to slots that are in registers there are dropped from memory if they go on
    /// waiting, all others are made unless the part hides them. The variables of the slots that are live there are set. `copy`
    /// is the part's second copy, if the way leads to that.
    pub(super) fn hand_over(&mut self, part: usize, copy: Option<usize>) -> Result<(), BackendError> {
        self.aside(|l| {
            if let Some(copy) = copy {
                l.set_carried(copy)?;
            }
            for store in l.sunk.stores.clone() {
                let slot = l.region.slot_at(store.offset, store.ty);
                let live = slot.is_some_and(|slot| l.region.is_live(part, slot));
                let waits = slot.is_some_and(|slot| l.region.waits(part, slot));
                let carried = copy.is_some_and(|copy| l.is_carried(copy, store.offset, store.ty));
                let made = !waits && !carried && !l.region.hides(part, store.offset, store.ty);
                if !made && !live {
                    continue;
                }
                let value = l.source(store)?;
                if made {
                    l.b.ins().store(l.flags.env, value, l.env, i32::from(store.offset));
                }
                if let Some(slot) = slot.filter(|_| live) {
                    l.define_slot(slot, value);
                }
            }
            Ok(())
        })
    }

    /// Notes what waits where the current part, or its second copy, begins.
    pub(super) fn take_over(&mut self, copy: Option<usize>) {
        if let Some(copy) = copy {
            self.sunk.stores = self.carried(copy);
        }
        for (slot, offset, ty) in self.region.waiting_at(self.part) {
            let value = self.use_slot(slot);
            self.sunk.stores.push(Store { offset, ty, source: Source::Host(value) });
        }
    }

    /// The stub, and whether it is to be filled in yet; `None` if nothing waits.
    pub(super) fn way_out(&mut self) -> Option<(Block, bool)> {
        if self.sunk.stores.is_empty() {
            return None;
        }
        match self.sunk.stub {
            Some(stub) => Some((stub, false)),
            None => {
                let stub = self.cold_block();
                self.sunk.stub = Some(stub);
                Some((stub, true))
            }
        }
    }
}
