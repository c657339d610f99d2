//! Tests of the adapter: registers, memory windows, modes, and the pictures that they make.

use super::*;

/// Register values of BIOS modes 0x12 (640 by 480, 16 colours), 0x13 (320 by 200, 256 colours) and 4 (CGA's 320 by 200, 4
/// colours): miscellaneous output, sequencer, CRT controller, graphics controller, attribute controller.
type Values = (u8, [u8; 5], [u8; 25], [u8; 9], [u8; 21]);

const MODE_12: Values = (
    0xe3,
    [3, 1, 15, 0, 6],
    [
        0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0x0b, 0x3e, 0, 0x40, 0, 0, 0, 0, 0, 0, 0xea, 0x0c, 0xdf, 0x28, 0, 0xe7, 4,
        0xe3, 0xff,
    ],
    [0, 0, 0, 0, 0, 0, 5, 15, 0xff],
    [0, 1, 2, 3, 4, 5, 0x14, 7, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 1, 0, 15, 0, 0],
);

const MODE_13: Values = (
    0x63,
    [3, 1, 15, 0, 14],
    [
        0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0, 0x41, 0, 0, 0, 0, 0, 0, 0x9c, 0x0e, 0x8f, 0x28, 0x40, 0x96,
        0xb9, 0xa3, 0xff,
    ],
    [0, 0, 0, 0, 0, 0x40, 5, 15, 0xff],
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0x41, 0, 15, 0, 0],
);

const MODE_4: Values = (
    0x63,
    [3, 9, 3, 0, 2],
    [
        0x2d, 0x27, 0x28, 0x90, 0x2b, 0x80, 0xbf, 0x1f, 0, 0xc1, 0, 0, 0, 0, 0, 0, 0x9c, 0x0e, 0x8f, 0x14, 0, 0x96,
        0xb9, 0xa2, 0xff,
    ],
    [0, 0, 0, 0, 0, 0x30, 15, 0, 0xff],
    [0, 0x13, 0x15, 0x17, 2, 4, 6, 7, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 1, 0, 3, 0, 0],
);

const BLACK: u32 = 0;
const BLUE: u32 = 0x0000aa;
const GREY: u32 = 0xaaaaaa;
const YELLOW: u32 = 0xffff55;

fn vga() -> Vga {
    Vga::new(Arc::new(Vram::new(VRAM_SIZE as usize).expect("16 MiB")))
}

/// Writes `value` to register `index` behind `port`.
fn indexed(vga: &mut Vga, port: u16, index: u8, value: u8) {
    vga.write_port(port, index);
    vga.write_port(port + 1, value);
}

fn attribute(vga: &mut Vga, index: u8, value: u8) {
    vga.read_port(0, 0x3da);
    vga.write_port(0x3c0, index);
    vga.write_port(0x3c0, value);
    vga.write_port(0x3c0, 0x20);
    vga.read_port(0, 0x3da);
}

fn set(vga: &mut Vga, (misc, seq, crtc, gfx, attr): &Values) {
    vga.set_text_mode();
    vga.write_port(0x3c2, *misc);
    indexed(vga, 0x3d4, 0x11, 0);
    for (port, values) in [(0x3c4, &seq[..]), (0x3d4, crtc), (0x3ce, gfx)] {
        (0u8..).zip(values).for_each(|(index, value)| indexed(vga, port, index, *value));
    }
    (0u8..).zip(attr).for_each(|(index, value)| attribute(vga, index, *value));
    vga.vram().clear(0, VRAM_SIZE);
}

fn vbe(vga: &mut Vga, index: u16, value: u16) {
    vga.write_vbe_port(0x1ce, index);
    vga.write_vbe_port(0x1cf, value);
}

fn vbe_read(vga: &mut Vga, index: u16) -> u16 {
    vga.write_vbe_port(0x1ce, index);
    vga.read_vbe_port(0x1cf)
}

