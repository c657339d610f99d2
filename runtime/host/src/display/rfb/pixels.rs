//! Pixel formats and encodings of rectangles (RFC 6143, 7.4 and 7.7).

use flate2::{Compress, Compression, FlushCompress, Status};

/// Encodings that clients may name (7.7, 7.8).
pub const RAW: i32 = 0;
/// See [`RAW`].
pub const HEXTILE: i32 = 5;
/// See [`RAW`].
pub const ZRLE: i32 = 16;
/// See [`RAW`].
pub const DESKTOP_SIZE: i32 = -223;

/// How a client wants its pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PixelFormat {
    /// Bits a pixel: 8, 16 or 32.
    bits: u8,
    depth: u8,
    big_endian: bool,
    /// False: a pixel is an index into a map, which is that of [`PixelFormat::map`].
    true_colour: bool,
    /// Largest values of red, green and blue, and their places.
    max: [u16; 3],
    shift: [u8; 3],
}

impl PixelFormat {
    /// What the server offers: 0x00RRGGBB, little-endian.
    pub const NATIVE: PixelFormat =
        PixelFormat { bits: 32, depth: 24, big_endian: false, true_colour: true, max: [255; 3], shift: [16, 8, 0] };

    /// The format in the 16 bytes of a message; `None` if there cannot be one such.
    pub fn parse(bytes: &[u8; 16]) -> Option<PixelFormat> {
        let max = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let format = PixelFormat {
            bits: bytes[0],
            depth: bytes[1],
            big_endian: bytes[2] != 0,
            true_colour: bytes[3] != 0,
            max: [max(4), max(6), max(8)],
            shift: [bytes[10], bytes[11], bytes[12]],
        };
        let fits = format.shift.iter().all(|shift| *shift < format.bits);
        match (format.bits, format.true_colour) {
            (8, false) => Some(PixelFormat { max: [7, 7, 3], shift: [5, 2, 0], ..format }),
            (8 | 16 | 32, true) if fits => Some(format),
            _ => None,
        }
    }

    /// The 16 bytes of a message.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&[self.bits, self.depth, self.big_endian.into(), self.true_colour.into()]);
        for (index, max) in self.max.iter().enumerate() {
            bytes[4 + 2 * index..6 + 2 * index].copy_from_slice(&max.to_be_bytes());
        }
        bytes[10..13].copy_from_slice(&self.shift);
        bytes
    }

    /// The colours of a client that has a map: red, green, blue with 16 bits each.
    pub fn map(self) -> Option<[[u16; 3]; 256]> {
        let widen = |value: usize, max: usize| (value * 0xffff / max) as u16;
        (!self.true_colour).then(|| std::array::from_fn(|i| [widen(i >> 5, 7), widen(i >> 2 & 7, 7), widen(i & 3, 3)]))
    }

    fn pixel(self, colour: u32) -> u32 {
        let [_, red, green, blue] = colour.to_be_bytes();
        [red, green, blue].iter().zip(self.max).zip(self.shift).fold(0, |pixel, ((component, max), shift)| {
            let value = (u32::from(*component) * u32::from(max) + 127) / 255;
            pixel | value << (shift & 31)
        })
    }

    /// Appends a pixel.
    pub fn put(self, colour: u32, out: &mut Vec<u8>) {
        let native = self == PixelFormat::NATIVE;
        let pixel = if native { colour } else { self.pixel(colour) };
        match (self.bits, self.big_endian) {
            (8, _) => out.push(pixel as u8),
            (16, false) => out.extend((pixel as u16).to_le_bytes()),
            (16, true) => out.extend((pixel as u16).to_be_bytes()),
            (_, false) => out.extend(pixel.to_le_bytes()),
            (_, true) => out.extend(pixel.to_be_bytes()),
        }
    }

    /// Appends a pixel as ZRLE has it: in three bytes if those hold all of it.
    fn put_compact(self, colour: u32, out: &mut Vec<u8>) {
        let mask = self.max.iter().zip(self.shift).fold(0u32, |m, (max, shift)| m | u32::from(*max) << (shift & 31));
        let start = out.len();
        self.put(colour, out);
        if self.bits == 32 && self.depth <= 24 {
            // The byte that is always zero is the last in memory, or the first.
            let unused = match (mask >> 24 == 0, mask & 0xff == 0) {
                (true, _) => Some(if self.big_endian { 0 } else { 3 }),
                (_, true) => Some(if self.big_endian { 3 } else { 0 }),
                _ => None,
            };
            if let Some(unused) = unused {
                out.remove(start + unused);
            }
        }
    }
}

