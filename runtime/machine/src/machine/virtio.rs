//! Virtio devices of any machine: what they are made of on the host's side, and how its threads reach them.

use anyhow::{Context, Result};
use mimus_hw::registry::{
    Handle, Parts as DeviceParts, Transports, VIRTCONSOLE, VIRTIO_9P, VIRTIO_BLK, VIRTIO_NET, VIRTIO_RNG,
    VIRTIO_SERIAL, VIRTSERIALPORT, Values,
};
use mimus_hw::virtio::{self, Entropy, Virtio};

use super::Parts;
use super::access::{AdapterExchange, DeviceAccess};
use super::input::Input;
use super::inventory::{Adapter as AdapterRow, Attachment, Drive, Inventory, Medium};
use crate::config::{ConsolePort, VirtioDevice};
use mimus_host::block::{DiskQueue, DiskThread, Image};
use mimus_host::chardev::Source;
use mimus_host::config::{Chardev, Disk, Plug};
use mimus_host::net::{NetQueue, NetThread};
use mimus_host::share::{self, ShareQueue, ShareThread};

/// The host's random numbers.
pub(super) struct HostEntropy;

impl Entropy for HostEntropy {
    fn fill(&mut self, out: &mut [u8]) {
        let mut rest = out;
        while !rest.is_empty() {
            // It has them from boot on, and signals are no reason to stop; without the call the guest gets zeros.
            match rustix::rand::getrandom(&mut *rest, rustix::rand::GetRandomFlags::empty()) {
                Ok(count) => rest = rest.get_mut(count..).unwrap_or_default(),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    tracing::warn!("no random numbers: {error}");
                    return;
                }
            }
        }
    }
}

/// What leads to a virtio device of a machine.
pub(super) trait VirtioAccess: DeviceAccess {
    /// Does something with the device at the present time, and passes on what it set off.
    fn access<T: Default>(&self, f: impl FnOnce(&mut Virtio) -> T) -> T;
}

/// A virtio device as the thread of a shared folder sees it.
struct ShareExchange<A>(A);

impl<A: VirtioAccess> share::Exchange for ShareExchange<A> {
    fn request(&self, token: u64) -> Option<virtio::ShareRequest> {
        self.0.access(|device| device.share_request(token))
    }

    fn answer(&self, token: u64, answer: &[u8]) {
        self.0.access(|device| device.share_answer(token, answer));
    }
}

/// The host's side of a device that is not plugged in yet.
pub(super) enum Unstarted {
    /// Nothing that runs.
    Nothing,
    Disk(Box<(DiskQueue, Image, Disk)>),
    Network(NetQueue),
    Share(Box<ShareQueue>),
    /// Each port's number, what it is connected to, and where its input comes from.
    Console(Vec<(u32, Chardev, Option<Source>)>),
}

/// The row of a device.
fn row(device: &VirtioDevice) -> Transports {
    match device {
        VirtioDevice::Block(_) => VIRTIO_BLK,
        VirtioDevice::Rng(_) => VIRTIO_RNG,
        VirtioDevice::Net { .. } => VIRTIO_NET,
        VirtioDevice::Console(..) => VIRTIO_SERIAL,
        VirtioDevice::Share(_) => VIRTIO_9P,
    }
}

/// Makes `device`, and the host's side of it.
pub(super) fn make(parts: &Parts, device: &VirtioDevice) -> Result<(Virtio, Unstarted)> {
    let (handle, unstarted) = host_side(parts, device)?;
    // It is the same in a slot.
    let model = row(device).pci;
    let made = model.virtio(DeviceParts { values: &Values::new(model), mem: parts.dma(), handle });
    Ok((made.with_context(|| format!("{}: its row makes no such device", model.name))?, unstarted))
}

/// What `device` has of the host's, and what of that is to be started.
fn host_side(parts: &Parts, device: &VirtioDevice) -> Result<(Handle, Unstarted)> {
    Ok(match device {
        VirtioDevice::Block(disk) => {
            let image = Image::open(&disk.option, disk)?;
            let jobs = parts.disk_queue();
            let handle = Handle::Disk(image.info(&disk.serial), jobs.backend());
            (handle, Unstarted::Disk(Box::new((jobs, image, disk.clone()))))
        }
        VirtioDevice::Rng(_) => (Handle::Random(Box::new(HostEntropy)), Unstarted::Nothing),
        VirtioDevice::Net { mac, netdev, .. } => {
            let open = |netdev| NetQueue::open(netdev, parts.config.process.runner.clone());
            let network = netdev.as_ref().map(open).transpose()?;
            let handle = Handle::Network(*mac, network.as_ref().map(NetQueue::peer));
            (handle, network.map_or(Unstarted::Nothing, Unstarted::Network))
        }
        VirtioDevice::Console(ports, _) => console(parts, ports)?,
        VirtioDevice::Share(share) => {
            let folder = ShareQueue::open(&share.folder)?;
            let handle = Handle::Folder(share.tag.clone(), folder.backend());
            (handle, Unstarted::Share(Box::new(folder)))
        }
    })
}

