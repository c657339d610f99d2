//! The ISA bus's two DMA controllers (8237A data sheet) with their page registers (82371SB data sheet, 2.5): their registers are
//! there, but no device of this machine asks for a transfer.

use serde::{Deserialize, Serialize};

/// The first ports of the two: channels 0-3, byte by byte; channels 4-7, whose registers are at every other port.
const FIRST: u16 = 0x00;
const SECOND: u16 = 0xc0;
/// The page registers' first port.
const PAGES: u16 = 0x80;

/// Registers after the channels' (table 4 of the data sheet).
const STATUS_COMMAND: u16 = 0x8;
const REQUEST: u16 = 0x9;
const SINGLE_MASK: u16 = 0xa;
const MODE: u16 = 0xb;
const CLEAR_FLIP_FLOP: u16 = 0xc;
const TEMPORARY_MASTER_CLEAR: u16 = 0xd;
const CLEAR_MASK: u16 = 0xe;
const ALL_MASK: u16 = 0xf;

/// A 16-bit register that is written and read in halves, as programmed and as it counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Counted {
    base: u16,
    current: u16,
}

impl Counted {
    fn write(&mut self, high: bool, byte: u8) {
        let [low, upper] = self.base.to_le_bytes();
        self.base = u16::from_le_bytes(if high { [low, byte] } else { [byte, upper] });
        self.current = self.base;
    }
}

/// One 8237A.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Controller {
    /// Address and count of each channel, in the order of their ports.
    counted: [Counted; 8],
    modes: [u8; 4],
    command: u8,
    requests: u8,
    mask: u8,
    flip_flop: bool,
}

impl Controller {
    /// As after a master clear: all channels masked.
    fn new() -> Controller {
        Controller {
            counted: [Counted::default(); 8],
            modes: [0; 4],
            command: 0,
            requests: 0,
            mask: 0x0f,
            flip_flop: false,
        }
    }

    fn flip(&mut self) -> bool {
        let high = self.flip_flop;
        self.flip_flop = !high;
        high
    }

    fn read(&mut self, register: u16) -> u8 {
        if let Some(counted) = self.counted.get(usize::from(register)).copied() {
            let [low, high] = counted.current.to_le_bytes();
            return if self.flip() { high } else { low };
        }
        match register {
            // No channel has come to the end of its count.
            STATUS_COMMAND => self.requests << 4,
            // All that is readable besides is what the later chipsets gave back here.
            ALL_MASK => self.mask | 0xf0,
            _ => 0,
        }
    }

    fn write(&mut self, register: u16, byte: u8) {
        if register < 8 {
            let high = self.flip();
            if let Some(counted) = self.counted.get_mut(usize::from(register)) {
                counted.write(high, byte);
            }
            return;
        }
        let channel = 1 << (byte & 3);
        let set = |bits: u8| if byte & 4 != 0 { bits | channel } else { bits & !channel };
        match register {
            STATUS_COMMAND => self.command = byte,
            REQUEST => self.requests = set(self.requests),
            SINGLE_MASK => self.mask = set(self.mask),
            MODE => {
                if let Some(mode) = self.modes.get_mut(usize::from(byte & 3)) {
                    *mode = byte & !3;
                }
            }
            CLEAR_FLIP_FLOP => self.flip_flop = false,
            // Address, count and mode registers keep what they hold.
            TEMPORARY_MASTER_CLEAR => {
                *self = Controller { counted: self.counted, modes: self.modes, ..Controller::new() };
            }
            CLEAR_MASK => self.mask = 0,
            ALL_MASK => self.mask = byte & 0x0f,
            _ => {}
        }
    }
}

/// Both controllers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Dma {
    controllers: [Controller; 2],
    pages: [u8; 16],
}

impl Dma {
    pub(crate) fn new() -> Dma {
        Dma { controllers: [Controller::new(); 2], pages: [0; 16] }
    }

    fn controller(&mut self, port: u16) -> Option<(&mut Controller, u16)> {
        let [first, second] = &mut self.controllers;
        match port {
            FIRST..=0x0f => Some((first, port - FIRST)),
            SECOND..=0xdf => Some((second, (port - SECOND) / 2)),
            _ => None,
        }
    }

    fn page(&mut self, port: u16) -> Option<&mut u8> {
        self.pages.get_mut(usize::from(port.checked_sub(PAGES)?))
    }

    /// Reads a port: 0x00-0x0f, 0x81-0x8f or 0xc0-0xdf.
    pub(crate) fn read(&mut self, port: u16) -> u8 {
        match self.controller(port) {
            Some((controller, register)) => controller.read(register),
            None => self.page(port).map_or(0xff, |page| *page),
        }
    }

    /// Writes a port.
    pub(crate) fn write(&mut self, port: u16, byte: u8) {
        match self.controller(port) {
            Some((controller, register)) => controller.write(register, byte),
            None => {
                if let Some(page) = self.page(port) {
                    *page = byte;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_counts_go_by_halves() {
        let mut dma = Dma::new();
        for (port, byte) in [(0x0c, 0), (0x04, 0x34), (0x04, 0x12), (0x05, 0xff), (0x05, 0x01)] {
            dma.write(port, byte);
        }
        dma.write(0x0c, 0);
        assert_eq!([0x04, 0x04, 0x05, 0x05].map(|port| dma.read(port)), [0x34, 0x12, 0xff, 0x01]);
        assert_eq!(dma.read(0x04), 0x34);
        dma.write(0x0c, 0);
        assert_eq!(dma.read(0x04), 0x34, "from the low half again");
        dma.write(0xd8, 0);
        dma.write(0xc4, 0x56);
        dma.write(0xc4, 0x78);
        dma.write(0xd8, 0);
        assert_eq!((dma.read(0xc4), dma.read(0xc5)), (0x56, 0x78), "the second one's registers have two ports each");
    }

    #[test]
    fn masks_and_requests_are_by_channel() {
        let mut dma = Dma::new();
        assert_eq!(dma.read(0x0f), 0xff, "all masked");
        dma.write(0x0a, 2);
        assert_eq!(dma.read(0x0f), 0xfb);
        dma.write(0x0a, 6);
        dma.write(0x0e, 0);
        assert_eq!(dma.read(0x0f), 0xf0);
        dma.write(0x0f, 5);
        assert_eq!((dma.read(0x0f), dma.read(0xde)), (0xf5, 0xff));
        dma.write(0xd2, 5);
        assert_eq!((dma.read(0xd0), dma.read(0x08)), (0x20, 0), "a request that nobody serves");
        dma.write(0xda, 0);
        assert_eq!(dma.read(0xd0), 0, "master clear");
    }

    #[test]
    fn page_registers_hold_what_is_written() {
        let mut dma = Dma::new();
        for port in 0x81..=0x8f {
            dma.write(port, port as u8 ^ 0x5a);
        }
        assert!((0x81..=0x8f).all(|port| dma.read(port) == port as u8 ^ 0x5a));
    }

    #[test]
    fn state_round_trips() {
        let mut dma = Dma::new();
        for port in (0..=0xf).chain(0x81..=0x8f).chain(0xc0..=0xdf) {
            dma.write(port, port.wrapping_mul(7) as u8);
        }
        let back: Dma = postcard::from_bytes(&postcard::to_stdvec(&dma).unwrap()).unwrap();
        assert_eq!(back, dma);
    }
}
