//! The PC's virtio devices, on its PCI bus.

use anyhow::{Context, Result};
use mimus_hw::Pc;
use mimus_hw::pci::DevFn;
use mimus_hw::virtio::{Virtio, VirtioPci};

use super::super::Parts;
use super::super::inventory::{Adapter, Drive, Inventory, Medium, Place};
use super::super::virt::HostEntropy;
use super::Places;
use crate::block::{DiskQueue, DiskThread, Exchange, Image};
use crate::bus::Outside;
use crate::config::{Config, Disk, Plug, VirtioDevice};

/// A disk that has its place and not its thread.
type Unstarted = (DevFn, DiskQueue, Image, Disk);

/// What the configuration says of the devices' places.
pub(super) fn plugs(config: &Config) -> impl Iterator<Item = &Plug> {
    config.virtio.iter().map(VirtioDevice::plug)
}

/// Plugs in the devices that the configuration names; the disks among them.
pub(super) fn plug(parts: &Parts, pc: &mut Pc, places: &Places, inventory: &mut Inventory) -> Result<Vec<Unstarted>> {
    let mut disks = Vec::new();
    for device in &parts.config.virtio {
        let (mem, wanted) = (parts.dma(), device);
        let mut queue = None;
        let device = match device {
            VirtioDevice::Block(disk) => {
                let image = Image::open("-drive", disk)?;
                let jobs = DiskQueue::new();
                let device = Virtio::block(mem, image.info(&disk.serial), jobs.backend());
                queue = Some((jobs, image, disk.clone()));
                device
            }
            VirtioDevice::Rng(_) => Virtio::rng(mem, Box::new(HostEntropy)),
            // Those with a network are among the configuration's `nics`.
            VirtioDevice::Net { mac, .. } => Virtio::net(mem, *mac, None),
        };
        let at = places.plug(pc, wanted.plug(), None, Box::new(VirtioPci::new(device)))?;
        let place = Place::Pci(at);
        match (wanted, &queue) {
            (VirtioDevice::Block(disk), Some((jobs, image, _))) => {
                let drive = Drive {
                    name: inventory.virtio_name(disk),
                    removable: false,
                    medium: Some(Medium::new(disk, image)),
                    counters: jobs.counters(),
                };
                inventory.drive(place, "virtio-blk-pci", &disk.plug, drive);
            }
            (VirtioDevice::Net { plug, mac, .. }, _) => {
                let row = Adapter { mac: *mac, netdev: None, watcher: None };
                inventory.adapter(place, "virtio-net-pci", plug, row);
            }
            (device, _) => inventory.plain(place, "virtio-rng-pci", device.plug(), &[]),
        }
        disks.extend(queue.map(|(jobs, image, disk)| (at, jobs, image, disk)));
    }
    Ok(disks)
}

/// Starts the disks' threads.
pub(super) fn start(disks: Vec<Unstarted>, outside: &Outside) -> Result<Vec<DiskThread>> {
    let start = |(devfn, queue, image, disk): Unstarted| {
        let slot = Slot { outside: outside.clone(), devfn };
        queue.start(image, &disk, slot).context("cannot start a disk's thread")
    };
    disks.into_iter().map(start).collect()
}

/// A disk's way to its device.
struct Slot {
    outside: Outside,
    devfn: DevFn,
}

impl Slot {
    fn access<T: Default>(&self, f: impl FnOnce(&mut Virtio) -> T) -> T {
        let function = |function: &mut VirtioPci, _| f(function.device_mut());
        self.outside.access(|pc, now| pc.function(now, self.devfn, function)).unwrap_or_default()
    }
}

impl Exchange for Slot {
    fn fill(&self, token: u64, at: u64, bytes: &[u8]) -> bool {
        self.access(|device| device.block_fill(token, at, bytes))
    }

    fn take(&self, token: u64, at: u64, bytes: &mut [u8]) -> bool {
        self.access(|device| device.block_take(token, at, bytes))
    }

    fn done(&self, token: u64, ok: bool) {
        self.access(|device| device.block_done(token, ok));
    }
}
