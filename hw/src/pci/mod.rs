//! PCI: bus 0 with its functions, reached by configuration mechanism #1 (PCI Local Bus Specification 3.0, 3.2.2.3.2).
//!
//! A device is a [`Function`]: it has a [`Config`], answers at its base address registers, drives an interrupt pin or sends
//! messages. [`Bus`] holds the functions, knows who answers at which address, and carries interrupt pins to the four lines
//! that the chipset routes.

mod chipset;
mod config;
mod msi;
mod testdev;
mod wires;

use std::any::Any;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::net::Adapter;
pub use chipset::Pam;
use chipset::{Chipset, PIRQ_LINES};
pub use config::{
    BAR0, BarKind, CAPABILITIES, COMMAND, COMMAND_INTX_DISABLE, COMMAND_IO, COMMAND_MASTER, COMMAND_MEMORY,
    CONFIG_SIZE, Config, HEADER_TYPE, INTERRUPT_LINE, INTERRUPT_PIN, Identity, ROM_ADDRESS, ROM_BAR, STATUS, Space,
    Window,
};
pub use msi::{Msi, MsiMessage, Msix, MsixData};
pub use testdev::PciTestdev;
pub(crate) use wires::{BusWires, MsiSink};
use wires::{Slot, Wires};

/// Addresses that a function answers to wherever its base address registers are: ports and memory of older buses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// The address space.
    pub space: Space,
    /// First address.
    pub base: u64,
    /// Bytes or ports.
    pub size: u64,
}

/// A function of a PCI device.
///
/// All times (`now`) are guest nanoseconds since power-on. Sizes of accesses are 1, 2 or 4 bytes for ports and 1, 2, 4 or 8
/// for memory; an access may reach over the end of the window that its first byte is in. Nothing that a guest does may panic.
pub trait Function: Any + Send {
    /// The function's configuration space.
    fn config(&self) -> &Config;

    /// The function's configuration space.
    fn config_mut(&mut self) -> &mut Config;

    /// Software is about to read from `offset` of the configuration space on.
    fn config_reading(&mut self, offset: u8) {
        let _ = offset;
    }

    /// Software has written the byte at `offset` of the configuration space.
    fn config_written(&mut self, offset: u8) {
        let _ = offset;
    }

    /// Reads at `offset` of base address register `bar`.
    fn bar_read(&mut self, now: u64, bar: usize, offset: u64, size: u8) -> u64;

    /// Writes the low `size` bytes of `value` at `offset` of base address register `bar`.
    fn bar_write(&mut self, now: u64, bar: usize, offset: u64, size: u8, value: u64);

    /// The base address register that leads to display memory, and to nothing else: accesses need not come by the function.
    fn display_bar(&self) -> Option<usize> {
        None
    }

    /// What it answers to besides its base address registers. Asked after each write to its configuration space.
    fn fixed(&self) -> Vec<Fixed> {
        Vec::new()
    }

    /// Reads at `offset` of element `index` of [`Function::fixed`].
    fn fixed_read(&mut self, now: u64, index: usize, offset: u64, size: u8) -> u64 {
        let _ = (now, index, offset, size);
        u64::MAX
    }

    /// Writes the low `size` bytes of `value` at `offset` of element `index` of [`Function::fixed`].
    fn fixed_write(&mut self, now: u64, index: usize, offset: u64, size: u8, value: u64) {
        let _ = (now, index, offset, size, value);
    }

    /// The host side has done something that it waits for.
    fn attend(&mut self, now: u64) {
        let _ = now;
    }

    /// Itself, if it is a network adapter, brought to `now`.
    fn adapter(&mut self, now: u64) -> Option<&mut dyn Adapter> {
        let _ = now;
        None
    }

    /// Whether its interrupt pin is asserted. The bus sees to the command register's bit that disables it.
    fn intx(&self) -> bool {
        false
    }

    /// ISA interrupt lines that it asserts, bit by number.
    fn isa_irqs(&self) -> u16 {
        0
    }

