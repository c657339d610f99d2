//! Control and status registers that are sets of bits, as [`super::state::State`] has them.

use super::bus::irq;
use super::state::privilege;
use super::trap::cause;

crate::common::registers::registers! {
    /// mstatus (vol. II, "Machine Status (mstatus) Registers"), of which sstatus is a part.
    Mstatus {
        const SIE = 1 << 1;
        const MIE = 1 << 3;
        const SPIE = 1 << 5;
        const MPIE = 1 << 7;
        const SPP = 1 << 8;
        const MPP = 3 << Mstatus::MPP_SHIFT;
        const FS = 3 << 13;
        const MPRV = 1 << 17;
        const SUM = 1 << 18;
        const MXR = 1 << 19;
        const TVM = 1 << 20;
        const TW = 1 << 21;
        const TSR = 1 << 22;
        /// UXL: 64 bits, always.
        const UXL = 2 << 32;
        /// SXL: 64 bits, always.
        const SXL = 2 << 34;
        const SD = 1 << 63;
        /// What of it sstatus has and software may write.
        const SUPERVISOR = Mstatus::of(&[
            Mstatus::SIE, Mstatus::SPIE, Mstatus::SPP, Mstatus::FS, Mstatus::SUM, Mstatus::MXR,
        ]).bits();
        /// What software may write.
        const WRITABLE = Mstatus::of(&[
            Mstatus::SUPERVISOR, Mstatus::MIE, Mstatus::MPIE, Mstatus::MPP, Mstatus::MPRV,
            Mstatus::TVM, Mstatus::TW, Mstatus::TSR,
        ]).bits();
    }

    /// menvcfg and senvcfg (vol. II, "Machine Environment Configuration (menvcfg) Register").
    Envcfg {
        const FIOM = 1 << 0;
        const CBIE = 3 << 4;
        const CBCFE = 1 << 6;
        const CBZE = 1 << 7;
        const ADUE = 1 << 61;
        const STCE = 1 << 63;
        /// What senvcfg has.
        const SUPERVISOR = Envcfg::of(&[Envcfg::FIOM, Envcfg::CBIE, Envcfg::CBCFE, Envcfg::CBZE]).bits();
        /// What menvcfg has.
        const MACHINE = Envcfg::of(&[Envcfg::SUPERVISOR, Envcfg::ADUE, Envcfg::STCE]).bits();
    }

    /// mcountinhibit (vol. II, "Machine Counter-Inhibit (mcountinhibit) Register").
    Countinhibit {
        const CY = 1 << 0;
        const IR = 1 << 2;
    }

    /// mip, mie and mideleg, in which an interrupt has one place (vol. II, "Machine Interrupt (mip and mie) Registers").
    Interrupts {
        const SSI = 1 << irq::SSIP;
        const MSI = 1 << irq::MSIP;
        const STI = 1 << irq::STIP;
        const MTI = 1 << irq::MTIP;
        const SEI = 1 << irq::SEIP;
        const MEI = 1 << irq::MEIP;
        /// Those of supervisor mode, which can be delegated.
        const SUPERVISOR = Interrupts::of(&[Interrupts::SSI, Interrupts::STI, Interrupts::SEI]).bits();
        /// Those that there are.
        const EXIST = Interrupts::of(&[
            Interrupts::SUPERVISOR, Interrupts::MSI, Interrupts::MTI, Interrupts::MEI,
        ]).bits();
    }

    /// medeleg (vol. II, "Machine Trap Delegation Registers"), by the codes of exceptions.
    Exceptions {
        const FETCH_MISALIGNED = 1 << 0;
        const FETCH_ACCESS_FAULT = 1 << cause::FETCH_ACCESS_FAULT;
        const ILLEGAL = 1 << cause::ILLEGAL;
        const BREAKPOINT = 1 << cause::BREAKPOINT;
        const LOAD_MISALIGNED = 1 << cause::LOAD_MISALIGNED;
        const LOAD_ACCESS_FAULT = 1 << cause::LOAD_ACCESS_FAULT;
        const STORE_MISALIGNED = 1 << cause::STORE_MISALIGNED;
        const STORE_ACCESS_FAULT = 1 << cause::STORE_ACCESS_FAULT;
        const ECALL_USER = 1 << cause::ECALL;
        const ECALL_SUPERVISOR = 1 << (cause::ECALL + privilege::SUPERVISOR);
        const FETCH_PAGE_FAULT = 1 << cause::FETCH_PAGE_FAULT;
        const LOAD_PAGE_FAULT = 1 << cause::LOAD_PAGE_FAULT;
        const STORE_PAGE_FAULT = 1 << cause::STORE_PAGE_FAULT;
        /// Those that can be delegated: all but an environment call from machine mode.
        const DELEGABLE = Exceptions::of(&[
            Exceptions::FETCH_MISALIGNED, Exceptions::FETCH_ACCESS_FAULT, Exceptions::ILLEGAL, Exceptions::BREAKPOINT,
            Exceptions::LOAD_MISALIGNED, Exceptions::LOAD_ACCESS_FAULT,
            Exceptions::STORE_MISALIGNED, Exceptions::STORE_ACCESS_FAULT,
            Exceptions::ECALL_USER, Exceptions::ECALL_SUPERVISOR,
            Exceptions::FETCH_PAGE_FAULT, Exceptions::LOAD_PAGE_FAULT, Exceptions::STORE_PAGE_FAULT,
        ]).bits();
    }
}

impl Mstatus {
    /// Where [`Mstatus::MPP`] begins.
    pub const MPP_SHIFT: u32 = 11;
}

impl Interrupts {
    /// Whether interrupt `number` ([`irq`]) is one of them.
    #[inline]
    pub const fn has(self, number: u32) -> bool {
        self.bits() >> (number & 63) & 1 != 0
    }
}

impl Exceptions {
    /// Whether the exception with this code ([`cause`]) is one of them.
    #[inline]
    pub const fn has(self, code: u64) -> bool {
        self.bits() >> (code & 63) & 1 != 0
    }
}
