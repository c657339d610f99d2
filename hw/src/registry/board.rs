//! Rows of the registry: devices that boards have from the beginning, in the order in which monitors list them.

use super::property::{Default, accepted, among, fixed, number, properties, without, word};
use super::{Board, Bus, Fixed, Location, Model, Property, Window, memory, ports, range};
use crate::pc::fixed_ports;
use crate::pci::DevFn;
use crate::virt::{CLINT, PLIC, RTC, Region, TEST, UART};
use crate::{acpi_pm, clint, hpet, ide, ioapic, plic};

/// The bus that all begins with.
const ROOT: &str = "main-system-bus";

const fn pc(bus: &'static str, location: Location) -> Fixed {
    Fixed { board: Board::Pc, bus, devfn: None, location, optional: false }
}

const fn isa(location: Location) -> Fixed {
    pc("isa.0", location)
}

const fn pc_function(devfn: DevFn) -> Fixed {
    Fixed { board: Board::Pc, bus: "pci.0", devfn: Some(devfn), location: Location::Nowhere, optional: false }
}

const fn virt(location: Location) -> Fixed {
    Fixed { board: Board::Virt, bus: ROOT, devfn: None, location, optional: false }
}

const fn spike(location: Location) -> Fixed {
    Fixed { board: Board::Spike, bus: ROOT, devfn: None, location, optional: false }
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
const SWI: Location = Location::Memory(CLINT.base, clint::MTIMECMP);
const MTIMER: Location = Location::Memory(CLINT.base + clint::MTIMECMP, MTIMER_SIZE);
/// As QEMU tells it; the rest of the interruptor's registers are nothing.
const MTIMER_SIZE: u64 = 0x8000;

/// Where a board of RISC-V has a device.
const fn region(region: Region) -> Fixed {
    virt(Location::Memory(region.base, region.size))
}

/// Power management.
pub const POWER: &Model = &Model {
    properties: properties!(FUNCTION, POWER_PROPERTIES),
    ..row(
        Bus::Pci,
        "PIIX4_PM",
        &[pc_function(1 << 3 | 3)],
        &["acpi-pm"],
        &[
            range(fixed_ports::SMI),
            ports(acpi_pm::PM_BASE as u64, acpi_pm::PM_LENGTH as u64),
            range(fixed_ports::GPE0),
            range(fixed_ports::PCI),
        ],
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
    ..row(Bus::System, "virtio-mmio", &[Fixed { optional: true, ..virt(Location::Nowhere) }], &["virtio-blk-mmio"], &[])
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
        &[Fixed { optional: true, ..pc(ROOT, Location::Memory(hpet::BASE, hpet::LENGTH)) }],
        &["hpet"],
        &[memory(hpet::BASE, hpet::LENGTH, 8)],
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
            &[pc(ROOT, Location::Memory(ioapic::BASE, 0x1000))],
            &["ioapic"],
            &[memory(ioapic::BASE, 0x14, 4)],
        )
    },
    &Model {
        properties: &[accepted("acpi-mr-restore"), fixed("dma_enabled", "on"), accepted("x-file-slots")],
        ..row(
            Bus::System,
            "fw_cfg_io",
            &[pc(ROOT, Location::Ports(fixed_ports::FW_CFG.0))],
            &["fw-cfg"],
            &[range(fixed_ports::FW_CFG)],
        )
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
        ..row(Bus::System, "i440FX-pcihost", &[pc(ROOT, Location::Nowhere)], &["pci"], &[])
    },
    &Model { properties: FUNCTION, ..row(Bus::Pci, "i440FX", &[pc_function(0)], &["pci"], &[range(fixed_ports::PCI)]) },
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
            &[
                ports(ide::COMMAND_PORTS[0] as u64, 8),
                ports(ide::COMMAND_PORTS[1] as u64, 8),
                ports(ide::CONTROL_PORTS[0] as u64, 1),
                ports(ide::CONTROL_PORTS[1] as u64, 1),
            ],
        )
    },
    POWER,
    &row(
        Bus::Isa,
        "isa-i8259",
        &[isa(Location::Ports(fixed_ports::PIC[0].0)), isa(Location::Ports(fixed_ports::PIC[1].0))],
        &["pic"],
        &[range(fixed_ports::PIC[0]), range(fixed_ports::PIC[1]), range(fixed_ports::PIC[2])],
    ),
    &row(
        Bus::Isa,
        "i8257",
        &[isa(Location::Ports(fixed_ports::DMA[0].0)), isa(Location::Ports(fixed_ports::DMA[2].0))],
        &["dma"],
        &[range(fixed_ports::DMA[0]), range(fixed_ports::DMA[1]), range(fixed_ports::DMA[2])],
    ),
    // Its other name is that of the host's kernel's; ticks that come late are never lost.
    &Model {
        aliases: &["kvm-pit"],
        properties: &[among("lost_tick_policy", &["delay", "discard"])],
        ..row(
            Bus::Isa,
            "isa-pit",
            &[isa(Location::Ports(fixed_ports::PIT.0))],
            &["pit"],
            &[range(fixed_ports::PIT), range(fixed_ports::PORT_B)],
        )
    },
    &Model {
        properties: &[
            without("base_year", "its years are those of the calendar"),
            among("lost_tick_policy", &["delay", "discard", "slew"]),
        ],
        ..row(Bus::Isa, "mc146818rtc", &[isa(Location::Irqs(&[8]))], &["rtc"], &[range(fixed_ports::RTC)])
    },
    &Model {
        properties: &[accepted("extended-state"), accepted("kbd-throttle")],
        ..row(
            Bus::Isa,
            "i8042",
            &[isa(Location::Irqs(&[1, 12]))],
            &["i8042"],
            &[range(fixed_ports::KEYBOARD_DATA), range(fixed_ports::KEYBOARD_COMMAND)],
        )
    },
    &row(Bus::Isa, "port92", &[isa(Location::Nowhere)], &["i8042"], &[range(fixed_ports::PORT_92)]),
    &row(Bus::System, "riscv.sifive.test", &[region(TEST)], &["test-finisher"], &[memory(TEST.base, 8, 4)]),
    &row(Bus::System, "goldfish_rtc", &[region(RTC)], &["goldfish-rtc"], &[memory(RTC.base, 0x24, 4)]),
    &row(Bus::System, "riscv.aclint.swi", &[virt(SWI), spike(SWI)], &["clint"], &[memory(CLINT.base, 16, 4)]),
    &row(
        Bus::System,
        "riscv.aclint.mtimer",
        &[virt(MTIMER), spike(MTIMER)],
        &["clint"],
        &[memory(CLINT.base + clint::MTIMECMP, 32, 4), memory(CLINT.base + clint::MTIME, 8, 4)],
    ),
    &row(
        Bus::System,
        "riscv.sifive.plic",
        &[region(PLIC)],
        &["plic", "plic-contexts"],
        &[
            memory(PLIC.base, 0x200, 4),
            memory(PLIC.base + plic::PENDING, 0x20, 4),
            memory(PLIC.base + plic::ENABLE, 0x300, 4),
            memory(PLIC.base + plic::CONTEXT, 0x4010, 4),
        ],
    ),
    &row(Bus::System, "serial-mm", &[region(UART)], &["uart-riscv"], &[memory(UART.base, 8, 1)]),
];