fn linear(vga: &mut Vga, width: u16, height: u16, bpp: u16) {
    for (index, value) in [(4, 0), (1, width), (2, height), (3, bpp), (4, 0x41)] {
        vbe(vga, index, value);
    }
}

fn poke(vga: &mut Vga, address: u64, bytes: &[u8]) {
    for (at, byte) in (address - WINDOW..).zip(bytes) {
        vga.write_window(at, 1, u64::from(*byte));
    }
}

fn peek(vga: &mut Vga, address: u64) -> u8 {
    vga.read_window(address - WINDOW, 1) as u8
}

/// A line of the picture while the cursor is shown.
fn line(vga: &Vga, y: u32) -> Vec<u32> {
    vga.picture(0).frame().line(y).to_vec()
}

#[test]
fn text_has_the_glyphs_and_colours_of_its_cells() {
    let mut v = vga();
    v.set_text_mode();
    poke(&mut v, 0xb_8000 + 2 * (80 * 2 + 3), b"A\x1e\xc4\x07");
    let picture = v.picture(0);
    let frame = picture.frame();
    assert_eq!((frame.width, frame.height), (720, 400));
    // The font's second row of an A: 0x1e with the leftmost dot lowest.
    let row = &frame.line(2 * 16 + 2)[3 * 9..4 * 9];
    let dots = |bits: &str| -> Vec<u32> { bits.chars().map(|c| if c == '#' { YELLOW } else { BLUE }).collect() };
    assert_eq!(row, dots(".####...."));
    // A horizontal line goes on in the ninth dot.
    let joined = (0..16).any(|y| frame.line(2 * 16 + y)[4 * 9..5 * 9] == [GREY; 9]);
    assert!(joined);
    let text = picture.text().expect("a text mode");
    assert_eq!((text.columns, text.rows, text.cursor), (80, 25, Some((0, 0))));
    assert_eq!(text.cells[163..165], [(b'A', 0x1e), (0xc4, 0x07)]);
    assert_eq!(text.cells[0], (b' ', 0x07));
}

#[test]
fn the_cursor_blinks_and_moves() {
    let mut v = vga();
    v.set_text_mode();
    indexed(&mut v, 0x3d4, 0x0f, 82);
    let shown = |v: &Vga, now| v.picture(now).frame().line(16 + 14)[2 * 9] == GREY;
    assert!(shown(&v, 0) && !shown(&v, 300_000_000) && shown(&v, 500_000_000));
    assert_eq!(v.picture(300_000_000).text().expect("text").cursor, Some((2, 1)), "where it is, shown or not");
    indexed(&mut v, 0x3d4, 0x0a, 0x2d);
    assert!(!shown(&v, 0));
    assert_eq!(v.picture(0).text().expect("text").cursor, None);
}

#[test]
fn characters_blink_or_have_bright_backgrounds() {
    let mut v = vga();
    v.set_text_mode();
    poke(&mut v, 0xb_8000 + 2 * 79, b"\xdb\x9e");
    let at = |v: &Vga, now| v.picture(now).frame().line(0)[79 * 9];
    assert_eq!((at(&v, 0), at(&v, 500_000_000)), (YELLOW, BLUE));
    attribute(&mut v, 0x10, 0x04);
    poke(&mut v, 0xb_8000 + 2 * 79, b" \x9e");
    assert_eq!(at(&v, 500_000_000), 0x5555ff);
}

