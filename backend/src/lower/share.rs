//! Which accesses of a block share one TLB probe: those off one base that are close to each other, with nothing between them
//! that may flush the TLB.

use mimus_ir::block::CallInfo;
use mimus_ir::{Effects, Inst, MemFlags, Op, Value};

/// Most bytes that one probe is for. Where they cross a page, each access takes its slow path.
const MAX_SPAN: i64 = 128;

/// How an access gets the host address of its page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Plan {
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

struct Group {
    base: Value,
    write: bool,
    leader: usize,
    start: i64,
    end: i64,
}

/// Whether something that was found in the TLB before may be out of date afterwards.
pub(super) fn may_flush(inst: &Inst) -> bool {
    let changes = Effects::WRITE_ENV.or(Effects::FAULT).or(Effects::MEMORY).0;
    inst.op == Op::Call && CallInfo::decode(inst.imm).effects.0 & changes != 0
}

/// Fills in the plan of every op; those that are no loads or stores are [`Plan::Alone`].
pub(super) fn plan(insts: &[Inst], plans: &mut Vec<Plan>) {
    plans.clear();
    plans.resize(insts.len(), Plan::Alone);
    let mut groups: Vec<Group> = Vec::new();
    for (index, inst) in insts.iter().enumerate() {
        if may_flush(inst) {
            groups.clear();
        }
        let write = match inst.op {
            Op::Store => true,
            Op::Load => inst.mem_flags().has(MemFlags::FOR_WRITE),
            _ => continue,
        };
        let (from, to) = (i64::from(inst.mem_disp()), i64::from(inst.mem_disp()) + i64::from(inst.ty.bytes()));
        let fits = |group: &&mut Group| {
            group.base == inst.a && (group.write || !write) && to.max(group.end) - from.min(group.start) <= MAX_SPAN
        };
        match groups.iter_mut().find(fits) {
            Some(group) => {
                group.start = group.start.min(from);
                group.end = group.end.max(to);
                plans[index] = Plan::Follows(group.leader as Value);
                let span = (group.end - group.start) as u32;
                // Within the accesses' displacements, of 32 bits.
                plans[group.leader] = Plan::Leads { start: group.start as i32, span };
            }
            None => groups.push(Group { base: inst.a, write, leader: index, start: from, end: to }),
        }
    }
}
