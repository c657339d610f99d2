//! A drive's registers (ATA/ATAPI-7 volume 2, 5.2) and the bits in them. A command's parameters are such a set, whether a processor
//! has written them to a command block or they came in one piece.

use serde::{Deserialize, Serialize};

/// Offsets in the command block; those of one register differ in what is read and written.
pub(crate) const ERROR: u16 = 1;
pub(crate) const FEATURES: u16 = ERROR;
pub(crate) const COUNT: u16 = 2;
pub(crate) const LBA: [u16; 3] = [3, 4, 5];
pub(crate) const DEVICE: u16 = 6;
pub(crate) const STATUS: u16 = 7;
pub(crate) const COMMAND: u16 = STATUS;

/// Bits of the status.
pub(crate) const BSY: u8 = 1 << 7;
pub(crate) const DRDY: u8 = 1 << 6;
pub(crate) const DSC: u8 = 1 << 4;
pub(crate) const DRQ: u8 = 1 << 3;
pub(crate) const ERR: u8 = 1 << 0;
/// Nothing is under way.
pub(crate) const READY: u8 = DRDY | DSC;

/// Bits of the error register: command aborted, sector not found, uncorrectable data.
pub(crate) const ABRT: u8 = 1 << 2;
pub(crate) const IDNF: u8 = 1 << 4;
pub(crate) const UNC: u8 = 1 << 6;

/// Bits of the device register: the drive, and LBA addressing.
pub(crate) const DEV: u8 = 1 << 4;
pub(crate) const USE_LBA: u8 = 1 << 6;

/// Bits of device control: no interrupts, software reset, read the previous contents.
pub(crate) const NIEN: u8 = 1 << 1;
pub(crate) const SRST: u8 = 1 << 2;
pub(crate) const HOB: u8 = 1 << 7;

/// Bits of the interrupt reason, a packet device's count register: a command (and not data), to the host.
pub(crate) const REASON_COMMAND: u8 = 1 << 0;
pub(crate) const REASON_TO_HOST: u8 = 1 << 1;

/// A register that keeps what was written before: the present contents, and the previous ones.
pub(crate) type Pair = [u8; 2];

/// Writes a register that keeps its previous contents.
pub(crate) fn push(pair: &mut Pair, value: u8) {
    *pair = [value, pair[0]];
}

/// One drive's registers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Regs {
    pub(crate) features: Pair,
    pub(crate) count: Pair,
    /// Low, mid, high.
    pub(crate) lba: [Pair; 3],
    pub(crate) device: u8,
    pub(crate) status: u8,
    pub(crate) error: u8,
}

impl Regs {
    /// The 48-bit address.
    pub(crate) fn lba48(&self) -> u64 {
        let [low, mid, high] = self.lba;
        u64::from_le_bytes([low[0], mid[0], high[0], low[1], mid[1], high[1], 0, 0])
    }

    /// The 28-bit address.
    pub(crate) fn lba28(&self) -> u64 {
        let [low, mid, high] = self.lba;
        u64::from(u32::from_le_bytes([low[0], mid[0], high[0], self.device & 0x0f]))
    }

    /// Sectors to transfer: 0 stands for the most there can be.
    pub(crate) fn sectors(&self, ext: bool) -> u64 {
        match (ext, u64::from(self.count[0]), u64::from(self.count[1])) {
            (false, 0, _) => 256,
            (false, low, _) => low,
            (true, 0, 0) => 65536,
            (true, low, high) => high << 8 | low,
        }
    }

    /// The byte count of a packet device: mid and high (ATA/ATAPI-7 volume 2, 5.2.3).
    pub(crate) fn byte_count(&self) -> u16 {
        u16::from_le_bytes([self.lba[1][0], self.lba[2][0]])
    }

    pub(crate) fn set_byte_count(&mut self, bytes: u16) {
        let [low, high] = bytes.to_le_bytes();
        self.lba[1][0] = low;
        self.lba[2][0] = high;
    }

    /// What the registers say after a reset: which kind of device this is (ATA/ATAPI-7 volume 1, 5.16).
    pub(crate) fn set_signature(&mut self, packet: bool) {
        let (mid, high) = if packet { (0x14, 0xeb) } else { (0, 0) };
        *self = Regs { count: [1, 0], lba: [[1, 0], [mid, 0], [high, 0]], error: 1, ..Regs::default() };
        // A packet device is not ready before it gets a command.
        self.status = if packet { 0 } else { READY };
    }
}
