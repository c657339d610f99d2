//! What a machine is made of, a row a device: what monitors tell of devices, disks and networks comes from this.

mod block;
mod net;
mod tree;

use std::sync::Arc;

use mimus_hw::ata::Tray;
use mimus_hw::ide::IdePlace;
use mimus_hw::pci::DevFn;

use crate::config::MachineKind;
use mimus_host::block::{Counters, Image};
use mimus_host::config::{Disk, Netdev, Plug};
use mimus_host::net::Watcher;
pub(super) use tree::Pci;

/// The bus that all begins with.
const ROOT: &str = "main-system-bus";

/// Where a device is plugged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// On this bus, at no place that has a number.
    On(&'static str),
    /// On the PCI bus.
    Pci(DevFn),
    /// On a cable of the IDE controller.
    Ide(IdePlace),
    /// In a slot of the RISC-V board.
    Slot(usize),
}

impl Place {
    fn bus(self) -> &'static str {
        match self {
            Place::On(bus) => bus,
            Place::Pci(_) => "pci.0",
            Place::Ide(IdePlace { channel: 0, .. }) => "ide.0",
            Place::Ide(_) => "ide.1",
            Place::Slot(_) => ROOT,
        }
    }
}

/// A device.
#[derive(Debug)]
pub(super) struct Device {
    /// QEMU's name of it.
    driver: &'static str,
    /// What the command line calls it; empty for nothing.
    id: String,
    place: Place,
    boot_index: Option<u32>,
    /// Buses that it makes, and their types.
    buses: &'static [(&'static str, &'static str)],
    /// What else there is to say of it.
    facts: Vec<(&'static str, String)>,
    part: Part,
}

impl Device {
    fn boot_path(&self) -> Option<String> {
        let (kind, below) = match self.part {
            Part::Drive(_) => ("scsi", "disk@0,0"),
            Part::Adapter(_) => ("ethernet", "ethernet-phy@0"),
            Part::Nothing => return None,
        };
        match self.place {
            Place::Pci(devfn) => Some(format!("/pci@i0cf8/{kind}@{:x}/{below}", devfn >> 3)),
            Place::Ide(IdePlace { channel, unit }) => Some(format!("/pci@i0cf8/ide@1,1/drive@{channel}/disk@{unit}")),
            Place::On(_) | Place::Slot(_) => None,
        }
    }
}

/// What is in a device.
#[derive(Debug)]
enum Part {
    Nothing,
    Drive(Drive),
    Adapter(Adapter),
}

/// A disk, or a drive for media.
#[derive(Debug)]
pub(super) struct Drive {
    /// What monitors call it.
    pub name: String,
    /// A CD-ROM drive.
    pub removable: bool,
    /// What is in it.
    pub medium: Option<Medium>,
    /// What was done with it.
    pub counters: Arc<Counters>,
}

/// An image in a drive.
#[derive(Debug)]
pub(super) struct Medium {
    disk: Disk,
    format: &'static str,
    /// Bytes that the guest sees.
    bytes: u64,
}

impl Medium {
    /// What is to be told of an open image.
    pub fn new(disk: &Disk, image: &Image) -> Medium {
        Medium { disk: disk.clone(), format: image.format().name(), bytes: image.bytes() }
    }
}

/// A network adapter.
#[derive(Debug)]
pub(super) struct Adapter {
    /// Its hardware address.
    pub mac: [u8; 6],
    /// What it is plugged into.
    pub netdev: Option<Netdev>,
    /// Who knows the network's connections.
    pub watcher: Option<Watcher>,
}

/// The devices of a machine.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    devices: Vec<Device>,
}

