//! The lines of devices that do not own theirs yet: they are looked at after each access.

use super::state::Devices;
use crate::acpi_pm;
use crate::fabric::{IrqInputs, IrqLine};
use crate::ferr::FERR_IRQ;
use crate::testdev::{self, PcTestdev};

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

/// What the timer is set to by firmware: counter 0 counts 65,536 clocks again and again (8254 data sheet, mode 2). Registers by
/// their offset.
const FIRMWARE_PIT_WRITES: [(u8, u8); 3] = [(3, 0x34), (0, 0), (0, 0)];

/// A line to each input of the interrupt controllers.
pub(super) struct Lines(Vec<IrqLine>);

impl Lines {
    pub(super) fn new(inputs: &IrqInputs) -> Lines {
        Lines((0..testdev::IRQ_LINES.into()).map(|input| inputs.line(input)).collect())
    }

    fn line(&mut self, input: u8) -> Option<&mut IrqLine> {
        self.0.get_mut(usize::from(input))
    }

    fn set(&mut self, input: u8, level: bool) {
        if let Some(line) = self.line(input) {
            line.set(level);
        }
    }
}

impl Devices {
    /// Leaves the timer as firmware does: it ticks 18.2 times a second.
    pub(super) fn set_up_as_firmware(&mut self) {
        for (register, value) in FIRMWARE_PIT_WRITES {
            self.pit.write(self.now, register, value);
        }
    }

    /// Propagates every interrupt line from its device to the interrupt controllers. `pci` are those of PCI functions.
    pub(super) fn settle(&mut self, lines: &mut Lines, pci: u16) {
        let legacy = self.settle_timers(lines);
        let test = self.testdev.as_ref().map(PcTestdev::lines);
        let plugged = pci | test.unwrap_or(0) as u16;
        let sources = IRQ_SOURCES.iter().filter(|(_, level)| level(self));
        let levels = sources.fold(plugged, |lines, (irq, _)| lines | 1 << irq);
        let apart = if legacy { TIMER_AND_CASCADE | RTC_LINE } else { TIMER_AND_CASCADE };
        for irq in (0..16).filter(|irq| apart >> irq & 1 == 0) {
            lines.set(irq, levels >> irq & 1 != 0);
        }
        if let Some(test) = test {
            // Beyond the ISA interrupt lines they go to the I/O APIC only.
            (16..testdev::IRQ_LINES as u8).for_each(|pin| lines.set(pin, test >> pin & 1 != 0));
        }
    }

    /// Drives the lines that follow a timer's edges; whether the clock's is one of them.
    fn settle_timers(&mut self, lines: &mut Lines) -> bool {
        let mut follow = |input, timer| {
            if let Some(line) = lines.line(input) {
                line.follow(timer);
            }
        };
        let timer = self.pit.take_irq0();
        let Some(hpet) = &mut self.hpet else {
            follow(0, timer);
            return false;
        };
        let legacy = hpet.is_legacy();
        if hpet.take_changed() {
            for (pin, line) in hpet.take_pins() {
                follow(pin, line);
            }
            if legacy {
                let [timer, clock] = [0, 1].map(|index| hpet.take_line(index));
                follow(0, timer);
                follow(RTC_IRQ, clock);
            }
        }
        if !legacy {
            follow(0, timer);
        }
        legacy
    }
}
