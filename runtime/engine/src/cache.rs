//! The translation cache: blocks by key, their host code, and the links between them.
//!
//! One cache is shared by every vCPU of a machine. Its maps are behind a lock; compiled code never takes it: it sees only
//! the link slots and what they lead to. A block leaves the cache by being made *dead*: every slot that leads to it goes back
//! to the exit stub, and what it owned (slots, code memory) is reused only after every vCPU has passed its dispatcher.
//!
//! **Quiescent points.** Whoever takes something away first makes it unreachable for those who look it up (entry, links), then
//! counts it in `invalidations`, and then advances `epoch`: a vCPU whose [`Participant`] has that epoch has seen what was
//! invalidated, and dropped what it remembered by virtual address, before it runs code again. A vCPU that is offline is in no
//! code; the fences in [`Cache::go_online`] and [`Cache::passed`] see to it that it finds everything taken away meanwhile.

mod code;
mod kept;
mod quick;
#[cfg(test)]
mod quick_tests;
mod region;
#[cfg(test)]
mod region_tests;
mod tb;
#[cfg(test)]
pub(crate) mod tests;
mod written;

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mimus_backend::arena::{Arena, Generation};
use mimus_frontend::guest::TbWords;
use mimus_softmmu::{Marked, PAGE_SIZE, Ram};
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

use mimus_softmmu::kick::Kicker;

use code::Placed;
pub use code::{Finished, Job};
use tb::{ByKey, Recency};
pub use tb::{LinkSlots, Links, Quick, Stage, Tb, TbKey, TbPages};
use written::{PageBlocks, Patches};

/// A vCPU as a participant of the epochs by which memory is reclaimed: what was retired before its last quiescent point, which
/// is in its dispatcher, is not in use by it.
#[derive(Debug)]
pub struct Participant {
    /// [`Cache::epoch`] at its last quiescent point; `u64::MAX` while it is offline.
    epoch: AtomicU64,
    kicker: Arc<Kicker>,
}

/// What a vCPU has been told of, by [`Cache::quiescent_point`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    invalidations: u64,
    deaths: u64,
    drops: u64,
    sweeps: u64,
    protections: u64,
}

/// What a vCPU must do before it runs guest code again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invalidations {
    /// Blocks that died or moved: what leads to them by virtual address must go.
    pub gone: Gone,
    /// Memory of dead blocks is wanted: those that the vCPU holds must go.
    pub swept: bool,
    /// Pages that hold code since: the TLB must not let stores to them through.
    pub protect: Protect,
}

/// Blocks that nothing may lead to by virtual address any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Gone {
    /// Those at these guest PCs, perhaps some of them more than once.
    Pcs(SmallVec<[u64; 4]>),
    /// All.
    All,
}

/// Guest-physical pages to be taken out of the store tags of a TLB.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Protect {
    /// These.
    Pages(SmallVec<[u64; 4]>),
    /// All.
    All,
}

/// What became of a block that was to be inserted.
#[derive(Debug)]
pub enum Inserted {
    /// It, or an equal one made by another vCPU, is in the cache.
    Live(Arc<Tb>),
    /// Its bytes are not what was translated any more.
    Changed,
    /// Another vCPU may still store to its pages unseen: it is not to be kept before every vCPU has passed its dispatcher,
    /// which they were asked to.
    Later,
}

/// Counters of a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Blocks translated to micro-ops.
    pub translated: u64,
    /// Guest instructions in them.
    pub translated_insns: u64,
    /// Blocks and regions that were not translated, since an earlier run had kept them.
    pub kept: u64,
    /// Blocks and regions compiled to host code and published.
    pub compiled: u64,
    /// Of those, regions.
    pub regions: u64,
    /// Blocks that the quick tier has made host code of.
    pub quick: u64,
    /// Compiled blocks that had changed before they could be published.
    pub dropped: u64,
    /// Host code bytes published.
    pub code_bytes: u64,
    /// Links made.
    pub links: u64,
    /// Blocks whose host code was copied when its place was evicted.
    pub survivals: u64,
    /// Blocks that lost their host code or were dropped to make room.
    pub evictions: u64,
    /// Blocks dropped because their bytes were written.
    pub invalidations: u64,
    /// Most bytes of micro-ops and metadata held at once.
    pub peak_metadata_bytes: u64,
}

