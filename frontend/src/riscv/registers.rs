//! Control and status registers that are sets of bits, as [`super::state::State`] has them.

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
}

impl Mstatus {
    /// Where [`Mstatus::MPP`] begins.
    pub const MPP_SHIFT: u32 = 11;
}
