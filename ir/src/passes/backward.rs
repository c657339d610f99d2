//! Dead env stores, dead code, and compaction.

use super::{Scratch, at};
use crate::block::{Inst, Value};
use crate::op::{Effects, Op};

/// Effects of ops before which env must be precise.
const OBSERVERS: Effects = Effects::FAULT.union(Effects::MEMORY).union(Effects::END).union(Effects::READ_ENV);

/// Sets `scratch.flag` for each op that is needed. On entry it is set for the markers that observe env.
pub(super) fn mark(insts: &[Inst], scratch: &mut Scratch) {
    let Scratch { env, flag, .. } = scratch;
    env.clear();
    for (index, inst) in insts.iter().enumerate().rev() {
        let flagged = flag[at(index)];
        let keep = match inst.op {
            Op::StoreEnv | Op::StoreEnvI => env.hide(inst.c, inst.ty),
            Op::LoadEnv => {
                if flagged {
                    env.expose(inst.c, inst.ty);
                }
                flagged
            }
            Op::Insn => {
                if flagged {
                    env.clear();
                }
                true
            }
            _ => {
                let effects = inst.effects();
                if effects.intersects(OBSERVERS) {
                    env.clear();
                }
                flagged || !effects.is_empty()
            }
        };
        flag[at(index)] = keep;
        if keep {
            let mut inst = *inst;
            inst.for_each_operand(|v| flag[at(usize::from(*v))] = true);
        }
    }
}

/// Removes the ops that are not flagged and renumbers the values.
pub(super) fn compact(insts: &mut Vec<Inst>, scratch: &mut Scratch) {
    let Scratch { replace, flag, .. } = scratch;
    let mut len = 0;
    for index in 0..insts.len() {
        if !flag[at(index)] {
            continue;
        }
        let mut inst = insts[index];
        inst.for_each_operand(|v| *v = replace[at(usize::from(*v))]);
        insts[len] = inst;
        replace[at(index)] = len as Value;
        len += 1;
    }
    insts.truncate(len);
}
