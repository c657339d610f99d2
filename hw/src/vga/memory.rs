//! The window at 0xa0000: four planes behind the sequencer and the graphics controller, or a bank of a linear mode.

use mimus_softmmu::Vram;

use super::regs::Regs;
use super::vbe::BANK;

/// First address and size in bytes of the window.
pub const WINDOW: u64 = 0xa_0000;
/// Size of the window in bytes.
pub const WINDOW_SIZE: u64 = 0x2_0000;

/// Bytes in a plane that the CRT controller displays from.
pub(super) const PLANE: u64 = 0x1_0000;

/// Offset and length in the window of what is mapped, by bits 2 and 3 of the miscellaneous graphics register.
const MAPS: [(u64, u64); 4] = [(0, 0x2_0000), (0, 0x1_0000), (0x1_0000, 0x8000), (0x1_8000, 0x8000)];

/// Sequencer register 4.
const SEQ_SEQUENTIAL: u8 = 1 << 2;
const SEQ_CHAIN_4: u8 = 1 << 3;
/// Graphics register 5.
const GFX_READ_COMPARE: u8 = 1 << 3;
const GFX_ODD_EVEN: u8 = 1 << 4;

/// All bits of the planes in `mask`.
fn expand(mask: u8) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|plane| if mask >> plane & 1 != 0 { 0xff } else { 0 }))
}

/// The same byte for each plane.
fn replicate(byte: u8) -> u32 {
    u32::from_le_bytes([byte; 4])
}

/// Where an access of the CPU goes.
enum WindowAccess {
    /// A byte of a linear mode.
    Linear(u64),
    /// A byte of each of some planes; the offset is of the four bytes, which lie side by side.
    Planes { offset: u64, planes: u8, plane: usize },
}

/// What is at `offset` of the window. The way that bytes alternate between planes may differ for reading and writing.
fn access(regs: &Regs, offset: u64, write: bool) -> Option<WindowAccess> {
    if !regs.ram_enabled() {
        return None;
    }
    let bank = u64::from(regs.vbe.bank) * BANK;
    let (base, len) = MAPS[usize::from(regs.gfx[6] >> 2 & 3)];
    let at = offset.checked_sub(base).filter(|at| *at < len)?;
    if regs.vbe.is_linear() {
        return Some(WindowAccess::Linear(bank + (at & (BANK - 1))));
    }
    let odd_even = if write { regs.seq[4] & SEQ_SEQUENTIAL == 0 } else { regs.gfx[5] & GFX_ODD_EVEN != 0 };
    let (at, planes, plane) = if regs.seq[4] & SEQ_CHAIN_4 != 0 {
        (at & !3, 1 << (at & 3), (at & 3) as usize)
    } else if odd_even {
        (at & !1, 0b0101 << (at & 1), usize::from(regs.gfx[4] & 2) | (at & 1) as usize)
    } else {
        (at, 0b1111, usize::from(regs.gfx[4] & 3))
    };
    let at = if regs.vbe.is_on() { bank + at } else { at & (PLANE - 1) };
    Some(WindowAccess::Planes { offset: at * 4, planes, plane })
}

/// Reads the byte at `offset` of the window; all ones where nothing is.
pub(super) fn read(regs: &mut Regs, vram: &Vram, offset: u64) -> u8 {
    match access(regs, offset, false) {
        None => 0xff,
        Some(WindowAccess::Linear(at)) => vram.read(at, 1) as u8,
        Some(WindowAccess::Planes { offset, plane, .. }) => {
            regs.latch = vram.read_word(offset);
            if regs.gfx[5] & GFX_READ_COMPARE == 0 {
                return regs.latch[plane & 3];
            }
            let differs = (u32::from_le_bytes(regs.latch) ^ expand(regs.gfx[2])) & expand(regs.gfx[7]);
            let [a, b, c, d] = differs.to_le_bytes();
            !(a | b | c | d)
        }
    }
}

/// Writes the byte at `offset` of the window.
pub(super) fn write(regs: &mut Regs, vram: &Vram, offset: u64, value: u8) {
    match access(regs, offset, true) {
        None => {}
        Some(WindowAccess::Linear(at)) => vram.write(at, 1, u64::from(value)),
        Some(WindowAccess::Planes { offset, planes, .. }) => {
            let planes = expand(planes & regs.seq[2]);
            let new = through_the_graphics_controller(regs, value);
            let old = u32::from_le_bytes(vram.read_word(offset));
            vram.write_word(offset, (old & !planes | new & planes).to_le_bytes());
        }
    }
}

/// What the graphics controller makes of a byte that the CPU writes, for each plane.
fn through_the_graphics_controller(regs: &Regs, value: u8) -> u32 {
    let gfx = &regs.gfx;
    let latch = u32::from_le_bytes(regs.latch);
    let rotated = value.rotate_right(u32::from(gfx[3] & 7));
    let set_reset = expand(gfx[0]);
    let (data, mask) = match gfx[5] & 3 {
        0 => {
            let enabled = expand(gfx[1]);
            (replicate(rotated) & !enabled | set_reset & enabled, gfx[8])
        }
        1 => return latch,
        2 => (expand(value), gfx[8]),
        _ => (set_reset, gfx[8] & rotated),
    };
    let data = match gfx[3] >> 3 & 3 {
        0 => data,
        1 => data & latch,
        2 => data | latch,
        _ => data ^ latch,
    };
    let mask = replicate(mask);
    data & mask | latch & !mask
}
