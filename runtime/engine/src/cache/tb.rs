//! Translation blocks and the link slots between them.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mimus_frontend::guest::TbWords;
use mimus_ir::{Block, Inst};
use mimus_softmmu::PAGE_SIZE;
use smallvec::{SmallVec, smallvec};

/// Identity of a translation: where its bytes are, and everything beside them that it depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TbKey {
    /// Guest-physical address of its first byte.
    pub gpa: u64,
    /// Guest PC of its first byte, as the block has it: its place in the page, if the block is relative to that.
    pub pc: u64,
    /// What else it depends on; what the words mean is the guest's.
    pub words: TbWords,
}

impl Hash for TbKey {
    // Each word by itself: a slice would be hashed as bytes, which is slower.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.gpa);
        state.write_u64(self.pc);
        self.words.into_iter().for_each(|word| state.write_u32(word));
    }
}

/// Where a block is on its way to compiled code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Stage {
    /// Interpreted; may be queued for compiling.
    Cold = 0,
    /// Waiting for the compiler.
    Queued = 1,
    /// Has host code.
    Compiled = 2,
    /// The compiler refused it: stays interpreted.
    Refused = 3,
}

/// What the quick tier has to do with a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Quick {
    /// Nothing: it has no code, or compiled code.
    None = 0,
    /// Its code is the quick tier's.
    Runs = 1,
    /// The quick tier does not do it.
    Refused = 2,
}

/// First numbers of pairs of link slots.
pub type LinkSlots = SmallVec<[u32; 2]>;

/// Guest-physical addresses of pages, each with granules of it. Most blocks are in one.
pub type TbPages = SmallVec<[(u64, u64); 1]>;

/// A live block, found by its key.
#[derive(Debug)]
pub(super) struct ByKey(pub(super) Arc<Tb>);

impl Borrow<TbKey> for ByKey {
    fn borrow(&self) -> &TbKey {
        &self.0.key
    }
}

impl Hash for ByKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key.hash(state);
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &ByKey) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for ByKey {}

/// A block's part in links.
#[derive(Debug, Default)]
pub(super) struct Linked {
    /// The first of each of its pairs of link slots.
    slots: LinkSlots,
    /// Slots that were linked to it; some may have been linked elsewhere since.
    pub(super) incoming: SmallVec<[u32; 4]>,
    /// Guest PCs by which jump caches have led to it.
    ways: SmallVec<[u64; 1]>,
}

/// Guest PCs remembered of those by which jump caches lead to a block.
const WAYS: usize = 16;

/// A translation block, or a region that begins with it.
#[derive(Debug)]
pub struct Tb {
    /// Its key.
    pub key: TbKey,
    /// Guest-virtual address of its first byte where it was translated first: code that is relative to its page may run at others.
    gva: u64,
    /// Its micro-ops.
    pub block: Block,
    /// The pages its bytes are in, each with the granules they touch; those of a region's other blocks included.
    pub pages: TbPages,
    /// Guest-physical addresses and numbers of the bytes that were translated, those of a region's other blocks included. Not
    /// among them are those that it reads as it runs.
    pub(super) bytes: SmallVec<[(u64, u32); 1]>,
    /// How many of them, the first ones, are of this block itself.
    own: u16,
    /// Executions by the interpreter since it was last made cold.
    pub heat: AtomicU32,
    stage: AtomicU8,
    quick: AtomicU8,
    entry: AtomicU64,
    dead: AtomicBool,
    /// [`Recency`] bits set by running it.
    used: AtomicU8,
    links: Mutex<Linked>,
    /// Samples that found a vCPU on its way to it.
    samples: AtomicU32,
    /// How often the code from here on has been compiled as a region; 0 for a block by itself.
    pub level: u8,
    /// Blocks of the region; 0 for a block by itself.
    pub blocks: u8,
    /// Whether a region that begins here is being compiled, or cannot be.
    growing: AtomicBool,
    /// Whether an earlier run has kept it ([`crate::kept`]).
    pub kept: bool,
}

