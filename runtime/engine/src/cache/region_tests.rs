//! Regions in the cache: what they are made of, and what ends them.

use mimus_backend::CompiledInfo;
use mimus_ir::{Block, Builder};
use mimus_softmmu::{CodeSink, PAGE_SIZE, Ram};
use smallvec::smallvec;

use super::tests::{Vcpu, cache, insert_tb, key};
use super::*;

/// A compiled block of 16 bytes at `gpa` that jumps to `target`, or goes on after itself.
fn compiled(cache: &Cache, vcpu: &Vcpu, gpa: u64, target: u64) -> Arc<Tb> {
    let tb = cold(cache, vcpu, gpa, target);
    let job = cache.begin_compile(&tb).unwrap();
    publish(cache, job, [Some(target), Some(gpa + 16)]);
    tb
}

fn cold(cache: &Cache, vcpu: &Vcpu, gpa: u64, target: u64) -> Arc<Tb> {
    let pages: TbPages = smallvec![(gpa & !(PAGE_SIZE - 1), Ram::granules(gpa, 16))];
    insert_tb(cache, vcpu, Tb::new(key(gpa), branch(gpa, target), pages))
}

fn branch(pc: u64, target: u64) -> Block {
    let mut b = Builder::new(pc);
    b.insn(pc, 16);
    let cond = b.iconst(mimus_ir::Type::I8, 1);
    b.branch(cond, target);
    b.finish(pc + 16)
}

fn publish(cache: &Cache, job: Job, targets: [Option<u64>; 2]) -> Option<(u64, usize)> {
    let info = CompiledInfo { entry_offset: 4, link_targets: vec![targets; job.parts.len()] };
    cache.publish(Finished { job, code: Some((vec![0xcc; 100], info)) })
}

fn starts(job: &Job) -> Vec<u64> {
    job.parts.iter().map(|tb| tb.key.pc).collect()
}

#[test]
fn a_region_is_what_hot_blocks_of_the_page_lead_to() {
    let cache = cache(64 << 20);
    let vcpu = Vcpu::new(&cache);
    let head = compiled(&cache, &vcpu, 0x1000, 0x1100);
    compiled(&cache, &vcpu, 0x1010, 0x1000);
    compiled(&cache, &vcpu, 0x1100, 0x2000);
    // Cold, in another page, not reached.
    cold(&cache, &vcpu, 0x1110, 0x1000);
    compiled(&cache, &vcpu, 0x2000, 0x1000);
    compiled(&cache, &vcpu, 0x1200, 0x1000);
    let job = cache.begin_region(&head).unwrap();
    assert_eq!(starts(&job), [0x1000, 0x1100, 0x1010]);
    assert_eq!(job.slots.len(), 3);
    assert!(cache.begin_region(&head).is_none(), "it is being compiled");
    cache.cancel(job);
    assert!(cache.begin_region(&head).is_some(), "it is no longer");
}

#[test]
fn a_region_of_regions_has_the_bytes_of_its_own_blocks_only() {
    let cache = cache(64 << 20);
    let vcpu = Vcpu::new(&cache);
    let heads = [0x1000, 0x1100, 0x1200];
    for (head, next) in heads.into_iter().zip([0x1100, 0x1200, 0x1000]) {
        compiled(&cache, &vcpu, head, next);
    }
    // Where each begins, those before are regions already.
    for head in heads {
        let job = cache.begin_region(&cache.lookup(&key(head)).unwrap()).unwrap();
        assert_eq!((job.parts.len(), job.tb.bytes.len()), (heads.len(), heads.len()));
        publish(&cache, job, [Some(head), None]);
    }
    let last = cache.lookup(&key(0x1200)).unwrap();
    assert!(last.level == 1 && last.translates(0x100f, 1) && !last.translates(0x1210, 1));
}