/// Most blocks that begin or end in one page, so that what is done for all of them takes bounded time: as many as a page has
/// bytes. A guest needs more only if it maps the page at many addresses.
const PAGE_BLOCKS: usize = 4096;

/// Pages remembered that became code pages, for vCPUs that have not passed since.
const PROTECTIONS: usize = 64;

/// Guest PCs that led to dead blocks remembered likewise.
const DROPS: usize = 64;

struct Inner {
    map: FxHashSet<ByKey>,
    pages: FxHashMap<u64, PageBlocks>,
    /// Every live block, oldest first, for eviction; and dead ones that are not swept yet.
    queue: VecDeque<Arc<Tb>>,
    /// How many of the first in `queue` show whether they are executed.
    looked: usize,
    live_bytes: usize,
    /// Of blocks that died since the last sweep: `queue` and `generations` may still hold them.
    dead_bytes: usize,
    arena: Option<Arena>,
    exit_stub: u64,
    /// What links to blocks that straddle two pages hold.
    checked_stub: Option<u64>,
    generations: FxHashMap<Generation, Vec<Placed>>,
    evicted: Option<(Generation, u64)>,
    /// Who owns a pair of link slots, by the pair's number.
    owners: Vec<Option<Owner>>,
    free_slots: Vec<u32>,
    retired_slots: VecDeque<(u32, u64)>,
    next_slot: u32,
    participants: Vec<Arc<Participant>>,
    /// Pages that became code pages, the last one first, and how many did.
    protections: VecDeque<u64>,
    /// Guest PCs by which jump caches may lead to blocks that died, the last one first.
    drops: VecDeque<u64>,
    patches: Patches,
    /// Pages that another vCPU may store to unseen, until every vCPU has passed this epoch.
    unprotected: FxHashMap<u64, u64>,
    stats: CacheStats,
}

/// What a link may not change: the block that it leads to has the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Owner {
    /// Guest-physical; with bit 0 set, so that nobody takes no room.
    page: NonZeroU64,
    words: TbWords,
}

impl Owner {
    fn of(key: &TbKey) -> Owner {
        Owner { page: NonZeroU64::MIN | (key.gpa & !(PAGE_SIZE - 1)), words: key.words }
    }
}

impl Inner {
    /// The live block of a key.
    fn live(&self, key: &TbKey) -> Option<&Arc<Tb>> {
        self.map.get(key).map(|ByKey(tb)| tb)
    }

    /// Who owns a link slot.
    fn owner(&self, slot: u32) -> Option<Owner> {
        self.owners.get(slot as usize / 2).copied().flatten()
    }

    /// Says who owns a pair of link slots, given by its first.
    fn own(&mut self, slot: u32, owner: Owner) {
        let pair = slot as usize / 2;
        if self.owners.len() <= pair {
            self.owners.resize(pair + 1, None);
        }
        self.owners[pair] = Some(owner);
    }

    /// Says that nobody owns a pair of link slots.
    fn disown(&mut self, slot: u32) {
        if let Some(owner) = self.owners.get_mut(slot as usize / 2) {
            *owner = None;
        }
    }
}

/// Of a list with the last one first, the `count` that are older than the `newer` ones, if it still has them.
fn recent(list: &VecDeque<u64>, newer: u64, count: u64) -> Option<SmallVec<[u64; 4]>> {
    let (newer, count) = (usize::try_from(newer).ok()?, usize::try_from(count).ok()?);
    (newer.saturating_add(count) <= list.len()).then(|| list.iter().skip(newer).take(count).copied().collect())
}

