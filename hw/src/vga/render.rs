//! What the registers and the display memory look like: pixels, and text where there is any.

use mimus_softmmu::{DirtyPages, Vram};

use super::memory::PLANE;
use super::regs::Regs;
use super::timing::vertical_display_end;

/// Nanoseconds after which the cursor changes between shown and not: 16 frames at 70 Hz. Characters blink half as often.
const BLINK: u64 = 228_571_429;

/// Bytes of display memory that modes with planes and text use.
const PLANAR: u64 = 4 * PLANE;

/// Size of the picture when no mode is set.
const NO_MODE: (u32, u32) = (640, 480);

/// Fewer dots than this in a line or lines in a frame are no mode but registers that are being set.
const LEAST: u32 = 16;

/// A picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Pixels in a line.
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// Line by line, 0x00RRGGBB.
    pub pixels: Vec<u32>,
}

impl Frame {
    /// A black one.
    pub fn new(width: u32, height: u32) -> Frame {
        Frame { width, height, pixels: vec![0; width as usize * height as usize] }
    }

    /// The pixels of line `y`; none outside.
    pub fn line(&self, y: u32) -> &[u32] {
        let width = self.width as usize;
        self.pixels.get(y as usize * width..(y as usize + 1) * width).unwrap_or_default()
    }
}

/// What a text mode shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// Characters in a row.
    pub columns: usize,
    /// Rows.
    pub rows: usize,
    /// Row by row: the character and its attribute (foreground in the low four bits, background above).
    pub cells: Vec<(u8, u8)>,
    /// Where the cursor is, as column and row, if it is shown.
    pub cursor: Option<(usize, usize)>,
}

/// A picture that is kept up to date.
#[derive(Debug)]
pub struct Screen {
    frame: Frame,
    text: Option<Text>,
    /// For each line, when it last changed.
    changed: Vec<u64>,
    now: u64,
    seen: Option<(u64, u64)>,
    memory: Vec<u8>,
    line: Vec<u32>,
}

impl Default for Screen {
    fn default() -> Self {
        let (width, height) = NO_MODE;
        Screen {
            frame: Frame::new(width, height),
            text: None,
            changed: vec![0; height as usize],
            now: 0,
            seen: None,
            memory: Vec::new(),
            line: Vec::new(),
        }
    }
}

impl Screen {
    /// The picture.
    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    /// The text it shows, if it shows text.
    pub fn text(&self) -> Option<&Text> {
        self.text.as_ref()
    }

    /// How many times the picture has changed.
    pub fn version(&self) -> u64 {
        self.now
    }

    /// Whether line `y` has changed since the picture had this version.
    pub fn has_changed(&self, y: u32, version: u64) -> bool {
        self.changed.get(y as usize).is_some_and(|changed| *changed > version)
    }

    /// Brings the picture up to date at guest time `now`: `dirty` are the pages written since the last time. Whether
    /// anything has changed.
    pub fn update(&mut self, regs: &Regs, vram: &Vram, dirty: &DirtyPages, now: u64) -> bool {
        let blink = if regs.vbe.is_on() || regs.gfx[6] & 1 != 0 { 0 } else { (now / BLINK) & 3 };
        let seen = Some((regs.changes(), blink));
        let all = std::mem::replace(&mut self.seen, seen) != seen;
        let before = self.now;
        self.now += 1;
        let view = View::of(regs, blink);
        if !view.is_valid() || !regs.is_displaying() && !regs.vbe.is_on() {
            self.text = None;
            self.blank();
        } else {
            self.resize(view.width, view.height);
            if regs.vbe.is_linear() {
                self.draw_linear(&view, vram, dirty, all);
            } else if all || dirty.touches(0, view.planar_bytes()) {
                self.draw_planar(&view, vram);
            }
        }
        let any = self.changed.iter().any(|changed| *changed > before);
        if !any {
            self.now = before;
        }
        any
    }

    fn resize(&mut self, width: u32, height: u32) {
        if (self.frame.width, self.frame.height) != (width, height) {
            self.frame = Frame::new(width, height);
            self.changed = vec![self.now; height as usize];
        }
    }

    fn blank(&mut self) {
        let width = self.frame.width as usize;
        for (line, changed) in self.frame.pixels.chunks_exact_mut(width.max(1)).zip(&mut self.changed) {
            if line.iter().any(|pixel| *pixel != 0) {
                line.fill(0);
                *changed = self.now;
            }
        }
    }

    /// Replaces line `y` by `self.line` if it differs.
    fn put(&mut self, y: u32) {
        let width = self.frame.width as usize;
        let old = self.frame.pixels.get_mut(y as usize * width..(y as usize + 1) * width);
        if let (Some(old), Some(new), Some(changed)) = (old, self.line.get(..width), self.changed.get_mut(y as usize))
            && old != new
        {
            old.copy_from_slice(new);
            *changed = self.now;
        }
    }

