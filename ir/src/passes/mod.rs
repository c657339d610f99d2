//! Passes over a block between lifting and running it. They run on the vCPU's critical path, so each is one
//! linear walk and none allocates once its [`Scratch`] is warm.
//!
//! 1. *Forward*: constant folding (by the interpreter's own functions), specialization to immediate forms,
//!    algebraic identities, address folding, and forwarding of env slots.
//! 2. *Backward*: env stores that a later one hides, and ops without effect or use, are marked dead.
//! 3. *Compaction*: dead ops go and values are renumbered.
//!
//! **What may observe env.** Env must hold the state at the start of a guest instruction wherever control can
//! leave the block for one: at a [`Effects::FAULT`] or [`Effects::MEMORY`] op (the guest's fault handling reads
//! env), at a call that reads env, at the terminator, and at the first [`Op::Insn`] marker after an op that may
//! have changed translated code ([`crate::Inst::may_change_code`]).
//!
//! Slots that another thread or a slow path writes (an exit request, say) must not be read by
//! [`Op::LoadEnv`]: only a call with [`Effects::WRITE_ENV`] ends what is known of env.

mod backward;
mod env;
mod forward;

use crate::block::{Block, MAX_INSTS};
#[cfg(doc)]
use crate::op::{Effects, Op};

/// Memory of the passes, reused from block to block (about 300 KiB).
pub struct Scratch {
    env: env::EnvMap,
    /// Forward: the value that replaces the one defined here. Compaction: its new number.
    replace: Box<[u16; MAX_INSTS]>,
    /// Forward: how many low bits of the value can be set.
    bound: Box<[u8; MAX_INSTS]>,
    /// Forward: whether env is observed at this marker. Backward: whether the op is needed.
    flag: Box<[bool; MAX_INSTS]>,
}

impl Default for Scratch {
    fn default() -> Self {
        Scratch {
            env: env::EnvMap::new(),
            replace: Box::new([0; MAX_INSTS]),
            bound: Box::new([0; MAX_INSTS]),
            flag: Box::new([false; MAX_INSTS]),
        }
    }
}

/// Index into the arrays of [`Scratch`]: the mask only removes the bounds check, since longer blocks are not
/// optimized.
#[inline(always)]
fn at(value: usize) -> usize {
    value & (MAX_INSTS - 1)
}

/// Runs every pass over `block`, which must be valid ([`crate::verify()`]); its behaviour stays the same. A
/// block that is too long to run is left as it is.
pub fn optimize(block: &mut Block, scratch: &mut Scratch) {
    if block.insts.len() > MAX_INSTS {
        return;
    }
    forward::run(block, scratch);
    backward::mark(&block.insts, scratch);
    backward::compact(&mut block.insts, scratch);
}

#[cfg(test)]
mod equivalence;
#[cfg(test)]
mod tests;
