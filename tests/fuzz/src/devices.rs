//! The targets that are devices, which are made of the rows of the registry, and how bytes become what a guest does to one.

use std::sync::LazyLock;

use mimus_hw::pci::Space;
use mimus_hw::registry::{self, Model, Window, models};

use crate::bench::{Bench, Board, Plug};
use crate::input::Input;
use crate::{drivers, virtio};

/// What a driver does beyond accesses to registers.
type Act = fn(&mut Bench, &mut Input);

/// A device under test.
pub struct Device {
    /// What it is called.
    pub name: &'static str,
    board: Board,
    plug: Plug,
    /// Where it answers; PCI functions are asked, too.
    windows: Vec<Window>,
    act: Act,
}

/// Targets with a driver, or with a host's side: the others are nothing but registers.
const DRIVERS: &[(&str, Plug, Act)] = &[
    ("pci", Plug::Rng, drivers::pci),
    ("vga", Plug::Vga, drivers::vga),
    ("hpet", Plug::Hpet, drivers::nothing),
    ("fw-cfg", Plug::FwCfg, drivers::fw_cfg),
    ("ide", Plug::Ide, drivers::ide),
    ("e1000", Plug::E1000, drivers::e1000),
    ("virtio-blk-pci", Plug::Block, virtio::act),
    ("virtio-net-pci", Plug::Net, virtio::act),
    ("virtio-rng-pci", Plug::Rng, virtio::act),
    ("virtio-console-pci", Plug::Console, virtio::act),
    ("virtio-ports-pci", Plug::Ports, virtio::act),
    ("virtio-9p-pci", Plug::Share, virtio::act),
    ("virtio-blk-mmio", Plug::Block, virtio::act),
    ("virtio-net-mmio", Plug::Net, virtio::act),
    ("virtio-rng-mmio", Plug::Rng, virtio::act),
    ("virtio-console-mmio", Plug::Console, virtio::act),
    ("virtio-9p-mmio", Plug::Share, virtio::act),
    ("plic", Plug::Rng, drivers::nothing),
    ("plic-contexts", Plug::Console, virtio::act),
];

/// What the registry of devices does not have, since it belongs to a processor.
const LAPIC: [Window; 1] = [Window { space: Space::Memory, base: 0xfee0_0000, size: 0x400, step: 16 }];

/// Each device by itself: a target for each name that the registry's rows have, in the order of the rows, with the registers of
/// every row that has the name.
pub static DEVICES: LazyLock<Vec<Device>> = LazyLock::new(|| {
    let mut all: Vec<Device> = Vec::new();
    for model in models() {
        for &name in model.fuzz {
            match all.iter_mut().find(|device| device.name == name) {
                Some(device) => device.windows.extend(model.windows),
                None => all.push(target(name, model)),
            }
        }
    }
    let (pc, virt) = (Board::Pc, Board::Virt);
    all.push(Device { name: "lapic", board: pc, plug: Plug::Nothing, windows: LAPIC.to_vec(), act: drivers::nothing });
    all.push(Device { name: "htif", board: virt, plug: Plug::Htif, windows: Vec::new(), act: drivers::htif });
    all
});

/// The target of this name, which `model` is the first to have.
fn target(name: &'static str, model: &Model) -> Device {
    let of_pc = model.bus.is_on(registry::Board::Pc) || model.fixed.iter().any(|at| at.board == registry::Board::Pc);
    let board = if of_pc { Board::Pc } else { Board::Virt };
    let driver = DRIVERS.iter().find(|(known, ..)| *known == name);
    let (plug, act) = driver.map_or((Plug::Rows(name), drivers::nothing as Act), |(_, plug, act)| (*plug, *act));
    Device { name, board, plug, windows: model.windows.to_vec(), act }
}

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
        let mut windows = self.windows.clone();
        if self.board == Board::Pc {
            let found = bench.pci_windows().into_iter();
            windows.extend(found.map(|(ports, base, size)| {
                let space = if ports { Space::Io } else { Space::Memory };
                Window { space, base, size, step: 1 }
            }));
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
        match (window.space == Space::Io, write) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_fuzzed_and_each_driver_has_a_row() {
        for model in models() {
            assert!(!model.fuzz.is_empty(), "{model:?}: nothing fuzzes it");
            assert!(model.fuzz.iter().all(|name| DEVICES.iter().any(|device| device.name == *name)));
        }
        for (name, ..) in DRIVERS {
            assert!(models().any(|model| model.fuzz.contains(name)), "{name}: no row has this target");
        }
        // What is neither registers nor a function of the PCI bus is not reached.
        for device in DEVICES.iter().filter(|device| device.windows.is_empty()) {
            assert!(device.board == Board::Pc || device.plug == Plug::Htif, "{}: nothing is done to it", device.name);
        }
    }
}
