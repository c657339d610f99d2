//! Page caching in a region's loops: an access whose address a loop steps keeps the page that it found last.
//!
//! Most accesses in a loop are to the page of the time before. Where the address looks as if it were so (it is computed from
//! registers that the loop only steps, or from such a one and an index of few bits), the page that was found is kept in
//! [`EnvHeader::pages`], and the TLB is looked at only when the address leaves it. So neither shift, mask nor the loads that
//! depend on the address are on the way of the access. What is kept is void when the region is entered, and after whatever
//! may flush the TLB.
//!
//! Which sites do this is a guess, by the loop's ops alone. A wrong one costs time.

use std::mem::offset_of;

use cranelift_codegen::ir::{InstBuilder, types};
use mimus_ir::{Effects, Inst, MemFlags, Op, Type, Value};
use mimus_softmmu::EnvHeader;
use mimus_softmmu::PAGE_SIZE;
use mimus_softmmu::header::{KEPT_PAGES, KeptPage};

use super::Lowering;
use crate::coalesce::{self, ProbePlan};
use crate::compile::Part;

/// Step, and distance of accesses off one register, in bytes, from which on they are likelier to leave a page than to stay.
const FAR: i64 = 2048;

/// Bits of an index, scaled, up to which a table is taken to be in one page.
const INDEX_BITS: u32 = 11;

/// Number of an env slot's 8 bytes.
type Granule = u16;

/// What a loop makes of a value from one iteration to the next.
#[derive(Clone, Copy, PartialEq)]
enum Induction {
    /// It is this far from a slot that changes by steps, if at all, or from 0.
    Steps(Option<Granule>, i64),
    /// It changes by steps.
    Walks,
    /// It has so many bits.
    Small(u32),
    /// It is near one that changes by steps.
    Near,
    /// It may be anything.
    Any,
}

/// Accesses with the same key keep the same page.
#[derive(Clone, Copy, PartialEq)]
struct Key {
    granule: Option<Granule>,
    /// Distance from it in units of [`FAR`], or the number of the page.
    distance: i64,
    write: bool,
    size: u32,
}

/// The accesses of a region that keep their page.
#[derive(Default)]
pub(super) struct Pages {
    /// Part, position, and number in [`EnvHeader::pages`].
    sites: Vec<(usize, usize, usize)>,
    count: usize,
}

/// By part, the parts of the innermost loop that it is in, one bit each; 0 if it is in none. `next` has the successors.
pub(super) fn innermost_loops(next: &[u64]) -> Vec<u64> {
    let all = u64::MAX >> (64 - next.len().clamp(1, 64));
    let before = |part: usize| (0..next.len()).filter(move |&p| next[p] >> part & 1 != 0);
    // Those that every way to a part leads through.
    let mut dominators = vec![all; next.len()];
    dominators[0] = 1;
    let mut changed = true;
    while changed {
        changed = false;
        for part in 1..next.len() {
            let now = before(part).fold(all, |both, p| both & dominators[p]) | 1 << part;
            changed |= now != dominators[part];
            dominators[part] = now;
        }
    }
    let mut innermost = vec![0u64; next.len()];
    for head in 0..next.len() {
        // Each way back is a loop: an outer one may have the same head.
        for tail in before(head).filter(|&tail| dominators[tail] >> head & 1 != 0) {
            let (mut body, mut todo) = (1u64 << head, vec![tail]);
            while let Some(part) = todo.pop() {
                if body >> part & 1 == 0 {
                    body |= 1 << part;
                    todo.extend(before(part));
                }
            }
            for (part, innermost) in innermost.iter_mut().enumerate() {
                if body >> part & 1 != 0 && (*innermost == 0 || body.count_ones() < innermost.count_ones()) {
                    *innermost = body;
                }
            }
        }
    }
    innermost
}

fn granule(inst: &Inst) -> Granule {
    inst.c / 8
}

/// The inductions of a part's values, where the slots `wild` may be anything.
fn inductions(insts: &[Inst], wild: &[Granule], out: &mut Vec<Induction>) {
    use Induction::*;
    out.clear();
    for inst in insts {
        let of = |v: Value| out.get(usize::from(v)).copied().unwrap_or(Any);
        let induction = match inst.op {
            Op::Const | Op::Pc => Steps(None, inst.imm as i64),
            Op::LoadEnv if wild.contains(&granule(inst)) => Any,
            Op::LoadEnv => Steps(Some(granule(inst)), 0),
            Op::AddI => beyond(of(inst.a), inst.imm as i64),
            Op::Add => sum(of(inst.a), of(inst.b), 0),
            Op::Sub => match (of(inst.a), of(inst.b)) {
                (Steps(..) | Walks, Steps(..) | Walks) => Walks,
                _ => Any,
            },
            Op::Lea => beyond(sum(of(inst.a), of(inst.b), u32::from(inst.c)), inst.imm as i64),
            Op::MulI | Op::ShlI => match of(inst.a) {
                Steps(..) | Walks => Walks,
                Small(bits) if inst.op == Op::ShlI => small(bits + inst.imm as u32 % 64),
                _ => Any,
            },
            Op::Zext if inst.c == Type::I8 as u16 => Small(8),
            Op::Zext | Op::Sext if inst.c == Type::I32 as u16 => of(inst.a),
            Op::AndI => match (small(64 - inst.imm.leading_zeros()), of(inst.a)) {
                (Any, Steps(..) | Walks) => Walks,
                (bits, _) => bits,
            },
            Op::ShrI => small(inst.ty.bits().saturating_sub(inst.imm as u32)),
            Op::Extract => small(inst.bit_field().1),
            _ => Any,
        };
        // Values are zero-extended.
        let byte = induction == Any && inst.result_type() == Some(Type::I8);
        out.push(if byte { Small(8) } else { induction });
    }
}

