//! What is plugged into the ISA bus besides what every PC has: what its rows make, and the board's own serial ports, debugging
//! ports and test device.

use super::Pc;
use super::ports::{PortDevice, TEST_PORTS};
use super::{IsaDevice, IsaSlot};
use crate::fabric::{CharPort, CharSink, Wired};
use crate::testdev::{IRQ_LINES, PcTestdev};
use crate::uart::{Uart, UartConfig, UartHandles};

/// Where a serial port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SerialPort {
    /// First of its eight I/O ports.
    pub iobase: u16,
    /// The ISA interrupt line, 0 to 15.
    pub irq: u8,
}

/// Where a PC's serial ports are, the first one first.
pub const COM_PORTS: [SerialPort; 4] = [
    SerialPort { iobase: 0x3f8, irq: 4 },
    SerialPort { iobase: 0x2f8, irq: 3 },
    SerialPort { iobase: 0x3e8, irq: 4 },
    SerialPort { iobase: 0x2e8, irq: 3 },
];

/// A debug console.
pub(super) struct Debugcon {
    /// What its port reads as: a guest tells by it that the port exists.
    pub(super) readback: u8,
    pub(super) sink: Box<dyn CharSink>,
}

impl Pc {
    /// What was plugged in last comes first: who asks for a port wants it there.
    fn claim(&mut self, first: u16, count: u16, device: PortDevice) {
        self.ports.insert(0, (first, first.saturating_add(count.max(1) - 1), device));
    }

    /// Plugs in a serial port, which sends to `sink`. Its number, for the methods that bring it input; there is room for 256.
    pub fn plug_serial(&mut self, port: SerialPort, sink: Box<dyn CharSink>) -> usize {
        let index = self.devices.uarts.len();
        if let Ok(number) = u8::try_from(index) {
            let config = UartConfig { base: port.iobase, irq: port.irq & 15 };
            let handles = UartHandles { irq: self.wires.interrupt(config.irq.into()), port: CharPort::new(sink) };
            self.devices.uarts.push(Wired::new(Uart::new(config), handles));
            self.claim(port.iobase, 8, PortDevice::Serial(number));
        }
        index
    }

    /// Plugs in a debug console: bytes written to `port` go to `sink`, and it reads as `readback`.
    pub fn plug_debugcon(&mut self, port: u16, readback: u8, sink: Box<dyn CharSink>) {
        if let Ok(number) = u8::try_from(self.debugcons.len()) {
            self.debugcons.push(Debugcon { readback, sink });
            self.claim(port, 1, PortDevice::Debugcon(number));
        }
    }

    /// Plugs in a debug exit device with `size` ports from `port` on.
    pub fn plug_debug_exit(&mut self, port: u16, size: u16) {
        self.claim(port, size, PortDevice::DebugExit);
    }

    /// Plugs in `pc-testdev`. Of its ports, one is where others look for a debug console.
    pub fn plug_testdev(&mut self) {
        if self.devices.testdev.is_none() {
            let lines = (0..IRQ_LINES.into()).map(|input| self.wires.interrupt(input)).collect();
            self.devices.testdev = Some(Wired::new(PcTestdev::new(), lines));
            self.ports.extend(TEST_PORTS);
        }
    }

    /// Plugs in a device that is called `name`; there is room for 256.
    pub fn plug_isa(&mut self, name: &'static str, device: Box<dyn IsaDevice>) {
        if let Ok(number) = u8::try_from(self.isa.len()) {
            for (first, last) in device.ports() {
                self.claim(first, last.saturating_sub(first).saturating_add(1), PortDevice::Isa(number));
            }
            self.isa.push(IsaSlot::new(name, device, self.wires.isa_timer(number)));
        }
    }

    /// Does something with device `number` of those that rows have made, and keeps what it asks for; `None` if there is none.
    pub(super) fn with_isa<T>(&mut self, number: u8, f: impl FnOnce(&mut dyn IsaDevice) -> T) -> Option<T> {
        let (result, event) = self.isa.get_mut(usize::from(number))?.with(f);
        if let Some(event) = event {
            self.devices.request(event);
        }
        Some(result)
    }

    /// What monitors call the device behind a port.
    pub(super) fn port_name(&self, device: PortDevice) -> &'static str {
        match device {
            PortDevice::Isa(number) => self.isa.get(usize::from(number)).map_or(device.name(), |slot| slot.name),
            _ => device.name(),
        }
    }

    /// How many bytes serial port `index` can take now.
    pub fn serial_room(&self, index: usize) -> usize {
        self.devices.uarts.get(index).map_or(0, |uart| uart.state().room())
    }

    /// Receives `bytes` at serial port `index` and returns how many of them it took.
    pub fn serial_receive(&mut self, index: usize, now: u64, bytes: &[u8]) -> usize {
        self.set_now(now);
        self.devices.uarts.get_mut(index).map_or(0, |uart| uart.with(|uart| uart.receive(bytes)))
    }

    /// Receives a break at serial port `index`.
    pub fn serial_break(&mut self, index: usize, now: u64) {
        self.set_now(now);
        if let Some(uart) = self.devices.uarts.get_mut(index) {
            uart.with(Uart::receive_break);
        }
    }
}
