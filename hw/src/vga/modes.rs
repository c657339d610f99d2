//! Modes as a video BIOS sets them, for machines that have none (IBM Personal System/2 Hardware Interface Technical
//! Reference, "Video subsystem", register values of the BIOS modes).

use font8x8::{BASIC_FONTS, BLOCK_FONTS, BOX_FONTS, GREEK_FONTS, LATIN_FONTS, UnicodeFonts};
use mimus_softmmu::Vram;

use super::regs::Regs;

/// Values of all registers.
pub(super) struct Mode {
    pub misc: u8,
    pub seq: [u8; 5],
    pub crtc: [u8; 25],
    pub gfx: [u8; 9],
    pub attr: [u8; 21],
}

/// Mode 3: text, 80 columns, 25 rows, 16 colours, characters of 9 by 16 dots.
pub(super) const TEXT_80X25: Mode = Mode {
    misc: 0x67,
    seq: [0x03, 0x00, 0x03, 0x00, 0x02],
    crtc: [
        0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0x00, 0x00, 0x00, 0x00, 0x9c, 0x8e,
        0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff,
    ],
    gfx: [0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0e, 0x00, 0xff],
    attr: [
        0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x0c, 0x00,
        0x0f, 0x08, 0x00,
    ],
};

/// What code page 437 has from 128 on, as Unicode.
const CODE_PAGE_437: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

/// What it has below 32, as far as Unicode has them.
const CODE_PAGE_437_LOW: &str = "\0☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼";

/// The Unicode character that code page 437 has at `code`.
pub fn code_page_437(code: u8) -> char {
    match code {
        0 => ' ',
        1..=31 => CODE_PAGE_437_LOW.chars().nth(usize::from(code)).unwrap_or(' '),
        32..=126 => char::from(code),
        127 => '⌂',
        _ => CODE_PAGE_437.chars().nth(usize::from(code - 128)).unwrap_or(' '),
    }
}

/// Sixteen rows of a character, leftmost dot in the highest bit: a font of eight rows, each twice.
fn glyph(code: u8) -> [u8; 16] {
    let character = code_page_437(code);
    let rows = BASIC_FONTS
        .get(character)
        .or_else(|| LATIN_FONTS.get(character))
        .or_else(|| BOX_FONTS.get(character))
        .or_else(|| BLOCK_FONTS.get(character))
        .or_else(|| GREEK_FONTS.get(character))
        .unwrap_or_default();
    std::array::from_fn(|row| rows.get(row / 2).copied().unwrap_or(0).reverse_bits())
}

/// The first 64 colours in text modes: two bits of red, green and blue each (EGA's rgbRGB), the rest black.
fn text_palette(dac: &mut [u8]) {
    for (index, colour) in dac.chunks_exact_mut(3).enumerate() {
        for (component, bit) in colour.iter_mut().zip([2u32, 1, 0]) {
            let (full, half) = (index >> bit & 1, index >> (bit + 3) & 1);
            *component = if index < 64 { (full * 0x2a + half * 0x15) as u8 } else { 0 };
        }
    }
}

/// Text mode 3 with an empty screen and a font, as a BIOS leaves it.
pub(super) fn set_text(regs: &mut Regs, vram: &Vram) {
    regs.load(&TEXT_80X25);
    text_palette(&mut regs.dac);
    for code in 0..=255u8 {
        for (row, dots) in (0u64..).zip(glyph(code)) {
            let at = (u64::from(code) * 32 + row) * 4;
            let [character, attribute, _, last] = vram.read_word(at);
            vram.write_word(at, [character, attribute, dots, last]);
        }
    }
    for cell in 0..0x4000 {
        let at = cell * 8;
        let [_, _, font, last] = vram.read_word(at);
        vram.write_word(at, [b' ', 0x07, font, last]);
    }
}
