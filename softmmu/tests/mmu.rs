//! The soft MMU with a toy page table: routing, page crossing and code watches.

use std::collections::BTreeMap;
use std::sync::{Arc, Barrier, Mutex};

use mimus_softmmu::bulk::{Compared, Comparison, Elements};
use mimus_softmmu::ram::GRANULE_SHIFT;
use mimus_softmmu::{
    Access, AccessFlags, Backing, CodePolicy, CodeSink, Dropped, Mapping, Marked, MmioBus, Mmu, PAGE_SIZE, PageTables,
    Ram, Route, Stored, Walker, Watch, WatchHit, WatchOwner,
};
use vm_memory::{GuestAddress, GuestMemoryMmap};

const RAM: u64 = 64 * PAGE_SIZE;
/// Where nothing but the device is.
const DEVICE: u64 = 0x1000_0000;

/// Page to mapping.
#[derive(Default)]
struct Pages(BTreeMap<u64, Mapping>);

impl Walker for Pages {
    type Fault = u64;

    fn walk(&self, _: &PageTables<'_>, addr: u64, access: Access, _: usize) -> Result<Mapping, u64> {
        let mapping = self.0.get(&(addr & !(PAGE_SIZE - 1))).copied().ok_or(addr)?;
        if access == Access::Write && !mapping.writable { Err(addr) } else { Ok(mapping) }
    }

    fn watched() -> u64 {
        WATCHED
    }
}

#[derive(Default)]
struct Device(Vec<(u64, u8, Option<u64>)>);

impl MmioBus for Device {
    fn mmio_read(&mut self, gpa: u64, size: u8) -> u64 {
        self.0.push((gpa, size, None));
        0xd0 + gpa % 16
    }
    fn mmio_write(&mut self, gpa: u64, size: u8, value: u64) {
        self.0.push((gpa, size, Some(value)));
    }
}

/// Guest PC of an instruction that all code is translated with.
const RUNNING: u64 = 0x77;

/// The fault of an access that a watchpoint refuses.
const WATCHED: u64 = u64::MAX;

#[derive(Default)]
struct Sink(Mutex<Vec<(u64, u64)>>);

impl CodeSink for Sink {
    fn code_written(&self, gpa: u64, len: u64) -> Dropped {
        self.0.lock().unwrap().push((gpa, len));
        let mut dropped = Dropped::NONE;
        dropped.push(Some(&[gpa]));
        dropped
    }

    fn translates(&self, _: u64, _: u64, pc: u64) -> bool {
        pc == RUNNING
    }
}

struct Setup {
    mmu: Mmu,
    pages: Pages,
    device: Device,
    sink: Arc<Sink>,
}

impl Setup {
    /// Virtual pages 0, 1, 2... from `0x10_0000` on are the physical ones given.
    fn new(gpas: &[u64]) -> Setup {
        let ram = Ram::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM as usize)]).unwrap());
        let sink = Arc::new(Sink::default());
        let map = |(i, &gpa): (usize, &u64)| {
            (VIRT + i as u64 * PAGE_SIZE, Mapping { gpa, writable: true, global: false, shift: 12 })
        };
        Setup {
            mmu: Mmu::new(Arc::new(ram), 1, 0, sink.clone()),
            pages: Pages(gpas.iter().enumerate().map(map).collect()),
            device: Device::default(),
            sink,
        }
    }

    fn read(&mut self, addr: u64, size: u8) -> Result<u64, u64> {
        self.mmu.read(&self.pages, &mut self.device, 0, addr, size, AccessFlags::empty())
    }

    fn write(&mut self, addr: u64, size: u8, value: u64) -> Result<Stored, u64> {
        self.mmu.write(&self.pages, &mut self.device, 0, (addr, size, value), AccessFlags::empty(), CodePolicy::Write)
    }

    fn told(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.sink.0.lock().unwrap())
    }
}

const VIRT: u64 = 0x10_0000;

/// `count` elements of `size` bytes, upwards.
const fn up(size: u8, count: u64) -> Elements {
    Elements { size, count, down: false }
}

#[test]
fn unaligned_accesses_of_every_size_within_and_across_pages() {
    let mut s = Setup::new(&[0x5000, 0x3000]);
    for size in [1u8, 2, 4, 8] {
        let mask = u64::MAX >> (64 - 8 * u32::from(size));
        for offset in [0, 1, 7, 61, PAGE_SIZE - 9, PAGE_SIZE - 8, PAGE_SIZE - 7, PAGE_SIZE - 3, PAGE_SIZE - 1] {
            let value = 0x1122_3344_5566_7788u64.wrapping_mul(offset + 3) & mask;
            assert_eq!(s.write(VIRT + offset, size, value), Ok(Stored::Done));
            assert_eq!(s.read(VIRT + offset, size), Ok(value), "{size} bytes at {offset}");
            for i in 0..u64::from(size) {
                let at = offset + i;
                let gpa = if at < PAGE_SIZE { 0x5000 + at } else { 0x3000 + at - PAGE_SIZE };
                assert_eq!(s.mmu.ram.read_u8(gpa), Some((value >> (8 * i)) as u8));
            }
        }
    }
    assert!(s.device.0.is_empty());
}

