//! Drivers that break the rules of devices that move data by themselves: e1000, IDE, fw_cfg, the host-target interface.

use crate::bench::{Bench, HTIF};
use crate::input::Input;

/// Rings, tables and buffers, relative to RAM.
const RING: u64 = 0x2_0000;
const BUFFERS: u64 = 0x4_0000;

/// The e1000's registers (PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual, 13).
const RCTL: u64 = 0x100;
const TCTL: u64 = 0x400;
const RECEIVE: u64 = 0x2800;
const TRANSMIT: u64 = 0x3800;
const RING_HIGH: u64 = 4;
const RING_LEN: u64 = 8;
const RING_HEAD: u64 = 0x10;
const RING_TAIL: u64 = 0x18;
/// All registers that do something, or nearly.
const REGISTERS: [u64; 28] = [
    0x0, 0x8, 0x10, 0x14, 0x18, 0x20, 0x38, 0xc0, 0xc4, 0xc8, 0xd0, 0xd8, 0x100, 0x400, 0x2800, 0x2804, 0x2808, 0x2810,
    0x2818, 0x3800, 0x3804, 0x3808, 0x3810, 0x3818, 0x5000, 0x5200, 0x5400, 0x5404,
];
/// Descriptors of a ring.
const DESCRIPTORS: u64 = 16;

/// One act of the e1000's driver.
pub fn e1000(bench: &mut Bench, input: &mut Input) {
    let Some(bar) = bench.bar(0) else {
        bench.config(4, 2, Some(7));
        return;
    };
    match input.u8() % 16 {
        0 => {
            bench.config(4, 2, Some(7));
            for ring in [RECEIVE, TRANSMIT] {
                let at = if input.one_in(16) { input.address(0) } else { RING + ring };
                let len = if input.one_in(8) { input.length() } else { 16 * DESCRIPTORS as u32 };
                bench.write(bar + ring, 4, at & 0xffff_ffff);
                bench.write(bar + ring + RING_HIGH, 4, at >> 32);
                bench.write(bar + ring + RING_LEN, 4, len.into());
                bench.write(bar + ring + RING_HEAD, 4, 0);
                bench.write(bar + ring + RING_TAIL, 4, input.below(DESCRIPTORS));
            }
            let sizes = u64::from(input.u8() & 3) << 16 | u64::from(input.u8() & 1) << 25;
            bench.write(bar + RCTL, 4, 0x8002 | 0x38 | sizes);
            bench.write(bar + TCTL, 4, 0xa);
            bench.write(bar + 0xd0, 4, 0xffff);
        }
        1..=6 => transmit(bench, input, bar),
        7 | 8 => {
            let (number, address) = (input.below(DESCRIPTORS), input.address(0));
            let address = if input.one_in(8) { address } else { BUFFERS + 0x1_0000 * (number & 3) };
            bench.put(RING + RECEIVE + 16 * number, &address.to_le_bytes());
            bench.write(bar + RECEIVE + RING_TAIL, 4, input.below(DESCRIPTORS));
        }
        9 => {
            let value = input.value();
            bench.write(bar + TRANSMIT + RING_TAIL, 4, value);
        }
        10 if input.one_in(8) => bench.twin(),
        _ => {
            let (register, value) = (input.pick(&REGISTERS), input.value());
            bench.write(bar + register, 4, value);
            bench.read(bar + register, 4);
        }
    }
}

/// Some descriptors and the tail behind them.
fn transmit(bench: &mut Bench, input: &mut Input, bar: u64) {
    let first = input.below(DESCRIPTORS);
    let count = 1 + input.below(4);
    let frame = input.bytes(100);
    bench.put(BUFFERS, &frame);
    for number in 0..count {
        let address = if input.one_in(16) { input.address(0) } else { BUFFERS + 16 * u64::from(input.u8()) };
        let kind = input.u8() % 4;
        let len = input.length() & if input.one_in(8) { 0xf_ffff } else { 0x7ff };
        let command = if input.one_in(4) { input.u8() } else { input.pick(&[0x0b, 0x09, 0x2b, 0x01, 0x0d]) };
        let (low, high) = match kind {
            // A context: where checksums go, headers, segment size (3.3.6).
            0 => {
                let low = u64::from(input.u32()) | u64::from(input.u32()) << 32;
                let segment = u64::from(input.pick(&[0u16, 1, 64, 536, 1460, 0xffff]));
                let headers = u64::from(input.pick(&[0u8, 14, 54, 66, 255]));
                (low, segment << 48 | headers << 40 | u64::from(command | 0x20) << 24 | u64::from(len))
            }
            // Data (3.3.7).
            1 | 2 => {
                let options = u64::from(input.u8() & 3) << 40;
                (address, options | u64::from(command | 0x20) << 24 | 1 << 20 | u64::from(len))
            }
            // Legacy (3.3.3).
            _ => (address, u64::from(input.u8()) << 8 | u64::from(command & !0x20) << 24 | u64::from(len & 0xffff)),
        };
        let at = RING + TRANSMIT + 16 * ((first + number) % DESCRIPTORS);
        bench.put(at, &low.to_le_bytes());
        bench.put(at + 8, &high.to_le_bytes());
    }
    bench.write(bar + TRANSMIT + RING_TAIL, 4, (first + count) % DESCRIPTORS);
}

