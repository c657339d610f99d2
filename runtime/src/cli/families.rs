//! Options whose value is a name from a list with keys of its own: `-machine`, `-accel`, `-cpu`, `-device`, `-display`.

pub(super) use super::family::*;
use super::keyval::{Key, Kind};
use super::subjects::{self, Subject};

const fn key(name: &'static str, kind: Kind, help: &'static str) -> Key {
    Key { name, kind, help }
}

const fn key_later(name: &'static str) -> Key {
    Key { name, kind: Kind::NotYet, help: "" }
}

/// Accepted with any of these values, because none makes a difference here.
const fn among(name: &'static str, words: &'static [&'static str]) -> Key {
    Key { name, kind: Kind::Among(words), help: "" }
}

/// Accepted with any value, because it makes no difference here.
const fn accepted(name: &'static str) -> Key {
    Key { name, kind: Kind::Accepted, help: "" }
}

const fn key_lacks(name: &'static str, subject: &'static Subject) -> Key {
    Key { name, kind: Kind::Lacks(subject), help: "" }
}

const fn always(name: &'static str, word: &'static str) -> Key {
    Key { name, kind: Kind::Fixed(word), help: "" }
}

/// The keys of no machine.
const NO_MACHINE: &[Key] =
    &[key("accel", Kind::Text("an accelerator, see -accel help"), "the accelerator"), accepted("kernel-irqchip")];

/// The id of the guest's RAM as an object.
const MEMORY_BACKEND: Key = key("memory-backend", Kind::Text("the id of a -object"), "the guest's RAM");

/// `-machine`, `-M` of a PC.
pub(super) const MACHINE: Family = Family {
    option: "-machine",
    noun: "a machine",
    implied: "type",
    heading: "Supported machines are:",
    unlisted: None,
    common: &[],
    choices: &[
        yes(
            "pc",
            "PC with ISA devices, APICs and a PCI host bridge (default)",
            &[
                key("accel", Kind::Text("an accelerator, see -accel help"), "the accelerator"),
                key("acpi", Kind::Word(&["on", "off", "auto"]), "ACPI tables"),
                key(
                    "hpet",
                    Kind::Word(&["on", "off"]),
                    "a high precision event timer; default where there is firmware",
                ),
                accepted("bus-lock-ratelimit"),
                always("default-bus-bypass-iommu", "off"),
                always("enforce-config-section", "off"),
                key(
                    "firmware",
                    Kind::Text("on or off, or a file"),
                    "firmware runs before a kernel; default before one that needs it",
                ),
                accepted("fd-bootchk"),
                key(
                    "identity",
                    Kind::Word(&["mimus", "qemu"]),
                    "whose names disks, SMBIOS and CPUID tell, for guests that look for them",
                ),
                accepted("graphics"),
                always("hmat", "off"),
                always("i8042", "on"),
                always("igd-passthru", "off"),
                accepted("kernel-irqchip"),
                accepted("kernel_irqchip"),
                accepted("mem-merge"),
                always("nvdimm", "off"),
                always("pic", "on"),
                key("pit", Kind::Word(&["on", "off"]), ""),
                always("sata", "off"),
                always("smbus", "off"),
                among("smm", &["off", "auto"]),
                accepted("suppress-vmdesc"),
                always("usb", "off"),
                among("vmport", &["off", "auto"]),
                key_later("append"),
                key_later("boot"),
                key_lacks("confidential-guest-support", &subjects::CONFIDENTIAL),
                key_later("dt-compatible"),
                key_later("dtb"),
                key("dump-guest-core", Kind::Word(&["on", "off"]), "guest RAM is in core dumps, default off"),
                key_later("dumpdtb"),
                key_later("initrd"),
                key_later("kernel"),
                key_later("max-fw-size"),
                key_later("max-ram-below-4g"),
                key_later("memory"),
                MEMORY_BACKEND,
                key_lacks("memory-encryption", &subjects::CONFIDENTIAL),
                key_lacks("pcspk-audiodev", &subjects::SOUND),
                key_lacks("pflash0", &subjects::PFLASH),
                key_lacks("pflash1", &subjects::PFLASH),
                key_later("phandle-start"),
                key_lacks("sgx-epc", &subjects::CONFIDENTIAL),
                key(
                    "smbios-entry-point-type",
                    Kind::Word(&["32", "64", "auto"]),
                    "width of the SMBIOS entry point's address",
                ),
                key_later("smp"),
                key("x-oem-id", Kind::Text("up to 6 characters"), "who made the ACPI tables"),
                key("x-oem-table-id", Kind::Text("up to 8 characters"), "what the ACPI tables are called"),
            ],
        ),
        lacks("q35", &subjects::Q35),
        yes("none", "no machine, for programs that ask what there is", NO_MACHINE),
        alias("pc-i440fx-*", "pc"),
        alias("pc-0.*", "pc"),
        alias("pc-1.*", "pc"),
        lacks("pc-q35-*", &subjects::Q35),
        lacks("microvm", &subjects::MICROVM),
        lacks("isapc", &subjects::ISAPC),
        later("x-remote"),
        lacks("xenfv*", &subjects::XEN),
        lacks("xenpv", &subjects::XEN),
        Choice { name: "virt", help: "", offer: Offer::Instead("a machine of riscv64: use -arch riscv64") },
        later("virt*"),
        lacks("sifive_*", &subjects::BOARDS),
        lacks("spike", &subjects::BOARDS),
    ],
};

/// Keys of RISC-V machines.
const DTB: Key = key("dtb", Kind::Text("a file name"), "the device tree instead of the board's own, as -dtb");
const DUMP_DTB: Key = key("dumpdtb", Kind::Text("a file name"), "write the device tree there, and run nothing");

/// `-machine`, `-M` of RISC-V.
pub(super) const MACHINE_RISCV: Family = Family {
    option: "-machine",
    noun: "a machine",
    implied: "type",
    heading: "Supported machines are:",
    unlisted: None,
    common: &[],
    choices: &[
        yes(
            "virt",
            "RISC-V board with a PLIC, a 16550A and slots for virtio devices (default)",
            &[
                key("accel", Kind::Text("an accelerator, see -accel help"), "the accelerator"),
                always("aclint", "off"),
                always("acpi", "off"),
                always("aia", "none"),
                always("usb", "off"),
                accepted("aia-guests"),
                key_later("append"),
                key_later("boot"),
                DTB,
                key("dump-guest-core", Kind::Word(&["on", "off"]), "guest RAM is in core dumps, default off"),
                DUMP_DTB,
                key_later("firmware"),
                accepted("graphics"),
                key_later("initrd"),
                key_later("kernel"),
                accepted("mem-merge"),
                MEMORY_BACKEND,
                key_lacks("pflash0", &subjects::PFLASH),
                key_lacks("pflash1", &subjects::PFLASH),
                key_later("smp"),
            ],
        ),
        yes(
            "spike",
            "RISC-V board with timers and the host-target interface",
            &[
                key("accel", Kind::Text("an accelerator, see -accel help"), "the accelerator"),
                DTB,
                key("dump-guest-core", Kind::Word(&["on", "off"]), "guest RAM is in core dumps, default off"),
                DUMP_DTB,
                accepted("graphics"),
                accepted("mem-merge"),
            ],
        ),
        Choice { name: "pc", help: "", offer: Offer::Instead("a machine of x86_64: use -arch x86_64") },
        later("virt*"),
        lacks("sifive_*", &subjects::BOARDS),
        lacks("microchip-icicle-kit", &subjects::BOARDS),
        lacks("opentitan", &subjects::BOARDS),
        lacks("shakti_c", &subjects::BOARDS),
        yes("none", "no machine, for programs that ask what there is", NO_MACHINE),
    ],
};

/// Keys of all devices, and of those on the PCI bus.
const ID: Key = key("id", Kind::Text("a name"), "what monitors call it");
const ADDR: Key = key("addr", Kind::Text("SLOT, in hexadecimal"), "its place on the bus, default the first free one");
const BOOT_INDEX: Key =
    key("bootindex", Kind::Number(0, 0x7fff_ffff), "its place among what firmware boots, the lowest first");
/// Devices have no expansion ROM: an empty name, or no place for one, is what they have.
const ROM_FILE: Key = always("romfile", "");
const ROM_BAR: Key = among("rombar", &["0", "off"]);
const PCI_BUS: Key = key("bus", Kind::Word(&["pci.0"]), "the bus");

/// Which drivers a virtio device on the PCI bus is for.
const DISABLE_LEGACY: Key = key(
    "disable-legacy",
    Kind::Word(&["on", "off", "auto", "true", "false"]),
    "on: no interface from before the standard, default off",
);
const DISABLE_MODERN: Key =
    key("disable-modern", Kind::Word(&["on", "off", "true", "false"]), "on: nothing but that interface");

/// What the names of the buses begin with that are slots of a board with virtio-mmio.
pub(super) const SLOT_BUS: &str = "virtio-mmio-bus.";
const SLOT: Key = key(
    "bus",
    Kind::Word(&[
        "virtio-mmio-bus.0",
        "virtio-mmio-bus.1",
        "virtio-mmio-bus.2",
        "virtio-mmio-bus.3",
        "virtio-mmio-bus.4",
        "virtio-mmio-bus.5",
        "virtio-mmio-bus.6",
        "virtio-mmio-bus.7",
    ]),
    "its slot, default the last free one",
);

/// QEMU's generic loader.
const LOADER: Choice = yes(
    "loader",
    "a file or a word that is put into RAM, or where the vCPU starts",
    &[
        key("file", Kind::Text("a file name"), "an ELF file, which says where it belongs, or any other"),
        key("addr", Kind::Number(0, u64::MAX), "guest-physical address of what is put there"),
        key("cpu-num", Kind::Number(0, 0), "the vCPU that starts there"),
        key("force-raw", Kind::Word(&["on", "off", "true", "false"]), "put an ELF file there as it is"),
        key("data", Kind::Number(0, u64::MAX), "a word instead of a file"),
        key("data-len", Kind::Number(1, 8), "its bytes"),
        key("data-be", Kind::Word(&["on", "off", "true", "false"]), "the most significant one first"),
        ID,
    ],
);

/// Keys of a network adapter on the PCI bus.
const PCI_ADAPTER: &[Key] = &[
    key("mac", Kind::Text("six bytes, as in 52:54:00:12:34:56"), "hardware address"),
    key("netdev", Kind::Text("the id of a -netdev"), "what it is plugged into, default nothing"),
    ID,
    ADDR,
    PCI_BUS,
    BOOT_INDEX,
    ROM_FILE,
    ROM_BAR,
];
const VIRTIO_ADAPTER: &[Key] = &[
    key("mac", Kind::Text("six bytes, as in 52:54:00:12:34:56"), "hardware address"),
    key("netdev", Kind::Text("the id of a -netdev"), "what it is plugged into, default nothing"),
    ID,
    ADDR,
    PCI_BUS,
    BOOT_INDEX,
    ROM_FILE,
    ROM_BAR,
    DISABLE_LEGACY,
    DISABLE_MODERN,
    key_later("mq"),
    key_later("vectors"),
];

/// `-device` of a PC.
pub(super) const DEVICE: Family = Family {
    option: "-device",
    noun: "a device",
    implied: "driver",
    heading: "Supported devices are:",
    unlisted: None,
    common: DEVICES_LATER,
    choices: &[
        yes(
            "isa-debug-exit",
            "a port that ends the run with exit code (value << 1) | 1",
            &[
                key("iobase", Kind::Number(0, 0xffff), "first I/O port, default 0x501"),
                key("iosize", Kind::Number(1, 4), "number of ports, default 2"),
                ID,
            ],
        ),
        yes(
            "isa-debugcon",
            "a port that sends what is written to it",
            &[
                key("chardev", Kind::Text("the id of a -chardev"), "where it sends to"),
                key("iobase", Kind::Number(0, 0xffff), "I/O port, default 0xe9"),
                key("readback", Kind::Number(0, 0xff), "what the port reads as, default 0xe9"),
                ID,
            ],
        ),
        yes(
            "isa-serial",
            "a serial port",
            &[
                key("chardev", Kind::Text("the id of a -chardev"), "what it is connected to"),
                key("index", Kind::Number(0, 3), "which of the four usual places, default the first free one"),
                key("iobase", Kind::Number(0, 0xffff), "first I/O port"),
                key("irq", Kind::Number(0, 15), "interrupt line"),
                ID,
            ],
        ),
        yes("pc-testdev", "ports, memory and interrupt lines for tests of kernels", &[ID]),
        yes("pci-testdev", "a PCI function for tests of single accesses", &[ID, ADDR, PCI_BUS, key_later("membar")]),
        yes("e1000", "a network adapter, Intel 82540EM", PCI_ADAPTER),
        yes("virtio-net-pci", "a network adapter, virtio", VIRTIO_ADAPTER),
        alias("virtio-net", "virtio-net-pci"),
        alias("e1000-82540em", "e1000"),
        yes("ide-hd", "an IDE disk", IDE_KEYS),
        yes("ide-cd", "an IDE CD-ROM drive", IDE_KEYS),
        yes("virtio-blk-pci", "a disk", PCI_BLOCK_KEYS),
        alias("virtio-blk", "virtio-blk-pci"),
        yes("virtio-serial-pci", "a virtio console's controller; see virtconsole", PCI_SERIAL_KEYS),
        alias("virtio-serial", "virtio-serial-pci"),
        yes("virtconsole", "a console at a virtio-serial device before it", CONSOLE_KEYS),
        yes("virtserialport", "a port with a name at a virtio-serial device before it", CONSOLE_KEYS),
        yes(
            "virtio-rng-pci",
            "a source of random numbers",
            &[ID, ADDR, PCI_BUS, DISABLE_LEGACY, DISABLE_MODERN, RNG, MAX_BYTES, PERIOD],
        ),
        alias("virtio-rng", "virtio-rng-pci"),
        yes(
            "virtio-9p-pci",
            "a folder of the host's",
            &[FSDEV, MOUNT_TAG, ID, ADDR, PCI_BUS, DISABLE_LEGACY, DISABLE_MODERN, key_later("vectors")],
        ),
        alias("virtio-9p", "virtio-9p-pci"),
        yes("VGA", "the display adapter; -vga std", VGA_KEYS),
        LOADER,
    ],
};

/// `-device` of a RISC-V machine.
pub(super) const DEVICE_RISCV: Family = Family {
    option: "-device",
    noun: "a device",
    implied: "driver",
    heading: "Supported devices are:",
    unlisted: None,
    common: DEVICES_LATER,
    choices: &[
        yes("virtio-blk-device", "a disk", BLOCK_KEYS),
        alias("virtio-blk", "virtio-blk-device"),
        yes("virtio-serial-device", "a virtio console's controller; see virtconsole", SERIAL_KEYS),
        alias("virtio-serial", "virtio-serial-device"),
        yes("virtconsole", "a console at a virtio-serial device before it", CONSOLE_KEYS),
        yes("virtserialport", "a port with a name at a virtio-serial device before it", CONSOLE_KEYS),
        yes("virtio-rng-device", "a source of random numbers", &[ID, SLOT, RNG, MAX_BYTES, PERIOD]),
        alias("virtio-rng", "virtio-rng-device"),
        yes("virtio-9p-device", "a folder of the host's", &[FSDEV, MOUNT_TAG, ID, SLOT]),
        alias("virtio-9p", "virtio-9p-device"),
        alias("virtio-net", "virtio-net-device"),
        lacks("virtio-*-pci", &subjects::PCI),
        lacks("e1000", &subjects::PCI),
        yes(
            "virtio-net-device",
            "a network adapter",
            &[
                key("mac", Kind::Text("six bytes, as in 52:54:00:12:34:56"), "hardware address"),
                key("netdev", Kind::Text("the id of a -netdev"), "what it is plugged into, default nothing"),
                ID,
                SLOT,
            ],
        ),
        LOADER,
    ],
};

/// The keys of a shared folder.
const FSDEV: Key = key("fsdev", Kind::Text("the id of a -fsdev"), "the folder");
const MOUNT_TAG: Key = key("mount_tag", Kind::Text("up to 32 bytes"), "what the guest mounts it by");

/// The keys of a source of random numbers.
const RNG: Key = key("rng", Kind::Text("the id of a -object"), "where they come from, which is the host in any case");
const MAX_BYTES: Key = key("max-bytes", Kind::Number(0, u64::MAX), "");
const PERIOD: Key = key("period", Kind::Number(0, u64::MAX), "");

/// The keys of the display adapter.
const VGA_KEYS: &[Key] = &[
    ID,
    key("vgamem_mb", Kind::Number(1, 256), "MiB of display memory, a power of two"),
    key("edid", Kind::Word(&["on", "off"]), "whether the monitor tells of itself"),
    key("xres", Kind::Number(64, 2560), "its width"),
    key("yres", Kind::Number(64, 1600), "its height"),
    PCI_BUS,
    ROM_FILE,
    ROM_BAR,
    accepted("addr"),
];

/// The keys of virtio disks.
const PCI_BLOCK_KEYS: &[Key] = &[
    key("drive", Kind::Text("the id of a -drive with if=none"), "the disk's image"),
    key("serial", Kind::Text("up to 20 characters"), "serial number"),
    ID,
    ADDR,
    PCI_BUS,
    DISABLE_LEGACY,
    DISABLE_MODERN,
    BOOT_INDEX,
    ROM_FILE,
    ROM_BAR,
    key_later("num-queues"),
    key_later("queue-size"),
];
const BLOCK_KEYS: &[Key] = &[
    key("drive", Kind::Text("the id of a -drive with if=none"), "the disk's image"),
    key("serial", Kind::Text("up to 20 characters"), "serial number"),
    ID,
    SLOT,
    key_later("bootindex"),
    key_later("num-queues"),
    key_later("queue-size"),
];

/// The keys of virtio consoles' controllers, and of consoles.
const SERIAL_ID: Key = key("id", Kind::Text("a name"), "what a console's bus= calls it, with .0");
const PCI_SERIAL_KEYS: &[Key] = &[SERIAL_ID, ADDR, PCI_BUS, DISABLE_LEGACY, DISABLE_MODERN, key_later("max_ports")];
const SERIAL_KEYS: &[Key] = &[SERIAL_ID, SLOT, key_later("max_ports")];
const CONSOLE_KEYS: &[Key] = &[
    key("chardev", Kind::Text("the id of a -chardev"), "what it is connected to"),
    ID,
    key("name", Kind::Text("a name"), "what the guest finds it by"),
    key("bus", Kind::Text("the id of a virtio-serial device, with .0"), "default the first"),
    key("nr", Kind::Number(0, 30), "its number there, default the first free one; 0 is for a virtconsole"),
];

/// The keys of IDE drives.
const IDE_KEYS: &[Key] = &[
    key("drive", Kind::Text("the id of a -drive with if=none"), "the image"),
    key("bus", Kind::Word(&["ide.0", "ide.1"]), "the cable, default the first with a free place"),
    key("unit", Kind::Number(0, 1), "the place on it, default the first free one"),
    key("serial", Kind::Text("up to 20 characters"), "serial number"),
    ID,
    BOOT_INDEX,
    key_later("model"),
    key_later("wwn"),
    key_later("ver"),
];

/// Devices of QEMU that mimus does not have, or not on this architecture.
pub(super) const DEVICES_LATER: &[Choice] = &[
    lacks("virtio-scsi*", &subjects::VIRTIO_SCSI),
    lacks("virtio-balloon*", &subjects::VIRTIO_BALLOON),
    lacks("virtio-keyboard*", &subjects::VIRTIO_INPUT),
    lacks("virtio-mouse*", &subjects::VIRTIO_INPUT),
    lacks("virtio-tablet*", &subjects::VIRTIO_INPUT),
    lacks("virtio-input*", &subjects::VIRTIO_INPUT),
    lacks("virtio-multitouch*", &subjects::VIRTIO_INPUT),
    lacks("virtio-gpu*", &subjects::VIRTIO_GPU),
    lacks("virtio-vga*", &subjects::VIRTIO_GPU),
    lacks("virtio-iommu*", &subjects::IOMMU),
    lacks("virtio-mem*", &subjects::HOTPLUG),
    lacks("virtio-pmem*", &subjects::HOTPLUG),
    lacks("virtio-*-device", &subjects::MMIO),
    later("virtio-*"),
    lacks("vhost-vsock*", &subjects::VSOCK),
    lacks("vhost-user-fs*", &subjects::VIRTIOFS),
    lacks("vhost-scsi*", &subjects::VIRTIO_SCSI),
    lacks("vhost-*", &subjects::VHOST),
    lacks("e1000*", &subjects::E1000E),
    lacks("rtl8139", &subjects::RTL8139),
    lacks("ne2k_*", &subjects::NE2K),
    lacks("pcnet", &subjects::PCNET),
    lacks("vmxnet3", &subjects::VMXNET3),
    lacks("i8255*", &subjects::I8255X),
    lacks("igb", &subjects::IGB),
    later("ide-*"),
    lacks("scsi-*", &subjects::SCSI),
    lacks("nvme*", &subjects::NVME),
    lacks("ahci", &subjects::AHCI),
    lacks("ich9-ahci", &subjects::AHCI),
    lacks("ich9-usb-*", &subjects::USB),
    lacks("ich9-intel-hda", &subjects::SOUND),
    later("ich9-*"),
    lacks("lsi53c*", &subjects::SCSI),
    lacks("megasas*", &subjects::SCSI),
    lacks("mptsas1068", &subjects::SCSI),
    lacks("pvscsi", &subjects::SCSI),
    lacks("am53c974", &subjects::SCSI),
    lacks("piix*-usb-uhci", &subjects::USB),
    later("piix*"),
    lacks("sd-card", &subjects::SD),
    lacks("sdhci-pci", &subjects::SD),
    lacks("floppy", &subjects::FLOPPY),
    lacks("isa-fdc", &subjects::FLOPPY),
    later("isa-*"),
    lacks("pci-bridge", &subjects::PCIE),
    lacks("pci-ohci", &subjects::USB),
    later("pci-*"),
    lacks("pcie-*", &subjects::PCIE),
    lacks("pxb*", &subjects::PCIE),
    lacks("ioh3420", &subjects::PCIE),
    lacks("i82801b11-bridge", &subjects::PCIE),
    lacks("qemu-xhci", &subjects::USB),
    lacks("nec-usb-xhci", &subjects::USB),
    lacks("usb-*", &subjects::USB),
    lacks("cirrus-vga", &subjects::CIRRUS),
    lacks("vmware-svga", &subjects::VMWARE_VGA),
    lacks("qxl*", &subjects::QXL),
    later("bochs-display"),
    lacks("ramfb", &subjects::RAMFB),
    later("secondary-vga"),
    lacks("intel-hda", &subjects::SOUND),
    lacks("hda-*", &subjects::SOUND),
    lacks("AC97", &subjects::SOUND),
    lacks("ES1370", &subjects::SOUND),
    lacks("sb16", &subjects::SOUND),
    lacks("adlib", &subjects::SOUND),
    lacks("gus", &subjects::SOUND),
    lacks("cs4231a", &subjects::SOUND),
    later("edu"),
    lacks("pvpanic*", &subjects::PVPANIC),
    later("ivshmem-*"),
    lacks("i6300esb", &subjects::WATCHDOG),
    lacks("ib700", &subjects::WATCHDOG),
    lacks("intel-iommu", &subjects::IOMMU),
    lacks("amd-iommu", &subjects::IOMMU),
    lacks("tpm-*", &subjects::TPM),
    lacks("vfio-*", &subjects::VFIO),
    later("vmcoreinfo"),
    later("vmgenid"),
    later("guest-loader"),
    lacks("pc-dimm", &subjects::HOTPLUG),
    lacks("nvdimm", &subjects::HOTPLUG),
    later("ipmi-*"),
    later("smbus-eeprom"),
    lacks("u2f-*", &subjects::USB),
    lacks("ccid-card-*", &subjects::USB),
    later("*-x86_64-cpu"),
    lacks("AMDVI-PCI", &subjects::IOMMU),
    later("acpi-erst"),
    later("ati-vga"),
    later("ctucan_pci"),
    lacks("cxl-*", &subjects::PCIE),
    lacks("dc390", &subjects::SCSI),
    later("hv-syndbg"),
    later("hyperv-testdev"),
    later("i2c-ddc"),
    later("i8042"),
    lacks("i82562", &subjects::I8255X),
    lacks("i82801", &subjects::I8255X),
    later("ipoctal232"),
    later("kvaser_pci"),
    later("mc146818rtc"),
    later("mioe3680_pci"),
    later("pcm3680_pci"),
    later("pvrdma"),
    later("rocker"),
    later("sga"),
    later("smbus-ipmi"),
    later("tpci200"),
    later("tulip"),
    later("vmbus-bridge"),
    later("vmmouse"),
    later("x-pci-proxy-dev"),
    lacks("x3130-upstream", &subjects::PCIE),
    lacks("xio3130-downstream", &subjects::PCIE),
];

/// `-display`.
pub(super) const DISPLAY: Family = Family {
    option: "-display",
    noun: "a display",
    implied: "type",
    heading: "Available display backend types:",
    unlisted: None,
    common: &[],
    choices: &[
        yes("none", "no display", &[]),
        yes("curses", "the screen's text in this terminal", &[key_later("charset")]),
        lacks("gtk", &subjects::WINDOWS),
        lacks("sdl", &subjects::WINDOWS),
        Choice { name: "vnc", help: "", offer: Offer::Instead("use -display vnc=HOST:N or -vnc HOST:N") },
        lacks("cocoa", &subjects::WINDOWS),
        later("dbus"),
        lacks("egl-headless", &subjects::WINDOWS),
        lacks("spice-app", &subjects::SPICE),
    ],
};

/// `-vga`.
pub(super) const VGA: Family = Family {
    option: "-vga",
    noun: "a display adapter",
    implied: "type",
    heading: "Supported display adapters:",
    unlisted: None,
    common: &[],
    choices: &[
        yes("std", "VGA with the Bochs VBE extensions (default)", &[]),
        yes("none", "no display adapter", &[]),
        lacks("cirrus", &subjects::CIRRUS),
        lacks("vmware", &subjects::VMWARE_VGA),
        lacks("qxl", &subjects::QXL),
        lacks("virtio", &subjects::VIRTIO_GPU),
        later("xenfb"),
        later("tcx"),
        later("cg3"),
    ],
};
