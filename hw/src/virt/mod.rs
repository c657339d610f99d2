//! The RISC-V boards that QEMU calls `virt` and `spike`: what is where in their memory, which device drives which interrupt.

mod harts;
mod htif;
mod state;

use std::sync::Arc;

use mimus_softmmu::Dma;

use crate::clint::{self, ClintHandles, SharedClint};
use crate::fabric::CharSink;
use crate::fabric::{CharPort, IrqInputs, IrqSink, Timer, TimerQueue, Wired};
use crate::goldfish_rtc::{self, GoldfishHandles, GoldfishRtc};
use crate::plic::{self, Plic, SharedPlic};
use crate::sifive_test::{self, Finish};
use crate::uart::{Uart, UartConfig, UartHandles};
use crate::virtio::Virtio;
use crate::virtio::mmio::{self, SlotHandles};
pub use harts::HartLines;
use serde::{Deserialize, Serialize};
use state::Devices;
pub use state::VirtState;

/// A device's registers: first guest-physical address and size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First byte.
    pub base: u64,
    /// Bytes.
    pub size: u64,
}

/// The test finisher.
pub const TEST: Region = Region { base: 0x10_0000, size: sifive_test::SIZE };
/// The real-time clock.
pub const RTC: Region = Region { base: 0x10_1000, size: goldfish_rtc::SIZE };
/// Timers and software interrupts.
pub const CLINT: Region = Region { base: 0x200_0000, size: clint::SIZE };
/// The interrupt controller.
pub const PLIC: Region = Region { base: 0xc00_0000, size: plic::SIZE };
/// The registers of the host-target interface, on the board `spike`.
pub const HTIF: Region = Region { base: 0x100_0000, size: 0x1000 };
/// The serial port.
pub const UART: Region = Region { base: 0x1000_0000, size: 0x100 };
/// The first virtio slot; the others follow.
pub const VIRTIO: Region = Region { base: 0x1000_1000, size: mmio::SIZE };
/// Number of virtio slots.
pub const VIRTIO_SLOTS: usize = 8;
/// Where RAM begins.
pub const RAM_BASE: u64 = 0x8000_0000;

/// Sources of the interrupt controller: the first virtio slot, the serial port, the clock.
pub const VIRTIO_IRQ: u32 = 1;
/// See [`VIRTIO_IRQ`].
pub const UART_IRQ: u32 = 10;
/// See [`VIRTIO_IRQ`].
pub const RTC_IRQ: u32 = 11;
/// The highest number of a source.
pub const LAST_IRQ: u32 = plic::SOURCES as u32 - 1;
/// Frequency of mtime in Hz.
pub const TIME_HZ: u64 = clint::TIME_HZ;
/// What is written to [`TEST`] to power off and to reset.
pub const TEST_PASS: u32 = sifive_test::PASS;
/// See [`TEST_PASS`].
pub const TEST_RESET: u32 = sifive_test::RESET;

/// Bits of mip that the board drives (RISC-V privileged architecture, "Machine Interrupt (mip and mie) Registers").
const MSIP: u32 = 3;
const MTIP: u32 = 7;
const SEIP: u32 = 9;
const MEIP: u32 = 11;

/// Numbers of timers. Those of virtio slots begin here.
const RTC_TIMER: u32 = 0;
const HTIF_TIMER: u32 = 1;
const SLOT_TIMERS: u32 = 0x10;

/// Contexts of the interrupt controller that each hart has: machine mode, then supervisor mode.
const CONTEXTS: usize = 2;

const SERIAL: UartConfig = UartConfig { base: 0, irq: UART_IRQ as u8 };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RegionDevice {
    Test,
    Rtc,
    Clint,
    Plic,
    Uart,
    Htif,
    Virtio(usize),
}

const REGIONS: [(Region, RegionDevice); 5] = [
    (TEST, RegionDevice::Test),
    (RTC, RegionDevice::Rtc),
    (CLINT, RegionDevice::Clint),
    (PLIC, RegionDevice::Plic),
    (UART, RegionDevice::Uart),
];

const SPIKE_REGIONS: [(Region, RegionDevice); 2] = [(CLINT, RegionDevice::Clint), (HTIF, RegionDevice::Htif)];

/// Which board it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VirtModel {
    /// `virt`: everything but the registers of the host-target interface.
    Virt,
    /// `spike`: timers and the host-target interface, which is its console, and nothing else.
    Spike,
}