/// The translation cache of a machine.
pub struct Cache {
    inner: Mutex<Inner>,
    links: Links,
    ram: Arc<Ram>,
    metadata_bound: usize,
    /// Counts retirements; see [`Participant`].
    epoch: AtomicU64,
    /// Changes when one of the next four does.
    invalidations: AtomicU64,
    /// Of any number of blocks at once.
    deaths: AtomicU64,
    /// Of guest PCs that led to single blocks.
    drops: AtomicU64,
    sweeps: AtomicU64,
    protections: AtomicU64,
}

/// Smallest bound that an arena and metadata fit in, in bytes.
pub const MIN_BYTES: usize = 2 << 20;

impl Cache {
    /// A cache of at most `bytes` bytes: what the arena for host code does not take, if one is wanted, is for link slots,
    /// micro-ops and metadata. While a block is inserted it comes on top.
    pub fn new(ram: Arc<Ram>, bytes: usize, arena: Option<(Arena, u64)>) -> Cache {
        let (arena, exit_stub) = arena.map_or((None, 0), |(a, s)| (Some(a), s));
        // Two slots a block, and a block's code is rarely shorter than this.
        const SHORTEST: usize = 128;
        let arena_bytes = arena.as_ref().map_or(0, Arena::size);
        let slots = 2 * arena_bytes / SHORTEST;
        let links = Links::new(slots);
        let inner = Inner {
            map: FxHashSet::default(),
            pages: FxHashMap::default(),
            queue: VecDeque::new(),
            looked: 0,
            live_bytes: 0,
            dead_bytes: 0,
            arena,
            exit_stub,
            checked_stub: None,
            generations: FxHashMap::default(),
            evicted: None,
            owners: Vec::new(),
            free_slots: Vec::new(),
            retired_slots: VecDeque::new(),
            next_slot: code::FIRST_SLOT,
            participants: Vec::new(),
            protections: VecDeque::new(),
            drops: VecDeque::new(),
            patches: Patches::default(),
            unprotected: FxHashMap::default(),
            stats: CacheStats::default(),
        };
        Cache {
            inner: Mutex::new(inner),
            metadata_bound: bytes.saturating_sub(arena_bytes).saturating_sub(links.bytes()),
            links,
            ram,
            epoch: AtomicU64::new(1),
            invalidations: AtomicU64::new(0),
            deaths: AtomicU64::new(0),
            drops: AtomicU64::new(0),
            sweeps: AtomicU64::new(0),
            protections: AtomicU64::new(0),
        }
    }

    /// Has blocks that straddle two pages linked by `stub`, an address in code that is never evicted
    /// ([`mimus_backend::Thunks::checked_stub`]).
    pub fn link_straddling_by(&self, stub: u64) {
        self.lock().checked_stub = Some(stub);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it holds the lock with the maps half changed.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The link slots.
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// Counters.
    pub fn stats(&self) -> CacheStats {
        self.lock().stats
    }

    /// Bytes of micro-ops and metadata held now, and their bound.
    pub fn metadata_bytes(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.live_bytes + inner.dead_bytes, self.metadata_bound)
    }

    /// Registers a vCPU. It must call [`Cache::quiescent_point`] whenever it is in its dispatcher, where `kicker` brings it, and
    /// [`Cache::unregister`] when it goes away.
    pub fn register(&self, kicker: Arc<Kicker>) -> Arc<Participant> {
        let mut inner = self.lock();
        let participant = Arc::new(Participant { epoch: AtomicU64::new(self.epoch.load(Ordering::Relaxed)), kicker });
        inner.participants.push(participant.clone());
        participant
    }

    /// Forgets a vCPU that will run no code any more.
    pub fn unregister(&self, participant: &Arc<Participant>) {
        self.lock().participants.retain(|p| !Arc::ptr_eq(p, participant));
    }