    /// Appends the messages that it has to send.
    fn take_msis(&mut self, out: &mut Vec<MsiMessage>) {
        let _ = out;
    }

    /// Brings it to `now`.
    fn advance(&mut self, now: u64) {
        let _ = now;
    }

    /// The earliest guest nanosecond at which [`Function::advance`] has something to do.
    fn next_deadline(&self) -> Option<u64> {
        None
    }

    /// As at power-on, but for its configuration space, which the bus resets.
    fn reset(&mut self);

    /// What it remembers besides its configuration space, as data.
    fn save(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Whether `data` is the state of such a function.
    fn fits(&self, data: &[u8]) -> bool {
        data.is_empty()
    }

    /// Takes over `data`, which fits. The configuration space is restored already.
    fn restore(&mut self, data: &[u8]) {
        let _ = data;
    }
}

/// A device number (0-31) and a function number (0-7) in one: `device << 3 | function`.
pub type DevFn = u8;

/// Where an access goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resource {
    Bar(usize),
    Fixed(usize),
}

/// Who answers at a range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Route {
    space: Space,
    base: u64,
    last: u64,
    devfn: DevFn,
    resource: Resource,
}

/// A range of addresses at which a function answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The address space.
    pub space: Space,
    /// First address.
    pub base: u64,
    /// Last address.
    pub last: u64,
    /// The function.
    pub devfn: DevFn,
    /// The base address register; none for addresses of older buses.
    pub bar: Option<usize>,
}

/// Bit 31 of the address register.
const ENABLE: u32 = 1 << 31;

/// Where what firmware would place is placed without it: I/O ports, memory; the ends.
const IO_WINDOW: (u64, u64) = (0xc000, 0x1_0000);
const MEMORY_WINDOW: (u64, u64) = (0xe000_0000, 0xfec0_0000);
/// ISA interrupt lines that firmware routes the four lines to.
pub(crate) const FIRMWARE_IRQS: [u8; PIRQ_LINES] = [10, 10, 11, 11];

/// Bus 0.
pub(crate) struct Bus {
    address: u32,
    reset_control: u8,
    chipset: Chipset,
    functions: BTreeMap<DevFn, Slot>,
    wires: Wires,
    routes: Vec<Route>,
    pam_changed: bool,
    display: Option<Window>,
}

/// A [`Bus`] as data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct BusData {
    address: u32,
    reset_control: u8,
    chipset: Vec<Vec<u8>>,
    functions: Vec<FunctionData>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct FunctionData {
    devfn: DevFn,
    config: Vec<u8>,
    state: Vec<u8>,
}

impl Bus {
    /// A bus with the chipset's functions.
    pub(crate) fn new(wires: BusWires) -> Bus {
        Bus {
            address: 0,
            reset_control: 0,
            chipset: Chipset::new(),
            functions: BTreeMap::new(),
            wires: Wires::new(wires),
            routes: Vec::new(),
            pam_changed: true,
            display: None,
        }
    }

    /// Adds a function: at `devfn`, or as function 0 of the first free device. Where it is now; `None`, and it is dropped,
    /// if there is no room.
    pub(crate) fn plug(&mut self, devfn: Option<DevFn>, mut function: Box<dyn Function>) -> Option<DevFn> {
        let taken = |devfn: DevFn| self.functions.contains_key(&devfn) || self.chipset.config(devfn).is_some();
        let place = match devfn {
            Some(devfn) => (!taken(devfn)).then_some(devfn),
            None => (0..32u8).map(|device| device << 3).find(|&devfn| !taken(devfn)),
        }?;
        function.reset();
        self.functions.insert(place, self.wires.plug(place, function));
        self.reroute();
        Some(place)
    }

    /// Does something with the function at `devfn`, if it is a `T`.
    pub(crate) fn with<T: Function, R>(&mut self, devfn: DevFn, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        let on = |function: &mut dyn Function| Some(f((function as &mut dyn Any).downcast_mut()?));
        self.functions.get_mut(&devfn)?.with(on)
    }

