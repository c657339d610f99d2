//! The translation cache: blocks by key, their host code, and the links between them.
//!
//! One cache is shared by every vCPU of a machine. Its maps are behind a lock; compiled code never takes it: it sees only
//! the link slots and what they lead to. A block leaves the cache by being made *dead*: every slot that leads to it goes back
//! to the exit stub, and what it owned (slots, code memory) is reused only after every vCPU has passed its dispatcher.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use mimus_backend::arena::{Arena, Generation, Rotation};
use mimus_frontend::x86::Mode;
use mimus_ir::{Block, Inst};
use mimus_softmmu::{CodeSink, PAGE_SIZE, Ram};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

/// Identity of a translation: where its bytes are, and everything beside them that it depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TbKey {
    /// Guest-physical address of its first byte.
    pub gpa: u64,
    /// Guest PC of its first byte: RIP.
    pub pc: u64,
    /// Base of CS, 32 bits; 0 in 64-bit mode.
    pub cs_base: u32,
    /// Mode bits.
    pub mode: Mode,
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

/// A translation block.
#[derive(Debug)]
pub struct Tb {
    /// Its key.
    pub key: TbKey,
    /// Its micro-ops.
    pub block: Block,
    /// The pages its bytes are in, each with the granules they touch.
    pub pages: SmallVec<[(u64, u64); 2]>,
    /// Executions by the interpreter since it was last made cold.
    pub heat: AtomicU32,
    stage: AtomicU8,
    entry: AtomicU64,
    dead: AtomicBool,
    used: AtomicBool,
    /// First of its two link slots, plus 1; 0 for none.
    slots: AtomicU32,
    /// Slots that were linked to it; some may have been linked elsewhere since.
    incoming: Mutex<SmallVec<[u32; 4]>>,
}

impl Tb {
    /// A cold block.
    pub fn new(key: TbKey, block: Block, pages: SmallVec<[(u64, u64); 2]>) -> Tb {
        Tb {
            key,
            block,
            pages,
            heat: AtomicU32::new(0),
            stage: AtomicU8::new(Stage::Cold as u8),
            entry: AtomicU64::new(0),
            dead: AtomicBool::new(false),
            used: AtomicBool::new(true),
            slots: AtomicU32::new(0),
            incoming: Mutex::new(SmallVec::new()),
        }
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
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Where it is on its way to compiled code.
    pub fn stage(&self) -> Stage {
        [Stage::Cold, Stage::Queued, Stage::Compiled, Stage::Refused]
            [usize::from(self.stage.load(Ordering::Acquire) & 3)]
    }

    fn set_stage(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Release);
    }

    /// Bytes that it takes beside host code, its place in the maps included.
    fn size(&self) -> usize {
        const MAPS: usize = 160;
        size_of::<Tb>() + self.block.insts.capacity() * size_of::<Inst>() + MAPS
    }
}

/// The link slots: what compiled code jumps through.
#[derive(Debug)]
pub struct Links {
    slots: Box<[AtomicU64]>,
    targets: Box<[AtomicU64]>,
}

impl Links {
    fn new(count: usize) -> Links {
        Links { slots: bytemuck::zeroed_slice_box(count), targets: bytemuck::zeroed_slice_box(count) }
    }

    /// Host address of the table, for [`mimus_softmmu::EnvHeader::links`].
    pub fn address(&self) -> u64 {
        self.slots.as_ptr() as u64
    }

    /// Guest PC that a slot leads to.
    pub fn target(&self, slot: u64) -> Option<u64> {
        self.targets.get(usize::try_from(slot).ok()?).map(|t| t.load(Ordering::Acquire))
    }

    fn set(&self, slot: u32, entry: u64) {
        if let Some(cell) = self.slots.get(slot as usize) {
            cell.store(entry, Ordering::Release);
        }
    }

    fn get(&self, slot: u32) -> u64 {
        self.slots.get(slot as usize).map_or(0, |cell| cell.load(Ordering::Acquire))
    }
}

