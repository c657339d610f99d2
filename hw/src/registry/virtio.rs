//! Rows of the registry: virtio devices, on the PCI bus and in the slots of a board with virtio-mmio, and the ports of a
//! virtio-serial device.

use super::pci::FUNCTION;
use super::property::{
    BOOT_INDEX, Default, Host, ID, accepted, among, fixed, host, number, properties, text, without, word,
};
use super::{Board, Bus, Handle, Make, Model, Parts, Property, Values, Window, memory};
use crate::virt::{VIRTIO as SLOTS, VIRTIO_SLOTS};
use crate::virtio::{Interface, Virtio};

/// What every virtio device has. A guest does without the features that there are not.
const VIRTIO: &[Property] = &[
    accepted("any_layout"),
    accepted("event_idx"),
    accepted("indirect_desc"),
    without("iommu_platform", "devices reach all memory"),
    accepted("ioeventfd"),
    accepted("notify_on_empty"),
    without("packed", "queues are split"),
    accepted("queue_reset"),
    accepted("use-disabled-flag"),
    accepted("use-started"),
    accepted("x-disable-legacy-check"),
];

/// What a virtio device has on the PCI bus.
const VIRTIO_PCI: &[Property] = &[
    word("disable-legacy", &["on", "off", "auto", "true", "false"], "on: no interface from before the standard")
        .or(Default::Word("off")),
    word("disable-modern", &["on", "off", "true", "false"], "on: nothing but that interface"),
    without("aer", "there is no error reporting"),
    without("ats", "there is no address translation"),
    accepted("class"),
    accepted("migrate-extra"),
    accepted("modern-pio-notify"),
    accepted("page-per-vq"),
    accepted("vectors"),
    accepted("virtio-pci-bus-master-bug-migration"),
    accepted("x-ignore-backend-features"),
];

const SLOT: &[Property] = &[
    ID,
    word(
        "bus",
        &[
            "virtio-mmio-bus.0",
            "virtio-mmio-bus.1",
            "virtio-mmio-bus.2",
            "virtio-mmio-bus.3",
            "virtio-mmio-bus.4",
            "virtio-mmio-bus.5",
            "virtio-mmio-bus.6",
            "virtio-mmio-bus.7",
        ],
        "its slot, default the last free one",
    ),
];

/// Network adapters.
pub(super) const NETWORK: &[Property] = &[
    text("mac", "six bytes, as in 52:54:00:12:34:56", "hardware address"),
    host("netdev", Host::Netdev, "what it is plugged into, default nothing"),
];

/// What of a virtio adapter a guest does without: what is left of work to the device, several queues, and control of it.
const VIRTIO_NETWORK: &[Property] = &[
    accepted("csum"),
    accepted("ctrl_guest_offloads"),
    accepted("ctrl_mac_addr"),
    accepted("ctrl_rx"),
    accepted("ctrl_rx_extra"),
    accepted("ctrl_vlan"),
    accepted("ctrl_vq"),
    accepted("duplex"),
    fixed("failover", "off"),
    accepted("gso"),
    accepted("guest_announce"),
    accepted("guest_csum"),
    accepted("guest_ecn"),
    accepted("guest_rsc_ext"),
    accepted("guest_tso4"),
    accepted("guest_tso6"),
    accepted("guest_ufo"),
    without("hash", "packets have no hash"),
    accepted("host_ecn"),
    without("host_mtu", "the guest's packets may have 1500 bytes"),
    accepted("host_tso4"),
    accepted("host_tso6"),
    accepted("host_ufo"),
    without("mq", "there is one pair of queues"),
    accepted("mrg_rxbuf"),
    without("rss", "there is one pair of queues"),
    accepted("rx_queue_size"),
    accepted("speed"),
    accepted("status"),
    accepted("tx"),
    accepted("tx_queue_size"),
    accepted("x-txburst"),
    accepted("x-txtimer"),
];

/// Disks of every kind.
pub(super) const IMAGE: &[Property] = &[
    host("drive", Host::Drive, "the image"),
    text("serial", "up to 20 characters", "serial number"),
    word("write-cache", &["on", "off", "auto"], "off: each write lasts before the guest hears of its end"),
    word("rerror", &["auto", "report", "ignore", "stop"], "what becomes of a read that failed"),
    word("werror", &["auto", "report", "ignore", "stop", "enospc"], "what becomes of a write that failed"),
    accepted("account-failed"),
    accepted("account-invalid"),
    without("backend_defaults", "sizes of blocks are as they are"),
    accepted("discard_granularity"),
    among("logical_block_size", &["512"]),
    accepted("min_io_size"),
    accepted("opt_io_size"),
    accepted("physical_block_size"),
    accepted("share-rw"),
    without("cyls", "a disk's geometry is that of its size"),
    without("heads", "a disk's geometry is that of its size"),
    without("secs", "a disk's geometry is that of its size"),
];

