//! Tests of pixel formats and encodings, with a decoder of their own.

use flate2::{Decompress, FlushDecompress};

use super::*;

fn canvas() -> Canvas {
    // 70 by 20: two colours, but for a gradient in lines 16 on and right of 64.
    let pixel = |x: usize, y: usize| match (x, y) {
        (64.., 16..) => (x * 3 + y) as u32 * 0x010203,
        (3..=9, 2) => 0xff0000,
        _ => 0x0000ff,
    };
    let pixels = (0..20).flat_map(|y| (0..70).map(move |x| pixel(x, y))).collect();
    Canvas { width: 70, height: 20, pixels }
}

const ALL: Rect = Rect { x: 0, y: 0, width: 70, height: 20 };

#[test]
fn pixels_in_each_format() {
    let format = |bits, big, max: [u16; 3], shift| PixelFormat {
        bits,
        depth: if bits == 32 { 24 } else { bits },
        big_endian: big,
        true_colour: true,
        max,
        shift,
    };
    for (format, bytes) in [
        (PixelFormat::NATIVE, &[0x56, 0x34, 0x12, 0][..]),
        (format(32, true, [255; 3], [16, 8, 0]), &[0, 0x12, 0x34, 0x56]),
        (format(32, false, [255; 3], [0, 8, 16]), &[0x12, 0x34, 0x56, 0]),
        (format(16, false, [31, 63, 31], [11, 5, 0]), &[0xaa, 0x11]),
        (format(16, true, [31, 63, 31], [11, 5, 0]), &[0x11, 0xaa]),
        (format(8, false, [7, 7, 3], [5, 2, 0]), &[0x05]),
    ] {
        let mut out = Vec::new();
        format.put(0x123456, &mut out);
        assert_eq!(out, bytes, "{format:?}");
        assert_eq!(PixelFormat::parse(&format.to_bytes()), Some(format));
    }
}

#[test]
fn formats_that_cannot_be() {
    let bytes = PixelFormat::NATIVE.to_bytes();
    for (at, value) in [(0, 24), (0, 0), (10, 32), (3, 0)] {
        let mut bytes = bytes;
        bytes[at] = value;
        assert_eq!(PixelFormat::parse(&bytes), None, "{at} {value}");
    }
    let mut bytes = bytes;
    (bytes[0], bytes[3]) = (8, 0);
    let map = PixelFormat::parse(&bytes).and_then(PixelFormat::map).expect("a map");
    assert_eq!((map[0], map[0xff], map[0xe0]), ([0; 3], [0xffff; 3], [0xffff, 0, 0]));
}

#[test]
fn hextile_is_what_it_says() {
    let mut out = Vec::new();
    hextile(&canvas(), ALL, PixelFormat::NATIVE, &mut out);
    // The first tile: blue with one red run of seven in line 2.
    assert_eq!(out[..12], [14, 0xff, 0, 0, 0, 0, 0, 0xff, 0, 1, 0x32, 0x60]);
    // The second: all blue.
    assert_eq!(out[12..17], [2, 0xff, 0, 0, 0]);
    // The last: raw, six by four pixels.
    assert_eq!(out[out.len() - 97], 1);
    assert_eq!(out.len(), 12 + 8 * 5 + 97);
}

#[test]
fn zrle_decodes_to_the_picture() {
    let canvas = canvas();
    let mut zrle = Zrle::default();
    let mut zlib = Decompress::new(true);
    // The stream goes on from one rectangle to the next.
    for rect in [ALL, Rect { x: 60, y: 10, width: 10, height: 10 }, ALL] {
        let mut out = Vec::new();
        assert!(zrle.encode(&canvas, rect, PixelFormat::NATIVE, &mut out));
        let (length, packed) = out.split_at(4);
        assert_eq!(u32::from_be_bytes(length.try_into().expect("four")), packed.len() as u32);
        let mut data = Vec::with_capacity(1 << 16);
        zlib.decompress_vec(packed, &mut data, FlushDecompress::Sync).expect("a stream");
        let decoded = decode(&data, rect);
        assert_eq!(decoded, canvas.all(rect).collect::<Vec<_>>());
    }
}

/// Decodes tiles of ZRLE with pixels of three bytes, blue first.
fn decode(data: &[u8], rect: Rect) -> Vec<u32> {
    let mut data = data.iter().copied();
    let mut byte = move || data.next().expect("more data");
    let mut picture = vec![0; usize::from(rect.width) * usize::from(rect.height)];
    for tile in tiles(rect, 64) {
        let pixel = |byte: &mut dyn FnMut() -> u8| u32::from_le_bytes([byte(), byte(), byte(), 0]);
        let (width, height) = (usize::from(tile.width), usize::from(tile.height));
        let mut pixels = Vec::new();
        match byte() {
            0 => pixels.extend((0..width * height).map(|_| pixel(&mut byte))),
            1 => pixels = vec![pixel(&mut byte); width * height],
            colours @ 2..=16 => {
                let palette: Vec<u32> = (0..colours).map(|_| pixel(&mut byte)).collect();
                let bits = [1, 2, 4][usize::from(colours > 2) + usize::from(colours > 4)];
                for _ in 0..height {
                    let line: Vec<u8> = (0..(width * bits).div_ceil(8)).map(|_| byte()).collect();
                    pixels.extend((0..width).map(|x| {
                        let index = line[x * bits / 8] >> (8 - bits - x * bits % 8) & ((1 << bits) - 1);
                        palette[usize::from(index)]
                    }));
                }
            }
            128 => {
                while pixels.len() < width * height {
                    let colour = pixel(&mut byte);
                    let mut length = 1;
                    loop {
                        let more = byte();
                        length += usize::from(more);
                        if more != 255 {
                            break;
                        }
                    }
                    pixels.extend(std::iter::repeat_n(colour, length));
                }
            }
            other => panic!("tile of kind {other}"),
        }
        assert_eq!(pixels.len(), width * height);
        for (y, line) in pixels.chunks(width).enumerate() {
            let start = (usize::from(tile.y - rect.y) + y) * usize::from(rect.width) + usize::from(tile.x - rect.x);
            picture[start..start + width].copy_from_slice(line);
        }
    }
    picture
}

#[test]
fn long_runs_and_noise() {
    let noise = |i: usize| (i as u32).wrapping_mul(0x9e37_79b9) & 0xffffff;
    let pixels = (0..64 * 64).map(|i| if i < 2000 { 7 } else { noise(if i < 3000 { i / 100 } else { i }) }).collect();
    let runs = Canvas { width: 64, height: 64, pixels };
    let noise = Canvas { width: 64, height: 64, pixels: (0..64 * 64).map(noise).collect() };
    for canvas in [runs, noise] {
        let all = Rect { x: 0, y: 0, width: 64, height: 64 };
        let mut out = Vec::new();
        zrle_tile(&canvas, all, PixelFormat::NATIVE, &mut out);
        assert_eq!(decode(&out, all), canvas.pixels);
    }
}