/// Code that the compiler made for a block.
#[derive(Debug)]
pub struct Finished {
    /// The block.
    pub tb: Arc<Tb>,
    /// Its first link slot.
    pub slot: u32,
    /// Host code, or `None` when the compiler refused.
    pub code: Option<(Vec<u8>, mimus_backend::CompiledInfo)>,
}

/// How far a vCPU has come: memory that was retired before it last passed its dispatcher is not in use by it.
#[derive(Debug)]
pub struct Passage(AtomicU64);

/// Counters of a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Blocks translated to micro-ops.
    pub translated: u64,
    /// Guest instructions in them.
    pub translated_insns: u64,
    /// Blocks compiled to host code and published.
    pub compiled: u64,
    /// Compiled blocks that had changed before they could be published.
    pub dropped: u64,
    /// Host code bytes published.
    pub code_bytes: u64,
    /// Links made.
    pub links: u64,
    /// Blocks that lost their host code or were dropped to make room.
    pub evictions: u64,
    /// Blocks dropped because their bytes were written.
    pub invalidations: u64,
    /// Most bytes of micro-ops and metadata held at once.
    pub peak_metadata_bytes: u64,
}

struct Inner {
    map: FxHashMap<TbKey, Arc<Tb>>,
    pages: FxHashMap<u64, Vec<Arc<Tb>>>,
    /// Every live block, oldest first, for eviction.
    queue: VecDeque<Arc<Tb>>,
    metadata_bytes: usize,
    arena: Option<Arena>,
    exit_stub: u64,
    generations: FxHashMap<Generation, Vec<Arc<Tb>>>,
    evicted: Option<(Generation, u64)>,
    free_slots: Vec<u32>,
    retired_slots: VecDeque<(u32, u64)>,
    next_slot: u32,
    passages: Vec<Arc<Passage>>,
    stats: CacheStats,
}

/// The translation cache of a machine.
pub struct Cache {
    inner: Mutex<Inner>,
    links: Links,
    ram: Arc<Ram>,
    metadata_bound: usize,
    /// Counts retirements; see [`Passage`].
    epoch: AtomicU64,
    /// Changes when blocks die: jump caches of vCPUs are to be renewed.
    deaths: AtomicU64,
}

/// Smallest bound that an arena and metadata fit in, in bytes.
pub const MIN_BYTES: usize = 2 << 20;

