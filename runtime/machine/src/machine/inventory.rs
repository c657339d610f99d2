//! What a machine is made of, a row a device: what monitors tell of devices, disks and networks comes from this.

mod block;
mod net;
mod tree;

use std::sync::Arc;

use mimus_hw::ata::Tray;
use mimus_hw::ide::IdePlace;
use mimus_hw::pci::DevFn;
use mimus_hw::registry::{self, Fixed, Location, Model, Values};

use crate::config::{Config, MachineKind};
use mimus_host::block::{Counters, Image};
use mimus_host::config::{Disk, Netdev, Plug};
use mimus_host::net::Watcher;
pub(super) use tree::Pci;

/// The bus that all begins with.
const ROOT: &str = "main-system-bus";

/// Where a device is plugged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attachment {
    /// On this bus, at no place that has a number.
    On(&'static str),
    /// On the PCI bus.
    Pci(DevFn),
    /// On a cable of the IDE controller.
    Ide(IdePlace),
    /// In a slot of the RISC-V board.
    Slot(usize),
    /// At the controller of this number among the devices.
    Port(usize),
}

impl Attachment {
    fn bus(self) -> &'static str {
        match self {
            Attachment::On(bus) => bus,
            Attachment::Pci(_) => "pci.0",
            Attachment::Ide(IdePlace { channel: 0, .. }) => "ide.0",
            Attachment::Ide(_) => "ide.1",
            Attachment::Slot(_) => ROOT,
            Attachment::Port(_) => "virtio-serial-bus.0",
        }
    }
}

/// A device.
#[derive(Debug)]
pub(super) struct Device {
    /// Its row.
    model: &'static Model,
    /// What the command line calls it; empty for nothing.
    id: String,
    place: Attachment,
    boot_index: Option<u32>,
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
            Attachment::Pci(devfn) => Some(format!("/pci@i0cf8/{kind}@{:x}/{below}", devfn >> 3)),
            Attachment::Ide(IdePlace { channel, unit }) => {
                Some(format!("/pci@i0cf8/ide@1,1/drive@{channel}/disk@{unit}"))
            }
            Attachment::On(_) | Attachment::Slot(_) | Attachment::Port(_) => None,
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

/// What every machine of this kind has.
pub(crate) fn board_drivers(machine: MachineKind) -> impl Iterator<Item = &'static str> {
    registry::fixed(machine.board()).filter(|(_, fixed)| !fixed.optional).map(|(model, _)| model.name)
}

impl Inventory {
    /// A machine without what the configuration adds.
    pub fn of(config: &Config) -> Inventory {
        let mut all = Inventory::default();
        for (model, fixed) in registry::fixed(config.machine.board()).filter(|(_, fixed)| !fixed.optional) {
            all.fixed(config, model, fixed);
        }
        all
    }

    /// Adds what the board may have, and this one has.
    pub fn optional(&mut self, config: &Config, model: &'static Model) {
        for fixed in model.fixed.iter().filter(|fixed| fixed.board == config.machine.board()) {
            self.fixed(config, model, fixed);
        }
    }

    fn fixed(&mut self, config: &Config, model: &'static Model, fixed: &Fixed) {
        let place = fixed.devfn.map_or(Attachment::On(fixed.bus), Attachment::Pci);
        let fact = (fixed.location != Location::Nowhere).then(|| ("", fixed.location.to_string()));
        let facts: Vec<_> = config.board_values(model).told().chain(fact).collect();
        self.plain(place, model, &Plug::default(), &facts);
    }

    fn add(&mut self, place: Attachment, model: &'static Model, plug: Plug, part: Part) {
        self.devices.push(Device { model, id: plug.id, place, boot_index: plug.boot_index, facts: Vec::new(), part });
    }

    /// Adds a device with nothing in it, and what is said of it.
    pub fn plain(&mut self, place: Attachment, model: &'static Model, plug: &Plug, facts: &[(&'static str, String)]) {
        self.add(place, model, plug.clone(), Part::Nothing);
        if let Some(device) = self.devices.last_mut() {
            device.facts = facts.to_vec();
        }
    }

    /// What else is to be told of the device that was added last: what its properties are, but for what is told of what is in it.
    pub fn told(&mut self, values: &Values) {
        let Some(device) = self.devices.pop() else { return };
        let known = self.contents(&device);
        let more = values.told().filter(|(name, _)| known.iter().all(|(other, _)| other != name));
        let facts = device.facts.iter().cloned().chain(more).collect();
        self.devices.push(Device { facts, ..device });
    }

    /// Where a port is of the controller that was added last.
    pub fn port(&self) -> Attachment {
        Attachment::Port(self.devices.len().saturating_sub(1))
    }

    /// Adds a disk or a drive for media.
    pub fn drive(&mut self, place: Attachment, model: &'static Model, plug: &Plug, drive: Drive) {
        drive.counters.name(&drive.name, &block::node_name(&drive));
        self.add(place, model, plug.clone(), Part::Drive(drive));
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
        let count = self.drives().filter(|(device, _)| !matches!(device.place, Attachment::Ide(_))).count();
        if disk.id.is_empty() { format!("virtio{count}") } else { disk.id.clone() }
    }

    /// Adds a network adapter.
    pub fn adapter(&mut self, place: Attachment, model: &'static Model, plug: &Plug, adapter: Adapter) {
        self.add(place, model, plug.clone(), Part::Adapter(adapter));
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
                Attachment::Ide(place) if drive.removable => Ok((place, &mut drive.medium)),
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
        self.devices.iter().find(|device| device.place == Attachment::Pci(devfn))
    }

    /// What the command line calls the function of the PCI bus at this place; empty for nothing.
    pub fn pci_id(&self, devfn: DevFn) -> String {
        self.at(devfn).map(|device| device.id.clone()).unwrap_or_default()
    }

    /// What the function is.
    pub fn pci_name(&self, devfn: DevFn) -> String {
        self.at(devfn)
            .map_or_else(|| format!("{:02x}.{:x}", devfn >> 3, devfn & 7), |device| device.model.name.to_owned())
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