/// Commands of disks (ACS-2) and CD-ROM drives, known and unknown.
const COMMANDS: [u8; 40] = [
    0x00, 0x08, 0x10, 0x20, 0x21, 0x24, 0x25, 0x29, 0x30, 0x31, 0x34, 0x35, 0x39, 0x40, 0x42, 0x70, 0x90, 0x91, 0xa0,
    0xa1, 0xc4, 0xc5, 0xc6, 0xc8, 0xc9, 0xca, 0xcb, 0xe0, 0xe1, 0xe3, 0xe5, 0xe7, 0xea, 0xec, 0xef, 0xf8, 0x06, 0x27,
    0x3d, 0xb0,
];
/// Packet commands (MMC-3).
const PACKETS: [u8; 24] = [
    0x00, 0x03, 0x12, 0x1a, 0x1b, 0x1e, 0x23, 0x25, 0x28, 0x2b, 0x2f, 0x35, 0x42, 0x43, 0x46, 0x4a, 0x51, 0x52, 0x55,
    0x5a, 0xa8, 0xbb, 0xbd, 0xbe,
];
/// First ports of the channels: command blocks and control; the bus master's is where firmware puts it.
const CHANNELS: [(u16, u16); 2] = [(0x1f0, 0x3f6), (0x170, 0x376)];

/// One act of the IDE controller's driver.
pub fn ide(bench: &mut Bench, input: &mut Input) {
    let channel = input.below(2) as usize;
    let (ports, control) = CHANNELS[channel];
    let master = bench.pci_windows().iter().find(|window| window.0).map_or(0xc000, |window| window.1 as u16);
    let master = master + 8 * channel as u16;
    match input.u8() % 16 {
        0..=4 => {
            let device = input.pick(&[0xa0u8, 0xb0, 0xe0, 0xf0, 0x40, 0x50]);
            bench.port_write(ports + 6, 1, device.into());
            for register in 1..6 {
                // What was written before is the upper half of 48 bits.
                if input.one_in(3) {
                    bench.port_write(ports + register, 1, input.u8().into());
                }
                let value = if input.one_in(3) { input.u8() } else { input.u8() & 3 };
                bench.port_write(ports + register, 1, value.into());
            }
            let command = if input.one_in(8) { input.u8() } else { input.pick(&COMMANDS) };
            bench.port_write(ports + 7, 1, command.into());
            if command == 0xa0 {
                packet(bench, input, ports);
            }
        }
        5 | 6 => table(bench, input, master),
        7 | 8 => {
            let (write, count, size) = (input.one_in(2), input.below(520), input.pick(&[2, 2, 2, 1, 4]));
            for _ in 0..count {
                match write {
                    true => bench.port_write(ports, size, 0x5a5a_a5a5),
                    false => {
                        bench.port_read(ports, size);
                    }
                }
            }
        }
        9 => {
            bench.port_write(control, 1, input.pick(&[0u8, 2, 4, 6, 0x80]).into());
        }
        10 => {
            bench.port_read(ports + 7, 1);
            bench.port_read(control, 1);
            bench.port_read(master + 2, 1);
        }
        11 => {
            let value = input.u8();
            bench.port_write(master, 1, value.into());
            bench.port_write(master + 2, 1, input.u8().into());
        }
        12 if input.one_in(8) => bench.twin(),
        13 => packet(bench, input, ports),
        14 => bench.config(4, 2, Some(input.pick(&[5, 1, 7, 0]))),
        _ => bench.outside(input),
    }
}

/// Writes a packet command to a drive that waits for one, or does not.
fn packet(bench: &mut Bench, input: &mut Input, ports: u16) {
    let command = if input.one_in(8) { input.u8() } else { input.pick(&PACKETS) };
    let mut bytes = [0; 12];
    for byte in &mut bytes {
        *byte = if input.one_in(2) { input.u8() } else { 0 };
    }
    bytes[0] = command;
    for pair in bytes.chunks_exact(2) {
        bench.port_write(ports, 2, u16::from_le_bytes([pair[0], pair[1]]).into());
    }
}

