//! Display memory that stores reach directly, and the record of what they wrote.

use std::sync::Arc;

use mimus_softmmu::bulk::Elements;
use mimus_softmmu::{
    Access, AccessFlags, Backing, CodePolicy, CodeSink, DirtyPages, Dma, Dropped, Mapping, Marked, MmioBus, Mmu,
    PAGE_SIZE, PageTables, Ram, Route, Stored, Vram, Walker,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Where display memory is found, and where the guest sees it.
const HOME: u64 = 0xe000_0000;
const WINDOW: u64 = 0xfd00_0000;
const PAGES: u64 = 16;

/// Virtual addresses are guest-physical ones, whatever their bits from 40 on.
struct Flat;

const ALIAS: u64 = 1 << 40;

impl Walker for Flat {
    type Fault = ();

    fn walk(&self, _: &PageTables<'_>, addr: u64, _: Access, _: usize) -> Result<Mapping, ()> {
        let gpa = addr & (ALIAS - 1) & !(PAGE_SIZE - 1);
        Ok(Mapping { gpa, writable: true, global: true, shift: 12 })
    }

    fn watched() {}
}

#[derive(Default)]
struct Bus(usize);

impl MmioBus for Bus {
    fn mmio_read(&mut self, _: u64, _: u8) -> u64 {
        self.0 += 1;
        0
    }

    fn mmio_write(&mut self, _: u64, _: u8, _: u64) {
        self.0 += 1;
    }
}

struct NoCode;

impl CodeSink for NoCode {
    fn code_written(&self, _: u64, _: u64) -> Dropped {
        Dropped::NONE
    }
}

struct Setup {
    mmu: Mmu,
    bus: Bus,
    vram: Arc<Vram>,
}

impl Setup {
    fn new() -> Setup {
        let vram = Arc::new(Vram::new((PAGES * PAGE_SIZE) as usize).unwrap());
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 16 * PAGE_SIZE as usize)]).unwrap();
        let ram = Arc::new(Ram::with_display(memory, Some((HOME, vram.clone()))));
        let mut setup = Setup { mmu: Mmu::new(ram, 1, 0, Arc::new(NoCode)), bus: Bus::default(), vram };
        setup.place(WINDOW, Route::At(HOME));
        setup
    }

    fn place(&mut self, gpa: u64, place: Route) {
        self.mmu.set_backings(&[(gpa, PAGES * PAGE_SIZE, Backing { read: place, write: place })]);
        self.mmu.flush(false, 0);
    }

    fn read(&mut self, addr: u64, size: u8) -> u64 {
        self.mmu.read(&Flat, &mut self.bus, 0, addr, size, AccessFlags::empty()).unwrap()
    }

    fn write(&mut self, addr: u64, size: u8, value: u64) {
        assert_eq!(
            self.mmu.write(&Flat, &mut self.bus, 0, (addr, size, value), AccessFlags::empty(), CodePolicy::Write),
            Ok(Stored::Done)
        );
    }

    /// Whether a store to the page of `addr` would go to memory at once.
    fn is_open(&self, addr: u64) -> bool {
        self.mmu.tlb.entry(0, addr).write == addr & !(PAGE_SIZE - 1)
    }

    /// Numbers of the pages written since the last call.
    fn taken(&mut self) -> Vec<u64> {
        let mut pages = DirtyPages::default();
        self.mmu.record_stores();
        self.vram.take_dirty(&mut pages);
        (0..PAGES).filter(|page| pages.touches(page * PAGE_SIZE, 1)).collect()
    }
}

#[test]
fn the_first_store_to_a_page_is_recorded_and_the_others_are_direct() {
    let mut s = Setup::new();
    assert_eq!(s.read(WINDOW + 0x3000, 4), 0);
    assert!(!s.is_open(WINDOW + 0x3000) && s.taken().is_empty(), "reading records nothing");
    s.write(WINDOW + 0x3004, 4, 0x1234_5678);
    assert_eq!((s.vram.read(0x3004, 4), s.is_open(WINDOW + 0x3000)), (0x1234_5678, true));
    let refills = s.mmu.stats.refills;
    s.write(WINDOW + 0x3ff8, 8, u64::MAX);
    assert_eq!((s.vram.read(0x3ff8, 8), s.mmu.stats.refills), (u64::MAX, refills));
    assert_eq!(s.taken(), [3]);
    assert!(!s.is_open(WINDOW + 0x3000));
    let refills = s.mmu.stats.refills;
    assert_eq!((s.read(WINDOW + 0x3004, 4), s.mmu.stats.refills), (0x1234_5678, refills), "reads stay direct");
    s.write(WINDOW + 0x3ffe, 4, 0xaabb_ccdd);
    assert_eq!((s.taken(), s.taken()), (vec![3, 4], vec![]));
    assert_eq!(s.bus.0, 0);
}

