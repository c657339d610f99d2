//! A PCI function for tests, which notes what is done to it.

use std::sync::{Arc, Mutex};

use super::{BarKind, Bus, BusWires, Config, Fixed, Function, Identity, Msi, MsiMessage, MsiSink, Msix, Space};
use crate::fabric::{IrqInputs, IrqSink, TimerQueue};

pub(crate) const IDENTITY: Identity =
    Identity { vendor: 0x1234, device: 0x5678, revision: 9, class: 0x02_0000, subsystem: (0x1af4, 0x1100) };

/// Has a window of each kind, fixed ports at 0x1f0, both kinds of messages, and remembers the last write.
pub(crate) struct Probe {
    pub(crate) config: Config,
    pub(crate) msi: Msi,
    pub(crate) msix: Msix,
    /// Where the last access went: base address register or 100 + fixed range, offset, size.
    pub(crate) last: (usize, u64, u8),
    pub(crate) value: u64,
    pub(crate) pin: bool,
}

impl Probe {
    pub(crate) fn new() -> Probe {
        let mut config = Config::new(IDENTITY)
            .with_bar(0, BarKind::Io, 0x20)
            .with_bar(1, BarKind::Memory, 0x1000)
            .with_bar(2, BarKind::Prefetchable64, 1 << 33)
            .with_bar(super::ROM_BAR, BarKind::Rom, 0x1_0000)
            .with_interrupt_pin(1);
        let msi = Msi::add(&mut config).unwrap();
        let msix = Msix::add(&mut config, 3, 1, 0, 0x800).unwrap();
        Probe { config, msi, msix, last: (0, 0, 0), value: 0, pin: false }
    }
}

impl Function for Probe {
    fn config(&self) -> &Config {
        &self.config
    }

    fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    fn bar_read(&mut self, _now: u64, bar: usize, offset: u64, size: u8) -> u64 {
        self.last = (bar, offset, size);
        if bar == 1 && offset < 0x800 { self.msix.read_table(offset, size) } else { self.value }
    }

    fn bar_write(&mut self, _now: u64, bar: usize, offset: u64, size: u8, value: u64) {
        self.last = (bar, offset, size);
        if bar == 1 {
            self.msix.write_table(offset, size, value);
        } else {
            self.value = value;
        }
    }

    fn fixed(&self) -> Vec<Fixed> {
        vec![Fixed { space: Space::Io, base: 0x1f0, size: 8 }]
    }

    fn fixed_read(&mut self, _now: u64, index: usize, offset: u64, size: u8) -> u64 {
        self.last = (100 + index, offset, size);
        self.value
    }

    fn fixed_write(&mut self, _now: u64, index: usize, offset: u64, size: u8, value: u64) {
        self.last = (100 + index, offset, size);
        self.value = value;
    }

    fn intx(&self) -> bool {
        self.pin
    }

    fn isa_irqs(&self) -> u16 {
        if self.value == 14 { 1 << 14 } else { 0 }
    }

    fn take_msis(&mut self, out: &mut Vec<MsiMessage>) {
        self.msix.take(&self.config, out);
    }

    fn reset(&mut self) {
        self.msix.reset();
        self.value = 0;
    }
}

/// What functions on a bus drive: ISA interrupt lines, and messages.
#[derive(Default)]
pub(crate) struct Driven {
    irqs: Mutex<u16>,
    messages: Mutex<Vec<MsiMessage>>,
}

impl Driven {
    /// A bus, and what its functions drive.
    pub(crate) fn bus() -> (Bus, Arc<Driven>) {
        let driven = Arc::new(Driven::default());
        let sink: Arc<dyn IrqSink> = driven.clone();
        let (inputs, timers) = (IrqInputs::new(&sink, 16), TimerQueue::new());
        let wires = BusWires {
            isa: Box::new(move |irq| inputs.line(irq.into())),
            messages: driven.clone(),
            timer: Box::new(move |devfn| timers.timer(devfn.into())),
        };
        (Bus::new(wires), driven)
    }

    /// The lines that are high, bit by number.
    pub(crate) fn irqs(&self) -> u16 {
        *self.irqs.lock().unwrap()
    }

    /// The messages sent since the last call.
    pub(crate) fn take_messages(&self) -> Vec<MsiMessage> {
        std::mem::take(&mut self.messages.lock().unwrap())
    }
}

impl IrqSink for Driven {
    fn set_input(&self, input: u32, level: bool) {
        let mut irqs = self.irqs.lock().unwrap();
        *irqs = if level { *irqs | 1 << input } else { *irqs & !(1 << input) };
    }
}

impl MsiSink for Driven {
    fn send(&self, message: MsiMessage) {
        self.messages.lock().unwrap().push(message);
    }
}
