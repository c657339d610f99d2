//! What translated code depends on beside its bytes.

use bitflags::bitflags;
use mimus_ir::FpEnv;

use super::cpu::bank;
use super::state::{Cr0, Cr4, Dr7, Rflags, Seg, State};

bitflags! {
    /// Mode bits of a translation; part of its key.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct Mode: u32 {
        /// Default operand and address size is 32 bits.
        const CODE32 = 1 << 0;
        /// 64-bit mode.
        const CODE64 = 1 << 1;
        /// The stack pointer is ESP (or RSP in 64-bit mode).
        const STACK32 = 1 << 2;
        /// CR0.PE.
        const PROTECTED = 1 << 3;
        /// Virtual-8086 mode.
        const VM86 = 1 << 4;
        /// CS has base 0 and limit 4 GiB.
        const CS_FLAT = 1 << 5;
        /// SS is flat.
        const SS_FLAT = 1 << 6;
        /// DS is flat.
        const DS_FLAT = 1 << 7;
        /// ES is flat.
        const ES_FLAT = 1 << 8;
        /// CR0.EM.
        const EM = 1 << 9;
        /// CR0.TS.
        const TS = 1 << 10;
        /// CR0.MP.
        const MP = 1 << 11;
        /// CR4.OSFXSR.
        const OSFXSR = 1 << 12;
        /// SMAP in force: CR4.SMAP, CPL below 3, EFLAGS.AC clear.
        const SMAP = 1 << 13;
        /// Single step: EFLAGS.TF.
        const TF = 1 << 14;
        /// Alignment checks: CR0.AM, EFLAGS.AC, CPL 3.
        const ALIGN = 1 << 15;
        /// Current privilege level, a number.
        const CPL = 3 << Mode::CPL_SHIFT;
        /// IA-32e mode, compatibility or 64-bit.
        const LONG = 1 << 18;
        /// A breakpoint is armed in DR7.
        const BREAKPOINTS = 1 << 19;
        /// FS may have a base but needs no limit or type check.
        const FS_OPEN = 1 << 20;
        /// GS may have a base but needs no limit or type check.
        const GS_OPEN = 1 << 21;
        /// A SIMD floating-point exception is not masked in MXCSR.
        const SIMD_TRAPS = 1 << 22;
        /// MXCSR.DAZ.
        const DAZ = 1 << 23;
    }
}

impl Mode {
    const CPL_SHIFT: u32 = 16;

    /// The mode of a state.
    pub fn of(s: &State) -> Mode {
        let cs = &s.seg[Seg::Cs as usize];
        let ss = &s.seg[Seg::Ss as usize];
        let bits = [
            (Mode::CODE64, s.code64()),
            (Mode::CODE32, s.code64() || cs.default_big()),
            (Mode::STACK32, s.code64() || ss.default_big()),
            (Mode::PROTECTED, s.protected()),
            (Mode::VM86, s.vm86()),
            (Mode::LONG, s.long_active()),
            (Mode::CS_FLAT, s.code64() || cs.flat()),
            (Mode::SS_FLAT, s.code64() || ss.flat()),
            (Mode::DS_FLAT, s.code64() || s.seg[Seg::Ds as usize].flat()),
            (Mode::ES_FLAT, s.code64() || s.seg[Seg::Es as usize].flat()),
            (Mode::EM, s.cr0.contains(Cr0::EM)),
            (Mode::TS, s.cr0.contains(Cr0::TS)),
            (Mode::MP, s.cr0.contains(Cr0::MP)),
            (Mode::OSFXSR, s.cr4.contains(Cr4::OSFXSR)),
            (Mode::SMAP, s.cr4.contains(Cr4::SMAP) && s.cpl() < 3 && !s.flags.contains(Rflags::AC)),
            (Mode::TF, s.flags.contains(Rflags::TF)),
            (Mode::ALIGN, s.cr0.contains(Cr0::AM) && s.flags.contains(Rflags::AC) && s.cpl() == 3),
            (Mode::BREAKPOINTS, s.dr7.intersects(Dr7::ENABLES)),
            (Mode::FS_OPEN, s.code64() || s.seg[Seg::Fs as usize].open()),
            (Mode::GS_OPEN, s.code64() || s.seg[Seg::Gs as usize].open()),
            (Mode::SIMD_TRAPS, !s.float_env().unmasked().is_empty()),
            (Mode::DAZ, s.float_env().contains(FpEnv::FLUSH_INPUTS)),
        ];
        let mut mode = Mode::from_bits_retain(u32::from(s.cpl()) << Mode::CPL_SHIFT);
        for (bit, set) in bits {
            mode |= if set { bit } else { Mode::empty() };
        }
        mode
    }

    /// Current privilege level.
    pub const fn cpl(self) -> u8 {
        (self.bits() >> Mode::CPL_SHIFT & 3) as u8
    }

    /// TLB bank.
    pub const fn bank(self) -> usize {
        if self.cpl() == 3 {
            bank::USER
        } else if self.intersects(Mode::SMAP) {
            bank::KERNEL_SMAP
        } else {
            bank::KERNEL
        }
    }

    /// Code bitness: 16, 32 or 64.
    pub const fn bitness(self) -> u32 {
        if self.intersects(Mode::CODE64) {
            64
        } else if self.intersects(Mode::CODE32) {
            32
        } else {
            16
        }
    }

    /// Real or virtual-8086 mode.
    pub const fn real_or_vm86(self) -> bool {
        !self.intersects(Mode::PROTECTED) || self.intersects(Mode::VM86)
    }

    /// Whether accesses through `seg` need neither base nor limit check.
    pub const fn flat(self, seg: Seg) -> bool {
        match seg {
            Seg::Cs => self.intersects(Mode::CS_FLAT),
            Seg::Ss => self.intersects(Mode::SS_FLAT),
            Seg::Ds => self.intersects(Mode::DS_FLAT),
            Seg::Es => self.intersects(Mode::ES_FLAT),
            Seg::Fs | Seg::Gs => false,
        }
    }

    /// Whether accesses through `seg` need no check, once its base is added.
    pub const fn open(self, seg: Seg) -> bool {
        match seg {
            Seg::Fs => self.intersects(Mode::FS_OPEN),
            Seg::Gs => self.intersects(Mode::GS_OPEN),
            _ => self.flat(seg),
        }
    }

    /// Mask of the stack pointer.
    pub const fn stack_mask(self) -> u64 {
        if self.intersects(Mode::CODE64) {
            u64::MAX
        } else if self.intersects(Mode::STACK32) {
            0xffff_ffff
        } else {
            0xffff
        }
    }
}
