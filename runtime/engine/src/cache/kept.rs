//! Host code that an earlier run has kept: how it gets into the arena, and what of the cache can be kept.

use std::sync::Arc;

use smallvec::SmallVec;

use super::code::Placed;
use super::tb::Quick;
use super::{Cache, Stage, Tb, TbKey};
use crate::kept::slots;
use crate::kept::unit::{Tier, Unit};

impl Cache {
    /// The live blocks and regions, oldest first.
    pub fn blocks(&self) -> Vec<Arc<Tb>> {
        self.lock().queue.iter().filter(|tb| !tb.is_dead()).cloned().collect()
    }

    /// Gives a block, or region, that was just inserted the code that was kept with it, to be left after `count` executions if it is
    /// the quick tier's. Where it went, in host memory.
    pub fn publish_kept(&self, tb: &Arc<Tb>, unit: &Unit<'_>, count: u32) -> Option<(u64, usize)> {
        if unit.tier == Tier::Cold {
            return None;
        }
        let place = |pc: u64| tb.key.gpa.wrapping_add(pc.wrapping_sub(tb.key.pc));
        let watched = unit.parts.iter().map(|part| (place(part.pc), part.bytes.len() as u32));
        let mut inner = self.lock();
        // Another vCPU may have made the block meanwhile, and not of all these bytes.
        if tb.is_dead() || tb.entry() != 0 || tb.stage() != Stage::Cold || !watched.eq(tb.bytes.iter().copied()) {
            return None;
        }
        let numbers = self.take_slots(&mut inner, unit.parts.len())?;
        let mut code = SmallVec::<[u8; 1024]>::from_slice(&unit.code);
        let named = slots::set(&mut code, &unit.names, &numbers);
        let placed = named.and_then(|()| self.place(&mut inner, &code));
        let Some((start, generation)) = placed.filter(|_| !tb.is_dead()) else {
            inner.free_slots.extend(numbers);
            return None;
        };
        for (part, &slot) in unit.parts.iter().zip(&numbers) {
            let key = TbKey { gpa: place(part.pc), pc: part.pc, ..tb.key };
            self.own_slots(&mut inner, key, slot, &part.targets);
        }
        if unit.tier == Tier::Quick {
            self.start_count(&numbers, count);
            tb.set_quick(Quick::Runs);
        } else {
            tb.set_stage(Stage::Compiled);
        }
        inner.stats.code_bytes += code.len() as u64;
        inner.generations.entry(generation).or_default().push(Placed::new(tb.clone(), start, code.len()));
        tb.set_slots(numbers);
        tb.set_entry(start.0 + u64::from(unit.entry_offset));
        Some((start.0, code.len()))
    }
}
