//! `pc-testdev`: what unit tests of a hypervisor look at. Ports that keep what is written, a port that asks for a page to be
//! mapped anew, a port for each interrupt line, and a piece of memory that is reached by accesses of devices only.

use crate::fabric::{Drives, IrqLine};
use serde::{Deserialize, Serialize};

/// Ports that keep a double word, seen at its width.
pub(crate) const DATA_PORT: u16 = 0xe0;
/// A page's address written here asks for its mapping to be made again.
pub(crate) const FLUSH_PORT: u16 = 0xe4;
/// The double word again, byte by byte.
pub(crate) const BYTE_PORT: u16 = 0xe8;
/// Ports of each group of the three.
pub(crate) const GROUP: u16 = 4;
/// One port for each interrupt line.
pub(crate) const IRQ_PORT: u16 = 0x2000;
/// Interrupt lines: those of the I/O APIC.
pub(crate) const IRQ_LINES: u16 = 24;
/// Where the memory is, and its bytes.
pub(crate) const MEMORY: u64 = 0xff00_0000;
pub(crate) const MEMORY_SIZE: usize = 0x1_0000;

/// The device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PcTestdev {
    data: u32,
    lines: u32,
    memory: Vec<u8>,
}

/// The bits of a double word that an access of `size` bytes at `offset` reaches, and how far they are shifted.
fn bits(offset: u16, size: u8) -> (u32, u32) {
    let shift = 8 * u32::from(offset & 3);
    let mask = u32::MAX >> (32 - 8 * u32::from(size.clamp(1, 4)));
    (mask << shift, shift)
}

impl Drives for PcTestdev {
    /// A line to each interrupt input, in order.
    type Handles = Vec<IrqLine>;

    fn drive(&mut self, lines: &mut Vec<IrqLine>) {
        for (number, line) in lines.iter_mut().enumerate() {
            line.set(self.lines >> number & 1 != 0);
        }
    }
}

impl PcTestdev {
    pub(crate) fn new() -> PcTestdev {
        PcTestdev { data: 0, lines: 0, memory: vec![0; MEMORY_SIZE] }
    }

    /// Whether a restored state has all of its memory.
    pub(crate) fn is_well_formed(&self) -> bool {
        self.memory.len() == MEMORY_SIZE && self.lines >> IRQ_LINES == 0
    }

    pub(crate) fn read_data(&self, offset: u16, size: u8) -> u32 {
        let (mask, shift) = bits(offset, size);
        (self.data & mask) >> shift
    }

    pub(crate) fn write_data(&mut self, offset: u16, size: u8, value: u32) {
        let (mask, shift) = bits(offset, size);
        self.data = self.data & !mask | value << shift & mask;
    }

    /// Drives an interrupt line high, or low.
    pub(crate) fn set_line(&mut self, line: u16, high: bool) {
        let bit = 1u32.checked_shl(line.into()).unwrap_or(0);
        self.lines = if high { self.lines | bit } else { self.lines & !bit };
    }

    /// The offset in its memory of a guest-physical address.
    pub(crate) fn offset(gpa: u64) -> Option<usize> {
        let offset = usize::try_from(gpa.checked_sub(MEMORY)?).ok()?;
        (offset < MEMORY_SIZE).then_some(offset)
    }

    /// Reads `size` bytes of its memory; what is beyond its end is 0.
    pub(crate) fn read(&self, offset: usize, size: u8) -> u64 {
        let bytes = self.memory.iter().skip(offset).take(size.into());
        bytes.rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    /// Writes `size` bytes of its memory; what is beyond its end is lost.
    pub(crate) fn write(&mut self, offset: usize, size: u8, value: u64) {
        let places = self.memory.iter_mut().skip(offset).take(size.into());
        places.zip(value.to_le_bytes()).for_each(|(place, byte)| *place = byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_double_word_is_read_and_written() {
        let mut device = PcTestdev::new();
        device.write_data(0, 4, 0x1122_3344);
        device.write_data(1, 1, 0xff55);
        device.write_data(2, 2, 0xaabb);
        assert_eq!(device.read_data(0, 4), 0xaabb_5544);
        assert_eq!((device.read_data(3, 1), device.read_data(1, 2)), (0xaa, 0xbb55));
        // Past the end there is nothing.
        device.write_data(3, 4, 0x0102_0304);
        assert_eq!((device.read_data(0, 4), device.read_data(3, 4)), (0x04bb_5544, 0x04));
    }

    #[test]
    fn memory_ends_where_it_ends() {
        let mut device = PcTestdev::new();
        let last = PcTestdev::offset(MEMORY + 0xffff).unwrap();
        assert_eq!((PcTestdev::offset(MEMORY - 1), PcTestdev::offset(MEMORY + 0x1_0000)), (None, None));
        device.write(last, 8, u64::MAX);
        assert_eq!((device.read(last, 8), device.read(last - 1, 2)), (0xff, 0xff00));
        device.write(0, 8, 0x1122_3344_5566_7788);
        assert_eq!((device.read(0, 8), device.read(3, 2)), (0x1122_3344_5566_7788, 0x4455));
        assert!(device.is_well_formed());
        device.memory.pop();
        assert!(!device.is_well_formed());
    }

    #[test]
    fn lines_that_there_are() {
        let mut device = PcTestdev::new();
        for line in [0, 23, 40] {
            device.set_line(line, true);
        }
        assert_eq!(device.lines, 0x80_0001);
        device.set_line(23, false);
        assert_eq!(device.lines, 1);
    }
}
