//! The dispatcher's own cache of blocks by virtual address.

use std::sync::Arc;

use crate::cache::Tb;

/// Entries.
const CELLS: usize = 65536;

/// Blocks that lost their entries, of which so many are let go of at once.
const BATCH: usize = 64;

#[derive(Clone)]
struct Near {
    pc: u64,
    context: u64,
    tb: Arc<Tb>,
}

/// Blocks by guest PC and context, the last one that was found for each place.
pub(crate) struct NearBlocks {
    cells: Box<[Option<Near>]>,
    /// Blocks that others took the places of.
    replaced: Vec<Arc<Tb>>,
}

impl Default for NearBlocks {
    fn default() -> Self {
        NearBlocks { cells: vec![None; CELLS].into(), replaced: Vec::with_capacity(BATCH) }
    }
}

impl NearBlocks {
    /// Place of a guest PC: another in each context, since programs are linked to the same addresses.
    #[inline]
    fn index(pc: u64, context: u64) -> usize {
        (pc ^ pc >> 11 ^ context.wrapping_mul(0x1f5)) as usize & (CELLS - 1)
    }

    /// Takes out the live block at a guest PC, to be put back once it has run: cheaper than counting one more owner.
    #[inline]
    pub(crate) fn take(&mut self, pc: u64, context: u64) -> Option<Arc<Tb>> {
        let cell = &mut self.cells[NearBlocks::index(pc, context)];
        let near = cell.take_if(|near| near.pc == pc && near.context == context)?;
        // One that died goes, and with it the entry.
        Some(near.tb).filter(|tb| !tb.is_dead())
    }

    /// Puts back what was taken out, unless another block was found for its place meanwhile.
    #[inline]
    pub(crate) fn put_back(&mut self, pc: u64, context: u64, tb: Arc<Tb>) {
        let cell = &mut self.cells[NearBlocks::index(pc, context)];
        if cell.is_none() {
            *cell = Some(Near { pc, context, tb });
        }
    }

    /// Notes the block that was found at a guest PC.
    pub(crate) fn note(&mut self, pc: u64, context: u64, tb: Arc<Tb>) {
        let cell = &mut self.cells[NearBlocks::index(pc, context)];
        if let Some(old) = cell.replace(Near { pc, context, tb }) {
            self.replaced.push(old.tb);
            if self.replaced.len() == BATCH {
                self.let_go();
            }
        }
    }

    /// Drops what was replaced. Most of it has long left the host's caches, and a locked instruction waits for memory alone: plain
    /// loads fetch all of it at once before.
    #[cold]
    fn let_go(&mut self) {
        std::hint::black_box(self.replaced.iter().map(Arc::strong_count).sum::<usize>());
        self.replaced.clear();
    }

    /// Drops the blocks that have died.
    pub(crate) fn sweep(&mut self) {
        self.replaced.clear();
        for cell in &mut self.cells {
            drop(cell.take_if(|near| near.tb.is_dead()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::tests::{Vcpu, cache, insert};

    #[test]
    fn a_block_is_found_where_it_was_noted_until_another_is() {
        let cache = cache(64 << 20);
        let vcpu = Vcpu::new(&cache);
        let [one, two] = [0x1000, 0x2000].map(|pc| insert(&cache, &vcpu, pc));
        let mut near = NearBlocks::default();
        near.note(0x1000, 5, one.clone());
        assert!(near.take(0x1000, 6).is_none() && near.take(0x1001, 5).is_none());
        let taken = near.take(0x1000, 5).unwrap();
        assert!(Arc::ptr_eq(&taken, &one) && near.take(0x1000, 5).is_none());
        near.put_back(0x1000, 5, taken);
        // The same place: what is not there stays out, and what is there is left alone by those who ask for another.
        let same =
            (0x1000..).find(|&pc| pc != 0x1000 && NearBlocks::index(pc, 7) == NearBlocks::index(0x1000, 5)).unwrap();
        assert!(near.take(same, 7).is_none());
        assert!(near.take(0x1000, 5).is_some());
        near.note(same, 7, two.clone());
        near.put_back(0x1000, 5, one.clone());
        assert!(near.take(0x1000, 5).is_none());
        assert!(Arc::ptr_eq(&near.take(same, 7).unwrap(), &two));
    }

    #[test]
    fn what_was_replaced_or_died_is_let_go() {
        let cache = cache(64 << 20);
        let vcpu = Vcpu::new(&cache);
        let tbs: Vec<Arc<Tb>> = (0..=BATCH as u64).map(|n| insert(&cache, &vcpu, 0x1000 + 16 * n)).collect();
        let before: Vec<usize> = tbs.iter().map(Arc::strong_count).collect();
        let mut near = NearBlocks::default();
        tbs.iter().for_each(|tb| near.note(0x1000, 5, tb.clone()));
        let after: Vec<usize> = tbs.iter().map(Arc::strong_count).collect();
        assert_eq!(after[..BATCH], before[..BATCH]);
        assert_eq!(after[BATCH], before[BATCH] + 1);
        cache.clear();
        assert!(tbs[BATCH].is_dead());
        near.sweep();
        assert_eq!(Arc::strong_count(&tbs[BATCH]), 1);
        near.note(0x1000, 5, tbs[0].clone());
        assert!(near.take(0x1000, 5).is_none(), "it is dead");
        assert_eq!(Arc::strong_count(&tbs[0]), 1);
    }
}
