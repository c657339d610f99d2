//! The network adapter 82540EM, which QEMU calls `e1000` ("PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's
//! Manual", revision 4.0; section numbers are its).
//!
//! Descriptors are walked on the thread of what the adapter is plugged into, see [`crate::net`]: writing a ring's tail only
//! wakes it. The wire is always there and never loses anything; frames that the guest has no descriptors for wait.

mod checksum;
mod eeprom;
mod receive;
mod regs;
mod transmit;

use mimus_softmmu::Dma;

use crate::fabric::NetPort;
use crate::net::{Adapter, Batch, FrameQueue, NetPeer, Offloads};
use crate::pci::{BarKind, Config, Function, Identity};
use eeprom::Microwire;
use regs::*;
use transmit::Transmitter;

/// Bytes of a descriptor.
const DESCRIPTOR: u64 = 16;
/// The base address registers: registers in memory, and the same behind an address and a data port.
const BAR_MEMORY: usize = 0;
const BAR_IO: usize = 1;
const IO_WINDOW: u64 = 64;
const IO_ADDRESS: u64 = 0;
const IO_DATA: u64 = 4;
/// Nanoseconds of a unit of ITR (13.4.18).
const ITR_UNIT: u64 = 256;

const VENDOR: u16 = 0x8086;
const DEVICE: u16 = 0x100e;
/// QEMU's, since drivers know it.
const SUBSYSTEM: (u16, u16) = (0x1af4, 0x1100);

/// Fields of MDIC (13.4.9).
const MDIC_WRITE: u32 = 1 << 26;
const MDIC_READ: u32 = 2 << 26;
const MDIC_OPERATION: u32 = 3 << 26;
const MDIC_READY: u32 = 1 << 28;
const MDIC_INTERRUPT: u32 = 1 << 29;
const MDIC_ERROR: u32 = 1 << 30;
/// The address of the PHY.
const PHY: u32 = 1;

/// The adapter.
pub struct E1000 {
    config: Config,
    mem: Dma,
    port: NetPort,
    eeprom: [u16; eeprom::WORDS],
    regs: Regs,
    phy: [u16; eeprom::PHY_REGISTERS],
    microwire: Microwire,
    io_address: u32,
    transmitter: Transmitter,
    now: u64,
    /// The pin is asserted, and when it may be again.
    raised: bool,
    next_interrupt: u64,
}

impl E1000 {
    /// An adapter with this hardware address, plugged into `peer` or into nothing.
    pub fn new(mem: Dma, mac: [u8; 6], peer: Option<Box<dyn NetPeer>>) -> E1000 {
        let identity = Identity { vendor: VENDOR, device: DEVICE, class: 0x02_0000, revision: 3, subsystem: SUBSYSTEM };
        let config = Config::new(identity)
            .with_bar(BAR_MEMORY, BarKind::Memory, WINDOW)
            .with_bar(BAR_IO, BarKind::Io, IO_WINDOW)
            .with_interrupt_pin(1);
        let mut adapter = E1000 {
            config,
            mem,
            port: NetPort::new(peer),
            eeprom: eeprom::contents(mac, (VENDOR, DEVICE), SUBSYSTEM),
            regs: Regs::new(),
            phy: eeprom::phy(),
            microwire: Microwire::new(),
            io_address: 0,
            transmitter: Transmitter::default(),
            now: 0,
            raised: false,
            next_interrupt: 0,
        };
        adapter.reset_registers();
        adapter
    }

    /// What software asks for by CTRL, and part of a reset of the bus.
    fn reset_registers(&mut self) {
        self.regs = Regs::new();
        self.show_link();
        // The first receive address comes from the EEPROM (13.5.2).
        let [a, b, c, ..] = self.eeprom;
        self.regs.set(RAL, u32::from(a) | u32::from(b) << 16);
        self.regs.set(RAH, u32::from(c) | ADDRESS_VALID);
        self.microwire = Microwire::new();
        self.transmitter = Transmitter::default();
        self.port.reset();
        self.raised = false;
        self.next_interrupt = 0;
    }

    /// Has the registers say whether there is a link.
    fn show_link(&mut self) {
        let up = if self.port.is_up() { STATUS_LINK } else { 0 };
        self.regs.set(STATUS, self.regs.get(STATUS) & !STATUS_LINK | up);
        eeprom::show_link(&mut self.phy, self.port.is_up());
    }

    /// Causes that are not masked.
    fn pending(&self) -> bool {
        self.regs.get(ICR) & self.regs.get(IMS) != 0
    }

    /// Notes causes of an interrupt.
    fn cause(&mut self, causes: u32) {
        self.regs.add_causes(causes);
        self.drive();
    }

