//! What the adapter says of its monitor: a block of Extended Display Identification Data (VESA E-EDID Standard, release A2,
//! structure 1.4), which guests choose a mode by.

/// Bytes of the block.
pub const EDID_SIZE: usize = 128;

/// "MMS", five bits a letter (3.4.1).
const MANUFACTURER: [u8; 2] = [0x35, 0xb3];
/// Model year, less 1990 (3.4.4); week 255 says that it is one.
const MODEL_YEAR: [u8; 2] = [0xff, 35];

/// Digital, 8 bits a colour, DisplayPort (3.6.1); sRGB is the colour space, the preferred mode is the native one (3.6.4).
const INPUT: u8 = 0xa5;
const FEATURES: u8 = 0x06;
/// Gamma 2.2 (3.6.3).
const GAMMA: u8 = 120;

/// Red, green, blue and white of sRGB as x and y, in ten-thousandths (3.7).
const CHROMATICITY: [u32; 8] = [6400, 3300, 3000, 6000, 1500, 600, 3127, 3290];

/// 640 by 480, 800 by 600, 1024 by 768, all at 60 Hz (3.8).
const ESTABLISHED: [u8; 3] = [0x21, 0x08, 0x00];

/// Other modes at 60 Hz: width and ratio of width to height (3.9): 0 is 16:10, 1 is 4:3, 2 is 5:4, 3 is 16:9.
const STANDARD: [(u16, u8); 8] =
    [(1280, 2), (1280, 0), (1280, 3), (1440, 0), (1600, 1), (1680, 0), (1920, 0), (1920, 3)];

/// Dots and lines that are blank: in all, before the synchronisation, during it, as VESA's reduced blanking has them, about.
const HORIZONTAL: [u16; 3] = [160, 48, 32];
const VERTICAL: [u16; 3] = [35, 3, 6];

/// Frames a second of the preferred mode.
const RATE: u64 = 60;

/// Pixels that are 100 mm: 100 dots an inch.
const PIXELS: u64 = 1000;
const MILLIMETRES: u64 = 254;

/// Largest numbers that a detailed timing has room for.
const MOST: u16 = 0xfff;

fn millimetres(pixels: u16) -> u16 {
    (u64::from(pixels) * MILLIMETRES / PIXELS) as u16
}

/// The upper four bits of two twelve-bit numbers.
fn upper(high: u16, low: u16) -> u8 {
    ((high >> 8) << 4 | low >> 8) as u8
}

/// The preferred mode (3.10.2).
fn detailed_timing(width: u16, height: u16) -> [u8; 18] {
    let [(h_blank, h_front, h_sync), (v_blank, v_front, v_sync)] = [HORIZONTAL, VERTICAL].map(|[a, b, c]| (a, b, c));
    let clock = u64::from(width + h_blank) * u64::from(height + v_blank) * RATE / 10_000;
    let [clock_low, clock_high, ..] = clock.to_le_bytes();
    let (h_size, v_size) = (millimetres(width), millimetres(height));
    [
        clock_low,
        clock_high,
        width as u8,
        h_blank as u8,
        upper(width, h_blank),
        height as u8,
        v_blank as u8,
        upper(height, v_blank),
        h_front as u8,
        h_sync as u8,
        (v_front << 4 | v_sync) as u8,
        // None of these needs its upper bits.
        0,
        h_size as u8,
        v_size as u8,
        upper(h_size, v_size),
        0,
        0,
        // Digital separate synchronisation: horizontal positive, vertical negative.
        0x1a,
    ]
}

/// A display descriptor (3.10.3).
fn descriptor(tag: u8, data: &[u8], fill: u8) -> [u8; 18] {
    let mut bytes = [0; 18];
    bytes[3] = tag;
    bytes[5..].fill(fill);
    bytes.iter_mut().skip(5).zip(data).for_each(|(to, from)| *to = *from);
    bytes
}

/// The block for a monitor whose native mode has this size in pixels; larger ones than 4095 are cut.
pub fn edid(width: u16, height: u16) -> [u8; EDID_SIZE] {
    let (width, height) = (width.min(MOST), height.min(MOST));
    let mut bytes = vec![0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0];
    bytes.extend(MANUFACTURER);
    // Product and serial number.
    bytes.extend([0x01, 0x00, 0, 0, 0, 0]);
    bytes.extend(MODEL_YEAR);
    bytes.extend([1, 4, INPUT]);
    bytes.extend([width, height].map(|pixels| (millimetres(pixels) / 10).clamp(1, 255) as u8));
    bytes.extend([GAMMA, FEATURES]);
    let points = CHROMATICITY.map(|point| (point * 1024 + 5000) / 10_000);
    // The two lowest bits of each come first, four a byte.
    bytes.extend(points.chunks(4).map(|four| four.iter().fold(0, |low, point| low << 2 | (point & 3) as u8)));
    bytes.extend(points.map(|point| (point >> 2) as u8));
    bytes.extend(ESTABLISHED);
    bytes.extend(STANDARD.iter().flat_map(|(width, ratio)| [(width / 8 - 31) as u8, ratio << 6]));
    bytes.extend(detailed_timing(width, height));
    // Lowest and highest rates in Hz and kHz, the clock in 10 MHz; limits only (3.10.3.3).
    let [newline, blank] = [b'\n', b' '];
    bytes.extend(descriptor(0xfd, &[50, 75, 30, 160, 30, 1, newline], blank));
    bytes.extend(descriptor(0xfc, b"mimus\n", blank));
    // A dummy.
    bytes.extend(descriptor(0x10, &[], 0));
    // No extension blocks; and the sum of all bytes is 0 (3.11).
    bytes.push(0);
    let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    bytes.push(sum.wrapping_neg());
    let mut block = [0; EDID_SIZE];
    block.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_says_what_it_should() {
        let block = edid(1280, 800);
        assert_eq!(block.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
        assert_eq!((&block[..8], block[126]), (&[0, 255, 255, 255, 255, 255, 255, 0][..], 0));
        let letters = u16::from_be_bytes([block[8], block[9]]);
        assert_eq!([10, 5, 0].map(|shift| b'@' + (letters >> shift & 31) as u8), *b"MMS");
        assert_eq!(block[18..20], [1, 4]);
        // sRGB's red: x is 0x28f, y is 0x152.
        assert_eq!((block[25] >> 4, block[27], block[28]), (0b1110, 0xa3, 0x54));
        // 1280 by 720, the third of the others.
        assert_eq!(block[42..44], [129, 0xc0]);
        let timing = &block[54..72];
        let clock = u64::from(u16::from_le_bytes([timing[0], timing[1]])) * 10_000;
        assert_eq!((1280 + 160) * (800 + 35) * 60 / 10_000, clock / 10_000);
        let size = [(2, 4), (5, 7)].map(|(low, high)| u16::from(timing[low]) | u16::from(timing[high] >> 4) << 8);
        assert_eq!((size, timing[3], timing[6]), ([1280, 800], 160, 35));
        assert_eq!((timing[12], timing[14]), ((325 & 0xff) as u8, 0x10));
        assert_eq!([block[75], block[93], block[111]], [0xfd, 0xfc, 0x10]);
        assert_eq!(&block[95..108], b"mimus\n       ");
    }

    #[test]
    fn any_size_fits() {
        for (width, height) in [(0, 0), (u16::MAX, u16::MAX), (2560, 1600), (640, 480)] {
            let block = edid(width, height);
            assert_eq!(block.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0, "{width} {height}");
        }
    }
}
