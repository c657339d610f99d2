//! The registers of a VGA behind its ports (IBM Personal System/2 Hardware Interface Technical Reference, "Video subsystem").

use serde::{Deserialize, Serialize};

use super::timing;
use super::vbe::Vbe;

/// Ports of the colour and the monochrome adapter's CRT controller; bit 0 of the miscellaneous output register chooses.
const COLOUR: u16 = 0x3d0;
const MONOCHROME: u16 = 0x3b0;

/// Miscellaneous output register: colour addresses, CPU access to display memory.
const MISC_COLOUR: u8 = 1 << 0;
const MISC_RAM: u8 = 1 << 1;

/// Attribute controller's index: the palette belongs to the display, not to the CPU.
const ATTR_PALETTE_ON: u8 = 1 << 5;

/// CRT controller index 0x11: indices 0 to 7 are protected.
const CRTC_PROTECT: u8 = 1 << 7;

/// Implemented bits of the sequencer's registers.
const SEQUENCER_BITS: [u8; 5] = [0x03, 0x3d, 0x0f, 0x3f, 0x0e];
/// Implemented bits of the graphics controller's registers.
const GRAPHICS_BITS: [u8; 9] = [0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff];
/// Registers of the CRT controller.
const CRTC_COUNT: u8 = 25;
/// Registers of the attribute controller.
const ATTR_COUNT: u8 = 21;

/// Everything that a VGA remembers beside its display memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Regs {
    pub(super) misc: u8,
    feature: u8,
    enable: u8,
    seq_index: u8,
    pub(super) seq: [u8; 8],
    crtc_index: u8,
    pub(super) crtc: [u8; 32],
    gfx_index: u8,
    pub(super) gfx: [u8; 16],
    attr_index: u8,
    pub(super) attr: [u8; 32],
    /// The next write to the attribute controller's port is data.
    attr_data: bool,
    /// Red, green, blue of 256 colours, as written.
    pub(super) dac: Vec<u8>,
    pub(super) dac_mask: u8,
    dac_write: u8,
    dac_read: u8,
    /// Component that comes next, 0 to 2.
    dac_component: u8,
    /// What was written to the colour that is not complete yet.
    dac_latch: [u8; 3],
    /// The last index was for reading.
    dac_reading: bool,
    /// Bytes of the four planes that the CPU read last.
    pub(super) latch: [u8; 4],
    pub(super) vbe: Vbe,
    /// Counts what has an influence on the picture.
    changes: u64,
}

impl Regs {
    /// As at power-on: nothing is displayed.
    pub(super) fn new(vram_size: u64) -> Regs {
        Regs {
            misc: MISC_COLOUR | MISC_RAM,
            feature: 0,
            enable: 1,
            seq_index: 0,
            seq: [0; 8],
            crtc_index: 0,
            crtc: [0; 32],
            gfx_index: 0,
            gfx: [0; 16],
            attr_index: 0,
            attr: [0; 32],
            attr_data: false,
            dac: vec![0; 768],
            dac_mask: 0xff,
            dac_write: 0,
            dac_read: 0,
            dac_component: 0,
            dac_latch: [0; 3],
            dac_reading: false,
            latch: [0; 4],
            vbe: Vbe::new(vram_size),
            changes: 0,
        }
    }

    /// Whether a restored state keeps to what the rest relies on.
    pub(super) fn is_well_formed(&self, vram_size: u64) -> bool {
        self.dac.len() == 768 && self.dac_component < 3 && self.vbe.is_well_formed(vram_size)
    }

    /// Changes whenever the picture may be another for the same display memory.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// The registers as data, without the count of changes.
    pub(super) fn saved(&self) -> Regs {
        Regs { changes: 0, ..self.clone() }
    }

    pub(super) fn touch(&mut self) {
        self.changes = self.changes.wrapping_add(1);
    }

    /// The picture is another one than at `changes`.
    pub(super) fn follow(&mut self, changes: u64) {
        self.changes = changes.wrapping_add(1);
    }

    /// Sets all registers at once, the attribute controller displaying.
    pub(super) fn load(&mut self, mode: &super::modes::Mode) {
        self.misc = mode.misc;
        self.seq[..5].copy_from_slice(&mode.seq);
        self.crtc[..25].copy_from_slice(&mode.crtc);
        self.gfx[..9].copy_from_slice(&mode.gfx);
        self.attr[..21].copy_from_slice(&mode.attr);
        self.attr_index = ATTR_PALETTE_ON;
        self.attr_data = false;
        self.touch();
    }

    /// Whether the picture is on: the palette is the display's, and the sequencer lets pixels through.
    pub(super) fn is_displaying(&self) -> bool {
        self.attr_index & ATTR_PALETTE_ON != 0 && self.seq[1] & 0x20 == 0 && self.enable & 1 != 0
    }

    /// Whether the CPU reaches display memory at all.
    pub(super) fn ram_enabled(&self) -> bool {
        self.misc & MISC_RAM != 0 && self.enable & 1 != 0
    }

    /// A port with the CRT controller's ports where the colour adapter has them; `None` when the other adapter's are
    /// enabled.
    fn canonical(&self, port: u16) -> Option<u16> {
        let base = if self.misc & MISC_COLOUR != 0 { COLOUR } else { MONOCHROME };
        match port {
            0x3b0..=0x3bf | 0x3d0..=0x3df => (port & 0x3f0 == base).then_some(COLOUR | port & 0xf),
            _ => Some(port),
        }
    }

