//! The keys of devices, by what devices have in common.

use super::keyval::{Key, Kind, accepted, among, fixed, key, key_later, without};

/// Keys of all devices, and of those on the PCI bus.
pub(super) const ID: Key = key("id", Kind::Text("a name"), "what monitors call it");
pub(super) const ADDR: Key =
    key("addr", Kind::Text("SLOT, in hexadecimal"), "its place on the bus, default the first free one");
pub(super) const BOOT_INDEX: Key =
    key("bootindex", Kind::Number(0, 0x7fff_ffff), "its place among what firmware boots, the lowest first");
pub(super) const PCI_BUS: Key = key("bus", Kind::Word(&["pci.0"]), "the bus");

/// What every function on the PCI bus has.
pub(super) const PCI: &[Key] = &[
    ID,
    ADDR,
    PCI_BUS,
    without("acpi-index", "the guest finds no such number"),
    accepted("command_serr_enable"),
    fixed("multifunction", "off"),
    // Devices have no ROM: an empty name is what they have.
    among("rombar", &["0", "off"]),
    fixed("romfile", ""),
    accepted("x-pcie-extcap-init"),
    accepted("x-pcie-lnksta-dllla"),
];

/// What every virtio device has. A guest does without the features that there are not.
const VIRTIO: &[Key] = &[
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
const VIRTIO_PCI: &[Key] = &[
    key(
        "disable-legacy",
        Kind::Word(&["on", "off", "auto", "true", "false"]),
        "on: no interface from before the standard, default off",
    ),
    key("disable-modern", Kind::Word(&["on", "off", "true", "false"]), "on: nothing but that interface"),
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

/// What the names of the buses begin with that are slots of a board with virtio-mmio.
pub(super) const SLOT_BUS: &str = "virtio-mmio-bus.";
const SLOT: &[Key] = &[
    ID,
    key(
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
    ),
];

/// Network adapters.
const NETWORK: &[Key] = &[
    key("mac", Kind::Text("six bytes, as in 52:54:00:12:34:56"), "hardware address"),
    key("netdev", Kind::Text("the id of a -netdev"), "what it is plugged into, default nothing"),
];
const E1000: &[Key] = &[
    BOOT_INDEX,
    accepted("autonegotiation"),
    accepted("extra_mac_registers"),
    accepted("init-vet"),
    accepted("migrate_tso_props"),
    accepted("mitigation"),
];

/// What of a virtio adapter a guest does without: what is left of work to the device, several queues, and control of it.
const VIRTIO_NETWORK: &[Key] = &[
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
const DISK: &[Key] = &[
    key("drive", Kind::Text("the id of a -drive with if=none, or the node-name of a -blockdev"), "the image"),
    key("serial", Kind::Text("up to 20 characters"), "serial number"),
    key("write-cache", Kind::Word(&["on", "off", "auto"]), "off: each write lasts before the guest hears of its end"),
    key("rerror", Kind::Word(&["auto", "report", "ignore", "stop"]), "what becomes of a read that failed"),
    key("werror", Kind::Word(&["auto", "report", "ignore", "stop", "enospc"]), "what becomes of a write that failed"),
    accepted("account-failed"),
    accepted("account-invalid"),
    without("backend_defaults", "sizes of blocks are as they are"),
    accepted("discard_granularity"),
    key("logical_block_size", Kind::Among(&["512"]), ""),
    accepted("min_io_size"),
    accepted("opt_io_size"),
    accepted("physical_block_size"),
    accepted("share-rw"),
    without("cyls", "a disk's geometry is that of its size"),
    without("heads", "a disk's geometry is that of its size"),
    without("secs", "a disk's geometry is that of its size"),
];
const VIRTIO_DISK: &[Key] = &[
    accepted("config-wce"),
    accepted("discard"),
    // Each disk has a thread of its own.
    key("iothread", Kind::Text("the id of a -object iothread"), ""),
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
const IDE: &[Key] = &[
    key("bus", Kind::Word(&["ide.0", "ide.1"]), "the cable, default the first with a free place"),
    key("unit", Kind::Number(0, 1), "the place on it, default the first free one"),
    ID,
    BOOT_INDEX,
    key("model", Kind::Text("up to 40 characters"), "its name"),
    key("ver", Kind::Text("up to 8 characters"), "its firmware's revision"),
    key("wwn", Kind::Number(0, u64::MAX), "its world wide name"),
    without("bios-chs-trans", "a disk's geometry is that of its size"),
    accepted("rotation_rate"),
    accepted("win2k-install-hack"),
];

/// Consoles' controllers, and consoles.
const SERIAL: &[Key] = &[accepted("max_ports"), accepted("emergency-write")];
pub(super) const CONSOLE_KEYS: &[Key] = &[
    key("chardev", Kind::Text("the id of a -chardev"), "what it is connected to"),
    ID,
    key("name", Kind::Text("a name"), "what the guest finds it by"),
    key("bus", Kind::Text("the id of a virtio-serial device, with .0"), "default the first"),
    key("nr", Kind::Number(0, 30), "its number there, default the first free one; 0 is for a virtconsole"),
];

/// Sources of random numbers.
const RANDOM: &[Key] = &[
    key("rng", Kind::Text("the id of a -object"), "where they come from, which is the host in any case"),
    without("max-bytes", "random numbers are not limited"),
    accepted("period"),
];

/// Shared folders.
const FOLDER: &[Key] = &[
    key("fsdev", Kind::Text("the id of a -fsdev"), "the folder"),
    key("mount_tag", Kind::Text("up to 32 bytes"), "what the guest mounts it by"),
];

/// The display adapter.
pub(super) const VGA_KEYS: &[Key] = &[
    ID,
    key("vgamem_mb", Kind::Number(1, 256), "MiB of display memory, a power of two"),
    key("edid", Kind::Word(&["on", "off"]), "whether the monitor tells of itself"),
    key("xres", Kind::Number(64, 2560), "its width"),
    key("yres", Kind::Number(64, 1600), "its height"),
    PCI_BUS,
    accepted("addr"),
    accepted("big-endian-framebuffer"),
    accepted("mmio"),
    accepted("qemu-extended-regs"),
    accepted("refresh_rate"),
    among("rombar", &["0", "off"]),
    fixed("romfile", ""),
    accepted("xmax"),
    accepted("ymax"),
];

/// How many keys `lists` have.
const fn total(lists: &[&[Key]]) -> usize {
    let (mut sum, mut index) = (0, 0);
    while index < lists.len() {
        sum += lists[index].len();
        index += 1;
    }
    sum
}

/// All of `lists`, which have `N` keys, in one.
const fn joined<const N: usize>(lists: &[&[Key]]) -> [Key; N] {
    let mut all = [ID; N];
    let (mut place, mut list) = (0, 0);
    while list < lists.len() {
        let mut index = 0;
        while index < lists[list].len() {
            all[place] = lists[list][index];
            place += 1;
            index += 1;
        }
        list += 1;
    }
    all
}

/// The keys of a device: these lists, one behind the other.
macro_rules! keys {
    ($($list:expr),+) => {{
        const LISTS: &[&[Key]] = &[$($list),+];
        &joined::<{ total(LISTS) }>(LISTS)
    }};
}

pub(super) const PCI_ADAPTER: &[Key] = keys!(NETWORK, PCI, E1000);
pub(super) const PCI_VIRTIO_ADAPTER: &[Key] = keys!(NETWORK, PCI, &[BOOT_INDEX], VIRTIO_PCI, VIRTIO, VIRTIO_NETWORK);
pub(super) const ADAPTER: &[Key] = keys!(NETWORK, SLOT, VIRTIO, VIRTIO_NETWORK, &[accepted("bootindex")]);
pub(super) const PCI_TEST_KEYS: &[Key] = keys!(PCI, &[key_later("membar")]);
pub(super) const PCI_BLOCK_KEYS: &[Key] = keys!(DISK, PCI, &[BOOT_INDEX], VIRTIO_PCI, VIRTIO, VIRTIO_DISK);
pub(super) const BLOCK_KEYS: &[Key] = keys!(DISK, SLOT, VIRTIO, VIRTIO_DISK, &[accepted("bootindex")]);
pub(super) const IDE_KEYS: &[Key] = keys!(DISK, IDE);
pub(super) const PCI_SERIAL_KEYS: &[Key] = keys!(PCI, VIRTIO_PCI, VIRTIO, SERIAL);
pub(super) const SERIAL_KEYS: &[Key] = keys!(SLOT, VIRTIO, SERIAL);
pub(super) const PCI_RNG_KEYS: &[Key] = keys!(RANDOM, PCI, VIRTIO_PCI, VIRTIO);
pub(super) const RNG_KEYS: &[Key] = keys!(RANDOM, SLOT, VIRTIO);
pub(super) const PCI_FOLDER_KEYS: &[Key] = keys!(FOLDER, PCI, VIRTIO_PCI, VIRTIO);
pub(super) const FOLDER_KEYS: &[Key] = keys!(FOLDER, SLOT, VIRTIO);