/// A part of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rect {
    /// Left edge.
    pub x: u16,
    /// Upper edge.
    pub y: u16,
    /// Width in pixels.
    pub width: u16,
    /// Height in pixels.
    pub height: u16,
}

/// What a client sees, as it was last sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Canvas {
    /// Pixels in a line.
    pub width: u16,
    /// Lines.
    pub height: u16,
    /// Line by line, 0x00RRGGBB.
    pub pixels: Vec<u32>,
}

impl Canvas {
    fn row(&self, rect: Rect, y: usize) -> &[u32] {
        let start = (usize::from(rect.y) + y) * usize::from(self.width) + usize::from(rect.x);
        self.pixels.get(start..start + usize::from(rect.width)).unwrap_or_default()
    }

    fn all(&self, rect: Rect) -> impl Iterator<Item = u32> + '_ {
        (0..usize::from(rect.height)).flat_map(move |y| self.row(rect, y).iter().copied())
    }
}

/// Pieces of at most `size` by `size` pixels, from left to right and down.
fn tiles(rect: Rect, size: u16) -> impl Iterator<Item = Rect> {
    let rows = (0..rect.height).step_by(usize::from(size));
    rows.flat_map(move |y| {
        (0..rect.width).step_by(usize::from(size)).map(move |x| Rect {
            x: rect.x + x,
            y: rect.y + y,
            width: size.min(rect.width - x),
            height: size.min(rect.height - y),
        })
    })
}

/// Appends `rect` in encoding Raw (7.7.1).
pub fn raw(canvas: &Canvas, rect: Rect, format: PixelFormat, out: &mut Vec<u8>) {
    canvas.all(rect).for_each(|pixel| format.put(pixel, out));
}

const HEXTILE_RAW: u8 = 1;
const HEXTILE_BACKGROUND: u8 = 2;
const HEXTILE_FOREGROUND: u8 = 4;
const HEXTILE_SUBRECTS: u8 = 8;
const HEXTILE_TILE: u16 = 16;

/// Appends `rect` in encoding Hextile (7.7.4): tiles of two colours as runs, others raw.
pub fn hextile(canvas: &Canvas, rect: Rect, format: PixelFormat, out: &mut Vec<u8>) {
    for tile in tiles(rect, HEXTILE_TILE) {
        let mut pixels = canvas.all(tile);
        let background = pixels.next().unwrap_or(0);
        let foreground = pixels.find(|pixel| *pixel != background);
        let runs = foreground.map_or(Some(Vec::new()), |foreground| hextile_runs(canvas, tile, background, foreground));
        match (runs, foreground) {
            (Some(runs), None) if runs.is_empty() => {
                out.push(HEXTILE_BACKGROUND);
                format.put(background, out);
            }
            (Some(runs), Some(foreground)) => {
                out.push(HEXTILE_BACKGROUND | HEXTILE_FOREGROUND | HEXTILE_SUBRECTS);
                format.put(background, out);
                format.put(foreground, out);
                out.push(runs.len() as u8);
                runs.iter().for_each(|run| out.extend(run));
            }
            _ => {
                out.push(HEXTILE_RAW);
                raw(canvas, tile, format, out);
            }
        }
    }
}

/// Runs of the foreground in a tile of two colours: their place and size in half bytes. `None` for more colours, and for more runs
/// than a byte counts.
fn hextile_runs(canvas: &Canvas, tile: Rect, background: u32, foreground: u32) -> Option<Vec<[u8; 2]>> {
    let mut runs = Vec::new();
    for y in 0..usize::from(tile.height) {
        let row = canvas.row(tile, y);
        let mut x = 0;
        while let Some(pixel) = row.get(x) {
            let run = row.iter().skip(x).take_while(|other| *other == pixel).count();
            if *pixel == foreground {
                runs.push([(x << 4 | y) as u8, ((run - 1) << 4) as u8]);
            } else if *pixel != background {
                return None;
            }
            x += run;
        }
    }
    (runs.len() <= 100).then_some(runs)
}

const ZRLE_TILE: u16 = 64;
const ZRLE_RAW: u8 = 0;
const ZRLE_SOLID: u8 = 1;
const ZRLE_RUNS: u8 = 128;
/// Colours of a tile that is packed.
const ZRLE_PALETTE: usize = 16;

