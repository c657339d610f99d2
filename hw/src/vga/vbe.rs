//! The Bochs VBE extensions: linear modes behind an index and a data register ("VBE Display API", the interface's
//! documentation of the Bochs project).

use serde::{Deserialize, Serialize};

/// Newest version of the interface that is offered.
const VERSION: u16 = 0xb0c5;
const OLDEST_VERSION: u16 = 0xb0c0;

/// Indices of the registers.
pub(super) const INDEX_ID: u16 = 0;
pub(super) const INDEX_XRES: u16 = 1;
pub(super) const INDEX_YRES: u16 = 2;
pub(super) const INDEX_BPP: u16 = 3;
pub(super) const INDEX_ENABLE: u16 = 4;
pub(super) const INDEX_BANK: u16 = 5;
pub(super) const INDEX_VIRT_WIDTH: u16 = 6;
pub(super) const INDEX_VIRT_HEIGHT: u16 = 7;
pub(super) const INDEX_X_OFFSET: u16 = 8;
pub(super) const INDEX_Y_OFFSET: u16 = 9;
pub(super) const INDEX_MEMORY_64K: u16 = 10;

/// Bits of the enable register.
pub(super) const ENABLED: u16 = 1 << 0;
const GET_CAPS: u16 = 1 << 1;
const WIDE_DAC: u16 = 1 << 5;
pub(super) const LINEAR: u16 = 1 << 6;
pub(super) const NO_CLEAR: u16 = 1 << 7;

/// The largest mode, in pixels and bits a pixel, as QEMU's adapter has it; and how many pixels of it a picture is made of.
const MAX_XRES: u16 = 16_000;
const MAX_YRES: u16 = 12_000;
const MAX_BPP: u16 = 32;
const MAX_PIXELS: u32 = 1 << 25;

/// Bytes in a bank of the window at 0xa0000.
pub(super) const BANK: u64 = 0x1_0000;

/// The registers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Vbe {
    pub index: u16,
    id: u16,
    pub xres: u16,
    pub yres: u16,
    pub bpp: u16,
    enable: u16,
    pub bank: u16,
    /// Length of a line in pixels.
    pub virt_width: u16,
    pub x_offset: u16,
    pub y_offset: u16,
    vram_size: u64,
}

impl Vbe {
    pub fn new(vram_size: u64) -> Vbe {
        Vbe {
            index: 0,
            id: VERSION,
            xres: 0,
            yres: 0,
            bpp: 8,
            enable: 0,
            bank: 0,
            virt_width: 0,
            x_offset: 0,
            y_offset: 0,
            vram_size,
        }
    }

    /// Whether a restored state keeps to the bounds that writes keep to.
    pub fn is_well_formed(&self, vram_size: u64) -> bool {
        let mut checked = self.clone();
        checked.fit();
        checked == *self && self.vram_size == vram_size
    }

    /// Whether a linear mode is displayed (or 16 colours in planes, with 4 bits a pixel).
    pub fn is_on(&self) -> bool {
        self.enable & ENABLED != 0
    }

    /// Whether the display memory is an array of pixels.
    pub fn is_linear(&self) -> bool {
        self.is_on() && self.bpp != 4
    }

    /// Whether colours have 8 bits a component.
    pub fn has_wide_dac(&self) -> bool {
        self.enable & WIDE_DAC != 0
    }

    /// Bytes from a line to the next; with planes, of each plane.
    pub fn pitch(&self) -> u64 {
        let pixels = u64::from(self.virt_width);
        match self.bpp {
            4 => pixels / 8,
            bpp => pixels * u64::from(bpp.div_ceil(8)),
        }
    }

    /// Lines that there is memory for.
    fn virt_height(&self) -> u16 {
        let plane = if self.bpp == 4 { self.vram_size / 4 } else { self.vram_size };
        plane.checked_div(self.pitch()).map_or(0, |lines| lines.min(u64::from(u16::MAX)) as u16)
    }

    /// Reads register `index`.
    pub fn read(&self, index: u16) -> u16 {
        let caps = self.enable & GET_CAPS != 0;
        match index {
            INDEX_ID => self.id,
            INDEX_XRES if caps => MAX_XRES,
            INDEX_YRES if caps => MAX_YRES,
            INDEX_BPP if caps => MAX_BPP,
            INDEX_XRES => self.xres,
            INDEX_YRES => self.yres,
            INDEX_BPP => self.bpp,
            INDEX_ENABLE => self.enable,
            INDEX_BANK => self.bank,
            INDEX_VIRT_WIDTH => self.virt_width,
            INDEX_VIRT_HEIGHT => self.virt_height(),
            INDEX_X_OFFSET => self.x_offset,
            INDEX_Y_OFFSET => self.y_offset,
            INDEX_MEMORY_64K => (self.vram_size / BANK) as u16,
            _ => 0,
        }
    }

    /// Writes register `index`. The bytes to clear from the beginning of display memory, if the guest asks for that.
    pub fn write(&mut self, index: u16, value: u16) -> Option<u64> {
        match index {
            INDEX_ID if (OLDEST_VERSION..=VERSION).contains(&value) => self.id = value,
            INDEX_XRES => self.xres = value,
            INDEX_YRES => self.yres = value,
            INDEX_BPP => self.bpp = value,
            INDEX_BANK => self.bank = value,
            INDEX_VIRT_WIDTH => self.virt_width = value,
            INDEX_X_OFFSET => self.x_offset = value,
            INDEX_Y_OFFSET => self.y_offset = value,
            INDEX_ENABLE => return self.switch(value),
            _ => {}
        }
        self.fit();
        None
    }

    fn switch(&mut self, value: u16) -> Option<u64> {
        let was_on = self.is_on();
        self.enable = value & 0xe3;
        if !self.is_on() {
            self.bank = 0;
            return None;
        }
        if was_on {
            return None;
        }
        self.virt_width = self.xres;
        self.x_offset = 0;
        self.y_offset = 0;
        self.fit();
        let planes = if self.bpp == 4 { 4 } else { 1 };
        (value & NO_CLEAR == 0).then(|| self.pitch() * u64::from(self.yres) * planes)
    }

    /// Makes the registers name something that there is memory for, once it is displayed. Until then they keep what is written.
    fn fit(&mut self) {
        if self.is_on() {
            self.fit_mode();
        }
        self.bank = self.bank.min((self.vram_size / BANK).saturating_sub(1) as u16);
    }

    fn fit_mode(&mut self) {
        if !matches!(self.bpp, 4 | 8 | 15 | 16 | 24 | 32) {
            // 0 stands for 8, says the interface.
            self.bpp = 8;
        }
        self.xres = (self.xres.min(MAX_XRES) & !7).max(8);
        self.virt_width = self.virt_width.clamp(self.xres, MAX_XRES) & !7;
        let lines = (MAX_PIXELS / u32::from(self.xres)).min(MAX_YRES.into()) as u16;
        self.yres = self.yres.max(1).min(lines).min(self.virt_height());
        self.x_offset = self.x_offset.min(self.virt_width.saturating_sub(self.xres));
        self.y_offset = self.y_offset.min(self.virt_height().saturating_sub(self.yres));
    }
}