/// The device at `gpa`, and the offset in its registers.
fn route(model: VirtModel, gpa: u64) -> Option<(RegionDevice, u64)> {
    let regions: &[(Region, RegionDevice)] = match model {
        VirtModel::Virt => &REGIONS,
        VirtModel::Spike => &SPIKE_REGIONS,
    };
    let slot = gpa.checked_sub(VIRTIO.base).map(|at| (at / VIRTIO.size, at % VIRTIO.size));
    if let Some((slot, offset)) = slot.filter(|(slot, _)| *slot < VIRTIO_SLOTS as u64 && model == VirtModel::Virt) {
        return Some((RegionDevice::Virtio(slot as usize), offset));
    }
    regions.iter().find_map(|(region, device)| {
        let offset = gpa.checked_sub(region.base)?;
        (offset < region.size).then_some((*device, offset))
    })
}

/// What a board is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtConfig {
    /// Which board.
    pub model: VirtModel,
    /// Number of harts; 0 counts as 1.
    pub harts: usize,
    /// What the clock shows at power-on, in seconds since 1970-01-01 00:00 UTC.
    pub unix_time_at_power_on: u64,
    /// Version 2 of the registers of virtio slots, instead of the one from before the standard.
    pub modern_virtio: bool,
}

/// Where the words of the host-target interface are in RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Htif {
    /// From the guest.
    pub tohost: u64,
    /// To the guest, where a program has it.
    pub fromhost: Option<u64>,
}

/// What the guest asks of the machine's run loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VirtEvent {
    /// Power off.
    PowerOff,
    /// Reset: stop the harts, then call [`Virt::reset`].
    Reset,
    /// End with this exit code.
    Exit(u8),
}

/// The board without its harts and RAM.
pub struct Virt {
    model: VirtModel,
    /// Where the serial port and the host-target interface send to.
    serial: CharPort,
    mem: Dma,
    slots: [Wired<mmio::MmioTransport>; VIRTIO_SLOTS],
    devices: Devices,
    /// When the words of the host-target interface are to be looked at.
    htif_timer: Timer,
    harts: usize,
    lines: Arc<HartLines>,
    clint: Arc<SharedClint>,
    plic: Arc<SharedPlic>,
    /// What devices are wired to.
    inputs: IrqInputs,
    timers: TimerQueue,
}

impl Virt {
    /// A board that has just been switched on. `serial` takes what the serial port sends; devices reach RAM by `mem`.
    pub fn new(config: &VirtConfig, serial: Box<dyn CharSink>, mem: Dma) -> Virt {
        let harts = config.harts.clamp(1, clint::MAX_HARTS);
        let (lines, timers) = (Arc::new(HartLines::new(harts)), TimerQueue::new());
        let sink: Arc<dyn IrqSink> = lines.clone();
        let pins = IrqInputs::new(&sink, harts::LINES * harts as u32);
        let pin = |hart, number| pins.line(harts::LINES * hart + number);
        let hart = |hart| ClintHandles { msip: pin(hart, MSIP), mtip: pin(hart, MTIP) };
        let clint = Arc::new(SharedClint::new((0..harts as u32).map(hart).collect()));
        let contexts = (0..harts as u32).flat_map(|hart| [pin(hart, MEIP), pin(hart, SEIP)]);
        let plic = Arc::new(SharedPlic::new(contexts.collect()));
        let sink: Arc<dyn IrqSink> = plic.clone();
        let inputs = IrqInputs::new(&sink, plic::SOURCES as u32);
        let slots = std::array::from_fn(|index| {
            let number = index as u32;
            let handles =
                SlotHandles { irq: inputs.line(VIRTIO_IRQ + number), timer: timers.timer(SLOT_TIMERS + number) };
            Wired::new(mmio::MmioTransport::new(!config.modern_virtio), handles)
        });
        let serial = CharPort::new(serial);
        let rtc = GoldfishHandles { irq: inputs.line(RTC_IRQ), timer: timers.timer(RTC_TIMER) };
        let devices = Devices {
            now: 0,
            uart: Wired::new(Uart::new(SERIAL), UartHandles { irq: inputs.line(UART_IRQ), port: serial.clone() }),
            rtc: Wired::new(GoldfishRtc::new(config.unix_time_at_power_on), rtc),
            htif: htif::Port::default(),
            event: None,
        };
        Virt {
            model: config.model,
            serial,
            mem,
            slots,
            devices,
            htif_timer: timers.timer(HTIF_TIMER),
            harts,
            lines,
            clint,
            plic,
            inputs,
            timers,
        }
    }

    /// The interrupt lines into the harts.
    pub fn lines(&self) -> &Arc<HartLines> {
        &self.lines
    }

