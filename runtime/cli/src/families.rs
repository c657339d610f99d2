//! Options whose value is a name from a list with keys of its own: `-machine`, `-accel`, `-cpu`, `-device`, `-display`.

use mimus_hw::registry::{self, Board, MODELS};

pub(super) use super::family::*;
use super::keyval::{Key, Kind, accepted, fixed, key, key_lacks, key_later, without};
use super::subjects;

/// What the names of the buses begin with that are slots of a board with virtio-mmio.
pub(super) const SLOT_BUS: &str = "virtio-mmio-bus.";

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
                fixed("default-bus-bypass-iommu", "off"),
                fixed("enforce-config-section", "off"),
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
                fixed("hmat", "off"),
                fixed("i8042", "on"),
                fixed("igd-passthru", "off"),
                accepted("kernel-irqchip"),
                accepted("kernel_irqchip"),
                accepted("mem-merge"),
                fixed("nvdimm", "off"),
                fixed("pic", "on"),
                key("pit", Kind::Word(&["on", "off"]), ""),
                fixed("sata", "off"),
                fixed("smbus", "off"),
                without("smm", "there is no system management mode"),
                accepted("suppress-vmdesc"),
                fixed("usb", "off"),
                without("vmport", "there are none of VMware's ports"),
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
                without("max-ram-below-4g", "RAM below 4 GiB ends at 3 GiB"),
                key_later("memory"),
                MEMORY_BACKEND,
                key_lacks("memory-encryption", &subjects::CONFIDENTIAL),
                // Its -audiodev is none, and so is what is heard.
                accepted("pcspk-audiodev"),
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
    common: &[],
    choices: &[
        yes(
            "virt",
            "RISC-V board with a PLIC, a 16550A and slots for virtio devices (default)",
            &[
                key("accel", Kind::Text("an accelerator, see -accel help"), "the accelerator"),
                fixed("aclint", "off"),
                fixed("acpi", "off"),
                fixed("aia", "none"),
                fixed("usb", "off"),
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
        Key::of(&registry::ID),
    ],
);

/// What the registry of devices does not have: what is no device, and what a RISC-V machine has no bus for.
const PC_MORE: &[Choice] = &[LOADER];
const VIRT_MORE: &[Choice] = &[lacks("virtio-*-pci", &subjects::PCI), lacks("e1000", &subjects::PCI), LOADER];

/// How many names the devices have that are offered for `board`, and how many `more` has.
const fn count(board: Board, more: &[Choice]) -> usize {
    let (mut count, mut list) = (more.len(), 0);
    while list < MODELS.len() {
        let mut row = 0;
        while row < MODELS[list].len() {
            if MODELS[list][row].is_offered(board) {
                count += 1 + MODELS[list][row].aliases.len();
            }
            row += 1;
        }
        list += 1;
    }
    count
}

/// The `N` choices of `-device`: every row of the registry that is offered for `board`, its aliases behind it, and `more`.
const fn choices<const N: usize>(board: Board, more: &[Choice]) -> [Choice; N] {
    let mut all = [LOADER; N];
    let (mut place, mut list) = (0, 0);
    while list < MODELS.len() {
        let mut row = 0;
        while row < MODELS[list].len() {
            let model = MODELS[list][row];
            row += 1;
            if !model.is_offered(board) {
                continue;
            }
            all[place] = Choice { name: model.name, help: model.help, offer: Offer::Device(model) };
            place += 1;
            let mut index = 0;
            while index < model.aliases.len() {
                all[place] = alias(model.aliases[index], model.name);
                place += 1;
                index += 1;
            }
        }
        list += 1;
    }
    let mut index = 0;
    while index < more.len() {
        all[place] = more[index];
        place += 1;
        index += 1;
    }
    all
}

/// `-device` of a PC.
pub(super) const DEVICE: Family = Family {
    option: "-device",
    noun: "a device",
    implied: "driver",
    heading: "Supported devices are:",
    common: DEVICES_LATER,
    choices: &choices::<{ count(Board::Pc, PC_MORE) }>(Board::Pc, PC_MORE),
};

/// `-device` of a RISC-V machine.
pub(super) const DEVICE_RISCV: Family = Family {
    option: "-device",
    noun: "a device",
    implied: "driver",
    heading: "Supported devices are:",
    common: DEVICES_LATER,
    choices: &choices::<{ count(Board::Virt, VIRT_MORE) }>(Board::Virt, VIRT_MORE),
};

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
    left_out("pvpanic-pci", "the host is not told that the guest panics"),
    later("ivshmem-*"),
    left_out("i6300esb", "the guest has no watchdog"),
    lacks("intel-iommu", &subjects::IOMMU),
    lacks("amd-iommu", &subjects::IOMMU),
    lacks("tpm-*", &subjects::TPM),
    lacks("vfio-*", &subjects::VFIO),
    left_out("vmcoreinfo", "the host has no notes on the guest's kernel"),
    left_out("vmgenid", "the guest finds no identity of its machine that changes with copies"),
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
    left_out("sga", "firmware uses the serial port with -nographic"),
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
    common: &[],
    choices: &[
        yes("none", "no display", &[]),
        yes("curses", "the screen's text in this terminal", &[key_later("charset")]),
        Choice { name: "vnc", help: "", offer: Offer::Instead("use -display vnc=HOST:N or -vnc HOST:N") },
        later("dbus"),
        lacks("spice-app", &subjects::SPICE),
    ],
};

/// `-vga`.
pub(super) const VGA: Family = Family {
    option: "-vga",
    noun: "a display adapter",
    implied: "type",
    heading: "Supported display adapters:",
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
