//! Host code in the cache: link slots, publishing, links, eviction, and when memory may be reused.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use mimus_backend::arena::{Generation, Rotation};
use mimus_backend::{CompiledInfo, HostAddr};

use super::tb::{LinkSlots, Quick, Recency};
use super::{Cache, DROPS, Inner, Owner, Stage, Tb};

/// What is to be compiled.
#[derive(Debug)]
pub struct Job {
    /// The block, or the region, which is not in the cache yet.
    pub tb: Arc<Tb>,
    /// The blocks: itself, or those of the region.
    pub parts: Vec<Arc<Tb>>,
    /// The first link slot of each.
    pub slots: LinkSlots,
    /// Whether it is a region.
    pub region: bool,
    /// Whether the slots are those of the block's quick code.
    pub of_quick: bool,
}

/// Code that the compiler made.
#[derive(Debug)]
pub struct Finished {
    /// What was compiled.
    pub job: Job,
    /// Host code, or `None` when the compiler refused.
    pub code: Option<(Vec<u8>, CompiledInfo)>,
}

/// A block's host code in the arena.
#[derive(Debug)]
pub(super) struct Placed {
    pub tb: Arc<Tb>,
    start: HostAddr,
    len: usize,
}

impl Placed {
    pub(super) fn new(tb: Arc<Tb>, start: HostAddr, len: usize) -> Placed {
        Placed { tb, start, len }
    }

    /// Whether it is what the block runs: not quick code that compiled code has replaced.
    fn is_current(&self) -> bool {
        self.tb.entry().wrapping_sub(self.start.0) < self.len as u64
    }
}

/// The first link slot that is given away: offsets of those before it would be shorter in code, which is then not the same for all
/// slots ([`crate::kept::slots`]).
pub(super) const FIRST_SLOT: u32 = 64;

/// Of a generation, as a divisor: the part that survivors of an evicted one may fill.
const SURVIVORS: usize = 2;

impl Cache {
    /// Takes a block's host code away.
    pub(super) fn discard_code(&self, inner: &mut Inner, tb: &Tb) {
        if tb.entry() == 0 {
            // No link and no jump cache leads to what has no code.
            return;
        }
        self.unlink(inner, tb);
        tb.set_entry(0);
        if tb.quick() == Quick::Runs {
            tb.set_quick(Quick::None);
        }
        let slots = tb.set_slots(LinkSlots::new());
        // Behind the entry: who finds it still there has its PC among these ([`Tb::lead`]).
        let epoch = match tb.ways() {
            Some(ways) => {
                ways.iter().for_each(|&pc| inner.drops.push_front(pc));
                inner.drops.truncate(DROPS);
                self.advance(&self.drops, ways.len() as u64)
            }
            None => self.advance(&self.deaths, 1),
        };
        for slot in slots {
            inner.disown(slot);
            inner.retired_slots.push_back((slot, epoch));
        }
    }

    /// Sends every slot that leads to a block back to the exit stub.
    pub(super) fn unlink(&self, inner: &Inner, tb: &Tb) {
        self.relink(tb, inner.exit_stub);
        tb.links().incoming.clear();
    }

    /// Sends every slot that leads to a block to `entry`.
    pub(super) fn relink(&self, tb: &Tb, entry: u64) {
        let old = tb.entry();
        if old == 0 {
            return;
        }
        for &slot in tb.links().incoming.iter() {
            if self.links.get(slot) == old {
                self.links.set(slot, entry);
            }
        }
    }

    /// Links a slot to a block, if its owner and the block are still alive and the owner may jump there unchecked: what a
    /// vCPU left by may have changed hands since. To a block that straddles two pages, it is linked by the jump cache, which
    /// knows what is mapped now.
    pub fn link(&self, slot: u64, tb: &Tb) {
        let Ok(slot) = u32::try_from(slot) else { return };
        let mut inner = self.lock();
        let entry = tb.entry();
        if entry == 0 || tb.is_dead() || self.links.target(slot.into()) != Some(tb.key.pc) {
            return;
        }
        let (to, from) = (&tb.key, inner.owner(slot));
        if from != Some(Owner::of(to)) {
            return;
        }
        if tb.straddles() {
            // Nothing is to be undone when the block goes away: the jump caches lose it then.
            if let Some(checked) = inner.checked_stub {
                self.links.set(slot, checked);
            }
            return;
        }
        let incoming = &mut tb.links().incoming;
        // Slots linked elsewhere since are forgotten now and then, so that the list stays as long as what leads here.
        if incoming.len() >= 16 && incoming.len().is_power_of_two() {
            incoming.sort_unstable();
            incoming.dedup();
            incoming.retain(|s| self.links.get(*s) == entry);
        }
        incoming.push(slot);
        self.links.set(slot, entry);
        inner.stats.links += 1;
    }