/// Devices that every PC has: where, what, the buses that they make, and what is said of them.
type BoardDevice = (Place, &'static str, &'static [(&'static str, &'static str)], &'static str);

const PC: &[BoardDevice] = &[
    (Place::On(ROOT), "ioapic", &[], "mmio 00000000fec00000/0000000000001000"),
    (Place::On(ROOT), "fw_cfg_io", &[], "iobase = 1296 (0x510)"),
    (Place::On(ROOT), "i440FX-pcihost", &[("pci.0", "PCI")], ""),
    (Place::Pci(0), "i440FX", &[], ""),
    (Place::Pci(1 << 3), "PIIX3", &[("isa.0", "ISA")], ""),
    (Place::Pci(1 << 3 | 1), "piix3-ide", &[("ide.0", "IDE"), ("ide.1", "IDE")], ""),
    (Place::Pci(1 << 3 | 3), "PIIX4_PM", &[], ""),
    (Place::On("isa.0"), "isa-i8259", &[], "iobase = 32 (0x20)"),
    (Place::On("isa.0"), "isa-i8259", &[], "iobase = 160 (0xa0)"),
    (Place::On("isa.0"), "i8257", &[], "iobase = 0 (0x0)"),
    (Place::On("isa.0"), "i8257", &[], "iobase = 192 (0xc0)"),
    (Place::On("isa.0"), "isa-pit", &[], "iobase = 64 (0x40)"),
    (Place::On("isa.0"), "mc146818rtc", &[], "isa irq 8"),
    (Place::On("isa.0"), "i8042", &[], "isa irqs 1,12"),
    (Place::On("isa.0"), "port92", &[], ""),
];

/// And those of the RISC-V board.
const VIRT: &[BoardDevice] = &[
    (Place::On(ROOT), "riscv.sifive.test", &[], "mmio 0000000000100000/0000000000001000"),
    (Place::On(ROOT), "goldfish_rtc", &[], "mmio 0000000000101000/0000000000001000"),
    (Place::On(ROOT), "riscv.aclint.swi", &[], "mmio 0000000002000000/0000000000004000"),
    (Place::On(ROOT), "riscv.aclint.mtimer", &[], "mmio 0000000002004000/0000000000008000"),
    (Place::On(ROOT), "riscv.sifive.plic", &[], "mmio 000000000c000000/0000000000600000"),
    (Place::On(ROOT), "serial-mm", &[], "mmio 0000000010000000/0000000000000100"),
];

/// And those of the board `spike`.
const SPIKE: &[BoardDevice] = &[
    (Place::On(ROOT), "riscv.aclint.swi", &[], "mmio 0000000002000000/0000000000004000"),
    (Place::On(ROOT), "riscv.aclint.mtimer", &[], "mmio 0000000002004000/0000000000008000"),
];

/// What every machine of this kind has.
pub(crate) fn board_drivers(machine: MachineKind) -> impl Iterator<Item = &'static str> {
    let rows = match machine {
        MachineKind::Pc => PC,
        MachineKind::Virt => VIRT,
        MachineKind::Spike => SPIKE,
    };
    rows.iter().map(|(_, driver, ..)| *driver)
}

impl Inventory {
    /// A PC without what the configuration adds.
    pub fn pc() -> Inventory {
        Inventory::board(PC)
    }

    /// The RISC-V board, the same.
    pub fn virt() -> Inventory {
        Inventory::board(VIRT)
    }

    /// The board `spike`, the same.
    pub fn spike() -> Inventory {
        Inventory::board(SPIKE)
    }

    fn board(rows: &[BoardDevice]) -> Inventory {
        let mut all = Inventory::default();
        for &(place, driver, buses, fact) in rows {
            all.add(place, driver, Plug::default(), Part::Nothing);
            if let Some(device) = all.devices.last_mut() {
                device.buses = buses;
                device.facts = Vec::from_iter((!fact.is_empty()).then(|| ("", fact.to_owned())));
            }
        }
        all
    }

    fn add(&mut self, place: Place, driver: &'static str, plug: Plug, part: Part) {
        self.devices.push(Device {
            driver,
            id: plug.id,
            place,
            boot_index: plug.boot_index,
            buses: &[],
            facts: Vec::new(),
            part,
        });
    }