    fn draw_linear(&mut self, view: &View<'_>, vram: &Vram, dirty: &DirtyPages, all: bool) {
        self.text = None;
        let vbe = &view.regs.vbe;
        let bytes = u64::from(vbe.bpp.div_ceil(8));
        let start = u64::from(vbe.y_offset) * vbe.pitch() + u64::from(vbe.x_offset) * bytes;
        let len = u64::from(view.width) * bytes;
        for y in 0..view.height {
            let at = start + u64::from(y) * vbe.pitch();
            // A first drawing finds the new lines changed already.
            if all || dirty.touches(at, len) {
                self.memory.resize(len as usize, 0);
                vram.copy_to(at, &mut self.memory);
                self.line.clear();
                view.linear_line(&self.memory, &mut self.line);
                self.put(y);
            }
        }
    }

    fn draw_planar(&mut self, view: &View<'_>, vram: &Vram) {
        self.memory.resize(view.planar_bytes() as usize, 0);
        vram.copy_to(0, &mut self.memory);
        let mut walk = Walk::of(view);
        for y in 0..view.height {
            self.line.clear();
            view.planar_line(&self.memory, &walk, &mut self.line);
            self.put(y);
            walk.next(y);
        }
        self.text = view.is_text().then(|| view.text(&self.memory));
    }
}

/// What the registers say about the picture.
struct View<'a> {
    regs: &'a Regs,
    width: u32,
    height: u32,
    /// Characters, or groups of eight pixels, in a line.
    columns: usize,
    palette: Vec<u32>,
    colours: [u32; 16],
    blink: u64,
}