    /// Says that the vCPU runs no compiled code and holds no address of any, but for what the invalidations tell it to drop.
    #[inline]
    pub fn quiescent_point(&self, participant: &Participant, seen: &mut Seen) -> Option<Invalidations> {
        // Acquire: invalidations and entries are read after the epoch, so that none of before it is missed. Release: what ran
        // before is over.
        participant.epoch.store(self.epoch.load(Ordering::Acquire), Ordering::Release);
        let invalidations = self.invalidations.load(Ordering::Acquire);
        if invalidations == seen.invalidations { None } else { Some(self.invalidations_since(invalidations, seen)) }
    }

    #[cold]
    fn invalidations_since(&self, invalidations: u64, seen: &mut Seen) -> Invalidations {
        let old = std::mem::replace(
            seen,
            Seen {
                invalidations,
                deaths: self.deaths.load(Ordering::Acquire),
                drops: self.drops.load(Ordering::Acquire),
                sweeps: self.sweeps.load(Ordering::Acquire),
                protections: self.protections.load(Ordering::Acquire),
            },
        );
        let (mut protect, mut gone) = (Protect::Pages(SmallVec::new()), Gone::Pcs(SmallVec::new()));
        if seen.protections != old.protections {
            let (inner, now) = (self.lock(), self.protections.load(Ordering::Relaxed));
            let pages = recent(&inner.protections, now - seen.protections, seen.protections - old.protections);
            protect = pages.map_or(Protect::All, Protect::Pages);
        }
        if seen.deaths != old.deaths {
            gone = Gone::All;
        } else if seen.drops != old.drops {
            let (inner, now) = (self.lock(), self.drops.load(Ordering::Relaxed));
            gone = recent(&inner.drops, now - seen.drops, seen.drops - old.drops).map_or(Gone::All, Gone::Pcs);
        }
        Invalidations { gone, swept: seen.sweeps != old.sweeps, protect }
    }

    /// Says that the vCPU sleeps in its dispatcher: nothing waits for it until [`Cache::go_online`].
    pub fn go_offline(&self, participant: &Participant) {
        participant.epoch.store(u64::MAX, Ordering::Release);
    }

    /// Says that the vCPU is online again; it must come by a quiescent point before it runs guest code or touches guest memory.
    pub fn go_online(&self, participant: &Participant) {
        participant.epoch.store(self.epoch.load(Ordering::Acquire), Ordering::Release);
        // Between going online and looking at blocks: pairs with the one in `passed`.
        fence(Ordering::SeqCst);
    }

    /// The epoch that every vCPU has passed, `except` one.
    fn passed(&self, inner: &Inner, except: Option<&Participant>) -> u64 {
        // Between taking something away and looking who may use it: pairs with the one in `go_online`.
        fence(Ordering::SeqCst);
        let others = inner.participants.iter().filter(|p| except.is_none_or(|e| !std::ptr::eq(e, &***p)));
        others.map(|p| p.epoch.load(Ordering::Acquire)).min().unwrap_or(u64::MAX)
    }

