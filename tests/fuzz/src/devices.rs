//! The table of devices, and how bytes become what a guest does to one.

use crate::bench::{Bench, Board, Plug};
use crate::input::Input;
use crate::{drivers, virtio};

/// Registers of a device: I/O ports or memory.
#[derive(Clone, Copy, Debug)]
struct Window {
    ports: bool,
    base: u64,
    size: u64,
    /// Bytes from one register to the next.
    step: u64,
}

const fn io(base: u64, size: u64) -> Window {
    Window { ports: true, base, size, step: 1 }
}

const fn mem(base: u64, size: u64, step: u64) -> Window {
    Window { ports: false, base, size, step }
}

/// A device under test.
pub struct Device {
    /// What it is called.
    pub name: &'static str,
    board: Board,
    plug: Plug,
    /// Where it answers; PCI functions are asked, too.
    windows: &'static [Window],
    /// What a driver of it does beyond accesses to registers.
    act: fn(&mut Bench, &mut Input),
}

const fn pc(name: &'static str, plug: Plug, windows: &'static [Window], act: fn(&mut Bench, &mut Input)) -> Device {
    Device { name, board: Board::Pc, plug, windows, act }
}

const fn riscv(name: &'static str, plug: Plug, windows: &'static [Window], act: fn(&mut Bench, &mut Input)) -> Device {
    Device { name, board: Board::Virt, plug, windows, act }
}

const PIC: [Window; 3] = [io(0x20, 2), io(0xa0, 2), io(0x4d0, 2)];
const PIT: [Window; 2] = [io(0x40, 4), io(0x61, 1)];
const RTC: [Window; 1] = [io(0x70, 2)];
const UART: [Window; 1] = [io(0x3f8, 8)];
const I8042: [Window; 3] = [io(0x60, 1), io(0x64, 1), io(0x92, 1)];
const LAPIC: [Window; 1] = [mem(0xfee0_0000, 0x400, 16)];
const IOAPIC: [Window; 1] = [mem(0xfec0_0000, 0x14, 4)];
/// With the power management function's ports where firmware puts them.
const ACPI: [Window; 4] = [io(0xb2, 2), io(0x600, 64), io(0xafe0, 4), io(0xcf8, 8)];
const PCI: [Window; 1] = [io(0xcf8, 8)];
const VGA: [Window; 3] = [io(0x3b0, 48), io(0x1ce, 2), mem(0xa_0000, 0x2_0000, 1)];
const FW_CFG: [Window; 1] = [io(0x510, 12)];
const IDE: [Window; 4] = [io(0x1f0, 8), io(0x170, 8), io(0x3f6, 1), io(0x376, 1)];
const DEBUG: [Window; 3] = [io(0x80, 1), io(0xe9, 1), io(0x501, 2)];
const TESTDEV: [Window; 3] = [io(0xe0, 12), io(0x2000, 24), mem(0xff00_0000, 0x1_0000, 1)];
const NONE: [Window; 0] = [];
const PLIC: [Window; 4] =
    [mem(0xc00_0000, 0x200, 4), mem(0xc00_1000, 0x20, 4), mem(0xc00_2000, 0x300, 4), mem(0xc20_0000, 0x4010, 4)];
const PLIC_CONTEXTS: [Window; 2] = [mem(0xc20_0000, 8, 4), mem(0xc20_1000, 8, 4)];
const CLINT: [Window; 3] = [mem(0x200_0000, 16, 4), mem(0x200_4000, 32, 4), mem(0x200_bff8, 8, 4)];
const GOLDFISH: [Window; 1] = [mem(0x10_1000, 0x24, 4)];
const TEST: [Window; 1] = [mem(0x10_0000, 8, 4)];
const UART_RISCV: [Window; 1] = [mem(0x1000_0000, 8, 1)];
const VIRTIO_MMIO: [Window; 1] = [mem(0x1000_8000, 0x140, 4)];

