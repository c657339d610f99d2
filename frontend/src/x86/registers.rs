//! Registers of x86 that are sets of bits, as [`super::state::State`] has them: RFLAGS, control and debug
//! registers, IA32_EFER.

crate::common::registers::registers! {
    /// RFLAGS (SDM vol. 1, 3.4.3).
    Rflags {
        const CF = 1 << 0;
        /// A reserved bit that reads as 1.
        const FIXED = 1 << 1;
        const PF = 1 << 2;
        const AF = 1 << 4;
        const ZF = 1 << 6;
        const SF = 1 << 7;
        const TF = 1 << 8;
        const IF = 1 << 9;
        const DF = 1 << 10;
        const OF = 1 << 11;
        const IOPL = 3 << Rflags::IOPL_SHIFT;
        const NT = 1 << 14;
        const RF = 1 << 16;
        const VM = 1 << 17;
        const AC = 1 << 18;
        const VIF = 1 << 19;
        const VIP = 1 << 20;
        const ID = 1 << 21;
        /// The six arithmetic flags.
        const ARITH = Rflags::of(&[
            Rflags::CF, Rflags::PF, Rflags::AF, Rflags::ZF, Rflags::SF, Rflags::OF,
        ]).bits();
        /// All that are not reserved.
        const EXIST = Rflags::of(&[
            Rflags::ARITH, Rflags::TF, Rflags::IF, Rflags::DF, Rflags::IOPL, Rflags::NT, Rflags::RF, Rflags::VM,
            Rflags::AC, Rflags::VIF, Rflags::VIP, Rflags::ID,
        ]).bits();
        /// FLAGS, the 16 bits that instructions of that operand size have.
        const FLAGS = 0xffff;
    }

    /// CR0 (SDM vol. 3A, 2.5).
    Cr0 {
        const PE = 1 << 0;
        const MP = 1 << 1;
        const EM = 1 << 2;
        const TS = 1 << 3;
        const ET = 1 << 4;
        const NE = 1 << 5;
        const WP = 1 << 16;
        const AM = 1 << 18;
        const NW = 1 << 29;
        const CD = 1 << 30;
        const PG = 1 << 31;
    }

    /// CR3: the address of the top table, and what is said about it (SDM vol. 3A, 2.5, tables 4-3, 4-7, 4-12).
    Cr3 {
        const PWT = 1 << 3;
        const PCD = 1 << 4;
        /// The process-context identifier in the place of the flags, with CR4.PCIDE: a number.
        const PCID = 0xfff;
        /// In the source of MOV to CR3 with CR4.PCIDE: keep the TLB entries of the PCID (SDM vol. 3A, 4.10.4.1).
        const NO_FLUSH = 1 << 63;
    }

    /// CR4 (SDM vol. 3A, 2.5).
    Cr4 {
        const VME = 1 << 0;
        const PVI = 1 << 1;
        const TSD = 1 << 2;
        const DE = 1 << 3;
        const PSE = 1 << 4;
        const PAE = 1 << 5;
        const MCE = 1 << 6;
        const PGE = 1 << 7;
        const PCE = 1 << 8;
        const OSFXSR = 1 << 9;
        const OSXMMEXCPT = 1 << 10;
        const UMIP = 1 << 11;
        const LA57 = 1 << 12;
        const FSGSBASE = 1 << 16;
        const PCIDE = 1 << 17;
        const OSXSAVE = 1 << 18;
        const SMEP = 1 << 20;
        const SMAP = 1 << 21;
    }

    /// IA32_EFER (SDM vol. 3A, 2.2.1).
    Efer {
        const SCE = 1 << 0;
        const LME = 1 << 8;
        const LMA = 1 << 10;
        const NXE = 1 << 11;
    }

    /// DR6 (SDM vol. 3B, 17.2.3), and the causes of a #DB, which come to be in it.
    Dr6 {
        const B0 = 1 << 0;
        const B1 = 1 << 1;
        const B2 = 1 << 2;
        const B3 = 1 << 3;
        /// A debug register was accessed while DR7.GD was set.
        const BD = 1 << 13;
        /// Single step.
        const BS = 1 << 14;
        /// A switch to a task whose T bit is set.
        const BT = 1 << 15;
        /// Among causes only: RF is pushed set, as behind every element but the last of a repeated string instruction, which goes
        /// on. In the register the bit is fixed.
        const RESUME = 1 << 16;
        /// Which breakpoints were met.
        const HITS = Dr6::of(&[Dr6::B0, Dr6::B1, Dr6::B2, Dr6::B3]).bits();
        /// What software may write.
        const WRITABLE = Dr6::of(&[Dr6::HITS, Dr6::BD, Dr6::BS, Dr6::BT]).bits();
        /// Reserved bits that read as 1.
        const FIXED = 0xffff_0ff0;
    }

    /// DR7 (SDM vol. 3B, 17.2.4).
    Dr7 {
        const L0 = 1 << 0;
        const G0 = 1 << 1;
        const L1 = 1 << 2;
        const G1 = 1 << 3;
        const L2 = 1 << 4;
        const G2 = 1 << 5;
        const L3 = 1 << 6;
        const G3 = 1 << 7;
        const LE = 1 << 8;
        const GE = 1 << 9;
        const RTM = 1 << 11;
        const GD = 1 << 13;
        /// R/W0 to R/W3 and LEN0 to LEN3, numbers of 2 bits each: see [`Dr7::breakpoint`].
        const CONDITIONS = 0xffff << Dr7::CONDITIONS_SHIFT;
        /// What a task switch clears.
        const LOCAL = Dr7::of(&[Dr7::L0, Dr7::L1, Dr7::L2, Dr7::L3, Dr7::LE]).bits();
        /// What enables breakpoints.
        const ENABLES = Dr7::of(&[
            Dr7::L0, Dr7::G0, Dr7::L1, Dr7::G1, Dr7::L2, Dr7::G2, Dr7::L3, Dr7::G3,
        ]).bits();
        /// What software may write.
        const WRITABLE = Dr7::of(&[
            Dr7::ENABLES, Dr7::LE, Dr7::GE, Dr7::RTM, Dr7::GD, Dr7::CONDITIONS,
        ]).bits();
        /// A reserved bit that reads as 1.
        const FIXED = 1 << 10;
    }
}