#[test]
fn a_hit_does_not_walk_and_values_have_no_bits_beyond_their_size() {
    let mut s = Setup::new(&[0x5000]);
    s.write(VIRT, 8, u64::MAX).unwrap();
    let refills = s.mmu.stats.refills;
    for size in [1u8, 2, 4, 8] {
        assert_eq!(s.read(VIRT, size), Ok(u64::MAX >> (64 - 8 * u32::from(size))));
    }
    assert_eq!(s.write(VIRT + 8, 1, 0xabcd), Ok(Stored::Done));
    assert_eq!(s.read(VIRT + 8, 2), Ok(0xcd));
    assert_eq!(s.mmu.stats.refills, refills);
}

#[test]
fn a_fault_in_the_second_page_changes_nothing_in_the_first() {
    let mut s = Setup::new(&[0x5000]);
    let end = VIRT + PAGE_SIZE;
    assert_eq!(s.write(end - 2, 4, u64::MAX), Err(end), "the fault is at the second page");
    assert_eq!(s.mmu.ram.read_u16(0x5000 + PAGE_SIZE - 2), Some(0));
    assert_eq!(s.read(end - 2, 4), Err(end));
    assert_eq!(s.mmu.probe_write(&s.pages, 0, end - 2, 4), Err(end));
    assert_eq!(s.mmu.probe_write(&s.pages, 0, end - 4, 4), Ok(()));
}

#[test]
fn addresses_wrap_from_the_last_page_to_the_first() {
    let mut s = Setup::new(&[]);
    let mapping = |gpa| Mapping { gpa, writable: true, global: false, shift: 12 };
    s.pages.0.extend([(u64::MAX - PAGE_SIZE + 1, mapping(0x5000)), (0, mapping(0x7000))]);
    assert_eq!(s.write(u64::MAX, 2, 0xbeef), Ok(Stored::Done));
    assert_eq!((s.mmu.ram.read_u8(0x5fff), s.mmu.ram.read_u8(0x7000)), (Some(0xef), Some(0xbe)));
    assert_eq!(s.read(u64::MAX, 2), Ok(0xbeef));
}

#[test]
fn device_pages_are_never_in_the_tlb() {
    let mut s = Setup::new(&[DEVICE]);
    for _ in 0..2 {
        assert_eq!(s.read(VIRT + 4, 4), Ok(0xd4));
        assert_eq!(s.write(VIRT + 8, 2, 0x1234), Ok(Stored::Done));
    }
    let expected = [(DEVICE + 4, 4, None), (DEVICE + 8, 2, Some(0x1234))];
    assert_eq!(s.device.0, [expected, expected].concat());
    assert_eq!((s.mmu.stats.mmio, s.mmu.stats.hits), (4, 0));
}

#[test]
fn an_access_half_in_ram_and_half_in_a_device_is_split() {
    let mut s = Setup::new(&[0x5000, DEVICE]);
    let end = VIRT + PAGE_SIZE;
    assert_eq!(s.write(end - 2, 4, 0x4433_2211), Ok(Stored::Done));
    assert_eq!(s.mmu.ram.read_u16(0x5ffe), Some(0x2211));
    let bytes: Vec<u64> =
        s.device.0.drain(..).filter_map(|(gpa, _, value)| (gpa >= DEVICE).then_some(value?)).collect();
    assert_eq!(bytes.iter().map(|b| b & 0xff).collect::<Vec<_>>(), [0x33, 0x44]);
    assert_eq!(s.read(end - 2, 4), Ok(0xd1d0_2211));
}