/// Who looks at whether a block was executed, each clearing a bit of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Recency {
    /// The bound on micro-ops and metadata.
    Metadata = 1,
    /// The eviction of host code.
    Code = 2,
}

const USED: u8 = Recency::Metadata as u8 | Recency::Code as u8;

impl Tb {
    /// A cold block, whose guest-virtual address is its guest PC.
    pub fn new(key: TbKey, mut block: Block, pages: TbPages) -> Tb {
        // It was made with room to grow, and lives long.
        block.insts.shrink_to_fit();
        let in_page = (PAGE_SIZE - (key.gpa & (PAGE_SIZE - 1))) as u32;
        let first = block.guest_bytes.min(in_page);
        let mut bytes: SmallVec<[(u64, u32); 1]> = smallvec![(key.gpa, first)];
        if let Some(&(second, _)) = pages.get(1) {
            bytes.push((second, block.guest_bytes - first));
        }
        Tb {
            key,
            gva: key.pc,
            block,
            pages,
            own: bytes.len() as u16,
            bytes,
            heat: AtomicU32::new(0),
            stage: AtomicU8::new(Stage::Cold as u8),
            quick: AtomicU8::new(Quick::None as u8),
            entry: AtomicU64::new(0),
            dead: AtomicBool::new(false),
            used: AtomicU8::new(USED),
            links: Mutex::default(),
            samples: AtomicU32::new(0),
            level: 0,
            blocks: 0,
            growing: AtomicBool::new(false),
            kept: false,
        }
    }

    /// The block, or region, as it was kept: `parts` are the bytes of its blocks.
    pub fn kept(self, level: u8, parts: SmallVec<[(u64, u32); 1]>) -> Tb {
        let blocks = if level > 0 { parts.len() as u8 } else { 0 };
        Tb { level, blocks, bytes: parts, kept: true, ..self }
    }

    /// The block, with `gva` as its guest-virtual address: where that is not the guest PC.
    pub fn at(mut self, gva: u64) -> Tb {
        self.gva = gva;
        self
    }

    /// Guest-virtual address of its first byte where it was translated first.
    pub fn gva(&self) -> u64 {
        self.gva
    }

    /// What is added to guest PCs in this block for their guest-virtual addresses there.
    pub fn linear_offset(&self) -> u64 {
        self.gva.wrapping_sub(self.key.pc)
    }

    /// Without watching some of its bytes, given by their offsets and lengths in its first page: it reads them as it runs.
    pub fn reading(mut self, read: &[(u32, u32)]) -> Tb {
        for &(offset, len) in read {
            let (from, to) = (self.key.gpa + u64::from(offset), self.key.gpa + u64::from(offset + len));
            let Some(at) = self.bytes.iter().position(|&(start, len)| start <= from && to <= start + u64::from(len))
            else {
                // Read twice by its instruction.
                continue;
            };
            let (start, len) = self.bytes[at];
            self.bytes[at] = (start, (from - start) as u32);
            self.bytes.insert(at + 1, (to, len - (to - start) as u32));
            self.own += 1;
        }
        self
    }

    /// The region that begins with this block and has its bytes in `pages`.
    pub(super) fn region(&self, parts: &[Arc<Tb>], pages: TbPages) -> Tb {
        let block = Tb::new(self.key, self.block.clone(), pages).at(self.gva);
        // Of each its own: parts are blocks, and what they begin with as regions is none of this one's business.
        let bytes = parts.iter().flat_map(|tb| tb.bytes.iter().copied().take(tb.own.into())).collect();
        Tb { level: self.level.saturating_add(1), blocks: parts.len() as u8, bytes, own: self.own, ..block }
    }

    /// Whether any of `len` bytes at guest-physical `gpa` were translated.
    pub(super) fn translates(&self, gpa: u64, len: u64) -> bool {
        self.bytes.iter().any(|&(start, bytes)| gpa < start + u64::from(bytes) && start < gpa + len)
    }

