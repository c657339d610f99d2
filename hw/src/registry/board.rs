//! Rows of the registry: devices that boards have from the beginning, in the order in which monitors list them.

use super::property::{Default, accepted, among, fixed, number, properties, without, word};
use super::{Board, Bus, Fixed, Model, Property, Window, memory, ports};
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

/// What each function has. Where they are, firmware knows.
const FUNCTION: &[Property] = &[
    without("acpi-index", "the guest finds no such number"),
    accepted("command_serr_enable"),
    accepted("multifunction"),
    among("rombar", &["0", "1", "off", "on"]),
    fixed("romfile", ""),
    accepted("romsize"),
    accepted("x-pcie-extcap-init"),
    accepted("x-pcie-lnksta-dllla"),
];

const SWITCH: &[&str] = &["0", "1", "off", "on"];

/// Power management. What QEMU's other properties say of it, guests are not told.
const POWER_PROPERTIES: &[Property] = &[
    word("disable_s3", SWITCH, "on: a guest cannot sleep with its state in RAM").or(Default::Word("0")),
    word("disable_s4", SWITCH, "on: it cannot sleep with its state on a disk").or(Default::Word("0")),
    accepted("acpi-pci-hotplug-with-bridge-support"),
    accepted("acpi-root-pci-hotplug"),
    accepted("memory-hotplug-support"),
    without("s4_val", "what a guest writes to sleep with its state on a disk is 2"),
    accepted("smb_io_base"),
    accepted("smm-compat"),
    without("smm-enabled", "there is no system management mode"),
    accepted("x-not-migrate-acpi-index"),
];

/// Where the core local interruptor's parts are.
const SWI: &str = "mmio 0000000002000000/0000000000004000";
const MTIMER: &str = "mmio 0000000002004000/0000000000008000";

/// Power management.
pub const POWER: &Model = &Model {
    properties: properties!(FUNCTION, POWER_PROPERTIES),
    ..row(
        Bus::Pci,
        "PIIX4_PM",
        &[pc_function(1 << 3 | 3)],
        &["acpi-pm"],
        &[ports(0xb2, 2), ports(0x600, 64), ports(0xafe0, 4), ports(0xcf8, 8)],
    )
};

/// The slots of virtio devices, which monitors tell of where there is something in one.
pub const SLOTS: &Model = &Model {
    properties: &[
        word("force-legacy", &["on", "off"], "off: drivers of the standard's version find the devices")
            .or(Default::Word("on")),
        accepted("ioeventfd"),
        accepted("format_transport_address"),
    ],
    ..row(Bus::System, "virtio-mmio", &[Fixed { optional: true, ..virt("") }], &["virtio-blk-mmio"], &[])
};

/// A high precision event timer, which is there where there is firmware or the command line says so.
pub const HPET: &Model = &Model {
    properties: &[
        accepted("hpet-intcap"),
        accepted("hpet-offset-saved"),
        fixed("msi", "off"),
        number("timers", 3, 3, "how many timers it has").or(Default::Number(3)),
    ],
    ..row(
        Bus::System,
        "hpet",
        &[Fixed { optional: true, ..pc(ROOT, "mmio 00000000fed00000/0000000000000400") }],
        &["hpet"],
        &[memory(0xfed0_0000, 0x400, 8)],
    )
};

pub(super) const ROWS: &[&Model] = &[
    HPET,
    SLOTS,
    &Model {
        properties: &[without("version", "its version is 0x20")],
        ..row(
            Bus::System,
            "ioapic",
            &[pc(ROOT, "mmio 00000000fec00000/0000000000001000")],
            &["ioapic"],
            &[memory(0xfec0_0000, 0x14, 4)],
        )
    },
    &Model {
        properties: &[accepted("acpi-mr-restore"), fixed("dma_enabled", "on"), accepted("x-file-slots")],
        ..row(Bus::System, "fw_cfg_io", &[pc(ROOT, "iobase = 1296 (0x510)")], &["fw-cfg"], &[ports(0x510, 12)])
    },
    &Model {
        buses: &[("pci.0", "PCI")],
        properties: &[
            accepted("bypass-iommu"),
            without("pci-hole64-size", "functions have their memory below 4 GiB"),
            accepted("short_root_bus"),
            accepted("x-config-reg-migration-enabled"),
            accepted("x-pci-hole64-fix"),
        ],
        ..row(Bus::System, "i440FX-pcihost", &[pc(ROOT, "")], &["pci"], &[])
    },
    &Model { properties: FUNCTION, ..row(Bus::Pci, "i440FX", &[pc_function(0)], &["pci"], &[ports(0xcf8, 8)]) },
    &Model {
        buses: &[("isa.0", "ISA")],
        properties: FUNCTION,
        ..row(Bus::Pci, "PIIX3", &[pc_function(1 << 3)], &["pci"], &[])
    },
    &Model {
        buses: &[("ide.0", "IDE"), ("ide.1", "IDE")],
        properties: FUNCTION,
        ..row(
            Bus::Pci,
            "piix3-ide",
            &[pc_function(1 << 3 | 1)],
            &["ide"],
            &[ports(0x1f0, 8), ports(0x170, 8), ports(0x3f6, 1), ports(0x376, 1)],
        )
    },
    POWER,
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
    // Its other name is that of the host's kernel's; ticks that come late are never lost.
    &Model {
        aliases: &["kvm-pit"],
        properties: &[among("lost_tick_policy", &["delay", "discard"])],
        ..row(Bus::Isa, "isa-pit", &[pc("isa.0", "iobase = 64 (0x40)")], &["pit"], &[ports(0x40, 4), ports(0x61, 1)])
    },
    &Model {
        properties: &[
            without("base_year", "its years are those of the calendar"),
            among("lost_tick_policy", &["delay", "discard", "slew"]),
        ],
        ..row(Bus::Isa, "mc146818rtc", &[pc("isa.0", "isa irq 8")], &["rtc"], &[ports(0x70, 2)])
    },
    &Model {
        properties: &[accepted("extended-state"), accepted("kbd-throttle")],
        ..row(Bus::Isa, "i8042", &[pc("isa.0", "isa irqs 1,12")], &["i8042"], &[ports(0x60, 1), ports(0x64, 1)])
    },
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
