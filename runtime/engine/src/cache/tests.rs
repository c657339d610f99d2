//! The cache with blocks and code that are never run.

use std::sync::Arc;

use mimus_backend::{Arena, CompiledInfo};
use mimus_ir::{Block, Builder};
use mimus_softmmu::{CodeSink, PAGE_SIZE, Ram};
use smallvec::smallvec;
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::*;

const STUB: u64 = 0x5_7ab5;
const RAM: usize = 16 << 20;
/// Three generations of 64 KiB.
const TINY_ARENA: usize = 192 << 10;

pub(crate) struct Vcpu {
    pub participant: Arc<Participant>,
    seen: Seen,
}

impl Vcpu {
    pub fn new(cache: &Cache) -> Vcpu {
        Vcpu { participant: cache.register(Kicker::new()), seen: Seen::default() }
    }

    pub fn quiescent_point(&mut self, cache: &Cache) -> Option<Invalidations> {
        cache.quiescent_point(&self.participant, &mut self.seen)
    }
}

fn ram() -> Arc<Ram> {
    Arc::new(Ram::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM)]).unwrap()))
}

pub(crate) fn cache(bytes: usize) -> Cache {
    let arena = Arena::with_generations(TINY_ARENA, 3).unwrap();
    Cache::new(ram(), bytes, Some((arena, STUB)))
}

fn block(pc: u64, insns: u32) -> Block {
    let mut b = Builder::new(pc);
    for i in 0..insns {
        b.insn(pc + u64::from(i), 1);
    }
    b.jump(pc);
    b.finish(pc + u64::from(insns))
}

pub(crate) fn key(gpa: u64) -> TbKey {
    TbKey { gpa, pc: gpa, words: [0; 2] }
}

pub(crate) fn tb(key: TbKey) -> Tb {
    let pages: TbPages = smallvec![(key.gpa & !(PAGE_SIZE - 1), Ram::granules(key.gpa, 4))];
    Tb::new(key, block(key.pc, 4), pages)
}

fn insert_key(cache: &Cache, vcpu: &Vcpu, key: TbKey) -> Arc<Tb> {
    insert_tb(cache, vcpu, tb(key))
}