#[test]
fn stores_are_seen_by_the_granule_they_hit() {
    let mut s = Setup::new(&[0x5000, 0x6000]);
    let granule = 1u64 << GRANULE_SHIFT;
    assert_eq!(s.mmu.ram.mark_code(0x5000, 1 << 2), Marked::Fresh);
    assert_eq!(s.mmu.ram.mark_code(0x6000, 1), Marked::Fresh);
    // (offset, size, whether it is a hit, what the sink is told)
    /// Address, size, outcome, what the sink is told.
    type Row<'a> = (u64, u8, Stored, &'a [(u64, u64)]);
    let rows: &[Row<'_>] = &[
        (granule, 8, Stored::Done, &[]),
        (2 * granule - 4, 4, Stored::Done, &[]),
        (2 * granule - 4, 8, Stored::Code, &[(0x5000 + 2 * granule - 4, 8)]),
        (2 * granule, 1, Stored::Code, &[(0x5000 + 2 * granule, 1)]),
        (3 * granule - 1, 2, Stored::Code, &[(0x5000 + 3 * granule - 1, 2)]),
        (3 * granule, 8, Stored::Done, &[]),
        (PAGE_SIZE - 2, 2, Stored::Done, &[]),
        (PAGE_SIZE - 2, 4, Stored::Code, &[(0x6000, 1), (0x6001, 1)]),
    ];
    for &(offset, size, expected, told) in rows {
        s.mmu.ram.write_bytes(0x5000, &[0; 0x2000]);
        assert_eq!(s.write(VIRT + offset, size, u64::MAX), Ok(expected), "{size} bytes at {offset}");
        assert_eq!(s.told(), told, "{size} bytes at {offset}");
    }
}

#[test]
fn a_refused_store_leaves_memory_and_sink_alone() {
    let mut s = Setup::new(&[0x5000, 0x6000]);
    s.mmu.ram.mark_code(0x6000, 1);
    let mut store = |addr| {
        s.mmu.write(&s.pages, &mut s.device, 0, (addr, 4, u64::MAX), AccessFlags::empty(), CodePolicy::Refuse(RUNNING))
    };
    assert_eq!(store(VIRT + PAGE_SIZE), Ok(Stored::Refused));
    assert_eq!(store(VIRT + PAGE_SIZE - 2), Ok(Stored::Refused));
    assert_eq!(store(VIRT + PAGE_SIZE + 64), Ok(Stored::Done), "data beside code");
    assert_eq!((s.mmu.ram.read_u32(0x6000), s.mmu.ram.read_u16(0x5ffe)), (Some(0), Some(0)));
    assert!(s.told().is_empty());
}

#[test]
fn only_a_store_to_the_code_that_runs_is_refused() {
    let mut s = Setup::new(&[0x5000]);
    s.mmu.ram.mark_code(0x5000, 1);
    let stored = s.mmu.write(
        &s.pages,
        &mut s.device,
        0,
        (VIRT + 8, 4, 7),
        AccessFlags::empty(),
        CodePolicy::Refuse(RUNNING + 1),
    );
    assert_eq!((stored, s.mmu.ram.read_u32(0x5008)), (Ok(Stored::Code), Some(7)));
    assert_eq!(s.told(), [(0x5008, 1)], "the others had been 0");
    assert_eq!(s.mmu.take_dropped().pcs(), Some(&[0x5008][..]));
    assert_eq!(s.mmu.take_dropped(), Dropped::NONE);
}

#[test]
fn the_sink_is_told_of_bytes_that_change() {
    let mut s = Setup::new(&[0x5000]);
    s.mmu.ram.mark_code(0x5000, u64::MAX);
    s.mmu.ram.write_u64(0x5008, 0x8877_6655_4433_2211);
    // Address, size, value, what the sink is told.
    let rows = [
        (8, 8, 0x8877_6655_4433_2211, None),
        (8, 8, 0x8877_0055_0033_2211, Some((0x500b, 3))),
        (8, 1, 0x12, Some((0x5008, 1))),
        (10, 2, 0x0133, Some((0x500b, 1))),
        (12, 4, 0x8877_0055, None),
        // Where the host cannot tell what was there, another thread may have written meanwhile.
        (9, 2, 0x3322, if cfg!(target_arch = "x86_64") { None } else { Some((0x5009, 2)) }),
    ];
    for (offset, size, value, told) in rows {
        let stored = if told.is_some() { Stored::Code } else { Stored::Done };
        assert_eq!(s.write(VIRT + offset, size, value), Ok(stored), "{size} bytes at {offset}");
        assert_eq!(s.told(), told.into_iter().collect::<Vec<_>>(), "{size} bytes at {offset}");
        assert_eq!(s.read(VIRT + offset, size), Ok(value));
    }
}

