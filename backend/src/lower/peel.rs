//! Loop peeling: the head of a region's loop is there twice.
//!
//! What the last part of a loop has stored to env, and its head stores again, is seen by nobody unless the head is left in
//! between. So the way back leads to a second copy of the head, where such stores still wait: in most loops all that is left of
//! the flags. Where what they store can be computed from registers that are held anyway, that is done on the way out.

use cranelift_codegen::ir::{Block, Value, types};
use cranelift_frontend::Variable;
use mimus_ir::{Effects, Inst, Op, Shape, Type};

use super::Lowering;
use super::region::Region;
use super::sink::{Source, Store, overlap};
use crate::compile::Part;
use crate::error::BackendError;

/// Most ops of a head that is lowered twice.
const MAX_OPS: usize = 120;

/// Most loops of a region whose heads are.
const MAX_HEADS: usize = 6;

/// An operand of what is computed on the way out.
#[derive(Clone, Copy)]
enum Term {
    Slot(usize),
    Constant(u64),
}

/// What a store that goes on waiting is to write.
#[derive(Clone, Copy)]
enum Carried {
    Constant(u64),
    /// What this slot holds.
    Slot(usize),
    /// The result of an op, with these operands.
    Computed(Inst, [Term; 2]),
    /// This value of the loop's last part.
    Value(mimus_ir::Value),
}

/// An op on host values, to be emitted where it is needed; they are numbers of 64 bits.
#[derive(Clone, Copy)]
pub(super) struct Computed {
    inst: Inst,
    operands: [Value; 2],
}

/// A loop whose head is lowered twice.
pub(super) struct PeeledLoop {
    head: usize,
    /// The one part that leads back.
    latch: usize,
    /// The second copy.
    block: Option<Block>,
    /// Slots of 64 bits that wait there.
    carried: Vec<(u16, Carried)>,
    /// The values among them.
    variables: Vec<(mimus_ir::Value, Variable)>,
}

fn is_store(inst: &Inst) -> bool {
    matches!(inst.op, Op::StoreEnv | Op::StoreEnvI)
}

/// Whether every access to a slot is to all of it.
fn is_whole(insts: &[Inst], offset: u16) -> bool {
    let accesses = |inst: &&Inst| is_store(inst) || inst.op == Op::LoadEnv;
    insts
        .iter()
        .filter(accesses)
        .all(|inst| (inst.c, inst.ty) == (offset, Type::I64) || !overlap(inst.c, inst.ty, offset, Type::I64))
}

/// The slots of 64 bits that a head stores before it loads them or calls.
fn hidden_slots(insts: &[Inst]) -> Vec<u16> {
    let (mut loaded, mut hidden) = (Vec::new(), Vec::new());
    for inst in insts.iter().take_while(|inst| inst.op != Op::Call) {
        if inst.op == Op::LoadEnv {
            loaded.push(inst.c);
        } else if is_store(inst) && inst.ty == Type::I64 && !loaded.contains(&inst.c) && !hidden.contains(&inst.c) {
            hidden.push(inst.c);
        }
    }
    hidden.retain(|&offset| is_whole(insts, offset));
    hidden
}

/// The slot that holds value `v` of the latch where the head begins.
fn slot_of(region: &Region, latch: &[Inst], head: usize, v: mimus_ir::Value) -> Option<usize> {
    let last = |offset: u16| latch.iter().rfind(|inst| is_store(inst) && inst.c == offset);
    let holds = |offset: u16| match (last(offset), latch.get(usize::from(v))) {
        (Some(store), _) => store.op == Op::StoreEnv && store.a == v,
        (None, Some(inst)) => inst.op == Op::LoadEnv && (inst.c, inst.ty) == (offset, Type::I64),
        (None, None) => false,
    };
    region.live_wholes(head).find(|&(_, offset)| holds(offset) && is_whole(latch, offset)).map(|(slot, _)| slot)
}

/// What a latch's store is to write as seen from the head's second copy.
fn carry(region: &Region, latch: &[Inst], head: usize, store: &Inst) -> Option<Carried> {
    if store.op == Op::StoreEnvI {
        return Some(Carried::Constant(store.imm));
    }
    let inst = latch.get(usize::from(store.a))?;
    if let Some(slot) = slot_of(region, latch, head, store.a) {
        return Some(Carried::Slot(slot));
    }
    let term = |v: mimus_ir::Value| match latch.get(usize::from(v)) {
        Some(inst) if inst.op == Op::Const => Some(Term::Constant(inst.imm)),
        _ => slot_of(region, latch, head, v).map(Term::Slot),
    };
    let terms = match inst.op.info().shape {
        Shape::Vec => return None,
        Shape::Extend if inst.op == Op::Zext => term(inst.a).map(|a| [a, a]),
        Shape::Binary if matches!(inst.op, Op::Add | Op::Sub | Op::And | Op::Or | Op::Xor) => {
            term(inst.a).zip(term(inst.b)).map(|(a, b)| [a, b])
        }
        Shape::BinaryImm => term(inst.a).map(|a| [a, Term::Constant(inst.imm)]),
        _ => None,
    };
    Some(terms.map_or(Carried::Value(store.a), |terms| Carried::Computed(*inst, terms)))
}

