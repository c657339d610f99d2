//! How the PC's devices are wired: to interrupt inputs, and to the machine's timer queue.

use std::sync::Arc;

use super::interrupts::Interrupts;
use super::state::Devices;
use super::{Pc, PcConfig};
use crate::acpi_pm::{self, AcpiPm, PmHandles};
use crate::debug::PostCode;
use crate::dma::Dma;
use crate::fabric::{IrqInputs, IrqLine, IrqSink, IrqSwitch, Timer, TimerQueue, Wired};
use crate::ferr::{FERR_IRQ, FerrLatch};
use crate::hpet::{self, HpetHandles};
use crate::i8042::{I8042, I8042Handles};
use crate::pci::BusWires;
use crate::pit::{Pit, PitHandles};
use crate::rtc::{Rtc, RtcHandles};
use crate::testdev::IRQ_LINES;

/// The timer's ISA interrupt line, the clock's, and that of the second 8259A.
const TIMER_IRQ: u32 = 0;
const RTC_IRQ: u32 = 8;
const CASCADE: u32 = 2;

/// Numbers of timers. Those of PCI functions and of ISA devices begin here, by place and in order.
const PIT: u32 = 0;
const HPET: u32 = 1;
const RTC: u32 = 2;
const PM: u32 = 3;
const KEYBOARD: u32 = 4;
const FUNCTIONS: u32 = 0x100;
const ISA: u32 = 0x200;

/// The board's side of all handles.
pub(super) struct Wires {
    /// The ISA interrupt lines, and above them the inputs that only the I/O APIC has.
    pub(super) inputs: IrqInputs,
    pub(super) timers: TimerQueue,
    /// Timer and clock, whose lines an event timer may take over.
    places: [Arc<IrqSwitch>; 2],
    /// The event timer's lines to them, until it is plugged in.
    legacy: Option<[IrqLine; 2]>,
}

impl Wires {
    /// A line to an interrupt input.
    pub(super) fn interrupt(&self, input: u32) -> IrqLine {
        interrupt(&self.inputs, input)
    }

    /// The timer of a device on the ISA bus.
    pub(super) fn isa_timer(&self, number: u8) -> Timer {
        self.timers.timer(ISA + u32::from(number))
    }

    /// The event timer's handles.
    pub(super) fn hpet(&mut self) -> HpetHandles {
        let [first, second] = self.legacy.take().unwrap_or_default();
        let [timer, clock] = self.places.clone();
        HpetHandles {
            places: [(timer, first), (clock, second)],
            pins: std::array::from_fn(|pin| self.inputs.line(u32::from(hpet::FIRST_PIN) + pin as u32)),
            alarm: self.timers.timer(HPET),
        }
    }
}

/// A line to an interrupt input. Those of the timer and of the second 8259A are nobody else's: they lead nowhere.
fn interrupt(inputs: &IrqInputs, input: u32) -> IrqLine {
    if matches!(input, TIMER_IRQ | CASCADE) { IrqLine::default() } else { inputs.line(input) }
}

impl Pc {
    /// Does what the timer with this number is for.
    pub(super) fn fire(&mut self, number: u32, now: u64) {
        let devices = &mut self.devices;
        match number {
            PIT => devices.pit.with(|pit| pit.advance(now)),
            HPET => {
                if let Some(hpet) = &mut devices.hpet {
                    hpet.with(|hpet| hpet.advance(now));
                }
            }
            RTC => devices.rtc.with(|rtc| rtc.advance(now)),
            PM => devices.pm.with(|pm| pm.advance(now)),
            KEYBOARD => devices.i8042.with(|i8042| i8042.advance(now)),
            FUNCTIONS..ISA => self.bus.advance((number - FUNCTIONS) as u8, now),
            _ => drop(self.with_isa((number - ISA) as u8, |device| device.advance(now))),
        }
    }
}

/// The interrupt controllers, the devices that every PC has, what they are wired to, and what PCI functions are to be.
pub(super) fn wire(config: &PcConfig) -> (Arc<Interrupts>, Devices, Wires, BusWires) {
    let timers = TimerQueue::new();
    let interrupts = Arc::new(Interrupts::new(config.cpus));
    let sink: Arc<dyn IrqSink> = interrupts.clone();
    let inputs = IrqInputs::new(&sink, IRQ_LINES.into());
    let (timer, [pit, first]) = IrqSwitch::new(inputs.line(TIMER_IRQ));
    let (clock, [rtc, second]) = IrqSwitch::new(inputs.line(RTC_IRQ));
    let wires = Wires { inputs, timers: timers.clone(), places: [timer, clock], legacy: Some([first, second]) };
    let devices = Devices {
        now: 0,
        uarts: Vec::new(),
        pit: Wired::new(Pit::new(), PitHandles { irq: pit, timer: timers.timer(PIT) }),
        hpet: None,
        dma: Dma::new(),
        rtc: Wired::new(
            Rtc::new(config.unix_time_at_power_on, config.ram_size, config.cpus),
            RtcHandles { irq: rtc, timer: timers.timer(RTC) },
        ),
        i8042: Wired::new(
            I8042::new(),
            I8042Handles { irq1: wires.interrupt(1), irq12: wires.interrupt(12), timer: timers.timer(KEYBOARD) },
        ),
        pm: Wired::new(
            AcpiPm::new(),
            PmHandles { sci: wires.interrupt(acpi_pm::SCI_IRQ.into()), timer: timers.timer(PM) },
        ),
        ferr: Wired::new(FerrLatch::default(), wires.interrupt(FERR_IRQ.into())),
        post_code: PostCode::default(),
        testdev: None,
        event: None,
    };
    let (inputs, timers) = (wires.inputs.clone(), wires.timers.clone());
    let bus = BusWires {
        isa: Box::new(move |irq| interrupt(&inputs, irq.into())),
        messages: interrupts.clone(),
        timer: Box::new(move |devfn| timers.timer(FUNCTIONS + u32::from(devfn))),
    };
    (interrupts, devices, wires, bus)
}