#[test]
fn a_page_with_stores_beside_code_is_watched_for_a_while_after_the_code() {
    let mut s = Setup::new(&[0x5000]);
    assert_eq!(s.mmu.ram.mark_code(0x5000, 1), Marked::Fresh);
    assert_eq!(s.mmu.ram.mark_code(0x5000, 2), Marked::Known, "stores go to the slow path already");
    s.write(VIRT + 0x800, 1, 1).unwrap();
    assert!(!s.mmu.ram.is_mixed(0x5000), "a store that no watch has made slow says nothing");
    s.write(VIRT + 0x800, 1, 1).unwrap();
    assert!(s.mmu.ram.is_mixed(0x5000));
    assert_eq!(s.mmu.ram.mark_code(0x5000, 4), Marked::Mixed);
    assert_eq!(s.mmu.ram.mark_code(0x5000, 4), Marked::Known);
    s.mmu.ram.set_code(0x5000, 0);
    assert!(s.mmu.ram.is_watched(0x5000));
    assert_eq!(s.mmu.ram.mark_code(0x5000, 1), Marked::Mixed, "there is no tag for stores that is to go");
    s.mmu.ram.set_code(0x5000, 0);
    let refills = s.mmu.stats.refills;
    let mut stores = 0;
    while s.mmu.ram.is_watched(0x5000) {
        s.write(VIRT, 1, 1).unwrap();
        stores += 1;
    }
    assert!((10..1000).contains(&stores), "{stores}");
    s.write(VIRT, 1, 1).unwrap();
    assert_eq!(s.mmu.stats.refills, refills + 1, "and then has a tag");
    assert_eq!(s.mmu.ram.mark_code(0x5000, 1), Marked::Fresh);
}

#[test]
fn pages_become_and_cease_to_be_code_pages() {
    let mut s = Setup::new(&[0x5000]);
    s.write(VIRT, 1, 1).unwrap();
    let refills = s.mmu.stats.refills;
    // Filled before it was code: whoever marks it must take the store tag away.
    assert_eq!(s.mmu.ram.mark_code(0x5000, 1), Marked::Fresh);
    assert_eq!(s.mmu.ram.mark_code(0x5000, 2), Marked::Known, "code already");
    s.mmu.tlb.protect_page(0x5000);
    let hits = s.mmu.stats.hits;
    assert_eq!(s.mmu.ram.code_granules(0x5000), 3);
    s.mmu.ram.set_code(0x5000, 0);
    assert_eq!(s.write(VIRT, 1, 1), Ok(Stored::Done));
    assert_eq!(s.mmu.stats.hits, hits, "watched");
    assert_eq!(s.write(VIRT, 1, 1), Ok(Stored::Done));
    assert_eq!((s.mmu.stats.refills, s.mmu.stats.hits), (refills + 1, hits + 1), "and no longer");
    assert!(s.told().is_empty());
}

#[test]
fn physical_writes_tell_the_sink_too() {
    let mut s = Setup::new(&[]);
    s.mmu.ram.mark_code(0x5000, u64::MAX);
    s.mmu.phys_write(&mut s.device, 0x5010, 4, 0x0101_0101);
    assert_eq!(s.told(), [(0x5010, 4)]);
    assert_eq!(s.mmu.phys_read(&mut s.device, 0x5010, 4), 0x0101_0101);
    s.mmu.phys_write(&mut s.device, RAM, 4, 7);
    assert_eq!(s.device.0, [(RAM, 4, Some(7))], "beyond RAM is a device");
}

#[test]
fn fetches_fill_no_data_entry() {
    let mut s = Setup::new(&[0x5000]);
    assert_eq!(s.mmu.walk(&s.pages, 0, VIRT + 5, Access::Fetch).map(|m| m.gpa), Ok(0x5000));
    let refills = s.mmu.stats.refills;
    s.read(VIRT, 1).unwrap();
    assert_eq!(s.mmu.stats.refills, refills + 1);
}

#[test]
fn address_spaces_keep_their_entries_and_nothing_of_each_other() {
    let mut s = Setup::new(&[0x5000]);
    s.mmu.enter_space(1, true);
    s.write(VIRT, 1, 0x11).unwrap();
    let one = s.mmu.space_generation();
    // The same address is another page in the second space.
    s.mmu.enter_space(2, true);
    s.pages.0.get_mut(&VIRT).unwrap().gpa = 0x6000;
    s.write(VIRT, 1, 0x22).unwrap();
    assert_ne!(s.mmu.space_generation(), one);
    let refills = s.mmu.stats.refills;
    s.mmu.enter_space(1, true);
    assert_eq!((s.read(VIRT, 1), s.mmu.space_generation()), (Ok(0x11), one));
    s.mmu.enter_space(2, true);
    assert_eq!(s.read(VIRT, 1), Ok(0x22));
    assert_eq!(s.mmu.stats.refills, refills, "both were kept");
    s.mmu.flush_space(1);
    assert_eq!(s.read(VIRT, 1), Ok(0x22), "the other one's flush");
    s.mmu.enter_space(1, true);
    assert_eq!(s.read(VIRT, 1), Ok(0x22), "walked again");
    s.mmu.enter_space(2, false);
    s.read(VIRT, 1).unwrap();
    assert_eq!(s.mmu.stats.refills, refills + 2);
}

