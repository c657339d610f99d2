//! Networks in monitors: `info network` and `info usernet`.

use std::fmt::Write;

use mimus_hw::registry::VIRTIO_NET;
use serde_json::{Value, json};

use super::{Adapter, Device, Inventory, Part};
use mimus_host::config::{Link, NetBackend, Netdev};

/// A network as QEMU describes it.
fn network(netdev: &Netdev) -> String {
    match &netdev.backend {
        NetBackend::User(user) => {
            let restrict = if user.restrict { "on" } else { "off" };
            format!("type=user,net={},restrict={restrict}", user.network)
        }
        NetBackend::Link(Link::Listen(end)) => format!("type=stream,listening on {end}"),
        NetBackend::Link(Link::Connect { end, .. }) => format!("type=stream,connected to {end}"),
        NetBackend::Link(Link::Datagrams { local, remote }) => {
            let end = |name: &str, end: &Option<mimus_host::config::Endpoint>| {
                end.as_ref().map(|end| format!(",{name}={end}")).unwrap_or_default()
            };
            format!("type=dgram{}{}", end("local", local), end("remote", remote))
        }
        NetBackend::Link(Link::Multicast { group, .. }) => format!("type=socket,mcast={group}"),
    }
}

/// What a network is called that has an adapter of this number.
fn network_name(netdev: &Netdev, number: usize) -> String {
    if netdev.id.is_empty() { format!("#net{number}") } else { netdev.id.clone() }
}

impl Inventory {
    fn adapters(&self) -> impl Iterator<Item = (&Device, &Adapter)> {
        self.devices.iter().filter_map(|device| match &device.part {
            Part::Adapter(adapter) => Some((device, adapter)),
            _ => None,
        })
    }

    /// What an adapter's network is called; empty if it is in none.
    pub(super) fn network_of(&self, device: &Device) -> String {
        let found = self.adapters().enumerate().find(|(_, (other, _))| std::ptr::eq(*other, device));
        found
            .and_then(|(number, (_, adapter))| Some(network_name(adapter.netdev.as_ref()?, number)))
            .unwrap_or_default()
    }

    /// What monitors call an adapter that is the one of this number.
    fn adapter_name(&self, device: &Device, number: usize) -> String {
        let same = self.adapters().take(number).filter(|(other, _)| other.model == device.model).count();
        if device.id.is_empty() { format!("{}.{same}", device.model.name) } else { device.id.clone() }
    }

    /// Every network's name, a line each.
    pub(super) fn network_names(&self) -> String {
        let names = self.adapters().map(|(device, _)| self.network_of(device));
        names.filter(|name| !name.is_empty()).map(|name| name + "\n").collect()
    }

    /// Plugs or unplugs the cable of the adapter that is called `name`, or whose network is.
    ///
    /// # Errors
    ///
    /// A sentence: there is none, or nothing at its other end.
    pub fn set_link(&self, name: &str, up: bool) -> Result<(), String> {
        let is = |(number, (device, _)): &(usize, (&Device, &Adapter))| {
            self.adapter_name(device, *number) == name || self.network_of(device) == name
        };
        let found = self.adapters().enumerate().find(is).filter(|_| !name.is_empty());
        let (_, (_, adapter)) = found.ok_or_else(|| format!("Device '{name}' not found"))?;
        let watcher = adapter.watcher.as_ref().ok_or_else(|| format!("'{name}' is plugged into nothing"))?;
        watcher.set_link(up)
    }

    /// Adds or removes a forwarded port of the network of this name, or of the first.
    ///
    /// # Errors
    ///
    /// A sentence: there is no such network, or the rule is wrong or cannot be.
    pub fn forward(&self, network: Option<&str>, rule: &str, add: bool) -> Result<(), String> {
        let is_user = |adapter: &Adapter| {
            adapter.netdev.as_ref().is_some_and(|netdev| matches!(netdev.backend, NetBackend::User(_)))
        };
        let mut users = self.adapters().filter(|(_, adapter)| is_user(adapter));
        let found = match network {
            Some(name) => users.find(|(device, _)| self.network_of(device) == name),
            None => users.next(),
        };
        let missing = || match network {
            Some(name) => format!("unrecognized netdev id '{name}'"),
            None => "invalid parameter: there is no user-mode network".to_owned(),
        };
        let watcher = found.and_then(|(_, adapter)| adapter.watcher.as_ref()).ok_or_else(missing)?;
        watcher.forward(rule, add)
    }

    /// What of a network reaches the guest, of adapters that can tell: everything, since the drivers cannot ask for less.
    pub(super) fn filters_json(&self) -> Value {
        let virtio = self.adapters().enumerate().filter(|(_, (device, _))| VIRTIO_NET.has(device.model));
        let one = |(number, (device, adapter)): (usize, (&Device, &Adapter))| {
            json!({
                "name": self.adapter_name(device, number),
                "promiscuous": true,
                "multicast": "all",
                "unicast": "all",
                "vlan": "all",
                "broadcast-allowed": true,
                "multicast-overflow": false,
                "unicast-overflow": false,
                "main-mac": adapter.mac.map(|byte| format!("{byte:02x}")).join(":"),
                "vlan-table": [],
                "unicast-table": [],
                "multicast-table": [],
            })
        };
        virtio.map(one).collect()
    }

    pub(super) fn network_text(&self) -> String {
        let mut out = String::new();
        for (number, (device, adapter)) in self.adapters().enumerate() {
            let name = self.adapter_name(device, number);
            let mac = adapter.mac.map(|byte| format!("{byte:02x}")).join(":");
            let _ = writeln!(out, "{name}: index=0,type=nic,model={},macaddr={mac}", device.model.name);
            if let Some(netdev) = &adapter.netdev {
                let _ = writeln!(out, " \\ {}: index=0,{}", network_name(netdev, number), network(netdev));
            }
        }
        out
    }

    /// The connections of all gateways; waits for the threads that know them.
    pub(in crate::machine) fn usernet_text(&self) -> String {
        let mut out = String::new();
        for (number, (_, adapter)) in self.adapters().enumerate() {
            let Some(netdev) = &adapter.netdev else { continue };
            let NetBackend::User(_) = netdev.backend else { continue };
            let _ = writeln!(out, "Hub -1 ({}):", network_name(netdev, number));
            out.push_str("  Protocol[State]    Source Address  Port   Dest. Address  Port RecvQ SendQ\n");
            for row in adapter.watcher.iter().flat_map(|watcher| watcher.connections()) {
                let (source, dest) = (row.source, row.dest);
                let _ = writeln!(
                    out,
                    "  {:<16} {:>16} {:>5} {:>15} {:>5} {:>5} {:>5}",
                    format!("{}[{}]", row.protocol, row.state),
                    source.ip(),
                    source.port(),
                    dest.ip(),
                    dest.port(),
                    row.to_guest,
                    row.to_host,
                );
            }
        }
        out
    }
}