#[test]
fn every_alias_and_every_kind_of_store_is_recorded() {
    let mut s = Setup::new();
    s.write(WINDOW + 0x1000, 1, 1);
    s.write(ALIAS + WINDOW + 0x1000, 1, 1);
    assert_eq!(s.taken(), [1]);
    for addr in [WINDOW + 0x1000, ALIAS + WINDOW + 0x1000] {
        assert!(!s.is_open(addr));
        s.write(addr, 1, 2);
        assert_eq!(s.taken(), [1], "{addr:#x}");
    }
    let nine = Elements { size: 4, count: 9, down: false };
    assert_eq!(s.mmu.fill(&Flat, 0, WINDOW + 0x2000, nine, 7), Ok(9));
    assert_eq!(s.mmu.copy(&Flat, 0, (WINDOW + 0x4000, WINDOW + 0x2000), nine), Ok(9));
    assert_eq!((s.vram.read(0x4020, 8), s.taken()), (7, vec![2, 4]));
    s.mmu.phys_write(&mut s.bus, WINDOW + 0x5000, 4, 1);
    s.mmu.ram.write_u16(WINDOW + 0x6fff, 0x0102).unwrap();
    assert_eq!(s.mmu.ram.cas_u32(WINDOW + 0x8000, 0, 9), Some(true));
    assert_eq!(s.taken(), [5, 6, 7, 8]);
    let dma = Dma::new(s.mmu.ram.clone(), Arc::new(NoCode));
    dma.write_slice(&[3; 0x2100], GuestAddress(WINDOW + 0x9ff0)).unwrap();
    assert_eq!((s.vram.read(0xc000, 2), s.taken()), (0x0303, vec![9, 10, 11, 12]));
    assert!(dma.write_slice(&[3; 0x20], GuestAddress(WINDOW + PAGES * PAGE_SIZE - 0x10)).is_err());
    assert!(dma.write_slice(&[3; 0x20], GuestAddress(HOME)).is_err());
}

#[test]
fn memory_that_moves_is_where_it_was_put_and_nowhere_else() {
    let mut s = Setup::new();
    s.write(WINDOW, 4, 1);
    s.place(WINDOW, Route::Device);
    s.place(0x8000_0000, Route::At(HOME));
    s.write(WINDOW, 4, 2);
    assert_eq!((s.read(HOME, 4), s.bus.0, s.vram.read(0, 4)), (0, 2, 1));
    s.write(0x8000_0000 + 4, 4, 3);
    assert_eq!((s.read(0x8000_0000, 8), s.bus.0), (3 << 32 | 1, 2));
    assert_eq!(s.taken(), [0]);
    s.place(0x8000_0000, Route::Device);
    s.place(HOME, Route::At(HOME));
    s.write(HOME + 0x1000, 4, 4);
    assert_eq!((s.vram.read(0x1000, 4), s.bus.0, s.taken()), (4, 2, vec![1]));
    s.write(HOME + PAGES * PAGE_SIZE - 1, 2, 0xffff);
    assert_eq!((s.vram.read(PAGES * PAGE_SIZE - 1, 1), s.bus.0), (0xff, 3), "the rest is beyond its end");
}

#[test]
fn code_in_display_memory_is_not_kept() {
    let s = Setup::new();
    assert!(s.mmu.ram.is_ram(WINDOW) && !s.mmu.ram.keeps_code(WINDOW) && s.mmu.ram.keeps_code(0));
    assert_eq!(s.mmu.ram.mark_code(WINDOW, 1), Marked::Known);
    assert!(!s.mmu.ram.is_watched(WINDOW));
}

#[test]
fn more_entries_than_the_list_has_are_all_closed() {
    let mut s = Setup::new();
    for alias in 0..0x2000 {
        s.write((alias << 41) + WINDOW + 0x5000, 1, 5);
    }
    assert!(s.is_open((0x1fff << 41) + WINDOW + 0x5000));
    assert_eq!(s.taken(), [5]);
    assert!((0..0x2000).all(|alias| !s.is_open((alias << 41) + WINDOW + 0x5000)));
    assert!(s.taken().is_empty());
}
