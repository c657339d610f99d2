//! RAM in two regions with a hole.

use mimus_softmmu::{Marked, PAGE_SIZE, Ram};
use vm_memory::{GuestAddress, GuestMemoryMmap};

const LOW: u64 = 16 * PAGE_SIZE;
const HIGH: u64 = 1 << 32;
const HIGH_END: u64 = HIGH + 4 * PAGE_SIZE;

fn ram() -> Ram {
    let ranges = [(GuestAddress(0), LOW as usize), (GuestAddress(HIGH), (HIGH_END - HIGH) as usize)];
    Ram::new(GuestMemoryMmap::from_ranges(&ranges).unwrap())
}

#[test]
fn accesses_end_where_their_region_does() {
    let ram = ram();
    for end in [LOW, HIGH_END] {
        assert_eq!(ram.write_u64(end - 8, 0x1122_3344_5566_7788), Some(()));
        assert_eq!(ram.read_u64(end - 8), Some(0x1122_3344_5566_7788));
        assert_eq!(ram.read_u8(end - 1), Some(0x11));
        for beyond in 1..8 {
            assert_eq!(ram.read_u64(end - beyond), None, "{beyond}");
            assert_eq!(ram.write_u64(end - beyond, 0), None, "{beyond}");
        }
        assert_eq!(ram.read_u8(end), None);
        assert!(!ram.is_ram(end) && ram.is_ram(end - 1));
        assert_eq!(ram.read_u64(end - 8), Some(0x1122_3344_5566_7788), "unharmed");
    }
    assert_eq!(ram.read_u32(HIGH - 2), None, "from the hole into RAM");
    for far in [u64::MAX, u64::MAX - 7, 1 << 63, HIGH - 1] {
        assert_eq!((ram.read_u8(far), ram.read_u64(far), ram.host(far, 1)), (None, None, None), "{far:#x}");
    }
    assert!(ram.host(0, LOW).is_some() && ram.host(0, LOW + 1).is_none() && ram.host(8, u64::MAX).is_none());
}

#[test]
fn byte_ranges_are_whole_or_not_at_all() {
    let ram = ram();
    let mut bytes = [0xaa; 8];
    assert!(ram.write_bytes(LOW - 8, &bytes));
    assert!(!ram.write_bytes(LOW - 4, &[1; 8]));
    assert_eq!(ram.read_u32(LOW - 4), Some(0xaaaa_aaaa));
    assert!(!ram.read_bytes(LOW - 4, &mut bytes) && ram.read_bytes(LOW - 8, &mut bytes));
    assert_eq!(bytes, [0xaa; 8]);
    assert!(ram.read_bytes(LOW - 1, &mut []));
}

#[test]
fn compare_and_swap_wants_aligned_ram() {
    let ram = ram();
    ram.write_u64(0x100, 5).unwrap();
    assert_eq!(ram.cas_u64(0x100, 4, 6), Some(false));
    assert_eq!(ram.read_u64(0x100), Some(5));
    assert_eq!(ram.cas_u64(0x100, 5, u64::MAX), Some(true));
    assert_eq!(ram.cas_u32(0x104, u32::MAX, 7), Some(true));
    assert_eq!(ram.read_u64(0x100), Some(7 << 32 | 0xffff_ffff));
    for gpa in [0x101, 0x102, 0x104] {
        assert_eq!(ram.cas_u64(gpa, 0, 0), None, "{gpa:#x}");
    }
    assert_eq!((ram.cas_u32(0x102, 0, 0), ram.cas_u32(LOW, 0, 0), ram.cas_u64(LOW, 0, 0)), (None, None, None));
}

#[test]
fn granules_of_a_range_stay_within_its_page() {
    // (address, length, granules)
    let rows = [
        (0, 1, 1),
        (0, 0, 1),
        (63, 1, 1),
        (63, 2, 3),
        (64, 64, 2),
        (64, 65, 6),
        (0, PAGE_SIZE, u64::MAX),
        (PAGE_SIZE - 1, 1, 1 << 63),
        (PAGE_SIZE - 1, 100, 1 << 63),
        (0x1_2345_6fc0, 64, 1 << 63),
        (128, PAGE_SIZE, u64::MAX << 2),
    ];
    for (gpa, len, granules) in rows {
        assert_eq!(Ram::granules(gpa, len), granules, "{len} bytes at {gpa:#x}");
    }
}

#[test]
fn each_region_has_code_marks_of_its_own() {
    let ram = ram();
    assert_eq!(ram.mark_code(HIGH + 5, 1 << 63), Marked::Fresh);
    assert_eq!(ram.code_granules(HIGH + 0xfff), 1 << 63);
    assert_eq!((ram.code_granules(HIGH + PAGE_SIZE), ram.code_granules(LOW - 1), ram.code_granules(0)), (0, 0, 0));
    assert!(ram.hits_code(HIGH + 0xfff, 1) && !ram.hits_code(HIGH, 64));
    // The last page of each region has a mark, and outside there is none to set.
    for (gpa, marked) in [
        (LOW - 1, Marked::Fresh),
        (HIGH_END - 1, Marked::Fresh),
        (LOW, Marked::Known),
        (HIGH_END, Marked::Known),
        (u64::MAX, Marked::Known),
    ] {
        assert_eq!(ram.mark_code(gpa, 1), marked, "{gpa:#x}");
    }
    assert_eq!((ram.code_granules(LOW), ram.hits_code(HIGH_END, 8)), (0, false));
    ram.set_code(HIGH, 0);
    assert!(!ram.hits_code(HIGH, PAGE_SIZE));
}