const VIRTIO_DISK: &[Property] = &[
    accepted("config-wce"),
    accepted("discard"),
    // Each disk has a thread of its own.
    host("iothread", Host::Thread, ""),
    accepted("max-discard-sectors"),
    accepted("max-write-zeroes-sectors"),
    without("num-queues", "there is one queue"),
    accepted("queue-size"),
    accepted("report-discard-granularity"),
    accepted("request-merging"),
    fixed("scsi", "off"),
    accepted("seg-max-adjust"),
    accepted("write-zeroes"),
    accepted("x-enable-wce-if-config-wce"),
];

/// Consoles' controllers, and consoles.
const SERIAL: &[Property] = &[accepted("max_ports"), accepted("emergency-write")];

const PORT_PROPERTIES: &[Property] = &[
    host("chardev", Host::Chardev, "what it is connected to"),
    ID,
    text("name", "a name", "what the guest finds it by"),
    text("bus", "the id of a virtio-serial device, with .0", "default the first"),
    number("nr", 0, 30, "its number there, default the first free one; 0 is for a virtconsole"),
];

/// The bus of ports that a controller makes.
const SERIAL_BUSES: &[(&str, &str)] = &[("virtio-serial-bus.0", "virtio-serial-bus")];

/// Sources of random numbers.
const RANDOM: &[Property] = &[
    host("rng", Host::Random, "where they come from, which is the host in any case"),
    without("max-bytes", "random numbers are not limited"),
    accepted("period"),
];

/// Shared folders.
const FOLDER: &[Property] =
    &[host("fsdev", Host::Folder, "the folder"), text("mount_tag", "up to 32 bytes", "what the guest mounts it by")];

/// The registers of the slot that is given away first.
const SLOT_WINDOW: &[Window] = &[memory(SLOTS.base + (VIRTIO_SLOTS as u64 - 1) * SLOTS.size, 0x140, 4)];

/// How drivers reach a virtio device on the PCI bus whose properties have these values.
pub fn interface(values: &Values) -> Interface {
    match (values.is_on("disable-legacy"), values.is_on("disable-modern")) {
        (true, _) => Interface::Modern,
        (false, true) => Interface::Legacy,
        (false, false) => Interface::Transitional,
    }
}

/// Checks that there is a way to a virtio device on the PCI bus.
fn reachable(values: &Values) -> Result<(), String> {
    match values.is_on("disable-legacy") && values.is_on("disable-modern") {
        true => Err("disable-legacy=on,disable-modern=on leaves no way to reach it".to_owned()),
        false => Ok(()),
    }
}

/// A virtio device on either bus.
#[derive(Clone, Copy, Debug)]
pub struct Transports {
    /// As a function of the PCI bus.
    pub pci: &'static Model,
    /// In a slot of a board with virtio-mmio.
    pub slot: &'static Model,
}

impl Transports {
    /// The one for this board.
    pub const fn on(self, board: Board) -> &'static Model {
        if matches!(board, Board::Pc) { self.pci } else { self.slot }
    }

    /// Whether `model` is one of them.
    pub fn has(self, model: &Model) -> bool {
        *model == *self.pci || *model == *self.slot
    }
}

/// A network adapter.
pub const NET: Transports = Transports {
    pci: &Model {
        aliases: &["virtio-net"],
        help: "a network adapter, virtio",
        properties: properties!(NETWORK, FUNCTION, &[BOOT_INDEX], VIRTIO_PCI, VIRTIO, VIRTIO_NETWORK),
        check: reachable,
        make: Make::Virtio(net),
        fuzz: &["virtio-net-pci"],
        ..Model::on(Bus::Pci, "virtio-net-pci")
    },
    slot: &Model {
        aliases: &["virtio-net"],
        help: "a network adapter",
        properties: properties!(NETWORK, SLOT, VIRTIO, VIRTIO_NETWORK, &[accepted("bootindex")]),
        windows: SLOT_WINDOW,
        make: Make::Virtio(net),
        fuzz: &["virtio-net-mmio"],
        ..Model::on(Bus::Slot, "virtio-net-device")
    },
};

/// A disk.
pub const BLOCK: Transports = Transports {
    pci: &Model {
        aliases: &["virtio-blk"],
        help: "a disk",
        properties: properties!(IMAGE, FUNCTION, &[BOOT_INDEX], VIRTIO_PCI, VIRTIO, VIRTIO_DISK),
        check: reachable,
        make: Make::Virtio(block),
        fuzz: &["virtio-blk-pci"],
        ..Model::on(Bus::Pci, "virtio-blk-pci")
    },
    slot: &Model {
        aliases: &["virtio-blk"],
        help: "a disk",
        properties: properties!(IMAGE, SLOT, VIRTIO, VIRTIO_DISK, &[accepted("bootindex")]),
        windows: SLOT_WINDOW,
        make: Make::Virtio(block),
        fuzz: &["virtio-blk-mmio"],
        ..Model::on(Bus::Slot, "virtio-blk-device")
    },
};