#[test]
fn the_screen_starts_where_the_guest_says_and_splits() {
    let mut v = vga();
    v.set_text_mode();
    poke(&mut v, 0xb_8000, b"\xdb\x0e");
    poke(&mut v, 0xb_8000 + 160 * 30, b"\xdb\x01");
    indexed(&mut v, 0x3d4, 0x0c, ((80 * 30) >> 8) as u8);
    indexed(&mut v, 0x3d4, 0x0d, ((80 * 30) & 0xff) as u8);
    assert_eq!(line(&v, 0)[0], BLUE);
    assert_eq!(line(&v, 300)[0], BLACK);
    // Line compare 299: bit 8 is in the overflow register, which is not protected there.
    indexed(&mut v, 0x3d4, 0x18, (299 & 0xff) as u8);
    indexed(&mut v, 0x3d4, 0x09, 0x0f);
    let text_at_start = |v: &Vga| (line(v, 299)[0], line(v, 300)[0]);
    assert_eq!(text_at_start(&v), (BLACK, YELLOW));
    // Smooth scrolling by four lines.
    indexed(&mut v, 0x3d4, 0x08, 4);
    assert_eq!((line(&v, 11)[0], line(&v, 12)[0]), (BLUE, BLACK));
}

#[test]
fn sixteen_colours_in_four_planes() {
    let mut v = vga();
    set(&mut v, &MODE_12);
    // Write mode 2: the colour is the byte, the bit mask says which pixels.
    indexed(&mut v, 0x3ce, 5, 2);
    indexed(&mut v, 0x3ce, 8, 0b1000_0001);
    peek(&mut v, 0xa_0000 + 80 + 2);
    poke(&mut v, 0xa_0000 + 80 + 2, &[14]);
    let row = line(&v, 1);
    assert_eq!(v.picture(0).frame().height, 480);
    assert_eq!(row.len(), 640);
    assert_eq!(row[15..25], [0, YELLOW, 0, 0, 0, 0, 0, 0, YELLOW, 0]);
    // Panning shifts to the left.
    attribute(&mut v, 0x13, 3);
    assert_eq!(line(&v, 1)[13], YELLOW);
}

#[test]
fn two_hundred_fifty_six_colours() {
    let mut v = vga();
    set(&mut v, &MODE_13);
    for byte in [200, 0x3f, 0x15, 0x00, 0x00, 0x00, 0x3f] {
        let port = if byte == 200 { 0x3c8 } else { 0x3c9 };
        v.write_port(port, byte);
    }
    poke(&mut v, 0xa_0000 + 320 * 7 + 5, &[200, 201]);
    let picture = v.picture(0);
    assert_eq!((picture.frame().width, picture.frame().height), (640, 400), "each pixel is two by two dots");
    for y in [14, 15] {
        assert_eq!(picture.frame().line(y)[9..15], [0, 0xff5500, 0xff5500, 0x0000ff, 0x0000ff, 0]);
    }
    assert_eq!(picture.frame().line(16)[10], 0);
    // The mask is between pixel and palette.
    v.write_port(0x3c6, 0xfe);
    assert_eq!(line(&v, 14)[13], 0xff5500);
}

#[test]
fn unchained_planes_hold_four_pixels_an_address() {
    let mut v = vga();
    set(&mut v, &MODE_13);
    indexed(&mut v, 0x3c4, 4, 6);
    indexed(&mut v, 0x3d4, 0x14, 0);
    indexed(&mut v, 0x3d4, 0x17, 0xe3);
    for (plane, colour) in [(1u8, 1u8), (3, 4)] {
        indexed(&mut v, 0x3c4, 2, 1 << plane);
        poke(&mut v, 0xa_0000 + 80, &[colour]);
    }
    assert_eq!(line(&v, 2)[..10], [0, 0, BLUE, BLUE, 0, 0, 0xaa0000, 0xaa0000, 0, 0]);
}

#[test]
fn four_colours_of_the_cga_in_two_banks() {
    let mut v = vga();
    set(&mut v, &MODE_4);
    poke(&mut v, 0xb_8000, &[0b11_10_01_00]);
    poke(&mut v, 0xb_a000 + 1, &[0b00_00_00_01]);
    // By the palette of text modes; a BIOS sets another one here.
    let colours: [u32; 4] = [0, 0x00ffaa, 0xaa55aa, 0xaaffaa];
    let even = line(&v, 0);
    assert_eq!((v.picture(0).frame().width, v.picture(0).frame().height), (640, 400));
    assert_eq!(even[..10], [colours[3], colours[3], colours[2], colours[2], colours[1], colours[1], 0, 0, 0, 0]);
    assert_eq!(line(&v, 1), even);
    let odd = line(&v, 2);
    assert_eq!(odd[14..16], [colours[1]; 2]);
    assert!(odd[..14].iter().chain(&odd[16..]).all(|pixel| *pixel == 0));
}