#[test]
fn a_rom_is_read_directly_and_its_writes_go_to_the_bus() {
    let mut s = Setup::new(&[0x5000]);
    s.mmu.ram.write_u32(0x5000, 0x1234_5678).unwrap();
    s.write(VIRT + 8, 1, 1).unwrap();
    assert!(s.mmu.set_backings(&[(0x5000, PAGE_SIZE, Backing::ROM)]));
    assert!(!s.mmu.set_backings(&[(0x5000, PAGE_SIZE, Backing::ROM)]), "it is so already");
    s.mmu.flush(false, 0);
    assert_eq!(s.read(VIRT, 4), Ok(0x1234_5678));
    let refills = s.mmu.stats.refills;
    assert_eq!(s.read(VIRT, 4), Ok(0x1234_5678));
    assert_eq!(s.mmu.stats.refills, refills, "the TLB has it");
    // Code in a ROM is no reason to refuse a store to it, which changes nothing.
    s.mmu.ram.mark_code(0x5000, 1);
    let store = |s: &mut Setup| {
        s.mmu.write(
            &s.pages,
            &mut s.device,
            0,
            (VIRT, 4, 0xffff_ffff),
            AccessFlags::empty(),
            CodePolicy::Refuse(RUNNING),
        )
    };
    assert_eq!((store(&mut s), store(&mut s)), (Ok(Stored::Done), Ok(Stored::Done)));
    assert_eq!(s.device.0, [(0x5000, 4, Some(0xffff_ffff)); 2]);
    assert_eq!((s.read(VIRT, 4), s.told()), (Ok(0x1234_5678), vec![]));
    assert_eq!(s.mmu.ram.write_u8(0x5000, 9), None);
    assert_eq!(s.mmu.ram.cas_u32(0x5000, 0x1234_5678, 9), None);
    assert_eq!((s.mmu.fill(&s.pages, 0, VIRT, up(1, 16), 0), s.read(VIRT, 2)), (Ok(0), Ok(0x5678)));
}

#[test]
fn reads_of_one_memory_and_writes_to_another() {
    let mut s = Setup::new(&[0x5000, 0x6000]);
    s.mmu.ram.write_u32(0x9000, 0x1111_1111).unwrap();
    s.mmu.ram.mark_code(0x5000, 1);
    let shadow = Backing { read: Route::At(0x9000), write: Route::Own };
    assert!(s.mmu.set_backings(&[(0x5000, PAGE_SIZE, shadow)]));
    assert_eq!(s.told(), [(0x5000, PAGE_SIZE)], "what was translated there is dropped");
    assert!(s.mmu.take_dropped().any());
    assert_eq!(s.read(VIRT, 4), Ok(0x1111_1111));
    s.write(VIRT, 4, 0x2222_2222).unwrap();
    assert_eq!(s.read(VIRT, 4), Ok(0x1111_1111));
    assert_eq!(s.mmu.ram.read_u32(0x5000), Some(0x1111_1111), "as the processor sees it");
    let both = Backing { read: Route::At(0x9000), write: Route::At(0x9000) };
    s.mmu.set_backings(&[(0x5000, PAGE_SIZE, Backing::RAM), (0x6000, PAGE_SIZE, both)]);
    s.mmu.flush(false, 0);
    assert_eq!(s.read(VIRT, 4), Ok(0x2222_2222), "it was written to the RAM");
    s.write(VIRT + PAGE_SIZE, 4, 0x3333_3333).unwrap();
    assert_eq!((s.mmu.ram.read_u32(0x9000), s.read(VIRT + PAGE_SIZE, 4)), (Some(0x3333_3333), Ok(0x3333_3333)));
    s.mmu.ram.write_u32(0xa000, 0x4444_4444).unwrap();
    s.mmu.set_backings(&[(0x5000, 2 * PAGE_SIZE, both)]);
    s.mmu.flush(false, 0);
    assert_eq!([VIRT, VIRT + PAGE_SIZE].map(|at| s.read(at, 4)), [Ok(0x3333_3333), Ok(0x4444_4444)], "page by page");
    s.mmu.set_backings(&[(0x5000, 2 * PAGE_SIZE, Backing::DEVICE)]);
    s.mmu.flush(false, 0);
    s.write(VIRT + PAGE_SIZE, 1, 7).unwrap();
    assert_eq!(s.read(VIRT, 1), Ok(0xd0));
    assert_eq!(s.device.0, [(0x6000, 1, Some(7)), (0x5000, 1, None)]);
}

