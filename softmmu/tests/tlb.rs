//! The TLB by itself.

use mimus_softmmu::tlb::{META_GLOBAL, META_SIZE, TLB_ENTRIES, TLB_MOST_ENTRIES, invalid_tag};
use mimus_softmmu::{PAGE_SIZE, Tlb, TlbEntry};

/// Whether the probe lets an access of `size` bytes through.
fn matches(tag: u64, addr: u64, size: u64) -> bool {
    (addr ^ tag) < 4097 - size
}

fn hits(tlb: &Tlb, bank: usize, addr: u64) -> (bool, bool) {
    let entry = tlb.entry(bank, addr);
    (matches(entry.read, addr, 1), matches(entry.write, addr, 1))
}

fn fill(tlb: &mut Tlb, bank: usize, page: u64, gpa: u64) {
    tlb.fill(bank, page, true, true, 0, gpa);
}

#[test]
fn invalid_tags_match_no_address_of_their_set() {
    for index in 0..TLB_MOST_ENTRIES {
        for high in [0, 1, 0xffff_8000_0000_0000u64 >> 27, u64::MAX >> 27] {
            let page = high << 27 | (index as u64) << 12;
            for addr in [page, page | 0xfff, page | 0x800] {
                assert!(!matches(invalid_tag(index), addr, 1), "{addr:#x}");
            }
        }
    }
    let tlb = Tlb::new(2);
    for addr in [0, 0xfff, u64::MAX, 1 << 63, 0x7fff_ffff_f000] {
        assert_eq!(hits(&tlb, 1, addr), (false, false), "{addr:#x}");
    }
}

#[test]
fn the_probe_checks_page_and_crossing_at_once() {
    let page = 0xffff_ffff_ffff_f000;
    for size in [1, 2, 4, 8, 16] {
        assert!(matches(page, page, size));
        assert!(matches(page, page + (PAGE_SIZE - size), size), "the last {size} bytes");
        if size > 1 {
            assert!(!matches(page, page + (PAGE_SIZE - size + 1), size), "{size} bytes across the end");
        }
        assert!(!matches(page, page - 1, size));
        assert!(!matches(page, page.wrapping_add(PAGE_SIZE), size));
    }
}

#[test]
fn a_set_holds_one_page_of_each_bank() {
    let mut tlb = Tlb::new(2);
    let (a, b) = (0x5000, 0x5000 + (TLB_ENTRIES as u64) * PAGE_SIZE);
    fill(&mut tlb, 0, a, 0x1000);
    assert_eq!((hits(&tlb, 0, a), hits(&tlb, 1, a)), ((true, true), (false, false)));
    fill(&mut tlb, 0, b, 0x2000);
    assert_eq!((hits(&tlb, 0, a), hits(&tlb, 0, b)), ((false, false), (true, true)));
    tlb.fill(1, a, true, false, 0, 0x1000);
    assert_eq!(hits(&tlb, 1, a), (true, false));
}

#[test]
fn flushes_take_every_page_however_many_were_filled() {
    for count in [1, 3, 511, 512, 513, TLB_ENTRIES as u64, 3 * TLB_ENTRIES as u64] {
        let mut tlb = Tlb::new(3);
        for bank in 0..3 {
            (0..count).for_each(|i| fill(&mut tlb, bank, i * PAGE_SIZE, i * PAGE_SIZE));
        }
        tlb.flush(false);
        for bank in 0..3 {
            assert!((0..count).all(|i| hits(&tlb, bank, i * PAGE_SIZE) == (false, false)), "{count} pages");
        }
    }
}

#[test]
fn global_pages_stay_until_everything_is_flushed() {
    for count in [2, 100, 511, 600, TLB_ENTRIES as u64] {
        let mut tlb = Tlb::new(1);
        let global = |i: u64| i.is_multiple_of(2);
        for i in 0..count {
            fill(&mut tlb, 0, i * PAGE_SIZE, (i * PAGE_SIZE) | if global(i) { META_GLOBAL } else { 0 });
        }
        // More than once: what is kept must be found again by the next flush.
        for _ in 0..3 {
            tlb.flush(true);
            assert!((0..count).all(|i| hits(&tlb, 0, i * PAGE_SIZE).0 == global(i)), "{count} pages");
        }
        tlb.flush(false);
        assert!((0..count).all(|i| !hits(&tlb, 0, i * PAGE_SIZE).0), "{count} pages");
    }
}

#[test]
fn one_page_is_flushed_in_every_bank_even_if_global() {
    let mut tlb = Tlb::new(2);
    for page in [0x7000, 0x8000] {
        fill(&mut tlb, 0, page, META_GLOBAL);
        fill(&mut tlb, 1, page, 0);
    }
    tlb.flush_page(0x7abc);
    assert!(!hits(&tlb, 0, 0x7000).0 && !hits(&tlb, 1, 0x7000).0);
    assert!(hits(&tlb, 0, 0x8000).0 && hits(&tlb, 1, 0x8000).0);
}

#[test]
fn protecting_a_page_stops_stores_by_every_address_and_nothing_else() {
    let mut tlb = Tlb::new(2);
    fill(&mut tlb, 0, 0x10_0000, 0x3000 | META_GLOBAL);
    fill(&mut tlb, 1, 0x20_1000, 0x3000);
    fill(&mut tlb, 0, 0x30_2000, 0x4000);
    tlb.protect_page(0x3000);
    assert_eq!((hits(&tlb, 0, 0x10_0000), hits(&tlb, 1, 0x20_1000)), ((true, false), (true, false)));
    assert_eq!(hits(&tlb, 0, 0x30_2000), (true, true));
    tlb.protect_all();
    assert_eq!(hits(&tlb, 0, 0x30_2000), (true, false));
}

