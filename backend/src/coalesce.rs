//! Which accesses of a block share one TLB probe: those off one base that are close to each other, with nothing between them
//! that may flush the TLB.

use mimus_ir::block::CallInfo;
use mimus_ir::{Effects, Inst, MemFlags, Op, Value};

/// Most bytes that one probe is for. Where they cross a page, each access takes its slow path.
const MAX_SPAN: i64 = 128;

/// How an access gets the host address of its page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ProbePlan {
    /// By a probe of its own.
    Alone,
    /// By a probe for the `span` bytes from displacement `start` on, which others use too.
    Leads {
        /// Displacement of the first byte.
        start: i32,
        /// Bytes.
        span: u32,
    },
    /// By the probe of the access at this position.
    Follows(Value),
}

/// What addresses count from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Base {
    Zero,
    /// The base of the block's guest PCs.
    Code,
    Value(Value),
}

struct Group {
    /// What the displacements count from.
    base: Base,
    /// How far from there its leader's own base is.
    offset: i64,
    write: bool,
    leader: usize,
    start: i64,
    end: i64,
}

impl Group {
    /// The leader's plan if it looks for the page of another access, too.
    fn with(&self, other: &Group) -> Option<ProbePlan> {
        let (start, end) = (self.start.min(other.start), self.end.max(other.end));
        let span = end.checked_sub(start).filter(|&span| span <= MAX_SPAN)?;
        let start = i32::try_from(start.wrapping_sub(self.offset)).ok()?;
        let fits = self.base == other.base && (self.write || !other.write);
        fits.then_some(ProbePlan::Leads { start, span: span as u32 })
    }
}

/// Whether something that was found in the TLB before may be out of date afterwards.
pub(crate) fn may_flush(inst: &Inst) -> bool {
    let changes = Effects::WRITE_ENV | Effects::FAULT | Effects::MEMORY;
    inst.op == Op::Call && CallInfo::decode(inst.imm).effects.intersects(changes)
}

/// Fills in the plan of every op; those that are no loads or stores are [`ProbePlan::Alone`].
pub(crate) fn plan(insts: &[Inst], plans: &mut Vec<ProbePlan>) {
    plans.clear();
    plans.resize(insts.len(), ProbePlan::Alone);
    let mut groups: Vec<Group> = Vec::new();
    for (index, inst) in insts.iter().enumerate() {
        if may_flush(inst) {
            groups.clear();
        }
        let write = match inst.op {
            Op::Store => true,
            Op::Load => inst.mem_flags().contains(MemFlags::FOR_WRITE),
            _ => continue,
        };
        let (base, offset) = match insts.get(usize::from(inst.a)) {
            Some(def) if def.op == Op::Const => (Base::Zero, (def.imm & def.ty.mask()) as i64),
            Some(def) if def.op == Op::Pc => (Base::Code, def.imm as i64),
            _ => (Base::Value(inst.a), 0),
        };
        let start = offset.wrapping_add(i64::from(inst.mem_disp()));
        let Some(end) = start.checked_add(i64::from(inst.ty.bytes())) else { continue };
        let one = Group { base, offset, write, leader: index, start, end };
        match groups.iter_mut().find_map(|group| group.with(&one).map(|plan| (group, plan))) {
            Some((group, plan)) => {
                (group.start, group.end) = (group.start.min(start), group.end.max(end));
                plans[index] = ProbePlan::Follows(group.leader as Value);
                plans[group.leader] = plan;
            }
            None => groups.push(one),
        }
    }
}
