//! The board: the devices of a PC, their ports and their interrupt lines.

mod interrupts;
mod isa;
mod local;
mod ports;
mod state;
mod wires;

use crate::acpi_pm::{self, AcpiPm};
use crate::debug::PostCode;
use crate::dma::Dma;
use crate::fabric::{TimerQueue, Wired};
use crate::ferr::FerrLatch;
use crate::fw_cfg::FwCfg;
use crate::hpet::{self, Hpet};
use crate::i8042::{I8042, MouseEvent};
use crate::isa::{IsaDevice, IsaSlot};
use crate::keys::Key;
use crate::net::Adapter;
use crate::pci::{Bus, DevFn, Function, Pam, Space, Window};
use crate::pit::Pit;
use crate::rtc::Rtc;
use crate::testdev::PcTestdev;
use crate::time::earlier;
use crate::uart::Uart;
pub use interrupts::Interrupts;
use isa::Debugcon;
pub use isa::{COM_PORTS, SerialPort};
pub(crate) use ports::fixed as fixed_ports;
use ports::{PORTS, PortDevice, PortRange};
use serde::{Deserialize, Serialize};
use state::Devices;
pub use state::PcState;
use std::sync::Arc;
use wires::Wires;

/// What a PC is made of; by default of as little as can be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PcConfig {
    /// Guest RAM in bytes; the CMOS tells it to the guest.
    pub ram_size: u64,
    /// Processors, each with a local APIC; 0 counts as 1.
    pub cpus: u8,
    /// Frequency of the guest's time-stamp counter in Hz.
    pub tsc_hz: u64,
    /// What the real-time clock shows at power-on, in seconds since 1970-01-01 00:00 UTC.
    pub unix_time_at_power_on: u64,
}

/// What the guest asks of the machine's run loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PcEvent {
    /// The guest entered soft-off.
    PowerOff,
    /// The guest sleeps, and RAM keeps its contents: stop the processors until [`Pc::wakes`], then call [`Pc::resume`].
    Suspend,
    /// The guest has written RAM to a disk, and wants to be switched off.
    SuspendToDisk,
    /// The guest asked for a reset: stop the processors, then call [`Pc::reset`].
    Reset,
    /// The guest wrote to the debug exit port: the exit code for the process.
    DebugExit(u8),
    /// The guest's kernel has panicked.
    Panicked,
    /// The guest's kernel has panicked, and starts another one that makes a dump.
    CrashLoaded,
    /// The watchdog was not written for too long.
    Watchdog,
}

/// RAM below the PCI hole, in bytes, for a machine with `ram_size` bytes; the rest starts at 4 GiB. As on the machine
/// that this one is modelled on, the hole grows to 1 GiB once the RAM does not fit below 3.5 GiB.
pub fn low_ram_size(ram_size: u64) -> u64 {
    if ram_size >= 0xe000_0000 { 0xc000_0000 } else { ram_size }
}

/// What firmware writes to the timer: counter 0 counts 65,536 clocks again and again (8254 data sheet, mode 2). Registers by their
/// offset.
const FIRMWARE_PIT_WRITES: [(u8, u8); 3] = [(3, 0x34), (0, 0), (0, 0)];

/// A PC without its processors and RAM.
pub struct Pc {
    config: PcConfig,
    ports: Vec<PortRange>,
    debugcons: Vec<Debugcon>,
    bus: Bus,
    fw_cfg: Option<FwCfg>,
    /// What [`Pc::take_display`] told last.
    display_before: Option<Window>,
    devices: Devices,
    /// What users plug into the ISA bus.
    isa: Vec<IsaSlot>,
    interrupts: Arc<Interrupts>,
    wires: Wires,
}

impl Pc {
    /// A machine that has just been switched on, with what every PC has.
    pub fn new(config: PcConfig) -> Pc {
        let cpus = config.cpus.max(1);
        let config = PcConfig { cpus, ..config };
        let (interrupts, devices, wires, bus) = wires::wire(&config);
        Pc {
            config,
            ports: PORTS.to_vec(),
            debugcons: Vec::new(),
            bus: Bus::new(bus),
            fw_cfg: None,
            display_before: None,
            devices,
            isa: Vec::new(),
            interrupts,
            wires,
        }
    }