#[test]
fn the_graphics_controller_computes() {
    let mut v = vga();
    set(&mut v, &MODE_12);
    let planes = |v: &mut Vga, offset: u64| -> [u8; 4] { v.vram().read_word(offset * 4) };
    // Write mode 0: set/reset for planes 0 and 2, the rotated byte for the others.
    for (index, value) in [(0, 0b0001), (1, 0b0101), (3, 4)] {
        indexed(&mut v, 0x3ce, index, value);
    }
    poke(&mut v, 0xa_0000, &[0x1f]);
    assert_eq!(planes(&mut v, 0), [0xff, 0xf1, 0x00, 0xf1]);
    // Exclusive or with what was read, under a mask.
    for (index, value) in [(1, 0), (3, 0x18), (8, 0x0f)] {
        indexed(&mut v, 0x3ce, index, value);
    }
    peek(&mut v, 0xa_0000);
    poke(&mut v, 0xa_0000, &[0xff]);
    assert_eq!(planes(&mut v, 0), [0xf0, 0xfe, 0x0f, 0xfe]);
    // Write mode 1 copies what was read, into the planes that are enabled.
    for (index, value) in [(3, 0), (5, 1), (8, 0xff)] {
        indexed(&mut v, 0x3ce, index, value);
    }
    indexed(&mut v, 0x3c4, 2, 0b1010);
    peek(&mut v, 0xa_0000);
    poke(&mut v, 0xa_0001, &[0]);
    assert_eq!(planes(&mut v, 1), [0, 0xfe, 0, 0xfe]);
    // Write mode 3: the byte is a mask for the colour of set/reset.
    indexed(&mut v, 0x3c4, 2, 0b1111);
    for (index, value) in [(0, 0b1001), (5, 3)] {
        indexed(&mut v, 0x3ce, index, value);
    }
    peek(&mut v, 0xa_0002);
    poke(&mut v, 0xa_0002, &[0x3c]);
    assert_eq!(planes(&mut v, 2), [0x3c, 0, 0, 0x3c]);
    // Read mode 0 reads a plane, read mode 1 says where a colour is.
    indexed(&mut v, 0x3ce, 4, 3);
    assert_eq!(peek(&mut v, 0xa_0002), 0x3c);
    for (index, value) in [(5, 8), (2, 0b1001), (7, 0b1111)] {
        indexed(&mut v, 0x3ce, index, value);
    }
    assert_eq!(peek(&mut v, 0xa_0002), 0x3c);
    indexed(&mut v, 0x3ce, 7, 0);
    assert_eq!(peek(&mut v, 0xa_0002), 0xff, "no plane matters");
}

#[test]
fn the_window_is_where_the_graphics_controller_has_it() {
    let mut v = vga();
    v.set_text_mode();
    assert_eq!((peek(&mut v, 0xb_8000), peek(&mut v, 0xb_8001)), (b' ', 7));
    assert_eq!((peek(&mut v, 0xa_0000), peek(&mut v, 0xb_0000)), (0xff, 0xff));
    indexed(&mut v, 0x3ce, 6, 0x0a);
    assert_eq!((peek(&mut v, 0xb_8000), peek(&mut v, 0xb_0000)), (0xff, b' '));
    indexed(&mut v, 0x3ce, 6, 0x02);
    assert_eq!((peek(&mut v, 0xa_0000), peek(&mut v, 0xb_0001)), (b' ', 7));
    v.write_port(0x3c2, 0x65);
    assert_eq!(peek(&mut v, 0xa_0000), 0xff, "the CPU is kept out");
}