impl View<'_> {
    fn of(regs: &Regs, blink: u64) -> View<'_> {
        let (width, height, columns) = if regs.vbe.is_on() {
            (u32::from(regs.vbe.xres), u32::from(regs.vbe.yres), usize::from(regs.vbe.xres / 8))
        } else {
            let columns = usize::from(regs.crtc[1]) + 1;
            let width = columns as u32 * View::dots(regs) * if regs.seq[1] & 8 != 0 { 2 } else { 1 };
            (width, u32::from(vertical_display_end(regs)) + 1, columns)
        };
        let palette = regs.palette();
        let colours = regs.palette_16(&palette);
        View { regs, width, height, columns, palette, colours, blink }
    }

    /// Dots in a character.
    fn dots(regs: &Regs) -> u32 {
        if regs.gfx[6] & 1 == 0 && regs.seq[1] & 1 == 0 { 9 } else { 8 }
    }

    fn is_valid(&self) -> bool {
        self.width >= LEAST && self.height >= LEAST
    }

    fn is_text(&self) -> bool {
        self.regs.gfx[6] & 1 == 0 && !self.regs.vbe.is_on()
    }

    /// Bytes of display memory that are looked at.
    fn planar_bytes(&self) -> u64 {
        let vbe = &self.regs.vbe;
        match vbe.is_on() {
            // Four planes; `fit` has made sure that there is as much.
            true => 4 * vbe.pitch() * (u64::from(vbe.y_offset) + u64::from(vbe.yres)).max(1),
            false => PLANAR,
        }
    }

    fn linear_line(&self, bytes: &[u8], out: &mut Vec<u32>) {
        let scale5 = |value: u32| value << 3 | value >> 2;
        let scale6 = |value: u32| value << 2 | value >> 4;
        let word = |b: &[u8]| u32::from(b[0]) | u32::from(b[1]) << 8;
        match self.regs.vbe.bpp {
            8 => out.extend(bytes.iter().map(|index| self.colour(*index))),
            15 => out.extend(
                bytes
                    .chunks_exact(2)
                    .map(word)
                    .map(|v| scale5(v >> 10 & 0x1f) << 16 | scale5(v >> 5 & 0x1f) << 8 | scale5(v & 0x1f)),
            ),
            16 => out.extend(
                bytes
                    .chunks_exact(2)
                    .map(word)
                    .map(|v| scale5(v >> 11) << 16 | scale6(v >> 5 & 0x3f) << 8 | scale5(v & 0x1f)),
            ),
            24 => out.extend(bytes.chunks_exact(3).map(|b| word(b) | u32::from(b[2]) << 16)),
            _ => out.extend(bytes.chunks_exact(4).map(|b| word(b) | u32::from(b[2]) << 16)),
        }
    }

    /// The colour that a byte of a pixel stands for.
    fn colour(&self, index: u8) -> u32 {
        self.palette.get(usize::from(index & self.regs.dac_mask)).copied().unwrap_or(0)
    }

    /// The byte of each plane that the CRT controller fetches at count `count` in row `scan` of a character.
    fn fetch<'m>(&self, memory: &'m [u8], count: u64, scan: u64) -> &'m [u8] {
        let crtc = &self.regs.crtc;
        let (mode, underline) = (crtc[0x17], crtc[0x14]);
        let address = if self.regs.vbe.is_on() {
            count
        } else {
            let count = count & 0xffff;
            let address = if underline & 0x40 != 0 {
                count << 2 | count >> 14
            } else if mode & 0x40 == 0 {
                count << 1 | count >> if mode & 0x20 != 0 { 15 } else { 13 } & 1
            } else {
                count
            };
            // The 6845's way to address rows of a character, for modes that are the CGA's.
            let address = if mode & 1 == 0 { address & !0x2000 | (scan & 1) << 13 } else { address };
            let address = if mode & 2 == 0 { address & !0x4000 | (scan >> 1 & 1) << 14 } else { address };
            address & (PLANE - 1)
        };
        memory.get(address as usize * 4..address as usize * 4 + 4).unwrap_or(&[0; 4])
    }

    /// Dots that the picture is shifted to the left by.
    fn panning(&self, walk: &Walk) -> usize {
        if walk.split && self.regs.attr[0x10] & 0x20 != 0 || self.regs.vbe.is_on() {
            return 0;
        }
        let pan = usize::from(self.regs.attr[0x13] & 0xf);
        match (View::dots(self.regs), self.shift()) {
            // With nine dots 8 is none, and 0 one.
            (9, _) => (pan + 1) % 9,
            (_, Shift::Bytes) => (pan / 2) & 3,
            _ => pan & 7,
        }
    }

    fn shift(&self) -> Shift {
        match self.regs.gfx[5] >> 5 & 3 {
            0 => Shift::Planes,
            1 => Shift::Pairs,
            _ => Shift::Bytes,
        }
    }

    fn planar_line(&self, memory: &[u8], walk: &Walk, out: &mut Vec<u32>) {
        let crtc = &self.regs.crtc;
        let slower = match (crtc[0x14] & 0x20, crtc[0x17] & 8) {
            _ if self.regs.vbe.is_on() => 1,
            (0, 0) => 1,
            (0, _) => 2,
            _ => 4,
        };
        let mut dots = Vec::with_capacity((self.columns + 1) * 9);
        // One more, which panning shows a part of.
        for column in 0..=self.columns as u64 {
            let count = walk.start + column / slower;
            let planes = self.fetch(memory, count, walk.scan);
            if self.is_text() {
                self.character(memory, planes, count, walk, &mut dots);
            } else {
                self.group(planes, &mut dots);
            }
        }
        let pan = self.panning(walk);
        let wide = if self.regs.seq[1] & 8 != 0 && !self.regs.vbe.is_on() { 2 } else { 1 };
        let wide = if matches!(self.shift(), Shift::Bytes) && !self.is_text() { wide * 2 } else { wide };
        out.extend(dots.iter().skip(pan).flat_map(|dot| std::iter::repeat_n(*dot, wide)).take(self.width as usize));
        out.resize(self.width as usize, 0);
    }

    /// The pixels of one fetch in a graphics mode.
    fn group(&self, planes: &[u8], out: &mut Vec<u32>) {
        let &[a, b, c, d] = planes else { return };
        let enable = self.regs.attr[0x12] & 0xf;
        let colour = |index: u8| self.colours[usize::from(index & enable & 0xf)];
        match self.shift() {
            Shift::Planes => {
                out.extend((0..8).rev().map(|bit| {
                    colour((a >> bit & 1) | (b >> bit & 1) << 1 | (c >> bit & 1) << 2 | (d >> bit & 1) << 3)
                }))
            }
            Shift::Pairs => {
                for (low, high) in [(a, c), (b, d)] {
                    out.extend([6, 4, 2, 0].map(|bit| colour((low >> bit & 3) | (high >> bit & 3) << 2)));
                }
            }
            Shift::Bytes => out.extend([a, b, c, d].map(|index| self.colour(index))),
        }
    }

    /// The dots of a character in one line.
    fn character(&self, memory: &[u8], planes: &[u8], count: u64, walk: &Walk, out: &mut Vec<u32>) {
        let &[code, attribute, ..] = planes else { return };
        let regs = self.regs;
        let blinks = regs.attr[0x10] & 8 != 0;
        let mut foreground = attribute & 0xf;
        let background = if blinks { attribute >> 4 & 7 } else { attribute >> 4 };
        let select = regs.seq[3];
        let map = match attribute & 8 {
            0 => select & 3 | select >> 2 & 4,
            _ => select >> 2 & 3 | select >> 3 & 4,
        };
        // Maps 4 to 7 lie between maps 0 to 3.
        let map = (u64::from(map & 3) * 0x4000) | (u64::from(map >> 2) * 0x2000);
        let at = (map + u64::from(code) * 32 + (walk.scan & 0x1f)) * 4 + 2;
        let mut dots = memory.get(at as usize).copied().unwrap_or(0);
        if attribute & 0x77 == 0x01 && walk.scan == u64::from(regs.crtc[0x14] & 0x1f) {
            dots = 0xff;
        }
        if blinks && attribute & 0x80 != 0 && self.blink & 2 != 0 {
            foreground = background;
        }
        if self.cursor_at(count) && self.blink & 1 == 0 && self.cursor_lines().contains(&(walk.scan as u8)) {
            dots = 0xff;
        }
        let (on, off) = (self.colours[usize::from(foreground & 0xf)], self.colours[usize::from(background & 0xf)]);
        out.extend((0..8).rev().map(|bit| if dots >> bit & 1 != 0 { on } else { off }));
        if View::dots(regs) == 9 {
            // Lines of boxes go on in the ninth dot.
            let joins = regs.attr[0x10] & 4 != 0 && (0xc0..=0xdf).contains(&code);
            out.push(if joins && dots & 1 != 0 { on } else { off });
        }
    }

    fn cursor_at(&self, count: u64) -> bool {
        count & 0xffff == u64::from(self.regs.crtc[0x0e]) << 8 | u64::from(self.regs.crtc[0x0f])
    }

    /// Lines of a character that the cursor covers; none when it is off.
    fn cursor_lines(&self) -> std::ops::Range<u8> {
        let (start, end) = (self.regs.crtc[0x0a], self.regs.crtc[0x0b] & 0x1f);
        if start & 0x20 != 0 { 0..0 } else { start & 0x1f..end + 1 }
    }

    fn text(&self, memory: &[u8]) -> Text {
        let scan_lines = u32::from(self.regs.crtc[9] & 0x1f) + 1;
        let doubled = if self.regs.crtc[9] & 0x80 != 0 { 2 } else { 1 };
        let rows = (self.height / (scan_lines * doubled)).max(1) as usize;
        let mut walk = Walk::of(self);
        let mut text = Text { columns: self.columns, rows, cells: Vec::new(), cursor: None };
        let shown = !self.cursor_lines().is_empty();
        for row in 0..rows {
            for column in 0..self.columns {
                let count = walk.start + column as u64;
                let planes = self.fetch(memory, count, 0);
                text.cells.push((planes.first().copied().unwrap_or(0), planes.get(1).copied().unwrap_or(0)));
                if shown && self.cursor_at(count) {
                    text.cursor = Some((column, row));
                }
            }
            walk.start += walk.stride;
        }
        text
    }
}