/// The loops whose heads are worth a second copy. `next` has the parts' successors, `loops` the innermost loops they are in.
fn choose(parts: &[Part<'_>], region: &Region, next: &[u64], loops: &[u64]) -> Vec<PeeledLoop> {
    let mut chosen = Vec::new();
    for head in 0..parts.len() {
        let before = |within: bool| {
            let leads = move |p: &usize| next[*p] >> head & 1 != 0 && (loops[head] >> p & 1 != 0) == within;
            (0..parts.len()).filter(leads)
        };
        let insts = &parts[head].block.insts;
        let is_head = loops[head] != 0 && (head == 0 || before(false).next().is_some());
        let mut latches = before(true);
        let (Some(latch), None) = (latches.next(), latches.next()) else { continue };
        if !is_head || insts.len() > MAX_OPS || chosen.len() == MAX_HEADS {
            continue;
        }
        let last = &parts[latch].block.insts;
        // What is stored before a call is made there.
        let after = last.iter().rposition(|inst| inst.op == Op::Call).map_or(0, |at| at + 1);
        let changed = last.iter().any(|inst| inst.op == Op::Call && inst.effects().contains(Effects::WRITE_ENV));
        let mut carried = Vec::new();
        for offset in hidden_slots(insts) {
            let store = last[after..].iter().rfind(|inst| is_store(inst) && inst.c == offset);
            if let Some(store) = store.filter(|_| !changed && is_whole(last, offset))
                && let Some(what) = carry(region, last, head, store)
            {
                carried.push((offset, what));
            }
        }
        if !carried.is_empty() {
            chosen.push(PeeledLoop { head, latch, block: None, carried, variables: Vec::new() });
        }
    }
    chosen
}

impl Lowering<'_, '_> {
    /// Plans the second copies.
    pub(super) fn plan_peeling(&mut self, next: &[u64], loops: &[u64]) {
        self.peeled = choose(self.request.parts, &self.region, next, loops);
        for again in &mut self.peeled {
            again.block = Some(self.b.create_block());
            for (_, what) in &again.carried {
                if let Carried::Value(v) = *what
                    && again.variables.iter().all(|&(known, _)| known != v)
                {
                    again.variables.push((v, self.b.declare_var(types::I64)));
                }
            }
        }
    }

    /// The second copy of a part.
    pub(super) fn copy_of(&self, part: usize) -> Option<usize> {
        self.peeled.iter().position(|again| again.head == part)
    }

    /// The second copy that the current part's jump to another leads to.
    pub(super) fn way_back(&self, part: usize) -> Option<usize> {
        self.peeled.iter().position(|again| again.head == part && again.latch == self.part)
    }

    /// Whether the store to a slot goes on waiting in a copy.
    pub(super) fn is_carried(&self, copy: usize, offset: u16, ty: Type) -> bool {
        ty == Type::I64 && self.peeled[copy].carried.iter().any(|&(slot, _)| slot == offset)
    }

    /// Where a copy begins.
    pub(super) fn copy_block(&self, copy: usize) -> Option<Block> {
        self.peeled[copy].block
    }

    /// On the way to a copy: sets the values that it computes with.
    pub(super) fn set_carried(&mut self, copy: usize) -> Result<(), BackendError> {
        for (v, variable) in self.peeled[copy].variables.clone() {
            let value = self.int(v, Type::I64)?;
            self.b.def_var(variable, value);
        }
        Ok(())
    }

    /// The stores that wait where a copy begins.
    pub(super) fn carried(&mut self, copy: usize) -> Vec<Store> {
        let (carried, variables) = (self.peeled[copy].carried.clone(), self.peeled[copy].variables.clone());
        let source = |l: &mut Self, what: Carried| match what {
            Carried::Constant(value) => Source::Constant(value),
            Carried::Slot(slot) => Source::Host(l.use_slot(slot)),
            Carried::Computed(inst, terms) => {
                let operands = terms.map(|term| match term {
                    Term::Slot(slot) => l.use_slot(slot),
                    // It is in the instruction or, for a constant operand, used up by the passes.
                    Term::Constant(value) => l.const64(value),
                });
                Source::Computed(Computed { inst, operands })
            }
            Carried::Value(v) => match variables.iter().find(|&&(known, _)| known == v) {
                Some(&(_, variable)) => Source::Host(l.b.use_var(variable)),
                None => Source::Op(v),
            },
        };
        carried.into_iter().map(|(offset, what)| Store { offset, ty: Type::I64, source: source(self, what) }).collect()
    }

    /// Emits an op on host values; the result has 64 bits.
    pub(super) fn compute(&mut self, computed: Computed) -> Result<Value, BackendError> {
        let Computed { inst, operands: [a, b] } = computed;
        let value = if inst.op == Op::Zext {
            let from = Type::ALL.get(usize::from(inst.c)).copied().filter(|&ty| ty != Type::V128);
            let from = from.ok_or_else(|| self.malformed("no such source type"))?;
            let narrow = self.convert(a, Type::I64, from);
            self.convert(narrow, from, inst.ty)
        } else {
            let a = self.convert(a, Type::I64, inst.ty);
            let value = match inst.op.info().shape {
                Shape::BinaryImm => self.binary_imm(&inst, a),
                _ => {
                    let b = self.convert(b, Type::I64, inst.ty);
                    self.binary(inst.op, inst.ty, a, b)
                }
            };
            value.ok_or_else(|| self.malformed("not a pure op"))?
        };
        Ok(self.convert(value, inst.ty, Type::I64))
    }
}
