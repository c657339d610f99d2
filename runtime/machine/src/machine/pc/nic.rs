//! A PC's network adapters and the threads that serve them.

use anyhow::{Context, Result};
use mimus_hw::Pc;
use mimus_hw::pci::DevFn;
use mimus_hw::registry::{self, Handle, Parts as DeviceParts, VIRTIO_NET, Values};

use super::super::Parts;
use super::super::access::AdapterExchange;
use super::super::inventory::{Adapter as Row, Attachment, Inventory};
use super::{FunctionHandle, Places};
use crate::bus::DeviceHandle;
use mimus_host::config::NicModel;
use mimus_host::net::{NetQueue, NetThread};

/// Where QEMU has the first adapter; programs know it by the name that follows from that.
const FIRST: DevFn = 3 << 3;

/// Networks that have their adapters and not their threads.
pub(super) type Unstarted = Vec<(DevFn, NetQueue)>;

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
        unstarted.extend(network.map(|network| (place, network)));
    }
    Ok(unstarted)
}

/// Starts the threads.
pub(super) fn start(unstarted: Unstarted, devices: &DeviceHandle) -> Result<Vec<NetThread>> {
    let start = |(devfn, network): (DevFn, NetQueue)| {
        let access = FunctionHandle { devices: devices.clone(), devfn };
        network.start(AdapterExchange(access)).context("cannot start a network's thread")
    };
    unstarted.into_iter().map(start).collect()
}