#[test]
fn a_region_replaces_its_first_block() {
    let cache = cache(64 << 20);
    let mut vcpu = Vcpu::new(&cache);
    let head = compiled(&cache, &vcpu, 0x1000, 0x1100);
    let other = compiled(&cache, &vcpu, 0x1100, 0x1000);
    let from = cache.begin_compile(&cold(&cache, &vcpu, 0x1300, 0x1000)).unwrap();
    let slot = from.slots[0];
    publish(&cache, from, [Some(0x1000), None]);
    cache.link(slot.into(), &head);
    assert!(head.lead(0x1000, head.entry()));
    vcpu.quiescent_point(&cache);
    let job = cache.begin_region(&head).unwrap();
    publish(&cache, job, [Some(0x1300), None]).unwrap();
    assert!(head.is_dead() && !other.is_dead());
    assert_eq!(vcpu.quiescent_point(&cache).unwrap().gone, Gone::Pcs(smallvec![0x1000]));
    assert_eq!(cache.links().get(slot), 0x5_7ab5, "who led to the block comes through the dispatcher");
    let region = cache.lookup(&key(0x1000)).unwrap();
    assert_eq!((region.level, region.blocks, region.stage()), (1, 2, Stage::Compiled));
    assert_ne!(region.entry(), 0);
    assert_eq!(cache.stats().regions, 1);
    assert!(cache.begin_region(&region).is_none(), "nothing has become hot since");
    compiled(&cache, &vcpu, 0x1010, 0x1000);
    assert_eq!(cache.begin_region(&region).unwrap().parts.len(), 3);
}

#[test]
fn a_write_to_any_block_of_a_region_ends_it() {
    for at in [0x1000, 0x1105] {
        let cache = cache(64 << 20);
        let vcpu = Vcpu::new(&cache);
        let head = compiled(&cache, &vcpu, 0x1000, 0x1100);
        let other = compiled(&cache, &vcpu, 0x1100, 0x1000);
        let job = cache.begin_region(&head).unwrap();
        publish(&cache, job, [None, None]).unwrap();
        let region = cache.lookup(&key(0x1000)).unwrap();
        // The block alone leaves the cache; the region still watches its bytes.
        cache.remove(&mut cache.lock(), &other);
        cache.code_written(0x1400, 8);
        assert!(!region.is_dead());
        cache.code_written(at, 1);
        assert!(region.is_dead() && region.entry() == 0, "{at:#x}");
        assert!(cache.lookup(&key(0x1000)).is_none());
    }
}

#[test]
fn a_region_is_dropped_when_a_block_changes_meanwhile() {
    let cache = cache(64 << 20);
    let vcpu = Vcpu::new(&cache);
    let head = compiled(&cache, &vcpu, 0x1000, 0x1100);
    compiled(&cache, &vcpu, 0x1100, 0x1000);
    let job = cache.begin_region(&head).unwrap();
    cache.code_written(0x1100, 1);
    assert!(publish(&cache, job, [None, None]).is_none());
    assert!(!head.is_dead() && head.entry() != 0, "the block alone is still good");
    assert_eq!((cache.stats().regions, cache.stats().dropped), (0, 1));
}

#[test]
fn an_evicted_region_is_compiled_as_a_block_again() {
    let cache = cache(64 << 20);
    let vcpu = Vcpu::new(&cache);
    let head = compiled(&cache, &vcpu, 0x1000, 0x1100);
    compiled(&cache, &vcpu, 0x1100, 0x1000);
    let job = cache.begin_region(&head).unwrap();
    publish(&cache, job, [None, None]).unwrap();
    let region = cache.lookup(&key(0x1000)).unwrap();
    cache.discard_code(&mut cache.lock(), &region);
    region.set_stage(Stage::Cold);
    let job = cache.begin_compile(&region).unwrap();
    assert!(!job.region && starts(&job) == [0x1000]);
    publish(&cache, job, [Some(0x1100), None]).unwrap();
    assert!(!region.is_dead() && region.entry() != 0);
}
