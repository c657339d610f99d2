//! Quick code in the cache: what takes its place, and what ends it.

use mimus_backend::CompiledInfo;
use mimus_softmmu::CodeSink;

use super::tests::{Vcpu, cache, insert};
use super::*;

fn info(targets: [Option<u64>; 2]) -> CompiledInfo {
    CompiledInfo { entry_offset: 0, link_targets: vec![targets] }
}

/// Gives a block quick code; its slot.
fn quick(cache: &Cache, tb: &Arc<Tb>, targets: [Option<u64>; 2]) -> u32 {
    let slot = cache.begin_quick(tb).unwrap();
    assert!(cache.publish_quick(tb, slot, Some((&[0x90; 64], info(targets))), 100).is_some());
    slot
}

fn compile(cache: &Cache, job: Job, targets: [Option<u64>; 2]) -> Option<(u64, usize)> {
    cache.publish(Finished { job, code: Some((vec![0xcc; 100], info(targets))) })
}

fn count(cache: &Cache, slot: u32) -> u32 {
    // SAFETY: the table lives as long as the cache, and has a count for each pair of slots.
    unsafe { *(cache.links().counts_address() as *const u32).add(slot as usize / 2) }
}

#[test]
fn compiled_code_takes_the_place_and_the_slots_of_quick_code() {
    let cache = cache(64 << 20);
    let vcpu = Vcpu::new(&cache);
    let (hot, from) = (insert(&cache, &vcpu, 0x1000), insert(&cache, &vcpu, 0x1100));
    let slot = quick(&cache, &hot, [Some(0x1100), None]);
    let from_slot = quick(&cache, &from, [Some(0x1000), None]);
    cache.link(from_slot.into(), &hot);
    cache.link(slot.into(), &from);
    assert_eq!(count(&cache, slot), 100);
    assert_eq!((hot.quick(), hot.stage()), (Quick::Runs, Stage::Cold));
    let before = hot.entry();
    let job = cache.begin_compile(&hot).unwrap();
    assert_eq!(job.slots[..], [slot]);
    assert!(compile(&cache, job, [Some(0x1100), None]).is_some());
    assert_eq!((hot.quick(), hot.stage()), (Quick::None, Stage::Compiled));
    assert_ne!(hot.entry(), before);
    assert_eq!(cache.links().get(from_slot), hot.entry(), "what leads to it leads to the new code");
    assert_eq!(cache.links().get(slot), from.entry(), "and its own links stay");
    assert!((count(&cache, slot) as i32) < 0, "whoever still comes by the old code is sent away");
}

#[test]
fn a_block_that_changed_while_it_was_compiled_is_not_published() {
    let cache = cache(64 << 20);
    let vcpu = Vcpu::new(&cache);
    let hot = insert(&cache, &vcpu, 0x1000);
    let slot = quick(&cache, &hot, [None, None]);
    let job = cache.begin_compile(&hot).unwrap();
    cache.code_written(0x1000, 1);
    assert!(hot.is_dead());
    assert!(compile(&cache, job, [None, None]).is_none());
    // Its slots are not free twice: they belong to one block after the other.
    let mut vcpu = vcpu;
    vcpu.quiescent_point(&cache);
    let mut seen = std::collections::BTreeSet::new();
    for i in 0..8 {
        let tb = insert(&cache, &vcpu, 0x2000 + 256 * i);
        assert!(seen.insert(quick(&cache, &tb, [None, None])), "twice");
    }
    assert!(seen.contains(&slot), "{seen:?} without {slot}");
}

#[test]
fn compiling_that_came_to_nothing_is_asked_for_again() {
    let cache = cache(64 << 20);
    let vcpu = Vcpu::new(&cache);
    let hot = insert(&cache, &vcpu, 0x1000);
    let slot = quick(&cache, &hot, [None, None]);
    let job = cache.begin_compile(&hot).unwrap();
    cache.quick_is_hot(&hot);
    assert!((100..1 << 20).contains(&count(&cache, slot)), "it comes back to look");
    cache.cancel(job);
    assert_eq!((hot.quick(), hot.stage()), (Quick::Runs, Stage::Cold));
    assert!(cache.begin_compile(&hot).is_some());
}

#[test]
fn a_block_that_the_quick_tier_refuses_is_not_asked_for_again() {
    let cache = cache(64 << 20);
    let vcpu = Vcpu::new(&cache);
    let odd = insert(&cache, &vcpu, 0x1000);
    let slot = cache.begin_quick(&odd).unwrap();
    assert!(cache.publish_quick(&odd, slot, None, 100).is_none());
    assert_eq!(odd.quick(), Quick::Refused);
    assert!(cache.begin_quick(&odd).is_none());
    assert!(cache.begin_compile(&odd).is_some_and(|job| job.slots[..] == [slot]), "its slots are free");
}

#[test]
fn quick_code_that_was_replaced_is_not_carried_along() {
    let cache = cache(64 << 20);
    let mut vcpu = Vcpu::new(&cache);
    let hot = insert(&cache, &vcpu, 0x1000);
    quick(&cache, &hot, [None, None]);
    let job = cache.begin_compile(&hot).unwrap();
    assert!(compile(&cache, job, [None, None]).is_some());
    for i in 0..4000 {
        if vcpu.quiescent_point(&cache).is_some() {
            hot.touch();
        }
        // SAFETY: the entry of a live block, whose code nobody moves meanwhile.
        let code = unsafe { std::slice::from_raw_parts(hot.entry() as *const u8, 100) };
        assert_eq!(code, [0xcc; 100], "after {i} others");
        let other = insert(&cache, &vcpu, 0x2000 + 256 * i);
        let slot = cache.begin_quick(&other).unwrap();
        cache.publish_quick(&other, slot, Some((&[0x90; 1000], info([None, None]))), 100);
    }
    assert!(cache.stats().evictions > 3000, "{:?}", cache.stats());
}