#[test]
fn watched_ranges_are_noted_or_refused_and_the_rest_of_their_page_is_not() {
    let mut s = Setup::new(&[0x5000, 0x3000]);
    s.write(VIRT, 8, 7).unwrap();
    let watch = Watch { addr: VIRT + 16, len: 4, read: false, write: true, owner: WatchOwner::Debugger, tag: 3 };
    s.mmu.set_watches(WatchOwner::Debugger, vec![watch]);
    // Singly: done and noted.
    assert_eq!(s.write(VIRT + 12, 8, u64::MAX), Ok(Stored::Done));
    assert_eq!(s.read(VIRT + 12, 8), Ok(u64::MAX));
    assert_eq!(s.mmu.watches.take_hits(WatchOwner::Debugger), [WatchHit { watch, write: true }]);
    // Among others: not done.
    s.mmu.watches.refuse = true;
    assert_eq!(s.write(VIRT + 16, 1, 0), Err(WATCHED));
    assert_eq!(s.mmu.read(&s.pages, &mut s.device, 0, VIRT + 16, 4, AccessFlags::FOR_WRITE), Err(WATCHED));
    assert_eq!(s.write(VIRT + 20, 1, 0), Ok(Stored::Done));
    assert_eq!(s.write(VIRT + PAGE_SIZE, 1, 0), Ok(Stored::Done));
    assert!(s.mmu.tlb.entry(0, VIRT).read != VIRT && s.mmu.tlb.entry(0, VIRT + PAGE_SIZE).read == VIRT + PAGE_SIZE);
    assert_eq!(s.read(VIRT + 16, 4), Ok(u64::from(u32::MAX)));
    assert!(!s.mmu.watches.has_hits());
    // Copies of many bytes are made one by one there.
    assert_eq!(s.mmu.fill(&s.pages, 0, VIRT, up(8, 4), 1), Ok(0));
    assert_eq!(s.mmu.copy(&s.pages, 0, (VIRT + PAGE_SIZE, VIRT), up(8, 4)), Ok(0));
    assert_eq!(s.mmu.take_in(&s.pages, 0, VIRT, up(8, 4), |_| unreachable!()), Ok(0));
    assert_eq!(s.mmu.take_out(&s.pages, 0, VIRT, up(8, 4), &mut [0; 32]), Ok(0));
    assert_eq!(s.mmu.last(&s.pages, 0, VIRT, up(8, 4)), Ok(None));
    for left in [Compared::With(VIRT + PAGE_SIZE), Compared::Value(0)] {
        assert_eq!(s.mmu.compare(&s.pages, 0, (left, VIRT), up(8, 4), true), Ok(None));
    }
    s.mmu.set_watches(WatchOwner::Guest, Vec::new());
    assert!(!s.mmu.watches.is_empty());
    s.mmu.set_watches(WatchOwner::Debugger, Vec::new());
    assert_eq!(s.write(VIRT + 16, 1, 0), Ok(Stored::Done));
    assert_eq!(s.mmu.tlb.entry(0, VIRT).read, VIRT);
}

#[test]
fn elements_are_copied_and_compared_in_either_direction_within_their_pages() {
    let mut s = Setup::new(&[0x5000, 0x3000, 0x5000]);
    let down = |size, count| Elements { size, count, down: true };
    let bytes = |s: &Setup, at: u64| {
        let mut bytes = [0; 8];
        assert!(s.mmu.ram.read_bytes(at, &mut bytes));
        bytes
    };
    for i in 0..8 {
        s.write(VIRT + i, 1, i + 1).unwrap();
    }
    // By way of the page's other address: what was copied is copied again, as element by element.
    assert_eq!(s.mmu.copy(&s.pages, 0, (VIRT + 2, VIRT + 2 * PAGE_SIZE), up(1, 6)), Ok(6));
    assert_eq!(bytes(&s, 0x5000), [1, 2, 1, 2, 1, 2, 1, 2]);
    assert_eq!(s.mmu.copy(&s.pages, 0, (VIRT + 3, VIRT + 2 * PAGE_SIZE + 4), down(2, 2)), Ok(2));
    assert_eq!(bytes(&s, 0x5000), [1, 1, 1, 1, 2, 2, 1, 2]);
    // Up to the page's border, and not over it.
    assert_eq!(s.mmu.fill(&s.pages, 0, VIRT + PAGE_SIZE + 6, down(4, 9), 7), Ok(2));
    assert_eq!(s.mmu.fill(&s.pages, 0, VIRT + PAGE_SIZE - 2, down(4, 9), 7), Ok(0));
    assert_eq!(s.mmu.last(&s.pages, 0, VIRT + PAGE_SIZE + 6, down(4, 9)), Ok(Some((2, 7))));
    assert_eq!(s.mmu.last(&s.pages, 0, VIRT + PAGE_SIZE - 6, up(4, 9)), Ok(Some((1, 0))));
    assert_eq!(s.mmu.last(&s.pages, 0, VIRT + 3 * PAGE_SIZE, up(4, 9)), Err(VIRT + 3 * PAGE_SIZE));
    let found = |done, last| Ok(Some(Comparison { done, last }));
    s.write(VIRT + 0x100, 2, 0x99).unwrap();
    let mut compare = |left, right, elements, equal| s.mmu.compare(&s.pages, 0, (left, right), elements, equal);
    assert_eq!(compare(Compared::Value(0x99), VIRT + 0x80, up(2, 100), false), found(65, (0x99, 0x99)));
    assert_eq!(compare(Compared::Value(0x1_0000), VIRT + 0x80, up(2, 100), true), found(65, (0, 0x99)));
    assert_eq!(compare(Compared::Value(0), VIRT + 0x80, up(2, 64), true), found(64, (0, 0)));
    let other = Compared::With(VIRT + PAGE_SIZE + 0x140);
    assert_eq!(compare(other, VIRT + 0x140, down(2, 100), true), found(33, (0, 0x99)));
}

