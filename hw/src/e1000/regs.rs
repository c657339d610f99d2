//! The registers: where they are, and which bits software may write (Software Developer's Manual, 13.4).

/// Bytes of the register window.
pub(super) const WINDOW: u64 = 0x2_0000;
/// Bytes of it that have registers.
const END: u32 = 0x6000;

pub(super) const CTRL: u32 = 0x0000;
pub(super) const STATUS: u32 = 0x0008;
pub(super) const EECD: u32 = 0x0010;
pub(super) const EERD: u32 = 0x0014;
pub(super) const MDIC: u32 = 0x0020;
pub(super) const VET: u32 = 0x0038;
pub(super) const ICR: u32 = 0x00c0;
pub(super) const ITR: u32 = 0x00c4;
pub(super) const ICS: u32 = 0x00c8;
pub(super) const IMS: u32 = 0x00d0;
pub(super) const IMC: u32 = 0x00d8;
pub(super) const RCTL: u32 = 0x0100;
pub(super) const TCTL: u32 = 0x0400;
const LEDCTL: u32 = 0x0e00;
const PBA: u32 = 0x1000;
const MANC: u32 = 0x5820;
const SWSM: u32 = 0x5b50;
pub(super) const RDBAL: u32 = 0x2800;
pub(super) const RDBAH: u32 = 0x2804;
pub(super) const RDLEN: u32 = 0x2808;
pub(super) const RDH: u32 = 0x2810;
pub(super) const RDT: u32 = 0x2818;
pub(super) const TDBAL: u32 = 0x3800;
pub(super) const TDBAH: u32 = 0x3804;
pub(super) const TDLEN: u32 = 0x3808;
pub(super) const TDH: u32 = 0x3810;
pub(super) const TDT: u32 = 0x3818;
/// Statistics, which reading clears: good packets and bytes received and sent, then all of them.
pub(super) const STATISTICS: std::ops::RangeInclusive<u32> = 0x4000..=0x4124;
pub(super) const GPRC: u32 = 0x4074;
pub(super) const GPTC: u32 = 0x4080;
pub(super) const GORCL: u32 = 0x4088;
pub(super) const GOTCL: u32 = 0x4090;
pub(super) const TORL: u32 = 0x40c0;
pub(super) const TOTL: u32 = 0x40c8;
pub(super) const TPR: u32 = 0x40d0;
pub(super) const TPT: u32 = 0x40d4;
pub(super) const RXCSUM: u32 = 0x5000;
pub(super) const MTA: u32 = 0x5200;
pub(super) const RAL: u32 = 0x5400;
pub(super) const RAH: u32 = 0x5404;
pub(super) const VFTA: u32 = 0x5600;

pub(super) const CTRL_RESET: u32 = 1 << 26;
pub(super) const CTRL_VLAN: u32 = 1 << 30;
pub(super) const CTRL_PHY_RESET: u32 = 1 << 31;
/// Full duplex, link up, 1000 Mb/s as found and as negotiated, and two bits that QEMU sets.
pub(super) const STATUS_VALUE: u32 = 1 << 31 | 1 << 19 | 1 << 10 | 3 << 8 | 2 << 6 | 1 << 1 | 1 << 0;

pub(super) const STATUS_LINK: u32 = 1 << 1;

/// Causes of interrupts (13.4.17).
pub(super) const TX_WRITTEN_BACK: u32 = 1 << 0;
pub(super) const TX_EMPTY: u32 = 1 << 1;
pub(super) const LINK_CHANGED: u32 = 1 << 2;
pub(super) const RX_FEW: u32 = 1 << 4;
pub(super) const RX_TIMER: u32 = 1 << 7;
pub(super) const MDIO_DONE: u32 = 1 << 9;
const CAUSES: u32 = 0x1_ffff;
pub(super) const ASSERTED: u32 = 1 << 31;

pub(super) const RCTL_ENABLE: u32 = 1 << 1;
pub(super) const RCTL_ALL_UNICAST: u32 = 1 << 3;
pub(super) const RCTL_ALL_MULTICAST: u32 = 1 << 4;
pub(super) const RCTL_LONG: u32 = 1 << 5;
pub(super) const RCTL_BROADCAST: u32 = 1 << 15;
pub(super) const RCTL_VLAN_FILTER: u32 = 1 << 18;
pub(super) const RCTL_LARGER: u32 = 1 << 25;
pub(super) const RCTL_STRIP_CRC: u32 = 1 << 26;
pub(super) const TCTL_ENABLE: u32 = 1 << 1;
pub(super) const TCTL_PAD: u32 = 1 << 3;
pub(super) const RXCSUM_IP: u32 = 1 << 8;
pub(super) const RXCSUM_TCP: u32 = 1 << 9;
/// In the high half of a receive address: the address is valid.
pub(super) const ADDRESS_VALID: u32 = 1 << 31;

