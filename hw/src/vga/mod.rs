//! A VGA with the Bochs VBE extensions: what QEMU's `-vga std` is. Registers, display memory, and the picture they make.

mod edid;
mod memory;
mod modes;
mod pci;
mod regs;
mod render;
mod timing;
mod vbe;

use std::sync::Arc;

use mimus_softmmu::{DirtyPages, Vram};
use serde::{Deserialize, Serialize};

pub use edid::{EDID_SIZE, edid};
pub use memory::{WINDOW, WINDOW_SIZE};
pub use modes::code_page_437;
pub use pci::{DEVFN, StdVga};
pub use regs::Regs;
pub use render::{Frame, Screen, Text};

/// First and last port of the VGA.
pub const PORTS: (u16, u16) = (0x3b0, 0x3df);
/// First and last port of the Bochs VBE extensions, a word each: index and data.
pub const VBE_PORTS: (u16, u16) = (0x1ce, 0x1cf);

/// Size of the display memory in bytes, if nobody says.
pub const VRAM_SIZE: u64 = 16 << 20;

/// The monitor's native mode, if nobody says: width and height in pixels.
pub const NATIVE_MODE: (u16, u16) = (1280, 800);

/// The largest mode that a monitor has for its native one: width and height in pixels.
pub const LARGEST_MODE: (u16, u16) = (2560, 1600);

/// Display memory is saved in pieces of as many bytes, those of zeroes left out.
const PIECE: u64 = 4096;

/// The adapter.
#[derive(Debug)]
pub struct Vga {
    regs: Regs,
    vram: Arc<Vram>,
    edid: Option<[u8; EDID_SIZE]>,
}

/// State of a [`Vga`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VgaState {
    regs: Regs,
    /// Offset and bytes of what is not zero.
    memory: Vec<(u64, Vec<u8>)>,
}

impl Vga {
    /// An adapter just switched on, with this display memory.
    pub fn new(vram: Arc<Vram>) -> Vga {
        let (width, height) = NATIVE_MODE;
        Vga { regs: Regs::new(vram.len()), vram, edid: Some(edid(width, height)) }
    }

    /// What it says of its monitor, if it has one that tells.
    pub fn set_edid(&mut self, edid: Option<[u8; EDID_SIZE]>) {
        self.edid = edid;
    }

    /// The display memory.
    pub fn vram(&self) -> &Arc<Vram> {
        &self.vram
    }

    /// The registers: what [`Screen::update`] makes a picture of.
    pub fn regs(&self) -> &Regs {
        &self.regs
    }

    /// Changes whenever the picture may be another for the same display memory.
    pub fn changes(&self) -> u64 {
        self.regs.changes()
    }

    /// The reset line. Display memory keeps what it has.
    pub fn reset(&mut self) {
        let changes = self.regs.changes();
        self.regs = Regs::new(self.vram.len());
        self.regs.follow(changes);
    }

    /// Sets text mode 3 with an empty screen, as a video BIOS leaves it, for a machine without one.
    pub fn set_text_mode(&mut self) {
        modes::set_text(&mut self.regs, &self.vram);
    }

    /// Sets a linear mode with 32 bits a pixel, as a boot loader does by way of a video BIOS. False if it is not to be had.
    pub fn set_linear_mode(&mut self, width: u16, height: u16) -> bool {
        let values = [
            (vbe::INDEX_ENABLE, 0),
            (vbe::INDEX_XRES, width),
            (vbe::INDEX_YRES, height),
            (vbe::INDEX_BPP, 32),
            (vbe::INDEX_ENABLE, vbe::ENABLED | vbe::LINEAR),
        ];
        for (index, value) in values {
            self.write_vbe(index, value);
        }
        (self.regs.vbe.xres, self.regs.vbe.yres) == (width, height)
    }

    /// Reads a byte at `port` (0x3b0 to 0x3df) at guest time `now`.
    pub fn read_port(&mut self, now: u64, port: u16) -> u8 {
        self.regs.read(now, port)
    }

    /// Writes a byte at `port` (0x3b0 to 0x3df).
    pub fn write_port(&mut self, port: u16, value: u8) {
        self.regs.write(port, value);
    }

    /// Reads 2 bytes at VBE port `port` (0x1ce or 0x1cf).
    pub fn read_vbe_port(&self, port: u16) -> u16 {
        match port {
            0x1ce => self.regs.vbe.index,
            _ => self.regs.vbe.read(self.regs.vbe.index),
        }
    }

    /// Writes 2 bytes at VBE port `port` (0x1ce or 0x1cf).
    pub fn write_vbe_port(&mut self, port: u16, value: u16) {
        match port {
            0x1ce => self.regs.vbe.index = value,
            _ => self.write_vbe(self.regs.vbe.index, value),
        }
    }