/// Gives a bus master a table and starts it.
fn table(bench: &mut Bench, input: &mut Input, master: u16) {
    bench.config(4, 2, Some(5));
    let count = 1 + input.below(6);
    for number in 0..count {
        let address = if input.one_in(12) { input.address(0) } else { BUFFERS + 0x8000 * number };
        let len = if input.one_in(4) { input.u16() } else { input.pick(&[512, 0, 4096, 2048, 2, 1]) };
        let end = if number + 1 == count && !input.one_in(8) { 0x8000u16 } else { 0 };
        let mut entry = (address as u32).to_le_bytes().to_vec();
        entry.extend(len.to_le_bytes());
        entry.extend(end.to_le_bytes());
        bench.put(RING + 8 * number, &entry);
    }
    let at = if input.one_in(16) { input.address(0) } else { RING };
    bench.port_write(master + 4, 4, at as u32);
    bench.port_write(master + 2, 1, 6);
    bench.port_write(master, 1, input.pick(&[1u8, 9, 8, 0]).into());
}

/// One DMA access of the firmware configuration device.
pub fn fw_cfg(bench: &mut Bench, input: &mut Input) {
    let select = input.pick(&[0u16, 1, 0x19, 0x20, 0x21, 0x22, 0x8000, 0x4001]);
    let control = u32::from(select) << 16 | u32::from(input.u8() & 0x1f);
    let (length, target) = (input.length(), input.address(0));
    let mut request = control.to_be_bytes().to_vec();
    request.extend(length.to_be_bytes());
    request.extend(target.to_be_bytes());
    let at = if input.one_in(8) { input.address(0) } else { RING };
    bench.put(at, &request);
    bench.port_write(0x514, 4, ((at >> 32) as u32).swap_bytes());
    bench.port_write(0x518, 4, (at as u32).swap_bytes());
    if input.one_in(4) {
        bench.port_write(0x510, 2, select.into());
        for _ in 0..input.u8() {
            bench.port_read(0x511, 1);
        }
    }
}

/// A word for the host, and arguments of a system call.
pub fn htif(bench: &mut Bench, input: &mut Input) {
    let base = bench.board.base();
    let call = if input.one_in(4) { input.address(base) } else { base + HTIF + 128 };
    let word = match input.u8() % 4 {
        0 => input.u64(),
        1 => 1 << 56 | u64::from(input.u8() & 1) << 48 | u64::from(input.u8()),
        _ => call,
    };
    bench.put(base + HTIF, &word.to_le_bytes());
    let arguments = [64, 1, input.address(base), u64::from(input.length())];
    let bytes: Vec<u8> = arguments.iter().flat_map(|argument| argument.to_le_bytes()).collect();
    bench.put(call, &bytes);
    bench.advance(2_000_000);
}

/// The VGA: VBE registers by their index, and a look at the picture.
pub fn vga(bench: &mut Bench, input: &mut Input) {
    match input.u8() % 4 {
        0 | 1 => {
            bench.port_write(0x1ce, 2, input.below(12) as u32);
            let value = input.pick(&[0u16, 1, 0x41, 0xc1, 4, 8, 15, 16, 24, 32, 640, 1024, 0xffff, 2560]);
            let value = if input.one_in(4) { input.u16() } else { value };
            bench.port_write(0x1cf, 2, value.into());
        }
        2 => {
            // An indexed register of the sequencer, the graphics controller or the CRT controller.
            let port = input.pick(&[0x3c4, 0x3ce, 0x3d4, 0x3b4]);
            bench.port_write(port, 2, u32::from(input.u8() % 32) | u32::from(input.u8()) << 8);
        }
        _ => {
            bench.port_read(0x3da, 1);
            bench.port_write(0x3c0, 1, (input.u8() % 64).into());
            bench.port_write(0x3c0, 1, input.u8().into());
        }
    }
}

/// The PCI bus: an address and data, of any function.
pub fn pci(bench: &mut Bench, input: &mut Input) {
    let place = input.pick(&[0u32, 8, 9, 10, 11, 0x10, 0x20, 0xff]);
    let register = u32::from(input.u8());
    let size = input.pick(&[1, 2, 4]);
    bench.port_write(0xcf8, 4, 1 << 31 | place << 8 | register);
    let port = 0xcfc + input.below(4) as u16;
    let value = input.value() as u32;
    bench.port_write(port, size, value);
    bench.port_read(port, size);
}

/// Nothing beyond registers.
pub fn nothing(_: &mut Bench, _: &mut Input) {}