    /// A job to compile a block; `None` when link slots are wanting, or it is not a cold live block.
    pub fn begin_compile(&self, tb: &Arc<Tb>) -> Option<Job> {
        let mut inner = self.lock();
        if tb.is_dead() || tb.stage() != Stage::Cold {
            return None;
        }
        let quick = tb.first_slot().filter(|_| tb.quick() == Quick::Runs).map(|slot| LinkSlots::from_slice(&[slot]));
        let Some(slots) = quick.or_else(|| self.take_slots(&mut inner, 1)) else {
            tb.heat.store(0, Ordering::Relaxed);
            return None;
        };
        tb.set_stage(Stage::Queued);
        let of_quick = tb.quick() == Quick::Runs;
        Some(Job { tb: tb.clone(), parts: vec![tb.clone()], slots, region: false, of_quick })
    }

    /// So many fresh pairs of link slots.
    pub(super) fn take_slots(&self, inner: &mut Inner, pairs: usize) -> Option<LinkSlots> {
        self.reclaim(inner);
        let unused = self.links.len().saturating_sub(inner.next_slot as usize) / 2;
        if inner.free_slots.len() + unused < pairs {
            return None;
        }
        let mut slots = LinkSlots::new();
        while slots.len() < pairs {
            slots.push(inner.free_slots.pop().unwrap_or(inner.next_slot));
            if slots.last() == Some(&inner.next_slot) {
                inner.next_slot += 2;
            }
        }
        Some(slots)
    }

    /// Gives up a job.
    pub fn cancel(&self, job: Job) {
        self.abandon(&mut self.lock(), job);
    }

    /// The job's block may be asked for again.
    fn abandon(&self, inner: &mut Inner, job: Job) {
        self.give_back(inner, &job);
        if job.region {
            if let Some(head) = job.parts.first() {
                head.set_growing(false);
            }
        } else {
            job.tb.set_stage(Stage::Cold);
            job.tb.heat.store(0, Ordering::Relaxed);
        }
    }

    /// A job's slots may be used by others, unless its block has them already.
    fn give_back(&self, inner: &mut Inner, job: &Job) {
        if !job.of_quick {
            inner.free_slots.extend(job.slots.iter().copied());
        }
    }

    /// Says whose a pair of slots is and where they lead; they are not linked yet.
    pub(super) fn own_slots(&self, inner: &mut Inner, key: super::TbKey, slot: u32, targets: &[Option<u64>; 2]) {
        inner.own(slot, Owner::of(&key));
        for (slot, target) in (slot..).zip(targets) {
            self.links.set(slot, inner.exit_stub);
            self.links.set_target(slot, target.unwrap_or(0));
        }
    }

    /// Publishes compiled code, unless a block of it died meanwhile. Where it went, in host memory.
    pub fn publish(&self, finished: Finished) -> Option<(u64, usize)> {
        let Finished { job, code } = finished;
        let mut inner = self.lock();
        let stale = job.of_quick && !self.replaces_quick(&job.tb, &job.slots);
        let raced = !job.region && !job.of_quick && job.tb.entry() != 0;
        if stale || raced || job.parts.iter().any(|tb| tb.is_dead()) {
            inner.stats.dropped += 1;
            self.abandon(&mut inner, job);
            return None;
        }
        let Some((code, info)) = code else {
            self.give_back(&mut inner, &job);
            job.tb.set_stage(Stage::Refused);
            return None;
        };
        let Some((start, generation)) = self.place(&mut inner, &code) else {
            self.abandon(&mut inner, job);
            return None;
        };
        if job.of_quick && !self.replaces_quick(&job.tb, &job.slots) {
            // The room for it was that of its quick code, whose slots went along.
            self.abandon(&mut inner, job);
            return None;
        }
        let Job { tb, parts, slots, region, of_quick } = job;
        if of_quick {
            self.end_quick(&tb, start.0 + u64::from(info.entry_offset));
        } else {
            for ((part, &slot), targets) in parts.iter().zip(&slots).zip(&info.link_targets) {
                self.own_slots(&mut inner, part.key, slot, targets);
            }
        }
        inner.stats.compiled += 1;
        inner.stats.regions += u64::from(region);
        inner.stats.code_bytes += code.len() as u64;
        inner.generations.entry(generation).or_default().push(Placed::new(tb.clone(), start, code.len()));
        tb.set_slots(slots);
        tb.set_stage(Stage::Compiled);
        tb.set_entry(start.0 + u64::from(info.entry_offset));
        if region {
            self.replace(&mut inner, &tb);
        }
        Some((start.0, code.len()))
    }

