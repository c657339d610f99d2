//! The EEPROM of 64 words behind its Microwire pins (Software Developer's Manual, 5.3 and 5.6), and the PHY's registers (8.10).

/// Pins in the register EECD (13.4.3).
const CLOCK: u32 = 1 << 0;
const SELECT: u32 = 1 << 1;
const DATA_IN: u32 = 1 << 2;
const DATA_OUT: u32 = 1 << 3;
/// Writing the EEPROM is disabled.
const WRITE_DISABLED: u32 = 1 << 4;
const REQUEST: u32 = 1 << 6;
const GRANT: u32 = 1 << 7;
const PRESENT: u32 = 1 << 8;

pub(super) const WORDS: usize = 64;
/// Bits of a command: start, two of the operation, the address.
const COMMAND_BITS: u32 = 9;
/// Start bit and operation of a read.
const READ: u32 = 0b110;
/// What all words add up to (5.6.35).
const SUM: u16 = 0xbaba;

/// The contents: hardware address, identifiers, sum.
pub(super) fn contents(mac: [u8; 6], (vendor, device): (u16, u16), (subvendor, subdevice): (u16, u16)) -> [u16; WORDS] {
    let mut words = [0; WORDS];
    let [a, b, c, d, e, f] = mac;
    words[0] = u16::from_le_bytes([a, b]);
    words[1] = u16::from_le_bytes([c, d]);
    words[2] = u16::from_le_bytes([e, f]);
    // The identifiers are to be loaded; subsystem, device, vendor (5.6.7 to 5.6.11).
    words[0x0a] = 0x4408;
    words[0x0b] = subdevice;
    words[0x0c] = subvendor;
    words[0x0d] = device;
    words[0x0e] = vendor;
    let sum = words.iter().fold(0u16, |sum, word| sum.wrapping_add(*word));
    words[WORDS - 1] = SUM.wrapping_sub(sum);
    words
}

/// The state of the Microwire interface.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Microwire {
    /// The pins that software drives, and REQUEST.
    pub(super) pins: u32,
    /// Bits that have come, after a 1 as a mark.
    pub(super) command: u32,
    /// The word that is read and how many of its bits were; 0xff while there is none.
    pub(super) address: u8,
    pub(super) bits: u8,
}

/// [`Microwire::bits`] while no word is read.
const NOT_READING: u8 = 0xff;

impl Microwire {
    pub(super) fn new() -> Microwire {
        Microwire { bits: NOT_READING, ..Microwire::default() }
    }

    /// What EECD reads as.
    pub(super) fn read(&self, words: &[u16; WORDS]) -> u32 {
        let grant = if self.pins & REQUEST != 0 { GRANT } else { 0 };
        let word = words.get(usize::from(self.address) % WORDS).copied().unwrap_or(0);
        let out = match self.bits {
            // Ready, and a 0 before the first bit.
            NOT_READING => self.command == 0,
            0 => false,
            bits => word >> (16 - u32::from(bits.min(16))) & 1 != 0,
        };
        self.pins | grant | if out { DATA_OUT } else { 0 } | WRITE_DISABLED | PRESENT
    }

    /// Software writes EECD.
    pub(super) fn write(&mut self, value: u32) {
        let rises = value & !self.pins & CLOCK != 0;
        self.pins = value & (CLOCK | SELECT | DATA_IN | REQUEST);
        if value & SELECT == 0 {
            *self = Microwire { pins: self.pins, ..Microwire::new() };
        } else if rises && self.bits != NOT_READING {
            self.bits += 1;
            if self.bits > 16 {
                // The next word follows.
                (self.address, self.bits) = (self.address.wrapping_add(1), 1);
            }
        } else if rises {
            let bit = u32::from(value & DATA_IN != 0);
            // Zeros before the start bit do not count.
            self.command = if self.command == 0 && bit == 0 { 0 } else { self.command << 1 | bit };
            if self.command >> (COMMAND_BITS - 1) != 0 {
                let (operation, address) = (self.command >> 6, self.command & 0x3f);
                self.command = 1;
                if operation == READ {
                    (self.address, self.bits) = (address as u8, 0);
                }
            }
        }
    }
}

/// PHY registers.
pub(super) const PHY_REGISTERS: usize = 32;
const PHY_CONTROL: usize = 0;
const PHY_STATUS: usize = 1;
const PHY_RESET: u16 = 1 << 15;
const PHY_RESTART: u16 = 1 << 9;

/// What the registers of the PHY, a 88E1011, hold after a reset: a link of 1000 Mb/s, full duplex, negotiated.
pub(super) fn phy() -> [u16; PHY_REGISTERS] {
    let mut registers = [0; PHY_REGISTERS];
    let values = [
        (PHY_CONTROL, 0x1140),
        (PHY_STATUS, 0x796d),
        (2, 0x0141),
        (3, 0x0c20),
        (4, 0x0de1),
        (5, 0xcde1),
        (6, 0x0001),
        (9, 0x0e00),
        (10, 0x3c00),
        (15, 0x3000),
        (16, 0x0360),
        (17, 0xac00),
        (20, 0x0d60),
    ];
    values.iter().for_each(|&(index, value): &(usize, u16)| registers[index] = value);
    registers
}

/// Has the status say whether there is a link: that it stands, and that it was negotiated (IEEE 802.3, 22.2.4.2).
pub(super) fn show_link(registers: &mut [u16; PHY_REGISTERS], up: bool) {
    const LINK: u16 = 1 << 5 | 1 << 2;
    registers[PHY_STATUS] = registers[PHY_STATUS] & !LINK | if up { LINK } else { 0 };
}

/// Software writes a register of the PHY; whether the link comes up again.
pub(super) fn write_phy(registers: &mut [u16; PHY_REGISTERS], index: usize, value: u16) -> bool {
    match index {
        PHY_CONTROL if value & PHY_RESET != 0 => {
            *registers = phy();
            true
        }
        PHY_CONTROL => {
            registers[PHY_CONTROL] = value & !PHY_RESTART;
            value & PHY_RESTART != 0
        }
        // Advertisements, and the PHY's own controls.
        4 | 7 | 9 | 16 | 18 | 20 | 24 | 29 | 30 => {
            registers[index] = value;
            false
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_by_the_pins() {
        let words = contents([1, 2, 3, 4, 5, 6], (0x8086, 0x100e), (1, 2));
        assert_eq!(words.iter().fold(0u16, |sum, word| sum.wrapping_add(*word)), SUM);
        let mut wire = Microwire::new();
        wire.write(REQUEST);
        assert_ne!(wire.read(&words) & GRANT, 0);
        let clock = |wire: &mut Microwire, data: u32| {
            let pins = REQUEST | SELECT | if data != 0 { DATA_IN } else { 0 };
            [pins, pins | CLOCK].into_iter().for_each(|pins| wire.write(pins));
            let out = wire.read(&words) & DATA_OUT != 0;
            wire.write(pins);
            out
        };
        for address in [0u32, 2, 63] {
            wire.write(REQUEST);
            wire.write(REQUEST | SELECT);
            let command = READ << 6 | address;
            for bit in (0..9).rev() {
                clock(&mut wire, command >> bit & 1);
            }
            let word = (0..16).fold(0u16, |word, _| word << 1 | u16::from(clock(&mut wire, 0)));
            assert_eq!(word, words[address as usize], "{address}");
        }
    }
}