#[test]
fn linear_modes_of_each_depth() {
    let bytes = [0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0];
    for (bpp, first, second) in [
        (8, 0x123456, 0x654321),
        (15, 0x6b0094, 0xf710b5),
        (16, 0x318294, 0x7b08b5),
        (24, 0x563412, 0xbc9a78),
        (32, 0x563412, 0xdebc9a),
    ] {
        let mut v = vga();
        linear(&mut v, 800, 600, bpp);
        vbe(&mut v, 4, 0x61);
        for (index, colour) in [(0x12, [0x12, 0x34, 0x56]), (0x34, [0x65, 0x43, 0x21])] {
            v.write_port(0x3c8, index);
            colour.iter().for_each(|component| v.write_port(0x3c9, *component));
        }
        let pitch = 800 * u64::from(u16::div_ceil(bpp, 8));
        v.vram().write(pitch * 599, 8, u64::from_le_bytes(bytes));
        let picture = v.picture(0);
        assert_eq!((picture.frame().width, picture.frame().height), (800, 600));
        assert_eq!(picture.frame().line(599)[..2], [first, second], "{bpp} bits");
        assert!(picture.text().is_none());
    }
}

#[test]
fn sixteen_colours_at_a_size_of_vbe() {
    let mut v = vga();
    set(&mut v, &MODE_12);
    linear(&mut v, 800, 600, 4);
    indexed(&mut v, 0x3ce, 5, 2);
    poke(&mut v, 0xa_0000 + 100 * 500 + 1, &[14]);
    assert_eq!(line(&v, 500)[7..17], [0, YELLOW, YELLOW, YELLOW, YELLOW, YELLOW, YELLOW, YELLOW, YELLOW, 0]);
    assert_eq!(vbe_read(&mut v, 7), 41943, "a quarter of the memory in lines of 100 bytes");
}

#[test]
fn vbe_registers_say_what_there_is() {
    let mut v = vga();
    assert_eq!(vbe_read(&mut v, 0), 0xb0c5);
    vbe(&mut v, 0, 0xb0c2);
    assert_eq!(vbe_read(&mut v, 0), 0xb0c2);
    vbe(&mut v, 0, 0x1234);
    assert_eq!(vbe_read(&mut v, 0), 0xb0c2);
    assert_eq!(vbe_read(&mut v, 10), 256, "16 MiB");
    vbe(&mut v, 4, 2);
    assert_eq!([1, 2, 3].map(|index| vbe_read(&mut v, index)), [16_000, 12_000, 32]);
    linear(&mut v, 1024, 768, 32);
    assert_eq!([1, 2, 3, 6, 7].map(|index| vbe_read(&mut v, index)), [1024, 768, 32, 1024, 4096]);
    vbe(&mut v, 6, 2048);
    vbe(&mut v, 8, 64);
    vbe(&mut v, 9, 1000);
    assert_eq!([6, 7, 8, 9].map(|index| vbe_read(&mut v, index)), [2048, 2048, 64, 1000]);
    v.vram().write((2048 * 1000 + 64) * 4, 4, 0xc0ffee);
    assert_eq!(line(&v, 0)[0], 0xc0ffee);
    // More than there is memory for is made to fit.
    linear(&mut v, 0xffff, 0xffff, 32);
    assert_eq!([1, 2, 7].map(|index| vbe_read(&mut v, index)), [16_000, 262, 262]);
    linear(&mut v, 1920, 1080, 32);
    vbe(&mut v, 6, 0xffff);
    assert_eq!([6, 2, 7].map(|index| vbe_read(&mut v, index)), [16_000, 262, 262]);
    // What is not displayed reads as it was written; while it is, too, it can be changed.
    vbe(&mut v, 4, 0);
    vbe(&mut v, 1, 1366);
    vbe(&mut v, 3, 0);
    assert_eq!([1, 3].map(|index| vbe_read(&mut v, index)), [1366, 0]);
    vbe(&mut v, 4, 0x41);
    assert_eq!([1, 3, 6].map(|index| vbe_read(&mut v, index)), [1360, 8, 1360]);
    vbe(&mut v, 1, 800);
    vbe(&mut v, 2, 600);
    vbe(&mut v, 3, 32);
    assert_eq!([1, 2, 3, 6].map(|index| vbe_read(&mut v, index)), [800, 600, 32, 1360]);
}

