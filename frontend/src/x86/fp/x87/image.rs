//! The memory images of FSTENV, FSAVE and FXSAVE (SDM vol. 1, figures 8-9 to 8-12 and table 10-2).

use super::{Fpu, Reg};
use mimus_ir::FpEnv;

use crate::x86::fp::mxcsr::{MXCSR_MASK, to_mxcsr};
use crate::x86::fp::soft::Class;

/// The layout of an environment, by operand size and mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvLayout {
    /// 14 bytes, real and virtual-8086 mode.
    Real16,
    /// 14 bytes, protected mode.
    Protected16,
    /// 28 bytes, real and virtual-8086 mode.
    Real32,
    /// 28 bytes, protected mode.
    Protected32,
}

impl EnvLayout {
    /// The environment's size in bytes.
    pub const fn bytes(self) -> usize {
        self.words() * 2
    }

    /// The whole state's size in bytes.
    pub const fn state_bytes(self) -> usize {
        self.bytes() + 80
    }

    const fn words(self) -> usize {
        7 * self.stride()
    }

    /// The distance of the fields in 16-bit words.
    const fn stride(self) -> usize {
        if matches!(self, Self::Real16 | Self::Protected16) { 1 } else { 2 }
    }
}

impl Fpu {
    /// The tag word: 2 bits a physical register, 0 valid, 1 zero, 2 special, 3 empty.
    pub fn tag_word(&self) -> u16 {
        self.regs.iter().enumerate().fold(0, |acc, (i, reg)| {
            let tag = match reg.class() {
                _ if self.tags >> i & 1 == 0 => 3,
                Class::Normal => 0,
                Class::Zero => 1,
                _ => 2,
            };
            acc | tag << (2 * i)
        })
    }

    fn set_tag_word(&mut self, word: u16) {
        self.tags = (0..8).fold(0, |acc, i| acc | u8::from(word >> (2 * i) & 3 != 3) << i);
    }

    /// The image that FNSTENV writes: the first [`EnvLayout::bytes`] of the array, the rest zero.
    pub fn environment(&self, layout: EnvLayout) -> [u8; 28] {
        // Addresses are linear in real mode.
        let linear = |segment: u16, offset: u64| (u32::from(segment) << 4).wrapping_add(offset as u32);
        let (ip, dp) = (linear(self.fcs, self.fip), linear(self.fds, self.fdp));
        let high = |x: u32| x >> 16;
        let fields: [u32; 4] = match layout {
            EnvLayout::Protected16 => [self.fip as u32, self.fcs.into(), self.fdp as u32, self.fds.into()],
            EnvLayout::Real16 => [ip, high(ip) << 12 | u32::from(self.fop & 0x7ff), dp, high(dp) << 12],
            EnvLayout::Protected32 => {
                let selector = u32::from(self.fcs) | u32::from(self.fop & 0x7ff) << 16;
                [self.fip as u32, selector, self.fdp as u32, 0xffff_0000 | u32::from(self.fds)]
            }
            EnvLayout::Real32 => [
                0xffff_0000 | ip & 0xffff,
                high(ip) << 12 | u32::from(self.fop & 0x7ff),
                0xffff_0000 | dp & 0xffff,
                high(dp) << 12,
            ],
        };
        let words = [self.cw, self.sw, self.tag_word()].map(|x| 0xffff_0000 | u32::from(x));
        let mut out = [0; 28];
        let width = layout.stride() * 2;
        for (chunk, field) in out.chunks_exact_mut(width).zip(words.into_iter().chain(fields)) {
            chunk.copy_from_slice(&field.to_le_bytes()[..width]);
        }
        out
    }

    /// FLDENV: loads an image of [`EnvLayout::bytes`]; bytes that are missing count as zero.
    pub fn load_environment(&mut self, layout: EnvLayout, image: &[u8]) {
        let width = layout.stride() * 2;
        let mut fields = [0u32; 7];
        for (field, chunk) in fields.iter_mut().zip(image.chunks(width)) {
            *field = chunk.iter().rev().fold(0, |acc, &byte| acc << 8 | u32::from(byte));
        }
        let [cw, sw, tw, ip, code, dp, data] = fields;
        let high = |x: u32| (x >> 12 & 0xffff) << 16;
        match layout {
            EnvLayout::Protected16 | EnvLayout::Protected32 => {
                self.fip = ip.into();
                self.fcs = code as u16;
                self.fdp = dp.into();
                self.fds = data as u16;
                if layout == EnvLayout::Protected32 {
                    self.fop = (code >> 16) as u16 & 0x7ff;
                }
            }
            EnvLayout::Real16 | EnvLayout::Real32 => {
                self.fip = (high(code) | ip & 0xffff).into();
                self.fdp = (high(data) | dp & 0xffff).into();
                self.fcs = 0;
                self.fds = 0;
                self.fop = code as u16 & 0x7ff;
            }
        }
        self.set_tag_word(tw as u16);
        self.load_words(cw as u16, sw as u16);
    }

    fn load_words(&mut self, cw: u16, sw: u16) {
        self.sw = sw;
        self.set_control_word(cw);
    }

    /// What processors do that say in CPUID that they have no FCS and FDS: both are 0 in every image stored.
    pub fn forget_selectors(&mut self) {
        (self.fcs, self.fds) = (0, 0);
    }