impl Cache {
    /// A cache of at most `bytes` bytes: half for host code, if `arena` is wanted, half for micro-ops and metadata.
    pub fn new(ram: Arc<Ram>, bytes: usize, arena: Option<(Arena, u64)>) -> Cache {
        let (arena, exit_stub) = arena.map_or((None, 0), |(a, s)| (Some(a), s));
        // Two slots a block, and a block's code is rarely shorter than this.
        const SHORTEST: usize = 128;
        let slots = arena.as_ref().map_or(0, |a| 2 * a.size() / SHORTEST);
        let inner = Inner {
            map: FxHashMap::default(),
            pages: FxHashMap::default(),
            queue: VecDeque::new(),
            metadata_bytes: 0,
            arena,
            exit_stub,
            generations: FxHashMap::default(),
            evicted: None,
            free_slots: Vec::new(),
            retired_slots: VecDeque::new(),
            next_slot: 0,
            passages: Vec::new(),
            stats: CacheStats::default(),
        };
        Cache {
            inner: Mutex::new(inner),
            links: Links::new(slots),
            ram,
            metadata_bound: bytes / 2,
            epoch: AtomicU64::new(1),
            deaths: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it holds the lock with the maps half changed.
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The link slots.
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// Counters.
    pub fn stats(&self) -> CacheStats {
        self.lock().stats
    }

    /// Registers a vCPU; it must call [`Cache::pass`] whenever it is in its dispatcher.
    pub fn register(&self) -> Arc<Passage> {
        let passage = Arc::new(Passage(AtomicU64::new(self.epoch.load(Ordering::SeqCst))));
        self.lock().passages.push(passage.clone());
        passage
    }

    /// Says that the vCPU runs no compiled code and holds no address of any; whether blocks died since `seen`, which is
    /// brought up to date: then the caller must drop what leads to blocks by virtual address before it goes on.
    #[inline]
    pub fn pass(&self, passage: &Passage, seen: &mut u64) -> bool {
        // Acquire: entries are read after the epoch, so that none retired up to it is seen. Release: what ran before is over.
        passage.0.store(self.epoch.load(Ordering::Acquire), Ordering::Release);
        let deaths = self.deaths.load(Ordering::Acquire);
        std::mem::replace(seen, deaths) != deaths
    }

    /// Says that the vCPU sleeps in its dispatcher: nothing waits for it until it passes again.
    pub fn rest(&self, passage: &Passage) {
        passage.0.store(u64::MAX, Ordering::SeqCst);
    }

    /// The live block of a key.
    pub fn lookup(&self, key: &TbKey) -> Option<Arc<Tb>> {
        self.lock().map.get(key).cloned()
    }

    /// Adds a block; `verify` is called after its bytes are marked as code and says whether they still are what was
    /// translated. `None` when they are not. The flag says whether a page became a code page, so that store tags for it
    /// must go.
    pub fn insert(&self, tb: Tb, verify: impl FnOnce() -> bool) -> Option<(Arc<Tb>, bool)> {
        let mut inner = self.lock();
        let mut fresh = false;
        for &(page, granules) in &tb.pages {
            fresh |= self.ram.mark_code(page, granules);
        }
        if !verify() {
            for &(page, _) in &tb.pages {
                self.refresh_page(&mut inner, page);
            }
            return None;
        }
        let tb = Arc::new(tb);
        for &(page, _) in &tb.pages {
            inner.pages.entry(page).or_default().push(tb.clone());
        }
        if let Some(old) = inner.map.insert(tb.key, tb.clone()) {
            self.remove(&mut inner, &old);
        }
        inner.queue.push_back(tb.clone());
        inner.metadata_bytes += tb.size();
        inner.stats.translated += 1;
        inner.stats.translated_insns += u64::from(tb.block.guest_insns);
        inner.stats.peak_metadata_bytes = inner.stats.peak_metadata_bytes.max(inner.metadata_bytes as u64);
        self.bound_metadata(&mut inner);
        Some((tb, fresh))
    }

    /// Drops blocks not used lately until the bound holds. A compiled block gets a second look: its links are cut, so that
    /// running it shows.
    fn bound_metadata(&self, inner: &mut Inner) {
        let mut looks = 2 * inner.queue.len();
        while inner.metadata_bytes > self.metadata_bound && looks > 0 {
            looks -= 1;
            let Some(tb) = inner.queue.pop_front() else { return };
            if tb.is_dead() {
                continue;
            }
            if tb.used.swap(false, Ordering::Relaxed) && looks > inner.queue.len() {
                self.unlink(inner, &tb);
                inner.queue.push_back(tb);
                continue;
            }
            inner.stats.evictions += 1;
            self.remove(inner, &tb);
        }
    }

    /// Takes a block out of the maps and kills it. Its page keeps other blocks' granules only.
    fn remove(&self, inner: &mut Inner, tb: &Arc<Tb>) {
        if inner.map.get(&tb.key).is_some_and(|found| Arc::ptr_eq(found, tb)) {
            inner.map.remove(&tb.key);
        }
        for &(page, _) in &tb.pages {
            if let Some(list) = inner.pages.get_mut(&page) {
                list.retain(|other| !Arc::ptr_eq(other, tb));
                self.refresh_page(inner, page);
            }
        }
        self.kill(inner, tb);
    }

    fn refresh_page(&self, inner: &mut Inner, page: u64) {
        let list = inner.pages.get(&page).map_or(&[][..], Vec::as_slice);
        let granules = list.iter().flat_map(|tb| &tb.pages).filter(|(p, _)| *p == page).fold(0, |g, (_, m)| g | m);
        if granules == 0 {
            inner.pages.remove(&page);
        }
        self.ram.set_code(page, granules);
    }

    /// Makes a block dead: nothing leads to it any more. The queue forgets it when it comes to it.
    fn kill(&self, inner: &mut Inner, tb: &Tb) {
        if tb.dead.swap(true, Ordering::AcqRel) {
            return;
        }
        inner.metadata_bytes = inner.metadata_bytes.saturating_sub(tb.size());
        self.discard_code(inner, tb);
        self.deaths.fetch_add(1, Ordering::AcqRel);
    }

    /// Takes a block's host code away.
    fn discard_code(&self, inner: &mut Inner, tb: &Tb) {
        self.unlink(inner, tb);
        tb.entry.store(0, Ordering::Release);
        let first = tb.slots.swap(0, Ordering::AcqRel);
        if first != 0 {
            self.retire_slots(inner, first - 1);
        }
    }

    fn retire_slots(&self, inner: &mut Inner, slot: u32) {
        let epoch = self.epoch.fetch_add(1, Ordering::SeqCst) + 1;
        inner.retired_slots.push_back((slot, epoch));
    }

    /// Sends every slot that leads to a block back to the exit stub.
    fn unlink(&self, inner: &Inner, tb: &Tb) {
        let entry = tb.entry();
        let mut incoming = tb.incoming.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for slot in incoming.drain(..) {
            if entry != 0 && self.links.get(slot) == entry {
                self.links.set(slot, inner.exit_stub);
            }
        }
    }

    /// Links a slot to a block, if both are still alive.
    pub fn link(&self, slot: u64, tb: &Tb) {
        let Ok(slot) = u32::try_from(slot) else { return };
        let mut inner = self.lock();
        let entry = tb.entry();
        if entry == 0 || tb.is_dead() || tb.straddles() || self.links.target(slot.into()) != Some(tb.key.pc) {
            return;
        }
        let mut incoming = tb.incoming.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Slots linked elsewhere since are forgotten now and then, so that the list stays as long as what leads here.
        if incoming.len() >= 16 && incoming.len().is_power_of_two() {
            incoming.retain(|s| self.links.get(*s) == entry);
        }
        incoming.push(slot);
        self.links.set(slot, entry);
        inner.stats.links += 1;
    }

    /// Two fresh link slots for a block about to be compiled; `None` when there are none, or it is not a cold live block.
    pub fn begin_compile(&self, tb: &Tb) -> Option<u32> {
        let mut inner = self.lock();
        if tb.is_dead() || tb.stage() != Stage::Cold {
            return None;
        }
        self.reclaim(&mut inner);
        let slot = match inner.free_slots.pop() {
            Some(slot) => slot,
            None if (inner.next_slot as usize) + 2 <= self.links.slots.len() => {
                inner.next_slot += 2;
                inner.next_slot - 2
            }
            None => return None,
        };
        tb.set_stage(Stage::Queued);
        Some(slot)
    }

    /// Gives up compiling a block that [`Cache::begin_compile`] accepted.
    pub fn cancel_compile(&self, tb: &Tb, slot: u32) {
        let mut inner = self.lock();
        tb.set_stage(Stage::Cold);
        tb.heat.store(0, Ordering::Relaxed);
        inner.free_slots.push(slot);
    }

    /// Publishes compiled code, unless its block died meanwhile. Where it went, in host memory.
    pub fn publish(&self, finished: Finished) -> Option<(u64, usize)> {
        let Finished { tb, slot, code } = finished;
        let mut inner = self.lock();
        let Some((code, info)) = code else {
            tb.set_stage(Stage::Refused);
            inner.free_slots.push(slot);
            return None;
        };
        if tb.is_dead() {
            inner.stats.dropped += 1;
            inner.free_slots.push(slot);
            return None;
        }
        let Some((start, generation)) = self.place(&mut inner, &code) else {
            tb.set_stage(Stage::Cold);
            tb.heat.store(0, Ordering::Relaxed);
            inner.free_slots.push(slot);
            return None;
        };
        for (n, target) in info.link_targets.iter().enumerate() {
            let slot = slot + n as u32;
            self.links.set(slot, inner.exit_stub);
            if let Some(cell) = self.links.targets.get(slot as usize) {
                cell.store(target.unwrap_or(0), Ordering::Release);
            }
        }
        inner.stats.compiled += 1;
        inner.stats.code_bytes += code.len() as u64;
        inner.generations.entry(generation).or_default().push(tb.clone());
        tb.slots.store(slot + 1, Ordering::Release);
        tb.set_stage(Stage::Compiled);
        tb.entry.store(start + u64::from(info.entry_offset), Ordering::Release);
        Some((start, code.len()))
    }

    /// Copies code into the arena, evicting the oldest generation when it is full.
    fn place(&self, inner: &mut Inner, code: &[u8]) -> Option<(u64, Generation)> {
        for _ in 0..4 {
            let arena = inner.arena.as_mut()?;
            if code.len() > arena.max_len() {
                return None;
            }
            if let Some(slot) = arena.alloc(code.len()) {
                let generation = slot.generation();
                return Some((arena.publish(slot, code).0, generation));
            }
            match arena.rotate() {
                Rotation::Ready => {}
                Rotation::Evict(generation) => self.evict(inner, generation),
                Rotation::Blocked => {
                    self.reclaim(inner);
                    if inner.evicted.is_some() {
                        return None;
                    }
                }
            }
        }
        None
    }

    /// Takes the host code of a generation's blocks away; those executed lately are compiled again soon.
    fn evict(&self, inner: &mut Inner, generation: Generation) {
        for tb in inner.generations.remove(&generation).unwrap_or_default() {
            if tb.is_dead() || tb.stage() != Stage::Compiled {
                continue;
            }
            inner.stats.evictions += 1;
            self.discard_code(inner, &tb);
            tb.heat.store(0, Ordering::Relaxed);
            tb.set_stage(Stage::Cold);
        }
        let epoch = self.epoch.fetch_add(1, Ordering::SeqCst) + 1;
        inner.evicted = Some((generation, epoch));
        self.deaths.fetch_add(1, Ordering::AcqRel);
    }

    /// Makes what every vCPU has left behind available again.
    fn reclaim(&self, inner: &mut Inner) {
        let passed = inner.passages.iter().map(|p| p.0.load(Ordering::SeqCst)).min().unwrap_or(u64::MAX);
        while let Some(&(slot, epoch)) = inner.retired_slots.front() {
            if epoch > passed {
                break;
            }
            inner.retired_slots.pop_front();
            inner.free_slots.push(slot);
        }
        if let Some((generation, epoch)) = inner.evicted
            && epoch <= passed
            && let Some(arena) = inner.arena.as_mut()
        {
            // SAFETY: `evict` cut every link into the generation and made vCPUs drop their jump caches before they pass; each
            // has passed since (`passed`), and none enters a block without code.
            unsafe { arena.free(generation) };
            inner.evicted = None;
        }
    }

    /// Drops every block, as when RAM was rewritten behind the watches.
    pub fn clear(&self) {
        let mut inner = self.lock();
        let live: Vec<Arc<Tb>> = inner.map.values().cloned().collect();
        for tb in live {
            self.remove(&mut inner, &tb);
        }
    }
}

impl CodeSink for Cache {
    fn code_written(&self, gpa: u64, len: u64) {
        let page = gpa & !(PAGE_SIZE - 1);
        let hit = Ram::granules(gpa, len);
        let mut inner = self.lock();
        let touched = |tb: &&Arc<Tb>| tb.pages.iter().any(|&(p, granules)| p == page && granules & hit != 0);
        let victims: Vec<Arc<Tb>> = match inner.pages.get(&page) {
            Some(list) => list.iter().filter(touched).cloned().collect(),
            None => Vec::new(),
        };
        inner.stats.invalidations += victims.len() as u64;
        for tb in &victims {
            self.remove(&mut inner, tb);
        }
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