#[test]
fn enabling_clears_unless_told_not_to_and_banks_are_linear() {
    let mut v = vga();
    v.set_text_mode();
    linear(&mut v, 640, 480, 8);
    vbe(&mut v, 5, 3);
    v.write_port(0x3c2, 0x67);
    indexed(&mut v, 0x3ce, 6, 0x05);
    poke(&mut v, 0xa_0010, &[0x99]);
    assert_eq!((v.vram().read(0x3_0010, 1), peek(&mut v, 0xa_0010)), (0x99, 0x99));
    for (enable, value) in [(0xc1, 0x99), (0x41, 0)] {
        vbe(&mut v, 4, 0);
        vbe(&mut v, 4, enable);
        assert_eq!(v.vram().read(0x3_0010, 1), value);
    }
}

#[test]
fn registers_in_memory_are_those_behind_the_ports() {
    let mut v = vga();
    v.set_text_mode();
    v.write_mmio(0x414, 2, 0x120f);
    assert_eq!(v.read_mmio(0, 0x415, 1), 0x12);
    v.write_port(0x3d4, 0x0f);
    assert_eq!(v.read_port(0, 0x3d5), 0x12);
    for (index, value) in [(1u64, 1024u64), (2, 768), (3, 32), (4, 0x41)] {
        v.write_mmio(0x500 + 2 * index, 2, value);
    }
    assert_eq!((v.read_mmio(0, 0x500, 4), v.read_mmio(0, 0x50c, 2)), (1024 << 16 | 0xb0c5, 1024));
    assert_eq!((v.read_mmio(0, 0x600, 4), v.read_mmio(0, 0x604, 4)), (8, 0x1e1e_1e1e));
    assert_eq!(v.picture(0).frame().width, 1024);
}

#[test]
fn retrace_comes_seventy_times_a_second() {
    let mut v = vga();
    v.set_text_mode();
    let step = 10_000;
    let states: Vec<u8> = (0..100_000).map(|at| v.read_port(at * step, 0x3da) & 8).collect();
    let rises = states.windows(2).filter(|pair| pair[0] < pair[1]).count();
    assert_eq!(rises, 70);
    let displayed = (0..100_000).filter(|at| v.read_port(at * step, 0x3da) & 1 == 0).count();
    assert!((68_000..72_000).contains(&displayed), "{displayed}: 80 of 100 characters, 400 of 449 lines");
    v.write_port(0x3c2, 0x66);
    assert_eq!(v.read_port(0, 0x3da), 0xff, "the monochrome adapter's ports are chosen");
    assert_eq!(v.read_port(0, 0x3ba) & 8, 0);
}

#[test]
fn protected_registers_keep_their_values() {
    let mut v = vga();
    v.set_text_mode();
    let changes = v.changes();
    indexed(&mut v, 0x3d4, 1, 0x27);
    assert_eq!((v.read_port(0, 0x3d5), v.changes()), (0x4f, changes));
    indexed(&mut v, 0x3d4, 7, 0x00);
    assert_eq!(v.read_port(0, 0x3d5), 0x0f, "but for line compare's bit");
    indexed(&mut v, 0x3d4, 0x11, 0x0e);
    indexed(&mut v, 0x3d4, 1, 0x27);
    assert_eq!(v.read_port(0, 0x3d5), 0x27);
}

