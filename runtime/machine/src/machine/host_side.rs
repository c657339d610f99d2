//! The host's side of devices of any machine: what of it each is made of, and how its threads reach virtio devices.

use anyhow::{Context, Result};
use mimus_hw::registry::{Handle, Host, Kind, Model, Parts as DeviceParts, VGA, VIRTCONSOLE};
use mimus_hw::virtio::{self, Entropy, Virtio};

use super::access::{AdapterExchange, DeviceAccess};
use super::input::Input;
use super::inventory::{Adapter as AdapterRow, Attachment, Drive, Inventory, Medium};
use super::{Parts, screen};
use crate::config::{Backend, Device};
use mimus_host::block::{DiskQueue, DiskThread, Image};
use mimus_host::chardev::Source;
use mimus_host::config::{Chardev, Disk};
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
    /// What a device is connected to that has nothing else, and where its input comes from.
    Chars(Chardev, Option<Source>),
    /// Each port's number, what it is connected to, and where its input comes from.
    Console(Vec<(u32, Chardev, Option<Source>)>),
}

/// What `device` is made of, with its host's side, and what of that is to be started.
pub(super) fn parts<'d>(parts: &Parts, device: &'d Device) -> Result<(DeviceParts<'d>, Unstarted)> {
    let (handle, unstarted) = host_side(parts, device)?;
    Ok((DeviceParts { values: &device.values, mem: parts.dma(), handle }, unstarted))
}

/// What to say of a row whose handle is of another kind.
pub(super) fn mismatch(model: &Model) -> String {
    format!("{}: its row makes no such device", model.name)
}

/// What `device` has of the host's, and what of that is to be started.
fn host_side(parts: &Parts, device: &Device) -> Result<(Handle, Unstarted)> {
    let option = &device.option;
    Ok(match &device.backend {
        Backend::Disk(disk) => {
            let image = Image::open(&disk.option, disk)?;
            let jobs = parts.disk_queue();
            let handle = Handle::Disk(image.info(&disk.serial), jobs.backend());
            (handle, Unstarted::Disk(Box::new((jobs, image, (**disk).clone()))))
        }
        Backend::Network(netdev) => {
            let open = |netdev| NetQueue::open(netdev, parts.config.process.runner.clone());
            let network = netdev.as_deref().map(open).transpose()?;
            let mac = device.values.mac().with_context(|| format!("{option}: mac: it is not six bytes"))?;
            let handle = Handle::Network(mac, network.as_ref().map(NetQueue::peer));
            (handle, network.map_or(Unstarted::Nothing, Unstarted::Network))
        }
        Backend::Ports(ports) => console(parts, ports)?,
        Backend::Folder(folder) => {
            let folder = ShareQueue::open(folder)?;
            let tag = device.values.text("mount_tag").unwrap_or_default();
            let handle = Handle::Folder(tag, folder.backend());
            (handle, Unstarted::Share(Box::new(folder)))
        }
        Backend::Chardev(chardev) => {
            let (chars, source) = parts.open(option, chardev)?;
            (Handle::Chars(chars), Unstarted::Chars(chardev.clone(), source))
        }
        Backend::Nothing if device.model == VGA => (screen::handle(parts, option)?, Unstarted::Nothing),
        Backend::Nothing => match device.model.host().map(|property| property.kind) {
            Some(Kind::Id(Host::Random)) => (Handle::Random(Box::new(HostEntropy)), Unstarted::Nothing),
            _ => (Handle::Nothing, Unstarted::Nothing),
        },
    })
}

/// The number of a port.
fn number(port: &Device) -> u32 {
    port.values.port("nr").into()
}

/// Opens what consoles and ports are connected to.
fn console(parts: &Parts, ports: &[Device]) -> Result<(Handle, Unstarted)> {
    let (mut made, mut inputs) = (Vec::new(), Vec::new());
    for port in ports {
        let chardev = port.chardev().cloned().unwrap_or(Chardev::None);
        let (sink, source) = parts.open(&port.option, &chardev)?;
        let (number, name) = (number(port), port.values.text("name").unwrap_or_default());
        made.push(virtio::ConsolePort { number, name, console: port.model == VIRTCONSOLE, sink });
        inputs.push((number, chardev, source));
    }
    Ok((Handle::Ports(made), Unstarted::Console(inputs)))
}

/// Tells monitors of a device that was made and is plugged in at `place`.
pub(super) fn tell(inventory: &mut Inventory, place: Attachment, device: &Device, unstarted: &Unstarted) {
    let Device { model, plug, values, .. } = device;
    match (&device.backend, unstarted) {
        (Backend::Disk(disk), Unstarted::Disk(parts)) => {
            let (jobs, image, _) = &**parts;
            let (name, medium) = (inventory.virtio_name(disk), Some(Medium::new(disk, image)));
            let drive = Drive { name, removable: false, medium, counters: jobs.counters() };
            inventory.drive(place, model, plug, drive);
        }
        (Backend::Network(netdev), unstarted) => {
            let watcher = if let Unstarted::Network(network) = unstarted { Some(network.watcher()) } else { None };
            let mac = values.mac().unwrap_or_default();
            inventory.adapter(place, model, plug, AdapterRow { mac, netdev: netdev.as_deref().cloned(), watcher });
        }
        _ => inventory.plain(place, model, plug, &[]),
    }
    inventory.told(values);
    let controller = inventory.port();
    for port in device.ports() {
        inventory.plain(controller, port.model, &port.plug, &[]);
        inventory.told(&port.values);
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
            // A board brings it what is typed.
            Unstarted::Chars(..) => {}
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