    /// Whether the byte at linear address `addr` was translated.
    pub(super) fn has_linear(&self, addr: u64) -> bool {
        const OFFSET: u64 = PAGE_SIZE - 1;
        let pages = [Some(self.key.gpa & !OFFSET), self.pages.get(1).map(|&(page, _)| page)];
        let mut linear = self.gva & !OFFSET;
        pages.into_iter().flatten().any(|page| {
            let hit = addr & !OFFSET == linear && self.translates(page | addr & OFFSET, 1);
            linear = linear.wrapping_add(PAGE_SIZE);
            hit
        })
    }

    /// Whether the instruction at guest PC `pc` may be one of those translated.
    pub(super) fn may_contain(&self, pc: u64) -> bool {
        // By the place in the page, which is right whatever the width of the PC is and whatever it is relative to.
        let begin = |start: u64| self.key.pc.wrapping_add(start.wrapping_sub(self.key.gpa));
        let offset = |start: u64| pc.wrapping_sub(begin(start)) & (PAGE_SIZE - 1);
        self.bytes.iter().any(|&(start, bytes)| offset(start) < u64::from(bytes))
    }

    /// Whether it reads some of its own bytes as it runs.
    pub fn reads(&self) -> bool {
        let own = self.bytes.iter().take(self.own.into());
        own.map(|&(_, len)| len).sum::<u32>() != self.block.guest_bytes
    }

    /// Whether its bytes are in two pages: it may be entered only after the second page's mapping was checked.
    pub fn straddles(&self) -> bool {
        self.pages.len() > 1
    }

    /// Host address of its code; 0 when it has none.
    #[inline]
    pub fn entry(&self) -> u64 {
        self.entry.load(Ordering::Acquire)
    }

    /// Whether it has left the cache.
    #[inline]
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// Says that it was executed, for eviction.
    #[inline]
    pub fn touch(&self) {
        if self.used.load(Ordering::Relaxed) != USED {
            self.used.store(USED, Ordering::Relaxed);
        }
    }

    /// Whether it was executed through a dispatcher since it was last asked so.
    pub(super) fn take_used(&self, who: Recency) -> bool {
        self.used.fetch_and(!(who as u8), Ordering::Relaxed) & who as u8 != 0
    }

    /// Where it is on its way to compiled code.
    pub fn stage(&self) -> Stage {
        [Stage::Cold, Stage::Queued, Stage::Compiled, Stage::Refused]
            [usize::from(self.stage.load(Ordering::Acquire) & 3)]
    }

