//! What drives say of themselves: IDENTIFY DEVICE and IDENTIFY PACKET DEVICE (ATA/ATAPI-7 volume 1, 6.16 and 6.17; ACS-2, 7.12).

use super::disk::{Disk, Kind, MAX_MULTIPLE, MAX_RANGE_BLOCKS};

/// The best modes: multiword DMA 2, Ultra DMA 5, PIO 4.
const MULTIWORD: u8 = 2;
const ULTRA: u8 = 5;
const PIO: u8 = 4;

/// Sectors that 28 bits can name.
const MAX_LBA28: u64 = 0x0fff_ffff;
/// The largest geometry that words 1, 3 and 6 tell (6.16.3): cylinders, heads, sectors of a track.
const GEOMETRY: (u64, u64, u64) = (16383, 16, 63);
/// The fewest cylinders: a disk of less than one would have no first sector for the BIOS interface. QEMU's number.
const MIN_CYLINDERS: u64 = 2;

/// Whether SET FEATURES may choose this transfer mode (ACS-2, 7.45.4).
pub(super) fn has_mode(mode: u8) -> bool {
    match mode >> 3 {
        0 => mode <= 1,
        1 => mode & 7 <= PIO,
        4 => mode & 7 <= MULTIWORD,
        8 => mode & 7 <= ULTRA,
        _ => false,
    }
}

/// Bits of the modes up to the best, and in the upper byte the one that is chosen if `mode` is of this kind.
fn modes(best: u8, kind: u8, mode: u8) -> u16 {
    let chosen = if mode >> 3 == kind { 1u16 << 8 << (mode & 7) } else { 0 };
    ((2u16 << best) - 1) | chosen
}

/// Puts text into words: two characters each, the first in the upper byte, padded with blanks.
fn text(words: &mut [u16], text: &str) {
    let printable = text.bytes().map(|byte| if (0x20..0x7f).contains(&byte) { byte } else { b'_' });
    let mut bytes = printable.chain(std::iter::repeat(b' '));
    for word in words {
        let (first, second) = (bytes.next().unwrap_or(b' '), bytes.next().unwrap_or(b' '));
        *word = u16::from_be_bytes([first, second]);
    }
}

/// Firmware's revision: four characters, since INQUIRY (and a system that translates IDENTIFY to it) has no more.
pub(super) const REVISION: &str = concat!(env!("CARGO_PKG_VERSION_MAJOR"), ".", env!("CARGO_PKG_VERSION_MINOR"));

/// Puts a number into words, the low one first.
fn number(words: &mut [u16], value: u64) {
    for (index, word) in words.iter_mut().enumerate() {
        *word = (value >> (16 * index)) as u16;
    }
}

/// What a drive answers.
pub(super) fn identify(drive: &Disk) -> [u16; 256] {
    let mut words = [0; 256];
    match drive.kind {
        Kind::Disk => disk(drive, &mut words),
        Kind::CdRom => cd_rom(drive, &mut words),
    }
    let mode = drive.state.mode;
    text(&mut words[10..20], &drive.serial);
    let names = &drive.names;
    text(&mut words[23..27], if names.revision.is_empty() { REVISION } else { &names.revision });
    if !names.model.is_empty() {
        text(&mut words[27..47], &names.model);
    }
    if names.world_wide != 0 {
        // The highest word first; such a name is supported, and enabled.
        (0..4).for_each(|index| words[108 + index] = (names.world_wide >> (48 - 16 * index)) as u16);
        words[84] |= 1 << 14 | 1 << 8;
        words[87] |= 1 << 14 | 1 << 8;
    }
    // Words 64 to 70 and 88 are valid.
    words[53] |= 6;
    words[63] = modes(MULTIWORD, 4, mode);
    // PIO 3 and 4; nanoseconds of a cycle.
    words[64] = 3;
    words[65..69].fill(120);
    words[88] = modes(ULTRA, 8, mode);
    // The cable has 80 conductors, and this is device 0 as it was found by the reset.
    words[93] = 1 << 14 | 1 << 13 | 1;
    words
}

/// Cylinders, heads, and sectors of a track of a disk of `sectors`.
pub(crate) fn geometry(sectors: u64) -> (u64, u64, u64) {
    let (max_cylinders, heads, track) = GEOMETRY;
    ((sectors / (heads * track)).clamp(MIN_CYLINDERS, max_cylinders), heads, track)
}

fn disk(drive: &Disk, words: &mut [u16; 256]) {
    let sectors = drive.bytes() / 512;
    let state = &drive.state;
    let (cylinders, heads, track) = geometry(sectors);
    text(&mut words[27..47], &format!("{} HARDDISK", drive.maker));
    // Not removable.
    words[0] = 1 << 6;
    number(&mut words[1..2], cylinders);
    number(&mut words[3..4], heads);
    number(&mut words[6..7], track);
    words[47] = 0x8000 | u16::from(MAX_MULTIPLE);
    // IORDY, LBA, DMA.
    words[49] = 1 << 11 | 1 << 9 | 1 << 8;
    words[50] = 1 << 14;
    // Words 54 to 58 are valid: the geometry that is in use, and what it reaches.
    words[53] = 1;
    let (now_heads, now_track) = (u64::from(state.heads.max(1)), u64::from(state.track.max(1)));
    let now_cylinders = (sectors / (now_heads * now_track)).clamp(MIN_CYLINDERS, 0xffff);
    number(&mut words[54..55], now_cylinders);
    number(&mut words[55..56], now_heads);
    number(&mut words[56..57], now_track);
    number(&mut words[57..59], now_cylinders * now_heads * now_track);
    if state.multiple != 0 {
        words[59] = 1 << 8 | u16::from(state.multiple);
    }
    number(&mut words[60..62], sectors.min(MAX_LBA28));
    // ATA-4 to ATA/ATAPI-7.
    words[80] = 0xf0;
    // Supported: NOP is not, write cache, power management, look-ahead; then FLUSH CACHE (EXT) and 48 bits.
    words[82] = 1 << 6 | 1 << 5 | 1 << 3;
    words[83] = 1 << 14 | 1 << 13 | 1 << 12 | 1 << 10;
    words[84] = 1 << 14;
    // The same, enabled.
    words[85] = 1 << 6 | 1 << 3 | if state.write_cache { 1 << 5 } else { 0 };
    words[86] = 1 << 13 | 1 << 12 | 1 << 10;
    words[87] = 1 << 14;
    number(&mut words[100..104], sectors);
    if drive.info().is_some_and(|info| info.discard && !info.read_only) {
        words[105] = MAX_RANGE_BLOCKS.into();
        words[169] = 1;
    }
}

fn cd_rom(drive: &Disk, words: &mut [u16; 256]) {
    text(&mut words[27..47], &format!("{} DVD-ROM", drive.maker));
    // A packet device, CD-ROM, removable, ready for the packet within 50 µs, packets of 12 bytes.
    words[0] = 2 << 14 | 5 << 8 | 1 << 7 | 2 << 5;
    words[49] = 1 << 11 | 1 << 9 | 1 << 8;
    // ATA-4 to ATA/ATAPI-7.
    words[80] = 0xf0;
    // DEVICE RESET, PACKET, power management.
    words[82] = 1 << 9 | 1 << 4 | 1 << 3;
    words[83] = 1 << 14;
    words[84] = 1 << 14;
    words[85] = words[82];
    words[87] = 1 << 14;
}