    /// Does something with the function at `devfn`, whatever it is.
    pub(crate) fn with_any<R>(&mut self, devfn: DevFn, f: impl FnOnce(&mut dyn Function) -> R) -> Option<R> {
        Some(self.functions.get_mut(&devfn)?.with(f))
    }

    /// The ranges of addresses that functions answer at now.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range> + '_ {
        self.routes.iter().map(|route| Range {
            space: route.space,
            base: route.base,
            last: route.last,
            devfn: route.devfn,
            bar: if let Resource::Bar(bar) = route.resource { Some(bar) } else { None },
        })
    }

    /// Every function's configuration space, in order.
    pub(crate) fn configs(&self) -> impl Iterator<Item = (DevFn, &Config)> {
        let config = |devfn| {
            let plugged = self.functions.get(&devfn).map(|slot| slot.function.config());
            Some((devfn, self.chipset.config(devfn).or(plugged)?))
        };
        (0..=DevFn::MAX).filter_map(config)
    }

    /// The chipset's functions.
    pub(crate) fn chipset(&self) -> &Chipset {
        &self.chipset
    }

    /// Reads `size` bytes at port 0xcf8 + `offset`, offset 0-7.
    pub(crate) fn read(&mut self, offset: u8, size: u8) -> u32 {
        if let Some((devfn, register)) = self.selected(offset, 0)
            && let Some(slot) = self.functions.get_mut(&devfn)
        {
            slot.with(|function| function.config_reading(register));
        }
        match (offset, size) {
            (0, 4) => self.address,
            (1, 1) => u32::from(self.reset_control),
            (4..=7, _) => (0..size).rev().fold(0, |value, byte| value << 8 | u32::from(self.read_byte(offset, byte))),
            _ => u32::MAX,
        }
    }

    /// Writes `size` bytes at port 0xcf8 + `offset`. True when the write asks for a reset of the machine (82371SB data sheet,
    /// 2.5.4.3).
    pub(crate) fn write(&mut self, offset: u8, size: u8, value: u32) -> bool {
        match (offset, size) {
            // Only a double word selects an address; anything smaller belongs to other devices.
            (0, 4) => self.address = value,
            (1, 1) => {
                let [value, ..] = value.to_le_bytes();
                let reset = value & !self.reset_control & 4 != 0;
                self.reset_control = value & 0x06;
                return reset;
            }
            (4..=7, _) => {
                for (index, byte) in (0..size).zip(value.to_le_bytes()) {
                    self.write_byte(offset, index, byte);
                }
                self.reroute();
            }
            _ => {}
        }
        false
    }

    /// The register of byte `index` of an access to data port `offset`. As on QEMU, and unlike the data sheet (82441FX, 3.1.1),
    /// the address register keeps its low bits and they count: kernels that were tried there only select a byte or word by them. An
    /// access that runs past the data ports reaches nothing.
    fn selected(&self, offset: u8, index: u8) -> Option<(DevFn, u8)> {
        let [register, devfn, bus, _] = self.address.to_le_bytes();
        let selected = self.address & ENABLE != 0 && bus == 0 && (4..8).contains(&(offset + index));
        (register | offset & 3).checked_add(index).filter(|_| selected).map(|register| (devfn, register))
    }

    fn read_byte(&self, offset: u8, index: u8) -> u8 {
        let Some((devfn, register)) = self.selected(offset, index) else { return 0xff };
        if let Some(Slot { function, .. }) = self.functions.get(&devfn) {
            return function.config().read(register, function.intx());
        }
        self.chipset.config(devfn).map_or(0xff, |config| config.u8(register))
    }

    fn write_byte(&mut self, offset: u8, index: u8, value: u8) {
        let Some((devfn, register)) = self.selected(offset, index) else { return };
        if let Some(slot) = self.functions.get_mut(&devfn) {
            slot.with(|function| {
                function.config_mut().write(register, value);
                function.config_written(register);
            });
        } else if let Some(config) = self.chipset.config_mut(devfn) {
            config.write(register, value);
            self.pam_changed |= chipset::is_pam(devfn, register);
            self.wires.route(&self.chipset);
        }
    }

    /// Whether the host bridge's attributes of memory may have changed since the last call.
    pub(crate) fn take_pam_changed(&mut self) -> bool {
        std::mem::take(&mut self.pam_changed)
    }

    /// Where display memory is, if no other function answers there.
    pub(crate) fn display(&self) -> Option<Window> {
        self.display
    }

    /// Finds out again who answers where. Functions with low numbers come first.
    fn reroute(&mut self) {
        self.routes.clear();
        for (&devfn, Slot { function, .. }) in &self.functions {
            let bars = function.config().windows().map(|w| (w.space, w.base, w.size, Resource::Bar(w.bar)));
            let fixed = function.fixed();
            let fixed = fixed.iter().enumerate().map(|(index, f)| (f.space, f.base, f.size, Resource::Fixed(index)));
            for (space, base, size, resource) in fixed.chain(bars).filter(|&(_, _, size, _)| size != 0) {
                self.routes.push(Route { space, base, last: base.saturating_add(size - 1), devfn, resource });
            }
        }
        self.display = self.find_display();
    }

    /// Display memory, if nobody else answers in its window and it is below what firmware leaves to the chipset.
    fn find_display(&self) -> Option<Window> {
        let mut functions = self.functions.iter();
        let (devfn, bar) = functions.find_map(|(&devfn, slot)| Some((devfn, slot.function.display_bar()?)))?;
        let window = self.functions.get(&devfn)?.function.config().windows().find(|window| window.bar == bar)?;
        let Window { space, base, size, .. } = window;
        let last = base + (size - 1);
        let mut others =
            self.routes.iter().filter(|route| (route.devfn, route.resource) != (devfn, Resource::Bar(bar)));
        let alone = !others.any(|route| route.space == space && route.base <= last && base <= route.last);
        (alone && last < MEMORY_WINDOW.1).then_some(window)
    }

    fn route(&self, space: Space, address: u64) -> Option<Route> {
        let at = |route: &&Route| route.space == space && (route.base..=route.last).contains(&address);
        self.routes.iter().find(at).copied()
    }

    /// Reads `size` bytes where a function answers; `None` where none does.
    pub(crate) fn access_read(&mut self, now: u64, space: Space, address: u64, size: u8) -> Option<u64> {
        let route = self.route(space, address)?;
        let offset = address - route.base;
        let read = |function: &mut dyn Function| match route.resource {
            Resource::Bar(bar) => function.bar_read(now, bar, offset, size),
            Resource::Fixed(index) => function.fixed_read(now, index, offset, size),
        };
        Some(self.functions.get_mut(&route.devfn)?.with(read))
    }

    /// Writes where a function answers; whether one did.
    pub(crate) fn access_write(&mut self, now: u64, space: Space, address: u64, size: u8, value: u64) -> bool {
        let Some(route) = self.route(space, address) else { return false };
        let Some(slot) = self.functions.get_mut(&route.devfn) else { return false };
        let offset = address - route.base;
        slot.with(|function| match route.resource {
            Resource::Bar(bar) => function.bar_write(now, bar, offset, size, value),
            Resource::Fixed(index) => function.fixed_write(now, index, offset, size, value),
        });
        true
    }

    /// Brings the function at `devfn` to `now`.
    pub(crate) fn advance(&mut self, devfn: DevFn, now: u64) {
        if let Some(slot) = self.functions.get_mut(&devfn) {
            slot.with(|function| function.advance(now));
        }
    }

    /// The reset line. What the chipset knows of memory is kept when a sleeping machine goes on.
    pub(crate) fn reset(&mut self, resumes: bool) {
        self.address = 0;
        self.reset_control = 0;
        if resumes {
            self.chipset.reset_but_memory();
        } else {
            self.chipset.reset();
        }
        self.pam_changed = true;
        for slot in self.functions.values_mut() {
            slot.with(|function| {
                function.config_mut().reset();
                function.reset();
            });
        }
        self.wires.route(&self.chipset);
        self.reroute();
    }

    /// Does what firmware would: routes interrupts, places base address registers, and lets functions decode them. The ISA
    /// interrupt lines that are level-triggered now, bit by number.
    pub(crate) fn set_up_as_firmware(&mut self) -> u16 {
        self.chipset.set_up_as_firmware(FIRMWARE_IRQS);
        self.pam_changed = true;
        let (mut io, mut memory) = (IO_WINDOW, MEMORY_WINDOW);
        for (&devfn, slot) in &mut self.functions {
            let config = slot.function.config_mut();
            let mut command = config.u16(COMMAND);
            for bar in 0..ROM_BAR {
                let Some(declared) = config.bar(bar) else { continue };
                let (window, bit) = match declared.kind.space() {
                    Space::Io => (&mut io, COMMAND_IO),
                    Space::Memory => (&mut memory, COMMAND_MEMORY),
                };
                // Multiples of a page, so that each function's can be mapped alone.
                let base = window.0.next_multiple_of(declared.size.max(if bit == COMMAND_IO { 4 } else { 0x1000 }));
                if base + declared.size <= window.1 {
                    window.0 = base + declared.size;
                    config.place(bar, base);
                    command |= bit;
                }
            }
            for (offset, byte) in (COMMAND..).zip(command.to_le_bytes()) {
                config.write(offset, byte);
            }
            if let Some(pin) = config.u8(INTERRUPT_PIN).checked_sub(1) {
                let irq = FIRMWARE_IRQS.get(pirq(devfn, pin)).copied().unwrap_or(0);
                config.write(INTERRUPT_LINE, irq);
            }
            slot.drive();
        }
        self.wires.route(&self.chipset);
        self.reroute();
        FIRMWARE_IRQS.iter().fold(0, |lines, irq| lines | 1 << irq)
    }

    pub(crate) fn save(&self) -> BusData {
        let functions = self.functions.iter().map(|(&devfn, Slot { function, .. })| FunctionData {
            devfn,
            config: function.config().save(),
            state: function.save(),
        });
        BusData {
            address: self.address,
            reset_control: self.reset_control,
            chipset: self.chipset.save(),
            functions: functions.collect(),
        }
    }

    /// Whether `data` is the state of a bus with the same functions.
    pub(crate) fn fits(&self, data: &BusData) -> bool {
        let same = |data: &FunctionData| {
            let slot = self.functions.get(&data.devfn);
            slot.is_some_and(|Slot { function, .. }| function.config().fits(&data.config) && function.fits(&data.state))
        };
        self.chipset.fits(&data.chipset)
            && data.functions.len() == self.functions.len()
            && data.functions.iter().all(same)
    }

    /// Takes over `data`, which fits.
    pub(crate) fn restore(&mut self, data: BusData) {
        self.address = data.address;
        self.reset_control = data.reset_control;
        self.chipset.restore(&data.chipset);
        self.pam_changed = true;
        for data in data.functions {
            if let Some(slot) = self.functions.get_mut(&data.devfn) {
                slot.with(|function| {
                    function.config_mut().restore(&data.config);
                    function.restore(&data.state);
                });
            }
        }
        self.wires.route(&self.chipset);
        self.reroute();
    }
}

/// The line (0-3) that pin `pin` (0 is INTA#) of a device on bus 0 is wired to: each device's pins begin one further.
pub(crate) fn pirq(devfn: DevFn, pin: u8) -> usize {
    // Device 1 is where they begin at the first.
    usize::from((devfn >> 3).wrapping_add(3).wrapping_add(pin) & 3)
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
