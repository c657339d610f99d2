//! Devices' accesses to RAM: bounds, and the watches that their writes pass.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use mimus_softmmu::{Backing, CodeSink, Dma, Dropped, PAGE_SIZE, Ram};
use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryMmap, Permissions};

#[derive(Default)]
struct Sink(Mutex<Vec<(u64, u64)>>);

impl CodeSink for Sink {
    fn code_written(&self, gpa: u64, len: u64) -> Dropped {
        self.0.lock().unwrap().push((gpa, len));
        Dropped::UNKNOWN
    }
}

const BASE: u64 = 0x8000_0000;
const PAGES: u64 = 16;

fn setup() -> (Arc<Ram>, Arc<Sink>, Dma) {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(BASE), (PAGES * PAGE_SIZE) as usize)]).unwrap();
    let ram = Arc::new(Ram::new(memory));
    let sink = Arc::new(Sink::default());
    (ram.clone(), sink.clone(), Dma::new(ram, sink))
}

#[test]
fn reads_and_writes_reach_ram_and_nothing_else() {
    let (ram, sink, dma) = setup();
    dma.write_slice(b"hello", GuestAddress(BASE + 0xffe)).unwrap();
    let mut back = [0; 5];
    dma.read_slice(&mut back, GuestAddress(BASE + 0xffe)).unwrap();
    assert_eq!(&back, b"hello");
    assert_eq!(ram.read_u8(BASE + 0x1000), Some(b'l'));
    dma.write_slice(&[], GuestAddress(0)).unwrap();
    let end = BASE + PAGES * PAGE_SIZE;
    for (gpa, len) in [(0, 1), (BASE - 1, 2), (end - 1, 2), (end, 1), (u64::MAX, 1), (u64::MAX - 1, 4)] {
        assert!(dma.write_slice(&vec![0; len], GuestAddress(gpa)).is_err(), "{gpa:#x}");
        assert!(dma.read_slice(&mut vec![0; len], GuestAddress(gpa)).is_err(), "{gpa:#x}");
        assert!(!dma.check_range(GuestAddress(gpa), len, Permissions::Write), "{gpa:#x}");
    }
    assert!(dma.check_range(GuestAddress(end - 2), 2, Permissions::Write));
    assert!(!dma.check_range(GuestAddress(BASE), usize::MAX, Permissions::Read));
    assert!(dma.store(1u32, GuestAddress(BASE + 2), Ordering::Release).is_err(), "unaligned");
    assert!(sink.0.lock().unwrap().is_empty(), "no code anywhere");
}

#[test]
fn a_write_to_code_is_told_by_page() {
    let (ram, sink, dma) = setup();
    // The second and the third page hold code, the latter only in its second granule.
    ram.mark_code(BASE + PAGE_SIZE, Ram::granules(0, PAGE_SIZE));
    ram.mark_code(BASE + 2 * PAGE_SIZE, Ram::granules(64, 1));
    let told = || std::mem::take(&mut *sink.0.lock().unwrap());

    dma.write_slice(&vec![1; 3 * PAGE_SIZE as usize], GuestAddress(BASE + 8)).unwrap();
    assert_eq!(told(), [(BASE + PAGE_SIZE, PAGE_SIZE), (BASE + 2 * PAGE_SIZE, PAGE_SIZE)]);
    dma.write_slice(&[1; 64], GuestAddress(BASE + 2 * PAGE_SIZE)).unwrap();
    assert_eq!(told(), [], "beside the code");
    dma.write_obj(7u16, GuestAddress(BASE + 2 * PAGE_SIZE + 63)).unwrap();
    assert_eq!(told(), [(BASE + 2 * PAGE_SIZE + 63, 2)]);
    dma.store(7u16, GuestAddress(BASE + PAGE_SIZE), Ordering::Release).unwrap();
    assert_eq!(told(), [(BASE + PAGE_SIZE, 2)]);
    dma.read_volatile_from(GuestAddress(BASE + PAGE_SIZE), &mut &b"abc"[..], 3).unwrap();
    assert_eq!(told().len(), 1, "a file's bytes");
    dma.read_slice(&mut [0; 8], GuestAddress(BASE + PAGE_SIZE)).unwrap();
    assert_eq!(told(), [], "reading changes nothing");
}

#[test]
fn devices_see_the_same_memory_map() {
    let (ram, sink, dma) = setup();
    dma.write_slice(&[7; 16], GuestAddress(BASE)).unwrap();
    ram.set_backing(BASE, Backing::ROM);
    ram.set_backing(BASE + PAGE_SIZE, Backing::DEVICE);
    let mut back = [0; 16];
    dma.read_slice(&mut back, GuestAddress(BASE)).unwrap();
    assert_eq!(back, [7; 16]);
    assert!(dma.write_slice(&[1; 16], GuestAddress(BASE)).is_err());
    assert!(dma.read_slice(&mut back, GuestAddress(BASE + PAGE_SIZE)).is_err());
    assert!(dma.read_slice(&mut back, GuestAddress(BASE + PAGE_SIZE - 8)).is_err());
    assert_eq!(ram.read_u8(BASE), Some(7));
    assert!(sink.0.lock().unwrap().is_empty());
}
