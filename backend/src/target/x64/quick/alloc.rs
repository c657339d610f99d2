//! Where values are: registers given out in one pass, by when they are needed last.

use mimus_ir::{Block, Inst, NONE, Op, Shape, Value};

use super::Refused;
use super::emit::{Gpr, RBX};

/// Places for spilled values in [`mimus_softmmu::EnvHeader::spills`].
pub(super) const SPILLS: usize = mimus_softmmu::header::SPILLS;

const _: () = assert!(SPILLS <= 64);

/// Where a value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Loc {
    /// Not defined, or not needed any more.
    #[default]
    None,
    /// A constant.
    Const(u64),
    /// A comparison that is made where it is used.
    Deferred,
    /// A general register.
    General(Gpr),
    /// An XMM register.
    Vector(u8),
    /// A spill slot, zero-extended to 64 bits.
    Spilled(u8),
    /// A spill slot, all 128 bits.
    SpilledVector(u8),
}

/// A kind of register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    General,
    Vector,
}

/// By their numbers: RBX, and R8 to R15.
const GENERAL: u16 = 1 << RBX | 0xff00;
/// Those of [`GENERAL`] that an `extern "C"` function may change (System V psABI, 3.2.1): R8 to R11. It may change every XMM
/// register.
const VOLATILE: u16 = 0x0f00;
/// All but the scratch registers.
const VECTORS: u16 = 0xfffc;

/// What is known of a block's values beforehand.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// By value: position of the op that needs it last; 0 if none does.
    last: Vec<u16>,
    uses: Vec<u16>,
    /// By value: position of the last op that has it as an operand.
    user: Vec<u16>,
    /// By value: whether it is a comparison to be made where it is used.
    deferred: Vec<bool>,
}

impl Plan {
    /// For `block`; false if it is malformed.
    pub(super) fn make(&mut self, block: &Block) -> bool {
        let insts = &block.insts;
        let count = insts.len();
        for list in [&mut self.user, &mut self.uses] {
            list.clear();
            list.resize(count, 0);
        }
        self.deferred.clear();
        self.deferred.resize(count, false);
        let mut sound = count > 0;
        for (at, inst) in insts.iter().enumerate() {
            sound &= inst.op.info().effects.contains(mimus_ir::Effects::END) == (at + 1 == count);
            for_each_operand(inst, |v| match self.uses.get_mut(usize::from(v)) {
                Some(uses) if usize::from(v) < at => {
                    *uses += 1;
                    self.user[usize::from(v)] = at as u16;
                }
                _ => sound = false,
            });
        }
        if !sound {
            return false;
        }
        self.last.clone_from(&self.user);
        for at in (0..count).rev() {
            self.deferred[at] = self.uses[at] == 1 && self.may_defer(insts, at);
            if self.deferred[at] {
                let until = self.last[at];
                for_each_operand(&insts[at], |v| {
                    let last = &mut self.last[usize::from(v)];
                    *last = until.max(*last);
                });
            }
        }
        true
    }

    /// Whether the value at `at`, which is used once, is a condition that its user can make itself.
    fn may_defer(&self, insts: &[Inst], at: usize) -> bool {
        let (inst, user) = (&insts[at], usize::from(self.user[at]));
        let condition = match inst.op.info().shape {
            Shape::Compare | Shape::CompareImm => true,
            _ => {
                let inner = insts[usize::from(inst.a).min(at)].op.info().shape;
                inst.op == Op::XorI && inst.imm == 1 && matches!(inner, Shape::Compare | Shape::CompareImm)
            }
        };
        condition
            && match insts[user].op {
                Op::Branch | Op::TrapIf => true,
                Op::Select => usize::from(insts[user].a) == at,
                Op::XorI => self.deferred[user],
                _ => false,
            }
    }

    /// Whether `v` is not needed after the op at `at`.
    pub(super) fn is_last(&self, v: Value, at: usize) -> bool {
        self.last.get(usize::from(v)).is_none_or(|last| usize::from(*last) <= at)
    }

    /// Whether the value is a comparison to be made where it is used.
    pub(super) fn is_deferred(&self, at: usize) -> bool {
        self.deferred.get(at).copied().unwrap_or(false)
    }
}

/// The operands that are values.
fn for_each_operand(inst: &Inst, mut f: impl FnMut(Value)) {
    let operands = [inst.a, inst.b, inst.c];
    operands.into_iter().take(inst.op.info().operands.into()).filter(|v| *v != NONE).for_each(&mut f);
}

/// A register given out; what was in it must be written to the slot first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Taken {
    pub reg: u8,
    pub slot: Option<u8>,
}

/// The state of the registers at the current op.
#[derive(Debug, Default)]
pub(super) struct Registers {
    locs: Vec<Loc>,
    /// Free registers of each class.
    free: [u16; 2],
    /// What is in each register of each class.
    holds: [[Value; 16]; 2],
    /// Registers of operands of the current op.
    pinned: [u16; 2],
    free_slots: u64,
    /// General registers that hold no value and are not free.
    lent: u16,
}

impl Registers {
    /// For a block of `count` values.
    pub(super) fn clear(&mut self, count: usize) {
        self.locs.clear();
        self.locs.resize(count, Loc::None);
        self.free = [GENERAL, VECTORS];
        self.holds = [[NONE; 16]; 2];
        self.pinned = [0; 2];
        self.lent = 0;
        self.free_slots = u64::MAX >> (64 - SPILLS);
    }

    /// Where a value is.
    pub(super) fn get(&self, v: Value) -> Result<Loc, Refused> {
        self.locs.get(usize::from(v)).copied().filter(|loc| *loc != Loc::None).ok_or(Refused)
    }

