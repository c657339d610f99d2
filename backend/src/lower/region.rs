//! Lowering of regions: several blocks compiled as one function.
//!
//! Jumps between its parts stay within it, and env slots that the parts read are held in host registers across them. Stores to
//! env wait until somebody may look ([`super::sink`]). What a helper may have written is loaded again.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{Block, InstBuilder, Value};
use cranelift_frontend::Variable;
use mimus_ir::op::JumpKind;
use mimus_ir::{Effects, Inst, Op, Type};

use super::Lowering;
use super::pages::{Pages, innermost_loops};
use super::sink::{hidden, overlap};
use crate::compile::Part;
use crate::error::BackendError;

/// Most slots held in registers, by register file: more than there are registers would be spilled to the stack, which is no
/// better than env.
const MAX_INT: usize = 8;
const MAX_WIDE: usize = 8;

/// Most places of the region that a return is compared with before it is looked up.
const MAX_RETURNS: usize = 4;

/// An env slot that is held in a variable.
#[derive(Clone, Copy)]
pub(super) struct RegisterSlot {
    offset: u16,
    ty: Type,
    /// The parts' loads of it, weighted.
    loads: u32,
}

impl RegisterSlot {
    fn overlaps(&self, offset: u16, ty: Type) -> bool {
        overlap(self.offset, self.ty, offset, ty)
    }
}

/// What is known of the region under construction; empty for a block that is none.
#[derive(Default)]
pub(super) struct Region {
    /// Guest PC and Cranelift block of each part.
    parts: Vec<(u64, Block)>,
    slots: Vec<RegisterSlot>,
    variables: Vec<Variable>,
    /// By part: the slots, one bit each, that it or what follows it reads before they are written.
    live: Vec<u64>,
    /// By part: slots in registers that env's memory need not agree with where it begins.
    waits: Vec<u64>,
    /// By part: see [`hidden`].
    hidden: Vec<Vec<(u16, Type)>>,
    /// Slots whose variable is not their value at this point.
    stale: u64,
}

impl Region {
    /// The part that begins at a guest PC.
    pub(super) fn part_at(&self, pc: u64) -> Option<usize> {
        self.parts.iter().position(|&(start, _)| start == pc)
    }

    /// The variable of the slot that an instruction accesses.
    pub(super) fn slot(&self, inst: &Inst) -> Option<usize> {
        self.slot_at(inst.c, inst.ty)
    }

    /// The variable of the slot at an offset.
    pub(super) fn slot_at(&self, offset: u16, ty: Type) -> Option<usize> {
        self.slots.iter().position(|slot| slot.offset == offset && slot.ty == ty)
    }

    /// Whether a part, or what follows it, reads the slot before it is written.
    pub(super) fn is_live(&self, part: usize, slot: usize) -> bool {
        self.live[part] >> slot & 1 != 0
    }

    /// The slots of 64 bits that are live where a part begins: number and offset.
    pub(super) fn live_wholes(&self, part: usize) -> impl Iterator<Item = (usize, u16)> {
        let slots = self.slots.iter().enumerate().filter(move |(slot, _)| self.is_live(part, *slot));
        slots.filter(|(_, slot)| slot.ty == Type::I64).map(|(index, slot)| (index, slot.offset))
    }

    /// Whether env's memory need not hold the slot's value where a part begins.
    pub(super) fn waits(&self, part: usize, slot: usize) -> bool {
        self.waits[part] >> slot & 1 != 0
    }

    /// Slots that wait where a part begins: number, offset and type.
    pub(super) fn waiting_at(&self, part: usize) -> Vec<(usize, u16, Type)> {
        let waits = |slot: &usize| self.waits.get(part).is_some_and(|waits| waits >> slot & 1 != 0);
        (0..self.slots.len()).filter(waits).map(|slot| (slot, self.slots[slot].offset, self.slots[slot].ty)).collect()
    }

    /// Whether a part writes the slot before anybody looks.
    pub(super) fn hides(&self, part: usize, offset: u16, ty: Type) -> bool {
        self.hidden[part].contains(&(offset, ty))
    }

    /// Env's memory, not the variable, holds the slot's value.
    pub(super) fn forget(&mut self, slot: usize) {
        self.stale |= 1 << slot;
    }

    /// The same for every slot.
    pub(super) fn forget_all(&mut self) {
        self.stale = self.all();
    }

    fn all(&self) -> u64 {
        (1 << self.slots.len()) - 1
    }
}

