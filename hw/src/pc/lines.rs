//! How interrupts get from the board's devices to its processors.

use super::PcEvent;
use super::state::Devices;
use crate::acpi_pm;
use crate::ferr::FERR_IRQ;
use crate::lapic::{Delivery, Destination, Lapic, Message};
use crate::testdev::{self, PcTestdev};
use crate::time::TimerLine;

/// An ISA interrupt line and what drives it.
type IrqSource = (u8, fn(&Devices) -> bool);

/// The ISA interrupt lines that follow the level of a device's output. The timer's is driven by its edges instead.
const IRQ_SOURCES: [IrqSource; 5] = [
    (1, |devices| devices.i8042.irq1()),
    (RTC_IRQ, |devices| devices.rtc.irq()),
    (acpi_pm::SCI_IRQ, |devices| devices.pm.sci()),
    (12, |devices| devices.i8042.irq12()),
    (FERR_IRQ, |devices| devices.ferr.irq()),
];

/// The clock's line, which a timer of the HPET may take over.
const RTC_IRQ: u8 = 8;
const RTC_LINE: u16 = 1 << RTC_IRQ;
/// The ISA interrupt lines that no device but the timer and the second 8259A drives.
const TIMER_AND_CASCADE: u16 = 1 << 0 | 1 << 2;

/// The I/O APIC input of an ISA interrupt line: the timer's is input 2, as the MADT and the MP table say.
fn ioapic_pin(irq: u8) -> u8 {
    if irq == 0 { 2 } else { irq }
}

/// What firmware writes to the 8259As: vectors 0x08 and 0x70, cascade on input 2, and what it has handlers for not masked.
const FIRMWARE_PIC_WRITES: [(u16, u8); 10] = [
    (0x20, 0x11),
    (0x21, 0x08),
    (0x21, 0x04),
    (0x21, 0x01),
    (0x21, 0xb8),
    (0xa0, 0x11),
    (0xa1, 0x70),
    (0xa1, 0x02),
    (0xa1, 0x01),
    (0xa1, 0x8e),
];

/// What firmware writes to the timer: counter 0 counts 65,536 clocks again and again (8254 data sheet, mode 2). Registers by their
/// offset.
const FIRMWARE_PIT_WRITES: [(u8, u8); 3] = [(3, 0x34), (0, 0), (0, 0)];

/// The ports of the 8259As' edge/level control registers, one after the other.
const ELCR: u16 = 0x4d0;

/// The I/O APIC input that carries the 8259A's output.
const EXT_INT_PIN: u8 = 0;

impl Devices {
    /// Leaves timer and interrupt controllers as firmware does: counter 0 ticks 18.2 times a second, 8259As initialised, these
    /// inputs level-triggered, the bootstrap processor's local APIC in virtual wire mode.
    pub(super) fn set_up_as_firmware(&mut self, level_triggered: u16) {
        for (register, value) in FIRMWARE_PIT_WRITES {
            self.pit.write(self.now, register, value);
        }
        // The timer's line is high from power-on; the initialisation forgets that edge.
        self.settle();
        for (port, value) in FIRMWARE_PIC_WRITES {
            self.pic.write(port, value);
        }
        for (port, value) in (ELCR..).zip(level_triggered.to_le_bytes()) {
            self.pic.write(port, value);
        }
        if let Some(bsp) = self.lapics.first_mut() {
            bsp.enter_virtual_wire_mode();
        }
        self.settle();
    }

    /// Keeps the first request that nobody has taken yet.
    pub(super) fn request(&mut self, event: PcEvent) {
        self.event.get_or_insert(event);
    }