    /// Adds a device with nothing in it, and what is said of it.
    pub fn plain(&mut self, place: Place, driver: &'static str, plug: &Plug, facts: &[(&'static str, String)]) {
        self.add(place, driver, plug.clone(), Part::Nothing);
        if let Some(device) = self.devices.last_mut() {
            device.facts = facts.to_vec();
        }
    }

    /// Adds a disk or a drive for media.
    pub fn drive(&mut self, place: Place, driver: &'static str, plug: &Plug, drive: Drive) {
        drive.counters.name(&drive.name, &block::node_name(&drive));
        self.add(place, driver, plug.clone(), Part::Drive(drive));
    }

    /// Where the devices are that firmware is to boot, in that order, as it names places (QEMU documentation, "Managing device
    /// boot order with bootindex properties").
    pub fn boot_paths(&self) -> Vec<String> {
        let indexed = self.devices.iter().filter_map(|device| Some((device.boot_index?, device.boot_path()?)));
        let mut paths: Vec<(u32, String)> = indexed.collect();
        paths.sort_by_key(|path| path.0);
        paths.into_iter().map(|path| path.1).collect()
    }

    /// What a disk is called that is the next to be plugged in as a virtio device, unless it has a name.
    pub fn virtio_name(&self, disk: &Disk) -> String {
        let count = self.drives().filter(|(device, _)| !matches!(device.place, Place::Ide(_))).count();
        if disk.id.is_empty() { format!("virtio{count}") } else { disk.id.clone() }
    }

    /// Adds a network adapter.
    pub fn adapter(&mut self, place: Place, driver: &'static str, plug: &Plug, adapter: Adapter) {
        self.add(place, driver, plug.clone(), Part::Adapter(adapter));
    }

    fn drives(&self) -> impl Iterator<Item = (&Device, &Drive)> {
        self.devices.iter().filter_map(|device| match &device.part {
            Part::Drive(drive) => Some((device, drive)),
            _ => None,
        })
    }

    /// The CD-ROM drive of this name or id: where it is, and what is in it.
    ///
    /// # Errors
    ///
    /// A sentence: there is no such drive, or it is a disk.
    pub fn removable(&mut self, name: &str) -> Result<(IdePlace, &mut Option<Medium>), String> {
        for device in &mut self.devices {
            let Part::Drive(drive) = &mut device.part else { continue };
            if drive.name != name && (device.id != name || name.is_empty()) {
                continue;
            }
            return match device.place {
                Place::Ide(place) if drive.removable => Ok((place, &mut drive.medium)),
                _ => Err(format!("Device '{name}' is not removable")),
            };
        }
        Err(format!("Device '{name}' not found"))
    }

    /// What a monitor is told about `topic`; `None` if this is not about devices. `tray` says how a CD-ROM drive's tray is,
    /// `pci` what is on the PCI bus.
    pub fn info(&self, topic: &str, tray: &mut dyn FnMut(IdePlace) -> Option<Tray>, pci: &[Pci]) -> Option<String> {
        Some(match topic {
            "block" => self.block_text(tray),
            "blockstats" => self.blockstats_text(),
            "network" => self.network_text(),
            "usernet" => self.usernet_text(),
            "qtree" => self.tree_text(pci),
            "qmp-block" => self.block_json(tray).to_string(),
            "qmp-block-nodes" => self.nodes_json().to_string(),
            "qmp-devices" => self.devices_json().to_string(),
            "qmp-rx-filters" => self.filters_json().to_string(),
            "networks" => self.network_names(),
            "qmp-blockstats" => self.blockstats_json().to_string(),
            _ => return None,
        })
    }

    fn at(&self, devfn: DevFn) -> Option<&Device> {
        self.devices.iter().find(|device| device.place == Place::Pci(devfn))
    }

    /// What the command line calls the function of the PCI bus at this place; empty for nothing.
    pub fn pci_id(&self, devfn: DevFn) -> String {
        self.at(devfn).map(|device| device.id.clone()).unwrap_or_default()
    }

    /// What the function is.
    pub fn pci_name(&self, devfn: DevFn) -> String {
        self.at(devfn).map_or_else(|| format!("{:02x}.{:x}", devfn >> 3, devfn & 7), |device| device.driver.to_owned())
    }

    /// A device's path in QEMU's object model.
    fn path(&self, device: &Device) -> String {
        if !device.id.is_empty() {
            return format!("/machine/peripheral/{}", device.id);
        }
        let index = self.devices.iter().position(|other| std::ptr::eq(other, device)).unwrap_or(0);
        // The vCPU comes before all others.
        format!("/machine/unattached/device[{}]", index + 1)
    }
}

#[cfg(test)]
mod tests;