    pub(super) fn set_stage(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Release);
    }

    /// What the quick tier has to do with it.
    pub fn quick(&self) -> Quick {
        [Quick::None, Quick::Runs, Quick::Refused, Quick::None][usize::from(self.quick.load(Ordering::Acquire) & 3)]
    }

    pub(super) fn set_quick(&self, quick: Quick) {
        self.quick.store(quick as u8, Ordering::Release);
    }

    /// The first of its link slots, if it has code.
    pub(super) fn first_slot(&self) -> Option<u32> {
        self.links().slots.first().copied()
    }

    /// Makes it dead; whether it was alive.
    pub(super) fn die(&self) -> bool {
        !self.dead.swap(true, Ordering::AcqRel)
    }

    /// Counts a sample; true, and the count begins anew, once there are `wanted`.
    pub fn sample(&self, wanted: u32) -> bool {
        // Another vCPU's may get lost meanwhile: it is no more than a hint.
        let samples = self.samples.load(Ordering::Relaxed) + 1;
        let full = samples >= wanted;
        self.samples.store(if full { 0 } else { samples }, Ordering::Relaxed);
        full
    }

    /// Says whether a region that begins here is being compiled; what was said before.
    pub(super) fn set_growing(&self, growing: bool) -> bool {
        self.growing.swap(growing, Ordering::AcqRel)
    }

    /// Gives it link slots; those that it had.
    pub(super) fn set_slots(&self, slots: LinkSlots) -> LinkSlots {
        std::mem::replace(&mut self.links().slots, slots)
    }

    pub(super) fn set_entry(&self, entry: u64) {
        self.entry.store(entry, Ordering::Release);
    }

    /// To be called before a jump cache has the block's code at `entry` by guest PC `pc`: false if the code is not there any
    /// more. Otherwise whoever takes it away tells of this PC.
    pub fn lead(&self, pc: u64, entry: u64) -> bool {
        let mut links = self.links();
        let current = self.entry() == entry;
        if current && links.ways.len() <= WAYS && !links.ways.contains(&pc) {
            links.ways.push(pc);
        }
        current
    }

    /// Guest PCs by which jump caches may lead to it; `None` if they are too many to tell.
    pub(super) fn ways(&self) -> Option<SmallVec<[u64; 1]>> {
        let links = self.links();
        (links.ways.len() <= WAYS).then(|| links.ways.clone())
    }

    /// Its part in links; not to be kept.
    pub(super) fn links(&self) -> MutexGuard<'_, Linked> {
        // Lists of numbers are whole at any time.
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that it takes beside host code, its place in the maps included.
    pub(super) fn size(&self) -> usize {
        const MAPS: usize = 140;
        let bytes = if self.bytes.spilled() { size_of_val(&*self.bytes) } else { 0 };
        let spilled = if self.pages.spilled() { bytes + size_of_val(&*self.pages) } else { bytes };
        size_of::<Tb>() + self.block.insts.capacity() * size_of::<Inst>() + spilled + MAPS
    }
}

/// The link slots: what compiled code jumps through.
#[derive(Debug)]
pub struct Links {
    slots: Box<[AtomicU64]>,
    targets: Box<[AtomicU64]>,
    /// By half a first slot's number: executions left of quick code.
    counts: Box<[AtomicU32]>,
}

impl Links {
    pub(super) fn new(count: usize) -> Links {
        Links {
            slots: bytemuck::zeroed_slice_box(count),
            targets: bytemuck::zeroed_slice_box(count),
            counts: bytemuck::zeroed_slice_box(count.div_ceil(2)),
        }
    }

    /// Host address of the table, for [`mimus_softmmu::EnvHeader::links`].
    pub fn address(&self) -> u64 {
        self.slots.as_ptr() as u64
    }

    /// Host address of the table of guest PCs, for [`mimus_softmmu::EnvHeader::link_targets`].
    pub fn targets_address(&self) -> u64 {
        self.targets.as_ptr() as u64
    }

    /// Host address of the counts, for [`mimus_softmmu::EnvHeader::counts`].
    pub fn counts_address(&self) -> u64 {
        self.counts.as_ptr() as u64
    }

    /// Sets the executions left of the quick code that has a pair of slots.
    pub(super) fn set_count(&self, slot: u32, count: u32) {
        if let Some(cell) = self.counts.get(slot as usize / 2) {
            cell.store(count, Ordering::Relaxed);
        }
    }

    /// Bytes that the tables take.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.slots) + size_of_val(&*self.targets) + size_of_val(&*self.counts)
    }

    /// Number of slots.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn set_target(&self, slot: u32, pc: u64) {
        if let Some(cell) = self.targets.get(slot as usize) {
            cell.store(pc, Ordering::Release);
        }
    }

    /// Guest PC that a slot leads to.
    pub fn target(&self, slot: u64) -> Option<u64> {
        self.targets.get(usize::try_from(slot).ok()?).map(|t| t.load(Ordering::Acquire))
    }

    pub(super) fn set(&self, slot: u32, entry: u64) {
        if let Some(cell) = self.slots.get(slot as usize) {
            cell.store(entry, Ordering::Release);
        }
    }

    pub(super) fn get(&self, slot: u32) -> u64 {
        self.slots.get(slot as usize).map_or(0, |cell| cell.load(Ordering::Acquire))
    }
}