    /// The harts' timers and software interrupts, which who has them reaches without the board.
    pub fn clint(&self) -> &Arc<SharedClint> {
        &self.clint
    }

    /// The deadlines of all devices: the run loop calls [`Virt::advance`] when the earliest has come. Those of the harts' timers
    /// are their vCPUs': see [`SharedClint::next_deadline`].
    pub fn timers(&self) -> &TimerQueue {
        &self.timers
    }

    /// The last free slot that is not among `kept`: QEMU gives the last one first.
    pub fn free_slot(&self, kept: &[usize]) -> Option<usize> {
        let board = self.model == VirtModel::Virt;
        let free = |&index: &usize| board && self.slots.get(index).is_some_and(|slot| slot.state().device().is_none());
        (0..VIRTIO_SLOTS).rev().filter(|index| !kept.contains(index)).find(free)
    }

    /// Plugs a virtio device into a slot; whether it was free.
    pub fn plug(&mut self, slot: usize, device: Virtio) -> bool {
        self.slots.get_mut(slot).is_some_and(|slot| slot.with(|slot| slot.plug(device)))
    }

    /// Says where a program that uses the host-target interface has its words.
    pub fn set_htif(&mut self, htif: Option<Htif>) {
        self.devices.htif.memory = htif;
        self.look_at_htif_later();
    }

    /// Whether a device of `model` answers to all of `size` bytes at `gpa`.
    pub fn exists(model: VirtModel, gpa: u64, size: u8) -> bool {
        let last = gpa.checked_add(u64::from(size.max(1)) - 1).and_then(|last| route(model, last));
        route(model, gpa).is_some_and(|(device, _)| last.is_some_and(|(last, _)| last == device))
    }

    /// Whether a write at `gpa` may power a machine of `model` off, reset it, or end its run.
    pub fn ends_run(model: VirtModel, gpa: u64) -> bool {
        matches!(route(model, gpa), Some((RegionDevice::Test | RegionDevice::Htif, _)))
    }

    /// Reads `size` (1, 2, 4 or 8) bytes at guest-physical address `gpa`. 0 where nothing is.
    pub fn mmio_read(&mut self, now: u64, gpa: u64, size: u8) -> u64 {
        let now = self.set_now(now);
        let devices = &mut self.devices;
        let Some((device, offset)) = route(self.model, gpa) else { return 0 };
        match device {
            RegionDevice::Clint => self.clint.read(now, offset, size),
            RegionDevice::Uart => devices.uart.with(|uart| uart.read(offset as u8)).into(),
            RegionDevice::Virtio(slot) => {
                self.slots.get_mut(slot).map_or(0, |slot| slot.with(|slot| slot.read(offset, size)))
            }
            RegionDevice::Htif => devices.htif.read(offset, size),
            // Nothing to read.
            RegionDevice::Test => 0,
            // These have 32-bit registers only.
            RegionDevice::Rtc | RegionDevice::Plic if size < 4 || !offset.is_multiple_of(4) => 0,
            RegionDevice::Rtc => devices.rtc.with(|rtc| rtc.read(now, offset)).into(),
            RegionDevice::Plic => self.plic.with(|plic| plic.read(offset)).into(),
        }
    }

    /// Writes the low `size` bytes of `value` at guest-physical address `gpa`.
    pub fn mmio_write(&mut self, now: u64, gpa: u64, size: u8, value: u64) {
        let now = self.set_now(now);
        let devices = &mut self.devices;
        let Some((device, offset)) = route(self.model, gpa) else { return };
        match device {
            RegionDevice::Clint => self.clint.write(now, offset, size, value),
            RegionDevice::Uart => devices.uart.with(|uart| uart.write(offset as u8, value as u8)),
            RegionDevice::Virtio(slot) => {
                if let Some(slot) = self.slots.get_mut(slot) {
                    slot.with(|slot| slot.write(offset, size, value));
                }
            }
            RegionDevice::Htif => {
                if devices.htif.write(offset, size, value) {
                    self.poll_htif();
                } else {
                    self.answer_htif();
                }
            }
            RegionDevice::Test => match sifive_test::finish(offset, value as u32) {
                Some(Finish::PowerOff) => devices.request(VirtEvent::PowerOff),
                Some(Finish::Reset) => devices.request(VirtEvent::Reset),
                Some(Finish::Fail(code)) => devices.request(VirtEvent::Exit(code)),
                None => {}
            },
            RegionDevice::Rtc | RegionDevice::Plic if size < 4 || !offset.is_multiple_of(4) => {
                tracing::debug!(gpa, size, "narrow or unaligned register write ignored");
            }
            RegionDevice::Rtc => devices.rtc.with(|rtc| rtc.write(now, offset, value as u32)),
            RegionDevice::Plic => self.plic.with(|plic| plic.write(offset, value as u32)),
        }
    }

