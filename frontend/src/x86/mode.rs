//! What translated code depends on beside its bytes.

use super::cpu::bank;
use super::fp::Mxcsr;
use super::state::{Seg, State, cr0, cr4, rflags};

/// Mode bits of a translation; part of its key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Mode(pub u32);

macro_rules! mode_bits {
    ($($(#[$doc:meta])* $name:ident = $bit:literal;)*) => {
        impl Mode { $($(#[$doc])* pub const $name: u32 = 1 << $bit;)* }
    };
}

mode_bits! {
    /// Default operand and address size is 32 bits.
    CODE32 = 0;
    /// 64-bit mode.
    CODE64 = 1;
    /// The stack pointer is ESP (or RSP in 64-bit mode).
    STACK32 = 2;
    /// CR0.PE.
    PROTECTED = 3;
    /// Virtual-8086 mode.
    VM86 = 4;
    /// CS has base 0 and limit 4 GiB.
    CS_FLAT = 5;
    /// SS is flat.
    SS_FLAT = 6;
    /// DS is flat.
    DS_FLAT = 7;
    /// ES is flat.
    ES_FLAT = 8;
    /// CR0.EM.
    EM = 9;
    /// CR0.TS.
    TS = 10;
    /// CR0.MP.
    MP = 11;
    /// CR4.OSFXSR.
    OSFXSR = 12;
    /// SMAP in force: CR4.SMAP, CPL below 3, EFLAGS.AC clear.
    SMAP = 13;
    /// Single step: EFLAGS.TF.
    TF = 14;
    /// Alignment checks: CR0.AM, EFLAGS.AC, CPL 3.
    ALIGN = 15;
    /// IA-32e mode, compatibility or 64-bit.
    LONG = 18;
    /// A breakpoint is armed in DR7.
    BREAKPOINTS = 19;
    /// FS may have a base but needs no limit or type check.
    FS_OPEN = 20;
    /// GS may have a base but needs no limit or type check.
    GS_OPEN = 21;
    /// A SIMD floating-point exception is not masked in MXCSR.
    SIMD_TRAPS = 22;
    /// MXCSR.DAZ.
    DAZ = 23;
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
            (Mode::EM, s.cr0 & cr0::EM != 0),
            (Mode::TS, s.cr0 & cr0::TS != 0),
            (Mode::MP, s.cr0 & cr0::MP != 0),
            (Mode::OSFXSR, s.cr4 & cr4::OSFXSR != 0),
            (Mode::SMAP, s.cr4 & cr4::SMAP != 0 && s.cpl() < 3 && s.flags & rflags::AC == 0),
            (Mode::TF, s.flags & rflags::TF != 0),
            (Mode::ALIGN, s.cr0 & cr0::AM != 0 && s.flags & rflags::AC != 0 && s.cpl() == 3),
            (Mode::BREAKPOINTS, s.dr[7] & 0xff != 0),
            (Mode::FS_OPEN, s.code64() || s.seg[Seg::Fs as usize].open()),
            (Mode::GS_OPEN, s.code64() || s.seg[Seg::Gs as usize].open()),
            (Mode::SIMD_TRAPS, Mxcsr(s.mxcsr as u32).unmasked() != 0),
            (Mode::DAZ, s.mxcsr & u64::from(Mxcsr::DAZ) != 0),
        ];
        let mut mode = u32::from(s.cpl()) << Mode::CPL_SHIFT;
        for (bit, set) in bits {
            mode |= if set { bit } else { 0 };
        }
        Mode(mode)
    }

    /// Whether any of `bits` is set.
    pub const fn has(self, bits: u32) -> bool {
        self.0 & bits != 0
    }

    /// Current privilege level.
    pub const fn cpl(self) -> u8 {
        (self.0 >> Mode::CPL_SHIFT & 3) as u8
    }

    /// TLB bank.
    pub const fn bank(self) -> usize {
        if self.cpl() == 3 {
            bank::USER
        } else if self.has(Mode::SMAP) {
            bank::KERNEL_SMAP
        } else {
            bank::KERNEL
        }
    }

    /// Code bitness: 16, 32 or 64.
    pub const fn bitness(self) -> u32 {
        if self.has(Mode::CODE64) {
            64
        } else if self.has(Mode::CODE32) {
            32
        } else {
            16
        }
    }

    /// Real or virtual-8086 mode.
    pub const fn real_or_vm86(self) -> bool {
        !self.has(Mode::PROTECTED) || self.has(Mode::VM86)
    }

    /// Whether accesses through `seg` need neither base nor limit check.
    pub const fn flat(self, seg: Seg) -> bool {
        match seg {
            Seg::Cs => self.has(Mode::CS_FLAT),
            Seg::Ss => self.has(Mode::SS_FLAT),
            Seg::Ds => self.has(Mode::DS_FLAT),
            Seg::Es => self.has(Mode::ES_FLAT),
            Seg::Fs | Seg::Gs => false,
        }
    }

    /// Whether accesses through `seg` need no check, once its base is added.
    pub const fn open(self, seg: Seg) -> bool {
        match seg {
            Seg::Fs => self.has(Mode::FS_OPEN),
            Seg::Gs => self.has(Mode::GS_OPEN),
            _ => self.flat(seg),
        }
    }

    /// Mask of the stack pointer.
    pub const fn stack_mask(self) -> u64 {
        if self.has(Mode::CODE64) {
            u64::MAX
        } else if self.has(Mode::STACK32) {
            0xffff_ffff
        } else {
            0xffff
        }
    }
}