    /// Copies code into the arena, evicting the oldest generation when it is full.
    pub(super) fn place(&self, inner: &mut Inner, code: &[u8]) -> Option<(HostAddr, Generation)> {
        for _ in 0..4 {
            let arena = inner.arena.as_mut()?;
            if code.len() > arena.max_len() {
                return None;
            }
            if let Some(slot) = arena.alloc(code.len()) {
                let generation = slot.generation();
                return Some((arena.publish(slot, code), generation));
            }
            match arena.rotate() {
                Rotation::Ready => self.sample(inner),
                Rotation::Evict(generation) => {
                    self.evict(inner, generation);
                    self.sample(inner);
                }
                Rotation::Blocked => {
                    self.reclaim(inner);
                    if inner.evicted.is_some() {
                        inner.participants.iter().for_each(|p| p.kicker.kick());
                        return None;
                    }
                }
            }
        }
        None
    }

    /// Has the blocks that the next eviction is about come through the dispatcher, which shows whether they are executed.
    fn sample(&self, inner: &mut Inner) {
        let Some(victim) = inner.arena.as_ref().and_then(|a| a.next_victim()) else { return };
        let placed = inner.generations.get(&victim).map_or(&[][..], Vec::as_slice);
        for Placed { tb, .. } in placed.iter().filter(|placed| placed.is_current()) {
            tb.take_used(Recency::Code);
            self.unlink(inner, tb);
        }
        // Jump caches lead to them as well.
        self.advance(&self.deaths, 1);
    }

    /// Empties a generation: blocks executed since it was sampled take their host code along, the others lose it and are
    /// compiled again when they are hot.
    fn evict(&self, inner: &mut Inner, generation: Generation) {
        let mut room = inner.arena.as_ref().map_or(0, |a| a.max_len() / SURVIVORS);
        for placed in inner.generations.remove(&generation).unwrap_or_default() {
            let Placed { tb, len, .. } = &placed;
            if tb.is_dead() || !placed.is_current() {
                continue;
            }
            if tb.take_used(Recency::Code) && *len <= room && self.carry(inner, &placed).is_some() {
                room -= *len;
                inner.stats.survivals += 1;
                continue;
            }
            inner.stats.evictions += 1;
            self.discard_code(inner, tb);
            tb.heat.store(0, Ordering::Relaxed);
            if tb.stage() == Stage::Compiled {
                tb.set_stage(Stage::Cold);
            }
        }
        inner.evicted = Some((generation, self.advance(&self.deaths, 1)));
    }

    /// Copies a block's host code to the current generation and has everyone enter it there.
    fn carry(&self, inner: &mut Inner, placed: &Placed) -> Option<()> {
        let Placed { tb, start, len } = placed;
        let arena = inner.arena.as_mut()?;
        let slot = arena.alloc(*len)?;
        let generation = slot.generation();
        let moved = arena.republish(slot, *start)?;
        let entry = moved.0 + (tb.entry() - start.0);
        self.relink(tb, entry);
        tb.set_entry(entry);
        let placed = Placed { tb: tb.clone(), start: moved, len: *len };
        inner.generations.entry(generation).or_default().push(placed);
        Some(())
    }

    /// Makes what every vCPU has left behind available again.
    pub(super) fn reclaim(&self, inner: &mut Inner) {
        let passed = self.passed(inner, None);
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
}
