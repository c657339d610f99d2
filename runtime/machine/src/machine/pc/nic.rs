//! A PC's network adapters and the threads that serve them.

use anyhow::{Context, Result};
use mimus_hw::Pc;
use mimus_hw::e1000::E1000;
use mimus_hw::net::{Adapter, Batch, FrameQueue, Offloads};
use mimus_hw::pci::{DevFn, Function};
use mimus_hw::registry::{self, Handle, Parts as DeviceParts, VIRTIO_NET, Values};
use mimus_hw::virtio::VirtioPci;

use super::super::Parts;
use super::super::inventory::{Adapter as Row, Attachment, Inventory};
use super::Places;
use crate::bus::DeviceHandle;
use mimus_host::config::NicModel;
use mimus_host::net::{self, NetQueue, NetThread};

/// Where QEMU has the first adapter; programs know it by the name that follows from that.
const FIRST: DevFn = 3 << 3;

/// Networks that have their adapters and not their threads.
pub(super) type Unstarted = Vec<(DevFn, NicModel, NetQueue)>;

/// Plugs the adapters in; their networks.
pub(super) fn plug(parts: &Parts, pc: &mut Pc, places: &Places, inventory: &mut Inventory) -> Result<Unstarted> {
    let mut unstarted = Vec::new();
    for nic in &parts.config.nics {
        let open = |netdev| NetQueue::open(netdev, parts.config.process.runner.clone());
        let network = nic.netdev.as_ref().map(open).transpose()?;
        let (mem, peer) = (parts.dma(), network.as_ref().map(NetQueue::peer));
        let model = match nic.model {
            NicModel::E1000 => registry::E1000,
            NicModel::Virtio => VIRTIO_NET.pci,
        };
        let parts = DeviceParts { values: &Values::new(model), mem, handle: Handle::Network(nic.mac, peer) };
        let function = model.function(parts, nic.plug.interface);
        let function = function.with_context(|| format!("{}: its row makes no such device", model.name))?;
        let place = places.plug(pc, &nic.plug, Some(FIRST), function)?;
        let watcher = network.as_ref().map(NetQueue::watcher);
        let row = Row { mac: nic.mac, netdev: nic.netdev.clone(), watcher };
        inventory.adapter(Attachment::Pci(place), model, &nic.plug, row);
        unstarted.extend(network.map(|network| (place, nic.model, network)));
    }
    Ok(unstarted)
}

/// Starts the threads.
pub(super) fn start(unstarted: Unstarted, devices: &DeviceHandle) -> Result<Vec<NetThread>> {
    let start = |(place, model, network): (DevFn, NicModel, NetQueue)| {
        let exchange = NicExchange { devices: devices.clone(), place, model };
        network.start(exchange).context("cannot start a network's thread")
    };
    unstarted.into_iter().map(start).collect()
}

/// A network's way to its adapter.
struct NicExchange {
    devices: DeviceHandle,
    place: DevFn,
    model: NicModel,
}

impl NicExchange {
    /// Does something with the adapter at the present time, and passes on what it set off.
    fn access<T: Default>(&self, f: impl FnOnce(&mut dyn Adapter) -> T) -> T {
        let result = self.devices.access(|pc, now| match self.model {
            NicModel::E1000 => pc.function(now, self.place, |adapter: &mut E1000, now| {
                // Its pin waits by its own clock.
                adapter.advance(now);
                f(adapter)
            }),
            NicModel::Virtio => pc.function(now, self.place, |adapter: &mut VirtioPci, _| f(adapter.device_mut())),
        });
        result.unwrap_or_default()
    }
}

impl net::Exchange for NicExchange {
    fn transmit(&self, batch: &mut Batch) -> bool {
        self.access(|adapter| adapter.transmit(batch))
    }

    fn receive(&self, queue: &mut FrameQueue) -> bool {
        self.access(|adapter| adapter.receive(queue))
    }

    fn offloads(&self) -> Offloads {
        self.access(|adapter| adapter.offloads())
    }

    fn set_link(&self, up: bool) {
        self.access(|adapter| adapter.set_link(up));
    }
}