    fn write_vbe(&mut self, index: u16, value: u16) {
        let clear = self.regs.vbe.write(index, value);
        if let Some(bytes) = clear {
            self.vram.clear(0, bytes);
        }
        self.regs.touch();
    }

    /// Reads `size` (1 to 8) bytes at `offset` of the window at [`WINDOW`], low addresses first.
    pub fn read_window(&mut self, offset: u64, size: u8) -> u64 {
        let bytes = (0..u64::from(size.min(8))).map(|byte| memory::read(&mut self.regs, &self.vram, offset + byte));
        bytes.zip(0u32..).fold(0, |value, (byte, at)| value | u64::from(byte) << (8 * at))
    }

    /// Writes the low `size` (1 to 8) bytes of `value` at `offset` of the window at [`WINDOW`].
    pub fn write_window(&mut self, offset: u64, size: u8, value: u64) {
        for (at, byte) in (offset..offset + u64::from(size.min(8))).zip(value.to_le_bytes()) {
            memory::write(&mut self.regs, &self.vram, at, byte);
        }
    }

    /// Reads `size` bytes at `offset` of the registers in memory: the monitor's data, the VGA's ports from 0x400 on, the VBE registers from
    /// 0x500 on, and QEMU's extension with the byte order from 0x600 on (QEMU's documentation, "QEMU Standard VGA").
    pub fn read_mmio(&mut self, now: u64, offset: u64, size: u8) -> u64 {
        let byte = |vga: &mut Vga, at: u64| match at {
            0..=0x3ff => vga.edid.and_then(|edid| edid.get(at as usize).copied()).unwrap_or(0),
            0x400..=0x41f => vga.regs.read(now, 0x3c0 + (at - 0x400) as u16),
            0x500..=0x515 => {
                let [low, high] = vga.regs.vbe.read((at - 0x500) as u16 / 2).to_le_bytes();
                if at & 1 == 0 { low } else { high }
            }
            // Size of the extension; byte order: always little-endian.
            0x600 => 8,
            0x604..=0x607 => 0x1e,
            _ => 0,
        };
        let bytes = (0..u64::from(size.min(8))).map(|at| u64::from(byte(self, offset + at)) << (8 * at));
        bytes.fold(0, |value, byte| value | byte)
    }

    /// Writes the low `size` bytes of `value` at `offset` of the registers in memory.
    pub fn write_mmio(&mut self, offset: u64, size: u8, value: u64) {
        match offset {
            0x400..=0x41f => {
                for (at, byte) in (offset..(offset + u64::from(size.min(8))).min(0x420)).zip(value.to_le_bytes()) {
                    self.regs.write(0x3c0 + (at - 0x400) as u16, byte);
                }
            }
            0x500..=0x515 if offset & 1 == 0 && size >= 2 => self.write_vbe((offset - 0x500) as u16 / 2, value as u16),
            _ => {}
        }
    }

    /// The adapter's state with what is in its memory.
    pub fn save(&self) -> VgaState {
        let mut memory = Vec::new();
        let mut piece = vec![0; PIECE as usize];
        for offset in (0..self.vram.len()).step_by(PIECE as usize) {
            self.vram.copy_to(offset, &mut piece);
            if piece.iter().any(|byte| *byte != 0) {
                memory.push((offset, piece.clone()));
            }
        }
        VgaState { regs: self.regs.saved(), memory }
    }

    /// Whether [`Vga::restore`] would take `state`.
    pub fn fits(&self, state: &VgaState) -> bool {
        let inside = |(offset, bytes): &(u64, Vec<u8>)| {
            offset.checked_add(bytes.len() as u64).is_some_and(|end| end <= self.vram.len())
        };
        state.regs.is_well_formed(self.vram.len()) && state.memory.iter().all(inside)
    }

    /// Replaces registers and memory, if they are well-formed; otherwise nothing has changed and this is false.
    pub fn restore(&mut self, state: VgaState) -> bool {
        if !self.fits(&state) {
            return false;
        }
        self.vram.clear(0, self.vram.len());
        for (offset, bytes) in &state.memory {
            for (at, chunk) in (*offset..).step_by(8).zip(bytes.chunks(8)) {
                let mut value = [0; 8];
                value[..chunk.len()].copy_from_slice(chunk);
                self.vram.write(at, chunk.len() as u8, u64::from_le_bytes(value));
            }
        }
        let changes = self.regs.changes();
        self.regs = state.regs;
        self.regs.follow(changes);
        true
    }

    /// The picture as it is at guest time `now`, drawn anew.
    pub fn picture(&self, now: u64) -> Screen {
        let mut screen = Screen::default();
        screen.update(&self.regs, &self.vram, &DirtyPages::default(), now);
        screen
    }
}

#[cfg(test)]
mod tests;