    /// Reads a byte at `port`, 0x3b0 to 0x3df.
    pub(super) fn read(&mut self, now: u64, port: u16) -> u8 {
        let Some(port) = self.canonical(port) else { return 0xff };
        match port {
            0x3c0 => self.attr_index,
            0x3c1 => self.attr[usize::from(self.attr_index & 0x1f)],
            // Input status 0: the monitor is a colour one.
            0x3c2 => 0x10,
            0x3c3 => self.enable,
            0x3c4 => self.seq_index,
            0x3c5 => self.seq[usize::from(self.seq_index & 7)],
            0x3c6 => self.dac_mask,
            0x3c7 => {
                if self.dac_reading {
                    3
                } else {
                    0
                }
            }
            0x3c8 => self.dac_write,
            0x3c9 => self.read_dac(),
            0x3ca => self.feature,
            0x3cc => self.misc,
            0x3ce => self.gfx_index,
            0x3cf => self.gfx[usize::from(self.gfx_index & 0xf)],
            0x3d4 => self.crtc_index,
            0x3d5 => self.crtc[usize::from(self.crtc_index & 0x1f)],
            0x3da => {
                self.attr_data = false;
                timing::status(self, now)
            }
            _ => 0xff,
        }
    }

    /// Writes a byte at `port`, 0x3b0 to 0x3df.
    pub(super) fn write(&mut self, port: u16, value: u8) {
        let Some(port) = self.canonical(port) else { return };
        match port {
            0x3c0 => self.write_attr(value),
            0x3c2 => {
                self.misc = value;
                self.touch();
            }
            0x3c3 => {
                self.enable = value & 1;
                self.touch();
            }
            0x3c4 => self.seq_index = value & 7,
            0x3c5 => {
                let index = usize::from(self.seq_index);
                if let Some(bits) = SEQUENCER_BITS.get(index) {
                    self.seq[index & 7] = value & bits;
                    self.touch();
                }
            }
            0x3c6 => {
                self.dac_mask = value;
                self.touch();
            }
            0x3c7 => {
                self.dac_read = value;
                self.dac_component = 0;
                self.dac_reading = true;
            }
            0x3c8 => {
                self.dac_write = value;
                self.dac_component = 0;
                self.dac_reading = false;
            }
            0x3c9 => self.write_dac(value),
            0x3ce => self.gfx_index = value & 0xf,
            0x3cf => {
                let index = usize::from(self.gfx_index);
                if let Some(bits) = GRAPHICS_BITS.get(index) {
                    self.gfx[index & 0xf] = value & bits;
                    self.touch();
                }
            }
            0x3d4 => self.crtc_index = value & 0x3f,
            0x3d5 => self.write_crtc(value),
            0x3da => self.feature = value & 3,
            _ => {}
        }
    }

    fn write_attr(&mut self, value: u8) {
        if self.attr_data {
            let index = self.attr_index & 0x1f;
            let bits = match index {
                0..=0xf | 0x12 => 0x3f,
                0x10 => 0xef,
                0x13 | 0x14 => 0x0f,
                _ => 0xff,
            };
            if index < ATTR_COUNT {
                self.attr[usize::from(index)] = value & bits;
            }
        } else {
            self.attr_index = value & 0x3f;
        }
        self.attr_data = !self.attr_data;
        self.touch();
    }

    fn write_crtc(&mut self, value: u8) {
        let index = self.crtc_index;
        if index >= CRTC_COUNT {
            return;
        }
        let register = &mut self.crtc[usize::from(index & 0x1f)];
        let old = *register;
        let protected = index <= 7 && self.crtc[0x11] & CRTC_PROTECT != 0;
        let register = &mut self.crtc[usize::from(index & 0x1f)];
        match (protected, index) {
            (false, _) => *register = value,
            // Line compare's bit is not protected.
            (true, 7) => *register = old & !0x10 | value & 0x10,
            (true, _) => return,
        }
        if *register != old {
            self.touch();
        }
    }

    fn read_dac(&mut self) -> u8 {
        let at = usize::from(self.dac_read) * 3 + usize::from(self.dac_component);
        let value = self.dac.get(at).copied().unwrap_or(0);
        self.dac_component += 1;
        if self.dac_component > 2 {
            self.dac_component = 0;
            self.dac_read = self.dac_read.wrapping_add(1);
        }
        value
    }

    /// The third component of a colour sets all three.
    fn write_dac(&mut self, value: u8) {
        let wide = self.vbe.has_wide_dac();
        let component = usize::from(self.dac_component % 3);
        self.dac_latch[component] = if wide { value } else { value & 0x3f };
        self.dac_component = (self.dac_component + 1) % 3;
        if self.dac_component == 0 {
            let at = usize::from(self.dac_write) * 3;
            if let Some(colour) = self.dac.get_mut(at..at + 3) {
                colour.copy_from_slice(&self.dac_latch);
            }
            self.dac_write = self.dac_write.wrapping_add(1);
            self.touch();
        }
    }

    /// The 256 colours as 0x00RRGGBB.
    pub(super) fn palette(&self) -> Vec<u32> {
        let wide = self.vbe.has_wide_dac();
        let widen = |value: u8| u32::from(if wide { value } else { value << 2 | value >> 4 & 3 });
        self.dac.chunks_exact(3).map(|c| widen(c[0]) << 16 | widen(c[1]) << 8 | widen(c[2])).collect()
    }

    /// The 16 colours of text and of modes with four planes, as 0x00RRGGBB.
    pub(super) fn palette_16(&self, palette: &[u32]) -> [u32; 16] {
        let select = self.attr[0x14];
        std::array::from_fn(|index| {
            let entry = self.attr[index];
            let index = if self.attr[0x10] & 0x80 != 0 {
                entry & 0x0f | (select & 0x0f) << 4
            } else {
                entry & 0x3f | (select & 0x0c) << 4
            };
            palette.get(usize::from(index & self.dac_mask)).copied().unwrap_or(0)
        })
    }
}
