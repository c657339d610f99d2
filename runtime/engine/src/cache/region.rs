//! Regions: which blocks are compiled as one.

use std::sync::Arc;

use mimus_ir::op::JumpKind;
use mimus_ir::{Block, Op};
use mimus_softmmu::PAGE_SIZE;

use super::{Cache, Inner, Job, Stage, Tb, TbKey, TbPages};

/// Most blocks of a region.
const MAX_BLOCKS: usize = 24;

/// Most micro-ops of a region: what it may cost to compile.
const MAX_OPS: usize = 1200;

const _: () = assert!(MAX_BLOCKS <= mimus_backend::MAX_PARTS);

/// Guest PCs that may follow a block, the likelier first: a call is followed by what is called, and that by the return.
fn successors(block: &Block) -> impl Iterator<Item = u64> {
    let last = block.terminator();
    let [first, second] = match last.map(|inst| (inst.op, inst.imm, inst.jump_kind())) {
        Some((Op::Jump, target, JumpKind::Call)) | Some((Op::Branch, target, _)) => {
            [Some(target), Some(block.fallthrough)]
        }
        Some((Op::Jump, target, _)) => [Some(target), None],
        _ => [None, None],
    };
    first.into_iter().chain(second)
}

impl Cache {
    /// A job to compile the region around a hot compiled block; `None` when there is no such, or one is being compiled.
    pub fn begin_region(&self, head: &Arc<Tb>) -> Option<Job> {
        let mut inner = self.lock();
        if head.is_dead() || head.straddles() || head.stage() != Stage::Compiled || head.set_growing(true) {
            return None;
        }
        let parts = collect(&inner, head);
        if parts.len() <= usize::from(head.blocks) {
            // It would be the same again.
            head.set_growing(false);
            return None;
        }
        let Some(slots) = self.take_slots(&mut inner, parts.len()) else {
            head.set_growing(false);
            return None;
        };
        let mut granules = 0;
        for (_, more) in parts.iter().filter_map(|tb| tb.pages.first()) {
            granules |= more;
        }
        let pages: TbPages = head.pages.iter().map(|&(page, _)| (page, granules)).collect();
        Some(Job { tb: Arc::new(head.region(&parts, pages)), parts, slots, region: true, of_quick: false })
    }

    /// Puts a region in the place of the block that it begins with. Its blocks' bytes have not changed: they are watched, and
    /// whoever changes them waits for the cache to drop them.
    pub(super) fn replace(&self, inner: &mut Inner, region: &Arc<Tb>) {
        let head = inner.live(&region.key).cloned();
        // Before its first block goes, so that the watch has no gap.
        self.add(inner, region);
        if let Some(head) = head {
            self.remove(inner, &head);
        }
    }
}

/// The hot blocks that can be reached from `head` without leaving its page, nearest first.
fn collect(inner: &Inner, head: &Arc<Tb>) -> Vec<Arc<Tb>> {
    let linear = |pc: u64| pc.wrapping_add(head.linear_offset());
    let page = linear(head.key.pc) / PAGE_SIZE;
    let mut parts = vec![head.clone()];
    let mut ops = head.block.insts.len();
    let mut next = 0;
    while let Some(tb) = parts.get(next).cloned() {
        next += 1;
        for pc in successors(&tb.block) {
            if parts.len() == MAX_BLOCKS {
                return parts;
            }
            if linear(pc) / PAGE_SIZE != page || parts.iter().any(|part| part.key.pc == pc) {
                continue;
            }
            let gpa = head.key.gpa & !(PAGE_SIZE - 1) | linear(pc) & (PAGE_SIZE - 1);
            let Some(tb) = inner.live(&TbKey { gpa, pc, ..head.key }) else { continue };
            let hot = matches!(tb.stage(), Stage::Queued | Stage::Compiled);
            if hot && !tb.straddles() && ops + tb.block.insts.len() <= MAX_OPS {
                ops += tb.block.insts.len();
                parts.push(tb.clone());
            }
        }
    }
    parts
}