    /// Plugs a function into the PCI bus: at `devfn`, or as the first free device. Where it is; `None` if there is no room.
    pub fn plug(&mut self, devfn: Option<DevFn>, function: Box<dyn Function>) -> Option<DevFn> {
        self.bus.plug(devfn, function)
    }

    /// Plugs in a high precision event timer.
    pub fn plug_hpet(&mut self) {
        self.devices.hpet = Some(Wired::new(Hpet::new(), self.wires.hpet()));
    }

    /// Plugs in what firmware is configured by.
    pub fn set_fw_cfg(&mut self, device: FwCfg) {
        self.fw_cfg = Some(device);
    }

    /// Says in the CMOS what to boot from, first choice first: 1 is a floppy disk, 2 a hard disk, 3 a CD-ROM, 4 the network, 0
    /// nothing.
    pub fn set_boot_order(&mut self, order: [u8; 3]) {
        self.devices.rtc.with(|rtc| rtc.set_boot_order(order));
    }

    /// Says in the CMOS what hard disks there are: for each place on the IDE controller the disk's sectors.
    pub fn set_disks(&mut self, sectors: [Option<u64>; 4]) {
        self.devices.rtc.with(|rtc| rtc.set_disks(sectors));
    }

    /// Does something with the PCI function at `devfn`, at `now`; `None` if it is no `T`.
    pub fn function<T: Function, R>(&mut self, now: u64, devfn: DevFn, f: impl FnOnce(&mut T, u64) -> R) -> Option<R> {
        let now = self.set_now(now);
        self.bus.with(devfn, |function| f(function, now))
    }

    /// Has the function at `devfn` go on with what its host side has done.
    pub fn attend(&mut self, now: u64, devfn: DevFn) {
        let now = self.set_now(now);
        self.bus.with_any(devfn, |function| function.attend(now));
    }

    /// Does something with the network adapter at `devfn`, if there is one.
    pub fn adapter<R>(&mut self, now: u64, devfn: DevFn, f: impl FnOnce(&mut dyn Adapter) -> R) -> Option<R> {
        let now = self.set_now(now);
        self.bus.with_any(devfn, |function| function.adapter(now).map(f)).flatten()
    }

    /// Leaves the devices as firmware would, for a guest that is booted without: timer and interrupt controllers initialised,
    /// the bootstrap processor's local APIC in virtual wire mode, PCI functions placed and their interrupts routed.
    pub fn set_up_as_firmware(&mut self) {
        let level_triggered = self.bus.set_up_as_firmware();
        let now = self.devices.now;
        for (register, value) in FIRMWARE_PIT_WRITES {
            self.devices.pit.with(|pit| pit.write(now, register, value));
        }
        // The timer's line is high from power-on; the initialisation of the 8259As forgets that edge.
        self.interrupts.set_up_as_firmware(level_triggered);
    }

    /// Whether [`Pc::pam`] or [`Pc::take_display`] may have changed since the last call.
    pub fn take_map_changed(&mut self) -> bool {
        self.bus.take_pam_changed() || self.display() != self.display_before
    }

    /// Where display memory was at the last call, and where it is now; `None` where only [`Pc::mmio_read`] and
    /// [`Pc::mmio_write`] reach it, because it overlaps with something else.
    pub fn take_display(&mut self) -> [Option<Window>; 2] {
        let now = self.display();
        [std::mem::replace(&mut self.display_before, now), now]
    }

    fn display(&self) -> Option<Window> {
        let overlaps = |window: &Window| {
            let Window { base, size, .. } = *window;
            let lapic = |cpu| (base..base.saturating_add(size)).contains(&(self.interrupts.apic_base(cpu) & !0xfff));
            base < low_ram_size(self.config.ram_size) || (0..self.config.cpus.into()).any(lapic)
        };
        self.bus.display().filter(|window| !overlaps(window))
    }

