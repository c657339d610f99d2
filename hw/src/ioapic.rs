//! The I/O APIC (82093AA data sheet) with the EOI register of version 0x20 (later chipset data sheets, "IOAPIC EOI").

use crate::lapic::{Delivery, Destination, Message};
use serde::{Deserialize, Serialize};

/// Where its registers are.
pub(crate) const BASE: u64 = 0xfec0_0000;
/// The APIC ID until software changes it.
pub(crate) const RESET_ID: u8 = 0;
/// The number of inputs.
pub(crate) const PINS: u8 = 24;

const VERSION: u32 = 0x20 | (PINS as u32 - 1) << 16;

const REMOTE_IRR: u64 = 1 << 14;
const LEVEL: u64 = 1 << 15;
const MASKED: u64 = 1 << 16;
/// Delivery status and remote IRR can not be written, reserved bits read as 0.
const WRITABLE: u64 = 0xff00_0000_0001_afff;

/// An I/O APIC with 24 inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct IoApic {
    id: u8,
    index: u8,
    entries: [u64; PINS as usize],
    lines: u32,
    /// Edges to deliver.
    edges: u32,
}

impl IoApic {
    pub(crate) fn new() -> Self {
        IoApic { id: RESET_ID, index: 0, entries: [MASKED; PINS as usize], lines: 0, edges: 0 }
    }

    fn entry(&self, pin: u8) -> u64 {
        self.entries.get(usize::from(pin)).copied().unwrap_or(MASKED)
    }

    /// Drives an input; `level` is true when it is asserted, whatever its polarity.
    pub(crate) fn set_pin(&mut self, pin: u8, level: bool) {
        if pin >= PINS {
            return;
        }
        let bit = 1 << pin;
        let entry = self.entry(pin);
        // An edge on a masked input is lost (3.2.4, "interrupt mask").
        if level && self.lines & bit == 0 && !is_level(entry) && entry & MASKED == 0 {
            self.edges |= bit;
        }
        self.lines = if level { self.lines | bit } else { self.lines & !bit };
    }

    /// The message that input `pin` wants sent now.
    pub(crate) fn request(&self, pin: u8) -> Option<Message> {
        let entry = self.entry(pin);
        let level = is_level(entry);
        let bit = 1u32.checked_shl(u32::from(pin))?;
        let wants = if level { self.lines & bit != 0 && entry & REMOTE_IRR == 0 } else { self.edges & bit != 0 };
        if !wants || entry & MASKED != 0 {
            return None;
        }
        let destination = (entry >> 56) as u8;
        Some(Message {
            destination: if entry & (1 << 11) != 0 {
                Destination::Logical(destination)
            } else {
                Destination::Physical(destination)
            },
            delivery: Delivery::from_bits((entry >> 8) as u32)?,
            vector: entry as u8,
            level,
        })
    }

    /// Some local APIC took the message of `pin`.
    pub(crate) fn accepted(&mut self, pin: u8) {
        let Some(entry) = self.entries.get_mut(usize::from(pin)) else {
            return;
        };
        if is_level(*entry) {
            *entry |= REMOTE_IRR;
        } else {
            self.edges &= !(1 << pin);
        }
    }

    /// The inputs that may want a message sent, bit by number; the cheap test before [`IoApic::request`].
    pub(crate) fn active(&self) -> u32 {
        self.edges | self.lines
    }

    /// The end of the level-triggered interrupt `vector`.
    pub(crate) fn end_of_interrupt(&mut self, vector: u8) {
        for entry in &mut self.entries {
            if is_level(*entry) && *entry as u8 == vector {
                *entry &= !REMOTE_IRR;
            }
        }
    }

    /// Reads the 32-bit register at `offset` from [`BASE`].
    pub(crate) fn read(&self, offset: u64) -> u32 {
        match offset {
            0x00 => u32::from(self.index),
            0x10 => match self.index {
                0 | 2 => u32::from(self.id) << 24,
                1 => VERSION,
                _ => match self.selected() {
                    Some((pin, high)) => (self.entry(pin) >> if high { 32 } else { 0 }) as u32,
                    None => 0,
                },
            },
            _ => 0,
        }
    }

    /// Writes the 32-bit register at `offset` from [`BASE`].
    pub(crate) fn write(&mut self, offset: u64, value: u32) {
        match offset {
            0x00 => self.index = value as u8,
            0x10 if self.index == 0 => self.id = (value >> 24) as u8 & 0x0f,
            0x10 => {
                if let Some((pin, high)) = self.selected() {
                    self.write_entry(pin, high, value);
                }
            }
            0x40 => self.end_of_interrupt(value as u8),
            _ => {}
        }
    }

    /// The redirection entry that IOREGSEL points at, and whether at its high half.
    fn selected(&self) -> Option<(u8, bool)> {
        let word = self.index.checked_sub(0x10)?;
        (word < 2 * PINS).then_some((word / 2, word & 1 != 0))
    }