#[test]
fn flushing_one_page_leaves_the_others_of_its_set() {
    let mut tlb = Tlb::new(1);
    fill(&mut tlb, 0, 0x7000, 0);
    tlb.flush_page(0x7000 + (TLB_ENTRIES as u64) * PAGE_SIZE);
    assert!(hits(&tlb, 0, 0x7000).0);
}

#[test]
fn a_large_page_is_flushed_as_a_whole() {
    let mut tlb = Tlb::new(2);
    let large = 0x4000_0000;
    for (bank, offset) in [(0, 0), (0, 0x1000), (1, 0x1f_f000)] {
        fill(&mut tlb, bank, large + offset, 21 << META_SIZE);
    }
    fill(&mut tlb, 0, large + 0x20_2000, 21 << META_SIZE);
    fill(&mut tlb, 0, large + 0x3000, 12 << META_SIZE);
    tlb.flush_page(large + 0x8_0123);
    assert!(!hits(&tlb, 0, large).0 && !hits(&tlb, 0, large + 0x1000).0 && !hits(&tlb, 1, large + 0x1f_f000).0);
    assert!(hits(&tlb, 0, large + 0x20_2000).0, "the next large page");
    assert!(hits(&tlb, 0, large + 0x3000).0, "a small page at such an address, from before the tables changed");
}

#[test]
fn the_private_mode_has_a_bank_for_each_space_and_others_keep_global_pages_only() {
    let mut tlb = Tlb::with_spaces(2, 1, 3);
    fill(&mut tlb, 0, 0x1000, META_GLOBAL);
    fill(&mut tlb, 0, 0x2000, 0);
    fill(&mut tlb, 1, 0x3000, 0);
    let first = tlb.select(1);
    tlb.switch_space(2);
    assert_ne!(tlb.select(1).0, first.0);
    assert_eq!([(0, 0x1000), (0, 0x2000), (1, 0x3000)].map(|(m, a)| hits(&tlb, m, a).0), [true, false, false]);
    fill(&mut tlb, 1, 0x4000, 0);
    tlb.switch_space(0);
    assert!(hits(&tlb, 1, 0x3000).0 && !hits(&tlb, 1, 0x4000).0);
    tlb.flush_space();
    tlb.switch_space(2);
    assert!(hits(&tlb, 1, 0x4000).0, "another space's flush");
    tlb.flush_page(0x3000);
    tlb.flush(true);
    assert!(!hits(&tlb, 1, 0x4000).0 && hits(&tlb, 0, 0x1000).0);
}

/// Bytes of a bank, as its mask says.
fn bytes(tlb: &mut Tlb) -> usize {
    tlb.select(0).1 as usize + size_of::<TlbEntry>()
}

#[test]
fn a_bank_grows_when_it_is_filled_again_and_again_and_keeps_what_it_has() {
    let smallest = TLB_ENTRIES * size_of::<TlbEntry>();
    let mut tlb = Tlb::new(2);
    let pages = 3 * TLB_ENTRIES as u64;
    let meta = |page: u64| if page.is_multiple_of(3) { META_GLOBAL } else { 0 };
    for page in 0..pages {
        tlb.fill(0, page * PAGE_SIZE, true, page.is_multiple_of(2), page, (page * PAGE_SIZE) | meta(page));
    }
    let last = (pages - TLB_ENTRIES as u64..pages).map(|page| *tlb.entry(0, page * PAGE_SIZE)).collect::<Vec<_>>();
    assert!(bytes(&mut tlb) > smallest);
    for (page, before) in (pages - TLB_ENTRIES as u64..pages).zip(last) {
        assert_eq!(hits(&tlb, 0, page * PAGE_SIZE), (true, page.is_multiple_of(2)), "{page}");
        let entry = tlb.entry(0, page * PAGE_SIZE);
        assert_eq!((entry.addend, entry.meta), (before.addend, before.meta));
    }
    assert!((0..pages - TLB_ENTRIES as u64).all(|page| hits(&tlb, 0, page * PAGE_SIZE) == (false, false)));
    assert_eq!(tlb.select(1).1 as usize + size_of::<TlbEntry>(), smallest, "another bank");

    (0..pages).for_each(|page| fill(&mut tlb, 0, page * PAGE_SIZE, meta(page)));
    assert!((0..pages).all(|page| hits(&tlb, 0, page * PAGE_SIZE).0), "room for all");
    tlb.flush(true);
    assert!((0..pages).all(|page| hits(&tlb, 0, page * PAGE_SIZE).0 == page.is_multiple_of(3)));
    tlb.flush_page(3 * PAGE_SIZE);
    assert!(!hits(&tlb, 0, 3 * PAGE_SIZE).0 && hits(&tlb, 0, 6 * PAGE_SIZE).0);
}

#[test]
fn a_bank_is_bounded_and_shrinks_when_flushes_find_little() {
    let mut tlb = Tlb::new(1);
    for page in 0..1 << 20 {
        fill(&mut tlb, 0, page * PAGE_SIZE, 0);
        tlb.select(0);
    }
    assert_eq!(bytes(&mut tlb), TLB_MOST_ENTRIES * size_of::<TlbEntry>());
    for _ in 0..100 {
        fill(&mut tlb, 0, 0x1234_5000, 0);
        assert_eq!(hits(&tlb, 0, 0x1234_5000), (true, true));
        tlb.flush(true);
        tlb.select(0);
        assert_eq!(hits(&tlb, 0, 0x1234_5000), (false, false));
    }
    assert_eq!(bytes(&mut tlb), TLB_ENTRIES * size_of::<TlbEntry>());
}