    /// Which of the memory from 768 KiB to 1 MiB is RAM.
    pub fn pam(&self) -> impl Iterator<Item = Pam> + '_ {
        self.bus.chipset().pam()
    }

    /// Reads `size` (1, 2 or 4) bytes at I/O port `port`. Ports that nobody claims read as all ones.
    pub fn port_read(&mut self, now: u64, port: u16, size: u8) -> u32 {
        let now = self.set_now(now);
        self.read_port(now, port, size.clamp(1, 4))
    }

    /// Reads `size` (1, 2 or 4) bytes at I/O port `port` again and again until `to`, a multiple of that, is full.
    pub fn port_read_string(&mut self, now: u64, port: u16, size: u8, to: &mut [u8]) {
        let now = self.set_now(now);
        let size = size.clamp(1, 4);
        for unit in to.chunks_exact_mut(size.into()) {
            unit.copy_from_slice(&self.read_port(now, port, size).to_le_bytes()[..unit.len()]);
        }
    }

    fn read_port(&mut self, now: u64, port: u16, size: u8) -> u32 {
        let mask = u32::MAX >> (32 - 8 * u32::from(size));
        let value = match self.route(port) {
            Some((base, device)) if device.is_wide() => self.read_device(now, device, port - base, port, size),
            None if let Some(value) = self.bus.access_read(now, Space::Io, port.into(), size) => value as u32,
            _ => (0..size).rev().fold(0, |value, byte| {
                let port = port.wrapping_add(u16::from(byte));
                let byte = match self.route(port) {
                    Some((base, device)) => self.read_device(now, device, port - base, port, 1),
                    None => 0xff,
                };
                value << 8 | (byte & 0xff)
            }),
        };
        value & mask
    }

    /// Writes the low `size` (1, 2 or 4) bytes of `value` to I/O port `port`.
    pub fn port_write(&mut self, now: u64, port: u16, size: u8, value: u32) {
        let now = self.set_now(now);
        let size = size.clamp(1, 4);
        let value = value & u32::MAX >> (32 - 8 * u32::from(size));
        match self.route(port) {
            Some((base, device)) if device.is_wide() => {
                self.write_device(now, device, port - base, port, size, value);
            }
            None if self.bus.access_write(now, Space::Io, port.into(), size, value.into()) => {}
            _ => {
                for (offset, byte) in (0..u16::from(size)).zip(value.to_le_bytes()) {
                    let port = port.wrapping_add(offset);
                    if let Some((base, device)) = self.route(port) {
                        self.write_device(now, device, port - base, port, 1, u32::from(byte));
                    }
                }
            }
        }
    }

    /// Writes elements of `size` (1, 2 or 4) bytes to I/O port `port`, one or more, all of `from`, a multiple of that, or up to one
    /// that changes the memory map or has an event: how many, and what [`Pc::take_map_changed`] said behind them.
    pub fn port_write_string(&mut self, now: u64, port: u16, size: u8, from: &[u8]) -> (u64, bool) {
        let size = size.clamp(1, 4);
        let mut done = 0;
        for unit in from.chunks_exact(size.into()) {
            let mut value = [0; 4];
            value[..unit.len()].copy_from_slice(unit);
            self.port_write(now, port, size, u32::from_le_bytes(value));
            done += 1;
            if self.take_map_changed() {
                return (done, true);
            }
            if self.has_event() {
                break;
            }
        }
        (done, false)
    }

    /// Reads `size` bytes at guest-physical address `gpa` on behalf of processor `cpu`: its local APIC page, wherever
    /// IA32_APIC_BASE has put it, the I/O APIC, or a PCI function. All ones elsewhere.
    pub fn mmio_read(&mut self, now: u64, cpu: usize, gpa: u64, size: u8) -> u64 {
        let now = self.set_now(now);
        if let Some(value) = self.interrupts.read(now, cpu, gpa, size) {
            return value;
        }
        let value = if let Some((hpet, offset)) = hpet_at(&mut self.devices.hpet, gpa) {
            hpet.with(|hpet| hpet.read(now, offset, size))
        } else if let (Some(device), Some(offset)) = (&self.devices.testdev, PcTestdev::offset(gpa)) {
            device.state().read(offset, size)
        } else {
            self.bus.access_read(now, Space::Memory, gpa, size).unwrap_or(u64::MAX)
        };
        value & u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8)))
    }

    /// Writes the low `size` bytes of `value` to guest-physical address `gpa` on behalf of processor `cpu`.
    pub fn mmio_write(&mut self, now: u64, cpu: usize, gpa: u64, size: u8, value: u64) {
        let now = self.set_now(now);
        if self.interrupts.write(now, cpu, gpa, size, value) {
            return;
        }
        if let Some((hpet, offset)) = hpet_at(&mut self.devices.hpet, gpa) {
            hpet.with(|hpet| hpet.write(now, offset, size, value));
        } else if let (Some(device), Some(offset)) = (&mut self.devices.testdev, PcTestdev::offset(gpa)) {
            device.with(|device| device.write(offset, size, value));
        } else {
            self.bus.access_write(now, Space::Memory, gpa, size, value);
        }
    }

    /// Brings the devices whose timers are due to `now`. A periodic source that is late by many periods reports once.
    pub fn advance(&mut self, now: u64) {
        let now = self.set_now(now);
        for number in self.wires.timers.due(now) {
            self.fire(number, now);
        }
        if self.devices.rtc.state().alarm() {
            self.devices.pm.with(AcpiPm::wake_by_clock);
        }
    }

    /// The deadlines of all devices: the run loop calls [`Pc::advance`] when the earliest has come. Those of local APICs are
    /// their processors': see [`Interrupts::next_deadline`].
    pub fn timers(&self) -> &TimerQueue {
        &self.wires.timers
    }

    /// The earliest guest nanosecond at which [`Pc::advance`] has something to do; none when nothing is armed.
    pub fn next_deadline(&self) -> Option<u64> {
        self.wires.timers.next_deadline()
    }

    /// The interrupt controllers: who has them reaches a processor's local APIC without the board.
    pub fn interrupts(&self) -> &Arc<Interrupts> {
        &self.interrupts
    }

    /// Drives FERR#, the processor's word of an x87 exception where CR0.NE is 0; whether IGNNE# is driven, by which it is to be
    /// ignored.
    pub fn set_ferr(&mut self, asserted: bool) -> bool {
        self.devices.ferr.with(|latch| latch.set_ferr(asserted))
    }

    /// A key of the keyboard is pressed or released.
    pub fn key(&mut self, now: u64, key: Key, down: bool) {
        let now = self.set_now(now);
        self.devices.pm.with(AcpiPm::wake);
        self.devices.i8042.with(|device| device.key(now, key, down));
    }

    /// How many bytes of scan codes the keyboard can take before it loses some.
    pub fn keyboard_room(&self) -> usize {
        self.devices.i8042.state().keyboard_room()
    }

    /// The keyboard's lights: bit 0 is Scroll Lock, bit 1 Num Lock, bit 2 Caps Lock.
    pub fn keyboard_leds(&self) -> u8 {
        self.devices.i8042.state().leds()
    }

    /// The mouse is moved, or its buttons are.
    pub fn mouse(&mut self, now: u64, event: MouseEvent) {
        self.set_now(now);
        self.devices.pm.with(AcpiPm::wake);
        self.devices.i8042.with(|device| device.mouse(event));
    }

    /// The configuration spaces of the PCI functions, in the order of their places.
    pub fn pci_configs(&self) -> impl Iterator<Item = (DevFn, &crate::pci::Config)> {
        self.bus.configs()
    }

    /// The ranges of addresses at which PCI functions answer now.
    pub fn pci_ranges(&self) -> impl Iterator<Item = crate::pci::Range> + '_ {
        self.bus.ranges()
    }

    /// First and last port of each of the board's own devices, and the device's name.
    pub fn port_ranges(&self) -> impl Iterator<Item = (u16, u16, &'static str)> + '_ {
        let power = self
            .bus
            .chipset()
            .pm_base()
            .map(|base| (base, base.saturating_add(acpi_pm::PM_LENGTH - 1), PortDevice::Pm));
        self.ports.iter().copied().chain(power).map(|(first, last, device)| (first, last, self.port_name(device)))
    }

    /// The interrupt controllers as lines of text, for a monitor.
    pub fn pic_text(&self) -> String {
        self.interrupts.pic_text()
    }

    /// Presses the power button: a guest with ACPI gets its SCI.
    pub fn press_power_button(&mut self, now: u64) {
        self.set_now(now);
        self.devices.pm.with(AcpiPm::press_power_button);
    }

    /// Whether the guest has asked for something that [`Pc::take_event`] would return.
    pub fn has_event(&self) -> bool {
        self.devices.event.is_some()
    }

    /// What the guest has asked for; the first request stands until it is taken.
    pub fn take_event(&mut self) -> Option<PcEvent> {
        self.devices.event.take()
    }

    /// Whether address line 20 is driven.
    pub fn a20_enabled(&self) -> bool {
        self.devices.i8042.state().a20_enabled()
    }

    /// Whether a sleeping machine is to go on, by its clock's alarm, its keyboard or mouse, or [`Pc::wake`].
    pub fn wakes(&self) -> bool {
        self.devices.pm.state().wakes()
    }

    /// The earliest guest nanosecond at which a sleeping machine may be to go on by itself.
    pub fn wake_deadline(&self) -> Option<u64> {
        earlier(self.devices.rtc.state().next_deadline(), self.devices.pm.state().next_deadline())
    }

    /// Wakes a sleeping machine; whether it is one.
    pub fn wake(&mut self, now: u64) -> bool {
        self.set_now(now);
        self.devices.pm.with(AcpiPm::wake);
        self.devices.pm.state().is_asleep()
    }

    /// A sleeping machine goes on: every device as after a reset, but for what firmware finds its way back by.
    pub fn resume(&mut self, now: u64) {
        let mut pm = self.devices.pm.state().clone();
        pm.resume();
        self.reset_devices(now, true);
        self.devices.pm.restore(pm);
    }

    /// The reset line: every device as at power-on, but for the clock and its battery-backed memory.
    pub fn reset(&mut self, now: u64) {
        self.reset_devices(now, false);
    }

    fn reset_devices(&mut self, now: u64, resumes: bool) {
        let now = self.set_now(now);
        let devices = &mut self.devices;
        self.interrupts.reset();
        devices.uarts.iter_mut().for_each(|uart| uart.with(Uart::reset));
        if let Some(device) = &mut devices.testdev {
            device.restore(PcTestdev::new());
        }
        let mut pit = Pit::new();
        pit.advance(now);
        devices.pit.restore(pit);
        if let Some(hpet) = &mut devices.hpet {
            hpet.with(|hpet| {
                hpet.advance(now);
                hpet.reset();
            });
        }
        devices.dma = Dma::new();
        devices.rtc.with(Rtc::reset);
        devices.i8042.restore(I8042::new());
        devices.pm.with(AcpiPm::reset);
        devices.ferr.restore(FerrLatch::default());
        devices.post_code = PostCode::default();
        devices.event = None;
        for slot in &mut self.isa {
            slot.with(|device| device.reset());
        }
        self.bus.reset(resumes);
        if let Some(device) = &mut self.fw_cfg {
            device.reset();
        }
        self.wires.inputs.announce();
    }

    /// Guest time never runs backwards, whatever the caller says, and stays far from overflow (146 years).
    fn set_now(&mut self, now: u64) -> u64 {
        self.devices.now = self.devices.now.max(now.min(1 << 62));
        self.devices.now
    }

    /// Does something with the keyboard controller, by which the guest may ask for a reset.
    fn with_i8042(&mut self, f: impl FnOnce(&mut I8042)) {
        let resets = self.devices.i8042.with(|device| {
            f(device);
            device.take_reset()
        });
        if resets {
            self.devices.request(PcEvent::Reset);
        }
    }
}

fn hpet_at(hpet: &mut Option<Wired<Hpet>>, gpa: u64) -> Option<(&mut Wired<Hpet>, u64)> {
    let offset = gpa.checked_sub(hpet::BASE).filter(|offset| *offset < hpet::LENGTH)?;
    Some((hpet.as_mut()?, offset))
}

#[cfg(test)]
mod tests;