    /// Propagates every interrupt line from its device to the processors.
    pub(super) fn settle(&mut self) {
        let legacy = self.settle_timers();
        let plugged = self.pci_irqs | self.plugged_lines();
        let sources = IRQ_SOURCES.iter().filter(|(_, level)| level(self));
        let levels = sources.fold(plugged, |lines, (irq, _)| lines | 1 << irq);
        let apart = if legacy { TIMER_AND_CASCADE | RTC_LINE } else { TIMER_AND_CASCADE };
        let mut changed = (levels ^ self.isa_lines) & !apart;
        while changed != 0 {
            let irq = changed.trailing_zeros() as u8;
            changed &= changed - 1;
            self.set_isa_line(irq, levels >> irq & 1 != 0);
        }
        let output = self.pic.output();
        self.set_pic_output(output);
        let mut active = self.ioapic.active();
        while active != 0 {
            let pin = active.trailing_zeros() as u8;
            active &= active - 1;
            if let Some(message) = self.ioapic.request(pin)
                && self.deliver(message, None)
            {
                self.ioapic.accepted(pin);
            }
        }
    }

    /// The ISA interrupt lines that plugged-in devices assert, bit by number. The test device's lines beyond them go to the I/O
    /// APIC only.
    fn plugged_lines(&mut self) -> u16 {
        let test = self.testdev.as_ref().map_or(0, PcTestdev::lines);
        if self.testdev.is_some() {
            for pin in 16..testdev::IRQ_LINES as u8 {
                self.ioapic.set_pin(pin, test >> pin & 1 != 0);
            }
        }
        let serial = self.uarts.iter().filter(|uart| uart.irq()).map(|uart| uart.config().irq);
        serial.fold(test as u16, |lines, irq| lines | 1 << irq)
    }

    /// Drives the lines that follow a timer's edges; whether the clock's is one of them.
    fn settle_timers(&mut self) -> bool {
        let timer = self.pit.take_irq0();
        let Some(hpet) = &mut self.hpet else {
            self.drive(0, timer);
            return false;
        };
        let legacy = hpet.is_legacy();
        if hpet.take_changed() {
            for (pin, line) in hpet.take_pins() {
                if line.rose {
                    self.ioapic.set_pin(pin, false);
                    self.ioapic.set_pin(pin, true);
                }
                self.ioapic.set_pin(pin, line.level);
            }
            if legacy {
                let [timer, clock] = [0, 1].map(|index| hpet.take_line(index));
                self.drive(0, timer);
                self.drive(RTC_IRQ, clock);
            }
        }
        if !legacy {
            self.drive(0, timer);
        }
        legacy
    }

    fn drive(&mut self, irq: u8, line: TimerLine) {
        if line.rose {
            self.set_isa_line(irq, false);
            self.set_isa_line(irq, true);
        }
        self.set_isa_line(irq, line.level);
    }

    fn set_isa_line(&mut self, irq: u8, level: bool) {
        let bit = 1 << irq;
        if (self.isa_lines & bit != 0) != level {
            self.isa_lines ^= bit;
            self.pic.set_irq(irq, level);
            self.ioapic.set_pin(ioapic_pin(irq), level);
        }
    }

    pub(super) fn set_pic_output(&mut self, level: bool) {
        self.ioapic.set_pin(EXT_INT_PIN, level);
        for lapic in &mut self.lapics {
            lapic.set_lint0(level);
        }
    }

    /// Gives a message to the local APICs it is for; true when one took it.
    pub(super) fn deliver(&mut self, message: Message, sender: Option<usize>) -> bool {
        let chosen = |index: usize, lapic: &Lapic| match message.destination {
            Destination::Sender => sender == Some(index),
            Destination::AllButSender => sender != Some(index),
            destination => lapic.matches(destination),
        };
        if message.delivery == Delivery::LowestPriority {
            let mut candidates: Vec<(u8, usize)> = self
                .lapics
                .iter()
                .enumerate()
                .filter(|(index, lapic)| chosen(*index, lapic))
                .map(|(index, lapic)| (lapic.ppr(), index))
                .collect();
            candidates.sort_unstable();
            return candidates
                .into_iter()
                .any(|(_, index)| self.lapics.get_mut(index).is_some_and(|lapic| lapic.receive(message)));
        }
        let mut taken = false;
        for (index, lapic) in self.lapics.iter_mut().enumerate() {
            if chosen(index, lapic) {
                taken |= lapic.receive(message);
            }
        }
        taken
    }
}