impl Setup {
    /// Exclusive-ors the operand with `bits`.
    fn flip(&mut self, addr: u64, size: u8, bits: u128) -> Result<(u128, Stored), u64> {
        self.flip_by(addr, size, bits, CodePolicy::Write)
    }

    fn flip_by(&mut self, addr: u64, size: u8, bits: u128, policy: CodePolicy) -> Result<(u128, Stored), u64> {
        self.mmu.update(&self.pages, &mut self.device, 0, (addr, size), policy, |old| Some(old ^ bits))
    }
}

#[test]
fn updates_of_every_size_and_alignment_within_and_across_pages() {
    // Pages that are neighbours on the host, and such that are not.
    for gpas in [[0x5000, 0x6000], [0x5000, 0x3000]] {
        let mut s = Setup::new(&gpas);
        for (i, size) in [1u8, 2, 4, 8, 16].into_iter().enumerate() {
            for offset in [0, 8, 9, 57, PAGE_SIZE - 16, PAGE_SIZE - 15, PAGE_SIZE - 8, PAGE_SIZE - 3, PAGE_SIZE - 1] {
                let mask = u128::MAX >> (128 - 8 * u32::from(size));
                let at = VIRT + offset;
                let byte = |s: &mut Setup, i: u64| s.read(at + i, 1).unwrap();
                let value = |s: &mut Setup| (0..size.into()).fold(0, |v, i| v | u128::from(byte(s, i)) << (8 * i));
                let beside = |s: &mut Setup| [s.read(at - 1, 1).unwrap(), byte(s, size.into())];
                if offset == 0 {
                    s.pages.0.insert(VIRT - PAGE_SIZE, Mapping { gpa: 0x9000, ..s.pages.0[&VIRT] });
                }
                let (old, around) = (value(&mut s), beside(&mut s));
                let bits = 0x1122_3344_5566_7788_99aa_bbcc_ddee_ff01u128.wrapping_mul(i as u128 + 3) & mask;
                assert_eq!(s.flip(at, size, bits), Ok((old, Stored::Done)), "{size} bytes at {offset}");
                assert_eq!((value(&mut s), beside(&mut s)), (old ^ bits, around), "{size} bytes at {offset}");
            }
        }
    }
}

#[test]
fn an_update_tells_the_sink_of_code_that_it_changes_in_either_page() {
    for gpas in [[0x5000, 0x6000], [0x5000, 0x3000]] {
        let mut s = Setup::new(&gpas);
        let next = gpas[1];
        s.mmu.ram.mark_code(next, Ram::granules(next, 64));
        let at = VIRT + PAGE_SIZE - 4;
        assert_eq!(s.flip(at, 8, 0xff), Ok((0, Stored::Done)), "beside it");
        assert_eq!(s.told(), []);
        assert_eq!(s.flip(at, 8, 0xff << 40 | 1), Ok((0xff, Stored::Code)));
        let told = if next == 0x6000 { (next, 2) } else { (next + 1, 1) };
        assert_eq!(s.told(), [told], "from the first byte that changes to the last; or byte by byte");
        let refused = s.flip_by(at, 8, 1 << 40, CodePolicy::Refuse(RUNNING));
        assert_eq!(refused.map(|(_, stored)| stored), Ok(Stored::Refused));
        assert_eq!(s.read(at, 8), Ok(0xff << 40 | 0xfe));
    }
}

