//! The devices of mimus as pure state machines.
//!
//! Nothing in this crate has a thread, a clock or a host file. Guest time enters as an argument (`now`, guest
//! nanoseconds since power-on), characters leave through a [`CharSink`], and everything a device remembers is plain
//! serde data. [`Pc`] ties the devices of a PC together: one table routes I/O ports, one table routes interrupt lines.
//! [`Virt`] does so for a RISC-V board, and [`virtio`] has devices for both.
//!
//! The host side reads and writes ports and MMIO on behalf of a vCPU, calls [`Pc::advance`] no later than
//! [`Pc::next_deadline`], and asks [`Interrupts::take_signals`] and [`Interrupts::pending`] before it enters the guest.
// Runs with the guest's rounding and flags in the host's register when compiled code calls it.
#![cfg_attr(not(test), deny(clippy::float_arithmetic))]
#![forbid(unsafe_code)]

mod acpi_pm;
pub mod acpi_tables;
pub mod ata;
pub mod block;
mod buffer;
mod clint;
mod debug;
mod dma;
pub mod e1000;
mod error;
pub mod fabric;
mod ferr;
pub mod fw_cfg;
mod goldfish_rtc;
pub mod hpet;
mod htif;
mod i8042;
pub mod ide;
mod ioapic;
pub mod isa;
pub mod keys;
mod lapic;
mod mp_table;
pub mod net;
mod pc;
pub mod pci;
mod pic;
mod pit;
mod plic;
pub mod registry;
mod rtc;
pub mod share;
mod sifive_test;
pub mod smbios;
mod testdev;
mod time;
mod uart;
pub mod vga;
pub mod virt;
pub mod virtio;

pub use clint::SharedClint;
pub use error::StateError;
pub use fabric::CharSink;
pub use i8042::MouseEvent;
pub use lapic::Signals;
pub use pc::{COM_PORTS, Interrupts, Pc, PcConfig, PcEvent, PcState, SerialPort, low_ram_size};
pub use virt::{HartLines, Htif, Virt, VirtConfig, VirtEvent, VirtState};