fn small(bits: u32) -> Induction {
    if bits <= INDEX_BITS { Induction::Small(bits) } else { Induction::Any }
}

/// A constant added.
fn beyond(induction: Induction, by: i64) -> Induction {
    match induction {
        Induction::Steps(slot, distance) => Induction::Steps(slot, distance.wrapping_add(by)),
        Induction::Walks | Induction::Near => induction,
        _ => Induction::Any,
    }
}

fn sum(a: Induction, b: Induction, shift: u32) -> Induction {
    use Induction::*;
    match (a, b) {
        (Steps(Some(slot), far), Steps(None, by)) if shift == 0 => Steps(Some(slot), far.wrapping_add(by)),
        (Steps(None, far), Steps(slot, by)) if shift == 0 => Steps(slot, far.wrapping_add(by)),
        (Steps(..) | Walks, Steps(..) | Walks) => Walks,
        (Steps(..) | Walks, Small(bits)) if bits + shift <= INDEX_BITS => Near,
        (Small(_), Steps(..) | Walks) if shift == 0 => Near,
        _ => Any,
    }
}

/// The slots that may be anything in the loop of the parts `body`; `None` if a helper changes what it likes.
fn wild_slots(parts: &[Part<'_>], body: u64, induction: &mut Vec<Induction>) -> Option<Vec<Granule>> {
    let mut wild = Vec::new();
    loop {
        let known = wild.len();
        for (_, part) in parts.iter().enumerate().filter(|(index, _)| body >> index & 1 != 0) {
            inductions(&part.block.insts, &wild, induction);
            for inst in &part.block.insts {
                if inst.op == Op::Call && inst.effects().contains(Effects::WRITE_ENV) {
                    return None;
                }
                let steps = inst.op != Op::StoreEnv
                    || match induction.get(usize::from(inst.a)) {
                        Some(Induction::Steps(slot, by)) => *slot != Some(granule(inst)) || by.abs() < FAR,
                        Some(Induction::Walks) => true,
                        _ => false,
                    };
                if !steps && !wild.contains(&granule(inst)) {
                    wild.push(granule(inst));
                }
            }
        }
        if wild.len() == known {
            return Some(wild);
        }
    }
}

impl Pages {
    /// Chooses for a region whose parts are in these innermost loops.
    pub(super) fn plan(parts: &[Part<'_>], loops: &[u64]) -> Pages {
        let mut order: Vec<usize> = (0..parts.len()).filter(|&part| loops[part] != 0).collect();
        order.sort_by_key(|&part| loops[part].count_ones());
        let (mut pages, mut keys) = (Pages::default(), Vec::new());
        let (mut induction, mut plans) = (Vec::new(), Vec::new());
        for part in order {
            let Some(wild) = wild_slots(parts, loops[part], &mut induction) else { continue };
            let insts = &parts[part].block.insts;
            inductions(insts, &wild, &mut induction);
            coalesce::plan(insts, &mut plans);
            for (index, inst) in insts.iter().enumerate() {
                let write = inst.op == Op::Store || inst.mem_flags().contains(MemFlags::FOR_WRITE);
                let (from, size) = match plans[index] {
                    _ if !matches!(inst.op, Op::Load | Op::Store) => continue,
                    ProbePlan::Alone => (inst.mem_disp(), inst.ty.bytes()),
                    ProbePlan::Leads { start, span } => (start, span),
                    ProbePlan::Follows(_) => continue,
                };
                let key = match beyond(induction[usize::from(inst.a)], from.into()) {
                    Induction::Steps(Some(granule), distance) => {
                        let distance = distance.wrapping_add(FAR / 2).div_euclid(FAR);
                        Some(Key { granule: Some(granule), distance, write, size })
                    }
                    Induction::Steps(None, addr) => {
                        Some(Key { granule: None, distance: addr.div_euclid(PAGE_SIZE as i64), write, size })
                    }
                    Induction::Walks | Induction::Near => None,
                    Induction::Small(_) | Induction::Any => continue,
                };
                let kept = match keys.iter().position(|known| key.is_some() && *known == key) {
                    Some(kept) => kept,
                    None if keys.len() == KEPT_PAGES => continue,
                    None => {
                        keys.push(key);
                        keys.len() - 1
                    }
                };
                pages.sites.push((part, index, kept));
            }
        }
        pages.count = keys.len();
        pages
    }

    /// Where the access at a position keeps its page.
    pub(super) fn of(&self, part: usize, index: usize) -> Option<usize> {
        self.sites.iter().find(|site| (site.0, site.1) == (part, index)).map(|site| site.2)
    }
}

/// Offset in [`EnvHeader`] of a field of a kept page.
pub(super) const fn kept(number: usize, field: usize) -> usize {
    offset_of!(EnvHeader, pages) + number * size_of::<KeptPage>() + field
}

impl Lowering<'_, '_> {
    /// Makes void what is kept.
    pub(super) fn forget_pages(&mut self) {
        for number in 0..self.pages.count {
            let nothing = self.b.ins().iconst(types::I64, 0);
            self.store_header(nothing, kept(number, offset_of!(KeptPage, limit)));
        }
    }
}