    /// Drives the pin: not asserted again before the time that ITR says (13.4.18).
    fn drive(&mut self) {
        if !self.pending() {
            self.raised = false;
        } else if !self.raised && self.now >= self.next_interrupt {
            self.raised = true;
            self.next_interrupt = self.now + u64::from(self.regs.get(ITR)) * ITR_UNIT;
        }
    }

    fn read_register(&mut self, offset: u32) -> u32 {
        match offset {
            EECD => self.microwire.read(&self.eeprom),
            ICR => {
                let asserted = if self.pending() { ASSERTED } else { 0 };
                let causes = self.regs.take(ICR) | asserted;
                self.drive();
                causes
            }
            // What is written there acts elsewhere.
            ICS | IMC => 0,
            offset if STATISTICS.contains(&offset) => self.regs.take(offset),
            offset => self.regs.get(offset),
        }
    }

    fn write_register(&mut self, offset: u32, value: u32) {
        match offset {
            CTRL if value & CTRL_RESET != 0 => self.reset_registers(),
            CTRL => {
                self.regs.keep(CTRL, value);
                if value & CTRL_PHY_RESET != 0 {
                    self.phy = eeprom::phy();
                    self.show_link();
                    self.cause(LINK_CHANGED);
                }
            }
            EECD => self.microwire.write(value),
            EERD => self.read_eeprom(value),
            MDIC => self.access_phy(value),
            ICR => {
                self.regs.set(ICR, self.regs.get(ICR) & !value);
                self.drive();
            }
            ICS => self.cause(value),
            IMS => {
                self.regs.set(IMS, self.regs.get(IMS) | value);
                self.drive();
            }
            IMC => {
                self.regs.set(IMS, self.regs.get(IMS) & !value);
                self.drive();
            }
            _ => {
                if !self.regs.keep(offset, value) {
                    tracing::debug!(offset, value, "e1000: write ignored");
                }
            }
        }
        match offset {
            TDT | TCTL if self.port.has_peer() => self.port.notify(),
            // No cable: frames are lost.
            TDT | TCTL => while self.transmit_to(&mut Batch::default()) {},
            RDT | RCTL => self.port.has_room(),
            _ => {}
        }
    }

    /// EERD: a word of the EEPROM (13.4.4).
    fn read_eeprom(&mut self, value: u32) {
        const START: u32 = 1 << 0;
        const DONE: u32 = 1 << 4;
        if value & START != 0 {
            let address = value >> 8 & 0xff;
            let word = self.eeprom.get(address as usize).copied().unwrap_or(0);
            self.regs.set(EERD, u32::from(word) << 16 | address << 8 | DONE);
        }
    }

    /// MDIC: a register of the PHY (13.4.9).
    fn access_phy(&mut self, value: u32) {
        let (index, address) = ((value >> 16 & 0x1f) as usize, value >> 21 & 0x1f);
        let mut link = false;
        let result = match value & MDIC_OPERATION {
            _ if address != PHY => self.regs.get(MDIC) & !MDIC_OPERATION | MDIC_ERROR,
            MDIC_READ => value & !0xffff | u32::from(self.phy.get(index).copied().unwrap_or(0)),
            MDIC_WRITE => {
                link = eeprom::write_phy(&mut self.phy, index, value as u16) && self.port.is_up();
                self.show_link();
                value
            }
            _ => value | MDIC_ERROR,
        };
        self.regs.set(MDIC, result | MDIC_READY);
        let done = if value & MDIC_INTERRUPT != 0 { MDIO_DONE } else { 0 };
        self.cause(done | if link { LINK_CHANGED } else { 0 });
    }

    fn active(&self, register: u32, enable: u32) -> bool {
        self.regs.get(register) & enable != 0 && self.config.is_master()
    }
}

impl Adapter for E1000 {
    fn transmit(&mut self, batch: &mut Batch) -> bool {
        let more = self.transmit_to(batch);
        if !self.port.is_up() {
            batch.clear();
        }
        more
    }

    fn receive(&mut self, queue: &mut FrameQueue) -> bool {
        if !self.port.is_up() {
            queue.clear();
        }
        self.receive_from(queue)
    }

    fn set_link(&mut self, up: bool) {
        if self.port.set_link(up) {
            self.show_link();
            self.cause(LINK_CHANGED);
        }
    }

    fn offloads(&self) -> Offloads {
        Offloads::default()
    }
}

impl Function for E1000 {
    fn config(&self) -> &Config {
        &self.config
    }

    fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    fn config_written(&mut self, _: u8) {
        // It may be a master now.
        self.port.notify();
    }