/// How the bits of a fetch become pixels.
enum Shift {
    /// A bit from each plane.
    Planes,
    /// Two bits from two planes.
    Pairs,
    /// A byte.
    Bytes,
}

/// The CRT controller's way down the picture.
struct Walk {
    /// Count at the beginning of the line.
    start: u64,
    /// Line within the row of characters.
    scan: u64,
    /// The line is shown again.
    again: bool,
    /// Past the line at which the picture is split.
    split: bool,
    stride: u64,
    last_scan: u64,
    doubled: bool,
    compare: u32,
}

impl Walk {
    fn of(view: &View<'_>) -> Walk {
        let crtc = &view.regs.crtc;
        let vbe = &view.regs.vbe;
        if vbe.is_on() {
            let start = u64::from(vbe.y_offset) * vbe.pitch() + u64::from(vbe.x_offset / 8);
            let never = u32::MAX;
            return Walk {
                start,
                scan: 0,
                again: false,
                split: false,
                stride: vbe.pitch(),
                last_scan: 0,
                doubled: false,
                compare: never,
            };
        }
        let overflow = u32::from(crtc[7] & 0x10) << 4 | u32::from(crtc[9] & 0x40) << 3;
        Walk {
            start: (u64::from(crtc[0x0c]) << 8 | u64::from(crtc[0x0d])) + u64::from(crtc[8] >> 5 & 3),
            scan: u64::from(crtc[8] & 0x1f),
            again: false,
            split: false,
            stride: u64::from(crtc[0x13]) * 2,
            last_scan: u64::from(crtc[9] & 0x1f),
            doubled: crtc[9] & 0x80 != 0,
            compare: u32::from(crtc[0x18]) | overflow,
        }
    }

    /// Goes on from line `y` to the next.
    fn next(&mut self, y: u32) {
        if y == self.compare {
            self.start = 0;
            self.scan = 0;
            self.again = false;
            self.split = true;
            return;
        }
        if self.doubled && !self.again {
            self.again = true;
            return;
        }
        self.again = false;
        // A preset line past the last one counts up to 31 first, as five bits do.
        self.scan = if self.scan == self.last_scan { 0 } else { (self.scan + 1) & 0x1f };
        if self.scan == 0 {
            self.start += self.stride;
        }
    }
}