    /// Says where the value of position `at` is.
    pub(super) fn set(&mut self, at: usize, loc: Loc) {
        match loc {
            Loc::General(reg) => self.hold(Class::General, reg, at as Value),
            Loc::Vector(reg) => self.hold(Class::Vector, reg, at as Value),
            _ => {}
        }
        self.locs[at] = loc;
    }

    fn hold(&mut self, class: Class, reg: u8, v: Value) {
        self.free[class as usize] &= !(1 << reg);
        // It is wanted until the op is over.
        self.pinned[class as usize] |= 1 << reg;
        self.holds[class as usize][usize::from(reg)] = v;
    }

    /// Forgets a value.
    pub(super) fn release(&mut self, v: Value) {
        match std::mem::take(&mut self.locs[usize::from(v)]) {
            Loc::General(reg) => self.free[Class::General as usize] |= 1 << reg,
            Loc::Vector(reg) => self.free[Class::Vector as usize] |= 1 << reg,
            Loc::Spilled(slot) | Loc::SpilledVector(slot) => self.free_slots |= 1 << slot,
            _ => {}
        }
    }

    /// Keeps the registers of the operands of `inst` until it is over.
    pub(super) fn pin(&mut self, inst: &Inst) {
        self.pinned = [0; 2];
        for_each_operand(inst, |v| match self.locs.get(usize::from(v)) {
            Some(Loc::General(reg)) => self.pinned[Class::General as usize] |= 1 << reg,
            Some(Loc::Vector(reg)) => self.pinned[Class::Vector as usize] |= 1 << reg,
            _ => {}
        });
    }

    /// A register for the current op.
    pub(super) fn take(&mut self, class: Class, plan: &Plan) -> Option<Taken> {
        let index = class as usize;
        let free = self.free[index] & !self.pinned[index];
        if free != 0 {
            let reg = free.trailing_zeros() as u8;
            return Some(Taken { reg, slot: None });
        }
        let all = if class == Class::General { GENERAL & !self.lent } else { VECTORS };
        let candidates = (0..16u8).filter(|reg| (all & !self.pinned[index]) >> reg & 1 != 0);
        let reg = candidates.max_by_key(|reg| plan.last.get(usize::from(self.holds[index][usize::from(*reg)])))?;
        let slot = self.spill(class, reg)?;
        Some(Taken { reg, slot: Some(slot) })
    }

    /// A free register that no call changes, for something that is no value, until it is given back.
    pub(super) fn lend(&mut self) -> Option<Gpr> {
        let free = self.free[Class::General as usize] & !VOLATILE & !self.pinned[Class::General as usize];
        let reg = (free != 0).then(|| free.trailing_zeros() as Gpr)?;
        self.free[Class::General as usize] &= !(1 << reg);
        self.lent |= 1 << reg;
        Some(reg)
    }

    /// Gives back what was lent.
    pub(super) fn give_back(&mut self, reg: Gpr) {
        self.lent &= !(1 << reg);
        self.free[Class::General as usize] |= 1 << reg;
    }

    /// Moves what a register holds to a slot.
    fn spill(&mut self, class: Class, reg: u8) -> Option<u8> {
        let slot = self.free_slots.trailing_zeros() as u8;
        if usize::from(slot) >= SPILLS {
            return None;
        }
        self.free_slots &= !(1 << slot);
        let v = self.holds[class as usize][usize::from(reg)];
        self.locs[usize::from(v)] = if class == Class::General { Loc::Spilled(slot) } else { Loc::SpilledVector(slot) };
        self.free[class as usize] |= 1 << reg;
        Some(slot)
    }

    /// Frees one general register for something else; what was in it must be written to the slot.
    pub(super) fn free_register(&mut self, reg: Gpr) -> Result<Option<u8>, Refused> {
        if self.free[Class::General as usize] >> reg & 1 != 0 {
            return Ok(None);
        }
        self.spill(Class::General, reg).map(Some).ok_or(Refused)
    }

    /// The next register that a call may change and that holds a value needed after the op at `at`: to be written to the slot.
    pub(super) fn spill_volatile(&mut self, plan: &Plan, at: usize) -> Option<Result<(Class, Taken), Refused>> {
        for (class, volatile) in [(Class::General, VOLATILE), (Class::Vector, VECTORS)] {
            let held = volatile & !self.free[class as usize];
            let needed =
                |reg: &u8| held >> reg & 1 != 0 && !plan.is_last(self.holds[class as usize][usize::from(*reg)], at);
            if let Some(reg) = (0..16u8).find(needed) {
                let slot = self.spill(class, reg);
                return Some(slot.map(|slot| (class, Taken { reg, slot: Some(slot) })).ok_or(Refused));
            }
        }
        None
    }

    /// Ends the op at `at`: what it needed last is free again.
    pub(super) fn end(&mut self, plan: &Plan, insts: &[Inst], at: usize) {
        self.end_operands(plan, insts, at, at);
        if plan.uses.get(at) == Some(&0) {
            self.release(at as Value);
        }
    }

    /// Frees those operands of the op at `user` that are not needed after the one at `at`, and those of the comparisons that it
    /// made.
    fn end_operands(&mut self, plan: &Plan, insts: &[Inst], user: usize, at: usize) {
        for_each_operand(&insts[user], |v| {
            if plan.is_last(v, at) {
                if self.locs[usize::from(v)] == Loc::Deferred {
                    // Comparisons are made of earlier values: this ends.
                    self.end_operands(plan, insts, v.into(), at);
                }
                self.release(v);
            }
        });
    }
}