/// Opens what consoles and ports are connected to.
fn console(parts: &Parts, ports: &[ConsolePort]) -> Result<(Handle, Unstarted)> {
    let (mut made, mut inputs) = (Vec::new(), Vec::new());
    for ConsolePort { number, name, console, chardev, .. } in ports {
        let option = format!("-device {}", if *console { VIRTCONSOLE.name } else { VIRTSERIALPORT.name });
        let (sink, source) = parts.open(&option, chardev)?;
        made.push(virtio::ConsolePort { number: *number, name: name.clone(), console: *console, sink });
        inputs.push((*number, chardev.clone(), source));
    }
    Ok((Handle::Ports(made), Unstarted::Console(inputs)))
}

/// Tells monitors of a device that was made and is plugged in at `place`.
pub(super) fn tell(inventory: &mut Inventory, place: Attachment, device: &VirtioDevice, unstarted: &Unstarted) {
    let model = if matches!(place, Attachment::Pci(_)) { row(device).pci } else { row(device).slot };
    let plug = device.plug();
    match (device, unstarted) {
        (VirtioDevice::Block(disk), Unstarted::Disk(parts)) => {
            let (jobs, image, _) = &**parts;
            let (name, medium) = (inventory.virtio_name(disk), Some(Medium::new(disk, image)));
            let drive = Drive { name, removable: false, medium, counters: jobs.counters() };
            inventory.drive(place, model, plug, drive);
        }
        (VirtioDevice::Net { mac, netdev, .. }, unstarted) => {
            let watcher = if let Unstarted::Network(network) = unstarted { Some(network.watcher()) } else { None };
            let row = AdapterRow { mac: *mac, netdev: netdev.clone(), watcher };
            inventory.adapter(place, model, plug, row);
        }
        (VirtioDevice::Console(ports, _), _) => {
            inventory.plain(place, model, plug, &[]);
            let controller = inventory.port();
            for ConsolePort { id, number, name, console, chardev } in ports {
                let port = if *console { VIRTCONSOLE } else { VIRTSERIALPORT };
                let plug = Plug { id: id.clone(), ..Plug::default() };
                let facts = [("chardev", chardev.to_string()), ("nr", number.to_string()), ("name", name.clone())];
                inventory.plain(controller, port, &plug, &facts);
            }
        }
        (VirtioDevice::Share(share), _) => {
            let facts = [("mount_tag", share.tag.clone()), ("fsdev", share.folder.id.clone())];
            inventory.plain(place, model, plug, &facts);
        }
        _ => inventory.plain(place, model, plug, &[]),
    }
}

/// The host's side of devices that are plugged in.
#[derive(Default)]
pub(super) struct Started {
    pub(super) disks: Vec<DiskThread>,
    pub(super) networks: Vec<NetThread>,
    pub(super) shares: Vec<ShareThread>,
    /// What is not read before the machine runs.
    pub(super) inputs: Vec<Input>,
}

impl Started {
    /// Starts what a device needs that `access` leads to.
    pub(super) fn start(&mut self, unstarted: Unstarted, access: impl VirtioAccess) -> Result<()> {
        match unstarted {
            Unstarted::Nothing => {}
            Unstarted::Disk(disk) => {
                let (jobs, image, disk) = *disk;
                let attend = move || access.attend();
                self.disks.push(jobs.start(image, &disk, attend).context("cannot start a disk's thread")?);
            }
            Unstarted::Network(network) => {
                self.networks.push(network.start(AdapterExchange(access)).context("cannot start a network's thread")?);
            }
            Unstarted::Share(folder) => {
                self.shares.push(folder.start(ShareExchange(access)).context("cannot start a shared folder's thread")?);
            }
            Unstarted::Console(inputs) => {
                for (port, chardev, source) in inputs {
                    let (access, attended) = (access.clone(), access.clone());
                    let attend = move |here| attended.access(|device| device.console_attend(port, here));
                    let source = source.map(|source| source.attended(Box::new(attend)));
                    let deliver = move |bytes: &[u8]| access.access(|device| device.console_receive(port, bytes));
                    self.inputs.push(Input { chardev, source, deliver: Box::new(deliver) });
                }
            }
        }
        Ok(())
    }
}
