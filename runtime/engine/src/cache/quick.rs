//! Code of the quick tier: where it goes, and how compiled code takes its place.
//!
//! A block keeps its link slots when it is compiled: jump caches may lead to its quick code until vCPUs next drop them, and that
//! code leaves by the same slots. Its count is over for good then, so that whoever still comes that way is sent to the
//! dispatcher, which knows better.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use mimus_backend::CompiledInfo;

use super::code::Placed;
use super::tb::{LinkSlots, Quick};
use super::{Cache, Stage, Tb};

/// A count that is over whenever it is looked at.
const OVER: u32 = 1 << 31;

/// A count that is not over in any time that matters.
const NEVER: u32 = u32::MAX >> 1;

/// Executions of quick code from one look at whether compiled code is ready to the next.
const WAIT: u32 = 4096;

impl Cache {
    /// The link slots for quick code of a block; `None` if it has code, or is dead, or there are no slots.
    pub fn begin_quick(&self, tb: &Tb) -> Option<u32> {
        let mut inner = self.lock();
        if tb.is_dead() || tb.entry() != 0 || tb.quick() == Quick::Refused {
            return None;
        }
        self.take_slots(&mut inner, 1)?.first().copied()
    }

    /// Publishes quick code, to be left with [`mimus_softmmu::ExitCode::Hot`] after `count` executions; without code the block is
    /// not asked for again. Where it went, in host memory.
    pub fn publish_quick(
        &self,
        tb: &Arc<Tb>,
        slot: u32,
        code: Option<(&[u8], CompiledInfo)>,
        count: u32,
    ) -> Option<(u64, usize)> {
        let mut inner = self.lock();
        let Some((code, info)) = code else {
            inner.free_slots.push(slot);
            tb.set_quick(Quick::Refused);
            return None;
        };
        let placed = if tb.is_dead() || tb.entry() != 0 { None } else { self.place(&mut inner, code) };
        let Some((start, generation)) = placed else {
            inner.free_slots.push(slot);
            return None;
        };
        self.own_slots(&mut inner, tb.key, slot, &info.link_targets[0]);
        self.start_count(&[slot], count);
        inner.stats.quick += 1;
        inner.stats.code_bytes += code.len() as u64;
        inner.generations.entry(generation).or_default().push(Placed::new(tb.clone(), start, code.len()));
        tb.set_slots(LinkSlots::from_slice(&[slot]));
        tb.set_quick(Quick::Runs);
        tb.set_entry(start.0 + u64::from(info.entry_offset));
        Some((start.0, code.len()))
    }

    /// Quick code with these slots is to be left after `count` executions.
    pub(super) fn start_count(&self, slots: &[u32], count: u32) {
        slots.iter().for_each(|&slot| self.links.set_count(slot, count.min(NEVER)));
    }

    /// A block's quick code was executed as often as it may be: it goes on for a while, so that a loop comes back to the
    /// dispatcher when compiled code is ready for it.
    pub fn quick_is_hot(&self, tb: &Tb) {
        if let (Quick::Runs, Some(slot)) = (tb.quick(), tb.first_slot()) {
            self.links.set_count(slot, if tb.stage() == Stage::Refused { NEVER } else { WAIT });
        }
    }

    /// Whether the slots of a job are still those of its block's quick code.
    pub(super) fn replaces_quick(&self, tb: &Tb, slots: &LinkSlots) -> bool {
        tb.quick() == Quick::Runs && tb.first_slot() == slots.first().copied()
    }

    /// The block's compiled code at `entry` takes the place of its quick code.
    pub(super) fn end_quick(&self, tb: &Tb, entry: u64) {
        self.relink(tb, entry);
        if let Some(slot) = tb.first_slot() {
            self.links.set_count(slot, OVER);
        }
        tb.set_quick(Quick::None);
        tb.heat.store(0, Ordering::Relaxed);
    }
}