/// The controller of consoles and ports.
pub const SERIAL_BUS: Transports = Transports {
    pci: &Model {
        aliases: &["virtio-serial"],
        help: "a virtio console's controller; see virtconsole",
        properties: properties!(FUNCTION, VIRTIO_PCI, VIRTIO, SERIAL),
        buses: SERIAL_BUSES,
        check: reachable,
        make: Make::Virtio(ports),
        fuzz: &["virtio-console-pci", "virtio-ports-pci"],
        ..Model::on(Bus::Pci, "virtio-serial-pci")
    },
    slot: &Model {
        aliases: &["virtio-serial"],
        help: "a virtio console's controller; see virtconsole",
        properties: properties!(SLOT, VIRTIO, SERIAL),
        buses: SERIAL_BUSES,
        windows: SLOT_WINDOW,
        make: Make::Virtio(ports),
        fuzz: &["virtio-console-mmio"],
        ..Model::on(Bus::Slot, "virtio-serial-device")
    },
};

/// A source of random numbers.
pub const RNG: Transports = Transports {
    pci: &Model {
        aliases: &["virtio-rng"],
        help: "a source of random numbers",
        properties: properties!(RANDOM, FUNCTION, VIRTIO_PCI, VIRTIO),
        check: reachable,
        make: Make::Virtio(rng),
        fuzz: &["virtio-rng-pci"],
        ..Model::on(Bus::Pci, "virtio-rng-pci")
    },
    slot: &Model {
        aliases: &["virtio-rng"],
        help: "a source of random numbers",
        properties: properties!(RANDOM, SLOT, VIRTIO),
        windows: SLOT_WINDOW,
        make: Make::Virtio(rng),
        fuzz: &["virtio-rng-mmio"],
        ..Model::on(Bus::Slot, "virtio-rng-device")
    },
};

/// A shared folder.
pub const SHARE: Transports = Transports {
    pci: &Model {
        aliases: &["virtio-9p"],
        help: "a folder of the host's",
        properties: properties!(FOLDER, FUNCTION, VIRTIO_PCI, VIRTIO),
        check: reachable,
        make: Make::Virtio(share),
        fuzz: &["virtio-9p-pci"],
        ..Model::on(Bus::Pci, "virtio-9p-pci")
    },
    slot: &Model {
        aliases: &["virtio-9p"],
        help: "a folder of the host's",
        properties: properties!(FOLDER, SLOT, VIRTIO),
        windows: SLOT_WINDOW,
        make: Make::Virtio(share),
        fuzz: &["virtio-9p-mmio"],
        ..Model::on(Bus::Slot, "virtio-9p-device")
    },
};

/// A console at a controller.
pub const CONSOLE: &Model = &Model {
    help: "a console at a virtio-serial device before it",
    properties: PORT_PROPERTIES,
    fuzz: &["virtio-console-pci"],
    ..Model::on(Bus::Ports, "virtconsole")
};

/// A port with a name at a controller.
pub const PORT: &Model = &Model {
    help: "a port with a name at a virtio-serial device before it",
    properties: PORT_PROPERTIES,
    fuzz: &["virtio-ports-pci"],
    ..Model::on(Bus::Ports, "virtserialport")
};

pub(super) const PCI_ROWS: &[&Model] = &[NET.pci, BLOCK.pci, SERIAL_BUS.pci, RNG.pci, SHARE.pci];
pub(super) const SLOT_ROWS: &[&Model] = &[BLOCK.slot, SERIAL_BUS.slot, RNG.slot, SHARE.slot, NET.slot];
pub(super) const PORT_ROWS: &[&Model] = &[CONSOLE, PORT];

fn net(parts: Parts<'_>) -> Option<Virtio> {
    let Handle::Network(mac, peer) = parts.handle else { return None };
    Some(Virtio::net(parts.mem, mac, peer))
}

fn block(parts: Parts<'_>) -> Option<Virtio> {
    let Handle::Disk(info, backend) = parts.handle else { return None };
    Some(Virtio::block(parts.mem, info, backend))
}

fn rng(parts: Parts<'_>) -> Option<Virtio> {
    let Handle::Random(entropy) = parts.handle else { return None };
    Some(Virtio::rng(parts.mem, entropy))
}

fn share(parts: Parts<'_>) -> Option<Virtio> {
    let Handle::Folder(tag, backend) = parts.handle else { return None };
    Some(Virtio::share(parts.mem, tag, backend))
}

fn ports(parts: Parts<'_>) -> Option<Virtio> {
    let Handle::Ports(mut ports) = parts.handle else { return None };
    // A lone console needs no driver that knows of ports.
    Some(match ports.pop() {
        Some(only) if ports.is_empty() && only.console && only.number == 0 => Virtio::console(parts.mem, only.sink),
        last => Virtio::ports(parts.mem, ports.into_iter().chain(last).collect()),
    })
}