/// Each device by itself.
pub const DEVICES: &[Device] = &[
    pc("pic", Plug::Nothing, &PIC, drivers::nothing),
    pc("pit", Plug::Nothing, &PIT, drivers::nothing),
    pc("rtc", Plug::Nothing, &RTC, drivers::nothing),
    pc("uart", Plug::Nothing, &UART, drivers::nothing),
    pc("i8042", Plug::Nothing, &I8042, drivers::nothing),
    pc("lapic", Plug::Nothing, &LAPIC, drivers::nothing),
    pc("ioapic", Plug::Nothing, &IOAPIC, drivers::nothing),
    pc("acpi-pm", Plug::Nothing, &ACPI, drivers::nothing),
    pc("testdevs", Plug::Tests, &TESTDEV, drivers::nothing),
    pc("debug-ports", Plug::Nothing, &DEBUG, drivers::nothing),
    pc("pci", Plug::Rng, &PCI, drivers::pci),
    pc("vga", Plug::Vga, &VGA, drivers::vga),
    pc("fw-cfg", Plug::FwCfg, &FW_CFG, drivers::fw_cfg),
    pc("ide", Plug::Ide, &IDE, drivers::ide),
    pc("e1000", Plug::E1000, &NONE, drivers::e1000),
    pc("virtio-blk-pci", Plug::Block, &NONE, virtio::act),
    pc("virtio-net-pci", Plug::Net, &NONE, virtio::act),
    pc("virtio-rng-pci", Plug::Rng, &NONE, virtio::act),
    pc("virtio-console-pci", Plug::Console, &NONE, virtio::act),
    pc("virtio-ports-pci", Plug::Ports, &NONE, virtio::act),
    pc("virtio-9p-pci", Plug::Share, &NONE, virtio::act),
    riscv("virtio-blk-mmio", Plug::Block, &VIRTIO_MMIO, virtio::act),
    riscv("virtio-net-mmio", Plug::Net, &VIRTIO_MMIO, virtio::act),
    riscv("virtio-rng-mmio", Plug::Rng, &VIRTIO_MMIO, virtio::act),
    riscv("virtio-console-mmio", Plug::Console, &VIRTIO_MMIO, virtio::act),
    riscv("virtio-9p-mmio", Plug::Share, &VIRTIO_MMIO, virtio::act),
    riscv("plic", Plug::Rng, &PLIC, drivers::nothing),
    riscv("plic-contexts", Plug::Console, &PLIC_CONTEXTS, virtio::act),
    riscv("clint", Plug::Nothing, &CLINT, drivers::nothing),
    riscv("goldfish-rtc", Plug::Nothing, &GOLDFISH, drivers::nothing),
    riscv("test-finisher", Plug::Nothing, &TEST, drivers::nothing),
    riscv("uart-riscv", Plug::Nothing, &UART_RISCV, drivers::nothing),
    riscv("htif", Plug::Htif, &NONE, drivers::htif),
];

impl Device {
    /// Does to a new machine what `input` says.
    pub fn run(&self, input: &mut Input) {
        let mut bench = Bench::new(self.board, self.plug);
        while !input.is_over() {
            self.step(&mut bench, input);
        }
        bench.finish();
    }

    fn step(&self, bench: &mut Bench, input: &mut Input) {
        match input.u8() {
            0xff => bench.reset(),
            0xfe => bench.twin(),
            0xf4..=0xf7 => {
                let (register, size) = (input.u8(), input.pick(&[1, 2, 4]));
                let value = (!input.one_in(3)).then(|| input.value() as u32);
                bench.config(register, size, value);
            }
            0xf0..=0xf3 => {
                let (at, size, value) = (input.address(self.board.base()), input.size(), input.value());
                bench.write(at, size, value);
                bench.read(at, size);
                bench.port_write(at as u16, size, value as u32);
            }
            op => match op % 12 {
                0..=3 => self.access(bench, input, true),
                4 | 5 => self.access(bench, input, false),
                6 => {
                    let ns = 1u64 << (input.u8() % 40);
                    bench.advance(ns | u64::from(input.u8()));
                }
                7 => bench.run(op % 5),
                8 => bench.outside(input),
                9 => {
                    let (at, bytes) = (input.address(self.board.base()), input.bytes(64));
                    bench.put(at, &bytes);
                }
                _ => (self.act)(bench, input),
            },
        }
    }

    /// An access to a register, more or less.
    fn access(&self, bench: &mut Bench, input: &mut Input, write: bool) {
        let mut windows = self.windows.to_vec();
        if self.board == Board::Pc {
            let found = bench.pci_windows().into_iter();
            windows.extend(found.map(|(ports, base, size)| Window { ports, base, size, step: 1 }));
        }
        if windows.is_empty() {
            return;
        }
        let window = windows[input.below(windows.len() as u64) as usize];
        // Registers are at the beginning of large windows.
        let reach = if input.one_in(4) { window.size } else { window.size.min(0x100 * window.step) };
        let mut offset = input.below(reach);
        if !input.one_in(8) {
            offset -= offset % window.step;
        }
        let (at, size, value) = (window.base + offset, input.size(), input.value());
        match (window.ports, write) {
            (true, true) => bench.port_write(at as u16, size, value as u32),
            (true, false) => {
                bench.port_read(at as u16, size);
            }
            (false, true) => bench.write(at, size, value),
            (false, false) => {
                bench.read(at, size);
            }
        }
    }
}