#[test]
fn an_update_that_faults_or_is_watched_changes_nothing() {
    let mut s = Setup::new(&[0x5000]);
    assert_eq!(s.flip(VIRT + PAGE_SIZE - 1, 2, 0xffff), Err(VIRT + PAGE_SIZE));
    s.pages.0.insert(VIRT, Mapping { writable: false, ..s.pages.0[&VIRT] });
    s.mmu.flush(false, 0);
    assert_eq!(s.flip(VIRT, 2, 0xffff), Err(VIRT), "an update is a store");
    s.pages.0.insert(VIRT, Mapping { writable: true, ..s.pages.0[&VIRT] });
    let watch = Watch { addr: VIRT, len: 1, read: false, write: true, owner: WatchOwner::Debugger, tag: 0 };
    s.mmu.set_watches(WatchOwner::Debugger, vec![watch]);
    s.mmu.watches.refuse = true;
    assert_eq!(s.flip(VIRT, 2, 0xffff), Err(WATCHED));
    assert_eq!(s.mmu.ram.read_u16(0x5000), Some(0));
    s.mmu.watches.refuse = false;
    assert_eq!(s.flip(VIRT, 2, 0xffff), Ok((0, Stored::Done)));
    assert_eq!(s.mmu.watches.take_hits(WatchOwner::Debugger).len(), 1);
}

#[test]
fn an_update_of_a_device_is_a_read_and_a_write_of_it() {
    let mut s = Setup::new(&[DEVICE, 0x3000]);
    assert_eq!(s.flip(VIRT + 4, 4, 1), Ok((0xd4, Stored::Done)));
    assert_eq!(std::mem::take(&mut s.device.0), [(DEVICE + 4, 4, None), (DEVICE + 4, 4, Some(0xd5))]);
    let keep = s.mmu.update(&s.pages, &mut s.device, 0, (VIRT, 2), CodePolicy::Write, |_| None);
    assert_eq!(keep, Ok((0xd0, Stored::Done)));
    assert_eq!(std::mem::take(&mut s.device.0), [(DEVICE, 2, None)]);
    assert_eq!(s.flip(VIRT + PAGE_SIZE - 1, 2, 0x0101), Ok((0xdf, Stored::Done)), "one byte in each");
    assert_eq!(std::mem::take(&mut s.device.0), [(DEVICE + 0xfff, 1, None), (DEVICE + 0xfff, 1, Some(0xde))]);
    assert_eq!(s.mmu.ram.read_u8(0x3000), Some(1));
}

/// A vCPU that runs beside others adds to operands of which some are in two pages that are not neighbours.
#[test]
fn no_update_of_two_vcpus_is_lost() {
    const ROUNDS: u64 = 60_000;
    let one = Setup::new(&[0x5000, 0x3000]);
    let offsets = [0, 60, PAGE_SIZE - 4];
    let barrier = Barrier::new(2);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let mut s = Setup::new(&[0x5000, 0x3000]);
            s.mmu = Mmu::new(one.mmu.ram.clone(), 1, 0, s.sink.clone());
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                for round in 0..ROUNDS {
                    s.mmu.member().attend();
                    let at = VIRT + offsets[round as usize % offsets.len()];
                    let add = |old: u128| Some(old + 0x1_0000_0001);
                    s.mmu.update(&s.pages, &mut s.device, 0, (at, 8), CodePolicy::Write, add).unwrap();
                }
                s.mmu.member().leave();
            });
        }
    });
    let mut s = one;
    let sum: u64 = offsets.iter().map(|offset| s.read(VIRT + offset, 8).unwrap()).sum();
    assert_eq!(sum, 2 * ROUNDS * 0x1_0000_0001);
}

#[test]
fn page_walks_tell_of_code_in_tables() {
    let s = Setup::new(&[]);
    let (ram, tables) = (&s.mmu.ram, PageTables::new(&s.mmu.ram, &*s.sink));
    ram.write_u64(0x5008, 7).unwrap();
    assert_eq!(tables.replace(0x5008, 8, 6, 9), Some(false));
    assert_eq!(tables.replace(0x5008, 8, 7, 9), Some(true));
    assert_eq!(s.told(), []);
    ram.mark_code(0x5000, Ram::granules(0x5000, 1));
    assert_eq!(tables.replace(0x5008, 4, 9, 10), Some(true));
    assert_eq!((tables.read_u64(0x5008), s.told()), (Some(10), vec![(0x5008, 4)]));
    assert_eq!(PageTables::read_only(ram).replace(0x5008, 4, 10, 11), None);
    assert_eq!(tables.replace(RAM, 8, 0, 1), None);
}
