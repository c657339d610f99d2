//! Devices that boards have from the beginning, in the order in which monitors list them.

use super::{Board, Bus, Fixed, Model, Window, memory, ports};
use crate::pci::DevFn;

/// The bus that all begins with.
const ROOT: &str = "main-system-bus";

const fn pc(bus: &'static str, fact: &'static str) -> Fixed {
    Fixed { board: Board::Pc, bus, devfn: None, fact, optional: false }
}

const fn pc_function(devfn: DevFn) -> Fixed {
    Fixed { board: Board::Pc, bus: "pci.0", devfn: Some(devfn), fact: "", optional: false }
}

const fn virt(fact: &'static str) -> Fixed {
    Fixed { board: Board::Virt, bus: ROOT, devfn: None, fact, optional: false }
}

const fn spike(fact: &'static str) -> Fixed {
    Fixed { board: Board::Spike, bus: ROOT, devfn: None, fact, optional: false }
}

/// A device of boards, the fuzz targets of it, and its registers.
const fn row(
    bus: Bus,
    name: &'static str,
    fixed: &'static [Fixed],
    fuzz: &'static [&'static str],
    windows: &'static [Window],
) -> Model {
    Model { fixed, fuzz, windows, ..Model::on(bus, name) }
}

/// Where the core local interruptor's parts are.
const SWI: &str = "mmio 0000000002000000/0000000000004000";
const MTIMER: &str = "mmio 0000000002004000/0000000000008000";

/// A high precision event timer, which is there where there is firmware or the command line says so.
pub const HPET: &Model = &row(
    Bus::System,
    "hpet",
    &[Fixed { optional: true, ..pc(ROOT, "mmio 00000000fed00000/0000000000000400") }],
    &["hpet"],
    &[memory(0xfed0_0000, 0x400, 8)],
);

pub(super) const ROWS: &[&Model] = &[
    HPET,
    &row(
        Bus::System,
        "ioapic",
        &[pc(ROOT, "mmio 00000000fec00000/0000000000001000")],
        &["ioapic"],
        &[memory(0xfec0_0000, 0x14, 4)],
    ),
    &row(Bus::System, "fw_cfg_io", &[pc(ROOT, "iobase = 1296 (0x510)")], &["fw-cfg"], &[ports(0x510, 12)]),
    &Model { buses: &[("pci.0", "PCI")], ..row(Bus::System, "i440FX-pcihost", &[pc(ROOT, "")], &["pci"], &[]) },
    &row(Bus::Pci, "i440FX", &[pc_function(0)], &["pci"], &[ports(0xcf8, 8)]),
    &Model { buses: &[("isa.0", "ISA")], ..row(Bus::Pci, "PIIX3", &[pc_function(1 << 3)], &["pci"], &[]) },
    &Model {
        buses: &[("ide.0", "IDE"), ("ide.1", "IDE")],
        ..row(
            Bus::Pci,
            "piix3-ide",
            &[pc_function(1 << 3 | 1)],
            &["ide"],
            &[ports(0x1f0, 8), ports(0x170, 8), ports(0x3f6, 1), ports(0x376, 1)],
        )
    },
    &row(
        Bus::Pci,
        "PIIX4_PM",
        &[pc_function(1 << 3 | 3)],
        &["acpi-pm"],
        &[ports(0xb2, 2), ports(0x600, 64), ports(0xafe0, 4), ports(0xcf8, 8)],
    ),
    &row(
        Bus::Isa,
        "isa-i8259",
        &[pc("isa.0", "iobase = 32 (0x20)"), pc("isa.0", "iobase = 160 (0xa0)")],
        &["pic"],
        &[ports(0x20, 2), ports(0xa0, 2), ports(0x4d0, 2)],
    ),
    &row(
        Bus::Isa,
        "i8257",
        &[pc("isa.0", "iobase = 0 (0x0)"), pc("isa.0", "iobase = 192 (0xc0)")],
        &["dma"],
        &[ports(0, 16), ports(0x80, 16), ports(0xc0, 32)],
    ),
    &row(Bus::Isa, "isa-pit", &[pc("isa.0", "iobase = 64 (0x40)")], &["pit"], &[ports(0x40, 4), ports(0x61, 1)]),
    &row(Bus::Isa, "mc146818rtc", &[pc("isa.0", "isa irq 8")], &["rtc"], &[ports(0x70, 2)]),
    &row(Bus::Isa, "i8042", &[pc("isa.0", "isa irqs 1,12")], &["i8042"], &[ports(0x60, 1), ports(0x64, 1)]),
    &row(Bus::Isa, "port92", &[pc("isa.0", "")], &["i8042"], &[ports(0x92, 1)]),
    &row(
        Bus::System,
        "riscv.sifive.test",
        &[virt("mmio 0000000000100000/0000000000001000")],
        &["test-finisher"],
        &[memory(0x10_0000, 8, 4)],
    ),
    &row(
        Bus::System,
        "goldfish_rtc",
        &[virt("mmio 0000000000101000/0000000000001000")],
        &["goldfish-rtc"],
        &[memory(0x10_1000, 0x24, 4)],
    ),
    &row(Bus::System, "riscv.aclint.swi", &[virt(SWI), spike(SWI)], &["clint"], &[memory(0x200_0000, 16, 4)]),
    &row(
        Bus::System,
        "riscv.aclint.mtimer",
        &[virt(MTIMER), spike(MTIMER)],
        &["clint"],
        &[memory(0x200_4000, 32, 4), memory(0x200_bff8, 8, 4)],
    ),
    &row(
        Bus::System,
        "riscv.sifive.plic",
        &[virt("mmio 000000000c000000/0000000000600000")],
        &["plic", "plic-contexts"],
        &[
            memory(0xc00_0000, 0x200, 4),
            memory(0xc00_1000, 0x20, 4),
            memory(0xc00_2000, 0x300, 4),
            memory(0xc20_0000, 0x4010, 4),
        ],
    ),
    &row(
        Bus::System,
        "serial-mm",
        &[virt("mmio 0000000010000000/0000000000000100")],
        &["uart-riscv"],
        &[memory(0x1000_0000, 8, 1)],
    ),
];