    /// Brings the devices whose timers are due to `now`.
    pub fn advance(&mut self, now: u64) {
        let now = self.set_now(now);
        for number in self.timers.due(now) {
            self.fire(number, now);
        }
        if self.devices.htif.memory.is_some() {
            self.poll_htif();
        }
        self.look_at_htif_later();
    }

    /// Does what the timer with this number is for. The words of the host-target interface are looked at in any case.
    fn fire(&mut self, number: u32, now: u64) {
        match number {
            RTC_TIMER => self.devices.rtc.with(|rtc| rtc.advance(now)),
            SLOT_TIMERS.. => {
                if let Some(slot) = self.slots.get_mut((number - SLOT_TIMERS) as usize) {
                    slot.with(mmio::MmioTransport::go_on);
                }
            }
            _ => {}
        }
    }

    fn look_at_htif_later(&mut self) {
        self.htif_timer.set(self.devices.htif.next_look(self.devices.now));
    }

    /// The earliest guest nanosecond at which [`Virt::advance`] has something to do.
    pub fn next_deadline(&self) -> Option<u64> {
        self.timers.next_deadline()
    }

    /// The bits of mip that the board drives into hart `hart`: MSIP, MTIP, SEIP and MEIP, as of `now`.
    pub fn interrupts(&self, now: u64, hart: usize) -> u64 {
        let expired = self.clint.timer(self.devices.now.max(now), hart);
        self.lines.levels(hart) & !(1 << MTIP) | u64::from(expired) << MTIP
    }

    /// How many bytes the serial port can take now.
    pub fn serial_room(&self) -> usize {
        match self.model {
            VirtModel::Virt => self.devices.uart.state().room(),
            VirtModel::Spike => self.devices.htif.room(),
        }
    }

    /// Receives `bytes` at the serial port and returns how many of them it took.
    pub fn serial_receive(&mut self, now: u64, bytes: &[u8]) -> usize {
        self.set_now(now);
        if self.model == VirtModel::Spike {
            let count = self.devices.htif.receive(bytes);
            self.answer_htif();
            return count;
        }
        self.devices.uart.with(|uart| uart.receive(bytes))
    }

    /// Receives a break at the serial port.
    pub fn serial_break(&mut self, now: u64) {
        self.set_now(now);
        self.devices.uart.with(Uart::receive_break);
    }

    /// Does something with the virtio device in `slot`; `None` if there is none.
    pub fn virtio<T>(&mut self, slot: usize, f: impl FnOnce(&mut Virtio) -> T) -> Option<T> {
        self.slots.get_mut(slot)?.with(|slot| slot.device_mut().map(f))
    }

    /// Has the device in slot `slot` go on with what its host side has done.
    pub fn attend(&mut self, slot: usize) {
        self.virtio(slot, Virtio::attend);
    }

    /// Whether the guest has asked for something that [`Virt::take_event`] would return.
    pub fn has_event(&self) -> bool {
        self.devices.event.is_some()
    }

    /// What the guest has asked for; the first request stands until it is taken.
    pub fn take_event(&mut self) -> Option<VirtEvent> {
        self.devices.event.take()
    }

    /// Ends the run with this exit code, as the test finisher does.
    pub fn end(&mut self, code: u8) {
        self.devices.request(if code == 0 { VirtEvent::PowerOff } else { VirtEvent::Exit(code) });
    }

    /// The reset line: every device as at power-on, but for the clock.
    pub fn reset(&mut self, now: u64) {
        let now = self.set_now(now);
        let devices = &mut self.devices;
        self.clint.reset(now);
        self.plic.restore(Plic::new(CONTEXTS * self.harts));
        devices.uart.with(Uart::reset);
        devices.rtc.with(GoldfishRtc::reset);
        devices.htif.reset();
        devices.event = None;
        self.slots.iter_mut().for_each(|slot| slot.with(mmio::MmioTransport::reset));
        self.look_at_htif_later();
        self.inputs.announce();
    }

    /// Guest time never runs backwards, whatever the caller says, and stays far from overflow (146 years).
    fn set_now(&mut self, now: u64) -> u64 {
        self.devices.now = self.devices.now.max(now.min(1 << 62));
        self.devices.now
    }
}

impl std::fmt::Debug for Virt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Virt").field("model", &self.model).field("lines", &self.lines).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