    /// The image that FNSAVE writes: the first [`EnvLayout::state_bytes`] of the array, the rest zero. ST(0) comes first.
    pub fn save(&self, layout: EnvLayout) -> [u8; 108] {
        let mut out = [0; 108];
        out[..28].copy_from_slice(&self.environment(layout));
        for (i, chunk) in out[layout.bytes()..].chunks_exact_mut(10).enumerate() {
            chunk.copy_from_slice(&self.regs[self.physical(i as u8)].bits().to_le_bytes()[..10]);
        }
        out
    }

    /// FRSTOR: loads an image of [`EnvLayout::state_bytes`]; registers that are missing keep their values.
    pub fn restore(&mut self, layout: EnvLayout, image: &[u8]) {
        let (environment, registers) = image.split_at(layout.bytes().min(image.len()));
        self.load_environment(layout, environment);
        for (i, chunk) in registers.chunks_exact(10).take(8).enumerate() {
            let at = self.physical(i as u8);
            self.regs[at] = register(chunk);
        }
    }

    /// The unit as FRSTOR loads it with 32-bit operand size, for a processor that is to go on with it. Addresses of instruction
    /// and operand are left out.
    pub fn host_image(&self) -> [u8; 108] {
        let mut out = [0; 108];
        let tags = (0..8).fold(0, |acc, i| acc | if self.tags >> i & 1 == 0 { 3u16 << (2 * i) } else { 0 });
        for (chunk, word) in out.chunks_exact_mut(4).zip([self.cw, self.sw, tags]) {
            chunk[..2].copy_from_slice(&word.to_le_bytes());
        }
        for (i, chunk) in out[28..].chunks_exact_mut(10).enumerate() {
            let reg = self.regs[self.physical(i as u8)];
            chunk[..8].copy_from_slice(&reg.sig.to_le_bytes());
            chunk[8..].copy_from_slice(&reg.se.to_le_bytes());
        }
        out
    }

    /// Takes the unit back as FNSAVE stores it, in the layout of [`Fpu::host_image`].
    pub fn load_host_image(&mut self, image: &[u8; 108]) {
        let word = |at: usize| u16::from_le_bytes([image[at], image[at + 1]]);
        self.set_tag_word(word(8));
        self.load_words(word(0), word(4));
        for (i, chunk) in image[28..].chunks_exact(10).enumerate() {
            let &[a, b, c, d, e, f, g, h, low, high] = chunk else { continue };
            let at = self.physical(i as u8);
            self.regs[at] = Reg::new(u16::from_le_bytes([low, high]), u64::from_le_bytes([a, b, c, d, e, f, g, h]));
        }
    }

    /// Whether a processor that does not report exceptions would do the same: all are masked, so none is pending.
    pub fn is_quiet(&self) -> bool {
        self.unmasked() == 0
    }

    /// The first 160 bytes of FXSAVE's image. `wide` is FXSAVE64, with 64-bit offsets in place of selectors; MXCSR is that of `env`.
    pub fn fxsave(&self, wide: bool, env: FpEnv) -> [u8; 160] {
        let mut out = [0; 160];
        out[0..2].copy_from_slice(&self.cw.to_le_bytes());
        out[2..4].copy_from_slice(&self.sw.to_le_bytes());
        out[4] = self.tags;
        out[6..8].copy_from_slice(&self.fop.to_le_bytes());
        let pointer = |offset: u64, selector: u16| {
            if wide { offset } else { u64::from(offset as u32) | u64::from(selector) << 32 }
        };
        out[8..16].copy_from_slice(&pointer(self.fip, self.fcs).to_le_bytes());
        out[16..24].copy_from_slice(&pointer(self.fdp, self.fds).to_le_bytes());
        out[24..28].copy_from_slice(&to_mxcsr(env).to_le_bytes());
        out[28..32].copy_from_slice(&MXCSR_MASK.to_le_bytes());
        for (i, chunk) in out[32..].chunks_exact_mut(16).enumerate() {
            chunk[..10].copy_from_slice(&self.regs[self.physical(i as u8)].bits().to_le_bytes()[..10]);
        }
        out
    }

    /// Loads the x87 part of FXRSTOR's image. The caller checks MXCSR, in bytes 24 to 27, before.
    pub fn fxrstor(&mut self, wide: bool, image: &[u8; 160]) {
        let word = |at: usize| u16::from_le_bytes([image[at], image[at + 1]]);
        let pointer = |at: usize| {
            let low = u64::from(word(at)) | u64::from(word(at + 2)) << 16;
            let high = u64::from(word(at + 4)) | u64::from(word(at + 6)) << 16;
            if wide { (low | high << 32, 0) } else { (low, high as u16) }
        };
        (self.fip, self.fcs) = pointer(8);
        (self.fdp, self.fds) = pointer(16);
        self.fop = word(6) & 0x7ff;
        self.tags = image[4];
        self.load_words(word(0), word(2));
        for (i, chunk) in image[32..].chunks_exact(16).enumerate() {
            let at = self.physical(i as u8);
            self.regs[at] = register(chunk);
        }
    }
}

fn register(bytes: &[u8]) -> Reg {
    Reg::from_bits(bytes.iter().take(10).rev().fold(0, |acc, &byte| acc << 8 | u128::from(byte)))
}
