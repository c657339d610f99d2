//! Networks in monitors: `info network` and `info usernet`.

use std::fmt::Write;

use super::{Adapter, Device, Inventory, Part};
use crate::config::{Link, NetBackend, Netdev};

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
            let end = |name: &str, end: &Option<crate::config::Endpoint>| {
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

    pub(super) fn network_text(&self) -> String {
        let mut out = String::new();
        for (number, (device, adapter)) in self.adapters().enumerate() {
            let same = self.adapters().take(number).filter(|(other, _)| other.driver == device.driver).count();
            let name = if device.id.is_empty() { format!("{}.{same}", device.driver) } else { device.id.clone() };
            let mac = adapter.mac.map(|byte| format!("{byte:02x}")).join(":");
            let _ = writeln!(out, "{name}: index=0,type=nic,model={},macaddr={mac}", device.driver);
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