/// What a breakpoint is met by: R/W0 to R/W3 of DR7.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    /// Execution of an instruction.
    Execution,
    /// Writes of data.
    Write,
    /// Accesses to I/O ports.
    Port,
    /// Reads and writes of data.
    Access,
}

/// What DR7 says of a breakpoint that is enabled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Breakpoint {
    /// What it is met by.
    pub condition: Condition,
    /// Its length, in bytes.
    pub len: u64,
}

impl Rflags {
    /// Where [`Rflags::IOPL`] begins.
    pub const IOPL_SHIFT: u32 = 12;

    /// What a program in virtual-8086 mode sees of them with CR4.VME: VIF in the place of IF, and an IOPL of 3 (SDM vol. 3B,
    /// 20.3.3.4).
    pub fn seen_virtualized(mut self) -> Rflags {
        self.set(Rflags::IF, self.contains(Rflags::VIF));
        self | Rflags::IOPL
    }

    /// The number of a flag's bit.
    #[inline]
    pub const fn position(self) -> u32 {
        self.bits().trailing_zeros()
    }
}

impl Cr3 {
    /// The current process-context identifier, with CR4.PCIDE.
    #[inline]
    pub const fn pcid(self) -> u64 {
        self.intersection(Cr3::PCID).bits()
    }
}

impl Dr6 {
    /// That breakpoint `number` was met.
    #[inline]
    pub const fn hit(number: u32) -> Dr6 {
        Dr6::from_bits_retain(1 << (number & 3))
    }
}

impl Dr7 {
    /// Where [`Dr7::CONDITIONS`] begin.
    const CONDITIONS_SHIFT: u32 = 16;

    /// What breakpoint `number` is, if it is enabled.
    pub const fn breakpoint(self, number: u32) -> Option<Breakpoint> {
        let number = number & 3;
        if self.bits() >> (2 * number) & 3 == 0 {
            return None;
        }
        let fields = self.bits() >> (Dr7::CONDITIONS_SHIFT + 4 * number);
        let condition = match fields & 3 {
            0 => Condition::Execution,
            1 => Condition::Write,
            2 => Condition::Port,
            _ => Condition::Access,
        };
        Some(Breakpoint { condition, len: [1, 2, 8, 4][(fields >> 2 & 3) as usize] })
    }
}