/// Encodes rectangles as ZRLE (7.7.6): one stream of zlib for the whole connection.
#[derive(Debug)]
pub struct Zrle {
    zlib: Compress,
    tiles: Vec<u8>,
}

impl Default for Zrle {
    fn default() -> Self {
        Zrle { zlib: Compress::new(Compression::fast(), true), tiles: Vec::new() }
    }
}

impl Zrle {
    /// Appends `rect`. False when the compressor fails, which ends the connection.
    pub fn encode(&mut self, canvas: &Canvas, rect: Rect, format: PixelFormat, out: &mut Vec<u8>) -> bool {
        self.tiles.clear();
        for tile in tiles(rect, ZRLE_TILE) {
            zrle_tile(canvas, tile, format, &mut self.tiles);
        }
        let length_at = out.len();
        out.extend([0; 4]);
        let mut packed = Vec::with_capacity(self.tiles.len() / 2 + 64);
        let mut taken = 0;
        loop {
            packed.reserve(self.tiles.len() / 4 + 1024);
            let before = self.zlib.total_in();
            let rest = self.tiles.get(taken..).unwrap_or_default();
            match self.zlib.compress_vec(rest, &mut packed, FlushCompress::Sync) {
                Ok(Status::Ok | Status::BufError) => {}
                _ => return false,
            }
            taken += (self.zlib.total_in() - before) as usize;
            // With room left, all is flushed.
            if taken == self.tiles.len() && packed.len() < packed.capacity() {
                break;
            }
        }
        if let Some(length) = out.get_mut(length_at..length_at + 4) {
            length.copy_from_slice(&(packed.len() as u32).to_be_bytes());
        }
        out.extend(packed);
        true
    }
}

fn zrle_tile(canvas: &Canvas, tile: Rect, format: PixelFormat, out: &mut Vec<u8>) {
    let mut palette: Vec<u32> = Vec::with_capacity(ZRLE_PALETTE + 1);
    let (mut runs, mut last) = (0, None);
    for pixel in canvas.all(tile) {
        if last != Some(pixel) {
            runs += 1;
            last = Some(pixel);
            if palette.len() <= ZRLE_PALETTE && !palette.contains(&pixel) {
                palette.push(pixel);
            }
        }
    }
    let pixels = usize::from(tile.width) * usize::from(tile.height);
    match palette.len() {
        0 | 1 => {
            out.push(ZRLE_SOLID);
            format.put_compact(palette.first().copied().unwrap_or(0), out);
        }
        colours if colours <= ZRLE_PALETTE => {
            out.push(colours as u8);
            palette.iter().for_each(|colour| format.put_compact(*colour, out));
            zrle_packed(canvas, tile, &palette, out);
        }
        // A run costs a byte more than a pixel.
        _ if runs * 2 < pixels => {
            out.push(ZRLE_RUNS);
            zrle_runs(canvas, tile, format, out);
        }
        _ => {
            out.push(ZRLE_RAW);
            canvas.all(tile).for_each(|pixel| format.put_compact(pixel, out));
        }
    }
}

/// Indices of 1, 2 or 4 bits, each line from a byte on.
fn zrle_packed(canvas: &Canvas, tile: Rect, palette: &[u32], out: &mut Vec<u8>) {
    let bits = match palette.len() {
        2 => 1,
        3 | 4 => 2,
        _ => 4,
    };
    for y in 0..usize::from(tile.height) {
        for group in canvas.row(tile, y).chunks(8 / bits) {
            let byte = group.iter().enumerate().fold(0usize, |byte, (at, pixel)| {
                let index = palette.iter().position(|colour| colour == pixel).unwrap_or(0);
                byte | index << (8 - bits * (at + 1))
            });
            out.push(byte as u8);
        }
    }
}

fn zrle_runs(canvas: &Canvas, tile: Rect, format: PixelFormat, out: &mut Vec<u8>) {
    let mut pixels = canvas.all(tile).peekable();
    while let Some(pixel) = pixels.next() {
        let mut more = 0usize;
        while pixels.next_if_eq(&pixel).is_some() {
            more += 1;
        }
        format.put_compact(pixel, out);
        out.extend(std::iter::repeat_n(255, more / 255));
        out.push((more % 255) as u8);
    }
}

#[cfg(test)]
mod tests;