#[test]
fn only_lines_that_change_are_drawn() {
    let mut v = vga();
    assert!(v.set_linear_mode(1024, 768));
    let mut screen = Screen::default();
    let mut dirty = DirtyPages::default();
    v.vram().take_dirty(&mut dirty);
    assert!(screen.update(v.regs(), v.vram(), &dirty, 0));
    dirty.clear();
    assert!(!screen.update(v.regs(), v.vram(), &dirty, 1 << 40), "idle");
    let version = screen.version();
    v.vram().write(4096 * 100, 4, 0x00ff_0000);
    v.vram().take_dirty(&mut dirty);
    assert!(screen.update(v.regs(), v.vram(), &dirty, 0));
    let changed: Vec<u32> = (0..768).filter(|y| screen.has_changed(*y, version)).collect();
    assert_eq!(changed, [100]);
    assert_eq!(screen.frame().line(100)[0], 0xff0000);
    assert!(!screen.update(v.regs(), v.vram(), &dirty, 0), "written again with the same");
}

#[test]
fn a_screen_that_is_off_is_black() {
    let mut v = vga();
    let picture = v.picture(0);
    assert_eq!((picture.frame().width, picture.frame().height), (640, 480), "before any mode is set");
    v.set_text_mode();
    poke(&mut v, 0xb_8000, b"\xdb\x0e");
    indexed(&mut v, 0x3c4, 1, 0x20);
    assert!(v.picture(0).frame().pixels.iter().all(|pixel| *pixel == 0));
}

#[test]
fn state_round_trips() {
    let mut v = vga();
    v.set_text_mode();
    poke(&mut v, 0xb_8000, b"m\x1e");
    v.vram().write(VRAM_SIZE - 1, 1, 7);
    let bytes = postcard::to_stdvec(&v.save()).expect("it serializes");
    let mut other = vga();
    linear(&mut other, 640, 480, 32);
    other.vram().write(0x10_0000, 4, 1);
    assert!(other.restore(postcard::from_bytes(&bytes).expect("and back")));
    assert_eq!(other.save().memory, v.save().memory);
    assert_eq!(other.picture(0).frame(), v.picture(0).frame());
    let mut bad = v.save();
    bad.memory.push((VRAM_SIZE, vec![1]));
    assert!(!other.restore(bad));
    let mut bad = v.save();
    bad.regs.dac.pop();
    assert!(!other.restore(bad));
}

/// A guest that writes anything anywhere: no panic, and pictures of a bounded size.
#[test]
fn whatever_is_written_makes_a_picture() {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut v = vga();
    let mut screen = Screen::default();
    let mut dirty = DirtyPages::default();
    for round in 0..400u64 {
        if next() & 3 == 0 {
            v.set_text_mode();
        }
        for _ in 0..next() % 200 {
            let (value, place) = (next(), next());
            match place % 8 {
                0..=2 => v.write_port(0x3b0 + (place >> 8) as u16 % 0x30, value as u8),
                3 => {
                    indexed(&mut v, [0x3c4, 0x3ce, 0x3d4][(place >> 8) as usize % 3], (place >> 16) as u8, value as u8)
                }
                4 => vbe(&mut v, (place >> 8) as u16 % 12, value as u16 >> (place >> 32 & 15)),
                5 => v.write_window((place >> 8) % WINDOW_SIZE, 1 << (place >> 40 & 3), value),
                6 => v.write_mmio((place >> 8) % 0x700, 1 << (place >> 40 & 3), value),
                _ => {
                    v.read_window((place >> 8) % WINDOW_SIZE, 8);
                    v.read_mmio(value, (place >> 8) % 0x700, 8);
                    v.read_port(value, 0x3b0 + (value as u16) % 0x30);
                }
            }
        }
        v.vram().take_dirty(&mut dirty);
        screen.update(v.regs(), v.vram(), &dirty, round * 100_000_000);
        dirty.clear();
        let frame = screen.frame();
        assert!(frame.width * frame.height <= 1 << 25, "{} by {}", frame.width, frame.height);
        assert_eq!(frame.pixels.len(), frame.width as usize * frame.height as usize);
        assert!(round % 20 != 0 || v.fits(&v.save()), "what a guest sets can be restored");
    }
}
