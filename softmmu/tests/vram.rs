//! Display memory and the record of what was written.

use mimus_softmmu::{DirtyPages, Vram};

#[test]
fn accesses_stay_inside() {
    let vram = Vram::new(8192).expect("two pages");
    vram.write(8190, 4, 0x4433_2211);
    assert_eq!(vram.read(8190, 2), 0x2211);
    assert_eq!(vram.read(8190, 4), 0xffff_2211, "all ones beyond the end");
    assert_eq!(vram.read(u64::MAX, 8), u64::MAX, "the end is not followed by the beginning");
    vram.write_word(8192, [1; 4]);
    assert_eq!(vram.read_word(8192), [0; 4]);
    let mut out = [7; 6];
    vram.copy_to(8188, &mut out);
    assert_eq!(out, [0, 0, 0x11, 0x22, 0, 0]);
    vram.copy_to(u64::MAX, &mut out);
    assert_eq!(out, [0; 6]);
    vram.clear(8191, u64::MAX);
    assert_eq!(vram.read(8190, 2), 0x0011);
}

#[test]
fn what_was_written_is_recorded_until_it_is_taken() {
    let vram = Vram::new(1 << 20).expect("256 pages");
    assert!(!vram.is_dirty());
    vram.write(4095, 2, 0);
    vram.clear(0x8_0000, 8192);
    let mut pages = DirtyPages::default();
    assert!(vram.is_dirty() && vram.is_page_dirty(4096) && !vram.is_page_dirty(8192));
    vram.take_dirty(&mut pages);
    assert!(!vram.is_dirty() && pages.any());
    for (offset, len, dirty) in [
        (0, 1, true),
        (8191, 1, true),
        (8192, 1, false),
        (8192, 0x8_0000 - 8192, false),
        (8192, 0x8_0000 - 8191, true),
        (0x8_2000, u64::MAX, false),
    ] {
        assert_eq!(pages.touches(offset, len), dirty, "{offset:#x} {len:#x}");
    }
    let mut both = DirtyPages::default();
    vram.write(0x9_0000, 1, 1);
    vram.take_dirty(&mut both);
    both.add(&pages);
    assert!(both.touches(0x9_0000, 1) && both.touches(0, 1));
    both.clear();
    assert!(!both.any());
}