    fn bar_read(&mut self, now: u64, bar: usize, offset: u64, size: u8) -> u64 {
        self.now = self.now.max(now);
        let register = match (bar, offset) {
            (BAR_MEMORY, offset) => offset & !3,
            (BAR_IO, IO_ADDRESS) => return self.io_address.into(),
            (BAR_IO, IO_DATA) => u64::from(self.io_address) & !3,
            _ => return 0,
        };
        let shift = if bar == BAR_MEMORY { 8 * (offset & 3) } else { 0 };
        let low = u64::from(self.read_register(register as u32)) >> shift;
        let high = if size == 8 { u64::from(self.read_register(register as u32 + 4)) } else { 0 };
        low | high << 32
    }

    fn bar_write(&mut self, now: u64, bar: usize, offset: u64, size: u8, value: u64) {
        self.now = self.now.max(now);
        match (bar, offset) {
            // Registers are written as a whole (13.2).
            (BAR_MEMORY, offset) if offset.is_multiple_of(4) && size >= 4 => {
                self.write_register(offset as u32, value as u32);
                if size == 8 {
                    self.write_register(offset as u32 + 4, (value >> 32) as u32);
                }
            }
            (BAR_IO, IO_ADDRESS) => self.io_address = value as u32 & (WINDOW as u32 - 1),
            (BAR_IO, IO_DATA) if size == 4 => self.write_register(self.io_address & !3, value as u32),
            _ => tracing::debug!(bar, offset, size, "e1000: write ignored"),
        }
    }

    fn adapter(&mut self, now: u64) -> Option<&mut dyn Adapter> {
        // Its pin waits by its own clock.
        self.advance(now);
        Some(self)
    }

    fn intx(&self) -> bool {
        self.raised
    }

    fn advance(&mut self, now: u64) {
        self.now = self.now.max(now);
        self.drive();
    }

    fn next_deadline(&self) -> Option<u64> {
        (self.pending() && !self.raised).then_some(self.next_interrupt)
    }

    fn reset(&mut self) {
        self.phy = eeprom::phy();
        self.io_address = 0;
        self.reset_registers();
    }

    fn save(&self) -> Vec<u8> {
        let Microwire { pins, command, address, bits } = self.microwire;
        let times = [self.now, self.next_interrupt].into_iter().flat_map(u64::to_le_bytes);
        let words = self.regs.words().iter().copied().chain([pins, command, self.io_address]);
        words
            .flat_map(u32::to_le_bytes)
            .chain(self.phy.into_iter().flat_map(u16::to_le_bytes))
            .chain([address, bits, self.raised.into()])
            .chain(times)
            .chain(self.transmitter.save())
            .collect()
    }

    fn fits(&self, data: &[u8]) -> bool {
        self.parse(data).is_some()
    }

    fn restore(&mut self, data: &[u8]) {
        let Some(saved) = self.parse(data) else { return };
        (self.regs, self.phy, self.microwire, self.io_address) = (saved.regs, saved.phy, saved.microwire, saved.io);
        (self.raised, self.now, self.next_interrupt) = (saved.raised, saved.now, saved.next_interrupt);
        self.transmitter = saved.transmitter;
        self.show_link();
        self.port.starve();
        self.port.notify();
    }
}

/// What [`Function::save`] gave.
struct Saved {
    regs: Regs,
    phy: [u16; eeprom::PHY_REGISTERS],
    microwire: Microwire,
    io: u32,
    raised: bool,
    now: u64,
    next_interrupt: u64,
    transmitter: Transmitter,
}

/// Takes the first bytes off.
fn take<const N: usize>(data: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = data.split_first_chunk::<N>()?;
    *data = rest;
    Some(*first)
}

impl E1000 {
    fn parse(&self, mut data: &[u8]) -> Option<Saved> {
        let data = &mut data;
        let words = self.regs.words().iter().map(|_| take(data).map(u32::from_le_bytes)).collect::<Option<_>>();
        let regs = Regs::from_words(words?)?;
        let pins = u32::from_le_bytes(take(data)?);
        let command = u32::from_le_bytes(take(data)?);
        let io = u32::from_le_bytes(take(data)?);
        let mut phy = [0; eeprom::PHY_REGISTERS];
        for register in &mut phy {
            *register = u16::from_le_bytes(take(data)?);
        }
        let [address, bits, raised] = take(data)?;
        let (now, next_interrupt) = (u64::from_le_bytes(take(data)?), u64::from_le_bytes(take(data)?));
        let transmitter = Transmitter::restore(data)?;
        let bounded = bits <= 16 || bits == u8::MAX;
        let microwire = Microwire { pins, command: command & 0x1ff, address, bits };
        let saved = Saved { regs, phy, microwire, io, raised: raised != 0, now, next_interrupt, transmitter };
        (bounded && data.is_empty() && now < 1 << 63).then_some(saved)
    }
}

impl std::fmt::Debug for E1000 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("E1000").field("config", &self.config).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
