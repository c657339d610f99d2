//! What the command line plugs into a PC's ISA bus.

use super::{Chardev, Plug};

/// Devices on the ISA bus besides those that every PC has and the first serial port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IsaDevices {
    /// More serial ports.
    pub serials: Vec<IsaSerial>,
    /// Debug consoles.
    pub debugcons: Vec<Debugcon>,
    /// Debug exit devices.
    pub debug_exits: Vec<DebugExit>,
    /// `pc-testdev`, of which there is at most one.
    pub testdev: Option<Plug>,
}

/// An `isa-serial` device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IsaSerial {
    /// What it is called.
    pub plug: Plug,
    /// First of its eight I/O ports.
    pub iobase: u16,
    /// Its interrupt line, 0 to 15.
    pub irq: u8,
    /// Where it is connected.
    pub chardev: Chardev,
}

/// An `isa-debugcon` device: bytes written to a port appear on a character device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Debugcon {
    /// What it is called.
    pub plug: Plug,
    /// I/O port.
    pub iobase: u16,
    /// What the port reads as.
    pub readback: u8,
    /// Where the bytes go. Shares standard output with the serial port when both name it.
    pub chardev: Chardev,
}

/// An `isa-debug-exit` device: writing `v` ends the run with exit code `(v << 1) | 1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebugExit {
    /// What it is called.
    pub plug: Plug,
    /// First I/O port.
    pub iobase: u16,
    /// Number of ports (1 to 4); `iobase + iosize` never exceeds 0x10000.
    pub iosize: u16,
}