/// Parts that control may go to after a part.
fn successors<'a>(parts: &'a [Part<'a>], part: &'a Part<'a>) -> impl Iterator<Item = usize> + 'a {
    let last = part.block.terminator();
    let direct = match last.map(|inst| (inst.op, inst.imm)) {
        Some((Op::Jump, target)) => [Some(target), None],
        Some((Op::Branch, target)) => [Some(target), Some(part.block.fallthrough)],
        _ => [None, None],
    };
    let returns = last.is_some_and(|inst| inst.op == Op::JumpInd && inst.jump_kind() == JumpKind::Return);
    let is_next = move |pc: u64| direct.contains(&Some(pc)) || returns && is_return_site(parts, pc);
    parts.iter().enumerate().filter(move |(_, p)| is_next(p.block.pc)).map(|(index, _)| index)
}

/// Whether a part calls and a return from there leads to `pc`.
fn is_return_site(parts: &[Part<'_>], pc: u64) -> bool {
    let calls = |inst: &Inst| matches!(inst.op, Op::Jump | Op::JumpInd) && inst.jump_kind() == JumpKind::Call;
    parts.iter().any(|part| part.block.fallthrough == pc && part.block.terminator().is_some_and(calls))
}

/// Chooses the slots to hold in variables: those read most that no access of another width overlaps. What a small loop reads
/// counts more.
fn choose_slots(parts: &[Part<'_>], loops: &[u64]) -> Vec<RegisterSlot> {
    let mut slots: Vec<RegisterSlot> = Vec::new();
    let weight = |body: u64| if body == 0 { 1 } else { 4 + 60 / body.count_ones() };
    let insts = parts.iter().zip(loops).flat_map(|(part, &body)| part.block.insts.iter().map(move |inst| (inst, body)));
    for (inst, body) in insts {
        if !matches!(inst.op, Op::LoadEnv | Op::StoreEnv | Op::StoreEnvI) {
            continue;
        }
        let loads = if inst.op == Op::LoadEnv { weight(body) } else { 0 };
        match slots.iter_mut().find(|slot| slot.offset == inst.c && slot.ty == inst.ty) {
            Some(slot) => slot.loads += loads,
            None => slots.push(RegisterSlot { offset: inst.c, ty: inst.ty, loads }),
        }
    }
    let alone = |slot: &&RegisterSlot| slots.iter().filter(|other| other.overlaps(slot.offset, slot.ty)).count() == 1;
    let mut chosen: Vec<RegisterSlot> = slots.iter().filter(|slot| slot.loads > 0).filter(alone).copied().collect();
    chosen.sort_by_key(|slot| std::cmp::Reverse(slot.loads));
    let (mut ints, mut wides) = (0, 0);
    chosen.retain(|slot| {
        let (count, max) = if slot.ty == Type::V128 { (&mut wides, MAX_WIDE) } else { (&mut ints, MAX_INT) };
        *count += 1;
        *count <= max
    });
    chosen
}

/// By part, the slots that are live where it begins.
fn liveness(parts: &[Part<'_>], region: &Region) -> Vec<u64> {
    // What each part reads before it writes, and what it writes or loads again.
    let effects: Vec<(u64, u64)> = parts
        .iter()
        .map(|part| {
            let (mut reads, mut writes) = (0, 0);
            for inst in &part.block.insts {
                match inst.op {
                    Op::LoadEnv => reads |= region.slot(inst).map_or(0, |slot| 1 << slot) & !writes,
                    Op::StoreEnv | Op::StoreEnvI => writes |= region.slot(inst).map_or(0, |slot| 1 << slot),
                    Op::Call if inst.effects().contains(Effects::WRITE_ENV) => writes = region.all(),
                    _ => {}
                }
            }
            (reads, writes)
        })
        .collect();
    let mut live = vec![0u64; parts.len()];
    loop {
        let mut changed = false;
        for (index, part) in parts.iter().enumerate().rev() {
            let out = successors(parts, part).fold(0, |out, next| out | live[next]);
            let (reads, writes) = effects[index];
            let now = reads | out & !writes;
            changed |= now != live[index];
            live[index] = now;
        }
        if !changed {
            return live;
        }
    }
}

/// By part: the slots that go on waiting where it begins, since it is in a loop that writes them and reads them.
fn waiting(parts: &[Part<'_>], region: &Region, loops: &[u64]) -> Vec<u64> {
    let written: Vec<u64> = parts
        .iter()
        .map(|part| {
            let stores = part.block.insts.iter().filter(|inst| matches!(inst.op, Op::StoreEnv | Op::StoreEnvI));
            let slots = stores.filter(|inst| inst.ty != Type::V128).filter_map(|inst| region.slot(inst));
            slots.fold(0, |written, slot| written | 1 << slot)
        })
        .collect();
    let within = |body: u64| (0..parts.len()).filter(move |part| body >> part & 1 != 0);
    let waits = |part: usize| within(loops[part]).fold(0, |all, other| all | written[other]) & region.live[part];
    (0..parts.len()).map(waits).collect()
}

impl Lowering<'_, '_> {
    /// Plans the region and makes its entry.
    pub(super) fn begin_region(&mut self) -> Result<(), BackendError> {
        if !self.request.region {
            return Ok(());
        }
        let parts = self.request.parts;
        let next: Vec<u64> =
            parts.iter().map(|part| successors(parts, part).fold(0, |next, index| next | 1 << index)).collect();
        let loops = innermost_loops(&next);
        self.region.slots = choose_slots(parts, &loops);
        self.region.live = liveness(parts, &self.region);
        for part in parts {
            let block = self.b.create_block();
            self.region.parts.push((part.block.pc, block));
        }
        for slot in 0..self.region.slots.len() {
            let ty = self.ty(self.region.slots[slot].ty);
            let variable = self.b.declare_var(ty);
            self.region.variables.push(variable);
        }
        self.region.forget_all();
        self.region.waits = waiting(parts, &self.region, &loops);
        self.region.hidden = parts.iter().map(|part| hidden(&part.block.insts)).collect();
        self.pages = Pages::plan(parts, &loops);
        self.forget_pages();
        self.jump_to_part(0)?;
        // From here on: what enters the region does not come back.
        self.plan_peeling(&next, &loops);
        Ok(())
    }

    /// Goes on with the current part, or its second copy.
    pub(super) fn enter_part(&mut self, copy: Option<usize>) {
        if let Some(&(_, block)) = self.region.parts.get(self.part) {
            self.b.switch_to_block(copy.and_then(|copy| self.copy_block(copy)).unwrap_or(block));
            // What is not live is not read before it is written.
            self.region.stale = self.region.all() & !self.region.live[self.part];
            self.take_over(copy);
        }
    }

    /// The value of a slot.
    pub(super) fn use_slot(&mut self, slot: usize) -> Value {
        if self.region.stale & 1 << slot != 0 {
            self.reload(slot);
        }
        self.b.use_var(self.region.variables[slot])
    }

    /// A slot has a new value, which env's memory holds too.
    pub(super) fn define_slot(&mut self, slot: usize, value: Value) {
        self.b.def_var(self.region.variables[slot], value);
        self.region.stale &= !(1 << slot);
    }

    fn reload(&mut self, slot: usize) {
        let RegisterSlot { offset, ty, .. } = self.region.slots[slot];
        let value = self.env_value(ty, offset);
        self.define_slot(slot, value);
    }

    /// Jumps to a part, with what it reads in the variables.
    pub(super) fn jump_to_part(&mut self, part: usize) -> Result<(), BackendError> {
        let before = self.region.stale;
        let copy = self.way_back(part);
        self.hand_over(part, copy)?;
        let stale = self.region.stale;
        for slot in 0..self.region.slots.len() {
            if stale & self.region.live[part] & 1 << slot != 0 {
                self.reload(slot);
            }
        }
        // Another edge may leave from here as well.
        self.region.stale = before;
        let block = copy.and_then(|copy| self.copy_block(copy)).unwrap_or(self.region.parts[part].1);
        self.b.ins().jump(block, &[]);
        Ok(())
    }

    /// Returns that lead to a part stay within the region.
    pub(super) fn return_within(&mut self, pc: Value) -> Result<(), BackendError> {
        let sites: Vec<usize> = (0..self.region.parts.len())
            .filter(|&part| is_return_site(self.request.parts, self.region.parts[part].0))
            .take(MAX_RETURNS)
            .collect();
        if sites.is_empty() {
            return Ok(());
        }
        let pc = self.relative(pc);
        for part in sites {
            let target = self.const64(self.region.parts[part].0);
            let here = self.b.ins().icmp(IntCC::Equal, pc, target);
            let (within, elsewhere) = (self.b.create_block(), self.b.create_block());
            self.b.ins().brif(here, within, &[], elsewhere, &[]);
            self.b.switch_to_block(within);
            self.leave_if_requested(|_| target)?;
            self.jump_to_part(part)?;
            self.b.switch_to_block(elsewhere);
        }
        Ok(())
    }
}