/// Registers that keep what software writes: first, last, and the bits that they keep. Some are of later adapters, but QEMU's
/// has them, too, and drivers use them whatever the adapter (SWSM, a semaphore between drivers and firmware).
const KEPT: &[(u32, u32, u32)] = &[
    (CTRL, CTRL, !(CTRL_RESET | CTRL_PHY_RESET)),
    (0x0018, 0x0018, 0xffff_ffff),
    (0x0028, 0x0030, 0xffff_ffff),
    (VET, VET, 0xffff_ffff),
    (ITR, ITR, 0xffff),
    (RCTL, RCTL, 0xffff_ffff),
    (0x0170, 0x0178, 0xffff_ffff),
    (TCTL, TCTL, 0xffff_ffff),
    (0x0410, 0x0410, 0x3fff_ffff),
    (0x0458, 0x0458, 0xffff),
    (LEDCTL, LEDCTL, 0xffff_ffff),
    (PBA, PBA, 0xffff_ffff),
    (0x2160, 0x2168, 0x8000_fff8),
    (0x2410, 0x2430, 0x1fff),
    (RDBAL, RDBAL, 0xffff_fff0),
    (RDBAH, RDBAH, 0xffff_ffff),
    (RDLEN, RDLEN, 0xf_ff80),
    (RDH, RDH, 0xffff),
    (RDT, RDT, 0xffff),
    (0x2820, 0x2820, 0xffff),
    (0x2828, 0x2828, 0xffff_ffff),
    (0x282c, 0x282c, 0xffff),
    (0x2c00, 0x2c00, 0xfff),
    (0x3410, 0x3418, 0x7ff),
    (0x3420, 0x3430, 0x1fff),
    (TDBAL, TDBAL, 0xffff_fff0),
    (TDBAH, TDBAH, 0xffff_ffff),
    (TDLEN, TDLEN, 0xf_ff80),
    (TDH, TDH, 0xffff),
    (TDT, TDT, 0xffff),
    (0x3820, 0x3820, 0xffff),
    (0x3828, 0x3828, 0xffff_ffff),
    (0x382c, 0x382c, 0xffff),
    (0x3830, 0x3830, 0xffff_ffff),
    (RXCSUM, RXCSUM, 0x7ff),
    (MTA, MTA + 0x1fc, 0xffff_ffff),
    (RAL, RAL + 0x7c, 0xffff_ffff),
    (VFTA, VFTA + 0x1fc, 0xffff_ffff),
    (0x5800, 0x5818, 0xffff_ffff),
    (0x5828, 0x5838, 0xffff_ffff),
    (0x5840, 0x5858, 0xffff_ffff),
    (0x5880, 0x588c, 0xffff_ffff),
    (0x5a00, 0x5a7c, 0xffff_ffff),
    (SWSM, SWSM, 0xffff_ffff),
    (0x5f00, 0x5f18, 0x7ff),
];

/// What registers hold after a reset, where that is not 0.
const INITIAL: &[(u32, u32)] = &[
    // Link up, 1000 Mb/s, two pins driven.
    (CTRL, 1 << 20 | 1 << 18 | 2 << 8 | 1 << 6),
    (STATUS, STATUS_VALUE),
    (VET, 0x8100),
    (LEDCTL, 0x602),
    (PBA, 0x10_0030),
    // Management packets go to the host; there is nobody else.
    (MANC, 0x22_2300),
];

/// The registers by offset.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Regs(Vec<u32>);

impl Regs {
    pub(super) fn new() -> Regs {
        let mut regs = Regs(vec![0; (END / 4) as usize]);
        INITIAL.iter().for_each(|&(offset, value)| regs.set(offset, value));
        regs
    }

    pub(super) fn get(&self, offset: u32) -> u32 {
        self.0.get((offset / 4) as usize).copied().unwrap_or(0)
    }

    pub(super) fn set(&mut self, offset: u32, value: u32) {
        if let Some(register) = self.0.get_mut((offset / 4) as usize) {
            *register = value;
        }
    }

    /// Software writes a register that keeps what it can of it; whether there is such a register.
    pub(super) fn keep(&mut self, offset: u32, value: u32) -> bool {
        let Some((.., mask)) = KEPT.iter().find(|(first, last, _)| (*first..=*last).contains(&offset)) else {
            return false;
        };
        self.set(offset, value & mask);
        true
    }

    /// Software reads a statistic.
    pub(super) fn take(&mut self, offset: u32) -> u32 {
        let value = self.get(offset);
        self.set(offset, 0);
        value
    }

    /// Counts packets; statistics stick at their largest value (13.7).
    pub(super) fn count(&mut self, offset: u32, packets: u32) {
        self.set(offset, self.get(offset).saturating_add(packets));
    }

    /// Counts bytes in a pair of registers.
    pub(super) fn count_bytes(&mut self, low: u32, bytes: usize) {
        let value = u64::from(self.get(low)) | u64::from(self.get(low + 4)) << 32;
        let value = value.saturating_add(bytes as u64);
        self.set(low, value as u32);
        self.set(low + 4, (value >> 32) as u32);
    }

    /// A ring: address of its first descriptor and number of descriptors.
    pub(super) fn ring(&self, low: u32) -> (u64, u32) {
        (u64::from(self.get(low)) | u64::from(self.get(low + 4)) << 32, self.get(low + 8) / super::DESCRIPTOR as u32)
    }

    pub(super) fn add_causes(&mut self, causes: u32) {
        self.set(ICR, self.get(ICR) | causes & CAUSES);
    }

    pub(super) fn words(&self) -> &[u32] {
        &self.0
    }

    /// The registers from what [`Regs::words`] gave.
    pub(super) fn from_words(words: Vec<u32>) -> Option<Regs> {
        (words.len() == (END / 4) as usize).then_some(Regs(words))
    }
}