    /// Begins an epoch: who passes it has seen that `counter` advanced `by` so much.
    fn advance(&self, counter: &AtomicU64, by: u64) -> u64 {
        counter.fetch_add(by, Ordering::Release);
        self.invalidations.fetch_add(1, Ordering::Release);
        self.epoch.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// The live block of a key.
    pub fn lookup(&self, key: &TbKey) -> Option<Arc<Tb>> {
        self.lock().live(key).cloned()
    }

    /// Adds a block for the vCPU of `participant`; `verify` is called after its bytes are marked as code and says whether they
    /// still are what was translated. The pages that became code pages by that are handed to `protect`: stores to them must
    /// not pass the vCPU's own TLB any more. (The other vCPUs hear of them by [`Cache::quiescent_point`].)
    pub fn insert(
        &self,
        participant: &Participant,
        tb: Tb,
        verify: impl FnOnce() -> bool,
        mut protect: impl FnMut(u64),
    ) -> Inserted {
        let mut inner = self.lock();
        for &(page, granules) in &tb.pages {
            match self.ram.mark_code(page, granules) {
                Marked::Known => {}
                Marked::Mixed if inner.participants.len() <= 1 => {}
                Marked::Mixed | Marked::Fresh => {
                    protect(page);
                    self.protect_from_others(&mut inner, participant, page);
                }
            }
        }
        if !inner.unprotected.is_empty() {
            let passed = self.passed(&inner, Some(participant));
            inner.unprotected.retain(|_, epoch| *epoch > passed);
            if tb.pages.iter().any(|(page, _)| inner.unprotected.contains_key(page)) {
                return Inserted::Later;
            }
        }
        // Between marking and reading: a writer whose bytes are not seen here will see the mark.
        fence(Ordering::SeqCst);
        if !verify() {
            for &(page, _) in &tb.pages {
                self.refresh_page(&mut inner, page);
            }
            return Inserted::Changed;
        }
        if let Some(old) = inner.live(&tb.key).cloned() {
            if old.pages == tb.pages {
                return Inserted::Live(old);
            }
            self.remove(&mut inner, &old);
        }
        let tb = Arc::new(tb);
        self.add(&mut inner, &tb);
        if tb.kept {
            inner.stats.kept += 1;
        } else {
            inner.stats.translated += 1;
            inner.stats.translated_insns += u64::from(tb.block.guest_insns);
        }
        let bytes = (inner.live_bytes + inner.dead_bytes) as u64;
        inner.stats.peak_metadata_bytes = inner.stats.peak_metadata_bytes.max(bytes);
        self.bound_metadata(&mut inner);
        Inserted::Live(tb)
    }

    /// Adds a block to the maps, whose pages are marked as code.
    fn add(&self, inner: &mut Inner, tb: &Arc<Tb>) {
        for &(page, granules) in &tb.pages {
            let full = inner.pages.get(&page).filter(|blocks| blocks.len() >= PAGE_BLOCKS);
            if let Some(oldest) = full.and_then(PageBlocks::oldest).cloned() {
                inner.stats.evictions += 1;
                self.remove(inner, &oldest);
            }
            inner.pages.entry(page).or_default().push(page, tb.clone(), granules);
        }
        inner.map.replace(ByKey(tb.clone()));
        inner.queue.push_back(tb.clone());
        inner.live_bytes += tb.size();
    }

    /// `page` became a code page: has the vCPUs other than that of `participant` watch stores to it.
    fn protect_from_others(&self, inner: &mut Inner, participant: &Participant, page: u64) {
        let others = inner.participants.iter().filter(|p| !std::ptr::eq(participant, &***p));
        let mut any = false;
        for other in others {
            any = true;
            other.kicker.kick();
        }
        if !any {
            return;
        }
        inner.protections.push_front(page);
        inner.protections.truncate(PROTECTIONS);
        let epoch = self.advance(&self.protections, 1);
        inner.unprotected.insert(page, epoch);
    }

    /// Keeps live and dead blocks within the bound, with room for a while, since deaths cost every vCPU its jump caches.
    fn bound_metadata(&self, inner: &mut Inner) {
        let held = inner.live_bytes + inner.dead_bytes;
        if held > self.metadata_bound {
            self.drop_oldest(inner);
            self.sweep(inner);
            self.look(inner);
        } else {
            if inner.looked == 0 && held > self.metadata_bound / 8 * 7 {
                self.look(inner);
            }
            if inner.dead_bytes > self.metadata_bound / 8 {
                self.sweep(inner);
            }
        }
    }

    /// Has the oldest blocks, an eighth of all, come through the dispatcher: then it shows which of them are executed until it
    /// is their turn to be dropped.
    fn look(&self, inner: &mut Inner) {
        let mut bytes = 0;
        inner.looked = 0;
        while let Some(tb) = inner.queue.get(inner.looked).filter(|_| bytes < self.metadata_bound / 8) {
            bytes += tb.size();
            tb.take_used(Recency::Metadata);
            self.unlink(inner, tb);
            inner.looked += 1;
        }
        // Jump caches lead to them as well.
        self.advance(&self.deaths, 1);
    }

    /// Drops the oldest blocks, but not those executed since [`Cache::look`] looked at them. Where that makes too little room
    /// it drops a few more, of which nothing is known.
    fn drop_oldest(&self, inner: &mut Inner) {
        let (goal, least) = (self.metadata_bound / 16 * 15, self.metadata_bound / 64 * 63);
        for _ in 0..inner.queue.len() {
            if inner.live_bytes <= if inner.looked > 0 { goal } else { least } {
                break;
            }
            let Some(tb) = inner.queue.pop_front() else { break };
            let looked_at = inner.looked > 0;
            inner.looked = inner.looked.saturating_sub(1);
            if tb.is_dead() {
                continue;
            }
            if looked_at && tb.take_used(Recency::Metadata) {
                inner.queue.push_back(tb);
            } else {
                inner.stats.evictions += 1;
                self.remove(inner, &tb);
            }
        }
    }

    /// Lets go of dead blocks.
    fn sweep(&self, inner: &mut Inner) {
        if inner.dead_bytes == 0 {
            return;
        }
        let dead_looked_at = inner.queue.iter().take(inner.looked).filter(|tb| tb.is_dead()).count();
        inner.looked -= dead_looked_at;
        inner.queue.retain(|tb| !tb.is_dead());
        for list in inner.generations.values_mut() {
            list.retain(|placed| !placed.tb.is_dead());
        }
        inner.dead_bytes = 0;
        self.advance(&self.sweeps, 1);
    }

    /// Takes a block out of the maps and kills it. Its pages keep other blocks' granules only.
    fn remove(&self, inner: &mut Inner, tb: &Arc<Tb>) {
        if inner.live(&tb.key).is_some_and(|found| Arc::ptr_eq(found, tb)) {
            inner.map.remove(&tb.key);
        }
        for &(page, _) in &tb.pages {
            if inner.pages.get_mut(&page).is_some_and(|blocks| blocks.take(tb)) {
                self.refresh_page(inner, page);
            }
        }
        self.kill(inner, tb);
    }

    /// Marks as code what the blocks of a page have, after some have gone.
    fn refresh_page(&self, inner: &mut Inner, page: u64) {
        let blocks = inner.pages.get_mut(&page);
        let (granules, bytes) = blocks.map_or((0, 0), |blocks| (blocks.granules(), blocks.forget_bytes()));
        inner.live_bytes = inner.live_bytes.saturating_sub(bytes);
        if granules == 0 {
            inner.pages.remove(&page);
            inner.unprotected.remove(&page);
        }
        self.ram.set_code(page, granules);
    }

    /// Makes a block dead: nothing leads to it any more.
    fn kill(&self, inner: &mut Inner, tb: &Tb) {
        if !tb.die() {
            return;
        }
        let size = tb.size();
        inner.live_bytes = inner.live_bytes.saturating_sub(size);
        inner.dead_bytes += size;
        self.discard_code(inner, tb);
    }

    /// Drops every block with code at one of these linear addresses, wherever it is in memory.
    pub fn drop_at(&self, addresses: &[u64]) {
        if addresses.is_empty() {
            return;
        }
        let mut inner = self.lock();
        let hit = |tb: &&Arc<Tb>| addresses.iter().any(|&addr| tb.has_linear(addr));
        let found: Vec<Arc<Tb>> = inner.map.iter().map(|ByKey(tb)| tb).filter(hit).cloned().collect();
        for tb in found {
            self.remove(&mut inner, &tb);
        }
        self.sweep(&mut inner);
    }

    /// Drops every block, as when RAM was rewritten behind the watches.
    pub fn clear(&self) {
        let mut inner = self.lock();
        let live: Vec<Arc<Tb>> = inner.map.iter().map(|ByKey(tb)| tb.clone()).collect();
        for tb in live {
            self.remove(&mut inner, &tb);
        }
        self.sweep(&mut inner);
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