pub(crate) fn insert_tb(cache: &Cache, vcpu: &Vcpu, tb: Tb) -> Arc<Tb> {
    match cache.insert(&vcpu.participant, tb, || true, |_| {}) {
        Inserted::Live(tb) => tb,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn insert(cache: &Cache, vcpu: &Vcpu, gpa: u64) -> Arc<Tb> {
    insert_key(cache, vcpu, key(gpa))
}

/// "Compiles" a block to `len` bytes of code whose exits lead to `targets`; its first slot, unless it found no room.
fn compile(cache: &Cache, tb: &Arc<Tb>, len: usize, targets: [Option<u64>; 2]) -> Option<u32> {
    let job = cache.begin_compile(tb)?;
    let slot = job.slots[0];
    let info = CompiledInfo { entry_offset: 4, link_targets: vec![targets] };
    let code = tb.key.pc.to_le_bytes().into_iter().cycle().take(len).collect();
    cache.publish(Finished { job, code: Some((code, info)) }).map(|_| slot)
}

fn code_at(entry: u64, len: usize) -> Vec<u8> {
    // SAFETY: the entry of a live block, 4 bytes into code of `len` bytes that nobody moves meanwhile.
    unsafe { std::slice::from_raw_parts((entry - 4) as *const u8, len) }.to_vec()
}

#[test]
fn blocks_are_dropped_by_guest_virtual_address() {
    let cache = cache(64 << 20);
    let vcpu = Vcpu::new(&cache);
    let plain = insert(&cache, &vcpu, 0x1000);
    let moved = insert_tb(&cache, &vcpu, tb(key(0x2000)).at(0x7000_1000));
    assert_eq!((plain.linear_offset(), moved.linear_offset()), (0, 0x7000_1000 - 0x2000));
    cache.drop_at(&[0x2000, 0x7000_1004]);
    assert!(!plain.is_dead() && !moved.is_dead());
    cache.drop_at(&[0x7000_1003]);
    assert!(!plain.is_dead() && moved.is_dead());
    cache.drop_at(&[0x1000]);
    assert!(plain.is_dead());
}

#[test]
fn a_hot_block_survives_evictions_and_is_not_compiled_again() {
    let cache = cache(64 << 20);
    let mut vcpu = Vcpu::new(&cache);
    let hot = insert(&cache, &vcpu, 0x1000);
    let other = insert(&cache, &vcpu, 0x1100);
    assert!(compile(&cache, &hot, 256, [None, None]).is_some());
    let from = compile(&cache, &other, 256, [Some(0x1000), None]).unwrap();
    cache.link(from.into(), &hot);
    let (first, code) = (hot.entry(), code_at(hot.entry(), 256));
    let mut entries = std::collections::BTreeSet::from([first]);
    for i in 0..4000 {
        if vcpu.quiescent_point(&cache).is_some_and(|invalidations| invalidations.gone == Gone::All) {
            // Run by the dispatcher, since nothing else leads to it any more.
            hot.touch();
            other.touch();
            cache.link(from.into(), &hot);
        }
        assert_eq!(hot.stage(), Stage::Compiled, "after {i} others");
        assert_eq!(cache.links().get(from), hot.entry(), "the link follows");
        entries.insert(hot.entry());
        let cold = insert(&cache, &vcpu, 0x2000 + 256 * i);
        // Runs while it is compiled, and never after.
        compile(&cache, &cold, 1000, [None, None]);
    }
    let stats = cache.stats();
    assert!(entries.len() > 2 && stats.survivals > 20, "{entries:?} {stats:?}");
    assert!(stats.evictions > 3500, "one-off blocks are evicted: {stats:?}");
    assert_eq!(code_at(hot.entry(), 256), code);
}

#[test]
fn survivors_leave_room_for_new_code() {
    let cache = cache(64 << 20);
    let mut vcpu = Vcpu::new(&cache);
    let mut all = Vec::new();
    for i in 0..2000 {
        vcpu.quiescent_point(&cache);
        let tb = insert(&cache, &vcpu, 0x1000 + 256 * i);
        compile(&cache, &tb, 1000, [None, None]);
        all.push(tb);
        // Everything is hot.
        all.iter().for_each(|tb| tb.touch());
    }
    let stats = cache.stats();
    assert!(stats.compiled > 1900 && stats.survivals > 1000, "{stats:?}");
    let held = all.iter().filter(|tb| tb.entry() != 0).count();
    assert!((60..192).contains(&held), "{held} blocks of 1000 bytes in three generations");
}

#[test]
fn code_memory_waits_for_every_vcpu() {
    let cache = cache(64 << 20);
    let mut running = Vcpu::new(&cache);
    let stuck = Vcpu::new(&cache);
    let fill = |running: &mut Vcpu, from: u64| {
        let mut published = 0;
        for i in 0..400 {
            running.quiescent_point(&cache);
            let mut key = key(0x1000);
            // Pages of other physical memory would wait for the other vCPU as well.
            key.words[1] = (from + i) as u32;
            key.pc = 0x1000 - (from + i);
            let tb = insert_key(&cache, running, key);
            published += usize::from(compile(&cache, &tb, 1000, [None, None]).is_some());
        }
        published
    };
    // The page becomes known as code to both.
    cache.go_offline(&stuck.participant);
    insert(&cache, &running, 0x1000);
    let mut stuck = stuck;
    cache.go_online(&stuck.participant);
    stuck.quiescent_point(&cache);
    let published = fill(&mut running, 1);
    assert!((100..=195).contains(&published), "{published}: three generations at most, with one vCPU in old code");
    cache.go_offline(&stuck.participant);
    assert!(fill(&mut running, 1000) > 390, "nobody waits for a vCPU that rests");
    cache.go_online(&stuck.participant);
    stuck.quiescent_point(&cache);
    assert!(fill(&mut running, 2000) < 300);
    cache.unregister(&stuck.participant);
    assert!(fill(&mut running, 3000) > 390, "nor for one that is gone");
}

#[test]
fn a_vcpu_that_has_passed_has_heard_of_deaths() {
    let cache = cache(64 << 20);
    let mut vcpu = Vcpu::new(&cache);
    vcpu.quiescent_point(&cache);
    let tb = insert(&cache, &vcpu, 0x1000);
    let slot = compile(&cache, &tb, 100, [None, None]).unwrap();
    assert!(tb.lead(0x7fff_1000, tb.entry()) && tb.lead(0x5555_1000, tb.entry()) && !tb.lead(0x1000, 1));
    assert_eq!(vcpu.quiescent_point(&cache), None);
    assert_eq!(cache.code_written(0x1003, 1).pcs(), Some(&[0x7fff_1000, 0x5555_1000][..]));
    assert!(tb.is_dead() && tb.entry() == 0);
    assert!(cache.lookup(&key(0x1000)).is_none());
    // Its slots are not handed out before the vCPU has passed.
    let next = insert(&cache, &vcpu, 0x1000);
    assert_ne!(cache.begin_compile(&next).unwrap().slots[0], slot);
    assert_eq!(vcpu.quiescent_point(&cache).unwrap().gone, Gone::Pcs(smallvec![0x5555_1000, 0x7fff_1000]));
    let third = insert(&cache, &vcpu, 0x1100);
    assert_eq!(cache.begin_compile(&third).unwrap().slots[0], slot);
}

#[test]
fn of_a_block_that_is_led_to_from_everywhere_all_is_forgotten() {
    let cache = cache(64 << 20);
    let mut vcpu = Vcpu::new(&cache);
    let tb = insert(&cache, &vcpu, 0x1000);
    compile(&cache, &tb, 100, [None, None]).unwrap();
    for page in 0..1000 {
        assert!(tb.lead(page << 12, tb.entry()));
    }
    vcpu.quiescent_point(&cache);
    let dropped = cache.code_written(0x1003, 1);
    assert!(dropped.any() && dropped.pcs().is_none());
    assert_eq!(vcpu.quiescent_point(&cache).unwrap().gone, Gone::All);
    assert!(!tb.lead(0x1000, 0x1234), "nothing leads to it any more");
}

#[test]
fn links_are_made_only_where_the_owner_may_jump() {
    let cache = cache(64 << 20);
    let mut vcpu = Vcpu::new(&cache);
    let from = insert(&cache, &vcpu, 0x1000);
    let slot = compile(&cache, &from, 100, [Some(0x1100), None]).unwrap();
    let compiled = |key: TbKey| {
        let tb = insert_key(&cache, &vcpu, key);
        compile(&cache, &tb, 100, [None, None]).unwrap();
        tb
    };
    let good = key(0x1100);
    let wrong = [
        TbKey { gpa: 0x2100, ..good },
        TbKey { words: [1, 0], ..good },
        TbKey { words: [0, 16], ..good },
        TbKey { pc: 0x1104, ..good },
    ];
    for key in wrong {
        let tb = compiled(key);
        cache.link(slot.into(), &tb);
        assert_eq!(cache.links().get(slot), STUB, "{key:?}");
    }
    let tb = compiled(good);
    cache.link(slot.into(), &tb);
    assert_eq!(cache.links().get(slot), tb.entry());
    // When the target dies, the link goes; when the owner does, no link is made for it.
    cache.code_written(0x1100, 1);
    assert_eq!(cache.links().get(slot), STUB);
    let tb = compiled(good);
    cache.code_written(0x1000, 1);
    cache.link(slot.into(), &tb);
    assert_eq!(cache.links().get(slot), STUB);
    vcpu.quiescent_point(&cache);
}

#[test]
fn lists_of_incoming_links_stay_short() {
    let cache = cache(64 << 20);
    let mut vcpu = Vcpu::new(&cache);
    let target = insert(&cache, &vcpu, 0x1800);
    compile(&cache, &target, 100, [None, None]).unwrap();
    let mut longest = 0;
    for _ in 0..2000 {
        vcpu.quiescent_point(&cache);
        // Rewritten and compiled again each time, mostly to the same slot.
        let from = insert(&cache, &vcpu, 0x1000);
        if let Some(slot) = compile(&cache, &from, 16, [Some(0x1800), None]) {
            cache.link(slot.into(), &target);
        }
        cache.code_written(0x1000, 1);
        longest = longest.max(target.links().incoming.len());
    }
    assert!((1..=32).contains(&longest), "{longest}");
}

#[test]
fn metadata_never_exceeds_its_bound_by_more_than_a_block() {
    let cache = cache(2 << 20);
    let mut vcpu = Vcpu::new(&cache);
    let (_, bound) = cache.metadata_bytes();
    let mut kept = Vec::new();
    let mut largest = 0;
    // One-off code, of which every third block is compiled and every fifth overwritten.
    for i in 0..20_000u64 {
        vcpu.quiescent_point(&cache);
        let gpa = 0x1000 + 16 * i;
        let tb = insert(&cache, &vcpu, gpa);
        largest = largest.max(tb.size());
        if i % 3 == 0 {
            compile(&cache, &tb, 50, [None, None]);
        }
        if i % 5 == 0 {
            cache.code_written(gpa, 1);
        }
        kept.push(Arc::downgrade(&tb));
        drop(tb);
        let (held, _) = cache.metadata_bytes();
        assert!(held <= bound, "{held} of {bound} bytes after {i} blocks");
        if i % 1000 == 0 {
            // Not only by its own account.
            let alive: usize = kept.iter().filter_map(|tb| tb.upgrade()).map(|tb| tb.size()).sum();
            assert!(alive <= bound + largest, "{alive} of {bound} bytes are alive");
        }
    }
    let stats = cache.stats();
    assert!(stats.peak_metadata_bytes <= (bound + largest) as u64);
    assert!(stats.evictions > 5_000, "{stats:?}");
}

#[test]
fn code_that_is_overwritten_all_the_time_is_let_go() {
    let cache = cache(2 << 20);
    let mut vcpu = Vcpu::new(&cache);
    let mut kept = Vec::new();
    for _ in 0..20_000 {
        vcpu.quiescent_point(&cache);
        let tb = insert(&cache, &vcpu, 0x1000);
        compile(&cache, &tb, 50, [None, None]);
        cache.code_written(0x1000, 4);
        kept.push(Arc::downgrade(&tb));
    }
    let (_, bound) = cache.metadata_bytes();
    let alive: usize = kept.iter().filter_map(|tb| tb.upgrade()).map(|tb| tb.size()).sum();
    assert!(alive < bound, "{alive} of {bound} bytes are alive");
    assert_eq!(cache.stats().evictions, 0, "the bound was never reached by live blocks");
}

#[test]
fn blocks_in_use_are_not_dropped_for_one_off_code() {
    let cache = cache(2 << 20);
    let mut vcpu = Vcpu::new(&cache);
    let used: Vec<Arc<Tb>> = (0..100).map(|i| insert(&cache, &vcpu, 0x1000 + 16 * i)).collect();
    for i in 0..10_000 {
        vcpu.quiescent_point(&cache);
        used.iter().for_each(|tb| tb.touch());
        insert(&cache, &vcpu, 0x10_0000 + 16 * i);
    }
    assert!(cache.stats().evictions > 5000);
    assert!(used.iter().all(|tb| !tb.is_dead()));
}

#[test]
fn a_page_mapped_at_many_addresses_has_a_bounded_number_of_blocks() {
    let cache = cache(64 << 20);
    let vcpu = Vcpu::new(&cache);
    for i in 0..3 * PAGE_BLOCKS as u64 {
        insert_key(&cache, &vcpu, TbKey { pc: 0x1000 + (i << 12), ..key(0x1000) });
    }
    assert_eq!(cache.lock().pages[&0x1000].len(), PAGE_BLOCKS);
    assert_eq!(cache.stats().evictions, 2 * PAGE_BLOCKS as u64);
    cache.code_written(0x1000, 1);
    assert!(cache.lock().pages.is_empty() && cache.lock().map.is_empty());
}

#[test]
fn a_new_code_page_waits_until_others_watch_stores_to_it() {
    let cache = cache(64 << 20);
    let (mut one, mut two) = (Vcpu::new(&cache), Vcpu::new(&cache));
    let mut own = Vec::new();
    let insert = |vcpu: &Vcpu, own: &mut Vec<u64>| {
        cache.insert(&vcpu.participant, tb(key(0x3008)), || true, |page| own.push(page))
    };
    assert!(matches!(insert(&one, &mut own), Inserted::Later));
    assert_eq!(own, [0x3000]);
    assert_ne!(cache.ram.code_granules(0x3000), 0, "watched from now on");
    one.quiescent_point(&cache);
    assert!(matches!(insert(&one, &mut own), Inserted::Later), "the other has not passed");
    let invalidations = two.quiescent_point(&cache).unwrap();
    assert_eq!(invalidations.protect, Protect::Pages(smallvec![0x3000]));
    assert!(matches!(insert(&one, &mut own), Inserted::Live(_)));
    assert_eq!(own, [0x3000], "handed out once");
    // The other vCPU's equal block is the same.
    assert!(matches!(insert(&two, &mut own), Inserted::Live(_)));
    assert_eq!(cache.stats().translated, 1);
    // Too many pages to remember: everything.
    for page in 0..PROTECTIONS as u64 + 1 {
        let _ = cache.insert(&one.participant, tb(key(0x10_0000 + page * PAGE_SIZE)), || true, |_| {});
    }
    assert_eq!(two.quiescent_point(&cache).unwrap().protect, Protect::All);
    // A block that changed while it was translated leaves no watch behind.
    one.quiescent_point(&cache);
    cache.go_offline(&two.participant);
    assert!(matches!(cache.insert(&one.participant, tb(key(0x7000)), || false, |_| {}), Inserted::Changed));
    assert_eq!(cache.ram.code_granules(0x7000), 0);
}