    fn write_entry(&mut self, pin: u8, high: bool, value: u32) {
        let Some(entry) = self.entries.get_mut(usize::from(pin)) else {
            return;
        };
        let value = u64::from(value);
        let merged = if high { value << 32 | (*entry & 0xffff_ffff) } else { (*entry & !0xffff_ffff) | value };
        let kept = *entry & REMOTE_IRR;
        *entry = merged & WRITABLE;
        if is_level(*entry) {
            *entry |= kept;
            self.edges &= !(1 << pin);
        }
        // An edge-triggered entry has no remote IRR; switching to it and back is how software clears a stuck one.
    }
}

/// Whether an entry is level-triggered. Only fixed and lowest-priority delivery can be: the others get no EOI.
fn is_level(entry: u64) -> bool {
    entry & LEVEL != 0 && matches!((entry >> 8) & 7, 0 | 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(ioapic: &mut IoApic, index: u8, value: u32) {
        ioapic.write(0, u32::from(index));
        ioapic.write(0x10, value);
    }

    fn read(ioapic: &mut IoApic, index: u8) -> u32 {
        ioapic.write(0, u32::from(index));
        ioapic.read(0x10)
    }

    #[test]
    fn identity() {
        let mut a = IoApic::new();
        assert_eq!(read(&mut a, 1), 0x0017_0020);
        write(&mut a, 0, 0x0500_0000);
        assert_eq!((read(&mut a, 0), read(&mut a, 2)), (0x0500_0000, 0x0500_0000));
        assert_eq!(read(&mut a, 0x10), MASKED as u32);
        assert_eq!(read(&mut a, 0x40), 0, "past the last entry");
    }

    #[test]
    fn edge_delivers_once() {
        let mut a = IoApic::new();
        a.set_pin(4, true);
        write(&mut a, 0x10 + 8, 0x0834);
        write(&mut a, 0x10 + 9, 0x0300_0000);
        assert_eq!(a.request(4), None, "an edge on a masked input is lost");
        a.set_pin(4, false);
        a.set_pin(4, true);
        let expected =
            Message { destination: Destination::Logical(3), delivery: Delivery::Fixed, vector: 0x34, level: false };
        assert_eq!(a.request(4), Some(expected));
        a.accepted(4);
        assert_eq!(a.request(4), None);
        a.set_pin(4, true);
        assert_eq!(a.request(4), None);
    }

    #[test]
    fn level_waits_for_its_eoi() {
        let mut a = IoApic::new();
        write(&mut a, 0x10 + 18, 0x8059);
        a.set_pin(9, true);
        assert!(a.request(9).is_some_and(|message| message.level));
        a.accepted(9);
        assert_eq!(read(&mut a, 0x10 + 18), 0xc059);
        assert_eq!(a.request(9), None);
        a.end_of_interrupt(0x58);
        assert_eq!(a.request(9), None);
        a.end_of_interrupt(0x59);
        assert!(a.request(9).is_some(), "still asserted");
        a.accepted(9);
        a.set_pin(9, false);
        a.write(0x40, 0x59);
        assert_eq!(a.request(9), None);
        a.set_pin(9, true);
        write(&mut a, 0x10 + 18, 0x1_8059);
        assert_eq!(a.request(9), None, "masked");
        write(&mut a, 0x10 + 18, 0x8059);
        assert!(a.request(9).is_some(), "a level is seen when it is unmasked");
    }

    #[test]
    fn remote_irr_is_read_only_but_an_edge_entry_drops_it() {
        let mut a = IoApic::new();
        write(&mut a, 0x10, 0xf059);
        assert_eq!(read(&mut a, 0x10), 0xa059);
        write(&mut a, 0x10, 0x8059);
        a.set_pin(0, true);
        a.accepted(0);
        write(&mut a, 0x10, 0x1_8059);
        assert_eq!(read(&mut a, 0x10), 0x1_c059);
        write(&mut a, 0x10, 0x1_0059);
        write(&mut a, 0x10, 0x8059);
        assert_eq!(read(&mut a, 0x10), 0x8059);
    }

    #[test]
    fn delivery_modes() {
        let mut a = IoApic::new();
        for (bits, delivery) in [(1, Delivery::LowestPriority), (4, Delivery::Nmi), (7, Delivery::ExtInt)] {
            write(&mut a, 0x12, bits << 8 | 0x8040);
            a.set_pin(1, false);
            a.set_pin(1, true);
            assert_eq!(a.request(1).map(|message| message.delivery), Some(delivery));
            a.accepted(1);
            a.end_of_interrupt(0x40);
            assert_eq!(a.request(1).is_some(), delivery == Delivery::LowestPriority, "only it stays level-triggered");
        }
        write(&mut a, 0x12, 0x0340);
        a.set_pin(1, false);
        a.set_pin(1, true);
        assert_eq!(a.request(1), None, "reserved mode");
    }

    #[test]
    fn state_round_trips() {
        let mut a = IoApic::new();
        write(&mut a, 0x10 + 18, 0x8059);
        write(&mut a, 0x10 + 8, 0x0834);
        a.set_pin(9, true);
        a.accepted(9);
        a.set_pin(4, true);
        let mut back: IoApic = postcard::from_bytes(&postcard::to_stdvec(&a).unwrap()).unwrap();
        assert_eq!(back, a);
        back.end_of_interrupt(0x59);
        assert!(back.request(9).is_some() && back.request(4).is_some());
    }
}
